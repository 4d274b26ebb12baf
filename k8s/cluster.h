/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_CLUSTER_H
#define K8S_CLUSTER_H

#include "base/addr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * cluster: the replica of what the API says, in small structs.
 *
 * Sources (API watches, manifest files) put and remove objects; the controller reads a const cluster and never keeps a
 * pointer into it past its own step. The replica owns every object and string. Objects are kept in sorted maps by
 * (namespace, name); iteration is in that order, so that equal clusters give equal plans.
 *
 * Life cycle: cluster_new(), puts and deletes, cluster_free(). A relist calls cluster_relist_begin(kind), puts what it
 * gets, and cluster_relist_end(kind), which deletes what was not put in between and marks the kind synced; an aborted
 * relist calls cluster_relist_abort(kind) and nothing is removed.
 *
 * Objects are known by namespace and name alone, as in client-go's stores. An object that was deleted and made again (another
 * uid) replaces the old one whole, whether its DELETED was seen or fell between a list and the next; nothing is kept per
 * uid. A DELETED of the old one cannot come behind the ADDED of the new one: a watch has the order of the versions, and
 * starts behind the list that it follows.
 *
 * 'generation' grows whenever a put or delete changed something that is kept (a put of an equal object does not count:
 * status heartbeats end here).
 */
enum object_kind { OBJECT_NODE, OBJECT_SERVICE, OBJECT_ENDPOINT_SLICE, OBJECT_KINDS };
/* "nodes", "services", "endpointslices": the resource names of the API. */
extern const char *const object_kind_names[OBJECT_KINDS];

/* Node: core/v1. Only what is used is kept. */
struct node {
	char *name;
	struct prefix *pod_cidrs; /* spec.podCIDRs, or spec.podCIDR */
	size_t n_pod_cidrs;
	struct addr *addresses; /* status.addresses of type InternalIP and ExternalIP */
	size_t n_addresses;
	struct addr *transport_addresses; /* annotation node.antrea.io/transport-addresses */
	size_t n_transport_addresses;
	bool antrea;                /* has an annotation node.antrea.io/... */
	bool acceleration_disabled; /* label slipstream/acceleration: disabled */
};

enum ip_protocol { PROTOCOL_TCP = 6, PROTOCOL_UDP = 17, PROTOCOL_SCTP = 132 };

struct service_port {
	enum ip_protocol protocol;
	uint16_t port;
	uint16_t node_port; /* 0: none */
};

/* Service: core/v1. ExternalName and headless Services have no cluster_ips. */
struct service {
	char *namespace;
	char *name;
	struct addr *cluster_ips;
	size_t n_cluster_ips;
	struct addr *
		load_balancer_ips; /* status.loadBalancer.ingress[].ip whose ipMode is VIP or absent (KEP-1860) */
	size_t n_load_balancer_ips;
	struct addr *external_ips;
	size_t n_external_ips;
	struct service_port *ports;
	size_t n_ports;
	bool excluded;       /* annotation slipstream/exclude: "true" */
	bool external_local; /* externalTrafficPolicy: Local */
	bool internal_local; /* internalTrafficPolicy: Local */
};

struct endpoint {
	struct addr addr;
	bool ready;   /* conditions.ready; absent means true */
	bool serving; /* conditions.serving; absent means true, as kube-proxy has it (endpointslicecache.go) */
	bool terminating;
};

/* EndpointSlice: discovery.k8s.io/v1, addressType IPv4 or IPv6 (FQDN slices are not kept). */
struct endpoint_slice {
	char *namespace;
	char *name;
	char *service; /* label kubernetes.io/service-name; "" when absent */
	struct endpoint *endpoints;
	uint16_t *
		udp_ports; /* numbers of 'ports' with protocol UDP, each once; every endpoint of the slice has them */
	uint32_t n_endpoints, n_udp_ports;
};

struct cluster;

struct cluster *cluster_new(void);
void cluster_free(struct cluster *c);

/*
 * Takes over the object (the strings and arrays in it, not the struct itself), whether it is kept or equal to what is
 * there. Returns true when something changed.
 */
bool cluster_put_node(struct cluster *c, struct node *node);
bool cluster_put_service(struct cluster *c, struct service *service);
bool cluster_put_endpoint_slice(struct cluster *c, struct endpoint_slice *slice);
/*
 * Told of every change of the objects that are kept, at once, while both versions are valid. 'old' NULL: it is new; 'new' NULL: it is
 * gone. An equal object put again is no change. Members that are NULL are not called. Nothing may be put or deleted
 * from within.
 */
struct cluster_observer {
	void (*node)(void *arg, const struct node *old, const struct node *new);
	void (*service)(void *arg, const struct service *old, const struct service *new);
	void (*endpoint_slice)(void *arg, const struct endpoint_slice *old, const struct endpoint_slice *new);
	void *arg;
};
/* One more; copied. They are told in the order in which they came, and nothing of cluster_free(). */
void cluster_observe(struct cluster *c, const struct cluster_observer *observer);
/* No longer the one with this 'arg', if there is one. */
void cluster_unobserve(struct cluster *c, const void *arg);

/* 'namespace' is "" for nodes. Returns true when there was such an object. */
bool cluster_delete(struct cluster *c, enum object_kind kind, const char *namespace, const char *name);

void cluster_relist_begin(struct cluster *c, enum object_kind kind);
/*
 * Between begin and end: what is there under that name stays as it is although its new version could not be read. Returns
 * false when nothing is there.
 */
bool cluster_relist_keep(struct cluster *c, enum object_kind kind, const char *namespace, const char *name);
void cluster_relist_end(struct cluster *c, enum object_kind kind);
void cluster_relist_abort(struct cluster *c, enum object_kind kind);
/* Between begin and end or abort: what is there is partly of before, partly of now. */
bool cluster_relisting(const struct cluster *c, enum object_kind kind);

/* True once a relist of the kind has ended; a kind that is not watched by configuration is marked with cluster_set_unwatched(). */
bool cluster_synced(const struct cluster *c, enum object_kind kind);
bool cluster_all_synced(const struct cluster *c);
void cluster_set_unwatched(struct cluster *c, enum object_kind kind);
bool cluster_watched(const struct cluster *c, enum object_kind kind);
uint64_t cluster_generation(const struct cluster *c);
size_t cluster_count(const struct cluster *c, enum object_kind kind);

const struct node *cluster_node(const struct cluster *c, const char *name);
/* In order; NULL starts, NULL ends: for (s = cluster_next_service(c, NULL); s; s = cluster_next_service(c, s)) */
const struct node *cluster_next_node(const struct cluster *c, const struct node *after);
const struct service *cluster_next_service(const struct cluster *c, const struct service *after);
const struct endpoint_slice *cluster_next_endpoint_slice(
	const struct cluster *c, const struct endpoint_slice *after);
/*
 * Endpoints of a Service that can take traffic now, over all its slices; an address counts once, and is ready when one
 * of its entries is: it may be in two slices while it moves, or belong to a pod that ends and to one that starts. Per
 * family those that serve while they terminate count where none is ready (kube-proxy, pkg/proxy/topology.go).
 */
size_t cluster_ready_endpoints(const struct cluster *c, const char *namespace, const char *service);

/* Free what an object owns (not the struct) and leave it zeroed; for decoders and tests. */
void node_done(struct node *n);
void service_done(struct service *s);
void endpoint_slice_done(struct endpoint_slice *s);

#endif
