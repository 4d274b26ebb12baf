/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "controller/instance.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* The lock is one per network namespace: each test has one of its own, so that other agents do not matter. */
static int setup(void **state)
{
	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
		print_message("no network namespace: %s\n", strerror(errno));
		*state = NULL;
		return 0;
	}
	*state = event_base_new();
	return 0;
}

static int teardown(void **state)
{
	if (*state)
		event_base_free(*state);
	return 0;
}

static void count(void *arg)
{
	++*(unsigned *)arg;
}

/* What is there to be done now; nothing may be left for later. */
static void turn(struct event_base *base)
{
	for (int i = 0; i < 10; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void test_second_waits(void **state)
{
	struct event_base *base = *state;
	unsigned first_changed = 0, second_changed = 0;
	struct instance *first, *second;

	if (!base)
		skip();
	first = instance_new(base, "n1", count, &first_changed);
	assert_true(instance_held(first));
	assert_string_equal(instance_holder(first), "");
	second = instance_new(base, "n1", count, &second_changed);
	assert_false(instance_held(second));
	turn(base);
	assert_int_equal(second_changed, 1);
	assert_non_null(strstr(instance_holder(second), "slipstream "));
	assert_non_null(strstr(instance_holder(second), ", node n1, pid "));
	/* It waits, and hears of the end. (Within a second of the beginning it looks again after one.) */
	sleep(2);
	turn(base);
	assert_false(instance_held(second));
	instance_free(first);
	turn(base);
	assert_true(instance_held(second));
	assert_int_equal(second_changed, 2);
	assert_int_equal(first_changed, 0);
	assert_string_equal(instance_holder(second), "");
	instance_free(second);
}

/* One of many gets it; the others wait for that one, those for whom there was no place as well. */
static void test_many_wait(void **state)
{
	struct event_base *base = *state;
	struct instance *all[20], *first;
	unsigned changed = 0, held = 0;

	if (!base)
		skip();
	first = instance_new(base, "n1", count, &changed);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		all[i] = instance_new(base, "n1", count, &changed);
	turn(base);
	assert_int_equal(changed, ARRAY_SIZE(all));
	instance_free(first);
	for (int i = 0; i < 3; i++) {
		sleep(1);
		turn(base);
	}
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		held += instance_held(all[i]);
	assert_int_equal(held, 1);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		instance_free(all[i]);
}

/* `cleanup`, in another process. */
static void test_take(void **state)
{
	struct event_base *base = *state;
	struct instance *first;
	unsigned changed = 0;
	pid_t child;
	int status;

	if (!base)
		skip();
	first = instance_new(base, "n1", count, &changed);
	child = fork();
	if (!child) {
		struct error err = {0};
		int code = instance_take("end it", &err);

		_exit(code == -EBUSY && strstr(err.what, "an agent runs on this node: slipstream ") &&
					strstr(err.what, "node n1, pid ")
				? 0
				: 1);
	}
	do {
		event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
		usleep(1000);
	} while (waitpid(child, &status, WNOHANG) == 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	instance_free(first);
	assert_int_equal(instance_take("end it", NULL), 0);
}

/* Another user took the name: no reason to do nothing for ever. */
static void test_taken_by_no_agent(void **state)
{
	struct event_base *base = *state;
	struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "\0slipstream"};
	struct instance *i;
	unsigned changed = 0;
	int pipes[2];
	pid_t child;
	char c;

	if (!base || geteuid() != 0)
		skip();
	assert_int_equal(pipe(pipes), 0);
	child = fork();
	if (!child) {
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (setuid(65534) == 0 &&
			bind(fd, (void *)&addr, offsetof(struct sockaddr_un, sun_path) + 11) == 0 &&
			listen(fd, 1) == 0 && write(pipes[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &c, 1), 1);
	i = instance_new(base, "n1", count, &changed);
	assert_true(instance_held(i));
	assert_int_equal(instance_take("end it", NULL), 0);
	instance_free(i);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(pipes[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_second_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(test_take, setup, teardown),
		cmocka_unit_test_setup_teardown(test_taken_by_no_agent, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
