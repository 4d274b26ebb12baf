/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "base/yamldoc.h"
#include "k8s/decode.h"
#include "k8s/source_private.h"
#include "k8s/yaml_json.h"

#include <bsd/sys/tree.h>
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* An editor's save and kubelet's swap of a ConfigMap are several events; one load follows when they have
 * ended. */
#define DEBOUNCE_MS 50
/* A folder that is gone: how often it is looked for. */
#define MISSING_MS 1000
/* Different problems kept apart; what is beyond is counted only. */
#define MAX_PROBLEMS 100
#define MAX_FILES 10000

/* Where an object was read last. */
struct origin {
	RB_ENTRY(origin) link;
	enum object_kind kind;
	char *namespace;
	char *name;
	char *file;
	unsigned line;
	uint64_t load; /* the load that read it or kept it */
};
RB_HEAD(origin_tree, origin);

struct manifest_source {
	struct source source;
	struct cluster *cluster;
	struct source_callbacks cb;
	char *path;   /* as given */
	char *folder; /* what inotify looks at */
	bool single;
	int inotify;
	int watch; /* -1: none */
	struct event *readable;
	struct event *timer;
	unsigned postponed; /* events since the last load */

	struct origin_tree origins;
	uint64_t load;
	uint64_t generation; /* when 'changed' was last called */
	bool told_synced;

	/* Of the present load, and of the one before: what was said then is not said again. */
	char **problems;
	size_t n_problems;
	size_t cap_problems;
	char **said;
	size_t n_said;
	size_t skipped; /* objects of kinds that are not used */
	char skipped_kinds[128];

	char problem[512]; /* the first of the present load */
	uint64_t failures[SOURCE_FAILURES];
	uint64_t objects[OBJECT_KINDS]; /* read so far */
	uint64_t bytes;
	double last_load;
};

static int origin_cmp(const struct origin *a, const struct origin *b)
{
	int c = (int)a->kind - (int)b->kind;

	if (!c)
		c = strcmp(a->namespace, b->namespace);
	return c ? c : strcmp(a->name, b->name);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
RB_GENERATE_INTERNAL(origin_tree, origin, link, origin_cmp, static)
#pragma GCC diagnostic pop

static struct origin *origin_find(
	struct manifest_source *m, enum object_kind kind, const char *ns, const char *name)
{
	struct origin key = {.kind = kind, .namespace = (char *)ns, .name = (char *)name};

	return RB_FIND(origin_tree, &m->origins, &key);
}

static void origin_drop(struct manifest_source *m, struct origin *o)
{
	RB_REMOVE(origin_tree, &m->origins, o);
	free(o->namespace);
	free(o->name);
	free(o->file);
	free(o);
}

static void origin_set(struct manifest_source *m, enum object_kind kind, const char *ns, const char *name,
	const char *file, unsigned line)
{
	struct origin *o = origin_find(m, kind, ns, name);

	if (!o) {
		o = xcalloc(1, sizeof(*o));
		o->kind = kind;
		o->namespace = xstrdup(ns);
		o->name = xstrdup(name);
		RB_INSERT(origin_tree, &m->origins, o);
	}
	if (!o->file || strcmp(o->file, file)) {
		free(o->file);
		o->file = xstrdup(file);
	}
	o->line = line;
	o->load = m->load;
}

static bool contains(char *const *list, size_t n, const char *text)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i], text))
			return true;
	return false;
}

static void free_texts(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

/* Says what the load before did not say; 'reason' is SOURCE_FAILURES for what is no failure. */
static void problem(struct manifest_source *m, enum source_failure reason, const struct error *err)
{
	const char *text = error_text(err);

	if (reason < SOURCE_FAILURES) {
		m->failures[reason]++;
		if (!m->problem[0])
			snprintf(m->problem, sizeof(m->problem), "%s", text);
	}
	if (m->n_problems == MAX_PROBLEMS || contains(m->problems, m->n_problems, text))
		return;
	*VEC_ADD(m->problems, m->n_problems, m->cap_problems) = xstrdup(text);
	if (!contains(m->said, m->n_said, text) && m->cb.problem)
		m->cb.problem(m->cb.arg, err);
}

/* What the object is called, as far as it says; false when it has no usable name. */
static bool identity(enum object_kind kind, struct json_object *o, const char **namespace, const char **name)
{
	struct json_object *metadata, *v;

	*namespace = kind == OBJECT_NODE ? "" : "default";
	if (!json_object_object_get_ex(o, "metadata", &metadata) ||
		!json_object_is_type(metadata, json_type_object) ||
		!json_object_object_get_ex(metadata, "name", &v) || !json_object_is_type(v, json_type_string))
		return false;
	*name = json_object_get_string(v);
	if (kind != OBJECT_NODE && json_object_object_get_ex(metadata, "namespace", &v) &&
		json_object_is_type(v, json_type_string) && json_object_get_string_len(v))
		*namespace = json_object_get_string(v);
	return true;
}

static void read_object(
	struct manifest_source *m, const char *file, const struct yaml_node *node, enum object_kind kind)
{
	struct json_object *json;
	const char *ns, *name;
	struct object object;
	struct error err = {0};
	struct origin *o;

	if (!cluster_watched(m->cluster, kind))
		return;
	json = yaml_to_json(node);
	if (decode_json(kind, json, &object, &err)) {
		error_at(&err, file, node->line);
		problem(m, SOURCE_FAILURE_OBJECT, &err);
		/* Its last good version stays. */
		if (identity(kind, json, &ns, &name) && cluster_relist_keep(m->cluster, kind, ns, name)) {
			o = origin_find(m, kind, ns, name);
			if (o && o->load != m->load)
				origin_set(m, kind, ns, name, file, node->line);
		}
		json_object_put(json);
		return;
	}
	json_object_put(json);
	ns = object_namespace(&object);
	name = object_name(&object);
	o = origin_find(m, kind, ns, name);
	if (o && o->load == m->load) {
		error_set(&err, -EEXIST, NULL, "keep one of them", "%s %s%s%s is there already, at %s:%u",
			object_kind_names[kind], ns, *ns ? "/" : "", name, o->file, o->line);
		error_at(&err, file, node->line);
		problem(m, SOURCE_FAILURE_OBJECT, &err);
		object_done(&object);
		return;
	}
	origin_set(m, kind, ns, name, file, node->line);
	m->objects[kind]++;
	decode_put(m->cluster, &object);
}

/* OBJECT_KINDS for what is not used; "Service" of serving.knative.dev is not ours. */
static enum object_kind kind_of(const char *version, const char *kind)
{
	if (!version || !kind)
		return OBJECT_KINDS;
	if (!strcmp(version, "v1") && !strcmp(kind, "Node"))
		return OBJECT_NODE;
	if (!strcmp(version, "v1") && !strcmp(kind, "Service"))
		return OBJECT_SERVICE;
	if (!strcmp(version, "discovery.k8s.io/v1") && !strcmp(kind, "EndpointSlice"))
		return OBJECT_ENDPOINT_SLICE;
	return OBJECT_KINDS;
}

static void skip(struct manifest_source *m, const char *version, const char *kind)
{
	size_t used = strlen(m->skipped_kinds);
	bool foreign = version && strchr(version, '/');
	char name[72];

	m->skipped++;
	/* Another group's kind may have the name of one that is used. */
	snprintf(name, sizeof(name), "%.31s%s%.31s", foreign ? version : "", foreign ? " " : "", kind);
	if (!strstr(m->skipped_kinds, name) && used + strlen(name) + 3 < sizeof(m->skipped_kinds))
		snprintf(m->skipped_kinds + used, sizeof(m->skipped_kinds) - used, "%s%s", used ? ", " : "",
			name);
}

static void bad_item(struct manifest_source *m, const char *file, unsigned line, const char *what)
{
	struct error err = {0};

	error_set(&err, -EINVAL, NULL, "kubectl get -o yaml writes what is wanted here", "%s", what);
	error_at(&err, file, line);
	problem(m, SOURCE_FAILURE_OBJECT, &err);
}

/* 'version' and 'kind' are what a typed list says of its items; NULL: they say it themselves. */
static void read_item(struct manifest_source *m, const char *file, const struct yaml_node *node,
	const char *version, const char *kind)
{
	const struct yaml_node *items;
	enum object_kind known;
	const char *of = NULL;

	if (node->kind != YAML_MAPPING) {
		bad_item(m, file, node->line, "not an object");
		return;
	}
	if (yaml_text(yaml_get(node, "kind")) || !kind) {
		kind = yaml_text(yaml_get(node, "kind"));
		version = yaml_text(yaml_get(node, "apiVersion"));
	}
	if (!kind) {
		bad_item(m, file, node->line, "no kind");
		return;
	}
	known = kind_of(version, kind);
	if (known != OBJECT_KINDS) {
		read_object(m, file, node, known);
		return;
	}
	if (version && !strcmp(version, "v1") && !strcmp(kind, "NodeList"))
		of = "Node";
	else if (version && !strcmp(version, "v1") && !strcmp(kind, "ServiceList"))
		of = "Service";
	else if (version && !strcmp(version, "discovery.k8s.io/v1") && !strcmp(kind, "EndpointSliceList"))
		of = "EndpointSlice";
	else if (!version || strcmp(version, "v1") || strcmp(kind, "List")) {
		skip(m, version, kind);
		return;
	}
	items = yaml_get(node, "items");
	if (!items || (items->kind == YAML_SCALAR && !yaml_text(items)))
		return;
	if (items->kind != YAML_SEQUENCE) {
		bad_item(m, file, items->line, "items is not a list");
		return;
	}
	for (size_t i = 0; i < items->n; i++)
		read_item(m, file, items->items[i], version, of);
}

static bool has_objects(struct manifest_source *m, const char *file)
{
	struct origin *o;

	RB_FOREACH(o, origin_tree, &m->origins)
	if (!strcmp(o->file, file))
		return true;
	return false;
}

/* Returns false when the file's objects are to stay as they are. */
static bool read_file(struct manifest_source *m, const char *file)
{
	struct yaml_stream *stream;
	struct error err = {0};
	struct stat st;
	int r = 0;

	if (stat(file, &st))
		r = error_set(&err, -errno, NULL, NULL, "%s", strerror(errno));
	else if (!S_ISREG(st.st_mode))
		r = error_set(&err, -EINVAL, NULL, NULL, "not a regular file");
	else if (!st.st_size && has_objects(m, file))
		/* More often somebody is about to write it (the shell's >) than a wish to have them removed.
		 */
		r = error_set(&err, -ENODATA, NULL,
			"what was read from it stays; to remove that, remove the file", "is empty now");
	else
		r = yamldoc_read_file(file, &stream, &err);

	/* Between the listing and now: it is as gone as if it had not been listed. */
	if (r == -ENOENT && !m->single)
		return true;
	if (r) {
		if (!err.mend[0])
			snprintf(err.mend, sizeof(err.mend), "what was read from it before stays");
		error_at(&err, file, 0);
		problem(m, SOURCE_FAILURE_FILE, &err);
		return false;
	}
	m->bytes += (uint64_t)st.st_size;
	for (size_t i = 0; i < yamldoc_count(stream); i++)
		read_item(m, file, yamldoc_root(stream, i), NULL, NULL);
	yamldoc_free(stream);
	return true;
}

static bool is_manifest(const char *name)
{
	const char *dot = strrchr(name, '.');

	return name[0] != '.' && dot &&
	       (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml") || !strcmp(dot, ".json"));
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The files in order of their names. -errno: the folder cannot be read. */
static int list_files(struct manifest_source *m, char ***ret, size_t *ret_n, struct error *err)
{
	char **list = NULL;
	size_t n = 0, cap = 0;
	struct dirent *entry;
	DIR *dir;
	int r = 0;

	*ret = NULL;
	*ret_n = 0;
	if (m->single) {
		*VEC_ADD(*ret, *ret_n, cap) = xstrdup(m->path);
		return 0;
	}
	dir = opendir(m->folder);
	if (!dir) {
		r = error_set(err, -errno, NULL, "what was read from it before stays", "%s", strerror(errno));
		return error_at(err, m->folder, 0), r;
	}
	while ((entry = readdir(dir))) {
		CLEANUP_FREE char *path = NULL;
		struct stat st;

		if (!is_manifest(entry->d_name))
			continue;
		path = xasprintf("%s/%s", m->folder, entry->d_name);
		if (!stat(path, &st) && !S_ISREG(st.st_mode))
			continue;
		if (n == MAX_FILES) {
			r = error_set(err, -EFBIG, NULL, "give a folder of its own",
				"more than %d manifest files", MAX_FILES);
			error_at(err, m->folder, 0);
			break;
		}
		*VEC_ADD(list, n, cap) = TAKE_PTR(path);
	}
	closedir(dir);
	if (r) {
		free_texts(list, n);
		return r;
	}
	if (n)
		qsort(list, n, sizeof(*list), by_name);
	*ret = list;
	*ret_n = n;
	return 0;
}

static void say_skipped(struct manifest_source *m)
{
	struct error err = {0};

	if (!m->skipped)
		return;
	error_set(&err, -EOPNOTSUPP, NULL, NULL,
		"%zu objects of other kinds are left out (%s): Node, Service and EndpointSlice are used",
		m->skipped, m->skipped_kinds);
	error_at(&err, m->path, 0);
	problem(m, SOURCE_FAILURES, &err);
}

/* What a file had that cannot be read now counts as read, unless another file has it. */
static void keep_file(struct manifest_source *m, const char *file)
{
	struct origin *o;

	RB_FOREACH(o, origin_tree, &m->origins)
	if (o->load != m->load && !strcmp(o->file, file) &&
		cluster_relist_keep(m->cluster, o->kind, o->namespace, o->name))
		o->load = m->load;
}

static void finish(struct manifest_source *m, bool complete)
{
	struct origin *o, *next;
	bool synced = cluster_all_synced(m->cluster);

	for (int kind = 0; kind < OBJECT_KINDS; kind++) {
		if (!cluster_watched(m->cluster, kind))
			continue;
		/* Nothing may be taken for absent before all was read once. */
		if (complete || synced)
			cluster_relist_end(m->cluster, kind);
		else
			cluster_relist_abort(m->cluster, kind);
	}
	if (complete || synced)
		for (o = RB_MIN(origin_tree, &m->origins); o; o = next) {
			next = RB_NEXT(origin_tree, &m->origins, o);
			if (o->load != m->load)
				origin_drop(m, o);
		}
}

static double wall_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void load(struct manifest_source *m)
{
	bool complete = true;
	struct error err = {0};
	char **files;
	size_t n;

	m->said = m->problems;
	m->n_said = m->n_problems;
	m->problems = NULL;
	m->n_problems = m->cap_problems = 0;
	m->problem[0] = '\0';
	m->skipped = 0;
	m->skipped_kinds[0] = '\0';
	if (list_files(m, &files, &n, &err)) {
		problem(m, SOURCE_FAILURE_FILE, &err);
	} else {
		CLEANUP_FREE bool *failed = xcalloc(n, sizeof(*failed));

		m->load++;
		for (int kind = 0; kind < OBJECT_KINDS; kind++)
			if (cluster_watched(m->cluster, kind))
				cluster_relist_begin(m->cluster, kind);
		for (size_t i = 0; i < n; i++)
			failed[i] = !read_file(m, files[i]);
		for (size_t i = 0; i < n; i++)
			if (failed[i]) {
				keep_file(m, files[i]);
				complete = false;
			}
		say_skipped(m);
		finish(m, complete);
		free_texts(files, n);
		m->last_load = wall_clock();
	}
	free_texts(m->said, m->n_said);
	m->said = NULL;
	m->n_said = 0;
	if (m->generation != cluster_generation(m->cluster) ||
		m->told_synced != cluster_all_synced(m->cluster)) {
		m->generation = cluster_generation(m->cluster);
		m->told_synced = cluster_all_synced(m->cluster);
		if (m->cb.changed)
			m->cb.changed(m->cb.arg);
	}
}

static void schedule(struct manifest_source *m, int ms)
{
	struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	evtimer_add(m->timer, &tv);
}

static bool watch_folder(struct manifest_source *m)
{
	if (m->watch < 0)
		m->watch = inotify_add_watch(m->inotify, m->folder,
			IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ATTRIB |
				IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR);
	return m->watch >= 0;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct manifest_source *m = arg;

	(void)fd;
	(void)what;
	m->postponed = 0;
	/* Watch first: what changes while it is read is read again. */
	if (!watch_folder(m))
		schedule(m, MISSING_MS);
	load(m);
}

/* A ConfigMap's files are links into "..data", which is what changes. */
static bool concerns(const struct manifest_source *m, const struct inotify_event *e)
{
	const char *base = strrchr(m->path, '/');

	if (!e->len || !strncmp(e->name, "..", 2))
		return true;
	return m->single ? !strcmp(e->name, base ? base + 1 : m->path) : is_manifest(e->name);
}

static void on_inotify(evutil_socket_t fd, short what, void *arg)
{
	struct manifest_source *m = arg;
	char buf[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	bool again = false;
	ssize_t n;

	(void)what;
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (char *p = buf; p + sizeof(struct inotify_event) <= buf + n;) {
			const struct inotify_event *e = (const struct inotify_event *)p;

			if (e->mask & (IN_IGNORED | IN_MOVE_SELF) && e->wd == m->watch) {
				if (e->mask & IN_MOVE_SELF)
					inotify_rm_watch(m->inotify, m->watch);
				m->watch = -1;
			}
			again |= concerns(m, e);
			p += sizeof(*e) + e->len;
		}
	}
	/* Every event begins the wait anew, within reason: somebody may write all the time. */
	if (again && m->postponed++ < 10)
		schedule(m, DEBOUNCE_MS);
}

static void manifest_status(const struct source *s, struct source_status *ret)
{
	const struct manifest_source *m = (const struct manifest_source *)s;

	ret->kind = "manifests";
	snprintf(ret->location, sizeof(ret->location), "%s", m->path);
	for (int kind = 0; kind < OBJECT_KINDS; kind++) {
		struct source_resource_status *r = &ret->resources[kind];

		r->watched = cluster_watched(m->cluster, kind);
		r->synced = cluster_synced(m->cluster, kind);
		r->lists = m->load;
		r->events = m->objects[kind];
		r->last_event = m->last_load;
		memcpy(r->problem, m->problem, sizeof(r->problem));
	}
	memcpy(ret->failures, m->failures, sizeof(ret->failures));
	ret->bytes_received = m->bytes;
}

static void manifest_free(struct source *s)
{
	struct manifest_source *m = (struct manifest_source *)s;
	struct origin *o;

	if (m->readable)
		event_free(m->readable);
	if (m->timer)
		event_free(m->timer);
	if (m->inotify >= 0)
		close(m->inotify);
	while ((o = RB_MIN(origin_tree, &m->origins)))
		origin_drop(m, o);
	free_texts(m->problems, m->n_problems);
	free(m->path);
	free(m->folder);
	free(m);
}

static const struct source_ops manifest_ops = {.status = manifest_status, .free = manifest_free};

int manifest_source_new(struct event_base *base, struct cluster *cluster, const char *path,
	const struct source_callbacks *cb, struct source **ret, struct error *err)
{
	struct manifest_source *m;
	struct stat st;
	char *slash;
	int r;

	*ret = NULL;
	if (stat(path, &st)) {
		r = error_set(err, -errno, NULL, "give a YAML or JSON file or a folder of them", "%s",
			strerror(errno));
		return error_at(err, path, 0), r;
	}
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
		r = error_set(err, -EINVAL, NULL, "give a YAML or JSON file or a folder of them",
			"neither a regular file nor a folder");
		return error_at(err, path, 0), r;
	}
	m = xcalloc(1, sizeof(*m));
	m->source.ops = &manifest_ops;
	m->cluster = cluster;
	m->cb = *cb;
	m->path = xstrdup(path);
	while (m->path[1] && m->path[strlen(m->path) - 1] == '/')
		m->path[strlen(m->path) - 1] = '\0';
	m->single = !S_ISDIR(st.st_mode);
	m->folder = xstrdup(m->path);
	if (m->single) {
		slash = strrchr(m->folder, '/');
		if (slash)
			slash[slash == m->folder] = '\0';
		else
			strcpy(m->folder, *m->folder ? "." : "");
	}
	m->generation = cluster_generation(cluster);
	m->watch = -1;
	m->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (m->inotify < 0) {
		r = error_set(err, -errno, NULL, "raise fs.inotify.max_user_instances", "inotify: %s",
			strerror(errno));
		manifest_free(&m->source);
		return r;
	}
	m->readable = event_new(base, m->inotify, EV_READ | EV_PERSIST, on_inotify, m);
	m->timer = evtimer_new(base, on_timer, m);
	if (!m->readable || !m->timer || event_add(m->readable, NULL)) {
		r = error_set(err, -ENOMEM, NULL, NULL, "libevent takes no more events");
		manifest_free(&m->source);
		return r;
	}
	schedule(m, 0);
	*ret = &m->source;
	return 0;
}
