/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/plan_routes.h"
#include "plan_world.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void assert_role(const struct plan *p, const char *name, enum device_role role)
{
	const struct plan_device *d = find_device(p, name);

	if (!d)
		fail_msg("%s is not in the plan", name);
	assert_int_equal(d->role, role);
}

static bool has_pair(struct world *w, enum ruleset_set set, const char *in, const char *out)
{
	struct set_element e = {0};
	uint32_t a = ifindex(w, in), b = ifindex(w, out);

	for (int i = 0; i < 4; i++) {
		e.key[3 - i] = (uint8_t)(a >> (8 * i));
		e.key[7 - i] = (uint8_t)(b >> (8 * i));
	}
	return ruleset_has(&w->plan.ruleset, set, &e);
}

static bool in_flowtable(const struct plan *p, const char *name)
{
	for (size_t i = 0; i < p->ruleset.n_devices; i++)
		if (!strcmp(p->ruleset.devices[i].name, name))
			return true;
	return false;
}

/* Routes that look like a pod's and are none. */
static void test_not_pod_routes(void **state)
{
	struct world w;
	const struct plan *p;

	(void)state;
	world_new(&w);
	add_link(&w, "veth0", "veth");
	add_link(&w, "veth1", "veth");
	add_link(&w, "veth2", "veth");
	add_link(&w, "veth3", "veth");
	add_route(&w, "10.244.0.2/32", NULL, "veth0");
	add_route(&w, "10.244.0.3/32", "10.244.0.9", "veth1"); /* behind a router */
	add_route(&w, "10.244.0.4/32", NULL, "veth2")->table = 100;
	add_route(&w, "10.244.0.0/16", NULL, "veth3"); /* wider than the pod CIDR */
	add_route(&w, "10.244.0.5/32", NULL, "lo");
	add_route(&w, "10.244.0.0/24", NULL, "eth0"); /* pods in the node's network */
	p = make_plan(&w);
	assert_role(p, "veth0", DEVICE_POD);
	assert_role(p, "veth1", DEVICE_UPLINK);
	assert_null(find_device(p, "veth2"));
	assert_role(p, "veth3", DEVICE_UPLINK); /* the peer n2 is behind it */
	assert_null(find_device(p, "lo"));
	assert_role(p, "eth0", DEVICE_UPLINK);
	assert_true(has_pair(&w, SET_PAIRS, "veth0", "eth0"));
	assert_true(has_pair(&w, SET_PAIRS, "eth0", "veth0"));
	assert_false(has_pair(&w, SET_PAIRS, "veth0", "veth0"));
	assert_false(has_pair(&w, SET_PAIRS, "eth0", "veth1"));
	world_done(&w);
}

static void test_bridge(void **state)
{
	struct world w;
	const struct plan *p;
	uint32_t bridge;

	(void)state;
	world_new(&w);
	bridge = add_link(&w, "cni0", "bridge")->ifindex;
	add_link(&w, "veth0", "veth")->master = bridge;
	add_link(&w, "veth1", "veth")->master = bridge;
	add_link(&w, "eth5", "")->master = bridge;
	add_address(&w, "198.51.100.1", "eth5"); /* left over on a port: no uplink */
	add_route(&w, "10.244.0.0/24", NULL, "cni0");
	string_list_add(&w.config.exclude_interfaces, "veth1");
	p = make_plan(&w);
	assert_role(p, "cni0", DEVICE_BRIDGE);
	assert_role(p, "veth0", DEVICE_POD);
	assert_role(p, "eth5", DEVICE_POD);
	assert_null(find_device(p, "veth1"));
	assert_true(in_flowtable(p, "veth0") && in_flowtable(p, "eth0"));
	assert_false(in_flowtable(p, "cni0") || in_flowtable(p, "veth1"));
	assert_true(!has_pair(&w, SET_PAIRS, "cni0", "cni0") && has_pair(&w, SET_HAIRPINS, "cni0", "cni0"));
	assert_false(has_pair(&w, SET_HAIRPINS, "cni0", "eth0"));
	assert_false(find_device(p, "eth0")->checked);
	world_done(&w);
}

/* Next hops of equal cost towards a peer are uplinks, all of them; a tunnel counts by its peers alone. */
static void test_ways_to_peers(void **state)
{
	struct world w;
	const struct plan *p;

	(void)state;
	world_new(&w);
	add_link(&w, "veth0", "veth");
	add_route(&w, "10.244.0.2/32", NULL, "veth0");
	add_link(&w, "eth1", "veth");
	add_link(&w, "eth2", "veth");
	add_link(&w, "wg0", "wireguard")->type = ARPHRD_NONE;
	add_link(&w, "wg1", "wireguard")->type = ARPHRD_NONE;
	add_route(&w, "198.51.100.0/24", "10.0.1.1", "eth1");
	add_route(&w, "198.51.100.0/24", "10.0.2.1", "eth2");
	add_route(&w, "198.51.100.0/24", NULL, "wg1")->metric = 500; /* not the best */
	add_route(&w, "10.244.2.0/24", NULL, "wg0");
	add_node(&w, "n3", "10.244.2.0/24", "198.51.100.3");
	p = make_plan(&w);
	assert_role(p, "eth1", DEVICE_UPLINK);
	assert_role(p, "eth2", DEVICE_UPLINK);
	assert_role(p, "wg0", DEVICE_UPLINK);
	assert_string_equal(find_device(p, "wg0")->reason, "route to 10.244.2.0/24");
	assert_null(find_device(p, "wg1"));
	assert_true(find_device(p, "wg0")->checked && find_device(p, "eth0")->checked);
	assert_false(find_device(p, "veth0")->checked);
	world_done(&w);
}

/* What an uplink is checked for is a second way out, managed or not. */
static void test_checked(void **state)
{
	struct world w;
	const struct plan *p;

	(void)state;
	world_new(&w);
	add_link(&w, "veth0", "veth");
	add_route(&w, "10.244.0.2/32", NULL, "veth0");
	add_link(&w, "docker0", "bridge");
	add_address(&w, "172.17.0.1", "docker0");
	add_route(&w, "172.17.0.0/16", NULL, "docker0");
	p = make_plan(&w);
	assert_false(find_device(p, "eth0")->checked);
	assert_int_equal(p->ruleset.sets[SET_CHECKED_UPLINKS].n, 0);
	add_link(&w, "eth1", "");
	add_route(&w, "0.0.0.0/0", "203.0.113.1", "eth1")->table = 100;
	string_list_add(&w.config.exclude_interfaces, "eth1");
	p = make_plan(&w);
	assert_null(find_device(p, "eth1"));
	assert_true(find_device(p, "eth0")->checked);
	assert_int_equal(p->ruleset.sets[SET_CHECKED_UPLINKS].n, 1);
	world_done(&w);
}

static void test_masters(void **state)
{
	struct world w;
	const struct plan *p;
	uint32_t vrf, ovs;

	(void)state;
	world_new(&w);
	vrf = add_link(&w, "mgmt", "vrf")->ifindex;
	add_link(&w, "eth1", "")->master = vrf;
	add_address(&w, "198.51.100.1", "eth1");
	ovs = add_link(&w, "ovs-system", "openvswitch")->ifindex;
	add_link(&w, "eth2", "")->master = ovs;
	add_address(&w, "198.51.100.2", "eth2");
	add_link(&w, "antrea-gw0", "openvswitch");
	p = make_plan(&w);
	assert_int_equal(p->kind, CLUSTER_ANTREA);
	assert_string_equal(p->kind_reason, "device antrea-gw0");
	assert_role(p, "antrea-gw0", DEVICE_POD);
	assert_null(find_device(p, "eth1"));
	assert_null(find_device(p, "eth2"));
	assert_int_equal(p->ruleset.sets[SET_HAIRPINS].n, 0); /* OVS does that NAT */
	w.config.cluster = CLUSTER_KUBE_PROXY;
	p = make_plan(&w);
	assert_string_equal(p->kind_reason, "configured");
	assert_null(find_device(p, "antrea-gw0"));
	assert_true(warned(p, "Node n1", "no pod-side device"));
	world_done(&w);
}

static void test_configured(void **state)
{
	struct world w;
	const struct plan *p;
	uint32_t bridge;

	(void)state;
	world_new(&w);
	bridge = add_link(&w, "br7", "bridge")->ifindex;
	add_link(&w, "tap0", "tun")->master = bridge;
	add_link(&w, "veth0", "veth");
	add_link(&w, "eth1", "");
	add_address(&w, "198.51.100.1", "eth1");
	string_list_add(&w.config.pods, "tap*");
	string_list_add(&w.config.pods, "eth[1]");
	string_list_add(&w.config.pods, "no-such-device-has-so-long-a-name");
	string_list_add(&w.config.uplinks, "eth?");
	p = make_plan(&w);
	assert_role(p, "br7", DEVICE_BRIDGE);
	assert_role(p, "tap0", DEVICE_POD);
	assert_role(p, "eth1", DEVICE_UPLINK);
	assert_true(warned(p, "configuration", "both match eth1"));
	assert_true(warned(p, "configuration", "no device no-such-device"));
	assert_null(find_device(p, "veth0"));
	assert_true(has_pair(&w, SET_PAIRS, "br7", "eth1") && has_pair(&w, SET_HAIRPINS, "br7", "br7"));
	assert_true(has_pair(&w, SET_HAIRPINS, "eth0", "eth1") && has_pair(&w, SET_HAIRPINS, "eth1", "eth0"));

	string_list_done(&w.config.uplinks);
	string_list_add(&w.config.uplinks, "eth9");
	p = make_plan(&w);
	assert_int_equal(find_device(p, "eth9")->state, DEVICE_MISSING);
	assert_false(in_flowtable(p, "eth9"));
	assert_true(warned(p, "Node n1", "no uplink"));
	assert_true(has_pair(&w, SET_HAIRPINS, "br7", "br7"));
	world_done(&w);
}

/* Calico's own blocks of addresses are none of the Node's podCIDRs: named, its devices work all the same. */
static void test_pods_outside_the_pod_cidr(void **state)
{
	struct world w;
	const struct plan *p;

	(void)state;
	world_new(&w);
	add_link(&w, "calia", "veth");
	add_route(&w, "10.250.7.65/32", NULL, "calia");
	p = make_plan(&w);
	assert_null(find_device(p, "calia"));
	assert_true(warned(p, "Node n1", "10.244.0.0/24; "));
	assert_true(warned(p, "Node n1", "name devices in interfaces.pods, like cali*"));
	string_list_add(&w.config.pods, "cali*");
	p = make_plan(&w);
	assert_role(p, "calia", DEVICE_POD);
	assert_true(has_pair(&w, SET_PAIRS, "calia", "eth0") && has_pair(&w, SET_PAIRS, "eth0", "calia"));
	assert_false(warned(p, "Node n1", "no pod-side device"));
	world_done(&w);
}

/* The index against facts_route_to(). */
static void test_route_index(void **state)
{
	struct world w;
	struct route_index ix;
	unsigned seed = 1, found = 0;

	(void)state;
	world_new(&w);
	add_link(&w, "eth1", "");
	for (int i = 0; i < 400; i++) {
		char text[PREFIX_TEXT_SIZE];
		struct route *r;

		seed = seed * 1103515245 + 12345;
		snprintf(text, sizeof(text), i % 3 ? "10.%u.%u.0/%u" : "fd00:%x:%x::/%u", seed >> 28,
			seed >> 16 & 3, 8 + (seed >> 20) % 20);
		r = add_route(&w, text, NULL, i % 2 ? "eth0" : "eth1");
		r->metric = seed >> 24 & 3;
		r->table = i % 7 ? RT_TABLE_MAIN : 100;
	}
	facts_sort(&w.facts);
	route_index_make(&w.facts, &ix);
	for (int i = 0; i < 2000; i++) {
		char text[ADDR_TEXT_SIZE];
		struct addr a;
		const struct route *expected;
		const struct route *const *r;
		size_t n;

		seed = seed * 1103515245 + 12345;
		snprintf(text, sizeof(text), i % 3 ? "10.%u.%u.7" : "fd00:%x:%x::7", seed >> 28,
			seed >> 16 & 3);
		a = address(text);
		expected = facts_route_to(&w.facts, &a);
		r = route_index_find(&ix, &a, &n);
		assert_int_equal(!expected, !r);
		if (!r)
			continue;
		found++;
		assert_true(n >= 1 && prefix_has(&r[0]->dst, &a));
		assert_int_equal(prefix_cmp(&r[0]->dst, &expected->dst), 0);
		assert_int_equal(r[0]->metric, expected->metric);
		for (size_t k = 1; k < n; k++)
			assert_true(r[k]->metric == r[0]->metric && !prefix_cmp(&r[k]->dst, &r[0]->dst));
	}
	assert_true(found > 1000);
	route_index_done(&ix);
	world_done(&w);
}

/* The flowtable is given a device again that was away. */
static void test_made_anew(void **state)
{
	struct world w;
	const struct plan *p;

	(void)state;
	world_new(&w);
	add_link(&w, "veth0", "veth")->generation = 7;
	add_route(&w, "10.244.0.2/32", NULL, "veth0");
	p = make_plan(&w);
	for (size_t i = 0; i < p->ruleset.n_devices; i++)
		assert_int_equal(p->ruleset.devices[i].generation,
			strcmp(p->ruleset.devices[i].name, "veth0") ? 0 : 7);
	assert_true(in_flowtable(p, "veth0"));
	world_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_pod_routes),
		cmocka_unit_test(test_made_anew),
		cmocka_unit_test(test_bridge),
		cmocka_unit_test(test_ways_to_peers),
		cmocka_unit_test(test_checked),
		cmocka_unit_test(test_masters),
		cmocka_unit_test(test_configured),
		cmocka_unit_test(test_pods_outside_the_pod_cidr),
		cmocka_unit_test(test_route_index),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
