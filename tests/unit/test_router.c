/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_router.c - which path and method finds which route, and with what parameters
 */
#include "api/router.h"

#include <errno.h>

#include "api/native/native.h"
#include "lib/tap.h"
#include "base/banned.h"

static struct api_match m;
static char allow[64];

static int match(const char *method, const char *path)
{
	m = (struct api_match){0};
	memset(allow, 0, sizeof allow);
	return api_route_match(av_str_c(method), av_str_c(path), &m, allow, sizeof allow);
}

static void test_found(void)
{
	is_int(match("GET", "/health"), 0, "open route");
	is_int(m.route->id, API_ROUTE_HEALTH, "health");
	is_int(match("HEAD", "/health"), 0, "HEAD of an open route");
	is_int(match("POST", "/v1/sandboxes"), 0, "create");
	is_int(m.route->id, API_ROUTE_SANDBOX_CREATE, "create's id");
	ok(!m.capsules, "not by the other name");
	is_int(match("POST", "/api/v1/capsules"), 0, "the other name, the other prefix");
	is_int(m.route->id, API_ROUTE_SANDBOX_CREATE, "the same route");
	ok(m.capsules, "by the other name");
	is_int(match("DELETE", "/v1/sandboxes/sb1/processes/a%2Fb"), 0, "two parameters");
	is_int((int)m.n_params, 2, "both are there");
	ok(av_str_eq_c(m.param[0], "sb1"), "id as sent");
	ok(av_str_eq_c(m.param[1], "a%2Fb"), "selector as sent, not a separator");
	is_int(match("GET", "/v1/sandboxes/x/exec/stream"), 0, "below exec");
	is_int(m.route->id, API_ROUTE_EXEC_STREAM, "stream");
	is_int(match("POST", "/v1/sandboxes/x/files/stream/write"), 0, "below files");
	is_int(m.route->id, API_ROUTE_FILE_STREAM_WRITE, "stream write");
}

static void test_not_found(void)
{
	static const char *const paths[] = {"", "/", "/v1", "/v1/", "/v1/sandboxes/",
	    "/v1//sandboxes", "/v1/sandboxes/x/", "/v1/sandboxes//exec", "/v1/sandboxes/x/exec/",
	    "/api/health", "/api/api/v1/sandboxes", "/v1/sandboxes/../sandboxes", "/V1/sandboxes",
	    "*", "/v1/%73andboxes", "/v1/sandboxes/x/processes/y/z"};

	for (size_t i = 0; i < AV_ARRAY_LEN(paths); i++)
		is_int(match("GET", paths[i]), -ENOENT, paths[i]);
}

static void test_wrong_method(void)
{
	is_int(match("PATCH", "/v1/sandboxes"), -EOPNOTSUPP, "no PATCH");
	is_str(allow, "POST, GET", "what is allowed");
	is_int(match("GET", "/v1/sandboxes/x/exec"), -EOPNOTSUPP, "no GET of exec");
	is_str(allow, "POST", "only POST");
	is_int(match("get", "/health"), -EOPNOTSUPP, "methods are case-sensitive");
	is_int(match("HEAD", "/v1/sandboxes"), -EOPNOTSUPP, "no HEAD where a key is needed");
	is_int(match("", "/health"), -EOPNOTSUPP, "empty method");
}

static bool is_way_in(unsigned int id)
{
	return id == API_ROUTE_SIGNUP || id == API_ROUTE_ACTIVATE || id == API_ROUTE_LOGIN ||
	       id == API_ROUTE_RESET || id == API_ROUTE_RESET_CONFIRM ||
	       id == API_ROUTE_HOST_REGISTER || id == API_ROUTE_HOST_REFRESH;
}

static void test_table(void)
{
	for (size_t i = 0; i < API_ROUTE_COUNT; i++) {
		const struct api_route *r = &api_routes[i];

		ok(r->pattern && r->handler, "%s",
		    r->pattern ? r->pattern : "a row without a pattern");
		ok(r->auth != API_AUTH_OPEN || strncmp(r->pattern, "/v1/", 4) != 0 ||
		        is_way_in(r->id),
		    "everything below /v1 needs a key, but the ways to get one");
		ok(r->body != API_BODY_JSON || r->limit > 0, "a JSON body has a limit");
	}
}

/* The table names the handlers; this test calls none. */
#define HANDLER(name)                                                                              \
	void name(struct api_request *rq)                                                          \
	{                                                                                          \
		(void)rq;                                                                          \
		ok(false, "a handler was called");                                                 \
	}
HANDLER(native_health)
HANDLER(native_oauth_begin)
HANDLER(native_oauth_callback)
HANDLER(native_oauth_landing)
HANDLER(native_oauth_connect)
HANDLER(native_oauth_disconnect)
HANDLER(native_activate_page)
HANDLER(native_activate_form)
HANDLER(native_reset_page)
HANDLER(native_reset_form)
HANDLER(native_signup)
HANDLER(native_activate)
HANDLER(native_login)
HANDLER(native_switch_team)
HANDLER(native_me)
HANDLER(native_me_rename)
HANDLER(native_me_delete)
HANDLER(native_me_password)
HANDLER(native_reset)
HANDLER(native_reset_confirm)
HANDLER(native_user_list)
HANDLER(native_user_create)
HANDLER(native_user_update)
HANDLER(native_user_active)
HANDLER(native_user_password)
HANDLER(native_user_link)
HANDLER(native_run_code)
HANDLER(native_events)
HANDLER(native_events_any)
HANDLER(native_channel_create)
HANDLER(native_channel_list)
HANDLER(native_channel_test)
HANDLER(native_channel_get)
HANDLER(native_channel_update)
HANDLER(native_channel_configure)
HANDLER(native_channel_delete)
HANDLER(native_channel_deliveries)
HANDLER(native_channel_redeliver)
HANDLER(native_host_create)
HANDLER(native_host_list)
HANDLER(native_host_register)
HANDLER(native_host_refresh)
HANDLER(native_host_get)
HANDLER(native_host_delete)
HANDLER(native_host_delete_preview)
HANDLER(native_host_token)
HANDLER(native_host_tag_list)
HANDLER(native_host_tag_add)
HANDLER(native_host_tag_remove)
HANDLER(native_host_heartbeat)
HANDLER(native_audit_list)
HANDLER(native_audit_export)
HANDLER(native_admin_audit_list)
HANDLER(native_admin_audit_export)
HANDLER(native_ready)
HANDLER(native_metrics)
HANDLER(native_sandbox_create)
HANDLER(native_sandbox_list)
HANDLER(native_sandbox_get)
HANDLER(native_sandbox_update)
HANDLER(native_sandbox_delete)
HANDLER(native_sandbox_pause)
HANDLER(native_sandbox_resume)
HANDLER(native_sandbox_ping)
HANDLER(native_sandbox_usage)
HANDLER(native_sandbox_metrics)
HANDLER(native_team_stats)
HANDLER(native_team_usage)
HANDLER(native_openapi_yaml)
HANDLER(native_openapi_json)
HANDLER(native_docs)
HANDLER(native_docs_js)
HANDLER(native_docs_css)
HANDLER(native_port_url)
HANDLER(native_exec)
HANDLER(native_process_list)
HANDLER(native_process_kill)
HANDLER(native_exec_stream)
HANDLER(native_process_stream)
HANDLER(native_pty)
HANDLER(native_file_get)
HANDLER(native_file_read)
HANDLER(native_file_put)
HANDLER(native_file_write)
HANDLER(native_file_stat)
HANDLER(native_file_list)
HANDLER(native_file_mkdir)
HANDLER(native_file_move)
HANDLER(native_file_chmod)
HANDLER(native_file_remove)
HANDLER(native_backup)
HANDLER(native_snapshot_create)
HANDLER(native_snapshot_list)
HANDLER(native_snapshot_get)
HANDLER(native_snapshot_delete)
HANDLER(native_builds)
HANDLER(native_tar_get)
HANDLER(native_file_watch)
HANDLER(native_file_url)
HANDLER(native_file_signed_get)
HANDLER(native_file_signed_put)
HANDLER(native_tar_put)
HANDLER(native_key_create)
HANDLER(native_key_list)
HANDLER(native_key_get)
HANDLER(native_key_update)
HANDLER(native_key_rotate)
HANDLER(native_key_delete)
HANDLER(native_limits)
HANDLER(native_team_list)
HANDLER(native_team_create)
HANDLER(native_team_get)
HANDLER(native_team_rename)
HANDLER(native_team_delete)
HANDLER(native_team_leave)
HANDLER(native_member_list)
HANDLER(native_member_add)
HANDLER(native_member_role)
HANDLER(native_member_remove)
HANDLER(native_users_search)
HANDLER(native_admin_teams)
HANDLER(native_admin_team_byoc)
HANDLER(native_admin_team_quota)
HANDLER(native_admin_team_delete)
HANDLER(native_admin_templates)
HANDLER(native_admin_template_delete)
HANDLER(native_admin_sandboxes)

int main(void)
{
	test_found();
	test_not_found();
	test_wrong_method();
	test_table();
	return tap_done();
}
