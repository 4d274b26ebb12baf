/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "base/strbuf.h"
#include "k8s/json_split.h"

#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "body.h"

/* Everything that came out, one value per line; the rest with "R " before it. */
struct capture {
	struct strbuf text;
	size_t items;
	size_t fail_at; /* the n-th item's callback returns -ECANCELED */
};

static int on_item(void *arg, const char *json, size_t len)
{
	struct capture *c = arg;

	strbuf_add(&c->text, json, len);
	strbuf_puts(&c->text, "\n");
	return ++c->items == c->fail_at ? -ECANCELED : 0;
}

static int on_rest(void *arg, const char *json, size_t len)
{
	struct capture *c = arg;

	strbuf_puts(&c->text, "R ");
	return on_item(c, json, len);
}

static const size_t max_object = 1 << 20;

/* Feeds 'text' in pieces of 'piece' bytes, the first one of 'first'. Each piece is a heap copy of its own, so
 * that a byte read past it is seen. */
static int split_max(enum json_split_mode mode, const char *text, size_t len, size_t first, size_t piece,
	size_t max, struct capture *c, struct error *err)
{
	struct json_split_callbacks cb = {.item = on_item, .rest = on_rest, .arg = c};
	struct json_split *s = json_split_new(mode, max, &cb);
	int r = 0;

	for (size_t at = 0; at < len && !r;) {
		size_t n = at ? piece : first;
		char *copy;

		if (n > len - at)
			n = len - at;
		copy = xmemdup(text + at, n);
		r = json_split_feed(s, copy, n, err);
		free(copy);
		at += n;
	}
	if (!r)
		r = json_split_end(s, err);
	else
		assert_true(json_split_feed(s, " ", 1, NULL) < 0);
	json_split_free(s);
	return r;
}

static int split(enum json_split_mode mode, const char *text, size_t first, size_t piece, struct capture *c)
{
	struct error err = {0};

	return split_max(mode, text, strlen(text), first, piece, max_object, c, &err);
}

static void expect(enum json_split_mode mode, const char *text, const char *want)
{
	size_t len = strlen(text);

	for (size_t cut = 1; cut <= len; cut++) {
		struct capture c = {0};

		assert_int_equal(split(mode, text, cut, len, &c), 0);
		assert_string_equal(c.text.data ? c.text.data : "", want);
		strbuf_done(&c.text);
	}
	for (size_t piece = 1; piece < 4; piece++) {
		struct capture c = {0};

		assert_int_equal(split(mode, text, piece, piece, &c), 0);
		assert_string_equal(c.text.data ? c.text.data : "", want);
		strbuf_done(&c.text);
	}
}

static void expect_failure(enum json_split_mode mode, const char *text, int code)
{
	size_t len = strlen(text);

	for (size_t cut = 1; cut <= len; cut++) {
		struct capture c = {0};
		int r = split(mode, text, cut, len, &c);

		if (r != code)
			print_error("%s: %d\n", text, r);
		assert_int_equal(r, code);
		strbuf_done(&c.text);
	}
}

static void test_list(void **state)
{
	(void)state;
	expect(JSON_SPLIT_LIST,
		"{\"kind\":\"L\",\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{\"a\":1},{\"b\":[2,3]}]"
		"}",
		"{\"a\":1}\n{\"b\":[2,3]}\nR {\"kind\":\"L\",\"metadata\":{\"resourceVersion\":\"7\"}}\n");
	/* Any order, white space, nothing else. */
	expect(JSON_SPLIT_LIST, "{\"items\":[{}],\"kind\":\"L\"}", "{}\nR {\"kind\":\"L\"}\n");
	expect(JSON_SPLIT_LIST, "{\"items\":[{}],\"a\":1,\"b\":2}", "{}\nR {\"a\":1,\"b\":2}\n");
	expect(JSON_SPLIT_LIST, "{\"a\":1,\"items\":[],\"b\":2}", "R {\"a\":1,\"b\":2}\n");
	expect(JSON_SPLIT_LIST, "{\"items\":null,\"b\":2}", "R {\"b\":2}\n");
	expect(JSON_SPLIT_LIST, "{\"b\":2,\"items\":null}", "R {\"b\":2}\n");
	expect(JSON_SPLIT_LIST, " {\t\"items\" :\n[ { \"x\" : [ ] } , { } ] \r\n}\n ",
		"{ \"x\" : [ ] }\n{ }\nR { \r\n}\n");
	/* "items" elsewhere is not ours. */
	expect(JSON_SPLIT_LIST, "{\"d\":{\"items\":[{}]},\"items\":[{\"items\":[{\"items\":1}]}]}",
		"{\"items\":[{\"items\":1}]}\nR {\"d\":{\"items\":[{}]}}\n");
	/* No list at all: the Status of a refused request. */
	expect(JSON_SPLIT_LIST, "{\"kind\":\"Status\",\"code\":410}",
		"R {\"kind\":\"Status\",\"code\":410}\n");
	expect(JSON_SPLIT_LIST, "{}", "R {}\n");
}

static void test_watch(void **state)
{
	(void)state;
	expect(JSON_SPLIT_WATCH, "{\"type\":\"ADDED\",\"object\":{\"items\":[1]}}\n{\"type\":\"B\"}\n",
		"{\"type\":\"ADDED\",\"object\":{\"items\":[1]}}\n{\"type\":\"B\"}\n");
	expect(JSON_SPLIT_WATCH, "{}{} {}\r\n\r\n{}", "{}\n{}\n{}\n{}\n");
	expect(JSON_SPLIT_WATCH, "\n", "");
	expect(JSON_SPLIT_WATCH, "{\"a\":[true,false,null,-1.5E+3,\"\",[],{}]}",
		"{\"a\":[true,false,null,-1.5E+3,\"\",[],{}]}\n");
}

static void test_strings(void **state)
{
	static const char text[] = "{\"a\":\"}{][,:\\\"}\",\"b\\\"}\":\"\\\\\",\"c\":[\"\\\\\\\"]\"],\"d\":"
				   "\"1234567\\u007d\\\"89\"}";
	CLEANUP_FREE char *want = xasprintf("%s\n", text);

	(void)state;
	expect(JSON_SPLIT_WATCH, text, want);
	/* In what is dropped, too. */
	expect(JSON_SPLIT_WATCH, "{\"images\":[\"]}\\\\\\\"]\"],\"d\":1}", "{\"d\":1}\n");
}

static void test_dropping(void **state)
{
	(void)state;
	expect(JSON_SPLIT_WATCH, "{\"images\":[1,{\"a\":[]}]}", "{}\n");
	expect(JSON_SPLIT_WATCH, "{\"images\":1,\"a\":2}", "{\"a\":2}\n");
	expect(JSON_SPLIT_WATCH, "{\"images\":\"x\",\"managedFields\":{},\"a\":2}", "{\"a\":2}\n");
	expect(JSON_SPLIT_WATCH, "{\"images\":true,\"a\":2,\"images\":null,\"b\":3,\"managedFields\":[]}",
		"{\"a\":2,\"b\":3}\n");
	expect(JSON_SPLIT_WATCH,
		"{\"a\":{\"b\":[{\"c\":1,\"managedFields\":[[[{}]]],\"d\":{\"images\":{\"images\":1}}}]}}",
		"{\"a\":{\"b\":[{\"c\":1,\"d\":{}}]}}\n");
	expect(JSON_SPLIT_WATCH, "{ \"images\" : [ ] , \"a\" : 2 }", "{  \"a\" : 2 }\n");
	/* Only whole names, only names. */
	expect(JSON_SPLIT_WATCH,
		"{\"image\":1,\"imagess\":2,\"Images\":3,\"managedField\":4,\"managedFieldsX\":5}",
		"{\"image\":1,\"imagess\":2,\"Images\":3,\"managedField\":4,\"managedFieldsX\":5}\n");
	expect(JSON_SPLIT_WATCH, "{\"a\":\"images\",\"b\":[\"images\",\"managedFields\"]}",
		"{\"a\":\"images\",\"b\":[\"images\",\"managedFields\"]}\n");
	expect(JSON_SPLIT_LIST,
		"{\"images\":[],\"items\":[{\"images\":[]},{\"b\":1,\"images\":[]}],\"managedFields\":0}",
		"{}\n{\"b\":1}\nR {}\n");
}

static const char *const unwanted[] = {"managedFields", "images", "ownerReferences", "targetRef", "nodeName",
	"nodeInfo", "zone", "hints", "capacity", "allocatable", "volumesInUse", "volumesAttached",
	"kubectl.kubernetes.io/last-applied-configuration"};

static void test_every_unwanted(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(unwanted); i++) {
		CLEANUP_FREE char *text = xasprintf(
			"{\"%s\":[{}],\"%sx\":1,\"a\":{\"%s\":2}}", unwanted[i], unwanted[i], unwanted[i]);
		CLEANUP_FREE char *want = xasprintf("{\"%sx\":1,\"a\":{}}\n", unwanted[i]);

		expect(JSON_SPLIT_WATCH, text, want);
	}
}

static void test_not_json(void **state)
{
	static const char *const both[] = {"[]", "x", "1", "\"a\"", "null", "}", "{]", "{\"a\":1]",
		"{\"a\":[1}", "{\"a\"}", "{\"a\",1}", "{a:1}", "{\"a\":1,}", "{,}", "{\"a\":[1,]}",
		"{\"a\":[,1]}", "{\"a\":}", "{\"a\":1 2}", "{\"a\"::1}", "{\"a\":1:2}", "{\"a\":[1:2]}",
		"{1:2}", "{\"a\":@}", "{\"images\":[}}", "{\"images\":{]}", "{\"images\":,\"a\":1}",
		"<html>"};
	static const char *const lists[] = {"{}{}", "{} x", "{\"items\":{}}", "{\"items\":1}",
		"{\"items\":\"\"}", "{\"items\":[1]}", "{\"items\":[[]]}", "{\"items\":[{},null]}",
		"{\"items\":[],\"items\":[]}", "{\"items\":null,\"items\":[]}", "{\"items\":[{}}",
		"{\"items\":[{}{}]}"};
	char deep[1024];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		expect_failure(JSON_SPLIT_LIST, both[i], -EINVAL);
		expect_failure(JSON_SPLIT_WATCH, both[i], -EINVAL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		expect_failure(JSON_SPLIT_LIST, lists[i], -EINVAL);
	strcpy(deep, "{\"a\":");
	memset(deep + 5, '[', sizeof(deep) - 6);
	deep[sizeof(deep) - 1] = '\0';
	expect_failure(JSON_SPLIT_WATCH, deep, -EINVAL);
}

static void test_ends_early(void **state)
{
	static const char list[] =
		"{\"k\":\"a\\\"b\",\"items\":[{\"a\":[1,true]},{\"managedFields\":{}}],\"b\":2}";
	static const char watch[] = "{\"a\":[1,{\"images\":[\"\\\\\"]}]}";

	(void)state;
	for (size_t n = 0; n < strlen(list); n++) {
		struct capture c = {0};
		struct error err = {0};

		assert_int_equal(split_max(JSON_SPLIT_LIST, list, n, 3, 3, max_object, &c, &err), -EPROTO);
		assert_int_equal(err.code, -EPROTO);
		strbuf_done(&c.text);
	}
	for (size_t n = 1; n < strlen(watch); n++) {
		struct capture c = {0};

		assert_int_equal(split_max(JSON_SPLIT_WATCH, watch, n, 3, 3, max_object, &c, NULL), -EPROTO);
		assert_int_equal(c.items, 0);
		strbuf_done(&c.text);
	}
}

static void test_ceiling(void **state)
{
	static const char watch[] =
		"{\"a\":\"12345678\",\"managedFields\":\"123456789012345678901234567890\"}";

	(void)state;
	/* 16 bytes are left of it. */
	for (size_t piece = 1; piece < sizeof(watch); piece++) {
		struct capture c = {0};
		struct error err = {0};

		assert_int_equal(
			split_max(JSON_SPLIT_WATCH, watch, strlen(watch), piece, piece, 15, &c, &err),
			-EMSGSIZE);
		assert_int_equal(err.code, -EMSGSIZE);
		strbuf_done(&c.text);
	}
	for (size_t piece = 1; piece < 8; piece++) {
		struct capture c = {0};

		assert_int_equal(
			split_max(JSON_SPLIT_WATCH, watch, strlen(watch), piece, piece, 64, &c, NULL), 0);
		assert_string_equal(c.text.data, "{\"a\":\"12345678\"}\n");
		strbuf_done(&c.text);
	}
}

static void test_callback_failure(void **state)
{
	struct capture c = {.fail_at = 2};

	(void)state;
	assert_int_equal(split(JSON_SPLIT_LIST, "{\"items\":[{},{},{}]}", 4, 4, &c), -ECANCELED);
	assert_int_equal(c.items, 2);
	strbuf_done(&c.text);
	c = (struct capture){.fail_at = 1};
	assert_int_equal(split(JSON_SPLIT_WATCH, "{}{}", 100, 100, &c), -ECANCELED);
	assert_int_equal(c.items, 1);
	strbuf_done(&c.text);
}

static void test_error_words(void **state)
{
	struct capture c = {0};
	struct error err = {0};

	(void)state;
	assert_int_equal(split_max(JSON_SPLIT_LIST, "{\"a\" 1}", 7, 7, 7, max_object, &c, &err), -EINVAL);
	assert_string_equal(err.what, "not the JSON of a list at byte 5: a colon was expected");
	assert_int_equal(split_max(JSON_SPLIT_WATCH, "{} {x", 5, 2, 2, max_object, &c, &err), -EINVAL);
	assert_string_equal(err.what, "not the JSON of a watch at byte 4: a member's name or } was expected");
	strbuf_done(&c.text);
}

/* What json-c makes of the whole body, without the members that are dropped. */
static void strip(struct json_object *o)
{
	if (json_object_is_type(o, json_type_object)) {
		for (size_t i = 0; i < ARRAY_SIZE(unwanted); i++)
			json_object_object_del(o, unwanted[i]);
		json_object_object_foreach(o, key, value)
		{
			(void)key;
			strip(value);
		}
	} else if (json_object_is_type(o, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(o); i++)
			strip(json_object_array_get_idx(o, i));
	}
}

struct oracle {
	struct json_object *list;
	size_t next;
	bool rest;
};

static int compare_item(void *arg, const char *json, size_t len)
{
	struct oracle *o = arg;
	CLEANUP_FREE char *text = xstrndup(json, len);
	struct json_object *got = json_tokener_parse(text);
	struct json_object *want =
		json_object_array_get_idx(json_object_object_get(o->list, "items"), o->next++);

	assert_non_null(got);
	assert_true(json_object_equal(got, want));
	assert_null(strstr(text, "managedFields"));
	json_object_put(got);
	return 0;
}

static int compare_rest(void *arg, const char *json, size_t len)
{
	struct oracle *o = arg;
	CLEANUP_FREE char *text = xstrndup(json, len);
	struct json_object *got = json_tokener_parse(text), *want = NULL;

	want = json_tokener_parse(json_object_to_json_string(o->list));
	json_object_object_del(want, "items");
	assert_true(json_object_equal(got, want));
	json_object_put(got);
	json_object_put(want);
	o->rest = true;
	return 0;
}

static void test_real_lists(void **state)
{
	static const char *const names[] = {"list-services", "odd-services-list", "odd-endpointslices-list",
		"list-services-pretty", "list-services-none", "error-410-list-exact-compacted",
		"nodes-metadata-list"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t len, n;
		CLEANUP_FREE char *text = body_read(names[i], &len);
		struct oracle o = {0};
		struct json_split_callbacks cb = {.item = compare_item, .rest = compare_rest, .arg = &o};

		assert_non_null(text);
		o.list = json_tokener_parse(text);
		strip(o.list);
		n = json_object_object_get(o.list, "items")
			    ? json_object_array_length(json_object_object_get(o.list, "items"))
			    : 0;
		for (size_t piece = 1; piece <= len; piece = piece < 20 ? piece + 1 : piece * 3 + 1) {
			struct json_split *s = json_split_new(JSON_SPLIT_LIST, max_object, &cb);

			o.next = 0;
			o.rest = false;
			for (size_t at = 0; at < len; at += piece)
				assert_int_equal(json_split_feed(s, text + at,
							 len - at < piece ? len - at : piece, NULL),
					0);
			assert_int_equal(json_split_end(s, NULL), 0);
			assert_int_equal(o.next, n);
			assert_true(o.rest);
			json_split_free(s);
		}
		json_object_put(o.list);
	}
}

static void test_real_watches(void **state)
{
	static const char *const names[] = {
		"watch-selector-delete-add", "watchlist-endpointslices", "watchlist-nodes"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t len, lines = 0;
		CLEANUP_FREE char *text = body_read(names[i], &len);
		struct capture whole = {0}, bytes = {0};
		struct error err = {0};
		char *save = NULL;

		assert_non_null(text);
		assert_int_equal(
			split_max(JSON_SPLIT_WATCH, text, len, len, len, max_object, &whole, &err), 0);
		assert_int_equal(split_max(JSON_SPLIT_WATCH, text, len, 1, 1, max_object, &bytes, &err), 0);
		assert_string_equal(whole.text.data, bytes.text.data);
		assert_null(strstr(whole.text.data, "managedFields"));
		assert_null(strstr(whole.text.data, "\"images\""));
		for (char *line = strtok_r(text, "\n", &save), *out = whole.text.data; line;
			line = strtok_r(NULL, "\n", &save), lines++) {
			struct json_object *want = json_tokener_parse(line), *got = json_tokener_parse(out);

			strip(want);
			assert_non_null(got);
			assert_true(json_object_equal(want, got));
			json_object_put(want);
			json_object_put(got);
			out = strchr(out, '\n') + 1;
		}
		assert_int_equal(lines, whole.items);
		strbuf_done(&whole.text);
		strbuf_done(&bytes.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_dropping),
		cmocka_unit_test(test_every_unwanted),
		cmocka_unit_test(test_not_json),
		cmocka_unit_test(test_ends_early),
		cmocka_unit_test(test_ceiling),
		cmocka_unit_test(test_callback_failure),
		cmocka_unit_test(test_error_words),
		cmocka_unit_test(test_real_lists),
		cmocka_unit_test(test_real_watches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
