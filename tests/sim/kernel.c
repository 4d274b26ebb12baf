/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel's bad days, and what others do to our table. */
#include "sim.h"

#include <errno.h>
#include <string.h>

/* Linux's, for netlink; not in errno.h of user space. */
#ifndef ERESTART
#define ERESTART 85
#endif

static int pick(struct sim *s, const int *codes, size_t n)
{
	return codes[draw(s, (unsigned)n)];
}

static int code_at(struct sim *s, enum memory_point at, const char *object)
{
	static const int dump[] = {-EINTR, -ENOBUFS, -ENOMEM, -EPERM, -EAGAIN};
	static const int refused[] = {
		-EPERM, -ENOENT, -EEXIST, -EBUSY, -ENOMEM, -EOPNOTSUPP, -E2BIG, -ENOSPC, -EINVAL};
	static const int commit[] = {-EMSGSIZE, -ENOBUFS, -EINTR, -EAGAIN, -ERESTART, -ENOMEM};
	int code;

	switch (at) {
	case MEMORY_DUMP:
		return chance(s, s->rates.kernel_dump) ? pick(s, dump, ARRAY_SIZE(dump)) : 0;
	case MEMORY_MESSAGE:
		code = chance(s, s->rates.kernel_message) ? pick(s, refused, ARRAY_SIZE(refused)) : 0;
		/* A kernel that says so has no such hook. */
		return code == -ENOENT && !strncmp(object, "flowtable", 9) ? -ENOMEM : code;
	case MEMORY_COMMIT:
		return chance(s, s->rates.kernel_commit) ? pick(s, commit, ARRAY_SIZE(commit)) : 0;
	case MEMORY_ANSWER:
		return chance(s, s->rates.kernel_answer) ? -ENOBUFS : 0;
	case MEMORY_OBSERVED:
		break;
	}
	return 0;
}

static bool dies(struct sim *s, enum memory_point at)
{
	if (at == MEMORY_MESSAGE && !chance(s, 50))
		return false;
	return chance(s, s->rates.kill);
}

static int fault(void *arg, enum memory_point at, const char *object)
{
	static const char *const names[] = {"dump of", "look at", "message for", "commit to", "answer about"};
	struct sim *s = arg;
	int code;

	/* Nothing of a dead process reaches the kernel. */
	if (s->client.killed)
		return -EIO;
	if (dies(s, at)) {
		trace(s, "process: killed at %s %s", names[at], object);
		s->client.killed = true;
		return -EIO;
	}
	if (at == MEMORY_OBSERVED && chance(s, s->rates.foreign_race)) {
		s->kernel.races++;
		kernel_edit(s, chance(s, s->rates.silent));
		check_snapshot(s);
	}
	code = code_at(s, at, object);
	if (!code)
		return 0;
	s->kernel.faults++;
	s->kernel.lost = at == MEMORY_ANSWER;
	trace(s, "kernel: %s at %s %s", strerror(-code), names[at], object);
	return code;
}

static struct set_element foreign_element(struct sim *s)
{
	struct set_element e = {.key = {10, 96, 7, (uint8_t)draw(s, 4)}};

	return e;
}

static void edit_elements(struct sim *s)
{
	static const enum ruleset_set sets[] = {SET_CLUSTER_IPS4, SET_NODEPORTS, SET_PEER_NODES4, SET_PAIRS,
		SET_LOCAL_PODS4, SET_CLUSTER_IPS6};
	const struct ruleset *rs = memory_backend_ruleset(s->kernel.backend);
	enum ruleset_set set = sets[draw(s, ARRAY_SIZE(sets))];
	const struct element_list *list = &rs->sets[set];
	struct set_element e;

	if (list->n && chance(s, 600)) {
		e = list->items[draw(s, (unsigned)list->n)];
		trace(s, "others: an element of %s removed", ruleset_set_schema[set].name);
		memory_backend_tamper_element(s->kernel.backend, set, &e, false);
		return;
	}
	e = foreign_element(s);
	trace(s, "others: an element of cluster-ips4 added");
	memory_backend_tamper_element(s->kernel.backend, SET_CLUSTER_IPS4, &e, true);
}

static void edit_device(struct sim *s)
{
	const struct ruleset *rs = memory_backend_ruleset(s->kernel.backend);
	char name[IFNAMSIZ];

	if (!rs->n_devices)
		return;
	memcpy(name, rs->devices[draw(s, (unsigned)rs->n_devices)].name, sizeof(name));
	trace(s, "others: device %s removed", name);
	memory_backend_drop_device(s->kernel.backend, name);
}

static void edit_table(struct sim *s)
{
	static const char *const names[] = {"a table of theirs", "an older table", "no flowtable",
		"no counter", "no set", "no chain", "a rule edited", "a stray object"};
	enum memory_edit edit = draw(s, MEMORY_EDITS);
	unsigned which = edit == MEMORY_DROP_COUNTER ? draw(s, TRAFFIC_TYPES)
			 : edit == MEMORY_DROP_SET   ? draw(s, RULESET_SETS)
						     : draw(s, RULESET_CHAINS);

	/* Theirs is rarer: nothing works until they are gone. */
	if (edit == MEMORY_FOREIGN_TABLE && !chance(s, 300))
		edit = MEMORY_ADD_STRAY;
	trace(s, "others: %s", names[edit]);
	memory_backend_edit(s->kernel.backend, edit, which);
	s->kernel.foreign_table = edit == MEMORY_FOREIGN_TABLE;
}

void kernel_edit(struct sim *s, bool silent)
{
	struct kernel_world *k = &s->kernel;
	unsigned what = draw(s, 100);

	if (s->node.no_nftables)
		return;
	if (k->foreign_table || what < 25) {
		trace(s, "others: flush ruleset");
		memory_backend_drop_table(k->backend);
		k->foreign_table = false;
	} else if (what < 55) {
		edit_elements(s);
	} else if (what < 65) {
		edit_device(s);
	} else if (what < 75) {
		trace(s, "others: chain flushed");
		memory_backend_flush_chain(k->backend, (enum ruleset_chain)draw(s, RULESET_CHAINS));
	} else {
		edit_table(s);
	}
	k->dirty = k->dirty_again = true;
	if (s->client.alive && !silent && !k->notice)
		k->notice = s->now + draw_us(s, 0, 5 * US_PER_MS);
}

void kernel_calm(struct sim *s)
{
	if (!s->kernel.foreign_table)
		return;
	kernel_edit(s, false);
}

void kernel_start(struct sim *s)
{
	s->kernel.backend = memory_backend_new();
	memory_backend_on_fault(s->kernel.backend, fault, s);
	if (chance(s, 100))
		edit_table(s);
	s->kernel.dirty = true;
}
