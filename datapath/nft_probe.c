/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/nft.h"
#include "datapath/nft_batch.h"
#include "datapath/nft_probe_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define PROBE_TABLE "slipstream-probe"
#define ROOM 1024

static void put_probe_table(struct nft_batch *b)
{
	struct nlmsghdr *nlh = nft_batch_message(b, NFT_MSG_NEWTABLE, NLM_F_CREATE, ROOM, "table");

	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, PROBE_TABLE);
	nft_batch_end(b, nlh);
}

/* 'device' NULL: none */
static void put_probe_flowtable(struct nft_batch *b, uint32_t flags, const char *device)
{
	struct nlmsghdr *nlh = nft_batch_message(b, NFT_MSG_NEWFLOWTABLE, NLM_F_CREATE, ROOM, "flowtable");
	struct nlattr *hook, *devices;

	mnl_attr_put_strz(nlh, NFTA_FLOWTABLE_TABLE, PROBE_TABLE);
	mnl_attr_put_strz(nlh, NFTA_FLOWTABLE_NAME, RULESET_FLOWTABLE);
	if (flags)
		mnl_attr_put_u32(nlh, NFTA_FLOWTABLE_FLAGS, htonl(flags));
	hook = mnl_attr_nest_start(nlh, NFTA_FLOWTABLE_HOOK);
	mnl_attr_put_u32(nlh, NFTA_FLOWTABLE_HOOK_NUM, htonl(NF_NETDEV_INGRESS));
	mnl_attr_put_u32(nlh, NFTA_FLOWTABLE_HOOK_PRIORITY, htonl(0));
	if (device) {
		devices = mnl_attr_nest_start(nlh, NFTA_FLOWTABLE_HOOK_DEVS);
		mnl_attr_put_strz(nlh, NFTA_DEVICE_NAME, device);
		mnl_attr_nest_end(nlh, devices);
	}
	mnl_attr_nest_end(nlh, hook);
	nft_batch_end(b, nlh);
}

static void put_probe_chain(struct nft_batch *b)
{
	struct nlmsghdr *nlh = nft_batch_message(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE, ROOM, "chain");
	struct nlattr *hook;

	mnl_attr_put_strz(nlh, NFTA_CHAIN_TABLE, PROBE_TABLE);
	mnl_attr_put_strz(nlh, NFTA_CHAIN_NAME, "forward");
	mnl_attr_put_strz(nlh, NFTA_CHAIN_TYPE, "filter");
	hook = mnl_attr_nest_start(nlh, NFTA_CHAIN_HOOK);
	mnl_attr_put_u32(nlh, NFTA_HOOK_HOOKNUM, htonl(NF_INET_FORWARD));
	mnl_attr_put_u32(nlh, NFTA_HOOK_PRIORITY, htonl(RULESET_FORWARD_PRIORITY));
	mnl_attr_nest_end(nlh, hook);
	nft_batch_end(b, nlh);
}

static void put_probe_rule(struct nft_batch *b)
{
	struct nlmsghdr *nlh =
		nft_batch_message(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, ROOM, "rule");
	struct nftnl_rule *r = nftnl_rule_alloc();
	struct nftnl_expr *e = nftnl_expr_alloc("flow_offload");

	nftnl_rule_set_str(r, NFTNL_RULE_TABLE, PROBE_TABLE);
	nftnl_rule_set_str(r, NFTNL_RULE_CHAIN, "forward");
	nftnl_expr_set_str(e, NFTNL_EXPR_FLOW_TABLE_NAME, RULESET_FLOWTABLE);
	nftnl_rule_add_expr(r, e);
	nftnl_rule_nlmsg_build_payload(nlh, r);
	nftnl_rule_free(r);
	nft_batch_end(b, nlh);
}

/* Validates, and never commits, a programme in small. */
static struct nft_failure probe_flowtable(struct nft_socket *s, bool counter)
{
	struct nft_batch batch = {0};
	struct nft_failure failure;

	put_probe_table(&batch);
	put_probe_flowtable(&batch, counter ? NFT_FLOWTABLE_COUNTER : 0, NULL);
	put_probe_chain(&batch);
	put_probe_rule(&batch);
	nft_batch_send(s, &batch, false, &failure);
	nft_batch_done(&batch);
	return failure;
}

int nft_probe_hardware(struct nft_socket *s, const char *device)
{
	struct nft_batch batch = {0};
	struct nft_failure failure;

	put_probe_table(&batch);
	put_probe_flowtable(&batch, NFT_FLOWTABLE_COUNTER | NFT_FLOWTABLE_HW_OFFLOAD, device);
	nft_batch_send(s, &batch, false, &failure);
	nft_batch_done(&batch);
	return failure.code;
}

static void probe_reason(const struct nft_failure *f, struct features *ret)
{
	char *reason = ret->reason;
	size_t size = sizeof(ret->reason);

	if (f->code == -EPERM)
		snprintf(reason, size,
			"nftables refuses access: run as root or with the capability NET_ADMIN");
	else if (f->message == SIZE_MAX || f->message == PROBE_MESSAGE_TABLE)
		snprintf(reason, size,
			"the kernel has no nftables for inet tables: module nf_tables, CONFIG_NF_TABLES_INET "
			"(%s)",
			strerror(-f->code));
	else if (f->message == PROBE_MESSAGE_FLOWTABLE)
		snprintf(reason, size,
			"the kernel has no flowtable for inet tables: module nf_flow_table_inet, "
			"CONFIG_NF_FLOW_TABLE_INET (%s)",
			strerror(-f->code));
	else if (f->message == PROBE_MESSAGE_RULE)
		snprintf(reason, size,
			"the kernel has no `flow add`: module nft_flow_offload, CONFIG_NFT_FLOW_OFFLOAD (%s)",
			strerror(-f->code));
	else
		snprintf(reason, size, "the kernel refuses a chain of hook forward (%s)", strerror(-f->code));
}

/* Says nothing of what the kernel has: the same question may be answered otherwise a moment later. */
static bool is_passing(int code)
{
	return code == -ENOMEM || code == -ENOBUFS || code == -EINTR || code == -EAGAIN || code == -EBUSY ||
	       code == -EMSGSIZE;
}

int nft_probe_judge(const struct nft_failure *f, struct features *ret, struct error *err)
{
	if (is_passing(f->code))
		return error_set(err, f->code, "nftables", "it is asked again",
			"the kernel did not say what it supports: %s", strerror(-f->code));
	memset(ret, 0, sizeof(*ret));
	ret->nftables = !f->code || (f->message != SIZE_MAX && f->message != PROBE_MESSAGE_TABLE);
	ret->flowtable = ret->flowtable_counter = !f->code;
	if (f->code)
		probe_reason(f, ret);
	return 0;
}

static int probe_features(struct nft_socket *s, struct features *ret, struct error *err)
{
	struct nft_failure failure = probe_flowtable(s, true);
	int code = nft_probe_judge(&failure, ret, err);

	if (code || !failure.code || failure.message != PROBE_MESSAGE_FLOWTABLE)
		return code;
	code = -failure.code;
	failure = probe_flowtable(s, false);
	if (failure.code)
		return nft_probe_judge(&failure, ret, err);
	ret->flowtable = true;
	snprintf(ret->reason, sizeof(ret->reason),
		"the kernel's flowtables have no counter, which came with 5.7 (%s)", strerror(code));
	return 0;
}

static int nothing(const struct nlmsghdr *nlh, void *arg)
{
	(void)nlh;
	(void)arg;
	return 0;
}

static bool has_chain(struct nft_socket *s, uint8_t family, const char *table, const char *chain)
{
	struct nft_request request = {
		.type = NFT_MSG_GETCHAIN,
		.family = family,
		.table = table,
		.name = chain,
		.name_attr = NFTA_CHAIN_NAME,
	};

	return !nft_request(s, &request, nothing, NULL, NULL);
}

/* Tables whose rules may be Antrea's NOTRACK */
struct foreign_table {
	uint8_t family;
	char *name;
};

struct tables_answer {
	bool kube_proxy;
	struct foreign_table *items;
	size_t n, cap;
};

static bool names_antrea(const char *name)
{
	for (; *name; name++) {
		if (!strncasecmp(name, "antrea", strlen("antrea")))
			return true;
	}
	return false;
}

static int on_table(const struct nlmsghdr *nlh, void *arg)
{
	const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);
	struct tables_answer *ret = arg;
	const struct nlattr *attr;
	const char *name = NULL;
	bool ip = nfg->nfgen_family == NFPROTO_IPV4 || nfg->nfgen_family == NFPROTO_IPV6;
	struct foreign_table *t;

	mnl_attr_for_each(attr, nlh, sizeof(*nfg))
	{
		if (mnl_attr_get_type(attr) == NFTA_TABLE_NAME &&
			!mnl_attr_validate(attr, MNL_TYPE_NUL_STRING))
			name = mnl_attr_get_str(attr);
	}
	if (!name)
		return 0;
	if (ip && !strcmp(name, "kube-proxy"))
		ret->kube_proxy = true;
	if (!names_antrea(name) && !(ip && !strcmp(name, "raw")))
		return 0;
	t = VEC_ADD(ret->items, ret->n, ret->cap);
	t->family = nfg->nfgen_family;
	t->name = xstrdup(name);
	return 0;
}

static void restart_tables(void *arg)
{
	struct tables_answer *ret = arg;

	for (size_t i = 0; i < ret->n; i++)
		free(ret->items[i].name);
	ret->n = 0;
	ret->kube_proxy = false;
}

static int find_notrack(struct nftnl_expr *e, void *arg)
{
	const char *name = nftnl_expr_get_str(e, NFTNL_EXPR_NAME);
	bool *ret = arg;

	/* iptables' NOTRACK is the target CT (--notrack) in its newer form. */
	if (!strcmp(name, "target") && nftnl_expr_is_set(e, NFTNL_EXPR_TG_NAME))
		name = nftnl_expr_get_str(e, NFTNL_EXPR_TG_NAME);
	if (!strcmp(name, "notrack") || !strcmp(name, "CT") || !strcmp(name, "NOTRACK"))
		*ret = true;
	return 0;
}

static int on_rule(const struct nlmsghdr *nlh, void *arg)
{
	struct nftnl_rule *r = nftnl_rule_alloc();
	const char *table, *chain;

	if (nftnl_rule_nlmsg_parse(nlh, r) >= 0) {
		table = nftnl_rule_get_str(r, NFTNL_RULE_TABLE);
		chain = nftnl_rule_get_str(r, NFTNL_RULE_CHAIN);
		if (table && chain && (names_antrea(table) || names_antrea(chain)))
			nftnl_expr_foreach(r, find_notrack, arg);
	}
	nftnl_rule_free(r);
	return 0;
}

struct foreign {
	bool kube_proxy_nftables, kube_proxy_iptables, notrack;
};

static int probe_foreign(struct nft_socket *s, struct foreign *ret)
{
	struct nft_request request = {.type = NFT_MSG_GETTABLE, .flags = NLM_F_DUMP, .family = AF_UNSPEC};
	struct tables_answer tables = {0};
	int code = nft_request(s, &request, on_table, restart_tables, &tables);

	ret->kube_proxy_nftables = tables.kube_proxy;
	for (size_t i = 0; !code && i < tables.n; i++) {
		request = (struct nft_request){
			.type = NFT_MSG_GETRULE,
			.flags = NLM_F_DUMP,
			.family = tables.items[i].family,
			.table = tables.items[i].name,
		};
		code = nft_request(s, &request, on_rule, NULL, &ret->notrack);
		if (code == -ENOENT)
			code = 0; /* gone meanwhile */
	}
	restart_tables(&tables);
	free(tables.items);
	ret->kube_proxy_iptables = has_chain(s, NFPROTO_IPV4, "nat", "KUBE-SERVICES") ||
				   has_chain(s, NFPROTO_IPV6, "nat", "KUBE-SERVICES");
	return code;
}

int nft_probe(struct facts *facts, struct error *err)
{
	struct features features;
	struct foreign foreign = {0};
	struct nft_socket s;
	int code = nft_socket_open(&s, err);

	if (code)
		return code;
	code = probe_features(&s, &features, err);
	if (!code && features.nftables) {
		code = probe_foreign(&s, &foreign);
		if (code)
			error_set(err, code, "nftables", "it is asked again", "cannot read its tables: %s",
				strerror(-code));
	}
	nft_socket_close(&s);
	if (code)
		return code;
	facts->features = features;
	facts->kube_proxy_nftables = foreign.kube_proxy_nftables;
	facts->kube_proxy_iptables = foreign.kube_proxy_iptables;
	facts->notrack = foreign.notrack;
	return 0;
}
