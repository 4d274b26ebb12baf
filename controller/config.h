/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_CONFIG_H
#define CONTROLLER_CONFIG_H

#include "base/addr.h"
#include "base/error.h"
#include "base/log.h"
#include "datapath/ruleset.h"
#include "k8s/source.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * config: the configuration file as a value. Every key has a default; config_default() is a valid
 * configuration.
 *
 * Strict: an unknown or duplicate key, a value of a wrong type, a CIDR that is none: error with file:line and
 * the allowed values. A file that fails leaves '*ret' zeroed and the caller keeps what it had. Reference:
 * controller/README.md.
 */
#define CONFIG_API_VERSION "slipstream/v1alpha1"
#define CONFIG_KIND "Configuration"
/* As the address of `listen`: that of the node, which the pod's environment has as $HOST_IP (cli_listen_host()). */
#define CONFIG_LISTEN_NODE "node"

enum cluster_kind { CLUSTER_AUTO, CLUSTER_ANTREA, CLUSTER_KUBE_PROXY };
extern const char *const cluster_kind_names[]; /* "auto", "antrea", "kube-proxy" */

enum engine { ENGINE_AUTO, ENGINE_FLOWTABLE, ENGINE_REDIRECT, ENGINE_OFF };
extern const char *const engine_names[];

struct string_list {
	char **items;
	size_t n, cap;
};

struct prefix_list {
	struct prefix *items;
	size_t n, cap;
};

struct config {
	bool enabled;                          /* enabled: true */
	enum cluster_kind cluster;             /* cluster.kind: auto */
	struct prefix_list local_pod_cidrs;    /* cluster.localPodCIDRs: added to what is found */
	struct prefix_list remote_pod_cidrs;   /* cluster.remotePodCIDRs */
	enum engine engines[TRAFFIC_TYPES];    /* traffic.TYPE.engine: auto */
	struct string_list uplinks;            /* interfaces.uplinks: globs (fnmatch(3)); empty: found */
	struct string_list pods;               /* interfaces.pods */
	struct string_list exclude_interfaces; /* interfaces.exclude */
	struct prefix_list exclude_cidrs;      /* exclude.cidrs */
	bool accounting;                       /* flowtable.accounting: auto (true) | off */
	bool hardware_offload;                 /* flowtable.hardwareOffload: off (false) | auto */
	bool use_bad_kernel;                   /* flowtable.knownBadKernel: refuse (false) | use */
	enum endpoints_mode endpoints;         /* kubernetes.endpoints: auto | slices | endpoints | off */
	bool watchlist;                        /* kubernetes.initialList: gzip (false) | watchlist */
	char *listen_host; /* listen: 127.0.0.1:19500, without brackets; or CONFIG_LISTEN_NODE */
	unsigned listen_port;
	bool cleanup_on_exit;       /* onExit: keep | cleanup */
	enum log_level log_level;   /* log.level: error | warning | info | debug */
	enum log_format log_format; /* log.format: text | json */
};

void config_default(struct config *ret);
/* 'file' names it in errors. Warnings (a CIDR with host bits, overlapping CIDRs) are appended to 'warnings'
 * (may be NULL) as texts. */
int config_parse(const char *file, const char *text, size_t len, struct config *ret,
	struct string_list *warnings, struct error *err);
int config_load(const char *path, struct config *ret, struct string_list *warnings, struct error *err);
void config_done(struct config *c);

void string_list_add(struct string_list *l, const char *s);
void string_list_done(struct string_list *l);

#endif
