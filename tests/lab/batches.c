/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * batches: the backend before a real kernel, where its messages have borders. Runs in a network namespace of its own that
 * has devices d0 ... d599 (dummies); prints what it did, or the check that failed.
 *
 *   batches borders    element nests around 64 KiB, 255, 256, 600 devices, 20,000 elements
 *   batches errors     an error is told of the element, the device, the table that it is about
 *   batches generation a transaction that was computed before somebody else's is refused, and sync looks again
 */
#include "base/mem.h"
#include "datapath/nft.h"
#include "datapath/nft_batch.h"
#include "datapath/nft_encode.h"
#include "datapath/nft_sync.h"

#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition, ...)                                                                                \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			printf("batches.c:%d: not " #condition ": ", __LINE__);                              \
			printf(__VA_ARGS__);                                                                 \
			printf("\n");                                                                        \
			exit(1);                                                                             \
		}                                                                                            \
	} while (0)

static struct backend *backend;
static struct error err;

static void add_elements(struct ruleset *rs, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++) {
		struct addr a = {.family = AF_INET6, .bytes = {0xfd, 0}};

		a.bytes[13] = (uint8_t)(i >> 16);
		a.bytes[14] = (uint8_t)(i >> 8);
		a.bytes[15] = (uint8_t)i;
		ruleset_add_addr(rs, SET_CLUSTER_IPS4, &a);
	}
}

static void add_devices(struct ruleset *rs, unsigned n)
{
	char name[IFNAMSIZ];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		ruleset_add_device(rs, name, i + 10);
	}
}

static unsigned sync_to(struct ruleset *rs)
{
	struct sync_result r;
	unsigned messages;

	ruleset_normalize(rs);
	CHECK(!backend_sync(backend, rs, &r, &err), "%s", error_text(&err));
	CHECK(!r.n_failed, "%zu devices refused, the first %s", r.n_failed, r.failed[0].name);
	messages = r.messages;
	sync_result_done(&r);
	return messages;
}

/* Made, and a second look finds nothing that differs. */
static void make(uint32_t elements, unsigned devices)
{
	struct ruleset rs = {.present = true};
	unsigned sent, again;

	add_elements(&rs, 1, elements);
	add_devices(&rs, devices);
	sent = sync_to(&rs);
	again = sync_to(&rs);
	CHECK(!again, "%u messages by the second sync", again);
	printf("%u elements, %u devices: %u messages\n", elements, devices, sent);
	ruleset_done(&rs);
}

/* How many elements of this set one message takes. */
static uint32_t elements_per_message(void)
{
	struct ruleset rs = {.present = true};
	struct nft_batch b = {0};
	const struct nlmsghdr *nlh;
	uint32_t n = 4000, one;

	add_elements(&rs, 1, n);
	ruleset_normalize(&rs);
	nft_put_elements(&b, SET_CLUSTER_IPS6, true, rs.sets[SET_CLUSTER_IPS6].items, n);
	CHECK(b.n > 1, "all %u elements in one message", n);
	nlh = (const void *)(b.data + b.messages[0].offset);
	nft_batch_done(&b);
	nft_put_elements(&b, SET_CLUSTER_IPS6, true, rs.sets[SET_CLUSTER_IPS6].items, 1);
	for (one = 1; b.n == 1; one++) {
		nft_batch_done(&b);
		nft_put_elements(&b, SET_CLUSTER_IPS6, true, rs.sets[SET_CLUSTER_IPS6].items, one + 1);
	}
	nlh = (const void *)(b.data + b.messages[0].offset);
	CHECK(nlh->nlmsg_len > 60000 && nlh->nlmsg_len < 65536, "%u bytes", nlh->nlmsg_len);
	printf("the first message is full with %u elements in %u bytes\n", one - 1, nlh->nlmsg_len);
	nft_batch_done(&b);
	ruleset_done(&rs);
	return one - 1;
}

static void borders(void)
{
	uint32_t full = elements_per_message();

	make(full - 1, 0);
	make(full, 0);
	make(full + 1, 0);
	make(0, 255);
	make(0, 256);
	make(0, 600);
	make(20000, 600);
	make(0, 1);
}

static void expect_error(struct nft_socket *s, struct nft_batch *b, int code, const char *object)
{
	struct nft_failure f;

	CHECK(nft_batch_send(s, b, true, &f) == code, "%d (%s)", f.code, strerror(-f.code));
	err = (struct error){0};
	nft_failure_error(b, &f, &err);
	printf("%s\n", error_text(&err));
	CHECK(!strcmp(err.object, object), "'%s' instead of '%s'", err.object, object);
	nft_batch_done(b);
}

static void errors(void)
{
	struct ruleset rs = {.present = true}, more = {.present = true};
	struct device none[2] = {{.name = "d1", .ifindex = 11}, {.name = "missing0"}};
	struct nft_batch b = {0};
	struct nft_socket s;
	struct nft_failure f;

	CHECK(!nft_socket_open(&s, &err), "%s", error_text(&err));
	add_elements(&rs, 1, 10);
	add_devices(&rs, 2);
	sync_to(&rs);

	/* the seventh of these is not there */
	add_elements(&more, 1, 6);
	add_elements(&more, 77, 1);
	ruleset_normalize(&more);
	nft_put_elements(&b, SET_CLUSTER_IPS6, false, more.sets[SET_CLUSTER_IPS6].items, 7);
	expect_error(&s, &b, -ENOENT, "set cluster-ips6: element fd00::4d");
	/* nothing of it was applied */
	CHECK(!sync_to(&rs), "something was applied");

	nft_put_devices(&b, false, none, 2);
	CHECK(nft_batch_send(&s, &b, true, &f) == -ENOENT, "%d", f.code);
	CHECK(!nft_failure_of_all(&b, &f), "the table is at fault");
	nft_batch_done(&b);
	CHECK(!sync_to(&rs), "something was applied");

	nft_put_delete_table(&b);
	CHECK(!nft_batch_send(&s, &b, true, &f), "%d", f.code);
	nft_batch_done(&b);
	nft_put_devices(&b, true, none, 1);
	CHECK(nft_batch_send(&s, &b, true, &f) == -ENOENT, "%d", f.code);
	CHECK(nft_failure_of_all(&b, &f), "message %zu, offset %u", f.message, f.offset);
	nft_batch_done(&b);
	nft_put_elements(&b, SET_CLUSTER_IPS6, true, rs.sets[SET_CLUSTER_IPS6].items, 1);
	expect_error(&s, &b, -ENOENT, "set cluster-ips6");
	nft_socket_close(&s);
	ruleset_done(&rs);
	ruleset_done(&more);
}

/* Adds an element of ours, and takes it away again, as somebody else, until it is killed. */
static void tamper(void)
{
	struct ruleset rs = {.present = true};
	struct timespec pause = {.tv_nsec = 100000000}; /* a look takes some 10 ms here */
	struct nft_failure f;
	struct nft_socket s;

	add_elements(&rs, 500, 1);
	CHECK(!nft_socket_open(&s, &err), "%s", error_text(&err));
	for (bool add = true;; add = !add) {
		struct nft_batch b = {0};

		nft_put_elements(&b, SET_CLUSTER_IPS6, add, rs.sets[SET_CLUSTER_IPS6].items, 1);
		nft_batch_send(&s, &b, true, &f);
		nft_batch_done(&b);
		nanosleep(&pause, NULL);
	}
}

static void generation(void)
{
	struct ruleset rs = {.present = true};
	struct nft_socket s;
	struct nft_batch b = {0};
	uint32_t before, after;
	unsigned repaired = 0;
	pid_t child;

	CHECK(!nft_socket_open(&s, &err), "%s", error_text(&err));
	add_elements(&rs, 1, 10);
	sync_to(&rs);
	CHECK(!nft_generation(&s, &before), "no generation");
	add_elements(&rs, 20, 1);
	CHECK(sync_to(&rs) > 0, "nothing sent");
	CHECK(!nft_generation(&s, &after) && after != before, "generation %u is still %u", after, before);
	nft_batch_begin(&b, before);
	nft_put_delete_table(&b);
	expect_error(&s, &b, -ERESTART, "table inet slipstream");
	CHECK(!sync_to(&rs), "something was applied");

	/* Whatever somebody else does to what a sync is about to send, the sync does not fail. */
	child = fork();
	if (!child)
		tamper();
	for (int i = 0; i < 200; i++)
		repaired += sync_to(&rs) > 0;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	CHECK(repaired > 3, "only %u of 200 looks found anything", repaired);
	sync_to(&rs);
	CHECK(!sync_to(&rs), "it still differs");
	nft_socket_close(&s);
	ruleset_done(&rs);
	printf("%u of 200 syncs repaired something\n", repaired);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	bool removed;

	CHECK(!nft_backend_new(&backend, &err), "%s", error_text(&err));
	if (!strcmp(what, "borders"))
		borders();
	else if (!strcmp(what, "errors"))
		errors();
	else if (!strcmp(what, "generation"))
		generation();
	else
		return 2;
	backend_free(backend);
	CHECK(!nft_cleanup(false, &removed, &err), "%s", error_text(&err));
	return 0;
}
