/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_HTTP_H
#define CONTROLLER_HTTP_H

#include "base/error.h"
#include "base/strbuf.h"

#include <stdbool.h>

/*
 * http: a small server for probes, scrapes and status, on the caller's libevent loop.
 *
 * GET and HEAD only (else 405), no request body, headers of at most 8 KiB, HTTP_CONNECTIONS_MAX connections
 * (the oldest gives way), 10 s without progress end one.
 */
#define HTTP_CONNECTIONS_MAX 32

struct event_base;
struct http_server;

struct http_reply {
	int code;                 /* 200 when the handler leaves it alone */
	const char *content_type; /* static; text/plain when NULL */
	struct strbuf body;       /* freed by the server */
};

/* 'path' without query, 'accept' is the Accept header or "". Returns false for a path that it does not know.
 */
typedef bool (*http_handler)(void *arg, const char *path, const char *accept, struct http_reply *reply);

/* 'host' is an address, "" for all; port 0 takes any (tests). -EADDRINUSE and the like with the address as
 * object. */
int http_server_new(struct event_base *base, const char *host, unsigned port, http_handler handler, void *arg,
	struct http_server **ret, struct error *err);
unsigned http_server_port(const struct http_server *s);
void http_server_free(struct http_server *s);

#endif
