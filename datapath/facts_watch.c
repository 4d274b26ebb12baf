/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/facts_watch.h"

#include "base/mem.h"
#include "datapath/facts_dump.h"
#include "datapath/facts_follow.h"
#include "datapath/facts_private.h"
#include "datapath/neighbours.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#define EVENT_SPACE (4 * 1024 * 1024) /* several thousand notifications */
#define READ_MAX 4096                 /* notifications per call, so that a storm does not hold the caller */

struct facts_watch {
	struct nl_sock *dumps;
	struct nl_sock *events;
	uint8_t *buffer;
	struct followed followed;
	uint32_t dump;      /* kinds that have to be dumped */
	uint32_t moved;     /* kinds that may differ from what the caller has */
	bool lost;          /* notifications, since the links were dumped last */
	uint32_t *resolved; /* links whose next hops are kept so */
	size_t n_resolved;
};

/*
 * Has the socket drop what nobody shall wake up for: of neighbours everything but deletions, each in use changes its
 * state several times a minute; and what a bridge says of its ports (AF_BRIDGE), which it does at every tick of theirs.
 */
static int filter(int fd)
{
	/* A load of half a word is big endian, the header is not. */
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_type)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_NEWNEIGH), 6, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_DELNEIGH), 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_NEWLINK), 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_DELLINK), 0, 2),
		/* The family is the first byte of ndmsg and of ifinfomsg. */
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NLMSG_HDRLEN),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_BRIDGE, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno : 0;
}

static int subscribe(struct nl_sock *s, struct error *err)
{
	static const int groups[] = {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
		RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_NEIGH};
	int space = EVENT_SPACE;
	int filtered = filter(nl_socket_get_fd(s));

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
	int code = -EIO;

	*ret = NULL;
	w->buffer = xmalloc(FACTS_BUFFER_SIZE);
	w->dump = FACTS_ALL;
	w->events = facts_socket(err);
	if (!w->events)
		goto fail;
	code = subscribe(w->events, err);
	if (code < 0)
		goto fail;
	code = -EIO;
	w->dumps = facts_dump_socket(err);
	if (!w->dumps)
		goto fail;
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
	followed_done(&w->followed);
	free(w->resolved);
	free(w->buffer);
	free(w);
}

int facts_watch_fd(const struct facts_watch *w)
{
	return nl_socket_get_fd(w->events);
}

/* Makes an array of 'to' equal to that of 'from'. Returns whether it was not. */
#define COPY_ARRAY(to, from, member)                                                                         \
	({                                                                                                   \
		bool differs_ = !facts_equal_##member(to, from);                                             \
		if (differs_ && (to)->cap_##member < (from)->n_##member) {                                   \
			(to)->cap_##member = (from)->cap_##member;                                           \
			(to)->member =                                                                       \
				xreallocarray((to)->member, (to)->cap_##member, sizeof(*(to)->member));      \
		}                                                                                            \
		if (differs_ && (from)->n_##member)                                                          \
			memcpy((to)->member, (from)->member, (from)->n_##member * sizeof(*(to)->member));    \
		(to)->n_##member = (from)->n_##member;                                                       \
		differs_;                                                                                    \
	})

int facts_watch_refresh(struct facts_watch *w, struct facts *f, struct error *err)
{
	const struct facts *now = &w->followed.facts;
	struct followed dumped = {0};
	uint32_t kinds = w->dump;
	bool changed = false;
	int ret = facts_dump(w->dumps, w->buffer, &w->followed, &kinds, &dumped, err);

	if (ret == 0) {
		w->moved |= facts_follow_dumped(&w->followed, &dumped, kinds, w->lost);
		w->dump = 0;
		w->lost = false;
		changed |= f->policy_rules != now->policy_rules;
		f->policy_rules = now->policy_rules;
		if (w->moved & FACTS_LINKS)
			changed |= COPY_ARRAY(f, now, links);
		if (w->moved & FACTS_ADDRESSES)
			changed |= COPY_ARRAY(f, now, addresses);
		if (w->moved & FACTS_ROUTES)
			changed |= COPY_ARRAY(f, now, routes);
		w->moved = 0;
		ret = changed;
	}
	followed_done(&dumped);
	return ret;
}

/* ---- next hops ---- */

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
	struct neighbours hops = {0};

	neighbours_learn(&hops, &w->followed.facts);
	for (size_t i = 0; i < hops.n; i++)
		resolve(w, hops.hops[i].ifindex, &hops.hops[i].addr);
	neighbours_done(&hops);
}

/* ---- notifications ---- */

static void follow(struct facts_watch *w, const struct nlmsghdr *h)
{
	uint32_t ifindex;
	struct addr a;

	if (h->nlmsg_type != RTM_DELNEIGH)
		w->moved |= facts_follow(&w->followed, h, &w->dump);
	else if (neighbours_lost(&w->followed.facts, h, &ifindex, &a))
		resolve(w, ifindex, &a);
}

int facts_watch_read(struct facts_watch *w, struct error *err)
{
	for (unsigned i = 0; i < READ_MAX; i++) {
		int n = facts_receive(w->events, w->buffer);

		if (n == -EAGAIN)
			break;
		if (n == -ENOBUFS || n == -EMSGSIZE) {
			w->dump = FACTS_ALL;
			w->lost = true;
			resolve_all(w);
			continue;
		}
		if (n < 0)
			return error_set(
				err, n, "rtnetlink", NULL, "cannot read notifications: %s", strerror(-n));
		for (struct nlmsghdr *h = (struct nlmsghdr *)w->buffer; nlmsg_ok(h, n); h = nlmsg_next(h, &n))
			follow(w, h);
	}
	return w->moved || w->dump;
}
