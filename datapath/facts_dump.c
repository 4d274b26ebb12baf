/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/facts_dump.h"

#include "base/mem.h"
#include "datapath/facts_private.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/socket.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define DUMP_TRIES 5
#define DUMP_TIMEOUT_S 10
/* Ceilings: what is beyond them is no node. */
#define LINKS_MAX (1 << 16)
#define ADDRESSES_MAX (1 << 18)
#define ROUTES_MAX (1 << 20)
#define TABLES_MAX 1024

/* What one dump collects. */
struct dump {
	const char *what; /* for errors: "links" */
	struct followed *ret;
	const struct tables *tables; /* of routes: the ones that count */
	int (*each)(struct dump *d, const struct nlmsghdr *h);
};

struct dumper {
	struct nl_sock *socket;
	uint8_t *buffer;
};

struct nl_sock *facts_socket(struct error *err)
{
	struct nl_sock *s = nl_socket_alloc();
	int ret;

	if (!s)
		abort();
	ret = nl_connect(s, NETLINK_ROUTE);
	if (ret < 0) {
		error_set(err, -EIO, "rtnetlink", NULL, "cannot open a socket: %s", nl_geterror(ret));
		nl_socket_free(s);
		return NULL;
	}
	return s;
}

struct nl_sock *facts_dump_socket(struct error *err)
{
	struct timeval timeout = {.tv_sec = DUMP_TIMEOUT_S};
	struct nl_sock *s = facts_socket(err);
	int one = 1;

	if (!s)
		return NULL;
	/* Makes the kernel (4.20) heed the table and type that a dump of routes asks for; without it more
	 * comes and is dropped here. */
	(void)setsockopt(nl_socket_get_fd(s), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
	(void)setsockopt(nl_socket_get_fd(s), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	return s;
}

int facts_receive(struct nl_sock *s, uint8_t *buffer)
{
	struct sockaddr_nl from = {0};
	struct iovec iov = {.iov_base = buffer, .iov_len = FACTS_BUFFER_SIZE};
	struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	do
		n = recvmsg(nl_socket_get_fd(s), &m, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (m.msg_flags & MSG_TRUNC)
		return -EMSGSIZE;
	/* Other processes may send to this port too. */
	return from.nl_pid == 0 ? (int)n : 0;
}

/* Reads until the end of the dump 'seq', whatever goes wrong on the way, so that the socket is clean for the
 * next one. -EINTR: the kernel says that the picture is inconsistent. */
static int read_dump(const struct dumper *w, uint32_t seq, struct dump *d)
{
	int failure = 0;

	for (;;) {
		int n = facts_receive(w->socket, w->buffer);

		if (n == -ENOBUFS) {
			failure = -EINTR;
			continue;
		}
		if (n == -EMSGSIZE) {
			failure = -EMSGSIZE;
			continue;
		}
		if (n < 0)
			return n == -EAGAIN ? -ETIMEDOUT : n;
		for (struct nlmsghdr *h = (struct nlmsghdr *)w->buffer; nlmsg_ok(h, n);
			h = nlmsg_next(h, &n)) {
			int code = 0;

			if (h->nlmsg_seq != seq)
				continue;
			if (h->nlmsg_flags & NLM_F_DUMP_INTR)
				failure = -EINTR;
			if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR) {
				/* Both begin with an int; a DONE without it is a success. */
				if (nlmsg_datalen(h) >= (int)sizeof(code))
					memcpy(&code, nlmsg_data(h), sizeof(code));
				return code < 0 ? code : failure;
			}
			if (!failure)
				code = d->each(d, h);
			if (code < 0)
				failure = code;
		}
	}
}

/* What is asked for: a fixed part and one 32-bit attribute (type 0: none). */
struct request {
	int type;
	void *body;
	size_t size;
	int attribute;
	uint32_t value;
};

static int ask(const struct dumper *w, const struct request *r, uint32_t *ret_seq)
{
	struct nl_msg *m = nlmsg_alloc_simple(r->type, NLM_F_REQUEST | NLM_F_DUMP);
	int ret;

	if (!m || nlmsg_append(m, r->body, r->size, NLMSG_ALIGNTO) < 0 ||
		(r->attribute && nla_put_u32(m, r->attribute, r->value) < 0))
		abort(); /* no memory */
	nl_complete_msg(w->socket, m);
	*ret_seq = nlmsg_hdr(m)->nlmsg_seq;
	do
		ret = send(nl_socket_get_fd(w->socket), nlmsg_hdr(m), nlmsg_hdr(m)->nlmsg_len, 0) < 0 ? -errno
												      : 0;
	while (ret == -EINTR);
	nlmsg_free(m);
	return ret;
}

/* One whole dump added to d->ret; what an interrupted one brought is dropped. */
static int dump(const struct dumper *w, const struct request *r, struct dump *d, struct error *err)
{
	const struct followed before = *d->ret;
	struct facts *f = &d->ret->facts;
	uint32_t seq;
	int ret = -EINTR;

	for (unsigned i = 0; i < DUMP_TRIES && ret == -EINTR; i++) {
		f->n_links = before.facts.n_links;
		f->n_addresses = before.facts.n_addresses;
		f->n_routes = before.facts.n_routes;
		f->policy_rules = before.facts.policy_rules;
		d->ret->dead.n_routes = before.dead.n_routes;
		d->ret->tables.n = before.tables.n;
		ret = ask(w, r, &seq);
		if (ret == 0)
			ret = read_dump(w, seq, d);
	}
	if (ret == -EINTR)
		return error_set(err, -EAGAIN, "rtnetlink", NULL,
			"the list of %s changed during each of %u attempts to read it", d->what, DUMP_TRIES);
	if (ret == -E2BIG)
		return error_set(err, ret, "rtnetlink", NULL, "more %s than are handled on a node", d->what);
	if (ret < 0)
		return error_set(err, ret, "rtnetlink",
			ret == -EPERM || ret == -EACCES
				? "run it in the host's network namespace with NET_ADMIN"
				: NULL,
			"cannot read the list of %s: %s", d->what, strerror(-ret));
	return 0;
}

static int each_link(struct dump *d, const struct nlmsghdr *h)
{
	struct facts *f = &d->ret->facts;
	struct link l;
	int ret = h->nlmsg_type == RTM_NEWLINK ? link_parse(h, &l) : 0;

	if (ret == 1 && f->n_links == LINKS_MAX)
		return -E2BIG;
	if (ret == 1)
		*VEC_ADD(f->links, f->n_links, f->cap_links) = l;
	return ret;
}

static int each_address(struct dump *d, const struct nlmsghdr *h)
{
	struct facts *f = &d->ret->facts;
	struct link_address a;
	int ret = h->nlmsg_type == RTM_NEWADDR ? link_address_parse(h, &a) : 0;

	if (ret == 1 && f->n_addresses == ADDRESSES_MAX)
		return -E2BIG;
	if (ret == 1)
		*VEC_ADD(f->addresses, f->n_addresses, f->cap_addresses) = a;
	return ret;
}

static int each_route(struct dump *d, const struct nlmsghdr *h)
{
	if (h->nlmsg_type != RTM_NEWROUTE)
		return 0;
	if (d->ret->facts.n_routes >= ROUTES_MAX || d->ret->dead.n_routes >= ROUTES_MAX)
		return -E2BIG;
	return route_parse(h, d->tables->ids, d->tables->n, &d->ret->facts, &d->ret->dead);
}

static bool tables_add(struct tables *t, uint32_t id)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->ids[i] == id)
			return true;
	if (t->n == TABLES_MAX)
		return false;
	*VEC_ADD(t->ids, t->n, t->cap) = id;
	return true;
}

static int each_rule(struct dump *d, const struct nlmsghdr *h)
{
	uint32_t table;
	int ret = h->nlmsg_type == RTM_NEWRULE ? rule_parse(h, &table) : 0;

	if (ret == 1)
		d->ret->facts.policy_rules++;
	if (ret == 1 && table && table != RT_TABLE_LOCAL && !tables_add(&d->ret->tables, table))
		return -E2BIG;
	return ret;
}

static int dump_links(const struct dumper *w, struct followed *ret, struct error *err)
{
	struct ifinfomsg body = {.ifi_family = AF_UNSPEC};
	struct request r = {RTM_GETLINK, &body, sizeof(body), IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS};
	struct dump d = {.what = "links", .ret = ret, .each = each_link};

	return dump(w, &r, &d, err);
}

static int dump_addresses(const struct dumper *w, struct followed *ret, struct error *err)
{
	struct ifaddrmsg body = {.ifa_family = AF_UNSPEC};
	struct request r = {RTM_GETADDR, &body, sizeof(body), 0, 0};
	struct dump d = {.what = "addresses", .ret = ret, .each = each_address};

	return dump(w, &r, &d, err);
}

/* A family that this kernel has not got (no IPv6, no policy routing), or a table that a rule names and that
 * holds no route yet: an empty list. */
static bool is_absent(int code)
{
	return code == -EAFNOSUPPORT || code == -EOPNOTSUPP || code == -ENOENT;
}

static int table_cmp(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int dump_rules(const struct dumper *w, struct followed *ret, struct error *err)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	struct dump d = {.what = "policy rules", .ret = ret, .each = each_rule};

	tables_add(&ret->tables, RT_TABLE_MAIN);
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		struct fib_rule_hdr body = {.family = families[i]};
		struct request r = {RTM_GETRULE, &body, sizeof(body), 0, 0};
		struct error e;
		int code = dump(w, &r, &d, &e);

		if (code < 0 && !is_absent(code)) {
			if (err)
				*err = e;
			return code;
		}
	}
	qsort(ret->tables.ids, ret->tables.n, sizeof(*ret->tables.ids), table_cmp);
	return 0;
}

static int dump_routes(
	const struct dumper *w, const struct tables *t, struct followed *ret, struct error *err)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};

	for (size_t i = 0; i < 2 * t->n; i++) {
		struct tables one = {.ids = &t->ids[i / 2], .n = 1};
		struct dump d = {.what = "routes", .ret = ret, .tables = &one, .each = each_route};
		struct rtmsg body = {.rtm_family = families[i % 2], .rtm_type = RTN_UNICAST};
		struct request r = {RTM_GETROUTE, &body, sizeof(body), RTA_TABLE, one.ids[0]};
		struct error e;
		int code = dump(w, &r, &d, &e);

		if (code < 0 && !is_absent(code)) {
			if (err)
				*err = e;
			return code;
		}
	}
	return 0;
}

static bool tables_equal(const struct tables *a, const struct tables *b)
{
	return a->n == b->n && (a->n == 0 || memcmp(a->ids, b->ids, a->n * sizeof(*a->ids)) == 0);
}

int facts_dump(struct nl_sock *s, uint8_t *buffer, const struct followed *present, uint32_t *kinds,
	struct followed *ret, struct error *err)
{
	const struct dumper w = {.socket = s, .buffer = buffer};
	int code = 0;

	if (*kinds & FACTS_RULES) {
		code = dump_rules(&w, ret, err);
		if (code == 0 && !tables_equal(&ret->tables, &present->tables))
			*kinds |= FACTS_ROUTES;
	}
	if (code == 0 && (*kinds & FACTS_LINKS))
		code = dump_links(&w, ret, err);
	if (code == 0 && (*kinds & FACTS_ADDRESSES))
		code = dump_addresses(&w, ret, err);
	if (code == 0 && (*kinds & FACTS_ROUTES))
		code = dump_routes(&w, *kinds & FACTS_RULES ? &ret->tables : &present->tables, ret, err);
	return code;
}
