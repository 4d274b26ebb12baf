/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_CONFIG_FILE_H
#define CONTROLLER_CONFIG_FILE_H

#include "base/error.h"
#include "controller/config.h"

/*
 * config_file: the configuration file, watched through its folder, so that a ConfigMap mount, whose files are
 * links that Kubernetes swaps all at once, is seen as well as an editor that writes a new file.
 *
 * The descriptor (inotify(7)) becomes readable when something in the folder was written or moved in;
 * config_file_read() drains it.
 */
struct config_file;
/* The file need not be there any more. 'path' is copied. */
int config_file_open(const char *path, struct config_file **ret, struct error *err);
int config_file_fd(const struct config_file *f);
/*
 * 1: the text is another than at the last call and is a good configuration, now in '*ret' with its warnings
 * appended to 'warnings'; 0: as before; negative errno: it cannot be read or is refused, '*ret' zeroed. A
 * text that was refused is not refused again before it changes. 'force' parses it in any case.
 */
int config_file_read(struct config_file *f, bool force, struct config *ret, struct string_list *warnings,
	struct error *err);
void config_file_close(struct config_file *f);

#endif
