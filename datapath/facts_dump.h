/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_FACTS_DUMP_H
#define DATAPATH_FACTS_DUMP_H

#include "base/error.h"
#include "datapath/facts_follow.h"

#include <netlink/netlink.h>

/*
 * facts_dump: lists of rtnetlink as facts. For facts_watch.c only.
 */

/* Dumps come in pieces of at most 32 KiB (af_netlink.c, netlink_dump()). */
#define FACTS_BUFFER_SIZE (64 * 1024)

/* An open NETLINK_ROUTE socket, NULL on failure. The caller frees it: nl_socket_free(). */
struct nl_sock *facts_socket(struct error *err);
/* The same for facts_dump(): dumps obey what they are asked for, and end within a time limit. */
struct nl_sock *facts_dump_socket(struct error *err);
/* One datagram from the kernel into 'buffer' of FACTS_BUFFER_SIZE: its length, 0 for one to be ignored,
 * -EMSGSIZE for one that did not fit, or negative errno. */
int facts_receive(struct nl_sock *s, uint8_t *buffer);
/*
 * Dumps '*kinds' (FACTS_LINKS ...) into 'ret', which is empty; rules that lead to other tables than those of
 * 'present' draw in the routes: '*kinds' has them then. Without the rules, routes are those of the tables of
 * 'present'. A dump that the kernel interrupted is repeated. 0 or negative errno; 'ret' is to be done in any case.
 */
int facts_dump(struct nl_sock *s, uint8_t *buffer, const struct followed *present, uint32_t *kinds,
	struct followed *ret, struct error *err);

#endif
