/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote.h - only for the remote functions of libaviary: registry, program, wire
 *
 * Theory of operation (docs/libaviary.md says what users see).
 *  - remote_registry.c finds functions by name in the ELF notes of what is loaded, and knows which
 *    build the program is: on both sides.
 *  - remote_program.c: which files the program consists of, and their hashes; once for a client.
 *  - remote_ship.c: brings what is missing into a sandbox. Handles of a sandbox share one shipping.
 *  - remote_setup.c: the options of calls. remote_call.c: one call: start, ship, run, decode, clean
 * up. remote_map.c: many.
 *  - remote_worker.c: the other side, in the sandbox. A supervisor, which is the process that the
 *    agent started, and a child that runs the function with pipes for all it says. The supervisor
 *    puts what comes out of them into frames on its stdout (remote_wire.h), so that output, result
 *    and end come in one stream and cannot be taken for each other; the argument comes by stdin.
 *  - remote_value.c: values to bytes and back; results; the local run.
 */
#pragma once

#include <aviary/remote.h>

#include "client/sandbox.h"

/* ---- remote_registry.c ---- */

/* The function of that name; NULL: none, or more than one (then *ret_twice, which may be NULL). No
 * lock, no memory; any thread. */
const aviary_function *avc_function_find(const char *name, bool *ret_twice);

#define AVC_BUILD_SIZE 80
/* What identifies the build of this program's executable: "gnu-" and its build id in hexadecimal,
 * or, of one linked without, "sum-" and a hash of its program headers and code. Any thread. */
void avc_build_id(char ret[static AVC_BUILD_SIZE]);
/* The build id note among the notes of an object: its bytes, borrowed; empty: none. */
struct dl_phdr_info;
struct av_str avc_build_note(const struct dl_phdr_info *info);

/* ---- remote_program.c ---- */

#define AVC_HASH_TEXT  64
#define AVC_EXECUTABLE "executable" /* its name there */

/* A file of the program. */
struct avc_object {
	char *path;                   /* here */
	char *name;                   /* what the loader looks for: its soname */
	char hash[AVC_HASH_TEXT + 1]; /* SHA-256 of its content */
	uint64_t size;
	uint64_t dev, ino;
	int64_t mtime_ns;
};

struct avc_program {
	struct avc_object *objects; /* the executable is the first one */
	size_t n;
	int loader;                 /* index; -1: static, started by itself */
	char id[AVC_HASH_TEXT + 1]; /* of all of them */
	char build[AVC_BUILD_SIZE];
};

/* Reads and hashes the files of this program. 0, or a code with error (AVIARY_E_FUNCTION_PROGRAM
 * says which file and why), whose text is in text. Blocks on the disk. */
int avc_program_new(struct avc_program **ret, char text[static 512]);
void avc_program_free(struct avc_program *p);
/* An open descriptor for the content of an object, if that still is what was hashed; -errno. */
int avc_object_open(const struct avc_object *o);

/* ---- remote_ship.c ---- */

/* What a client knows for remote functions. */
struct avc_remote {
	struct avc_program *program;
	struct av_list parcels; /* what is where, the one used last at the end */
	size_t n_parcels;
};

/* That of the client, made by the first who asks: 0, or a code and text. Without the lock. Blocks
 * on the disk then. */
int avc_remote_get(aviary_client *c, struct avc_remote **ret, char text[static 512]);

/* Brings the program below directory of a sandbox that runs. *ret_bytes (which must live until it
 * is done or cancelled) gets what had to be sent for this. Without the lock. */
aviary_op *avc_ship(struct aviary_sandbox *sb, const char *directory, uint64_t *ret_bytes);
/* It is not there after all, or the sandbox is gone. Without the lock. */
void avc_ship_forget(struct aviary_sandbox *sb);

/* ---- remote_setup.c ---- */

/* What all calls of a map have in common: options, copied. */
struct avc_setup {
	atomic_uint refs;
	aviary_client *c; /* a reference */
	const aviary_function *fn;
	struct aviary_sandbox *sb; /* a reference; NULL: one for each call */
	aviary_session *session;   /* borrowed; NULL */
	char *directory, *user, *cwd;
	aviary_pair *envs;
	size_t n_envs, argument_max, result_max, output_max, max_sandboxes;
	int64_t timeout_ms;
	bool fresh;
	aviary_remote_output_fn *on_output;
	void *ctx;
	aviary_sandbox_spec *spec; /* a copy; NULL: none */
};

/* NULL, and *ret the operation that has failed. */
struct avc_setup *avc_setup_new(aviary_client *c, const aviary_function *fn,
    const aviary_remote_options *options, aviary_op **ret);
void avc_setup_unref(struct avc_setup *s);
/* A handle for a sandbox of its own, as the options want it, that may live as long as n calls take:
 * 0, AVIARY_E_NO_MEMORY, AVIARY_E_STATE or _INVALID (of the session). */
int avc_setup_sandbox(const struct avc_setup *s, size_t n, struct aviary_sandbox **ret);
/* What that is for people. */
static inline const char *avc_setup_why(int code)
{
	return code == AVIARY_E_STATE     ? "the session is closed"
	       : code == AVIARY_E_INVALID ? "the session is of another client"
	                                  : "out of memory";
}
/* in, encoded: 0, or the code and text for a failure. */
int avc_setup_encode(
    const struct avc_setup *s, const void *in, aviary_bytes *out, char text[static 512]);
/* ---- remote_discard.c ---- */

/* Ends a sandbox of our own, after an operation on it has ended with why. One that was never
 * created needs nothing; one whose create was cancelled is deleted with its handle. Where it fails
 * for want of memory it may be asked again. */
aviary_op *avc_discard(struct aviary_sandbox *sb, int why);

/* ---- remote_call.c ---- */

/* One call. argument is stolen; sb borrowed; delete: sb is ended afterwards. The result is given
 * also where it fails, unless it was cancelled. */
aviary_op *avc_remote_start(
    struct avc_setup *s, struct aviary_sandbox *sb, bool delete, aviary_bytes *argument);

/* Their results: struct avc_result; also taken from an operation that failed. */
extern const struct avc_type avc_remote_type;
void *avc_op_take_any(aviary_op *op, const struct avc_type *type);

/* ---- remote_value.c ---- */

#define AVC_ARGUMENT_MAX ((size_t)64 << 20)

/* 0, or a code and why (a literal, or in text). max: of the encoded bytes. */
int avc_value_encode(
    const aviary_codec *codec, const void *value, size_t max, aviary_bytes *out, const char **why);
/* *ret: malloc'ed, codec->size bytes. Runs the caller's code. */
int avc_value_decode(
    const aviary_codec *codec, const void *data, size_t n, void **ret, const char **why);
void avc_value_free(const aviary_codec *codec, void *value);
/* What both sides compare: that they mean the same types. */
uint64_t avc_function_layout(const aviary_function *fn);

/* A result and what it owns. */
struct avc_result {
	aviary_remote_result pub; /* first */
	void *value;              /* pub.value, to be freed */
	char *texts[5];           /* of pub.error */
	char *out, *err;
};
struct avc_result *avc_result_new(const aviary_function *fn);
void avc_result_fail(struct avc_result *r, const aviary_error *error);
