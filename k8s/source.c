/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/source_private.h"

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
