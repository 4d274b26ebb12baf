/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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
	assert_string_equal(f->err.object, "set cluster-ips4");
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

/* Up to 6.15 a hook goes with its device: nothing is left to remove, and that is no failure. */
static void test_device_gone(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(sync(f), 0);
	memory_backend_drop_device(f->b, "veth1");
	f->rs.n_devices = 1;
	add_cluster_ip(&f->rs, "10.96.0.2");
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.devices_removed, 1);
	assert_int_equal(f->r.n_failed, 0);
	assert_true(memory_backend_equals(f->b, &f->rs));
	memory_backend_rename_device(f->b, "eth0", "uplink");
	assert_false(memory_backend_equals(f->b, &f->rs));
	ruleset_add_device(&f->rs, "uplink", 2);
	memmove(&f->rs.devices[0], &f->rs.devices[1], sizeof(f->rs.devices[0]));
	f->rs.n_devices = 1;
	assert_true(memory_backend_equals(f->b, &f->rs));
}

struct faults {
	enum memory_point at;
	unsigned skip; /* points of that kind that pass first */
	int code;
	struct fixture *f;
	char object[64]; /* where it happened */
};

static int fault(void *arg, enum memory_point at, const char *object)
{
	struct faults *x = arg;

	if (at != x->at || x->skip--)
		return 0;
	if (at == MEMORY_OBSERVED)
		memory_backend_drop_table(x->f->b);
	snprintf(x->object, sizeof(x->object), "%s", object);
	return x->code;
}

/* Whatever fails wherever: all or nothing, and the next sync makes it whole. */
static void test_faults(void **state)
{
	struct fixture *f = *state;
	struct faults x = {.at = MEMORY_DUMP, .skip = 3, .code = -EINTR, .f = f};

	memory_backend_on_fault(f->b, fault, &x);
	assert_int_equal(sync(f), -EINTR);
	assert_string_equal(x.object, "sets");
	assert_int_equal(memory_backend_transactions(f->b), 0);

	/* A first transaction has more than 40 messages; each may be the one. */
	for (unsigned i = 0; i < 40; i++) {
		x = (struct faults){.at = MEMORY_MESSAGE, .skip = i, .code = -ENOMEM, .f = f};
		assert_int_equal(sync(f), -ENOMEM);
		assert_string_equal(f->err.object, x.object);
		assert_false(memory_backend_ruleset(f->b)->present);
	}
	x = (struct faults){.at = MEMORY_COMMIT, .code = -EMSGSIZE, .f = f};
	assert_int_equal(sync(f), -EMSGSIZE);
	assert_false(memory_backend_ruleset(f->b)->present);
	/* Applied, and nobody knows. */
	x = (struct faults){.at = MEMORY_ANSWER, .code = -ENOBUFS, .f = f};
	assert_int_equal(sync(f), -ENOBUFS);
	assert_true(memory_backend_equals(f->b, &f->rs));
	assert_int_equal(sync(f), 0);
	assert_true(f->observed);
	assert_int_equal(f->r.messages, 0);
	/* Somebody was faster. */
	add_cluster_ip(&f->rs, "10.96.0.2");
	memory_backend_restart(f->b);
	x = (struct faults){.at = MEMORY_OBSERVED, .f = f};
	assert_int_equal(sync(f), -ENOENT);
	memory_backend_on_fault(f->b, NULL, NULL);
	assert_int_equal(sync(f), 0);
	assert_true(f->r.created);
	assert_true(memory_backend_equals(f->b, &f->rs));
}

static void test_edits(void **state)
{
	struct fixture *f = *state;
	struct strbuf text = {0};

	assert_int_equal(sync(f), 0);
	for (int edit = 0; edit < MEMORY_EDITS; edit++) {
		if (edit == MEMORY_FOREIGN_TABLE)
			continue;
		memory_backend_edit(f->b, (enum memory_edit)edit, 0);
		assert_false(memory_backend_equals(f->b, &f->rs));
		backend_forget(f->b);
		assert_int_equal(sync(f), 0);
		assert_true(f->r.messages > 0);
		assert_true(memory_backend_equals(f->b, &f->rs));
		memory_backend_diff(f->b, &f->rs, &text);
		assert_null(text.data);
	}
	/* A new element does not go into a set that is gone. */
	memory_backend_edit(f->b, MEMORY_DROP_SET, SET_CLUSTER_IPS4);
	add_cluster_ip(&f->rs, "10.96.0.2");
	memory_backend_diff(f->b, &f->rs, &text);
	assert_non_null(strstr(text.data, "+ set cluster-ips4\n+ set cluster-ips4: 10.96.0.1\n"));
	strbuf_done(&text);
	assert_int_equal(sync(f), -ENOENT);
	assert_int_equal(sync(f), 0);

	/* Somebody else's is left alone, whatever is wanted. */
	memory_backend_edit(f->b, MEMORY_FOREIGN_TABLE, 0);
	backend_forget(f->b);
	assert_int_equal(sync(f), -EEXIST);
	f->rs.present = false;
	assert_int_equal(sync(f), 0);
	assert_int_equal(f->r.messages, 0);
	f->rs.present = true;
	assert_int_equal(sync(f), -EEXIST);
	memory_backend_drop_table(f->b);
	assert_int_equal(sync(f), 0);
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
		cmocka_unit_test_setup_teardown(test_device_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_faults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_edits, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
