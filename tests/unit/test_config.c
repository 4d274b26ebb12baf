/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "base/strbuf.h"
#include "controller/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char head[] = "apiVersion: slipstream/v1alpha1\nkind: Configuration\n";

static int parse(const char *text, struct config *ret, struct string_list *warnings, struct error *err)
{
	memset(err, 0, sizeof(*err));
	return config_parse("c.yaml", text, strlen(text), ret, warnings, err);
}

/* What is refused leaves nothing behind, names its place, and says what is allowed. */
static void refused(const char *text, unsigned line, const char *object, const char *what, const char *mend)
{
	struct config c;
	struct error err;
	char where[32];
	static const struct config zero;

	memset(&c, 0xa5, sizeof(c));
	if (parse(text, &c, NULL, &err) != -EINVAL)
		fail_msg("accepted: %s", text);
	assert_memory_equal(&c, &zero, sizeof(c));
	snprintf(where, sizeof(where), "c.yaml:%u", line);
	assert_string_equal(err.where, where);
	if (object)
		assert_string_equal(err.object, object);
	if (!strstr(err.what, what) || !strstr(err.mend, mend))
		fail_msg("\"%s\" without \"%s\" or \"%s\"", error_text(&err), what, mend);
}

static void test_defaults(void **state)
{
	static const char *const texts[] = {
		"", "# nothing\n", head, "cluster:\ntraffic: {}\ninterfaces: {pods: }\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct config c;
		struct error err;

		if (parse(texts[i], &c, NULL, &err))
			fail_msg("%s", error_text(&err));
		assert_true(c.enabled);
		assert_true(c.accounting);
		assert_false(c.hardware_offload);
		assert_false(c.use_bad_kernel);
		assert_false(c.cleanup_on_exit);
		assert_int_equal(c.cluster, CLUSTER_AUTO);
		for (int t = 0; t < TRAFFIC_TYPES; t++)
			assert_int_equal(c.engines[t], ENGINE_AUTO);
		assert_int_equal(c.endpoints, ENDPOINTS_AUTO);
		assert_false(c.watchlist);
		assert_string_equal(c.listen_host, "127.0.0.1");
		assert_int_equal(c.listen_port, 19500);
		assert_int_equal(c.log_level, LOG_LEVEL_INFO);
		assert_int_equal(c.log_format, LOG_FORMAT_TEXT);
		assert_int_equal(c.local_pod_cidrs.n + c.remote_pod_cidrs.n + c.exclude_cidrs.n, 0);
		assert_int_equal(c.uplinks.n + c.pods.n + c.exclude_interfaces.n, 0);
		config_done(&c);
	}
}

static void test_every_key(void **state)
{
	static const char text[] =
		"enabled: false\n"
		"cluster:\n"
		"  kind: kube-proxy\n"
		"  localPodCIDRs: [10.244.0.0/24, 'fd00::/64']\n"
		"  remotePodCIDRs:\n"
		"  - 10.244.0.0/16\n"
		"traffic:\n"
		"  pod-to-pod: {engine: flowtable}\n"
		"  pod-to-service: {engine: off}\n"
		"  external-to-loadbalancer: {engine: 'off'}\n"
		"  external-to-externalip: {engine: auto}\n"
		"  external-to-nodeport: {engine: flowtable}\n"
		"  external-to-service: {engine: off}\n"
		"  node-to-pod: {engine: flowtable}\n"
		"  pod-to-external: {engine: false}\n"
		"  other: {engine: off}\n"
		"interfaces: {uplinks: [eth0, 'bond*'], pods: ['veth*'], exclude: [docker0]}\n"
		"exclude: {cidrs: [192.0.2.0/24]}\n"
		"flowtable: {hardwareOffload: auto, knownBadKernel: use, policyChange: ignore, accounting: "
		"off}\n"
		"redirect: {via: nft, preference: 40010}\n"
		"kubernetes: {endpoints: endpoints, initialList: watchlist}\n"
		"listen: '[::1]:0'\n"
		"onExit: cleanup\n"
		"log: {level: debug, format: json}\n";
	static const enum engine engines[TRAFFIC_TYPES] = {ENGINE_FLOWTABLE, ENGINE_OFF, ENGINE_OFF,
		ENGINE_AUTO, ENGINE_FLOWTABLE, ENGINE_OFF, ENGINE_FLOWTABLE, ENGINE_OFF, ENGINE_OFF};
	struct string_list warnings = {0};
	struct config c;
	struct error err;
	char cidr[PREFIX_TEXT_SIZE];

	(void)state;
	if (parse(text, &c, &warnings, &err))
		fail_msg("%s", error_text(&err));
	assert_int_equal(warnings.n, 0);
	assert_false(c.enabled);
	assert_int_equal(c.cluster, CLUSTER_KUBE_PROXY);
	assert_int_equal(c.local_pod_cidrs.n, 2);
	assert_string_equal(prefix_text(&c.local_pod_cidrs.items[1], cidr), "fd00::/64");
	assert_int_equal(c.remote_pod_cidrs.n, 1);
	assert_memory_equal(c.engines, engines, sizeof(engines));
	assert_int_equal(c.uplinks.n, 2);
	assert_string_equal(c.uplinks.items[1], "bond*");
	assert_string_equal(c.pods.items[0], "veth*");
	assert_string_equal(c.exclude_interfaces.items[0], "docker0");
	assert_string_equal(prefix_text(&c.exclude_cidrs.items[0], cidr), "192.0.2.0/24");
	assert_false(c.accounting);
	assert_true(c.hardware_offload);
	assert_true(c.use_bad_kernel);
	assert_int_equal(c.endpoints, ENDPOINTS_ENDPOINTS);
	assert_true(c.watchlist);
	assert_string_equal(c.listen_host, "::1");
	assert_int_equal(c.listen_port, 0);
	assert_true(c.cleanup_on_exit);
	assert_int_equal(c.log_level, LOG_LEVEL_DEBUG);
	assert_int_equal(c.log_format, LOG_FORMAT_JSON);
	config_done(&c);
}

static void test_refused_keys(void **state)
{
	(void)state;
	refused("enabled: true\ncolour: red\n", 2, "colour", "no such key",
		"allowed: apiVersion, kind, enabled, cluster, traffic, interfaces, exclude, flowtable, "
		"redirect, "
		"kubernetes, listen, onExit, log");
	refused("cluster:\n  kind: auto\n  podCIDRs: []\n", 3, "cluster.podCIDRs", "no such key",
		"allowed: kind, localPodCIDRs, remotePodCIDRs");
	refused("traffic:\n  pod-to-moon: {engine: off}\n", 2, "traffic.pod-to-moon", "no such key",
		"pod-to-pod, pod-to-service");
	refused("traffic:\n  pod-to-pod:\n    engines: off\n", 3, "traffic.pod-to-pod.engines", "no such key",
		"allowed: engine");
	refused("cluster.kind: antrea\n", 1, "cluster.kind", "no such key", "cluster");
	refused("enabled: true\nenabled: false\n", 2, NULL, "", "");
	refused("cluster: antrea\n", 1, "cluster", "not a mapping", "");
	refused("- a\n", 1, NULL, "not a mapping", "");
	refused("enabled: true\n---\nenabled: true\n", 3, NULL, "second document", "one document");
}

static void test_refused_values(void **state)
{
	(void)state;
	refused("apiVersion: slipstream/v1\n", 1, "apiVersion", "slipstream/v1", "slipstream/v1alpha1");
	refused("kind: Config\n", 1, "kind", "Config", "Configuration");
	refused("enabled: yes\n", 1, "enabled", "\"yes\"", "allowed: false, true");
	refused("enabled: off\n", 1, "enabled", "\"off\"", "allowed: false, true");
	refused("enabled: [true]\n", 1, "enabled", "a list", "allowed: false, true");
	refused("enabled:\n", 1, "enabled", "null", "allowed: false, true");
	refused("cluster:\n  kind: cilium\n", 2, "cluster.kind", "\"cilium\"",
		"allowed: auto, antrea, kube-proxy");
	refused("cluster:\n  kind: false\n", 2, "cluster.kind", "\"false\"", "allowed: auto");
	refused("cluster:\n  localPodCIDRs:\n  - 10.0.0.0/8\n  - 10.0.0.1\n", 4, "cluster.localPodCIDRs",
		"\"10.0.0.1\" is not a CIDR", "a list of CIDRs");
	refused("exclude: {cidrs: 10.0.0.0/8}\n", 1, "exclude.cidrs", "not a list", "a list of CIDRs");
	refused("exclude: {cidrs: [[10.0.0.0/8]]}\n", 1, "exclude.cidrs", "not one word", "a list of CIDRs");
	refused("interfaces: {uplinks: [eth0, '']}\n", 1, "interfaces.uplinks", "empty item", "");
	refused("listen: 127.0.0.1\n", 1, "listen", "127.0.0.1", "ADDRESS:PORT");
	refused("listen: localhost:19500\n", 1, "listen", "localhost", "ADDRESS:PORT");
	refused("listen: ::1:19500\n", 1, "listen", "::1", "[::]");
	refused("listen: node\n", 1, "listen", "node", "node:19500");
	refused("listen: '[node]:19500'\n", 1, "listen", "[node]", "ADDRESS:PORT");
	refused("listen: '[127.0.0.1]:19500'\n", 1, "listen", "", "ADDRESS:PORT");
	refused("listen: 127.0.0.1:65536\n", 1, "listen", "65536", "ADDRESS:PORT");
	refused("listen: 127.0.0.1:+1\n", 1, "listen", "+1", "ADDRESS:PORT");
	refused("log:\n  level: loud\n", 2, "log.level", "loud", "allowed: error, warning, info, debug");
	refused("onExit: \"clean\\nup\"\n", 1, "onExit", "clean?up", "allowed: keep, cleanup");
}

static void test_kubernetes(void **state)
{
	(void)state;
	refused("kubernetes: {initialList: list}\n", 1, "kubernetes.initialList", "\"list\" is not a value",
		"allowed: gzip, watchlist");
	refused("kubernetes: {endpoints: pods}\n", 1, "kubernetes.endpoints", "\"pods\" is not a value",
		"allowed: auto, slices, endpoints, off");
}

static void test_listen_on_the_node(void **state)
{
	struct config c;
	struct error err = {0};

	(void)state;
	assert_int_equal(parse("listen: node:19501\n", &c, NULL, &err), 0);
	assert_string_equal(c.listen_host, CONFIG_LISTEN_NODE);
	assert_int_equal(c.listen_port, 19501);
	config_done(&c);
}

static void test_not_in_this_version(void **state)
{
	(void)state;
	refused("traffic:\n  pod-to-pod:\n    engine: redirect\n", 3, "traffic.pod-to-pod.engine",
		"redirect is not supported by this version", "allowed: auto, flowtable, off");
	refused("flowtable: {hardwareOffload: on}\n", 1, "flowtable.hardwareOffload", "on", "off, auto");
	refused("flowtable: {knownBadKernel: ignore}\n", 1, "flowtable.knownBadKernel", "ignore",
		"refuse, use");
	refused("flowtable: {policyChange: reevaluate}\n", 1, "flowtable.policyChange",
		"not supported by this version", "ignore");
	refused("redirect: {via: tc}\n", 1, "redirect.via", "not supported by this version", "nft");
	refused("redirect: {preference: 1}\n", 1, "redirect.preference", "not supported by this version",
		"40010");
}

static void test_warnings(void **state)
{
	struct string_list warnings = {0};
	struct config c;
	struct error err;

	(void)state;
	assert_int_equal(parse("exclude:\n  cidrs:\n  - 10.0.0.0/8\n  - 10.1.2.3/16\n  - 192.0.2.0/24\n", &c,
				 &warnings, &err),
		0);
	assert_int_equal(warnings.n, 2);
	assert_string_equal(warnings.items[0],
		"c.yaml:4: exclude.cidrs: 10.1.2.3/16 has host bits set and is taken as 10.1.0.0/16");
	assert_string_equal(
		warnings.items[1], "c.yaml:4: exclude.cidrs: 10.1.0.0/16 is already in 10.0.0.0/8 of line 3");
	string_list_done(&warnings);
	config_done(&c);
}

static void test_limits(void **state)
{
	struct strbuf b = {0};

	(void)state;
	strbuf_puts(&b, "exclude:\n  cidrs:\n");
	for (unsigned i = 0; i < 5000; i++)
		strbuf_printf(&b, "  - 10.%u.%u.0/24\n", i / 256, i % 256);
	refused(b.data, 3, "exclude.cidrs", "more than 4096", "shorten");
	strbuf_clear(&b);
	strbuf_printf(&b, "interfaces: {pods: [%0300d]}\n", 0);
	refused(b.data, 1, "interfaces.pods", "longer than 255", "");
	strbuf_done(&b);
}

static void test_load(void **state)
{
	char path[] = "/tmp/config-XXXXXX";
	int fd = mkstemp(path);
	struct config c;
	struct error err = {0};
	char where[64];

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "onExit: cleanup\n", 16), 16);
	assert_int_equal(config_load(path, &c, NULL, &err), 0);
	assert_true(c.cleanup_on_exit);
	config_done(&c);
	assert_int_equal(write(fd, "listen: 1\n", 10), 10);
	close(fd);
	assert_int_equal(config_load(path, &c, NULL, &err), -EINVAL);
	snprintf(where, sizeof(where), "%s:2", path);
	assert_string_equal(err.where, where);
	assert_null(c.listen_host);
	unlink(path);
	assert_int_equal(config_load(path, &c, NULL, &err), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_key),
		cmocka_unit_test(test_refused_keys),
		cmocka_unit_test(test_refused_values),
		cmocka_unit_test(test_kubernetes),
		cmocka_unit_test(test_listen_on_the_node),
		cmocka_unit_test(test_not_in_this_version),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
