/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/source_private.h"

#include <errno.h>
#include <string.h>

const char *const source_failure_names[SOURCE_FAILURES] = {
	[SOURCE_FAILURE_CONNECT] = "connect",
	[SOURCE_FAILURE_TLS] = "tls",
	[SOURCE_FAILURE_UNAUTHORIZED] = "unauthorized",
	[SOURCE_FAILURE_FORBIDDEN] = "forbidden",
	[SOURCE_FAILURE_EXPIRED] = "expired",
	[SOURCE_FAILURE_THROTTLED] = "throttled",
	[SOURCE_FAILURE_SERVER] = "server",
	[SOURCE_FAILURE_OBJECT] = "object",
	[SOURCE_FAILURE_FILE] = "file",
};

void source_status(const struct source *s, struct source_status *ret)
{
	memset(ret, 0, sizeof(*ret));
	s->ops->status(s, ret);
}

void source_free(struct source *s)
{
	if (s)
		s->ops->free(s);
}

static int post(struct source *s, const struct source_request *q, source_post_done *done, void *arg)
{
	return s->ops->post ? s->ops->post(s, q, done, arg) : -ENOTSUP;
}

int source_post(
	struct source *s, const char *path, const char *body, size_t len, source_post_done *done, void *arg)
{
	return post(s, &(struct source_request){false, path, body, len}, done, arg);
}

int source_patch(
	struct source *s, const char *path, const char *body, size_t len, source_post_done *done, void *arg)
{
	return post(s, &(struct source_request){true, path, body, len}, done, arg);
}
