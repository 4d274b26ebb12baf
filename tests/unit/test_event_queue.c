/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "base/strbuf.h"
#include "k8s/event_queue.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define SECOND 1000u
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)

/* 2023-11-14T22:13:20Z */
#define EPOCH UINT64_C(1700000000000000)

struct world {
	struct event_queue *queue;
	uint64_t now;            /* ms since the start of the test */
	unsigned statuses;       /* 'answers' given */
	const unsigned *answers; /* one each, the last one for ever; NULL: 201 */
	size_t n_answers;
	unsigned posts, patches;
	struct strbuf log; /* "SECONDS POST|PATCH STATUS series COUNT" */
	char *first;       /* path and body of the first request */
};

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	w->queue = event_queue_new("n1");
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	event_queue_free(w->queue);
	strbuf_done(&w->log);
	free(w->first);
	free(w);
	return 0;
}

static struct event_time time_of(const struct world *w)
{
	return (struct event_time){.monotonic_ms = 5000 + w->now, .wall_us = EPOCH + w->now * 1000};
}

/* Sends what is ripe, as the loop does. */
static void send_ripe(struct world *w)
{
	struct json_object *body, *series, *count;
	struct event_request r;
	unsigned http;

	while (event_queue_wait(w->queue, time_of(w)) == 0) {
		assert_true(event_queue_next(w->queue, time_of(w), &r));
		/* One at a time. */
		assert_int_equal(event_queue_wait(w->queue, time_of(w)), -1);
		http = w->answers ? w->answers[w->statuses < w->n_answers ? w->statuses : w->n_answers - 1]
				  : (r.patch ? 200 : 201);
		w->statuses++;
		*(r.patch ? &w->patches : &w->posts) += 1;
		body = json_tokener_parse(r.body);
		assert_non_null(body);
		strbuf_printf(&w->log, "%" PRIu64 " %s %u", w->now / 1000, r.patch ? "PATCH" : "POST", http);
		if (json_object_object_get_ex(body, "series", &series) &&
			json_object_object_get_ex(series, "count", &count))
			strbuf_printf(&w->log, " series %d", json_object_get_int(count));
		strbuf_puts(&w->log, "\n");
		json_object_put(body);
		if (!w->first)
			w->first = xasprintf("%s %s", r.path, r.body);
		event_queue_answer(w->queue, http, time_of(w), 0);
		event_request_done(&r);
	}
}

/* Time goes by, and what is to be sent is. Nothing is looked at without a reason. */
static void pass(struct world *w, uint64_t ms)
{
	uint64_t end = w->now + ms;
	unsigned wakes = 0;
	int64_t wait;

	send_ripe(w);
	while ((wait = event_queue_wait(w->queue, time_of(w))) >= 0 && w->now + (uint64_t)wait <= end) {
		w->now += (uint64_t)wait;
		send_ripe(w);
		assert_true(++wakes < 1000);
	}
	w->now = end;
}

static void happen(struct world *w, const char *reason, const char *note)
{
	struct node_event e = {.warning = true, .reason = reason, .action = "Accelerate", .note = note};

	event_queue_add(w->queue, &e, time_of(w));
}

static void expect(struct world *w, const char *log)
{
	assert_string_equal(w->log.data ? w->log.data : "", log);
	strbuf_clear(&w->log);
}

static void expect_results(const struct world *w, unsigned sent, unsigned aggregated, unsigned limited,
	unsigned displaced, unsigned failed)
{
	const unsigned want[EVENT_RESULTS] = {sent, aggregated, limited, displaced, failed};

	for (size_t i = 0; i < EVENT_RESULTS; i++)
		if (event_queue_results(w->queue)[i] != want[i])
			fail_msg("%s: %" PRIu64 " instead of %u", event_result_names[i],
				event_queue_results(w->queue)[i], want[i]);
}

static void test_one(void **state)
{
	struct world *w = *state;

	assert_int_equal(event_queue_wait(w->queue, time_of(w)), -1);
	w->now = 1234;
	happen(w, "AccelerationDegraded", "a \"note\"\nof \xc3\xa4 lines");
	pass(w, HOUR);
	expect(w, "1 POST 201\n");
	expect_results(w, 1, 0, 0, 0, 0);
	assert_int_equal(event_queue_wait(w->queue, time_of(w)), -1);
	assert_string_equal(w->first,
		"/apis/events.k8s.io/v1/namespaces/default/events "
		"{\"apiVersion\":\"events.k8s.io/v1\",\"kind\":\"Event\","
		"\"metadata\":{\"name\":\"n1.17979cfe7fb75880\",\"namespace\":\"default\"},"
		"\"eventTime\":\"2023-11-14T22:13:21.234000Z\",\"reportingController\":\"slipstream\","
		"\"reportingInstance\":\"slipstream-n1\",\"type\":\"Warning\","
		"\"reason\":\"AccelerationDegraded\",\"action\":\"Accelerate\","
		"\"note\":\"a \\\"note\\\"?of ?? lines\","
		"\"regarding\":{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"name\":\"n1\",\"uid\":\"n1\"}}");
}

static void test_long_texts(void **state)
{
	struct world *w = *state;
	char node[300], note[3000];
	struct json_object *body, *value;

	memset(node, 'n', sizeof(node));
	node[sizeof(node) - 1] = '\0';
	memset(note, 'x', sizeof(note));
	note[sizeof(note) - 1] = '\0';
	event_queue_free(w->queue);
	w->queue = event_queue_new(node);
	happen(w, "R", note);
	pass(w, 0);
	body = json_tokener_parse(strchr(w->first, ' ') + 1);
	assert_true(json_object_object_get_ex(body, "note", &value));
	assert_int_equal(json_object_get_string_len(value), 1024);
	assert_true(json_object_object_get_ex(body, "reportingInstance", &value));
	assert_int_equal(json_object_get_string_len(value), 128);
	assert_non_null(strstr(w->first, "\"name\":\"slipstream."));
	json_object_put(body);
}

/* The second begins a series, the others are counted; told every half hour and at the end. */
static void test_series(void **state)
{
	struct world *w = *state;

	happen(w, "R", "a");
	pass(w, MINUTE);
	happen(w, "R", "a");
	pass(w, MINUTE);
	happen(w, "R", "a");
	happen(w, "R", "b");
	pass(w, HOUR);
	expect(w, "0 POST 201\n60 PATCH 200 series 2\n120 POST 201\n480 PATCH 200 series 3\n");
	expect_results(w, 2, 2, 0, 0, 0);

	/* The series has ended: a new one. */
	happen(w, "R", "a");
	pass(w, MINUTE);
	expect(w, "3720 POST 201\n");

	/* One that does not end. */
	for (unsigned i = 0; i < 70; i++) {
		happen(w, "R", "a");
		pass(w, MINUTE);
	}
	expect(w, "3780 PATCH 200 series 2\n5580 PATCH 200 series 31\n7380 PATCH 200 series 61\n");
	pass(w, HOUR);
	expect(w, "8280 PATCH 200 series 71\n");
	assert_int_equal(event_queue_wait(w->queue, time_of(w)), -1);
}

/* What happens again before it was created is created with its series. */
static void test_series_at_once(void **state)
{
	struct world *w = *state;

	for (int i = 0; i < 3; i++)
		happen(w, "R", "a");
	pass(w, HOUR);
	expect(w, "0 POST 201 series 3\n");
}

static void test_expired_meanwhile(void **state)
{
	static const unsigned answers[] = {201, 404, 201, 200};
	struct world *w = *state;

	w->answers = answers;
	w->n_answers = ARRAY_SIZE(answers);
	happen(w, "R", "a");
	pass(w, MINUTE);
	happen(w, "R", "a");
	pass(w, HOUR);
	expect(w, "0 POST 201\n60 PATCH 404 series 2\n60 POST 201 series 2\n");
	expect_results(w, 2, 1, 0, 0, 0);
}

/* Whatever flaps, and however often its words change. */
static void test_limit(void **state)
{
	struct world *w = *state;
	char note[32];

	for (unsigned i = 0; i < 24 * 60; i++) {
		snprintf(note, sizeof(note), "note %u", i);
		happen(w, i % 2 ? "AccelerationDegraded" : "AccelerationRecovered", note);
		pass(w, MINUTE);
		if (i == 59)
			assert_in_range(w->posts + w->patches, 25, 25 + 12);
	}
	assert_int_equal(w->posts, 25 + 24 * 12 - 1);
	assert_int_equal(w->patches, 0);
	expect_results(w, w->posts, 0, 24 * 60 - w->posts, 0, 0);
}

/* The same two words again and again: two Events that count. */
static void test_flapping_is_two_series(void **state)
{
	struct world *w = *state;

	for (unsigned i = 0; i < 24 * 60; i++) {
		happen(w, i % 2 ? "AccelerationDegraded" : "AccelerationRecovered", "x");
		pass(w, MINUTE);
	}
	assert_int_equal(w->posts, 2);
	assert_in_range(w->patches, 2 * 46, 2 * 50);
	expect_results(w, 2, 24 * 60 - 2, 0, 0, 0);
}

/* A series that starts without a token is told later. */
static void test_series_without_token(void **state)
{
	struct world *w = *state;
	char note[32];

	for (unsigned i = 0; i < 25; i++) {
		snprintf(note, sizeof(note), "note %u", i);
		happen(w, "R", note);
		pass(w, SECOND);
	}
	strbuf_clear(&w->log);
	happen(w, "R", "note 24");
	happen(w, "R", "another");
	pass(w, HOUR);
	expect(w, "385 PATCH 200 series 2\n");
	expect_results(w, 25, 1, 1, 0, 0);
}

static void test_away(void **state)
{
	static const unsigned answers[] = {0, 503, 429, 500, 401, 0, 201};
	struct world *w = *state;

	w->answers = answers;
	w->n_answers = ARRAY_SIZE(answers);
	happen(w, "R", "a");
	happen(w, "R", "b");
	pass(w, HOUR);
	expect(w,
		"0 POST 0\n10 POST 503\n30 POST 429\n70 POST 500\n150 POST 401\n310 POST 0\n310 POST 201\n");
	expect_results(w, 1, 0, 0, 0, 1);
	assert_int_equal(event_queue_wait(w->queue, time_of(w)), -1);
}

static void test_refused(void **state)
{
	static const unsigned answers[] = {403, 201, 403, 201};
	struct world *w = *state;

	w->answers = answers;
	w->n_answers = ARRAY_SIZE(answers);
	happen(w, "R", "a");
	pass(w, MINUTE);
	expect(w, "0 POST 403\n");
	expect_results(w, 0, 0, 0, 0, 1);
	/* It is not there: no series of it. */
	happen(w, "R", "a");
	pass(w, MINUTE);
	happen(w, "R", "a");
	pass(w, HOUR);
	expect(w, "60 POST 201\n120 PATCH 403 series 2\n");
	expect_results(w, 1, 1, 0, 0, 2);
	assert_int_equal(event_queue_wait(w->queue, time_of(w)), -1);
}

/* The answer to the first try was lost. */
static void test_there_already(void **state)
{
	static const unsigned answers[] = {0, 409, 200};
	struct world *w = *state;

	w->answers = answers;
	w->n_answers = ARRAY_SIZE(answers);
	happen(w, "R", "a");
	pass(w, SECOND);
	happen(w, "R", "a");
	pass(w, HOUR);
	expect(w, "0 POST 0\n10 POST 409 series 2\n10 PATCH 200 series 2\n");
	expect_results(w, 1, 1, 0, 0, 0);
}

/* The oldest gives way, never the one whose request is under way. */
static void test_full(void **state)
{
	struct world *w = *state;
	struct event_request r;
	char note[32];

	happen(w, "R", "under way");
	assert_true(event_queue_next(w->queue, time_of(w), &r));
	event_request_done(&r);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(note, sizeof(note), "note %u", i);
		happen(w, "R", note);
	}
	expect_results(w, 0, 0, 0, 5, 0);
	assert_int_equal(event_queue_answer(w->queue, 201, time_of(w), 0), EVENT_OUTCOME_DONE);
	pass(w, 0);
	assert_int_equal(w->posts, 15);
	assert_non_null(strstr(w->first, "\"note 5\""));
	/* What is only remembered gives way to what is new, and that is no loss. */
	happen(w, "R", "new");
	pass(w, 0);
	assert_int_equal(w->posts, 16);
	expect_results(w, 17, 0, 0, 5, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_texts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_series, setup, teardown),
		cmocka_unit_test_setup_teardown(test_series_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_expired_meanwhile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flapping_is_two_series, setup, teardown),
		cmocka_unit_test_setup_teardown(test_series_without_token, setup, teardown),
		cmocka_unit_test_setup_teardown(test_away, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_there_already, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
