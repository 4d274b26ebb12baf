/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/yamldoc.h"
#include "k8s/decode.h"
#include "k8s/yaml_json.h"

#include <json-c/json.h>
#include <stdint.h>
#include <stdlib.h>

/* YAML to nodes, to JSON, to an object: the way of a manifest. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The lines are 1 or above and inside of the text; the number of nodes is what was promised. */
static size_t walk(const struct yaml_node *n, unsigned lines)
{
	size_t count = 1;

	if (n->line < 1 || n->line > lines)
		abort();
	for (size_t i = 0; i < n->n; i++)
		count += n->kind == YAML_MAPPING ? 1 + walk(n->pairs[i].value, lines)
						 : walk(n->items[i], lines);
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct yaml_stream *s;
	struct error err = {0};
	unsigned lines = 2;

	if (yamldoc_read("f", (const char *)data, size, &s, &err)) {
		if (!err.code || !err.where[0])
			abort();
		return 0;
	}
	/* Every kind of break that YAML knows counts at most once per byte. */
	lines += (unsigned)size;
	for (size_t i = 0; i < yamldoc_count(s); i++) {
		const struct yaml_node *root = yamldoc_root(s, i);
		struct json_object *json;

		if (walk(root, lines) > 1000000)
			abort();
		json = yaml_to_json(root);
		for (int kind = 0; kind < OBJECT_KINDS; kind++) {
			struct object o;

			if (!decode_json(kind, json, &o, &err))
				object_done(&o);
		}
		json_object_put(json);
	}
	yamldoc_free(s);
	return 0;
}
