/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "k8s/json_tree.h"

#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "body.h"

/* Of exactly its length, so that a sanitizer sees a byte read past it. */
static int parse(const char *text, size_t len, struct json_object **ret, struct error *err)
{
	CLEANUP_FREE char *copy = xmemdup(text, len);

	return json_tree_parse(copy, len, ret, err);
}

/* json-c's words for a tree are the reference. */
static void check(const char *text, const char *want)
{
	struct error err = {0};
	struct json_object *o;

	if (parse(text, strlen(text), &o, &err))
		fail_msg("%s: %s", text, error_text(&err));
	assert_string_equal(json_object_to_json_string_ext(o, JSON_C_TO_STRING_NOSLASHESCAPE), want);
	json_object_put(o);
}

static void refuse(const char *text, const char *what)
{
	struct json_object *o = (void *)text;
	struct error err = {0};

	assert_int_equal(parse(text, strlen(text), &o, &err), -EINVAL);
	assert_null(o);
	assert_int_equal(err.code, -EINVAL);
	assert_string_equal(err.what, what);
}

static void test_values(void **state)
{
	(void)state;
	check("null", "null");
	check(" \t\r\n[ true , false , null ] \n", "[true,false,null]");
	check("{ }", "{}");
	check("{\"a\" : [ ] ,\"b\":{\"c\":\"\"}}", "{\"a\":[],\"b\":{\"c\":\"\"}}");
	check("{\"a\":1,\"b\":2,\"a\":{\"c\":3}}", "{\"a\":{\"c\":3},\"b\":2}");
	check("[0,-0,7,-42,9223372036854775807,-9223372036854775808]",
		"[0,0,7,-42,9223372036854775807,-9223372036854775808]");
	check("[9223372036854775808,-99999999999999999999999]", "[9223372036854775807,-9223372036854775808]");
	check("[0.5,-1.25,2.5e1]", "[0.5,-1.25,25.0]");
	check("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\\"\\\\/\\b\\f\\n\\r\\t\"");
	check("{\"k\\u0065y\\n\":\"v\"}", "{\"key\\n\":\"v\"}");
	/* One byte to four; a pair; halves of pairs. */
	check("\"\\u0041\\u00e9\\u20AC\\ud83d\\ude00\"", "\"A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
	check("\"\\ud83d \\ude00 \\ud83d\\u0041 \\ud83d\\n\"", "\"\xef\xbf\xbd \xef\xbf\xbd \xef\xbf\xbd"
							       "A \xef\xbf\xbd\\n\"");
	check("\"\xc3\xa9\xff\"", "\"\xc3\xa9\xff\"");
}

static void test_nul(void **state)
{
	struct json_object *o;

	(void)state;
	assert_int_equal(parse("\"a\\u0000b\"", 10, &o, NULL), 0);
	assert_int_equal(json_object_get_string_len(o), 3);
	assert_memory_equal(json_object_get_string(o), "a\0b", 4);
	json_object_put(o);
	refuse("{\"a\\u0000b\":1}", "is not JSON: a member's name without NUL was expected at byte 11");
	assert_int_equal(parse("[1]\0", 4, &o, NULL), -EINVAL);
	assert_int_equal(parse("\"\0\"", 3, &o, NULL), -EINVAL);
	assert_int_equal(parse("\"\\\0\"", 4, &o, NULL), -EINVAL);
}

static void test_refused(void **state)
{
	static const char *const cases[][2] = {
		{"", "a value was expected at byte 0"},
		{"  ", "a value was expected at byte 2"},
		{"tru", "a value was expected at byte 0"},
		{"nul", "a value was expected at byte 0"},
		{"True", "a value was expected at byte 0"},
		{"NaN", "a value was expected at byte 0"},
		{"+1", "a value was expected at byte 0"},
		{"-", "a value was expected at byte 1"},
		{".5", "a value was expected at byte 0"},
		{"1.", "a digit was expected at byte 2"},
		{"1.e5", "a digit was expected at byte 2"},
		{"1e", "a digit was expected at byte 2"},
		{"1e+", "a digit was expected at byte 3"},
		{"01", "the end was expected at byte 1"},
		{"1 2", "the end was expected at byte 2"},
		{"{}}", "the end was expected at byte 2"},
		{"[", "a value was expected at byte 1"},
		{"[1", "a comma or ] was expected at byte 2"},
		{"[1,]", "a value was expected at byte 3"},
		{"[1}", "a comma or ] was expected at byte 2"},
		{"[{\"a\":1},{\"b\"", "a colon was expected at byte 13"},
		{"{", "a string was expected at byte 1"},
		{"{\"a\"", "a colon was expected at byte 4"},
		{"{\"a\":", "a value was expected at byte 5"},
		{"{\"a\":1", "a comma or } was expected at byte 6"},
		{"{\"a\":1,}", "a string was expected at byte 7"},
		{"{\"a\":1]", "a comma or } was expected at byte 6"},
		{"{a:1}", "a string was expected at byte 1"},
		{"{'a':1}", "a string was expected at byte 1"},
		{"[1]/**/", "the end was expected at byte 3"},
		{"\"a", "the end of a string was expected at byte 2"},
		{"\"a\n\"", "the end of a string was expected at byte 2"},
		{"\"\\", "an escape was expected at byte 2"},
		{"\"\\x\"", "an escape was expected at byte 2"},
		{"\"\\u12", "four hexadecimal digits was expected at byte 5"},
		{"\"\\u12g4\"", "four hexadecimal digits was expected at byte 5"},
		{"\"\\ud800\\u1\"", "four hexadecimal digits was expected at byte 10"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char what[128];

		snprintf(what, sizeof(what), "is not JSON: %s", cases[i][1]);
		refuse(cases[i][0], what);
	}
}

static void test_depth(void **state)
{
	struct json_object *o;
	char text[2 * JSON_TREE_DEPTH + 3];

	(void)state;
	for (size_t depth = JSON_TREE_DEPTH; depth <= JSON_TREE_DEPTH + 1; depth++) {
		memset(text, '[', depth);
		memset(text + depth, ']', depth);
		assert_int_equal(parse(text, 2 * depth, &o, NULL), depth == JSON_TREE_DEPTH ? 0 : -EINVAL);
		json_object_put(o);
	}
}

/* Cut anywhere, an object is no object. */
static void test_cut(void **state)
{
	static const char text[] = "{\"a\":[1.5e3,{\"b\\n\":\"\\ud83d\\ude00\"},true,null],\"c\":{}}";
	struct json_object *o;

	(void)state;
	check(text, "{\"a\":[1500.0,{\"b\\n\":\"\xf0\x9f\x98\x80\"},true,null],\"c\":{}}");
	for (size_t len = 0; len < sizeof(text) - 1; len++) {
		assert_int_equal(parse(text, len, &o, NULL), -EINVAL);
		assert_null(o);
	}
}

/* What a real server sends is read as json-c reads it. */
static void test_real(void **state)
{
	static const char *const names[] = {"odd-services-list", "odd-endpointslices-list", "list-services"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct json_object *ours, *theirs;
		CLEANUP_FREE char *text = NULL;
		size_t len;

		text = body_read(names[i], &len);
		assert_non_null(text);
		assert_int_equal(parse(text, len, &ours, NULL), 0);
		theirs = json_tokener_parse(text);
		assert_non_null(theirs);
		assert_true(json_object_equal(ours, theirs));
		json_object_put(ours);
		json_object_put(theirs);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_nul),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_real),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
