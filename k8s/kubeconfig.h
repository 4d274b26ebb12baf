/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_KUBECONFIG_H
#define K8S_KUBECONFIG_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * kubeconfig: where the API server is and how to be let in, from a kubeconfig file's current context or from
 * what a pod is given. Read once, at the start; what it names as files is read by credentials.h, again and
 * again.
 *
 * Read: current-context; cluster {server, certificate-authority(-data), insecure-skip-tls-verify,
 * tls-server-name, proxy-url, extensions for exec}; user {token, tokenFile, client-certificate(-data),
 * client-key(-data), exec}. As with client-go data wins over a file of the same kind, tokenFile over token,
 * and file names are relative to the folder of the kubeconfig that has them. auth-provider,
 * username/password, impersonation and exec programs that must be interactive are refused with the line that
 * has them; unknown keys are ignored, as other clients have more.
 */
struct kubeconfig_file { /* one PEM, inline or as a file; both empty: none */
	char *path;
	char *data;
	size_t len;
	char *where; /* "FILE:LINE" of the line that gives it, for errors */
};

/* users[].user.exec: a program that gives the credential (k8s/exec_plugin.h). 'command' NULL: none. */
struct kubeconfig_exec {
	char *command;
	char *api_version; /* client.authentication.k8s.io/v1 or v1beta1 */
	char **args;
	size_t n_args;
	char **env; /* NAME=VALUE */
	size_t n_env;
	char *install_hint; /* or NULL */
	bool provide_cluster_info;
	char *config; /* JSON that the cluster has for it, or NULL */
	char *where;  /* "FILE:LINE" */
};

struct kubeconfig {
	char *origin; /* "kubeconfig PATH" (that of the current context) or "in-cluster credentials", for messages */
	char *server;                /* http[s]://HOST[:PORT][/PATH], no trailing slash */
	char *server_where;          /* "FILE:LINE", or the environment variable */
	char *tls_server_name;       /* NULL: the server's host */
	char *proxy_url;             /* NULL: from the environment */
	bool insecure;               /* certificates are not checked */
	struct kubeconfig_file ca;   /* empty: the system's */
	struct kubeconfig_file cert; /* with 'key' or empty */
	struct kubeconfig_file key;
	char *token;
	char *token_file;            /* wins over 'token' */
	struct kubeconfig_exec exec; /* alone: no token and no client certificate beside it */
};

/*
 * Finds and reads: 'path' if not NULL, else $KUBECONFIG (of several files, with colons between, the first that has
 * a name or the current context wins, and those that are not there are passed over), else in-cluster credentials where
 * $KUBERNETES_SERVICE_HOST is set, else ~/.kube/config. In-cluster:
 * https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT, and token and ca.crt in
 * /var/run/secrets/kubernetes.io/serviceaccount or $SLIPSTREAM_SERVICEACCOUNT.
 *
 * On failure '*ret' is zeroed and 'err' names file and line: -ENOENT nothing found, -EINVAL bad content,
 * -ENOTSUP an authentication that is not supported, or what reading the file gave.
 */
int kubeconfig_find(const char *path, struct kubeconfig *ret, struct error *err);
void kubeconfig_done(struct kubeconfig *k);

#endif
