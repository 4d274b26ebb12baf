/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>
#include <stdlib.h>

/*
 * mem: allocation that does not fail, growing arrays, ownership helpers.
 *
 * Running out of memory ends the process (abort): the kernel's rules stay as they are and the next start adopts them, so
 * an agent that dies is safe and one that limps is not. What comes from outside is bounded before it is stored.
 */
void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *p, size_t size) __attribute__((returns_nonnull));
/* reallocarray(3) that does not fail. */
void *xreallocarray(void *p, size_t n, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xstrndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2), returns_nonnull));
void *xmemdup(const void *p, size_t size) __attribute__((malloc, returns_nonnull));
/* For what a library allocates: 'p', unless that is NULL; and the end itself. */
void *xcheck(void *p) __attribute__((returns_nonnull));
void out_of_memory(void) __attribute__((noreturn));

/*
 * Makes room for one more in the array 'p' of 'n' elements with capacity 'cap' (all three lvalues) and yields a zeroed
 * new last element's address: *VEC_ADD(list->items, list->n, list->cap) = item;
 */
#define VEC_ADD(p, n, cap)                                                                                   \
	((p) = vec_grow((p), (n), &(cap), sizeof(*(p))), memset(&(p)[(n)], 0, sizeof(*(p))), &(p)[(n)++])
void *vec_grow(void *p, size_t n, size_t *cap, size_t size) __attribute__((returns_nonnull));

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Local variables that free themselves: CLEANUP_FREE char *s = NULL; */
#define CLEANUP_FREE __attribute__((cleanup(cleanup_free)))
#define CLEANUP_CLOSE __attribute__((cleanup(cleanup_close)))
/* Hands the pointer on and leaves NULL behind, for the one successful exit. */
#define TAKE_PTR(p)                                                                                          \
	({                                                                                                   \
		__auto_type taken_ = (p);                                                                    \
		(p) = NULL;                                                                                  \
		taken_;                                                                                      \
	})
void cleanup_free(void *p);
void cleanup_close(int *fd);

#endif
