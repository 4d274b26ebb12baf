/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/facts.h"

#include "base/mem.h"
#include "base/strbuf.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#define JSON_MAX (64u << 20)   /* a node with 500,000 routes fits */
#define JSON_ENTRIES (1 << 20) /* per list */
#define JSON_DEPTH 8

/*
 * One table per struct says how its members are called in JSON; writer and reader both walk it, so that they
 * cannot drift apart.
 */
enum field_type {
	FIELD_BOOL,
	FIELD_U8,
	FIELD_U16,
	FIELD_U32,
	FIELD_STRING,    /* char[size] */
	FIELD_MAC,       /* uint8_t[6] */
	FIELD_ADDR,      /* struct addr */
	FIELD_PREFIX,    /* struct prefix */
	FIELD_INTERFACE, /* struct link_address: addr and len as "10.0.0.1/24", host bits kept */
};

struct field {
	const char *name;
	enum field_type type;
	size_t offset;
	size_t size;
	bool required; /* an entry without it means nothing */
	bool always;   /* written even when zero */
};

#define FIELD(t, s, m, n, ...)                                                                               \
	{                                                                                                    \
		.name = (n), .type = (t), .offset = offsetof(s, m), .size = sizeof(((s *)0)->m), __VA_ARGS__ \
	}

static const struct field top_fields[] = {
	FIELD(FIELD_STRING, struct facts, kernel, "kernel", .always = true),
	FIELD(FIELD_STRING, struct facts, kernel_version, "kernelVersion"),
	FIELD(FIELD_BOOL, struct facts, kube_proxy_nftables, "kubeProxyNftables", .always = true),
	FIELD(FIELD_BOOL, struct facts, kube_proxy_iptables, "kubeProxyIptables", .always = true),
	FIELD(FIELD_BOOL, struct facts, notrack, "notrack", .always = true),
	FIELD(FIELD_U32, struct facts, policy_rules, "policyRules", .always = true),
};

static const struct field feature_fields[] = {
	FIELD(FIELD_BOOL, struct features, nftables, "nftables", .always = true),
	FIELD(FIELD_BOOL, struct features, flowtable, "flowtable", .always = true),
	FIELD(FIELD_BOOL, struct features, flowtable_counter, "flowtableCounter", .always = true),
	FIELD(FIELD_STRING, struct features, reason, "reason"),
};

static const struct field link_fields[] = {
	FIELD(FIELD_U32, struct link, ifindex, "ifindex", .required = true),
	FIELD(FIELD_STRING, struct link, name, "name", .required = true),
	FIELD(FIELD_STRING, struct link, kind, "kind"),
	FIELD(FIELD_U32, struct link, master, "master"),
	FIELD(FIELD_STRING, struct link, master_kind, "masterKind"),
	FIELD(FIELD_U32, struct link, lower, "lower"),
	FIELD(FIELD_U16, struct link, type, "type"),
	FIELD(FIELD_U32, struct link, mtu, "mtu"),
	FIELD(FIELD_MAC, struct link, mac, "mac"),
	FIELD(FIELD_BOOL, struct link, up, "up", .always = true),
	FIELD(FIELD_BOOL, struct link, carrier, "carrier", .always = true),
	FIELD(FIELD_BOOL, struct link, loopback, "loopback"),
};

static const struct field address_fields[] = {
	FIELD(FIELD_U32, struct link_address, ifindex, "ifindex", .required = true),
	FIELD(FIELD_INTERFACE, struct link_address, addr, "address", .required = true),
	FIELD(FIELD_U8, struct link_address, scope, "scope"),
};

static const struct field route_fields[] = {
	FIELD(FIELD_PREFIX, struct route, dst, "destination", .required = true),
	FIELD(FIELD_ADDR, struct route, gateway, "gateway"),
	FIELD(FIELD_U32, struct route, ifindex, "ifindex", .required = true),
	FIELD(FIELD_U32, struct route, table, "table", .always = true),
	FIELD(FIELD_U32, struct route, metric, "metric"),
};

/* The top's own members, then one group per nested object and list. */
struct group {
	const char *name;
	const struct field *fields;
	size_t n_fields;
	size_t entry; /* bytes; 0: an object at 'offset', else a list of such entries */
	size_t offset, offset_n, offset_cap;
};

#define LIST(member, f)                                                                                      \
	{                                                                                                    \
		.name = #member, .fields = (f), .n_fields = ARRAY_SIZE(f),                                   \
		.entry = sizeof(*((struct facts *)0)->member), .offset = offsetof(struct facts, member),     \
		.offset_n = offsetof(struct facts, n_##member),                                              \
		.offset_cap = offsetof(struct facts, cap_##member)                                           \
	}

static const struct group groups[] = {
	{.name = "features",
		.fields = feature_fields,
		.n_fields = ARRAY_SIZE(feature_fields),
		.offset = offsetof(struct facts, features)},
	LIST(links, link_fields),
	LIST(addresses, address_fields),
	LIST(routes, route_fields),
};

static void write_string(struct strbuf *b, const char *s)
{
	strbuf_puts(b, "\"");
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			strbuf_printf(b, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			strbuf_printf(b, "\\u%04x", (unsigned char)*s);
		else
			strbuf_add(b, s, 1);
	}
	strbuf_puts(b, "\"");
}

/* Unsigned members, flags included. */
static uint32_t number_of(const struct field *f, const void *member)
{
	uint16_t half;
	uint32_t full;

	switch (f->type) {
	case FIELD_BOOL:
		return *(const bool *)member;
	case FIELD_U8:
		return *(const uint8_t *)member;
	case FIELD_U16:
		memcpy(&half, member, sizeof(half));
		return half;
	case FIELD_U32:
		memcpy(&full, member, sizeof(full));
		return full;
	case FIELD_STRING:
	case FIELD_MAC:
	case FIELD_ADDR:
	case FIELD_PREFIX:
	case FIELD_INTERFACE:
		break;
	}
	return 0;
}

static bool is_zero(const struct field *f, const void *member)
{
	static const uint8_t no_mac[6];

	switch (f->type) {
	case FIELD_STRING:
		return *(const char *)member == '\0';
	case FIELD_MAC:
		return memcmp(member, no_mac, sizeof(no_mac)) == 0;
	case FIELD_ADDR:
	case FIELD_INTERFACE:
		return ((const struct addr *)member)->family == 0;
	case FIELD_PREFIX:
		return ((const struct prefix *)member)->addr.family == 0;
	case FIELD_BOOL:
	case FIELD_U8:
	case FIELD_U16:
	case FIELD_U32:
		break;
	}
	return number_of(f, member) == 0;
}

static void write_value(struct strbuf *b, const struct field *f, const void *base)
{
	const void *member = (const char *)base + f->offset;
	const struct link_address *address = base;
	const uint8_t *mac = member;
	char text[PREFIX_TEXT_SIZE];

	switch (f->type) {
	case FIELD_BOOL:
		strbuf_puts(b, number_of(f, member) ? "true" : "false");
		break;
	case FIELD_U8:
	case FIELD_U16:
	case FIELD_U32:
		strbuf_printf(b, "%" PRIu32, number_of(f, member));
		break;
	case FIELD_STRING:
		write_string(b, member);
		break;
	case FIELD_MAC:
		strbuf_printf(b, "\"%02x:%02x:%02x:%02x:%02x:%02x\"", mac[0], mac[1], mac[2], mac[3], mac[4],
			mac[5]);
		break;
	case FIELD_ADDR:
		write_string(b, addr_text(member, text));
		break;
	case FIELD_PREFIX:
		write_string(b, prefix_text(member, text));
		break;
	case FIELD_INTERFACE:
		strbuf_printf(b, "\"%s/%u\"", addr_text(&address->addr, text), address->len);
		break;
	}
}

/* One line: {"a": 1, "b": 2} */
static void write_object(struct strbuf *b, const struct field *fields, size_t n, const void *base)
{
	const char *separator = "{";

	for (size_t i = 0; i < n; i++) {
		if (is_zero(&fields[i], (const char *)base + fields[i].offset) && !fields[i].always &&
			!fields[i].required)
			continue;
		strbuf_printf(b, "%s\"%s\": ", separator, fields[i].name);
		write_value(b, &fields[i], base);
		separator = ", ";
	}
	strbuf_puts(b, "}");
}

static size_t size_at(const struct facts *f, size_t offset)
{
	return *(const size_t *)((const char *)f + offset);
}

char *facts_to_json(const struct facts *f)
{
	struct strbuf b = {0};

	strbuf_puts(&b, "{\n");
	for (size_t i = 0; i < ARRAY_SIZE(top_fields); i++) {
		strbuf_printf(&b, "  \"%s\": ", top_fields[i].name);
		write_value(&b, &top_fields[i], f);
		strbuf_puts(&b, ",\n");
	}
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
		const char *base = (const char *)f + groups[g].offset;
		size_t n = groups[g].entry ? size_at(f, groups[g].offset_n) : 0;

		strbuf_printf(&b, "  \"%s\": ", groups[g].name);
		if (!groups[g].entry) {
			write_object(&b, groups[g].fields, groups[g].n_fields, base);
		} else {
			strbuf_puts(&b, "[");
			for (size_t i = 0; i < n; i++) {
				strbuf_puts(&b, i ? ",\n    " : "\n    ");
				write_object(&b, groups[g].fields, groups[g].n_fields,
					*(const char *const *)base + i * groups[g].entry);
			}
			strbuf_puts(&b, n ? "\n  ]" : "]");
		}
		strbuf_puts(&b, g + 1 < ARRAY_SIZE(groups) ? ",\n" : "\n");
	}
	strbuf_puts(&b, "}\n");
	return strbuf_steal(&b);
}

/* Where the reader is: "routes[3].gateway", "features.reason", "kernel". */
struct reader {
	const char *file;
	const char *group; /* "": the top */
	long entry;        /* -1: not in a list */
	struct error *err;
};

static int bad(const struct reader *r, const char *name, const char *mend, const char *what)
{
	char object[96];
	char entry[24] = "";

	if (r->entry >= 0)
		snprintf(entry, sizeof(entry), "[%ld]", r->entry);
	snprintf(object, sizeof(object), "field %s%s%s%.40s", r->group, entry, *r->group && *name ? "." : "",
		name);
	error_set(r->err, -EINVAL, object, mend, "%s", what);
	error_at(r->err, r->file, 0);
	return -EINVAL;
}

static bool parse_mac(const char *s, uint8_t *ret)
{
	for (unsigned i = 0; i < 6; i++, s += 3) {
		unsigned value = 0;

		for (unsigned k = 0; k < 2; k++) {
			if (!isxdigit((unsigned char)s[k]))
				return false;
			value = value * 16 + (unsigned)(isdigit((unsigned char)s[k])
								? s[k] - '0'
								: (s[k] | 0x20) - 'a' + 10);
		}
		if (s[2] != (i < 5 ? ':' : '\0'))
			return false;
		ret[i] = (uint8_t)value;
	}
	return true;
}

/* "10.0.0.1/24" with its host bits. */
static bool parse_interface(const char *s, struct link_address *ret)
{
	char text[ADDR_TEXT_SIZE];
	struct prefix p;
	const char *slash = strchr(s, '/');

	if (!prefix_parse(s, &p, NULL) || (size_t)(slash - s) >= sizeof(text))
		return false;
	memcpy(text, s, (size_t)(slash - s));
	text[slash - s] = '\0';
	ret->len = p.len;
	return addr_parse(text, &ret->addr);
}

static int read_number(const struct reader *r, const struct field *f, json_object *v, void *member)
{
	int64_t max = f->type == FIELD_U8 ? UINT8_MAX : f->type == FIELD_U16 ? UINT16_MAX : UINT32_MAX;
	int64_t value = json_object_get_int64(v); /* saturates */
	char what[64];
	uint8_t small = (uint8_t)value;
	uint16_t half = (uint16_t)value;
	uint32_t full = (uint32_t)value;

	if (!json_object_is_type(v, json_type_int) || value < 0 || value > max) {
		snprintf(what, sizeof(what), "not a whole number from 0 to %" PRId64, max);
		return bad(r, f->name, NULL, what);
	}
	if (f->type == FIELD_U8)
		memcpy(member, &small, sizeof(small));
	else if (f->type == FIELD_U16)
		memcpy(member, &half, sizeof(half));
	else
		memcpy(member, &full, sizeof(full));
	return 0;
}

static int read_text(const struct reader *r, const struct field *f, json_object *v, void *base)
{
	char *member = (char *)base + f->offset;
	const char *s = json_object_get_string(v);
	size_t len;
	char what[64];
	bool host_bits;

	if (!json_object_is_type(v, json_type_string))
		return bad(r, f->name, NULL, "not a string");
	len = (size_t)json_object_get_string_len(v);
	if (strlen(s) != len)
		return bad(r, f->name, NULL, "a NUL in a string");
	if (f->type == FIELD_STRING) {
		if (f->required && !len)
			return bad(r, f->name, NULL, "empty");
		if (len >= f->size) {
			snprintf(what, sizeof(what), "longer than %zu bytes", f->size - 1);
			return bad(r, f->name, NULL, what);
		}
		memcpy(member, s, len + 1);
	} else if (f->type == FIELD_MAC) {
		if (!parse_mac(s, (uint8_t *)member))
			return bad(r, f->name, "write it as aa:bb:cc:dd:ee:ff", "not a MAC address");
	} else if (f->type == FIELD_ADDR) {
		if (!addr_parse(s, (struct addr *)member))
			return bad(r, f->name, NULL, "not an IP address");
	} else if (f->type == FIELD_INTERFACE) {
		if (!parse_interface(s, base))
			return bad(r, f->name, "write it as 10.0.0.1/24",
				"not an IP address with a prefix length");
	} else {
		if (!prefix_parse(s, (struct prefix *)member, &host_bits))
			return bad(r, f->name, "write it as 10.0.0.0/24", "not a prefix");
		if (host_bits)
			return bad(r, f->name, "clear the bits after the prefix length",
				"a prefix with host bits set");
	}
	return 0;
}

static int read_field(const struct reader *r, const struct field *f, json_object *v, void *base)
{
	void *member = (char *)base + f->offset;

	switch (f->type) {
	case FIELD_BOOL:
		if (!json_object_is_type(v, json_type_boolean))
			return bad(r, f->name, NULL, "neither true nor false");
		*(bool *)member = json_object_get_boolean(v);
		return 0;
	case FIELD_U8:
	case FIELD_U16:
	case FIELD_U32:
		return read_number(r, f, v, member);
	case FIELD_STRING:
	case FIELD_MAC:
	case FIELD_ADDR:
	case FIELD_PREFIX:
	case FIELD_INTERFACE:
		break;
	}
	return read_text(r, f, v, base);
}

static const struct field *find_field(const struct field *fields, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(fields[i].name, name) == 0)
			return &fields[i];
	return NULL;
}

static int read_object(
	const struct reader *r, const struct field *fields, size_t n, json_object *o, void *base)
{
	if (!json_object_is_type(o, json_type_object))
		return bad(r, "", NULL, "not an object");
	json_object_object_foreach(o, name, value)
	{
		const struct field *f = find_field(fields, n, name);
		int ret = f ? read_field(r, f, value, base) : bad(r, name, "remove it", "unknown field");

		if (ret < 0)
			return ret;
	}
	for (size_t i = 0; i < n; i++)
		if (fields[i].required && !json_object_object_get_ex(o, fields[i].name, NULL))
			return bad(r, fields[i].name, NULL, "missing");
	return 0;
}

static int read_list(struct reader *r, const struct group *g, json_object *list, struct facts *f)
{
	void **array = (void **)((char *)f + g->offset);
	size_t n;

	if (!json_object_is_type(list, json_type_array))
		return bad(r, "", NULL, "not a list");
	n = json_object_array_length(list);
	if (n > JSON_ENTRIES)
		return bad(r, "", NULL, "more entries than a node has");
	if (!n)
		return 0;
	*array = xcalloc(n, g->entry);
	*(size_t *)((char *)f + g->offset_n) = n;
	*(size_t *)((char *)f + g->offset_cap) = n;
	for (size_t i = 0; i < n; i++) {
		int ret;

		r->entry = (long)i;
		ret = read_object(r, g->fields, g->n_fields, json_object_array_get_idx(list, i),
			(char *)*array + i * g->entry);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int read_top(struct reader *r, json_object *top, struct facts *f)
{
	if (!json_object_is_type(top, json_type_object)) {
		error_set(r->err, -EINVAL, NULL, NULL, "not a JSON object");
		return error_at(r->err, r->file, 0);
	}
	json_object_object_foreach(top, name, value)
	{
		const struct field *field = find_field(top_fields, ARRAY_SIZE(top_fields), name);
		const struct group *g = NULL;
		int ret;

		for (size_t i = 0; i < ARRAY_SIZE(groups) && !field && !g; i++)
			if (strcmp(groups[i].name, name) == 0)
				g = &groups[i];
		r->group = g ? g->name : "";
		r->entry = -1;
		if (field)
			ret = read_field(r, field, value, f);
		else if (!g)
			ret = bad(r, name, "remove it", "unknown field");
		else if (g->entry)
			ret = read_list(r, g, value, f);
		else
			ret = read_object(r, g->fields, g->n_fields, value, (char *)f + g->offset);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int syntax_error(
	const char *file, const char *json, size_t len, size_t at, const char *what, struct error *err)
{
	unsigned line = 1;

	for (size_t i = 0; i < at && i < len; i++)
		line += json[i] == '\n';
	error_set(err, -EINVAL, NULL, NULL, "not JSON: %s", what);
	error_at(err, file, line);
	return -EINVAL;
}

int facts_from_json(const char *file, const char *json, size_t len, struct facts *ret, struct error *err)
{
	struct reader r = {.file = file, .group = "", .entry = -1, .err = err};
	struct json_tokener *t;
	enum json_tokener_error e;
	json_object *top;
	size_t end;
	int code;

	memset(ret, 0, sizeof(*ret));
	if (len > JSON_MAX) {
		error_set(err, -EINVAL, NULL, NULL, "longer than %u MiB", JSON_MAX >> 20);
		error_at(err, file, 0);
		return -EINVAL;
	}
	while (len && isspace((unsigned char)json[len - 1]))
		len--;
	t = json_tokener_new_ex(JSON_DEPTH);
	if (!t)
		abort();
	json_tokener_set_flags(t, JSON_TOKENER_STRICT);
	top = json_tokener_parse_ex(t, json, (int)len);
	e = json_tokener_get_error(t);
	end = json_tokener_get_parse_end(t);
	json_tokener_free(t);
	if (e != json_tokener_success || end != len) {
		json_object_put(top);
		return syntax_error(file, json, len, end,
			e == json_tokener_continue  ? "it ends too early"
			: e == json_tokener_success ? "text after its end"
						    : json_tokener_error_desc(e),
			err);
	}
	code = read_top(&r, top, ret);
	json_object_put(top);
	if (code < 0)
		facts_done(ret);
	else
		facts_sort(ret);
	return code < 0 ? -EINVAL : 0;
}
