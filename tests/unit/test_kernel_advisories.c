/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "datapath/kernel_advisories.h"

#include <stdio.h>
#include <string.h>

/* "id id!", the ones that refuse with a mark. */
static void assert_advisories(const char *release, const char *version, const char *expected)
{
	struct kernel_advisory all[KERNEL_ADVISORIES_MAX];
	size_t n = kernel_advisories(release, version, all), len = 0;
	char text[256] = "";

	for (size_t i = 0; i < n; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s%s", i ? " " : "", all[i].id,
			all[i].severity == ADVISORY_REFUSE ? "!" : "");
	if (strcmp(text, expected) != 0)
		print_error("%s (%s)\n", release, version);
	assert_string_equal(text, expected);
}

static void boundaries(void **state)
{
	static const struct {
		const char *release, *expected;
	} cases[] = {
		{"6.13.12", ""},
		{"6.14.0", "conntrack-timeout!"},
		{"6.14.11", "conntrack-timeout!"},
		{"6.17.13", "conntrack-timeout!"},
		{"6.18.0", "conntrack-timeout!"},
		{"6.18.32", "conntrack-timeout!"},
		{"6.18.33", ""},
		{"5.4.300", "conntrack-delete"},
		{"5.5.1", "conntrack-delete stuck-flows"},
		{"5.10.181", "conntrack-delete stuck-flows"},
		{"5.10.182", "stuck-flows"},
		{"5.15.63", "conntrack-delete stuck-flows"},
		{"5.15.64", "conntrack-delete"},
		{"5.15.114", "conntrack-delete"},
		{"5.15.115", ""},
		{"5.19.5", "conntrack-delete stuck-flows"},
		{"5.19.6", "conntrack-delete"},
		{"6.1.31", "conntrack-delete below-floor"},
		{"6.1.32", "below-floor"},
		{"6.1.79", "below-floor"},
		{"6.1.80", ""},
		{"6.3.5", "conntrack-delete"},
		{"6.3.6", ""},
		{"6.4.0", ""},
		{"6.5.13", "below-floor"},
		{"6.6.0", ""},
		{"6.19.0", "encapsulation"},
		{"7.1.9", "encapsulation"},
		{"7.2.0", ""},
		{"", ""},
		{"FreeBSD", ""},
		{"6", ""},
		{"4.19.0", "conntrack-delete"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_advisories(cases[i].release, "", cases[i].expected);
}

/* As `uname -r` and `uname -v` say it there. */
static void distributions(void **state)
{
	(void)state;
	/* Debian: the ABI in the release, the stable release in the version; later both in the release. */
	assert_advisories("6.1.0-50-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-1 (2026-08-01)", "");
	assert_advisories(
		"6.1.0-18-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)", "below-floor");
	assert_advisories("6.1.0-7-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.20-2 (2023-04-08)",
		"conntrack-delete below-floor");
	assert_advisories(
		"6.12.117+deb13-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1 (2026-11-01)", "");
	assert_advisories("6.16.3+deb13-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.16.3-1~bpo13+1 (2025-09-15)",
		"conntrack-timeout!");
	assert_advisories("7.2.13+deb14-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 7.2.13-1 (2026-11-10)", "");
	/* A release without its version says nothing of its patches. */
	assert_advisories("6.1.0-18-amd64", "", "");
	/* Ubuntu, AKS, EKS on Ubuntu: fixes come on top of a number that stays. */
	assert_advisories(
		"6.8.0-60-generic", "#63-Ubuntu SMP PREEMPT_DYNAMIC Tue Apr 15 19:04:15 UTC 2025", "");
	assert_advisories("6.14.0-29-generic",
		"#29~24.04.1-Ubuntu SMP PREEMPT_DYNAMIC Thu Aug 14 16:52:50 UTC 2", "conntrack-timeout");
	assert_advisories("5.15.0-1089-azure", "#98-Ubuntu SMP Wed Apr 16 13:20:12 UTC 2025", "");
	assert_advisories(
		"6.17.0-1004-aws", "#4-Ubuntu SMP Tue Oct 7 12:00:00 UTC 2025", "conntrack-timeout");
	/* Red Hat and kin, SUSE, Oracle. */
	assert_advisories(
		"5.14.0-570.12.1.el9_6.x86_64", "#1 SMP PREEMPT_DYNAMIC Fri Apr 4 10:41:31 EDT 2025", "");
	assert_advisories(
		"6.12.0-55.9.1.el10_0.x86_64", "#1 SMP PREEMPT_DYNAMIC Tue Apr 22 11:38:33 EDT 2025", "");
	assert_advisories(
		"6.4.0-150600.23.47-default", "#1 SMP PREEMPT_DYNAMIC Wed Apr 16 12:00:00 UTC 2025", "");
	assert_advisories("6.15.9-201.fc42.x86_64", "#1 SMP PREEMPT_DYNAMIC Sat Aug 2 11:37:34 UTC 2025",
		"conntrack-timeout");
	/* Those that follow the stable releases. */
	assert_advisories("6.12.48-talos", "#1 SMP PREEMPT_DYNAMIC Mon Sep 22 13:32:02 UTC 2025", "");
	assert_advisories(
		"6.18.9-talos", "#1 SMP PREEMPT_DYNAMIC Mon Feb 9 13:32:02 UTC 2026", "conntrack-timeout!");
	assert_advisories("6.6.95-flatcar", "#1 SMP PREEMPT_DYNAMIC Tue Jul 1 21:00:00 -00 2025", "");
	assert_advisories("6.1.75+", "#1 SMP PREEMPT_DYNAMIC Sat Mar 30 14:38:17 UTC 2024", "below-floor");
	assert_advisories(
		"6.1.112-124.190.amzn2023.x86_64", "#1 SMP PREEMPT_DYNAMIC Mon Oct 21 22:01:45 UTC 2024", "");
	assert_advisories("6.6.96.2-2.azl3", "#1 SMP PREEMPT_DYNAMIC Tue Aug 12 03:00:00 UTC 2025", "");
}

static void refusal(void **state)
{
	struct kernel_advisory a;

	(void)state;
	assert_true(kernel_refused("6.17.2", "", &a));
	assert_string_equal(a.id, "conntrack-timeout");
	assert_false(kernel_refused("6.1.10", "", &a));
	assert_false(kernel_refused("6.17.0-1004-aws", "#4-Ubuntu SMP", &a));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(boundaries),
		cmocka_unit_test(distributions),
		cmocka_unit_test(refusal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
