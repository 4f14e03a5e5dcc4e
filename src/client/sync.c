/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync.c - the blocking twins of what sandboxes and sessions are asked (see aviary/sandbox.h)
 */
#include <aviary/session.h>

#include "client/list.h"

#include "base/banned.h"

int aviary_sandbox_start_sync(aviary_sandbox *sb, aviary_error *error)
{
	return aviary_await(aviary_sandbox_start(sb), error);
}

aviary_sandbox *aviary_sandbox_run_sync(
    aviary_client *c, const aviary_sandbox_spec *spec, aviary_error *error)
{
	return aviary_await_sandbox(aviary_sandbox_run(c, spec), error);
}

aviary_sandbox *aviary_sandbox_from_id_sync(aviary_client *c, const char *id, aviary_error *error)
{
	return aviary_await_sandbox(aviary_sandbox_from_id(c, id), error);
}

aviary_sandbox_handles *aviary_sandbox_list_sync(
    aviary_client *c, const aviary_list_options *options, aviary_error *error)
{
	return avc_await_list(aviary_sandbox_list(c, options), error);
}

int aviary_sandbox_wait_running_sync(aviary_sandbox *sb, int64_t timeout_ms, aviary_error *error)
{
	return aviary_await(aviary_sandbox_wait_running(sb, timeout_ms), error);
}

int aviary_sandbox_wait_complete_sync(
    aviary_sandbox *sb, int64_t timeout_ms, unsigned flags, aviary_error *error)
{
	return aviary_await(aviary_sandbox_wait_complete(sb, timeout_ms, flags), error);
}

int aviary_sandbox_stop_sync(
    aviary_sandbox *sb, const aviary_stop_options *options, aviary_error *error)
{
	return aviary_await(aviary_sandbox_stop(sb, options), error);
}

int aviary_sandbox_delete_sync(
    aviary_client *c, const char *id, int missing_ok, aviary_error *error)
{
	return aviary_await(aviary_sandbox_delete(c, id, missing_ok), error);
}

int aviary_sandbox_pause_sync(aviary_sandbox *sb, aviary_error *error)
{
	return aviary_await(aviary_sandbox_pause(sb), error);
}

int aviary_sandbox_resume_sync(aviary_sandbox *sb, aviary_error *error)
{
	return aviary_await(aviary_sandbox_resume(sb), error);
}

int aviary_sandbox_ping_sync(aviary_sandbox *sb, aviary_error *error)
{
	return aviary_await(aviary_sandbox_ping(sb), error);
}

int aviary_sandbox_update_sync(
    aviary_sandbox *sb, const aviary_sandbox_spec *spec, aviary_error *error)
{
	return aviary_await(aviary_sandbox_update(sb, spec), error);
}

int aviary_sandbox_refresh_sync(aviary_sandbox *sb, aviary_error *error)
{
	return aviary_await(aviary_sandbox_refresh(sb), error);
}

aviary_sandbox *aviary_session_run_sync(
    aviary_session *s, const aviary_sandbox_spec *spec, aviary_error *error)
{
	return aviary_await_sandbox(aviary_session_run(s, spec), error);
}

aviary_sandbox_handles *aviary_session_list_sync(
    aviary_session *s, const aviary_list_options *options, int adopt, aviary_error *error)
{
	return avc_await_list(aviary_session_list(s, options, adopt), error);
}

aviary_sandbox *aviary_session_from_id_sync(
    aviary_session *s, const char *id, int adopt, aviary_error *error)
{
	return aviary_await_sandbox(aviary_session_from_id(s, id, adopt), error);
}

int aviary_session_close_sync(
    aviary_session *s, const aviary_stop_options *options, aviary_error *error)
{
	return aviary_await(aviary_session_close(s, options), error);
}
