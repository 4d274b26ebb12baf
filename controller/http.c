/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/http.h"

#include "base/addr.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define HEADERS_MAX 8192
#define BODY_MAX 1024 /* read and thrown away, so that its sender gets the 405 */
#define TIMEOUT 10    /* seconds */

struct http_server {
	struct evhttp *http;
	http_handler handler;
	void *arg;
	unsigned port;
	/* References to the open connections' buffers, oldest first. */
	struct bufferevent *open[HTTP_CONNECTIONS_MAX];
	size_t n_open;
};

/* bufferevent_free() takes the callbacks away from one that somebody else still holds. */
static bool is_closed(struct bufferevent *bev)
{
	bufferevent_data_cb readcb, writecb;
	bufferevent_event_cb eventcb;
	void *arg;

	bufferevent_getcb(bev, &readcb, &writecb, &eventcb, &arg);
	return !readcb && !writecb && !eventcb;
}

static void sweep(struct http_server *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->n_open; i++) {
		if (is_closed(s->open[i]))
			bufferevent_decref(s->open[i]);
		else
			s->open[kept++] = s->open[i];
	}
	s->n_open = kept;
}

/* evhttp asks for the buffer of a new connection: the only moment at which one can be counted. */
static struct bufferevent *new_connection(struct event_base *base, void *arg)
{
	struct http_server *s = arg;
	struct bufferevent *bev = bufferevent_socket_new(base, -1, 0);

	if (!bev)
		return NULL;
	sweep(s);
	if (s->n_open == HTTP_CONNECTIONS_MAX) {
		/* evhttp reads the end of the stream and frees it. */
		shutdown(bufferevent_getfd(s->open[0]), SHUT_RDWR);
		bufferevent_decref(s->open[0]);
		memmove(s->open, s->open + 1, --s->n_open * sizeof(s->open[0]));
	}
	bufferevent_incref(bev);
	s->open[s->n_open++] = bev;
	return bev;
}

static void send_reply(struct evhttp_request *req, int code, const char *reason, const char *content_type,
	const struct strbuf *body)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
	struct evbuffer *out = evbuffer_new();
	char length[24];

	if (!out)
		abort();
	evhttp_add_header(headers, "Content-Type", content_type);
	evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
	if (evhttp_request_get_command(req) == EVHTTP_REQ_HEAD) {
		snprintf(length, sizeof(length), "%zu", body->len);
		evhttp_add_header(headers, "Content-Length", length);
	} else {
		evbuffer_add(out, body->data, body->len);
	}
	evhttp_send_reply(req, code, reason, out);
	evbuffer_free(out);
}

static void handle(struct evhttp_request *req, void *arg)
{
	enum evhttp_cmd_type command = evhttp_request_get_command(req);
	const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(req));
	const char *accept = evhttp_find_header(evhttp_request_get_input_headers(req), "Accept");
	struct http_reply reply = {.code = 200};
	struct http_server *s = arg;
	const char *reason = "OK";

	if (command != EVHTTP_REQ_GET && command != EVHTTP_REQ_HEAD) {
		evhttp_add_header(evhttp_request_get_output_headers(req), "Allow", "GET, HEAD");
		strbuf_puts(&reply.body, "only GET and HEAD\n");
		reply.code = 405;
		reason = "Method Not Allowed";
	} else if (!s->handler(s->arg, path && *path ? path : "/", accept ? accept : "", &reply)) {
		strbuf_clear(&reply.body);
		strbuf_puts(&reply.body, "no such page\n");
		reply.content_type = NULL;
		reply.code = 404;
		reason = "Not Found";
	} else if (reply.code == 503) {
		reason = "Service Unavailable";
	}
	send_reply(req, reply.code, reason,
		reply.content_type ? reply.content_type : "text/plain; charset=utf-8", &reply.body);
	strbuf_done(&reply.body);
}

union socket_address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static int open_socket(const char *host, unsigned port, unsigned *ret_port, struct error *err)
{
	union socket_address sa = {0};
	socklen_t len = sizeof(sa);
	int fd, one = 1, zero = 0, code;
	struct addr a = {0};
	char object[128];

	snprintf(object, sizeof(object), strchr(host, ':') ? "listen [%.60s]:%u" : "listen %.60s:%u", host,
		port);
	if (!*host)
		a.family = AF_INET6;
	else if (!addr_parse(!strcmp(host, "localhost") ? "127.0.0.1" : host, &a))
		return error_set(err, -EINVAL, object, "give an address", "is not an address");
	sa.any.sa_family = a.family;
	if (a.family == AF_INET) {
		memcpy(&sa.in.sin_addr, a.bytes, 4);
		sa.in.sin_port = htons((uint16_t)port);
	} else {
		memcpy(&sa.in6.sin6_addr, a.bytes, 16);
		sa.in6.sin6_port = htons((uint16_t)port);
	}
	fd = socket(a.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(err, -errno, object, NULL, "no socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (a.family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, &sa.any, a.family == AF_INET ? sizeof(sa.in) : sizeof(sa.in6)) < 0 ||
		listen(fd, 64) < 0 || getsockname(fd, &sa.any, &len) < 0) {
		code = -errno;
		close(fd);
		return error_set(err, code, object,
			code == -EADDRINUSE ? "end the other program, or set `listen` to another port"
					    : "set `listen` to an address of this node",
			code == -EADDRINUSE ? "the port is in use" : "cannot be listened on: %s",
			strerror(-code));
	}
	*ret_port = ntohs(a.family == AF_INET ? sa.in.sin_port : sa.in6.sin6_port);
	return fd;
}

int http_server_new(struct event_base *base, const char *host, unsigned port, http_handler handler, void *arg,
	struct http_server **ret, struct error *err)
{
	struct http_server *s = xcalloc(1, sizeof(*s));
	int fd;

	*ret = NULL;
	s->handler = handler;
	s->arg = arg;
	fd = open_socket(host, port, &s->port, err);
	if (fd < 0) {
		free(s);
		return fd;
	}
	s->http = evhttp_new(base);
	if (!s->http)
		abort();
	evhttp_set_allowed_methods(s->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST |
						    EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS |
						    EVHTTP_REQ_TRACE | EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH);
	evhttp_set_max_headers_size(s->http, HEADERS_MAX);
	evhttp_set_max_body_size(s->http, BODY_MAX);
	evhttp_set_timeout(s->http, TIMEOUT);
	evhttp_set_bevcb(s->http, new_connection, s);
	evhttp_set_gencb(s->http, handle, s);
	if (!evhttp_accept_socket_with_handle(s->http, fd))
		abort();
	*ret = s;
	return 0;
}

unsigned http_server_port(const struct http_server *s)
{
	return s->port;
}

void http_server_free(struct http_server *s)
{
	if (!s)
		return;
	evhttp_free(s->http); /* and the socket */
	for (size_t i = 0; i < s->n_open; i++)
		bufferevent_decref(s->open[i]);
	free(s);
}
