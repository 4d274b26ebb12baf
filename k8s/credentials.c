/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/credentials.h"

#include "base/mem.h"
#include "k8s/exec_plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE (1 << 20) /* a bundle of every public CA is a quarter of that */

static void replace(struct credentials_item *item, char *data, size_t len)
{
	if (item->data)
		explicit_bzero(item->data, item->len);
	free(item->data);
	item->data = data;
	item->len = len;
}

/* The same for what TLS is made with. */
static void replace_tls(struct credentials *c, struct credentials_item *item, char *data, size_t len)
{
	if (!item->data || !data || item->len != len || memcmp(item->data, data, len))
		c->tls_generation++;
	replace(item, data, len);
}

static int no_read(const char *what, const char *path, int code, struct error *err)
{
	error_set(err, code, what, "check that the file is there and readable", "cannot read: %s",
		strerror(-code));
	error_at(err, path, 0);
	return code;
}

/* All of a file, NUL-terminated. 'seen' is what stat said about it. */
static int read_all(
	const char *what, const char *path, char **ret, size_t *ret_len, int64_t seen[4], struct error *err)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	size_t len = 0;
	char *data;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return no_read(what, path, -errno, err);
	if (!S_ISREG(st.st_mode) || st.st_size > MAX_FILE) {
		error_set(err, -EINVAL, what, "name the right file", "not a file of at most %d bytes",
			MAX_FILE);
		return error_at(err, path, 0), -EINVAL;
	}
	data = xmalloc(MAX_FILE + 1);
	while (len < MAX_FILE && (n = read(fd, data + len, MAX_FILE - len)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int code = -errno;

			explicit_bzero(data, len);
			free(data);
			return no_read(what, path, code, err);
		}
		len += (size_t)n;
	}
	data[len] = '\0';
	*ret = xmemdup(data, len + 1);
	*ret_len = len;
	explicit_bzero(data, len);
	free(data);
	seen[0] = (int64_t)st.st_dev;
	seen[1] = (int64_t)st.st_ino;
	seen[2] = (int64_t)st.st_size;
	seen[3] = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	return 0;
}

static bool same_file(const char *path, const int64_t seen[4])
{
	struct stat st;

	return stat(path, &st) == 0 && seen[0] == (int64_t)st.st_dev && seen[1] == (int64_t)st.st_ino &&
	       seen[2] == (int64_t)st.st_size &&
	       seen[3] == (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

static int refresh_pem(struct credentials *c, struct credentials_item *item,
	const struct kubeconfig_file *file, const char *what, struct error *err)
{
	int64_t seen[4];
	char *data;
	size_t len;
	int rc;

	if (file->data) {
		if (!item->data)
			replace_tls(c, item, xmemdup(file->data, file->len + 1), file->len);
		return 0;
	}
	if (!file->path || (item->data && same_file(file->path, item->seen)))
		return 0;
	rc = read_all(what, file->path, &data, &len, seen, err);
	if (rc)
		return rc;
	if (!strstr(data, "-----BEGIN ")) {
		explicit_bzero(data, len);
		free(data);
		error_set(err, -EINVAL, what, "name a PEM file", "the file holds no PEM");
		return error_at(err, file->path, 0), -EINVAL;
	}
	replace_tls(c, item, data, len);
	memcpy(item->seen, seen, sizeof(seen));
	return 0;
}

/* RFC 6750, section 2.1 allows less. */
bool credentials_token_ok(const char *token, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (token[i] <= ' ' || token[i] > '~')
			return false;
	return len > 0;
}

static int set_token(
	struct credentials_item *item, char *data, size_t len, const char *where, struct error *err)
{
	size_t start = strspn(data, " \t\r\n");
	char *token;

	while (len > start && strchr(" \t\r\n", data[len - 1]))
		len--;
	if (!credentials_token_ok(data + start, len - start)) {
		error_set(err, -EINVAL, "token", "put the bearer token there, nothing else",
			"it is empty, or has spaces or other characters that no token has");
		return error_at(err, where, 0), -EINVAL;
	}
	token = xstrndup(data + start, len - start);
	replace(item, token, len - start);
	return 0;
}

static int refresh_token(
	struct credentials *c, const struct kubeconfig *k, uint64_t now, bool refused, struct error *err)
{
	int64_t seen[4];
	char *data;
	size_t len;
	int rc;

	if (!k->token_file) {
		if (!k->token || c->token.data)
			return 0;
		return set_token(&c->token, k->token, strlen(k->token), k->origin, err);
	}
	if (c->token.data && !refused && now - c->token_read < CREDENTIALS_TOKEN_MS)
		return 0;
	c->token_read = now;
	rc = read_all("token", k->token_file, &data, &len, seen, err);
	if (rc)
		return rc;
	rc = set_token(&c->token, data, len, k->token_file, err);
	explicit_bzero(data, len);
	free(data);
	return rc;
}

int credentials_refresh(struct credentials *c, const struct kubeconfig *k, uint64_t now, bool token_refused,
	struct error *err)
{
	struct error first = {0};
	struct error later;
	int rc = refresh_token(c, k, now, token_refused, &first);
	int other;

	/* A certificate and its key change together; each is looked at by itself, and a pair that does not
	 * match yet fails once in TLS and is read again for the next request. */
	if ((other = refresh_pem(c, &c->ca, &k->ca, "certificate-authority", rc ? &later : &first)) && !rc)
		rc = other;
	if ((other = refresh_pem(c, &c->cert, &k->cert, "client-certificate", rc ? &later : &first)) && !rc)
		rc = other;
	if ((other = refresh_pem(c, &c->key, &k->key, "client-key", rc ? &later : &first)) && !rc)
		rc = other;
	if (rc && err)
		*err = first;
	return rc;
}

void credentials_take(struct credentials *c, struct exec_credential *from)
{
	replace(&c->token, from->token, from->token ? strlen(from->token) : 0);
	if (from->cert || c->cert.data) {
		replace_tls(c, &c->cert, from->cert, from->cert ? strlen(from->cert) : 0);
		replace_tls(c, &c->key, from->key, from->key ? strlen(from->key) : 0);
	}
	c->from_plugin = true;
	c->expires = from->expires;
	memset(from, 0, sizeof(*from));
}

bool credentials_fresh(const struct credentials *c, int64_t unix_now)
{
	return c->from_plugin && (!c->expires || unix_now < c->expires);
}

void credentials_done(struct credentials *c)
{
	replace(&c->ca, NULL, 0);
	replace(&c->cert, NULL, 0);
	replace(&c->key, NULL, 0);
	replace(&c->token, NULL, 0);
	memset(c, 0, sizeof(*c));
}
