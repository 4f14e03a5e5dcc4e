/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_spec.c - specs of sandboxes: what two make together, member by member, and what is refused
 */
#include <math.h>

#include "client/spec.h"
#include "lib/tap.h"

#define LIST(...)                                                                                  \
	{                                                                                          \
		(const char *const[]){__VA_ARGS__},                                                \
		    sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)                    \
	}
#define PAIRS(...)                                                                                 \
	{                                                                                          \
		(const aviary_pair[]){__VA_ARGS__},                                                \
		    sizeof((const aviary_pair[]){__VA_ARGS__}) / sizeof(aviary_pair)               \
	}

static const char *const none[1];

static aviary_sandbox_spec *merge(aviary_sandbox_spec b, aviary_sandbox_spec o)
{
	aviary_sandbox_spec *m;

	b.struct_size = o.struct_size = sizeof(b);
	m = aviary_spec_merge(&b, &o);
	if (!m) {
		printf("Bail out! no memory\n");
		exit(2);
	}
	return m;
}

#define ROW(check, base, over, what)                                                               \
	do {                                                                                       \
		aviary_sandbox_spec *m =                                                           \
		    merge((aviary_sandbox_spec){0, base}, (aviary_sandbox_spec){0, over});         \
		ok(check, what);                                                                   \
		aviary_spec_free(m);                                                               \
	} while (0)
#define A(...) __VA_ARGS__

static bool is(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void test_texts(void)
{
	ROW(is(m->template_name, "a"), A(.template_name = "a"), A(.user = "u"),
	    "template_name: the base's where over does not say");
	ROW(is(m->template_name, "b"), A(.template_name = "a"), A(.template_name = "b"),
	    "template_name: over's");
	ROW(is(m->isolation, "vm"), A(.isolation = "jail"), A(.isolation = "vm"),
	    "isolation: over's");
	ROW(is(m->isolation, "vm"), A(.isolation = "vm"), A(.user = "u"), "isolation: the base's");
	ROW(is(m->template_name, ""), A(.template_name = "a"), A(.template_name = ""),
	    "template_name: the server's, where over says so");
	ROW(is(m->workdir, "/b"), A(.workdir = "/a"), A(.workdir = "/b"), "workdir: over's");
	ROW(is(m->user, "b"), A(.user = "a"), A(.user = "b"), "user: over's");
	ROW(is(m->on_timeout, "pause"), A(.on_timeout = "pause"), A(.cpus = 1),
	    "on_timeout: the base's");
	ROW(is(m->on_exit, "keep"), A(.on_exit = "stop"), A(.on_exit = "keep"), "on_exit: over's");
	ROW(!m->idempotency_key, A(.idempotency_key = "k"), A(.cpus = 1),
	    "idempotency_key: never the base's");
	ROW(is(m->idempotency_key, "j"), A(.idempotency_key = "k"), A(.idempotency_key = "j"),
	    "idempotency_key: over's");
}

static void test_numbers(void)
{
	ROW(m->cpus == 2, A(.cpus = 1), A(.cpus = 2), "cpus: over's");
	ROW(m->cpus == AVIARY_SERVER_DEFAULT, A(.cpus = 1), A(.cpus = AVIARY_SERVER_DEFAULT),
	    "cpus: the server's");
	ROW(m->cpus == 1 && m->memory_mb == 5, A(.cpus = 1), A(.memory_mb = 5),
	    "resources one by one");
	ROW(m->memory_mb == 2, A(.memory_mb = 1), A(.memory_mb = 2), "memory_mb: over's");
	ROW(m->disk_mb == 1, A(.disk_mb = 1), A(.cpus = 1), "disk_mb: the base's");
	ROW(m->pids_max == 7, A(.pids_max = 1), A(.pids_max = 7), "pids_max: over's");
	ROW(m->idle_timeout_ms == -1, A(.idle_timeout_ms = 9), A(.idle_timeout_ms = -1),
	    "idle_timeout_ms: without end");
	ROW(m->max_lifetime_ms == 9, A(.max_lifetime_ms = 9), A(.cpus = 1),
	    "max_lifetime_ms: the base's");
	ROW(m->auto_resume == -1, A(.auto_resume = 1), A(.auto_resume = -1), "auto_resume: over's");
	ROW(m->internet == 1, A(.internet = 1), A(.cpus = 1), "internet: the base's");
	ROW(m->no_sudo == AVIARY_SERVER_DEFAULT, A(.no_sudo = 1),
	    A(.no_sudo = AVIARY_SERVER_DEFAULT), "no_sudo: the server's");
	ROW(m->start_timeout_ms == 3, A(.start_timeout_ms = 2), A(.start_timeout_ms = 3),
	    "start_timeout_ms: over's");
}

static void test_lists(void)
{
	ROW(m->command.n == 1 && is(m->command.items[0], "true"),
	    A(.command = LIST("tail", "-f", "/dev/null")), A(.command = LIST("true")),
	    "command: over's, whole");
	ROW(m->command.n == 2, A(.command = LIST("a", "b")), A(.cpus = 1), "command: the base's");
	ROW(m->command.items && m->command.n == 0, A(.command = LIST("a")), A(.command = {none, 0}),
	    "command: none, where over says none");
	ROW(m->tags.n == 3 && is(m->tags.items[0], "a") && is(m->tags.items[1], "b") &&
	        is(m->tags.items[2], "c"),
	    A(.tags = LIST("a", "b")), A(.tags = LIST("b", "c")),
	    "tags: both, the base's first, each once");
	ROW(m->tags.n == 1, A(.tags = LIST("a")), A(.tags = {none, 0}),
	    "tags: none takes none away");
	ROW(!m->tags.items, A(.cpus = 1), A(.cpus = 1), "tags: not said by either");
	ROW(m->public_ports.n == 1 && m->public_ports.items[0] == 3,
	    A(.public_ports = {(const uint16_t[]){1, 2}, 2}),
	    A(.public_ports = {(const uint16_t[]){3}, 1}), "public_ports: over's, whole");
	ROW(m->public_ports.items && m->public_ports.n == 0,
	    A(.public_ports = {(const uint16_t[]){1}, 1}),
	    A(.public_ports = {(const uint16_t[]){0}, 0}), "public_ports: none");
}

static void test_pairs(void)
{
	ROW(m->envs.n == 2 && is(m->envs.items[0].value, "9") && is(m->envs.items[1].name, "B"),
	    A(.envs = PAIRS({"A", "1"})), A(.envs = PAIRS({"A", "9"}, {"B", "2"})),
	    "envs: both, over's of one name");
	ROW(m->envs.n == 1 && is(m->envs.items[0].name, "B"),
	    A(.envs = PAIRS({"A", "1"}, {"B", "2"})), A(.envs = PAIRS({"A", NULL})),
	    "envs: a name is taken away");
	ROW(m->metadata.n == 2, A(.metadata = PAIRS({"a", "1"})), A(.metadata = PAIRS({"b", "2"})),
	    "metadata: both");
}

static void test_files(void)
{
	const aviary_mounted_file a[] = {{"/a", "1", 1, 0}, {"/b", "2", 1, 0755}};
	const aviary_mounted_file b[] = {{"/b", "33", 2, 0}, {"/c", "", 0, 0}};

	ROW(m->n_files == 3 && is(m->files[1].path, "/b") && m->files[1].size == 2 &&
	        memcmp(m->files[1].data, "33", 2) == 0 && m->files[1].mode == 0 &&
	        m->files[1].data != b[0].data,
	    A(.files = a, .n_files = 2), A(.files = b, .n_files = 2),
	    "files: both, copied, over's of one path");
	ROW(m->n_files == 2, A(.files = a, .n_files = 2), A(.cpus = 1), "files: the base's");
}

static void test_older_headers(void)
{
	struct {
		aviary_sandbox_spec spec;
	} old = {{.struct_size = offsetof(aviary_sandbox_spec, max_lifetime_ms),
	    .template_name = "t",
	    .max_lifetime_ms = 5}};
	aviary_sandbox_spec *m = aviary_spec_merge(&old.spec, NULL);

	ok(m && is(m->template_name, "t") && m->max_lifetime_ms == 0,
	    "what a shorter struct does not have is not looked at");
	aviary_spec_free(m);
	m = aviary_spec_merge(NULL, NULL);
	ok(m && m->struct_size == sizeof(*m), "nothing and nothing is nothing said");
	aviary_spec_free(m);
	aviary_spec_free(NULL);
}

static void refused(aviary_sandbox_spec s, const char *member)
{
	char text[AVC_SPEC_TEXT] = "";
	json_t *body = NULL;

	s.struct_size = s.struct_size ? s.struct_size : sizeof(s);
	ok(avc_spec_body(&s, &body, text) == AVIARY_E_INVALID && !body &&
	        strstr(text, member) == text,
	    "refused: %s", text);
	json_decref(body);
}

static void test_refusals(void)
{
	static const aviary_mounted_file relative[] = {{"etc/x", "", 0, 0}};
	static const aviary_mounted_file nothing[] = {{"/x", NULL, 5, 0}};
	static const aviary_mounted_file strange[] = {{"/x", "", 0, 010000}};
	static const char *many[65];

	for (size_t i = 0; i < 65; i++)
		many[i] = "x";
	refused((aviary_sandbox_spec){.struct_size = 1}, "struct_size");
	refused((aviary_sandbox_spec){.template_name = "\xff"}, "template_name");
	refused((aviary_sandbox_spec){.isolation = "VM"}, "isolation");
	refused((aviary_sandbox_spec){.cpus = -1}, "cpus");
	refused((aviary_sandbox_spec){.cpus = (double)NAN}, "cpus");
	refused((aviary_sandbox_spec){.cpus = (double)INFINITY}, "cpus");
	refused((aviary_sandbox_spec){.memory_mb = -1}, "memory_mb");
	refused((aviary_sandbox_spec){.disk_mb = -5}, "disk_mb");
	refused((aviary_sandbox_spec){.pids_max = INT64_MIN}, "pids_max");
	refused((aviary_sandbox_spec){.idle_timeout_ms = -3}, "idle_timeout_ms");
	refused((aviary_sandbox_spec){.max_lifetime_ms = -9}, "max_lifetime_ms");
	refused((aviary_sandbox_spec){.start_timeout_ms = -9}, "start_timeout_ms");
	refused((aviary_sandbox_spec){.on_timeout = "explode"}, "on_timeout");
	refused((aviary_sandbox_spec){.on_exit = "explode"}, "on_exit");
	refused((aviary_sandbox_spec){.internet = 2}, "internet");
	refused((aviary_sandbox_spec){.no_sudo = -3}, "no_sudo");
	refused((aviary_sandbox_spec){.auto_resume = 7}, "auto_resume");
	refused((aviary_sandbox_spec){.command = LIST("")}, "command.items[0]");
	refused((aviary_sandbox_spec){.command = LIST("a", NULL)}, "command.items[1]");
	refused((aviary_sandbox_spec){.workdir = "tmp"}, "workdir");
	refused((aviary_sandbox_spec){.envs = PAIRS({"A=B", "1"})}, "envs.items[0]");
	refused((aviary_sandbox_spec){.envs = PAIRS({"A", "1"}, {"", "1"})}, "envs.items[1]");
	refused((aviary_sandbox_spec){.metadata = PAIRS({NULL, "1"})}, "metadata.items[0]");
	refused((aviary_sandbox_spec){.tags = LIST("")}, "tags.items[0]");
	refused((aviary_sandbox_spec){.tags = {many, 65}}, "tags has 65");
	refused((aviary_sandbox_spec){.public_ports = {(const uint16_t[]){80, 0}, 2}},
	    "public_ports.items[1]");
	refused((aviary_sandbox_spec){.files = relative, .n_files = 1}, "files[0].path");
	refused((aviary_sandbox_spec){.files = nothing, .n_files = 1}, "files[0].data");
	refused((aviary_sandbox_spec){.files = strange, .n_files = 1}, "files[0].mode");
	refused((aviary_sandbox_spec){.idempotency_key = "a b"}, "idempotency_key");
}

static void test_update(void)
{
	aviary_sandbox_spec s = {.struct_size = sizeof(s),
	    .tags = LIST("x"),
	    .metadata = PAIRS({"gone", NULL}),
	    .max_lifetime_ms = -1};
	char text[AVC_SPEC_TEXT], *json;
	json_t *body = NULL;

	is_int(avc_spec_changes(&s, &body, text), 0, "an update");
	json = json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(5));
	ok(json && strstr(json, "\"metadata\":{\"gone\":null}") &&
	        strstr(json, "\"max_lifetime_sec\":0") && strstr(json, "\"tags\":[\"x\"]") &&
	        !strstr(json, "timeout_sec\":1"),
	    "says what is to change: %s", json);
	free(json);
	json_decref(body);
	s.cpus = 2;
	ok(avc_spec_changes(&s, &body, text) == AVIARY_E_INVALID && strstr(text, "cpus"),
	    "and nothing that cannot: %s", text);
}

int main(void)
{
	test_texts();
	test_numbers();
	test_lists();
	test_pairs();
	test_files();
	test_older_headers();
	test_refusals();
	test_update();
	return tap_done();
}
