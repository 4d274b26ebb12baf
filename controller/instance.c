/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/instance.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NAME "slipstream"
#define NAME_SIZE 200
#define WAITERS_MAX 16
/* Between two tries that nothing but time can help: the holder is starting or ending, or does not keep the connection. */
#define AGAIN_SECONDS 1
#define ANSWER_MS 1000

struct waiter {
	struct instance *instance;
	struct event *event;
	int fd; /* -1: free */
};

struct instance {
	struct event_base *base;
	void (*changed)(void *arg);
	void *arg;
	char self[NAME_SIZE], holder[NAME_SIZE];
	bool held;
	int fd; /* held: it listens; else a connection to the holder, or -1 */
	struct event *event, *timer;
	time_t connected; /* monotonic */
	struct waiter waiters[WAITERS_MAX];
};

static socklen_t address(struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(ret->sun_path + 1, NAME, strlen(NAME)); /* behind a NUL: abstract */
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(NAME));
}

static time_t monotonic_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* Root, or the user that we are: everybody else has no business here. */
static bool is_agent(int fd, struct ucred *ret)
{
	socklen_t len = sizeof(*ret);

	*ret = (struct ucred){.uid = (uid_t)-1};
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &len) == 0 &&
	       (ret->uid == 0 || ret->uid == geteuid());
}

enum outcome { HELD, BUSY, LATER };

/*
 * HELD: '*ret_fd' listens. BUSY: '*ret_fd' is connected to the holder. LATER: the name is taken by somebody who does not
 * listen, or not yet. Negative errno: -EPERM when it is taken by no agent.
 */
static int try_once(int *ret_fd, struct ucred *ret_peer, struct error *err)
{
	struct sockaddr_un addr;
	socklen_t len = address(&addr);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), code;

	*ret_fd = -1;
	if (fd < 0)
		return error_set(err, -errno, "socket @" NAME, NULL, "cannot open it: %s", strerror(errno));
	if (bind(fd, (const void *)&addr, len) == 0 && listen(fd, 4 * WAITERS_MAX) == 0) {
		*ret_fd = fd;
		return HELD;
	}
	if (errno != EADDRINUSE) {
		code = error_set(err, -errno, "socket @" NAME, NULL, "cannot bind it: %s", strerror(errno));
		close(fd);
		return code;
	}
	if (connect(fd, (const void *)&addr, len) < 0) {
		close(fd);
		return LATER;
	}
	if (!is_agent(fd, ret_peer)) {
		close(fd);
		return error_set(err, -EPERM, "socket @" NAME, "end that process",
			"it is held by a process that is no agent (pid %d, user %u)", (int)ret_peer->pid,
			(unsigned)ret_peer->uid);
	}
	*ret_fd = fd;
	return BUSY;
}

/* What the holder says of itself; its pid is that of its own namespace, which only means something in the same. */
static bool read_holder(int fd, const struct ucred *peer, char ret[NAME_SIZE])
{
	char line[NAME_SIZE - 32];
	ssize_t n = recv(fd, line, sizeof(line) - 1, 0);

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	line[n] = '\0';
	line[strcspn(line, "\n")] = '\0';
	if (!*ret && peer->pid)
		snprintf(ret, NAME_SIZE, "%s, pid %d", line, (int)peer->pid);
	else if (!*ret)
		snprintf(ret, NAME_SIZE, "%s, in another container", line);
	return true;
}

static void waiter_done(struct waiter *w)
{
	if (w->fd < 0)
		return;
	event_free(w->event);
	close(w->fd);
	w->fd = -1;
}

static void on_waiter(evutil_socket_t fd, short what, void *arg)
{
	char ignored[64];

	(void)what;
	if (recv(fd, ignored, sizeof(ignored), 0) <= 0 && errno != EINTR)
		waiter_done(arg);
}

static struct event *add_event(struct event_base *base, int fd, event_callback_fn fn, void *arg)
{
	struct event *ev = event_new(base, fd, EV_READ | EV_PERSIST, fn, arg);

	if (!ev || event_add(ev, NULL) < 0)
		abort();
	return ev;
}

/* Those beyond the last place get an answer and an end. */
static void on_connection(evutil_socket_t listener, short what, void *arg)
{
	struct instance *i = arg;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred peer;

	(void)what;
	if (fd < 0)
		return;
	if (is_agent(fd, &peer) && send(fd, i->self, strlen(i->self), MSG_NOSIGNAL) > 0) {
		for (size_t k = 0; k < WAITERS_MAX; k++) {
			struct waiter *w = &i->waiters[k];

			if (w->fd >= 0)
				continue;
			*w = (struct waiter){.instance = i, .fd = fd};
			w->event = add_event(i->base, fd, on_waiter, w);
			return;
		}
	}
	close(fd);
}

static void take(struct instance *i);

static void again(struct instance *i)
{
	const struct timeval later = {.tv_sec = AGAIN_SECONDS};

	evtimer_add(i->timer, &later);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	struct instance *i = arg;

	(void)fd;
	(void)what;
	take(i);
	if (i->held)
		i->changed(i->arg);
}

static void disconnect(struct instance *i)
{
	if (i->event)
		event_free(i->event);
	if (i->fd >= 0)
		close(i->fd);
	i->event = NULL;
	i->fd = -1;
}

static void on_holder(evutil_socket_t fd, short what, void *arg)
{
	struct instance *i = arg;
	struct ucred peer;

	(void)what;
	if (is_agent(fd, &peer) && read_holder(fd, &peer, i->holder)) {
		i->changed(i->arg);
		return;
	}
	disconnect(i);
	if (monotonic_seconds() - i->connected <= AGAIN_SECONDS)
		again(i);
	else
		on_again(-1, 0, i);
}

/* Becomes the one, or waits for the one that is. Who cannot have the lock for any other reason works without it. */
static void take(struct instance *i)
{
	struct error err = {0};
	struct ucred peer;
	int code = try_once(&i->fd, &peer, &err);

	i->holder[0] = '\0';
	if (code < 0)
		log_warning("%s; going on without a lock against a second agent", error_text(&err));
	if (code == LATER)
		again(i);
	if (code == BUSY) {
		i->connected = monotonic_seconds();
		i->event = add_event(i->base, i->fd, on_holder, i);
	}
	i->held = code == HELD || code < 0;
	if (code == HELD)
		i->event = add_event(i->base, i->fd, on_connection, i);
}

struct instance *instance_new(
	struct event_base *base, const char *node, void (*changed)(void *arg), void *arg)
{
	struct instance *i = xcalloc(1, sizeof(*i));

	i->base = base;
	i->changed = changed;
	i->arg = arg;
	i->fd = -1;
	for (size_t k = 0; k < WAITERS_MAX; k++)
		i->waiters[k].fd = -1;
	snprintf(i->self, sizeof(i->self), "slipstream " SLIPSTREAM_VERSION ", node %.100s\n", node);
	i->timer = evtimer_new(base, on_again, i);
	if (!i->timer)
		abort();
	take(i);
	return i;
}

bool instance_held(const struct instance *i)
{
	return i->held;
}

const char *instance_holder(const struct instance *i)
{
	return i->holder;
}

void instance_free(struct instance *i)
{
	if (!i)
		return;
	for (size_t k = 0; k < WAITERS_MAX; k++)
		waiter_done(&i->waiters[k]);
	disconnect(i);
	event_free(i->timer);
	free(i);
}

int instance_take(const char *mend, struct error *err)
{
	char holder[NAME_SIZE] = "";
	struct ucred peer = {0};
	struct pollfd p;
	int fd, code = try_once(&fd, &peer, err);

	/* Held until the process ends, or by nobody who could object. */
	if (code == HELD || code == -EPERM)
		return 0;
	if (code < 0)
		return code;
	p = (struct pollfd){.fd = fd, .events = POLLIN};
	if (fd >= 0 && poll(&p, 1, ANSWER_MS) == 1)
		read_holder(fd, &peer, holder);
	if (fd >= 0)
		close(fd);
	return error_set(err, -EBUSY, NULL, mend, "an agent runs on this node: %s",
		*holder ? holder : "it does not say who it is");
}
