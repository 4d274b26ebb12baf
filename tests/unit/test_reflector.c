/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "k8s/reflector.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/*
 * A case is a script: what happens and when, and what has to be answered, as text:
 *	"list V=0"		LIST with resourceVersion 0 ("V=-": sends none, "C=x": continues)
 *	"watch V=5 T=450"	WATCH, +f with the field selector
 *	cancel abort end begin token healthy problem, and the deadline as "@ms" after the step's time
 */
struct line {
	uint64_t at; /* ms since the last line */
	struct reflector_input in;
	const char *expect;
};

#define TICK .in = {.kind = REFLECTOR_TICK}
#define TICK_R(r) .in = {.kind = REFLECTOR_TICK, .random = (r)}
#define OPENED .in = {.kind = REFLECTOR_OPENED}
#define LISTED(v) .in = {.kind = REFLECTOR_DONE, .code = 200, .version = (v), .random = 0.5}
#define PAGE(v, c) .in = {.kind = REFLECTOR_DONE, .code = 200, .version = (v), .cont = (c), .random = 0.5}
#define STATUS(c) .in = {.kind = REFLECTOR_DONE, .code = (c)}
#define TOO_LARGE .in = {.kind = REFLECTOR_DONE, .code = 504, .version_too_large = true}
#define RETRY(c, s) .in = {.kind = REFLECTOR_DONE, .code = (c), .retry_after_s = (s)}
#define NO_ANSWER(r) .in = {.kind = REFLECTOR_DONE, .cut = true, .random = (r)}
#define CUT .in = {.kind = REFLECTOR_DONE, .code = 200, .cut = true, .random = 0.5}
#define BAD .in = {.kind = REFLECTOR_DONE, .code = 200, .bad_body = true}
#define EOF_ .in = {.kind = REFLECTOR_DONE, .code = 200, .random = 0.5}
#define EVENT(e, v) .in = {.kind = REFLECTOR_EVENT, .event = REFLECTOR_##e, .version = (v)}
#define ERROR(c) .in = {.kind = REFLECTOR_EVENT, .event = REFLECTOR_ERROR, .code = (c)}

/* The way to a running watch at version 5. */
#define WATCHING                                                                                             \
	{0, TICK, "begin list V=0 @90000"}, {10, LISTED("5"), "end watch V=5 T=450 healthy @60000"},         \
	{                                                                                                    \
		10, OPENED, "healthy @480000"                                                                \
	}

static void text_of(const struct reflector_output *out, uint64_t now, char *buf, size_t size)
{
	static const char *const names[] = {
		"cancel", "abort", "end", "begin", "token", NULL, "healthy", "problem"};
	const struct reflector_request *q = &out->request;
	size_t n = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!(out->actions & 1U << i))
			continue;
		if (names[i]) {
			n += (size_t)snprintf(buf + n, size - n, "%s ", names[i]);
			continue;
		}
		n += (size_t)snprintf(buf + n, size - n, "%s", q->watch ? "watch" : "list");
		if (q->version)
			n += (size_t)snprintf(buf + n, size - n, " V=%s", q->version[0] ? q->version : "-");
		if (q->cont)
			n += (size_t)snprintf(buf + n, size - n, " C=%s", q->cont);
		if (q->watch)
			n += (size_t)snprintf(buf + n, size - n, " T=%u", q->timeout_s);
		n += (size_t)snprintf(buf + n, size - n, "%s ", q->field_selector ? " +f" : "");
	}
	snprintf(buf + n, size - n, "@%llu", (unsigned long long)(out->deadline - now));
}

static void run(bool field_selector, const struct line *lines, size_t n)
{
	struct reflector *r = reflector_new(field_selector);
	uint64_t now = 1000000;

	for (size_t i = 0; i < n; i++) {
		struct reflector_output out;
		char text[256];

		now += lines[i].at;
		reflector_step(r, &lines[i].in, now, &out);
		text_of(&out, now, text, sizeof(text));
		if (strcmp(text, lines[i].expect))
			fail_msg("line %zu: got \"%s\", expected \"%s\"", i, text, lines[i].expect);
	}
	reflector_free(r);
}

#define RUN(selector, ...)                                                                                   \
	do {                                                                                                 \
		const struct line lines_[] = {__VA_ARGS__};                                                  \
		run(selector, lines_, ARRAY_SIZE(lines_));                                                   \
	} while (0)

static void list_then_watch(void **state)
{
	(void)state;
	RUN(false, WATCHING, {5000, EVENT(ADDED, "6"), "@475000"}, {0, EVENT(BOOKMARK, "9"), "@475000"},
		{0, EVENT(DELETED, "11"), "@475000"}, {0, EVENT(MODIFIED, NULL), "@475000"},
		/* a clean end: the next one at once, from the last version */
		{200, EOF_, "watch V=11 T=450 @60000"}, {0, OPENED, "healthy @480000"},
		/* and so does a cut */
		{2000, CUT, "watch V=11 T=450 @60000"});
}

static void watch_timeouts_are_spread(void **state)
{
	(void)state;
	RUN(false, {0, TICK, "begin list V=0 @90000"},
		{0, .in = {.kind = REFLECTOR_DONE, .code = 200, .version = "5"},
			"end watch V=5 T=300 healthy @60000"},
		{0, OPENED, "healthy @330000"},
		{2000, .in = {.kind = REFLECTOR_DONE, .code = 200, .random = 0.99999},
			"watch V=5 T=600 @60000"});
}

static void early_tick_does_nothing(void **state)
{
	(void)state;
	RUN(false, WATCHING, {479999, TICK, "@1"}, {1, TICK, "cancel watch V=5 T=300 @60000"});
}

static void first_list_fails(void **state)
{
	(void)state;
	RUN(false, {0, TICK, "begin list V=0 @90000"}, {5, NO_ANSWER(0), "abort problem @800"},
		{800, TICK, "begin list V=0 @90000"}, {0, CUT, "abort problem @1200"},
		{1200, TICK, "begin list V=0 @90000"}, {0, BAD, "abort problem @1600"},
		{1600, TICK, "begin list V=0 @90000"}, {90000, TICK, "cancel abort problem @1600"},
		{1600, TICK, "begin list V=0 @90000"},
		/* a list without a version is none */
		{0, LISTED(NULL), "abort problem @4800"});
}

static void backoff(void **state)
{
	(void)state;
	/* doubling, with the jitter [d, 2d), a ceiling, and a fresh start after two minutes */
	RUN(false, {0, TICK, "begin list V=0 @90000"}, {0, NO_ANSWER(0.999999), "abort problem @1599"},
		{1599, TICK, "begin list V=0 @90000"}, {0, NO_ANSWER(0), "abort problem @1600"},
		{1600, TICK, "begin list V=0 @90000"}, {0, NO_ANSWER(0), "abort problem @3200"},
		{3200, TICK, "begin list V=0 @90000"}, {0, NO_ANSWER(0), "abort problem @6400"},
		{6400, TICK, "begin list V=0 @90000"}, {0, NO_ANSWER(0), "abort problem @12800"},
		{12800, TICK, "begin list V=0 @90000"}, {0, NO_ANSWER(0), "abort problem @25600"},
		{25600, TICK, "begin list V=0 @90000"}, {0, NO_ANSWER(0), "abort problem @30000"},
		{30000, TICK, "begin list V=0 @90000"}, {0, NO_ANSWER(0.5), "abort problem @45000"},
		{45000, TICK, "begin list V=0 @90000"},
		{0, LISTED("5"), "end watch V=5 T=450 healthy @60000"}, {0, OPENED, "healthy @480000"},
		{75001, EOF_, "watch V=5 T=450 @60000"}, {0, NO_ANSWER(0), "problem @800"});
	/* a short time of health does not start over */
	RUN(false, {0, TICK, "begin list V=0 @90000"}, {0, NO_ANSWER(0), "abort problem @800"},
		{800, TICK, "begin list V=0 @90000"}, {0, LISTED("5"), "end watch V=5 T=450 healthy @60000"},
		{0, OPENED, "healthy @480000"}, {119200, EOF_, "watch V=5 T=450 @60000"},
		{0, NO_ANSWER(0), "problem @1600"});
}

static void very_short_watch(void **state)
{
	(void)state;
	RUN(false, WATCHING, {999, EOF_, "@1200"}, {1200, TICK, "watch V=5 T=300 @60000"},
		{0, OPENED, "healthy @330000"}, {0, EVENT(BOOKMARK, "7"), "@330000"},
		/* short, but it brought something */
		{1, EOF_, "watch V=7 T=450 @60000"}, {0, OPENED, "healthy @480000"},
		{1000, EOF_, "watch V=7 T=450 @60000"});
}

static void watch_expires(void **state)
{
	(void)state;
	/* as event, relisted at the last version; and again as status, where the list has expired, too */
	RUN(false, WATCHING, {1000, EVENT(ADDED, "8"), "@479000"}, {0, ERROR(410), "cancel @800"},
		{800, TICK, "begin list V=8 @90000"},
		{0, LISTED("20"), "end watch V=20 T=450 healthy @60000"}, {0, STATUS(410), "@1600"},
		{1600, TICK, "begin list V=20 @90000"}, {0, STATUS(410), "abort begin list V=- @90000"},
		{0, STATUS(500), "abort problem @3200"},
		/* "" until a list succeeds, then not any more */
		{3200, TICK, "begin list V=- @90000"}, {0, STATUS(410), "abort problem @6400"},
		{6400, TICK, "begin list V=- @90000"},
		{0, LISTED("30"), "end watch V=30 T=450 healthy @60000"}, {0, STATUS(410), "@12800"},
		{12800, TICK, "begin list V=30 @90000"});
	/* a server that has come back and forgotten the version does not have to wait as one that is away */
	RUN(false, WATCHING, {2000, CUT, "watch V=5 T=450 @60000"}, {0, NO_ANSWER(0), "problem @800"},
		{800, TICK, "watch V=5 T=300 @60000"}, {0, NO_ANSWER(0), "problem @1600"},
		{1600, TICK, "watch V=5 T=300 @60000"}, {0, NO_ANSWER(0), "problem @3200"},
		{3200, TICK, "watch V=5 T=300 @60000"}, {0, STATUS(403), "problem @800"},
		{800, TICK, "watch V=5 T=300 @60000"}, {0, OPENED, "healthy @330000"},
		{0, ERROR(410), "cancel @1600"});
}

static void version_too_large(void **state)
{
	(void)state;
	RUN(false, {0, TICK, "begin list V=0 @90000"}, {0, TOO_LARGE, "abort begin list V=- @90000"},
		{0, LISTED("3"), "end watch V=3 T=450 healthy @60000"}, {0, TOO_LARGE, "@800"},
		{800, TICK, "begin list V=- @90000"}, {0, LISTED("4"), "end watch V=4 T=450 healthy @60000"},
		{0, OPENED, "healthy @480000"},
		{0,
			.in = {.kind = REFLECTOR_EVENT,
				.event = REFLECTOR_ERROR,
				.code = 504,
				.version_too_large = true},
			"cancel @1600"},
		{1600, TICK, "begin list V=- @90000"});
	/* a 504 of another kind is a server's failure */
	RUN(false, {0, TICK, "begin list V=0 @90000"}, {0, STATUS(504), "abort problem @800"});
}

static void pages(void **state)
{
	(void)state;
	RUN(false, {0, TICK, "begin list V=0 @90000"}, {0, PAGE("5", "abc"), "list C=abc @90000"},
		{0, PAGE("5", "def"), "list C=def @90000"},
		{0, LISTED("5"), "end watch V=5 T=450 healthy @60000"});
	/* an expired continue: once in full at the version first asked for */
	RUN(false, {0, TICK, "begin list V=0 @90000"}, {0, PAGE("5", "abc"), "list C=abc @90000"},
		{0, STATUS(410), "abort begin list V=0 @90000"},
		{0, STATUS(410), "abort begin list V=- @90000"},
		{0, LISTED("6"), "end watch V=6 T=450 healthy @60000"});
	/* a failure within gives up all pages */
	RUN(false, {0, TICK, "begin list V=0 @90000"}, {0, PAGE("5", "abc"), "list C=abc @90000"},
		{0, NO_ANSWER(0), "abort problem @800"}, {800, TICK, "begin list V=0 @90000"});
}

static void watch_refused_keeps_version(void **state)
{
	(void)state;
	RUN(false, WATCHING, {2000, EVENT(ADDED, "6"), "@478000"}, {0, CUT, "watch V=6 T=450 @60000"},
		{0, NO_ANSWER(0), "problem @800"}, {800, TICK, "watch V=6 T=300 @60000"},
		{0, RETRY(429, 7), "problem @7000"}, {7000, TICK, "watch V=6 T=300 @60000"},
		{0, RETRY(429, 1), "problem @1600"}, {1600, TICK, "watch V=6 T=300 @60000"},
		{0, RETRY(503, 100000), "problem @300000"}, {300000, TICK, "watch V=6 T=300 @60000"},
		/* no answer at all */
		{60000, TICK, "cancel problem @800"}, {800, TICK, "watch V=6 T=300 @60000"});
}

static void server_errors_end_in_a_relist(void **state)
{
	(void)state;
	RUN(false, WATCHING, {2000, BAD, "problem @800"}, {800, TICK, "watch V=5 T=300 @60000"},
		{0, STATUS(500), "problem @1600"}, {1600, TICK, "watch V=5 T=300 @60000"},
		{0, STATUS(503), "problem @3200"}, {3200, TICK, "watch V=5 T=300 @60000"},
		{0, BAD, "problem @6400"}, {6400, TICK, "watch V=5 T=300 @60000"}, {0, BAD, "problem @12800"},
		{12800, TICK, "begin list V=5 @90000"});
	/* an event in between: the watch works */
	RUN(false, WATCHING, {2000, BAD, "problem @800"}, {800, TICK, "watch V=5 T=300 @60000"},
		{0, BAD, "problem @1600"}, {1600, TICK, "watch V=5 T=300 @60000"}, {0, BAD, "problem @3200"},
		{3200, TICK, "watch V=5 T=300 @60000"}, {0, BAD, "problem @6400"},
		{6400, TICK, "watch V=5 T=300 @60000"}, {0, OPENED, "healthy @330000"},
		{0, EVENT(ADDED, "6"), "@330000"}, {0, BAD, "problem @12800"},
		{12800, TICK, "watch V=6 T=300 @60000"});
}

static void error_events(void **state)
{
	(void)state;
	RUN(false, WATCHING, {2000, ERROR(500), "cancel problem @800"}, {800, TICK, "begin list V=5 @90000"});
	RUN(false, WATCHING, {2000, ERROR(429), "cancel problem @800"},
		{800, TICK, "watch V=5 T=300 @60000"});
	RUN(false, WATCHING, {2000, ERROR(404), "cancel problem @800"}, {800, TICK, "begin list V=5 @90000"});
}

static void other_statuses_relist(void **state)
{
	(void)state;
	RUN(false, WATCHING, {2000, EOF_, "watch V=5 T=450 @60000"}, {0, STATUS(400), "problem @800"},
		{800, TICK, "begin list V=5 @90000"}, {0, STATUS(404), "abort problem @1600"});
}

static void field_selector_refused(void **state)
{
	(void)state;
	RUN(true, {0, TICK, "begin list V=0 +f @90000"}, {0, STATUS(400), "abort begin list V=0 @90000"},
		{0, LISTED("5"), "end watch V=5 T=450 healthy @60000"}, {0, OPENED, "healthy @480000"},
		{2000, EOF_, "watch V=5 T=450 @60000"}, {0, STATUS(410), "@800"},
		{800, TICK, "begin list V=5 @90000"}, {0, STATUS(400), "abort problem @1600"});
	RUN(true, {0, TICK, "begin list V=0 +f @90000"},
		{0, LISTED("5"), "end watch V=5 T=450 +f healthy @60000"},
		{0, STATUS(400), "watch V=5 T=300 @60000"});
	/* an ERROR event with 400 says nothing about selectors */
	RUN(true, {0, TICK, "begin list V=0 +f @90000"},
		{0, LISTED("5"), "end watch V=5 T=450 +f healthy @60000"}, {0, OPENED, "healthy @480000"},
		{0, ERROR(400), "cancel problem @800"}, {800, TICK, "begin list V=5 +f @90000"});
}

static void unauthorized(void **state)
{
	(void)state;
	RUN(false, {0, TICK, "begin list V=0 @90000"}, {0, STATUS(401), "abort token problem @800"},
		{800, TICK, "begin list V=0 @90000"}, {0, LISTED("5"), "end watch V=5 T=450 healthy @60000"},
		{0, STATUS(401), "token problem @1600"}, {1600, TICK, "watch V=5 T=300 @60000"});
}

static void forbidden(void **state)
{
	(void)state;
	RUN(false, {0, TICK, "begin list V=0 @90000"}, {0, STATUS(403), "abort problem @800"},
		{800, TICK, "begin list V=0 @90000"}, {0, LISTED("5"), "end watch V=5 T=450 healthy @60000"},
		{0, .in = {.kind = REFLECTOR_DONE, .code = 403, .random = 0.5}, "problem @2400"},
		{2400, TICK_R(0.5), "watch V=5 T=450 @60000"});
}

static void late_inputs_are_ignored(void **state)
{
	(void)state;
	RUN(false, {0, TICK, "begin list V=0 @90000"}, {0, EVENT(ADDED, "77"), "@90000"},
		{0, OPENED, "@90000"}, {0, NO_ANSWER(0), "abort problem @800"}, {0, LISTED("88"), "@800"},
		{0, EVENT(ADDED, "99"), "@800"}, {800, TICK, "begin list V=0 @90000"});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(list_then_watch),
		cmocka_unit_test(watch_timeouts_are_spread),
		cmocka_unit_test(early_tick_does_nothing),
		cmocka_unit_test(first_list_fails),
		cmocka_unit_test(backoff),
		cmocka_unit_test(very_short_watch),
		cmocka_unit_test(watch_expires),
		cmocka_unit_test(version_too_large),
		cmocka_unit_test(pages),
		cmocka_unit_test(watch_refused_keeps_version),
		cmocka_unit_test(server_errors_end_in_a_relist),
		cmocka_unit_test(error_events),
		cmocka_unit_test(other_statuses_relist),
		cmocka_unit_test(field_selector_refused),
		cmocka_unit_test(unauthorized),
		cmocka_unit_test(forbidden),
		cmocka_unit_test(late_inputs_are_ignored),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
