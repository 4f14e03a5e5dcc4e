/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_peers.c - what a user would pick instead: bwrap, runc, crun
 *
 * Each runs the floor's little program with this machine's /usr, and the time from starting it to
 * the first byte of output is taken. None of them offers an API, a disk limit or files: the
 * comparison is with less than what Aviary does. They are set up as their manuals say, with all
 * namespaces.
 */
#include "cli/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"

#include "base/banned.h"

#define FIRST_BYTE_MS 5000

static bool is_installed(const char *name)
{
	const char *path = getenv("PATH");
	struct av_str rest = av_str_c(path ? path : "/usr/sbin:/usr/bin:/sbin:/bin"), dir;
	bool more = true;
	while (more) {
		char file[4200];
		more = av_str_cut(&rest, ':', &dir);
		if (av_path_printf(file, sizeof(file), "%.*s/%s", AV_STR_ARG(dir), name) == 0 &&
		    access(file, X_OK) == 0)
			return true;
	}
	return false;
}

/* Runs argv n times; milliseconds until the first byte of output. reason: what it said instead. */
static int first_bytes(
    const char *const *argv, size_t n, struct samples *s, char *reason, size_t size)
{
	for (size_t i = 0; i < n; i++) {
		struct bench_child c;
		struct av_err err = {0};
		char line[256] = "";
		int64_t start = av_mono_ns();
		if (bench_child_start(&c, argv, &err) < 0) {
			snprintf(reason, size, "%.200s", err.message);
			return -EIO;
		}
		int r = bench_child_line(&c, line, sizeof(line), FIRST_BYTE_MS);
		double ms = (double)(av_mono_ns() - start) / (double)AV_NS_PER_MS;
		int status = r == -ETIMEDOUT ? bench_child_stop(&c) : bench_child_wait(&c);
		if (r < 0 || strcmp(line, "x") != 0) {
			snprintf(reason, size, "it refuses this machine (exit status %d%s%.120s)",
			    status, line[0] ? ": " : "", line);
			return -EIO;
		}
		samples_add(s, ms);
		if (cli_caught_signal())
			return -EINTR;
	}
	return 0;
}

/* Bundle of the OCI runtimes: a root with the program, /usr bound read-only. */
static int make_bundle(const struct bench *b, const char *bundle, const char *runtime)
{
	char path[600];
	static const char *const dirs[] = {
	    "", "/rootfs", "/rootfs/usr", "/rootfs/proc", "/rootfs/dev"};
	for (size_t i = 0; i < AV_ARRAY_LEN(dirs); i++) {
		snprintf(path, sizeof(path), "%s%s", bundle, dirs[i]);
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return -errno;
	}
	snprintf(path, sizeof(path), "%s/rootfs/floor_child", bundle);
	int out = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	AV_CLEANUP(av_closep) int to = out;
	AV_CLEANUP(av_closep) int from = open(b->floor_child, O_RDONLY | O_CLOEXEC);
	ssize_t n = 1;
	while (to >= 0 && from >= 0 && n > 0)
		n = copy_file_range(from, NULL, to, NULL, 1 << 20, 0);
	if (to < 0 || from < 0 || n < 0)
		return -errno;
	const char *argv[] = {runtime, "spec", "--bundle", bundle, NULL};
	struct bench_child c;
	struct av_err err;
	if (bench_child_start(&c, argv, &err) < 0 || bench_child_wait(&c) != 0)
		return -EIO;
	snprintf(path, sizeof(path), "%s/config.json", bundle);
	json_t *j = json_load_file(path, 0, NULL);
	json_t *process = json_object_get(j, "process");
	json_object_set_new(process, "terminal", json_false());
	json_object_set_new(process, "args", json_pack("[s]", "/floor_child"));
	json_array_append_new(json_object_get(j, "mounts"),
	    json_pack("{s:s, s:s, s:s, s:[s, s]}", "destination", "/usr", "type", "bind", "source",
	        "/usr", "options", "rbind", "ro"));
	int r = j && json_dump_file(j, path, JSON_INDENT(1)) == 0 ? 0 : -EIO;
	json_decref(j);
	return r;
}

static int row(struct bench *b, const char *name, const char *program, const char *const *argv,
    struct av_err *err)
{
	char reason[300] = "";
	struct samples s;
	size_t n = b->quick ? 10 : 50;
	if (!is_installed(program)) {
		bench_skip(b, name, "ms", "%s is not installed", program);
		return 0;
	}
	int r = samples_init(&s, n, err);
	if (r < 0)
		return r;
	if (first_bytes(argv, n, &s, reason, sizeof(reason)) == 0)
		bench_add_samples(b, name, "ms", &s, NULL);
	else
		bench_skip(b, name, "ms", "%s", reason);
	samples_clear(&s);
	return 0;
}

static int oci_row(struct bench *b, const char *name, const char *program, struct av_err *err)
{
	char bundle[400], root[400], id[64];
	snprintf(bundle, sizeof(bundle), "%s/%s", b->dir, program);
	snprintf(root, sizeof(root), "%s/%s-state", b->dir, program);
	snprintf(id, sizeof(id), "aviary-bench-%d", (int)getpid());
	if (is_installed(program) && make_bundle(b, bundle, program) < 0) {
		bench_skip(b, name, "ms", "its bundle could not be made");
		return 0;
	}
	/* Quiet: a refusal is told in the row. */
	const char *argv[] = {"/bin/sh", "-c", "exec \"$0\" \"$@\" 2>/dev/null", program, "--root",
	    root, "run", "--bundle", bundle, id, NULL};
	return row(b, name, program, argv, err);
}

int bench_row_peers(struct bench *b, struct av_err *err)
{
	if (!b->floor_child[0] || !b->dir[0]) {
		const char *why = b->dir[0] ? "the floor programs are not there" : "not with --url";
		bench_skip(b, "peer_bwrap", "ms", "%s", why);
		bench_skip(b, "peer_runc", "ms", "%s", why);
		bench_skip(b, "peer_crun", "ms", "%s", why);
		return 0;
	}
	const char *bwrap[] = {"bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/usr",
	    "/usr", "--ro-bind", b->floor_child, "/floor_child", "--proc", "/proc", "--dev", "/dev",
	    "--tmpfs", "/tmp", "/floor_child", NULL};
	int r = row(b, "peer_bwrap", "bwrap", bwrap, err);
	r = r < 0 ? r : oci_row(b, "peer_runc", "runc", err);
	return r < 0 ? r : oci_row(b, "peer_crun", "crun", err);
}
