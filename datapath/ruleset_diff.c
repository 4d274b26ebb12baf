/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What differs between two rulesets: linear merges of what is in canonical order. */
#include "datapath/ruleset.h"

#include "base/mem.h"
#include "datapath/ruleset_private.h"

#include <stdlib.h>
#include <string.h>

static void diff_devices(
	const struct ruleset *from, const struct ruleset *to, const struct ruleset_diff_ops *ops)
{
	size_t i = 0, j = 0, n = from->present ? from->n_devices : 0, m = to->present ? to->n_devices : 0;

	while (ops->device && (i < n || j < m)) {
		int c = i == n ? 1 : j == m ? -1 : strcmp(from->devices[i].name, to->devices[j].name);

		if (c < 0) {
			ops->device(ops->arg, &from->devices[i++], false);
		} else if (c > 0) {
			ops->device(ops->arg, &to->devices[j++], true);
		} else {
			if (from->devices[i].ifindex != to->devices[j].ifindex ||
				from->devices[i].generation != to->devices[j].generation)
				ops->device(ops->arg, &to->devices[j], true);
			i++;
			j++;
		}
	}
}

/* Calls for every element of 'list' that 'other' does not hold. */
static void only_in(const struct element_list *list, const struct element_list *other, enum ruleset_set set,
	bool add, const struct ruleset_diff_ops *ops)
{
	for (size_t i = 0, j = 0; i < list->n;) {
		int c = j == other->n ? -1 : element_cmp(&list->items[i], &other->items[j]);

		if (c < 0)
			ops->element(ops->arg, set, &list->items[i++], add);
		else if (c > 0)
			j++;
		else {
			i++;
			j++;
		}
	}
}

static void diff_set(const struct ruleset *from, const struct ruleset *to, enum ruleset_set set,
	const struct ruleset_diff_ops *ops)
{
	static const struct element_list none;
	const struct element_list *a = from->present ? &from->sets[set] : &none;
	const struct element_list *b = to->present ? &to->sets[set] : &none;

	/* The same list, as two versions of a plan share it, is not looked at. */
	if (!ops->element || (a->n == b->n && a->items == b->items) ||
		(a->n == b->n && (!a->n || !memcmp(a->items, b->items, a->n * sizeof(*a->items)))))
		return;
	only_in(a, b, set, false, ops);
	only_in(b, a, set, true, ops);
}

/* Only what the operation uses counts. */
static bool expr_equal(const struct rule_expr *a, const struct rule_expr *b)
{
	if (a->op != b->op)
		return false;
	switch (a->op) {
	case OP_SADDR:
	case OP_DADDR:
	case OP_ORIGINAL_DADDR:
		if (a->value.family || b->value.family)
			return !addr_cmp(&a->value, &b->value);
		return a->set == b->set;
	case OP_PAIR_IN_SET:
	case OP_IIF_IN_SET:
	case OP_ORIGINAL_PORT:
		return a->set == b->set;
	case OP_COUNT:
		return a->type == b->type;
	case OP_GOTO:
		return a->chain == b->chain;
	case OP_ORIGINAL:
	case OP_UNMARKED:
	case OP_NO_WAY_BACK:
	case OP_DNAT:
	case OP_TCP:
	case OP_UDP:
	case OP_ESTABLISHED:
	case OP_PACKETS:
	case OP_FLOW_ADD:
	case OP_ACCEPT:
		break;
	}
	return true;
}

static bool rule_equal(const struct rule *a, const struct rule *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!expr_equal(&a->exprs[i], &b->exprs[i]))
			return false;
	return true;
}

bool rule_list_equal(const struct rule_list *a, const struct rule_list *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!rule_equal(&a->items[i], &b->items[i]))
			return false;
	return true;
}

static bool chain_equal(const struct ruleset *from, const struct ruleset *to, enum ruleset_chain chain)
{
	struct rule_list a, b;
	bool equal;

	ruleset_chain_rules(from, chain, &a);
	ruleset_chain_rules(to, chain, &b);
	equal = rule_list_equal(&a, &b);
	free(a.items);
	free(b.items);
	return equal;
}

void ruleset_diff(const struct ruleset *from, const struct ruleset *to, const struct ruleset_diff_ops *ops)
{
	diff_devices(from, to, ops);
	for (size_t i = 0; i < RULESET_SETS; i++)
		diff_set(from, to, (enum ruleset_set)i, ops);
	for (size_t i = 0; ops->chain && i < RULESET_CHAINS; i++)
		if (!chain_equal(from, to, (enum ruleset_chain)i))
			ops->chain(ops->arg, (enum ruleset_chain)i);
}

static void differ_device(void *arg, const struct device *d, bool add)
{
	(void)d;
	(void)add;
	*(bool *)arg = true;
}

static void differ_element(void *arg, enum ruleset_set set, const struct set_element *e, bool add)
{
	(void)set;
	(void)e;
	(void)add;
	*(bool *)arg = true;
}

static void differ_chain(void *arg, enum ruleset_chain chain)
{
	(void)chain;
	*(bool *)arg = true;
}

bool ruleset_equal(const struct ruleset *a, const struct ruleset *b)
{
	bool differ = a->present != b->present;
	const struct ruleset_diff_ops ops = {
		.device = differ_device, .element = differ_element, .chain = differ_chain, .arg = &differ};

	if (!differ)
		ruleset_diff(a, b, &ops);
	return !differ;
}

static void delta_device(void *arg, const struct device *d, bool add)
{
	struct ruleset_delta *delta = arg;
	struct device_list *list = add ? &delta->add_devices : &delta->remove_devices;

	*VEC_ADD(list->items, list->n, list->cap) = *d;
}

static void delta_element(void *arg, enum ruleset_set set, const struct set_element *e, bool add)
{
	struct ruleset_delta *delta = arg;
	struct element_list *list = add ? &delta->add[set] : &delta->remove[set];

	*VEC_ADD(list->items, list->n, list->cap) = *e;
}

static void delta_chain(void *arg, enum ruleset_chain chain)
{
	((struct ruleset_delta *)arg)->chains[chain] = true;
}

void ruleset_delta_add(struct ruleset_delta *d, const struct ruleset *from, const struct ruleset *to)
{
	const struct ruleset_diff_ops ops = {
		.device = delta_device, .element = delta_element, .chain = delta_chain, .arg = d};

	ruleset_diff(from, to, &ops);
}

void ruleset_delta_clear(struct ruleset_delta *d)
{
	d->unknown = false;
	d->add_devices.n = d->remove_devices.n = 0;
	for (size_t i = 0; i < RULESET_SETS; i++)
		d->add[i].n = d->remove[i].n = 0;
	memset(d->chains, 0, sizeof(d->chains));
}

void ruleset_delta_done(struct ruleset_delta *d)
{
	free(d->add_devices.items);
	free(d->remove_devices.items);
	for (size_t i = 0; i < RULESET_SETS; i++) {
		free(d->add[i].items);
		free(d->remove[i].items);
	}
	*d = (struct ruleset_delta){0};
}

bool ruleset_delta_empty(const struct ruleset_delta *d)
{
	size_t n = d->unknown + d->add_devices.n + d->remove_devices.n;

	for (size_t i = 0; i < RULESET_SETS; i++)
		n += d->add[i].n + d->remove[i].n;
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		n += d->chains[i];
	return !n;
}
