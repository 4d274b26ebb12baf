/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/event_queue.h"

#include "base/mem.h"
#include "k8s/json_tree.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define EVENTS_PATH "/apis/events.k8s.io/v1/namespaces/default/events"
#define CONTROLLER "slipstream"

#define SECOND UINT64_C(1000)
#define MINUTE (60 * SECOND)

#define SERIES_END (6 * MINUTE)
#define SERIES_REFRESH (30 * MINUTE)
#define TOKENS 25
#define TOKEN_EVERY (5 * MINUTE)
#define TRIES 6
#define RETRY_MIN (10 * SECOND)

/* pkg/apis/core/validation/events.go: NoteLengthLimit, ReportingInstanceLengthLimit. */
#define NOTE_MAX 1024
#define INSTANCE_MAX 128
/* A DNS subdomain; behind the Node's name come '.' and 16 digits. */
#define NAME_MAX_SIZE 254
#define NODE_MAX (NAME_MAX_SIZE - 1 - 17)

const char *const event_result_names[EVENT_RESULTS] = {
	[EVENT_SENT] = "sent",
	[EVENT_AGGREGATED] = "aggregated",
	[EVENT_LIMITED] = "limited",
	[EVENT_DISPLACED] = "displaced",
	[EVENT_FAILED] = "failed",
};

struct entry {
	bool used;
	bool warning;
	char *reason, *action, *note;
	char name[NAME_MAX_SIZE];
	unsigned count;    /* occurrences */
	unsigned known;    /* of them known to the server, 0: not created */
	unsigned sending;  /* what the request under way says */
	uint64_t first_us; /* wall */
	uint64_t last_us;  /* wall */
	uint64_t last_ms;  /* monotonic */
	uint64_t sent_ms;  /* monotonic; of the last request that was accepted */
	bool pending;      /* has something to send, at due_ms */
	uint64_t due_ms;   /* monotonic */
	uint64_t turn;     /* order among those that are due */
};

struct event_queue {
	char *node;
	struct entry entries[EVENT_QUEUE_SIZE];
	struct entry *flying; /* its request is under way */
	bool flying_patch;
	uint64_t turns;
	unsigned tries;
	uint64_t not_before_ms;
	/* Milliseconds saved for tokens; one costs TOKEN_EVERY. */
	uint64_t saved_ms, saved_at_ms;
	bool started;
	uint64_t last_name;
	uint64_t results[EVENT_RESULTS];
};

struct event_queue *event_queue_new(const char *node)
{
	struct event_queue *q = xcalloc(1, sizeof(*q));

	q->node = xstrdup(node);
	q->saved_ms = TOKENS * TOKEN_EVERY;
	return q;
}

static void forget(struct entry *e)
{
	free(e->reason);
	free(e->action);
	free(e->note);
	memset(e, 0, sizeof(*e));
}

void event_queue_free(struct event_queue *q)
{
	if (!q)
		return;
	for (size_t i = 0; i < EVENT_QUEUE_SIZE; i++)
		forget(&q->entries[i]);
	free(q->node);
	free(q);
}

const uint64_t *event_queue_results(const struct event_queue *q)
{
	return q->results;
}

static uint64_t min_u64(uint64_t x, uint64_t y)
{
	return x < y ? x : y;
}

static bool take_token(struct event_queue *q, uint64_t now)
{
	if (q->started)
		q->saved_ms = min_u64(TOKENS * TOKEN_EVERY, q->saved_ms + (now - q->saved_at_ms));
	q->started = true;
	q->saved_at_ms = now;
	if (q->saved_ms < TOKEN_EVERY)
		return false;
	q->saved_ms -= TOKEN_EVERY;
	return true;
}

/* One line of ASCII, so that the server counts the bytes that are counted here. */
static char *clean_note(const char *text)
{
	char *s = xstrndup(text, NOTE_MAX);

	for (char *p = s; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return s;
}

static struct entry *find(struct event_queue *q, const struct node_event *e, const char *note)
{
	for (size_t i = 0; i < EVENT_QUEUE_SIZE; i++) {
		struct entry *have = &q->entries[i];

		if (have->used && have->warning == e->warning && !strcmp(have->reason, e->reason) &&
			!strcmp(have->action, e->action) && !strcmp(have->note, note))
			return have;
	}
	return NULL;
}

/* A free place: one that is empty, or what has nothing to send for the longest time, or the oldest. */
static struct entry *make_room(struct event_queue *q)
{
	struct entry *idle = NULL, *oldest = NULL;

	for (size_t i = 0; i < EVENT_QUEUE_SIZE; i++) {
		struct entry *e = &q->entries[i];

		if (!e->used)
			return e;
		if (e == q->flying)
			continue;
		if (!e->pending && (!idle || e->last_ms < idle->last_ms))
			idle = e;
		if (!oldest || e->turn < oldest->turn)
			oldest = e;
	}
	if (!idle) {
		q->results[EVENT_DISPLACED]++;
		idle = oldest;
	}
	forget(idle);
	return idle;
}

static void send_at(struct event_queue *q, struct entry *e, uint64_t at)
{
	e->pending = true;
	e->due_ms = at;
	e->turn = ++q->turns;
}

/* When to send the count of one that the server knows. */
static void plan_count(struct event_queue *q, struct entry *e, uint64_t now)
{
	e->pending = false;
	if (e->count == e->known)
		return;
	if (e->known == 1 && take_token(q, now))
		send_at(q, e, now);
	else
		send_at(q, e, min_u64(e->sent_ms + SERIES_REFRESH, e->last_ms + SERIES_END));
}

static bool is_name(const char *s)
{
	size_t len = strlen(s);

	return len && len <= NODE_MAX && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") == len &&
	       s[0] != '-' && s[0] != '.' && s[len - 1] != '-' && s[len - 1] != '.';
}

void event_queue_add(struct event_queue *q, const struct node_event *event, struct event_time now)
{
	CLEANUP_FREE char *note = clean_note(event->note);
	struct entry *e;

	for (size_t i = 0; i < EVENT_QUEUE_SIZE; i++) {
		e = &q->entries[i];
		if (e->used && !e->pending && e != q->flying && now.monotonic_ms - e->last_ms >= SERIES_END)
			forget(e);
	}
	e = find(q, event, note);
	if (e) {
		e->count++;
		e->last_us = now.wall_us;
		e->last_ms = now.monotonic_ms;
		q->results[EVENT_AGGREGATED]++;
		/* What is not known yet is created with its series. */
		if (e->known && e != q->flying && !(e->pending && e->due_ms <= now.monotonic_ms))
			plan_count(q, e, now.monotonic_ms);
		return;
	}
	if (!take_token(q, now.monotonic_ms)) {
		q->results[EVENT_LIMITED]++;
		return;
	}
	e = make_room(q);
	*e = (struct entry){
		.used = true,
		.warning = event->warning,
		.reason = xstrdup(event->reason),
		.action = xstrdup(event->action),
		.note = TAKE_PTR(note),
		.count = 1,
		.first_us = now.wall_us,
		.last_us = now.wall_us,
		.last_ms = now.monotonic_ms,
	};
	/* The name that client-go gives (event_recorder.go): object and time in ns; two of one time differ. */
	q->last_name = now.wall_us * 1000 > q->last_name ? now.wall_us * 1000 : q->last_name + 1;
	snprintf(e->name, sizeof(e->name), "%s.%" PRIx64, is_name(q->node) ? q->node : CONTROLLER,
		q->last_name);
	send_at(q, e, now.monotonic_ms);
}

int64_t event_queue_wait(const struct event_queue *q, struct event_time now)
{
	uint64_t at = 0;
	bool any = false;

	for (size_t i = 0; i < EVENT_QUEUE_SIZE && !q->flying; i++) {
		const struct entry *e = &q->entries[i];

		if (e->pending && (!any || e->due_ms < at))
			at = e->due_ms;
		any |= e->pending;
	}
	if (!any)
		return -1;
	if (at < q->not_before_ms)
		at = q->not_before_ms;
	return at > now.monotonic_ms ? (int64_t)(at - now.monotonic_ms) : 0;
}

static void put_text(struct json_object *to, const char *key, const char *text)
{
	json_object_object_add(to, key, json_object_new_string(text));
}

/* meta/v1 MicroTime: RFC 3339 with six digits, UTC. */
static void put_time(struct json_object *to, const char *key, uint64_t us)
{
	time_t seconds = (time_t)(us / 1000000);
	char text[48], date[32];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%06uZ", date, (unsigned)(us % 1000000));
	put_text(to, key, text);
}

static struct json_object *add_object(struct json_object *to, const char *key)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(to, key, o);
	return o;
}

static void put_series(struct json_object *to, const struct entry *e)
{
	struct json_object *series = add_object(to, "series");

	json_object_object_add(series, "count", json_object_new_int64(e->count));
	put_time(series, "lastObservedTime", e->last_us);
}

static void put_event(struct json_object *to, const struct event_queue *q, const struct entry *e)
{
	struct json_object *o;
	char instance[INSTANCE_MAX + 1];

	put_text(to, "apiVersion", "events.k8s.io/v1");
	put_text(to, "kind", "Event");
	o = add_object(to, "metadata");
	put_text(o, "name", e->name);
	put_text(o, "namespace", "default");
	put_time(to, "eventTime", e->first_us);
	put_text(to, "reportingController", CONTROLLER);
	snprintf(instance, sizeof(instance), CONTROLLER "-%s", q->node);
	put_text(to, "reportingInstance", instance);
	put_text(to, "type", e->warning ? "Warning" : "Normal");
	put_text(to, "reason", e->reason);
	put_text(to, "action", e->action);
	put_text(to, "note", e->note);
	o = add_object(to, "regarding");
	put_text(o, "apiVersion", "v1");
	put_text(o, "kind", "Node");
	put_text(o, "name", q->node);
	put_text(o, "uid", q->node);
	if (e->count > 1)
		put_series(to, e);
}

bool event_queue_next(struct event_queue *q, struct event_time now, struct event_request *ret)
{
	struct json_object *body;
	struct entry *e = NULL;

	if (q->flying || now.monotonic_ms < q->not_before_ms)
		return false;
	for (size_t i = 0; i < EVENT_QUEUE_SIZE; i++) {
		struct entry *c = &q->entries[i];

		if (c->pending && c->due_ms <= now.monotonic_ms && (!e || c->turn < e->turn))
			e = c;
	}
	if (!e)
		return false;
	q->flying = e;
	q->flying_patch = ret->patch = e->known != 0;
	e->sending = e->count;
	body = json_object_new_object();
	if (ret->patch) {
		ret->path = xasprintf(EVENTS_PATH "/%s", e->name);
		put_series(body, e);
	} else {
		ret->path = xstrdup(EVENTS_PATH);
		put_event(body, q, e);
	}
	ret->body = json_tree_text(body);
	snprintf(ret->reason, sizeof(ret->reason), "%s", e->reason);
	json_object_put(body);
	return true;
}

void event_request_done(struct event_request *r)
{
	free(r->path);
	free(r->body);
	memset(r, 0, sizeof(*r));
}

static bool worth_another(unsigned http)
{
	return !http || http == 401 || http == 408 || http == 429 || http >= 500;
}

enum event_outcome event_queue_answer(
	struct event_queue *q, unsigned http, struct event_time now, double random)
{
	struct entry *e = q->flying;
	bool accepted = http / 100 == 2;
	uint64_t delay;

	q->flying = NULL;
	if (worth_another(http) && ++q->tries < TRIES) {
		delay = RETRY_MIN << (q->tries - 1);
		q->not_before_ms = now.monotonic_ms + delay + (uint64_t)((double)delay / 4 * random);
		return EVENT_OUTCOME_AGAIN;
	}
	q->tries = 0;
	if (q->flying_patch && http == 404) {
		e->known = 0;
		return EVENT_OUTCOME_AGAIN;
	}
	if (!q->flying_patch && http == 409) {
		/* The answer to an earlier try was lost. */
		accepted = true;
		e->sending = 1;
	}
	q->results[EVENT_SENT] += accepted && !q->flying_patch;
	q->results[EVENT_FAILED] += !accepted;
	if (!accepted && !q->flying_patch) {
		forget(e);
		return EVENT_OUTCOME_GIVEN_UP;
	}
	e->known = e->sending;
	e->sent_ms = now.monotonic_ms;
	plan_count(q, e, now.monotonic_ms);
	return accepted ? EVENT_OUTCOME_DONE : EVENT_OUTCOME_GIVEN_UP;
}
