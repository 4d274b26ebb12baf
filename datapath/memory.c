/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/memory.h"

#include "base/mem.h"
#include "datapath/ruleset_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum table { TABLE_ABSENT, TABLE_FOREIGN, TABLE_OURS };

/* What a kernel holds. 'value' has 'present' (TABLE_OURS), devices and sets only; chains are their rules. */
struct kernel {
	enum table table;
	struct ruleset value;
	bool flowtable, counters[TRAFFIC_TYPES], sets[RULESET_SETS], has_chain[RULESET_CHAINS];
	struct rule_list chains[RULESET_CHAINS];
	unsigned strays;
	uint64_t inserts[TRAFFIC_TYPES];
};

struct memory_backend {
	struct backend base;
	struct kernel kernel;
	bool known, present;       /* what was asked for last is there; with a table */
	struct device_list wanted; /* refused, and still wanted */
	unsigned transactions, observations;
	struct device_failure *refused;
	size_t n_refused, cap_refused;
	int fail_code;
	char fail_object[64];
	memory_fault *fault;
	void *fault_arg;
};

static struct memory_backend *memory(const struct backend *b)
{
	return (struct memory_backend *)b;
}

/* --- a kernel as a value --- */

static void kernel_done(struct kernel *k)
{
	ruleset_done(&k->value);
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		free(k->chains[i].items);
	*k = (struct kernel){0};
}

static void kernel_copy(const struct kernel *from, struct kernel *ret)
{
	*ret = *from;
	ruleset_copy(&from->value, &ret->value);
	for (size_t i = 0; i < RULESET_CHAINS; i++) {
		struct rule_list *list = &ret->chains[i];

		list->cap = list->n;
		list->items = list->n ? xmemdup(list->items, list->n * sizeof(*list->items)) : NULL;
	}
}

static void add_device(struct ruleset *rs, const struct device *d)
{
	*VEC_ADD(rs->devices, rs->n_devices, rs->cap_devices) = *d;
}

/* The one in which 'rs' is programmed, whole. */
static void kernel_of(const struct ruleset *rs, struct kernel *ret)
{
	*ret = (struct kernel){0};
	if (!rs->present)
		return;
	ret->table = TABLE_OURS;
	ret->value.present = ret->flowtable = true;
	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		ret->counters[i] = true;
	for (size_t i = 0; i < rs->n_devices; i++)
		add_device(&ret->value, &rs->devices[i]);
	for (size_t i = 0; i < RULESET_SETS; i++) {
		const struct element_list *list = &rs->sets[i];

		ret->sets[i] = true;
		ret->value.sets[i] = (struct element_list){.n = list->n, .cap = list->n};
		if (list->n)
			ret->value.sets[i].items = xmemdup(list->items, list->n * sizeof(*list->items));
	}
	for (size_t i = 0; i < RULESET_CHAINS; i++) {
		ret->has_chain[i] = true;
		ruleset_chain_rules(rs, (enum ruleset_chain)i, &ret->chains[i]);
	}
}

static size_t find_device(const struct ruleset *rs, const char *name)
{
	size_t i = 0;

	while (i < rs->n_devices && strcmp(rs->devices[i].name, name) != 0)
		i++;
	return i;
}

/* A flowtable's hooks have no index or generation that could be read: one of that name is the device asked for. */
static void take_indexes(struct ruleset *rs, const struct ruleset *wanted)
{
	for (size_t i = 0; i < rs->n_devices; i++) {
		size_t k = find_device(wanted, rs->devices[i].name);

		if (k < wanted->n_devices)
			rs->devices[i] = wanted->devices[k];
	}
}

static bool remove_element(struct element_list *list, const struct set_element *e)
{
	const struct set_element *found =
		list->n ? bsearch(e, list->items, list->n, sizeof(*e), element_cmp) : NULL;
	size_t i = found ? (size_t)(found - list->items) : list->n;

	if (!found)
		return false;
	memmove(&list->items[i], &list->items[i + 1], (list->n - i - 1) * sizeof(*list->items));
	list->n--;
	return true;
}

static bool remove_device(struct ruleset *rs, const char *name)
{
	size_t i = find_device(rs, name);

	if (i == rs->n_devices)
		return false;
	memmove(&rs->devices[i], &rs->devices[i + 1], (rs->n_devices - i - 1) * sizeof(*rs->devices));
	rs->n_devices--;
	return true;
}

static void flush_chain(struct kernel *k, size_t chain)
{
	free(k->chains[chain].items);
	k->chains[chain] = (struct rule_list){0};
}

static void flush_rules(struct kernel *k)
{
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		flush_chain(k, i);
}

/* --- transactions --- */

/* What shall be done, devices aside; see nft_change of nft_sync.h. */
struct change {
	bool delete_first, create, flush_rules, flowtable, counters[TRAFFIC_TYPES], sets[RULESET_SETS],
		chains[RULESET_CHAINS];
	unsigned strays;
	unsigned found[REPAIR_KINDS];
	struct ruleset_delta delta;
};

/* One of them, on a copy of what the kernel holds. */
struct transaction {
	struct memory_backend *m;
	struct kernel kernel;
	unsigned messages;
	int code; /* of the first message that was refused */
	char object[64];
	size_t device; /* the device that was refused */
};

static int at_point(struct memory_backend *m, enum memory_point at, const char *object)
{
	return m->fault ? m->fault(m->fault_arg, at, object) : 0;
}

static void begin(struct memory_backend *m, struct transaction *ret)
{
	*ret = (struct transaction){.m = m, .device = SIZE_MAX};
	kernel_copy(&m->kernel, &ret->kernel);
}

/* The kernel's verdict on the next message: false when it, or one before it, is refused. */
static bool __attribute__((format(printf, 3, 4)))
message(struct transaction *t, bool possible, const char *fmt, ...)
{
	char object[sizeof(t->object)];
	va_list ap;
	int code;

	t->messages++;
	if (t->code)
		return false;
	va_start(ap, fmt);
	vsnprintf(object, sizeof(object), fmt, ap);
	va_end(ap);
	code = possible ? at_point(t->m, MEMORY_MESSAGE, object) : -ENOENT;
	if (code) {
		t->code = code;
		memcpy(t->object, object, sizeof(object));
	}
	return !code;
}

static int refusal(const struct memory_backend *m, const char *name)
{
	for (size_t i = 0; i < m->n_refused; i++)
		if (!strcmp(m->refused[i].name, name))
			return m->refused[i].code;
	return 0;
}

static void put_devices(struct transaction *t, bool add, const struct device *devices, size_t n)
{
	if (n && !message(t, t->kernel.flowtable, "flowtable " RULESET_FLOWTABLE))
		return;
	for (size_t i = 0; i < n && !t->code; i++) {
		const struct device *d = &devices[i];
		bool there = remove_device(&t->kernel.value, d->name);

		t->code = add ? refusal(t->m, d->name) : there ? 0 : -ENOENT;
		if (t->code) {
			t->device = i;
			snprintf(t->object, sizeof(t->object), "device %s", d->name);
		} else if (add) {
			add_device(&t->kernel.value, d);
		}
	}
}

static void put_elements(struct transaction *t, size_t set, const struct element_list *list, bool add)
{
	struct element_list *there = &t->kernel.value.sets[set];

	if (!list->n || !message(t, t->kernel.sets[set], "set %s", ruleset_set_schema[set].name))
		return;
	for (size_t i = 0; i < list->n && !t->code; i++) {
		if (add) {
			*VEC_ADD(there->items, there->n, there->cap) = list->items[i];
		} else if (!remove_element(there, &list->items[i])) {
			t->code = -ENOENT;
			snprintf(t->object, sizeof(t->object), "set %s", ruleset_set_schema[set].name);
		}
	}
}

/* A flush and one message per rule. */
static void put_rules(struct transaction *t, enum ruleset_chain chain, const struct ruleset *to)
{
	const char *name = ruleset_chain_names[chain];
	struct rule_list rules;

	ruleset_chain_rules(to, chain, &rules);
	if (message(t, t->kernel.has_chain[chain], "rules of chain %s", name))
		flush_chain(&t->kernel, chain);
	for (size_t i = 0; i < rules.n; i++)
		message(t, t->kernel.flowtable, "chain %s: rule %zu", name, i + 1);
	if (t->code)
		free(rules.items);
	else
		t->kernel.chains[chain] = rules;
}

static void put_table(struct transaction *t, const struct change *c)
{
	if (c->delete_first && message(t, t->kernel.table != TABLE_ABSENT, "table inet " RULESET_TABLE))
		kernel_done(&t->kernel);
	if (!c->create)
		return;
	if (message(t, true, "table inet " RULESET_TABLE) && t->kernel.table != TABLE_ABSENT)
		t->code = -EEXIST;
	if (t->code)
		return;
	t->kernel.table = TABLE_OURS;
	t->kernel.value.present = true;
}

static void put_objects(struct transaction *t, const struct change *c)
{
	bool there = t->kernel.table == TABLE_OURS;

	for (unsigned i = 0; i < c->strays; i++)
		if (message(t, t->kernel.strays > 0, "unknown object"))
			t->kernel.strays--;
	if (c->flowtable && message(t, there, "flowtable " RULESET_FLOWTABLE))
		t->kernel.flowtable = true;
	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		if (c->counters[i] && message(t, there, "counter %s", traffic_type_names[i]))
			t->kernel.counters[i] = true;
	for (size_t i = 0; i < RULESET_SETS; i++)
		if (c->sets[i] && message(t, there, "set %s", ruleset_set_schema[i].name))
			t->kernel.sets[i] = true;
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		if (c->chains[i] && message(t, there, "chain %s", ruleset_chain_names[i]))
			t->kernel.has_chain[i] = true;
}

static void put_change(struct transaction *t, const struct change *c, const struct ruleset *to)
{
	put_table(t, c);
	if (c->flush_rules && message(t, t->kernel.table == TABLE_OURS, "rules of table inet " RULESET_TABLE))
		flush_rules(&t->kernel);
	put_objects(t, c);
	for (size_t i = 0; i < RULESET_SETS; i++) {
		put_elements(t, i, &c->delta.remove[i], false);
		put_elements(t, i, &c->delta.add[i], true);
	}
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		if (c->delta.chains[i])
			put_rules(t, (enum ruleset_chain)i, to);
}

/* All of it or nothing. */
static int commit(struct transaction *t, struct sync_result *ret)
{
	struct memory_backend *m = t->m;
	int code = t->code;

	if (!t->messages)
		goto out;
	m->transactions++;
	ret->messages += t->messages;
	if (!code && m->fail_code) {
		code = m->fail_code;
		memcpy(t->object, m->fail_object, sizeof(t->object));
		m->fail_code = 0;
	}
	if (!code)
		code = at_point(m, MEMORY_COMMIT, "table inet " RULESET_TABLE);
	if (code)
		goto out;
	ruleset_normalize(&t->kernel.value);
	kernel_done(&m->kernel);
	m->kernel = t->kernel;
	t->kernel = (struct kernel){0};
	code = at_point(m, MEMORY_ANSWER, "table inet " RULESET_TABLE);
out:
	kernel_done(&t->kernel);
	if (code && !t->object[0])
		snprintf(t->object, sizeof(t->object), "table inet " RULESET_TABLE);
	return t->code = code;
}

/* --- the backend: as nft_backend.c --- */

static void device_failed(struct sync_result *r, const struct device *d, int code)
{
	r->failed = xreallocarray(r->failed, r->n_failed + 1, sizeof(*r->failed));
	r->failed[r->n_failed] = (struct device_failure){.code = code};
	memcpy(r->failed[r->n_failed++].name, d->name, sizeof(d->name));
}

static void device_refused(struct sync_result *r, bool add, const struct device *d, int code)
{
	if (!add && code == -ENOENT)
		r->devices_removed++;
	else
		device_failed(r, d, code);
}

/* In transactions of their own; one that is refused costs itself. */
static void sync_devices(
	struct memory_backend *m, bool add, const struct device *devices, size_t n, struct sync_result *r)
{
	struct transaction t;
	size_t at;

	if (!n)
		return;
	begin(m, &t);
	put_devices(&t, add, devices, n);
	if (!commit(&t, r)) {
		*(add ? &r->devices_added : &r->devices_removed) += (unsigned)n;
		return;
	}
	at = t.device < n ? t.device : n / 2;
	if (n == 1) {
		device_refused(r, add, devices, t.code);
		return;
	}
	sync_devices(m, add, devices, at, r);
	if (t.device < n)
		device_refused(r, add, &devices[at++], t.code);
	sync_devices(m, add, devices + at, n - at, r);
}

static bool has_device(const struct device_list *list, const char *name)
{
	for (size_t i = 0; i < list->n; i++)
		if (!strcmp(list->items[i].name, name))
			return true;
	return false;
}

/* The change, with the devices of 'first'; without them when one is refused, which then leaves the list. */
static int send_change(struct memory_backend *m, const struct change *c, const struct ruleset *to,
	struct device_list *first, struct sync_result *r, struct error *err)
{
	struct transaction t;
	size_t refused;
	int code;

	begin(m, &t);
	put_change(&t, c, to);
	put_devices(&t, true, first->items, first->n);
	if (!commit(&t, r)) {
		r->devices_added += (unsigned)first->n;
		first->n = 0;
		return 0;
	}
	code = t.code;
	refused = t.device;
	if (refused < first->n) {
		begin(m, &t);
		put_change(&t, c, to);
		if (!commit(&t, r)) {
			device_failed(r, &first->items[refused], code);
			memmove(first->items + refused, first->items + refused + 1,
				(--first->n - refused) * sizeof(*first->items));
			return 0;
		}
	}
	return error_set(err, t.code, t.object, NULL, "the kernel refused it: %s", strerror(-t.code));
}

/* 'm' as it was before the change: what a refused device is taken for at last is no repair, nor what is refused now. */
static void count_change(const struct memory_backend *m, const struct change *c, struct sync_result *r)
{
	r->created = c->create && !c->delete_first;
	memcpy(r->found, c->found, sizeof(r->found));
	for (size_t i = 0; r->found[REPAIR_DEVICE] && i < c->delta.add_devices.n; i++) {
		const char *name = c->delta.add_devices.items[i].name;
		bool failed = false;

		for (size_t k = 0; k < r->n_failed; k++)
			failed |= !strcmp(r->failed[k].name, name);
		r->found[REPAIR_DEVICE] -= failed || has_device(&m->wanted, name);
	}
	for (size_t i = 0; i < RULESET_SETS; i++) {
		r->elements_added += (unsigned)c->delta.add[i].n;
		r->elements_removed += (unsigned)c->delta.remove[i].n;
	}
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		r->chains_rewritten += c->delta.chains[i];
}

static void remember(struct memory_backend *m, const struct change *c, const struct sync_result *r)
{
	m->known = m->present = true;
	m->wanted.n = 0;
	for (size_t i = 0; i < r->n_failed; i++) {
		struct device d = {0};

		memcpy(d.name, r->failed[i].name, sizeof(d.name));
		if (has_device(&c->delta.remove_devices, d.name))
			m->known = false;
		else
			*VEC_ADD(m->wanted.items, m->wanted.n, m->wanted.cap) = d;
	}
}

static int apply_change(struct memory_backend *m, const struct change *c, bool observed,
	const struct ruleset *to, struct sync_result *r, struct error *err)
{
	const struct device_list *add = &c->delta.add_devices, *remove = &c->delta.remove_devices;
	struct device_list first = {0}, retry = {0};
	int code;

	for (size_t i = 0; !observed && i < m->wanted.n; i++) {
		const struct device *d = &m->wanted.items[i];

		if (!has_device(add, d->name) && !has_device(remove, d->name))
			*VEC_ADD(retry.items, retry.n, retry.cap) = *d;
	}
	for (size_t i = 0; i < add->n; i++) {
		struct device_list *list = has_device(&m->wanted, add->items[i].name) ? &retry : &first;

		*VEC_ADD(list->items, list->n, list->cap) = add->items[i];
	}
	code = send_change(m, c, to, &first, r, err);
	if (code) {
		/* What the result counted did not happen. */
		sync_result_done(r);
	} else {
		sync_devices(m, true, first.items, first.n, r);
		sync_devices(m, true, retry.items, retry.n, r);
		sync_devices(m, false, remove->items, remove->n, r);
		count_change(m, c, r);
		remember(m, c, r);
	}
	free(first.items);
	free(retry.items);
	return code;
}

static int observe(struct memory_backend *m, struct kernel *ret, struct error *err)
{
	static const char *const objects[] = {"table", "flowtables", "counters", "sets", "chains", "rules"};
	int code = 0;

	m->observations++;
	for (size_t i = 0; i < ARRAY_SIZE(objects) && !code; i++) {
		code = at_point(m, MEMORY_DUMP, objects[i]);
		if (code)
			error_set(err, code, "table inet " RULESET_TABLE, NULL, "cannot read its %s: %s",
				objects[i], strerror(-code));
	}
	if (code)
		return code;
	kernel_copy(&m->kernel, ret);
	at_point(m, MEMORY_OBSERVED, "table inet " RULESET_TABLE);
	return 0;
}

/* As nft_change.c counts it. */
static void count_found(
	const struct kernel *seen, const bool chain_differs[RULESET_CHAINS], struct change *ret)
{
	unsigned *found = ret->found;

	found[REPAIR_TABLE] = ret->create && !ret->delete_first;
	if (ret->create)
		return;
	found[REPAIR_FLOWTABLE] = ret->flowtable;
	if (!ret->flowtable)
		found[REPAIR_DEVICE] = (unsigned)(ret->delta.add_devices.n + ret->delta.remove_devices.n);
	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		found[REPAIR_COUNTER] += ret->counters[i];
	for (size_t i = 0; i < RULESET_SETS; i++) {
		found[REPAIR_SET] += ret->sets[i];
		if (!ret->sets[i])
			found[REPAIR_ELEMENT] += (unsigned)(ret->delta.add[i].n + ret->delta.remove[i].n);
	}
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		found[REPAIR_CHAIN] += ret->chains[i] || chain_differs[i];
	found[REPAIR_FOREIGN] = seen->strays;
}

static void change_of(struct kernel *seen, const struct ruleset *to, bool rebuild, struct change *ret)
{
	bool chain_differs[RULESET_CHAINS];
	struct kernel want;

	*ret = (struct change){.create = rebuild || seen->table != TABLE_OURS, .delete_first = rebuild};
	if (ret->create)
		kernel_done(seen);
	kernel_of(to, &want);
	take_indexes(&seen->value, to);
	ruleset_delta_add(&ret->delta, &seen->value, &want.value);
	ret->strays = seen->strays;
	ret->flush_rules = seen->strays > 0;
	ret->flowtable = !seen->flowtable;
	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		ret->counters[i] = !seen->counters[i];
	for (size_t i = 0; i < RULESET_SETS; i++)
		ret->sets[i] = !seen->sets[i];
	for (size_t i = 0; i < RULESET_CHAINS; i++) {
		ret->chains[i] = !seen->has_chain[i];
		chain_differs[i] = !rule_list_equal(&seen->chains[i], &want.chains[i]);
		ret->delta.chains[i] = ret->flush_rules || chain_differs[i];
	}
	count_found(seen, chain_differs, ret);
	kernel_done(&want);
}

static int sync_absent(
	struct memory_backend *m, const struct kernel *seen, struct sync_result *r, struct error *err)
{
	struct transaction t;

	begin(m, &t);
	if (seen->table == TABLE_OURS &&
		message(&t, t.kernel.table != TABLE_ABSENT, "table inet " RULESET_TABLE))
		kernel_done(&t.kernel);
	if (commit(&t, r) && t.code != -ENOENT) {
		sync_result_done(r);
		return error_set(err, t.code, t.object, NULL, "the kernel refused it: %s", strerror(-t.code));
	}
	m->known = true;
	m->present = false;
	m->wanted.n = 0;
	return 0;
}

static int sync_present(struct memory_backend *m, struct kernel *seen, const struct ruleset *to,
	struct sync_result *r, struct error *err)
{
	unsigned found[REPAIR_KINDS];
	struct change c;
	bool flushed;
	int code;

	change_of(seen, to, false, &c);
	flushed = c.flush_rules;
	code = apply_change(m, &c, true, to, r, err);
	ruleset_delta_done(&c.delta);
	if (!code || !flushed || code == -ENOENT || code == -ENOBUFS)
		return code;
	memcpy(found, c.found, sizeof(found));
	change_of(seen, to, true, &c);
	memcpy(c.found, found, sizeof(found));
	code = apply_change(m, &c, true, to, r, err);
	ruleset_delta_done(&c.delta);
	return code;
}

static int sync(struct backend *b, const struct ruleset *desired, struct sync_result *ret, struct error *err)
{
	struct memory_backend *m = memory(b);
	struct kernel seen = {0};
	int code;

	*ret = (struct sync_result){0};
	m->known = false;
	code = observe(m, &seen, err);
	if (code)
		;
	else if (!desired->present)
		code = sync_absent(m, &seen, ret, err);
	else if (seen.table == TABLE_FOREIGN)
		code = error_set(err, -EEXIST, "table inet " RULESET_TABLE, NULL,
			"a table of this name is there that slipstream did not make");
	else
		code = sync_present(m, &seen, desired, ret, err);
	kernel_done(&seen);
	return code;
}

static int apply(struct backend *b, const struct ruleset *desired, const struct ruleset_delta *delta,
	struct sync_result *ret, struct error *err)
{
	struct memory_backend *m = memory(b);
	struct change c = {.delta = *delta}; /* borrowed */
	int code;

	*ret = (struct sync_result){0};
	if (!m->known || delta->unknown || m->present != desired->present)
		return error_set(
			err, -ESTALE, "table inet " RULESET_TABLE, NULL, "what the kernel has is not known");
	if (!desired->present)
		return 0;
	code = apply_change(m, &c, false, desired, ret, err);
	if (code)
		m->known = false;
	return code;
}

static void forget(struct backend *b)
{
	memory(b)->known = false;
}

static int inserts(struct backend *b, uint64_t ret[TRAFFIC_TYPES], struct error *err)
{
	struct memory_backend *m = memory(b);

	memset(ret, 0, sizeof(m->kernel.inserts));
	if (!m->kernel.value.present)
		return error_set(err, -ENOENT, "table inet " RULESET_TABLE, NULL, "there is no such table");
	memcpy(ret, m->kernel.inserts, sizeof(m->kernel.inserts));
	return 0;
}

static void memory_backend_free(struct backend *b)
{
	struct memory_backend *m = memory(b);

	kernel_done(&m->kernel);
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

void memory_backend_restart(struct backend *b)
{
	struct memory_backend *m = memory(b);

	m->known = m->present = false;
	m->wanted.n = 0;
}

/* --- what it holds --- */

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
	const struct kernel *k = &memory(b)->kernel;
	bool differ = false;
	const struct ruleset_diff_ops ops = {
		.device = differs_device, .element = differs_element, .arg = &differ};
	struct kernel want;
	bool equal;

	kernel_of(rs, &want);
	take_indexes(&want.value, &k->value);
	/* A foreign table is nothing of ours. */
	equal = k->value.present == rs->present && !k->strays && k->flowtable == want.flowtable &&
		!memcmp(k->counters, want.counters, sizeof(k->counters)) &&
		!memcmp(k->sets, want.sets, sizeof(k->sets)) &&
		!memcmp(k->has_chain, want.has_chain, sizeof(k->has_chain));
	for (size_t i = 0; equal && i < RULESET_CHAINS; i++)
		equal = rule_list_equal(&k->chains[i], &want.chains[i]);
	ruleset_diff(&k->value, &want.value, &ops);
	kernel_done(&want);
	return equal && !differ;
}

struct lines {
	char **items;
	size_t n, cap;
};

static void __attribute__((format(printf, 2, 3))) add_line(struct lines *l, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	*VEC_ADD(l->items, l->n, l->cap) = xstrdup(text);
}

static void list_chain(const struct kernel *k, size_t i, struct strbuf *text, struct lines *ret)
{
	add_line(ret, "chain %s", ruleset_chain_names[i]);
	for (size_t r = 0; r < k->chains[i].n; r++) {
		strbuf_clear(text);
		rule_print(&k->chains[i].items[r], text);
		add_line(ret, "chain %s: %zu: %s", ruleset_chain_names[i], r + 1, text->data);
	}
}

/* One per thing that it holds. */
static void list_kernel(const struct kernel *k, const struct ruleset *links, struct lines *ret)
{
	static const char *const tables[] = {"none", "somebody else's", "ours"};
	struct strbuf text = {0};

	add_line(ret, "table: %s", tables[k->table]);
	if (k->flowtable)
		add_line(ret, "flowtable");
	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		if (k->counters[i])
			add_line(ret, "counter %s", traffic_type_names[i]);
	for (size_t i = 0; i < k->value.n_devices; i++)
		add_line(ret, "device %s", k->value.devices[i].name);
	for (size_t i = 0; i < RULESET_SETS; i++) {
		if (k->sets[i])
			add_line(ret, "set %s", ruleset_set_schema[i].name);
		for (size_t e = 0; e < k->value.sets[i].n; e++) {
			strbuf_clear(&text);
			element_print(links, (enum ruleset_set)i, &k->value.sets[i].items[e], &text);
			add_line(ret, "set %s: %s", ruleset_set_schema[i].name, text.data);
		}
	}
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		if (k->has_chain[i])
			list_chain(k, i, &text, ret);
	if (k->strays)
		add_line(ret, "unknown objects: %u", k->strays);
	strbuf_done(&text);
}

static void print_missing(const struct lines *from, const struct lines *in, char sign, struct strbuf *out)
{
	for (size_t i = 0; i < from->n; i++) {
		bool found = false;

		for (size_t k = 0; !found && k < in->n; k++)
			found = !strcmp(from->items[i], in->items[k]);
		if (!found)
			strbuf_printf(out, "%c %s\n", sign, from->items[i]);
	}
}

static void lines_done(struct lines *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->items[i]);
	free(l->items);
}

void memory_backend_diff(const struct backend *b, const struct ruleset *rs, struct strbuf *out)
{
	struct lines there = {0}, wanted = {0};
	struct kernel want;

	kernel_of(rs, &want);
	list_kernel(&memory(b)->kernel, rs, &there);
	list_kernel(&want, rs, &wanted);
	print_missing(&there, &wanted, '-', out);
	print_missing(&wanted, &there, '+', out);
	lines_done(&there);
	lines_done(&wanted);
	kernel_done(&want);
}

unsigned memory_backend_transactions(const struct backend *b)
{
	return memory(b)->transactions;
}

unsigned memory_backend_observations(const struct backend *b)
{
	return memory(b)->observations;
}

/* --- faults and foreign edits --- */

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

void memory_backend_on_fault(struct backend *b, memory_fault *fault, void *arg)
{
	memory(b)->fault = fault;
	memory(b)->fault_arg = arg;
}

void memory_backend_drop_table(struct backend *b)
{
	kernel_done(&memory(b)->kernel);
}

void memory_backend_drop_device(struct backend *b, const char *name)
{
	remove_device(&memory(b)->kernel.value, name);
}

void memory_backend_rename_device(struct backend *b, const char *from, const char *to)
{
	struct ruleset *rs = &memory(b)->kernel.value;
	size_t i = find_device(rs, from);

	if (i == rs->n_devices)
		return;
	snprintf(rs->devices[i].name, sizeof(rs->devices[i].name), "%s", to);
	ruleset_normalize(rs);
}

void memory_backend_tamper_element(
	struct backend *b, enum ruleset_set set, const struct set_element *e, bool add)
{
	struct kernel *k = &memory(b)->kernel;
	struct element_list *list = &k->value.sets[set];

	if (!k->sets[set])
		return;
	remove_element(list, e);
	if (!add)
		return;
	*VEC_ADD(list->items, list->n, list->cap) = *e;
	ruleset_normalize(&k->value);
}

void memory_backend_flush_chain(struct backend *b, enum ruleset_chain chain)
{
	flush_chain(&memory(b)->kernel, chain);
}

static void edit_rule(struct kernel *k, unsigned chain)
{
	struct rule_list *rules = &k->chains[chain];

	if (rules->n)
		rules->items[rules->n - 1] = (struct rule){.exprs = {{.op = OP_ACCEPT}}, .n = 1};
}

/* Half of its sets and chains are what they are today, the others have other names and rules. */
static void make_older(struct kernel *k)
{
	for (size_t i = 0; i < RULESET_SETS; i += 2) {
		k->sets[i] = false;
		k->value.sets[i].n = 0;
		k->strays++;
	}
	for (size_t i = 0; i < RULESET_CHAINS; i += 2)
		edit_rule(k, (unsigned)i);
}

void memory_backend_edit(struct backend *b, enum memory_edit edit, unsigned which)
{
	struct kernel *k = &memory(b)->kernel;

	if (edit == MEMORY_FOREIGN_TABLE) {
		kernel_done(k);
		k->table = TABLE_FOREIGN;
		return;
	}
	if (k->table != TABLE_OURS)
		return;
	switch (edit) {
	case MEMORY_OLDER_TABLE:
		make_older(k);
		break;
	case MEMORY_DROP_FLOWTABLE:
		flush_rules(k);
		k->flowtable = false;
		k->value.n_devices = 0;
		break;
	case MEMORY_DROP_COUNTER:
		flush_rules(k);
		k->counters[which] = false;
		break;
	case MEMORY_DROP_SET:
		flush_rules(k);
		k->sets[which] = false;
		k->value.sets[which].n = 0;
		break;
	case MEMORY_DROP_CHAIN:
		flush_rules(k);
		k->has_chain[which] = false;
		break;
	case MEMORY_EDIT_RULE:
		edit_rule(k, which);
		break;
	case MEMORY_ADD_STRAY:
		k->strays++;
		break;
	default:
		break;
	}
}

void memory_backend_count(struct backend *b, enum traffic_type type, uint64_t n)
{
	if (memory(b)->kernel.value.present)
		memory(b)->kernel.inserts[type] += n;
}
