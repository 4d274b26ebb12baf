/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef BASE_ADDR_H
#define BASE_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/*
 * addr: IP addresses and prefixes as plain values.
 *
 * 'bytes' is in network order; IPv4 uses the first 4 and keeps the rest zero, so that two addresses of one family compare
 * with memcmp. A zeroed struct (family 0) is "no address".
 */
struct addr {
	uint8_t family; /* AF_INET, AF_INET6, or 0: none */
	uint8_t bytes[16];
};

/* Always canonical: bits past 'len' are zero. */
struct prefix {
	struct addr addr;
	uint8_t len; /* bits */
};

#define ADDR_TEXT_SIZE 46   /* INET6_ADDRSTRLEN */
#define PREFIX_TEXT_SIZE 50 /* address, '/', three digits */

/*
 * Textual form to value. Strict: no leading zeros in IPv4 octets (inet_pton(3)), no zone ids, IPv4-mapped IPv6 addresses
 * are kept as IPv6. Returns false and zeroes '*ret' when 's' (NULL allowed) is not an address.
 */
bool addr_parse(const char *s, struct addr *ret);
/* "10.0.0.0/8"; an address without '/' is not a prefix. Host bits are cleared, '*ret_host_bits' (may be NULL) says whether any was set. */
bool prefix_parse(const char *s, struct prefix *ret, bool *ret_host_bits);

/* Into 'buf' of at least ADDR_TEXT_SIZE (PREFIX_TEXT_SIZE) bytes; returns 'buf'. "none" for family 0. */
const char *addr_text(const struct addr *a, char *buf);
const char *prefix_text(const struct prefix *p, char *buf);

size_t addr_size(const struct addr *a); /* bytes: 4, 16, 0 */
struct addr addr_from_bytes(uint8_t family, const void *bytes);
/* The full-length prefix of an address; the prefix of 'len' bits that holds an address. */
struct prefix prefix_of(const struct addr *a, uint8_t len);

/* Order: family, then bytes, then length. For qsort-like use and sorted maps. */
int addr_cmp(const struct addr *a, const struct addr *b);
int prefix_cmp(const struct prefix *a, const struct prefix *b);
bool prefix_has(const struct prefix *p, const struct addr *a);
/* True when 'outer' covers all of 'inner' (equal prefixes included). */
bool prefix_covers(const struct prefix *outer, const struct prefix *inner);
/* ::ffff:0:0/96, 0.0.0.0, ::, loopback, multicast and link-local tests. */
bool addr_is_unspecified(const struct addr *a);
bool addr_is_loopback(const struct addr *a);
bool addr_is_link_local(const struct addr *a);
bool addr_is_multicast(const struct addr *a);

#endif
