/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote.h - remote functions: a C function of this program, run in a sandbox
 *
 *     typedef struct { double from, to; } range;
 *     AVIARY_POD(range, from, to);
 *
 *     AVIARY_REMOTE(integrate, range, double)     // at file scope, instead of a head
 *     {
 *             *out = ...in->from ... in->to...;
 *             return 0;
 *     }
 *
 *     int main(int argc, char **argv)
 *     {
 *             aviary_worker_init(argc, argv);     // first of all
 *             ...
 *             integrate_sync(client, &(range){0, 1}, &area, NULL, &error);
 *
 * The program itself is sent: its executable and the shared libraries that it has loaded, below
 * /opt/aviary in the sandbox, each file under its SHA-256 and only where it is not there yet. It is
 * started there by its own loader, so the image need not fit, only the processor. Functions are
 * known by name, arguments and results cross as bytes.
 *
 * What a function finds there: its argument, and the program as it is when main begins. Not the
 * caller's heap, changed globals, threads, descriptors, environment, or files. Standard input is
 * empty; what it prints to stdout and stderr comes beside the result. Only the caller's binary is
 * trusted: what comes back is checked like anything a stranger sent.
 *
 * Needs Linux, gcc or clang, and dl_iterate_phdr (glibc, musl). Static, static-pie, PIE and other
 * executables, functions in shared libraries of the program, C and C++.
 */
#ifndef AVIARY_REMOTE_H
#define AVIARY_REMOTE_H

#ifdef __cplusplus
#include <type_traits>
#endif

#include <aviary/process.h>
#include <aviary/session.h>

AVIARY_BEGIN_DECLS

/* ---- how values become bytes ---- */

/* Bytes that grow: what a codec writes, and a type of arguments and results itself. All zero is the
 * empty one. */
typedef struct aviary_bytes {
	void *data; /* malloc'ed; NULL when nothing was ever appended */
	size_t size, capacity;
} aviary_bytes;
/* Room for n more at the end, and *ret (may be NULL) at its start: not filled. 0 or
 * AVIARY_E_NO_MEMORY. */
AVIARY_API int aviary_bytes_grow(aviary_bytes *b, size_t n, void **ret);
AVIARY_API int aviary_bytes_append(aviary_bytes *b, const void *data, size_t n);
/* Frees the data; the empty one again. */
AVIARY_API void aviary_bytes_clear(aviary_bytes *b);

/* Where a member lies in its type. */
typedef struct aviary_span {
	size_t at, size;
} aviary_span;

/* How values of a type cross. Made by AVIARY_POD and AVIARY_CODEC. */
typedef struct aviary_codec {
	size_t struct_size;
	size_t size; /* of a value */
	/* Of a plain one: in words, which are compared; and its members: what lies between them
	 * crosses as zeros. */
	const char *layout;
	const aviary_span *members;
	size_t n_members;
	/* Appends to out. 0, or a code: AVIARY_E_FUNCTION_ARGUMENT or _RESULT is what callers see
	 * then. NULL: plain. */
	int (*encode)(const void *value, aviary_bytes *out);
	/* Makes a value, given all zero, of bytes that may be anything. 0, or a code, with nothing
	 * left to be cleared. */
	int (*decode)(const void *data, size_t n, void *value);
	/* Frees what a value owns, not the value. NULL: nothing. */
	void (*clear)(void *value);
} aviary_codec;

/* For AVIARY_CODEC below and the type aviary_bytes. decode refuses nothing. */
AVIARY_API int aviary_bytes_encode(const aviary_bytes *value, aviary_bytes *out);
AVIARY_API int aviary_bytes_decode(const void *data, size_t n, aviary_bytes *value);

/* ---- functions ---- */

/* A function that can be called from afar. Made by AVIARY_REMOTE. */
typedef struct aviary_function {
	size_t struct_size;
	const char *name;
	int (*call)(const void *in, void *out);
	const aviary_codec *in, *out;
} aviary_function;

/* Called at the start of main: does nothing and returns, except in a sandbox as the worker of a
 * call, where it does not return. Best as the first line of main, when all that constructors set up
 * is there. Where main is not yours AVIARY_WORKER_CONSTRUCTOR() at file scope does it before main;
 * constructors of other files may not have run then, C++ objects among them. A program without
 * either fails with AVIARY_E_FUNCTION_PROGRAM. */
AVIARY_API void aviary_worker_init(int argc, char **argv);
#define AVIARY_WORKER_CONSTRUCTOR()                                                                \
	__attribute__((constructor)) static void aviary_worker_constructor_(void)                  \
	{                                                                                          \
		aviary_worker_init(0, 0);                                                          \
	}                                                                                          \
	AVIARY_SEMICOLON_

/* ---- results ---- */

typedef struct aviary_remote_result {
	aviary_error error; /* code 0: value is there. As that of the operation */
	const aviary_function *function;
	const void *value; /* what the function wrote, decoded; NULL when it failed */
	int returned;      /* by the function: 0, else AVIARY_E_FUNCTION_FAILED */
	/* How the process ended, when AVIARY_E_FUNCTION_CRASHED. */
	int exit_code; /* 128 + n when signal n killed it */
	int signal;    /* 0: none */
	int core_dumped, timed_out, oom_killed;
	/* The end of what it printed, with a NUL after it; truncated: there was more before. */
	const char *out, *err;
	size_t out_size, err_size;
	int out_truncated, err_truncated;
	int64_t duration_ms;    /* from starting the worker to its end */
	int64_t cpu_us;         /* as the sandbox says */
	int64_t memory_bytes;   /* the most it had, as the sandbox says */
	uint64_t shipped_bytes; /* of the program for this call; 0: it was there */
	char sandbox_id[64];
} aviary_remote_result;
/* NULL is fine. */
AVIARY_API void aviary_remote_result_free(aviary_remote_result *r);

typedef struct aviary_remote_results {
	size_t n; /* as many as there were inputs, in their order */
	aviary_remote_result *const *items;
	size_t failed;
} aviary_remote_results;
AVIARY_API void aviary_remote_results_free(aviary_remote_results *r);

/* ---- calling ---- */

/* What it prints, as it comes (channel AVIARY_STDOUT or AVIARY_STDERR), from where operations are
 * driven. */
typedef void aviary_remote_output_fn(void *ctx, enum aviary_channel ch, const void *data, size_t n);

typedef struct aviary_remote_options {
	size_t struct_size;
	/* Where it runs: in this one, which is started if need be and stays; else in one that is
	 * made for the call, of spec (NULL: as the server makes them), and deleted after it. */
	aviary_sandbox *sandbox;
	const aviary_sandbox_spec *spec;
	/* Those that are made are this session's, with its defaults below spec. Borrowed until the
	 * operation is done. */
	aviary_session *session;
	int64_t timeout_ms;    /* of the function, then it is killed; default 5 min; -1: none */
	size_t argument_max;   /* bytes, encoded; default 64 MiB */
	size_t result_max;     /* likewise */
	size_t output_max;     /* kept of each output; default 64 KiB */
	const char *directory; /* where the program goes in the sandbox; default /opt/aviary */
	const char *user;      /* whom it runs as; default: the sandbox's */
	const char *cwd;
	aviary_pairs envs;
	aviary_remote_output_fn *on_output;
	void *ctx;
	/* Of a map. */
	size_t max_sandboxes; /* at once; default 8 */
	int fresh;            /* 1: a sandbox of its own for each input, not one after the other */
} aviary_remote_options;
#define AVIARY_REMOTE_OPTIONS_INIT AVIARY_INITIAL(aviary_remote_options)

/* Runs fn(in) in a sandbox. in is encoded before it returns; options (may be NULL) are copied, its
 * sandbox is held. Result: aviary_op_take_remote, whether it succeeded or not. The first call of a
 * client reads and hashes the program's files, a moment's work (0.1 s for 20 MB); otherwise it does
 * not block. Cancelling kills the function, and deletes the sandbox if it was made for it.
 *
 * Errors, besides those of sandboxes and of the way there:
 *   FUNCTION_UNKNOWN   fn is not in the program's registry (nor two of one name)
 *   FUNCTION_PROGRAM   a file of the program cannot be read, was replaced since the start, is named
 *                      by path instead of soname; or main does not call aviary_worker_init
 *   FUNCTION_ARCH      the sandbox cannot execute it
 *   FUNCTION_BUILD     what is in the sandbox is not this build
 *   FUNCTION_ARGUMENT  in cannot be encoded, is larger than argument_max, cannot be decoded there
 *   FUNCTION_RESULT    out cannot be encoded, is larger than result_max, or cannot be decoded here
 *   FUNCTION_CRASHED   it ended before it returned: signal, exit code, stderr are in the result
 *   FUNCTION_FAILED    it returned something else than 0: returned
 *   EXEC_TIMEOUT       killed: its time was over */
AVIARY_API aviary_op *aviary_remote_call(aviary_client *c, const aviary_function *fn,
    const void *in, const aviary_remote_options *options);
/* fn of each of n inputs (an array, in->size bytes apart), in at most max_sandboxes at a time; one
 * that failed is replaced by another one, and does not stop the rest. Fails with the first error in
 * order of inputs when all are over. Result: aviary_op_take_remotes, in any case. Sandboxes given
 * by options->sandbox: that one, one call after the other. */
AVIARY_API aviary_op *aviary_remote_map(aviary_client *c, const aviary_function *fn, const void *in,
    size_t n, const aviary_remote_options *options);
/* fn(in) in this process, for tests: through the same encoding and limits, and in a thread of the
 * caller's. Blocks as long as it takes. NULL without memory. */
AVIARY_API aviary_remote_result *aviary_remote_local(const aviary_function *fn, const void *in);

/* The result, also of a call that failed after it began; NULL: not done, none (left). The taker
 * frees it. */
AVIARY_API aviary_remote_result *aviary_op_take_remote(aviary_op *op);
AVIARY_API aviary_remote_results *aviary_op_take_remotes(aviary_op *op);
/* Call, wait, take: the result also of a call that failed; *error (may be NULL) as with
 * aviary_await. NULL: it could not begin. */
AVIARY_API aviary_remote_result *aviary_remote_call_sync(aviary_client *c,
    const aviary_function *fn, const void *in, const aviary_remote_options *options,
    aviary_error *error);
AVIARY_API aviary_remote_results *aviary_remote_map_sync(aviary_client *c,
    const aviary_function *fn, const void *in, size_t n, const aviary_remote_options *options,
    aviary_error *error);
/* The value, moved into *out (fn->out->size bytes), whose owner the caller becomes: 0, or why there
 * is none. Frees r. */
AVIARY_API int aviary_remote_move(aviary_remote_result *r, const aviary_function *fn, void *out);

AVIARY_END_DECLS

/* ---- defining: plain types ----
 *
 * AVIARY_POD(type, members...) says that values of a type (one word, a typedef) cross as they stand
 * in memory, and has the compiler prove it: all its members must be listed, in order, and be
 * numbers or arrays of numbers (of up to two dimensions in C); members of structs inside by their
 * path: AVIARY_POD(body, mass, at.x, at.y, name). So no pointer can cross, in neither direction. Up
 * to 32. For everything else, AVIARY_CODEC.
 *
 * int, double, float, size_t, int32_t, uint32_t, int64_t, uint64_t and aviary_none (no value) are
 * defined already, and aviary_bytes.
 */
#define AVIARY_POD(type, ...)                                                                      \
	AVIARY_STATIC_ASSERT_(AVIARY_CHAIN_(type, __VA_ARGS__),                                    \
	    "AVIARY_POD(" #type                                                                    \
	    "): list every member, in order; only numbers and arrays of numbers, no pointers");    \
	AVIARY_PLAIN_CODEC_(type, #type "{" #__VA_ARGS__ "}", AVIARY_SPANS_(type, __VA_ARGS__))

/* ---- defining: types with a codec of the caller's ----
 *
 * encode: int (const type *, aviary_bytes *); decode: int (const void *data, size_t n, type *);
 * clear: void (type *). See struct aviary_codec.
 */
#define AVIARY_CODEC(type, encode_fn, decode_fn, clear_fn)                                         \
	__attribute__((unused)) static int aviary_encode_##type(                                   \
	    const void *value, aviary_bytes *out)                                                  \
	{                                                                                          \
		return encode_fn((const type *)value, out);                                        \
	}                                                                                          \
	__attribute__((unused)) static int aviary_decode_##type(                                   \
	    const void *data, size_t n, void *value)                                               \
	{                                                                                          \
		return decode_fn(data, n, (type *)value);                                          \
	}                                                                                          \
	__attribute__((unused)) static void aviary_clear_##type(void *value)                       \
	{                                                                                          \
		clear_fn((type *)value);                                                           \
	}                                                                                          \
	__attribute__((unused)) static const aviary_codec aviary_codec_##type = {                  \
	    sizeof(aviary_codec), sizeof(type), 0, 0, 0, aviary_encode_##type,                     \
	    aviary_decode_##type, aviary_clear_##type}

/* ---- defining: functions ----
 *
 * AVIARY_REMOTE(name, in_t, out_t) { body } defines `static int name(const in_t *in, out_t *out)`,
 * whose body sees a zeroed *out and returns 0, or a number of its own that callers find in
 * `returned`. It puts it into the registry, and defines beside it
 *
 *     aviary_op *name_remote(client, const in_t *in, options)        aviary_remote_call
 *     aviary_op *name_map(client, const in_t *in, n, options)        aviary_remote_map
 *     int name_sync(client, const in_t *in, out_t *out, options, aviary_error *)
 *     int name_local(const in_t *in, out_t *out)                     aviary_remote_local
 *     const out_t *name_value(const aviary_remote_result *)          NULL: failed, or of another
 *
 * To call it from other files of the same executable or library: AVIARY_REMOTE_DECLARE(name, in_t,
 * out_t) in a header, and AVIARY_REMOTE_DEFINE(name, in_t, out_t) { body } in one file.
 */
#define AVIARY_REMOTE(name, in_t, out_t)                                                           \
	AVIARY_REMOTE_DECLARE(name, in_t, out_t)                                                   \
	AVIARY_REMOTE_DEFINE(name, in_t, out_t)

#define AVIARY_FUNCTION(name) (&aviary_function_##name)

#define AVIARY_REMOTE_DECLARE(name, in_t, out_t)                                                   \
	AVIARY_EXTERN_C_ __attribute__((visibility("hidden")))                                     \
	const aviary_function aviary_function_##name;                                              \
	AVIARY_STUB_ aviary_op *name##_remote(                                                     \
	    aviary_client *client, const in_t *in, const aviary_remote_options *options)           \
	{                                                                                          \
		return aviary_remote_call(client, &aviary_function_##name, in, options);           \
	}                                                                                          \
	AVIARY_STUB_ aviary_op *name##_map(                                                        \
	    aviary_client *client, const in_t *in, size_t n, const aviary_remote_options *options) \
	{                                                                                          \
		return aviary_remote_map(client, &aviary_function_##name, in, n, options);         \
	}                                                                                          \
	AVIARY_STUB_ int name##_sync(aviary_client *client, const in_t *in, out_t *out,            \
	    const aviary_remote_options *options, aviary_error *error)                             \
	{                                                                                          \
		aviary_op *op = aviary_remote_call(client, &aviary_function_##name, in, options);  \
		int code = aviary_op_wait(op, -1);                                                 \
		aviary_remote_result *result = aviary_op_take_remote(op);                          \
		aviary_await(op, error);                                                           \
		if (code == 0)                                                                     \
			return aviary_remote_move(result, &aviary_function_##name, out);           \
		aviary_remote_result_free(result);                                                 \
		return code;                                                                       \
	}                                                                                          \
	AVIARY_STUB_ int name##_local(const in_t *in, out_t *out)                                  \
	{                                                                                          \
		return aviary_remote_move(aviary_remote_local(&aviary_function_##name, in),        \
		    &aviary_function_##name, out);                                                 \
	}                                                                                          \
	AVIARY_STUB_ const out_t *name##_value(const aviary_remote_result *result)                 \
	{                                                                                          \
		return result && result->function == &aviary_function_##name                       \
		           ? (const out_t *)result->value                                          \
		           : 0;                                                                    \
	}

#define AVIARY_REMOTE_DEFINE(name, in_t, out_t)                                                    \
	static int name(const in_t *in, out_t *out);                                               \
	static int aviary_entry_##name(const void *in, void *out)                                  \
	{                                                                                          \
		return name((const in_t *)in, (out_t *)out);                                       \
	}                                                                                          \
	AVIARY_EXTERN_C_DEF_ __attribute__((visibility("hidden"), used))                           \
	const aviary_function aviary_function_##name = {sizeof(aviary_function), #name,            \
	    aviary_entry_##name, &aviary_codec_##in_t, &aviary_codec_##out_t};                     \
	AVIARY_NOTE_(name)                                                                         \
	static int name(const in_t *in __attribute__((unused)), out_t *out __attribute__((unused)))

/* ---- the inside of these macros ---- */

/* The registry: an ELF note for each function, whose content is the distance to its record. Notes
 * are found in memory (PT_NOTE) in every object that is loaded, need no relocation and no
 * constructor, and outlive strip and --gc-sections. */
#define AVIARY_NOTE_NAME "Aviary"
#define AVIARY_NOTE_TYPE 1
#define AVIARY_NOTE_(name)                                                                         \
	__asm__(".pushsection .note.aviary,\"a\",%note\n"                                          \
	        "\t.balign 4\n"                                                                    \
	        "\t.long 7, 4, 1\n"                                                                \
	        "\t.asciz \"" AVIARY_NOTE_NAME "\"\n"                                              \
	        "\t.balign 4\n"                                                                    \
	        "\t.long aviary_function_" #name " - .\n"                                          \
	        "\t.popsection\n");

#define AVIARY_GLUE_(a, b)     AVIARY_GLUE_TWO_(a, b)
#define AVIARY_GLUE_TWO_(a, b) a##b
#if defined(__cplusplus)
#define AVIARY_STATIC_ASSERT_(cond, text) static_assert(cond, text)
#define AVIARY_EXTERN_C_                  extern "C"
#define AVIARY_EXTERN_C_DEF_              extern
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define AVIARY_STATIC_ASSERT_(cond, text) _Static_assert(cond, text)
#define AVIARY_EXTERN_C_                  extern
#define AVIARY_EXTERN_C_DEF_
#else
#define AVIARY_STATIC_ASSERT_(cond, text)                                                          \
	typedef char AVIARY_GLUE_(aviary_list_every_member_and_no_pointers_,                       \
	    __LINE__)[(cond) ? 1 : -1] __attribute__((unused))
#define AVIARY_EXTERN_C_ extern
#define AVIARY_EXTERN_C_DEF_
#endif
/* Not emitted where it is not used, also without optimisation. */
#define AVIARY_STUB_      __attribute__((unused)) static __inline__
#define AVIARY_SEMICOLON_ struct aviary_semicolon_

#define AVIARY_PLAIN_CODEC_(type, layout, ...)                                                     \
	__attribute__((unused)) static const aviary_span aviary_members_##type[] = {__VA_ARGS__};  \
	__attribute__((unused)) static const aviary_codec aviary_codec_##type = {                  \
	    sizeof(aviary_codec), sizeof(type), layout, aviary_members_##type,                     \
	    sizeof(aviary_members_##type) / sizeof(aviary_span), 0, 0, 0}
#define AVIARY_SCALAR_CODEC_(type) AVIARY_PLAIN_CODEC_(type, #type, {0, sizeof(type)})
#define AVIARY_SPAN_(T, m)                                                                         \
	{                                                                                          \
		__builtin_offsetof(T, m), sizeof(((T *)0)->m)                                      \
	}

/* Whether a member is a number or an array of them. C: __builtin_classify_type says 5 for pointers
 * and for arrays; an array is what does not have the type of its first element's address. */
#ifdef __cplusplus
template <class M> struct aviary_is_data {
	typedef typename std::remove_all_extents<M>::type element;
	static const bool value =
	    std::is_arithmetic<element>::value || std::is_enum<element>::value;
};
#define AVIARY_IS_DATA_(T, m) (aviary_is_data<decltype(((T *)0)->m)>::value)
#else
#define AVIARY_IS_NUMBER_(x) ((0x31e >> __builtin_classify_type(x)) & 1)
#define AVIARY_INDEXABLE_(x) __builtin_choose_expr(__builtin_classify_type(x) == 5, x, (char *)0)
#define AVIARY_IS_ARRAY_(x)                                                                        \
	(!__builtin_types_compatible_p(                                                            \
	    __typeof__(AVIARY_INDEXABLE_(x)), __typeof__(&AVIARY_INDEXABLE_(x)[0])))
#define AVIARY_ITEM_(x) AVIARY_INDEXABLE_(x)[0]
#define AVIARY_IS_DATA_(T, m)                                                                      \
	(AVIARY_IS_NUMBER_(((T *)0)->m) ||                                                         \
	    (AVIARY_IS_ARRAY_(((T *)0)->m) &&                                                      \
	        (AVIARY_IS_NUMBER_(AVIARY_ITEM_(((T *)0)->m)) ||                                   \
	            (AVIARY_IS_ARRAY_(AVIARY_ITEM_(((T *)0)->m)) &&                                \
	                AVIARY_IS_NUMBER_(AVIARY_ITEM_(AVIARY_ITEM_(((T *)0)->m)))))))
#endif

/* Each member begins where the one before it ends, and the last one ends the struct: none is left
 * out. */
#define AVIARY_ROUND_(n, align) (((n) + (align)-1) / (align) * (align))
#define AVIARY_END_(T, m)       (__builtin_offsetof(T, m) + sizeof(((T *)0)->m))
#define AVIARY_NEXT_(T, a, b)                                                                      \
	AVIARY_IS_DATA_(T, a) &&                                                                   \
	    __builtin_offsetof(T, b) == AVIARY_ROUND_(AVIARY_END_(T, a), __alignof__(((T *)0)->b))
#define AVIARY_LAST_(T, a)                                                                         \
	AVIARY_IS_DATA_(T, a) && sizeof(T) == AVIARY_ROUND_(AVIARY_END_(T, a), __alignof__(T))
#define AVIARY_FIRST_(T, a, ...) (__builtin_offsetof(T, a) == 0)
#define AVIARY_CHAIN_(T, ...)                                                                      \
	(AVIARY_FIRST_(T, __VA_ARGS__, 0) &&                                                       \
	    AVIARY_GLUE_(AVIARY_GLUE_(AVIARY_CHAIN_, AVIARY_COUNT_(__VA_ARGS__)), _)(              \
	        T, __VA_ARGS__))
#define AVIARY_SPANS_(T, ...)                                                                      \
	AVIARY_GLUE_(AVIARY_GLUE_(AVIARY_SPANS_, AVIARY_COUNT_(__VA_ARGS__)), _)(T, __VA_ARGS__)
#define AVIARY_COUNT_(...)                                                                         \
	AVIARY_COUNT_33_(__VA_ARGS__, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18,  \
	    17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define AVIARY_COUNT_33_(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16,    \
    a17, a18, a19, a20, a21, a22, a23, a24, a25, a26, a27, a28, a29, a30, a31, a32, n, ...)        \
	n
#define AVIARY_CHAIN_1_(T, a)          AVIARY_LAST_(T, a)
#define AVIARY_CHAIN_2_(T, a, b)       AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_1_(T, b)
#define AVIARY_CHAIN_3_(T, a, b, ...)  AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_2_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_4_(T, a, b, ...)  AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_3_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_5_(T, a, b, ...)  AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_4_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_6_(T, a, b, ...)  AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_5_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_7_(T, a, b, ...)  AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_6_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_8_(T, a, b, ...)  AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_7_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_9_(T, a, b, ...)  AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_8_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_10_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_9_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_11_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_10_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_12_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_11_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_13_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_12_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_14_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_13_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_15_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_14_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_16_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_15_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_17_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_16_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_18_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_17_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_19_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_18_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_20_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_19_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_21_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_20_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_22_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_21_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_23_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_22_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_24_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_23_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_25_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_24_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_26_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_25_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_27_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_26_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_28_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_27_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_29_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_28_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_30_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_29_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_31_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_30_(T, b, __VA_ARGS__)
#define AVIARY_CHAIN_32_(T, a, b, ...) AVIARY_NEXT_(T, a, b) && AVIARY_CHAIN_31_(T, b, __VA_ARGS__)
#define AVIARY_SPANS_1_(T, a)          AVIARY_SPAN_(T, a)
#define AVIARY_SPANS_2_(T, a, ...)     AVIARY_SPAN_(T, a), AVIARY_SPANS_1_(T, __VA_ARGS__)
#define AVIARY_SPANS_3_(T, a, ...)     AVIARY_SPAN_(T, a), AVIARY_SPANS_2_(T, __VA_ARGS__)
#define AVIARY_SPANS_4_(T, a, ...)     AVIARY_SPAN_(T, a), AVIARY_SPANS_3_(T, __VA_ARGS__)
#define AVIARY_SPANS_5_(T, a, ...)     AVIARY_SPAN_(T, a), AVIARY_SPANS_4_(T, __VA_ARGS__)
#define AVIARY_SPANS_6_(T, a, ...)     AVIARY_SPAN_(T, a), AVIARY_SPANS_5_(T, __VA_ARGS__)
#define AVIARY_SPANS_7_(T, a, ...)     AVIARY_SPAN_(T, a), AVIARY_SPANS_6_(T, __VA_ARGS__)
#define AVIARY_SPANS_8_(T, a, ...)     AVIARY_SPAN_(T, a), AVIARY_SPANS_7_(T, __VA_ARGS__)
#define AVIARY_SPANS_9_(T, a, ...)     AVIARY_SPAN_(T, a), AVIARY_SPANS_8_(T, __VA_ARGS__)
#define AVIARY_SPANS_10_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_9_(T, __VA_ARGS__)
#define AVIARY_SPANS_11_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_10_(T, __VA_ARGS__)
#define AVIARY_SPANS_12_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_11_(T, __VA_ARGS__)
#define AVIARY_SPANS_13_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_12_(T, __VA_ARGS__)
#define AVIARY_SPANS_14_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_13_(T, __VA_ARGS__)
#define AVIARY_SPANS_15_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_14_(T, __VA_ARGS__)
#define AVIARY_SPANS_16_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_15_(T, __VA_ARGS__)
#define AVIARY_SPANS_17_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_16_(T, __VA_ARGS__)
#define AVIARY_SPANS_18_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_17_(T, __VA_ARGS__)
#define AVIARY_SPANS_19_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_18_(T, __VA_ARGS__)
#define AVIARY_SPANS_20_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_19_(T, __VA_ARGS__)
#define AVIARY_SPANS_21_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_20_(T, __VA_ARGS__)
#define AVIARY_SPANS_22_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_21_(T, __VA_ARGS__)
#define AVIARY_SPANS_23_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_22_(T, __VA_ARGS__)
#define AVIARY_SPANS_24_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_23_(T, __VA_ARGS__)
#define AVIARY_SPANS_25_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_24_(T, __VA_ARGS__)
#define AVIARY_SPANS_26_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_25_(T, __VA_ARGS__)
#define AVIARY_SPANS_27_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_26_(T, __VA_ARGS__)
#define AVIARY_SPANS_28_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_27_(T, __VA_ARGS__)
#define AVIARY_SPANS_29_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_28_(T, __VA_ARGS__)
#define AVIARY_SPANS_30_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_29_(T, __VA_ARGS__)
#define AVIARY_SPANS_31_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_30_(T, __VA_ARGS__)
#define AVIARY_SPANS_32_(T, a, ...)    AVIARY_SPAN_(T, a), AVIARY_SPANS_31_(T, __VA_ARGS__)

typedef struct aviary_none {
	char unused;
} aviary_none;
AVIARY_SCALAR_CODEC_(aviary_none);
AVIARY_SCALAR_CODEC_(int);
AVIARY_SCALAR_CODEC_(double);
AVIARY_SCALAR_CODEC_(float);
AVIARY_SCALAR_CODEC_(size_t);
AVIARY_SCALAR_CODEC_(int32_t);
AVIARY_SCALAR_CODEC_(uint32_t);
AVIARY_SCALAR_CODEC_(int64_t);
AVIARY_SCALAR_CODEC_(uint64_t);
AVIARY_CODEC(aviary_bytes, aviary_bytes_encode, aviary_bytes_decode, aviary_bytes_clear);

#endif
