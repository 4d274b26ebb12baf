/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The planner that is kept current against one that is made anew, after every one of many random changes: both plans are
 * the same text, and a backend that was only told the differences holds the ruleset.
 */
#include "base/mem.h"
#include "controller/planner.h"
#include "datapath/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan_text.h"
#include "plan_world.h"

#define SEEDS 40
#define STEPS 250

struct run {
	struct world w;
	struct planner *planner;
	struct backend *backend;
	struct ruleset_delta delta;
	uint64_t random;
	unsigned step;
	unsigned unknown; /* updates that said nothing */
};

/* splitmix64 */
static unsigned draw(struct run *r, unsigned n)
{
	uint64_t z = r->random += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (unsigned)((z ^ z >> 31) % n);
}

/* Of few, so that Services share them, and some are pods' or ClusterIPs. */
static struct addr draw_addr(struct run *r)
{
	static const char *const pool[] = {"10.96.0.1", "10.96.0.2", "10.96.0.3", "203.0.113.1",
		"203.0.113.2", "10.244.0.7", "10.244.1.7", "10.244.2.7", "fd96::1", "fd96::2", "2001:db8::1",
		"fd00:1::7"};

	return address(pool[draw(r, ARRAY_SIZE(pool))]);
}

static struct addr *draw_addrs(struct run *r, size_t *n)
{
	struct addr *list = NULL;
	size_t cap = 0;

	for (unsigned i = draw(r, 3); i; i--)
		*VEC_ADD(list, *n, cap) = draw_addr(r);
	return list;
}

static char *draw_name(struct run *r)
{
	return xasprintf("s%u", draw(r, 6));
}

static void change_service(struct run *r)
{
	struct service s = {.namespace = xstrdup(draw(r, 2) ? "a" : "b"), .name = draw_name(r)};
	size_t cap = 0;

	if (!draw(r, 3)) {
		cluster_delete(r->w.cluster, OBJECT_SERVICE, s.namespace, s.name);
		service_done(&s);
		return;
	}
	s.cluster_ips = draw_addrs(r, &s.n_cluster_ips);
	s.load_balancer_ips = draw_addrs(r, &s.n_load_balancer_ips);
	s.external_ips = draw_addrs(r, &s.n_external_ips);
	for (unsigned i = draw(r, 3); i; i--)
		*VEC_ADD(s.ports, s.n_ports, cap) = (struct service_port){
			draw(r, 2) ? PROTOCOL_TCP : PROTOCOL_UDP, 80, (uint16_t)(30000 + draw(r, 4))};
	s.excluded = !draw(r, 4);
	cluster_put_service(r->w.cluster, &s);
}

static void change_node(struct run *r)
{
	CLEANUP_FREE char *name = xasprintf("n%u", draw(r, 4));
	CLEANUP_FREE char *pods = xasprintf("10.244.%u.0/24", draw(r, 4));
	CLEANUP_FREE char *node = xasprintf("192.0.2.%u", 11 + draw(r, 4));

	if (!draw(r, 4))
		cluster_delete(r->w.cluster, OBJECT_NODE, "", name);
	else
		add_node(&r->w, name, draw(r, 8) ? pods : NULL, node);
}

static void change_slice(struct run *r)
{
	struct endpoint_slice s = {.namespace = xstrdup("a"), .name = draw_name(r), .service = draw_name(r)};
	size_t cap = 0;

	*VEC_ADD(s.endpoints, s.n_endpoints, cap) =
		(struct endpoint){.addr = draw_addr(r), .ready = draw(r, 2)};
	cluster_put_endpoint_slice(r->w.cluster, &s);
}

static void note(struct run *r)
{
	facts_sort(&r->w.facts);
	planner_note(r->planner, &r->w.facts, &r->w.config);
}

static void change_facts(struct run *r)
{
	CLEANUP_FREE char *name = xasprintf("veth%u", r->step);
	CLEANUP_FREE char *pod = xasprintf("10.244.%u.%u/32", draw(r, 3), draw(r, 200));

	if (draw(r, 3)) {
		add_link(&r->w, name, "veth")->ifindex = 100 + r->step;
		facts_sort(&r->w.facts);
		add_route(&r->w, pod, NULL, name);
	} else if (r->w.facts.n_routes > 2) {
		unsigned gone = draw(r, (unsigned)r->w.facts.n_routes);

		r->w.facts.routes[gone] = r->w.facts.routes[--r->w.facts.n_routes];
	}
	r->w.facts.features.flowtable = draw(r, 10) > 0;
	note(r);
}

static void change_config(struct run *r)
{
	struct config *c = &r->w.config;

	c->enabled = draw(r, 10) > 0;
	c->engines[draw(r, TRAFFIC_TYPES)] = draw(r, 3) ? ENGINE_AUTO : ENGINE_OFF;
	c->cluster = draw(r, 5) ? CLUSTER_KUBE_PROXY : CLUSTER_ANTREA;
	c->exclude_cidrs.n = 0;
	for (unsigned i = draw(r, 3); i; i--)
		*VEC_ADD(c->exclude_cidrs.items, c->exclude_cidrs.n, c->exclude_cidrs.cap) =
			cidr(draw(r, 2) ? "192.0.2.0/24" : "2001:db8::/32");
	note(r);
}

static void change(struct run *r)
{
	unsigned what = draw(r, 100);

	if (what < 70)
		change_service(r);
	else if (what < 80)
		change_slice(r);
	else if (what < 88)
		change_node(r);
	else if (what < 96)
		change_facts(r);
	else
		change_config(r);
}

static void check(struct run *r, unsigned seed)
{
	const struct plan_input in = {r->w.cluster, &r->w.facts, &r->w.config, "n1"};
	CLEANUP_FREE char *kept = NULL;
	CLEANUP_FREE char *fresh = NULL;

	plan_done(&r->w.plan);
	plan_make(&in, &r->w.plan);
	planner_refresh(r->planner);
	kept = plan_text(planner_plan(r->planner));
	fresh = plan_text(&r->w.plan);
	if (strcmp(kept, fresh) != 0)
		fail_msg("seed %u step %u: kept\n%s\nmade anew\n%s", seed, r->step, kept, fresh);
	if (!memory_backend_equals(r->backend, &r->w.plan.ruleset))
		fail_msg("seed %u step %u: the backend does not hold\n%s", seed, r->step, fresh);
	for (int i = 0; i < RULESET_SETS; i++)
		assert_int_equal(planner_set_size(r->planner, i), r->w.plan.ruleset.sets[i].n);
}

static void update(struct run *r)
{
	struct sync_result result;
	struct error err = {0};
	int code;

	planner_update(r->planner, &r->delta);
	code = backend_apply(r->backend, &planner_plan(r->planner)->ruleset, &r->delta, &result, &err);
	if (code == -ESTALE && r->delta.unknown) {
		r->unknown++;
		planner_refresh(r->planner);
		code = backend_sync(r->backend, &planner_plan(r->planner)->ruleset, &result, &err);
	} else {
		assert_int_equal(ruleset_delta_empty(&r->delta), !result.messages);
	}
	if (code)
		fail_msg("step %u: %s", r->step, error_text(&err));
	sync_result_done(&result);
}

static void start(struct run *r, unsigned seed)
{
	struct cluster_observer observer;

	*r = (struct run){.random = seed};
	world_new(&r->w);
	for (unsigned i = draw(r, 10); i; i--)
		change_service(r);
	cluster_relist_begin(r->w.cluster, OBJECT_ENDPOINT_SLICE);
	cluster_relist_end(r->w.cluster, OBJECT_ENDPOINT_SLICE);
	r->planner = planner_new(r->w.cluster, "n1");
	observer = planner_observer(r->planner);
	cluster_observe(r->w.cluster, &observer);
	r->backend = memory_backend_new();
	note(r);
}

static void finish(struct run *r)
{
	cluster_unobserve(r->w.cluster, r->planner);
	planner_free(r->planner);
	backend_free(r->backend);
	ruleset_delta_done(&r->delta);
	world_done(&r->w);
}

static void test_kept_is_made_anew(void **state)
{
	unsigned unknown = 0;

	(void)state;
	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		struct run r;

		start(&r, seed);
		for (r.step = 0; r.step < STEPS; r.step++) {
			for (unsigned i = 1 + draw(&r, 3); i; i--)
				change(&r);
			update(&r);
			check(&r, seed);
		}
		unknown += r.unknown;
		finish(&r);
	}
	/* Only the first one, and what turns acceleration on and off, may be looked at as a whole. */
	assert_true(unknown < SEEDS * STEPS / 4);
}

/* A relist that holds the same says nothing; one that lacks a Service says that. */
static void test_relist(void **state)
{
	struct service_spec one = {.name = "one", .cluster_ip = "10.96.0.1"};
	struct service_spec two = {.name = "two", .cluster_ip = "10.96.0.2"};
	struct run r;

	(void)state;
	start(&r, 1);
	add_service(&r.w, &one);
	add_service(&r.w, &two);
	update(&r);
	cluster_relist_begin(r.w.cluster, OBJECT_SERVICE);
	add_service(&r.w, &one);
	add_service(&r.w, &two);
	cluster_relist_end(r.w.cluster, OBJECT_SERVICE);
	update(&r);
	cluster_relist_begin(r.w.cluster, OBJECT_SERVICE);
	add_service(&r.w, &one);
	cluster_relist_end(r.w.cluster, OBJECT_SERVICE);
	planner_update(r.planner, &r.delta);
	assert_int_equal(r.delta.remove[SET_CLUSTER_IPS4].n, 1);
	assert_int_equal(r.delta.remove[SET_CLUSTER_IPS4].items[0].key[3], 2);
	assert_int_equal(r.delta.add[SET_CLUSTER_IPS4].n, 0);
	finish(&r);
}

/* The first list of EndpointSlices ends without one: nothing that is kept changed, and there is something to warn of. */
static void test_slices_listed(void **state)
{
	struct service_spec one = {.name = "one", .cluster_ip = "10.96.0.1"};
	struct ruleset_delta delta = {0};
	struct planner *p;
	struct world w;
	size_t before;

	(void)state;
	world_new(&w);
	add_service(&w, &one);
	p = planner_new(w.cluster, "n1");
	planner_note(p, &w.facts, &w.config);
	planner_update(p, &delta);
	planner_refresh(p);
	before = planner_plan(p)->n_warnings;
	cluster_relist_begin(w.cluster, OBJECT_ENDPOINT_SLICE);
	cluster_relist_end(w.cluster, OBJECT_ENDPOINT_SLICE);
	planner_refresh(p);
	assert_int_equal(planner_plan(p)->n_warnings, before + 1);
	planner_free(p);
	ruleset_delta_done(&delta);
	world_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kept_is_made_anew),
		cmocka_unit_test(test_relist),
		cmocka_unit_test(test_slices_listed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
