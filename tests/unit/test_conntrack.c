/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/conntrack_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SEQ 7
#define PORT 4711

/* What each message below is made of; a test leaves out or shortens parts of it. */
enum part {
	PART_ORIGINAL = 1 << 0,
	PART_REPLY = 1 << 1,
	PART_STATUS = 1 << 2,
	PART_COUNTERS = 1 << 3,
	PART_ID = 1 << 4,
	PART_ZONE = 1 << 5,
	PART_PROTO = 1 << 6,
	PART_ALL = (1 << 7) - 1,
};

static char buf[8192] __attribute__((aligned(8)));

static void put_tuple(struct nlmsghdr *nlh, uint16_t type, const char *src, const char *dst, uint16_t sport,
	uint16_t dport, unsigned parts)
{
	struct nlattr *tuple = mnl_attr_nest_start(nlh, type), *nest = mnl_attr_nest_start(nlh, CTA_TUPLE_IP);
	struct addr a, b;

	assert_true(addr_parse(src, &a) && addr_parse(dst, &b));
	mnl_attr_put(nlh, a.family == AF_INET ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, addr_size(&a), a.bytes);
	mnl_attr_put(nlh, b.family == AF_INET ? CTA_IP_V4_DST : CTA_IP_V6_DST, addr_size(&b), b.bytes);
	mnl_attr_nest_end(nlh, nest);
	if (parts & PART_PROTO) {
		nest = mnl_attr_nest_start(nlh, CTA_TUPLE_PROTO);
		mnl_attr_put_u8(nlh, CTA_PROTO_NUM, IPPROTO_TCP);
		mnl_attr_put_u16(nlh, CTA_PROTO_SRC_PORT, htons(sport));
		mnl_attr_put_u16(nlh, CTA_PROTO_DST_PORT, htons(dport));
		mnl_attr_nest_end(nlh, nest);
	}
	mnl_attr_nest_end(nlh, tuple);
}

static void put_counters(struct nlmsghdr *nlh, uint16_t type, uint64_t packets, uint64_t bytes)
{
	struct nlattr *nest = mnl_attr_nest_start(nlh, type);

	mnl_attr_put_u64(nlh, CTA_COUNTERS_PACKETS, htobe64(packets));
	mnl_attr_put_u64(nlh, CTA_COUNTERS_BYTES, htobe64(bytes));
	mnl_attr_nest_end(nlh, nest);
}

static struct nlmsghdr *header(void *at, uint16_t type)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(at);

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_MULTI;
	nlh->nlmsg_seq = SEQ;
	nlh->nlmsg_pid = PORT;
	return nlh;
}

#define CT_NEW (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW)

/* A connection of a pod to a Service. */
static struct nlmsghdr *message(void *at, unsigned parts, uint32_t status)
{
	struct nlmsghdr *nlh = header(at, CT_NEW);
	struct nfgenmsg *nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));

	nfg->nfgen_family = AF_INET;
	if (parts & PART_ORIGINAL)
		put_tuple(nlh, CTA_TUPLE_ORIG, "10.244.1.5", "10.96.0.10", 40000, 443, parts);
	if (parts & PART_REPLY)
		put_tuple(nlh, CTA_TUPLE_REPLY, "10.244.2.7", "10.244.1.5", 8443, 40000, parts);
	if (parts & PART_STATUS)
		mnl_attr_put_u32(nlh, CTA_STATUS, htonl(status));
	if (parts & PART_COUNTERS) {
		put_counters(nlh, CTA_COUNTERS_ORIG, 10, 0x123456789abull);
		put_counters(nlh, CTA_COUNTERS_REPLY, 20, 3000);
	}
	if (parts & PART_ID)
		mnl_attr_put_u32(nlh, CTA_ID, htonl(0xdeadbeef));
	if (parts & PART_ZONE)
		mnl_attr_put_u16(nlh, CTA_ZONE, htons(5));
	return nlh;
}

#define assert_addr(a, want)                                                                                 \
	do {                                                                                                 \
		char text_[ADDR_TEXT_SIZE];                                                                  \
		assert_string_equal(addr_text(&(a), text_), want);                                           \
	} while (0)

static void test_whole(void **state)
{
	struct flow f;

	(void)state;
	assert_int_equal(
		conntrack_parse(message(buf, PART_ALL, FLOW_STATUS_OFFLOAD | FLOW_STATUS_DNAT), &f), 0);
	assert_int_equal(f.protocol, IPPROTO_TCP);
	assert_addr(f.original_src, "10.244.1.5");
	assert_addr(f.original_dst, "10.96.0.10");
	assert_addr(f.reply_src, "10.244.2.7");
	assert_addr(f.reply_dst, "10.244.1.5");
	assert_int_equal(f.original_sport, 40000);
	assert_int_equal(f.original_dport, 443);
	assert_int_equal(f.reply_sport, 8443);
	assert_int_equal(f.reply_dport, 40000);
	assert_int_equal(f.status, FLOW_STATUS_OFFLOAD | FLOW_STATUS_DNAT);
	assert_int_equal(f.id, 0xdeadbeef);
	assert_int_equal(f.zone, 5);
	assert_true(f.counted);
	assert_int_equal(f.packets[0], 10);
	assert_int_equal(f.bytes[0], 0x123456789abull);
	assert_int_equal(f.packets[1], 20);
	assert_int_equal(f.bytes[1], 3000);
}

static void test_ipv6(void **state)
{
	struct nlmsghdr *nlh = header(buf, CT_NEW);
	struct flow f;

	(void)state;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct nfgenmsg));
	put_tuple(nlh, CTA_TUPLE_ORIG, "fd00:1::5", "fd96::1", 1, 2, PART_ALL);
	put_tuple(nlh, CTA_TUPLE_REPLY, "fd00:2::7", "fd00:1::5", 3, 1, PART_ALL);
	assert_int_equal(conntrack_parse(nlh, &f), 0);
	assert_addr(f.original_src, "fd00:1::5");
	assert_addr(f.original_dst, "fd96::1");
	assert_addr(f.reply_src, "fd00:2::7");
}

/* Anything but the tuples may be absent. */
static void test_absent(void **state)
{
	struct flow f;

	(void)state;
	assert_int_equal(conntrack_parse(message(buf, PART_ORIGINAL | PART_REPLY | PART_PROTO, 0), &f), 0);
	assert_int_equal(f.status, 0);
	assert_false(f.counted);
	assert_int_equal(f.packets[0], 0);
	assert_int_equal(f.id, 0);
	assert_int_equal(f.zone, 0);
	assert_int_equal(conntrack_parse(message(buf, PART_ALL & ~PART_ORIGINAL, 0), &f), -EBADMSG);
	assert_int_equal(f.id, 0); /* zeroed, not half filled */
	assert_int_equal(conntrack_parse(message(buf, PART_ALL & ~PART_REPLY, 0), &f), -EBADMSG);
	assert_int_equal(conntrack_parse(message(buf, PART_ALL & ~PART_PROTO, 0), &f), -EBADMSG);
	assert_int_equal(conntrack_parse(header(buf, CT_NEW), &f), -EBADMSG);
}

/* Attributes too short for their type count as absent. */
static void test_short_attributes(void **state)
{
	struct nlmsghdr *nlh = message(buf, PART_ORIGINAL | PART_REPLY | PART_PROTO, 0);
	struct nlattr *nest;
	struct flow f;

	(void)state;
	mnl_attr_put(nlh, CTA_STATUS, 2, "\xff\xff");
	mnl_attr_put(nlh, CTA_ID, 0, NULL);
	mnl_attr_put(nlh, CTA_ZONE, 1, "\xff");
	nest = mnl_attr_nest_start(nlh, CTA_COUNTERS_ORIG);
	mnl_attr_put_u32(nlh, CTA_COUNTERS_PACKETS, 0xffffffff);
	mnl_attr_nest_end(nlh, nest);
	assert_int_equal(conntrack_parse(nlh, &f), 0);
	assert_int_equal(f.status, 0);
	assert_int_equal(f.id, 0);
	assert_int_equal(f.zone, 0);
	assert_false(f.counted);

	nlh = header(buf, CT_NEW);
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct nfgenmsg));
	for (unsigned i = CTA_TUPLE_ORIG; i <= CTA_TUPLE_REPLY; i++) {
		struct nlattr *tuple = mnl_attr_nest_start(nlh, (uint16_t)i);

		nest = mnl_attr_nest_start(nlh, CTA_TUPLE_IP);
		mnl_attr_put(nlh, CTA_IP_V6_SRC, 4, "\x0a\x00\x00\x01");
		mnl_attr_put(nlh, CTA_IP_V4_DST, 3, "\x0a\x00\x00");
		mnl_attr_nest_end(nlh, nest);
		mnl_attr_nest_end(nlh, tuple);
	}
	assert_int_equal(conntrack_parse(nlh, &f), -EBADMSG);
}

static void test_zone_of_one_direction(void **state)
{
	struct nlmsghdr *nlh = header(buf, CT_NEW);
	struct nlattr *tuple;
	struct flow f;

	(void)state;
	mnl_nlmsg_put_extra_header(nlh, sizeof(struct nfgenmsg));
	put_tuple(nlh, CTA_TUPLE_ORIG, "10.0.0.1", "10.0.0.2", 1, 2, PART_ALL);
	put_tuple(nlh, CTA_TUPLE_REPLY, "10.0.0.2", "10.0.0.1", 2, 1, PART_ALL);
	tuple = mnl_attr_nest_start(nlh, CTA_TUPLE_ORIG);
	mnl_attr_put_u16(nlh, CTA_TUPLE_ZONE, htons(9));
	mnl_attr_nest_end(nlh, tuple);
	assert_int_equal(conntrack_parse(nlh, &f), 0);
	assert_int_equal(f.zone, 9);
}

struct seen {
	unsigned n;
	int stop_at; /* returns this from the second flow on */
};

static int see(void *arg, const struct flow *f)
{
	struct seen *s = arg;

	assert_true(f->status & FLOW_STATUS_OFFLOAD);
	return ++s->n >= 2 ? s->stop_at : 0;
}

static size_t end_message(size_t at, uint16_t type, int32_t code)
{
	struct nlmsghdr *nlh = header(buf + at, type);
	int32_t *p =
		mnl_nlmsg_put_extra_header(nlh, type == NLMSG_ERROR ? sizeof(struct nlmsgerr) : sizeof(*p));

	*p = code;
	return at + MNL_ALIGN(nlh->nlmsg_len);
}

static void test_dump(void **state)
{
	struct seen seen = {0};
	struct conntrack_dump d = {.seq = SEQ, .portid = PORT, .each = see, .arg = &seen};
	struct error err = {0};
	struct nlmsghdr *nlh;
	size_t n = 0;

	(void)state;
	nlh = message(buf, PART_ALL, FLOW_STATUS_OFFLOAD);
	nlh->nlmsg_flags |= NLM_F_DUMP_INTR; /* complete enough */
	n += MNL_ALIGN(nlh->nlmsg_len);
	n += MNL_ALIGN(
		message(buf + n, PART_ALL, FLOW_STATUS_DNAT)->nlmsg_len); /* the kernel did not filter */
	n += MNL_ALIGN(message(buf + n, PART_STATUS, FLOW_STATUS_OFFLOAD)->nlmsg_len); /* unreadable */
	nlh = message(buf + n, PART_ALL, FLOW_STATUS_OFFLOAD);
	nlh->nlmsg_seq = SEQ - 1; /* of an earlier request */
	n += MNL_ALIGN(nlh->nlmsg_len);
	nlh = message(buf + n, PART_ALL, FLOW_STATUS_OFFLOAD);
	nlh->nlmsg_pid = 0; /* an event */
	n += MNL_ALIGN(nlh->nlmsg_len);
	n += MNL_ALIGN(message(buf + n, PART_ALL, FLOW_STATUS_OFFLOAD)->nlmsg_len);
	assert_int_equal(conntrack_parse_dump(&d, buf, n, &err), 1);
	assert_int_equal(seen.n, 2);
	n += MNL_ALIGN(message(buf + n, PART_ALL, FLOW_STATUS_OFFLOAD)->nlmsg_len);
	seen.n = 0;
	n = end_message(n, NLMSG_DONE, 0);
	assert_int_equal(conntrack_parse_dump(&d, buf, n, &err), 0);
	assert_int_equal(seen.n, 3);
	assert_int_equal(d.result, 0);

	/* 'each' ends it: not called again, the rest is read all the same. */
	seen = (struct seen){.stop_at = -ECANCELED};
	assert_int_equal(conntrack_parse_dump(&d, buf, n, &err), 0);
	assert_int_equal(seen.n, 2);
	assert_int_equal(d.result, -ECANCELED);
	assert_int_equal(err.code, 0);
}

static void test_refusals(void **state)
{
	struct seen seen = {0};
	struct conntrack_dump d = {.seq = SEQ, .portid = PORT, .each = see, .arg = &seen};
	struct error err = {0};
	struct nlmsghdr *nlh;

	(void)state;
	assert_int_equal(conntrack_parse_dump(&d, buf, end_message(0, NLMSG_ERROR, -EPERM), &err), -EPERM);
	assert_non_null(strstr(err.mend, "CAP_NET_ADMIN"));
	assert_int_equal(conntrack_parse_dump(&d, buf, end_message(0, NLMSG_ERROR, -EINVAL), &err), -EINVAL);
	assert_non_null(strstr(err.mend, "nf_conntrack_netlink"));
	assert_int_equal(conntrack_parse_dump(&d, buf, end_message(0, NLMSG_DONE, -EBUSY), &err), -EBUSY);
	assert_int_equal(conntrack_parse_dump(&d, buf, end_message(0, NLMSG_ERROR, 0), &err), 0);
	nlh = header(buf, NLMSG_ERROR);
	assert_int_equal(conntrack_parse_dump(&d, buf, nlh->nlmsg_len, &err), -EBADMSG);
	assert_int_equal(conntrack_parse_dump(&d, buf, 7, &err), -EBADMSG);
	assert_int_equal(conntrack_parse_dump(&d, buf, 0, &err), 1);
	/* A message that claims more than was received. */
	nlh = message(buf, PART_ALL, FLOW_STATUS_OFFLOAD);
	assert_int_equal(conntrack_parse_dump(&d, buf, nlh->nlmsg_len - 4, &err), -EBADMSG);
	assert_int_equal(seen.n, 0);
}

/* Every cut and every damaged byte of a message: no read outside it (the sanitizers look), no endless loop.
 */
static void test_damage(void **state)
{
	struct nlmsghdr *whole = message(buf, PART_ALL, FLOW_STATUS_OFFLOAD);
	size_t len = whole->nlmsg_len;
	struct flow f;

	(void)state;
	for (size_t cut = MNL_NLMSG_HDRLEN; cut <= len; cut++) {
		CLEANUP_FREE struct nlmsghdr *nlh = xmemdup(buf, cut);

		nlh->nlmsg_len = (uint32_t)cut;
		(void)conntrack_parse(nlh, &f);
	}
	for (size_t at = MNL_NLMSG_HDRLEN; at < len; at++)
		for (unsigned v = 0; v < 256; v += 15) {
			CLEANUP_FREE struct nlmsghdr *nlh = xmemdup(buf, len);

			((uint8_t *)nlh)[at] = (uint8_t)v;
			(void)conntrack_parse(nlh, &f);
		}
}

static void test_request(void **state)
{
	char request[CONNTRACK_REQUEST_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = conntrack_request(request, 3);
	unsigned found = 0;
	struct nlattr *a;

	(void)state;
	assert_true(nlh->nlmsg_len <= sizeof(request));
	assert_int_equal(nlh->nlmsg_seq, 3);
	assert_int_equal(nlh->nlmsg_type, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET);
	assert_int_equal(nlh->nlmsg_flags, NLM_F_REQUEST | NLM_F_DUMP);
	mnl_attr_for_each(a, nlh, sizeof(struct nfgenmsg))
	{
		assert_int_equal(mnl_attr_get_u32(a), htonl(1 << 14));
		found |= 1u << mnl_attr_get_type(a);
	}
	assert_int_equal(found, 1u << CTA_STATUS | 1u << CTA_STATUS_MASK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_short_attributes),
		cmocka_unit_test(test_zone_of_one_direction),
		cmocka_unit_test(test_dump),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_request),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
