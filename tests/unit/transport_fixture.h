/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_UNIT_TRANSPORT_FIXTURE_H
#define TESTS_UNIT_TRANSPORT_FIXTURE_H

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

/* Shared by the test_transport_*.c programs. */

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

static inline void on_headers(void *arg, unsigned http, unsigned retry_after_s)
{
	struct call *c = arg;

	c->http = http;
	c->retry_after_s = retry_after_s;
}

static inline void on_data(void *arg, const char *data, size_t len)
{
	struct call *c = arg;

	strbuf_add(&c->body, data, len);
}

static inline void on_done(void *arg, const struct transport_result *result)
{
	struct call *c = arg;

	c->done = true;
	c->r = NULL;
	c->result = *result;
}

static const struct transport_callbacks callbacks = {on_headers, on_data, on_done};

static inline void get(struct fixture *f, struct call *c, const char *path)
{
	strbuf_done(&c->body);
	memset(c, 0, sizeof(*c));
	c->r = transport_get(f->t, path, true, &callbacks, c);
}

static inline void on_warning(void *arg, const char *text)
{
	struct fixture *f = arg;

	strbuf_printf(&f->warnings, "%s\n", text);
}

static inline void on_trouble(void *arg, const struct error *err)
{
	struct fixture *f = arg;

	f->trouble = *err;
}

static inline void timed_out(evutil_socket_t fd, short events, void *arg)
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

static inline void servers(struct fixture *f, struct answer *answers, size_t n)
{
	f->base = event_base_new();
	f->api.base = f->tls.base = f->base;
	f->api.answers = answers;
	f->api.n_answers = n;
	assert_true(api_server_listen(&f->api, 0));
	f->tls.backend = f->api.port;
	assert_true(tls_server_listen(&f->tls, 0));
}

static inline void trust(struct kubeconfig *k, const char *pem)
{
	free(k->ca.data);
	k->ca.data = xstrdup(pem);
	k->ca.len = strlen(pem);
}

/* 'f->k' may be filled already; the rest of it is filled here. */
static inline void client(struct fixture *f)
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

static inline void finish(struct fixture *f)
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
static inline const char *fetch(struct fixture *f, const char *path)
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

#endif
