/* SPDX-License-Identifier: Apache-2.0 */
/*
 * setup.c - what a create wants in its sandbox before anybody may use it: files, the main command
 *
 * One after the other, through the agent, which opens the paths: to it they are the sandbox's own,
 * wherever they lead. The record says starting meanwhile, so that a daemon that dies leaves nothing
 * half-done behind: the next one takes the sandbox down, and nobody was answered. All of it takes
 * SETUP_NS at most.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "base/failpoint.h"
#include "base/json.h"
#include "base/path.h"
#include "control/main_command.h"

#include "base/banned.h"

#define SETUP_NS     (30 * AV_NS_PER_S)
#define MEMORY_SHARE 8 /* of the sandbox's memory for its log: that part at most */
#define QUERY_MAX    ((size_t)16 * 1024)
#define ANSWER_MAX   ((size_t)64 * 1024)
#define MODE_MAX     07777

struct setup_file {
	char *path;    /* owned */
	void *content; /* owned */
	size_t n;
	int mode; /* -1: as it comes */
};

struct setup {
	struct creation *cr;
	struct setup_file *files; /* owned */
	size_t n, next;
	struct node_stream *stream; /* a file is being written */
	struct node_call *call;     /* or the agent is asked for something */
	int64_t deadline_ns;        /* 0: not begun, or over */
};

void setup_free(struct setup *s)
{
	if (!s)
		return;
	if (s->stream)
		node_stream_cancel(s->stream);
	node_call_cancel(s->call);
	for (size_t i = 0; i < s->n; i++) {
		free(s->files[i].path);
		free(s->files[i].content);
	}
	free(s->files);
	free(s);
}

static int check_files(const struct sandbox_params *p, struct av_err *err)
{
	size_t total = 0;

	if (p->n_files > SANDBOX_FILES_MAX)
		return av_err_set(err, AV_ERR_INVALID, "files has %zu entries; it may have %d",
		    p->n_files, SANDBOX_FILES_MAX);
	for (size_t i = 0; i < p->n_files; i++) {
		const struct sandbox_file *f = &p->files[i];

		if (!f->path || !f->path[0] || strlen(f->path) > AV_PATH_MAX)
			return av_err_set(err, AV_ERR_INVALID,
			    "files[%zu].path must be a path of 1 to %d bytes", i, AV_PATH_MAX);
		if (f->mode < -1 || f->mode > MODE_MAX)
			return av_err_set(err, AV_ERR_INVALID,
			    "files[%zu].mode must be from 0 to %d (octal 7777)", i, MODE_MAX);
		total += f->content.n;
	}
	if (total > SANDBOX_FILES_BYTES)
		return av_err_set(err, AV_ERR_TOO_LARGE,
		    "files have %zu bytes together; at most %zu are allowed: write larger ones "
		    "when "
		    "the sandbox runs",
		    total, SANDBOX_FILES_BYTES);
	return 0;
}

int setup_new(
    struct creation *cr, const struct sandbox_params *p, struct setup **ret, struct av_err *err)
{
	struct setup *s;

	if (check_files(p, err) < 0)
		return err ? -av_err_errno(err->kind) : -EINVAL;
	if (!p->n_files && !p->command)
		return 0;
	s = calloc(1, sizeof(*s));
	if (s)
		s->files = calloc(p->n_files + 1, sizeof(*s->files));
	if (!s || !s->files) {
		free(s);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	s->cr = cr;
	for (; s->n < p->n_files; s->n++) {
		const struct sandbox_file *from = &p->files[s->n];
		struct setup_file *f = &s->files[s->n];

		f->path = av_str_dup(av_str_c(from->path));
		f->content = av_mem_dup(from->content.n ? from->content.p : "", from->content.n);
		f->n = from->content.n;
		f->mode = from->mode;
		if (!f->path || !f->content) {
			s->n++;
			setup_free(s);
			return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
		}
	}
	*ret = s;
	return 0;
}

/* ---- its steps ---- */

static void go_on(struct setup *s);

static void over(struct setup *s, const struct av_err *err)
{
	s->deadline_ns = 0;
	creation_set_up(s->cr, err);
}

/* What the sandbox refuses was asked for wrongly. */
static void fail(struct setup *s, struct av_err why, const char *what)
{
	if (why.kind == AV_ERR_NOT_FOUND || why.kind == AV_ERR_FORBIDDEN ||
	    why.kind == AV_ERR_CONFLICT || why.kind == AV_ERR_UNAUTHORIZED)
		why.kind = AV_ERR_INVALID;
	if (what)
		av_err_prefix(&why, "%s", what);
	over(s, &why);
}

static void fail_file(struct setup *s, const struct av_err *err)
{
	struct av_err why = *err;

	av_err_prefix(&why, "'%.100s'", s->files[s->next].path);
	av_err_prefix(&why, "files[%zu]", s->next);
	fail(s, why, NULL);
}

static void on_mode(void *ctx, const json_t *answer, const struct av_err *err)
{
	struct setup *s = ctx;

	(void)answer;
	s->call = NULL;
	if (err) {
		fail_file(s, err);
		return;
	}
	s->next++;
	go_on(s);
}

static void set_mode(struct setup *s, struct node_sandbox *handle)
{
	const struct setup_file *f = &s->files[s->next];
	AV_CLEANUP(av_json_decrefp)
	json_t *j = json_pack("{sssi}", "path", f->path, "mode", f->mode);
	AV_CLEANUP(av_freep) char *body = j ? json_dumps(j, JSON_COMPACT) : NULL;
	struct av_err err;
	int r;

	if (!body)
		r = av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	else
		r = node_rpc(handle, "/filesystem.Filesystem/SetAttributes", av_str_c(body),
		    ANSWER_MAX, on_mode, s, &s->call, &err);
	if (r < 0)
		fail_file(s, &err);
}

static void on_file(void *ctx, const struct av_err *err)
{
	struct setup *s = ctx;
	struct node_sandbox *handle = node_find(s->cr->c->node, s->cr->rec.id);
	struct av_err gone;

	s->stream = NULL;
	if (!err && !handle) {
		(void)av_err_set(&gone, AV_ERR_INVALID_STATE, "the sandbox has just ended");
		err = &gone;
	}
	if (err) {
		fail_file(s, err);
	} else if (s->files[s->next].mode >= 0) {
		set_mode(s, handle);
	} else {
		s->next++;
		go_on(s);
	}
}

static void on_file_data(void *ctx, struct av_str data)
{
	(void)ctx;
	(void)data;
}

static void write_file(struct setup *s, struct node_sandbox *handle)
{
	static const struct node_stream_events events = {
	    .on_data = on_file_data, .on_end = on_file};
	static const struct node_header headers[] = {
	    {AV_STR("content-type"), AV_STR("application/octet-stream")},
	};
	const struct setup_file *f = &s->files[s->next];
	struct av_buf path = AV_BUF_INIT(QUERY_MAX);
	struct node_stream_request rq = {
	    .method = "POST",
	    .headers = headers,
	    .n_headers = AV_ARRAY_LEN(headers),
	    .body = av_str_n(f->content, f->n),
	    .map_errors = true,
	};
	struct av_err err;
	int r;

	(void)av_buf_append_c(&path, "/files?path=");
	(void)av_percent_encode(&path, av_str_c(f->path), true);
	rq.path = av_buf_str(&path);
	if (av_buf_error(&path))
		r = av_err_set(&err, AV_ERR_INVALID, "the path is too long");
	else
		r = node_stream_open(handle, &rq, &events, s, &s->stream, &err);
	av_buf_clear(&path);
	if (r < 0)
		fail_file(s, &err);
}

static void on_started(void *ctx, uint32_t pid, const struct av_err *err)
{
	struct setup *s = ctx;
	struct sandbox *sb = s->cr->sb;

	s->call = NULL;
	if (err) {
		fail(s, *err, "command");
		return;
	}
	(void)av_failpoint("main.started");
	main_set_state(&sb->rec.main, MAIN_RUNNING);
	sb->rec.main.pid = pid;
	sb->rec.main.started_ms = control_real_ms(sb->c);
	over(s, NULL);
}

static void start(struct setup *s, struct node_sandbox *handle)
{
	struct control *c = s->cr->c;
	struct av_err err;

	/* The log is kept in the sandbox's memory. */
	int64_t log_max = AV_MIN(c->config.log_max, s->cr->sb->rec.memory_bytes / MEMORY_SHARE);

	log_max = AV_MAX(log_max, (int64_t)AV_MAINLOG_MIN);

	if (node_main_start(
	        handle, s->cr->sb->labels.main, log_max, on_started, s, &s->call, &err) < 0)
		fail(s, err, "command");
}

static void go_on(struct setup *s)
{
	struct node_sandbox *handle = node_find(s->cr->c->node, s->cr->rec.id);
	struct av_err err;

	if (!handle) {
		(void)av_err_set(
		    &err, AV_ERR_INVALID_STATE, "the sandbox ended while it was being set up");
		over(s, &err);
	} else if (s->next < s->n) {
		write_file(s, handle);
	} else if (s->cr->sb->labels.main) {
		start(s, handle);
	} else {
		over(s, NULL);
	}
}

void setup_begin(struct creation *cr)
{
	struct setup *s = cr->setup;

	s->deadline_ns = control_boot_ns(cr->c) + SETUP_NS;
	main_wake(cr->c, s->deadline_ns);
	go_on(s);
}

int64_t setup_tick(struct control *c, int64_t now)
{
	int64_t next = INT64_MAX;
	struct creation *cr;
	struct av_err err;

	AV_LIST_FOREACH(cr, &c->creating, struct creation, link)
	{
		struct setup *s = cr->setup;

		if (!s || !s->deadline_ns)
			continue;
		if (s->deadline_ns > now) {
			next = AV_MIN(next, s->deadline_ns);
			continue;
		}
		if (s->stream)
			node_stream_cancel(AV_TAKE_PTR(s->stream));
		node_call_cancel(AV_TAKE_PTR(s->call));
		(void)av_err_set(&err, AV_ERR_AGENT,
		    "files and main command were not ready after %lld seconds",
		    (long long)(SETUP_NS / AV_NS_PER_S));
		over(s, &err);
	}
	return next;
}
