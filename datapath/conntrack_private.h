/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_CONNTRACK_PRIVATE_H
#define DATAPATH_CONNTRACK_PRIVATE_H

#include "datapath/conntrack.h"

#include <libmnl/libmnl.h>
#include <stddef.h>

/* conntrack_private: the parts without a socket, for conntrack.c and its tests. */

/* A request's bytes: dump of all families, entries with the OFFLOAD bit. Into 'buf' of this many bytes at
 * least. */
#define CONNTRACK_REQUEST_SIZE 128
struct nlmsghdr *conntrack_request(void *buf, uint32_t seq);

/*
 * A request to delete this one entry, to be acknowledged. It always names a tuple: without one the kernel deletes every
 * entry that there is.
 */
#define CONNTRACK_DELETE_SIZE 256
struct nlmsghdr *conntrack_delete_request(void *buf, uint32_t seq, const struct flow *f);
/* What came after it. 1: nothing of this request, 0: deleted, negative: the kernel's errno, or -EBADMSG. */
int conntrack_parse_ack(const void *buf, size_t len, uint32_t seq, uint32_t portid);

/*
 * One IPCTNL_MSG_CT_NEW message, whose length was checked against the buffer (mnl_nlmsg_ok()). -EBADMSG when
 * it is shorter than its headers or lacks addresses or protocol of either direction; '*ret' is zeroed then.
 * Everything else may be absent.
 */
int conntrack_parse(const struct nlmsghdr *nlh, struct flow *ret);

struct conntrack_dump {
	uint32_t seq, portid; /* messages of another request or port are passed over */
	int (*each)(void *arg, const struct flow *f);
	void *arg;
	int result; /* first non-zero return of 'each', which is not called again then */
};
/*
 * What one receive returned. 1: the dump goes on, 0: it is complete, negative: the kernel refused it or the
 * bytes are no netlink messages (-EBADMSG).
 */
int conntrack_parse_dump(struct conntrack_dump *d, const void *buf, size_t len, struct error *err);

#endif
