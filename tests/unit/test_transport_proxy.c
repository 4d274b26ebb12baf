/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "transport_fixture.h"

/* A proxy that knows CONNECT alone. */
struct proxy {
	struct event_base *base;
	struct evconnlistener *listener;
	unsigned short port;
	unsigned connects;
	char asked[256]; /* the last request line */
	struct bufferevent *pairs[32][2];
	size_t n;
};

static void pass_on(struct bufferevent *b, void *arg)
{
	bufferevent_write_buffer(arg, bufferevent_get_input(b));
}

static void ask(struct bufferevent *b, void *arg)
{
	static const char yes[] = "HTTP/1.1 200 Connection established\r\n\r\n";
	struct proxy *p = arg;
	struct evbuffer *in = bufferevent_get_input(b);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
	struct bufferevent *to;
	char head[2048];
	int n;

	if (end.pos < 0)
		return;
	n = evbuffer_remove(in, head, (size_t)end.pos + 4);
	head[n] = '\0';
	snprintf(p->asked, sizeof(p->asked), "%.*s", (int)strcspn(head, "\r"), head);
	p->connects++;
	a.sin_port = htons((unsigned short)atoi(strchr(head, ':') + 1));
	to = bufferevent_socket_new(p->base, -1, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_socket_connect(to, (struct sockaddr *)&a, sizeof(a));
	bufferevent_setcb(to, pass_on, NULL, NULL, b);
	bufferevent_setcb(b, pass_on, NULL, NULL, to);
	bufferevent_enable(to, EV_READ | EV_WRITE);
	bufferevent_write(b, yes, sizeof(yes) - 1);
	for (size_t i = 0; i < p->n; i++)
		if (p->pairs[i][0] == b)
			p->pairs[i][1] = to;
}

static void proxy_accept(
	struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *from, int len, void *arg)
{
	struct proxy *p = arg;
	struct bufferevent *b = bufferevent_socket_new(p->base, fd, BEV_OPT_CLOSE_ON_FREE);

	(void)l;
	(void)from;
	(void)len;
	assert_true(p->n < ARRAY_SIZE(p->pairs));
	p->pairs[p->n++][0] = b;
	bufferevent_setcb(b, ask, NULL, NULL, p);
	bufferevent_enable(b, EV_READ | EV_WRITE);
}

static void proxy_start(struct proxy *p, struct event_base *base)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);

	memset(p, 0, sizeof(*p));
	p->base = base;
	p->listener = evconnlistener_new_bind(base, proxy_accept, p,
		LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 16, (struct sockaddr *)&a, sizeof(a));
	assert_non_null(p->listener);
	getsockname(evconnlistener_get_fd(p->listener), (struct sockaddr *)&a, &len);
	p->port = ntohs(a.sin_port);
}

static void proxy_stop(struct proxy *p)
{
	evconnlistener_free(p->listener);
	for (size_t i = 0; i < p->n; i++) {
		bufferevent_free(p->pairs[i][0]);
		if (p->pairs[i][1])
			bufferevent_free(p->pairs[i][1]);
	}
}

/* One request; returns how often the proxy was asked. */
static unsigned through(const char *proxy_url, const char *https_proxy, const char *no_proxy,
	const char *tls_name, char *asked)
{
	struct answer answers[] = {WATCH("GET /watch "), ANSWER("GET /", "1")};
	struct fixture f = {.tls.names = tls_name ? "DNS:api.example" : NULL};
	struct call watch = {0};
	struct proxy p;
	unsigned n;

	servers(&f, answers, ARRAY_SIZE(answers));
	proxy_start(&p, f.base);
	if (proxy_url)
		f.k.proxy_url = xasprintf("http://127.0.0.1:%u", p.port);
	if (https_proxy) {
		CLEANUP_FREE char *value = xasprintf("http://127.0.0.1:%u", p.port);

		setenv("HTTPS_PROXY", value, 1);
	}
	if (no_proxy)
		setenv("NO_PROXY", no_proxy, 1);
	if (tls_name)
		f.k.tls_server_name = xstrdup(tls_name);
	client(&f);
	/* HTTP/2 behind CONNECT, and one connection for all. */
	get(&f, &watch, "/watch");
	assert_string_equal(fetch(&f, "/"), "200 1");
	assert_string_equal(watch.body.data, "{}\n");
	assert_int_equal(f.tls.connections, 1);
	unsetenv("HTTPS_PROXY");
	unsetenv("NO_PROXY");
	n = p.connects;
	if (asked)
		snprintf(asked, 256, "%s", p.asked);
	transport_cancel(f.t, watch.r);
	strbuf_done(&watch.body);
	transport_free(f.t);
	f.t = NULL;
	proxy_stop(&p);
	finish(&f);
	return n;
}

static void proxy_of_the_kubeconfig(void **state)
{
	char asked[256];

	(void)state;
	assert_int_equal(through("x", NULL, NULL, NULL, asked), 1);
	assert_has(asked, "CONNECT 127.0.0.1:");
	/* It goes before the environment, whatever NO_PROXY says, as with client-go. */
	assert_int_equal(through("x", NULL, "127.0.0.0/8", NULL, NULL), 1);
	assert_int_equal(through("x", NULL, NULL, "api.example", asked), 1);
	assert_has(asked, "CONNECT 127.0.0.1:");
}

static void proxy_of_the_environment(void **state)
{
	(void)state;
	assert_int_equal(through(NULL, NULL, NULL, NULL, NULL), 0);
	assert_int_equal(through(NULL, "x", NULL, NULL, NULL), 1);
	assert_int_equal(through(NULL, "x", "10.0.0.0/8,.svc", NULL, NULL), 1);
	assert_int_equal(through(NULL, "x", "10.0.0.0/8,127.0.0.0/8,.svc", NULL, NULL), 0);
	assert_int_equal(through(NULL, "x", "10.0.0.0/8, 127.0.0.1", NULL, NULL), 0);
	assert_int_equal(through(NULL, "x", "*", NULL, NULL), 0);
	/* The address counts, not the name that its certificate has. */
	assert_int_equal(through(NULL, "x", "127.0.0.0/8", "api.example", NULL), 0);
	assert_int_equal(through(NULL, "x", "api.example", "api.example", NULL), 1);
}

int main(void)
{
	static const char *const names[] = {
		"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(proxy_of_the_kubeconfig),
		cmocka_unit_test(proxy_of_the_environment),
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unsetenv(names[i]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
