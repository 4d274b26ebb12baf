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
#include <string.h>

/*
 * A scripted API server on 127.0.0.1, plain HTTP/1.1, on the test's own loop. An answer is sent to the
 * requests whose head contains 'match', 'times' times, the first that fits; without one lists are empty, at
 * version 10, and watches stay open and silent.
 */
struct answer {
	const char *match;
	const char *match_too; /* or NULL */
	int times;             /* negative: always */
	const char *status;    /* "200 OK"; NULL: closes without a word */
	const char *headers;   /* more of them, each with its \r\n, or NULL */
	const char *body;
	bool open;  /* leaves the connection open behind the body: a watch */
	size_t cut; /* sends only so many bytes of head and body, then closes; 0: all */
};

struct api_server {
	struct event_base *base;
	struct evconnlistener *listener;
	unsigned short port;
	struct answer *answers;
	size_t n_answers;
	struct strbuf log; /* all heads */
	unsigned requests;
	bool failed;     /* an answer could not be sent */
	unsigned closed; /* connections that the client has closed */
	struct bufferevent *open[64];
	size_t n_open;
};

static inline void api_server_forget(struct api_server *s, struct bufferevent *b)
{
	for (size_t i = 0; i < s->n_open; i++)
		if (s->open[i] == b)
			s->open[i--] = s->open[--s->n_open];
	bufferevent_free(b);
}

static inline void api_server_event(struct bufferevent *b, short what, void *arg)
{
	struct api_server *s = arg;

	(void)what;
	s->closed++;
	api_server_forget(s, b);
}

static inline void api_server_read(struct bufferevent *b, void *arg)
{
	struct api_server *s = arg;
	struct evbuffer *in = bufferevent_get_input(b);
	struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
	const struct answer *found = NULL;
	struct answer standard = {.status = "200 OK"};
	CLEANUP_FREE char *head = NULL;
	struct strbuf out = {0};
	size_t len;

	if (end.pos < 0)
		return;
	head = xcalloc(1, (size_t)end.pos + 5);
	evbuffer_remove(in, head, (size_t)end.pos + 4);
	s->requests++;
	strbuf_puts(&s->log, head);
	for (size_t i = 0; i < s->n_answers && !found; i++) {
		struct answer *a = &s->answers[i];

		if (!a->times || !strstr(head, a->match) || (a->match_too && !strstr(head, a->match_too)))
			continue;
		if (a->times > 0)
			a->times--;
		found = a;
	}
	if (!found) {
		standard.open = strstr(head, "watch=true") != NULL;
		standard.body = standard.open ? ""
					      : "{\"kind\":\"List\",\"metadata\":{\"resourceVersion\":\"10\"}"
						",\"items\":[]}";
		found = &standard;
	}
	if (!found->status) {
		api_server_forget(s, b);
		return;
	}
	strbuf_printf(&out, "HTTP/1.1 %s\r\nContent-Type: application/json\r\n%s", found->status,
		found->headers ? found->headers : "");
	if (found->open)
		strbuf_puts(&out, "\r\n");
	else
		strbuf_printf(&out, "Content-Length: %zu\r\n\r\n", strlen(found->body));
	strbuf_puts(&out, found->body);
	len = found->cut && found->cut < out.len ? found->cut : out.len;
	/* Straight to the socket, whose buffer is larger than any answer here: it is all there before the
	 * end. */
	if (send(bufferevent_getfd(b), out.data, len, MSG_NOSIGNAL) != (ssize_t)len)
		s->failed = true;
	if (found->cut)
		shutdown(bufferevent_getfd(b), SHUT_WR);
	strbuf_done(&out);
}

static inline void api_server_accept(
	struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *from, int len, void *arg)
{
	struct api_server *s = arg;
	struct bufferevent *b = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);

	(void)l;
	(void)from;
	(void)len;
	if (s->n_open == ARRAY_SIZE(s->open)) {
		bufferevent_free(b);
		return;
	}
	s->open[s->n_open++] = b;
	bufferevent_setcb(b, api_server_read, NULL, api_server_event, s);
	bufferevent_enable(b, EV_READ | EV_WRITE);
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
		api_server_forget(s, s->open[0]);
}

#endif
