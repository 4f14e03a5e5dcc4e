/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.c - aviary vm: what virtual machines need here, and how they are
 *
 * setup ends with a machine that ran a program: what it says works does.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/avtime.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/making.h"
#include "cli/options.h"
#include "cli/remote.h"
#include "cli/template.h"

#include "base/banned.h"

/* ---- how it is ---- */

static const json_t *find(const json_t *reply, const char *name)
{
	const json_t *o;
	size_t i;

	json_array_foreach (json_object_get(reply, "isolations"), i, o)
		if (strcmp(cli_text(o, "name"), name) == 0)
			return o;
	return NULL;
}

/* *ret_vm is borrowed from *ret. */
static int ask(struct cli *cli, json_t **ret, const json_t **ret_vm, struct av_err *err)
{
	int r = cli_call(cli, "GET", NULL, ret, err, "/v1/isolations");

	if (r < 0 && err->kind == AV_ERR_NOT_FOUND)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "this daemon is of a version without virtual machines");
	if (r < 0)
		return r;
	*ret_vm = find(*ret, "vm");
	return *ret_vm ? 0
	               : av_err_set(err, AV_ERR_UNSUPPORTED,
	                     "this daemon has no isolation vm: it was built without");
}

static void print_line(const char *title, const char *text)
{
	printf("%-10s", title);
	cli_print_safe(stdout, text);
	putchar('\n');
}

static void print_missing(const json_t *vm)
{
	const json_t *missing = json_object_get(vm, "missing"), *name;
	size_t i;

	if (json_array_size(missing) == 0) {
		print_line("templates", "built");
		return;
	}
	printf("templates ");
	json_array_foreach (missing, i, name) {
		printf("%s", i ? ", " : "");
		cli_print_safe(stdout, json_string_value(name) ? json_string_value(name) : "?");
	}
	printf(" missing: 'aviary vm setup' builds what is\n");
}

static void print_making(const json_t *reply)
{
	const json_t *m;
	size_t i;

	json_array_foreach (json_object_get(reply, "making"), i, m) {
		const char *name = json_string_value(json_object_get(m, "template"));

		printf("%-10s", i ? "" : "making");
		cli_print_safe(stdout, name ? name : "a template of another team");
		printf(": ");
		cli_print_safe(stdout, cli_text(m, "stage"));
		printf(", %" JSON_INTEGER_FORMAT " %%, for %" JSON_INTEGER_FORMAT " s\n",
		    json_integer_value(json_object_get(m, "percent")),
		    json_integer_value(json_object_get(m, "seconds")));
	}
}

static int status(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	const json_t *vm = NULL;
	struct av_err err = {0};
	bool available;

	(void)args;
	if (ask(cli, &reply, &vm, &err) < 0)
		return cli_fail(cli, &err, NULL);
	available = json_is_true(json_object_get(vm, "available"));
	if (cli->json) {
		cli_print_json(cli, reply);
		return available ? 0 : EXIT_PLATFORM;
	}
	print_line("machines", available ? "can be made here" : "cannot be made here");
	if (json_object_get(vm, "about"))
		print_line("speed", cli_text(vm, "about"));
	else if (available)
		print_line("speed", "known after the first one");
	if (json_object_get(vm, "reason"))
		print_line("reason", cli_text(vm, "reason"));
	if (json_is_true(json_object_get(vm, "is_default")))
		print_line("default", "yes: a create that asks for nothing makes one");
	print_missing(vm);
	print_making(reply);
	return available ? 0 : EXIT_PLATFORM;
}

/* ---- what is needed ---- */

static int build_missing(struct cli *cli, const json_t *vm)
{
	const json_t *missing = json_object_get(vm, "missing"), *name;
	size_t i;

	json_array_foreach (missing, i, name) {
		int r = template_build_named(cli, json_string_value(name));

		if (r)
			return r;
	}
	return 0;
}

/* A machine that says its kernel, and is deleted. */
static int try_one(struct cli *cli, char **ret_kernel, struct av_err *err)
{
	static const char *const uname[] = {"/bin/uname", "-sr", NULL};
	AV_CLEANUP(av_json_decrefp) json_t *body = NULL;
	struct av_err other = {0};
	char id[AV_ID_SIZE];
	int code = 0, r;

	body = json_pack("{s:s, s:i, s:s, s:{s:s}}", "isolation", "vm", "timeout_sec", 300,
	    "on_timeout", "delete", "metadata", "purpose", "vm setup");
	if (!body)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	cli->has_own_progress = false;
	r = options_create_sandbox(cli, body, id, NULL, err);
	if (r < 0)
		return r;
	r = remote_run(cli, id, uname, &code, ret_kernel, NULL, err);
	if (r == 0 && code != 0)
		r = av_err_set(err, AV_ERR_AGENT, "uname in the machine ended with %d", code);
	cli_hold_signals();
	if (cli_call(cli, "DELETE", NULL, NULL, &other, "/v1/sandboxes/%s", id) < 0)
		cli_warn("the sandbox %s is left behind: %s", id, other.message);
	cli_unhold_signals();
	return r;
}

static int setup(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *after = NULL;
	AV_CLEANUP(av_freep) char *kernel = NULL;
	const json_t *vm = NULL;
	struct av_err err = {0};
	int r;

	(void)args;
	cli_catch_signals();
	if (ask(cli, &reply, &vm, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (!json_is_true(json_object_get(vm, "available"))) {
		(void)av_err_set(&err, AV_ERR_UNSUPPORTED,
		    "virtual machines cannot be made here: %.300s", cli_text(vm, "reason"));
		return cli_fail(cli, &err, NULL);
	}
	r = build_missing(cli, vm);
	if (r)
		return r;
	if (try_one(cli, &kernel, &err) < 0 || ask(cli, &after, &vm, &err) < 0)
		return cli_fail(cli, &err, NULL);
	if (cli->json) {
		cli_print_json(cli, after);
		return 0;
	}
	if (cli->quiet)
		return 0;
	printf("a virtual machine runs: ");
	cli_print_safe(stdout, kernel ? kernel : "\n");
	if (json_object_get(vm, "about"))
		print_line("speed", cli_text(vm, "about"));
	if (json_object_get(vm, "reason"))
		print_line("reason", cli_text(vm, "reason"));
	if (cli->out_is_tty)
		fprintf(stderr, "try: aviary run --isolation vm -- uname -a\n");
	return 0;
}

static const struct verb verbs[] = {
    {"status", "", "whether machines can be made, how fast they are, what is missing", 0, 0, NULL,
        COMPLETE_NONE, status},
    {"setup", "", "build what is missing, and make the first machine", 0, 0, NULL, COMPLETE_NONE,
        setup},
    {NULL, NULL, NULL, 0, 0, NULL, COMPLETE_NONE, NULL},
};

static const struct option_spec options[] = {
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary vm setup\ta kernel and Debian from this machine's mirror, and a first machine: minutes",
    "aviary run --isolation vm -- uname -a\ta kernel that is not this machine's",
    NULL,
};

const struct command command_vm = {
    .name = "vm",
    .summary = "sandboxes with a kernel of their own: what they need, how they are",
    .description =
        "A sandbox with --isolation vm is a virtual machine. It needs qemu-system-x86, a kernel "
        "(template vm-kernel) and a template other than this machine's own programs; KVM makes it "
        "fast, and without it it is emulated. The first one of a template waits until its image is "
        "made; the others start from the memory of that one.\n"
        "setup needs an administrator's key, as its templates are for every team. status ends "
        "with 125 where no machine can be made.",
    .verbs = verbs,
    .connects = true,
    .examples = examples,
    .see = "create run fork template doctor",
    .options = options,
    .min_operands = 1,
    .max_operands = 1,
};
