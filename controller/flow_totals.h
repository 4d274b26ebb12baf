/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_FLOW_TOTALS_H
#define CONTROLLER_FLOW_TOTALS_H

#include "datapath/conntrack.h"
#include "datapath/ruleset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * flow_totals: sums per traffic type that only grow, from dumps of offloaded flows that come and go.
 *
 * The kernel keeps bytes and packets per flow, so each dump adds what every flow has more than at the last
 * one. A flow not seen before counts in full, except in the very first dump, which is only the base. What a
 * flow carried between its last dump and its end is lost, and a flow without counters counts 0. A flow that
 * is not in a dump is remembered for FLOW_TOTALS_MEMORY seconds: its offload may have ended and begin again.
 *
 * Of more than FLOW_TOTALS_MAX flows the rest is counted as flows, but their bytes are not followed.
 */
#define FLOW_TOTALS_MEMORY 600
#define FLOW_TOTALS_MAX (1u << 18)

struct flow_slot;
struct flow_totals {
	uint64_t flows[TRAFFIC_TYPES]; /* in the last finished dump */
	uint64_t bytes[TRAFFIC_TYPES], packets[TRAFFIC_TYPES];

	/* Private: an open-addressed table, its size a power of two. */
	struct flow_slot *slots;
	size_t n, size;
	uint64_t dumps;
	uint64_t counting[TRAFFIC_TYPES];
};

/* A zeroed struct is a valid one. */
void flow_totals_done(struct flow_totals *t);
/* One dump: begin, each flow, end. 'now' in seconds of a monotonic clock. An aborted dump is not ended. */
void flow_totals_begin(struct flow_totals *t);
void flow_totals_add(struct flow_totals *t, const struct flow *f, enum traffic_type type, uint64_t now);
void flow_totals_end(struct flow_totals *t, uint64_t now);

#endif
