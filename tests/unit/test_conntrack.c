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

static const struct nlattr *attr_of(const struct nlattr *nest, uint16_t type)
{
	const struct nlattr *a;

	mnl_attr_for_each_nested(a, nest) if (mnl_attr_get_type(a) == type) return a;
	return NULL;
}

static void assert_payload(const struct nlattr *a, const void *want, size_t len)
{
	assert_non_null(a);
	assert_int_equal(mnl_attr_get_payload_len(a), len);
	assert_memory_equal(mnl_attr_get_payload(a), want, len);
}

static struct addr ip(const char *text)
{
	struct addr a;

	assert_true(addr_parse(text, &a));
	return a;
}

/* A request to delete is about this one entry and never about all of them. */
static void test_delete_request(void **state)
{
	struct flow f = {.protocol = IPPROTO_UDP,
		.original_src = ip("fd00::1"),
		.original_dst = ip("fd96::a"),
		.original_sport = 40000,
		.original_dport = 53,
		.id = 0x01020304,
		.zone = 7};
	char request[CONNTRACK_DELETE_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = conntrack_delete_request(request, 9, &f);
	const struct nlattr *a, *tuple = NULL, *id = NULL, *zone = NULL, *nest;

	(void)state;
	assert_true(nlh->nlmsg_len <= sizeof(request));
	assert_int_equal(nlh->nlmsg_seq, 9);
	assert_int_equal(nlh->nlmsg_type, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE);
	assert_int_equal(nlh->nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK);
	assert_int_equal(((struct nfgenmsg *)mnl_nlmsg_get_payload(nlh))->nfgen_family, AF_INET6);
	mnl_attr_for_each(a, nlh, sizeof(struct nfgenmsg))
	{
		switch (mnl_attr_get_type(a)) {
		case CTA_TUPLE_ORIG:
			tuple = a;
			break;
		case CTA_ID:
			id = a;
			break;
		case CTA_ZONE:
			zone = a;
			break;
		default:
			fail_msg("attribute %u", mnl_attr_get_type(a));
		}
	}
	assert_payload(id, "\1\2\3\4", 4);
	assert_payload(zone, "\0\7", 2);
	assert_non_null(tuple);
	nest = attr_of(tuple, CTA_TUPLE_IP);
	assert_non_null(nest);
	assert_payload(attr_of(nest, CTA_IP_V6_SRC), f.original_src.bytes, 16);
	assert_payload(attr_of(nest, CTA_IP_V6_DST), f.original_dst.bytes, 16);
	nest = attr_of(tuple, CTA_TUPLE_PROTO);
	assert_non_null(nest);
	assert_payload(attr_of(nest, CTA_PROTO_NUM), "\x11", 1);
	assert_payload(attr_of(nest, CTA_PROTO_SRC_PORT), "\x9c\x40", 2);
	assert_payload(attr_of(nest, CTA_PROTO_DST_PORT), "\0\x35", 2);
}

static void test_ack(void **state)
{
	struct nlmsghdr *nlh;
	size_t n;

	(void)state;
	assert_int_equal(conntrack_parse_ack(buf, end_message(0, NLMSG_ERROR, 0), SEQ, PORT), 0);
	n = end_message(0, NLMSG_ERROR, -ENOENT);
	assert_int_equal(conntrack_parse_ack(buf, n, SEQ, PORT), -ENOENT);
	assert_int_equal(conntrack_parse_ack(buf, n, SEQ + 1, PORT), 1);
	assert_int_equal(conntrack_parse_ack(buf, n, SEQ, PORT + 1), 1);
	assert_int_equal(conntrack_parse_ack(buf, n - 4, SEQ, PORT), -EBADMSG);
	assert_int_equal(conntrack_parse_ack(buf, 0, SEQ, PORT), 1);
	assert_int_equal(conntrack_parse_ack(buf, end_message(0, NLMSG_ERROR, 1), SEQ, PORT), -EBADMSG);
	nlh = header(buf, NLMSG_ERROR);
	assert_int_equal(conntrack_parse_ack(buf, nlh->nlmsg_len, SEQ, PORT), -EBADMSG);
	/* The dump's rest before it. */
	n = MNL_ALIGN(message(buf, PART_ALL, FLOW_STATUS_OFFLOAD)->nlmsg_len);
	assert_int_equal(conntrack_parse_ack(buf, end_message(n, NLMSG_ERROR, -EBUSY), SEQ, PORT), -EBUSY);
}

/*
 * A kernel in place of libmnl's sockets, for what no kernel of the lab has: one that refuses. It lists 'table' and
 * deletes by CTA_ID, with 'answer'.
 */
#define TABLE 7
static struct {
	struct flow table[TABLE];
	int answer[TABLE];
	bool deleted[TABLE];
	unsigned opened, closed, dumps, deletes;
	int send_fails; /* errno */
	size_t n;       /* bytes in 'buf' that wait for their reader */
} kernel;

struct mnl_socket *mnl_socket_open2(int bus, int flags)
{
	assert_int_equal(bus, NETLINK_NETFILTER);
	(void)flags;
	kernel.opened++;
	return (struct mnl_socket *)&kernel;
}

int mnl_socket_bind(struct mnl_socket *nl, unsigned groups, pid_t pid)
{
	(void)nl;
	(void)groups;
	(void)pid;
	return 0;
}

int mnl_socket_close(struct mnl_socket *nl)
{
	(void)nl;
	kernel.closed++;
	kernel.n = 0;
	return 0;
}

unsigned mnl_socket_get_portid(const struct mnl_socket *nl)
{
	(void)nl;
	return PORT;
}

int mnl_socket_get_fd(const struct mnl_socket *nl)
{
	(void)nl;
	return -1;
}

static void put_flow(struct nlmsghdr *nlh, uint16_t type, const struct addr *src, const struct addr *dst,
	uint16_t sport, uint16_t dport, uint8_t protocol)
{
	struct nlattr *tuple = mnl_attr_nest_start(nlh, type), *nest = mnl_attr_nest_start(nlh, CTA_TUPLE_IP);
	bool v4 = src->family == AF_INET;

	mnl_attr_put(nlh, v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, addr_size(src), src->bytes);
	mnl_attr_put(nlh, v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, addr_size(dst), dst->bytes);
	mnl_attr_nest_end(nlh, nest);
	nest = mnl_attr_nest_start(nlh, CTA_TUPLE_PROTO);
	mnl_attr_put_u8(nlh, CTA_PROTO_NUM, protocol);
	mnl_attr_put_u16(nlh, CTA_PROTO_SRC_PORT, htons(sport));
	mnl_attr_put_u16(nlh, CTA_PROTO_DST_PORT, htons(dport));
	mnl_attr_nest_end(nlh, nest);
	mnl_attr_nest_end(nlh, tuple);
}

static void answer_dump(uint32_t seq)
{
	struct nlmsghdr *nlh;

	kernel.dumps++;
	for (size_t i = 0; i < TABLE; i++) {
		const struct flow *f = &kernel.table[i];

		if (kernel.deleted[i])
			continue;
		nlh = header(buf + kernel.n, CT_NEW);
		nlh->nlmsg_seq = seq;
		mnl_nlmsg_put_extra_header(nlh, sizeof(struct nfgenmsg));
		put_flow(nlh, CTA_TUPLE_ORIG, &f->original_src, &f->original_dst, f->original_sport,
			f->original_dport, f->protocol);
		put_flow(nlh, CTA_TUPLE_REPLY, &f->reply_src, &f->reply_dst, f->reply_sport, f->reply_dport,
			f->protocol);
		mnl_attr_put_u32(nlh, CTA_STATUS, htonl(f->status));
		mnl_attr_put_u32(nlh, CTA_ID, htonl(f->id));
		kernel.n += MNL_ALIGN(nlh->nlmsg_len);
	}
	nlh = (struct nlmsghdr *)(buf + kernel.n);
	kernel.n = end_message(kernel.n, NLMSG_DONE, 0);
	nlh->nlmsg_seq = seq;
}

static void answer_delete(const struct nlmsghdr *request)
{
	int code = -ENOENT;
	struct nlattr *a;

	kernel.deletes++;
	mnl_attr_for_each(a, request, sizeof(struct nfgenmsg)) if (mnl_attr_get_type(a) == CTA_ID)
	{
		unsigned i = ntohl(mnl_attr_get_u32(a)) - 1;

		assert_true(i < TABLE && !kernel.deleted[i]);
		code = kernel.answer[i];
		kernel.deleted[i] = !code;
	}
	kernel.n = end_message(0, NLMSG_ERROR, code);
	((struct nlmsghdr *)buf)->nlmsg_seq = request->nlmsg_seq;
}

ssize_t mnl_socket_sendto(const struct mnl_socket *nl, const void *request, size_t len)
{
	const struct nlmsghdr *nlh = request;

	(void)nl;
	assert_int_equal(kernel.n, 0); /* what came before was read */
	assert_int_equal(len, nlh->nlmsg_len);
	if (kernel.send_fails) {
		errno = kernel.send_fails;
		kernel.send_fails = 0;
		return -1;
	}
	if (nlh->nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET))
		answer_dump(nlh->nlmsg_seq);
	else
		answer_delete(nlh);
	return (ssize_t)len;
}

ssize_t mnl_socket_recvfrom(const struct mnl_socket *nl, void *to, size_t len)
{
	size_t n = kernel.n;

	(void)nl;
	assert_true(n && n <= len);
	memcpy(to, buf, n);
	kernel.n = 0;
	return (ssize_t)n;
}

/* A client of a Service, whose endpoint is 'endpoint' port 'port'. */
static struct flow to_endpoint(uint32_t id, uint8_t protocol, const char *endpoint, uint16_t port)
{
	bool v4 = !strchr(endpoint, ':');
	struct addr client = ip(v4 ? "10.244.1.5" : "fd00:1::5");

	return (struct flow){.protocol = protocol,
		.original_src = client,
		.original_dst = ip(v4 ? "10.96.0.10" : "fd96::10"),
		.original_sport = (uint16_t)(40000 + id),
		.original_dport = 53,
		.reply_src = ip(endpoint),
		.reply_dst = client,
		.reply_sport = port,
		.reply_dport = (uint16_t)(40000 + id),
		.status = FLOW_STATUS_OFFLOAD | FLOW_STATUS_DNAT,
		.id = id};
}

static void new_kernel(void)
{
	memset(&kernel, 0, sizeof(kernel));
	kernel.table[0] = to_endpoint(1, IPPROTO_UDP, "10.244.2.7", 5353);
	kernel.table[1] = to_endpoint(2, IPPROTO_TCP, "10.244.2.7", 5353); /* TCP is never ended */
	kernel.table[2] = to_endpoint(3, IPPROTO_UDP, "10.244.2.7", 5354);
	kernel.table[3] = to_endpoint(4, IPPROTO_UDP, "10.244.2.8", 5353);
	kernel.table[4] = to_endpoint(5, IPPROTO_UDP, "fd00:2::7", 443);
	kernel.table[5] = to_endpoint(6, IPPROTO_UDP, "10.244.2.7", 5353);
	kernel.table[5].status = FLOW_STATUS_DNAT; /* not offloaded, and the kernel does not filter */
	kernel.table[6] = to_endpoint(7, IPPROTO_UDP, "10.244.2.7", 5353);
}

static void note_ended(void *arg, const struct flow *f)
{
	*(unsigned *)arg |= 1u << f->id;
}

static const char *deleted(void)
{
	static char text[TABLE + 1];

	for (size_t i = 0; i < TABLE; i++)
		text[i] = kernel.deleted[i] ? 'x' : '.';
	return text;
}

static void test_end_udp(void **state)
{
	struct udp_endpoint from[] = {
		{ip("10.244.2.7"), 5353}, {ip("10.244.2.9"), 5353}, {ip("fd00:2::7"), 443}};
	struct conntrack *ct;
	struct error err = {0};
	unsigned ended = 0;

	(void)state;
	new_kernel();
	assert_int_equal(conntrack_open(&ct, &err), 0);
	for (size_t i = 1; i < ARRAY_SIZE(from); i++)
		assert_true(udp_endpoint_cmp(&from[i - 1], &from[i]) < 0 &&
			    udp_endpoint_cmp(&from[i], &from[i - 1]) > 0);
	assert_int_equal(conntrack_end_udp(ct, from, ARRAY_SIZE(from), note_ended, &ended, &err), 3);
	assert_string_equal(deleted(), "x...x.x");
	assert_int_equal(ended, 1u << 1 | 1u << 5 | 1u << 7);
	assert_int_equal(kernel.dumps, 1); /* however many endpoints there are */
	assert_int_equal(conntrack_end_udp(ct, from, ARRAY_SIZE(from), note_ended, &ended, &err), 0);
	assert_int_equal(kernel.deletes, 3);
	/* Somebody else was first. */
	new_kernel();
	kernel.answer[0] = -ENOENT;
	ended = 0;
	assert_int_equal(conntrack_end_udp(ct, from, ARRAY_SIZE(from), note_ended, &ended, &err), 2);
	assert_int_equal(ended, 1u << 5 | 1u << 7);
	assert_false(conntrack_cannot_end(ct));
	assert_int_equal(err.code, 0);
	conntrack_close(ct);
}

/* Kernels before the fix: said, and never asked again. */
static void test_kernel_that_cannot(void **state)
{
	struct udp_endpoint from[] = {{ip("10.244.2.7"), 5353}};
	struct conntrack *ct;
	struct error err = {0};
	unsigned ended = 0;

	(void)state;
	new_kernel();
	for (size_t i = 0; i < TABLE; i++)
		kernel.answer[i] = -EBUSY;
	assert_int_equal(conntrack_open(&ct, &err), 0);
	assert_false(conntrack_cannot_end(ct));
	for (unsigned i = 0; i < 3; i++) {
		err = (struct error){0};
		assert_int_equal(conntrack_end_udp(ct, from, 1, note_ended, &ended, &err), -EBUSY);
		assert_string_equal(err.what, "this kernel cannot end offloaded connections");
		assert_true(conntrack_cannot_end(ct));
	}
	assert_int_equal(kernel.dumps, 1);
	assert_int_equal(kernel.deletes, 1);
	assert_int_equal(ended, 0);
	conntrack_close(ct);
}

static void test_end_fails(void **state)
{
	struct udp_endpoint from[] = {{ip("10.244.2.7"), 5353}};
	struct conntrack *ct;
	struct error err = {0};
	unsigned ended = 0;

	(void)state;
	new_kernel();
	kernel.answer[0] = -EPERM;
	assert_int_equal(conntrack_open(&ct, &err), 0);
	assert_int_equal(conntrack_end_udp(ct, from, 1, note_ended, &ended, &err), -EPERM);
	assert_non_null(strstr(err.what, "Operation not permitted"));
	assert_int_equal(kernel.closed, 0); /* the kernel has answered */
	/* The next call asks again, and a request that got nowhere has it open another socket. */
	kernel.send_fails = ENOBUFS;
	assert_int_equal(conntrack_end_udp(ct, from, 1, note_ended, &ended, &err), -ENOBUFS);
	assert_int_equal(kernel.closed, 1);
	kernel.answer[0] = 0;
	assert_int_equal(conntrack_end_udp(ct, from, 1, note_ended, &ended, &err), 2);
	assert_string_equal(deleted(), "x.....x");
	assert_int_equal(kernel.opened, 2);
	assert_false(conntrack_cannot_end(ct));
	conntrack_close(ct);
	assert_int_equal(kernel.closed, 2);
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
		cmocka_unit_test(test_delete_request),
		cmocka_unit_test(test_ack),
		cmocka_unit_test(test_end_udp),
		cmocka_unit_test(test_kernel_that_cannot),
		cmocka_unit_test(test_end_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
