/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "api_fixture.h"

static void lists_then_watches(void **state)
{
	struct answer answers[] = {
		{LIST_SERVICES, NULL, 1, "200 OK", NULL, LIST("20", SERVICE("a", "7") "," SERVICE("b", "8"))},
		{WATCH_SERVICES, NULL, 1, "200 OK", NULL,
			EVENT("ADDED", SERVICE("c", "21")) EVENT("DELETED", SERVICE("a", "22"))
				BOOKMARK("30"),
			.open = true},
	};
	struct source_status status;
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(
		&f, 5000, f.server.requests == 6 && status_of(&f).resources[OBJECT_SERVICE].events == 3));
	assert_true(cluster_all_synced(f.cluster));
	assert_int_equal(cluster_count(f.cluster, OBJECT_SERVICE), 2);
	assert_false(cluster_delete(f.cluster, OBJECT_SERVICE, "ns", "a"));
	assert_int_equal(f.problems, 0);
	assert_true(f.changes >= 3);
	status = status_of(&f);
	assert_string_equal(status.kind, "api");
	assert_true(status.bytes_received > 1000);
	assert_int_equal(status.resources[OBJECT_SERVICE].lists, 1);
	assert_int_equal(status.resources[OBJECT_SERVICE].watch_starts, 1);
	assert_true(status.resources[OBJECT_NODE].synced && status.resources[OBJECT_NODE].last_event > 1e9);
	/* what was asked for */
	assert_non_null(strstr(f.server.log.data, "GET /api/v1/nodes?resourceVersion=0 HTTP"));
	assert_non_null(strstr(f.server.log.data,
		"GET /api/v1/services?labelSelector=%21service.kubernetes.io%2Fservice-proxy-name"
		"&fieldSelector=spec.clusterIP%21%3DNone&resourceVersion=0 HTTP"));
	assert_non_null(strstr(f.server.log.data,
		"GET /apis/discovery.k8s.io/v1/endpointslices"
		"?labelSelector=%21service.kubernetes.io%2Fheadless&resourceVersion=0"));
	assert_non_null(strstr(f.server.log.data,
		"GET /api/v1/services?watch=true&allowWatchBookmarks=true&timeoutSeconds="));
	assert_non_null(
		strstr(f.server.log.data, "fieldSelector=spec.clusterIP%21%3DNone&resourceVersion=20 HTTP"));
	assert_int_equal(count(f.server.log.data, "Authorization: Bearer one\r\n"), 6);
	assert_int_equal(
		count(f.server.log.data, "User-Agent: slipstream/" SLIPSTREAM_VERSION " (linux/"), 6);
	assert_int_equal(count(f.server.log.data, "Accept-Encoding: gzip\r\n"), 3);
	/* the first goes alone: nothing else was asked before it was answered */
	assert_true(
		strstr(f.server.log.data, "/nodes?resourceVersion") < strstr(f.server.log.data, "/services"));
	finish(&f);
}

static void end_of_watch_is_followed_by_the_next(void **state)
{
	struct answer answers[] = {
		{WATCH_SERVICES, "resourceVersion=10 ", 1, "200 OK", NULL,
			EVENT("ADDED", SERVICE("c", "21"))},
		{WATCH_SERVICES, "resourceVersion=21 ", 1, "200 OK", NULL, BOOKMARK("33")},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	/* much sooner than any backoff */
	assert_true(RUN_UNTIL(&f, 700, count(f.server.log.data, "resourceVersion=33 ") == 1));
	assert_int_equal(status_of(&f).resources[OBJECT_SERVICE].lists, 1);
	assert_int_equal(f.problems, 0);
	finish(&f);
}

static void pages(void **state)
{
	struct answer answers[] = {
		{LIST_SERVICES, "continue=p%2F2", 1, "200 OK", NULL, LIST("20", SERVICE("b", "8"))},
		{LIST_SERVICES, NULL, 1, "200 OK", NULL,
			"{\"items\":[" SERVICE("a", "7") "],\"kind\":\"List\",\"metadata\":{"
							 "\"resourceVersion\":\"20\",\"continue\":\"p/2\"}}"},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 5000, cluster_synced(f.cluster, OBJECT_SERVICE)));
	assert_int_equal(cluster_count(f.cluster, OBJECT_SERVICE), 2);
	finish(&f);
}

/* Whatever a gateway makes of a list must not pass for an empty one. */
static void no_list_is_no_empty_list(void **state)
{
	struct answer answers[] = {
		{LIST_SERVICES, NULL, 1, "200 OK", NULL,
			"{\"kind\":\"Table\",\"metadata\":{\"resourceVersion\":\"20\"},\"rows\":[]}"},
		{LIST_SERVICES, NULL, 1, "200 OK", NULL, LIST("20", SERVICE("a", "7"))},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 5000, cluster_synced(f.cluster, OBJECT_SERVICE)));
	assert_int_equal(cluster_count(f.cluster, OBJECT_SERVICE), 1);
	assert_int_equal(f.problems, 1);
	finish(&f);
}

static void expired_watch_is_listed_again(void **state)
{
	struct answer answers[] = {
		{LIST_SERVICES, "resourceVersion=0", 1, "200 OK", NULL,
			LIST("20", SERVICE("a", "7") "," SERVICE("b", "8"))},
		{WATCH_SERVICES, "resourceVersion=20", 1, "200 OK", NULL,
			EVENT("ERROR", STATUS("410", "Expired", "too old"))
				EVENT("ADDED", SERVICE("never", "21")),
			.open = true},
		{LIST_SERVICES, "resourceVersion=20", 1, "200 OK", NULL, LIST("40", SERVICE("b", "8"))},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 5000, status_of(&f).resources[OBJECT_SERVICE].lists == 2));
	assert_int_equal(cluster_count(f.cluster, OBJECT_SERVICE), 1);
	assert_int_equal(status_of(&f).failures[SOURCE_FAILURE_EXPIRED], 1);
	assert_int_equal(f.problems, 0);
	finish(&f);
}

static void expired_list_asks_for_the_latest(void **state)
{
	struct answer answers[] = {
		{LIST_SERVICES, "resourceVersion=0", 1, "410 Gone", NULL,
			STATUS("410", "Expired", "too old")},
		{LIST_SERVICES, "clusterIP%21%3DNone HTTP", 1, "200 OK", NULL, LIST("40", SERVICE("b", "8"))},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 700, cluster_count(f.cluster, OBJECT_SERVICE) == 1));
	finish(&f);
}

static void forbidden_resource_stops_no_other(void **state)
{
	struct answer answers[] = {
		{"endpointslices", NULL, -1, "403 Forbidden", NULL,
			STATUS("403", "Forbidden", "User \\\"x\\\" cannot list")},
	};
	struct source_status status;
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 5000, f.problems && f.server.requests == 5));
	status = status_of(&f);
	assert_int_equal(f.problems, 1);
	assert_string_equal(f.last.object, "endpointslices");
	assert_non_null(strstr(f.last.what, "list endpointslices (403): User \"x\" cannot list"));
	assert_non_null(strstr(f.last.mend, "ClusterRole"));
	assert_true(status.resources[OBJECT_SERVICE].synced && status.resources[OBJECT_NODE].synced);
	assert_false(status.resources[OBJECT_ENDPOINT_SLICE].synced || cluster_all_synced(f.cluster));
	assert_string_equal(status.resources[OBJECT_SERVICE].problem, "");
	assert_non_null(strstr(status.resources[OBJECT_ENDPOINT_SLICE].problem, "403"));
	assert_int_equal(status.failures[SOURCE_FAILURE_FORBIDDEN], 1);
	finish(&f);
}

static void starting_server_forbids_for_a_moment(void **state)
{
	struct answer answers[] = {
		{WATCH_SERVICES, NULL, 2, "403 Forbidden", NULL, STATUS("403", "Forbidden", "no roles yet")},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 3000, status_of(&f).resources[OBJECT_SERVICE].problem[0]));
	assert_non_null(strstr(status_of(&f).resources[OBJECT_SERVICE].problem, "403"));
	assert_true(RUN_UNTIL(&f, 8000, !status_of(&f).resources[OBJECT_SERVICE].problem[0]));
	assert_int_equal(status_of(&f).failures[SOURCE_FAILURE_FORBIDDEN], 2);
	assert_int_equal(f.problems, 0);
	finish(&f);
}

static void rotate_token(struct fixture *f)
{
	(void)f;
	write_file("token", "two");
}

static void refused_token_is_read_again(void **state)
{
	struct answer answers[] = {
		{"Bearer one", NULL, -1, "401 Unauthorized", NULL,
			STATUS("401", "Unauthorized", "Unauthorized")},
	};
	struct source_status status;
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	f.on_problem = rotate_token;
	assert_true(RUN_UNTIL(&f, 5000, cluster_all_synced(f.cluster)));
	/* one problem for the server, not three for its resources */
	assert_int_equal(f.problems, 1);
	assert_non_null(strstr(f.last.what, "401"));
	assert_non_null(strstr(f.last.mend, "/token"));
	status = status_of(&f);
	assert_in_range(status.failures[SOURCE_FAILURE_UNAUTHORIZED], 1, 3);
	for (size_t i = 0; i < OBJECT_KINDS; i++)
		assert_string_equal(status.resources[i].problem, "");
	assert_null(strstr(error_text(&f.last), "Bearer"));
	finish(&f);
}

static void server_comes_up_later(void **state)
{
	unsigned short port;
	struct fixture f;

	(void)state;
	start(&f, NULL, 0);
	port = f.server.port;
	api_server_stop(&f.server);
	assert_true(RUN_UNTIL(&f, 5000, status_of(&f).failures[SOURCE_FAILURE_CONNECT] == 3));
	assert_int_equal(f.problems, 1);
	assert_non_null(strstr(f.last.what, "Connection refused"));
	assert_non_null(strstr(f.last.object, "http://127.0.0.1:"));
	assert_non_null(strstr(f.last.where, "/config:3"));
	assert_true(api_server_listen(&f.server, port));
	assert_true(RUN_UNTIL(&f, 5000, cluster_all_synced(f.cluster)));
	assert_int_equal(f.problems, 1);
	finish(&f);
}

static void server_goes_and_comes_back(void **state)
{
	struct answer answers[] = {
		{LIST_SERVICES, NULL, 1, "200 OK", NULL, LIST("20", SERVICE("a", "7"))},
	};
	unsigned short port;
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 5000, f.server.requests == 6));
	port = f.server.port;
	api_server_stop(&f.server);
	assert_true(RUN_UNTIL(&f, 5000, f.problems == 1));
	assert_int_equal(cluster_count(f.cluster, OBJECT_SERVICE), 1);
	assert_true(api_server_listen(&f.server, port));
	/* watches again, from where they were, without a list */
	assert_true(RUN_UNTIL(&f, 8000, f.server.requests == 9));
	assert_int_equal(count(f.server.log.data, "resourceVersion=20 "), 2);
	assert_int_equal(status_of(&f).resources[OBJECT_SERVICE].lists, 1);
	finish(&f);
}

static void old_server_knows_no_selector(void **state)
{
	struct answer answers[] = {
		{"services", "fieldSelector", -1, "400 Bad Request", NULL,
			STATUS("400", "BadRequest", "field label not supported")},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 700, cluster_all_synced(f.cluster) && f.server.requests == 7));
	assert_int_equal(count(f.server.log.data, "fieldSelector"), 1);
	assert_int_equal(f.problems, 0);
	finish(&f);
}

static void one_bad_object(void **state)
{
	struct answer answers[] = {
		{LIST_SERVICES, NULL, 1, "200 OK", NULL,
			LIST("20", "{\"metadata\":{\"namespace\":\"ns\",\"name\":\"bad\"},\"spec\":{"
				   "\"clusterIP\":5}}," SERVICE("b", "8"))},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 5000, cluster_all_synced(f.cluster)));
	assert_int_equal(cluster_count(f.cluster, OBJECT_SERVICE), 1);
	assert_int_equal(f.problems, 1);
	assert_non_null(strstr(f.last.object, "ns/bad"));
	assert_int_equal(status_of(&f).failures[SOURCE_FAILURE_OBJECT], 1);
	finish(&f);
}

/* Objects of a relist that cannot be read any more keep the version that was there. */
static void bad_object_of_a_relist_keeps_the_good_one(void **state)
{
	struct answer answers[] = {
		{LIST_SERVICES, "resourceVersion=0", 1, "200 OK", NULL,
			LIST("20", SERVICE("a", "7") "," SERVICE("b", "8") "," SERVICE("c", "9"))},
		{WATCH_SERVICES, "resourceVersion=20", 1, "200 OK", NULL,
			EVENT("ERROR", STATUS("410", "Expired", "too old")), .open = true},
		{LIST_SERVICES, "resourceVersion=20", 1, "200 OK", NULL,
			LIST("40", "{\"metadata\":{\"namespace\":\"ns\",\"name\":\"a\"},\"spec\":{"
				   "\"clusterIP\":5}}," SERVICE("b", "8"))},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 5000, status_of(&f).resources[OBJECT_SERVICE].lists == 2));
	assert_int_equal(cluster_count(f.cluster, OBJECT_SERVICE), 2);
	assert_string_equal(cluster_next_service(f.cluster, NULL)->name, "a");
	finish(&f);
}

static void nonsense(void **state)
{
	static const char *const bodies[] = {
		"<html>captive portal</html>",
		"{\"items\":[}",
		"[]",
		"{\"kind\":\"Status\",\"metadata\":{},\"code\":500}",
		"",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		struct answer answers[] = {{LIST_SERVICES, NULL, -1, "200 OK", NULL, bodies[i]}};
		struct fixture f;

		start(&f, answers, ARRAY_SIZE(answers));
		if (!RUN_UNTIL(&f, 5000, f.problems == 1))
			fail_msg("body %zu: accepted", i);
		assert_false(cluster_synced(f.cluster, OBJECT_SERVICE));
		assert_string_equal(f.last.object[0] == 'A' ? "services" : f.last.object, "services");
		finish(&f);
	}
}

static void nonsense_in_a_watch(void **state)
{
	struct answer answers[] = {
		{WATCH_SERVICES, NULL, 1, "200 OK", NULL, EVENT("ADDED", SERVICE("a", "11")) "rubbish}\n",
			.open = true},
	};
	struct fixture f;

	(void)state;
	start(&f, answers, ARRAY_SIZE(answers));
	assert_true(RUN_UNTIL(&f, 5000, f.problems == 1));
	assert_int_equal(cluster_count(f.cluster, OBJECT_SERVICE), 1);
	/* given up at once, though the server holds it open, and watched again from the last good event */
	assert_true(RUN_UNTIL(&f, 3000, count(f.server.log.data, "resourceVersion=11 ") == 1));
	finish(&f);
}

static void list_cut_anywhere(void **state)
{
	struct answer whole = {
		LIST_SERVICES, NULL, -1, "200 OK", NULL, LIST("20", SERVICE("a", "7") "," SERVICE("b", "8"))};
	CLEANUP_FREE char *head =
		xasprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
			strlen(whole.body));
	/* where the objects end */
	size_t first = strlen(head) + (size_t)(strstr(whole.body, "}]}},") - whole.body) + 4;
	size_t second = strlen(head) + (size_t)(strstr(whole.body, "}]}}]") - whole.body) + 4;

	(void)state;
	for (size_t cut = 1; cut < strlen(head) + strlen(whole.body); cut++) {
		struct answer a = whole;
		struct fixture f;
		bool told;

		a.cut = cut;
		start(&f, &a, 1);
		told = RUN_UNTIL(&f, 5000, f.problems == 1);
		if (!told || cluster_synced(f.cluster, OBJECT_SERVICE) || f.server.failed)
			fail_msg("cut at %zu: %s", cut, told ? "synced" : "no problem");
		if (cluster_count(f.cluster, OBJECT_SERVICE) != (size_t)(cut >= first) + (cut >= second))
			fail_msg("cut at %zu: %zu objects", cut, cluster_count(f.cluster, OBJECT_SERVICE));
		finish(&f);
	}
}

static void watch_cut_anywhere(void **state)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
	const char *one = EVENT("ADDED", SERVICE("a", "11"));
	const char *two = EVENT("ADDED", SERVICE("b", "12"));
	CLEANUP_FREE char *body = xasprintf("%s%s", one, two);

	(void)state;
	for (size_t cut = 1; cut <= strlen(head) + strlen(body); cut++) {
		struct answer a = {WATCH_SERVICES, "resourceVersion=10 ", 1, "200 OK", NULL, body,
			.open = true, .cut = cut};
		/* the new line behind an event belongs to nothing */
		size_t events = cut >= strlen(head) + strlen(body) - 1  ? 2
				: cut >= strlen(head) + strlen(one) - 1 ? 1
									: 0;
		struct fixture f;

		start(&f, &a, 1);
		if (events == 0)
			assert_true(RUN_UNTIL(&f, 5000, a.times == 0 && (f.server.closed || f.problems)));
		else if (!RUN_UNTIL(&f, 5000,
				 count(f.server.log.data,
					 events == 1 ? "resourceVersion=11 " : "resourceVersion=12 ")))
			fail_msg("cut at %zu: no watch from version 1%zu", cut, events);
		if (cluster_count(f.cluster, OBJECT_SERVICE) != events)
			fail_msg("cut at %zu: %zu objects instead of %zu", cut,
				cluster_count(f.cluster, OBJECT_SERVICE), events);
		finish(&f);
	}
}

static void bad_kubeconfig(void **state)
{
	struct event_base *base = event_base_new();
	struct cluster *cluster = cluster_new();
	CLEANUP_FREE char *path = file_path("config");
	struct api_options options = {.kubeconfig = path};
	struct source_callbacks cb = {0};
	struct source *source = (struct source *)&cb;
	struct error err;

	(void)state;
	write_file("config", "current-context: c\n");
	assert_int_equal(api_source_new(base, cluster, &options, &cb, &source, &err), -EINVAL);
	assert_null(source);
	write_file("config",
		"current-context: c\n"
		"contexts: [{name: c, context: {cluster: k, user: u}}]\n"
		"clusters: [{name: k, cluster: {server: 'http://h', certificate-authority: gone.crt}}]\n"
		"users: [{name: u, user: {}}]\n");
	assert_int_equal(api_source_new(base, cluster, &options, &cb, &source, &err), -ENOENT);
	assert_non_null(strstr(err.where, "/gone.crt"));
	cluster_free(cluster);
	event_base_free(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_then_watches),
		cmocka_unit_test(end_of_watch_is_followed_by_the_next),
		cmocka_unit_test(pages),
		cmocka_unit_test(no_list_is_no_empty_list),
		cmocka_unit_test(expired_watch_is_listed_again),
		cmocka_unit_test(expired_list_asks_for_the_latest),
		cmocka_unit_test(forbidden_resource_stops_no_other),
		cmocka_unit_test(starting_server_forbids_for_a_moment),
		cmocka_unit_test(refused_token_is_read_again),
		cmocka_unit_test(server_comes_up_later),
		cmocka_unit_test(server_goes_and_comes_back),
		cmocka_unit_test(old_server_knows_no_selector),
		cmocka_unit_test(one_bad_object),
		cmocka_unit_test(bad_object_of_a_relist_keeps_the_good_one),
		cmocka_unit_test(nonsense),
		cmocka_unit_test(nonsense_in_a_watch),
		cmocka_unit_test(list_cut_anywhere),
		cmocka_unit_test(watch_cut_anywhere),
		cmocka_unit_test(bad_kubeconfig),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
