/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_message.c - events as each provider wants them (see channels.h)
 *
 * A webhook gets the payload itself. Its signature is HMAC-SHA256 of "<timestamp>.<body>" under the
 * channel's secret, where timestamp is the time of this attempt in seconds since 1970: a receiver
 * that refuses old ones cannot be played a recording. Chats get one line of text. Names in it are
 * chosen by users: nobody can be mentioned by one and no link can be made of one.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <string.h>

#include "base/avtime.h"
#include "base/codec.h"
#include "base/json.h"
#include "control/channels_internal.h"

#include "base/banned.h"

#define BODY_MAX ((size_t)16 * 1024)
#define TEXT_MAX 1024

/* ---- the payload ---- */

static void write_actor(struct control *c, struct av_buf *out, const char *id)
{
	const char *name = id[0] ? actor_name(c, id) : NULL;

	if (!id[0]) {
		(void)av_buf_append_c(out, "{\"type\":\"system\"}");
		return;
	}
	(void)av_buf_printf(out, "{\"type\":\"%s\",\"id\":\"%s\"",
	    av_id_valid(av_str_c(id), AV_ID_USER) ? "user" : "api_key", id);
	if (name) {
		(void)av_buf_append_c(out, ",\"name\":");
		(void)av_json_write_str(out, av_str_c(name));
	}
	(void)av_buf_append_char(out, '}');
}

void channel_write_payload(struct control *c, struct av_buf *out, const char *event,
    const char *team_id, const char *type, const char *resource_id, const char *actor_id,
    const char *reason)
{
	char at[32];

	av_rfc3339_ms(control_real_ms(c), at);
	(void)av_buf_printf(out,
	    "{\"event\":\"%s\",\"timestamp\":\"%s\",\"team_id\":\"%s\",\"actor\":", event, at,
	    team_id);
	write_actor(c, out, actor_id);
	(void)av_buf_append_c(out, ",\"resource\":{\"id\":");
	(void)av_json_write_str(out, av_str_c(resource_id));
	(void)av_buf_printf(out, ",\"type\":\"%s\"}", type);
	if (reason && reason[0]) {
		(void)av_buf_append_c(out, ",\"reason\":");
		(void)av_json_write_str(out, av_str_c(reason));
	}
	(void)av_buf_append_char(out, '}');
}

/* ---- one line of text ---- */

static const char *member(const json_t *j, const char *object, const char *name)
{
	const char *s = json_string_value(json_object_get(json_object_get(j, object), name));

	return s ? s : "";
}

/* What chats make links, mentions or formatting of becomes a space. */
static void append_plain(struct av_buf *out, const char *s)
{
	for (; *s; s++)
		(void)av_buf_append_char(
		    out, (unsigned char)*s < 0x20 || strchr("<>@&*_`~[]()|\\/#", *s) ? ' ' : *s);
}

/* "capsule.paused: capsule sb... (reason: timeout), by API key ci" */
static void write_text(struct av_buf *out, const char *event, const char *payload)
{
	json_t *j = json_loads(payload, 0, NULL);
	const char *reason = json_string_value(json_object_get(j, "reason"));
	const char *type = member(j, "actor", "type"), *name = member(j, "actor", "name");

	(void)av_buf_printf(out, "Aviary: %s: %s ", event, member(j, "resource", "type"));
	append_plain(out, member(j, "resource", "id"));
	if (reason)
		(void)av_buf_printf(out, ", reason: %s", reason);
	if (strcmp(type, "system") != 0) {
		(void)av_buf_printf(
		    out, ", by %s ", strcmp(type, "user") == 0 ? "user" : "API key");
		append_plain(out, name[0] ? name : member(j, "actor", "id"));
	}
	json_decref(j);
}

/* ---- messages ---- */

static const char *text_of(const json_t *config, const char *name)
{
	const char *s = json_string_value(json_object_get(config, name));

	return s ? s : "";
}

/* value is printed into m->texts, which is as large as it gets before the first one is added. */
static void add_header(struct message *m, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void add_header(struct message *m, const char *name, const char *fmt, ...)
{
	size_t room = m->texts.cap - m->texts.n;
	char *at = m->texts.p + m->texts.n;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(at, room, fmt, ap);
	va_end(ap);
	assert(m->n_headers < AV_ARRAY_LEN(m->headers) && n >= 0 && (size_t)n < room);
	m->texts.n += (size_t)n + 1;
	m->headers[m->n_headers++] = (struct control_http_header){name, at};
}

static void make_webhook(struct control *c, struct message *m, const json_t *config, const char *id,
    const char *event, const char *payload)
{
	const char *secret = text_of(config, "secret");
	char mac[2 * crypto_auth_hmacsha256_BYTES + 1], at[24];
	crypto_auth_hmacsha256_state st;
	uint8_t raw[crypto_auth_hmacsha256_BYTES];

	(void)snprintf(at, sizeof(at), "%" PRId64, control_real_ms(c) / 1000);
	crypto_auth_hmacsha256_init(&st, (const unsigned char *)secret, strlen(secret));
	crypto_auth_hmacsha256_update(&st, (const unsigned char *)at, strlen(at));
	crypto_auth_hmacsha256_update(&st, (const unsigned char *)".", 1);
	crypto_auth_hmacsha256_update(&st, (const unsigned char *)payload, strlen(payload));
	crypto_auth_hmacsha256_final(&st, raw);
	explicit_bzero(&st, sizeof(st));
	av_hex_encode(mac, raw, sizeof(raw));
	(void)av_buf_append_c(&m->url, text_of(config, "url"));
	(void)av_buf_append_c(&m->body, payload);
	add_header(m, "X-WRENN-SIGNATURE", "sha256=%s", mac);
	add_header(m, "X-Wrenn-Delivery", "%s", id);
	add_header(m, "X-Wrenn-Timestamp", "%s", at);
	add_header(m, "X-Aviary-Signature", "sha256=%s", mac);
	add_header(m, "X-Aviary-Delivery", "%s", id);
	add_header(m, "X-Aviary-Timestamp", "%s", at);
	add_header(m, "X-Aviary-Event", "%s", event);
}

/* {"head": text, tail} */
static void write_body(struct message *m, const char *head, struct av_str text, const char *tail)
{
	(void)av_buf_append_c(&m->body, head);
	(void)av_json_write_str(&m->body, text);
	(void)av_buf_append_c(&m->body, tail);
}

static void make_telegram(
    struct control *c, struct message *m, const json_t *config, struct av_str text)
{
	(void)av_buf_printf(&m->url, "%s/bot%s/sendMessage", c->config.outbound->telegram_url,
	    text_of(config, "bot_token"));
	(void)av_buf_append_c(&m->body, "{\"chat_id\":");
	(void)av_json_write_str(&m->body, av_str_c(text_of(config, "chat_id")));
	write_body(m, ",\"text\":", text, ",\"disable_web_page_preview\":true}");
	m->guarded = false; /* the administrator's URL */
}

/* The id makes a second attempt the same message. */
static void make_matrix(struct message *m, const json_t *config, const char *id, struct av_str text)
{
	struct av_str base = av_str_c(text_of(config, "homeserver_url"));

	while (base.n && base.p[base.n - 1] == '/')
		base.n--;
	(void)av_buf_append_str(&m->url, base);
	(void)av_buf_append_c(&m->url, "/_matrix/client/v3/rooms/");
	(void)av_percent_encode(&m->url, av_str_c(text_of(config, "room_id")), false);
	(void)av_buf_printf(&m->url, "/send/m.room.message/%s", id);
	write_body(m, "{\"msgtype\":\"m.text\",\"body\":", text, "}");
	m->method = "PUT";
	add_header(m, "Authorization", "Bearer %s", text_of(config, "access_token"));
}

static void make_chat(struct control *c, enum channel_provider p, struct message *m,
    const json_t *config, const char *id, struct av_str text)
{
	if (p == CHANNEL_TELEGRAM) {
		make_telegram(c, m, config, text);
		return;
	}
	if (p == CHANNEL_MATRIX) {
		make_matrix(m, config, id, text);
		return;
	}
	(void)av_buf_append_c(&m->url, text_of(config, "webhook_url"));
	if (p == CHANNEL_DISCORD)
		write_body(m, "{\"content\":", text, ",\"allowed_mentions\":{\"parse\":[]}}");
	else if (p == CHANNEL_TEAMS)
		write_body(m,
		    "{\"type\":\"message\",\"attachments\":[{\"contentType\":"
		    "\"application/vnd.microsoft.card.adaptive\",\"contentUrl\":null,\"content\":{"
		    "\"$schema\":\"http://adaptivecards.io/schemas/adaptive-card.json\","
		    "\"type\":\"AdaptiveCard\",\"version\":\"1.4\",\"body\":[{\"type\":"
		    "\"TextBlock\","
		    "\"text\":",
		    text, ",\"wrap\":true}]}}]}");
	else
		write_body(m, "{\"text\":", text, "}");
}

int message_make(struct control *c, enum channel_provider p, const json_t *config,
    const char *delivery_id, const char *event, const char *payload, struct message *ret)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(TEXT_MAX);
	char *room;

	*ret = (struct message){.url = AV_BUF_INIT(8192),
	    .body = AV_BUF_INIT(BODY_MAX),
	    .texts = AV_BUF_INIT(8192),
	    .method = "POST",
	    .guarded = true};
	if (av_buf_reserve(&ret->texts, 4096, &room) < 0)
		return -ENOMEM;
	add_header(ret, "Content-Type", "%s", "application/json; charset=UTF-8");
	if (p == CHANNEL_WEBHOOK) {
		make_webhook(c, ret, config, delivery_id, event, payload);
	} else {
		write_text(&text, event, payload);
		make_chat(c, p, ret, config, delivery_id, av_buf_str(&text));
	}
	if (av_buf_error(&ret->url) < 0 || av_buf_error(&ret->body) < 0 ||
	    !av_buf_cstr(&ret->url)) {
		message_clear(ret);
		return -ENOMEM;
	}
	return 0;
}

int message_send(struct control *c, const struct message *m, control_http_fn *fn, void *ctx,
    struct control_outbound_call **ret, struct av_err *err)
{
	const struct control_outbound *o = c->config.outbound;
	const struct control_http rq = {.method = m->method,
	    .url = m->url.p + m->url.off,
	    .headers = m->headers,
	    .n_headers = m->n_headers,
	    .body = av_buf_str(&m->body),
	    .guarded = m->guarded,
	    .timeout_ms = CHANNEL_TIMEOUT_MS,
	    .response_max = CHANNEL_ANSWER_MAX,
	    .cut = true};

	return o->http(o->ctx, &rq, fn, ctx, ret, err);
}

static void wipe(struct av_buf *b)
{
	if (b->p)
		explicit_bzero(b->p, b->cap);
	av_buf_clear(b);
}

void message_clear(struct message *m)
{
	wipe(&m->url);
	wipe(&m->body);
	wipe(&m->texts);
}
