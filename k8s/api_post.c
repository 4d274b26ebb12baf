/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/api_post.h"

#include "k8s/api_error.h"

#include <errno.h>
#include <string.h>

/* Of an answer that is an error. */
#define MAX_ERROR_BODY (64 << 10)

static void on_headers(void *arg, unsigned http, unsigned retry_after_s)
{
	struct api_post *p = arg;

	(void)retry_after_s;
	p->http = http;
}

static void on_data(void *arg, const char *data, size_t len)
{
	struct api_post *p = arg;

	/* The object as the server keeps it: nobody asks for it. */
	if (p->http >= 300 && p->body.len + len <= MAX_ERROR_BODY)
		strbuf_add(&p->body, data, len);
}

static void on_done(void *arg, const struct transport_result *result)
{
	struct api_post *p = arg;
	struct error err = {0};
	struct api_status status;

	p->request = NULL;
	if (!result->http) {
		err = result->error;
		if (!err.code)
			error_set(&err, -EIO, "API server", NULL, "no answer");
	} else if (result->http >= 300) {
		if (result->http == 401)
			transport_token_refused(p->transport);
		api_status_parse(p->body.data, p->body.len, &status);
		error_set(&err, -EREMOTEIO, NULL, NULL, "the API server answers %u%s%s", result->http,
			status.message[0] ? ": " : "", status.message);
	}
	p->done(p->arg, result->http, err.code ? &err : NULL);
}

int api_post_send(struct api_post *p, struct transport *t, const struct source_request *q,
	source_post_done *done, void *arg)
{
	static const struct transport_callbacks callbacks = {on_headers, on_data, on_done};

	if (p->request)
		return -EBUSY;
	p->transport = t;
	p->done = done;
	p->arg = arg;
	p->http = 0;
	strbuf_clear(&p->body);
	p->request = q->patch ? transport_patch(t, q->path, q->body, q->len, &callbacks, p)
			      : transport_post(t, q->path, q->body, q->len, &callbacks, p);
	return 0;
}

void api_post_free(struct api_post *p)
{
	strbuf_done(&p->body);
	memset(p, 0, sizeof(*p));
}
