/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BASE_YAMLDOC_H
#define BASE_YAMLDOC_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * yamldoc: a YAML document as a tree of nodes that know their line, read with libyaml.
 *
 * For files that people write (configuration, kubeconfig, manifests): the reader needs lines for its errors and must see
 * duplicate keys, which are an error here (YAML 1.2, 3.2.1.3). Anchors and aliases are resolved; a document that expands
 * to more than a million nodes is refused, and so are merge keys (<<, not in YAML 1.2) and tags outside of the core schema.
 * JSON is a subset and is read as well.
 *
 * Ownership: the document owns all nodes and texts; they are valid until yamldoc_free().
 */
enum yaml_kind { YAML_SCALAR, YAML_MAPPING, YAML_SEQUENCE };

struct yaml_node {
	enum yaml_kind kind;
	unsigned line;    /* from 1 */
	bool quoted;      /* scalar in quotes or a block: a string whatever it looks like */
	const char *text; /* scalar: its value, NUL-terminated */
	size_t n;         /* mapping: pairs; sequence: items */
	struct yaml_pair *pairs;
	struct yaml_node **items;
};

struct yaml_pair {
	const char *key;
	unsigned line;
	struct yaml_node *value;
};

struct yaml_stream;

/*
 * Reads all documents of 'len' bytes at 'text'. 'file' names it in errors. On failure returns a negative errno (-EINVAL
 * for what YAML does not allow, with file:line) and '*ret' is NULL.
 */
int yamldoc_read(const char *file, const char *text, size_t len, struct yaml_stream **ret, struct error *err);
/* The same for a file; at most 64 MiB. */
int yamldoc_read_file(const char *path, struct yaml_stream **ret, struct error *err);
/* Documents in order; empty ones (only comments) are left out. */
size_t yamldoc_count(const struct yaml_stream *s);
const struct yaml_node *yamldoc_root(const struct yaml_stream *s, size_t i);
void yamldoc_free(struct yaml_stream *s);

/* A mapping's value of 'key', NULL when absent or 'map' is NULL or not a mapping. */
const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key);
/* The text of a scalar, NULL when 'node' is NULL or not a scalar. An unquoted null, ~ or nothing is NULL, too. */
const char *yaml_text(const struct yaml_node *node);

#endif
