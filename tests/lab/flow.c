/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * flow: traffic of the lab, TCP and UDP, with its content checked at both ends.
 *
 *   flow server ADDR PORT                          echo and sink, both protocols, until killed
 *   flow client rr N ADDR PORT                     N round trips of 64 bytes on one connection
 *   flow client crr N ADDR PORT                    N connections of one round trip each
 *   flow client send BYTES ADDR PORT               BYTES there and BYTES back, hashes compared at both ends
 *   flow client udp-rr N | udp-oneway N ADDR PORT  N datagrams, answered or not
 *   flow client hold | udp-hold ADDR PORT          connects, prints "open LOCALPORT"; then each line N on
 * standard input is N round trips on the same connection; ends at its end. hold also takes lines N BYTES, for
 * round trips of so many
 *   flow client steady | udp-steady MS ADDR PORT   the same, and a round trip every MS milliseconds by itself until
 * the end of standard input
 *   flow client udp-beat ADDR PORT                 connects, prints "open LOCALPORT"; then a datagram every 10 ms,
 * whoever answers, and for each line on standard input one that counts the answers since the last
 *
 * A client prints one line per run: "MODE COUNT SECONDS PER_SECOND"; steady also the longest time between two
 * answers. Exit status 0: all content was equal; 1 with the reason on standard error: no connection, no answer for
 * 3 s ($FLOW_WAIT), or other content.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 64
#define CHUNK 65536
#define WAIT_SECONDS 3

static void die(const char *what)
{
	fprintf(stderr, "flow: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t hash(uint64_t h, const uint8_t *p, size_t n)
{
	while (n--)
		h = (h ^ *p++) * 1099511628211u;
	return h;
}
#define HASH_START 14695981039346656037u

/* The byte stream of a direction: a function of the position, so that any piece can be checked. */
static void fill(uint8_t *p, uint64_t offset, size_t n, uint8_t salt)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t x = (offset + i) * 0x9e3779b97f4a7c15u;

		p[i] = (uint8_t)(x >> 56) ^ (uint8_t)(x >> 23) ^ salt;
	}
}

/* First message of a connection: what is to happen on it. */
struct hello {
	char mode; /* 'E' echo what follows; 'S' sink 'bytes', answer their hash, then send as many */
	char pad[7];
	uint64_t bytes; /* network order */
};

struct peer {
	int fd;
	struct hello hello;
	size_t got; /* bytes of hello */
	uint64_t left_in, sent, hash;
	uint8_t answer[sizeof(uint64_t)];
	size_t answered;
	uint8_t pending[CHUNK]; /* echo that did not fit */
	size_t n_pending;
};

static int listen_on(const char *host, const char *port, int type)
{
	struct addrinfo hints = {.ai_socktype = type, .ai_flags = AI_PASSIVE | AI_NUMERICHOST}, *ai;
	int fd, one = 1, zero = 0;

	if (getaddrinfo(host, port, &hints, &ai)) {
		fprintf(stderr, "flow: bad address %s port %s\n", host, port);
		exit(2);
	}
	fd = socket(ai->ai_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) || (type == SOCK_STREAM && listen(fd, 1024)))
		die("bind");
	freeaddrinfo(ai);
	return fd;
}

/* Moves a connection on; false: it is over. */
static bool serve(struct peer *p)
{
	uint8_t buf[CHUNK];
	ssize_t n;

	for (;;) {
		if (p->n_pending) {
			n = send(p->fd, p->pending, p->n_pending, MSG_NOSIGNAL);
			if (n < 0)
				return errno == EAGAIN;
			memmove(p->pending, p->pending + n, p->n_pending - (size_t)n);
			p->n_pending -= (size_t)n;
			continue;
		}
		if (p->got < sizeof(p->hello)) {
			n = recv(p->fd, (char *)&p->hello + p->got, sizeof(p->hello) - p->got, 0);
			if (n <= 0)
				return n < 0 && errno == EAGAIN;
			p->got += (size_t)n;
			if (p->got == sizeof(p->hello)) {
				p->hello.bytes = be64toh(p->hello.bytes);
				p->left_in = p->hello.bytes;
				p->hash = HASH_START;
			}
			continue;
		}
		if (p->hello.mode == 'S' && !p->left_in) {
			if (p->answered < sizeof(p->answer)) {
				uint64_t h = htobe64(p->hash);

				memcpy(p->answer, &h, sizeof(h));
				n = send(p->fd, p->answer + p->answered, sizeof(p->answer) - p->answered,
					MSG_NOSIGNAL);
				if (n < 0)
					return errno == EAGAIN;
				p->answered += (size_t)n;
				continue;
			}
			if (p->sent < p->hello.bytes) {
				size_t want = p->hello.bytes - p->sent < CHUNK
						      ? (size_t)(p->hello.bytes - p->sent)
						      : CHUNK;

				fill(buf, p->sent, want, 0x5a);
				n = send(p->fd, buf, want, MSG_NOSIGNAL);
				if (n < 0)
					return errno == EAGAIN;
				p->sent += (uint64_t)n;
				continue;
			}
		}
		n = recv(p->fd, buf, sizeof(buf), 0);
		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		if (p->hello.mode == 'S') {
			if ((uint64_t)n > p->left_in)
				return false;
			p->hash = hash(p->hash, buf, (size_t)n);
			p->left_in -= (uint64_t)n;
		} else {
			memcpy(p->pending, buf, (size_t)n);
			p->n_pending = (size_t)n;
		}
	}
}

static _Noreturn void server(const char *host, const char *port)
{
	int tcp = listen_on(host, port, SOCK_STREAM), udp = listen_on(host, port, SOCK_DGRAM);
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &tcp};

	epoll_ctl(ep, EPOLL_CTL_ADD, tcp, &ev);
	ev.data.ptr = &udp;
	epoll_ctl(ep, EPOLL_CTL_ADD, udp, &ev);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event evs[64];
		int n = epoll_wait(ep, evs, 64, -1);

		for (int i = 0; i < n; i++) {
			if (evs[i].data.ptr == &tcp) {
				int fd = accept4(tcp, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
				struct peer *p;

				if (fd < 0)
					continue;
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				p = calloc(1, sizeof(*p));
				if (!p)
					die("memory");
				p->fd = fd;
				ev.events = EPOLLIN | EPOLLOUT | EPOLLET;
				ev.data.ptr = p;
				epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
			} else if (evs[i].data.ptr == &udp) {
				struct sockaddr_storage from;
				socklen_t len = sizeof(from);
				uint8_t buf[2048];
				ssize_t m;

				while ((m = recvfrom(udp, buf, sizeof(buf), 0, (struct sockaddr *)&from,
						&len)) > 0)
					if (buf[0] != 'O')
						sendto(udp, buf, (size_t)m, 0, (struct sockaddr *)&from, len);
			} else {
				struct peer *p = evs[i].data.ptr;

				if (!serve(p)) {
					close(p->fd);
					free(p);
				}
			}
		}
	}
}

static int connect_to(const char *host, const char *port, int type)
{
	struct addrinfo hints = {.ai_socktype = type, .ai_flags = AI_NUMERICHOST}, *ai;
	struct timeval wait = {.tv_sec = WAIT_SECONDS};
	const char *patience = getenv("FLOW_WAIT");
	int fd, one = 1;

	if (patience)
		wait.tv_sec = strtol(patience, NULL, 10);

	if (getaddrinfo(host, port, &hints, &ai)) {
		fprintf(stderr, "flow: bad address %s port %s\n", host, port);
		exit(2);
	}
	fd = socket(ai->ai_family, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, ai->ai_addr, ai->ai_addrlen))
		die("connect");
	freeaddrinfo(ai);
	return fd;
}

static void all(int fd, void *buf, size_t n, bool out)
{
	uint8_t *p = buf;

	while (n) {
		ssize_t r = out ? send(fd, p, n, MSG_NOSIGNAL) : recv(fd, p, n, 0);

		if (r == 0) {
			errno = ECONNRESET;
			r = -1;
		}
		if (r < 0)
			die(out ? "send" : "no answer");
		p += r;
		n -= (size_t)r;
	}
}

static void greet(int fd, char mode, uint64_t bytes)
{
	struct hello h = {.mode = mode, .bytes = htobe64(bytes)};

	all(fd, &h, sizeof(h), true);
}

static uint64_t sequence;

static void round_trips(int fd, uint64_t n, size_t bytes)
{
	static uint8_t out[CHUNK], in[CHUNK];

	while (n--) {
		fill(out, sequence, bytes, 0x21);
		sequence += bytes;
		all(fd, out, bytes, true);
		all(fd, in, bytes, false);
		if (memcmp(in, out, bytes)) {
			errno = EBADMSG;
			die("answer differs");
		}
	}
}

/* Number 'n': a datagram that is answered by itself. */
static void datagram(uint8_t out[MESSAGE], uint64_t n)
{
	fill(out, n * MESSAGE, MESSAGE, 0x21);
	out[0] = 'E';
	memcpy(out + 1, &n, sizeof(n));
}

static void udp_round_trips(int fd, uint64_t n)
{
	uint8_t out[MESSAGE], in[MESSAGE];
	ssize_t r;

	while (n--) {
		datagram(out, sequence++);
		if (send(fd, out, sizeof(out), 0) < 0)
			die("send");
		r = recv(fd, in, sizeof(in), 0);
		if (r != sizeof(in)) {
			if (r >= 0)
				errno = EPROTO;
			die("no answer");
		}
		if (memcmp(in, out, sizeof(in))) {
			errno = EBADMSG;
			die("answer differs");
		}
	}
}

/* Takes an answer; 0 when there is none but an ICMP error. */
static unsigned take_answer(int fd)
{
	uint8_t in[MESSAGE], expect[MESSAGE];
	uint64_t n;

	if (recv(fd, in, sizeof(in), MSG_DONTWAIT) != sizeof(in))
		return 0;
	memcpy(&n, in + 1, sizeof(n));
	datagram(expect, n);
	if (n >= sequence || memcmp(in, expect, sizeof(in))) {
		errno = EBADMSG;
		die("answer differs");
	}
	return 1;
}

static void report(const char *mode, uint64_t n, double began);

static void beat(int fd)
{
	struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
	double next = now(), began = next;
	uint64_t answers = 0;
	uint8_t out[MESSAGE];
	char line[64];

	for (;;) {
		if (now() >= next) {
			datagram(out, sequence++);
			(void)send(fd, out, sizeof(out), 0); /* ECONNREFUSED is somebody's answer, too */
			next = now() + 0.01;
		}
		poll(fds, 2, 10);
		if (fds[1].revents)
			answers += take_answer(fd);
		if (!fds[0].revents)
			continue;
		if (read(STDIN_FILENO, line, sizeof(line)) <= 0)
			return;
		report("udp-beat", answers, began);
		answers = 0;
		began = now();
	}
}

static void report(const char *mode, uint64_t n, double began)
{
	double s = now() - began;

	printf("%s %llu %.6f %.1f\n", mode, (unsigned long long)n, s, s > 0 ? (double)n / s : 0);
	fflush(stdout);
}

static void transfer(int fd, uint64_t bytes)
{
	uint8_t buf[CHUNK], expect[CHUNK];
	uint64_t h = HASH_START, answer;

	greet(fd, 'S', bytes);
	for (uint64_t at = 0; at < bytes;) {
		size_t n = bytes - at < CHUNK ? (size_t)(bytes - at) : CHUNK;

		fill(buf, at, n, 0x21);
		h = hash(h, buf, n);
		all(fd, buf, n, true);
		at += n;
	}
	all(fd, &answer, sizeof(answer), false);
	if (be64toh(answer) != h) {
		errno = EBADMSG;
		die("hash at the server differs");
	}
	for (uint64_t at = 0; at < bytes;) {
		size_t n = bytes - at < CHUNK ? (size_t)(bytes - at) : CHUNK;

		all(fd, buf, n, false);
		fill(expect, at, n, 0x5a);
		if (memcmp(buf, expect, n)) {
			errno = EBADMSG;
			die("content at the client differs");
		}
		at += n;
	}
}

/* A round trip every 'ms' until the end of standard input; what a connection goes through meanwhile shows as the
 * longest time without an answer. */
static void steady(int fd, int ms, bool udp)
{
	struct pollfd end = {.fd = STDIN_FILENO, .events = POLLIN};
	double began = now(), last = began, longest = 0, t;
	unsigned long long n = 0;
	char byte;

	while (poll(&end, 1, ms) == 0 || read(STDIN_FILENO, &byte, 1) > 0) {
		if (udp)
			udp_round_trips(fd, 1);
		else
			round_trips(fd, 1, MESSAGE);
		t = now();
		if (n++ && t - last > longest)
			longest = t - last;
		last = t;
	}
	printf("steady %llu %.6f %.1f %.6f\n", n, last - began, (double)n / (last - began), longest);
}

/* Connects and says by which port. */
static int open_named(const char *host, const char *port, bool udp)
{
	struct sockaddr_in6 local;
	socklen_t len = sizeof(local);
	int fd = connect_to(host, port, udp ? SOCK_DGRAM : SOCK_STREAM);

	getsockname(fd, (struct sockaddr *)&local, &len);
	if (!udp)
		greet(fd, 'E', 0);
	printf("open %u\n", ntohs(local.sin6_port)); /* same place in sockaddr_in */
	fflush(stdout);
	return fd;
}

static int client(int argc, char **argv)
{
	const char *mode = argv[0];
	bool hold = !strcmp(mode, "hold"), udp_hold = !strcmp(mode, "udp-hold"),
	     beats = !strcmp(mode, "udp-beat");
	uint64_t n;
	double began;
	int fd;

	if (argc != (hold || udp_hold || beats ? 3 : 4))
		return 2;
	if (hold || udp_hold || beats) {
		char line[64];

		fd = open_named(argv[1], argv[2], !hold);
		if (beats)
			beat(fd);
		while (fgets(line, sizeof(line), stdin)) {
			char *bytes;

			n = strtoull(line, &bytes, 10);
			began = now();
			if (udp_hold)
				udp_round_trips(fd, n);
			else
				round_trips(fd, n,
					*bytes == ' ' ? strtoul(bytes, NULL, 10) % (CHUNK + 1) : MESSAGE);
			report(mode, n, began);
		}
		close(fd);
		return 0;
	}
	n = strtoull(argv[1], NULL, 10);
	began = now();
	if (!strcmp(mode, "steady") || !strcmp(mode, "udp-steady")) {
		fd = open_named(argv[2], argv[3], mode[0] == 'u');
		steady(fd, (int)n, mode[0] == 'u');
		close(fd);
		return 0;
	}
	if (!strcmp(mode, "rr")) {
		fd = connect_to(argv[2], argv[3], SOCK_STREAM);
		greet(fd, 'E', 0);
		round_trips(fd, n, MESSAGE);
		close(fd);
	} else if (!strcmp(mode, "crr")) {
		for (uint64_t i = 0; i < n; i++) {
			fd = connect_to(argv[2], argv[3], SOCK_STREAM);
			greet(fd, 'E', 0);
			round_trips(fd, 1, MESSAGE);
			close(fd);
		}
	} else if (!strcmp(mode, "send")) {
		fd = connect_to(argv[2], argv[3], SOCK_STREAM);
		transfer(fd, n);
		close(fd);
	} else if (!strcmp(mode, "udp-rr")) {
		fd = connect_to(argv[2], argv[3], SOCK_DGRAM);
		udp_round_trips(fd, n);
		close(fd);
	} else if (!strcmp(mode, "udp-oneway")) {
		uint8_t buf[MESSAGE] = "O";

		fd = connect_to(argv[2], argv[3], SOCK_DGRAM);
		for (uint64_t i = 0; i < n; i++)
			if (send(fd, buf, sizeof(buf), 0) < 0 && errno != ECONNREFUSED)
				die("send");
		close(fd);
	} else {
		return 2;
	}
	report(mode, n, began);
	return 0;
}

int main(int argc, char **argv)
{
	int rc = 2;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 4 && !strcmp(argv[1], "server"))
		server(argv[2], argv[3]);
	if (argc >= 5 && !strcmp(argv[1], "client"))
		rc = client(argc - 2, argv + 2);
	if (rc == 2)
		fprintf(stderr, "usage: flow server ADDR PORT | flow client MODE [N] ADDR PORT\n");
	return rc;
}
