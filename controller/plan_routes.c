/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/plan_routes.h"

#include "base/mem.h"

#include <linux/rtnetlink.h>

static int by_destination(const void *a, const void *b)
{
	const struct route *x = *(const struct route *const *)a, *y = *(const struct route *const *)b;
	int c = prefix_cmp(&x->dst, &y->dst);

	if (!c)
		c = (x->metric > y->metric) - (x->metric < y->metric);
	/* next hops of one route stay in the order of the facts */
	return c ? c : (x > y) - (x < y);
}

void route_index_make(const struct facts *f, struct route_index *ret)
{
	*ret = (struct route_index){.items = xcalloc(f->n_routes + 1, sizeof(*ret->items))};
	for (size_t i = 0; i < f->n_routes; i++) {
		const struct route *r = &f->routes[i];

		if (r->table != RT_TABLE_MAIN || r->dst.len > 128)
			continue;
		ret->items[ret->n++] = r;
		ret->lengths[r->dst.addr.family == AF_INET6][r->dst.len] = true;
	}
	qsort(ret->items, ret->n, sizeof(*ret->items), by_destination);
}

void route_index_done(struct route_index *ix)
{
	free(ix->items);
	*ix = (struct route_index){0};
}

/* First entry whose destination is not before 'dst'. */
static size_t lower_bound(const struct route_index *ix, const struct prefix *dst)
{
	size_t low = 0, high = ix->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (prefix_cmp(&ix->items[middle]->dst, dst) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct route *const *route_index_find(const struct route_index *ix, const struct addr *a, size_t *ret_n)
{
	const bool *lengths = ix->lengths[a->family == AF_INET6];

	*ret_n = 0;
	for (int len = 8 * (int)addr_size(a); a->family && len >= 0; len--) {
		struct prefix dst;
		size_t first, n = 0;

		if (!lengths[len])
			continue;
		dst = prefix_of(a, (uint8_t)len);
		first = lower_bound(ix, &dst);
		while (first + n < ix->n && !prefix_cmp(&ix->items[first + n]->dst, &dst) &&
			ix->items[first + n]->metric == ix->items[first]->metric)
			n++;
		if (n) {
			*ret_n = n;
			return &ix->items[first];
		}
	}
	return NULL;
}
