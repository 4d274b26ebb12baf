/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/nft_encode.h"

#include <arpa/inet.h>
#include <libnftnl/expr.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <string.h>

/* The second register of a concatenation whose first one is NFT_REG_1: 4 bytes behind it. */
#define REG_SECOND NFT_REG32_01

static struct nftnl_expr *add_expr(struct nftnl_rule *r, const char *name)
{
	struct nftnl_expr *e = nftnl_expr_alloc(name);

	nftnl_rule_add_expr(r, e);
	return e;
}

static void add_meta(struct nftnl_rule *r, uint32_t key, uint32_t reg)
{
	struct nftnl_expr *e = add_expr(r, "meta");

	nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, reg);
}

static void add_cmp(struct nftnl_rule *r, uint32_t op, const void *data, uint32_t len)
{
	struct nftnl_expr *e = add_expr(r, "cmp");

	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, op);
	nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, data, len);
}

static void add_lookup(struct nftnl_rule *r, enum ruleset_set set)
{
	struct nftnl_expr *e = add_expr(r, "lookup");

	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, ruleset_set_schema[set].name);
	/* The kernel dumps it, so that it counts in comparisons. */
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_FLAGS, 0);
}

/* 'dir' -1: both directions */
static void add_ct(struct nftnl_rule *r, uint32_t key, int dir, uint32_t reg)
{
	struct nftnl_expr *e = add_expr(r, "ct");

	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, reg);
	if (dir >= 0)
		nftnl_expr_set_u8(e, NFTNL_EXPR_CT_DIR, (uint8_t)dir);
}

/* `ct KEY BIT`: host-endian bits */
static void add_ct_bit(struct nftnl_rule *r, uint32_t key, uint32_t bit)
{
	const uint32_t zero = 0;
	struct nftnl_expr *e;

	add_ct(r, key, -1, NFT_REG_1);
	e = add_expr(r, "bitwise");
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, sizeof(bit));
	nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, &bit, sizeof(bit));
	nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, &zero, sizeof(zero));
	add_cmp(r, NFT_CMP_NEQ, &zero, sizeof(zero));
}

static void add_l4proto(struct nftnl_rule *r, uint8_t protocol)
{
	add_meta(r, NFT_META_L4PROTO, NFT_REG_1);
	add_cmp(r, NFT_CMP_EQ, &protocol, sizeof(protocol));
}

static void add_verdict(struct nftnl_rule *r, int verdict, const char *chain)
{
	struct nftnl_expr *e = add_expr(r, "immediate");

	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
	if (chain)
		nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, chain);
}

static bool op_is_ipv6(const struct rule_expr *x)
{
	enum set_kind kind;

	if (x->value.family)
		return x->value.family == AF_INET6;
	kind = ruleset_set_schema[x->set].kind;
	return kind == SET_KIND_ADDR6 || kind == SET_KIND_PREFIX6;
}

static void add_set_or_value(struct nftnl_rule *r, const struct rule_expr *x)
{
	if (x->value.family)
		add_cmp(r, NFT_CMP_EQ, x->value.bytes, (uint32_t)addr_size(&x->value));
	else
		add_lookup(r, x->set);
}

/* `ip saddr`: the network header's field, behind a test of the family that nft writes once per rule. */
static void add_network_addr(
	struct nftnl_rule *r, const struct rule_expr *x, bool destination, uint8_t *guard)
{
	bool ipv6 = op_is_ipv6(x);
	uint8_t family = ipv6 ? NFPROTO_IPV6 : NFPROTO_IPV4;
	struct nftnl_expr *e;

	if (*guard != family) {
		add_meta(r, NFT_META_NFPROTO, NFT_REG_1);
		add_cmp(r, NFT_CMP_EQ, &family, sizeof(family));
		*guard = family;
	}
	e = add_expr(r, "payload");
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER);
	nftnl_expr_set_u32(
		e, NFTNL_EXPR_PAYLOAD_OFFSET, ipv6 ? (destination ? 24 : 8) : (destination ? 16 : 12));
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, ipv6 ? 16 : 4);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
	add_set_or_value(r, x);
}

static void add_op(struct nftnl_rule *r, const struct rule_expr *x, uint8_t *guard)
{
	static const uint8_t zero[8];
	struct nftnl_expr *e;

	switch (x->op) {
	case OP_PAIR_IN_SET:
		add_meta(r, NFT_META_IIF, NFT_REG_1);
		add_meta(r, NFT_META_OIF, REG_SECOND);
		add_lookup(r, x->set);
		break;
	case OP_IIF_IN_SET:
		add_meta(r, NFT_META_IIF, NFT_REG_1);
		add_lookup(r, x->set);
		break;
	case OP_ORIGINAL:
		add_ct(r, NFT_CT_DIRECTION, -1, NFT_REG_1);
		add_cmp(r, NFT_CMP_EQ, zero, 1);
		break;
	case OP_UNMARKED:
		add_meta(r, NFT_META_MARK, NFT_REG_1);
		add_cmp(r, NFT_CMP_EQ, zero, 4);
		break;
	case OP_NO_WAY_BACK:
		e = add_expr(r, "fib");
		nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_OIF);
		nftnl_expr_set_u32(
			e, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT);
		nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
		add_cmp(r, NFT_CMP_EQ, zero, 4);
		break;
	case OP_DNAT:
		add_ct_bit(r, NFT_CT_STATUS, IPS_DST_NAT);
		break;
	case OP_TCP:
		add_l4proto(r, IPPROTO_TCP);
		break;
	case OP_UDP:
		add_l4proto(r, IPPROTO_UDP);
		break;
	case OP_ESTABLISHED:
		add_ct_bit(r, NFT_CT_STATE, NF_CT_STATE_BIT(IP_CT_ESTABLISHED));
		break;
	case OP_SADDR:
		add_network_addr(r, x, false, guard);
		break;
	case OP_DADDR:
		add_network_addr(r, x, true, guard);
		break;
	case OP_ORIGINAL_DADDR:
		/* No test of the family: the kernel does not match connections of the other one. */
		add_ct(r, op_is_ipv6(x) ? NFT_CT_DST_IP6 : NFT_CT_DST_IP, IP_CT_DIR_ORIGINAL, NFT_REG_1);
		add_set_or_value(r, x);
		break;
	case OP_ORIGINAL_PORT:
		add_meta(r, NFT_META_L4PROTO, NFT_REG_1);
		add_ct(r, NFT_CT_PROTO_DST, IP_CT_DIR_ORIGINAL, REG_SECOND);
		add_lookup(r, x->set);
		break;
	case OP_PACKETS:
		add_ct(r, NFT_CT_PKTS, -1, NFT_REG_1);
		add_cmp(r, NFT_CMP_EQ, zero, 8);
		break;
	case OP_FLOW_ADD:
		e = add_expr(r, "flow_offload");
		nftnl_expr_set_str(e, NFTNL_EXPR_FLOW_TABLE_NAME, RULESET_FLOWTABLE);
		break;
	case OP_COUNT:
		e = add_expr(r, "objref");
		nftnl_expr_set_u32(e, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
		nftnl_expr_set_str(e, NFTNL_EXPR_OBJREF_IMM_NAME, traffic_type_names[x->type]);
		break;
	case OP_GOTO:
		add_verdict(r, NFT_GOTO, ruleset_chain_names[x->chain]);
		break;
	case OP_ACCEPT:
		add_verdict(r, NF_ACCEPT, NULL);
		break;
	}
}

struct nftnl_rule *nft_encode_rule(enum ruleset_chain chain, const struct rule *r)
{
	struct nftnl_rule *ret = nftnl_rule_alloc();
	uint8_t guard = 0;

	nftnl_rule_set_u32(ret, NFTNL_RULE_FAMILY, NFPROTO_INET);
	nftnl_rule_set_str(ret, NFTNL_RULE_TABLE, RULESET_TABLE);
	nftnl_rule_set_str(ret, NFTNL_RULE_CHAIN, ruleset_chain_names[chain]);
	for (size_t i = 0; i < r->n; i++)
		add_op(ret, &r->exprs[i], &guard);
	return ret;
}

static int expr_text(struct nftnl_expr *e, void *arg)
{
	struct strbuf *out = arg;
	char text[512];

	text[0] = '\0';
	nftnl_expr_snprintf(text, sizeof(text), e, NFTNL_OUTPUT_DEFAULT, 0);
	strbuf_printf(out, "[%s %s]", nftnl_expr_get_str(e, NFTNL_EXPR_NAME), text);
	return 0;
}

void nft_rule_text(const struct nftnl_rule *r, struct strbuf *out)
{
	nftnl_expr_foreach((struct nftnl_rule *)r, expr_text, out);
	strbuf_puts(out, "");
}

/* nft's enum datatypes (nftables, include/datatype.h) */
enum {
	TYPE_IPADDR = 7,
	TYPE_IP6ADDR = 8,
	TYPE_INET_PROTO = 12,
	TYPE_INET_SERVICE = 13,
	TYPE_IFINDEX = 20,
	TYPE_BITS = 6
};
enum { BYTEORDER_HOST = 1, BYTEORDER_BIG = 2 };

const struct nft_set_type *nft_set_type(enum set_kind kind)
{
	static const struct nft_set_type types[] = {
		[SET_KIND_PAIR] = {TYPE_IFINDEX << TYPE_BITS | TYPE_IFINDEX, 8, 0, BYTEORDER_HOST},
		[SET_KIND_INTERFACE] = {TYPE_IFINDEX, 4, 0, BYTEORDER_HOST},
		[SET_KIND_ADDR4] = {TYPE_IPADDR, 4, 0, BYTEORDER_BIG},
		[SET_KIND_ADDR6] = {TYPE_IP6ADDR, 16, 0, BYTEORDER_BIG},
		[SET_KIND_PREFIX4] = {TYPE_IPADDR, 4, NFT_SET_INTERVAL, BYTEORDER_BIG},
		[SET_KIND_PREFIX6] = {TYPE_IP6ADDR, 16, NFT_SET_INTERVAL, BYTEORDER_BIG},
		[SET_KIND_PORT] = {TYPE_INET_PROTO << TYPE_BITS | TYPE_INET_SERVICE, 8, 0, BYTEORDER_BIG},
	};

	return &types[kind];
}

struct nftnl_set *nft_encode_set(enum ruleset_set set)
{
	const struct nft_set_type *type = nft_set_type(ruleset_set_schema[set].kind);
	struct nftnl_set *s = nftnl_set_alloc();
	uint8_t udata[2 + sizeof(uint32_t)] = {NFTNL_UDATA_SET_KEYBYTEORDER, sizeof(uint32_t)};

	nftnl_set_set_u32(s, NFTNL_SET_FAMILY, NFPROTO_INET);
	nftnl_set_set_str(s, NFTNL_SET_TABLE, RULESET_TABLE);
	nftnl_set_set_str(s, NFTNL_SET_NAME, ruleset_set_schema[set].name);
	nftnl_set_set_u32(s, NFTNL_SET_ID, (uint32_t)set + 1);
	nftnl_set_set_u32(s, NFTNL_SET_FLAGS, type->flags);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, type->key_type);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, type->key_len);
	memcpy(udata + 2, &type->byteorder, sizeof(type->byteorder));
	nftnl_set_set_data(s, NFTNL_SET_USERDATA, udata, sizeof(udata));
	return s;
}
