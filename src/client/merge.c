/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge.c - two specs as one: the defaults of a session and what one sandbox says (see
 * aviary/sandbox.h)
 *
 * The merged spec owns all it points to: one list of blocks, freed together.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "client/spec.h"

#include "base/banned.h"

#define ENTRIES_MAX ((size_t)65536) /* of one list; what is sent has far fewer */

struct block {
	struct block *next;
	max_align_t data[];
};

struct merged {
	aviary_sandbox_spec spec; /* first */
	struct block *blocks;
	bool failed; /* no memory, or a list without bounds */
};

/* n bytes, zero; NULL, also later, when there is no memory. */
static void *take(struct merged *m, size_t n)
{
	struct block *b = m->failed ? NULL : calloc(1, sizeof(*b) + n);

	m->failed = !b;
	if (!b)
		return NULL;
	b->next = m->blocks;
	m->blocks = b;
	return b->data;
}

static void *take_array(struct merged *m, size_t n, size_t size)
{
	m->failed = m->failed || n > ENTRIES_MAX;
	return take(m, m->failed ? 0 : n * size);
}

static const void *dup_bytes(struct merged *m, const void *p, size_t n)
{
	void *copy = p ? take(m, n) : NULL;

	if (copy && n)
		memcpy(copy, p, n);
	return copy;
}

static const char *dup_text(struct merged *m, const char *text)
{
	return dup_bytes(m, text, text ? strlen(text) + 1 : 0);
}

static const char *pick_text(struct merged *m, const char *base, const char *over)
{
	return dup_text(m, over ? over : base);
}

static int64_t pick(int64_t base, int64_t over)
{
	return over ? over : base;
}

/* ---- lists ---- */

static bool is_in(const char *const *items, size_t n, const char *text)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(items[i], text) == 0)
			return true;
	return false;
}

static aviary_strings dup_strings(struct merged *m, const aviary_strings *v)
{
	const char **items = v->items ? take_array(m, v->n, sizeof(*items)) : NULL;

	for (size_t i = 0; items && i < v->n; i++)
		items[i] = dup_text(m, v->items[i]);
	return (aviary_strings){.items = items, .n = items ? v->n : 0};
}

static void append_new(struct merged *m, const char **items, size_t *n, const aviary_strings *v)
{
	for (size_t i = 0; v->items && i < v->n && !m->failed; i++)
		if (v->items[i] && !is_in(items, *n, v->items[i]))
			items[(*n)++] = dup_text(m, v->items[i]);
}

/* Both, those of base first, each once. */
static aviary_strings join(struct merged *m, const aviary_strings *base, const aviary_strings *over)
{
	const char **items = NULL;
	size_t n = 0;

	if (base->items || over->items)
		items = take_array(
		    m, (base->items ? base->n : 0) + (over->items ? over->n : 0), sizeof(*items));
	if (!items)
		return (aviary_strings){0};
	append_new(m, items, &n, base);
	append_new(m, items, &n, over);
	return (aviary_strings){.items = items, .n = n};
}

/* The pair of that name is set, or taken away where value is NULL and base has it. */
static void set_pair(struct merged *m, aviary_pair *items, size_t *n, const aviary_pair *p)
{
	size_t i = 0;

	if (!p->name || m->failed)
		return;
	while (i < *n && strcmp(items[i].name, p->name) != 0)
		i++;
	if (i == *n)
		items[(*n)++].name = dup_text(m, p->name);
	items[i].value = dup_text(m, p->value);
	if (m->failed)
		*n = 0;
}

static aviary_pairs join_pairs(struct merged *m, const aviary_pairs *base, const aviary_pairs *over)
{
	aviary_pair *items = NULL;
	size_t n = 0, kept = 0;

	if (base->items || over->items)
		items = take_array(
		    m, (base->items ? base->n : 0) + (over->items ? over->n : 0), sizeof(*items));
	if (!items)
		return (aviary_pairs){0};
	for (size_t i = 0; base->items && i < base->n; i++)
		set_pair(m, items, &n, &base->items[i]);
	for (size_t i = 0; over->items && i < over->n; i++)
		set_pair(m, items, &n, &over->items[i]);
	for (size_t i = 0; i < n; i++)
		if (items[i].value)
			items[kept++] = items[i];
	return (aviary_pairs){.items = items, .n = kept};
}

static aviary_ports dup_ports(struct merged *m, const aviary_ports *v)
{
	uint16_t *items = v->items ? take_array(m, v->n, sizeof(*items)) : NULL;

	if (items && v->n)
		memcpy(items, v->items, v->n * sizeof(*items));
	return (aviary_ports){.items = items, .n = items ? v->n : 0};
}

/* ---- files ---- */

static void set_file(
    struct merged *m, aviary_mounted_file *files, size_t *n, const aviary_mounted_file *f)
{
	size_t i = 0;

	if (m->failed)
		return;
	while (i < *n && (!f->path || !files[i].path || strcmp(files[i].path, f->path) != 0))
		i++;
	*n += i == *n;
	files[i] = (aviary_mounted_file){.path = dup_text(m, f->path),
	    .data = dup_bytes(m, f->data, f->size),
	    .size = f->size,
	    .mode = f->mode};
}

/* Both; of the same path that of over. */
static void join_files(
    struct merged *m, const aviary_sandbox_spec *base, const aviary_sandbox_spec *over)
{
	aviary_mounted_file *files;
	size_t n = 0;

	if (!base->files && !over->files)
		return;
	files = take_array(m, (base->files ? base->n_files : 0) + (over->files ? over->n_files : 0),
	    sizeof(*files));
	for (size_t i = 0; files && base->files && i < base->n_files; i++)
		set_file(m, files, &n, &base->files[i]);
	for (size_t i = 0; files && over->files && i < over->n_files; i++)
		set_file(m, files, &n, &over->files[i]);
	m->spec.files = files;
	m->spec.n_files = n;
}

/* ---- both ---- */

static void merge(struct merged *m, const aviary_sandbox_spec *b, const aviary_sandbox_spec *o)
{
	m->spec = (aviary_sandbox_spec){.struct_size = sizeof(m->spec),
	    .template_name = pick_text(m, b->template_name, o->template_name),
	    .command = dup_strings(m, o->command.items ? &o->command : &b->command),
	    .workdir = pick_text(m, b->workdir, o->workdir),
	    .user = pick_text(m, b->user, o->user),
	    .cpus = o->cpus != 0 ? o->cpus : b->cpus,
	    .memory_mb = pick(b->memory_mb, o->memory_mb),
	    .disk_mb = pick(b->disk_mb, o->disk_mb),
	    .pids_max = pick(b->pids_max, o->pids_max),
	    .idle_timeout_ms = pick(b->idle_timeout_ms, o->idle_timeout_ms),
	    .on_timeout = pick_text(m, b->on_timeout, o->on_timeout),
	    .on_exit = pick_text(m, b->on_exit, o->on_exit),
	    .max_lifetime_ms = pick(b->max_lifetime_ms, o->max_lifetime_ms),
	    .auto_resume = (int)pick(b->auto_resume, o->auto_resume),
	    .internet = (int)pick(b->internet, o->internet),
	    .no_sudo = (int)pick(b->no_sudo, o->no_sudo),
	    .envs = join_pairs(m, &b->envs, &o->envs),
	    .metadata = join_pairs(m, &b->metadata, &o->metadata),
	    .tags = join(m, &b->tags, &o->tags),
	    .public_ports =
	        dup_ports(m, o->public_ports.items ? &o->public_ports : &b->public_ports),
	    .idempotency_key = dup_text(m, o->idempotency_key),
	    .start_timeout_ms = pick(b->start_timeout_ms, o->start_timeout_ms),
	    .isolation = pick_text(m, b->isolation, o->isolation)};
	join_files(m, b, o);
}

aviary_sandbox_spec *aviary_spec_merge(
    const aviary_sandbox_spec *base, const aviary_sandbox_spec *over)
{
	struct merged *m = calloc(1, sizeof(*m));
	aviary_sandbox_spec b, o;

	if (!m)
		return NULL;
	avc_spec_take(&b, base);
	avc_spec_take(&o, over);
	merge(m, &b, &o);
	if (!m->failed)
		return &m->spec;
	aviary_spec_free(&m->spec);
	return NULL;
}

void aviary_spec_free(aviary_sandbox_spec *spec)
{
	struct merged *m = (struct merged *)spec;
	struct block *b;

	while (m && (b = m->blocks)) {
		m->blocks = b->next;
		free(b);
	}
	free(m);
}
