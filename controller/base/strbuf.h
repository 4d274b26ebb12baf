/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BASE_STRBUF_H
#define BASE_STRBUF_H

#include <stddef.h>

/*
 * strbuf: text that grows.
 *
 * `struct strbuf b = {0};` is a valid empty buffer. 'data' is NUL-terminated once anything was added (NULL before).
 * Ownership: strbuf_done() frees it; strbuf_steal() hands the text (never NULL) to the caller, who frees it.
 */
struct strbuf {
	char *data;
	size_t len; /* bytes, without the NUL */
	size_t cap;
};

void strbuf_add(struct strbuf *b, const void *data, size_t len);
void strbuf_puts(struct strbuf *b, const char *s);
void strbuf_printf(struct strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Empties it and keeps the memory. */
void strbuf_clear(struct strbuf *b);
void strbuf_done(struct strbuf *b);
char *strbuf_steal(struct strbuf *b) __attribute__((returns_nonnull));

#endif
