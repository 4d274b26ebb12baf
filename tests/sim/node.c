/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The node: links, addresses and routes in three shapes of pod networks, and the configuration.
 *
 * Up to Linux 6.15 a flowtable's hook is a device's: it goes with it, follows its renaming, and a device that is not there
 * cannot be hooked. From 6.16 it is a name's and none of these matters. A seed has one of the two.
 */
#include "sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ETH0 2

static void notice(struct sim *s)
{
	uint64_t at = s->now + draw_us(s, 0, 5 * US_PER_MS);

	if (s->client.alive && (!s->node.facts_notice || at < s->node.facts_notice))
		s->node.facts_notice = at;
}

/* --- facts --- */

static struct link *add_link(struct facts *f, uint32_t ifindex, const char *name, const char *kind)
{
	struct link *l = VEC_ADD(f->links, f->n_links, f->cap_links);

	*l = (struct link){.ifindex = ifindex, .type = 1, .mtu = 1500, .up = true, .carrier = true};
	snprintf(l->name, sizeof(l->name), "%s", name);
	snprintf(l->kind, sizeof(l->kind), "%s", kind);
	return l;
}

static void add_route(struct facts *f, const char *dst, uint32_t ifindex, const char *gateway)
{
	struct route *r = VEC_ADD(f->routes, f->n_routes, f->cap_routes);

	if (!prefix_parse(dst, &r->dst, NULL) || (gateway && !addr_parse(gateway, &r->gateway)))
		abort();
	r->ifindex = ifindex;
	r->table = 254;
}

static void add_address(struct facts *f, const char *text, uint8_t len, uint32_t ifindex)
{
	struct link_address *a = VEC_ADD(f->addresses, f->n_addresses, f->cap_addresses);

	if (!addr_parse(text, &a->addr))
		abort();
	a->len = len;
	a->ifindex = ifindex;
}

static void add_pods(const struct node_world *n, struct facts *f)
{
	char text[64];

	for (unsigned i = 0; i < PODS_MAX; i++) {
		const struct pod *p = &n->pods[i];
		struct link *l;

		if (!p->present)
			continue;
		l = add_link(f, p->ifindex, p->name, n->shape == NODE_ANTREA ? "" : "veth");
		l->up = l->carrier = p->up;
		l->generation = p->generation;
		if (n->shape == NODE_BRIDGE) {
			l->master = n->bridge_ifindex;
			snprintf(l->master_kind, sizeof(l->master_kind), "bridge");
		} else if (n->shape == NODE_ANTREA) {
			snprintf(l->master_kind, sizeof(l->master_kind), "openvswitch");
		} else {
			snprintf(text, sizeof(text), "10.244.1.%u/32", p->address);
			add_route(f, text, p->ifindex, NULL);
			snprintf(text, sizeof(text), "fd00:1::%x/128", p->address);
			if (p->v6)
				add_route(f, text, p->ifindex, NULL);
		}
	}
}

static void add_uplinks(const struct node_world *n, struct facts *f)
{
	uint32_t uplink = n->bond ? n->bond_ifindex : ETH0;
	struct link *l = add_link(f, ETH0, "eth0", "");
	char text[64], gateway[32];

	if (n->bond) {
		l->master = n->bond_ifindex;
		snprintf(l->master_kind, sizeof(l->master_kind), "bond");
		add_link(f, n->bond_ifindex, "bond0", "bond");
	}
	if (n->vlan) {
		add_link(f, n->vlan_ifindex, "vlan9", "vlan")->lower = uplink;
		add_route(f, "198.51.100.0/24", n->vlan_ifindex, "192.0.2.250");
	}
	add_address(f, "192.0.2.10", 24, uplink);
	if (!n->no_v6)
		add_address(f, "2001:db8::a", 64, uplink);
	if (!n->no_default)
		add_route(
			f, "0.0.0.0/0", n->eth1 && n->eth1_default ? n->eth1_ifindex : uplink, "192.0.2.254");
	for (unsigned i = 2; i < 5; i++) {
		snprintf(text, sizeof(text), "10.244.%u.0/24", i);
		snprintf(gateway, sizeof(gateway), "192.0.2.%u", 9 + i);
		add_route(f, text, uplink, gateway);
	}
	if (n->eth1) {
		add_link(f, n->eth1_ifindex, "eth1", "");
		add_address(f, "198.51.100.7", 24, n->eth1_ifindex);
	}
}

void node_facts(const struct sim *s, struct facts *ret)
{
	const struct node_world *n = &s->node;

	*ret = (struct facts){.policy_rules = n->policy_rules};
	add_link(ret, 1, "lo", "")->loopback = true;
	add_uplinks(n, ret);
	if (n->docker) {
		add_link(ret, 6, "docker0", "bridge");
		add_route(ret, "172.17.0.0/16", 6, NULL);
	}
	if (n->shape == NODE_BRIDGE) {
		add_link(ret, n->bridge_ifindex, "cni0", "bridge");
		add_address(ret, "10.244.1.1", 24, n->bridge_ifindex);
		add_route(ret, "10.244.1.0/24", n->bridge_ifindex, NULL);
	} else if (n->shape == NODE_ANTREA && !n->gateway_gone) {
		add_link(ret, n->gateway_ifindex, "antrea-gw0", "openvswitch");
		add_address(ret, "10.244.1.1", 24, n->gateway_ifindex);
		add_route(ret, "10.244.1.0/24", n->gateway_ifindex, NULL);
	}
	add_pods(n, ret);
	facts_sort(ret);
}

void node_probe(const struct sim *s, struct facts *f)
{
	const struct node_world *n = &s->node;

	f->kube_proxy_nftables = n->kube_proxy;
	f->notrack = n->notrack;
	f->features = (struct features){.nftables = !n->no_nftables,
		.flowtable = !n->no_flowtable && !n->no_nftables,
		.flowtable_counter = !n->no_flowtable && !n->no_nftables};
	if (!f->features.flowtable)
		snprintf(f->features.reason, sizeof(f->features.reason), "no flowtable today");
}

/* --- devices --- */

static void device_comes(struct sim *s, const char *name)
{
	s->node.changes++;
	memory_backend_refuse_device(s->kernel.backend, name, 0);
	notice(s);
	trace(s, "node: %s comes", name);
}

static void device_goes(struct sim *s, const char *name)
{
	s->node.changes++;
	if (!s->node.by_name) {
		memory_backend_drop_device(s->kernel.backend, name);
		memory_backend_refuse_device(s->kernel.backend, name, -ENOENT);
	}
	notice(s);
	trace(s, "node: %s goes", name);
}

static void add_pod(struct sim *s, struct pod *p, unsigned number)
{
	*p = (struct pod){.present = true,
		.up = chance(s, 900),
		.v6 = chance(s, 300),
		.ifindex = s->node.next_ifindex++,
		.address = 10 + draw(s, 6)};
	snprintf(p->name, sizeof(p->name), "veth%u", number);
	for (unsigned i = 0; i < PODS_MAX; i++)
		if (&s->node.pods[i] != p && s->node.pods[i].present &&
			!strcmp(s->node.pods[i].name, p->name))
			snprintf(p->name, sizeof(p->name), "veth%u", p->ifindex);
	device_comes(s, p->name);
}

static void rename_pod(struct sim *s, struct pod *p)
{
	char old[IFNAMSIZ];

	memcpy(old, p->name, sizeof(old));
	snprintf(p->name, sizeof(p->name), "veth%c%u", chance(s, 500) ? 'r' : 'x', s->node.next_ifindex++);
	s->node.changes++;
	if (!s->node.by_name) {
		memory_backend_rename_device(s->kernel.backend, old, p->name);
		memory_backend_refuse_device(s->kernel.backend, old, -ENOENT);
	}
	memory_backend_refuse_device(s->kernel.backend, p->name, 0);
	notice(s);
	trace(s, "node: %s is now %s", old, p->name);
}

static void change_pod(struct sim *s)
{
	unsigned i = draw(s, PODS_MAX), what = draw(s, 10);
	struct pod *p = &s->node.pods[i];

	if (!p->present) {
		add_pod(s, p, i);
	} else if (what < 4) {
		p->present = false;
		device_goes(s, p->name);
	} else if (what < 6) {
		/* Under the same name, another one. */
		device_goes(s, p->name);
		if (chance(s, 300))
			p->generation++; /* was in another namespace */
		else
			p->ifindex = s->node.next_ifindex++;
		device_comes(s, p->name);
	} else if (what < 8) {
		rename_pod(s, p);
	} else {
		p->up = !p->up;
		p->address = 10 + draw(s, 6);
		notice(s);
		trace(s, "node: %s is %s, 10.244.1.%u", p->name, p->up ? "up" : "down", p->address);
	}
}

static void toggle(struct sim *s, bool *flag, const char *name)
{
	*flag = !*flag;
	notice(s);
	trace(s, "node: %s: %s", name, *flag ? "yes" : "no");
}

static void change_uplink(struct sim *s)
{
	struct node_world *n = &s->node;

	switch (draw(s, 6)) {
	case 0:
		n->eth1 = !n->eth1;
		if (n->eth1)
			n->eth1_ifindex = n->next_ifindex++;
		(n->eth1 ? device_comes : device_goes)(s, "eth1");
		break;
	case 1:
		toggle(s, &n->eth1_default, "default route by eth1");
		break;
	case 2:
		toggle(s, &n->no_default, "no default route");
		break;
	case 3:
		toggle(s, &n->no_v6, "no IPv6");
		break;
	case 4:
		n->bond = !n->bond;
		n->bond_ifindex = n->next_ifindex++;
		(n->bond ? device_comes : device_goes)(s, "bond0");
		break;
	case 5:
		n->vlan = !n->vlan;
		n->vlan_ifindex = n->next_ifindex++;
		(n->vlan ? device_comes : device_goes)(s, "vlan9");
		break;
	}
}

static void change_pod_side(struct sim *s)
{
	struct node_world *n = &s->node;

	if (n->shape == NODE_BRIDGE) {
		/* The bridge itself is in no flowtable. */
		n->bridge_ifindex = n->next_ifindex++;
		notice(s);
		trace(s, "node: cni0 is another one");
	} else if (n->shape == NODE_ANTREA) {
		n->gateway_gone = !n->gateway_gone;
		n->gateway_ifindex = n->next_ifindex++;
		(n->gateway_gone ? device_goes : device_comes)(s, "antrea-gw0");
	}
}

static void change_features(struct sim *s)
{
	struct node_world *n = &s->node;
	bool *flags[] = {&n->kube_proxy, &n->notrack, &n->no_flowtable, &n->no_nftables};
	unsigned i = draw(s, 10);

	i = i < 4 ? 0 : i < 8 ? 1 : i - 6;
	*flags[i] = !*flags[i];
	/* Without nf_tables there is nothing of ours, and nothing that could be told. */
	if (i == 3 && n->no_nftables) {
		memory_backend_drop_table(s->kernel.backend);
		s->kernel.dirty = s->kernel.dirty_again = true;
		s->kernel.foreign_table = false;
	}
	if (s->client.alive)
		n->features_notice = s->now + draw_us(s, 0, 5 * US_PER_MS);
	trace(s, "node: features: %s%s%s%s", n->kube_proxy ? "kube-proxy " : "", n->notrack ? "notrack " : "",
		n->no_flowtable ? "no flowtable " : "", n->no_nftables ? "no nftables" : "");
}

void node_change(struct sim *s)
{
	unsigned what = draw(s, 100);

	if (what < 60) {
		change_pod(s);
	} else if (what < 80) {
		change_uplink(s);
	} else if (what < 86) {
		change_pod_side(s);
	} else if (what < 90) {
		s->node.policy_rules = draw(s, 3);
		notice(s);
	} else if (what < 95) {
		toggle(s, &s->node.docker, "docker0");
	} else {
		change_features(s);
	}
}

void node_refuse(struct sim *s)
{
	static const int codes[] = {-E2BIG, -EOPNOTSUPP, -ENOENT, -EBUSY, -EEXIST};
	struct pod *p = &s->node.pods[draw(s, PODS_MAX)];
	const char *name = chance(s, 200) ? "eth0" : p->present ? p->name : NULL;
	int code = chance(s, 500) ? codes[draw(s, ARRAY_SIZE(codes))] : 0;

	if (!name)
		return;
	memory_backend_refuse_device(s->kernel.backend, name, code);
	trace(s, "node: %s is %s", name, code ? strerror(-code) : "taken again");
}

void node_calm(struct sim *s)
{
	memory_backend_refuse_device(s->kernel.backend, "eth0", 0);
	for (unsigned i = 0; i < PODS_MAX; i++)
		if (s->node.pods[i].present)
			memory_backend_refuse_device(s->kernel.backend, s->node.pods[i].name, 0);
}

void node_start(struct sim *s)
{
	struct node_world *n = &s->node;

	n->shape = draw(s, 3);
	n->by_name = chance(s, 300);
	n->next_ifindex = 100;
	n->bridge_ifindex = n->next_ifindex++;
	n->gateway_ifindex = n->next_ifindex++;
	n->kube_proxy = n->shape != NODE_ANTREA;
	if (!n->by_name) {
		static const char *const absent[] = {"eth1", "bond0", "vlan9"};

		for (size_t i = 0; i < ARRAY_SIZE(absent); i++)
			memory_backend_refuse_device(s->kernel.backend, absent[i], -ENOENT);
	}
	for (unsigned i = draw(s, PODS_MAX); i; i--)
		add_pod(s, &n->pods[i], i);
}

/* --- configuration --- */

void config_make(const struct sim *s, struct config *ret)
{
	const struct config_world *c = &s->config;

	config_default(ret);
	ret->enabled = !c->disabled;
	ret->accounting = !c->no_accounting;
	ret->cluster = c->antrea ? CLUSTER_ANTREA : CLUSTER_AUTO;
	for (unsigned i = 0; i < TRAFFIC_TYPES; i++)
		if (c->off >> i & 1)
			ret->engines[i] = ENGINE_OFF;
	if (c->exclude_cidr &&
		!prefix_parse("192.0.2.128/25",
			VEC_ADD(ret->exclude_cidrs.items, ret->exclude_cidrs.n, ret->exclude_cidrs.cap),
			NULL))
		abort();
	if (c->uplink_eth0)
		string_list_add(&ret->uplinks, "eth*");
	if (c->exclude_pod)
		string_list_add(&ret->exclude_interfaces, "vethx*");
}

void config_change(struct sim *s)
{
	struct config_world *c = &s->config;
	bool *flags[] = {&c->disabled, &c->exclude_cidr, &c->antrea, &c->uplink_eth0, &c->exclude_pod,
		&c->no_accounting};
	unsigned i = draw(s, 12);
	struct config config;

	if (i < ARRAY_SIZE(flags))
		*flags[i] = !*flags[i];
	else
		c->off ^= 1u << draw(s, TRAFFIC_TYPES);
	trace(s, "configuration: %s%s%s%s%s%soff %#x", c->disabled ? "disabled " : "",
		c->exclude_cidr ? "exclude.cidrs " : "", c->antrea ? "antrea " : "",
		c->uplink_eth0 ? "uplinks " : "", c->exclude_pod ? "exclude " : "",
		c->no_accounting ? "no accounting " : "", c->off);
	if (!s->client.alive)
		return;
	config_make(s, &config);
	agent_set_config(&s->client.agent, &config);
}
