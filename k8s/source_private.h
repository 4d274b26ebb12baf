/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_SOURCE_PRIVATE_H
#define K8S_SOURCE_PRIVATE_H

#include "k8s/source.h"

/*
 * source_private: what a kind of source (api_source.c, manifests.c) fills in.
 *
 * Each embeds `struct source` as its first member and sets 'ops'; source.c dispatches. For the room's own
 * files only.
 */
struct source_request {
	bool patch;
	const char *path, *body;
	size_t len;
};

struct source_ops {
	/* 'ret' comes zeroed. */
	void (*status)(const struct source *s, struct source_status *ret);
	/* Frees the whole source, its events and descriptors; never called with NULL. */
	void (*free)(struct source *s);
	/* As source_post() and source_patch(); NULL: nothing can be written. */
	int (*post)(struct source *s, const struct source_request *q, source_post_done *done, void *arg);
};

struct source {
	const struct source_ops *ops;
};

#endif
