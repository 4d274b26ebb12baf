/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/nft_dump.h"
#include "base/mem.h"
#include "datapath/nft_encode.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>

#define TABLE_OBJECT "table inet " RULESET_TABLE

static int dump_error(int code, const char *object, struct error *err)
{
	return error_set(err, code, object,
		code == -EINTR   ? "other programs change nftables all the time; it is tried again"
		: code == -EPERM ? "run as root or with the capability NET_ADMIN"
				 : NULL,
		"cannot read it from the kernel: %s", strerror(-code));
}

static bool is_our_table(const char *name)
{
	return name && !strcmp(name, RULESET_TABLE);
}

static void add_stray(struct nft_observed *o, uint16_t delete_type, uint32_t object_type, const char *name)
{
	struct nft_stray *s = VEC_ADD(o->strays, o->n_strays, o->cap_strays);

	s->delete_type = delete_type;
	s->object_type = object_type;
	s->name = xstrdup(name);
}

struct table_answer {
	enum nft_table_state state;
	uint32_t flags;
};

/* The comment is a TLV of user data: type NFTNL_UDATA_TABLE_COMMENT (0), length, text with its NUL. */
static enum nft_table_state table_owner(const uint8_t *udata, uint32_t len)
{
	const size_t word = strlen(RULESET_COMMENT);

	while (udata && len >= 2 && len - 2 >= udata[1]) {
		const char *text = (const char *)udata + 2;

		if (udata[0] == 0 && udata[1] && !text[udata[1] - 1] &&
			!strncmp(text, RULESET_COMMENT, word) && (!text[word] || text[word] == ' '))
			return NFT_TABLE_OURS;
		len -= 2u + udata[1];
		udata += 2 + udata[1];
	}
	return NFT_TABLE_FOREIGN;
}

static int on_table(const struct nlmsghdr *nlh, void *arg)
{
	struct table_answer *ret = arg;
	struct nftnl_table *t = nftnl_table_alloc();
	uint32_t len = 0;
	const void *udata;

	if (nftnl_table_nlmsg_parse(nlh, t) < 0) {
		nftnl_table_free(t);
		return -EBADMSG;
	}
	udata = nftnl_table_is_set(t, NFTNL_TABLE_USERDATA)
			? nftnl_table_get_data(t, NFTNL_TABLE_USERDATA, &len)
			: NULL;
	ret->state = table_owner(udata, len);
	ret->flags = nftnl_table_get_u32(t, NFTNL_TABLE_FLAGS);
	nftnl_table_free(t);
	return 0;
}

int nft_observe_table(struct nft_socket *s, enum nft_table_state *ret, uint32_t *ret_flags, struct error *err)
{
	struct table_answer answer = {.state = NFT_TABLE_ABSENT};
	struct nft_request request = {
		.type = NFT_MSG_GETTABLE,
		.family = NFPROTO_INET,
		.table = RULESET_TABLE,
	};
	int code = nft_request(s, &request, on_table, NULL, &answer);

	*ret = code == -ENOENT ? NFT_TABLE_ABSENT : answer.state;
	*ret_flags = answer.flags;
	return code && code != -ENOENT ? dump_error(code, TABLE_OBJECT, err) : 0;
}

static int find_name(const char *const *names, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++) {
		if (!strcmp(names[i], name))
			return (int)i;
	}
	return -1;
}

static const char *attr_string(const struct nlattr *attr)
{
	return mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) ? NULL : mnl_attr_get_str(attr);
}

static void observe_device(struct nft_observed *o, const struct nlattr *attr)
{
	const char *name = attr_string(attr);

	/* A name without NUL, or NFTA_DEVICE_PREFIX (3), is a wildcard, which the programme has none of. It
	 * cannot be taken out by name here; it does no harm, and a flowtable is not worth losing for it. */
	if (mnl_attr_get_type(attr) == NFTA_DEVICE_NAME && name)
		ruleset_add_device(&o->state, name, 0);
}

static void observe_hook(struct nft_observed *o, const struct nlattr *hook, bool *ret_ours)
{
	const struct nlattr *attr, *device;

	mnl_attr_for_each_nested(attr, hook)
	{
		switch (mnl_attr_get_type(attr)) {
		case NFTA_FLOWTABLE_HOOK_NUM:
			*ret_ours &= !mnl_attr_validate(attr, MNL_TYPE_U32) &&
				     ntohl(mnl_attr_get_u32(attr)) == NF_NETDEV_INGRESS;
			break;
		case NFTA_FLOWTABLE_HOOK_PRIORITY:
			*ret_ours &= !mnl_attr_validate(attr, MNL_TYPE_U32) && mnl_attr_get_u32(attr) == 0;
			break;
		case NFTA_FLOWTABLE_HOOK_DEVS:
			mnl_attr_for_each_nested(device, attr) observe_device(o, device);
			break;
		}
	}
}

void nft_observed_drop_flowtable(struct nft_observed *o)
{
	add_stray(o, NFT_MSG_DELFLOWTABLE, 0, RULESET_FLOWTABLE);
	o->flowtable = false;
	o->flowtable_flags = 0;
	o->state.n_devices = 0;
}

static int on_flowtable(const struct nlmsghdr *nlh, void *arg)
{
	struct nft_observed *o = arg;
	const struct nlattr *attr, *hook = NULL;
	const char *table = NULL, *name = NULL;
	uint32_t flags = 0;
	bool ours = true;

	mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
	{
		switch (mnl_attr_get_type(attr)) {
		case NFTA_FLOWTABLE_TABLE:
			table = attr_string(attr);
			break;
		case NFTA_FLOWTABLE_NAME:
			name = attr_string(attr);
			break;
		case NFTA_FLOWTABLE_HOOK:
			hook = attr;
			break;
		case NFTA_FLOWTABLE_FLAGS:
			if (!mnl_attr_validate(attr, MNL_TYPE_U32))
				flags = ntohl(mnl_attr_get_u32(attr));
			break;
		}
	}
	if (!is_our_table(table) || !name)
		return 0;
	if (strcmp(name, RULESET_FLOWTABLE) != 0) {
		add_stray(o, NFT_MSG_DELFLOWTABLE, 0, name);
		return 0;
	}
	if (hook)
		observe_hook(o, hook, &ours);
	ours &= !(flags & ~(uint32_t)(NFT_FLOWTABLE_COUNTER | NFT_FLOWTABLE_HW_OFFLOAD));
	o->flowtable = true;
	o->flowtable_flags = flags;
	if (!ours)
		nft_observed_drop_flowtable(o);
	return 0;
}

static int on_set(const struct nlmsghdr *nlh, void *arg)
{
	struct nft_observed *o = arg;
	struct nftnl_set *s = nftnl_set_alloc();
	const struct nft_set_type *type;
	const char *name;
	int code = 0;

	if (nftnl_set_nlmsg_parse(nlh, s) < 0) {
		code = -EBADMSG;
		goto out;
	}
	name = nftnl_set_get_str(s, NFTNL_SET_NAME);
	/* One without a name goes with its rule, and cannot be removed by itself. */
	if (nftnl_set_get_u32(s, NFTNL_SET_FLAGS) & NFT_SET_ANONYMOUS)
		goto out;
	if (!name || !is_our_table(nftnl_set_get_str(s, NFTNL_SET_TABLE)))
		goto out;
	for (int i = 0; i < RULESET_SETS; i++) {
		if (strcmp(ruleset_set_schema[i].name, name) != 0)
			continue;
		type = nft_set_type(ruleset_set_schema[i].kind);
		/* Newer versions of nft mark every concatenation. */
		o->sets[i].exists =
			nftnl_set_get_u32(s, NFTNL_SET_KEY_TYPE) == type->key_type &&
			nftnl_set_get_u32(s, NFTNL_SET_KEY_LEN) == type->key_len &&
			(nftnl_set_get_u32(s, NFTNL_SET_FLAGS) & ~(uint32_t)NFT_SET_CONCAT) == type->flags;
		if (o->sets[i].exists)
			goto out;
	}
	add_stray(o, NFT_MSG_DELSET, 0, name);
out:
	nftnl_set_free(s);
	return code;
}

static int on_object(const struct nlmsghdr *nlh, void *arg)
{
	struct nft_observed *o = arg;
	struct nftnl_obj *obj = nftnl_obj_alloc();
	const char *name;
	uint32_t type;
	int code = 0, i;

	if (nftnl_obj_nlmsg_parse(nlh, obj) < 0) {
		code = -EBADMSG;
		goto out;
	}
	name = nftnl_obj_get_str(obj, NFTNL_OBJ_NAME);
	if (!name || !is_our_table(nftnl_obj_get_str(obj, NFTNL_OBJ_TABLE)))
		goto out;
	type = nftnl_obj_get_u32(obj, NFTNL_OBJ_TYPE);
	i = find_name(traffic_type_names, TRAFFIC_TYPES, name);
	if (i >= 0 && type == NFT_OBJECT_COUNTER)
		o->counters[i] = true;
	else
		add_stray(o, NFT_MSG_DELOBJ, type, name);
out:
	nftnl_obj_free(obj);
	return code;
}

static bool chain_is_ours(const struct nftnl_chain *c, int i)
{
	bool base = nftnl_chain_is_set(c, NFTNL_CHAIN_HOOKNUM);
	const char *type;

	if (i != CHAIN_FORWARD)
		return !base;
	type = nftnl_chain_get_str(c, NFTNL_CHAIN_TYPE);
	return base && type && !strcmp(type, "filter") &&
	       nftnl_chain_get_u32(c, NFTNL_CHAIN_HOOKNUM) == NF_INET_FORWARD &&
	       nftnl_chain_get_s32(c, NFTNL_CHAIN_PRIO) == RULESET_FORWARD_PRIORITY &&
	       nftnl_chain_get_u32(c, NFTNL_CHAIN_POLICY) == NF_ACCEPT;
}

static int on_chain(const struct nlmsghdr *nlh, void *arg)
{
	struct nft_observed *o = arg;
	struct nftnl_chain *c = nftnl_chain_alloc();
	const char *name;
	int code = 0, i;

	if (nftnl_chain_nlmsg_parse(nlh, c) < 0) {
		code = -EBADMSG;
		goto out;
	}
	name = nftnl_chain_get_str(c, NFTNL_CHAIN_NAME);
	/* As with sets. */
	if (nftnl_chain_get_u32(c, NFTNL_CHAIN_FLAGS) & NFT_CHAIN_BINDING)
		goto out;
	if (!name || !is_our_table(nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE)))
		goto out; /* the kernel has no filter by table before 6.x */
	i = find_name(ruleset_chain_names, RULESET_CHAINS, name);
	if (i >= 0 && chain_is_ours(c, i))
		o->chains[i].exists = true;
	else
		add_stray(o, NFT_MSG_DELCHAIN, 0, name);
out:
	nftnl_chain_free(c);
	return code;
}

static int on_rule(const struct nlmsghdr *nlh, void *arg)
{
	struct nft_observed *o = arg;
	struct nftnl_rule *r = nftnl_rule_alloc();
	struct nft_observed_chain *chain;
	struct strbuf text = {0};
	const char *name;
	int i;

	/* A rule that libnftnl does not understand is not one of ours. */
	if (nftnl_rule_nlmsg_parse(nlh, r) < 0) {
		o->stray_rules = true;
		goto out;
	}
	name = nftnl_rule_get_str(r, NFTNL_RULE_CHAIN);
	if (!name || !is_our_table(nftnl_rule_get_str(r, NFTNL_RULE_TABLE)))
		goto out;
	i = find_name(ruleset_chain_names, RULESET_CHAINS, name);
	if (i < 0) {
		o->stray_rules = true;
		goto out;
	}
	chain = &o->chains[i];
	nft_rule_text(r, &text);
	*VEC_ADD(chain->rules, chain->n, chain->cap) = strbuf_steal(&text);
out:
	nftnl_rule_free(r);
	return 0;
}

struct elements_answer {
	enum ruleset_set set;
	bool unreadable;
	struct nft_key *keys;
	size_t n, cap;
};

static int on_elements(const struct nlmsghdr *nlh, void *arg)
{
	struct elements_answer *ret = arg;
	const struct nlattr *attr, *elem;
	struct nft_key key;

	mnl_attr_for_each(attr, nlh, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(attr) != NFTA_SET_ELEM_LIST_ELEMENTS)
			continue;
		mnl_attr_for_each_nested(elem, attr)
		{
			if (nft_read_key(ret->set, elem, &key))
				*VEC_ADD(ret->keys, ret->n, ret->cap) = key;
			else
				ret->unreadable = true;
		}
	}
	return 0;
}

static void restart_elements(void *arg)
{
	struct elements_answer *ret = arg;

	ret->n = 0;
	ret->unreadable = false;
}

static int observe_elements(
	struct nft_socket *s, struct nft_observed *o, enum ruleset_set set, struct error *err)
{
	struct elements_answer answer = {.set = set};
	struct nft_observed_set *observed = &o->sets[set];
	struct nft_request request = {
		.type = NFT_MSG_GETSETELEM,
		.flags = NLM_F_DUMP,
		.family = NFPROTO_INET,
		.table = RULESET_TABLE,
		.name = ruleset_set_schema[set].name,
	};
	struct element_list *list = &o->state.sets[set];
	int code = nft_request(s, &request, on_elements, restart_elements, &answer);

	if (!code)
		observed->unreadable = answer.unreadable || !nft_keys_to_elements(set, answer.keys, answer.n,
								    list, &observed->shared);
	if (observed->unreadable)
		list->n = 0;
	free(answer.keys);
	return code ? dump_error(code, request.name, err) : 0;
}

static void drop_strays(struct nft_observed *o, uint16_t delete_type)
{
	size_t kept = 0;

	for (size_t i = 0; i < o->n_strays; i++) {
		if (o->strays[i].delete_type == delete_type)
			free(o->strays[i].name);
		else
			o->strays[kept++] = o->strays[i];
	}
	o->n_strays = kept;
}

static void restart_flowtable(void *arg)
{
	struct nft_observed *o = arg;

	drop_strays(o, NFT_MSG_DELFLOWTABLE);
	o->flowtable = false;
	o->state.n_devices = 0;
}

static void restart_sets(void *arg)
{
	struct nft_observed *o = arg;

	drop_strays(o, NFT_MSG_DELSET);
	memset(o->sets, 0, sizeof(o->sets));
}

static void restart_objects(void *arg)
{
	struct nft_observed *o = arg;

	drop_strays(o, NFT_MSG_DELOBJ);
	memset(o->counters, 0, sizeof(o->counters));
}

static void restart_chains(void *arg)
{
	struct nft_observed *o = arg;

	drop_strays(o, NFT_MSG_DELCHAIN);
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		o->chains[i].exists = false;
}

static void restart_rules(void *arg)
{
	struct nft_observed *o = arg;

	o->stray_rules = false;
	for (size_t i = 0; i < RULESET_CHAINS; i++) {
		for (size_t j = 0; j < o->chains[i].n; j++)
			free(o->chains[i].rules[j]);
		o->chains[i].n = 0;
	}
}

int nft_observe(struct nft_socket *s, struct nft_observed *ret, struct error *err)
{
	static const struct {
		uint16_t type;
		const char *what;
		int (*cb)(const struct nlmsghdr *nlh, void *arg);
		void (*restart)(void *arg);
	} dumps[] = {
		{NFT_MSG_GETFLOWTABLE, "flowtables of " TABLE_OBJECT, on_flowtable, restart_flowtable},
		{NFT_MSG_GETSET, "sets of " TABLE_OBJECT, on_set, restart_sets},
		{NFT_MSG_GETOBJ, "counters of " TABLE_OBJECT, on_object, restart_objects},
		{NFT_MSG_GETCHAIN, "chains of " TABLE_OBJECT, on_chain, restart_chains},
		{NFT_MSG_GETRULE, "rules of " TABLE_OBJECT, on_rule, restart_rules},
	};
	int code;

	memset(ret, 0, sizeof(*ret));
	code = nft_observe_table(s, &ret->table, &ret->table_flags, err);
	if (code || ret->table != NFT_TABLE_OURS)
		return code;
	ret->state.present = true;
	for (size_t i = 0; i < ARRAY_SIZE(dumps); i++) {
		struct nft_request request = {
			.type = dumps[i].type,
			.flags = NLM_F_DUMP,
			.family = NFPROTO_INET,
			.table = RULESET_TABLE,
		};

		code = nft_request(s, &request, dumps[i].cb, dumps[i].restart, ret);
		if (code)
			return dump_error(code, dumps[i].what, err);
	}
	for (int i = 0; i < RULESET_SETS; i++) {
		code = ret->sets[i].exists ? observe_elements(s, ret, i, err) : 0;
		if (code)
			return code;
	}
	ruleset_normalize(&ret->state);
	return 0;
}

void nft_observed_done(struct nft_observed *o)
{
	for (size_t i = 0; i < o->n_strays; i++)
		free(o->strays[i].name);
	free(o->strays);
	restart_rules(o);
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		free(o->chains[i].rules);
	ruleset_done(&o->state);
	memset(o, 0, sizeof(*o));
}

struct counters_answer {
	uint64_t *packets;
	size_t n;
};

static int on_counter(const struct nlmsghdr *nlh, void *arg)
{
	struct counters_answer *ret = arg;
	struct nftnl_obj *obj = nftnl_obj_alloc();
	const char *name;
	int i;

	if (nftnl_obj_nlmsg_parse(nlh, obj) < 0) {
		nftnl_obj_free(obj);
		return 0; /* an object of a kind that libnftnl does not know */
	}
	name = nftnl_obj_get_str(obj, NFTNL_OBJ_NAME);
	if (name && is_our_table(nftnl_obj_get_str(obj, NFTNL_OBJ_TABLE)) &&
		nftnl_obj_get_u32(obj, NFTNL_OBJ_TYPE) == NFT_OBJECT_COUNTER) {
		i = find_name(traffic_type_names, TRAFFIC_TYPES, name);
		if (i >= 0) {
			ret->packets[i] = nftnl_obj_get_u64(obj, NFTNL_OBJ_CTR_PKTS);
			ret->n++;
		}
	}
	nftnl_obj_free(obj);
	return 0;
}

int nft_read_counters(struct nft_socket *s, uint64_t ret[TRAFFIC_TYPES], struct error *err)
{
	struct counters_answer answer = {.packets = ret};
	struct nft_request request = {
		.type = NFT_MSG_GETOBJ,
		.flags = NLM_F_DUMP,
		.family = NFPROTO_INET,
		.table = RULESET_TABLE,
	};
	int code;

	memset(ret, 0, sizeof(*ret) * TRAFFIC_TYPES);
	code = nft_request(s, &request, on_counter, NULL, &answer);
	if (code)
		memset(ret, 0, sizeof(*ret) * TRAFFIC_TYPES);
	if (code && code != -ENOENT)
		return dump_error(code, "counters of " TABLE_OBJECT, err);
	if (!answer.n)
		return error_set(
			err, -ENOENT, TABLE_OBJECT, "start `slipstream run`", "there is no such table");
	return 0;
}
