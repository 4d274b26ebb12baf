/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_MEMORY_H
#define DATAPATH_MEMORY_H

#include "datapath/backend.h"

/*
 * memory: a backend whose kernel is a value in memory, for tests of what drives a backend.
 *
 * Its kernel behaves as nf_tables does where that matters to a caller (net/netfilter/nf_tables_api.c, and the
 * lab): transactions are all or nothing; removing what is not there is -ENOENT, and so is everything in a table, a set,
 * a chain, a flowtable that is gone; a table of somebody else under our name is -EEXIST; a flowtable's hook is on a device
 * by its name, and what becomes of it when the device goes is told by the test (up to Linux 6.15 it goes, too). Its backend
 * does what nft_backend.c does: one look, one comparison, one transaction; a refused device is sent again alone; devices are
 * removed in a transaction of their own, and one that is gone already counts as removed; after an error only
 * backend_sync() will do. So a caller that does not call backend_forget() after somebody tampered keeps a kernel that
 * differs, as with the real one.
 *
 * All functions below take a backend of memory_backend_new(), freed by backend_free().
 */
struct backend *memory_backend_new(void);

/* What the kernel holds: 'present' (a table of ours), devices and sets, normalized. Valid until the next call. */
const struct ruleset *memory_backend_ruleset(const struct backend *b);
/* Whether the kernel holds this and nothing else, chains included. 'rs' must be normalized. */
bool memory_backend_equals(const struct backend *b, const struct ruleset *rs);
/* The same in words: a line "+ ..." for all that is missing, "- ..." for all that is too much. */
void memory_backend_diff(const struct backend *b, const struct ruleset *rs, struct strbuf *out);
/* Transactions made, refused ones included; looks at what is there, one per backend_sync(). */
unsigned memory_backend_transactions(const struct backend *b);
unsigned memory_backend_observations(const struct backend *b);

/* The process died, and another one has come: nothing is known of what the kernel holds. */
void memory_backend_restart(struct backend *b);

/* --- faults --- */

/* The kernel refuses this device with 'code' (negative errno) until it is called with 0. */
void memory_backend_refuse_device(struct backend *b, const char *name, int code);
/* The next transaction fails with 'code' (negative errno) and names 'object'; nothing is applied. */
void memory_backend_fail_next(struct backend *b, int code, const char *object);

enum memory_point {
	MEMORY_DUMP,     /* 'object' is about to be read */
	MEMORY_OBSERVED, /* all was read, nothing is sent yet; the answer does not count */
	MEMORY_MESSAGE,  /* the kernel looks at this message of a transaction */
	MEMORY_COMMIT,   /* all messages are good, nothing is applied yet */
	MEMORY_ANSWER    /* all is applied, the answer is on its way */
};
/*
 * Called at every such point; a negative errno is what happens there: a dump that fails, a refused message or commit with
 * which nothing is applied, an answer that does not come although all is. May edit the kernel at MEMORY_OBSERVED, as
 * others do at any time, nowhere else. NULL: no faults any more.
 */
typedef int memory_fault(void *arg, enum memory_point at, const char *object);
void memory_backend_on_fault(struct backend *b, memory_fault *fault, void *arg);

/* --- what others do behind the backend's back --- */

/* `nft flush ruleset`. */
void memory_backend_drop_table(struct backend *b);
/* The device was deleted, or taken out of the flowtable: its hook is gone, whatever its name comes back as. */
void memory_backend_drop_device(struct backend *b, const char *name);
/* The device was renamed and its hook went with it. Nothing happens when it has none. */
void memory_backend_rename_device(struct backend *b, const char *from, const char *to);
/* An element added (duplicates allowed as in nft) or removed (absent: nothing happens). */
void memory_backend_tamper_element(
	struct backend *b, enum ruleset_set set, const struct set_element *e, bool add);
/* `nft flush chain`. */
void memory_backend_flush_chain(struct backend *b, enum ruleset_chain chain);

enum memory_edit {
	MEMORY_FOREIGN_TABLE,  /* instead of what is there: a table of our name that is not ours */
	MEMORY_OLDER_TABLE,    /* ours, as another version would have left it */
	MEMORY_DROP_FLOWTABLE, /* with the rules that use it; so all below */
	MEMORY_DROP_COUNTER,
	MEMORY_DROP_SET,
	MEMORY_DROP_CHAIN,
	MEMORY_EDIT_RULE, /* the last rule of the chain accepts now */
	MEMORY_ADD_STRAY, /* an object that the programme does not know */
	MEMORY_EDITS
};
/* 'which' is a traffic_type, ruleset_set or ruleset_chain. All but the first need a table of ours. */
void memory_backend_edit(struct backend *b, enum memory_edit edit, unsigned which);
/* Traffic: 'n' more inserts of this type; nothing without a table. */
void memory_backend_count(struct backend *b, enum traffic_type type, uint64_t n);

#endif
