/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/metrics.h"

#include "base/mem.h"
#include "datapath/kernel_advisories.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define PREFIX "slipstream_"

struct writer {
	struct strbuf *out;
	bool openmetrics;
};

/* OpenMetrics names a counter's family without the _total of its samples. */
static void family(struct writer *w, const char *name, const char *type, const char *help)
{
	size_t len = strlen(name);
	int n = (int)len;

	if (w->openmetrics && !strcmp(type, "counter") && len > 6 && !strcmp(name + len - 6, "_total"))
		n -= 6;
	strbuf_printf(
		w->out, "# HELP " PREFIX "%.*s %s\n# TYPE " PREFIX "%.*s %s\n", n, name, help, n, name, type);
}

/* 'labels' is empty or like type="other",state="down"; its values are all words of our own. */
static void sample_u64(struct writer *w, const char *name, const char *labels, uint64_t value)
{
	strbuf_printf(w->out, PREFIX "%s%s%s%s %" PRIu64 "\n", name, *labels ? "{" : "", labels,
		*labels ? "}" : "", value);
}

static void sample_seconds(struct writer *w, const char *name, const char *labels, double value)
{
	strbuf_printf(w->out, PREFIX "%s%s%s%s %.6f\n", name, *labels ? "{" : "", labels, *labels ? "}" : "",
		value);
}

static void counter(struct writer *w, const char *name, const char *help, uint64_t value)
{
	family(w, name, "counter", help);
	sample_u64(w, name, "", value);
}

static void gauge(struct writer *w, const char *name, const char *help, uint64_t value)
{
	family(w, name, "gauge", help);
	sample_u64(w, name, "", value);
}

/* One sample per name of an enum. */
static void each(struct writer *w, const char *name, const char *type, const char *help, const char *label,
	const char *const *names, const uint64_t *values, size_t n)
{
	char labels[96];

	family(w, name, type, help);
	for (size_t i = 0; i < n; i++) {
		snprintf(labels, sizeof(labels), "%s=\"%s\"", label, names[i]);
		sample_u64(w, name, labels, values[i]);
	}
}

static void write_flows(struct writer *w, const struct metrics_input *in)
{
	const char *const end_names[] = {"endpoint"}, *const failure_names[] = {"unsupported", "other"};
	const uint64_t failures[] = {in->ended->cannot, in->ended->failures - in->ended->cannot};

	each(w, "offload_inserts_total", "counter",
		"Insertions of flows into the flowtable; a flow may be inserted several times.", "type",
		traffic_type_names, in->agent->figures.inserts, TRAFFIC_TYPES);
	each(w, "offloaded_flows", "gauge", "Connections that are offloaded now.", "type", traffic_type_names,
		in->flows->flows, TRAFFIC_TYPES);
	each(w, "offloaded_bytes_total", "counter", "Bytes of offloaded connections, both directions.",
		"type", traffic_type_names, in->flows->bytes, TRAFFIC_TYPES);
	each(w, "offloaded_packets_total", "counter", "Packets of offloaded connections, both directions.",
		"type", traffic_type_names, in->flows->packets, TRAFFIC_TYPES);
	each(w, "flows_ended_total", "counter", "Offloaded connections that were ended, by reason.", "reason",
		end_names, &in->ended->ended, ARRAY_SIZE(end_names));
	each(w, "flow_end_failures_total", "counter", "Failures to end offloaded connections, by reason.",
		"reason", failure_names, failures, ARRAY_SIZE(failure_names));
}

static void write_kernel(struct writer *w, const struct agent *a)
{
	struct kernel_advisory all[KERNEL_ADVISORIES_MAX];
	size_t n = kernel_advisories(a->facts.kernel, a->facts.kernel_version, all);
	char labels[96];

	family(w, "kernel_advisory", "gauge",
		"1 for what is known to be wrong with flowtables in this kernel version.");
	for (size_t i = 0; i < n; i++) {
		snprintf(labels, sizeof(labels), "advisory=\"%s\",severity=\"%s\"", all[i].id,
			advisory_severity_names[all[i].severity]);
		sample_u64(w, "kernel_advisory", labels, 1);
	}
	gauge(w, "hardware_offload", "Whether the flowtable is offloaded to hardware.", a->figures.hardware);
}

static void write_plan(struct writer *w, const struct metrics_input *in)
{
	const struct plan *p = in->agent->plan; /* empty before the first one */
	uint64_t devices[3][DEVICE_STATES] = {0}, sets[RULESET_SETS];
	const char *set_names[RULESET_SETS];
	char labels[96];

	for (size_t i = 0; i < p->n_devices; i++)
		devices[p->devices[i].role][p->devices[i].state]++;
	family(w, "devices", "gauge", "Network devices that matter to acceleration.");
	for (size_t role = 0; role < ARRAY_SIZE(devices); role++) {
		for (size_t state = 0; state < DEVICE_STATES; state++) {
			snprintf(labels, sizeof(labels), "role=\"%s\",state=\"%s\"", device_role_names[role],
				device_state_names[state]);
			sample_u64(w, "devices", labels, devices[role][state]);
		}
	}
	gauge(w, "pairs", "Pairs of devices between which flows are offloaded.",
		p->ruleset.sets[SET_PAIRS].n);
	for (size_t i = 0; i < RULESET_SETS; i++) {
		set_names[i] = ruleset_set_schema[i].name;
		sets[i] = p->ruleset.sets[i].n;
	}
	each(w, "set_elements", "gauge", "Elements that a set of the ruleset shall have.", "set", set_names,
		sets, RULESET_SETS);
	family(w, "traffic_type_engine", "gauge", "1 for the engine that carries a traffic type.");
	for (size_t i = 0; in->agent->planned && i < TRAFFIC_TYPES; i++) {
		snprintf(labels, sizeof(labels), "type=\"%s\",engine=\"%s\"", traffic_type_names[i],
			engine_names[p->types[i].engine]);
		sample_u64(w, "traffic_type_engine", labels, 1);
	}
	family(w, "cluster_kind", "gauge", "1 for the kind of cluster that was found.");
	if (in->agent->planned) {
		snprintf(labels, sizeof(labels), "kind=\"%s\"", cluster_kind_names[p->kind]);
		sample_u64(w, "cluster_kind", labels, 1);
	}
	write_kernel(w, in->agent);
	gauge(w, "flowtable_supported", "Whether this kernel has flowtables.",
		in->agent->facts.features.flowtable);
	gauge(w, "warnings", "Conditions that an operator should look at; `slipstream status` lists them.",
		p->warnings_total + in->config_warnings + (in->agent->figures.config_error[0] != '\0') +
			in->ended->cannot);
}

static void write_duration(struct writer *w, const struct agent_figures *f)
{
	uint64_t below = 0;
	char labels[40];

	family(w, "sync_duration_seconds", "histogram", "Time to read, plan and program one change.");
	for (size_t i = 0; i < SYNC_BUCKETS; i++) {
		below += f->duration_buckets[i];
		snprintf(labels, sizeof(labels), sync_bucket_seconds[i] == 1 ? "le=\"1.0\"" : "le=\"%g\"",
			sync_bucket_seconds[i]);
		sample_u64(w, "sync_duration_seconds_bucket", labels, below);
	}
	sample_u64(w, "sync_duration_seconds_bucket", "le=\"+Inf\"", f->duration_count);
	sample_seconds(w, "sync_duration_seconds_sum", "", f->duration_sum);
	sample_u64(w, "sync_duration_seconds_count", "", f->duration_count);
}

static void write_sync(struct writer *w, const struct agent *a)
{
	const struct agent_figures *f = &a->figures;
	const char *const reload_names[] = {"success", "failure"};
	const uint64_t reloads[] = {f->reloads, f->reloads_failed};

	gauge(w, "ready", "1 once the kernel was programmed for the first time.", a->ready);
	gauge(w, "waiting", "1 while another agent has this node and this one programs nothing.", a->waiting);
	family(w, "last_sync_timestamp_seconds", "gauge",
		"Unix time of the last synchronisation that did not fail, 0 before it.");
	sample_seconds(w, "last_sync_timestamp_seconds", "", f->last_sync);
	family(w, "last_verification_timestamp_seconds", "gauge",
		"Unix time at which the kernel was last looked at and held what it shall hold, 0 before it.");
	sample_seconds(w, "last_verification_timestamp_seconds", "", f->last_verified);
	write_duration(w, f);
	each(w, "syncs_total", "counter", "Synchronisations of the kernel by result.", "result",
		sync_outcome_names, f->syncs, SYNC_OUTCOMES);
	each(w, "sync_failures_total", "counter", "Failures to read or program the kernel by reason.",
		"reason", sync_failure_names, f->failures, SYNC_FAILURES);
	counter(w, "netlink_messages_total", "nf_tables messages sent to program the kernel.", f->messages);
	each(w, "repairs_total", "counter",
		"Repairs of what others changed in the table, by what was put right.", "kind",
		repair_kind_names, f->repaired, REPAIR_KINDS);
	each(w, "config_reloads_total", "counter", "Reloads of the configuration file by result.", "result",
		reload_names, reloads, ARRAY_SIZE(reloads));
}

static void write_source(struct writer *w, const struct metrics_input *in)
{
	const struct source_status *s = in->source;
	uint64_t lists[OBJECT_KINDS], starts[OBJECT_KINDS], restarts[OBJECT_KINDS], events[OBJECT_KINDS];
	uint64_t objects[OBJECT_KINDS];
	char labels[64];

	for (size_t i = 0; i < OBJECT_KINDS; i++) {
		objects[i] = cluster_count(in->cluster, i);
		lists[i] = s->resources[i].lists;
		starts[i] = s->resources[i].watch_starts;
		restarts[i] = starts[i] ? starts[i] - 1 : 0;
		events[i] = s->resources[i].events;
	}
	each(w, "objects", "gauge", "Objects of the cluster that are known.", "kind", object_kind_names,
		objects, OBJECT_KINDS);
	each(w, "lists_total", "counter", "Complete lists that were read.", "resource", object_kind_names,
		lists, OBJECT_KINDS);
	each(w, "watch_starts_total", "counter", "Watches that were begun.", "resource", object_kind_names,
		starts, OBJECT_KINDS);
	each(w, "watch_restarts_total", "counter",
		"Watches begun again, each after the end of the one before.", "resource", object_kind_names,
		restarts, OBJECT_KINDS);
	each(w, "watch_events_total", "counter", "Events that watches brought, bookmarks included.",
		"resource", object_kind_names, events, OBJECT_KINDS);
	family(w, "last_source_event_timestamp_seconds", "gauge",
		"Unix time at which the source of a resource last said something, 0 before it.");
	for (size_t i = 0; i < OBJECT_KINDS; i++) {
		snprintf(labels, sizeof(labels), "resource=\"%s\"", object_kind_names[i]);
		sample_seconds(w, "last_source_event_timestamp_seconds", labels, s->resources[i].last_event);
	}
	each(w, "source_failures_total", "counter", "Failures to read the cluster by reason.", "reason",
		source_failure_names, s->failures, SOURCE_FAILURES);
	counter(w, "source_bytes_received_total", "Bytes received from the source of the cluster's state.",
		s->bytes_received);
	counter(w, "source_connections_total", "Connections opened to the API server.", s->connections);
}

void metrics_write(struct strbuf *out, const struct metrics_input *in, bool openmetrics)
{
	struct writer w = {.out = out, .openmetrics = openmetrics};

	family(&w, "build_info", "gauge", "1, with version and commit of this program.");
	sample_u64(
		&w, "build_info", "version=\"" SLIPSTREAM_VERSION "\",commit=\"" SLIPSTREAM_COMMIT "\"", 1);
	write_sync(&w, in->agent);
	write_flows(&w, in);
	write_plan(&w, in);
	write_source(&w, in);
	each(&w, "events_total", "counter", "Occurrences on the Node by what became of them as Events.",
		"result", event_result_names, in->events, EVENT_RESULTS);
	if (openmetrics)
		strbuf_puts(out, "# EOF\n");
}

bool metrics_wants_openmetrics(const char *accept)
{
	static const char name[] = "application/openmetrics-text";

	for (const char *p = accept; p && *p; p = strchr(p, ',')) {
		size_t len;
		const char *q;

		p += strspn(p, ", \t");
		if (strncasecmp(p, name, sizeof(name) - 1))
			continue;
		len = strcspn(p, ",");
		if (p[sizeof(name) - 1] && !strchr(";, \t", p[sizeof(name) - 1]))
			continue;
		q = memmem(p, len, "q=0", 3);
		/* q=0, q=0.0 ... mean "not this one" (RFC 9110, 12.4.2) */
		if (!q || (strspn(q + 3, ".0") != strcspn(q + 3, ",; \t")))
			return true;
	}
	return false;
}
