/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_CONNTRACK_H
#define DATAPATH_CONNTRACK_H

#include "base/addr.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * conntrack: the kernel's offloaded connections, read and ended over ctnetlink (libmnl).
 *
 * Source: net/netfilter/nf_conntrack_netlink.c. While a flow is offloaded the kernel leaves out CTA_TIMEOUT
 * and CTA_PROTOINFO; counters are there only for connections that began with nf_conntrack_acct=1.
 *
 * To delete its entry is the one way to end a single flow: the entry is marked as dying, and the fast path passes over
 * such ones at once (flow_offload_lookup() in nf_flow_table_core.c). The next packet of the connection makes a new
 * entry on the slow path, with a new choice of NAT, and is offloaded again when it was answered.
 */
#define FLOW_STATUS_DNAT (1u << 5)     /* IPS_DST_NAT */
#define FLOW_STATUS_OFFLOAD (1u << 14) /* IPS_OFFLOAD */
#define FLOW_STATUS_HW_OFFLOAD (1u << 15)

struct flow {
	uint8_t protocol; /* IPPROTO_TCP, IPPROTO_UDP, ... */
	struct addr original_src, original_dst, reply_src, reply_dst;
	uint16_t original_sport, original_dport, reply_sport, reply_dport; /* host order */
	uint32_t status;                                                   /* IPS_* bits */
	uint32_t id; /* CTA_ID: identity of the entry as long as it lives */
	uint16_t zone;
	bool counted;                  /* counters are there */
	uint64_t packets[2], bytes[2]; /* original, reply */
};

struct conntrack;
int conntrack_open(struct conntrack **ret, struct error *err);
void conntrack_close(struct conntrack *ct);
/*
 * Calls 'each' for every entry with the OFFLOAD bit (kernel-side status filter where the kernel has it,
 * checked here in any case). An interrupted dump (NLM_F_DUMP_INTR) is complete enough for counting and is not
 * an error. A non-zero return of 'each' ends the dump and is returned.
 */
int conntrack_each_offloaded(
	struct conntrack *ct, int (*each)(void *arg, const struct flow *f), void *arg, struct error *err);

/* Where the replies of a connection come from: behind a Service's address that is the endpoint. */
struct udp_endpoint {
	struct addr addr;
	uint16_t port; /* host order */
};
/* For qsort(3) and bsearch(3). */
int udp_endpoint_cmp(const void *a, const void *b);

/*
 * Deletes the offloaded UDP connections whose replies come from one of 'from' (in the order of udp_endpoint_cmp()), and
 * no other: one dump for all of them, then one request for each connection, by its original tuple, zone and CTA_ID, so
 * that a successor of the same tuple stays. One that is gone by then, by whomever, counts as none of ours. 'ended' is
 * called for each after its deletion, with the counters that the dump had. Returns how many were deleted.
 *
 * -EBUSY: this kernel does not delete offloaded connections (before 6.4, 6.3.6, 6.1.32, 5.15.115; commit 9b7c68b3911a
 * "netfilter: ctnetlink: Support offloaded conntrack entry deletion"). Nothing was deleted, nor is it asked again.
 */
int conntrack_end_udp(struct conntrack *ct, const struct udp_endpoint *from, size_t n,
	void (*ended)(void *arg, const struct flow *f), void *arg, struct error *err);
/* Whether the kernel has refused that; false as long as it was not asked. */
bool conntrack_cannot_end(const struct conntrack *ct);

#endif
