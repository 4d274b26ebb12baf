/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sim.h"

#include "k8s/decode.h"

#include <stdio.h>
#include <string.h>

/* Types of Services. */
enum { CLUSTER_IP, NODE_PORT, LOAD_BALANCER, HEADLESS, EXTERNAL_NAME, PENDING, SERVICE_TYPES };
static const char *const service_types[SERVICE_TYPES] = {
	"ClusterIP", "NodePort", "LoadBalancer", "ClusterIP", "ExternalName", "ClusterIP"};
enum { SLICE_V4, SLICE_V6, SLICE_FQDN, SLICE_TYPES };
static const char *const protocols[] = {"TCP", "UDP", "SCTP"};

static bool has_addresses(const struct spec *x)
{
	return !x->service.other_proxy && x->service.type != HEADLESS && x->service.type != EXTERNAL_NAME &&
	       x->service.type != PENDING;
}

/* --- dice --- */

static void draw_node(struct sim *s, unsigned i, struct spec *x)
{
	x->node.cidr4 = (uint8_t)(chance(s, 900) ? i + 1 : draw(s, 5));
	x->node.cidr6 = (uint8_t)(chance(s, 400) ? i + 1 : 0);
	x->node.address4 = (uint8_t)(10 + (chance(s, 900) ? i : draw(s, 8)));
	x->node.address6 = (uint8_t)(chance(s, 300) ? 10 + i : 0);
	x->node.transport = (uint8_t)(chance(s, 50) ? 50 + i : 0);
	x->node.antrea = chance(s, s->node.shape == NODE_ANTREA ? 800 : 20);
	x->node.disabled = chance(s, i ? 200 : 60);
}

static void draw_service(struct sim *s, struct spec *x)
{
	x->service.type = (uint8_t)draw(s, SERVICE_TYPES);
	if (x->service.type >= HEADLESS && chance(s, 500))
		x->service.type = NODE_PORT;
	x->service.ip4 = (uint8_t)(1 + draw(s, 14));
	x->service.ip6 = (uint8_t)(chance(s, 300) ? 1 + draw(s, 8) : 0);
	for (unsigned i = 0; i < 2; i++) {
		x->service.balancer[i] =
			(uint8_t)(x->service.type == LOAD_BALANCER && chance(s, 600) ? 1 + draw(s, 10) : 0);
		x->service.external[i] = (uint8_t)(chance(s, 250) ? 1 + draw(s, 16) : 0);
	}
	x->service.n_ports = (uint8_t)draw(s, 4);
	for (unsigned i = 0; i < x->service.n_ports; i++) {
		x->service.protocol[i] = (uint8_t)(chance(s, 900) ? draw(s, 2) : 2);
		x->service.node_port[i] =
			(uint8_t)(x->service.type == NODE_PORT || x->service.type == LOAD_BALANCER
					  ? 1 + draw(s, 12)
					  : 0);
	}
	x->service.proxy_mode = chance(s, 100);
	x->service.excluded = chance(s, 150);
	x->service.other_proxy = chance(s, 50);
	x->service.external_local = chance(s, 200);
	x->service.internal_local = chance(s, 200);
}

static void draw_slice(struct sim *s, struct spec *x)
{
	x->slice.service = (uint8_t)draw(s, OBJECTS_MAX);
	x->slice.type = (uint8_t)(chance(s, 950) ? draw(s, 2) : SLICE_FQDN);
	x->slice.n = (uint8_t)draw(s, 4);
	for (unsigned i = 0; i < x->slice.n; i++) {
		x->slice.address[i] = (uint8_t)(1 + draw(s, 30));
		x->slice.state[i] = (uint8_t)draw(s, 8);
	}
	x->slice.headless = chance(s, 50);
}

void spec_draw(struct sim *s, enum object_kind kind, unsigned i, struct spec *ret)
{
	*ret = (struct spec){.present = true, .bad = chance(s, 15), .beat = (uint8_t)draw(s, 256)};
	switch (kind) {
	case OBJECT_NODE:
		draw_node(s, i, ret);
		break;
	case OBJECT_SERVICE:
		draw_service(s, ret);
		break;
	default:
		draw_slice(s, ret);
	}
}

bool spec_visible(enum object_kind kind, const struct spec *x, bool field_selector)
{
	if (!x->present)
		return false;
	if (kind == OBJECT_SERVICE)
		return !x->service.other_proxy && !(field_selector && x->service.type == HEADLESS);
	return kind != OBJECT_ENDPOINT_SLICE || !x->slice.headless;
}

void spec_name(enum object_kind kind, unsigned i, char namespace[16], char name[16])
{
	snprintf(namespace, 16, "%s", kind == OBJECT_NODE ? "" : i % 2 ? "a" : "b");
	snprintf(name, 16, "%c%u", "nse"[kind], i);
}

/* --- addresses, as text: of few, so that Services share them, and some are pods' or ClusterIPs --- */

static void cluster_ip(unsigned n, bool v6, char ret[48])
{
	snprintf(ret, 48, v6 ? "fd96::%x" : "10.96.0.%u", n);
}

static void outside_ip(unsigned n, char ret[48])
{
	if (n <= 10)
		snprintf(ret, 48, n % 3 ? "203.0.113.%u" : "2001:db8:f::%x", n);
	else if (n <= 13)
		cluster_ip(n - 10, n == 13, ret);
	else
		snprintf(ret, 48, "10.244.%u.7", n - 13);
}

static void pod_ip(unsigned n, bool v6, char ret[48])
{
	snprintf(ret, 48, v6 ? "fd00:%x::%x" : "10.244.%u.%u", n % 4 + 1, n);
}

/* --- JSON --- */

static void node_json(const struct spec *x, struct strbuf *b)
{
	const char *comma = "";

	strbuf_printf(b, "\"labels\":{%s\"beat\":\"b\"},\"annotations\":{",
		x->node.disabled ? "\"slipstream/acceleration\":\"disabled\"," : "");
	if (x->node.antrea)
		strbuf_puts(b, "\"node.antrea.io/mac-address\":\"0\",");
	if (x->node.transport)
		strbuf_printf(b, "\"node.antrea.io/transport-addresses\":\"192.0.2.%u\",", x->node.transport);
	strbuf_printf(b, "\"x\":\"%u\"}},\"spec\":{\"podCIDRs\":[", x->beat);
	if (x->bad) {
		strbuf_puts(b, "\"10.244.0.0/99\"");
		comma = ",";
	}
	if (x->node.cidr4) {
		strbuf_printf(b, "%s\"10.244.%u.0/24\"", comma, x->node.cidr4);
		comma = ",";
	}
	if (x->node.cidr6)
		strbuf_printf(b, "%s\"fd00:%x::/64\"", comma, x->node.cidr6);
	strbuf_printf(b,
		"]},\"status\":{\"conditions\":[{\"lastHeartbeatTime\":\"%u\"}],\"addresses\":[{\"type\":"
		"\"Hostname\",\"address\":\"h\"},{\"type\":\"InternalIP\",\"address\":\"192.0.2.%u\"}",
		x->beat, x->node.address4);
	if (x->node.address6)
		strbuf_printf(b, ",{\"type\":\"ExternalIP\",\"address\":\"2001:db8::%x\"}", x->node.address6);
	strbuf_puts(b, "]}");
}

static void address_list(const uint8_t *numbers, const char *before, const char *after, struct strbuf *b)
{
	const char *comma = "";
	char text[48];

	for (unsigned i = 0; i < 2; i++) {
		if (!numbers[i])
			continue;
		outside_ip(numbers[i], text);
		strbuf_printf(b, "%s%s\"%s\"%s", comma, before, text, after);
		comma = ",";
	}
}

static void ports_json(const struct spec *x, struct strbuf *b)
{
	for (unsigned i = 0; i < x->service.n_ports; i++) {
		strbuf_printf(b, "%s{\"protocol\":\"%s\",\"port\":%u", i ? "," : "",
			protocols[x->service.protocol[i]], 80 + i);
		if (x->service.node_port[i])
			strbuf_printf(b, ",\"nodePort\":%u", 30000 + x->service.node_port[i]);
		strbuf_puts(b, "}");
	}
}

static void service_json(const struct spec *x, struct strbuf *b)
{
	char text[48];

	strbuf_printf(b,
		"\"labels\":{%s\"l\":\"\"},\"annotations\":{\"x\":\"%u\"%s}},\"spec\":{\"type\":%s\"%s\",",
		x->service.other_proxy ? "\"service.kubernetes.io/service-proxy-name\":\"p\"," : "", x->beat,
		x->service.excluded ? ",\"slipstream/exclude\":\"true\"" : "", x->bad ? "7,\"y\":" : "",
		service_types[x->service.type]);
	if (x->service.type == HEADLESS) {
		strbuf_puts(b, "\"clusterIP\":\"None\",\"clusterIPs\":[\"None\"],");
	} else if (x->service.type != EXTERNAL_NAME && x->service.type != PENDING) {
		cluster_ip(x->service.ip4, false, text);
		strbuf_printf(b, "\"clusterIP\":\"%s\",\"clusterIPs\":[\"%s\"", text, text);
		cluster_ip(x->service.ip6, true, text);
		if (x->service.ip6)
			strbuf_printf(b, ",\"%s\"", text);
		strbuf_puts(b, "],");
	}
	strbuf_puts(b, "\"externalIPs\":[");
	address_list(x->service.external, "", "", b);
	strbuf_printf(b, "],%s%s\"ports\":[",
		x->service.external_local ? "\"externalTrafficPolicy\":\"Local\"," : "",
		x->service.internal_local ? "\"internalTrafficPolicy\":\"Local\"," : "");
	ports_json(x, b);
	strbuf_puts(b, "]},\"status\":{\"loadBalancer\":{\"ingress\":[");
	address_list(x->service.balancer,
		"{\"ip\":", x->service.proxy_mode ? ",\"ipMode\":\"Proxy\"}" : ",\"ipMode\":\"VIP\"}", b);
	strbuf_puts(b, "]}}");
}

static void slice_json(const struct spec *x, struct strbuf *b)
{
	static const char *const types[] = {"IPv4", "IPv6", "FQDN"};
	char text[48];

	spec_name(OBJECT_SERVICE, x->slice.service, text + 24, text);
	strbuf_printf(b,
		"\"labels\":{\"kubernetes.io/service-name\":\"%s\"%s}},\"addressType\":\"%s\",\"ports\":[{"
		"\"protocol\":\"UDP\",\"port\":%u}],\"endpoints\":[",
		text, x->slice.headless ? ",\"service.kubernetes.io/headless\":\"\"" : "",
		x->bad ? "IPX" : types[x->slice.type], 53u + x->slice.n);
	for (unsigned i = 0; i < x->slice.n; i++) {
		if (x->slice.type == SLICE_FQDN)
			snprintf(text, sizeof(text), "example.org");
		else
			pod_ip(x->slice.address[i], x->slice.type == SLICE_V6, text);
		strbuf_printf(b,
			"%s{\"addresses\":[\"%s\"],\"conditions\":{\"ready\":%s,\"serving\":%s,"
			"\"terminating\":%s}}",
			i ? "," : "", text, x->slice.state[i] & 1 ? "true" : "false",
			x->slice.state[i] & 2 ? "true" : "false", x->slice.state[i] & 4 ? "true" : "false");
	}
	strbuf_puts(b, "]");
}

void spec_json(enum object_kind kind, unsigned i, const struct spec *x, uint64_t version, struct strbuf *b)
{
	char namespace[16], name[16];

	spec_name(kind, i, namespace, name);
	strbuf_printf(b, "{\"metadata\":{\"name\":\"%s\",%s%s%s\"resourceVersion\":\"%llu\",", name,
		*namespace ? "\"namespace\":\"" : "", namespace, *namespace ? "\"," : "",
		(unsigned long long)version);
	if (kind == OBJECT_NODE)
		node_json(x, b);
	else if (kind == OBJECT_SERVICE)
		service_json(x, b);
	else
		slice_json(x, b);
	strbuf_puts(b, "}");
}

/* --- what the replica keeps of it --- */

/* Each once. */
static void add_addr(struct addr **list, size_t *n, const char *text)
{
	struct addr a;

	if (!addr_parse(text, &a))
		abort();
	for (size_t i = 0; i < *n; i++)
		if (!addr_cmp(&(*list)[i], &a))
			return;
	*list = xreallocarray(*list, *n + 1, sizeof(**list));
	(*list)[(*n)++] = a;
}

static void add_prefix(struct node *n, const char *text)
{
	n->pod_cidrs = xreallocarray(n->pod_cidrs, n->n_pod_cidrs + 1, sizeof(*n->pod_cidrs));
	if (!prefix_parse(text, &n->pod_cidrs[n->n_pod_cidrs++], NULL))
		abort();
}

static void node_of(const struct spec *x, const char *name, struct node *n)
{
	char text[48];

	*n = (struct node){.name = xstrdup(name),
		.antrea = x->node.antrea || x->node.transport,
		.acceleration_disabled = x->node.disabled};
	snprintf(text, sizeof(text), "10.244.%u.0/24", x->node.cidr4);
	if (x->node.cidr4)
		add_prefix(n, text);
	snprintf(text, sizeof(text), "fd00:%x::/64", x->node.cidr6);
	if (x->node.cidr6)
		add_prefix(n, text);
	snprintf(text, sizeof(text), "192.0.2.%u", x->node.address4);
	add_addr(&n->addresses, &n->n_addresses, text);
	snprintf(text, sizeof(text), "2001:db8::%x", x->node.address6);
	if (x->node.address6)
		add_addr(&n->addresses, &n->n_addresses, text);
	snprintf(text, sizeof(text), "192.0.2.%u", x->node.transport);
	if (x->node.transport)
		add_addr(&n->transport_addresses, &n->n_transport_addresses, text);
}

static void add_outside(struct addr **list, size_t *n, const uint8_t *numbers)
{
	char text[48];

	for (unsigned i = 0; i < 2; i++) {
		outside_ip(numbers[i], text);
		if (numbers[i])
			add_addr(list, n, text);
	}
}

static void service_of(const struct spec *x, const char *namespace, const char *name, struct service *v)
{
	static const enum ip_protocol numbers[] = {PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_SCTP};
	char text[48];

	*v = (struct service){.namespace = xstrdup(namespace),
		.name = xstrdup(name),
		.excluded = x->service.excluded,
		.external_local = x->service.external_local,
		.internal_local = x->service.internal_local};
	if (!has_addresses(x))
		return;
	cluster_ip(x->service.ip4, false, text);
	add_addr(&v->cluster_ips, &v->n_cluster_ips, text);
	cluster_ip(x->service.ip6, true, text);
	if (x->service.ip6)
		add_addr(&v->cluster_ips, &v->n_cluster_ips, text);
	add_outside(&v->external_ips, &v->n_external_ips, x->service.external);
	if (!x->service.proxy_mode)
		add_outside(&v->load_balancer_ips, &v->n_load_balancer_ips, x->service.balancer);
	v->n_ports = x->service.n_ports;
	v->ports = v->n_ports ? xcalloc(v->n_ports, sizeof(*v->ports)) : NULL;
	for (unsigned i = 0; i < v->n_ports; i++)
		v->ports[i] = (struct service_port){numbers[x->service.protocol[i]], (uint16_t)(80 + i),
			(uint16_t)(x->service.node_port[i] ? 30000 + x->service.node_port[i] : 0)};
}

static void slice_of(const struct spec *x, const char *namespace, const char *name, struct endpoint_slice *v)
{
	char text[48];

	spec_name(OBJECT_SERVICE, x->slice.service, text + 24, text);
	*v = (struct endpoint_slice){
		.namespace = xstrdup(namespace), .name = xstrdup(name), .service = xstrdup(text)};
	if (x->slice.type == SLICE_FQDN)
		return;
	v->n_endpoints = x->slice.n;
	v->endpoints = x->slice.n ? xcalloc(x->slice.n, sizeof(*v->endpoints)) : NULL;
	for (unsigned i = 0; i < x->slice.n; i++) {
		v->endpoints[i] = (struct endpoint){.ready = x->slice.state[i] & 1,
			.serving = x->slice.state[i] & 2,
			.terminating = x->slice.state[i] & 4};
		pod_ip(x->slice.address[i], x->slice.type == SLICE_V6, text);
		if (!addr_parse(text, &v->endpoints[i].addr))
			abort();
	}
	v->n_udp_ports = 1;
	v->udp_ports = xcalloc(1, sizeof(*v->udp_ports));
	v->udp_ports[0] = (uint16_t)(53 + x->slice.n);
}

static void object_of(enum object_kind kind, unsigned i, const struct spec *x, struct object *ret)
{
	char namespace[16], name[16];

	spec_name(kind, i, namespace, name);
	ret->kind = kind;
	if (kind == OBJECT_NODE)
		node_of(x, name, &ret->node);
	else if (kind == OBJECT_SERVICE)
		service_of(x, namespace, name, &ret->service);
	else
		slice_of(x, namespace, name, &ret->slice);
}

void spec_put(enum object_kind kind, unsigned i, const struct spec *x, struct cluster *c)
{
	struct object o;

	object_of(kind, i, x, &o);
	decode_put(c, &o);
}

/* --- comparison --- */

/* FNV-1a */
static void mix(uint64_t *hash, const void *data, size_t n, size_t size)
{
	const uint8_t *bytes = data;

	*hash = (*hash ^ n) * 1099511628211ULL;
	for (size_t i = 0; i < n * size; i++)
		*hash = (*hash ^ bytes[i]) * 1099511628211ULL;
}

static uint64_t node_hash(const struct node *n)
{
	uint64_t h = 14695981039346656037ULL + n->antrea + 2 * n->acceleration_disabled;

	mix(&h, n->pod_cidrs, n->n_pod_cidrs, sizeof(*n->pod_cidrs));
	mix(&h, n->addresses, n->n_addresses, sizeof(*n->addresses));
	mix(&h, n->transport_addresses, n->n_transport_addresses, sizeof(*n->transport_addresses));
	return h | 1;
}

static uint64_t service_hash(const struct service *v)
{
	uint64_t h = 14695981039346656037ULL + v->excluded + 2 * v->external_local + 4 * v->internal_local;

	mix(&h, v->cluster_ips, v->n_cluster_ips, sizeof(*v->cluster_ips));
	mix(&h, v->load_balancer_ips, v->n_load_balancer_ips, sizeof(*v->load_balancer_ips));
	mix(&h, v->external_ips, v->n_external_ips, sizeof(*v->external_ips));
	mix(&h, v->ports, v->n_ports, sizeof(*v->ports));
	return h | 1;
}

static uint64_t slice_hash(const struct endpoint_slice *v)
{
	uint64_t h = 14695981039346656037ULL;

	mix(&h, v->service, strlen(v->service), 1);
	mix(&h, v->endpoints, v->n_endpoints, sizeof(*v->endpoints));
	mix(&h, v->udp_ports, v->n_udp_ports, sizeof(*v->udp_ports));
	return h | 1;
}

uint64_t spec_hash(enum object_kind kind, unsigned i, const struct spec *x)
{
	struct object o;
	uint64_t h;

	object_of(kind, i, x, &o);
	h = kind == OBJECT_NODE      ? node_hash(&o.node)
	    : kind == OBJECT_SERVICE ? service_hash(&o.service)
				     : slice_hash(&o.slice);
	object_done(&o);
	return h;
}

/* OBJECTS_MAX: a name that never was. */
static unsigned number_of(enum object_kind kind, const char *namespace, const char *name)
{
	char n[16], ns[16];

	for (unsigned i = 0; i < OBJECTS_MAX; i++) {
		spec_name(kind, i, ns, n);
		if (!strcmp(n, name) && !strcmp(ns, namespace))
			return i;
	}
	return OBJECTS_MAX;
}

static bool note_hash(uint64_t ret[OBJECTS_MAX], unsigned i, uint64_t hash)
{
	if (i == OBJECTS_MAX)
		return false;
	ret[i] = hash;
	return true;
}

bool replica_hashes(const struct cluster *c, enum object_kind kind, uint64_t ret[OBJECTS_MAX])
{
	const struct endpoint_slice *e = NULL;
	const struct service *v = NULL;
	const struct node *n = NULL;
	bool known = true;

	memset(ret, 0, OBJECTS_MAX * sizeof(*ret));
	while (kind == OBJECT_NODE && (n = cluster_next_node(c, n)))
		known &= note_hash(ret, number_of(kind, "", n->name), node_hash(n));
	while (kind == OBJECT_SERVICE && (v = cluster_next_service(c, v)))
		known &= note_hash(ret, number_of(kind, v->namespace, v->name), service_hash(v));
	while (kind == OBJECT_ENDPOINT_SLICE && (e = cluster_next_endpoint_slice(c, e)))
		known &= note_hash(ret, number_of(kind, e->namespace, e->name), slice_hash(e));
	return known;
}
