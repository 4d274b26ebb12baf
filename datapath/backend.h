/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_BACKEND_H
#define DATAPATH_BACKEND_H

#include "base/error.h"
#include "datapath/ruleset.h"

#include <stdint.h>

/*
 * backend: makes something that forwards packets equal to a ruleset.
 *
 * Two of them: nftables over netlink (nft.h), and one in memory with the same errors for tests (memory.h). A
 * backend keeps its own copy of what was applied. backend_sync(): observe (only when what is there is not
 * known: first call, or after backend_forget()) -> diff -> one transaction -> confirm. Nothing differs:
 * nothing is sent. A device that the kernel refuses costs that device: it is reported in 'failed' and tried
 * again at the next sync; everything else is applied.
 *
 * Errors: negative errno with the object the kernel refused in err->object. Nothing of the transaction was
 * applied then, what was there stays, and the next sync observes first.
 */
struct device_failure {
	char name[IFNAMSIZ];
	int code; /* negative errno */
};

struct sync_result {
	bool observed;     /* a dump was made */
	unsigned messages; /* nf_tables messages sent, without batch begin and end; 0: nothing differed */
	unsigned elements_added, elements_removed, chains_rewritten, devices_added, devices_removed;
	bool created;                  /* the table was not there */
	struct device_failure *failed; /* freed by sync_result_done() */
	size_t n_failed;
};
void sync_result_done(struct sync_result *r);

struct backend;
struct backend_ops {
	int (*sync)(
		struct backend *b, const struct ruleset *desired, struct sync_result *ret, struct error *err);
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
/* What is there may have been changed by somebody else: the next sync looks. */
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
