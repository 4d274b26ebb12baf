/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/exec_plugin.h"

#include "base/mem.h"
#include "k8s/credentials.h"
#include "k8s/json_tree.h"

#include <ctype.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_OUTPUT (256 << 10)
#define MAX_WORDS 4096
#define MAX_DEPTH 16
#define MAX_READS 256

extern char **environ;

/* One pipe from the program. Of what does not fit into 'size' the last is kept. */
struct output {
	struct event ev;
	int fd;
	char *data;
	size_t len, size;
	bool too_long;
};

struct exec_plugin {
	const struct kubeconfig_exec *exec;
	pid_t pid;
	int pidfd;
	struct event ended, limit;
	unsigned limit_ms;
	bool too_late;
	struct output out, words;
	exec_plugin_done *done;
	void *arg;
};

static void forget(char *text)
{
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
}

void exec_credential_done(struct exec_credential *c)
{
	forget(c->token);
	forget(c->cert);
	forget(c->key);
	memset(c, 0, sizeof(*c));
}

static int fail(const struct kubeconfig_exec *exec, struct error *err, int code, const char *mend,
	const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static int fail(const struct kubeconfig_exec *exec, struct error *err, int code, const char *mend,
	const char *fmt, ...)
{
	CLEANUP_FREE char *object = xasprintf("exec plugin %s", exec->command);
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	error_set(err, code, object, mend, "%s", what);
	error_at(err, exec->where, 0);
	return code;
}

/* --- what it is told --- */

static char *base64(const char *text)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *in = (const unsigned char *)text;
	size_t len = strlen(text);
	char *out = xmalloc(len / 3 * 4 + 5);
	size_t n = 0;

	for (size_t i = 0; i < len; i += 3) {
		size_t left = len - i;
		unsigned bits = (unsigned)in[i] << 16 | (left > 1 ? (unsigned)in[i + 1] << 8 : 0) |
				(left > 2 ? in[i + 2] : 0);

		out[n++] = alphabet[bits >> 18];
		out[n++] = alphabet[bits >> 12 & 63];
		out[n++] = left > 1 ? alphabet[bits >> 6 & 63] : '=';
		out[n++] = left > 2 ? alphabet[bits & 63] : '=';
	}
	out[n] = '\0';
	return out;
}

static void add_text(struct json_object *to, const char *key, const char *text)
{
	if (text)
		json_object_object_add(to, key, json_object_new_string(text));
}

/* KUBERNETES_EXEC_INFO=... */
static char *exec_info(const struct kubeconfig *k, const char *ca)
{
	struct json_object *root = json_object_new_object();
	struct json_object *spec = json_object_new_object();
	CLEANUP_FREE char *text = NULL;
	char *line;

	add_text(root, "apiVersion", k->exec.api_version);
	add_text(root, "kind", "ExecCredential");
	json_object_object_add(root, "spec", spec);
	json_object_object_add(spec, "interactive", json_object_new_boolean(false));
	if (k->exec.provide_cluster_info) {
		struct json_object *cluster = json_object_new_object();
		CLEANUP_FREE char *ca64 = ca ? base64(ca) : NULL;

		json_object_object_add(spec, "cluster", cluster);
		add_text(cluster, "server", k->server);
		add_text(cluster, "tls-server-name", k->tls_server_name);
		if (k->insecure)
			json_object_object_add(
				cluster, "insecure-skip-tls-verify", json_object_new_boolean(true));
		add_text(cluster, "certificate-authority-data", ca64);
		add_text(cluster, "proxy-url", k->proxy_url);
		if (k->exec.config)
			json_object_object_add(cluster, "config", json_tokener_parse(k->exec.config));
	}
	text = json_tree_text(root);
	line = xasprintf("KUBERNETES_EXEC_INFO=%s", text);
	json_object_put(root);
	return line;
}

static bool same_name(const char *a, const char *b)
{
	size_t len = strcspn(a, "=");

	return len == strcspn(b, "=") && !strncmp(a, b, len);
}

/* Ours with 'exec->env' and 'info' instead of what has the same names; the array is the caller's, not the
 * texts. */
static char **environment(const struct kubeconfig_exec *exec, char *info)
{
	size_t n = 0;
	size_t kept = 0;
	char **env;

	while (environ[n])
		n++;
	env = xcalloc(n + exec->n_env + 2, sizeof(*env));
	for (size_t i = 0; i < n; i++) {
		bool replaced = same_name(environ[i], info);

		for (size_t j = 0; j < exec->n_env && !replaced; j++)
			replaced = same_name(environ[i], exec->env[j]);
		if (!replaced)
			env[kept++] = environ[i];
	}
	for (size_t j = 0; j < exec->n_env; j++)
		if (!same_name(exec->env[j], info))
			env[kept++] = exec->env[j];
	env[kept] = info;
	return env;
}

/* --- what it says --- */

/* RFC 3339, section 5.6; 0 for what is not. */
static int64_t parse_time(const char *text)
{
	struct tm tm = {0};
	const char *at = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	int64_t offset = 0;
	unsigned hours, minutes;
	int used = 0;

	if (!at)
		return 0;
	if (*at == '.')
		for (at++; isdigit((unsigned char)*at); at++)
			;
	if (*at == 'Z') {
		used = 1;
	} else if (sscanf(at, "%*1[+-]%2u:%2u%n", &hours, &minutes, &used) == 2 && used == 6) {
		offset = (int64_t)hours * 3600 + (int64_t)minutes * 60;
		if (*at == '-')
			offset = -offset;
	}
	return used && !at[used] ? (int64_t)timegm(&tm) - offset : 0;
}

/* The string member 'key' of 'object', NULL when absent or empty. False for another type. */
static bool get_text(struct json_object *object, const char *key, const char **ret)
{
	struct json_object *value;

	*ret = NULL;
	if (!json_object_object_get_ex(object, key, &value) || !value)
		return true;
	if (!json_object_is_type(value, json_type_string))
		return false;
	if (json_object_get_string_len(value))
		*ret = json_object_get_string(value);
	return true;
}

static int no_credential(const struct kubeconfig_exec *exec, struct error *err, const char *why)
{
	return fail(exec, err, -EPROTO, "run it by hand, with KUBERNETES_EXEC_INFO set",
		"what it printed is no ExecCredential: %s", why);
}

static int read_status(const struct kubeconfig_exec *exec, struct json_object *root,
	struct exec_credential *ret, struct error *err)
{
	struct json_object *status;
	const char *version, *kind, *token, *cert, *key, *expires;

	if (!json_object_is_type(root, json_type_object) || !get_text(root, "kind", &kind) || !kind ||
		strcmp(kind, "ExecCredential"))
		return no_credential(exec, err, "kind is another one");
	if (!get_text(root, "apiVersion", &version) || !version || strcmp(version, exec->api_version))
		return no_credential(exec, err, "apiVersion is not the one that the kubeconfig has");
	if (!json_object_object_get_ex(root, "status", &status) ||
		!json_object_is_type(status, json_type_object))
		return no_credential(exec, err, "it has no status");
	if (!get_text(status, "token", &token) || !get_text(status, "clientCertificateData", &cert) ||
		!get_text(status, "clientKeyData", &key) ||
		!get_text(status, "expirationTimestamp", &expires))
		return no_credential(exec, err, "a member of status is not a string");
	if (!token && !cert && !key)
		return no_credential(exec, err, "status has neither token nor clientCertificateData");
	if (!cert != !key)
		return no_credential(
			exec, err, "status has one of clientCertificateData and clientKeyData alone");
	if (token && !credentials_token_ok(token, strlen(token)))
		return no_credential(exec, err, "the token has characters that no token has");
	if (cert && (!strstr(cert, "-----BEGIN ") || !strstr(key, "-----BEGIN ")))
		return no_credential(exec, err, "clientCertificateData or clientKeyData holds no PEM");
	if (expires) {
		ret->expires = parse_time(expires);
		if (ret->expires <= 0)
			return no_credential(
				exec, err, "expirationTimestamp is not a time like 2006-01-02T15:04:05Z");
	}
	ret->token = token ? xstrdup(token) : NULL;
	ret->cert = cert ? xstrdup(cert) : NULL;
	ret->key = key ? xstrdup(key) : NULL;
	return 0;
}

/* json-c frees its strings as they are. */
static void wipe(struct json_object *root)
{
	static const char *const members[] = {"token", "clientKeyData"};
	struct json_object *status = NULL;

	json_object_object_get_ex(root, "status", &status);
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		struct json_object *value = NULL;

		if (json_object_is_type(status, json_type_object) &&
			json_object_object_get_ex(status, members[i], &value) &&
			json_object_is_type(value, json_type_string))
			explicit_bzero((char *)(uintptr_t)json_object_get_string(value),
				(size_t)json_object_get_string_len(value));
	}
}

int exec_plugin_parse(const struct kubeconfig_exec *exec, const char *text, size_t len,
	struct exec_credential *ret, struct error *err)
{
	struct json_tokener *t = json_tokener_new_ex(MAX_DEPTH);
	struct json_object *root = json_tokener_parse_ex(t, text, (int)len);
	size_t end = json_tokener_get_parse_end(t);
	bool ok = json_tokener_get_error(t) == json_tokener_success;
	int rc;

	memset(ret, 0, sizeof(*ret));
	while (ok && end < len && strchr(" \t\r\n", text[end]))
		end++;
	json_tokener_free(t);
	if (!ok || end != len)
		rc = no_credential(exec, err, len ? "it is not one JSON value" : "it is empty");
	else
		rc = read_status(exec, root, ret, err);
	if (json_object_is_type(root, json_type_object))
		wipe(root);
	json_object_put(root);
	return rc;
}

/* May be part of a credential: of base64 and base64url too, but a path's '/' is none. */
static bool is_secret_char(const char *text, size_t run, size_t i)
{
	if (text[i] == '/')
		return run && (i == run || text[i - run - 1] != '/');
	return text[i] && (isalnum((unsigned char)text[i]) || strchr("_-.+=~%", text[i]));
}

/* The last line that is not empty; words that are long enough to be credentials become "...". In place. */
static const char *last_line(struct output *words)
{
	char *text = words->data;
	size_t end = words->len;
	size_t start, run = 0;

	while (end && isspace((unsigned char)text[end - 1]))
		end--;
	text[end] = '\0';
	for (start = end; start && text[start - 1] != '\n'; start--)
		;
	for (size_t i = start; i <= end; i++) {
		if (is_secret_char(text, run, i)) {
			run++;
			continue;
		}
		if (run >= 32) {
			memmove(text + i - run + 3, text + i, end - i + 1);
			memset(text + i - run, '.', 3);
			end -= run - 3;
			i -= run - 3;
		}
		run = 0;
	}
	return text + start;
}

/* --- its run --- */

/* False: there is nothing more for now, or for good. */
static bool read_some(struct output *o)
{
	ssize_t n;

	if (o->len == o->size) {
		o->too_long = true;
		o->len /= 2;
		memmove(o->data, o->data + o->size - o->len, o->len);
	}
	n = read(o->fd, o->data + o->len, o->size - o->len);
	if (n > 0)
		o->len += (size_t)n;
	/* The end, and not only the end of what is there. */
	if (n == 0)
		event_del(&o->ev);
	return n > 0 || (n < 0 && errno == EINTR);
}

/* What is left at the end; a descendant of the program may write on for ever. */
static void drain(struct output *o)
{
	for (int i = 0; i < MAX_READS && read_some(o); i++)
		;
}

static void on_output(evutil_socket_t fd, short events, void *arg)
{
	(void)fd;
	(void)events;
	read_some(arg); /* the loop comes back while there is more */
}

static void end(struct exec_plugin *p, int status)
{
	exec_plugin_done *done = p->done;
	void *arg = p->arg;
	struct exec_credential credential = {0};
	struct error err = {0};
	const char *words;
	int rc;

	drain(&p->out);
	drain(&p->words);
	words = last_line(&p->words);
	if (p->too_late)
		rc = fail(p->exec, &err, -ETIMEDOUT, "run it by hand: it may want input that nobody gives",
			"it gave no answer within %u s", p->limit_ms / 1000);
	else if (WIFSIGNALED(status))
		rc = fail(p->exec, &err, -EIO, NULL, "it was ended by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status))
		rc = fail(p->exec, &err, -EIO, p->exec->install_hint, "it failed with status %d%s%.300s",
			WEXITSTATUS(status), *words ? ": " : "", words);
	else if (p->out.too_long)
		rc = fail(p->exec, &err, -EFBIG, NULL, "it printed more than %d bytes", MAX_OUTPUT);
	else
		rc = exec_plugin_parse(p->exec, p->out.data, p->out.len, &credential, &err);
	p->pid = 0;
	exec_plugin_free(p);
	done(arg, rc, rc ? NULL : &credential, rc ? &err : NULL);
	exec_credential_done(&credential);
}

static void on_end(evutil_socket_t fd, short events, void *arg)
{
	struct exec_plugin *p = arg;
	int status;

	(void)fd;
	(void)events;
	if (waitpid(p->pid, &status, WNOHANG) == p->pid)
		end(p, status);
}

static void on_limit(evutil_socket_t fd, short events, void *arg)
{
	struct exec_plugin *p = arg;

	(void)fd;
	(void)events;
	p->too_late = true;
	kill(-p->pid, SIGKILL);
}

static void output_init(struct output *o, struct event_base *base, int fd, size_t size)
{
	o->fd = fd;
	o->size = size;
	o->data = xcalloc(1, size + 1);
	event_assign(&o->ev, base, fd, EV_READ | EV_PERSIST, on_output, o);
	event_add(&o->ev, NULL);
}

static void output_done(struct output *o)
{
	if (!o->data)
		return;
	event_del(&o->ev);
	close(o->fd);
	explicit_bzero(o->data, o->size);
	free(o->data);
}

/* Returns a positive errno as posix_spawn() does. */
static int spawn(const struct kubeconfig_exec *exec, char **env, int out, int words, pid_t *pid)
{
	CLEANUP_FREE char **argv = xcalloc(exec->n_args + 2, sizeof(*argv));
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t none, defaults;
	int rc;

	argv[0] = exec->command;
	for (size_t i = 0; i < exec->n_args; i++)
		argv[i + 1] = exec->args[i];
	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attributes);
	rc = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(&files, words, STDERR_FILENO);
	posix_spawnattr_setflags(
		&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	if (!rc)
		rc = posix_spawnp(pid, exec->command, &files, &attributes, argv, env);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attributes);
	return rc;
}

/* The end that is read does not block; the program's does. */
static int make_pipe(int fds[2])
{
	if (pipe2(fds, O_CLOEXEC) < 0)
		return errno;
	return fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 ? errno : 0;
}

int exec_plugin_start(struct event_base *base, const struct kubeconfig *k, const char *ca, unsigned limit_ms,
	exec_plugin_done *done, void *arg, struct exec_plugin **ret, struct error *err)
{
	CLEANUP_FREE char *info = exec_info(k, ca);
	CLEANUP_FREE char **env = environment(&k->exec, info);
	struct timeval limit = {.tv_sec = limit_ms / 1000, .tv_usec = (suseconds_t)(limit_ms % 1000) * 1000};
	int out[2] = {-1, -1}, words[2] = {-1, -1};
	struct exec_plugin *p = xcalloc(1, sizeof(*p));
	int code = make_pipe(out);

	*ret = NULL;
	/* Ignored, as whoever started us may have left it, the program's end would not be told. */
	signal(SIGCHLD, SIG_DFL);
	p->exec = &k->exec;
	p->limit_ms = limit_ms;
	p->done = done;
	p->arg = arg;
	p->pidfd = -1;
	if (!code)
		code = make_pipe(words);
	if (!code)
		code = spawn(&k->exec, env, out[1], words[1], &p->pid);
	if (!code && (p->pidfd = pidfd_open(p->pid, 0)) < 0)
		code = errno;
	cleanup_close(&out[1]);
	cleanup_close(&words[1]);
	if (code) {
		cleanup_close(&out[0]);
		cleanup_close(&words[0]);
		exec_plugin_free(p);
		return fail(&k->exec, err, -code,
			k->exec.install_hint ? k->exec.install_hint
					     : "install the program, or correct users[].user.exec.command",
			"it cannot be started: %s", strerror(code));
	}
	output_init(&p->out, base, out[0], MAX_OUTPUT);
	output_init(&p->words, base, words[0], MAX_WORDS);
	event_assign(&p->ended, base, p->pidfd, EV_READ | EV_PERSIST, on_end, p);
	event_add(&p->ended, NULL);
	evtimer_assign(&p->limit, base, on_limit, p);
	event_add(&p->limit, &limit);
	*ret = p;
	return 0;
}

void exec_plugin_free(struct exec_plugin *p)
{
	if (!p)
		return;
	if (p->pid > 0) {
		kill(-p->pid, SIGKILL);
		waitpid(p->pid, NULL, 0);
	}
	if (p->limit_ms && p->out.data) {
		event_del(&p->ended);
		event_del(&p->limit);
	}
	cleanup_close(&p->pidfd);
	output_done(&p->out);
	output_done(&p->words);
	free(p);
}
