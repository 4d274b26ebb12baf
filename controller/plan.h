/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_PLAN_H
#define CONTROLLER_PLAN_H

#include "controller/config.h"
#include "datapath/facts.h"
#include "datapath/ruleset.h"
#include "k8s/cluster.h"

/*
 * plan: (cluster, node facts, configuration) -> ruleset. A pure function: no clock, no descriptor, no log;
 * equal inputs give equal plans, byte by byte.
 *
 * All cleverness about clusters is here: which cluster kind this is, which devices are pod-side and which are
 * uplinks, which pairs are managed, which addresses belong to which traffic type. The plan owns its memory
 * and keeps no pointer into its inputs: plan_done().
 */
struct plan_input {
	const struct cluster *cluster;
	const struct facts *facts;
	const struct config *config;
	const char *node; /* own node's name */
};

struct plan_type {
	enum engine engine; /* ENGINE_FLOWTABLE or ENGINE_OFF: what is done, not what was asked for */
	char reason[192];   /* why: "configured", "Egress: 2 policy rules", "no pod CIDR of a peer is known",
			       ... */
};

enum device_role { DEVICE_POD, DEVICE_UPLINK, DEVICE_BRIDGE };
enum device_state {
	DEVICE_ACTIVE,  /* in the flowtable, or (a bridge) its ports are */
	DEVICE_DOWN,    /* managed, but link down: in the flowtable all the same */
	DEVICE_MISSING, /* a name in the configuration (no glob) that matches no link */
	DEVICE_FAILED,  /* the kernel refused it: set by the agent after a sync, never by the planner */
	DEVICE_STATES
};
extern const char *const device_role_names[];
extern const char *const device_state_names[];

struct plan_device {
	char name[IFNAMSIZ];
	uint32_t ifindex;
	enum device_role role;
	enum device_state state;
	bool checked;     /* uplink: inserts only what is routed back the same way */
	char reason[128]; /* "default route", "route to 10.0.1.0/24", "port of cni0", "local pod
			     route 10.0.0.5/32" */
};

struct plan_warning {
	char object[192]; /* "Service default/web", "Node n2", "configuration" */
	char text[256];   /* fact and mend */
};

#define PLAN_WARNINGS_MAX 32 /* further ones are only counted */

struct plan {
	struct ruleset ruleset;
	enum cluster_kind kind; /* never CLUSTER_AUTO */
	char kind_reason[160];
	struct plan_type types[TRAFFIC_TYPES];
	struct plan_device *devices; /* sorted by name */
	size_t n_devices, cap_devices;
	struct plan_warning *warnings;
	size_t n_warnings, cap_warnings, warnings_total;
};

/*
 * '*ret' is always a valid plan. Nothing is known of the own node yet (not in the cluster, no routes): the
 * plan is an empty table with a warning. config->enabled false, or the own node labelled
 * slipstream/acceleration: disabled, or a kernel without flowtables: ruleset.present is false and every
 * type's reason says why.
 */
void plan_make(const struct plan_input *in, struct plan *ret);
void plan_done(struct plan *p);
/* Pairs as names, for status: calls 'each' with in, out and whether it is a hairpin. */
void plan_each_pair(const struct plan *p,
	void (*each)(void *arg, const char *in, const char *out, bool hairpin), void *arg);

#endif
