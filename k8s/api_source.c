/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "base/strbuf.h"
#include "k8s/api_post.h"
#include "k8s/api_resource.h"
#include "k8s/kubeconfig.h"
#include "k8s/source_private.h"
#include "k8s/transport.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* A situation that comes back sooner than this is not told again. */
#define TELL_AGAIN_MS 120000
/* So many in a row, some seconds. */
#define FORBIDDEN_LASTS 4
/* Different warnings of a server; more than that are not told. */
#define TOLD_MAX 32

struct api_source;

/* The edges of one: its timer, its request, and what was told of it. */
struct resource {
	struct api_source *s;
	struct api_resource api;
	struct event timer;
	struct transport_request *request; /* NULL: none under way */
	enum source_failure told; /* the last problem told, SOURCE_FAILURES when there was none yet */
	uint64_t told_at;
	bool present;       /* it lasts */
	unsigned forbidden; /* 403 in a row */
};

/* Hashes of what was told; the oldest gives way. */
struct told {
	uint64_t hashes[TOLD_MAX];
	size_t n;
};

struct api_source {
	struct source source;
	struct event_base *base;
	struct cluster *cluster;
	struct source_callbacks cb;
	enum endpoints_mode endpoints;
	bool answered; /* with 200, once */
	struct told objects, warnings;
	struct kubeconfig kubeconfig;
	struct transport *transport;
	struct api_post post;
	struct resource resources[OBJECT_KINDS];
	uint64_t failures[SOURCE_FAILURES];
	struct event start;
	bool start_assigned;
	uint64_t random;
};

static const struct resource_url {
	const char *path;
	const char *label_selector;
	const char *field_selector;
} resource_urls[OBJECT_KINDS] = {
	[OBJECT_NODE] = {"/api/v1/nodes", NULL, NULL},
	/* What kube-proxy selects (cmd/kube-proxy/app/server.go): Services of another proxy, headless ones
	   are none of ours. */
	[OBJECT_SERVICE] = {"/api/v1/services", "!service.kubernetes.io/service-proxy-name",
		"spec.clusterIP!=None"},
	[OBJECT_ENDPOINT_SLICE] = {"/apis/discovery.k8s.io/v1/endpointslices",
		"!service.kubernetes.io/headless", NULL},
};
/* The endpoints controller copies the label onto them. */
static const struct resource_url endpoints_url = {
	"/api/v1/endpoints", "!service.kubernetes.io/headless", NULL};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static double unix_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* In [0, 1); xorshift64*: spreads retries of many nodes, no more. */
static double next_random(struct api_source *s)
{
	s->random ^= s->random >> 12;
	s->random ^= s->random << 25;
	s->random ^= s->random >> 27;
	return (double)((s->random * 2685821657736338717ULL) >> 11) / 9007199254740992.0;
}

/* --- problems --- */

/* A problem of the server, not of one resource, that another resource has told. */
static bool told_by_other(const struct resource *r, enum source_failure failure)
{
	if (failure != SOURCE_FAILURE_CONNECT && failure != SOURCE_FAILURE_TLS &&
		failure != SOURCE_FAILURE_UNAUTHORIZED)
		return false;
	for (size_t i = 0; i < OBJECT_KINDS; i++) {
		const struct resource *o = &r->s->resources[i];

		if (o != r && o->present && o->told == failure)
			return true;
	}
	return false;
}

/*
 * Keeps it as the resource's present problem; tells it when it is news. A resource that could be read before
 * may be forbidden for a moment, by a server that has just started: that is told when it lasts.
 */
static void on_problem(void *arg, enum source_failure failure, const struct error *err)
{
	struct resource *r = arg;
	struct source_resource_status *status = &r->api.status;
	uint64_t now = now_ms();
	bool same, news;

	snprintf(status->problem, sizeof(status->problem), "%s", error_text(err));
	r->forbidden = failure == SOURCE_FAILURE_FORBIDDEN ? r->forbidden + 1 : 0;
	if (r->forbidden && status->synced && r->forbidden < FORBIDDEN_LASTS)
		return;
	same = r->told == failure && (r->present || now - r->told_at < TELL_AGAIN_MS);
	news = !same && !told_by_other(r, failure);
	r->told = failure;
	r->told_at = now;
	r->present = true;
	if (news && r->s->cb.problem)
		r->s->cb.problem(r->s->cb.arg, err);
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 1099511628211ULL; /* FNV-1a */
	return hash;
}

static bool told_before(struct told *t, const char *object, const char *text)
{
	uint64_t hash = hash_text(hash_text(14695981039346656037ULL, object), text);

	for (size_t i = 0; i < TOLD_MAX && i < t->n; i++)
		if (t->hashes[i] == hash)
			return true;
	t->hashes[t->n++ % TOLD_MAX] = hash;
	return false;
}

/* Not a state of the watch, which goes on: told once for each object and wording. */
static void on_bad_object(void *arg, const struct error *err)
{
	struct resource *r = arg;
	struct error copy = *err;

	r->s->failures[SOURCE_FAILURE_OBJECT]++;
	if (!copy.object[0])
		snprintf(copy.object, sizeof(copy.object), "%s", object_kind_names[r->api.kind]);
	if (told_before(&r->s->objects, copy.object, copy.what))
		return;
	if (r->s->cb.problem)
		r->s->cb.problem(r->s->cb.arg, &copy);
}

/* --- requests --- */

/* Adds a query parameter with its value escaped (RFC 3986, section 2). */
static void add_parameter(struct strbuf *b, const char *name, const char *value)
{
	strbuf_printf(b, "%s%s=", strchr(b->data, '?') ? "&" : "?", name);
	for (; *value; value++) {
		if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", *value))
			strbuf_add(b, value, 1);
		else
			strbuf_printf(b, "%%%02X", (unsigned char)*value);
	}
}

static char *request_path(const struct resource *r, const struct reflector_request *q)
{
	const struct resource_url *url = r->api.endpoints ? &endpoints_url : &resource_urls[r->api.kind];
	struct strbuf b = {0};
	char seconds[16];

	strbuf_puts(&b, url->path);
	if (q->watch) {
		snprintf(seconds, sizeof(seconds), "%u", q->timeout_s);
		add_parameter(&b, "watch", "true");
		add_parameter(&b, "allowWatchBookmarks", "true");
		add_parameter(&b, "timeoutSeconds", seconds);
	}
	if (q->initial_events) {
		add_parameter(&b, "sendInitialEvents", "true");
		add_parameter(&b, "resourceVersionMatch", "NotOlderThan");
	}
	if (url->label_selector)
		add_parameter(&b, "labelSelector", url->label_selector);
	if (q->field_selector)
		add_parameter(&b, "fieldSelector", url->field_selector);
	if (q->version && q->version[0])
		add_parameter(&b, "resourceVersion", q->version);
	if (q->cont)
		add_parameter(&b, "continue", q->cont);
	return strbuf_steal(&b);
}

/* The reflector's deadline may have moved. */
static void arm(struct resource *r)
{
	uint64_t now = now_ms(), wait = r->api.deadline > now ? r->api.deadline - now : 0;
	struct timeval tv = {(time_t)(wait / 1000), (suseconds_t)(wait % 1000 * 1000)};

	event_add(&r->timer, &tv);
}

static void on_headers(void *arg, unsigned http, unsigned retry_after_s)
{
	struct resource *r = arg;

	r->api.status.last_event = unix_time();
	api_resource_headers(&r->api, http, retry_after_s);
	arm(r);
}

static void on_data(void *arg, const char *data, size_t len)
{
	struct resource *r = arg;

	r->api.status.last_event = unix_time();
	api_resource_data(&r->api, data, len);
	arm(r);
}

static void on_done(void *arg, const struct transport_result *result)
{
	struct resource *r = arg;

	r->request = NULL;
	api_resource_done(&r->api, result->http, result->failed, result->failure, &result->error);
	arm(r);
}

static void on_timer(evutil_socket_t fd, short events, void *arg)
{
	struct resource *r = arg;

	(void)fd;
	(void)events;
	api_resource_tick(&r->api);
	arm(r);
}

/* --- what the resource asks for --- */

static uint64_t on_now(void *arg)
{
	(void)arg;
	return now_ms();
}

static double on_random(void *arg)
{
	return next_random(((struct resource *)arg)->s);
}

static void on_send(void *arg, const struct reflector_request *q)
{
	static const struct transport_callbacks callbacks = {on_headers, on_data, on_done};
	struct resource *r = arg;
	CLEANUP_FREE char *path = request_path(r, q);

	r->request = transport_get(r->s->transport, path, !q->watch, &callbacks, r);
}

static void on_cancel(void *arg)
{
	struct resource *r = arg;

	if (r->request)
		transport_cancel(r->s->transport, r->request);
	r->request = NULL;
}

static void on_token_refused(void *arg)
{
	transport_token_refused(((struct resource *)arg)->s->transport);
}

static void on_failed(void *arg, enum source_failure failure)
{
	((struct resource *)arg)->s->failures[failure]++;
}

static void on_healthy(void *arg)
{
	struct resource *r = arg;

	r->api.status.problem[0] = '\0';
	r->present = false;
	r->forbidden = 0;
}

/* Told once. */
static void on_no_watchlist(void *arg, const struct error *why)
{
	struct resource *r = arg;
	struct error err = *why;

	error_set(&err, -ENOTSUP, object_kind_names[r->api.kind], "set kubernetes.initialList to gzip",
		"there is no WatchList here, lists are read instead: %s", why->what);
	if (r->s->cb.problem)
		r->s->cb.problem(r->s->cb.arg, &err);
}

/* --- the source --- */

static void on_settled(void *arg)
{
	struct api_source *s = arg;
	bool changed = false;

	for (size_t i = 0; i < OBJECT_KINDS; i++) {
		struct resource *r = &s->resources[i];

		/* A list that is still coming in is told when it is there. */
		if (!r->api.dirty || r->api.relisting)
			continue;
		r->api.dirty = false;
		changed = true;
	}
	if (changed && s->cb.changed)
		s->cb.changed(s->cb.arg);
}

static void on_trouble(void *arg, const struct error *err)
{
	struct api_source *s = arg;

	s->failures[SOURCE_FAILURE_FILE]++;
	if (s->cb.problem)
		s->cb.problem(s->cb.arg, err);
}

/* A warning of the server: each wording once. */
static void on_warning(void *arg, const char *text)
{
	struct api_source *s = arg;
	struct error err;

	if (s->warnings.n == TOLD_MAX || told_before(&s->warnings, "", text))
		return;
	error_set(&err, -EPERM, "API server", NULL, "it warns: %s", text);
	if (s->cb.problem)
		s->cb.problem(s->cb.arg, &err);
}

/* Once, from the loop: what the kubeconfig asks for and nobody should. */
static void on_start(evutil_socket_t fd, short events, void *arg)
{
	struct api_source *s = arg;
	struct error err;

	(void)fd;
	(void)events;
	error_set(&err, -EPERM, "API server", "give certificate-authority-data instead",
		"the certificate of %s is not checked: the kubeconfig says insecure-skip-tls-verify",
		s->kubeconfig.server);
	error_at(&err, s->kubeconfig.server_where, 0);
	if (s->cb.problem)
		s->cb.problem(s->cb.arg, &err);
}

static void api_status_of(const struct source *source, struct source_status *ret)
{
	const struct api_source *s = (const struct api_source *)source;

	ret->kind = "api";
	snprintf(ret->location, sizeof(ret->location), "%s", s->kubeconfig.server);
	for (size_t i = 0; i < OBJECT_KINDS; i++)
		ret->resources[i] = s->resources[i].api.status;
	memcpy(ret->failures, s->failures, sizeof(ret->failures));
	ret->bytes_received = transport_bytes_received(s->transport);
	ret->connections = transport_connections(s->transport);
}

static void api_free(struct source *source)
{
	struct api_source *s = (struct api_source *)source;

	transport_free(s->transport);
	api_post_free(&s->post);
	if (s->start_assigned)
		event_del(&s->start);
	for (size_t i = 0; i < OBJECT_KINDS; i++) {
		struct resource *r = &s->resources[i];

		if (r->s)
			event_del(&r->timer);
		api_resource_stop(&r->api);
	}
	kubeconfig_done(&s->kubeconfig);
	free(s);
}

static int api_post(struct source *source, const struct source_request *q, source_post_done *done, void *arg)
{
	struct api_source *s = (struct api_source *)source;

	return api_post_send(&s->post, s->transport, q, done, arg);
}

static const struct source_ops api_ops = {api_status_of, api_free, api_post};

static void start_resource(struct api_source *s, enum object_kind kind, bool watchlist)
{
	struct resource *r = &s->resources[kind];

	r->s = s;
	r->told = SOURCE_FAILURES;
	r->api = (struct api_resource){
		.owner = {on_now, on_random, on_send, on_cancel, on_token_refused, on_failed, on_problem,
			on_healthy, on_no_watchlist, on_bad_object, r},
		.cluster = s->cluster,
		.kubeconfig = &s->kubeconfig,
		.answered = &s->answered,
		.kind = kind,
		.endpoints_auto = s->endpoints == ENDPOINTS_AUTO,
		.endpoints = kind == OBJECT_ENDPOINT_SLICE && s->endpoints == ENDPOINTS_ENDPOINTS,
	};
	api_resource_start(&r->api, resource_urls[kind].field_selector != NULL, watchlist);
	evtimer_assign(&r->timer, s->base, on_timer, r);
	/* In the order of the calls, which timers that are due at once do not keep to. */
	event_active(&r->timer, EV_TIMEOUT, 0);
}

int api_source_new(struct event_base *base, struct cluster *cluster, const struct api_options *options,
	const struct source_callbacks *cb, struct source **ret, struct error *err)
{
	struct api_source *s = xcalloc(1, sizeof(*s));
	struct transport_owner owner = {on_settled, on_trouble, on_warning, s};
	struct timeval at_once = {0};
	int rc;

	*ret = NULL;
	s->source.ops = &api_ops;
	s->base = base;
	s->cluster = cluster;
	s->cb = *cb;
	if (getrandom(&s->random, sizeof(s->random), GRND_NONBLOCK) != sizeof(s->random) || !s->random)
		s->random = now_ms() | 1;
	rc = kubeconfig_find(options->kubeconfig, &s->kubeconfig, err);
	if (!rc)
		rc = transport_new(base, &s->kubeconfig, &owner, &s->transport, err);
	if (rc) {
		api_free(&s->source);
		return rc;
	}
	if (s->kubeconfig.insecure) {
		evtimer_assign(&s->start, base, on_start, s);
		event_add(&s->start, &at_once);
		s->start_assigned = true;
	}
	s->endpoints = options->endpoints;
	start_resource(s, OBJECT_NODE, options->watchlist);
	start_resource(s, OBJECT_SERVICE, options->watchlist);
	if (options->endpoints != ENDPOINTS_OFF)
		start_resource(s, OBJECT_ENDPOINT_SLICE, options->watchlist);
	else
		cluster_set_unwatched(cluster, OBJECT_ENDPOINT_SLICE);
	*ret = &s->source;
	return 0;
}
