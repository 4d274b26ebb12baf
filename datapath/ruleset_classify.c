/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The classify chain, evaluated on what conntrack tells of a connection. */
#include "datapath/ruleset.h"

#include "base/mem.h"
#include "datapath/conntrack.h"

#include <netinet/in.h>
#include <string.h>

/*
 * nft puts a guard on the packet's family in front of `ip` and `ip6` matches, and the kernel's ct expression
 * breaks the rule when the connection is of the other family: a match of one family never holds for the
 * other.
 */
static bool addr_matches(const struct ruleset *rs, const struct rule_expr *e, const struct addr *a)
{
	enum set_kind kind = ruleset_set_schema[e->set].kind;
	struct set_element key = {0};

	if (e->value.family)
		return !addr_cmp(&e->value, a);
	switch (kind) {
	case SET_KIND_ADDR4:
	case SET_KIND_PREFIX4:
		if (a->family != AF_INET)
			return false;
		break;
	case SET_KIND_ADDR6:
	case SET_KIND_PREFIX6:
		if (a->family != AF_INET6)
			return false;
		break;
	case SET_KIND_PAIR:
	case SET_KIND_INTERFACE:
	case SET_KIND_PORT:
		return false;
	}
	memcpy(key.key, a->bytes, addr_size(a));
	if (kind == SET_KIND_PREFIX4 || kind == SET_KIND_PREFIX6)
		key.prefix_len = (uint8_t)(8 * addr_size(a));
	return ruleset_has(rs, e->set, &key);
}

static bool port_matches(const struct ruleset *rs, enum ruleset_set set, const struct flow *f)
{
	struct set_element key = element_of_port(f->protocol, f->original_dport);

	return ruleset_set_schema[set].kind == SET_KIND_PORT && ruleset_has(rs, set, &key);
}

/*
 * In the forward hook the packet of the original direction carries the original source (source NAT comes
 * later, in postrouting) and the destination after DNAT, which is the source of the reply.
 */
static bool expr_matches(const struct ruleset *rs, const struct rule_expr *e, const struct flow *f)
{
	switch (e->op) {
	case OP_DNAT:
		return f->status & FLOW_STATUS_DNAT;
	case OP_TCP:
		return f->protocol == IPPROTO_TCP;
	case OP_UDP:
		return f->protocol == IPPROTO_UDP;
	case OP_SADDR:
		return addr_matches(rs, e, &f->original_src);
	case OP_DADDR:
		return addr_matches(rs, e, &f->reply_src);
	case OP_ORIGINAL_DADDR:
		return addr_matches(rs, e, &f->original_dst);
	case OP_ORIGINAL_PORT:
		return port_matches(rs, e->set, f);
	case OP_ORIGINAL:
	case OP_UNMARKED:
	case OP_ESTABLISHED:
		return true; /* the front and the kernel let nothing else in */
	case OP_PAIR_IN_SET:
	case OP_IIF_IN_SET:
	case OP_NO_WAY_BACK:
	case OP_PACKETS:
	case OP_FLOW_ADD:
	case OP_COUNT:
	case OP_GOTO:
	case OP_ACCEPT:
		break; /* not in conntrack's tuples, or no match: not for classes */
	}
	return false;
}

static bool rule_matches(const struct ruleset *rs, const struct rule *r, const struct flow *f)
{
	for (size_t i = 0; i < r->n; i++)
		if (!expr_matches(rs, &r->exprs[i], f))
			return false;
	return true;
}

enum traffic_type ruleset_classify(const struct ruleset *rs, const struct flow *f)
{
	for (size_t i = 0; i < rs->n_classes; i++)
		if (rule_matches(rs, &rs->classes[i].match, f))
			return rs->classes[i].type;
	return TYPE_OTHER;
}
