/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/events.h"

#include "base/mem.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct events {
	struct source *source;
	struct event_queue *queue;
	struct event timer;
	void (*problem)(void *arg, const struct error *err);
	void *arg;
	struct event_request request; /* the one under way */
	unsigned told;                /* the status that was told, TOLD_NOTHING */
	bool unable;                  /* the source takes none */
};

#define TOLD_NOTHING 1

static uint64_t microseconds(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static struct event_time now(void)
{
	return (struct event_time){
		.monotonic_ms = microseconds(CLOCK_MONOTONIC) / 1000,
		.wall_us = microseconds(CLOCK_REALTIME),
	};
}

static void arm(struct events *e)
{
	int64_t wait = event_queue_wait(e->queue, now());
	struct timeval tv = {.tv_sec = wait / 1000, .tv_usec = wait % 1000 * 1000};

	if (wait < 0 || e->unable)
		evtimer_del(&e->timer);
	else
		evtimer_add(&e->timer, &tv);
}

static void tell(struct events *e, unsigned http, const struct error *cause)
{
	const char *verb = e->request.patch ? "patch" : "create";
	struct error err;

	if (e->told == http || !e->problem)
		return;
	e->told = http;
	if (http == 403)
		error_set(&err, -EPERM, "Events",
			"allow create and patch of events in events.k8s.io with a Role in namespace default",
			"not allowed to %s events in events.k8s.io (403), %s is dropped", verb,
			e->request.reason);
	else
		error_set(&err, -EREMOTEIO, "Events", NULL, "%s is dropped: %s", e->request.reason,
			cause ? cause->what : "not accepted");
	e->problem(e->arg, &err);
}

static void on_answer(void *arg, unsigned http, const struct error *err)
{
	double random = (double)(microseconds(CLOCK_MONOTONIC) % 1000) / 1000;
	struct events *e = arg;

	switch (event_queue_answer(e->queue, http, now(), random)) {
	case EVENT_OUTCOME_DONE:
		e->told = TOLD_NOTHING;
		break;
	case EVENT_OUTCOME_GIVEN_UP:
		tell(e, http, err);
		break;
	case EVENT_OUTCOME_AGAIN:
		break;
	}
	event_request_done(&e->request);
	arm(e);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct events *e = arg;
	int rc;

	(void)fd;
	(void)what;
	if (event_queue_next(e->queue, now(), &e->request)) {
		rc = (e->request.patch ? source_patch : source_post)(
			e->source, e->request.path, e->request.body, strlen(e->request.body), on_answer, e);
		if (!rc)
			return; /* the answer arms again */
		e->unable = true;
		event_request_done(&e->request);
	}
	arm(e);
}

struct events *events_new(struct event_base *base, struct source *source, const char *node,
	void (*problem)(void *arg, const struct error *err), void *arg)
{
	struct events *e = xcalloc(1, sizeof(*e));

	e->source = source;
	e->queue = event_queue_new(node);
	e->problem = problem;
	e->arg = arg;
	e->told = TOLD_NOTHING;
	evtimer_assign(&e->timer, base, on_timer, e);
	return e;
}

void events_free(struct events *e)
{
	if (!e)
		return;
	evtimer_del(&e->timer);
	event_request_done(&e->request);
	event_queue_free(e->queue);
	free(e);
}

void events_record(struct events *e, const struct node_event *event)
{
	if (e->unable)
		return;
	event_queue_add(e->queue, event, now());
	arm(e);
}

const uint64_t *events_results(const struct events *e)
{
	return event_queue_results(e->queue);
}
