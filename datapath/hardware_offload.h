/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_HARDWARE_OFFLOAD_H
#define DATAPATH_HARDWARE_OFFLOAD_H

#include "datapath/ruleset.h"

/*
 * hardware_offload: whether the flowtable may have the flag `offload`.
 *
 * The kernel refuses a whole transaction for one device that has no hardware for it, and the flag cannot be changed in place: a
 * flowtable gets or loses it by being replaced, and its flows take the normal path once. So every device is asked first, the
 * flag is used where all take it, and once one has refused it stays away for as long as it is asked for: a device that comes and
 * goes costs the flows once, not every time. Asked for anew, by another configuration or another start, it begins afresh.
 */
struct hardware_offload {
	bool wanted, refused;
	char device[IFNAMSIZ]; /* that refused */
	int code;              /* negative errno of that */
};

/* Asks one device: 0, or a negative errno. */
typedef int hardware_probe(void *arg, const char *device);

/*
 * Whether the flag shall be set for these devices. Those in 'bound' (may be NULL; sorted by name), of a flowtable that has it,
 * are not asked: a second binding may be refused (-EBUSY). A device that is not there (-ENOENT, -ENODEV) refuses nothing.
 * False when there is no device at all.
 */
bool hardware_offload_decide(struct hardware_offload *h, bool wanted, const struct device_list *devices,
	const struct device_list *bound, hardware_probe *probe, void *arg);

#endif
