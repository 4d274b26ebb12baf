/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_JSON_SPLIT_H
#define K8S_JSON_SPLIT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * json_split: cuts the body of a LIST or WATCH response into single objects as the bytes come, so that memory is one
 * object, never a response. Members that no decoder reads are dropped at any depth before json-c sees them: managedFields,
 * ownerReferences, the annotation kubectl.kubernetes.io/last-applied-configuration; of endpoints targetRef, nodeName, zone,
 * hints; of Nodes images, nodeInfo, capacity, allocatable, volumesInUse, volumesAttached. No descriptor, no clock: bytes in,
 * callbacks out, cut anywhere.
 *
 * LIST:  {"kind":...,"metadata":{"resourceVersion":"...","continue":"..."},"items":[OBJECT,...]} in any member order;
 *        'item' is called with each element of the top-level "items" ("items": null is an empty list). A body that is
 *        not a list (a Status) yields no items; 'rest' gets everything but the items at the end as one JSON object.
 * WATCH: a sequence of {"type":"ADDED","object":{...}} values separated by white space; 'item' is called with each whole
 *        value.
 *
 * A callback returns 0 to go on, or a negative errno, which json_split_feed() returns at once. Object bytes are valid
 * during the callback only.
 */
enum json_split_mode { JSON_SPLIT_LIST, JSON_SPLIT_WATCH };

struct json_split_callbacks {
	int (*item)(void *arg, const char *json, size_t len);
	int (*rest)(void *arg, const char *json, size_t len); /* LIST only; may be NULL */
	void *arg;
};

struct json_split;

/* 'max_object': bytes of one object after dropping; a larger one fails with -EMSGSIZE. */
struct json_split *json_split_new(
	enum json_split_mode mode, size_t max_object, const struct json_split_callbacks *cb);
void json_split_free(struct json_split *s);
/* -EINVAL: not JSON of that shape (structure is checked here, values by the decoder). The splitter is unusable after a failure. */
int json_split_feed(struct json_split *s, const char *data, size_t len, struct error *err);
/* Call at the end of the body: -EPROTO when it ended inside an object, else 0. */
int json_split_end(struct json_split *s, struct error *err);

#endif
