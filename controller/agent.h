/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef CONTROLLER_AGENT_H
#define CONTROLLER_AGENT_H

#include "controller/config.h"
#include "controller/planner.h"
#include "datapath/backend.h"

#include <stdint.h>

/*
 * agent: from "something may have changed" to a programmed kernel, without clock, descriptor or event loop.
 *
 * The loop (cmd_run.c) notes inputs with agent_note(), waits as long as agent_wait() says and calls
 * agent_step(), which refreshes what was noted, plans, syncs the backend once and records the outcome. With
 * nothing noted and nothing to repeat the next wake-up is a verification: 60 s after the last look at the kernel there is
 * another, while there shall be a table; it sends nothing unless something differs, of which nobody was told. Tests drive the same functions with a
 * clock of their own and the in-memory backend.
 *
 * Timing: an input after a quiet time waits 2 ms for its companions (facts: 30 ms, one pod makes a dozen
 * notifications); under churn the pause between two steps is ten times the cost of the last one, 10 to
 * 100 ms. A failed sync is repeated after 1, 2, 4 ... 60 s; before that only for what can matter to it: at once for
 * another configuration, other features of the kernel, and a table that somebody touched, a second after the failure for
 * a plan that changed. Refused devices are tried again after 5, 10 ... 60 s and with every change of the facts, a kernel
 * without flowtables is asked again after 60 s. Two repairs are at least 500 ms apart, two probes of the kernel 10 s.
 *
 * A repair is what a look at the kernel found other than it shall be, less what the plan changed since the last
 * sync. Ten per minute are logged; more are a number.
 *
 * Before all kinds of the cluster have synced once, nothing is sent to the backend, unless the configuration
 * says `enabled: false`: that is done at once.
 */
enum agent_input {
	AGENT_CLUSTER,  /* the replica moved */
	AGENT_FACTS,    /* links, addresses, routes may have changed */
	AGENT_FEATURES, /* tables of others came or went: probe the kernel */
	AGENT_CONFIG,   /* set by agent_set_config() */
	AGENT_TOUCHED,  /* set by agent_touched() */
	AGENT_RETRY,    /* set by the agent itself */
	AGENT_VERIFY,   /* likewise */
	AGENT_INPUTS
};

/* What the agent asks of the world. All are called from agent_step() only, except 'now'. */
struct agent_edges {
	uint64_t (*now)(void *arg); /* monotonic microseconds, never 0 */
	double (*wall)(void *arg);  /* Unix time, seconds */
	/* As facts_watch_refresh(): 1 changed, 0 equal, negative errno: 'f' unchanged. */
	int (*refresh)(void *arg, struct facts *f, struct error *err);
	/* As nft_probe(). */
	int (*probe)(void *arg, struct facts *f, struct error *err);
	void *arg;
};

enum sync_outcome { SYNC_CHANGED, SYNC_UNCHANGED, SYNC_FAILED, SYNC_OUTCOMES };
extern const char *const sync_outcome_names[SYNC_OUTCOMES];

enum sync_failure {
	SYNC_FAILURE_FACTS,       /* "facts": the kernel could not be read */
	SYNC_FAILURE_PROBE,       /* "probe": its features could not be found out */
	SYNC_FAILURE_PERMISSION,  /* "permission": EPERM, EACCES */
	SYNC_FAILURE_CONFLICT,    /* "conflict": EEXIST, EBUSY: somebody else's object is in the way */
	SYNC_FAILURE_MEMORY,      /* "memory": ENOMEM, ENOBUFS, EMSGSIZE, ENOSPC */
	SYNC_FAILURE_UNSUPPORTED, /* "unsupported": ENOENT, EOPNOTSUPP, EPROTONOSUPPORT, EAFNOSUPPORT */
	SYNC_FAILURE_OTHER,       /* "other" */
	SYNC_FAILURES
};
extern const char *const sync_failure_names[SYNC_FAILURES];

#define SYNC_BUCKETS 11
extern const double sync_bucket_seconds[SYNC_BUCKETS];

#define AGENT_ERROR_SIZE 1024

/* What metrics and status show; counted since the start of the process. */
struct agent_figures {
	uint64_t syncs[SYNC_OUTCOMES];
	uint64_t failures[SYNC_FAILURES];
	uint64_t duration_buckets[SYNC_BUCKETS]; /* not cumulative */
	uint64_t duration_count;
	double duration_sum;  /* seconds, planning included */
	double last_duration; /* seconds */
	double last_sync;     /* Unix time of the last one that did not fail, 0: none yet */
	double last_change;   /* Unix time of the last one that sent something */
	double last_verified; /* Unix time of the last look that found, or made, everything as it shall be; 0: none */
	uint64_t messages; /* nf_tables messages */
	uint64_t repairs;
	uint64_t repaired[REPAIR_KINDS]; /* repairs by what they put right; one may be of several kinds */
	char last_actor[ACTORS_SIZE];    /* who made the last repair necessary, "" unknown */
	uint64_t reloads, reloads_failed;
	bool hardware;            /* the flowtable is offloaded to hardware */
	char hardware_reason[96]; /* why not though asked for, "": it is, or nobody asked */
	/* Present failures as text, "" where there is none. */
	char sync_error[AGENT_ERROR_SIZE];
	enum sync_failure sync_failure; /* of 'sync_error' */
	char facts_error[AGENT_ERROR_SIZE];
	char probe_error[AGENT_ERROR_SIZE];
	char config_error[AGENT_ERROR_SIZE]; /* of the file that was refused, until a good one comes */
	uint64_t inserts[TRAFFIC_TYPES];     /* monotonic, see agent_inserts() */
};

struct agent {
	/* Borrowed. */
	struct cluster *cluster;
	struct backend *backend; /* NULL: this kernel has no nf_tables */
	struct agent_edges edges;
	/* Owned. */
	char *node;
	struct config config;
	struct facts facts;
	const struct plan *plan; /* of the planner; empty until 'planned', see agent_refresh() */
	struct agent_figures figures;
	bool planned;
	bool ready;   /* synced once */
	bool waiting; /* for another agent of this node to end: plans, and programs nothing */

	/* Private. */
	uint64_t due[AGENT_INPUTS]; /* 0: not noted */
	uint64_t last_end, gap, last_probe, last_repair, said_since;
	uint64_t last_failure, retry_at; /* of a sync; 0: the last one did not fail */
	uint64_t planned_generation;
	unsigned sync_tries, facts_tries, probe_tries, device_tries;
	unsigned repairs_said, repairs_unsaid; /* since 'said_since' */
	bool have_facts, have_features, plan_needed, sync_needed, touched;
	bool programmed; /* there is a table by the last sync that did not fail */
	bool delta_lost; /* what failed is no longer in 'delta' */
	bool unnamed;    /* the last repair, whose notification is still to come */
	struct planner *planner;
	bool base_changed;          /* facts, features or the configuration */
	struct ruleset_delta delta; /* of the plan since it was given to the backend */
	char actor[ACTORS_SIZE];
	char *failed_text; /* names of the refused devices */
	uint64_t inserts_seen[TRAFFIC_TYPES], inserts_base[TRAFFIC_TYPES];
};

/*
 * Takes over 'config', and notes facts and features, so that the first step reads both. 'cluster', which it
 * observes, and 'backend' must outlive the agent.
 */
void agent_init(struct agent *a, const char *node, struct config *config, struct cluster *cluster,
	struct backend *backend, const struct agent_edges *edges);
void agent_done(struct agent *a);

void agent_note(struct agent *a, enum agent_input input);
/* Somebody other than this process changed our table; 'who' is for the log. */
void agent_touched(struct agent *a, const char *who);
/* A new configuration, taken over; a file that was refused: the present configuration stays. */
void agent_set_config(struct agent *a, struct config *config);
void agent_config_failed(struct agent *a, const struct error *err);

/* Another agent has this node, or no longer has. Once it may program it does not wait again. */
void agent_set_waiting(struct agent *a, bool waiting);
/*
 * Whether this agent does what it is there for: the kernel was programmed, or it would be but for another agent. (A
 * rolling update may start the new one first, and ends the old one when the new one is ready.)
 */
bool agent_does_its_work(const struct agent *a);

/* Microseconds until agent_step() has something to do: 0 now, -1 nothing before the next input. */
int64_t agent_wait(const struct agent *a);
void agent_step(struct agent *a);

/* Brings all of 'plan' up to date, see planner_refresh(): before anybody reads sets or warnings. */
void agent_refresh(struct agent *a);

/*
 * Brings figures.inserts up to date from the backend's counters. They start again at 0 with the table; the
 * sums kept here do not: what was counted before the last reading stays.
 */
int agent_inserts(struct agent *a, struct error *err);

#endif
