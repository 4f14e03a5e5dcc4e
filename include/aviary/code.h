/* SPDX-License-Identifier: Apache-2.0 */
/*
 * code.h - code that runs in an interpreter of a sandbox, which keeps its state (a context)
 *
 * What the code raises is a result, not a failure: look at status, or say AVIARY_CODE_CHECK. A
 * context is made with the first use, or by aviary_code_create; without a name it is the sandbox's
 * first one. Calls to one context run one after the other.
 */
#ifndef AVIARY_CODE_H
#define AVIARY_CODE_H

#include <aviary/process.h>

AVIARY_BEGIN_DECLS

/* One shape of a value. Pictures and PDFs are bytes, what is JSON its text, the rest text; a NUL
 * follows, which does not count. */
typedef struct aviary_code_item {
	const char *mime; /* "text/plain", "image/png", "application/json", ... */
	const void *data;
	size_t size;
} aviary_code_item;

/* A value that was shown. */
typedef struct aviary_code_value {
	int is_main;      /* that of the last expression */
	const char *text; /* of text/plain; "" */
	size_t n;
	const aviary_code_item *items;
} aviary_code_value;
/* The shape of that kind; NULL: there is none. Lives with value. */
AVIARY_API const aviary_code_item *aviary_code_find(
    const aviary_code_value *value, const char *mime);

/* Called as it comes, from where operations are driven; may call all that does not wait, also
 * aviary_op_cancel. While it runs, nothing more of this code comes. */
typedef void aviary_code_output_fn(void *ctx, enum aviary_channel ch, const char *text, size_t n);
/* value is borrowed until return. */
typedef void aviary_code_value_fn(void *ctx, const aviary_code_value *value);

#define AVIARY_CODE_CHECK      1u /* what does not end well fails the operation */
#define AVIARY_CODE_SILENT     2u /* no value, and it does not count */
#define AVIARY_CODE_NO_HISTORY 4u

typedef struct aviary_code_options {
	size_t struct_size;
	unsigned flags;
	const char *context;           /* id of one; default: the sandbox's first */
	const char *language;          /* "python" */
	const char *shell;             /* "auto", "plain", "ipython" */
	aviary_pairs envs;             /* for this call */
	aviary_strings figure_formats; /* "png", "svg" */
	int64_t timeout_ms;            /* then it is interrupted; default 30 s; -1: none */
	size_t collect_max;            /* bytes of each output that are kept; default 4 MiB */
	aviary_code_output_fn *on_output;
	aviary_code_value_fn *on_value;
	void *ctx;
} aviary_code_options;
#define AVIARY_CODE_OPTIONS_INIT AVIARY_INITIAL(aviary_code_options)

enum aviary_code_status {
	AVIARY_CODE_UNKNOWN,
	AVIARY_CODE_OK,
	AVIARY_CODE_ERROR,     /* it raised: error_name and so on */
	AVIARY_CODE_TIMEOUT,   /* interrupted as its time was over */
	AVIARY_CODE_OOM,       /* the interpreter was killed for memory */
	AVIARY_CODE_DIED,      /* or ended otherwise */
	AVIARY_CODE_RESTARTED, /* somebody did that meanwhile */
	AVIARY_CODE_DELETED
};

typedef struct aviary_code_result {
	enum aviary_code_status status;
	const char *status_text; /* the server's word */
	const char *out, *err;   /* a NUL follows, which does not count */
	size_t out_size, err_size;
	int out_truncated, err_truncated; /* what came first is kept */
	size_t n_values;
	const aviary_code_value *values;
	int values_truncated;                 /* more than 64 MiB: those that came first are kept */
	const char *error_name, *error_value; /* "" unless status is AVIARY_CODE_ERROR */
	aviary_strings traceback;             /* lines */
	const char *context;                  /* its id */
	const char *message;                  /* more about a status; "" */
	int64_t execution_count, duration_ms;
} aviary_code_result;

/* Runs code (up to 4 MiB) and waits for its end; result: aviary_code_result. Starts the sandbox
 * where it does not run. Cancelling interrupts the code. Errors: AVIARY_E_INVALID,
 * AVIARY_E_TOO_LARGE, AVIARY_E_SANDBOX_FAILED (no interpreter, or it could not run), those of the
 * way, AVIARY_E_TIMEOUT (the server did not answer 15 s after its time was over); with
 * AVIARY_CODE_CHECK AVIARY_E_EXEC_FAILED and AVIARY_E_EXEC_TIMEOUT. Never repeated once it was
 * sent. options may be NULL. Does not block. */
AVIARY_API aviary_op *aviary_sandbox_run_code(
    aviary_sandbox *sb, const char *code, const aviary_code_options *options);
AVIARY_API aviary_code_result *aviary_op_take_code_result(aviary_op *op);
/* Blocks. */
AVIARY_API aviary_code_result *aviary_sandbox_run_code_sync(
    aviary_sandbox *sb, const char *code, const aviary_code_options *options, aviary_error *error);
AVIARY_API void aviary_code_result_free(aviary_code_result *result);

/* ---- contexts ---- */

typedef struct aviary_code_context {
	const char *id, *name; /* name: of its kind, "python3" */
	const char *state;     /* "starting", "idle", "busy" */
} aviary_code_context;
typedef struct aviary_code_contexts {
	size_t n;
	const aviary_code_context *items;
} aviary_code_contexts;

/* A context of its own; directory: where it starts (NULL: home). Result: aviary_code_contexts with
 * the one. AVIARY_E_RATE_LIMITED, AVIARY_E_QUOTA: a sandbox may have 32. */
AVIARY_API aviary_op *aviary_code_create(aviary_sandbox *sb, const char *directory);
/* Those there are; result: aviary_code_contexts. */
AVIARY_API aviary_op *aviary_code_list(aviary_sandbox *sb);
AVIARY_API aviary_code_contexts *aviary_op_take_code_contexts(aviary_op *op);
AVIARY_API void aviary_code_contexts_free(aviary_code_contexts *contexts);
/* Blocking; NULL and *error, or what is to be freed. */
AVIARY_API aviary_code_contexts *aviary_code_create_sync(
    aviary_sandbox *sb, const char *directory, aviary_error *error);
AVIARY_API aviary_code_contexts *aviary_code_list_sync(aviary_sandbox *sb, aviary_error *error);
/* Interrupts what runs there; begins it anew, without what was defined; removes it. No result.
 * AVIARY_E_NOT_FOUND: there is none of that id. */
AVIARY_API aviary_op *aviary_code_interrupt(aviary_sandbox *sb, const char *context);
AVIARY_API aviary_op *aviary_code_restart(aviary_sandbox *sb, const char *context);
AVIARY_API aviary_op *aviary_code_delete(aviary_sandbox *sb, const char *context);
AVIARY_API int aviary_code_interrupt_sync(
    aviary_sandbox *sb, const char *context, aviary_error *error);
AVIARY_API int aviary_code_restart_sync(
    aviary_sandbox *sb, const char *context, aviary_error *error);
AVIARY_API int aviary_code_delete_sync(
    aviary_sandbox *sb, const char *context, aviary_error *error);

AVIARY_END_DECLS
#endif
