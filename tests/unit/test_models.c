/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_models.c - answers of the server into structs: what is good, what lies, and the way back
 */
#include <aviary/aviary.h>

#include "client/model_tables.h"
#include "lib/tap.h"

static const struct avc_model *of_name(const char *name)
{
	for (size_t i = 0; i < avc_n_models; i++)
		if (strcmp(avc_models[i]->type.name, name) == 0)
			return avc_models[i];
	return NULL;
}

/* 0 and the struct, or the code with its words in text. */
static int decode(const struct avc_model *m, const char *json, void **ret, char *text)
{
	json_t *j = json_loads(json, JSON_DECODE_ANY, NULL);
	int r = -1;

	*ret = NULL;
	text[0] = '\0';
	if (j)
		r = avc_model_decode(m, j, ret, text);
	json_decref(j);
	return r;
}

static void test_whole(void)
{
	static const char json[] =
	    "{\"id\":\"sb1\",\"status\":\"running\",\"isolation\":\"nested\",\"cpus\":1,\"vcpus\":"
	    "2,"
	    "\"created_at\":\"2026-01-31T12:00:00.5+01:00\",\"paused_at\":null,\"sudo\":true,"
	    "\"metadata\":{\"a\":\"1\",\"\":\"\"},\"tags\":[\"x\",\"\"],\"public_ports\":[0,65535],"
	    "\"oom_kills\":0,\"reason\":null,\"of tomorrow\":{\"deep\":[[[{}]]]}}";
	aviary_sandbox_info *sb = NULL;
	aviary_error e;

	is_int(aviary_sandbox_info_parse(json, strlen(json), &sb, &e), 0, "a sandbox");
	is_int(e.code, 0, "no error");
	is_str(sb->id, "sb1", "text");
	is_int(sb->status, AVIARY_STATUS_RUNNING, "a word");
	is_int(sb->isolation, AVIARY_ISOLATION_UNKNOWN, "a word of tomorrow");
	is_str(sb->isolation_text, "nested", "as it is");
	ok(sb->cpus > 0.99 && sb->cpus < 1.01, "an integer for a number");
	is_int(sb->created_at, 1769857200500, "a time");
	ok(!sb->paused_at && !sb->started_at, "null and absent");
	is_int(sb->sudo, 1, "a boolean");
	ok(sb->metadata.n == 2 && strcmp(sb->metadata.items[0].value, "1") == 0, "a map");
	ok(sb->tags.n == 2 && sb->tags.items[1][0] == '\0', "strings");
	is_int(sb->public_ports.items[1], 65535, "ports");
	ok(sb->has_oom_kills && !sb->oom_kills, "a zero that was said");
	ok(!sb->reason, "a text that is null");
	/* Required, but an older server does not send it. */
	is_str(sb->template_name, "", "absent text is empty");
	is_str(sb->on_timeout_text, "", "so is a word");
	is_int(sb->on_timeout, AVIARY_ON_TIMEOUT_UNKNOWN, "of no value");
	aviary_sandbox_info_free(sb);
	aviary_sandbox_info_free(NULL);
	is_str(aviary_status_text(AVIARY_STATUS_PAUSED), "paused", "a word back");
	is_str(aviary_status_text((enum aviary_status)99), "unknown", "of nothing");
	is_str(aviary_status_text((enum aviary_status) - 1), "unknown", "of less");
}

static void test_nested(void)
{
	aviary_team_detail *t = NULL;
	aviary_stats *s = NULL;
	aviary_text_list *l = NULL;
	aviary_error e;
	static const char team[] =
	    "{\"team\":{\"id\":\"te1\"},\"members\":[{\"user_id\":\"us1\",\"role\":"
	    "\"admin\"},{\"user_id\":\"us2\"}]}";
	static const char stats[] = "{\"range\":\"5m\"}";

	is_int(aviary_team_detail_parse(team, strlen(team), &t, &e), 0, "structs in structs");
	is_int((int)t->n_members, 2, "a list of them");
	is_int(t->members[0]->role, AVIARY_ROLE_ADMIN, "with words");
	is_str(t->members[1]->email, "", "and what is absent");
	ok(t->team->quota && !t->team->quota->has_sandboxes, "an absent struct is empty");
	aviary_team_detail_free(t);
	is_int(aviary_stats_parse(stats, strlen(stats), &s, &e), 0, "nothing but the key");
	ok(s->current && s->series && s->series->labels.n == 0 && s->series->labels.items,
	    "structs and lists are there, and empty");
	aviary_stats_free(s);
	is_int(aviary_text_list_parse("[]", 2, &l, &e), 0, "an array of nothing");
	ok(l->n == 0, "is empty");
	aviary_text_list_free(l);
}

static void refused(const char *type, const char *json, const char *words)
{
	char text[AVC_MODEL_TEXT];
	void *p;
	int r = decode(of_name(type), json, &p, text);

	ok(r == AVIARY_E_PROTOCOL && strstr(text, words), "%s: %.60s -> \"%s\"", type, json, text);
	ok(!p, "and nothing comes of it");
}

static void test_lies(void)
{
	refused("team", "[]", "it is an array, not an object");
	refused("team_list", "{}", "it is an object, not an array");
	refused("team_list", "[{\"id\":\"a\"},7]", "[1] is an integer, not an object");
	refused("team", "{}", "id is absent");
	refused("team", "{\"id\":null}", "id is null");
	refused("team", "{\"id\":{}}", "id is an object, not a string");
	refused("team", "{\"id\":\"a\",\"created_at\":\"yesterday\"}",
	    "created_at is a string, not a point");
	refused("team", "{\"id\":\"a\",\"created_at\":1}", "created_at is an integer");
	refused("team", "{\"id\":\"a\",\"is_byoc\":1}", "is_byoc is an integer, not a boolean");
	refused("team", "{\"id\":\"a\",\"role\":7}", "role is an integer, not a string");
	refused(
	    "team", "{\"id\":\"a\",\"quota\":{\"sandboxes\":1.5}}", "quota.sandboxes is a number");
	refused("stats", "{\"range\":\"\",\"series\":{\"labels\":[\"2026-01-31T12:00:00Z\",null]}}",
	    "series.labels[1] is null");
	refused("sandbox_info", "{\"id\":\"a\",\"public_ports\":[65536]}", "public_ports[0]");
	refused("sandbox_info", "{\"id\":\"a\",\"public_ports\":[-1]}", "public_ports[0]");
	refused("sandbox_info", "{\"id\":\"a\",\"metadata\":{\"k\":null}}", "metadata.k is null");
	refused("sandbox_info", "{\"id\":\"a\",\"metadata\":[]}", "metadata is an array");
	refused("sandbox_info", "{\"id\":\"a\",\"tags\":\"a\"}", "tags is a string, not an array");
}

/* What fits nothing, by kind. */
static const char *misfit(enum avc_kind kind)
{
	switch (kind) {
	case AVC_TEXT:
	case AVC_TIME:
	case AVC_ENUM:
		return "false";
	case AVC_JSON:
		return NULL;
	default:
		return "\"no\"";
	}
}

static const char *sample(const struct avc_field *f)
{
	switch (f->kind) {
	case AVC_TEXT:
		return "\"gr\xc3\xbcn \\\"\\\\\"";
	case AVC_TIME:
		return "\"2026-01-31T12:00:00.123Z\"";
	case AVC_ENUM:
		return "\"word\"";
	case AVC_INTEGER:
		return "9223372036854775807";
	case AVC_NUMBER:
		return "-1.5e-7";
	case AVC_BOOL:
		return "true";
	case AVC_STRINGS:
		return "[\"a\",\"\"]";
	case AVC_INTEGERS:
		return "[-1,0]";
	case AVC_TIMES:
		return "[\"2026-01-31T12:00:00.000Z\"]";
	case AVC_PORTS:
		return "[80,0]";
	case AVC_PAIRS:
		return "{\"a\":\"b\"}";
	case AVC_JSON:
		return "{\"a\":[1,{}]}";
	default:
		return NULL;
	}
}

static json_t *filled(const struct avc_model *m);

static json_t *filled_field(const struct avc_field *f)
{
	const char *text = sample(f);
	json_t *list, *j;

	if (text) {
		j = json_loads(text, JSON_DECODE_ANY, NULL);
		return j;
	}
	j = filled(f->model);
	if (f->kind == AVC_STRUCT)
		return j;
	list = json_array();
	(void)json_array_append(list, j);
	(void)json_array_append_new(list, j);
	return list;
}

/* A document with all members. */
static json_t *filled(const struct avc_model *m)
{
	json_t *o;

	if (m->is_array)
		return filled_field(&m->fields[0]);
	o = json_object();
	for (size_t i = 0; i < m->n_fields; i++)
		(void)json_object_set_new(o, m->fields[i].name, filled_field(&m->fields[i]));
	return o;
}

static void test_every_member(const struct avc_model *m)
{
	json_t *o = filled(m), *back;
	char text[AVC_MODEL_TEXT] = "";
	bool refused_all = true;
	void *p = NULL;

	if (ok(avc_model_decode(m, o, &p, text) == 0, "%s with everything %s", m->type.name,
	        text)) {
		back = avc_model_encode(m, p);
		if (!ok(json_equal(o, back), "comes back as it was"))
			diag("%s", avc_model_json(m, p));
		json_decref(back);
		avc_model_free(p);
	}
	for (size_t i = 0; !m->is_array && i < m->n_fields; i++) {
		const struct avc_field *f = &m->fields[i];
		const char *wrong = misfit(f->kind);
		json_t *other = json_copy(o);
		int r;

		if (wrong) {
			(void)json_object_set_new(
			    other, f->name, json_loads(wrong, JSON_DECODE_ANY, NULL));
			r = avc_model_decode(m, other, &p, text);
			if (r == 0)
				avc_model_free(p);
			refused_all =
			    refused_all && r == AVIARY_E_PROTOCOL && strstr(text, f->name);
		}
		json_decref(other);
	}
	ok(refused_all, "%s: each member of a wrong type is refused by name", m->type.name);
	json_decref(o);
}

/* Text that is hostile before it is a document. */
static void test_documents(void)
{
	static const char *const bad[] = {"", "{", "{\"id\":\"a\"}x", "{\"id\":\"\\u0000\"}",
	    "{\"id\":\"\xff\"}", "{\"id\":\"a\",\"id\":\"b\"}", "nonsense", "\"id\"",
	    "{\"id\":\"\\ud800\"}", "{\"id\":\"\\udc00\"}", "{\"id\":\"\\ud800\\u0041\"}",
	    "{\"id\\u0000\":\"a\"}", "{\"id\":\"a\",\"x\":99999999999999999999}",
	    "{\"id\":\"a\",\"x\":1e999}"};
	aviary_team *t = NULL;
	aviary_team_list *l = NULL;
	aviary_error e;
	size_t n = (size_t)3 << 20;
	char *big = malloc(3 * n + 3);

	for (size_t i = 0; i < AV_ARRAY_LEN(bad); i++) {
		int r = aviary_team_parse(bad[i], strlen(bad[i]), &t, &e);

		ok(r == AVIARY_E_PROTOCOL && !t && e.message[0], "refused: %s", bad[i]);
	}
	is_int(aviary_team_parse("{}", 2, &t, NULL), AVIARY_E_PROTOCOL, "without an error's place");

	for (size_t i = 0; i < 5000; i++)
		big[i] = '[';
	is_int(
	    aviary_team_list_parse(big, 5000, &l, &e), AVIARY_E_PROTOCOL, "brackets without end");
	/* Nine megabytes of which each three bytes would take a hundred times as much. */
	big[0] = '[';
	for (size_t i = 0; i < n; i++)
		memcpy(big + 1 + 3 * i, "{},", 3);
	memcpy(big + 3 * n, "]", 2);
	is_int(aviary_team_list_parse(big, 3 * n + 1, &l, &e), AVIARY_E_TOO_LARGE, "a bomb");
	/* As text it weighs what it is. */
	memcpy(big, "[\"", 2);
	memcpy(big + 3 * n - 1, "\"]", 3);
	is_int(aviary_team_list_parse(big, 3 * n + 1, &l, &e), AVIARY_E_PROTOCOL,
	    "text is not counted so");
	ok(!l, "nothing of that");
	free(big);
}

/* The tree is the one that jansson reads, when it has the memory. */
static void test_trees(void)
{
	static const char *const good[] = {"[]", " { } ", "\t[ 1 , -2\r\n]",
	    "{\"\":{\"a\":[[],{}]}}", "[true,false,null,\"true\"]",
	    "[0,-0,9223372036854775807,-9223372036854775808]",
	    "[0.1,-0.0,1e3,1E-3,12.5e+2,0.30000000000000004,5e-324]",
	    "[\"\",\"a\",\"\\\"\\\\\\/\\b\\f\\n\\r\\t\",\"a\\u0041b\",\"\\u00e9\\u20ac\"]",
	    "[\"\\ud83d\\ude00\",\"\\uDBFF\\uDFFF-\\u007f\\u0080\\u07ff\\u0800\\uffff\"]",
	    "{\"\\u0061\\n\":1,\"b\\\"\":[{\"c\":\"d\\\\\"}],\"\303\251\":\"\360\237\230\200\"}"};
	static const char nul[] = "[\"a\\u0000b\"]", name[] = "[{\"a\\u0000b\":1}]";
	json_t *j, *same;
	int code;

	for (size_t i = 0; i < AV_ARRAY_LEN(good); i++) {
		j = avc_json_load(av_str_c(good[i]), &code);
		same = json_loads(good[i], 0, NULL);
		ok(j && same && code == 0 && json_equal(j, same), "tree %zu is as jansson reads it",
		    i);
		json_decref(j);
		json_decref(same);
	}
	j = avc_json_load_with(av_str_c(nul), AVC_JSON_NUL, &code);
	ok(json_string_length(json_array_get(j, 0)) == 3, "a NUL where it may be");
	json_decref(j);
	ok(!avc_json_load_with(av_str_c(name), AVC_JSON_NUL, &code) && code == AVIARY_E_PROTOCOL,
	    "not in a name");
	for (size_t i = 0; i < 4; i++) {
		static const char *const any[] = {"1", "\"a\"", " null ", "[1.5]"};

		j = avc_json_load_with(av_str_c(any[i]), AVC_JSON_ANY, &code);
		same = json_loads(any[i], JSON_DECODE_ANY, NULL);
		ok(j && json_equal(j, same), "anything: %s", any[i]);
		json_decref(j);
		json_decref(same);
	}
}

/* Small documents that make large structs are bounded too. */
static void test_large_model(void)
{
	json_t *list = json_array(), *one = json_object();
	char text[AVC_MODEL_TEXT];
	void *p = NULL;

	(void)json_object_set_new(one, "id", json_string("a"));
	for (int i = 0; i < 1500000; i++)
		(void)json_array_append(list, one);
	is_int(avc_model_decode(&avc_sandbox_info_list, list, &p, text), AVIARY_E_TOO_LARGE,
	    "more than a model may take");
	ok(!p && strstr(text, "256 MiB"), "%s", text);
	json_decref(list);
	list = json_array();
	for (int i = 0; i < 20000; i++)
		(void)json_array_append(list, one);
	json_decref(one);
	is_int(avc_model_decode(&avc_sandbox_info_list, list, &p, text), 0, "many");
	is_int((int)((aviary_sandbox_info_list *)p)->n, 20000, "all of them");
	is_int(avc_model_set_text(&avc_sandbox_info_list, p, "next_cursor", "c"), 0, "a cursor");
	is_str(((aviary_sandbox_info_list *)p)->next_cursor, "c", "is there");
	avc_model_free(p);
	json_decref(list);
}

static json_t *encode(const struct avc_field *f, const void *base, int want, const char *words)
{
	char text[AVC_MODEL_TEXT] = "";
	json_t *o = json_object();

	is_int(avc_fields_encode(o, f, 1, base, text), want, words);
	if (want < 0)
		ok(strstr(text, f->name), "%s", text);
	return o;
}

static void test_requests(void)
{
	struct {
		size_t struct_size;
		const char *text;
		aviary_pairs pairs;
		int has, three;
		double number;
		int value;
	} v = {.struct_size = sizeof(v)}, copy;
	const struct avc_field text = {
	    .name = "text", .kind = AVC_TEXT, .at = (size_t)((char *)&v.text - (char *)&v)};
	const struct avc_field pairs = {
	    .name = "pairs", .kind = AVC_PAIRS, .at = (size_t)((char *)&v.pairs - (char *)&v)};
	const struct avc_field number = {.name = "number",
	    .kind = AVC_NUMBER,
	    .flags = AVC_MORE,
	    .at = (size_t)((char *)&v.number - (char *)&v),
	    .more_at = (size_t)((char *)&v.has - (char *)&v)};
	const struct avc_field word = {.name = "word",
	    .kind = AVC_ENUM,
	    .words = &avc_status_words,
	    .at = (size_t)((char *)&v.value - (char *)&v)};
	const struct avc_field three = {.name = "three",
	    .kind = AVC_BOOL,
	    .flags = AVC_THREE,
	    .at = (size_t)((char *)&v.three - (char *)&v)};
	struct avc_field nulls = pairs;
	aviary_pair one = {"k", NULL};
	char words[AVC_MODEL_TEXT];
	json_t *o;

	nulls.flags = AVC_NULLS;
	o = encode(&text, &v, 0, "nothing is said");
	is_int((int)json_object_size(o), 0, "so nothing is there");
	json_decref(o);
	v.text = "\xff";
	json_decref(encode(&text, &v, AVIARY_E_INVALID, "text that is not UTF-8"));
	v.pairs = (aviary_pairs){&one, 1};
	json_decref(encode(&pairs, &v, AVIARY_E_INVALID, "a value that is NULL"));
	o = encode(&nulls, &v, 0, "where it may be");
	ok(json_is_null(json_object_get(json_object_get(o, "pairs"), "k")), "is null");
	json_decref(o);
	one.name = NULL;
	json_decref(encode(&nulls, &v, AVIARY_E_INVALID, "a name that is NULL"));
	one.name = "\xff";
	one.value = "";
	json_decref(encode(&pairs, &v, AVIARY_E_INVALID, "a name that is not UTF-8"));
	v.has = 1;
	o = encode(&number, &v, 0, "a zero that is meant");
	ok(json_is_real(json_object_get(o, "number")), "is there");
	json_decref(o);
	v.has = 0;
	v.number = 2;
	o = encode(&number, &v, 0, "what is not zero");
	ok(json_is_real(json_object_get(o, "number")), "needs no word");
	json_decref(o);
	v.value = 99;
	json_decref(encode(&word, &v, AVIARY_E_INVALID, "no value of the enum"));
	v.three = -1;
	o = encode(&three, &v, 0, "no");
	ok(json_is_false(json_object_get(o, "three")), "is said");
	json_decref(o);

	v.struct_size = sizeof(v) / 2;
	is_int(avc_options_copy(&copy, sizeof(copy), &v, words), 0, "a struct of an older header");
	ok(!copy.value && copy.text == v.text, "is zero where it was shorter");
	v.struct_size = SIZE_MAX;
	is_int(avc_options_copy(&copy, sizeof(copy), &v, words), 0, "one of a later header");
	is_int(copy.value, 99, "is read as far as it is known");
	v.struct_size = 0;
	is_int(avc_options_copy(&copy, sizeof(copy), &v, words), AVIARY_E_INVALID,
	    "one without its size");
	is_int(avc_options_copy(&copy, sizeof(copy), NULL, words), 0, "none");
}

int main(void)
{
	test_whole();
	test_nested();
	test_lies();
	for (size_t i = 0; i < avc_n_models; i++)
		test_every_member(avc_models[i]);
	test_documents();
	test_trees();
	test_large_model();
	test_requests();
	return tap_done();
}
