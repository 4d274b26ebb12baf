/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_FACTS_WATCH_H
#define DATAPATH_FACTS_WATCH_H

#include "base/error.h"
#include "datapath/facts.h"

/*
 * facts_watch: links, addresses, routes and rules of the caller's network namespace over rtnetlink, with
 * libnl-route-3.
 *
 * Life cycle: facts_watch_open() subscribes; the first facts_watch_refresh() is due at once and dumps all
 * kinds, so that nothing falls between. From then on the caller hands in the same 'f'. The descriptor becomes
 * readable when something may have changed; facts_watch_read() drains it and takes in what it says, or notes
 * the kinds that have to be dumped (a full socket buffer, ENOBUFS, means all of them); facts_watch_refresh()
 * dumps these and says whether the value is another. The caller decides how long to wait between the two (a
 * pod that starts makes a dozen notifications).
 */
struct facts_watch;
int facts_watch_open(struct facts_watch **ret, struct error *err);
int facts_watch_fd(const struct facts_watch *w);
/* 1: something may have changed, 0: nothing that counts, negative errno. */
int facts_watch_read(struct facts_watch *w, struct error *err);
/*
 * Brings 'f' up to date (links, addresses, routes, policy_rules; other members are left alone). 1: changed,
 * 0: equal, or negative errno: 'f' unchanged, what was noted stays noted. A dump that the kernel interrupted
 * is repeated. At the cost of what changed, but for copying: one pod among thousands of routes is one entry.
 */
int facts_watch_refresh(struct facts_watch *w, struct facts *f, struct error *err);
/*
 * Next hops on these links, which forward offloaded flows, are kept resolved (datapath/neighbours.h), until the next call;
 * at first there are none. Copied.
 */
void facts_watch_keep_resolved(struct facts_watch *w, const uint32_t *ifindexes, size_t n);
void facts_watch_close(struct facts_watch *w);

#endif
