/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/transport.h"

#include "base/mem.h"
#include "k8s/credentials.h"

#include <curl/curl.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define CONNECT_LIMIT_MS 30000
#define MAX_STREAMS 32
#define RECEIVE_BUFFER 65536

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
	unsigned retry_after_s;
	struct curl_slist *headers;
	struct curl_slist *connect_to;
	struct transport_callbacks cb;
	void *arg;
	char problem[CURL_ERROR_SIZE];
};

struct watched_socket {
	struct event ev;
	curl_socket_t fd;
	struct transport *t;
};

struct transport {
	struct event_base *base;
	CURLM *multi;
	const struct kubeconfig *k;
	struct transport_owner owner;
	struct credentials credentials;
	bool token_refused;
	bool credentials_bad; /* told */
	bool busy;            /* inside curl or the handling of what it said */
	bool in_curl;
	enum protocol protocol;
	struct transport_request *requests; /* in order of their start */
	struct transport_request *probe;    /* goes alone: the protocol is not known */
	struct event timer;
	int *fds; /* open TCP sockets */
	size_t n_fds, cap_fds;
	uint64_t bytes_closed;
	unsigned connections;
	char *user_agent;
	char *connect_to; /* for tls-server-name, else NULL */
	char *url;        /* what paths are added to */
	char *host_header;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* --- sockets: options and counting --- */

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, 30},
		{IPPROTO_TCP, TCP_KEEPINTVL, 10},
		{IPPROTO_TCP, TCP_KEEPCNT, 3},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, 30000},
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
	return fd;
}

static uint64_t socket_bytes(int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 ? info.tcpi_bytes_received : 0;
}

static int close_socket(void *arg, curl_socket_t fd)
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

/* --- requests --- */

static void count_connections(struct transport_request *r)
{
	long n = 0;

	if (curl_easy_getinfo(r->easy, CURLINFO_NUM_CONNECTS, &n) == CURLE_OK && n > 0)
		r->t->connections += (unsigned)n;
}

/* Takes it from the list and frees it. */
static void request_free(struct transport *t, struct transport_request *r)
{
	struct transport_request **at = &t->requests;

	while (*at && *at != r)
		at = &(*at)->next;
	if (*at)
		*at = r->next;
	if (t->probe == r)
		t->probe = NULL;
	if (r->easy) {
		curl_multi_remove_handle(t->multi, r->easy);
		curl_easy_cleanup(r->easy);
	}
	curl_slist_free_all(r->headers);
	curl_slist_free_all(r->connect_to);
	free(r->path);
	free(r->body);
	free(r);
}

static void answered(struct transport_request *r)
{
	struct transport *t = r->t;
	long code = 0;
	long version = 0;

	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &code);
	if (code < 200)
		return;
	r->answered = true;
	count_connections(r);
	curl_easy_getinfo(r->easy, CURLINFO_HTTP_VERSION, &version);
	t->protocol = version >= CURL_HTTP_VERSION_2_0 ? PROTOCOL_HTTP2 : PROTOCOL_HTTP1;
	if (t->probe == r)
		t->probe = NULL;
	if (!r->cancelled)
		r->cb.headers(r->arg, (unsigned)code, r->retry_after_s);
}

/* One warning-value of a Warning header (RFC 7234, section 5.5: code agent "text" ["date"]) at 's', which may
 * be followed by a comma and more. Returns what follows, NULL where it is none. */
static const char *read_warning(struct transport_request *r, const char *s, const char *end)
{
	const struct transport_owner *owner = &r->t->owner;
	char text[512];
	bool is_299;
	size_t n = 0;

	while (s < end && (*s == ' ' || *s == ','))
		s++;
	if (end - s < 4 || s[3] != ' ')
		return NULL;
	is_299 = !memcmp(s, "299", 3);
	s = memchr(s + 4, ' ', (size_t)(end - s - 4));
	if (!s || end - s < 2 || s[1] != '"')
		return NULL;
	for (s += 2; s < end && *s != '"'; s++) {
		if (*s == '\\' && ++s == end)
			return NULL;
		if (n + 1 < sizeof(text))
			text[n++] = *s < ' ' || *s == '\x7f' ? '?' : *s;
	}
	if (s == end)
		return NULL;
	text[n] = '\0';
	if (is_299 && owner->warning && !r->cancelled)
		owner->warning(owner->arg, text);
	if (end - s > 2 && !memcmp(s, "\" \"", 3)) /* a date, with its own comma */
		s = memchr(s + 3, '"', (size_t)(end - s - 3));
	return s ? memchr(s, ',', (size_t)(end - s)) : NULL;
}

/* One header line with its end. An answer's lines start with HTTP/ and end with an empty one; 1xx and
 * trailers come, too. */
static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	static const char retry_after[] = "retry-after:";
	static const char warning[] = "warning:";
	struct transport_request *r = arg;
	size_t len = size * n;

	if (r->answered)
		return len;
	if (len >= 5 && !memcmp(line, "HTTP/", 5)) {
		r->retry_after_s = 0;
	} else if (len >= sizeof(retry_after) && !strncasecmp(line, retry_after, sizeof(retry_after) - 1)) {
		/* Seconds only; kube-apiserver never sends a date. */
		for (size_t i = sizeof(retry_after) - 1; i < len; i++) {
			if (line[i] >= '0' && line[i] <= '9' && r->retry_after_s < 1000000)
				r->retry_after_s = r->retry_after_s * 10 + (unsigned)(line[i] - '0');
			else if (line[i] != ' ')
				break;
		}
	} else if (len >= sizeof(warning) && !strncasecmp(line, warning, sizeof(warning) - 1)) {
		const char *at = line + sizeof(warning) - 1;

		while (at)
			at = read_warning(r, at, line + len);
	} else if (len <= 2 && (line[0] == '\r' || line[0] == '\n')) {
		answered(r);
	}
	return len;
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	struct transport_request *r = arg;

	if (!r->cancelled)
		r->cb.data(r->arg, data, size * n);
	return size * n;
}

static CURLcode set_blob(CURL *easy, CURLoption option, const struct credentials_item *item)
{
	struct curl_blob blob = {.data = item->data, .len = item->len, .flags = CURL_BLOB_COPY};

	return curl_easy_setopt(easy, option, &blob);
}

/* Contents, not file names, are given to curl: its cache of connections and CA stores then knows the old from
 * the new. */
static CURLcode set_tls(struct transport *t, CURL *easy)
{
	CURLcode rc = curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);

	if (t->credentials.ca.data && !rc) {
		rc = set_blob(easy, CURLOPT_CAINFO_BLOB, &t->credentials.ca);
		if (!rc) /* else the system's folder of CAs would be trusted as well */
			rc = curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	}
	if (t->credentials.cert.data && t->credentials.key.data && !rc) {
		rc = set_blob(easy, CURLOPT_SSLCERT_BLOB, &t->credentials.cert);
		if (!rc)
			rc = set_blob(easy, CURLOPT_SSLKEY_BLOB, &t->credentials.key);
	}
	if (t->k->insecure && !rc) {
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	return rc;
}

static CURLcode add_header(struct transport_request *r, const char *line)
{
	struct curl_slist *longer = curl_slist_append(r->headers, line);

	if (!longer)
		return CURLE_OUT_OF_MEMORY;
	r->headers = longer;
	return CURLE_OK;
}

static CURLcode set_headers(struct transport *t, struct transport_request *r)
{
	CURLcode rc = add_header(r, "Accept: application/json");

	if (r->body && !rc)
		rc = add_header(r, r->patch ? "Content-Type: application/merge-patch+json"
					    : "Content-Type: application/json");
	if (t->host_header && !rc)
		rc = add_header(r, t->host_header);
	if (t->credentials.token.data && !rc) {
		CLEANUP_FREE char *line = xasprintf("Authorization: Bearer %s", t->credentials.token.data);

		rc = add_header(r, line);
		explicit_bzero(line, strlen(line));
	}
	return rc ? rc : curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers);
}

static CURLcode set_options(struct transport *t, struct transport_request *r)
{
	CLEANUP_FREE char *url = xasprintf("%s%s", t->url, r->path);
	CURL *easy = r->easy;
	CURLcode rc;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, r);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, r->problem);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, r);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, t);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, t);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_LIMIT_MS);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BUFFER);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, t->protocol == PROTOCOL_HTTP1 ? 0L : 1L);
	if (t->k->proxy_url && (rc = curl_easy_setopt(easy, CURLOPT_PROXY, t->k->proxy_url)))
		return rc;
	if (t->connect_to) {
		r->connect_to = curl_slist_append(NULL, t->connect_to);
		curl_easy_setopt(easy, CURLOPT_CONNECT_TO, r->connect_to);
	}
	if (r->body) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, r->body);
		if (r->patch)
			curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "PATCH");
	}
	if (r->gzip)
		curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "gzip");
	if ((rc = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https")) ||
		(rc = curl_easy_setopt(easy, CURLOPT_USERAGENT, t->user_agent)) ||
		(rc = curl_easy_setopt(easy, CURLOPT_URL, url)) || (rc = set_tls(t, easy)))
		return rc;
	return set_headers(t, r);
}

static void refresh(struct transport *t)
{
	struct error err = {0};
	int rc = credentials_refresh(&t->credentials, t->k, now_ms(), t->token_refused, &err);

	t->token_refused = false;
	if (rc && !t->credentials_bad && t->owner.trouble)
		t->owner.trouble(t->owner.arg, &err);
	t->credentials_bad = rc != 0;
}

static bool tls_failure(CURLcode code)
{
	switch (code) {
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_ENGINE_INITFAILED:
	case CURLE_SSL_ENGINE_NOTFOUND:
	case CURLE_SSL_ENGINE_SETFAILED:
		return true;
	default:
		return false;
	}
}

static const char *mend_for(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return "check the server's name, and this node's DNS";
	case CURLE_COULDNT_RESOLVE_PROXY:
		return "check proxy-url or the proxy variables of the environment";
	case CURLE_COULDNT_CONNECT:
	case CURLE_OPERATION_TIMEDOUT:
		return "check that the API server runs and that this is its address";
	case CURLE_PEER_FAILED_VERIFICATION:
		return "check certificate-authority, and that the certificate has the server's name (else "
		       "set "
		       "tls-server-name)";
	case CURLE_SSL_CACERT_BADFILE:
		return "check certificate-authority";
	case CURLE_SSL_CERTPROBLEM:
		return "check client-certificate and client-key, and that they belong together";
	case CURLE_SSL_CONNECT_ERROR:
		return "check that the address is that of a TLS server";
	default:
		return NULL;
	}
}

/* A server that goes away during the TLS handshake is no failure of TLS. */
static bool lost_in_handshake(const struct transport_request *r, CURLcode code)
{
	long error = 0;

	return code == CURLE_SSL_CONNECT_ERROR && r->easy &&
	       curl_easy_getinfo(r->easy, CURLINFO_OS_ERRNO, &error) == CURLE_OK && error;
}

/* In words that are the same each time: libcurl's own have milliseconds in them. */
static void say(const struct transport_request *r, CURLcode code, char *buf, size_t size)
{
	long error = 0;

	if (r->easy)
		curl_easy_getinfo(r->easy, CURLINFO_OS_ERRNO, &error);
	if ((code == CURLE_COULDNT_CONNECT || lost_in_handshake(r, code)) && error)
		snprintf(buf, size, "cannot connect: %s", strerror((int)error));
	else if (code == CURLE_OPERATION_TIMEDOUT)
		snprintf(buf, size, "cannot connect: no answer within %d s", CONNECT_LIMIT_MS / 1000);
	else
		snprintf(buf, size, "%s", r->problem[0] ? r->problem : curl_easy_strerror(code));
}

static void request_done(struct transport *t, struct transport_request *r, CURLcode code)
{
	struct transport_result result = {0};
	struct transport_callbacks cb = r->cb;
	void *arg = r->arg;
	long http = 0;

	if (r->easy)
		curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &http);
	if (r->easy && !r->answered)
		count_connections(r);
	result.http = r->answered ? (unsigned)http : 0;
	/* libcurl 7.88 takes a connection that ends among the header lines for an empty answer. */
	if (code == CURLE_OK && !r->answered)
		code = CURLE_GOT_NOTHING;
	if (code != CURLE_OK) {
		CLEANUP_FREE char *object = xasprintf("API server %s", t->k->server);
		char words[CURL_ERROR_SIZE];

		say(r, code, words, sizeof(words));
		result.failed = true;
		if (lost_in_handshake(r, code))
			code = CURLE_COULDNT_CONNECT;
		result.failure = tls_failure(code) ? SOURCE_FAILURE_TLS : SOURCE_FAILURE_CONNECT;
		error_set(&result.error, -EIO, object, mend_for(code), "%s", words);
		error_at(&result.error, t->k->server_where, 0);
	}
	request_free(t, r);
	cb.done(arg, &result);
}

static void start_one(struct transport *t, struct transport_request *r)
{
	CURLcode rc = CURLE_OUT_OF_MEMORY;

	refresh(t);
	r->easy = curl_easy_init();
	if (r->easy)
		rc = set_options(t, r);
	if (!rc && curl_multi_add_handle(t->multi, r->easy) != CURLM_OK)
		rc = CURLE_FAILED_INIT;
	if (rc)
		request_done(t, r, rc);
}

/* Starts what may be started. */
static void start_queued(struct transport *t)
{
	struct transport_request *r;

	for (;;) {
		if (!t->probe && !t->n_fds)
			t->protocol = PROTOCOL_UNKNOWN;
		if (t->probe && t->protocol == PROTOCOL_UNKNOWN)
			return;
		for (r = t->requests; r && r->easy; r = r->next)
			;
		if (!r)
			return;
		if (t->protocol == PROTOCOL_UNKNOWN)
			t->probe = r;
		start_one(t, r);
	}
}

/* After curl was given something to do: what it said, what callbacks asked for. */
static void settle(struct transport *t)
{
	struct transport_request *r, *next;
	CURLMsg *msg;
	int left;

	for (r = t->requests; r; r = next) {
		next = r->next;
		if (r->cancelled)
			request_free(t, r);
	}
	while ((msg = curl_multi_info_read(t->multi, &left))) {
		CURLcode code = msg->data.result;
		void *private = NULL;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &private);
		request_done(t, private, code);
	}
	start_queued(t);
	t->busy = false;
	if (t->owner.settled)
		t->owner.settled(t->owner.arg);
}

static void act(struct transport *t, curl_socket_t fd, int flags)
{
	int running;

	t->busy = t->in_curl = true;
	curl_multi_socket_action(t->multi, fd, flags, &running);
	t->in_curl = false;
	settle(t);
}

static void on_socket_event(evutil_socket_t fd, short events, void *arg)
{
	struct watched_socket *w = arg;

	act(w->t, fd, (events & EV_READ ? CURL_CSELECT_IN : 0) | (events & EV_WRITE ? CURL_CSELECT_OUT : 0));
}

static void on_timer(evutil_socket_t fd, short events, void *arg)
{
	(void)fd;
	(void)events;
	act(arg, CURL_SOCKET_TIMEOUT, 0);
}

/* CURLMOPT_SOCKETFUNCTION: curl wants to know about 'fd'. */
static int want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct transport *t = arg;
	struct watched_socket *w = socket_arg;
	short events = EV_PERSIST;

	(void)easy;
	if (w)
		event_del(&w->ev);
	if (what == CURL_POLL_REMOVE) {
		free(w);
		curl_multi_assign(t->multi, fd, NULL);
		return 0;
	}
	if (!w) {
		w = xcalloc(1, sizeof(*w));
		w->fd = fd;
		w->t = t;
		curl_multi_assign(t->multi, fd, w);
	}
	if (what & CURL_POLL_IN)
		events |= EV_READ;
	if (what & CURL_POLL_OUT)
		events |= EV_WRITE;
	event_assign(&w->ev, t->base, fd, events, on_socket_event, w);
	event_add(&w->ev, NULL);
	return 0;
}

static int want_timer(CURLM *multi, long ms, void *arg)
{
	struct transport *t = arg;
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	(void)multi;
	if (ms < 0)
		event_del(&t->timer);
	else
		event_add(&t->timer, &tv);
	return 0;
}

static struct transport_request *add_request(
	struct transport *t, const char *path, const struct transport_callbacks *cb, void *arg)
{
	struct transport_request *r = xcalloc(1, sizeof(*r));
	struct transport_request **at = &t->requests;

	r->t = t;
	r->path = xstrdup(path);
	r->cb = *cb;
	r->arg = arg;
	while (*at)
		at = &(*at)->next;
	*at = r;
	/* Started from the loop, so that no callback comes before the caller has its handle. */
	if (!t->busy)
		want_timer(t->multi, 0, t);
	return r;
}

struct transport_request *transport_get(
	struct transport *t, const char *path, bool gzip, const struct transport_callbacks *cb, void *arg)
{
	struct transport_request *r = add_request(t, path, cb, arg);

	r->gzip = gzip;
	return r;
}

struct transport_request *transport_post(struct transport *t, const char *path, const char *body, size_t len,
	const struct transport_callbacks *cb, void *arg)
{
	struct transport_request *r = add_request(t, path, cb, arg);

	r->body = xmemdup(body, len);
	r->body_len = len;
	return r;
}

struct transport_request *transport_patch(struct transport *t, const char *path, const char *body, size_t len,
	const struct transport_callbacks *cb, void *arg)
{
	struct transport_request *r = transport_post(t, path, body, len, cb, arg);

	r->patch = true;
	return r;
}

void transport_cancel(struct transport *t, struct transport_request *r)
{
	if (t->in_curl && r->easy)
		r->cancelled = true;
	else
		request_free(t, r);
}

void transport_token_refused(struct transport *t)
{
	t->token_refused = true;
}

/* --- life cycle --- */

static const char *machine(struct utsname *u)
{
	if (uname(u) < 0)
		return "unknown";
	if (!strcmp(u->machine, "x86_64"))
		return "amd64";
	if (!strcmp(u->machine, "aarch64"))
		return "arm64";
	return u->machine;
}

/* Checks the server's URL; for tls-server-name prepares a URL with that name, the address to connect to, and
 * the Host. */
static int set_url(struct transport *t, struct error *err)
{
	char *host = NULL, *port = NULL, *url = NULL;
	const char *name = t->k->tls_server_name;
	CURLU *u = curl_url();
	CURLUcode rc = u ? curl_url_set(u, CURLUPART_URL, t->k->server, 0) : CURLUE_OUT_OF_MEMORY;

	if (!rc)
		rc = curl_url_get(u, CURLUPART_HOST, &host, 0);
	if (!rc)
		rc = curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
	if (!rc && name) {
		rc = curl_url_set(u, CURLUPART_HOST, name, 0);
		if (!rc)
			rc = curl_url_get(u, CURLUPART_URL, &url, 0);
		if (!rc) {
			t->connect_to = xasprintf("%s:%s:%s:%s", name, port, host, port);
			t->host_header = xasprintf("Host: %s:%s", host, port);
			t->url = xstrdup(url);
			while (t->url[0] && t->url[strlen(t->url) - 1] == '/')
				t->url[strlen(t->url) - 1] = '\0';
		}
	} else if (!rc) {
		t->url = xstrdup(t->k->server);
	}
	if (rc) {
		CLEANUP_FREE char *object = xasprintf("API server %s", t->k->server);

		error_set(err, -EINVAL, object, "give the API server's https:// address",
			"not an address: %s", curl_url_strerror(rc));
		error_at(err, t->k->server_where, 0);
	}
	curl_free(host);
	curl_free(port);
	curl_free(url);
	curl_url_cleanup(u);
	return rc ? -EINVAL : 0;
}

int transport_new(struct event_base *base, const struct kubeconfig *k, const struct transport_owner *owner,
	struct transport **ret, struct error *err)
{
	struct transport *t = xcalloc(1, sizeof(*t));
	struct utsname u;
	int rc;

	*ret = NULL;
	/* TLS writes without MSG_NOSIGNAL. */
	signal(SIGPIPE, SIG_IGN);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	t->base = base;
	t->k = k;
	t->owner = *owner;
	evtimer_assign(&t->timer, base, on_timer, t);
	t->user_agent = xasprintf("slipstream/%s (linux/%s)", SLIPSTREAM_VERSION, machine(&u));
	rc = credentials_refresh(&t->credentials, k, now_ms(), false, err);
	if (!rc)
		rc = set_url(t, err);
	t->multi = rc ? NULL : curl_multi_init();
	if (!rc && !t->multi)
		rc = error_set(err, -ENOMEM, "libcurl", NULL, "cannot be initialised");
	if (rc) {
		transport_free(t);
		return rc;
	}
	curl_multi_setopt(t->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
	curl_multi_setopt(t->multi, CURLMOPT_SOCKETDATA, t);
	curl_multi_setopt(t->multi, CURLMOPT_TIMERFUNCTION, want_timer);
	curl_multi_setopt(t->multi, CURLMOPT_TIMERDATA, t);
	curl_multi_setopt(t->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
	curl_multi_setopt(t->multi, CURLMOPT_MAX_CONCURRENT_STREAMS, (long)MAX_STREAMS);
	*ret = t;
	return 0;
}

void transport_free(struct transport *t)
{
	if (!t)
		return;
	while (t->requests)
		request_free(t, t->requests);
	if (t->multi)
		curl_multi_cleanup(t->multi);
	event_del(&t->timer);
	credentials_done(&t->credentials);
	free(t->fds);
	free(t->user_agent);
	free(t->connect_to);
	free(t->host_header);
	free(t->url);
	free(t);
	curl_global_cleanup();
}
