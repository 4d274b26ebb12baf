/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "base/mem.h"
#include "base/strbuf.h"
#include "controller/agent.h"
#include "datapath/memory.h"
#include "k8s/api_resource.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * sim: slipstream without a kernel, a network and a clock, and with everything that can go wrong.
 *
 * Real are the API client's state machine (k8s/api_resource.h and what is below it), the replica, the agent, the planner
 * and the in-memory kernel. Around them is a world of this folder: an API server with resource versions, a log that is
 * compacted, pages, bookmarks, WatchList (server.c); connections that are cut, garbled, silent (client.c); a node whose
 * links, addresses and routes come and go, and its configuration (node.c); a kernel that refuses, forgets to answer, and
 * that others write to (kernel.c). One seed is one history: a scheduler (run.c) with virtual time draws who acts next. The
 * same seed gives the same history byte by byte: there is no other clock, no address and no hash order in it.
 *
 * A seed: faults and changes for some virtual minutes, with some kinds of faults and their rates drawn per seed; then the
 * faults end, and what the machines wait for by themselves (Retry-After, backoffs, the agent's verification) passes; then
 * some changes without any fault, one by one; then an hour in which nothing happens.
 *
 * What must hold (check.c):
 *
 *  1. Convergence. When the faults have ended and time has passed, the kernel holds exactly plan_make(what the server has,
 *     what the node has, the configuration), nothing is left to do but what is periodic, and the quiet hour sends no message.
 *     A change without a fault is in the kernel a second later.
 *  2. Nothing unasked. The desired state of an agent step is plan_make(replica, facts, configuration) as they are then.
 *     (a) The replica is never what the server was not: outside a relist it is exactly the server's state at the version
 *         that the client was told last; within one, or after one that failed, each object is as it was at some version
 *         since then, absent only if it was absent at one.
 *     (b) What a step adds to the kernel (table, element, device, rule) its desired state has; what it removes its desired
 *         state has not, whether its transactions succeed, fail or lose their answers.
 *     (c) After a step that succeeded the kernel holds exactly that step's desired state, except for devices that the
 *         step reported as refused (their answer may be lost), devices that changed since the facts were read, and what
 *         others did since the
 *         kernel was looked at. So whatever is there at any time was asked for by the last completed step or by one
 *         since, or somebody else put it there; and whatever all these ask for is there unless somebody else took it.
 *     (d) Nothing is sent before this process has listed Nodes and Services, except what removes the table because of
 *         `enabled: false`.
 *  3. The planner that is kept current equals plan_make() after every step; the delta that it reports is ruleset_diff() of
 *     its two rulesets.
 *  4. Nothing for nothing. A step in a world that did not change since the last one sends no message, and asks the backend
 *     only when it is told to look. Without a fault a step is one transaction, and one more for each device that goes,
 *     or two where some of them are gone before they are taken out.
 *  5. Patience and haste. No request before the Retry-After of the last answer has passed (at most 5 minutes), and never 12
 *     for one resource within a second, further pages aside; one lost answer of the kernel does not fail a
 *     step, nor does what others did before it; devices that are refused are tried again within 6 s.
 */
struct sim;

#define US_PER_MS UINT64_C(1000)
#define US_PER_S UINT64_C(1000000)

/* --- run.c: the scheduler, the dice, the trace --- */

/* Rates in per mille, drawn per seed; 0 in the calm phases. */
struct rates {
	unsigned api_status, api_cut, api_garble, api_hang, api_away, api_short_watch, api_error_event,
		api_lag, api_compact, kernel_message, kernel_dump, kernel_answer, kernel_commit, foreign,
		foreign_race, silent, kill, facts, probe, refuse;
};

unsigned draw(struct sim *s, unsigned n); /* in [0, n) */
bool chance(struct sim *s, unsigned per_mille);
uint64_t draw_us(struct sim *s, uint64_t from, uint64_t to);
void trace(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The first one counts: the seed ends. 'invariant': of the list above. */
void violated(struct sim *s, unsigned invariant, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* --- objects.c: API objects as small specifications --- */

#define OBJECTS_MAX 10 /* of each kind; number 0 of the Nodes is this node */

struct spec {
	bool present;
	bool bad;     /* its JSON is not what the schema says */
	uint8_t beat; /* what nobody keeps: a heartbeat */
	union {
		struct {
			uint8_t cidr4, cidr6; /* 0: none */
			uint8_t address4, address6, transport;
			bool antrea, disabled;
		} node;
		struct {
			uint8_t type; /* see objects.c */
			uint8_t ip4, ip6, balancer[2], external[2], n_ports, protocol[3], node_port[3];
			bool proxy_mode, excluded, other_proxy, external_local, internal_local;
		} service;
		struct {
			uint8_t service, type, n, address[3], state[3];
			bool headless;
		} slice;
	};
};

struct object; /* k8s/decode.h */
void spec_draw(struct sim *s, enum object_kind kind, unsigned i, struct spec *ret);
/* Whether a client that has the label selectors, and the field selector or not, sees it. */
bool spec_visible(enum object_kind kind, const struct spec *spec, bool field_selector);
void spec_name(enum object_kind kind, unsigned i, char namespace[16], char name[16]);
void spec_json(
	enum object_kind kind, unsigned i, const struct spec *spec, uint64_t version, struct strbuf *out);
void spec_put(enum object_kind kind, unsigned i, const struct spec *spec, struct cluster *c);
/* Of what the replica keeps of it. */
uint64_t spec_hash(enum object_kind kind, unsigned i, const struct spec *spec);
/* Hashes of all of the replica's objects of the kind by their number, 0: not there. False: one that never existed. */
bool replica_hashes(const struct cluster *c, enum object_kind kind, uint64_t ret[OBJECTS_MAX]);

/* --- server.c: the API server --- */

struct entry {
	uint64_t version;
	uint64_t hash;
	struct spec spec;
};

struct history {
	struct entry *items;
	size_t n, cap;
};

struct server {
	uint64_t version, compacted;
	struct history objects[OBJECT_KINDS][OBJECTS_MAX];
	bool paged, no_field_selector, no_watchlist, silent_watchlist, watchlist_error;
};

void server_start(struct sim *s);
void server_done(struct sim *s);
/* One change of one object, or a compaction. */
void server_change(struct sim *s);
/* Objects that cannot be read become ones that can. */
void server_mend(struct sim *s);
/* NULL: it did not exist then. */
const struct entry *server_at(const struct server *v, enum object_kind kind, unsigned i, uint64_t version);
struct cluster *server_truth(const struct server *v);

struct connection;
/* The answer to a request: status, headers, the beginning of the body. */
void server_answer(struct sim *s, struct connection *c);
/* Events since what a watch has brought; a bookmark when 'bookmark'. */
void server_push(struct sim *s, struct connection *c, bool bookmark);

/* --- client.c: the process, and what connects it --- */

/* From 'offset' of the body on the client has been told of 'version'. */
struct mark {
	size_t offset;
	uint64_t version;
	bool complete; /* and it is all there is of it */
};

struct connection {
	bool active;
	unsigned id; /* another one each time */
	enum object_kind kind;
	/* The request. */
	bool watch, initial_events, field_selector;
	bool version_given;
	uint64_t version; /* 0: "0" or, not given, "" */
	char cont[48];
	unsigned timeout_s;
	/* The answer. */
	unsigned status; /* 0: there is none */
	unsigned retry_after_s;
	struct strbuf body;
	size_t sent;
	size_t cut;  /* offset, SIZE_MAX: whole */
	bool polite; /* the cut looks like an end */
	bool headers, hang;
	uint64_t cursor;   /* watch: its body has all events until then */
	bool broken;       /* something in it is not what it should be */
	uint64_t at;       /* next thing to happen; 0: none */
	uint64_t ends;     /* watch: the server ends it */
	uint64_t bookmark; /* watch: next one */
	struct mark *marks;
	size_t n_marks, cap_marks, seen_marks;
};

/* What the client was told, by resource. */
struct view {
	bool synced, exact;
	bool field_selector; /* of the last list */
	uint64_t low;
	uint64_t not_before;   /* no request until then */
	uint64_t requests[12]; /* when the last ones were sent */
	unsigned n_requests;
};

struct client {
	bool alive, killed; /* 'killed': within a step; nothing of it reaches the kernel any more */
	bool answered;
	struct cluster *cluster;
	struct kubeconfig kubeconfig;
	struct api_resource resources[OBJECT_KINDS];
	struct connection connections[OBJECT_KINDS];
	struct view views[OBJECT_KINDS];
	struct agent agent;
	struct backend backend; /* passes on to the kernel's, checked */
	uint64_t restart;
};

void client_start(struct sim *s);
void client_stop(struct sim *s);
/* When the next of its own things is due, and that thing. 0: nothing. */
uint64_t client_due(struct sim *s, unsigned *ret_which);
void client_run(struct sim *s, unsigned which);
/* The server's objects have moved: watches bring it. */
void client_pushed(struct sim *s, enum object_kind kind);
/* No fault outlives this: what hangs is cut. */
void client_calm(struct sim *s);

/* --- node.c: links, addresses, routes; the configuration --- */

#define PODS_MAX 6

struct pod {
	bool present, up, v6;
	uint32_t ifindex, generation;
	unsigned address; /* last byte */
	char name[IFNAMSIZ];
};

struct node_world {
	enum { NODE_ROUTED, NODE_BRIDGE, NODE_ANTREA } shape;
	bool by_name; /* hooks are by name, and outlive their device (Linux 6.16) */
	bool eth1, eth1_default, bond, vlan, docker, no_default, no_v6, gateway_gone;
	bool kube_proxy, notrack, no_flowtable, no_nftables;
	unsigned policy_rules;
	uint32_t next_ifindex, bridge_ifindex, gateway_ifindex, eth1_ifindex, bond_ifindex, vlan_ifindex;
	struct pod pods[PODS_MAX];
	uint64_t changes;                       /* of devices */
	uint64_t facts_notice, features_notice; /* when the agent hears of it; 0: nothing new */
};

struct config_world {
	bool disabled, exclude_cidr, antrea, uplink_eth0, exclude_pod, no_accounting;
	unsigned off; /* types, as bits */
};

void node_start(struct sim *s);
void node_change(struct sim *s);
void node_facts(const struct sim *s, struct facts *ret);
void node_probe(const struct sim *s, struct facts *f);
void config_change(struct sim *s);
void config_make(const struct sim *s, struct config *ret);
/* Devices that the kernel refused are taken again. */
void node_calm(struct sim *s);
/* A device is refused for a while, or no more. */
void node_refuse(struct sim *s);

/* --- kernel.c: faults of the kernel, and what others do to it --- */

struct kernel_world {
	struct backend *backend; /* outlives processes */
	bool dirty;              /* others wrote since it was looked at last */
	bool dirty_again;        /* since it was looked at in this step */
	bool foreign_table;
	uint64_t notice;        /* when the agent hears of it; 0: nothing new */
	unsigned faults, races; /* in this step */
	bool lost;              /* the last fault was a lost answer */
};

void kernel_start(struct sim *s);
/* Somebody writes into our table, or instead of it. */
void kernel_edit(struct sim *s, bool silent);
void kernel_calm(struct sim *s);

/* --- check.c: what must hold --- */

struct checks {
	bool last_known;
	struct ruleset last;     /* desired state as the agent planned it last */
	struct ruleset before;   /* the kernel's, before the transaction */
	bool synced, refused;    /* the last step that asked the backend went well; with refused devices */
	uint64_t changes;        /* node_world.changes when the facts were read last */
	uint64_t synced_changes; /* ... before the last step that went well */
	/* Of this step. */
	struct {
		unsigned calls, transactions, devices_removed;
		bool asked;   /* the backend was told the delta */
		bool current; /* at its begin: the plan was made of what there is */
		bool idle;    /* nothing is known that would make it ask the backend */
		bool moved;   /* the desired state is another one, or was not known */
		bool failed, refused, fault_in_apply, dirty, facts_changed;
		bool was_synced, was_refused;
	} step;
};

void check_step_begin(struct sim *s);
void check_step_end(struct sim *s);
/* A request is about to be sent. */
void check_request(struct sim *s, const struct connection *c);
/* What the kernel holds now is what the next transaction starts from. */
void check_snapshot(struct sim *s);
/* Kernel and truth; 'when' is for words. */
void check_converged(struct sim *s, const char *when);
void check_new_process(struct sim *s);
void check_done(struct sim *s);
/* A backend that passes on to the kernel's. */
extern const struct backend_ops check_backend_ops;

struct sim {
	uint64_t seed, random, now; /* now: microseconds */
	bool verbose, failed;
	unsigned steps;
	struct rates rates;
	struct server server;
	struct client client;
	struct node_world node;
	struct config_world config;
	struct kernel_world kernel;
	struct checks checks;
};

extern struct sim *the_sim; /* for callbacks that have no argument of ours */

struct sim_result {
	bool failed;
	unsigned steps;
	double seconds; /* virtual */
};
/* Runs one seed; what failed is on standard output. */
void sim_run(uint64_t seed, bool verbose, struct sim_result *ret);

#endif
