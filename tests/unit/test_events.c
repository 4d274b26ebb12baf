/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "api_server.h"
#include "k8s/events.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define POST "POST /apis/events.k8s.io/v1/namespaces/default/events HTTP"
#define PATCH "PATCH /apis/events.k8s.io/v1/namespaces/default/events/n1."

/* The sender, through a source, against one scripted server. */
struct fixture {
	struct api_server server;
	struct cluster *cluster;
	struct source *source;
	struct events *events;
	unsigned problems;
	char problem[1024];
	char folder[32];
};

static void problem(void *arg, const struct error *err)
{
	struct fixture *f = arg;

	f->problems++;
	snprintf(f->problem, sizeof(f->problem), "%s", error_text(err));
}

static void source_problem(void *arg, const struct error *err)
{
	(void)arg;
	(void)err;
}

static void changed(void *arg)
{
	(void)arg;
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	strcpy(f->folder, "/tmp/slipstream-events-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	f->server.base = event_base_new();
	f->cluster = cluster_new();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *path = xasprintf("%s/config", f->folder);

	source_free(f->source);
	events_free(f->events);
	api_server_stop(&f->server);
	cluster_free(f->cluster);
	event_base_free(f->server.base);
	strbuf_done(&f->server.log);
	unlink(path);
	rmdir(f->folder);
	free(f);
	return 0;
}

static void begin(struct fixture *f, struct answer *answers, size_t n)
{
	CLEANUP_FREE char *path = xasprintf("%s/config", f->folder);
	struct source_callbacks cb = {changed, source_problem, NULL};
	struct api_options options = {.kubeconfig = path, .endpoints = ENDPOINTS_OFF};
	struct error err;
	FILE *file = fopen(path, "we");

	f->server.answers = answers;
	f->server.n_answers = n;
	assert_true(api_server_listen(&f->server, 0));
	assert_non_null(file);
	fprintf(file,
		"current-context: c\n"
		"contexts: [{name: c, context: {cluster: k, user: u}}]\n"
		"clusters: [{name: k, cluster: {server: 'http://127.0.0.1:%u'}}]\n"
		"users: [{name: u, user: {token: secret}}]\n",
		f->server.port);
	fclose(file);
	if (api_source_new(f->server.base, f->cluster, &options, &cb, &f->source, &err))
		fail_msg("%s", error_text(&err));
	f->events = events_new(f->server.base, f->source, "n1", problem, f);
}

static void happen(struct fixture *f, const char *note)
{
	struct node_event e = {
		.warning = true, .reason = "AccelerationDegraded", .action = "Accelerate", .note = note};

	events_record(f->events, &e);
}

static unsigned count(const struct fixture *f, const char *what)
{
	unsigned n = 0;

	for (const char *p = f->server.log.data; p && (p = strstr(p, what)); p++)
		n++;
	return n;
}

static uint64_t result(const struct fixture *f, enum event_result r)
{
	return events_results(f->events)[r];
}

static uint64_t finished(const struct fixture *f)
{
	return result(f, EVENT_SENT) + result(f, EVENT_FAILED);
}

/* Until so many were sent or given up, or two seconds. */
static void turn(struct fixture *f, uint64_t until)
{
	for (int i = 0; i < 400 && finished(f) < until; i++) {
		struct timeval tv = {.tv_usec = 5000};

		event_base_loopexit(f->server.base, &tv);
		event_base_dispatch(f->server.base);
	}
	assert_int_equal(finished(f), until);
}

static void test_sent(void **state)
{
	struct answer answers[] = {
		{.match = POST, .times = -1, .status = "201 Created", .body = "{\"kind\":\"Event\"}"},
		{.match = PATCH, .times = -1, .status = "200 OK", .body = "{\"kind\":\"Event\"}"},
	};
	struct fixture *f = *state;

	begin(f, answers, ARRAY_SIZE(answers));
	happen(f, "a");
	happen(f, "b");
	turn(f, 2);
	assert_int_equal(count(f, POST), 2);
	assert_int_equal(count(f, "Content-Type: application/json"), 2);
	happen(f, "a");
	for (int i = 0; i < 400 && !count(f, PATCH); i++) {
		struct timeval tv = {.tv_usec = 5000};

		event_base_loopexit(f->server.base, &tv);
		event_base_dispatch(f->server.base);
	}
	assert_int_equal(count(f, PATCH), 1);
	assert_int_equal(count(f, "Content-Type: application/merge-patch+json"), 1);
	assert_int_equal(result(f, EVENT_AGGREGATED), 1);
	assert_int_equal(f->problems, 0);
}

/* The missing right is named, once, until there is another state of things. */
static void test_forbidden(void **state)
{
	struct answer answers[] = {
		{.match = POST, .times = 3, .status = "403 Forbidden", .body = "{\"kind\":\"Status\"}"},
		{.match = POST,
			.times = 1,
			.status = "422 Unprocessable Entity",
			.body = "{\"kind\":\"Status\",\"message\":\"note is too long\"}"},
		{.match = POST, .times = 1, .status = "201 Created", .body = "{}"},
		{.match = POST, .times = 1, .status = "403 Forbidden", .body = "{\"kind\":\"Status\"}"},
	};
	struct fixture *f = *state;

	begin(f, answers, ARRAY_SIZE(answers));
	for (unsigned i = 1; i <= 3; i++) {
		happen(f, "a");
		turn(f, i);
	}
	assert_int_equal(f->problems, 1);
	assert_string_equal(f->problem,
		"Events: not allowed to create events in events.k8s.io (403), AccelerationDegraded is "
		"dropped "
		"(allow create and patch of events in events.k8s.io with a Role in namespace default)");
	happen(f, "a");
	turn(f, 4);
	assert_int_equal(f->problems, 2);
	assert_non_null(strstr(f->problem, "422: note is too long"));
	happen(f, "a");
	turn(f, 5);
	happen(f, "b");
	turn(f, 6);
	assert_int_equal(f->problems, 3);
	assert_int_equal(result(f, EVENT_FAILED), 5);
}

/* One that is never answered holds up nothing but Events, and ends with the source. */
static void test_no_answer(void **state)
{
	struct answer answers[] = {
		{.match = POST, .times = -1, .status = "201 Created", .body = "", .open = true}};
	struct timeval tv = {.tv_usec = 300000};
	struct fixture *f = *state;

	begin(f, answers, ARRAY_SIZE(answers));
	for (unsigned i = 0; i < 40; i++) {
		CLEANUP_FREE char *note = xasprintf("note %u", i);

		happen(f, note);
		if (i)
			continue;
		event_base_loopexit(f->server.base, &tv);
		event_base_dispatch(f->server.base);
	}
	assert_int_equal(count(f, POST), 1);
	assert_int_equal(finished(f), 0);
	assert_int_equal(result(f, EVENT_DISPLACED), 24 - 15);
	assert_int_equal(result(f, EVENT_LIMITED), 40 - 25);
	assert_true(cluster_synced(f->cluster, OBJECT_NODE));
}

static void test_manifests(void **state)
{
	struct fixture *f = *state;
	struct source_callbacks cb = {changed, source_problem, NULL};
	struct timeval tv = {.tv_usec = 50000};
	struct error err;

	if (manifest_source_new(f->server.base, f->cluster, f->folder, &cb, &f->source, &err))
		fail_msg("%s", error_text(&err));
	f->events = events_new(f->server.base, f->source, "n1", problem, f);
	for (int i = 0; i < 2; i++) {
		happen(f, "a");
		event_base_loopexit(f->server.base, &tv);
		event_base_dispatch(f->server.base);
	}
	assert_int_equal(finished(f), 0);
	assert_int_equal(f->problems, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forbidden, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_manifests, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
