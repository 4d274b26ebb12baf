/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_PLAN_WORLD_H
#define TESTS_PLAN_WORLD_H

#include "base/mem.h"
#include "controller/plan.h"

#include <linux/if_arp.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>

/* A node, its cluster and its configuration, built by hand, for the planner's unit tests. */
struct world {
	struct cluster *cluster;
	struct facts facts;
	struct config config;
	struct plan plan;
};

static inline struct addr address(const char *text)
{
	struct addr a;

	if (!addr_parse(text, &a))
		abort();
	return a;
}

static inline struct prefix cidr(const char *text)
{
	struct prefix p;

	if (!prefix_parse(text, &p, NULL))
		abort();
	return p;
}

static inline struct link *add_link(struct world *w, const char *name, const char *kind)
{
	struct link *l = VEC_ADD(w->facts.links, w->facts.n_links, w->facts.cap_links);

	l->ifindex = (uint32_t)w->facts.n_links;
	snprintf(l->name, sizeof(l->name), "%s", name);
	snprintf(l->kind, sizeof(l->kind), "%s", kind);
	l->type = ARPHRD_ETHER;
	l->up = l->carrier = true;
	return l;
}

static inline uint32_t ifindex(struct world *w, const char *name)
{
	const struct link *l = facts_link_by_name(&w->facts, name);

	if (!l)
		abort();
	return l->ifindex;
}

static inline struct route *add_route(struct world *w, const char *dst, const char *gateway, const char *name)
{
	struct route *r = VEC_ADD(w->facts.routes, w->facts.n_routes, w->facts.cap_routes);

	r->dst = cidr(dst);
	if (gateway)
		r->gateway = address(gateway);
	r->ifindex = ifindex(w, name);
	r->table = RT_TABLE_MAIN;
	return r;
}

static inline void add_address(struct world *w, const char *text, const char *name)
{
	struct link_address *a = VEC_ADD(w->facts.addresses, w->facts.n_addresses, w->facts.cap_addresses);

	a->addr = address(text);
	a->len = 24;
	a->ifindex = ifindex(w, name);
}

static inline void add_node(struct world *w, const char *name, const char *pods, const char *node_address)
{
	struct node n = {.name = xstrdup(name)};
	size_t cap = 0;

	if (pods)
		*VEC_ADD(n.pod_cidrs, n.n_pod_cidrs, cap) = cidr(pods);
	cap = 0;
	*VEC_ADD(n.addresses, n.n_addresses, cap) = address(node_address);
	cluster_put_node(w->cluster, &n);
}

struct service_spec {
	const char *name, *cluster_ip, *load_balancer_ip, *external_ip;
	uint16_t node_port; /* TCP */
	bool excluded;
};

static inline void add_service(struct world *w, const struct service_spec *spec)
{
	struct service s = {
		.namespace = xstrdup("default"), .name = xstrdup(spec->name), .excluded = spec->excluded};
	struct service_port port = {PROTOCOL_TCP, 80, spec->node_port};
	struct addr a;

	if (addr_parse(spec->cluster_ip, &a)) {
		s.cluster_ips = xmemdup(&a, sizeof(a));
		s.n_cluster_ips = 1;
	}
	if (addr_parse(spec->load_balancer_ip, &a)) {
		s.load_balancer_ips = xmemdup(&a, sizeof(a));
		s.n_load_balancer_ips = 1;
	}
	if (addr_parse(spec->external_ip, &a)) {
		s.external_ips = xmemdup(&a, sizeof(a));
		s.n_external_ips = 1;
	}
	s.ports = xmemdup(&port, sizeof(port));
	s.n_ports = 1;
	cluster_put_service(w->cluster, &s);
}

/* lo, an uplink eth0 with the default route, no pod-side device yet. */
static inline void world_new(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->cluster = cluster_new();
	cluster_set_unwatched(w->cluster, OBJECT_ENDPOINT_SLICE);
	config_default(&w->config);
	w->facts.features = (struct features){.nftables = true, .flowtable = true, .flowtable_counter = true};
	add_link(w, "lo", "")->loopback = true;
	add_link(w, "eth0", "");
	add_address(w, "192.0.2.11", "eth0");
	add_route(w, "0.0.0.0/0", "192.0.2.1", "eth0");
	add_route(w, "192.0.2.0/24", NULL, "eth0");
	add_node(w, "n1", "10.244.0.0/24", "192.0.2.11");
	add_node(w, "n2", "10.244.1.0/24", "192.0.2.12");
}

static inline const struct plan *make_plan(struct world *w)
{
	const struct plan_input in = {w->cluster, &w->facts, &w->config, "n1"};

	plan_done(&w->plan);
	facts_sort(&w->facts);
	plan_make(&in, &w->plan);
	return &w->plan;
}

static inline void world_done(struct world *w)
{
	plan_done(&w->plan);
	facts_done(&w->facts);
	config_done(&w->config);
	cluster_free(w->cluster);
}

static inline const struct plan_device *find_device(const struct plan *p, const char *name)
{
	for (size_t i = 0; i < p->n_devices; i++)
		if (!strcmp(p->devices[i].name, name))
			return &p->devices[i];
	return NULL;
}

static inline bool warned(const struct plan *p, const char *object, const char *text)
{
	for (size_t i = 0; i < p->n_warnings; i++)
		if (!strcmp(p->warnings[i].object, object) && strstr(p->warnings[i].text, text))
			return true;
	return false;
}

#endif
