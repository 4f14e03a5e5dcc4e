/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shapes.c - JSON of the native dialect (see shapes.h)
 */
#include "api/native/shapes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/native/main_shapes.h"
#include "base/avtime.h"
#include "base/ids.h"
#include "base/num.h"
#include "control/templates.h"
#include "base/banned.h"

#define SECONDS_MAX_MS (365LL * 24 * 3600 * 1000)
#define MIB_MAX                                                                                    \
	(1LL << 40) /* what multiplies with 1 MiB without overflow; control has the real bound */
#define CPUS_MAX 100000
#define ARGS_MAX 65536
#define TAG_MAX  64

/* Number of processors, whole or fraction, as thousandths. */
static int parse_cpus(const json_t *body, int64_t *ret_milli, struct av_err *err)
{
	const json_t *cpus = json_object_get(body, "cpus");
	int64_t vcpus = 0;
	double v;
	int r = av_json_get_i64(body, "vcpus", 0, CPUS_MAX, &vcpus, err);

	if (r < 0)
		return r;
	if (!cpus || json_is_null(cpus)) {
		*ret_milli = vcpus * 1000;
		return 0;
	}
	if (vcpus)
		return av_err_set(
		    err, AV_ERR_INVALID, "'vcpus' and 'cpus' say the same; give one of them");
	v = json_number_value(cpus);
	if (!json_is_number(cpus) || !(v >= 0.001 && v <= CPUS_MAX))
		return av_err_set(err, AV_ERR_INVALID,
		    "'cpus' must be a number of processors from 0.001 to %d, such as 0.5 or 2",
		    CPUS_MAX);
	*ret_milli = (int64_t)(v * 1000 + 0.5);
	return 0;
}

static int parse_mib(const json_t *body, const char *field, int64_t *ret_bytes, struct av_err *err)
{
	int64_t mib = 0;
	int r = av_json_get_i64(body, field, 0, MIB_MAX, &mib, err);

	if (r == 0)
		*ret_bytes = mib * AV_MIB;
	return r;
}

static int parse_on_timeout(const char *text, bool *ret_delete, struct av_err *err)
{
	if (text && strcmp(text, "delete") != 0 && strcmp(text, "pause") != 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "'on_timeout' must be \"pause\" or \"delete\", not \"%.40s\"", text);
	if (text)
		*ret_delete = text[0] == 'd';
	return 0;
}

int native_parse_create(const json_t *body, struct sandbox_params *ret, struct av_err *err)
{
	struct sandbox_params p = {0};
	const char *on_timeout = NULL;
	bool sudo = true;
	int r;

	if ((r = av_json_get_str(body, "template", &p.template_name, err)) < 0 ||
	    (r = av_json_get_str(body, "isolation", &p.isolation, err)) < 0 ||
	    (r = parse_cpus(body, &p.cpu_milli, err)) < 0 ||
	    (r = parse_mib(body, "memory_mb", &p.memory_bytes, err)) < 0 ||
	    (r = parse_mib(body, "disk_mb", &p.disk_bytes, err)) < 0 ||
	    (r = av_json_get_i64(body, "pids_max", 0, INT32_MAX, &p.pids_max, err)) < 0 ||
	    (r = av_json_get_seconds_ms(
	         body, "timeout_sec", SECONDS_MAX_MS, &p.idle_timeout_ms, err)) < 0 ||
	    (r = av_json_get_seconds_ms(
	         body, "max_lifetime_sec", SECONDS_MAX_MS, &p.max_lifetime_ms, err)) < 0 ||
	    (r = av_json_get_str_map(body, "envs", SANDBOX_ENVS_MAX, &p.envs, err)) < 0 ||
	    (r = av_json_get_str_map(body, "metadata", SANDBOX_METADATA_MAX, &p.metadata, err)) <
	        0 ||
	    (r = av_json_get_str_array(body, "tags", SANDBOX_TAGS_MAX, &p.tags, err)) < 0 ||
	    (r = av_json_get_array(body, "public_ports", SANDBOX_PORTS_MAX, &p.ports, err)) < 0 ||
	    (r = av_json_get_str(body, "on_timeout", &on_timeout, err)) < 0 ||
	    (r = parse_on_timeout(on_timeout, &p.idle_delete, err)) < 0 ||
	    (r = av_json_get_bool(body, "auto_resume", &p.auto_resume, err)) < 0 ||
	    (r = av_json_get_bool(body, "internet", &p.internet, err)) < 0 ||
	    (r = av_json_get_bool(body, "sudo", &sudo, err)) < 0)
		return r;
	p.no_sudo = !sudo;
	*ret = p;
	return 0;
}

/* Fields that a PATCH may name. */
static const struct {
	const char *name;
	uint32_t set;
} update_fields[] = {
    {"timeout_sec", SANDBOX_SET_TIMEOUT},
    {"max_lifetime_sec", SANDBOX_SET_LIFETIME},
    {"on_timeout", SANDBOX_SET_ON_TIMEOUT},
    {"auto_resume", SANDBOX_SET_AUTO_RESUME},
    {"metadata", SANDBOX_SET_METADATA},
    {"tags", SANDBOX_SET_TAGS},
    {"public_ports", SANDBOX_SET_PORTS},
};

static int update_field(const char *name, uint32_t *ret_set, struct av_err *err)
{
	static const char may[] = "timeout_sec, max_lifetime_sec, on_timeout, auto_resume, "
	                          "metadata, tags and public_ports";

	for (size_t i = 0; i < AV_ARRAY_LEN(update_fields); i++)
		if (strcmp(update_fields[i].name, name) == 0) {
			*ret_set |= update_fields[i].set;
			return 0;
		}
	return av_err_set(err, AV_ERR_INVALID,
	    "'%.64s' cannot be changed; what may be changed of a sandbox: %s", name, may);
}

int native_parse_update(const json_t *body, struct sandbox_update *ret, struct av_err *err)
{
	struct sandbox_update u = {0};
	const char *on_timeout = NULL, *name;
	const json_t *v;
	int r = 0;

	json_object_foreach ((json_t *)(uintptr_t)body, name, v)
		if ((r = update_field(name, &u.set, err)) < 0)
			return r;
	if (!u.set)
		return av_err_set(err, AV_ERR_INVALID, "the request changes nothing");
	if ((r = av_json_get_seconds_ms(
	         body, "timeout_sec", SECONDS_MAX_MS, &u.idle_timeout_ms, err)) < 0 ||
	    (r = av_json_get_seconds_ms(
	         body, "max_lifetime_sec", SECONDS_MAX_MS, &u.max_lifetime_ms, err)) < 0 ||
	    (r = av_json_get_str(body, "on_timeout", &on_timeout, err)) < 0 ||
	    (r = parse_on_timeout(on_timeout, &u.idle_delete, err)) < 0 ||
	    (r = av_json_get_bool(body, "auto_resume", &u.auto_resume, err)) < 0 ||
	    (r = av_json_get_object(body, "metadata", &u.metadata, err)) < 0 ||
	    (r = av_json_get_str_array(body, "tags", SANDBOX_TAGS_MAX, &u.tags, err)) < 0 ||
	    (r = av_json_get_array(body, "public_ports", SANDBOX_PORTS_MAX, &u.ports, err)) < 0)
		return r;
	*ret = u;
	return 0;
}

int native_parse_exec(
    const json_t *body, int64_t timeout_default_ms, struct node_exec_spec *ret, struct av_err *err)
{
	struct node_exec_spec s = {.timeout_ms = timeout_default_ms};
	int r;

	if ((r = av_json_get_str(body, "cmd", &s.cmd, err)) < 0 ||
	    (r = av_json_get_str_array(body, "args", ARGS_MAX, &s.args, err)) < 0 ||
	    (r = av_json_get_str_map(body, "envs", SANDBOX_ENVS_MAX, &s.envs, err)) < 0 ||
	    (r = av_json_get_str(body, "cwd", &s.cwd, err)) < 0 ||
	    (r = av_json_get_str(body, "user", &s.user, err)) < 0 ||
	    (r = av_json_get_str(body, "tag", &s.tag, err)) < 0 ||
	    (r = av_json_get_seconds_ms(body, "timeout_sec", SECONDS_MAX_MS, &s.timeout_ms, err)) <
	        0)
		return r;
	if (!s.cmd || !s.cmd[0])
		return av_err_set(err, AV_ERR_INVALID,
		    "'cmd' is missing: the program to run, by path or looked up in PATH");
	if (s.tag && strlen(s.tag) > TAG_MAX)
		return av_err_set(err, AV_ERR_INVALID, "'tag' has more than %d bytes", TAG_MAX);
	*ret = s;
	return 0;
}

struct node_selector native_parse_selector(const char *text)
{
	uint64_t pid;

	if (av_parse_u64(av_str_c(text), 1, UINT32_MAX, &pid) == 0)
		return (struct node_selector){.pid = (uint32_t)pid};
	return (struct node_selector){.tag = text};
}

void native_random_tag(char dst[static NATIVE_TAG_SIZE], const char *prefix)
{
	uint32_t random;

	av_random(&random, sizeof random);
	(void)snprintf(dst, NATIVE_TAG_SIZE, "%s-%08" PRIx32, prefix, random);
}

static void write_str(struct av_buf *out, const char *name, const char *value)
{
	(void)av_buf_printf(out, ",\"%s\":", name);
	(void)av_json_write_str(out, av_str_c(value));
}

static void write_int(struct av_buf *out, const char *name, int64_t value)
{
	(void)av_buf_printf(out, ",\"%s\":%" PRId64, name, value);
}

static void write_bool(struct av_buf *out, const char *name, bool value)
{
	(void)av_buf_printf(out, ",\"%s\":%s", name, value ? "true" : "false");
}

static void write_json(struct av_buf *out, const char *name, const json_t *value)
{
	(void)av_buf_printf(out, ",\"%s\":", name);
	(void)av_json_dump(out, value);
}

void native_write_time(struct av_buf *out, const char *name, int64_t real_ms)
{
	char text[32];

	if (real_ms == 0)
		return;
	av_rfc3339_ms(real_ms, text);
	(void)av_buf_printf(out, ",\"%s\":\"%s\"", name, text);
}

/* Seconds, as an integer where they are whole, as older clients demand. */
static void write_seconds(struct av_buf *out, const char *name, int64_t ms)
{
	if (ms % 1000 == 0)
		write_int(out, name, ms / 1000);
	else
		(void)av_buf_printf(
		    out, ",\"%s\":%" PRId64 ".%03" PRId64, name, ms / 1000, ms % 1000);
}

const char *native_status(enum sandbox_state s)
{
	/* The vocabulary that existing clients check has no "stopping": to them it has stopped. */
	return sandbox_state_text(s == SANDBOX_STOPPING ? SANDBOX_STOPPED : s);
}

int native_write_sandbox(struct av_buf *out, const struct sandbox_info *sb)
{
	(void)av_buf_append_c(out, "{\"id\":");
	(void)av_json_write_str(out, av_str_c(sb->id));
	write_str(out, "status", native_status(sb->state));
	write_str(out, "template", sb->template_name);
	if (sb->template_note)
		write_str(out, "template_note", sb->template_note);
	write_str(out, "isolation", sb->isolation);
	write_int(out, "vcpus", (sb->cpu_milli + 999) / 1000);
	(void)av_buf_printf(
	    out, ",\"cpus\":%" PRId64 ".%03" PRId64, sb->cpu_milli / 1000, sb->cpu_milli % 1000);
	write_int(out, "memory_mb", sb->memory_bytes / AV_MIB);
	write_int(out, "disk_mb", sb->disk_bytes / AV_MIB);
	write_int(out, "pids_max", sb->pids_max);
	write_bool(out, "sudo", sb->sudo);
	write_seconds(out, "timeout_sec", sb->idle_timeout_ms);
	write_seconds(out, "max_lifetime_sec", sb->max_lifetime_ms);
	write_str(out, "on_timeout", sb->idle_delete ? "delete" : "pause");
	write_bool(out, "auto_resume", sb->auto_resume);
	write_bool(out, "internet", sb->internet);
	native_write_time(out, "created_at", sb->created_ms);
	native_write_time(out, "started_at", sb->started_ms);
	native_write_time(out, "last_active_at", sb->last_active_ms);
	native_write_time(out, "paused_at", sb->paused_ms);
	native_write_time(out, "stopped_at", sb->stopped_ms);
	native_write_time(out, "last_updated", sb->updated_ms);
	if (sb->reason != SANDBOX_REASON_NONE) {
		write_str(out, "reason", sandbox_reason_text(sb->reason));
		write_str(out, "reason_text",
		    sb->message && sb->message[0] ? sb->message : sandbox_reason_why(sb->reason));
	}
	if (sb->oom_kills)
		(void)av_buf_printf(out, ",\"oom_kills\":%" PRIu64, sb->oom_kills);
	write_json(out, "metadata", sb->metadata);
	write_json(out, "tags", sb->tags);
	write_json(out, "public_ports", sb->ports);
	native_write_main(out, &sb->main);
	return av_buf_append_char(out, '}');
}

static int parse_kind(const char *text, struct snapshot_params *ret, struct av_err *err)
{
	if (text && strcmp(text, "base") != 0 && strcmp(text, "snapshot") != 0)
		return av_err_set(
		    err, AV_ERR_INVALID, "'type' must be \"snapshot\" (the default) or \"base\"");
	ret->is_base = text && strcmp(text, "base") == 0;
	return 0;
}

int native_parse_snapshot(
    const json_t *body, struct snapshot_params *ret, const char **ret_id, struct av_err *err)
{
	struct snapshot_params p = {0};
	const char *id = NULL, *kind = NULL;

	if (av_json_get_str(body, "sandbox_id", &id, err) < 0 ||
	    av_json_get_str(body, "name", &p.name, err) < 0 ||
	    av_json_get_bool(body, "stop", &p.stop, err) < 0 ||
	    av_json_get_bool(body, "keep_running", &p.keep_running, err) < 0 ||
	    av_json_get_str(body, "isolation", &p.isolation, err) < 0 ||
	    av_json_get_str(body, "type", &kind, err) < 0 || parse_kind(kind, &p, err) < 0 ||
	    av_json_get_bool(body, "platform", &p.platform, err) < 0 ||
	    parse_cpus(body, &p.cpu_milli, err) < 0 ||
	    parse_mib(body, "memory_mb", &p.memory_bytes, err) < 0 ||
	    parse_mib(body, "disk_mb", &p.disk_bytes, err) < 0 ||
	    av_json_get_str(body, "user", &p.default_user, err) < 0 ||
	    av_json_get_str(body, "workdir", &p.workdir, err) < 0 ||
	    av_json_get_str(body, "start_command", &p.start_command, err) < 0 ||
	    av_json_get_bool(body, "kernel_warm", &p.kernel_warm, err) < 0 ||
	    av_json_get_str_map(body, "envs", SANDBOX_ENVS_MAX, &p.envs, err) < 0)
		return err ? -av_err_errno(err->kind) : -EINVAL;
	if (!id || !av_id_valid(av_str_c(id), AV_ID_SANDBOX))
		return av_err_set(err, AV_ERR_INVALID,
		    "'sandbox_id' must be the id of a sandbox, such as POST /v1/sandboxes answers");
	*ret = p;
	*ret_id = id;
	return 0;
}

int native_write_template(struct av_buf *out, const struct template_info *t)
{
	(void)av_buf_append_c(out, "{\"name\":");
	(void)av_json_write_str(out, av_str_c(t->name));
	write_str(out, "type", t->kind);
	write_str(out, "id", t->id);
	write_bool(out, "platform", t->platform);
	write_str(out, "isolation", t->isolation);
	write_bool(out, "memory", t->saved);
	write_int(out, "size_bytes", t->size_bytes);
	if (t->cpu_milli) {
		write_int(out, "vcpus", (t->cpu_milli + 999) / 1000);
		(void)av_buf_printf(out, ",\"cpus\":%" PRId64 ".%03" PRId64, t->cpu_milli / 1000,
		    t->cpu_milli % 1000);
	}
	if (t->memory_bytes)
		write_int(out, "memory_mb", t->memory_bytes / AV_MIB);
	if (t->disk_bytes)
		write_int(out, "disk_mb", t->disk_bytes / AV_MIB);
	if (t->parent[0])
		write_str(out, "parent", t->parent);
	write_int(out, "layers", t->depth);
	if (t->default_user[0])
		write_str(out, "user", t->default_user);
	if (t->workdir[0])
		write_str(out, "workdir", t->workdir);
	if (t->start_command[0])
		write_str(out, "start_command", t->start_command);
	write_bool(out, "kernel_warm", t->kernel_warm);
	(void)av_buf_printf(out, ",\"envs\":%s,\"in_use\":%zu", t->envs_json, t->in_use);
	native_write_time(out, "created_at", t->created_ms);
	return av_buf_append_char(out, '}');
}

int native_write_processes(struct av_buf *out, const struct node_process *v, size_t n)
{
	(void)av_buf_append_c(out, "{\"processes\":[");
	for (size_t i = 0; i < n; i++) {
		(void)av_buf_printf(out, "%s{\"pid\":%" PRIu32, i ? "," : "", v[i].pid);
		if (v[i].tag && v[i].tag[0])
			write_str(out, "tag", v[i].tag);
		write_str(out, "cmd", v[i].cmd);
		if (v[i].args) {
			(void)av_buf_append_c(out, ",\"args\":");
			(void)av_json_dump(out, v[i].args);
		}
		(void)av_buf_append_char(out, '}');
	}
	return av_buf_append_c(out, "]}");
}
