/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/status.h"

#include "datapath/kernel_advisories.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

static void put(struct json_object *to, const char *key, struct json_object *value)
{
	json_object_object_add(to, key, value);
}

static void put_text(struct json_object *to, const char *key, const char *value)
{
	put(to, key, json_object_new_string(value));
}

static void put_u64(struct json_object *to, const char *key, uint64_t value)
{
	put(to, key, json_object_new_uint64(value));
}

static void put_bool(struct json_object *to, const char *key, bool value)
{
	put(to, key, json_object_new_boolean(value));
}

/* Milliseconds are all that a time needs. */
static void put_time(struct json_object *to, const char *key, double seconds)
{
	char text[40];

	snprintf(text, sizeof(text), "%.3f", seconds);
	put(to, key, json_object_new_double_s(seconds, text));
}

static struct json_object *add_object(struct json_object *to, const char *key)
{
	struct json_object *o = json_object_new_object();

	put(to, key, o);
	return o;
}

static struct json_object *add_array(struct json_object *to, const char *key)
{
	struct json_object *o = json_object_new_array();

	put(to, key, o);
	return o;
}

static struct json_object *append_object(struct json_object *array)
{
	struct json_object *o = json_object_new_object();

	json_object_array_add(array, o);
	return o;
}

static void add_pair(void *arg, const char *in, const char *out, bool hairpin)
{
	struct json_object *o = append_object(arg);

	put_text(o, "in", in);
	put_text(o, "out", out);
	put_bool(o, "hairpin", hairpin);
}

static void add_warning(struct json_object *array, const char *object, const char *text)
{
	struct json_object *o = append_object(array);

	put_text(o, "object", object);
	put_text(o, "text", text);
}

static void add_advisories(struct json_object *array, const struct facts *facts)
{
	struct kernel_advisory all[KERNEL_ADVISORIES_MAX];
	size_t n = kernel_advisories(facts->kernel, facts->kernel_version, all);

	for (size_t i = 0; i < n; i++) {
		struct json_object *o = append_object(array);

		put_text(o, "id", all[i].id);
		put_text(o, "severity", advisory_severity_names[all[i].severity]);
		put_text(o, "what", all[i].what);
		put_text(o, "effect", all[i].effect);
		put_text(o, "mend", all[i].mend);
	}
}

static void add_hardware(struct json_object *root, const struct agent *a)
{
	struct json_object *o = add_object(root, "hardwareOffload");

	put_text(o, "configured", a->config.hardware_offload ? "auto" : "off");
	put_bool(o, "inForce", a->figures.hardware);
	put_text(o, "reason", a->figures.hardware_reason);
}

/* Returns the array "warnings". */
static struct json_object *add_plan(struct json_object *root, const struct plan *p, const struct facts *facts)
{
	struct json_object *array, *o;

	put_text(root, "kernel", facts->kernel);
	o = add_object(root, "features");
	put_bool(o, "nftables", facts->features.nftables);
	put_bool(o, "flowtable", facts->features.flowtable);
	put_bool(o, "flowtableCounter", facts->features.flowtable_counter);
	put_text(o, "reason", facts->features.reason);
	add_advisories(add_array(root, "kernelAdvisories"), facts);
	o = add_object(root, "cluster");
	put_text(o, "kind", cluster_kind_names[p->kind]);
	put_text(o, "reason", p->kind_reason);

	array = add_array(root, "types");
	for (size_t i = 0; i < TRAFFIC_TYPES; i++) {
		o = append_object(array);
		put_text(o, "type", traffic_type_names[i]);
		put_text(o, "engine", engine_names[p->types[i].engine]);
		put_text(o, "reason", p->types[i].reason);
	}
	array = add_array(root, "devices");
	for (size_t i = 0; i < p->n_devices; i++) {
		const struct plan_device *d = &p->devices[i];

		o = append_object(array);
		put_text(o, "name", d->name);
		put_u64(o, "ifindex", d->ifindex);
		put_text(o, "role", device_role_names[d->role]);
		put_text(o, "state", device_state_names[d->state]);
		put_bool(o, "checked", d->checked);
		put_text(o, "reason", d->reason);
	}
	plan_each_pair(p, add_pair, add_array(root, "pairs"));
	o = add_object(root, "sets");
	for (size_t i = 0; i < RULESET_SETS; i++)
		put_u64(o, ruleset_set_schema[i].name, p->ruleset.sets[i].n);
	array = add_array(root, "warnings");
	for (size_t i = 0; i < p->n_warnings; i++)
		add_warning(array, p->warnings[i].object, p->warnings[i].text);
	put_u64(root, "warningsTotal", p->warnings_total);
	return array;
}

static void add_figures(struct json_object *root, const struct agent *a, const struct flow_totals *flows)
{
	struct json_object *types;

	if (!json_object_object_get_ex(root, "types", &types))
		return;
	for (size_t i = 0; i < TRAFFIC_TYPES; i++) {
		struct json_object *o = json_object_array_get_idx(types, i);

		put_text(o, "configured", engine_names[a->config.engines[i]]);
		put_u64(o, "flows", flows->flows[i]);
		put_u64(o, "inserts", a->figures.inserts[i]);
		put_u64(o, "bytes", flows->bytes[i]);
		put_u64(o, "packets", flows->packets[i]);
	}
}

static void add_sync(struct json_object *root, const struct agent_figures *f)
{
	struct json_object *o = add_object(root, "sync"), *repaired;

	put_time(o, "last", f->last_sync);
	put_time(o, "lastChange", f->last_change);
	put_time(o, "lastVerified", f->last_verified);
	put(o, "lastDuration", json_object_new_double(f->last_duration));
	for (size_t i = 0; i < SYNC_OUTCOMES; i++)
		put_u64(o, sync_outcome_names[i], f->syncs[i]);
	put_u64(o, "messages", f->messages);
	put_u64(o, "repairs", f->repairs);
	repaired = add_object(o, "repaired");
	for (size_t i = 0; i < REPAIR_KINDS; i++)
		put_u64(repaired, repair_kind_names[i], f->repaired[i]);
	put_text(o, "lastRepairBy", f->last_actor);
	put_text(o, "error", f->sync_error);
	put_text(o, "factsError", f->facts_error);
	put_text(o, "probeError", f->probe_error);
}

static void add_ended(struct json_object *root, const struct ended_flows *e)
{
	struct json_object *o = add_object(root, "endedFlows");

	put_u64(o, "endpoint", e->ended);
	put_u64(o, "failures", e->failures);
	put_bool(o, "unsupported", e->cannot);
	put_text(o, "error", e->problem);
}

static void add_source(struct json_object *root, const struct source_status *s, const struct cluster *cluster)
{
	struct json_object *o = add_object(root, "source"), *array, *r;

	put_text(o, "kind", s->kind ? s->kind : "");
	put_text(o, "location", s->location);
	put_u64(o, "connections", s->connections);
	put_u64(o, "bytesReceived", s->bytes_received);
	array = add_array(o, "resources");
	for (size_t i = 0; i < OBJECT_KINDS; i++) {
		r = append_object(array);
		put_text(r, "resource", object_kind_names[i]);
		put_bool(r, "watched", s->resources[i].watched);
		put_bool(r, "synced", s->resources[i].synced);
		put_u64(r, "objects", cluster_count(cluster, i));
		put_u64(r, "lists", s->resources[i].lists);
		put_u64(r, "watchStarts", s->resources[i].watch_starts);
		put_u64(r, "events", s->resources[i].events);
		put_time(r, "lastEvent", s->resources[i].last_event);
		put_text(r, "problem", s->resources[i].problem);
	}
	r = add_object(o, "failures");
	for (size_t i = 0; i < SOURCE_FAILURES; i++)
		put_u64(r, source_failure_names[i], s->failures[i]);
}

static void write_json(struct json_object *root, struct strbuf *out)
{
	strbuf_puts(out,
		json_object_to_json_string_ext(root,
			JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
	strbuf_puts(out, "\n");
	json_object_put(root);
}

void status_plan_json(const char *node, const struct plan *p, const struct facts *facts, struct strbuf *out)
{
	struct json_object *root = json_object_new_object();

	put_text(root, "node", node);
	add_plan(root, p, facts);
	write_json(root, out);
}

void status_json(const struct metrics_input *in, struct strbuf *out)
{
	struct json_object *root = json_object_new_object(), *o, *warnings;
	const struct agent *a = in->agent;

	put_text(root, "version", SLIPSTREAM_VERSION);
	put_text(root, "commit", SLIPSTREAM_COMMIT);
	put_text(root, "node", a->node);
	put_bool(root, "ready", a->ready);
	put_bool(root, "planned", a->planned);
	put_bool(root, "waiting", a->waiting);
	put_text(root, "holder", in->holder ? in->holder : "");
	if (a->planned) {
		warnings = add_plan(root, a->plan, &a->facts);
		add_figures(root, a, in->flows);
	} else {
		put_text(root, "kernel", a->facts.kernel);
		warnings = add_array(root, "warnings");
	}
	if (a->figures.config_error[0])
		add_warning(warnings, "configuration", a->figures.config_error);
	if (in->ended->cannot)
		add_warning(warnings, "kernel", in->ended->problem);
	add_hardware(root, a);
	add_sync(root, &a->figures);
	add_ended(root, in->ended);
	add_source(root, in->source, in->cluster);
	o = add_object(root, "config");
	put_u64(o, "reloads", a->figures.reloads);
	put_u64(o, "reloadsFailed", a->figures.reloads_failed);
	put_text(o, "error", a->figures.config_error);
	write_json(root, out);
}
