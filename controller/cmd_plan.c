/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/cli.h"

#include "base/log.h"
#include "base/mem.h"
#include "controller/plan.h"
#include "controller/status.h"
#include "datapath/facts_watch.h"
#include "datapath/nft.h"
#include "k8s/source.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define API_TIMEOUT 30 /* seconds */
#define MANIFESTS_TIMEOUT 5
#define FACTS_FILE_MAX (64 * 1024 * 1024)

struct waiter {
	struct event_base *base;
	struct cluster *cluster;
	struct error last; /* problem of the source */
};

static void on_changed(void *arg)
{
	struct waiter *w = arg;

	if (cluster_all_synced(w->cluster))
		event_base_loopbreak(w->base);
}

static void on_problem(void *arg, const struct error *err)
{
	struct waiter *w = arg;

	w->last = *err;
	fprintf(stderr, "slipstream: warning: %s\n", error_text(err));
}

/* Runs the loop until the replica is complete. */
static int read_cluster(
	const struct cli_options *o, const struct config *config, struct cluster *cluster, struct error *err)
{
	struct waiter w = {.base = event_base_new(), .cluster = cluster};
	struct source_callbacks cb = {.changed = on_changed, .problem = on_problem, .arg = &w};
	struct api_options api = {
		.kubeconfig = o->kubeconfig,
		.endpoints = config->endpoints,
		.watchlist = config->watchlist,
	};
	struct timeval timeout = {.tv_sec = o->manifests ? MANIFESTS_TIMEOUT : API_TIMEOUT};
	struct source *source = NULL;
	int r;

	if (!w.base)
		abort();
	if (api.endpoints == ENDPOINTS_OFF)
		cluster_set_unwatched(cluster, OBJECT_ENDPOINT_SLICE);
	if (o->manifests)
		r = manifest_source_new(w.base, cluster, o->manifests, &cb, &source, err);
	else
		r = api_source_new(w.base, cluster, &api, &cb, &source, err);
	if (r == 0 && !cluster_all_synced(cluster)) {
		event_base_loopexit(w.base, &timeout);
		event_base_dispatch(w.base);
		if (!cluster_all_synced(cluster)) {
			r = error_set(err, -ETIMEDOUT, o->manifests ? o->manifests : "API server",
				w.last.code ? NULL : "is it reachable, and this the right kubeconfig?",
				"not all of the cluster could be read within %ld s%s%s", (long)timeout.tv_sec,
				w.last.code ? ": " : "", w.last.code ? error_text(&w.last) : "");
		}
	}
	if (source)
		source_free(source);
	event_base_free(w.base);
	return r;
}

static int read_facts_file(const char *path, struct facts *ret, struct error *err)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct strbuf text = {0};
	char buf[65536];
	ssize_t n;
	int r;

	if (fd < 0)
		return error_set(err, -errno, path, NULL, "cannot be opened: %s", strerror(errno));
	while ((n = read(fd, buf, sizeof(buf))) > 0 && text.len <= FACTS_FILE_MAX)
		strbuf_add(&text, buf, (size_t)n);
	if (n < 0)
		r = error_set(err, -errno, path, NULL, "cannot be read: %s", strerror(errno));
	else if (n > 0)
		r = error_set(err, -EFBIG, path, NULL, "is larger than 64 MiB");
	else
		r = facts_from_json(path, text.data ? text.data : "", text.len, ret, err);
	strbuf_done(&text);
	return r;
}

static int read_facts_live(struct facts *ret, struct error *err)
{
	struct error problem = {0};
	struct facts_watch *watch;
	struct utsname uts;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (uname(&uts) == 0) {
		snprintf(ret->kernel, sizeof(ret->kernel), "%s", uts.release);
		snprintf(ret->kernel_version, sizeof(ret->kernel_version), "%s", uts.version);
	}
	r = facts_watch_open(&watch, err);
	if (r < 0)
		return r;
	r = facts_watch_refresh(watch, ret, err);
	facts_watch_close(watch);
	if (r < 0)
		return r;
	r = nft_probe(ret, &problem);
	if (r == -EPERM || r == -EACCES) {
		fprintf(stderr, "slipstream: warning: %s; planning for a kernel that has flowtables\n",
			error_text(&problem));
		ret->features =
			(struct features){.nftables = true, .flowtable = true, .flowtable_counter = true};
		return 0;
	}
	if (r < 0)
		*err = problem;
	return r;
}

static int write_facts(const char *path, const struct facts *facts, struct error *err)
{
	CLEANUP_FREE char *json = facts_to_json(facts);
	FILE *out = fopen(path, "we");

	if (!out)
		return error_set(err, -errno, path, NULL, "cannot be written: %s", strerror(errno));
	fputs(json, out);
	if (ferror(out) | fclose(out))
		return error_set(err, -EIO, path, NULL, "cannot be written");
	return 0;
}

static void print_plan(
	const struct cli_options *o, const char *node, const struct plan *plan, const struct facts *facts)
{
	struct strbuf out = {0};

	for (size_t i = 0; i < plan->n_warnings; i++)
		fprintf(stderr, "slipstream: warning: %s: %s\n", plan->warnings[i].object,
			plan->warnings[i].text);
	if (plan->warnings_total > plan->n_warnings)
		fprintf(stderr, "slipstream: warning: and %zu more\n",
			plan->warnings_total - plan->n_warnings);
	if (!plan->ruleset.present)
		fprintf(stderr, "slipstream: warning: nothing is programmed: %s\n", plan->types[0].reason);
	if (o->json)
		status_plan_json(node, plan, facts, &out);
	else
		ruleset_print(&plan->ruleset, &out);
	fputs(out.data ? out.data : "", stdout);
	strbuf_done(&out);
}

int cmd_plan(const struct cli_options *o)
{
	CLEANUP_FREE char *node = NULL;
	struct cluster *cluster = NULL;
	struct facts facts = {0};
	struct error err = {0};
	struct config config;
	struct plan plan;
	int r, status = CLI_FAILED;
	bool guessed;

	if (cli_config(o, &config) != CLI_OK)
		return CLI_USAGE;
	log_setup(LOG_LEVEL_WARNING, LOG_FORMAT_TEXT);
	node = cli_node(o, &guessed, &err);
	if (!node)
		goto out;
	if (guessed)
		fprintf(stderr, "slipstream: warning: node %s by the host name (--node NAME for another)\n",
			node);
	r = o->facts ? read_facts_file(o->facts, &facts, &err) : read_facts_live(&facts, &err);
	if (r < 0)
		goto out;
	if (o->facts_out && write_facts(o->facts_out, &facts, &err) < 0)
		goto out;
	cluster = cluster_new();
	if (read_cluster(o, &config, cluster, &err) < 0)
		goto out;
	plan_make(&(struct plan_input){.cluster = cluster, .facts = &facts, .config = &config, .node = node},
		&plan);
	print_plan(o, node, &plan, &facts);
	plan_done(&plan);
	status = CLI_OK;
out:
	if (status != CLI_OK)
		cli_fail(status, &err);
	if (cluster)
		cluster_free(cluster);
	facts_done(&facts);
	config_done(&config);
	return status;
}
