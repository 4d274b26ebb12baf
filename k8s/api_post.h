/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_API_POST_H
#define K8S_API_POST_H

#include "base/strbuf.h"
#include "k8s/source_private.h"
#include "k8s/transport.h"

/*
 * api_post: the writing side of the API source, one request at a time. For the room's own files.
 *
 * Zeroed is idle. The transport must be freed first: that ends a request without a callback.
 */
struct api_post {
	struct transport *transport;
	struct transport_request *request; /* NULL: idle */
	source_post_done *done;
	void *arg;
	unsigned http;
	struct strbuf body; /* of an answer that is an error */
};

/* As source_post() and source_patch(). */
int api_post_send(struct api_post *p, struct transport *t, const struct source_request *q,
	source_post_done *done, void *arg);
void api_post_free(struct api_post *p);

#endif
