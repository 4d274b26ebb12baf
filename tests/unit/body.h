/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_UNIT_BODY_H
#define TESTS_UNIT_BODY_H

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* The body of a real API server's answer in tests/unit/data/bodies; the caller frees it. NULL when there is
 * none. */
static inline char *body_read(const char *name, size_t *ret_len)
{
	CLEANUP_FREE char *path = xasprintf("%s/unit/data/bodies/%s.json", TEST_DATA, name);
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t cap = 0, n;

	*ret_len = 0;
	if (!f)
		return NULL;
	do {
		text = xrealloc(text, cap + 65536);
		n = fread(text + cap, 1, 65535, f);
		cap += n;
	} while (n);
	text[cap] = '\0';
	fclose(f);
	*ret_len = cap;
	return text;
}

#endif
