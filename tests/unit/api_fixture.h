/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_UNIT_API_FIXTURE_H
#define TESTS_UNIT_API_FIXTURE_H

#include "api_server.h"
#include "base/mem.h"
#include "k8s/source.h"
#include "tls_server.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

/* Shared by test_api_source.c, test_api_memory.c and test_captures.c. */

enum protocol { PLAIN, HTTPS_1, HTTPS_2 };

/* One source against one scripted server. Several may share a loop. */
struct fixture {
	struct event_base *base; /* NULL: one of its own */
	enum protocol protocol;
	struct api_options options; /* without the kubeconfig */
	struct answer *answers;
	size_t n_answers;
	void (*on_problem)(struct fixture *f);

	bool own_base;
	struct api_server server;
	struct tls_server tls;
	struct cluster *cluster;
	struct source *source;
	unsigned changes;
	unsigned problems;
	struct error last;
	struct strbuf told; /* all of them, a line each */
};

static char folder[] = "/tmp/slipstream-api-XXXXXX";

static inline char *file_path(const char *name)
{
	return xasprintf("%s/%s", folder, name);
}

static inline void write_file(const char *name, const char *text)
{
	CLEANUP_FREE char *path = file_path(name);
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static inline void changed(void *arg)
{
	struct fixture *f = arg;

	f->changes++;
}

static inline void problem(void *arg, const struct error *err)
{
	struct fixture *f = arg;

	f->problems++;
	f->last = *err;
	strbuf_printf(&f->told, "%s\n", error_text(err));
	if (f->on_problem)
		f->on_problem(f);
}

static inline char *trusted(const char *pem)
{
	size_t len = strlen(pem);
	CLEANUP_FREE char *base64 = xcalloc(1, len / 3 * 4 + 5);

	EVP_EncodeBlock((unsigned char *)base64, (const unsigned char *)pem, (int)len);
	return xasprintf(", certificate-authority-data: %s", base64);
}

static inline void connect_source(struct fixture *f)
{
	CLEANUP_FREE char *path = file_path("config");
	CLEANUP_FREE char *ca = f->protocol == PLAIN ? NULL : trusted(f->tls.ca);
	CLEANUP_FREE char *text =
		xasprintf("current-context: c\n"
			  "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
			  "clusters: [{name: k, cluster: {server: '%s://127.0.0.1:%u'%s}}]\n"
			  "users: [{name: u, user: {tokenFile: token}}]\n",
			ca ? "https" : "http", ca ? f->tls.port : f->server.port, ca ? ca : "");
	struct source_callbacks cb = {changed, problem, f};
	struct error err;

	write_file("config", text);
	write_file("token", "one\n");
	f->options.kubeconfig = path;
	f->cluster = cluster_new();
	if (api_source_new(f->base, f->cluster, &f->options, &cb, &f->source, &err))
		fail_msg("%s", error_text(&err));
	f->options.kubeconfig = NULL;
}

/* Everything above 'own_base' is set, and what is below zero. */
static inline void begin(struct fixture *f)
{
	f->own_base = !f->base;
	if (f->own_base)
		f->base = event_base_new();
	f->server.base = f->tls.base = f->base;
	f->server.answers = f->answers;
	f->server.n_answers = f->n_answers;
	assert_true(api_server_listen(&f->server, 0));
	f->tls.backend = f->server.port;
	f->tls.http1 = f->protocol == HTTPS_1;
	if (f->protocol != PLAIN)
		assert_true(tls_server_listen(&f->tls, 0));
	connect_source(f);
}

static inline void start(struct fixture *f, struct answer *answers, size_t n)
{
	*f = (struct fixture){.answers = answers, .n_answers = n};
	begin(f);
}

static inline void finish(struct fixture *f)
{
	source_free(f->source);
	cluster_free(f->cluster);
	if (f->protocol != PLAIN)
		tls_server_free(&f->tls);
	api_server_stop(&f->server);
	strbuf_done(&f->server.log);
	strbuf_done(&f->told);
	if (f->own_base)
		event_base_free(f->base);
}

static inline void time_is_up(evutil_socket_t fd, short events, void *arg)
{
	(void)fd;
	(void)events;
	*(bool *)arg = true;
}

/* Runs the loop until 'condition' or for so long. Returns the condition. */
#define RUN_UNTIL_ON(loop, ms, condition)                                                                    \
	({                                                                                                   \
		struct timeval tv_ = {(ms) / 1000, (ms) % 1000 * 1000};                                      \
		bool over_ = false;                                                                          \
		struct event *limit_ = evtimer_new(loop, time_is_up, &over_);                                \
                                                                                                             \
		event_add(limit_, &tv_);                                                                     \
		while (!over_ && !(condition))                                                               \
			event_base_loop(loop, EVLOOP_ONCE);                                                  \
		event_free(limit_);                                                                          \
		(condition);                                                                                 \
	})
#define RUN_UNTIL(f, ms, condition) RUN_UNTIL_ON((f)->base, ms, condition)

static inline struct source_status status_of(const struct fixture *f)
{
	struct source_status s;

	source_status(f->source, &s);
	return s;
}

static inline unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	for (; text && (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}

static inline int make_folder(void **state)
{
	(void)state;
	unsetenv("http_proxy");
	unsetenv("https_proxy");
	unsetenv("HTTPS_PROXY");
	unsetenv("all_proxy");
	unsetenv("ALL_PROXY");
	return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
	CLEANUP_FREE char *config = file_path("config");
	CLEANUP_FREE char *token = file_path("token");

	(void)state;
	unlink(config);
	unlink(token);
	return rmdir(folder);
}

#define SERVICE(name, version)                                                                               \
	"{\"metadata\":{\"namespace\":\"ns\",\"name\":\"" name "\",\"resourceVersion\":\"" version           \
	"\"},\"spec\":{\"clusterIP\":\"10.0.0.1\",\"ports\":[{\"port\":80,\"protocol\":\"TCP\"}]}}"
#define LIST(version, items)                                                                                 \
	"{\"kind\":\"ServiceList\",\"metadata\":{\"resourceVersion\":\"" version "\"},\"items\":[" items "]" \
	"}"
#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}\n"
#define BOOKMARK(version) EVENT("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"" version "\"}}")
#define INITIAL_END(version)                                                                                 \
	EVENT("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"" version                                    \
			  "\",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}")
#define STATUS(code, reason, message)                                                                        \
	"{\"kind\":\"Status\",\"status\":\"Failure\",\"code\":" code ",\"reason\":\"" reason                 \
	"\",\"message\":\"" message "\"}"
#define LIST_SERVICES "/api/v1/services?label"
#define WATCH_SERVICES "/api/v1/services?watch"

#endif
