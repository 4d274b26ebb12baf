/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_RULESET_PRIVATE_H
#define DATAPATH_RULESET_PRIVATE_H

#include "datapath/ruleset.h"

/* ruleset_private: what the files of ruleset share. */

/* Order of elements: memcmp(3) of the struct. For qsort(3). */
int element_cmp(const void *a, const void *b);
/* 'outer' and 'inner' are elements of a PREFIX set; true when outer holds all of inner, equal ones included.
 */
bool element_covers(const struct set_element *outer, const struct set_element *inner);
/* The same rules in the same order; only what an operation uses counts. */
bool rule_list_equal(const struct rule_list *a, const struct rule_list *b);

#endif
