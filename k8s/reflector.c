/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/reflector.h"

#include "base/mem.h"

#include <string.h>

enum state {
	WAITING,
	LISTING,
	STREAMING, /* a WatchList, before the bookmark that ends the initial events */
	WATCHING
};

struct backoff {
	uint64_t ms; /* the last one, 0: none yet */
	uint64_t start;
};

struct reflector {
	enum state state;
	bool watch_next; /* WAITING: what to send at the deadline */
	bool field_selector;
	bool watchlist;
	bool latest;       /* lists ask for "" until one succeeds */
	bool full;         /* LISTING: again, because a page had expired */
	bool opened;       /* STREAMING, WATCHING: answered */
	bool late;         /* STREAMING: told that the bookmark is late */
	unsigned events;   /* WATCHING: of this stream */
	unsigned failures; /* watches in a row that failed at the server */
	unsigned timeout_s;
	uint64_t deadline;
	uint64_t since;         /* STREAMING, WATCHING: sent, then opened */
	struct backoff away;    /* while there is no answer */
	struct backoff refused; /* after answers that are none */
	char *version;          /* last seen, NULL before the first list */
	char *list_version;     /* LISTING: what the first page asked for; STREAMING: what it asked for */
	char *cont;             /* LISTING: of the present page, NULL on the first */
};

struct reflector *reflector_new(bool field_selector, bool watchlist)
{
	struct reflector *r = xcalloc(1, sizeof(*r));

	r->field_selector = field_selector;
	r->watchlist = watchlist;
	return r;
}

void reflector_free(struct reflector *r)
{
	if (!r)
		return;
	free(r->version);
	free(r->list_version);
	free(r->cont);
	free(r);
}

static void set(char **field, const char *value)
{
	char *copy = value ? xstrdup(value) : NULL;

	free(*field);
	*field = copy;
}

static bool given(const char *s)
{
	return s && *s;
}

static void send_list(struct reflector *r, uint64_t now, struct reflector_output *out)
{
	r->state = LISTING;
	r->deadline = now + REFLECTOR_LIST_LIMIT_MS;
	out->actions |= REFLECTOR_SEND;
	out->request = (struct reflector_request){
		.version = r->cont ? NULL : r->list_version,
		.cont = r->cont,
		.field_selector = r->field_selector,
	};
}

static void send_watch(struct reflector *r, enum state state, const struct reflector_input *in, uint64_t now,
	struct reflector_output *out)
{
	const unsigned span = REFLECTOR_WATCH_MAX_S - REFLECTOR_WATCH_MIN_S + 1;

	r->state = state;
	r->opened = r->late = false;
	r->events = 0;
	r->since = now;
	r->timeout_s = REFLECTOR_WATCH_MIN_S + (unsigned)(in->random * span);
	r->deadline = now + REFLECTOR_ANSWER_LIMIT_MS;
	out->actions |= REFLECTOR_SEND;
	out->request = (struct reflector_request){
		.watch = true,
		.initial_events = state == STREAMING,
		.version = state == STREAMING ? r->list_version : r->version,
		.timeout_s = r->timeout_s,
		.field_selector = r->field_selector,
	};
}

static void start_watch(
	struct reflector *r, const struct reflector_input *in, uint64_t now, struct reflector_output *out)
{
	send_watch(r, WATCHING, in, now, out);
}

/* The whole state anew, by LIST or by WatchList. */
static void start_list(
	struct reflector *r, const struct reflector_input *in, uint64_t now, struct reflector_output *out)
{
	const char *unseen = r->watchlist ? "" : "0";

	set(&r->cont, NULL);
	set(&r->list_version, r->latest ? "" : r->version ? r->version : unseen);
	r->full = false;
	out->actions |= REFLECTOR_RELIST_BEGIN;
	if (r->watchlist)
		send_watch(r, STREAMING, in, now, out);
	else
		send_list(r, now, out);
}

static uint64_t watch_deadline(const struct reflector *r)
{
	return r->since + (uint64_t)r->timeout_s * 1000 + REFLECTOR_WATCH_SLACK_MS;
}

static uint64_t next_delay(struct backoff *b, double random, uint64_t now)
{
	if (!b->ms || now - b->start > REFLECTOR_BACKOFF_RESET_MS)
		b->ms = REFLECTOR_BACKOFF_MIN_MS;
	else if (b->ms < REFLECTOR_BACKOFF_MAX_MS / 2)
		b->ms *= 2;
	else
		b->ms = REFLECTOR_BACKOFF_MAX_MS;
	b->start = now;
	return b->ms + (uint64_t)(random * (double)b->ms);
}

/* Waits at least 'min_ms', then watches again or lists. */
static void back_off(
	struct reflector *r, const struct reflector_input *in, uint64_t now, bool watch, uint64_t min_ms)
{
	bool answer = in->kind != REFLECTOR_TICK && in->code != 0;
	uint64_t delay = next_delay(answer ? &r->refused : &r->away, in->random, now);

	r->state = WAITING;
	r->watch_next = watch;
	r->deadline = now + (delay > min_ms ? delay : min_ms);
}

/* The shortest wait that the answer itself asks for. */
static uint64_t asked_wait(const struct reflector_input *in)
{
	uint64_t ms = (uint64_t)in->retry_after_s * 1000;

	return ms < REFLECTOR_RETRY_AFTER_MAX_MS ? ms : REFLECTOR_RETRY_AFTER_MAX_MS;
}

/* The server does not have the version that was asked for. */
static bool no_version(const struct reflector_input *in)
{
	return in->code == 410 || (in->code == 504 && in->version_too_large);
}

static void list_failed(
	struct reflector *r, const struct reflector_input *in, uint64_t now, struct reflector_output *out)
{
	out->actions |= REFLECTOR_RELIST_ABORT;
	if (in->code == 410 && r->cont && !r->full) {
		set(&r->cont, NULL);
		r->full = true;
		out->actions |= REFLECTOR_RELIST_BEGIN;
		send_list(r, now, out);
	} else if (no_version(in) && !r->cont && r->list_version[0]) {
		r->latest = true;
		start_list(r, in, now, out);
	} else if (in->code == 400 && r->field_selector) {
		r->field_selector = false;
		start_list(r, in, now, out);
	} else {
		if (in->code == 401)
			out->actions |= REFLECTOR_REREAD_TOKEN;
		out->actions |= REFLECTOR_PROBLEM;
		back_off(r, in, now, false, asked_wait(in));
	}
}

static void synced(struct reflector *r, const struct reflector_input *in, struct reflector_output *out)
{
	set(&r->version, in->version);
	r->latest = false;
	r->failures = 0;
	out->actions |= REFLECTOR_RELIST_END | REFLECTOR_HEALTHY;
}

static void list_done(
	struct reflector *r, const struct reflector_input *in, uint64_t now, struct reflector_output *out)
{
	if (in->code != 200 || in->cut || in->bad_body || !given(in->version)) {
		list_failed(r, in, now, out);
		return;
	}
	if (given(in->cont)) {
		set(&r->cont, in->cont);
		send_list(r, now, out);
		return;
	}
	set(&r->cont, NULL);
	synced(r, in, out);
	start_watch(r, in, now, out);
}

static void list_instead(
	struct reflector *r, const struct reflector_input *in, uint64_t now, struct reflector_output *out)
{
	r->watchlist = false;
	r->failures = 0;
	out->actions |= REFLECTOR_NO_WATCHLIST;
	start_list(r, in, now, out);
}

/* A WatchList was refused, or ended before the bookmark. */
static void stream_failed(struct reflector *r, const struct reflector_input *in, uint64_t now, bool event,
	struct reflector_output *out)
{
	bool wait = in->code == 0 || in->code == 429 || in->code == 401 || in->code == 403;

	out->actions |= REFLECTOR_RELIST_ABORT;
	if (no_version(in) && r->list_version[0]) {
		r->latest = true;
		start_list(r, in, now, out);
	} else if (!wait && (in->code == 400 || in->code == 422 || event ||
				    ++r->failures == REFLECTOR_WATCH_FAILURES)) {
		if (!asked_wait(in)) {
			list_instead(r, in, now, out);
			return;
		}
		r->watchlist = false;
		r->failures = 0;
		out->actions |= REFLECTOR_NO_WATCHLIST | REFLECTOR_PROBLEM;
		back_off(r, in, now, false, asked_wait(in));
	} else {
		if (in->code == 401)
			out->actions |= REFLECTOR_REREAD_TOKEN;
		out->actions |= REFLECTOR_PROBLEM;
		back_off(r, in, now, false, asked_wait(in));
	}
}

/* A watch refused by a status, or ended by an ERROR event with such a code. */
static void watch_failed(struct reflector *r, const struct reflector_input *in, uint64_t now, bool event,
	struct reflector_output *out)
{
	bool watch_again;

	if (in->code == 410) {
		back_off(r, in, now, false, 0);
		return;
	}
	if (in->code == 504 && in->version_too_large) {
		r->latest = true;
		back_off(r, in, now, false, 0);
		return;
	}
	if (in->code == 400 && r->field_selector && !event) {
		r->field_selector = false;
		start_watch(r, in, now, out);
		return;
	}
	out->actions |= REFLECTOR_PROBLEM;
	if (in->code == 401)
		out->actions |= REFLECTOR_REREAD_TOKEN;
	if (in->code == 0 || in->code == 429 || in->code == 401 || in->code == 403)
		watch_again = true;
	else if (event || (in->code < 500 && in->code != 200))
		watch_again = false;
	else
		watch_again = ++r->failures < REFLECTOR_WATCH_FAILURES;
	if (!watch_again)
		r->failures = 0;
	back_off(r, in, now, watch_again, asked_wait(in));
}

static void watch_done(
	struct reflector *r, const struct reflector_input *in, uint64_t now, struct reflector_output *out)
{
	if (in->code != 200 || in->bad_body)
		watch_failed(r, in, now, false, out);
	else if (!r->events && now - r->since < REFLECTOR_SHORT_WATCH_MS)
		back_off(r, in, now, true, 0);
	else
		start_watch(r, in, now, out);
}

static void tick(
	struct reflector *r, const struct reflector_input *in, uint64_t now, struct reflector_output *out)
{
	if (now < r->deadline)
		return;
	switch (r->state) {
	case WAITING:
		if (r->watch_next)
			start_watch(r, in, now, out);
		else
			start_list(r, in, now, out);
		break;
	case LISTING:
		out->actions |= REFLECTOR_CANCEL | REFLECTOR_RELIST_ABORT | REFLECTOR_PROBLEM;
		back_off(r, in, now, false, 0);
		break;
	case STREAMING:
		if (r->opened && now - r->since < REFLECTOR_LIST_LIMIT_MS) {
			r->late = true;
			r->deadline = r->since + REFLECTOR_LIST_LIMIT_MS;
			out->actions |= REFLECTOR_PROBLEM;
			break;
		}
		out->actions |= REFLECTOR_CANCEL | REFLECTOR_RELIST_ABORT;
		if (r->opened) {
			list_instead(r, in, now, out);
		} else {
			out->actions |= REFLECTOR_PROBLEM;
			back_off(r, in, now, false, 0);
		}
		break;
	case WATCHING:
		out->actions |= REFLECTOR_CANCEL;
		if (r->opened) {
			start_watch(r, in, now, out);
		} else {
			out->actions |= REFLECTOR_PROBLEM;
			back_off(r, in, now, true, 0);
		}
		break;
	}
}

static void opened(struct reflector *r, uint64_t now, struct reflector_output *out)
{
	if (r->state != STREAMING && r->state != WATCHING)
		return;
	r->opened = true;
	r->since = now;
	if (r->state == STREAMING) {
		r->deadline = now + REFLECTOR_BOOKMARK_LATE_MS;
		return;
	}
	r->deadline = watch_deadline(r);
	out->actions |= REFLECTOR_HEALTHY;
}

static void stream_event(
	struct reflector *r, const struct reflector_input *in, uint64_t now, struct reflector_output *out)
{
	uint64_t limit = r->since + REFLECTOR_LIST_LIMIT_MS;

	if (in->event == REFLECTOR_ERROR) {
		out->actions |= REFLECTOR_CANCEL;
		stream_failed(r, in, now, true, out);
	} else if (in->event == REFLECTOR_BOOKMARK && in->initial_end && given(in->version)) {
		synced(r, in, out);
		r->state = WATCHING;
		r->events = 1;
		r->deadline = watch_deadline(r);
	} else if (!r->late) {
		r->deadline = now + REFLECTOR_BOOKMARK_LATE_MS;
		if (r->deadline > limit)
			r->deadline = limit;
	}
}

static void watch_event(
	struct reflector *r, const struct reflector_input *in, uint64_t now, struct reflector_output *out)
{
	if (in->event == REFLECTOR_ERROR) {
		out->actions |= REFLECTOR_CANCEL;
		watch_failed(r, in, now, true, out);
		return;
	}
	r->events++;
	r->failures = 0;
	if (given(in->version))
		set(&r->version, in->version);
}

void reflector_step(
	struct reflector *r, const struct reflector_input *in, uint64_t now, struct reflector_output *out)
{
	memset(out, 0, sizeof(*out));
	switch (in->kind) {
	case REFLECTOR_TICK:
		tick(r, in, now, out);
		break;
	case REFLECTOR_OPENED:
		opened(r, now, out);
		break;
	case REFLECTOR_EVENT:
		if (r->state == STREAMING)
			stream_event(r, in, now, out);
		else if (r->state == WATCHING)
			watch_event(r, in, now, out);
		break;
	case REFLECTOR_DONE:
		if (r->state == LISTING)
			list_done(r, in, now, out);
		else if (r->state == STREAMING)
			stream_failed(r, in, now, false, out);
		else if (r->state == WATCHING)
			watch_done(r, in, now, out);
		break;
	}
	out->deadline = r->deadline;
}
