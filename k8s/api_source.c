/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "base/strbuf.h"
#include "k8s/api_error.h"
#include "k8s/api_post.h"
#include "k8s/decode.h"
#include "k8s/json_split.h"
#include "k8s/kubeconfig.h"
#include "k8s/reflector.h"
#include "k8s/source_private.h"
#include "k8s/transport.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* etcd takes 1.5 MiB of protobuf for one object; as JSON that is some times more. */
#define MAX_OBJECT (8 << 20)
/* Of an answer that is an error. */
#define MAX_ERROR_BODY (64 << 10)
/* A situation that comes back sooner than this is not told again. */
#define TELL_AGAIN_MS 120000
/* So many in a row, some seconds. */
#define FORBIDDEN_LASTS 4

struct api_source;

struct resource {
	struct api_source *s;
	enum object_kind kind;
	struct reflector *reflector;
	struct event timer;
	struct transport_request *request; /* NULL: none under way */
	bool watch;                        /* what 'request' is */
	struct json_split *split;
	struct error body_error; /* of 'split' */
	unsigned http;
	unsigned retry_after_s;
	struct strbuf error_body;
	bool relisting;
	bool dirty;                         /* 'changed' is to be called for it */
	char *list_version, *list_continue; /* of the page under way */
	struct source_resource_status status;
	enum source_failure told; /* the last problem told, SOURCE_FAILURES when there was none yet */
	uint64_t told_at;
	bool present;       /* it lasts */
	unsigned forbidden; /* 403 in a row */
	char *object_told;  /* the last one about an object */
};

struct api_source {
	struct source source;
	struct event_base *base;
	struct cluster *cluster;
	struct source_callbacks cb;
	struct kubeconfig kubeconfig;
	struct transport *transport;
	struct api_post post;
	struct resource resources[OBJECT_KINDS];
	uint64_t failures[SOURCE_FAILURES];
	struct event start;
	bool start_assigned;
	uint64_t random;
};

static const struct {
	const char *path;
	const char *label_selector;
	const char *field_selector;
} resources[OBJECT_KINDS] = {
	[OBJECT_NODE] = {"/api/v1/nodes", NULL, NULL},
	/* What kube-proxy selects (cmd/kube-proxy/app/server.go): Services of another proxy, headless ones
	   are none of ours. */
	[OBJECT_SERVICE] = {"/api/v1/services", "!service.kubernetes.io/service-proxy-name",
		"spec.clusterIP!=None"},
	[OBJECT_ENDPOINT_SLICE] = {"/apis/discovery.k8s.io/v1/endpointslices",
		"!service.kubernetes.io/headless", NULL},
};

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

struct problem {
	enum source_failure failure;
	struct error err; /* code 0: none */
};

static void step(struct resource *r, struct reflector_input *in, const struct problem *problem);

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
static void note_problem(struct resource *r, enum source_failure failure, const struct error *err)
{
	uint64_t now = now_ms();
	bool same, news;

	snprintf(r->status.problem, sizeof(r->status.problem), "%s", error_text(err));
	r->forbidden = failure == SOURCE_FAILURE_FORBIDDEN ? r->forbidden + 1 : 0;
	if (r->forbidden && r->status.synced && r->forbidden < FORBIDDEN_LASTS)
		return;
	same = r->told == failure && (r->present || now - r->told_at < TELL_AGAIN_MS);
	news = !same && !told_by_other(r, failure);
	r->told = failure;
	r->told_at = now;
	r->present = true;
	if (news && r->s->cb.problem)
		r->s->cb.problem(r->s->cb.arg, err);
}

/* Not a state of the watch, which goes on: told once for each wording. */
static void bad_object(struct resource *r, const struct error *err)
{
	struct error copy = *err;

	r->s->failures[SOURCE_FAILURE_OBJECT]++;
	if (r->object_told && !strcmp(r->object_told, copy.what))
		return;
	if (!copy.object[0])
		snprintf(copy.object, sizeof(copy.object), "%s", object_kind_names[r->kind]);
	free(r->object_told);
	r->object_told = xstrdup(copy.what);
	if (r->s->cb.problem)
		r->s->cb.problem(r->s->cb.arg, &copy);
}

/* --- bodies --- */

static const char *json_text(struct json_object *parent, const char *key)
{
	struct json_object *value;

	if (!json_object_is_type(parent, json_type_object) ||
		!json_object_object_get_ex(parent, key, &value) ||
		!json_object_is_type(value, json_type_string))
		return NULL;
	return json_object_get_string(value);
}

static struct json_object *json_member(struct json_object *parent, const char *key)
{
	struct json_object *value = NULL;

	if (json_object_is_type(parent, json_type_object))
		json_object_object_get_ex(parent, key, &value);
	return value;
}

/* An object of the list that is not what the schema says: the version of it that was there stays. */
static void keep_object(struct resource *r, const char *json, size_t len)
{
	struct json_tokener *tok = json_tokener_new();
	struct json_object *root = tok ? json_tokener_parse_ex(tok, json, (int)len) : NULL;
	struct json_object *metadata = json_member(root, "metadata");
	const char *namespace = json_text(metadata, "namespace");
	const char *name = json_text(metadata, "name");

	if (name)
		cluster_relist_keep(r->s->cluster, r->kind, namespace ? namespace : "", name);
	json_object_put(root);
	json_tokener_free(tok);
}

static int on_list_item(void *arg, const char *json, size_t len)
{
	struct resource *r = arg;
	struct object object;
	struct error err = {0};

	if (decode_object(r->kind, json, len, &object, &err)) {
		bad_object(r, &err);
		keep_object(r, json, len);
	} else if (decode_put(r->s->cluster, &object)) {
		r->dirty = true;
	}
	return 0;
}

static int on_list_rest(void *arg, const char *json, size_t len)
{
	struct resource *r = arg;
	struct json_tokener *tok = json_tokener_new();
	struct json_object *root = tok ? json_tokener_parse_ex(tok, json, (int)len) : NULL;
	struct json_object *metadata = json_member(root, "metadata");
	const char *version = json_text(metadata, "resourceVersion");
	const char *cont = json_text(metadata, "continue");

	if (version)
		r->list_version = xstrdup(version);
	if (cont)
		r->list_continue = xstrdup(cont);
	json_object_put(root);
	json_tokener_free(tok);
	return 0;
}

static void delete_object(struct resource *r, struct json_object *object)
{
	struct json_object *metadata = json_member(object, "metadata");
	const char *namespace = json_text(metadata, "namespace");
	const char *name = json_text(metadata, "name");

	if (name && cluster_delete(r->s->cluster, r->kind, namespace ? namespace : "", name))
		r->dirty = true;
}

static void put_object(struct resource *r, struct json_object *json)
{
	struct object object;
	struct error err = {0};

	if (decode_json(r->kind, json, &object, &err))
		bad_object(r, &err);
	else if (decode_put(r->s->cluster, &object))
		r->dirty = true;
}

static bool event_type(const char *text, enum reflector_event *ret)
{
	static const char *const names[] = {
		[REFLECTOR_ADDED] = "ADDED",
		[REFLECTOR_MODIFIED] = "MODIFIED",
		[REFLECTOR_DELETED] = "DELETED",
		[REFLECTOR_BOOKMARK] = "BOOKMARK",
		[REFLECTOR_ERROR] = "ERROR",
	};

	for (size_t i = 0; text && i < ARRAY_SIZE(names); i++) {
		if (!strcmp(text, names[i])) {
			*ret = (enum reflector_event)i;
			return true;
		}
	}
	return false;
}

static void watch_error(struct resource *r, struct json_object *object)
{
	struct reflector_input in = {.kind = REFLECTOR_EVENT, .event = REFLECTOR_ERROR};
	struct problem problem = {0};
	struct api_status status;

	api_status_read(object, &status);
	in.code = status.code;
	in.version_too_large = status.version_too_large;
	in.retry_after_s = status.retry_after_s;
	problem.failure = api_error(&r->s->kubeconfig, r->kind, true, status.code, &status, &problem.err);
	r->s->failures[problem.failure]++;
	step(r, &in, &problem);
}

/* One value of a watch's stream. */
static int on_watch_item(void *arg, const char *json, size_t len)
{
	struct resource *r = arg;
	struct json_tokener *tok = json_tokener_new();
	struct json_object *root = tok ? json_tokener_parse_ex(tok, json, (int)len) : NULL;
	struct json_object *object = json_member(root, "object");
	struct reflector_input in = {.kind = REFLECTOR_EVENT};
	int rc = 0;

	if (!object || !event_type(json_text(root, "type"), &in.event)) {
		rc = -EINVAL;
	} else if (in.event == REFLECTOR_ERROR) {
		watch_error(r, object);
		rc = -ECANCELED; /* the rest of the stream means nothing any more */
	} else {
		r->status.events++;
		if (in.event == REFLECTOR_DELETED)
			delete_object(r, object);
		else if (in.event != REFLECTOR_BOOKMARK)
			put_object(r, object);
		in.version = json_text(json_member(object, "metadata"), "resourceVersion");
		step(r, &in, NULL);
	}
	json_object_put(root);
	json_tokener_free(tok);
	return rc;
}

/* --- requests --- */

static void forget_answer(struct resource *r)
{
	r->http = r->retry_after_s = 0;
	memset(&r->body_error, 0, sizeof(r->body_error));
	strbuf_done(&r->error_body);
	memset(&r->error_body, 0, sizeof(r->error_body));
	json_split_free(r->split);
	r->split = NULL;
	free(r->list_version);
	free(r->list_continue);
	r->list_version = r->list_continue = NULL;
}

static void on_headers(void *arg, unsigned http, unsigned retry_after_s)
{
	struct resource *r = arg;
	struct reflector_input in = {.kind = REFLECTOR_OPENED};

	r->http = http;
	r->retry_after_s = retry_after_s;
	r->status.last_event = unix_time();
	if (http == 200)
		step(r, &in, NULL);
}

/* The body is not what it should be: nothing more is read of it. */
static void bad_body(struct resource *r, int code)
{
	struct reflector_input in = {.kind = REFLECTOR_DONE, .code = 200, .bad_body = true};
	struct problem problem = {.failure = SOURCE_FAILURE_SERVER, .err = r->body_error};

	problem.err.code = code;
	if (!problem.err.object[0])
		snprintf(problem.err.object, sizeof(problem.err.object), "%s", object_kind_names[r->kind]);
	if (!problem.err.what[0])
		snprintf(problem.err.what, sizeof(problem.err.what),
			"the API server's answer is not what it should be");
	r->s->failures[SOURCE_FAILURE_SERVER]++;
	transport_cancel(r->s->transport, r->request);
	r->request = NULL;
	step(r, &in, &problem);
}

static void on_data(void *arg, const char *data, size_t len)
{
	struct resource *r = arg;
	int rc;

	r->status.last_event = unix_time();
	if (r->http != 200) {
		if (r->error_body.len + len <= MAX_ERROR_BODY)
			strbuf_add(&r->error_body, data, len);
		return;
	}
	rc = json_split_feed(r->split, data, len, &r->body_error);
	/* An ERROR event has ended the request within the call. */
	if (rc < 0 && r->request)
		bad_body(r, rc);
}

static void on_done(void *arg, const struct transport_result *result)
{
	struct resource *r = arg;
	struct reflector_input in = {.kind = REFLECTOR_DONE, .code = result->http, .cut = result->failed};
	struct problem problem = {.failure = result->failure, .err = result->error};
	struct api_status status = {0};

	r->request = NULL;
	if (result->http == 200) {
		/* An end within a value is no end, however politely the connection was closed. */
		if (json_split_end(r->split, NULL) < 0)
			in.cut = true;
		in.version = r->list_version;
		in.cont = r->list_continue;
		if (!r->watch && (in.cut || !in.version)) {
			problem.failure = in.cut ? SOURCE_FAILURE_CONNECT : SOURCE_FAILURE_SERVER;
			r->s->failures[problem.failure]++;
			if (!problem.err.code)
				error_set(&problem.err, -EPROTO, object_kind_names[r->kind], NULL,
					in.cut ? "the API server's list ended too early"
					       : "the API server sent no list");
		}
	} else if (result->http) {
		api_status_parse(r->error_body.data, r->error_body.len, &status);
		in.version_too_large = status.version_too_large;
		in.retry_after_s = r->retry_after_s ? r->retry_after_s : status.retry_after_s;
		problem.failure =
			api_error(&r->s->kubeconfig, r->kind, r->watch, result->http, &status, &problem.err);
		r->s->failures[problem.failure]++;
	} else {
		r->s->failures[problem.failure]++;
	}
	step(r, &in, &problem);
}

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
	struct strbuf b = {0};
	char seconds[16];

	strbuf_puts(&b, resources[r->kind].path);
	if (q->watch) {
		snprintf(seconds, sizeof(seconds), "%u", q->timeout_s);
		add_parameter(&b, "watch", "true");
		add_parameter(&b, "allowWatchBookmarks", "true");
		add_parameter(&b, "timeoutSeconds", seconds);
	}
	if (resources[r->kind].label_selector)
		add_parameter(&b, "labelSelector", resources[r->kind].label_selector);
	if (q->field_selector)
		add_parameter(&b, "fieldSelector", resources[r->kind].field_selector);
	if (q->version && q->version[0])
		add_parameter(&b, "resourceVersion", q->version);
	if (q->cont)
		add_parameter(&b, "continue", q->cont);
	return strbuf_steal(&b);
}

static void send_request(struct resource *r, const struct reflector_request *q)
{
	static const struct transport_callbacks callbacks = {on_headers, on_data, on_done};
	struct json_split_callbacks body = {.arg = r};
	CLEANUP_FREE char *path = request_path(r, q);

	forget_answer(r);
	r->watch = q->watch;
	body.item = q->watch ? on_watch_item : on_list_item;
	body.rest = q->watch ? NULL : on_list_rest;
	r->split = json_split_new(q->watch ? JSON_SPLIT_WATCH : JSON_SPLIT_LIST, MAX_OBJECT, &body);
	if (q->watch)
		r->status.watch_starts++;
	r->request = transport_get(r->s->transport, path, !q->watch, &callbacks, r);
}

/* Tells the reflector, and does what it wants. */
static void step(struct resource *r, struct reflector_input *in, const struct problem *problem)
{
	struct api_source *s = r->s;
	struct reflector_output out;
	uint64_t now = now_ms();
	uint64_t wait;
	struct timeval tv;

	in->random = next_random(s);
	reflector_step(r->reflector, in, now, &out);
	if ((out.actions & REFLECTOR_CANCEL) && r->request) {
		transport_cancel(s->transport, r->request);
		r->request = NULL;
	}
	if ((out.actions & REFLECTOR_RELIST_ABORT) && r->relisting) {
		cluster_relist_abort(s->cluster, r->kind);
		r->relisting = false;
	}
	if (out.actions & REFLECTOR_RELIST_END) {
		cluster_relist_end(s->cluster, r->kind);
		r->relisting = false;
		r->dirty = true;
		r->status.synced = true;
		r->status.lists++;
	}
	if (out.actions & REFLECTOR_RELIST_BEGIN) {
		cluster_relist_begin(s->cluster, r->kind);
		r->relisting = true;
	}
	if (out.actions & REFLECTOR_REREAD_TOKEN)
		transport_token_refused(s->transport);
	if (out.actions & REFLECTOR_SEND)
		send_request(r, &out.request);
	if (out.actions & REFLECTOR_HEALTHY) {
		r->status.problem[0] = '\0';
		r->present = false;
		r->forbidden = 0;
	}
	if ((out.actions & REFLECTOR_PROBLEM) && problem && problem->err.code)
		note_problem(r, problem->failure, &problem->err);
	wait = out.deadline > now ? out.deadline - now : 0;
	tv.tv_sec = (time_t)(wait / 1000);
	tv.tv_usec = (suseconds_t)(wait % 1000 * 1000);
	event_add(&r->timer, &tv);
}

static void on_timer(evutil_socket_t fd, short events, void *arg)
{
	struct resource *r = arg;
	struct reflector_input in = {.kind = REFLECTOR_TICK};
	struct problem silent = {.failure = SOURCE_FAILURE_CONNECT};

	(void)fd;
	(void)events;
	error_set(&silent.err, -ETIMEDOUT, object_kind_names[r->kind],
		"check the API server and what is in between", "the API server %s does not answer",
		r->s->kubeconfig.server);
	step(r, &in, &silent);
}

/* --- the source --- */

static void on_settled(void *arg)
{
	struct api_source *s = arg;
	bool changed = false;

	for (size_t i = 0; i < OBJECT_KINDS; i++) {
		struct resource *r = &s->resources[i];

		/* A list that is still coming in is told when it is there. */
		if (!r->dirty || r->relisting)
			continue;
		r->dirty = false;
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
		ret->resources[i] = s->resources[i].status;
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

		if (!r->reflector)
			continue;
		event_del(&r->timer);
		if (r->relisting)
			cluster_relist_abort(s->cluster, r->kind);
		forget_answer(r);
		reflector_free(r->reflector);
		free(r->object_told);
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

static void start_resource(struct api_source *s, enum object_kind kind)
{
	struct resource *r = &s->resources[kind];
	struct timeval at_once = {0};

	r->s = s;
	r->kind = kind;
	r->status.watched = true;
	r->told = SOURCE_FAILURES;
	r->reflector = reflector_new(resources[kind].field_selector != NULL);
	evtimer_assign(&r->timer, s->base, on_timer, r);
	event_add(&r->timer, &at_once);
}

int api_source_new(struct event_base *base, struct cluster *cluster, const struct api_options *options,
	const struct source_callbacks *cb, struct source **ret, struct error *err)
{
	struct api_source *s = xcalloc(1, sizeof(*s));
	struct transport_owner owner = {.settled = on_settled, .trouble = on_trouble, .arg = s};
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
	start_resource(s, OBJECT_NODE);
	start_resource(s, OBJECT_SERVICE);
	if (options->endpoint_slices)
		start_resource(s, OBJECT_ENDPOINT_SLICE);
	else
		cluster_set_unwatched(cluster, OBJECT_ENDPOINT_SLICE);
	*ret = &s->source;
	return 0;
}
