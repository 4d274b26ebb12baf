/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/memory.h"

#include "base/mem.h"
#include "datapath/ruleset_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a kernel holds. 'value' has 'present', devices and sets only; chains are their rules. */
struct state {
	struct ruleset value;
	struct rule_list chains[RULESET_CHAINS];
};

struct memory_backend {
	struct backend base;
	struct state kernel;
	bool known, present;       /* what was asked for last is there; with a table */
	struct device_list wanted; /* refused, and still wanted */
	uint64_t inserts[TRAFFIC_TYPES];
	unsigned transactions, observations;
	struct device_failure *refused;
	size_t n_refused, cap_refused;
	int fail_code;
	char fail_object[64];
};

static struct memory_backend *memory(const struct backend *b)
{
	return (struct memory_backend *)b;
}

static void state_done(struct state *s)
{
	ruleset_done(&s->value);
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		free(s->chains[i].items);
	*s = (struct state){0};
}

static void copy_rules(const struct rule_list *from, struct rule_list *ret)
{
	*ret = (struct rule_list){.n = from->n, .cap = from->n};
	if (from->n)
		ret->items = xmemdup(from->items, from->n * sizeof(*from->items));
}

static void state_copy(const struct state *from, struct state *ret)
{
	ruleset_copy(&from->value, &ret->value);
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		copy_rules(&from->chains[i], &ret->chains[i]);
}

/* The state that a kernel is in once 'rs' was applied. */
static void state_of(const struct ruleset *rs, struct state *ret)
{
	*ret = (struct state){0};
	ret->value.present = rs->present;
	if (!rs->present)
		return;
	for (size_t i = 0; i < rs->n_devices; i++)
		ruleset_add_device(&ret->value, rs->devices[i].name, rs->devices[i].ifindex);
	for (size_t i = 0; i < RULESET_SETS; i++) {
		const struct element_list *list = &rs->sets[i];

		ret->value.sets[i] = (struct element_list){.n = list->n, .cap = list->n};
		if (list->n)
			ret->value.sets[i].items = xmemdup(list->items, list->n * sizeof(*list->items));
	}
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		ruleset_chain_rules(rs, (enum ruleset_chain)i, &ret->chains[i]);
}

static size_t find_element(const struct element_list *list, const struct set_element *e)
{
	const struct set_element *found =
		list->n ? bsearch(e, list->items, list->n, sizeof(*e), element_cmp) : NULL;

	return found ? (size_t)(found - list->items) : list->n;
}

static bool remove_element(struct element_list *list, const struct set_element *e)
{
	size_t i = find_element(list, e);

	if (i == list->n)
		return false;
	memmove(&list->items[i], &list->items[i + 1], (list->n - i - 1) * sizeof(*list->items));
	list->n--;
	return true;
}

/* At the end: the transaction sorts once. */
static void append_element(struct element_list *list, const struct set_element *e)
{
	*VEC_ADD(list->items, list->n, list->cap) = *e;
}

static bool remove_device(struct ruleset *rs, const char *name)
{
	for (size_t i = 0; i < rs->n_devices; i++)
		if (!strcmp(rs->devices[i].name, name)) {
			memmove(&rs->devices[i], &rs->devices[i + 1],
				(rs->n_devices - i - 1) * sizeof(*rs->devices));
			rs->n_devices--;
			return true;
		}
	return false;
}

static int refusal(const struct memory_backend *m, const char *name)
{
	for (size_t i = 0; i < m->n_refused; i++)
		if (!strcmp(m->refused[i].name, name))
			return m->refused[i].code;
	return 0;
}

/* One transaction on a copy of the kernel's state. */
struct transaction {
	struct memory_backend *m;
	struct state kernel;
	struct sync_result *result;
	struct device_list refused;
	enum ruleset_set last_set; /* elements of one set and direction share a message */
	int last_add;
	int code; /* first error */
	char object[64];
};

static void __attribute__((format(printf, 3, 4))) fail(struct transaction *t, int code, const char *fmt, ...)
{
	va_list ap;

	if (t->code)
		return;
	t->code = code;
	va_start(ap, fmt);
	vsnprintf(t->object, sizeof(t->object), fmt, ap);
	va_end(ap);
}

static void apply_device(void *arg, const struct device *d, bool add)
{
	struct transaction *t = arg;
	struct sync_result *r = t->result;
	int code = add ? refusal(t->m, d->name) : 0;
	bool was_there;

	r->messages++;
	if (code) {
		r->failed = xreallocarray(r->failed, r->n_failed + 1, sizeof(*r->failed));
		r->failed[r->n_failed] = (struct device_failure){.code = code};
		memcpy(r->failed[r->n_failed++].name, d->name, sizeof(d->name));
		*VEC_ADD(t->refused.items, t->refused.n, t->refused.cap) = *d;
		return;
	}
	was_there = remove_device(&t->kernel.value, d->name);
	if (add) {
		ruleset_add_device(&t->kernel.value, d->name, d->ifindex);
		r->devices_added++;
		return;
	}
	if (!was_there)
		fail(t, -ENOENT, "device %s", d->name);
	r->devices_removed++;
}

static void apply_element(void *arg, enum ruleset_set set, const struct set_element *e, bool add)
{
	struct transaction *t = arg;

	if (t->last_set != set || t->last_add != add)
		t->result->messages++;
	t->last_set = set;
	t->last_add = add;
	if (add) {
		append_element(&t->kernel.value.sets[set], e);
		t->result->elements_added++;
		return;
	}
	if (!remove_element(&t->kernel.value.sets[set], e))
		fail(t, -ENOENT, "set %s", ruleset_set_schema[set].name);
	t->result->elements_removed++;
}

/* A flush and one message per rule. */
static void apply_chain(struct transaction *t, enum ruleset_chain chain, const struct ruleset *to)
{
	struct rule_list rules;

	ruleset_chain_rules(to, chain, &rules);
	t->result->messages += 1 + (unsigned)rules.n;
	t->result->chains_rewritten++;
	free(t->kernel.chains[chain].items);
	t->kernel.chains[chain] = rules;
}

static void create(struct transaction *t)
{
	t->result->created = true;
	t->result->messages += 2 + TRAFFIC_TYPES + RULESET_SETS + RULESET_CHAINS;
	state_done(&t->kernel);
	t->kernel.value.present = true;
}

/* What the kernel holds against what it shall hold. */
static void apply_observed(struct transaction *t, const struct ruleset *to)
{
	struct ruleset_diff_ops ops = {.device = apply_device, .element = apply_element, .arg = t};
	struct state from, want;

	if (!to->present) {
		t->result->messages += t->kernel.value.present;
		state_done(&t->kernel);
		return;
	}
	if (!t->kernel.value.present)
		create(t);
	state_copy(&t->kernel, &from);
	state_of(to, &want);
	ruleset_diff(&from.value, &want.value, &ops);
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		if (!rule_list_equal(&from.chains[i], &want.chains[i]))
			apply_chain(t, (enum ruleset_chain)i, to);
	state_done(&from);
	state_done(&want);
}

/* Whatever the kernel holds; a lost table shows as soon as anything is sent. */
static void apply_delta(struct transaction *t, const struct ruleset *to, const struct ruleset_delta *d)
{
	for (size_t i = 0; i < t->m->wanted.n; i++) {
		const struct device *w = &t->m->wanted.items[i];
		bool named = false;

		for (size_t k = 0; k < d->remove_devices.n; k++)
			named |= !strcmp(d->remove_devices.items[k].name, w->name);
		for (size_t k = 0; k < d->add_devices.n; k++)
			named |= !strcmp(d->add_devices.items[k].name, w->name);
		if (!named)
			apply_device(t, w, true);
	}
	for (size_t i = 0; i < d->add_devices.n; i++)
		apply_device(t, &d->add_devices.items[i], true);
	for (size_t i = 0; i < d->remove_devices.n; i++)
		apply_device(t, &d->remove_devices.items[i], false);
	for (size_t s = 0; s < RULESET_SETS; s++) {
		for (size_t i = 0; i < d->remove[s].n; i++)
			apply_element(t, (enum ruleset_set)s, &d->remove[s].items[i], false);
		for (size_t i = 0; i < d->add[s].n; i++)
			apply_element(t, (enum ruleset_set)s, &d->add[s].items[i], true);
	}
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		if (d->chains[i])
			apply_chain(t, (enum ruleset_chain)i, to);
	if (t->result->messages && !t->kernel.value.present)
		fail(t, -ENOENT, "table inet " RULESET_TABLE);
}

/* Nothing was applied: what the result counted did not happen. */
static int transaction_failed(struct transaction *t, struct error *err)
{
	state_done(&t->kernel);
	sync_result_done(t->result);
	free(t->refused.items);
	t->m->known = false;
	return error_set(
		err, t->code, t->object, NULL, "the kernel refused the transaction: %s", strerror(-t->code));
}

static int commit(struct transaction *t, struct error *err)
{
	struct memory_backend *m = t->m;

	if (t->result->messages) {
		m->transactions++;
		if (m->fail_code) {
			t->code = 0;
			fail(t, m->fail_code, "%s", m->fail_object);
			m->fail_code = 0;
		}
		if (t->code)
			return transaction_failed(t, err);
	}
	if (t->result->created)
		memset(m->inserts, 0, sizeof(m->inserts));
	ruleset_normalize(&t->kernel.value);
	state_done(&m->kernel);
	m->kernel = t->kernel;
	m->known = true;
	free(m->wanted.items);
	m->wanted = t->refused;
	return 0;
}

static int sync(struct backend *b, const struct ruleset *desired, struct sync_result *ret, struct error *err)
{
	struct memory_backend *m = memory(b);
	struct transaction t = {.m = m, .result = ret, .last_set = RULESET_SETS};

	*ret = (struct sync_result){0};
	m->observations++;
	m->present = desired->present;
	state_copy(&m->kernel, &t.kernel);
	apply_observed(&t, desired);
	return commit(&t, err);
}

static int apply(struct backend *b, const struct ruleset *desired, const struct ruleset_delta *delta,
	struct sync_result *ret, struct error *err)
{
	struct memory_backend *m = memory(b);
	struct transaction t = {.m = m, .result = ret, .last_set = RULESET_SETS};

	*ret = (struct sync_result){0};
	if (!m->known || delta->unknown || m->present != desired->present)
		return error_set(
			err, -ESTALE, "table inet " RULESET_TABLE, NULL, "what the kernel has is not known");
	if (!desired->present)
		return 0;
	state_copy(&m->kernel, &t.kernel);
	apply_delta(&t, desired, delta);
	return commit(&t, err);
}

static void forget(struct backend *b)
{
	memory(b)->known = false;
}

static int inserts(struct backend *b, uint64_t ret[TRAFFIC_TYPES], struct error *err)
{
	struct memory_backend *m = memory(b);

	memset(ret, 0, sizeof(m->inserts));
	if (!m->kernel.value.present)
		return error_set(err, -ENOENT, "table inet " RULESET_TABLE, NULL, "there is no such table");
	memcpy(ret, m->inserts, sizeof(m->inserts));
	return 0;
}

static void memory_backend_free(struct backend *b)
{
	struct memory_backend *m = memory(b);

	state_done(&m->kernel);
	free(m->wanted.items);
	free(m->refused);
	free(m);
}

struct backend *memory_backend_new(void)
{
	static const struct backend_ops ops = {.sync = sync,
		.apply = apply,
		.forget = forget,
		.inserts = inserts,
		.free = memory_backend_free};
	struct memory_backend *m = xcalloc(1, sizeof(*m));

	m->base.ops = &ops;
	return &m->base;
}

const struct ruleset *memory_backend_ruleset(const struct backend *b)
{
	return &memory(b)->kernel.value;
}

static void differs_device(void *arg, const struct device *d, bool add)
{
	(void)d;
	(void)add;
	*(bool *)arg = true;
}

static void differs_element(void *arg, enum ruleset_set set, const struct set_element *e, bool add)
{
	(void)set;
	(void)e;
	(void)add;
	*(bool *)arg = true;
}

bool memory_backend_equals(const struct backend *b, const struct ruleset *rs)
{
	const struct state *kernel = &memory(b)->kernel;
	bool differ = kernel->value.present != rs->present;
	struct ruleset_diff_ops ops = {.device = differs_device, .element = differs_element, .arg = &differ};
	struct state want;

	state_of(rs, &want);
	ruleset_diff(&kernel->value, &want.value, &ops);
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		differ |= !rule_list_equal(&kernel->chains[i], &want.chains[i]);
	state_done(&want);
	return !differ;
}

unsigned memory_backend_transactions(const struct backend *b)
{
	return memory(b)->transactions;
}

unsigned memory_backend_observations(const struct backend *b)
{
	return memory(b)->observations;
}

void memory_backend_refuse_device(struct backend *b, const char *name, int code)
{
	struct memory_backend *m = memory(b);
	struct device_failure *f = NULL;

	for (size_t i = 0; i < m->n_refused; i++)
		if (!strcmp(m->refused[i].name, name))
			f = &m->refused[i];
	if (!f) {
		f = VEC_ADD(m->refused, m->n_refused, m->cap_refused);
		snprintf(f->name, sizeof(f->name), "%s", name);
	}
	f->code = code;
}

void memory_backend_fail_next(struct backend *b, int code, const char *object)
{
	struct memory_backend *m = memory(b);

	m->fail_code = code;
	snprintf(m->fail_object, sizeof(m->fail_object), "%s", object);
}

void memory_backend_drop_table(struct backend *b)
{
	state_done(&memory(b)->kernel);
}

void memory_backend_drop_device(struct backend *b, const char *name)
{
	remove_device(&memory(b)->kernel.value, name);
}

void memory_backend_tamper_element(
	struct backend *b, enum ruleset_set set, const struct set_element *e, bool add)
{
	struct ruleset *rs = &memory(b)->kernel.value;

	if (!rs->present)
		return;
	if (!add) {
		remove_element(&rs->sets[set], e);
		return;
	}
	append_element(&rs->sets[set], e);
	ruleset_normalize(rs);
}

void memory_backend_flush_chain(struct backend *b, enum ruleset_chain chain)
{
	struct rule_list *list = &memory(b)->kernel.chains[chain];

	free(list->items);
	*list = (struct rule_list){0};
}

void memory_backend_count(struct backend *b, enum traffic_type type, uint64_t n)
{
	if (memory(b)->kernel.value.present)
		memory(b)->inserts[type] += n;
}
