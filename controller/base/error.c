/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What comes from outside may hold anything; an error stays one line. */
static void one_line(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			*s = '?';
}

int error_set(struct error *err, int code, const char *object, const char *mend, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	err->code = code;
	err->where[0] = '\0';
	snprintf(err->object, sizeof(err->object), "%s", object ? object : "");
	snprintf(err->mend, sizeof(err->mend), "%s", mend ? mend : "");
	va_start(ap, fmt);
	vsnprintf(err->what, sizeof(err->what), fmt, ap);
	va_end(ap);
	one_line(err->object);
	one_line(err->what);
	one_line(err->mend);
	return code;
}

int error_at(struct error *err, const char *file, unsigned line)
{
	if (!err)
		return -EINVAL;
	if (!err->where[0] && line)
		snprintf(err->where, sizeof(err->where), "%s:%u", file, line);
	else if (!err->where[0])
		snprintf(err->where, sizeof(err->where), "%s", file);
	return err->code;
}

const char *error_text(const struct error *err)
{
	static char text[sizeof(struct error) + 16];

	snprintf(text, sizeof(text), "%s%s%s%s%s%s%s%s", err->where, err->where[0] ? ": " : "", err->object,
		err->object[0] ? ": " : "", err->what[0] ? err->what : strerror(-err->code),
		err->mend[0] ? " (" : "", err->mend, err->mend[0] ? ")" : "");
	return text;
}
