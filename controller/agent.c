/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/agent.h"

#include "base/log.h"
#include "base/mem.h"
#include "datapath/kernel_advisories.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MS UINT64_C(1000)
#define SECOND (1000 * MS)

#define DELAY (2 * MS)
#define FACTS_DELAY (30 * MS)
#define FEATURES_DELAY (100 * MS)
#define GAP_MIN (10 * MS)
#define GAP_MAX (100 * MS)
#define GAP_FACTOR 10
#define REPAIR_GAP (500 * MS)
#define PROBE_GAP (10 * SECOND)
#define PROBE_AGAIN (60 * SECOND)
#define RETRY_MIN (1 * SECOND)
#define DEVICE_RETRY_MIN (5 * SECOND)
#define RETRY_MAX (60 * SECOND)
#define VERIFY_PERIOD (60 * SECOND)
#define MINUTE (60 * SECOND)
#define REPAIRS_SAID 10 /* per minute */

const char *const sync_outcome_names[SYNC_OUTCOMES] = {
	[SYNC_CHANGED] = "changed",
	[SYNC_UNCHANGED] = "unchanged",
	[SYNC_FAILED] = "failed",
};

const char *const sync_failure_names[SYNC_FAILURES] = {
	[SYNC_FAILURE_FACTS] = "facts",
	[SYNC_FAILURE_PROBE] = "probe",
	[SYNC_FAILURE_PERMISSION] = "permission",
	[SYNC_FAILURE_CONFLICT] = "conflict",
	[SYNC_FAILURE_MEMORY] = "memory",
	[SYNC_FAILURE_UNSUPPORTED] = "unsupported",
	[SYNC_FAILURE_OTHER] = "other",
};

const double sync_bucket_seconds[SYNC_BUCKETS] = {
	0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1};

static uint64_t now(const struct agent *a)
{
	return a->edges.now(a->edges.arg);
}

static uint64_t max_u64(uint64_t x, uint64_t y)
{
	return x > y ? x : y;
}

/* The earlier of what was noted before and 'at' counts: a stream of inputs does not put off the step. */
static void note_at(struct agent *a, enum agent_input input, uint64_t at)
{
	if (!a->due[input] || at < a->due[input])
		a->due[input] = at;
}

static uint64_t backoff(unsigned tries, uint64_t min)
{
	uint64_t delay = min << (tries < 6 ? tries : 6);

	return delay < RETRY_MAX ? delay : RETRY_MAX;
}

void agent_init(struct agent *a, const char *node, struct config *config, struct cluster *cluster,
	struct backend *backend, const struct agent_edges *edges)
{
	struct cluster_observer observer;

	memset(a, 0, sizeof(*a));
	a->node = xstrdup(node);
	a->config = *config;
	memset(config, 0, sizeof(*config));
	a->cluster = cluster;
	a->backend = backend;
	a->edges = *edges;
	a->gap = GAP_MIN;
	a->planner = planner_new(cluster, node);
	a->plan = planner_plan(a->planner);
	observer = planner_observer(a->planner);
	cluster_observe(cluster, &observer);
	a->plan_needed = a->base_changed = true;
	note_at(a, AGENT_FACTS, now(a));
	note_at(a, AGENT_FEATURES, now(a));
}

void agent_done(struct agent *a)
{
	if (a->cluster)
		cluster_unobserve(a->cluster, a->planner);
	planner_free(a->planner);
	ruleset_delta_done(&a->delta);
	facts_done(&a->facts);
	config_done(&a->config);
	free(a->failed_text);
	free(a->node);
	memset(a, 0, sizeof(*a));
}

void agent_note(struct agent *a, enum agent_input input)
{
	uint64_t at = now(a) + DELAY;

	if (input == AGENT_FACTS)
		at = now(a) + FACTS_DELAY;
	else if (input == AGENT_FEATURES)
		at = max_u64(now(a) + FEATURES_DELAY, a->last_probe + PROBE_GAP);
	else if (input == AGENT_TOUCHED)
		at = max_u64(at, max_u64(a->last_repair, a->last_failure) + REPAIR_GAP);
	note_at(a, input, at);
}

void agent_touched(struct agent *a, const char *who)
{
	actors_add(a->actor, who);
	agent_note(a, AGENT_TOUCHED);
}

void agent_set_waiting(struct agent *a, bool waiting)
{
	if (a->waiting == waiting)
		return;
	a->waiting = waiting;
	if (waiting)
		return;
	/* What was done to the table so far was the other one's affair. */
	a->touched = false;
	a->actor[0] = '\0';
	a->sync_needed = true;
	if (a->backend)
		backend_forget(a->backend);
	agent_note(a, AGENT_RETRY);
}

bool agent_does_its_work(const struct agent *a)
{
	return a->ready || (a->waiting && a->planned);
}

void agent_set_config(struct agent *a, struct config *config)
{
	config_done(&a->config);
	a->config = *config;
	memset(config, 0, sizeof(*config));
	a->figures.reloads++;
	a->figures.config_error[0] = '\0';
	a->base_changed = true; /* a step before that is due plans with it, too */
	agent_note(a, AGENT_CONFIG);
}

void agent_config_failed(struct agent *a, const struct error *err)
{
	a->figures.reloads_failed++;
	snprintf(a->figures.config_error, sizeof(a->figures.config_error), "%s", error_text(err));
	log_error("%s; the configuration in use stays", a->figures.config_error);
}

int64_t agent_wait(const struct agent *a)
{
	uint64_t at = 0, t = now(a);

	for (size_t i = 0; i < AGENT_INPUTS; i++)
		if (a->due[i] && (!at || a->due[i] < at))
			at = a->due[i];
	if (!at)
		return -1;
	if (a->last_end)
		at = max_u64(at, a->last_end + a->gap);
	return at > t ? (int64_t)(at - t) : 0;
}

static enum sync_failure failure_of(int code)
{
	switch (-code) {
	case EPERM:
	case EACCES:
		return SYNC_FAILURE_PERMISSION;
	case EEXIST:
	case EBUSY:
		return SYNC_FAILURE_CONFLICT;
	case ENOMEM:
	case ENOBUFS:
	case EMSGSIZE:
	case ENOSPC:
		return SYNC_FAILURE_MEMORY;
	case ENOENT:
	case EOPNOTSUPP:
	case EPROTONOSUPPORT:
	case EAFNOSUPPORT:
		return SYNC_FAILURE_UNSUPPORTED;
	}
	return SYNC_FAILURE_OTHER;
}

/* Counts a failure, says it once per change of its text, and has 'input' noted again. Returns when that will be. */
static uint64_t record_failure(struct agent *a, enum sync_failure reason, const struct error *err,
	char present[AGENT_ERROR_SIZE], unsigned *tries, enum agent_input input)
{
	uint64_t delay = backoff((*tries)++, RETRY_MIN);
	const char *text = error_text(err);

	a->figures.failures[reason]++;
	if (strncmp(present, text, AGENT_ERROR_SIZE - 1)) {
		snprintf(present, AGENT_ERROR_SIZE, "%s", text);
		log_error("%s; what the kernel has stays, next try in %" PRIu64 " s", text, delay / SECOND);
	}
	note_at(a, input, now(a) + delay);
	return now(a) + delay;
}

/* Whether a link has another name than before; both are sorted by ifindex. */
static bool any_renamed(const struct link *old, size_t n, const struct facts *f)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++) {
		while (k < f->n_links && f->links[k].ifindex < old[i].ifindex)
			k++;
		if (k < f->n_links && f->links[k].ifindex == old[i].ifindex &&
			strcmp(f->links[k].name, old[i].name) != 0)
			return true;
	}
	return false;
}

/*
 * 1: changed, 0: equal, negative: failed and recorded.
 *
 * Up to Linux 6.15 a flowtable's hook follows its device when that is renamed: under its new name it may be in the flowtable
 * without having been asked for, and to remove the old name did nothing. So the kernel is looked at.
 */
static int refresh_facts(struct agent *a)
{
	CLEANUP_FREE struct link *old =
		a->facts.n_links ? xmemdup(a->facts.links, a->facts.n_links * sizeof(*old)) : NULL;
	size_t n = a->facts.n_links;
	struct error err = {0};
	int r = a->edges.refresh(a->edges.arg, &a->facts, &err);

	if (r < 0) {
		record_failure(
			a, SYNC_FAILURE_FACTS, &err, a->figures.facts_error, &a->facts_tries, AGENT_FACTS);
		return r;
	}
	a->figures.facts_error[0] = '\0';
	a->facts_tries = 0;
	a->have_facts = true;
	if (r && a->backend && any_renamed(old, n, &a->facts))
		backend_forget(a->backend);
	return r;
}

static void log_kernel(const struct facts *facts)
{
	struct kernel_advisory all[KERNEL_ADVISORIES_MAX];
	size_t n = kernel_advisories(facts->kernel, facts->kernel_version, all);

	for (size_t i = 0; i < n; i++)
		log_warning("kernel %s: %s %s: %s", facts->kernel, all[i].what, all[i].effect, all[i].mend);
}

static int probe_features(struct agent *a)
{
	struct features old = a->facts.features;
	bool kube_proxy_nftables = a->facts.kube_proxy_nftables;
	bool kube_proxy_iptables = a->facts.kube_proxy_iptables, notrack = a->facts.notrack;
	bool first = !a->have_features;
	const struct features *new = &a->facts.features;
	struct error err = {0};
	int r;

	a->last_probe = now(a);
	r = a->edges.probe(a->edges.arg, &a->facts, &err);
	if (r < 0) {
		record_failure(
			a, SYNC_FAILURE_PROBE, &err, a->figures.probe_error, &a->probe_tries, AGENT_FEATURES);
		return r;
	}
	a->figures.probe_error[0] = '\0';
	a->probe_tries = 0;
	a->have_features = true;
	if (first)
		log_kernel(&a->facts);
	if (!new->flowtable) {
		if (first || old.flowtable || strcmp(old.reason, new->reason))
			log_warning("this kernel cannot accelerate: %s; every packet takes the normal path",
				new->reason);
		note_at(a, AGENT_FEATURES, now(a) + PROBE_AGAIN);
	} else if (!first && !old.flowtable) {
		log_info("this kernel can accelerate now");
	}
	return old.nftables != new->nftables || old.flowtable != new->flowtable ||
	       old.flowtable_counter != new->flowtable_counter || strcmp(old.reason, new->reason) ||
	       kube_proxy_nftables != a->facts.kube_proxy_nftables ||
	       kube_proxy_iptables != a->facts.kube_proxy_iptables || notrack != a->facts.notrack;
}

static bool same_type(const struct plan_type *x, const struct plan_type *y)
{
	return x->engine == y->engine && !strcmp(x->reason, y->reason);
}

/* One line for all types that changed to the same; 'old' is NULL the first time. */
static void log_types(const struct plan_type *old, const struct plan_type *new)
{
	bool said[TRAFFIC_TYPES];

	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		said[i] = old && same_type(&old[i], &new[i]);
	for (size_t i = 0; i < TRAFFIC_TYPES; i++) {
		struct strbuf names = {0};

		for (size_t k = i; k < TRAFFIC_TYPES; k++) {
			if (said[k] || !same_type(&new[i], &new[k]))
				continue;
			strbuf_printf(&names, "%s%s", names.len ? ", " : "", traffic_type_names[k]);
			said[k] = true;
		}
		if (names.len)
			log_info("%s: %s (%s)", names.data, engine_names[new[i].engine], new[i].reason);
		strbuf_done(&names);
	}
}

static void update_plan(struct agent *a)
{
	struct plan_type types[TRAFFIC_TYPES];
	char kind_reason[sizeof(a->plan->kind_reason)];

	memcpy(types, a->plan->types, sizeof(types));
	memcpy(kind_reason, a->plan->kind_reason, sizeof(kind_reason));
	if (a->base_changed)
		planner_note(a->planner, &a->facts, &a->config);
	a->base_changed = false;
	planner_update(a->planner, &a->delta);
	if (!a->planned || strcmp(kind_reason, a->plan->kind_reason))
		log_info("cluster kind %s: %s", cluster_kind_names[a->plan->kind], a->plan->kind_reason);
	log_types(a->planned ? types : NULL, a->plan->types);
	a->planned = true;
	a->planned_generation = cluster_generation(a->cluster);
}

void agent_refresh(struct agent *a)
{
	if (a->planned)
		planner_refresh(a->planner);
}

/* Marks in the plan what the kernel refused, says it once per change, and tries again. */
static void record_devices(struct agent *a, const struct sync_result *result)
{
	struct strbuf names = {0};
	char *text;

	for (size_t i = 0; i < result->n_failed; i++) {
		const struct device_failure *f = &result->failed[i];

		strbuf_printf(&names, "%s%s: %s", i ? ", " : "", f->name, strerror(-f->code));
		planner_device_failed(a->planner, f->name, f->code);
	}
	text = strbuf_steal(&names);
	if (*text && (!a->failed_text || strcmp(text, a->failed_text)))
		log_warning("the flowtable does not take %s; their traffic takes the normal path", text);
	if (!*text && a->failed_text && *a->failed_text)
		log_info("the flowtable has all devices again");
	free(a->failed_text);
	a->failed_text = text;
	if (result->n_failed) {
		a->plan_needed = a->base_changed = true; /* which forgets the marks */
		note_at(a, AGENT_RETRY, now(a) + backoff(a->device_tries++, DEVICE_RETRY_MIN));
	} else {
		a->device_tries = 0;
	}
}

/* What came of flowtable.hardwareOffload: auto, said once per change. */
static void record_hardware(struct agent *a, const struct sync_result *result)
{
	struct agent_figures *f = &a->figures;

	if (f->hardware == result->hardware && !strcmp(f->hardware_reason, result->hardware_reason))
		return;
	if (result->hardware)
		log_info("the flowtable is offloaded to hardware");
	else if (result->hardware_reason[0])
		log_info("no hardware offload: %s; the flowtable works in software", result->hardware_reason);
	else if (f->hardware)
		log_info("the flowtable works in software again");
	f->hardware = result->hardware;
	snprintf(f->hardware_reason, sizeof(f->hardware_reason), "%s", result->hardware_reason);
}

static void record_duration(struct agent_figures *f, double seconds)
{
	f->last_duration = seconds;
	f->duration_sum += seconds;
	f->duration_count++;
	for (size_t i = 0; i < SYNC_BUCKETS; i++) {
		if (seconds <= sync_bucket_seconds[i]) {
			f->duration_buckets[i]++;
			return;
		}
	}
}

/* Takes from what was found what the plan itself changed. Returns whether anything is left. */
static bool without_own(const struct agent *a, unsigned found[REPAIR_KINDS])
{
	bool unknown = a->delta.unknown || a->delta_lost, any = false;
	size_t own[REPAIR_KINDS] = {0};

	own[REPAIR_DEVICE] = a->delta.add_devices.n + a->delta.remove_devices.n;
	for (size_t i = 0; i < RULESET_SETS; i++)
		own[REPAIR_ELEMENT] += a->delta.add[i].n + a->delta.remove[i].n;
	for (size_t i = 0; i < RULESET_CHAINS; i++)
		own[REPAIR_CHAIN] += a->delta.chains[i];
	/* Nothing else ever changes with the plan. */
	if (unknown)
		own[REPAIR_DEVICE] = own[REPAIR_ELEMENT] = own[REPAIR_CHAIN] = SIZE_MAX;
	for (size_t i = 0; i < REPAIR_KINDS; i++) {
		found[i] = found[i] > own[i] ? found[i] - (unsigned)own[i] : 0;
		any |= found[i] != 0;
	}
	return any;
}

static void say_repair(struct agent *a, const unsigned found[REPAIR_KINDS])
{
	struct strbuf what = {0};

	if (now(a) - a->said_since >= MINUTE) {
		if (a->repairs_unsaid)
			log_warning("table inet %s: %u more repairs in the minute before", RULESET_TABLE,
				a->repairs_unsaid);
		a->said_since = now(a);
		a->repairs_said = a->repairs_unsaid = 0;
	}
	if (a->repairs_said == REPAIRS_SAID) {
		a->repairs_unsaid++;
		return;
	}
	a->repairs_said++;
	for (size_t i = 0; i < REPAIR_KINDS; i++)
		if (found[i])
			strbuf_printf(&what, "%s%s %u", what.len ? ", " : "", repair_kind_names[i], found[i]);
	log_warning("table inet %s was changed by %s; repaired: %s", RULESET_TABLE,
		*a->actor ? a->actor : "somebody unknown", what.data);
	strbuf_done(&what);
}

static void record_repair(struct agent *a, const struct sync_result *result)
{
	struct agent_figures *f = &a->figures;
	unsigned found[REPAIR_KINDS];

	memcpy(found, result->found, sizeof(found));
	if (a->programmed && without_own(a, found)) {
		f->repairs++;
		for (size_t i = 0; i < REPAIR_KINDS; i++)
			f->repaired[i] += found[i] != 0;
		snprintf(f->last_actor, sizeof(f->last_actor), "%s", a->actor);
		a->last_repair = now(a);
		a->unnamed = !a->touched;
		say_repair(a, found);
	} else if (a->touched && a->unnamed && *a->actor) {
		/* A transaction of ours failed for what somebody had done before we were told of it. */
		snprintf(f->last_actor, sizeof(f->last_actor), "%s", a->actor);
		log_warning("the last change of table inet %s was made by %s", RULESET_TABLE, a->actor);
	}
	if (a->touched) {
		a->unnamed = a->touched = false;
		a->actor[0] = '\0';
	}
}

static void record_sync(struct agent *a, const struct sync_result *result, double seconds)
{
	struct agent_figures *f = &a->figures;

	record_duration(f, seconds);
	f->last_sync = a->edges.wall(a->edges.arg);
	f->syncs[result->messages ? SYNC_CHANGED : SYNC_UNCHANGED]++;
	f->messages += result->messages;
	if (!result->messages)
		return;
	f->last_change = f->last_sync;
	log_debug("synced: %u messages, %u elements added, %u removed, %u chains, %u devices added, "
		  "%u removed",
		result->messages, result->elements_added, result->elements_removed, result->chains_rewritten,
		result->devices_added, result->devices_removed);
}

static void record_success(struct agent *a, const struct sync_result *result)
{
	struct agent_figures *f = &a->figures;

	record_repair(a, result);
	a->programmed = a->plan->ruleset.present;
	a->delta_lost = false;
	if (result->created) {
		for (size_t i = 0; i < TRAFFIC_TYPES; i++) {
			a->inserts_base[i] += a->inserts_seen[i];
			a->inserts_seen[i] = 0;
		}
	}
	if (f->sync_error[0])
		log_info("the kernel is programmed again");
	f->sync_error[0] = '\0';
	a->sync_tries = 0;
	a->last_failure = a->retry_at = 0;
	if (!a->ready)
		log_info("ready: %zu devices, %zu pairs", a->plan->ruleset.n_devices,
			a->plan->ruleset.sets[SET_PAIRS].n);
	a->ready = true;
}

/*
 * A transaction that builds on what is no longer there fails as a whole (somebody flushed the ruleset), lost answers
 * leave open whether it was applied: looking settles both.
 */
static bool must_look(int code)
{
	return code == -ESTALE || code == -ENOENT || code == -EEXIST || code == -ENOBUFS;
}

/* What changed; or, where that is not enough to know, all of it: '*ret_looked' then. */
static int sync_backend(struct agent *a, struct sync_result *ret, bool *ret_looked, struct error *err)
{
	int r;

	*ret_looked = false;
	/* Nothing of ours can be in a kernel without nf_tables. */
	if (!a->backend || !a->facts.features.nftables)
		return 0;
	r = backend_apply(a->backend, &a->plan->ruleset, &a->delta, ret, err);
	if (must_look(r)) {
		sync_result_done(ret);
		memset(err, 0, sizeof(*err));
		planner_refresh(a->planner);
		r = backend_sync(a->backend, &a->plan->ruleset, ret, err);
		*ret_looked = true;
	}
	return r;
}

/* 'verify': nobody asked for it; where nothing differs it counts as no sync. */
static void sync_kernel(struct agent *a, uint64_t start, bool verify)
{
	struct sync_result result = {0};
	struct error err = {0};
	bool looked;
	int r;

	a->sync_needed = false;
	a->due[AGENT_RETRY] = 0;
	r = sync_backend(a, &result, &looked, &err);
	if (r < 0) {
		record_duration(&a->figures, (double)(now(a) - start) / SECOND);
		a->delta_lost = true;
		a->figures.syncs[SYNC_FAILED]++;
		a->sync_needed = true;
		a->figures.sync_failure = failure_of(r);
		a->last_failure = now(a);
		a->due[AGENT_VERIFY] = 0;
		a->retry_at = record_failure(
			a, a->figures.sync_failure, &err, a->figures.sync_error, &a->sync_tries, AGENT_RETRY);
	} else {
		if (!verify || result.messages)
			record_sync(a, &result, (double)(now(a) - start) / SECOND);
		record_success(a, &result);
		record_devices(a, &result);
		record_hardware(a, &result);
	}
	if (r >= 0 && looked) {
		a->figures.last_verified = a->edges.wall(a->edges.arg);
		a->due[AGENT_VERIFY] = a->programmed ? now(a) + VERIFY_PERIOD : 0;
	}
	ruleset_delta_clear(&a->delta);
	sync_result_done(&result);
}

/*
 * After a failure, whether this is a time to try again: its own, or 'news' that the kernel may answer otherwise. What was
 * refused may not be in a plan that changed; a cluster that changes all the time is no reason to try all the time.
 */
static bool may_sync(struct agent *a, uint64_t start, bool news)
{
	if (!a->retry_at || start >= a->retry_at || news)
		return true;
	if (ruleset_delta_empty(&a->delta))
		return false;
	if (start - a->last_failure >= RETRY_MIN)
		return true;
	a->retry_at = a->last_failure + RETRY_MIN;
	note_at(a, AGENT_RETRY, a->retry_at);
	return false;
}

/*
 * Nothing is programmed, and so nothing removed, before all that a ruleset is made of was read once.
 * EndpointSlices only tell warnings: an agent that may not read them does its work.
 */
static bool knows_enough(const struct cluster *c)
{
	return cluster_synced(c, OBJECT_NODE) && cluster_synced(c, OBJECT_SERVICE);
}

/* Brings the inputs in. Returns whether the kernel may answer otherwise than it did. */
static bool take_inputs(struct agent *a, const bool ripe[AGENT_INPUTS])
{
	bool news = ripe[AGENT_CONFIG] || ripe[AGENT_TOUCHED];

	if (ripe[AGENT_FEATURES] && probe_features(a) > 0)
		a->base_changed = news = true;
	if (ripe[AGENT_FACTS] && refresh_facts(a) > 0)
		a->base_changed = true;
	if (ripe[AGENT_CONFIG])
		a->base_changed = true;
	a->plan_needed |= a->base_changed;
	if (ripe[AGENT_CLUSTER] && (!a->planned || cluster_generation(a->cluster) != a->planned_generation))
		a->plan_needed = true;
	if (ripe[AGENT_TOUCHED])
		a->touched = a->sync_needed = true;
	if (a->backend && (ripe[AGENT_TOUCHED] || ripe[AGENT_VERIFY]))
		backend_forget(a->backend);
	return news;
}

static void sync_if_needed(struct agent *a, uint64_t start, bool news, bool verify)
{
	bool asked = a->plan_needed || a->sync_needed;

	if (a->plan_needed)
		update_plan(a);
	a->plan_needed = false;
	if (!asked && !verify)
		return;
	if (!a->waiting && may_sync(a, start, news))
		sync_kernel(a, start, !asked);
	else
		a->sync_needed = true;
}

void agent_step(struct agent *a)
{
	uint64_t start = now(a);
	bool ripe[AGENT_INPUTS];
	bool any = false, news;
	uint64_t cost;

	for (size_t i = 0; i < AGENT_INPUTS; i++) {
		ripe[i] = a->due[i] && a->due[i] <= start;
		any |= ripe[i];
		if (ripe[i])
			a->due[i] = 0;
	}
	if (!any)
		return;
	news = take_inputs(a, ripe);
	/* To remove what is there because the configuration says so takes no cluster. */
	if ((!a->config.enabled || knows_enough(a->cluster)) && a->have_facts && a->have_features)
		sync_if_needed(a, start, news, ripe[AGENT_VERIFY]);
	a->last_end = now(a);
	cost = a->last_end - start;
	a->gap = cost * GAP_FACTOR < GAP_MIN ? GAP_MIN : cost * GAP_FACTOR;
	if (a->gap > GAP_MAX)
		a->gap = GAP_MAX;
}

int agent_inserts(struct agent *a, struct error *err)
{
	uint64_t values[TRAFFIC_TYPES] = {0};
	int r;

	if (!a->backend || !a->ready)
		return 0;
	r = backend_inserts(a->backend, values, err);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	for (size_t i = 0; i < TRAFFIC_TYPES; i++) {
		if (values[i] < a->inserts_seen[i])
			a->inserts_base[i] += a->inserts_seen[i];
		a->inserts_seen[i] = values[i];
		a->figures.inserts[i] = a->inserts_base[i] + values[i];
	}
	return 0;
}
