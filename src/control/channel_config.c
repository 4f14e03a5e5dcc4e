/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel_config.c - what channels are configured with: fields, checks, seals (see channels.h)
 *
 * A sealed value is the base64 of a nonce and a secretbox of "<channel>\0<field>\0<value>", so that
 * no value can be moved to another channel or field. The key is HMAC-SHA256 of a fixed text under
 * the key of the installation (sign.c).
 */
#include <ctype.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/codec.h"
#include "control/channels_internal.h"

#include "base/banned.h"

#define PURPOSE   "aviary channel configuration v1"
#define VALUE_MAX 2048
#define FIELDS    3

enum form { URL, TOKEN, CHAT, ROOM, SECRET, BEARER };

struct field {
	const char *name;
	enum form form;
	bool optional;
};

/* In the order of channels.def. */
static const struct field fields[CHANNEL_PROVIDERS][FIELDS] = {
    [CHANNEL_DISCORD] = {{"webhook_url", URL, false}},
    [CHANNEL_SLACK] = {{"webhook_url", URL, false}},
    [CHANNEL_TEAMS] = {{"webhook_url", URL, false}},
    [CHANNEL_GOOGLECHAT] = {{"webhook_url", URL, false}},
    [CHANNEL_TELEGRAM] = {{"bot_token", TOKEN, false}, {"chat_id", CHAT, false}},
    [CHANNEL_MATRIX] = {{"homeserver_url", URL, false}, {"access_token", BEARER, false},
        {"room_id", ROOM, false}},
    [CHANNEL_WEBHOOK] = {{"url", URL, false}, {"secret", SECRET, true}},
};

static const char *const providers[CHANNEL_PROVIDERS] = {
#define CHANNEL_PROVIDER(name, text) [CHANNEL_##name] = (text),
#include "control/channels.def"
#undef CHANNEL_PROVIDER
};

static const char *const event_names[] = {
#define CHANNEL_EVENT(text) text,
#include "control/channels.def"
#undef CHANNEL_EVENT
};

/* ---- names ---- */

const char *channel_provider_text(enum channel_provider p)
{
	return providers[p];
}

enum channel_provider channel_provider_parse(const char *text, struct av_err *err)
{
	int p = 0;

	while (p < CHANNEL_PROVIDERS && strcmp(text, providers[p]) != 0)
		p++;
	if (p == CHANNEL_PROVIDERS)
		(void)av_err_set(err, AV_ERR_INVALID,
		    "field 'provider': '%.40s' must be one of discord, slack, teams, googlechat, "
		    "telegram, "
		    "matrix, webhook",
		    text);
	return (enum channel_provider)p;
}

int channel_name_take(
    const char *name, char ret[static STORE_CHANNEL_NAME_SIZE], struct av_err *err)
{
	struct av_str s = av_str_trim(av_str_c(name));
	bool good = s.n >= 1 && s.n <= 64;

	for (size_t i = 0; i < s.n && good; i++) {
		char ch = s.p[i] == ' ' ? '-' : (char)tolower((unsigned char)s.p[i]);

		good = isalnum((unsigned char)ch) || (i > 0 && strchr("._-", ch) && ch);
		ret[i] = ch;
	}
	if (!good)
		return av_err_set(err, AV_ERR_INVALID,
		    "field 'name': '%.80s' must be 1 to 64 letters, digits, '.', '_' or '-', "
		    "beginning "
		    "with a letter or digit; capitals become small and spaces hyphens",
		    name);
	ret[s.n] = '\0';
	return 0;
}

static int unknown_event(const char *name, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf all = AV_BUF_INIT(512);

	for (size_t i = 0; i < AV_ARRAY_LEN(event_names); i++)
		(void)av_buf_printf(&all, "%s%s", i ? ", " : "", event_names[i]);
	return av_err_set(err, AV_ERR_INVALID, "field 'events': '%.60s' must be one of %s", name,
	    av_buf_cstr(&all) ? av_buf_cstr(&all) : "those in the manual");
}

/* Each once, in the order of channels.def. */
int channel_events_take(
    const json_t *events, char ret[static STORE_EVENTS_SIZE], struct av_err *err)
{
	bool wanted[AV_ARRAY_LEN(event_names)] = {false};
	size_t n = json_array_size(events), at = 0;

	if (!n)
		return av_err_set(err, AV_ERR_INVALID,
		    "field 'events': must name at least one event, such as capsule.created");
	for (size_t i = 0; i < n; i++) {
		const char *name = json_string_value(json_array_get(events, i));
		size_t k = 0;

		while (k < AV_ARRAY_LEN(event_names) && name && strcmp(name, event_names[k]) != 0)
			k++;
		if (!name || k == AV_ARRAY_LEN(event_names))
			return unknown_event(name ? name : "", err);
		wanted[k] = true;
	}
	ret[at++] = ' ';
	for (size_t k = 0; k < AV_ARRAY_LEN(event_names); k++) {
		size_t len = strlen(event_names[k]);

		if (!wanted[k])
			continue;
		assert(at + len + 2 <= STORE_EVENTS_SIZE);
		memcpy(ret + at, event_names[k], len);
		at += len;
		ret[at++] = ' ';
	}
	ret[at] = '\0';
	return 0;
}

/* ---- checks ---- */

static bool all_of(struct av_str s, const char *more)
{
	for (size_t i = 0; i < s.n; i++)
		if (!isalnum((unsigned char)s.p[i]) && (!s.p[i] || !strchr(more, s.p[i])))
			return false;
	return s.n > 0;
}

static bool is_printable(struct av_str s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= 0x20 || s.p[i] >= 0x7f)
			return false;
	return s.n > 0;
}

static int check_url(struct control *c, enum channel_provider p, const char *name,
    const char *value, struct av_err *err)
{
	const struct control_outbound *o = c->config.outbound;
	/* Where the token goes in clear is on this network, or nowhere. */
	bool https_only = p != CHANNEL_WEBHOOK && o && !o->private_allowed;
	int r;

	if (!o)
		return av_err_set(err, AV_ERR_UNSUPPORTED, "this Aviary calls no other servers");
	r = o->check_url(o->ctx, value, https_only, err);
	if (r == 0 && p == CHANNEL_MATRIX && strpbrk(value, "?#"))
		r = av_err_set(
		    err, AV_ERR_INVALID, "the URL of a homeserver has neither '?' nor '#'");
	if (r < 0)
		av_err_prefix(err, "field 'config.%s'", name);
	return r;
}

static int check_value(struct control *c, enum channel_provider p, const struct field *f,
    const char *value, struct av_err *err)
{
	struct av_str s = av_str_c(value);
	const char *must = NULL;

	switch (f->form) {
	case URL:
		return check_url(c, p, f->name, value, err);
	case TOKEN:
		if (s.n > 256 || !all_of(s, ":_-"))
			must = "the token of a bot, as 123456:ABC-DEF";
		break;
	case CHAT:
		if (s.n > 64 || !all_of(s, "@_-"))
			must = "the number of a chat or @name of a channel";
		break;
	case ROOM:
		if (s.n > 255 || !is_printable(s) || (s.p[0] != '!' && s.p[0] != '#'))
			must = "the id of a room, as !abc:example.com";
		break;
	case BEARER:
		if (s.n > 1024 || !is_printable(s))
			must = "a token of 1 to 1024 printable characters";
		break;
	case SECRET:
		if (s.n < 1 || s.n > 256)
			must = "a text of 1 to 256 bytes";
		break;
	}
	if (!must)
		return 0;
	return av_err_set(err, AV_ERR_INVALID, "field 'config.%s': must be %s", f->name, must);
}

static const struct field *field_find(enum channel_provider p, const char *name)
{
	for (size_t i = 0; i < FIELDS && fields[p][i].name; i++)
		if (strcmp(fields[p][i].name, name) == 0)
			return &fields[p][i];
	return NULL;
}

static int check_config(
    struct control *c, enum channel_provider p, const json_t *config, struct av_err *err)
{
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)(uintptr_t)config, name, value) {
		const struct field *f = field_find(p, name);

		if (!f)
			return av_err_set(err, AV_ERR_INVALID,
			    "field 'config.%.40s': a channel of %s has no such field", name,
			    providers[p]);
		if (check_value(c, p, f, json_string_value(value), err) < 0)
			return -av_err_errno(err->kind);
	}
	for (size_t i = 0; i < FIELDS && fields[p][i].name; i++)
		if (!fields[p][i].optional && !json_object_get(config, fields[p][i].name))
			return av_err_set(err, AV_ERR_INVALID,
			    "field 'config.%s': missing, and a channel of %s needs it",
			    fields[p][i].name, providers[p]);
	return 0;
}

/* ---- seals ---- */

static void derive(const struct control *c, uint8_t key[static crypto_secretbox_KEYBYTES])
{
	static_assert(
	    crypto_secretbox_KEYBYTES == crypto_auth_hmacsha256_BYTES, "a key of one size");
	crypto_auth_hmacsha256(
	    key, (const unsigned char *)PURPOSE, sizeof(PURPOSE) - 1, c->sign_key);
}

static void write_context(struct av_buf *out, const char *channel_id, const char *field)
{
	(void)av_buf_append(out, channel_id, strlen(channel_id) + 1);
	(void)av_buf_append(out, field, strlen(field) + 1);
}

static void wipe_buf(struct av_buf *b)
{
	if (b->p)
		explicit_bzero(b->p, b->cap);
	av_buf_clear(b);
}

static json_t *seal(
    const struct control *c, const char *channel_id, const char *field, const char *value)
{
	AV_CLEANUP(wipe_buf) struct av_buf plain = AV_BUF_INIT(2 * VALUE_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf box = AV_BUF_INIT(4 * VALUE_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(8 * VALUE_MAX);
	uint8_t key[crypto_secretbox_KEYBYTES], nonce[crypto_secretbox_NONCEBYTES];
	char *room;

	write_context(&plain, channel_id, field);
	(void)av_buf_append_c(&plain, value);
	randombytes_buf(nonce, sizeof(nonce));
	(void)av_buf_append(&box, nonce, sizeof(nonce));
	if (av_buf_error(&plain) < 0 ||
	    av_buf_reserve(&box, plain.n + crypto_secretbox_MACBYTES, &room) < 0)
		return NULL;
	derive(c, key);
	(void)crypto_secretbox_easy(
	    (unsigned char *)room, (const unsigned char *)plain.p + plain.off, plain.n, nonce, key);
	explicit_bzero(key, sizeof(key));
	av_buf_commit(&box, plain.n + crypto_secretbox_MACBYTES);
	if (av_base64_encode(&text, av_buf_str(&box).p, box.n) < 0)
		return NULL;
	return json_stringn(av_buf_str(&text).p, text.n);
}

/* NULL: it was sealed by another key, for something else, or is damaged. */
static json_t *unseal(
    const struct control *c, const char *channel_id, const char *field, const char *sealed)
{
	AV_CLEANUP(av_buf_clear) struct av_buf box = AV_BUF_INIT(4 * VALUE_MAX);
	AV_CLEANUP(wipe_buf) struct av_buf plain = AV_BUF_INIT(4 * VALUE_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf context = AV_BUF_INIT(256);
	const size_t head = crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES;
	uint8_t key[crypto_secretbox_KEYBYTES];
	struct av_str got;
	char *room;
	int r;

	write_context(&context, channel_id, field);
	if (av_base64_decode(&box, av_str_c(sealed)) < 0 || box.n < head ||
	    av_buf_reserve(&plain, box.n - head + 1, &room) < 0 || av_buf_error(&context) < 0)
		return NULL;
	derive(c, key);
	r = crypto_secretbox_open_easy((unsigned char *)room,
	    (const unsigned char *)av_buf_str(&box).p + crypto_secretbox_NONCEBYTES,
	    box.n - crypto_secretbox_NONCEBYTES, (const unsigned char *)av_buf_str(&box).p, key);
	explicit_bzero(key, sizeof(key));
	if (r != 0)
		return NULL;
	av_buf_commit(&plain, box.n - head);
	got = av_buf_str(&plain);
	if (!av_str_starts(got, av_buf_str(&context)))
		return NULL;
	return json_stringn(got.p + context.n, got.n - context.n);
}

int channel_config_open(
    struct control *c, const char *channel_id, const char *sealed, json_t **ret, struct av_err *err)
{
	json_t *in = sealed ? json_loads(sealed, 0, NULL) : NULL, *out = json_object(), *value;
	const char *name;

	json_object_foreach (in, name, value) {
		json_t *plain = json_is_string(value)
		                    ? unseal(c, channel_id, name, json_string_value(value))
		                    : NULL;

		if (!plain || json_object_set_new(out, name, plain) < 0) {
			json_decref(in);
			in = NULL;
			break;
		}
	}
	if (!in || !out) {
		channel_config_wipe(out);
		json_decref(in);
		return av_err_set(err, AV_ERR_INTERNAL,
		    "its configuration cannot be opened: it was sealed with another key; set it "
		    "again");
	}
	json_decref(in);
	*ret = out;
	return 0;
}

void channel_config_wipe(json_t *config)
{
	const char *name;
	json_t *value;

	json_object_foreach (config, name, value) {
		/* Strings of jansson's are their owner's, which is us. */
		explicit_bzero(
		    (char *)(uintptr_t)json_string_value(value), json_string_length(value));
	}
	json_decref(config);
}

static int add_sealed(const struct control *c, json_t *out, const char *channel_id,
    const char *field, const char *value)
{
	json_t *sealed = seal(c, channel_id, field, value);

	return sealed ? json_object_set_new(out, field, sealed) : -1;
}

/* The secret of a webhook that brings none: the one before, or a new one. */
static int add_secret(
    struct control *c, json_t *out, const char *channel_id, const char *former, char *secret)
{
	json_t *old = former ? json_loads(former, 0, NULL) : NULL;
	json_t *kept = json_object_get(old, "secret");
	char digits[CHANNEL_SECRET_SIZE];
	uint8_t random[32];
	int r;

	if (kept) {
		r = json_object_set(out, "secret", kept);
		json_decref(old);
		return r;
	}
	json_decref(old);
	randombytes_buf(random, sizeof(random));
	av_hex_encode(digits, random, sizeof(random));
	r = add_sealed(c, out, channel_id, "secret", digits);
	if (secret)
		memcpy(secret, digits, sizeof(digits));
	explicit_bzero(digits, sizeof(digits));
	explicit_bzero(random, sizeof(random));
	return r;
}

int channel_config_seal(struct control *c, const char *channel_id, enum channel_provider p,
    const json_t *config, const char *former, char *secret, char **ret, struct av_err *err)
{
	json_t *out;
	const char *name;
	json_t *value;
	int r = check_config(c, p, config, err);

	if (r < 0)
		return r;
	out = json_object();
	json_object_foreach ((json_t *)(uintptr_t)config, name, value) {
		if (r == 0)
			r = add_sealed(c, out, channel_id, name, json_string_value(value));
	}
	if (r == 0 && p == CHANNEL_WEBHOOK && !json_object_get(config, "secret"))
		r = add_secret(c, out, channel_id, former, secret);
	*ret = r == 0 ? json_dumps(out, JSON_COMPACT) : NULL;
	json_decref(out);
	return *ret ? 0 : av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
}
