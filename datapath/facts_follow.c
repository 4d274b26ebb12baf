/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/facts_follow.h"

#include "base/mem.h"
#include "datapath/facts_private.h"

#include <linux/rtnetlink.h>
#include <string.h>

/* In a sorted array: a place for 'item' at 'at', or none any more. */
#define INSERT(list, n, cap, at, item)                                                                       \
	do {                                                                                                 \
		(void)VEC_ADD(list, n, cap);                                                                 \
		memmove(&(list)[(at) + 1], &(list)[at], ((n)-1 - (at)) * sizeof(*(list)));                   \
		(list)[at] = (item);                                                                         \
	} while (0)
#define REMOVE(list, n, at)                                                                                  \
	do {                                                                                                 \
		(n)--;                                                                                       \
		memmove(&(list)[at], &(list)[(at) + 1], ((n) - (at)) * sizeof(*(list)));                     \
	} while (0)

void followed_done(struct followed *k)
{
	facts_done(&k->facts);
	facts_done(&k->dead);
	free(k->tables.ids);
	*k = (struct followed){0};
}

/* ---- routes ---- */

/* Destination and metric: what the kernel tells routes of one table apart by, next to their hops. */
static int key_cmp(const struct route *a, const struct route *b)
{
	int c = prefix_cmp(&a->dst, &b->dst);

	return c ? c : (a->metric > b->metric) - (a->metric < b->metric);
}

/* The first route that 'before' does not put before 'key'. */
static size_t lower_bound(const struct facts *f, const struct route *key,
	int (*cmp)(const struct route *, const struct route *))
{
	size_t low = 0, high = f->n_routes;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (cmp(&f->routes[middle], key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* How many hops there are to the destination of 'key' in its table, with its metric; '*ret_at': the last of them. */
static size_t hops_of(const struct facts *f, const struct route *key, size_t *ret_at)
{
	size_t n = 0;

	for (size_t i = lower_bound(f, key, key_cmp); i < f->n_routes && !key_cmp(&f->routes[i], key); i++) {
		if (f->routes[i].table != key->table)
			continue;
		n++;
		*ret_at = i;
	}
	return n;
}

static bool is_over(const struct route *r, uint32_t ifindex, uint8_t family)
{
	return r->ifindex == ifindex && (!family || r->dst.addr.family == family);
}

/* The link is down or gone, or has no address of the family (0: any) left, and so is what leads over it alone. */
static uint32_t lose_routes(struct followed *k, uint32_t ifindex, uint8_t family, uint32_t *dump)
{
	struct facts *f = &k->facts;
	size_t kept = 0, at;

	for (size_t i = 0; i < f->n_routes; i++) {
		if (is_over(&f->routes[i], ifindex, family) && hops_of(f, &f->routes[i], &at) > 1) {
			*dump |= FACTS_ROUTES;
			return 0;
		}
	}
	for (size_t i = 0; i < f->n_routes; i++)
		if (!is_over(&f->routes[i], ifindex, family))
			f->routes[kept++] = f->routes[i];
	if (kept == f->n_routes)
		return 0;
	f->n_routes = kept;
	return FACTS_ROUTES;
}

static bool leads_over(const struct facts *f, uint32_t ifindex)
{
	for (size_t i = 0; i < f->n_routes; i++)
		if (f->routes[i].ifindex == ifindex)
			return true;
	return false;
}

/* One hop that comes or goes where there is no other; everything else is for a dump to say. (What looks the same may have
 * another TOS.) */
static uint32_t follow_hop(struct followed *k, bool new, const struct route *hop, uint32_t *dump)
{
	struct facts *f = &k->facts;
	size_t at = 0, n = hops_of(f, hop, &at);

	if (new && !n) {
		at = lower_bound(f, hop, route_cmp);
		INSERT(f->routes, f->n_routes, f->cap_routes, at, *hop);
		return FACTS_ROUTES;
	}
	if (new || n > 1 || route_cmp(&f->routes[at], hop)) {
		*dump |= FACTS_ROUTES;
		return 0;
	}
	REMOVE(f->routes, f->n_routes, at);
	return FACTS_ROUTES;
}

static uint32_t follow_route(struct followed *k, const struct nlmsghdr *h, uint32_t *dump)
{
	bool new = h->nlmsg_type == RTM_NEWROUTE;
	struct facts live = {0}, dead = {0};
	uint32_t ret = 0;
	size_t at;
	int code = route_parse(h, k->tables.ids, k->tables.n, &live, &dead);
	size_t n = live.n_routes + dead.n_routes;
	const struct route *hop = live.n_routes ? live.routes : dead.routes;

	/* What replaces a route may be none itself: a blackhole. */
	if (code < 0 || (new && (h->nlmsg_flags & NLM_F_REPLACE)))
		*dump |= FACTS_ROUTES;
	else if (code == 1 && (n != 1 || (new &&dead.n_routes)))
		*dump |= FACTS_ROUTES;
	else if (code == 1 && (new || hops_of(&k->facts, hop, &at)))
		ret = follow_hop(k, new, hop, dump);
	facts_done(&live);
	facts_done(&dead);
	return ret;
}

/* ---- links ---- */

static size_t link_place(const struct facts *f, uint32_t ifindex)
{
	size_t low = 0, high = f->n_links;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (f->links[middle].ifindex < ifindex)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static uint32_t lose_link(struct followed *k, uint32_t ifindex, uint32_t *dump)
{
	struct facts *f = &k->facts;
	size_t kept = 0;
	size_t at = link_place(f, ifindex);
	uint32_t ret = FACTS_LINKS | lose_routes(k, ifindex, 0, dump);

	REMOVE(f->links, f->n_links, at);
	for (size_t i = 0; i < f->n_links; i++)
		if (f->links[i].lower == ifindex)
			f->links[i].lower = 0;
	for (size_t i = 0; i < f->n_addresses; i++)
		if (f->addresses[i].ifindex != ifindex)
			f->addresses[kept++] = f->addresses[i];
	if (kept != f->n_addresses)
		ret |= FACTS_ADDRESSES;
	f->n_addresses = kept;
	return ret;
}

/* Of two ends of a veth the one that comes first never says that it has got a peer. */
static void introduce(struct facts *f, const struct link *new)
{
	size_t at = link_place(f, new->lower);

	if (strcmp(new->kind, "veth") == 0 && at < f->n_links && f->links[at].ifindex == new->lower)
		f->links[at].lower = new->ifindex;
}

static bool in_vrf(const struct link *l)
{
	return strcmp(l->master_kind, "vrf") == 0;
}

/* What happens to routes when 'old' becomes 'new'. */
static uint32_t move_routes(
	struct followed *k, const struct link *old, const struct link *new, uint32_t *dump)
{
	if (old->master != new->master && (in_vrf(old) || in_vrf(new)))
		*dump |= FACTS_ROUTES;
	if (((!old->up && new->up) || (!old->carrier && new->carrier)) && leads_over(&k->dead, new->ifindex))
		*dump |= FACTS_ROUTES;
	if (old->up && !new->up)
		return lose_routes(k, new->ifindex, 0, dump);
	/* With ignore_routes_with_linkdown they are dead. */
	if (old->carrier && !new->carrier && leads_over(&k->facts, new->ifindex))
		*dump |= FACTS_ROUTES;
	return 0;
}

static uint32_t follow_link(struct followed *k, const struct nlmsghdr *h, uint32_t *dump)
{
	struct facts *f = &k->facts;
	struct link l, old;
	size_t at;
	bool known;
	int code = link_parse(h, &l);

	if (code < 0)
		*dump |= FACTS_ALL;
	if (code != 1)
		return 0;
	at = link_place(f, l.ifindex);
	known = at < f->n_links && f->links[at].ifindex == l.ifindex;
	if (h->nlmsg_type == RTM_DELLINK)
		return known ? lose_link(k, l.ifindex, dump) : 0;
	if (!known) {
		l.generation = ++k->generation;
		INSERT(f->links, f->n_links, f->cap_links, at, l);
		introduce(f, &l);
		return FACTS_LINKS;
	}
	old = f->links[at];
	l.generation = old.generation;
	if (link_cmp(&old, &l) == 0)
		return 0;
	f->links[at] = l;
	return FACTS_LINKS | move_routes(k, &old, &l, dump);
}

/* ---- addresses ---- */

/* What the kernel does to IPv4 routes without a word when an address goes; it left 'f' already. */
static uint32_t lose_address(struct followed *k, const struct link_address *a, uint32_t *dump)
{
	const struct facts *f = &k->facts;
	bool elsewhere = false, last = true;

	if (a->addr.family != AF_INET)
		return 0;
	for (size_t i = 0; i < f->n_addresses; i++) {
		elsewhere |= !addr_cmp(&f->addresses[i].addr, &a->addr);
		last &= f->addresses[i].ifindex != a->ifindex || f->addresses[i].addr.family != AF_INET;
	}
	/* Routes with this source; fib_del_ifaddr(). */
	if (!elsewhere)
		*dump |= FACTS_ROUTES;
	/* "Last address was deleted from this interface. Disable IP."; fib_inetaddr_event() */
	return last ? lose_routes(k, a->ifindex, AF_INET, dump) : 0;
}

static uint32_t follow_address(struct followed *k, const struct nlmsghdr *h, uint32_t *dump)
{
	struct facts *f = &k->facts;
	struct link_address a;
	size_t at = 0;
	bool known;
	int code = link_address_parse(h, &a);

	if (code < 0)
		*dump |= FACTS_ALL;
	if (code != 1)
		return 0;
	while (at < f->n_addresses && link_address_cmp(&f->addresses[at], &a) < 0)
		at++;
	known = at < f->n_addresses && !link_address_cmp(&f->addresses[at], &a);
	if (known == (h->nlmsg_type == RTM_NEWADDR))
		return 0;
	if (known) {
		REMOVE(f->addresses, f->n_addresses, at);
		return FACTS_ADDRESSES | lose_address(k, &a, dump);
	}
	/* One with another scope is the same address to the kernel. */
	for (size_t i = 0; i < f->n_addresses; i++)
		if (f->addresses[i].ifindex == a.ifindex && !addr_cmp(&f->addresses[i].addr, &a.addr))
			*dump |= FACTS_ADDRESSES;
	INSERT(f->addresses, f->n_addresses, f->cap_addresses, at, a);
	return FACTS_ADDRESSES;
}

uint32_t facts_follow(struct followed *k, const struct nlmsghdr *h, uint32_t *dump)
{
	uint32_t table;

	switch (h->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		return follow_link(k, h, dump);
	case RTM_NEWADDR:
	case RTM_DELADDR:
		return follow_address(k, h, dump);
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		return follow_route(k, h, dump);
	case RTM_NEWNEXTHOP:
	case RTM_DELNEXTHOP:
		*dump |= FACTS_ROUTES;
		break;
	case RTM_NEWRULE:
	case RTM_DELRULE:
		if (rule_parse(h, &table) != 0)
			*dump |= FACTS_RULES;
		break;
	}
	return 0;
}

/* ---- dumps ---- */

/* Gives the links of a dump their generations: what was there before is the same, unless that is not known. */
static void set_generations(struct followed *k, struct facts *fresh, bool lost)
{
	for (size_t i = 0; k->has_links && i < fresh->n_links; i++) {
		struct link *l = &fresh->links[i];
		const struct link *old = lost ? NULL : facts_link(&k->facts, l->ifindex);

		l->generation = old ? old->generation : ++k->generation;
	}
	k->has_links = true;
}

#define SWAP(a, b)                                                                                           \
	do {                                                                                                 \
		__auto_type swap_ = (a);                                                                     \
		(a) = (b);                                                                                   \
		(b) = swap_;                                                                                 \
	} while (0)

#define SWAP_ARRAY(a, b, member)                                                                             \
	do {                                                                                                 \
		SWAP((a)->member, (b)->member);                                                              \
		SWAP((a)->n_##member, (b)->n_##member);                                                      \
		SWAP((a)->cap_##member, (b)->cap_##member);                                                  \
	} while (0)

uint32_t facts_follow_dumped(struct followed *k, struct followed *dumped, uint32_t kinds, bool lost)
{
	struct facts *f = &k->facts, *fresh = &dumped->facts;
	uint32_t changed = 0;

	facts_sort(fresh);
	if (kinds & FACTS_RULES) {
		changed |= f->policy_rules != fresh->policy_rules ? FACTS_RULES : 0;
		f->policy_rules = fresh->policy_rules;
		SWAP(k->tables, dumped->tables);
	}
	if (kinds & FACTS_LINKS) {
		set_generations(k, fresh, lost);
		changed |= facts_equal_links(f, fresh) ? 0 : FACTS_LINKS;
		SWAP_ARRAY(f, fresh, links);
	}
	if (kinds & FACTS_ADDRESSES) {
		changed |= facts_equal_addresses(f, fresh) ? 0 : FACTS_ADDRESSES;
		SWAP_ARRAY(f, fresh, addresses);
	}
	if (kinds & FACTS_ROUTES) {
		changed |= facts_equal_routes(f, fresh) ? 0 : FACTS_ROUTES;
		SWAP_ARRAY(f, fresh, routes);
		SWAP_ARRAY(&k->dead, &dumped->dead, routes);
	}
	return changed;
}
