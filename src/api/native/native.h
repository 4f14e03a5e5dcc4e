/* SPDX-License-Identifier: Apache-2.0 */
/*
 * native.h - handlers of the native dialect, one for each line of routes.def
 *
 * A handler is called with a request whose key, path parameters and JSON body are already checked
 * (see request.h), on the loop thread, and must not block.
 */
#pragma once

struct api;
struct api_request;
struct av_err;
struct av_str;
struct control_actor;

/* system.c */
void native_health(struct api_request *rq);
void native_ready(struct api_request *rq);

/* metrics.c */
void native_metrics(struct api_request *rq);

/* sandboxes.c */
void native_sandbox_create(struct api_request *rq);
void native_sandbox_list(struct api_request *rq);
void native_sandbox_get(struct api_request *rq);
void native_sandbox_update(struct api_request *rq);
void native_sandbox_delete(struct api_request *rq);
void native_sandbox_stop(struct api_request *rq);
void native_sandbox_pause(struct api_request *rq);
void native_sandbox_resume(struct api_request *rq);
void native_sandbox_ping(struct api_request *rq);
void native_sandbox_usage(struct api_request *rq);

/* logs.c */
void native_sandbox_logs(struct api_request *rq);

/* events.c */
void native_events(struct api_request *rq);
void native_events_any(struct api_request *rq);

/* hosts.c */
void native_host_create(struct api_request *rq);
void native_host_list(struct api_request *rq);
void native_host_register(struct api_request *rq);
void native_host_refresh(struct api_request *rq);
void native_host_get(struct api_request *rq);
void native_host_delete(struct api_request *rq);
void native_host_delete_preview(struct api_request *rq);
void native_host_token(struct api_request *rq);
void native_host_tag_list(struct api_request *rq);
void native_host_tag_add(struct api_request *rq);
void native_host_tag_remove(struct api_request *rq);
void native_host_heartbeat(struct api_request *rq);

/* audit.c */
void native_audit_list(struct api_request *rq);
void native_audit_export(struct api_request *rq);
void native_admin_audit_list(struct api_request *rq);
void native_admin_audit_export(struct api_request *rq);

/* backup.c */
void native_backup(struct api_request *rq);
/* channels.c */
void native_channel_create(struct api_request *rq);
void native_channel_list(struct api_request *rq);
void native_channel_test(struct api_request *rq);
void native_channel_get(struct api_request *rq);
void native_channel_update(struct api_request *rq);
void native_channel_configure(struct api_request *rq);
void native_channel_delete(struct api_request *rq);
void native_channel_deliveries(struct api_request *rq);
void native_channel_redeliver(struct api_request *rq);

/* snapshots.c */
void native_snapshot_create(struct api_request *rq);
void native_snapshot_list(struct api_request *rq);
void native_snapshot_get(struct api_request *rq);
void native_snapshot_delete(struct api_request *rq);
void native_builds(struct api_request *rq);

/* keys.c */
void native_key_create(struct api_request *rq);
void native_key_list(struct api_request *rq);
void native_key_get(struct api_request *rq);
void native_key_update(struct api_request *rq);
void native_key_rotate(struct api_request *rq);
void native_key_delete(struct api_request *rq);

/* 1 to 255 visible ASCII characters, as Idempotency-Key says them; untouched when it does not. */
int native_idempotency_key(const struct api_request *rq, struct av_str *ret, struct av_err *err);

/* Deletes a sandbox whose creator went away before the answer; in the background. */
void native_delete_unwanted(struct api *api, const struct control_actor *a, const char *id);

/* fork.c */
void native_sandbox_fork(struct api_request *rq);
void native_sandbox_rollback(struct api_request *rq);

/* isolations.c */
void native_isolations(struct api_request *rq);

/* limits.c */
void native_limits(struct api_request *rq);

/* teams.c */
void native_team_list(struct api_request *rq);
void native_team_create(struct api_request *rq);
void native_team_get(struct api_request *rq);
void native_team_rename(struct api_request *rq);
void native_team_delete(struct api_request *rq);
void native_team_leave(struct api_request *rq);
void native_member_list(struct api_request *rq);
void native_member_add(struct api_request *rq);
void native_member_role(struct api_request *rq);
void native_member_remove(struct api_request *rq);
void native_users_search(struct api_request *rq);

/* admin.c */
void native_admin_teams(struct api_request *rq);
void native_admin_team_byoc(struct api_request *rq);
void native_admin_team_quota(struct api_request *rq);
void native_admin_team_delete(struct api_request *rq);
void native_admin_templates(struct api_request *rq);
void native_admin_template_delete(struct api_request *rq);
void native_admin_sandboxes(struct api_request *rq);

/* docs.c */
void native_openapi_yaml(struct api_request *rq);
void native_openapi_json(struct api_request *rq);
void native_docs(struct api_request *rq);
void native_docs_js(struct api_request *rq);
void native_docs_css(struct api_request *rq);

/* usage.c */
void native_sandbox_metrics(struct api_request *rq);
void native_team_stats(struct api_request *rq);
void native_team_usage(struct api_request *rq);

/* ports.c */
void native_port_url(struct api_request *rq);

/* exec.c */
void native_exec(struct api_request *rq);
void native_process_list(struct api_request *rq);
void native_process_kill(struct api_request *rq);

/* run_code.c */
void native_run_code(struct api_request *rq);

/* streams.c */
void native_exec_stream(struct api_request *rq);
void native_process_stream(struct api_request *rq);

/* terminal.c */
void native_pty(struct api_request *rq);

/* files.c, uploads.c */
void native_file_get(struct api_request *rq);
void native_file_read(struct api_request *rq);
void native_file_put(struct api_request *rq);
void native_file_write(struct api_request *rq);
void native_tar_get(struct api_request *rq);
void native_tar_put(struct api_request *rq);

/* fs.c */
void native_file_stat(struct api_request *rq);
void native_file_list(struct api_request *rq);
void native_file_mkdir(struct api_request *rq);
void native_file_move(struct api_request *rq);
void native_file_chmod(struct api_request *rq);
void native_file_remove(struct api_request *rq);

/* file_url.c */
void native_file_url(struct api_request *rq);
void native_file_signed_get(struct api_request *rq);
void native_file_signed_put(struct api_request *rq);

/* watch.c */
void native_file_watch(struct api_request *rq);

/* auth.c */
void native_signup(struct api_request *rq);
void native_activate(struct api_request *rq);
void native_login(struct api_request *rq);
void native_switch_team(struct api_request *rq);

/* me.c */
void native_me(struct api_request *rq);
void native_me_rename(struct api_request *rq);
void native_me_delete(struct api_request *rq);
void native_me_password(struct api_request *rq);
void native_reset(struct api_request *rq);
void native_reset_confirm(struct api_request *rq);

/* users.c */
void native_user_list(struct api_request *rq);
void native_user_create(struct api_request *rq);
void native_user_update(struct api_request *rq);
void native_user_active(struct api_request *rq);
void native_user_password(struct api_request *rq);
void native_user_link(struct api_request *rq);

/* pages.c */
void native_activate_page(struct api_request *rq);
void native_activate_form(struct api_request *rq);
void native_reset_page(struct api_request *rq);
void native_reset_form(struct api_request *rq);
void native_oauth_landing(struct api_request *rq);

/* oauth.c */
void native_oauth_begin(struct api_request *rq);
void native_oauth_callback(struct api_request *rq);
void native_oauth_connect(struct api_request *rq);
void native_oauth_disconnect(struct api_request *rq);
