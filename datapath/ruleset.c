/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The value itself: memory, canonical order, look-ups. */
#include "datapath/ruleset.h"

#include "base/mem.h"
#include "datapath/ruleset_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const traffic_type_names[TRAFFIC_TYPES] = {
	[TYPE_POD_TO_POD] = "pod-to-pod",
	[TYPE_POD_TO_SERVICE] = "pod-to-service",
	[TYPE_EXTERNAL_TO_LOADBALANCER] = "external-to-loadbalancer",
	[TYPE_EXTERNAL_TO_EXTERNALIP] = "external-to-externalip",
	[TYPE_EXTERNAL_TO_NODEPORT] = "external-to-nodeport",
	[TYPE_EXTERNAL_TO_SERVICE] = "external-to-service",
	[TYPE_NODE_TO_POD] = "node-to-pod",
	[TYPE_POD_TO_EXTERNAL] = "pod-to-external",
	[TYPE_OTHER] = "other",
};

const struct set_schema ruleset_set_schema[RULESET_SETS] = {
	[SET_PAIRS] = {"pairs", SET_KIND_PAIR},
	[SET_HAIRPINS] = {"hairpins", SET_KIND_PAIR},
	[SET_CHECKED_UPLINKS] = {"checked-uplinks", SET_KIND_INTERFACE},
	[SET_LOCAL_PODS4] = {"local-pods4", SET_KIND_PREFIX4},
	[SET_LOCAL_PODS6] = {"local-pods6", SET_KIND_PREFIX6},
	[SET_REMOTE_PODS4] = {"remote-pods4", SET_KIND_PREFIX4},
	[SET_REMOTE_PODS6] = {"remote-pods6", SET_KIND_PREFIX6},
	[SET_PEER_NODES4] = {"peer-nodes4", SET_KIND_ADDR4},
	[SET_PEER_NODES6] = {"peer-nodes6", SET_KIND_ADDR6},
	[SET_NODE_ADDRESSES4] = {"node-addresses4", SET_KIND_ADDR4},
	[SET_NODE_ADDRESSES6] = {"node-addresses6", SET_KIND_ADDR6},
	[SET_CLUSTER_IPS4] = {"cluster-ips4", SET_KIND_ADDR4},
	[SET_CLUSTER_IPS6] = {"cluster-ips6", SET_KIND_ADDR6},
	[SET_LOADBALANCER_IPS4] = {"loadbalancer-ips4", SET_KIND_ADDR4},
	[SET_LOADBALANCER_IPS6] = {"loadbalancer-ips6", SET_KIND_ADDR6},
	[SET_EXTERNAL_IPS4] = {"external-ips4", SET_KIND_ADDR4},
	[SET_EXTERNAL_IPS6] = {"external-ips6", SET_KIND_ADDR6},
	[SET_NODEPORTS] = {"nodeports", SET_KIND_PORT},
	[SET_EXCLUDED_IPS4] = {"excluded-ips4", SET_KIND_ADDR4},
	[SET_EXCLUDED_IPS6] = {"excluded-ips6", SET_KIND_ADDR6},
	[SET_EXCLUDED_NODEPORTS] = {"excluded-nodeports", SET_KIND_PORT},
	[SET_EXCLUDED_CIDRS4] = {"excluded-cidrs4", SET_KIND_PREFIX4},
	[SET_EXCLUDED_CIDRS6] = {"excluded-cidrs6", SET_KIND_PREFIX6},
};

void ruleset_done(struct ruleset *rs)
{
	free(rs->devices);
	free(rs->links);
	for (size_t i = 0; i < RULESET_SETS; i++)
		free(rs->sets[i].items);
	free(rs->exclusions.items);
	free(rs->classes);
	*rs = (struct ruleset){0};
}

/* An exact copy of 'n' items; NULL for none. */
static void *copy_items(const void *items, size_t n, size_t size, size_t *ret_cap)
{
	*ret_cap = n;
	return n ? xmemdup(items, n * size) : NULL;
}

void ruleset_copy(const struct ruleset *from, struct ruleset *ret)
{
	struct ruleset rs = *from;

	rs.devices = copy_items(from->devices, from->n_devices, sizeof(*rs.devices), &rs.cap_devices);
	rs.links = copy_items(from->links, from->n_links, sizeof(*rs.links), &rs.cap_links);
	for (size_t i = 0; i < RULESET_SETS; i++)
		rs.sets[i].items = copy_items(
			from->sets[i].items, from->sets[i].n, sizeof(*rs.sets[i].items), &rs.sets[i].cap);
	rs.exclusions.items = copy_items(
		from->exclusions.items, from->exclusions.n, sizeof(*rs.exclusions.items), &rs.exclusions.cap);
	rs.classes = copy_items(from->classes, from->n_classes, sizeof(*rs.classes), &rs.cap_classes);
	*ret = rs;
}

int element_cmp(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct set_element));
}

static int device_by_name(const void *a, const void *b)
{
	const struct device *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : (x->ifindex > y->ifindex) - (x->ifindex < y->ifindex);
}

static int device_by_ifindex(const void *a, const void *b)
{
	const struct device *x = a, *y = b;

	return x->ifindex != y->ifindex ? (x->ifindex > y->ifindex ? 1 : -1) : strcmp(x->name, y->name);
}

/* What is already in order, as most of a changed ruleset is, is not sorted again. */
static void sort(void *items, size_t n, size_t size, int (*cmp)(const void *, const void *))
{
	const char *p = items;

	for (size_t i = 1; i < n; i++)
		if (cmp(p + (i - 1) * size, p + i * size) > 0) {
			qsort(items, n, size, cmp);
			return;
		}
}

bool element_covers(const struct set_element *outer, const struct set_element *inner)
{
	unsigned whole = outer->prefix_len / 8, rest = outer->prefix_len % 8;

	if (outer->prefix_len > inner->prefix_len || memcmp(outer->key, inner->key, whole) != 0)
		return false;
	return !rest || !((outer->key[whole] ^ inner->key[whole]) >> (8 - rest));
}

static bool is_prefix_set(enum ruleset_set set)
{
	enum set_kind kind = ruleset_set_schema[set].kind;

	return kind == SET_KIND_PREFIX4 || kind == SET_KIND_PREFIX6;
}

/*
 * A covering prefix sorts in front of what it covers, and prefixes either nest or are disjoint: so the last
 * one kept is the only candidate.
 */
static void normalize_set(struct element_list *list, bool prefixes)
{
	size_t kept = 0;

	sort(list->items, list->n, sizeof(*list->items), element_cmp);
	for (size_t i = 0; i < list->n; i++) {
		const struct set_element *e = &list->items[i];

		if (kept && (prefixes ? element_covers(&list->items[kept - 1], e)
				      : !element_cmp(&list->items[kept - 1], e)))
			continue;
		list->items[kept++] = *e;
	}
	list->n = kept;
}

static void normalize_devices(
	struct device *d, size_t *n, int (*order)(const void *, const void *), bool by_name)
{
	size_t kept = 0;

	sort(d, *n, sizeof(*d), order);
	for (size_t i = 0; i < *n; i++) {
		if (kept && (by_name ? !strcmp(d[kept - 1].name, d[i].name)
				     : d[kept - 1].ifindex == d[i].ifindex))
			continue;
		d[kept++] = d[i];
	}
	*n = kept;
}

void ruleset_normalize(struct ruleset *rs)
{
	normalize_devices(rs->devices, &rs->n_devices, device_by_name, true);
	normalize_devices(rs->links, &rs->n_links, device_by_ifindex, false);
	for (size_t i = 0; i < RULESET_SETS; i++)
		normalize_set(&rs->sets[i], is_prefix_set((enum ruleset_set)i));
}

static void set_device(struct device *d, const char *name, uint32_t ifindex)
{
	snprintf(d->name, sizeof(d->name), "%s", name);
	d->ifindex = ifindex;
}

void ruleset_add_device(struct ruleset *rs, const char *name, uint32_t ifindex)
{
	set_device(VEC_ADD(rs->devices, rs->n_devices, rs->cap_devices), name, ifindex);
}

void ruleset_add_link(struct ruleset *rs, const char *name, uint32_t ifindex)
{
	set_device(VEC_ADD(rs->links, rs->n_links, rs->cap_links), name, ifindex);
}

static struct set_element *add_element(struct ruleset *rs, enum ruleset_set set)
{
	struct element_list *list = &rs->sets[set];

	return VEC_ADD(list->items, list->n, list->cap);
}

static void put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

void ruleset_add_pair(struct ruleset *rs, enum ruleset_set set, uint32_t in, uint32_t out)
{
	struct set_element *e = add_element(rs, set);

	put_be32(e->key, in);
	put_be32(e->key + 4, out);
}

void ruleset_add_interface(struct ruleset *rs, enum ruleset_set set, uint32_t ifindex)
{
	put_be32(add_element(rs, set)->key, ifindex);
}

struct set_element element_of_port(uint8_t protocol, uint16_t port)
{
	return (struct set_element){.key = {protocol, [4] = (uint8_t)(port >> 8), (uint8_t)port}};
}

struct set_element element_of_addr(const struct addr *a)
{
	struct set_element e = {0};

	memcpy(e.key, a->bytes, addr_size(a));
	return e;
}

void ruleset_add_port(struct ruleset *rs, enum ruleset_set set, uint8_t protocol, uint16_t port)
{
	*add_element(rs, set) = element_of_port(protocol, port);
}

void ruleset_add_addr(struct ruleset *rs, enum ruleset_set set4, const struct addr *a)
{
	struct prefix p = prefix_of(a, (uint8_t)(8 * addr_size(a)));

	ruleset_add_prefix(rs, set4, &p);
}

void ruleset_add_prefix(struct ruleset *rs, enum ruleset_set set4, const struct prefix *p)
{
	enum ruleset_set set = p->addr.family == AF_INET6 ? set4 + 1 : set4;
	struct set_element *e;

	if (!p->addr.family)
		return;
	if (!is_prefix_set(set) && p->len != 8 * addr_size(&p->addr))
		abort(); /* a set of addresses cannot hold a prefix: the caller is wrong */
	e = add_element(rs, set);
	memcpy(e->key, p->addr.bytes, addr_size(&p->addr));
	e->prefix_len = is_prefix_set(set) ? p->len : 0;
}

static void set_matches(struct rule *r, const struct rule_expr *exprs, size_t n)
{
	if (n > RULE_MATCHES_MAX)
		abort(); /* no room for the verdict: the caller is wrong */
	for (size_t i = 0; i < n; i++)
		r->exprs[i] = exprs[i];
	r->n = n;
}

void ruleset_add_class(struct ruleset *rs, enum traffic_type type, const struct rule_expr *exprs, size_t n)
{
	struct class_rule *c = VEC_ADD(rs->classes, rs->n_classes, rs->cap_classes);

	set_matches(&c->match, exprs, n);
	c->type = type;
}

void ruleset_add_exclusion(struct ruleset *rs, const struct rule_expr *exprs, size_t n)
{
	struct rule_list *list = &rs->exclusions;

	set_matches(VEC_ADD(list->items, list->n, list->cap), exprs, n);
}

/* The last element that is not greater than 'e' is the only one that can equal or cover it. */
bool ruleset_has(const struct ruleset *rs, enum ruleset_set set, const struct set_element *e)
{
	const struct element_list *list = &rs->sets[set];
	size_t low = 0, high = list->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (element_cmp(&list->items[middle], e) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return false;
	return is_prefix_set(set) ? element_covers(&list->items[low - 1], e)
				  : !element_cmp(&list->items[low - 1], e);
}
