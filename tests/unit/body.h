/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_UNIT_BODY_H
#define TESTS_UNIT_BODY_H

#include "text_file.h"

/* The body of a real API server's answer in tests/unit/data/bodies; the caller frees it. NULL when there is
 * none. */
static inline char *body_read(const char *name, size_t *ret_len)
{
	CLEANUP_FREE char *path = xasprintf("%s/unit/data/bodies/%s.json", TEST_DATA, name);

	return text_file_read(path, ret_len);
}

#endif
