/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/strbuf.h"
#include "k8s/api_body.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * First byte: kind, list or watch; second: seed of the sizes of the pieces. However the stream is cut, the state machine
 * does the same, and the replica ends the same.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct follow {
	struct strbuf log;
	struct reflector *reflector;
	struct cluster *cluster;
	uint64_t now;
};

static void follow_step(struct follow *f, struct reflector_input *in)
{
	struct reflector_output out;

	in->random = 0.5;
	reflector_step(f->reflector, in, ++f->now, &out);
	if (out.deadline < f->now)
		abort();
	strbuf_printf(&f->log, "%d/%d: %#x %llu %s %s\n", in->kind, in->event, out.actions,
		(unsigned long long)out.deadline, in->version ? in->version : "-",
		out.actions & REFLECTOR_SEND && out.request.version ? out.request.version : "-");
}

static void on_event(void *arg, struct reflector_input *in)
{
	follow_step(arg, in);
}

static void on_bad_object(void *arg, const struct error *err)
{
	struct follow *f = arg;

	if (!err->code || !err->what[0])
		abort();
	strbuf_printf(&f->log, "%s\n", error_text(err));
}

static void on_changed(void *arg)
{
	struct follow *f = arg;

	strbuf_printf(&f->log, "generation %llu\n", (unsigned long long)cluster_generation(f->cluster));
}

static int follow(struct follow *f, const struct api_body_format *format, const char *text, size_t len,
	unsigned seed, bool whole)
{
	struct api_body_owner owner = {on_event, on_bad_object, on_changed, f};
	struct reflector_input tick = {.kind = REFLECTOR_TICK}, opened = {.kind = REFLECTOR_OPENED};
	struct api_body *b;
	int rc = 0;

	f->reflector = reflector_new(false, format->watch);
	f->cluster = cluster_new();
	b = api_body_new(f->cluster, format, &owner);
	follow_step(f, &tick);
	follow_step(f, &opened);
	for (size_t at = 0, n; at < len && !rc; at += n) {
		char *copy;

		n = whole ? len : 1 + (size_t)rand_r(&seed) % 40;
		if (n > len - at)
			n = len - at;
		/* Of exactly its size, so that a sanitizer sees a byte read past it. */
		copy = malloc(n);
		if (!copy)
			abort();
		memcpy(copy, text + at, n);
		rc = api_body_feed(b, copy, n, NULL);
		free(copy);
	}
	if (!rc)
		rc = api_body_end(b, NULL);
	if (rc == -ECANCELED)
		strbuf_printf(&f->log, "error %u %s\n", api_body_error(b)->code, api_body_error(b)->message);
	strbuf_printf(&f->log, "end %d: %s %s, %zu\n", rc, api_body_version(b) ? api_body_version(b) : "-",
		api_body_continue(b) ? api_body_continue(b) : "-", cluster_count(f->cluster, format->kind));
	api_body_free(b);
	cluster_free(f->cluster);
	reflector_free(f->reflector);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct follow whole = {0}, pieces = {0};
	struct api_body_format format;

	if (size < 2)
		return 0;
	format = (struct api_body_format){.kind = data[0] / 2 % OBJECT_KINDS, .watch = data[0] % 2};
	format.endpoints = format.kind == OBJECT_ENDPOINT_SLICE && data[0] & 0x80;
	follow(&whole, &format, (const char *)data + 2, size - 2, 0, true);
	follow(&pieces, &format, (const char *)data + 2, size - 2, data[1], false);
	if (whole.log.len != pieces.log.len || memcmp(whole.log.data, pieces.log.data, whole.log.len) != 0)
		abort();
	strbuf_done(&whole.log);
	strbuf_done(&pieces.log);
	return 0;
}
