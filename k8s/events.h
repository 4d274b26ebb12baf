/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_EVENTS_H
#define K8S_EVENTS_H

#include "base/error.h"
#include "k8s/event_queue.h"
#include "k8s/source.h"

/*
 * events: posts Events on the Node through a source, and never in anybody's way.
 *
 * Lives on the caller's loop. events_record() only queues; what is sent, aggregated or dropped is decided by
 * event_queue.h. Nothing queued: no timer. One that is given up is told through 'problem', once until one is
 * accepted again or the reason for it changes. A source that cannot write (manifests) takes none, silently.
 */
struct event_base;
struct events;

/* 'source' must outlive it. */
struct events *events_new(struct event_base *base, struct source *source, const char *node,
	void (*problem)(void *arg, const struct error *err), void *arg);
/* What is queued is lost. Free the source first: an answer that is under way then comes to nobody. */
void events_free(struct events *e);

void events_record(struct events *e, const struct node_event *event);
const uint64_t *events_results(const struct events *e); /* EVENT_RESULTS of them */

#endif
