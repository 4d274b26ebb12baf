/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent_world.h"
#include "controller/config_file.h"
#include "controller/flow_totals.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_nothing_before_synced(void **state)
{
	struct world *w = *state;

	run(w, SECOND);
	assert_int_equal(w->refreshes, 1);
	for (int kind = 0; kind <= OBJECT_SERVICE; kind++) {
		assert_int_equal(memory_backend_observations(w->backend), 0);
		assert_false(w->agent.ready);
		cluster_relist_begin(w->cluster, kind);
		cluster_relist_end(w->cluster, kind);
		agent_note(&w->agent, AGENT_CLUSTER);
		run(w, SECOND);
	}
	/* EndpointSlices are in no ruleset: without the right to read them the rest works. */
	assert_false(cluster_synced(w->cluster, OBJECT_ENDPOINT_SLICE));
	assert_true(w->agent.ready);
	assert_int_equal(memory_backend_observations(w->backend), 1);
}

/* `enabled: false` does not wait for an API server, which may be why it is set. */
static void test_disabled_before_synced(void **state)
{
	struct world *w = *state;
	struct ruleset earlier = {.present = true};
	struct sync_result result;

	assert_int_equal(backend_sync(w->backend, &earlier, &result, NULL), 0);
	sync_result_done(&result);
	backend_forget(w->backend);
	run(w, SECOND);
	assert_true(memory_backend_ruleset(w->backend)->present);
	w->agent.config.enabled = false;
	agent_note(&w->agent, AGENT_CONFIG);
	run(w, SECOND);
	assert_false(memory_backend_ruleset(w->backend)->present);

	/* And nothing is programmed for the time before the lists are there. */
	w->agent.config.enabled = true;
	agent_note(&w->agent, AGENT_CONFIG);
	run(w, SECOND);
	assert_false(memory_backend_ruleset(w->backend)->present);
	finish_lists(w);
	run(w, SECOND);
	assert_true(memory_backend_ruleset(w->backend)->present);
}

static void test_idle_is_silent(void **state)
{
	struct world *w = *state;

	assert_idle(w);
	assert_in_range(agent_wait(&w->agent), 55ull * SECOND, 60ull * SECOND);
	assert_int_equal(run(w, 3600ull * SECOND), 60);
	/* One look a minute, and nothing else. */
	assert_int_equal(memory_backend_observations(w->backend), 61);
	assert_int_equal(memory_backend_transactions(w->backend), 1);
	assert_int_equal(w->refreshes, 1);
	assert_int_equal(w->probes, 1);
	assert_int_equal(w->agent.figures.syncs[SYNC_CHANGED] + w->agent.figures.syncs[SYNC_UNCHANGED], 1);
	assert_true(w->agent.figures.last_verified > fake_wall(w) - 60);
}

static void test_change_is_one_sync_of_that_change(void **state)
{
	struct world *w = *state;
	uint64_t messages = w->agent.figures.messages;
	struct set_element e = {.key = {10, 96, 0, 7}};

	put_service(w, "web", "10.96.0.7");
	agent_note(&w->agent, AGENT_CLUSTER);
	agent_note(&w->agent, AGENT_CLUSTER);
	assert_true(agent_wait(&w->agent) <= 10 * MS);
	assert_int_equal(run(w, SECOND), 1);
	assert_int_equal(w->agent.figures.syncs[SYNC_CHANGED], 2);
	assert_int_equal(w->agent.figures.messages, messages + 1);
	assert_true(ruleset_has(memory_backend_ruleset(w->backend), SET_CLUSTER_IPS4, &e));
}

static void test_unchanged_is_no_sync(void **state)
{
	struct world *w = *state;

	put_node(w, "n2", "10.0.2.0/24", "192.168.0.2"); /* a heartbeat */
	agent_note(&w->agent, AGENT_CLUSTER);
	agent_note(&w->agent, AGENT_FACTS);
	run(w, SECOND);
	assert_int_equal(w->refreshes, 2);
	assert_int_equal(w->agent.figures.syncs[SYNC_CHANGED] + w->agent.figures.syncs[SYNC_UNCHANGED], 1);
	assert_idle(w);
}

static void test_churn_is_bundled(void **state)
{
	struct world *w = *state;
	char address[20];

	for (int i = 0; i < 100; i++) {
		snprintf(address, sizeof(address), "10.96.1.%d", i + 1);
		put_service(w, address, address);
		agent_note(&w->agent, AGENT_CLUSTER);
		run(w, MS);
	}
	run(w, SECOND);
	/* One step per 10 ms, and not none until the churn ends. */
	assert_in_range(w->agent.figures.syncs[SYNC_CHANGED], 5, 13);
	assert_int_equal(memory_backend_ruleset(w->backend)->sets[SET_CLUSTER_IPS4].n, 100);
}

static void test_new_pod(void **state)
{
	struct world *w = *state;
	size_t pairs = memory_backend_ruleset(w->backend)->sets[SET_PAIRS].n;

	add_pod(w, 11, "veth2", "10.0.1.6/32");
	agent_note(&w->agent, AGENT_FACTS);
	assert_in_range(agent_wait(&w->agent), 20 * MS, 100 * MS);
	run(w, SECOND);
	assert_int_equal(w->agent.figures.syncs[SYNC_CHANGED], 2);
	assert_int_equal(memory_backend_ruleset(w->backend)->n_devices, 3);
	assert_int_equal(memory_backend_ruleset(w->backend)->sets[SET_PAIRS].n, pairs + 2);
}

static void test_failure_is_kept_and_retried(void **state)
{
	struct world *w = *state;
	struct set_element e = {.key = {10, 96, 0, 7}};

	memory_backend_fail_next(w->backend, -EBUSY, "set cluster-ips4");
	put_service(w, "web", "10.96.0.7");
	agent_note(&w->agent, AGENT_CLUSTER);
	run(w, 100 * MS);
	assert_int_equal(w->agent.figures.syncs[SYNC_FAILED], 1);
	assert_int_equal(w->agent.figures.failures[SYNC_FAILURE_CONFLICT], 1);
	assert_non_null(strstr(w->agent.figures.sync_error, "set cluster-ips4"));
	assert_false(ruleset_has(memory_backend_ruleset(w->backend), SET_CLUSTER_IPS4, &e));
	assert_true(w->agent.ready);

	/* The second one as well: the pause doubles. */
	memory_backend_fail_next(w->backend, -EBUSY, "set cluster-ips4");
	run(w, SECOND);
	assert_int_equal(w->agent.figures.syncs[SYNC_FAILED], 2);
	assert_in_range(agent_wait(&w->agent), 1 * SECOND, 2 * SECOND);
	run(w, 3 * SECOND);
	assert_int_equal(w->agent.figures.syncs[SYNC_CHANGED], 2);
	assert_string_equal(w->agent.figures.sync_error, "");
	assert_true(ruleset_has(memory_backend_ruleset(w->backend), SET_CLUSTER_IPS4, &e));
	assert_idle(w);
}

static void test_retries_end_at_a_minute(void **state)
{
	struct world *w = *state;
	unsigned refreshes;

	w->refresh_error = -EPERM;
	agent_note(&w->agent, AGENT_FACTS);
	run(w, 300ull * SECOND);
	assert_in_range(agent_wait(&w->agent), 0, 60 * SECOND);
	refreshes = w->refreshes;
	run(w, 600ull * SECOND);
	assert_in_range(w->refreshes - refreshes, 9, 11);
	assert_non_null(strstr(w->agent.figures.facts_error, "refused by the test"));
	/* What is known goes on to work. */
	put_service(w, "web", "10.96.0.7");
	agent_note(&w->agent, AGENT_CLUSTER);
	run(w, SECOND);
	assert_int_equal(w->agent.figures.syncs[SYNC_CHANGED], 2);
	w->refresh_error = 0;
	run(w, 60ull * SECOND);
	assert_string_equal(w->agent.figures.facts_error, "");
	assert_idle(w);
}

static enum device_state state_of(const struct agent *a, const char *name)
{
	for (size_t i = 0; i < a->plan->n_devices; i++)
		if (!strcmp(a->plan->devices[i].name, name))
			return a->plan->devices[i].state;
	fail_msg("no device %s", name);
	return DEVICE_MISSING;
}

/* Up to Linux 6.15 a hook goes with its device: the old name is not in the flowtable, the new one nobody asked for. */
static void test_device_renamed_away(void **state)
{
	struct world *w = *state;
	struct config config;

	config_default(&config);
	string_list_add(&config.exclude_interfaces, "old*");
	agent_set_config(&w->agent, &config);
	run(w, SECOND);
	assert_int_equal(memory_backend_ruleset(w->backend)->n_devices, 2);
	for (size_t i = 0; i < w->facts.n_links; i++)
		if (!strcmp(w->facts.links[i].name, "veth1"))
			snprintf(w->facts.links[i].name, IFNAMSIZ, "old1");
	memory_backend_rename_device(w->backend, "veth1", "old1");
	agent_note(&w->agent, AGENT_FACTS);
	run(w, SECOND);
	assert_int_equal(memory_backend_ruleset(w->backend)->n_devices, 1);
	assert_string_equal(memory_backend_ruleset(w->backend)->devices[0].name, "eth0");
	assert_int_equal(w->agent.figures.repairs, 0);
}

/* A step for another reason, before the new configuration is due, plans with it. */
static void test_config_in_use_at_once(void **state)
{
	struct world *w = *state;
	struct config config;

	put_service(w, "web", "10.96.0.7");
	agent_note(&w->agent, AGENT_CLUSTER);
	w->now += (uint64_t)agent_wait(&w->agent);
	config_default(&config);
	config.engines[TYPE_POD_TO_POD] = ENGINE_OFF;
	agent_set_config(&w->agent, &config);
	agent_step(&w->agent);
	assert_int_equal(w->agent.plan->types[TYPE_POD_TO_POD].engine, ENGINE_OFF);
	agent_refresh(&w->agent);
	assert_true(memory_backend_equals(w->backend, &w->agent.plan->ruleset));
}

static void test_refused_device(void **state)
{
	struct world *w = *state;

	memory_backend_refuse_device(w->backend, "veth2", -EOPNOTSUPP);
	add_pod(w, 11, "veth2", "10.0.1.6/32");
	agent_note(&w->agent, AGENT_FACTS);
	run(w, SECOND);
	assert_int_equal(state_of(&w->agent, "veth2"), DEVICE_FAILED);
	assert_int_equal(state_of(&w->agent, "veth1"), DEVICE_ACTIVE);
	assert_int_equal(memory_backend_ruleset(w->backend)->n_devices, 2);
	assert_int_equal(w->agent.figures.syncs[SYNC_FAILED], 0);
	assert_in_range(agent_wait(&w->agent), 3 * SECOND, 5 * SECOND);
	run(w, 10 * SECOND);
	assert_int_equal(state_of(&w->agent, "veth2"), DEVICE_FAILED);

	/* Any news of the links is a reason to try at once. */
	memory_backend_refuse_device(w->backend, "veth2", 0);
	agent_note(&w->agent, AGENT_FACTS);
	run(w, 200 * MS);
	assert_int_equal(state_of(&w->agent, "veth2"), DEVICE_ACTIVE);
	assert_int_equal(memory_backend_ruleset(w->backend)->n_devices, 3);
	assert_idle(w);
}

static void test_repair(void **state)
{
	struct world *w = *state;
	uint64_t messages;

	memory_backend_drop_table(w->backend);
	agent_touched(&w->agent, "nft (pid 7)");
	assert_in_range(agent_wait(&w->agent), 0, 100 * MS);
	run(w, SECOND);
	agent_refresh(&w->agent);
	assert_true(memory_backend_equals(w->backend, &w->agent.plan->ruleset));
	assert_int_equal(w->agent.figures.repairs, 1);
	assert_string_equal(w->agent.figures.last_actor, "nft (pid 7)");

	/* A touch that changed nothing is looked at, and no repair. */
	messages = w->agent.figures.messages;
	agent_touched(&w->agent, "nft (pid 8)");
	run(w, SECOND);
	assert_int_equal(w->agent.figures.repairs, 1);
	assert_int_equal(w->agent.figures.messages, messages);
}

/* The first sync programs; it repairs nothing, whoever was at the table before. */
static void test_first_sync_is_no_repair(void **state)
{
	struct world *w = *state;

	agent_touched(&w->agent, "");
	run(w, SECOND);
	finish_lists(w);
	run(w, SECOND);
	assert_true(w->agent.ready);
	assert_int_equal(w->agent.figures.syncs[SYNC_CHANGED], 1);
	assert_int_equal(w->agent.figures.repairs, 0);
}

static void test_two_that_fight(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 1000; i++) {
		memory_backend_drop_table(w->backend);
		agent_touched(&w->agent, "other");
		run(w, 10 * MS);
	}
	assert_in_range(w->agent.figures.repairs, 15, 22);
}

static void test_no_flowtable(void **state)
{
	struct world *w = *state;

	w->no_flowtable = true;
	finish_lists(w);
	run(w, SECOND);
	assert_true(w->agent.ready);
	assert_false(memory_backend_ruleset(w->backend)->present);
	assert_int_equal(w->agent.plan->types[TYPE_POD_TO_POD].engine, ENGINE_OFF);
	assert_int_equal(w->probes, 1);
	/* One look per minute, no more; then it can. */
	assert_int_equal(run(w, 600ull * SECOND), 10);
	w->no_flowtable = false;
	run(w, 61ull * SECOND);
	assert_true(memory_backend_ruleset(w->backend)->present);
	assert_idle(w);
}

static void test_probes_are_rare(void **state)
{
	struct world *w = *state;
	unsigned before = w->probes;

	for (int i = 0; i < 1000; i++) {
		agent_note(&w->agent, AGENT_FEATURES);
		run(w, 100 * MS);
	}
	assert_in_range(w->probes - before, 9, 11);
	assert_int_equal(w->agent.figures.syncs[SYNC_CHANGED] + w->agent.figures.syncs[SYNC_UNCHANGED], 1);
}

static void test_inserts_are_monotonic(void **state)
{
	struct world *w = *state;
	const uint64_t *inserts = w->agent.figures.inserts;

	memory_backend_count(w->backend, TYPE_POD_TO_POD, 5);
	assert_int_equal(agent_inserts(&w->agent, NULL), 0);
	assert_int_equal(inserts[TYPE_POD_TO_POD], 5);
	memory_backend_drop_table(w->backend);
	assert_int_equal(agent_inserts(&w->agent, NULL), 0); /* no table: no news */
	assert_int_equal(inserts[TYPE_POD_TO_POD], 5);
	agent_touched(&w->agent, "");
	run(w, SECOND);
	memory_backend_count(w->backend, TYPE_POD_TO_POD, 9);
	assert_int_equal(agent_inserts(&w->agent, NULL), 0);
	assert_int_equal(inserts[TYPE_POD_TO_POD], 14);
	assert_int_equal(inserts[TYPE_OTHER], 0);
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

#define HEAD "apiVersion: slipstream/v1alpha1\nkind: Configuration\n"

static void test_config_file(void **state)
{
	struct world *w = *state;
	char folder[] = "/tmp/test_agent.XXXXXX";
	struct string_list warnings = {0};
	struct config_file *file;
	struct error err = {0};
	struct config config;
	char path[64], other[64];
	FILE *writer;

	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/config.yaml", folder);
	snprintf(other, sizeof(other), "%s/new", folder);
	write_file(path, HEAD);
	assert_int_equal(config_file_open(path, &file, &err), 0);
	assert_int_equal(config_file_read(file, false, &config, &warnings, &err), 0);

	/* A bad one keeps the old, and is said once. */
	write_file(path, HEAD "traffic: {pod-to-pod: {engine: fast}}\n");
	assert_int_equal(config_file_read(file, false, &config, &warnings, &err), -EINVAL);
	agent_config_failed(&w->agent, &err);
	assert_int_equal(config_file_read(file, false, &config, &warnings, &err), 0);
	assert_int_equal(run(w, SECOND), 0);
	assert_int_equal(w->agent.figures.reloads_failed, 1);
	assert_non_null(strstr(w->agent.figures.config_error, "config.yaml:3"));
	assert_int_equal(w->agent.plan->types[TYPE_POD_TO_POD].engine, ENGINE_FLOWTABLE);

	/* A good one, moved in as editors and ConfigMaps do it. */
	write_file(other, HEAD "traffic: {pod-to-pod: {engine: \"off\"}}\n");
	assert_int_equal(rename(other, path), 0);
	assert_int_equal(config_file_read(file, false, &config, &warnings, &err), 1);
	agent_set_config(&w->agent, &config);
	run(w, SECOND);
	assert_int_equal(w->agent.plan->types[TYPE_POD_TO_POD].engine, ENGINE_OFF);
	assert_string_equal(w->agent.figures.config_error, "");
	assert_int_equal(w->agent.figures.reloads, 1);
	assert_int_equal(w->agent.figures.syncs[SYNC_CHANGED], 2);

	/* Written anew, slowly: what is not closed yet is not taken for an empty file, all defaults. */
	assert_int_equal(unlink(path), 0);
	writer = fopen(path, "w");
	assert_non_null(writer);
	assert_int_equal(config_file_read(file, false, &config, &warnings, &err), 0);
	fputs(HEAD "enabled: false\n", writer);
	assert_int_equal(fclose(writer), 0);
	assert_int_equal(config_file_read(file, false, &config, &warnings, &err), 1);
	assert_false(config.enabled);
	config_done(&config);

	/* A link is whole at once. */
	assert_int_equal(unlink(path), 0);
	write_file(other, HEAD);
	assert_int_equal(config_file_read(file, false, &config, &warnings, &err), 0);
	assert_int_equal(symlink("new", path), 0);
	assert_int_equal(config_file_read(file, false, &config, &warnings, &err), 1);
	config_done(&config);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rename(other, path), 0);

	/* Cannot be read, and can again: the same text ends the error. */
	assert_int_equal(rename(path, other), 0);
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(config_file_read(file, false, &config, &warnings, &err), -EISDIR);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rename(other, path), 0);
	assert_int_equal(config_file_read(file, false, &config, &warnings, &err), 1);
	config_done(&config);

	/* Gone: nothing happens, unless asked. */
	assert_int_equal(unlink(path), 0);
	assert_int_equal(config_file_read(file, false, &config, &warnings, &err), 0);
	assert_int_equal(config_file_read(file, true, &config, &warnings, &err), -ENOENT);
	config_file_close(file);
	string_list_done(&warnings);
	assert_int_equal(rmdir(folder), 0);
}

static struct flow make_flow(uint32_t id, uint64_t bytes)
{
	struct flow f = {.protocol = 6, .id = id, .counted = true, .status = FLOW_STATUS_OFFLOAD};

	f.bytes[0] = bytes;
	f.packets[1] = bytes / 100;
	return f;
}

static void dump(struct flow_totals *t, uint64_t now, size_t n, const struct flow *flows)
{
	flow_totals_begin(t);
	for (size_t i = 0; i < n; i++)
		flow_totals_add(t, &flows[i], TYPE_POD_TO_POD, now);
	flow_totals_end(t, now);
}

static void test_flow_totals(void **state)
{
	struct flow_totals t = {0};
	struct flow flows[3] = {make_flow(1, 1000), make_flow(2, 500), make_flow(3, 100)};

	(void)state;
	dump(&t, 0, 1, flows); /* the base */
	assert_int_equal(t.flows[TYPE_POD_TO_POD], 1);
	assert_int_equal(t.bytes[TYPE_POD_TO_POD], 0);
	flows[0].bytes[0] = 1400;
	dump(&t, 15, 2, flows);
	assert_int_equal(t.bytes[TYPE_POD_TO_POD], 400 + 500);
	assert_int_equal(t.packets[TYPE_POD_TO_POD], 5);
	/* Not in a dump, and back: nothing is counted twice. */
	dump(&t, 30, 0, flows);
	assert_int_equal(t.flows[TYPE_POD_TO_POD], 0);
	flows[0].bytes[1] = 50;
	dump(&t, 45, 1, flows);
	assert_int_equal(t.bytes[TYPE_POD_TO_POD], 950);
	/* The counters start again: a new connection. */
	flows[0] = make_flow(1, 30);
	dump(&t, 60, 1, flows);
	assert_int_equal(t.bytes[TYPE_POD_TO_POD], 980);
	/* Older than the accounting. */
	flows[2].counted = false;
	dump(&t, 75, 3, flows);
	assert_int_equal(t.flows[TYPE_POD_TO_POD], 3);
	assert_int_equal(t.bytes[TYPE_POD_TO_POD], 980);
	assert_int_equal(t.bytes[TYPE_OTHER], 0);
	flow_totals_done(&t);
}

static void test_flow_totals_many(void **state)
{
	struct flow_totals t = {0};

	(void)state;
	flow_totals_end(&t, 0);
	for (uint32_t round = 1; round <= 40; round++) {
		flow_totals_begin(&t);
		for (uint32_t i = 0; i < 2000; i++) {
			struct flow f = make_flow(round * 2000 + i, 100);

			flow_totals_add(&t, &f, TYPE_OTHER, round * 60);
		}
		flow_totals_end(&t, round * 60);
	}
	assert_int_equal(t.bytes[TYPE_OTHER], 40 * 2000 * 100);
	/* Flows that ended are forgotten after ten minutes, looked at every 16 dumps. */
	assert_true(t.n <= 28 * 2000);
	flow_totals_done(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_before_synced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disabled_before_synced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_idle_is_silent, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(
			test_change_is_one_sync_of_that_change, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_unchanged_is_no_sync, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_churn_is_bundled, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_new_pod, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_failure_is_kept_and_retried, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_retries_end_at_a_minute, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_device_renamed_away, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_config_in_use_at_once, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_refused_device, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_repair, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_first_sync_is_no_repair, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_that_fight, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_no_flowtable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_probes_are_rare, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_inserts_are_monotonic, setup_synced, teardown),
		cmocka_unit_test_setup_teardown(test_config_file, setup_synced, teardown),
		cmocka_unit_test(test_flow_totals),
		cmocka_unit_test(test_flow_totals_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
