/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DATAPATH_FACTS_H
#define DATAPATH_FACTS_H

#include "base/addr.h"
#include "base/error.h"

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * facts: what this node's kernel says of itself, as a plain value: links, addresses, routes, policy rules,
 * features.
 *
 * The planner reads it; facts_watch (facts_watch.h) keeps it current; facts_to_json()/facts_from_json() save
 * it for planning elsewhere (`plan --facts-out`, `plan --facts`). Arrays are sorted (links by ifindex,
 * addresses by prefix, routes by destination, metric, next hop), so that equal states are equal byte by byte.
 */
struct link {
	uint32_t ifindex;
	char name[IFNAMSIZ];
	char kind[16]; /* IFLA_INFO_KIND: "bridge", "veth", "bond", "vlan", "vxlan", "openvswitch", ...; "":
			  none */
	char master_kind[16]; /* IFLA_INFO_SLAVE_KIND: kind of the master, "bridge", "bond", "openvswitch",
				 "vrf" ... */
	uint32_t master;      /* ifindex, 0: none */
	uint32_t lower; /* IFLA_LINK in this namespace (VLAN's parent), 0: none or in another namespace */
	uint16_t type;  /* ARPHRD_* */
	uint32_t mtu;
	uint8_t mac[6];
	bool up;      /* IFF_UP */
	bool carrier; /* IFF_LOWER_UP */
	bool loopback;
	/* Another one when the device left this namespace and came back under the same index: what was attached to
	 * it is gone. Not in JSON. */
	uint32_t generation;
};

/* IPv4 and IPv6; without IPv6 link-local addresses: every device has one, none is routed, and each would make
 * a change of its own when a pod starts. */
struct link_address {
	uint32_t ifindex;
	struct addr addr;
	uint8_t len;   /* of the prefix */
	uint8_t scope; /* RT_SCOPE_UNIVERSE 0, RT_SCOPE_LINK 253, RT_SCOPE_HOST 254 */
};

/* Unicast routes of table main (254) and of tables that a policy rule of the node's own uses. One entry per
 * next hop. Without hops that are dead to the kernel (link down), without IPv6 link-local and multicast
 * destinations. */
struct route {
	struct prefix dst; /* 0.0.0.0/0 and ::/0 are default routes */
	uint32_t ifindex;
	struct addr gateway; /* family 0: on-link */
	uint32_t table;
	uint32_t metric;
};

struct features {
	bool nftables;
	bool flowtable;         /* flowtable in an inet table, and the flow_offload expression */
	bool flowtable_counter; /* its counter flag */
	char reason[160];       /* why not, "" when all are there */
};

struct facts {
	char kernel[65];         /* utsname.release */
	char kernel_version[65]; /* utsname.version */
	struct features features;
	bool kube_proxy_nftables; /* table ip or ip6 kube-proxy */
	bool kube_proxy_iptables; /* chain KUBE-SERVICES in table ip or ip6 nat */
	bool notrack;             /* Antrea's NOTRACK of external addresses is there */
	/* Rules other than the three that every namespace has: tables local, main, default with no selector,
	 * at whatever priority. IPv4 and IPv6 count each. */
	unsigned policy_rules;
	struct link *links;
	size_t n_links, cap_links;
	struct link_address *addresses;
	size_t n_addresses, cap_addresses;
	struct route *routes;
	size_t n_routes, cap_routes;
};

void facts_done(struct facts *f);
void facts_copy(const struct facts *from, struct facts *ret);
void facts_sort(struct facts *f);
bool facts_equal(const struct facts *a, const struct facts *b);
const struct link *facts_link(const struct facts *f, uint32_t ifindex);
const struct link *facts_link_by_name(const struct facts *f, const char *name);
/* Longest-prefix match in table main, lowest metric; the first of several next hops. NULL: no route. Needs
 * sorted routes, as facts_link() needs sorted links. */
const struct route *facts_route_to(const struct facts *f, const struct addr *a);

/* JSON text, indented; the caller frees it. */
char *facts_to_json(const struct facts *f);
/* -EINVAL with the field's name on what is not such JSON; unknown fields are an error, absent ones have zero
 * values, but an entry without index, name, address or destination is an error. '*ret' is sorted, and zeroed
 * on failure. */
int facts_from_json(const char *file, const char *json, size_t len, struct facts *ret, struct error *err);

#endif
