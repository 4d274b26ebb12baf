/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/backend.h"

#include <stdlib.h>
#include <string.h>

const char *const repair_kind_names[REPAIR_KINDS] = {
	[REPAIR_TABLE] = "table",
	[REPAIR_FLOWTABLE] = "flowtable",
	[REPAIR_SET] = "set",
	[REPAIR_ELEMENT] = "element",
	[REPAIR_CHAIN] = "chain",
	[REPAIR_DEVICE] = "device",
	[REPAIR_COUNTER] = "counter",
	[REPAIR_FOREIGN] = "foreign",
};

void sync_result_done(struct sync_result *r)
{
	free(r->failed);
	*r = (struct sync_result){0};
}

#define SEPARATOR ", "
#define OTHERS SEPARATOR "others"

void actors_add(char list[ACTORS_SIZE], const char *who)
{
	size_t len = strlen(list), n = strlen(who);

	if (!n || strstr(list, who))
		return;
	/* There is always room for the last word. */
	if (len + strlen(SEPARATOR) + n + strlen(OTHERS) < ACTORS_SIZE) {
		if (len)
			strcat(list, SEPARATOR);
		strcat(list, who);
	} else if (!strstr(list, OTHERS)) {
		strcat(list, OTHERS);
	}
}
