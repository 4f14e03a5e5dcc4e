/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm_layer.c - an image or saves of a virtual machine become a layer
 */
#include "spawn/vm_layer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "spawn/layer.h"
#include "base/banned.h"

#define OPEN_DIR    (O_RDONLY | O_DIRECTORY)
#define NAME_LEN    31
#define CURRENT     "current"
#define CURRENT_MAX 16 /* bytes of it */

static const char *const save_files[] = {"memory", "state", "disk", "info"};

struct take {
	const struct vm_layer_options *opt;
	bool has_image, has_save, has_current;
};

static int own(const struct take *t, int fd, mode_t mode)
{
	if (fchmod(fd, mode) < 0)
		return -errno;
	return !t->opt->rootless && fchown(fd, t->opt->owner, t->opt->owner) < 0 ? -errno : 0;
}

/* A new directory, open. */
static int make_dir(const struct take *t, int to, const char *name)
{
	if (mkdirat(to, name, 0700) < 0)
		return -errno;
	AV_CLEANUP(av_closep) int fd = layer_open(to, name, OPEN_DIR);
	int r = fd < 0 ? fd : own(t, fd, 0755);
	return r < 0 ? r : AV_TAKE_FD(fd);
}

static int make_file(int to, const char *name)
{
	int fd = openat(to, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

/* -ENOENT also for what is no regular file. */
static int open_file(int from, const char *name, struct stat *ret)
{
	struct stat before;
	*ret = (struct stat){0};
	if (fstatat(from, name, &before, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISREG(before.st_mode))
		return -ENOENT;
	AV_CLEANUP(av_closep) int fd = layer_open(from, name, O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		return fd;
	if (fstat(fd, ret) < 0)
		return -errno;
	return S_ISREG(ret->st_mode) && ret->st_ino == before.st_ino ? AV_TAKE_FD(fd) : -ESTALE;
}

static int take_file(const struct take *t, int from, int to, const char *name)
{
	struct stat st;
	const struct layer_copy_options copy = {.room = t->opt->room, .ctx = t->opt->ctx};
	AV_CLEANUP(av_closep) int in = open_file(from, name, &st);
	AV_CLEANUP(av_closep) int out = in < 0 ? -1 : make_file(to, name);
	if (in < 0 || out < 0)
		return in < 0 ? in : out;
	int r = layer_copy_content(in, out, st.st_size, &copy);
	return r < 0 ? r : own(t, out, 0644);
}

static bool name_ok(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-");
	return n > 0 && n <= NAME_LEN && !name[n] && name[0] != '.';
}

static bool number_ok(const char *name)
{
	size_t n = strspn(name, "0123456789");
	return n > 0 && n <= 10 && !name[n] && name[0] != '0';
}

/* Calls on_name for names that are fine, up to max of them; others are left behind. */
static int each_name(const struct take *t, int from, int to, bool (*ok)(const char *name),
    size_t max, int (*on_name)(const struct take *t, int from, int to, const char *name))
{
	const struct dirent *e;
	size_t n = 0;
	int r = 0, fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		r = -errno;
		av_close_fd(&fd);
		return r;
	}
	while (r == 0 && (e = readdir(d))) {
		r = t->opt->room(t->opt->ctx);
		if (r != 0 || !ok(e->d_name))
			continue;
		r = on_name(t, from, to, e->d_name);
		if (r == 0 && ++n > max)
			r = -E2BIG;
		if (r == -ENOENT)
			r = 0; /* a link, a device, a pipe */
	}
	closedir(d);
	return r;
}

/* A directory of files. 0 and nothing made when there is none. */
static int take_dir(const struct take *t, int from, int to, const char *name, bool *ret_is_there)
{
	AV_CLEANUP(av_closep) int in = layer_open(from, name, OPEN_DIR);
	if (in == -ENOENT || in == -ENOTDIR || in == -ELOOP)
		return 0;
	AV_CLEANUP(av_closep) int out = in < 0 ? in : make_dir(t, to, name);
	if (out < 0)
		return out;
	*ret_is_there = true;
	return each_name(t, in, out, name_ok, VM_LAYER_FILES_MAX, take_file);
}

static int take_numbered(const struct take *t, int from, int to, const char *name)
{
	bool is_there = false;
	int r = take_dir(t, from, to, name, &is_there);
	return r < 0 || is_there ? r : -ENOENT;
}

static int take_saves(struct take *t, int from, int to)
{
	AV_CLEANUP(av_closep) int in = layer_open(from, "saves", OPEN_DIR);
	if (in == -ENOENT || in == -ENOTDIR || in == -ELOOP)
		return 0;
	AV_CLEANUP(av_closep) int out = in < 0 ? in : make_dir(t, to, "saves");
	if (out < 0)
		return out;
	t->has_save = true;
	return each_name(t, in, out, number_ok, VM_LAYER_SAVES_MAX, take_numbered);
}

static int take_current(struct take *t, int from, int to)
{
	struct stat st;
	AV_CLEANUP(av_closep) int in = open_file(from, CURRENT, &st);
	if (in == -ENOENT)
		return 0;
	if (in < 0 || st.st_size > CURRENT_MAX)
		return in < 0 ? in : -EMSGSIZE;
	t->has_current = true;
	return take_file(t, from, to, CURRENT);
}

static int take_all(struct take *t, int from, int to)
{
	int r = take_dir(t, from, to, "image", &t->has_image);
	if (r == 0)
		r = take_saves(t, from, to);
	return r == 0 ? take_current(t, from, to) : r;
}

static int write_current(const struct take *t, int to)
{
	char text[16];
	AV_CLEANUP(av_closep) int fd = make_file(to, CURRENT);
	(void)snprintf(text, sizeof(text), "%u\n", t->opt->save);
	int r = fd < 0 ? fd : av_write_full(fd, text, strlen(text));
	return r < 0 ? r : own(t, fd, 0644);
}

static int take_save(struct take *t, int from, int to)
{
	char name[16];
	(void)snprintf(name, sizeof(name), "%u", t->opt->save);
	AV_CLEANUP(av_closep) int saves = layer_open(from, "saves", OPEN_DIR);
	AV_CLEANUP(av_closep) int in = saves < 0 ? saves : layer_open(saves, name, OPEN_DIR);
	if (in < 0)
		return in == -ENOENT ? 0 : in;
	AV_CLEANUP(av_closep) int to_saves = make_dir(t, to, "saves");
	AV_CLEANUP(av_closep) int out = to_saves < 0 ? to_saves : make_dir(t, to_saves, name);
	int r = out < 0 ? out : 0;
	for (size_t i = 0; r == 0 && i < AV_ARRAY_LEN(save_files); i++)
		r = take_file(t, in, out, save_files[i]);
	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = write_current(t, to);
	t->has_save = t->has_current = r == 0;
	return r;
}

static int nothing_there(const struct take *t, struct av_err *err)
{
	if (t->opt->save)
		(void)av_err_set(err, AV_ERR_INVALID_STATE,
		    "the virtual machine has no complete save %u", t->opt->save);
	else
		(void)av_err_set(err, AV_ERR_INVALID_STATE,
		    "the virtual machine has saved nothing that one could go on from: pause it");
	return -ENODATA;
}

int vm_layer_take(
    int from, int to, const struct vm_layer_options *opt, bool *ret_has_image, struct av_err *err)
{
	struct take t = {.opt = opt};
	AV_CLEANUP(av_closep) int in = layer_open(from, "vm", OPEN_DIR);
	int r = in;
	if (in == -ENOENT || in == -ENOTDIR || in == -ELOOP)
		return nothing_there(&t, err);
	if (in >= 0)
		r = own(&t, to, 0755);
	AV_CLEANUP(av_closep) int out = r < 0 ? -1 : make_dir(&t, to, "vm");
	if (r == 0)
		r = out < 0 ? out : 0;
	if (r == 0)
		r = opt->save ? take_save(&t, in, out) : take_all(&t, in, out);
	if (r < 0)
		return r;
	if (!t.has_image && !(t.has_save && t.has_current))
		return nothing_there(&t, err);
	*ret_has_image = t.has_image;
	return 0;
}
