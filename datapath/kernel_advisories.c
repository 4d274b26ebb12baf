/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/kernel_advisories.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define LAST UINT_MAX

const char *const advisory_severity_names[] = {"warn", "refuse"};

struct kernel_version {
	unsigned major, minor, patch;
	bool exact; /* 'patch' is that of a stable release */
};

/* Kernels of one series from one patch level to another, both included. */
struct range {
	unsigned major, minor, first, last;
};

#define RANGES_MAX 24
struct entry {
	struct kernel_advisory text;
	bool recent; /* the fix came after the series ended: kernels that count on their own are warned of, too */
	unsigned older_major, older_minor; /* all before this one as well; 0: none */
	struct range ranges[RANGES_MAX];   /* ended by major 0 */
};

/*
 * Commits are those of Linux. A range ends at the last release that is known to be affected, so that a later one is never
 * accused wrongly.
 */
static const struct entry entries[] = {
	/* Before net 2026-06-21, "fix offloaded ct timeout never being extended". 6.15 to 6.17 ended before it. */
	{{"conntrack-timeout", ADVISORY_REFUSE, "Linux 6.14 to 6.18.32",
		 "lose the conntrack entries of offloaded connections, and translated ones break",
		 "take another kernel; flowtable.knownBadKernel: use accelerates all the same",
		 "this kernel, of Linux 6.14 to 6.18.32, breaks offloaded connections (conntrack-timeout); "
		 "flowtable.knownBadKernel: use overrides"},
		true, 0, 0,
		{{6, 14, 0, LAST}, {6, 15, 0, LAST}, {6, 16, 0, LAST}, {6, 17, 0, LAST}, {6, 18, 0, 32}}},
	/* 9b7c68b3911a, "ctnetlink: Support offloaded conntrack entry deletion" */
	{{"conntrack-delete", ADVISORY_WARN, "Linux before 5.10.182, 5.15.115, 6.1.32, 6.3.6",
		 "cannot end a connection while it is offloaded: UDP to an endpoint that is gone goes on for "
		 "its client's life",
		 "take a newer kernel"},
		false, 5, 10,
		{{5, 10, 0, 181}, {5, 11, 0, LAST}, {5, 12, 0, LAST}, {5, 13, 0, LAST}, {5, 14, 0, LAST},
			{5, 15, 0, 114}, {5, 16, 0, LAST}, {5, 17, 0, LAST}, {5, 18, 0, LAST},
			{5, 19, 0, LAST}, {6, 0, 0, LAST}, {6, 1, 0, 31}, {6, 2, 0, LAST}, {6, 3, 0, 5}}},
	/* CVE-2022-50000, "netfilter: flowtable: fix stuck flows on cleanup due to pending work" */
	{{"stuck-flows", ADVISORY_WARN, "Linux 5.5 to 5.15.63 and 5.16 to 5.19.5",
		 "may keep flows when the flowtable goes, and use freed memory", "take a newer kernel"},
		false, 0, 0,
		{{5, 5, 0, LAST}, {5, 6, 0, LAST}, {5, 7, 0, LAST}, {5, 8, 0, LAST}, {5, 9, 0, LAST},
			{5, 10, 0, LAST}, {5, 11, 0, LAST}, {5, 12, 0, LAST}, {5, 13, 0, LAST},
			{5, 14, 0, LAST}, {5, 15, 0, 63}, {5, 16, 0, LAST}, {5, 17, 0, LAST},
			{5, 18, 0, LAST}, {5, 19, 0, 5}}},
	/* 41f2c7c342d3 without 735795f68b37; and references to routes that were dropped twice */
	{{"below-floor", ADVISORY_WARN, "Linux 6.1 before 6.1.80 and 6.5",
		 "may send each offloaded connection back to the normal path every second, or count "
		 "references to routes wrongly",
		 "take a newer kernel"},
		false, 0, 0, {{6, 1, 0, 79}, {6, 5, 0, LAST}}},
	/* 69c54f80f4a7, a177ae30f786, ef4f741e8627, baa3c65435fb; ipip: nf-26-06-23, nf-26-07-08 */
	{{"encapsulation", ADVISORY_WARN, "Linux 6.19 to 7.1",
		 "may corrupt or misdirect packets whose uplink is a VLAN, PPPoE or an IP tunnel",
		 "take a newer kernel, or leave such devices out (interfaces.exclude)"},
		true, 0, 0, {{6, 19, 0, LAST}, {7, 0, 0, LAST}, {7, 1, 0, LAST}}},
};

static bool parse(const char *text, struct kernel_version *ret, const char **ret_rest)
{
	int used = 0;

	*ret = (struct kernel_version){0};
	if (sscanf(text, "%4u.%4u%n", &ret->major, &ret->minor, &used) < 2 || !used)
		return false;
	text += used;
	used = 0;
	if (sscanf(text, ".%6u%n", &ret->patch, &used) == 1 && used) {
		ret->exact = true;
		text += used;
	}
	*ret_rest = text;
	return true;
}

/* Distributions whose number does not say which fixes are in. */
static bool counts_otherwise(const struct kernel_version *v, const char *rest, const char *version)
{
	static const char *const own[] = {".el", ".fc", "-default", "-generic", "-azure", "-aws", "-gcp",
		"-gke", "-oracle", "-kvm", "-lowlatency", "-ibm", "-raspi", "-nvidia", ".uek", "-pve"};

	if (strstr(version, "Ubuntu") || strstr(version, "~"))
		return true;
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (strstr(rest, own[i]))
			return true;
	/* "6.8.0-60-something": who counts on his own begins at .0. */
	return !v->patch && rest[0] != '\0';
}

/* "Debian 6.1.170-1 (2026-01-01)": the stable release where uname -r has the ABI, "6.1.0-50-amd64". */
static bool debian(const char *version, struct kernel_version *ret)
{
	const char *at = strstr(version, " Debian "), *rest;

	return at && parse(at + strlen(" Debian "), ret, &rest) && ret->exact;
}

static bool find_version(const char *release, const char *version, struct kernel_version *ret)
{
	struct kernel_version d;
	const char *rest;

	if (!parse(release, ret, &rest))
		return false;
	if (debian(version, &d) && d.major == ret->major && d.minor == ret->minor)
		*ret = d;
	else if (counts_otherwise(ret, rest, version))
		ret->exact = false;
	return true;
}

static bool in_range(const struct range *r, const struct kernel_version *v)
{
	if (r->major != v->major || r->minor != v->minor)
		return false;
	if (!v->exact) /* all of the series, or nothing can be said */
		return !r->first && r->last == LAST;
	return v->patch >= r->first && v->patch <= r->last;
}

static bool holds(const struct entry *e, const struct kernel_version *v)
{
	if (!v->exact && !e->recent)
		return false;
	if (v->major < e->older_major || (v->major == e->older_major && v->minor < e->older_minor))
		return true;
	for (size_t i = 0; i < RANGES_MAX && e->ranges[i].major; i++)
		if (in_range(&e->ranges[i], v))
			return true;
	return false;
}

size_t kernel_advisories(
	const char *release, const char *version, struct kernel_advisory ret[KERNEL_ADVISORIES_MAX])
{
	struct kernel_version v;
	size_t n = 0;

	_Static_assert(sizeof(entries) / sizeof(entries[0]) <= KERNEL_ADVISORIES_MAX, "no room for all");
	if (!find_version(release, version, &v))
		return 0;
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		if (!holds(&entries[i], &v))
			continue;
		ret[n] = entries[i].text;
		if (!v.exact)
			ret[n].severity = ADVISORY_WARN;
		n++;
	}
	return n;
}

bool kernel_refused(const char *release, const char *version, struct kernel_advisory *ret)
{
	struct kernel_advisory all[KERNEL_ADVISORIES_MAX];
	size_t n = kernel_advisories(release, version, all);

	for (size_t i = 0; i < n; i++) {
		if (all[i].severity != ADVISORY_REFUSE)
			continue;
		*ret = all[i];
		return true;
	}
	return false;
}
