/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_NODE_EVENTS_H
#define CONTROLLER_NODE_EVENTS_H

#include "controller/agent.h"
#include "k8s/event_queue.h"

/*
 * node_events: what is worth an Event on the Node, read off the agent after each step. Pure: no clock, no
 * loop; what becomes of an Event is k8s/events.h.
 *
 * Only transitions are told, and what is bad only when it has lasted 10 s: a device that goes between plan
 * and sync, or one failed sync, is none. Of a state with several causes a further one is told, one that goes is not
 * until all have gone. Reference of reasons: deploy/README.md.
 *
 *   nothing yet, disabled -> accelerates        AccelerationEnabled
 *   any -> a cause stands against it            AccelerationDegraded
 *   any -> somebody else's rules are in the way CoexistenceConflict
 *   degraded, conflict -> accelerates           AccelerationRecovered
 *   any -> switched off                         AccelerationDisabled
 *
 * A conflict is an object in the way of ours (EEXIST, EBUSY), or three repairs within 10 min, until there was
 * none for 10 min.
 */
enum node_state { NODE_UNKNOWN, NODE_DISABLED, NODE_ACCELERATES, NODE_DEGRADED, NODE_CONFLICT };

#define NODE_REPAIRS 3

struct node_events { /* zeroed at the start */
	enum node_state said, seen;
	uint32_t said_causes, seen_causes;
	uint64_t seen_at;                   /* monotonic us; of the first look at 'seen' */
	uint64_t repairs;                   /* of the agent's figures, at the last look */
	uint64_t repaired_at[NODE_REPAIRS]; /* the last ones, newest first; 0: none */
	bool contested;
	char note[1024];
};

/*
 * 'now' as the agent's. True: '*ret' is to be posted, its texts valid until the next call.
 */
bool node_events_step(struct node_events *n, const struct agent *a, uint64_t now, struct node_event *ret);
/* Microseconds until the next look without a step of the agent, -1: none needed. */
int64_t node_events_wait(const struct node_events *n, uint64_t now);

#endif
