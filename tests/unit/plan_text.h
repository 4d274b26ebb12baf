/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_PLAN_TEXT_H
#define TESTS_PLAN_TEXT_H

#include "base/strbuf.h"
#include "controller/plan.h"

/* All of a plan as text: nft's, with the rest as comments in front. The caller frees it. */
static inline void print_pair(void *arg, const char *in, const char *out, bool hairpin)
{
	strbuf_printf(arg, "# pair %s %s%s\n", in, out, hairpin ? " hairpin" : "");
}

static inline char *plan_text(const struct plan *p)
{
	struct strbuf b = {0};

	strbuf_printf(&b, "# kind %s: %s\n", cluster_kind_names[p->kind], p->kind_reason);
	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		strbuf_printf(&b, "# type %s %s: %s\n", traffic_type_names[i],
			engine_names[p->types[i].engine], p->types[i].reason);
	for (size_t i = 0; i < p->n_devices; i++) {
		const struct plan_device *d = &p->devices[i];

		strbuf_printf(&b, "# device %s %s %s%s: %s\n", d->name, device_role_names[d->role],
			device_state_names[d->state], d->checked ? " checked" : "", d->reason);
	}
	plan_each_pair(p, print_pair, &b);
	for (size_t i = 0; i < p->n_warnings; i++)
		strbuf_printf(&b, "# warning %s: %s\n", p->warnings[i].object, p->warnings[i].text);
	if (p->warnings_total > p->n_warnings)
		strbuf_printf(&b, "# warnings %zu\n", p->warnings_total);
	ruleset_print(&p->ruleset, &b);
	return strbuf_steal(&b);
}

#endif
