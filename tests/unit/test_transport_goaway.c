/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "transport_fixture.h"

/*
 * GOAWAY: kube-apiserver says it when it is told to shut down and, with --goaway-chance, at any time to spread
 * its clients. What runs goes on, what comes next goes over a new connection, and nobody sees an error.
 */

static void a_watch_survives(void **state)
{
	struct answer answers[] = {WATCH("GET /watch "), ANSWER("GET /one ", "1")};
	struct fixture f = {0};
	struct call watch = {0};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	get(&f, &watch, "/watch");
	assert_true(RUN_UNTIL(&f, 5000, watch.body.len));
	tls_server_goaway(&f.tls);
	for (int i = 0; i < 3; i++)
		assert_string_equal(fetch(&f, "/one"), "200 1");
	assert_false(watch.done);
	assert_int_equal(f.tls.connections, 2);
	assert_int_equal(tls_server_open(&f.tls), 2);
	/* Its end is a clean one, and closes the old connection. */
	for (size_t i = f.api.n_open; i > 0; i--)
		shutdown(bufferevent_getfd(f.api.open[i - 1]->b), SHUT_WR);
	assert_true(RUN_UNTIL(&f, 5000, watch.done));
	assert_false(watch.result.failed);
	assert_true(RUN_UNTIL(&f, 5000, tls_server_open(&f.tls) == 1));
	strbuf_done(&watch.body);
	finish(&f);
}

/* GOAWAY comes before the answer to the second or third request; those beyond it were not looked at. */
static void requests_in_flight(void **state)
{
	struct answer answers[] = {WATCH("GET /watch "), ANSWER("GET /a ", "a"), ANSWER("GET /b ", "b"),
		{.match = "POST /c ", .times = -1, .status = "201 Created", .body = "c"}};

	(void)state;
	for (unsigned at = 1; at <= 4; at++) {
		for (int refuses = 0; refuses < 2; refuses++) {
			struct fixture f = {.tls.goaway_at = at, .tls.goaway_refuses = refuses};
			struct call c[4] = {0};

			/* A server that refuses each first request is none. */
			if (at == 1 && refuses)
				continue;
			servers(&f, answers, ARRAY_SIZE(answers));
			client(&f);
			get(&f, &c[0], "/watch");
			get(&f, &c[1], "/a");
			get(&f, &c[2], "/b");
			c[3].r = transport_post(f.t, "/c", "{}", 2, &callbacks, &c[3]);
			if (!RUN_UNTIL(&f, 5000, c[0].body.len && c[1].done && c[2].done && c[3].done))
				fail_msg("at %u, refuses %d: not all answered", at, refuses);
			for (int i = 0; i < 4; i++)
				if (c[i].result.failed)
					fail_msg("at %u, refuses %d: %d: %s", at, refuses, i,
						error_text(&c[i].result.error));
			assert_false(c[0].done);
			assert_string_equal(c[1].body.data, "a");
			assert_string_equal(c[2].body.data, "b");
			assert_string_equal(c[3].body.data, "c");
			transport_cancel(f.t, c[0].r);
			for (int i = 0; i < 4; i++)
				strbuf_done(&c[i].body);
			finish(&f);
		}
	}
}

/* --- what a real one sent --- */

struct replay {
	char *bytes; /* frames, in order; HPACK's state runs through them */
	size_t len;
	/* of the present connection */
	struct bufferevent *b;
	size_t at;
	unsigned opened; /* highest stream that the client has opened */
	bool preface;
	bool hold; /* before the frame that ends stream 1 */
	unsigned connections;
	struct evbuffer *in;
};

static unsigned be(const char *p, size_t n)
{
	unsigned v = 0;

	while (n--)
		v = v << 8 | (unsigned char)*p++;
	return v;
}

/* Sends the frames whose streams are open by now. */
static void replay_on(struct replay *p)
{
	while (p->len - p->at >= 9) {
		const char *frame = p->bytes + p->at;
		size_t len = 9 + be(frame, 3);
		unsigned stream = be(frame + 5, 4);

		assert_true(len <= p->len - p->at);
		if (frame[3] == 7) /* GOAWAY: with the last stream that it covers */
			stream = be(frame + 9, 4);
		if (stream > p->opened)
			return;
		if (p->hold && stream == 1 && frame[3] == 0 && frame[4] & 1)
			return;
		bufferevent_write(p->b, frame, len);
		p->at += len;
	}
}

static void replay_read(struct tls_server *s, struct bufferevent *b, void *arg)
{
	struct replay *p = arg;
	struct evbuffer *in = bufferevent_get_input(b);

	(void)s;
	if (b != p->b || p->connections != s->connections) {
		p->b = b;
		p->connections = s->connections;
		p->at = p->opened = 0;
		p->preface = false;
	}
	if (!p->preface && evbuffer_get_length(in) >= 24) {
		evbuffer_drain(in, 24);
		p->preface = true;
	}
	while (p->preface && evbuffer_get_length(in) >= 9) {
		char *head = (char *)evbuffer_pullup(in, 9);
		size_t len = 9 + be(head, 3);

		if (evbuffer_get_length(in) < len)
			return;
		if (head[3] == 1)
			p->opened = be(head + 5, 4);
		evbuffer_drain(in, len);
	}
	replay_on(p);
}

static void load(struct replay *p, const char *name)
{
	CLEANUP_FREE char *path = xasprintf("%s/unit/data/%s", TEST_DATA, name);
	FILE *file = fopen(path, "re");

	memset(p, 0, sizeof(*p));
	assert_non_null(file);
	p->bytes = xmalloc(1 << 18);
	p->len = fread(p->bytes, 1, 1 << 18, file);
	fclose(file);
}

/* A real server's bytes: a watch on stream 1, requests on 3, 5, ... 115, GOAWAY before the answer to the last;
 * the watch ended 8 s later. */
static void a_real_server_with_a_watch(void **state)
{
	struct fixture f = {0};
	struct call watch = {0};
	struct replay p;
	size_t before;

	(void)state;
	load(&p, "goaway-with-watch.bin");
	p.hold = true;
	f.tls.raw = replay_read;
	f.tls.raw_arg = &p;
	servers(&f, NULL, 0);
	client(&f);
	get(&f, &watch, "/watch");
	assert_true(RUN_UNTIL(&f, 5000, watch.body.len));
	for (int i = 0; i < 57; i++)
		assert_has(fetch(&f, "/one"), "200 {");
	assert_int_equal(f.tls.connections, 1);
	assert_false(watch.done);
	before = watch.body.len;
	assert_true(before > 20000);
	/* The watch's last frame. */
	p.hold = false;
	replay_on(&p);
	assert_true(RUN_UNTIL(&f, 5000, watch.done));
	assert_false(watch.result.failed);
	assert_int_equal(watch.body.len, before);
	/* And the next goes over a new connection, where the script starts anew. */
	p.hold = true;
	get(&f, &watch, "/watch");
	assert_true(RUN_UNTIL(&f, 5000, watch.body.len == before));
	assert_int_equal(f.tls.connections, 2);
	strbuf_done(&watch.body);
	free(p.bytes);
	finish(&f);
}

static void a_real_server_without_a_watch(void **state)
{
	struct fixture f = {0};
	struct replay p;

	(void)state;
	load(&p, "goaway.bin");
	f.tls.raw = replay_read;
	f.tls.raw_arg = &p;
	servers(&f, NULL, 0);
	client(&f);
	/* The 265th is the last that its GOAWAY covers. */
	for (int i = 0; i < 265; i++)
		assert_has(fetch(&f, "/one"), "200 {");
	assert_int_equal(f.tls.connections, 1);
	for (int i = 0; i < 35; i++)
		assert_has(fetch(&f, "/one"), "200 {");
	assert_int_equal(f.tls.connections, 2);
	free(p.bytes);
	finish(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_watch_survives),
		cmocka_unit_test(requests_in_flight),
		cmocka_unit_test(a_real_server_with_a_watch),
		cmocka_unit_test(a_real_server_without_a_watch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
