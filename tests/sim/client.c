/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process: the API client's resources, the replica and the agent, with connections in between that deliver bytes in
 * pieces, late, garbled, cut or never; and what the client was told by them.
 */
#include "sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { TICK, DELIVER, END, BOOKMARK, THINGS };

static struct api_resource *resource_of(struct connection *c)
{
	return &the_sim->client.resources[c->kind];
}

static void reset(struct connection *c)
{
	enum object_kind kind = c->kind;
	unsigned id = c->id;

	strbuf_done(&c->body);
	free(c->marks);
	*c = (struct connection){.kind = kind, .id = id + 1};
}

/* --- what a resource asks for --- */

static uint64_t on_now(void *arg)
{
	(void)arg;
	return the_sim->now / US_PER_MS;
}

static double on_random(void *arg)
{
	(void)arg;
	return draw(the_sim, 1 << 20) / (double)(1 << 20);
}

static void on_send(void *arg, const struct reflector_request *q)
{
	struct connection *c = arg;
	struct sim *s = the_sim;
	struct view *v = &s->client.views[c->kind];

	reset(c);
	c->active = true;
	c->watch = q->watch;
	c->initial_events = q->initial_events;
	c->field_selector = q->field_selector;
	c->version_given = q->version && *q->version;
	c->version = c->version_given ? strtoull(q->version, NULL, 10) : 0;
	snprintf(c->cont, sizeof(c->cont), "%s", q->cont ? q->cont : "");
	c->timeout_s = q->timeout_s;
	if (!c->watch || c->initial_events) {
		v->exact = false;
		v->field_selector = c->field_selector;
	}
	check_request(s, c);
	server_answer(s, c);
	c->at = s->now + draw_us(s, 200, 40 * US_PER_MS);
	if (c->hang && !c->watch)
		c->at = 0;
	trace(s, "client: %s %s at \"%s\"%s%s: %u%s%s", c->watch ? "watch" : "list",
		object_kind_names[c->kind], q->version ? q->version : "-", c->initial_events ? " whole" : "",
		*c->cont ? " next page" : "", c->status, c->hang ? " hangs" : "", c->broken ? " broken" : "");
}

static void on_cancel(void *arg)
{
	reset(arg);
}

static void on_token_refused(void *arg)
{
	(void)arg;
}

static void on_failed(void *arg, enum source_failure failure)
{
	(void)arg;
	(void)failure;
}

static void on_problem(void *arg, enum source_failure failure, const struct error *err)
{
	(void)arg;
	(void)failure;
	trace(the_sim, "client: %s", error_text(err));
}

static void on_healthy(void *arg)
{
	(void)arg;
}

static void on_no_watchlist(void *arg, const struct error *err)
{
	(void)arg;
	trace(the_sim, "client: no WatchList: %s", error_text(err));
}

static void on_bad_object(void *arg, const struct error *err)
{
	(void)arg;
	trace(the_sim, "client: %s", error_text(err));
}

/* --- connections --- */

/* The transport tells when it has passed on all that was there. */
static void settle(struct sim *s)
{
	bool changed = false;

	for (int i = 0; i < OBJECT_KINDS; i++) {
		struct api_resource *r = &s->client.resources[i];

		changed |= r->dirty && !r->relisting;
		r->dirty &= r->relisting;
	}
	if (changed)
		agent_note(&s->client.agent, AGENT_CLUSTER);
}

static void take_marks(struct sim *s, struct connection *c)
{
	struct view *v = &s->client.views[c->kind];

	while (c->seen_marks < c->n_marks && c->marks[c->seen_marks].offset <= c->sent) {
		const struct mark *m = &c->marks[c->seen_marks++];

		if (m->complete)
			v->synced = v->exact = true;
		if (v->synced)
			v->low = m->version;
	}
}

static void finish(struct sim *s, struct connection *c, bool failed)
{
	struct view *v = &s->client.views[c->kind];
	struct error err = {0};
	unsigned http = c->status, wait = c->retry_after_s;

	c->active = false;
	if (failed)
		error_set(&err, -ECONNRESET, "server", NULL, "the connection was cut");
	if (!failed && http == 200 && !c->watch)
		take_marks(s, c);
	if (wait && (http == 429 || http >= 500))
		v->not_before = s->now + (wait > 300 ? 300 : wait) * US_PER_S;
	trace(s, "client: %s of %s ends%s", c->watch ? "watch" : "list", object_kind_names[c->kind],
		failed ? ", cut" : "");
	api_resource_done(resource_of(c), http, failed, SOURCE_FAILURE_CONNECT, failed ? &err : NULL);
}

static void deliver(struct sim *s, struct connection *c)
{
	size_t end = c->cut < c->body.len ? c->cut : c->body.len, n = end - c->sent;
	unsigned id = c->id;

	c->at = 0;
	if (!c->headers && !c->status) {
		finish(s, c, true);
		return;
	}
	if (!c->headers) {
		c->headers = true;
		api_resource_headers(resource_of(c), c->status, c->retry_after_s);
	} else if (n) {
		n = chance(s, 400) ? 1 + draw(s, (unsigned)n) : n;
		c->sent += n;
		if (c->watch)
			take_marks(s, c);
		api_resource_data(resource_of(c), c->body.data + c->sent - n, n);
	}
	if (c->id != id || c->hang)
		return;
	if (c->sent < end)
		c->at = s->now + (chance(s, 700) ? draw_us(s, 0, 200) : draw_us(s, 0, 30 * US_PER_MS));
	else if (c->sent >= c->cut)
		finish(s, c, !c->polite);
	else if (!c->watch || c->status != 200)
		finish(s, c, false);
}

void client_pushed(struct sim *s, enum object_kind kind)
{
	struct connection *c = &s->client.connections[kind];
	size_t before = c->body.len;

	if (!c->active || !c->watch || c->status != 200)
		return;
	server_push(s, c, false);
	if (c->body.len == before || c->hang)
		return;
	if (c->cut == SIZE_MAX && chance(s, s->rates.api_cut)) {
		c->cut = c->sent + draw(s, (unsigned)(c->body.len - c->sent) + 1);
		c->polite = chance(s, 300);
		c->broken = true;
		while (c->n_marks && c->marks[c->n_marks - 1].offset > c->cut)
			c->n_marks--;
	}
	if (!c->at)
		c->at = s->now + draw_us(s, 0, 20 * US_PER_MS);
}

static void end_watch(struct sim *s, struct connection *c)
{
	if (c->sent < c->body.len && c->cut == SIZE_MAX) {
		c->ends = s->now + 50 * US_PER_MS;
		return;
	}
	finish(s, c, chance(s, s->rates.api_cut));
}

static void send_bookmark(struct sim *s, struct connection *c)
{
	c->bookmark = s->now + draw_us(s, 50 * US_PER_S, 70 * US_PER_S);
	server_push(s, c, true);
	if (!c->at)
		c->at = s->now + draw_us(s, 0, 20 * US_PER_MS);
}

/* --- the process --- */

static uint64_t agent_now(void *arg)
{
	return ((struct sim *)arg)->now;
}

static double agent_wall(void *arg)
{
	return 1e9 + (double)((struct sim *)arg)->now / US_PER_S;
}

static int agent_read_facts(void *arg, struct facts *f, struct error *err)
{
	struct sim *s = arg;
	struct facts next = {0};

	s->now += draw_us(s, 0, 2 * US_PER_MS);
	if (chance(s, s->rates.facts)) {
		trace(s, "agent: cannot read facts");
		return error_set(err, chance(s, 500) ? -ENOBUFS : -EINTR, "rtnetlink", NULL, "interrupted");
	}
	node_facts(s, &next);
	next.features = f->features;
	next.kube_proxy_nftables = f->kube_proxy_nftables;
	next.notrack = f->notrack;
	s->checks.changes = s->node.changes;
	if (facts_equal(&next, f)) {
		facts_done(&next);
		return 0;
	}
	trace(s, "agent: other facts");
	s->checks.step.facts_changed = true;
	facts_done(f);
	*f = next;
	return 1;
}

static int agent_probe(void *arg, struct facts *f, struct error *err)
{
	struct sim *s = arg;

	s->now += draw_us(s, 0, 3 * US_PER_MS);
	if (chance(s, s->rates.probe))
		return error_set(err, chance(s, 500) ? -ENOMEM : -EPERM, "nf_tables", NULL, "no answer");
	node_probe(s, f);
	return 0;
}

static void start_resource(struct sim *s, enum object_kind kind, bool watchlist)
{
	struct client *c = &s->client;
	struct connection *connection = &c->connections[kind];

	connection->kind = kind;
	c->views[kind] = (struct view){0};
	c->resources[kind] = (struct api_resource){
		.owner = {on_now, on_random, on_send, on_cancel, on_token_refused, on_failed, on_problem,
			on_healthy, on_no_watchlist, on_bad_object, connection},
		.cluster = c->cluster,
		.kubeconfig = &c->kubeconfig,
		.answered = &c->answered,
		.kind = kind,
		.endpoints_auto = true,
	};
	api_resource_start(&c->resources[kind], kind == OBJECT_SERVICE, watchlist);
}

void client_start(struct sim *s)
{
	struct client *c = &s->client;
	struct agent_edges edges = {agent_now, agent_wall, agent_read_facts, agent_probe, s};
	bool watchlist = chance(s, 400);
	struct config config;

	trace(s, "process: started%s", watchlist ? ", with WatchList" : "");
	c->alive = true;
	c->killed = c->answered = false;
	c->restart = 0;
	c->kubeconfig.server = (char *)"https://sim";
	c->kubeconfig.origin = (char *)"sim";
	c->backend.ops = &check_backend_ops;
	c->cluster = cluster_new();
	memory_backend_restart(s->kernel.backend);
	check_new_process(s);
	config_make(s, &config);
	agent_init(&c->agent, "n0", &config, c->cluster, &c->backend, &edges);
	for (int kind = 0; kind < OBJECT_KINDS; kind++)
		start_resource(s, kind, watchlist);
}

void client_stop(struct sim *s)
{
	struct client *c = &s->client;

	for (int kind = 0; kind < OBJECT_KINDS; kind++) {
		api_resource_stop(&c->resources[kind]);
		reset(&c->connections[kind]);
	}
	agent_done(&c->agent);
	cluster_free(c->cluster);
	c->cluster = NULL;
	c->alive = false;
	s->node.facts_notice = s->node.features_notice = s->kernel.notice = 0;
}

static void earlier(uint64_t at, unsigned which, uint64_t *best, unsigned *ret)
{
	if (at && (!*best || at < *best)) {
		*best = at;
		*ret = which;
	}
}

uint64_t client_due(struct sim *s, unsigned *ret_which)
{
	uint64_t best = 0;

	for (unsigned i = 0; s->client.alive && i < OBJECT_KINDS; i++) {
		const struct connection *c = &s->client.connections[i];

		earlier(s->client.resources[i].deadline * US_PER_MS, i * THINGS + TICK, &best, ret_which);
		if (!c->active)
			continue;
		earlier(c->at, i * THINGS + DELIVER, &best, ret_which);
		if (!c->headers || c->hang || c->status != 200)
			continue;
		earlier(c->ends, i * THINGS + END, &best, ret_which);
		earlier(c->bookmark, i * THINGS + BOOKMARK, &best, ret_which);
	}
	return best;
}

void client_run(struct sim *s, unsigned which)
{
	struct connection *c = &s->client.connections[which / THINGS];

	switch (which % THINGS) {
	case TICK:
		api_resource_tick(&s->client.resources[which / THINGS]);
		return;
	case DELIVER:
		deliver(s, c);
		break;
	case END:
		end_watch(s, c);
		break;
	case BOOKMARK:
		send_bookmark(s, c);
		break;
	}
	settle(s);
}

void client_calm(struct sim *s)
{
	for (int i = 0; i < OBJECT_KINDS; i++) {
		struct connection *c = &s->client.connections[i];

		/* The transport notices a peer that is silent. */
		if (!c->active || !c->hang)
			continue;
		c->hang = c->polite = false;
		c->cut = c->sent;
		c->broken = true;
		c->at = s->now + draw_us(s, 0, 30 * US_PER_S);
		if (!c->headers)
			c->status = 0;
	}
}
