/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/mem.h"
#include "k8s/kubeconfig.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

/* What a kubeconfig gives is what its header promises, or an error with a line and nothing else. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool so)
{
	if (!so)
		abort();
}

/* One PEM, inline or as a file; or none. */
static void check_file(const struct kubeconfig_file *f)
{
	require(!f->path || !f->data);
	require((f->path || f->data) == (f->where != NULL));
	require(!f->path || f->path[0]);
	require(!f->data || !f->data[f->len]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kubeconfig k, zero = {0};
	struct error err = {0};
	char path[64];
	int fd = memfd_create("kubeconfig", MFD_CLOEXEC);

	require(fd >= 0);
	require(write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	memset(&k, 0xff, sizeof(k));
	if (kubeconfig_find(path, &k, &err)) {
		require(!memcmp(&k, &zero, sizeof(k)));
		require(err.code < 0 && err.what[0] && (err.where[0] || err.object[0]));
	} else {
		size_t len = strlen(k.server);

		require(!err.code && k.origin && k.server_where);
		require(!strncasecmp(k.server, "https://", 8) || !strncasecmp(k.server, "http://", 7));
		require(len > strlen("http://") && k.server[len - 1] != '/');
		check_file(&k.ca);
		check_file(&k.cert);
		check_file(&k.key);
		require(!k.cert.where == !k.key.where);
		kubeconfig_done(&k);
		require(!memcmp(&k, &zero, sizeof(k)));
	}
	close(fd);
	return 0;
}
