/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/api_error.h"

#include "base/mem.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

static struct json_object *member(struct json_object *parent, const char *key, enum json_type type)
{
	struct json_object *value = NULL;

	if (json_object_is_type(parent, json_type_object))
		json_object_object_get_ex(parent, key, &value);
	return json_object_is_type(value, type) ? value : NULL;
}

static unsigned number(struct json_object *parent, const char *key)
{
	struct json_object *value = member(parent, key, json_type_int);
	int64_t n = value ? json_object_get_int64(value) : 0;

	return n > 0 && n < 1000000 ? (unsigned)n : 0;
}

/* What a server sends ends in a log line: one line, no control characters. */
static void copy_text(char *to, size_t size, const char *from, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n + 1 < size; i++)
		to[n++] = (unsigned char)from[i] < ' ' || from[i] == 0x7f ? ' ' : from[i];
	while (n && to[n - 1] == ' ')
		n--;
	to[n] = '\0';
}

static void member_text(struct json_object *parent, const char *key, char *to, size_t size)
{
	struct json_object *value = member(parent, key, json_type_string);

	if (value)
		copy_text(to, size, json_object_get_string(value), (size_t)json_object_get_string_len(value));
}

void api_status_read(struct json_object *json, struct api_status *ret)
{
	struct json_object *details = member(json, "details", json_type_object);
	struct json_object *causes = member(details, "causes", json_type_array);

	memset(ret, 0, sizeof(*ret));
	ret->code = number(json, "code");
	member_text(json, "reason", ret->reason, sizeof(ret->reason));
	member_text(json, "message", ret->message, sizeof(ret->message));
	ret->retry_after_s = number(details, "retryAfterSeconds");
	for (size_t i = 0; causes && i < json_object_array_length(causes); i++) {
		char reason[64] = "";

		member_text(json_object_array_get_idx(causes, i), "reason", reason, sizeof(reason));
		if (!strcmp(reason, "ResourceVersionTooLarge"))
			ret->version_too_large = true;
	}
	/* Some senders of ERROR events know only the reason. */
	if (!ret->code && (!strcmp(ret->reason, "Expired") || !strcmp(ret->reason, "Gone")))
		ret->code = 410;
	else if (!ret->code)
		ret->code = 500;
}

void api_status_parse(const char *body, size_t len, struct api_status *ret)
{
	struct json_tokener *tok = json_tokener_new();
	struct json_object *json = tok && len ? json_tokener_parse_ex(tok, body, (int)len) : NULL;

	if (json_object_is_type(json, json_type_object)) {
		api_status_read(json, ret);
	} else {
		memset(ret, 0, sizeof(*ret));
		if (len)
			copy_text(ret->message, sizeof(ret->message), body, len < 200 ? len : 200);
	}
	json_object_put(json);
	json_tokener_free(tok);
}

enum source_failure api_error(const struct kubeconfig *k, enum object_kind kind, bool watch, unsigned code,
	const struct api_status *status, struct error *err)
{
	const char *resource = object_kind_names[kind];
	const char *verb = watch ? "watch" : "list";
	const char *colon = status->message[0] ? ": " : "";
	CLEANUP_FREE char *server = xasprintf("API server %s", k->server);
	CLEANUP_FREE char *mend = NULL;

	switch (code) {
	case 401:
		mend = k->token_file ? xasprintf("renew the token in %s", k->token_file)
				     : xasprintf("renew the credentials of %s", k->origin);
		error_set(err, -EACCES, server, mend, "the server does not accept the credentials (401)%s%s",
			colon, status->message);
		error_at(err, k->server_where, 0);
		return SOURCE_FAILURE_UNAUTHORIZED;
	case 403:
		mend = xasprintf("allow list and watch of %s with a ClusterRole", resource);
		error_set(err, -EPERM, resource, mend, "not allowed to %s %s (403)%s%s", verb, resource,
			colon, status->message);
		return SOURCE_FAILURE_FORBIDDEN;
	case 404:
		error_set(err, -ENOENT, resource,
			"check the server's address; Kubernetes 1.21 or newer has all that is needed",
			"the server %s does not have %s (404)%s%s", k->server, resource, colon,
			status->message);
		return SOURCE_FAILURE_SERVER;
	case 410:
		error_set(err, -ESTALE, resource, NULL, "the version to %s from has expired (410)", verb);
		return SOURCE_FAILURE_EXPIRED;
	case 429:
		error_set(err, -EBUSY, resource, "it will be tried again when the server has time",
			"the API server has too many requests to %s %s (429)%s%s", verb, resource, colon,
			status->message);
		return SOURCE_FAILURE_THROTTLED;
	default:
		error_set(err, -EREMOTEIO, resource, NULL, "the API server fails to %s %s (%u)%s%s", verb,
			resource, code, colon, status->message);
		return SOURCE_FAILURE_SERVER;
	}
}
