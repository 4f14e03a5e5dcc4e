/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shim.c - the preloaded object as a file that QEMU can be started with
 */
#include "vm/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "base/fd.h"
#include "vm/shim_bytes.h"
#include "base/banned.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U /* Linux 6.3 */
#endif

int vm_shim_open(struct av_err *err)
{
	/* The word is for kernels whose memory files cannot be executed by default. */
	AV_CLEANUP(av_closep)
	int fd = memfd_create("aviary-shim", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("aviary-shim", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno,
		    "no memory file can be made for what is preloaded into QEMU");
	int r = av_write_full(fd, vm_shim_bytes, vm_shim_size);
	if (r < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, r, "what is preloaded into QEMU cannot be written");
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
		return av_err_sys(
		    err, AV_ERR_INTERNAL, errno, "what is preloaded into QEMU cannot be sealed");
	return AV_TAKE_FD(fd);
}
