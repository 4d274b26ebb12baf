/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One table of keys; the reader walks the document along it. */
#include "controller/config.h"

#include "base/mem.h"
#include "base/strbuf.h"
#include "base/yamldoc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of one list. Far more than anybody writes; bounds what a mistaken file can make us keep. */
#define LIST_MAX 4096
#define GLOB_MAX 255

const char *const cluster_kind_names[] = {"auto", "antrea", "kube-proxy", NULL};
const char *const engine_names[] = {"auto", "flowtable", "redirect", "off", NULL};

static const char *const endpoints_names[] = {"auto", "slices", "endpoints", "off", NULL};
static const char *const initial_list_names[] = {"gzip", "watchlist", NULL};
static const char *const level_names[] = {"error", "warning", "info", "debug", NULL};
static const char *const format_names[] = {"text", "json", NULL};
static const char *const bool_names[] = {"false", "true", NULL};
static const char *const off_auto_names[] = {"off", "auto", NULL};
static const char *const bad_kernel_names[] = {"refuse", "use", NULL};
static const char *const on_exit_names[] = {"keep", "cleanup", NULL};
static const char *const api_version_names[] = {CONFIG_API_VERSION, NULL};
static const char *const kind_names[] = {CONFIG_KIND, NULL};

enum key_type {
	KEY_BOOL,   /* one of two words; the second one is true */
	KEY_ENUM,   /* one of the words; its index */
	KEY_ENGINE, /* the same, without `redirect` */
	KEY_WORD,   /* the one word, nothing to keep */
	KEY_FIXED,  /* a key of which this version has only the default */
	KEY_CIDRS,
	KEY_GLOBS,
	KEY_LISTEN,
};

struct key {
	const char *path; /* with dots */
	enum key_type type;
	size_t offset;            /* in struct config */
	const char *const *words; /* allowed ones */
	const char *fixed;        /* KEY_FIXED: the default */
};

#define ENGINE_KEY(name, type)                                                                               \
	{                                                                                                    \
		"traffic." name ".engine", KEY_ENGINE, offsetof(struct config, engines[type]), engine_names  \
	}

static const struct key keys[] = {
	{"apiVersion", KEY_WORD, 0, api_version_names},
	{"kind", KEY_WORD, 0, kind_names},
	{"enabled", KEY_BOOL, offsetof(struct config, enabled), bool_names},
	{"cluster.kind", KEY_ENUM, offsetof(struct config, cluster), cluster_kind_names},
	{"cluster.localPodCIDRs", KEY_CIDRS, offsetof(struct config, local_pod_cidrs)},
	{"cluster.remotePodCIDRs", KEY_CIDRS, offsetof(struct config, remote_pod_cidrs)},
	ENGINE_KEY("pod-to-pod", TYPE_POD_TO_POD),
	ENGINE_KEY("pod-to-service", TYPE_POD_TO_SERVICE),
	ENGINE_KEY("external-to-loadbalancer", TYPE_EXTERNAL_TO_LOADBALANCER),
	ENGINE_KEY("external-to-externalip", TYPE_EXTERNAL_TO_EXTERNALIP),
	ENGINE_KEY("external-to-nodeport", TYPE_EXTERNAL_TO_NODEPORT),
	ENGINE_KEY("external-to-service", TYPE_EXTERNAL_TO_SERVICE),
	ENGINE_KEY("node-to-pod", TYPE_NODE_TO_POD),
	ENGINE_KEY("pod-to-external", TYPE_POD_TO_EXTERNAL),
	ENGINE_KEY("other", TYPE_OTHER),
	{"interfaces.uplinks", KEY_GLOBS, offsetof(struct config, uplinks)},
	{"interfaces.pods", KEY_GLOBS, offsetof(struct config, pods)},
	{"interfaces.exclude", KEY_GLOBS, offsetof(struct config, exclude_interfaces)},
	{"exclude.cidrs", KEY_CIDRS, offsetof(struct config, exclude_cidrs)},
	{"flowtable.hardwareOffload", KEY_BOOL, offsetof(struct config, hardware_offload), off_auto_names},
	{"flowtable.knownBadKernel", KEY_BOOL, offsetof(struct config, use_bad_kernel), bad_kernel_names},
	{"flowtable.policyChange", KEY_FIXED, .fixed = "ignore"},
	{"flowtable.accounting", KEY_BOOL, offsetof(struct config, accounting), off_auto_names},
	{"redirect.via", KEY_FIXED, .fixed = "nft"},
	{"redirect.preference", KEY_FIXED, .fixed = "40010"},
	{"kubernetes.endpoints", KEY_ENUM, offsetof(struct config, endpoints), endpoints_names},
	{"kubernetes.initialList", KEY_BOOL, offsetof(struct config, watchlist), initial_list_names},
	{"listen", KEY_LISTEN},
	{"onExit", KEY_BOOL, offsetof(struct config, cleanup_on_exit), on_exit_names},
	{"log.level", KEY_ENUM, offsetof(struct config, log_level), level_names},
	{"log.format", KEY_ENUM, offsetof(struct config, log_format), format_names},
};

_Static_assert(sizeof(enum engine) == sizeof(unsigned) && sizeof(enum cluster_kind) == sizeof(unsigned) &&
		       sizeof(enum endpoints_mode) == sizeof(unsigned) &&
		       sizeof(enum log_level) == sizeof(unsigned) &&
		       sizeof(enum log_format) == sizeof(unsigned),
	"KEY_ENUM stores an index into any of them");

struct reader {
	const char *file;
	struct config *config;
	struct string_list *warnings; /* may be NULL */
	struct error *err;
};

static int bad(struct reader *r, unsigned line, const char *path, const char *mend, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
static int bad(struct reader *r, unsigned line, const char *path, const char *mend, const char *fmt, ...)
{
	char what[320];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	error_set(r->err, -EINVAL, path, mend, "%s", what);
	error_at(r->err, r->file, line);
	return -EINVAL;
}

static void warn(struct reader *r, unsigned line, const char *path, const char *text)
{
	CLEANUP_FREE char *s = NULL;

	if (!r->warnings)
		return;
	s = xasprintf("%s:%u: %s: %s", r->file, line, path, text);
	string_list_add(r->warnings, s);
}

static const char *kind_name(const struct yaml_node *n)
{
	return n->kind == YAML_MAPPING ? "a mapping" : n->kind == YAML_SEQUENCE ? "a list" : "a value";
}

/* The scalar's text, NULL for null and for what is none; then the error is set. */
static const char *word(struct reader *r, const char *path, const struct yaml_node *n, const char *mend)
{
	const char *s = yaml_text(n);

	if (!s)
		bad(r, n->line, path, mend, "is %s, not one word",
			n->kind == YAML_SCALAR ? "null" : kind_name(n));
	return s;
}

static void join(struct strbuf *b, const char *s)
{
	strbuf_printf(b, "%s%s", b->len ? ", " : "allowed: ", s);
}

static int word_index(const char *const *words, const char *s)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(s, words[i]))
			return i;
	return -EINVAL;
}

/* Index of the word in key->words, or -EINVAL. */
static int choice(struct reader *r, const struct key *key, const struct yaml_node *n)
{
	struct strbuf allowed = {0};
	const char *s;
	int found = -EINVAL;

	for (int i = 0; key->words[i]; i++)
		if (key->type != KEY_ENGINE || i != ENGINE_REDIRECT)
			join(&allowed, key->words[i]);
	s = word(r, key->path, n, allowed.data);
	if (s)
		found = word_index(key->words, s);
	/* What was `off` in a chart's values comes out of a YAML 1.1 library as `false`. */
	if (s && found < 0 && !n->quoted && !strcmp(s, "false"))
		found = word_index(key->words, "off");
	if (s && found < 0)
		bad(r, n->line, key->path, allowed.data, "\"%.64s\" is not a value of it", s);
	else if (s && key->type == KEY_ENGINE && found == ENGINE_REDIRECT)
		found = bad(r, n->line, key->path, allowed.data,
			"redirect is not supported by this version: it has no redirect engine");
	strbuf_done(&allowed);
	return found;
}

static int read_fixed(struct reader *r, const struct key *key, const struct yaml_node *n)
{
	CLEANUP_FREE char *mend = xasprintf("leave it out, or %s", key->fixed);
	const char *s = word(r, key->path, n, mend);

	if (!s)
		return -EINVAL;
	if (!n->quoted && !strcmp(s, "false") && !strcmp(key->fixed, "off"))
		return 0;
	if (strcmp(s, key->fixed) != 0)
		return bad(r, n->line, key->path, mend, "\"%.64s\" is not supported by this version", s);
	return 0;
}

/* A list's items; a missing value (`key:`) is an empty list. */
static int list_of(struct reader *r, const char *path, const char *mend, const struct yaml_node *n)
{
	if (n->kind == YAML_SCALAR && !yaml_text(n))
		return 0;
	if (n->kind != YAML_SEQUENCE)
		return bad(r, n->line, path, mend, "is %s, not a list", kind_name(n));
	if (n->n > LIST_MAX)
		return bad(r, n->line, path, "shorten it", "has more than %d items", LIST_MAX);
	return 0;
}

struct placed_prefix {
	struct prefix prefix;
	unsigned line;
};

static int placed_cmp(const void *a, const void *b)
{
	const struct placed_prefix *x = a, *y = b;
	int c = prefix_cmp(&x->prefix, &y->prefix);

	return c ? c : (x->line > y->line) - (x->line < y->line);
}

/* In order, what covers stands in front of what it covers. */
static void warn_overlaps(struct reader *r, const char *path, struct placed_prefix *p, size_t n)
{
	size_t outer = 0;
	char a[PREFIX_TEXT_SIZE], b[PREFIX_TEXT_SIZE], text[160];

	qsort(p, n, sizeof(*p), placed_cmp);
	for (size_t i = 1; i < n; i++) {
		if (!prefix_covers(&p[outer].prefix, &p[i].prefix)) {
			outer = i;
			continue;
		}
		snprintf(text, sizeof(text), "%s is already in %s of line %u", prefix_text(&p[i].prefix, a),
			prefix_text(&p[outer].prefix, b), p[outer].line);
		warn(r, p[i].line, path, text);
	}
}

static int read_cidrs(struct reader *r, const struct key *key, const struct yaml_node *n)
{
	static const char mend[] = "a list of CIDRs like [10.0.0.0/16, fd00::/48]";
	struct prefix_list *list = (void *)((char *)r->config + key->offset);
	CLEANUP_FREE struct placed_prefix *placed = NULL;

	if (list_of(r, key->path, mend, n))
		return -EINVAL;
	placed = xcalloc(n->n + 1, sizeof(*placed));
	for (size_t i = 0; i < n->n; i++) {
		const struct yaml_node *item = n->items[i];
		const char *s = word(r, key->path, item, mend);
		char cidr[PREFIX_TEXT_SIZE], text[160];
		bool host_bits;

		if (!s)
			return -EINVAL;
		if (!prefix_parse(s, &placed[i].prefix, &host_bits))
			return bad(r, item->line, key->path, mend, "\"%.64s\" is not a CIDR", s);
		placed[i].line = item->line;
		if (host_bits) {
			snprintf(text, sizeof(text), "%.64s has host bits set and is taken as %s", s,
				prefix_text(&placed[i].prefix, cidr));
			warn(r, item->line, key->path, text);
		}
		*VEC_ADD(list->items, list->n, list->cap) = placed[i].prefix;
	}
	warn_overlaps(r, key->path, placed, n->n);
	return 0;
}

static int read_globs(struct reader *r, const struct key *key, const struct yaml_node *n)
{
	static const char mend[] = "a list of interface names or globs like [eth0, \"veth*\"]";
	struct string_list *list = (void *)((char *)r->config + key->offset);

	if (list_of(r, key->path, mend, n))
		return -EINVAL;
	for (size_t i = 0; i < n->n; i++) {
		const char *s = word(r, key->path, n->items[i], mend);

		if (!s)
			return -EINVAL;
		if (!*s || strlen(s) > GLOB_MAX)
			return bad(r, n->items[i]->line, key->path, mend,
				*s ? "is longer than %d characters" : "has an empty item", GLOB_MAX);
		string_list_add(list, s);
	}
	return 0;
}

static int read_listen(struct reader *r, const struct key *key, const struct yaml_node *n)
{
	static const char mend[] =
		"ADDRESS:PORT like 127.0.0.1:19500, node:19500 ($HOST_IP) or \"[::]:19500\"";
	const char *s = word(r, key->path, n, mend), *colon = s ? strrchr(s, ':') : NULL;
	CLEANUP_FREE char *host = NULL;
	struct addr a;
	char *end;
	unsigned long port;

	if (!s)
		return -EINVAL;
	if (colon) {
		size_t len = (size_t)(colon - s);
		bool brackets = len >= 2 && s[0] == '[' && s[len - 1] == ']';

		host = brackets ? xstrndup(s + 1, len - 2) : xstrndup(s, len);
		if (((!brackets && !strcmp(host, CONFIG_LISTEN_NODE)) ||
			    (addr_parse(host, &a) && brackets == (a.family == AF_INET6))) &&
			colon[1] >= '0' && colon[1] <= '9') {
			errno = 0;
			port = strtoul(colon + 1, &end, 10);
			if (!*end && !errno && port <= UINT16_MAX) {
				free(r->config->listen_host);
				r->config->listen_host = TAKE_PTR(host);
				r->config->listen_port = (unsigned)port;
				return 0;
			}
		}
	}
	return bad(r, n->line, key->path, mend, "\"%.64s\" is not an address and a port", s);
}

static int read_key(struct reader *r, const struct key *key, const struct yaml_node *n)
{
	void *at = (char *)r->config + key->offset;
	int i;

	switch (key->type) {
	case KEY_CIDRS:
		return read_cidrs(r, key, n);
	case KEY_GLOBS:
		return read_globs(r, key, n);
	case KEY_LISTEN:
		return read_listen(r, key, n);
	case KEY_FIXED:
		return read_fixed(r, key, n);
	case KEY_BOOL:
	case KEY_ENUM:
	case KEY_ENGINE:
	case KEY_WORD:
		break;
	}
	i = choice(r, key, n);
	if (i < 0)
		return -EINVAL;
	if (key->type == KEY_BOOL)
		*(bool *)at = i == 1;
	else if (key->type != KEY_WORD)
		*(unsigned *)at = (unsigned)i;
	return 0;
}

/* The part of key->path behind 'prefix' ("" or "a.b."); NULL when it is not below it. */
static const char *below(const struct key *key, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(key->path, prefix, n) ? NULL : key->path + n;
}

static int unknown_key(struct reader *r, const struct yaml_pair *p, const char *prefix)
{
	CLEANUP_FREE char *path = xasprintf("%s%.64s", prefix, p->key);
	struct strbuf allowed = {0};
	const char *last = "";
	size_t last_len = 0;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const char *rest = below(&keys[i], prefix);
		size_t len = rest ? strcspn(rest, ".") : 0;
		CLEANUP_FREE char *name = NULL;

		if (!rest || (len == last_len && !strncmp(rest, last, len)))
			continue;
		name = xstrndup(rest, len);
		join(&allowed, name);
		last = rest;
		last_len = len;
	}
	bad(r, p->line, path, allowed.data, "there is no such key");
	strbuf_done(&allowed);
	return -EINVAL;
}

static int read_mapping(struct reader *r, const struct yaml_node *map, const char *prefix);

static int read_pair(struct reader *r, const struct yaml_pair *p, const char *prefix)
{
	CLEANUP_FREE char *path = xasprintf("%s%s", prefix, p->key);
	CLEANUP_FREE char *inner = xasprintf("%s.", path);

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (!strcmp(keys[i].path, path))
			return read_key(r, &keys[i], p->value);
		if (below(&keys[i], inner) && !strchr(p->key, '.')) {
			/* `cluster:` with nothing below: all defaults */
			if (p->value->kind == YAML_SCALAR && !yaml_text(p->value))
				return 0;
			if (p->value->kind != YAML_MAPPING)
				return bad(r, p->line, path, "keys of it go below, indented",
					"is %s, not a mapping", kind_name(p->value));
			return read_mapping(r, p->value, inner);
		}
	}
	return unknown_key(r, p, prefix);
}

static int read_mapping(struct reader *r, const struct yaml_node *map, const char *prefix)
{
	for (size_t i = 0; i < map->n; i++) {
		const struct yaml_pair *p = &map->pairs[i];

		if (strchr(p->key, '.') ? unknown_key(r, p, prefix) : read_pair(r, p, prefix))
			return -EINVAL;
	}
	return 0;
}

static int read_stream(const char *file, const struct yaml_stream *s, struct config *ret,
	struct string_list *warnings, struct error *err)
{
	struct config c;
	struct reader r = {.file = file, .config = &c, .warnings = warnings, .err = err};
	const struct yaml_node *root;
	int rc = 0;

	config_default(&c);
	if (yamldoc_count(s) > 1) {
		rc = bad(&r, yamldoc_root(s, 1)->line, NULL, "one document, without `---` inside",
			"there is a second document");
	} else if (yamldoc_count(s) == 1) {
		root = yamldoc_root(s, 0);
		rc = root->kind == YAML_MAPPING
			     ? read_mapping(&r, root, "")
			     : bad(&r, root->line, NULL, "keys and values like `listen: 127.0.0.1:19500`",
				       "is %s, not a mapping", kind_name(root));
	}
	if (rc) {
		config_done(&c);
		return rc;
	}
	*ret = c;
	return 0;
}

int config_parse(const char *file, const char *text, size_t len, struct config *ret,
	struct string_list *warnings, struct error *err)
{
	struct yaml_stream *s;
	int rc;

	memset(ret, 0, sizeof(*ret));
	rc = yamldoc_read(file, text, len, &s, err);
	if (rc)
		return rc;
	rc = read_stream(file, s, ret, warnings, err);
	yamldoc_free(s);
	return rc;
}

int config_load(const char *path, struct config *ret, struct string_list *warnings, struct error *err)
{
	struct yaml_stream *s;
	int rc;

	memset(ret, 0, sizeof(*ret));
	rc = yamldoc_read_file(path, &s, err);
	if (rc)
		return rc;
	rc = read_stream(path, s, ret, warnings, err);
	yamldoc_free(s);
	return rc;
}

void config_default(struct config *ret)
{
	*ret = (struct config){
		.enabled = true,
		.accounting = true,
		.listen_host = xstrdup("127.0.0.1"),
		.listen_port = 19500,
		.log_level = LOG_LEVEL_INFO,
	};
}

void config_done(struct config *c)
{
	free(c->local_pod_cidrs.items);
	free(c->remote_pod_cidrs.items);
	free(c->exclude_cidrs.items);
	string_list_done(&c->uplinks);
	string_list_done(&c->pods);
	string_list_done(&c->exclude_interfaces);
	free(c->listen_host);
	memset(c, 0, sizeof(*c));
}

void string_list_add(struct string_list *l, const char *s)
{
	*VEC_ADD(l->items, l->n, l->cap) = xstrdup(s);
}

void string_list_done(struct string_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->items[i]);
	free(l->items);
	*l = (struct string_list){0};
}
