/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_TRANSPORT_H
#define K8S_TRANSPORT_H

#include "base/error.h"
#include "k8s/kubeconfig.h"
#include "k8s/source.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * transport: GET, POST and PATCH requests to one API server on libevent's loop, with libcurl's multi interface.
 *
 * One TCP connection carries everything where the server speaks HTTP/2. Because nobody knows that before
 * TLS's ALPN has said so, the first request after a start or a lost connection goes alone and the others wait
 * for its answer; after an HTTP/1.1 answer each request has a connection of its own.
 *
 * A silent peer is noticed within a minute: by the kernel's keepalive where its packets are lost, by a request
 * that it does not answer where its kernel still acknowledges (k8s/transport_socket.c; HTTP/2 only). That costs
 * one wake-up in 40 s. GOAWAY lets what runs go on; what it does not cover is sent again over a new connection.
 *
 * Certificates are checked unless the kubeconfig says otherwise, TLS is at least 1.2, redirects are not
 * followed. Credentials are looked at when a request starts and every 40 s: another CA, client certificate or
 * key cuts all connections, as what they let in is to be looked at anew; an exec plugin runs when there is no
 * credential, it has expired or was refused, and requests wait for it.
 */
struct event_base;
struct transport;
struct transport_request;

struct transport_result {
	unsigned http; /* status, 0: no answer */
	bool failed;   /* the transport failed, before or within the answer */
	enum source_failure
		failure;    /* when failed: CONNECT, TLS, or UNAUTHORIZED: the exec plugin gave none */
	struct error error; /* when failed: the words, with the server in 'where' */
};

struct transport_callbacks {
	/* The final status line and headers are there; 'retry_after_s' 0: none. */
	void (*headers)(void *arg, unsigned http, unsigned retry_after_s);
	/* Bytes of the body, decompressed. */
	void (*data)(void *arg, const char *data, size_t len);
	/* The request is over and its handle is gone. Not called after transport_cancel(). */
	void (*done)(void *arg, const struct transport_result *result);
};

/*
 * 'k' must outlive the transport. 'settled' is called (when not NULL) after everything that was there to be
 * read has been passed on; 'trouble' tells of credentials files that cannot be read any more (the last
 * contents stay in use); 'warning' (may be NULL) is called for every warning that an answer brings, before
 * its 'headers': "Warning: 299" (RFC 7234, section 5.5; kube-apiserver sends them for deprecated APIs) with
 * the quotes taken off and one line long. Fails for credentials that cannot be read at all and for a server
 * URL that is none.
 */
struct transport_owner {
	void (*settled)(void *arg);
	void (*trouble)(void *arg, const struct error *err);
	void (*warning)(void *arg, const char *text);
	void *arg;
};
int transport_new(struct event_base *base, const struct kubeconfig *k, const struct transport_owner *owner,
	struct transport **ret, struct error *err);
/* Cancels what is under way without a callback. */
void transport_free(struct transport *t);

/*
 * GET 'path' (with its query; the server's URL goes in front). May be called from any callback. The handle is
 * valid until 'done' or transport_cancel(). 'gzip': accept a compressed answer.
 */
struct transport_request *transport_get(
	struct transport *t, const char *path, bool gzip, const struct transport_callbacks *cb, void *arg);
/* POST of JSON to 'path', otherwise as transport_get(). 'body' is copied. */
struct transport_request *transport_post(struct transport *t, const char *path, const char *body, size_t len,
	const struct transport_callbacks *cb, void *arg);
/* The same as PATCH, a JSON merge patch (RFC 7396). */
struct transport_request *transport_patch(struct transport *t, const char *path, const char *body, size_t len,
	const struct transport_callbacks *cb, void *arg);
/* No more callbacks for it. May be called from any callback. */
void transport_cancel(struct transport *t, struct transport_request *r);
/* Reads the token again before the next request. */
void transport_token_refused(struct transport *t);

/* As the kernel counts them on the sockets, TLS and headers included (zero where it does not tell). */
uint64_t transport_bytes_received(const struct transport *t);
/* Connections that were established. */
unsigned transport_connections(const struct transport *t);

#endif
