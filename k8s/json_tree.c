/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/json_tree.h"
#include "base/mem.h"
#include "base/strbuf.h"

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct parser {
	const char *start, *p, *end;
	struct strbuf text; /* the string read last, without its escapes */
	unsigned depth;
	const char *expected; /* what was not found at 'p' */
};

static int value(struct parser *s, struct json_object **ret);

static int fail(struct parser *s, const char *expected)
{
	s->expected = expected;
	return -EINVAL;
}

static void skip_space(struct parser *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
		s->p++;
}

/* Takes it when it is the next byte. */
static bool take(struct parser *s, char c)
{
	if (s->p == s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

static int word(struct parser *s, const char *w)
{
	size_t len = strlen(w);

	if ((size_t)(s->end - s->p) < len || memcmp(s->p, w, len) != 0)
		return fail(s, "a value");
	s->p += len;
	return 0;
}

static int hex4(struct parser *s, uint32_t *ret)
{
	*ret = 0;
	for (int i = 0; i < 4; i++, s->p++) {
		char c = s->p < s->end ? *s->p : 0;
		char lower = (char)(c | 0x20);

		if (c >= '0' && c <= '9')
			*ret = *ret << 4 | (uint32_t)(c - '0');
		else if (lower >= 'a' && lower <= 'f')
			*ret = *ret << 4 | (uint32_t)(lower - 'a' + 10);
		else
			return fail(s, "four hexadecimal digits");
	}
	return 0;
}

static void add_utf8(struct strbuf *b, uint32_t c)
{
	char utf8[4];
	size_t n;

	if (c < 0x80) {
		utf8[0] = (char)c;
		n = 1;
	} else if (c < 0x800) {
		utf8[0] = (char)(0xc0 | c >> 6);
		n = 2;
	} else if (c < 0x10000) {
		utf8[0] = (char)(0xe0 | c >> 12);
		n = 3;
	} else {
		utf8[0] = (char)(0xf0 | c >> 18);
		n = 4;
	}
	for (size_t i = 1; i < n; i++)
		utf8[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
	strbuf_add(b, utf8, n);
}

/* Behind "\u". */
static int unicode(struct parser *s)
{
	const char *low_at;
	uint32_t c, low;

	if (hex4(s, &c))
		return -EINVAL;
	if (c >= 0xd800 && c < 0xdc00 && s->end - s->p >= 2 && s->p[0] == '\\' && s->p[1] == 'u') {
		low_at = s->p;
		s->p += 2;
		if (hex4(s, &low))
			return -EINVAL;
		if (low >= 0xdc00 && low < 0xe000)
			c = 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
		else
			s->p = low_at; /* a character of its own */
	}
	add_utf8(&s->text, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
	return 0;
}

/* Into s->text. */
static int string(struct parser *s)
{
	static const char escapes[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";

	strbuf_clear(&s->text);
	if (!take(s, '"'))
		return fail(s, "a string");
	for (;;) {
		const char *run = s->p, *escape;

		while (s->p < s->end && *s->p != '"' && *s->p != '\\' && (uint8_t)*s->p >= ' ')
			s->p++;
		strbuf_add(&s->text, run, (size_t)(s->p - run));
		if (take(s, '"'))
			return 0;
		if (!take(s, '\\'))
			return fail(s, "the end of a string");
		if (take(s, 'u')) {
			if (unicode(s))
				return -EINVAL;
			continue;
		}
		escape = s->p < s->end && *s->p ? strchr(escapes, *s->p) : NULL;
		if (!escape)
			return fail(s, "an escape");
		strbuf_add(&s->text, &bytes[escape - escapes], 1);
		s->p++;
	}
}

static bool digits(struct parser *s)
{
	const char *from = s->p;

	while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
		s->p++;
	return s->p > from;
}

static int number(struct parser *s, struct json_object **ret)
{
	const char *from = s->p;
	bool fraction = false;

	take(s, '-');
	if (!take(s, '0') && !digits(s))
		return fail(s, "a value");
	if (take(s, '.')) {
		fraction = true;
		if (!digits(s))
			return fail(s, "a digit");
	}
	if (take(s, 'e') || take(s, 'E')) {
		fraction = true;
		if (!take(s, '-'))
			take(s, '+');
		if (!digits(s))
			return fail(s, "a digit");
	}
	strbuf_clear(&s->text);
	strbuf_add(&s->text, from, (size_t)(s->p - from));
	*ret = fraction ? json_object_new_double(strtod(s->text.data, NULL))
			: json_object_new_int64(strtoll(s->text.data, NULL, 10));
	xcheck(*ret);
	return 0;
}

static int object(struct parser *s, struct json_object *o)
{
	skip_space(s);
	if (take(s, '}'))
		return 0;
	for (;;) {
		CLEANUP_FREE char *key = NULL;
		struct json_object *v;

		skip_space(s);
		if (string(s))
			return -EINVAL;
		key = xmemdup(s->text.data, s->text.len + 1);
		if (strlen(key) != s->text.len)
			return fail(s, "a member's name without NUL");
		skip_space(s);
		if (!take(s, ':'))
			return fail(s, "a colon");
		if (value(s, &v))
			return -EINVAL;
		json_tree_set(o, key, v);
		if (take(s, '}'))
			return 0;
		if (!take(s, ','))
			return fail(s, "a comma or }");
	}
}

static int array(struct parser *s, struct json_object *o)
{
	struct json_object *v;

	skip_space(s);
	if (take(s, ']'))
		return 0;
	for (;;) {
		if (value(s, &v))
			return -EINVAL;
		json_tree_append(o, v);
		if (take(s, ']'))
			return 0;
		if (!take(s, ','))
			return fail(s, "a comma or ]");
	}
}

static int container(struct parser *s, struct json_object **ret)
{
	bool list = *s->p == '[';
	int r;

	if (s->depth == JSON_TREE_DEPTH)
		return fail(s, "less depth");
	s->p++;
	s->depth++;
	*ret = xcheck(list ? json_object_new_array() : json_object_new_object());
	r = list ? array(s, *ret) : object(s, *ret);
	s->depth--;
	return r;
}

/* A value and the white space around it. '*ret' is NULL on failure. */
static int value(struct parser *s, struct json_object **ret)
{
	int r;

	*ret = NULL;
	skip_space(s);
	switch (s->p < s->end ? *s->p : 0) {
	case '{':
	case '[':
		r = container(s, ret);
		break;
	case '"':
		r = string(s);
		if (!r)
			*ret = xcheck(json_object_new_string_len(s->text.data, (int)s->text.len));
		break;
	case 't':
	case 'f':
		r = word(s, *s->p == 't' ? "true" : "false");
		if (!r)
			*ret = xcheck(json_object_new_boolean(s->p[-2] == 'u'));
		break;
	case 'n':
		r = word(s, "null");
		break;
	default:
		r = number(s, ret);
		break;
	}
	if (r) {
		json_object_put(*ret);
		*ret = NULL;
		return r;
	}
	skip_space(s);
	return 0;
}

int json_tree_parse(const char *text, size_t len, struct json_object **ret, struct error *err)
{
	struct parser s = {.start = text, .p = text, .end = text + len};
	int r;

	*ret = NULL;
	if (len > INT_MAX)
		return error_set(err, -EINVAL, NULL, NULL, "is not JSON: it has %zu bytes", len);
	r = value(&s, ret);
	if (!r && s.p < s.end) {
		json_object_put(*ret);
		*ret = NULL;
		r = fail(&s, "the end");
	}
	strbuf_done(&s.text);
	return r ? error_set(err, r, NULL, NULL, "is not JSON: %s was expected at byte %zu", s.expected,
			   (size_t)(s.p - s.start))
		 : 0;
}

char *json_tree_text(struct json_object *json)
{
	char *text = xstrdup(xcheck((void *)json_object_to_json_string_ext(
		json, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)));
	struct json_object *again = NULL;

	/* Pieces that it has no memory for are left out without a word (printbuf_memappend() of json-c 0.16). */
	if (json_tree_parse(text, strlen(text), &again, NULL) || !json_object_equal(json, again))
		out_of_memory();
	json_object_put(again);
	return text;
}

void json_tree_set(struct json_object *o, const char *key, struct json_object *v)
{
	if (json_object_object_add(o, key, v))
		out_of_memory();
}

void json_tree_append(struct json_object *o, struct json_object *v)
{
	if (json_object_array_add(o, v))
		out_of_memory();
}
