/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "api_server.h"
#include "k8s/transport.h"
#include "tls_server.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

/* One transport against one scripted server behind TLS. */
struct fixture {
	struct event_base *base;
	struct api_server api;
	struct tls_server tls;
	struct kubeconfig k;
	struct transport *t;
	struct strbuf warnings;
	struct error trouble;
	struct error err; /* of transport_new() */
};

/* One request and what came of it. */
struct call {
	struct transport_request *r;
	unsigned http, retry_after_s;
	struct strbuf body;
	bool done;
	struct transport_result result;
};

static void on_headers(void *arg, unsigned http, unsigned retry_after_s)
{
	struct call *c = arg;

	c->http = http;
	c->retry_after_s = retry_after_s;
}

static void on_data(void *arg, const char *data, size_t len)
{
	struct call *c = arg;

	strbuf_add(&c->body, data, len);
}

static void on_done(void *arg, const struct transport_result *result)
{
	struct call *c = arg;

	c->done = true;
	c->r = NULL;
	c->result = *result;
}

static const struct transport_callbacks callbacks = {on_headers, on_data, on_done};

static void get(struct fixture *f, struct call *c, const char *path)
{
	strbuf_done(&c->body);
	memset(c, 0, sizeof(*c));
	c->r = transport_get(f->t, path, true, &callbacks, c);
}

static void on_warning(void *arg, const char *text)
{
	struct fixture *f = arg;

	strbuf_printf(&f->warnings, "%s\n", text);
}

static void on_trouble(void *arg, const struct error *err)
{
	struct fixture *f = arg;

	f->trouble = *err;
}

static void timed_out(evutil_socket_t fd, short events, void *arg)
{
	(void)fd;
	(void)events;
	*(bool *)arg = true;
}

/* Runs the loop until 'condition' or for so long. Returns the condition. */
#define RUN_UNTIL(f, ms, condition)                                                                          \
	({                                                                                                   \
		struct timeval tv_ = {(ms) / 1000, (ms) % 1000 * 1000};                                      \
		bool over_ = false;                                                                          \
		struct event *limit_ = evtimer_new((f)->base, timed_out, &over_);                            \
                                                                                                             \
		event_add(limit_, &tv_);                                                                     \
		while (!over_ && !(condition))                                                               \
			event_base_loop((f)->base, EVLOOP_ONCE);                                             \
		event_free(limit_);                                                                          \
		(condition);                                                                                 \
	})

static void servers(struct fixture *f, struct answer *answers, size_t n)
{
	f->base = event_base_new();
	f->api.base = f->tls.base = f->base;
	f->api.answers = answers;
	f->api.n_answers = n;
	assert_true(api_server_listen(&f->api, 0));
	f->tls.backend = f->api.port;
	assert_true(tls_server_listen(&f->tls, 0));
}

static void trust(struct kubeconfig *k, const char *pem)
{
	free(k->ca.data);
	k->ca.data = xstrdup(pem);
	k->ca.len = strlen(pem);
}

/* 'f->k' may be filled already; the rest of it is filled here. */
static void client(struct fixture *f)
{
	struct transport_owner owner = {.trouble = on_trouble, .warning = on_warning, .arg = f};

	if (!f->k.server)
		f->k.server =
			xasprintf(f->tls.ipv6 ? "https://[::1]:%u" : "https://127.0.0.1:%u", f->tls.port);
	f->k.origin = xstrdup("test");
	f->k.server_where = xstrdup("config:1");
	if (!f->k.ca.data && !f->k.insecure && !f->k.ca.path)
		trust(&f->k, f->tls.ca);
	if (transport_new(f->base, &f->k, &owner, &f->t, &f->err))
		fail_msg("%s", error_text(&f->err));
}

static void finish(struct fixture *f)
{
	transport_free(f->t);
	kubeconfig_done(&f->k);
	tls_server_free(&f->tls);
	api_server_stop(&f->api);
	strbuf_done(&f->api.log);
	strbuf_done(&f->warnings);
	event_base_free(f->base);
	memset(f, 0, sizeof(*f));
}

/* Gets 'path' and says what came: "200 BODY" or the words of the failure. */
static const char *fetch(struct fixture *f, const char *path)
{
	static char said[2048];
	struct call c = {0};

	get(f, &c, path);
	assert_true(RUN_UNTIL(f, 5000, c.done));
	if (c.result.failed)
		snprintf(said, sizeof(said), "%s: %s",
			c.result.failure == SOURCE_FAILURE_TLS ? "TLS" : "CONNECT",
			error_text(&c.result.error));
	else
		snprintf(said, sizeof(said), "%u %s", c.result.http, c.body.data ? c.body.data : "");
	strbuf_done(&c.body);
	return said;
}

#define assert_has(text, what)                                                                               \
	do {                                                                                                 \
		const char *text_ = (text);                                                                  \
		if (!strstr(text_, what))                                                                    \
			fail_msg("\"%s\" is not in \"%s\"", what, text_);                                    \
	} while (0)

#define ANSWER(match_, body_)                                                                                \
	{                                                                                                    \
		.match = (match_), .times = -1, .status = "200 OK", .body = (body_)                          \
	}
#define WATCH(match_)                                                                                        \
	{                                                                                                    \
		.match = (match_), .times = -1, .status = "200 OK", .body = "{}\n", .open = true             \
	}

/* --- */

static void one_connection_for_all(void **state)
{
	struct answer answers[] = {ANSWER("GET /one ", "1"), WATCH("GET /watch "), ANSWER("GET /two ", "2")};
	struct fixture f = {0};
	struct call watch[2] = {0};
	struct call other[2] = {0};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	/* All at once: the first goes alone and tells the protocol. */
	get(&f, &watch[0], "/watch");
	get(&f, &watch[1], "/watch");
	get(&f, &other[0], "/one");
	get(&f, &other[1], "/two");
	assert_true(RUN_UNTIL(&f, 5000, other[0].done && other[1].done && watch[1].body.len));
	assert_string_equal(other[0].body.data, "1");
	assert_string_equal(other[1].body.data, "2");
	assert_string_equal(watch[0].body.data, "{}\n");
	assert_int_equal(f.tls.connections, 1);
	assert_int_equal(transport_connections(f.t), 1);
	assert_true(transport_bytes_received(f.t) > 100);
	assert_has(f.api.log.data, "user-agent: slipstream/");
	transport_cancel(f.t, watch[0].r);
	transport_cancel(f.t, watch[1].r);
	for (size_t i = 0; i < 2; i++) {
		strbuf_done(&watch[i].body);
		strbuf_done(&other[i].body);
	}
	finish(&f);
}

static void http1_works_too(void **state)
{
	struct answer answers[] = {WATCH("GET /watch "), ANSWER("GET /one ", "1")};
	struct fixture f = {.tls.http1 = true};
	struct call watch = {0};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	get(&f, &watch, "/watch");
	assert_string_equal(fetch(&f, "/one"), "200 1");
	assert_string_equal(watch.body.data, "{}\n");
	assert_int_equal(f.tls.connections, 2);
	/* A polite end of a body without a length is its end. */
	api_server_stop(&f.api);
	assert_true(RUN_UNTIL(&f, 5000, watch.done));
	assert_false(watch.result.failed);
	strbuf_done(&watch.body);
	finish(&f);
}

static void a_truncated_body_is_a_failure(void **state)
{
	struct answer answers[] = {
		{.match = "GET /", .times = -1, .status = "200 OK", .body = "0123456789", .cut = 80}};

	(void)state;
	for (int http1 = 0; http1 < 2; http1++) {
		struct fixture f = {.tls.http1 = http1};

		servers(&f, answers, ARRAY_SIZE(answers));
		client(&f);
		assert_has(fetch(&f, "/"), "CONNECT: ");
		finish(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_connection_for_all),
		cmocka_unit_test(http1_works_too),
		cmocka_unit_test(a_truncated_body_is_a_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
