/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/nft_encode.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <string.h>

/*
 * An attribute's length has 16 bits, so the elements of a message stay below this. Devices: the kernel takes
 * 255 per message, but its notification of them must fit in a page (nf_tables_flowtable_notify()), or every
 * listener is told -ENOBUFS.
 */
#define ELEMENTS_SIZE 60000
#define ELEMENT_ROOM 128 /* of the two attributes of one element, names of nests included */
#define DEVICES_MAX 100
#define NAMES_ROOM 256

static bool is_interval(enum ruleset_set set)
{
	return nft_set_type(ruleset_set_schema[set].kind)->flags & NFT_SET_INTERVAL;
}

/* Interface indexes are in host order in the kernel and big endian in struct set_element. */
static void swap_host_order(enum ruleset_set set, uint8_t *key)
{
	const struct nft_set_type *type = nft_set_type(ruleset_set_schema[set].kind);
	enum set_kind kind = ruleset_set_schema[set].kind;

	if (kind != SET_KIND_PAIR && kind != SET_KIND_INTERFACE)
		return;
	for (uint32_t i = 0; i < type->key_len; i += sizeof(uint32_t)) {
		uint32_t v;

		memcpy(&v, key + i, sizeof(v));
		v = ntohl(v);
		memcpy(key + i, &v, sizeof(v));
	}
}

/* The first key behind a prefix; false when there is none (it reaches up to the last address). */
static bool prefix_end(const struct set_element *e, uint32_t key_len, uint8_t *ret)
{
	memcpy(ret, e->key, key_len);
	if (!e->prefix_len)
		return false;
	for (int bit = e->prefix_len - 1; bit >= 0; bit--) {
		uint8_t mask = 0x80 >> (bit % 8);

		ret[bit / 8] ^= mask;
		if (ret[bit / 8] & mask)
			return true; /* no carry */
	}
	return false;
}

static void put_key(struct nlmsghdr *nlh, const uint8_t *key, uint32_t len, uint32_t flags, bool open)
{
	/* What nft stores with an interval that has no end: NFTNL_UDATA_SET_ELEM_FLAGS, 4 bytes,
	 * INTERVAL_OPEN */
	static const uint8_t open_interval[] = {1, 4, 1, 0, 0, 0};
	struct nlattr *elem = mnl_attr_nest_start(nlh, NFTA_LIST_ELEM), *nest;

	if (flags)
		mnl_attr_put_u32(nlh, NFTA_SET_ELEM_FLAGS, htonl(flags));
	nest = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_KEY);
	mnl_attr_put(nlh, NFTA_DATA_VALUE, len, key);
	mnl_attr_nest_end(nlh, nest);
	if (open)
		mnl_attr_put(nlh, NFTA_SET_ELEM_USERDATA, sizeof(open_interval), open_interval);
	mnl_attr_nest_end(nlh, elem);
}

static void put_element(struct nlmsghdr *nlh, enum ruleset_set set, bool add, const struct set_element *e)
{
	uint32_t len = nft_set_type(ruleset_set_schema[set].kind)->key_len;
	uint8_t key[16], end[16];
	bool has_end;

	memcpy(key, e->key, sizeof(key));
	swap_host_order(set, key);
	if (!is_interval(set)) {
		put_key(nlh, key, len, 0, false);
		return;
	}
	has_end = prefix_end(e, len, end);
	put_key(nlh, key, len, 0, add && !has_end);
	if (has_end)
		put_key(nlh, end, len, NFT_SET_ELEM_INTERVAL_END, false);
}

void nft_put_elements(
	struct nft_batch *b, enum ruleset_set set, bool add, const struct set_element *e, size_t n)
{
	const char *name = ruleset_set_schema[set].name;
	size_t i = 0;

	while (i < n) {
		struct nlmsghdr *nlh = nft_batch_message(b, add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
			add ? NLM_F_CREATE : 0, ELEMENTS_SIZE + ELEMENT_ROOM + NAMES_ROOM, "set %s", name);
		struct nlattr *nest;
		uint32_t start;

		nft_batch_kind(b, NFT_MESSAGE_ELEMENTS, set);
		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, RULESET_TABLE);
		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, name);
		nest = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_LIST_ELEMENTS);
		start = nlh->nlmsg_len;
		for (; i < n && nlh->nlmsg_len - start < ELEMENTS_SIZE; i++)
			put_element(nlh, set, add, &e[i]);
		mnl_attr_nest_end(nlh, nest);
		nft_batch_end(b, nlh);
	}
}

void nft_put_flush_set(struct nft_batch *b, enum ruleset_set set)
{
	const char *name = ruleset_set_schema[set].name;
	struct nlmsghdr *nlh = nft_batch_message(b, NFT_MSG_DELSETELEM, 0, NAMES_ROOM, "set %s", name);

	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, RULESET_TABLE);
	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, name);
	nft_batch_end(b, nlh);
}

void nft_put_devices(struct nft_batch *b, bool add, const struct device *devices, size_t n)
{
	size_t i = 0;

	while (i < n) {
		struct nlmsghdr *nlh = nft_batch_message(b, add ? NFT_MSG_NEWFLOWTABLE : NFT_MSG_DELFLOWTABLE,
			add ? NLM_F_CREATE : 0, NAMES_ROOM + DEVICES_MAX * (4 + IFNAMSIZ), "device %s",
			n == 1 ? devices[0].name : "list of flowtable " RULESET_FLOWTABLE);
		struct nlattr *hook, *devs;

		nft_batch_kind(b, NFT_MESSAGE_DEVICES, 0);
		mnl_attr_put_strz(nlh, NFTA_FLOWTABLE_TABLE, RULESET_TABLE);
		mnl_attr_put_strz(nlh, NFTA_FLOWTABLE_NAME, RULESET_FLOWTABLE);
		hook = mnl_attr_nest_start(nlh, NFTA_FLOWTABLE_HOOK);
		/* Hook and priority may be left out in an update, not on creation; they are harmless here. */
		mnl_attr_put_u32(nlh, NFTA_FLOWTABLE_HOOK_NUM, htonl(NF_NETDEV_INGRESS));
		mnl_attr_put_u32(nlh, NFTA_FLOWTABLE_HOOK_PRIORITY, htonl(0));
		/* Never a DELFLOWTABLE without devices: it deletes the whole flowtable. 'n' is not 0 here. */
		devs = mnl_attr_nest_start(nlh, NFTA_FLOWTABLE_HOOK_DEVS);
		for (size_t end = i + DEVICES_MAX; i < n && i < end; i++)
			mnl_attr_put_strz(nlh, NFTA_DEVICE_NAME, devices[i].name);
		mnl_attr_nest_end(nlh, devs);
		mnl_attr_nest_end(nlh, hook);
		nft_batch_end(b, nlh);
	}
}

/* The attribute of 'type' within a nest, NULL: none. */
static const struct nlattr *find_attr(const struct nlattr *nest, uint16_t type)
{
	const struct nlattr *attr;

	mnl_attr_for_each_nested(attr, nest)
	{
		if (mnl_attr_get_type(attr) == type)
			return attr;
	}
	return NULL;
}

bool nft_read_key(enum ruleset_set set, const struct nlattr *elem, struct nft_key *ret)
{
	uint32_t len = nft_set_type(ruleset_set_schema[set].kind)->key_len;
	const struct nlattr *key, *value, *flags;
	uint32_t bits;

	memset(ret, 0, sizeof(*ret));
	if (mnl_attr_get_type(elem) != NFTA_LIST_ELEM)
		return false;
	key = find_attr(elem, NFTA_SET_ELEM_KEY);
	value = key ? find_attr(key, NFTA_DATA_VALUE) : NULL;
	if (!value || mnl_attr_get_payload_len(value) != len)
		return false;
	memcpy(ret->bytes, mnl_attr_get_payload(value), len);
	swap_host_order(set, ret->bytes);
	flags = find_attr(elem, NFTA_SET_ELEM_FLAGS);
	if (!flags)
		return true;
	if (mnl_attr_validate(flags, MNL_TYPE_U32))
		return false;
	bits = ntohl(mnl_attr_get_u32(flags));
	ret->end = bits & NFT_SET_ELEM_INTERVAL_END;
	return !(bits & ~(uint32_t)NFT_SET_ELEM_INTERVAL_END) && (!ret->end || is_interval(set));
}

/* By key, ends before starts. */
static int key_cmp(const void *a, const void *b)
{
	const struct nft_key *x = a, *y = b;
	int order = memcmp(x->bytes, y->bytes, sizeof(x->bytes));

	return order ? order : (int)y->end - (int)x->end;
}

static void add_element(struct element_list *list, const uint8_t *key, uint8_t prefix_len)
{
	struct set_element *e = VEC_ADD(list->items, list->n, list->cap);

	memcpy(e->key, key, sizeof(e->key));
	e->prefix_len = prefix_len;
}

/* The prefix that [start, end) is; 'end' NULL: up to the last key. */
static bool add_interval(
	enum ruleset_set set, const uint8_t *start, const uint8_t *end, struct element_list *ret)
{
	uint32_t len = nft_set_type(ruleset_set_schema[set].kind)->key_len;
	struct set_element e = {0};
	uint8_t behind[16] = {0};
	int trailing = 0;

	/* A prefix is as long as its first address' bits allow or longer: try each. */
	memcpy(e.key, start, len);
	while (trailing < (int)len * 8 && !(start[len - 1 - trailing / 8] & (1 << trailing % 8)))
		trailing++;
	for (int bits = (int)len * 8; bits >= (int)len * 8 - trailing; bits--) {
		bool has_end;

		e.prefix_len = (uint8_t)bits;
		has_end = prefix_end(&e, len, behind);
		if (end ? has_end && !memcmp(behind, end, len) : !has_end) {
			add_element(ret, e.key, e.prefix_len);
			return true;
		}
	}
	return false;
}

bool nft_keys_to_elements(
	enum ruleset_set set, struct nft_key *keys, size_t n, struct element_list *ret, bool *ret_shared)
{
	static const uint8_t lowest[16];
	const uint8_t *start = NULL;

	*ret_shared = false;
	if (!is_interval(set)) {
		for (size_t i = 0; i < n; i++)
			add_element(ret, keys[i].bytes, 0);
		return true;
	}
	if (n)
		qsort(keys, n, sizeof(*keys), key_cmp);
	for (size_t i = 0; i < n; i++) {
		if (start) {
			if (!add_interval(set, start, keys[i].bytes, ret))
				return false;
			*ret_shared |= !keys[i].end;
		} else if (keys[i].end && memcmp(keys[i].bytes, lowest, sizeof(lowest))) {
			return false; /* nft puts one at the very bottom: what is before the first interval */
		}
		start = keys[i].end ? NULL : keys[i].bytes;
	}
	return !start || add_interval(set, start, NULL, ret);
}

bool nft_element_attr_text(enum ruleset_set set, const struct nlattr *elem, struct strbuf *out)
{
	static const struct ruleset no_names;
	struct set_element e = {0};
	struct nft_key key;

	if (!elem || !nft_read_key(set, elem, &key))
		return false;
	memcpy(e.key, key.bytes, sizeof(e.key));
	/* Which of its two ends the kernel refused is of no use; its length is not in the attribute. */
	if (is_interval(set))
		e.prefix_len = (uint8_t)(nft_set_type(ruleset_set_schema[set].kind)->key_len * 8);
	element_print(&no_names, set, &e, out);
	return out->len > 0;
}
