/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One seed: the dice, the scheduler, the phases. */
#include "sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define STEPS_MAX 200000

struct sim *the_sim;

/* --- dice: splitmix64 --- */

unsigned draw(struct sim *s, unsigned n)
{
	uint64_t z = s->random += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (unsigned)((z ^ z >> 31) % n);
}

bool chance(struct sim *s, unsigned per_mille)
{
	return per_mille && draw(s, 1000) < per_mille;
}

uint64_t draw_us(struct sim *s, uint64_t from, uint64_t to)
{
	return from + draw(s, (unsigned)(to - from) + 1);
}

/* --- words --- */

static void say(const struct sim *s, const char *fmt, va_list ap)
{
	printf("%6u %12.6f  ", s->steps, (double)s->now / US_PER_S);
	vprintf(fmt, ap);
	printf("\n");
}

void trace(struct sim *s, const char *fmt, ...)
{
	va_list ap;

	if (!s->verbose)
		return;
	va_start(ap, fmt);
	say(s, fmt, ap);
	va_end(ap);
}

void violated(struct sim *s, unsigned invariant, const char *fmt, ...)
{
	char *text;
	va_list ap;

	if (s->failed)
		return;
	s->failed = true;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	printf("seed %" PRIu64 ": invariant %u, step %u, at %.6f s: %s\n", s->seed, invariant, s->steps,
		(double)s->now / US_PER_S, text);
	printf("replay: build-asan/sim --seed %" PRIu64 " --verbose\n", s->seed);
	free(text);
}

/* In place of base/log.c's: what the product says is part of the trace. */
void log_setup(enum log_level level, enum log_format format)
{
	(void)level;
	(void)format;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	static const char *const levels[] = {"error", "warning", "info", "debug"};
	char text[2048];
	va_list ap;

	if (!the_sim || !the_sim->verbose)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	trace(the_sim, "log: %s: %s", levels[level], text);
}

/* --- the scheduler --- */

enum { NOBODY, ACTOR, CLIENT, AGENT, FACTS_NOTICE, FEATURES_NOTICE, NFT_NOTICE, RESTART };

struct next {
	uint64_t at;
	unsigned who, which;
};

static void consider(struct next *n, uint64_t at, unsigned who)
{
	if (at && (n->who == NOBODY || at < n->at)) {
		n->at = at;
		n->who = who;
	}
}

static struct next next_of(struct sim *s, uint64_t actor)
{
	struct next n = {0};
	unsigned which = 0;
	int64_t wait;

	consider(&n, actor, ACTOR);
	consider(&n, s->client.restart, RESTART);
	consider(&n, s->node.facts_notice, FACTS_NOTICE);
	consider(&n, s->node.features_notice, FEATURES_NOTICE);
	consider(&n, s->kernel.notice, NFT_NOTICE);
	if (s->client.alive) {
		consider(&n, client_due(s, &which), CLIENT);
		wait = agent_wait(&s->client.agent);
		if (wait >= 0)
			consider(&n, s->now + (uint64_t)wait, AGENT);
	}
	n.which = which;
	return n;
}

static void kill_process(struct sim *s)
{
	client_stop(s);
	s->client.restart = s->now + draw_us(s, US_PER_MS, 20 * US_PER_S);
}

static void step_agent(struct sim *s)
{
	check_step_begin(s);
	agent_step(&s->client.agent);
	if (s->client.killed) {
		kill_process(s);
		return;
	}
	check_step_end(s);
}

static void act(struct sim *s)
{
	unsigned what = draw(s, 100);

	if (what < 45) {
		for (unsigned n = chance(s, 800) ? 1 : 2 + draw(s, 5); n; n--)
			server_change(s);
	} else if (what < 75) {
		node_change(s);
	} else if (what < 82) {
		config_change(s);
	} else if (what < 88) {
		if (chance(s, s->rates.refuse))
			node_refuse(s);
	} else if (what < 98) {
		if (chance(s, s->rates.foreign))
			kernel_edit(s, chance(s, s->rates.silent));
	} else if (s->client.alive && chance(s, s->rates.kill)) {
		trace(s, "process: killed");
		kill_process(s);
	}
}

static void run_next(struct sim *s, const struct next *n)
{
	char who[32];

	switch (n->who) {
	case ACTOR:
		act(s);
		break;
	case CLIENT:
		client_run(s, n->which);
		break;
	case AGENT:
		step_agent(s);
		break;
	case FACTS_NOTICE:
		s->node.facts_notice = 0;
		agent_note(&s->client.agent, AGENT_FACTS);
		break;
	case FEATURES_NOTICE:
		s->node.features_notice = 0;
		agent_note(&s->client.agent, AGENT_FEATURES);
		break;
	case NFT_NOTICE:
		s->kernel.notice = 0;
		snprintf(who, sizeof(who), "nft (pid %u)", s->steps);
		agent_touched(&s->client.agent, who);
		break;
	case RESTART:
		client_start(s);
		break;
	}
}

/* Until 'end', or until the actors have acted 'acts' times. */
static void run(struct sim *s, uint64_t end, unsigned acts)
{
	uint64_t actor = acts ? s->now + draw_us(s, 0, 200 * US_PER_MS) : 0;

	while (!s->failed) {
		struct next n = next_of(s, actor);

		if (n.who == NOBODY || n.at > end)
			break;
		if (n.at > s->now)
			s->now = n.at;
		if (++s->steps > STEPS_MAX)
			violated(s, 4, "no end of steps");
		run_next(s, &n);
		if (n.who != ACTOR)
			continue;
		if (!--acts)
			return;
		actor = s->now + (chance(s, 400)          ? draw_us(s, 0, 5 * US_PER_MS)
					 : chance(s, 500) ? draw_us(s, 0, 400 * US_PER_MS)
					 : chance(s, 850) ? draw_us(s, 0, 10 * US_PER_S)
							  : draw_us(s, 0, 150 * US_PER_S));
	}
	if (!s->failed && s->now < end && end != UINT64_MAX)
		s->now = end;
}

/* --- a seed --- */

static unsigned draw_rate(struct sim *s, unsigned often, unsigned max)
{
	return chance(s, often) ? 1 + draw(s, max) : 0;
}

static void draw_rates(struct sim *s)
{
	unsigned often = chance(s, 150) ? 0 : 300;

	s->rates = (struct rates){
		.api_status = draw_rate(s, often, 400),
		.api_cut = draw_rate(s, often, 300),
		.api_garble = draw_rate(s, often, 200),
		.api_hang = draw_rate(s, often, 100),
		.api_away = draw_rate(s, often, 500),
		.api_short_watch = draw_rate(s, often, 900),
		.api_error_event = draw_rate(s, often, 200),
		.api_lag = draw_rate(s, often, 1000),
		.api_compact = draw_rate(s, often, 300),
		.kernel_message = draw_rate(s, often, 60),
		.kernel_dump = draw_rate(s, often, 150),
		.kernel_answer = draw_rate(s, often, 400),
		.kernel_commit = draw_rate(s, often, 300),
		.foreign = draw_rate(s, often, 1000),
		.foreign_race = draw_rate(s, often, 300),
		.silent = draw_rate(s, often, 500),
		.kill = draw_rate(s, often, 200),
		.facts = draw_rate(s, often, 300),
		.probe = draw_rate(s, often, 300),
		.refuse = draw_rate(s, often, 1000),
	};
}

/* The faults end. */
static void calm(struct sim *s)
{
	trace(s, "--- the faults end");
	memset(&s->rates, 0, sizeof(s->rates));
	if (!s->client.alive)
		client_start(s);
	server_mend(s);
	node_calm(s);
	kernel_calm(s);
	client_calm(s);
}

/* One change that nothing disturbs, then a second; where the agent looks rarely by design, longer. */
static void change_one(struct sim *s)
{
	unsigned what = draw(s, 4);

	if (what == 0)
		server_change(s);
	else if (what == 1)
		node_change(s);
	else if (what == 2)
		config_change(s);
	else
		kernel_edit(s, false);
	kernel_calm(s);
	run(s, s->now + (s->node.features_notice ? 80 * US_PER_S : US_PER_S), 0);
	if (!s->failed)
		check_converged(s, "a second after a change");
}

static void live(struct sim *s)
{
	unsigned sent;

	run(s, UINT64_MAX, 5 + draw(s, 60));
	if (s->failed)
		return;
	calm(s);
	run(s, s->now + 700 * US_PER_S, 0);
	if (s->failed)
		return;
	check_converged(s, "when the faults have ended");
	trace(s, "--- changes without faults");
	for (unsigned i = 0; i < 4 && !s->failed; i++)
		change_one(s);
	if (s->failed)
		return;
	trace(s, "--- quiet");
	sent = memory_backend_transactions(s->kernel.backend);
	run(s, s->now + 3600 * US_PER_S, 0);
	if (s->failed)
		return;
	if (sent != memory_backend_transactions(s->kernel.backend))
		violated(s, 1, "messages in a quiet hour");
	check_converged(s, "after a quiet hour");
}

void sim_run(uint64_t seed, bool verbose, struct sim_result *ret)
{
	struct sim *s = xcalloc(1, sizeof(*s));

	the_sim = s;
	s->seed = s->random = seed;
	s->verbose = verbose;
	s->now = 1000 * US_PER_S;
	draw_rates(s);
	kernel_start(s);
	node_start(s);
	for (unsigned i = chance(s, 500) ? 0 : draw(s, 4); i; i--)
		config_change(s);
	server_start(s);
	client_start(s);
	live(s);
	*ret = (struct sim_result){s->failed, s->steps, (double)s->now / US_PER_S - 1000};
	if (s->client.alive)
		client_stop(s);
	server_done(s);
	check_done(s);
	backend_free(s->kernel.backend);
	the_sim = NULL;
	free(s);
}
