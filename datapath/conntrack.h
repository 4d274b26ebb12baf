/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_CONNTRACK_H
#define DATAPATH_CONNTRACK_H

#include "base/addr.h"
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * conntrack: reading the kernel's connection table over ctnetlink (libmnl).
 *
 * Source: net/netfilter/nf_conntrack_netlink.c. While a flow is offloaded the kernel leaves out CTA_TIMEOUT
 * and CTA_PROTOINFO; counters are there only for connections that began with nf_conntrack_acct=1.
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

#endif
