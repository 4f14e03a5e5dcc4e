/* SPDX-License-Identifier: Apache-2.0 */
/*
 * labels.c - metadata, environment, tags and open ports: checked, as the store's text, and parsed
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "control/control_internal.h"

#include "base/banned.h"

#define TEXT_MAX       65536 /* of a metadata object, as JSON */
#define ENVS_TEXT_MAX  (1024UL * 1024)
#define NAME_MAX_CHARS 128

/* ---- kept ---- */

void sandbox_texts_clear(struct sandbox_texts *t)
{
	free(t->envs);
	free(t->metadata);
	free(t->tags);
	free(t->ports);
	free(t->main);
	*t = (struct sandbox_texts){0};
}

void sandbox_texts_point(struct store_sandbox *rec, const struct sandbox_texts *texts)
{
	rec->envs_json = texts->envs;
	rec->metadata_json = texts->metadata;
	rec->tags_json = texts->tags;
	rec->ports_json = texts->ports;
	rec->main_json = texts->main;
}

static json_t *parse_array(const char *text)
{
	json_t *j = json_loads(text ? text : "[]", 0, NULL);

	if (json_is_array(j))
		return j;
	json_decref(j);
	return json_array();
}

int sandbox_labels_parse(struct sandbox_labels *l, const struct store_sandbox *rec)
{
	struct av_str metadata = av_str_c(rec->metadata_json ? rec->metadata_json : "{}");

	l->metadata = av_json_parse_object(metadata, NULL);
	if (!l->metadata)
		l->metadata = json_object();
	l->tags = parse_array(rec->tags_json);
	l->ports = parse_array(rec->ports_json);
	if (rec->main_json && rec->main_json[0])
		l->main = av_json_parse_object(av_str_c(rec->main_json), NULL);
	if (l->metadata && l->tags && l->ports)
		return 0;
	sandbox_labels_clear(l);
	return -ENOMEM;
}

void sandbox_labels_clear(struct sandbox_labels *l)
{
	json_decref(l->metadata);
	json_decref(l->tags);
	json_decref(l->ports);
	json_decref(l->main);
	*l = (struct sandbox_labels){0};
}

static void replace(const char **dst, char **text)
{
	free((char *)(uintptr_t)*dst);
	*dst = AV_TAKE_PTR(*text);
}

void sandbox_labels_replace(
    struct sandbox *sb, struct sandbox_texts *texts, struct sandbox_labels *labels)
{
	replace(&sb->rec.metadata_json, &texts->metadata);
	replace(&sb->rec.tags_json, &texts->tags);
	replace(&sb->rec.ports_json, &texts->ports);
	labels->main = AV_TAKE_PTR(sb->labels.main);
	sandbox_labels_clear(&sb->labels);
	sb->labels = *labels;
	*labels = (struct sandbox_labels){0};
}

/* ---- taken ---- */

int control_check_number(struct av_err *err, const char *name, const char *unit, int64_t scale,
    int64_t value, int64_t min, int64_t max)
{
	if (value >= min && value <= max)
		return 0;
	return av_err_set(err, AV_ERR_INVALID, "%s is %g%s; it must be from %g to %g%s", name,
	    (double)value / (double)scale, unit, (double)min / (double)scale,
	    (double)max / (double)scale, unit);
}

static bool env_name_ok(const char *name)
{
	return name[0] && strlen(name) <= NAME_MAX_CHARS && !strchr(name, '=');
}

/* The object as text; *ret is owned. */
static int take_map(const json_t *map, const char *field, size_t max_items, size_t max_bytes,
    bool names, char **ret, struct av_err *err)
{
	struct av_buf b = AV_BUF_INIT(max_bytes);
	const char *key;
	json_t *v;
	int r = 0;

	if (map && json_object_size(map) > max_items)
		return av_err_set(err, AV_ERR_INVALID,
		    "%s has %zu entries; at most %zu are allowed", field, json_object_size(map),
		    max_items);
	json_object_foreach ((json_t *)(uintptr_t)map, key, v) {
		if (!json_is_string(v))
			return av_err_set(
			    err, AV_ERR_INVALID, "%s.%.64s must be a string", field, key);
		if (names && !env_name_ok(key))
			return av_err_set(err, AV_ERR_INVALID,
			    "%s: \"%.64s\" is not a name of a variable (1 to %d characters, no "
			    "'=')",
			    field, key, NAME_MAX_CHARS);
	}
	if (!map)
		(void)av_buf_append_c(&b, "{}");
	else
		(void)av_json_dump(&b, map);
	if (av_buf_error(&b) == -EMSGSIZE)
		r = av_err_set(
		    err, AV_ERR_TOO_LARGE, "%s is more than %zu bytes as JSON", field, max_bytes);
	else if (av_buf_error(&b) || !(*ret = av_str_dup(av_buf_str(&b))))
		r = av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	av_buf_clear(&b);
	return r;
}

static int dump_array(const json_t *list, char **ret, struct av_err *err)
{
	*ret = list ? json_dumps(list, JSON_COMPACT) : av_str_dup(AV_STR("[]"));
	return *ret ? 0 : av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
}

static bool tag_ok(const char *tag)
{
	size_t n = tag ? strlen(tag) : 0;

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)tag[i] < 0x20 || tag[i] == 0x7f)
			return false;
	return n >= 1 && n <= SANDBOX_TAG_MAX;
}

int labels_take_tags(const json_t *tags, char **ret, struct av_err *err)
{
	const json_t *v;
	size_t i;

	if (json_array_size(tags) > SANDBOX_TAGS_MAX)
		return av_err_set(err, AV_ERR_INVALID, "tags has %zu entries; it may have %d",
		    json_array_size(tags), SANDBOX_TAGS_MAX);
	json_array_foreach (tags, i, v)
		if (!tag_ok(json_string_value(v)))
			return av_err_set(err, AV_ERR_INVALID,
			    "tags[%zu] must be text of 1 to %d bytes without control characters", i,
			    SANDBOX_TAG_MAX);
	return dump_array(tags, ret, err);
}

int labels_take_ports(const json_t *ports, char **ret, struct av_err *err)
{
	const json_t *v;
	size_t i;

	if (json_array_size(ports) > SANDBOX_PORTS_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "public_ports has %zu entries; it may have %d", json_array_size(ports),
		    SANDBOX_PORTS_MAX);
	json_array_foreach (ports, i, v)
		if (!json_is_integer(v) || json_integer_value(v) < 1 ||
		    json_integer_value(v) > UINT16_MAX)
			return av_err_set(err, AV_ERR_INVALID,
			    "public_ports[%zu] must be a port, a number from 1 to %d", i,
			    UINT16_MAX);
	return dump_array(ports, ret, err);
}

int labels_take_metadata(const json_t *map, char **ret, struct av_err *err)
{
	return take_map(map, "metadata", SANDBOX_METADATA_MAX, TEXT_MAX, false, ret, err);
}

int labels_take_envs(const json_t *map, char **ret, struct av_err *err)
{
	return take_map(map, "envs", SANDBOX_ENVS_MAX, ENVS_TEXT_MAX, true, ret, err);
}
