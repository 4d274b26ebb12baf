/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_UNIT_TEXT_FILE_H
#define TESTS_UNIT_TEXT_FILE_H

#include "base/mem.h"
#include "base/strbuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* Files that tests read, write and compare with. */

/* The whole file with a NUL behind it, NULL when there is none; 'ret_len' may be NULL. The caller frees it. */
static inline char *text_file_read(const char *path, size_t *ret_len)
{
	struct strbuf b = {0};
	char part[4096];
	size_t n;
	FILE *f = fopen(path, "re");

	if (ret_len)
		*ret_len = 0;
	if (!f)
		return NULL;
	while ((n = fread(part, 1, sizeof(part), f)))
		strbuf_add(&b, part, n);
	fclose(f);
	if (ret_len)
		*ret_len = b.len;
	return strbuf_steal(&b);
}

/* Whole or not at all, and another file than the one that was there. */
static inline void text_file_write(const char *path, const char *text, mode_t mode)
{
	CLEANUP_FREE char *other = xasprintf("%s.new", path);
	FILE *f = fopen(other, "we");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(other, mode), 0);
	assert_int_equal(rename(other, path), 0);
}

/* Fails at the first line in which 'text' is not the file at 'path'. UPDATE_GOLDEN=1 writes the file instead. */
static inline void text_file_expect(const char *path, const char *text)
{
	CLEANUP_FREE char *expected = text_file_read(path, NULL);
	unsigned line = 1;
	size_t start = 0, i;

	if (getenv("UPDATE_GOLDEN")) {
		text_file_write(path, text, 0644);
		return;
	}
	if (!expected)
		fail_msg("there is no %s (UPDATE_GOLDEN=1 writes it)", path);
	if (!strcmp(expected, text))
		return;
	for (i = 0; expected[i] && expected[i] == text[i]; i++)
		if (text[i] == '\n') {
			line++;
			start = i + 1;
		}
	fail_msg("%s:%u: expected \"%.*s\", got \"%.*s\"", path, line, (int)strcspn(expected + start, "\n"),
		expected + start, (int)strcspn(text + start, "\n"), text + start);
}

#endif
