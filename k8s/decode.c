/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/decode.h"
#include "base/mem.h"
#include "k8s/json_tree.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Of one list in one object. Far above what the API server accepts, low enough for a quadratic search of
 * duplicates. */
#define MAX_ADDRESSES 4096
#define MAX_PORTS 4096

static const char *const kind_names[OBJECT_KINDS] = {
	[OBJECT_NODE] = "Node",
	[OBJECT_SERVICE] = "Service",
	[OBJECT_ENDPOINT_SLICE] = "EndpointSlice",
};

/* What a decoder is working on: for the words of its errors. */
struct reader {
	char object[sizeof(((struct error *)0)->object)];
	struct error *err;
};

static int bad(struct reader *r, const char *path, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int bad(struct reader *r, const char *path, const char *fmt, ...)
{
	char what[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return error_set(r->err, -EINVAL, r->object, "the object is left out until that is mended", "%s %s",
		path, what);
}

static const char *type_name(struct json_object *o)
{
	switch (json_object_get_type(o)) {
	case json_type_boolean:
		return "a boolean";
	case json_type_double:
		return "a fraction";
	case json_type_int:
		return "a number";
	case json_type_object:
		return "an object";
	case json_type_array:
		return "a list";
	case json_type_string:
		return "a string";
	default:
		return "null";
	}
}

static const char *wanted_name(enum json_type type)
{
	return type == json_type_boolean  ? "a boolean"
	       : type == json_type_int    ? "a number"
	       : type == json_type_object ? "an object"
	       : type == json_type_array  ? "a list"
					  : "a string";
}

static int check_type(struct reader *r, struct json_object *o, enum json_type type, const char *path)
{
	if (json_object_is_type(o, type))
		return 0;
	return bad(r, path, "is %s, not %s%s", type_name(o), wanted_name(type),
		type == json_type_string ? " (in YAML: put it in quotes)" : "");
}

/* A member of 'parent' (NULL: no member) of that type; '*ret' is NULL when it is absent or null. */
static int member(struct reader *r, struct json_object *parent, const char *key, enum json_type type,
	const char *path, struct json_object **ret)
{
	struct json_object *o = NULL;

	*ret = NULL;
	if (!parent || !json_object_object_get_ex(parent, key, &o) || !o)
		return 0;
	if (check_type(r, o, type, path))
		return -EINVAL;
	*ret = o;
	return 0;
}

/* Text without a NUL in it; '*ret' is NULL when absent, valid as long as the JSON. */
static int text_of(struct reader *r, struct json_object *o, const char *path, const char **ret)
{
	*ret = NULL;
	if (check_type(r, o, json_type_string, path))
		return -EINVAL;
	if (strlen(json_object_get_string(o)) != (size_t)json_object_get_string_len(o))
		return bad(r, path, "has a NUL character in it");
	*ret = json_object_get_string(o);
	return 0;
}

static int text(
	struct reader *r, struct json_object *parent, const char *key, const char *path, const char **ret)
{
	struct json_object *o;

	*ret = NULL;
	if (member(r, parent, key, json_type_string, path, &o))
		return -EINVAL;
	return o ? text_of(r, o, path, ret) : 0;
}

/* 'path' is the parent's. */
static int boolean(struct reader *r, struct json_object *parent, const char *key, const char *path,
	bool absent, bool *ret)
{
	struct json_object *o = NULL;
	char at[96];

	*ret = absent;
	if (!parent || !json_object_object_get_ex(parent, key, &o) || !o)
		return 0;
	snprintf(at, sizeof(at), "%s.%s", path, key);
	if (check_type(r, o, json_type_boolean, at))
		return -EINVAL;
	*ret = json_object_get_boolean(o);
	return 0;
}

static int port_number(
	struct reader *r, struct json_object *parent, const char *key, const char *path, uint16_t *ret)
{
	struct json_object *o;
	int64_t v;

	*ret = 0;
	if (member(r, parent, key, json_type_int, path, &o))
		return -EINVAL;
	v = o ? json_object_get_int64(o) : 0;
	if (v < 0 || v > UINT16_MAX)
		return bad(r, path, "is %lld, not a port", (long long)v);
	*ret = (uint16_t)v;
	return 0;
}

static int address(struct reader *r, const char *s, const char *path, struct addr *ret)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (!addr_parse(s, ret))
		return bad(r, path, "\"%.64s\" is not an IP address", s);
	if (ret->family == AF_INET6 && !memcmp(ret->bytes, mapped, sizeof(mapped)))
		return bad(r, path, "\"%.64s\" is an IPv4 address in IPv6 clothes: write it as IPv4", s);
	return 0;
}

/* Appends an address that is not in the list yet: the order of the API is kept. */
static int add_address(
	struct reader *r, const char *s, const char *path, struct addr **list, size_t *n, size_t *cap)
{
	struct addr a;

	if (address(r, s, path, &a))
		return -EINVAL;
	for (size_t i = 0; i < *n; i++)
		if (!addr_cmp(&(*list)[i], &a))
			return 0;
	if (*n == MAX_ADDRESSES)
		return bad(r, path, "is one of more than %d addresses", MAX_ADDRESSES);
	*VEC_ADD(*list, *n, *cap) = a;
	return 0;
}

/* A list of texts that are addresses. */
static int add_addresses(
	struct reader *r, struct json_object *list, const char *path, struct addr **ret, size_t *n)
{
	size_t cap = 0;

	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		const char *s;
		char at[96];

		snprintf(at, sizeof(at), "%s[%zu]", path, i);
		if (text_of(r, json_object_array_get_idx(list, i), at, &s) ||
			add_address(r, s, at, ret, n, &cap))
			return -EINVAL;
	}
	return 0;
}

/*
 * Names go into paths, log lines and metrics. The API's own rules are narrower (DNS labels and subdomains),
 * so that only what no API server would hand out is refused.
 */
static bool name_ok(const char *s)
{
	if (!*s || strlen(s) > 253)
		return false;
	for (; *s; s++)
		if (*s <= ' ' || *s > '~' || strchr("/%\"\\", *s))
			return false;
	return true;
}

static int label_is(struct reader *r, struct json_object *map, const char *key, const char *path,
	const char *value, bool *ret)
{
	const char *s;

	if (text(r, map, key, path, &s))
		return -EINVAL;
	*ret = s && !strcmp(s, value);
	return 0;
}

static int decode_node(struct reader *r, struct json_object *o, struct json_object *metadata, struct node *n)
{
	struct json_object *spec, *status, *list, *labels, *annotations;
	size_t cap = 0;
	const char *s;
	char path[96];

	if (member(r, metadata, "labels", json_type_object, "metadata.labels", &labels) ||
		member(r, metadata, "annotations", json_type_object, "metadata.annotations", &annotations) ||
		member(r, o, "spec", json_type_object, "spec", &spec) ||
		member(r, o, "status", json_type_object, "status", &status) ||
		label_is(r, labels, "slipstream/acceleration", "metadata.labels[slipstream/acceleration]",
			"disabled", &n->acceleration_disabled))
		return -EINVAL;

	if (annotations) {
		json_object_object_foreach(annotations, key, value)
		{
			(void)value;
			n->antrea |= !strncmp(key, "node.antrea.io/", 15);
		}
	}
	snprintf(path, sizeof(path), "metadata.annotations[node.antrea.io/transport-addresses]");
	if (text(r, annotations, "node.antrea.io/transport-addresses", path, &s))
		return -EINVAL;
	if (s) {
		CLEANUP_FREE char *copy = xstrdup(s);
		char *save = NULL;

		for (char *t = strtok_r(copy, ", ", &save); t; t = strtok_r(NULL, ", ", &save))
			if (add_address(r, t, path, &n->transport_addresses, &n->n_transport_addresses, &cap))
				return -EINVAL;
	}

	if (member(r, spec, "podCIDRs", json_type_array, "spec.podCIDRs", &list) ||
		text(r, spec, "podCIDR", "spec.podCIDR", &s))
		return -EINVAL;
	cap = 0;
	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		const char *cidr;

		snprintf(path, sizeof(path), "spec.podCIDRs[%zu]", i);
		if (text_of(r, json_object_array_get_idx(list, i), path, &cidr))
			return -EINVAL;
		if (!prefix_parse(cidr, VEC_ADD(n->pod_cidrs, n->n_pod_cidrs, cap), NULL))
			return bad(r, path, "\"%.64s\" is not a CIDR", cidr);
	}
	if (!n->n_pod_cidrs && s && *s && !prefix_parse(s, VEC_ADD(n->pod_cidrs, n->n_pod_cidrs, cap), NULL))
		return bad(r, "spec.podCIDR", "\"%.64s\" is not a CIDR", s);

	if (member(r, status, "addresses", json_type_array, "status.addresses", &list))
		return -EINVAL;
	cap = 0;
	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		struct json_object *item = json_object_array_get_idx(list, i);
		const char *type, *value;

		snprintf(path, sizeof(path), "status.addresses[%zu]", i);
		if (check_type(r, item, json_type_object, path) || text(r, item, "type", path, &type) ||
			text(r, item, "address", path, &value))
			return -EINVAL;
		if (!type || (strcmp(type, "InternalIP") && strcmp(type, "ExternalIP")))
			continue;
		if (add_address(r, value ? value : "", path, &n->addresses, &n->n_addresses, &cap))
			return -EINVAL;
	}
	return 0;
}

static int decode_ports(struct reader *r, struct json_object *list, struct service *s)
{
	size_t n = list ? json_object_array_length(list) : 0;

	s->ports = n ? xcalloc(n, sizeof(*s->ports)) : NULL;
	for (size_t i = 0; i < n; i++) {
		struct json_object *item = json_object_array_get_idx(list, i);
		struct service_port *p = &s->ports[i];
		const char *protocol;
		char path[96];

		s->n_ports++;
		snprintf(path, sizeof(path), "spec.ports[%zu]", i);
		if (check_type(r, item, json_type_object, path))
			return -EINVAL;
		snprintf(path, sizeof(path), "spec.ports[%zu].protocol", i);
		if (text(r, item, "protocol", path, &protocol))
			return -EINVAL;
		if (!protocol || !*protocol || !strcmp(protocol, "TCP"))
			p->protocol = PROTOCOL_TCP;
		else if (!strcmp(protocol, "UDP"))
			p->protocol = PROTOCOL_UDP;
		else if (!strcmp(protocol, "SCTP"))
			p->protocol = PROTOCOL_SCTP;
		else
			return bad(r, path, "is \"%.32s\", not TCP, UDP or SCTP", protocol);
		snprintf(path, sizeof(path), "spec.ports[%zu].port", i);
		if (port_number(r, item, "port", path, &p->port))
			return -EINVAL;
		if (!p->port)
			return bad(r, path, "is missing or 0");
		snprintf(path, sizeof(path), "spec.ports[%zu].nodePort", i);
		if (port_number(r, item, "nodePort", path, &p->node_port))
			return -EINVAL;
	}
	return 0;
}

static int decode_ingress(struct reader *r, struct json_object *status, struct service *s)
{
	struct json_object *lb, *list;
	size_t cap = 0;

	if (member(r, status, "loadBalancer", json_type_object, "status.loadBalancer", &lb) ||
		member(r, lb, "ingress", json_type_array, "status.loadBalancer.ingress", &list))
		return -EINVAL;
	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		struct json_object *item = json_object_array_get_idx(list, i);
		const char *ip, *mode;
		char path[96];

		snprintf(path, sizeof(path), "status.loadBalancer.ingress[%zu]", i);
		if (check_type(r, item, json_type_object, path) || text(r, item, "ip", path, &ip) ||
			text(r, item, "ipMode", path, &mode))
			return -EINVAL;
		/* A host name alone is none of our addresses; ipMode Proxy: the packets come with another
		 * destination (KEP-1860). */
		if (!ip || !*ip || (mode && !strcmp(mode, "Proxy")))
			continue;
		if (add_address(r, ip, path, &s->load_balancer_ips, &s->n_load_balancer_ips, &cap))
			return -EINVAL;
	}
	return 0;
}

static int decode_service(
	struct reader *r, struct json_object *o, struct json_object *metadata, struct service *s)
{
	struct json_object *spec, *status, *ips, *external, *ports, *labels, *annotations;
	const char *ip, *type, *proxy;
	size_t cap = 0;

	if (member(r, metadata, "labels", json_type_object, "metadata.labels", &labels) ||
		member(r, metadata, "annotations", json_type_object, "metadata.annotations", &annotations) ||
		label_is(r, annotations, "slipstream/exclude", "metadata.annotations[slipstream/exclude]",
			"true", &s->excluded) ||
		text(r, labels, "service.kubernetes.io/service-proxy-name",
			"metadata.labels[service.kubernetes.io/service-proxy-name]", &proxy) ||
		member(r, o, "spec", json_type_object, "spec", &spec) ||
		member(r, o, "status", json_type_object, "status", &status) ||
		text(r, spec, "type", "spec.type", &type) ||
		text(r, spec, "clusterIP", "spec.clusterIP", &ip) ||
		label_is(r, spec, "externalTrafficPolicy", "spec.externalTrafficPolicy", "Local",
			&s->external_local) ||
		label_is(r, spec, "internalTrafficPolicy", "spec.internalTrafficPolicy", "Local",
			&s->internal_local) ||
		member(r, spec, "clusterIPs", json_type_array, "spec.clusterIPs", &ips) ||
		member(r, spec, "externalIPs", json_type_array, "spec.externalIPs", &external) ||
		member(r, spec, "ports", json_type_array, "spec.ports", &ports))
		return -EINVAL;

	if (ips && !json_object_array_length(ips))
		ips = NULL;
	if (ips && text_of(r, json_object_array_get_idx(ips, 0), "spec.clusterIPs[0]", &ip))
		return -EINVAL;
	/*
	 * What no proxy of a node implements has no address that a packet could have: another program's
	 * Service, a CNAME, a headless one, one without an address yet (kube-proxy, ShouldSkipService()).
	 */
	if (proxy || (type && !strcmp(type, "ExternalName")) || !ip || !*ip || !strcmp(ip, "None"))
		return 0;
	if (ips ? add_addresses(r, ips, "spec.clusterIPs", &s->cluster_ips, &s->n_cluster_ips)
		: add_address(r, ip, "spec.clusterIP", &s->cluster_ips, &s->n_cluster_ips, &cap))
		return -EINVAL;
	if (add_addresses(r, external, "spec.externalIPs", &s->external_ips, &s->n_external_ips) ||
		decode_ports(r, ports, s))
		return -EINVAL;
	return decode_ingress(r, status, s);
}

static int decode_endpoint(struct reader *r, struct json_object *item, uint8_t family, size_t i,
	struct endpoint_slice *s, size_t *cap)
{
	struct json_object *conditions, *addresses;
	struct endpoint e = {0};
	char path[96];

	snprintf(path, sizeof(path), "endpoints[%zu]", i);
	if (check_type(r, item, json_type_object, path))
		return -EINVAL;
	snprintf(path, sizeof(path), "endpoints[%zu].conditions", i);
	if (member(r, item, "conditions", json_type_object, path, &conditions) ||
		boolean(r, conditions, "ready", path, true, &e.ready) ||
		boolean(r, conditions, "serving", path, true, &e.serving) ||
		boolean(r, conditions, "terminating", path, false, &e.terminating))
		return -EINVAL;
	snprintf(path, sizeof(path), "endpoints[%zu].addresses", i);
	if (member(r, item, "addresses", json_type_array, path, &addresses))
		return -EINVAL;
	for (size_t k = 0; addresses && k < json_object_array_length(addresses); k++) {
		const char *text_ip;

		if (text_of(r, json_object_array_get_idx(addresses, k), path, &text_ip) ||
			address(r, text_ip, path, &e.addr))
			return -EINVAL;
		if (e.addr.family != family)
			return bad(r, path, "\"%.64s\" is not of the slice's addressType", text_ip);
		*VEC_ADD(s->endpoints, s->n_endpoints, *cap) = e;
	}
	return 0;
}

/*
 * The UDP ports of a slice or of a subset, each number once. A port without a number ("all of them") is none that a
 * proxy of a node looks at (kube-proxy, endpointslicecache.go); 'path' is the list's.
 */
static int add_udp_ports(
	struct reader *r, struct json_object *list, const char *path, struct endpoint_slice *s, size_t *cap)
{
	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		struct json_object *item = json_object_array_get_idx(list, i);
		const char *protocol;
		uint16_t port;
		size_t k = 0;
		char at[96];

		snprintf(at, sizeof(at), "%s[%zu]", path, i);
		if (check_type(r, item, json_type_object, at))
			return -EINVAL;
		snprintf(at, sizeof(at), "%s[%zu].protocol", path, i);
		if (text(r, item, "protocol", at, &protocol))
			return -EINVAL;
		snprintf(at, sizeof(at), "%s[%zu].port", path, i);
		if (port_number(r, item, "port", at, &port))
			return -EINVAL;
		if (!port || !protocol || strcmp(protocol, "UDP"))
			continue;
		while (k < s->n_udp_ports && s->udp_ports[k] != port)
			k++;
		if (k < s->n_udp_ports)
			continue;
		if (k == MAX_PORTS)
			return bad(r, at, "is one of more than %d UDP ports", MAX_PORTS);
		*VEC_ADD(s->udp_ports, s->n_udp_ports, *cap) = port;
	}
	return 0;
}

static int decode_slice(
	struct reader *r, struct json_object *o, struct json_object *metadata, struct endpoint_slice *s)
{
	struct json_object *labels, *list, *ports;
	const char *service, *type;
	size_t cap = 0, cap_ports = 0;
	uint8_t family;

	if (member(r, metadata, "labels", json_type_object, "metadata.labels", &labels) ||
		text(r, labels, "kubernetes.io/service-name", "metadata.labels[kubernetes.io/service-name]",
			&service) ||
		text(r, o, "addressType", "addressType", &type) ||
		member(r, o, "endpoints", json_type_array, "endpoints", &list) ||
		member(r, o, "ports", json_type_array, "ports", &ports))
		return -EINVAL;
	if (service && *service && !name_ok(service))
		return bad(r, "metadata.labels[kubernetes.io/service-name]", "is not a Service's name");
	s->service = xstrdup(service ? service : "");
	if (type && !strcmp(type, "FQDN"))
		return 0;
	if (!type || (strcmp(type, "IPv4") && strcmp(type, "IPv6")))
		return bad(r, "addressType", "is %s%.32s%s, not IPv4, IPv6 or FQDN", type ? "\"" : "",
			type ? type : "missing", type ? "\"" : "");
	family = type[3] == '4' ? AF_INET : AF_INET6;
	for (size_t i = 0; list && i < json_object_array_length(list); i++)
		if (decode_endpoint(r, json_object_array_get_idx(list, i), family, i, s, &cap))
			return -EINVAL;
	return add_udp_ports(r, ports, "ports", s, &cap_ports);
}

static const char *article(const char *kind)
{
	return *kind == 'E' ? "an" : "a";
}

/* Namespace and name of the object, and with them what its errors are about. 'kind' is the word for it. */
static int identity(struct reader *r, struct json_object *json, const char *kind, bool namespaced,
	struct json_object **metadata, const char **namespace, const char **name)
{
	snprintf(r->object, sizeof(r->object), "%s %s", article(kind), kind);
	if (check_type(r, json, json_type_object, "the whole") ||
		member(r, json, "metadata", json_type_object, "metadata", metadata) ||
		text(r, *metadata, "name", "metadata.name", name) ||
		text(r, *metadata, "namespace", "metadata.namespace", namespace))
		return -EINVAL;
	if (!*name || !name_ok(*name))
		return bad(r, "metadata.name", "%s", *name ? "is not a name" : "is missing");
	/* As kubectl does without a context that says otherwise; the API always has it. */
	if (!*namespace || !**namespace)
		*namespace = "default";
	if (namespaced && !name_ok(*namespace))
		return bad(r, "metadata.namespace", "is not a name");
	if (namespaced)
		snprintf(r->object, sizeof(r->object), "%s %.63s/%.100s", kind, *namespace, *name);
	else
		snprintf(r->object, sizeof(r->object), "%s %.160s", kind, *name);
	return 0;
}

int decode_json(enum object_kind kind, struct json_object *json, struct object *ret, struct error *err)
{
	struct reader r = {.err = err};
	struct json_object *metadata;
	const char *namespace, *name;
	struct object o = {.kind = kind};
	int code;

	*ret = (struct object){0};
	if (identity(&r, json, kind_names[kind], kind != OBJECT_NODE, &metadata, &namespace, &name))
		return -EINVAL;
	switch (kind) {
	case OBJECT_NODE:
		o.node.name = xstrdup(name);
		code = decode_node(&r, json, metadata, &o.node);
		break;
	case OBJECT_SERVICE:
		o.service.namespace = xstrdup(namespace);
		o.service.name = xstrdup(name);
		code = decode_service(&r, json, metadata, &o.service);
		break;
	default:
		o.slice.namespace = xstrdup(namespace);
		o.slice.name = xstrdup(name);
		code = decode_slice(&r, json, metadata, &o.slice);
		break;
	}
	if (code)
		object_done(&o);
	else
		*ret = o;
	return code;
}

static int by_addr(const void *a, const void *b)
{
	const struct endpoint *x = a, *y = b;
	int c = addr_cmp(&x->addr, &y->addr);

	return c ? c : y->ready - x->ready;
}

/* The addresses of one list of a subset. */
static int add_subset(struct reader *r, struct json_object *subset, const char *key, bool ready, size_t i,
	struct endpoint_slice *s, size_t *cap)
{
	struct json_object *list;
	char path[96];

	snprintf(path, sizeof(path), "subsets[%zu].%s", i, key);
	if (member(r, subset, key, json_type_array, path, &list))
		return -EINVAL;
	for (size_t k = 0; list && k < json_object_array_length(list); k++) {
		struct json_object *item = json_object_array_get_idx(list, k);
		struct endpoint e = {.ready = ready, .serving = ready};
		const char *ip;

		snprintf(path, sizeof(path), "subsets[%zu].%s[%zu]", i, key, k);
		if (check_type(r, item, json_type_object, path) || text(r, item, "ip", path, &ip) ||
			address(r, ip ? ip : "", path, &e.addr))
			return -EINVAL;
		*VEC_ADD(s->endpoints, s->n_endpoints, *cap) = e;
	}
	return 0;
}

int decode_endpoints(struct json_object *root, struct object *ret, struct error *err)
{
	struct reader r = {.err = err};
	struct json_object *metadata, *list, *ports;
	const char *namespace, *name;
	struct object o = {.kind = OBJECT_ENDPOINT_SLICE};
	struct endpoint_slice *s = &o.slice;
	size_t cap = 0, cap_ports = 0, kept = 0;

	*ret = (struct object){0};
	if (identity(&r, root, "Endpoints", true, &metadata, &namespace, &name) ||
		member(&r, root, "subsets", json_type_array, "subsets", &list))
		return -EINVAL;
	s->namespace = xstrdup(namespace);
	s->name = xstrdup(name);
	s->service = xstrdup(name);
	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		struct json_object *subset = json_object_array_get_idx(list, i);
		char path[32], at[48];

		snprintf(path, sizeof(path), "subsets[%zu]", i);
		snprintf(at, sizeof(at), "%s.ports", path);
		if (check_type(&r, subset, json_type_object, path) ||
			member(&r, subset, "ports", json_type_array, at, &ports) ||
			add_udp_ports(&r, ports, at, s, &cap_ports) ||
			add_subset(&r, subset, "addresses", true, i, s, &cap) ||
			add_subset(&r, subset, "notReadyAddresses", false, i, s, &cap)) {
			object_done(&o);
			return -EINVAL;
		}
	}
	/* A subset is a set of ports, so that an address may be in several; ready in one is ready. */
	if (s->n_endpoints)
		qsort(s->endpoints, s->n_endpoints, sizeof(*s->endpoints), by_addr);
	for (size_t i = 0; i < s->n_endpoints; i++)
		if (!kept || addr_cmp(&s->endpoints[kept - 1].addr, &s->endpoints[i].addr))
			s->endpoints[kept++] = s->endpoints[i];
	s->n_endpoints = (uint32_t)kept;
	*ret = o;
	return 0;
}

int decode_object(enum object_kind kind, const char *json, size_t len, struct object *ret, struct error *err)
{
	struct json_object *o;
	int code;

	*ret = (struct object){0};
	code = json_tree_parse(json, len, &o, err);
	if (code && err)
		snprintf(err->object, sizeof(err->object), "%s %s", article(kind_names[kind]),
			kind_names[kind]);
	if (!code)
		code = decode_json(kind, o, ret, err);
	json_object_put(o);
	return code;
}

bool decode_put(struct cluster *c, struct object *o)
{
	switch (o->kind) {
	case OBJECT_NODE:
		return cluster_put_node(c, &o->node);
	case OBJECT_SERVICE:
		return cluster_put_service(c, &o->service);
	default:
		return cluster_put_endpoint_slice(c, &o->slice);
	}
}

const char *object_namespace(const struct object *o)
{
	return o->kind == OBJECT_SERVICE          ? o->service.namespace
	       : o->kind == OBJECT_ENDPOINT_SLICE ? o->slice.namespace
						  : "";
}

const char *object_name(const struct object *o)
{
	return o->kind == OBJECT_SERVICE          ? o->service.name
	       : o->kind == OBJECT_ENDPOINT_SLICE ? o->slice.name
						  : o->node.name;
}

void object_done(struct object *o)
{
	switch (o->kind) {
	case OBJECT_NODE:
		node_done(&o->node);
		break;
	case OBJECT_SERVICE:
		service_done(&o->service);
		break;
	default:
		endpoint_slice_done(&o->slice);
		break;
	}
}
