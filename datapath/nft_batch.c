/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/nft_batch.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "datapath/nft_encode.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RECEIVE_SIZE 65536 /* larger than any message of a dump (32 KiB, net/netlink/af_netlink.c) */
#define DUMP_ATTEMPTS 20

/* Portids of our sockets, for the monitor: few, so a list. */
static struct {
	uint32_t *ids;
	size_t n, cap;
} own;

bool nft_portid_is_own(uint32_t portid)
{
	for (size_t i = 0; i < own.n; i++) {
		if (own.ids[i] == portid)
			return true;
	}
	return false;
}

void nft_socket_buffer(int fd, int option, size_t bytes)
{
	int force = option == SO_SNDBUF ? SO_SNDBUFFORCE : SO_RCVBUFFORCE;
	int size = bytes > INT32_MAX / 2 ? INT32_MAX / 2 : (int)bytes;

	/* Without CAP_NET_ADMIN in the first user namespace there is only the limited form. */
	if (setsockopt(fd, SOL_SOCKET, force, &size, sizeof(size)) < 0)
		setsockopt(fd, SOL_SOCKET, option, &size, sizeof(size));
}

int nft_socket_open(struct nft_socket *s, struct error *err)
{
	int on = 1, fd, code;

	memset(s, 0, sizeof(*s));
	s->nl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	if (!s->nl)
		return error_set(err, -errno, "netlink", "build the kernel with CONFIG_NETFILTER_NETLINK",
			"cannot open a netfilter socket: %s", strerror(errno));
	if (mnl_socket_bind(s->nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		code = -errno;
		mnl_socket_close(s->nl);
		s->nl = NULL;
		return error_set(
			err, code, "netlink", NULL, "cannot bind a netfilter socket: %s", strerror(-code));
	}
	fd = mnl_socket_get_fd(s->nl);
	setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	nft_socket_buffer(fd, SO_RCVBUF, 1 << 20);
	s->portid = mnl_socket_get_portid(s->nl);
	*VEC_ADD(own.ids, own.n, own.cap) = s->portid;
	return 0;
}

void nft_socket_close(struct nft_socket *s)
{
	if (!s->nl)
		return;
	for (size_t i = 0; i < own.n; i++) {
		if (own.ids[i] == s->portid) {
			own.ids[i] = own.ids[--own.n];
			break;
		}
	}
	if (!own.n) {
		free(own.ids);
		own.ids = NULL;
		own.cap = 0;
	}
	mnl_socket_close(s->nl);
	s->nl = NULL;
}

static void batch_room(struct nft_batch *b, size_t room)
{
	if (b->cap - b->len >= room)
		return;
	b->cap = (b->len + room) * 2;
	b->data = xrealloc(b->data, b->cap);
}

static struct nlmsghdr *put_header(
	uint8_t *at, uint16_t type, uint16_t flags, uint8_t family, uint16_t res_id)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(at);
	struct nfgenmsg *nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;
	nfg->nfgen_family = family;
	nfg->version = NFNETLINK_V0;
	nfg->res_id = htons(res_id);
	return nlh;
}

#define BATCH_EDGE MNL_ALIGN(sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg))

void nft_batch_begin(struct nft_batch *b, uint32_t generation)
{
	struct nlmsghdr *nlh;

	batch_room(b, BATCH_EDGE + MNL_ATTR_HDRLEN + sizeof(generation));
	nlh = put_header(b->data, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
	if (generation)
		mnl_attr_put_u32(nlh, NFNL_BATCH_GENID, htonl(generation));
	b->len = MNL_ALIGN(nlh->nlmsg_len);
}

struct nlmsghdr *nft_batch_message(
	struct nft_batch *b, uint16_t type, uint16_t flags, size_t room, const char *fmt, ...)
{
	struct nft_message *m;
	char object[192];
	va_list ap;

	if (!b->len)
		nft_batch_begin(b, 0);
	/* And room for the end of the batch behind it. */
	batch_room(b, 2 * BATCH_EDGE + room);
	va_start(ap, fmt);
	vsnprintf(object, sizeof(object), fmt, ap);
	va_end(ap);
	m = VEC_ADD(b->messages, b->n, b->messages_cap);
	m->offset = b->len;
	m->object = xstrdup(object);
	return put_header(
		b->data + b->len, NFNL_SUBSYS_NFTABLES << 8 | type, flags | NLM_F_ACK, NFPROTO_INET, 0);
}

void nft_batch_kind(struct nft_batch *b, enum nft_message_kind kind, enum ruleset_set set)
{
	b->messages[b->n - 1].kind = kind;
	b->messages[b->n - 1].set = set;
}

void nft_batch_end(struct nft_batch *b, const struct nlmsghdr *nlh)
{
	b->len += MNL_ALIGN(nlh->nlmsg_len);
}

void nft_batch_done(struct nft_batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		free(b->messages[i].object);
	free(b->messages);
	free(b->data);
	memset(b, 0, sizeof(*b));
}

/* The words and the offset of an extended acknowledgement; with NETLINK_CAP_ACK only the header is echoed. */
static void read_ext_ack(const struct nlmsghdr *nlh, struct nft_failure *f)
{
	const struct nlmsgerr *e = mnl_nlmsg_get_payload(nlh);
	size_t skip = sizeof(*e), len = mnl_nlmsg_get_payload_len(nlh);
	const struct nlattr *attr;

	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED)) {
		if (e->msg.nlmsg_len < sizeof(e->msg))
			return;
		skip += MNL_ALIGN(e->msg.nlmsg_len - sizeof(e->msg));
	}
	if (skip >= len)
		return;
	attr = (const void *)((const uint8_t *)e + skip);
	for (int left = (int)(len - skip); mnl_attr_ok(attr, left);
		left -= MNL_ALIGN(attr->nla_len), attr = mnl_attr_next(attr)) {
		if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG &&
			!mnl_attr_validate(attr, MNL_TYPE_NUL_STRING))
			snprintf(f->text, sizeof(f->text), "%s", mnl_attr_get_str(attr));
		if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_OFFS && !mnl_attr_validate(attr, MNL_TYPE_U32))
			f->offset = mnl_attr_get_u32(attr);
	}
}

static void read_answer(
	const struct nlmsghdr *nlh, uint32_t first, size_t n, struct nft_failure *f, size_t *answers)
{
	const struct nlmsgerr *e = mnl_nlmsg_get_payload(nlh);
	size_t index;

	if (nlh->nlmsg_type != NLMSG_ERROR || mnl_nlmsg_get_payload_len(nlh) < sizeof(*e))
		return;
	/* The begin and the end of the batch carry first - 1. */
	index = (uint32_t)(nlh->nlmsg_seq - first);
	if (index >= n && nlh->nlmsg_seq != first - 1)
		return; /* of an earlier batch whose answers were given up */
	if (!e->error) {
		*answers += index < n;
		return;
	}
	if (f->code)
		return;
	f->code = e->error;
	f->message = index < n ? index : SIZE_MAX;
	read_ext_ack(nlh, f);
	/* Not the message's fault: see nft_batch_send(). */
	if (f->code == -ENOMEM && !f->text[0])
		f->message = SIZE_MAX;
}

/*
 * Room for the batch, which the kernel refuses when it exceeds the send buffer less 32 bytes (netlink_sendmsg():
 * -EMSGSIZE), and for its answers, of which it queues at most a receive buffer of some 800 bytes each, overhead included.
 */
static int make_room(int fd, size_t len, size_t answers)
{
	int size = 0;
	socklen_t size_len = sizeof(size);

	nft_socket_buffer(fd, SO_SNDBUF, len + 65536);
	nft_socket_buffer(fd, SO_RCVBUF, answers * 2048 + (1 << 20));
	if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &size_len) < 0)
		return -errno;
	return len + 32 > (size_t)size ? -EMSGSIZE : 0;
}

int nft_batch_send(struct nft_socket *s, struct nft_batch *b, bool commit, struct nft_failure *ret)
{
	CLEANUP_FREE uint8_t *buf = NULL;
	int fd = mnl_socket_get_fd(s->nl);
	size_t answers = 0, len = b->len;
	uint32_t first;
	ssize_t got;

	*ret = (struct nft_failure){.message = SIZE_MAX};
	if (!b->n)
		return 0;
	first = s->seq + 2;
	((struct nlmsghdr *)(void *)b->data)->nlmsg_seq = first - 1;
	for (size_t i = 0; i < b->n; i++)
		((struct nlmsghdr *)(void *)(b->data + b->messages[i].offset))->nlmsg_seq =
			first + (uint32_t)i;
	s->seq = first + (uint32_t)b->n;
	if (commit) {
		put_header(b->data + len, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES)->nlmsg_seq =
			first - 1;
		len += BATCH_EDGE;
	}
	ret->code = make_room(fd, len, b->n);
	if (ret->code)
		return ret->code;
	if (mnl_socket_sendto(s->nl, b->data, len) < 0)
		return ret->code = -errno;
	buf = xmalloc(RECEIVE_SIZE);
	for (;;) {
		const struct nlmsghdr *nlh = (const void *)buf;
		int left;

		got = recv(fd, buf, RECEIVE_SIZE, MSG_DONTWAIT);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno != EAGAIN && !ret->code)
			ret->code = -errno;
		if (got < 0 && errno == ENOBUFS)
			continue; /* the rest is still to be read */
		if (got < 0)
			break;
		left = (int)got;
		for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left))
			read_answer(nlh, first, b->n, ret, &answers);
	}
	if (!ret->code && answers < b->n)
		ret->code = -ENOBUFS;
	return ret->code;
}

/* The attribute that the kernel pointed at, checked to lie within the message; NULL: none. */
static const struct nlattr *failure_attr(const struct nft_batch *b, const struct nft_failure *f)
{
	const struct nlmsghdr *nlh;
	const struct nlattr *attr;

	if (f->message >= b->n || !f->offset)
		return NULL;
	nlh = (const void *)(b->data + b->messages[f->message].offset);
	if (f->offset % MNL_ALIGNTO || f->offset + sizeof(*attr) > nlh->nlmsg_len)
		return NULL;
	attr = (const void *)((const uint8_t *)nlh + f->offset);
	return mnl_attr_ok(attr, (int)(nlh->nlmsg_len - f->offset)) ? attr : NULL;
}

/* The table's name is the first attribute of each message. */
#define TABLE_OFFSET (MNL_NLMSG_HDRLEN + sizeof(struct nfgenmsg))

bool nft_failure_of_all(const struct nft_batch *b, const struct nft_failure *f)
{
	return f->message >= b->n || f->offset == TABLE_OFFSET;
}

bool nft_failure_device(const struct nft_batch *b, const struct nft_failure *f, char ret[IFNAMSIZ])
{
	const struct nlattr *attr = failure_attr(b, f);

	if (!attr || nft_failure_of_all(b, f) || b->messages[f->message].kind != NFT_MESSAGE_DEVICES ||
		mnl_attr_get_type(attr) != NFTA_DEVICE_NAME || mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) ||
		mnl_attr_get_payload_len(attr) > IFNAMSIZ)
		return false;
	snprintf(ret, IFNAMSIZ, "%s", mnl_attr_get_str(attr));
	return true;
}

static const char *failure_mend(int code, const struct nft_message *m)
{
	/* Somebody else took it away, which a look finds. */
	if (code == -ENOENT && m && m->kind != NFT_MESSAGE_PLAIN)
		return NULL;
	switch (-code) {
	case EPERM:
		return "run as root or with the capability NET_ADMIN";
	case EOPNOTSUPP:
	case ENOENT:
		return "load the modules nf_flow_table_inet, nft_flow_offload, nft_ct and nft_fib_inet";
	case EMSGSIZE:
		return "raise net.core.wmem_max";
	case ENOBUFS:
		return "raise net.core.rmem_max";
	default:
		return NULL;
	}
}

int nft_failure_error(const struct nft_batch *b, const struct nft_failure *f, struct error *err)
{
	const struct nlattr *attr = failure_attr(b, f);
	const struct nft_message *m = f->message < b->n ? &b->messages[f->message] : NULL;
	char object[192], name[IFNAMSIZ];

	snprintf(object, sizeof(object), "%s", m ? m->object : "table inet " RULESET_TABLE);
	if (nft_failure_device(b, f, name))
		snprintf(object, sizeof(object), "device %s", name);
	if (m && m->kind == NFT_MESSAGE_ELEMENTS) {
		struct strbuf text = {0};

		if (nft_element_attr_text(m->set, attr, &text))
			snprintf(object, sizeof(object), "%s: element %s", m->object, text.data);
		strbuf_done(&text);
	}
	return error_set(err, f->code, object, failure_mend(f->code, m), "the kernel refused it: %s%s%s",
		strerror(-f->code), f->text[0] ? ": " : "", f->text);
}

static int request_once(struct nft_socket *s, const struct nft_request *request, uint8_t *buf,
	int (*cb)(const struct nlmsghdr *nlh, void *arg), void *arg)
{
	struct nlmsghdr *nlh = put_header(
		buf, NFNL_SUBSYS_NFTABLES << 8 | request->type, request->flags, request->family, 0);
	bool interrupted = false, dump = (request->flags & NLM_F_DUMP) == NLM_F_DUMP;
	int code = 0;

	nlh->nlmsg_seq = ++s->seq;
	if (request->table)
		mnl_attr_put_strz(nlh, 1, request->table); /* NFTA_*_TABLE is 1 for all of them */
	if (request->name)
		mnl_attr_put_strz(nlh, request->name_attr ? request->name_attr : 2, request->name);
	if (!dump)
		nlh->nlmsg_flags |= NLM_F_ACK;
	if (mnl_socket_sendto(s->nl, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		ssize_t got = recv(mnl_socket_get_fd(s->nl), buf, RECEIVE_SIZE, 0);
		const struct nlmsghdr *answer = (const void *)buf;
		int left = (int)got;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		for (; mnl_nlmsg_ok(answer, left); answer = mnl_nlmsg_next(answer, &left)) {
			if (answer->nlmsg_seq != s->seq)
				continue;
			if (answer->nlmsg_flags & NLM_F_DUMP_INTR)
				interrupted = true;
			if (answer->nlmsg_type == NLMSG_DONE)
				return code ? code : interrupted ? -EINTR : 0;
			if (answer->nlmsg_type == NLMSG_ERROR) {
				const struct nlmsgerr *e = mnl_nlmsg_get_payload(answer);

				if (mnl_nlmsg_get_payload_len(answer) < sizeof(*e))
					return -EBADMSG;
				return e->error ? e->error : code;
			}
			if (answer->nlmsg_type >= NLMSG_MIN_TYPE && !code &&
				mnl_nlmsg_get_payload_len(answer) >= sizeof(struct nfgenmsg))
				code = cb(answer, arg);
		}
	}
}

static int on_generation(const struct nlmsghdr *nlh, void *arg)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) == NFTA_GEN_ID && !mnl_attr_validate(attr, MNL_TYPE_U32))
			*(uint32_t *)arg = ntohl(mnl_attr_get_u32(attr));
	}
	return 0;
}

int nft_generation(struct nft_socket *s, uint32_t *ret)
{
	const struct nft_request request = {.type = NFT_MSG_GETGEN, .family = AF_UNSPEC};
	int code;

	*ret = 0;
	code = nft_request(s, &request, on_generation, NULL, ret);
	return code ? code : *ret ? 0 : -EBADMSG;
}

int nft_request(struct nft_socket *s, const struct nft_request *request,
	int (*cb)(const struct nlmsghdr *nlh, void *arg), void (*restart)(void *arg), void *arg)
{
	CLEANUP_FREE uint8_t *buf = xmalloc(RECEIVE_SIZE);
	int code = -EINTR;

	for (int i = 0; i < DUMP_ATTEMPTS && code == -EINTR; i++) {
		if (i && restart)
			restart(arg);
		code = request_once(s, request, buf, cb, arg);
	}
	return code;
}
