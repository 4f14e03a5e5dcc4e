/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_daemon.c - the daemon that bench measures, and other programs that it starts
 */
#include "cli/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/num.h"
#include "base/path.h"

#include "base/banned.h"

#define READY_MS 60000
#define STOP_MS  30000

/* ---- programs ---- */

static int spawn(struct bench_child *c, const char *const *argv, char *const *env, int in, int out)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t defaults;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, in, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&fa, out, STDOUT_FILENO);
	posix_spawnattr_init(&attr);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_setsigdefault(&attr, &defaults);
	/* Ctrl-C is for bench, which then ends them in order. */
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
	char *args[32];
	size_t n = 0;
	for (; argv[n] && n + 1 < AV_ARRAY_LEN(args); n++)
		args[n] = strdup(argv[n]);
	args[n] = NULL;
	int r = posix_spawnp(&c->pid, argv[0], &fa, &attr, args, env);
	while (n > 0)
		free(args[--n]);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	return -r;
}

static int child_start(
    struct bench_child *c, const char *const *argv, char *const *env, struct av_err *err)
{
	int in[2], out[2];
	if (pipe2(in, O_CLOEXEC) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "pipe");
	if (pipe2(out, O_CLOEXEC) < 0) {
		close(in[0]);
		close(in[1]);
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "pipe");
	}
	*c = (struct bench_child){.out = out[0], .in = in[1]};
	int r = spawn(c, argv, env, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	if (r == 0)
		return 0;
	close(in[1]);
	close(out[0]);
	return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot start %s", argv[0]);
}

int bench_child_start(struct bench_child *c, const char *const *argv, struct av_err *err)
{
	return child_start(c, argv, environ, err);
}

int bench_child_line(struct bench_child *c, char *line, size_t size, int timeout_ms)
{
	int64_t deadline = av_mono_ns() + timeout_ms * AV_NS_PER_MS;
	size_t n = 0;
	while (n + 1 < size) {
		struct pollfd p = {.fd = c->out, .events = POLLIN};
		int64_t left_ms = (deadline - av_mono_ns()) / AV_NS_PER_MS;
		if (left_ms <= 0 || cli_caught_signal())
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)AV_MIN(left_ms, (int64_t)250)) <= 0)
			continue;
		ssize_t r = read(c->out, line + n, 1);
		if (r <= 0)
			return r < 0 ? -errno : -EPIPE;
		if (line[n] == '\n')
			break;
		n++;
	}
	line[n] = '\0';
	return 0;
}

int bench_child_wait(struct bench_child *c)
{
	int status = 0;
	av_close_fd(&c->in);
	av_close_fd(&c->out);
	if (c->pid <= 0)
		return 0;
	while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
		;
	c->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_SIGNAL + WTERMSIG(status);
}

int bench_child_stop(struct bench_child *c)
{
	if (c->pid <= 0)
		return 0;
	kill(c->pid, SIGTERM);
	for (int64_t end = av_mono_ns() + STOP_MS * AV_NS_PER_MS; av_mono_ns() < end;) {
		siginfo_t si = {0};
		if (waitid(P_PID, (id_t)c->pid, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || si.si_pid)
			return bench_child_wait(c);
		usleep(10000);
	}
	kill(c->pid, SIGKILL);
	return bench_child_wait(c);
}

int bench_floor_numbers(const char *const *argv, struct samples *first, struct samples *second,
    char *reason, size_t size)
{
	struct bench_child c;
	struct av_err err = {0};
	char line[256];
	int r = bench_child_start(&c, argv, &err);
	if (r < 0) {
		snprintf(reason, size, "%s", err.message);
		return r;
	}
	snprintf(reason, size, "%s printed nothing", argv[0]);
	while ((r = bench_child_line(&c, line, sizeof(line), READY_MS)) == 0) {
		struct av_str rest = av_str_c(line), one;
		uint64_t v;
		av_str_cut(&rest, ' ', &one);
		if (av_parse_u64(one, 0, INT64_MAX, &v) < 0) {
			snprintf(reason, size, "%s", line);
			continue;
		}
		samples_add(first, (double)v);
		if (second && av_parse_u64(rest, 0, INT64_MAX, &v) == 0)
			samples_add(second, (double)v);
	}
	int status = r == -EPIPE ? bench_child_wait(&c) : bench_child_stop(&c);
	return status == 0 && first->n > 0 ? 0 : -EIO;
}

/* ---- the daemon ---- */

static int make_dirs(struct bench *b, struct av_err *err)
{
	const char *base = getenv("TMPDIR");
	/* On a disk, as real state would be. */
	base = base && base[0] ? base : "/var/tmp";
	int r = av_path_printf(b->dir, sizeof(b->dir), "%s/aviary-bench-XXXXXX", base);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INVALID, r, "TMPDIR");
	if (!mkdtemp(b->dir)) {
		r = av_err_sys(err, AV_ERR_INTERNAL, errno, "%s", b->dir);
		b->dir[0] = '\0';
		return r;
	}
	/* The daemon's user passes through. */
	if (chmod(b->dir, 0711) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "%s", b->dir);
	snprintf(b->state, sizeof(b->state), "%s/state", b->dir);
	snprintf(b->run, sizeof(b->run), "%s/run", b->dir);
	return 0;
}

static int read_key(struct bench *b, struct av_err *err)
{
	char path[400], text[1024];
	int r = av_path_printf(path, sizeof(path), "%s/config/credentials.json", b->dir);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "credentials");
	/* The supervisor writes it when the daemon has handed it over. */
	ssize_t n = -ENOENT;
	for (int i = 0; i < 500 && n < 0; i++) {
		n = av_read_file_at(AT_FDCWD, path, text, sizeof(text));
		if (n < 0)
			usleep(10000);
	}
	if (n < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, (int)n, "%s", path);
	AV_CLEANUP(av_json_decrefp)
	json_t *j = av_json_parse_object(av_str_n(text, (size_t)n), err);
	const char *key = json_string_value(json_object_get(j, "api_key"));
	if (!key || av_str_copy(b->key_buf, sizeof(b->key_buf), av_str_c(key)) < 0)
		return av_err_set(err, AV_ERR_INTERNAL, "%s: no api_key", path);
	return 0;
}

/* This environment with AVIARY_* replaced by a configuration directory of our own. */
static char **own_environment(const char *config)
{
	size_t n = 0, k = 0;
	while (environ[n])
		n++;
	char **env = calloc(n + 2, sizeof(*env));
	if (!env)
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (strncmp(environ[i], "AVIARY_", 7) != 0)
			env[k++] = environ[i];
	char *own = NULL;
	if (asprintf(&own, "AVIARY_CONFIG_DIR=%s", config) < 0) {
		free(env);
		return NULL;
	}
	env[k] = own;
	return env;
}

static int start_and_wait(struct bench *b, struct av_err *err)
{
	char program[4096], config[300], log[300], line[256];
	if (cli_find_program("aviaryd", "daemon", program, sizeof(program)) < 0)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "aviaryd is not beside this program; name a running daemon with --url");
	snprintf(config, sizeof(config), "%s/config", b->dir);
	snprintf(log, sizeof(log), "%s/log", b->dir);
	const char *argv[] = {"/bin/sh", "-c", "log=$1; shift; exec \"$@\" 2>\"$log\"", "sh", log,
	    program, "--listen", "127.0.0.1:0", "--print-ready", "--state", b->state, "--run",
	    b->run, "--log-level", "warn", "--pool", b->pool ? b->pool : "0", "--vm-pool",
	    b->vm_pool ? b->vm_pool : "0", NULL};
	char **env = own_environment(config);
	if (!env)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "bench");
	struct bench_child c = {.in = -1, .out = -1};
	int r = child_start(&c, argv, env, err);
	char **last = env;
	while (last[1])
		last++;
	free(*last);
	free(env);
	if (r < 0)
		return r;
	b->daemon_pid = c.pid;
	do {
		r = bench_child_line(&c, line, sizeof(line), READY_MS);
	} while (r == 0 && strncmp(line, "ready ", 6) != 0);
	av_close_fd(&c.in);
	av_close_fd(&c.out);
	if (r == 0)
		r = av_str_copy(b->url_buf, sizeof(b->url_buf), av_str_c(line + 6));
	if (r == 0)
		return 0;
	char text[2000] = "";
	if (av_read_file_at(AT_FDCWD, log, text, sizeof(text)) < 0)
		text[0] = '\0';
	return av_err_set(err, AV_ERR_UNAVAILABLE,
	    "the daemon did not become ready ('aviary doctor' may know why): %.300s", text);
}

int bench_daemon_start(struct bench *b, struct av_err *err)
{
	bench_say(b, "starting a daemon …");
	int r = make_dirs(b, err);
	if (r == 0)
		r = start_and_wait(b, err);
	if (r == 0)
		r = read_key(b, err);
	b->url = b->url_buf;
	b->key = b->key_buf;
	return r;
}

int bench_daemon_restart(struct bench *b, struct av_err *err)
{
	struct bench_child c = {.pid = b->daemon_pid, .in = -1, .out = -1};

	bench_say(b, "starting the daemon again …");
	bench_child_stop(&c);
	b->daemon_pid = 0;
	return start_and_wait(b, err);
}

int bench_pool_wait(struct bench *b, int timeout_ms, struct av_err *err)
{
	static const char line[] = "aviary_pool_sandboxes{state=\"ready\"} ";
	for (int64_t end = av_mono_ns() + timeout_ms * AV_NS_PER_MS; av_mono_ns() < end;) {
		int r = bench_http_must(&b->http, "GET", "/metrics", "", err);
		if (r < 0)
			return r;
		const char *text = av_buf_cstr(&b->http.body);
		const char *found = text ? strstr(text, line) : NULL;
		if (found && found[strlen(line)] != '0')
			return 0;
		usleep(2000);
	}
	return av_err_set(
	    err, AV_ERR_INTERNAL, "the pool has nothing ready after %d s", timeout_ms / 1000);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	remove(path);
	return 0;
}

static void delete_sandboxes(struct bench *b)
{
	struct bench_http h;
	struct av_err err;
	if (!b->key[0] || bench_http_open(&h, b->url, b->key, &err) < 0)
		return;
	if (bench_http_call(&h, "GET", "/v1/sandboxes", "", &err) == 200) {
		struct av_str body = av_buf_str(&h.body);
		AV_CLEANUP(av_json_decrefp) json_t *list = json_loadb(body.p, body.n, 0, NULL);
		size_t i;
		const json_t *sandbox;
		json_array_foreach (list, i, sandbox) {
			const char *id = json_string_value(json_object_get(sandbox, "id"));
			if (id)
				bench_delete(&h, id, &err);
		}
	}
	bench_http_close(&h);
}

void bench_daemon_stop(struct bench *b)
{
	char program[4096];
	if (b->daemon_pid > 0) {
		bench_say(b, "stopping the daemon …");
		delete_sandboxes(b);
		struct bench_child c = {.pid = b->daemon_pid, .in = -1, .out = -1};
		bench_child_stop(&c);
		b->daemon_pid = 0;
		/* What a daemon leaves for its successor. */
		if (cli_find_program("aviary-spawn", "spawn", program, sizeof(program)) == 0) {
			const char *argv[] = {program, "--cleanup", "--state", b->state, "--run",
			    b->run, "--all", NULL};
			struct av_err err;
			if (bench_child_start(&c, argv, &err) == 0)
				bench_child_wait(&c);
		}
	}
	if (b->dir[0])
		nftw(b->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	b->dir[0] = '\0';
	bench_say(b, "%s", "");
}

int bench_create(
    struct bench_http *h, const char *json, char ret_id[static AV_ID_SIZE], struct av_err *err)
{
	char body[512];
	snprintf(body, sizeof(body), "{%s}", json);
	int r = bench_http_must(h, "POST", "/v1/sandboxes", body, err);
	if (r < 0)
		return r;
	AV_CLEANUP(av_json_decrefp) json_t *j = av_json_parse_object(av_buf_str(&h->body), err);
	const char *id = json_string_value(json_object_get(j, "id"));
	if (!id || av_str_copy(ret_id, AV_ID_SIZE, av_str_c(id)) < 0)
		return av_err_set(err, AV_ERR_INTERNAL, "a sandbox without an id");
	return 0;
}

int bench_delete(struct bench_http *h, const char *id, struct av_err *err)
{
	char path[128];
	snprintf(path, sizeof(path), "/v1/sandboxes/%s", id);
	int r = bench_http_must(h, "DELETE", path, "", err);
	return r < 0 ? r : 0;
}
