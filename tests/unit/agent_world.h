/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_UNIT_AGENT_WORLD_H
#define TESTS_UNIT_AGENT_WORLD_H

#include "base/mem.h"
#include "controller/agent.h"
#include "datapath/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* An agent with a clock of the test's, facts that the test writes, and a kernel in memory. */
#define MS 1000
#define SECOND (1000 * MS)

struct world {
	struct agent agent;
	struct cluster *cluster;
	struct backend *backend;
	uint64_t now;
	struct facts facts; /* what a refresh reads */
	int refresh_error, probe_error;
	unsigned refreshes, probes;
	bool no_flowtable;
};

static inline uint64_t fake_now(void *arg)
{
	return ((struct world *)arg)->now;
}

static inline double fake_wall(void *arg)
{
	return 1e9 + (double)((struct world *)arg)->now / SECOND;
}

static inline int fake_refresh(void *arg, struct facts *f, struct error *err)
{
	struct world *w = arg;
	struct facts next;

	w->refreshes++;
	if (w->refresh_error)
		return error_set(err, w->refresh_error, "rtnetlink", NULL, "refused by the test");
	facts_copy(&w->facts, &next);
	next.features = f->features;
	if (facts_equal(&next, f)) {
		facts_done(&next);
		return 0;
	}
	facts_done(f);
	*f = next;
	return 1;
}

static inline int fake_probe(void *arg, struct facts *f, struct error *err)
{
	struct world *w = arg;

	w->probes++;
	if (w->probe_error)
		return error_set(err, w->probe_error, "nf_tables", NULL, "refused by the test");
	f->features = (struct features){
		.nftables = true, .flowtable = !w->no_flowtable, .flowtable_counter = !w->no_flowtable};
	if (w->no_flowtable)
		snprintf(f->features.reason, sizeof(f->features.reason), "no flowtable in this test");
	return 0;
}

static inline void add_link(struct facts *f, uint32_t ifindex, const char *name, const char *kind)
{
	struct link *l = VEC_ADD(f->links, f->n_links, f->cap_links);

	*l = (struct link){.ifindex = ifindex, .type = 1, .mtu = 1500, .up = true, .carrier = true};
	snprintf(l->name, sizeof(l->name), "%s", name);
	snprintf(l->kind, sizeof(l->kind), "%s", kind);
}

static inline void add_route(struct facts *f, const char *dst, uint32_t ifindex, const char *gateway)
{
	struct route *r = VEC_ADD(f->routes, f->n_routes, f->cap_routes);

	assert_true(prefix_parse(dst, &r->dst, NULL));
	r->ifindex = ifindex;
	r->table = 254;
	if (gateway)
		assert_true(addr_parse(gateway, &r->gateway));
}

static inline void add_pod(struct world *w, uint32_t ifindex, const char *name, const char *address)
{
	add_link(&w->facts, ifindex, name, "veth");
	add_route(&w->facts, address, ifindex, NULL);
	facts_sort(&w->facts);
}

static inline void put_node(struct world *w, const char *name, const char *pod_cidr, const char *address)
{
	struct node n = {.name = xstrdup(name)};

	n.pod_cidrs = xcalloc(1, sizeof(*n.pod_cidrs));
	n.n_pod_cidrs = 1;
	assert_true(prefix_parse(pod_cidr, n.pod_cidrs, NULL));
	n.addresses = xcalloc(1, sizeof(*n.addresses));
	n.n_addresses = 1;
	assert_true(addr_parse(address, n.addresses));
	cluster_put_node(w->cluster, &n);
}

static inline void put_service(struct world *w, const char *name, const char *cluster_ip)
{
	struct service s = {.namespace = xstrdup("default"), .name = xstrdup(name)};

	s.cluster_ips = xcalloc(1, sizeof(*s.cluster_ips));
	s.n_cluster_ips = 1;
	assert_true(addr_parse(cluster_ip, s.cluster_ips));
	s.ports = xcalloc(1, sizeof(*s.ports));
	s.n_ports = 1;
	s.ports[0] = (struct service_port){.protocol = PROTOCOL_TCP, .port = 80};
	cluster_put_service(w->cluster, &s);
}

static inline void finish_lists(struct world *w)
{
	for (int kind = 0; kind < OBJECT_KINDS; kind++) {
		cluster_relist_begin(w->cluster, kind);
		if (kind == OBJECT_NODE) {
			put_node(w, "n1", "10.0.1.0/24", "192.168.0.1");
			put_node(w, "n2", "10.0.2.0/24", "192.168.0.2");
		}
		cluster_relist_end(w->cluster, kind);
	}
	agent_note(&w->agent, AGENT_CLUSTER);
}

/* As the loop does: waits as long as it is told to, at most 'us' altogether. Returns the steps made. */
static inline unsigned run(struct world *w, uint64_t us)
{
	uint64_t end = w->now + us;
	unsigned steps = 0;
	int64_t wait;

	while ((wait = agent_wait(&w->agent)) >= 0 && w->now + (uint64_t)wait <= end) {
		w->now += (uint64_t)wait;
		agent_step(&w->agent);
		assert_true(++steps < 10000);
	}
	w->now = end;
	return steps;
}

/* Nothing is to be done before the next input, but for the verification of a minute. */
static inline void assert_idle(struct world *w)
{
	for (size_t i = 0; i < AGENT_INPUTS; i++)
		if (i != AGENT_VERIFY)
			assert_int_equal(w->agent.due[i], 0);
}

static inline int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));
	struct agent_edges edges = {
		.now = fake_now, .wall = fake_wall, .refresh = fake_refresh, .probe = fake_probe, .arg = w};
	struct config config;

	w->now = 1000 * SECOND;
	w->cluster = cluster_new();
	w->backend = memory_backend_new();
	add_link(&w->facts, 2, "eth0", "");
	add_route(&w->facts, "0.0.0.0/0", 2, "192.168.0.254");
	add_route(&w->facts, "10.0.2.0/24", 2, "192.168.0.2");
	add_pod(w, 10, "veth1", "10.0.1.5/32");
	config_default(&config);
	agent_init(&w->agent, "n1", &config, w->cluster, w->backend, &edges);
	*state = w;
	return 0;
}

static inline int setup_synced(void **state)
{
	struct world *w;

	setup(state);
	w = *state;
	finish_lists(w);
	run(w, SECOND);
	assert_true(w->agent.ready);
	assert_int_equal(w->agent.figures.syncs[SYNC_CHANGED], 1);
	assert_int_equal(memory_backend_transactions(w->backend), 1);
	return 0;
}

static inline int teardown(void **state)
{
	struct world *w = *state;

	agent_done(&w->agent);
	backend_free(w->backend);
	cluster_free(w->cluster);
	facts_done(&w->facts);
	free(w);
	return 0;
}

#endif
