/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/json_split.h"
#include "base/mem.h"
#include "base/strbuf.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#define MAX_DEPTH 128

enum state {
	TOP,          /* between top-level values */
	VALUE,        /* a value must come: after ':' or after ',' in an array */
	VALUE_OR_END, /* after '[' */
	KEY,          /* after ',' in an object */
	KEY_OR_END,   /* after '{' */
	COLON,
	COMMA_OR_END,
	STRING,
	SCALAR, /* number, true, false, null */
};

static const char *const expected[] = {
	[TOP] = "an object",
	[VALUE] = "a value",
	[VALUE_OR_END] = "a value or ]",
	[KEY] = "a member's name",
	[KEY_OR_END] = "a member's name or }",
	[COLON] = "a colon",
	[COMMA_OR_END] = "a comma or the end",
};

/* Bits of a frame, one per open container. */
#define FRAME_OBJECT 1
#define FRAME_KEPT 2 /* object: a member was let through, so that the next one needs the comma before it */

struct json_split {
	enum json_split_mode mode;
	size_t max_object;
	struct json_split_callbacks cb;

	enum state state;
	bool is_key;      /* STRING: a member's name */
	bool escaped;     /* STRING: the last byte was a backslash that counts */
	bool items_value; /* the value to come is that of the top-level "items" */
	bool in_items;
	bool items_seen;
	bool list_done;
	unsigned skip_depth; /* != 0: the value of a dropped member of the object at this depth */
	unsigned depth;
	uint8_t frames[MAX_DEPTH];

	/*
	 * What is let through is copied in runs: 'run' is where the present one begins in the bytes being
	 * fed, NULL while nothing is let through. 'object' collects an item, 'rest' the list without items.
	 */
	const char *run;
	bool open; /* a run goes on with the next feed */
	struct strbuf object;
	struct strbuf rest;
	size_t member; /* where a member that is to be dropped begins in the output, its comma included */
	char key[48];  /* the part of a name that came with earlier feeds; the longest that is dropped */
	size_t key_len;

	uint64_t offset; /* of the bytes being fed in the body */
	int failed;
};

struct json_split *json_split_new(
	enum json_split_mode mode, size_t max_object, const struct json_split_callbacks *cb)
{
	struct json_split *s = xcalloc(1, sizeof(*s));

	s->mode = mode;
	s->max_object = max_object;
	s->cb = *cb;
	return s;
}

void json_split_free(struct json_split *s)
{
	if (!s)
		return;
	strbuf_done(&s->object);
	strbuf_done(&s->rest);
	free(s);
}

static struct strbuf *output(struct json_split *s)
{
	return s->mode == JSON_SPLIT_LIST && !s->in_items ? &s->rest : &s->object;
}

static int flush(struct json_split *s, const char *p)
{
	struct strbuf *out = output(s);
	size_t len = s->run ? (size_t)(p - s->run) : 0;

	if (len > s->max_object || out->len > s->max_object - len)
		return -EMSGSIZE;
	if (len)
		strbuf_add(out, s->run, len);
	s->run = NULL;
	return 0;
}

/* Where the next byte would go. */
static size_t position(struct json_split *s, const char *p)
{
	return output(s)->len + (s->run ? (size_t)(p - s->run) : 0);
}

/* Forgets the member that began at s->member: its comma, its name, and, as nothing is let through, what
 * follows. */
static int drop_member(struct json_split *s, const char *p)
{
	struct strbuf *out = output(s);
	int r = flush(s, p);

	if (!r)
		out->len = s->member;
	return r;
}

static bool key_is(const char *key, size_t len, const char *name, size_t name_len)
{
	return len == name_len && !memcmp(key, name, name_len);
}
#define KEY_IS(key, len, literal) key_is(key, len, literal, sizeof(literal) - 1)

/* Members that no decoder reads; those of endpoints and of Nodes' status are most of what json-c would have
 * to build. */
static bool unwanted(const char *key, size_t len)
{
	switch (len) {
	case 4:
		return KEY_IS(key, len, "zone");
	case 5:
		return KEY_IS(key, len, "hints");
	case 6:
		return KEY_IS(key, len, "images");
	case 8:
		return KEY_IS(key, len, "nodeName") || KEY_IS(key, len, "nodeInfo") ||
		       KEY_IS(key, len, "capacity");
	case 9:
		return KEY_IS(key, len, "targetRef");
	case 11:
		return KEY_IS(key, len, "allocatable");
	case 12:
		return KEY_IS(key, len, "volumesInUse");
	case 13:
		return KEY_IS(key, len, "managedFields");
	case 15:
		return KEY_IS(key, len, "ownerReferences") || KEY_IS(key, len, "volumesAttached");
	case 48: /* an annotation with the whole object in it, as text */
		return KEY_IS(key, len, "kubectl.kubernetes.io/last-applied-configuration");
	default:
		return false;
	}
}

/* A member's name has ended: 'key' is what of it came with this feed, 'p' behind the closing quote. */
static int key_end(struct json_split *s, const char *key, size_t len, const char *p)
{
	s->state = COLON;
	if (s->skip_depth)
		return 0;
	if (s->key_len) {
		/* A name longer than the buffer is none of ours, and its length says so. */
		if (s->key_len + len <= sizeof(s->key)) {
			memcpy(s->key + s->key_len, key, len);
			key = s->key;
		}
		len += s->key_len;
	}
	if (unwanted(key, len)) {
		s->skip_depth = s->depth;
		return drop_member(s, p);
	}
	if (s->mode == JSON_SPLIT_LIST && s->depth == 1 && KEY_IS(key, len, "items")) {
		if (s->items_seen)
			return -EINVAL;
		s->items_seen = true;
		s->items_value = true;
		return drop_member(s, p);
	}
	s->frames[s->depth - 1] |= FRAME_KEPT;
	return 0;
}

/* Hands on what was let through up to 'p'; bytes of this feed alone are not copied first. */
static int deliver(
	struct json_split *s, const char *p, int (*callback)(void *arg, const char *json, size_t len))
{
	struct strbuf *out = output(s);
	const char *json = s->run;
	size_t len = (size_t)(p - s->run);
	int r;

	if (out->len || len > s->max_object) {
		r = flush(s, p);
		if (r)
			return r;
		json = out->data;
		len = out->len;
	}
	s->run = NULL;
	r = callback ? callback(s->cb.arg, json, len) : 0;
	strbuf_clear(out);
	if (r)
		s->failed = r;
	return r;
}

/* 'p' is behind the last byte of a value; its container, if any, is the innermost open one again. */
static int value_end(struct json_split *s, const char *p)
{
	s->state = COMMA_OR_END;
	if (s->skip_depth) {
		if (s->depth == s->skip_depth) {
			s->skip_depth = 0;
			s->run = p;
		}
		return 0;
	}
	if (s->depth == 0) {
		s->state = TOP;
		s->list_done = true;
		return deliver(s, p, s->mode == JSON_SPLIT_LIST ? s->cb.rest : s->cb.item);
	}
	if (s->in_items && s->depth == 2)
		return deliver(s, p, s->cb.item);
	return 0;
}

static int value_start(struct json_split *s, const char *p)
{
	char c = *p;
	bool items = s->items_value;

	s->items_value = false;
	if (items && c == 'n')
		s->skip_depth = 1;
	else if (items && c != '[')
		return -EINVAL;
	if (s->in_items && s->depth == 2) {
		if (c != '{')
			return -EINVAL;
		s->run = p;
	}
	switch (c) {
	case '{':
	case '[':
		if (s->depth == MAX_DEPTH)
			return -EINVAL;
		s->frames[s->depth++] = c == '{' ? FRAME_OBJECT : 0;
		s->state = c == '{' ? KEY_OR_END : VALUE_OR_END;
		s->in_items |= items;
		if (s->run)
			s->member = position(s, p + 1);
		return 0;
	case '"':
		s->state = STRING;
		s->is_key = false;
		return 0;
	case '-':
	case '0' ... '9':
	case 't':
	case 'f':
	case 'n':
		s->state = SCALAR;
		return 0;
	default:
		return -EINVAL;
	}
}

static int container_end(struct json_split *s, const char *p)
{
	if (s->depth == 0 || (*p == '}') != (s->frames[s->depth - 1] & FRAME_OBJECT))
		return -EINVAL;
	s->depth--;
	if (s->in_items && s->depth == 1) {
		s->in_items = false;
		s->run = p + 1;
		s->state = COMMA_OR_END;
		return 0;
	}
	return value_end(s, p + 1);
}

static int comma(struct json_split *s, const char *p)
{
	int r;

	if (!(s->frames[s->depth - 1] & FRAME_OBJECT)) {
		s->state = VALUE;
		return 0;
	}
	s->state = KEY;
	if (!s->run)
		return 0;
	if (!(s->frames[s->depth - 1] & FRAME_KEPT)) {
		/* Everything before it was dropped. */
		r = flush(s, p);
		if (r)
			return r;
		s->run = p + 1;
		p++;
	}
	s->member = position(s, p);
	return 0;
}

/* The first quote or backslash, or 'end'. Eight bytes at a time: bit tricks as in every strlen(3). */
static const char *string_stop(const char *p, const char *end)
{
	const uint64_t ones = 0x0101010101010101, highs = 0x8080808080808080;

	for (; end - p >= 8; p += 8) {
		uint64_t v, quote, backslash, hit;

		memcpy(&v, p, sizeof(v));
		quote = v ^ (ones * '"');
		backslash = v ^ (ones * '\\');
		hit = (((quote - ones) & ~quote) | ((backslash - ones) & ~backslash)) & highs;
		if (!hit)
			continue;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
		return p + __builtin_ctzll(hit) / 8;
#else
		break;
#endif
	}
	while (p < end && *p != '"' && *p != '\\')
		p++;
	return p;
}

/*
 * Goes on with a string from 'p'; '*ret' is where to go on. In a string every byte is data but the quote and
 * what follows a backslash.
 */
static int string_go_on(struct json_split *s, const char *p, const char *end, const char **ret)
{
	const char *start = p;
	size_t len;

	for (;;) {
		if (s->escaped && p < end) {
			s->escaped = false;
			p++;
		}
		p = string_stop(p, end);
		if (p == end)
			break;
		if (*p == '"') {
			*ret = p + 1;
			return s->is_key ? key_end(s, start, (size_t)(p - start), p + 1)
					 : value_end(s, p + 1);
		}
		s->escaped = true;
		p++;
	}
	*ret = end;
	if (!s->is_key)
		return 0;
	len = (size_t)(end - start);
	if (s->key_len < sizeof(s->key))
		memcpy(s->key + s->key_len, start,
			len < sizeof(s->key) - s->key_len ? len : sizeof(s->key) - s->key_len);
	s->key_len += len;
	return 0;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool is_scalar(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '.' || c == '-' || c == '+' ||
	       c == 'E';
}

/* One token or less. '*p' is moved behind what was read. */
static int step(struct json_split *s, const char **p, const char *end)
{
	const char *at = *p;
	char c = *at;

	if (s->state == STRING)
		return string_go_on(s, at, end, p);
	if (s->state == SCALAR) {
		while (at < end && is_scalar(*at))
			at++;
		*p = at;
		return at < end ? value_end(s, at) : 0;
	}
	if (is_space(c)) {
		*p = at + 1;
		return 0;
	}
	*p = at + 1;
	switch (s->state) {
	case TOP:
		if (c != '{' || (s->mode == JSON_SPLIT_LIST && s->list_done))
			break;
		s->run = at;
		return value_start(s, at);
	case VALUE_OR_END:
		if (c == ']')
			return container_end(s, at);
		return value_start(s, at);
	case VALUE:
		return value_start(s, at);
	case KEY_OR_END:
		if (c == '}')
			return container_end(s, at);
		/* fall through */
	case KEY:
		if (c != '"')
			break;
		s->state = STRING;
		s->is_key = true;
		s->key_len = 0;
		return string_go_on(s, at + 1, end, p);
	case COLON:
		if (c != ':')
			break;
		s->state = VALUE;
		return 0;
	case COMMA_OR_END:
		if (c == ',')
			return comma(s, at);
		if (c == '}' || c == ']')
			return container_end(s, at);
		break;
	case STRING:
	case SCALAR:
		break;
	}
	*p = at;
	return -EINVAL;
}

int json_split_feed(struct json_split *s, const char *data, size_t len, struct error *err)
{
	const char *p = data, *end = data + len;
	enum state before = s->state;
	int r = 0;

	if (s->failed)
		return error_set(err, s->failed, NULL, NULL, "the body failed before");
	s->run = s->open ? data : NULL;
	while (p < end && !r) {
		before = s->state;
		r = step(s, &p, end);
	}
	if (!r) {
		s->open = s->run != NULL;
		r = flush(s, end);
	}
	if (r && r != s->failed) {
		uint64_t at = s->offset + (uint64_t)(p - data);

		s->failed = r;
		if (r == -EMSGSIZE)
			error_set(err, r, NULL, "slipstream takes no object of that size",
				"an object of more than %zu bytes ends behind byte %llu", s->max_object,
				(unsigned long long)at);
		else if (before == STRING || before == SCALAR)
			error_set(err, r, NULL, NULL, "not the JSON of a %s at byte %llu",
				s->mode == JSON_SPLIT_LIST ? "list" : "watch", (unsigned long long)at);
		else
			error_set(err, r, NULL, NULL, "not the JSON of a %s at byte %llu: %s was expected",
				s->mode == JSON_SPLIT_LIST ? "list" : "watch", (unsigned long long)at,
				s->depth == MAX_DEPTH ? "less depth" : expected[before]);
	}
	s->offset += len;
	return r;
}

int json_split_end(struct json_split *s, struct error *err)
{
	if (s->failed)
		return error_set(err, s->failed, NULL, NULL, "the body failed before");
	/* A list that never came must not pass for an empty one. */
	if (s->state != TOP || (s->mode == JSON_SPLIT_LIST && !s->list_done))
		return error_set(err, -EPROTO, NULL, "it is asked for again",
			"the body ended after %llu bytes, inside %s", (unsigned long long)s->offset,
			s->mode == JSON_SPLIT_LIST ? "the list" : "an object");
	return 0;
}
