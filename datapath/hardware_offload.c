/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/hardware_offload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct device *)a)->name, ((const struct device *)b)->name);
}

static bool is_bound(const struct device_list *bound, const struct device *d)
{
	return bound && bound->n && bsearch(d, bound->items, bound->n, sizeof(*d), by_name);
}

bool hardware_offload_decide(struct hardware_offload *h, bool wanted, const struct device_list *devices,
	const struct device_list *bound, hardware_probe *probe, void *arg)
{
	if (!wanted || !h->wanted)
		*h = (struct hardware_offload){.wanted = wanted};
	if (!wanted || h->refused || !devices->n)
		return false;
	for (size_t i = 0; i < devices->n; i++) {
		const struct device *d = &devices->items[i];
		int code = is_bound(bound, d) ? 0 : probe(arg, d->name);

		if (!code || code == -ENOENT || code == -ENODEV)
			continue;
		h->refused = true;
		h->code = code;
		snprintf(h->device, sizeof(h->device), "%s", d->name);
		return false;
	}
	return true;
}
