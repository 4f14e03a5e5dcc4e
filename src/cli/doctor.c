/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor.c - aviary doctor: what this machine can do, why not the rest, and what to type
 *
 * The machine is probed by this process, so the answer is about daemons that this user would start;
 * a daemon that runs adds what it found itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/doctor_vm.h"
#include "cli/places.h"
#include "spawn/probe.h"

#include "base/banned.h"

#define TEXT_COLUMN 27
#define TEXT_WIDTH  68

/* Programs of ours that must be beside this one. */
static const struct {
	const char *name, *build_folder;
} programs[] = {
    {"aviaryd", "daemon"},
    {"aviary-spawn", "spawn"},
    {"aviary-agent", "agent"},
};

static bool jail_works(const struct probe *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->fact[i].state == PROBE_FATAL)
			return false;
	return true;
}

/* Text broken at spaces, continued below its beginning. */
static void print_block(const char *text)
{
	size_t column = 0;
	while (*text) {
		size_t n = strcspn(text, " ");
		if (column > 0 && column + 1 + n > TEXT_WIDTH) {
			printf("\n%*s", TEXT_COLUMN + 2, "");
			column = 0;
		} else if (column > 0) {
			putchar(' ');
			column++;
		}
		printf("%.*s", (int)n, text);
		column += n;
		text += n;
		text += strspn(text, " ");
	}
	putchar('\n');
}

static const char *color_of(const struct cli *cli, enum probe_state state)
{
	switch (state) {
	case PROBE_OK:
		return cli_good(cli);
	case PROBE_FATAL:
		return cli_bad(cli);
	default:
		return cli_bold(cli);
	}
}

static void print_fact(const struct cli *cli, const struct probe_fact *f)
{
	const char *state = probe_state_name(f->state);
	printf("%s%-7s%s %-*s ", color_of(cli, f->state), state, cli_plain(cli), TEXT_COLUMN - 7,
	    f->what);
	print_block(f->found);
	if (f->reason[0]) {
		printf("%*s", TEXT_COLUMN + 2, "");
		print_block(f->reason);
	}
	if (f->cure[0]) {
		char cure[300];
		snprintf(cure, sizeof(cure), "→ %s", f->cure);
		printf("%*s", TEXT_COLUMN + 2, "");
		print_block(cure);
	}
}

static void print_vm(const struct cli *cli, const struct doctor_vm *vm)
{
	const char *color = !vm->available                       ? cli_bad(cli)
	                    : strcmp(vm->speed, "hardware") == 0 ? cli_good(cli)
	                                                         : cli_bold(cli);

	printf("%svm%s    %s", cli_bold(cli), cli_plain(cli), color);
	cli_print_safe(stdout, vm->found);
	printf("%s\n", cli_plain(cli));
	if (vm->reason[0]) {
		printf("      ");
		cli_print_safe(stdout, vm->reason);
		putchar('\n');
	}
	if (vm->cure[0]) {
		printf("      → ");
		cli_print_safe(stdout, vm->cure);
		putchar('\n');
	}
}

static void print_summary(
    const struct cli *cli, const struct probe *p, const struct doctor_vm *vm, bool complete)
{
	bool works = jail_works(p) && complete;
	printf("\n%sjail%s  %s%s%s: namespaces on this machine's kernel%s\n", cli_bold(cli),
	    cli_plain(cli), works ? cli_good(cli) : cli_bad(cli),
	    works ? "available" : "not available", cli_plain(cli),
	    !works    ? "; the lines marked 'fatal' say why and what to do"
	    : p->root ? ", with everything that root can set up"
	              : ", rootless: one user id inside, and the weaker limits named above");
	print_vm(cli, vm);
}

/* New references; NULL when there is no daemon. */
static json_t *ask_daemon(struct cli *cli)
{
	AV_CLEANUP(av_json_decrefp) json_t *health = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *ready = NULL;
	struct av_err err = {0};
	struct cli_request request = {
	    .method = "GET", .path = "/health", .timeout_ms = 3000, .is_anonymous = true};
	if (cli_request(cli, &request, &health, NULL) < 0)
		return NULL;
	request.path = "/ready";
	bool is_ready = cli_request(cli, &request, &ready, &err) == 0;
	const char *version = json_string_value(json_object_get(health, "version"));
	return json_pack("{s:s, s:s?, s:b, s:s?, s:s?}", "url", cli->url, "version", version,
	    "ready", is_ready, "isolation",
	    is_ready ? json_string_value(json_object_get(ready, "isolation")) : NULL, "detail",
	    is_ready ? json_string_value(json_object_get(ready, "detail")) : err.message);
}

static void print_daemon(const struct cli *cli, const json_t *daemon)
{
	printf("\n%sdaemon%s  ", cli_bold(cli), cli_plain(cli));
	if (!daemon) {
		char path[4096] = "aviaryd";
		if (cli_find_program("aviaryd", "daemon", path, sizeof(path)) < 0)
			snprintf(path, sizeof(path), "aviaryd");
		printf("none answers at %s; start one with '%s &'\n", cli->url, path);
		return;
	}
	const char *version = json_string_value(json_object_get(daemon, "version"));
	const char *detail = json_string_value(json_object_get(daemon, "detail"));
	bool is_ready = json_is_true(json_object_get(daemon, "ready"));
	printf("%s at %s, %s%s%s\n", version ? version : "?", cli->url,
	    is_ready ? cli_good(cli) : cli_bad(cli), is_ready ? "ready" : "not ready",
	    cli_plain(cli));
	if (!detail || !detail[0])
		return;
	/* One sentence a line. */
	struct av_str rest = av_str_c(detail), line;
	bool more;
	do {
		more = av_str_cut(&rest, '\n', &line);
		if (line.n > 0)
			printf("        %.*s\n", AV_STR_ARG(line));
	} while (more);
}

/* New reference; NULL without a daemon, a key or a daemon that knows isolations. */
static json_t *ask_isolations(struct cli *cli)
{
	json_t *reply = NULL;
	const struct cli_request request = {
	    .method = "GET", .path = "/v1/isolations", .timeout_ms = 3000};

	return cli_request(cli, &request, &reply, NULL) < 0 ? NULL : reply;
}

static bool has_vm(void)
{
	char path[4096];
	return cli_find_program("aviary-vm", "vm", path, sizeof(path)) == 0;
}

static bool has_programs(void)
{
	char path[4096];
	for (size_t i = 0; i < AV_ARRAY_LEN(programs); i++)
		if (cli_find_program(
		        programs[i].name, programs[i].build_folder, path, sizeof(path)) < 0)
			return false;
	return true;
}

static bool print_programs(const struct cli *cli)
{
	bool complete = true;
	char path[4096];
	for (size_t i = 0; i < AV_ARRAY_LEN(programs); i++) {
		if (cli_find_program(
		        programs[i].name, programs[i].build_folder, path, sizeof(path)) == 0)
			continue;
		printf(
		    "%sfatal%s   %-*s not found beside this program nor in libexec\n%*s→ reinstall "
		    "Aviary, or build it with 'make'\n",
		    cli_bad(cli), cli_plain(cli), TEXT_COLUMN - 7, programs[i].name,
		    TEXT_COLUMN + 2, "");
		complete = false;
	}
	return complete;
}

static int print_json(
    const struct cli *cli, const struct probe *p, const struct doctor_vm *vm, const json_t *daemon)
{
	json_t *facts = json_array(), *found = json_object();
	bool complete = true;
	char path[4096];
	for (size_t i = 0; i < p->n; i++) {
		const struct probe_fact *f = &p->fact[i];
		json_array_append_new(facts, json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", f->name,
		                                 "state", probe_state_name(f->state), "found",
		                                 f->found, "reason", f->reason, "cure", f->cure));
	}
	for (size_t i = 0; i < AV_ARRAY_LEN(programs); i++) {
		bool is_there = cli_find_program(programs[i].name, programs[i].build_folder, path,
		                    sizeof(path)) == 0;
		json_object_set_new(
		    found, programs[i].name, is_there ? json_string(path) : json_null());
		complete = complete && is_there;
	}
	AV_CLEANUP(av_json_decrefp)
	json_t *j = json_pack("{s:{s:b, s:b}, s:{s:s, s:s, s:s, s:s}, s:b, s:o, s:o}", "isolation",
	    "jail", jail_works(p), "vm", vm->available, "vm", "speed", vm->speed, "found",
	    vm->found, "reason", vm->reason, "cure", vm->cure, "root", p->root, "facts", facts,
	    "programs", found);
	json_object_set_new(j, "daemon", daemon ? json_deep_copy(daemon) : json_null());
	cli_print_json(cli, j);
	return jail_works(p) && complete ? 0 : 1;
}

static int run(struct cli *cli, const struct args *args)
{
	static struct probe probe;
	char state[4096];
	const char *dir = args_text(args, "state");
	if (!dir && places_state(state, sizeof(state)) == 0)
		dir = state;
	int status = cli_connect(cli);
	if (status)
		return status;
	probe_run(&probe, dir);
	AV_CLEANUP(av_json_decrefp) json_t *daemon = ask_daemon(cli);
	AV_CLEANUP(av_json_decrefp) json_t *isolations = daemon ? ask_isolations(cli) : NULL;
	struct doctor_vm vm;
	doctor_vm_judge(&vm, &probe, has_vm(), isolations);
	if (cli->json)
		return print_json(cli, &probe, &vm, daemon);
	if (cli->quiet)
		return jail_works(&probe) && has_programs() ? 0 : 1;
	for (size_t i = 0; i < probe.n; i++)
		print_fact(cli, &probe.fact[i]);
	bool complete = print_programs(cli);
	print_summary(cli, &probe, &vm, complete);
	print_daemon(cli, daemon);
	return jail_works(&probe) && complete ? 0 : 1;
}

static const struct option_spec options[] = {
    {"state", 0, OPTION_TEXT, "DIR", "state directory to look at (default: as aviaryd)",
        COMPLETE_FILES},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const exits[] = {"1\tno sandbox can run here", NULL};

const struct command command_doctor = {
    .name = "doctor",
    .usage = "",
    .summary = "say what this machine can do, and what to type where it cannot",
    .description = "Checks every prerequisite: 'ok' works, 'weak' works with less, 'missing' makes "
                   "only what needs it unavailable, 'fatal' means that no sandbox can run. It "
                   "changes nothing.",
    .exits = exits,
    .see = "config cleanup",
    .options = options,
    .run = run,
};
