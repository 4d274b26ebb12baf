/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "k8s/decode.h"
#include "k8s/json_split.h"

#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "body.h"

static struct object decode(enum object_kind kind, const char *json)
{
	struct error err = {0};
	struct object o;

	if (decode_object(kind, json, strlen(json), &o, &err))
		fail_msg("%s", error_text(&err));
	assert_int_equal(o.kind, kind);
	assert_int_equal(err.code, 0);
	return o;
}

/* 'object' and 'what' of the error must be these. */
static void refuse(enum object_kind kind, const char *json, const char *object, const char *what)
{
	struct error err = {0};
	struct object o, zero = {0};

	memset(&o, 0xff, sizeof(o));
	assert_int_equal(decode_object(kind, json, strlen(json), &o, &err), -EINVAL);
	assert_string_equal(err.object, object);
	assert_string_equal(err.what, what);
	assert_int_equal(err.code, -EINVAL);
	assert_memory_equal(&o, &zero, sizeof(o));
	assert_int_equal(decode_object(kind, json, strlen(json), &o, NULL), -EINVAL);
}

static void check_addresses(const struct addr *a, size_t n, const char *want)
{
	char text[1024] = "", one[ADDR_TEXT_SIZE];

	for (size_t i = 0; i < n; i++) {
		strcat(text, i ? " " : "");
		strcat(text, addr_text(&a[i], one));
	}
	assert_string_equal(text, want);
}

#define NODE(rest) "{\"metadata\":{\"name\":\"n1\"}" rest "}"
#define SERVICE(spec) "{\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\"},\"spec\":{" spec "}}"
#define SLICE(rest)                                                                                          \
	"{\"metadata\":{\"name\":\"web-1\",\"namespace\":\"shop\",\"labels\":{\"kubernetes.io/"              \
	"service-name\":"                                                                                    \
	"\"web\"}}," rest "}"
#define IP "\"clusterIP\":\"10.96.0.1\""

static void test_node(void **state)
{
	struct object o = decode(OBJECT_NODE,
		"{\"metadata\":{\"name\":\"n1\",\"labels\":{\"slipstream/"
		"acceleration\":\"disabled\"},\"annotations\":{"
		"\"node.antrea.io/mac-address\":\"aa:bb\",\"node.antrea.io/"
		"transport-addresses\":\"192.0.2.9, "
		"2001:db8::9,192.0.2.9\"}},\"spec\":{\"podCIDR\":\"10.1.0.0/24\",\"podCIDRs\":[\"10.2.0.0/"
		"24\",\"fd00:2::/"
		"64\"]},\"status\":{\"addresses\":[{\"type\":\"Hostname\",\"address\":\"n1\"},{"
		"\"type\":\"InternalIP\",\"address\":\"192.0.2.1\"},{\"type\":\"InternalIP\",\"address\":"
		"\"2001:db8::"
		"1\"},{\"type\":\"ExternalIP\",\"address\":\"203.0.113.1\"},{\"type\":\"ExternalIP\","
		"\"address\":"
		"\"192.0.2.1\"},{\"type\":\"InternalDNS\",\"address\":\"n1.internal\"}]}}");
	char text[PREFIX_TEXT_SIZE];

	(void)state;
	assert_string_equal(object_name(&o), "n1");
	assert_string_equal(object_namespace(&o), "");
	assert_true(o.node.antrea);
	assert_true(o.node.acceleration_disabled);
	assert_int_equal(o.node.n_pod_cidrs, 2);
	assert_string_equal(prefix_text(&o.node.pod_cidrs[0], text), "10.2.0.0/24");
	assert_string_equal(prefix_text(&o.node.pod_cidrs[1], text), "fd00:2::/64");
	check_addresses(o.node.addresses, o.node.n_addresses, "192.0.2.1 2001:db8::1 203.0.113.1");
	check_addresses(o.node.transport_addresses, o.node.n_transport_addresses, "192.0.2.9 2001:db8::9");
	object_done(&o);

	o = decode(
		OBJECT_NODE, NODE(",\"spec\":{\"podCIDR\":\"10.1.0.5/24\",\"podCIDRs\":[]},\"status\":null"));
	assert_int_equal(o.node.n_pod_cidrs, 1);
	assert_string_equal(prefix_text(&o.node.pod_cidrs[0], text), "10.1.0.0/24");
	assert_false(o.node.antrea || o.node.acceleration_disabled);
	object_done(&o);

	/* A metadata watch has no spec; other values of the label and other annotations say nothing. */
	o = decode(OBJECT_NODE, "{\"metadata\":{\"name\":\"n1\",\"namespace\":\"x\",\"labels\":{\"slipstream/"
				"acceleration\":\"enabled\"},\"annotations\":{\"antrea.io/x\":\"\"}}}");
	assert_int_equal(o.node.n_pod_cidrs + o.node.n_addresses, 0);
	assert_string_equal(object_namespace(&o), "");
	assert_false(o.node.antrea || o.node.acceleration_disabled);
	object_done(&o);
}

static void test_service(void **state)
{
	struct object o = decode(OBJECT_SERVICE, "{\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\","
						 "\"annotations\":{\"slipstream/exclude\":\"true\"}},"
						 "\"spec\":{\"type\":\"LoadBalancer\",\"clusterIP\":\"10.96."
						 "0.1\",\"clusterIPs\":[\"10.96.0.1\",\"fd00::"
						 "1\"],\"externalIPs\":[\"203.0.113.9\",\"203.0.113.8\","
						 "\"203.0.113.9\"],\"externalTrafficPolicy\":"
						 "\"Local\",\"internalTrafficPolicy\":\"Cluster\",\"ports\":["
						 "{\"port\":80,\"nodePort\":30080},{"
						 "\"protocol\":\"UDP\",\"port\":53},{\"protocol\":\"SCTP\","
						 "\"port\":65535,\"nodePort\":null}]},\"status\":{"
						 "\"loadBalancer\":{\"ingress\":[{\"ip\":\"198.51.100.1\"},{"
						 "\"ip\":\"198.51.100.2\",\"ipMode\":\"Proxy\"},"
						 "{\"ip\":\"198.51.100.3\",\"ipMode\":\"VIP\"},{\"hostname\":"
						 "\"lb.example.com\"},{\"ip\":\"198.51.100.1\"}]"
						 "}}}");
	struct service *s = &o.service;

	(void)state;
	assert_string_equal(object_name(&o), "web");
	assert_string_equal(object_namespace(&o), "shop");
	check_addresses(s->cluster_ips, s->n_cluster_ips, "10.96.0.1 fd00::1");
	check_addresses(s->external_ips, s->n_external_ips, "203.0.113.9 203.0.113.8");
	check_addresses(s->load_balancer_ips, s->n_load_balancer_ips, "198.51.100.1 198.51.100.3");
	assert_true(s->excluded && s->external_local && !s->internal_local);
	assert_int_equal(s->n_ports, 3);
	assert_int_equal(s->ports[0].protocol, PROTOCOL_TCP);
	assert_int_equal(s->ports[0].port, 80);
	assert_int_equal(s->ports[0].node_port, 30080);
	assert_int_equal(s->ports[1].protocol, PROTOCOL_UDP);
	assert_int_equal(s->ports[1].node_port, 0);
	assert_int_equal(s->ports[2].protocol, PROTOCOL_SCTP);
	assert_int_equal(s->ports[2].port, 65535);
	object_done(&o);

	/* Old clusters have only clusterIP. */
	o = decode(OBJECT_SERVICE, SERVICE(IP ",\"internalTrafficPolicy\":\"Local\""));
	check_addresses(s->cluster_ips, s->n_cluster_ips, "10.96.0.1");
	assert_true(s->internal_local && !s->external_local && !s->excluded);
	object_done(&o);
	o = decode(OBJECT_SERVICE, SERVICE(IP ",\"clusterIPs\":[]"));
	check_addresses(s->cluster_ips, s->n_cluster_ips, "10.96.0.1");
	object_done(&o);
	o = decode(OBJECT_SERVICE,
		"{\"metadata\":{\"name\":\"a\",\"annotations\":{\"slipstream/exclude\":\"True\"}}}");
	assert_string_equal(object_namespace(&o), "default");
	assert_false(s->excluded);
	object_done(&o);
}

/* Nothing that a proxy on the node implements: no addresses, no ports. */
static void test_service_without_proxy(void **state)
{
	static const char *const json[] = {
		SERVICE("\"clusterIP\":\"None\",\"clusterIPs\":[\"None\"],\"externalIPs\":[\"1.2.3.4\"],"
			"\"ports\":[{\"port\":80}]"),
		SERVICE("\"clusterIP\":\"None\",\"ports\":[{\"port\":80}]"),
		SERVICE("\"clusterIP\":\"\",\"ports\":[{\"port\":80}]"),
		SERVICE("\"ports\":[{\"port\":80}]"),
		SERVICE("\"type\":\"ExternalName\",\"externalName\":\"a.example.com\",\"externalIPs\":[\"1.2."
			"3.4\"]"),
		"{\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\",\"labels\":{\"service.kubernetes.io/"
		"service-proxy-name\":\"x\"}},\"spec\":{\"clusterIP\":\"10.96.0.1\",\"ports\":[{\"port\":80}]"
		"},\"status\":{"
		"\"loadBalancer\":{\"ingress\":[{\"ip\":\"1.2.3.4\"}]}}}",
		"{\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\"}}",
		"{\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\"},\"spec\":null,\"status\":null}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(json); i++) {
		struct object o = decode(OBJECT_SERVICE, json[i]);
		struct service *s = &o.service;

		assert_int_equal(
			s->n_cluster_ips + s->n_external_ips + s->n_load_balancer_ips + s->n_ports, 0);
		assert_string_equal(s->name, "web");
		object_done(&o);
	}
}

static void test_slice(void **state)
{
	struct object o =
		decode(OBJECT_ENDPOINT_SLICE, SLICE("\"addressType\":\"IPv4\",\"endpoints\":[{\"addresses\":["
						    "\"10.0.0.1\"]},{\"addresses\":[\"10.0.0."
						    "2\"],\"conditions\":{}},{\"addresses\":[\"10.0.0.3\","
						    "\"10.0.0.4\"],\"conditions\":{\"ready\":false,"
						    "\"serving\":true,\"terminating\":true}},{\"addresses\":["
						    "\"10.0.0.5\"],\"conditions\":{\"ready\":"
						    "false}},{\"addresses\":[\"10.0.0.6\"],\"conditions\":{"
						    "\"ready\":null,\"terminating\":null}},{"
						    "\"addresses\":null},{}]"));
	/* ready, serving, terminating */
	static const char *const want[] = {"110", "110", "011", "011", "010", "110"};

	(void)state;
	assert_string_equal(o.slice.service, "web");
	assert_string_equal(object_name(&o), "web-1");
	assert_int_equal(o.slice.n_endpoints, 6);
	assert_int_equal(o.slice.n_udp_ports, 0);
	for (size_t i = 0; i < 6; i++) {
		struct endpoint *e = &o.slice.endpoints[i];
		char got[4], text[ADDR_TEXT_SIZE], address[16];

		snprintf(got, sizeof(got), "%d%d%d", e->ready, e->serving, e->terminating);
		assert_string_equal(got, want[i]);
		snprintf(address, sizeof(address), "10.0.0.%zu", i + 1);
		assert_string_equal(addr_text(&e->addr, text), address);
	}
	object_done(&o);

	o = decode(OBJECT_ENDPOINT_SLICE,
		SLICE("\"addressType\":\"IPv6\",\"endpoints\":[{\"addresses\":[\"fd00::1\"]}]"));
	assert_int_equal(o.slice.endpoints[0].addr.family, AF_INET6);
	object_done(&o);
	o = decode(
		OBJECT_ENDPOINT_SLICE, SLICE("\"addressType\":\"IPv6\",\"endpoints\":null,\"ports\":null"));
	assert_int_equal(o.slice.n_endpoints, 0);
	object_done(&o);
	o = decode(OBJECT_ENDPOINT_SLICE,
		SLICE("\"addressType\":\"FQDN\",\"endpoints\":[{\"addresses\":[\"a.example.com\"]}]"));
	assert_int_equal(o.slice.n_endpoints, 0);
	object_done(&o);
	o = decode(OBJECT_ENDPOINT_SLICE,
		"{\"metadata\":{\"name\":\"x\",\"namespace\":\"y\"},\"addressType\":\"IPv4\"}");
	assert_string_equal(o.slice.service, "");
	object_done(&o);
}

/* Of the ports those of UDP, each number once; one without a number is none. */
static void test_udp_ports(void **state)
{
	struct object o = decode(OBJECT_ENDPOINT_SLICE,
		SLICE("\"addressType\":\"IPv4\",\"endpoints\":[{\"addresses\":[\"10.0.0.1\"]}],\"ports\":["
		      "{\"name\":\"dns\",\"protocol\":\"UDP\",\"port\":5353},"
		      "{\"name\":\"dns-tcp\",\"protocol\":\"TCP\",\"port\":53},"
		      "{\"name\":\"web\",\"port\":80},{\"protocol\":\"SCTP\",\"port\":99},"
		      "{\"name\":\"all\",\"protocol\":\"UDP\",\"port\":null},{\"protocol\":\"UDP\"},"
		      "{\"name\":\"again\",\"protocol\":\"UDP\",\"port\":5353},"
		      "{\"name\":\"quic\",\"protocol\":\"UDP\",\"port\":443}]"));

	(void)state;
	assert_int_equal(o.slice.n_udp_ports, 2);
	assert_int_equal(o.slice.udp_ports[0], 5353);
	assert_int_equal(o.slice.udp_ports[1], 443);
	object_done(&o);
}

/* Servers without discovery.k8s.io/v1: a core/v1 Endpoints is one slice of its Service. */
static struct object endpoints(const char *json)
{
	struct json_object *root = json_tokener_parse(json);
	struct error err = {0};
	struct object o;

	assert_non_null(root);
	if (decode_endpoints(root, &o, &err))
		fail_msg("%s", error_text(&err));
	json_object_put(root);
	assert_int_equal(o.kind, OBJECT_ENDPOINT_SLICE);
	return o;
}

static void refuse_endpoints(const char *json, const char *object, const char *what)
{
	struct json_object *root = json_tokener_parse(json);
	struct error err = {0};
	struct object o, zero = {0};

	memset(&o, 0xff, sizeof(o));
	assert_int_equal(decode_endpoints(root, &o, &err), -EINVAL);
	assert_string_equal(err.object, object);
	assert_string_equal(err.what, what);
	assert_memory_equal(&o, &zero, sizeof(o));
	json_object_put(root);
}

#define ENDPOINTS(subsets) "{\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\"}" subsets "}"

static void test_endpoints(void **state)
{
	/* Two sets of ports: .2 is ready for one of them, .3 for none; both families. */
	struct object o = endpoints(ENDPOINTS(
		",\"subsets\":[{\"addresses\":[{\"ip\":\"10.0.0.9\",\"nodeName\":\"n1\"},{\"ip\":\"fd00::"
		"1\"}],\"notReadyAddresses\":[{\"ip\":\"10.0.0.2\"},{\"ip\":\"10.0.0.3\"}],\"ports\":["
		"{\"port\":53,\"protocol\":\"UDP\"},{\"port\":53,\"protocol\":\"TCP\"}]},"
		"{\"addresses\":[{\"ip\":\"10.0.0.2\"},{\"ip\":\"10.0.0.9\"}],\"notReadyAddresses\":null,"
		"\"ports\":[{\"port\":53,\"protocol\":\"UDP\"},{\"port\":54,\"protocol\":\"UDP\"}]},{"
		"\"ports\":"
		"null}]"));
	static const char *const want[] = {"10.0.0.2 110", "10.0.0.3 000", "10.0.0.9 110", "fd00::1 110"};
	struct cluster *c = cluster_new();
	static const char *const empty[] = {
		ENDPOINTS(""), ENDPOINTS(",\"subsets\":null"), ENDPOINTS(",\"subsets\":[]")};

	(void)state;
	assert_string_equal(object_namespace(&o), "shop");
	assert_string_equal(object_name(&o), "web");
	assert_string_equal(o.slice.service, "web");
	assert_int_equal(o.slice.n_endpoints, ARRAY_SIZE(want));
	assert_int_equal(o.slice.n_udp_ports, 2);
	assert_int_equal(o.slice.udp_ports[0], 53);
	assert_int_equal(o.slice.udp_ports[1], 54);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		struct endpoint *e = &o.slice.endpoints[i];
		char got[ADDR_TEXT_SIZE + 4], text[ADDR_TEXT_SIZE];

		snprintf(got, sizeof(got), "%s %d%d%d", addr_text(&e->addr, text), e->ready, e->serving,
			e->terminating);
		assert_string_equal(got, want[i]);
	}
	assert_true(decode_put(c, &o));
	assert_int_equal(cluster_ready_endpoints(c, "shop", "web"), 3);
	for (size_t i = 0; i < ARRAY_SIZE(empty); i++) {
		o = endpoints(empty[i]);
		assert_int_equal(decode_put(c, &o), i == 0);
		assert_int_equal(cluster_ready_endpoints(c, "shop", "web"), 0);
	}
	cluster_free(c);

	refuse_endpoints("{}", "an Endpoints", "metadata.name is missing");
	refuse_endpoints(
		ENDPOINTS(",\"subsets\":{}"), "Endpoints shop/web", "subsets is an object, not a list");
	refuse_endpoints(ENDPOINTS(",\"subsets\":[{\"addresses\":[{\"ip\":\"10.0.0.1\"}]},7]"),
		"Endpoints shop/web", "subsets[1] is a number, not an object");
	refuse_endpoints(ENDPOINTS(",\"subsets\":[{\"notReadyAddresses\":[{\"hostname\":\"a\"}]}]"),
		"Endpoints shop/web", "subsets[0].notReadyAddresses[0] \"\" is not an IP address");
	refuse_endpoints(ENDPOINTS(",\"subsets\":[{\"addresses\":[\"10.0.0.1\"]}]"), "Endpoints shop/web",
		"subsets[0].addresses[0] is a string, not an object");
}

static void test_refused(void **state)
{
	static const struct {
		enum object_kind kind;
		const char *json;
		const char *object;
		const char *what;
	} cases[] = {
		{OBJECT_SERVICE, SERVICE("\"ports\":[],\"clusterIP\":7"), "Service shop/web",
			"spec.clusterIP is a number, not a string (in YAML: put it in quotes)"},
		{OBJECT_SERVICE, SERVICE(IP ",\"ports\":{}"), "Service shop/web",
			"spec.ports is an object, not a list"},
		{OBJECT_SERVICE, SERVICE(IP ",\"ports\":[{\"port\":80},{\"port\":\"80\"}]"),
			"Service shop/web", "spec.ports[1].port is a string, not a number"},
		{OBJECT_SERVICE, SERVICE(IP ",\"ports\":[{\"port\":80.5}]"), "Service shop/web",
			"spec.ports[0].port is a fraction, not a number"},
		{OBJECT_SERVICE, SERVICE(IP ",\"ports\":[{\"port\":65536}]"), "Service shop/web",
			"spec.ports[0].port is 65536, not a port"},
		{OBJECT_SERVICE, SERVICE(IP ",\"ports\":[{\"port\":-1}]"), "Service shop/web",
			"spec.ports[0].port is -1, not a port"},
		{OBJECT_SERVICE, SERVICE(IP ",\"ports\":[{\"port\":99999999999999999999}]"),
			"Service shop/web", "spec.ports[0].port is 9223372036854775807, not a port"},
		{OBJECT_SERVICE, SERVICE(IP ",\"ports\":[{}]"), "Service shop/web",
			"spec.ports[0].port is missing or 0"},
		{OBJECT_SERVICE, SERVICE(IP ",\"ports\":[null]"), "Service shop/web",
			"spec.ports[0] is null, not an object"},
		{OBJECT_SERVICE, SERVICE(IP ",\"ports\":[{\"port\":1,\"nodePort\":70000}]"),
			"Service shop/web", "spec.ports[0].nodePort is 70000, not a port"},
		{OBJECT_SERVICE, SERVICE(IP ",\"ports\":[{\"port\":1,\"protocol\":\"T\\nP\"}]"),
			"Service shop/web", "spec.ports[0].protocol is \"T?P\", not TCP, UDP or SCTP"},
		{OBJECT_SERVICE, SERVICE("\"clusterIP\":\"010.96.0.1\""), "Service shop/web",
			"spec.clusterIP \"010.96.0.1\" is not an IP address"},
		{OBJECT_SERVICE, SERVICE("\"clusterIP\":\"::ffff:10.0.0.1\""), "Service shop/web",
			"spec.clusterIP \"::ffff:10.0.0.1\" is an IPv4 address in IPv6 clothes: write it as "
			"IPv4"},
		{OBJECT_SERVICE, SERVICE("\"clusterIP\":\"fe80::1%eth0\""), "Service shop/web",
			"spec.clusterIP \"fe80::1%eth0\" is not an IP address"},
		{OBJECT_SERVICE, SERVICE("\"clusterIP\":\"10.0.0.1\\u0000\""), "Service shop/web",
			"spec.clusterIP has a NUL character in it"},
		{OBJECT_SERVICE, SERVICE(IP ",\"externalIPs\":[\"1.2.3.4\",\"\"]"), "Service shop/web",
			"spec.externalIPs[1] \"\" is not an IP address"},
		{OBJECT_SERVICE,
			"{\"metadata\":{\"name\":\"w\",\"annotations\":{\"slipstream/exclude\":true}}}",
			"Service default/w",
			"metadata.annotations[slipstream/exclude] is a boolean, not a string (in YAML: put "
			"it in quotes)"},
		{OBJECT_SERVICE, "{\"metadata\":{\"namespace\":\"a\"}}", "a Service",
			"metadata.name is missing"},
		{OBJECT_SERVICE, "{\"metadata\":{\"name\":\"\"}}", "a Service",
			"metadata.name is not a name"},
		{OBJECT_SERVICE, "{\"metadata\":{\"name\":\"a/b\"}}", "a Service",
			"metadata.name is not a name"},
		{OBJECT_SERVICE, "{\"metadata\":{\"name\":\"a\\nb\"}}", "a Service",
			"metadata.name is not a name"},
		{OBJECT_SERVICE, "{\"metadata\":{\"name\":\"a\",\"namespace\":\"b c\"}}", "a Service",
			"metadata.namespace is not a name"},
		{OBJECT_SERVICE, "{\"metadata\":[]}", "a Service", "metadata is a list, not an object"},
		{OBJECT_SERVICE, "{}", "a Service", "metadata.name is missing"},
		{OBJECT_SERVICE, "[]", "a Service", "the whole is a list, not an object"},
		{OBJECT_SERVICE, "{\"metadata\":", "a Service",
			"is not JSON: a value was expected at byte 12"},
		{OBJECT_SERVICE, "", "a Service", "is not JSON: a value was expected at byte 0"},
		{OBJECT_NODE, NODE(",\"spec\":{\"podCIDR\":\"10.0.0.0\"}"), "Node n1",
			"spec.podCIDR \"10.0.0.0\" is not a CIDR"},
		{OBJECT_NODE, NODE(",\"spec\":{\"podCIDRs\":[\"10.0.0.0/24\",\"10.0.0.0/33\"]}"), "Node n1",
			"spec.podCIDRs[1] \"10.0.0.0/33\" is not a CIDR"},
		{OBJECT_NODE, NODE(",\"status\":{\"addresses\":[{\"type\":\"InternalIP\"}]}"), "Node n1",
			"status.addresses[0] \"\" is not an IP address"},
		{OBJECT_NODE,
			"{\"metadata\":{\"name\":\"n1\",\"annotations\":{\"node.antrea.io/"
			"transport-addresses\":\"1.2.3.4;5\"}}}",
			"Node n1",
			"metadata.annotations[node.antrea.io/transport-addresses] \"1.2.3.4;5\" is not an IP "
			"address"},
		{OBJECT_ENDPOINT_SLICE, SLICE("\"endpoints\":[]"), "EndpointSlice shop/web-1",
			"addressType is missing, not IPv4, IPv6 or FQDN"},
		{OBJECT_ENDPOINT_SLICE, SLICE("\"addressType\":\"ipv4\""), "EndpointSlice shop/web-1",
			"addressType is \"ipv4\", not IPv4, IPv6 or FQDN"},
		{OBJECT_ENDPOINT_SLICE,
			SLICE("\"addressType\":\"IPv4\",\"endpoints\":[{\"addresses\":[\"fd00::1\"]}]"),
			"EndpointSlice shop/web-1",
			"endpoints[0].addresses \"fd00::1\" is not of the slice's addressType"},
		{OBJECT_ENDPOINT_SLICE,
			SLICE("\"addressType\":\"IPv4\",\"endpoints\":[{\"conditions\":{\"ready\":\"true\"}}"
			      "]"),
			"EndpointSlice shop/web-1",
			"endpoints[0].conditions.ready is a string, not a boolean"},
		{OBJECT_ENDPOINT_SLICE,
			SLICE("\"addressType\":\"IPv4\",\"ports\":[{\"protocol\":\"UDP\",\"port\":65536}]"),
			"EndpointSlice shop/web-1", "ports[0].port is 65536, not a port"},
		{OBJECT_ENDPOINT_SLICE, SLICE("\"addressType\":\"IPv4\",\"ports\":[{\"protocol\":17}]"),
			"EndpointSlice shop/web-1",
			"ports[0].protocol is a number, not a string (in YAML: put it in quotes)"},
		{OBJECT_ENDPOINT_SLICE, SLICE("\"addressType\":\"IPv4\",\"ports\":{}"),
			"EndpointSlice shop/web-1", "ports is an object, not a list"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		refuse(cases[i].kind, cases[i].json, cases[i].object, cases[i].what);
}

static void test_many_addresses(void **state)
{
	struct json_object *list = json_object_new_array(), *spec = json_object_new_object(),
			   *metadata = json_object_new_object(), *service = json_object_new_object();
	struct error err = {0};
	struct object o;

	(void)state;
	for (unsigned i = 0; i < 5000; i++) {
		char ip[24];

		snprintf(ip, sizeof(ip), "10.1.%u.%u", i >> 8, i & 255);
		json_object_array_add(list, json_object_new_string(ip));
	}
	json_object_object_add(spec, "clusterIP", json_object_new_string("10.0.0.1"));
	json_object_object_add(spec, "externalIPs", list);
	json_object_object_add(metadata, "name", json_object_new_string("a"));
	json_object_object_add(service, "metadata", metadata);
	json_object_object_add(service, "spec", spec);
	assert_int_equal(decode_json(OBJECT_SERVICE, service, &o, &err), -EINVAL);
	assert_string_equal(err.what, "spec.externalIPs[4096] is one of more than 4096 addresses");
	json_object_put(service);
}

/* From the bytes of a real server to the replica. */
struct load {
	struct cluster *cluster;
	enum object_kind kind;
};

static int put_item(void *arg, const char *json, size_t len)
{
	struct load *l = arg;
	struct error err = {0};
	struct object o;

	if (decode_object(l->kind, json, len, &o, &err))
		fail_msg("%s", error_text(&err));
	assert_true(decode_put(l->cluster, &o));
	return 0;
}

static struct cluster *load(const char *name, enum object_kind kind)
{
	struct load l = {.cluster = cluster_new(), .kind = kind};
	struct json_split_callbacks cb = {.item = put_item, .arg = &l};
	struct json_split *s = json_split_new(JSON_SPLIT_LIST, 1 << 20, &cb);
	size_t len;
	CLEANUP_FREE char *text = body_read(name, &len);

	assert_non_null(text);
	assert_int_equal(json_split_feed(s, text, len, NULL), 0);
	assert_int_equal(json_split_end(s, NULL), 0);
	json_split_free(s);
	return l.cluster;
}

static void test_real_objects(void **state)
{
	struct cluster *c = load("odd-services-list", OBJECT_SERVICE);
	const struct service *s;

	(void)state;
	assert_int_equal(cluster_count(c, OBJECT_SERVICE), 6);
	s = cluster_next_service(c, NULL);
	assert_string_equal(s->name, "odd-escapes");
	check_addresses(s->cluster_ips, s->n_cluster_ips, "10.97.125.80");
	s = cluster_next_service(c, s);
	assert_string_equal(s->name, "odd-externalname");
	assert_int_equal(s->n_cluster_ips, 0);
	s = cluster_next_service(c, cluster_next_service(c, cluster_next_service(c, s)));
	assert_string_equal(s->name, "odd-ranges");
	assert_true(s->external_local && s->internal_local);
	s = cluster_next_service(c, s);
	assert_string_equal(s->name, "odd-tcpudp");
	assert_int_equal(s->n_ports, 2);
	assert_int_equal(s->ports[1].protocol, PROTOCOL_UDP);
	cluster_free(c);

	c = load("odd-endpointslices-list", OBJECT_ENDPOINT_SLICE);
	assert_int_equal(cluster_count(c, OBJECT_ENDPOINT_SLICE), 6);
	/* .1 and .4 and the v6 one have no condition, .2 and .3 are terminating. */
	assert_int_equal(cluster_ready_endpoints(c, "odd", "odd"), 3);
	cluster_free(c);

	c = load("list-services", OBJECT_SERVICE);
	assert_true(cluster_count(c, OBJECT_SERVICE) > 5);
	for (s = cluster_next_service(c, NULL); s; s = cluster_next_service(c, s)) {
		assert_true(s->n_cluster_ips > 0);
		assert_true(s->n_ports > 0);
	}
	cluster_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_node),
		cmocka_unit_test(test_service),
		cmocka_unit_test(test_service_without_proxy),
		cmocka_unit_test(test_slice),
		cmocka_unit_test(test_udp_ports),
		cmocka_unit_test(test_endpoints),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_many_addresses),
		cmocka_unit_test(test_real_objects),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
