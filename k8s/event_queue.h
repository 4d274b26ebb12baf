/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_EVENT_QUEUE_H
#define K8S_EVENT_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * event_queue: which requests a stream of occurrences on the Node becomes. Pure: the time is a parameter.
 *
 * As client-go's tools/events/event_broadcaster.go: the first occurrence creates an Event (events.k8s.io/v1),
 * the second of the same patches a series (count 2) into it, later ones are only counted; the count is patched
 * every 30 min, and once more when the series has ended: 6 min without an occurrence. After that the same
 * occurrence is a new Event. An Event that has gone meanwhile (they live an hour) is created again. What differs:
 * - the note is part of what makes two occurrences the same, because here it holds the reason;
 * - a token bucket of the older recorder (tools/record/events_cache.go, EventSourceObjectSpamFilter) stands
 *   in front: 25 at once, then one per 5 min. An occurrence without a token is dropped, the start of a series
 *   without one waits for its next count;
 * - one request at a time, in order; no answer, 401, 408, 429 and 5xx are tried again, the queue waiting: 6 times
 *   over about 5 min. Any other answer is final.
 *
 * The Node is named as kube-proxy and kubelet do: kind Node, uid the Node's name (cmd/kube-proxy/app/server.go,
 * pkg/kubelet: types.UID(nodeName)), namespace default, so that `kubectl describe node` lists it.
 */
#define EVENT_QUEUE_SIZE 16

enum event_result {
	EVENT_SENT,       /* "sent": created */
	EVENT_AGGREGATED, /* "aggregated": counted in one that is there */
	EVENT_LIMITED,    /* "limited": no token */
	EVENT_DISPLACED,  /* "displaced": the queue was full, the oldest gave way */
	EVENT_FAILED,     /* "failed": refused, or no answer for too long */
	EVENT_RESULTS
};
extern const char *const event_result_names[EVENT_RESULTS];

struct node_event {
	bool warning;       /* type Warning, else Normal */
	const char *reason; /* "AccelerationDegraded" */
	const char *action; /* what was done: "Accelerate" */
	const char *note;   /* 1024 bytes of it are sent, as ASCII */
};

struct event_time {
	uint64_t monotonic_ms;
	uint64_t wall_us;
};

struct event_request {
	bool patch; /* else POST */
	char *path, *body;
	char reason[64]; /* of the event, for words */
};
void event_request_done(struct event_request *r);

enum event_outcome { EVENT_OUTCOME_DONE, EVENT_OUTCOME_AGAIN, EVENT_OUTCOME_GIVEN_UP };

struct event_queue;
struct event_queue *event_queue_new(const char *node);
void event_queue_free(struct event_queue *q);

/* Copies 'e'. */
void event_queue_add(struct event_queue *q, const struct node_event *e, struct event_time now);
/* Milliseconds until event_queue_next() has a request: 0 now, -1: not before something else is called. */
int64_t event_queue_wait(const struct event_queue *q, struct event_time now);
/* False: none now. True: 'ret' is filled, and the next call is event_queue_answer(). */
bool event_queue_next(struct event_queue *q, struct event_time now, struct event_request *ret);
/* What became of it: 'http' 0 is no answer; 'random' in [0, 1) spreads the next try. */
enum event_outcome event_queue_answer(
	struct event_queue *q, unsigned http, struct event_time now, double random);
const uint64_t *event_queue_results(const struct event_queue *q); /* EVENT_RESULTS of them */

#endif
