/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the API source does when a server cannot do what it is asked for, or says something on the side. */
#include "api_fixture.h"

#define WATCHLIST_SERVICES "/api/v1/services?watch=true&allowWatchBookmarks=true&timeoutSeconds="
#define INITIAL "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
#define SLICE(name)                                                                                          \
	"{\"metadata\":{\"namespace\":\"ns\",\"name\":\"" name                                               \
	"\",\"labels\":{\"kubernetes.io/service-name\":\"a\"}},\"addressType\":\"IPv4\",\"endpoints\":[{"    \
	"\"addresses\":[\"10.1.0.1\"]}],\"ports\":[]}"
#define ENDPOINTS(name)                                                                                      \
	"{\"metadata\":{\"namespace\":\"ns\",\"name\":\"" name                                               \
	"\"},\"subsets\":[{\"addresses\":[{\"ip\":\"10.1.0.1\"},{\"ip\":\"10.1.0.2\"}],"                     \
	"\"ports\":[{\"port\":80}]}]}"
#define NOT_FOUND                                                                                            \
	"404 Not Found", NULL, STATUS("404", "NotFound", "the server could not find the requested resource")

static const struct source_resource_status *services(const struct fixture *f)
{
	static struct source_status s;

	s = status_of(f);
	return &s.resources[OBJECT_SERVICE];
}

static bool has(const struct fixture *f, const char *name)
{
	for (const struct service *s = cluster_next_service(f->cluster, NULL); s;
		s = cluster_next_service(f->cluster, s))
		if (!strcmp(s->name, name))
			return true;
	return false;
}

/* --- WatchList --- */

static void watchlist(void **state)
{
	struct answer answers[] = {
		/* the initial events of an expired watch do not end */
		{WATCHLIST_SERVICES,
			INITIAL "&labelSelector=%21service.kubernetes.io%2Fservice-proxy-name"
				"&fieldSelector=spec.clusterIP%21%3DNone&resourceVersion=23 HTTP",
			1, "200 OK", NULL,
			EVENT("ADDED", SERVICE("c", "21")) EVENT("ADDED", SERVICE("d", "24")), .open = true},
		{WATCHLIST_SERVICES, INITIAL, 1, "200 OK", NULL,
			EVENT("ADDED", SERVICE("b", "8")) EVENT("ADDED", SERVICE("a", "7")) BOOKMARK("9")
				INITIAL_END("20") EVENT("ADDED", SERVICE("c", "21"))
					EVENT("DELETED", SERVICE("a", "22")) BOOKMARK("23"),
			.open = true},
		{WATCHLIST_SERVICES, "resourceVersion=23", 1, "200 OK", NULL,
			EVENT("ERROR", STATUS("410", "Expired", "too old")), .open = true},
	};
	struct fixture f = {.answers = answers, .n_answers = 3, .options = {.watchlist = true}};

	(void)state;
	answers[1].match_too = INITIAL "&labelSelector=%21service.kubernetes.io%2Fservice-proxy-name"
				       "&fieldSelector=spec.clusterIP%21%3DNone HTTP";
	begin(&f);
	assert_true(RUN_UNTIL(&f, 5000, services(&f)->events == 7));
	assert_true(services(&f)->synced);
	assert_int_equal(services(&f)->lists, 1);
	assert_int_equal(services(&f)->watch_starts, 1);
	assert_true(has(&f, "b") && has(&f, "c") && !has(&f, "a"));
	assert_int_equal(count(f.server.log.data, LIST_SERVICES), 0);
	/* the connection goes: an ordinary watch, then all anew */
	api_server_stop(&f.server);
	assert_true(api_server_listen(&f.server, f.server.port));
	assert_true(RUN_UNTIL(&f, 8000, services(&f)->events == 9));
	assert_int_equal(status_of(&f).failures[SOURCE_FAILURE_EXPIRED], 1);
	/* "b" is gone, but the burst has not ended: nothing is removed yet */
	assert_true(has(&f, "b") && has(&f, "c") && has(&f, "d"));
	assert_int_equal(services(&f)->lists, 1);
	finish(&f);
}

static void watchlist_is_told_when_it_is_there(void **state)
{
	struct answer answers[] = {
		{WATCHLIST_SERVICES, INITIAL, 1, "200 OK", NULL, EVENT("ADDED", SERVICE("a", "7")),
			.open = true},
	};
	struct fixture f = {.answers = answers,
		.n_answers = 1,
		.options = {.watchlist = true, .endpoints = ENDPOINTS_OFF}};

	(void)state;
	begin(&f);
	assert_true(RUN_UNTIL(&f, 5000, services(&f)->events == 1 && f.changes == 1));
	assert_true(cluster_synced(f.cluster, OBJECT_NODE));
	/* one call, for the nodes; none for a Service before all are there */
	assert_false(RUN_UNTIL(&f, 50, f.changes > 1 || cluster_synced(f.cluster, OBJECT_SERVICE)));
	/* no bookmark: the next one begins from the start, and what had come is no state */
	api_server_stop(&f.server);
	assert_true(RUN_UNTIL(&f, 3000, f.problems));
	assert_false(cluster_synced(f.cluster, OBJECT_SERVICE) || services(&f)->lists);
	finish(&f);
}

static void watchlist_refused(void **state)
{
	static const struct answer refusals[] = {
		{"services?", INITIAL, -1, "422 Unprocessable Entity", NULL,
			STATUS("422", "Invalid", "sendInitialEvents is forbidden")},
		{"services?", INITIAL, -1, "400 Bad Request", NULL, STATUS("400", "BadRequest", "what?")},
		{"services?", INITIAL, -1, "200 OK", NULL,
			EVENT("ERROR", STATUS("500", "InternalError", "RequestWatchProgress is disabled")),
			.open = true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		struct answer answers[] = {
			refusals[i],
			{LIST_SERVICES, "resourceVersion=0", -1, "200 OK", NULL,
				LIST("20", SERVICE("a", "7"))},
			{WATCH_SERVICES, "resourceVersion=20", 1, "200 OK", NULL,
				EVENT("ERROR", STATUS("410", "Expired", "too old")), .open = true},
			{LIST_SERVICES, "resourceVersion=20", -1, "200 OK", NULL, LIST("30", "")},
		};
		struct fixture f = {
			.answers = answers, .n_answers = ARRAY_SIZE(answers), .options = {.watchlist = true}};

		begin(&f);
		assert_true(RUN_UNTIL(&f, 700, cluster_all_synced(f.cluster)));
		/* for good, and told once, with the reason */
		assert_true(RUN_UNTIL(&f, 5000, services(&f)->lists == 2));
		assert_int_equal(count(f.server.log.data, "sendInitialEvents"), OBJECT_KINDS);
		assert_int_equal(f.problems, 1);
		assert_string_equal(f.last.object, "services");
		assert_non_null(strstr(f.last.what, "there is no WatchList here"));
		assert_non_null(strstr(f.last.what, i == 2 ? "RequestWatchProgress" : i ? "what?" : "422"));
		assert_string_equal(services(&f)->problem, "");
		finish(&f);
	}
}

/* --- Endpoints --- */

static void endpoints_where_there_are_no_slices(void **state)
{
	struct answer answers[] = {
		{"endpointslices", NULL, -1, NOT_FOUND},
		{"/api/v1/endpoints?label", "resourceVersion=0", 1, "200 OK", NULL,
			LIST("20", ENDPOINTS("a") "," ENDPOINTS("b"))},
		{"/api/v1/endpoints?watch", "resourceVersion=20", 1, "200 OK", NULL,
			EVENT("DELETED", ENDPOINTS("b")) EVENT("ADDED", ENDPOINTS("c")), .open = true},
	};
	struct source_status status;
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 5000, status_of(&f).resources[OBJECT_ENDPOINT_SLICE].events == 2));
	status = status_of(&f);
	assert_true(cluster_all_synced(f.cluster));
	assert_int_equal(cluster_count(f.cluster, OBJECT_ENDPOINT_SLICE), 2);
	assert_int_equal(cluster_ready_endpoints(f.cluster, "ns", "a"), 2);
	assert_int_equal(cluster_ready_endpoints(f.cluster, "ns", "b"), 0);
	assert_int_equal(cluster_ready_endpoints(f.cluster, "ns", "c"), 2);
	assert_int_equal(f.problems, 1);
	assert_non_null(strstr(f.last.what, "Endpoints are read instead"));
	assert_string_equal(status.resources[OBJECT_ENDPOINT_SLICE].problem, "");
	assert_non_null(strstr(f.server.log.data,
		"GET /api/v1/endpoints?labelSelector=%21service.kubernetes.io%2Fheadless&"));
	finish(&f);
}

static void endpoints_by_watchlist(void **state)
{
	struct answer answers[] = {
		{"endpointslices", NULL, -1, NOT_FOUND},
		{"/api/v1/endpoints?", INITIAL, 1, "200 OK", NULL,
			EVENT("ADDED", ENDPOINTS("a")) INITIAL_END("20"), .open = true},
	};
	struct fixture f = {.answers = answers, .n_answers = 2, .options = {.watchlist = true}};

	(void)state;
	begin(&f);
	assert_true(RUN_UNTIL(&f, 5000, cluster_synced(f.cluster, OBJECT_ENDPOINT_SLICE)));
	assert_int_equal(cluster_ready_endpoints(f.cluster, "ns", "a"), 2);
	finish(&f);
}

static void endpoints_as_configured(void **state)
{
	struct answer answers[] = {
		{"/api/v1/endpoints?label", NULL, 1, "200 OK", NULL, LIST("20", ENDPOINTS("a"))},
		{"endpointslices", NULL, -1, "200 OK", NULL, LIST("20", SLICE("a-1"))},
	};
	struct answer none[] = {{"endpointslices", NULL, -1, NOT_FOUND}};
	struct fixture f = {
		.answers = answers, .n_answers = 2, .options = {.endpoints = ENDPOINTS_ENDPOINTS}};

	(void)state;
	begin(&f);
	assert_true(RUN_UNTIL(&f, 5000, cluster_all_synced(f.cluster)));
	assert_int_equal(count(f.server.log.data, "endpointslices"), 0);
	assert_int_equal(cluster_ready_endpoints(f.cluster, "ns", "a"), 2);
	assert_int_equal(f.problems, 0);
	finish(&f);

	f = (struct fixture){.answers = none, .n_answers = 1, .options = {.endpoints = ENDPOINTS_SLICES}};
	begin(&f);
	assert_true(RUN_UNTIL(&f, 5000, count(f.server.log.data, "endpointslices") == 2));
	assert_int_equal(count(f.server.log.data, "/api/v1/endpoints"), 0);
	assert_int_equal(f.problems, 1);
	assert_non_null(strstr(f.last.what, "404"));
	finish(&f);

	f = (struct fixture){.options = {.endpoints = ENDPOINTS_OFF}};
	begin(&f);
	assert_true(RUN_UNTIL(&f, 5000, cluster_all_synced(f.cluster)));
	assert_int_equal(count(f.server.log.data, "endpoint"), 0);
	finish(&f);
}

/* What answers 404 to everything is no API server, and says nothing about its resources. */
static void no_endpoints_of_a_stranger(void **state)
{
	struct answer answers[] = {{"GET ", NULL, 5, "404 Not Found", NULL, "default backend - 404"}};
	struct fixture f;

	(void)state;
	start(&f, answers, 1);
	assert_true(RUN_UNTIL(&f, 8000, cluster_all_synced(f.cluster)));
	assert_int_equal(count(f.server.log.data, "/api/v1/endpoints"), 0);
	finish(&f);
}

/* --- the rest --- */

#define DEPRECATED "Warning: 299 - \"v1 Endpoints is deprecated in v1.33+\"\r\n"

static void warnings_are_told_once(void **state)
{
	struct answer answers[] = {
		{"/services?label", NULL, -1, "200 OK", DEPRECATED "Warning: 299 - \"and more\"\r\n",
			LIST("20", "")},
		{"/services?watch", NULL, 2, "200 OK", DEPRECATED, BOOKMARK("20")},
		{"/nodes?watch", NULL, 1, "200 OK", DEPRECATED, BOOKMARK("20")},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 5000, f.server.requests == 9));
	assert_int_equal(f.problems, 2);
	assert_int_equal(count(f.told.data, "v1 Endpoints is deprecated in v1.33+"), 1);
	assert_int_equal(count(f.told.data, "and more"), 1);
	assert_null(strstr(f.told.data, "299"));
	finish(&f);
}

static void warnings_are_bounded(void **state)
{
	struct strbuf headers = {0};
	struct answer answers[] = {{"/nodes?resource", NULL, 1, "200 OK", NULL, LIST("20", "")}};
	struct fixture f;

	(void)state;
	for (unsigned i = 0; i < 100; i++)
		strbuf_printf(&headers, "Warning: 299 - \"number %u\"\r\n", i);
	answers[0].headers = headers.data;
	start(&f, answers, 1);
	assert_true(RUN_UNTIL(&f, 5000, f.server.requests == 6));
	assert_int_equal(f.problems, 32);
	finish(&f);
	strbuf_done(&headers);
}

static void retry_after_is_kept_to(void **state)
{
	struct answer answers[] = {
		{LIST_SERVICES, NULL, 1, "429 Too Many Requests", "Retry-After: 2\r\n", "Too many requests"},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, 1);
	assert_true(RUN_UNTIL(&f, 5000, f.problems));
	assert_non_null(strstr(f.last.what, "429"));
	assert_false(RUN_UNTIL(&f, 1900, services(&f)->synced));
	assert_true(RUN_UNTIL(&f, 1000, services(&f)->synced));
	assert_int_equal(status_of(&f).failures[SOURCE_FAILURE_THROTTLED], 1);
	finish(&f);
}

static void page_expires(void **state)
{
	struct answer answers[] = {
		{LIST_SERVICES, "continue=", 1, "410 Gone", NULL, STATUS("410", "Expired", "too old")},
		{LIST_SERVICES, "resourceVersion=0", 1, "200 OK", NULL,
			"{\"kind\":\"List\",\"metadata\":{\"resourceVersion\":\"20\",\"continue\":\"p2\"},"
			"\"items\":[" SERVICE("a", "7") "]}"},
		{LIST_SERVICES, "resourceVersion=0", 1, "200 OK", NULL, LIST("21", SERVICE("b", "8"))},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 700, services(&f)->synced));
	assert_int_equal(cluster_count(f.cluster, OBJECT_SERVICE), 1);
	assert_true(has(&f, "b"));
	finish(&f);
}

static void server_behind(void **state)
{
	struct answer answers[] = {
		{LIST_SERVICES, "resourceVersion=0", 1, "504 Gateway Timeout", "Retry-After: 1\r\n",
			"{\"kind\":\"Status\",\"code\":504,\"reason\":\"Timeout\",\"details\":{\"causes\":[{"
			"\"reason\":\"ResourceVersionTooLarge\"}],\"retryAfterSeconds\":1}}"},
		{LIST_SERVICES, "None HTTP", 1, "200 OK", NULL, LIST("21", SERVICE("b", "8"))},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 700, services(&f)->synced));
	finish(&f);
}

/* A server whose certificate is of another CA than ours: told once, tried again, and asked for nothing. */
static void certificate_of_a_stranger(void **state)
{
	struct fixture f = {.protocol = HTTPS_2}, stranger = {.protocol = HTTPS_2};
	unsigned short own;

	(void)state;
	begin(&stranger);
	begin(&f);
	/* 'f' trusts the CA of its server, whose port the stranger now has */
	own = f.tls.port;
	source_free(stranger.source);
	stranger.source = NULL;
	source_free(f.source);
	cluster_free(f.cluster);
	f.tls.port = stranger.tls.port;
	connect_source(&f);
	while (status_of(&f).failures[SOURCE_FAILURE_TLS] < OBJECT_KINDS) {
		event_base_loop(f.base, EVLOOP_NONBLOCK);
		event_base_loop(stranger.base, EVLOOP_NONBLOCK);
	}
	assert_int_equal(f.problems, 1);
	assert_false(cluster_synced(f.cluster, OBJECT_NODE));
	assert_int_equal(stranger.server.requests, 0);
	f.tls.port = own;
	finish(&f);
	finish(&stranger);
}

static void over_https(void **state)
{
	static const enum protocol protocols[] = {HTTPS_1, HTTPS_2};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
		struct answer answers[] = {
			{LIST_SERVICES, NULL, 1, "200 OK", NULL, LIST("20", SERVICE("a", "7"))},
			{WATCH_SERVICES, NULL, 1, "200 OK", NULL, EVENT("ADDED", SERVICE("b", "21")),
				.open = true},
		};
		struct fixture f = {.protocol = protocols[i], .answers = answers, .n_answers = 2};

		begin(&f);
		assert_true(RUN_UNTIL(&f, 5000, services(&f)->events == 1));
		assert_true(has(&f, "a") && has(&f, "b"));
		assert_int_equal(f.problems, 0);
		if (protocols[i] == HTTPS_2)
			assert_int_equal(status_of(&f).connections, 1);
		else
			/* one for each watch, in the end */
			assert_true(RUN_UNTIL(&f, 5000, status_of(&f).connections >= OBJECT_KINDS));
		finish(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(watchlist),
		cmocka_unit_test(watchlist_is_told_when_it_is_there),
		cmocka_unit_test(watchlist_refused),
		cmocka_unit_test(endpoints_where_there_are_no_slices),
		cmocka_unit_test(endpoints_by_watchlist),
		cmocka_unit_test(endpoints_as_configured),
		cmocka_unit_test(no_endpoints_of_a_stranger),
		cmocka_unit_test(warnings_are_told_once),
		cmocka_unit_test(warnings_are_bounded),
		cmocka_unit_test(retry_after_is_kept_to),
		cmocka_unit_test(page_expires),
		cmocka_unit_test(server_behind),
		cmocka_unit_test(certificate_of_a_stranger),
		cmocka_unit_test(over_https),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
