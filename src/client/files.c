/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.c - streaming one file into or out of a sandbox
 *
 * The body is the bytes of the file. Nothing is held in memory beyond libcurl's buffers.
 */
#include "client/client.h"

#include <errno.h>

#include "base/codec.h"
#include "client/client_internal.h"

#include "base/banned.h"

#define TRANSFER_BUFFER (512 * 1024L)

struct transfer {
	CURL *easy;
	av_client_read_fn on_read;
	av_client_write_fn on_write;
	void *ctx;
	int error;           /* -errno of the caller's function */
	struct av_buf reply; /* body of an answer that is an error */
};

static void slist_freep(struct curl_slist **l)
{
	curl_slist_free_all(*l);
}

static size_t on_upload_read(char *p, size_t size, size_t n, void *ctx)
{
	struct transfer *t = ctx;
	ssize_t r = t->on_read(t->ctx, p, size * n);
	if (r < 0) {
		t->error = (int)r;
		return CURL_READFUNC_ABORT;
	}
	return (size_t)r;
}

static size_t on_data(char *p, size_t size, size_t n, void *ctx)
{
	struct transfer *t = ctx;
	long status = 0;
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200 || status >= 300 || !t->on_write)
		return av_buf_append(&t->reply, p, size * n) ? 0 : size * n;
	t->error = t->on_write(t->ctx, p, size * n);
	return t->error < 0 ? 0 : size * n;
}

static int finish(struct av_client *c, struct transfer *t, struct av_err *err)
{
	CURLcode code = curl_easy_perform(t->easy);
	long status = 0;
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	c->last_status = (int)status;
	if (t->error == -ECANCELED)
		return av_err_set(err, AV_ERR_CANCELED, "interrupted");
	if (t->error < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, t->error, "local file");
	/* A refusal may arrive, and the connection close, before all of the upload went out. */
	if (status >= 300)
		return client_reply_error((int)status, av_buf_str(&t->reply), err);
	if (code != CURLE_OK)
		return client_transport_error(c, t->easy, code, err);
	return 0;
}

/* What all begin with: the route, headers, and where the answer goes. */
static int begin_route(struct av_client *c, struct transfer *t, const char *route,
    struct curl_slist **headers, struct av_err *err)
{
	int r;

	curl_easy_reset(c->easy);
	r = client_prepare(c, c->easy, route, headers, err);
	if (r < 0)
		return r;
	t->easy = c->easy;
	av_buf_init(&t->reply, CLIENT_REPLY_MAX);
	curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, t);
	return 0;
}

/* The route .../<what>?path=... of a sandbox. */
static int begin(struct av_client *c, struct transfer *t, const char *sandbox_id, const char *what,
    const char *path, struct curl_slist **headers, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf route = AV_BUF_INIT(16 * AV_KIB);

	av_buf_printf(&route, "/v1/sandboxes/%s/%s?path=", sandbox_id, what);
	av_percent_encode(&route, av_str_c(path), true);
	if (av_buf_error(&route))
		return av_err_set(err, AV_ERR_INVALID, "the path is too long");
	return begin_route(c, t, av_buf_cstr(&route), headers, err);
}

static int run(
    struct av_client *c, struct transfer *t, struct curl_slist *headers, struct av_err *err)
{
	int r;

	curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, headers);
	r = finish(c, t, err);
	curl_easy_reset(c->easy);
	av_buf_clear(&t->reply);
	return r;
}

static int put_stream(struct av_client *c, const char *sandbox_id, const char *what,
    const char *path, int64_t size, av_client_read_fn on_read, void *ctx, struct av_err *err)
{
	AV_CLEANUP(slist_freep) struct curl_slist *headers = NULL;
	struct transfer t = {.on_read = on_read, .ctx = ctx};
	int r;

	if ((r = begin(c, &t, sandbox_id, what, path, &headers, err)) < 0 ||
	    (r = client_add_header(&headers, "Content-Type", "application/octet-stream", err)) <
	        0 ||
	    (r = client_add_header(&headers, "Expect", "", err)) < 0)
		return r;
	curl_easy_setopt(c->easy, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(c->easy, CURLOPT_READFUNCTION, on_upload_read);
	curl_easy_setopt(c->easy, CURLOPT_READDATA, &t);
	curl_easy_setopt(c->easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)size);
	curl_easy_setopt(c->easy, CURLOPT_UPLOAD_BUFFERSIZE, TRANSFER_BUFFER);
	return run(c, &t, headers, err);
}

int av_client_upload(struct av_client *c, const char *sandbox_id, const char *path, int64_t size,
    av_client_read_fn on_read, void *ctx, struct av_err *err)
{
	return put_stream(c, sandbox_id, "files", path, size, on_read, ctx, err);
}

int av_client_upload_tree(struct av_client *c, const char *sandbox_id, const char *path,
    av_client_read_fn on_read, void *ctx, struct av_err *err)
{
	return put_stream(c, sandbox_id, "files/tar", path, -1, on_read, ctx, err);
}

int av_client_download(struct av_client *c, const char *sandbox_id, const char *path,
    av_client_write_fn on_write, void *ctx, struct av_err *err)
{
	AV_CLEANUP(slist_freep) struct curl_slist *headers = NULL;
	struct transfer t = {.on_write = on_write, .ctx = ctx};
	int r = begin(c, &t, sandbox_id, "files", path, &headers, err);

	if (r < 0)
		return r;
	curl_easy_setopt(c->easy, CURLOPT_BUFFERSIZE, TRANSFER_BUFFER);
	return run(c, &t, headers, err);
}

int av_client_get_stream(struct av_client *c, const char *path, av_client_write_fn on_write,
    void *ctx, struct av_err *err)
{
	AV_CLEANUP(slist_freep) struct curl_slist *headers = NULL;
	struct transfer t = {.on_write = on_write, .ctx = ctx};
	int r = begin_route(c, &t, path, &headers, err);

	return r < 0 ? r : run(c, &t, headers, err);
}
