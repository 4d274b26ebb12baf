/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The list/watch state machine on a virtual clock: tests/unit/reflector/CASE.script is what happens,
 * CASE.expected the same lines, each with its time, and below it what the machine answers. UPDATE_GOLDEN=1 writes
 * the expected texts anew; read the difference before it is committed.
 *
 * A script's lines, `#` begins a comment:
 *	reflector [selector] [watchlist]	a new machine
 *	[+MS] INPUT [r=RANDOM]			MS later (default 0), with that random number (default 0)
 * INPUT:
 *	due					the deadline has come (takes the time until then); `tick`: now
 *	opened | eof | cut | bad | refused	200 and its headers; the ends: clean, cut, not JSON, no answer at all
 *	listed VERSION [continue=C]		200, a whole list or page
 *	status CODE [retry=S] [too-large]	an answer that is an error
 *	added | modified | deleted | bookmark VERSION [end]	an event; `-`: it has no version
 *	error CODE [retry=S] [too-large]	an ERROR event
 * ANSWER: the actions in their order (a request with V=resourceVersion, `-` none sent, C=continue,
 * T=timeoutSeconds, +f the field selector), and the deadline as @ms from now.
 */
#include "base/mem.h"
#include "base/strbuf.h"
#include "k8s/reflector.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text_file.h"

static const struct input_word {
	const char *word;
	struct reflector_input in;
	bool version, code; /* which argument it has */
} words[] = {
	{"due", {.kind = REFLECTOR_TICK}},
	{"tick", {.kind = REFLECTOR_TICK}},
	{"opened", {.kind = REFLECTOR_OPENED}},
	{"eof", {.kind = REFLECTOR_DONE, .code = 200}},
	{"cut", {.kind = REFLECTOR_DONE, .code = 200, .cut = true}},
	{"bad", {.kind = REFLECTOR_DONE, .code = 200, .bad_body = true}},
	{"refused", {.kind = REFLECTOR_DONE, .cut = true}},
	{"listed", {.kind = REFLECTOR_DONE, .code = 200}, .version = true},
	{"status", {.kind = REFLECTOR_DONE}, .code = true},
	{"added", {.kind = REFLECTOR_EVENT, .event = REFLECTOR_ADDED}, .version = true},
	{"modified", {.kind = REFLECTOR_EVENT, .event = REFLECTOR_MODIFIED}, .version = true},
	{"deleted", {.kind = REFLECTOR_EVENT, .event = REFLECTOR_DELETED}, .version = true},
	{"bookmark", {.kind = REFLECTOR_EVENT, .event = REFLECTOR_BOOKMARK}, .version = true},
	{"error", {.kind = REFLECTOR_EVENT, .event = REFLECTOR_ERROR}, .code = true},
};

struct machine {
	const char *script; /* name, for failures */
	unsigned line;
	struct reflector *reflector;
	uint64_t now, deadline;
};

static const char *next_word(struct machine *m, char **rest, bool must)
{
	const char *word = strtok_r(NULL, " \t", rest);

	if (must && !word)
		fail_msg("%s.script:%u: a word is missing", m->script, m->line);
	return word;
}

/* 'line' is cut into words. */
static void read_input(struct machine *m, char *line, struct reflector_input *in)
{
	char *rest = NULL;
	const char *word = strtok_r(line, " \t", &rest);
	const struct input_word *found = NULL;

	if (word[0] == '+') {
		m->now += strtoull(word + 1, NULL, 10);
		word = next_word(m, &rest, true);
	}
	for (size_t i = 0; i < ARRAY_SIZE(words) && !found; i++)
		if (!strcmp(words[i].word, word))
			found = &words[i];
	if (!found)
		fail_msg("%s.script:%u: \"%s\" is no input", m->script, m->line, word);
	*in = found->in;
	if (!strcmp(word, "due"))
		m->now = m->deadline;
	if (found->code)
		in->code = (unsigned)strtoul(next_word(m, &rest, true), NULL, 10);
	if (found->version) {
		in->version = next_word(m, &rest, true);
		if (!strcmp(in->version, "-"))
			in->version = NULL;
	}
	while ((word = next_word(m, &rest, false))) {
		if (!strncmp(word, "r=", 2))
			in->random = strtod(word + 2, NULL);
		else if (!strncmp(word, "retry=", 6))
			in->retry_after_s = (unsigned)strtoul(word + 6, NULL, 10);
		else if (!strncmp(word, "continue=", 9))
			in->cont = word + 9;
		else if (!strcmp(word, "too-large"))
			in->version_too_large = true;
		else if (!strcmp(word, "end"))
			in->initial_end = true;
		else
			fail_msg("%s.script:%u: \"%s\" is no word", m->script, m->line, word);
	}
}

static void print_request(const struct reflector_request *q, struct strbuf *b)
{
	strbuf_puts(b, q->initial_events ? "watchlist" : q->watch ? "watch" : "list");
	if (q->version)
		strbuf_printf(b, " V=%s", q->version[0] ? q->version : "-");
	if (q->cont)
		strbuf_printf(b, " C=%s", q->cont);
	if (q->watch)
		strbuf_printf(b, " T=%u", q->timeout_s);
	strbuf_puts(b, q->field_selector ? " +f " : " ");
}

static void print_output(const struct machine *m, const struct reflector_output *out, struct strbuf *b)
{
	static const char *const names[] = {
		"cancel", "abort", "end", "begin", "token", NULL, "healthy", "problem", "no-watchlist"};

	strbuf_puts(b, "\t");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!(out->actions & 1U << i))
			continue;
		if (names[i])
			strbuf_printf(b, "%s ", names[i]);
		else
			print_request(&out->request, b);
	}
	strbuf_printf(b, "@%llu\n", (unsigned long long)(out->deadline - m->now));
}

static void run_line(struct machine *m, char *line, struct strbuf *b)
{
	struct reflector_input in;
	struct reflector_output out;

	if (!line[0] || line[0] == '#') {
		strbuf_printf(b, "%s\n", line);
		return;
	}
	if (!strncmp(line, "reflector", 9)) {
		reflector_free(m->reflector);
		m->reflector = reflector_new(strstr(line, " selector"), strstr(line, " watchlist"));
		m->now = m->deadline = 1000000;
		strbuf_printf(b, "%s\n", line);
		return;
	}
	if (!m->reflector)
		fail_msg("%s.script:%u: there is no reflector yet", m->script, m->line);
	{
		CLEANUP_FREE char *copy = xstrdup(line);
		read_input(m, copy, &in);
		reflector_step(m->reflector, &in, m->now, &out);
	}
	m->deadline = out.deadline;
	strbuf_printf(b, "%llu %s\n", (unsigned long long)(m->now - 1000000), line);
	print_output(m, &out, b);
}

static void check_script(void **state)
{
	const char *name = *state;
	CLEANUP_FREE char *script_path = xasprintf("%s/unit/reflector/%s.script", TEST_DATA, name);
	CLEANUP_FREE char *expected_path = xasprintf("%s/unit/reflector/%s.expected", TEST_DATA, name);
	CLEANUP_FREE char *script = text_file_read(script_path, NULL);
	CLEANUP_FREE char *text = NULL;
	struct machine m = {.script = name};
	struct strbuf b = {0};
	char *rest = script, *line;

	assert_non_null(script);
	while ((line = strsep(&rest, "\n")) && (rest || *line)) {
		m.line++;
		run_line(&m, line, &b);
	}
	reflector_free(m.reflector);
	text = strbuf_steal(&b);
	text_file_expect(expected_path, text);
}

static int is_script(const struct dirent *d)
{
	const char *dot = strrchr(d->d_name, '.');

	return dot && !strcmp(dot, ".script");
}

int main(void)
{
	struct dirent **scripts;
	struct CMUnitTest *tests;
	int n = scandir(TEST_DATA "/unit/reflector", &scripts, is_script, alphasort), failed;

	if (n < 20) {
		fprintf(stderr, "%s/unit/reflector: %d scripts, at least 20 are known\n", TEST_DATA, n);
		return 1;
	}
	tests = xcalloc((size_t)n, sizeof(*tests));
	for (int i = 0; i < n; i++) {
		*strrchr(scripts[i]->d_name, '.') = '\0';
		tests[i] = (struct CMUnitTest){.name = scripts[i]->d_name,
			.test_func = check_script,
			.initial_state = scripts[i]->d_name};
	}
	failed = _cmocka_run_group_tests("reflector", tests, (size_t)n, NULL, NULL);
	for (int i = 0; i < n; i++)
		free(scripts[i]);
	free(scripts);
	free(tests);
	return failed;
}
