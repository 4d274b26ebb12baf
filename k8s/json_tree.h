/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_JSON_TREE_H
#define K8S_JSON_TREE_H

#include "base/error.h"

#include <stddef.h>

/*
 * json_tree: JSON text to json-c's tree and back, and adding to such a tree, where running out of memory ends the process
 * (base/mem.h).
 *
 * json-c's own tokener does not look at what its allocations return (json_tokener.c of 0.16, Debian 12's: strdup(),
 * json_object_object_add(), printbuf_memappend()): a member is lost, a string shortened, or a null pointer followed. A
 * Service that has lost its slipstream/exclude would be accelerated. tests/unit/test_faults.c fails every allocation.
 *
 * The text is one value of RFC 8259, with white space around it. Of members of one name the last one counts; half a
 * surrogate pair becomes U+FFFD; an integer beyond 64 bits becomes the nearest that fits; all of that as json-c and Go
 * have it. Refused: deeper than JSON_TREE_DEPTH, and a NUL in a member's name.
 */
#define JSON_TREE_DEPTH 64

struct json_object;

/* -EINVAL: "is not JSON: ..." in err->what; '*ret' is NULL then. A JSON null is NULL, too. The caller puts '*ret'. */
int json_tree_parse(const char *text, size_t len, struct json_object **ret, struct error *err);

/* A tree of what JSON can say as text, in one line; the caller frees it. */
char *json_tree_text(struct json_object *json);

/* json_object_object_add() and json_object_array_add() that do not fail: they take over 'value'. */
void json_tree_set(struct json_object *object, const char *key, struct json_object *value);
void json_tree_append(struct json_object *array, struct json_object *value);

#endif
