/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/yaml_json.h"
#include "base/mem.h"
#include "k8s/json_tree.h"

#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_one_of(const char *s, const char *a, const char *b, const char *c)
{
	return !strcmp(s, a) || !strcmp(s, b) || !strcmp(s, c);
}

/* Digits of 'base' up to the end, at least one. */
static bool all_digits(const char *s, int base)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (base == 8        ? *s < '0' || *s > '7'
			: base == 16 ? !isxdigit((unsigned char)*s)
				     : *s < '0' || *s > '9')
			return false;
	return true;
}

static struct json_object *integer(const char *s)
{
	const char *digits = s + (*s == '-' || *s == '+');
	int base = 10;
	long long v;

	if (s[0] == '0' && (s[1] == 'o' || s[1] == 'x')) {
		base = s[1] == 'o' ? 8 : 16;
		digits = s = s + 2;
	} else if (digits[0] == '0' && digits[1]) {
		return NULL;
	}
	if (!all_digits(digits, base))
		return NULL;
	errno = 0;
	v = strtoll(s, NULL, base);
	return errno ? NULL : xcheck(json_object_new_int64(v));
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? of YAML 1.2, 10.3.2. */
static struct json_object *fraction(const char *s)
{
	const char *p = s + (*s == '-' || *s == '+');
	size_t whole = strspn(p, "0123456789"), part = 0;
	double d;

	if (whole > 1 && *p == '0')
		return NULL;
	p += whole;
	if (*p == '.') {
		part = strspn(++p, "0123456789");
		p += part;
	}
	if (!whole && !part)
		return NULL;
	if (*p == 'e' || *p == 'E') {
		p++;
		p += *p == '-' || *p == '+';
		if (!all_digits(p, 10))
			return NULL;
	} else if (*p) {
		return NULL;
	}
	/* What is too large for a number stays text. */
	d = strtod(s, NULL);
	return isfinite(d) ? xcheck(json_object_new_double(d)) : NULL;
}

static struct json_object *scalar(const struct yaml_node *node)
{
	const char *s = yaml_text(node);
	struct json_object *o = NULL;

	if (!s)
		return NULL;
	if (!node->quoted) {
		if (is_one_of(s, "true", "True", "TRUE"))
			return xcheck(json_object_new_boolean(1));
		if (is_one_of(s, "false", "False", "FALSE"))
			return xcheck(json_object_new_boolean(0));
		o = integer(s);
		if (!o)
			o = fraction(s);
	}
	return o ? o : xcheck(json_object_new_string(s));
}

struct json_object *yaml_to_json(const struct yaml_node *node)
{
	struct json_object *o;

	switch (node->kind) {
	case YAML_SCALAR:
		return scalar(node);
	case YAML_MAPPING:
		o = xcheck(json_object_new_object());
		for (size_t i = 0; i < node->n; i++)
			json_tree_set(o, node->pairs[i].key, yaml_to_json(node->pairs[i].value));
		return o;
	default:
		o = xcheck(json_object_new_array());
		for (size_t i = 0; i < node->n; i++)
			json_tree_append(o, yaml_to_json(node->items[i]));
		return o;
	}
}
