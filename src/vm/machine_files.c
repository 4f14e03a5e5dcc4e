/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_files.c - the files of a machine: directories, saves, and which one is current
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/num.h"
#include "vm/machine_internal.h"

#include "base/banned.h"

void machine_path(const struct machine *m, char dst[static PATH_MAX], const char *fmt, ...)
{
	int n = snprintf(dst, PATH_MAX, "%s/", m->o->root);
	va_list ap;

	assert(n > 0 && n < PATH_MAX / 2); /* main.c bounds the root */
	va_start(ap, fmt);
	vsnprintf(dst + n, (size_t)(PATH_MAX - n), fmt, ap);
	va_end(ap);
}

int machine_mkdir(const struct machine *m, const char *path, struct av_err *err)
{
	char name[PATH_MAX];

	machine_path(m, name, "%s", path);
	if (mkdir(name, 0700) < 0 && errno != EEXIST)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s", name);
	return 0;
}

int machine_make_dirs(const struct machine *m, struct av_err *err)
{
	static const char *const dirs[] = {"vm", "vm/run", "vm/saves"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < AV_ARRAY_LEN(dirs); i++)
		r = machine_mkdir(m, dirs[i], err);
	return r;
}

int machine_sync(const char *path, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 || fsync(fd) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot write %s to disk", path);
	return 0;
}

int machine_read_current(const struct machine *m, unsigned *ret, struct av_err *err)
{
	char name[PATH_MAX], text[16];
	uint64_t n;
	ssize_t len;

	machine_path(m, name, "vm/current");
	len = av_read_file_at(AT_FDCWD, name, text, sizeof(text));
	if (len == -ENOENT)
		return av_err_set(err, AV_ERR_NOT_FOUND, "there is no saved machine (%s)", name);
	if (len < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, (int)len, "cannot read %s", name);
	if (len < 2 || text[len - 1] != '\n' ||
	    av_parse_u64(av_str_n(text, (size_t)len - 1), 1, MACHINE_SAVES_MAX, &n) < 0)
		return av_err_set(err, AV_ERR_CHECKSUM, "%s does not name a save", name);
	*ret = (unsigned)n;
	return 0;
}

int machine_write_current(const struct machine *m, unsigned save, struct av_err *err)
{
	char name[PATH_MAX], fresh[PATH_MAX], dir[PATH_MAX], text[16];
	AV_CLEANUP(av_closep) int fd = -1;
	int n = snprintf(text, sizeof(text), "%u\n", save);
	int r;

	machine_path(m, dir, "vm");
	machine_path(m, name, "vm/current");
	machine_path(m, fresh, "vm/current.new");
	unlink(fresh);
	fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : av_write_full(fd, text, (size_t)n);
	if (r == 0 && (fsync(fd) < 0 || rename(fresh, name) < 0))
		r = -errno;
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot write %s", name);
	return machine_sync(dir, err);
}

int machine_new_save(const struct machine *m, unsigned *ret, struct av_err *err)
{
	char dir[PATH_MAX], name[32];
	const struct dirent *e;
	uint64_t n, last = 0;
	DIR *d;

	machine_path(m, dir, "vm/saves");
	d = opendir(dir);
	if (!d)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot read %s", dir);
	while ((e = readdir(d)))
		if (av_parse_u64(av_str_c(e->d_name), 1, MACHINE_SAVES_MAX, &n) == 0)
			last = AV_MAX(last, n);
	closedir(d);
	if (last == MACHINE_SAVES_MAX)
		return av_err_set(err, AV_ERR_INVALID,
		    "a machine can be saved %u times in its life, and was", MACHINE_SAVES_MAX);
	snprintf(name, sizeof(name), "vm/saves/%u", (unsigned)last + 1);
	*ret = (unsigned)last + 1;
	return machine_mkdir(m, name, err);
}

static const char *const save_files[] = {"memory", "state", "disk", "info"};

void machine_remove_save(const struct machine *m, unsigned save)
{
	char name[PATH_MAX];

	for (size_t i = 0; i < AV_ARRAY_LEN(save_files); i++) {
		machine_path(m, name, "vm/saves/%u/%s", save, save_files[i]);
		unlink(name);
	}
	machine_path(m, name, "vm/saves/%u", save);
	rmdir(name);
}

int machine_sync_save(const struct machine *m, unsigned save, struct av_err *err)
{
	char name[PATH_MAX];
	int r = 0;

	for (size_t i = 0; r == 0 && i < AV_ARRAY_LEN(save_files); i++) {
		machine_path(m, name, "vm/saves/%u/%s", save, save_files[i]);
		r = machine_sync(name, err);
	}
	if (r < 0)
		return r;
	machine_path(m, name, "vm/saves/%u", save);
	r = machine_sync(name, err);
	if (r < 0)
		return r;
	machine_path(m, name, "vm/saves");
	return machine_sync(name, err);
}

static void set_text(char dst[static VM_INFO_TEXT_MAX], const char *text)
{
	/* What a guest or QEMU said has been made printable, but may be empty or padded. */
	size_t n = 0;

	for (const char *p = text; *p && n + 1 < VM_INFO_TEXT_MAX; p++)
		if (n || *p != ' ')
			dst[n++] = *p;
	while (n && dst[n - 1] == ' ')
		n--;
	dst[n] = '\0';
	if (!n)
		snprintf(dst, VM_INFO_TEXT_MAX, "-");
}

int machine_write_info(struct machine *m, unsigned save, struct av_err *err)
{
	struct vm_info *info = &m->work.info;
	char name[PATH_MAX];
	struct stat st;
	int r;

	machine_path(m, name, "vm/saves/%u/state", save);
	r = vm_pages_sum_file(name, &info->state_bytes, &info->state_sum, err);
	if (r < 0)
		return r;
	machine_path(m, name, "vm/saves/%u/disk", save);
	if (stat(name, &st) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot read %s", name);
	info->disk_bytes = (uint64_t)st.st_size;
	info->vcpus = m->start.vcpus;
	info->accel = m->start.accel;
	info->memory_bytes = m->start.memory_bytes;
	set_text(info->qemu, m->version);
	set_text(info->machine, m->machine_type);
	set_text(info->cpu, m->start.accel == VM_ACCEL_KVM ? QEMU_CPU_KVM : QEMU_CPU_TCG);
	set_text(info->kernel, m->hello.kernel);
	if (m->save)
		snprintf(info->base, sizeof(info->base), "saves/%u", m->save);
	else
		snprintf(info->base, sizeof(info->base), "-");
	machine_path(m, name, "vm/saves/%u/info", save);
	return vm_info_write(name, info, err);
}
