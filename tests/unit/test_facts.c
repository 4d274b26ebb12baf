/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/facts_private.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct addr addr(const char *s)
{
	struct addr a;

	assert_true(addr_parse(s, &a));
	return a;
}

static void add_route(struct facts *f, const char *dst, uint32_t ifindex, const char *gateway, uint32_t table,
	uint32_t metric)
{
	struct route *r = VEC_ADD(f->routes, f->n_routes, f->cap_routes);

	assert_true(prefix_parse(dst, &r->dst, NULL));
	if (gateway)
		r->gateway = addr(gateway);
	r->ifindex = ifindex;
	r->table = table;
	r->metric = metric;
}

static void add_link(struct facts *f, uint32_t ifindex, const char *name)
{
	struct link *l = VEC_ADD(f->links, f->n_links, f->cap_links);

	l->ifindex = ifindex;
	snprintf(l->name, sizeof(l->name), "%s", name);
	l->type = 1;
	l->mtu = 1500;
	l->up = true;
}

static void sample(struct facts *f)
{
	memset(f, 0, sizeof(*f));
	snprintf(f->kernel, sizeof(f->kernel), "6.12.0-1");
	snprintf(f->kernel_version, sizeof(f->kernel_version), "#1 SMP");
	f->features = (struct features){.nftables = true, .flowtable = true};
	snprintf(f->features.reason, sizeof(f->features.reason), "no \"counter\" \\ flag\n");
	f->notrack = true;
	f->policy_rules = 3;
	add_link(f, 7, "veth0");
	snprintf(f->links[0].kind, sizeof(f->links[0].kind), "veth");
	snprintf(f->links[0].master_kind, sizeof(f->links[0].master_kind), "bridge");
	f->links[0].master = 4;
	f->links[0].lower = 9;
	memcpy(f->links[0].mac, "\x0a\xbb\xcc\xdd\xee\xff", 6);
	f->links[0].carrier = true;
	add_link(f, 4, "cni\"0");
	add_link(f, 1, "lo");
	f->links[2].loopback = true;
	*VEC_ADD(f->addresses, f->n_addresses, f->cap_addresses) =
		(struct link_address){.ifindex = 4, .addr = addr("10.0.0.1"), .len = 24};
	*VEC_ADD(f->addresses, f->n_addresses, f->cap_addresses) =
		(struct link_address){.ifindex = 1, .addr = addr("::1"), .len = 128, .scope = 254};
	add_route(f, "0.0.0.0/0", 7, "10.0.0.254", 254, 100);
	add_route(f, "2001:db8::/32", 7, NULL, 100, 1024);
	facts_sort(f);
}

static void test_sorted(void **state)
{
	struct facts f;

	(void)state;
	sample(&f);
	add_route(&f, "10.0.0.0/8", 3, "10.9.9.9", 254, 0);
	add_route(&f, "10.0.0.0/8", 3, "10.9.9.8", 254, 0);
	add_route(&f, "10.0.0.0/8", 2, NULL, 254, 50);
	facts_sort(&f);
	assert_int_equal(f.links[0].ifindex, 1);
	assert_int_equal(f.links[2].ifindex, 7);
	assert_int_equal(f.addresses[0].ifindex, 4);
	assert_int_equal(f.routes[1].gateway.bytes[3], 8);
	assert_int_equal(f.routes[2].gateway.bytes[3], 9);
	assert_int_equal(f.routes[3].metric, 50);
	assert_string_equal(facts_link(&f, 4)->name, "cni\"0");
	assert_null(facts_link(&f, 5));
	assert_int_equal(facts_link_by_name(&f, "veth0")->ifindex, 7);
	assert_null(facts_link_by_name(&f, "veth"));
	facts_done(&f);
	facts_sort(&f);
	assert_null(facts_link(&f, 1));
}

/* Each member on its own makes a difference. */
static void test_equal(void **state)
{
	struct facts a, b;

	(void)state;
	sample(&a);
#define DIFFERS(change)                                                                                      \
	do {                                                                                                 \
		facts_copy(&a, &b);                                                                          \
		assert_true(facts_equal(&a, &b));                                                            \
		change;                                                                                      \
		assert_false(facts_equal(&a, &b));                                                           \
		facts_done(&b);                                                                              \
	} while (0)
	DIFFERS(b.kernel[0] = '7');
	DIFFERS(b.features.nftables = false);
	DIFFERS(b.features.flowtable = false);
	DIFFERS(b.features.flowtable_counter = true);
	DIFFERS(b.features.reason[0] = '\0');
	DIFFERS(b.kube_proxy_nftables = true);
	DIFFERS(b.kube_proxy_iptables = true);
	DIFFERS(b.notrack = false);
	DIFFERS(b.policy_rules++);
	DIFFERS(b.n_links--);
	DIFFERS(b.n_addresses--);
	DIFFERS(b.n_routes--);
	DIFFERS(b.links[2].ifindex++);
	DIFFERS(b.links[2].name[4] = '1');
	DIFFERS(b.links[2].kind[0] = '\0');
	DIFFERS(b.links[2].master_kind[0] = '\0');
	DIFFERS(b.links[2].master++);
	DIFFERS(b.links[2].lower++);
	DIFFERS(b.links[2].type++);
	DIFFERS(b.links[2].mtu++);
	DIFFERS(b.links[2].mac[5]++);
	DIFFERS(b.links[2].up = false);
	DIFFERS(b.links[2].carrier = false);
	DIFFERS(b.links[2].loopback = true);
	DIFFERS(b.addresses[0].ifindex++);
	DIFFERS(b.addresses[0].addr.bytes[3]++);
	DIFFERS(b.addresses[0].len--);
	DIFFERS(b.addresses[0].scope = 253);
	DIFFERS(b.routes[0].dst.len++);
	DIFFERS(b.routes[0].ifindex++);
	DIFFERS(b.routes[0].gateway.bytes[3]--);
	DIFFERS(b.routes[0].table--);
	DIFFERS(b.routes[0].metric++);
	facts_done(&a);
}

/* The obvious way, as the oracle. */
static const struct route *slow_route_to(const struct facts *f, const struct addr *a)
{
	const struct route *best = NULL;

	for (size_t i = 0; i < f->n_routes; i++) {
		const struct route *r = &f->routes[i];

		if (r->table == 254 && prefix_has(&r->dst, a) &&
			(!best || r->dst.len > best->dst.len ||
				(r->dst.len == best->dst.len && r->metric < best->metric)))
			best = r;
	}
	return best;
}

static void test_route_to(void **state)
{
	struct facts f = {0};
	struct addr a = addr("10.1.2.3");
	unsigned seed = 7;

	(void)state;
	assert_null(facts_route_to(&f, &a));
	add_route(&f, "10.1.2.0/24", 9, NULL, 100, 0);
	facts_sort(&f);
	assert_null(facts_route_to(&f, &a));
	add_route(&f, "0.0.0.0/0", 2, NULL, 254, 10);
	add_route(&f, "0.0.0.0/0", 3, NULL, 254, 5);
	add_route(&f, "::/0", 8, NULL, 254, 5);
	facts_sort(&f);
	assert_int_equal(facts_route_to(&f, &a)->ifindex, 3);
	a = addr("2001:db8::1");
	assert_int_equal(facts_route_to(&f, &a)->ifindex, 8);
	a = (struct addr){0};
	assert_null(facts_route_to(&f, &a));
	facts_done(&f);

	for (unsigned round = 0; round < 200; round++) {
		for (unsigned i = 0; i < 60; i++) {
			struct route *r = VEC_ADD(f.routes, f.n_routes, f.cap_routes);
			struct addr net = {.family = rand_r(&seed) % 3 ? AF_INET : AF_INET6};

			for (unsigned k = 0; k < addr_size(&net); k++)
				net.bytes[k] = (uint8_t)(rand_r(&seed) % 4 ? 0 : rand_r(&seed) % 4 << 6);
			r->dst = prefix_of(
				&net, (uint8_t)((unsigned)rand_r(&seed) % (8 * addr_size(&net) + 1)));
			r->table = rand_r(&seed) % 4 ? 254 : 100;
			r->metric = (uint32_t)rand_r(&seed) % 3;
			r->ifindex = (uint32_t)rand_r(&seed) % 3;
		}
		facts_sort(&f);
		for (unsigned i = 0; i < 100; i++) {
			struct addr to = {.family = rand_r(&seed) % 2 ? AF_INET : AF_INET6};

			for (unsigned k = 0; k < addr_size(&to); k++)
				to.bytes[k] = (uint8_t)(rand_r(&seed) % 4 ? 0 : rand_r(&seed) % 256);
			assert_ptr_equal(facts_route_to(&f, &to), slow_route_to(&f, &to));
		}
		f.n_routes = 0;
	}
	facts_done(&f);
}

static void test_json_round(void **state)
{
	struct facts f, g;
	struct error err = {0};
	char *text, *again;

	(void)state;
	sample(&f);
	text = facts_to_json(&f);
	assert_string_equal(text,
		"{\n"
		"  \"kernel\": \"6.12.0-1\",\n"
		"  \"kernelVersion\": \"#1 SMP\",\n"
		"  \"kubeProxyNftables\": false,\n"
		"  \"kubeProxyIptables\": false,\n"
		"  \"notrack\": true,\n"
		"  \"policyRules\": 3,\n"
		"  \"features\": {\"nftables\": true, \"flowtable\": true, \"flowtableCounter\": false, "
		"\"reason\": \"no \\\"counter\\\" \\\\ flag\\u000a\"},\n"
		"  \"links\": [\n"
		"    {\"ifindex\": 1, \"name\": \"lo\", \"type\": 1, \"mtu\": 1500, \"up\": true, "
		"\"carrier\": false, \"loopback\": true},\n"
		"    {\"ifindex\": 4, \"name\": \"cni\\\"0\", \"type\": 1, \"mtu\": 1500, \"up\": true, "
		"\"carrier\": false},\n"
		"    {\"ifindex\": 7, \"name\": \"veth0\", \"kind\": \"veth\", \"master\": 4, "
		"\"masterKind\": \"bridge\", \"lower\": 9, \"type\": 1, \"mtu\": 1500, "
		"\"mac\": \"0a:bb:cc:dd:ee:ff\", \"up\": true, \"carrier\": true}\n"
		"  ],\n"
		"  \"addresses\": [\n"
		"    {\"ifindex\": 4, \"address\": \"10.0.0.1/24\"},\n"
		"    {\"ifindex\": 1, \"address\": \"::1/128\", \"scope\": 254}\n"
		"  ],\n"
		"  \"routes\": [\n"
		"    {\"destination\": \"0.0.0.0/0\", \"gateway\": \"10.0.0.254\", \"ifindex\": 7, "
		"\"table\": 254, \"metric\": 100},\n"
		"    {\"destination\": \"2001:db8::/32\", \"ifindex\": 7, \"table\": 100, \"metric\": 1024}\n"
		"  ]\n"
		"}\n");
	assert_int_equal(facts_from_json("facts.json", text, strlen(text), &g, &err), 0);
	assert_true(facts_equal(&f, &g));
	again = facts_to_json(&g);
	assert_string_equal(text, again);
	free(again);
	free(text);
	facts_done(&g);
	facts_done(&f);

	text = facts_to_json(&f);
	assert_int_equal(facts_from_json("facts.json", text, strlen(text), &g, &err), 0);
	assert_true(facts_equal(&f, &g));
	free(text);
	facts_done(&g);
	/* Order in the file is nobody's concern. */
	text = "{\"links\":[{\"name\":\"b\",\"ifindex\":2},{\"name\":\"a\",\"ifindex\":1}]}";
	assert_int_equal(facts_from_json("facts.json", text, strlen(text), &g, &err), 0);
	assert_string_equal(g.links[0].name, "a");
	facts_done(&g);
}

static void test_json_errors(void **state)
{
	static const struct {
		const char *json, *error;
	} cases[] = {
		{"", "facts.json:1: not JSON: it ends too early"},
		{"{\n\"kernel\": \"x\"", "facts.json:2: not JSON: it ends too early"},
		{"{\n\n\"kernel\": x}", "facts.json:3: not JSON: unexpected character"},
		{"{} {}", "facts.json:1: not JSON: "},
		{"[]", "facts.json: not a JSON object"},
		{"{\"kernle\": \"\"}", "facts.json: field kernle: unknown field (remove it)"},
		{"{\"kernel\": 6}", "facts.json: field kernel: not a string"},
		{"{\"kernel\": null}", "facts.json: field kernel: not a string"},
		{"{\"kernel\": \"a\\u0000b\"}", "facts.json: field kernel: a NUL in a string"},
		{"{\"notrack\": 1}", "facts.json: field notrack: neither true nor false"},
		{"{\"policyRules\": -1}",
			"facts.json: field policyRules: not a whole number from 0 to 4294967295"},
		{"{\"policyRules\": 4294967296}",
			"facts.json: field policyRules: not a whole number from 0 to 4294967295"},
		{"{\"policyRules\": 99999999999999999999}",
			"facts.json: field policyRules: not a whole number from 0 to 4294967295"},
		{"{\"policyRules\": 1.5}",
			"facts.json: field policyRules: not a whole number from 0 to 4294967295"},
		{"{\"features\": []}", "facts.json: field features: not an object"},
		{"{\"features\": {\"nft\": true}}",
			"facts.json: field features.nft: unknown field (remove it)"},
		{"{\"links\": {}}", "facts.json: field links: not a list"},
		{"{\"links\": [1]}", "facts.json: field links[0]: not an object"},
		{"{\"links\": [{\"ifindex\": 1, \"name\": \"lo\"}, {\"ifindex\": 2}]}",
			"facts.json: field links[1].name: missing"},
		{"{\"links\": [{\"ifindex\": 1, \"name\": \"\"}]}", "facts.json: field links[0].name: empty"},
		{"{\"links\": [{\"ifindex\": 1, \"name\": \"0123456789abcdef\"}]}",
			"facts.json: field links[0].name: longer than 15 bytes"},
		{"{\"links\": [{\"type\": 65536}]}",
			"facts.json: field links[0].type: not a whole number from 0 to 65535"},
		{"{\"links\": [{\"mac\": \"aa:bb:cc:dd:ee\"}]}",
			"facts.json: field links[0].mac: not a MAC address (write it as aa:bb:cc:dd:ee:ff)"},
		{"{\"links\": [{\"mac\": \"aa:bb:cc:dd:ee:ff:00\"}]}",
			"facts.json: field links[0].mac: not a MAC address (write it as aa:bb:cc:dd:ee:ff)"},
		{"{\"addresses\": [{\"address\": \"10.0.0.1\"}]}",
			"facts.json: field addresses[0].address: not an IP address with a prefix length "
			"(write it as 10.0.0.1/24)"},
		{"{\"addresses\": [{\"scope\": 256}]}",
			"facts.json: field addresses[0].scope: not a whole number from 0 to 255"},
		{"{\"routes\": [{\"destination\": \"10.0.0.1/24\"}]}",
			"facts.json: field routes[0].destination: a prefix with host bits set "
			"(clear the bits after the prefix length)"},
		{"{\"routes\": [{\"destination\": \"default\"}]}",
			"facts.json: field routes[0].destination: not a prefix (write it as 10.0.0.0/24)"},
		{"{\"routes\": [{\"ifindex\": 2}]}", "facts.json: field routes[0].destination: missing"},
		{"{\"routes\": [{\"gateway\": \"10.0.0.0/8\"}]}",
			"facts.json: field routes[0].gateway: not an IP address"},
		{"{\"routes\": [[[[[[[[[]]]]]]]]]}", "facts.json:1: not JSON: nesting too deep"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		/* A copy of its very length, so that reading past it is seen. */
		size_t len = strlen(cases[i].json);
		char *json = xmemdup(cases[i].json, len + !len);
		struct facts f;
		struct facts zero = {0};
		struct error err = {0};
		const char *text;

		assert_int_equal(facts_from_json("facts.json", json, len, &f, &err), -EINVAL);
		text = error_text(&err);
		if (strncmp(text, cases[i].error, strlen(cases[i].error)) != 0)
			fail_msg("%s\n gives \"%s\"\ninstead of \"%s\"", cases[i].json, text, cases[i].error);
		assert_memory_equal(&f, &zero, sizeof(f));
		assert_int_equal(facts_from_json("facts.json", json, len, &f, NULL), -EINVAL);
		free(json);
	}
}

/* ---- rtnetlink messages, built by hand ---- */

struct message {
	_Alignas(NLMSG_ALIGNTO) uint8_t bytes[1024];
};

static struct nlmsghdr *begin(struct message *m, uint16_t type, const void *fixed, size_t size)
{
	struct nlmsghdr *h = (struct nlmsghdr *)m->bytes;

	memset(m, 0, sizeof(*m));
	h->nlmsg_type = type;
	memcpy(NLMSG_DATA(h), fixed, size);
	h->nlmsg_len = (uint32_t)NLMSG_SPACE(size);
	return h;
}

static void put(struct nlmsghdr *h, uint16_t type, const void *data, size_t size)
{
	struct rtattr *a = (struct rtattr *)((char *)h + h->nlmsg_len);

	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(a), data, size);
	h->nlmsg_len += (uint32_t)RTA_SPACE(size);
}

static void put_u32(struct nlmsghdr *h, uint16_t type, uint32_t value)
{
	put(h, type, &value, sizeof(value));
}

static void test_parse_route(void **state)
{
	static const uint32_t tables[] = {254, 1000};
	struct rtmsg fixed = {
		.rtm_family = AF_INET, .rtm_dst_len = 24, .rtm_table = 254, .rtm_type = RTN_UNICAST};
	uint8_t via[18] = {AF_INET6 & 0xff, 0, 0x20, 0x01, [17] = 1};
	struct message m;
	struct nlmsghdr *h;
	struct facts f = {0}, dead = {0};
	struct rtnexthop hops[2] = {{.rtnh_len = sizeof(*hops), .rtnh_ifindex = 3},
		{.rtnh_len = sizeof(*hops), .rtnh_ifindex = 4, .rtnh_flags = RTNH_F_DEAD}};

	(void)state;
	/* Bits past the prefix length go away. */
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	put(h, RTA_DST, "\x0a\x01\x02\x03", 4);
	put_u32(h, RTA_OIF, 5);
	put_u32(h, RTA_PRIORITY, 70);
	put(h, RTA_VIA, via, sizeof(via));
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), 1);
	assert_int_equal(f.n_routes, 1);
	assert_int_equal(f.routes[0].dst.addr.bytes[3], 0);
	assert_int_equal(f.routes[0].gateway.family, AF_INET6);
	assert_int_equal(f.routes[0].gateway.bytes[15], 1);
	assert_int_equal(f.routes[0].metric, 70);
	/* Every shorter message is refused or says less, and none is read past its end. */
	for (uint32_t len = sizeof(*h); len < h->nlmsg_len; len++) {
		struct nlmsghdr *cut = xmemdup(h, len);
		int ret;

		cut->nlmsg_len = len;
		ret = route_parse(cut, tables, 2, &f, &dead);
		assert_true(ret == 1 || ret == -EBADMSG);
		free(cut);
	}

	f.n_routes = 0;
	fixed.rtm_dst_len = 0;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	put(h, RTA_MULTIPATH, hops, sizeof(hops));
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), 1);
	assert_int_equal(f.n_routes, 1);
	assert_int_equal(f.routes[0].ifindex, 3);
	assert_int_equal(f.routes[0].dst.addr.family, AF_INET);
	assert_int_equal(dead.n_routes, 1);
	assert_int_equal(dead.routes[0].ifindex, 4);

	hops[1].rtnh_len = 0;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	put(h, RTA_MULTIPATH, hops, sizeof(hops));
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), -EBADMSG);
	hops[1].rtnh_len = 200;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	put(h, RTA_MULTIPATH, hops, sizeof(hops));
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), -EBADMSG);

	/* A prefix length without a destination, one too long, a destination of the wrong size. */
	fixed.rtm_dst_len = 8;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), -EBADMSG);
	fixed.rtm_dst_len = 33;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	put(h, RTA_DST, "\x0a\x01\x02\x03", 4);
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), -EBADMSG);
	fixed.rtm_dst_len = 8;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	put(h, RTA_DST, "\x0a\x01\x02", 3);
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), -EBADMSG);

	/* What does not count. */
	fixed.rtm_dst_len = 0;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	put_u32(h, RTA_TABLE, 255);
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), 0);
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	put_u32(h, RTA_TABLE, 1000);
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), 1);
	fixed.rtm_flags = RTM_F_CLONED;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), 0);
	fixed.rtm_flags = 0;
	fixed.rtm_type = RTN_BLACKHOLE;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), 0);
	fixed.rtm_type = RTN_UNICAST;
	fixed.rtm_family = AF_INET6;
	fixed.rtm_dst_len = 8;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	put(h, RTA_DST, "\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), 0);
	fixed.rtm_dst_len = 64;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	put(h, RTA_DST, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), 0);
	fixed.rtm_family = AF_PACKET;
	h = begin(&m, RTM_NEWROUTE, &fixed, sizeof(fixed));
	assert_int_equal(route_parse(h, tables, 2, &f, &dead), 0);
	facts_done(&f);
	facts_done(&dead);
}

static void test_parse_rule(void **state)
{
	struct fib_rule_hdr fixed = {.family = AF_INET, .action = FR_ACT_TO_TBL, .table = RT_TABLE_MAIN};
	struct message m;
	struct nlmsghdr *h;
	uint32_t table;

	(void)state;
	h = begin(&m, RTM_NEWRULE, &fixed, sizeof(fixed));
	put_u32(h, FRA_TABLE, RT_TABLE_LOCAL);
	put_u32(h, FRA_PRIORITY, 100);
	put_u32(h, FRA_SUPPRESS_PREFIXLEN, UINT32_MAX);
	put(h, FRA_PROTOCOL, "\2", 1);
	assert_int_equal(rule_parse(h, &table), 0);
	put_u32(h, FRA_FWMARK, 1);
	assert_int_equal(rule_parse(h, &table), 1);
	assert_int_equal(table, RT_TABLE_LOCAL);

	h = begin(&m, RTM_NEWRULE, &fixed, sizeof(fixed));
	put_u32(h, FRA_SUPPRESS_PREFIXLEN, 0);
	assert_int_equal(rule_parse(h, &table), 1);
	assert_int_equal(table, RT_TABLE_MAIN);
	h = begin(&m, RTM_NEWRULE, &fixed, sizeof(fixed));
	put_u32(h, FRA_TABLE, 5000);
	assert_int_equal(rule_parse(h, &table), 1);
	assert_int_equal(table, 5000);
	/* A kind of selector that is not known yet. */
	h = begin(&m, RTM_NEWRULE, &fixed, sizeof(fixed));
	put_u32(h, 200, 0);
	assert_int_equal(rule_parse(h, &table), 1);
	h = begin(&m, RTM_NEWRULE, &fixed, sizeof(fixed));
	put(h, FRA_TABLE, "\1", 1);
	assert_int_equal(rule_parse(h, &table), -EBADMSG);
	assert_int_equal(table, 0);
	fixed.flags = FIB_RULE_INVERT;
	h = begin(&m, RTM_NEWRULE, &fixed, sizeof(fixed));
	assert_int_equal(rule_parse(h, &table), 1);
	fixed.flags = 0;
	fixed.action = FR_ACT_PROHIBIT;
	h = begin(&m, RTM_NEWRULE, &fixed, sizeof(fixed));
	assert_int_equal(rule_parse(h, &table), 1);
	assert_int_equal(table, 0);
	h->nlmsg_len = sizeof(*h) + 4;
	assert_int_equal(rule_parse(h, &table), -EBADMSG);
}

static void test_parse_link(void **state)
{
	struct ifinfomsg fixed = {.ifi_index = 9, .ifi_type = 1, .ifi_flags = IFF_UP};
	struct message m;
	struct nlmsghdr *h;
	struct link l;

	(void)state;
	h = begin(&m, RTM_NEWLINK, &fixed, sizeof(fixed));
	put(h, IFLA_IFNAME, "eth0", 5);
	assert_int_equal(link_parse(h, &l), 0); /* wireless events have no more than this */
	put_u32(h, IFLA_MTU, 1400);
	put_u32(h, IFLA_LINK, 3);
	put(h, IFLA_ADDRESS, "\1\2\3\4", 4); /* a tunnel's */
	assert_int_equal(link_parse(h, &l), 1);
	assert_int_equal(l.lower, 3);
	assert_int_equal(l.mac[0], 0);
	put_u32(h, IFLA_LINK_NETNSID, 0);
	assert_int_equal(link_parse(h, &l), 1);
	assert_int_equal(l.lower, 0);
	assert_true(l.up && !l.carrier);
	for (uint32_t len = sizeof(*h); len < h->nlmsg_len; len++) {
		struct nlmsghdr *cut = xmemdup(h, len);

		cut->nlmsg_len = len;
		(void)link_parse(cut, &l);
		free(cut);
	}
	h = begin(&m, RTM_NEWLINK, &fixed, sizeof(fixed));
	put_u32(h, IFLA_MTU, 1400);
	put(h, IFLA_IFNAME, "eth0", 4); /* no end */
	assert_int_equal(link_parse(h, &l), -EBADMSG);
	fixed.ifi_family = AF_BRIDGE;
	h = begin(&m, RTM_NEWLINK, &fixed, sizeof(fixed));
	put(h, IFLA_IFNAME, "eth0", 5);
	put_u32(h, IFLA_MTU, 1400);
	assert_int_equal(link_parse(h, &l), 0);
}

static void test_parse_address(void **state)
{
	struct ifaddrmsg fixed = {.ifa_family = AF_INET, .ifa_prefixlen = 24, .ifa_index = 4};
	struct message m;
	struct nlmsghdr *h;
	struct link_address a;

	(void)state;
	h = begin(&m, RTM_NEWADDR, &fixed, sizeof(fixed));
	put(h, IFA_ADDRESS, "\x0a\0\0\x02", 4);
	assert_int_equal(link_address_parse(h, &a), 1);
	assert_int_equal(a.addr.bytes[3], 2);
	put(h, IFA_LOCAL, "\x0a\0\0\x01", 4); /* point to point: IFA_ADDRESS is the peer's */
	assert_int_equal(link_address_parse(h, &a), 1);
	assert_int_equal(a.addr.bytes[3], 1);
	h = begin(&m, RTM_NEWADDR, &fixed, sizeof(fixed));
	put(h, IFA_LOCAL, "\x0a\0\0", 3);
	assert_int_equal(link_address_parse(h, &a), -EBADMSG);
	fixed.ifa_prefixlen = 33;
	h = begin(&m, RTM_NEWADDR, &fixed, sizeof(fixed));
	put(h, IFA_LOCAL, "\x0a\0\0\x01", 4);
	assert_int_equal(link_address_parse(h, &a), -EBADMSG);
	assert_int_equal(a.addr.family, 0);
	fixed = (struct ifaddrmsg){.ifa_family = AF_INET6, .ifa_prefixlen = 64, .ifa_index = 4};
	h = begin(&m, RTM_NEWADDR, &fixed, sizeof(fixed));
	put(h, IFA_ADDRESS, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16);
	assert_int_equal(link_address_parse(h, &a), 0);
	h->nlmsg_len = sizeof(*h) + 3;
	assert_int_equal(link_address_parse(h, &a), -EBADMSG);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sorted),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_route_to),
		cmocka_unit_test(test_json_round),
		cmocka_unit_test(test_json_errors),
		cmocka_unit_test(test_parse_route),
		cmocka_unit_test(test_parse_rule),
		cmocka_unit_test(test_parse_link),
		cmocka_unit_test(test_parse_address),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
