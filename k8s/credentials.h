/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_CREDENTIALS_H
#define K8S_CREDENTIALS_H

#include "base/error.h"
#include "k8s/kubeconfig.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * credentials: the present contents of what a kubeconfig names as files, and what its exec plugin gave.
 *
 * Looked at when a request starts and with the transport's look for silence: a token file is read again when it was read more than a
 * minute ago (client-go's interval; the kubelet rotates at 80 % of a life of an hour) or after a 401;
 * certificates when stat(2) shows another file. What cannot be read keeps its last good contents. Secrets are
 * overwritten before their memory is given back.
 */
#define CREDENTIALS_TOKEN_MS 60000

struct credentials_item {
	char *data; /* NULL: none; NUL-terminated */
	size_t len;
	int64_t seen[4]; /* device, inode, size, mtime in ns of the file it was read from */
};

struct exec_credential;

struct credentials {
	struct credentials_item ca, cert, key, token;
	unsigned tls_generation; /* moves when one of ca, cert and key becomes another */
	uint64_t token_read;     /* ms */
	bool from_plugin;        /* there is an exec plugin's */
	int64_t expires;         /* of that, Unix time in seconds; 0: it does not say */
};

/*
 * Reads what has to be read at 'now' (milliseconds, monotonic); 'token_refused': the server said 401 since
 * the last call. Returns 0, or the first error while all the rest is still done; what failed keeps its last
 * contents. On a zeroed struct a failure means that there is nothing to work with. -EINVAL: not PEM, or a
 * token with characters that no header can have.
 */
int credentials_refresh(struct credentials *c, const struct kubeconfig *k, uint64_t now, bool token_refused,
	struct error *err);
/* Takes token, cert and key out of 'from'. */
void credentials_take(struct credentials *c, struct exec_credential *from);
/* Whether an exec plugin's are there and good at 'unix_now'. */
bool credentials_fresh(const struct credentials *c, int64_t unix_now);
void credentials_done(struct credentials *c);
/* Whether a header can have it: visible ASCII only. */
bool credentials_token_ok(const char *token, size_t len);

#endif
