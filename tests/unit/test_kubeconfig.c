/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "k8s/credentials.h"
#include "k8s/kubeconfig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "text_file.h"

static char folder[] = "/tmp/slipstream-kubeconfig-XXXXXX";

static char *file_path(const char *name)
{
	return xasprintf("%s/%s", folder, name);
}

static void write_file(const char *name, const char *text)
{
	CLEANUP_FREE char *path = file_path(name);

	text_file_write(path, text, 0600);
}

#define PEM "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
/* The same, in base64. */
#define PEM64 "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo="

/* A kubeconfig whose cluster and user have 'cluster' and 'user', both one line. */
static int load(const char *cluster, const char *user, struct kubeconfig *k, struct error *err)
{
	CLEANUP_FREE char *path = file_path("config");
	CLEANUP_FREE char *text = xasprintf("apiVersion: v1\n"
					    "kind: Config\n"
					    "current-context: c\n"
					    "contexts:\n"
					    "- name: other\n"
					    "  context: {cluster: nowhere, user: nobody}\n"
					    "- name: c\n"
					    "  context: {cluster: k, user: u}\n"
					    "clusters:\n"
					    "- name: k\n"
					    "  cluster: {%s}\n" /* line 11 */
					    "users:\n"
					    "- name: u\n"
					    "  user: {%s}\n" /* line 14 */,
		cluster, user);

	memset(err, 0, sizeof(*err));
	write_file("config", text);
	return kubeconfig_find(path, k, err);
}

static void reads_all(void **state)
{
	CLEANUP_FREE char *token_file = file_path("sub/token");
	struct kubeconfig k;
	struct error err;

	(void)state;
	assert_int_equal(
		load("server: \"https://[fd00::1]:6443/prefix//\", certificate-authority-data: " PEM64
		     ", tls-server-name: api.example, proxy-url: \"http://proxy:3128\"",
			"token: abc, tokenFile: sub/token, client-certificate-data: " PEM64
			", client-certificate: ignored.crt, client-key: /abs/key.pem, colour: blue",
			&k, &err),
		0);
	assert_string_equal(k.server, "https://[fd00::1]:6443/prefix");
	assert_non_null(strstr(k.server_where, "/config:11"));
	assert_non_null(strstr(k.origin, "kubeconfig "));
	assert_string_equal(k.tls_server_name, "api.example");
	assert_string_equal(k.proxy_url, "http://proxy:3128");
	assert_false(k.insecure);
	assert_string_equal(k.ca.data, PEM);
	assert_int_equal(k.ca.len, strlen(PEM));
	assert_null(k.ca.path);
	assert_string_equal(k.cert.data, PEM);
	assert_null(k.cert.path);
	assert_string_equal(k.key.path, "/abs/key.pem");
	assert_string_equal(k.token, "abc");
	assert_string_equal(k.token_file, token_file);
	kubeconfig_done(&k);
}

static void insecure_and_bare(void **state)
{
	struct kubeconfig k;
	struct error err;

	(void)state;
	assert_int_equal(load("server: 'https://h', insecure-skip-tls-verify: true", "", &k, &err), 0);
	assert_true(k.insecure);
	assert_null(k.token);
	assert_null(k.ca.path);
	assert_null(k.ca.where);
	kubeconfig_done(&k);
}

#define EXEC_V1 "apiVersion: client.authentication.k8s.io/v1"

static void reads_exec(void **state)
{
	CLEANUP_FREE char *command = file_path("bin/login");
	struct kubeconfig k;
	struct error err;

	(void)state;
	assert_int_equal(
		load("server: 'https://h', extensions: [{name: other, extension: 1}, {name: "
		     "client.authentication.k8s.io/exec, extension: {audience: a, n: 3}}]",
			"exec: {command: bin/login, " EXEC_V1
			"beta1, args: [--x, 3], env: [{name: A, value: 'b=c'}, {name: E, value: ''}], "
			"interactiveMode: IfAvailable, provideClusterInfo: true, installHint: get it}",
			&k, &err),
		0);
	assert_string_equal(k.exec.command, command);
	assert_string_equal(k.exec.api_version, "client.authentication.k8s.io/v1beta1");
	assert_int_equal(k.exec.n_args, 2);
	assert_string_equal(k.exec.args[1], "3");
	assert_int_equal(k.exec.n_env, 2);
	assert_string_equal(k.exec.env[0], "A=b=c");
	assert_string_equal(k.exec.env[1], "E=");
	assert_true(k.exec.provide_cluster_info);
	assert_string_equal(k.exec.install_hint, "get it");
	assert_string_equal(k.exec.config, "{\"audience\":\"a\",\"n\":3}");
	assert_non_null(strstr(k.exec.where, "/config:14"));
	kubeconfig_done(&k);
	/* One that is found in $PATH. */
	assert_int_equal(load("server: 'https://h'", "exec: {command: login, " EXEC_V1 "}", &k, &err), 0);
	assert_string_equal(k.exec.command, "login");
	assert_false(k.exec.provide_cluster_info);
	kubeconfig_done(&k);
}

/* $KUBECONFIG with several files: the first that has a name wins, paths are beside the file that has them. */
static void merges_files(void **state)
{
	CLEANUP_FREE char *value = xasprintf("%s/none:%s/first::%s/sub/second", folder, folder, folder);
	CLEANUP_FREE char *sub = file_path("sub");
	CLEANUP_FREE char *token_file = file_path("sub/token");
	struct kubeconfig k;
	struct error err = {0};

	(void)state;
	mkdir(sub, 0700);
	write_file("first", "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
			    "clusters: [{name: k, cluster: {server: 'https://first'}}]\n");
	write_file("sub/second", "current-context: c\n"
				 "contexts: [{name: c, context: {cluster: other, user: other}}]\n"
				 "clusters: [{name: k, cluster: {server: 'https://second', "
				 "tls-server-name: second}}]\n"
				 "users: [{name: u, user: {tokenFile: token}}]\n");
	setenv("KUBECONFIG", value, 1);
	assert_int_equal(kubeconfig_find(NULL, &k, &err), 0);
	assert_string_equal(k.server, "https://first");
	assert_null(k.tls_server_name);
	assert_string_equal(k.token_file, token_file);
	assert_non_null(strstr(k.server_where, "/first:2"));
	assert_non_null(strstr(k.origin, "/sub/second"));
	kubeconfig_done(&k);
	/* The file and line of what is wrong. */
	write_file("sub/second", "current-context: c\nusers: [{name: u, user: {as: root}}]\n");
	assert_int_equal(kubeconfig_find(NULL, &k, &err), -ENOTSUP);
	assert_non_null(strstr(err.where, "/sub/second:2"));
	write_file("sub/second", "current-context: c\n");
	assert_int_equal(kubeconfig_find(NULL, &k, &err), -EINVAL);
	assert_non_null(strstr(err.where, "/first:1"));
	assert_non_null(strstr(err.what, "\"u\""));
	/* None there at all. */
	setenv("KUBECONFIG", "/nowhere/a:/nowhere/b", 1);
	assert_int_equal(kubeconfig_find(NULL, &k, &err), -ENOENT);
	unsetenv("KUBECONFIG");
	free(value);
	value = file_path("sub/second");
	unlink(value);
	rmdir(sub);
	free(value);
	value = file_path("first");
	unlink(value);
}

static void refusals(void **state)
{
	static const struct {
		const char *cluster, *user;
		int code;
		const char *where, *what;
	} cases[] = {
		{"", "", -EINVAL, "config:11", "no server"},
		{"server: 'ftp://h'", "", -EINVAL, "config:11", "server is no https:// address"},
		{"server: 'https://'", "", -EINVAL, "config:11", "names no host"},
		{"server: [a]", "", -EINVAL, "config:11", "server is not a string"},
		{"server: 'https://h', insecure-skip-tls-verify: maybe", "", -EINVAL, "config:11",
			"neither true"},
		{"server: 'https://h', insecure-skip-tls-verify: true, certificate-authority: x", "", -EINVAL,
			"config:11", "insecure-skip-tls-verify and"},
		{"server: 'https://h', certificate-authority-data: '!!'", "", -EINVAL, "config:11",
			"not base64"},
		{"server: 'https://h', certificate-authority-data: QUJ", "", -EINVAL, "config:11",
			"not base64"},
		{"server: 'https://h', certificate-authority-data: QUJD", "", -EINVAL, "config:11", "no PEM"},
		{"server: 'https://user:secret@h'", "", -ENOTSUP, "config:11", "server has a user name"},
		{"server: 'https://h', proxy-url: 'ftp://p'", "", -EINVAL, "config:11", "proxy-url"},
		{"server: 'https://h', proxy-url: 'http://'", "", -EINVAL, "config:11", "proxy-url"},
		{"server: 'https://h'", "exec: aws", -EINVAL, "config:14", "exec is not a mapping"},
		{"server: 'https://h'", "exec: {command: aws}", -EINVAL, "config:14", "no apiVersion"},
		{"server: 'https://h'", "exec: {" EXEC_V1 "}", -EINVAL, "config:14", "no command"},
		{"server: 'https://h'",
			"exec: {command: a, apiVersion: client.authentication.k8s.io/v1alpha1}", -ENOTSUP,
			"config:14", "v1alpha1"},
		{"server: 'https://h'", "exec: {command: a, " EXEC_V1 ", interactiveMode: Always}", -ENOTSUP,
			"config:14", "interactiveMode Always"},
		{"server: 'https://h'", "exec: {command: a, " EXEC_V1 ", interactiveMode: Perhaps}", -EINVAL,
			"config:14", "Perhaps"},
		{"server: 'https://h'", "exec: {command: a, " EXEC_V1 ", args: b}", -EINVAL, "config:14",
			"args is not a list"},
		{"server: 'https://h'", "exec: {command: a, " EXEC_V1 ", args: [[b]]}", -EINVAL, "config:14",
			"an item of args"},
		{"server: 'https://h'", "exec: {command: a, " EXEC_V1 ", env: [{name: 'A=B', value: c}]}",
			-EINVAL, "config:14", "an item of env"},
		{"server: 'https://h'", "exec: {command: a, " EXEC_V1 "}, token: t", -EINVAL, "config:14",
			"exec and a token"},
		{"server: 'https://h'", "auth-provider: {name: gcp}", -ENOTSUP, "config:14", "auth-provider"},
		{"server: 'https://h'", "token: t, username: u", -ENOTSUP, "config:14", "username"},
		{"server: 'https://h'", "password: p", -ENOTSUP, "config:14", "password"},
		{"server: 'https://h'", "as: admin", -ENOTSUP, "config:14", "as"},
		{"server: 'https://h'", "client-key: x", -EINVAL, "config:14", "client-key without"},
		{"server: 'https://h'", "client-certificate: x", -EINVAL, "config:14",
			"client-certificate without"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct kubeconfig k;
		struct error err;
		int rc = load(cases[i].cluster, cases[i].user, &k, &err);

		if (rc != cases[i].code || !strstr(err.where, cases[i].where) ||
			!strstr(err.what, cases[i].what))
			fail_msg("case %zu: %d %s", i, rc, error_text(&err));
		assert_null(k.server);
		assert_null(k.origin);
	}
}

static void bad_files(void **state)
{
	static const struct {
		const char *text, *where, *what;
	} cases[] = {
		{"", "config:1", "0 documents"},
		{"a: 1\n---\nb: 2\n", "config:1", "2 documents"},
		{"- a\n", "config:1", "no mapping"},
		{"kind: Config\ncontexts: []\n", "config:1", "no current-context"},
		{"kind: Config\ncurrent-context: ''\n", "config:2", "no current-context"},
		{"current-context: x\n", "config:1", "no entry \"x\" in contexts"},
		{"\ncurrent-context: x\ncontexts:\n- name: x\n", "config:4", "has no context"},
		{"current-context: x\ncontexts:\n- name: x\n  context: {user: u}\n", "config:4",
			"names no cluster"},
		{"current-context: x\ncontexts:\n- name: x\n  context: {cluster: k}\n", "config:4",
			"no entry \"k\" in clusters"},
		{"current-context: x\ncontexts:\n- {name: x, context: {cluster: k, user: u}}\n"
		 "clusters:\n- {name: k, cluster: {server: 'https://h'}}\n",
			"config:3", "no entry \"u\" in users"},
		{"current-context: x\ncurrent-context: y\n", "config:2", ""},
	};
	CLEANUP_FREE char *path = file_path("config");

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct kubeconfig k;
		struct error err = {0};
		int rc;

		write_file("config", cases[i].text);
		rc = kubeconfig_find(path, &k, &err);
		if (rc != -EINVAL || !strstr(err.where, cases[i].where) || !strstr(err.what, cases[i].what))
			fail_msg("case %zu: %d %s", i, rc, error_text(&err));
	}
}

static void where_it_is_looked_for(void **state)
{
	CLEANUP_FREE char *config = file_path("config");
	CLEANUP_FREE char *two = xasprintf("%s:%s", config, config);
	CLEANUP_FREE char *token = file_path("token");
	CLEANUP_FREE char *nowhere = file_path("nowhere");
	struct kubeconfig k;
	struct error err;

	(void)state;
	assert_int_equal(load("server: 'https://file'", "", &k, &err), 0);
	kubeconfig_done(&k);
	unsetenv("KUBECONFIG");
	unsetenv("KUBERNETES_SERVICE_HOST");
	setenv("HOME", folder, 1);
	assert_int_equal(kubeconfig_find(NULL, &k, &err), -ENOENT);
	assert_int_equal(kubeconfig_find(nowhere, &k, &err), -ENOENT);

	setenv("KUBERNETES_SERVICE_HOST", "fd00::5", 1);
	assert_int_equal(kubeconfig_find(NULL, &k, &err), -EINVAL);
	setenv("KUBERNETES_SERVICE_PORT", "443", 1);
	setenv("SLIPSTREAM_SERVICEACCOUNT", folder, 1);
	assert_int_equal(kubeconfig_find(NULL, &k, &err), 0);
	assert_string_equal(k.server, "https://[fd00::5]:443");
	assert_string_equal(k.token_file, token);
	assert_string_equal(k.origin, "in-cluster credentials");
	kubeconfig_done(&k);
	unsetenv("SLIPSTREAM_SERVICEACCOUNT");
	setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1", 1);
	assert_int_equal(kubeconfig_find(NULL, &k, &err), 0);
	assert_string_equal(k.server, "https://10.96.0.1:443");
	assert_string_equal(k.ca.path, "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt");
	kubeconfig_done(&k);

	/* a file that is named goes before being in a pod */
	setenv("KUBECONFIG", config, 1);
	assert_int_equal(kubeconfig_find(NULL, &k, &err), 0);
	assert_string_equal(k.server, "https://file");
	kubeconfig_done(&k);
	setenv("KUBECONFIG", two, 1);
	assert_int_equal(kubeconfig_find(NULL, &k, &err), 0);
	assert_string_equal(k.server, "https://file");
	kubeconfig_done(&k);
	unsetenv("KUBECONFIG");
	unsetenv("KUBERNETES_SERVICE_HOST");
	unsetenv("KUBERNETES_SERVICE_PORT");
}

static void token_is_read_again(void **state)
{
	CLEANUP_FREE char *path = file_path("token");
	struct kubeconfig k = {.token_file = path};
	struct credentials c = {0};
	struct error err = {0};

	(void)state;
	unlink(path);
	assert_int_equal(credentials_refresh(&c, &k, 1000, false, &err), -ENOENT);
	assert_non_null(strstr(err.where, "/token"));
	write_file("token", " one\n");
	assert_int_equal(credentials_refresh(&c, &k, 61000, false, &err), 0);
	assert_string_equal(c.token.data, "one");
	write_file("token", "two");
	assert_int_equal(credentials_refresh(&c, &k, 120999, false, &err), 0);
	assert_string_equal(c.token.data, "one");
	assert_int_equal(credentials_refresh(&c, &k, 121000, false, &err), 0);
	assert_string_equal(c.token.data, "two");
	write_file("token", "three");
	assert_int_equal(credentials_refresh(&c, &k, 121001, true, &err), 0);
	assert_string_equal(c.token.data, "three");
	/* what is no token does not replace one */
	write_file("token", "a b");
	assert_int_equal(credentials_refresh(&c, &k, 300000, false, &err), -EINVAL);
	write_file("token", "a\r\nX-Evil: 1");
	assert_int_equal(credentials_refresh(&c, &k, 300000, true, &err), -EINVAL);
	write_file("token", "\n");
	assert_int_equal(credentials_refresh(&c, &k, 300000, true, &err), -EINVAL);
	assert_null(strstr(error_text(&err), "Evil"));
	unlink(path);
	assert_int_equal(credentials_refresh(&c, &k, 400000, false, &err), -ENOENT);
	assert_string_equal(c.token.data, "three");
	credentials_done(&c);
}

static void certificates_are_read_when_changed(void **state)
{
	CLEANUP_FREE char *ca = file_path("ca.crt");
	CLEANUP_FREE char *key = file_path("key.pem");
	struct kubeconfig k = {.ca.path = ca, .key.path = key, .token = (char *)"t"};
	struct credentials c = {0};
	struct error err = {0};

	(void)state;
	write_file("ca.crt", PEM);
	write_file("key.pem", "nothing");
	/* the first error, the rest done */
	assert_int_equal(credentials_refresh(&c, &k, 0, false, &err), -EINVAL);
	assert_string_equal(err.object, "client-key");
	assert_string_equal(c.ca.data, PEM);
	assert_string_equal(c.token.data, "t");
	write_file("key.pem", PEM);
	assert_int_equal(credentials_refresh(&c, &k, 1, false, &err), 0);
	assert_string_equal(c.key.data, PEM);
	write_file("ca.crt", PEM PEM);
	assert_int_equal(credentials_refresh(&c, &k, 2, false, &err), 0);
	assert_string_equal(c.ca.data, PEM PEM);
	/* half written: the old one stays, and the whole one is seen later */
	write_file("ca.crt", "");
	assert_int_equal(credentials_refresh(&c, &k, 3, false, &err), -EINVAL);
	assert_string_equal(c.ca.data, PEM PEM);
	write_file("ca.crt", PEM);
	assert_int_equal(credentials_refresh(&c, &k, 4, false, &err), 0);
	assert_string_equal(c.ca.data, PEM);
	credentials_done(&c);
}

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	static const char *const names[] = {"config", "token", "ca.crt", "key.pem"};

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
		cmocka_unit_test(reads_all),
		cmocka_unit_test(insecure_and_bare),
		cmocka_unit_test(reads_exec),
		cmocka_unit_test(merges_files),
		cmocka_unit_test(refusals),
		cmocka_unit_test(bad_files),
		cmocka_unit_test(where_it_is_looked_for),
		cmocka_unit_test(token_is_read_again),
		cmocka_unit_test(certificates_are_read_when_changed),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
