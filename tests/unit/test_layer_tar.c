/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_layer_tar.c - a tree goes into an archive and comes out of it as it was; what is cut off,
 * changed or made by somebody else comes out as an error, and makes no file elsewhere
 */
#include "spawn/layer_tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "lib/tap.h"
#include "base/banned.h"

#define PREFIX "templates/x"

static char top[] = "/tmp/aviary-tar-XXXXXX";
static char archive[64];

/* Names of every kind; some with attributes, where the file system has them. */
static const char make_tree[] =
    "cd \"$1\" && umask 022 && mkdir -p t/a/b t/closed && echo one >t/a/one && ln t/a/one "
    "t/a/b/two "
    "&& ln t/a/one t/three && : >t/empty && ln -s ../one t/a/b/link && ln -s /etc/passwd t/out && "
    "mkfifo t/pipe && truncate -s 3G t/hole && truncate -s 1M t/mixed && echo x >>t/mixed && "
    "printf y | dd of=t/mixed bs=1 seek=300000 conv=notrunc 2>/dev/null && "
    "head -c 200000 /dev/urandom >t/random && chmod 4711 t/random && "
    "touch -d '1960-01-02 03:04:05.25 UTC' t/empty && touch -d '2040-01-01 00:00:00 UTC' t/out -h "
    "&& "
    "long=$(printf %0250d 0) && mkdir -p t/$long/$long && echo deep >t/$long/$long/$long && "
    "ln -s $long/$long/$long t/longlink && echo in >t/closed/in && chmod 0500 t/closed && "
    "touch -d '1999-12-31 23:59:59.999999999 UTC' t/a/b t/a t";

static int sh(const char *script, const char *arg)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		execl("/bin/sh", "sh", "-c", script, "sh", arg, (char *)NULL);
		_exit(127);
	}
	(void)waitpid(pid, &status, 0);
	return status;
}

static const char *in_top(const char *name)
{
	static char paths[4][512];
	static unsigned int next;
	char *p = paths[next++ % 4];

	if (av_path_printf(p, sizeof(paths[0]), "%s/%s", top, name) < 0)
		abort();
	return p;
}

static int open_dir(const char *name)
{
	return open(in_top(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int write_archive(const char *tree)
{
	AV_CLEANUP(av_closep) int out = open(archive, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	AV_CLEANUP(av_closep) int dir = open_dir(tree);
	static const char zeros[2 * TAR_BLOCK];
	struct tar_out *t = tar_out_new(out);
	int r = tar_out_tree(t, dir, PREFIX "/t", PREFIX "/links");

	if (r == 0)
		r = tar_out_flush(t);
	tar_out_free(t);
	return r == 0 ? av_write_full(out, zeros, sizeof(zeros)) : r;
}

static int read_archive(const char *into, struct av_err *err)
{
	AV_CLEANUP(av_closep) int in = open(archive, O_RDONLY | O_CLOEXEC);
	int r = mkdir(in_top(into), 0700);

	AV_CLEANUP(av_closep) int dir = open_dir(into);
	struct tar_in *t = tar_in_new(in);
	struct untar *u = untar_new(dir, PREFIX, geteuid() != 0);
	struct tar_member m;
	while (r == 0 && (r = tar_in_next(t, &m, err)) > 0)
		r = untar_member(u, t, &m, err);
	if (r == 0)
		r = untar_finish(u, err);
	untar_free(u);
	tar_in_free(t);
	return r;
}

static void is_same(const char *a, const char *b)
{
	struct layer_sum x = {0}, y = {0};
	AV_CLEANUP(av_closep) int da = open_dir(a);
	AV_CLEANUP(av_closep) int db = open_dir(b);

	is_int(layer_sum(da, &x), 0, "the source has a checksum");
	is_int(layer_sum(db, &y), 0, "the copy as well");
	ok(memcmp(x.hash, y.hash, sizeof(x.hash)) == 0, "it is the same (%llu entries)",
	    (unsigned long long)y.entries);
}

static void test_round_trip(void)
{
	struct av_err err = {0};
	struct stat st;

	is_int(sh(make_tree, top), 0, "a tree");
	for (const char *const *name = (const char *const[]){"t/a", "t/random", NULL}; *name;
	     name++) {
		(void)setxattr(in_top(*name), "user.plain", "v", 1, 0);
		(void)setxattr(in_top(*name), "user.odd=%name", "\n=\0x", 4, 0);
		(void)setxattr(in_top(*name), "trusted.overlay.opaque", "y", 1, 0);
	}
	if (geteuid() == 0 && mknod(in_top("t/whiteout"), S_IFCHR | 0600, 0) == 0 &&
	    chown(in_top("t/whiteout"), 70000, 3000000) < 0)
		diag("no other owners here");
	is_int(write_archive("t"), 0, "it goes into an archive");
	ok(stat(archive, &st) == 0 && st.st_size < 2000000, "without its holes: %lld bytes",
	    (long long)st.st_size);
	is_int(read_archive("copy", &err), 0, "and out of it");
	diag("%s", err.message);
	is_same("t", "copy/t");
	ok(stat(in_top("copy/t/hole"), &st) == 0 && st.st_size == 3LL << 30 && st.st_blocks < 64,
	    "holes are holes");
	ok(stat(in_top("copy/t/three"), &st) == 0 && st.st_nlink == 3, "three names of one file");
	ok(access(in_top("copy/links"), F_OK) < 0, "nothing else is left");
	is_int(
	    sh("cd \"$1\" && rm -rf unpacked && mkdir unpacked && tar --warning=none -xpf archive "
	       "-C unpacked && cmp t/mixed unpacked/templates/x/t/mixed && "
	       "cmp t/a/b/two unpacked/templates/x/t/a/b/two",
	        top),
	    0, "tar(1) reads it, too");
}

/* ---- torn and changed ---- */

static char *load(size_t *ret_n)
{
	AV_CLEANUP(av_closep) int fd = open(archive, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *p = fstat(fd, &st) == 0 ? malloc((size_t)st.st_size) : NULL;

	if (!p || av_read_full(fd, p, (size_t)st.st_size) != st.st_size)
		abort();
	*ret_n = (size_t)st.st_size;
	return p;
}

static void store(const char *p, size_t n)
{
	AV_CLEANUP(av_closep) int fd = open(archive, O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (av_write_full(fd, p, n) < 0)
		abort();
}

static int read_again(void)
{
	struct av_err err = {0};
	int r = read_archive("again", &err);

	(void)sh("chmod -R u+rwx \"$1/again\"; rm -rf \"$1/again\"", top);
	return r;
}

static void test_damage(void)
{
	size_t n = 0, taken = 0, tried = 0;

	(void)sh(
	    "cd \"$1\" && mkdir s && echo x >s/x && ln s/x s/y && mkdir s/d && echo z >s/d/z", top);
	ok(setxattr(in_top("s/x"), "user.abcdefgh", "v", 1, 0) == 0, "with an attribute");
	is_int(write_archive("s"), 0, "a small tree");
	char *bytes = load(&n);
	char *name = memmem(bytes, n, "user.abcdefgh", 13);
	if (ok(name, "which is in the archive")) {
		name[7] = '\0';
		store(bytes, n);
		ok(read_again() < 0, "a NUL in its name is refused");
		name[7] = 'c';
	}
	for (size_t cut = 0; cut + 2 * TAR_BLOCK < n; cut += TAR_BLOCK, tried++) {
		store(bytes, cut);
		taken += read_again() == 0;
	}
	ok(taken == 0, "cut off at any of %zu places it is refused", tried);
	/* A flipped bit is seen here or by the sums, and hurts nobody. */
	taken = tried = 0;
	for (size_t at = 0; at < n; at += 131, tried++) {
		bytes[at] ^= 0x10;
		store(bytes, n);
		taken += read_again() == 0;
		bytes[at] ^= 0x10;
	}
	ok(taken < tried, "of %zu changed ones %zu are left to the checksums", tried, taken);
	free(bytes);
}

/* ---- by somebody else ---- */

static void test_foreign(void)
{
	static const char *const scripts[] = {
	    "mkdir -p templates/x && echo evil >templates/x/../../evil2 && tar -cf archive -P "
	    "--transform 's,^evil2,templates/x/../../../escaped,' evil2",
	    "ln -s / templates/x/t && tar -cf archive templates/x/t; rm templates/x/t; mkdir -p "
	    "templates/x/t; echo evil >templates/x/t/escaped; tar -rf archive "
	    "templates/x/t/escaped",
	    "mkdir -p templates/x/t; echo e >templates/x/t/f; tar -cf archive templates/x/t",
	    "mkdir -p templates/x/t; echo e >templates/x/t/f; ln -f templates/x/t/f "
	    "templates/x/t/g; "
	    "tar -cf archive templates/x/t/f templates/x/t/g",
	    "mkdir -p templates/y/t; tar -cf archive templates/y/t",
	    "tar -cf archive /etc/hostname 2>/dev/null",
	    "echo hello >archive",
	    "head -c 4096 /dev/urandom >archive",
	    ": >archive",
	};

	for (size_t i = 0; i < AV_ARRAY_LEN(scripts); i++) {
		char script[1024];

		(void)snprintf(script, sizeof(script),
		    "cd \"$1\" && rm -rf templates && mkdir -p templates/x && { %s; }; rm -rf "
		    "templates",
		    scripts[i]);
		(void)sh(script, top);
		ok(read_again() < 0, "archive %zu is refused", i);
		ok(access("/escaped", F_OK) < 0 && access(in_top("escaped"), F_OK) < 0,
		    "and nothing lies elsewhere");
	}
}

int main(void)
{
	if (!mkdtemp(top) || av_path_printf(archive, sizeof(archive), "%s/archive", top) < 0)
		return 1;
	test_round_trip();
	test_damage();
	test_foreign();
	(void)sh("chmod -R u+rwx \"$1\"; rm -rf \"$1\"", top);
	return tap_done();
}
