/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * facts_watch against a real kernel, in a network namespace of the test's own; ip(8) makes the changes, and
 * `ip -j` is what the facts are held against. What the running kernel has no driver for is skipped.
 */
#include "base/mem.h"
#include "base/strbuf.h"
#include "datapath/facts_dump.h"
#include "datapath/facts_follow.h"
#include "datapath/facts_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <netlink/socket.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct facts_watch *watch;
static struct facts facts;
static const char *no_namespace; /* why there is none */

static bool try(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void sh(const char *format, ...) __attribute__((format(printf, 1, 2)));

static bool run(const char *format, va_list ap)
{
	char command[1024];

	vsnprintf(command, sizeof(command), format, ap);
	return system(command) == 0;
}

static bool try(const char *format, ...)
{
	va_list ap;
	bool ok;

	va_start(ap, format);
	ok = run(format, ap);
	va_end(ap);
	return ok;
}

static void sh(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	if (!run(format, ap))
		fail_msg("failed: %s", format);
	va_end(ap);
}

static bool readable(int ms)
{
	struct pollfd p = {.fd = facts_watch_fd(watch), .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

/* Takes in what still comes by itself: carrier, duplicate address detection. */
static void settle(void)
{
	struct error err = {0};

	while (readable(50))
		if (facts_watch_read(watch, &err) < 0)
			fail_msg("%s", error_text(&err));
	if (facts_watch_refresh(watch, &facts, &err) < 0)
		fail_msg("%s", error_text(&err));
}

/* ---- what ip(8) sees ---- */

static json_object *ip_json(const char *arguments)
{
	char command[256];
	char piece[4096];
	struct strbuf b = {0};
	json_object *o;
	size_t n;
	FILE *p;

	snprintf(command, sizeof(command), "exec ip -j %s", arguments);
	p = popen(command, "re");
	assert_non_null(p);
	while ((n = fread(piece, 1, sizeof(piece), p)))
		strbuf_add(&b, piece, n);
	assert_int_equal(pclose(p), 0);
	o = json_tokener_parse(b.data ? b.data : "[]");
	strbuf_done(&b);
	return o ? o : json_object_new_array();
}

static const char *text_of(json_object *o, const char *key)
{
	json_object *v;

	return json_object_object_get_ex(o, key, &v) ? json_object_get_string(v) : "";
}

static uint32_t number_of(json_object *o, const char *key)
{
	json_object *v;

	return json_object_object_get_ex(o, key, &v) ? (uint32_t)json_object_get_int64(v) : 0;
}

static bool has_flag(json_object *o, const char *flag)
{
	json_object *flags;

	if (!json_object_object_get_ex(o, "flags", &flags))
		return false;
	for (size_t i = 0; i < json_object_array_length(flags); i++)
		if (strcmp(json_object_get_string(json_object_array_get_idx(flags, i)), flag) == 0)
			return true;
	return false;
}

static uint32_t index_of(const char *name)
{
	const struct link *l = *name ? facts_link_by_name(&facts, name) : NULL;

	return l ? l->ifindex : 0;
}

static void check_links(json_object *list)
{
	assert_int_equal(json_object_array_length(list), facts.n_links);
	for (size_t i = 0; i < facts.n_links; i++) {
		json_object *o = json_object_array_get_idx(list, i);
		const struct link *l = facts_link(&facts, number_of(o, "ifindex"));
		json_object *info = NULL;
		char mac[18];

		assert_non_null(l);
		json_object_object_get_ex(o, "linkinfo", &info);
		assert_string_equal(l->name, text_of(o, "ifname"));
		assert_int_equal(l->mtu, number_of(o, "mtu"));
		assert_int_equal(l->up, has_flag(o, "UP"));
		assert_int_equal(l->carrier, has_flag(o, "LOWER_UP"));
		assert_int_equal(l->loopback, has_flag(o, "LOOPBACK"));
		assert_int_equal(l->master, index_of(text_of(o, "master")));
		assert_int_equal(l->lower, index_of(text_of(o, "link")));
		assert_string_equal(l->kind, info ? text_of(info, "info_kind") : "");
		assert_string_equal(l->master_kind, info ? text_of(info, "info_slave_kind") : "");
		snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", l->mac[0], l->mac[1], l->mac[2],
			l->mac[3], l->mac[4], l->mac[5]);
		if (strlen(text_of(o, "address")) == 17)
			assert_string_equal(mac, text_of(o, "address"));
	}
}

static void check_addresses(json_object *list)
{
	size_t n = 0;

	for (size_t i = 0; i < json_object_array_length(list); i++) {
		json_object *o = json_object_array_get_idx(list, i);
		json_object *info = NULL;

		json_object_object_get_ex(o, "addr_info", &info);
		for (size_t k = 0; info && k < json_object_array_length(info); k++) {
			json_object *a = json_object_array_get_idx(info, k);
			struct addr local;
			bool found = false;

			assert_true(addr_parse(text_of(a, "local"), &local));
			if (strcmp(text_of(a, "scope"), "link") == 0 && local.family == AF_INET6)
				continue;
			for (size_t j = 0; j < facts.n_addresses; j++)
				found |= addr_cmp(&facts.addresses[j].addr, &local) == 0 &&
					 facts.addresses[j].len == number_of(a, "prefixlen") &&
					 facts.addresses[j].ifindex == number_of(o, "ifindex");
			if (!found)
				fail_msg("address %s is not in the facts", text_of(a, "local"));
			n++;
		}
	}
	assert_int_equal(n, facts.n_addresses);
}

static bool has_flag_dead(json_object *hop)
{
	return has_flag(hop, "dead");
}

static void check_hop(json_object *route, json_object *hop, uint8_t family, uint32_t table)
{
	struct prefix dst = {.addr.family = family};
	struct addr gateway;
	json_object *via = NULL;
	const char *to = text_of(route, "dst");

	addr_parse(text_of(hop, "gateway"), &gateway);
	if (json_object_object_get_ex(hop, "via", &via))
		addr_parse(text_of(via, "host"), &gateway);
	if (strcmp(to, "default") != 0 && !prefix_parse(to, &dst, NULL)) {
		struct addr host;

		assert_true(addr_parse(to, &host));
		dst = prefix_of(&host, family == AF_INET ? 32 : 128);
	}
	for (size_t i = 0; i < facts.n_routes; i++) {
		const struct route *r = &facts.routes[i];

		if (r->table == table && prefix_cmp(&r->dst, &dst) == 0 &&
			addr_cmp(&r->gateway, &gateway) == 0 && r->ifindex == index_of(text_of(hop, "dev")) &&
			r->metric == number_of(route, "metric"))
			return;
	}
	fail_msg("route to %s by %s is not in the facts", to, text_of(hop, "dev"));
}

static size_t check_table(const char *arguments, uint8_t family, uint32_t table)
{
	json_object *list = ip_json(arguments);
	size_t n = 0;

	for (size_t i = 0; i < json_object_array_length(list); i++) {
		json_object *o = json_object_array_get_idx(list, i);
		json_object *hops;
		const char *type = text_of(o, "type");

		if ((*type && strcmp(type, "unicast") != 0) || strncmp(text_of(o, "dst"), "fe80:", 5) == 0 ||
			strncmp(text_of(o, "dst"), "ff00:", 5) == 0)
			continue;
		if (!json_object_object_get_ex(o, "nexthops", &hops)) {
			if (has_flag_dead(o))
				continue;
			check_hop(o, o, family, table);
			n++;
			continue;
		}
		for (size_t k = 0; k < json_object_array_length(hops); k++) {
			json_object *hop = json_object_array_get_idx(hops, k);

			if (has_flag_dead(hop))
				continue;
			check_hop(o, hop, family, table);
			n++;
		}
	}
	json_object_put(list);
	return n;
}

static void check_facts(void)
{
	json_object *list = ip_json("-d addr");
	size_t n = check_table("-4 route show table main", AF_INET, 254) +
		   check_table("-6 route show table main", AF_INET6, 254);

	for (size_t i = 0; i < facts.n_routes; i++)
		n += facts.routes[i].table != 254;
	assert_int_equal(n, facts.n_routes);
	check_links(list);
	check_addresses(list);
	json_object_put(list);
}

/* The command changes the facts; they are right afterwards. */
static void changes(const char *command)
{
	struct error err = {0};
	int ret;

	if (!try("%s", command))
		fail_msg("failed: %s", command);
	ret = readable(2000) ? facts_watch_read(watch, &err) : 0;
	if (ret != 1)
		fail_msg("%s: read gives %d %s", command, ret, ret < 0 ? error_text(&err) : "");
	ret = facts_watch_refresh(watch, &facts, &err);
	if (ret != 1)
		fail_msg("%s: refresh gives %d %s", command, ret, ret < 0 ? error_text(&err) : "");
	settle();
	check_facts();
}

/* The command says something to the descriptor, and nothing that counts. */
static void is_idle(const char *command)
{
	struct error err = {0};
	int ret;

	if (!try("%s", command))
		fail_msg("failed: %s", command);
	if (!readable(2000))
		fail_msg("%s: not a word from the kernel, so nothing is tested", command);
	do {
		ret = facts_watch_read(watch, &err);
		if (ret != 0)
			fail_msg("%s: read gives %d", command, ret);
	} while (readable(50));
	assert_int_equal(facts_watch_refresh(watch, &facts, &err), 0);
	check_facts();
}

/* The command does not even wake anybody up. */
static void is_silent(const char *command)
{
	if (!try("%s", command))
		fail_msg("failed: %s", command);
	if (readable(200))
		fail_msg("%s: wakes up", command);
}

static size_t routes_to(const char *dst)
{
	struct prefix p;
	size_t n = 0;

	assert_true(prefix_parse(dst, &p, NULL));
	for (size_t i = 0; i < facts.n_routes; i++)
		n += prefix_cmp(&facts.routes[i].dst, &p) == 0;
	return n;
}

/* ---- a namespace per test ---- */

static bool write_file(const char *path, const char *text)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

static int enter(void **state)
{
	char map[64];
	unsigned uid = geteuid();

	(void)state;
	if (uid == 0)
		return 0;
	/* One user namespace for all tests: root in it may have network namespaces. */
	if (unshare(CLONE_NEWUSER) < 0) {
		no_namespace = "no user namespaces for this user";
		return 0;
	}
	snprintf(map, sizeof(map), "0 %u 1", uid);
	if (!write_file("/proc/self/uid_map", map))
		no_namespace = "cannot become root of a user namespace";
	return 0;
}

static int open_watch(void **state)
{
	struct error err = {0};

	(void)state;
	if (!no_namespace && unshare(CLONE_NEWNET) < 0)
		no_namespace = "no network namespaces for this user";
	if (!no_namespace && !try("ip -V >/dev/null 2>&1"))
		no_namespace = "no ip(8)";
	if (no_namespace) {
		fprintf(stderr, "skipped: %s\n", no_namespace);
		return getenv("CI") ? -1 : 0;
	}
	/* Addresses are valid at once. */
	(void)write_file("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
	if (!try("ip link set lo up && ip link add name v0 type veth peer name v1 &&"
		 " ip link set v0 up && ip link set v1 up"))
		return -1;
	if (facts_watch_open(&watch, &err) < 0) {
		fprintf(stderr, "%s\n", error_text(&err));
		return -1;
	}
	if (facts_watch_refresh(watch, &facts, &err) != 1) {
		fprintf(stderr, "%s\n", error_text(&err));
		return -1;
	}
	settle();
	return 0;
}

static int close_watch(void **state)
{
	(void)state;
	facts_watch_close(watch);
	watch = NULL;
	facts_done(&facts);
	return 0;
}

#define NEEDS_NAMESPACE()                                                                                    \
	do {                                                                                                 \
		(void)state;                                                                                 \
		if (no_namespace)                                                                            \
			skip();                                                                              \
	} while (0)

static void needs_kind(const char *kind)
{
	if (try("ip link add name probe0 type %s 2>/dev/null", kind)) {
		sh("ip link del probe0");
		settle();
		return;
	}
	fprintf(stderr, "skipped: this kernel has no %s\n", kind);
	skip();
}

/* ---- tests ---- */

static void test_links(void **state)
{
	uint32_t index;

	NEEDS_NAMESPACE();
	check_facts();
	assert_int_equal(facts.policy_rules, 0);
	index = index_of("v0");
	changes("ip link add name p0 type veth peer name p1");
	assert_string_equal(facts_link_by_name(&facts, "p0")->kind, "veth");
	assert_int_equal(facts_link_by_name(&facts, "p0")->lower, index_of("p1"));
	changes("ip link set p0 name pod0");
	assert_null(facts_link_by_name(&facts, "p0"));
	changes("ip link set pod0 mtu 1400");
	changes("ip link set pod0 address 02:00:00:00:00:05");
	changes("ip link set pod0 up");
	assert_true(facts_link_by_name(&facts, "pod0")->up);
	assert_false(facts_link_by_name(&facts, "pod0")->carrier);
	changes("ip link set p1 up");
	assert_true(facts_link_by_name(&facts, "pod0")->carrier);
	changes("ip link set p1 down");
	assert_false(facts_link_by_name(&facts, "pod0")->carrier);
	changes("ip link del pod0");
	assert_null(facts_link_by_name(&facts, "p1"));
	assert_int_equal(index_of("v0"), index);
}

/* What a pod's start and end make is settled by the notifications alone: a dump costs as much as there is. */
static void test_pod_takes_no_dump(void **state)
{
	static const char *const commands[] = {"ip link add p0 type veth peer name p1", "ip link set p0 up",
		"ip link set p1 up", "ip route add 10.0.1.11/32 dev p0",
		"ip -6 route add 2001:db8::11/128 dev p0", "ip addr add 10.0.0.1/32 dev p0",
		"ip link del p0"};
	static const int groups[] = {
		RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, 0};
	struct followed k = {0}, first = {0}, last = {0};
	uint32_t kinds = FACTS_ALL, dump = 0, moved = 0;
	uint8_t *buffer;
	struct nl_sock *events, *dumps;

	NEEDS_NAMESPACE();
	sh("ip addr add 10.0.0.1/32 dev v0"); /* as the CNI plugin ptp has it: one address for all */
	buffer = xmalloc(FACTS_BUFFER_SIZE);
	events = facts_socket(NULL);
	dumps = facts_dump_socket(NULL);
	for (const int *g = groups; *g; g++)
		assert_int_equal(nl_socket_add_membership(events, *g), 0);
	assert_int_equal(nl_socket_set_nonblocking(events), 0);
	assert_int_equal(facts_dump(dumps, buffer, &k, &kinds, &first, NULL), 0);
	facts_follow_dumped(&k, &first, kinds, false);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		struct pollfd p = {.fd = nl_socket_get_fd(events), .events = POLLIN};

		sh("%s", commands[i]);
		while (poll(&p, 1, 50) == 1) {
			int n = facts_receive(events, buffer);

			assert_true(n > 0);
			for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)buffer; nlmsg_ok(h, n);
				h = nlmsg_next(h, &n))
				moved |= facts_follow(&k, h, &dump);
		}
		if (dump)
			fail_msg("%s: has kinds 0x%x dumped", commands[i], dump);
	}
	assert_int_equal(moved, FACTS_LINKS | FACTS_ADDRESSES | FACTS_ROUTES);
	assert_int_equal(facts_dump(dumps, buffer, &k, &kinds, &last, NULL), 0);
	assert_int_equal(facts_follow_dumped(&k, &last, kinds, false), 0);
	followed_done(&k);
	followed_done(&first);
	followed_done(&last);
	nl_socket_free(events);
	nl_socket_free(dumps);
	free(buffer);
}

/* The same device under the same index, gone in between: whoever attached something to it has to hear of it. */
static void test_made_anew(void **state)
{
	static const char make[] = "link add name d0 index 77 address 02:00:00:00:00:01 type veth "
				   "peer name d1 index 78 address 02:00:00:00:00:02";
	char command[512];
	uint32_t generation;

	NEEDS_NAMESPACE();
	assert_int_equal(facts_link_by_name(&facts, "v0")->generation, 0);
	snprintf(command, sizeof(command), "ip %s", make);
	changes(command);
	generation = facts_link(&facts, 77)->generation;
	changes("ip link set d0 mtu 1400 && ip link set d0 down");
	assert_int_equal(facts_link(&facts, 77)->generation, generation);
	changes("ip link set d0 mtu 1500");
	snprintf(command, sizeof(command), "printf '%%s\\n' 'link del d0' '%s' | ip -batch -", make);
	changes(command);
	assert_int_not_equal(facts_link(&facts, 77)->generation, generation);
	assert_int_equal(facts_link_by_name(&facts, "v0")->generation, 0);
}

static void test_other_namespace(void **state)
{
	pid_t child;
	int ready[2];
	char byte;
	char command[128];

	NEEDS_NAMESPACE();
	changes("ip link add name pod0 type veth peer name eth0");
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		(void)!write(ready[1], "", unshare(CLONE_NEWNET) == 0);
		close(ready[1]);
		pause();
		_exit(0);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	snprintf(command, sizeof(command), "ip link set eth0 netns %d", (int)child);
	changes(command);
	assert_null(facts_link_by_name(&facts, "eth0"));
	changes("ip link set pod0 up");
	/* The peer's index is of another namespace now. */
	assert_int_equal(facts_link_by_name(&facts, "pod0")->lower, 0);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static void test_bridge(void **state)
{
	NEEDS_NAMESPACE();
	needs_kind("bridge");
	changes("ip link add name cni0 type bridge");
	changes("ip link set v0 master cni0");
	assert_int_equal(facts_link_by_name(&facts, "v0")->master, index_of("cni0"));
	assert_string_equal(facts_link_by_name(&facts, "v0")->master_kind, "bridge");
	is_idle("ip link set v0 type bridge_slave hairpin on");
	is_silent("bridge link set dev v0 cost 5");
	changes("ip link set v0 nomaster");
	assert_string_equal(facts_link_by_name(&facts, "v0")->master_kind, "");
	changes("ip link set v0 master cni0");
	changes("ip link del cni0");
}

static void test_vlan(void **state)
{
	NEEDS_NAMESPACE();
	if (!try("ip link add link v0 name v0.9 type vlan id 9 2>/dev/null")) {
		fprintf(stderr, "skipped: this kernel has no vlan\n");
		skip();
	}
	sh("ip link del v0.9");
	settle();
	changes("ip link add link v0 name v0.5 type vlan id 5");
	assert_string_equal(facts_link_by_name(&facts, "v0.5")->kind, "vlan");
	assert_int_equal(facts_link_by_name(&facts, "v0.5")->lower, index_of("v0"));
	changes("ip link del v0.5");
}

static void test_bond(void **state)
{
	NEEDS_NAMESPACE();
	needs_kind("bond");
	changes("ip link add name bond9 type bond mode active-backup miimon 100");
	sh("ip link set v0 down");
	settle();
	changes("ip link set v0 master bond9");
	assert_int_equal(facts_link_by_name(&facts, "v0")->master, index_of("bond9"));
	assert_string_equal(facts_link_by_name(&facts, "v0")->master_kind, "bond");
	changes("ip link set bond9 up");
	changes("ip link del bond9");
}

static void test_addresses(void **state)
{
	NEEDS_NAMESPACE();
	changes("ip addr add 10.0.0.1/24 dev v0");
	assert_int_equal(routes_to("10.0.0.0/24"), 1);
	is_idle("ip addr change 10.0.0.1/24 dev v0 valid_lft 900 preferred_lft 800");
	changes("ip addr add 2001:db8::1/64 dev v0");
	changes("ip addr add 192.0.2.1 peer 192.0.2.9/32 dev v1");
	is_idle("ip addr add fe80::77/64 dev v0");
	is_idle("ip addr del fe80::77/64 dev v0");
	/* The route with this source goes without a message of its own. */
	changes("ip addr add 10.7.7.7/32 dev lo");
	changes("ip route add 10.8.0.0/16 dev v0 src 10.7.7.7");
	changes("ip addr del 10.7.7.7/32 dev lo");
	assert_int_equal(routes_to("10.8.0.0/16"), 0);
	changes("ip addr flush dev v0 scope global");
}

static void test_routes(void **state)
{
	struct addr a;

	NEEDS_NAMESPACE();
	changes("ip addr add 10.0.0.1/24 dev v0");
	changes("ip addr add 2001:db8::1/64 dev v0");
	changes("ip route add default via 10.0.0.254");
	changes("ip route add 10.1.0.0/16 via 10.0.0.2 metric 50");
	changes("ip route add 10.1.0.0/16 via 10.0.0.3 metric 40");
	assert_true(addr_parse("10.1.2.3", &a));
	assert_int_equal(facts_route_to(&facts, &a)->gateway.bytes[3], 3);
	changes("ip route replace 10.1.0.0/16 via 10.0.0.4 metric 40");
	changes("ip route add 10.2.0.0/16 nexthop via 10.0.0.5 nexthop dev v1");
	assert_int_equal(routes_to("10.2.0.0/16"), 2);
	changes("ip -6 route add default via 2001:db8::254");
	changes("ip -6 route add 2001:db8:1::/64 nexthop via 2001:db8::2 nexthop via 2001:db8::3");
	assert_int_equal(routes_to("2001:db8:1::/64"), 2);
	changes("ip route add 10.3.0.0/16 via inet6 2001:db8::9 dev v0");
	changes("ip route del 10.1.0.0/16 metric 40");
	is_idle("ip route add blackhole 10.9.0.0/16");
	changes("ip route add 10.13.0.0/16 via 10.0.0.2");
	changes("ip route replace blackhole 10.13.0.0/16");
	assert_int_equal(routes_to("10.13.0.0/16"), 0);
	changes("ip route replace 10.13.0.0/16 via 10.0.0.2");
	changes("ip route append 10.13.0.0/16 via 10.0.0.3");
	assert_int_equal(routes_to("10.13.0.0/16"), 2);
	changes("ip route del 10.13.0.0/16 via 10.0.0.2");
	changes("ip route del 10.13.0.0/16");
	changes("ip route add 10.13.0.0/16 via 10.0.0.2 tos 8");
	changes("ip route add 10.13.0.0/16 via 10.0.0.2");
	changes("ip route del 10.13.0.0/16 tos 8");
	changes("ip route del 10.13.0.0/16");
	is_idle("ip route add 10.10.0.0/16 dev v0 table 77");
	is_idle("ip -6 route add fe80:1::/64 dev v0");
	/* One hop of two dies silently, and so do the IPv4 routes of the link. */
	changes("ip link set v1 down");
	assert_int_equal(routes_to("10.2.0.0/16"), 1);
	changes("ip link set v1 up");
	assert_int_equal(routes_to("10.2.0.0/16"), 2);
	changes("ip link set v0 down");
	assert_int_equal(routes_to("0.0.0.0/0"), 0);
	changes("ip link del v0");
	assert_int_equal(routes_to("10.2.0.0/16"), 0);
}

static void test_nexthops(void **state)
{
	NEEDS_NAMESPACE();
	if (!try("ip nexthop add id 1 dev v0 2>/dev/null")) {
		fprintf(stderr, "skipped: no nexthop objects\n");
		skip();
	}
	sh("ip nexthop add id 2 dev v1");
	sh("ip nexthop add id 3 group 1/2");
	settle();
	changes("ip route add 10.1.0.0/16 nhid 1");
	changes("ip route add 10.2.0.0/16 nhid 3");
	assert_int_equal(routes_to("10.2.0.0/16"), 2);
	changes("ip nexthop del id 2");
	assert_int_equal(routes_to("10.2.0.0/16"), 1);
	changes("ip nexthop replace id 1 dev v1");
	changes("ip nexthop del id 1");
	assert_int_equal(routes_to("10.1.0.0/16"), 0);
}

static void test_rules(void **state)
{
	NEEDS_NAMESPACE();
	is_idle("ip route add 10.10.0.0/16 dev v0 table 77");
	is_idle("ip route add 10.11.0.0/16 dev v0 table 2004");
	changes("ip rule add from 10.5.0.0/16 table 77");
	assert_int_equal(facts.policy_rules, 1);
	assert_int_equal(routes_to("10.10.0.0/16"), 1);
	changes("ip rule add fwmark 1 table 2004");
	assert_int_equal(facts.policy_rules, 2);
	assert_int_equal(routes_to("10.11.0.0/16"), 1);
	changes("ip route del 10.10.0.0/16 table 77");
	assert_int_equal(routes_to("10.10.0.0/16"), 0);
	changes("ip -6 rule add from 2001:db8::/64 table 4242");
	assert_int_equal(facts.policy_rules, 3);
	changes("ip -6 route add 2001:db8:5::/64 dev v0 table 4242");
	/* The three of every namespace may move: no rule of anybody's own. */
	is_idle("ip rule add from all table local pref 100");
	assert_int_equal(facts.policy_rules, 3);
	changes("ip rule del fwmark 1 table 2004");
	assert_int_equal(routes_to("10.11.0.0/16"), 0);
	is_idle("ip route add 10.12.0.0/16 dev v0 table 2004");
	changes("ip rule del from 10.5.0.0/16 table 77");
	changes("ip -6 rule del from 2001:db8::/64 table 4242");
	assert_int_equal(facts.policy_rules, 0);
}

/* What does not fit into the socket is made up for. */
static void test_overrun(void **state)
{
	int small = 1;
	struct error err = {0};

	NEEDS_NAMESPACE();
	assert_int_equal(setsockopt(facts_watch_fd(watch), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	/* None of this counts, and what counts comes when there is no room any more. */
	sh("for i in 1 2 3 4 5 6 7 8 9; do ip route add 10.10.$i.0/24 dev v0 table 77; done");
	sh("ip rule add fwmark 1 table 77 && ip link set v1 mtu 1234 && ip addr add 10.0.0.1/24 dev v1");
	assert_int_equal(facts_watch_read(watch, &err), 1);
	assert_int_equal(facts_watch_refresh(watch, &facts, &err), 1);
	assert_int_equal(facts.policy_rules, 1);
	assert_int_equal(routes_to("10.10.9.0/24"), 1);
	/* Any of the links may have been away. */
	assert_int_not_equal(facts_link_by_name(&facts, "v0")->generation, 0);
	check_facts();
}

/* Whatever comes in whatever order: at the end of each batch the facts are what `ip` says. */
static void test_any_order(void **state)
{
	static const char *const commands[] = {"link add name p0 type veth peer name p1", "link del p0",
		"link set p0 up", "link set p0 down", "link set p1 up", "link set p1 down",
		"link set v0 down", "link set v0 up", "link set v1 down", "link set v1 up",
		"link set p0 name q0", "link set q0 name p0", "addr add 10.0.0.1/24 dev v0",
		"addr del 10.0.0.1/24 dev v0", "addr add 10.0.0.1/32 dev v1", "addr del 10.0.0.1/32 dev v1",
		"addr add 10.7.7.7/32 dev lo", "addr del 10.7.7.7/32 dev lo",
		"addr add 2001:db8::1/64 dev v0", "addr del 2001:db8::1/64 dev v0", "addr flush dev v0",
		"route add 10.1.0.0/16 dev v0", "route add 10.1.0.0/16 dev v1 metric 7",
		"route del 10.1.0.0/16", "route replace 10.1.0.0/16 dev v1",
		"route append 10.1.0.0/16 dev p0", "route replace blackhole 10.1.0.0/16",
		"route add 10.1.0.0/16 dev v0 tos 8", "route add 10.2.0.0/16 nexthop dev v0 nexthop dev v1",
		"route del 10.2.0.0/16", "route replace 10.2.0.0/16 nexthop dev v0 nexthop dev p0",
		"route add 10.3.0.0/16 dev v0 src 10.7.7.7", "route add 10.0.1.11/32 dev p0",
		"route del 10.0.1.11/32 dev p0", "route flush 10.0.0.0/8",
		"-6 route add 2001:db8:1::/64 dev v0", "-6 route append 2001:db8:1::/64 dev v1",
		"-6 route del 2001:db8:1::/64", "-6 route del 2001:db8:1::/64 dev v1",
		"-6 route add 2001:db8:2::/64 nexthop via 2001:db8::2 nexthop dev v1",
		"-6 route replace 2001:db8:2::/64 dev v0", "-6 route add 2001:db8::11/128 dev p0",
		"nexthop add id 1 dev v0", "nexthop replace id 1 dev v1", "nexthop del id 1",
		"route add 10.4.0.0/16 nhid 1", "rule add from 10.5.0.0/16 table 77",
		"rule del from 10.5.0.0/16 table 77", "route add 10.10.0.0/16 dev v0 table 77",
		"route del 10.10.0.0/16 table 77"};
	unsigned seed = 1;

	NEEDS_NAMESPACE();
	for (unsigned i = 0; i < 100; i++) {
		struct strbuf batch = {0};
		unsigned n = 1 + i % 8;

		while (n--) {
			seed = seed * 1103515245u + 12345u;
			strbuf_printf(&batch, "%s\\n", commands[(seed >> 16) % ARRAY_SIZE(commands)]);
		}
		/* Half of them make no sense at their time. */
		(void)try("printf -- '%s' | ip -force -batch - >/dev/null 2>&1", batch.data);
		settle();
		check_facts();
		strbuf_done(&batch);
	}
}

/* Dumps while links come and go: interrupted ones are repeated, and the end is right. */
static void test_interrupted(void **state)
{
	struct error err = {0};
	unsigned refreshed = 0;
	unsigned gave_up = 0;
	pid_t child;

	NEEDS_NAMESPACE();
	sh("for i in $(seq 40); do echo link add name a$i type veth peer name b$i; done | ip -batch -");
	settle();
	child = fork();
	if (child == 0) {
		execl("/bin/sh", "sh", "-c",
			"for i in $(seq 150); do echo link add name x type veth peer name y;"
			" echo link del x; done | ip -batch -",
			NULL);
		_exit(127);
	}
	while (waitpid(child, NULL, WNOHANG) == 0) {
		int ret = readable(10) ? facts_watch_read(watch, &err) : 0;

		assert_true(ret >= 0);
		ret = facts_watch_refresh(watch, &facts, &err);
		if (ret == -EAGAIN)
			gave_up++;
		else if (ret < 0)
			fail_msg("%s", error_text(&err));
		refreshed += ret >= 0;
		/* What was there all the time is in every picture: lo, v0, v1 and the 80. */
		assert_true(facts.n_links >= 83);
	}
	settle();
	check_facts();
	assert_true(refreshed > 0);
	print_message("%u refreshes, %u given up\n", refreshed, gave_up);
}

/* 'f' is brought up to date from nothing, and every failure of one refresh is made good by the next. */
static void test_repeat(void **state)
{
	struct error err = {0};

	NEEDS_NAMESPACE();
	assert_int_equal(facts_watch_read(watch, &err), 0);
	assert_int_equal(facts_watch_refresh(watch, &facts, &err), 0);
	/* There and back before anybody looks: noted, and no change. */
	sh("ip link set v0 mtu 1400 && ip link set v0 mtu 1500");
	assert_int_equal(facts_watch_read(watch, &err), 1);
	assert_int_equal(facts_watch_refresh(watch, &facts, &err), 0);
	assert_int_equal(facts_watch_read(watch, &err), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_links, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_pod_takes_no_dump, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_made_anew, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_any_order, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_other_namespace, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_bridge, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_vlan, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_bond, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_addresses, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_routes, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_nexthops, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_rules, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_overrun, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_interrupted, open_watch, close_watch),
		cmocka_unit_test_setup_teardown(test_repeat, open_watch, close_watch),
	};

	return cmocka_run_group_tests(tests, enter, NULL);
}
