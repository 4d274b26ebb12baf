/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "controller/ended_flows.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MS UINT64_C(1000)

struct world {
	struct cluster *cluster;
	struct ended_flows ended;
	uint64_t now;
	char text[512]; /* see flushed() */
};

static struct addr ip(const char *text)
{
	struct addr a;

	assert_true(addr_parse(text, &a));
	return a;
}

/*
 * A slice of a Service: "10.0.0.1 10.0.0.2u / 53 54t": u behind an address is one that neither is ready nor serves, d one that
 * terminates on top of it; t behind a port is TCP. "-" is a slice of no Service.
 */
static void put(struct world *w, const char *name, const char *service, const char *spec)
{
	struct endpoint_slice s = {
		.namespace = xstrdup("ns"), .name = xstrdup(name), .service = xstrdup(service)};
	CLEANUP_FREE char *copy = xstrdup(spec);
	size_t cap = 0, cap_ports = 0;
	bool ports = false;
	char *save = NULL;

	for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
		size_t len = strlen(t);
		bool lame = t[len - 1] == 'u' || t[len - 1] == 'd';

		if (*t == '/') {
			ports = true;
		} else if (ports) {
			if (t[len - 1] != 't')
				*VEC_ADD(s.udp_ports, s.n_udp_ports, cap_ports) = (uint16_t)atoi(t);
		} else {
			struct endpoint e = {
				.ready = !lame, .serving = !lame, .terminating = t[len - 1] == 'd'};

			if (lame)
				t[len - 1] = '\0';
			e.addr = ip(t);
			*VEC_ADD(s.endpoints, s.n_endpoints, cap) = e;
		}
	}
	cluster_put_endpoint_slice(w->cluster, &s);
}

static void drop(struct world *w, const char *name)
{
	assert_true(cluster_delete(w->cluster, OBJECT_ENDPOINT_SLICE, "ns", name));
}

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));
	struct cluster_observer observer;

	w->now = 5000 * MS;
	w->cluster = cluster_new();
	ended_flows_init(&w->ended, w->cluster);
	observer = ended_flows_observer(&w->ended);
	cluster_observe(w->cluster, &observer);
	*state = w;
	return 0;
}

static int setup_synced(void **state)
{
	struct world *w;

	setup(state);
	w = *state;
	cluster_relist_begin(w->cluster, OBJECT_ENDPOINT_SLICE);
	cluster_relist_end(w->cluster, OBJECT_ENDPOINT_SLICE);
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	cluster_free(w->cluster);
	ended_flows_done(&w->ended);
	free(w);
	return 0;
}

/* One step; "ADDRESS:PORT ..." of what is to be flushed, "" for a flush of nothing. */
static const char *step(struct world *w)
{
	const struct udp_endpoint *list;
	char addr[ADDR_TEXT_SIZE];
	size_t n, at = 0;

	w->text[0] = '\0';
	if (!ended_flows_step(&w->ended, w->now, &list, &n))
		return w->text;
	assert_true(n > 0);
	for (size_t i = 0; i < n; i++)
		at += (size_t)snprintf(w->text + at, sizeof(w->text) - at, "%s%s:%u", i ? " " : "",
			addr_text(&list[i].addr, addr), list[i].port);
	return w->text;
}

/* Steps as the loop does, for 'ms'; the flushes as "MILLISECOND ADDRESS:PORT ...;", each costing nothing. */
static const char *run(struct world *w, uint64_t ms)
{
	static char all[2048];
	uint64_t began = w->now, end = w->now + ms * MS;
	const struct error none = {0};
	size_t at = 0;

	all[0] = '\0';
	for (;;) {
		int64_t wait = ended_flows_wait(&w->ended, w->now);

		if (wait < 0 || w->now + (uint64_t)wait > end)
			break;
		w->now += (uint64_t)wait;
		if (*step(w)) {
			at += (size_t)snprintf(all + at, sizeof(all) - at, "%llu %s;",
				(unsigned long long)((w->now - began) / MS), w->text);
			assert_false(ended_flows_result(&w->ended, w->now, 0, &none));
		}
	}
	w->now = end;
	return all;
}

static void test_vanished(void **state)
{
	struct world *w = *state;

	assert_int_equal(ended_flows_wait(&w->ended, w->now), -1);
	put(w, "a", "dns", "10.0.0.1 10.0.0.2 10.0.0.3 / 53 54t 55");
	put(w, "b", "dns", "fd00::1 fd00::2 / 53");
	assert_int_equal(ended_flows_wait(&w->ended, w->now), -1);
	assert_string_equal(step(w), "");
	/* One of three, in the middle; the second look; then silence. */
	put(w, "a", "dns", "10.0.0.1 10.0.0.3 / 53 54t 55");
	assert_int_equal(ended_flows_wait(&w->ended, w->now), 0);
	assert_string_equal(step(w), "");
	assert_int_equal(ended_flows_wait(&w->ended, w->now), 200 * MS);
	w->now += 200 * MS - 1;
	assert_string_equal(step(w), "");
	assert_string_equal(run(w, 5000), "0 10.0.0.2:53 10.0.0.2:55;1000 10.0.0.2:53 10.0.0.2:55;");
	assert_int_equal(ended_flows_wait(&w->ended, w->now), -1);
	/* The whole slice. */
	drop(w, "b");
	assert_string_equal(run(w, 5000), "200 fd00::1:53 fd00::2:53;1200 fd00::1:53 fd00::2:53;");
	/* A port alone. */
	put(w, "a", "dns", "10.0.0.1 10.0.0.3 / 55");
	assert_string_equal(run(w, 5000), "200 10.0.0.1:53 10.0.0.3:53;1200 10.0.0.1:53 10.0.0.3:53;");
	/* The slice is of no Service any more. */
	put(w, "a", "", "10.0.0.1 / 55");
	assert_string_equal(run(w, 1000), "200 10.0.0.1:55 10.0.0.3:55;");
}

/* Listed is listed, in whatever condition, and TCP is nobody's business here. */
static void test_kept(void **state)
{
	struct world *w = *state;

	put(w, "a", "dns", "10.0.0.1 10.0.0.2 10.0.0.3 / 53");
	put(w, "a", "dns", "10.0.0.1u 10.0.0.2d 10.0.0.3 / 53");
	put(w, "a", "dns", "10.0.0.3 10.0.0.2 10.0.0.1 10.0.0.4 / 53");
	put(w, "web", "web", "10.0.0.7 10.0.0.8 / 80t 443t");
	put(w, "web", "web", "10.0.0.7 / 80t 443t");
	drop(w, "web");
	put(w, "none", "", "10.0.0.9 / 53");
	drop(w, "none");
	assert_int_equal(ended_flows_wait(&w->ended, w->now), -1);
	assert_string_equal(step(w), "");
}

/* One endpoint in two slices, or on its way from one to another. */
static void test_moves(void **state)
{
	struct world *w = *state;

	put(w, "a", "dns", "10.0.0.1 10.0.0.2 / 53");
	put(w, "b", "other", "10.0.0.2 / 53");
	put(w, "a", "dns", "10.0.0.1 / 53");
	assert_string_equal(run(w, 5000), "");
	/* Gone from the one, and a while later there in the other. */
	put(w, "a", "dns", "/ 53");
	assert_string_equal(run(w, 150), "");
	put(w, "c", "dns", "10.0.0.1 / 54 53");
	assert_string_equal(run(w, 5000), "");
	assert_int_equal(ended_flows_wait(&w->ended, w->now), -1);
	/* The same address, another port: that is another endpoint. */
	put(w, "c", "dns", "10.0.0.1 / 54");
	assert_string_equal(run(w, 1000), "200 10.0.0.1:53;");
	/* Back before the second look. */
	put(w, "c", "dns", "10.0.0.1 / 53 54");
	assert_string_equal(run(w, 5000), "");
	/* In a slice that is of no Service it is not there. */
	put(w, "x", "", "10.0.0.2 / 53");
	drop(w, "b");
	assert_string_equal(run(w, 1000), "200 10.0.0.2:53;");
}

static void test_before_the_first_list(void **state)
{
	struct world *w = *state;

	cluster_relist_begin(w->cluster, OBJECT_ENDPOINT_SLICE);
	put(w, "a", "dns", "10.0.0.1 10.0.0.2 / 53");
	put(w, "b", "dns", "10.0.0.5 / 53");
	cluster_relist_abort(w->cluster, OBJECT_ENDPOINT_SLICE);
	cluster_relist_begin(w->cluster, OBJECT_ENDPOINT_SLICE);
	put(w, "a", "dns", "10.0.0.1 / 53");
	cluster_relist_end(w->cluster, OBJECT_ENDPOINT_SLICE); /* takes b */
	assert_string_equal(run(w, 5000), "");
	assert_int_equal(ended_flows_wait(&w->ended, w->now), -1);
	put(w, "a", "dns", "/ 53");
	assert_string_equal(run(w, 500), "200 10.0.0.1:53;");
}

/* A list is read in pieces; what it says is true at its end. */
static void test_relist(void **state)
{
	struct world *w = *state;

	put(w, "a", "dns", "10.0.0.1 / 53");
	put(w, "b", "dns", "10.0.0.2 / 53");
	put(w, "c", "dns", "10.0.0.3 / 53");
	cluster_relist_begin(w->cluster, OBJECT_ENDPOINT_SLICE);
	put(w, "a", "dns", "10.0.0.2 / 53"); /* .1 and .2 change places */
	assert_string_equal(run(w, 7000), "");
	put(w, "b", "dns", "10.0.0.1 / 53");
	assert_string_equal(run(w, 7000), "");
	cluster_relist_end(w->cluster, OBJECT_ENDPOINT_SLICE); /* takes c */
	assert_string_equal(run(w, 500), "200 10.0.0.3:53;");
	assert_string_equal(run(w, 5000), "700 10.0.0.3:53;");
	/* Settled meanwhile: with the end of the list. */
	cluster_relist_begin(w->cluster, OBJECT_ENDPOINT_SLICE);
	put(w, "a", "dns", "/ 53");
	assert_string_equal(run(w, 7000), "");
	put(w, "b", "dns", "10.0.0.1 / 53");
	cluster_relist_end(w->cluster, OBJECT_ENDPOINT_SLICE);
	assert_string_equal(step(w), "10.0.0.2:53");
	/* A list that came to nothing: nobody tells, so it is looked for. */
	run(w, 5000);
	put(w, "b", "dns", "/ 53");
	cluster_relist_begin(w->cluster, OBJECT_ENDPOINT_SLICE);
	assert_string_equal(run(w, 300), "");
	cluster_relist_abort(w->cluster, OBJECT_ENDPOINT_SLICE);
	assert_in_range(ended_flows_wait(&w->ended, w->now), 0, 1000 * MS);
	assert_string_equal(run(w, 900), "0 10.0.0.1:53;");
}

/* Many that vanish within a time share flushes; each is there at most twice. */
static void test_burst(void **state)
{
	struct world *w = *state;
	const struct udp_endpoint *list;
	const struct error none = {0};
	unsigned flushes = 0, seen = 0;
	char spec[64], name[16];
	size_t n;

	for (unsigned i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		snprintf(spec, sizeof(spec), "10.0.%u.%u / 53", i % 7, i);
		put(w, name, "dns", spec);
	}
	for (unsigned ms = 0; ms < 4000; ms += 10) {
		w->now += 10 * MS;
		if (ms < 2000) {
			snprintf(name, sizeof(name), "s%u", ms / 10);
			drop(w, name);
		}
		if (!ended_flows_step(&w->ended, w->now, &list, &n))
			continue;
		for (size_t i = 1; i < n; i++)
			assert_true(udp_endpoint_cmp(&list[i - 1], &list[i]) < 0);
		flushes++;
		seen += (unsigned)n;
		w->now += 30 * MS; /* what it costs: 300 ms of pause */
		ended_flows_result(&w->ended, w->now, (int)n, &none);
	}
	assert_int_equal(seen, 400);
	assert_in_range(flushes, 8, 14);
	assert_int_equal(w->ended.ended, 400);
	assert_int_equal(ended_flows_wait(&w->ended, w->now), -1);
	/* However much a flush costs, the next is at most half a second later. */
	put(w, "a", "dns", "10.0.0.1 10.0.0.2 / 53");
	put(w, "a", "dns", "10.0.0.1 / 53");
	step(w);
	w->now += 200 * MS;
	assert_string_equal(step(w), "10.0.0.2:53");
	w->now += 3000 * MS;
	ended_flows_result(&w->ended, w->now, 0, &none);
	assert_int_equal(ended_flows_wait(&w->ended, w->now), 500 * MS);
}

static void test_same_again(void **state)
{
	struct world *w = *state;

	/* It comes and goes within the time that it is given. */
	for (unsigned i = 0; i < 5; i++) {
		put(w, "a", "dns", "10.0.0.1 / 53");
		assert_string_equal(run(w, 100), "");
		put(w, "a", "dns", "/ 53");
		assert_string_equal(run(w, 100), "");
	}
	put(w, "a", "dns", "10.0.0.1 / 53");
	assert_string_equal(run(w, 5000), "");
	/* Back behind the first look, and vanished once more before the second: each time has its own two. */
	put(w, "a", "dns", "/ 53");
	assert_string_equal(run(w, 500), "200 10.0.0.1:53;");
	put(w, "a", "dns", "10.0.0.1 / 53");
	assert_string_equal(run(w, 200), "");
	put(w, "a", "dns", "/ 53");
	assert_string_equal(run(w, 5000), "200 10.0.0.1:53;500 10.0.0.1:53;1200 10.0.0.1:53;");
}

static void test_failures(void **state)
{
	struct world *w = *state;
	struct error err = {0};

	put(w, "a", "dns", "10.0.0.1 10.0.0.2 10.0.0.3 / 53");
	put(w, "a", "dns", "10.0.0.1 10.0.0.2 / 53");
	step(w);
	w->now += 200 * MS;
	assert_string_equal(step(w), "10.0.0.3:53");
	error_set(&err, -ENOBUFS, "connection table", NULL, "reading it failed");
	assert_true(ended_flows_result(&w->ended, w->now, -ENOBUFS, &err));
	assert_string_equal(w->ended.problem, "connection table: reading it failed");
	/* Not again before the second look, and told once. */
	assert_int_equal(ended_flows_wait(&w->ended, w->now), 1000 * MS);
	w->now += 1000 * MS;
	assert_string_equal(step(w), "10.0.0.3:53");
	assert_false(ended_flows_result(&w->ended, w->now, -ENOBUFS, &err));
	assert_int_equal(w->ended.failures, 2);
	assert_int_equal(ended_flows_wait(&w->ended, w->now), -1);
	/* Mended. */
	put(w, "a", "dns", "10.0.0.1 / 53");
	step(w);
	w->now += 300 * MS;
	assert_string_equal(step(w), "10.0.0.2:53");
	assert_false(ended_flows_result(&w->ended, w->now, 3, &err));
	assert_string_equal(w->ended.problem, "");
	assert_int_equal(w->ended.ended, 3);
	/* A kernel that cannot: said once, and nothing any more, whatever vanishes. */
	w->now += 1000 * MS;
	assert_string_equal(step(w), "10.0.0.2:53");
	error_set(&err, -EBUSY, NULL, NULL, "this kernel cannot");
	assert_true(ended_flows_result(&w->ended, w->now, -EBUSY, &err));
	assert_true(w->ended.cannot);
	drop(w, "a");
	assert_int_equal(ended_flows_wait(&w->ended, w->now), -1);
	assert_string_equal(step(w), "");
	assert_int_equal(w->ended.failures, 3);
}

/* --- at random: nothing that is listed is ever flushed; what vanished is, within a second, and once more --- */

enum { ADDRESSES = 6, PORTS = 3, SLICES = 5 };

struct model {
	bool listed, was;
	uint64_t since; /* vanished */
	unsigned flushed;
};

static unsigned draw(unsigned *seed, unsigned below)
{
	*seed = *seed * 1103515245 + 12345;
	return (*seed >> 16) % below;
}

static void look(struct world *w, struct model m[ADDRESSES][PORTS])
{
	for (unsigned a = 0; a < ADDRESSES; a++) {
		for (unsigned p = 0; p < PORTS; p++) {
			struct model *x = &m[a][p];
			bool listed = false;

			for (const struct endpoint_slice *s = cluster_next_endpoint_slice(w->cluster, NULL);
				s; s = cluster_next_endpoint_slice(w->cluster, s))
				for (size_t i = 0; *s->service && i < s->n_endpoints; i++)
					for (size_t k = 0; k < s->n_udp_ports; k++)
						listed |= s->endpoints[i].addr.bytes[3] == a &&
							  s->udp_ports[k] == 50 + p;
			if (x->listed && !listed) {
				x->since = w->now;
				x->flushed = 0;
			}
			x->listed = listed;
			x->was |= listed;
		}
	}
}

static void flush(struct world *w, struct model m[ADDRESSES][PORTS])
{
	const struct error none = {0};
	const struct udp_endpoint *list;
	size_t n;

	if (!ended_flows_step(&w->ended, w->now, &list, &n))
		return;
	assert_false(cluster_relisting(w->cluster, OBJECT_ENDPOINT_SLICE));
	for (size_t i = 0; i < n; i++) {
		struct model *x = &m[list[i].addr.bytes[3]][list[i].port - 50];

		assert_true(x->was && !x->listed);
		x->flushed++;
	}
	ended_flows_result(&w->ended, w->now, 0, &none);
}

static void change(struct world *w, unsigned *seed)
{
	static const char *const services[] = {"one", "one", "two", ""};
	char name[8], spec[128];
	size_t at = 0;

	snprintf(name, sizeof(name), "s%u", draw(seed, SLICES));
	if (!draw(seed, 6)) {
		cluster_delete(w->cluster, OBJECT_ENDPOINT_SLICE, "ns", name);
		return;
	}
	for (unsigned a = 0; a < ADDRESSES; a++)
		if (!draw(seed, 3))
			at += (size_t)snprintf(
				spec + at, sizeof(spec) - at, "10.0.0.%u%s ", a, draw(seed, 4) ? "" : "d");
	at += (size_t)snprintf(spec + at, sizeof(spec) - at, "/");
	for (unsigned p = 0; p < PORTS; p++)
		if (draw(seed, 2))
			at += (size_t)snprintf(
				spec + at, sizeof(spec) - at, " %u%s", 50 + p, draw(seed, 4) ? "" : "t");
	put(w, name, services[draw(seed, 4)], spec);
}

static void test_at_random(void **state)
{
	unsigned flushed = 0;

	(void)state;
	for (unsigned run_no = 1; run_no <= 300; run_no++) {
		struct model m[ADDRESSES][PORTS] = {0};
		unsigned seed = run_no, busy = 100 + draw(&seed, 100);
		uint64_t listed_at = 0;
		bool relisting = false;
		struct world *w;
		void *world;

		setup_synced(&world);
		w = world;
		for (unsigned i = 0; i < busy + 400; i++) {
			w->now += (1 + draw(&seed, 20)) * MS;
			if (i < busy && !draw(&seed, 3)) {
				change(w, &seed);
			} else if (!relisting && i < busy && !draw(&seed, 30)) {
				cluster_relist_begin(w->cluster, OBJECT_ENDPOINT_SLICE);
				relisting = true;
			} else if (relisting && (i >= busy || !draw(&seed, 10))) {
				relisting = false;
				listed_at = w->now;
				if (draw(&seed, 2))
					cluster_relist_end(w->cluster, OBJECT_ENDPOINT_SLICE);
				else
					cluster_relist_abort(w->cluster, OBJECT_ENDPOINT_SLICE);
			}
			look(w, m);
			flush(w, m);
			for (unsigned k = 0; !relisting && k < ADDRESSES * PORTS; k++) {
				struct model *x = &m[k / PORTS][k % PORTS];

				if (x->was && !x->listed && !x->flushed)
					assert_true(w->now - (x->since > listed_at ? x->since : listed_at) <
						    500 * MS);
			}
		}
		for (unsigned k = 0; k < ADDRESSES * PORTS; k++) {
			struct model *x = &m[k / PORTS][k % PORTS];

			if (x->was && !x->listed)
				assert_in_range(x->flushed, 2, 9);
			flushed += x->flushed;
		}
		assert_int_equal(ended_flows_wait(&w->ended, w->now), -1);
		teardown(&world);
	}
	assert_true(flushed > 1000);
}

#define world_test(test) cmocka_unit_test_setup_teardown(test, setup_synced, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test(test_vanished),
		world_test(test_kept),
		world_test(test_moves),
		cmocka_unit_test_setup_teardown(test_before_the_first_list, setup, teardown),
		world_test(test_relist),
		world_test(test_burst),
		world_test(test_same_again),
		world_test(test_failures),
		cmocka_unit_test(test_at_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
