/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/kubeconfig.h"

#include "base/mem.h"
#include "base/yamldoc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define SERVICEACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount"

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
	const char *path;
	struct error *err;
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

/* The value of 'field' in the item of the list 'list' whose name is 'name'. */
static int find_named(struct reader *rd, const struct yaml_node *root, const char *list, const char *field,
	const char *name, unsigned used_at, const struct yaml_node **ret)
{
	const struct yaml_node *items = yaml_get(root, list);

	if (items && items->kind == YAML_SEQUENCE) {
		for (size_t i = 0; i < items->n; i++) {
			const char *text = yaml_text(yaml_get(items->items[i], "name"));

			if (!text || strcmp(text, name))
				continue;
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

static int read_cluster(struct reader *rd, const struct yaml_node *cluster, struct kubeconfig *k)
{
	unsigned line = cluster->line;
	int rc = get_text(rd, cluster, "server", &k->server, &line);

	if (rc)
		return rc;
	if (!k->server)
		return refuse(rd, line, -EINVAL, "give the API server's https:// address",
			"the cluster has no server");
	if (strncasecmp(k->server, "https://", 8) && strncasecmp(k->server, "http://", 7))
		return refuse(rd, line, -EINVAL, "give the API server's https:// address",
			"server \"%s\" is no https:// address", k->server);
	while (k->server[strlen(k->server) - 1] == '/')
		k->server[strlen(k->server) - 1] = '\0';
	if (k->server[strlen(k->server) - 1] == ':')
		return refuse(rd, line, -EINVAL, "give the API server's https:// address",
			"server \"%s//\" names no host", k->server);
	k->server_where = xasprintf("%s:%u", rd->path, line);
	if ((rc = get_bool(rd, cluster, "insecure-skip-tls-verify", &k->insecure)) ||
		(rc = get_text(rd, cluster, "tls-server-name", &k->tls_server_name, NULL)) ||
		(rc = get_text(rd, cluster, "proxy-url", &k->proxy_url, NULL)) ||
		(rc = get_pem(rd, cluster, "certificate-authority", &k->ca)))
		return rc;
	if (k->insecure && (k->ca.path || k->ca.data))
		return refuse(rd, line, -EINVAL, "remove one of the two",
			"the cluster has insecure-skip-tls-verify and a certificate-authority");
	return 0;
}

static int read_user(struct reader *rd, const struct yaml_node *user, struct kubeconfig *k)
{
	static const char *const refused[] = {"exec", "auth-provider", "username", "password", "as", "as-uid",
		"as-groups", "as-user-extra"};
	int rc;

	for (size_t i = 0; i < user->n; i++)
		for (size_t j = 0; j < ARRAY_SIZE(refused); j++)
			if (!strcmp(user->pairs[i].key, refused[j]))
				return refuse(rd, user->pairs[i].line, -ENOTSUP,
					"use token, tokenFile or client-certificate(-data) with "
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
	return 0;
}

static int read_context(struct reader *rd, const struct yaml_node *root, struct kubeconfig *k)
{
	const struct yaml_node *current = yaml_get(root, "current-context");
	const struct yaml_node *context = NULL;
	const struct yaml_node *cluster = NULL;
	const struct yaml_node *user = NULL;
	const char *name = yaml_text(current);
	const char *cluster_name;
	const char *user_name;
	int rc;

	if (!root || root->kind != YAML_MAPPING)
		return refuse(rd, root ? root->line : 1, -EINVAL, NULL, "not a kubeconfig: no mapping");
	if (!name || !*name)
		return refuse(rd, current ? current->line : root->line, -EINVAL,
			"kubectl config use-context NAME", "no current-context is set");
	rc = find_named(rd, root, "contexts", "context", name, current->line, &context);
	if (rc)
		return rc;
	cluster_name = yaml_text(yaml_get(context, "cluster"));
	user_name = yaml_text(yaml_get(context, "user"));
	if (!cluster_name)
		return refuse(rd, context->line, -EINVAL, NULL, "context \"%s\" names no cluster", name);
	rc = find_named(rd, root, "clusters", "cluster", cluster_name, context->line, &cluster);
	if (!rc)
		rc = read_cluster(rd, cluster, k);
	if (rc || !user_name || !*user_name)
		return rc;
	rc = find_named(rd, root, "users", "user", user_name, context->line, &user);
	return rc ? rc : read_user(rd, user, k);
}

static int read_file(const char *path, struct kubeconfig *k, struct error *err)
{
	struct reader rd = {.path = path, .err = err};
	struct yaml_stream *stream = NULL;
	int rc = yamldoc_read_file(path, &stream, err);

	if (rc)
		return rc;
	if (yamldoc_count(stream) != 1)
		rc = refuse(&rd, 1, -EINVAL, NULL, "not a kubeconfig: %zu documents instead of one",
			yamldoc_count(stream));
	else
		rc = read_context(&rd, yamldoc_root(stream, 0), k);
	yamldoc_free(stream);
	k->origin = xasprintf("kubeconfig %s", path);
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
		return read_file(path, k, err);
	path = env("KUBECONFIG");
	if (path && strchr(path, ':'))
		return error_set(err, -EINVAL, "$KUBECONFIG", "name one with --kubeconfig",
			"several files are named; slipstream does not merge them");
	if (path)
		return read_file(path, k, err);
	if (host)
		return read_in_cluster(host, k, err);
	if (home) {
		home_path = xasprintf("%s/.kube/config", home);
		if (access(home_path, F_OK) == 0)
			return read_file(home_path, k, err);
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
