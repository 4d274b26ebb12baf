/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading a list of 100 MB: what it takes is what is kept and one object, not the response. */
#include "api_fixture.h"

#include <malloc.h>

#define NODES 800
#define NODE_BYTES (128 << 10)
/* Of libcurl's buffers, one object and its tree, 800 nodes; a fiftieth of the response. */
#define MAX_GROWTH (2 << 20)

#if defined(__SANITIZE_ADDRESS__)
size_t __sanitizer_get_current_allocated_bytes(void);
#endif

static size_t heap_used(void)
{
#if defined(__SANITIZE_ADDRESS__)
	return __sanitizer_get_current_allocated_bytes();
#else
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
#endif
}

static size_t heap_peak, sent;
static struct evbuffer *sending;

static void look(void)
{
	size_t used = heap_used() - (sending ? evbuffer_get_length(sending) : 0);

	if (used > heap_peak)
		heap_peak = used;
}

static void fill(struct evbuffer *out, const char *text, size_t len)
{
	for (size_t size = strlen(text); len >= size; len -= size)
		evbuffer_add(out, text, size);
}

/* A quarter of a node at a time: one with all that makes nodes large. */
static bool more_nodes(struct evbuffer *out, unsigned done)
{
	unsigned n = done / 4;
	size_t before = evbuffer_get_length(out);

	sending = out;
	look();
	if (n == NODES) {
		evbuffer_add_printf(out, "]}");
		sending = NULL;
		return false;
	}
	if (!done)
		evbuffer_add_printf(
			out, "{\"kind\":\"NodeList\",\"metadata\":{\"resourceVersion\":\"20\"},\"items\":[");
	switch (done % 4) {
	case 0:
		evbuffer_add_printf(
			out, "%s{\"metadata\":{\"name\":\"node-%u\",\"managedFields\":[", n ? "," : "", n);
		fill(out, "{\"manager\":\"kubelet\",\"fieldsV1\":{\"f:status\":{\"f:conditions\":{}}}},",
			NODE_BYTES / 4);
		break;
	case 1:
		fill(out, "{\"manager\":\"kubelet\",\"fieldsV1\":{\"f:status\":{\"f:conditions\":{}}}},",
			NODE_BYTES / 4);
		evbuffer_add_printf(out, "{}],\"annotations\":{"
					 "\"kubectl.kubernetes.io/last-applied-configuration\":\"");
		break;
	case 2:
		fill(out, "{\\\"apiVersion\\\":\\\"v1\\\"}", NODE_BYTES / 4);
		evbuffer_add_printf(out,
			"\"}},\"spec\":{\"podCIDRs\":[\"10.%u.%u.0/24\"]},\"status\":{\"images\":[", n / 256,
			n % 256);
		break;
	default:
		fill(out, "{\"names\":[\"registry.example/image@sha256:0123456789\"],\"sizeBytes\":1},",
			NODE_BYTES / 4);
		evbuffer_add_printf(out, "{}]}}");
	}
	sent += evbuffer_get_length(out) - before;
	return true;
}

static void on_look(evutil_socket_t fd, short events, void *arg)
{
	(void)fd;
	(void)events;
	(void)arg;
	look();
}

static void list_of_100_megabytes(void **state)
{
	struct answer answers[] = {{"/api/v1/nodes?resource", NULL, 1, "200 OK", .more = more_nodes}};
	struct fixture f;
	struct timeval tv = {.tv_usec = 1000};
	struct event *ticker;
	size_t before;

	(void)state;
	start(&f, answers, 1);
	ticker = event_new(f.base, -1, EV_PERSIST, on_look, NULL);
	event_add(ticker, &tv);
	before = heap_used();
	heap_peak = before;
	assert_true(RUN_UNTIL(&f, 60000, cluster_all_synced(f.cluster)));
	look();
	print_message("%zu bytes of list, heap %zu KB before, %zu KB more at most\n", sent, before >> 10,
		(heap_peak - before) >> 10);
	assert_true(sent > 100000000);
	assert_int_equal(cluster_count(f.cluster, OBJECT_NODE), NODES);
	assert_non_null(cluster_node(f.cluster, "node-799")->pod_cidrs);
	assert_true(heap_peak - before < MAX_GROWTH);
	assert_int_equal(f.problems, 0);
	event_free(ticker);
	finish(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(list_of_100_megabytes)};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
