/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_shapes.c - JSON of the native dialect: what requests may say, what a sandbox looks like
 */
#include "api/native/shapes.h"

#include "lib/tap.h"
#include "base/banned.h"

static struct av_err err;

static int create(const char *text, struct sandbox_params *ret)
{
	static json_t *body; /* what is returned borrows from it */

	json_decref(body);
	body = json_loads(text, 0, NULL);
	av_err_clear(&err);
	return native_parse_create(body, ret, &err);
}

static void refused(const char *text, const char *field)
{
	struct sandbox_params p;

	ok(create(text, &p) < 0 && err.kind == AV_ERR_INVALID, "refused: %s", text);
	ok(strstr(err.message, field) != NULL, "names the field: %s", err.message);
}

static void test_create(void)
{
	struct sandbox_params p;

	is_int(create("{}", &p), 0, "nothing said");
	ok(!p.template_name && p.cpu_milli == 0 && p.memory_bytes == 0 && !p.no_sudo,
	    "all defaults");
	is_int(create("{\"cpus\":0.25,\"memory_mb\":100,\"disk_mb\":2,\"sudo\":false,"
	              "\"timeout_sec\":1.5,\"template\":\"host\"}",
	           &p),
	    0, "much said");
	is_int(p.cpu_milli, 250, "a quarter");
	is_int(p.memory_bytes, 100 * AV_MIB, "memory");
	is_int(p.disk_bytes, 2 * AV_MIB, "disk");
	is_int(p.idle_timeout_ms, 1500, "timeout");
	ok(p.no_sudo, "no sudo");
	is_str(p.template_name, "host", "template");
	is_int(create("{\"vcpus\":3}", &p), 0, "whole processors");
	is_int(p.cpu_milli, 3000, "three");
	is_int(create("{\"on_timeout\":\"delete\",\"auto_resume\":true,\"tags\":[\"a\"],"
	              "\"public_ports\":[80,443],\"internet\":true}",
	           &p),
	    0, "labels and switches");
	ok(p.idle_delete && p.auto_resume && p.internet && json_array_size(p.tags) == 1 &&
	        json_array_size(p.ports) == 2,
	    "are taken");
	refused("{\"on_timeout\":\"sleep\"}", "on_timeout");
	refused("{\"auto_resume\":1}", "auto_resume");
	refused("{\"tags\":\"a\"}", "tags");
	refused("{\"tags\":[1]}", "tags");
	refused("{\"public_ports\":80}", "public_ports");
	refused("{\"internet\":\"yes\"}", "internet");
	refused("{\"vcpus\":-1}", "vcpus");
	refused("{\"vcpus\":1,\"cpus\":1}", "cpus");
	refused("{\"cpus\":0}", "cpus");
	refused("{\"cpus\":true}", "cpus");
	refused("{\"memory_mb\":4611686018427387904}", "memory_mb");
	refused("{\"envs\":{\"A\":1}}", "envs");
	refused("{\"timeout_sec\":-0.5}", "timeout_sec");
}

static int update(const char *text, struct sandbox_update *ret)
{
	static json_t *body;

	json_decref(body);
	body = json_loads(text, 0, NULL);
	av_err_clear(&err);
	return native_parse_update(body, ret, &err);
}

static void test_update(void)
{
	struct sandbox_update u;

	is_int(update("{\"timeout_sec\":1.5,\"metadata\":{\"a\":null},\"auto_resume\":true}", &u),
	    0, "an update");
	ok(u.set == (SANDBOX_SET_TIMEOUT | SANDBOX_SET_METADATA | SANDBOX_SET_AUTO_RESUME) &&
	        u.idle_timeout_ms == 1500 && u.auto_resume,
	    "sets what it names");
	is_int(update("{\"tags\":null}", &u), 0, "null");
	ok(u.set == SANDBOX_SET_TAGS && !u.tags, "is the default");
	ok(update("{\"memory_mb\":1}", &u) < 0 && strstr(err.message, "'memory_mb' cannot"),
	    "what cannot be changed: %s", err.message);
	ok(update("{}", &u) < 0 && update("{\"tags\":{}}", &u) < 0 &&
	        update("{\"metadata\":[]}", &u) < 0,
	    "nothing, and wrong types");
}

static void test_exec(void)
{
	AV_CLEANUP(av_json_decrefp)
	json_t *body = json_loads("{\"cmd\":\"x\",\"timeout_sec\":0}", 0, NULL);
	AV_CLEANUP(av_json_decrefp) json_t *empty = json_loads("{\"cmd\":\"\"}", 0, NULL);
	struct node_exec_spec s;

	is_int(native_parse_exec(body, 30000, &s, &err), 0, "a command");
	is_int(s.timeout_ms, 0, "zero is none");
	ok(native_parse_exec(empty, 0, &s, &err) < 0, "an empty command");
	is_int(native_parse_selector("12").pid, 12, "digits are a pid");
	is_str(native_parse_selector("4294967296").tag, "4294967296", "more than 32 bits is a tag");
	is_str(native_parse_selector("-1").tag, "-1", "a sign is a tag");
}

static void test_sandbox(void)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(65536);
	AV_CLEANUP(av_json_decrefp) json_t *meta = json_loads("{\"a\":\"\\\"\"}", 0, NULL);
	AV_CLEANUP(av_json_decrefp) json_t *tags = json_loads("[\"x\"]", 0, NULL);
	AV_CLEANUP(av_json_decrefp) json_t *ports = json_loads("[80]", 0, NULL);
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	const struct sandbox_info sb = {.id = "sb1",
	    .template_name = "host",
	    .isolation = "jail",
	    .state = SANDBOX_STOPPING,
	    .reason = SANDBOX_REASON_OOM,
	    .message = "",
	    .cpu_milli = 1500,
	    .memory_bytes = 512 * AV_MIB,
	    .idle_timeout_ms = 2500,
	    .created_ms = 1700000000000,
	    .updated_ms = 1700000000000,
	    .idle_delete = true,
	    .metadata = meta,
	    .tags = tags,
	    .ports = ports};

	is_int(native_write_sandbox(&out, &sb), 0, "written");
	j = json_loadb(av_buf_str(&out).p, out.n, 0, NULL);
	ok(j != NULL, "is JSON");
	is_str(json_string_value(json_object_get(j, "status")), "stopped",
	    "stopping is stopped outside");
	is_str(json_string_value(json_object_get(j, "reason")), "oom", "reason");
	is_int(json_integer_value(json_object_get(j, "vcpus")), 2, "one and a half is two whole");
	ok(json_real_value(json_object_get(j, "cpus")) == 1.5, "and exactly that");
	ok(json_real_value(json_object_get(j, "timeout_sec")) == 2.5, "a fraction of a second");
	ok(json_is_integer(json_object_get(j, "max_lifetime_sec")), "whole seconds are integers");
	is_str(json_string_value(json_object_get(j, "on_timeout")), "delete", "on_timeout");
	ok(json_is_false(json_object_get(j, "auto_resume")) &&
	        json_is_false(json_object_get(j, "internet")),
	    "auto_resume and internet");
	ok(json_equal(json_object_get(j, "tags"), tags) &&
	        json_equal(json_object_get(j, "public_ports"), ports),
	    "tags and public_ports");
	ok(!json_object_get(j, "paused_at"), "not paused");
	ok(!json_object_get(j, "started_at"), "what has not happened is not there");
	is_str(json_string_value(json_object_get(j, "created_at")), "2023-11-14T22:13:20.000Z",
	    "time");
}

int main(void)
{
	test_create();
	test_update();
	test_exec();
	test_sandbox();
	return tap_done();
}
