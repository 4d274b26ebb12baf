/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_UNIT_API_SERVER_H
#define TESTS_UNIT_API_SERVER_H

#include "base/mem.h"
#include "base/strbuf.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/*
 * A scripted API server on 127.0.0.1, plain HTTP/1.1, on the test's own loop. An answer is sent to the
 * requests whose head (and body, when Content-Length says that there is one) contains 'match', 'times' times, the first
 * that fits; without one lists are empty, at version 10, and watches stay open and silent.
 */
struct answer {
	const char *match;
	const char *match_too; /* or NULL */
	int times;             /* negative: always */
	const char *status;    /* "200 OK"; NULL: closes without a word */
	const char *headers;   /* more of them, each with its \r\n, or NULL */
	const char *body;
	bool open;       /* leaves the connection open behind the body: a watch */
	size_t cut;      /* sends only so many bytes of head and body, then closes; 0: all */
	size_t pause;    /* sends so many bytes first, the others when the client has had time to read them */
	const char *raw; /* head and body as they are, instead of all that */
	size_t raw_len;
	/* Adds more of the body, some 10 KB, whenever the last has been sent; 'done' is what it has been called for
	 * so far. False: that was the end, and the connection is closed. */
	bool (*more)(struct evbuffer *out, unsigned done);
};

struct api_server;

struct api_conn {
	struct api_server *s;
	struct bufferevent *b;
	struct strbuf rest; /* behind a pause */
	struct event *timer;
	bool close; /* when all is sent */
	bool (*more)(struct evbuffer *out, unsigned done);
	unsigned done;
};

struct api_server {
	struct event_base *base;
	struct evconnlistener *listener;
	unsigned short port;
	struct answer *answers;
	size_t n_answers;
	struct strbuf log; /* all requests */
	unsigned requests;
	bool failed;     /* there were too many connections */
	unsigned closed; /* connections that the client has closed */
	struct api_conn *open[64];
	size_t n_open;
};

static inline void api_server_forget(struct api_conn *c)
{
	struct api_server *s = c->s;

	for (size_t i = 0; i < s->n_open; i++)
		if (s->open[i] == c)
			s->open[i--] = s->open[--s->n_open];
	bufferevent_free(c->b);
	if (c->timer)
		event_free(c->timer);
	strbuf_done(&c->rest);
	free(c);
}

static inline void api_server_event(struct bufferevent *b, short what, void *arg)
{
	struct api_conn *c = arg;

	(void)b;
	(void)what;
	c->s->closed++;
	api_server_forget(c);
}

/* All was sent. */
static inline void api_server_written(struct bufferevent *b, void *arg)
{
	struct api_conn *c = arg;

	if (c->more) {
		if (c->more(bufferevent_get_output(b), c->done++))
			return;
		c->more = NULL;
		c->close = true;
		if (evbuffer_get_length(bufferevent_get_output(b)))
			return;
	}
	if (c->close && !c->rest.len)
		shutdown(bufferevent_getfd(b), SHUT_WR);
}

static inline void api_server_go_on(evutil_socket_t fd, short events, void *arg)
{
	struct api_conn *c = arg;

	(void)fd;
	(void)events;
	bufferevent_write(c->b, c->rest.data, c->rest.len);
	strbuf_clear(&c->rest);
}

static inline const struct answer *api_server_find(struct api_server *s, const char *request)
{
	for (size_t i = 0; i < s->n_answers; i++) {
		struct answer *a = &s->answers[i];

		if (!a->times || !strstr(request, a->match) ||
			(a->match_too && !strstr(request, a->match_too)))
			continue;
		if (a->times > 0)
			a->times--;
		return a;
	}
	return NULL;
}

static inline void api_server_answer(struct api_conn *c, const struct answer *a)
{
	struct timeval later = {.tv_usec = 2000};
	struct strbuf out = {0};
	size_t len;

	if (a->raw) {
		strbuf_add(&out, a->raw, a->raw_len);
	} else {
		strbuf_printf(&out, "HTTP/1.1 %s\r\nContent-Type: application/json\r\n%s", a->status,
			a->headers ? a->headers : "");
		if (a->open || a->more)
			strbuf_puts(&out, "\r\n");
		else
			strbuf_printf(&out, "Content-Length: %zu\r\n\r\n", strlen(a->body));
		strbuf_puts(&out, a->body ? a->body : "");
	}
	len = a->cut && a->cut < out.len ? a->cut : out.len;
	c->close = a->cut != 0;
	c->more = a->more;
	c->done = 0;
	if (a->pause && a->pause < len) {
		strbuf_clear(&c->rest);
		strbuf_add(&c->rest, out.data + a->pause, len - a->pause);
		len = a->pause;
		if (!c->timer)
			c->timer = evtimer_new(c->s->base, api_server_go_on, c);
		event_add(c->timer, &later);
	}
	bufferevent_write(c->b, out.data, len);
	strbuf_done(&out);
}

/* Takes the first whole request out of 'in'; NULL when there is none yet. */
static inline char *api_server_request(struct evbuffer *in)
{
	struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
	size_t len = end.pos < 0 ? 0 : (size_t)end.pos + 4;
	CLEANUP_FREE char *head = xcalloc(1, len + 1);
	const char *length;
	char *request;

	evbuffer_copyout(in, head, len);
	length = strcasestr(head, "\r\nContent-Length:");
	if (length)
		len += strtoul(length + 17, NULL, 10);
	if (!len || evbuffer_get_length(in) < len)
		return NULL;
	request = xcalloc(1, len + 1);
	evbuffer_remove(in, request, len);
	return request;
}

static inline void api_server_read(struct bufferevent *b, void *arg)
{
	struct api_conn *c = arg;
	struct api_server *s = c->s;
	CLEANUP_FREE char *request = api_server_request(bufferevent_get_input(b));
	struct answer standard = {.status = "200 OK"};
	const struct answer *found;

	if (!request)
		return;
	s->requests++;
	strbuf_puts(&s->log, request);
	found = api_server_find(s, request);
	if (!found) {
		standard.open = strstr(request, "watch=true") != NULL;
		standard.body =
			strstr(request, "sendInitialEvents=true")
				? "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":"
				  "\"10\",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}}\n"
			: standard.open ? ""
					: "{\"kind\":\"List\",\"metadata\":{\"resourceVersion\":\"10\"},"
					  "\"items\":[]}";
		found = &standard;
	}
	if (found->status || found->raw)
		api_server_answer(c, found);
	else
		api_server_forget(c);
}

static inline void api_server_accept(
	struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *from, int len, void *arg)
{
	struct api_server *s = arg;
	struct api_conn *c;

	(void)l;
	(void)from;
	(void)len;
	if (s->n_open == ARRAY_SIZE(s->open)) {
		s->failed = true;
		evutil_closesocket(fd);
		return;
	}
	c = xcalloc(1, sizeof(*c));
	c->s = s;
	c->b = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
	s->open[s->n_open++] = c;
	bufferevent_setcb(c->b, api_server_read, api_server_written, api_server_event, c);
	bufferevent_enable(c->b, EV_READ | EV_WRITE);
}

/* 's->base' is set; port 0: any. False when the port cannot be had. */
static inline bool api_server_listen(struct api_server *s, unsigned short port)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);

	s->listener = evconnlistener_new_bind(s->base, api_server_accept, s,
		LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 16, (struct sockaddr *)&a,
		sizeof(a));
	if (!s->listener || getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&a, &len) < 0)
		return false;
	s->port = ntohs(a.sin_port);
	return true;
}

/* Away: nobody listens, all connections are cut. */
static inline void api_server_stop(struct api_server *s)
{
	if (s->listener)
		evconnlistener_free(s->listener);
	s->listener = NULL;
	while (s->n_open)
		api_server_forget(s->open[0]);
}

#endif
