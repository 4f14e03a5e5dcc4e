/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_image.c - START with VM_MODE_IMAGE: what a guest boots from, made of a template
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "vm/copy.h"
#include "vm/initrd.h"
#include "vm/machine_internal.h"

#include "base/banned.h"

#define MKFS_EROFS "/usr/bin/mkfs.erofs"
#define FRESH      "vm/image.new"
#define AGENT_FD   3 /* in the child that writes the initrd */

static const char *const program_env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", NULL};

/* An image that was begun, by a process that died, begins anew. */
static int prepare(struct machine *m, struct av_err *err)
{
	static const char *const files[] = {"root.erofs", "kernel", "initrd"};
	char name[PATH_MAX];
	int r;

	r = machine_make_dirs(m, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < AV_ARRAY_LEN(files); i++) {
		machine_path(m, name, FRESH "/%s", files[i]);
		unlink(name);
	}
	return machine_mkdir(m, FRESH, err);
}

static void step_prepare(struct machine *m)
{
	machine_job(m, prepare);
}

/* Not compressed: guests without KVM would spend their processor on it, and the host's page cache
 * is shared by all of them. */
static void step_pack(struct machine *m)
{
	char from[PATH_MAX], to[PATH_MAX];
	const char *argv[] = {MKFS_EROFS, "-d0", to, from, NULL};

	machine_path(m, from, "template");
	machine_path(m, to, FRESH "/root.erofs");
	machine_child(m, &(struct child_spec){.argv = argv, .env = program_env});
}

/* In a child of its own, as what it calls may start programs. */
static int write_kernel(const struct machine *m, struct av_err *err)
{
	char path[PATH_MAX], release[INITRD_RELEASE_SIZE];
	AV_CLEANUP(av_closep) int dir = -1;
	AV_CLEANUP(av_closep) int kernel = -1;
	AV_CLEANUP(av_closep) int out = -1;
	int r;

	machine_path(m, path, "kernel");
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open %s", path);
	r = initrd_kernel_release(dir, release, err);
	if (r == 0)
		r = initrd_kernel_open(dir, release, &kernel, err);
	if (r < 0)
		return r;
	machine_path(m, path, FRESH "/kernel");
	out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s", path);
	r = vm_copy_fd(kernel, "the kernel", out, path, NULL, err);
	if (r < 0)
		return r;
	av_close_fd(&out);
	machine_path(m, path, FRESH "/initrd");
	out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s", path);
	return initrd_write(out, AGENT_FD, dir, NULL, err);
}

static int kernel_child(void *arg)
{
	struct av_err err = {0};

	if (write_kernel(arg, &err) == 0)
		return 0;
	(void)!write(STDERR_FILENO, err.message, strlen(err.message));
	return 1;
}

static void step_kernel(struct machine *m)
{
	machine_child(m, &(struct child_spec){
	                     .run = kernel_child,
	                     .arg = m,
	                     .fds = {m->o->agent_fd},
	                     .n_fds = 1,
	                 });
}

static int finish(struct machine *m, struct av_err *err)
{
	char fresh[PATH_MAX], name[PATH_MAX];

	machine_path(m, fresh, FRESH);
	machine_path(m, name, "vm/image");
	if (rename(fresh, name) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot rename %s", fresh);
	return 0;
}

static void step_finish(struct machine *m)
{
	machine_job(m, finish);
}

static void done(struct machine *m)
{
	m->state = m->error.kind ? VM_STATE_FAILED : VM_STATE_MADE;
	machine_answer(m, NULL);
}

/* The worker that makes a layer of this forces it to disk and sums it up. */
void machine_image(struct machine *m)
{
	static const struct step steps[] = {
	    {"preparing the image", 60000, 0, step_prepare},
	    {"packing the template", 1500000, 2, step_pack},
	    {"preparing the kernel", 120000, 90, step_kernel},
	    {"finishing the image", 60000, 98, step_finish},
	};
	static const struct plan plan = {.steps = steps, .n = AV_ARRAY_LEN(steps), .done = done};

	m->state = VM_STATE_BUSY;
	machine_plan(m, &plan);
}
