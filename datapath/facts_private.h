/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_FACTS_PRIVATE_H
#define DATAPATH_FACTS_PRIVATE_H

#include "datapath/facts.h"

#include <linux/netlink.h>

/*
 * facts_private: what the files behind facts.h and facts_watch.h share: orders of the entries, and rtnetlink
 * messages as entries. For these files and their tests only.
 */

/* Total orders, the ones that facts_sort() sorts by. */
int link_cmp(const struct link *a, const struct link *b);
int link_address_cmp(const struct link_address *a, const struct link_address *b);
int route_cmp(const struct route *a, const struct route *b);
/* One kind each; both sides sorted. */
bool facts_equal_links(const struct facts *a, const struct facts *b);
bool facts_equal_addresses(const struct facts *a, const struct facts *b);
bool facts_equal_routes(const struct facts *a, const struct facts *b);

/*
 * rtnetlink messages. 'h' is one whole message: its length was checked against the buffer (nlmsg_ok()),
 * nothing else was. All return 1: of interest, 0: a message that says nothing that facts hold, or -EBADMSG:
 * malformed. '*ret' is zeroed unless 1 is returned.
 */

/* RTM_NEWLINK and RTM_DELLINK of the device itself. 0: of a bridge's view of its port (AF_BRIDGE), or one
 * that does not describe the device in full (wireless events). */
int link_parse(const struct nlmsghdr *h, struct link *ret);
/* RTM_NEWADDR, RTM_DELADDR. 0: IPv6 link-local, or a family that is neither IPv4 nor IPv6. */
int link_address_parse(const struct nlmsghdr *h, struct link_address *ret);
/* RTM_NEWRULE. 0: one of those that every namespace has: no selector and table local, main or default. 1: any
 * other; '*ret_table' is the table it leads to, 0 when it leads to none of its own (goto, prohibit, l3mdev).
 */
int rule_parse(const struct nlmsghdr *h, uint32_t *ret_table);
/* RTM_NEWROUTE, RTM_DELROUTE. 0: not unicast, a cached clone, IPv6 link-local or multicast, or of a table
 * that is not among the 'n' of 'tables'. 1: the next hops were added to f->routes, those that are dead to the
 * kernel to dead->routes; a route whose hops the message does not spell out adds none. */
int route_parse(
	const struct nlmsghdr *h, const uint32_t *tables, size_t n, struct facts *f, struct facts *dead);

#endif
