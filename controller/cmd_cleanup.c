/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/cli.h"

#include "controller/instance.h"
#include "datapath/nft.h"

int cmd_cleanup(const struct cli_options *o)
{
	struct error err = {0};
	bool removed;

	if (!o->dry_run &&
		instance_take(
			"it would put the table back: end it first, or give it `enabled: false`", &err) < 0)
		return cli_fail(CLI_FAILED, &err);
	if (nft_cleanup(o->dry_run, &removed, &err) < 0)
		return cli_fail(CLI_FAILED, &err);
	if (!removed)
		puts("nothing to remove");
	else
		printf("%s table inet %s\n", o->dry_run ? "would remove" : "removed", RULESET_TABLE);
	return CLI_OK;
}
