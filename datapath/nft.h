/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_NFT_H
#define DATAPATH_NFT_H

#include "datapath/backend.h"
#include "datapath/facts.h"

/*
 * nft: nf_tables over netlink with libnftnl and libmnl, in the network namespace of the caller.
 *
 * Separate sockets for transactions and dumps, and for notifications. Only table inet slipstream is ever
 * written; a table of that name without our comment is refused (-EEXIST, mend: rename it).
 */
int nft_backend_new(struct backend **ret, struct error *err);

/*
 * Notifications of nf_tables. The descriptor becomes readable; nft_monitor_read() drains it and says whether
 * somebody other than this process touched our table (with the name of the program where the kernel tells
 * it), or tables by which a cluster kind is told. A transaction is told when its end has been read, which names the
 * program. -ENOBUFS is not an error: everything counts as touched.
 */
struct nft_monitor;
struct nft_touch {
	bool ours;             /* our table, by somebody else */
	bool foreign_tables;   /* a table or chain of another name came or went */
	char who[ACTORS_SIZE]; /* see actors_add(), "" when unknown */
};
int nft_monitor_open(struct nft_monitor **ret, struct error *err);
int nft_monitor_fd(const struct nft_monitor *m);
int nft_monitor_read(struct nft_monitor *m, struct nft_touch *ret, struct error *err);
void nft_monitor_close(struct nft_monitor *m);

/* Removes table inet slipstream if it is ours; '*ret_removed' (may be NULL) says whether there was one.
 * 'dry_run' only looks. */
int nft_cleanup(bool dry_run, bool *ret_removed, struct error *err);

/* Fills facts->features and the kube-proxy/Antrea table facts; leaves nothing behind in the kernel. Negative
 * errno: the kernel did not answer the question; 'facts' is untouched. */
int nft_probe(struct facts *facts, struct error *err);

#endif
