/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "k8s/api_body.h"
#include "k8s/decode.h"
#include "k8s/json_tree.h"
#include "k8s/kubeconfig.h"
#include "k8s/yaml_json.h"

#include "base/yamldoc.h"

#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "body.h"

/*
 * Every allocation of a run fails once, each in a process of its own. The run may then end as base/mem.h has it,
 * with its line and SIGABRT; or say an error; or not have needed the memory, and then its answer is the right one. Nothing
 * else: no other signal, no answer with a part missing, no endless run.
 *
 * The C library's allocator is interposed, so that libraries' allocations fail, too. The sanitizers have interposed it
 * before us: CMakeLists.txt builds this program and the rooms in it without them.
 */
static long countdown; /* 0: nothing fails; n: the n-th from now on does */
static long calls;

static bool fails(void)
{
	calls++;
	return countdown && --countdown == 0;
}

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);

void *malloc(size_t size)
{
	if (fails()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	if (fails()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	if (fails()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_realloc(p, size);
}

/* glibc's own does not come through realloc(). */
void *reallocarray(void *p, size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, bytes);
}

/* --- what a run says: text without allocations --- */

struct answer {
	char text[16384];
	size_t len;
	bool refused; /* it ends with an error */
};

static void say(struct answer *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct answer *a, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(a->text + a->len, sizeof(a->text) - a->len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(a->text) - a->len)
		_exit(99);
	a->len += (size_t)n;
}

static void say_addresses(struct answer *a, const char *name, const struct addr *list, size_t n)
{
	char text[ADDR_TEXT_SIZE];

	say(a, " %s", name);
	for (size_t i = 0; i < n; i++)
		say(a, ",%s", addr_text(&list[i], text));
}

static void say_cluster(struct answer *a, const struct cluster *c)
{
	for (const struct node *n = cluster_next_node(c, NULL); n; n = cluster_next_node(c, n)) {
		char text[PREFIX_TEXT_SIZE];

		say(a, "node %s %d%d", n->name, n->antrea, n->acceleration_disabled);
		for (size_t i = 0; i < n->n_pod_cidrs; i++)
			say(a, " %s", prefix_text(&n->pod_cidrs[i], text));
		say_addresses(a, "addresses", n->addresses, n->n_addresses);
		say_addresses(a, "transport", n->transport_addresses, n->n_transport_addresses);
		say(a, "\n");
	}
	for (const struct service *s = cluster_next_service(c, NULL); s; s = cluster_next_service(c, s)) {
		say(a, "service %s/%s %d%d%d", s->namespace, s->name, s->excluded, s->external_local,
			s->internal_local);
		for (size_t i = 0; i < s->n_ports; i++)
			say(a, " %d:%u:%u", s->ports[i].protocol, s->ports[i].port, s->ports[i].node_port);
		say_addresses(a, "cluster", s->cluster_ips, s->n_cluster_ips);
		say_addresses(a, "loadbalancer", s->load_balancer_ips, s->n_load_balancer_ips);
		say_addresses(a, "external", s->external_ips, s->n_external_ips);
		say(a, " ready %zu\n", cluster_ready_endpoints(c, s->namespace, s->name));
	}
	for (const struct endpoint_slice *s = cluster_next_endpoint_slice(c, NULL); s;
		s = cluster_next_endpoint_slice(c, s)) {
		char text[ADDR_TEXT_SIZE];

		say(a, "slice %s/%s of %s", s->namespace, s->name, s->service);
		for (size_t i = 0; i < s->n_endpoints; i++)
			say(a, " %s:%d%d%d", addr_text(&s->endpoints[i].addr, text), s->endpoints[i].ready,
				s->endpoints[i].serving, s->endpoints[i].terminating);
		for (size_t i = 0; i < s->n_udp_ports; i++)
			say(a, " udp:%u", s->udp_ports[i]);
		say(a, "\n");
	}
	say(a, "generation %llu\n", (unsigned long long)cluster_generation(c));
}

/* --- the runs --- */

struct input {
	const char *name;
	const char *text;
	size_t len;
	enum object_kind kind;
};

static void refused(struct answer *a, const struct error *err)
{
	say(a, "refused: %s\n", error_text(err));
	a->refused = true;
}

static void put(struct answer *a, struct object *o)
{
	struct cluster *c = cluster_new();

	decode_put(c, o);
	say_cluster(a, c);
	cluster_free(c);
}

static void run_object(const struct input *in, struct answer *a)
{
	struct error err = {0};
	struct object o;

	if (decode_object(in->kind, in->text, in->len, &o, &err))
		refused(a, &err);
	else
		put(a, &o);
}

static void run_endpoints(const struct input *in, struct answer *a)
{
	struct json_object *root;
	struct error err = {0};
	struct object o;

	if (json_tree_parse(in->text, in->len, &root, &err) || decode_endpoints(root, &o, &err))
		refused(a, &err);
	else
		put(a, &o);
	json_object_put(root);
}

static void run_yaml(const struct input *in, struct answer *a)
{
	struct yaml_stream *s;
	struct error err = {0};
	struct object o;

	if (yamldoc_read(in->name, in->text, in->len, &s, &err)) {
		refused(a, &err);
		return;
	}
	for (size_t i = 0; i < yamldoc_count(s); i++) {
		struct json_object *json = yaml_to_json(yamldoc_root(s, i));

		if (decode_json(in->kind, json, &o, &err))
			refused(a, &err);
		else
			put(a, &o);
		json_object_put(json);
	}
	yamldoc_free(s);
}

static void run_kubeconfig(const struct input *in, struct answer *a)
{
	struct kubeconfig k;
	struct error err = {0};
	char path[32];
	int fd = memfd_create("kubeconfig", MFD_CLOEXEC);

	if (fd < 0 || write(fd, in->text, in->len) != (ssize_t)in->len)
		_exit(99);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (kubeconfig_find(path, &k, &err)) {
		refused(a, &err);
	} else {
		const struct kubeconfig_file *files[] = {&k.ca, &k.cert, &k.key};

		say(a, "%s %s %s %d %s %s\n", k.server, k.tls_server_name ? k.tls_server_name : "-",
			k.proxy_url ? k.proxy_url : "-", k.insecure, k.token ? k.token : "-",
			k.token_file ? k.token_file : "-");
		for (size_t i = 0; i < ARRAY_SIZE(files); i++)
			say(a, "%s %s\n", files[i]->path ? files[i]->path : "-",
				files[i]->data ? files[i]->data : "-");
		if (k.exec.command)
			say(a, "%s %s %d %s\n", k.exec.command, k.exec.api_version,
				k.exec.provide_cluster_info, k.exec.config ? k.exec.config : "-");
		for (size_t i = 0; i < k.exec.n_args; i++)
			say(a, "%s\n", k.exec.args[i]);
		for (size_t i = 0; i < k.exec.n_env; i++)
			say(a, "%s\n", k.exec.env[i]);
		kubeconfig_done(&k);
	}
	close(fd);
}

/* A list and the watch behind it, or a watch that begins with the objects: bytes to the replica, with the state machine. */
struct follow {
	struct answer *answer;
	struct reflector *reflector;
	struct cluster *cluster;
	enum object_kind kind;
	uint64_t now;
};

static void follow_step(struct follow *f, struct reflector_input *in)
{
	struct reflector_output out;

	in->random = 0.5;
	f->now += 2000;
	reflector_step(f->reflector, in, f->now, &out);
	say(f->answer, "%d: actions %#x deadline %llu", in->kind, out.actions,
		(unsigned long long)(out.deadline - f->now));
	if (out.actions & REFLECTOR_SEND)
		say(f->answer, " watch %d version %s", out.request.watch,
			out.request.version ? out.request.version : "-");
	say(f->answer, "\n");
	if (out.actions & REFLECTOR_RELIST_ABORT)
		cluster_relist_abort(f->cluster, f->kind);
	if (out.actions & REFLECTOR_RELIST_END)
		cluster_relist_end(f->cluster, f->kind);
	if (out.actions & REFLECTOR_RELIST_BEGIN)
		cluster_relist_begin(f->cluster, f->kind);
}

static void on_event(void *arg, struct reflector_input *in)
{
	follow_step(arg, in);
}

static void on_bad_object(void *arg, const struct error *err)
{
	struct follow *f = arg;

	say(f->answer, "bad object: %s\n", error_text(err));
}

static void on_changed(void *arg)
{
	(void)arg;
}

static void follow_body(struct follow *f, bool watch, const char *text, size_t len)
{
	struct api_body_format format = {.kind = f->kind, .watch = watch};
	struct api_body_owner owner = {on_event, on_bad_object, on_changed, f};
	struct api_body *b = api_body_new(f->cluster, &format, &owner);
	struct reflector_input in = {.kind = REFLECTOR_OPENED};
	struct error err = {0};
	int rc = 0;

	follow_step(f, &in);
	/* In pieces, so that what is kept between them is allocated. */
	for (size_t at = 0; at < len && !rc; at += 100)
		rc = api_body_feed(b, text + at, len - at < 100 ? len - at : 100, &err);
	if (!rc)
		rc = api_body_end(b, &err);
	in = (struct reflector_input){.kind = REFLECTOR_DONE, .code = 200, .bad_body = rc != 0};
	if (rc == -ECANCELED)
		in = (struct reflector_input){
			.kind = REFLECTOR_EVENT, .event = REFLECTOR_ERROR, .code = api_body_error(b)->code};
	else if (rc)
		refused(f->answer, &err);
	in.version = api_body_version(b);
	in.cont = api_body_continue(b);
	follow_step(f, &in);
	api_body_free(b);
}

static void run_follow(const struct input *in, struct answer *a, bool watchlist)
{
	struct follow f = {.answer = a,
		.reflector = reflector_new(false, watchlist),
		.cluster = cluster_new(),
		.kind = in->kind};
	static const char error[] = "{\"type\":\"DELETED\",\"object\":{\"metadata\":{\"name\":\"odd-tcpudp\","
				    "\"namespace\":\"odd\",\"resourceVersion\":\"300\"}}}\n"
				    "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,"
				    "\"reason\":\"Expired\"}}\n";
	struct reflector_input tick = {.kind = REFLECTOR_TICK};

	follow_step(&f, &tick);
	follow_body(&f, watchlist, in->text, in->len);
	follow_body(&f, true, error, sizeof(error) - 1);
	say_cluster(a, f.cluster);
	cluster_free(f.cluster);
	reflector_free(f.reflector);
}

static void run_list(const struct input *in, struct answer *a)
{
	run_follow(in, a, false);
}

static void run_watch(const struct input *in, struct answer *a)
{
	run_follow(in, a, true);
}

/* --- failing --- */

typedef void run_fn(const struct input *in, struct answer *a);

struct shared {
	struct answer right, got;
	long calls;
	bool done;
};

enum end { RIGHT, REFUSED, OUT_OF_MEMORY };

/* A child in which the n-th allocation fails; 'stderr' goes to a pipe. */
static enum end run_one(run_fn *run, const struct input *in, long n, struct shared *shared)
{
	char message[512];
	size_t len = 0;
	ssize_t got;
	int status, fds[2];
	pid_t pid;

	memset(&shared->got, 0, sizeof(shared->got));
	shared->done = false;
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct rlimit no_core = {0};

		for (int sig = 1; sig < NSIG; sig++)
			signal(sig, SIG_DFL);
		setrlimit(RLIMIT_CORE, &no_core);
		alarm(20);
		dup2(fds[1], STDERR_FILENO);
		calls = 0;
		countdown = n;
		run(in, &shared->got);
		countdown = 0;
		shared->calls = calls;
		shared->done = true;
		_exit(0);
	}
	close(fds[1]);
	while (len < sizeof(message) - 1 &&
		(got = read(fds[0], message + len, sizeof(message) - 1 - len)) > 0)
		len += (size_t)got;
	message[len] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT &&
		!strcmp(message, "slipstream: out of memory (raise the memory limit)\n"))
		return OUT_OF_MEMORY;
	if (!WIFEXITED(status) || WEXITSTATUS(status) || !shared->done)
		fail_msg("%s, allocation %ld: status %#x, %s", in->name, n, status, message);
	if (n && shared->got.refused && !shared->right.refused) {
		if (!strstr(shared->got.text, "memory"))
			fail_msg("%s, allocation %ld: %s", in->name, n, shared->got.text);
		return REFUSED;
	}
	if (n && strcmp(shared->got.text, shared->right.text) != 0)
		fail_msg("%s, allocation %ld: a wrong answer:\n%s", in->name, n, shared->got.text);
	return RIGHT;
}

static void fail_each(run_fn *run, const struct input *in)
{
	struct shared *shared =
		mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	long total, ends[3] = {0};

	assert_true(shared != MAP_FAILED);
	assert_int_equal(run_one(run, in, 0, shared), RIGHT);
	shared->right = shared->got;
	total = shared->calls;
	assert_true(total > 3);
	for (long n = 1; n <= total; n++)
		ends[run_one(run, in, n, shared)]++;
	print_message("%s: %ld allocations failed: %ld ended the process, %ld were refused, %ld not needed\n",
		in->name, total, ends[OUT_OF_MEMORY], ends[REFUSED], ends[RIGHT]);
	/* A test that makes nothing fail says nothing. */
	assert_true(ends[OUT_OF_MEMORY] > total / 2);
	munmap(shared, sizeof(*shared));
}

#define INPUT(name, kind, text) (&(struct input){name, text, sizeof(text) - 1, kind})

#define NODE                                                                                                 \
	"{\"metadata\":{\"name\":\"n1\",\"labels\":{\"slipstream/acceleration\":\"disabled\"},"              \
	"\"annotations\":{\"node.antrea.io/transport-addresses\":\"192.0.2.9,2001:db8::9\"}},"               \
	"\"spec\":{\"podCIDRs\":[\"10.2.0.0/24\",\"fd00:2::/64\"]},\"status\":{\"addresses\":["              \
	"{\"type\":\"InternalIP\",\"address\":\"192.0.2.1\"},{\"type\":\"InternalIP\","                      \
	"\"address\":\"2001:db8::1\"}]}}"
#define SERVICE                                                                                              \
	"{\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\",\"annotations\":{"                           \
	"\"a/long.name.of.an.annotation.that.is.longer.than.json-c.keeps.at.hand\":\"\\u0041\","             \
	"\"slipstream/exclude\":\"true\"}},\"spec\":{\"clusterIPs\":[\"10.96.0.1\",\"fd00::1\"],"            \
	"\"externalIPs\":[\"203.0.113.9\"],\"externalTrafficPolicy\":\"Local\",\"ports\":["                  \
	"{\"port\":80,\"nodePort\":30080},{\"protocol\":\"UDP\",\"port\":53}]},\"status\":{"                 \
	"\"loadBalancer\":{\"ingress\":[{\"ip\":\"198.51.100.1\"},{\"ip\":\"198.51.100.2\","                 \
	"\"ipMode\":\"Proxy\"}]}},\"x\":[1.5,true,null]}"
#define SLICE                                                                                                \
	"{\"metadata\":{\"name\":\"web-1\",\"namespace\":\"shop\",\"labels\":{"                              \
	"\"kubernetes.io/service-name\":\"web\"}},\"addressType\":\"IPv4\",\"endpoints\":["                  \
	"{\"addresses\":[\"10.0.0.1\"]},{\"addresses\":[\"10.0.0.2\"],\"conditions\":{\"ready\":false}}]}"

static void test_objects(void **state)
{
	(void)state;
	fail_each(run_object, INPUT("a Node", OBJECT_NODE, NODE));
	fail_each(run_object, INPUT("a Service", OBJECT_SERVICE, SERVICE));
	fail_each(run_object, INPUT("an EndpointSlice", OBJECT_ENDPOINT_SLICE, SLICE));
	fail_each(run_endpoints,
		INPUT("an Endpoints", OBJECT_ENDPOINT_SLICE,
			"{\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\"},\"subsets\":[{\"addresses\":"
			"["
			"{\"ip\":\"10.0.0.2\"}],\"notReadyAddresses\":[{\"ip\":\"10.0.0.1\"}]}]}"));
	/* What is refused anyhow is refused with the same words or not at all. */
	fail_each(run_object, INPUT("a wrong Service", OBJECT_SERVICE,
				      "{\"metadata\":{\"name\":\"web\",\"namespace\":\"shop\"},\"spec\":{"
				      "\"clusterIP\":7}}"));
}

static void test_yaml(void **state)
{
	(void)state;
	fail_each(run_yaml,
		INPUT("service.yaml", OBJECT_SERVICE,
			"metadata: {name: web, namespace: shop, annotations: {slipstream/exclude: 'true'}}\n"
			"spec:\n  clusterIP: 10.96.0.1\n  ports:\n  - {port: 80, nodePort: 30080}\n"
			"x: [1.5, yes, true, ~, &a b, *a]\n"));
}

static void test_kubeconfig(void **state)
{
	(void)state;
	fail_each(run_kubeconfig,
		INPUT("a kubeconfig", OBJECT_NODE,
			"current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
			"clusters: [{name: c, cluster: {server: 'https://h:6443/', certificate-authority: "
			"ca.crt,"
			" tls-server-name: k, proxy-url: 'http://p'}}]\nusers: [{name: u, user: {token: "
			"t}}]\n"));
	fail_each(run_kubeconfig,
		INPUT("a kubeconfig with a plugin", OBJECT_NODE,
			"current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
			"clusters: [{name: c, cluster: {server: 'https://h', extensions: [{name: "
			"client.authentication.k8s.io/exec, extension: {audience: "
			"'https://a.name.longer.than.the.buffer.that.json-c.starts.with', list: [1, two, "
			"3.5]}}]}}]\n"
			"users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, "
			"command: c, args: [d, e], env: [{name: F, value: g}], interactiveMode: Never, "
			"provideClusterInfo: true}}}]\n"));
}

static void real(run_fn *run, const char *name, enum object_kind kind)
{
	struct input in = {.name = name, .kind = kind};
	CLEANUP_FREE char *text = body_read(name, &in.len);

	assert_non_null(text);
	in.text = text;
	fail_each(run, &in);
}

static void test_lists(void **state)
{
	(void)state;
	real(run_list, "odd-services-list", OBJECT_SERVICE);
	real(run_list, "odd-endpointslices-list", OBJECT_ENDPOINT_SLICE);
}

static void test_watches(void **state)
{
	(void)state;
	real(run_watch, "watchlist-nodes", OBJECT_NODE);
	real(run_watch, "watchlist-endpointslices", OBJECT_ENDPOINT_SLICE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_objects),
		cmocka_unit_test(test_yaml),
		cmocka_unit_test(test_kubeconfig),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_watches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
