/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_EXEC_PLUGIN_H
#define K8S_EXEC_PLUGIN_H

#include "base/error.h"
#include "k8s/kubeconfig.h"

#include <stdint.h>

/*
 * exec_plugin: one run of a kubeconfig's credential program (client.authentication.k8s.io/v1 and v1beta1,
 * https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins).
 *
 * The program runs beside the loop, in a process group of its own, with /dev/null as its input and
 * KUBERNETES_EXEC_INFO in its environment ("interactive" is false). What it prints is read up to a ceiling, and the
 * text and the strings read from it are overwritten afterwards. Nothing of its output gets into an error; of what it says on stderr the last line
 * does, without what looks like a credential.
 */
#define EXEC_PLUGIN_LIMIT_MS 60000

struct exec_credential {
	char *token; /* or NULL */
	char *cert;  /* PEM, with 'key', or NULL */
	char *key;
	int64_t expires; /* Unix time in seconds, 0: it does not say */
};
/* Overwrites and frees. */
void exec_credential_done(struct exec_credential *c);

/*
 * 'rc' 0: 'credential' may be taken out, what is left there is freed; else it is NULL and 'err' says why. Comes
 * from the loop; the handle is gone by then.
 */
typedef void exec_plugin_done(void *arg, int rc, struct exec_credential *credential, const struct error *err);

struct event_base;
struct exec_plugin;
/*
 * Starts 'k->exec'. 'ca': the PEM that the API server is checked with, for a program that asks for it; NULL:
 * none. Fails, without calling 'done', when the program cannot be started.
 */
int exec_plugin_start(struct event_base *base, const struct kubeconfig *k, const char *ca, unsigned limit_ms,
	exec_plugin_done *done, void *arg, struct exec_plugin **ret, struct error *err);
/* Ends it without a call of 'done'. */
void exec_plugin_free(struct exec_plugin *p);

/* What a program printed, 'len' bytes. Separate for the tests. */
int exec_plugin_parse(const struct kubeconfig_exec *exec, const char *text, size_t len,
	struct exec_credential *ret, struct error *err);

#endif
