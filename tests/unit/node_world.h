/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node_world.h - a node, a fake driver, and agents that do what a command's name says
 *
 * For test_node*.c, one world a process. The agent is an HTTP/2 server in the same loop. What goes
 * wrong here ends the test.
 */
#pragma once

#include "base/json.h"
#include "fake_driver.h"
#include "node/node.h"
#include "node/stream.h"
#include "proto/frame.h"

/* What came back of one conversation. */
struct seen {
	bool ended, started, drained;
	int calls;
	uint32_t pid;
	char tag[16];
	char text[512];
	size_t bytes, gap, frames, frame_bytes;
	bool has_end;
	struct node_exec_end end;
	struct av_err err;
	int status;
	struct node_exec *exec;
	bool cancel_on_output;
};

extern struct fake_machine machine;
extern struct fake_driver *driver;
extern struct node *node;
extern struct node_sandbox *sandbox; /* the newest */

/* The agent: what it heard, and how it answers. */
extern int inits, connections, init_status;
extern char init_body[512];
extern size_t sink_bytes;        /* of bodies sent to it */
extern bool raw_garbage;         /* it speaks no HTTP/2 */
extern const char *list_answer;  /* to the list of processes */
extern struct av_str log_answer; /* to GET /main/log, and to POST /main */
extern int log_status;

/* What the node told its owner. */
extern int activities;
extern bool died;
extern enum node_death death;
extern uint64_t oom_kills, oom_more;
extern bool frames_say_oom; /* a raw frame did */

extern const struct node_exec_events exec_events, raw_events; /* of a struct seen */

/* With a first sandbox; and the end of all. */
void world_open(void);
void world_close(void);
void make_sandbox(void);
struct fake_box *box_of(const struct node_sandbox *sb);
bool run_until(const bool *flag);
void run_for(int64_t ms);
/* Runs a command in the sandbox to its end. */
struct seen run(const char *cmd);
/* Appends one frame. */
void frame(struct av_buf *b, enum av_frame_channel ch, struct av_str payload);
/* An end, with or without an error. */
void take(struct seen *s, const struct av_err *err);
void on_exec_drain(void *ctx);
