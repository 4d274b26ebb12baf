/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "k8s/transport_private.h"

#include "base/addr.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/utsname.h>

#define RECEIVE_BUFFER 65536

/* As Go calls it. */
static const char *machine(struct utsname *u)
{
	if (uname(u) < 0)
		return "unknown";
	if (!strcmp(u->machine, "x86_64"))
		return "amd64";
	if (!strcmp(u->machine, "aarch64"))
		return "arm64";
	return u->machine;
}

/* Whether $NO_PROXY covers 'host': addresses, CIDRs, names and what is below them, "*". For tls-server-name only,
 * where libcurl would look at that name; otherwise it does this by itself (from 7.86 on with CIDRs). */
static bool no_proxy_covers(const char *host)
{
	const char *list = getenv("no_proxy") ? getenv("no_proxy") : getenv("NO_PROXY");
	CLEANUP_FREE char *copy = xstrdup(list ? list : "");
	CLEANUP_FREE char *bare = xstrndup(host + (*host == '['), strcspn(host + (*host == '['), "]"));
	char *next = NULL;
	struct addr addr;
	bool is_addr = addr_parse(bare, &addr);

	for (char *item = strtok_r(copy, ", ", &next); item; item = strtok_r(NULL, ", ", &next)) {
		size_t len = strlen(bare);
		struct prefix prefix;
		size_t n;

		if (!strcmp(item, "*"))
			return true;
		if (is_addr) {
			if (!strcmp(item, bare) || (strchr(item, '/') && prefix_parse(item, &prefix, NULL) &&
							   prefix_has(&prefix, &addr)))
				return true;
			continue;
		}
		item += *item == '.';
		n = strlen(item);
		if (n && n <= len && !strcasecmp(bare + len - n, item) &&
			(n == len || bare[len - n - 1] == '.'))
			return true;
	}
	return false;
}

/* Checks the server's URL; for tls-server-name prepares a URL with that name, the address to connect to, and
 * the Host. */
int transport_request_init(struct transport *t, struct error *err)
{
	char *host = NULL, *port = NULL, *url = NULL;
	const char *name = t->k->tls_server_name;
	struct utsname machine_name;
	CURLU *u = curl_url();
	CURLUcode rc = u ? curl_url_set(u, CURLUPART_URL, t->k->server, 0) : CURLUE_OUT_OF_MEMORY;

	t->user_agent = xasprintf("slipstream/%s (linux/%s)", SLIPSTREAM_VERSION, machine(&machine_name));
	if (!rc)
		rc = curl_url_get(u, CURLUPART_HOST, &host, 0);
	if (!rc)
		rc = curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
	if (!rc && name) {
		rc = curl_url_set(u, CURLUPART_HOST, name, 0);
		if (!rc)
			rc = curl_url_get(u, CURLUPART_URL, &url, 0);
		if (!rc) {
			t->connect_to = xasprintf("%s:%s:%s:%s", name, port, host, port);
			t->host_header = xasprintf("Host: %s:%s", host, port);
			t->direct = no_proxy_covers(host);
			t->url = xstrdup(url);
			while (t->url[0] && t->url[strlen(t->url) - 1] == '/')
				t->url[strlen(t->url) - 1] = '\0';
		}
	} else if (!rc) {
		t->url = xstrdup(t->k->server);
	}
	if (rc) {
		CLEANUP_FREE char *object = xasprintf("API server %s", t->k->server);

		error_set(err, -EINVAL, object, "give the API server's https:// address",
			"not an address: %s", curl_url_strerror(rc));
		error_at(err, t->k->server_where, 0);
	}
	curl_free(host);
	curl_free(port);
	curl_free(url);
	curl_url_cleanup(u);
	return rc ? -EINVAL : 0;
}

static CURLcode set_blob(CURL *easy, CURLoption option, const struct credentials_item *item)
{
	struct curl_blob blob = {.data = item->data, .len = item->len, .flags = CURL_BLOB_COPY};

	return curl_easy_setopt(easy, option, &blob);
}

/* Contents, not file names, are given to curl: its cache of connections and CA stores then knows the old from
 * the new. */
static CURLcode set_tls(struct transport *t, CURL *easy)
{
	CURLcode rc = curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);

	if (t->credentials.ca.data && !rc) {
		rc = set_blob(easy, CURLOPT_CAINFO_BLOB, &t->credentials.ca);
		if (!rc) /* else the system's folder of CAs would be trusted as well */
			rc = curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	}
	if (t->credentials.cert.data && t->credentials.key.data && !rc) {
		rc = set_blob(easy, CURLOPT_SSLCERT_BLOB, &t->credentials.cert);
		if (!rc)
			rc = set_blob(easy, CURLOPT_SSLKEY_BLOB, &t->credentials.key);
	}
	if (t->k->insecure && !rc) {
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	return rc;
}

static CURLcode add_header(struct transport_request *r, const char *line)
{
	struct curl_slist *longer = curl_slist_append(r->headers, line);

	if (!longer)
		return CURLE_OUT_OF_MEMORY;
	r->headers = longer;
	return CURLE_OK;
}

static CURLcode set_headers(struct transport *t, struct transport_request *r)
{
	CURLcode rc = add_header(r, "Accept: application/json");

	if (r->body && !rc)
		rc = add_header(r, r->patch ? "Content-Type: application/merge-patch+json"
					    : "Content-Type: application/json");
	if (t->host_header && !rc)
		rc = add_header(r, t->host_header);
	if (t->credentials.token.data && !rc) {
		CLEANUP_FREE char *line = xasprintf("Authorization: Bearer %s", t->credentials.token.data);

		rc = add_header(r, line);
		explicit_bzero(line, strlen(line));
	}
	return rc ? rc : curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers);
}

CURLcode transport_set_options(struct transport *t, struct transport_request *r)
{
	CLEANUP_FREE char *url = xasprintf("%s%s", t->url, r->path);
	CURL *easy = r->easy;
	CURLcode rc;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, r);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, r->problem);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, transport_open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, t);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, transport_close_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, t);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)TRANSPORT_CONNECT_LIMIT_MS);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BUFFER);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, t->protocol == PROTOCOL_HTTP1 ? 0L : 1L);
	if (t->k->proxy_url) {
		if ((rc = curl_easy_setopt(easy, CURLOPT_PROXY, t->k->proxy_url)))
			return rc;
		/* It is for this server whatever NO_PROXY says, as with client-go. */
		curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
	} else if (t->connect_to) {
		curl_easy_setopt(easy, t->direct ? CURLOPT_PROXY : CURLOPT_NOPROXY, "");
	}
	if (t->connect_to) {
		r->connect_to = curl_slist_append(NULL, t->connect_to);
		curl_easy_setopt(easy, CURLOPT_CONNECT_TO, r->connect_to);
	}
	if (r->body) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, r->body);
		if (r->patch)
			curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "PATCH");
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)t->write_ms);
	}
	if (r->gzip)
		curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "gzip");
	if ((rc = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https")) ||
		(rc = curl_easy_setopt(easy, CURLOPT_USERAGENT, t->user_agent)) ||
		(rc = curl_easy_setopt(easy, CURLOPT_URL, url)) || (rc = set_tls(t, easy)))
		return rc;
	return set_headers(t, r);
}

static bool tls_failure(CURLcode code)
{
	switch (code) {
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_ENGINE_INITFAILED:
	case CURLE_SSL_ENGINE_NOTFOUND:
	case CURLE_SSL_ENGINE_SETFAILED:
		return true;
	default:
		return false;
	}
}

static const char *mend_for(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
		return "check the server's name, and this node's DNS";
	case CURLE_COULDNT_RESOLVE_PROXY:
		return "check proxy-url or the proxy variables of the environment";
	case CURLE_COULDNT_CONNECT:
	case CURLE_OPERATION_TIMEDOUT:
		return "check that the API server runs and that this is its address";
	case CURLE_PEER_FAILED_VERIFICATION:
		return "check certificate-authority, and that the certificate has the server's name (else "
		       "set "
		       "tls-server-name)";
	case CURLE_SSL_CACERT_BADFILE:
		return "check certificate-authority";
	case CURLE_SSL_CERTPROBLEM:
		return "check client-certificate and client-key, and that they belong together";
	case CURLE_SSL_CONNECT_ERROR:
		return "check that the address is that of a TLS server";
	default:
		return NULL;
	}
}

/* A server that goes away during the TLS handshake is no failure of TLS. */
static bool lost_in_handshake(const struct transport_request *r, CURLcode code)
{
	long error = 0;

	return code == CURLE_SSL_CONNECT_ERROR && r->easy &&
	       curl_easy_getinfo(r->easy, CURLINFO_OS_ERRNO, &error) == CURLE_OK && error;
}

/* In words that are the same each time: libcurl's own have milliseconds in them. */
static void say(const struct transport_request *r, CURLcode code, char *buf, size_t size)
{
	curl_off_t connected = 0;
	long error = 0;

	if (r->easy) {
		curl_easy_getinfo(r->easy, CURLINFO_OS_ERRNO, &error);
		curl_easy_getinfo(r->easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
	}
	if ((code == CURLE_COULDNT_CONNECT || lost_in_handshake(r, code)) && error)
		snprintf(buf, size, "cannot connect: %s", strerror((int)error));
	else if (code == CURLE_OPERATION_TIMEDOUT && connected)
		snprintf(buf, size, "no answer within %u s", r->t->write_ms / 1000);
	else if (code == CURLE_OPERATION_TIMEDOUT)
		snprintf(buf, size, "cannot connect: no answer within %d s",
			TRANSPORT_CONNECT_LIMIT_MS / 1000);
	else if (!strncmp(r->problem, "Unsupported proxy", strlen("Unsupported proxy")))
		snprintf(buf, size, "%s", curl_easy_strerror(code)); /* it quotes the URL, password and all */
	else
		snprintf(buf, size, "%s", r->problem[0] ? r->problem : curl_easy_strerror(code));
}

void transport_explain(const struct transport_request *r, CURLcode code, struct transport_result *result)
{
	const struct kubeconfig *k = r->t->k;
	CLEANUP_FREE char *object = xasprintf("API server %s", k->server);
	char words[CURL_ERROR_SIZE];

	say(r, code, words, sizeof(words));
	result->failed = true;
	if (lost_in_handshake(r, code))
		code = CURLE_COULDNT_CONNECT;
	result->failure = tls_failure(code) ? SOURCE_FAILURE_TLS : SOURCE_FAILURE_CONNECT;
	error_set(&result->error, -EIO, object, mend_for(code), "%s", words);
	error_at(&result->error, k->server_where, 0);
}
