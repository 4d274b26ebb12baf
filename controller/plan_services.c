/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses and ports of Services, one Service at a time: look-ups in sorted trees. */
#include "controller/plan_private.h"

#include "base/mem.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum refusal { ACCEPTED, IS_CLUSTER_IP, IS_POD_ADDRESS };

/* An address that somebody outside the cluster may have written into a Service. */
struct claim {
	RB_ENTRY(claim) link;
	struct addr addr;
	uint8_t set4;                  /* enum ruleset_set: where it belongs */
	const struct service *service; /* of the replica; NULL in a key: before all of the address */
	enum refusal refusal;
	unsigned times; /* written there */
};

static int by_addr(const struct claim *a, const struct claim *b)
{
	int c = addr_cmp(&a->addr, &b->addr);

	if (c)
		return c;
	if (!a->service || !b->service)
		return (a->service != NULL) - (b->service != NULL);
	c = strcmp(a->service->namespace, b->service->namespace);
	if (!c)
		c = strcmp(a->service->name, b->service->name);
	return c ? c : (a->set4 > b->set4) - (a->set4 < b->set4);
}

/* RB_GENERATE_STATIC needs an __unused that glibc's own structs collide with. Not every generated function is
 * called. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
RB_GENERATE_INTERNAL(claim_tree, claim, link, by_addr, static)
#pragma GCC diagnostic pop

static enum ruleset_set set_for(enum ruleset_set set4, const struct addr *a)
{
	return a->family == AF_INET6 ? set4 + 1 : set4;
}

static void count(struct planner *p, enum ruleset_set set, const struct set_element *e, bool add)
{
	(add ? element_counts_add : element_counts_remove)(&p->services.counts, set, e);
}

static void count_addr(struct planner *p, enum ruleset_set set4, const struct addr *a, bool add)
{
	struct set_element e = element_of_addr(a);

	if (a->family)
		count(p, set_for(set4, a), &e, add);
}

static void count_node_ports(struct planner *p, const struct service *s, enum ruleset_set set, bool add)
{
	for (size_t i = 0; i < s->n_ports; i++) {
		const struct service_port *port = &s->ports[i];
		uint8_t protocol = port->protocol == PROTOCOL_TCP ? IPPROTO_TCP : IPPROTO_UDP;
		struct set_element e = element_of_port(protocol, port->node_port);

		/* SCTP never enters a flowtable: nft_flow_offload_eval() of the kernel. */
		if (port->node_port && port->protocol != PROTOCOL_SCTP)
			count(p, set, &e, add);
	}
}

static bool is_pod_address(const struct planner *p, const struct addr *a)
{
	struct set_element e = element_of_addr(a);

	e.prefix_len = (uint8_t)(8 * addr_size(a));
	return ruleset_has(&p->plan->ruleset, set_for(SET_LOCAL_PODS4, a), &e) ||
	       ruleset_has(&p->plan->ruleset, set_for(SET_REMOTE_PODS4, a), &e);
}

/*
 * Everybody who may write a Service may write external IPs into it (CVE-2020-8554): one that is a pod's or
 * another Service's address would only take over what that address stands for here.
 */
static enum refusal judge(const struct planner *p, const struct addr *a)
{
	struct set_element e = element_of_addr(a);

	if (element_counts_has(&p->services.counts, set_for(SET_CLUSTER_IPS4, a), &e))
		return IS_CLUSTER_IP;
	return is_pod_address(p, a) ? IS_POD_ADDRESS : ACCEPTED;
}

static void count_claim(struct planner *p, const struct claim *c, bool add)
{
	count_addr(p, c->set4, &c->addr, add);
	if (c->service->excluded)
		count_addr(p, SET_EXCLUDED_IPS4, &c->addr, add);
}

static void rejudge(struct planner *p, struct claim *c)
{
	enum refusal now = judge(p, &c->addr);

	if ((now == ACCEPTED) != (c->refusal == ACCEPTED))
		count_claim(p, c, now == ACCEPTED);
	c->refusal = now;
}

static void add_claim(struct planner *p, enum ruleset_set set4, const struct service *s, const struct addr *a)
{
	struct claim *c = xcalloc(1, sizeof(*c)), *there;

	*c = (struct claim){.addr = *a, .set4 = (uint8_t)set4, .service = s, .times = 1};
	there = RB_INSERT(claim_tree, &p->services.claims, c);
	if (there) {
		there->times++;
		free(c);
		return;
	}
	c->refusal = judge(p, a);
	if (c->refusal == ACCEPTED)
		count_claim(p, c, true);
}

static void remove_claim(
	struct planner *p, enum ruleset_set set4, const struct service *s, const struct addr *a)
{
	struct claim key = {.addr = *a, .set4 = (uint8_t)set4, .service = s};
	struct claim *c = RB_FIND(claim_tree, &p->services.claims, &key);

	if (!c)
		abort(); /* the Service is not the one that was added */
	if (--c->times)
		return;
	if (c->refusal == ACCEPTED)
		count_claim(p, c, false);
	RB_REMOVE(claim_tree, &p->services.claims, c);
	free(c);
}

static void change_claims(struct planner *p, const struct service *s, bool add)
{
	void (*change)(struct planner *, enum ruleset_set, const struct service *, const struct addr *) =
		add ? add_claim : remove_claim;

	for (size_t i = 0; i < s->n_load_balancer_ips; i++)
		change(p, SET_LOADBALANCER_IPS4, s, &s->load_balancer_ips[i]);
	for (size_t i = 0; i < s->n_external_ips; i++)
		change(p, SET_EXTERNAL_IPS4, s, &s->external_ips[i]);
}

static void change_own(struct planner *p, const struct service *s, bool add)
{
	for (size_t i = 0; i < s->n_cluster_ips; i++) {
		count_addr(p, SET_CLUSTER_IPS4, &s->cluster_ips[i], add);
		if (s->excluded)
			count_addr(p, SET_EXCLUDED_IPS4, &s->cluster_ips[i], add);
	}
	count_node_ports(p, s, SET_NODEPORTS, add);
	if (s->excluded)
		count_node_ports(p, s, SET_EXCLUDED_NODEPORTS, add);
}

/* Whoever claims an address that became a ClusterIP or ceased to be one. */
static void recheck_cluster_ips(struct planner *p, const struct service *s)
{
	for (size_t i = 0; i < s->n_cluster_ips; i++) {
		struct prefix one =
			prefix_of(&s->cluster_ips[i], (uint8_t)(8 * addr_size(&s->cluster_ips[i])));

		plan_services_recheck(p, &one);
	}
}

void plan_services_recheck(struct planner *p, const struct prefix *cidr)
{
	struct claim key = {.addr = cidr->addr};
	struct claim *c = RB_NFIND(claim_tree, &p->services.claims, &key);

	for (; c && prefix_has(cidr, &c->addr); c = RB_NEXT(claim_tree, &p->services.claims, c))
		rejudge(p, c);
}

void plan_services_change(struct planner *p, const struct service *old, const struct service *new)
{
	if (old) {
		change_claims(p, old, false);
		change_own(p, old, false);
	}
	if (new) {
		change_own(p, new, true);
		change_claims(p, new, true);
	}
	if (old)
		recheck_cluster_ips(p, old);
	if (new)
		recheck_cluster_ips(p, new);
}

static void warn_service(struct planner *p, const struct service *s, const char *what)
{
	char object[192];

	snprintf(object, sizeof(object), "Service %s/%s", s->namespace, s->name);
	plan_warn(p, object, "%s", what);
}

static void warn_address(struct planner *p, const struct claim *c, const char *what)
{
	char text[ADDR_TEXT_SIZE], line[128];

	snprintf(line, sizeof(line), "its address %s %s", addr_text(&c->addr, text), what);
	warn_service(p, c->service, line);
}

static void warn_refused(struct planner *p)
{
	struct claim *c;

	RB_FOREACH(c, claim_tree, &p->services.claims)
	{
		if (c->refusal == IS_CLUSTER_IP)
			warn_address(p, c, "is a ClusterIP and is left out");
		else if (c->refusal == IS_POD_ADDRESS)
			warn_address(p, c, "lies in a pod CIDR and is left out");
	}
}

/* One address of several Services: excluded wins. */
static void warn_shared(struct planner *p)
{
	struct claim *c = RB_MIN(claim_tree, &p->services.claims), *end;

	for (; c; c = end) {
		const struct service *said = NULL;
		bool excluded = false;

		for (end = c; end && !addr_cmp(&c->addr, &end->addr);
			end = RB_NEXT(claim_tree, &p->services.claims, end))
			excluded |= end->refusal == ACCEPTED && end->service->excluded;
		for (; excluded && c != end; c = RB_NEXT(claim_tree, &p->services.claims, c)) {
			if (c->refusal == ACCEPTED && !c->service->excluded && c->service != said)
				warn_address(p, c, "belongs to an excluded Service as well: it is excluded");
			said = c->service;
		}
	}
}

static void warn_no_endpoints(struct planner *p)
{
	const struct service *s = NULL;

	if (!cluster_synced(p->cluster, OBJECT_ENDPOINT_SLICE))
		return;
	while ((s = cluster_next_service(p->cluster, s)))
		if (s->n_cluster_ips && !cluster_ready_endpoints(p->cluster, s->namespace, s->name))
			warn_service(p, s, "has no ready endpoints");
}

void plan_services_warn(struct planner *p)
{
	warn_refused(p);
	warn_shared(p);
	warn_no_endpoints(p);
}

void plan_services_done(struct plan_services *s)
{
	struct claim *c;

	while ((c = RB_MIN(claim_tree, &s->claims))) {
		RB_REMOVE(claim_tree, &s->claims, c);
		free(c);
	}
	element_counts_done(&s->counts);
}
