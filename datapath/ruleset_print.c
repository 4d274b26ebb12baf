/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nft text of a ruleset, checked with nft 1.0.6. */
#include "datapath/ruleset.h"

#include "base/mem.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

/* nft has no escape inside quotes; the kernel forbids only '/', ':' and space in a name (dev_valid_name()).
 */
static bool quotable(const char *name)
{
	return name[0] && !strchr(name, '"');
}

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int ifindex_cmp(const void *key, const void *item)
{
	uint32_t a = *(const uint32_t *)key, b = ((const struct device *)item)->ifindex;

	return (a > b) - (a < b);
}

/* By name where it is known, else by index, which nft takes as well. 'rs' must be normalized. */
static void print_interface(const struct ruleset *rs, uint32_t ifindex, struct strbuf *out)
{
	const struct device *d =
		rs->n_links ? bsearch(&ifindex, rs->links, rs->n_links, sizeof(*d), ifindex_cmp) : NULL;

	if (d && quotable(d->name))
		strbuf_printf(out, "\"%s\"", d->name);
	else
		strbuf_printf(out, "%u", ifindex);
}

static void print_addr(uint8_t family, const uint8_t *bytes, struct strbuf *out)
{
	struct addr a = addr_from_bytes(family, bytes);
	char text[ADDR_TEXT_SIZE];

	strbuf_puts(out, addr_text(&a, text));
}

static void print_port(uint8_t protocol, uint16_t port, struct strbuf *out)
{
	if (protocol == IPPROTO_TCP)
		strbuf_printf(out, "tcp . %u", port);
	else if (protocol == IPPROTO_UDP)
		strbuf_printf(out, "udp . %u", port);
	else
		strbuf_printf(out, "%u . %u", protocol, port); /* not ours */
}

static uint8_t set_family(enum ruleset_set set)
{
	enum set_kind kind = ruleset_set_schema[set].kind;

	return kind == SET_KIND_ADDR6 || kind == SET_KIND_PREFIX6 ? AF_INET6 : AF_INET;
}

void element_print(
	const struct ruleset *rs, enum ruleset_set set, const struct set_element *e, struct strbuf *out)
{
	switch (ruleset_set_schema[set].kind) {
	case SET_KIND_PAIR:
		print_interface(rs, get_be32(e->key), out);
		strbuf_puts(out, " . ");
		print_interface(rs, get_be32(e->key + 4), out);
		break;
	case SET_KIND_INTERFACE:
		print_interface(rs, get_be32(e->key), out);
		break;
	case SET_KIND_ADDR4:
	case SET_KIND_ADDR6:
		print_addr(set_family(set), e->key, out);
		break;
	case SET_KIND_PREFIX4:
	case SET_KIND_PREFIX6:
		print_addr(set_family(set), e->key, out);
		strbuf_printf(out, "/%u", e->prefix_len);
		break;
	case SET_KIND_PORT:
		print_port(e->key[0], (uint16_t)(e->key[4] << 8 | e->key[5]), out);
		break;
	}
}

static void print_operand(const struct rule_expr *e, struct strbuf *out)
{
	if (e->value.family)
		print_addr(e->value.family, e->value.bytes, out);
	else
		strbuf_printf(out, "@%s", ruleset_set_schema[e->set].name);
}

static void print_addr_match(
	const char *prefix, const char *field, const struct rule_expr *e, struct strbuf *out)
{
	uint8_t family = e->value.family ? e->value.family : set_family(e->set);

	strbuf_printf(out, "%s%s %s ", prefix, family == AF_INET6 ? "ip6" : "ip", field);
	print_operand(e, out);
}

static void print_expr(const struct rule_expr *e, struct strbuf *out)
{
	switch (e->op) {
	case OP_PAIR_IN_SET:
		strbuf_puts(out, "iif . oif ");
		print_operand(e, out);
		break;
	case OP_IIF_IN_SET:
		strbuf_puts(out, "iif ");
		print_operand(e, out);
		break;
	case OP_ORIGINAL:
		strbuf_puts(out, "ct direction original");
		break;
	case OP_UNMARKED:
		strbuf_puts(out, "meta mark 0");
		break;
	case OP_NO_WAY_BACK:
		strbuf_puts(out, "fib saddr . iif oif missing");
		break;
	case OP_DNAT:
		strbuf_puts(out, "ct status dnat");
		break;
	case OP_TCP:
		strbuf_puts(out, "meta l4proto tcp");
		break;
	case OP_UDP:
		strbuf_puts(out, "meta l4proto udp");
		break;
	case OP_ESTABLISHED:
		strbuf_puts(out, "ct state established");
		break;
	case OP_SADDR:
		print_addr_match("", "saddr", e, out);
		break;
	case OP_DADDR:
		print_addr_match("", "daddr", e, out);
		break;
	case OP_ORIGINAL_DADDR:
		print_addr_match("ct original ", "daddr", e, out);
		break;
	case OP_ORIGINAL_PORT:
		strbuf_puts(out, "meta l4proto . ct original proto-dst ");
		print_operand(e, out);
		break;
	case OP_PACKETS:
		strbuf_puts(out, "ct packets 0");
		break;
	case OP_FLOW_ADD:
		strbuf_puts(out, "flow add @" RULESET_FLOWTABLE);
		break;
	case OP_COUNT:
		strbuf_printf(out, "counter name \"%s\"", traffic_type_names[e->type]);
		break;
	case OP_GOTO:
		strbuf_printf(out, "goto %s", ruleset_chain_names[e->chain]);
		break;
	case OP_ACCEPT:
		strbuf_puts(out, "accept");
		break;
	}
}

void rule_print(const struct rule *r, struct strbuf *out)
{
	for (size_t i = 0; i < r->n; i++) {
		if (i)
			strbuf_puts(out, " ");
		print_expr(&r->exprs[i], out);
	}
}

/* nft's grammar has no empty list: a flowtable without devices has no line of them. */
static void print_flowtable(const struct ruleset *rs, struct strbuf *out)
{
	const char *before = "\t\tdevices = { ";

	strbuf_puts(out, "\n\tflowtable " RULESET_FLOWTABLE " {\n\t\thook ingress priority 0\n");
	for (size_t i = 0; i < rs->n_devices; i++) {
		if (!quotable(rs->devices[i].name))
			continue;
		strbuf_printf(out, "%s\"%s\"", before, rs->devices[i].name);
		before = ", ";
	}
	if (!strcmp(before, ", "))
		strbuf_puts(out, " }\n");
	strbuf_puts(out, "\t\tcounter\n\t}\n");
}

static void print_set(const struct ruleset *rs, enum ruleset_set set, struct strbuf *out)
{
	static const char *const types[] = {
		[SET_KIND_PAIR] = "iface_index . iface_index",
		[SET_KIND_INTERFACE] = "iface_index",
		[SET_KIND_ADDR4] = "ipv4_addr",
		[SET_KIND_ADDR6] = "ipv6_addr",
		[SET_KIND_PREFIX4] = "ipv4_addr\n\t\tflags interval",
		[SET_KIND_PREFIX6] = "ipv6_addr\n\t\tflags interval",
		[SET_KIND_PORT] = "inet_proto . inet_service",
	};
	const struct set_schema *schema = &ruleset_set_schema[set];
	const struct element_list *list = &rs->sets[set];

	strbuf_printf(out, "\n\tset %s {\n\t\ttype %s\n", schema->name, types[schema->kind]);
	if (list->n) {
		strbuf_puts(out, "\t\telements = {\n");
		for (size_t i = 0; i < list->n; i++) {
			strbuf_puts(out, "\t\t\t");
			element_print(rs, set, &list->items[i], out);
			strbuf_puts(out, i + 1 < list->n ? ",\n" : "\n\t\t}\n");
		}
	}
	strbuf_puts(out, "\t}\n");
}

static void print_chain(const struct ruleset *rs, enum ruleset_chain chain, struct strbuf *out)
{
	struct rule_list rules;

	ruleset_chain_rules(rs, chain, &rules);
	strbuf_printf(out, "\n\tchain %s {\n", ruleset_chain_names[chain]);
	if (chain == CHAIN_FORWARD)
		strbuf_printf(out, "\t\ttype filter hook forward priority %d; policy accept;\n",
			RULESET_FORWARD_PRIORITY);
	for (size_t i = 0; i < rules.n; i++) {
		strbuf_puts(out, "\t\t");
		rule_print(&rules.items[i], out);
		strbuf_puts(out, "\n");
	}
	strbuf_puts(out, "\t}\n");
	free(rules.items);
}

void ruleset_print(const struct ruleset *rs, struct strbuf *out)
{
	if (!rs->present) {
		strbuf_puts(out, "table inet " RULESET_TABLE "\ndelete table inet " RULESET_TABLE "\n");
		return;
	}
	strbuf_puts(out, "table inet " RULESET_TABLE " {\n\tcomment \"" RULESET_COMMENT "\"\n");
	print_flowtable(rs, out);
	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		strbuf_printf(out, "\n\tcounter %s {\n\t}\n", traffic_type_names[i]);
	for (size_t i = 0; i < RULESET_SETS; i++)
		print_set(rs, (enum ruleset_set)i, out);
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		print_chain(rs, (enum ruleset_chain)i, out);
	strbuf_puts(out, "}\n");
}
