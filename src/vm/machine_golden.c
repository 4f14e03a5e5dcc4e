/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_golden.c - START with VM_MODE_GOLDEN: a guest booted once, warmed up, and saved
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "vm/copy.h"
#include "vm/machine_internal.h"

#include "base/banned.h"

#define MKE2FS "/usr/sbin/mke2fs"
/* Blocks, 1 TiB. mke2fs keeps room to grow a thousand times, and to grow by that takes more than
 * fits into this journal. */
#define GROWS_TO    "268435456"
#define DISK_MIN    (64ull << 20)
#define BOOT_TCG_MS 240000
#define BOOT_KVM_MS 50000
#define SETTLE_MS   3000
#define SAVE        1u
static const char features[] =
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
    "sparse_super,large_file,huge_file,uninit_bg,dir_nlink,extra_isize";

static int make_file(const char *path, uint64_t bytes, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = -1;

	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s", path);
	return 0;
}

static int prepare(struct machine *m, struct av_err *err)
{
	char name[PATH_MAX];
	int r = machine_make_dirs(m, err);

	if (r < 0)
		return r;
	machine_path(m, name, "vm/image/initrd");
	if (access(name, R_OK) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "there is no image (%s)", name);
	machine_remove_save(m, SAVE);
	r = machine_mkdir(m, "vm/saves/1", err);
	if (r < 0)
		return r;
	r = make_file(m->memory, m->start.memory_bytes, err);
	if (r < 0)
		return r;
	machine_path(m, name, "vm/run/disk");
	return make_file(name, AV_MAX(m->start.identity.disk_bytes, DISK_MIN), err);
}

static void step_prepare(struct machine *m)
{
	m->work.save = SAVE;
	machine_path(m, m->memory, "vm/saves/%u/memory", SAVE);
	machine_job(m, prepare);
}

/* Features are named, as what is default depends on a configuration file that may not be there.
 * No checksums of metadata: they cost guests without KVM more than they are worth here. */
static void step_disk(struct machine *m)
{
	static const char *const env[] = {
	    "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "MKE2FS_CONFIG=/dev/null", NULL};
	static const char extended[] =
	    "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0,resize=" GROWS_TO;
	char disk[PATH_MAX];
	const char *argv[] = {MKE2FS, "-q", "-F", "-t", "ext4", "-m", "0", "-b", "4096", "-i",
	    "16384", "-I", "256", "-J", "size=8", "-O", features, "-E", extended, disk, NULL};

	machine_path(m, disk, "vm/run/disk");
	machine_child(m, &(struct child_spec){.argv = argv, .env = env});
}

static void step_boot(struct machine *m)
{
	machine_qemu_start(m, true, -1);
}

static void step_booted(struct machine *m)
{
	/* The limit of the step is TCG's. A KVM that does not work is to be known soon. */
	if (m->start.accel == VM_ACCEL_KVM)
		machine_limit(m, BOOT_KVM_MS);
	machine_step_hello(m);
}

static void on_settled(uv_timer_t *timer)
{
	machine_next(timer->data);
}

/* The guest reports pages that it does not use 2 s after it freed them, and while this boots they
 * become holes of the file: half of what there would be otherwise. */
static void step_settle(struct machine *m)
{
	uv_timer_start(&m->pause, on_settled, SETTLE_MS, 0);
}

static int finish(struct machine *m, struct av_err *err)
{
	char from[PATH_MAX], to[PATH_MAX];
	int r;

	machine_path(m, from, "vm/run/disk");
	machine_path(m, to, "vm/saves/%u/disk", SAVE);
	if (rename(from, to) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot rename %s", from);
	r = vm_punch_zeros(m->memory, NULL, err);
	if (r == 0)
		r = machine_write_info(m, SAVE, err);
	if (r == 0)
		r = machine_sync_save(m, SAVE, err);
	return r < 0 ? r : machine_write_current(m, SAVE, err);
}

static void step_finish(struct machine *m)
{
	m->work.info = (struct vm_info){0};
	machine_job(m, finish);
}

static void done(struct machine *m)
{
	machine_qemu_drop(m);
	m->state = m->error.kind ? VM_STATE_FAILED : VM_STATE_MADE;
	machine_answer(m, NULL);
}

void machine_golden(struct machine *m)
{
	static const struct step steps[] = {
	    {"preparing the machine", 60000, 0, step_prepare},
	    {"making its disk", 60000, 2, step_disk},
	    {"starting QEMU", 35000, 5, step_boot},
	    {"starting the guest", BOOT_TCG_MS, 10, step_booted},
	    {"warming the guest up", 60000, 70, machine_step_warm},
	    {"waiting for the guest to free memory", 20000, 75, step_settle},
	    STEPS_STAND_STILL(80),
	    {"ending QEMU", 20000, 86, machine_step_quit},
	    {"saving its memory", 300000, 88, step_finish},
	};
	static const struct plan plan = {.steps = steps, .n = AV_ARRAY_LEN(steps), .done = done};

	m->state = VM_STATE_BUSY;
	machine_plan(m, &plan);
}
