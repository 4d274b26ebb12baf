/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "controller/cli.h"

#include "base/mem.h"
#include "controller/status.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>

static size_t take(char *data, size_t size, size_t n, void *arg)
{
	struct strbuf *body = arg;

	if (body->len + size * n > STATUS_JSON_MAX)
		return 0; /* ends the transfer */
	strbuf_add(body, data, size * n);
	return size * n;
}

static int fetch(const char *address, struct strbuf *body, struct error *err)
{
	CLEANUP_FREE char *url = xasprintf("http://%s/status", address);
	char text[CURL_ERROR_SIZE] = "";
	CURL *curl = curl_easy_init();
	long code = 0;
	CURLcode r;

	if (!curl)
		abort();
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, 10L);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, text);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
	r = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
	curl_easy_cleanup(curl);
	if (r != CURLE_OK)
		return error_set(err, -EIO, url, "is `slipstream run` running? else give --address HOST:PORT",
			"%s", *text ? text : curl_easy_strerror(r));
	if (code != 200)
		return error_set(
			err, -EPROTO, url, "does slipstream listen there?", "the answer is HTTP %ld", code);
	return 0;
}

/* NULL with 'err' filled when it is not known. */
static char *address_of(const struct config *config, struct error *err)
{
	const char *host = cli_listen_host(config, err);

	if (!host)
		return NULL;
	/* What listens on all addresses answers on this one. */
	if (!*host || !strcmp(host, "0.0.0.0"))
		host = "127.0.0.1";
	else if (!strcmp(host, "::"))
		host = "::1";
	return xasprintf(strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, config->listen_port);
}

int cmd_status(const struct cli_options *o)
{
	CLEANUP_FREE char *address = NULL;
	struct strbuf body = {0}, out = {0};
	struct error err = {0};
	struct config config;
	int status = CLI_OK;

	if (o->address) {
		address = xstrdup(o->address);
	} else {
		if (cli_config(o, &config) != CLI_OK)
			return CLI_USAGE;
		address = address_of(&config, &err);
		config_done(&config);
		if (!address)
			return cli_fail(CLI_FAILED, &err);
	}
	if (fetch(address, &body, &err) < 0)
		status = cli_fail(CLI_FAILED, &err);
	else if ((!o->json || !body.len) && status_text(body.data ? body.data : "", body.len, &out, &err) < 0)
		status = cli_fail(CLI_FAILED, &err);
	else
		fputs(o->json ? body.data : out.data, stdout);
	strbuf_done(&body);
	strbuf_done(&out);
	return status;
}
