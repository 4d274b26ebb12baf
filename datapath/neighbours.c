/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/neighbours.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

static uint8_t full_length(const struct addr *a)
{
	return (uint8_t)(8 * addr_size(a));
}

static int hop_cmp(const void *a, const void *b)
{
	const struct hop *x = a, *y = b;
	int d = (x->ifindex > y->ifindex) - (x->ifindex < y->ifindex);

	if (!d)
		d = prefix_cmp(&x->to, &y->to);
	return d ? d : x->way_out - y->way_out;
}

void neighbours_learn(struct neighbours *n, const struct facts *f)
{
	size_t kept = 0;

	n->n = 0;
	for (size_t i = 0; i < f->n_routes; i++) {
		const struct route *r = &f->routes[i];
		struct hop h = {.ifindex = r->ifindex, .to = r->dst, .way_out = !r->dst.len};

		if (r->gateway.family)
			h.to = prefix_of(&r->gateway, full_length(&r->gateway));
		/* Thousands of routes by one gateway stand together as often as not. */
		if (!n->n || hop_cmp(&n->hops[n->n - 1], &h))
			*VEC_ADD(n->hops, n->n, n->cap) = h;
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

int neighbours_filter(int fd)
{
	/* A load of half a word is big endian, the header is not. */
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_type)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_NEWNEIGH), 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_DELNEIGH), 0, 2),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NLMSG_HDRLEN + offsetof(struct ndmsg, ndm_family)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_BRIDGE, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno : 0;
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

bool neighbours_lost(
	const struct neighbours *n, const struct nlmsghdr *h, uint32_t *ret_ifindex, struct addr *ret)
{
	const struct ndmsg *m;
	bool on_link = false, way_out = false;

	if (!parse(h, &m, ret))
		return false;
	*ret_ifindex = (uint32_t)m->ndm_ifindex;
	for (size_t i = 0; i < n->n; i++) {
		const struct hop *hop = &n->hops[i];

		if (hop->ifindex != *ret_ifindex)
			continue;
		way_out |= hop->way_out;
		if (!prefix_has(&hop->to, ret))
			continue;
		if (hop->to.len == full_length(ret))
			return true;
		on_link = true;
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
