/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tls.c - the identity in force, and whose handshake goes on next
 */
#include "net/tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "net/tls_identity.h"
#include "net/tls_internal.h"

#include "base/banned.h"

/* Of one turn of the loop; a signature takes 0.05 ms (P-256) to 5 ms (RSA with 4096 bits). */
#define TURN_NS    (2 * AV_NS_PER_MS)
#define TICKETS_MS ((uint64_t)6 * 60 * 60 * 1000)

static void run_turns(void *ctx)
{
	struct av_tls *t = ctx;
	int64_t end = av_mono_ns() + TURN_NS;
	struct tls_session *s;
	while ((s = AV_LIST_FIRST(&t->turns, struct tls_session, turn))) {
		av_list_remove(&s->turn);
		s->on_turn(s->ctx);
		if (av_mono_ns() >= end)
			break;
	}
	if (!av_list_empty(&t->turns))
		av_timer_start(&t->turn_next, 0);
}

void tls_want_turn(struct tls_session *s)
{
	struct av_tls *t = s->tls;
	if (!av_list_empty(&s->turn))
		return;
	av_list_append(&t->turns, &s->turn);
	if (!av_timer_active(&t->turn_next))
		av_defer_start(&t->turn_now, t->loop);
}

/* A ticket is worth a handshake without proof of who one is: its key must not be worth stealing
 * for long. */
static void renew_tickets(void *ctx)
{
	struct av_tls *t = ctx;
	unsigned char keys[256];
	if (t->identity) {
		SSL_CTX *c = t->identity->ctx;
		long n = t->lib->SSL_CTX_ctrl(c, SSL_CTRL_SET_TLSEXT_TICKET_KEYS, 0, NULL);
		if (n > 0 && n <= (long)sizeof(keys) && t->lib->RAND_bytes(keys, (int)n) == 1)
			t->lib->SSL_CTX_ctrl(c, SSL_CTRL_SET_TLSEXT_TICKET_KEYS, n, keys);
		explicit_bzero(keys, sizeof(keys));
	}
	av_timer_start(&t->tickets, TICKETS_MS);
}

int av_tls_new(struct av_loop *loop, struct av_tls **ret, struct av_err *err)
{
	const struct tls_lib *lib = NULL;
	int r = tls_lib_get(&lib, err);
	if (r < 0)
		return r;
	struct av_tls *t = calloc(1, sizeof(*t));
	BIO_METHOD *method = t ? tls_bio_method(lib) : NULL;
	if (!method) {
		free(t);
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory for TLS");
	}
	t->loop = loop;
	t->lib = lib;
	t->method = method;
	t->spare = AV_BUF_INIT(TLS_OUT_MAX);
	av_list_init(&t->pending);
	av_list_init(&t->turns);
	av_defer_init(&t->turn_now, run_turns, t);
	av_timer_init(&t->turn_next, loop, run_turns, t);
	av_timer_init(&t->tickets, loop, renew_tickets, t);
	av_timer_start(&t->tickets, TICKETS_MS);
	*ret = t;
	return 0;
}

void av_tls_free(struct av_tls *t)
{
	if (!t)
		return;
	av_defer_stop(&t->turn_now);
	av_timer_stop(&t->turn_next);
	av_timer_stop(&t->tickets);
	av_tls_identity_free(t->identity);
	t->lib->BIO_meth_free(t->method);
	av_buf_clear(&t->spare);
	free(t);
}

void av_tls_use(struct av_tls *t, struct av_tls_identity *i)
{
	/* Sessions hold the context of theirs. */
	av_tls_identity_free(t->identity);
	t->identity = i;
}

SSL *tls_new_ssl(struct av_tls *t)
{
	return t->identity ? t->lib->SSL_new(t->identity->ctx) : NULL;
}

int64_t av_tls_not_after(const struct av_tls *t)
{
	return t->identity->not_after;
}

const char *av_tls_names(const struct av_tls *t)
{
	return t->identity->names;
}

const char *av_tls_first_name(const struct av_tls *t)
{
	return t->identity->first_name[0] ? t->identity->first_name : NULL;
}

bool av_tls_covers(const struct av_tls *t, const char *host)
{
	X509 *x = t->identity->leaf;
	bool covers = t->lib->X509_check_ip_asc(x, host, 0) == 1 ||
	              t->lib->X509_check_host(x, host, 0, 0, NULL) == 1;
	t->lib->ERR_clear_error();
	return covers;
}

const struct av_tls_metrics *av_tls_metrics(const struct av_tls *t)
{
	return &t->metrics;
}
