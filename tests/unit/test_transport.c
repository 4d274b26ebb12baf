/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "transport_fixture.h"

static void one_connection_for_all(void **state)
{
	struct answer answers[] = {ANSWER("GET /one ", "1"), WATCH("GET /watch "), ANSWER("GET /two ", "2")};
	struct fixture f = {0};
	struct call watch[2] = {0};
	struct call other[2] = {0};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	/* All at once: the first goes alone and tells the protocol. */
	get(&f, &watch[0], "/watch");
	get(&f, &watch[1], "/watch");
	get(&f, &other[0], "/one");
	get(&f, &other[1], "/two");
	assert_true(RUN_UNTIL(&f, 5000, other[0].done && other[1].done && watch[1].body.len));
	assert_string_equal(other[0].body.data, "1");
	assert_string_equal(other[1].body.data, "2");
	assert_string_equal(watch[0].body.data, "{}\n");
	assert_int_equal(f.tls.connections, 1);
	assert_int_equal(transport_connections(f.t), 1);
	assert_true(transport_bytes_received(f.t) > 100);
	assert_has(f.api.log.data, "user-agent: slipstream/");
	transport_cancel(f.t, watch[0].r);
	transport_cancel(f.t, watch[1].r);
	for (size_t i = 0; i < 2; i++) {
		strbuf_done(&watch[i].body);
		strbuf_done(&other[i].body);
	}
	finish(&f);
}

static void http1_works_too(void **state)
{
	struct answer answers[] = {WATCH("GET /watch "), ANSWER("GET /one ", "1")};
	struct fixture f = {.tls.http1 = true};
	struct call watch = {0};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	get(&f, &watch, "/watch");
	assert_string_equal(fetch(&f, "/one"), "200 1");
	assert_string_equal(watch.body.data, "{}\n");
	assert_int_equal(f.tls.connections, 2);
	/* A polite end of a body without a length is its end. */
	api_server_stop(&f.api);
	assert_true(RUN_UNTIL(&f, 5000, watch.done));
	assert_false(watch.result.failed);
	strbuf_done(&watch.body);
	finish(&f);
}

static void a_truncated_body_is_a_failure(void **state)
{
	struct answer answers[] = {
		{.match = "GET /", .times = -1, .status = "200 OK", .body = "0123456789", .cut = 80}};

	(void)state;
	for (int http1 = 0; http1 < 2; http1++) {
		struct fixture f = {.tls.http1 = http1};

		servers(&f, answers, ARRAY_SIZE(answers));
		client(&f);
		assert_has(fetch(&f, "/"), "CONNECT: ");
		finish(&f);
	}
}

static void warnings_of_the_server(void **state)
{
	struct answer answers[] = {{.match = "GET /",
		.times = -1,
		.status = "200 OK",
		.headers = "Warning: 299 - \"v1 Endpoints is deprecated in v1.33+\"\r\n"
			   "warning: 299 kube \"say \\\"one\\\"\" \"Wed, 21 Oct 2015 07:28:00 GMT\", 299 - "
			   "\"two\"\r\n"
			   "Warning: 110 - \"stale\", 299 - \"thr\tee\"\r\n"
			   "Warning: 299\r\nWarning: 299 -\r\nWarning: 299 - \"open\r\nWarning: \r\nWarning: "
			   "299 - \"\\\r\n",
		.body = "1"}};

	(void)state;
	for (int http1 = 0; http1 < 2; http1++) {
		struct fixture f = {.tls.http1 = http1};

		servers(&f, answers, ARRAY_SIZE(answers));
		client(&f);
		assert_string_equal(fetch(&f, "/"), "200 1");
		assert_string_equal(
			f.warnings.data, "v1 Endpoints is deprecated in v1.33+\nsay \"one\"\ntwo\nthr?ee\n");
		finish(&f);
	}
}

static void posts(void **state)
{
	struct answer answers[] = {{.match = "POST /events ",
		.match_too = "content-type: application/json",
		.times = -1,
		.status = "201 Created",
		.body = "made"}};
	struct fixture f = {0};
	struct call c = {0};
	char body[] = "{\"a\":1}";

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	c.r = transport_post(f.t, "/events", body, 7, &callbacks, &c);
	memset(body, 'x', sizeof(body) - 1);
	assert_true(RUN_UNTIL(&f, 5000, c.done));
	assert_int_equal(c.result.http, 201);
	assert_has(f.api.log.data, "content-length: 7");
	assert_string_equal(c.body.data, "made");
	strbuf_done(&c.body);
	finish(&f);
}

static void ipv6(void **state)
{
	struct answer answers[] = {ANSWER("GET /", "six")};
	struct fixture f = {.tls.ipv6 = true};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	assert_string_equal(fetch(&f, "/"), "200 six");
	assert_string_equal(f.tls.sni, "");
	finish(&f);
}

static void certificates_are_checked(void **state)
{
	struct tls_authority stranger;
	struct answer answers[] = {ANSWER("GET /", "1")};
	struct fixture f = {0};
	char *pem;

	(void)state;
	tls_authority_init(&stranger, "stranger");
	pem = tls_cert_text(stranger.cert);
	servers(&f, answers, ARRAY_SIZE(answers));
	trust(&f.k, pem);
	client(&f);
	assert_has(fetch(&f, "/"), "TLS: ");
	assert_has(fetch(&f, "/"), "certificate-authority");
	assert_int_equal(f.api.requests, 0);
	finish(&f);
	free(pem);
	tls_authority_done(&stranger);

	/* None given: the system's, which do not know this one. */
	memset(&f, 0, sizeof(f));
	servers(&f, answers, ARRAY_SIZE(answers));
	f.k.insecure = true;
	client(&f);
	f.k.insecure = false;
	assert_has(fetch(&f, "/"), "TLS: ");
	f.k.insecure = true;
	assert_string_equal(fetch(&f, "/"), "200 1");
	finish(&f);
}

static void names_are_checked(void **state)
{
	struct answer answers[] = {ANSWER("GET /", "1")};
	struct fixture f = {.tls.names = "DNS:api.example"};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	assert_has(fetch(&f, "/"), "TLS: ");
	assert_has(fetch(&f, "/"), "tls-server-name");
	finish(&f);

	f.tls.names = "DNS:api.example";
	servers(&f, answers, ARRAY_SIZE(answers));
	f.k.tls_server_name = xstrdup("api.example");
	client(&f);
	assert_string_equal(fetch(&f, "/?x"), "200 1");
	assert_string_equal(f.tls.sni, "api.example");
	assert_has(f.api.log.data, "host: 127.0.0.1:");
	finish(&f);
}

static void tls_1_2_at_least(void **state)
{
	struct answer answers[] = {ANSWER("GET /", "1")};
	struct fixture f = {.tls.max_version = TLS1_1_VERSION};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	assert_has(fetch(&f, "/"), "TLS: ");
	assert_int_equal(f.tls.connections, 0);
	assert_int_equal(f.tls.failures, 1);
	finish(&f);

	f.tls.max_version = TLS1_2_VERSION;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	assert_string_equal(fetch(&f, "/"), "200 1");
	finish(&f);
}

/* OpenSSL's defaults of a distribution would refuse TLS 1.1 by themselves. */
static void allow_old_tls(void)
{
	static const char text[] = "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n"
				   "[c]\nMinProtocol = TLSv1\nCipherString = DEFAULT:@SECLEVEL=0\n";
	char path[] = "/tmp/slipstream-openssl-XXXXXX";
	int fd = mkstemp(path);

	if (fd < 0 || write(fd, text, sizeof(text) - 1) < 0 || close(fd) < 0)
		abort();
	setenv("OPENSSL_CONF", path, 1);
	OPENSSL_init_ssl(0, NULL);
	SSL_CTX_free(SSL_CTX_new(TLS_method()));
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_connection_for_all),
		cmocka_unit_test(http1_works_too),
		cmocka_unit_test(a_truncated_body_is_a_failure),
		cmocka_unit_test(warnings_of_the_server),
		cmocka_unit_test(posts),
		cmocka_unit_test(ipv6),
		cmocka_unit_test(certificates_are_checked),
		cmocka_unit_test(names_are_checked),
		cmocka_unit_test(tls_1_2_at_least),
	};

	allow_old_tls();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
