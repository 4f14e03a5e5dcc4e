/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jupyter.c - messages of Jupyter's kernel channels as text, and the agent's lines
 */
#include "proto/jupyter.h"

#include <errno.h>
#include <stdlib.h>

#include "base/json.h"

#include "base/banned.h"

/* --- requests --- */

static const struct {
	const char *request, *reply;
} types[] = {
    [AV_JUPYTER_EXECUTE] = {"execute_request", "execute_reply"},
    [AV_JUPYTER_KERNEL_INFO] = {"kernel_info_request", "kernel_info_reply"},
    [AV_JUPYTER_INTERRUPT] = {"interrupt_request", "interrupt_reply"},
    [AV_JUPYTER_SHUTDOWN] = {"shutdown_request", "shutdown_reply"},
    [AV_JUPYTER_COMPLETE] = {"complete_request", "complete_reply"},
    [AV_JUPYTER_INSPECT] = {"inspect_request", "inspect_reply"},
    [AV_JUPYTER_IS_COMPLETE] = {"is_complete_request", "is_complete_reply"},
    [AV_JUPYTER_HISTORY] = {"history_request", "history_reply"},
    [AV_JUPYTER_COMM_INFO] = {"comm_info_request", "comm_info_reply"},
};

const char *av_jupyter_reply_type(enum av_jupyter_request_type type)
{
	return types[type].reply;
}

static enum av_jupyter_request_type type_of(const char *text)
{
	for (size_t i = 1; i < AV_ARRAY_LEN(types); i++)
		if (strcmp(text, types[i].request) == 0)
			return (enum av_jupyter_request_type)i;
	return AV_JUPYTER_OTHER;
}

void av_jupyter_request_clear(struct av_jupyter_request *r)
{
	free(r->header);
	free(r->session);
	free(r->code);
	*r = (struct av_jupyter_request){0};
}

static int no_memory(struct av_err *err)
{
	return av_err_set(err, AV_ERR_NO_MEMORY, "no memory for the message");
}

static int parse_execute(const json_t *content, struct av_jupyter_request *r, struct av_err *err)
{
	const char *code = NULL;
	bool silent = false, store = true;
	int x;

	if ((x = av_json_get_str(content, "code", &code, err)) < 0 ||
	    (x = av_json_get_bool(content, "silent", &silent, err)) < 0 ||
	    (x = av_json_get_bool(content, "store_history", &store, err)) < 0)
		return x;
	if (!code)
		return av_err_set(
		    err, AV_ERR_INVALID, "an execute_request needs content.code, the text to run");
	r->silent = silent;
	r->store = store && !silent;
	r->code = av_str_dup(av_str_c(code));
	return r->code ? 0 : no_memory(err);
}

static int parse_complete(const json_t *content, struct av_jupyter_request *r, struct av_err *err)
{
	const char *code = "";
	int x;

	if ((x = av_json_get_str(content, "code", &code, err)) < 0 ||
	    (x = av_json_get_i64(content, "cursor_pos", 0, INT32_MAX, &r->cursor, err)) < 0)
		return x;
	r->code = av_str_dup(av_str_c(code));
	return r->code ? 0 : no_memory(err);
}

static int parse_content(const json_t *message, struct av_jupyter_request *r, struct av_err *err)
{
	const json_t *content = NULL;
	int x = av_json_get_object(message, "content", &content, err);

	if (x < 0)
		return x;
	if (r->type == AV_JUPYTER_EXECUTE)
		return parse_execute(content, r, err);
	if (r->type == AV_JUPYTER_COMPLETE)
		return parse_complete(content, r, err);
	if (r->type == AV_JUPYTER_SHUTDOWN && content)
		return av_json_get_bool(content, "restart", &r->restart, err);
	return 0;
}

/* Header, session and type. Older clients repeat msg_type at the top. */
static int parse_header(const json_t *message, struct av_jupyter_request *r, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(AV_JUPYTER_HEADER_MAX);
	const char *type = "", *session = "", *channel = "shell", *msg_id = NULL;
	const json_t *header = NULL;
	int x;

	if ((x = av_json_get_object(message, "header", &header, err)) < 0)
		return x;
	if (!header)
		return av_err_set(err, AV_ERR_INVALID, "the message has no header");
	if ((x = av_json_get_str(message, "msg_type", &type, err)) < 0 ||
	    (x = av_json_get_str(header, "msg_type", &type, err)) < 0 ||
	    (x = av_json_get_str(header, "msg_id", &msg_id, err)) < 0 ||
	    (x = av_json_get_str(header, "session", &session, err)) < 0 ||
	    (x = av_json_get_str(message, "channel", &channel, err)) < 0)
		return x;
	if (!msg_id || !type[0])
		return av_err_set(
		    err, AV_ERR_INVALID, "the message's header has no msg_id or no msg_type");
	if (av_json_dump(&text, header) < 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "the message's header has more than %d bytes", AV_JUPYTER_HEADER_MAX);
	r->type = type_of(type);
	r->on_control = strcmp(channel, "control") == 0;
	r->header = av_str_dup(av_buf_str(&text));
	r->session = av_str_dup(av_str_c(session));
	return r->header && r->session ? 0 : no_memory(err);
}

int av_jupyter_parse(struct av_str text, struct av_jupyter_request *ret, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *message = av_json_parse_object(text, err);
	struct av_jupyter_request r = {0};
	int x;

	if (!message)
		return -EINVAL;
	x = parse_header(message, &r, err);
	if (x == 0)
		x = parse_content(message, &r, err);
	if (x < 0) {
		av_jupyter_request_clear(&r);
		return x;
	}
	*ret = r;
	return 0;
}

/* --- messages --- */

int av_jupyter_write(struct av_buf *out, const struct av_jupyter_message *m)
{
	(void)av_buf_append_c(out, "{\"header\":{\"msg_id\":");
	(void)av_json_write_str(out, m->msg_id);
	(void)av_buf_append_c(out, ",\"msg_type\":");
	(void)av_json_write_str(out, av_str_c(m->type));
	(void)av_buf_append_c(out, ",\"username\":\"kernel\",\"session\":");
	(void)av_json_write_str(out, m->session);
	(void)av_buf_printf(
	    out, ",\"date\":\"%s\",\"version\":\"" AV_JUPYTER_PROTOCOL "\"}", m->date);
	(void)av_buf_append_c(out, ",\"msg_id\":");
	(void)av_json_write_str(out, m->msg_id);
	(void)av_buf_append_c(out, ",\"msg_type\":");
	(void)av_json_write_str(out, av_str_c(m->type));
	(void)av_buf_append_c(out, ",\"parent_header\":");
	(void)av_buf_append_str(out, m->parent);
	(void)av_buf_append_c(out, ",\"metadata\":{},\"content\":");
	(void)av_buf_append_str(out, m->content);
	return av_buf_printf(out, ",\"buffers\":[],\"channel\":\"%s\"}", m->channel);
}

/* --- lines --- */

static const char *const line_texts[AV_JUPYTER_LINE_COUNT] = {
    [AV_JUPYTER_LINE_INPUT] = "execute_input",
    [AV_JUPYTER_LINE_STREAM] = "stream",
    [AV_JUPYTER_LINE_RESULT] = "execute_result",
    [AV_JUPYTER_LINE_DISPLAY] = "display_data",
    [AV_JUPYTER_LINE_UPDATE] = "update_display_data",
    [AV_JUPYTER_LINE_CLEAR] = "clear_output",
    [AV_JUPYTER_LINE_ERROR] = "error",
    [AV_JUPYTER_LINE_FINISHED] = "finished",
};

const char *av_jupyter_line_text(enum av_jupyter_line type)
{
	return line_texts[type];
}

int av_jupyter_line_parse(
    struct av_str line, enum av_jupyter_line *ret_type, struct av_str *ret_content)
{
	struct av_str word, content = line;

	/* It begins with a member: so others can be put before it. */
	if (!av_str_cut(&content, ' ', &word) || !av_str_starts(content, AV_STR("{\"")) ||
	    !av_json_valid(content))
		return -EPROTO;
	for (size_t i = 0; i < AV_JUPYTER_LINE_COUNT; i++) {
		if (!av_str_eq_c(word, line_texts[i]))
			continue;
		*ret_type = (enum av_jupyter_line)i;
		*ret_content = content;
		return 0;
	}
	return -EPROTO;
}

int av_jupyter_join(struct av_buf *out, struct av_str head, struct av_str content)
{
	(void)av_buf_append_str(out, head);
	(void)av_buf_append_char(out, ',');
	return av_buf_append(out, content.p + 1, content.n - 1);
}
