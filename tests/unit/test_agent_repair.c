/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent_world.h"

#include <errno.h>

/* What somebody else changed: found, put right once, counted by kind with the name of who did it. */

static const struct set_element stray = {.key = {10, 9, 9, 9}};

static void tamper(struct world *w, const char *who)
{
	memory_backend_tamper_element(w->backend, SET_CLUSTER_IPS4, &stray, true);
	agent_touched(&w->agent, who);
}

static void assert_as_planned(struct world *w)
{
	agent_refresh(&w->agent);
	assert_true(memory_backend_equals(w->backend, &w->agent.plan->ruleset));
}

/* 'kinds' is a mask of 1 << enum repair_kind, of one repair each. */
static void assert_repaired(struct world *w, unsigned repairs, unsigned kinds)
{
	const struct agent_figures *f = &w->agent.figures;

	assert_as_planned(w);
	assert_int_equal(f->repairs, repairs);
	for (unsigned i = 0; i < REPAIR_KINDS; i++)
		assert_int_equal(f->repaired[i], kinds >> i & 1);
}

static void test_kinds(void **state)
{
	struct world *w = *state;

	memory_backend_drop_table(w->backend);
	agent_touched(&w->agent, "nft (pid 7)");
	run(w, SECOND);
	assert_repaired(w, 1, 1u << REPAIR_TABLE); /* and not what was in it */
	assert_string_equal(w->agent.figures.last_actor, "nft (pid 7)");
	tamper(w, "nft (pid 8)");
	run(w, SECOND);
	assert_repaired(w, 2, 1u << REPAIR_TABLE | 1u << REPAIR_ELEMENT);
	memory_backend_flush_chain(w->backend, CHAIN_CLASSIFY);
	memory_backend_drop_device(w->backend, "veth1");
	agent_touched(&w->agent, "");
	run(w, SECOND);
	assert_repaired(
		w, 3, 1u << REPAIR_TABLE | 1u << REPAIR_ELEMENT | 1u << REPAIR_CHAIN | 1u << REPAIR_DEVICE);
	assert_string_equal(w->agent.figures.last_actor, "");
}

/* The rest of them, one edit each. */
static void test_kinds_of_objects(void **state)
{
	static const struct {
		enum memory_edit edit;
		unsigned which;
		unsigned kinds;
	} edits[] = {
		{MEMORY_DROP_FLOWTABLE, 0, 1u << REPAIR_FLOWTABLE | 1u << REPAIR_CHAIN},
		{MEMORY_DROP_COUNTER, TYPE_OTHER, 1u << REPAIR_COUNTER | 1u << REPAIR_CHAIN},
		{MEMORY_DROP_SET, SET_PAIRS, 1u << REPAIR_SET | 1u << REPAIR_CHAIN},
		{MEMORY_DROP_CHAIN, CHAIN_MANAGED, 1u << REPAIR_CHAIN},
		{MEMORY_EDIT_RULE, CHAIN_FORWARD, 1u << REPAIR_CHAIN},
		{MEMORY_ADD_STRAY, 0, 1u << REPAIR_FOREIGN},
	};
	struct world *w = *state;
	uint64_t before[REPAIR_KINDS];

	for (size_t i = 0; i < ARRAY_SIZE(edits); i++) {
		memcpy(before, w->agent.figures.repaired, sizeof(before));
		memory_backend_edit(w->backend, edits[i].edit, edits[i].which);
		agent_touched(&w->agent, "nft (pid 7)");
		run(w, SECOND);
		assert_as_planned(w);
		assert_int_equal(w->agent.figures.repairs, i + 1);
		for (unsigned k = 0; k < REPAIR_KINDS; k++)
			assert_int_equal(w->agent.figures.repaired[k] - before[k], edits[i].kinds >> k & 1);
	}
}

static void test_undone_by_itself(void **state)
{
	struct world *w = *state;
	uint64_t messages = w->agent.figures.messages;

	tamper(w, "nft (pid 7)");
	memory_backend_tamper_element(w->backend, SET_CLUSTER_IPS4, &stray, false);
	run(w, SECOND);
	assert_repaired(w, 0, 0);
	assert_int_equal(w->agent.figures.messages, messages);
	assert_int_equal(memory_backend_observations(w->backend), 2);
}

static void test_two_actors(void **state)
{
	struct world *w = *state;

	tamper(w, "nft (pid 7)");
	agent_touched(&w->agent, "ufw (pid 9)");
	agent_touched(&w->agent, "nft (pid 7)");
	run(w, SECOND);
	assert_repaired(w, 1, 1u << REPAIR_ELEMENT);
	assert_string_equal(w->agent.figures.last_actor, "nft (pid 7), ufw (pid 9)");
	/* The next one is another story. */
	tamper(w, "cat (pid 1)");
	run(w, SECOND);
	assert_string_equal(w->agent.figures.last_actor, "cat (pid 1)");
}

static void test_many_actors(void **state)
{
	char list[ACTORS_SIZE] = "", who[40];

	(void)state;
	for (int i = 0; i < 100; i++) {
		snprintf(who, sizeof(who), "program-%d (pid %d)", i, i);
		actors_add(list, who);
	}
	actors_add(list, "");
	assert_non_null(strstr(list, "program-0 (pid 0), program-1 (pid 1), "));
	assert_string_equal(list + strlen(list) - 8, ", others");
}

/* What the plan changed in the same moment is no repair. */
static void test_own_changes_do_not_count(void **state)
{
	struct world *w = *state;

	put_service(w, "web", "10.96.0.7");
	agent_note(&w->agent, AGENT_CLUSTER);
	agent_touched(&w->agent, "nft (pid 7)");
	run(w, SECOND);
	assert_repaired(w, 0, 0);

	put_service(w, "api", "10.96.0.8");
	agent_note(&w->agent, AGENT_CLUSTER);
	tamper(w, "nft (pid 7)");
	run(w, SECOND);
	assert_repaired(w, 1, 1u << REPAIR_ELEMENT);

	/* Nor is what a failed transaction held. */
	memory_backend_fail_next(w->backend, -EBUSY, "set cluster-ips4");
	put_service(w, "web", "10.96.0.9");
	agent_note(&w->agent, AGENT_CLUSTER);
	run(w, 500 * MS);
	assert_int_equal(w->agent.figures.syncs[SYNC_FAILED], 1);
	agent_touched(&w->agent, "nft (pid 7)");
	run(w, 5 * SECOND);
	assert_repaired(w, 1, 1u << REPAIR_ELEMENT);
}

/* A device that the kernel refuses is tried again by every look, and is nobody's doing. */
static void test_refused_devices_do_not_count(void **state)
{
	struct world *w = *state;

	memory_backend_refuse_device(w->backend, "veth2", -EOPNOTSUPP);
	add_pod(w, 11, "veth2", "10.0.1.6/32");
	agent_note(&w->agent, AGENT_FACTS);
	run(w, SECOND);
	for (int i = 0; i < 3; i++) {
		agent_touched(&w->agent, "nft (pid 7)");
		run(w, SECOND);
	}
	memory_backend_refuse_device(w->backend, "veth2", 0);
	agent_touched(&w->agent, "nft (pid 7)");
	run(w, SECOND);
	assert_int_equal(memory_backend_ruleset(w->backend)->n_devices, 3);
	assert_repaired(w, 0, 0);
}

/* A change that builds on what is gone: all of it is put back, in the same step, before anybody told of it. */
static void test_gone_before_it_was_told(void **state)
{
	struct world *w = *state;

	memory_backend_drop_table(w->backend);
	put_service(w, "web", "10.96.0.7");
	agent_note(&w->agent, AGENT_CLUSTER);
	assert_int_equal(run(w, SECOND), 1);
	assert_repaired(w, 1, 1u << REPAIR_TABLE);
	assert_string_equal(w->agent.figures.last_actor, "");
	/* Then it is told, and nothing differs. */
	agent_touched(&w->agent, "nft (pid 7)");
	run(w, SECOND);
	assert_repaired(w, 1, 1u << REPAIR_TABLE);
	assert_string_equal(w->agent.figures.last_actor, "nft (pid 7)");
}

/* Somebody flushes every 100 ms: each is repaired within a second, no two within 500 ms, and it does not end. */
static void test_storm(void **state)
{
	struct world *w = *state;
	uint64_t gone = 0, longest = 0;

	for (int i = 0; i < 36000; i++) {
		if (i % 10 == 0) {
			gone = memory_backend_ruleset(w->backend)->present ? w->now : gone;
			memory_backend_drop_table(w->backend);
			agent_touched(&w->agent, "other (pid 1)");
		}
		run(w, 10 * MS);
		if (!memory_backend_ruleset(w->backend)->present && w->now - gone > longest)
			longest = w->now - gone;
	}
	assert_in_range(w->agent.figures.repairs, 500, 720);
	assert_true(longest <= 500 * MS);
	assert_in_range(w->agent.repairs_said, 1, 10);
	run(w, SECOND);
	assert_as_planned(w);
}

/* A change of which nobody was told is found within a minute. */
static void test_verification(void **state)
{
	struct world *w = *state;

	memory_backend_tamper_element(w->backend, SET_CLUSTER_IPS4, &stray, true);
	run(w, 50ull * SECOND);
	assert_int_equal(w->agent.figures.repairs, 0);
	run(w, 10ull * SECOND);
	assert_repaired(w, 1, 1u << REPAIR_ELEMENT);
	assert_string_equal(w->agent.figures.last_actor, "");
	/* The next one comes a minute after any look. */
	agent_touched(&w->agent, "nft (pid 7)");
	run(w, SECOND);
	assert_in_range(agent_wait(&w->agent), 55ull * SECOND, 60ull * SECOND);
	assert_idle(w);
}

/* A plan that needs no table has nothing to verify, and one that fails is a failure like any other. */
static void test_verification_fails(void **state)
{
	struct world *w = *state;

	memory_backend_drop_table(w->backend);
	memory_backend_fail_next(w->backend, -EPERM, "table inet slipstream");
	run(w, 60ull * SECOND);
	assert_int_equal(w->agent.figures.failures[SYNC_FAILURE_PERMISSION], 1);
	run(w, 2 * SECOND);
	assert_repaired(w, 1, 1u << REPAIR_TABLE);
	w->agent.config.enabled = false;
	agent_note(&w->agent, AGENT_CONFIG);
	run(w, SECOND);
	assert_false(memory_backend_ruleset(w->backend)->present);
	run(w, 60ull * SECOND);
	assert_int_equal(agent_wait(&w->agent), -1);
}

static int refuse_all(void *arg, enum memory_point at, const char *object)
{
	(void)object;
	return at == MEMORY_COMMIT ? *(int *)arg : 0;
}

static void fail_for_a_while(struct world *w, int *code)
{
	memory_backend_on_fault(w->backend, refuse_all, code);
	put_service(w, "web", "10.96.0.7");
	agent_note(&w->agent, AGENT_CLUSTER);
	run(w, 40ull * SECOND);
	assert_int_equal(w->agent.figures.syncs[SYNC_FAILED], 6); /* at 0, 1, 3, 7, 15, 31 s */
	assert_in_range(agent_wait(&w->agent), 20ull * SECOND, 24ull * SECOND);
}

/* Until its time a sync that failed is not tried for what has nothing to do with it. */
static void test_backoff_is_kept(void **state)
{
	struct world *w = *state;
	int code = -EPERM;
	uint64_t failed;

	fail_for_a_while(w, &code);
	failed = w->agent.figures.syncs[SYNC_FAILED];
	for (int i = 0; i < 100; i++) {
		put_node(w, "n2", "10.0.2.0/24", "192.168.0.2"); /* a heartbeat */
		agent_note(&w->agent, AGENT_CLUSTER);
		agent_note(&w->agent, AGENT_FACTS);
		run(w, 100 * MS);
	}
	assert_int_equal(w->agent.figures.syncs[SYNC_FAILED], failed);
	/* Services that come and go are, once a second. */
	for (int i = 0; i < 50; i++) {
		put_service(w, "web", i % 2 ? "10.96.0.7" : "10.96.0.8");
		agent_note(&w->agent, AGENT_CLUSTER);
		run(w, 100 * MS);
	}
	assert_in_range(w->agent.figures.syncs[SYNC_FAILED] - failed, 4, 6);
	memory_backend_on_fault(w->backend, NULL, NULL);
	run(w, 61ull * SECOND);
	assert_as_planned(w);
	assert_idle(w);
}

/* At once: what an operator does against it. */
static void test_backoff_ends_early(void **state)
{
	struct world *w = *state;
	int code = -EEXIST;

	fail_for_a_while(w, &code);
	memory_backend_on_fault(w->backend, NULL, NULL);
	agent_touched(&w->agent, "nft (pid 7)");
	run(w, 100 * MS);
	assert_as_planned(w);
	memory_backend_drop_table(w->backend);
	agent_touched(&w->agent, "nft (pid 7)");
	w->agent.figures.syncs[SYNC_FAILED] = 0;
	fail_for_a_while(w, &code);
	memory_backend_on_fault(w->backend, NULL, NULL);
	agent_note(&w->agent, AGENT_CONFIG);
	run(w, 100 * MS);
	assert_as_planned(w);
}

/* Another agent has the node: this one follows, sends nothing, is ready for the rollout, and takes over without a message. */
static void test_waiting(void **state)
{
	struct world *w = *state;
	struct sync_result r;

	agent_set_waiting(&w->agent, true);
	assert_false(agent_does_its_work(&w->agent));
	finish_lists(w);
	run(w, SECOND);
	assert_true(agent_does_its_work(&w->agent));
	assert_false(w->agent.ready);
	put_service(w, "web", "10.96.0.7");
	agent_note(&w->agent, AGENT_CLUSTER);
	agent_touched(&w->agent, "slipstream (pid 7)");
	run(w, 100ull * SECOND);
	assert_int_equal(memory_backend_observations(w->backend), 0);
	/* What the other one programs. */
	agent_refresh(&w->agent);
	assert_int_equal(backend_sync(w->backend, &w->agent.plan->ruleset, &r, NULL), 0);
	sync_result_done(&r);
	agent_touched(&w->agent, "slipstream (pid 7)");
	run(w, SECOND);
	agent_set_waiting(&w->agent, false);
	run(w, SECOND);
	assert_true(w->agent.ready);
	assert_int_equal(w->agent.figures.messages, 0);
	assert_int_equal(w->agent.figures.syncs[SYNC_UNCHANGED], 1);
	assert_repaired(w, 0, 0);
	put_service(w, "web", "10.96.0.8");
	agent_note(&w->agent, AGENT_CLUSTER);
	run(w, SECOND);
	assert_as_planned(w);
	assert_idle(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kinds, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_kinds_of_objects, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_undone_by_itself, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_two_actors, setup_synced, teardown),
		cmocka_unit_test(test_many_actors),
		cmocka_unit_test_setup_teardown(test_own_changes_do_not_count, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_refused_devices_do_not_count, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_gone_before_it_was_told, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_storm, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_waiting, setup, teardown),
		cmocka_unit_test_setup_teardown(test_verification, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_verification_fails, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_backoff_is_kept, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_backoff_ends_early, setup_synced, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
