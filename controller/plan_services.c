/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses and ports of Services, in linear passes; look-ups are binary searches in sorted sets. */
#include "controller/plan_private.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* An address that somebody outside the cluster may have written into a Service. */
struct claim {
	struct addr addr;
	enum ruleset_set set4; /* where it belongs */
	const struct service *service;
};

struct claims {
	struct claim *items;
	size_t n, cap;
};

static void warn_address(struct planner *p, const struct service *s, const struct addr *a, const char *what)
{
	char object[192], text[ADDR_TEXT_SIZE];

	snprintf(object, sizeof(object), "Service %s/%s", s->namespace, s->name);
	plan_warn(p, object, "its address %s %s", addr_text(a, text), what);
}

static void add_claims(
	struct claims *c, enum ruleset_set set4, const struct service *s, const struct addr *a, size_t n)
{
	for (size_t i = 0; i < n; i++)
		*VEC_ADD(c->items, c->n, c->cap) = (struct claim){a[i], set4, s};
}

static void add_node_ports(
	struct ruleset *rs, const struct service *s, enum ruleset_set tcp, enum ruleset_set udp)
{
	for (size_t i = 0; i < s->n_ports; i++) {
		const struct service_port *port = &s->ports[i];

		/* SCTP never enters a flowtable: nft_flow_offload_eval() of the kernel. */
		if (port->node_port && port->protocol != PROTOCOL_SCTP)
			ruleset_add_port(rs, port->protocol == PROTOCOL_TCP ? tcp : udp, port->node_port);
	}
}

static bool in_set(const struct ruleset *rs, enum ruleset_set set4, const struct addr *a)
{
	enum ruleset_set set = a->family == AF_INET6 ? set4 + 1 : set4;
	enum set_kind kind = ruleset_set_schema[set].kind;
	struct set_element e = {0};

	memcpy(e.key, a->bytes, addr_size(a));
	if (kind == SET_KIND_PREFIX4 || kind == SET_KIND_PREFIX6)
		e.prefix_len = (uint8_t)(8 * addr_size(a));
	return ruleset_has(rs, set, &e);
}

/*
 * Everybody who may write a Service may write external IPs into it (CVE-2020-8554): one that is a pod's or
 * another Service's address would only take over what that address stands for here.
 */
static bool refused(struct planner *p, const struct claim *c)
{
	const struct ruleset *rs = &p->plan->ruleset;

	if (in_set(rs, SET_CLUSTER_IPS4, &c->addr)) {
		warn_address(p, c->service, &c->addr, "is a ClusterIP and is left out");
		return true;
	}
	if (in_set(rs, SET_LOCAL_PODS4, &c->addr) || in_set(rs, SET_REMOTE_PODS4, &c->addr)) {
		warn_address(p, c->service, &c->addr, "lies in a pod CIDR and is left out");
		return true;
	}
	return false;
}

static int by_addr(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int c = addr_cmp(&x->addr, &y->addr);

	if (!c)
		c = strcmp(x->service->namespace, y->service->namespace);
	if (!c)
		c = strcmp(x->service->name, y->service->name);
	return c ? c : (x->set4 > y->set4) - (x->set4 < y->set4);
}

/* One address of several Services: excluded wins. */
static void warn_shared(struct planner *p, const struct claims *c)
{
	for (size_t i = 0, end; i < c->n; i = end) {
		const struct service *excluded = NULL;

		for (end = i; end < c->n && !addr_cmp(&c->items[i].addr, &c->items[end].addr); end++)
			if (c->items[end].service->excluded)
				excluded = c->items[end].service;
		for (size_t k = i; excluded && k < end; k++) {
			const struct service *s = c->items[k].service;

			if (s->excluded || (k > i && c->items[k - 1].service == s))
				continue;
			warn_address(p, s, &c->items[k].addr,
				"belongs to an excluded Service as well: it is excluded");
		}
	}
}

static void add_claimed(struct planner *p, struct claims *c)
{
	struct ruleset *rs = &p->plan->ruleset;
	size_t kept = 0;

	if (!c->n)
		return;
	qsort(c->items, c->n, sizeof(*c->items), by_addr);
	for (size_t i = 0; i < c->n; i++)
		if (!refused(p, &c->items[i]))
			c->items[kept++] = c->items[i];
	c->n = kept;
	for (size_t i = 0; i < c->n; i++) {
		ruleset_add_addr(rs, c->items[i].set4, &c->items[i].addr);
		if (c->items[i].service->excluded)
			ruleset_add_addr(rs, SET_EXCLUDED_IPS4, &c->items[i].addr);
	}
	warn_shared(p, c);
}

static void warn_no_endpoints(struct planner *p)
{
	const struct service *s = NULL;
	char object[192];

	if (!cluster_synced(p->cluster, OBJECT_ENDPOINT_SLICE))
		return;
	while ((s = cluster_next_service(p->cluster, s))) {
		if (!s->n_cluster_ips || cluster_ready_endpoints(p->cluster, s->namespace, s->name))
			continue;
		snprintf(object, sizeof(object), "Service %s/%s", s->namespace, s->name);
		plan_warn(p, object, "has no ready endpoints");
	}
}

void plan_services(struct planner *p)
{
	struct ruleset *rs = &p->plan->ruleset;
	const struct service *s = NULL;
	struct claims claims = {0};

	while ((s = cluster_next_service(p->cluster, s))) {
		for (size_t i = 0; i < s->n_cluster_ips; i++) {
			ruleset_add_addr(rs, SET_CLUSTER_IPS4, &s->cluster_ips[i]);
			if (s->excluded)
				ruleset_add_addr(rs, SET_EXCLUDED_IPS4, &s->cluster_ips[i]);
		}
		add_node_ports(rs, s, SET_NODEPORTS_TCP, SET_NODEPORTS_UDP);
		if (s->excluded)
			add_node_ports(rs, s, SET_EXCLUDED_NODEPORTS_TCP, SET_EXCLUDED_NODEPORTS_UDP);
		add_claims(&claims, SET_LOADBALANCER_IPS4, s, s->load_balancer_ips, s->n_load_balancer_ips);
		add_claims(&claims, SET_EXTERNAL_IPS4, s, s->external_ips, s->n_external_ips);
	}
	for (size_t i = 0; i < p->config->exclude_cidrs.n; i++)
		ruleset_add_prefix(rs, SET_EXCLUDED_CIDRS4, &p->config->exclude_cidrs.items[i]);
	ruleset_normalize(rs);
	add_claimed(p, &claims);
	free(claims.items);
	warn_no_endpoints(p);
}
