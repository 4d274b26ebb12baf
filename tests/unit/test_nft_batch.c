/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/nft_batch.h"
#include "datapath/nft_encode.h"
#include "datapath/nft_sync.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const struct nlmsghdr *message(const struct nft_batch *b, size_t i)
{
	return (const void *)(b->data + b->messages[i].offset);
}

static uint32_t offset_of(const struct nlmsghdr *nlh, const struct nlattr *attr)
{
	return (uint32_t)((const uint8_t *)attr - (const uint8_t *)nlh);
}

static void test_generation_stands_at_the_beginning(void **state)
{
	struct nft_batch b = {0};
	const struct nlmsghdr *begin;
	const struct nlattr *attr;
	size_t n = 0;

	(void)state;
	nft_batch_begin(&b, 0x01020304);
	nft_put_delete_table(&b);
	begin = (const void *)b.data;
	assert_int_equal(begin->nlmsg_type, NFNL_MSG_BATCH_BEGIN);
	assert_int_equal(b.messages[0].offset, begin->nlmsg_len);
	mnl_attr_for_each(attr, begin, sizeof(struct nfgenmsg))
	{
		assert_int_equal(mnl_attr_get_type(attr), NFNL_BATCH_GENID);
		assert_int_equal(ntohl(mnl_attr_get_u32(attr)), 0x01020304);
		n++;
	}
	assert_int_equal(n, 1);
	nft_batch_done(&b);
	/* No generation, no attribute: any will do. */
	nft_put_delete_table(&b);
	begin = (const void *)b.data;
	assert_int_equal(begin->nlmsg_len, MNL_NLMSG_HDRLEN + sizeof(struct nfgenmsg));
	nft_batch_done(&b);
}

static struct element_list addresses(uint32_t n)
{
	struct element_list list = {.n = n, .items = xcalloc(n, sizeof(*list.items))};

	for (uint32_t i = 0; i < n; i++) {
		uint32_t key = htonl(0x0a000000 + i * 256);

		memcpy(list.items[i].key, &key, sizeof(key));
		list.items[i].prefix_len = 24;
	}
	return list;
}

/* The nest of elements of a message has 16 bits of length. Returns how many elements are in it. */
static size_t check_nest(const struct nlmsghdr *nlh)
{
	const struct nlattr *attr, *elem;
	size_t n = 0;

	assert_true(nlh->nlmsg_len < 65536);
	mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) != NFTA_SET_ELEM_LIST_ELEMENTS)
			continue;
		/* Overflown, the length would say less than what is there. */
		assert_ptr_equal((const uint8_t *)attr + MNL_ALIGN(attr->nla_len),
			(const uint8_t *)nlh + nlh->nlmsg_len);
		mnl_attr_for_each_nested(elem, attr) n++;
	}
	return n;
}

/* Every set: with what fits in one message, one less and one more. */
static void test_borders_of_elements(void **state)
{
	struct element_list list = addresses(4000);

	(void)state;
	for (int set = 0; set < RULESET_SETS; set++) {
		uint32_t flags = nft_set_type(ruleset_set_schema[set].kind)->flags;
		size_t keys = flags & NFT_SET_INTERVAL ? 2 : 1, full;
		struct nft_batch b = {0};

		for (size_t i = 0; i < 4000; i++)
			list.items[i].prefix_len = keys == 2 ? 24 : 0;
		nft_put_elements(&b, set, true, list.items, list.n);
		assert_true(b.n >= 2);
		full = check_nest(message(&b, 0)) / keys;
		nft_batch_done(&b);
		for (size_t n = full - 1; n <= full + 1; n++) {
			size_t got = 0;

			nft_put_elements(&b, set, true, list.items, n);
			assert_int_equal(b.n, n > full ? 2 : 1);
			for (size_t i = 0; i < b.n; i++)
				got += check_nest(message(&b, i));
			assert_int_equal(got, n * keys);
			nft_batch_done(&b);
		}
	}
	free(list.items);
}

/* The kernel takes 255 devices per message. */
static void test_borders_of_devices(void **state)
{
	static const size_t counts[] = {1, 100, 101, 255, 256, 600};
	struct device *devices = xcalloc(600, sizeof(*devices));

	(void)state;
	for (size_t i = 0; i < 600; i++)
		snprintf(devices[i].name, IFNAMSIZ, "device-%08zu", i);
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct nft_batch b = {0};
		size_t named = 0;

		nft_put_devices(&b, true, devices, counts[i]);
		for (size_t k = 0; k < b.n; k++) {
			const struct nlattr *hook = NULL, *attr, *devs, *d;
			size_t here = 0;

			mnl_attr_for_each(attr, message(&b, k),
				sizeof(struct nfgenmsg)) if (mnl_attr_get_type(attr) == NFTA_FLOWTABLE_HOOK)
				hook = attr;
			assert_non_null(hook);
			mnl_attr_for_each_nested(
				devs, hook) if (mnl_attr_get_type(devs) == NFTA_FLOWTABLE_HOOK_DEVS)
				mnl_attr_for_each_nested(d, devs) here++;
			assert_in_range(here, 1, 255);
			named += here;
		}
		assert_int_equal(named, counts[i]);
		nft_batch_done(&b);
	}
	free(devices);
}

/* What the kernel points at: the table, or one of the devices. */
static void test_whose_fault(void **state)
{
	const struct device devices[] = {{.name = "eth0"}, {.name = "eth1"}};
	struct nft_failure f = {.code = -ENOENT};
	const struct nlattr *attr, *devs, *d;
	struct nft_batch b = {0};
	struct error err = {0};
	char name[IFNAMSIZ];

	(void)state;
	nft_put_devices(&b, true, devices, 2);
	mnl_attr_for_each(attr, message(&b, 0), sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) == NFTA_FLOWTABLE_TABLE)
			f.offset = offset_of(message(&b, 0), attr);
	}
	assert_true(nft_failure_of_all(&b, &f));
	assert_false(nft_failure_device(&b, &f, name)); /* NFTA_DEVICE_NAME is 1, too */
	mnl_attr_for_each(attr, message(&b, 0), sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) != NFTA_FLOWTABLE_HOOK)
			continue;
		mnl_attr_for_each_nested(devs, attr)
		{
			if (mnl_attr_get_type(devs) != NFTA_FLOWTABLE_HOOK_DEVS)
				continue;
			mnl_attr_for_each_nested(d, devs) f.offset = offset_of(message(&b, 0), d);
		}
	}
	assert_false(nft_failure_of_all(&b, &f));
	assert_true(nft_failure_device(&b, &f, name));
	assert_string_equal(name, "eth1");
	snprintf(f.text, sizeof(f.text), "words of the kernel");
	assert_int_equal(nft_failure_error(&b, &f, &err), -ENOENT);
	assert_string_equal(err.object, "device eth1");
	assert_non_null(strstr(err.what, "words of the kernel"));
	nft_put_delete_table(&b);
	f = (struct nft_failure){.code = -ENOENT, .message = b.n - 1};
	nft_failure_error(&b, &f, &err);
	assert_non_null(strstr(err.mend, "nft_flow_offload"));
	f = (struct nft_failure){.code = -ENOBUFS, .message = SIZE_MAX};
	assert_true(nft_failure_of_all(&b, &f));
	nft_failure_error(&b, &f, &err);
	assert_string_equal(err.object, "table inet slipstream");
	nft_batch_done(&b);
}

/* In a user namespace nobody may exceed net.core.wmem_max: said before anything is sent, with what to do. */
static void try_too_large(void)
{
	struct element_list list = addresses(400000);
	struct nft_failure f;
	struct nft_batch b = {0};
	struct error err = {0};
	struct nft_socket s;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 || nft_socket_open(&s, &err) < 0)
		_exit(77);
	nft_put_elements(&b, SET_REMOTE_PODS4, true, list.items, list.n);
	if (nft_batch_send(&s, &b, true, &f) != -EMSGSIZE || f.message != SIZE_MAX)
		_exit(1);
	nft_failure_error(&b, &f, &err);
	_exit(strstr(err.mend, "net.core.wmem_max") ? 0 : 2);
}

static void test_larger_than_the_send_buffer(void **state)
{
	pid_t child;
	int status;

	(void)state;
	child = fork();
	if (!child)
		try_too_large();
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_generation_stands_at_the_beginning),
		cmocka_unit_test(test_borders_of_elements),
		cmocka_unit_test(test_borders_of_devices),
		cmocka_unit_test(test_whose_fault),
		cmocka_unit_test(test_larger_than_the_send_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
