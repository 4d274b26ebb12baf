/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_DECODE_H
#define K8S_DECODE_H

#include "base/error.h"
#include "k8s/cluster.h"

#include <stddef.h>

/*
 * decode: JSON of one API object to the small structs of cluster.h.
 *
 * Unknown fields are ignored; a known field of a wrong type rejects the object (-EINVAL) with "Service ns/name" in
 * err->object and the field's path in err->what; the caller goes on with the next one. Addresses and CIDRs that do not
 * parse reject the object, too. FQDN slices decode to a slice without endpoints.
 */
struct object {
	enum object_kind kind;
	union {
		struct node node;
		struct service service;
		struct endpoint_slice slice;
	};
};

/* '*ret' is zeroed on failure. On success the caller owns what it holds and hands it to decode_put() or object_done(). */
int decode_object(enum object_kind kind, const char *json, size_t len, struct object *ret, struct error *err);
struct json_object;
int decode_json(enum object_kind kind, struct json_object *json, struct object *ret, struct error *err);
/*
 * The same for a core/v1 Endpoints, where there are no EndpointSlices: as one slice of OBJECT_ENDPOINT_SLICE with the
 * Service's name as its own, of both families. notReadyAddresses are neither ready nor serving: Endpoints do not say
 * what terminates. The endpoints are sorted, each address once, ready when any subset says so; the UDP ports are those
 * of all subsets, whichever of the addresses has them.
 */
int decode_endpoints(struct json_object *root, struct object *ret, struct error *err);
/* Puts it into the replica, which takes over what it owns. Returns what cluster_put_*() returns. */
bool decode_put(struct cluster *c, struct object *o);
/* Namespace ("" for nodes) and name; valid as long as the object. */
const char *object_namespace(const struct object *o);
const char *object_name(const struct object *o);
void object_done(struct object *o);

#endif
