/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shapes.h - JSON of the native dialect: what requests say, what answers look like
 *
 * Requests: absent and null mean the default, unknown fields are ignored, anything malformed is
 * INVALID and names the field. Answers are written straight into buffers.
 */
#pragma once

#include "base/json.h"
#include "control/exec.h"
#include "control/sandbox.h"

/* {"template","isolation","vcpus" or
 * "cpus","memory_mb","disk_mb","pids_max","timeout_sec","max_lifetime_sec",
 * "envs","metadata","sudo","tags","public_ports","on_timeout","auto_resume","internet"}; the main
 * command and files: main_shapes.h. Strings in *ret are borrowed from body. */
int native_parse_create(const json_t *body, struct sandbox_params *ret, struct av_err *err);

/* What PATCH may say:
 * {"timeout_sec","max_lifetime_sec","on_timeout","auto_resume","metadata","tags", "public_ports"},
 * all optional, null meaning the default; anything else is INVALID.
 * Borrowed from body. */
int native_parse_update(const json_t *body, struct sandbox_update *ret, struct av_err *err);

/* {"cmd","args","envs","cwd","user","tag","timeout_sec"}; timeout_default_ms when absent, 0 means
 * none. Borrowed from body. */
int native_parse_exec(
    const json_t *body, int64_t timeout_default_ms, struct node_exec_spec *ret, struct av_err *err);

/* ,"name":"2026-01-31T12:00:00.000Z"; nothing for 0, which has not happened. */
void native_write_time(struct av_buf *out, const char *name, int64_t real_ms);

/* All digits that fit in 32 bits: a pid; anything else: a tag. Borrows text. */
struct node_selector native_parse_selector(const char *text);

#define NATIVE_TAG_SIZE 32
/* prefix, a dash and eight random hex digits: everybody can address what runs by itself. */
void native_random_tag(char dst[static NATIVE_TAG_SIZE], const char *prefix);

struct snapshot_params;
struct template_info;
/* {"sandbox_id","name","stop","keep_running","isolation","type","platform","vcpus" or
 * "cpus","memory_mb","disk_mb","user", "workdir","envs","start_command","kernel_warm"}. Strings are
 * borrowed from body. */
int native_parse_snapshot(
    const json_t *body, struct snapshot_params *ret, const char **ret_id, struct av_err *err);
int native_write_template(struct av_buf *out, const struct template_info *t);

/* The word for a state: one of those that existing clients check, so "stopped" for stopping. */
const char *native_status(enum sandbox_state s);
int native_write_sandbox(struct av_buf *out, const struct sandbox_info *sb);

int native_write_processes(struct av_buf *out, const struct node_process *v, size_t n);
