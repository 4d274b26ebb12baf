/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_ELEMENT_COUNTS_H
#define CONTROLLER_ELEMENT_COUNTS_H

#include "datapath/ruleset.h"

#include <bsd/sys/tree.h>

/*
 * element_counts: elements of sets, each with the number of objects that ask for it.
 *
 * Several Services may share an address or, by protocol, a port; an element is there while anybody asks for it.
 * Changes are collected until element_counts_settle() and told then as what came and what went: one that came and went
 * in between is not told. All costs are those of the change, O(log n) per element.
 */
struct counted_element {
	RB_ENTRY(counted_element) link;
	struct set_element element;
	uint8_t set;  /* enum ruleset_set */
	bool settled; /* was there when it was settled last */
	bool touched; /* since then */
	uint32_t count;
};
RB_HEAD(counted_tree, counted_element);

struct element_counts {
	struct counted_tree trees[RULESET_SETS];
	size_t n[RULESET_SETS];   /* as settled last */
	bool stale[RULESET_SETS]; /* not exported since it changed */
	struct counted_element **touched;
	size_t n_touched, cap_touched;
};

void element_counts_add(struct element_counts *c, enum ruleset_set set, const struct set_element *e);
/* Aborts when it was not added: the caller has lost count. */
void element_counts_remove(struct element_counts *c, enum ruleset_set set, const struct set_element *e);
/* Whether anybody asks for it now. */
bool element_counts_has(const struct element_counts *c, enum ruleset_set set, const struct set_element *e);
/* Adds what changed to 'ret' (NULL: nobody wants to know), in canonical order. */
void element_counts_settle(struct element_counts *c, struct ruleset_delta *ret);
/* Makes the sets of 'rs' that are kept here, and that changed since the last time, as they were settled last. */
void element_counts_export(struct element_counts *c, struct ruleset *rs);
void element_counts_done(struct element_counts *c);

#endif
