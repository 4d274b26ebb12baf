/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "datapath/hardware_offload.h"
#include "datapath/nft.h"
#include "datapath/nft_batch.h"
#include "datapath/nft_dump.h"
#include "datapath/nft_encode.h"
#include "datapath/nft_probe_private.h"
#include "datapath/nft_sync.h"

#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <string.h>

struct nft_backend {
	struct backend base;
	struct nft_socket transactions, dumps;
	bool known;   /* the kernel has what was asked for last, except for 'refused' */
	bool present; /* with that, there is a table */
	/* Devices that it did not take. They travel alone, so that the rest still is one transaction. */
	struct device_list refused;
	struct hardware_offload hardware;
	bool in_hardware; /* the flowtable has the flag */
};

#define LOOKS 5 /* of one backend_sync() */

/* -ERESTART: somebody committed between a look and its transaction. -ENOBUFS: nobody knows whether it was applied. */
static bool look_again(int code)
{
	return code == -ERESTART || code == -ENOBUFS;
}

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

static int sync_devices(struct nft_backend *n, bool add, const struct device *devices, size_t count,
	struct sync_result *ret, struct error *err);

/* All of them but the one at fault; or, where the kernel does not say which, one half after the other. */
static int sync_the_others(struct nft_backend *n, bool add, const struct device *devices, size_t count,
	size_t at, struct sync_result *ret, struct error *err)
{
	bool known = at < count;
	size_t half = known ? at : count / 2, rest = known ? at + 1 : half;
	int code = sync_devices(n, add, devices, half, ret, err);

	return code ? code : sync_devices(n, add, devices + rest, count - rest, ret, err);
}

/*
 * Adds or removes devices in transactions of their own. What the kernel refuses is found by its answer, or by
 * halving the list where it does not say, and costs only itself. Returns what is no device's fault.
 */
static int sync_devices(struct nft_backend *n, bool add, const struct device *devices, size_t count,
	struct sync_result *ret, struct error *err)
{
	struct nft_batch batch = {0};
	struct nft_failure failure;
	size_t at = count;
	int code = 0;

	if (!count)
		return 0;
	nft_put_devices(&batch, add, devices, count);
	nft_batch_send(&n->transactions, &batch, true, &failure);
	ret->messages += (unsigned)batch.n;
	if (!failure.code) {
		*(add ? &ret->devices_added : &ret->devices_removed) += (unsigned)count;
	} else if (nft_failure_of_all(&batch, &failure)) {
		code = nft_failure_error(&batch, &failure, err);
	} else if (count == 1) {
		device_refused(ret, add, &devices[0], failure.code);
	} else {
		at = refused_index(&batch, &failure, devices, count);
		if (at < count)
			device_refused(ret, add, &devices[at], failure.code);
		code = sync_the_others(n, add, devices, count, at, ret, err);
	}
	nft_batch_done(&batch);
	return code;
}

/* 'generation' as in struct nft_change. */
static int sync_absent(
	struct nft_backend *n, bool there, uint32_t generation, struct sync_result *ret, struct error *err)
{
	struct nft_batch batch = {0};
	struct nft_failure failure = {0};
	int code = 0;

	if (there) {
		nft_batch_begin(&batch, generation);
		nft_put_delete_table(&batch);
		nft_batch_send(&n->transactions, &batch, true, &failure);
		ret->messages += (unsigned)batch.n;
		if (failure.code && failure.code != -ENOENT)
			code = nft_failure_error(&batch, &failure, err);
	}
	nft_batch_done(&batch);
	n->known = !code;
	n->present = false;
	n->refused.n = 0;
	return code;
}

/* Sends the change with these devices; 'batch' is to be done by the caller. */
static int send_with(struct nft_backend *n, const struct nft_change *c, const struct ruleset *to,
	const struct device_list *devices, struct nft_batch *batch, struct nft_failure *failure)
{
	*batch = (struct nft_batch){0};
	nft_batch_begin(batch, c->generation);
	nft_put_change(batch, c, to);
	nft_put_devices(batch, true, devices->items, devices->n);
	return nft_batch_send(&n->transactions, batch, true, failure);
}

/* The transaction: everything with the devices of 'first', or, when one of these is refused, without them. */
static int send_change(struct nft_backend *n, const struct nft_change *c, const struct ruleset *to,
	struct device_list *first, struct sync_result *ret, struct error *err)
{
	static const struct device_list none;
	struct nft_batch batch;
	struct nft_failure failure;
	int code = send_with(n, c, to, first, &batch, &failure);

	ret->messages += (unsigned)batch.n;
	if (!code) {
		ret->devices_added += (unsigned)first->n;
		first->n = 0;
	} else if (!nft_failure_of_all(&batch, &failure) &&
		   batch.messages[failure.message].kind == NFT_MESSAGE_DEVICES) {
		size_t at = refused_index(&batch, &failure, first->items, first->n);
		int refusal = code;

		nft_batch_done(&batch);
		code = send_with(n, c, to, &none, &batch, &failure);
		ret->messages += (unsigned)batch.n;
		if (!code && at < first->n) {
			device_refused(ret, true, &first->items[at], refusal);
			memmove(first->items + at, first->items + at + 1,
				(--first->n - at) * sizeof(*first->items));
		}
	}
	if (code)
		nft_failure_error(&batch, &failure, err);
	nft_batch_done(&batch);
	return code;
}

static bool has_failed(const struct sync_result *r, const char *name)
{
	for (size_t i = 0; i < r->n_failed; i++) {
		if (!strcmp(r->failed[i].name, name))
			return true;
	}
	return false;
}

/* 'refused': as it was before this change. */
static void count_change(
	const struct nft_change *c, const struct device_list *refused, struct sync_result *ret)
{
	ret->created = c->create && !c->delete_first;
	memcpy(ret->found, c->found, sizeof(ret->found));
	for (size_t i = 0; ret->found[REPAIR_DEVICE] && i < c->delta.add_devices.n; i++) {
		const char *name = c->delta.add_devices.items[i].name;

		ret->found[REPAIR_DEVICE] -= has_device(refused, name) || has_failed(ret, name);
	}
	for (size_t i = 0; i < RULESET_SETS; i++) {
		ret->elements_added += (unsigned)c->delta.add[i].n;
		ret->elements_removed += (unsigned)c->delta.remove[i].n;
	}
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		ret->chains_rewritten += c->delta.chains[i];
}

/* A removal that failed leaves a device that nobody wants: the next sync looks. */
static void remember(struct nft_backend *n, const struct nft_change *c, const struct sync_result *ret)
{
	n->known = n->present = true;
	n->refused.n = 0;
	for (size_t i = 0; i < ret->n_failed; i++) {
		struct device d = {0};

		memcpy(d.name, ret->failed[i].name, sizeof(d.name));
		if (has_device(&c->delta.remove_devices, d.name))
			n->known = false;
		else
			*VEC_ADD(n->refused.items, n->refused.n, n->refused.cap) = d;
	}
}

static int apply_change(struct nft_backend *n, const struct nft_change *c, const struct ruleset *to,
	struct sync_result *ret, struct error *err)
{
	const struct device_list *add = &c->delta.add_devices, *remove = &c->delta.remove_devices;
	struct device_list first = {0}, retry = {0};
	int code;

	/* A comparison with the kernel finds what it refused by itself. */
	for (size_t i = 0; c->borrowed && i < n->refused.n; i++) {
		const struct device *d = &n->refused.items[i];

		if (!has_device(add, d->name) && !has_device(remove, d->name))
			*VEC_ADD(retry.items, retry.n, retry.cap) = *d;
	}
	for (size_t i = 0; i < add->n; i++) {
		const struct device *d = &add->items[i];
		struct device_list *list = has_device(&n->refused, d->name) ? &retry : &first;

		*VEC_ADD(list->items, list->n, list->cap) = *d;
	}
	code = send_change(n, c, to, &first, ret, err);
	if (!code)
		code = sync_devices(n, true, first.items, first.n, ret, err);
	if (!code)
		code = sync_devices(n, true, retry.items, retry.n, ret, err);
	if (!code)
		code = sync_devices(n, false, remove->items, remove->n, ret, err);
	if (!code) {
		count_change(c, &n->refused, ret);
		remember(n, c, ret);
	}
	free(first.items);
	free(retry.items);
	return code;
}

static int ask_hardware(void *arg, const char *device)
{
	return nft_probe_hardware(&((struct nft_backend *)arg)->transactions, device);
}

static void report_hardware(const struct nft_backend *n, struct sync_result *ret)
{
	const struct hardware_offload *h = &n->hardware;

	ret->hardware = n->in_hardware;
	if (h->refused)
		snprintf(ret->hardware_reason, sizeof(ret->hardware_reason), "%s refused it: %s", h->device,
			strerror(-h->code));
	else if (h->wanted && !n->in_hardware)
		snprintf(ret->hardware_reason, sizeof(ret->hardware_reason), "there is no device yet");
}

/* Whether the flowtable that is there shall have the flag. One that has it wrongly is replaced. */
static bool choose_hardware(
	struct nft_backend *n, const struct ruleset *desired, struct nft_observed *observed)
{
	const struct device_list want = {.items = desired->devices, .n = desired->n_devices};
	const struct device_list bound = {.items = observed->state.devices, .n = observed->state.n_devices};
	bool has = observed->flowtable && observed->flowtable_flags & NFT_FLOWTABLE_HW_OFFLOAD;
	bool shall = hardware_offload_decide(
		&n->hardware, desired->hardware_offload, &want, has ? &bound : NULL, ask_hardware, n);

	if (observed->flowtable && has != shall)
		nft_observed_drop_flowtable(observed);
	return shall;
}

/* Looks, compares, sends; 'checked': only if nobody committed anything in between. */
static int sync_once(struct nft_backend *n, const struct ruleset *desired, bool checked,
	struct sync_result *ret, struct error *err)
{
	struct nft_observed observed = {0};
	struct nft_change change;
	bool flowtable;
	uint32_t generation = 0;
	int code = checked ? nft_generation(&n->dumps, &generation) : 0;

	if (code)
		return error_set(err, code, "nftables", NULL, "cannot read the generation of the ruleset: %s",
			strerror(-code));
	code = nft_observe(&n->dumps, &observed, err);
	if (code)
		goto out;
	if (!desired->present) {
		code = sync_absent(n, observed.table == NFT_TABLE_OURS, generation, ret, err);
		goto out;
	}
	if (observed.table == NFT_TABLE_FOREIGN) {
		code = error_set(err, -EEXIST, "table inet " RULESET_TABLE,
			"rename or delete it: nft delete table inet " RULESET_TABLE,
			"a table of this name is there that slipstream did not make (no comment \"%s\")",
			RULESET_COMMENT);
		goto out;
	}
	flowtable = observed.flowtable;
	n->in_hardware = choose_hardware(n, desired, &observed);
	nft_change_observed(&observed, desired, n->in_hardware, &change);
	if (flowtable && !observed.flowtable)
		change.found[REPAIR_FLOWTABLE] = 0; /* our own choice */
	change.generation = generation;
	code = apply_change(n, &change, desired, ret, err);
	if (code && change.flush_rules && code != -ENOENT && !look_again(code)) {
		/* What somebody put into our table cannot be taken out. */
		unsigned found[REPAIR_KINDS];

		memcpy(found, change.found, sizeof(found));
		nft_change_done(&change);
		nft_change_replace(desired, n->in_hardware, &change);
		memcpy(change.found, found, sizeof(found));
		change.generation = generation;
		code = apply_change(n, &change, desired, ret, err);
	}
	nft_change_done(&change);
	report_hardware(n, ret);
out:
	nft_observed_done(&observed);
	return code;
}

/*
 * Where others commit all the time, what the last look found is sent whatever they did in between: it fails as a whole
 * then, or leaves a difference that notifications tell.
 */
static int nft_sync(
	struct backend *b, const struct ruleset *desired, struct sync_result *ret, struct error *err)
{
	struct nft_backend *n = of(b);
	int code = -ERESTART;

	*ret = (struct sync_result){0};
	n->known = false;
	for (unsigned i = 1; i <= LOOKS && look_again(code); i++) {
		/* What was not answered may have been applied, and is not found different then. */
		unsigned unanswered = code == -ENOBUFS ? ret->messages : 0;

		if (i > 1 && err)
			*err = (struct error){0};
		sync_result_done(ret);
		code = sync_once(n, desired, i < LOOKS, ret, err);
		ret->messages += unanswered;
	}
	return code;
}

/* Whether one of the devices that come must not meet the flag. The first of all may bring it. */
static bool refuses_hardware(struct nft_backend *n, const struct device_list *add)
{
	return n->hardware.wanted && !n->hardware.refused && add->n &&
	       hardware_offload_decide(&n->hardware, true, add, NULL, ask_hardware, n) != n->in_hardware;
}

static int nft_apply(struct backend *b, const struct ruleset *desired, const struct ruleset_delta *delta,
	struct sync_result *ret, struct error *err)
{
	struct nft_backend *n = of(b);
	struct nft_change change;
	int code;

	memset(ret, 0, sizeof(*ret));
	if (!n->known || delta->unknown || n->present != desired->present)
		return error_set(
			err, -ESTALE, "table inet " RULESET_TABLE, NULL, "what the kernel has is not known");
	if (!desired->present)
		return 0;
	if (n->hardware.wanted != desired->hardware_offload || refuses_hardware(n, &delta->add_devices))
		return error_set(err, -ESTALE, "flowtable " RULESET_FLOWTABLE, NULL, "it has to be replaced");
	nft_change_delta(delta, &change);
	code = apply_change(n, &change, desired, ret, err);
	nft_change_done(&change);
	report_hardware(n, ret);
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
	free(n->refused.items);
	free(n);
}

int nft_backend_new(struct backend **ret, struct error *err)
{
	static const struct backend_ops ops = {
		.sync = nft_sync,
		.apply = nft_apply,
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
	ours = !code && state == NFT_TABLE_OURS;
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
