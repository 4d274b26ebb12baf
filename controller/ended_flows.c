/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/ended_flows.h"

#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MS UINT64_C(1000)

#define SETTLE (200 * MS)
#define SECOND_LOOK (1000 * MS)
#define PAUSE_MIN (200 * MS)
#define PAUSE_MAX (500 * MS)
#define PAUSE_FACTOR 10
#define LIST_LOOK (1000 * MS) /* a list that came to nothing need not be told */

static bool has_port(const struct endpoint_slice *s, uint16_t port)
{
	for (size_t i = 0; i < s->n_udp_ports; i++)
		if (s->udp_ports[i] == port)
			return true;
	return false;
}

static bool of_service(const struct endpoint_slice *s)
{
	return s && *s->service;
}

/* Whether it has that address. '*hint' is where to look first: slices mostly change in one place. */
static bool has_address(const struct endpoint_slice *s, const struct addr *addr, size_t *hint)
{
	for (size_t i = 0; i < s->n_endpoints; i++) {
		size_t k = (*hint + i) % s->n_endpoints;

		if (!addr_cmp(&s->endpoints[k].addr, addr)) {
			*hint = k + 1;
			return true;
		}
	}
	return false;
}

/* What the old slice had and the new one has not; whether another slice has it is looked at when its time has come. */
static void on_slice(void *arg, const struct endpoint_slice *old, const struct endpoint_slice *new)
{
	struct ended_flows *e = arg;
	size_t hint = 0;

	if (!of_service(old) || !old->n_udp_ports || e->cannot ||
		!cluster_synced(e->cluster, OBJECT_ENDPOINT_SLICE))
		return;
	for (size_t i = 0; i < old->n_endpoints; i++) {
		struct udp_endpoint endpoint = {.addr = old->endpoints[i].addr};
		bool stays = of_service(new) && has_address(new, &endpoint.addr, &hint);

		for (size_t k = 0; k < old->n_udp_ports; k++) {
			endpoint.port = old->udp_ports[k];
			if (!stays || !has_port(new, endpoint.port))
				*VEC_ADD(e->list, e->n, e->cap) = (struct ended_flow){.endpoint = endpoint};
		}
	}
}

void ended_flows_init(struct ended_flows *e, const struct cluster *cluster)
{
	*e = (struct ended_flows){.cluster = cluster};
}

void ended_flows_done(struct ended_flows *e)
{
	free(e->list);
	free(e->flush);
	*e = (struct ended_flows){0};
}

struct cluster_observer ended_flows_observer(struct ended_flows *e)
{
	return (struct cluster_observer){.endpoint_slice = on_slice, .arg = e};
}

int64_t ended_flows_wait(const struct ended_flows *e, uint64_t now)
{
	uint64_t at = UINT64_MAX;

	for (size_t i = 0; i < e->n; i++)
		if (!e->list[i].at)
			return 0;
		else if (e->list[i].at < at)
			at = e->list[i].at;
	if (!e->n)
		return -1;
	if (at < e->not_before)
		at = e->not_before;
	if (at < now + LIST_LOOK && cluster_relisting(e->cluster, OBJECT_ENDPOINT_SLICE))
		at = now + LIST_LOOK;
	return at > now ? (int64_t)(at - now) : 0;
}

static int by_endpoint(const void *a, const void *b)
{
	const struct ended_flow *x = a, *y = b;

	return udp_endpoint_cmp(&x->endpoint, &y->endpoint);
}

/* Marks those of the 'n' (sorted, each once) that some slice has. */
static void mark_listed(const struct cluster *c, struct ended_flow *list, size_t n)
{
	for (const struct endpoint_slice *s = cluster_next_endpoint_slice(c, NULL); s;
		s = cluster_next_endpoint_slice(c, s)) {
		for (size_t i = 0; of_service(s) && s->n_udp_ports && i < s->n_endpoints; i++) {
			struct ended_flow key = {.endpoint.addr = s->endpoints[i].addr}, *found;

			for (size_t k = 0; k < s->n_udp_ports; k++) {
				key.endpoint.port = s->udp_ports[k];
				found = bsearch(&key, list, n, sizeof(*list), by_endpoint);
				if (found)
					found->listed = true;
			}
		}
	}
}

/* Takes those whose time has come out of the list, sorted, each once, a first look before a second. */
static struct ended_flow *take_due(struct ended_flows *e, uint64_t now, size_t *ret_n)
{
	struct ended_flow *due = NULL;
	size_t n = 0, cap = 0, kept = 0, once = 0;

	for (size_t i = 0; i < e->n; i++)
		if (e->list[i].at <= now)
			*VEC_ADD(due, n, cap) = e->list[i];
		else
			e->list[kept++] = e->list[i];
	e->n = kept;
	if (n)
		qsort(due, n, sizeof(*due), by_endpoint);
	for (size_t i = 0; i < n; i++)
		if (once && !by_endpoint(&due[once - 1], &due[i]))
			due[once - 1].again &= due[i].again;
		else
			due[once++] = due[i];
	*ret_n = once;
	return due;
}

static void drop_list(struct ended_flows *e)
{
	free(e->list);
	e->list = NULL;
	e->n = e->cap = 0;
}

bool ended_flows_step(struct ended_flows *e, uint64_t now, const struct udp_endpoint **ret, size_t *ret_n)
{
	CLEANUP_FREE struct ended_flow *due = NULL;
	size_t n, n_flush = 0;

	*ret = NULL;
	*ret_n = 0;
	free(TAKE_PTR(e->flush));
	for (size_t i = 0; i < e->n; i++)
		if (!e->list[i].at)
			e->list[i].at = now + SETTLE;
	if (now < e->not_before || cluster_relisting(e->cluster, OBJECT_ENDPOINT_SLICE))
		return false;
	due = take_due(e, now, &n);
	if (!n)
		return false;
	mark_listed(e->cluster, due, n);
	e->flush = xcalloc(n, sizeof(*e->flush));
	for (size_t i = 0; i < n; i++) {
		if (due[i].listed)
			continue;
		e->flush[n_flush++] = due[i].endpoint;
		if (!due[i].again)
			*VEC_ADD(e->list, e->n, e->cap) = (struct ended_flow){
				.endpoint = due[i].endpoint, .again = true, .at = now + SECOND_LOOK};
	}
	if (!e->n)
		drop_list(e);
	e->began = now;
	*ret = e->flush;
	*ret_n = n_flush;
	return n_flush > 0;
}

bool ended_flows_result(struct ended_flows *e, uint64_t now, int code, const struct error *err)
{
	uint64_t pause = (now - e->began) * PAUSE_FACTOR;
	const char *text = code < 0 ? error_text(err) : "";
	bool tell;

	e->not_before = now + (pause < PAUSE_MIN ? PAUSE_MIN : pause > PAUSE_MAX ? PAUSE_MAX : pause);
	if (code >= 0)
		e->ended += (uint64_t)code;
	else
		e->failures++;
	if (code == -EBUSY) {
		e->cannot = true;
		drop_list(e);
	}
	tell = *text && strncmp(e->problem, text, sizeof(e->problem) - 1);
	snprintf(e->problem, sizeof(e->problem), "%s", text);
	return tell;
}
