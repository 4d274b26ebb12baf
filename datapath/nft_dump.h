/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_NFT_DUMP_H
#define DATAPATH_NFT_DUMP_H

#include "datapath/nft_batch.h"
#include "datapath/ruleset.h"

/* nft_dump: what the kernel has of table inet slipstream, as a value. */

enum nft_table_state {
	NFT_TABLE_ABSENT,
	NFT_TABLE_FOREIGN, /* without our comment */
	NFT_TABLE_OURS,    /* of this or any other version */
};

/* An object in our table that the programme does not know, or knows with other properties. */
struct nft_stray {
	uint16_t delete_type; /* NFT_MSG_DELSET ... */
	uint32_t object_type; /* of DELOBJ: NFT_OBJECT_* */
	char *name;
};

struct nft_observed_set {
	bool exists;     /* with our schema; any other is a stray */
	bool unreadable; /* it has what no ruleset can hold; 'state' has none of its elements then */
	bool shared;     /* see nft_keys_to_elements() */
};

struct nft_observed_chain {
	bool exists;
	char **rules; /* texts of nft_rule_text(), in order */
	size_t n, cap;
};

struct nft_observed {
	enum nft_table_state table;
	uint32_t table_flags;
	bool flowtable; /* with our hook and priority */
	uint32_t flowtable_flags;
	bool counters[TRAFFIC_TYPES];
	struct nft_observed_set sets[RULESET_SETS];
	struct nft_observed_chain chains[RULESET_CHAINS];
	bool stray_rules; /* rules in chains that are not ours */
	struct nft_stray *strays;
	size_t n_strays, cap_strays;
	struct ruleset state; /* devices (ifindex 0) and elements, normalized */
};

/* Whether there is a table of our name, and whose. One request. */
int nft_observe_table(
	struct nft_socket *s, enum nft_table_state *ret, uint32_t *ret_flags, struct error *err);
/* All of it; on failure '*ret' is to be done as well. */
int nft_observe(struct nft_socket *s, struct nft_observed *ret, struct error *err);
/* The flowtable has to be replaced: it becomes a stray. */
void nft_observed_drop_flowtable(struct nft_observed *o);
void nft_observed_done(struct nft_observed *o);
/* Packets of the named counters; -ENOENT when there are none. */
int nft_read_counters(struct nft_socket *s, uint64_t ret[TRAFFIC_TYPES], struct error *err);

#endif
