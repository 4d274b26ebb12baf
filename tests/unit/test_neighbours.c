/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/neighbours.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define UPLINK 2
#define POD 3    /* one pod, a host route */
#define BRIDGE 4 /* a pods' network */

static struct addr address(const char *text)
{
	struct addr a;

	assert_true(addr_parse(text, &a));
	return a;
}

static void add_route(struct facts *f, const char *dst, uint32_t ifindex, const char *gateway)
{
	struct route *r = VEC_ADD(f->routes, f->n_routes, f->cap_routes);

	assert_true(prefix_parse(dst, &r->dst, NULL));
	r->ifindex = ifindex;
	if (gateway)
		r->gateway = address(gateway);
}

static int set_up(void **state)
{
	struct facts *f = xcalloc(1, sizeof(*f));

	add_route(f, "0.0.0.0/0", UPLINK, "192.168.0.1");
	add_route(f, "10.0.2.0/24", UPLINK, "192.168.0.12");
	add_route(f, "10.0.3.0/24", UPLINK, "192.168.0.13");
	add_route(f, "10.0.12.0/24", UPLINK, "192.168.0.12");
	add_route(f, "192.168.0.0/24", UPLINK, NULL);
	add_route(f, "::/0", UPLINK, "fe80::1");
	add_route(f, "10.0.1.11/32", POD, NULL);
	add_route(f, "fd10::11/128", POD, NULL);
	add_route(f, "10.0.1.0/24", BRIDGE, NULL);
	add_route(f, "10.96.0.0/12", BRIDGE, "169.254.0.253");
	facts_sort(f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct facts *f = *state;

	facts_done(f);
	free(f);
	return 0;
}

/* A deletion, in 'buffer' of a request's size. */
static struct nlmsghdr *deletion(uint8_t *buffer, uint32_t ifindex, const char *text, uint16_t state)
{
	struct addr a = address(text);
	struct nlmsghdr *h = (struct nlmsghdr *)(void *)buffer;
	struct ndmsg *m;

	neighbour_request(ifindex, &a, buffer);
	m = NLMSG_DATA(h);
	assert_int_equal(h->nlmsg_type, RTM_NEWNEIGH);
	assert_int_equal(m->ndm_flags, NTF_USE);
	h->nlmsg_type = RTM_DELNEIGH;
	m->ndm_flags = 0;
	m->ndm_state = state;
	return h;
}

static bool lost(const struct facts *f, uint32_t ifindex, const char *text, uint16_t state)
{
	_Alignas(8) uint8_t buffer[NEIGHBOUR_REQUEST_SIZE];
	struct nlmsghdr *h = deletion(buffer, ifindex, text, state);
	struct addr expected = address(text), a;
	uint32_t index = 0;
	bool ret = neighbours_lost(f, h, &index, &a);

	if (ret) {
		assert_int_equal(index, ifindex);
		assert_int_equal(addr_cmp(&a, &expected), 0);
	}
	return ret;
}

static void test_learned(void **state)
{
	struct neighbours n = {0};

	neighbours_learn(&n, *state);
	assert_int_equal(n.n, 7); /* 192.168.0.12 once, networks not */
	neighbours_done(&n);
}

static void test_gateways_and_pods_always(void **state)
{
	static const struct {
		uint32_t ifindex;
		const char *text;
	} hops[] = {{UPLINK, "192.168.0.1"}, {UPLINK, "192.168.0.12"}, {UPLINK, "192.168.0.13"},
		{UPLINK, "fe80::1"}, {POD, "10.0.1.11"}, {POD, "fd10::11"}};

	for (size_t i = 0; i < ARRAY_SIZE(hops); i++) {
		assert_true(lost(*state, hops[i].ifindex, hops[i].text, NUD_STALE));
		assert_true(lost(*state, hops[i].ifindex, hops[i].text, NUD_FAILED));
		assert_false(lost(*state, 9, hops[i].text, NUD_STALE));
	}
}

static void test_others(void **state)
{
	assert_true(lost(*state, BRIDGE, "10.0.1.12", NUD_STALE));
	assert_false(lost(*state, BRIDGE, "10.0.1.12", NUD_FAILED));
	assert_false(lost(*state, BRIDGE, "10.0.9.12", NUD_STALE));
	assert_false(lost(*state, UPLINK, "192.168.0.77", NUD_STALE));
	assert_false(lost(*state, POD, "10.0.1.12", NUD_STALE));
	assert_false(lost(*state, BRIDGE, "10.0.1.12", NUD_NOARP));
}

/* Every length short of the whole, and an address of the wrong size. */
static void test_malformed(void **state)
{
	_Alignas(8) uint8_t buffer[NEIGHBOUR_REQUEST_SIZE];
	struct nlmsghdr *h = deletion(buffer, POD, "fd10::11", NUD_STALE);
	uint32_t whole = h->nlmsg_len, index;
	struct addr a;

	for (uint32_t length = NLMSG_HDRLEN; length < whole; length++) {
		uint8_t *exact = xmemdup(buffer, length);

		((struct nlmsghdr *)(void *)exact)->nlmsg_len = length;
		assert_false(neighbours_lost(*state, (struct nlmsghdr *)(void *)exact, &index, &a));
		free(exact);
	}
	h = deletion(buffer, POD, "10.0.1.11", NUD_STALE);
	((struct ndmsg *)NLMSG_DATA(h))->ndm_family = AF_INET6;
	h = xmemdup(buffer, h->nlmsg_len);
	assert_false(neighbours_lost(*state, h, &index, &a));
	free(h);
	h = deletion(buffer, POD, "fd10::11", NUD_STALE);
	((struct ndmsg *)NLMSG_DATA(h))->ndm_family = AF_INET;
	assert_false(neighbours_lost(*state, h, &index, &a));
	((struct ndmsg *)NLMSG_DATA(h))->ndm_family = AF_BRIDGE;
	assert_false(neighbours_lost(*state, h, &index, &a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_learned, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_gateways_and_pods_always, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_others, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_malformed, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
