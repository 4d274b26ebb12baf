/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_API_ERROR_H
#define K8S_API_ERROR_H

#include "base/error.h"
#include "k8s/kubeconfig.h"
#include "k8s/source.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * api_error: what an API server means by refusing, read from its Status object and said in words that
 * name the resource and the mend. For the room's own files.
 */
struct api_status { /* meta/v1 Status */
	unsigned code;
	char reason[64];
	char message[400];
	bool version_too_large; /* details.causes has the reason ResourceVersionTooLarge */
	unsigned retry_after_s; /* details.retryAfterSeconds */
};

struct json_object;

/* Fills '*ret'; what is not there stays zero. A body that is no JSON object becomes the message. */
void api_status_read(struct json_object *json, struct api_status *ret);
void api_status_parse(const char *body, size_t len, struct api_status *ret);

/* The words for a status code (of HTTP, or of an ERROR event) on listing or watching 'kind', and its class.
 */
enum source_failure api_error(const struct kubeconfig *k, enum object_kind kind, bool watch, unsigned code,
	const struct api_status *status, struct error *err);

#endif
