/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Class rules: which type a connection is of, first match first.
 *
 * They depend on the kind of node and on the families it has, never on what the sets hold: a Service that
 * comes or goes changes elements and no chain. Exclusions are there only while there is something to exclude:
 * each one is a look-up in front of every insert (measurements 1.1).
 */
#include "controller/plan_private.h"

#include "base/mem.h"

/* Virtual addresses of Antrea's OVS pipeline: pkg/agent/config/node_config.go of Antrea, VirtualNodePortDNAT*
 * and VirtualServiceIP*. */
#define ANTREA_NODEPORT4 "169.254.0.252"
#define ANTREA_NODEPORT6 "fc01::aabb:ccdd:eefe"
#define ANTREA_SERVICE4 "169.254.0.253"
#define ANTREA_SERVICE6 "fc01::aabb:ccdd:eeff"

#define DNAT ((struct rule_expr){.op = OP_DNAT})
#define TCP ((struct rule_expr){.op = OP_TCP})
#define UDP ((struct rule_expr){.op = OP_UDP})
#define IN(operation, of) ((struct rule_expr){.op = (operation), .set = (of)})
#define IS(operation, text) ((struct rule_expr){.op = (operation), .value = address(text)})

#define CLASS(rs, type, ...)                                                                                 \
	ruleset_add_class(rs, type, (const struct rule_expr[]){__VA_ARGS__},                                 \
		ARRAY_SIZE(((const struct rule_expr[]){__VA_ARGS__})))
#define EXCLUSION(rs, ...)                                                                                   \
	ruleset_add_exclusion(rs, (const struct rule_expr[]){__VA_ARGS__},                                   \
		ARRAY_SIZE(((const struct rule_expr[]){__VA_ARGS__})))

static struct addr address(const char *text)
{
	struct addr a;

	if (!addr_parse(text, &a))
		abort(); /* only the constants above come here */
	return a;
}

/* The host does Service NAT. 'v' is 0 for IPv4, 1 for IPv6: the second of each pair of sets. */
static void kube_proxy_classes(struct ruleset *rs, int v)
{
	CLASS(rs, TYPE_EXTERNAL_TO_NODEPORT, TCP, DNAT, IN(OP_ORIGINAL_DADDR, SET_NODE_ADDRESSES4 + v),
		IN(OP_ORIGINAL_PORT, SET_NODEPORTS));
	CLASS(rs, TYPE_EXTERNAL_TO_NODEPORT, UDP, DNAT, IN(OP_ORIGINAL_DADDR, SET_NODE_ADDRESSES4 + v),
		IN(OP_ORIGINAL_PORT, SET_NODEPORTS));
	CLASS(rs, TYPE_EXTERNAL_TO_LOADBALANCER, DNAT, IN(OP_ORIGINAL_DADDR, SET_LOADBALANCER_IPS4 + v));
	CLASS(rs, TYPE_EXTERNAL_TO_EXTERNALIP, DNAT, IN(OP_ORIGINAL_DADDR, SET_EXTERNAL_IPS4 + v));
	CLASS(rs, TYPE_POD_TO_SERVICE, DNAT, IN(OP_ORIGINAL_DADDR, SET_CLUSTER_IPS4 + v));
}

/* OVS does Service NAT behind the gateway: the host sees Service addresses untranslated. */
static void antrea_classes(struct ruleset *rs, int v)
{
	CLASS(rs, TYPE_EXTERNAL_TO_NODEPORT, IS(OP_DADDR, v ? ANTREA_NODEPORT6 : ANTREA_NODEPORT4));
	CLASS(rs, TYPE_EXTERNAL_TO_LOADBALANCER, IN(OP_ORIGINAL_DADDR, SET_LOADBALANCER_IPS4 + v));
	CLASS(rs, TYPE_EXTERNAL_TO_EXTERNALIP, IN(OP_ORIGINAL_DADDR, SET_EXTERNAL_IPS4 + v));
	CLASS(rs, TYPE_EXTERNAL_TO_SERVICE, IS(OP_SADDR, v ? ANTREA_SERVICE6 : ANTREA_SERVICE4),
		IN(OP_DADDR, SET_REMOTE_PODS4 + v));
}

/* What no Service is in. */
static void pod_classes(struct ruleset *rs, int v)
{
	enum ruleset_set local = SET_LOCAL_PODS4 + v, remote = SET_REMOTE_PODS4 + v;

	CLASS(rs, TYPE_POD_TO_POD, IN(OP_SADDR, local), IN(OP_DADDR, remote));
	CLASS(rs, TYPE_POD_TO_POD, IN(OP_SADDR, remote), IN(OP_DADDR, local));
	CLASS(rs, TYPE_NODE_TO_POD, IN(OP_SADDR, SET_PEER_NODES4 + v), IN(OP_DADDR, local));
	CLASS(rs, TYPE_OTHER, IN(OP_SADDR, local), IN(OP_DADDR, SET_PEER_NODES4 + v));
	CLASS(rs, TYPE_OTHER, IN(OP_SADDR, local), IN(OP_DADDR, SET_NODE_ADDRESSES4 + v));
	CLASS(rs, TYPE_POD_TO_EXTERNAL, IN(OP_SADDR, local));
}

static void exclusions(struct planner *p, int v)
{
	struct ruleset *rs = &p->plan->ruleset;
	enum ruleset_set ips = SET_EXCLUDED_IPS4 + v, cidrs = SET_EXCLUDED_CIDRS4 + v;

	if (planner_set_size(p, ips))
		EXCLUSION(rs, IN(OP_ORIGINAL_DADDR, ips));
	if (planner_set_size(p, SET_EXCLUDED_NODEPORTS)) {
		EXCLUSION(rs, TCP, IN(OP_ORIGINAL_DADDR, SET_NODE_ADDRESSES4 + v),
			IN(OP_ORIGINAL_PORT, SET_EXCLUDED_NODEPORTS));
		EXCLUSION(rs, UDP, IN(OP_ORIGINAL_DADDR, SET_NODE_ADDRESSES4 + v),
			IN(OP_ORIGINAL_PORT, SET_EXCLUDED_NODEPORTS));
	}
	if (planner_set_size(p, cidrs)) {
		EXCLUSION(rs, IN(OP_SADDR, cidrs));
		EXCLUSION(rs, IN(OP_DADDR, cidrs));
		EXCLUSION(rs, IN(OP_ORIGINAL_DADDR, cidrs));
	}
}

void plan_classes(struct planner *p)
{
	struct ruleset *rs = &p->plan->ruleset;

	for (int v = 0; v < 2; v++) {
		if (!p->family[v])
			continue;
		if (p->plan->kind == CLUSTER_ANTREA)
			antrea_classes(rs, v);
		else
			kube_proxy_classes(rs, v);
		exclusions(p, v);
	}
	/* Translated, and no Service that is known: a hostPort, or a rule of the node's own. */
	CLASS(rs, TYPE_OTHER, DNAT);
	for (int v = 0; v < 2; v++)
		if (p->family[v])
			pod_classes(rs, v);
}
