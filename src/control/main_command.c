/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main_command.c - the command that a sandbox is made for: watched, its end recorded, its log saved
 *
 * Theory of operation. The agent runs it (agent/main_command.h) and keeps its log and how it ended
 * for as long as it lives. Here one stream of each such sandbox waits for the end (GET /main/log
 * with end=1); it is no use of the sandbox, and is opened again when it breaks, also by the next
 * daemon. How an agent ended that is gone tells its exit record.
 *
 *   starting ──agent started it──> running ──watch, or exit record──> exited
 *                                     └──the sandbox was ended under it──> killed
 *
 * Killed, it was so perhaps by the kernel for memory: then the machine is asked, and the reason is
 * oom. When it has exited, that is queued for the disk, the log is fetched and queued for the disk,
 * and then the sandbox ends (reason exited), unless it is to be kept. Whatever else ends a sandbox,
 * except its deletion, fetches the log as well (end.c). A fetch takes SAVE_NS at most: it is the
 * agent's, which is not trusted to answer. Of its entries log_max bytes are taken.
 *
 * What is said of the main command is written by itself (store_main_update), so that it waits for
 * no other change of the record; sandbox_committed() leaves it alone.
 */
#include "control/main_command.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/json.h"
#include "base/log.h"
#include "base/path.h"

#include "base/banned.h"

#define TEXT_MAX       65536 /* of the command, as JSON */
#define RETRY_FIRST_NS (200 * AV_NS_PER_MS)
#define RETRY_MAX_NS   (10 * AV_NS_PER_S)
#define SAVE_NS        (2 * AV_NS_PER_S)

struct main_watch {
	struct sandbox *sb;
	struct node_main_log *log;
	struct av_mainlog_entry end;
	bool ended;
};

struct main_save {
	struct sandbox *sb;
	struct node_main_log *log;
	struct av_buf bytes;
	int64_t deadline_ns;
	main_saved_fn *done;
};

static bool is_state(const struct store_main *m, const char *state)
{
	return strcmp(m->state, state) == 0;
}

void main_set_state(struct store_main *m, const char *state)
{
	memset(m->state, 0, sizeof(m->state));
	memcpy(m->state, state, AV_MIN(strlen(state), sizeof(m->state) - 1));
}

bool main_has_exited(const struct sandbox *sb)
{
	return is_state(&sb->rec.main, MAIN_EXITED);
}

bool main_is_running(const struct sandbox *sb)
{
	return is_state(&sb->rec.main, MAIN_RUNNING);
}

void main_wake(struct control *c, int64_t boot_ns)
{
	c->next_main_ns = AV_MIN(c->next_main_ns, boot_ns);
	control_wake(c, boot_ns);
}

/* ---- what a request says ---- */

static int check_command(const json_t *command, struct av_err *err)
{
	const char *first = json_string_value(json_array_get(command, 0));

	if (json_array_size(command) > SANDBOX_COMMAND_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "command has %zu strings; at most %d are allowed", json_array_size(command),
		    SANDBOX_COMMAND_MAX);
	if (!first || !first[0])
		return av_err_set(
		    err, AV_ERR_INVALID, "command is empty; it must begin with the program to run");
	return 0;
}

static int check_place(const char *workdir, const char *user, struct av_err *err)
{
	if (workdir && (workdir[0] != '/' || strlen(workdir) > AV_PATH_MAX))
		return av_err_set(err, AV_ERR_INVALID,
		    "workdir must be an absolute path of at most %d bytes, such as /home/user",
		    AV_PATH_MAX);
	if (user && (!user[0] || strlen(user) > MAIN_USER_MAX))
		return av_err_set(err, AV_ERR_INVALID,
		    "user must be the name of a user, of 1 to %d bytes", MAIN_USER_MAX);
	return 0;
}

int main_take(const struct sandbox_params *p, char **ret, struct av_err *err)
{
	AV_CLEANUP(av_json_decrefp) json_t *j = NULL;
	AV_CLEANUP(av_freep) char *text = NULL;

	if (!p->command && (p->workdir || p->user || p->keep_on_exit))
		return av_err_set(err, AV_ERR_INVALID,
		    "workdir, user and on_exit are those of the main command; give a command too");
	if (!p->command)
		return 0;
	if (check_command(p->command, err) < 0 || check_place(p->workdir, p->user, err) < 0)
		return -EINVAL;
	j = json_pack("{sOss}", "command", (json_t *)(uintptr_t)p->command, "on_exit",
	    p->keep_on_exit ? "keep" : "stop");
	if (!j || (p->workdir && json_object_set_new(j, "workdir", json_string(p->workdir)) < 0) ||
	    (p->user && json_object_set_new(j, "user", json_string(p->user)) < 0) ||
	    !(text = json_dumps(j, JSON_COMPACT)))
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	if (strlen(text) > TEXT_MAX)
		return av_err_set(
		    err, AV_ERR_TOO_LARGE, "command is more than %d bytes as JSON", TEXT_MAX);
	*ret = AV_TAKE_PTR(text);
	return 0;
}

void main_describe(
    const struct store_sandbox *rec, const json_t *main_json, struct sandbox_main_info *ret)
{
	const struct store_main *m = &rec->main;
	const char *on_exit = json_string_value(json_object_get(main_json, "on_exit"));

	*ret = (struct sandbox_main_info){.stopping = m->stop_ms != 0 && !rec->final};
	if (!main_json)
		return;
	ret->command = json_object_get(main_json, "command");
	ret->workdir = json_string_value(json_object_get(main_json, "workdir"));
	ret->user = json_string_value(json_object_get(main_json, "user"));
	ret->keep_on_exit = on_exit && strcmp(on_exit, "keep") == 0;
	ret->state = m->state;
	ret->pid = m->pid;
	ret->started_ms = m->started_ms;
	ret->finished_ms = m->finished_ms;
	ret->exited = is_state(m, MAIN_EXITED);
	ret->exit_code = (int)m->exit_code;
	ret->exit_signal = (int)m->exit_signal;
}

/* ---- on disk ---- */

static void on_written(void *ctx, const struct av_err *err)
{
	(void)ctx;
	if (err)
		av_log(AV_LOG_WARN, "cannot record the state of a main command", "error",
		    err->message, NULL);
}

void main_write(struct sandbox *sb)
{
	sb->main_dirty =
	    store_main_update(sb->c->store, sb->rec.id, &sb->rec.main, on_written, NULL) < 0;
	if (sb->main_dirty)
		main_wake(sb->c, control_boot_ns(sb->c) + RETRY_FIRST_NS);
}

void main_before_final(struct sandbox *sb)
{
	struct store_main *m = &sb->rec.main;

	if (sb->labels.main && !main_has_exited(sb)) {
		main_set_state(m, MAIN_KILLED);
		m->finished_ms = control_real_ms(sb->c);
	}
	if (sb->labels.main || m->stop_ms) {
		m->stop_ms = 0;
		main_write(sb);
	}
}

/* ---- its end ---- */

static const char *how(const struct store_main *m, char *dst, size_t size)
{
	if (m->exit_signal)
		(void)snprintf(dst, size, "its main command was killed by signal %d (%s)",
		    (int)m->exit_signal, strsignal((int)m->exit_signal));
	else
		(void)snprintf(
		    dst, size, "its main command ended with exit status %d", (int)m->exit_code);
	return dst;
}

const char *main_how_it_ended(const struct sandbox *sb, char *dst, size_t size)
{
	return main_has_exited(sb) ? how(&sb->rec.main, dst, size) : NULL;
}

static void end_sandbox(struct sandbox *sb)
{
	char text[160];

	(void)av_failpoint("main.saved");
	if (sb->main_oom && !sb->ending)
		sandbox_end(sb, SANDBOX_REASON_OOM, false, NULL);
	else if (!sb->ending)
		sandbox_end(
		    sb, SANDBOX_REASON_EXITED, false, how(&sb->rec.main, text, sizeof(text)));
}

/* From wherever it is known; true the first time. */
static bool note_end(struct sandbox *sb, uint32_t exit_code, uint32_t signal, int64_t finished_ms)
{
	struct store_main *m = &sb->rec.main;
	int64_t now = control_real_ms(sb->c);

	if (!sb->labels.main || main_has_exited(sb))
		return false;
	main_set_state(m, MAIN_EXITED);
	m->exit_code = exit_code;
	m->exit_signal = signal;
	/* The time is what the agent says. */
	finished_ms = AV_MAX(finished_ms, sb->rec.created_ms);
	m->finished_ms = AV_MIN(finished_ms, now);
	main_write(sb);
	return true;
}

void main_died(struct control *c, const char *id, uint32_t exit_code, uint32_t signal, int64_t ms)
{
	struct sandbox *sb = av_map_get(&c->sandboxes, av_str_c(id));

	if (sb)
		(void)note_end(sb, exit_code, signal, ms);
}

/* What its end means for the sandbox. */
static void conclude(struct sandbox *sb)
{
	struct sandbox_main_info info;

	main_describe(&sb->rec, sb->labels.main, &info);
	if (!info.keep_on_exit && !main_save(sb, end_sandbox))
		end_sandbox(sb);
}

/* The machine is asked whether the kernel has killed for memory. */
struct asking {
	struct control *c;
	char id[AV_ID_SIZE];
	uint64_t kills; /* known before */
};

static void on_kills(void *ctx, const struct driver_status *st, const struct av_err *err)
{
	struct asking *a = ctx;
	struct sandbox *sb = av_map_get(&a->c->sandboxes, av_str_c(a->id));

	if (sb && !err)
		sb->main_oom = st->oom_kills > a->kills;
	free(a);
	if (sb && !sb->ending && !stop_main_ended(sb))
		conclude(sb);
}

/* It was killed, or hands on that a child of it was. False: not by the kernel, as far as can be
 * asked. */
static bool ask_for_kills(struct sandbox *sb, uint32_t exit_code)
{
	struct asking *a = exit_code == 128 + SIGKILL ? calloc(1, sizeof(*a)) : NULL;

	if (!a)
		return false;
	a->c = sb->c;
	a->kills = sb->oom_kills;
	memcpy(a->id, sb->rec.id, AV_ID_SIZE);
	if (node_inspect(sb->c->node, sb->rec.id, on_kills, a) == 0)
		return true;
	free(a);
	return false;
}

static void main_ended(struct sandbox *sb, const struct av_mainlog_entry *e)
{
	if (!note_end(sb, e->exit_code, e->signal, e->time_us / 1000) || sb->ending)
		return;
	(void)av_failpoint("main.ended");
	if (!ask_for_kills(sb, e->exit_code) && !stop_main_ended(sb))
		conclude(sb);
}

/* ---- the watch ---- */

static void watch_again(struct sandbox *sb)
{
	sb->main_retry_delay_ns = sb->main_retry_delay_ns
	                              ? AV_MIN(sb->main_retry_delay_ns * 2, RETRY_MAX_NS)
	                              : RETRY_FIRST_NS;
	sb->main_retry_ns = control_boot_ns(sb->c) + sb->main_retry_delay_ns;
	main_wake(sb->c, sb->main_retry_ns);
}

static bool on_watch_entry(void *ctx, const struct av_mainlog_entry *e)
{
	struct main_watch *w = ctx;

	w->ended = e->kind == AV_MAINLOG_END;
	w->end = *e;
	return !w->ended;
}

static void on_watch_end(void *ctx, const struct av_err *err)
{
	struct main_watch *w = ctx;
	struct sandbox *sb = w->sb;

	sb->main_watch = NULL;
	if (w->ended) {
		sb->main_retry_delay_ns = 0;
		main_ended(sb, &w->end);
	} else if (!sb->ending) {
		av_log(AV_LOG_DEBUG, "the watch of a main command broke off", "id", sb->rec.id,
		    "error", err ? err->message : "the agent ended it", NULL);
		watch_again(sb);
	}
	free(w);
}

static int open_log(struct sandbox *sb, bool watch, const struct node_main_log_events *ev,
    void *ctx, struct node_main_log **ret)
{
	struct node_sandbox *handle = node_find(sb->c->node, sb->rec.id);
	const struct node_main_log_query q = {
	    .tail = UINT64_MAX, .since_us = INT64_MIN, .follow = watch, .end_only = watch};

	return handle ? node_main_log_open(handle, &q, ev, ctx, ret, NULL) : -ENOENT;
}

void main_watch(struct sandbox *sb)
{
	static const struct node_main_log_events events = {
	    .on_entry = on_watch_entry, .on_end = on_watch_end};
	struct main_watch *w;

	sb->main_retry_ns = 0;
	if (sb->main_watch || sb->ending || !main_is_running(sb))
		return;
	w = calloc(1, sizeof(*w));
	if (w)
		w->sb = sb;
	if (!w || open_log(sb, true, &events, w, &w->log) < 0) {
		free(w);
		watch_again(sb);
		return;
	}
	sb->main_watch = w;
}

void main_resume(struct sandbox *sb)
{
	main_watch(sb);
	stop_resume(sb);
	/* The daemon before knew it, and came no further. */
	if (main_has_exited(sb) && !sb->stop && !sb->ending)
		conclude(sb);
}

/* ---- the log ---- */

static bool on_saved_entry(void *ctx, const struct av_mainlog_entry *e)
{
	struct main_save *s = ctx;
	struct control *c = s->sb->c;
	uint8_t head[AV_MAINLOG_SMALL_MAX];
	size_t n = AV_MAINLOG_HEAD, before = s->bytes.cap;
	bool all;

	if (e->kind == AV_MAINLOG_END)
		return false;
	if (e->kind == AV_MAINLOG_GAP)
		n = av_mainlog_put_small(head, e);
	else
		av_mainlog_put_head(head, e);
	/* More than it may have is not the agent's log. */
	if (s->bytes.n + n + e->data.n > s->bytes.max)
		return false;
	if (c->saving_bytes + n + e->data.n > MAIN_LOGS_BYTES_MAX) {
		av_log(AV_LOG_WARN, "too many logs are being saved; one is cut", "id",
		    s->sb->rec.id, NULL);
		return false;
	}
	all = av_buf_append(&s->bytes, head, n) == 0 && av_buf_append_str(&s->bytes, e->data) == 0;
	c->saving_bytes += s->bytes.cap - before;
	return all;
}

static void save_free(struct main_save *s)
{
	s->sb->main_save = NULL;
	s->sb->c->saving_bytes -= s->bytes.cap;
	av_buf_clear(&s->bytes);
	free(s);
}

static void on_save_end(void *ctx, const struct av_err *err)
{
	struct main_save *s = ctx;
	struct sandbox *sb = s->sb;
	struct control *c = sb->c;
	main_saved_fn *done = s->done;

	if (err)
		av_log(AV_LOG_INFO, "the log of a main command was not saved in full", "id",
		    sb->rec.id, "error", err->message, NULL);
	if (store_log_put(c->store, sb->rec.id, s->bytes.p ? s->bytes.p : "", s->bytes.n,
	        c->config.logs_total_max, on_written, NULL) < 0)
		av_log(AV_LOG_WARN, "the log of a main command could not be saved", "id",
		    sb->rec.id, NULL);
	save_free(s);
	if (sb->state == SANDBOX_PAUSED && !sb->ending && sandbox_fit(sb, NULL, NULL) < 0)
		sb->unsure = true;
	done(sb);
}

bool main_save(struct sandbox *sb, main_saved_fn *done)
{
	static const struct node_main_log_events events = {
	    .on_entry = on_saved_entry, .on_end = on_save_end};
	struct control *c = sb->c;
	size_t max = (size_t)c->config.log_max + AV_MAINLOG_SMALL_MAX;
	struct main_save *s;

	if (sb->main_saved || sb->main_save || !sb->labels.main || !node_find(c->node, sb->rec.id))
		return false;
	s = calloc(1, sizeof(*s));
	if (!s)
		return false;
	s->sb = sb;
	s->done = done;
	s->deadline_ns = control_boot_ns(c) + SAVE_NS;
	av_buf_init(&s->bytes, max);
	/* Who is to be asked must run; it has only its end before it. */
	if (sb->state == SANDBOX_PAUSED)
		(void)node_thaw(c->node, sb->rec.id, main_ignore, NULL);
	if (open_log(sb, false, &events, s, &s->log) < 0) {
		free(s);
		return false;
	}
	sb->main_saved = true;
	sb->main_save = s;
	main_wake(c, s->deadline_ns);
	return true;
}

void main_ignore(void *ctx, const struct av_err *err)
{
	(void)ctx;
	(void)err;
}

/* ---- time ---- */

static int64_t tick_one(struct sandbox *sb, int64_t now)
{
	struct main_save *s = sb->main_save;
	int64_t next = INT64_MAX;
	struct av_err err;

	if (s && s->deadline_ns <= now) {
		(void)av_err_set(&err, AV_ERR_AGENT, "the sandbox's agent does not answer");
		node_main_log_cancel(s->log);
		on_save_end(s, &err);
		return now;
	}
	if (s)
		next = s->deadline_ns;
	if (sb->main_dirty)
		main_write(sb);
	if (sb->main_retry_ns && sb->main_retry_ns <= now)
		main_watch(sb);
	if (sb->main_retry_ns)
		next = AV_MIN(next, sb->main_retry_ns);
	return AV_MIN(next, stop_tick(sb, now));
}

void main_tick(struct control *c, int64_t now)
{
	struct sandbox *sb;
	int64_t next;

	if (now < c->next_main_ns)
		return;
	c->next_main_ns = INT64_MAX;
	next = setup_tick(c, now);
	AV_LIST_FOREACH(sb, &c->live, struct sandbox, link)
	next = AV_MIN(next, tick_one(sb, now));
	c->next_main_ns = AV_MIN(c->next_main_ns, next);
}

void main_drop(struct sandbox *sb)
{
	if (sb->main_watch) {
		node_main_log_cancel(sb->main_watch->log);
		free(AV_TAKE_PTR(sb->main_watch));
	}
	if (sb->main_save) {
		node_main_log_cancel(sb->main_save->log);
		save_free(sb->main_save);
	}
	stop_drop(sb);
}
