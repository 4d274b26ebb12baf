/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/config_file.h"

#include "base/mem.h"
#include "base/strbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_FILE_MAX (1024 * 1024)

struct config_file {
	char *path;
	int fd;
	char *text; /* as last read; NULL: not yet */
	size_t len;
};

static int read_text(const char *path, char **ret, size_t *ret_len, struct error *err)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct strbuf text = {0};
	char buf[4096];
	ssize_t n;

	if (fd < 0)
		return error_set(err, -errno, path, NULL, "cannot be opened: %s", strerror(errno));
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		strbuf_add(&text, buf, (size_t)n);
		if (text.len > CONFIG_FILE_MAX) {
			strbuf_done(&text);
			return error_set(err, -EFBIG, path, NULL, "is larger than 1 MiB");
		}
	}
	if (n < 0) {
		int code = -errno;

		strbuf_done(&text);
		return error_set(err, code, path, NULL, "cannot be read: %s", strerror(-code));
	}
	*ret_len = text.len;
	*ret = strbuf_steal(&text);
	return 0;
}

int config_file_open(const char *path, struct config_file **ret, struct error *err)
{
	CLEANUP_FREE char *folder = xstrdup(path);
	char *slash = strrchr(folder, '/');
	struct config_file *f;
	int code;

	*ret = NULL;
	if (slash == folder)
		slash[1] = '\0';
	else if (slash)
		*slash = '\0';
	f = xcalloc(1, sizeof(*f));
	f->path = xstrdup(path);
	f->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (f->fd < 0 || inotify_add_watch(f->fd, slash ? folder : ".",
				 IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_ONLYDIR) < 0) {
		code = -errno;
		config_file_close(f);
		return error_set(err, code, path,
			code == -EMFILE ? "raise fs.inotify.max_user_instances" : NULL,
			"its folder cannot be watched: %s", strerror(-code));
	}
	/* What was loaded at start is the state to compare with. */
	if (read_text(path, &f->text, &f->len, NULL) < 0)
		f->text = NULL;
	*ret = f;
	return 0;
}

int config_file_fd(const struct config_file *f)
{
	return f->fd;
}

/* Drains the descriptor. Whether something is finished: of a new file the creation comes first, while it is
 * empty or half written, and its closing is an event of its own; a new link is whole at once. */
static bool is_finished(struct config_file *f)
{
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	uint32_t seen = 0;
	struct stat st;
	ssize_t n;

	while ((n = read(f->fd, buf, sizeof(buf))) > 0) {
		for (char *p = buf; p + sizeof(struct inotify_event) <= buf + n;) {
			const struct inotify_event *e = (const struct inotify_event *)p;

			seen |= e->mask;
			p += sizeof(*e) + e->len;
		}
	}
	return (seen & ~(uint32_t)IN_CREATE) || lstat(f->path, &st) < 0 || !S_ISREG(st.st_mode);
}

int config_file_read(struct config_file *f, bool force, struct config *ret, struct string_list *warnings,
	struct error *err)
{
	bool finished = is_finished(f);
	char *text;
	size_t len;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (!finished && !force)
		return 0;
	r = read_text(f->path, &text, &len, err);
	/* Between the two halves of a swap there may be no file; the second half is another event. */
	if (r == -ENOENT && !force)
		return 0;
	if (r < 0) {
		/* So that the same text is news once it can be read: the error is over then. */
		free(TAKE_PTR(f->text));
		return r;
	}
	if (!force && f->text && len == f->len && !memcmp(text, f->text, len)) {
		free(text);
		return 0;
	}
	free(f->text);
	f->text = text;
	f->len = len;
	r = config_parse(f->path, text, len, ret, warnings, err);
	return r < 0 ? r : 1;
}

void config_file_close(struct config_file *f)
{
	if (!f)
		return;
	if (f->fd >= 0)
		close(f->fd);
	free(f->text);
	free(f->path);
	free(f);
}
