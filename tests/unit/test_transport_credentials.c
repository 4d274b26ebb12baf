/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/exec_plugin.h"
#include "k8s/transport_private.h"
#include "text_file.h"
#include "transport_fixture.h"

#include <sys/stat.h>

static char folder[] = "/tmp/slipstream-transport-XXXXXX";

static char *file_path(const char *name)
{
	return xasprintf("%s/%s", folder, name);
}

static void write_file(const char *name, const char *text)
{
	CLEANUP_FREE char *path = file_path(name);

	text_file_write(path, text, 0700); /* plugins, too */
}

/* A server that goes on reading but no longer answers is noticed by the ping that it does not answer. */
static void a_silent_server_is_noticed(void **state)
{
	struct answer answers[] = {WATCH("GET /watch ")};
	struct fixture f = {0};
	struct call watch = {0};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	f.t->silence_ms = 200;
	f.t->answer_ms = 200;
	get(&f, &watch, "/watch");
	assert_true(RUN_UNTIL(&f, 5000, watch.body.len));
	/* The first tick was set before. */
	transport_cut(f.t);
	assert_true(RUN_UNTIL(&f, 5000, watch.done));
	event_del(&f.t->tick);
	get(&f, &watch, "/watch");
	/* One that answers pings lives. */
	assert_false(RUN_UNTIL(&f, 1500, watch.done));
	assert_int_equal(f.tls.connections, 2);
	assert_has(f.api.log.data, "GET /version ");
	tls_server_freeze(&f.tls);
	assert_true(RUN_UNTIL(&f, 2000, watch.done));
	assert_true(watch.result.failed);
	strbuf_done(&watch.body);
	finish(&f);
}

/* A server that takes a write and never answers it. */
static void a_write_has_a_limit(void **state)
{
	struct answer answers[] = {ANSWER("GET /", "1")};
	struct fixture f = {0};
	struct call write = {0};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	client(&f);
	assert_string_equal(fetch(&f, "/"), "200 1");
	tls_server_freeze(&f.tls);
	f.t->write_ms = 300;
	write.r = transport_post(f.t, "/events", "{}", 2, &callbacks, &write);
	assert_true(RUN_UNTIL(&f, 5000, write.done));
	assert_true(write.result.failed);
	assert_int_equal(write.result.http, 0);
	assert_int_equal(write.result.failure, SOURCE_FAILURE_CONNECT);
	assert_has(write.result.error.what, "no answer within");
	finish(&f);
}

static void tick_now(struct fixture *f)
{
	event_active(&f->t->tick, EV_TIMEOUT, 0);
}

/* Another authority in the file: old connections go, new ones trust it alone. */
static void another_ca(void **state)
{
	struct answer answers[] = {WATCH("GET /watch "), ANSWER("GET /one ", "1")};
	struct fixture f = {0};
	struct call watch = {0};
	struct tls_authority next;

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	write_file("ca.crt", f.tls.ca);
	f.k.ca.path = file_path("ca.crt");
	client(&f);
	get(&f, &watch, "/watch");
	assert_true(RUN_UNTIL(&f, 5000, watch.body.len));
	tls_authority_init(&next, "next");
	f.tls.authority = &next;
	tls_server_certificate(&f.tls);
	/* The same contents in another file are no change. */
	tick_now(&f);
	assert_false(RUN_UNTIL(&f, 100, watch.done));
	write_file("ca.crt", f.tls.ca);
	tick_now(&f);
	assert_true(RUN_UNTIL(&f, 5000, watch.done));
	assert_true(watch.result.failed);
	assert_string_equal(fetch(&f, "/one"), "200 1");
	assert_int_equal(f.tls.connections, 2);
	/* What is no PEM is told, and the last stays. */
	write_file("ca.crt", "soon\n");
	assert_string_equal(fetch(&f, "/one"), "200 1");
	assert_has(error_text(&f.trouble), "ca.crt");
	assert_int_equal(f.tls.connections, 2);
	strbuf_done(&watch.body);
	finish(&f);
	tls_authority_done(&next);
}

/* Certificate and key as files; another pair cuts what the old one has let in. */
static void another_client_certificate(void **state)
{
	struct answer answers[] = {WATCH("GET /watch "), ANSWER("GET /one ", "1")};
	struct fixture f = {0};
	struct tls_authority clients;
	struct call watch = {0};
	char *cert, *key;

	(void)state;
	tls_authority_init(&clients, "clients");
	f.tls.want_client_of = &clients;
	servers(&f, answers, ARRAY_SIZE(answers));
	for (int i = 0; i < 2; i++) {
		tls_issue(&clients, i ? "second" : "first", &cert, &key);
		write_file("tls.crt", cert);
		write_file("tls.key", key);
		free(cert);
		free(key);
		if (i) {
			tick_now(&f);
			assert_true(RUN_UNTIL(&f, 5000, watch.done));
		} else {
			f.k.cert.path = file_path("tls.crt");
			f.k.key.path = file_path("tls.key");
			client(&f);
		}
		get(&f, &watch, "/watch");
		assert_true(RUN_UNTIL(&f, 5000, watch.body.len));
		assert_string_equal(f.tls.client, i ? "second" : "first");
	}
	assert_int_equal(f.tls.connections, 2);
	strbuf_done(&watch.body);
	finish(&f);
	tls_authority_done(&clients);
}

/* --- exec plugins --- */

static void plugin(struct fixture *f, const char *script)
{
	CLEANUP_FREE char *text = xasprintf("#!/bin/sh\necho run >>%s/runs\n%s\n", folder, script);
	CLEANUP_FREE char *runs = file_path("runs");

	unlink(runs);
	write_file("plugin", text);
	if (f->k.exec.command)
		return;
	f->k.exec.command = file_path("plugin");
	f->k.exec.api_version = xstrdup("client.authentication.k8s.io/v1");
	f->k.exec.where = xstrdup("config:7");
}

static unsigned runs(void)
{
	CLEANUP_FREE char *path = file_path("runs");
	struct stat st;

	return stat(path, &st) < 0 ? 0 : (unsigned)st.st_size / 4;
}

#define CREDENTIAL(status)                                                                                   \
	"printf '%s' '{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\","      \
	"\"status\":{" status "}}'"

static void a_plugins_token(void **state)
{
	struct answer answers[] = {
		{.match = "bearer two\r\n", .times = -1, .status = "200 OK", .body = "yes"},
		{.match = "Bearer two\r\n", .times = -1, .status = "200 OK", .body = "yes"},
		{.match = "GET /", .times = -1, .status = "401 Unauthorized", .body = "no"}};
	struct fixture f = {0};
	struct call c[3] = {0};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	plugin(&f, CREDENTIAL("\"token\":\"one\""));
	client(&f);
	/* All wait for one run. */
	for (int i = 0; i < 3; i++)
		get(&f, &c[i], "/");
	assert_true(RUN_UNTIL(&f, 5000, c[0].done && c[1].done && c[2].done));
	assert_int_equal(c[2].result.http, 401);
	assert_int_equal(runs(), 1);
	assert_has(fetch(&f, "/"), "401");
	assert_int_equal(runs(), 1);
	/* Refused: asked again, and kept until it expires. */
	plugin(&f, CREDENTIAL("\"token\":\"two\",\"expirationTimestamp\":\"2999-01-01T00:00:00.5+01:00\""));
	transport_token_refused(f.t);
	assert_string_equal(fetch(&f, "/"), "200 yes");
	assert_string_equal(fetch(&f, "/"), "200 yes");
	assert_int_equal(runs(), 1);
	f.t->credentials.expires = 1;
	plugin(&f, CREDENTIAL("\"token\":\"two\",\"expirationTimestamp\":\"2001-01-01T00:00:00Z\""));
	assert_string_equal(fetch(&f, "/"), "200 yes");
	assert_string_equal(fetch(&f, "/"), "200 yes");
	assert_int_equal(runs(), 2);
	for (int i = 0; i < 3; i++)
		strbuf_done(&c[i].body);
	finish(&f);
}

static void a_plugins_failures(void **state)
{
	static const struct {
		const char *script, *words;
	} cases[] = {
		{"echo first >&2; echo 'go and log in: eyJhbGciOiJSUzI1NiIsImtpZCI6IjEyMyJ9.x' >&2; exit 3",
			"failed with status 3: go and log in: ..."},
		{"kill -9 $$", "ended by signal 9"},
		{"true", "it is empty"},
		{"echo SECRET", "not one JSON value"},
		{"echo '{}'", "kind"},
		{"echo "
		 "'{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1beta1\"}'",
			"apiVersion"},
		{CREDENTIAL(""), "neither token"},
		{CREDENTIAL("\"token\":7"), "not a string"},
		{CREDENTIAL("\"token\":\"SECRET x\""), "characters"},
		{CREDENTIAL("\"clientKeyData\":\"SECRET\""), "alone"},
		{CREDENTIAL("\"clientCertificateData\":\"a\",\"clientKeyData\":\"SECRET\""), "no PEM"},
		{CREDENTIAL("\"token\":\"SECRET\",\"expirationTimestamp\":\"tomorrow\""),
			"expirationTimestamp"},
		{CREDENTIAL("\"token\":\"SECRET\"") "; echo SECRET", "not one JSON value"},
		{"head -c 300000 /dev/zero", "more than"},
		{"rm $0; exec /nowhere", "status 127"},
		{"unreachable", "cannot be started"},
	};
	struct answer answers[] = {ANSWER("GET /", "1")};
	struct fixture f = {0};

	(void)state;
	servers(&f, answers, ARRAY_SIZE(answers));
	plugin(&f, "true");
	client(&f);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *said;

		plugin(&f, cases[i].script);
		if (!strcmp(cases[i].script, "unreachable"))
			unlink(f.k.exec.command);
		said = fetch(&f, "/");
		if (!strstr(said, cases[i].words) || !strstr(said, "config:7") ||
			!strstr(said, "exec plugin") || strstr(said, "SECRET") || strstr(said, "eyJ"))
			fail_msg("case %zu: %s", i, said);
	}
	assert_int_equal(f.api.requests, 0);
	/* And the next that works is used. */
	plugin(&f, CREDENTIAL("\"token\":\"t\""));
	assert_string_equal(fetch(&f, "/"), "200 1");
	finish(&f);
}

/* What it is told; a client certificate from it. */
static void a_plugins_environment(void **state)
{
	struct answer answers[] = {ANSWER("GET /", "1")};
	struct fixture f = {0};
	struct tls_authority clients;
	CLEANUP_FREE char *path = file_path("told");
	CLEANUP_FREE char *script = NULL;
	char told[8192];
	char *cert, *key;
	FILE *file;

	(void)state;
	tls_authority_init(&clients, "clients");
	f.tls.want_client_of = &clients;
	tls_issue(&clients, "from a plugin", &cert, &key);
	servers(&f, answers, ARRAY_SIZE(answers));
	write_file("cert", cert);
	write_file("key", key);
	script = xasprintf(
		"cat >/dev/null; echo \"$A|$1|$2|$KUBERNETES_EXEC_INFO\" >%s\n"
		"json() { sed 's/$/\\\\n/' $1 | tr -d '\\n'; }\n"
		"echo '{\"kind\":\"ExecCredential\",\"apiVersion\":"
		"\"client.authentication.k8s.io/v1\",\"status\":{\"clientCertificateData\":\"'$(json "
		"%s/cert)'\",\"clientKeyData\":\"'$(json %s/key)'\"}}'",
		path, folder, folder);
	plugin(&f, script);
	setenv("A", "of the parent", 1);
	f.k.exec.env = xcalloc(1, sizeof(char *));
	f.k.exec.env[f.k.exec.n_env++] = xstrdup("A=b=c");
	f.k.exec.args = xcalloc(2, sizeof(char *));
	f.k.exec.args[f.k.exec.n_args++] = xstrdup("one two");
	f.k.exec.args[f.k.exec.n_args++] = xstrdup("$A");
	f.k.exec.provide_cluster_info = true;
	f.k.exec.config = xstrdup("{\"audience\":\"x\"}");
	client(&f);
	assert_string_equal(fetch(&f, "/"), "200 1");
	assert_string_equal(f.tls.client, "from a plugin");
	file = fopen(path, "re");
	assert_non_null(file);
	told[fread(told, 1, sizeof(told) - 1, file)] = '\0';
	fclose(file);
	assert_has(told, "b=c|one two|$A|{\"apiVersion\":\"client.authentication.k8s.io/v1\","
			 "\"kind\":\"ExecCredential\",\"spec\":{\"interactive\":false,\"cluster\":{"
			 "\"server\":\"https://127.0.0.1:");
	assert_has(told, "\"certificate-authority-data\":\"LS0tLS1CRUdJTi");
	assert_has(told, "\"config\":{\"audience\":\"x\"}}}}");
	finish(&f);
	free(cert);
	free(key);
	tls_authority_done(&clients);
}

static void on_plugin(void *arg, int rc, struct exec_credential *credential, const struct error *err)
{
	struct call *c = arg;

	(void)credential;
	c->done = true;
	c->http = (unsigned)-rc;
	c->result.error = *err;
}

static void a_plugin_that_waits(void **state)
{
	struct fixture f = {.base = event_base_new()};
	struct exec_plugin *p;
	struct call c = {0};

	(void)state;
	plugin(&f, "sleep 60");
	assert_int_equal(exec_plugin_start(f.base, &f.k, NULL, 1000, on_plugin, &c, &p, &f.err), 0);
	assert_true(RUN_UNTIL(&f, 3000, c.done));
	assert_int_equal(c.http, ETIMEDOUT);
	assert_has(error_text(&c.result.error), "no answer within 1 s");
	/* Freed while it runs. */
	assert_int_equal(exec_plugin_start(f.base, &f.k, NULL, 1000, on_plugin, &c, &p, &f.err), 0);
	exec_plugin_free(p);
	kubeconfig_done(&f.k);
	event_base_free(f.base);
}

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	static const char *const names[] = {
		"ca.crt", "tls.crt", "tls.key", "plugin", "runs", "told", "cert", "key"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CLEANUP_FREE char *path = file_path(names[i]);

		unlink(path);
	}
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_silent_server_is_noticed),
		cmocka_unit_test(a_write_has_a_limit),
		cmocka_unit_test(another_ca),
		cmocka_unit_test(another_client_certificate),
		cmocka_unit_test(a_plugins_token),
		cmocka_unit_test(a_plugins_failures),
		cmocka_unit_test(a_plugins_environment),
		cmocka_unit_test(a_plugin_that_waits),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
