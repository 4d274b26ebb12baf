/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "base/strbuf.h"
#include "k8s/json_split.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * First byte: mode and size of the pieces. However a body is cut, the same objects must come out and the same
 * verdict, and no object may be above the ceiling.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_OBJECT 2048

static int collect(void *arg, const char *json, size_t len)
{
	if (len > MAX_OBJECT || json[0] != '{' || json[len - 1] != '}')
		abort();
	strbuf_add(arg, json, len);
	strbuf_puts(arg, "\n");
	return 0;
}

static int split(enum json_split_mode mode, const char *text, size_t len, size_t piece, struct strbuf *out)
{
	struct json_split_callbacks cb = {.item = collect, .rest = collect, .arg = out};
	struct json_split *s = json_split_new(mode, MAX_OBJECT, &cb);
	struct error err = {0};
	int r = 0;

	for (size_t at = 0; at < len && !r; at += piece) {
		size_t n = len - at < piece ? len - at : piece;
		char *copy = xmemdup(text + at, n);

		r = json_split_feed(s, copy, n, &err);
		free(copy);
	}
	if (!r)
		r = json_split_end(s, &err);
	if ((r != 0) != (err.code != 0))
		abort();
	json_split_free(s);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct strbuf whole = {0}, pieces = {0};
	enum json_split_mode mode;
	int a, b;

	if (!size)
		return 0;
	mode = data[0] & 1 ? JSON_SPLIT_WATCH : JSON_SPLIT_LIST;
	a = split(mode, (const char *)data + 1, size - 1, size, &whole);
	b = split(mode, (const char *)data + 1, size - 1, 1 + (data[0] >> 1) % 16, &pieces);
	/* In pieces the ceiling may be met before the byte that is no JSON. */
	if ((a != 0) != (b != 0) || (a != b && a != -EMSGSIZE && b != -EMSGSIZE))
		abort();
	if (whole.len != pieces.len || (whole.len && memcmp(whole.data, pieces.data, whole.len)))
		abort();
	strbuf_done(&whole);
	strbuf_done(&pieces);
	return 0;
}
