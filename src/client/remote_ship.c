/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_ship.c - the files of the program, into a sandbox, once (see remote.h)
 *
 * Theory of operation. Below a directory of the sandbox lie objects/HASH, the contents of files;
 * bundles/ID/NAME, links to them by the names that a loader looks for, for each program that was
 * ever sent; and ready/ID, empty, written last. A shipping lists the directory, and sends what is
 * missing, or has another size than it should, as one tar archive. Who has the sandbox may change
 * all that at will: it is theirs to break, and the worker compares builds.
 *
 * The client remembers by id which sandboxes have it (a parcel), so that the next call asks nobody.
 * Whoever comes while one is under way waits for that one. PARCELS_MAX are remembered; the one that
 * was not used for longest is forgotten, which costs a look.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/codec.h"
#include "client/call.h"
#include "client/flow.h"
#include "client/remote.h"
#include "proto/tar.h"

#include "base/banned.h"

#define PARCELS_MAX 1024
#define HEADERS_MAX ((size_t)4 << 20)

/* Somebody who waits for a parcel. */
struct waiter {
	struct av_list link;
	aviary_op *op;
	uint64_t *ret_bytes; /* NULL: it pays nothing for it */
};

struct parcel {
	struct av_list link; /* remote->parcels */
	char id[AVC_ID_SIZE];
	char *directory;
	bool there;
	struct av_list waiting;
};

/* A shipping under way. */
struct shipping {
	struct avc_flow flow; /* first */
	aviary_client *c;     /* a reference */
	struct aviary_sandbox *sb;
	const struct avc_program *program;
	char *directory;
	bool *present; /* of each object */
	bool ready;
	uint64_t bytes; /* of contents that were sent */
	/* The archive, as far as it was pulled. */
	struct avc_source source;
	size_t next; /* object */
	int fd;      /* of the one before it, which has `left` bytes more; -1 */
	uint64_t left;
	struct av_buf text; /* headers and padding that come first */
	bool complete;
	char wrong[600]; /* with a file of ours; "" */
};

/* ---- what is where; all with the lock ---- */

static struct parcel *find(
    struct avc_remote *remote, const struct aviary_sandbox *sb, const char *directory)
{
	struct parcel *p;

	AV_LIST_FOREACH(p, &remote->parcels, struct parcel, link)
	{
		if (strcmp(p->id, sb->id) == 0 && strcmp(p->directory, directory) == 0)
			return p;
	}
	return NULL;
}

static void parcel_free(struct avc_remote *remote, struct parcel *p)
{
	av_list_remove(&p->link);
	remote->n_parcels--;
	free(p->directory);
	free(p);
}

/* NULL: no memory. */
static struct parcel *parcel_new(
    struct avc_remote *remote, const struct aviary_sandbox *sb, const char *directory)
{
	struct parcel *p = calloc(1, sizeof(*p)), *old;

	if (p)
		p->directory = av_str_dup(av_str_c(directory));
	if (!p || !p->directory) {
		free(p);
		return NULL;
	}
	memcpy(p->id, sb->id, sizeof(p->id));
	av_list_init(&p->waiting);
	av_list_append(&remote->parcels, &p->link);
	if (++remote->n_parcels <= PARCELS_MAX)
		return p;
	AV_LIST_FOREACH(old, &remote->parcels, struct parcel, link)
	{
		if (old->there) {
			parcel_free(remote, old);
			break;
		}
	}
	return p;
}

void avc_ship_forget(struct aviary_sandbox *sb)
{
	struct avc_remote *remote;
	struct parcel *p;

	avc_lock(sb->c);
	remote = sb->c->remote;
	if (remote) {
		AV_LIST_FOREACH(p, &remote->parcels, struct parcel, link)
		{
			if (p->there && strcmp(p->id, sb->id) == 0)
				parcel_free(remote, p);
		}
	}
	avc_unlock(sb->c);
}

static void remote_free(struct avc_remote *remote)
{
	struct parcel *p;

	if (!remote)
		return;
	while ((p = AV_LIST_FIRST(&remote->parcels, struct parcel, link)))
		parcel_free(remote, p);
	avc_program_free(remote->program);
	free(remote);
}

int avc_remote_get(aviary_client *c, struct avc_remote **ret, char text[static 512])
{
	struct avc_remote *mine;
	int r;

	avc_lock(c);
	*ret = c->remote;
	avc_unlock(c);
	if (*ret)
		return 0;
	mine = calloc(1, sizeof(*mine));
	text[0] = '\0';
	if (!mine)
		return AVIARY_E_NO_MEMORY;
	av_list_init(&mine->parcels);
	r = avc_program_new(&mine->program, text);
	if (r == 0) {
		avc_lock(c);
		if (!c->remote) {
			c->free_remote = remote_free;
			c->remote = AV_TAKE_PTR(mine);
		}
		*ret = c->remote;
		avc_unlock(c);
	}
	remote_free(mine);
	return r;
}

/* ---- the end of a shipping ---- */

static void shipping_free(struct avc_flow *f)
{
	struct shipping *s = AV_CONTAINER_OF(f, struct shipping, flow);
	aviary_client *c = s->c;

	aviary_sandbox_free(s->sb);
	av_close_fd(&s->fd);
	av_buf_clear(&s->text);
	free(s->directory);
	free(s->present);
	free(s);
	avc_client_unref(c);
}

/* error NULL: it is there. */
static void settle(struct shipping *s, const aviary_error *error)
{
	struct parcel *p;
	struct waiter *w;

	avc_lock(s->c);
	p = find(s->c->remote, s->sb, s->directory);
	while (p && (w = AV_LIST_FIRST(&p->waiting, struct waiter, link))) {
		av_list_remove(&w->link);
		if (w->ret_bytes)
			*w->ret_bytes = s->bytes;
		if (error)
			avc_op_fail_with(w->op, error);
		else
			avc_op_end(w->op);
		free(w);
	}
	if (p && error)
		parcel_free(s->c->remote, p);
	else if (p)
		p->there = true;
	avc_unlock(s->c);
	avc_flow_end(&s->flow);
}

static void settle_failed(struct shipping *s, int code, const char *text)
{
	aviary_error e;

	avc_sandbox_error(s->sb, &e, code, text);
	settle(s, &e);
}

/* ---- the archive ---- */

static int add_entry(
    struct av_buf *out, enum av_tar_type type, const char *path, const char *link, uint64_t size)
{
	const struct av_tar_entry e = {
	    .type = type, .path = path, .link = link, .size = size, .mode = 0755};

	return av_tar_write(out, &e);
}

static int add_bundle(const struct shipping *s, struct av_buf *out)
{
	char path[AV_PATH_MAX], link[AVC_HASH_TEXT + 32];
	int r = 0;

	for (size_t i = 0; i < s->program->n && r == 0; i++) {
		const struct avc_object *o = &s->program->objects[i];

		(void)snprintf(path, sizeof(path), "bundles/%s/%s", s->program->id, o->name);
		(void)snprintf(link, sizeof(link), "../../objects/%s", o->hash);
		r = add_entry(out, AV_TAR_SYMLINK, path, link, 0);
	}
	(void)snprintf(path, sizeof(path), "ready/%s", s->program->id);
	if (r == 0)
		r = add_entry(out, AV_TAR_FILE, path, "", 0);
	return r == 0 ? av_tar_write_end(out) : r;
}

/* The next object that is missing there, or the end. A code. */
static int next_entry(struct shipping *s)
{
	const struct avc_object *o;
	char path[AVC_HASH_TEXT + 16];
	int r;

	while (s->next < s->program->n && s->present[s->next])
		s->next++;
	if (s->next == s->program->n) {
		s->complete = true;
		return add_bundle(s, &s->text) < 0 ? AVIARY_E_NO_MEMORY : 0;
	}
	o = &s->program->objects[s->next++];
	r = avc_object_open(o);
	if (r < 0) {
		(void)snprintf(s->wrong, sizeof(s->wrong),
		    r == -ESTALE ? "%.400s was changed since this program began to call remote "
		                   "functions; start it again"
		                 : "%.400s cannot be read any more",
		    o->path);
		return AVIARY_E_FUNCTION_PROGRAM;
	}
	s->fd = r;
	s->left = o->size;
	(void)snprintf(path, sizeof(path), "objects/%s", o->hash);
	return add_entry(&s->text, AV_TAR_FILE, path, "", o->size) < 0 ? AVIARY_E_NO_MEMORY : 0;
}

/* Of the object that is open. */
static int64_t pull_content(struct shipping *s, char *p, size_t n)
{
	static const char zeros[AV_TAR_BLOCK];
	uint64_t size = s->program->objects[s->next - 1].size;
	ssize_t got = read(s->fd, p, (size_t)AV_MIN((uint64_t)n, s->left));

	if (got <= 0) {
		(void)snprintf(s->wrong, sizeof(s->wrong), "%.400s cannot be read to its end",
		    s->program->objects[s->next - 1].path);
		return AVIARY_E_FUNCTION_PROGRAM;
	}
	s->left -= (uint64_t)got;
	s->bytes += (uint64_t)got;
	if (s->left == 0) {
		av_close_fd(&s->fd);
		if (av_buf_append(&s->text, zeros, av_tar_padding(size)) < 0)
			return AVIARY_E_NO_MEMORY;
	}
	return got;
}

static int64_t pull(void *ctx, char *p, size_t n)
{
	struct shipping *s = ctx;

	for (;;) {
		int r;

		if (s->text.n > 0) {
			n = AV_MIN(n, s->text.n);
			memcpy(p, s->text.p + s->text.off, n);
			av_buf_consume(&s->text, n);
			return (int64_t)n;
		}
		if (s->left > 0)
			return pull_content(s, p, n);
		av_close_fd(&s->fd); /* of an empty file */
		if (s->complete)
			return 0;
		r = next_entry(s);
		if (r < 0)
			return r;
	}
}

static bool rewind_archive(void *ctx)
{
	struct shipping *s = ctx;

	av_close_fd(&s->fd);
	av_buf_reset(&s->text);
	s->next = 0;
	s->left = s->bytes = 0;
	s->complete = false;
	return true;
}

/* ---- the steps ---- */

static void on_sent(struct avc_flow *f)
{
	struct shipping *s = AV_CONTAINER_OF(f, struct shipping, flow);

	if (s->wrong[0])
		settle_failed(s, AVIARY_E_FUNCTION_PROGRAM, s->wrong);
	else
		settle(s, avc_flow_code(f) < 0 ? aviary_op_error(f->step) : NULL);
}

static void send_missing(struct shipping *s)
{
	AV_CLEANUP(av_buf_clear) struct av_buf path = AV_BUF_INIT(16 * (size_t)AV_KIB);

	(void)av_buf_append_c(&path, "/files/tar?user=root&path=");
	(void)av_percent_encode(&path, av_str_c(s->directory), false);
	if (!av_buf_cstr(&path)) {
		settle_failed(s, AVIARY_E_NO_MEMORY, "out of memory");
		return;
	}
	s->source =
	    (struct avc_source){.size = -1, .pull = pull, .rewind = rewind_archive, .ctx = s};
	avc_flow_next(&s->flow,
	    avc_call(s->c, &(struct avc_call_spec){.method = "PUT",
	                       .path = av_buf_cstr(&path),
	                       .sb = s->sb,
	                       .source = &s->source,
	                       .source_type = "application/x-tar",
	                       .file = s->directory}),
	    on_sent);
}

static void on_listed(struct avc_flow *f)
{
	struct shipping *s = AV_CONTAINER_OF(f, struct shipping, flow);

	if (avc_flow_code(f) < 0) {
		settle(s, aviary_op_error(f->step));
		return;
	}
	for (size_t i = 0; i < s->program->n; i++)
		s->ready = s->ready && s->present[i];
	if (s->ready)
		settle(s, NULL);
	else
		send_missing(s);
}

static void take_entry(struct shipping *s, const json_t *entry)
{
	const char *path = json_string_value(json_object_get(entry, "path"));
	const json_t *size = json_object_get(entry, "size");
	size_t n = strlen(s->directory);

	if (!path || strncmp(path, s->directory, n) != 0)
		return;
	path += n;
	if (strncmp(path, "/ready/", 7) == 0 && strcmp(path + 7, s->program->id) == 0)
		s->ready = true;
	if (strncmp(path, "/objects/", 9) != 0 || !json_is_integer(size))
		return;
	for (size_t i = 0; i < s->program->n; i++) {
		const struct avc_object *o = &s->program->objects[i];

		if (strcmp(path + 9, o->hash) == 0 &&
		    json_integer_value(size) == (json_int_t)o->size)
			s->present[i] = true;
	}
}

static int take_list(aviary_op *op, const struct avc_reply *reply, void *ctx)
{
	struct shipping *s = ctx;
	const json_t *entry;
	size_t i;

	(void)op;
	if (reply->code == AVIARY_E_FILE_NOT_FOUND)
		return 0;
	if (reply->code == 0)
		json_array_foreach (json_object_get(reply->json, "entries"), i, entry)
			take_entry(s, entry);
	return reply->code;
}

static bool begin(struct aviary_sandbox *sb, const char *directory)
{
	json_t *body = json_pack("{s:s, s:i, s:s}", "path", directory, "depth", 2, "user", "root");
	struct shipping *s = body ? calloc(1, sizeof(*s)) : NULL;
	aviary_op *op;

	if (!s) {
		json_decref(body);
		return false;
	}
	s->c = avc_client_ref(sb->c);
	s->sb = aviary_sandbox_ref(sb);
	s->program = sb->c->remote->program; /* as long as the client */
	s->directory = av_str_dup(av_str_c(directory));
	s->present = calloc(s->program->n, sizeof(*s->present));
	s->fd = -1;
	av_buf_init(&s->text, HEADERS_MAX);
	op = avc_flow_init(&s->flow, s->c, shipping_free);
	if (!op->c || !s->directory || !s->present) {
		if (op->c) {
			avc_flow_fail(&s->flow, AVIARY_E_NO_MEMORY, "out of memory");
			aviary_op_free(s->flow.op);
		}
		aviary_op_free(op);
		json_decref(body);
		shipping_free(&s->flow);
		return false;
	}
	aviary_op_free(op); /* nobody's but the flow's */
	avc_flow_next(&s->flow,
	    avc_call(s->c, &(struct avc_call_spec){.method = "POST",
	                       .path = "/files/list",
	                       .sb = sb,
	                       .body = body,
	                       .file = directory,
	                       .take = take_list,
	                       .ctx = s}),
	    on_listed);
	return true;
}

/* ---- asking for it ---- */

static void waiter_stop(aviary_op *op)
{
	struct waiter *w = op->work;

	av_list_remove(&w->link);
	free(w);
}

/* With the lock: whether the operation waits, and *ret_first whether it is the one who ships. */
static bool join(struct aviary_sandbox *sb, const char *directory, aviary_op *op,
    uint64_t *ret_bytes, bool *ret_first)
{
	struct avc_remote *remote = sb->c->remote;
	struct parcel *p = find(remote, sb, directory);
	struct waiter *w;

	if (p && p->there) {
		av_list_remove(&p->link);
		av_list_append(&remote->parcels, &p->link);
		avc_op_end(op);
		return true;
	}
	w = calloc(1, sizeof(*w));
	*ret_first = !p;
	if (w && !p)
		p = parcel_new(remote, sb, directory);
	if (!w || !p) {
		free(w);
		return false;
	}
	*w = (struct waiter){.op = op, .ret_bytes = *ret_first ? ret_bytes : NULL};
	av_list_init(&w->link);
	av_list_append(&p->waiting, &w->link);
	op->work = w;
	op->stop = waiter_stop;
	return true;
}

aviary_op *avc_ship(struct aviary_sandbox *sb, const char *directory, uint64_t *ret_bytes)
{
	aviary_op *op = avc_op_new(sb->c);
	bool first = false, good;
	struct parcel *p;

	if (!op->c)
		return op;
	*ret_bytes = 0;
	avc_lock(sb->c);
	good = join(sb, directory, op, ret_bytes, &first);
	if (!good)
		avc_op_fail(op, AVIARY_E_NO_MEMORY, "out of memory");
	avc_unlock(sb->c);
	if (!good || !first || begin(sb, directory))
		return op;
	/* It could not begin, and others may wait for it by now. */
	avc_lock(sb->c);
	p = find(sb->c->remote, sb, directory);
	while (p && !av_list_empty(&p->waiting)) {
		struct waiter *w = AV_LIST_FIRST(&p->waiting, struct waiter, link);

		av_list_remove(&w->link);
		avc_op_fail(w->op, AVIARY_E_NO_MEMORY, "out of memory");
		free(w);
	}
	if (p)
		parcel_free(sb->c->remote, p);
	avc_unlock(sb->c);
	return op;
}
