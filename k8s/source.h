/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_SOURCE_H
#define K8S_SOURCE_H

#include "base/error.h"
#include "k8s/cluster.h"

#include <stdint.h>

/*
 * source: what keeps a cluster replica equal to the truth, be it an API server or manifest files.
 *
 * A source lives on the caller's libevent loop, does all its work in callbacks of it and never blocks. It writes into the
 * replica and then calls 'changed'; several changes read in one go end in one call. The replica must outlive the source.
 *
 * Errors: constructors fail only for what no waiting mends (a kubeconfig that cannot be read, a path that does not exist).
 * Everything else (server away, 401, 403, an object that is not what the schema says) goes to 'problem' once per change of
 * the situation, is counted, and the source goes on trying; the replica keeps what it has.
 */
struct event_base;
struct source;

struct source_callbacks {
	void (*changed)(void *arg); /* the replica's generation or sync state moved */
	void (*problem)(void *arg, const struct error *err); /* for the log; rate-limited by the source */
	void *arg;
};

enum source_failure {                /* label values of slipstream_source_failures_total{reason} */
	SOURCE_FAILURE_CONNECT,      /* "connect": refused, unreachable, name not found, timeout */
	SOURCE_FAILURE_TLS,          /* "tls" */
	SOURCE_FAILURE_UNAUTHORIZED, /* "unauthorized": 401 */
	SOURCE_FAILURE_FORBIDDEN,    /* "forbidden": 403 */
	SOURCE_FAILURE_EXPIRED,      /* "expired": 410 */
	SOURCE_FAILURE_THROTTLED,    /* "throttled": 429 */
	SOURCE_FAILURE_SERVER,       /* "server": 5xx and other unexpected answers */
	SOURCE_FAILURE_OBJECT,       /* "object": one object that could not be decoded */
	SOURCE_FAILURE_FILE,         /* "file": manifest file unreadable */
	SOURCE_FAILURES
};
extern const char *const source_failure_names[SOURCE_FAILURES];

struct source_resource_status {
	bool watched;
	bool synced;
	uint64_t lists;        /* completed */
	uint64_t watch_starts; /* watch requests sent; restarts = starts - 1 */
	uint64_t events;       /* ADDED, MODIFIED, DELETED, BOOKMARK */
	double last_event;     /* Unix time in seconds of the last response byte, 0: never */
	char problem[512];     /* the present one as text, "" when healthy */
};

struct source_status {
	const char *kind;   /* "api" or "manifests" */
	char location[256]; /* server URL or path */
	struct source_resource_status resources[OBJECT_KINDS];
	uint64_t failures[SOURCE_FAILURES];
	uint64_t bytes_received;
	unsigned connections; /* TCP connections opened so far */
};

/* Zeroes 'ret' first. */
void source_status(const struct source *s, struct source_status *ret);
void source_free(struct source *s);

/*
 * Writes one object (JSON) to 'path' of the API server: POST creates it, PATCH merges into it (RFC 7396). One
 * at a time: -EBUSY while another is under way; -ENOTSUP for manifests. 'path' and 'body' are copied. 'done'
 * is called later and once, from the loop, but not after source_free(). Its 'http' is the answer's status (0:
 * there was none), 'err' is NULL when that is below 300.
 */
typedef void source_post_done(void *arg, unsigned http, const struct error *err);
int source_post(
	struct source *s, const char *path, const char *body, size_t len, source_post_done *done, void *arg);
int source_patch(
	struct source *s, const char *path, const char *body, size_t len, source_post_done *done, void *arg);

/* Manifests: a file or a folder (its *.yaml, *.yml, *.json), YAML or JSON, multi-document, kind List; watched by inotify. */
int manifest_source_new(struct event_base *base, struct cluster *cluster, const char *path,
	const struct source_callbacks *cb, struct source **ret, struct error *err);

/* Where endpoints come from. AUTO: EndpointSlices, or core/v1 Endpoints where the server has none. */
enum endpoints_mode { ENDPOINTS_AUTO, ENDPOINTS_SLICES, ENDPOINTS_ENDPOINTS, ENDPOINTS_OFF };

struct api_options {
	const char
		*kubeconfig; /* path; NULL: $KUBECONFIG, else in-cluster credentials, else ~/.kube/config */
	enum endpoints_mode endpoints;
	bool watchlist; /* WatchList instead of LIST, where the server can (k8s/reflector.h) */
};
int api_source_new(struct event_base *base, struct cluster *cluster, const struct api_options *options,
	const struct source_callbacks *cb, struct source **ret, struct error *err);

#endif
