/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "controller/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
	struct event_base *base;
	struct http_server *server;
	unsigned calls;
	char accept[64];
};

static bool serve(void *arg, const char *path, const char *accept, struct http_reply *reply)
{
	struct world *w = arg;

	w->calls++;
	snprintf(w->accept, sizeof(w->accept), "%s", accept);
	strbuf_puts(&reply->body, "hello\n");
	if (!strcmp(path, "/sick"))
		reply->code = 503;
	return strcmp(path, "/nothing") != 0;
}

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));
	struct error err = {0};

	w->base = event_base_new();
	assert_int_equal(http_server_new(w->base, "127.0.0.1", 0, serve, w, &w->server, &err), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	http_server_free(w->server);
	event_base_free(w->base);
	free(w);
	return 0;
}

static int dial(struct world *w)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)http_server_port(w->server)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

/* Runs the loop until the other side closed 'fd' or nothing came for half a second. */
static size_t drain(struct world *w, int fd, char *buf, size_t size)
{
	size_t len = 0;
	ssize_t n;

	for (int i = 0; i < 50; i++) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		event_base_loop(w->base, EVLOOP_NONBLOCK);
		if (poll(&p, 1, 10) <= 0)
			continue;
		n = recv(fd, buf + len, size - 1 - len, 0);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	buf[len] = '\0';
	return len;
}

static char *ask(struct world *w, const char *request)
{
	static char buf[65536];
	int fd = dial(w);

	assert_true(send(fd, request, strlen(request), MSG_NOSIGNAL) >= 0);
	drain(w, fd, buf, sizeof(buf));
	close(fd);
	event_base_loop(w->base, EVLOOP_NONBLOCK);
	return buf;
}

static bool begins(const char *s, const char *with)
{
	return !strncmp(s, with, strlen(with));
}

static void test_get(void **state)
{
	struct world *w = *state;
	const char *answer =
		ask(w, "GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\nAccept: a/b\r\nConnection: close\r\n\r\n");

	assert_true(begins(answer, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(answer, "Content-Length: 6\r\n"));
	assert_non_null(strstr(answer, "\r\n\r\nhello\n"));
	assert_string_equal(w->accept, "a/b");
}

static void test_head(void **state)
{
	const char *answer = ask(*state, "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

	assert_true(begins(answer, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(answer, "Content-Length: 6\r\n"));
	assert_null(strstr(answer, "hello"));
}

static void test_codes(void **state)
{
	struct world *w = *state;

	assert_true(begins(
		ask(w, "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "HTTP/1.1 404 "));
	assert_true(begins(
		ask(w, "GET /sick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "HTTP/1.1 503 "));
	assert_int_equal(w->calls, 2);
}

static void test_other_methods(void **state)
{
	static const char *const methods[] = {"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"};
	struct world *w = *state;
	char request[256];

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		const char *answer;

		snprintf(request, sizeof(request),
			"%s / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
			methods[i]);
		answer = ask(w, request);
		assert_true(begins(answer, "HTTP/1.1 405 "));
		assert_non_null(strstr(answer, "Allow: GET, HEAD\r\n"));
	}
	assert_int_equal(w->calls, 0);
}

static void test_limits(void **state)
{
	struct world *w = *state;
	char *big = xcalloc(1, 40000);
	const char *answer;
	int n;

	/* Headers without end. */
	n = snprintf(big, 40000, "GET / HTTP/1.1\r\nHost: x\r\nX: ");
	memset(big + n, 'a', 30000);
	strcpy(big + n + 30000, "\r\nConnection: close\r\n\r\n");
	answer = ask(w, big);
	assert_false(begins(answer, "HTTP/1.1 200"));
	/* A body that is announced larger than any that is read. */
	answer = ask(
		w, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\nConnection: close\r\n\r\n");
	assert_true(begins(answer, "HTTP/1.1 413 "));
	assert_int_equal(w->calls, 0);
	free(big);
}

static void test_garbage(void **state)
{
	struct world *w = *state;

	ask(w, "\x16\x03\x01\x02\r\n\r\n");
	ask(w, "GET\r\n\r\n");
	ask(w, "GET http://[::1 HTTP/1.1\r\n\r\n");
	ask(w, "");
	assert_int_equal(w->calls, 0);
	assert_true(
		begins(ask(w, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "HTTP/1.1 200 "));
}

/* Connections that say nothing do not keep the others out, and are ended. */
static void test_many_connections(void **state)
{
	struct world *w = *state;
	int fds[HTTP_CONNECTIONS_MAX * 3];
	char buf[64];
	unsigned ended = 0;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = dial(w);
		event_base_loop(w->base, EVLOOP_NONBLOCK);
	}
	assert_true(
		begins(ask(w, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "HTTP/1.1 200 "));
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		ended += recv(fds[i], buf, sizeof(buf), MSG_DONTWAIT) == 0;
		close(fds[i]);
	}
	assert_in_range(
		ended, ARRAY_SIZE(fds) - HTTP_CONNECTIONS_MAX, ARRAY_SIZE(fds) - HTTP_CONNECTIONS_MAX + 2);
	for (int i = 0; i < 5; i++)
		event_base_loop(w->base, EVLOOP_NONBLOCK);
}

static void test_addresses(void **state)
{
	struct world *w = *state;
	struct http_server *other;
	struct error err = {0};

	assert_int_equal(
		http_server_new(w->base, "127.0.0.1", http_server_port(w->server), serve, w, &other, &err),
		-EADDRINUSE);
	assert_null(other);
	assert_non_null(strstr(error_text(&err), "listen 127.0.0.1:"));
	assert_non_null(strstr(error_text(&err), "in use"));
	assert_int_equal(http_server_new(w->base, "192.0.2.1", 0, serve, w, &other, &err), -EADDRNOTAVAIL);
	assert_int_equal(http_server_new(w->base, "nowhere", 0, serve, w, &other, &err), -EINVAL);
	if (http_server_new(w->base, "::1", 0, serve, w, &other, &err) == 0) {
		assert_true(http_server_port(other) > 0);
		http_server_free(other);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_get, setup, teardown),
		cmocka_unit_test_setup_teardown(test_head, setup, teardown),
		cmocka_unit_test_setup_teardown(test_codes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_methods, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_connections, setup, teardown),
		cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
