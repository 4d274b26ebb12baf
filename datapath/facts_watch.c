/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/facts_watch.h"

#include "base/mem.h"
#include "datapath/facts_private.h"
#include "datapath/neighbours.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define BUFFER_SIZE (64 * 1024) /* dumps come in pieces of at most 32 KiB (af_netlink.c, netlink_dump()) */
#define EVENT_SPACE (4 * 1024 * 1024) /* several thousand notifications */
#define READ_MAX 4096                 /* notifications per call, so that a storm does not hold the caller */
#define DUMP_TRIES 5
#define DUMP_TIMEOUT_S 10
/* Ceilings: what is beyond them is no node. */
#define LINKS_MAX (1 << 16)
#define ADDRESSES_MAX (1 << 18)
#define ROUTES_MAX (1 << 20)
#define TABLES_MAX 1024

#define LINKS (1u << 0)
#define ADDRESSES (1u << 1)
#define ROUTES (1u << 2)
#define RULES (1u << 3)
#define ALL (LINKS | ADDRESSES | ROUTES | RULES)

/* The routing tables whose routes are facts, sorted. */
struct tables {
	uint32_t *ids;
	size_t n, cap;
};

struct facts_watch {
	struct nl_sock *dumps;
	struct nl_sock *events;
	uint8_t *buffer;
	uint32_t noted;       /* kinds that may have moved */
	struct facts known;   /* links and addresses as last dumped: what a notification is held against */
	struct tables tables; /* as last dumped */
	struct neighbours neighbours;
	uint32_t *resolved; /* links whose next hops are kept so */
	size_t n_resolved;
};

/* What one dump collects. */
struct dump {
	const char *what; /* for errors: "links" */
	struct facts *facts;
	struct tables *tables;
	int (*each)(struct dump *d, const struct nlmsghdr *h);
};

static struct nl_sock *open_socket(struct error *err)
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

static int subscribe(struct nl_sock *s, struct error *err)
{
	static const int groups[] = {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
		RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_NEIGH};
	int space = EVENT_SPACE;
	int filtered = neighbours_filter(nl_socket_get_fd(s));

	if (filtered < 0)
		return error_set(err, filtered, "rtnetlink", NULL, "cannot filter notifications: %s",
			strerror(-filtered));
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		int ret = nl_socket_add_membership(s, groups[i]);

		if (ret < 0) {
			error_set(err, -EIO, "rtnetlink", NULL, "cannot join group %d: %s", groups[i],
				nl_geterror(ret));
			return -EIO;
		}
	}
	/* Nexthop objects are younger (5.3) than what works here; ignoring that a kernel has none. */
	(void)nl_socket_add_membership(s, RTNLGRP_NEXTHOP);
	/* Beyond the administrator's limit where CAP_NET_ADMIN allows it, else as far as it goes; what does
	 * not fit ends in ENOBUFS and a full dump. */
	if (setsockopt(nl_socket_get_fd(s), SOL_SOCKET, SO_RCVBUFFORCE, &space, sizeof(space)) < 0)
		(void)setsockopt(nl_socket_get_fd(s), SOL_SOCKET, SO_RCVBUF, &space, sizeof(space));
	return nl_socket_set_nonblocking(s) < 0
		       ? error_set(err, -EIO, "rtnetlink", NULL, "cannot make the socket non-blocking")
		       : 0;
}

int facts_watch_open(struct facts_watch **ret, struct error *err)
{
	struct facts_watch *w = xcalloc(1, sizeof(*w));
	struct timeval timeout = {.tv_sec = DUMP_TIMEOUT_S};
	int one = 1;
	int code = -EIO;

	*ret = NULL;
	w->buffer = xmalloc(BUFFER_SIZE);
	w->noted = ALL;
	w->events = open_socket(err);
	if (!w->events)
		goto fail;
	code = subscribe(w->events, err);
	if (code < 0)
		goto fail;
	code = -EIO;
	w->dumps = open_socket(err);
	if (!w->dumps)
		goto fail;
	/* Makes the kernel (4.20) heed the table and type that a dump of routes asks for; without it more
	 * comes and is dropped here. */
	(void)setsockopt(nl_socket_get_fd(w->dumps), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
	(void)setsockopt(nl_socket_get_fd(w->dumps), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	*ret = w;
	return 0;
fail:
	facts_watch_close(w);
	return code;
}

void facts_watch_close(struct facts_watch *w)
{
	if (!w)
		return;
	nl_socket_free(w->events);
	nl_socket_free(w->dumps);
	facts_done(&w->known);
	neighbours_done(&w->neighbours);
	free(w->resolved);
	free(w->tables.ids);
	free(w->buffer);
	free(w);
}

int facts_watch_fd(const struct facts_watch *w)
{
	return nl_socket_get_fd(w->events);
}

/* One datagram from the kernel: its length, 0 for one to be ignored, -EMSGSIZE for one that did not fit. */
static int receive(struct nl_sock *s, uint8_t *buffer)
{
	struct sockaddr_nl from = {0};
	struct iovec iov = {.iov_base = buffer, .iov_len = BUFFER_SIZE};
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

/* ---- dumps ---- */

/* Reads until the end of the dump 'seq', whatever goes wrong on the way, so that the socket is clean for the
 * next one. -EINTR: the kernel says that the picture is inconsistent. */
static int read_dump(struct facts_watch *w, uint32_t seq, struct dump *d)
{
	int failure = 0;

	for (;;) {
		int n = receive(w->dumps, w->buffer);

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

static int ask(struct facts_watch *w, const struct request *r, uint32_t *ret_seq)
{
	struct nl_msg *m = nlmsg_alloc_simple(r->type, NLM_F_REQUEST | NLM_F_DUMP);
	int ret;

	if (!m || nlmsg_append(m, r->body, r->size, NLMSG_ALIGNTO) < 0 ||
		(r->attribute && nla_put_u32(m, r->attribute, r->value) < 0))
		abort(); /* no memory */
	nl_complete_msg(w->dumps, m);
	*ret_seq = nlmsg_hdr(m)->nlmsg_seq;
	do
		ret = send(nl_socket_get_fd(w->dumps), nlmsg_hdr(m), nlmsg_hdr(m)->nlmsg_len, 0) < 0 ? -errno
												     : 0;
	while (ret == -EINTR);
	nlmsg_free(m);
	return ret;
}

/* One whole dump added to d->facts and d->tables; what an interrupted one brought is dropped. */
static int dump(struct facts_watch *w, const struct request *r, struct dump *d, struct error *err)
{
	const struct facts before = *d->facts;
	size_t n_tables = d->tables->n;
	uint32_t seq;
	int ret = -EINTR;

	for (unsigned i = 0; i < DUMP_TRIES && ret == -EINTR; i++) {
		d->facts->n_links = before.n_links;
		d->facts->n_addresses = before.n_addresses;
		d->facts->n_routes = before.n_routes;
		d->facts->policy_rules = before.policy_rules;
		d->tables->n = n_tables;
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
	struct link l;
	int ret = h->nlmsg_type == RTM_NEWLINK ? link_parse(h, &l) : 0;

	if (ret == 1 && d->facts->n_links == LINKS_MAX)
		return -E2BIG;
	if (ret == 1)
		*VEC_ADD(d->facts->links, d->facts->n_links, d->facts->cap_links) = l;
	return ret;
}

static int each_address(struct dump *d, const struct nlmsghdr *h)
{
	struct link_address a;
	int ret = h->nlmsg_type == RTM_NEWADDR ? link_address_parse(h, &a) : 0;

	if (ret == 1 && d->facts->n_addresses == ADDRESSES_MAX)
		return -E2BIG;
	if (ret == 1)
		*VEC_ADD(d->facts->addresses, d->facts->n_addresses, d->facts->cap_addresses) = a;
	return ret;
}

static int each_route(struct dump *d, const struct nlmsghdr *h)
{
	if (h->nlmsg_type != RTM_NEWROUTE)
		return 0;
	if (d->facts->n_routes >= ROUTES_MAX)
		return -E2BIG;
	return route_parse(h, d->tables->ids, d->tables->n, d->facts);
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
		d->facts->policy_rules++;
	if (ret == 1 && table && table != RT_TABLE_LOCAL && !tables_add(d->tables, table))
		return -E2BIG;
	return ret;
}

static int dump_links(struct facts_watch *w, struct facts *f, struct error *err)
{
	struct ifinfomsg body = {.ifi_family = AF_UNSPEC};
	struct request r = {RTM_GETLINK, &body, sizeof(body), IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS};
	struct tables none = {0};
	struct dump d = {.what = "links", .facts = f, .tables = &none, .each = each_link};

	return dump(w, &r, &d, err);
}

static int dump_addresses(struct facts_watch *w, struct facts *f, struct error *err)
{
	struct ifaddrmsg body = {.ifa_family = AF_UNSPEC};
	struct request r = {RTM_GETADDR, &body, sizeof(body), 0, 0};
	struct tables none = {0};
	struct dump d = {.what = "addresses", .facts = f, .tables = &none, .each = each_address};

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

static int dump_rules(struct facts_watch *w, struct facts *f, struct tables *t, struct error *err)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	struct dump d = {.what = "policy rules", .facts = f, .tables = t, .each = each_rule};

	tables_add(t, RT_TABLE_MAIN);
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		struct fib_rule_hdr body = {.family = families[i]};
		struct request r = {RTM_GETRULE, &body, sizeof(body), 0, 0};
		struct error e;
		int ret = dump(w, &r, &d, &e);

		if (ret < 0 && !is_absent(ret)) {
			if (err)
				*err = e;
			return ret;
		}
	}
	qsort(t->ids, t->n, sizeof(*t->ids), table_cmp);
	return 0;
}

static int dump_routes(struct facts_watch *w, struct facts *f, const struct tables *t, struct error *err)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};

	for (size_t i = 0; i < 2 * t->n; i++) {
		struct tables one = {.ids = &t->ids[i / 2], .n = 1};
		struct dump d = {.what = "routes", .facts = f, .tables = &one, .each = each_route};
		struct rtmsg body = {.rtm_family = families[i % 2], .rtm_type = RTN_UNICAST};
		struct request r = {RTM_GETROUTE, &body, sizeof(body), RTA_TABLE, one.ids[0]};
		struct error e;
		int ret = dump(w, &r, &d, &e);

		if (ret < 0 && !is_absent(ret)) {
			if (err)
				*err = e;
			return ret;
		}
	}
	return 0;
}

static bool tables_equal(const struct tables *a, const struct tables *b)
{
	return a->n == b->n && (a->n == 0 || memcmp(a->ids, b->ids, a->n * sizeof(*a->ids)) == 0);
}

/* Dumps 'kinds' into 'f' and 't'; rules that lead to other tables than before draw in the routes. */
static int dump_kinds(
	struct facts_watch *w, uint32_t *kinds, struct facts *f, struct tables *t, struct error *err)
{
	int ret = 0;

	if (*kinds & RULES) {
		ret = dump_rules(w, f, t, err);
		if (ret == 0 && !tables_equal(t, &w->tables))
			*kinds |= ROUTES;
	}
	if (ret == 0 && (*kinds & LINKS))
		ret = dump_links(w, f, err);
	if (ret == 0 && (*kinds & ADDRESSES))
		ret = dump_addresses(w, f, err);
	if (ret == 0 && (*kinds & ROUTES))
		ret = dump_routes(w, f, *kinds & RULES ? t : &w->tables, err);
	return ret;
}

/* Gives 'to' a copy of an array of 'from'. */
#define COPY_ARRAY(to, from, member)                                                                         \
	do {                                                                                                 \
		free((to)->member);                                                                          \
		(to)->n_##member = (to)->cap_##member = (from)->n_##member;                                  \
		(to)->member = (from)->n_##member ? xmemdup((from)->member,                                  \
							    (from)->n_##member * sizeof(*(from)->member))    \
						  : NULL;                                                    \
	} while (0)

int facts_watch_refresh(struct facts_watch *w, struct facts *f, struct error *err)
{
	struct facts fresh = {0};
	struct tables tables = {0};
	uint32_t kinds = w->noted;
	int changed = 0;
	int ret = dump_kinds(w, &kinds, &fresh, &tables, err);

	if (ret < 0)
		goto out;
	facts_sort(&fresh);
	if (kinds & RULES) {
		changed |= f->policy_rules != fresh.policy_rules;
		f->policy_rules = fresh.policy_rules;
		free(w->tables.ids);
		w->tables = tables;
		tables = (struct tables){0};
	}
	if (kinds & LINKS) {
		COPY_ARRAY(&w->known, &fresh, links);
		if (!facts_equal_links(f, &fresh)) {
			COPY_ARRAY(f, &fresh, links);
			changed = 1;
		}
	}
	if (kinds & ADDRESSES) {
		COPY_ARRAY(&w->known, &fresh, addresses);
		if (!facts_equal_addresses(f, &fresh)) {
			COPY_ARRAY(f, &fresh, addresses);
			changed = 1;
		}
	}
	if ((kinds & ROUTES) && !facts_equal_routes(f, &fresh)) {
		COPY_ARRAY(f, &fresh, routes);
		neighbours_learn(&w->neighbours, &fresh);
		changed = 1;
	}
	w->noted = 0;
	ret = changed;
out:
	facts_done(&fresh);
	free(tables.ids);
	return ret;
}

/* ---- notifications ---- */

/*
 * What a notification moves. A message that repeats what the last dump said moves nothing: the one that
 * tells of the present state differs from the dump if the state does, so a change cannot slip through.
 *
 * The kernel takes some routes away without a word: IPv4 routes of a link that went down (fib_sync_down_dev()
 * and fib_flush() in fib_frontend.c, fib_semantics.c), those with the source address that was deleted
 * (fib_sync_down_addr()), those of a deleted nexthop object; and a hop of a multipath route dies and comes
 * back with its link silently. Hence the routes that are drawn in here.
 */
static uint32_t link_moves(const struct facts_watch *w, const struct nlmsghdr *h)
{
	struct link l;
	const struct link *known;
	int ret = link_parse(h, &l);

	if (ret < 0)
		return ALL;
	if (ret == 0)
		return 0;
	known = facts_link(&w->known, l.ifindex);
	if (h->nlmsg_type == RTM_DELLINK)
		return known || (w->noted & LINKS) ? LINKS | ADDRESSES | ROUTES : 0;
	if (!known)
		return LINKS;
	if (link_cmp(known, &l) == 0)
		return 0;
	return known->up == l.up && known->carrier == l.carrier && known->master == l.master ? LINKS
											     : LINKS | ROUTES;
}

static uint32_t address_moves(const struct facts_watch *w, const struct nlmsghdr *h)
{
	struct link_address a;
	bool known = false;
	int ret = link_address_parse(h, &a);

	if (ret < 0)
		return ALL;
	if (ret == 0)
		return 0;
	for (size_t i = 0; i < w->known.n_addresses && !known; i++)
		known = link_address_cmp(&w->known.addresses[i], &a) == 0;
	if (h->nlmsg_type == RTM_NEWADDR)
		return known ? 0 : ADDRESSES;
	return known || (w->noted & ADDRESSES) ? ADDRESSES | ROUTES : 0;
}

static uint32_t rule_moves(const struct nlmsghdr *h)
{
	uint32_t table;

	return rule_parse(h, &table) == 0 ? 0 : RULES;
}

/* What the kernel has to say against it (the device is gone) is dropped by the next dump, as an answer to
 * another question. */
static void resolve(struct facts_watch *w, uint32_t ifindex, const struct addr *a)
{
	uint8_t request[NEIGHBOUR_REQUEST_SIZE];
	bool ours = false;

	for (size_t i = 0; i < w->n_resolved && !ours; i++)
		ours = w->resolved[i] == ifindex;
	if (ours)
		(void)!send(nl_socket_get_fd(w->dumps), request, neighbour_request(ifindex, a, request),
			MSG_DONTWAIT);
}

void facts_watch_keep_resolved(struct facts_watch *w, const uint32_t *ifindexes, size_t n)
{
	if (n == w->n_resolved && (!n || !memcmp(ifindexes, w->resolved, n * sizeof(*ifindexes))))
		return;
	free(w->resolved);
	w->resolved = n ? xmemdup(ifindexes, n * sizeof(*ifindexes)) : NULL;
	w->n_resolved = n;
}

/* Any of them may be lost. */
static void resolve_all(struct facts_watch *w)
{
	for (size_t i = 0; i < w->neighbours.n; i++) {
		const struct hop *h = &w->neighbours.hops[i];

		if (h->to.len == 8 * addr_size(&h->to.addr))
			resolve(w, h->ifindex, &h->to.addr);
	}
}

static uint32_t moves(struct facts_watch *w, const struct nlmsghdr *h)
{
	uint32_t ifindex;
	struct addr a;

	switch (h->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		return link_moves(w, h);
	case RTM_NEWADDR:
	case RTM_DELADDR:
		return address_moves(w, h);
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		return route_counts(h, w->tables.ids, w->tables.n) ? ROUTES : 0;
	case RTM_NEWNEXTHOP:
	case RTM_DELNEXTHOP:
		return ROUTES;
	case RTM_NEWRULE:
	case RTM_DELRULE:
		return rule_moves(h);
	case RTM_DELNEIGH:
		if (neighbours_lost(&w->neighbours, h, &ifindex, &a))
			resolve(w, ifindex, &a);
		return 0; /* nothing that facts hold */
	default:
		return 0;
	}
}

int facts_watch_read(struct facts_watch *w, struct error *err)
{
	uint32_t moved = 0;

	for (unsigned i = 0; i < READ_MAX; i++) {
		int n = receive(w->events, w->buffer);

		if (n == -EAGAIN)
			break;
		if (n == -ENOBUFS || n == -EMSGSIZE) {
			moved = ALL;
			resolve_all(w);
			continue;
		}
		if (n < 0)
			return error_set(
				err, n, "rtnetlink", NULL, "cannot read notifications: %s", strerror(-n));
		for (struct nlmsghdr *h = (struct nlmsghdr *)w->buffer; nlmsg_ok(h, n); h = nlmsg_next(h, &n))
			moved |= moves(w, h);
	}
	w->noted |= moved;
	return moved != 0;
}
