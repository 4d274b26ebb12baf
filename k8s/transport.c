/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/transport_private.h"

#include "base/mem.h"
#include "k8s/exec_plugin.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define MAX_STREAMS 32

struct watched_socket {
	struct event ev;
	curl_socket_t fd;
	struct transport *t;
};

uint64_t transport_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
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
	for (struct curl_slist *h = r->headers; h; h = h->next) /* one has the token */
		explicit_bzero(h->data, strlen(h->data));
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

void transport_refresh(struct transport *t)
{
	struct credentials *c = &t->credentials;
	struct error err = {0};
	int rc = credentials_refresh(c, t->k, transport_now(), t->token_refused, &err);

	/* An exec plugin is asked before the next request. */
	if (!t->k->exec.command)
		t->token_refused = false;
	if (rc && !t->credentials_bad && t->owner.trouble)
		t->owner.trouble(t->owner.arg, &err);
	t->credentials_bad = rc != 0;
	/* As client-go does: what was let in by a certificate, and whom an authority vouched for, is looked at
	 * anew. */
	if (c->tls_generation != t->tls_generation)
		transport_cut(t);
	t->tls_generation = c->tls_generation;
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
	if (code != CURLE_OK)
		transport_explain(r, code, &result);
	request_free(t, r);
	cb.done(arg, &result);
}

/* What waits fails, with 'err'; not what the callbacks ask for. */
static void fail_queued(struct transport *t, const struct error *err)
{
	struct transport_result result = {
		.failed = true, .failure = SOURCE_FAILURE_UNAUTHORIZED, .error = *err};
	struct transport_request **at = &t->requests;
	struct transport_request *waiting;

	while (*at && (*at)->easy)
		at = &(*at)->next;
	/* Queued ones are the last. */
	waiting = *at;
	for (struct transport_request *r = waiting; r; r = r->next)
		r->failing = true;
	while (waiting) {
		struct transport_callbacks cb = waiting->cb;
		void *arg = waiting->arg;

		request_free(t, waiting);
		cb.done(arg, &result);
		for (waiting = t->requests; waiting && !waiting->failing; waiting = waiting->next)
			;
	}
}

static void settle(struct transport *t);

static void plugin_done(void *arg, int rc, struct exec_credential *credential, const struct error *err)
{
	struct transport *t = arg;

	t->plugin = NULL;
	t->busy = true;
	if (rc)
		fail_queued(t, err);
	else
		credentials_take(&t->credentials, credential);
	/* Once, even if it has expired by this clock. */
	t->just_given = !rc;
	settle(t);
	t->just_given = false;
}

/* Whether requests may start. False: the exec plugin runs, or just failed to start. */
static bool have_credential(struct transport *t)
{
	struct error err = {0};

	if (!t->k->exec.command || t->just_given)
		return true;
	if (t->plugin)
		return false;
	if (!t->token_refused && credentials_fresh(&t->credentials, (int64_t)time(NULL)))
		return true;
	t->token_refused = false;
	if (exec_plugin_start(t->base, t->k, t->credentials.ca.data, EXEC_PLUGIN_LIMIT_MS, plugin_done, t,
		    &t->plugin, &err))
		fail_queued(t, &err);
	return false;
}

static void start_one(struct transport *t, struct transport_request *r)
{
	CURLcode rc = CURLE_OUT_OF_MEMORY;

	transport_refresh(t);
	r->easy = curl_easy_init();
	if (r->easy) {
		curl_easy_setopt(r->easy, CURLOPT_HEADERFUNCTION, on_header);
		curl_easy_setopt(r->easy, CURLOPT_HEADERDATA, r);
		curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, on_data);
		curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
		rc = transport_set_options(t, r);
	}
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
		if (!r || !have_credential(t))
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
	if (t->in_curl && r->easy) {
		r->cancelled = true;
		return;
	}
	request_free(t, r);
	/* Others may have waited for it; and curl, asked to forget it, may have put off their start. */
	if (!t->busy && t->requests)
		want_timer(t->multi, 0, t);
}

void transport_token_refused(struct transport *t)
{
	t->token_refused = true;
}

/* --- life cycle --- */

int transport_new(struct event_base *base, const struct kubeconfig *k, const struct transport_owner *owner,
	struct transport **ret, struct error *err)
{
	struct transport *t = xcalloc(1, sizeof(*t));
	int rc;

	*ret = NULL;
	/* TLS writes without MSG_NOSIGNAL. */
	signal(SIGPIPE, SIG_IGN);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	t->base = base;
	t->k = k;
	t->owner = *owner;
	evtimer_assign(&t->timer, base, on_timer, t);
	transport_socket_init(t);
	rc = credentials_refresh(&t->credentials, k, transport_now(), false, err);
	t->tls_generation = t->credentials.tls_generation;
	if (!rc)
		rc = transport_request_init(t, err);
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
	event_del(&t->tick);
	exec_plugin_free(t->plugin);
	credentials_done(&t->credentials);
	free(t->fds);
	free(t->user_agent);
	free(t->connect_to);
	free(t->host_header);
	free(t->url);
	free(t);
	curl_global_cleanup();
}
