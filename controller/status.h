/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_STATUS_H
#define CONTROLLER_STATUS_H

#include "base/error.h"
#include "base/strbuf.h"
#include "controller/metrics.h"

/*
 * status: what the agent knows, as JSON (the page /status, fields in deploy/README.md) and, from that JSON,
 * as text for people.
 */
void status_json(const struct metrics_input *in, struct strbuf *out);
/* The part of it that a plan alone has: `slipstream plan -o json`. */
void status_plan_json(const char *node, const struct plan *p, const struct facts *facts, struct strbuf *out);

#define STATUS_JSON_MAX (16 * 1024 * 1024) /* bytes of an answer */

/* -EINVAL when 'json' is no object; missing fields are left out of the text. */
int status_text(const char *json, size_t len, struct strbuf *out, struct error *err);

#endif
