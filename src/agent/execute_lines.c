/* SPDX-License-Identifier: Apache-2.0 */
/*
 * execute_lines.c - events of a kernel as lines: E2B's, and our own for the daemon
 *
 * Documents that come from a driver have been checked to be JSON; as white space they may hold line
 * ends, which become spaces.
 */
#include "agent/execute.h"

#include <inttypes.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "base/jsontext.h"
#include "proto/agent_api.h"

#include "base/banned.h"

static void write_document(struct av_buf *out, struct av_str s)
{
	while (s.n) {
		size_t n = 0;

		while (n < s.n && s.p[n] != '\n' && s.p[n] != '\r')
			n++;
		(void)av_buf_append(out, s.p, n);
		if (n < s.n) {
			(void)av_buf_append_char(out, ' ');
			n++;
		}
		s = av_str_n(s.p + n, s.n - n);
	}
}

static void write_data(struct av_buf *out, const struct av_kernel_item *item)
{
	switch (item->kind) {
	case AV_KERNEL_ITEM_DOCUMENT:
		write_document(out, item->data);
		break;
	case AV_KERNEL_ITEM_BYTES:
		(void)av_buf_append_char(out, '"');
		(void)av_base64_encode(out, item->data.p, item->data.n);
		(void)av_buf_append_char(out, '"');
		break;
	default:
		(void)av_json_write_str(out, item->data);
		break;
	}
}

static void write_member(struct av_buf *out, const char *name, struct av_str value)
{
	(void)av_buf_printf(out, "\"%s\":", name);
	(void)av_json_write_str(out, value);
}

/* --- our own: names and members as Jupyter's messages have them --- */

static void write_bundle(struct av_buf *out, struct av_str rest)
{
	struct av_kernel_item item;
	bool first = true;

	(void)av_buf_append_c(out, "{\"data\":{");
	while (av_kernel_next_item(&rest, &item)) {
		if (item.kind == AV_KERNEL_ITEM_DISPLAY_ID)
			continue;
		if (!first)
			(void)av_buf_append_char(out, ',');
		first = false;
		(void)av_json_write_str(out, item.mime);
		(void)av_buf_append_char(out, ':');
		write_data(out, &item);
	}
	(void)av_buf_append_c(out, "},\"metadata\":{}");
}

static void write_transient(struct av_buf *out, struct av_str rest)
{
	struct av_kernel_item item;

	while (av_kernel_next_item(&rest, &item)) {
		if (item.kind != AV_KERNEL_ITEM_DISPLAY_ID)
			continue;
		(void)av_buf_append_c(out, ",\"transient\":{");
		write_member(out, "display_id", item.data);
		(void)av_buf_append_char(out, '}');
		return;
	}
	(void)av_buf_append_c(out, ",\"transient\":{}");
}

static void aviary_display(struct av_buf *out, const struct av_kernel_message *m, uint32_t count)
{
	bool result = m->flags & AV_KERNEL_MAIN;

	(void)av_buf_append_c(out, result                        ? "execute_result "
	                           : m->flags & AV_KERNEL_UPDATE ? "update_display_data "
	                                                         : "display_data ");
	write_bundle(out, m->rest);
	if (result)
		(void)av_buf_printf(out, ",\"execution_count\":%" PRIu32, count);
	else
		write_transient(out, m->rest);
	(void)av_buf_append_c(out, "}\n");
}

static void aviary_error(struct av_buf *out, struct av_str rest)
{
	struct av_str name = AV_STR(""), value = AV_STR(""), line;
	bool first = true;

	(void)av_kernel_next_text(&rest, &name);
	(void)av_kernel_next_text(&rest, &value);
	(void)av_buf_append_c(out, "error {");
	write_member(out, "ename", name);
	(void)av_buf_append_char(out, ',');
	write_member(out, "evalue", value);
	(void)av_buf_append_c(out, ",\"traceback\":[");
	while (av_kernel_next_text(&rest, &line)) {
		if (!first)
			(void)av_buf_append_char(out, ',');
		first = false;
		(void)av_json_write_str(out, line);
	}
	(void)av_buf_append_c(out, "]}\n");
}

static void aviary_message(
    struct av_buf *out, const struct av_kernel_message *m, const char *id, uint32_t count)
{
	switch (m->type) {
	case AV_KERNEL_ACCEPTED:
		(void)av_buf_printf(out,
		    "execute_input {\"execution_count\":%" PRIu32 ",\"context_id\":\"%s\"}\n",
		    m->count, id);
		break;
	case AV_KERNEL_DISPLAY:
		aviary_display(out, m, count);
		break;
	case AV_KERNEL_ERROR:
		aviary_error(out, m->rest);
		break;
	case AV_KERNEL_CLEAR:
		(void)av_buf_printf(out, "clear_output {\"wait\":%s}\n",
		    m->flags & AV_KERNEL_WAIT ? "true" : "false");
		break;
	default:
		break;
	}
}

static void aviary_output(struct av_buf *out, bool is_stderr, struct av_str text)
{
	(void)av_buf_printf(out, "stream {\"name\":\"%s\",", is_stderr ? "stderr" : "stdout");
	write_member(out, "text", text);
	(void)av_buf_append_c(out, "}\n");
}

static void aviary_end(struct av_buf *out, const struct kernel_outcome *o, bool timed_out)
{
	static const char *const texts[] = {[KERNEL_OK] = "ok",
	    [KERNEL_ERROR] = "error",
	    [KERNEL_DIED] = "died",
	    [KERNEL_RESTARTED] = "restarted",
	    [KERNEL_DELETED] = "deleted",
	    [KERNEL_FAILED] = "failed"};

	(void)av_buf_printf(out, "finished {\"status\":\"%s\",\"execution_count\":%" PRIu32,
	    texts[o->end], o->count);
	if (o->process)
		(void)av_buf_printf(out, ",\"signal\":%d", o->process->signal);
	if (timed_out)
		(void)av_buf_append_c(out, ",\"timed_out\":true");
	if (o->message) {
		(void)av_buf_append_char(out, ',');
		write_member(out, "message", av_str_c(o->message));
	}
	(void)av_buf_append_c(out, "}\n");
}

const struct execute_codec execute_codec_aviary = {
    .content_type = AV_AGENT_CT_KERNEL,
    .output = aviary_output,
    .message = aviary_message,
    .end = aviary_end,
    .keepalive = {"", 0},
};

/* --- E2B's (their code interpreter's) --- */

static void e2b_output(struct av_buf *out, bool is_stderr, struct av_str text)
{
	char now[32];

	av_rfc3339_ms(av_real_ms(), now);
	(void)av_buf_printf(out, "{\"type\":\"%s\",", is_stderr ? "stderr" : "stdout");
	write_member(out, "text", text);
	(void)av_buf_printf(out, ",\"timestamp\":\"%s\"}\n", now);
}

/* The member of their result, or NULL for what goes into "extra". */
static const char *e2b_name(struct av_str mime)
{
	static const struct {
		const char *mime, *name;
	} names[] = {{"text/plain", "text"}, {"text/html", "html"}, {"text/markdown", "markdown"},
	    {"image/svg+xml", "svg"}, {"image/png", "png"}, {"image/jpeg", "jpeg"},
	    {"application/pdf", "pdf"}, {"text/latex", "latex"}, {"application/json", "json"},
	    {"application/javascript", "javascript"}, {"e2b/data", "data"}, {"e2b/chart", "chart"}};

	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++)
		if (av_str_eq_c(mime, names[i].mime))
			return names[i].name;
	return NULL;
}

static void e2b_result(struct av_buf *out, const struct av_kernel_message *m)
{
	struct av_str rest = m->rest;
	struct av_kernel_item item;
	bool extra = false;

	(void)av_buf_printf(out, "{\"type\":\"result\",\"is_main_result\":%s",
	    m->flags & AV_KERNEL_MAIN ? "true" : "false");
	while (av_kernel_next_item(&rest, &item)) {
		const char *name = e2b_name(item.mime);

		if (!name || item.kind == AV_KERNEL_ITEM_DISPLAY_ID)
			continue;
		(void)av_buf_printf(out, ",\"%s\":", name);
		write_data(out, &item);
	}
	rest = m->rest;
	while (av_kernel_next_item(&rest, &item)) {
		if (e2b_name(item.mime) || item.kind == AV_KERNEL_ITEM_DISPLAY_ID)
			continue;
		(void)av_buf_append_c(out, extra ? "," : ",\"extra\":{");
		extra = true;
		(void)av_json_write_str(out, item.mime);
		(void)av_buf_append_char(out, ':');
		write_data(out, &item);
	}
	(void)av_buf_append_c(out, extra ? "}}\n" : "}\n");
}

static void e2b_error(struct av_buf *out, struct av_str rest)
{
	AV_CLEANUP(av_buf_clear) struct av_buf lines = AV_BUF_INIT(AV_KERNEL_MESSAGE_MAX);
	struct av_str name = AV_STR(""), value = AV_STR(""), line;

	(void)av_kernel_next_text(&rest, &name);
	(void)av_kernel_next_text(&rest, &value);
	while (av_kernel_next_text(&rest, &line)) {
		if (lines.n)
			(void)av_buf_append_char(&lines, '\n');
		(void)av_buf_append_str(&lines, line);
	}
	(void)av_buf_append_c(out, "{\"type\":\"error\",");
	write_member(out, "name", name);
	(void)av_buf_append_char(out, ',');
	write_member(out, "value", value);
	(void)av_buf_append_char(out, ',');
	write_member(out, "traceback", av_buf_str(&lines));
	(void)av_buf_append_c(out, "}\n");
}

static void e2b_message(
    struct av_buf *out, const struct av_kernel_message *m, const char *id, uint32_t count)
{
	(void)id;
	(void)count;
	if (m->type == AV_KERNEL_ACCEPTED)
		(void)av_buf_printf(out,
		    "{\"type\":\"number_of_executions\",\"execution_count\":%" PRIu32 "}\n",
		    m->count);
	else if (m->type == AV_KERNEL_DISPLAY && !(m->flags & AV_KERNEL_UPDATE))
		e2b_result(out, m);
	else if (m->type == AV_KERNEL_ERROR)
		e2b_error(out, m->rest);
}

static void e2b_end(struct av_buf *out, const struct kernel_outcome *o, bool timed_out)
{
	static const char *const names[] = {[KERNEL_DIED] = "UnexpectedEndOfExecution",
	    [KERNEL_RESTARTED] = "ContextRestarting",
	    [KERNEL_DELETED] = "ExecutionAborted",
	    [KERNEL_FAILED] = "KernelFailed"};

	(void)timed_out; /* their time-outs are the client's */
	if (o->end != KERNEL_OK && o->end != KERNEL_ERROR) {
		(void)av_buf_printf(out, "{\"type\":\"error\",\"name\":\"%s\",", names[o->end]);
		write_member(out, "value", av_str_c(o->message));
		(void)av_buf_append_c(out, ",\"traceback\":\"\"}\n");
	}
	(void)av_buf_append_c(out, "{\"type\":\"end_of_execution\"}\n");
}

const struct execute_codec execute_codec_e2b = {
    .content_type = "application/x-ndjson",
    .ascii = true,
    .flags = AV_KERNEL_JSON,
    .output = e2b_output,
    .message = e2b_message,
    .end = e2b_end,
    .keepalive = {"{\"type\":\"keepalive\"}\n", 21},
};
