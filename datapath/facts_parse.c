/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/facts_private.h"

#include "base/mem.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stdio.h>
#include <string.h>

#define LOWER_UP (1 << 16) /* IFF_LOWER_UP of <linux/if.h>, which does not go with <net/if.h> */

static void copy_string(char *ret, size_t size, struct nlattr *a)
{
	if (a)
		snprintf(ret, size, "%s", nla_get_string(a));
}

static uint32_t get_u32(struct nlattr *a)
{
	return a ? nla_get_u32(a) : 0;
}

/* An address attribute of 'family'; an absent one gives "no address" and true. */
static bool get_addr(struct nlattr *a, uint8_t family, struct addr *ret)
{
	*ret = (struct addr){0};
	if (!a)
		return true;
	if (nla_len(a) != (family == AF_INET ? 4 : 16))
		return false;
	*ret = addr_from_bytes(family, nla_data(a));
	return true;
}

int link_parse(const struct nlmsghdr *h, struct link *ret)
{
	static const struct nla_policy policy[IFLA_MAX + 1] = {
		[IFLA_IFNAME] = {.type = NLA_STRING},
		[IFLA_MTU] = {.type = NLA_U32},
		[IFLA_LINK] = {.type = NLA_U32},
		[IFLA_MASTER] = {.type = NLA_U32},
		[IFLA_LINKINFO] = {.type = NLA_NESTED},
	};
	static const struct nla_policy info_policy[IFLA_INFO_MAX + 1] = {
		[IFLA_INFO_KIND] = {.type = NLA_STRING},
		[IFLA_INFO_SLAVE_KIND] = {.type = NLA_STRING},
	};
	struct nlattr *tb[IFLA_MAX + 1];
	struct nlattr *info[IFLA_INFO_MAX + 1];
	const struct ifinfomsg *m;

	memset(ret, 0, sizeof(*ret));
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(*m), tb, IFLA_MAX, policy) < 0)
		return -EBADMSG;
	m = nlmsg_data(h);
	if (m->ifi_family != AF_UNSPEC || !tb[IFLA_IFNAME] || !tb[IFLA_MTU])
		return 0;
	if (tb[IFLA_LINKINFO] && nla_parse_nested(info, IFLA_INFO_MAX, tb[IFLA_LINKINFO], info_policy) < 0)
		return -EBADMSG;
	ret->ifindex = (uint32_t)m->ifi_index;
	copy_string(ret->name, sizeof(ret->name), tb[IFLA_IFNAME]);
	if (tb[IFLA_LINKINFO]) {
		copy_string(ret->kind, sizeof(ret->kind), info[IFLA_INFO_KIND]);
		copy_string(ret->master_kind, sizeof(ret->master_kind), info[IFLA_INFO_SLAVE_KIND]);
	}
	ret->master = get_u32(tb[IFLA_MASTER]);
	/* With IFLA_LINK_NETNSID the index counts in another namespace. */
	if (!tb[IFLA_LINK_NETNSID])
		ret->lower = get_u32(tb[IFLA_LINK]);
	ret->type = m->ifi_type;
	ret->mtu = get_u32(tb[IFLA_MTU]);
	if (tb[IFLA_ADDRESS] && nla_len(tb[IFLA_ADDRESS]) == sizeof(ret->mac))
		memcpy(ret->mac, nla_data(tb[IFLA_ADDRESS]), sizeof(ret->mac));
	ret->up = m->ifi_flags & IFF_UP;
	ret->carrier = m->ifi_flags & LOWER_UP;
	ret->loopback = m->ifi_flags & IFF_LOOPBACK;
	return 1;
}

int link_address_parse(const struct nlmsghdr *h, struct link_address *ret)
{
	struct nlattr *tb[IFA_MAX + 1];
	const struct ifaddrmsg *m;
	struct addr addr;

	memset(ret, 0, sizeof(*ret));
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(*m), tb, IFA_MAX, NULL) < 0)
		return -EBADMSG;
	m = nlmsg_data(h);
	if (m->ifa_family != AF_INET && m->ifa_family != AF_INET6)
		return 0;
	/* IFA_ADDRESS is the peer's where there is an IFA_LOCAL beside it. */
	if (!get_addr(tb[IFA_LOCAL] ? tb[IFA_LOCAL] : tb[IFA_ADDRESS], m->ifa_family, &addr) ||
		m->ifa_prefixlen > 8 * addr_size(&addr))
		return -EBADMSG;
	if (!addr.family || (addr.family == AF_INET6 && addr_is_link_local(&addr)))
		return 0;
	*ret = (struct link_address){
		.ifindex = m->ifa_index, .addr = addr, .len = m->ifa_prefixlen, .scope = m->ifa_scope};
	return 1;
}

int rule_parse(const struct nlmsghdr *h, uint32_t *ret_table)
{
	const struct fib_rule_hdr *m;
	bool selector;
	uint32_t table;
	struct nlattr *a;
	int left;

	*ret_table = 0;
	if (!nlmsg_valid_hdr(h, sizeof(*m)))
		return -EBADMSG;
	m = nlmsg_data(h);
	if (m->family != AF_INET && m->family != AF_INET6)
		return 0;
	table = m->table;
	selector = m->dst_len || m->src_len || m->tos || (m->flags & FIB_RULE_INVERT);
	/* What is not known to be harmless is a selector: kernels go on adding kinds of them. */
	nlmsg_for_each_attr(a, h, sizeof(*m), left)
	{
		switch (nla_type(a)) {
		case FRA_TABLE:
			if (nla_len(a) < 4)
				return -EBADMSG;
			table = nla_get_u32(a);
			break;
		case FRA_SUPPRESS_PREFIXLEN: /* always there, -1: not set */
			if (nla_len(a) < 4)
				return -EBADMSG;
			selector |= nla_get_u32(a) != UINT32_MAX;
			break;
		case FRA_PRIORITY:
		case FRA_PROTOCOL:
		case FRA_PAD:
			break;
		default:
			selector = true;
			break;
		}
	}
	if (m->action != FR_ACT_TO_TBL)
		return 1;
	if (!selector && (table == RT_TABLE_LOCAL || table == RT_TABLE_MAIN || table == RT_TABLE_DEFAULT))
		return 0;
	*ret_table = table;
	return 1;
}

static const struct nla_policy route_policy[RTA_MAX + 1] = {
	[RTA_OIF] = {.type = NLA_U32},
	[RTA_PRIORITY] = {.type = NLA_U32},
	[RTA_TABLE] = {.type = NLA_U32},
};

/* What all next hops of a message have in common; 'tb' has RTA_MAX + 1 places. */
static int route_head(
	const struct nlmsghdr *h, const uint32_t *tables, size_t n, struct nlattr **tb, struct route *ret)
{
	const struct rtmsg *m;
	struct addr dst;

	memset(ret, 0, sizeof(*ret));
	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(*m), tb, RTA_MAX, route_policy) < 0)
		return -EBADMSG;
	m = nlmsg_data(h);
	if ((m->rtm_family != AF_INET && m->rtm_family != AF_INET6) || m->rtm_type != RTN_UNICAST ||
		(m->rtm_flags & RTM_F_CLONED))
		return 0;
	ret->table = tb[RTA_TABLE] ? get_u32(tb[RTA_TABLE]) : m->rtm_table;
	for (size_t i = 0;; i++) {
		if (i == n)
			return 0;
		if (tables[i] == ret->table)
			break;
	}
	if (!get_addr(tb[RTA_DST], m->rtm_family, &dst))
		return -EBADMSG;
	if (!dst.family) {
		if (m->rtm_dst_len)
			return -EBADMSG;
		dst.family = m->rtm_family;
	}
	if (m->rtm_dst_len > 8 * addr_size(&dst))
		return -EBADMSG;
	if (dst.family == AF_INET6 && (addr_is_link_local(&dst) || addr_is_multicast(&dst)))
		return 0;
	ret->dst = prefix_of(&dst, m->rtm_dst_len);
	ret->metric = get_u32(tb[RTA_PRIORITY]);
	return 1;
}

/* RTA_GATEWAY, or RTA_VIA: a gateway of the other family. Neither: on-link. */
static bool get_gateway(struct nlattr **tb, uint8_t family, struct addr *ret)
{
	const struct rtvia *via;
	uint16_t via_family;

	if (!tb[RTA_VIA])
		return get_addr(tb[RTA_GATEWAY], family, ret);
	*ret = (struct addr){0};
	if (nla_len(tb[RTA_VIA]) < (int)sizeof(*via))
		return false;
	via = nla_data(tb[RTA_VIA]);
	via_family = via->rtvia_family;
	if ((via_family != AF_INET && via_family != AF_INET6) ||
		nla_len(tb[RTA_VIA]) != (int)sizeof(*via) + (via_family == AF_INET ? 4 : 16))
		return false;
	*ret = addr_from_bytes((uint8_t)via_family, via->rtvia_addr);
	return true;
}

static void add_hop(struct facts *f, const struct route *hop)
{
	if (hop->ifindex)
		*VEC_ADD(f->routes, f->n_routes, f->cap_routes) = *hop;
}

int route_parse(
	const struct nlmsghdr *h, const uint32_t *tables, size_t n, struct facts *f, struct facts *dead)
{
	struct nlattr *tb[RTA_MAX + 1];
	const struct rtmsg *m;
	struct route r;
	const struct rtnexthop *hop;
	int left;
	int ret = route_head(h, tables, n, tb, &r);

	if (ret != 1)
		return ret;
	m = nlmsg_data(h);
	if (!tb[RTA_MULTIPATH]) {
		r.ifindex = get_u32(tb[RTA_OIF]);
		if (!get_gateway(tb, r.dst.addr.family, &r.gateway))
			return -EBADMSG;
		add_hop(m->rtm_flags & RTNH_F_DEAD ? dead : f, &r);
		return 1;
	}
	hop = nla_data(tb[RTA_MULTIPATH]);
	left = nla_len(tb[RTA_MULTIPATH]);
	while (left > 0) {
		int len;

		if (left < (int)sizeof(*hop) || hop->rtnh_len < sizeof(*hop) || hop->rtnh_len > left)
			return -EBADMSG;
		len = hop->rtnh_len - (int)sizeof(*hop);
		if (nla_parse(tb, RTA_MAX, (struct nlattr *)RTNH_DATA(hop), len, route_policy) < 0)
			return -EBADMSG;
		r.ifindex = (uint32_t)hop->rtnh_ifindex;
		if (!get_gateway(tb, r.dst.addr.family, &r.gateway))
			return -EBADMSG;
		add_hop(hop->rtnh_flags & RTNH_F_DEAD ? dead : f, &r);
		left -= (int)NLMSG_ALIGN(hop->rtnh_len);
		hop = RTNH_NEXT(hop);
	}
	return 1;
}
