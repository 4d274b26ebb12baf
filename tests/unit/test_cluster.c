/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "k8s/cluster.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct addr *addresses(size_t n, uint32_t first)
{
	struct addr *a = xcalloc(n, sizeof(*a));

	for (size_t i = 0; i < n; i++) {
		uint32_t v = __builtin_bswap32(first + (uint32_t)i);

		a[i] = addr_from_bytes(AF_INET, &v);
	}
	return a;
}

static bool put_service(struct cluster *c, const char *ns, const char *name, uint32_t ip, uint16_t port)
{
	struct service s = {.namespace = xstrdup(ns),
		.name = xstrdup(name),
		.cluster_ips = addresses(1, ip),
		.n_cluster_ips = 1,
		.ports = xcalloc(1, sizeof(*s.ports)),
		.n_ports = 1};

	s.ports[0] = (struct service_port){.protocol = PROTOCOL_TCP, .port = port};
	return cluster_put_service(c, &s);
}

/* 'states': one character per endpoint: r ready, t serving and terminating, d terminating only, u unready. */
static bool put_slice(struct cluster *c, const char *ns, const char *name, const char *service,
	uint32_t first, const char *states)
{
	uint32_t n = (uint32_t)strlen(states);
	CLEANUP_FREE struct addr *a = addresses(n, first);
	struct endpoint_slice s = {.namespace = xstrdup(ns),
		.name = xstrdup(name),
		.service = xstrdup(service),
		.endpoints = n ? xcalloc(n, sizeof(*s.endpoints)) : NULL,
		.n_endpoints = n};

	for (size_t i = 0; i < n; i++)
		s.endpoints[i] = (struct endpoint){.addr = a[i],
			.ready = states[i] == 'r',
			.serving = states[i] == 'r' || states[i] == 't',
			.terminating = states[i] == 't' || states[i] == 'd'};
	return cluster_put_endpoint_slice(c, &s);
}

/* One endpoint, and UDP ports from 53 on. */
static bool put_udp_slice(struct cluster *c, const char *name, const char *service, uint32_t ports)
{
	struct endpoint_slice s = {.namespace = xstrdup("a"),
		.name = xstrdup(name),
		.service = xstrdup(service),
		.endpoints = xcalloc(1, sizeof(*s.endpoints)),
		.n_endpoints = 1,
		.udp_ports = ports ? xcalloc(ports, sizeof(*s.udp_ports)) : NULL,
		.n_udp_ports = ports};
	uint32_t v = 0x0100000a;

	s.endpoints[0] =
		(struct endpoint){.addr = addr_from_bytes(AF_INET, &v), .ready = true, .serving = true};
	for (uint32_t i = 0; i < ports; i++)
		s.udp_ports[i] = (uint16_t)(53 + i);
	return cluster_put_endpoint_slice(c, &s);
}

static bool put_node(struct cluster *c, const char *name, const char *cidr, bool antrea)
{
	struct node n = {.name = xstrdup(name),
		.pod_cidrs = xcalloc(1, sizeof(*n.pod_cidrs)),
		.n_pod_cidrs = 1,
		.addresses = addresses(2, 0xc0000201),
		.n_addresses = 2,
		.antrea = antrea};

	assert_true(prefix_parse(cidr, &n.pod_cidrs[0], NULL));
	return cluster_put_node(c, &n);
}

static void test_put_and_find(void **state)
{
	struct cluster *c = cluster_new();
	const struct service *s;
	const struct node *n;
	char text[PREFIX_TEXT_SIZE];

	(void)state;
	assert_true(put_service(c, "b", "a", 1, 80));
	assert_true(put_service(c, "a", "z", 2, 81));
	assert_true(put_service(c, "a", "b", 3, 82));
	assert_int_equal(cluster_count(c, OBJECT_SERVICE), 3);
	s = cluster_next_service(c, NULL);
	assert_string_equal(s->name, "b");
	assert_int_equal(s->ports[0].port, 82);
	assert_string_equal(addr_text(&s->cluster_ips[0], text), "0.0.0.3");
	s = cluster_next_service(c, s);
	assert_string_equal(s->name, "z");
	s = cluster_next_service(c, s);
	assert_string_equal(s->namespace, "b");
	assert_null(cluster_next_service(c, s));

	assert_true(put_node(c, "n1", "10.0.1.0/24", true));
	n = cluster_node(c, "n1");
	assert_non_null(n);
	assert_string_equal(prefix_text(&n->pod_cidrs[0], text), "10.0.1.0/24");
	assert_int_equal(n->n_addresses, 2);
	assert_null(n->transport_addresses);
	assert_true(n->antrea);
	assert_ptr_equal(cluster_next_node(c, NULL), n);
	assert_null(cluster_next_node(c, n));
	assert_null(cluster_node(c, "n"));
	assert_null(cluster_next_endpoint_slice(c, NULL));
	cluster_free(c);
	cluster_free(NULL);
}

static void test_generation(void **state)
{
	struct cluster *c = cluster_new();
	uint64_t g;

	(void)state;
	assert_int_equal(cluster_generation(c), 0);
	assert_true(put_service(c, "a", "s", 1, 80));
	assert_true(put_node(c, "n", "10.0.0.0/24", false));
	assert_true(put_slice(c, "a", "s-1", "s", 1, "rr"));
	g = cluster_generation(c);
	assert_int_equal(g, 3);
	assert_false(put_service(c, "a", "s", 1, 80));
	assert_false(put_node(c, "n", "10.0.0.0/24", false));
	assert_false(put_slice(c, "a", "s-1", "s", 1, "rr"));
	assert_int_equal(cluster_generation(c), g);
	/* Every single difference counts. */
	assert_true(put_service(c, "a", "s", 2, 80));
	assert_true(put_service(c, "a", "s", 2, 81));
	assert_true(put_node(c, "n", "10.0.0.0/23", false));
	assert_true(put_node(c, "n", "10.0.0.0/23", true));
	assert_true(put_slice(c, "a", "s-1", "s", 1, "ru"));
	assert_true(put_slice(c, "a", "s-1", "s", 1, "r"));
	assert_true(put_slice(c, "a", "s-1", "other", 1, "r"));
	assert_int_equal(cluster_generation(c), g + 7);
	assert_int_equal(cluster_count(c, OBJECT_ENDPOINT_SLICE), 1);
	assert_false(cluster_delete(c, OBJECT_NODE, "", "m"));
	assert_int_equal(cluster_generation(c), g + 7);
	assert_true(cluster_delete(c, OBJECT_NODE, "", "n"));
	assert_int_equal(cluster_generation(c), g + 8);
	assert_null(cluster_node(c, "n"));
	cluster_free(c);
}

static void test_udp_ports(void **state)
{
	struct cluster *c = cluster_new();
	const struct endpoint_slice *s;
	char text[ADDR_TEXT_SIZE];

	(void)state;
	assert_true(put_udp_slice(c, "s-1", "s", 0));
	assert_true(put_udp_slice(c, "s-1", "s", 3));
	assert_false(put_udp_slice(c, "s-1", "s", 3));
	assert_true(put_udp_slice(c, "s-1", "s", 2));
	s = cluster_next_endpoint_slice(c, NULL);
	assert_int_equal(s->n_udp_ports, 2);
	assert_int_equal(s->udp_ports[0], 53);
	assert_int_equal(s->udp_ports[1], 54);
	assert_int_equal(s->n_endpoints, 1);
	assert_string_equal(addr_text(&s->endpoints[0].addr, text), "10.0.0.1");
	assert_string_equal(s->service, "s");
	cluster_free(c);
}

/* What an observer was told: one character per call. */
struct told {
	char text[32];
	size_t n;
};

static void hear(struct told *t, char what, bool old, bool new)
{
	t->text[t->n++] = what;
	t->text[t->n++] = old && new ? '~' : old ? '-' : '+';
	assert_true(t->n < sizeof(t->text));
}

static void hear_service(void *arg, const struct service *old, const struct service *new)
{
	hear(arg, 's', old, new);
}

static void hear_slice(void *arg, const struct endpoint_slice *old, const struct endpoint_slice *new)
{
	if (old && new) /* both whole */
		assert_int_equal(old->n_udp_ports + 1, new->n_udp_ports);
	hear(arg, 'e', old, new);
}

static void test_observers(void **state)
{
	struct told a = {0}, b = {0};
	const struct cluster_observer first = {.service = hear_service, .arg = &a};
	const struct cluster_observer second = {
		.service = hear_service, .endpoint_slice = hear_slice, .arg = &b};
	struct cluster *c = cluster_new();

	(void)state;
	put_udp_slice(c, "s-0", "s", 0); /* nobody is there yet */
	cluster_observe(c, &first);
	cluster_observe(c, &second);
	put_service(c, "a", "s", 1, 80);
	put_udp_slice(c, "s-1", "s", 1);
	put_udp_slice(c, "s-1", "s", 1); /* equal */
	put_udp_slice(c, "s-1", "s", 2);
	put_node(c, "n", "10.0.0.0/24", false);
	cluster_unobserve(c, &a);
	cluster_unobserve(c, &a); /* is none any more */
	put_service(c, "a", "s", 2, 80);
	cluster_relist_begin(c, OBJECT_ENDPOINT_SLICE);
	assert_true(cluster_relisting(c, OBJECT_ENDPOINT_SLICE));
	assert_false(cluster_relisting(c, OBJECT_SERVICE));
	put_udp_slice(c, "s-1", "s", 2);
	cluster_relist_end(c, OBJECT_ENDPOINT_SLICE); /* takes s-0 */
	assert_false(cluster_relisting(c, OBJECT_ENDPOINT_SLICE));
	cluster_relist_begin(c, OBJECT_ENDPOINT_SLICE);
	cluster_relist_abort(c, OBJECT_ENDPOINT_SLICE);
	assert_false(cluster_relisting(c, OBJECT_ENDPOINT_SLICE));
	cluster_free(c); /* of this nobody is told */
	assert_string_equal(a.text, "s+");
	assert_string_equal(b.text, "s+e+e~s~e-");
}

static void test_service_flags(void **state)
{
	struct cluster *c = cluster_new();

	(void)state;
	for (int flag = 0; flag < 4; flag++) {
		struct service s = {.namespace = xstrdup("a"), .name = xstrdup("s")};

		s.excluded = flag == 1;
		s.external_local = flag == 2;
		s.internal_local = flag == 3;
		assert_true(cluster_put_service(c, &s));
		/* The caller's struct is emptied: nothing in it may be used or freed again. */
		assert_null(s.name);
	}
	for (int list = 0; list < 3; list++) {
		struct service s = {.namespace = xstrdup("a"), .name = xstrdup("s")};
		struct addr **a = list == 0   ? &s.cluster_ips
				  : list == 1 ? &s.load_balancer_ips
					      : &s.external_ips;
		size_t *n = list == 0   ? &s.n_cluster_ips
			    : list == 1 ? &s.n_load_balancer_ips
					: &s.n_external_ips;

		*a = addresses(1, 7);
		*n = 1;
		assert_true(cluster_put_service(c, &s));
	}
	cluster_free(c);
}

static void test_ready_endpoints(void **state)
{
	struct cluster *c = cluster_new();

	(void)state;
	put_slice(c, "a", "s-1", "s", 1, "rru");
	put_slice(c, "a", "s-2", "s", 10, "rtd");
	put_slice(c, "a", "t-1", "t", 20, "ttdu");
	put_slice(c, "a", "zz", "s2", 30, "r");
	put_slice(c, "b", "s-1", "s", 40, "rrrr");
	put_slice(c, "a", "no-label", "", 50, "r");
	assert_int_equal(cluster_ready_endpoints(c, "a", "s"), 3);
	assert_int_equal(cluster_ready_endpoints(c, "a", "t"), 2); /* none ready: what serves while it ends */
	assert_int_equal(cluster_ready_endpoints(c, "a", "s2"), 1);
	assert_int_equal(cluster_ready_endpoints(c, "b", "s"), 4);
	assert_int_equal(cluster_ready_endpoints(c, "b", "t"), 0);
	assert_int_equal(cluster_ready_endpoints(c, "a", "zzz"), 0);
	/* The index follows a slice that changes its Service and one that goes. */
	put_slice(c, "a", "s-1", "t", 1, "rru");
	assert_int_equal(cluster_ready_endpoints(c, "a", "s"), 1);
	assert_int_equal(cluster_ready_endpoints(c, "a", "t"), 2);
	assert_true(cluster_delete(c, OBJECT_ENDPOINT_SLICE, "a", "s-2"));
	assert_int_equal(cluster_ready_endpoints(c, "a", "s"), 0);
	cluster_free(c);
}

/* One endpoint per address, whatever holds it; families on their own. */
static void test_same_address(void **state)
{
	struct cluster *c = cluster_new();
	struct endpoint_slice s = {.namespace = xstrdup("a"),
		.name = xstrdup("v6"),
		.service = xstrdup("moves"),
		.endpoints = xcalloc(2, sizeof(*s.endpoints)),
		.n_endpoints = 2};

	(void)state;
	put_slice(c, "a", "m-1", "moves", 1, "rr");
	put_slice(c, "a", "m-2", "moves", 2, "rr");
	assert_int_equal(cluster_ready_endpoints(c, "a", "moves"), 3);
	/* The address of a pod that ends was given to a new one. */
	put_slice(c, "a", "p-1", "reused", 10, "t");
	assert_int_equal(cluster_ready_endpoints(c, "a", "reused"), 1);
	put_slice(c, "a", "p-2", "reused", 10, "rt");
	assert_int_equal(cluster_ready_endpoints(c, "a", "reused"), 1);
	/* Ready IPv4 endpoints do not answer for IPv6: there what drains is used. */
	for (uint8_t i = 0; i < 2; i++) {
		uint8_t v6[16] = {0xfd, [15] = i};

		s.endpoints[i] = (struct endpoint){
			.addr = addr_from_bytes(AF_INET6, v6), .serving = true, .terminating = true};
	}
	cluster_put_endpoint_slice(c, &s);
	assert_int_equal(cluster_ready_endpoints(c, "a", "moves"), 5);
	assert_true(cluster_delete(c, OBJECT_ENDPOINT_SLICE, "a", "m-1"));
	assert_true(cluster_delete(c, OBJECT_ENDPOINT_SLICE, "a", "m-2"));
	assert_int_equal(cluster_ready_endpoints(c, "a", "moves"), 2);
	cluster_free(c);
}

/* Deleted and made again under the same name: the new one, whole, whatever of it was seen. */
static void test_made_again(void **state)
{
	struct cluster *c = cluster_new();
	const struct service *s;

	(void)state;
	/* Seen in a watch. */
	put_service(c, "a", "s", 1, 80);
	assert_true(cluster_delete(c, OBJECT_SERVICE, "a", "s"));
	put_service(c, "a", "s", 2, 81);
	s = cluster_next_service(c, NULL);
	assert_int_equal(s->ports[0].port, 81);
	assert_null(cluster_next_service(c, s));
	/* Between a list and the next. */
	cluster_relist_begin(c, OBJECT_SERVICE);
	put_service(c, "a", "s", 3, 82);
	cluster_relist_end(c, OBJECT_SERVICE);
	s = cluster_next_service(c, NULL);
	assert_int_equal(s->n_cluster_ips, 1);
	assert_int_equal(s->ports[0].port, 82);
	/* Gone, although one of the name had been there in an earlier list. */
	cluster_relist_begin(c, OBJECT_SERVICE);
	cluster_relist_end(c, OBJECT_SERVICE);
	assert_int_equal(cluster_count(c, OBJECT_SERVICE), 0);
	cluster_free(c);
}

static void test_relist(void **state)
{
	struct cluster *c = cluster_new();
	uint64_t g;

	(void)state;
	assert_false(cluster_synced(c, OBJECT_SERVICE));
	cluster_relist_end(
		c, OBJECT_SERVICE); /* without begin: an empty list that nobody sent must remove nothing */
	assert_false(cluster_synced(c, OBJECT_SERVICE));
	cluster_relist_begin(c, OBJECT_SERVICE);
	put_service(c, "a", "1", 1, 80);
	put_service(c, "a", "2", 2, 80);
	put_service(c, "a", "3", 3, 80);
	assert_false(cluster_synced(c, OBJECT_SERVICE));
	cluster_relist_end(c, OBJECT_SERVICE);
	assert_true(cluster_synced(c, OBJECT_SERVICE));
	assert_false(cluster_synced(c, OBJECT_NODE));
	assert_false(cluster_all_synced(c));

	put_slice(c, "a", "s", "1", 1, "r");
	g = cluster_generation(c);
	cluster_relist_begin(c, OBJECT_SERVICE);
	put_service(c, "a", "2", 2, 80); /* equal: stays, changes nothing */
	put_service(c, "a", "4", 4, 80);
	assert_true(cluster_relist_keep(c, OBJECT_SERVICE, "a", "3"));
	assert_false(cluster_relist_keep(c, OBJECT_SERVICE, "a", "9"));
	assert_int_equal(cluster_count(c, OBJECT_SERVICE), 4);
	cluster_relist_end(c, OBJECT_SERVICE);
	assert_int_equal(cluster_count(c, OBJECT_SERVICE), 3);
	assert_int_equal(cluster_generation(c), g + 2);
	assert_string_equal(cluster_next_service(c, NULL)->name, "2");
	assert_int_equal(cluster_count(c, OBJECT_ENDPOINT_SLICE), 1); /* another kind */

	cluster_relist_begin(c, OBJECT_SERVICE);
	put_service(c, "a", "5", 5, 80);
	cluster_relist_abort(c, OBJECT_SERVICE);
	cluster_relist_end(c, OBJECT_SERVICE);
	assert_int_equal(cluster_count(c, OBJECT_SERVICE), 4);
	assert_true(cluster_synced(c, OBJECT_SERVICE));

	cluster_relist_begin(c, OBJECT_SERVICE);
	cluster_relist_end(c, OBJECT_SERVICE);
	assert_int_equal(cluster_count(c, OBJECT_SERVICE), 0);

	cluster_relist_begin(c, OBJECT_NODE);
	cluster_relist_end(c, OBJECT_NODE);
	assert_false(cluster_all_synced(c));
	assert_true(cluster_watched(c, OBJECT_ENDPOINT_SLICE));
	cluster_set_unwatched(c, OBJECT_ENDPOINT_SLICE);
	assert_false(cluster_watched(c, OBJECT_ENDPOINT_SLICE));
	assert_true(cluster_all_synced(c));
	cluster_free(c);
}

/* Random puts and deletes against a plain array. */
static void test_against_model(void **state)
{
	enum { NAMES = 64, SERVICES = 5 };
	struct {
		bool there;
		int service;
		uint32_t first;
		int ready;
	} model[NAMES] = {0};
	static const char *const states[] = {"", "r", "rr", "rrr"};
	struct cluster *c = cluster_new();
	unsigned seed = 1;

	(void)state;
	for (int step = 0; step < 20000; step++) {
		int i = rand_r(&seed) % NAMES;
		char name[16], service[16];

		snprintf(name, sizeof(name), "n%d", i);
		if (rand_r(&seed) % 3) {
			int svc = rand_r(&seed) % SERVICES, ready = rand_r(&seed) % 4;
			uint32_t first = (uint32_t)rand_r(&seed) % 2;
			bool change = !model[i].there || model[i].service != svc || model[i].ready != ready ||
				      (ready && model[i].first != first);

			snprintf(service, sizeof(service), "s%d", svc);
			assert_int_equal(put_slice(c, "x", name, service, first, states[ready]), change);
			model[i].there = true;
			model[i].service = svc;
			model[i].ready = ready;
			model[i].first = first;
		} else {
			assert_int_equal(cluster_delete(c, OBJECT_ENDPOINT_SLICE, "x", name), model[i].there);
			model[i].there = false;
		}
		if (step % 64)
			continue;
		size_t n = 0, total = 0;
		const struct endpoint_slice *before = NULL;

		for (int k = 0; k < NAMES; k++)
			n += model[k].there;
		assert_int_equal(cluster_count(c, OBJECT_ENDPOINT_SLICE), n);
		for (const struct endpoint_slice *s = cluster_next_endpoint_slice(c, NULL); s;
			before = s, s = cluster_next_endpoint_slice(c, s)) {
			assert_true(!before || strcmp(before->name, s->name) < 0);
			total++;
		}
		assert_int_equal(total, n);
		for (int svc = 0; svc < SERVICES; svc++) {
			unsigned addresses_ready =
				0; /* a bit each: an address in two slices is one endpoint */
			size_t want;

			for (int k = 0; k < NAMES; k++)
				if (model[k].there && model[k].service == svc)
					addresses_ready |= ((1u << model[k].ready) - 1) << model[k].first;
			want = (size_t)__builtin_popcount(addresses_ready);
			snprintf(service, sizeof(service), "s%d", svc);
			assert_int_equal(cluster_ready_endpoints(c, "x", service), want);
		}
	}
	cluster_free(c);
}

/* 10,000 Services with a slice of 10 endpoints each and 5,000 Nodes: a count of bytes, not of time. */
static void test_scale(void **state)
{
	struct cluster *c = cluster_new();
	struct mallinfo2 before = mallinfo2(), after;
	char name[64], slice[64];

	(void)state;
	for (int kind = 0; kind < OBJECT_KINDS; kind++)
		cluster_relist_begin(c, kind);
	for (uint32_t i = 0; i < 10000; i++) {
		snprintf(name, sizeof(name), "service-%05u", i);
		snprintf(slice, sizeof(slice), "service-%05u-x7k2p", i);
		put_service(c, "production", name, i, 80);
		put_slice(c, "production", slice, name, i * 10, "rrrrrrrrrr");
	}
	for (uint32_t i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "ip-10-200-%u-%u.eu-west-1.compute.internal", i >> 8, i & 255);
		put_node(c, name, "10.0.0.0/24", false);
	}
	for (int kind = 0; kind < OBJECT_KINDS; kind++)
		cluster_relist_end(c, kind);
	after = mallinfo2();
	assert_int_equal(cluster_count(c, OBJECT_SERVICE), 10000);
	assert_int_equal(cluster_count(c, OBJECT_ENDPOINT_SLICE), 10000);
	assert_int_equal(cluster_count(c, OBJECT_NODE), 5000);
	for (uint32_t i = 0; i < 10000; i++) {
		snprintf(name, sizeof(name), "service-%05u", i);
		assert_int_equal(cluster_ready_endpoints(c, "production", name), 10);
	}
	/* Under AddressSanitizer mallinfo2 says 0 for both. */
	print_message("replica of 10000 Services, 100000 endpoints, 5000 Nodes: %zu KiB\n",
		(after.uordblks - before.uordblks) / 1024);
	assert_true(after.uordblks - before.uordblks < 12u << 20);
	cluster_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put_and_find),
		cmocka_unit_test(test_generation),
		cmocka_unit_test(test_udp_ports),
		cmocka_unit_test(test_observers),
		cmocka_unit_test(test_service_flags),
		cmocka_unit_test(test_ready_endpoints),
		cmocka_unit_test(test_same_address),
		cmocka_unit_test(test_made_again),
		cmocka_unit_test(test_relist),
		cmocka_unit_test(test_against_model),
		cmocka_unit_test(test_scale),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
