/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_REFLECTOR_H
#define K8S_REFLECTOR_H

#include <stdbool.h>
#include <stdint.h>

/*
 * reflector: list, then watch, one resource; the state machine alone.
 *
 * Pure: no clock, no descriptor, no random numbers of its own. The owner tells it what happened (struct
 * reflector_input, with the present time) and does what it answers (struct reflector_output). This header is
 * the reference for how slipstream behaves towards an API server. "client-go" marks what
 * tools/cache/reflector.go of client-go 32ce75a7 does as well.
 *
 * LIST
 * - The first asks for resourceVersion=0: whatever the watch cache holds (client-go).
 * - A relist asks for the last version seen: never back in time, still from the cache (client-go).
 * - Once the server said that it does not have that version (410, or 504 with the cause
 *   ResourceVersionTooLarge), it asks for "", a quorum read: at once, and until a list succeeds (client-go).
 * - No limit is asked for. A `continue` is followed, without a resourceVersion. 410 on a later page: one full
 *   list at the version first asked for (client-go, pager.FullListIfExpired); when that one comes in pages that
 *   expire, too, the next after the backoff.
 * - The replica's swap is atomic: RELIST_BEGIN before the first page, RELIST_END after the last one,
 *   RELIST_ABORT on any failure, and then nothing was removed.
 *
 * WATCHLIST, where the owner wants it instead of LIST: a watch with sendInitialEvents=true and
 * resourceVersionMatch=NotOlderThan, whose stream begins with all objects as ADDED.
 * - At the version last seen, "" (the latest) before the first and after the server said that it does not have
 *   that version: 410 or 504 with the cause ResourceVersionTooLarge, asked again at once (client-go).
 * - RELIST_BEGIN before it, RELIST_END at the bookmark that ends the initial events; the version is the
 *   bookmark's, those of the events before it are in no order. The same stream goes on as the watch
 *   (client-go).
 * - 10 s without an event and without that bookmark are a problem that is told (client-go logs it).
 * - LIST instead, at once and for good: 400 and 422 (a server that does not know it), an ERROR event before the
 *   bookmark (500: etcd before 3.5), no bookmark within 90 s; and at the fifth failure in a row of another kind
 *   (an end before the bookmark, 5xx, a body that is none), not before that one's Retry-After. client-go lists
 *   instead after any refusal, but tries WatchList again at the next relist; for the bookmark it waits as long as
 *   the stream lasts, then asks again.
 * - no answer, 429, 401, 403: as below.
 *
 * WATCH
 * - From the list's version, with allowWatchBookmarks, timeoutSeconds drawn from [300, 600] (client-go).
 * - Each event moves the version, bookmarks too.
 * - The end of the stream, clean or cut, is answered by the next watch, at once and at the same version. Not
 *   so when it lasted under a second and brought nothing: then after the backoff (client-go's "very short
 *   watch": proxies that loop).
 *
 * Failures. The version is an opaque string and is kept through all of them:
 * - no answer, 429, 401, 403: the same request after the backoff. A server that has just started answers 403
 *   until it has read its roles.
 * - 401: the token is read again before that.
 * - 5xx, or a body that is not what it should be: the same request after the backoff; a watch becomes a
 *   relist at the fifth in a row.
 * - 410 on a watch, as status or as ERROR event: relist after the backoff (client-go).
 * - 504 ResourceVersionTooLarge on a watch: the same with "".
 * - other ERROR events, other statuses: relist after the backoff (client-go).
 * - 400 while a field selector is sent: the same at once without it, for good. Servers before 1.31 know no
 *   selector spec.clusterIP (kubernetes PR 126769).
 * - Retry-After: the longer of it and the backoff, at most 5 minutes.
 *
 * Backoff: 0.8 s doubling to 30 s, times a random factor in [1, 2); it starts over when the last one began
 * more than 2 minutes ago (client-go). There is one for a server that does not answer and one for what it
 * answers, so that one that was away for long and comes back (403, then 410) is soon followed again;
 * client-go has one for both.
 *
 * Deadlines: 90 s for a page of a LIST (kube-apiserver ends requests after --request-timeout, 60 s) and for the
 * initial events of a WatchList, 60 s for the answer to a WATCH, timeoutSeconds and 30 s for its stream. Dead peers are the transport's business.
 */
#define REFLECTOR_BACKOFF_MIN_MS 800
#define REFLECTOR_BACKOFF_MAX_MS 30000
#define REFLECTOR_BACKOFF_RESET_MS 120000
#define REFLECTOR_RETRY_AFTER_MAX_MS 300000
#define REFLECTOR_WATCH_MIN_S 300
#define REFLECTOR_WATCH_MAX_S 600
#define REFLECTOR_SHORT_WATCH_MS 1000
#define REFLECTOR_LIST_LIMIT_MS 90000
#define REFLECTOR_ANSWER_LIMIT_MS 60000
#define REFLECTOR_WATCH_SLACK_MS 30000
#define REFLECTOR_WATCH_FAILURES 5
#define REFLECTOR_BOOKMARK_LATE_MS 10000

enum reflector_input_kind {
	REFLECTOR_TICK,   /* the deadline has come (earlier ticks do nothing), or the start */
	REFLECTOR_OPENED, /* the request was answered with 200; its body follows */
	REFLECTOR_EVENT,  /* one event of a watch */
	REFLECTOR_DONE,   /* the request is over: answered in full, refused, or failed */
};

enum reflector_event {
	REFLECTOR_ADDED,
	REFLECTOR_MODIFIED,
	REFLECTOR_DELETED,
	REFLECTOR_BOOKMARK,
	REFLECTOR_ERROR
};

struct reflector_input {
	enum reflector_input_kind kind;
	double random; /* in [0, 1), a new one each time */
	/* EVENT */
	enum reflector_event event;
	/* DONE: the answer's HTTP status, 0 when there was none; EVENT ERROR: the code of its Status object
	 */
	unsigned code;
	bool version_too_large; /* with 504: the Status has the cause ResourceVersionTooLarge */
	unsigned retry_after_s; /* 0: none */
	/* EVENT BOOKMARK: has the annotation k8s.io/initial-events-end: "true" */
	bool initial_end;
	/* DONE with 200 */
	bool cut;      /* the transport failed within the body */
	bool bad_body; /* the body was not JSON of the right shape, or too large */
	/* EVENT: the object's resourceVersion. DONE of a LIST: that of the list. NULL or "": none was given
	 */
	const char *version;
	const char *cont; /* DONE of a LIST: metadata.continue, NULL or "": the last page */
};

enum reflector_action {            /* done in this order */
	REFLECTOR_CANCEL = 1 << 0, /* drop the present request; no DONE is wanted for it */
	REFLECTOR_RELIST_ABORT = 1 << 1,
	REFLECTOR_RELIST_END = 1 << 2,
	REFLECTOR_RELIST_BEGIN = 1 << 3,
	REFLECTOR_REREAD_TOKEN = 1 << 4,
	REFLECTOR_SEND = 1 << 5,         /* 'request' */
	REFLECTOR_HEALTHY = 1 << 6,      /* whatever problem was reported is over */
	REFLECTOR_PROBLEM = 1 << 7,      /* the input was a failure that an operator should know of */
	REFLECTOR_NO_WATCHLIST = 1 << 8, /* the input was why there will be lists instead from now on */
};

struct reflector_request {
	bool watch;
	bool initial_events; /* watch: a WatchList */
	const char *version; /* resourceVersion; "" sends none. NULL: none, this continues a list. Valid until
				the next step */
	const char *cont;    /* continue, or NULL */
	unsigned timeout_s;  /* watch: timeoutSeconds */
	bool field_selector; /* send it */
};

struct reflector_output {
	unsigned actions;
	struct reflector_request request;
	uint64_t deadline; /* tick at this time (milliseconds, the owner's clock) unless another input comes
			      first */
};

struct reflector;

/*
 * 'field_selector': the resource has one to be sent until refused. 'watchlist': WatchList instead of LIST until
 * refused. The first TICK sends the first request.
 */
struct reflector *reflector_new(bool field_selector, bool watchlist);
void reflector_free(struct reflector *r);
/* 'now' in milliseconds, never going back. Fills '*out'. */
void reflector_step(
	struct reflector *r, const struct reflector_input *in, uint64_t now, struct reflector_output *out);

#endif
