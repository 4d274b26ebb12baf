/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Topology: which devices are pod-side, which are uplinks, which pairs of them are managed, and which devices
 * the flowtable has to hold for that.
 *
 * Two views of a device. The forward hook sees layer-3 devices: a bridge, never its ports; pairs are made of
 * those. The flowtable works where packets really enter and leave: at a bridge's ports (measurements 1: the
 * bridge itself gains less, and on 7.2 makes things slower than no acceleration).
 */
#include "controller/plan_private.h"
#include "controller/plan_routes.h"

#include "base/mem.h"

#include <fnmatch.h>
#include <linux/if_arp.h>
#include <linux/rtnetlink.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What is found out about a link; one per link of the facts, in their order. */
struct seat {
	bool excluded;      /* interfaces.exclude */
	bool named_uplink;  /* interfaces.uplinks */
	bool default_route; /* in any table */
	bool way_out;       /* has a default route or one with a gateway: replies may leave by it */
	bool pod;           /* pod-side, layer 3 */
	bool uplink;        /* layer 3 */
	char reason[128];   /* for pod or uplink; the first one found */
};

struct topology {
	struct planner *p;
	const struct facts *facts;
	struct route_index routes;
	struct seat *seats;
};

static struct seat *seat_of(struct topology *t, const struct link *l)
{
	return &t->seats[l - t->facts->links];
}

static void set_reason(struct seat *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void set_reason(struct seat *s, const char *fmt, ...)
{
	va_list ap;

	if (s->reason[0])
		return;
	va_start(ap, fmt);
	vsnprintf(s->reason, sizeof(s->reason), fmt, ap);
	va_end(ap);
}

static bool is_kind(const struct link *l, const char *kind)
{
	return !strcmp(l->kind, kind);
}

/* The kind of the device that it is enslaved to, "" when it is to none. */
static const char *master_kind(const struct facts *f, const struct link *l)
{
	const struct link *m;

	if (l->master_kind[0])
		return l->master_kind;
	m = l->master ? facts_link(f, l->master) : NULL;
	return m ? m->kind : "";
}

/* Enslaved: it takes no part in layer 3, its master does. A VRF's members do, in a routing of their own. */
static bool is_port(const struct facts *f, const struct link *l)
{
	static const char *const masters[] = {"bridge", "bond", "team", "openvswitch"};
	const char *kind = master_kind(f, l);

	for (size_t i = 0; i < ARRAY_SIZE(masters); i++)
		if (!strcmp(kind, masters[i]))
			return true;
	return false;
}

/* Point to point, or a packet inside a packet: routes over such a device say nothing of the node's uplinks.
 */
static bool is_tunnel(const struct link *l)
{
	static const char *const kinds[] = {"tun", "vxlan", "geneve", "gretap", "ip6gretap", "erspan",
		"ip6erspan", "wireguard", "bareudp"};

	if (l->type != ARPHRD_ETHER)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (is_kind(l, kinds[i]))
			return true;
	return false;
}

static bool is_physical(const struct link *l)
{
	return !l->kind[0] && l->type == ARPHRD_ETHER && !l->loopback;
}

static bool matches(const struct string_list *globs, const char *name)
{
	for (size_t i = 0; i < globs->n; i++)
		if (!fnmatch(globs->items[i], name, 0))
			return true;
	return false;
}

/* May be a layer-3 device of ours at all. */
static bool eligible(struct topology *t, const struct link *l)
{
	return !l->loopback && !seat_of(t, l)->excluded && !is_port(t->facts, l);
}

static void read_configuration(struct topology *t)
{
	const struct config *c = t->p->config;

	for (size_t i = 0; i < t->facts->n_links; i++) {
		const struct link *l = &t->facts->links[i];

		t->seats[i].excluded = matches(&c->exclude_interfaces, l->name);
		t->seats[i].named_uplink = matches(&c->uplinks, l->name);
	}
}

/* Tables of policy rules count for Ethernet only: those of a VPN lead its own traffic. */
static void read_routes(struct topology *t)
{
	for (size_t i = 0; i < t->facts->n_routes; i++) {
		const struct route *r = &t->facts->routes[i];
		const struct link *l = facts_link(t->facts, r->ifindex);

		if (!l)
			continue;
		if (!r->dst.len && (r->table == RT_TABLE_MAIN || !is_tunnel(l)))
			seat_of(t, l)->default_route = true;
		if (!r->dst.len || r->gateway.family)
			seat_of(t, l)->way_out = true;
	}
}

static bool leads_to_pods(struct topology *t, const struct route *r)
{
	const struct prefix_list *local = &t->p->local;

	if (r->table != RT_TABLE_MAIN || r->gateway.family)
		return false;
	for (size_t i = 0; i < local->n; i++)
		if (prefix_covers(&local->items[i], &r->dst))
			return true;
	return false;
}

static void find_pods(struct topology *t)
{
	const struct facts *f = t->facts;
	const struct link *gateway = facts_link_by_name(f, ANTREA_GATEWAY);
	char cidr[PREFIX_TEXT_SIZE];

	for (size_t i = 0; i < f->n_routes; i++) {
		const struct link *l = facts_link(f, f->routes[i].ifindex);
		struct seat *s = l ? seat_of(t, l) : NULL;

		/* Where pods share the node's own network, its device is an uplink all the same. */
		if (!s || !leads_to_pods(t, &f->routes[i]) || !eligible(t, l) || s->default_route ||
			s->named_uplink)
			continue;
		s->pod = true;
		set_reason(s, "local pod route %s", prefix_text(&f->routes[i].dst, cidr));
	}
	if (t->p->plan->kind == CLUSTER_ANTREA && gateway && eligible(t, gateway) &&
		!seat_of(t, gateway)->named_uplink) {
		seat_of(t, gateway)->pod = true;
		set_reason(seat_of(t, gateway), "Antrea's gateway");
	}
}

static void find_named_pods(struct topology *t)
{
	const struct facts *f = t->facts;

	for (size_t i = 0; i < f->n_links; i++) {
		const struct link *l = &f->links[i], *m = l->master ? facts_link(f, l->master) : NULL;
		struct seat *s = &t->seats[i];

		if (l->loopback || s->excluded || !matches(&t->p->config->pods, l->name))
			continue;
		if (s->named_uplink) {
			plan_warn(t->p, "configuration",
				"interfaces.pods and interfaces.uplinks both match %s: it is taken as an "
				"uplink",
				l->name);
		} else if (!is_port(f, l)) {
			s->pod = true;
			set_reason(s, "configured");
		} else if (m && is_kind(m, "bridge") && eligible(t, m) && !seat_of(t, m)->named_uplink) {
			seat_of(t, m)->pod = true;
			set_reason(seat_of(t, m), "port %s is configured", l->name);
		} else {
			plan_warn(t->p, "configuration",
				"interfaces.pods matches %s, which is a port of %s: name the device that "
				"routes",
				l->name, m ? m->name : "another device");
		}
	}
}

/* Takes it as an uplink unless something speaks against it. */
static void found_uplink(struct topology *t, const struct link *l, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void found_uplink(struct topology *t, const struct link *l, const char *fmt, ...)
{
	struct seat *s = seat_of(t, l);
	va_list ap;

	if (s->pod || l->loopback || is_port(t->facts, l) || !strcmp(master_kind(t->facts, l), "vrf"))
		return;
	s->uplink = true;
	if (s->reason[0])
		return;
	va_start(ap, fmt);
	vsnprintf(s->reason, sizeof(s->reason), fmt, ap);
	va_end(ap);
}

/* The devices towards an address of a peer; a default route is found without its help. */
static void follow(struct topology *t, const struct addr *a)
{
	char cidr[PREFIX_TEXT_SIZE];
	size_t n;
	const struct route *const *r = route_index_find(&t->routes, a, &n);

	for (size_t i = 0; i < n; i++) {
		const struct link *l = facts_link(t->facts, r[i]->ifindex);

		if (l && r[i]->dst.len && !seat_of(t, l)->uplink)
			found_uplink(t, l, "route to %s", prefix_text(&r[i]->dst, cidr));
	}
}

static void follow_peers(struct topology *t)
{
	const struct node *n = NULL;

	for (size_t i = 0; i < t->p->remote.n; i++)
		follow(t, &t->p->remote.items[i].addr);
	while ((n = cluster_next_node(t->p->cluster, n))) {
		if (n == t->p->own)
			continue;
		for (size_t i = 0; i < n->n_addresses; i++)
			follow(t, &n->addresses[i]);
		for (size_t i = 0; i < n->n_transport_addresses; i++)
			follow(t, &n->transport_addresses[i]);
	}
}

static bool own_address(const struct planner *p, const struct addr *a)
{
	for (size_t i = 0; p->own && i < p->own->n_addresses; i++)
		if (!addr_cmp(&p->own->addresses[i], a))
			return true;
	for (size_t i = 0; p->own && i < p->own->n_transport_addresses; i++)
		if (!addr_cmp(&p->own->transport_addresses[i], a))
			return true;
	return false;
}

static void find_uplinks(struct topology *t)
{
	const struct facts *f = t->facts;
	char cidr[PREFIX_TEXT_SIZE], text[ADDR_TEXT_SIZE];

	for (size_t i = 0; i < f->n_links; i++)
		if (t->seats[i].default_route)
			found_uplink(t, &f->links[i], "default route");
	follow_peers(t);
	for (size_t i = 0; i < f->n_routes; i++) {
		const struct link *l = facts_link(f, f->routes[i].ifindex);

		if (l && f->routes[i].dst.len && f->routes[i].gateway.family && !is_tunnel(l) &&
			!seat_of(t, l)->uplink)
			found_uplink(t, l, "route to %s", prefix_text(&f->routes[i].dst, cidr));
	}
	for (size_t i = 0; i < f->n_addresses; i++) {
		const struct link_address *a = &f->addresses[i];
		const struct link *l = facts_link(f, a->ifindex);

		if (!l || a->scope != RT_SCOPE_UNIVERSE)
			continue;
		if (own_address(t->p, &a->addr))
			found_uplink(t, l, "the Node's address %s", addr_text(&a->addr, text));
		else if (is_physical(l))
			found_uplink(t, l, "address %s", addr_text(&a->addr, text));
	}
}

static void add_missing(struct planner *p, const char *name, enum device_role role)
{
	struct plan_device *d = VEC_ADD(p->plan->devices, p->plan->n_devices, p->plan->cap_devices);

	snprintf(d->name, sizeof(d->name), "%s", name);
	d->role = role;
	d->state = DEVICE_MISSING;
	snprintf(d->reason, sizeof(d->reason), "configured");
}

/* Names, not globs, that no link has. */
static void check_names(
	struct topology *t, const struct string_list *l, const char *key, enum device_role role)
{
	for (size_t i = 0; i < l->n; i++) {
		const char *name = l->items[i];

		if (strpbrk(name, "*?[\\") || facts_link_by_name(t->facts, name))
			continue;
		plan_warn(t->p, "configuration", "%s: there is no device %s", key, name);
		if (strlen(name) < IFNAMSIZ)
			add_missing(t->p, name, role);
	}
}

/*
 * interfaces.uplinks, when given, replaces what was found, and interfaces.exclude takes away from it. Returns
 * how many devices packets may leave by, managed or not: with more than one, traffic that comes in by an
 * uplink may have its replies sent by another (measurements 1.2, asymmetric return).
 */
static size_t choose_uplinks(struct topology *t)
{
	const struct facts *f = t->facts;
	size_t ways = 0;

	for (size_t i = 0; i < f->n_links; i++) {
		const struct link *l = &f->links[i];
		struct seat *s = &t->seats[i];
		bool named = s->named_uplink && !s->excluded && !l->loopback;

		ways += !s->pod && !l->loopback && (s->uplink || s->way_out || (named && !is_port(f, l)));
		if (named && is_port(f, l)) {
			const struct link *m = l->master ? facts_link(f, l->master) : NULL;

			plan_warn(t->p, "configuration",
				"interfaces.uplinks matches %s, which is a port of %s: name the device that "
				"routes",
				l->name, m ? m->name : "another device");
		}
		if (t->p->config->uplinks.n) {
			s->uplink = named && !is_port(f, l);
			if (s->uplink)
				snprintf(s->reason, sizeof(s->reason), "configured");
		}
		s->uplink = s->uplink && !s->excluded;
	}
	return ways;
}

static struct plan_device *add_device(struct planner *p, const struct link *l, enum device_role role)
{
	struct plan_device *d = VEC_ADD(p->plan->devices, p->plan->n_devices, p->plan->cap_devices);

	snprintf(d->name, sizeof(d->name), "%s", l->name);
	d->ifindex = l->ifindex;
	d->role = role;
	d->state = l->up && l->carrier ? DEVICE_ACTIVE : DEVICE_DOWN;
	if (role != DEVICE_BRIDGE) {
		struct ruleset *rs = &p->plan->ruleset;

		ruleset_add_device(rs, l->name, l->ifindex);
		rs->devices[rs->n_devices - 1].generation = l->generation;
	}
	return d;
}

/* Ports that carry the uplink of a bridge, rather than the virtual machines beside it. */
static bool is_uplink_port(const struct link *l)
{
	return is_physical(l) || is_kind(l, "bond") || is_kind(l, "team") || is_kind(l, "vlan");
}

/* Returns how many there were. */
static size_t add_ports(
	struct topology *t, const struct link *bridge, enum device_role role, bool only_uplink_ports)
{
	const struct facts *f = t->facts;
	size_t n = 0;

	for (size_t i = 0; i < f->n_links; i++) {
		const struct link *l = &f->links[i];
		struct plan_device *d;

		if (l->master != bridge->ifindex || t->seats[i].excluded ||
			(only_uplink_ports && !is_uplink_port(l)) ||
			(role == DEVICE_POD && t->seats[i].named_uplink))
			continue;
		d = add_device(t->p, l, role);
		snprintf(d->reason, sizeof(d->reason), "port of %s", bridge->name);
		n++;
	}
	return n;
}

/* A layer-3 device of ours, with what the flowtable has to hold for it. */
static void add_routing_device(struct topology *t, const struct link *l, bool checked)
{
	const struct seat *s = seat_of(t, l);
	enum device_role role = s->pod ? DEVICE_POD : DEVICE_UPLINK;
	struct ruleset *rs = &t->p->plan->ruleset;
	struct plan_device *d = add_device(t->p, l, is_kind(l, "bridge") ? DEVICE_BRIDGE : role);

	snprintf(d->reason, sizeof(d->reason), "%s", s->reason);
	d->checked = s->uplink && checked;
	ruleset_add_link(rs, l->name, l->ifindex);
	if (d->checked)
		ruleset_add_interface(rs, SET_CHECKED_UPLINKS, l->ifindex);
	if (!is_kind(l, "bridge"))
		return;
	if (s->pod) {
		add_ports(t, l, role, false);
		ruleset_add_pair(rs, SET_HAIRPINS, l->ifindex, l->ifindex);
	} else if (!add_ports(t, l, role, true)) {
		add_ports(t, l, role, false);
	}
}

/*
 * Every pod-side device with every uplink, both ways. Where the host does the Service NAT, a connection that
 * came in by an uplink may have its endpoint on another node and leave by an uplink again: those pairs are
 * for DNATed flows only, what the node merely routes is not ours.
 */
static void add_pairs(struct topology *t)
{
	const struct facts *f = t->facts;
	struct ruleset *rs = &t->p->plan->ruleset;
	bool transit = t->p->plan->kind == CLUSTER_KUBE_PROXY;

	for (size_t j = 0; j < f->n_links; j++) {
		for (size_t i = 0; t->seats[j].uplink && i < f->n_links; i++) {
			if (t->seats[i].pod) {
				ruleset_add_pair(rs, SET_PAIRS, f->links[i].ifindex, f->links[j].ifindex);
				ruleset_add_pair(rs, SET_PAIRS, f->links[j].ifindex, f->links[i].ifindex);
			} else if (t->seats[i].uplink && transit) {
				ruleset_add_pair(rs, SET_HAIRPINS, f->links[i].ifindex, f->links[j].ifindex);
			}
		}
	}
}

/* Own addresses: what the Node says, and what its uplinks have. */
static void add_node_addresses(struct topology *t)
{
	const struct facts *f = t->facts;
	const struct node *own = t->p->own;
	struct ruleset *rs = &t->p->plan->ruleset;

	for (size_t i = 0; own && i < own->n_addresses; i++)
		ruleset_add_addr(rs, SET_NODE_ADDRESSES4, &own->addresses[i]);
	for (size_t i = 0; i < f->n_addresses; i++) {
		const struct link *l = facts_link(f, f->addresses[i].ifindex);

		if (l && seat_of(t, l)->uplink && f->addresses[i].scope == RT_SCOPE_UNIVERSE)
			ruleset_add_addr(rs, SET_NODE_ADDRESSES4, &f->addresses[i].addr);
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct plan_device *)a)->name, ((const struct plan_device *)b)->name);
}

static void warn_nothing_found(struct topology *t, size_t pods, size_t uplinks)
{
	char object[192], cidr[PREFIX_TEXT_SIZE];

	snprintf(object, sizeof(object), "Node %s", t->p->node);
	if (!pods && t->p->local.n)
		plan_warn(t->p, object,
			"no pod-side device: no device has a route into %s; there is no pod yet, or the CNI "
			"gives pods other addresses than the Node's (Calico): name devices in "
			"interfaces.pods, like cali*",
			prefix_text(&t->p->local.items[0], cidr));
	else if (!pods)
		plan_warn(t->p, object, "no pod-side device: name them in interfaces.pods");
	if (!uplinks)
		plan_warn(t->p, object,
			"no uplink: no device has a default route, a route to a peer or the Node's address; "
			"name "
			"it in interfaces.uplinks");
}

void plan_devices(struct planner *p)
{
	struct topology t = {.p = p, .facts = p->facts};
	size_t ways, pods = 0, uplinks = 0;

	t.seats = xcalloc(p->facts->n_links + 1, sizeof(*t.seats));
	route_index_make(p->facts, &t.routes);
	read_configuration(&t);
	read_routes(&t);
	find_pods(&t);
	find_named_pods(&t);
	find_uplinks(&t);
	check_names(&t, &p->config->uplinks, "interfaces.uplinks", DEVICE_UPLINK);
	check_names(&t, &p->config->pods, "interfaces.pods", DEVICE_POD);
	ways = choose_uplinks(&t);
	for (size_t i = 0; i < p->facts->n_links; i++) {
		pods += t.seats[i].pod;
		uplinks += t.seats[i].uplink;
		if (t.seats[i].pod || t.seats[i].uplink)
			add_routing_device(&t, &p->facts->links[i], ways > 1);
	}
	add_pairs(&t);
	add_node_addresses(&t);
	warn_nothing_found(&t, pods, uplinks);
	if (p->plan->n_devices)
		qsort(p->plan->devices, p->plan->n_devices, sizeof(*p->plan->devices), by_name);
	route_index_done(&t.routes);
	free(t.seats);
}
