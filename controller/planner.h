/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_PLANNER_H
#define CONTROLLER_PLANNER_H

#include "controller/plan.h"

/*
 * planner: a plan that is kept current, at the cost of what changed.
 *
 * Services, of which there are many, are taken one by one as they change and only counted; what is made of Nodes, of
 * the configuration and of what the kernel says of the node is made anew when one of these changed. As pure as
 * plan_make(), which is a planner that lives for one plan: after the same inputs, in whatever order, both have the
 * same plan.
 *
 * Life cycle: planner_new() takes what the cluster holds by then, the owner passes on what the replica tells
 * (planner_observer()), calls planner_note() for the rest and planner_update() when it wants the plan.
 * Everything given is borrowed and must outlive the planner.
 */
struct planner;

struct planner *planner_new(const struct cluster *cluster, const char *node);
void planner_free(struct planner *p);
/* For cluster_observe(). */
struct cluster_observer planner_observer(struct planner *p);

/* These facts, this configuration: perhaps others, perhaps changed ones. */
void planner_note(struct planner *p, const struct facts *facts, const struct config *config);
/*
 * Brings the plan up to date, except for what planner_refresh() is for. '*ret' is what its ruleset differs in since the
 * last call; cleared first.
 */
void planner_update(struct planner *p, struct ruleset_delta *ret);
/*
 * The plan; valid until the planner goes. Of its ruleset the sets that come from Services, and its warnings, are as
 * planner_refresh() made them last: nobody looks at them when one Service changed.
 */
const struct plan *planner_plan(const struct planner *p);
/* Brings all of it up to date with the last planner_update(). Costs as much as there are Services, if any changed. */
void planner_refresh(struct planner *p);
/* Elements that a set has, as of the last planner_update(). */
size_t planner_set_size(const struct planner *p, enum ruleset_set set);
/* The kernel refused this device; until the next planner_note(). */
void planner_device_failed(struct planner *p, const char *name, int code);

#endif
