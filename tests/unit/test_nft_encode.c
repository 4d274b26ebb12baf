/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "datapath/nft_batch.h"
#include "datapath/nft_encode.h"
#include "datapath/nft_sync.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>

#define EXPR(...)                                                                                            \
	(struct rule_expr)                                                                                   \
	{                                                                                                    \
		__VA_ARGS__                                                                                  \
	}

static void assert_rule(const struct rule_expr *exprs, size_t n, const char *expected)
{
	struct rule rule = {.n = n};
	struct strbuf text = {0};
	struct nftnl_rule *r;

	memcpy(rule.exprs, exprs, n * sizeof(*exprs));
	r = nft_encode_rule(CHAIN_CLASSIFY, &rule);
	nft_rule_text(r, &text);
	assert_string_equal(text.data, expected);
	nftnl_rule_free(r);
	strbuf_done(&text);
}

/* Expected: what `nft --debug=netlink` 1.0.6 prints for the same text, with the name of the expression twice
 * and the flags of a look-up as the kernel dumps them. */
static void front_is_as_nft_has_it(void **state)
{
	const struct rule_expr front[] = {
		EXPR(.op = OP_PAIR_IN_SET, .set = SET_PAIRS),
		EXPR(.op = OP_ORIGINAL),
		EXPR(.op = OP_UNMARKED),
		EXPR(.op = OP_GOTO, .chain = CHAIN_MANAGED),
	};

	(void)state;
	assert_rule(front, 4,
		"[meta load iif => reg 1 ][meta load oif => reg 9 ][lookup reg 1 set pairs 0x0 ]"
		"[ct load direction => reg 1 ][cmp eq reg 1 0x00000000 ][meta load mark => reg 1 ]"
		"[cmp eq reg 1 0x00000000 ][immediate reg 0 goto -> managed ]");
}

static void family_is_tested_once_per_rule(void **state)
{
	const struct rule_expr rule[] = {
		EXPR(.op = OP_SADDR, .set = SET_LOCAL_PODS4),
		EXPR(.op = OP_DADDR, .set = SET_REMOTE_PODS4),
		EXPR(.op = OP_COUNT, .type = TYPE_POD_TO_POD),
		EXPR(.op = OP_ACCEPT),
	};
	struct rule_expr value = {.op = OP_DADDR};
	struct rule_expr original = {.op = OP_ORIGINAL_DADDR};

	(void)state;
	assert_rule(rule, 4,
		"[meta load nfproto => reg 1 ][cmp eq reg 1 0x00000002 ]"
		"[payload load 4b @ network header + 12 => reg 1 ][lookup reg 1 set local-pods4 0x0 ]"
		"[payload load 4b @ network header + 16 => reg 1 ][lookup reg 1 set remote-pods4 0x0 ]"
		"[objref type 1 name pod-to-pod ][immediate reg 0 accept ]");
	assert_true(addr_parse("fd00::5", &value.value));
	assert_rule(&value, 1,
		"[meta load nfproto => reg 1 ][cmp eq reg 1 0x0000000a ]"
		"[payload load 16b @ network header + 24 => reg 1 ]"
		"[cmp eq reg 1 0x000000fd 0x00000000 0x00000000 0x05000000 ]");
	/* No test of the family for conntrack's addresses. */
	assert_true(addr_parse("10.0.0.3", &original.value));
	assert_rule(&original, 1, "[ct load dst_ip => reg 1 , dir original ][cmp eq reg 1 0x0300000a ]");
	original = EXPR(.op = OP_ORIGINAL_DADDR, .set = SET_CLUSTER_IPS6);
	assert_rule(&original, 1,
		"[ct load dst_ip6 => reg 1 , dir original ][lookup reg 1 set cluster-ips6 0x0 ]");
}

static void connection_matches(void **state)
{
	const struct rule_expr insert[] = {
		EXPR(.op = OP_UDP),
		EXPR(.op = OP_ESTABLISHED),
		EXPR(.op = OP_FLOW_ADD),
		EXPR(.op = OP_GOTO, .chain = CHAIN_CLASSIFY),
	};
	const struct rule_expr checks[] = {
		EXPR(.op = OP_IIF_IN_SET, .set = SET_CHECKED_UPLINKS),
		EXPR(.op = OP_NO_WAY_BACK),
		EXPR(.op = OP_DNAT),
	};
	const struct rule_expr port[] = {
		EXPR(.op = OP_TCP),
		EXPR(.op = OP_ORIGINAL_PORT, .set = SET_NODEPORTS),
		EXPR(.op = OP_PACKETS),
	};

	(void)state;
	assert_rule(insert, 4,
		"[meta load l4proto => reg 1 ][cmp eq reg 1 0x00000011 ][ct load state => reg 1 ]"
		"[bitwise reg 1 = ( reg 1 & 0x00000002 ) ^ 0x00000000 ][cmp neq reg 1 0x00000000 ]"
		"[flow_offload flowtable fastpath ][immediate reg 0 goto -> classify ]");
	assert_rule(checks, 3,
		"[meta load iif => reg 1 ][lookup reg 1 set checked-uplinks 0x0 ]"
		"[fib saddr . iif oif present => reg 1 ][cmp eq reg 1 0x00000000 ]"
		"[ct load status => reg 1 ][bitwise reg 1 = ( reg 1 & 0x00000020 ) ^ 0x00000000 ]"
		"[cmp neq reg 1 0x00000000 ]");
	assert_rule(port, 3,
		"[meta load l4proto => reg 1 ][cmp eq reg 1 0x00000006 ][meta load l4proto => reg 1 ]"
		"[ct load proto_dst => reg 9 , dir original ][lookup reg 1 set nodeports 0x0 ][ct load "
		"packets => reg 1 ][cmp eq reg 1 0x00000000 "
		"0x00000000 ]");
}

/* The keys of all elements in the messages of a batch, read as the dump reads them. */
static size_t batch_keys(const struct nft_batch *b, enum ruleset_set set, struct nft_key *keys, size_t cap)
{
	size_t n = 0;

	for (size_t i = 0; i < b->n; i++) {
		const struct nlmsghdr *nlh = (const void *)(b->data + b->messages[i].offset);
		const struct nlattr *attr, *elem;

		assert_true(nlh->nlmsg_len < 65536 + 256);
		mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
		{
			if (mnl_attr_get_type(attr) != NFTA_SET_ELEM_LIST_ELEMENTS)
				continue;
			mnl_attr_for_each_nested(elem, attr)
			{
				assert_true(n < cap);
				assert_true(nft_read_key(set, elem, &keys[n++]));
			}
		}
	}
	return n;
}

static void assert_same_elements(const struct element_list *a, const struct element_list *b)
{
	assert_int_equal(a->n, b->n);
	for (size_t i = 0; i < a->n; i++)
		assert_memory_equal(&a->items[i], &b->items[i], sizeof(a->items[i]));
}

static void round_trip(
	struct ruleset *rs, enum ruleset_set set, size_t expected_keys, size_t expected_messages)
{
	struct element_list back = {0};
	struct nft_batch batch = {0};
	struct nft_key *keys;
	bool shared;
	size_t n;

	ruleset_normalize(rs);
	nft_put_elements(&batch, set, true, rs->sets[set].items, rs->sets[set].n);
	keys = xcalloc(expected_keys + 1, sizeof(*keys));
	n = batch_keys(&batch, set, keys, expected_keys);
	assert_int_equal(n, expected_keys);
	if (expected_messages)
		assert_int_equal(batch.n, expected_messages);
	assert_true(nft_keys_to_elements(set, keys, n, &back, &shared));
	assert_false(shared);
	assert_same_elements(&rs->sets[set], &back);
	free(keys);
	free(back.items);
	nft_batch_done(&batch);
}

static void add_prefix(struct ruleset *rs, enum ruleset_set set4, const char *text)
{
	struct prefix p;

	assert_true(prefix_parse(text, &p, NULL));
	ruleset_add_prefix(rs, set4, &p);
}

static void elements_come_back(void **state)
{
	struct ruleset rs = {.present = true};
	struct addr a = {.family = AF_INET6};

	(void)state;
	/* Neighbours, the bottom, the top (no end), a single address. */
	add_prefix(&rs, SET_LOCAL_PODS4, "0.0.0.0/8");
	add_prefix(&rs, SET_LOCAL_PODS4, "10.0.0.0/25");
	add_prefix(&rs, SET_LOCAL_PODS4, "10.0.0.128/25");
	add_prefix(&rs, SET_LOCAL_PODS4, "192.0.2.7/32");
	add_prefix(&rs, SET_LOCAL_PODS4, "240.0.0.0/4");
	round_trip(&rs, SET_LOCAL_PODS4, 9, 1);
	add_prefix(&rs, SET_REMOTE_PODS4, "0.0.0.0/0");
	round_trip(&rs, SET_REMOTE_PODS4, 1, 1);
	add_prefix(&rs, SET_REMOTE_PODS4, "fd00::/64");
	add_prefix(&rs, SET_REMOTE_PODS4, "ff00::/8");
	round_trip(&rs, SET_REMOTE_PODS6, 3, 1);
	ruleset_add_pair(&rs, SET_PAIRS, 2, 70000);
	ruleset_add_pair(&rs, SET_PAIRS, 70000, 2);
	round_trip(&rs, SET_PAIRS, 2, 1);
	ruleset_add_port(&rs, SET_NODEPORTS, IPPROTO_TCP, 30080);
	ruleset_add_port(&rs, SET_NODEPORTS, IPPROTO_UDP, 30080);
	round_trip(&rs, SET_NODEPORTS, 2, 1);
	/* Many: several messages, each attribute below 64 KiB. */
	for (uint32_t i = 0; i < 10000; i++) {
		uint32_t v = htonl(i);

		a.bytes[0] = 0xfd;
		memcpy(a.bytes + 12, &v, sizeof(v));
		ruleset_add_addr(&rs, SET_CLUSTER_IPS4, &a);
	}
	round_trip(&rs, SET_CLUSTER_IPS6, 10000, 5);
	ruleset_done(&rs);
}

static void indexes_are_in_host_order(void **state)
{
	struct ruleset rs = {.present = true};
	const uint32_t expected[2] = {2, 70000};
	struct nft_batch batch = {0};
	const uint8_t *data;
	size_t len;

	(void)state;
	ruleset_add_pair(&rs, SET_PAIRS, 2, 70000);
	ruleset_normalize(&rs);
	nft_put_elements(&batch, SET_PAIRS, true, rs.sets[SET_PAIRS].items, 1);
	data = batch.data + batch.messages[0].offset;
	len = ((const struct nlmsghdr *)(const void *)data)->nlmsg_len;
	/* The key is the last of the message. */
	assert_memory_equal(data + len - sizeof(expected), expected, sizeof(expected));
	nft_batch_done(&batch);
	ruleset_done(&rs);
}

static struct nft_key key4(const char *text, bool end)
{
	struct nft_key key = {.end = end};

	assert_int_equal(inet_pton(AF_INET, text, key.bytes), 1);
	return key;
}

static void strange_intervals(void **state)
{
	struct nft_key range[] = {key4("10.0.0.1", false), key4("10.0.0.8", true)};
	struct nft_key odd[] = {key4("10.0.0.0", false), key4("10.0.3.0", true)};
	struct nft_key orphan[] = {key4("10.0.0.8", true)};
	struct nft_key bottom[] = {key4("0.0.0.0", true), key4("10.0.0.0", false), key4("11.0.0.0", true)};
	struct nft_key chained[] = {key4("10.0.0.0", false), key4("10.0.1.0", false), key4("10.0.2.0", true)};
	struct element_list list = {0};
	bool shared;

	(void)state;
	assert_false(nft_keys_to_elements(SET_LOCAL_PODS4, range, 2, &list, &shared));
	assert_false(nft_keys_to_elements(SET_LOCAL_PODS4, odd, 2, &list, &shared));
	assert_false(nft_keys_to_elements(SET_LOCAL_PODS4, orphan, 1, &list, &shared));
	list.n = 0;
	/* What nft adds at the bottom is nothing. */
	assert_true(nft_keys_to_elements(SET_LOCAL_PODS4, bottom, 3, &list, &shared));
	assert_int_equal(list.n, 1);
	assert_int_equal(list.items[0].prefix_len, 8);
	assert_false(shared);
	list.n = 0;
	assert_true(nft_keys_to_elements(SET_LOCAL_PODS4, chained, 3, &list, &shared));
	assert_int_equal(list.n, 2);
	assert_true(shared);
	free(list.items);
}

/* Errors name the element or device that the kernel points at. */
static void failures_name_their_object(void **state)
{
	struct ruleset rs = {.present = true};
	struct device devices[] = {{.name = "eth0"}, {.name = "eth1"}};
	struct nft_failure failure = {.code = -ENOENT, .text = "words"};
	struct nft_batch batch = {0};
	const struct nlmsghdr *nlh;
	const struct nlattr *attr, *nested, *device;
	char name[IFNAMSIZ];
	struct error err;
	struct addr a;

	(void)state;
	assert_true(addr_parse("192.0.2.1", &a));
	ruleset_add_addr(&rs, SET_LOADBALANCER_IPS4, &a);
	nft_put_devices(&batch, true, devices, 2);
	nft_put_elements(&batch, SET_LOADBALANCER_IPS4, true, rs.sets[SET_LOADBALANCER_IPS4].items, 1);

	nlh = (const void *)(batch.data + batch.messages[0].offset);
	failure.message = 0;
	mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) != NFTA_FLOWTABLE_HOOK)
			continue;
		mnl_attr_for_each_nested(nested, attr)
		{
			if (mnl_attr_get_type(nested) != NFTA_FLOWTABLE_HOOK_DEVS)
				continue;
			mnl_attr_for_each_nested(device, nested) failure.offset =
				(uint32_t)((const uint8_t *)device - (const uint8_t *)nlh);
		}
	}
	assert_true(nft_failure_device(&batch, &failure, name));
	assert_string_equal(name, "eth1");
	assert_int_equal(nft_failure_error(&batch, &failure, &err), -ENOENT);
	assert_string_equal(err.object, "device eth1");
	assert_non_null(strstr(err.what, "words"));
	assert_string_equal(err.mend, ""); /* a device that went; modules do not matter */

	failure.message = 1;
	nlh = (const void *)(batch.data + batch.messages[1].offset);
	mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) == NFTA_SET_ELEM_LIST_ELEMENTS)
			failure.offset = (uint32_t)((const uint8_t *)mnl_attr_get_payload(attr) -
						    (const uint8_t *)nlh);
	}
	nft_failure_error(&batch, &failure, &err);
	assert_string_equal(err.object, "set loadbalancer-ips4: element 192.0.2.1");
	assert_false(nft_failure_device(&batch, &failure, name));

	/* An offset that is not in the message is not followed. */
	failure.offset = 1 << 20;
	nft_failure_error(&batch, &failure, &err);
	assert_string_equal(err.object, "set loadbalancer-ips4");
	failure.message = SIZE_MAX;
	nft_failure_error(&batch, &failure, &err);
	assert_string_equal(err.object, "table inet slipstream");
	nft_batch_done(&batch);
	ruleset_done(&rs);
}

static void devices_are_split(void **state)
{
	struct device devices[250];
	struct nft_batch batch = {0};

	(void)state;
	memset(devices, 0, sizeof(devices));
	for (int i = 0; i < 250; i++)
		snprintf(devices[i].name, IFNAMSIZ, "veth%d", i);
	nft_put_devices(&batch, true, devices, 250);
	assert_int_equal(batch.n, 3);
	nft_put_devices(&batch, false, devices, 0);
	assert_int_equal(batch.n, 3); /* a removal of nothing would remove the flowtable */
	nft_batch_done(&batch);
}

/* One message per change, and none for none. */
static void change_is_proportional(void **state)
{
	struct ruleset from = {.present = true}, to;
	struct ruleset_delta delta = {0};
	struct nft_batch batch = {0};
	struct nft_change change;
	struct addr a;

	(void)state;
	assert_true(addr_parse("10.96.0.1", &a));
	ruleset_add_addr(&from, SET_CLUSTER_IPS4, &a);
	ruleset_add_port(&from, SET_NODEPORTS, IPPROTO_TCP, 30080);
	ruleset_normalize(&from);
	ruleset_copy(&from, &to);
	ruleset_delta_clear(&delta);
	ruleset_delta_add(&delta, &from, &to);
	nft_change_delta(&delta, &change);
	nft_put_change(&batch, &change, &to);
	assert_int_equal(batch.n, 0);
	nft_change_done(&change);

	assert_true(addr_parse("10.96.0.2", &a));
	ruleset_add_addr(&to, SET_CLUSTER_IPS4, &a);
	ruleset_normalize(&to);
	ruleset_delta_clear(&delta);
	ruleset_delta_add(&delta, &from, &to);
	nft_change_delta(&delta, &change);
	nft_put_change(&batch, &change, &to);
	assert_int_equal(batch.n, 1);
	assert_int_equal(delta.add[SET_CLUSTER_IPS4].n, 1);
	assert_string_equal(batch.messages[0].object, "set cluster-ips4");
	nft_change_done(&change);
	nft_batch_done(&batch);

	to.accounting = true;
	ruleset_delta_clear(&delta);
	ruleset_delta_add(&delta, &from, &to);
	nft_change_delta(&delta, &change);
	nft_put_change(&batch, &change, &to);
	assert_int_equal(batch.n, 3); /* the element; the chain's flush and its rule */
	assert_string_equal(batch.messages[2].object, "chain accounting: rule ct packets 0 accept");
	nft_change_done(&change);
	nft_batch_done(&batch);
	ruleset_delta_done(&delta);
	ruleset_done(&from);
	ruleset_done(&to);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(front_is_as_nft_has_it),
		cmocka_unit_test(family_is_tested_once_per_rule),
		cmocka_unit_test(connection_matches),
		cmocka_unit_test(elements_come_back),
		cmocka_unit_test(indexes_are_in_host_order),
		cmocka_unit_test(strange_intervals),
		cmocka_unit_test(failures_name_their_object),
		cmocka_unit_test(devices_are_split),
		cmocka_unit_test(change_is_proportional),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
