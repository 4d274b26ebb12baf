/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/cluster.h"
#include "base/mem.h"

#include <bsd/sys/tree.h>
#include <string.h>

/*
 * An object is kept in one allocation: tree links, the struct, and behind it its arrays and strings. At
 * 10,000 Services and as many slices, that is half the memory of an allocation per member and leaves no holes
 * when objects change size.
 */
struct meta {
	RB_ENTRY(meta) link;
	const char *namespace;
	const char *name;
	uint32_t round; /* the relist that has seen it last */
};
RB_HEAD(meta_tree, meta);

struct node_entry {
	struct meta meta;
	struct node node;
};

struct service_entry {
	struct meta meta;
	struct service service;
};

struct slice_entry {
	struct meta meta;
	RB_ENTRY(slice_entry) by_service;
	struct endpoint_slice slice;
};
RB_HEAD(service_index, slice_entry);

struct cluster {
	struct meta_tree objects[OBJECT_KINDS];
	struct service_index slices_of; /* of objects[OBJECT_ENDPOINT_SLICE], by (namespace, service, name) */
	size_t count[OBJECT_KINDS];
	uint32_t round[OBJECT_KINDS];
	bool relisting[OBJECT_KINDS];
	bool synced[OBJECT_KINDS];
	bool unwatched[OBJECT_KINDS];
	uint64_t generation;
	struct cluster_observer *observers;
	size_t n_observers, cap_observers;
};

const char *const object_kind_names[OBJECT_KINDS] = {
	[OBJECT_NODE] = "nodes",
	[OBJECT_SERVICE] = "services",
	[OBJECT_ENDPOINT_SLICE] = "endpointslices",
};

/* Arrays are compared as bytes and packed one behind the other, so their elements must not have holes. */
_Static_assert(sizeof(struct addr) == 17, "struct addr has padding");
_Static_assert(sizeof(struct prefix) == 18, "struct prefix has padding");
_Static_assert(sizeof(struct endpoint) == 20, "struct endpoint has padding");
_Static_assert(sizeof(struct service_port) == 8, "struct service_port has padding");

#define entry_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static int meta_cmp(const struct meta *a, const struct meta *b)
{
	int c = strcmp(a->namespace, b->namespace);

	return c ? c : strcmp(a->name, b->name);
}

static int slice_cmp(const struct slice_entry *a, const struct slice_entry *b)
{
	int c = strcmp(a->slice.namespace, b->slice.namespace);

	if (!c)
		c = strcmp(a->slice.service, b->slice.service);
	return c ? c : strcmp(a->slice.name, b->slice.name);
}

/* RB_GENERATE_STATIC needs an __unused that glibc's own structs collide with. Not every generated function is
 * called. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
RB_GENERATE_INTERNAL(meta_tree, meta, link, meta_cmp, static)
RB_GENERATE_INTERNAL(service_index, slice_entry, by_service, slice_cmp, static)
#pragma GCC diagnostic pop

struct cluster *cluster_new(void)
{
	return xcalloc(1, sizeof(struct cluster));
}

static void take_out(struct cluster *c, enum object_kind kind, struct meta *m)
{
	RB_REMOVE(meta_tree, &c->objects[kind], m);
	if (kind == OBJECT_ENDPOINT_SLICE)
		RB_REMOVE(service_index, &c->slices_of, entry_of(m, struct slice_entry, meta));
	c->count[kind]--;
}

static void tell_one(const struct cluster_observer *o, enum object_kind kind, const struct meta *old,
	const struct meta *new)
{
	if (kind == OBJECT_NODE && o->node)
		o->node(o->arg, old ? &entry_of(old, struct node_entry, meta)->node : NULL,
			new ? &entry_of(new, struct node_entry, meta)->node : NULL);
	if (kind == OBJECT_SERVICE && o->service)
		o->service(o->arg, old ? &entry_of(old, struct service_entry, meta)->service : NULL,
			new ? &entry_of(new, struct service_entry, meta)->service : NULL);
	if (kind == OBJECT_ENDPOINT_SLICE && o->endpoint_slice)
		o->endpoint_slice(o->arg, old ? &entry_of(old, struct slice_entry, meta)->slice : NULL,
			new ? &entry_of(new, struct slice_entry, meta)->slice : NULL);
}

/* 'old' is not in the tree any more, 'new' is already; either may be NULL. */
static void tell(struct cluster *c, enum object_kind kind, const struct meta *old, const struct meta *new)
{
	c->generation++;
	for (size_t i = 0; i < c->n_observers; i++)
		tell_one(&c->observers[i], kind, old, new);
}

static void drop(struct cluster *c, enum object_kind kind, struct meta *m)
{
	take_out(c, kind, m);
	tell(c, kind, m, NULL);
	free(m);
}

void cluster_observe(struct cluster *c, const struct cluster_observer *observer)
{
	*VEC_ADD(c->observers, c->n_observers, c->cap_observers) = *observer;
}

void cluster_unobserve(struct cluster *c, const void *arg)
{
	size_t kept = 0;

	for (size_t i = 0; i < c->n_observers; i++)
		if (c->observers[i].arg != arg)
			c->observers[kept++] = c->observers[i];
	c->n_observers = kept;
}

void cluster_free(struct cluster *c)
{
	struct meta *m;

	if (!c)
		return;
	c->n_observers = 0;
	for (int kind = 0; kind < OBJECT_KINDS; kind++)
		while ((m = RB_MIN(meta_tree, &c->objects[kind])))
			drop(c, kind, m);
	free(c->observers);
	free(c);
}

static struct meta *find(
	const struct cluster *c, enum object_kind kind, const char *namespace, const char *name)
{
	struct meta key = {.namespace = namespace, .name = name};

	/* RB_FIND does not write, its prototype only lacks the const. */
	return RB_FIND(meta_tree, (struct meta_tree *)&c->objects[kind], &key);
}

/* Takes the place of 'old' (NULL: none) in the tree. */
static void keep(struct cluster *c, enum object_kind kind, struct meta *old, struct meta *m)
{
	if (old)
		take_out(c, kind, old);
	m->round = c->round[kind];
	RB_INSERT(meta_tree, &c->objects[kind], m);
	if (kind == OBJECT_ENDPOINT_SLICE)
		RB_INSERT(service_index, &c->slices_of, entry_of(m, struct slice_entry, meta));
	c->count[kind]++;
	tell(c, kind, old, m);
	free(old);
}

static size_t text_size(const char *s)
{
	return strlen(s) + 1;
}

/* Copies an array behind the struct and moves the cursor; NULL for an empty one. */
static void *pack(char **cursor, const void *data, size_t n, size_t size)
{
	void *at = *cursor;

	if (!n)
		return NULL;
	memcpy(at, data, n * size);
	*cursor += n * size;
	return at;
}

static bool same(const void *a, size_t n_a, const void *b, size_t n_b, size_t size)
{
	return n_a == n_b && (!n_a || !memcmp(a, b, n_a * size));
}

static bool node_equal(const struct node *a, const struct node *b)
{
	return a->antrea == b->antrea && a->acceleration_disabled == b->acceleration_disabled &&
	       same(a->pod_cidrs, a->n_pod_cidrs, b->pod_cidrs, b->n_pod_cidrs, sizeof(struct prefix)) &&
	       same(a->addresses, a->n_addresses, b->addresses, b->n_addresses, sizeof(struct addr)) &&
	       same(a->transport_addresses, a->n_transport_addresses, b->transport_addresses,
		       b->n_transport_addresses, sizeof(struct addr));
}

bool cluster_put_node(struct cluster *c, struct node *node)
{
	struct meta *old = find(c, OBJECT_NODE, "", node->name);
	struct node_entry *e;
	char *cursor;

	if (old && node_equal(&entry_of(old, struct node_entry, meta)->node, node)) {
		old->round = c->round[OBJECT_NODE];
		node_done(node);
		return false;
	}
	e = xcalloc(1, sizeof(*e) + node->n_pod_cidrs * sizeof(struct prefix) +
			       (node->n_addresses + node->n_transport_addresses) * sizeof(struct addr) +
			       text_size(node->name));
	cursor = (char *)(e + 1);
	e->node = *node;
	e->node.pod_cidrs = pack(&cursor, node->pod_cidrs, node->n_pod_cidrs, sizeof(struct prefix));
	e->node.addresses = pack(&cursor, node->addresses, node->n_addresses, sizeof(struct addr));
	e->node.transport_addresses =
		pack(&cursor, node->transport_addresses, node->n_transport_addresses, sizeof(struct addr));
	e->node.name = pack(&cursor, node->name, text_size(node->name), 1);
	e->meta.namespace = "";
	e->meta.name = e->node.name;
	keep(c, OBJECT_NODE, old, &e->meta);
	node_done(node);
	return true;
}

static bool service_equal(const struct service *a, const struct service *b)
{
	return a->excluded == b->excluded && a->external_local == b->external_local &&
	       a->internal_local == b->internal_local &&
	       same(a->cluster_ips, a->n_cluster_ips, b->cluster_ips, b->n_cluster_ips,
		       sizeof(struct addr)) &&
	       same(a->load_balancer_ips, a->n_load_balancer_ips, b->load_balancer_ips,
		       b->n_load_balancer_ips, sizeof(struct addr)) &&
	       same(a->external_ips, a->n_external_ips, b->external_ips, b->n_external_ips,
		       sizeof(struct addr)) &&
	       same(a->ports, a->n_ports, b->ports, b->n_ports, sizeof(struct service_port));
}

bool cluster_put_service(struct cluster *c, struct service *s)
{
	struct meta *old = find(c, OBJECT_SERVICE, s->namespace, s->name);
	struct service_entry *e;
	char *cursor;

	if (old && service_equal(&entry_of(old, struct service_entry, meta)->service, s)) {
		old->round = c->round[OBJECT_SERVICE];
		service_done(s);
		return false;
	}
	e = xcalloc(1, sizeof(*e) + s->n_ports * sizeof(struct service_port) +
			       (s->n_cluster_ips + s->n_load_balancer_ips + s->n_external_ips) *
				       sizeof(struct addr) +
			       text_size(s->namespace) + text_size(s->name));
	cursor = (char *)(e + 1);
	e->service = *s;
	/* Ports first: they are the only ones that must be aligned. */
	e->service.ports = pack(&cursor, s->ports, s->n_ports, sizeof(struct service_port));
	e->service.cluster_ips = pack(&cursor, s->cluster_ips, s->n_cluster_ips, sizeof(struct addr));
	e->service.load_balancer_ips =
		pack(&cursor, s->load_balancer_ips, s->n_load_balancer_ips, sizeof(struct addr));
	e->service.external_ips = pack(&cursor, s->external_ips, s->n_external_ips, sizeof(struct addr));
	e->service.namespace = pack(&cursor, s->namespace, text_size(s->namespace), 1);
	e->service.name = pack(&cursor, s->name, text_size(s->name), 1);
	e->meta.namespace = e->service.namespace;
	e->meta.name = e->service.name;
	keep(c, OBJECT_SERVICE, old, &e->meta);
	service_done(s);
	return true;
}

static bool slice_equal(const struct endpoint_slice *a, const struct endpoint_slice *b)
{
	return !strcmp(a->service, b->service) &&
	       same(a->endpoints, a->n_endpoints, b->endpoints, b->n_endpoints, sizeof(struct endpoint)) &&
	       same(a->udp_ports, a->n_udp_ports, b->udp_ports, b->n_udp_ports, sizeof(*a->udp_ports));
}

bool cluster_put_endpoint_slice(struct cluster *c, struct endpoint_slice *s)
{
	struct meta *old = find(c, OBJECT_ENDPOINT_SLICE, s->namespace, s->name);
	struct slice_entry *e;
	char *cursor;

	if (old && slice_equal(&entry_of(old, struct slice_entry, meta)->slice, s)) {
		old->round = c->round[OBJECT_ENDPOINT_SLICE];
		endpoint_slice_done(s);
		return false;
	}
	e = xcalloc(1, sizeof(*e) + s->n_udp_ports * sizeof(*s->udp_ports) +
			       s->n_endpoints * sizeof(struct endpoint) + text_size(s->namespace) +
			       text_size(s->name) + text_size(s->service));
	cursor = (char *)(e + 1);
	e->slice = *s;
	/* Ports first, as above. */
	e->slice.udp_ports = pack(&cursor, s->udp_ports, s->n_udp_ports, sizeof(*s->udp_ports));
	e->slice.endpoints = pack(&cursor, s->endpoints, s->n_endpoints, sizeof(struct endpoint));
	e->slice.namespace = pack(&cursor, s->namespace, text_size(s->namespace), 1);
	e->slice.name = pack(&cursor, s->name, text_size(s->name), 1);
	e->slice.service = pack(&cursor, s->service, text_size(s->service), 1);
	e->meta.namespace = e->slice.namespace;
	e->meta.name = e->slice.name;
	keep(c, OBJECT_ENDPOINT_SLICE, old, &e->meta);
	endpoint_slice_done(s);
	return true;
}

bool cluster_delete(struct cluster *c, enum object_kind kind, const char *namespace, const char *name)
{
	struct meta *m = find(c, kind, namespace, name);

	if (!m)
		return false;
	drop(c, kind, m);
	return true;
}

void cluster_relist_begin(struct cluster *c, enum object_kind kind)
{
	c->round[kind]++;
	c->relisting[kind] = true;
}

bool cluster_relist_keep(struct cluster *c, enum object_kind kind, const char *namespace, const char *name)
{
	struct meta *m = find(c, kind, namespace, name);

	if (m)
		m->round = c->round[kind];
	return m != NULL;
}

void cluster_relist_end(struct cluster *c, enum object_kind kind)
{
	struct meta *m, *next;

	if (!c->relisting[kind])
		return;
	for (m = RB_MIN(meta_tree, &c->objects[kind]); m; m = next) {
		next = RB_NEXT(meta_tree, &c->objects[kind], m);
		if (m->round != c->round[kind])
			drop(c, kind, m);
	}
	c->relisting[kind] = false;
	c->synced[kind] = true;
}

void cluster_relist_abort(struct cluster *c, enum object_kind kind)
{
	c->relisting[kind] = false;
}

bool cluster_relisting(const struct cluster *c, enum object_kind kind)
{
	return c->relisting[kind];
}

bool cluster_synced(const struct cluster *c, enum object_kind kind)
{
	return c->synced[kind];
}

bool cluster_all_synced(const struct cluster *c)
{
	for (int kind = 0; kind < OBJECT_KINDS; kind++)
		if (!c->synced[kind] && !c->unwatched[kind])
			return false;
	return true;
}

void cluster_set_unwatched(struct cluster *c, enum object_kind kind)
{
	c->unwatched[kind] = true;
}

bool cluster_watched(const struct cluster *c, enum object_kind kind)
{
	return !c->unwatched[kind];
}

uint64_t cluster_generation(const struct cluster *c)
{
	return c->generation;
}

size_t cluster_count(const struct cluster *c, enum object_kind kind)
{
	return c->count[kind];
}

const struct node *cluster_node(const struct cluster *c, const char *name)
{
	struct meta *m = find(c, OBJECT_NODE, "", name);

	return m ? &entry_of(m, struct node_entry, meta)->node : NULL;
}

static struct meta *next_of(const struct cluster *c, enum object_kind kind, struct meta *after)
{
	/* The tree is not written to here, either. */
	return after ? RB_NEXT(meta_tree, &c->objects[kind], after)
		     : RB_MIN(meta_tree, (struct meta_tree *)&c->objects[kind]);
}

const struct node *cluster_next_node(const struct cluster *c, const struct node *after)
{
	struct meta *m =
		next_of(c, OBJECT_NODE, after ? &entry_of(after, struct node_entry, node)->meta : NULL);

	return m ? &entry_of(m, struct node_entry, meta)->node : NULL;
}

const struct service *cluster_next_service(const struct cluster *c, const struct service *after)
{
	struct meta *m = next_of(
		c, OBJECT_SERVICE, after ? &entry_of(after, struct service_entry, service)->meta : NULL);

	return m ? &entry_of(m, struct service_entry, meta)->service : NULL;
}

const struct endpoint_slice *cluster_next_endpoint_slice(
	const struct cluster *c, const struct endpoint_slice *after)
{
	struct meta *m = next_of(
		c, OBJECT_ENDPOINT_SLICE, after ? &entry_of(after, struct slice_entry, slice)->meta : NULL);

	return m ? &entry_of(m, struct slice_entry, meta)->slice : NULL;
}

/* By address, and of one address the ready ones first. */
static int by_address(const void *a, const void *b)
{
	const struct endpoint *x = a, *y = b;
	int c = addr_cmp(&x->addr, &y->addr);

	return c ? c : y->ready - x->ready;
}

size_t cluster_ready_endpoints(const struct cluster *c, const char *namespace, const char *service)
{
	/* No slice has an empty name, so the first one not before this key is the Service's first. */
	struct slice_entry key = {
		.slice = {.namespace = (char *)namespace, .name = (char *)"", .service = (char *)service}};
	struct slice_entry *e = RB_NFIND(service_index, (struct service_index *)&c->slices_of, &key);
	CLEANUP_FREE struct endpoint *usable = NULL;
	size_t n = 0, cap = 0;
	size_t ready[2] = {0}, draining[2] = {0}; /* IPv4, IPv6 */

	for (; e && !strcmp(e->slice.namespace, namespace) && !strcmp(e->slice.service, service);
		e = RB_NEXT(service_index, &c->slices_of, e))
		for (size_t i = 0; i < e->slice.n_endpoints; i++) {
			const struct endpoint *ep = &e->slice.endpoints[i];

			if (ep->ready || (ep->serving && ep->terminating))
				*VEC_ADD(usable, n, cap) = *ep;
		}
	if (n)
		qsort(usable, n, sizeof(*usable), by_address);
	for (size_t i = 0; i < n; i++) {
		bool v6 = usable[i].addr.family == AF_INET6;

		if (i && !addr_cmp(&usable[i - 1].addr, &usable[i].addr))
			continue;
		ready[v6] += usable[i].ready;
		draining[v6] += !usable[i].ready;
	}
	return (ready[0] ? ready[0] : draining[0]) + (ready[1] ? ready[1] : draining[1]);
}

void node_done(struct node *n)
{
	free(n->name);
	free(n->pod_cidrs);
	free(n->addresses);
	free(n->transport_addresses);
	memset(n, 0, sizeof(*n));
}

void service_done(struct service *s)
{
	free(s->namespace);
	free(s->name);
	free(s->cluster_ips);
	free(s->load_balancer_ips);
	free(s->external_ips);
	free(s->ports);
	memset(s, 0, sizeof(*s));
}

void endpoint_slice_done(struct endpoint_slice *s)
{
	free(s->namespace);
	free(s->name);
	free(s->service);
	free(s->endpoints);
	free(s->udp_ports);
	memset(s, 0, sizeof(*s));
}
