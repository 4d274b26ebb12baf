/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What plans make of connections, Services that come and go, and large clusters. */
#include "datapath/conntrack.h"
#include "plan_world.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

/* A connection to 'dst':'port' that was translated to 'to' ("" for not at all). */
static enum traffic_type type_of(
	const struct plan *p, const char *src, const char *dst, uint16_t port, const char *to)
{
	struct flow f = {.protocol = IPPROTO_TCP, .original_sport = 40000, .original_dport = port};

	f.original_src = f.reply_dst = address(src);
	f.original_dst = f.reply_src = address(dst);
	f.reply_sport = port;
	f.reply_dport = 40000;
	if (*to) {
		f.reply_src = address(to);
		f.reply_sport = 8080;
		f.status |= FLOW_STATUS_DNAT;
	}
	return ruleset_classify(&p->ruleset, &f);
}

static void a_few_services(struct world *w)
{
	add_service(w, &(struct service_spec){"web", "10.96.0.1", .node_port = 30080});
	add_service(w, &(struct service_spec){"shop", "10.96.0.2", "203.0.113.1", "203.0.113.2", 30081});
}

static void test_kube_proxy(void **state)
{
	struct world w;
	const struct plan *p;

	(void)state;
	world_new(&w);
	a_few_services(&w);
	p = make_plan(&w);
	assert_int_equal(type_of(p, "10.244.0.5", "10.244.1.5", 80, ""), TYPE_POD_TO_POD);
	assert_int_equal(type_of(p, "10.244.1.5", "10.244.0.5", 80, ""), TYPE_POD_TO_POD);
	assert_int_equal(type_of(p, "10.244.0.5", "10.96.0.1", 80, "10.244.1.5"), TYPE_POD_TO_SERVICE);
	assert_int_equal(
		type_of(p, "198.51.100.1", "203.0.113.1", 80, "10.244.0.5"), TYPE_EXTERNAL_TO_LOADBALANCER);
	assert_int_equal(
		type_of(p, "198.51.100.1", "203.0.113.2", 80, "10.244.0.5"), TYPE_EXTERNAL_TO_EXTERNALIP);
	assert_int_equal(
		type_of(p, "198.51.100.1", "192.0.2.11", 30080, "10.244.0.5"), TYPE_EXTERNAL_TO_NODEPORT);
	assert_int_equal(
		type_of(p, "198.51.100.1", "192.0.2.11", 8443, "10.244.0.5"), TYPE_OTHER); /* hostPort */
	assert_int_equal(type_of(p, "192.0.2.12", "192.0.2.11", 8443, "10.244.0.5"), TYPE_OTHER);
	assert_int_equal(type_of(p, "10.244.0.5", "192.0.2.12", 8443, "10.244.1.5"), TYPE_OTHER);
	assert_int_equal(type_of(p, "192.0.2.12", "10.244.0.5", 80, ""), TYPE_NODE_TO_POD);
	assert_int_equal(type_of(p, "10.244.0.5", "198.51.100.1", 443, ""), TYPE_POD_TO_EXTERNAL);
	assert_int_equal(type_of(p, "10.244.0.5", "192.0.2.12", 22, ""), TYPE_OTHER);
	assert_int_equal(type_of(p, "10.244.0.5", "192.0.2.11", 22, ""), TYPE_OTHER);
	assert_int_equal(type_of(p, "198.51.100.1", "10.244.0.5", 80, ""), TYPE_OTHER);
	world_done(&w);
}

static void test_antrea(void **state)
{
	struct world w;
	const struct plan *p;

	(void)state;
	world_new(&w);
	a_few_services(&w);
	w.config.cluster = CLUSTER_ANTREA;
	p = make_plan(&w);
	assert_int_equal(type_of(p, "10.244.0.5", "10.244.1.5", 80, ""), TYPE_POD_TO_POD);
	assert_int_equal(type_of(p, "198.51.100.1", "203.0.113.1", 80, ""), TYPE_EXTERNAL_TO_LOADBALANCER);
	assert_int_equal(type_of(p, "198.51.100.1", "203.0.113.2", 80, ""), TYPE_EXTERNAL_TO_EXTERNALIP);
	assert_int_equal(
		type_of(p, "198.51.100.1", "192.0.2.11", 30080, "169.254.0.252"), TYPE_EXTERNAL_TO_NODEPORT);
	assert_int_equal(type_of(p, "169.254.0.253", "10.244.1.5", 80, ""), TYPE_EXTERNAL_TO_SERVICE);
	assert_int_equal(type_of(p, "192.0.2.12", "10.244.0.5", 80, ""), TYPE_NODE_TO_POD);
	assert_int_equal(type_of(p, "10.244.0.5", "198.51.100.1", 443, ""), TYPE_POD_TO_EXTERNAL);
	assert_string_equal(
		p->types[TYPE_POD_TO_SERVICE].reason, "counted as pod-to-pod: OVS does the Service NAT");
	world_done(&w);
}

static void count_chains(void *arg, enum ruleset_chain chain)
{
	(void)chain;
	++*(unsigned *)arg;
}

static unsigned chains_changed(const struct ruleset *from, const struct ruleset *to)
{
	unsigned n = 0;
	const struct ruleset_diff_ops ops = {.chain = count_chains, .arg = &n};

	ruleset_diff(from, to, &ops);
	return n;
}

/* Services and nodes that come and go touch elements alone; an exclusion is worth a rule. */
static void test_routine_changes_no_chain(void **state)
{
	struct world w;
	struct ruleset empty, full;

	(void)state;
	world_new(&w);
	ruleset_copy(&make_plan(&w)->ruleset, &empty);
	a_few_services(&w);
	add_node(&w, "n3", "10.244.3.0/24", "192.0.2.13");
	ruleset_copy(&make_plan(&w)->ruleset, &full);
	assert_int_equal(chains_changed(&empty, &full), 0);
	assert_false(ruleset_equal(&empty, &full));
	add_service(&w, &(struct service_spec){"tape", "10.96.0.3", .excluded = true});
	/* `managed`, and `forward` that leads to it from now on */
	assert_int_equal(chains_changed(&full, &make_plan(&w)->ruleset), 2);
	assert_int_equal(w.plan.ruleset.exclusions.n, 1);
	ruleset_done(&empty);
	ruleset_done(&full);
	world_done(&w);
}

static void test_engines(void **state)
{
	struct world w;
	const struct plan *p;

	(void)state;
	world_new(&w);
	w.facts.policy_rules = 1;
	w.config.engines[TYPE_OTHER] = ENGINE_REDIRECT; /* no file says so, a caller may */
	p = make_plan(&w);
	assert_int_equal(p->types[TYPE_POD_TO_EXTERNAL].engine, ENGINE_OFF);
	assert_true(p->ruleset.off[TYPE_POD_TO_EXTERNAL]);
	assert_string_equal(p->types[TYPE_POD_TO_EXTERNAL].reason,
		"auto: the node has 1 policy routing rule of its own (Egress)");
	assert_int_equal(p->types[TYPE_OTHER].engine, ENGINE_OFF);
	assert_true(p->ruleset.off[TYPE_OTHER]);
	w.config.engines[TYPE_POD_TO_EXTERNAL] = ENGINE_FLOWTABLE;
	w.config.engines[TYPE_EXTERNAL_TO_SERVICE] = ENGINE_OFF;
	p = make_plan(&w);
	assert_int_equal(p->types[TYPE_POD_TO_EXTERNAL].engine, ENGINE_FLOWTABLE);
	assert_false(p->ruleset.off[TYPE_POD_TO_EXTERNAL]);
	assert_false(p->ruleset.off[TYPE_EXTERNAL_TO_SERVICE]);
	assert_true(warned(p, "configuration", "traffic.external-to-service.engine: off has no effect"));
	w.config.enabled = false;
	p = make_plan(&w);
	assert_false(p->ruleset.present);
	for (int i = 0; i < TRAFFIC_TYPES; i++)
		assert_int_equal(p->types[i].engine, ENGINE_OFF);
	assert_string_equal(
		p->types[TYPE_POD_TO_POD].reason, "disabled in the configuration (enabled: false)");
	world_done(&w);
}

/* Excluded wins, whoever was first by name; warnings have an end, and are counted past it. */
static void test_shared_and_many(void **state)
{
	struct world w;
	const struct plan *p;

	(void)state;
	world_new(&w);
	add_service(&w, &(struct service_spec){"a", "10.96.0.1", "203.0.113.1"});
	add_service(&w, &(struct service_spec){"b", "10.96.0.2", "203.0.113.1", .excluded = true});
	add_service(&w, &(struct service_spec){"c", "10.96.0.3", "203.0.113.1"});
	p = make_plan(&w);
	assert_true(warned(p, "Service default/a", "belongs to an excluded Service"));
	assert_true(warned(p, "Service default/c", "belongs to an excluded Service"));
	assert_false(warned(p, "Service default/b", "excluded"));
	assert_int_equal(p->ruleset.sets[SET_EXCLUDED_IPS4].n, 2);

	for (int i = 0; i < 100; i++) {
		char name[16];

		snprintf(name, sizeof(name), "x%d", i);
		add_service(&w, &(struct service_spec){name, NULL, NULL, "10.96.0.1"});
	}
	p = make_plan(&w);
	assert_int_equal(p->n_warnings, PLAN_WARNINGS_MAX);
	assert_int_equal(p->warnings_total, 1 + 100 + 2);
	assert_int_equal(p->ruleset.sets[SET_EXTERNAL_IPS4].n, 0);
	world_done(&w);
}

/* Not asserted on time: the figure is printed. */
static void test_large_cluster(void **state)
{
	struct world w;
	const struct plan *p;
	struct timespec a, b;
	const int nodes = 5000, services = 10000;

	(void)state;
	world_new(&w);
	for (int i = 0; i < nodes; i++) {
		char name[16], pods[24], ip[20], gateway[20];

		snprintf(name, sizeof(name), "m%d", i);
		snprintf(pods, sizeof(pods), "100.%d.%d.0/24", i >> 8, i & 255);
		snprintf(ip, sizeof(ip), "172.16.%d.%d", i >> 8, i & 255);
		snprintf(gateway, sizeof(gateway), "172.16.%d.%d", i >> 8, i & 255);
		add_node(&w, name, pods, ip);
		add_route(&w, pods, gateway, "eth0");
	}
	for (int i = 0; i < 250; i++) {
		char name[16], pod[20];

		snprintf(name, sizeof(name), "veth%d", i);
		snprintf(pod, sizeof(pod), "10.244.0.%d/32", i);
		add_link(&w, name, "veth");
		add_route(&w, pod, NULL, name);
	}
	for (int i = 0; i < services; i++) {
		char name[16], ip[20], lb[20];

		snprintf(name, sizeof(name), "s%d", i * 7919 % services);
		snprintf(ip, sizeof(ip), "10.96.%d.%d", i >> 8, i & 255);
		snprintf(lb, sizeof(lb), "203.%d.%d.%d", i >> 16, i >> 8 & 255, i & 255);
		add_service(&w, &(struct service_spec){name, ip, i % 10 ? NULL : lb,
					.node_port = i % 4 ? 0 : 30000 + i % 2768});
	}
	make_plan(&w);
	clock_gettime(CLOCK_MONOTONIC, &a);
	p = make_plan(&w);
	clock_gettime(CLOCK_MONOTONIC, &b);
	print_message("plan of %d nodes, %d Services, 250 pods: %.1f ms\n", nodes, services,
		(double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6);
	assert_int_equal(p->ruleset.sets[SET_CLUSTER_IPS4].n, services);
	assert_int_equal(p->ruleset.sets[SET_REMOTE_PODS4].n, nodes + 1);
	assert_int_equal(p->ruleset.sets[SET_PAIRS].n, 500);
	assert_int_equal(p->ruleset.n_devices, 251);
	world_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kube_proxy),
		cmocka_unit_test(test_antrea),
		cmocka_unit_test(test_routine_changes_no_chain),
		cmocka_unit_test(test_engines),
		cmocka_unit_test(test_shared_and_many),
		cmocka_unit_test(test_large_cluster),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
