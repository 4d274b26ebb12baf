/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/conntrack.h"
#include "datapath/ruleset.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct addr address(const char *text)
{
	struct addr a;

	assert_true(addr_parse(text, &a));
	return a;
}

/* "SRC DST" of both directions and the original destination port. */
static struct flow flow(uint8_t protocol, const char *src, const char *dst, uint16_t dport,
	const char *reply_src, const char *reply_dst)
{
	struct flow f = {.protocol = protocol,
		.original_src = address(src),
		.original_dst = address(dst),
		.original_sport = 40000,
		.original_dport = dport,
		.reply_src = address(reply_src),
		.reply_dst = address(reply_dst),
		.reply_sport = 8080,
		.reply_dport = 40000,
		.status = FLOW_STATUS_OFFLOAD};

	if (strcmp(dst, reply_src) != 0)
		f.status |= FLOW_STATUS_DNAT;
	return f;
}

static void class(struct ruleset *rs, enum traffic_type type, struct rule_expr a, struct rule_expr b,
	struct rule_expr c)
{
	struct rule_expr exprs[] = {a, b, c};

	ruleset_add_class(rs, type, exprs, ARRAY_SIZE(exprs));
}

#define E(...) ((struct rule_expr){__VA_ARGS__})
#define ANY E(.op = OP_ESTABLISHED)

static void prefix(struct ruleset *rs, enum ruleset_set set4, const char *text)
{
	struct prefix p;

	assert_true(prefix_parse(text, &p, NULL));
	ruleset_add_prefix(rs, set4, &p);
}

static void single(struct ruleset *rs, enum ruleset_set set4, const char *text)
{
	struct addr a = address(text);

	ruleset_add_addr(rs, set4, &a);
}

/* A node of a cluster whose host does the Service NAT, both families. */
static struct ruleset node(void)
{
	struct ruleset rs = {.present = true};

	for (unsigned v6 = 0; v6 < 2; v6++) {
		class(&rs, TYPE_POD_TO_SERVICE, E(.op = OP_DNAT),
			E(.op = OP_SADDR, .set = SET_LOCAL_PODS4 + v6),
			E(.op = OP_ORIGINAL_DADDR, .set = SET_CLUSTER_IPS4 + v6));
		class(&rs, TYPE_EXTERNAL_TO_NODEPORT, E(.op = OP_TCP),
			E(.op = OP_ORIGINAL_DADDR, .set = SET_NODE_ADDRESSES4 + v6),
			E(.op = OP_ORIGINAL_PORT, .set = SET_NODEPORTS));
		class(&rs, TYPE_EXTERNAL_TO_NODEPORT, E(.op = OP_UDP),
			E(.op = OP_ORIGINAL_DADDR, .set = SET_NODE_ADDRESSES4 + v6),
			E(.op = OP_ORIGINAL_PORT, .set = SET_NODEPORTS));
		class(&rs, TYPE_POD_TO_POD, ANY, E(.op = OP_SADDR, .set = SET_LOCAL_PODS4 + v6),
			E(.op = OP_DADDR, .set = SET_REMOTE_PODS4 + v6));
	}
	class(&rs, TYPE_EXTERNAL_TO_SERVICE, ANY, E(.op = OP_SADDR, .value = address("169.254.0.253")),
		E(.op = OP_DADDR, .set = SET_REMOTE_PODS4));
	class(&rs, TYPE_EXTERNAL_TO_SERVICE, ANY, E(.op = OP_SADDR, .value = address("fc01::aabb:ccdd:eeff")),
		E(.op = OP_DADDR, .set = SET_REMOTE_PODS6));
	class(&rs, TYPE_POD_TO_EXTERNAL, ANY, ANY, E(.op = OP_SADDR, .set = SET_LOCAL_PODS4));
	prefix(&rs, SET_LOCAL_PODS4, "10.244.1.0/24");
	prefix(&rs, SET_LOCAL_PODS4, "fd00:1::/64");
	prefix(&rs, SET_REMOTE_PODS4, "10.244.2.0/24");
	prefix(&rs, SET_REMOTE_PODS4, "10.244.3.0/24");
	prefix(&rs, SET_REMOTE_PODS4, "fd00:2::/64");
	single(&rs, SET_CLUSTER_IPS4, "10.96.0.1");
	single(&rs, SET_CLUSTER_IPS4, "10.96.0.10");
	single(&rs, SET_CLUSTER_IPS4, "fd96::1");
	single(&rs, SET_NODE_ADDRESSES4, "192.0.2.1");
	single(&rs, SET_NODE_ADDRESSES4, "2001:db8::1");
	ruleset_add_port(&rs, SET_NODEPORTS, IPPROTO_TCP, 30080);
	ruleset_add_port(&rs, SET_NODEPORTS, IPPROTO_UDP, 30053);
	ruleset_normalize(&rs);
	return rs;
}

#define assert_type(rs, want, ...)                                                                           \
	do {                                                                                                 \
		struct flow f_ = flow(__VA_ARGS__);                                                          \
		assert_string_equal(                                                                         \
			traffic_type_names[ruleset_classify(rs, &f_)], traffic_type_names[want]);            \
	} while (0)

static void test_types(void **state)
{
	struct ruleset rs = node();

	(void)state;
	assert_type(&rs, TYPE_POD_TO_POD, IPPROTO_TCP, "10.244.1.5", "10.244.2.7", 80, "10.244.2.7",
		"10.244.1.5");
	assert_type(
		&rs, TYPE_POD_TO_POD, IPPROTO_UDP, "fd00:1::5", "fd00:2::7", 80, "fd00:2::7", "fd00:1::5");
	assert_type(&rs, TYPE_POD_TO_SERVICE, IPPROTO_TCP, "10.244.1.5", "10.96.0.10", 443, "10.244.2.7",
		"10.244.1.5");
	assert_type(
		&rs, TYPE_POD_TO_SERVICE, IPPROTO_TCP, "fd00:1::5", "fd96::1", 443, "fd00:2::7", "fd00:1::5");
	/* A cluster IP that is not (no longer) in the set: only its addresses after translation tell. */
	assert_type(&rs, TYPE_POD_TO_POD, IPPROTO_TCP, "10.244.1.5", "10.96.0.2", 443, "10.244.2.7",
		"10.244.1.5");
	/* NodePorts: protocol, port, both addresses of the node; the source was masqueraded. */
	assert_type(&rs, TYPE_EXTERNAL_TO_NODEPORT, IPPROTO_TCP, "198.51.100.9", "192.0.2.1", 30080,
		"10.244.2.7", "10.244.1.1");
	assert_type(&rs, TYPE_EXTERNAL_TO_NODEPORT, IPPROTO_UDP, "198.51.100.9", "192.0.2.1", 30053,
		"10.244.2.7", "10.244.1.1");
	assert_type(&rs, TYPE_EXTERNAL_TO_NODEPORT, IPPROTO_TCP, "2001:db8:9::9", "2001:db8::1", 30080,
		"fd00:2::7", "fd00:1::1");
	assert_type(
		&rs, TYPE_OTHER, IPPROTO_UDP, "198.51.100.9", "192.0.2.1", 30080, "10.244.2.7", "10.244.1.1");
	assert_type(
		&rs, TYPE_OTHER, IPPROTO_TCP, "198.51.100.9", "192.0.2.1", 30081, "10.244.2.7", "10.244.1.1");
	assert_type(
		&rs, TYPE_OTHER, IPPROTO_TCP, "198.51.100.9", "192.0.2.2", 30080, "10.244.2.7", "10.244.1.1");
	assert_type(&rs, TYPE_EXTERNAL_TO_SERVICE, IPPROTO_TCP, "169.254.0.253", "10.96.0.1", 443,
		"10.244.3.255", "192.0.2.1");
	assert_type(&rs, TYPE_EXTERNAL_TO_SERVICE, IPPROTO_TCP, "fc01::aabb:ccdd:eeff", "fd96::1", 443,
		"fd00:2::7", "fd00:1::1");
	assert_type(&rs, TYPE_POD_TO_EXTERNAL, IPPROTO_TCP, "10.244.1.5", "203.0.113.1", 443, "203.0.113.1",
		"192.0.2.1");
	/* The other direction of pod-to-pod is not: the source decides. */
	assert_type(&rs, TYPE_OTHER, IPPROTO_TCP, "10.244.2.7", "10.244.1.5", 80, "10.244.1.5", "10.244.2.7");
	/* Source NAT changes nothing: in the forward hook it has not happened yet. */
	assert_type(
		&rs, TYPE_POD_TO_POD, IPPROTO_TCP, "10.244.1.5", "10.244.2.7", 80, "10.244.2.7", "192.0.2.1");
	ruleset_done(&rs);
}

/* A match of one family never holds for a connection of the other, even where the bytes agree. */
static void test_family_guard(void **state)
{
	struct ruleset rs = {.present = true};
	struct rule_expr exprs[] = {{.op = OP_SADDR, .set = SET_LOCAL_PODS6}};
	struct rule_expr value[] = {{.op = OP_ORIGINAL_DADDR, .value = address("::")}};

	(void)state;
	ruleset_add_class(&rs, TYPE_POD_TO_POD, exprs, 1);
	ruleset_add_class(&rs, TYPE_NODE_TO_POD, value, 1);
	exprs[0] = (struct rule_expr){.op = OP_ORIGINAL_DADDR, .set = SET_CLUSTER_IPS6};
	ruleset_add_class(&rs, TYPE_POD_TO_SERVICE, exprs, 1);
	prefix(&rs, SET_LOCAL_PODS4, "::/0");
	single(&rs, SET_CLUSTER_IPS4, "c000:201::");
	ruleset_normalize(&rs);
	assert_type(&rs, TYPE_OTHER, IPPROTO_TCP, "10.0.0.1", "192.0.2.1", 80, "192.0.2.1", "10.0.0.1");
	assert_type(&rs, TYPE_OTHER, IPPROTO_TCP, "10.0.0.1", "0.0.0.0", 80, "0.0.0.0", "10.0.0.1");
	assert_type(&rs, TYPE_POD_TO_POD, IPPROTO_TCP, "2001:db8::1", "c000:201::", 80,
		"c000:201::", "2001:db8::1");
	ruleset_done(&rs);

	rs = (struct ruleset){.present = true};
	exprs[0] = (struct rule_expr){.op = OP_SADDR, .set = SET_LOCAL_PODS4};
	ruleset_add_class(&rs, TYPE_POD_TO_POD, exprs, 1);
	exprs[0] = (struct rule_expr){.op = OP_ORIGINAL_DADDR, .set = SET_CLUSTER_IPS4};
	ruleset_add_class(&rs, TYPE_POD_TO_SERVICE, exprs, 1);
	prefix(&rs, SET_LOCAL_PODS4, "0.0.0.0/0");
	single(&rs, SET_CLUSTER_IPS4, "192.0.2.1");
	ruleset_normalize(&rs);
	assert_type(&rs, TYPE_OTHER, IPPROTO_TCP, "a00:1::", "c000:201::", 80, "c000:201::", "a00:1::");
	assert_type(&rs, TYPE_POD_TO_POD, IPPROTO_TCP, "10.0.0.1", "192.0.2.1", 80, "192.0.2.1", "10.0.0.1");
	ruleset_done(&rs);
}

/* Conntrack tells no interfaces; order of classes is precedence; a class without matches takes all. */
static void test_edges(void **state)
{
	struct ruleset rs = {.present = true};
	struct rule_expr e = {.op = OP_IIF_IN_SET, .set = SET_CHECKED_UPLINKS};

	(void)state;
	assert_type(&rs, TYPE_OTHER, IPPROTO_TCP, "10.0.0.1", "10.0.0.2", 80, "10.0.0.2", "10.0.0.1");
	ruleset_add_interface(&rs, SET_CHECKED_UPLINKS, 2);
	ruleset_add_class(&rs, TYPE_POD_TO_POD, &e, 1);
	ruleset_normalize(&rs);
	assert_type(&rs, TYPE_OTHER, IPPROTO_TCP, "10.0.0.1", "10.0.0.2", 80, "10.0.0.2", "10.0.0.1");
	ruleset_add_class(&rs, TYPE_NODE_TO_POD, NULL, 0);
	ruleset_add_class(&rs, TYPE_POD_TO_EXTERNAL, NULL, 0);
	assert_type(&rs, TYPE_NODE_TO_POD, IPPROTO_TCP, "10.0.0.1", "10.0.0.2", 80, "10.0.0.2", "10.0.0.1");
	ruleset_done(&rs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_family_guard),
		cmocka_unit_test(test_edges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
