/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/status.h"

#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* All of these take NULL, and anything of another type, as absent. */
static struct json_object *get(struct json_object *o, const char *key)
{
	struct json_object *value;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, key, &value))
		return NULL;
	return value;
}

static size_t count(struct json_object *array)
{
	return json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

/* A terminal must not obey what a cluster's objects are named. */
static const char *text(struct json_object *o, const char *key)
{
	static char clean[8][512];
	static unsigned next;
	struct json_object *value = get(o, key);
	char *to = clean[next++ % ARRAY_SIZE(clean)];
	const char *s = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
	size_t i;

	for (i = 0; s[i] && i < sizeof(clean[0]) - 1; i++)
		to[i] = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i];
	to[i] = '\0';
	return to;
}

static uint64_t number(struct json_object *o, const char *key)
{
	return json_object_get_uint64(get(o, key));
}

static bool truth(struct json_object *o, const char *key)
{
	return json_object_get_boolean(get(o, key));
}

/* "12 s ago", "never" */
static const char *ago(struct json_object *o, const char *key)
{
	static char buf[3][40];
	static unsigned next;
	char *to = buf[next++ % ARRAY_SIZE(buf)];
	double then = json_object_get_double(get(o, key));
	double age = (double)time(NULL) - then;

	if (then <= 0)
		return "never";
	if (age < 1)
		return "just now";
	if (age < 120)
		snprintf(to, sizeof(buf[0]), "%.0f s ago", age);
	else if (age < 7200)
		snprintf(to, sizeof(buf[0]), "%.0f min ago", age / 60);
	else
		snprintf(to, sizeof(buf[0]), "%.0f h ago", age / 3600);
	return to;
}

#define COLUMNS_MAX 8
struct table {
	char **cells;
	size_t n, cap; /* of cells */
	size_t columns;
};

static void table_add(struct table *t, const char *cell)
{
	*VEC_ADD(t->cells, t->n, t->cap) = xstrdup(cell);
}

static void table_add_number(struct table *t, uint64_t value)
{
	char buf[24];

	snprintf(buf, sizeof(buf), "%" PRIu64, value);
	table_add(t, buf);
}

/* Columns as wide as their widest cell; frees the cells. */
static void table_print(struct table *t, struct strbuf *out)
{
	int width[COLUMNS_MAX] = {0};

	for (size_t i = 0; i < t->n; i++)
		if ((int)strlen(t->cells[i]) > width[i % t->columns])
			width[i % t->columns] = (int)strlen(t->cells[i]);
	for (size_t i = 0; i < t->n; i++) {
		if ((i + 1) % t->columns == 0)
			strbuf_printf(out, "%s\n", t->cells[i]);
		else
			strbuf_printf(out, "%-*s  ", width[i % t->columns], t->cells[i]);
		free(t->cells[i]);
	}
	free(t->cells);
	*t = (struct table){0};
}

static void table_head(struct table *t, const char *const *heads, size_t n)
{
	t->columns = n;
	for (size_t i = 0; i < n; i++)
		table_add(t, heads[i]);
}

static void print_types(struct json_object *root, struct strbuf *out)
{
	static const char *const heads[] = {"TYPE", "ENGINE", "FLOWS", "INSERTS", "BYTES", "REASON"};
	struct json_object *types = get(root, "types");
	struct table t = {0};

	if (!count(types))
		return;
	table_head(&t, heads, ARRAY_SIZE(heads));
	for (size_t i = 0; i < count(types); i++) {
		struct json_object *o = json_object_array_get_idx(types, i);

		table_add(&t, text(o, "type"));
		table_add(&t, text(o, "engine"));
		table_add_number(&t, number(o, "flows"));
		table_add_number(&t, number(o, "inserts"));
		table_add_number(&t, number(o, "bytes"));
		table_add(&t, text(o, "reason"));
	}
	strbuf_puts(out, "\n");
	table_print(&t, out);
}

static void print_devices(struct json_object *root, struct strbuf *out)
{
	static const char *const heads[] = {"DEVICE", "ROLE", "STATE", "REASON"};
	struct json_object *devices = get(root, "devices"), *pairs = get(root, "pairs");
	struct table t = {0};

	strbuf_puts(out, "\n");
	if (count(devices)) {
		table_head(&t, heads, ARRAY_SIZE(heads));
		for (size_t i = 0; i < count(devices); i++) {
			struct json_object *o = json_object_array_get_idx(devices, i);

			table_add(&t, text(o, "name"));
			table_add(&t, text(o, "role"));
			table_add(&t, text(o, "state"));
			table_add(&t, text(o, "reason"));
		}
		table_print(&t, out);
	} else {
		strbuf_puts(out, "no devices\n");
	}
	strbuf_printf(out, "%zu pairs", count(pairs));
	for (size_t i = 0; i < count(pairs) && i < 20; i++) {
		struct json_object *o = json_object_array_get_idx(pairs, i);

		strbuf_printf(out, "%s %s > %s%s", i ? "," : ":", text(o, "in"), text(o, "out"),
			truth(o, "hairpin") ? " (hairpin)" : "");
	}
	strbuf_puts(out, count(pairs) > 20 ? " ...\n" : "\n");
}

static void print_sync(struct json_object *root, struct strbuf *out)
{
	static const char *const errors[] = {"error", "factsError", "probeError"};
	struct json_object *o = get(root, "sync");

	strbuf_printf(out,
		"\nsync: last %s, last change %s, verified %s; %" PRIu64 " changed, %" PRIu64
		" unchanged, %" PRIu64 " failed",
		ago(o, "last"), ago(o, "lastChange"), ago(o, "lastVerified"), number(o, "changed"),
		number(o, "unchanged"), number(o, "failed"));
	strbuf_printf(out, "; %" PRIu64 " repairs", number(o, "repairs"));
	if (*text(o, "lastRepairBy"))
		strbuf_printf(out, " (last: %s)", text(o, "lastRepairBy"));
	strbuf_puts(out, "\n");
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		if (*text(o, errors[i]))
			strbuf_printf(out, "sync error: %s\n", text(o, errors[i]));
}

static void print_ended(struct json_object *root, struct strbuf *out)
{
	struct json_object *o = get(root, "endedFlows");

	if (number(o, "endpoint"))
		strbuf_printf(out, "ended: %" PRIu64 " UDP connections of endpoints that vanished\n",
			number(o, "endpoint"));
	if (*text(o, "error"))
		strbuf_printf(out, "ending connections: %s\n", text(o, "error"));
}

static void print_source(struct json_object *root, struct strbuf *out)
{
	struct json_object *o = get(root, "source"), *resources = get(o, "resources");

	strbuf_printf(out, "source: %s %s\n", text(o, "kind"), text(o, "location"));
	for (size_t i = 0; i < count(resources); i++) {
		struct json_object *r = json_object_array_get_idx(resources, i);

		if (!truth(r, "watched")) {
			strbuf_printf(out, "  %s: not watched\n", text(r, "resource"));
			continue;
		}
		strbuf_printf(out, "  %s: %s, %" PRIu64 " objects, heard %s%s%s\n", text(r, "resource"),
			truth(r, "synced") ? "synced" : "not synced", number(r, "objects"),
			ago(r, "lastEvent"), *text(r, "problem") ? "; " : "", text(r, "problem"));
	}
}

static void print_warnings(struct json_object *root, struct strbuf *out)
{
	struct json_object *warnings = get(root, "warnings");
	uint64_t total = number(root, "warningsTotal");

	if (!count(warnings))
		return;
	strbuf_puts(out, "\nwarnings:\n");
	for (size_t i = 0; i < count(warnings); i++) {
		struct json_object *o = json_object_array_get_idx(warnings, i);

		strbuf_printf(out, "  %s: %s\n", text(o, "object"), text(o, "text"));
	}
	if (total > count(warnings))
		strbuf_printf(out, "  and %" PRIu64 " more\n", total - count(warnings));
}

int status_text(const char *json, size_t len, struct strbuf *out, struct error *err)
{
	struct json_tokener *parser = json_tokener_new();
	struct json_object *root, *features;

	if (!parser || len > STATUS_JSON_MAX)
		abort();
	root = json_tokener_parse_ex(parser, json, (int)len);
	json_tokener_free(parser);
	if (!json_object_is_type(root, json_type_object)) {
		json_object_put(root);
		return error_set(
			err, -EINVAL, "status", "does slipstream listen there?", "the answer is not JSON");
	}
	strbuf_printf(out, "slipstream %s (%s) on node %s, kernel %s: %s\n", text(root, "version"),
		text(root, "commit"), text(root, "node"), text(root, "kernel"),
		truth(root, "ready") ? "ready" : "not ready");
	if (truth(root, "waiting"))
		strbuf_printf(out, "waiting: another agent has this node: %s\n",
			*text(root, "holder") ? text(root, "holder") : "it does not say who it is");
	if (get(root, "cluster"))
		strbuf_printf(out, "cluster: %s (%s)\n", text(get(root, "cluster"), "kind"),
			text(get(root, "cluster"), "reason"));
	features = get(root, "features");
	if (features && !truth(features, "flowtable"))
		strbuf_printf(out, "no acceleration: %s\n", text(features, "reason"));
	if (get(root, "hardwareOffload") &&
		strcmp(text(get(root, "hardwareOffload"), "configured"), "off") != 0)
		strbuf_printf(out, "hardware offload: %s\n",
			truth(get(root, "hardwareOffload"), "inForce")
				? "in force"
				: text(get(root, "hardwareOffload"), "reason"));
	print_types(root, out);
	print_devices(root, out);
	print_sync(root, out);
	print_ended(root, out);
	print_source(root, out);
	print_warnings(root, out);
	json_object_put(root);
	return 0;
}
