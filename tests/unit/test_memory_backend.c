/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void add_cluster_ip(struct ruleset *rs, const char *text)
{
	struct addr a;

	assert_true(addr_parse(text, &a));
	ruleset_add_addr(rs, SET_CLUSTER_IPS4, &a);
	ruleset_normalize(rs);
}

static struct ruleset sample(void)
{
	struct ruleset rs = {.present = true};

	ruleset_add_device(&rs, "eth0", 2);
	ruleset_add_device(&rs, "veth1", 12);
	ruleset_add_pair(&rs, SET_PAIRS, 12, 2);
	ruleset_add_pair(&rs, SET_PAIRS, 2, 12);
	add_cluster_ip(&rs, "10.96.0.1");
	return rs;
}

struct fixture {
	struct backend *b;
	struct ruleset rs, given; /* wanted, and what the backend was given last */
	bool observed;
	struct sync_result r;
	struct error err;
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->b = memory_backend_new();
	f->rs = sample();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	sync_result_done(&f->r);
	ruleset_done(&f->rs);
	ruleset_done(&f->given);
	backend_free(f->b);
	free(f);
	return 0;
}

/* As the agent does it: what changed, or all of it. */
static int sync(struct fixture *f)
{
	struct ruleset_delta delta = {.unknown = f->given.present != f->rs.present};
	int code;

	sync_result_done(&f->r);
	f->err = (struct error){0};
	ruleset_delta_add(&delta, &f->given, &f->rs);
	code = backend_apply(f->b, &f->rs, &delta, &f->r, &f->err);
	f->observed = code == -ESTALE;
	if (f->observed)
		code = backend_sync(f->b, &f->rs, &f->r, &f->err);
	ruleset_delta_done(&delta);
	if (!code) {
		ruleset_done(&f->given);
		ruleset_copy(&f->rs, &f->given);
	}
	return code;
}

static void test_sync(void **state)
{
	struct fixture *f = *state;
	uint64_t inserts[TRAFFIC_TYPES];

	assert_int_equal(backend_inserts(f->b, inserts, &f->err), -ENOENT);
	assert_string_equal(f->err.object, "table inet slipstream");
	assert_int_equal(sync(f), 0);
	assert_true(f->observed);
	assert_true(f->r.created);
	assert_int_equal(f->r.elements_added, 3);
	assert_int_equal(f->r.devices_added, 2);
	assert_true(memory_backend_equals(f->b, &f->rs));

	/* Nothing differs: nothing is sent. */
	assert_int_equal(sync(f), 0);
	assert_false(f->observed);
	assert_int_equal(f->r.messages, 0);
	assert_int_equal(memory_backend_transactions(f->b), 1);

	/* One element: one message, and the counters stay. */
	memory_backend_count(f->b, TYPE_POD_TO_POD, 5);
	add_cluster_ip(&f->rs, "10.96.0.2");
	assert_false(memory_backend_equals(f->b, &f->rs));
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.messages, 1);
	assert_int_equal(f->r.elements_added, 1);
	assert_false(f->r.created);
	assert_true(memory_backend_equals(f->b, &f->rs));
	assert_int_equal(backend_inserts(f->b, inserts, &f->err), 0);
	assert_int_equal(inserts[TYPE_POD_TO_POD], 5);

	f->rs.off[TYPE_OTHER] = true;
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.chains_rewritten, 2);
	assert_true(memory_backend_equals(f->b, &f->rs));

	f->rs.present = false;
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.messages, 1);
	assert_false(memory_backend_ruleset(f->b)->present);
	assert_true(memory_backend_equals(f->b, &f->rs));
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.messages, 0);

	f->rs.present = true;
	assert_int_equal(sync(f), 0);
	assert_true(f->r.created);
	assert_int_equal(backend_inserts(f->b, inserts, &f->err), 0);
	assert_int_equal(inserts[TYPE_POD_TO_POD], 0);
}

/* A refused device costs that device, is reported, and is tried again at every sync. */
static void test_refused_device(void **state)
{
	struct fixture *f = *state;

	memory_backend_refuse_device(f->b, "veth1", -EOPNOTSUPP);
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.n_failed, 1);
	assert_string_equal(f->r.failed[0].name, "veth1");
	assert_int_equal(f->r.failed[0].code, -EOPNOTSUPP);
	assert_int_equal(f->r.devices_added, 1);
	assert_int_equal(f->r.elements_added, 3);
	assert_int_equal(memory_backend_ruleset(f->b)->n_devices, 1);
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.n_failed, 1);
	memory_backend_refuse_device(f->b, "veth1", 0);
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.n_failed, 0);
	assert_int_equal(f->r.devices_added, 1);
	assert_true(memory_backend_equals(f->b, &f->rs));
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.messages, 0);
}

static void test_failed_transaction(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(sync(f), 0);
	memory_backend_fail_next(f->b, -ENOSPC, "set cluster-ips4");
	assert_int_equal(sync(f), 0); /* nothing to send: nothing fails */
	add_cluster_ip(&f->rs, "10.96.0.2");
	assert_int_equal(sync(f), -ENOSPC);
	assert_string_equal(f->err.object, "set cluster-ips4");
	assert_int_equal(f->r.messages, 0);
	assert_int_equal(f->r.elements_added, 0);
	assert_int_equal(memory_backend_ruleset(f->b)->sets[SET_CLUSTER_IPS4].n, 1);
	/* The next one looks first, and is whole. */
	assert_int_equal(sync(f), 0);
	assert_true(f->observed);
	assert_int_equal(f->r.elements_added, 1);
	assert_true(memory_backend_equals(f->b, &f->rs));
}

static void test_tampering(void **state)
{
	struct fixture *f = *state;
	struct set_element e;

	assert_int_equal(sync(f), 0);
	e = f->rs.sets[SET_CLUSTER_IPS4].items[0];

	/* Who is not told does not see it. */
	memory_backend_tamper_element(f->b, SET_CLUSTER_IPS4, &e, false);
	memory_backend_flush_chain(f->b, CHAIN_INSERT);
	memory_backend_drop_device(f->b, "eth0");
	e.key[3] = 77;
	memory_backend_tamper_element(f->b, SET_CLUSTER_IPS4, &e, true);
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.messages, 0);
	assert_false(memory_backend_equals(f->b, &f->rs));

	backend_forget(f->b);
	assert_int_equal(sync(f), 0);
	assert_true(f->observed);
	assert_false(f->r.created);
	assert_int_equal(f->r.elements_added, 1);
	assert_int_equal(f->r.elements_removed, 1);
	assert_int_equal(f->r.devices_added, 1);
	assert_int_equal(f->r.chains_rewritten, 1);
	assert_true(memory_backend_equals(f->b, &f->rs));

	/* A flushed chain alone makes a kernel that differs. */
	memory_backend_flush_chain(f->b, CHAIN_CLASSIFY);
	assert_false(memory_backend_equals(f->b, &f->rs));

	/* An incremental change on a table that is gone fails as the kernel's does; the next sync makes it
	 * whole. */
	memory_backend_drop_table(f->b);
	add_cluster_ip(&f->rs, "10.96.0.3");
	assert_int_equal(sync(f), -ENOENT);
	assert_string_equal(f->err.object, "table inet slipstream");
	assert_int_equal(sync(f), 0);
	assert_true(f->r.created);
	assert_true(memory_backend_equals(f->b, &f->rs));

	/* Removing what somebody else removed. */
	e = f->rs.sets[SET_CLUSTER_IPS4].items[0];
	memory_backend_tamper_element(f->b, SET_CLUSTER_IPS4, &e, false);
	f->rs.sets[SET_CLUSTER_IPS4].n = 0;
	assert_int_equal(sync(f), -ENOENT);
	assert_string_equal(f->err.object, "set cluster-ips4");
	assert_int_equal(sync(f), 0);
	assert_true(memory_backend_equals(f->b, &f->rs));
	assert_int_equal(memory_backend_observations(f->b), 4);
}

/* A desired ruleset that has a device made again under its name. */
static void test_device_made_again(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(sync(f), 0);
	f->rs.devices[1].ifindex = 13;
	memory_backend_drop_device(f->b, "veth1");
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.devices_added, 1);
	assert_int_equal(f->r.devices_removed, 0);
	assert_true(memory_backend_equals(f->b, &f->rs));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sync, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused_device, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failed_transaction, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tampering, setup, teardown),
		cmocka_unit_test_setup_teardown(test_device_made_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
