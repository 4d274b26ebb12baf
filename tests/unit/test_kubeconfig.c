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
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/slipstream-kubeconfig-XXXXXX";

static char *file_path(const char *name)
{
	return xasprintf("%s/%s", folder, name);
}

static void write_file(const char *name, const char *text)
{
	CLEANUP_FREE char *path = file_path(name);
	CLEANUP_FREE char *other = xasprintf("%s.new", path);
	FILE *f = fopen(other, "we");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(rename(other, path), 0);
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

static void refusals(void **state)
{
	static const struct {
		const char *cluster, *user;
		int code;
		const char *where, *what;
	} cases[] = {
		{"", "", -EINVAL, "config:11", "no server"},
		{"server: 'ftp://h'", "", -EINVAL, "config:11", "ftp://h"},
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
		{"server: 'https://h'", "exec: {command: aws}", -ENOTSUP, "config:14",
			"\"exec\" is not supported"},
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
	assert_int_equal(kubeconfig_find(NULL, &k, &err), -EINVAL);
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
		cmocka_unit_test(refusals),
		cmocka_unit_test(bad_files),
		cmocka_unit_test(where_it_is_looked_for),
		cmocka_unit_test(token_is_read_again),
		cmocka_unit_test(certificates_are_read_when_changed),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
