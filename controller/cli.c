/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/cli.h"

#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct cli_command commands[] = {
	{"run", "keep this node's kernel programmed (the agent)", "ckmnh", cmd_run},
	{"plan", "print what `run` would program, as nft text", "ckmnfFoh", cmd_plan},
	{"status", "show what the running agent does", "caoh", cmd_status},
	{"cleanup", "remove all that is slipstream's from the kernel", "dh", cmd_cleanup},
	{"version", "print the version of slipstream and its libraries", "oh", cmd_version},
};

static const struct option long_options[] = {
	{"config", required_argument, NULL, 'c'},
	{"kubeconfig", required_argument, NULL, 'k'},
	{"manifests", required_argument, NULL, 'm'},
	{"node", required_argument, NULL, 'n'},
	{"facts", required_argument, NULL, 'f'},
	{"facts-out", required_argument, NULL, 'F'},
	{"output", required_argument, NULL, 'o'},
	{"address", required_argument, NULL, 'a'},
	{"dry-run", no_argument, NULL, 'd'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

void cli_usage(FILE *out)
{
	fputs("Usage: slipstream COMMAND [OPTION...]\n\nCommands:\n", out);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].summary);
	fputs("\nOptions of run and plan:\n"
	      "  --config FILE        configuration (default $SLIPSTREAM_CONFIG, else every key's default; "
	      "`status` reads the address from it)\n"
	      "  --kubeconfig FILE    access to the API server (default $KUBECONFIG, in-cluster, "
	      "~/.kube/config)\n"
	      "  --manifests PATH     YAML or JSON files instead of an API server: a file, or a folder, "
	      "watched\n"
	      "  --node NAME          name of this Node (default $NODE_NAME, else the host name in lower "
	      "case)\n"
	      "Options of plan:\n"
	      "  --facts FILE         facts of a node saved by --facts-out instead of this machine's\n"
	      "  --facts-out FILE     save the facts used\n"
	      "Options of status:\n"
	      "  --address HOST:PORT  where the agent listens (default: from the configuration)\n"
	      "Options of cleanup:\n"
	      "  --dry-run            only print what would be removed\n"
	      "Options of plan, status and version:\n"
	      "  -o, --output FORMAT  text or json\n"
	      "\nExit status: 0 done, 1 failed, 2 wrong usage or configuration.\n",
		out);
}

static const struct cli_command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static const char *long_name(int letter)
{
	for (const struct option *o = long_options; o->name; o++)
		if (o->val == letter)
			return o->name;
	return "?";
}

static int take_option(struct cli_options *ret, int letter, const char *value, struct error *err)
{
	switch (letter) {
	case 'c':
		ret->config = value;
		return 0;
	case 'k':
		ret->kubeconfig = value;
		return 0;
	case 'm':
		ret->manifests = value;
		return 0;
	case 'n':
		ret->node = value;
		return 0;
	case 'f':
		ret->facts = value;
		return 0;
	case 'F':
		ret->facts_out = value;
		return 0;
	case 'a':
		ret->address = value;
		return 0;
	case 'd':
		ret->dry_run = true;
		return 0;
	case 'o':
		if (strcmp(value, "text") && strcmp(value, "json"))
			return error_set(
				err, -EINVAL, "--output", NULL, "'%s' is neither text nor json", value);
		ret->json = !strcmp(value, "json");
		return 0;
	}
	return -EINVAL;
}

int cli_parse(int argc, char *const argv[], struct cli_options *ret, struct error *err)
{
	const struct cli_command *command;
	struct cli_options o = {0};
	int letter, r;

	memset(ret, 0, sizeof(*ret));
	if (argc < 2)
		return error_set(err, -EINVAL, NULL,
			"run, plan, status, cleanup or version; see slipstream --help",
			"a command is missing");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
		return 0;
	command = find_command(!strcmp(argv[1], "--version") ? "version" : argv[1]);
	if (!command)
		return error_set(err, -EINVAL, argv[1],
			"run, plan, status, cleanup or version; see slipstream --help", "no such command");

	optind = 0; /* getopt_long(3): start over, also in a second call */
	opterr = 0;
	for (;;) {
		letter = getopt_long(argc - 1, argv + 1, "+:o:h", long_options, NULL);
		if (letter < 0)
			break;
		if (letter == 'h')
			return 0;
		if (letter == ':')
			return error_set(err, -EINVAL, argv[optind], NULL, "needs an argument");
		if (letter == '?')
			return error_set(
				err, -EINVAL, argv[optind], "see slipstream --help", "no such option");
		if (!strchr(command->options, letter))
			return error_set(
				err, -EINVAL, command->name, NULL, "has no option --%s", long_name(letter));
		r = take_option(&o, letter, optarg, err);
		if (r < 0)
			return r;
	}
	if (argv[1 + optind])
		return error_set(
			err, -EINVAL, command->name, NULL, "takes no argument '%s'", argv[1 + optind]);
	if (o.kubeconfig && o.manifests)
		return error_set(
			err, -EINVAL, command->name, NULL, "--kubeconfig and --manifests exclude each other");
	if (!o.config && strchr(command->options, 'c'))
		o.config = getenv("SLIPSTREAM_CONFIG");
	if (o.config && !*o.config)
		o.config = NULL;
	o.command = command;
	*ret = o;
	return 0;
}

int cli_fail(int status, const struct error *err)
{
	fprintf(stderr, "slipstream: %s\n", error_text(err));
	return status;
}

int cli_config(const struct cli_options *o, struct config *ret)
{
	struct string_list warnings = {0};
	struct error err = {0};

	if (!o->config) {
		config_default(ret);
		return CLI_OK;
	}
	if (config_load(o->config, ret, &warnings, &err) < 0) {
		string_list_done(&warnings);
		return cli_fail(CLI_USAGE, &err);
	}
	for (size_t i = 0; i < warnings.n; i++)
		fprintf(stderr, "slipstream: warning: %s\n", warnings.items[i]);
	string_list_done(&warnings);
	return CLI_OK;
}

const char *cli_listen_host(const struct config *c, struct error *err)
{
	const char *host = c->listen_host;

	if (strcmp(host, CONFIG_LISTEN_NODE))
		return host;
	host = getenv("HOST_IP");
	if (host && *host)
		return host;
	error_set(err, -ENOENT, "listen", "set it from status.hostIP, or give `listen` an address",
		"\"node\" stands for $HOST_IP, which is not set");
	return NULL;
}

char *cli_node(const struct cli_options *o, bool *ret_guessed, struct error *err)
{
	const char *name = o->node ? o->node : getenv("NODE_NAME");
	char host[256] = "";

	*ret_guessed = false;
	if (name && *name)
		return xstrdup(name);
	if (gethostname(host, sizeof(host) - 1) < 0 || !*host) {
		error_set(err, -ENOENT, NULL, "--node NAME, or $NODE_NAME",
			"the name of this node is not known");
		return NULL;
	}
	/* kubelet's default: nodeutil.GetHostname() trims and lowers os.Hostname() */
	for (char *p = host; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	*ret_guessed = true;
	return xstrdup(host);
}

int cli_main(int argc, char **argv)
{
	struct cli_options o;
	struct error err = {0};
	int status;

	if (cli_parse(argc, argv, &o, &err) < 0)
		return cli_fail(CLI_USAGE, &err);
	if (!o.command) {
		cli_usage(stdout);
		status = CLI_OK;
	} else {
		status = o.command->run(&o);
	}
	if (fflush(stdout) || ferror(stdout)) {
		error_set(&err, -EIO, "stdout", NULL, "cannot be written");
		return cli_fail(CLI_FAILED, &err);
	}
	return status;
}
