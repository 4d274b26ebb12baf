/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/transport_private.h"

#include "base/mem.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The kernel's include/net/tcp_states.h; <netinet/tcp.h>, which has it, cannot stand beside <linux/tcp.h>. */
#define STATE_ESTABLISHED 1

static bool established(int fd, struct tcp_info *info)
{
	socklen_t len = sizeof(*info);

	memset(info, 0, sizeof(*info));
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len) == 0 &&
	       info->tcpi_state == STATE_ESTABLISHED;
}

static void tick_in(struct transport *t, uint64_t ms)
{
	struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

	event_add(&t->tick, &tv);
}

/*
 * A silent peer. With TCP_USER_TIMEOUT set the kernel gives up at the first keepalive timer after that time
 * that finds a probe unanswered (net/ipv4/tcp_timer.c, tcp_keepalive_timer()): 30 s after the last byte on an
 * idle connection; where something was sent before that, that time after it: 58 s at the worst.
 */
curl_socket_t transport_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, 25},
		{IPPROTO_TCP, TCP_KEEPINTVL, 5},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, 28000},
	};
	struct transport *t = arg;
	int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);

	(void)purpose;
	if (fd < 0)
		return CURL_SOCKET_BAD;
	/* Best effort: without them a dead peer is noticed later, by the reflector's deadlines. */
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		(void)setsockopt(
			fd, options[i].level, options[i].name, &options[i].value, sizeof(options[i].value));
	*VEC_ADD(t->fds, t->n_fds, t->cap_fds) = fd;
	if (!event_pending(&t->tick, EV_TIMEOUT, NULL))
		tick_in(t, t->silence_ms);
	return fd;
}

static uint64_t socket_bytes(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 ? info.tcpi_bytes_received : 0;
}

int transport_close_socket(void *arg, curl_socket_t fd)
{
	struct transport *t = arg;

	t->bytes_closed += socket_bytes(fd);
	for (size_t i = 0; i < t->n_fds; i++) {
		if (t->fds[i] == fd) {
			t->fds[i] = t->fds[--t->n_fds];
			break;
		}
	}
	return close(fd);
}

void transport_cut(struct transport *t)
{
	for (size_t i = 0; i < t->n_fds; i++)
		(void)shutdown(t->fds[i], SHUT_RDWR);
}

uint64_t transport_bytes_received(const struct transport *t)
{
	uint64_t sum = t->bytes_closed;

	for (size_t i = 0; i < t->n_fds; i++)
		sum += socket_bytes(t->fds[i]);
	return sum;
}

unsigned transport_connections(const struct transport *t)
{
	return t->connections;
}

/*
 * A peer whose kernel still acknowledges, behind a balancer or with its process stopped. client-go sends an
 * HTTP/2 PING after 30 s of silence; libcurl can send one but does not tell of its answer (and has no way to
 * send one on a multi handle), so that the smallest of requests is asked instead, after a longer silence:
 * bookmarks, which come once a minute for each watch, make it rare. Any answer will do. Over HTTP/1.1 it would
 * go over a connection of its own and prove nothing.
 */
static void ping_headers(void *arg, unsigned http, unsigned retry_after_s)
{
	(void)arg;
	(void)http;
	(void)retry_after_s;
}

static void ping_data(void *arg, const char *data, size_t len)
{
	(void)arg;
	(void)data;
	(void)len;
}

static void ping_done(void *arg, const struct transport_result *result)
{
	struct transport *t = arg;

	(void)result;
	t->ping = NULL;
	tick_in(t, t->silence_ms);
}

/* Looks for silence; returns when to look again. */
static uint64_t look(struct transport *t, uint64_t now)
{
	static const struct transport_callbacks callbacks = {ping_headers, ping_data, ping_done};
	uint64_t longest = 0;
	/* One that waits for an exec plugin was not asked. */
	bool asked = t->ping && t->ping->easy;
	struct tcp_info info;

	for (size_t i = 0; i < t->n_fds; i++) {
		if (!established(t->fds[i], &info))
			continue;
		if (asked && info.tcpi_last_data_recv >= now - t->ping_at)
			(void)shutdown(t->fds[i], SHUT_RDWR);
		else if (info.tcpi_last_data_recv > longest)
			longest = info.tcpi_last_data_recv;
	}
	if (t->ping) {
		transport_cancel(t, t->ping);
		t->ping = NULL;
		return t->silence_ms;
	}
	if (t->protocol != PROTOCOL_HTTP2)
		return t->silence_ms;
	/* Whoever is a little early would look again in a moment. */
	if (longest + t->silence_ms / 16 < t->silence_ms)
		return t->silence_ms - longest;
	t->ping_at = now;
	t->ping = transport_get(t, "/version", false, &callbacks, t);
	return t->answer_ms;
}

static void on_tick(evutil_socket_t fd, short events, void *arg)
{
	struct transport *t = arg;

	(void)fd;
	(void)events;
	if (!t->n_fds)
		return;
	transport_refresh(t);
	tick_in(t, look(t, transport_now()));
}

void transport_socket_init(struct transport *t)
{
	t->silence_ms = TRANSPORT_SILENCE_MS;
	t->answer_ms = TRANSPORT_ANSWER_MS;
	t->write_ms = TRANSPORT_WRITE_LIMIT_MS;
	evtimer_assign(&t->tick, t->base, on_tick, t);
}
