/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node_world.c - a node, a fake driver, and agents that do what a command's name says
 */
#include "node_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/avtime.h"
#include "net/http_server.h"
#include "proto/agent_api.h"
#include "proto/frame.h"

#include "base/banned.h"

static struct av_loop *loop;
static struct av_http_server *server;
struct fake_machine machine;
struct fake_driver *driver;
struct node *node;
struct node_sandbox *sandbox;
int inits, connections, activities;
int init_status = 204;
bool raw_garbage;
char init_body[512];
size_t sink_bytes;
bool frames_say_oom;
bool died;
enum node_death death;
uint64_t oom_kills, oom_more;

/* Results are counted where tests are; here only their failure is told. */
static void must(bool condition, const char *what)
{
	if (condition)
		return;
	printf("Bail out! not so: %s\n", what);
	(void)fflush(stdout);
	_exit(1);
}

/* ---- the agent ---- */

struct stream {
	struct av_req *req;
	struct av_frame_dec dec;
	char cmd[32];
	bool begun;
	size_t flood_left, got;
};

void frame(struct av_buf *b, enum av_frame_channel ch, struct av_str payload)
{
	if (av_frame_write(b, ch, payload) < 0)
		abort();
}

static void send_frame(struct stream *s, enum av_frame_channel ch, struct av_str payload)
{
	struct av_buf b = AV_BUF_INIT(AV_FRAME_CONTROL_MAX + 16);

	frame(&b, ch, payload);
	(void)av_res_write(s->req, av_buf_str(&b));
	av_buf_clear(&b);
}

static void control_frame(struct stream *s, const char *json)
{
	send_frame(s, AV_FRAME_CONTROL, av_str_c(json));
}

static void pump_flood(struct stream *s)
{
	static char block[32768];

	while (s->flood_left) {
		struct av_buf b = AV_BUF_INIT(65536);
		size_t n = AV_MIN(s->flood_left, sizeof(block));
		int r;

		frame(&b, AV_FRAME_STDOUT, av_str_n(block, n));
		r = av_res_write(s->req, av_buf_str(&b));
		av_buf_clear(&b);
		s->flood_left -= n;
		if (r != 0)
			return;
	}
	control_frame(s, "{\"end\":{\"exitCode\":0,\"exited\":true,\"status\":\"exit status 0\"}}");
	(void)av_res_end(s->req);
}

static const char start_event[] = "{\"start\":{\"pid\":7,\"tag\":\"t\"}}";

/* cmd -> what comes back, as frames; then the answer ends. NULL ends the list. */
static const struct script {
	const char *cmd;
	bool start;
	enum av_frame_channel channel;
	const char *data, *control;
} scripts[] = {
    {"hello", true, AV_FRAME_STDOUT, "hello",
        "{\"end\":{\"exitCode\":3,\"exited\":true,\"status\":\"exit status 3\"}}"},
    {"killed", true, AV_FRAME_STDERR, "oops",
        "{\"end\":{\"exitCode\":-1,\"exited\":false,\"signal\":9,\"coreDumped\":true,"
        "\"timedOut\":true,\"status\":\"signal: killed\"}}"},
    {"sigkill", true, AV_FRAME_STDERR, "",
        "{\"end\":{\"exitCode\":-1,\"exited\":false,\"signal\":9}}"},
    {"child", true, AV_FRAME_STDERR, "", "{\"end\":{\"exitCode\":137,\"exited\":true}}"},
    {"refused", false, AV_FRAME_CONTROL, NULL,
        "{\"error\":{\"code\":\"not_found\",\"message\":\"no such cwd\"}}"},
    {"cut", true, AV_FRAME_STDOUT, "half", NULL},
    {"nothing", false, AV_FRAME_CONTROL, NULL, NULL},
    {"early", false, AV_FRAME_STDOUT, "before the start", "{\"end\":{\"exited\":true}}"},
    {"twice", true, AV_FRAME_CONTROL, start_event, "{\"end\":{\"exited\":true}}"},
    {"input", true, AV_FRAME_STDIN, "from the wrong side", "{\"end\":{\"exited\":true}}"},
    {"badpid", false, AV_FRAME_CONTROL, "{\"start\":{\"pid\":-4}}", "{\"end\":{\"exited\":true}}"},
    {"badend", true, AV_FRAME_CONTROL, NULL, "{\"end\":{\"exitCode\":99999,\"exited\":true}}"},
    {"nojson", true, AV_FRAME_CONTROL, "hello", "{\"end\":{\"exited\":true}}"},
    {"newer", true, AV_FRAME_CONTROL, "{\"somethingNew\":{}}",
        "{\"end\":{\"exitCode\":0,\"exited\":true}}"},
    {"gap", true, AV_FRAME_CONTROL, "{\"gap\":{\"dropped\":12}}",
        "{\"end\":{\"exitCode\":0,\"exited\":true}}"},
};

static void run_script(struct stream *s, const struct script *p)
{
	if (p->start)
		control_frame(s, start_event);
	if (p->data)
		send_frame(s, p->channel, av_str_c(p->data));
	if (p->control)
		control_frame(s, p->control);
	(void)av_res_end(s->req);
}

static void begin(struct stream *s)
{
	static const struct av_http_header type = {
	    AV_STR("content-type"), AV_STR(AV_AGENT_CT_FRAMES)};

	if (strcmp(s->cmd, "status404") == 0) {
		(void)av_res_send(s->req, 404, NULL, 0,
		    AV_STR("{\"code\":\"not_found\",\"message\":\"no such process\"}"));
		return;
	}
	if (strcmp(s->cmd, "abort") == 0) {
		av_res_abort(s->req);
		return;
	}
	if (strcmp(s->cmd, "hang") == 0)
		return;
	(void)av_res_start(s->req, 200, &type, 1, -1);
	for (size_t i = 0; i < AV_ARRAY_LEN(scripts); i++)
		if (strcmp(scripts[i].cmd, s->cmd) == 0) {
			run_script(s, &scripts[i]);
			return;
		}
	if (strcmp(s->cmd, "huge") == 0) {
		control_frame(s, start_event);
		(void)av_res_write(s->req, av_str_n("\x7f\xff\xff\xff\x02", 5));
		return;
	}
	control_frame(s, start_event);
	if (strcmp(s->cmd, "flood") == 0) {
		s->flood_left = 8 * 1024 * 1024;
		pump_flood(s);
	}
}

static int on_control(void *ctx, struct av_str payload)
{
	struct stream *s = ctx;
	AV_CLEANUP(av_json_decrefp) json_t *j = av_json_parse_object(payload, NULL);
	const char *cmd = json_string_value(json_object_get(json_object_get(j, "process"), "cmd"));

	if (s->begun) {
		/* Signals and sizes come back as output, for the test to look at. */
		send_frame(s, AV_FRAME_STDOUT, payload);
		return 0;
	}
	s->begun = true;
	(void)snprintf(s->cmd, sizeof(s->cmd), "%s", cmd ? cmd : "hello");
	begin(s);
	return 0;
}

static int on_input(void *ctx, enum av_frame_channel ch, const uint8_t *p, size_t n, bool last)
{
	struct stream *s = ctx;

	(void)last;
	s->got += n;
	if (strcmp(s->cmd, "cat") != 0)
		return 0;
	if (n) {
		send_frame(s, ch == AV_FRAME_PTY ? AV_FRAME_PTY : AV_FRAME_STDOUT,
		    av_str_n((const char *)p, n));
	} else {
		control_frame(s, "{\"end\":{\"exitCode\":0,\"exited\":true}}");
		(void)av_res_end(s->req);
	}
	return 0;
}

static void on_body(void *ctx, struct av_req *req, struct av_str data)
{
	static const struct av_frame_events events = {
	    .on_control = on_control, .on_data = on_input};
	struct stream *s = ctx;

	(void)req;
	if (av_frame_dec_feed(&s->dec, data.p, data.n, &events, s) < 0)
		must(false, "the daemon sends good frames");
}

static void on_drain(void *ctx, struct av_req *req)
{
	(void)req;
	if (strcmp(((struct stream *)ctx)->cmd, "flood") == 0)
		pump_flood(ctx);
}

static void on_close(void *ctx, struct av_req *req, int status)
{
	struct stream *s = ctx;

	(void)req;
	(void)status;
	av_frame_dec_clear(&s->dec);
	free(s);
}

static const struct av_req_handler frames_handler = {
    .on_body = on_body, .on_drain = on_drain, .on_close = on_close};

static void serve_frames(struct av_req *req)
{
	struct stream *s = calloc(1, sizeof(*s));

	s->req = req;
	av_frame_dec_init(&s->dec);
	av_req_set_handler(req, &frames_handler, s);
	(void)av_req_body_start(req, UINT64_MAX);
}

static void on_init_body(void *ctx, struct av_req *req, struct av_str data)
{
	(void)ctx;
	(void)req;
	(void)snprintf(init_body, sizeof(init_body), "%.*s", AV_STR_ARG(data));
}

static void on_init_end(void *ctx, struct av_req *req)
{
	(void)ctx;
	(void)av_res_send(req, init_status, NULL, 0, AV_STR(""));
}

static const struct av_req_handler init_handler = {
    .on_body = on_init_body, .on_body_end = on_init_end};

static void on_sink(void *ctx, struct av_req *req, struct av_str data)
{
	(void)ctx;
	(void)req;
	sink_bytes += data.n;
}

static void on_sink_end(void *ctx, struct av_req *req)
{
	(void)ctx;
	(void)av_res_send_json(req, 200, AV_STR("[]"));
}

static const struct av_req_handler sink_handler = {.on_body = on_sink, .on_body_end = on_sink_end};

const char *list_answer = "{\"processes\":[{\"config\":{\"cmd\":\"sh\",\"args\":[\"-c\"]},"
                          "\"pid\":5,\"tag\":\"x\"}]}";

struct av_str log_answer;
int log_status = 200;

static void on_request(void *ctx, struct av_req *req)
{
	struct av_str path = av_req_path(req);

	(void)ctx;
	if (av_str_eq_c(path, AV_AGENT_PATH_INIT)) {
		inits++;
		av_req_set_handler(req, &init_handler, NULL);
		(void)av_req_body_start(req, 65536);
	} else if (av_str_eq_c(path, AV_AGENT_PATH_START) ||
	           av_str_eq_c(path, AV_AGENT_PATH_CONNECT)) {
		serve_frames(req);
	} else if (av_str_eq_c(path, AV_AGENT_PATH_LIST)) {
		(void)av_res_send_json(req, 200, av_str_c(list_answer));
	} else if (av_str_starts(path, AV_STR(AV_AGENT_PATH_MAIN_LOG))) {
		(void)av_res_send(req, log_status, NULL, 0, log_answer);
	} else if (av_str_eq_c(path, AV_AGENT_PATH_MAIN)) {
		(void)av_res_send_json(req, 200, log_answer);
	} else if (av_str_eq_c(path, AV_AGENT_PATH_SIGNAL)) {
		(void)av_res_send_json(req, 404,
		    AV_STR(
		        "{\"code\":\"not_found\",\"message\":\"process with pid 9 not found\"}"));
	} else if (av_str_eq_c(path, AV_AGENT_PATH_FILES) && av_req_has_body(req)) {
		av_req_set_handler(req, &sink_handler, NULL);
		(void)av_req_body_start(req, UINT64_MAX);
	} else if (av_str_eq_c(path, AV_AGENT_PATH_FILES)) {
		(void)av_res_send_json(
		    req, 404, AV_STR("{\"code\":404,\"message\":\"path '/x' does not exist\"}"));
	} else {
		(void)av_res_send(req, 200, NULL, 0, AV_STR("plain"));
	}
}

/* The node's end of a fresh connection. */
static int connect_agent(const char *id)
{
	int pair[2];

	(void)id;
	connections++;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -1;
	if (raw_garbage) {
		(void)!write(
		    pair[1], "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\nand more of it\n", 56);
		close(pair[1]);
	} else if (av_http_server_adopt(server, pair[1]) < 0) {
		return -1;
	}
	return pair[0];
}

/* ---- the node's side ---- */

bool run_until(const bool *flag)
{
	int64_t end = av_mono_ns() + 10 * AV_NS_PER_S;

	while (!*flag && av_mono_ns() < end)
		av_loop_run_once(loop, 50);
	must(*flag, "it came to an end in time");
	return true;
}

void run_for(int64_t ms)
{
	int64_t end = av_mono_ns() + ms * AV_NS_PER_MS;

	while (av_mono_ns() < end)
		av_loop_run_once(loop, 5);
}

static void on_start(void *ctx, uint32_t pid, const char *tag)
{
	struct seen *s = ctx;

	s->started = true;
	s->pid = pid;
	(void)snprintf(s->tag, sizeof(s->tag), "%s", tag);
}

static void on_output(void *ctx, enum node_channel ch, struct av_str data)
{
	struct seen *s = ctx;
	size_t have = strlen(s->text);

	(void)ch;
	s->bytes += data.n;
	(void)snprintf(s->text + have, sizeof(s->text) - have, "%.*s", AV_STR_ARG(data));
	if (s->cancel_on_output)
		node_exec_cancel(s->exec);
}

static void on_gap(void *ctx, uint64_t dropped)
{
	((struct seen *)ctx)->gap = dropped;
}

void on_exec_drain(void *ctx)
{
	((struct seen *)ctx)->drained = true;
}

void take(struct seen *s, const struct av_err *err)
{
	s->calls++;
	s->ended = true;
	if (err)
		s->err = *err;
}

static void on_exec_end(void *ctx, const struct node_exec_end *end, const struct av_err *err)
{
	struct seen *s = ctx;

	take(s, err);
	s->has_end = end != NULL;
	if (end)
		s->end = *end;
}

static void on_frame(void *ctx, struct av_str header, struct av_str payload)
{
	struct seen *s = ctx;

	if (memmem(payload.p, payload.n, "oomKilled", 9))
		frames_say_oom = true;

	s->frames++;
	s->frame_bytes += header.n + payload.n;
	if (header.n != 5 || av_get_be32(header.p) != payload.n)
		must(false, "each frame is whole");
}

const struct node_exec_events exec_events = {
    .on_start = on_start,
    .on_output = on_output,
    .on_gap = on_gap,
    .on_drain = on_exec_drain,
    .on_end = on_exec_end,
};
const struct node_exec_events raw_events = {.on_frame = on_frame, .on_end = on_exec_end};

struct seen run(const char *cmd)
{
	struct seen s = {0};
	struct node_exec_spec spec = {.cmd = cmd, .tag = "t"};

	if (node_exec_open(sandbox, &spec, &exec_events, &s, &s.exec, &s.err) < 0)
		s.ended = true;
	(void)run_until(&s.ended);
	return s;
}

/* ---- the whole ---- */

static void on_death(void *ctx, const char *id, enum node_death why, const char *detail)
{
	(void)ctx;
	(void)id;
	(void)detail;
	died = true;
	death = why;
}

static void on_activity(void *ctx, const char *id)
{
	(void)ctx;
	(void)id;
	activities++;
}

static void on_ready(void *ctx)
{
	(void)ctx;
}

static void on_oom(void *ctx, const char *id, uint64_t kills, uint64_t more)
{
	(void)ctx;
	(void)id;
	oom_kills = kills;
	oom_more = more;
}

static const struct node_events node_events = {
    .on_death = on_death, .on_activity = on_activity, .on_oom = on_oom, .on_ready = on_ready};

static bool made;

static void on_sandbox(
    void *ctx, struct node_sandbox *sb, const struct driver_evidence *ev, const struct av_err *err)
{
	(void)ctx;
	(void)ev;
	made = true;
	sandbox = sb;
	if (err)
		printf("# %s\n", err->message);
}

void make_sandbox(void)
{
	struct driver_spec spec = {.memory_bytes = 1};

	made = false;
	av_id_make(spec.id, AV_ID_SANDBOX);
	(void)node_create(node, &spec, &(struct node_agent_config){.envs_json = "{\"X\":\"1\"}"},
	    on_sandbox, NULL);
	(void)run_until(&made);
	must(sandbox != NULL, "a sandbox is made");
}

struct fake_box *box_of(const struct node_sandbox *sb)
{
	for (struct av_list *n = machine.boxes.next; n != &machine.boxes; n = n->next) {
		struct fake_box *b = AV_CONTAINER_OF(n, struct fake_box, link);

		if (node_find(node, b->id) == sb)
			return b;
	}
	abort();
}

void world_open(void)
{
	const struct av_http_server_config config = {.on_request = on_request};
	struct node_config nc = {.collect_max = 1024 * 1024};

	if (av_loop_new(&loop) < 0 || av_http_server_new(loop, &config, &server) < 0)
		abort();
	fake_machine_init(&machine, "boot");
	driver = fake_driver_new(loop, &machine);
	driver->connect = connect_agent;
	nc.loop = loop;
	nc.drivers[0] = &driver->base;
	if (node_new(&nc, &node, NULL) < 0)
		abort();
	node_set_events(node, &node_events, NULL);
	make_sandbox();
}

static void set_flag(void *ctx)
{
	bool *flag = ctx;

	*flag = true;
}

void world_close(void)
{
	bool closed = false;

	node_close(node, set_flag, &closed);
	(void)run_until(&closed);
	must(!av_list_empty(&machine.boxes), "closing leaves sandboxes running");
	av_http_server_free(server);
	fake_machine_clear(&machine);
	av_loop_free(loop);
}
