/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/api_body.h"

#include "base/mem.h"
#include "k8s/decode.h"
#include "k8s/json_split.h"
#include "k8s/json_tree.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

/* etcd takes 1.5 MiB of protobuf for one object; as JSON that is some times more. */
#define MAX_OBJECT (8 << 20)

struct api_body {
	struct cluster *cluster;
	struct api_body_format format;
	struct api_body_owner owner;
	struct json_split *split;
	char *version, *cont;
	struct api_status error;
};

static struct json_object *json_member(struct json_object *parent, const char *key)
{
	struct json_object *value = NULL;

	if (json_object_is_type(parent, json_type_object))
		json_object_object_get_ex(parent, key, &value);
	return value;
}

static const char *json_text(struct json_object *parent, const char *key)
{
	struct json_object *value = json_member(parent, key);

	return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
}

static void put_object(struct api_body *b, struct json_object *json)
{
	struct json_object *metadata = json_member(json, "metadata");
	const char *namespace = json_text(metadata, "namespace");
	const char *name = json_text(metadata, "name");
	struct object object;
	struct error err = {0};
	int rc = b->format.endpoints ? decode_endpoints(json, &object, &err)
				     : decode_json(b->format.kind, json, &object, &err);

	if (!rc) {
		if (decode_put(b->cluster, &object))
			b->owner.changed(b->owner.arg);
		return;
	}
	b->owner.bad_object(b->owner.arg, &err);
	if (name)
		cluster_relist_keep(b->cluster, b->format.kind, namespace ? namespace : "", name);
}

static void delete_object(struct api_body *b, struct json_object *json)
{
	struct json_object *metadata = json_member(json, "metadata");
	const char *namespace = json_text(metadata, "namespace");
	const char *name = json_text(metadata, "name");

	if (name && cluster_delete(b->cluster, b->format.kind, namespace ? namespace : "", name))
		b->owner.changed(b->owner.arg);
}

static int on_list_item(void *arg, const char *json, size_t len)
{
	struct api_body *b = arg;
	struct json_object *root;
	int rc = json_tree_parse(json, len, &root, NULL);

	/* Nobody knows whose version of before is to stay. */
	if (rc)
		return rc;
	put_object(b, root);
	json_object_put(root);
	return 0;
}

/* ServiceList, List, ... */
static bool is_list_kind(const char *kind)
{
	size_t len = kind ? strlen(kind) : 0;

	return len >= 4 && !strcmp(kind + len - 4, "List");
}

static int on_list_rest(void *arg, const char *json, size_t len)
{
	struct api_body *b = arg;
	struct json_object *root, *metadata;
	const char *version, *cont;

	if (json_tree_parse(json, len, &root, NULL))
		return -EINVAL;
	/* Whatever something in between made of it must not pass for an empty list. */
	if (!is_list_kind(json_text(root, "kind"))) {
		json_object_put(root);
		return -EPROTO;
	}
	metadata = json_member(root, "metadata");
	version = json_text(metadata, "resourceVersion");
	cont = json_text(metadata, "continue");
	b->version = version ? xstrdup(version) : NULL;
	b->cont = cont ? xstrdup(cont) : NULL;
	json_object_put(root);
	return 0;
}

static bool event_type(const char *text, enum reflector_event *ret)
{
	static const char *const names[] = {
		[REFLECTOR_ADDED] = "ADDED",
		[REFLECTOR_MODIFIED] = "MODIFIED",
		[REFLECTOR_DELETED] = "DELETED",
		[REFLECTOR_BOOKMARK] = "BOOKMARK",
		[REFLECTOR_ERROR] = "ERROR",
	};

	for (size_t i = 0; text && i < ARRAY_SIZE(names); i++) {
		if (!strcmp(text, names[i])) {
			*ret = (enum reflector_event)i;
			return true;
		}
	}
	return false;
}

static void pass_event(struct api_body *b, struct reflector_input *in, struct json_object *object)
{
	struct json_object *metadata = json_member(object, "metadata");
	const char *end = json_text(json_member(metadata, "annotations"), "k8s.io/initial-events-end");

	in->version = json_text(metadata, "resourceVersion");
	switch (in->event) {
	case REFLECTOR_ADDED:
	case REFLECTOR_MODIFIED:
		put_object(b, object);
		break;
	case REFLECTOR_DELETED:
		delete_object(b, object);
		break;
	case REFLECTOR_BOOKMARK:
		in->initial_end = end && !strcmp(end, "true");
		break;
	case REFLECTOR_ERROR:
		break;
	}
	b->owner.event(b->owner.arg, in);
}

/* One value of a watch's stream. */
static int on_watch_item(void *arg, const char *json, size_t len)
{
	struct api_body *b = arg;
	struct reflector_input in = {.kind = REFLECTOR_EVENT};
	struct json_object *root, *object;
	int rc = 0;

	if (json_tree_parse(json, len, &root, NULL))
		return -EINVAL;
	object = json_member(root, "object");
	if (!object || !event_type(json_text(root, "type"), &in.event)) {
		rc = -EINVAL;
	} else if (in.event == REFLECTOR_ERROR) {
		api_status_read(object, &b->error);
		rc = -ECANCELED; /* the rest of the stream means nothing any more */
	} else {
		pass_event(b, &in, object);
	}
	json_object_put(root);
	return rc;
}

struct api_body *api_body_new(
	struct cluster *c, const struct api_body_format *format, const struct api_body_owner *owner)
{
	struct api_body *b = xcalloc(1, sizeof(*b));
	struct json_split_callbacks cb = {on_list_item, on_list_rest, b};

	b->cluster = c;
	b->format = *format;
	b->owner = *owner;
	if (format->watch)
		cb = (struct json_split_callbacks){on_watch_item, NULL, b};
	b->split = json_split_new(format->watch ? JSON_SPLIT_WATCH : JSON_SPLIT_LIST, MAX_OBJECT, &cb);
	return b;
}

void api_body_free(struct api_body *b)
{
	if (!b)
		return;
	json_split_free(b->split);
	free(b->version);
	free(b->cont);
	free(b);
}

int api_body_feed(struct api_body *b, const char *data, size_t len, struct error *err)
{
	return json_split_feed(b->split, data, len, err);
}

int api_body_end(struct api_body *b, struct error *err)
{
	return json_split_end(b->split, err);
}

const char *api_body_version(const struct api_body *b)
{
	return b->version;
}

const char *api_body_continue(const struct api_body *b)
{
	return b->cont;
}

const struct api_status *api_body_error(const struct api_body *b)
{
	return &b->error;
}
