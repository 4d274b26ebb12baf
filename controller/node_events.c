/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/node_events.h"

#include "base/mem.h"
#include "base/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SECOND UINT64_C(1000000)
#define LASTS (10 * SECOND)
#define CONTESTED (600 * SECOND)

/* Of a degraded state or a conflict; the low bits are the traffic types that are off. */
#define CAUSE_KERNEL (1u << TRAFFIC_TYPES)
#define CAUSE_NODE (2u << TRAFFIC_TYPES)
#define CAUSE_DEVICES (4u << TRAFFIC_TYPES)
#define CAUSE_FAILING (8u << TRAFFIC_TYPES)
#define CAUSE_IN_THE_WAY (16u << TRAFFIC_TYPES)
#define CAUSE_REPAIRS (32u << TRAFFIC_TYPES)

static void add_cause(uint32_t *causes, uint32_t cause, struct strbuf *note, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static void add_cause(uint32_t *causes, uint32_t cause, struct strbuf *note, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	strbuf_printf(note, "%s%s", note->len ? "; " : "", text);
	*causes |= cause;
}

/* A type that is off although nobody asked for it. */
static bool off_unasked(const struct agent *a, size_t type)
{
	/* Behind Antrea it is a name for another type. */
	if (type == TYPE_POD_TO_SERVICE && a->plan->kind == CLUSTER_ANTREA)
		return false;
	return a->plan->types[type].engine == ENGINE_OFF && a->config.engines[type] != ENGINE_OFF;
}

static uint32_t find_types(const struct agent *a, struct strbuf *note)
{
	uint32_t causes = 0;

	/* Types with one reason in one breath. */
	for (size_t i = 0; i < TRAFFIC_TYPES; i++) {
		struct strbuf names = {0};
		uint32_t same = 0;

		for (size_t k = i; k < TRAFFIC_TYPES; k++) {
			if (causes & 1u << k || !off_unasked(a, k) || (k != i && !same) ||
				strcmp(a->plan->types[i].reason, a->plan->types[k].reason))
				continue;
			strbuf_printf(&names, "%s%s", names.len ? ", " : "", traffic_type_names[k]);
			same |= 1u << k;
		}
		if (same)
			add_cause(&causes, same, note, "%s: off, %s", names.data, a->plan->types[i].reason);
		strbuf_done(&names);
	}
	return causes;
}

static void find_devices(const struct agent *a, uint32_t *causes, struct strbuf *note)
{
	const struct plan_device *first = NULL;
	unsigned more = 0;

	for (size_t i = 0; i < a->plan->n_devices; i++) {
		if (a->plan->devices[i].state != DEVICE_FAILED)
			continue;
		more += first != NULL;
		if (!first)
			first = &a->plan->devices[i];
	}
	if (first && more)
		add_cause(causes, CAUSE_DEVICES, note, "device %s and %u more: %s", first->name, more,
			first->reason);
	else if (first)
		add_cause(causes, CAUSE_DEVICES, note, "device %s: %s", first->name, first->reason);
}

/* Nothing is managed then. (That there is no pod-side device yet is what a node without pods looks like.) */
static void find_node(const struct agent *a, uint32_t *causes, struct strbuf *note)
{
	const struct node *own = cluster_node(a->cluster, a->node);

	if (!own && !a->config.local_pod_cidrs.n)
		add_cause(causes, CAUSE_NODE, note, "the cluster has no Node %s: give its name with --node",
			a->node);
	else if (own && !own->n_pod_cidrs && !a->config.local_pod_cidrs.n)
		add_cause(
			causes, CAUSE_NODE, note, "the Node has no spec.podCIDRs: set cluster.localPodCIDRs");
}

static void note_repairs(struct node_events *n, const struct agent *a, uint64_t now)
{
	if (a->figures.repairs != n->repairs) {
		memmove(&n->repaired_at[1], &n->repaired_at[0],
			sizeof(n->repaired_at) - sizeof(n->repaired_at[0]));
		n->repaired_at[0] = now;
		n->repairs = a->figures.repairs;
	}
	if (n->repaired_at[NODE_REPAIRS - 1] && now - n->repaired_at[NODE_REPAIRS - 1] < CONTESTED)
		n->contested = true;
	if (now - n->repaired_at[0] >= CONTESTED)
		n->contested = false;
}

static bool switched_off(const struct agent *a)
{
	const struct node *own = cluster_node(a->cluster, a->node);

	return !a->config.enabled || (own && own->acceleration_disabled);
}

static enum node_state look(
	struct node_events *n, const struct agent *a, uint32_t *causes, struct strbuf *note)
{
	const struct agent_figures *f = &a->figures;
	const char *failing = f->sync_error[0]    ? f->sync_error
			      : f->facts_error[0] ? f->facts_error
						  : f->probe_error;

	if (f->sync_error[0] && f->sync_failure == SYNC_FAILURE_CONFLICT)
		add_cause(causes, CAUSE_IN_THE_WAY, note, "%s", f->sync_error);
	else if (failing[0])
		add_cause(causes, CAUSE_FAILING, note, "%s", failing);
	if (n->contested)
		add_cause(causes, CAUSE_REPAIRS, note,
			"table inet " RULESET_TABLE " is changed again and again by %s, and repaired",
			f->last_actor[0] ? f->last_actor : "somebody else");
	if (*causes & (CAUSE_IN_THE_WAY | CAUSE_REPAIRS))
		return NODE_CONFLICT;
	if (!a->planned)
		return *causes ? NODE_DEGRADED : NODE_UNKNOWN;
	if (!*causes && switched_off(a)) {
		strbuf_puts(note, a->plan->types[0].reason);
		return NODE_DISABLED;
	}
	if (!a->plan->ruleset.present) {
		if (!switched_off(a))
			add_cause(causes, CAUSE_KERNEL, note, "%s; every packet takes the normal path",
				a->plan->types[0].reason);
		return NODE_DEGRADED;
	}
	find_node(a, causes, note);
	find_devices(a, causes, note);
	*causes |= find_types(a, note);
	if (*causes)
		return NODE_DEGRADED;
	strbuf_printf(note, "connections are offloaded: cluster kind %s, %zu devices, %zu pairs",
		cluster_kind_names[a->plan->kind], a->plan->ruleset.n_devices,
		a->plan->ruleset.sets[SET_PAIRS].n);
	return a->ready ? NODE_ACCELERATES : NODE_UNKNOWN;
}

static bool is_bad(enum node_state s)
{
	return s == NODE_DEGRADED || s == NODE_CONFLICT;
}

/* The event of a transition; false: it is none. */
static bool name_event(enum node_state from, enum node_state to, struct node_event *ret)
{
	ret->warning = is_bad(to);
	ret->action = "Accelerate";
	switch (to) {
	case NODE_DISABLED:
		ret->reason = "AccelerationDisabled";
		return true;
	case NODE_ACCELERATES:
		ret->reason = is_bad(from) ? "AccelerationRecovered" : "AccelerationEnabled";
		return true;
	case NODE_DEGRADED:
		ret->reason = "AccelerationDegraded";
		return true;
	case NODE_CONFLICT:
		ret->reason = "CoexistenceConflict";
		return true;
	case NODE_UNKNOWN:
		break;
	}
	return false;
}

bool node_events_step(struct node_events *n, const struct agent *a, uint64_t now, struct node_event *ret)
{
	struct strbuf note = {0};
	uint32_t causes = 0;
	enum node_state state;
	bool further;

	note_repairs(n, a, now);
	state = look(n, a, &causes, &note);
	snprintf(n->note, sizeof(n->note), "%s", note.data ? note.data : "");
	strbuf_done(&note);
	if (!n->seen_at || state != n->seen || causes != n->seen_causes) {
		n->seen = state;
		n->seen_causes = causes;
		n->seen_at = now;
	}
	if (is_bad(state) && now - n->seen_at < LASTS)
		return false;
	further = state != n->said || causes & ~n->said_causes;
	n->said_causes = causes;
	if (!further || !name_event(n->said, state, ret))
		return false;
	n->said = state;
	ret->note = n->note;
	return true;
}

int64_t node_events_wait(const struct node_events *n, uint64_t now)
{
	uint64_t at = UINT64_MAX;

	if (is_bad(n->seen) && (n->seen != n->said || n->seen_causes != n->said_causes))
		at = n->seen_at + LASTS;
	if (n->contested && n->repaired_at[0] + CONTESTED < at)
		at = n->repaired_at[0] + CONTESTED;
	if (at == UINT64_MAX)
		return -1;
	return at > now ? (int64_t)(at - now) : 0;
}
