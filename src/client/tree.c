/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree.c - directories of a sandbox as streams of tar
 *
 * libcurl calls back for bytes, while whoever packs or unpacks wants to be the one who calls. In
 * between is one buffer, and libcurl's multi interface, which is turned until there is something in
 * it, or room.
 */
#include "client/tree.h"

#include <errno.h>
#include <stdlib.h>

#include "base/codec.h"
#include "client/client_internal.h"

#include "base/banned.h"

#define CURL_BUFFER  (256 * 1024L)
#define TURN_WAIT_MS 250

struct av_tree {
	struct av_client *client;
	CURLM *multi;               /* owned */
	struct curl_slist *headers; /* owned */
	struct av_buf bytes;        /* to read, or to be sent */
	struct av_buf reply;        /* what is no archive: an error, or the answer to an upload */
	size_t lent;                /* of bytes, to the caller */
	bool writes, ended;         /* ended: the caller writes no more */
	bool paused;                /* libcurl waits for us */
	bool over;                  /* the transfer; then: */
	CURLcode result;
};

static long status_of(const struct av_tree *t)
{
	long status = 0;

	curl_easy_getinfo(t->client->easy, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

static size_t on_read(char *p, size_t size, size_t n, void *ctx)
{
	struct av_tree *t = ctx;
	struct av_str s = av_buf_str(&t->bytes);

	n = AV_MIN(size * n, s.n);
	if (n == 0 && !t->ended) {
		t->paused = true;
		return CURL_READFUNC_PAUSE;
	}
	memcpy(p, s.p, n);
	av_buf_consume(&t->bytes, n);
	return n;
}

static size_t on_data(char *p, size_t size, size_t n, void *ctx)
{
	struct av_tree *t = ctx;
	long status = status_of(t);

	n *= size;
	if (t->writes || status < 200 || status >= 300)
		return av_buf_append(&t->reply, p, n) < 0 ? 0 : n;
	if (n > AV_TREE_BUFFER - t->bytes.n) {
		t->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	return av_buf_append(&t->bytes, p, n) < 0 ? 0 : n;
}

static int prepare(struct av_tree *t, const char *id, const char *path, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf route = AV_BUF_INIT(16 * AV_KIB);
	CURL *easy = t->client->easy;
	int r;

	av_buf_printf(&route, "/v1/sandboxes/%s/files/tar?path=", id);
	av_percent_encode(&route, av_str_c(path), true);
	if (av_buf_error(&route))
		return av_err_set(err, AV_ERR_INVALID, "the path is too long");
	curl_easy_reset(easy);
	if ((r = client_prepare(t->client, easy, av_buf_cstr(&route), &t->headers, err)) < 0)
		return r;
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, CURL_BUFFER);
	if (t->writes) {
		if ((r = client_add_header(&t->headers, "Content-Type", "application/x-tar", err)) <
		        0 ||
		    (r = client_add_header(&t->headers, "Expect", "", err)) < 0)
			return r;
		curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(easy, CURLOPT_READDATA, t);
		curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, CURL_BUFFER);
	}
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, t->headers);
	t->multi = curl_multi_init();
	if (!t->multi || curl_multi_add_handle(t->multi, easy) != CURLM_OK)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return 0;
}

int av_tree_open(struct av_client *c, const char *sandbox_id, const char *path, bool writes,
    struct av_tree **ret, struct av_err *err)
{
	AV_CLEANUP(av_tree_freep) struct av_tree *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	t->client = c;
	t->writes = writes;
	av_buf_init(&t->bytes, AV_TREE_BUFFER);
	av_buf_init(&t->reply, CLIENT_REPLY_MAX);
	r = prepare(t, sandbox_id, path, err);
	if (r < 0)
		return r;
	*ret = AV_TAKE_PTR(t);
	return 0;
}

void av_tree_free(struct av_tree *t)
{
	if (!t)
		return;
	if (t->multi) {
		curl_multi_remove_handle(t->multi, t->client->easy);
		curl_multi_cleanup(t->multi);
	}
	curl_easy_reset(t->client->easy);
	curl_slist_free_all(t->headers);
	av_buf_clear(&t->bytes);
	av_buf_clear(&t->reply);
	free(t);
}

void av_tree_freep(struct av_tree **t)
{
	av_tree_free(*t);
	*t = NULL;
}

/* What is wrong with a transfer that is over. */
static int outcome(struct av_tree *t, struct av_err *err)
{
	long status = status_of(t);

	t->client->last_status = (int)status;
	/* A refusal may arrive, and the connection close, before all of an upload went out. */
	if (status >= 300)
		return client_reply_error((int)status, av_buf_str(&t->reply), err);
	if (t->result != CURLE_OK)
		return client_transport_error(t->client, t->client->easy, t->result, err);
	return 0;
}

/* Lets libcurl do what it can, and waits for more if that was nothing. 0, or why it is over. */
static int turn(struct av_tree *t, struct av_err *err)
{
	int running = 0, left = 0;
	const CURLMsg *msg;

	if (t->paused) {
		t->paused = false;
		curl_easy_pause(t->client->easy, CURLPAUSE_CONT);
	}
	curl_multi_perform(t->multi, &running);
	while ((msg = curl_multi_info_read(t->multi, &left))) {
		t->over = msg->msg == CURLMSG_DONE;
		t->result = msg->data.result;
	}
	if (t->over)
		return outcome(t, err);
	if (!t->paused)
		curl_multi_poll(t->multi, NULL, 0, TURN_WAIT_MS, NULL);
	return 0;
}

ssize_t av_tree_read(struct av_tree *t, const char **ret_bytes, struct av_err *err)
{
	struct av_str s;

	av_buf_consume(&t->bytes, t->lent);
	t->lent = 0;
	while (t->bytes.n == 0) {
		int r = t->over ? outcome(t, err) : turn(t, err);

		if (r < 0)
			return r;
		if (t->over && t->bytes.n == 0)
			return 0;
	}
	s = av_buf_str(&t->bytes);
	t->lent = s.n;
	*ret_bytes = s.p;
	return (ssize_t)s.n;
}

int av_tree_write(struct av_tree *t, const char *bytes, size_t n, struct av_err *err)
{
	while (n) {
		size_t k = AV_MIN(n, AV_TREE_BUFFER - t->bytes.n);
		int r;

		if (av_buf_append(&t->bytes, bytes, k) < 0)
			return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		bytes += k;
		n -= k;
		if (t->bytes.n < AV_TREE_BUFFER)
			break;
		r = t->over ? outcome(t, err) : turn(t, err);
		if (r < 0)
			return r;
		if (t->over)
			return av_err_set(err, AV_ERR_AGENT, "the answer came before the end");
	}
	return 0;
}

int av_tree_finish(struct av_tree *t, struct av_err *err)
{
	t->ended = true;
	while (!t->over) {
		int r;

		/* Bytes that nobody wants any more. */
		if (!t->writes) {
			av_buf_reset(&t->bytes);
			t->lent = 0;
		}
		r = turn(t, err);
		if (r < 0)
			return r;
	}
	return outcome(t, err);
}
