/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_PLAN_ROUTES_H
#define CONTROLLER_PLAN_ROUTES_H

#include "datapath/facts.h"

/*
 * plan_routes: longest-prefix match for thousands of addresses in one plan, with all next hops of the best
 * route, which facts_route_to() has not: each of equal cost is an uplink.
 *
 * Keeps pointers into the facts that it was made of.
 */
struct route_index {
	const struct route **items; /* of table main, by destination, metric */
	size_t n;
	bool lengths[2][129]; /* prefix lengths that occur, per family */
};

void route_index_make(const struct facts *f, struct route_index *ret);
void route_index_done(struct route_index *ix);
/* The best route's next hops: '*ret_n' entries of equal destination and metric; NULL and 0: no route. */
const struct route *const *route_index_find(
	const struct route_index *ix, const struct addr *a, size_t *ret_n);

#endif
