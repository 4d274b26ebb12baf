/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/error.h"
#include "k8s/json_tree.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* What is taken as JSON is taken by json-c's tokener, too, and gives an equal tree. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool equal(struct json_object *a, struct json_object *b)
{
	enum json_type type = json_object_get_type(a);

	if (type != json_object_get_type(b))
		return false;
	switch (type) {
	case json_type_int: /* json-c keeps what lies above int64_t; whoever reads gets the same */
		return json_object_get_int64(a) == json_object_get_int64(b);
	case json_type_array:
		if (json_object_array_length(a) != json_object_array_length(b))
			return false;
		for (size_t i = 0; i < json_object_array_length(a); i++)
			if (!equal(json_object_array_get_idx(a, i), json_object_array_get_idx(b, i)))
				return false;
		return true;
	case json_type_object: {
		if (json_object_object_length(a) != json_object_object_length(b))
			return false;
		json_object_object_foreach(a, key, value)
		{
			struct json_object *other;

			if (!json_object_object_get_ex(b, key, &other) || !equal(value, other))
				return false;
		}
		return true;
	}
	default:
		return json_object_equal(a, b);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_object *ours, *theirs;
	struct json_tokener *t;
	struct error err = {0};
	char *text;

	if (json_tree_parse((const char *)data, size, &ours, &err)) {
		if (ours || err.code >= 0 || !err.what[0])
			abort();
		return 0;
	}
	/* A number at the end is complete for json-c when something follows: the NUL. */
	text = malloc(size + 1);
	if (!text)
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	t = json_tokener_new_ex(JSON_TREE_DEPTH + 1);
	json_tokener_set_flags(t, JSON_TOKENER_STRICT);
	theirs = json_tokener_parse_ex(t, text, (int)size + 1);
	if (json_tokener_get_error(t) != json_tokener_success || !equal(ours, theirs))
		abort();
	json_object_put(ours);
	json_object_put(theirs);
	json_tokener_free(t);
	free(text);
	return 0;
}
