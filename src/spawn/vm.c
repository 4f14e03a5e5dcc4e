/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.c - aviary-vm, QEMU on the host
 *
 * Paths below /usr and /dev are those of the worker's private tree, which are the host's.
 */
#include "spawn/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium/crypto_generichash_blake2b.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "spawn/jail.h"
#include "base/banned.h"

static int hash_program(crypto_generichash_blake2b_state *h, int fd)
{
	uint8_t buf[16384];
	uint64_t size = 0;
	for (;;) {
		ssize_t n = pread(fd, buf, sizeof(buf), (off_t)size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		crypto_generichash_blake2b_update(h, buf, (size_t)n);
		size += (uint64_t)n;
	}
	crypto_generichash_blake2b_update(h, (const uint8_t *)&size, sizeof(size));
	return 0;
}

static int hash_programs(struct vm_programs *p, int vm_reader)
{
	static const uint8_t version[] = AVIARY_VERSION;
	crypto_generichash_blake2b_state h;
	crypto_generichash_blake2b_init(&h, NULL, 0, VM_HASH_SIZE);
	crypto_generichash_blake2b_update(&h, version, sizeof(version));
	int r = hash_program(&h, p->agent_fd);
	if (r == 0)
		r = hash_program(&h, vm_reader);
	if (r == 0)
		crypto_generichash_blake2b_final(&h, p->hash, VM_HASH_SIZE);
	return r;
}

int vm_programs_load(
    struct vm_programs *p, const struct spawn_options *o, int agent_fd, struct av_err *err)
{
	char path[AV_PATH_MAX + 1];
	AV_CLEANUP(av_closep) int reader = -1;
	*p = VM_PROGRAMS_INIT;
	p->agent_fd = agent_fd;
	int r = o->vm_path ? av_path_printf(path, sizeof(path), "%s", o->vm_path)
	                   : spawn_sibling_path(path, sizeof(path), "aviary-vm", "vm");
	if (r < 0 && !o->vm_path) {
		(void)snprintf(p->missing, sizeof(p->missing),
		    "aviary-vm is not installed beside aviary-spawn: install Aviary again, or name "
		    "it with --vm-program");
		return 0;
	}
	if (r == 0)
		r = jail_load_program("aviary-vm", path, o->rootless, &p->vm_fd, &reader, err);
	if (r < 0)
		return r;
	r = hash_programs(p, reader);
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r, "cannot read the programs") : 0;
}

void vm_programs_clear(struct vm_programs *p)
{
	av_close_fd(&p->vm_fd);
	av_close_fd(&p->agent_fd);
}

bool vm_possible(const struct vm_programs *p, char reason[static VM_REASON_SIZE])
{
	char missing[64];
	reason[0] = '\0';
#if !defined(__x86_64__)
	(void)snprintf(reason, VM_REASON_SIZE, "virtual machines run on x86-64 only");
	return false;
#endif
	if (p->vm_fd < 0) {
		(void)snprintf(reason, VM_REASON_SIZE, "%s", p->missing);
		return false;
	}
	vm_host_missing(missing, sizeof(missing));
	if (missing[0])
		(void)snprintf(reason, VM_REASON_SIZE,
		    "virtual machines need programs of this machine that are missing: apt-get "
		    "install --no-install-recommends %s",
		    missing);
	return !missing[0];
}

void vm_environment(const struct vm_programs *p, uint8_t ret[static VM_HASH_SIZE])
{
	crypto_generichash_blake2b_state h;
	crypto_generichash_blake2b_init(&h, NULL, 0, VM_HASH_SIZE);
	crypto_generichash_blake2b_update(&h, p->hash, VM_HASH_SIZE);
	for (size_t i = 0; i < VM_HOST_PROGRAMS; i++) {
		struct stat st = {0};
		if (!vm_host_programs[i].shapes || !vm_host_find(&vm_host_programs[i], &st))
			continue;
		const uint64_t mark[] = {(uint64_t)st.st_size, (uint64_t)st.st_ino,
		    (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec};
		crypto_generichash_blake2b_update(&h, (const uint8_t *)mark, sizeof(mark));
	}
	crypto_generichash_blake2b_final(&h, ret, VM_HASH_SIZE);
}
