/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_TRANSPORT_PRIVATE_H
#define K8S_TRANSPORT_PRIVATE_H

#include "k8s/credentials.h"
#include "k8s/transport.h"

#include <curl/curl.h>
#include <event2/event.h>
#include <event2/event_struct.h>

/*
 * What the transport's files share: transport.c (requests and the loop), transport_request.c (what curl is
 * told of one request, and how its failures are said), transport_socket.c (sockets, and when they are silent).
 */
#define TRANSPORT_CONNECT_LIMIT_MS 30000
#define TRANSPORT_SILENCE_MS 40000
#define TRANSPORT_ANSWER_MS 15000
/* Of a POST or PATCH, from its start to its end: kube-apiserver's --request-timeout. */
#define TRANSPORT_WRITE_LIMIT_MS 60000

enum protocol { PROTOCOL_UNKNOWN, PROTOCOL_HTTP1, PROTOCOL_HTTP2 };

struct transport_request {
	struct transport *t;
	struct transport_request *next;
	CURL *easy; /* NULL: queued */
	char *path;
	char *body; /* of a POST or PATCH, else NULL */
	size_t body_len;
	bool patch;
	bool gzip;
	bool cancelled; /* from a callback of curl: freed when curl has returned */
	bool answered;
	bool failing;
	unsigned retry_after_s;
	struct curl_slist *headers;
	struct curl_slist *connect_to;
	struct transport_callbacks cb;
	void *arg;
	char problem[CURL_ERROR_SIZE];
};

struct transport {
	struct event_base *base;
	CURLM *multi;
	const struct kubeconfig *k;
	struct transport_owner owner;
	struct credentials credentials;
	unsigned tls_generation;    /* of the credentials that the open connections were made with */
	struct exec_plugin *plugin; /* runs: requests wait */
	bool just_given;            /* by the plugin, within the call */
	bool token_refused;
	bool credentials_bad; /* told */
	bool busy;            /* inside curl or the handling of what it said */
	bool in_curl;
	enum protocol protocol;
	struct transport_request *requests; /* in order of their start */
	struct transport_request *probe;    /* goes alone: the protocol is not known */
	struct event timer;                 /* curl's */
	int *fds;                           /* open TCP sockets */
	size_t n_fds, cap_fds;
	uint64_t bytes_closed;
	unsigned connections;
	/* transport_socket.c */
	struct event tick;              /* while a socket is open */
	struct transport_request *ping; /* asked whether the server lives */
	uint64_t ping_at;
	unsigned silence_ms, answer_ms; /* TRANSPORT_SILENCE_MS and TRANSPORT_ANSWER_MS but in tests */
	unsigned write_ms;              /* TRANSPORT_WRITE_LIMIT_MS, likewise */
	/* transport_request.c */
	char *user_agent;
	char *connect_to; /* for tls-server-name, else NULL */
	char *url;        /* what paths are added to */
	char *host_header;
	bool direct; /* with connect_to: NO_PROXY covers the server */
};

uint64_t transport_now(void); /* ms, monotonic */
/* Credentials files that changed are read; when TLS is another one for it, all connections are cut. */
void transport_refresh(struct transport *t);

/* User agent and URL. Fails for a server URL that is none. */
int transport_request_init(struct transport *t, struct error *err);
/* What r->easy is to do, but for its callbacks. */
CURLcode transport_set_options(struct transport *t, struct transport_request *r);
/* What 'code' means for the caller of 'r'. */
void transport_explain(const struct transport_request *r, CURLcode code, struct transport_result *result);

void transport_socket_init(struct transport *t);
curl_socket_t transport_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a);
int transport_close_socket(void *arg, curl_socket_t fd);
/* Cuts all connections; their requests fail, from the loop. */
void transport_cut(struct transport *t);

#endif
