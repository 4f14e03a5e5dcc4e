/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_tool.c - keeps QEMU for memory.py as aviary-vm does: memory_tool MEMORY BYTES QEMU ARG...
 *
 * Reads lines, answers each by one: "ok ..." or "error ...".
 *
 *   pid                        of QEMU
 *   begin TO AHEAD             vm_pages_open and vm_pages_begin; AHEAD is 0 or 1
 *   finish STATE INFO          vm_pages_finish, and the record: private, written, again, us
 *   check MEMORY STATE INFO    vm_info_read and vm_pages_check: us
 *   usage                      vm_pages_usage: private, overhead
 *
 * MEMORY "-" starts QEMU without the file's being told to the preloaded object, as for a golden.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/num.h"
#include "vm/pages.h"
#include "vm/shim.h"
#include "vm/vm_wire.h"
#include "base/banned.h"

struct tool {
	const char *memory;
	uint64_t bytes;
	pid_t pid;
	struct vm_pages *pages;
	struct av_err err;
};

static void start(struct tool *t, char **argv)
{
	char preload[64];
	int shim = vm_shim_open(&t->err);
	if (shim < 0) {
		printf("error %s\n", t->err.message);
		exit(1);
	}
	t->pid = fork();
	if (t->pid != 0)
		return;
	int fd = fcntl(shim, F_DUPFD, 20);
	(void)snprintf(preload, sizeof(preload), "/proc/self/fd/%d", fd);
	(void)setenv("LD_PRELOAD", preload, 1);
	if (strcmp(t->memory, "-") != 0)
		(void)setenv(VM_SHIM_ENV_MEMORY, t->memory, 1);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	(void)dup2(null, 0);
	(void)dup2(2, 1);
	execvp(argv[0], argv);
	_exit(127);
}

static int begin(struct tool *t, const char *to, const char *ahead)
{
	int64_t t0 = av_mono_ns();
	vm_pages_free(t->pages);
	t->pages = NULL;
	int r = vm_pages_open(t->pid, t->memory, t->bytes, &t->pages, &t->err);
	if (r == 0)
		r = vm_pages_begin(t->pages, to, ahead[0] == '1', &t->err);
	if (r == 0)
		printf("ok %llu\n", (unsigned long long)((av_mono_ns() - t0) / 1000));
	else
		vm_pages_free(AV_TAKE_PTR(t->pages));
	return r;
}

static int finish(struct tool *t, const char *state, const char *path)
{
	struct vm_info info = {.vcpus = 1, .accel = VM_ACCEL_TCG};
	struct vm_pages_written w;
	if (!t->pages)
		return av_err_set(&t->err, AV_ERR_INVALID, "nothing was begun");
	(void)snprintf(info.qemu, sizeof(info.qemu), "any");
	(void)snprintf(info.machine, sizeof(info.machine), "q35");
	(void)snprintf(info.cpu, sizeof(info.cpu), "max");
	(void)snprintf(info.kernel, sizeof(info.kernel), "none");
	(void)snprintf(info.base, sizeof(info.base), "test");
	int64_t t0 = av_mono_ns();
	int r = vm_pages_finish(t->pages, &info, &w, &t->err);
	uint64_t us = (uint64_t)(av_mono_ns() - t0) / 1000;
	vm_pages_free(AV_TAKE_PTR(t->pages));
	if (r == 0)
		r = vm_pages_sum_file(state, &info.state_bytes, &info.state_sum, &t->err);
	if (r == 0)
		r = vm_info_write(path, &info, &t->err);
	if (r == 0)
		printf("ok %llu %llu %llu %llu\n", (unsigned long long)w.private_bytes,
		    (unsigned long long)w.written_bytes, (unsigned long long)w.again_bytes,
		    (unsigned long long)us);
	vm_info_clear(&info);
	return r;
}

static int check(struct tool *t, const char *memory, const char *state, const char *path)
{
	struct vm_info info;
	int r = vm_info_read(path, &info, &t->err);
	if (r < 0)
		return r;
	int64_t t0 = av_mono_ns();
	r = vm_pages_check(memory, state, &info, &t->err);
	if (r == 0)
		printf("ok %llu\n", (unsigned long long)((av_mono_ns() - t0) / 1000));
	vm_info_clear(&info);
	return r;
}

static int usage(struct tool *t)
{
	struct vm_pages_usage u;
	int r = vm_pages_usage(t->pid, t->memory, t->bytes, &u, &t->err);
	if (r == 0)
		printf("ok %llu %llu\n", (unsigned long long)u.private_bytes,
		    (unsigned long long)u.overhead_bytes);
	return r;
}

static int carry_out(struct tool *t, char *line)
{
	char word[4][256] = {0};
	int n = sscanf(line, "%255s %255s %255s %255s", word[0], word[1], word[2], word[3]);
	if (n == 1 && strcmp(word[0], "pid") == 0)
		return printf("ok %d\n", (int)t->pid) < 0;
	if (n == 1 && strcmp(word[0], "usage") == 0)
		return usage(t);
	if (n == 3 && strcmp(word[0], "begin") == 0)
		return begin(t, word[1], word[2]);
	if (n == 3 && strcmp(word[0], "finish") == 0)
		return finish(t, word[1], word[2]);
	if (n == 4 && strcmp(word[0], "check") == 0)
		return check(t, word[1], word[2], word[3]);
	return av_err_set(&t->err, AV_ERR_INVALID, "unknown words");
}

int main(int argc, char **argv)
{
	char line[1200];
	struct tool t = {.pid = -1};
	if (argc < 4 || av_parse_u64(av_str_c(argv[2]), 1, UINT64_MAX, &t.bytes) < 0)
		return 2;
	t.memory = argv[1];
	start(&t, argv + 3);
	while (fgets(line, sizeof(line), stdin)) {
		if (carry_out(&t, line) < 0)
			printf("error %s\n", t.err.message);
		(void)fflush(stdout);
	}
	vm_pages_free(t.pages);
	(void)kill(t.pid, SIGKILL);
	(void)waitpid(t.pid, NULL, 0);
	return 0;
}
