/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_FACTS_FOLLOW_H
#define DATAPATH_FACTS_FOLLOW_H

#include "datapath/facts.h"

#include <linux/netlink.h>

/*
 * facts_follow: links, addresses and routes as the last dumps and every notification since tell them, at the
 * cost of the change. No socket, no clock. For facts_watch.c, facts_dump.c and tests only.
 *
 * What a notification alone does not settle is asked for: the caller dumps that kind and gives it to
 * facts_follow_dumped(). Notifications from before a dump may come after it: each leaves its object as it was
 * once, and the last one as it is.
 *
 * The kernel takes some routes away without a word: IPv4 routes of a link that went down (fib_sync_down_dev()
 * and fib_flush() in fib_frontend.c, fib_semantics.c), those with the source address that was deleted
 * (fib_sync_down_addr()), those of a deleted nexthop object; and a hop of a multipath route dies and comes
 * back with its link silently. The first are taken away here too, the others are dumped.
 */
#define FACTS_LINKS (1u << 0)
#define FACTS_ADDRESSES (1u << 1)
#define FACTS_ROUTES (1u << 2)
#define FACTS_RULES (1u << 3)
#define FACTS_ALL (FACTS_LINKS | FACTS_ADDRESSES | FACTS_ROUTES | FACTS_RULES)

/* The routing tables whose routes are facts, sorted. */
struct tables {
	uint32_t *ids;
	size_t n, cap;
};

struct followed {
	struct facts facts; /* sorted; of other members only policy_rules */
	struct tables tables;
	struct facts dead;   /* routes: hops that are dead to the kernel; in no order */
	uint32_t generation; /* of the link that was taken in last */
	bool has_links;      /* there was a dump of them */
};

/* Frees it; zeroes it. */
void followed_done(struct followed *k);
/*
 * Takes in one message: its length was checked against the buffer (nlmsg_ok()), nothing else was. Returns the kinds
 * that it changed; adds those that have to be dumped to '*dump'.
 */
uint32_t facts_follow(struct followed *k, const struct nlmsghdr *h, uint32_t *dump);
/*
 * Takes 'kinds' over from a dump, which loses them. 'lost': notifications were, so that any link may have gone and come
 * back in the meantime. Returns the kinds that changed; rules count only by their number.
 */
uint32_t facts_follow_dumped(struct followed *k, struct followed *dumped, uint32_t kinds, bool lost);

#endif
