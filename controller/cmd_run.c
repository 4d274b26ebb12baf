/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/cli.h"

#include "base/log.h"
#include "base/mem.h"
#include "controller/agent.h"
#include "controller/config_file.h"
#include "controller/ended_flows.h"
#include "controller/http.h"
#include "controller/instance.h"
#include "controller/node_events.h"
#include "controller/status.h"
#include "datapath/conntrack.h"
#include "datapath/facts_watch.h"
#include "datapath/nft.h"
#include "k8s/events.h"
#include "k8s/source.h"

#include <errno.h>
#include <event2/event.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/*
 * The edges of the agent: every callback here only translates an event into an input of controller/agent.h
 * and arms the one timer that calls agent_step().
 */
struct runner {
	struct event_base *base;
	struct event *timer, *facts_event, *nft_event, *config_event, *signals[3];
	struct cluster *cluster;
	struct source *source;
	struct backend *backend;
	struct facts_watch *facts_watch;
	struct nft_monitor *nft_monitor;
	struct config_file *config_file; /* NULL without --config */
	struct conntrack *conntrack;     /* NULL where it cannot be read */
	struct http_server *http;        /* NULL while another agent has the port */
	struct instance *instance;
	bool failed;
	struct agent agent;
	struct node_events node_events;
	struct events *events;
	struct flow_totals flows;
	struct ended_flows ended;
	uint64_t figures_read; /* monotonic us of the last look at the kernel's counters, 0: none */
	size_t config_warnings;
	char figures_problem[512];
};

static uint64_t monotonic(void *arg)
{
	struct timespec ts;

	(void)arg;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000 + 1;
}

static double wall(void *arg)
{
	struct timespec ts;

	(void)arg;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int refresh(void *arg, struct facts *f, struct error *err)
{
	struct runner *r = arg;

	return facts_watch_refresh(r->facts_watch, f, err);
}

static int probe(void *arg, struct facts *f, struct error *err)
{
	(void)arg;
	return nft_probe(f, err);
}

/* Arms the timer for the next step, or none when there is nothing to wait for. */
static void arm(struct runner *r)
{
	uint64_t t = monotonic(NULL);
	int64_t waits[] = {
		agent_wait(&r->agent), node_events_wait(&r->node_events, t), ended_flows_wait(&r->ended, t)};
	int64_t wait = -1;
	struct timeval tv;

	for (size_t i = 0; i < ARRAY_SIZE(waits); i++)
		if (wait < 0 || (waits[i] >= 0 && waits[i] < wait))
			wait = waits[i];
	tv.tv_sec = wait / 1000000;
	tv.tv_usec = wait % 1000000;
	if (wait < 0)
		evtimer_del(r->timer);
	else
		evtimer_add(r->timer, &tv);
}

static int count_flow(void *arg, const struct flow *f)
{
	struct runner *r = arg;

	flow_totals_add(
		&r->flows, f, ruleset_classify(&r->agent.plan->ruleset, f), monotonic(NULL) / 1000000);
	return 0;
}

/* Brings what only the kernel knows up to date: at most once per second, and only when somebody asks. */
static void read_figures(struct runner *r)
{
	uint64_t t = monotonic(NULL);
	struct error err = {0};
	int n;

	if (!r->agent.planned || (r->figures_read && t - r->figures_read < 1000000))
		return;
	r->figures_read = t;
	agent_refresh(&r->agent);
	n = agent_inserts(&r->agent, &err);
	if (n >= 0 && r->conntrack) {
		flow_totals_begin(&r->flows);
		n = conntrack_each_offloaded(r->conntrack, count_flow, r, &err);
		if (n >= 0)
			flow_totals_end(&r->flows, t / 1000000);
	}
	if (n < 0 && strncmp(r->figures_problem, error_text(&err), sizeof(r->figures_problem) - 1))
		log_warning("%s", error_text(&err));
	snprintf(r->figures_problem, sizeof(r->figures_problem), "%s", n < 0 ? error_text(&err) : "");
}

/* What it carried until its end is counted, which the next look at the kernel's counters would miss. */
static void on_ended(void *arg, const struct flow *f)
{
	char src[ADDR_TEXT_SIZE], dst[ADDR_TEXT_SIZE], endpoint[ADDR_TEXT_SIZE];

	count_flow(arg, f);
	log_debug("ended UDP from %s port %u to %s port %u: its endpoint %s port %u vanished",
		addr_text(&f->original_src, src), f->original_sport, addr_text(&f->original_dst, dst),
		f->original_dport, addr_text(&f->reply_src, endpoint), f->reply_sport);
}

/* Behind the agent's step: what the change that ended them asks of the kernel's rules is done by then. */
static void end_flows(struct runner *r)
{
	const struct udp_endpoint *vanished;
	struct error err = {0};
	size_t n;
	int code;

	if (!ended_flows_step(&r->ended, monotonic(NULL), &vanished, &n))
		return;
	/* Where nothing is offloaded there is nothing to end. */
	if (!r->conntrack || !r->agent.ready || !r->agent.plan->ruleset.present)
		return;
	code = conntrack_end_udp(r->conntrack, vanished, n, on_ended, r, &err);
	if (ended_flows_result(&r->ended, monotonic(NULL), code, &err))
		log_warning("%s; UDP of endpoints that vanished stays offloaded until it is idle",
			error_text(&err));
}

/* Where flows are offloaded, and nowhere else, next hops are kept resolved. */
static void keep_resolved(struct runner *r)
{
	const struct plan *p = r->agent.plan;
	uint32_t *links = NULL;
	size_t n = 0, cap = 0;

	for (size_t i = 0; r->agent.ready && p->ruleset.present && i < p->n_devices; i++)
		if (p->devices[i].ifindex)
			*VEC_ADD(links, n, cap) = p->devices[i].ifindex;
	facts_watch_keep_resolved(r->facts_watch, links, n);
	free(links);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct runner *r = arg;
	struct node_event event;

	(void)fd;
	(void)what;
	agent_step(&r->agent);
	keep_resolved(r);
	end_flows(r);
	if (node_events_step(&r->node_events, &r->agent, monotonic(NULL), &event))
		events_record(r->events, &event);
	/* The base of the flows' sums: what was offloaded before this process is not counted by it. */
	if (r->agent.ready && !r->figures_read)
		read_figures(r);
	arm(r);
}

static void on_source_changed(void *arg)
{
	struct runner *r = arg;

	agent_note(&r->agent, AGENT_CLUSTER);
	arm(r);
}

static void on_source_problem(void *arg, const struct error *err)
{
	(void)arg;
	log_warning("%s", error_text(err));
}

static void on_facts(evutil_socket_t fd, short what, void *arg)
{
	struct runner *r = arg;
	struct error err = {0};
	int n;

	(void)fd;
	(void)what;
	n = facts_watch_read(r->facts_watch, &err);
	if (n < 0)
		log_error("%s", error_text(&err));
	if (n != 0) {
		agent_note(&r->agent, AGENT_FACTS);
		arm(r);
	}
}

static void on_nft(evutil_socket_t fd, short what, void *arg)
{
	struct nft_touch touch = {0};
	struct runner *r = arg;
	struct error err = {0};

	(void)fd;
	(void)what;
	if (nft_monitor_read(r->nft_monitor, &touch, &err) < 0) {
		log_error("%s", error_text(&err));
		touch.ours = true;
	}
	if (touch.ours)
		agent_touched(&r->agent, touch.who);
	if (touch.foreign_tables)
		agent_note(&r->agent, AGENT_FEATURES);
	arm(r);
}

static void log_config_warnings(struct runner *r, struct string_list *warnings)
{
	r->config_warnings = warnings->n;
	for (size_t i = 0; i < warnings->n; i++)
		log_warning("%s", warnings->items[i]);
	string_list_done(warnings);
}

static void reload(struct runner *r, bool force)
{
	const struct config *old = &r->agent.config;
	struct string_list warnings = {0};
	struct error err = {0};
	struct config config;
	int n = config_file_read(r->config_file, force, &config, &warnings, &err);

	if (n < 0) {
		agent_config_failed(&r->agent, &err);
		string_list_done(&warnings);
		return;
	}
	if (!n)
		return;
	log_config_warnings(r, &warnings);
	if (strcmp(old->listen_host, config.listen_host) || old->listen_port != config.listen_port ||
		old->endpoints != config.endpoints)
		log_warning("listen and kubernetes.endpoints take effect at the next start");
	log_setup(config.log_level, config.log_format);
	log_info("configuration reloaded");
	agent_set_config(&r->agent, &config);
	arm(r);
}

static void on_config(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	reload(arg, false);
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
	struct runner *r = arg;

	(void)what;
	if (number == SIGHUP) {
		if (r->config_file)
			reload(r, true);
		return;
	}
	log_info("%s: ending", number == SIGTERM ? "SIGTERM" : "SIGINT");
	event_base_loopbreak(r->base);
}

static bool serve(void *arg, const char *path, const char *accept, struct http_reply *reply)
{
	struct source_status source = {0};
	struct runner *r = arg;
	struct metrics_input in = {
		.agent = &r->agent,
		.cluster = r->cluster,
		.source = &source,
		.flows = &r->flows,
		.ended = &r->ended,
		.events = events_results(r->events),
		.config_warnings = r->config_warnings,
		.holder = instance_holder(r->instance),
	};
	struct strbuf json = {0};
	bool openmetrics;

	if (!strcmp(path, "/healthz") || !strcmp(path, "/livez")) {
		strbuf_puts(&reply->body, "ok\n");
		return true;
	}
	if (!strcmp(path, "/readyz")) {
		reply->code = agent_does_its_work(&r->agent) ? 200 : 503;
		strbuf_puts(&reply->body, reply->code == 503 ? "not synced yet; /status says why\n"
					  : r->agent.waiting ? "ok, waiting for another agent to end\n"
							     : "ok\n");
		return true;
	}
	if (strcmp(path, "/metrics") && strcmp(path, "/status") && strcmp(path, "/"))
		return false;
	read_figures(r);
	agent_refresh(&r->agent);
	source_status(r->source, &source);
	if (!strcmp(path, "/metrics")) {
		openmetrics = metrics_wants_openmetrics(accept);
		metrics_write(&reply->body, &in, openmetrics);
		reply->content_type = openmetrics ? METRICS_CONTENT_TYPE_OPENMETRICS : METRICS_CONTENT_TYPE;
	} else if (!strcmp(path, "/status")) {
		status_json(&in, &reply->body);
		reply->content_type = "application/json";
	} else {
		status_json(&in, &json);
		status_text(json.data, json.len, &reply->body, NULL);
		strbuf_done(&json);
	}
	return true;
}

/* A waiting agent may find the port taken by the one that it waits for. */
static int open_http(struct runner *r, struct error *err)
{
	const char *host = cli_listen_host(&r->agent.config, err);
	struct error problem = {0};
	int n;

	if (!host)
		return -ENOENT;
	n = http_server_new(r->base, host, r->agent.config.listen_port, serve, r, &r->http, &problem);
	if (n == -EADDRINUSE && r->agent.waiting)
		return 0;
	if (n < 0 && err)
		*err = problem;
	return n;
}

static void on_instance(void *arg)
{
	struct runner *r = arg;
	struct error err = {0};

	if (!instance_held(r->instance)) {
		log_warning(
			"this node has an agent: %s; waiting until it ends", instance_holder(r->instance));
		return;
	}
	log_info("the other agent of this node ended: taking over");
	agent_set_waiting(&r->agent, false);
	if (!r->http && open_http(r, &err) < 0) {
		cli_fail(CLI_FAILED, &err);
		r->failed = true;
		event_base_loopbreak(r->base);
	}
	arm(r);
}

/* What every later step needs, said at once and in words of what to do. */
static int check_privileges(struct error *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	if (syscall(SYS_capget, &header, data) < 0 || data[0].effective & (1u << CAP_NET_ADMIN))
		return 0;
	return error_set(err, -EPERM, NULL, "run it as root, or give the container the capability",
		"slipstream run needs CAP_NET_ADMIN");
}

static int open_source(struct runner *r, const struct cli_options *o, struct error *err)
{
	struct source_callbacks cb = {.changed = on_source_changed, .problem = on_source_problem, .arg = r};
	struct api_options api = {
		.kubeconfig = o->kubeconfig,
		.endpoints = r->agent.config.endpoints,
		.watchlist = r->agent.config.watchlist,
	};

	if (api.endpoints == ENDPOINTS_OFF)
		cluster_set_unwatched(r->cluster, OBJECT_ENDPOINT_SLICE);
	if (o->manifests)
		return manifest_source_new(r->base, r->cluster, o->manifests, &cb, &r->source, err);
	return api_source_new(r->base, r->cluster, &api, &cb, &r->source, err);
}

static struct event *add_event(struct runner *r, int fd, event_callback_fn fn)
{
	struct event *ev = event_new(r->base, fd, EV_READ | EV_PERSIST, fn, r);

	if (!ev || event_add(ev, NULL) < 0)
		abort();
	return ev;
}

static void add_signals(struct runner *r)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		r->signals[i] = evsignal_new(r->base, numbers[i], on_signal, r);
		if (!r->signals[i] || event_add(r->signals[i], NULL) < 0)
			abort();
	}
}

static int open_kernel(struct runner *r, struct error *err)
{
	struct error problem = {0};
	int n = nft_backend_new(&r->backend, &problem);

	/* A kernel without nf_tables: the probe says so, the agent stays up and reports it. */
	if (n == -EPROTONOSUPPORT || n == -EAFNOSUPPORT) {
		log_warning("%s", error_text(&problem));
	} else if (n < 0) {
		*err = problem;
		return n;
	} else {
		n = nft_monitor_open(&r->nft_monitor, err);
		if (n < 0)
			return n;
		r->nft_event = add_event(r, nft_monitor_fd(r->nft_monitor), on_nft);
	}
	n = facts_watch_open(&r->facts_watch, err);
	if (n < 0)
		return n;
	r->facts_event = add_event(r, facts_watch_fd(r->facts_watch), on_facts);
	if (conntrack_open(&r->conntrack, &problem) < 0) {
		log_warning("%s; offloaded flows are not counted", error_text(&problem));
		r->conntrack = NULL;
	}
	return 0;
}

static void close_all(struct runner *r)
{
	struct event *events[] = {r->timer, r->facts_event, r->nft_event, r->config_event, r->signals[0],
		r->signals[1], r->signals[2]};

	http_server_free(r->http);
	if (r->source)
		source_free(r->source);
	events_free(r->events);
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i])
			event_free(events[i]);
	agent_done(&r->agent);
	flow_totals_done(&r->flows);
	ended_flows_done(&r->ended);
	backend_free(r->backend);
	if (r->nft_monitor)
		nft_monitor_close(r->nft_monitor);
	if (r->facts_watch)
		facts_watch_close(r->facts_watch);
	if (r->conntrack)
		conntrack_close(r->conntrack);
	config_file_close(r->config_file);
	cluster_free(r->cluster);
	instance_free(r->instance);
	event_base_free(r->base);
}

/* Takes over 'config'. */
static int start(struct runner *r, const struct cli_options *o, const char *node, struct config *config,
	struct error *err)
{
	struct agent_edges edges = {
		.now = monotonic, .wall = wall, .refresh = refresh, .probe = probe, .arg = r};
	struct cluster_observer observer;
	struct utsname uts;
	int n;

	r->base = event_base_new();
	if (!r->base)
		abort();
	r->timer = evtimer_new(r->base, on_timer, r);
	r->cluster = cluster_new();
	ended_flows_init(&r->ended, r->cluster);
	observer = ended_flows_observer(&r->ended);
	cluster_observe(r->cluster, &observer);
	n = open_kernel(r, err);
	agent_init(&r->agent, node, config, r->cluster, r->backend, &edges);
	if (uname(&uts) == 0) {
		snprintf(r->agent.facts.kernel, sizeof(r->agent.facts.kernel), "%s", uts.release);
		snprintf(r->agent.facts.kernel_version, sizeof(r->agent.facts.kernel_version), "%s",
			uts.version);
	}
	if (n < 0)
		return n;
	r->instance = instance_new(r->base, node, on_instance, r);
	agent_set_waiting(&r->agent, !instance_held(r->instance));
	n = open_http(r, err);
	if (n < 0)
		return n;
	if (o->config) {
		n = config_file_open(o->config, &r->config_file, err);
		if (n < 0)
			return n;
		r->config_event = add_event(r, config_file_fd(r->config_file), on_config);
	}
	add_signals(r);
	n = open_source(r, o, err);
	if (n < 0)
		return n;
	r->events = events_new(r->base, r->source, node, on_source_problem, r);
	arm(r);
	return 0;
}

static int finish(struct runner *r)
{
	struct error err = {0};
	bool removed;

	if (r->failed)
		return CLI_FAILED;
	/* Of another agent's table it is not ours to say. */
	if (!r->agent.config.cleanup_on_exit || !r->backend || r->agent.waiting)
		return CLI_OK;
	if (nft_cleanup(false, &removed, &err) < 0)
		return cli_fail(CLI_FAILED, &err);
	log_info("table inet %s %s", RULESET_TABLE, removed ? "removed" : "was not there");
	return CLI_OK;
}

int cmd_run(const struct cli_options *o)
{
	CLEANUP_FREE char *node = NULL;
	struct runner r = {0};
	struct error err = {0};
	struct config config;
	int status = CLI_OK;
	bool guessed;

	if (cli_config(o, &config) != CLI_OK)
		return CLI_USAGE;
	log_setup(config.log_level, config.log_format);
	node = cli_node(o, &guessed, &err);
	if (!node || check_privileges(&err) < 0) {
		config_done(&config);
		return cli_fail(CLI_FAILED, &err);
	}
	log_info("slipstream %s (%s), node %s%s", SLIPSTREAM_VERSION, SLIPSTREAM_COMMIT, node,
		guessed ? " by the host name (--node NAME for another)" : "");
	if (start(&r, o, node, &config, &err) < 0) {
		status = cli_fail(CLI_FAILED, &err);
	} else {
		event_base_dispatch(r.base);
		status = finish(&r);
	}
	close_all(&r);
	return status;
}
