/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_RULESET_H
#define DATAPATH_RULESET_H

#include "base/addr.h"
#include "base/strbuf.h"

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * ruleset: what the kernel shall hold, as a plain value.
 *
 * The planner builds one, a backend makes the kernel equal to it, `slipstream plan` prints it, tests compare
 * it. It owns its memory: ruleset_done() frees it, ruleset_copy() makes an independent copy. All of it is in
 * canonical order (sorted, without duplicates) once ruleset_normalize() ran, so that equal rulesets are equal
 * byte by byte.
 *
 * The programme (table inet slipstream):
 *
 * flowtable fastpath: hook ingress priority 0, 'devices', counter
 * counter TYPE: one named counter per traffic type: inserts of that type
 * set NAME: every set of enum ruleset_set, always all of them
 * chain forward: hook forward priority 300, behind every policy chain
 *   - iif . oif @pairs ct direction original meta mark 0 goto managed (accelerate, if managed is empty)
 *   - ct status dnat iif . oif @hairpins ct direction original meta mark 0 goto the same, while there are
 * hairpins chain managed: what must not be offloaded; each part only while there is a need for it
 *   - iif @checked-uplinks fib saddr . iif oif missing accept
 *   - EXCLUSION accept, for each
 *   - while any type is off: CLASS accept (off) or goto accelerate (on), in class order; the last ones are
 *     left out where they do what the chain's end does
 *   - goto accelerate, or accept if `other` is off
 * chain accelerate (`insert` and `offload` are words of nft's grammar and cannot name a chain):
 *   - meta l4proto tcp flow add @fastpath goto classify
 *   - meta l4proto udp ct state established flow add @fastpath goto classify
 * chain classify: CLASS counter name TYPE accept, for each, then counter name other
 * chain accounting: never reached; if 'accounting': ct packets 0 accept (turns nf_conntrack_acct on)
 *
 * Why so: measurements (front, order, classification behind the insert). `ct direction original` in the front
 * means that packet addresses behind it belong to the original direction of the connection, so they are
 * direction-independent facts of the flow; saddr is its original source, daddr its destination after DNAT.
 */
#define RULESET_TABLE "slipstream"
#define RULESET_FLOWTABLE "fastpath"
#define RULESET_FORWARD_PRIORITY 300
/*
 * Table comment: who owns it. A table is ours when this is the first word of its comment, whatever version made it; any
 * other is foreign. No version is in it: what is there is compared object by object and changed where it differs, so that
 * the flowtable, and its flows, outlive an upgrade and the way back.
 */
#define RULESET_COMMENT "slipstream"

enum traffic_type {
	TYPE_POD_TO_POD,
	TYPE_POD_TO_SERVICE,
	TYPE_EXTERNAL_TO_LOADBALANCER,
	TYPE_EXTERNAL_TO_EXTERNALIP,
	TYPE_EXTERNAL_TO_NODEPORT,
	TYPE_EXTERNAL_TO_SERVICE,
	TYPE_NODE_TO_POD,
	TYPE_POD_TO_EXTERNAL,
	TYPE_OTHER,
	TRAFFIC_TYPES
};
extern const char *const traffic_type_names[TRAFFIC_TYPES]; /* "pod-to-pod" ... */

enum set_kind {
	SET_KIND_PAIR,      /* iface_index . iface_index: two ifindexes */
	SET_KIND_INTERFACE, /* iface_index */
	SET_KIND_ADDR4,     /* ipv4_addr */
	SET_KIND_ADDR6,     /* ipv6_addr */
	SET_KIND_PREFIX4,   /* ipv4_addr, interval */
	SET_KIND_PREFIX6,   /* ipv6_addr, interval */
	SET_KIND_PORT,      /* inet_proto . inet_service: protocol and port */
};

enum ruleset_set {
	SET_PAIRS,    /* managed pairs (in, out): one side pod-side, the other an uplink */
	SET_HAIRPINS, /* pairs (in, out) of which only DNATed flows are managed: a bridge with itself, uplink
			 to uplink */
	SET_CHECKED_UPLINKS, /* uplinks that are not surely the way back to every source */
	SET_LOCAL_PODS4,
	SET_LOCAL_PODS6,
	SET_REMOTE_PODS4,
	SET_REMOTE_PODS6,
	SET_PEER_NODES4,
	SET_PEER_NODES6,
	SET_NODE_ADDRESSES4, /* own addresses on which NodePorts answer */
	SET_NODE_ADDRESSES6,
	SET_CLUSTER_IPS4,
	SET_CLUSTER_IPS6,
	SET_LOADBALANCER_IPS4,
	SET_LOADBALANCER_IPS6,
	SET_EXTERNAL_IPS4,
	SET_EXTERNAL_IPS6,
	SET_NODEPORTS,
	SET_EXCLUDED_IPS4, /* addresses of excluded Services (matched as original destination) */
	SET_EXCLUDED_IPS6,
	SET_EXCLUDED_NODEPORTS,
	SET_EXCLUDED_CIDRS4, /* exclude.cidrs of the configuration */
	SET_EXCLUDED_CIDRS6,
	RULESET_SETS
};

struct set_schema {
	const char *name; /* "pairs", "local-pods4", ... */
	enum set_kind kind;
};
extern const struct set_schema ruleset_set_schema[RULESET_SETS];

/*
 * One element. Key bytes, zero padded: PAIR two ifindexes and INTERFACE one, big endian here (host order in
 * the kernel); addresses in network order; PORT the protocol's number in byte 0, the port in network order in bytes 4 and 5.
 * 'prefix_len' is used by PREFIX kinds only, else 0. Order: memcmp of the struct.
 *
 * Why a port has its protocol in the key: the kernel keeps a set of bare ports as a bitmap, and finds the element to add or
 * to remove in a list (nft_bitmap_elem_find()), so that one change costs as much as there are ports.
 */
struct set_element {
	uint8_t key[16];
	uint8_t prefix_len;
};

struct element_list {
	struct set_element *items;
	size_t n, cap;
};

/* Expressions of rules. Each is one piece of nft text and one libnftnl expression sequence. */
enum rule_op {
	OP_PAIR_IN_SET,    /* iif . oif @SET */
	OP_IIF_IN_SET,     /* iif @SET */
	OP_ORIGINAL,       /* ct direction original */
	OP_UNMARKED,       /* meta mark 0 */
	OP_NO_WAY_BACK,    /* fib saddr . iif oif missing */
	OP_DNAT,           /* ct status dnat: destination was translated */
	OP_TCP,            /* meta l4proto tcp */
	OP_UDP,            /* meta l4proto udp */
	OP_ESTABLISHED,    /* ct state established */
	OP_SADDR,          /* ip[6] saddr @SET or VALUE */
	OP_DADDR,          /* ip[6] daddr @SET or VALUE */
	OP_ORIGINAL_DADDR, /* ct original ip[6] daddr @SET or VALUE */
	OP_ORIGINAL_PORT, /* meta l4proto . ct original proto-dst @SET (a PORT set); behind OP_TCP or OP_UDP, which nft asks for
			    */
	OP_PACKETS,  /* ct packets 0 */
	OP_FLOW_ADD, /* flow add @fastpath */
	OP_COUNT,    /* counter name TYPE */
	OP_GOTO,     /* goto CHAIN */
	OP_ACCEPT,   /* accept */
};

enum ruleset_chain {
	CHAIN_FORWARD,
	CHAIN_MANAGED,
	CHAIN_INSERT, /* "accelerate" */
	CHAIN_CLASSIFY,
	CHAIN_ACCOUNTING,
	RULESET_CHAINS
};
extern const char *const ruleset_chain_names[RULESET_CHAINS];

struct rule_expr {
	enum rule_op op;
	enum ruleset_set set;     /* ops with @SET, when 'value' has no family */
	struct addr value;        /* OP_*ADDR: one address instead of a set; family 0: use 'set' */
	enum traffic_type type;   /* OP_COUNT */
	enum ruleset_chain chain; /* OP_GOTO */
};

#define RULE_EXPRS_MAX 8
#define RULE_MATCHES_MAX 6 /* of a class or an exclusion: a counter and a verdict come behind */
struct rule {
	struct rule_expr exprs[RULE_EXPRS_MAX];
	size_t n;
};

struct rule_list {
	struct rule *items;
	size_t n, cap;
};

/* Matches of a class rule and the type it stands for; the first class that matches a flow names its type. */
struct class_rule {
	struct rule match; /* matching ops only; all must hold */
	enum traffic_type type;
};

struct device {
	char name[IFNAMSIZ];
	uint32_t ifindex;
	uint32_t generation; /* as of struct link: another one takes a hook of its own */
};

struct ruleset {
	bool present;           /* false: no table at all (acceleration disabled) */
	struct device *devices; /* of the flowtable, sorted by name */
	size_t n_devices, cap_devices;
	struct device *links; /* names of the ifindexes in the sets, sorted by ifindex: for printing only */
	size_t n_links, cap_links;
	struct element_list sets[RULESET_SETS];
	struct rule_list exclusions; /* matching ops only: flows that are not offloaded */
	struct class_rule *classes;  /* in order of precedence */
	size_t n_classes, cap_classes;
	bool off[TRAFFIC_TYPES];
	bool accounting;
	bool hardware_offload; /* where every device takes it: hardware_offload.h; not in the text */
};

void ruleset_done(struct ruleset *rs);
void ruleset_copy(const struct ruleset *from, struct ruleset *ret);
/* Sorts, drops duplicates and, in PREFIX sets, prefixes that another one covers (the kernel refuses overlaps,
 * -EEXIST). */
void ruleset_normalize(struct ruleset *rs);

void ruleset_add_device(struct ruleset *rs, const char *name, uint32_t ifindex);
void ruleset_add_link(struct ruleset *rs, const char *name, uint32_t ifindex);
void ruleset_add_pair(struct ruleset *rs, enum ruleset_set set, uint32_t in, uint32_t out);
void ruleset_add_interface(struct ruleset *rs, enum ruleset_set set, uint32_t ifindex);
void ruleset_add_port(struct ruleset *rs, enum ruleset_set set, uint8_t protocol, uint16_t port);
/*
 * 'set4' is the IPv4 member of a pair of sets; an IPv6 value goes to the next set (set4 + 1), no address
 * (family 0) nowhere. An address in a PREFIX set is its full-length prefix; a shorter prefix in a set of
 * addresses aborts.
 */
void ruleset_add_addr(struct ruleset *rs, enum ruleset_set set4, const struct addr *a);
void ruleset_add_prefix(struct ruleset *rs, enum ruleset_set set4, const struct prefix *p);
/* Appends a class (an exclusion) of at most RULE_MATCHES_MAX matches, more abort; 'exprs' are copied. */
void ruleset_add_class(struct ruleset *rs, enum traffic_type type, const struct rule_expr *exprs, size_t n);
void ruleset_add_exclusion(struct ruleset *rs, const struct rule_expr *exprs, size_t n);
/* The element that stands for an address in a set of addresses, for a port of IPPROTO_* in a PORT set. */
struct set_element element_of_addr(const struct addr *a);
struct set_element element_of_port(uint8_t protocol, uint16_t port);
/* Binary search in a normalized ruleset; in a PREFIX set: whether an element covers 'e'. */
bool ruleset_has(const struct ruleset *rs, enum ruleset_set set, const struct set_element *e);

/* The rules of one chain as the programme has them; none when not present. The caller frees ret->items. */
void ruleset_chain_rules(const struct ruleset *rs, enum ruleset_chain chain, struct rule_list *ret);

/*
 * nft text of the whole ruleset: `table inet slipstream { ... }` as nft 1.0.6 accepts it with -f; when not
 * present, the two lines that make sure that there is none. Interfaces by name, quoted; an ifindex without a
 * link of that name as a number; a device whose name has a quote, which nft cannot say, is left out.
 * Deterministic. Needs a normalized ruleset.
 */
void ruleset_print(const struct ruleset *rs, struct strbuf *out);
/* One rule or element as nft text, for messages. */
void rule_print(const struct rule *r, struct strbuf *out);
void element_print(
	const struct ruleset *rs, enum ruleset_set set, const struct set_element *e, struct strbuf *out);

/*
 * What differs, element by element: callback per difference (NULL: not wanted), devices first, then sets,
 * then chains. Both must be normalized. One that is not present counts as empty; that difference itself has
 * no callback. 'links' and how a chain came to its rules do not count.
 */
struct ruleset_diff_ops {
	void (*device)(void *arg, const struct device *d,
		bool add); /* same name, other ifindex or generation: add only */
	void (*element)(void *arg, enum ruleset_set set, const struct set_element *e,
		bool add);                                  /* removals of a set first */
	void (*chain)(void *arg, enum ruleset_chain chain); /* its rules differ */
	void *arg;
};
void ruleset_diff(const struct ruleset *from, const struct ruleset *to, const struct ruleset_diff_ops *ops);
/* Both present with nothing that differs, or both not present. */
bool ruleset_equal(const struct ruleset *a, const struct ruleset *b);

/*
 * What a ruleset differs in from an earlier version of itself, so that nobody has to compare two of them to send
 * one element. Elements are in canonical order, each set's removals and additions disjoint.
 */
struct device_list {
	struct device *items;
	size_t n, cap;
};

struct ruleset_delta {
	bool unknown; /* too much differs to be said: compare the rulesets; all below is empty then */
	struct device_list add_devices,
		remove_devices; /* same name, other ifindex or generation: in 'add' only */
	struct element_list add[RULESET_SETS], remove[RULESET_SETS];
	bool chains[RULESET_CHAINS]; /* their rules differ */
};
/* Empties it and keeps its memory; frees it. */
void ruleset_delta_clear(struct ruleset_delta *d);
void ruleset_delta_done(struct ruleset_delta *d);
bool ruleset_delta_empty(const struct ruleset_delta *d); /* false when unknown */
/* Adds what ruleset_diff() finds. */
void ruleset_delta_add(struct ruleset_delta *d, const struct ruleset *from, const struct ruleset *to);

/* A connection, as conntrack tells it; see datapath/conntrack.h. */
struct flow;
/*
 * The type that the kernel's classify chain counted this flow as: the same rules, evaluated on conntrack's
 * tuples. Conntrack tells no interfaces: a class that matches on them never holds here. Needs a normalized
 * ruleset.
 */
enum traffic_type ruleset_classify(const struct ruleset *rs, const struct flow *f);

#endif
