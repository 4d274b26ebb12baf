/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_MEMORY_H
#define DATAPATH_MEMORY_H

#include "datapath/backend.h"

/*
 * memory: a backend whose kernel is a value in memory, for tests of what drives a backend.
 *
 * It behaves as nf_tables does where that matters to a caller: transactions are all or nothing; removing what
 * is not there is -ENOENT, and so is everything when the table is gone; a refused device costs that device;
 * after an error only backend_sync() will do. So a caller that does not call backend_forget() after somebody
 * tampered keeps a kernel that differs, as with the real one.
 *
 * All functions below take a backend of memory_backend_new(), freed by backend_free().
 */
struct backend *memory_backend_new(void);

/* What the kernel holds: 'present', devices and sets, normalized. Valid until the next call. */
const struct ruleset *memory_backend_ruleset(const struct backend *b);
/* Whether the kernel holds this, chains included. 'rs' must be normalized. */
bool memory_backend_equals(const struct backend *b, const struct ruleset *rs);
/* Transactions made, refused ones included; looks at what is there, one per backend_sync(). */
unsigned memory_backend_transactions(const struct backend *b);
unsigned memory_backend_observations(const struct backend *b);

/* Faults. The kernel refuses this device with 'code' (negative errno) until it is called with 0. */
void memory_backend_refuse_device(struct backend *b, const char *name, int code);
/* The next transaction fails with 'code' (negative errno) and names 'object'; nothing is applied. */
void memory_backend_fail_next(struct backend *b, int code, const char *object);

/* What others do behind the backend's back. `nft flush ruleset`: */
void memory_backend_drop_table(struct backend *b);
/* The device was deleted: its hook is gone, whatever its name comes back as. */
void memory_backend_drop_device(struct backend *b, const char *name);
/* An element added (duplicates allowed as in nft) or removed (absent: nothing happens). */
void memory_backend_tamper_element(
	struct backend *b, enum ruleset_set set, const struct set_element *e, bool add);
/* `nft flush chain`. */
void memory_backend_flush_chain(struct backend *b, enum ruleset_chain chain);
/* Traffic: 'n' more inserts of this type; nothing without a table. */
void memory_backend_count(struct backend *b, enum traffic_type type, uint64_t n);

#endif
