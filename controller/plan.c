/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The base of a plan: which kind of node, whether at all, pod CIDRs, engines per type. */
#include "controller/plan.h"

#include "base/mem.h"
#include "controller/plan_private.h"
#include "datapath/kernel_advisories.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *const device_role_names[] = {"pod", "uplink", "bridge"};
const char *const device_state_names[] = {"active", "down", "missing", "failed"};

void plan_warn(struct planner *p, const char *object, const char *fmt, ...)
{
	struct plan *plan = p->plan;
	struct plan_warning *w;
	va_list ap;

	if (plan->warnings_total++ >= PLAN_WARNINGS_MAX)
		return;
	w = VEC_ADD(plan->warnings, plan->n_warnings, plan->cap_warnings);
	snprintf(w->object, sizeof(w->object), "%s", object);
	va_start(ap, fmt);
	vsnprintf(w->text, sizeof(w->text), fmt, ap);
	va_end(ap);
}

static void find_kind(struct planner *p)
{
	struct plan *plan = p->plan;
	const char *reason;

	plan->kind = p->config->cluster;
	if (plan->kind != CLUSTER_AUTO) {
		reason = "configured";
	} else if (p->own && p->own->antrea) {
		plan->kind = CLUSTER_ANTREA;
		reason = "the Node has annotations of Antrea";
	} else if (facts_link_by_name(p->facts, ANTREA_GATEWAY)) {
		plan->kind = CLUSTER_ANTREA;
		reason = "device " ANTREA_GATEWAY;
	} else {
		plan->kind = CLUSTER_KUBE_PROXY;
		reason = p->facts->kube_proxy_nftables   ? "table kube-proxy"
			 : p->facts->kube_proxy_iptables ? "chain KUBE-SERVICES"
							 : "nothing of Antrea found";
	}
	snprintf(plan->kind_reason, sizeof(plan->kind_reason), "%s", reason);
}

/* Why there shall be no table, NULL when there shall be one. */
static const char *why_not(const struct planner *p)
{
	struct kernel_advisory a;

	if (!p->config->enabled)
		return "disabled in the configuration (enabled: false)";
	if (p->own && p->own->acceleration_disabled)
		return "disabled by the Node's label slipstream/acceleration: disabled";
	if (!p->facts->features.nftables || !p->facts->features.flowtable)
		return p->facts->features.reason[0] ? p->facts->features.reason
						    : "the kernel has no flowtables";
	if (!p->config->use_bad_kernel && kernel_refused(p->facts->kernel, p->facts->kernel_version, &a))
		return a.refusal;
	return NULL;
}

static void warn_kernel(struct planner *p)
{
	struct kernel_advisory all[KERNEL_ADVISORIES_MAX];
	size_t n = kernel_advisories(p->facts->kernel, p->facts->kernel_version, all);

	for (size_t i = 0; i < n; i++)
		plan_warn(p, "kernel", "%s %s: %s", all[i].what, all[i].effect, all[i].mend);
}

static void set_type(struct plan *plan, enum traffic_type type, enum engine engine, const char *reason)
{
	plan->types[type].engine = engine;
	snprintf(plan->types[type].reason, sizeof(plan->types[type].reason), "%s", reason);
}

/* A choice that has nothing to act on here. */
static void warn_ignored(struct planner *p, enum traffic_type type, const char *why)
{
	if (p->config->engines[type] != ENGINE_AUTO)
		plan_warn(p, "configuration", "traffic.%s.engine: %s has no effect here: %s",
			traffic_type_names[type], engine_names[p->config->engines[type]], why);
}

static void choose_engine(struct planner *p, enum traffic_type type)
{
	struct plan *plan = p->plan;
	enum engine asked = p->config->engines[type];
	bool external = type == TYPE_EXTERNAL_TO_LOADBALANCER || type == TYPE_EXTERNAL_TO_EXTERNALIP;
	static const char notrack[] =
		"Antrea exempts these addresses from connection tracking (NOTRACK), so "
		"that no flowtable can act; remove kube-proxy from the node to end that";
	char reason[96];

	switch (asked) {
	case ENGINE_OFF:
		set_type(plan, type, ENGINE_OFF, "configured");
		plan->ruleset.off[type] = true;
		break;
	case ENGINE_REDIRECT:
		set_type(plan, type, ENGINE_OFF, "redirect is not supported by this version");
		plan->ruleset.off[type] = true;
		break;
	case ENGINE_FLOWTABLE:
		set_type(plan, type, ENGINE_FLOWTABLE, "configured");
		break;
	case ENGINE_AUTO:
		set_type(plan, type, ENGINE_FLOWTABLE, "auto: flowtable");
		if (type != TYPE_POD_TO_EXTERNAL || !p->facts->policy_rules)
			break;
		snprintf(reason, sizeof(reason),
			"auto: the node has %u policy routing rule%s of its own (Egress)",
			p->facts->policy_rules, p->facts->policy_rules == 1 ? "" : "s");
		set_type(plan, type, ENGINE_OFF, reason);
		plan->ruleset.off[type] = true;
		break;
	}
	/*
	 * Not in ruleset.off: what is not tracked never comes to our rules, and a type that is off puts its
	 * matches in front of everybody's offload.
	 */
	if (plan->kind == CLUSTER_ANTREA && p->facts->notrack && external && asked != ENGINE_OFF) {
		if (asked == ENGINE_FLOWTABLE)
			warn_ignored(p, type, notrack);
		set_type(plan, type, ENGINE_OFF, notrack);
	}
}

static void choose_engines(struct planner *p)
{
	static const char by_ovs[] = "counted as pod-to-pod: OVS does the Service NAT";
	static const char by_leg[] = "counted under the type of its first leg";
	struct plan *plan = p->plan;

	for (int i = 0; i < TRAFFIC_TYPES; i++)
		if (i != (plan->kind == CLUSTER_ANTREA ? TYPE_POD_TO_SERVICE : TYPE_EXTERNAL_TO_SERVICE))
			choose_engine(p, (enum traffic_type)i);
	if (plan->kind == CLUSTER_ANTREA) {
		set_type(plan, TYPE_POD_TO_SERVICE, plan->types[TYPE_POD_TO_POD].engine, by_ovs);
		warn_ignored(p, TYPE_POD_TO_SERVICE, by_ovs);
	} else {
		set_type(plan, TYPE_EXTERNAL_TO_SERVICE, ENGINE_FLOWTABLE, by_leg);
		warn_ignored(p, TYPE_EXTERNAL_TO_SERVICE, by_leg);
	}
}

static bool covered(const struct prefix_list *list, const struct prefix *inner)
{
	for (size_t i = 0; i < list->n; i++)
		if (prefix_covers(&list->items[i], inner))
			return true;
	return false;
}

static void add_local(struct planner *p, const struct prefix *cidr)
{
	*VEC_ADD(p->local.items, p->local.n, p->local.cap) = *cidr;
	ruleset_add_prefix(&p->plan->ruleset, SET_LOCAL_PODS4, cidr);
}

static void add_remote(struct planner *p, const struct prefix *cidr, const char *peer)
{
	char object[192], a[PREFIX_TEXT_SIZE], b[PREFIX_TEXT_SIZE];

	snprintf(object, sizeof(object), peer ? "Node %s" : "configuration", peer);
	if (covered(&p->local, cidr)) {
		plan_warn(p, object,
			"pod CIDR %s lies in this node's own pod CIDRs and is left out: give every node its "
			"own",
			prefix_text(cidr, a));
		return;
	}
	for (size_t i = 0; i < p->local.n; i++)
		if (prefix_covers(cidr, &p->local.items[i]))
			plan_warn(p, object, "pod CIDR %s overlaps this node's own pod CIDR %s",
				prefix_text(cidr, a), prefix_text(&p->local.items[i], b));
	*VEC_ADD(p->remote.items, p->remote.n, p->remote.cap) = *cidr;
	ruleset_add_prefix(&p->plan->ruleset, SET_REMOTE_PODS4, cidr);
}

static void find_families(struct planner *p)
{
	const struct facts *f = p->facts;

	for (size_t i = 0; i < p->local.n; i++)
		p->family[p->local.items[i].addr.family == AF_INET6] = true;
	for (size_t i = 0; p->own && i < p->own->n_addresses; i++)
		p->family[p->own->addresses[i].family == AF_INET6] = true;
	for (size_t i = 0; i < f->n_addresses; i++) {
		const struct link_address *a = &f->addresses[i];
		const struct link *l = facts_link(f, a->ifindex);

		if (a->scope == 0 && l && !l->loopback)
			p->family[a->addr.family == AF_INET6] = true;
	}
}

static void find_cidrs(struct planner *p)
{
	const struct config *c = p->config;
	struct ruleset *rs = &p->plan->ruleset;
	const struct node *n = NULL;

	for (size_t i = 0; p->own && i < p->own->n_pod_cidrs; i++)
		add_local(p, &p->own->pod_cidrs[i]);
	for (size_t i = 0; i < c->local_pod_cidrs.n; i++)
		add_local(p, &c->local_pod_cidrs.items[i]);
	while ((n = cluster_next_node(p->cluster, n))) {
		if (n == p->own)
			continue;
		for (size_t i = 0; i < n->n_pod_cidrs; i++)
			add_remote(p, &n->pod_cidrs[i], n->name);
		for (size_t i = 0; i < n->n_addresses; i++)
			ruleset_add_addr(rs, SET_PEER_NODES4, &n->addresses[i]);
		for (size_t i = 0; i < n->n_transport_addresses; i++)
			ruleset_add_addr(rs, SET_PEER_NODES4, &n->transport_addresses[i]);
	}
	for (size_t i = 0; i < c->remote_pod_cidrs.n; i++)
		add_remote(p, &c->remote_pod_cidrs.items[i], NULL);
}

/* What is known of the own node; false: too little for any device. */
static bool check_own_node(struct planner *p)
{
	char object[192];

	snprintf(object, sizeof(object), "Node %s", p->node);
	if (!p->own) {
		plan_warn(p, object,
			"--node %s is not in the cluster: give the Node's name as `kubectl get nodes` has it",
			p->node);
		return p->config->local_pod_cidrs.n;
	}
	if (!p->own->n_pod_cidrs && !p->config->local_pod_cidrs.n)
		plan_warn(p, object, "has no spec.podCIDRs: set cluster.localPodCIDRs");
	return true;
}

bool plan_base(struct planner *p)
{
	struct plan *plan = p->plan;
	struct ruleset *rs = &plan->ruleset;
	const char *why;
	bool enough;

	p->local.n = p->remote.n = 0;
	p->family[0] = p->family[1] = false;
	p->own = cluster_node(p->cluster, p->node);
	find_kind(p);
	warn_kernel(p);
	why = why_not(p);
	if (why) {
		for (int i = 0; i < TRAFFIC_TYPES; i++)
			set_type(plan, (enum traffic_type)i, ENGINE_OFF, why);
		return false;
	}
	rs->present = true;
	rs->accounting = p->config->accounting;
	rs->hardware_offload = p->config->hardware_offload;
	choose_engines(p);
	enough = check_own_node(p);
	if (enough) {
		find_cidrs(p);
		plan_devices(p);
		for (size_t i = 0; i < p->config->exclude_cidrs.n; i++)
			ruleset_add_prefix(rs, SET_EXCLUDED_CIDRS4, &p->config->exclude_cidrs.items[i]);
	}
	find_families(p);
	p->own = NULL;
	ruleset_normalize(rs);
	return enough;
}

void plan_make(const struct plan_input *in, struct plan *ret)
{
	struct planner *p = planner_new(in->cluster, in->node ? in->node : "");
	struct ruleset_delta delta = {0};

	planner_note(p, in->facts, in->config);
	planner_update(p, &delta);
	planner_refresh(p);
	*ret = p->result;
	p->result = (struct plan){0};
	ruleset_delta_done(&delta);
	planner_free(p);
}

void plan_done(struct plan *p)
{
	ruleset_done(&p->ruleset);
	free(p->devices);
	free(p->warnings);
	*p = (struct plan){0};
}

static uint32_t get_be32(const uint8_t *b)
{
	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static const char *link_name(const struct ruleset *rs, uint32_t ifindex, char *number)
{
	size_t low = 0, high = rs->n_links;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (rs->links[middle].ifindex == ifindex)
			return rs->links[middle].name;
		if (rs->links[middle].ifindex < ifindex)
			low = middle + 1;
		else
			high = middle;
	}
	snprintf(number, IFNAMSIZ, "%u", ifindex);
	return number;
}

void plan_each_pair(const struct plan *p,
	void (*each)(void *arg, const char *in, const char *out, bool hairpin), void *arg)
{
	static const enum ruleset_set sets[] = {SET_PAIRS, SET_HAIRPINS};
	char a[IFNAMSIZ], b[IFNAMSIZ];

	for (size_t s = 0; s < ARRAY_SIZE(sets); s++) {
		const struct element_list *pairs = &p->ruleset.sets[sets[s]];

		for (size_t i = 0; i < pairs->n; i++)
			each(arg, link_name(&p->ruleset, get_be32(pairs->items[i].key), a),
				link_name(&p->ruleset, get_be32(pairs->items[i].key + 4), b),
				sets[s] == SET_HAIRPINS);
	}
}
