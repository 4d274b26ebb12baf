/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef K8S_API_RESOURCE_H
#define K8S_API_RESOURCE_H

#include "base/strbuf.h"
#include "k8s/api_body.h"
#include "k8s/kubeconfig.h"
#include "k8s/reflector.h"
#include "k8s/source.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * api_resource: one resource of an API server, followed into the replica; all of the client but its transport, its clock
 * and its log. For the room's own files and for the simulator of tests/sim.
 *
 * The owner sends what it is asked to send, passes on what comes (headers, then bytes of the body, then the end), and
 * ticks at 'deadline'. What that means is decided by the reflector, what the bytes say by api_body; here is what
 * lies between: which answer is which input, when the replica's relist begins and ends, what a failure is called.
 *
 * No callback may call back into the resource, and what 'send' sends is answered later.
 */
struct api_resource_owner {
	uint64_t (*now)(void *arg);  /* milliseconds, never going back */
	double (*random)(void *arg); /* in [0, 1), a new one each time */
	/* One request at a time: the one before is over, or was cancelled. 'q' is valid during the call. */
	void (*send)(void *arg, const struct reflector_request *q);
	void (*cancel)(
		void *arg); /* drop what is under way, if anything is; nothing of it is wanted any more */
	void (*token_refused)(void *arg);
	void (*failed)(void *arg, enum source_failure failure); /* to be counted */
	void (*problem)(
		void *arg, enum source_failure failure, const struct error *err); /* the present one */
	void (*healthy)(void *arg);                                               /* none any more */
	void (*no_watchlist)(void *arg, const struct error *err);                 /* lists from now on; why */
	void (*bad_object)(void *arg, const struct error *err);                   /* one that is left out */
	void *arg;
};

struct api_resource {
	/* Set by the owner before api_resource_start(), borrowed. */
	struct api_resource_owner owner;
	struct cluster *cluster;
	const struct kubeconfig *kubeconfig; /* for words */
	bool *answered; /* shared by a server's resources: it has answered with 200, once */
	enum object_kind kind;
	bool endpoints_auto; /* where the server has no EndpointSlices: Endpoints */

	/* To be read. */
	bool endpoints;      /* Endpoints take the place of EndpointSlices; may be set at the start */
	uint64_t deadline;   /* api_resource_tick() is due then, unless something else comes first */
	bool relisting;      /* a list is coming in */
	bool dirty;          /* the replica moved; cleared by the owner */
	bool initial_events; /* what is under way is a WatchList before its bookmark */
	struct source_resource_status status; /* 'last_event' and 'problem' are the owner's */

	/* Private. */
	struct reflector *reflector;
	struct api_body *body;
	bool watch; /* what is under way */
	unsigned http, retry_after_s;
	struct strbuf error_body;
};

/* 'watchlist': WatchList instead of LIST, where the server can. The first tick, due at once, sends the first request. */
void api_resource_start(struct api_resource *r, bool field_selector, bool watchlist);
/* Aborts the relist that is under way; the replica stays. A resource that was never started is fine. */
void api_resource_stop(struct api_resource *r);

void api_resource_tick(struct api_resource *r);
/* 'retry_after_s' 0: none. */
void api_resource_headers(struct api_resource *r, unsigned http, unsigned retry_after_s);
/* May cancel the request: nothing more of it is passed on then. */
void api_resource_data(struct api_resource *r, const char *data, size_t len);
/*
 * The request is over. 'http' 0: there was no answer; 'failed': the transport failed, before or within the answer, and 'failure'
 * and 'err' (may be NULL) say how.
 */
void api_resource_done(struct api_resource *r, unsigned http, bool failed, enum source_failure failure,
	const struct error *err);

#endif
