/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/ruleset.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct addr address(const char *text)
{
	struct addr a;

	assert_true(addr_parse(text, &a));
	return a;
}

static void add_addr(struct ruleset *rs, enum ruleset_set set4, const char *text)
{
	struct addr a = address(text);

	ruleset_add_addr(rs, set4, &a);
}

static void add_prefix(struct ruleset *rs, enum ruleset_set set4, const char *text)
{
	struct prefix p;

	assert_true(prefix_parse(text, &p, NULL));
	ruleset_add_prefix(rs, set4, &p);
}

/* The elements of a set as one line. */
static char *elements(const struct ruleset *rs, enum ruleset_set set)
{
	struct strbuf b = {0};

	for (size_t i = 0; i < rs->sets[set].n; i++) {
		if (i)
			strbuf_puts(&b, ", ");
		element_print(rs, set, &rs->sets[set].items[i], &b);
	}
	return strbuf_steal(&b);
}

#define assert_elements(rs, set, want)                                                                       \
	do {                                                                                                 \
		CLEANUP_FREE char *have_ = elements(rs, set);                                                \
		assert_string_equal(have_, want);                                                            \
	} while (0)

static char *chain(const struct ruleset *rs, enum ruleset_chain c)
{
	struct rule_list rules;
	struct strbuf b = {0};

	ruleset_chain_rules(rs, c, &rules);
	for (size_t i = 0; i < rules.n; i++) {
		rule_print(&rules.items[i], &b);
		strbuf_puts(&b, "\n");
	}
	free(rules.items);
	return strbuf_steal(&b);
}

#define assert_chain(rs, c, want)                                                                            \
	do {                                                                                                 \
		CLEANUP_FREE char *have_ = chain(rs, c);                                                     \
		assert_string_equal(have_, want);                                                            \
	} while (0)

/* Two classes in a table with a device and a pair. */
static struct ruleset sample(void)
{
	const struct rule_expr service[] = {
		{.op = OP_DNAT}, {.op = OP_ORIGINAL_DADDR, .set = SET_CLUSTER_IPS4}};
	const struct rule_expr pods[] = {
		{.op = OP_SADDR, .set = SET_LOCAL_PODS4}, {.op = OP_DADDR, .set = SET_REMOTE_PODS4}};
	struct ruleset rs = {.present = true};

	ruleset_add_device(&rs, "veth1", 12);
	ruleset_add_device(&rs, "eth0", 2);
	ruleset_add_link(&rs, "veth1", 12);
	ruleset_add_link(&rs, "eth0", 2);
	ruleset_add_pair(&rs, SET_PAIRS, 12, 2);
	ruleset_add_pair(&rs, SET_PAIRS, 2, 12);
	ruleset_add_class(&rs, TYPE_POD_TO_SERVICE, service, ARRAY_SIZE(service));
	ruleset_add_class(&rs, TYPE_POD_TO_POD, pods, ARRAY_SIZE(pods));
	ruleset_normalize(&rs);
	return rs;
}

static void test_names(void **state)
{
	(void)state;
	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		assert_non_null(traffic_type_names[i]);
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		assert_non_null(ruleset_chain_names[i]);
	for (size_t i = 0; i < RULESET_SETS; i++) {
		const char *name = ruleset_set_schema[i].name;

		assert_non_null(name);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(name, ruleset_set_schema[j].name);
		/* ruleset_add_addr() counts on it that the IPv6 set follows its IPv4 set. */
		if (name[strlen(name) - 1] == '4') {
			assert_memory_equal(name, ruleset_set_schema[i + 1].name, strlen(name) - 1);
			assert_int_equal(
				ruleset_set_schema[i + 1].name[strlen(ruleset_set_schema[i + 1].name) - 1],
				'6');
			assert_int_equal(ruleset_set_schema[i].kind + 1, ruleset_set_schema[i + 1].kind);
		}
	}
}

static void test_normalize(void **state)
{
	struct ruleset rs = {.present = true};

	(void)state;
	add_addr(&rs, SET_CLUSTER_IPS4, "10.96.0.10");
	add_addr(&rs, SET_CLUSTER_IPS4, "fd00::1");
	add_addr(&rs, SET_CLUSTER_IPS4, "10.96.0.9");
	add_addr(&rs, SET_CLUSTER_IPS4, "10.96.0.10");
	ruleset_add_addr(&rs, SET_CLUSTER_IPS4, &(struct addr){0});
	ruleset_add_port(&rs, SET_NODEPORTS, IPPROTO_TCP, 32000);
	ruleset_add_port(&rs, SET_NODEPORTS, IPPROTO_UDP, 255);
	ruleset_add_port(&rs, SET_NODEPORTS, IPPROTO_TCP, 255);
	ruleset_add_port(&rs, SET_NODEPORTS, IPPROTO_TCP, 32000);
	ruleset_add_interface(&rs, SET_CHECKED_UPLINKS, 256);
	ruleset_add_interface(&rs, SET_CHECKED_UPLINKS, 3);
	ruleset_add_pair(&rs, SET_PAIRS, 300, 2);
	ruleset_add_pair(&rs, SET_PAIRS, 2, 300);
	ruleset_add_device(&rs, "b", 1);
	ruleset_add_device(&rs, "a", 2);
	ruleset_add_device(&rs, "b", 1);
	ruleset_add_link(&rs, "b", 300);
	ruleset_add_link(&rs, "a", 2);
	ruleset_add_link(&rs, "b", 300);
	ruleset_normalize(&rs);
	assert_elements(&rs, SET_CLUSTER_IPS4, "10.96.0.9, 10.96.0.10");
	assert_elements(&rs, SET_CLUSTER_IPS6, "fd00::1");
	assert_elements(&rs, SET_NODEPORTS, "tcp . 255, tcp . 32000, udp . 255");
	assert_elements(&rs, SET_CHECKED_UPLINKS, "3, 256");
	assert_elements(&rs, SET_PAIRS, "\"a\" . \"b\", \"b\" . \"a\"");
	assert_int_equal(rs.n_devices, 2);
	assert_string_equal(rs.devices[0].name, "a");
	assert_int_equal(rs.n_links, 2);
	assert_int_equal(rs.links[0].ifindex, 2);
	ruleset_done(&rs);
}

static void test_covered_prefixes(void **state)
{
	static const char *const v4[] = {"10.1.0.0/16", "10.0.0.0/14", "10.4.0.0/16", "10.3.255.0/24",
		"192.168.0.0/24", "192.168.1.0/24", "10.0.0.0/24", "10.0.0.0/14"};
	struct ruleset rs = {.present = true};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(v4); i++)
		add_prefix(&rs, SET_REMOTE_PODS4, v4[i]);
	add_addr(&rs, SET_REMOTE_PODS4, "10.2.2.2");
	add_addr(&rs, SET_REMOTE_PODS4, "11.2.2.2");
	add_prefix(&rs, SET_REMOTE_PODS4, "fd00:0:0:1::/64");
	add_prefix(&rs, SET_REMOTE_PODS4, "fd00::/63");
	add_prefix(&rs, SET_REMOTE_PODS4, "fd00:0:0:2::/64");
	add_prefix(&rs, SET_EXCLUDED_CIDRS4, "255.0.0.0/8");
	add_prefix(&rs, SET_EXCLUDED_CIDRS4, "0.0.0.0/0");
	add_prefix(&rs, SET_EXCLUDED_CIDRS4, "1.2.3.4/32");
	ruleset_normalize(&rs);
	assert_elements(&rs, SET_REMOTE_PODS4,
		"10.0.0.0/14, 10.4.0.0/16, 11.2.2.2/32, 192.168.0.0/24, 192.168.1.0/24");
	assert_elements(&rs, SET_REMOTE_PODS6, "fd00::/63, fd00:0:0:2::/64");
	assert_elements(&rs, SET_EXCLUDED_CIDRS4, "0.0.0.0/0");
	ruleset_done(&rs);
}

static bool has(const struct ruleset *rs, enum ruleset_set set, const char *text, unsigned len)
{
	struct addr a = address(text);
	struct set_element e = {.prefix_len = (uint8_t)len};

	memcpy(e.key, a.bytes, sizeof(e.key));
	return ruleset_has(rs, set, &e);
}

static void test_has(void **state)
{
	struct ruleset rs = {.present = true};

	(void)state;
	assert_false(has(&rs, SET_CLUSTER_IPS4, "10.96.0.1", 0));
	for (unsigned i = 0; i < 9; i++) {
		char text[ADDR_TEXT_SIZE];

		snprintf(text, sizeof(text), "10.96.0.%u", 2 * i + 1);
		add_addr(&rs, SET_CLUSTER_IPS4, text);
	}
	add_prefix(&rs, SET_REMOTE_PODS4, "10.0.0.0/14");
	add_prefix(&rs, SET_REMOTE_PODS4, "10.8.4.0/22");
	add_prefix(&rs, SET_REMOTE_PODS4, "10.9.0.1/32");
	ruleset_normalize(&rs);
	for (unsigned i = 0; i < 20; i++) {
		char text[ADDR_TEXT_SIZE];

		snprintf(text, sizeof(text), "10.96.0.%u", i);
		assert_int_equal(has(&rs, SET_CLUSTER_IPS4, text, 0), i % 2 && i < 18);
	}
	assert_true(has(&rs, SET_REMOTE_PODS4, "10.0.0.0", 32));
	assert_true(has(&rs, SET_REMOTE_PODS4, "10.3.255.255", 32));
	assert_true(has(&rs, SET_REMOTE_PODS4, "10.0.0.0", 14));
	assert_false(has(&rs, SET_REMOTE_PODS4, "10.0.0.0", 13));
	assert_false(has(&rs, SET_REMOTE_PODS4, "10.4.0.0", 32));
	assert_false(has(&rs, SET_REMOTE_PODS4, "9.255.255.255", 32));
	assert_true(has(&rs, SET_REMOTE_PODS4, "10.8.7.255", 32));
	assert_false(has(&rs, SET_REMOTE_PODS4, "10.8.8.0", 32));
	assert_false(has(&rs, SET_REMOTE_PODS4, "10.8.3.255", 32));
	assert_true(has(&rs, SET_REMOTE_PODS4, "10.9.0.1", 32));
	assert_false(has(&rs, SET_REMOTE_PODS4, "10.9.0.2", 32));
	ruleset_done(&rs);
}

#define CLASSIFY                                                                                             \
	"ct status dnat ct original ip daddr @cluster-ips4 counter name \"pod-to-service\" accept\n"         \
	"ip saddr @local-pods4 ip daddr @remote-pods4 counter name \"pod-to-pod\" accept\n"                  \
	"counter name \"other\"\n"

static void test_rules(void **state)
{
	struct ruleset rs = sample();
	struct rule_expr excluded[] = {
		{.op = OP_UDP}, {.op = OP_ORIGINAL_PORT, .set = SET_EXCLUDED_NODEPORTS}};
	struct rule_expr value = {.op = OP_DADDR, .value = address("fc01::aabb:ccdd:eefe")};

	(void)state;
	assert_chain(
		&rs, CHAIN_FORWARD, "iif . oif @pairs ct direction original meta mark 0 goto accelerate\n");
	assert_chain(&rs, CHAIN_MANAGED, "");
	assert_chain(&rs, CHAIN_INSERT,
		"meta l4proto tcp flow add @fastpath goto classify\n"
		"meta l4proto udp ct state established flow add @fastpath goto classify\n");
	assert_chain(&rs, CHAIN_CLASSIFY, CLASSIFY);
	assert_chain(&rs, CHAIN_ACCOUNTING, "");
	rs.accounting = true;
	assert_chain(&rs, CHAIN_ACCOUNTING, "ct packets 0 accept\n");

	ruleset_add_interface(&rs, SET_CHECKED_UPLINKS, 2);
	assert_chain(&rs, CHAIN_FORWARD, "iif . oif @pairs ct direction original meta mark 0 goto managed\n");
	assert_chain(&rs, CHAIN_MANAGED,
		"iif @checked-uplinks fib saddr . iif oif missing accept\n"
		"goto accelerate\n");
	ruleset_add_pair(&rs, SET_HAIRPINS, 12, 12);
	ruleset_add_exclusion(&rs, excluded, ARRAY_SIZE(excluded));
	ruleset_add_exclusion(&rs, &value, 1);
	assert_chain(&rs, CHAIN_MANAGED,
		"iif @checked-uplinks fib saddr . iif oif missing accept\n"
		"meta l4proto udp meta l4proto . ct original proto-dst @excluded-nodeports accept\n"
		"ip6 daddr fc01::aabb:ccdd:eefe accept\n"
		"goto accelerate\n");
	assert_chain(&rs, CHAIN_FORWARD,
		"iif . oif @pairs ct direction original meta mark 0 goto managed\n"
		"ct status dnat iif . oif @hairpins ct direction original meta mark 0 goto managed\n");
	rs.present = false;
	assert_chain(&rs, CHAIN_FORWARD, "");
	ruleset_done(&rs);
}

/* Each need for the chain behind the front is one by itself. */
static void test_need_of_managed(void **state)
{
	struct rule_expr excluded = {.op = OP_ORIGINAL_DADDR, .set = SET_EXCLUDED_IPS4};

	(void)state;
	for (unsigned need = 0; need < 3; need++) {
		struct ruleset rs = sample();

		if (need == 0)
			ruleset_add_interface(&rs, SET_CHECKED_UPLINKS, 2);
		else if (need == 1)
			ruleset_add_exclusion(&rs, &excluded, 1);
		else
			rs.off[TYPE_OTHER] = true;
		assert_chain(&rs, CHAIN_FORWARD,
			"iif . oif @pairs ct direction original meta mark 0 goto managed\n");
		ruleset_done(&rs);
	}
}

static void test_off(void **state)
{
	struct ruleset rs = sample();

	(void)state;
	/* Last class off: the first one protects what is on. */
	rs.off[TYPE_POD_TO_POD] = true;
	assert_chain(&rs, CHAIN_FORWARD, "iif . oif @pairs ct direction original meta mark 0 goto managed\n");
	assert_chain(&rs, CHAIN_MANAGED,
		"ct status dnat ct original ip daddr @cluster-ips4 goto accelerate\n"
		"ip saddr @local-pods4 ip daddr @remote-pods4 accept\n"
		"goto accelerate\n");
	/* First class off: the second would do what the end does. */
	rs.off[TYPE_POD_TO_POD] = false;
	rs.off[TYPE_POD_TO_SERVICE] = true;
	assert_chain(&rs, CHAIN_MANAGED,
		"ct status dnat ct original ip daddr @cluster-ips4 accept\n"
		"goto accelerate\n");
	rs.off[TYPE_OTHER] = true;
	assert_chain(&rs, CHAIN_MANAGED,
		"ct status dnat ct original ip daddr @cluster-ips4 accept\n"
		"ip saddr @local-pods4 ip daddr @remote-pods4 goto accelerate\n"
		"accept\n");
	rs.off[TYPE_POD_TO_POD] = true;
	assert_chain(&rs, CHAIN_MANAGED, "accept\n");
	assert_chain(&rs, CHAIN_CLASSIFY, CLASSIFY);
	ruleset_done(&rs);
}

static char *text(const struct ruleset *rs)
{
	struct strbuf b = {0};

	ruleset_print(rs, &b);
	return strbuf_steal(&b);
}

static void assert_has_text(const char *have, const char *want)
{
	if (!strstr(have, want))
		fail_msg("no\n%s\nin\n%s", want, have);
}

static void test_print(void **state)
{
	struct ruleset rs = sample();
	CLEANUP_FREE char *full = NULL, *bare = NULL, *odd = NULL, *absent = NULL;

	(void)state;
	add_prefix(&rs, SET_LOCAL_PODS4, "10.244.1.0/24");
	add_prefix(&rs, SET_LOCAL_PODS4, "fd00:1::/64");
	ruleset_add_pair(&rs, SET_PAIRS, 99, 2);
	ruleset_normalize(&rs);
	full = text(&rs);
	assert_memory_equal(full, "table inet slipstream {\n\tcomment \"slipstream\"\n", 43);
	assert_has_text(full, "\n\tflowtable fastpath {\n\t\thook ingress priority 0\n"
			      "\t\tdevices = { \"eth0\", \"veth1\" }\n\t\tcounter\n\t}\n");
	assert_has_text(full, "\n\tcounter external-to-externalip {\n\t}\n");
	assert_has_text(full,
		"\n\tset pairs {\n\t\ttype iface_index . iface_index\n\t\telements = {\n"
		"\t\t\t\"eth0\" . \"veth1\",\n\t\t\t\"veth1\" . \"eth0\",\n\t\t\t99 . \"eth0\"\n"
		"\t\t}\n\t}\n");
	assert_has_text(full,
		"\n\tset local-pods4 {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = {\n"
		"\t\t\t10.244.1.0/24\n\t\t}\n\t}\n");
	assert_has_text(full,
		"\n\tset local-pods6 {\n\t\ttype ipv6_addr\n\t\tflags interval\n\t\telements = {\n"
		"\t\t\tfd00:1::/64\n\t\t}\n\t}\n");
	assert_has_text(full, "\n\tset cluster-ips4 {\n\t\ttype ipv4_addr\n\t}\n");
	assert_has_text(full, "\n\tset nodeports {\n\t\ttype inet_proto . inet_service\n\t}\n");
	assert_has_text(full,
		"\n\tchain forward {\n\t\ttype filter hook forward priority 300; policy accept;\n"
		"\t\tiif . oif @pairs ct direction original meta mark 0 goto accelerate\n\t}\n");
	assert_has_text(full, "\n\tchain accounting {\n\t}\n}\n");

	/* What nft cannot say is left out rather than let out of its quotes. */
	ruleset_add_device(&rs, "a\" } #", 50);
	ruleset_add_link(&rs, "a\" } #", 99);
	ruleset_normalize(&rs);
	odd = text(&rs);
	assert_string_equal(odd, full);
	ruleset_done(&rs);

	rs = (struct ruleset){.present = true};
	bare = text(&rs);
	assert_has_text(bare, "\n\tflowtable fastpath {\n\t\thook ingress priority 0\n\t\tcounter\n\t}\n");
	rs.present = false;
	absent = text(&rs);
	assert_string_equal(absent, "table inet slipstream\ndelete table inet slipstream\n");
}

/* Records a diff as text. */
struct record {
	const struct ruleset *names;
	struct strbuf text;
};

static void record_device(void *arg, const struct device *d, bool add)
{
	strbuf_printf(
		&((struct record *)arg)->text, "%cdevice %s %u\n", add ? '+' : '-', d->name, d->ifindex);
}

static void record_element(void *arg, enum ruleset_set set, const struct set_element *e, bool add)
{
	struct record *r = arg;

	strbuf_printf(&r->text, "%c%s ", add ? '+' : '-', ruleset_set_schema[set].name);
	element_print(r->names, set, e, &r->text);
	strbuf_puts(&r->text, "\n");
}

static void record_chain(void *arg, enum ruleset_chain c)
{
	strbuf_printf(&((struct record *)arg)->text, "~%s\n", ruleset_chain_names[c]);
}

static char *diff(const struct ruleset *from, const struct ruleset *to)
{
	struct record r = {.names = to};
	struct ruleset_diff_ops ops = {
		.device = record_device, .element = record_element, .chain = record_chain, .arg = &r};

	ruleset_diff(from, to, &ops);
	/* Equality is what diff says. */
	assert_int_equal(ruleset_equal(from, to), !r.text.len && from->present == to->present);
	return strbuf_steal(&r.text);
}

#define assert_diff(from, to, want)                                                                          \
	do {                                                                                                 \
		CLEANUP_FREE char *have_ = diff(from, to);                                                   \
		assert_string_equal(have_, want);                                                            \
	} while (0)

static void test_diff(void **state)
{
	struct ruleset a = sample(), b, absent = {0};

	(void)state;
	add_prefix(&a, SET_REMOTE_PODS4, "10.1.0.0/24");
	add_prefix(&a, SET_REMOTE_PODS4, "10.2.0.0/24");
	add_prefix(&a, SET_REMOTE_PODS4, "10.3.0.0/24");
	ruleset_normalize(&a);
	ruleset_copy(&a, &b);
	assert_diff(&a, &b, "");
	add_prefix(&b, SET_REMOTE_PODS4, "10.2.0.0/16");
	add_prefix(&b, SET_REMOTE_PODS4, "10.4.0.0/16");
	add_addr(&b, SET_CLUSTER_IPS4, "10.96.0.1");
	ruleset_add_device(&b, "eth1", 3);
	b.devices[1].ifindex = 13; /* veth1 was made again */
	b.off[TYPE_POD_TO_POD] = true;
	ruleset_normalize(&b);
	assert_diff(&a, &b,
		"+device eth1 3\n"
		"+device veth1 13\n"
		"-remote-pods4 10.2.0.0/24\n"
		"+remote-pods4 10.2.0.0/16\n"
		"+remote-pods4 10.4.0.0/16\n"
		"+cluster-ips4 10.96.0.1\n"
		"~forward\n"
		"~managed\n");
	assert_diff(&b, &a,
		"-device eth1 3\n"
		"+device veth1 12\n"
		"-remote-pods4 10.2.0.0/16\n"
		"-remote-pods4 10.4.0.0/16\n"
		"+remote-pods4 10.2.0.0/24\n"
		"-cluster-ips4 10.96.0.1\n"
		"~forward\n"
		"~managed\n");
	/* The copy is its own: changing it left the original alone. */
	assert_int_equal(a.n_devices, 2);
	assert_int_equal(a.devices[1].ifindex, 12);
	ruleset_done(&b);

	/* Made again under its index. */
	ruleset_copy(&a, &b);
	b.devices[1].generation = 1;
	assert_diff(&a, &b, "+device veth1 12\n");
	ruleset_done(&b);

	/* Names are for eyes. */
	ruleset_copy(&a, &b);
	b.n_links = 0;
	assert_diff(&a, &b, "");
	/* A value instead of a set, a set instead of another, one class less. */
	b.classes[1].match.exprs[0].value = address("10.0.0.1");
	assert_diff(&a, &b, "~classify\n");
	b.classes[1].match.exprs[0].value = (struct addr){0};
	b.classes[1].match.exprs[0].set = SET_PEER_NODES4;
	assert_diff(&a, &b, "~classify\n");
	b.n_classes--;
	assert_diff(&a, &b, "~classify\n");
	b.n_classes++;
	b.classes[1].match.exprs[0].set = SET_LOCAL_PODS4;
	assert_diff(&a, &b, "");
	b.classes[1].type = TYPE_NODE_TO_POD;
	assert_diff(&a, &b, "~classify\n");
	ruleset_done(&b);

	absent.present = true;
	assert_diff(&(struct ruleset){0}, &absent, "~forward\n~accelerate\n~classify\n");
	assert_diff(&absent, &(struct ruleset){0}, "~forward\n~accelerate\n~classify\n");
	ruleset_copy(&a, &b);
	b.present = false; /* holds nothing, whatever is in it */
	assert_diff(&(struct ruleset){0}, &b, "");
	assert_diff(&b, &a,
		"+device eth0 2\n+device veth1 12\n+pairs \"eth0\" . \"veth1\"\n+pairs \"veth1\" . \"eth0\"\n"
		"+remote-pods4 10.1.0.0/24\n+remote-pods4 10.2.0.0/24\n+remote-pods4 10.3.0.0/24\n"
		"~forward\n~accelerate\n~classify\n");
	ruleset_done(&b);
	ruleset_done(&a);
}

/* Random sets: what diff says, applied to the one, gives the other. */
static void patch_element(void *arg, enum ruleset_set set, const struct set_element *e, bool add)
{
	struct element_list *list = &((struct ruleset *)arg)->sets[set];

	if (add) {
		*VEC_ADD(list->items, list->n, list->cap) = *e;
		return;
	}
	for (size_t i = 0; i < list->n; i++)
		if (!memcmp(&list->items[i], e, sizeof(*e))) {
			list->items[i] = list->items[--list->n];
			return;
		}
	fail_msg("removal of what is not there");
}

static void test_diff_is_a_patch(void **state)
{
	unsigned seed = 1;

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		struct ruleset rs[2] = {{.present = true}, {.present = true}};
		struct ruleset_diff_ops ops = {.element = patch_element, .arg = &rs[0]};
		struct ruleset from;

		for (unsigned i = 0; i < 60; i++) {
			struct addr a = {
				.family = AF_INET, .bytes = {10, 0, rand_r(&seed) % 4, rand_r(&seed) % 16}};
			struct prefix p = prefix_of(&a, (uint8_t)(20 + rand_r(&seed) % 13));

			ruleset_add_addr(&rs[i % 2], SET_CLUSTER_IPS4, &a);
			ruleset_add_prefix(&rs[i % 2], SET_EXCLUDED_CIDRS4, &p);
		}
		ruleset_normalize(&rs[0]);
		ruleset_normalize(&rs[1]);
		ruleset_copy(&rs[0], &from);
		ruleset_diff(&from, &rs[1], &ops);
		for (size_t s = 0; s < RULESET_SETS; s++)
			assert_int_equal(rs[0].sets[s].n, rs[1].sets[s].n);
		ruleset_normalize(&rs[0]);
		assert_true(ruleset_equal(&rs[0], &rs[1]));
		ruleset_done(&from);
		ruleset_done(&rs[0]);
		ruleset_done(&rs[1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_normalize),
		cmocka_unit_test(test_covered_prefixes),
		cmocka_unit_test(test_has),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_need_of_managed),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_print),
		cmocka_unit_test(test_diff),
		cmocka_unit_test(test_diff_is_a_patch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
