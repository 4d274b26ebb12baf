/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/nft_probe_private.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct features judge(int code, size_t message)
{
	const struct nft_failure f = {.code = code, .message = message};
	struct features features;
	struct error err = {0};

	assert_int_equal(nft_probe_judge(&f, &features, &err), 0);
	return features;
}

static void test_all_is_there(void **state)
{
	struct features f = judge(0, SIZE_MAX);

	(void)state;
	assert_true(f.nftables && f.flowtable && f.flowtable_counter);
	assert_string_equal(f.reason, "");
}

static void test_what_is_missing(void **state)
{
	struct features f = judge(-EOPNOTSUPP, SIZE_MAX);

	(void)state;
	assert_false(f.nftables || f.flowtable);
	assert_non_null(strstr(f.reason, "nf_tables"));
	f = judge(-ENOENT, PROBE_MESSAGE_FLOWTABLE);
	assert_true(f.nftables && !f.flowtable);
	assert_non_null(strstr(f.reason, "nf_flow_table_inet"));
	f = judge(-ENOENT, PROBE_MESSAGE_RULE);
	assert_true(f.nftables && !f.flowtable);
	assert_non_null(strstr(f.reason, "nft_flow_offload"));
	f = judge(-EPERM, SIZE_MAX);
	assert_non_null(strstr(f.reason, "NET_ADMIN"));
}

/* The planner has the table removed from a kernel that cannot: no shortage may look like that. */
static void test_passing_failures(void **state)
{
	static const int codes[] = {-ENOMEM, -ENOBUFS, -EINTR, -EAGAIN, -EBUSY};
	static const size_t messages[] = {PROBE_MESSAGE_TABLE, PROBE_MESSAGE_FLOWTABLE, PROBE_MESSAGE_CHAIN,
		PROBE_MESSAGE_RULE, SIZE_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++) {
		for (size_t k = 0; k < sizeof(messages) / sizeof(*messages); k++) {
			const struct nft_failure f = {.code = codes[i], .message = messages[k]};
			struct features features = {.nftables = true, .flowtable = true};
			struct error err = {0};

			assert_int_equal(nft_probe_judge(&f, &features, &err), codes[i]);
			assert_true(features.nftables && features.flowtable);
			assert_string_not_equal(err.what, "");
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_is_there),
		cmocka_unit_test(test_what_is_missing),
		cmocka_unit_test(test_passing_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
