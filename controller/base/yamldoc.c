/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/yamldoc.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#define MAX_FILE ((size_t)64 << 20)
#define MAX_NODES 1000000
#define MAX_DEPTH 100

/* Nodes and texts live in chunks that are freed together. */
struct chunk {
	struct chunk *next;
	size_t used;
	size_t size;
	char data[] __attribute__((aligned(16)));
};

/* 'node' is what the reader sees; 'size' counts it and what is below, aliases expanded. */
struct sized_node {
	struct yaml_node node;
	size_t size;
};

struct anchor {
	char *name;
	struct sized_node *node; /* NULL while its own content is being read */
};

struct yaml_stream {
	struct chunk *chunks;
	struct yaml_node **documents;
	size_t n;
	size_t cap;
};

struct reader {
	yaml_parser_t parser;
	const char *file;
	struct yaml_stream *stream;
	struct anchor *anchors; /* of the document */
	size_t n_anchors;
	size_t cap_anchors;
	unsigned depth;
	struct error *err;
};

static void *take(struct yaml_stream *s, size_t size)
{
	struct chunk *c = s->chunks;
	void *p;

	size = (size + 15) & ~(size_t)15;
	if (!c || c->size - c->used < size) {
		size_t room = size > 65536 ? size : 65536;

		c = xmalloc(sizeof(*c) + room);
		c->next = s->chunks;
		c->used = 0;
		c->size = room;
		s->chunks = c;
	}
	p = c->data + c->used;
	c->used += size;
	return p;
}

static void *take_copy(struct yaml_stream *s, const void *data, size_t size)
{
	void *p = take(s, size);

	if (size)
		memcpy(p, data, size);
	return p;
}

static unsigned line_of(yaml_mark_t mark)
{
	return (unsigned)mark.line + 1;
}

static int refuse(struct reader *r, yaml_mark_t mark, const char *mend, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static int refuse(struct reader *r, yaml_mark_t mark, const char *mend, const char *fmt, ...)
{
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	error_set(r->err, -EINVAL, NULL, mend, "%s", what);
	error_at(r->err, r->file, line_of(mark));
	return -EINVAL;
}

static int next_event(struct reader *r, yaml_event_t *event)
{
	const char *problem;

	if (yaml_parser_parse(&r->parser, event))
		return 0;
	if (r->parser.error == YAML_MEMORY_ERROR)
		out_of_memory();
	problem = r->parser.problem ? r->parser.problem : "not YAML";
	if (r->parser.error == YAML_READER_ERROR) {
		error_set(r->err, -EINVAL, NULL, "files are UTF-8 text", "%s at byte %zu", problem,
			r->parser.problem_offset);
		error_at(r->err, r->file, 0);
		return -EINVAL;
	}
	return refuse(r, r->parser.problem_mark, NULL, "%s%s%s", r->parser.context ? r->parser.context : "",
		r->parser.context ? ": " : "", problem);
}

static struct anchor *find_anchor(struct reader *r, const char *name)
{
	/* The last one counts: anchors may be defined again (YAML 1.2, 7.1). */
	for (size_t i = r->n_anchors; i > 0; i--)
		if (!strcmp(r->anchors[i - 1].name, name))
			return &r->anchors[i - 1];
	return NULL;
}

static void forget_anchors(struct reader *r)
{
	for (size_t i = 0; i < r->n_anchors; i++)
		free(r->anchors[i].name);
	r->n_anchors = 0;
}

/* An anchor for the node that begins; returns its index, or SIZE_MAX when there is none. */
static int begin_anchor(struct reader *r, const yaml_char_t *name, yaml_mark_t mark, size_t *ret)
{
	struct anchor *a;

	*ret = SIZE_MAX;
	if (!name)
		return 0;
	a = find_anchor(r, (const char *)name);
	if (!a) {
		/* They are looked up one by one. */
		if (r->n_anchors == 1000)
			return refuse(r, mark, NULL, "more than 1000 anchors in a document");
		a = VEC_ADD(r->anchors, r->n_anchors, r->cap_anchors);
		a->name = xstrdup((const char *)name);
	}
	a->node = NULL;
	*ret = (size_t)(a - r->anchors);
	return 0;
}

static void end_anchor(struct reader *r, size_t index, struct sized_node *node)
{
	if (index != SIZE_MAX)
		r->anchors[index].node = node;
}

static struct sized_node *node_new(struct reader *r, enum yaml_kind kind, yaml_mark_t mark)
{
	struct sized_node *n = take(r->stream, sizeof(*n));

	memset(n, 0, sizeof(*n));
	n->node.kind = kind;
	n->node.line = line_of(mark);
	n->size = 1;
	return n;
}

static int grow(struct reader *r, struct sized_node *n, const struct sized_node *child, yaml_mark_t mark)
{
	n->size += child->size;
	if (n->size > MAX_NODES)
		return refuse(r, mark, "split it", "the document has more than %d nodes", MAX_NODES);
	return 0;
}

/* Sets 'quoted' from style and tag; only the tags of YAML's core schema are known. */
static int scalar(struct reader *r, const yaml_event_t *event, struct sized_node **ret)
{
	const char *tag = (const char *)event->data.scalar.tag;
	const char *text = (const char *)event->data.scalar.value;
	size_t len = event->data.scalar.length;
	struct sized_node *n = node_new(r, YAML_SCALAR, event->start_mark);
	char *copy;

	n->node.quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	if (tag) {
		if (!strcmp(tag, YAML_STR_TAG) || !strcmp(tag, "!"))
			n->node.quoted = true;
		else if (!strcmp(tag, YAML_INT_TAG) || !strcmp(tag, YAML_BOOL_TAG) ||
			 !strcmp(tag, YAML_NULL_TAG) || !strcmp(tag, YAML_FLOAT_TAG))
			n->node.quoted = false;
		else
			return refuse(r, event->start_mark, "remove it", "tag %.64s is not known", tag);
	}
	if (memchr(text, '\0', len))
		return refuse(r, event->start_mark, NULL, "a NUL character in a text");
	copy = take(r->stream, len + 1);
	memcpy(copy, text, len);
	copy[len] = '\0';
	n->node.text = copy;
	*ret = n;
	return 0;
}

static int read_node(struct reader *r, yaml_event_t *event, struct sized_node **ret);

static int read_sequence(struct reader *r, const yaml_event_t *start, struct sized_node **ret)
{
	CLEANUP_FREE struct yaml_node **items = NULL;
	struct sized_node *n = node_new(r, YAML_SEQUENCE, start->start_mark), *child;
	size_t count = 0, cap = 0;
	yaml_event_t event;
	int e;

	for (;;) {
		e = next_event(r, &event);
		if (e)
			return e;
		if (event.type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(&event);
			break;
		}
		e = read_node(r, &event, &child);
		if (!e)
			e = grow(r, n, child, event.start_mark);
		yaml_event_delete(&event);
		if (e)
			return e;
		*VEC_ADD(items, count, cap) = &child->node;
	}
	n->node.n = count;
	n->node.items = take_copy(r->stream, items, count * sizeof(struct yaml_node *));
	*ret = n;
	return 0;
}

static int by_key(const void *a, const void *b)
{
	const struct yaml_pair *x = *(const struct yaml_pair *const *)a,
			       *y = *(const struct yaml_pair *const *)b;
	int c = strcmp(x->key, y->key);

	return c ? c : (x > y) - (x < y);
}

/* Sorted, so that a mapping of a hundred thousand members costs no hundred thousand squared. */
static int check_duplicates(struct reader *r, const struct yaml_pair *pairs, size_t n)
{
	CLEANUP_FREE const struct yaml_pair **sorted = xmalloc(n * sizeof(*sorted));
	const struct yaml_pair *twice = NULL, *first = NULL;

	for (size_t i = 0; i < n; i++)
		sorted[i] = &pairs[i];
	qsort(sorted, n, sizeof(struct yaml_pair *), by_key);
	for (size_t i = 1; i < n; i++)
		if (!strcmp(sorted[i - 1]->key, sorted[i]->key) && (!twice || sorted[i] < twice)) {
			first = sorted[i - 1];
			twice = sorted[i];
		}
	if (!twice)
		return 0;
	return refuse(r, (yaml_mark_t){.line = twice->line - 1}, "keep one of them",
		"key \"%.100s\" is there already, in line %u", twice->key, first->line);
}

static int read_mapping(struct reader *r, const yaml_event_t *start, struct sized_node **ret)
{
	CLEANUP_FREE struct yaml_pair *pairs = NULL;
	struct sized_node *n = node_new(r, YAML_MAPPING, start->start_mark), *key, *value;
	size_t count = 0, cap = 0;
	yaml_event_t event;
	int e;

	for (;;) {
		yaml_mark_t mark;
		struct yaml_pair *pair;

		e = next_event(r, &event);
		if (e)
			return e;
		if (event.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&event);
			break;
		}
		mark = event.start_mark;
		e = read_node(r, &event, &key);
		yaml_event_delete(&event);
		if (!e && key->node.kind != YAML_SCALAR)
			e = refuse(r, mark, NULL, "a key must be a scalar");
		if (!e && !key->node.quoted && !strcmp(key->node.text, "<<"))
			e = refuse(r, mark, "write the members out", "merge keys (<<) are not supported");
		if (!e)
			e = next_event(r, &event);
		if (e)
			return e;
		e = read_node(r, &event, &value);
		if (!e)
			e = grow(r, n, key, mark);
		if (!e)
			e = grow(r, n, value, mark);
		yaml_event_delete(&event);
		if (e)
			return e;
		pair = VEC_ADD(pairs, count, cap);
		pair->key = key->node.text;
		pair->line = line_of(mark);
		pair->value = &value->node;
	}
	e = check_duplicates(r, pairs, count);
	if (e)
		return e;
	n->node.n = count;
	n->node.pairs = take_copy(r->stream, pairs, count * sizeof(*pairs));
	*ret = n;
	return 0;
}

static int container_tag(
	struct reader *r, const yaml_event_t *event, const yaml_char_t *tag, const char *allowed)
{
	if (!tag || !strcmp((const char *)tag, allowed) || !strcmp((const char *)tag, "!"))
		return 0;
	return refuse(r, event->start_mark, "remove it", "tag %.64s is not known here", (const char *)tag);
}

/* The node that 'event' begins. */
static int read_node(struct reader *r, yaml_event_t *event, struct sized_node **ret)
{
	struct anchor *a;
	size_t anchor = SIZE_MAX;
	int e;

	*ret = NULL;
	switch (event->type) {
	case YAML_ALIAS_EVENT:
		a = find_anchor(r, (const char *)event->data.alias.anchor);
		if (!a)
			return refuse(r, event->start_mark, NULL, "alias *%.64s has no anchor before it",
				(const char *)event->data.alias.anchor);
		if (!a->node)
			return refuse(r, event->start_mark, NULL,
				"alias *%.64s is inside of what it stands for",
				(const char *)event->data.alias.anchor);
		*ret = a->node;
		return 0;
	case YAML_SCALAR_EVENT:
		e = begin_anchor(r, event->data.scalar.anchor, event->start_mark, &anchor);
		if (!e)
			e = scalar(r, event, ret);
		break;
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		if (r->depth == MAX_DEPTH)
			return refuse(r, event->start_mark, NULL, "nested deeper than %d", MAX_DEPTH);
		r->depth++;
		if (event->type == YAML_SEQUENCE_START_EVENT) {
			e = container_tag(r, event, event->data.sequence_start.tag, YAML_SEQ_TAG);
			if (!e)
				e = begin_anchor(
					r, event->data.sequence_start.anchor, event->start_mark, &anchor);
			if (!e)
				e = read_sequence(r, event, ret);
		} else {
			e = container_tag(r, event, event->data.mapping_start.tag, YAML_MAP_TAG);
			if (!e)
				e = begin_anchor(
					r, event->data.mapping_start.anchor, event->start_mark, &anchor);
			if (!e)
				e = read_mapping(r, event, ret);
		}
		r->depth--;
		break;
	default:
		return refuse(r, event->start_mark, NULL, "not YAML");
	}
	if (!e)
		end_anchor(r, anchor, *ret);
	return e;
}

static bool is_empty(const struct yaml_node *n)
{
	return n->kind == YAML_SCALAR && !n->quoted && !*n->text;
}

static int read_documents(struct reader *r)
{
	for (;;) {
		struct sized_node *root;
		yaml_event_t event;
		yaml_event_type_t type;
		int e = next_event(r, &event);

		if (e)
			return e;
		type = event.type;
		switch (type) {
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_START_EVENT:
			break;
		case YAML_DOCUMENT_END_EVENT:
			forget_anchors(r);
			break;
		case YAML_STREAM_END_EVENT:
			break;
		default:
			e = read_node(r, &event, &root);
			if (!e && !is_empty(&root->node))
				*VEC_ADD(r->stream->documents, r->stream->n, r->stream->cap) = &root->node;
			break;
		}
		yaml_event_delete(&event);
		if (e || type == YAML_STREAM_END_EVENT)
			return e;
	}
}

int yamldoc_read(const char *file, const char *text, size_t len, struct yaml_stream **ret, struct error *err)
{
	struct reader r = {.file = file, .err = err};
	int e;

	*ret = NULL;
	if (!yaml_parser_initialize(&r.parser))
		out_of_memory();
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	r.stream = xcalloc(1, sizeof(*r.stream));
	e = read_documents(&r);
	forget_anchors(&r);
	free(r.anchors);
	yaml_parser_delete(&r.parser);
	if (e)
		yamldoc_free(r.stream);
	else
		*ret = r.stream;
	return e;
}

static int file_error(const char *path, int code, struct error *err)
{
	error_set(err, code, NULL, NULL, "%s", strerror(-code));
	error_at(err, path, 0);
	return code;
}

int yamldoc_read_file(const char *path, struct yaml_stream **ret, struct error *err)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	CLEANUP_FREE char *text = NULL;
	size_t len = 0, cap = 0;
	struct stat st;

	*ret = NULL;
	if (fd < 0 || fstat(fd, &st))
		return file_error(path, -errno, err);
	if (S_ISDIR(st.st_mode))
		return file_error(path, -EISDIR, err);
	for (;;) {
		ssize_t n;

		if (cap - len < 4096) {
			size_t want = S_ISREG(st.st_mode) && !cap && (size_t)st.st_size < MAX_FILE
					      ? (size_t)st.st_size + 4097
					      : cap * 2 + 65536;

			text = xrealloc(text, want);
			cap = want;
		}
		n = read(fd, text + len, cap - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return file_error(path, -errno, err);
		if (!n)
			break;
		len += (size_t)n;
		if (len > MAX_FILE) {
			error_set(err, -EFBIG, NULL, "split it", "is larger than %zu MiB", MAX_FILE >> 20);
			error_at(err, path, 0);
			return -EFBIG;
		}
	}
	return yamldoc_read(path, text, len, ret, err);
}

size_t yamldoc_count(const struct yaml_stream *s)
{
	return s->n;
}

const struct yaml_node *yamldoc_root(const struct yaml_stream *s, size_t i)
{
	return i < s->n ? s->documents[i] : NULL;
}

void yamldoc_free(struct yaml_stream *s)
{
	struct chunk *next;

	if (!s)
		return;
	for (struct chunk *c = s->chunks; c; c = next) {
		next = c->next;
		free(c);
	}
	free(s->documents);
	free(s);
}

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key)
{
	if (!map || map->kind != YAML_MAPPING)
		return NULL;
	for (size_t i = 0; i < map->n; i++)
		if (!strcmp(map->pairs[i].key, key))
			return map->pairs[i].value;
	return NULL;
}

const char *yaml_text(const struct yaml_node *node)
{
	if (!node || node->kind != YAML_SCALAR)
		return NULL;
	if (!node->quoted && (!*node->text || !strcmp(node->text, "~") || !strcmp(node->text, "null") ||
				     !strcmp(node->text, "Null") || !strcmp(node->text, "NULL")))
		return NULL;
	return node->text;
}
