/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "datapath/hardware_offload.h"

#include <errno.h>
#include <string.h>

/* Devices named nic* have hardware, gone* are not there, busy* are taken by somebody. */
static int probe(void *arg, const char *device)
{
	++*(unsigned *)arg;
	return !strncmp(device, "nic", 3)    ? 0
	       : !strncmp(device, "gone", 4) ? -ENOENT
	       : !strncmp(device, "busy", 4) ? -EBUSY
					     : -EOPNOTSUPP;
}

static struct device a_nic = {"nic0", 2}, two[] = {{"nic0", 2}, {"nic1", 3}},
		     mixed[] = {{"nic0", 2}, {"veth7", 9}}, gone[] = {{"gone0", 4}, {"nic0", 2}},
		     busy[] = {{"busy0", 4}};
#define LIST(of, count) (&(struct device_list){.items = (of), .n = (count)})

static void all_take_it(void **state)
{
	struct hardware_offload h = {0};
	unsigned asked = 0;

	(void)state;
	assert_true(hardware_offload_decide(&h, true, LIST(two, 2), NULL, probe, &asked));
	assert_int_equal(asked, 2);
	assert_false(h.refused);
	/* What is bound already is not asked again. */
	asked = 0;
	assert_true(hardware_offload_decide(&h, true, LIST(two, 2), LIST(&a_nic, 1), probe, &asked));
	assert_int_equal(asked, 1);
	assert_true(hardware_offload_decide(&h, true, LIST(gone, 2), NULL, probe, &asked));
	assert_false(hardware_offload_decide(&h, true, LIST(two, 0), NULL, probe, &asked));
	assert_false(h.refused);
}

static void off_asks_nobody(void **state)
{
	struct hardware_offload h = {0};
	unsigned asked = 0;

	(void)state;
	assert_false(hardware_offload_decide(&h, false, LIST(two, 2), NULL, probe, &asked));
	assert_int_equal(asked, 0);
}

/* A device that comes later and refuses; when it is gone again, the flag stays away. */
static void one_refuses(void **state)
{
	struct hardware_offload h = {0};
	unsigned asked = 0;

	(void)state;
	assert_true(hardware_offload_decide(&h, true, LIST(two, 1), NULL, probe, &asked));
	assert_false(hardware_offload_decide(&h, true, LIST(mixed, 2), LIST(&a_nic, 1), probe, &asked));
	assert_true(h.refused);
	assert_string_equal(h.device, "veth7");
	assert_int_equal(h.code, -EOPNOTSUPP);
	asked = 0;
	assert_false(hardware_offload_decide(&h, true, LIST(two, 1), NULL, probe, &asked));
	assert_int_equal(asked, 0);
	assert_string_equal(h.device, "veth7");
	/* Asked for anew. */
	assert_false(hardware_offload_decide(&h, false, LIST(two, 1), NULL, probe, &asked));
	assert_false(h.refused);
	assert_true(hardware_offload_decide(&h, true, LIST(two, 1), NULL, probe, &asked));
	assert_false(hardware_offload_decide(&h, true, LIST(busy, 1), NULL, probe, &asked));
	assert_int_equal(h.code, -EBUSY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_take_it),
		cmocka_unit_test(off_asks_nobody),
		cmocka_unit_test(one_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
