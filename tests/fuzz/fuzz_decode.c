/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/decode.h"

#include <stdint.h>
#include <stdlib.h>

/* First byte: kind. What decodes must be put, found, equal to itself, and deleted again. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum object_kind kind;
	struct object a, b;
	struct error err = {0};
	struct cluster *c;

	if (!size)
		return 0;
	kind = data[0] % OBJECT_KINDS;
	if (decode_object(kind, (const char *)data + 1, size - 1, &a, &err)) {
		if (!err.code || !err.what[0] || !err.object[0])
			abort();
		return 0;
	}
	if (decode_object(kind, (const char *)data + 1, size - 1, &b, &err))
		abort();
	c = cluster_new();
	if (!decode_put(c, &a) || cluster_count(c, kind) != 1)
		abort();
	if (kind == OBJECT_ENDPOINT_SLICE)
		(void)cluster_ready_endpoints(c, b.slice.namespace, b.slice.service);
	if (decode_put(c, &b) || cluster_generation(c) != 1)
		abort();
	cluster_free(c);
	return 0;
}
