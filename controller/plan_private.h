/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_PLAN_PRIVATE_H
#define CONTROLLER_PLAN_PRIVATE_H

#include "controller/element_counts.h"
#include "controller/plan.h"
#include "controller/planner.h"

/*
 * plan_private: what the files of the planner share.
 *
 * The base of a plan is all that does not come from Services: plan_base() makes it, of plan_cidrs() and
 * plan_devices(). Services are kept by plan_services.c as they change. plan_classes() comes last.
 */
struct claim;
RB_HEAD(claim_tree, claim);

/* What the Services of the cluster ask for. */
struct plan_services {
	struct element_counts counts;
	struct claim_tree claims; /* addresses that somebody outside the cluster may have written */
};

struct planner {
	const struct cluster *cluster;
	const struct facts *facts;
	const struct config *config;
	char *node;
	struct plan result;
	struct plan *plan; /* 'result', or the one that is being made to replace it */
	struct plan_services services;
	bool base_needed;
	bool made;                                 /* there was an update */
	bool serves;                               /* Services are part of the plan */
	size_t base_warnings, base_warnings_total; /* of 'result': the first ones */
	uint64_t refreshed; /* generation of the cluster at the last planner_refresh() */
	bool refreshed_slices; /* whether EndpointSlices were listed by then: who has none is warned of only then */
	bool stale;            /* there was an update since */
	/* Of the base. */
	const struct node *own;           /* while it is made; NULL: not in the cluster */
	bool family[2];                   /* IPv4, IPv6: the node has anything of it */
	struct prefix_list local, remote; /* pod CIDRs */
};

/* A warning of the plan: the fact and its mend. */
void plan_warn(struct planner *p, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The base of p->plan, which is empty; its ruleset is normalized. Returns whether Services shall be part of the plan. */
bool plan_base(struct planner *p);
/* Pod-side devices, uplinks, pairs, the flowtable's devices; the node's own addresses. */
void plan_devices(struct planner *p);
/* Class rules and exclusions; the latter by what the sets hold, the former not. */
void plan_classes(struct planner *p);

/* The sets whose elements come from Services. */
#define SERVICE_SETS_FIRST SET_CLUSTER_IPS4
#define SERVICE_SETS_LAST SET_EXCLUDED_NODEPORTS
void plan_services_change(struct planner *p, const struct service *old, const struct service *new);
/* A pod CIDR came or went: who claims an address in it? */
void plan_services_recheck(struct planner *p, const struct prefix *cidr);
/* Adds the warnings about Services. */
void plan_services_warn(struct planner *p);
void plan_services_done(struct plan_services *s);

/* The device whose presence makes a node an Antrea node; pkg/agent/config/node_config.go of Antrea. */
#define ANTREA_GATEWAY "antrea-gw0"

#endif
