/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_CLI_H
#define CONTROLLER_CLI_H

#include "base/error.h"
#include "controller/config.h"

#include <stdbool.h>
#include <stdio.h>

/*
 * cli: the command line of `slipstream`: words to values, values to a command, errors to one line.
 *
 * Exit status: 0 done, 1 failed, 2 wrong usage or configuration (CLI_USAGE). Results go to stdout, everything
 * else to stderr.
 */
#define CLI_OK 0
#define CLI_FAILED 1
#define CLI_USAGE 2

struct cli_options;
struct cli_command {
	const char *name;
	const char *summary;
	const char *options; /* short letters of its options, see cli.c */
	int (*run)(const struct cli_options *o);
};

struct cli_options {
	const struct cli_command *command; /* NULL: help was asked for */
	/* All of them point into argv, or the environment, or are NULL. */
	const char *config; /* --config, $SLIPSTREAM_CONFIG */
	const char *kubeconfig;
	const char *manifests;
	const char *node;
	const char *facts;
	const char *facts_out;
	const char *address;
	bool json;
	bool dry_run;
};

/* -EINVAL on an unknown command or option, a missing argument, a word too many; '*ret' is zeroed then. */
int cli_parse(int argc, char *const argv[], struct cli_options *ret, struct error *err);
void cli_usage(FILE *out);
/* The whole program; returns the exit status. */
int cli_main(int argc, char **argv);

/* For commands. One line on stderr; returns 'status'. */
int cli_fail(int status, const struct error *err);
/* The configuration that --config names, or the default; its warnings go to stderr. CLI_OK, or CLI_USAGE with
 * the error printed and '*ret' zeroed. */
int cli_config(const struct cli_options *o, struct config *ret);
/*
 * Name of the own Node object: --node, $NODE_NAME, else the host name in lower case as kubelet does it
 * ('*ret_guessed' is true then). The caller frees it; NULL with 'err' filled when there is none.
 */
char *cli_node(const struct cli_options *o, bool *ret_guessed, struct error *err);
/*
 * The address to listen on: `listen`, where "node" is $HOST_IP. Lives as long as 'c' and the environment; NULL with
 * 'err' filled when $HOST_IP is not there.
 */
const char *cli_listen_host(const struct config *c, struct error *err);

int cmd_run(const struct cli_options *o);
int cmd_plan(const struct cli_options *o);
int cmd_status(const struct cli_options *o);
int cmd_cleanup(const struct cli_options *o);
int cmd_version(const struct cli_options *o);

#endif
