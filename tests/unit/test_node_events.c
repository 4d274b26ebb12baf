/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent_world.h"
#include "base/strbuf.h"
#include "controller/node_events.h"

#include <errno.h>
#include <inttypes.h>

/* What was told, one line each: "SECONDS TYPE REASON: NOTE", with seconds since the start of the test. */
struct told {
	struct node_events n;
	struct strbuf log;
	unsigned looks;
	uint64_t start;
};

/* As the loop does. */
static void watch(struct world *w, struct told *t, uint64_t us)
{
	uint64_t end = w->now + us;
	struct node_event e;
	int64_t wait, look;

	if (!t->start)
		t->start = w->now;
	for (;;) {
		wait = agent_wait(&w->agent);
		look = node_events_wait(&t->n, w->now);
		if (wait < 0 || (look >= 0 && look < wait))
			wait = look;
		if (wait < 0 || w->now + (uint64_t)wait > end)
			break;
		w->now += (uint64_t)wait;
		/* The agent verifies once a minute whether there are Events or not. */
		t->looks +=
			wait == look || !w->agent.due[AGENT_VERIFY] || w->agent.due[AGENT_VERIFY] > w->now;
		assert_true(t->looks < 100000);
		agent_step(&w->agent);
		if (!node_events_step(&t->n, &w->agent, w->now, &e))
			continue;
		assert_string_equal(e.action, "Accelerate");
		strbuf_printf(&t->log, "%" PRIu64 " %s %s: %s\n", (w->now - t->start) / SECOND,
			e.warning ? "Warning" : "Normal", e.reason, e.note);
	}
	w->now = end;
}

static void expect(struct told *t, const char *log)
{
	assert_string_equal(t->log.data ? t->log.data : "", log);
	strbuf_clear(&t->log);
}

#define ENABLED                                                                                              \
	"Normal AccelerationEnabled: connections are offloaded: cluster kind kube-proxy, 2 devices, 2 "      \
	"pairs\n"
#define RECOVERED                                                                                            \
	"Normal AccelerationRecovered: connections are offloaded: cluster kind kube-proxy, 2 devices, 2 "    \
	"pairs\n"

static void test_start(void **state)
{
	struct world *w = *state;
	struct told t = {0};

	watch(w, &t, 100ull * SECOND);
	expect(&t, "");
	finish_lists(w);
	watch(w, &t, 100ull * SECOND);
	expect(&t, "100 " ENABLED);
	t.looks = 0;
	watch(w, &t, 3600ull * SECOND);
	assert_int_equal(t.looks, 0);
	/* What changes and is as good as before is no news. */
	add_pod(w, 11, "veth2", "10.0.1.6/32");
	agent_note(&w->agent, AGENT_FACTS);
	watch(w, &t, 60ull * SECOND);
	expect(&t, "");
	strbuf_done(&t.log);
}

static void test_no_flowtable(void **state)
{
	struct world *w = *state;
	struct told t = {0};

	w->no_flowtable = true;
	finish_lists(w);
	watch(w, &t, 3600ull * SECOND);
	expect(&t,
		"10 Warning AccelerationDegraded: no flowtable in this test; every packet takes the normal "
		"path\n");
	w->no_flowtable = false; /* somebody loaded the module: seen within a minute */
	watch(w, &t, 60ull * SECOND);
	expect(&t, "3660 " RECOVERED);
	strbuf_done(&t.log);
}

static void test_refused_device(void **state)
{
	struct world *w = *state;
	struct told t = {0};

	memory_backend_refuse_device(w->backend, "veth1", -EOPNOTSUPP);
	finish_lists(w);
	watch(w, &t, 3600ull * SECOND);
	expect(&t, "10 Warning AccelerationDegraded: device veth1: refused by the kernel: Operation not "
		   "supported\n");
	memory_backend_refuse_device(w->backend, "veth1", 0);
	watch(w, &t, 3600ull * SECOND);
	assert_non_null(strstr(t.log.data, RECOVERED));
	assert_null(strstr(t.log.data, "Degraded"));
	strbuf_done(&t.log);
}

/* Refused for a moment, as a device is that goes while it is added. */
static void test_momentary(void **state)
{
	struct world *w = *state;
	struct told t = {0};

	finish_lists(w);
	watch(w, &t, SECOND);
	expect(&t, "0 " ENABLED);
	memory_backend_refuse_device(w->backend, "veth2", -ENOENT);
	add_pod(w, 11, "veth2", "10.0.1.6/32");
	agent_note(&w->agent, AGENT_FACTS);
	watch(w, &t, 4ull * SECOND);
	assert_int_equal(w->agent.plan->devices[2].state, DEVICE_FAILED);
	memory_backend_refuse_device(w->backend, "veth2", 0);
	watch(w, &t, 3600ull * SECOND);
	expect(&t, "");
	strbuf_done(&t.log);
}

static void test_failing(void **state)
{
	struct world *w = *state;
	struct told t = {0};

	finish_lists(w);
	watch(w, &t, SECOND);
	strbuf_clear(&t.log);
	w->refresh_error = -ENOBUFS;
	agent_note(&w->agent, AGENT_FACTS);
	watch(w, &t, 100ull * SECOND);
	expect(&t, "11 Warning AccelerationDegraded: rtnetlink: refused by the test\n");
	w->refresh_error = 0;
	watch(w, &t, 100ull * SECOND);
	assert_non_null(strstr(t.log.data, RECOVERED));
	strbuf_done(&t.log);
}

/* A further cause is told, one that goes is not, the end of all is. */
static void test_causes(void **state)
{
	struct world *w = *state;
	struct told t = {0};

	w->facts.policy_rules = 2;
	finish_lists(w);
	watch(w, &t, 60ull * SECOND);
	expect(&t,
		"10 Warning AccelerationDegraded: pod-to-external: off, auto: the node has 2 policy routing "
		"rules of its own (Egress)\n");
	memory_backend_refuse_device(w->backend, "eth0", -EOPNOTSUPP);
	memory_backend_drop_table(w->backend);
	agent_touched(&w->agent, "nft 7");
	watch(w, &t, 60ull * SECOND);
	expect(&t, "70 Warning AccelerationDegraded: device eth0: refused by the kernel: Operation not "
		   "supported; pod-to-external: off, auto: the node has 2 policy routing rules of its own "
		   "(Egress)\n");
	w->facts.policy_rules = 0;
	agent_note(&w->agent, AGENT_FACTS);
	watch(w, &t, 60ull * SECOND);
	expect(&t, "");
	memory_backend_refuse_device(w->backend, "eth0", 0);
	watch(w, &t, 120ull * SECOND);
	assert_non_null(strstr(t.log.data, RECOVERED));
	/* Off by choice is not degraded. */
	strbuf_clear(&t.log);
	w->agent.config.engines[TYPE_POD_TO_EXTERNAL] = ENGINE_OFF;
	agent_note(&w->agent, AGENT_CONFIG);
	watch(w, &t, 60ull * SECOND);
	expect(&t, "");
	strbuf_done(&t.log);
}

static void test_types_behind_antrea(void **state)
{
	struct world *w = *state;
	struct told t = {0};

	w->agent.config.cluster = CLUSTER_ANTREA;
	w->agent.config.engines[TYPE_POD_TO_POD] = ENGINE_OFF;
	w->facts.notrack = true;
	finish_lists(w);
	watch(w, &t, 60ull * SECOND);
	assert_non_null(strstr(t.log.data,
		"Warning AccelerationDegraded: external-to-loadbalancer, external-to-externalip: off, Antrea "
		"exempts"));
	assert_null(strstr(t.log.data, "pod-to"));
	strbuf_done(&t.log);
}

static void test_no_pod_cidrs(void **state)
{
	struct world *w = *state;
	struct told t = {0};
	struct node n = {.name = xstrdup("n1")};

	finish_lists(w);
	cluster_put_node(w->cluster, &n);
	watch(w, &t, 60ull * SECOND);
	expect(&t, "10 Warning AccelerationDegraded: the Node has no spec.podCIDRs: set "
		   "cluster.localPodCIDRs\n");
	put_node(w, "n1", "10.0.1.0/24", "192.168.0.1");
	agent_note(&w->agent, AGENT_CLUSTER);
	watch(w, &t, 60ull * SECOND);
	expect(&t, "60 " RECOVERED);
	strbuf_done(&t.log);
}

static void test_disabled(void **state)
{
	struct world *w = *state;
	struct told t = {0};

	finish_lists(w);
	watch(w, &t, 60ull * SECOND);
	expect(&t, "0 " ENABLED);
	w->agent.config.enabled = false;
	agent_note(&w->agent, AGENT_CONFIG);
	watch(w, &t, 60ull * SECOND);
	expect(&t, "60 Normal AccelerationDisabled: disabled in the configuration (enabled: false)\n");
	w->agent.config.enabled = true;
	agent_note(&w->agent, AGENT_CONFIG);
	watch(w, &t, 60ull * SECOND);
	expect(&t, "120 " ENABLED);
	strbuf_done(&t.log);
}

static void test_in_the_way(void **state)
{
	struct world *w = *state;
	struct told t = {0};

	finish_lists(w);
	watch(w, &t, SECOND);
	expect(&t, "0 " ENABLED);
	memory_backend_drop_table(w->backend);
	agent_touched(&w->agent, "");
	for (int i = 0; i < 40; i++) {
		memory_backend_fail_next(w->backend, -EEXIST, "set local-pods4");
		watch(w, &t, 500ull * MS);
	}
	assert_non_null(strstr(t.log.data, "Warning CoexistenceConflict: set local-pods4"));
	assert_null(strstr(t.log.data, "Degraded"));
	watch(w, &t, 100ull * SECOND);
	assert_non_null(strstr(t.log.data, RECOVERED));
	strbuf_done(&t.log);
}

static void tamper(struct world *w)
{
	memory_backend_drop_table(w->backend);
	agent_touched(&w->agent, "firewalld 41");
}

static void test_fight(void **state)
{
	struct world *w = *state;
	struct told t = {0};

	finish_lists(w);
	watch(w, &t, SECOND);
	strbuf_clear(&t.log);
	/* An operator who flushes the ruleset is no conflict. */
	tamper(w);
	watch(w, &t, 1000ull * SECOND);
	expect(&t, "");
	for (int i = 0; i < 60; i++) {
		tamper(w);
		watch(w, &t, 60ull * SECOND);
	}
	expect(&t, "1131 Warning CoexistenceConflict: table inet slipstream is changed again and again by "
		   "firewalld 41, and repaired\n");
	watch(w, &t, 500ull * SECOND);
	expect(&t, "");
	t.looks = 0;
	watch(w, &t, 3600ull * SECOND);
	expect(&t, "5141 " RECOVERED);
	assert_int_equal(t.looks, 1);
	strbuf_done(&t.log);
}

/* The two pure cores together: a condition that comes and goes, in other words each time. */
static void test_flapping(void **state)
{
	struct event_queue *queue = event_queue_new("n1");
	struct world *w = *state;
	struct told t = {0};
	struct event_request r;
	struct node_event e;
	unsigned requests = 0, told = 0;

	finish_lists(w);
	for (unsigned second = 0; second < 3600; second++) {
		struct event_time at = {w->now / 1000, w->now};

		if (second % 30 == 0) {
			w->facts.policy_rules = second / 30 % 2 ? second : 0;
			agent_note(&w->agent, AGENT_FACTS);
		}
		run(w, SECOND);
		if (node_events_step(&t.n, &w->agent, w->now, &e)) {
			event_queue_add(queue, &e, at);
			told++;
		}
		while (event_queue_next(queue, at, &r)) {
			requests++;
			event_request_done(&r);
			event_queue_answer(queue, r.patch ? 200 : 201, at, 0);
		}
	}
	assert_int_equal(told, 120);
	/* The recovered ones are one series; the others 25 at once and one per 5 min. */
	assert_in_range(requests, 30, 25 + 12);
	event_queue_free(queue);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_flowtable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused_device, setup, teardown),
		cmocka_unit_test_setup_teardown(test_momentary, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_causes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_types_behind_antrea, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_pod_cidrs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disabled, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in_the_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fight, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flapping, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
