/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sim [--seeds N] [--from SEED] [--jobs N]: runs N seeds (1), from SEED (1) on, in so many processes (1), and prints how many
 * passed and how long the longest was. sim --seed SEED [--verbose]: one of them, with what happens in it.
 */
#include "sim.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAILURES_MAX 20 /* of one process; then it gives up */

struct sums {
	unsigned passed, failed;
	uint64_t steps, longest_seed, slowest_seed;
	unsigned longest;
	double seconds, slowest;
};

static uint64_t seed_now;

/* A seed that ends the process (abort, a sanitizer) is named, too. */
static void name_seed(void)
{
	char line[128];
	int n = snprintf(line, sizeof(line),
		"seed %" PRIu64 ": the process ended\nreplay: build-asan/sim --seed %" PRIu64 " --verbose\n",
		seed_now, seed_now);

	fflush(stdout);
	if (write(STDOUT_FILENO, line, (size_t)n) < 0)
		return;
}

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void on_abort(int number)
{
	name_seed();
	signal(number, SIG_DFL);
	raise(number);
}

static void run_seeds(uint64_t from, uint64_t count, unsigned step, bool verbose, struct sums *ret)
{
	for (uint64_t seed = from; seed < from + count && ret->failed < FAILURES_MAX; seed += step) {
		struct sim_result r;

		seed_now = seed;
		sim_run(seed, verbose, &r);
		*(r.failed ? &ret->failed : &ret->passed) += 1;
		ret->steps += r.steps;
		ret->seconds += r.seconds;
		if (r.steps > ret->longest) {
			ret->longest = r.steps;
			ret->longest_seed = seed;
		}
		if (r.seconds > ret->slowest) {
			ret->slowest = r.seconds;
			ret->slowest_seed = seed;
		}
	}
}

static void add_sums(struct sums *to, const struct sums *x)
{
	to->passed += x->passed;
	to->failed += x->failed;
	to->steps += x->steps;
	to->seconds += x->seconds;
	if (x->longest > to->longest) {
		to->longest = x->longest;
		to->longest_seed = x->longest_seed;
	}
	if (x->slowest > to->slowest) {
		to->slowest = x->slowest;
		to->slowest_seed = x->slowest_seed;
	}
}

static int start_job(uint64_t from, uint64_t count, unsigned step)
{
	struct sums sums = {0};
	int fds[2];

	if (pipe(fds) < 0)
		abort();
	fflush(stdout);
	switch (fork()) {
	case -1:
		abort();
	case 0:
		close(fds[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_seeds(from, count, step, false, &sums);
		fflush(stdout);
		if (write(fds[1], &sums, sizeof(sums)) != sizeof(sums))
			abort();
		exit(0); /* leaks are looked for */
	}
	close(fds[1]);
	return fds[0];
}

static void run_jobs(uint64_t from, uint64_t count, unsigned jobs, struct sums *ret)
{
	int *fds = xcalloc(jobs, sizeof(*fds));

	for (unsigned i = 0; i < jobs; i++)
		fds[i] = start_job(from + i, count > i ? count - i : 0, jobs);
	for (unsigned i = 0; i < jobs; i++) {
		struct sums sums;
		int status;

		if (read(fds[i], &sums, sizeof(sums)) == sizeof(sums))
			add_sums(ret, &sums);
		else
			ret->failed++;
		close(fds[i]);
		if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
			ret->failed += !ret->failed;
	}
	free(fds);
}

static int usage(void)
{
	fprintf(stderr, "usage: sim [--seeds N] [--from SEED] [--jobs N] | sim --seed SEED [--verbose]\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seeds", required_argument, NULL, 'n'},
		{"from", required_argument, NULL, 'f'}, {"jobs", required_argument, NULL, 'j'},
		{"seed", required_argument, NULL, 's'}, {"verbose", no_argument, NULL, 'v'}, {0}};
	uint64_t from = 1, count = 1;
	unsigned jobs = 1;
	bool verbose = false;
	struct sums sums = {0};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (option) {
		case 'n':
			count = strtoull(optarg, NULL, 10);
			break;
		case 's':
		case 'f':
			from = strtoull(optarg, NULL, 10);
			break;
		case 'j':
			jobs = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'v':
			verbose = true;
			break;
		default:
			return usage();
		}
	}
	if (optind < argc || !jobs || !count)
		return usage();
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(name_seed);
	signal(SIGABRT, on_abort);
	if (jobs == 1)
		run_seeds(from, count, 1, verbose, &sums);
	else
		run_jobs(from, count, jobs, &sums);
	printf("%u passed, %u failed\n", sums.passed, sums.failed);
	printf("%" PRIu64 " steps, %.1f virtual days; longest runs: seed %" PRIu64
	       " with %u steps, seed %" PRIu64 " with %.0f virtual seconds\n",
		sums.steps, sums.seconds / 86400, sums.longest_seed, sums.longest, sums.slowest_seed,
		sums.slowest);
	return sums.failed ? 1 : 0;
}
