/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - a session: sandboxes that share defaults and end together
 *
 * A session keeps a reference to each sandbox that it made or adopted, until that is stopped, and
 * its close stops all that are left. It may be used as its client may (see aviary/client.h).
 */
#ifndef AVIARY_SESSION_H
#define AVIARY_SESSION_H

#include <aviary/sandbox.h>

AVIARY_BEGIN_DECLS

typedef struct aviary_session aviary_session;

/* defaults (may be NULL) are copied, and checked with each sandbox. NULL without memory. */
AVIARY_API aviary_session *aviary_session_new(
    aviary_client *c, const aviary_sandbox_spec *defaults);
/* The handle. Sandboxes that were not stopped live on: close it before. NULL is fine. */
AVIARY_API void aviary_session_free(aviary_session *s);

/* An unstarted sandbox: *ret of the defaults with spec (may be NULL) on top (aviary_spec_merge). 0,
 * AVIARY_E_STATE after close, AVIARY_E_NO_MEMORY. The caller frees *ret; the session has a
 * reference of its own. Asks nobody. */
AVIARY_API int aviary_session_sandbox(
    aviary_session *s, const aviary_sandbox_spec *spec, aviary_sandbox **ret) AVIARY_NODISCARD;
/* The same, started; result: the sandbox (aviary_op_take_sandbox). */
AVIARY_API aviary_op *aviary_session_run(aviary_session *s, const aviary_sandbox_spec *spec);
AVIARY_API aviary_sandbox *aviary_session_run_sync(
    aviary_session *s, const aviary_sandbox_spec *spec, aviary_error *error);
/* It ends with this session from now on, and no more with another one. 0 (also when it is stopped,
 * or here already), AVIARY_E_STATE after close, AVIARY_E_INVALID for one that was not started or is
 * of another client. */
AVIARY_API int aviary_session_adopt(aviary_session *s, aviary_sandbox *sb) AVIARY_NODISCARD;
/* It ends with this session no more: the caller's reference is what is left. */
AVIARY_API void aviary_session_release(aviary_session *s, aviary_sandbox *sb);

/* As aviary_sandbox_list, of those that have the session's default tags as well as those of options
 * (may be NULL). adopt: each that is not over is adopted. Result: aviary_op_take_sandbox_handles.
 */
AVIARY_API aviary_op *aviary_session_list(
    aviary_session *s, const aviary_list_options *options, int adopt);
AVIARY_API aviary_sandbox_handles *aviary_session_list_sync(
    aviary_session *s, const aviary_list_options *options, int adopt, aviary_error *error);
/* As aviary_sandbox_from_id; adopt: it is adopted, unless it is over. */
AVIARY_API aviary_op *aviary_session_from_id(aviary_session *s, const char *id, int adopt);
AVIARY_API aviary_sandbox *aviary_session_from_id_sync(
    aviary_session *s, const char *id, int adopt, aviary_error *error);

/* How many sandboxes it has: made or adopted, and not stopped. */
AVIARY_API size_t aviary_session_count(const aviary_session *s);
/* Not 0 after close was asked for. */
AVIARY_API int aviary_session_is_closed(const aviary_session *s);

/* One that could not be stopped. */
typedef struct aviary_failure {
	aviary_sandbox *sandbox; /* a reference that lives with the list */
	aviary_error error;      /* its strings too */
} aviary_failure;
typedef struct aviary_failures {
	size_t n;
	const aviary_failure *items;
} aviary_failures;
/* Makes no more sandboxes, and stops all at once; options as in aviary_sandbox_stop, may be NULL.
 * Done when all have ended; it fails with the code of the first that failed, and
 * aviary_op_failures tells of each. Those stay in the session, for another close. One without
 * sandboxes is closed at once; closing is allowed as often as one likes. */
AVIARY_API aviary_op *aviary_session_close(aviary_session *s, const aviary_stop_options *options);
AVIARY_API int aviary_session_close_sync(
    aviary_session *s, const aviary_stop_options *options, aviary_error *error);
/* Of a close that is done, in the order in which the sandboxes came; n 0: none failed. Lives with
 * op. */
AVIARY_API const aviary_failures *aviary_op_failures(const aviary_op *op);

AVIARY_END_DECLS
#endif
