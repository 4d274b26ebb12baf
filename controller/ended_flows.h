/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_ENDED_FLOWS_H
#define CONTROLLER_ENDED_FLOWS_H

#include "datapath/conntrack.h"
#include "k8s/cluster.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * ended_flows: whose offloaded UDP connections are to be ended, read off the replica. Pure: no clock, no loop, no socket; the
 * loop (cmd_run.c) has them deleted by conntrack_end_udp().
 *
 * Why: a UDP connection has no end. As long as a client sends, from one socket, to an endpoint that is gone, the
 * connection keeps its entry, with it the choice of that endpoint, and its place on the fast path. kube-proxy deletes
 * such entries where the Service has another endpoint (pkg/proxy/conntrack/cleanup.go of 1.36), and what it deletes
 * leaves the fast path, too. Nobody does when the last endpoint of a Service went, nor for connections to a pod's own
 * address, which are all that the host sees where it does no Service NAT (Antrea). Who comes first does not matter: an
 * entry that is gone is none of ours.
 *
 * Vanished is an (address, port) that was a UDP endpoint of a Service and is listed in no slice of any Service any more.
 * One that is listed is not, whether it is ready, serves or terminates: it may be draining. To which of those the
 * connections of a Service go on is kube-proxy's to say, which moves them to one that serves if there is any. A Service
 * that goes ends nothing by itself, as with kube-proxy; its slices go with it. TCP is never ended: its connections drain
 * and end by themselves, and to delete an entry that translates is to cut the connection.
 *
 * When: 200 ms after the change, so that an endpoint that moves from one slice to another is seen in the other; while a
 * list is being read, after it. What is true then counts, whatever was in between. Flushes are apart by ten times the
 * cost of the last, 200 to 500 ms; each is one dump of the connections for all that vanished by then.
 *
 * A second look follows 1 s later, for packets that raced with the first: on their way through the slow path, or under NAT
 * rules that still had the endpoint. Nothing has to be excluded in between, because UDP is offloaded when it was
 * answered, not before, and who has vanished does not answer: the entry that the client's next packet makes stays on
 * the slow path. A pod that was only taken out of its Service does answer, and is met by the second look, or by
 * kube-proxy, which deletes behind its change of the rules.
 *
 * What vanished before the first list was whole, or while no agent ran, is not known here.
 */
struct ended_flow {
	struct udp_endpoint endpoint;
	bool again;  /* the second look */
	bool listed; /* while it is being looked for */
	uint64_t at; /* us; 0: of the next step on */
};

struct ended_flows {
	/* Figures, since the start of the process. */
	uint64_t ended;    /* connections */
	uint64_t failures; /* flushes that failed */
	bool cannot;       /* the kernel cannot end offloaded connections, so there are no flushes any more */
	char problem[512]; /* of the last flush, "" if it was done */

	/* Private. */
	const struct cluster *cluster;
	struct ended_flow *list;
	size_t n, cap;
	struct udp_endpoint *flush;
	uint64_t began, not_before; /* us */
};

/* 'cluster' is borrowed; the owner passes on what the replica tells, see ended_flows_observer(). */
void ended_flows_init(struct ended_flows *e, const struct cluster *cluster);
void ended_flows_done(struct ended_flows *e);
/* For cluster_observe(). */
struct cluster_observer ended_flows_observer(struct ended_flows *e);

/* Microseconds until ended_flows_step() has something to do: 0 now, -1 nothing before the next change. */
int64_t ended_flows_wait(const struct ended_flows *e, uint64_t now);
/*
 * True: the connections of '*ret' are to be ended now, and ended_flows_result() says how that went. '*ret' is in the order
 * of udp_endpoint_cmp() and valid until the next call. 'now' in monotonic microseconds.
 */
bool ended_flows_step(struct ended_flows *e, uint64_t now, const struct udp_endpoint **ret, size_t *n);
/*
 * What conntrack_end_udp() returned, and its error; 'now' after it. Returns true when the error is another one than before and is to
 * be told. A flush that failed is not repeated: the second look is its repetition.
 */
bool ended_flows_result(struct ended_flows *e, uint64_t now, int code, const struct error *err);

#endif
