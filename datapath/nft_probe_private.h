/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_NFT_PROBE_PRIVATE_H
#define DATAPATH_NFT_PROBE_PRIVATE_H

#include "datapath/facts.h"
#include "datapath/nft_batch.h"

/* nft_probe_private: the part without a socket, for nft_probe.c and its tests. */

/* The messages of the probe's programme, in their order. */
enum probe_message { PROBE_MESSAGE_TABLE, PROBE_MESSAGE_FLOWTABLE, PROBE_MESSAGE_CHAIN, PROBE_MESSAGE_RULE };

/*
 * What the answer to the programme says of the kernel. 0: '*ret' is filled. Negative errno: it was a passing
 * failure (no memory, lost answers), which must not be taken for a missing feature, as the rules that are
 * there would be removed for it; '*ret' is untouched.
 */
int nft_probe_judge(const struct nft_failure *f, struct features *ret, struct error *err);

/* Whether a flowtable with the flag `offload` takes this device: 0 or a negative errno. Validated, never committed. */
int nft_probe_hardware(struct nft_socket *s, const char *device);

#endif
