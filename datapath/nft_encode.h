/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_NFT_ENCODE_H
#define DATAPATH_NFT_ENCODE_H

#include "base/strbuf.h"
#include "datapath/nft_batch.h"
#include "datapath/ruleset.h"

#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <stdbool.h>

/*
 * nft_encode: pieces of a ruleset as nf_tables messages and back.
 *
 * The encodings are those of nft 1.0.6 (`nft --debug=netlink`), expression by expression and register by
 * register, so that `nft list` prints what was meant and a ruleset loaded by nft compares equal.
 */

/* A rule of 'chain'. The caller frees it with nftnl_rule_free(). */
struct nftnl_rule *nft_encode_rule(enum ruleset_chain chain, const struct rule *r);
/* Its expressions as text, for comparing: equal text is an equal rule. Appends to 'out'. */
void nft_rule_text(const struct nftnl_rule *r, struct strbuf *out);

struct nft_set_type {
	uint32_t key_type;  /* nft's enum datatypes, two of them concatenated are t1 << 6 | t2 */
	uint32_t key_len;   /* bytes */
	uint32_t flags;     /* NFT_SET_* */
	uint32_t byteorder; /* nft's enum byteorder: 1 host, 2 big endian */
};
const struct nft_set_type *nft_set_type(enum set_kind kind);
/* The caller frees it with nftnl_set_free(). */
struct nftnl_set *nft_encode_set(enum ruleset_set set);

/* NEWSETELEM or DELSETELEM messages with all 'n' elements, as many as it takes. */
void nft_put_elements(
	struct nft_batch *b, enum ruleset_set set, bool add, const struct set_element *e, size_t n);
/* Empties a set. */
void nft_put_flush_set(struct nft_batch *b, enum ruleset_set set);
/* NEWFLOWTABLE (add) or DELFLOWTABLE with the hooks of these devices, as many messages as it takes. */
void nft_put_devices(struct nft_batch *b, bool add, const struct device *devices, size_t n);

/* One key as the kernel has it. */
struct nft_key {
	uint8_t bytes[16];
	bool end; /* NFT_SET_ELEM_INTERVAL_END */
};
/* Reads the key of one NFTA_LIST_ELEM attribute; false when it is not one of this set's. */
bool nft_read_key(enum ruleset_set set, const struct nlattr *elem, struct nft_key *ret);
/*
 * Turns the keys of a set into its elements (appended to 'ret'); sorts 'keys'. Returns false when they are
 * not what a ruleset can hold (an interval that is no prefix). '*ret_shared' says that one key ends one
 * interval and starts the next, as nft stores neighbours: such an element cannot be removed alone.
 */
bool nft_keys_to_elements(
	enum ruleset_set set, struct nft_key *keys, size_t n, struct element_list *ret, bool *ret_shared);
/* The element that an attribute of our message holds, as text; false when 'elem' is NULL or none. */
bool nft_element_attr_text(enum ruleset_set set, const struct nlattr *elem, struct strbuf *out);

#endif
