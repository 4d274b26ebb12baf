/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_INSTANCE_H
#define CONTROLLER_INSTANCE_H

#include "base/error.h"

#include <event2/event.h>
#include <stdbool.h>

/*
 * instance: one agent per network namespace.
 *
 * An abstract UNIX socket is kept by the kernel per network namespace, which pods of the host's network share, and goes with
 * its process, however that ends. Who has it says to everybody who connects who it is, and keeps the connection. Who
 * waits holds such a connection, whose end wakes it up; nothing else does.
 *
 * Any process may take an abstract name. One of another user than root, or than the caller, is no agent: instance_new()
 * goes on without the lock then and says so.
 */
struct instance;

/* Tries to become the one. 'changed' is called when what the two functions below say has changed, never from within here. */
struct instance *instance_new(
	struct event_base *base, const char *node, void (*changed)(void *arg), void *arg);
/* Whether this process is the one. It stays so until instance_free(). */
bool instance_held(const struct instance *i);
/* Who is: "slipstream 0.1.0, node n1, pid 7"; "" when this process is, or nobody said. */
const char *instance_holder(const struct instance *i);
void instance_free(struct instance *i);

/*
 * The same without a loop: takes the lock until the process ends. -EBUSY: an agent has it, named in the error, whose mend
 * is 'mend'.
 */
int instance_take(const char *mend, struct error *err);

#endif
