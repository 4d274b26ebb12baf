/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/conntrack_private.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define OBJECT "connection table"
/* Room for what the kernel sends while we work on what it sent before. */
#define RECEIVE_BUFFER (1 << 20)
/* The kernel fills at most 32 KiB per read of a dump (netlink_dump(): max_recvmsg_len). */
#define READ_SIZE (64 << 10)

struct conntrack {
	struct mnl_socket *nl; /* NULL after an error: opened again by the next dump */
	uint32_t seq;
	bool cannot_end;
	char buf[READ_SIZE] __attribute__((aligned(8)));
};

static bool has_size(const struct nlattr *a, size_t size)
{
	return mnl_attr_get_payload_len(a) >= size;
}

/* Attributes carry no alignment promise for 64 bits. */
static uint16_t get_be16(const struct nlattr *a)
{
	uint16_t v;

	memcpy(&v, mnl_attr_get_payload(a), sizeof(v));
	return ntohs(v);
}

static uint32_t get_be32(const struct nlattr *a)
{
	uint32_t v;

	memcpy(&v, mnl_attr_get_payload(a), sizeof(v));
	return ntohl(v);
}

static uint64_t get_be64(const struct nlattr *a)
{
	uint64_t v;

	memcpy(&v, mnl_attr_get_payload(a), sizeof(v));
	return be64toh(v);
}

struct tuple {
	struct addr src, dst;
	uint16_t sport, dport, zone;
	uint8_t protocol;
	bool has_protocol;
};

static void parse_ip(const struct nlattr *nest, struct tuple *t)
{
	const struct nlattr *a;

	mnl_attr_for_each_nested(a, nest)
	{
		uint16_t type = mnl_attr_get_type(a);
		uint8_t family = type == CTA_IP_V4_SRC || type == CTA_IP_V4_DST ? AF_INET : AF_INET6;

		if (type < CTA_IP_V4_SRC || type > CTA_IP_V6_DST || !has_size(a, family == AF_INET ? 4 : 16))
			continue;
		*(type == CTA_IP_V4_SRC || type == CTA_IP_V6_SRC ? &t->src : &t->dst) =
			addr_from_bytes(family, mnl_attr_get_payload(a));
	}
}

static void parse_proto(const struct nlattr *nest, struct tuple *t)
{
	const struct nlattr *a;

	mnl_attr_for_each_nested(a, nest)
	{
		uint16_t type = mnl_attr_get_type(a);

		if (type == CTA_PROTO_NUM && has_size(a, 1)) {
			t->protocol = mnl_attr_get_u8(a);
			t->has_protocol = true;
		} else if (type == CTA_PROTO_SRC_PORT && has_size(a, 2)) {
			t->sport = get_be16(a);
		} else if (type == CTA_PROTO_DST_PORT && has_size(a, 2)) {
			t->dport = get_be16(a);
		}
	}
}

static void parse_tuple(const struct nlattr *nest, struct tuple *t)
{
	const struct nlattr *a;

	mnl_attr_for_each_nested(a, nest)
	{
		uint16_t type = mnl_attr_get_type(a);

		if (type == CTA_TUPLE_IP)
			parse_ip(a, t);
		else if (type == CTA_TUPLE_PROTO)
			parse_proto(a, t);
		else if (type == CTA_TUPLE_ZONE && has_size(a, 2))
			t->zone = get_be16(a);
	}
}

static bool tuple_is_whole(const struct tuple *t)
{
	return t->has_protocol && t->src.family && t->src.family == t->dst.family;
}

static void parse_counters(const struct nlattr *nest, unsigned direction, struct flow *f)
{
	const struct nlattr *a;

	mnl_attr_for_each_nested(a, nest)
	{
		uint16_t type = mnl_attr_get_type(a);

		if (!has_size(a, 8))
			continue;
		if (type == CTA_COUNTERS_PACKETS)
			f->packets[direction] = get_be64(a);
		else if (type == CTA_COUNTERS_BYTES)
			f->bytes[direction] = get_be64(a);
		else
			continue;
		f->counted = true;
	}
}

int conntrack_parse(const struct nlmsghdr *nlh, struct flow *ret)
{
	struct tuple original = {0}, reply = {0};
	struct flow f = {0};
	const size_t headers = MNL_NLMSG_HDRLEN + MNL_ALIGN(sizeof(struct nfgenmsg));
	const void *payload = (const char *)nlh + headers;
	const struct nlattr *attr;

	*ret = f;
	if (nlh->nlmsg_len < headers)
		return -EBADMSG;
	/* Not mnl_attr_for_each(): it rounds the end up, past what a message of odd length has. */
	mnl_attr_for_each_payload(payload, nlh->nlmsg_len - headers)
	{
		switch (mnl_attr_get_type(attr)) {
		case CTA_TUPLE_ORIG:
			parse_tuple(attr, &original);
			break;
		case CTA_TUPLE_REPLY:
			parse_tuple(attr, &reply);
			break;
		case CTA_STATUS:
			if (has_size(attr, 4))
				f.status = get_be32(attr);
			break;
		case CTA_ID:
			if (has_size(attr, 4))
				f.id = get_be32(attr);
			break;
		case CTA_ZONE:
			if (has_size(attr, 2))
				f.zone = get_be16(attr);
			break;
		case CTA_COUNTERS_ORIG:
			parse_counters(attr, 0, &f);
			break;
		case CTA_COUNTERS_REPLY:
			parse_counters(attr, 1, &f);
			break;
		}
	}
	if (!tuple_is_whole(&original) || !tuple_is_whole(&reply))
		return -EBADMSG;
	f.protocol = original.protocol;
	f.original_src = original.src;
	f.original_dst = original.dst;
	f.original_sport = original.sport;
	f.original_dport = original.dport;
	f.reply_src = reply.src;
	f.reply_dst = reply.dst;
	f.reply_sport = reply.sport;
	f.reply_dport = reply.dport;
	if (!f.zone)
		f.zone = original.zone; /* a zone of one direction only is in that tuple */
	*ret = f;
	return 0;
}

static int refused(int code, struct error *err)
{
	const char *mend = code == -EPERM    ? "give the process CAP_NET_ADMIN"
			   : code == -EINVAL ? "load the module nf_conntrack_netlink"
					     : NULL;

	return error_set(err, code, OBJECT, mend, "the kernel refused to list it: %s", strerror(-code));
}

/* NLMSG_ERROR, or NLMSG_DONE, which ends with the same number. */
static int parse_end(const struct nlmsghdr *nlh, struct error *err)
{
	int32_t code = 0;

	if (nlh->nlmsg_len >= MNL_NLMSG_HDRLEN + sizeof(code))
		memcpy(&code, mnl_nlmsg_get_payload(nlh), sizeof(code));
	else if (nlh->nlmsg_type == NLMSG_ERROR)
		return error_set(err, -EBADMSG, OBJECT, NULL, "the kernel's error message is cut short");
	return code < 0 ? refused(code, err) : 0;
}

int conntrack_parse_dump(struct conntrack_dump *d, const void *buf, size_t len, struct error *err)
{
	const struct nlmsghdr *nlh = buf;
	int left = (int)len;
	struct flow f;

	for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
		if (nlh->nlmsg_seq != d->seq || nlh->nlmsg_pid != d->portid)
			continue;
		if (nlh->nlmsg_type == NLMSG_DONE || nlh->nlmsg_type == NLMSG_ERROR)
			return parse_end(nlh, err);
		if (nlh->nlmsg_type != (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW))
			continue;
		if (d->result || conntrack_parse(nlh, &f) < 0 || !(f.status & FLOW_STATUS_OFFLOAD))
			continue;
		d->result = d->each(d->arg, &f);
	}
	if (left > 0)
		return error_set(err, -EBADMSG, OBJECT, NULL, "the kernel's answer is cut short");
	return 1;
}

/* A kernel without the status filter (before 5.15) passes over these attributes and lists every entry. */
struct nlmsghdr *conntrack_request(void *buf, uint32_t seq)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *nfg;

	nlh->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	nlh->nlmsg_seq = seq;
	nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
	nfg->nfgen_family = AF_UNSPEC;
	nfg->version = NFNETLINK_V0;
	mnl_attr_put_u32(nlh, CTA_STATUS, htonl(FLOW_STATUS_OFFLOAD));
	mnl_attr_put_u32(nlh, CTA_STATUS_MASK, htonl(FLOW_STATUS_OFFLOAD));
	return nlh;
}

static int open_socket(struct conntrack *ct, struct error *err)
{
	int size = RECEIVE_BUFFER, code;

	ct->nl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	if (!ct->nl || mnl_socket_bind(ct->nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		code = -errno;
		if (ct->nl)
			mnl_socket_close(TAKE_PTR(ct->nl));
		return error_set(
			err, code, OBJECT, NULL, "cannot open a netlink socket: %s", strerror(-code));
	}
	/* Without the privilege the usual size has to do: a dump waits for its reader. */
	if (setsockopt(mnl_socket_get_fd(ct->nl), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(mnl_socket_get_fd(ct->nl), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	return 0;
}

int conntrack_open(struct conntrack **ret, struct error *err)
{
	struct conntrack *ct = xcalloc(1, sizeof(*ct));
	int r = open_socket(ct, err);

	*ret = NULL;
	if (r < 0) {
		free(ct);
		return r;
	}
	*ret = ct;
	return 0;
}

void conntrack_close(struct conntrack *ct)
{
	if (!ct)
		return;
	if (ct->nl)
		mnl_socket_close(ct->nl);
	free(ct);
}

static int receive(struct conntrack *ct, struct conntrack_dump *d, struct error *err)
{
	for (;;) {
		ssize_t n = mnl_socket_recvfrom(ct->nl, ct->buf, sizeof(ct->buf));
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(err, -errno, OBJECT, NULL, "reading it failed: %s", strerror(errno));
		r = conntrack_parse_dump(d, ct->buf, (size_t)n, err);
		if (r <= 0)
			return r;
	}
}

int conntrack_each_offloaded(
	struct conntrack *ct, int (*each)(void *arg, const struct flow *f), void *arg, struct error *err)
{
	char request[CONNTRACK_REQUEST_SIZE] __attribute__((aligned(8)));
	struct conntrack_dump d = {.each = each, .arg = arg};
	struct nlmsghdr *nlh;
	int r;

	if (!ct->nl) {
		r = open_socket(ct, err);
		if (r < 0)
			return r;
	}
	d.seq = ++ct->seq;
	d.portid = mnl_socket_get_portid(ct->nl);
	nlh = conntrack_request(request, d.seq);
	if (mnl_socket_sendto(ct->nl, nlh, nlh->nlmsg_len) < 0)
		r = error_set(err, -errno, OBJECT, NULL, "asking for it failed: %s", strerror(errno));
	else
		r = receive(ct, &d, err);
	if (r < 0)
		mnl_socket_close(TAKE_PTR(ct->nl)); /* what may still come belongs to no request */
	return r < 0 ? r : d.result;
}

int udp_endpoint_cmp(const void *a, const void *b)
{
	const struct udp_endpoint *x = a, *y = b;
	int c = addr_cmp(&x->addr, &y->addr);

	return c ? c : (x->port > y->port) - (x->port < y->port);
}

static void put_be16(struct nlmsghdr *nlh, uint16_t type, uint16_t value)
{
	mnl_attr_put_u16(nlh, type, htons(value));
}

static void put_addr(struct nlmsghdr *nlh, uint16_t v4, uint16_t v6, const struct addr *a)
{
	mnl_attr_put(nlh, a->family == AF_INET ? v4 : v6, addr_size(a), a->bytes);
}

struct nlmsghdr *conntrack_delete_request(void *buf, uint32_t seq, const struct flow *f)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nlattr *tuple, *nest;
	struct nfgenmsg *nfg;

	nlh->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	nlh->nlmsg_seq = seq;
	nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
	nfg->nfgen_family = f->original_src.family;
	nfg->version = NFNETLINK_V0;
	tuple = mnl_attr_nest_start(nlh, CTA_TUPLE_ORIG);
	nest = mnl_attr_nest_start(nlh, CTA_TUPLE_IP);
	put_addr(nlh, CTA_IP_V4_SRC, CTA_IP_V6_SRC, &f->original_src);
	put_addr(nlh, CTA_IP_V4_DST, CTA_IP_V6_DST, &f->original_dst);
	mnl_attr_nest_end(nlh, nest);
	nest = mnl_attr_nest_start(nlh, CTA_TUPLE_PROTO);
	mnl_attr_put_u8(nlh, CTA_PROTO_NUM, f->protocol);
	put_be16(nlh, CTA_PROTO_SRC_PORT, f->original_sport);
	put_be16(nlh, CTA_PROTO_DST_PORT, f->original_dport);
	mnl_attr_nest_end(nlh, nest);
	mnl_attr_nest_end(nlh, tuple);
	if (f->zone) /* a kernel without zones refuses the attribute */
		put_be16(nlh, CTA_ZONE, f->zone);
	mnl_attr_put_u32(nlh, CTA_ID, htonl(f->id));
	return nlh;
}

int conntrack_parse_ack(const void *buf, size_t len, uint32_t seq, uint32_t portid)
{
	const struct nlmsghdr *nlh = buf;
	int left = (int)len;
	int32_t code;

	for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
		if (nlh->nlmsg_seq != seq || nlh->nlmsg_pid != portid || nlh->nlmsg_type != NLMSG_ERROR)
			continue;
		if (nlh->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(code))
			return -EBADMSG;
		memcpy(&code, mnl_nlmsg_get_payload(nlh), sizeof(code));
		return code <= 0 ? code : -EBADMSG;
	}
	return left > 0 ? -EBADMSG : 1;
}

/* 0: deleted, or a negative errno; without a socket then, when it is not the kernel's answer. */
static int delete_one(struct conntrack *ct, const struct flow *f)
{
	char request[CONNTRACK_DELETE_SIZE] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = conntrack_delete_request(request, ++ct->seq, f);
	bool answered = true;
	ssize_t n;
	int r = 1;

	if (mnl_socket_sendto(ct->nl, nlh, nlh->nlmsg_len) < 0) {
		r = -errno;
		answered = false;
	}
	while (r > 0) {
		n = mnl_socket_recvfrom(ct->nl, ct->buf, sizeof(ct->buf));
		if (n < 0 && errno == EINTR)
			continue;
		answered = n >= 0;
		r = n < 0 ? -errno
			  : conntrack_parse_ack(ct->buf, (size_t)n, ct->seq, mnl_socket_get_portid(ct->nl));
	}
	if (!answered || r == -EBADMSG)
		mnl_socket_close(TAKE_PTR(ct->nl));
	return r;
}

struct matches {
	const struct udp_endpoint *from;
	size_t n_from;
	struct flow *flows;
	size_t n, cap;
};

static int match(void *arg, const struct flow *f)
{
	struct udp_endpoint key = {.addr = f->reply_src, .port = f->reply_sport};
	struct matches *m = arg;

	if (f->protocol == IPPROTO_UDP &&
		bsearch(&key, m->from, m->n_from, sizeof(*m->from), udp_endpoint_cmp))
		*VEC_ADD(m->flows, m->n, m->cap) = *f;
	return 0;
}

static int delete_failed(struct conntrack *ct, int code, struct error *err)
{
	if (code == -EBUSY)
		ct->cannot_end = true;
	if (ct->cannot_end)
		return error_set(err, -EBUSY, OBJECT, "Linux 6.4, 6.3.6, 6.1.32, 5.15.115 and later can",
			"this kernel cannot end offloaded connections");
	return error_set(err, code, OBJECT, NULL, "deleting from it failed: %s", strerror(-code));
}

int conntrack_end_udp(struct conntrack *ct, const struct udp_endpoint *from, size_t n,
	void (*ended)(void *arg, const struct flow *f), void *arg, struct error *err)
{
	struct matches m = {.from = from, .n_from = n};
	int r, count = 0;

	if (ct->cannot_end)
		return delete_failed(ct, -EBUSY, err);
	r = conntrack_each_offloaded(ct, match, &m, err);
	for (size_t i = 0; r >= 0 && i < m.n; i++) {
		r = delete_one(ct, &m.flows[i]);
		if (!r) {
			count++;
			ended(arg, &m.flows[i]);
		} else if (r == -ENOENT) {
			r = 0;
		} else {
			delete_failed(ct, r, err);
		}
	}
	free(m.flows);
	return r < 0 ? r : count;
}

bool conntrack_cannot_end(const struct conntrack *ct)
{
	return ct->cannot_end;
}
