/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote_setup.c - options of remote calls: checked, copied, shared by all calls of a map
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/call.h"
#include "client/remote.h"
#include "client/remote_wire.h"

#include "base/banned.h"

#define DIRECTORY       "/opt/aviary"
#define TIMEOUT_MS      300000
#define LIFETIME_MORE   600000LL                   /* of a sandbox of our own, beside its calls */
#define LIFETIME_MAX    (365LL * 24 * 3600 * 1000) /* the server's bound */
#define OUTPUT_MAX      ((size_t)64 << 10)
#define MAX_SANDBOXES   8
#define ENVS_OF_OURS    3
#define DIRECTORY_BYTES 1024

void avc_setup_unref(struct avc_setup *s)
{
	aviary_client *c = s ? s->c : NULL;

	if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
		return;
	aviary_sandbox_free(s->sb);
	aviary_spec_free(s->spec);
	free(s->directory);
	free(s->user);
	free(s->cwd);
	for (size_t i = 0; i < s->n_envs; i++)
		free((void *)(uintptr_t)s->envs[i].name); /* with its value */
	free(s->envs);
	free(s);
	avc_client_unref(c);
}

/* "name\0value", once. */
static bool add_env(struct avc_setup *s, const char *name, const char *value)
{
	size_t n = strlen(name) + 1, m = strlen(value) + 1;
	char *both = malloc(n + m);

	if (!both)
		return false;
	memcpy(both, name, n);
	memcpy(both + n, value, m);
	s->envs[s->n_envs++] = (aviary_pair){both, both + n};
	return true;
}

/* What the template has set for its own loader is not for ours. */
static bool add_envs(struct avc_setup *s, const aviary_pairs *envs)
{
	static const aviary_pair ours[ENVS_OF_OURS] = {
	    {"LD_PRELOAD", ""}, {"LD_LIBRARY_PATH", ""}, {AVC_WORKER_ENV, "1"}};

	s->envs = calloc(envs->n + ENVS_OF_OURS, sizeof(*s->envs));
	if (!s->envs)
		return false;
	for (size_t i = 0; i < ENVS_OF_OURS; i++)
		if (!add_env(s, ours[i].name, ours[i].value))
			return false;
	for (size_t i = 0; i < envs->n; i++)
		if (!add_env(s, envs->items[i].name, envs->items[i].value))
			return false;
	return true;
}

static bool fill(struct avc_setup *s, const aviary_remote_options *o)
{
	s->sb = aviary_sandbox_ref(o->sandbox);
	s->session = o->session;
	s->spec = o->spec ? aviary_spec_merge(o->spec, NULL) : NULL;
	if (o->spec && !s->spec)
		return false;
	s->timeout_ms = o->timeout_ms ? o->timeout_ms : TIMEOUT_MS;
	s->argument_max = o->argument_max ? o->argument_max : AVC_ARGUMENT_MAX;
	s->result_max = o->result_max ? o->result_max : AVC_ARGUMENT_MAX;
	s->output_max = o->output_max ? o->output_max : OUTPUT_MAX;
	s->max_sandboxes = o->max_sandboxes ? o->max_sandboxes : MAX_SANDBOXES;
	s->fresh = o->fresh != 0;
	s->on_output = o->on_output;
	s->ctx = o->ctx;
	return avc_dup_text(&s->directory, o->directory ? o->directory : DIRECTORY) &&
	       avc_dup_text(&s->user, o->user) && avc_dup_text(&s->cwd, o->cwd) &&
	       add_envs(s, &o->envs);
}

/* Why the options cannot be; NULL: they can. */
static const char *find_wrong(const aviary_client *c, const aviary_remote_options *o)
{
	size_t n = o->directory ? strlen(o->directory) : 0;

	if (o->directory &&
	    (o->directory[0] != '/' || n < 2 || n > DIRECTORY_BYTES || o->directory[n - 1] == '/'))
		return "directory is not an absolute path, without / at its end, of at most 1024 "
		       "bytes";
	if (o->sandbox && o->sandbox->c != c)
		return "the sandbox is of another client";
	if (o->sandbox && (o->spec || o->session))
		return "there is a sandbox, and a spec or session for others: choose";
	if (o->argument_max > SIZE_MAX / 8 || o->result_max > SIZE_MAX / 8 ||
	    o->output_max > SIZE_MAX / 8)
		return "argument_max, result_max or output_max is no size";
	return NULL;
}

/* The function is one that a worker will find. */
static aviary_op *check_function(aviary_client *c, const aviary_function *fn)
{
	bool twice;

	if (avc_function_find(fn->name, &twice) == fn)
		return NULL;
	if (twice)
		return avc_op_failed(c, AVIARY_E_FUNCTION_UNKNOWN,
		    "this program has two remote functions with the name %.100s, in two of its "
		    "libraries: rename one",
		    fn->name);
	return avc_op_failed(c, AVIARY_E_FUNCTION_UNKNOWN,
	    "%.100s is not in this program's registry: define it with AVIARY_REMOTE, and let the "
	    "linker and strip keep the section .note.aviary",
	    fn->name);
}

struct avc_setup *avc_setup_new(aviary_client *c, const aviary_function *fn,
    const aviary_remote_options *options, aviary_op **ret)
{
	aviary_remote_options o = AVIARY_REMOTE_OPTIONS_INIT;
	struct avc_remote *remote;
	struct avc_setup *s;
	const char *wrong;
	char text[512];
	int r;

	if (options)
		memcpy(&o, options, AV_MIN(options->struct_size, sizeof(o)));
	wrong = find_wrong(c, &o);
	*ret = wrong ? avc_op_failed(c, AVIARY_E_INVALID, "%s", wrong) : check_function(c, fn);
	if (*ret)
		return NULL;
	r = avc_remote_get(c, &remote, text);
	if (r < 0) {
		*ret =
		    r == AVIARY_E_NO_MEMORY
		        ? avc_op_failed(c, r, "out of memory")
		        : avc_op_failed(c, r, "this program cannot be sent to a sandbox: %s", text);
		return NULL;
	}
	s = calloc(1, sizeof(*s));
	if (s) {
		atomic_init(&s->refs, 1);
		s->c = avc_client_ref(c);
		s->fn = fn;
	}
	if (s && fill(s, &o))
		return s;
	avc_setup_unref(s);
	*ret = avc_op_failed(c, AVIARY_E_NO_MEMORY, "out of memory");
	return NULL;
}

int avc_setup_sandbox(const struct avc_setup *s, size_t n, struct aviary_sandbox **ret)
{
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	int64_t all;

	if (s->spec)
		spec = *s->spec;
	/* The last net under it, should we be killed; a session has its own. */
	if (!spec.max_lifetime_ms && !s->session && s->timeout_ms > 0 &&
	    !__builtin_mul_overflow(s->timeout_ms, (int64_t)n, &all) && all < LIFETIME_MAX / 2)
		spec.max_lifetime_ms = all + LIFETIME_MORE;
	if (s->session) {
		int r = aviary_session_sandbox(s->session, &spec, ret);

		if (r == 0 && (*ret)->c != s->c) {
			aviary_session_release(s->session, *ret);
			aviary_sandbox_free(*ret);
			*ret = NULL;
			r = AVIARY_E_INVALID;
		}
		return r;
	}
	*ret = aviary_sandbox_new(s->c, &spec);
	return *ret ? 0 : AVIARY_E_NO_MEMORY;
}

int avc_setup_encode(
    const struct avc_setup *s, const void *in, aviary_bytes *out, char text[static 512])
{
	const char *why;
	int r = avc_value_encode(s->fn->in, in, s->argument_max, out, &why);

	if (r == AVIARY_E_NO_MEMORY) {
		(void)snprintf(text, 512, "out of memory");
		return r;
	}
	if (r == AVIARY_E_TOO_LARGE)
		(void)snprintf(text, 512,
		    "the argument of %.100s has %zu bytes; argument_max allows %zu", s->fn->name,
		    out->size, s->argument_max);
	else if (r < 0)
		(void)snprintf(text, 512, "the argument of %.100s: %s", s->fn->name, why);
	return r < 0 ? AVIARY_E_FUNCTION_ARGUMENT : 0;
}
