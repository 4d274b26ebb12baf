/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/facts.h"

#include "base/mem.h"
#include "datapath/facts_private.h"

#include <linux/rtnetlink.h>
#include <string.h>

#define COMPARE(a, b) (((a) > (b)) - ((a) < (b)))

void facts_done(struct facts *f)
{
	free(f->links);
	free(f->addresses);
	free(f->routes);
	memset(f, 0, sizeof(*f));
}

static void *copy_array(const void *from, size_t n, size_t size)
{
	return n ? xmemdup(from, n * size) : NULL;
}

void facts_copy(const struct facts *from, struct facts *ret)
{
	*ret = *from;
	ret->links = copy_array(from->links, from->n_links, sizeof(*from->links));
	ret->cap_links = from->n_links;
	ret->addresses = copy_array(from->addresses, from->n_addresses, sizeof(*from->addresses));
	ret->cap_addresses = from->n_addresses;
	ret->routes = copy_array(from->routes, from->n_routes, sizeof(*from->routes));
	ret->cap_routes = from->n_routes;
}

/* The three orders are total: what compares equal is equal, so that sorted arrays of equal states are equal.
 * Members one by one, for padding is nobody's business. */
int link_cmp(const struct link *a, const struct link *b)
{
	int c = COMPARE(a->ifindex, b->ifindex);

	if (!c)
		c = strcmp(a->name, b->name);
	if (!c)
		c = strcmp(a->kind, b->kind);
	if (!c)
		c = strcmp(a->master_kind, b->master_kind);
	if (!c)
		c = COMPARE(a->master, b->master);
	if (!c)
		c = COMPARE(a->lower, b->lower);
	if (!c)
		c = COMPARE(a->type, b->type);
	if (!c)
		c = COMPARE(a->mtu, b->mtu);
	if (!c)
		c = memcmp(a->mac, b->mac, sizeof(a->mac));
	if (!c)
		c = COMPARE(a->up, b->up);
	if (!c)
		c = COMPARE(a->carrier, b->carrier);
	if (!c)
		c = COMPARE(a->loopback, b->loopback);
	if (!c)
		c = COMPARE(a->generation, b->generation);
	return c;
}

int link_address_cmp(const struct link_address *a, const struct link_address *b)
{
	int c = addr_cmp(&a->addr, &b->addr);

	if (!c)
		c = COMPARE(a->len, b->len);
	if (!c)
		c = COMPARE(a->ifindex, b->ifindex);
	if (!c)
		c = COMPARE(a->scope, b->scope);
	return c;
}

int route_cmp(const struct route *a, const struct route *b)
{
	int c = prefix_cmp(&a->dst, &b->dst);

	if (!c)
		c = COMPARE(a->metric, b->metric);
	if (!c)
		c = addr_cmp(&a->gateway, &b->gateway);
	if (!c)
		c = COMPARE(a->ifindex, b->ifindex);
	if (!c)
		c = COMPARE(a->table, b->table);
	return c;
}

static int sort_link(const void *a, const void *b)
{
	return link_cmp(a, b);
}

static int sort_address(const void *a, const void *b)
{
	return link_address_cmp(a, b);
}

static int sort_route(const void *a, const void *b)
{
	return route_cmp(a, b);
}

void facts_sort(struct facts *f)
{
	/* qsort(3) takes no NULL, not even for nothing. */
	if (f->n_links)
		qsort(f->links, f->n_links, sizeof(*f->links), sort_link);
	if (f->n_addresses)
		qsort(f->addresses, f->n_addresses, sizeof(*f->addresses), sort_address);
	if (f->n_routes)
		qsort(f->routes, f->n_routes, sizeof(*f->routes), sort_route);
}

bool facts_equal_links(const struct facts *a, const struct facts *b)
{
	if (a->n_links != b->n_links)
		return false;
	for (size_t i = 0; i < a->n_links; i++)
		if (link_cmp(&a->links[i], &b->links[i]))
			return false;
	return true;
}

bool facts_equal_addresses(const struct facts *a, const struct facts *b)
{
	if (a->n_addresses != b->n_addresses)
		return false;
	for (size_t i = 0; i < a->n_addresses; i++)
		if (link_address_cmp(&a->addresses[i], &b->addresses[i]))
			return false;
	return true;
}

bool facts_equal_routes(const struct facts *a, const struct facts *b)
{
	if (a->n_routes != b->n_routes)
		return false;
	for (size_t i = 0; i < a->n_routes; i++)
		if (route_cmp(&a->routes[i], &b->routes[i]))
			return false;
	return true;
}

bool facts_equal(const struct facts *a, const struct facts *b)
{
	return strcmp(a->kernel, b->kernel) == 0 && strcmp(a->kernel_version, b->kernel_version) == 0 &&
	       a->features.nftables == b->features.nftables &&
	       a->features.flowtable == b->features.flowtable &&
	       a->features.flowtable_counter == b->features.flowtable_counter &&
	       strcmp(a->features.reason, b->features.reason) == 0 &&
	       a->kube_proxy_nftables == b->kube_proxy_nftables &&
	       a->kube_proxy_iptables == b->kube_proxy_iptables && a->notrack == b->notrack &&
	       a->policy_rules == b->policy_rules && facts_equal_links(a, b) && facts_equal_addresses(a, b) &&
	       facts_equal_routes(a, b);
}

const struct link *facts_link(const struct facts *f, uint32_t ifindex)
{
	size_t low = 0;
	size_t high = f->n_links;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (f->links[middle].ifindex == ifindex)
			return &f->links[middle];
		if (f->links[middle].ifindex < ifindex)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

const struct link *facts_link_by_name(const struct facts *f, const char *name)
{
	for (size_t i = 0; i < f->n_links; i++)
		if (strcmp(f->links[i].name, name) == 0)
			return &f->links[i];
	return NULL;
}

/* How many leading bits two addresses of one family share. */
static unsigned common_bits(const struct addr *a, const struct addr *b)
{
	size_t size = addr_size(a);

	for (size_t i = 0; i < size; i++)
		if (a->bytes[i] != b->bytes[i])
			return (unsigned)(8 * i) +
			       (unsigned)__builtin_clz((unsigned)(a->bytes[i] ^ b->bytes[i])) - 24;
	return (unsigned)(8 * size);
}

/* How many routes have a destination that is not behind 'p'. */
static size_t routes_up_to(const struct facts *f, const struct prefix *p)
{
	size_t low = 0;
	size_t high = f->n_routes;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (prefix_cmp(&f->routes[middle].dst, p) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/*
 * The prefixes that cover an address stand in the sorted array by rising length, all of them before the
 * address itself. The last destination before the address is either the longest of them, or it branches off
 * after 'common' bits; then none longer than that covers the address, and the search goes on from there.
 */
const struct route *facts_route_to(const struct facts *f, const struct addr *a)
{
	struct prefix key = prefix_of(a, (uint8_t)(8 * addr_size(a)));

	if (!a->family)
		return NULL;
	for (;;) {
		size_t n = routes_up_to(f, &key);
		const struct prefix *dst = n ? &f->routes[n - 1].dst : NULL;
		const struct route *found = NULL;
		unsigned common;

		if (!dst || dst->addr.family != a->family)
			return NULL;
		common = common_bits(&dst->addr, a);
		if (common < dst->len) {
			key = prefix_of(a, (uint8_t)common);
			continue;
		}
		while (n && prefix_cmp(&f->routes[n - 1].dst, dst) == 0) {
			n--;
			if (f->routes[n].table == RT_TABLE_MAIN)
				found = &f->routes[n];
		}
		if (found)
			return found;
		if (dst->len == 0)
			return NULL;
		key = prefix_of(a, dst->len - 1);
	}
}
