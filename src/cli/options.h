/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.h - options that several commands take, and the requests made from them
 */
#pragma once

#include <jansson.h>

#include "cli/command.h"

/* What a new sandbox is like: run, create. */
#define OPTIONS_SANDBOX                                                                            \
	{"template", 0, OPTION_TEXT, "NAME",                                                       \
	    "root file system (default: this machine's own /usr)", COMPLETE_TEMPLATES},            \
	    {"isolation", 0, OPTION_TEXT, "jail|vm",                                               \
	        "what keeps it apart: this machine's kernel, or one of its own", COMPLETE_NONE},   \
	    {"memory", 'm', OPTION_SIZE, "SIZE", "memory limit, such as 512M or 2G",               \
	        COMPLETE_NONE},                                                                    \
	    {"cpus", 0, OPTION_MILLI, "N", "processors, such as 1 or 0.5", COMPLETE_NONE},         \
	    {"disk", 0, OPTION_SIZE, "SIZE", "disk limit, such as 2G", COMPLETE_NONE},             \
	    {"pids", 0, OPTION_NUMBER, "N", "at most so many processes and threads",               \
	        COMPLETE_NONE},                                                                    \
	    {"name", 0, OPTION_TEXT, "NAME", "a name to use instead of the id", COMPLETE_NONE},    \
	    {"metadata", 0, OPTION_LIST, "KEY=VALUE", "a label; may be repeated", COMPLETE_NONE},  \
	    {"tag", 0, OPTION_LIST, "TEXT", "a tag; may be repeated", COMPLETE_NONE},              \
	    {"internet", 0, OPTION_FLAG, NULL, "give it access to the internet", COMPLETE_NONE},   \
	{                                                                                          \
		"no-sudo", 0, OPTION_FLAG, NULL, "set-uid programs inside gain nothing",           \
		    COMPLETE_NONE                                                                  \
	}

/* How a process inside is run: run, exec. */
#define OPTIONS_EXEC                                                                               \
	{"interactive", 'i', OPTION_FLAG, NULL, "pass standard input to the program",              \
	    COMPLETE_NONE},                                                                        \
	    {"tty", 't', OPTION_FLAG, NULL, "give the program a terminal", COMPLETE_NONE},         \
	    {"env", 'e', OPTION_LIST, "NAME[=VALUE]",                                              \
	        "set a variable, or pass on the one of this shell; may be repeated",               \
	        COMPLETE_NONE},                                                                    \
	    {"workdir", 'w', OPTION_TEXT, "DIR",                                                   \
	        "directory to start in (default: the user's home)", COMPLETE_NONE},                \
	    {"user", 'u', OPTION_TEXT, "NAME", "user inside (default: the template's)",            \
	        COMPLETE_NONE},                                                                    \
	{                                                                                          \
		"timeout", 0, OPTION_DURATION, "TIME",                                             \
		    "kill the program after 30s, 5m, … and exit with 124", COMPLETE_NONE           \
	}

#define OPTIONS_END                                                                                \
	{                                                                                          \
		NULL, 0, OPTION_FLAG, NULL, NULL, COMPLETE_NONE                                    \
	}

/* Body of the request that creates a sandbox (new reference), or NULL with *err set. */
json_t *options_sandbox_body(const struct args *args, struct av_err *err);

/* Object made of all NAME[=VALUE] of --env (new reference; NULL in *ret when there are none). */
int options_envs(const struct args *args, json_t **ret, struct av_err *err);

/* The same for the library: one for each member of envs (which may be NULL), whose strings they
 * borrow. The caller frees the array. NULL: no memory. */
aviary_pair *options_env_pairs(const json_t *envs);

/* Creates a sandbox from the options. ret_sandbox may be NULL. A signal does not cut the answer off
 * (ask cli_caught_signal() afterwards); should this program be killed meanwhile, the daemon deletes
 * what it made, as there is no idempotency key under which anybody could ask for it again. */
int options_create_sandbox(struct cli *cli, json_t *body, char ret_id[static AV_ID_SIZE],
    json_t **ret_sandbox, struct av_err *err);
