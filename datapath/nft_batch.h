/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_NFT_BATCH_H
#define DATAPATH_NFT_BATCH_H

#include "base/error.h"
#include "datapath/ruleset.h"

#include <libmnl/libmnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * nft_batch: sockets of nf_tables, and transactions as they travel over them.
 *
 * A batch is built message by message, sent in one sendmsg() (all or nothing, lib: nfnetlink_rcv_batch() in
 * net/netfilter/nfnetlink.c) and answered by one acknowledgement per message, which the kernel has queued
 * when sendmsg() returns. An error is mapped back to the message, and by the offset of the extended
 * acknowledgement to the element or device in it.
 */
struct nft_socket {
	struct mnl_socket *nl; /* NULL: not open */
	uint32_t portid;
	uint32_t seq; /* the last one used */
};

int nft_socket_open(struct nft_socket *s, struct error *err);
void nft_socket_close(struct nft_socket *s);
/* Whether a notification with this netlink portid was caused by a socket of this process. */
bool nft_portid_is_own(uint32_t portid);
/* Sets a socket buffer (SO_SNDBUF or SO_RCVBUF), past the system's limit where that is allowed. */
void nft_socket_buffer(int fd, int option, size_t bytes);

enum nft_message_kind {
	NFT_MESSAGE_PLAIN,
	NFT_MESSAGE_ELEMENTS, /* of 'set' */
	NFT_MESSAGE_DEVICES,
};

struct nft_message {
	size_t offset; /* in the buffer */
	enum nft_message_kind kind;
	enum ruleset_set set;
	char *object; /* "set pairs" */
};

struct nft_batch {
	uint8_t *data;
	size_t len, cap;
	struct nft_message *messages;
	size_t n, messages_cap;
};

/*
 * Starts the batch as one that was computed against this generation of the ruleset (nft_generation()): when anybody has
 * committed anything since, the kernel refuses all of it with -ERESTART. To be called before the first message, or not
 * at all; 0 is no generation.
 */
void nft_batch_begin(struct nft_batch *b, uint32_t generation);
/*
 * Starts a message of nf_tables, family inet, with room for 'room' bytes of attributes; put them with
 * mnl_attr_put*() or the build_payload functions of libnftnl, then end it. The pointer is valid until then.
 * 'fmt' names the object for errors.
 */
struct nlmsghdr *nft_batch_message(struct nft_batch *b, uint16_t type, uint16_t flags, size_t room,
	const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The same for messages with elements or devices in them; changes what the last started message is. */
void nft_batch_kind(struct nft_batch *b, enum nft_message_kind kind, enum ruleset_set set);
void nft_batch_end(struct nft_batch *b, const struct nlmsghdr *nlh);
void nft_batch_done(struct nft_batch *b);

struct nft_failure {
	int code;        /* negative errno, 0: none */
	size_t message;  /* index, or SIZE_MAX: the batch as a whole */
	uint32_t offset; /* of the attribute at fault in the message, 0: unknown */
	char text[200];  /* the kernel's words, "" */
};

/*
 * Sends the batch; 'commit' false only validates it (no BATCH_END: the kernel aborts it after checking).
 * Returns 0 or the code of the first failure, which '*ret' describes. A batch may be sent more than once. An empty one
 * is not sent. Nothing of it was applied, except after
 *   -ENOBUFS   answers were lost: it may have been applied or not (nft_failure.message SIZE_MAX);
 * and nothing was sent at all at
 *   -EMSGSIZE  the send buffer cannot be made large enough for it.
 * -EAGAIN does not come: the kernel replays a batch by itself after loading a module (nfnetlink_rcv_batch()); -EINTR
 * neither: only a signal that kills interrupts one. -ENOMEM, and what goes wrong at the commit, is answered to the first
 * message whatever it was about: it is told as the batch's.
 */
int nft_batch_send(struct nft_socket *s, struct nft_batch *b, bool commit, struct nft_failure *ret);
/* Whether it is the batch, or the table, that the kernel refused, rather than anything in it. */
bool nft_failure_of_all(const struct nft_batch *b, const struct nft_failure *f);
/* The name of the device that the failure is about, into 'ret'; false when the kernel did not say. */
bool nft_failure_device(const struct nft_batch *b, const struct nft_failure *f, char ret[IFNAMSIZ]);
/* Puts the failure into words. Returns its code. */
int nft_failure_error(const struct nft_batch *b, const struct nft_failure *f, struct error *err);

/* The generation of the ruleset of this network namespace: a number that every commit, whoever's, changes; never 0. */
int nft_generation(struct nft_socket *s, uint32_t *ret);

/*
 * One request that is answered by messages: calls 'cb' for each (return 0 to go on, a negative errno to
 * fail). A dump that the kernel marks as interrupted is begun again, 'restart' is called before; at most 20
 * times, then -EINTR. Returns 0 or a negative errno, without words for it: -ENOENT is an answer.
 */
struct nft_request {
	uint16_t type, flags;
	uint8_t family;
	const char *table; /* attribute 1, NULL: none */
	const char *name;  /* attribute 2 or what 'name_attr' says, NULL: none */
	uint16_t name_attr;
};
int nft_request(struct nft_socket *s, const struct nft_request *request,
	int (*cb)(const struct nlmsghdr *nlh, void *arg), void (*restart)(void *arg), void *arg);

#endif
