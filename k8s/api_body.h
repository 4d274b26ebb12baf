/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_API_BODY_H
#define K8S_API_BODY_H

#include "base/error.h"
#include "k8s/api_error.h"
#include "k8s/reflector.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * api_body: the body of one LIST or WATCH answer, put into the replica object by object as the bytes come. For the
 * room's own files.
 *
 * Memory is one object. An object that is not what its schema says is named, and the version of it that was there
 * before stays, relist or not.
 */
struct api_body_owner {
	/* An event of a watch, put into the replica already. Not for ERROR events: those end the body. */
	void (*event)(void *arg, struct reflector_input *in);
	void (*bad_object)(void *arg, const struct error *err);
	void (*changed)(void *arg); /* the replica is not what it was */
	void *arg;
};

struct api_body_format {
	enum object_kind kind;
	bool endpoints; /* of OBJECT_ENDPOINT_SLICE: core/v1 Endpoints are what comes */
	bool watch;
};

struct api_body;

struct api_body *api_body_new(
	struct cluster *c, const struct api_body_format *format, const struct api_body_owner *owner);
void api_body_free(struct api_body *b);

/*
 * -ECANCELED: an ERROR event came, see api_body_error(); any other failure: not the JSON of such a body, or an object of
 * more than 8 MiB. Nothing more can be fed after a failure.
 */
int api_body_feed(struct api_body *b, const char *data, size_t len, struct error *err);
/* At the end of the body: -EPROTO when that was no end. */
int api_body_end(struct api_body *b, struct error *err);

/* Behind the end of a LIST: metadata.resourceVersion and metadata.continue, NULL when not given. Of the body. */
const char *api_body_version(const struct api_body *b);
const char *api_body_continue(const struct api_body *b);
/* After -ECANCELED: what the ERROR event said. */
const struct api_status *api_body_error(const struct api_body *b);

#endif
