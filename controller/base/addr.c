/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool addr_parse(const char *s, struct addr *ret)
{
	struct addr a = {0};

	*ret = a;
	if (!s)
		return false;
	a.family = strchr(s, ':') ? AF_INET6 : AF_INET;
	if (inet_pton(a.family, s, a.bytes) != 1)
		return false;
	*ret = a;
	return true;
}

bool prefix_parse(const char *s, struct prefix *ret, bool *ret_host_bits)
{
	char text[ADDR_TEXT_SIZE];
	const char *slash = s ? strchr(s, '/') : NULL;
	struct addr a;
	unsigned len = 0;

	*ret = (struct prefix){0};
	if (ret_host_bits)
		*ret_host_bits = false;
	if (!slash || (size_t)(slash - s) >= sizeof(text) || !slash[1] || strlen(slash + 1) > 3)
		return false;
	memcpy(text, s, (size_t)(slash - s));
	text[slash - s] = '\0';
	for (const char *p = slash + 1; *p; p++) {
		if (*p < '0' || *p > '9')
			return false;
		len = len * 10 + (unsigned)(*p - '0');
	}
	if ((slash[1] == '0' && slash[2]) || !addr_parse(text, &a) || len > 8 * addr_size(&a))
		return false;
	*ret = prefix_of(&a, (uint8_t)len);
	if (ret_host_bits)
		*ret_host_bits = addr_cmp(&ret->addr, &a) != 0;
	return true;
}

const char *addr_text(const struct addr *a, char *buf)
{
	if (!a->family || !inet_ntop(a->family, a->bytes, buf, ADDR_TEXT_SIZE))
		snprintf(buf, ADDR_TEXT_SIZE, "none");
	return buf;
}

const char *prefix_text(const struct prefix *p, char *buf)
{
	addr_text(&p->addr, buf);
	if (p->addr.family)
		snprintf(buf + strlen(buf), 5, "/%u", p->len);
	return buf;
}

size_t addr_size(const struct addr *a)
{
	return a->family == AF_INET ? 4 : a->family == AF_INET6 ? 16 : 0;
}

struct addr addr_from_bytes(uint8_t family, const void *bytes)
{
	struct addr a = {.family = family};

	memcpy(a.bytes, bytes, addr_size(&a));
	return a;
}

struct prefix prefix_of(const struct addr *a, uint8_t len)
{
	struct prefix p = {.addr = *a, .len = len};
	size_t whole = len / 8;

	if (whole < sizeof(p.addr.bytes)) {
		p.addr.bytes[whole] &= (uint8_t)(0xff00u >> len % 8);
		memset(&p.addr.bytes[whole + 1], 0, sizeof(p.addr.bytes) - whole - 1);
	}
	return p;
}

int addr_cmp(const struct addr *a, const struct addr *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

int prefix_cmp(const struct prefix *a, const struct prefix *b)
{
	int c = addr_cmp(&a->addr, &b->addr);

	return c ? c : (int)a->len - (int)b->len;
}

bool prefix_has(const struct prefix *p, const struct addr *a)
{
	struct prefix q;

	if (!p->addr.family || a->family != p->addr.family)
		return false;
	q = prefix_of(a, p->len);
	return memcmp(q.addr.bytes, p->addr.bytes, sizeof(q.addr.bytes)) == 0;
}

bool prefix_covers(const struct prefix *outer, const struct prefix *inner)
{
	return outer->len <= inner->len && prefix_has(outer, &inner->addr);
}

bool addr_is_unspecified(const struct addr *a)
{
	static const uint8_t zero[16];

	return memcmp(a->bytes, zero, sizeof(zero)) == 0;
}

bool addr_is_loopback(const struct addr *a)
{
	static const uint8_t one[16] = {[15] = 1};

	return a->family == AF_INET ? a->bytes[0] == 127
				    : a->family == AF_INET6 && memcmp(a->bytes, one, sizeof(one)) == 0;
}

bool addr_is_link_local(const struct addr *a)
{
	if (a->family == AF_INET)
		return a->bytes[0] == 169 && a->bytes[1] == 254;
	return a->family == AF_INET6 && a->bytes[0] == 0xfe && (a->bytes[1] & 0xc0) == 0x80;
}

bool addr_is_multicast(const struct addr *a)
{
	return a->family == AF_INET ? (a->bytes[0] & 0xf0) == 0xe0
				    : a->family == AF_INET6 && a->bytes[0] == 0xff;
}
