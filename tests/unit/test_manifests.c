/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "base/strbuf.h"
#include "k8s/source.h"
#include "k8s/yaml_json.h"

#include <errno.h>
#include <event2/event.h>
#include <ftw.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A folder, a loop, a replica, and what the source said. */
struct world {
	char folder[64];
	struct event_base *base;
	struct cluster *cluster;
	struct source *source;
	unsigned changes;
	unsigned problems;
	char last_problem[1400];
};

static void on_changed(void *arg)
{
	((struct world *)arg)->changes++;
}

static void on_problem(void *arg, const struct error *err)
{
	struct world *w = arg;

	w->problems++;
	snprintf(w->last_problem, sizeof(w->last_problem), "%s", error_text(err));
}

static void write_at(struct world *w, const char *name, const char *text)
{
	CLEANUP_FREE char *path = xasprintf("%s/%s", w->folder, name);
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void move(struct world *w, const char *from, const char *to)
{
	CLEANUP_FREE char *a = xasprintf("%s/%s", w->folder, from), *b = xasprintf("%s/%s", w->folder, to);

	assert_int_equal(rename(a, b), 0);
}

static void delete_at(struct world *w, const char *name)
{
	CLEANUP_FREE char *path = xasprintf("%s/%s", w->folder, name);

	assert_int_equal(unlink(path), 0);
}

static void link_at(struct world *w, const char *target, const char *name)
{
	CLEANUP_FREE char *path = xasprintf("%s/%s", w->folder, name);

	assert_int_equal(symlink(target, path), 0);
}

static void folder_at(struct world *w, const char *name)
{
	CLEANUP_FREE char *path = xasprintf("%s/%s", w->folder, name);

	assert_int_equal(mkdir(path, 0755), 0);
}

static void world_open(struct world *w)
{
	memset(w, 0, sizeof(*w));
	strcpy(w->folder, "/tmp/test_manifests.XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	w->base = event_base_new();
	w->cluster = cluster_new();
}

static void world_start(struct world *w, const char *name)
{
	struct source_callbacks cb = {.changed = on_changed, .problem = on_problem, .arg = w};
	CLEANUP_FREE char *path = name ? xasprintf("%s/%s", w->folder, name) : xstrdup(w->folder);
	struct error err = {0};

	if (manifest_source_new(w->base, w->cluster, path, &cb, &w->source, &err))
		fail_msg("%s", error_text(&err));
	/* Nothing happens before the loop runs. */
	assert_int_equal(w->changes + w->problems, 0);
	assert_int_equal(cluster_generation(w->cluster), 0);
	event_base_loop(w->base, EVLOOP_ONCE);
}

static uint64_t loads(const struct world *w)
{
	struct source_status s;

	source_status(w->source, &s);
	return s.resources[OBJECT_NODE].lists;
}

static void stop_waiting(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	*(bool *)arg = true;
}

/* Runs the loop until one more load is done, at most five seconds: half of what a lost event would take. */
static bool wait_load(struct world *w)
{
	uint64_t before = loads(w);
	struct timeval limit = {.tv_sec = 5};
	bool late = false;
	struct event *timer = evtimer_new(w->base, stop_waiting, &late);

	evtimer_add(timer, &limit);
	while (loads(w) == before && !late)
		event_base_loop(w->base, EVLOOP_ONCE);
	event_free(timer);
	return !late;
}

/* Nothing that the source reads has happened: no load within a quarter of a second. */
static void expect_quiet(struct world *w)
{
	uint64_t before = loads(w);
	struct timeval limit = {.tv_usec = 250000};
	bool late = false;
	struct event *timer = evtimer_new(w->base, stop_waiting, &late);

	evtimer_add(timer, &limit);
	while (!late)
		event_base_loop(w->base, EVLOOP_ONCE);
	event_free(timer);
	assert_int_equal(loads(w), before);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void world_close(struct world *w)
{
	source_free(w->source);
	cluster_free(w->cluster);
	event_base_free(w->base);
	nftw(w->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#define NODE(name, cidr)                                                                                     \
	"apiVersion: v1\nkind: Node\nmetadata:\n  name: " name "\nspec:\n  podCIDR: " cidr "\n"
#define SERVICE(name, ip)                                                                                    \
	"apiVersion: v1\nkind: Service\nmetadata:\n  name: " name                                            \
	"\n  namespace: shop\nspec:\n  clusterIP: " ip "\n  ports:\n  - port: 80\n"
#define SLICE                                                                                                \
	"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  namespace: "      \
	"shop\n  labels:\n"                                                                                  \
	"    kubernetes.io/service-name: web\naddressType: IPv4\nendpoints:\n- addresses: [10.0.0.1]\n"

static const char *ip_of(const struct world *w, const char *name)
{
	static char text[ADDR_TEXT_SIZE];

	for (const struct service *s = cluster_next_service(w->cluster, NULL); s;
		s = cluster_next_service(w->cluster, s))
		if (!strcmp(s->name, name))
			return addr_text(&s->cluster_ips[0], text);
	return "absent";
}

static void test_folder(void **state)
{
	struct world w;
	struct source_status s;

	(void)state;
	world_open(&w);
	write_at(&w, "a.yaml", "---\n" NODE("n1", "10.0.1.0/24") "---\n" SERVICE("web", "10.96.0.1"));
	write_at(&w, "b.json",
		"{\"kind\":\"Node\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"n2\"},\"spec\":{"
		"\"podCIDR\":\"10.0.2.0/"
		"24\"}}");
	write_at(&w, "c.yml", SLICE);
	write_at(&w, "d.txt", "not ours: [");
	write_at(&w, ".hidden.yaml", "not ours: [");
	folder_at(&w, "sub.yaml");
	world_start(&w, NULL);
	if (w.problems)
		fail_msg("%s", w.last_problem);
	assert_int_equal(w.changes, 1);
	assert_true(cluster_all_synced(w.cluster));
	assert_int_equal(cluster_count(w.cluster, OBJECT_NODE), 2);
	assert_int_equal(cluster_ready_endpoints(w.cluster, "shop", "web"), 1);
	assert_string_equal(ip_of(&w, "web"), "10.96.0.1");
	source_status(w.source, &s);
	assert_string_equal(s.kind, "manifests");
	assert_string_equal(s.location, w.folder);
	assert_true(s.resources[OBJECT_SERVICE].watched && s.resources[OBJECT_SERVICE].synced);
	assert_int_equal(s.resources[OBJECT_NODE].events, 2);
	assert_true(s.resources[OBJECT_NODE].last_event > 1e9);
	assert_true(s.bytes_received > 100);
	assert_string_equal(s.resources[OBJECT_NODE].problem, "");

	/* A file more, one changed, one gone: each is one change. */
	write_at(&w, "e.yaml", SERVICE("db", "10.96.0.2"));
	assert_true(wait_load(&w));
	assert_int_equal(w.changes, 2);
	assert_string_equal(ip_of(&w, "db"), "10.96.0.2");
	write_at(&w, "e.new", SERVICE("db", "10.96.0.3"));
	expect_quiet(&w);
	move(&w, "e.new", "e.yaml");
	assert_true(wait_load(&w));
	assert_int_equal(w.changes, 3);
	assert_string_equal(ip_of(&w, "db"), "10.96.0.3");
	delete_at(&w, "e.yaml");
	assert_true(wait_load(&w));
	assert_int_equal(w.changes, 4);
	assert_string_equal(ip_of(&w, "db"), "absent");
	assert_string_equal(ip_of(&w, "web"), "10.96.0.1");
	/* The same again changes nothing. */
	write_at(&w, "c.yml", SLICE);
	assert_true(wait_load(&w));
	assert_int_equal(w.changes, 4);
	assert_int_equal(w.problems, 0);
	world_close(&w);
}

static void test_lists(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	write_at(&w, "all.yaml",
		"apiVersion: v1\nkind: List\nitems:\n"
		"- {apiVersion: v1, kind: Node, metadata: {name: n1}}\n"
		"- {apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: "
		"10.96.0.1}}\n"
		"- {apiVersion: v1, kind: List, items: null}\n"
		"---\n"
		"{apiVersion: v1, kind: NodeList, items: [{metadata: {name: n2}}, {metadata: {name: n3}}]}\n"
		"---\n"
		"{apiVersion: v1, kind: ServiceList, items: [{metadata: {name: db, namespace: shop}, spec: "
		"{clusterIP: "
		"10.96.0.2}}]}\n"
		"---\n"
		"{apiVersion: discovery.k8s.io/v1, kind: EndpointSliceList, items: [{metadata: {name: s}, "
		"addressType: "
		"IPv6, endpoints: [{addresses: ['fd00::1']}]}]}\n");
	world_start(&w, "all.yaml");
	if (w.problems)
		fail_msg("%s", w.last_problem);
	assert_int_equal(cluster_count(w.cluster, OBJECT_NODE), 3);
	assert_int_equal(cluster_count(w.cluster, OBJECT_SERVICE), 2);
	assert_int_equal(cluster_count(w.cluster, OBJECT_ENDPOINT_SLICE), 1);
	world_close(&w);
}

static void test_bad_file_keeps(void **state)
{
	struct world w;
	struct source_status s;
	char want[256];

	(void)state;
	world_open(&w);
	write_at(&w, "a.yaml", SERVICE("web", "10.96.0.1"));
	write_at(&w, "b.yaml", SERVICE("db", "10.96.0.2"));
	world_start(&w, NULL);
	write_at(&w, "a.yaml", SERVICE("web", "10.96.0.9") "broken: [1\n");
	assert_true(wait_load(&w));
	assert_int_equal(w.problems, 1);
	snprintf(want, sizeof(want), "%s/a.yaml:11: while parsing a flow sequence", w.folder);
	assert_memory_equal(w.last_problem, want, strlen(want));
	assert_string_equal(ip_of(&w, "web"), "10.96.0.1");
	source_status(w.source, &s);
	assert_int_equal(s.failures[SOURCE_FAILURE_FILE], 1);
	assert_string_equal(s.resources[OBJECT_SERVICE].problem, w.last_problem);
	/* Others go on, deletions included; the same problem is not said twice. */
	delete_at(&w, "b.yaml");
	assert_true(wait_load(&w));
	assert_string_equal(ip_of(&w, "db"), "absent");
	assert_string_equal(ip_of(&w, "web"), "10.96.0.1");
	assert_int_equal(w.problems, 1);
	/* Empty is what a file is while the shell begins to write it. */
	write_at(&w, "a.yaml", "");
	assert_true(wait_load(&w));
	assert_int_equal(w.problems, 2);
	assert_string_equal(ip_of(&w, "web"), "10.96.0.1");
	/* Mended. */
	write_at(&w, "a.yaml", SERVICE("web", "10.96.0.9"));
	assert_true(wait_load(&w));
	assert_int_equal(w.problems, 2);
	assert_string_equal(ip_of(&w, "web"), "10.96.0.9");
	source_status(w.source, &s);
	assert_string_equal(s.resources[OBJECT_SERVICE].problem, "");
	/* An object that moves out of a broken file. */
	write_at(&w, "a.yaml", "- [");
	write_at(&w, "b.yaml", SERVICE("web", "10.96.0.10"));
	assert_true(wait_load(&w));
	assert_string_equal(ip_of(&w, "web"), "10.96.0.10");
	world_close(&w);
}

static void test_bad_object(void **state)
{
	struct world w;
	struct source_status s;
	unsigned n;
	char want[256];

	(void)state;
	world_open(&w);
	write_at(&w, "a.yaml",
		SERVICE("a", "10.96.0.1") "---\n" SERVICE("b", "10.96.0.2") "---\n" SERVICE(
			"c", "10.96.0.3"));
	world_start(&w, "a.yaml");
	assert_int_equal(w.problems, 0);
	/* b no longer decodes, d never did. */
	write_at(&w, "a.yaml",
		SERVICE("a", "10.96.0.11") "---\n" SERVICE("b", "10.96.0.256") "---\n" SERVICE(
			"d", "1") "---\n" SERVICE("e", "10.96.0.5") "---\njust text\n---\nmetadata: {}\n");
	assert_true(wait_load(&w));
	assert_int_equal(w.problems, 4);
	assert_string_equal(ip_of(&w, "a"), "10.96.0.11");
	assert_string_equal(ip_of(&w, "b"), "10.96.0.2");
	assert_string_equal(ip_of(&w, "c"), "absent");
	assert_string_equal(ip_of(&w, "d"), "absent");
	assert_string_equal(ip_of(&w, "e"), "10.96.0.5");
	source_status(w.source, &s);
	assert_int_equal(s.failures[SOURCE_FAILURE_OBJECT], 4);
	snprintf(want, sizeof(want),
		"%s/a.yaml:11: Service shop/b: spec.clusterIP \"10.96.0.256\" is not an IP address",
		w.folder);
	assert_memory_equal(s.resources[OBJECT_SERVICE].problem, want, strlen(want));
	/* b stays while it is bad, and goes when it is gone. */
	write_at(&w, "a.yaml", SERVICE("b", "x"));
	assert_true(wait_load(&w));
	assert_int_equal(cluster_count(w.cluster, OBJECT_SERVICE), 1);
	assert_string_equal(ip_of(&w, "b"), "10.96.0.2");
	write_at(&w, "a.yaml", "# none\n");
	assert_true(wait_load(&w));
	assert_int_equal(cluster_count(w.cluster, OBJECT_SERVICE), 0);
	/* Nothing of it is left, so that an empty file is nothing to be afraid of. */
	n = w.problems;
	write_at(&w, "a.yaml", "");
	assert_true(wait_load(&w));
	assert_int_equal(w.problems, n);
	world_close(&w);
}

static void test_duplicate(void **state)
{
	struct world w;
	char want[256];

	(void)state;
	world_open(&w);
	write_at(&w, "a.yaml", SERVICE("web", "10.96.0.1"));
	write_at(&w, "b.yaml", "---\n" SERVICE("web", "10.96.0.2"));
	world_start(&w, NULL);
	assert_string_equal(ip_of(&w, "web"), "10.96.0.1");
	snprintf(want, sizeof(want),
		"%s/b.yaml:2: services shop/web is there already, at %s/a.yaml:1 (keep one of them)",
		w.folder, w.folder);
	assert_string_equal(w.last_problem, want);
	delete_at(&w, "a.yaml");
	assert_true(wait_load(&w));
	assert_string_equal(ip_of(&w, "web"), "10.96.0.2");
	world_close(&w);
}

static void test_other_kinds(void **state)
{
	struct world w;
	struct source_status s;

	(void)state;
	world_open(&w);
	write_at(&w, "a.yaml",
		"{apiVersion: v1, kind: Endpoints, metadata: {name: a}}\n---\n{apiVersion: v1, kind: "
		"ConfigMap}\n---\n"
		"{apiVersion: v1, kind: Endpoints, metadata: {name: b}}\n---\n"
		"{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: k}, spec: {clusterIP: "
		"1}}\n---\n" NODE("n1", "10.0.0.0/24"));
	world_start(&w, NULL);
	assert_int_equal(w.problems, 1);
	assert_non_null(strstr(w.last_problem, ": 4 objects of other kinds are left out (Endpoints, "
					       "ConfigMap, serving.knative.dev/v1 Service): "
					       "Node, Service and EndpointSlice are used"));
	source_status(w.source, &s);
	for (int i = 0; i < SOURCE_FAILURES; i++)
		assert_int_equal(s.failures[i], 0);
	assert_string_equal(s.resources[OBJECT_NODE].problem, "");
	assert_true(cluster_all_synced(w.cluster));
	assert_int_equal(cluster_count(w.cluster, OBJECT_NODE), 1);
	assert_int_equal(cluster_count(w.cluster, OBJECT_SERVICE), 0);
	write_at(&w, "b.yaml", NODE("n2", "10.0.1.0/24"));
	assert_true(wait_load(&w));
	assert_int_equal(w.problems, 1);
	world_close(&w);
}

static void test_unwatched(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	cluster_set_unwatched(w.cluster, OBJECT_ENDPOINT_SLICE);
	write_at(&w, "a.yaml", SLICE "---\n" NODE("n1", "10.0.0.0/24"));
	world_start(&w, NULL);
	assert_int_equal(cluster_count(w.cluster, OBJECT_ENDPOINT_SLICE), 0);
	assert_int_equal(cluster_count(w.cluster, OBJECT_NODE), 1);
	assert_true(cluster_all_synced(w.cluster));
	world_close(&w);
}

/* What cannot be read at the start is not known to be absent. */
static void test_bad_start(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	write_at(&w, "a.yaml", SERVICE("web", "10.96.0.1"));
	write_at(&w, "b.yaml", "a: [");
	world_start(&w, NULL);
	assert_int_equal(w.problems, 1);
	assert_string_equal(ip_of(&w, "web"), "10.96.0.1");
	assert_false(cluster_synced(w.cluster, OBJECT_SERVICE));
	write_at(&w, "b.yaml", SERVICE("db", "10.96.0.2"));
	assert_true(wait_load(&w));
	assert_true(cluster_all_synced(w.cluster));
	assert_string_equal(ip_of(&w, "db"), "10.96.0.2");
	world_close(&w);
}

/* As kubelet does it: DIR/..1/m.yaml, DIR/..data -> ..1, DIR/m.yaml -> ..data/m.yaml. */
static void swap_config_map(const char *watched)
{
	struct world w;

	world_open(&w);
	folder_at(&w, "..1");
	write_at(&w, "..1/m.yaml", SERVICE("web", "10.96.0.1"));
	link_at(&w, "..1", "..data");
	link_at(&w, "..data/m.yaml", "m.yaml");
	world_start(&w, watched);
	assert_string_equal(ip_of(&w, "web"), "10.96.0.1");
	folder_at(&w, "..2");
	write_at(&w, "..2/m.yaml", SERVICE("web", "10.96.0.2"));
	link_at(&w, "..2", "..data_tmp");
	move(&w, "..data_tmp", "..data");
	assert_true(wait_load(&w));
	assert_string_equal(ip_of(&w, "web"), "10.96.0.2");
	assert_int_equal(w.problems, 0);
	world_close(&w);
}

static void test_config_map(void **state)
{
	(void)state;
	swap_config_map(NULL);
	swap_config_map("m.yaml");
}

static void test_single_file(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	write_at(&w, "m", SERVICE("web", "10.96.0.1"));
	world_start(&w, "m");
	write_at(&w, "other.yaml", SERVICE("web", "10.96.0.7"));
	expect_quiet(&w);
	write_at(&w, "tmp", SERVICE("web", "10.96.0.2"));
	move(&w, "tmp", "m");
	assert_true(wait_load(&w));
	assert_string_equal(ip_of(&w, "web"), "10.96.0.2");
	/* Gone is not empty. */
	delete_at(&w, "m");
	assert_true(wait_load(&w));
	assert_string_equal(ip_of(&w, "web"), "10.96.0.2");
	assert_int_equal(w.problems, 1);
	write_at(&w, "m", SERVICE("web", "10.96.0.3"));
	assert_true(wait_load(&w));
	assert_string_equal(ip_of(&w, "web"), "10.96.0.3");
	world_close(&w);
}

/* The folder itself is replaced: what was read stays until it is back. */
static void test_folder_replaced(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	folder_at(&w, "m");
	write_at(&w, "m/a.yaml", SERVICE("web", "10.96.0.1"));
	world_start(&w, "m");
	move(&w, "m", "old");
	for (int i = 0; i < 3 && !w.problems; i++)
		event_base_loop(w.base, EVLOOP_ONCE);
	assert_int_equal(w.problems, 1);
	assert_string_equal(ip_of(&w, "web"), "10.96.0.1");
	folder_at(&w, "m");
	write_at(&w, "m/a.yaml", SERVICE("web", "10.96.0.2"));
	assert_true(wait_load(&w));
	assert_string_equal(ip_of(&w, "web"), "10.96.0.2");
	write_at(&w, "m/a.yaml", SERVICE("web", "10.96.0.3"));
	assert_true(wait_load(&w));
	assert_string_equal(ip_of(&w, "web"), "10.96.0.3");
	world_close(&w);
}

static void test_constructor(void **state)
{
	struct source_callbacks cb = {0};
	struct event_base *base = event_base_new();
	struct cluster *cluster = cluster_new();
	struct source *source = (void *)1;
	struct error err = {0};

	(void)state;
	assert_int_equal(
		manifest_source_new(base, cluster, "/nonexistent/m.yaml", &cb, &source, &err), -ENOENT);
	assert_null(source);
	assert_string_equal(error_text(&err), "/nonexistent/m.yaml: No such file or directory (give a YAML "
					      "or JSON file or a folder of them)");
	assert_int_equal(manifest_source_new(base, cluster, "/dev/null", &cb, &source, &err), -EINVAL);
	source_free(NULL);
	cluster_free(cluster);
	event_base_free(base);
}

static void test_yaml_to_json(void **state)
{
	static const char *const cases[][2] = {{"80", "80"}, {"-3", "-3"}, {"+3", "3"}, {"0", "0"},
		{"0x1F", "31"}, {"0o17", "15"}, {"017", "\"017\""}, {"00", "\"00\""}, {"'80'", "\"80\""},
		{"!!str 80", "\"80\""}, {"true", "true"}, {"False", "false"}, {"\"true\"", "\"true\""},
		{"yes", "\"yes\""}, {"on", "\"on\""}, {"~", "null"}, {"null", "null"}, {"'null'", "\"null\""},
		{"1.5", "1.5"}, {".5", "0.5"}, {"1e3", "1000.0"}, {"1.", "1.0"}, {".", "\".\""},
		{"1e", "\"1e\""}, {"e5", "\"e5\""}, {"10.0.0.1", "\"10.0.0.1\""}, {"12:30", "\"12:30\""},
		{"fd00::1", "\"fd00::1\""}, {"0x", "\"0x\""}, {"0xg", "\"0xg\""},
		{"99999999999999999999", "1e+20"}, {"[1, a, {b: }]", "[1,\"a\",{\"b\":null}]"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP_FREE char *text = xasprintf("v: %s\n", cases[i][0]);
		struct yaml_stream *s;
		struct json_object *o;

		assert_int_equal(yamldoc_read("f", text, strlen(text), &s, NULL), 0);
		o = yaml_to_json(yaml_get(yamldoc_root(s, 0), "v"));
		assert_string_equal(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN), cases[i][1]);
		json_object_put(o);
		yamldoc_free(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_folder),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_bad_file_keeps),
		cmocka_unit_test(test_bad_object),
		cmocka_unit_test(test_duplicate),
		cmocka_unit_test(test_other_kinds),
		cmocka_unit_test(test_unwatched),
		cmocka_unit_test(test_bad_start),
		cmocka_unit_test(test_config_map),
		cmocka_unit_test(test_single_file),
		cmocka_unit_test(test_folder_replaced),
		cmocka_unit_test(test_constructor),
		cmocka_unit_test(test_yaml_to_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
