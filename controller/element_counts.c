/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/element_counts.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static int by_element(const struct counted_element *a, const struct counted_element *b)
{
	return memcmp(&a->element, &b->element, sizeof(a->element));
}

/* RB_GENERATE_STATIC needs an __unused that glibc's own structs collide with. Not every generated function is
 * called. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
RB_GENERATE_INTERNAL(counted_tree, counted_element, link, by_element, static)
#pragma GCC diagnostic pop

static struct counted_element *find(
	const struct element_counts *c, enum ruleset_set set, const struct set_element *e)
{
	struct counted_element key = {.element = *e};

	/* RB_FIND does not write, its prototype only lacks the const. */
	return RB_FIND(counted_tree, (struct counted_tree *)&c->trees[set], &key);
}

static void touch(struct element_counts *c, struct counted_element *e)
{
	if (e->touched)
		return;
	e->touched = true;
	*VEC_ADD(c->touched, c->n_touched, c->cap_touched) = e;
}

void element_counts_add(struct element_counts *c, enum ruleset_set set, const struct set_element *e)
{
	struct counted_element *found = find(c, set, e);

	if (!found) {
		found = xcalloc(1, sizeof(*found));
		found->element = *e;
		found->set = (uint8_t)set;
		RB_INSERT(counted_tree, &c->trees[set], found);
	}
	if (!found->count++)
		touch(c, found);
}

void element_counts_remove(struct element_counts *c, enum ruleset_set set, const struct set_element *e)
{
	struct counted_element *found = find(c, set, e);

	if (!found || !found->count)
		abort();
	if (!--found->count)
		touch(c, found);
}

bool element_counts_has(const struct element_counts *c, enum ruleset_set set, const struct set_element *e)
{
	const struct counted_element *found = find(c, set, e);

	return found && found->count;
}

static int by_place(const void *a, const void *b)
{
	const struct counted_element *x = *(struct counted_element *const *)a;
	const struct counted_element *y = *(struct counted_element *const *)b;

	return x->set != y->set ? (x->set > y->set) - (x->set < y->set) : by_element(x, y);
}

static void settle_one(struct element_counts *c, struct counted_element *e, struct ruleset_delta *ret)
{
	bool there = e->count > 0;
	struct element_list *list;

	e->touched = false;
	if (there != e->settled) {
		e->settled = there;
		c->n[e->set] += there ? 1 : (size_t)-1;
		c->stale[e->set] = true;
		if (ret) {
			list = there ? &ret->add[e->set] : &ret->remove[e->set];
			*VEC_ADD(list->items, list->n, list->cap) = e->element;
		}
	}
	if (!there) {
		RB_REMOVE(counted_tree, &c->trees[e->set], e);
		free(e);
	}
}

void element_counts_settle(struct element_counts *c, struct ruleset_delta *ret)
{
	if (c->n_touched > 1)
		qsort(c->touched, c->n_touched, sizeof(struct counted_element *), by_place);
	for (size_t i = 0; i < c->n_touched; i++)
		settle_one(c, c->touched[i], ret);
	c->n_touched = 0;
}

void element_counts_export(struct element_counts *c, struct ruleset *rs)
{
	for (size_t set = 0; set < RULESET_SETS; set++) {
		struct element_list *list = &rs->sets[set];
		struct counted_element *e;

		if (!c->stale[set])
			continue;
		c->stale[set] = false;
		list->n = 0;
		RB_FOREACH(e, counted_tree, &c->trees[set])
		if (e->settled)
			*VEC_ADD(list->items, list->n, list->cap) = e->element;
	}
}

void element_counts_done(struct element_counts *c)
{
	for (size_t set = 0; set < RULESET_SETS; set++) {
		struct counted_element *e;

		while ((e = RB_MIN(counted_tree, &c->trees[set]))) {
			RB_REMOVE(counted_tree, &c->trees[set], e);
			free(e);
		}
	}
	free(c->touched);
	*c = (struct element_counts){0};
}
