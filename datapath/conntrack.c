/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/conntrack_private.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
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
