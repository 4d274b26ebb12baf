/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TESTS_UNIT_TLS_SERVER_H
#define TESTS_UNIT_TLS_SERVER_H

#include "base/mem.h"
#include "base/strbuf.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/*
 * TLS and HTTP/2 in front of a scripted server that speaks plain HTTP/1.1 (api_server.h), on the test's own
 * loop, so that one script serves all three:
 *
 *	struct api_server api = {.base = base, .answers = ...};
 *	struct tls_server tls = {.base = base};
 *
 *	assert_true(api_server_listen(&api, 0));
 *	tls.backend = api.port;
 *	assert_true(tls_server_listen(&tls, 0));
 *	... https://127.0.0.1:tls.port (also "localhost" and [::1]), trusted by the PEM text tls.ca ...
 *	tls_server_free(&tls);
 *	api_server_stop(&api);
 *
 * Certificates are made here and are good for a day. Each HTTP/2 stream becomes a connection to the backend
 * with a head like "GET /path HTTP/1.1\r\nuser-agent: ..."; header names are in lower case. A body that the
 * backend cuts short becomes RST_STREAM, its end the end of the stream.
 */
struct tls_authority {
	EVP_PKEY *key;
	X509 *cert;
};

struct tls_server {
	struct event_base *base;
	unsigned short backend;               /* port on 127.0.0.1 */
	bool ipv6;                            /* listen on ::1 */
	bool http1;                           /* no HTTP/2 */
	bool rude;                            /* HTTP/1.1: end of a connection without close_notify */
	int max_version;                      /* TLS1_1_VERSION ...; 0: the newest */
	const char *names;                    /* subjectAltName; NULL: DNS:localhost,IP:127.0.0.1,IP:::1 */
	struct tls_authority *authority;      /* of the server's certificate; NULL: one of its own */
	struct tls_authority *want_client_of; /* clients must show a certificate of it */
	unsigned goaway_at;  /* GOAWAY before the answer to this request of a connection, from 1; 0: never */
	bool goaway_refuses; /* that GOAWAY does not cover that request */
	/* Takes decrypted bytes instead of what is described above. */
	void (*raw)(struct tls_server *s, struct bufferevent *b, void *arg);
	void *raw_arg;

	unsigned short port;
	char *ca;             /* PEM: what to trust */
	unsigned connections; /* handshakes that ended well */
	unsigned failures;    /* connections that did not get so far */
	char sni[256];        /* of the last one */
	char client[256];     /* the last one's client certificate: its commonName */
	struct evconnlistener *listener;
	SSL_CTX *ctx;
	struct tls_authority own;
	struct tls_conn *conns;
};

struct tls_stream {
	struct tls_conn *c;
	struct tls_stream *next;
	int32_t id;
	char *method, *path;
	struct strbuf headers, body;
	struct bufferevent *plain;
	struct evbuffer *answer;
	bool answered, ended;
	long long left; /* of Content-Length; negative: until the end */
};

struct tls_conn {
	struct tls_server *s;
	struct tls_conn *next;
	struct bufferevent *tls;
	struct bufferevent *plain; /* HTTP/1.1 */
	bool last;                 /* HTTP/1.1: closes when all is sent */
	bool up;
	nghttp2_session *h2;
	struct tls_stream *streams;
	unsigned requests;
};

/* --- certificates --- */

static inline void tls_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	if (e)
		X509_add_ext(cert, e, -1);
	X509_EXTENSION_free(e);
}

/* 'by' NULL: an authority, signed by itself. */
static inline X509 *tls_certificate(
	EVP_PKEY *key, const char *name, const char *names, const struct tls_authority *by)
{
	static long serial;
	X509 *cert = X509_new();
	X509_NAME *subject = X509_get_subject_name(cert);

	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(cert, by ? X509_get_subject_name(by->cert) : subject);
	tls_extension(
		cert, by ? by->cert : cert, NID_basic_constraints, by ? "CA:FALSE" : "critical,CA:TRUE");
	if (names)
		tls_extension(cert, by ? by->cert : cert, NID_subject_alt_name, names);
	X509_sign(cert, by ? by->key : key, EVP_sha256());
	return cert;
}

static inline void tls_authority_init(struct tls_authority *a, const char *name)
{
	a->key = EVP_EC_gen("P-256");
	a->cert = tls_certificate(a->key, name, NULL, NULL);
}

static inline void tls_authority_done(struct tls_authority *a)
{
	EVP_PKEY_free(a->key);
	X509_free(a->cert);
	memset(a, 0, sizeof(*a));
}

static inline char *tls_text(BIO *bio)
{
	char *data;
	long len = BIO_get_mem_data(bio, &data);
	char *text = xstrndup(data, (size_t)len);

	BIO_free(bio);
	return text;
}

static inline char *tls_cert_text(X509 *cert)
{
	BIO *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_X509(bio, cert);
	return tls_text(bio);
}

/* A client certificate of 'by' and its key, as PEM. */
static inline void tls_issue(const struct tls_authority *by, const char *name, char **cert, char **key)
{
	EVP_PKEY *k = EVP_EC_gen("P-256");
	X509 *c = tls_certificate(k, name, NULL, by);
	BIO *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_PrivateKey(bio, k, NULL, NULL, 0, NULL, NULL);
	*key = tls_text(bio);
	*cert = tls_cert_text(c);
	X509_free(c);
	EVP_PKEY_free(k);
}

/* --- connections --- */

static inline void tls_stream_free(struct tls_stream *st)
{
	struct tls_stream **at = &st->c->streams;

	while (*at != st)
		at = &(*at)->next;
	*at = st->next;
	if (st->plain)
		bufferevent_free(st->plain);
	evbuffer_free(st->answer);
	free(st->method);
	free(st->path);
	strbuf_done(&st->headers);
	strbuf_done(&st->body);
	free(st);
}

static inline void tls_conn_free(struct tls_conn *c)
{
	struct tls_conn **at = &c->s->conns;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	nghttp2_session_del(c->h2);
	while (c->streams)
		tls_stream_free(c->streams);
	if (c->plain)
		bufferevent_free(c->plain);
	bufferevent_free(c->tls);
	free(c);
}

static inline struct bufferevent *tls_backend(struct tls_server *s)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(s->backend),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct bufferevent *b = bufferevent_socket_new(s->base, -1, BEV_OPT_CLOSE_ON_FREE);

	bufferevent_socket_connect(b, (struct sockaddr *)&a, sizeof(a));
	bufferevent_enable(b, EV_READ | EV_WRITE);
	return b;
}

/* --- HTTP/2 --- */

/* Sends what is there to be sent. False: the connection is over and gone. */
static inline bool tls_h2_flush(struct tls_conn *c)
{
	nghttp2_session_send(c->h2);
	if (nghttp2_session_want_read(c->h2) || nghttp2_session_want_write(c->h2) ||
		evbuffer_get_length(bufferevent_get_output(c->tls)))
		return true;
	tls_conn_free(c);
	return false;
}

static inline ssize_t tls_h2_send(nghttp2_session *h2, const uint8_t *data, size_t len, int flags, void *arg)
{
	struct tls_conn *c = arg;

	(void)h2;
	(void)flags;
	bufferevent_write(c->tls, data, len);
	return (ssize_t)len;
}

static inline ssize_t tls_h2_body(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t size, uint32_t *flags,
	nghttp2_data_source *source, void *arg)
{
	struct tls_stream *st = source->ptr;
	int n = evbuffer_remove(st->answer, buf, size);

	(void)h2;
	(void)id;
	(void)arg;
	if (st->left > 0)
		st->left -= n;
	if (!evbuffer_get_length(st->answer) && (st->left == 0 || (st->left < 0 && st->ended)))
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	else if (!n)
		return st->ended ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : NGHTTP2_ERR_DEFERRED;
	return n;
}

/* The backend's head is complete, 'head' has it. */
static inline void tls_h2_answer(struct tls_stream *st, char *head)
{
	nghttp2_data_provider body = {.source.ptr = st, .read_callback = tls_h2_body};
	nghttp2_nv nv[32];
	size_t n = 0;
	char *next = NULL;
	char *line = strtok_r(head, "\r\n", &next);

	st->left = -1;
	nv[n++] = (nghttp2_nv){(uint8_t *)":status", (uint8_t *)line + 9, 7, 3, 0};
	while ((line = strtok_r(NULL, "\r\n", &next)) && n < ARRAY_SIZE(nv)) {
		char *colon = strchr(line, ':');
		char *value = colon ? colon + 1 + strspn(colon + 1, " ") : NULL;

		if (!colon || !strncasecmp(line, "connection:", 11))
			continue;
		for (char *p = line; p < colon; p++)
			*p |= *p >= 'A' && *p <= 'Z' ? 0x20 : 0;
		if (!strncmp(line, "content-length:", 15))
			st->left = atoll(value);
		nv[n++] = (nghttp2_nv){
			(uint8_t *)line, (uint8_t *)value, (size_t)(colon - line), strlen(value), 0};
	}
	st->answered = true;
	nghttp2_submit_response(st->c->h2, st->id, nv, n, &body);
}

static inline void tls_h2_backend_read(struct bufferevent *b, void *arg)
{
	struct tls_stream *st = arg;
	struct evbuffer *in = bufferevent_get_input(b);

	if (!st->answered) {
		struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
		CLEANUP_FREE char *head = NULL;

		if (end.pos < 0)
			return;
		head = xcalloc(1, (size_t)end.pos + 5);
		evbuffer_remove(in, head, (size_t)end.pos + 4);
		tls_h2_answer(st, head);
	}
	evbuffer_add_buffer(st->answer, in);
	nghttp2_session_resume_data(st->c->h2, st->id);
	tls_h2_flush(st->c);
}

static inline void tls_h2_backend_event(struct bufferevent *b, short what, void *arg)
{
	struct tls_stream *st = arg;

	(void)b;
	if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)))
		return;
	st->ended = true;
	bufferevent_disable(st->plain, EV_READ | EV_WRITE);
	if (st->answered)
		nghttp2_session_resume_data(st->c->h2, st->id);
	else
		nghttp2_submit_rst_stream(st->c->h2, 0, st->id, NGHTTP2_INTERNAL_ERROR);
	tls_h2_flush(st->c);
}

static inline int tls_h2_begin(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct tls_conn *c = arg;
	struct tls_stream *st;

	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	st = xcalloc(1, sizeof(*st));
	st->c = c;
	st->id = frame->hd.stream_id;
	st->answer = evbuffer_new();
	st->next = c->streams;
	c->streams = st;
	nghttp2_session_set_stream_user_data(h2, st->id, st);
	return 0;
}

static inline int tls_h2_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
	size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
	struct tls_stream *st = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);

	(void)flags;
	(void)arg;
	(void)name_len;
	(void)value_len;
	if (!st)
		return 0;
	if (!strcmp((const char *)name, ":method"))
		st->method = xstrdup((const char *)value);
	else if (!strcmp((const char *)name, ":path"))
		st->path = xstrdup((const char *)value);
	else if (!strcmp((const char *)name, ":authority"))
		strbuf_printf(&st->headers, "host: %s\r\n", value);
	else if (name[0] != ':')
		strbuf_printf(&st->headers, "%s: %s\r\n", name, value);
	return 0;
}

static inline int tls_h2_data(
	nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
	struct tls_stream *st = nghttp2_session_get_stream_user_data(h2, id);

	(void)flags;
	(void)arg;
	if (st)
		strbuf_add(&st->body, (const char *)data, len);
	return 0;
}

static inline int tls_h2_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct tls_conn *c = arg;
	struct tls_stream *st = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);

	if (!st || st->plain || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	c->requests++;
	if (c->requests == c->s->goaway_at) {
		nghttp2_submit_goaway(h2, 0, c->s->goaway_refuses ? st->id - 2 : st->id, 0, NULL, 0);
		if (c->s->goaway_refuses)
			return 0;
	}
	st->plain = tls_backend(c->s);
	bufferevent_setcb(st->plain, tls_h2_backend_read, NULL, tls_h2_backend_event, st);
	evbuffer_add_printf(bufferevent_get_output(st->plain), "%s %s HTTP/1.1\r\n%s\r\n", st->method,
		st->path, st->headers.data ? st->headers.data : "");
	bufferevent_write(st->plain, st->body.data, st->body.len);
	return 0;
}

static inline int tls_h2_stream_closed(nghttp2_session *h2, int32_t id, uint32_t code, void *arg)
{
	struct tls_stream *st = nghttp2_session_get_stream_user_data(h2, id);

	(void)code;
	(void)arg;
	if (st)
		tls_stream_free(st);
	return 0;
}

static inline void tls_h2_start(struct tls_conn *c)
{
	nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 100}};
	nghttp2_session_callbacks *cb;

	nghttp2_session_callbacks_new(&cb);
	nghttp2_session_callbacks_set_send_callback(cb, tls_h2_send);
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, tls_h2_begin);
	nghttp2_session_callbacks_set_on_header_callback(cb, tls_h2_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, tls_h2_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, tls_h2_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, tls_h2_stream_closed);
	nghttp2_session_server_new(&c->h2, cb, c);
	nghttp2_session_callbacks_del(cb);
	nghttp2_submit_settings(c->h2, 0, settings, ARRAY_SIZE(settings));
	nghttp2_session_send(c->h2);
}

/* --- HTTP/1.1 --- */

static inline void tls_h1_backend_read(struct bufferevent *b, void *arg)
{
	struct tls_conn *c = arg;

	bufferevent_write_buffer(c->tls, bufferevent_get_input(b));
}

static inline void tls_h1_end(struct tls_conn *c)
{
	if (!c->s->rude)
		SSL_shutdown(bufferevent_openssl_get_ssl(c->tls));
	tls_conn_free(c);
}

static inline void tls_h1_backend_event(struct bufferevent *b, short what, void *arg)
{
	struct tls_conn *c = arg;

	if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)))
		return;
	bufferevent_disable(b, EV_READ | EV_WRITE);
	c->last = true;
	if (!evbuffer_get_length(bufferevent_get_output(c->tls)))
		tls_h1_end(c);
}

/* --- all --- */

static inline void tls_conn_sent(struct bufferevent *b, void *arg)
{
	struct tls_conn *c = arg;

	(void)b;
	if (c->last)
		tls_h1_end(c);
	else if (c->h2)
		tls_h2_flush(c);
}

static inline void tls_conn_read(struct bufferevent *b, void *arg)
{
	struct tls_conn *c = arg;
	struct evbuffer *in = bufferevent_get_input(b);
	unsigned char data[4096];
	int n;

	if (c->s->raw) {
		c->s->raw(c->s, b, c->s->raw_arg);
		return;
	}
	if (!c->h2) {
		bufferevent_write_buffer(c->plain, in);
		return;
	}
	while ((n = evbuffer_remove(in, data, sizeof(data))) > 0) {
		if (nghttp2_session_mem_recv(c->h2, data, (size_t)n) < 0) {
			tls_conn_free(c);
			return;
		}
	}
	tls_h2_flush(c);
}

static inline void tls_conn_up(struct tls_conn *c)
{
	struct tls_server *s = c->s;
	SSL *ssl = bufferevent_openssl_get_ssl(c->tls);
	const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	X509 *peer = SSL_get0_peer_certificate(ssl);
	const unsigned char *protocol;
	unsigned len;

	c->up = true;
	s->connections++;
	snprintf(s->sni, sizeof(s->sni), "%s", sni ? sni : "");
	s->client[0] = '\0';
	if (peer)
		X509_NAME_get_text_by_NID(
			X509_get_subject_name(peer), NID_commonName, s->client, sizeof(s->client));
	SSL_get0_alpn_selected(ssl, &protocol, &len);
	if (s->raw)
		return;
	if (len == 2 && !memcmp(protocol, "h2", 2)) {
		tls_h2_start(c);
		return;
	}
	c->plain = tls_backend(s);
	bufferevent_setcb(c->plain, tls_h1_backend_read, NULL, tls_h1_backend_event, c);
}

static inline void tls_conn_event(struct bufferevent *b, short what, void *arg)
{
	struct tls_conn *c = arg;

	(void)b;
	if (what & BEV_EVENT_CONNECTED) {
		tls_conn_up(c);
	} else if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
		if (!c->up)
			c->s->failures++;
		tls_conn_free(c);
	}
}

static inline int tls_select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
	const unsigned char *in, unsigned in_len, void *arg)
{
	static const unsigned char both[] = "\x02h2\x08http/1.1";
	struct tls_server *s = arg;
	const unsigned char *ours = s->http1 ? both + 3 : both;
	unsigned len = s->http1 ? 9 : 12;

	(void)ssl;
	return SSL_select_next_proto((unsigned char **)out, out_len, ours, len, in, in_len) ==
			       OPENSSL_NPN_NEGOTIATED
		       ? SSL_TLSEXT_ERR_OK
		       : SSL_TLSEXT_ERR_NOACK;
}

static inline void tls_server_accept(
	struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *from, int len, void *arg)
{
	struct tls_server *s = arg;
	struct tls_conn *c = xcalloc(1, sizeof(*c));

	(void)l;
	(void)from;
	(void)len;
	c->s = s;
	c->tls = bufferevent_openssl_socket_new(s->base, fd, SSL_new(s->ctx), BUFFEREVENT_SSL_ACCEPTING,
		BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	bufferevent_openssl_set_allow_dirty_shutdown(c->tls, 1);
	c->next = s->conns;
	s->conns = c;
	bufferevent_setcb(c->tls, tls_conn_read, tls_conn_sent, tls_conn_event, c);
	bufferevent_enable(c->tls, EV_READ | EV_WRITE);
}

/* A (new) certificate for the connections from now on; 's->ca' becomes that of its authority. */
static inline void tls_server_certificate(struct tls_server *s)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert;

	if (!s->authority) {
		tls_authority_init(&s->own, "authority");
		s->authority = &s->own;
	}
	cert = tls_certificate(
		key, "server", s->names ? s->names : "DNS:localhost,IP:127.0.0.1,IP:::1", s->authority);
	SSL_CTX_use_certificate(s->ctx, cert);
	SSL_CTX_use_PrivateKey(s->ctx, key);
	free(s->ca);
	s->ca = tls_cert_text(s->authority->cert);
	X509_free(cert);
	EVP_PKEY_free(key);
}

/* Port 0: any. False when it cannot be had. */
static inline bool tls_server_listen(struct tls_server *s, unsigned short port)
{
	struct sockaddr_in6 a6 = {
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr_in a4 = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr *a = s->ipv6 ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4;
	socklen_t len = s->ipv6 ? sizeof(a6) : sizeof(a4);

	if (!s->ctx) {
		s->ctx = SSL_CTX_new(TLS_server_method());
		SSL_CTX_set_alpn_select_cb(s->ctx, tls_select_alpn, s);
		if (s->max_version) {
			SSL_CTX_set_min_proto_version(s->ctx, 0);
			SSL_CTX_set_max_proto_version(s->ctx, s->max_version);
			SSL_CTX_set_cipher_list(s->ctx, "ALL:@SECLEVEL=0");
		}
		if (s->want_client_of) {
			X509_STORE_add_cert(SSL_CTX_get_cert_store(s->ctx), s->want_client_of->cert);
			SSL_CTX_set_verify(s->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		}
		tls_server_certificate(s);
	}
	s->listener = evconnlistener_new_bind(s->base, tls_server_accept, s,
		LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 16, a, (int)len);
	if (!s->listener || getsockname(evconnlistener_get_fd(s->listener), a, &len) < 0)
		return false;
	s->port = ntohs(s->ipv6 ? a6.sin6_port : a4.sin_port);
	return true;
}

/* Says GOAWAY on all HTTP/2 connections: what runs may end, the connection ends with the last of it. */
static inline void tls_server_goaway(struct tls_server *s)
{
	struct tls_conn *next;

	for (struct tls_conn *c = s->conns; c; c = next) {
		next = c->next;
		if (!c->h2)
			continue;
		nghttp2_submit_goaway(c->h2, 0, nghttp2_session_get_last_proc_stream_id(c->h2), 0, NULL, 0);
		tls_h2_flush(c);
	}
}

/* From now on the open connections say nothing and read nothing, as if the process had been stopped. */
static inline void tls_server_freeze(struct tls_server *s)
{
	for (struct tls_conn *c = s->conns; c; c = c->next)
		bufferevent_disable(c->tls, EV_READ | EV_WRITE);
}

/* Nobody listens, all connections are cut; tls_server_listen() brings it back with the same authority. */
static inline void tls_server_stop(struct tls_server *s)
{
	if (s->listener)
		evconnlistener_free(s->listener);
	s->listener = NULL;
	while (s->conns)
		tls_conn_free(s->conns);
}

static inline unsigned tls_server_open(const struct tls_server *s)
{
	unsigned n = 0;

	for (const struct tls_conn *c = s->conns; c; c = c->next)
		n++;
	return n;
}

static inline void tls_server_free(struct tls_server *s)
{
	tls_server_stop(s);
	SSL_CTX_free(s->ctx);
	tls_authority_done(&s->own);
	free(s->ca);
	memset(s, 0, sizeof(*s));
}

#endif
