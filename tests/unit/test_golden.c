/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Golden tests of the planner: tests/golden/CASE/ holds what a node sees (manifests.yaml, facts.json,
 * config.yaml, its name in `node`) and what follows from it (expected.nft: nft text, with the rest of the
 * plan as comments in front). UPDATE_GOLDEN=1 writes expected.nft anew; read the difference before it is
 * committed.
 */
#include "base/mem.h"
#include "base/strbuf.h"
#include "controller/plan.h"
#include "k8s/source.h"

#include <dirent.h>
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan_text.h"
#include "text_file.h"

static char *path_of(const char *name, const char *file)
{
	return xasprintf("%s/golden/%s/%s", TEST_DATA, name, file);
}

struct reading {
	struct event_base *base;
	struct cluster *cluster;
};

static void on_changed(void *arg)
{
	struct reading *r = arg;

	if (cluster_all_synced(r->cluster))
		event_base_loopbreak(r->base);
}

static void on_problem(void *arg, const struct error *err)
{
	(void)arg;
	fail_msg("%s", error_text(err));
}

static struct cluster *read_manifests(const char *path)
{
	struct reading r = {event_base_new(), cluster_new()};
	struct source_callbacks cb = {on_changed, on_problem, &r};
	struct timeval limit = {.tv_sec = 10};
	struct source *source;
	struct error err = {0};

	if (manifest_source_new(r.base, r.cluster, path, &cb, &source, &err))
		fail_msg("%s", error_text(&err));
	event_base_loopexit(r.base, &limit);
	event_base_dispatch(r.base);
	assert_true(cluster_all_synced(r.cluster));
	source_free(source);
	event_base_free(r.base);
	return r.cluster;
}

static void check_case(void **state)
{
	const char *name = *state;
	CLEANUP_FREE char *manifests = path_of(name, "manifests.yaml");
	CLEANUP_FREE char *facts_path = path_of(name, "facts.json");
	CLEANUP_FREE char *config_path = path_of(name, "config.yaml");
	CLEANUP_FREE char *expected_path = path_of(name, "expected.nft");
	CLEANUP_FREE char *node_path = path_of(name, "node");
	CLEANUP_FREE char *facts_text = text_file_read(facts_path, NULL);
	CLEANUP_FREE char *node = text_file_read(node_path, NULL);
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *again = NULL;
	struct cluster *cluster = read_manifests(manifests);
	struct string_list warnings = {0};
	struct error err = {0};
	struct config config;
	struct facts facts;
	struct plan plan;
	const struct plan_input in = {cluster, &facts, &config, node};

	assert_non_null(facts_text);
	assert_non_null(node);
	node[strcspn(node, "\n")] = '\0';
	if (facts_from_json(facts_path, facts_text, strlen(facts_text), &facts, &err) ||
		config_load(config_path, &config, &warnings, &err))
		fail_msg("%s", error_text(&err));

	plan_make(&in, &plan);
	text = plan_text(&plan);
	plan_done(&plan);
	plan_make(&in, &plan);
	again = plan_text(&plan);
	plan_done(&plan);
	assert_string_equal(text, again);

	text_file_expect(expected_path, text);
	string_list_done(&warnings);
	config_done(&config);
	facts_done(&facts);
	cluster_free(cluster);
}

static int is_case(const struct dirent *d)
{
	return d->d_name[0] != '.' && !strchr(d->d_name, '.');
}

int main(void)
{
	struct dirent **cases;
	struct CMUnitTest *tests;
	int n = scandir(TEST_DATA "/golden", &cases, is_case, alphasort), failed;

	if (n < 12) {
		fprintf(stderr, "%s/golden: %d cases, at least 12 are known\n", TEST_DATA, n);
		return 1;
	}
	tests = xcalloc((size_t)n, sizeof(*tests));
	for (int i = 0; i < n; i++)
		tests[i] = (struct CMUnitTest){
			.name = cases[i]->d_name, .test_func = check_case, .initial_state = cases[i]->d_name};
	failed = _cmocka_run_group_tests("golden", tests, (size_t)n, NULL, NULL);
	for (int i = 0; i < n; i++)
		free(cases[i]);
	free(cases);
	free(tests);
	return failed;
}
