/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_KERNEL_ADVISORIES_H
#define DATAPATH_KERNEL_ADVISORIES_H

#include <stdbool.h>
#include <stddef.h>

/*
 * kernel_advisories: what is known of a kernel's flowtables by its version alone. What can be found out by trying is probed
 * instead (nft_probe.c).
 *
 * A version tells something only where it counts as kernel.org's stable releases do. Debian, Talos, Flatcar, Container-Optimized
 * OS, Amazon and Azure Linux do (Debian in uname -v where not in uname -r); Ubuntu, Red Hat, SUSE and their kin keep the number
 * that they started from and put fixes on top, which no number tells: of these only what was fixed after all of the series had ended
 * is said, and never as a refusal.
 */
enum advisory_severity {
	ADVISORY_WARN,   /* works, at a price; or may not concern this node */
	ADVISORY_REFUSE, /* connections break for sure */
};

extern const char *const advisory_severity_names[]; /* "warn", "refuse" */

struct kernel_advisory {
	const char *id; /* of metrics: "conntrack-timeout" */
	enum advisory_severity severity;
	const char *what;   /* which kernels */
	const char *effect; /* what happens to whom */
	const char *mend;
	const char *refusal; /* of one that refuses: the reason in one line */
};

#define KERNEL_ADVISORIES_MAX 8

/*
 * Those that hold for a kernel, at most KERNEL_ADVISORIES_MAX, into 'ret', whose severities are what can be said of this one;
 * returns how many. 'release' and 'version' are uname's, "" where unknown. None for what is no Linux version.
 */
size_t kernel_advisories(
	const char *release, const char *version, struct kernel_advisory ret[KERNEL_ADVISORIES_MAX]);
/* The first that refuses: true and '*ret'. */
bool kernel_refused(const char *release, const char *version, struct kernel_advisory *ret);

#endif
