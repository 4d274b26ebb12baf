/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/kubeconfig.h"

#include "base/mem.h"
#include "base/yamldoc.h"
#include "k8s/json_tree.h"
#include "k8s/yaml_json.h"

#include <curl/curl.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define EXTENSION_DEPTH 32

#define SERVICEACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount"

/* Their values may be secrets. */
static void free_texts(char **texts, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		explicit_bzero(texts[i], strlen(texts[i]));
		free(texts[i]);
	}
	free(texts);
}

static void exec_done(struct kubeconfig_exec *e)
{
	free_texts(e->args, e->n_args);
	free_texts(e->env, e->n_env);
	free(e->command);
	free(e->api_version);
	free(e->install_hint);
	free(e->config);
	free(e->where);
}

void kubeconfig_done(struct kubeconfig *k)
{
	struct kubeconfig_file *files[] = {&k->ca, &k->cert, &k->key};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		free(files[i]->path);
		if (files[i]->data)
			explicit_bzero(files[i]->data, files[i]->len);
		free(files[i]->data);
		free(files[i]->where);
	}
	if (k->token)
		explicit_bzero(k->token, strlen(k->token));
	free(k->token);
	free(k->token_file);
	exec_done(&k->exec);
	free(k->origin);
	free(k->server);
	free(k->server_where);
	free(k->tls_server_name);
	free(k->proxy_url);
	memset(k, 0, sizeof(*k));
}

static const char *env(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

/* Base64 (RFC 4648, section 4) with white space anywhere; false for anything else. '*ret' is NUL-terminated.
 */
static bool base64_decode(const char *s, char **ret, size_t *ret_len)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *out = xmalloc(strlen(s) / 4 * 3 + 4);
	uint32_t bits = 0;
	size_t len = 0;
	unsigned n = 0;
	unsigned pads = 0;

	for (; *s; s++) {
		const char *at;

		if (strchr(" \t\r\n", *s))
			continue;
		if (*s == '=') {
			pads++;
			continue;
		}
		at = strchr(alphabet, *s);
		if (!at || pads)
			goto bad;
		bits = bits << 6 | (uint32_t)(at - alphabet);
		if (++n % 4 == 0) {
			out[len++] = (char)(bits >> 16);
			out[len++] = (char)(bits >> 8);
			out[len++] = (char)bits;
		}
	}
	if ((n + pads) % 4 || pads > 2)
		goto bad;
	if (pads == 1) {
		out[len++] = (char)(bits >> 10);
		out[len++] = (char)(bits >> 2);
	} else if (pads == 2) {
		out[len++] = (char)(bits >> 4);
	}
	out[len] = '\0';
	*ret = out;
	*ret_len = len;
	return true;
bad:
	free(out);
	return false;
}

struct reader {
	const char *path; /* of the file that is read at the moment */
	struct error *err;
	/* All files, the first wins. */
	char **paths;
	struct yaml_stream **files;
	size_t n;
};

static int refuse(struct reader *rd, unsigned line, int code, const char *mend, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
static int refuse(struct reader *rd, unsigned line, int code, const char *mend, const char *fmt, ...)
{
	char what[sizeof(rd->err->what)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	error_set(rd->err, code, NULL, mend, "%s", what);
	error_at(rd->err, rd->path, line);
	return code;
}

/* The text of 'map'.'key' into a new string, NULL when it is absent, null or empty. */
static int get_text(
	struct reader *rd, const struct yaml_node *map, const char *key, char **ret, unsigned *ret_line)
{
	const struct yaml_node *node = yaml_get(map, key);
	const char *text = yaml_text(node);

	if (node && node->kind != YAML_SCALAR)
		return refuse(rd, node->line, -EINVAL, "write a string", "%s is not a string", key);
	if (text && *text) {
		*ret = xstrdup(text);
		if (ret_line)
			*ret_line = node->line;
	}
	return 0;
}

static int get_bool(struct reader *rd, const struct yaml_node *map, const char *key, bool *ret)
{
	const struct yaml_node *node = yaml_get(map, key);
	const char *text = yaml_text(node);

	if (!node || (node->kind == YAML_SCALAR && !text))
		return 0;
	if (!text || (strcmp(text, "true") && strcmp(text, "false")))
		return refuse(
			rd, node->line, -EINVAL, "write true or false", "%s is neither true nor false", key);
	*ret = !strcmp(text, "true");
	return 0;
}

static char *beside(const char *kubeconfig, const char *path)
{
	const char *slash = strrchr(kubeconfig, '/');

	if (path[0] == '/' || !slash)
		return xstrdup(path);
	return xasprintf("%.*s/%s", (int)(slash - kubeconfig), kubeconfig, path);
}

static int get_path(
	struct reader *rd, const struct yaml_node *map, const char *key, char **ret, unsigned *ret_line)
{
	CLEANUP_FREE char *text = NULL;
	int rc = get_text(rd, map, key, &text, ret_line);

	if (!rc && text)
		*ret = beside(rd->path, text);
	return rc;
}

/* KEY and KEY-data: one PEM. */
static int get_pem(
	struct reader *rd, const struct yaml_node *map, const char *key, struct kubeconfig_file *ret)
{
	CLEANUP_FREE char *data_key = xasprintf("%s-data", key);
	CLEANUP_FREE char *data = NULL;
	unsigned line = 0;
	int rc;

	rc = get_path(rd, map, key, &ret->path, &line);
	if (!rc)
		rc = get_text(rd, map, data_key, &data, &line);
	if (rc)
		return rc;
	if (data) {
		bool ok = base64_decode(data, &ret->data, &ret->len);

		explicit_bzero(data, strlen(data));
		if (!ok)
			return refuse(rd, line, -EINVAL, "write the PEM file's base64", "%s is not base64",
				data_key);
		if (!strstr(ret->data, "-----BEGIN "))
			return refuse(rd, line, -EINVAL, "write the base64 of a PEM file", "%s holds no PEM",
				data_key);
		free(ret->path);
		ret->path = NULL;
	}
	if (line)
		ret->where = xasprintf("%s:%u", rd->path, line);
	return 0;
}

/* The value of 'field' in the first item of a list 'list' whose name is 'name'. The name is used at 'used_at' of
 * the present file; afterwards that of the item is the present one. */
static int find_named(struct reader *rd, const char *list, const char *field, const char *name,
	unsigned used_at, const struct yaml_node **ret)
{
	for (size_t f = 0; f < rd->n; f++) {
		const struct yaml_node *items = yaml_get(yamldoc_root(rd->files[f], 0), list);

		if (!items || items->kind != YAML_SEQUENCE)
			continue;
		for (size_t i = 0; i < items->n; i++) {
			const char *text = yaml_text(yaml_get(items->items[i], "name"));

			if (!text || strcmp(text, name))
				continue;
			rd->path = rd->paths[f];
			*ret = yaml_get(items->items[i], field);
			if (*ret && (*ret)->kind == YAML_MAPPING)
				return 0;
			return refuse(rd, items->items[i]->line, -EINVAL, NULL, "%s \"%s\" has no %s", field,
				name, field);
		}
	}
	return refuse(rd, used_at, -EINVAL, "correct the name, or add the entry", "no entry \"%s\" in %s",
		name, list);
}

/* Whether curl can make something of a URL, and whether it has a host and no user. Says no part of it. */
static int check_url(struct reader *rd, unsigned line, const char *key, const char *url, bool may_have_user)
{
	CURLU *u = xcheck(curl_url());
	CURLUcode has_host = curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME),
		  has_user = CURLUE_OK;
	char *user = NULL;
	char *host = NULL;
	int rc = 0;

	if (!has_host)
		has_host = curl_url_get(u, CURLUPART_HOST, &host, 0);
	if (!has_host)
		has_user = curl_url_get(u, CURLUPART_USER, &user, 0);
	if (has_host == CURLUE_OUT_OF_MEMORY || has_user == CURLUE_OUT_OF_MEMORY)
		out_of_memory();
	if (has_host || !*host)
		rc = refuse(
			rd, line, -EINVAL, "give an address like https://HOST:PORT", "%s names no host", key);
	else if (!may_have_user && !has_user)
		rc = refuse(rd, line, -ENOTSUP, "remove it; use token, client-certificate or exec",
			"%s has a user name in it", key);
	curl_free(user);
	curl_free(host);
	curl_url_cleanup(u);
	return rc;
}

/* extensions[name=client.authentication.k8s.io/exec].extension: for an exec plugin, as JSON. */
static unsigned depth_of(const struct yaml_node *node)
{
	unsigned deepest = 0;

	for (size_t i = 0; node->kind != YAML_SCALAR && i < node->n; i++) {
		unsigned depth = depth_of(node->kind == YAML_MAPPING ? node->pairs[i].value : node->items[i]);

		if (depth > deepest)
			deepest = depth;
	}
	return deepest + 1;
}

static int read_exec_config(struct reader *rd, const struct yaml_node *cluster, struct kubeconfig *k)
{
	const struct yaml_node *list = yaml_get(cluster, "extensions");

	for (size_t i = 0; list && list->kind == YAML_SEQUENCE && i < list->n; i++) {
		const char *name = yaml_text(yaml_get(list->items[i], "name"));
		const struct yaml_node *extension = yaml_get(list->items[i], "extension");
		struct json_object *json;

		if (!name || !extension || k->exec.config ||
			strcmp(name, "client.authentication.k8s.io/exec"))
			continue;
		if (depth_of(extension) > EXTENSION_DEPTH)
			return refuse(rd, extension->line, -EINVAL, "give one that is flatter",
				"the extension for exec plugins is nested more than %d deep",
				EXTENSION_DEPTH);
		json = yaml_to_json(extension);
		k->exec.config = json_tree_text(json);
		json_object_put(json);
	}
	return 0;
}

static int read_cluster(struct reader *rd, const struct yaml_node *cluster, struct kubeconfig *k)
{
	unsigned line = cluster->line;
	unsigned proxy_line = 0;
	int rc = get_text(rd, cluster, "server", &k->server, &line);

	if (rc)
		return rc;
	if (!k->server)
		return refuse(rd, line, -EINVAL, "give the API server's https:// address",
			"the cluster has no server");
	if (strncasecmp(k->server, "https://", 8) && strncasecmp(k->server, "http://", 7))
		return refuse(rd, line, -EINVAL, "give the API server's https:// address",
			"server is no https:// address");
	if ((rc = check_url(rd, line, "server", k->server, false)))
		return rc;
	while (k->server[strlen(k->server) - 1] == '/')
		k->server[strlen(k->server) - 1] = '\0';
	k->server_where = xasprintf("%s:%u", rd->path, line);
	if ((rc = get_bool(rd, cluster, "insecure-skip-tls-verify", &k->insecure)) ||
		(rc = get_text(rd, cluster, "tls-server-name", &k->tls_server_name, NULL)) ||
		(rc = get_text(rd, cluster, "proxy-url", &k->proxy_url, &proxy_line)) ||
		(rc = get_pem(rd, cluster, "certificate-authority", &k->ca)))
		return rc;
	if (k->proxy_url && strncasecmp(k->proxy_url, "http://", 7) &&
		strncasecmp(k->proxy_url, "https://", 8) && strncasecmp(k->proxy_url, "socks5://", 9))
		return refuse(rd, proxy_line, -EINVAL, "give an http, https or socks5 address",
			"proxy-url is none of a proxy");
	if (k->proxy_url && (rc = check_url(rd, proxy_line, "proxy-url", k->proxy_url, true)))
		return rc;
	if ((rc = read_exec_config(rd, cluster, k)))
		return rc;
	if (k->insecure && (k->ca.path || k->ca.data))
		return refuse(rd, line, -EINVAL, "remove one of the two",
			"the cluster has insecure-skip-tls-verify and a certificate-authority");
	return 0;
}

/* Strings into a new array. */
static int get_texts(
	struct reader *rd, const struct yaml_node *map, const char *key, char ***ret, size_t *ret_n)
{
	const struct yaml_node *list = yaml_get(map, key);
	size_t cap = 0;

	if (!list || (list->kind == YAML_SCALAR && !yaml_text(list)))
		return 0;
	if (list->kind != YAML_SEQUENCE)
		return refuse(rd, list->line, -EINVAL, "write a list", "%s is not a list", key);
	for (size_t i = 0; i < list->n; i++) {
		if (list->items[i]->kind != YAML_SCALAR)
			return refuse(rd, list->items[i]->line, -EINVAL, "write a string",
				"an item of %s is not a string", key);
		*VEC_ADD(*ret, *ret_n, cap) = xstrdup(list->items[i]->text);
	}
	return 0;
}

static int get_env(struct reader *rd, const struct yaml_node *exec, struct kubeconfig_exec *ret)
{
	const struct yaml_node *list = yaml_get(exec, "env");
	size_t cap = 0;

	if (!list || (list->kind == YAML_SCALAR && !yaml_text(list)))
		return 0;
	if (list->kind != YAML_SEQUENCE)
		return refuse(rd, list->line, -EINVAL, "write a list", "env is not a list");
	for (size_t i = 0; i < list->n; i++) {
		const char *name = yaml_text(yaml_get(list->items[i], "name"));
		const struct yaml_node *value = yaml_get(list->items[i], "value");

		if (!name || !*name || strchr(name, '=') || !value || value->kind != YAML_SCALAR)
			return refuse(rd, list->items[i]->line, -EINVAL, "write {name: NAME, value: VALUE}",
				"an item of env has no name and value");
		*VEC_ADD(ret->env, ret->n_env, cap) = xasprintf("%s=%s", name, value->text);
	}
	return 0;
}

static int read_exec(struct reader *rd, const struct yaml_node *exec, struct kubeconfig_exec *ret)
{
	static const char *const versions[] = {
		"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"};
	CLEANUP_FREE char *command = NULL;
	CLEANUP_FREE char *mode = NULL;
	unsigned line = exec->line;
	unsigned version_line = exec->line;
	unsigned mode_line = exec->line;
	bool known = false;
	int rc;

	if (exec->kind != YAML_MAPPING)
		return refuse(rd, line, -EINVAL, "write a mapping", "exec is not a mapping");
	if ((rc = get_text(rd, exec, "command", &command, &line)) ||
		(rc = get_text(rd, exec, "apiVersion", &ret->api_version, &version_line)) ||
		(rc = get_text(rd, exec, "interactiveMode", &mode, &mode_line)) ||
		(rc = get_text(rd, exec, "installHint", &ret->install_hint, NULL)) ||
		(rc = get_bool(rd, exec, "provideClusterInfo", &ret->provide_cluster_info)) ||
		(rc = get_texts(rd, exec, "args", &ret->args, &ret->n_args)) || (rc = get_env(rd, exec, ret)))
		return rc;
	if (!command)
		return refuse(rd, line, -EINVAL, "name the program", "exec has no command");
	for (size_t i = 0; i < ARRAY_SIZE(versions) && ret->api_version; i++)
		known |= !strcmp(ret->api_version, versions[i]);
	if (!known)
		return refuse(rd, version_line, ret->api_version ? -ENOTSUP : -EINVAL,
			"use client.authentication.k8s.io/v1", "exec has %s apiVersion%s%s",
			ret->api_version ? "an unknown" : "no", ret->api_version ? " " : "",
			ret->api_version ? ret->api_version : "");
	if (mode && !strcmp(mode, "Always"))
		return refuse(rd, mode_line, -ENOTSUP, "use a plugin that can do without a terminal",
			"exec has interactiveMode Always, and nobody is there to be asked");
	if (mode && strcmp(mode, "Never") && strcmp(mode, "IfAvailable"))
		return refuse(rd, mode_line, -EINVAL, "write Never or IfAvailable",
			"interactiveMode \"%s\" is unknown", mode);
	ret->where = xasprintf("%s:%u", rd->path, line);
	/* With a slash it is relative to this file, without one it is looked for in $PATH. */
	ret->command = strchr(command, '/') ? beside(rd->path, command) : TAKE_PTR(command);
	return 0;
}

static int read_user(struct reader *rd, const struct yaml_node *user, struct kubeconfig *k)
{
	static const char *const refused[] = {
		"auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra"};
	const struct yaml_node *exec = yaml_get(user, "exec");
	int rc;

	for (size_t i = 0; i < user->n; i++)
		for (size_t j = 0; j < ARRAY_SIZE(refused); j++)
			if (!strcmp(user->pairs[i].key, refused[j]))
				return refuse(rd, user->pairs[i].line, -ENOTSUP,
					"use token, tokenFile, exec or client-certificate(-data) with "
					"client-key(-data)",
					"user authentication by \"%s\" is not supported", refused[j]);
	if ((rc = get_text(rd, user, "token", &k->token, NULL)) ||
		(rc = get_path(rd, user, "tokenFile", &k->token_file, NULL)) ||
		(rc = get_pem(rd, user, "client-certificate", &k->cert)) ||
		(rc = get_pem(rd, user, "client-key", &k->key)))
		return rc;
	if (!k->cert.where != !k->key.where)
		return refuse(rd, user->line, -EINVAL, "give both",
			"the user has a client-%s without a client-%s", k->cert.where ? "certificate" : "key",
			k->cert.where ? "key" : "certificate");
	if (!exec || (exec->kind == YAML_SCALAR && !yaml_text(exec)))
		return 0;
	if (k->token || k->token_file || k->cert.where)
		return refuse(rd, exec->line, -EINVAL, "remove one of the two", "the user has exec and a %s",
			k->cert.where ? "client-certificate" : "token");
	return read_exec(rd, exec, &k->exec);
}

static int read_context(struct reader *rd, struct kubeconfig *k)
{
	const struct yaml_node *current = NULL;
	const struct yaml_node *context = NULL;
	const struct yaml_node *cluster = NULL;
	const struct yaml_node *user = NULL;
	const char *name = NULL;
	const char *cluster_name, *user_name, *context_path;
	int rc;

	for (size_t i = 0; i < rd->n && (!name || !*name); i++) {
		rd->path = rd->paths[i];
		current = yaml_get(yamldoc_root(rd->files[i], 0), "current-context");
		name = yaml_text(current);
	}
	if (!name || !*name)
		return refuse(rd, current ? current->line : yamldoc_root(rd->files[rd->n - 1], 0)->line,
			-EINVAL, "kubectl config use-context NAME", "no current-context is set");
	k->origin = xasprintf("kubeconfig %s", rd->path);
	rc = find_named(rd, "contexts", "context", name, current->line, &context);
	if (rc)
		return rc;
	context_path = rd->path;
	cluster_name = yaml_text(yaml_get(context, "cluster"));
	user_name = yaml_text(yaml_get(context, "user"));
	if (!cluster_name)
		return refuse(rd, context->line, -EINVAL, NULL, "context \"%s\" names no cluster", name);
	rc = find_named(rd, "clusters", "cluster", cluster_name, context->line, &cluster);
	if (!rc)
		rc = read_cluster(rd, cluster, k);
	if (rc || !user_name || !*user_name)
		return rc;
	rd->path = context_path;
	rc = find_named(rd, "users", "user", user_name, context->line, &user);
	return rc ? rc : read_user(rd, user, k);
}

/* Takes one more file; one that is not there is passed over when it 'may_be_missing'. */
static int add_file(struct reader *rd, const char *path, bool may_be_missing, size_t *cap)
{
	struct yaml_stream *stream = NULL;
	const struct yaml_node *root;
	size_t cap_paths = rd->n ? *cap : 0;
	int rc;

	if (may_be_missing && access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	rc = yamldoc_read_file(path, &stream, rd->err);
	if (rc)
		return rc;
	*VEC_ADD(rd->paths, rd->n, cap_paths) = xstrdup(path);
	rd->n--;
	*VEC_ADD(rd->files, rd->n, *cap) = stream;
	rd->path = rd->paths[rd->n - 1];
	root = yamldoc_root(stream, 0);
	if (yamldoc_count(stream) != 1)
		return refuse(rd, 1, -EINVAL, NULL, "not a kubeconfig: %zu documents instead of one",
			yamldoc_count(stream));
	if (!root || root->kind != YAML_MAPPING)
		return refuse(rd, root ? root->line : 1, -EINVAL, NULL, "not a kubeconfig: no mapping");
	return 0;
}

/* 'path': one file, or with 'list' several with colons between. */
static int read_files(const char *path, bool list, struct kubeconfig *k, struct error *err)
{
	CLEANUP_FREE char *copy = xstrdup(path);
	struct reader rd = {.err = err};
	bool several = list && strchr(path, ':');
	char *rest = copy;
	size_t cap = 0;
	int rc = 0;

	while (rest && !rc) {
		char *one = several ? strsep(&rest, ":") : TAKE_PTR(rest);

		if (*one)
			rc = add_file(&rd, one, several, &cap);
	}
	if (!rc && !rd.n)
		rc = error_set(
			err, -ENOENT, "$KUBECONFIG", "correct it, or unset it", "none of its files is there");
	if (!rc)
		rc = read_context(&rd, k);
	for (size_t i = 0; i < rd.n; i++) {
		yamldoc_free(rd.files[i]);
		free(rd.paths[i]);
	}
	free(rd.files);
	free(rd.paths);
	return rc;
}

static int read_in_cluster(const char *host, struct kubeconfig *k, struct error *err)
{
	const char *folder = env("SLIPSTREAM_SERVICEACCOUNT");
	const char *port = env("KUBERNETES_SERVICE_PORT");

	if (!port)
		return error_set(err, -EINVAL, "in-cluster credentials",
			"unset KUBERNETES_SERVICE_HOST, or set both",
			"KUBERNETES_SERVICE_HOST is set but KUBERNETES_SERVICE_PORT is not");
	if (!folder)
		folder = SERVICEACCOUNT;
	k->origin = xstrdup("in-cluster credentials");
	k->server = strchr(host, ':') ? xasprintf("https://[%s]:%s", host, port)
				      : xasprintf("https://%s:%s", host, port);
	k->server_where = xstrdup("$KUBERNETES_SERVICE_HOST");
	k->token_file = xasprintf("%s/token", folder);
	k->ca.path = xasprintf("%s/ca.crt", folder);
	k->ca.where = xstrdup(k->ca.path);
	return 0;
}

static int find(const char *path, struct kubeconfig *k, struct error *err)
{
	CLEANUP_FREE char *home_path = NULL;
	const char *host = env("KUBERNETES_SERVICE_HOST");
	const char *home = env("HOME");

	if (path)
		return read_files(path, false, k, err);
	path = env("KUBECONFIG");
	if (path)
		return read_files(path, true, k, err);
	if (host)
		return read_in_cluster(host, k, err);
	if (home) {
		home_path = xasprintf("%s/.kube/config", home);
		if (access(home_path, F_OK) == 0)
			return read_files(home_path, false, k, err);
	}
	return error_set(err, -ENOENT, "API server",
		"give --kubeconfig FILE, or --manifests PATH to do without one",
		"no --kubeconfig, no $KUBECONFIG, not in a pod ($KUBERNETES_SERVICE_HOST is not set), no "
		"~/.kube/config");
}

int kubeconfig_find(const char *path, struct kubeconfig *ret, struct error *err)
{
	int rc;

	memset(ret, 0, sizeof(*ret));
	rc = find(path, ret, err);
	if (rc)
		kubeconfig_done(ret);
	return rc;
}
