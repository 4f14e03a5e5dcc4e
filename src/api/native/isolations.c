/* SPDX-License-Identifier: Apache-2.0 */
/*
 * isolations.c - GET /v1/isolations: what keeps sandboxes apart here, how fast that is, and what is
 * being made for it
 */
#include "api/native/native.h"

#include <inttypes.h>
#include <string.h>

#include "api/request.h"
#include "control/isolations.h"
#include "base/banned.h"

#define ANSWER_MAX ((size_t)64 << 10)

/* How fast programs in it are, in a word and in a sentence. */
static const struct {
	const char *accelerator, *word, *about;
} speeds[] = {
    {"kvm", "hardware",
        "KVM with hardware virtualisation: programs are about as fast as on this machine itself"},
    {"tcg", "emulated",
        "emulated (TCG): programs are 10 to 30 times slower than on this machine itself"},
};

static void write_str(struct av_buf *out, const char *name, const char *value)
{
	(void)av_buf_printf(out, ",\"%s\":", name);
	(void)av_json_write_str(out, av_str_c(value));
}

static void write_speed(struct av_buf *out, const struct control_isolation_info *v)
{
	const char *word = "unknown";

	if (strcmp(v->name, "jail") == 0)
		word = "native";
	for (size_t i = 0; i < AV_ARRAY_LEN(speeds); i++) {
		if (strcmp(v->accelerator, speeds[i].accelerator) != 0)
			continue;
		word = speeds[i].word;
		write_str(out, "accelerator", v->accelerator);
		write_str(out, "about", speeds[i].about);
	}
	write_str(out, "speed", word);
}

/* Templates that must be built before a create without wishes can succeed. */
static void write_missing(struct av_buf *out, const struct control_isolation_info *v)
{
	(void)av_buf_append_c(out, ",\"missing\":[");
	if (v->lacks_kernel)
		(void)av_buf_append_c(out, "\"" CONTROL_VM_KERNEL "\"");
	if (v->lacks_base)
		(void)av_buf_printf(
		    out, "%s\"%s\"", v->lacks_kernel ? "," : "", CONTROL_VM_TEMPLATE);
	(void)av_buf_append_char(out, ']');
}

static void write_one(struct av_buf *out, const struct control_isolation_info *v)
{
	(void)av_buf_printf(out,
	    "{\"name\":\"%s\",\"available\":%s,\"ready\":%s,\"is_default\":%s,\"pauses\":%s,"
	    "\"saves_"
	    "memory\":%s",
	    v->name, v->available ? "true" : "false", v->ready ? "true" : "false",
	    v->is_default ? "true" : "false", v->can_pause ? "true" : "false",
	    v->saves_memory ? "true" : "false");
	write_speed(out, v);
	if (v->reason[0])
		write_str(out, "reason", v->reason);
	write_missing(out, v);
	(void)av_buf_append_char(out, '}');
}

static void write_making(struct av_buf *out, const struct control_making *m)
{
	(void)av_buf_printf(out, "{\"percent\":%u,\"waiting\":%zu,\"seconds\":%" PRId64, m->percent,
	    m->waiting, m->since_ms / 1000);
	write_str(out, "stage", m->stage);
	if (m->template_name)
		write_str(out, "template", m->template_name);
	(void)av_buf_append_char(out, '}');
}

void native_isolations(struct api_request *rq)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(ANSWER_MAX);
	struct control_isolation_info v[CONTROL_ISOLATIONS_MAX];
	struct control_making m[CONTROL_MAKINGS_MAX];
	size_t n = control_isolations(rq->api->control, v);

	(void)av_buf_append_c(&out, "{\"isolations\":[");
	for (size_t i = 0; i < n; i++) {
		if (i)
			(void)av_buf_append_char(&out, ',');
		write_one(&out, &v[i]);
	}
	(void)av_buf_append_c(&out, "],\"making\":[");
	n = control_makings(rq->api->control, &rq->actor, m);
	for (size_t i = 0; i < n; i++) {
		if (i)
			(void)av_buf_append_char(&out, ',');
		write_making(&out, &m[i]);
	}
	(void)av_buf_append_c(&out, "]}");
	api_send_json(rq, 200, &out);
}
