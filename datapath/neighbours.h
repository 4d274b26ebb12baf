/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_NEIGHBOURS_H
#define DATAPATH_NEIGHBOURS_H

#include "datapath/facts.h"

#include <linux/netlink.h>

/*
 * neighbours: keeps the next hops of the node's routes resolved. For facts_watch.c and tests only.
 *
 * A packet on the slow path resolves its next hop; on the fast path of Linux 7.2 none does. A flow whose
 * neighbour was flushed, or collected as unused (the fast path marks none as used, and above
 * net.ipv4.neigh.default.gc_thresh1, 128, the unused go after a minute), sends to 00:00:00:00:00:00 from then
 * on. So whoever hears of a next hop's deletion has the kernel resolve it again, by NTF_USE, as if a packet
 * had been sent (net/core/neighbour.c, neigh_add()).
 */
struct hop {
	uint32_t ifindex;
	struct addr addr;
};

struct neighbours {
	struct hop *hops; /* sorted, no two alike */
	size_t n, cap;
};

/* The next hops that the routes of 'f' name: gateways, and the hosts of host routes (a pod, where the CNI routes). What
 * 'n' held before is replaced. neighbours_done() frees it. */
void neighbours_learn(struct neighbours *n, const struct facts *f);
void neighbours_done(struct neighbours *n);
/*
 * Whether a neighbour's deletion may stall a flow; then '*ret_ifindex' and '*ret' say whose. 'h' is a whole
 * message of any type: its length was checked against the buffer, nothing else was.
 *
 * The next hops of neighbours_learn() count always. Any other host on a link counts when no default route leads
 * over the link (a pods' network, even where Services are routed into it by a gateway, as Antrea does; on an uplink it
 * may be one of thousands), and when it had not failed to answer, so that one that is gone is asked for once.
 */
bool neighbours_lost(
	const struct facts *f, const struct nlmsghdr *h, uint32_t *ret_ifindex, struct addr *ret);
/* The request to resolve: in 'buffer', its length returned. */
#define NEIGHBOUR_REQUEST_SIZE 64
size_t neighbour_request(uint32_t ifindex, const struct addr *a, uint8_t buffer[NEIGHBOUR_REQUEST_SIZE]);

#endif
