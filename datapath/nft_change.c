/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/nft_encode.h"
#include "datapath/nft_sync.h"

#include <arpa/inet.h>
#include <libnftnl/chain.h>
#include <libnftnl/object.h>
#include <libnftnl/set.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <string.h>

#define ROOM 1024 /* of a message that holds a few names and numbers */
/* RULE_EXPRS_MAX ops of at most 4 expressions, each below 100 bytes plus a name */
#define RULE_ROOM 8192

void nft_change_delta(const struct ruleset_delta *delta, struct nft_change *ret)
{
	*ret = (struct nft_change){.delta = *delta, .borrowed = true};
	memcpy(ret->has_rules, delta->chains, sizeof(ret->has_rules));
}

/* Whether the chain has these rules in this order. */
static bool chain_is(
	const struct nft_observed_chain *observed, enum ruleset_chain chain, const struct ruleset *to)
{
	struct strbuf text = {0};
	struct rule_list rules;
	bool equal;

	ruleset_chain_rules(to, chain, &rules);
	equal = rules.n == observed->n;
	for (size_t i = 0; equal && i < rules.n; i++) {
		struct nftnl_rule *r = nft_encode_rule(chain, &rules.items[i]);

		strbuf_clear(&text);
		nft_rule_text(r, &text);
		nftnl_rule_free(r);
		equal = !strcmp(text.data, observed->rules[i]);
	}
	strbuf_done(&text);
	free(rules.items);
	return equal;
}

/* The dump has neither indexes nor generations: a device that is in the list is in it. */
static void take_indexes(struct ruleset *from, const struct ruleset *to)
{
	size_t j = 0;

	for (size_t i = 0; i < from->n_devices; i++) {
		while (j < to->n_devices && strcmp(to->devices[j].name, from->devices[i].name) < 0)
			j++;
		if (j < to->n_devices && !strcmp(to->devices[j].name, from->devices[i].name))
			from->devices[i] = to->devices[j];
	}
}

static void plan_elements(
	const struct nft_observed *observed, const struct ruleset *to, struct nft_change *ret)
{
	struct ruleset_delta *d = &ret->delta;

	for (size_t i = 0; i < RULESET_SETS; i++) {
		const struct element_list *all = &to->sets[i];

		if (observed->sets[i].unreadable)
			ret->flush_set[i] = true;
		/* A key that two intervals share belongs to both, and would go with either: all of them are put
		 * again, each with ends of its own. */
		if (!observed->sets[i].shared)
			continue;
		ret->flush_set[i] = true;
		d->remove[i].n = 0;
		free(d->add[i].items);
		d->add[i] = (struct element_list){.n = all->n, .cap = all->n};
		d->add[i].items = all->n ? xmemdup(all->items, all->n * sizeof(*all->items)) : NULL;
	}
}

/* One of our names in the wrong shape is missing as well, and counts as that. */
static bool is_foreign(const struct nft_stray *s)
{
	switch (s->delete_type) {
	case NFT_MSG_DELSET:
		for (size_t i = 0; i < RULESET_SETS; i++)
			if (!strcmp(ruleset_set_schema[i].name, s->name))
				return false;
		return true;
	case NFT_MSG_DELCHAIN:
		for (size_t i = 0; i < RULESET_CHAINS; i++)
			if (!strcmp(ruleset_chain_names[i], s->name))
				return false;
		return true;
	case NFT_MSG_DELFLOWTABLE:
		return strcmp(s->name, RULESET_FLOWTABLE) != 0;
	}
	return true;
}

static unsigned count_elements(
	const struct nft_observed_set *observed, const struct ruleset_delta *d, enum ruleset_set set)
{
	/* What cannot be read is one thing that should not be there. */
	if (!observed->exists || observed->unreadable)
		return observed->exists;
	if (d->add[set].n + d->remove[set].n)
		return (unsigned)(d->add[set].n + d->remove[set].n);
	return observed->shared;
}

/* 'ret' with its delta as it was found, before it becomes what has to be sent. */
static void count_found(
	const struct nft_observed *observed, const bool chain_differs[RULESET_CHAINS], struct nft_change *ret)
{
	unsigned *found = ret->found;

	found[REPAIR_TABLE] = observed->table == NFT_TABLE_ABSENT || ret->reset_table;
	if (ret->create)
		return;
	found[REPAIR_FLOWTABLE] = ret->flowtable;
	if (observed->flowtable)
		found[REPAIR_DEVICE] = (unsigned)(ret->delta.add_devices.n + ret->delta.remove_devices.n);
	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		found[REPAIR_COUNTER] += !observed->counters[i];
	for (size_t i = 0; i < RULESET_SETS; i++) {
		found[REPAIR_SET] += !observed->sets[i].exists;
		found[REPAIR_ELEMENT] += count_elements(&observed->sets[i], &ret->delta, i);
	}
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		found[REPAIR_CHAIN] += !observed->chains[i].exists || chain_differs[i];
	for (size_t i = 0; i < observed->n_strays; i++)
		found[REPAIR_FOREIGN] += is_foreign(&observed->strays[i]);
	if (observed->stray_rules && !found[REPAIR_FOREIGN])
		found[REPAIR_FOREIGN] = 1;
}

void nft_change_observed(
	struct nft_observed *observed, const struct ruleset *to, bool hardware, struct nft_change *ret)
{
	const uint32_t flags = NFT_FLOWTABLE_COUNTER | (hardware ? NFT_FLOWTABLE_HW_OFFLOAD : 0);
	bool chain_differs[RULESET_CHAINS];

	memset(ret, 0, sizeof(*ret));
	take_indexes(&observed->state, to);
	ruleset_delta_add(&ret->delta, &observed->state, to);
	ret->create = observed->table != NFT_TABLE_OURS;
	ret->reset_table = observed->table_flags && !ret->create;
	ret->strays = observed->strays;
	ret->n_strays = observed->n_strays;
	ret->flush_rules = observed->n_strays || observed->stray_rules;
	ret->flowtable = !observed->flowtable || observed->flowtable_flags != flags;
	ret->flowtable_flags = flags;
	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		ret->counters[i] = !observed->counters[i];
	for (size_t i = 0; i < RULESET_SETS; i++)
		ret->sets[i] = !observed->sets[i].exists;
	for (int i = 0; i < RULESET_CHAINS; i++) {
		const struct nft_observed_chain *chain = &observed->chains[i];

		ret->chains[i] = !chain->exists;
		ret->has_rules[i] = chain->n && !ret->flush_rules;
		chain_differs[i] = !chain_is(chain, i, to);
		ret->delta.chains[i] = ret->flush_rules || chain_differs[i];
	}
	count_found(observed, chain_differs, ret);
	plan_elements(observed, to, ret);
}

void nft_change_replace(const struct ruleset *to, bool hardware, struct nft_change *ret)
{
	struct nft_observed nothing = {.table = NFT_TABLE_ABSENT};

	nft_change_observed(&nothing, to, hardware, ret);
	ret->delete_first = true;
}

void nft_change_done(struct nft_change *c)
{
	if (!c->borrowed)
		ruleset_delta_done(&c->delta);
	memset(c, 0, sizeof(*c));
}

static void put_table(struct nft_batch *b, bool create)
{
	const char *comment = RULESET_COMMENT;
	uint8_t udata[2 + sizeof(RULESET_COMMENT)];
	struct nlmsghdr *nlh = nft_batch_message(b, NFT_MSG_NEWTABLE, create ? NLM_F_CREATE | NLM_F_EXCL : 0,
		ROOM, "table inet " RULESET_TABLE);

	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, RULESET_TABLE);
	mnl_attr_put_u32(nlh, NFTA_TABLE_FLAGS, 0);
	if (create) {
		udata[0] = 0; /* NFTNL_UDATA_TABLE_COMMENT */
		udata[1] = sizeof(RULESET_COMMENT);
		memcpy(udata + 2, comment, sizeof(RULESET_COMMENT));
		mnl_attr_put(nlh, NFTA_TABLE_USERDATA, sizeof(udata), udata);
	}
	nft_batch_end(b, nlh);
}

void nft_put_delete_table(struct nft_batch *b)
{
	struct nlmsghdr *nlh = nft_batch_message(b, NFT_MSG_DELTABLE, 0, ROOM, "table inet " RULESET_TABLE);

	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, RULESET_TABLE);
	nft_batch_end(b, nlh);
}

/* 'chain' NULL: all rules of the table */
static void put_flush_rules(struct nft_batch *b, const char *chain)
{
	struct nlmsghdr *nlh = nft_batch_message(b, NFT_MSG_DELRULE, 0, ROOM, "rules of %s%s",
		chain ? "chain " : "table inet " RULESET_TABLE, chain ? chain : "");

	mnl_attr_put_strz(nlh, NFTA_RULE_TABLE, RULESET_TABLE);
	if (chain)
		mnl_attr_put_strz(nlh, NFTA_RULE_CHAIN, chain);
	nft_batch_end(b, nlh);
}

/* Their rules are gone by now. Maps go first, their elements hold chains and objects. */
static void put_strays(struct nft_batch *b, const struct nft_change *c)
{
	static const uint16_t order[] = {
		NFT_MSG_DELSET, NFT_MSG_DELCHAIN, NFT_MSG_DELOBJ, NFT_MSG_DELFLOWTABLE};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		for (size_t j = 0; j < c->n_strays; j++) {
			const struct nft_stray *s = &c->strays[j];
			struct nlmsghdr *nlh;

			if (s->delete_type != order[i])
				continue;
			nlh = nft_batch_message(b, s->delete_type, 0, ROOM, "unknown object %s", s->name);
			/* Table and name are attributes 1 and 2 of all of these, except of chains. */
			mnl_attr_put_strz(nlh, 1, RULESET_TABLE);
			mnl_attr_put_strz(
				nlh, s->delete_type == NFT_MSG_DELCHAIN ? NFTA_CHAIN_NAME : 2, s->name);
			if (s->delete_type == NFT_MSG_DELOBJ)
				mnl_attr_put_u32(nlh, NFTA_OBJ_TYPE, htonl(s->object_type));
			nft_batch_end(b, nlh);
		}
	}
}

static void put_flowtable(struct nft_batch *b, uint32_t flags)
{
	struct nlmsghdr *nlh = nft_batch_message(
		b, NFT_MSG_NEWFLOWTABLE, NLM_F_CREATE, ROOM, "flowtable " RULESET_FLOWTABLE);
	struct nlattr *hook;

	mnl_attr_put_strz(nlh, NFTA_FLOWTABLE_TABLE, RULESET_TABLE);
	mnl_attr_put_strz(nlh, NFTA_FLOWTABLE_NAME, RULESET_FLOWTABLE);
	mnl_attr_put_u32(nlh, NFTA_FLOWTABLE_FLAGS, htonl(flags));
	hook = mnl_attr_nest_start(nlh, NFTA_FLOWTABLE_HOOK);
	mnl_attr_put_u32(nlh, NFTA_FLOWTABLE_HOOK_NUM, htonl(NF_NETDEV_INGRESS));
	mnl_attr_put_u32(nlh, NFTA_FLOWTABLE_HOOK_PRIORITY, htonl(0));
	mnl_attr_nest_end(nlh, hook);
	nft_batch_end(b, nlh);
}

static void put_counter(struct nft_batch *b, enum traffic_type type)
{
	struct nlmsghdr *nlh = nft_batch_message(
		b, NFT_MSG_NEWOBJ, NLM_F_CREATE, ROOM, "counter %s", traffic_type_names[type]);
	struct nlattr *nest;

	mnl_attr_put_strz(nlh, NFTA_OBJ_TABLE, RULESET_TABLE);
	mnl_attr_put_strz(nlh, NFTA_OBJ_NAME, traffic_type_names[type]);
	mnl_attr_put_u32(nlh, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
	nest = mnl_attr_nest_start(nlh, NFTA_OBJ_DATA);
	mnl_attr_nest_end(nlh, nest);
	nft_batch_end(b, nlh);
}

static void put_set(struct nft_batch *b, enum ruleset_set set)
{
	struct nlmsghdr *nlh = nft_batch_message(
		b, NFT_MSG_NEWSET, NLM_F_CREATE, ROOM, "set %s", ruleset_set_schema[set].name);
	struct nftnl_set *s = nft_encode_set(set);

	nftnl_set_nlmsg_build_payload(nlh, s);
	nftnl_set_free(s);
	nft_batch_end(b, nlh);
}

static void put_chain(struct nft_batch *b, enum ruleset_chain chain)
{
	struct nlmsghdr *nlh = nft_batch_message(
		b, NFT_MSG_NEWCHAIN, NLM_F_CREATE, ROOM, "chain %s", ruleset_chain_names[chain]);
	struct nftnl_chain *c = nftnl_chain_alloc();

	nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, RULESET_TABLE);
	nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, ruleset_chain_names[chain]);
	if (chain == CHAIN_FORWARD) {
		nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, "filter");
		nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, NF_INET_FORWARD);
		nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, RULESET_FORWARD_PRIORITY);
		nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, NF_ACCEPT);
	}
	nftnl_chain_nlmsg_build_payload(nlh, c);
	nftnl_chain_free(c);
	nft_batch_end(b, nlh);
}

static void put_rules(struct nft_batch *b, enum ruleset_chain chain, const struct ruleset *to)
{
	struct strbuf text = {0};
	struct rule_list rules;

	ruleset_chain_rules(to, chain, &rules);
	for (size_t i = 0; i < rules.n; i++) {
		struct nftnl_rule *r = nft_encode_rule(chain, &rules.items[i]);
		struct nlmsghdr *nlh;

		strbuf_clear(&text);
		rule_print(&rules.items[i], &text);
		nlh = nft_batch_message(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, RULE_ROOM,
			"chain %s: rule %s", ruleset_chain_names[chain], text.data);
		nftnl_rule_nlmsg_build_payload(nlh, r);
		nftnl_rule_free(r);
		nft_batch_end(b, nlh);
	}
	strbuf_done(&text);
	free(rules.items);
}

static void put_objects(struct nft_batch *b, const struct nft_change *c)
{
	if (c->flowtable)
		put_flowtable(b, c->flowtable_flags);
	for (int i = 0; i < TRAFFIC_TYPES; i++) {
		if (c->counters[i])
			put_counter(b, i);
	}
	for (int i = 0; i < RULESET_SETS; i++) {
		if (c->sets[i])
			put_set(b, i);
	}
	for (int i = 0; i < RULESET_CHAINS; i++) {
		if (c->chains[i])
			put_chain(b, i);
	}
}

void nft_put_change(struct nft_batch *b, const struct nft_change *c, const struct ruleset *to)
{
	if (c->delete_first)
		nft_put_delete_table(b);
	if (c->create || c->reset_table)
		put_table(b, c->create);
	if (c->flush_rules)
		put_flush_rules(b, NULL);
	put_strays(b, c);
	put_objects(b, c);
	for (int i = 0; i < RULESET_SETS; i++) {
		if (c->flush_set[i] && !c->sets[i])
			nft_put_flush_set(b, i);
		nft_put_elements(b, i, false, c->delta.remove[i].items, c->delta.remove[i].n);
		nft_put_elements(b, i, true, c->delta.add[i].items, c->delta.add[i].n);
	}
	for (int i = 0; i < RULESET_CHAINS; i++) {
		if (!c->delta.chains[i])
			continue;
		if (c->has_rules[i])
			put_flush_rules(b, ruleset_chain_names[i]);
		put_rules(b, i, to);
	}
}
