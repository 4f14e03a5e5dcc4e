/* SPDX-License-Identifier: Apache-2.0 */
/*
 * url.c - aviary url: the address of a server in a sandbox
 */
#include "base/json.h"
#include "base/num.h"
#include "cli/command.h"

#include "base/banned.h"

static json_t *make_body(const struct args *args, uint64_t port)
{
	const char *path = args_text(args, "path");
	json_t *body = json_pack("{s:I}", "port", (json_int_t)port);
	uint64_t expires_ms = args_duration_ms(args, "expires", 0);
	int r = body ? 0 : -1;

	if (r == 0 && expires_ms)
		r = json_object_set_new(
		    body, "expires_sec", json_integer((json_int_t)((expires_ms + 999) / 1000)));
	if (r == 0 && path)
		r = json_object_set_new(body, "path", json_string(path));
	if (r == 0)
		return body;
	json_decref(body);
	return NULL;
}

/* Puts the port among those that are open to everybody, or takes it out. */
static int set_public(struct cli *cli, const char *id, uint64_t port, bool open, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *sandbox = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *ports = json_array();
	AV_CLEANUP(av_json_decrefp) json_t *body = json_pack("{s:O}", "public_ports", ports);
	const json_t *v;
	size_t i;
	int r = cli_call(cli, "GET", NULL, &sandbox, err, "/v1/sandboxes/%s", id);

	if (r < 0)
		return r;
	json_array_foreach (json_object_get(sandbox, "public_ports"), i, v)
		if ((uint64_t)json_integer_value(v) != port)
			(void)json_array_append_new(ports, json_integer(json_integer_value(v)));
	if (open)
		(void)json_array_append_new(ports, json_integer((json_int_t)port));
	if (!body)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	return cli_call(cli, "PATCH", body, NULL, err, "/v1/sandboxes/%s", id);
}

static int run(struct cli *cli, const struct args *args)
{
	bool open = args_flag(args, "public"), close = args_flag(args, "private");
	AV_CLEANUP(av_json_decrefp) json_t *body = NULL;
	AV_CLEANUP(av_json_decrefp) json_t *reply = NULL;
	struct av_err err = {0};
	char id[AV_ID_SIZE];
	uint64_t port;

	if (av_parse_u64(av_str_c(args->operands[1]), 1, 65535, &port) < 0)
		return cli_usage_error(
		    cli, "'%s' is not a port: a number from 1 to 65535", args->operands[1]);
	if (open && close)
		return cli_usage_error(cli, "--public and --private exclude each other");
	int status = cli_connect(cli);
	if (status)
		return status;
	body = make_body(args, port);
	if (!body) {
		(void)av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
		return cli_fail(cli, &err, NULL);
	}
	if (cli_resolve(cli, args->operands[0], id, &err) < 0 ||
	    ((open || close) && set_public(cli, id, port, open, &err) < 0) ||
	    cli_call(cli, "POST", body, &reply, &err, "/v1/sandboxes/%s/url", id) < 0)
		return cli_fail(cli, &err, args->operands[0]);
	cli_print_reply(cli, reply, "url");
	return 0;
}

static const struct option_spec options[] = {
    {"expires", 0, OPTION_DURATION, "TIME",
        "how long the URL works: 30m, 1h (default), at most 168h", COMPLETE_NONE},
    {"public", 0, OPTION_FLAG, NULL, "open the port to everybody, without an end", COMPLETE_NONE},
    {"private", 0, OPTION_FLAG, NULL, "take that back", COMPLETE_NONE},
    {"path", 0, OPTION_TEXT, "PATH", "what to open there (default: /)", COMPLETE_NONE},
    {NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE},
};

static const char *const examples[] = {
    "aviary url web 3000\twho has what it prints may use port 3000 for an hour",
    NULL,
};

const struct command command_url = {
    .name = "url",
    .usage = "SANDBOX PORT",
    .summary = "print the address of a server in a sandbox",
    .description =
        "Prints a URL under which the server that listens on PORT in the sandbox can be reached "
        "by whoever has it, until it expires. Ports are private otherwise: they need an API key. "
        "--public opens a port to everybody, without a token and without an end.",
    .examples = examples,
    .options = options,
    .min_operands = 2,
    .max_operands = 2,
    .operand_completion = COMPLETE_SANDBOXES,
    .run = run,
};
