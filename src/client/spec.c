/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spec.c - specs of sandboxes: checked before anything is sent (see spec.h, aviary/sandbox.h)
 */
#include "client/spec.h"

#include <aviary/resources.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/codec.h"
#include "base/str.h"
#include "client/model_tables.h"
#include "client/resource.h"

#include "base/banned.h"

#define TAGS_MAX        64
#define TAG_MAX         128
#define PORTS_MAX       64
#define METADATA_MAX    64
#define ENVS_MAX        256
#define COMMAND_MAX     256
#define FILES_MAX       64
#define FILES_MAX_BYTES ((size_t)1 << 20)
#define PATH_MAX_SPEC   4096
#define KEY_MAX         79

void avc_spec_take(aviary_sandbox_spec *dst, const aviary_sandbox_spec *src)
{
	memset(dst, 0, sizeof(*dst));
	if (src)
		memcpy(dst, src, AV_MIN(src->struct_size, sizeof(*dst)));
	else
		dst->struct_size = sizeof(*dst);
}

/* ---- checks ---- */

static bool bad(char text[AVC_SPEC_TEXT], const char *format, ...) AVIARY_PRINTF(2, 3);
static bool bad(char text[AVC_SPEC_TEXT], const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, AVC_SPEC_TEXT, format, ap);
	va_end(ap);
	return false;
}

static bool is_text(const char *s)
{
	return av_utf8_valid(av_str_c(s));
}

static bool check_text(char *text, const char *member, const char *value)
{
	return !value || is_text(value) || bad(text, "%s is not UTF-8", member);
}

static bool check_word(
    char *text, const char *member, const char *value, const char *one, const char *other)
{
	return !value || !*value || strcmp(value, one) == 0 || strcmp(value, other) == 0 ||
	       bad(text, "%s is \"%.60s\"; it may be \"%s\" or \"%s\"", member, value, one, other);
}

static bool check_number(char *text, const char *member, int64_t value)
{
	return value >= 0 || value == AVIARY_SERVER_DEFAULT ||
	       bad(text,
	           "%s is %" PRId64 "; it may be positive, 0 for what is not said, or "
	           "AVIARY_SERVER_DEFAULT",
	           member, value);
}

static bool check_time(char *text, const char *member, int64_t value)
{
	return value >= AVIARY_SERVER_DEFAULT ||
	       bad(text,
	           "%s is %" PRId64 "; it may be positive, 0 for what is not said, -1 for "
	           "without end, or AVIARY_SERVER_DEFAULT",
	           member, value);
}

static bool check_yes_no(char *text, const char *member, int value)
{
	return (value >= AVIARY_SERVER_DEFAULT && value <= 1) ||
	       bad(text,
	           "%s is %d; it may be 1 for yes, -1 for no, 0 for what is not said, or "
	           "AVIARY_SERVER_DEFAULT",
	           member, value);
}

static bool check_count(char *text, const char *member, size_t n, size_t max)
{
	return n <= max || bad(text, "%s has %zu entries; it may have %zu", member, n, max);
}

static bool check_pairs(char *text, const char *member, const aviary_pairs *v, size_t max)
{
	if (!check_count(text, member, v->items ? v->n : 0, max))
		return false;
	for (size_t i = 0; v->items && i < v->n; i++) {
		const aviary_pair *p = &v->items[i];

		if (!p->name || !*p->name)
			return bad(text, "%s.items[%zu] has no name", member, i);
		if (!is_text(p->name) || (p->value && !is_text(p->value)))
			return bad(text, "%s.items[%zu] is not UTF-8", member, i);
	}
	return true;
}

static bool check_envs(char *text, const aviary_pairs *v)
{
	if (!check_pairs(text, "envs", v, ENVS_MAX))
		return false;
	for (size_t i = 0; v->items && i < v->n; i++)
		if (strchr(v->items[i].name, '='))
			return bad(text, "envs.items[%zu]: the name \"%.100s\" has a = in it", i,
			    v->items[i].name);
	return true;
}

static bool check_strings(
    char *text, const char *member, const aviary_strings *v, size_t max, size_t max_bytes)
{
	if (!check_count(text, member, v->items ? v->n : 0, max))
		return false;
	for (size_t i = 0; v->items && i < v->n; i++) {
		const char *s = v->items[i];

		if (!s)
			return bad(text, "%s.items[%zu] is NULL", member, i);
		if (!is_text(s))
			return bad(text, "%s.items[%zu] is not UTF-8", member, i);
		if (max_bytes && (!*s || strlen(s) > max_bytes))
			return bad(text, "%s.items[%zu] has %zu bytes; it may have 1 to %zu",
			    member, i, strlen(s), max_bytes);
	}
	return true;
}

static bool check_command(char *text, const aviary_sandbox_spec *s)
{
	if (!check_strings(text, "command", &s->command, COMMAND_MAX, 0))
		return false;
	if (s->command.items && s->command.n > 0 && !s->command.items[0][0])
		return bad(text, "command.items[0] is empty; it names the program");
	if (s->workdir && *s->workdir && *s->workdir != '/')
		return bad(text, "workdir is \"%.100s\"; it must begin with /", s->workdir);
	return check_text(text, "workdir", s->workdir) && check_text(text, "user", s->user);
}

static bool check_ports(char *text, const aviary_ports *v)
{
	if (!check_count(text, "public_ports", v->items ? v->n : 0, PORTS_MAX))
		return false;
	for (size_t i = 0; v->items && i < v->n; i++)
		if (v->items[i] == 0)
			return bad(text, "public_ports.items[%zu] is 0; it may be 1 to 65535", i);
	return true;
}

static bool check_files(char *text, const aviary_sandbox_spec *s)
{
	size_t bytes = 0;

	if (!check_count(text, "files", s->files ? s->n_files : 0, FILES_MAX))
		return false;
	for (size_t i = 0; s->files && i < s->n_files; i++) {
		const aviary_mounted_file *f = &s->files[i];

		if (!f->path || *f->path != '/' || strlen(f->path) > PATH_MAX_SPEC ||
		    !is_text(f->path))
			return bad(text,
			    "files[%zu].path is \"%.100s\"; it must be UTF-8, begin with / "
			    "and have at most %d bytes",
			    i, f->path ? f->path : "", PATH_MAX_SPEC);
		if (f->size && !f->data)
			return bad(
			    text, "files[%zu].data is NULL, and its size is %zu", i, f->size);
		bytes += AV_MIN(f->size, FILES_MAX_BYTES + 1);
		if (bytes > FILES_MAX_BYTES)
			return bad(text,
			    "files[%zu]: the contents have more than %zu bytes together; write "
			    "larger ones when it runs",
			    i, FILES_MAX_BYTES);
		if (f->mode > 07777)
			return bad(
			    text, "files[%zu].mode is 0%o; it may be up to 07777", i, f->mode);
	}
	return true;
}

static bool check_key(char *text, const char *key)
{
	size_t n = key ? strlen(key) : 0;

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)key[i] <= ' ' || (unsigned char)key[i] >= 0x7f)
			return bad(text, "idempotency_key has a byte that is not printable ASCII");
	return n <= KEY_MAX ||
	       bad(text, "idempotency_key has %zu bytes; it may have %d", n, KEY_MAX);
}

static bool check_changeable(char *text, const aviary_sandbox_spec *s)
{
	return check_time(text, "idle_timeout_ms", s->idle_timeout_ms) &&
	       check_word(text, "on_timeout", s->on_timeout, "pause", "delete") &&
	       check_time(text, "max_lifetime_ms", s->max_lifetime_ms) &&
	       check_yes_no(text, "auto_resume", s->auto_resume) &&
	       check_pairs(text, "metadata", &s->metadata, METADATA_MAX) &&
	       check_strings(text, "tags", &s->tags, TAGS_MAX, TAG_MAX) &&
	       check_ports(text, &s->public_ports);
}

static bool check_cpus(char *text, double cpus)
{
	return cpus == AVIARY_SERVER_DEFAULT || (cpus >= 0 && isfinite(cpus)) ||
	       bad(text,
	           "cpus is %g; it may be positive, 0 for what is not said, or "
	           "AVIARY_SERVER_DEFAULT",
	           cpus);
}

static bool check_resources(char *text, const aviary_sandbox_spec *s)
{
	return check_cpus(text, s->cpus) && check_number(text, "memory_mb", s->memory_mb) &&
	       check_number(text, "disk_mb", s->disk_mb) &&
	       check_number(text, "pids_max", s->pids_max) &&
	       check_yes_no(text, "internet", s->internet) &&
	       check_yes_no(text, "no_sudo", s->no_sudo);
}

/* What only a create takes. */
static bool check_fixed(char *text, const aviary_sandbox_spec *s)
{
	return check_text(text, "template_name", s->template_name) &&
	       check_word(text, "isolation", s->isolation, "jail", "vm") &&
	       check_resources(text, s) && check_command(text, s) &&
	       check_word(text, "on_exit", s->on_exit, "stop", "keep") &&
	       check_envs(text, &s->envs) && check_files(text, s) &&
	       check_key(text, s->idempotency_key) &&
	       check_time(text, "start_timeout_ms", s->start_timeout_ms);
}

static bool must_be_unsaid(char *text, const char *member, bool said)
{
	return !said || bad(text, "%s cannot be changed of a sandbox that is there", member);
}

static bool check_unsaid(char *text, const aviary_sandbox_spec *s)
{
	return must_be_unsaid(text, "template_name", s->template_name) &&
	       must_be_unsaid(text, "isolation", s->isolation) &&
	       must_be_unsaid(text, "command", s->command.items) &&
	       must_be_unsaid(text, "workdir", s->workdir) &&
	       must_be_unsaid(text, "user", s->user) &&
	       must_be_unsaid(text, "on_exit", s->on_exit) &&
	       must_be_unsaid(text, "cpus", s->cpus != 0) &&
	       must_be_unsaid(text, "memory_mb", s->memory_mb != 0) &&
	       must_be_unsaid(text, "disk_mb", s->disk_mb != 0) &&
	       must_be_unsaid(text, "pids_max", s->pids_max != 0) &&
	       must_be_unsaid(text, "internet", s->internet != 0) &&
	       must_be_unsaid(text, "no_sudo", s->no_sudo != 0) &&
	       must_be_unsaid(text, "envs", s->envs.items) &&
	       must_be_unsaid(text, "files", s->files);
}

static int check(const aviary_sandbox_spec *s, bool for_update, char text[AVC_SPEC_TEXT])
{
	bool good;

	if (s->struct_size < sizeof(s->struct_size))
		good = bad(text,
		    "struct_size is %zu; begin the spec with "
		    "AVIARY_SANDBOX_SPEC_INIT",
		    s->struct_size);
	else
		good = check_changeable(text, s) &&
		       (for_update ? check_unsaid(text, s) : check_fixed(text, s));
	return good ? 0 : AVIARY_E_INVALID;
}

/* ---- as the calls of the API have it ---- */

static double seconds(int64_t ms)
{
	return ms > 0 ? (double)ms / 1000 : 0; /* 0 is without end */
}

static int is_said(int64_t ms)
{
	return ms != 0 && ms != AVIARY_SERVER_DEFAULT;
}

static int64_t number(int64_t n)
{
	return n == AVIARY_SERVER_DEFAULT ? 0 : n;
}

static int yes_no(int yes)
{
	return yes == AVIARY_SERVER_DEFAULT ? 0 : yes;
}

static const char *text_of(const char *text)
{
	return text && *text ? text : NULL;
}

static enum aviary_on_timeout on_timeout(const char *word)
{
	return (enum aviary_on_timeout)avc_word_find(&avc_on_timeout_words, word ? word : "");
}

static enum aviary_isolation isolation(const char *word)
{
	return (enum aviary_isolation)avc_word_find(&avc_isolation_words, word ? word : "");
}

static const char *mode_text(unsigned mode, char buf[12])
{
	(void)snprintf(buf, 12, "%04o", mode ? mode : 0644);
	return buf;
}

/* Files as the API has them: contents in base64, as they may be any bytes. */
struct files {
	aviary_mounted_file_options items[FILES_MAX];
	char modes[FILES_MAX][12];
	struct av_buf contents[FILES_MAX];
	size_t n;
};

static void files_free(struct files *f)
{
	for (size_t i = 0; f && i < f->n; i++)
		av_buf_clear(&f->contents[i]);
	free(f);
}

static bool add_file(struct files *f, const aviary_mounted_file *file)
{
	size_t i = f->n++;
	struct av_buf *content = &f->contents[i];

	av_buf_init(content, FILES_MAX_BYTES * 2);
	f->items[i] = (aviary_mounted_file_options){.struct_size = sizeof(f->items[i]),
	    .path = file->path,
	    .mode = mode_text(file->mode, f->modes[i])};
	if (av_base64_encode(content, file->data ? file->data : "", file->size) == 0)
		f->items[i].content_base64 = av_buf_cstr(content);
	return f->items[i].content_base64 != NULL;
}

/* NULL: no memory. */
static struct files *files_new(const aviary_sandbox_spec *s)
{
	struct files *f = calloc(1, sizeof(*f));

	for (size_t i = 0; f && i < (s->files ? s->n_files : 0); i++) {
		if (!add_file(f, &s->files[i])) {
			files_free(f);
			return NULL;
		}
	}
	return f;
}

static void to_create(
    const aviary_sandbox_spec *s, const struct files *files, aviary_sandboxes_create_options *o)
{
	*o = (aviary_sandboxes_create_options){.struct_size = sizeof(*o),
	    .template_name = text_of(s->template_name),
	    .isolation = isolation(s->isolation),
	    .command = s->command.n ? s->command : (aviary_strings){0},
	    .workdir = text_of(s->workdir),
	    .user = text_of(s->user),
	    .on_exit = (enum aviary_on_exit)avc_word_find(
	        &avc_on_exit_words, s->on_exit ? s->on_exit : ""),
	    .cpus = s->cpus > 0 ? s->cpus : 0,
	    .memory_mb = number(s->memory_mb),
	    .disk_mb = number(s->disk_mb),
	    .pids_max = number(s->pids_max),
	    .has_timeout_sec = is_said(s->idle_timeout_ms),
	    .timeout_sec = seconds(s->idle_timeout_ms),
	    .has_max_lifetime_sec = is_said(s->max_lifetime_ms),
	    .max_lifetime_sec = seconds(s->max_lifetime_ms),
	    .on_timeout = on_timeout(s->on_timeout),
	    .auto_resume = yes_no(s->auto_resume),
	    .internet = yes_no(s->internet),
	    .sudo = -yes_no(s->no_sudo),
	    .envs = s->envs,
	    .metadata = s->metadata,
	    .tags = s->tags,
	    .public_ports = s->public_ports,
	    .files = files->n ? files->items : NULL,
	    .n_files = files->n};
}

static void to_update(const aviary_sandbox_spec *s, aviary_sandboxes_update_options *o)
{
	*o = (aviary_sandboxes_update_options){.struct_size = sizeof(*o),
	    .has_timeout_sec = is_said(s->idle_timeout_ms),
	    .timeout_sec = seconds(s->idle_timeout_ms),
	    .has_max_lifetime_sec = is_said(s->max_lifetime_ms),
	    .max_lifetime_sec = seconds(s->max_lifetime_ms),
	    .on_timeout = on_timeout(s->on_timeout),
	    .auto_resume = yes_no(s->auto_resume),
	    .metadata = s->metadata,
	    .tags = s->tags,
	    .public_ports = s->public_ports};
}

int avc_spec_body(const aviary_sandbox_spec *spec, json_t **ret, char text[AVC_SPEC_TEXT])
{
	aviary_sandboxes_create_options o;
	aviary_sandbox_spec *whole;
	struct files *files;
	int r = check(spec, false, text);

	if (r < 0)
		return r;
	whole = aviary_spec_merge(spec, NULL); /* without the names that are taken away */
	files = whole ? files_new(whole) : NULL;
	if (files) {
		to_create(whole, files, &o);
		r = avc_resource_body(&avc_sandboxes_create_resource, &o, ret, text);
	} else {
		r = AVIARY_E_NO_MEMORY;
	}
	files_free(files);
	aviary_spec_free(whole);
	return r;
}

int avc_spec_changes(const aviary_sandbox_spec *spec, json_t **ret, char text[AVC_SPEC_TEXT])
{
	aviary_sandboxes_update_options o;
	int r = check(spec, true, text);

	if (r < 0)
		return r;
	to_update(spec, &o);
	return avc_resource_body(&avc_sandboxes_update_resource, &o, ret, text);
}
