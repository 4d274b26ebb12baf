/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a real API server (Kubernetes 1.36) answered, byte by byte: tests/unit/data/captures/NAME.http. Each case is
 * played by a scripted server as HTTP/1.1 and, its chunks undone, as HTTP/2 over TLS; what the source asked, what it
 * told and what it knows in the end are CASE.expected, for both. UPDATE_GOLDEN=1 writes those anew; read the
 * difference before it is committed. And the framing: cut in two at any byte, and ended at any byte.
 */
#include "api_fixture.h"
#include "k8s/api_body.h"
#include "text_file.h"

#include <stdlib.h>

struct capture {
	char *raw; /* as it came */
	size_t raw_len;
	size_t head;        /* its length, with the empty line */
	struct strbuf body; /* without chunks */
	bool ended;         /* it is all there */
};

static char *capture_path(const char *name, const char *suffix)
{
	return xasprintf("%s/unit/data/captures/%s%s", TEST_DATA, name, suffix);
}

static void capture_read(const char *name, struct capture *c)
{
	CLEANUP_FREE char *path = capture_path(name, ".http");
	const char *p, *end;

	memset(c, 0, sizeof(*c));
	c->raw = text_file_read(path, &c->raw_len);
	if (!c->raw)
		fail_msg("%s.http: cannot be read", name);
	p = strstr(c->raw, "\r\n\r\n") + 4;
	end = c->raw + c->raw_len;
	c->head = (size_t)(p - c->raw);
	if (!strstr(c->raw, "Transfer-Encoding: chunked")) {
		strbuf_add(&c->body, p, (size_t)(end - p));
		c->ended = true;
		return;
	}
	while (p < end) {
		size_t len = strtoul(p, NULL, 16);

		c->ended = len == 0;
		if (!len)
			break;
		p = strstr(p, "\r\n") + 2;
		strbuf_add(&c->body, p, len);
		p += len + 2;
	}
}

static void capture_done(struct capture *c)
{
	free(c->raw);
	strbuf_done(&c->body);
}

/* As a server without chunks would send it: the end of the connection is the end of the body. */
static char *without_chunks(const struct capture *c, size_t *ret_len)
{
	struct strbuf b = {0};

	for (const char *line = c->raw, *next; line < c->raw + c->head; line = next) {
		next = strstr(line, "\r\n") + 2;
		if (strncmp(line, "Transfer-Encoding", 17) != 0)
			strbuf_add(&b, line, (size_t)(next - line));
	}
	strbuf_add(&b, c->body.data ? c->body.data : "", c->body.len);
	*ret_len = b.len;
	return strbuf_steal(&b);
}

/* --- the replica as text --- */

static void print_addresses(struct strbuf *b, const char *what, const struct addr *a, size_t n)
{
	char text[ADDR_TEXT_SIZE];

	for (size_t i = 0; i < n; i++)
		strbuf_printf(b, "%s%s", i ? "," : what, addr_text(&a[i], text));
}

static void print_replica(const struct cluster *c, struct strbuf *b)
{
	const struct node *n = NULL;
	const struct service *s = NULL;
	const struct endpoint_slice *e = NULL;
	char text[PREFIX_TEXT_SIZE];

	while ((n = cluster_next_node(c, n))) {
		strbuf_printf(b, "node %s", n->name);
		for (size_t i = 0; i < n->n_pod_cidrs; i++)
			strbuf_printf(b, " %s", prefix_text(&n->pod_cidrs[i], text));
		print_addresses(b, " at ", n->addresses, n->n_addresses);
		strbuf_puts(b, "\n");
	}
	while ((s = cluster_next_service(c, s))) {
		strbuf_printf(b, "service %s/%s", s->namespace, s->name);
		print_addresses(b, " ", s->cluster_ips, s->n_cluster_ips);
		print_addresses(b, " lb ", s->load_balancer_ips, s->n_load_balancer_ips);
		print_addresses(b, " external ", s->external_ips, s->n_external_ips);
		for (size_t i = 0; i < s->n_ports; i++)
			strbuf_printf(b, " %u:%u/%u", s->ports[i].port, s->ports[i].node_port,
				(unsigned)s->ports[i].protocol);
		strbuf_puts(b, "\n");
	}
	while ((e = cluster_next_endpoint_slice(c, e))) {
		strbuf_printf(b, "slice %s/%s of %s:", e->namespace, e->name, e->service);
		for (size_t i = 0; i < e->n_endpoints; i++) {
			print_addresses(b, " ", &e->endpoints[i].addr, 1);
			strbuf_printf(b, "%s%s%s", e->endpoints[i].ready ? "" : "-notready",
				e->endpoints[i].serving ? "" : "-notserving",
				e->endpoints[i].terminating ? "-terminating" : "");
		}
		strbuf_puts(b, "\n");
	}
}

static char *replica_text(const struct cluster *c)
{
	struct strbuf b = {0};

	strbuf_puts(&b, "");
	print_replica(c, &b);
	return strbuf_steal(&b);
}

/* --- cases --- */

#define MAX_ANSWERS 4

struct played {
	const char *match, *match_too;
	int times;
	const char *capture;
};

static const struct capture_case {
	const char *name;
	bool watchlist;
	enum object_kind kind;
	unsigned requests; /* of the kind until there is silence */
	struct played played[MAX_ANSWERS];
} cases[] = {
	{"list-and-watch", false, OBJECT_SERVICE, 3,
		{{"services?label", NULL, 1, "list-services"},
			{"services?watch", NULL, 1, "watch-selector-delete-add"}}},
	{"list-pages", false, OBJECT_SERVICE, 3,
		{{"services?label", "continue=", 1, "list-services-page2"},
			{"services?label", NULL, 1, "list-services-page1"}}},
	{"list-page-expired", false, OBJECT_SERVICE, 4,
		{{"services?label", "continue=", 1, "error-410-continue-after-compaction"},
			{"services?label", NULL, 1, "list-services-page1"},
			{"services?label", NULL, 1, "list-services"}}},
	{"list-pretty", false, OBJECT_SERVICE, 2,
		{{"services?label", NULL, 1, "list-pretty-for-curl-agent"}}},
	{"list-none", false, OBJECT_SERVICE, 2, {{"services?label", NULL, 1, "list-services-none"}}},
	{"list-odd-services", false, OBJECT_SERVICE, 2, {{"services?label", NULL, 1, "odd-services-list"}}},
	{"list-odd-endpointslices", false, OBJECT_ENDPOINT_SLICE, 2,
		{{"slices?label", NULL, 1, "odd-endpointslices-list"}}},
	{"list-410", false, OBJECT_SERVICE, 3,
		{{"services?label", NULL, 1, "error-410-list-exact-compacted"},
			{"services?label", NULL, 1, "list-services"}}},
	{"list-504-version-too-large", false, OBJECT_NODE, 3,
		{{"nodes?res", NULL, 1, "error-504-rv-too-large-list"}}},
	{"list-400-field-selector", false, OBJECT_SERVICE, 3,
		{{"services?label", "fieldSelector", 1, "error-400-field-selector"},
			{"services?label", NULL, 1, "list-services"}}},
	{"list-401", false, OBJECT_NODE, 3, {{"nodes?res", NULL, 1, "error-401-bad-token"}}},
	{"list-403", false, OBJECT_SERVICE, 3, {{"services?label", NULL, 1, "error-403-pods"}}},
	{"list-429", false, OBJECT_SERVICE, 3, {{"services?label", NULL, 1, "error-429-too-many-requests"}}},
	{"list-404-endpoints", false, OBJECT_ENDPOINT_SLICE, 4,
		{{"slices?label", NULL, 1, "error-404-group"},
			{"endpoints?label", NULL, 1, "warning-endpoints-list"},
			{"endpoints?watch", NULL, 1, "warning-endpoints-watch"}}},
	{"watch-400-field-selector", false, OBJECT_SERVICE, 3,
		{{"services?watch", "fieldSelector", 1, "error-400-field-selector-watch"}}},
	{"watch-410", false, OBJECT_SERVICE, 4,
		{{"services?label", NULL, 1, "list-services"},
			{"services?watch", NULL, 1, "error-410-watch-old-rv-after-restart"},
			{"services?label", NULL, 1, "odd-services-list"}}},
	{"watch-server-killed", false, OBJECT_SERVICE, 3,
		{{"services?watch", NULL, 1, "watch-server-killed"}}},
	{"watch-nothing", false, OBJECT_NODE, 3, {{"nodes?watch", NULL, 1, "watch-rv-future"}}},
	{"watchlist-services", true, OBJECT_SERVICE, 2,
		{{"services?watch", NULL, 1, "watchlist-services-add-modify-delete"}}},
	{"watchlist-nodes", true, OBJECT_NODE, 2, {{"nodes?watch", NULL, 1, "watchlist-nodes"}}},
	{"watchlist-endpointslices", true, OBJECT_ENDPOINT_SLICE, 2,
		{{"slices?watch", NULL, 1, "watchlist-endpointslices"}}},
	{"watchlist-odd-services", true, OBJECT_SERVICE, 2,
		{{"services?watch", NULL, 1, "odd-services-watchlist"}}},
	{"watchlist-odd-endpointslices", true, OBJECT_ENDPOINT_SLICE, 2,
		{{"slices?watch", NULL, 1, "odd-endpointslices-watchlist"}}},
	{"watchlist-500-old-etcd", true, OBJECT_SERVICE, 3,
		{{"services?watch", "Initial", 1, "error-500-watchlist-old-etcd"},
			{"services?label", NULL, 1, "list-services"}}},
	{"watchlist-422", true, OBJECT_SERVICE, 3,
		{{"services?watch", "Initial", 1, "error-400-watchlist-params"},
			{"services?label", NULL, 1, "list-services"}}},
	{"watchlist-504-version-too-large", true, OBJECT_SERVICE, 5,
		{{"services?watch", "None HTTP", 2, "watchlist-services-add-modify-delete"},
			{"services?watch", "Initial", 1, "error-504-rv-too-large-watchlist"},
			{"services?watch", NULL, 1, "error-410-watch-rv1"}}},
};

/* A case against a server. */
struct play {
	const struct capture_case *c;
	struct fixture f;
	struct answer answers[MAX_ANSWERS];
	char *bytes[MAX_ANSWERS];
};

static const char *path_of(enum object_kind kind)
{
	return kind == OBJECT_NODE      ? "GET /api/v1/nodes"
	       : kind == OBJECT_SERVICE ? "GET /api/v1/services"
					: "endpoint";
}

static unsigned asked(const struct play *p)
{
	return count(
		p->f.server.log.data, p->c->kind == OBJECT_ENDPOINT_SLICE ? "endpoint" : path_of(p->c->kind));
}

static void load_answer(struct play *p, size_t i, enum protocol protocol)
{
	const struct played *from = &p->c->played[i];
	struct answer *a = &p->answers[i];
	struct capture c;

	capture_read(from->capture, &c);
	*a = (struct answer){.match = from->match, .match_too = from->match_too, .times = from->times};
	if (protocol == HTTPS_2) {
		p->bytes[i] = without_chunks(&c, &a->raw_len);
		a->cut = a->raw_len;
	} else {
		p->bytes[i] = xcalloc(1, c.raw_len + 1);
		memcpy(p->bytes[i], c.raw, c.raw_len);
		a->raw_len = c.raw_len;
		a->cut = c.ended ? 0 : c.raw_len;
	}
	a->raw = p->bytes[i];
	capture_done(&c);
}

static void play_begin(
	struct play *p, const struct capture_case *c, enum protocol protocol, struct event_base *base)
{
	*p = (struct play){.c = c};
	p->f.base = base;
	p->f.protocol = protocol;
	p->f.options.watchlist = c->watchlist;
	p->f.answers = p->answers;
	for (; p->f.n_answers < MAX_ANSWERS && c->played[p->f.n_answers].match; p->f.n_answers++)
		load_answer(p, p->f.n_answers, protocol);
	begin(&p->f);
}

static void play_end(struct play *p)
{
	finish(&p->f);
	for (size_t i = 0; i < MAX_ANSWERS; i++)
		free(p->bytes[i]);
}

/* 'text' up to its end of line, without what is different each time or between the protocols. */
static void print_line(struct strbuf *b, const char *prefix, const char *text)
{
	static const struct {
		const char *from, *to;
		bool number; /* one follows */
	} names[] = {
		{folder, "FOLDER", false},
		{"https://", "http://", false},
		{"127.0.0.1:", "127.0.0.1:N", true},
		{"timeoutSeconds=", "timeoutSeconds=N", true},
	};

	strbuf_puts(b, prefix);
	while (*text && *text != '\r' && *text != '\n') {
		size_t i = 0;

		while (i < ARRAY_SIZE(names) && strncmp(text, names[i].from, strlen(names[i].from)) != 0)
			i++;
		if (i == ARRAY_SIZE(names)) {
			strbuf_add(b, text++, 1);
			continue;
		}
		strbuf_puts(b, names[i].to);
		text += strlen(names[i].from);
		if (names[i].number)
			text += strspn(text, "0123456789");
	}
	strbuf_puts(b, "\n");
}

static char *play_text(struct play *p)
{
	struct source_status status = status_of(&p->f);
	const struct source_resource_status *r = &status.resources[p->c->kind];
	struct strbuf b = {0};

	for (const char *line = p->f.server.log.data; line && (line = strstr(line, "GET ")); line++)
		if (strstr(line, path_of(p->c->kind)) &&
			strstr(line, path_of(p->c->kind)) < line + strcspn(line, "\r"))
			print_line(&b, "", line);
	for (char *rest = p->f.told.data, *line; (line = strsep(&rest, "\n"));)
		if (*line)
			print_line(&b, "told ", line);
	strbuf_printf(&b, "synced %d lists %llu watches %llu events %llu\n", r->synced,
		(unsigned long long)r->lists, (unsigned long long)r->watch_starts,
		(unsigned long long)r->events);
	if (r->problem[0])
		print_line(&b, "problem ", r->problem);
	for (size_t i = 0; i < SOURCE_FAILURES; i++)
		if (status.failures[i])
			strbuf_printf(&b, "failures %s %llu\n", source_failure_names[i],
				(unsigned long long)status.failures[i]);
	print_replica(p->f.cluster, &b);
	return strbuf_steal(&b);
}

static void check_text(const char *name, const char *text)
{
	CLEANUP_FREE char *path = capture_path(name, ".expected");

	text_file_expect(path, text);
}

static bool all_asked(const struct play *plays, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (asked(&plays[i]) < plays[i].c->requests)
			return false;
	return true;
}

/* All at once: most of the time is waiting between two requests. */
static void play_all(enum protocol protocol)
{
	struct event_base *base = event_base_new();
	CLEANUP_FREE struct play *plays = xcalloc(ARRAY_SIZE(cases), sizeof(*plays));

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		play_begin(&plays[i], &cases[i], protocol, base);
	if (!RUN_UNTIL_ON(base, 8000, all_asked(plays, ARRAY_SIZE(cases))))
		for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
			if (asked(&plays[i]) < cases[i].requests)
				print_error("%s: %u requests instead of %u\n", cases[i].name,
					asked(&plays[i]), cases[i].requests);
	/* and not more */
	RUN_UNTIL_ON(base, 100, false);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP_FREE char *text = play_text(&plays[i]);

		check_text(cases[i].name, text);
		play_end(&plays[i]);
	}
	event_base_free(base);
}

static void as_captured(void **state)
{
	(void)state;
	play_all(PLAIN);
}

static void over_http_2(void **state)
{
	(void)state;
	play_all(HTTPS_2);
}

/* --- framing --- */

static void ignore_event(void *arg, struct reflector_input *in)
{
	(void)in;
	++*(unsigned *)arg;
}

static void ignore_bad(void *arg, const struct error *err)
{
	(void)err;
	(void)arg;
}

static void ignore_change(void *arg)
{
	(void)arg;
}

static const struct {
	const char *capture;
	struct api_body_format format;
	size_t step; /* 1: every position */
} framed[] = {
	{"error-410-watch-rv1", {OBJECT_NODE, false, true}, 1},
	{"error-403-pods", {OBJECT_SERVICE, false, false}, 1},
	{"list-pretty-for-curl-agent", {OBJECT_SERVICE, false, false}, 1},
	{"list-services-page1", {OBJECT_SERVICE, false, false}, 31},
	{"odd-services-list", {OBJECT_SERVICE, false, false}, 5},
	{"odd-services-watchlist", {OBJECT_SERVICE, false, true}, 1},
	{"odd-endpointslices-watchlist", {OBJECT_ENDPOINT_SLICE, false, true}, 13},
	{"watch-selector-delete-add", {OBJECT_SERVICE, false, true}, 499},
	{"watchlist-nodes", {OBJECT_NODE, false, true}, 499},
	{"warning-endpoints-list", {OBJECT_ENDPOINT_SLICE, true, false}, 1},
	{"warning-endpoints-watch", {OBJECT_ENDPOINT_SLICE, true, true}, 1},
};

/* Fed in two pieces; what has become of it, as text. */
static char *fed(const struct api_body_format *format, const struct strbuf *body, size_t cut)
{
	struct cluster *c = cluster_new();
	unsigned events = 0;
	struct api_body_owner owner = {ignore_event, ignore_bad, ignore_change, &events};
	struct api_body *b = api_body_new(c, format, &owner);
	int rc = api_body_feed(b, body->data, cut, NULL);
	CLEANUP_FREE char *replica = NULL;
	char *text;

	if (!rc)
		rc = api_body_feed(b, body->data + cut, body->len - cut, NULL);
	replica = replica_text(c);
	text = xasprintf("%d %d %u %s %s %u\n%s", rc, rc ? 0 : api_body_end(b, NULL), events,
		api_body_version(b) ? api_body_version(b) : "-",
		api_body_continue(b) ? api_body_continue(b) : "-", api_body_error(b)->code, replica);
	api_body_free(b);
	cluster_free(c);
	return text;
}

static void body_cut_in_two(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(framed); i++) {
		struct capture c;
		CLEANUP_FREE char *whole = NULL;

		capture_read(framed[i].capture, &c);
		whole = fed(&framed[i].format, &c.body, 0);
		for (size_t cut = 1; cut < c.body.len; cut += framed[i].step) {
			CLEANUP_FREE char *text = fed(&framed[i].format, &c.body, cut);

			if (strcmp(whole, text) != 0)
				fail_msg("%s cut at %zu: got\n%s\ninstead of\n%s", framed[i].capture, cut,
					text, whole);
		}
		capture_done(&c);
	}
}

/* --- over a connection --- */

#define AT_ONCE 48

/* One answer, cut one way or another. */
struct cut {
	struct fixture f;
	struct answer answers[3];
	size_t at;
};

static bool all_done(struct cut *cuts, size_t n, bool (*done)(const struct cut *c))
{
	for (size_t i = 0; i < n; i++)
		if (!done(&cuts[i]))
			return false;
	return true;
}

/* Plays the answers with the byte position in the one that 'set' chooses; 'check' when 'done', or after 6 s. */
static void cut_everywhere(const struct answer answers[3], size_t len, size_t step, bool watchlist,
	void (*set)(struct cut *c), bool (*done)(const struct cut *c), void (*check)(struct cut *c))
{
	CLEANUP_FREE struct cut *cuts = xcalloc(AT_ONCE, sizeof(*cuts));
	size_t at = 1;

	while (at < len) {
		struct event_base *base = event_base_new();
		size_t n = 0;

		for (; n < AT_ONCE && at < len; n++, at += step) {
			cuts[n] = (struct cut){.at = at};
			memcpy(cuts[n].answers, answers, sizeof(cuts[n].answers));
			set(&cuts[n]);
			cuts[n].f.base = base;
			cuts[n].f.options.watchlist = watchlist;
			cuts[n].f.answers = cuts[n].answers;
			cuts[n].f.n_answers = ARRAY_SIZE(cuts[n].answers);
			begin(&cuts[n].f);
		}
		RUN_UNTIL_ON(base, 6000, all_done(cuts, n, done));
		for (size_t i = 0; i < n; i++) {
			if (!done(&cuts[i]))
				fail_msg("cut at %zu: it does not go on", cuts[i].at);
			check(&cuts[i]);
			finish(&cuts[i].f);
		}
		event_base_free(base);
	}
}

/* What a list of Services says. */
static char *known(const struct capture *c)
{
	const struct api_body_format format = {OBJECT_SERVICE, false, false};
	unsigned events;
	const struct api_body_owner owner = {ignore_event, ignore_bad, ignore_change, &events};
	struct cluster *cluster = cluster_new();
	struct api_body *b = api_body_new(cluster, &format, &owner);
	char *text;

	assert_int_equal(api_body_feed(b, c->body.data, c->body.len, NULL), 0);
	text = replica_text(cluster);
	api_body_free(b);
	cluster_free(cluster);
	return text;
}

static struct capture first, second; /* of the case under way */
static char *want;

static void pause_first(struct cut *c)
{
	c->answers[0].pause = c->at;
}

static bool watched(const struct cut *c)
{
	return count(c->f.server.log.data, "/services?watch=true") == 1 && cluster_all_synced(c->f.cluster);
}

static void check_want(struct cut *c)
{
	CLEANUP_FREE char *text = replica_text(c->f.cluster);

	if (strcmp(text, want) != 0)
		fail_msg("cut at %zu: got\n%s\ninstead of\n%s", c->at, text, want);
}

static void check_want_and_health(struct cut *c)
{
	check_want(c);
	assert_int_equal(c->f.problems, 0);
}

/* The first part of a list's bytes, and the rest a moment later. */
static void list_in_two_parts(void **state)
{
	const char *const names[] = {"list-services-none", "odd-services-list"};
	const size_t steps[] = {1, 59};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct answer answers[3] = {{LIST_SERVICES, NULL, -1}, {"no such"}, {"no such"}};

		capture_read(names[i], &first);
		answers[0].raw = first.raw;
		answers[0].raw_len = first.raw_len;
		want = known(&first);
		cut_everywhere(
			answers, first.raw_len, steps[i], false, pause_first, watched, check_want_and_health);
		free(want);
		capture_done(&first);
	}
}

/* How many events, and the last one's version, are whole in the first 'at' bytes of 'first'. */
static unsigned whole_events(size_t at, char version[32])
{
	size_t seen = 0, done = 0;
	unsigned n = 0;

	/* bytes of the body in the first 'at' of what was sent */
	for (const char *p = first.raw + first.head; p < first.raw + at;) {
		size_t len = strtoul(p, NULL, 16);

		p = strstr(p, "\r\n") + 2;
		if (p >= first.raw + at)
			break;
		seen += len < (size_t)(first.raw + at - p) ? len : (size_t)(first.raw + at - p);
		p += len + 2;
		if (!len)
			break;
	}
	strcpy(version, "10");
	while (done < seen) {
		const char *start = first.body.data + done, *end = strchr(start, '\n');
		const char *v = strstr(start, "\"resourceVersion\":\"");

		/* the new line belongs to nothing */
		if (!end || (size_t)(end - first.body.data) > seen)
			break;
		snprintf(version, 32, "%.*s", (int)strcspn(v + 19, "\""), v + 19);
		done = (size_t)(end - first.body.data) + 1;
		n++;
	}
	return n;
}

static void end_first(struct cut *c)
{
	c->answers[0].cut = c->at;
}

static bool watched_again(const struct cut *c)
{
	char version[32];
	CLEANUP_FREE char *next = NULL;

	whole_events(c->at, version);
	next = xasprintf("resourceVersion=%s HTTP", version);
	for (const char *p = c->f.server.log.data; p && (p = strstr(p, "/services?watch=true")); p++)
		if (count(c->f.server.log.data, "/services?watch=true") == 2 && strstr(p, next))
			return true;
	return false;
}

/* All events that were whole and no other; the next watch is from the last of them. */
static void check_events(struct cut *c)
{
	char version[32];
	unsigned n = whole_events(c->at, version);
	struct source_status s = status_of(&c->f);

	if (s.resources[OBJECT_SERVICE].events != n)
		fail_msg("ended at %zu: %llu events instead of %u", c->at,
			(unsigned long long)s.resources[OBJECT_SERVICE].events, n);
	assert_int_equal(s.resources[OBJECT_SERVICE].lists, 1);
}

static void watch_ends_anywhere(void **state)
{
	struct answer answers[3] = {{WATCH_SERVICES, "resourceVersion=10 ", 1}, {"no such"}, {"no such"}};

	(void)state;
	capture_read("watch-selector-delete-add", &first);
	answers[0].raw = first.raw;
	answers[0].raw_len = first.raw_len;
	cut_everywhere(answers, first.raw_len, 197, false, end_first, watched_again, check_events);
	capture_done(&first);
}

static void end_relist(struct cut *c)
{
	c->answers[2].cut = c->at;
}

static bool relist_failed(const struct cut *c)
{
	return c->f.problems > 0;
}

/* A relist that ends early: what was there is still there, whatever came in addition. */
static void check_nothing_removed(struct cut *c)
{
	CLEANUP_FREE char *text = replica_text(c->f.cluster);
	CLEANUP_FREE char *lines = xstrdup(want);

	for (char *rest = lines, *line; (line = strsep(&rest, "\n"));)
		if (!strstr(text, line))
			fail_msg("ended at %zu: \"%s\" is gone", c->at, line);
	assert_int_equal(status_of(&c->f).resources[OBJECT_SERVICE].lists, 1);
}

static void relist_ends_anywhere(void **state)
{
	struct answer answers[3] = {
		{LIST_SERVICES, "resourceVersion=0", -1},
		{WATCH_SERVICES, NULL, 1},
		{LIST_SERVICES, NULL, -1},
	};
	struct capture expired;

	(void)state;
	capture_read("odd-services-list", &first);
	capture_read("error-410-watch-old-rv-after-restart", &expired);
	capture_read("list-services", &second);
	answers[0].raw = first.raw;
	answers[0].raw_len = first.raw_len;
	answers[1].raw = expired.raw;
	answers[1].raw_len = expired.raw_len;
	answers[2].raw = second.raw;
	answers[2].raw_len = second.raw_len;
	want = known(&first);
	cut_everywhere(answers, second.raw_len, 331, false, end_relist, relist_failed, check_nothing_removed);
	free(want);
	capture_done(&first);
	capture_done(&second);
	capture_done(&expired);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_captured),
		cmocka_unit_test(over_http_2),
		cmocka_unit_test(body_cut_in_two),
		cmocka_unit_test(list_in_two_parts),
		cmocka_unit_test(watch_ends_anywhere),
		cmocka_unit_test(relist_ends_anywhere),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
