/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "controller/metrics.h"
#include "controller/status.h"

#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "text_file.h"

struct world {
	struct agent agent;
	struct plan plan;
	struct cluster *cluster;
	struct source_status source;
	struct flow_totals flows;
	struct ended_flows ended;
	uint64_t events[EVENT_RESULTS];
	struct metrics_input in;
};

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));
	struct plan_input in;

	w->cluster = cluster_new();
	config_default(&w->agent.config);
	w->agent.node = xstrdup("n1");
	w->agent.facts.features.flowtable = true;
	in = (struct plan_input){
		.cluster = w->cluster, .facts = &w->agent.facts, .config = &w->agent.config, .node = "n1"};
	plan_make(&in, &w->plan);
	w->agent.plan = &w->plan;
	w->agent.planned = true;
	*(struct plan_device *)VEC_ADD(w->plan.devices, w->plan.n_devices, w->plan.cap_devices) =
		(struct plan_device){
			.name = "eth0", .ifindex = 2, .role = DEVICE_UPLINK, .state = DEVICE_FAILED};
	w->in = (struct metrics_input){.agent = &w->agent,
		.cluster = w->cluster,
		.source = &w->source,
		.flows = &w->flows,
		.ended = &w->ended,
		.events = w->events};
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	agent_done(&w->agent);
	plan_done(&w->plan);
	cluster_free(w->cluster);
	free(w);
	return 0;
}

static char *text_of(struct world *w, bool openmetrics)
{
	struct strbuf out = {0};

	metrics_write(&out, &w->in, openmetrics);
	return strbuf_steal(&out);
}

static void test_samples(void **state)
{
	struct world *w = *state;
	char *text;

	w->agent.figures.inserts[TYPE_POD_TO_POD] = 18446744073709551615u;
	w->agent.figures.syncs[SYNC_FAILED] = 3;
	w->agent.figures.duration_buckets[1] = 2;
	w->agent.figures.duration_buckets[4] = 1;
	w->agent.figures.duration_count = 4; /* one above all buckets */
	w->agent.figures.duration_sum = 2.5;
	w->flows.bytes[TYPE_OTHER] = 7;
	w->source.resources[OBJECT_NODE].watch_starts = 5;
	w->source.failures[SOURCE_FAILURE_FORBIDDEN] = 2;
	w->events[EVENT_AGGREGATED] = 6;
	w->ended = (struct ended_flows){.ended = 9, .failures = 4, .cannot = true};
	text = text_of(w, false);
	assert_non_null(strstr(
		text, "\nslipstream_offload_inserts_total{type=\"pod-to-pod\"} 18446744073709551615\n"));
	assert_non_null(strstr(text, "\nslipstream_syncs_total{result=\"failed\"} 3\n"));
	assert_non_null(strstr(text, "\nslipstream_sync_duration_seconds_bucket{le=\"0.0005\"} 0\n"));
	assert_non_null(strstr(text, "\nslipstream_sync_duration_seconds_bucket{le=\"0.005\"} 2\n"));
	assert_non_null(strstr(text, "\nslipstream_sync_duration_seconds_bucket{le=\"0.01\"} 3\n"));
	assert_non_null(strstr(text, "\nslipstream_sync_duration_seconds_bucket{le=\"1.0\"} 3\n"));
	assert_non_null(strstr(text, "\nslipstream_sync_duration_seconds_bucket{le=\"+Inf\"} 4\n"));
	assert_non_null(strstr(text, "\nslipstream_sync_duration_seconds_sum 2.500000\n"));
	assert_non_null(strstr(text, "\nslipstream_offloaded_bytes_total{type=\"other\"} 7\n"));
	assert_non_null(strstr(text, "\nslipstream_devices{role=\"uplink\",state=\"failed\"} 1\n"));
	assert_non_null(strstr(text, "\nslipstream_watch_restarts_total{resource=\"nodes\"} 4\n"));
	assert_non_null(strstr(text, "\nslipstream_watch_restarts_total{resource=\"services\"} 0\n"));
	assert_non_null(strstr(text, "\nslipstream_source_failures_total{reason=\"forbidden\"} 2\n"));
	assert_non_null(strstr(text, "\nslipstream_events_total{result=\"aggregated\"} 6\n"));
	assert_non_null(strstr(text, "\nslipstream_flows_ended_total{reason=\"endpoint\"} 9\n"));
	assert_non_null(strstr(text, "\nslipstream_flow_end_failures_total{reason=\"unsupported\"} 1\n"));
	assert_non_null(strstr(text, "\nslipstream_flow_end_failures_total{reason=\"other\"} 3\n"));
	assert_null(strstr(text, "# EOF"));
	free(text);
}

static void test_openmetrics(void **state)
{
	struct world *w = *state;
	char *text = text_of(w, true);

	assert_non_null(strstr(
		text, "\n# TYPE slipstream_repairs counter\nslipstream_repairs_total{kind=\"table\"} 0\n"));
	assert_string_equal(text + strlen(text) - 6, "# EOF\n");
	free(text);
}

static void test_accept(void **state)
{
	(void)state;
	assert_true(metrics_wants_openmetrics("application/openmetrics-text"));
	assert_true(metrics_wants_openmetrics(
		"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"));
	assert_true(metrics_wants_openmetrics("text/plain;q=0, application/OpenMetrics-text; version=0.0.1"));
	assert_false(metrics_wants_openmetrics(""));
	assert_false(metrics_wants_openmetrics("*/*"));
	assert_false(metrics_wants_openmetrics("text/plain;version=0.0.4"));
	assert_false(metrics_wants_openmetrics("application/openmetrics-textual"));
	assert_false(metrics_wants_openmetrics("application/openmetrics-text;q=0"));
	assert_false(metrics_wants_openmetrics("application/openmetrics-text;q=0.0, text/plain"));
}

/* Every line is a comment or a sample of the family announced last, and each family comes once. */
static void test_form(void **state)
{
	struct world *w = *state;
	char *text = text_of(w, false), *save, name[128] = "", seen[8192] = "";

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char mark[132];

		if (sscanf(line, "# HELP %127s", name) == 1) {
			snprintf(mark, sizeof(mark), " %s ", name);
			assert_null(strstr(seen, mark));
			assert_true(strlen(seen) + strlen(mark) < sizeof(seen));
			strcat(seen, mark);
			continue;
		}
		if (line[0] == '#') {
			assert_true(!strncmp(line + 7, name, strlen(name)));
			continue;
		}
		assert_true(!strncmp(line, name, strlen(name)));
		assert_non_null(strrchr(line, ' '));
	}
	free(text);
}

/* deploy/README.md has a row for every family with its labels and type, and no row for one that is not there.
 */
static void test_documented(void **state)
{
	struct world *w = *state;
	char *text = text_of(w, false), *doc = text_file_read(TEST_DATA "/../deploy/README.md", NULL), *save;
	unsigned families = 0, rows = 0;

	for (const char *p = doc; (p = strstr(p, "\n| `slipstream_")); p++)
		rows++;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char name[128], type[32], row[200], *at, *end;

		if (sscanf(line, "# TYPE %127s %31s", name, type) != 2)
			continue;
		families++;
		snprintf(row, sizeof(row), "\n| `%s", name);
		for (at = strstr(doc, row); at && !strchr("`{", at[strlen(row)]); at = strstr(at + 1, row))
			;
		if (!at)
			fail_msg("%s is not in deploy/README.md", name);
		end = strstr(at, "` | ");
		assert_non_null(end);
		assert_true(!strncmp(end + 4, type, strlen(type)));
	}
	assert_int_equal(families, rows);
	free(text);
	free(doc);
}

static void test_before_the_first_plan(void **state)
{
	struct world *w = *state;
	struct strbuf json = {0}, text = {0};
	char *metrics;

	plan_done(&w->plan);
	w->agent.planned = false;
	metrics = text_of(w, false);
	assert_null(strstr(metrics, "\nslipstream_cluster_kind{"));
	assert_non_null(strstr(metrics, "\nslipstream_ready 0\n"));
	free(metrics);
	status_json(&w->in, &json);
	assert_int_equal(status_text(json.data, json.len, &text, NULL), 0);
	assert_non_null(strstr(text.data, "on node n1"));
	assert_non_null(strstr(text.data, "not ready"));
	strbuf_done(&json);
	strbuf_done(&text);
}

static void test_status(void **state)
{
	struct world *w = *state;
	struct strbuf json = {0}, text = {0};
	struct json_object *root, *types, *value;

	w->agent.figures.inserts[TYPE_NODE_TO_POD] = 12345;
	w->agent.figures.repairs = 1;
	snprintf(w->agent.figures.last_actor, sizeof(w->agent.figures.last_actor), "nft \033[2J (pid 3)");
	snprintf(w->agent.figures.config_error, sizeof(w->agent.figures.config_error), "c.yaml:3: bad");
	w->agent.ready = true;
	w->ended = (struct ended_flows){.ended = 9, .failures = 1, .cannot = true, .problem = "it cannot"};
	status_json(&w->in, &json);
	root = json_tokener_parse(json.data);
	assert_true(json_object_object_get_ex(root, "types", &types));
	assert_int_equal(json_object_array_length(types), TRAFFIC_TYPES);
	assert_true(json_object_object_get_ex(
		json_object_array_get_idx(types, TYPE_NODE_TO_POD), "inserts", &value));
	assert_int_equal(json_object_get_int64(value), 12345);
	assert_true(json_object_object_get_ex(root, "endedFlows", &types));
	assert_true(json_object_object_get_ex(types, "unsupported", &value));
	assert_true(json_object_get_boolean(value));
	json_object_put(root);

	assert_int_equal(status_text(json.data, json.len, &text, NULL), 0);
	assert_non_null(strstr(text.data, ": ready\n"));
	assert_non_null(strstr(text.data, "12345"));
	assert_non_null(strstr(text.data, "eth0    uplink  failed"));
	assert_non_null(strstr(text.data, "configuration: c.yaml:3: bad"));
	assert_non_null(strstr(text.data, "ended: 9 UDP connections"));
	assert_non_null(strstr(text.data, "kernel: it cannot"));
	assert_non_null(strstr(text.data, "1 repairs (last: nft ?[2J (pid 3))"));
	assert_null(strchr(text.data, '\033'));
	strbuf_done(&json);
	strbuf_done(&text);
}

static void test_status_of_something_else(void **state)
{
	static const char odd[] = "{\"types\":{},\"devices\":[1,null],\"sync\":[],\"source\":7}";
	static const char *const answers[] = {"", "<html>", "[1]", "{", "null", "\"x\""};
	struct error err = {0};
	struct strbuf text = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
		assert_true(status_text(answers[i], strlen(answers[i]), &text, &err) < 0);
	/* Right in form, wrong in types. */
	assert_int_equal(status_text(odd, strlen(odd), &text, &err), 0);
	strbuf_done(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_samples, setup, teardown),
		cmocka_unit_test_setup_teardown(test_openmetrics, setup, teardown),
		cmocka_unit_test(test_accept),
		cmocka_unit_test_setup_teardown(test_form, setup, teardown),
		cmocka_unit_test_setup_teardown(test_documented, setup, teardown),
		cmocka_unit_test_setup_teardown(test_before_the_first_plan, setup, teardown),
		cmocka_unit_test_setup_teardown(test_status, setup, teardown),
		cmocka_unit_test(test_status_of_something_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
