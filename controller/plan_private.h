/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_PLAN_PRIVATE_H
#define CONTROLLER_PLAN_PRIVATE_H

#include "controller/plan.h"

/*
 * plan_private: what the files of plan share. plan.c runs the parts in this order: plan_cidrs(),
 * plan_devices(), plan_services(), plan_classes(); each reads what the ones before it found.
 */
struct planner {
	const struct cluster *cluster;
	const struct facts *facts;
	const struct config *config;
	const char *node;
	const struct node *own; /* NULL: not in the cluster */
	struct plan *plan;
	bool family[2];                   /* IPv4, IPv6: the node has anything of it */
	struct prefix_list local, remote; /* pod CIDRs */
};

/* A warning of the plan: the fact and its mend. */
void plan_warn(struct planner *p, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Local and remote pod CIDRs, peers' addresses, families. */
void plan_cidrs(struct planner *p);
/* Pod-side devices, uplinks, pairs, the flowtable's devices; the node's own addresses. */
void plan_devices(struct planner *p);
/* Addresses and ports of Services, excluded ones, excluded CIDRs. */
void plan_services(struct planner *p);
/* Class rules and exclusions; the latter by what the sets hold, the former not. */
void plan_classes(struct planner *p);

/* The device whose presence makes a node an Antrea node; pkg/agent/config/node_config.go of Antrea. */
#define ANTREA_GATEWAY "antrea-gw0"

#endif
