/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_agent_process.c - environment, spawning and signal names without a server
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/env.h"
#include "agent/process.h"
#include "agent/spawn.h"
#include "base/buf.h"
#include "base/fd.h"
#include "lib/tap.h"

static void test_env(void)
{
	struct env e;
	char key[16];

	env_init(&e);
	is_int(env_set(&e, "A", "1"), 0, "set");
	is_int(env_set(&e, "AB", "2"), 0, "set another");
	is_int(env_set(&e, "A", "3"), 0, "set again");
	ok(e.n == 2 && strcmp(e.v[0], "A=3") == 0 && strcmp(e.v[1], "AB=2") == 0 && !e.v[2],
	    "the later value wins, in place");
	is_int(env_set(&e, "", "x"), -EINVAL, "an empty name");
	is_int(env_set(&e, "A=B", "x"), -EINVAL, "a name with =");
	for (int i = 0; i < ENV_VARS_MAX - 2; i++) {
		snprintf(key, sizeof(key), "K%d", i);
		if (env_set(&e, key, "") < 0)
			ok(false, "variable %d", i);
	}
	is_int(env_set(&e, "LAST", "x"), -E2BIG, "too many");
	env_clear(&e);
}

static void test_signals(void)
{
	is_int(process_signal_number(AV_STR("SIGTERM")), SIGTERM, "SIGTERM");
	is_int(process_signal_number(AV_STR("SIGNAL_SIGKILL")), SIGKILL, "SIGNAL_SIGKILL");
	is_int(process_signal_number(AV_STR("HUP")), SIGHUP, "HUP");
	is_int(process_signal_number(AV_STR("10")), SIGUSR1, "10");
	is_int(process_signal_number(AV_STR("0")), -EINVAL, "0");
	is_int(process_signal_number(AV_STR("65")), -EINVAL, "65");
	is_int(process_signal_number(AV_STR("SIG")), -EINVAL, "SIG");
	is_int(process_signal_number(AV_STR("")), -EINVAL, "nothing");
}

/* Starts argv with output into a pipe; the exit status, or the failure's exit code negated. */
static int run(
    const char *const *argv, const char *const *envp, const char *cwd, struct av_buf *out)
{
	struct agent_user me = {
	    .name = "me", .uid = geteuid(), .gid = getegid(), .ngroups = 1, .groups = {getegid()}};
	struct spawn_params p = {.argv = (char *const *)(uintptr_t)argv,
	    .envp = (char *const *)(uintptr_t)envp,
	    .cwd = cwd,
	    .user = &me};
	struct spawn_failure f = {0};
	struct av_err err = {0};
	char text[4096];
	int fds[2], null = open("/dev/null", O_RDWR | O_CLOEXEC), status = 0;
	ssize_t n;
	pid_t pid;

	if (null < 0 || pipe2(fds, O_CLOEXEC) < 0)
		abort();
	p.fds[0] = null;
	p.fds[1] = p.fds[2] = fds[1];
	pid = spawn_process(&p, &f, &err);
	close(fds[1]);
	close(null);
	n = av_read_full(fds[0], text, sizeof(text));
	close(fds[0]);
	if (n > 0)
		av_buf_append(out, text, (size_t)n);
	if (pid < 0)
		return -f.exit_code;
	waitpid(pid, &status, 0);
	return WEXITSTATUS(status);
}

static void test_spawn(void)
{
	static char dir[] = "/tmp/aviary-spawn-XXXXXX", path_env[64], sub[64], script[96];
	const char *const plain[] = {"PATH=/bin:/usr/bin", NULL}, *const with_dir[] = {
	                                                              path_env, NULL};
	struct av_buf out = AV_BUF_INIT(65536);
	int fd;

	if (!mkdtemp(dir))
		abort();
	snprintf(path_env, sizeof(path_env), "PATH=/nowhere::%s:/bin", dir);
	snprintf(script, sizeof(script), "%s/bare", dir);
	snprintf(sub, sizeof(sub), "%s/false", dir);
	fd = open(script, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	if (fd < 0 || av_write_full(fd, "echo script $1\n", 15) < 0)
		abort();
	close(fd);
	fd = open(sub, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	close(fd);

	is_int(run((const char *const[]){"true", NULL}, plain, "/", &out), 0, "found in PATH");
	is_int(run((const char *const[]){"false", NULL}, plain, "/", &out), 1, "its exit code");
	is_int(run((const char *const[]){"nope", NULL}, plain, "/", &out), -127, "not in PATH");
	is_int(run((const char *const[]){"/nope", NULL}, plain, "/", &out), -127, "not there");
	is_int(run((const char *const[]){"/etc/passwd", NULL}, plain, "/", &out), -126,
	    "not executable");
	is_int(run((const char *const[]){"/etc/passwd/x", NULL}, plain, "/", &out), -127,
	    "below a file");
	is_int(run((const char *const[]){"true", NULL}, plain, "/nope", &out), -125,
	    "no such directory");
	is_int(run((const char *const[]){"false", NULL}, with_dir, "/", &out), 1,
	    "a file that may not be executed does not hide a later one");
	av_buf_reset(&out);
	is_int(run((const char *const[]){"bare", "arg", NULL}, with_dir, "/", &out), 0,
	    "a script without #!");
	is_avstr(av_buf_str(&out), "script arg\n", "is run by sh");
	unlink(script);
	unlink(sub);
	rmdir(dir);
	av_buf_clear(&out);
}

int main(void)
{
	spawn_prepare(1024);
	test_env();
	test_signals();
	test_spawn();
	return tap_done();
}
