/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/neighbours.h"

#include "base/mem.h"

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

static uint8_t full_length(const struct addr *a)
{
	return (uint8_t)(8 * addr_size(a));
}

/* The next hop that a route names: NULL when it is any host of a network. */
static const struct addr *named_hop(const struct route *r)
{
	if (r->gateway.family)
		return &r->gateway;
	return r->dst.len == full_length(&r->dst.addr) ? &r->dst.addr : NULL;
}

static int hop_cmp(const void *a, const void *b)
{
	const struct hop *x = a, *y = b;
	int d = (x->ifindex > y->ifindex) - (x->ifindex < y->ifindex);

	return d ? d : addr_cmp(&x->addr, &y->addr);
}

void neighbours_learn(struct neighbours *n, const struct facts *f)
{
	size_t kept = 0;

	n->n = 0;
	for (size_t i = 0; i < f->n_routes; i++) {
		const struct addr *a = named_hop(&f->routes[i]);

		if (a)
			*VEC_ADD(n->hops, n->n, n->cap) =
				(struct hop){.ifindex = f->routes[i].ifindex, .addr = *a};
	}
	if (n->n)
		qsort(n->hops, n->n, sizeof(*n->hops), hop_cmp);
	for (size_t i = 0; i < n->n; i++)
		if (!kept || hop_cmp(&n->hops[kept - 1], &n->hops[i]))
			n->hops[kept++] = n->hops[i];
	n->n = kept;
}

void neighbours_done(struct neighbours *n)
{
	free(n->hops);
	*n = (struct neighbours){0};
}

/* NDA_DST of the message; false for one that is no neighbour of ours. */
static bool parse(const struct nlmsghdr *h, const struct ndmsg **ret_head, struct addr *ret)
{
	const struct ndmsg *m = NLMSG_DATA(h);
	const struct rtattr *a;
	int left;

	if (h->nlmsg_type != RTM_DELNEIGH || h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
		return false;
	if ((m->ndm_family != AF_INET && m->ndm_family != AF_INET6) || (m->ndm_flags & NTF_PROXY) ||
		(m->ndm_state & NUD_NOARP) || m->ndm_ifindex <= 0)
		return false;
	*ret_head = m;
	*ret = (struct addr){.family = m->ndm_family};
	a = (const struct rtattr *)((const uint8_t *)m + NLMSG_ALIGN(sizeof(*m)));
	left = (int)(h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)));
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type != NDA_DST)
			continue;
		if (RTA_PAYLOAD(a) != addr_size(ret))
			return false;
		memcpy(ret->bytes, RTA_DATA(a), addr_size(ret));
		return true;
	}
	return false;
}

bool neighbours_lost(const struct facts *f, const struct nlmsghdr *h, uint32_t *ret_ifindex, struct addr *ret)
{
	const struct ndmsg *m;
	bool on_link = false, way_out = false;

	if (!parse(h, &m, ret))
		return false;
	*ret_ifindex = (uint32_t)m->ndm_ifindex;
	for (size_t i = 0; i < f->n_routes; i++) {
		const struct route *r = &f->routes[i];
		const struct addr *named;

		if (r->ifindex != *ret_ifindex)
			continue;
		named = named_hop(r);
		if (named && addr_cmp(named, ret) == 0)
			return true;
		way_out |= !r->dst.len;
		on_link |= !named && prefix_has(&r->dst, ret);
	}
	return on_link && !way_out && !(m->ndm_state & NUD_FAILED);
}

size_t neighbour_request(uint32_t ifindex, const struct addr *a, uint8_t buffer[NEIGHBOUR_REQUEST_SIZE])
{
	struct {
		struct nlmsghdr h;
		struct ndmsg m;
		struct rtattr dst;
		uint8_t address[16];
	} request = {
		.h = {.nlmsg_type = RTM_NEWNEIGH, .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE},
		.m = {.ndm_family = a->family, .ndm_ifindex = (int)ifindex, .ndm_flags = NTF_USE},
		.dst = {.rta_type = NDA_DST, .rta_len = (unsigned short)RTA_LENGTH(addr_size(a))},
	};
	size_t size = sizeof(request) - sizeof(request.address) + addr_size(a);

	_Static_assert(sizeof(request) <= NEIGHBOUR_REQUEST_SIZE, "room for IPv6");
	request.h.nlmsg_len = (uint32_t)size;
	memcpy(request.address, a->bytes, addr_size(a));
	memcpy(buffer, &request, size);
	return size;
}
