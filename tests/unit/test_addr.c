/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/addr.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct addr A(const char *s) {
	struct addr a;

	if (!addr_parse(s, &a))
		fail_msg("%s does not parse", s);
	return a;
}

static struct prefix
P(const char *s) {
	struct prefix p;

	if (!prefix_parse(s, &p, NULL))
		fail_msg("%s does not parse", s);
	return p;
}

static void
test_addr_parse(void **state)
{
	static const char *const good[][2] = {{"0.0.0.0", "0.0.0.0"}, {"255.255.255.255", "255.255.255.255"},
		{"10.0.0.1", "10.0.0.1"}, {"::", "::"}, {"2001:DB8:0:0::1", "2001:db8::1"},
		{"::ffff:1.2.3.4", "::ffff:1.2.3.4"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}};
	static const char *const bad[] = {"", " ", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4",
		"1.2.3.4 ", " 1.2.3.4", "1.2.3.-4", "0x1.2.3.4", ":", ":::", "1::2::3", "fe80::1%eth0",
		"12345::", "1:2:3:4:5:6:7:8:9", "a.b.c.d", "1.2.3.4/32", "[::1]"};
	char text[ADDR_TEXT_SIZE];
	struct addr a, none = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		a = A(good[i][0]);
		assert_int_equal(a.family, strchr(good[i][0], ':') ? AF_INET6 : AF_INET);
		assert_ptr_equal(addr_text(&a, text), text);
		assert_string_equal(text, good[i][1]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(&a, 0xff, sizeof(a));
		if (addr_parse(bad[i], &a))
			fail_msg("%s parses", bad[i]);
		assert_memory_equal(&a, &none, sizeof(a));
	}
	assert_false(addr_parse(NULL, &a));
	assert_string_equal(addr_text(&none, text), "none");
	/* The tail of an IPv4 address is zero, or memcmp would not compare. */
	a = A("1.2.3.4");
	for (int i = 4; i < 16; i++)
		assert_int_equal(a.bytes[i], 0);
}

static void test_prefix_parse(void **state)
{
	static const char *const good[][2] = {{"10.0.0.0/8", "10.0.0.0/8"}, {"0.0.0.0/0", "0.0.0.0/0"},
		{"1.2.3.4/32", "1.2.3.4/32"}, {"::/0", "::/0"}, {"2001:db8::/33", "2001:db8::/33"},
		{"2001:db8::1/128", "2001:db8::1/128"}};
	static const char *const hosts[][2] = {{"10.1.2.3/8", "10.0.0.0/8"}, {"1.2.3.4/31", "1.2.3.4/31"},
		{"1.2.3.5/31", "1.2.3.4/31"}, {"255.255.255.255/0", "0.0.0.0/0"},
		{"2001:db8:ffff::/33", "2001:db8:8000::/33"}, {"::1/127", "::/127"}};
	static const char *const bad[] = {"", "/", "/8", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33",
		"10.0.0.0/08", "10.0.0.0/ 8", "10.0.0.0/+8", "10.0.0.0/-1", "10.0.0.0/1000",
		"10.0.0.0/4294967304", "::/129", "10.0.0/8", "10.0.0.0/8/8", "10.0.0.0/255.0.0.0", "::/00",
		"1111111111111111111111111111111111111111111111111111111/8"};
	char text[PREFIX_TEXT_SIZE];
	struct prefix p, none = {0};
	bool bits;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_true(prefix_parse(good[i][0], &p, &bits));
		assert_false(bits);
		assert_string_equal(prefix_text(&p, text), good[i][1]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		assert_true(prefix_parse(hosts[i][0], &p, &bits));
		assert_int_equal(bits, strcmp(hosts[i][0], hosts[i][1]) != 0);
		assert_string_equal(prefix_text(&p, text), hosts[i][1]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(&p, 0xff, sizeof(p));
		if (prefix_parse(bad[i], &p, &bits))
			fail_msg("%s parses", bad[i]);
		assert_memory_equal(&p, &none, sizeof(p));
		assert_false(bits);
	}
	assert_false(prefix_parse(NULL, &p, NULL));
	assert_string_equal(prefix_text(&none, text), "none");
	p = P("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128");
	assert_int_equal(strlen(prefix_text(&p, text)), 43);
}

static void test_bytes(void **state)
{
	static const uint8_t v4[4] = {192, 0, 2, 1};
	static const uint8_t v6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 9};
	struct addr a = addr_from_bytes(AF_INET, v4), b = addr_from_bytes(AF_INET6, v6),
		    want = A("192.0.2.1"), none = {0};

	(void)state;
	assert_memory_equal(&a, &want, sizeof(a));
	want = A("2001:db8::9");
	assert_memory_equal(&b, &want, sizeof(b));
	assert_int_equal(addr_size(&a), 4);
	assert_int_equal(addr_size(&b), 16);
	assert_int_equal(addr_size(&none), 0);
}

static void test_order(void **state)
{
	static const char *const sorted[] = {"0.0.0.0/0", "9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/9",
		"10.0.0.1/32", "128.0.0.0/1", "::/0", "::1/128", "2001:db8::/32", "2001:db8::/33"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sorted); i++)
		for (size_t k = 0; k < ARRAY_SIZE(sorted); k++) {
			struct prefix a = P(sorted[i]), b = P(sorted[k]);
			int c = prefix_cmp(&a, &b), want = (i > k) - (i < k);

			assert_int_equal((c > 0) - (c < 0), want);
			c = addr_cmp(&a.addr, &b.addr);
			if (addr_cmp(&a.addr, &b.addr))
				assert_int_equal((c > 0) - (c < 0), want);
		}
}

static void test_membership(void **state)
{
	struct prefix p = P("10.128.0.0/9"), q = P("2001:db8:8000::/33"), all4 = P("0.0.0.0/0"),
		      all6 = P("::/0"), none = {0}, r;
	struct addr a;
	unsigned seed = 7;

	(void)state;
	a = A("10.128.0.0");
	assert_true(prefix_has(&p, &a));
	a = A("10.255.255.255");
	assert_true(prefix_has(&p, &a));
	assert_true(prefix_has(&all4, &a));
	assert_false(prefix_has(&all6, &a));
	assert_false(prefix_has(&none, &a));
	a = A("10.127.255.255");
	assert_false(prefix_has(&p, &a));
	a = A("11.128.0.0");
	assert_false(prefix_has(&p, &a));
	a = A("2001:db8:ffff::1");
	assert_true(prefix_has(&q, &a));
	assert_false(prefix_has(&all4, &a));
	a = A("2001:db8:7fff::1");
	assert_false(prefix_has(&q, &a));

	r = P("10.128.0.0/9");
	assert_true(prefix_covers(&p, &r));
	r = P("10.0.0.0/8");
	assert_false(prefix_covers(&p, &r));
	assert_true(prefix_covers(&r, &p));
	assert_false(prefix_covers(&all6, &p));
	r = P("::/96");
	assert_false(prefix_covers(&all4, &r));

	/* prefix_of against bits counted one by one. */
	for (int i = 0; i < 2000; i++) {
		uint8_t bytes[16], len;
		uint8_t family = rand_r(&seed) % 2 ? AF_INET : AF_INET6;

		for (int k = 0; k < 16; k++)
			bytes[k] = (uint8_t)rand_r(&seed);
		a = addr_from_bytes(family, bytes);
		len = (uint8_t)((unsigned)rand_r(&seed) % (8 * addr_size(&a) + 1));
		r = prefix_of(&a, len);
		assert_int_equal(r.len, len);
		assert_int_equal(r.addr.family, family);
		for (unsigned bit = 0; bit < 128; bit++)
			assert_int_equal(r.addr.bytes[bit / 8] >> (7 - bit % 8) & 1,
				bit < len ? a.bytes[bit / 8] >> (7 - bit % 8) & 1 : 0);
		assert_true(prefix_has(&r, &a));
		if (len) {
			a.bytes[(len - 1) / 8] ^= (uint8_t)(0x80 >> (len - 1) % 8);
			assert_false(prefix_has(&r, &a));
		}
	}
}

static void test_kinds(void **state)
{
	/* unspecified, loopback, link-local, multicast */
	static const char *const cases[][2] = {{"0.0.0.0", "u---"}, {"::", "u---"}, {"0.0.0.1", "----"},
		{"127.0.0.1", "-l--"}, {"127.255.0.9", "-l--"}, {"126.0.0.1", "----"}, {"::1", "-l--"},
		{"::2", "----"}, {"169.254.0.252", "--k-"}, {"169.253.0.1", "----"}, {"fe80::1", "--k-"},
		{"febf::1", "--k-"}, {"fec0::1", "----"}, {"224.0.0.1", "---m"}, {"239.255.0.1", "---m"},
		{"240.0.0.1", "----"}, {"223.0.0.1", "----"}, {"ff02::1", "---m"}, {"fe02::1", "----"},
		{"7f00::1", "----"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct addr a = A(cases[i][0]);
		char got[5];

		snprintf(got, sizeof(got), "%c%c%c%c", addr_is_unspecified(&a) ? 'u' : '-',
			addr_is_loopback(&a) ? 'l' : '-', addr_is_link_local(&a) ? 'k' : '-',
			addr_is_multicast(&a) ? 'm' : '-');
		assert_string_equal(got, cases[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addr_parse),
		cmocka_unit_test(test_prefix_parse),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_membership),
		cmocka_unit_test(test_kinds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
