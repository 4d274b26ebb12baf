/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The API server: objects with all their versions, answers as kube-apiserver gives them.
 *
 * A list at "" is what is there now, one at "0" or at a version what a watch cache that lags behind has, never older than
 * the version. A watch brings what happened after its version, unless the log was compacted past it (410, by status or
 * by event). Selectors are the server's: an object that stops matching is DELETED to who watches.
 */
#include "sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const struct entry *server_at(const struct server *v, enum object_kind kind, unsigned i, uint64_t version)
{
	const struct history *h = &v->objects[kind][i];

	for (size_t k = h->n; k; k--)
		if (h->items[k - 1].version <= version)
			return &h->items[k - 1];
	return NULL;
}

static void put(struct sim *s, enum object_kind kind, unsigned i, const struct spec *x)
{
	struct history *h = &s->server.objects[kind][i];
	char namespace[16], name[16];
	struct entry *e;

	e = VEC_ADD(h->items, h->n, h->cap);
	e->version = ++s->server.version;
	e->spec = *x;
	e->hash = x->present && spec_visible(kind, x, false) ? spec_hash(kind, i, x) : 0;
	spec_name(kind, i, namespace, name);
	trace(s, "server: %s %s/%s is %s at %" PRIu64, object_kind_names[kind], namespace, name,
		x->present ? x->bad ? "bad" : "changed" : "gone", e->version);
}

static enum object_kind draw_kind(struct sim *s)
{
	unsigned n = draw(s, 10);

	return n < 6 ? OBJECT_SERVICE : n < 8 ? OBJECT_NODE : OBJECT_ENDPOINT_SLICE;
}

void server_change(struct sim *s)
{
	enum object_kind kind = draw_kind(s);
	unsigned i = draw(s, kind == OBJECT_NODE ? 5 : OBJECTS_MAX);
	const struct entry *now = server_at(&s->server, kind, i, s->server.version);
	bool there = now && now->spec.present;
	struct spec x;

	if (chance(s, s->rates.api_compact)) {
		for (int k = 0; k < OBJECT_KINDS; k++)
			client_pushed(s, k); /* what runs has no need of the log */
		s->server.compacted = s->server.version - draw(s, 3);
		trace(s, "server: compacted until %" PRIu64, s->server.compacted);
		return;
	}
	if (there && chance(s, kind == OBJECT_NODE && !i ? 60 : 300)) {
		x = now->spec;
		x.present = false;
	} else if (there && chance(s, 150)) {
		x = now->spec; /* a heartbeat */
		x.beat++;
	} else {
		spec_draw(s, kind, i, &x);
		if (!s->rates.api_status && !s->rates.api_garble)
			x.bad = false;
	}
	put(s, kind, i, &x);
	client_pushed(s, kind);
}

void server_mend(struct sim *s)
{
	for (int kind = 0; kind < OBJECT_KINDS; kind++)
		for (unsigned i = 0; i < OBJECTS_MAX; i++) {
			const struct entry *now = server_at(&s->server, kind, i, s->server.version);
			struct spec x;

			if (!now || !now->spec.present || !now->spec.bad)
				continue;
			x = now->spec;
			x.bad = false;
			put(s, kind, i, &x);
			client_pushed(s, kind);
		}
}

void server_start(struct sim *s)
{
	struct server *v = &s->server;
	struct spec x;

	v->version = 100 + draw(s, 900);
	v->compacted = v->version;
	v->paged = chance(s, 300);
	v->no_field_selector = chance(s, 150);
	v->no_watchlist = chance(s, 200);
	v->watchlist_error = chance(s, 100);
	v->silent_watchlist = chance(s, 100);
	for (int kind = 0; kind < OBJECT_KINDS; kind++)
		for (unsigned i = 0; i < (kind == OBJECT_NODE ? 4 : OBJECTS_MAX); i++) {
			if (!chance(s, kind == OBJECT_NODE ? 900 : 500))
				continue;
			spec_draw(s, kind, i, &x);
			x.bad = false;
			put(s, kind, i, &x);
		}
}

void server_done(struct sim *s)
{
	for (int kind = 0; kind < OBJECT_KINDS; kind++)
		for (unsigned i = 0; i < OBJECTS_MAX; i++)
			free(s->server.objects[kind][i].items);
}

struct cluster *server_truth(const struct server *v)
{
	struct cluster *c = cluster_new();

	for (int kind = 0; kind < OBJECT_KINDS; kind++) {
		cluster_relist_begin(c, kind);
		for (unsigned i = 0; i < OBJECTS_MAX; i++) {
			const struct entry *e = server_at(v, kind, i, v->version);

			if (e && spec_visible(kind, &e->spec, false))
				spec_put(kind, i, &e->spec, c);
		}
		cluster_relist_end(c, kind);
	}
	return c;
}

/* --- answers --- */

/* The line break behind an event is not waited for. */
static void mark(struct connection *c, uint64_t version, bool complete)
{
	*VEC_ADD(c->marks, c->n_marks, c->cap_marks) =
		(struct mark){c->body.len - c->watch, version, complete};
}

static void refuse(struct connection *c, unsigned code, const char *reason, const char *details)
{
	c->status = code;
	strbuf_printf(&c->body,
		"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\","
		"\"message\":"
		"\"%s\",\"reason\":\"%s\"%s,\"code\":%u}\n",
		reason, reason, details, code);
}

static void error_event(struct connection *c, unsigned code, const char *reason)
{
	strbuf_printf(&c->body,
		"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"status\":\"Failure\",\"reason\":\"%"
		"s\","
		"\"code\":%u}}\n",
		reason, code);
}

/* A kind of trouble of the server's, if it is in that mood. True: it is the answer. */
static bool trouble(struct sim *s, struct connection *c)
{
	static const unsigned codes[] = {429, 500, 503, 504, 401, 403, 410, 429, 404, 502};
	unsigned code;

	if (!chance(s, s->rates.api_status))
		return false;
	code = codes[draw(s, ARRAY_SIZE(codes))];
	if ((code == 429 || code == 503) && chance(s, 700))
		c->retry_after_s = chance(s, 950) ? 1 + draw(s, 20) : 400;
	if (code == 404 && c->kind == OBJECT_ENDPOINT_SLICE)
		code = 503; /* it would be a server without EndpointSlices for this process */
	if (code == 504 && chance(s, 700))
		refuse(c, 504, "Timeout",
			",\"details\":{\"causes\":[{\"reason\":\"ResourceVersionTooLarge\"}]}");
	else if (code == 502)
		c->status = 502, strbuf_puts(&c->body, "<html>bad gateway</html>");
	else
		refuse(c, code, code == 410 ? "Expired" : "Trouble", "");
	return true;
}

/* What the watch cache has. */
static uint64_t cached(struct sim *s, uint64_t least)
{
	uint64_t lag = chance(s, s->rates.api_lag) ? draw(s, 6) : 0;
	uint64_t at = s->server.version > lag ? s->server.version - lag : 1;

	return at > least ? at : least;
}

static void list_items(struct sim *s, struct connection *c, uint64_t at, unsigned from, unsigned limit,
	unsigned *ret_next, struct strbuf *b)
{
	unsigned n = 0;

	*ret_next = 0;
	for (unsigned i = from; i < OBJECTS_MAX; i++) {
		const struct entry *e = server_at(&s->server, c->kind, i, at);

		if (!e || !spec_visible(c->kind, &e->spec, c->field_selector))
			continue;
		if (n == limit) {
			*ret_next = i;
			return;
		}
		strbuf_puts(b, n++ ? "," : "");
		spec_json(c->kind, i, &e->spec, e->version, b);
	}
}

static void list(struct sim *s, struct connection *c)
{
	static const char *const kinds[] = {"NodeList", "ServiceList", "EndpointSliceList"};
	uint64_t at = c->version_given && !c->version ? cached(s, 1) : s->server.version;
	unsigned from = 0, next, limit = s->server.paged ? 1 + draw(s, 4) : OBJECTS_MAX;
	struct strbuf items = {0}, metadata = {0};

	if (c->version)
		at = cached(s, c->version);
	if (c->cont[0] && sscanf(c->cont, "%" SCNu64 ".%u", &at, &from) != 2)
		abort();
	if (c->cont[0] && at < s->server.compacted) {
		refuse(c, 410, "Expired", "");
		return;
	}
	list_items(s, c, at, from, limit, &next, &items);
	strbuf_printf(&metadata, "\"metadata\":{\"resourceVersion\":\"%" PRIu64 "\"", at);
	if (next)
		strbuf_printf(&metadata, ",\"continue\":\"%" PRIu64 ".%u\"", at, next);
	strbuf_puts(&metadata, "}");
	c->status = 200;
	strbuf_printf(&c->body, "{\"kind\":\"%s\",\"apiVersion\":\"v1\",", kinds[c->kind]);
	if (chance(s, 800))
		strbuf_printf(&c->body, "%s,\"items\":[%s]}", metadata.data, items.data ? items.data : "");
	else
		strbuf_printf(&c->body, "\"items\":[%s],%s}", items.data ? items.data : "", metadata.data);
	if (!next)
		mark(c, at, true);
	strbuf_done(&items);
	strbuf_done(&metadata);
}

static void event(struct connection *c, const char *type, unsigned i, const struct spec *x, uint64_t version)
{
	strbuf_printf(&c->body, "{\"type\":\"%s\",\"object\":", type);
	spec_json(c->kind, i, x, version, &c->body);
	strbuf_puts(&c->body, "}\n");
}

static void bookmark_event(struct connection *c, uint64_t version, bool initial_end)
{
	strbuf_printf(&c->body,
		"{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"%" PRIu64 "\"%s}}}\n",
		version, initial_end ? ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" : "");
	mark(c, version, initial_end);
}

static void initial_events(struct sim *s, struct connection *c)
{
	uint64_t at = c->version ? cached(s, c->version) : s->server.version;

	if (s->server.watchlist_error) {
		error_event(c, 500, "InternalError");
		return;
	}
	for (unsigned i = 0; i < OBJECTS_MAX; i++) {
		const struct entry *e = server_at(&s->server, c->kind, i, at);

		if (e && spec_visible(c->kind, &e->spec, c->field_selector))
			event(c, "ADDED", i, &e->spec, e->version);
	}
	c->cursor = at;
	if (s->server.silent_watchlist)
		c->cursor = UINT64_MAX; /* and never anything behind them */
	else
		bookmark_event(c, at, true);
}

static void watch(struct sim *s, struct connection *c)
{
	c->status = 200;
	c->cursor = c->version;
	c->ends = s->now + (chance(s, s->rates.api_short_watch) ? draw_us(s, 0, 3 * US_PER_S)
								: c->timeout_s * US_PER_S);
	c->bookmark = s->now + draw_us(s, 20 * US_PER_S, 90 * US_PER_S);
	if (c->initial_events) {
		initial_events(s, c);
	} else if (c->version < s->server.compacted) {
		if (chance(s, 500))
			error_event(c, 410, "Expired");
		else
			refuse(c, 410, "Expired", "");
		c->cursor = UINT64_MAX;
	}
}

/* Spoils it: a piece that no JSON has, or an end that is none. */
static void spoil(struct sim *s, struct connection *c)
{
	static const char *const pieces[] = {"]", "}}", "<html>", "\x01", "{\"type\":7}", "\"\"", "{]"};
	char *begin = c->body.data ? strchr(c->body.data, '{') : NULL;
	const char *piece = pieces[draw(s, ARRAY_SIZE(pieces))];
	struct strbuf b = {0};
	size_t at;

	if (c->body.len && chance(s, s->rates.api_cut)) {
		c->cut = draw(s, (unsigned)c->body.len + 1);
		c->polite = chance(s, 300);
		c->broken = true;
		return;
	}
	if (c->status != 200 || !begin || !chance(s, s->rates.api_garble))
		return;
	/* In front of some object, where it is no text. */
	for (unsigned n = draw(s, 20); n && strchr(begin + 1, '{'); n--)
		begin = strchr(begin + 1, '{');
	at = (size_t)(begin - c->body.data);
	strbuf_add(&b, c->body.data, at);
	strbuf_puts(&b, piece);
	strbuf_puts(&b, begin);
	strbuf_done(&c->body);
	c->body = b;
	c->broken = true;
	for (size_t i = c->n_marks; i && c->marks[i - 1].offset > at; i--)
		c->n_marks = i - 1; /* never comes to that */
}

void server_answer(struct sim *s, struct connection *c)
{
	c->cut = SIZE_MAX;
	if (chance(s, s->rates.api_away)) {
		c->status = 0;
		return;
	}
	c->hang = chance(s, s->rates.api_hang);
	if (trouble(s, c)) {
		;
	} else if (c->field_selector && s->server.no_field_selector) {
		refuse(c, 400, "BadRequest", "");
	} else if (c->initial_events && s->server.no_watchlist) {
		refuse(c, chance(s, 500) ? 400 : 422, "Invalid", "");
	} else if (c->watch) {
		watch(s, c);
	} else {
		list(s, c);
	}
	spoil(s, c);
	if (c->watch && c->status == 200)
		server_push(s, c, false);
}

/* The next version of the kind's objects after 'cursor'; 0: none. */
static uint64_t next_version(const struct server *v, enum object_kind kind, uint64_t cursor, unsigned *ret_i)
{
	uint64_t best = 0;

	for (unsigned i = 0; i < OBJECTS_MAX; i++) {
		const struct history *h = &v->objects[kind][i];

		for (size_t k = h->n; k && h->items[k - 1].version > cursor; k--)
			if (!best || h->items[k - 1].version < best) {
				best = h->items[k - 1].version;
				*ret_i = i;
			}
	}
	return best;
}

static void push_one(struct sim *s, struct connection *c, unsigned i, uint64_t version)
{
	const struct entry *old = server_at(&s->server, c->kind, i, version - 1);
	const struct entry *new = server_at(&s->server, c->kind, i, version);
	bool was = old && spec_visible(c->kind, &old->spec, c->field_selector);
	bool is = spec_visible(c->kind, &new->spec, c->field_selector);

	if (is)
		event(c, was ? "MODIFIED" : "ADDED", i, &new->spec, version);
	else if (was)
		event(c, "DELETED", i, &old->spec, version);
	if (was || is)
		mark(c, version, false);
	c->cursor = version;
}

void server_push(struct sim *s, struct connection *c, bool bookmark)
{
	uint64_t version;
	unsigned i = 0;

	/* What was spoiled once, or refused by an event, brings nothing more. */
	if (c->broken || c->cursor == UINT64_MAX)
		return;
	while ((version = next_version(&s->server, c->kind, c->cursor, &i))) {
		push_one(s, c, i, version);
		if (!chance(s, s->rates.api_error_event))
			continue;
		error_event(c, chance(s, 500) ? 410 : 500, "Trouble");
		c->cursor = UINT64_MAX;
		return;
	}
	c->cursor = s->server.version;
	if (bookmark)
		bookmark_event(c, s->server.version, false);
}
