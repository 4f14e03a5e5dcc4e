/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_jupyter.c - messages of Jupyter clients and lines of agents: what is accepted goes into
 * messages that are JSON
 */
#include "proto/jupyter.h"

#include "base/json.h"
#include "fuzz.h"

#include "base/banned.h"

/* A message with this header and content is JSON. A client's header went through jansson; content
 * of an agent was only checked, and may repeat keys or escape what jansson refuses. */
static void check_message(struct av_str header, struct av_str content)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(1 << 24);
	const struct av_jupyter_message m = {.channel = "iopub",
	    .type = "stream",
	    .msg_id = AV_STR("i"),
	    .session = AV_STR("s"),
	    .date = "2026-01-01T00:00:00.000Z",
	    .parent = header,
	    .content = content};

	FUZZ_CHECK(av_jupyter_write(&out, &m) == 0);
	/* Two levels deeper than the content alone. */
	FUZZ_CHECK(av_json_valid(av_buf_str(&out)) || content.n > 60 || header.n > 60);
	FUZZ_CHECK(av_utf8_valid(av_buf_str(&out)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct av_str s = av_str_n((const char *)data, n), content;
	struct av_jupyter_request r;
	enum av_jupyter_line type;
	struct av_err err = {0};

	if (av_jupyter_parse(s, &r, &err) == 0) {
		FUZZ_CHECK(r.header && r.session);
		FUZZ_CHECK(r.type != AV_JUPYTER_EXECUTE || r.code);
		FUZZ_CHECK(r.type != AV_JUPYTER_COMPLETE || r.code);
		FUZZ_CHECK((r.type == AV_JUPYTER_OTHER) == !av_jupyter_reply_type(r.type));
		check_message(av_str_c(r.header), AV_STR("{}"));
		av_jupyter_request_clear(&r);
	} else {
		FUZZ_CHECK(err.kind != AV_ERR_NONE);
	}
	if (av_jupyter_line_parse(s, &type, &content) == 0) {
		FUZZ_CHECK(type < AV_JUPYTER_LINE_COUNT && content.n >= 5);
		check_message(AV_STR("{}"), content);
	}
	return 0;
}
