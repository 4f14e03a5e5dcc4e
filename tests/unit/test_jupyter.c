/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_jupyter.c - messages of Jupyter's channels, and the agent's lines
 */
#include <errno.h>
#include <stdio.h>

#include "base/json.h"
#include "lib/tap.h"
#include "proto/jupyter.h"

static void test_execute(void)
{
	static const char text[] =
	    "{\"header\":{\"msg_id\":\"m\",\"msg_type\":\"execute_request\",\"session\":\"s\","
	    "\"x\":[1]},\"parent_header\":{},\"metadata\":{},\"content\":{\"code\":\"1+1\","
	    "\"silent\":false,\"store_history\":true,\"user_expressions\":{}},\"buffers\":[],"
	    "\"channel\":\"shell\"}";
	struct av_jupyter_request r;
	struct av_err err;

	is_int(av_jupyter_parse(av_str_c(text), &r, &err), 0, "an execution");
	ok(r.type == AV_JUPYTER_EXECUTE && !r.silent && r.store && !r.on_control, "its kind");
	is_str(r.code, "1+1", "code");
	is_str(r.session, "s", "session");
	is_str(r.header,
	    "{\"msg_id\":\"m\",\"msg_type\":\"execute_request\",\"session\":\"s\",\"x\":[1]}",
	    "the header as it came");
	is_str(av_jupyter_reply_type(r.type), "execute_reply", "its reply");
	av_jupyter_request_clear(&r);
	is_int(av_jupyter_parse(AV_STR("{\"msg_type\":\"execute_request\",\"header\":{\"msg_id\":"
	                               "\"m\"},\"content\":{\"code\":\"\",\"silent\":true}}"),
	           &r, &err),
	    0, "an older client's");
	ok(r.type == AV_JUPYTER_EXECUTE && r.silent && !r.store, "silent is not stored");
	av_jupyter_request_clear(&r);
	is_int(av_jupyter_parse(
	           AV_STR("{\"header\":{\"msg_id\":\"m\",\"msg_type\":\"comm_msg\"}}"), &r, &err),
	    0, "what nobody knows");
	ok(r.type == AV_JUPYTER_OTHER, "is ignored");
	av_jupyter_request_clear(&r);
	is_int(av_jupyter_parse(AV_STR("{\"header\":{\"msg_id\":\"m\",\"msg_type\":"
	                               "\"shutdown_request\"},\"content\":{\"restart\":true},"
	                               "\"channel\":\"control\"}"),
	           &r, &err),
	    0, "a shutdown");
	ok(r.type == AV_JUPYTER_SHUTDOWN && r.restart && r.on_control, "with a restart");
	av_jupyter_request_clear(&r);
}

static void test_refused(void)
{
	static const char *const bad[] = {"", "[]", "{}", "{\"header\":[]}", "{\"header\":{}}",
	    "{\"header\":{\"msg_id\":\"m\"}}", "{\"header\":{\"msg_type\":\"execute_request\"}}",
	    "{\"header\":{\"msg_id\":1,\"msg_type\":\"x\"}}",
	    "{\"header\":{\"msg_id\":\"m\",\"msg_type\":\"execute_request\"}}",
	    "{\"header\":{\"msg_id\":\"m\",\"msg_type\":\"execute_request\"},\"content\":{}}",
	    "{\"header\":{\"msg_id\":\"m\",\"msg_type\":\"execute_request\"},\"content\":"
	    "{\"code\":1}}",
	    "{\"header\":{\"msg_id\":\"m\",\"msg_type\":\"execute_request\"},\"content\":"
	    "{\"code\":\"\",\"silent\":1}}",
	    "{\"header\":{\"msg_id\":\"m\",\"msg_type\":\"x\"},\"content\":1}",
	    "{\"header\":{\"msg_id\":\"m\",\"msg_type\":\"x\",\"session\":1}}"};
	AV_CLEANUP(av_buf_clear) struct av_buf big = AV_BUF_INIT(16384);
	struct av_jupyter_request r;
	struct av_err err;

	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		ok(av_jupyter_parse(av_str_c(bad[i]), &r, &err) < 0 && err.message[0],
		    "refused: %s", bad[i]);
	av_buf_append_c(&big, "{\"header\":{\"msg_id\":\"");
	for (size_t i = 0; i < AV_JUPYTER_HEADER_MAX; i++)
		av_buf_append_char(&big, 'x');
	av_buf_append_c(&big, "\",\"msg_type\":\"comm_msg\"}}");
	ok(av_jupyter_parse(av_buf_str(&big), &r, &err) < 0, "a header that is too long");
}

static void test_write(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	const struct av_jupyter_message m = {.channel = "iopub",
	    .type = "stream",
	    .msg_id = AV_STR("i\""),
	    .session = AV_STR("s"),
	    .date = "2026-01-01T00:00:00.000Z",
	    .parent = AV_STR("{\"msg_id\":\"m\"}"),
	    .content = AV_STR("{\"text\":\"t\"}")};

	is_int(av_jupyter_write(&out, &m), 0, "a message");
	j = av_json_parse_object(av_buf_str(&out), NULL);
	ok(j != NULL, "is JSON");
	is_str(json_string_value(json_object_get(json_object_get(j, "header"), "msg_id")), "i\"",
	    "its id");
	is_str(json_string_value(json_object_get(json_object_get(j, "parent_header"), "msg_id")),
	    "m", "its parent");
	is_str(json_string_value(json_object_get(json_object_get(j, "content"), "text")), "t",
	    "its content");
}

static void test_lines(void)
{
	static const char *const bad[] = {"", "stream", "stream ", "stream []", "stream {}",
	    "stream 1", "Stream {\"a\":1}", "stream  {\"a\":1}", "status {\"a\":1}",
	    "stream {\"a\":1}}", "stream {\"a\":1},{\"b\":2}", "stream {\"a\":\"\xff\"}",
	    "stream { \"a\":1}"};
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(4096);
	enum av_jupyter_line type;
	struct av_str content;

	for (size_t i = 0; i < AV_JUPYTER_LINE_COUNT; i++) {
		char line[64];

		snprintf(line, sizeof(line), "%s {\"a\":1}",
		    av_jupyter_line_text((enum av_jupyter_line)i));
		ok(av_jupyter_line_parse(av_str_c(line), &type, &content) == 0 &&
		        (size_t)type == i && av_str_eq_c(content, "{\"a\":1}"),
		    "line: %s", line);
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++)
		is_int(av_jupyter_line_parse(av_str_c(bad[i]), &type, &content), -EPROTO,
		    "a bad line");
	av_jupyter_join(&out, AV_STR("{\"type\":\"x\""), AV_STR("{\"a\":1}"));
	is_avstr(av_buf_str(&out), "{\"type\":\"x\",\"a\":1}", "joined");
}

int main(void)
{
	test_execute();
	test_refused();
	test_write();
	test_lines();
	return tap_done();
}
