/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_cgroup.c - real limits on real processes: memory, pids, freezing, killing, counting,
 * removing
 *
 * Each run uses a tag of its own and removes its parents at the end, also after a failure. The
 * whole program is under an alarm.
 */
#include "lib/tap.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/ids.h"
#include "spawn/cgroup.h"

static struct av_err err;

/* A child that attaches nothing itself: it waits on the gate, then runs fn. */
static pid_t child_in(struct cgroups *cg, const char *id, void (*fn)(void))
{
	int gate[2];
	if (pipe(gate) < 0)
		abort();
	pid_t pid = fork();
	if (pid < 0)
		abort();
	if (pid == 0) {
		char c;
		close(gate[1]);
		(void)!read(gate[0], &c, 1);
		fn();
		_exit(0);
	}
	close(gate[0]);
	is_int(cgroups_attach(cg, id, pid, false, &err), 0, "attach");
	close(gate[1]);
	return pid;
}

static void eat_memory(void)
{
	for (int i = 0; i < 64; i++) {
		char *p =
		    mmap(NULL, AV_MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p != MAP_FAILED)
			memset(p, 1, AV_MIB);
	}
}

static void fork_many(void)
{
	int made = 0;
	for (int i = 0; i < 100; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			pause();
			_exit(0);
		}
		made += pid > 0;
	}
	if (made >= 20)
		_exit(1); /* the limit did not hold */
	pause();
}

static void spin(void)
{
	(void)signal(SIGTERM, SIG_IGN);
	for (volatile unsigned i = 0;; i++)
		;
}

static void memory_limit(struct cgroups *cg)
{
	const char *id = "mem";
	struct cgroup_stat st;
	int status = 0;
	is_int(cgroups_create(cg, id, &(struct cgroup_limits){.memory_bytes = 16 * AV_MIB}, &err),
	    0, "create with a memory limit");
	pid_t pid = child_in(cg, id, eat_memory);
	(void)waitpid(pid, &status, 0);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
	    "64 MiB in a 16 MiB cgroup is killed");
	is_int(cgroups_stat(cg, id, &st), 0, "stat");
	is_int(st.oom_kills, 1, "the OOM kill is counted");
	ok(st.memory_peak_bytes > 8 * AV_MIB && st.memory_peak_bytes <= 16 * AV_MIB,
	    "peak %llu is near the limit", (unsigned long long)st.memory_peak_bytes);
	is_int(cgroups_remove(cg, id, 500), 0, "remove");
	is_int(cgroups_stat(cg, id, &st), -ENOENT, "stat after removal");
}

static void pids_limit_and_kill(struct cgroups *cg)
{
	const char *id = "pids";
	struct cgroup_stat st = {0};
	is_int(
	    cgroups_create(cg, id, &(struct cgroup_limits){.pids_max = 20, .cpu_milli = 500}, &err),
	    0, "create with a pids limit");
	is_int(cgroups_create(cg, id, &(struct cgroup_limits){0}, &err), -EEXIST, "only once");
	pid_t pid = child_in(cg, id, fork_many);
	for (int i = 0; i < 200 && st.pids_current < 20; i++) {
		usleep(5000);
		(void)cgroups_stat(cg, id, &st);
	}
	is_int(st.pids_current, 20, "forks stop at the limit");
	is_int(waitpid(pid, NULL, WNOHANG), 0, "and the parent saw forks fail");
	is_int(cgroups_remove(cg, id, 0), -EBUSY, "a living cgroup cannot be removed");
	int64_t t0 = av_mono_ns();
	is_int(cgroups_kill(cg, id), 0, "kill");
	is_int(waitpid(pid, NULL, 0), pid, "the child is dead");
	is_int(cgroups_wait_empty(cg, id, 2000), 0, "all are dead");
	diag("kill of 20 processes until empty: %.3f ms", (double)(av_mono_ns() - t0) / 1e6);
	is_int(cgroups_remove(cg, id, 500), 0, "remove");
	is_int(cgroups_kill(cg, id), 0, "kill of nothing");
	is_int(cgroups_remove(cg, id, 0), 0, "remove of nothing");
	is_int(cgroups_wait_empty(cg, id, 0), 0, "nothing is empty");
}

static void freeze(struct cgroups *cg)
{
	const char *id = "frz";
	struct cgroup_stat st, later;
	is_int(
	    cgroups_create(cg, id, &(struct cgroup_limits){.cpu_weight = 50}, &err), 0, "create");
	pid_t pid = child_in(cg, id, spin);
	usleep(30000);
	is_int(cgroups_freeze(cg, id, true, 1000, &err), 0, "freeze");
	is_int(cgroups_stat(cg, id, &st), 0, "stat");
	ok(st.frozen && st.populated, "frozen and populated");
	usleep(50000);
	(void)cgroups_stat(cg, id, &later);
	ok(later.cpu_usec - st.cpu_usec < 5000 && st.cpu_usec > 1000, "no CPU time while frozen");
	is_int(cgroups_freeze(cg, id, false, 1000, &err), 0, "thaw");
	usleep(50000);
	(void)cgroups_stat(cg, id, &later);
	ok(later.cpu_usec > st.cpu_usec + 10000, "CPU time after the thaw");
	is_int(cgroups_freeze(cg, id, true, 1000, &err), 0, "freeze again");
	is_int(cgroups_kill(cg, id), 0, "kill while frozen");
	is_int(waitpid(pid, NULL, 0), pid, "a frozen process dies");
	is_int(cgroups_remove(cg, id, 500), 0, "remove");
}

static int count(void *ctx, const char *id)
{
	(void)id;
	++*(int *)ctx;
	return 0;
}

static void listing(struct cgroups *cg)
{
	int n = 0;
	is_int(cgroups_create(cg, "one", &(struct cgroup_limits){0}, &err), 0, "create one");
	is_int(cgroups_create(cg, "two", &(struct cgroup_limits){0}, &err), 0, "create two");
	is_int(cgroups_list(cg, count, &n), 0, "list");
	is_int(n, 2, "each id once");
	ok(cgroups_exists(cg, "one") && !cgroups_exists(cg, "three"), "exists");
	is_int(cgroups_create(cg, "../x", &(struct cgroup_limits){0}, &err), -EINVAL, "no paths");
	is_int(cgroups_remove(cg, "..", 0), -EINVAL, "no parents");
}

static void run(const char *tag, bool ignore_v2)
{
	struct cgroups *cg = NULL;
	struct cgroups_config cfg = {.tag = tag, .fast_attach = true, .ignore_v2 = ignore_v2};
	is_int(cgroups_new(&cfg, &cg, &err), 0, "new");
	if (cg == NULL)
		return;
	diag("mode %s, caps 0x%x, reason \"%s\"", cgroup_mode_name(cgroups_mode(cg)),
	    cgroups_caps(cg), cgroups_reason(cg));
	uint32_t need = CGROUP_CAP_MEMORY | CGROUP_CAP_PIDS;
	if (ok((cgroups_caps(cg) & need) == need, "memory and pids can be limited")) {
		memory_limit(cg);
		pids_limit_and_kill(cg);
	}
	if (cgroups_caps(cg) & CGROUP_CAP_FREEZE)
		freeze(cg);
	int64_t best = INT64_MAX, ns = 0;
	for (int i = 0; i < 20; i++) {
		if (cgroups_measure_attach(cg, &ns, &err) < 0)
			break;
		best = AV_MIN(best, ns);
	}
	diag("attach, best of 20: %.3f ms", (double)best / 1e6);
	if (cgroups_caps(cg) & CGROUP_CAP_FAST_ATTACH)
		ok(best < 3 * AV_NS_PER_MS, "attach is fast with favordynmods");
	listing(cg);
	is_int(cgroups_cleanup(cg, 1000, &err), 0, "cleanup");
	ok(!cgroups_exists(cg, "one"), "nothing is left");
	cgroups_free(cg);
	struct cgroups *again = NULL;
	cfg.read_only = true;
	is_int(cgroups_new(&cfg, &again, &err), 0, "a read-only look");
	if (again != NULL)
		ok((cgroups_caps(again) & need) == need, "finds the same limits");
	cgroups_free(again);
}

int main(void)
{
	char tag[9];
	unsigned r;
	if (geteuid() != 0)
		tap_skip_all(true, "making cgroups needs root");
	(void)alarm(100);
	av_random(&r, sizeof(r));
	(void)snprintf(tag, sizeof(tag), "%08x", r);
	struct cgroups *probe = NULL;
	struct cgroups_config cfg = {.tag = tag, .read_only = true};
	if (cgroups_new(&cfg, &probe, &err) < 0 || cgroups_mode(probe) == CGROUP_MODE_NONE)
		tap_skip_all(
		    true, "no cgroups here: %s", probe ? cgroups_reason(probe) : err.message);
	enum cgroup_mode mode = cgroups_mode(probe);
	cgroups_free(probe);
	run(tag, false);
	if (mode == CGROUP_MODE_HYBRID)
		run(tag, true);
	return tap_done();
}
