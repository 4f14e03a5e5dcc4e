/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.h - the benchmark: its daemon, its rows, its results
 *
 * A row is one function that measures and adds one or several results. Every floor is measured in
 * the same run by a program of tests/bench.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "cli/bench_http.h"
#include "cli/cli.h"

struct bench {
	struct cli *cli;
	bool quick;
	const char *url, *key;  /* borrowed */
	struct bench_http http; /* the connection that measures */

	/* Of a daemon that bench started itself; empty with --url. */
	const char *pool, *vm_pool; /* how many ready sandboxes it may keep; NULL: none */
	pid_t daemon_pid;           /* of the supervisor; 0 when not ours */
	char dir[256];              /* everything is below */
	char state[300], run[300];
	char url_buf[128], key_buf[128];

	char key_id[AV_ID_SIZE]; /* with --url: of a key made for this run; "" for none */

	/* Floor programs; "" when they are not there. */
	char floor_jail[4096], floor_http[4096], floor_ws[4096], floor_child[4096], floor_vm[4096];

	/* Where the daemon's cgroups lie, once seen. */
	char cgroups[16][256];
	size_t n_cgroups;

	json_t *rows; /* owned */
};

/* Samples of one kind. */
struct samples {
	double *v; /* owned */
	size_t n, max;
};
int samples_init(struct samples *s, size_t max, struct av_err *err);
void samples_clear(struct samples *s);
void samples_add(struct samples *s, double value); /* beyond max: dropped */
/* Sorts; percent 0 to 100. NAN without samples. */
double samples_percentile(struct samples *s, double percent);

/* Adds a result. floor_p50 NAN: there is none. extra (may be NULL, taken) is merged in. */
void bench_add(struct bench *b, const char *name, const char *unit, size_t n, double p50,
    double p99, double floor_p50, json_t *extra);
void bench_add_samples(struct bench *b, const char *name, const char *unit, struct samples *s,
    struct samples *floor_samples);
/* Adds a row that could not be measured, with the reason. */
void bench_skip(struct bench *b, const char *name, const char *unit, const char *fmt, ...)
    AV_PRINTF(4, 5);
/* What is going on, for people at a terminal. */
void bench_say(const struct bench *b, const char *fmt, ...) AV_PRINTF(2, 3);

/* A program started for a measurement. */
struct bench_child {
	pid_t pid;
	int out; /* read end of its standard output */
	int in;  /* write end of its standard input */
};
int bench_child_start(struct bench_child *c, const char *const *argv, struct av_err *err);
/* One line of its output without the newline; -EPIPE at its end. */
int bench_child_line(struct bench_child *c, char *line, size_t size, int timeout_ms);
/* Ends it (SIGTERM, then SIGKILL) and waits; its exit status, 128 + n for signals. */
int bench_child_stop(struct bench_child *c);
/* Waits for its own end. */
int bench_child_wait(struct bench_child *c);

/* Makes directories, starts aviaryd, waits until it is ready. */
int bench_daemon_start(struct bench *b, struct av_err *err);
/* Ends the daemon and starts it again on what it had, with its pools as they are now. */
int bench_daemon_restart(struct bench *b, struct av_err *err);
/* Waits until a pool of it has one that is ready. */
int bench_pool_wait(struct bench *b, int timeout_ms, struct av_err *err);
/* Deletes all sandboxes, stops the daemon, removes the directories. */
void bench_daemon_stop(struct bench *b);

/* The process whose command line has this argument, and value in one of them, and begins with that
 * program's name; 0: none. */
pid_t bench_find_process(const char *program, const char *argument, const char *value);

/* A sandbox for a measurement. json: members of the request, "" for defaults. */
int bench_create(
    struct bench_http *h, const char *json, char ret_id[static AV_ID_SIZE], struct av_err *err);
int bench_delete(struct bench_http *h, const char *id, struct av_err *err);

/* A program with much output, in a sandbox with at least 1 GiB of memory: makes the text it shows.
 */
#define BENCH_TEXT_PATH "/dev/shm/text"
int bench_stream_prepare(struct bench *b, const char *id, struct av_err *err);
/* Opens a session for it, in text or in frames; first becomes the message that starts it. */
int bench_stream_start(struct bench_http *h, const char *url, const char *key, const char *id,
    bool text, struct av_buf *first, struct av_err *err);

/* Numbers printed by a floor program, one or two a line. reason gets its last line of error. */
int bench_floor_numbers(const char *const *argv, struct samples *first, struct samples *second,
    char *reason, size_t size);

/* The rows. -errno with *err when measuring failed in a way that should not happen. */
int bench_row_create(struct bench *b, struct av_err *err); /* create_first_byte_cold, delete_gone */
int bench_row_internet(struct bench *b, struct av_err *err); /* create_internet */
int bench_row_pool(struct bench *b, struct av_err *err);     /* create_first_byte_pool */
int bench_row_vm(struct bench *b, struct av_err *err);       /* vm_* */
int bench_row_exec(struct bench *b, struct av_err *err);     /* exec_true */
int bench_row_sdk(struct bench *b, struct av_err *err);      /* sdk_exec_overhead */
int bench_row_code(struct bench *b, struct av_err *err);     /* run_code_first, run_code_warm */
int bench_row_rate(struct bench *b, struct av_err *err);     /* creates_per_second */
int bench_row_transfer(struct bench *b, struct av_err *err); /* upload_1gib, download_1gib */
int bench_row_streams(struct bench *b, struct av_err *err);  /* ws_stream_mb_s */
int bench_row_load(struct bench *b, struct av_err *err);     /* control_under_load */
int bench_row_idle(
    struct bench *b, struct av_err *err); /* idle_memory_mib, metrics_sampling_1000 */
int bench_row_processes(
    struct bench *b, struct av_err *err);                 /* daemon_rss_mib, agent_private_mib */
int bench_row_peers(struct bench *b, struct av_err *err); /* peer_bwrap, peer_runc, peer_crun */
