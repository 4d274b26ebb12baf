/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/yamldoc.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct yaml_stream *read_ok(const char *text)
{
	struct error err = {0};
	struct yaml_stream *s = NULL;

	if (yamldoc_read("f.yaml", text, strlen(text), &s, &err))
		fail_msg("%s", error_text(&err));
	return s;
}

static void refuse_n(const char *text, size_t len, const char *want)
{
	struct error err = {0};
	struct yaml_stream *s = (void *)1;

	assert_int_equal(yamldoc_read("f.yaml", text, len, &s, &err), -EINVAL);
	assert_null(s);
	assert_string_equal(error_text(&err), want);
	assert_int_equal(yamldoc_read("f.yaml", text, len, &s, NULL), -EINVAL);
}

static void refuse(const char *text, const char *want)
{
	refuse_n(text, strlen(text), want);
}

static void test_shape(void **state)
{
	struct yaml_stream *s = read_ok("# comment\n"
					"kind: Thing\n"
					"list:\n"
					"  - a\n"
					"  - {b: 1, \"c\": '2'}\n"
					"empty:\n"
					"text: |\n"
					"  two\n"
					"  lines\n");
	const struct yaml_node *root = yamldoc_root(s, 0), *list, *map;

	(void)state;
	assert_int_equal(yamldoc_count(s), 1);
	assert_null(yamldoc_root(s, 1));
	assert_int_equal(root->kind, YAML_MAPPING);
	assert_int_equal(root->n, 4);
	assert_int_equal(root->line, 2);
	assert_string_equal(root->pairs[0].key, "kind");
	assert_int_equal(root->pairs[0].line, 2);
	assert_string_equal(yaml_text(yaml_get(root, "kind")), "Thing");
	assert_false(yaml_get(root, "kind")->quoted);
	list = yaml_get(root, "list");
	assert_int_equal(list->kind, YAML_SEQUENCE);
	assert_int_equal(list->n, 2);
	assert_int_equal(list->line, 4);
	assert_string_equal(yaml_text(list->items[0]), "a");
	map = list->items[1];
	assert_int_equal(map->line, 5);
	assert_false(yaml_get(map, "b")->quoted);
	assert_true(yaml_get(map, "c")->quoted);
	assert_int_equal(root->pairs[2].line, 6);
	assert_null(yaml_text(yaml_get(root, "empty")));
	assert_true(yaml_get(root, "text")->quoted);
	assert_string_equal(yaml_text(yaml_get(root, "text")), "two\nlines\n");
	assert_null(yaml_get(root, "none"));
	assert_null(yaml_get(NULL, "none"));
	assert_null(yaml_get(list, "a"));
	assert_null(yaml_text(list));
	assert_null(yaml_text(NULL));
	yamldoc_free(s);
	yamldoc_free(NULL);
}

static void test_scalars(void **state)
{
	struct yaml_stream *s =
		read_ok("[~, null, Null, NULL, \"\", 'null', !!str null, !!str 5, !!int \"5\", ! x, nUll]");
	const struct yaml_node *root = yamldoc_root(s, 0);
	static const struct {
		const char *text;
		bool quoted;
	} want[] = {{NULL, false}, {NULL, false}, {NULL, false}, {NULL, false}, {"", true}, {"null", true},
		{"null", true}, {"5", true}, {"5", false}, {"x", true}, {"nUll", false}};

	(void)state;
	assert_int_equal(root->n, ARRAY_SIZE(want));
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		if (want[i].text)
			assert_string_equal(yaml_text(root->items[i]), want[i].text);
		else
			assert_null(yaml_text(root->items[i]));
		assert_int_equal(root->items[i]->quoted, want[i].quoted);
	}
	yamldoc_free(s);
}

static void test_documents(void **state)
{
	struct yaml_stream *s;

	(void)state;
	s = read_ok("---\n# nothing\n---\na: 1\n---\n---\n- b\n...\n---\n''\n");
	assert_int_equal(yamldoc_count(s), 3);
	assert_int_equal(yamldoc_root(s, 0)->kind, YAML_MAPPING);
	assert_int_equal(yamldoc_root(s, 0)->line, 4);
	assert_int_equal(yamldoc_root(s, 1)->kind, YAML_SEQUENCE);
	assert_int_equal(yamldoc_root(s, 2)->kind, YAML_SCALAR);
	yamldoc_free(s);
	s = read_ok("");
	assert_int_equal(yamldoc_count(s), 0);
	yamldoc_free(s);
	s = read_ok("# only this\n");
	assert_int_equal(yamldoc_count(s), 0);
	yamldoc_free(s);
}

static void test_json(void **state)
{
	struct yaml_stream *s =
		read_ok("{\n\t\"a\":{\"b\":[1,true,\"x\\u0041\\n\\/\"]},\"c\":null,\n\t\"d\": \"\"\n}\n");
	const struct yaml_node *root = yamldoc_root(s, 0), *b = yaml_get(yaml_get(root, "a"), "b");

	(void)state;
	assert_int_equal(b->n, 3);
	assert_string_equal(yaml_text(b->items[2]), "xA\n/");
	assert_true(b->items[2]->quoted);
	assert_null(yaml_text(yaml_get(root, "c")));
	assert_string_equal(yaml_text(yaml_get(root, "d")), "");
	yamldoc_free(s);
}

static void test_aliases(void **state)
{
	struct yaml_stream *s = read_ok("a: &x {k: v}\nb: *x\nc: &y w\nd: [*y, *x]\n&k e: 1\nf: *k\n");
	const struct yaml_node *root = yamldoc_root(s, 0);

	(void)state;
	assert_string_equal(yaml_text(yaml_get(yaml_get(root, "b"), "k")), "v");
	assert_string_equal(yaml_text(yaml_get(root, "d")->items[0]), "w");
	assert_string_equal(yaml_text(yaml_get(yaml_get(root, "d")->items[1], "k")), "v");
	assert_string_equal(yaml_text(yaml_get(root, "f")), "e");
	yamldoc_free(s);
	/* Defined again: the later one counts. */
	s = read_ok("- &x 1\n- *x\n- &x 2\n- *x\n");
	assert_string_equal(yaml_text(yamldoc_root(s, 0)->items[1]), "1");
	assert_string_equal(yaml_text(yamldoc_root(s, 0)->items[3]), "2");
	yamldoc_free(s);
	/* Anchors end with their document. */
	refuse("- &x 1\n---\n- *x\n", "f.yaml:3: alias *x has no anchor before it");
	refuse("a: &x\n  b: *x\n", "f.yaml:2: alias *x is inside of what it stands for");
}

static void test_bomb(void **state)
{
	struct strbuf b = {0};

	(void)state;
	/* Ten to the power of ten. */
	strbuf_puts(&b, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
	for (int i = 1; i < 10; i++) {
		strbuf_printf(&b, "a%d: &a%d [", i, i);
		for (int k = 0; k < 10; k++)
			strbuf_printf(&b, "*a%d%s", i - 1, k < 9 ? "," : "]\n");
	}
	refuse(b.data, "f.yaml:6: the document has more than 1000000 nodes (split it)");
	strbuf_clear(&b);
	for (int i = 0; i < 101; i++)
		strbuf_puts(&b, "[");
	refuse(b.data, "f.yaml:1: nested deeper than 100");
	strbuf_clear(&b);
	for (int i = 0; i < 1001; i++)
		strbuf_printf(&b, "- &a%d x\n", i);
	refuse(b.data, "f.yaml:1001: more than 1000 anchors in a document");
	strbuf_done(&b);
}

static void test_refused(void **state)
{
	(void)state;
	refuse("a: 1\nb: 2\na: 3\n", "f.yaml:3: key \"a\" is there already, in line 1 (keep one of them)");
	refuse("x:\n- {b: 1, b: 2}\n", "f.yaml:2: key \"b\" is there already, in line 2 (keep one of them)");
	refuse("z: 1\na: 1\nz: 2\na: 2\n",
		"f.yaml:3: key \"z\" is there already, in line 1 (keep one of them)");
	refuse("a: 1\nz: 1\na: 2\nz: 2\n",
		"f.yaml:3: key \"a\" is there already, in line 1 (keep one of them)");
	refuse("[a]: 1\n", "f.yaml:1: a key must be a scalar");
	refuse("a: {<<: {}}\n", "f.yaml:1: merge keys (<<) are not supported (write the members out)");
	refuse("a: !ruby/object x\n", "f.yaml:1: tag !ruby/object is not known (remove it)");
	refuse("a: !!set {x}\n", "f.yaml:1: tag tag:yaml.org,2002:set is not known here (remove it)");
	refuse("a: \"\\0\"\n", "f.yaml:1: a NUL character in a text");
	refuse("a: 1\n b: 2\n", "f.yaml:2: mapping values are not allowed in this context");
	refuse("a: [1\n", "f.yaml:2: while parsing a flow sequence: did not find expected ',' or ']'");
	refuse("a:\n\t- b\n",
		"f.yaml:2: while scanning for the next token: found character that cannot start any token");
	refuse_n("a: \xff\n", 5, "f.yaml: invalid leading UTF-8 octet at byte 3 (files are UTF-8 text)");
	refuse_n(
		"a: \0b\n", 6, "f.yaml: control characters are not allowed at byte 3 (files are UTF-8 text)");
}

static void test_many_keys(void **state)
{
	struct strbuf b = {0};
	struct yaml_stream *s;

	(void)state;
	for (int i = 0; i < 50000; i++)
		strbuf_printf(&b, "k%d: v\n", i);
	s = read_ok(b.data);
	assert_int_equal(yamldoc_root(s, 0)->n, 50000);
	assert_string_equal(yamldoc_root(s, 0)->pairs[49999].key, "k49999");
	assert_int_equal(yamldoc_root(s, 0)->pairs[49999].line, 50000);
	yamldoc_free(s);
	strbuf_puts(&b, "k7: v\n");
	refuse(b.data, "f.yaml:50001: key \"k7\" is there already, in line 8 (keep one of them)");
	strbuf_done(&b);
}

static void test_file(void **state)
{
	char path[] = "/tmp/test_yamldoc.XXXXXX";
	struct yaml_stream *s = NULL;
	struct error err = {0};
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "a: b\n", 5), 5);
	assert_int_equal(yamldoc_read_file(path, &s, &err), 0);
	assert_string_equal(yaml_text(yaml_get(yamldoc_root(s, 0), "a")), "b");
	yamldoc_free(s);
	/* One byte more than may be. */
	assert_int_equal(ftruncate(fd, (64 << 20) + 1), 0);
	assert_int_equal(yamldoc_read_file(path, &s, &err), -EFBIG);
	assert_null(s);
	assert_int_equal(err.code, -EFBIG);
	assert_string_equal(err.where, path);
	close(fd);
	unlink(path);
	assert_int_equal(yamldoc_read_file(path, &s, &err), -ENOENT);
	assert_string_equal(err.where, path);
	assert_int_equal(yamldoc_read_file("/tmp", &s, &err), -EISDIR);
	assert_string_equal(error_text(&err), "/tmp: Is a directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shape),
		cmocka_unit_test(test_scalars),
		cmocka_unit_test(test_documents),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_aliases),
		cmocka_unit_test(test_bomb),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_many_keys),
		cmocka_unit_test(test_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
