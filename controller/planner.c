/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/planner.h"

#include "base/mem.h"
#include "controller/plan_private.h"

#include <stdio.h>
#include <string.h>

static void on_node(void *arg, const struct node *old, const struct node *new)
{
	(void)old;
	(void)new;
	((struct planner *)arg)->base_needed = true;
}

static void on_service(void *arg, const struct service *old, const struct service *new)
{
	plan_services_change(arg, old, new);
}

struct cluster_observer planner_observer(struct planner *p)
{
	return (struct cluster_observer){.node = on_node, .service = on_service, .arg = p};
}

struct planner *planner_new(const struct cluster *cluster, const char *node)
{
	struct planner *p = xcalloc(1, sizeof(*p));
	const struct service *s = NULL;

	p->cluster = cluster;
	p->node = xstrdup(node);
	p->plan = &p->result;
	p->base_needed = true;
	while ((s = cluster_next_service(cluster, s)))
		plan_services_change(p, NULL, s);
	return p;
}

void planner_free(struct planner *p)
{
	if (!p)
		return;
	plan_done(&p->result);
	plan_services_done(&p->services);
	free(p->local.items);
	free(p->remote.items);
	free(p->node);
	free(p);
}

void planner_note(struct planner *p, const struct facts *facts, const struct config *config)
{
	p->facts = facts;
	p->config = config;
	p->base_needed = true;
}

static bool is_service_set(size_t set)
{
	return set >= SERVICE_SETS_FIRST && set <= SERVICE_SETS_LAST;
}

size_t planner_set_size(const struct planner *p, enum ruleset_set set)
{
	if (!is_service_set(set))
		return p->plan->ruleset.sets[set].n;
	return p->serves ? p->services.counts.n[set] : 0;
}

/* Whether there is anything to exclude for Services: a bit for each of the sets that rules are there for. */
static unsigned excludes(const struct planner *p)
{
	unsigned bits = 0;

	for (size_t set = SET_EXCLUDED_IPS4; set <= SET_EXCLUDED_NODEPORTS; set++)
		bits = bits << 1 | (planner_set_size(p, (enum ruleset_set)set) > 0);
	return bits;
}

static void recheck_cidr(void *arg, enum ruleset_set set, const struct set_element *e, bool add)
{
	enum set_kind kind = ruleset_set_schema[set].kind;
	struct prefix cidr;

	(void)add;
	if (set < SET_LOCAL_PODS4 || set > SET_REMOTE_PODS6)
		return;
	cidr.addr = addr_from_bytes(kind == SET_KIND_PREFIX6 ? AF_INET6 : AF_INET, e->key);
	cidr.len = e->prefix_len;
	plan_services_recheck(arg, &cidr);
}

/* Their elements are kept in p->services, and copied by planner_refresh(): they go from plan to plan. */
static void set_service_sets(struct ruleset *rs, const struct ruleset *from)
{
	for (size_t set = SERVICE_SETS_FIRST; set <= SERVICE_SETS_LAST; set++)
		rs->sets[set] = from ? from->sets[set] : (struct element_list){0};
}

static void start_or_stop_serving(struct planner *p, bool serves)
{
	p->serves = serves;
	for (size_t set = SERVICE_SETS_FIRST; set <= SERVICE_SETS_LAST; set++) {
		p->services.counts.stale[set] = true;
		p->result.ruleset.sets[set].n = 0;
	}
}

/*
 * The base is made anew beside the plan in use, which goes to 'old', and takes its place. Returns false when the two
 * have too little in common to be compared.
 */
static bool update_base(struct planner *p, struct plan *old)
{
	const struct ruleset_diff_ops ops = {.element = recheck_cidr, .arg = p};
	struct plan next = {0};
	bool serves, same;

	p->plan = &next;
	serves = plan_base(p);
	set_service_sets(&next.ruleset, &p->result.ruleset);
	*old = p->result;
	p->result = next;
	p->plan = &p->result;
	ruleset_diff(&old->ruleset, &next.ruleset, &ops);
	p->base_warnings = next.n_warnings;
	p->base_warnings_total = next.warnings_total;
	same = old->ruleset.present == next.ruleset.present && serves == p->serves;
	if (serves != p->serves)
		start_or_stop_serving(p, serves);
	return same;
}

/* Leaves the rules of the plan in use to 'old', and it without any. */
static void take_rules(struct planner *p, struct plan *old)
{
	struct ruleset *rs = &p->result.ruleset;

	*old = p->result;
	rs->exclusions = (struct rule_list){0};
	rs->classes = NULL;
	rs->n_classes = rs->cap_classes = 0;
}

static void drop_rules(struct plan *old)
{
	free(old->ruleset.exclusions.items);
	free(old->ruleset.classes);
}

void planner_update(struct planner *p, struct ruleset_delta *ret)
{
	bool base = p->base_needed, known = p->made, rules;
	unsigned excluded = excludes(p);
	struct plan old = {0};

	ruleset_delta_clear(ret);
	if (base && !update_base(p, &old))
		known = false;
	element_counts_settle(&p->services.counts, known && p->serves ? ret : NULL);
	rules = base || excludes(p) != excluded;
	if (rules && !base)
		take_rules(p, &old);
	if (rules && p->result.ruleset.present)
		plan_classes(p);
	if (rules && known)
		ruleset_delta_add(ret, &old.ruleset, &p->result.ruleset);
	if (base) {
		set_service_sets(&old.ruleset, NULL);
		plan_done(&old);
	} else {
		drop_rules(&old);
	}
	ret->unknown = !known;
	p->base_needed = false;
	p->made = p->stale = true;
}

const struct plan *planner_plan(const struct planner *p)
{
	return &p->result;
}

void planner_refresh(struct planner *p)
{
	bool slices = cluster_synced(p->cluster, OBJECT_ENDPOINT_SLICE);
	struct plan *plan = &p->result;

	if (!p->stale && p->refreshed == cluster_generation(p->cluster) && p->refreshed_slices == slices)
		return;
	p->stale = false;
	p->refreshed = cluster_generation(p->cluster);
	p->refreshed_slices = slices;
	plan->n_warnings = p->base_warnings;
	plan->warnings_total = p->base_warnings_total;
	if (!p->serves)
		return;
	element_counts_export(&p->services.counts, &plan->ruleset);
	plan_services_warn(p);
}

void planner_device_failed(struct planner *p, const char *name, int code)
{
	for (size_t i = 0; i < p->result.n_devices; i++) {
		struct plan_device *d = &p->result.devices[i];

		if (strcmp(d->name, name) != 0)
			continue;
		d->state = DEVICE_FAILED;
		snprintf(d->reason, sizeof(d->reason), "refused by the kernel: %s", strerror(-code));
	}
}
