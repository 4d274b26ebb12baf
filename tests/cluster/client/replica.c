/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * replica: the agent's API client alone, for tests that have to see each object and each state in between.
 *
 * Environment and credentials as `slipstream run` takes them in a pod, configuration from the file in argv[1].
 * Prints one line of JSON per change of the replica, {"synced": [KIND...], "nodes": {...}, "services": {...},
 * "endpointslices": {...}}, and one per problem, {"problem": TEXT}. Ends when its standard input does.
 */
#include "controller/config.h"
#include "k8s/cluster.h"
#include "k8s/source.h"

#include <event2/event.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void print_line(struct json_object *line)
{
	puts(json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	fflush(stdout);
	json_object_put(line);
}

static void add_text(struct json_object *array, const char *text)
{
	json_object_array_add(array, json_object_new_string(text));
}

static struct json_object *addresses(const struct addr *list, size_t n)
{
	struct json_object *array = json_object_new_array();
	char buf[ADDR_TEXT_SIZE];

	for (size_t i = 0; i < n; i++)
		add_text(array, addr_text(&list[i], buf));
	return array;
}

static struct json_object *node_json(const struct node *node)
{
	struct json_object *o = json_object_new_object(), *cidrs = json_object_new_array();
	char buf[PREFIX_TEXT_SIZE];

	for (size_t i = 0; i < node->n_pod_cidrs; i++)
		add_text(cidrs, prefix_text(&node->pod_cidrs[i], buf));
	json_object_object_add(o, "podCIDRs", cidrs);
	json_object_object_add(o, "addresses", addresses(node->addresses, node->n_addresses));
	return o;
}

static struct json_object *service_json(const struct service *s)
{
	struct json_object *o = json_object_new_object(), *ports = json_object_new_array();
	char buf[64];

	for (size_t i = 0; i < s->n_ports; i++) {
		const struct service_port *p = &s->ports[i];

		snprintf(buf, sizeof(buf), "%d/%u/%u", p->protocol, p->port, p->node_port);
		add_text(ports, buf);
	}
	json_object_object_add(o, "clusterIPs", addresses(s->cluster_ips, s->n_cluster_ips));
	json_object_object_add(o, "loadBalancerIPs", addresses(s->load_balancer_ips, s->n_load_balancer_ips));
	json_object_object_add(o, "externalIPs", addresses(s->external_ips, s->n_external_ips));
	json_object_object_add(o, "ports", ports);
	json_object_object_add(o, "excluded", json_object_new_boolean(s->excluded));
	return o;
}

static struct json_object *slice_json(const struct endpoint_slice *s)
{
	struct json_object *o = json_object_new_object(), *endpoints = json_object_new_array();
	char addr[ADDR_TEXT_SIZE], buf[ADDR_TEXT_SIZE + 16];

	for (size_t i = 0; i < s->n_endpoints; i++) {
		const struct endpoint *e = &s->endpoints[i];

		snprintf(buf, sizeof(buf), "%s %s", addr_text(&e->addr, addr), e->ready ? "ready" : "-");
		add_text(endpoints, buf);
	}
	json_object_object_add(o, "service", json_object_new_string(s->service));
	json_object_object_add(o, "endpoints", endpoints);
	return o;
}

static void add_named(
	struct json_object *map, const char *namespace, const char *name, struct json_object *value)
{
	char key[600];

	snprintf(key, sizeof(key), "%s/%s", namespace, name);
	json_object_object_add(map, key, value);
}

static void on_changed(void *arg)
{
	struct cluster *c = arg;
	struct json_object *line = json_object_new_object(), *synced = json_object_new_array();
	struct json_object *maps[OBJECT_KINDS];

	for (size_t i = 0; i < OBJECT_KINDS; i++) {
		if (cluster_synced(c, i))
			add_text(synced, object_kind_names[i]);
		maps[i] = json_object_new_object();
		json_object_object_add(line, object_kind_names[i], maps[i]);
	}
	json_object_object_add(line, "synced", synced);
	for (const struct node *n = cluster_next_node(c, NULL); n; n = cluster_next_node(c, n))
		json_object_object_add(maps[OBJECT_NODE], n->name, node_json(n));
	for (const struct service *s = cluster_next_service(c, NULL); s; s = cluster_next_service(c, s))
		add_named(maps[OBJECT_SERVICE], s->namespace, s->name, service_json(s));
	for (const struct endpoint_slice *s = cluster_next_endpoint_slice(c, NULL); s;
		s = cluster_next_endpoint_slice(c, s))
		add_named(maps[OBJECT_ENDPOINT_SLICE], s->namespace, s->name, slice_json(s));
	print_line(line);
}

static void on_problem(void *arg, const struct error *err)
{
	struct json_object *line = json_object_new_object();

	(void)arg;
	json_object_object_add(line, "problem", json_object_new_string(error_text(err)));
	print_line(line);
}

static void on_input(evutil_socket_t fd, short events, void *arg)
{
	char buf[64];

	(void)events;
	if (read((int)fd, buf, sizeof(buf)) <= 0)
		event_base_loopbreak(arg);
}

int main(int argc, char **argv)
{
	struct event_base *base = event_base_new();
	struct cluster *cluster = cluster_new();
	struct source_callbacks cb = {on_changed, on_problem, cluster};
	struct api_options options = {0};
	struct event *input = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, base);
	struct source *source;
	struct config config;
	struct error err = {0};

	if (argc != 2) {
		fprintf(stderr, "usage: replica CONFIG\n");
		return 2;
	}
	if (config_load(argv[1], &config, NULL, &err)) {
		fprintf(stderr, "replica: %s\n", error_text(&err));
		return EXIT_FAILURE;
	}
	options.endpoints = config.endpoints;
	options.watchlist = config.watchlist;
	config_done(&config);
	if (api_source_new(base, cluster, &options, &cb, &source, &err)) {
		fprintf(stderr, "replica: %s\n", error_text(&err));
		return EXIT_FAILURE;
	}
	event_add(input, NULL);
	event_base_dispatch(base);
	event_free(input);
	source_free(source);
	cluster_free(cluster);
	event_base_free(base);
	return EXIT_SUCCESS;
}
