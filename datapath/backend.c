/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "datapath/backend.h"

#include <stdlib.h>

void sync_result_done(struct sync_result *r)
{
	free(r->failed);
	*r = (struct sync_result){0};
}
