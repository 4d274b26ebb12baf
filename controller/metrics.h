/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_METRICS_H
#define CONTROLLER_METRICS_H

#include "base/strbuf.h"
#include "controller/agent.h"
#include "controller/ended_flows.h"
#include "controller/flow_totals.h"
#include "k8s/event_queue.h"
#include "k8s/source.h"

/*
 * metrics: what the agent knows, in Prometheus' text format 0.0.4 or in OpenMetrics 1.0.0.
 *
 * Every metric is described in deploy/README.md; the number of series depends on nothing that grows with the
 * cluster.
 */
struct metrics_input {
	const struct agent *agent;
	const struct cluster *cluster;
	const struct source_status *source;
	const struct flow_totals *flows;
	const struct ended_flows *ended;
	const uint64_t *events; /* EVENT_RESULTS of them */
	size_t config_warnings;
	const char *holder; /* as instance_holder(); NULL: "" */
};

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define METRICS_CONTENT_TYPE_OPENMETRICS "application/openmetrics-text; version=1.0.0; charset=utf-8"

void metrics_write(struct strbuf *out, const struct metrics_input *in, bool openmetrics);
/* Whether an Accept header asks for OpenMetrics (any media range of that name with a q that is not 0). */
bool metrics_wants_openmetrics(const char *accept);

#endif
