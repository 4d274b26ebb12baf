/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_BACKEND_H
#define DATAPATH_BACKEND_H

#include "base/error.h"
#include "datapath/ruleset.h"

#include <stdint.h>

/*
 * backend: makes something that forwards packets equal to a ruleset.
 *
 * Two of them: nftables over netlink (nft.h), and one in memory with the same errors for tests (memory.h).
 *
 * backend_sync() looks at what is there, compares, and sends what differs in one transaction. backend_apply() sends what
 * the caller knows to differ since its last successful call of either, and looks at nothing: its cost is that of
 * the change. Nothing differs: nothing is sent. A device that the kernel refuses costs that device: it is reported
 * in 'failed' and tried again at the next call; everything else is applied.
 *
 * Errors: negative errno with the object the kernel refused in err->object. Nothing of the transaction was
 * applied then and what was there stays. After an error, and after backend_forget(), only backend_sync() will do:
 * backend_apply() answers -ESTALE and does nothing.
 */
struct device_failure {
	char name[IFNAMSIZ];
	int code; /* negative errno */
};

/* Kinds of things that somebody else may have changed. */
enum repair_kind {
	REPAIR_TABLE, /* gone, or its flags: dormant */
	REPAIR_FLOWTABLE,
	REPAIR_SET,
	REPAIR_ELEMENT,
	REPAIR_CHAIN, /* gone, with another hook, or with other rules */
	REPAIR_DEVICE,
	REPAIR_COUNTER,
	REPAIR_FOREIGN, /* what was put into our table and is not ours */
	REPAIR_KINDS
};
extern const char *const repair_kind_names[REPAIR_KINDS]; /* "table" ... */

struct sync_result {
	unsigned messages; /* nf_tables messages sent, without batch begin and end; 0: nothing differed */
	unsigned elements_added, elements_removed, chains_rewritten, devices_added, devices_removed;
	/*
	 * By backend_sync(): how many were found other than they shall be, for whatever reason, and put right. What was
	 * lost with a larger thing counts with that: a table that is not there is one table. Devices that the kernel
	 * refused, before or now, do not count.
	 */
	unsigned found[REPAIR_KINDS];
	bool hardware;                 /* the flowtable has the flag `offload` */
	char hardware_reason[96];      /* why not though asked for, "": all take it, or not asked for */
	bool created;                  /* the table was not there */
	struct device_failure *failed; /* freed by sync_result_done() */
	size_t n_failed;
};
void sync_result_done(struct sync_result *r);

/* Who changed something, as text: "nft (pid 7)", several as "nft (pid 7), firewalld (pid 9)". */
#define ACTORS_SIZE 96
/* Adds the names of 'who' unless they are there; those without room are "others". "" adds nothing. */
void actors_add(char list[ACTORS_SIZE], const char *who);

struct backend;
struct backend_ops {
	int (*sync)(
		struct backend *b, const struct ruleset *desired, struct sync_result *ret, struct error *err);
	int (*apply)(struct backend *b, const struct ruleset *desired, const struct ruleset_delta *delta,
		struct sync_result *ret, struct error *err);
	void (*forget)(struct backend *b);
	int (*inserts)(struct backend *b, uint64_t ret[TRAFFIC_TYPES], struct error *err);
	void (*free)(struct backend *b);
};
struct backend {
	const struct backend_ops *ops;
};

/* '*ret' is zeroed first; valid (and to be done) on failure as well. */
static inline int backend_sync(
	struct backend *b, const struct ruleset *desired, struct sync_result *ret, struct error *err)
{
	return b->ops->sync(b, desired, ret, err);
}
/*
 * 'desired' differs from what the backend was given last by just 'delta' (-ESTALE when that is unknown). Of 'desired'
 * only 'present' and the rules of changed chains are read: its sets need not be up to date.
 */
static inline int backend_apply(struct backend *b, const struct ruleset *desired,
	const struct ruleset_delta *delta, struct sync_result *ret, struct error *err)
{
	return b->ops->apply(b, desired, delta, ret, err);
}
/* What is there may have been changed by somebody else. */
static inline void backend_forget(struct backend *b)
{
	b->ops->forget(b);
}
/* Packets of the named counters: inserts per type since the table was made. -ENOENT and zeros when there is
 * no table. */
static inline int backend_inserts(struct backend *b, uint64_t ret[TRAFFIC_TYPES], struct error *err)
{
	return b->ops->inserts(b, ret, err);
}
static inline void backend_free(struct backend *b)
{
	if (b)
		b->ops->free(b);
}

#endif
