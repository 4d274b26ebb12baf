/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/api_resource.h"

#include "base/mem.h"
#include "k8s/api_error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Of an answer that is an error. */
#define MAX_ERROR_BODY (64 << 10)

struct problem {
	enum source_failure failure;
	struct error err; /* code 0: none */
};

static void forget_answer(struct api_resource *r)
{
	r->http = r->retry_after_s = 0;
	strbuf_done(&r->error_body);
	memset(&r->error_body, 0, sizeof(r->error_body));
	api_body_free(r->body);
	r->body = NULL;
}

static void failed(struct api_resource *r, enum source_failure failure)
{
	r->owner.failed(r->owner.arg, failure);
}

static void on_changed(void *arg)
{
	((struct api_resource *)arg)->dirty = true;
}

static void on_bad_object(void *arg, const struct error *err)
{
	struct api_resource *r = arg;

	r->owner.bad_object(r->owner.arg, err);
}

static void step(struct api_resource *r, struct reflector_input *in, const struct problem *problem);

static void on_event(void *arg, struct reflector_input *in)
{
	struct api_resource *r = arg;

	r->status.events++;
	step(r, in, NULL);
}

static void send_request(struct api_resource *r, const struct reflector_request *q)
{
	const struct api_body_format format = {r->kind, r->endpoints, q->watch};
	const struct api_body_owner owner = {on_event, on_bad_object, on_changed, r};

	forget_answer(r);
	r->watch = q->watch;
	r->initial_events = q->initial_events;
	r->body = api_body_new(r->cluster, &format, &owner);
	if (q->watch)
		r->status.watch_starts++;
	r->owner.send(r->owner.arg, q);
}

/* Tells the reflector, and does what it wants. */
static void step(struct api_resource *r, struct reflector_input *in, const struct problem *problem)
{
	const struct api_resource_owner *o = &r->owner;
	struct reflector_output out;

	in->random = o->random(o->arg);
	reflector_step(r->reflector, in, o->now(o->arg), &out);
	r->deadline = out.deadline;
	if (out.actions & REFLECTOR_CANCEL)
		o->cancel(o->arg);
	if ((out.actions & REFLECTOR_RELIST_ABORT) && r->relisting) {
		cluster_relist_abort(r->cluster, r->kind);
		r->relisting = false;
	}
	if (out.actions & REFLECTOR_RELIST_END) {
		cluster_relist_end(r->cluster, r->kind);
		r->relisting = false;
		r->initial_events = false;
		r->dirty = true;
		r->status.synced = true;
		r->status.lists++;
	}
	if (out.actions & REFLECTOR_RELIST_BEGIN) {
		cluster_relist_begin(r->cluster, r->kind);
		r->relisting = true;
	}
	if (out.actions & REFLECTOR_REREAD_TOKEN)
		o->token_refused(o->arg);
	if (out.actions & REFLECTOR_SEND)
		send_request(r, &out.request);
	if (out.actions & REFLECTOR_HEALTHY)
		o->healthy(o->arg);
	if ((out.actions & REFLECTOR_PROBLEM) && problem && problem->err.code)
		o->problem(o->arg, problem->failure, &problem->err);
	if ((out.actions & REFLECTOR_NO_WATCHLIST) && problem)
		o->no_watchlist(o->arg, &problem->err);
}

void api_resource_start(struct api_resource *r, bool field_selector, bool watchlist)
{
	r->status.watched = true;
	r->reflector = reflector_new(field_selector, watchlist);
	r->deadline = r->owner.now(r->owner.arg);
}

void api_resource_stop(struct api_resource *r)
{
	if (!r->reflector)
		return;
	if (r->relisting)
		cluster_relist_abort(r->cluster, r->kind);
	forget_answer(r);
	reflector_free(r->reflector);
	r->reflector = NULL;
}

void api_resource_tick(struct api_resource *r)
{
	struct reflector_input in = {.kind = REFLECTOR_TICK};
	struct problem silent = {.failure = SOURCE_FAILURE_CONNECT};

	if (r->initial_events && r->http == 200)
		error_set(&silent.err, -ETIMEDOUT, object_kind_names[r->kind],
			"set kubernetes.initialList to gzip",
			"the API server %s does not end the initial events of its WatchList",
			r->kubeconfig->server);
	else
		error_set(&silent.err, -ETIMEDOUT, object_kind_names[r->kind],
			"check the API server and what is in between", "the API server %s does not answer",
			r->kubeconfig->server);
	step(r, &in, &silent);
}

void api_resource_headers(struct api_resource *r, unsigned http, unsigned retry_after_s)
{
	struct reflector_input in = {.kind = REFLECTOR_OPENED};

	r->http = http;
	r->retry_after_s = retry_after_s;
	if (http != 200)
		return;
	*r->answered = true;
	step(r, &in, NULL);
}

/* An ERROR event, or a body that is not what it should be: nothing more is read of it. */
static void bad_body(struct api_resource *r, int code, const struct error *err)
{
	struct reflector_input in = {.kind = REFLECTOR_DONE, .code = 200, .bad_body = true};
	struct problem problem = {.failure = SOURCE_FAILURE_SERVER};

	r->owner.cancel(r->owner.arg);
	if (code == -ECANCELED) {
		const struct api_status *status = api_body_error(r->body);

		in = (struct reflector_input){.kind = REFLECTOR_EVENT,
			.event = REFLECTOR_ERROR,
			.code = status->code,
			.version_too_large = status->version_too_large,
			.retry_after_s = status->retry_after_s};
		problem.failure = api_error(r->kubeconfig, r->kind, true, status->code, status, &problem.err);
	} else {
		problem.err = *err;
		problem.err.code = code;
		if (!problem.err.object[0])
			snprintf(problem.err.object, sizeof(problem.err.object), "%s",
				object_kind_names[r->kind]);
		if (!problem.err.what[0])
			snprintf(problem.err.what, sizeof(problem.err.what),
				"the API server's answer is not what it should be");
	}
	failed(r, problem.failure);
	step(r, &in, &problem);
}

void api_resource_data(struct api_resource *r, const char *data, size_t len)
{
	struct error err = {0};
	int rc;

	if (r->http != 200) {
		if (r->error_body.len + len <= MAX_ERROR_BODY)
			strbuf_add(&r->error_body, data, len);
		return;
	}
	rc = api_body_feed(r->body, data, len, &err);
	if (rc < 0)
		bad_body(r, rc, &err);
}

/*
 * The server has no EndpointSlices of v1 (before Kubernetes 1.21): from now on Endpoints. Only of a server that
 * has answered well before, and never had them: whatever stands in for it while it is away may answer 404, too.
 */
static void take_endpoints_instead(struct api_resource *r, struct problem *problem)
{
	if (r->kind != OBJECT_ENDPOINT_SLICE || !r->endpoints_auto || r->endpoints || !*r->answered ||
		r->status.synced)
		return;
	r->endpoints = true;
	error_set(&problem->err, -ENOENT, object_kind_names[r->kind],
		"set kubernetes.endpoints to endpoints where that is as it should be",
		"the API server has no EndpointSlices of discovery.k8s.io/v1; Endpoints are read instead");
}

/* An answer of 200 has ended. */
static void body_done(struct api_resource *r, struct reflector_input *in, struct problem *problem)
{
	/* An end within a value is no end, however politely the connection was closed. */
	if (api_body_end(r->body, NULL) < 0)
		in->cut = true;
	in->version = api_body_version(r->body);
	in->cont = api_body_continue(r->body);
	if (r->watch ? !r->initial_events : !in->cut && in->version)
		return;
	problem->failure = in->cut ? SOURCE_FAILURE_CONNECT : SOURCE_FAILURE_SERVER;
	failed(r, problem->failure);
	if (problem->err.code)
		return;
	error_set(&problem->err, -EPROTO, object_kind_names[r->kind], NULL,
		r->watch  ? "the API server's WatchList ended too early"
		: in->cut ? "the API server's list ended too early"
			  : "the API server sent no list");
}

void api_resource_done(
	struct api_resource *r, unsigned http, bool cut, enum source_failure failure, const struct error *err)
{
	struct reflector_input in = {.kind = REFLECTOR_DONE, .code = http, .cut = cut};
	struct problem problem = {.failure = failure};
	struct api_status status = {0};

	if (err)
		problem.err = *err;
	if (http == 200) {
		body_done(r, &in, &problem);
	} else if (http) {
		api_status_parse(r->error_body.data, r->error_body.len, &status);
		in.version_too_large = status.version_too_large;
		in.retry_after_s = r->retry_after_s ? r->retry_after_s : status.retry_after_s;
		problem.failure = api_error(r->kubeconfig, r->kind, r->watch, http, &status, &problem.err);
		failed(r, problem.failure);
		if (http == 404 && (!r->watch || r->initial_events))
			take_endpoints_instead(r, &problem);
	} else {
		failed(r, problem.failure);
	}
	step(r, &in, &problem);
}
