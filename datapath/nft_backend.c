/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/nft.h"
#include "datapath/nft_batch.h"
#include "datapath/nft_dump.h"
#include "datapath/nft_encode.h"
#include "datapath/nft_sync.h"

#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <string.h>

struct nft_backend {
	struct backend base;
	struct nft_socket transactions, dumps;
	bool known; /* 'applied' is what the kernel has */
	struct ruleset applied;
	/* Names that were refused last time: they travel alone, so that the rest still is one transaction. */
	struct device_list refused;
};

static struct nft_backend *of(struct backend *b)
{
	return (struct nft_backend *)(void *)b;
}

static void sync_failed(struct sync_result *ret, const char *name, int code)
{
	ret->failed = xreallocarray(ret->failed, ret->n_failed + 1, sizeof(*ret->failed));
	memset(&ret->failed[ret->n_failed], 0, sizeof(*ret->failed));
	snprintf(ret->failed[ret->n_failed].name, IFNAMSIZ, "%s", name);
	ret->failed[ret->n_failed++].code = code;
}

static bool has_device(const struct device_list *list, const char *name)
{
	for (size_t i = 0; i < list->n; i++) {
		if (!strcmp(list->items[i].name, name))
			return true;
	}
	return false;
}

static void device_refused(struct sync_result *ret, bool add, const struct device *d, int code)
{
	/* Up to 6.15 a hook goes with its device. */
	if (!add && code == -ENOENT)
		ret->devices_removed++;
	else
		sync_failed(ret, d->name, code);
}

/* Which device the kernel refused; 'count' when it does not say (before 6.4). */
static size_t refused_index(
	const struct nft_batch *b, const struct nft_failure *f, const struct device *devices, size_t count)
{
	char name[IFNAMSIZ];
	size_t i = 0;

	if (!nft_failure_device(b, f, name))
		return count;
	while (i < count && strcmp(devices[i].name, name) != 0)
		i++;
	return i;
}

/*
 * Adds or removes devices in transactions of their own. What the kernel refuses is found by its answer, or by
 * halving the list where it does not say, and costs only itself.
 */
static void sync_devices(
	struct nft_backend *n, bool add, const struct device *devices, size_t count, struct sync_result *ret)
{
	struct nft_batch batch = {0};
	struct nft_failure failure;

	if (!count)
		return;
	nft_put_devices(&batch, add, devices, count);
	nft_batch_send(&n->transactions, &batch, true, &failure);
	ret->messages += (unsigned)batch.n;
	if (!failure.code) {
		if (add)
			ret->devices_added += (unsigned)count;
		else
			ret->devices_removed += (unsigned)count;
	} else if (count == 1) {
		device_refused(ret, add, &devices[0], failure.code);
	} else {
		size_t at = refused_index(&batch, &failure, devices, count);

		if (at < count) {
			device_refused(ret, add, &devices[at], failure.code);
			sync_devices(n, add, devices, at, ret);
			sync_devices(n, add, devices + at + 1, count - at - 1, ret);
		} else {
			sync_devices(n, add, devices, count / 2, ret);
			sync_devices(n, add, devices + count / 2, count - count / 2, ret);
		}
	}
	nft_batch_done(&batch);
}

static int sync_absent(struct nft_backend *n, bool there, struct sync_result *ret, struct error *err)
{
	struct nft_batch batch = {0};
	struct nft_failure failure = {0};
	int code = 0;

	if (there) {
		nft_put_delete_table(&batch);
		nft_batch_send(&n->transactions, &batch, true, &failure);
		ret->messages += (unsigned)batch.n;
		if (failure.code && failure.code != -ENOENT)
			code = nft_failure_error(&batch, &failure, err);
	}
	nft_batch_done(&batch);
	n->known = !code;
	ruleset_done(&n->applied);
	n->refused.n = 0;
	return code;
}

/* The transaction: everything with the devices of 'first', or, when one of these is refused, without them. */
static int send_change(struct nft_backend *n, const struct nft_change *c, const struct ruleset *to,
	struct device_list *first, struct sync_result *ret, struct error *err)
{
	struct nft_batch batch = {0};
	struct nft_failure failure;

	nft_put_change(&batch, c, to);
	nft_put_devices(&batch, true, first->items, first->n);
	nft_batch_send(&n->transactions, &batch, true, &failure);
	ret->messages += (unsigned)batch.n;
	if (!failure.code) {
		ret->devices_added += (unsigned)first->n;
		first->n = 0;
	} else if (failure.message < batch.n && batch.messages[failure.message].kind == NFT_MESSAGE_DEVICES) {
		int code = failure.code;
		size_t at = refused_index(&batch, &failure, first->items, first->n);

		nft_batch_done(&batch);
		nft_put_change(&batch, c, to);
		nft_batch_send(&n->transactions, &batch, true, &failure);
		ret->messages += (unsigned)batch.n;
		if (!failure.code && at < first->n) {
			device_refused(ret, true, &first->items[at], code);
			memmove(first->items + at, first->items + at + 1,
				(--first->n - at) * sizeof(*first->items));
		}
	}
	if (failure.code)
		nft_failure_error(&batch, &failure, err);
	nft_batch_done(&batch);
	return failure.code;
}

static bool failed(const struct sync_result *ret, const char *name)
{
	for (size_t i = 0; i < ret->n_failed; i++) {
		if (!strcmp(ret->failed[i].name, name))
			return true;
	}
	return false;
}

/* What was refused is not applied, so that the next sync tries it again. */
static void remember(struct nft_backend *n, const struct nft_change *c, const struct ruleset *to,
	const struct sync_result *ret)
{
	struct ruleset *a = &n->applied;
	bool restored = false;
	size_t kept = 0;

	ruleset_done(a);
	ruleset_copy(to, a);
	n->refused.n = 0;
	for (size_t i = 0; i < a->n_devices; i++) {
		if (failed(ret, a->devices[i].name))
			*VEC_ADD(n->refused.items, n->refused.n, n->refused.cap) = a->devices[i];
		else
			a->devices[kept++] = a->devices[i];
	}
	a->n_devices = kept;
	/* 'to' is in canonical order, and sorting it again would be most of what a small change costs. */
	for (size_t i = 0; i < c->remove_devices.n; i++) {
		const struct device *d = &c->remove_devices.items[i];

		if (!failed(ret, d->name))
			continue;
		ruleset_add_device(a, d->name, d->ifindex);
		restored = true;
	}
	if (restored)
		ruleset_normalize(a);
	n->known = true;
}

static void count_change(const struct nft_change *c, struct sync_result *ret)
{
	ret->created = c->create && !c->delete_first;
	for (size_t i = 0; i < RULESET_SETS; i++) {
		ret->elements_added += (unsigned)c->add[i].n;
		ret->elements_removed += (unsigned)c->remove[i].n;
	}
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		ret->chains_rewritten += c->rewrite[i];
}

static int apply_change(struct nft_backend *n, const struct nft_change *c, const struct ruleset *to,
	struct sync_result *ret, struct error *err)
{
	struct device_list first = {0}, retry = {0};
	int code;

	for (size_t i = 0; i < c->add_devices.n; i++) {
		const struct device *d = &c->add_devices.items[i];
		struct device_list *list = has_device(&n->refused, d->name) ? &retry : &first;

		*VEC_ADD(list->items, list->n, list->cap) = *d;
	}
	code = send_change(n, c, to, &first, ret, err);
	if (!code) {
		sync_devices(n, true, first.items, first.n, ret);
		sync_devices(n, true, retry.items, retry.n, ret);
		sync_devices(n, false, c->remove_devices.items, c->remove_devices.n, ret);
		count_change(c, ret);
		if (ret->messages || !n->known)
			remember(n, c, to, ret);
	}
	free(first.items);
	free(retry.items);
	return code;
}

static int sync_once(
	struct nft_backend *n, const struct ruleset *desired, struct sync_result *ret, struct error *err)
{
	struct nft_observed observed = {0};
	struct nft_change change;
	int code = 0;

	if (!n->known) {
		ret->observed = true;
		code = nft_observe(&n->dumps, &observed, err);
		if (code)
			goto out;
	}
	if (!desired->present) {
		bool there = n->known ? n->applied.present
				      : observed.table == NFT_TABLE_OURS ||
						observed.table == NFT_TABLE_OTHER_LAYOUT;

		code = sync_absent(n, there, ret, err);
		goto out;
	}
	if (observed.table == NFT_TABLE_FOREIGN) {
		code = error_set(err, -EEXIST, "table inet " RULESET_TABLE,
			"rename or delete it: nft delete table inet " RULESET_TABLE,
			"a table of this name is there that slipstream did not make (no comment \"%s\")",
			RULESET_COMMENT);
		goto out;
	}
	if (n->known && n->applied.present)
		nft_change_applied(&n->applied, desired, &change);
	else
		nft_change_observed(&observed, desired, &change);
	code = apply_change(n, &change, desired, ret, err);
	if (code && change.flush_rules && code != -ENOENT && code != -ENOBUFS) {
		/* What somebody put into our table cannot be taken out: a new table, at the price of its
		 * flows going through the slow path once. */
		nft_observed_done(&observed);
		observed.table = NFT_TABLE_OTHER_LAYOUT;
		nft_change_done(&change);
		nft_change_observed(&observed, desired, &change);
		code = apply_change(n, &change, desired, ret, err);
	}
	nft_change_done(&change);
out:
	nft_observed_done(&observed);
	return code;
}

/*
 * A transaction that builds on what is no longer there fails as a whole (somebody flushed the ruleset); lost
 * answers leave open whether it was applied. Both are settled by looking, once.
 */
static int nft_sync(
	struct backend *b, const struct ruleset *desired, struct sync_result *ret, struct error *err)
{
	struct nft_backend *n = of(b);
	int code;

	memset(ret, 0, sizeof(*ret));
	code = sync_once(n, desired, ret, err);
	if (code && !ret->observed) {
		n->known = false;
		code = sync_once(n, desired, ret, err);
	}
	if (code)
		n->known = false;
	return code;
}

static void nft_forget(struct backend *b)
{
	of(b)->known = false;
}

static int nft_inserts(struct backend *b, uint64_t ret[TRAFFIC_TYPES], struct error *err)
{
	return nft_read_counters(&of(b)->dumps, ret, err);
}

static void nft_free(struct backend *b)
{
	struct nft_backend *n = of(b);

	nft_socket_close(&n->transactions);
	nft_socket_close(&n->dumps);
	ruleset_done(&n->applied);
	free(n->refused.items);
	free(n);
}

int nft_backend_new(struct backend **ret, struct error *err)
{
	static const struct backend_ops ops = {
		.sync = nft_sync,
		.forget = nft_forget,
		.inserts = nft_inserts,
		.free = nft_free,
	};
	struct nft_backend *n = xcalloc(1, sizeof(*n));
	int code;

	*ret = NULL;
	n->base.ops = &ops;
	code = nft_socket_open(&n->transactions, err);
	if (!code)
		code = nft_socket_open(&n->dumps, err);
	if (code)
		nft_free(&n->base);
	else
		*ret = &n->base;
	return code;
}

int nft_cleanup(bool dry_run, bool *ret_removed, struct error *err)
{
	enum nft_table_state state = NFT_TABLE_ABSENT;
	struct nft_batch batch = {0};
	struct nft_failure failure = {0};
	struct nft_socket s;
	uint32_t flags;
	bool ours;
	int code;

	if (ret_removed)
		*ret_removed = false;
	code = nft_socket_open(&s, err);
	if (code)
		return code;
	code = nft_observe_table(&s, &state, &flags, err);
	ours = !code && (state == NFT_TABLE_OURS || state == NFT_TABLE_OTHER_LAYOUT);
	if (ours && !dry_run) {
		nft_put_delete_table(&batch);
		nft_batch_send(&s, &batch, true, &failure);
		if (failure.code == -ENOENT)
			ours = false;
		else if (failure.code)
			code = nft_failure_error(&batch, &failure, err);
	}
	if (ret_removed)
		*ret_removed = ours && !code;
	nft_batch_done(&batch);
	nft_socket_close(&s);
	return code;
}
