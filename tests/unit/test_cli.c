/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "controller/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define ARGS_MAX 12

/* 'line' is split at blanks; the words live until the next call. */
static int split(const char *line, char *argv[ARGS_MAX])
{
	static char text[512];
	int argc = 0;

	snprintf(text, sizeof(text), "%s", line);
	for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
		argv[argc++] = word;
	argv[argc] = NULL;
	return argc;
}

static int parse(const char *line, struct cli_options *o, struct error *err)
{
	char *argv[ARGS_MAX];
	int argc = split(line, argv);

	memset(err, 0, sizeof(*err));
	return cli_parse(argc, argv, o, err);
}

static void test_good(void **state)
{
	struct cli_options o;
	struct error err;

	(void)state;
	assert_int_equal(parse("slipstream run --manifests d --node n1 --config=f", &o, &err), 0);
	assert_string_equal(o.command->name, "run");
	assert_string_equal(o.manifests, "d");
	assert_string_equal(o.node, "n1");
	assert_string_equal(o.config, "f");
	assert_false(o.json);
	assert_int_equal(parse("slipstream plan --facts a --facts-out b -o json", &o, &err), 0);
	assert_string_equal(o.facts, "a");
	assert_string_equal(o.facts_out, "b");
	assert_null(o.node);
	assert_true(o.json);
	assert_int_equal(parse("slipstream cleanup --dry-run", &o, &err), 0);
	assert_true(o.dry_run);
	assert_int_equal(parse("slipstream status --output text", &o, &err), 0);
	assert_int_equal(parse("slipstream --version", &o, &err), 0);
	assert_string_equal(o.command->name, "version");
	assert_int_equal(parse("slipstream --help", &o, &err), 0);
	assert_null(o.command);
	assert_int_equal(parse("slipstream run --help", &o, &err), 0);
	assert_null(o.command);
}

#define COMMANDS " (run, plan, status, cleanup or version; see slipstream --help)"
#define HELP " (see slipstream --help)"

static void test_bad(void **state)
{
	static const struct {
		const char *line, *text;
	} cases[] = {
		{"slipstream", "a command is missing" COMMANDS},
		{"slipstream fly", "fly: no such command" COMMANDS},
		{"slipstream run --fast", "--fast: no such option" HELP},
		{"slipstream run -x", "-x: no such option" HELP},
		{"slipstream run --node", "--node: needs an argument"},
		{"slipstream run --dry-run", "run: has no option --dry-run"},
		{"slipstream cleanup --config f", "cleanup: has no option --config"},
		{"slipstream run now", "run: takes no argument 'now'"},
		{"slipstream plan -o yaml", "--output: 'yaml' is neither text nor json"},
		{"slipstream run --manifests a --kubeconfig b",
			"run: --kubeconfig and --manifests exclude each other"},
	};
	struct cli_options o;
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(parse(cases[i].line, &o, &err), -EINVAL);
		assert_string_equal(error_text(&err), cases[i].text);
		assert_null(o.command);
	}
}

/* Exit status of the whole program; its stderr into 'text', stdout thrown away. */
static int status_of(const char *line, char *text, size_t size)
{
	char *argv[ARGS_MAX];
	int argc = split(line, argv), fds[2], status, null;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		null = open("/dev/null", O_WRONLY);
		dup2(null, 1);
		dup2(fds[1], 2);
		status = cli_main(argc, argv);
		fflush(NULL);
		_exit(status);
	}
	close(fds[1]);
	while ((n = read(fds[0], text + len, size - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static unsigned lines(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void test_status(void **state)
{
	char text[8192], line[300], path[] = "/tmp/test_cli.XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "bogus: 1\n", 9), 9);
	close(fd);

	assert_int_equal(status_of("slipstream version", text, sizeof(text)), CLI_OK);
	assert_string_equal(text, "");
	assert_int_equal(status_of("slipstream --help", text, sizeof(text)), CLI_OK);
	assert_string_equal(text, "");
	assert_int_equal(status_of("slipstream fly", text, sizeof(text)), CLI_USAGE);
	assert_int_equal(lines(text), 1);
	assert_non_null(strstr(text, "fly: no such command"));
	assert_non_null(strstr(text, "--help"));

	snprintf(line, sizeof(line), "slipstream status --config %s", path);
	assert_int_equal(status_of(line, text, sizeof(text)), CLI_USAGE);
	assert_int_equal(lines(text), 1);
	assert_non_null(strstr(text, path));
	snprintf(line, sizeof(line), "slipstream run --config %s.absent", path);
	assert_int_equal(status_of(line, text, sizeof(text)), CLI_USAGE);
	assert_int_equal(lines(text), 1);

	/* Nobody listens at port 1. */
	assert_int_equal(
		status_of("slipstream status --address 127.0.0.1:1", text, sizeof(text)), CLI_FAILED);
	assert_int_equal(lines(text), 1);
	assert_non_null(strstr(text, "slipstream run"));
	assert_int_equal(
		status_of("slipstream plan --node n1 --facts /absent", text, sizeof(text)), CLI_FAILED);
	assert_int_equal(lines(text), 1);
	assert_non_null(strstr(text, "/absent"));
	unlink(path);
}

static void test_node(void **state)
{
	struct cli_options o = {.node = "Given"};
	struct error err = {0};
	bool guessed;
	char *name;

	(void)state;
	setenv("NODE_NAME", "from-env", 1);
	name = cli_node(&o, &guessed, &err);
	assert_string_equal(name, "Given");
	assert_false(guessed);
	free(name);
	o.node = NULL;
	name = cli_node(&o, &guessed, &err);
	assert_string_equal(name, "from-env");
	assert_false(guessed);
	free(name);
	unsetenv("NODE_NAME");
	name = cli_node(&o, &guessed, &err);
	assert_non_null(name);
	assert_true(guessed);
	for (const char *p = name; *p; p++)
		assert_false(*p >= 'A' && *p <= 'Z');
	free(name);
}

/* In a host-name namespace of its own; where none can be made there is nothing to see. */
static void test_environment(void **state)
{
	struct config c = {.listen_host = "node"};
	struct cli_options o;
	struct error err;

	(void)state;
	setenv("SLIPSTREAM_CONFIG", "from-env", 1);
	assert_int_equal(parse("slipstream status", &o, &err), 0);
	assert_string_equal(o.config, "from-env");
	assert_int_equal(parse("slipstream run --config given", &o, &err), 0);
	assert_string_equal(o.config, "given");
	assert_int_equal(parse("slipstream version", &o, &err), 0);
	assert_null(o.config);
	setenv("SLIPSTREAM_CONFIG", "", 1);
	assert_int_equal(parse("slipstream run", &o, &err), 0);
	assert_null(o.config);
	unsetenv("SLIPSTREAM_CONFIG");

	setenv("HOST_IP", "fd00::1", 1);
	assert_string_equal(cli_listen_host(&c, &err), "fd00::1");
	setenv("HOST_IP", "", 1);
	assert_null(cli_listen_host(&c, &err));
	assert_non_null(strstr(error_text(&err), "$HOST_IP"));
	unsetenv("HOST_IP");
	assert_null(cli_listen_host(&c, &err));
	c.listen_host = "127.0.0.1";
	assert_string_equal(cli_listen_host(&c, &err), "127.0.0.1");
}

static void test_node_in_lower_case(void **state)
{
	struct cli_options o = {0};
	struct error err = {0};
	bool guessed;
	char *name;
	int status;
	pid_t pid;

	(void)state;
	fflush(NULL);
	pid = fork();
	if (!pid) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWUTS) < 0 || sethostname("Worker-7.Example", 16) < 0)
			_exit(77);
		unsetenv("NODE_NAME");
		name = cli_node(&o, &guessed, &err);
		_exit(!name || strcmp(name, "worker-7.example") != 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_node),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_node_in_lower_case),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
