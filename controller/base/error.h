/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

/*
 * error: what went wrong, said once, where it is known.
 *
 * The rule of the tree: a function that can fail returns 0 or a negative errno and takes a `struct error *` as its last
 * parameter (NULL is allowed: the caller does not want the words). The error is filled where the fact is known and only
 * there; callers pass it on and may fill `object` or `where` if still empty. It is logged or printed once, at the edge
 * (main, the event loop), as one line: "WHERE: OBJECT: WHAT (MEND)".
 *
 * Ownership: a plain value, no memory behind it. Untouched on success.
 */
struct error {
	int code;         /* negative errno, 0: nothing set */
	char object[192]; /* what it is about: "Service default/web", "device eth1" */
	char where[256];  /* "FILE:LINE" or a URL; empty where there is none */
	char what[512];   /* the fact */
	char mend[256];   /* what to do about it */
};

/*
 * Fills 'err' (if not NULL) and returns 'code', which must be negative. 'object' and 'mend' may be NULL. Control characters in
 * any of them become '?': an error is one line, whatever it quotes.
 */
int error_set(struct error *err, int code, const char *object, const char *mend, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

/* Adds "FILE:LINE" (line 0: only FILE) to an error that has no 'where' yet. Returns err->code, or -EINVAL for NULL. */
int error_at(struct error *err, const char *file, unsigned line);

/* The one-line form, valid until the next call. Never NULL. */
const char *error_text(const struct error *err);

#endif
