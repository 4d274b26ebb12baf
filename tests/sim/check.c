/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What must hold: the invariants of sim.h. */
#include "sim.h"

#include "plan_text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static struct backend *inner(void)
{
	return the_sim->kernel.backend;
}

static void plan_now(const struct agent *a, struct plan *ret)
{
	const struct plan_input in = {a->cluster, &a->facts, &a->config, a->node};

	plan_make(&in, ret);
}

/* Whether the agent's plan was made of what there is now. */
static bool plan_is_current(const struct agent *a)
{
	return a->planned && !a->base_changed && a->planned_generation == cluster_generation(a->cluster);
}

static void keep(struct ruleset *to, const struct ruleset *from)
{
	ruleset_done(to);
	ruleset_copy(from, to);
}

void check_snapshot(struct sim *s)
{
	keep(&s->checks.before, memory_backend_ruleset(s->kernel.backend));
}

/* --- 2 (b): what a transaction did, against what was desired --- */

struct change_check {
	struct sim *s;
	const struct ruleset *desired;
};

static bool has_device(const struct ruleset *rs, const char *name)
{
	for (size_t i = 0; rs->present && i < rs->n_devices; i++)
		if (!strcmp(rs->devices[i].name, name))
			return true;
	return false;
}

static bool has_element(const struct ruleset *rs, enum ruleset_set set, const struct set_element *e)
{
	for (size_t i = 0; rs->present && i < rs->sets[set].n; i++)
		if (!memcmp(&rs->sets[set].items[i], e, sizeof(*e)))
			return true;
	return false;
}

static void check_device(void *arg, const struct device *d, bool add)
{
	const struct change_check *c = arg;

	if (has_device(c->desired, d->name) != add && !(add && has_device(&c->s->checks.before, d->name)))
		violated(c->s, 2, "device %s %s, which %s desired", d->name, add ? "added" : "removed",
			add ? "is not" : "is");
}

static void check_element(void *arg, enum ruleset_set set, const struct set_element *e, bool add)
{
	const struct change_check *c = arg;
	struct strbuf text = {0};

	if (has_element(c->desired, set, e) == add)
		return;
	element_print(c->desired, set, e, &text);
	violated(c->s, 2, "element %s of set %s %s, which %s desired", text.data,
		ruleset_set_schema[set].name, add ? "added" : "removed", add ? "is not" : "is");
	strbuf_done(&text);
}

static void check_change(struct sim *s, const struct ruleset *desired)
{
	struct change_check c = {s, desired};
	const struct ruleset_diff_ops ops = {.device = check_device, .element = check_element, .arg = &c};
	const struct ruleset *now = memory_backend_ruleset(inner());

	if (now->present != s->checks.before.present && now->present != desired->present)
		violated(
			s, 2, "the table was %s, against what is desired", now->present ? "made" : "removed");
	ruleset_diff(&s->checks.before, now, &ops);
}

/* --- 2 (c): what the kernel holds after a step that succeeded --- */

static void take_device(struct ruleset *rs, const char *name)
{
	for (size_t i = 0; i < rs->n_devices; i++)
		if (!strcmp(rs->devices[i].name, name)) {
			memmove(&rs->devices[i], &rs->devices[i + 1],
				(rs->n_devices - i - 1) * sizeof(*rs->devices));
			rs->n_devices--;
			return;
		}
}

static void check_kernel(struct sim *s, const struct ruleset *desired, const struct sync_result *result)
{
	bool devices = s->checks.changes == s->node.changes;
	struct ruleset expected;
	struct strbuf diff = {0};

	if (s->kernel.dirty)
		return;
	ruleset_copy(desired, &expected);
	for (size_t i = 0; i < result->n_failed; i++) {
		devices &= has_device(&expected, result->failed[i].name);
		/* The answer may have been lost. */
		if (!has_device(memory_backend_ruleset(inner()), result->failed[i].name))
			take_device(&expected, result->failed[i].name);
	}
	if (!devices && expected.present) {
		const struct ruleset *now = memory_backend_ruleset(inner());

		expected.n_devices = 0;
		for (size_t i = 0; i < now->n_devices; i++)
			ruleset_add_device(&expected, now->devices[i].name, now->devices[i].ifindex);
	}
	if (!memory_backend_equals(inner(), &expected)) {
		memory_backend_diff(inner(), &expected, &diff);
		violated(s, 2, "after a step that succeeded the kernel is not what was desired:\n%s",
			diff.data ? diff.data : "");
		strbuf_done(&diff);
	}
	ruleset_done(&expected);
}

/* --- the backend in between --- */

static bool same_delta(const struct ruleset_delta *a, const struct ruleset_delta *b)
{
	bool same = a->add_devices.n == b->add_devices.n && a->remove_devices.n == b->remove_devices.n &&
		    !memcmp(a->chains, b->chains, sizeof(a->chains));

	for (size_t i = 0; same && i < a->add_devices.n; i++)
		same = !memcmp(&a->add_devices.items[i], &b->add_devices.items[i], sizeof(struct device));
	for (size_t i = 0; same && i < a->remove_devices.n; i++)
		same = !strcmp(a->remove_devices.items[i].name, b->remove_devices.items[i].name);
	for (size_t i = 0; same && i < RULESET_SETS; i++)
		same = a->add[i].n == b->add[i].n && a->remove[i].n == b->remove[i].n &&
		       (!a->add[i].n || !memcmp(a->add[i].items, b->add[i].items,
						a->add[i].n * sizeof(struct set_element))) &&
		       (!a->remove[i].n || !memcmp(a->remove[i].items, b->remove[i].items,
						   a->remove[i].n * sizeof(struct set_element)));
	return same;
}

static void print_elements(enum ruleset_set set, const struct element_list *list, char sign, struct strbuf *b)
{
	static const struct ruleset no_links;

	for (size_t i = 0; i < list->n; i++) {
		strbuf_printf(b, "%c element of %s: ", sign, ruleset_set_schema[set].name);
		element_print(&no_links, set, &list->items[i], b);
		strbuf_puts(b, "\n");
	}
}

static char *delta_text(const struct ruleset_delta *d)
{
	struct strbuf b = {0};

	for (size_t i = 0; i < d->remove_devices.n; i++)
		strbuf_printf(&b, "- device %s\n", d->remove_devices.items[i].name);
	for (size_t i = 0; i < d->add_devices.n; i++)
		strbuf_printf(&b, "+ device %s (%u)\n", d->add_devices.items[i].name,
			d->add_devices.items[i].ifindex);
	for (size_t i = 0; i < RULESET_SETS; i++) {
		print_elements((enum ruleset_set)i, &d->remove[i], '-', &b);
		print_elements((enum ruleset_set)i, &d->add[i], '+', &b);
	}
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		if (d->chains[i])
			strbuf_printf(&b, "rules of chain %s\n", ruleset_chain_names[i]);
	return strbuf_steal(&b);
}

static void check_delta(struct sim *s, const struct ruleset_delta *delta, const struct ruleset *now)
{
	struct ruleset_delta expected = {0};

	ruleset_delta_add(&expected, &s->checks.last, now);
	if (!same_delta(delta, &expected)) {
		CLEANUP_FREE char *reported = delta_text(delta);
		CLEANUP_FREE char *text = delta_text(&expected);

		violated(s, 3, "the planner reports as its delta:\n%sbut its rulesets differ in:\n%s",
			reported, text);
	}
	ruleset_delta_done(&expected);
}

/* (d) of 2, and what a call did. */
static void check_call(struct sim *s, int code, const struct sync_result *result, unsigned transactions)
{
	const struct view *v = s->client.views;
	struct checks *c = &s->checks;

	c->step.calls++;
	c->step.transactions += transactions;
	c->step.devices_removed += result->devices_removed;
	c->step.failed = code < 0;
	c->step.refused = result->n_failed > 0;
	if (transactions && !(v[OBJECT_NODE].synced && v[OBJECT_SERVICE].synced) &&
		s->client.agent.config.enabled)
		violated(s, 2, "something was sent before Nodes and Services were listed");
	check_change(s, &c->last);
	if (!code)
		check_kernel(s, &c->last, result);
	trace(s, "agent: %s, %u messages, +%u -%u elements, %u chains, +%u -%u devices%s",
		code ? strerror(-code) : "programmed", result->messages, result->elements_added,
		result->elements_removed, result->chains_rewritten, result->devices_added,
		result->devices_removed, result->n_failed ? ", some refused" : "");
}

static int on_sync(
	struct backend *b, const struct ruleset *desired, struct sync_result *ret, struct error *err)
{
	struct sim *s = the_sim;
	unsigned before = memory_backend_transactions(inner());
	int code;

	(void)b;
	s->now += draw_us(s, 100, 3 * US_PER_MS);
	/* Planned while the backend was not asked. */
	if (!s->checks.last_known)
		keep(&s->checks.last, desired);
	s->checks.last_known = true;
	if (!ruleset_equal(desired, &s->checks.last))
		violated(s, 3, "what the backend is given is not plan_make()'s");
	check_snapshot(s);
	s->kernel.dirty_again = false;
	code = backend_sync(inner(), desired, ret, err);
	if (!code)
		s->kernel.dirty = s->kernel.dirty_again;
	check_call(s, code, ret, memory_backend_transactions(inner()) - before);
	return code;
}

static int on_apply(struct backend *b, const struct ruleset *desired, const struct ruleset_delta *delta,
	struct sync_result *ret, struct error *err)
{
	struct sim *s = the_sim;
	struct checks *c = &s->checks;
	unsigned before = memory_backend_transactions(inner()), faults = s->kernel.faults;
	struct plan plan = {0};
	int code;

	(void)b;
	c->step.asked = true;
	s->now += draw_us(s, 50, 2 * US_PER_MS);
	if (plan_is_current(&s->client.agent)) {
		plan_now(&s->client.agent, &plan);
		c->step.moved = !c->last_known || !ruleset_equal(&c->last, &plan.ruleset);
		if (c->last_known && !delta->unknown)
			check_delta(s, delta, &plan.ruleset);
		keep(&c->last, &plan.ruleset);
		c->last_known = true;
		plan_done(&plan);
	} else if (c->last_known && !ruleset_delta_empty(delta)) {
		violated(s, 3, "a delta without a plan");
	}
	check_snapshot(s);
	code = backend_apply(inner(), desired, delta, ret, err);
	c->step.fault_in_apply = s->kernel.faults > faults;
	/* Not asked, not answered. */
	if (code == -ESTALE)
		return code;
	check_call(s, code, ret, memory_backend_transactions(inner()) - before);
	return code;
}

static void on_forget(struct backend *b)
{
	(void)b;
	backend_forget(inner());
}

static int on_inserts(struct backend *b, uint64_t ret[TRAFFIC_TYPES], struct error *err)
{
	(void)b;
	return backend_inserts(inner(), ret, err);
}

const struct backend_ops check_backend_ops = {
	.sync = on_sync, .apply = on_apply, .forget = on_forget, .inserts = on_inserts};

/* --- 2 (a): the replica --- */

static uint64_t hash_at(
	const struct sim *s, enum object_kind kind, unsigned i, uint64_t version, bool *ret_any)
{
	const struct entry *e = server_at(&s->server, kind, i, version);

	*ret_any = e && e->spec.present && e->spec.bad;
	return e && spec_visible(kind, &e->spec, s->client.views[kind].field_selector) ? e->hash : 0;
}

static bool was(const struct sim *s, enum object_kind kind, unsigned i, uint64_t hash)
{
	const struct view *v = &s->client.views[kind];
	const struct history *h = &s->server.objects[kind][i];
	bool any;

	if (hash_at(s, kind, i, v->low, &any) == hash || any)
		return true;
	for (size_t k = h->n; !v->exact && k && h->items[k - 1].version > v->low; k--)
		if (hash_at(s, kind, i, h->items[k - 1].version, &any) == hash || any)
			return true;
	return false;
}

static void check_replica(struct sim *s)
{
	uint64_t hashes[OBJECTS_MAX];
	char namespace[16], name[16];

	for (int kind = 0; kind < OBJECT_KINDS; kind++) {
		const struct view *v = &s->client.views[kind];

		if (!v->synced)
			continue;
		if (!replica_hashes(s->client.cluster, kind, hashes))
			violated(s, 2, "the replica has an object of %s that never was",
				object_kind_names[kind]);
		for (unsigned i = 0; i < OBJECTS_MAX; i++) {
			if (was(s, kind, i, hashes[i]))
				continue;
			spec_name(kind, i, namespace, name);
			violated(s, 2, "in the replica %s %s/%s is %s, as it was not at %s%" PRIu64,
				object_kind_names[kind], namespace, name, hashes[i] ? "as it is" : "absent",
				v->exact ? "" : "any version since ", v->low);
		}
	}
}

/* --- steps --- */

void check_step_begin(struct sim *s)
{
	const struct agent *a = &s->client.agent;
	struct checks *c = &s->checks;

	check_replica(s);
	memset(&c->step, 0, sizeof(c->step));
	s->kernel.faults = s->kernel.races = 0;
	c->step.dirty = s->kernel.dirty;
	c->step.was_synced = c->synced;
	c->step.was_refused = c->refused;
	c->step.current = plan_is_current(a);
	c->step.idle = c->step.current && !a->plan_needed && !a->sync_needed;
	for (int i = 0; i < AGENT_INPUTS; i++)
		if (i != AGENT_CLUSTER && i != AGENT_FACTS && a->due[i] && a->due[i] <= s->now)
			c->step.idle = false;
}

/* Lines of 'x' that are not in 'y', with a sign. */
static void print_only(const char *x, const char *y, char sign, struct strbuf *out)
{
	while (*x) {
		size_t len = strcspn(x, "\n");
		CLEANUP_FREE char *line = xstrndup(x, len + (x[len] != '\0'));

		if (!strstr(y, line))
			strbuf_printf(out, "%c %s", sign, line);
		x += strlen(line);
	}
}

/* 3: all of the plan; not always, as nobody always reads it. */
static void check_plan(struct sim *s)
{
	struct agent *a = &s->client.agent;
	const struct plan *kept = a->plan;
	struct plan fresh;
	bool same;

	if (!plan_is_current(a) || !chance(s, 500))
		return;
	agent_refresh(a);
	plan_now(a, &fresh);
	same = ruleset_equal(&kept->ruleset, &fresh.ruleset) && kept->kind == fresh.kind &&
	       kept->n_devices == fresh.n_devices && kept->n_warnings == fresh.n_warnings &&
	       kept->warnings_total == fresh.warnings_total;
	for (size_t i = 0; same && i < TRAFFIC_TYPES; i++)
		same = kept->types[i].engine == fresh.types[i].engine &&
		       !strcmp(kept->types[i].reason, fresh.types[i].reason);
	for (size_t i = 0; same && i < fresh.n_devices; i++)
		same = !strcmp(kept->devices[i].name, fresh.devices[i].name) &&
		       kept->devices[i].ifindex == fresh.devices[i].ifindex &&
		       kept->devices[i].role == fresh.devices[i].role &&
		       kept->devices[i].checked == fresh.devices[i].checked;
	for (size_t i = 0; same && i < fresh.n_warnings; i++)
		same = !strcmp(kept->warnings[i].object, fresh.warnings[i].object) &&
		       !strcmp(kept->warnings[i].text, fresh.warnings[i].text);
	if (!same) {
		CLEANUP_FREE char *x = plan_text(kept);
		CLEANUP_FREE char *y = plan_text(&fresh);

		struct strbuf diff = {0};

		print_only(x, y, '-', &diff);
		print_only(y, x, '+', &diff);
		violated(s, 3, "the plan that is kept (-) is not plan_make()'s (+):\n%s",
			diff.data ? diff.data : "");
		strbuf_done(&diff);
	}
	plan_done(&fresh);
}

static void check_thrift(struct sim *s)
{
	const struct checks *c = &s->checks;
	bool undisturbed = !s->kernel.faults && !s->kernel.races && !c->step.dirty && !c->step.refused &&
			   !c->step.was_refused && c->step.was_synced;

	if (c->step.idle && !c->step.facts_changed && c->step.calls)
		violated(s, 4, "the backend is asked although nothing has changed");
	if (!undisturbed)
		return;
	if (c->step.transactions && !c->step.moved && c->synced_changes == s->node.changes)
		violated(s, 4, "messages although nothing has changed");
	/* Of several devices that go, those that are gone already cost the message they are in. */
	if (c->step.transactions > (c->step.devices_removed ? 2 * c->step.devices_removed : 1))
		violated(s, 4, "%u transactions", c->step.transactions);
}

void check_step_end(struct sim *s)
{
	const struct agent *a = &s->client.agent;
	struct checks *c = &s->checks;

	check_thrift(s);
	if (c->step.failed && !s->kernel.foreign_table && c->step.was_synced && !s->node.no_nftables &&
		((s->kernel.faults == 1 && c->step.fault_in_apply && s->kernel.lost && !s->kernel.races)))
		violated(s, 5, "one lost answer fails the step");
	if (c->step.failed && !s->kernel.faults && !s->kernel.races && !s->kernel.foreign_table &&
		c->step.was_synced && !s->node.no_nftables)
		violated(s, 5, "what others did fails the step");
	if (c->step.refused && c->step.was_synced && !c->step.was_refused && !c->step.failed &&
		(agent_wait(a) < 0 || agent_wait(a) > (int64_t)(6 * US_PER_S)))
		violated(s, 5, "devices were refused and are not tried again soon");
	check_plan(s);
	if (c->step.calls) {
		c->synced = !c->step.failed;
		c->refused = c->step.refused;
		if (c->synced)
			c->synced_changes = c->changes;
	}
	/* Planned, and not told to the backend. */
	if (!c->step.asked && (!a->facts.features.nftables || a->retry_at))
		c->last_known = false;
}

void check_new_process(struct sim *s)
{
	s->checks.last_known = s->checks.synced = s->checks.refused = false;
	s->kernel.dirty = true;
}

void check_done(struct sim *s)
{
	ruleset_done(&s->checks.last);
	ruleset_done(&s->checks.before);
}

/* --- 5: requests --- */

void check_request(struct sim *s, const struct connection *c)
{
	struct view *v = &s->client.views[c->kind];
	uint64_t *oldest = &v->requests[v->n_requests % ARRAY_SIZE(v->requests)];

	if (s->now + 2 * US_PER_MS < v->not_before)
		violated(s, 5, "a request for %s %" PRIu64 " ms before Retry-After allows one",
			object_kind_names[c->kind], (v->not_before - s->now) / US_PER_MS);
	if (c->cont[0])
		return;
	if (*oldest && s->now - *oldest < US_PER_S)
		violated(s, 5, "%zu requests for %s within a second", ARRAY_SIZE(v->requests),
			object_kind_names[c->kind]);
	*oldest = s->now;
	v->n_requests++;
}

/* --- 1 --- */

void check_converged(struct sim *s, const char *when)
{
	struct cluster *truth = server_truth(&s->server);
	struct agent *a = &s->client.agent;
	struct facts facts = {0};
	struct config config;
	struct plan plan;
	struct strbuf diff = {0};

	node_facts(s, &facts);
	node_probe(s, &facts);
	config_make(s, &config);
	plan_make(&(struct plan_input){truth, &facts, &config, "n0"}, &plan);
	if (!s->node.no_nftables && !memory_backend_equals(inner(), &plan.ruleset)) {
		memory_backend_diff(inner(), &plan.ruleset, &diff);
		violated(s, 1,
			"%s the kernel is not what the cluster, the node and the configuration ask for:\n%s",
			when, diff.data ? diff.data : "");
	}
	for (int i = 0; i < AGENT_INPUTS; i++)
		if (a->due[i] && i != AGENT_VERIFY &&
			!(i == AGENT_FEATURES && (s->node.no_flowtable || s->node.no_nftables)))
			violated(s, 1, "%s something is left to do: input %d", when, i);
	strbuf_done(&diff);
	plan_done(&plan);
	config_done(&config);
	facts_done(&facts);
	cluster_free(truth);
}
