/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/flow_totals.h"

#include "base/mem.h"

#include <string.h>

#define SIZE_MIN 64

struct flow_slot {
	uint64_t key; /* 0: free */
	uint64_t bytes, packets;
	uint64_t seen; /* seconds */
};

static uint64_t mix(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;

	/* FNV-1a, 64 bits */
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h;
}

/*
 * CTA_ID alone is a hash of 32 bits (nf_ct_get_id() in net/netfilter/nf_conntrack_core.c): two of many flows
 * may share one, so the original tuple is part of the key.
 */
static uint64_t key_of(const struct flow *f)
{
	uint64_t h = 0xcbf29ce484222325ull;

	h = mix(h, &f->id, sizeof(f->id));
	h = mix(h, &f->protocol, sizeof(f->protocol));
	h = mix(h, f->original_src.bytes, sizeof(f->original_src.bytes));
	h = mix(h, f->original_dst.bytes, sizeof(f->original_dst.bytes));
	h = mix(h, &f->original_sport, sizeof(f->original_sport));
	h = mix(h, &f->original_dport, sizeof(f->original_dport));
	return h ? h : 1;
}

static struct flow_slot *find(struct flow_slot *slots, size_t size, uint64_t key)
{
	size_t i = (key ^ key >> 32) & (size - 1);

	while (slots[i].key && slots[i].key != key)
		i = (i + 1) & (size - 1);
	return &slots[i];
}

/* Keeps those seen at 'oldest' or later. */
static void rebuild(struct flow_totals *t, uint64_t oldest)
{
	struct flow_slot *slots;
	size_t kept = 0, size = SIZE_MIN;

	for (size_t i = 0; i < t->size; i++)
		kept += t->slots[i].key && t->slots[i].seen >= oldest;
	while (size < kept * 3)
		size *= 2;
	slots = xcalloc(size, sizeof(*slots));
	for (size_t i = 0; i < t->size; i++)
		if (t->slots[i].key && t->slots[i].seen >= oldest)
			*find(slots, size, t->slots[i].key) = t->slots[i];
	free(t->slots);
	t->slots = slots;
	t->size = size;
	t->n = kept;
}

void flow_totals_done(struct flow_totals *t)
{
	free(t->slots);
	memset(t, 0, sizeof(*t));
}

void flow_totals_begin(struct flow_totals *t)
{
	memset(t->counting, 0, sizeof(t->counting));
}

void flow_totals_add(struct flow_totals *t, const struct flow *f, enum traffic_type type, uint64_t now)
{
	uint64_t bytes = f->bytes[0] + f->bytes[1], packets = f->packets[0] + f->packets[1];
	uint64_t key = key_of(f);
	struct flow_slot *slot;

	t->counting[type]++;
	if (!f->counted)
		return;
	if ((t->n + 1) * 3 > t->size * 2)
		rebuild(t, 0);
	slot = find(t->slots, t->size, key);
	if (!slot->key) {
		if (t->n >= FLOW_TOTALS_MAX)
			return;
		t->n++;
		slot->key = key;
		if (!t->dumps) {
			slot->bytes = bytes;
			slot->packets = packets;
		}
	} else if (bytes < slot->bytes || packets < slot->packets) {
		/* Reset by somebody (`conntrack -L -z`), or another connection of the same tuple and id. */
		slot->bytes = slot->packets = 0;
	}
	t->bytes[type] += bytes - slot->bytes;
	t->packets[type] += packets - slot->packets;
	slot->bytes = bytes;
	slot->packets = packets;
	slot->seen = now;
}

void flow_totals_end(struct flow_totals *t, uint64_t now)
{
	memcpy(t->flows, t->counting, sizeof(t->flows));
	t->dumps++;
	if (t->n >= FLOW_TOTALS_MAX)
		rebuild(t, now); /* only those of this dump */
	else if (t->n && t->dumps % 16 == 0)
		rebuild(t, now > FLOW_TOTALS_MEMORY ? now - FLOW_TOTALS_MEMORY : 0);
}
