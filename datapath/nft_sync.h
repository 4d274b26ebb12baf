/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_NFT_SYNC_H
#define DATAPATH_NFT_SYNC_H

#include "datapath/backend.h"
#include "datapath/nft_batch.h"
#include "datapath/nft_dump.h"
#include "datapath/ruleset.h"

/*
 * nft_change: what has to be done to turn what is there into a ruleset, and the messages for it.
 *
 * What is there is known from a dump ('observed'), or is an earlier version of the ruleset ('delta').
 */
struct nft_change {
	bool create;       /* there is no table */
	bool delete_first; /* there is one that cannot be turned into ours */
	bool flush_rules;  /* all rules go first: objects have to be replaced */
	bool reset_table;  /* its flags are not ours */
	bool flowtable;    /* to be created or to get its flags */
	uint32_t flowtable_flags;
	bool counters[TRAFFIC_TYPES];
	bool sets[RULESET_SETS]; /* to be created */
	bool chains[RULESET_CHAINS];
	bool has_rules[RULESET_CHAINS]; /* giving it its rules has to flush it */
	bool flush_set[RULESET_SETS];
	struct ruleset_delta delta;     /* elements, devices, chains that get their rules anew */
	bool borrowed;                  /* 'delta' is somebody else's */
	uint32_t generation;            /* of the ruleset that was observed, 0: any */
	const struct nft_stray *strays; /* of 'observed' */
	size_t n_strays;
	unsigned found[REPAIR_KINDS]; /* as struct sync_result has it, but for devices that are refused */
};

/* Of an observation, which may lose its flowtable by it and must outlive the change; its table is absent or ours. */
void nft_change_observed(
	struct nft_observed *observed, const struct ruleset *to, bool hardware, struct nft_change *ret);
/* A new table in the place of the one that is there; its flows go through the slow path once. */
void nft_change_replace(const struct ruleset *to, bool hardware, struct nft_change *ret);
/* Of a known delta, which must outlive the change. */
void nft_change_delta(const struct ruleset_delta *delta, struct nft_change *ret);
void nft_change_done(struct nft_change *c);
/* Everything of the change but the devices. */
void nft_put_change(struct nft_batch *b, const struct nft_change *c, const struct ruleset *to);
void nft_put_delete_table(struct nft_batch *b);

#endif
