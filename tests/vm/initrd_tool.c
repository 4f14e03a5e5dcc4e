/* SPDX-License-Identifier: Apache-2.0 */
/*
 * initrd_tool.c - initrd_tool AGENT KERNEL INITRD VMLINUZ: writes the first file system of a guest,
 * and a copy of its kernel; prints the kernel's release
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/fd.h"
#include "vm/initrd.h"
#include "base/banned.h"

static int fail(const char *what)
{
	fprintf(stderr, "initrd_tool: %s\n", what);
	return 1;
}

int main(int argc, char **argv)
{
	struct initrd_info info;
	struct av_err err = {0};
	int agent, kernel, vmlinuz, out;

	if (argc != 5)
		return fail("usage: initrd_tool AGENT KERNEL INITRD VMLINUZ");
	agent = open(argv[1], O_RDONLY | O_CLOEXEC);
	kernel = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	out = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (agent < 0 || kernel < 0 || out < 0)
		return fail("cannot open what was named");
	if (initrd_write(out, agent, kernel, &info, &err) < 0 ||
	    initrd_kernel_open(kernel, info.release, &vmlinuz, &err) < 0)
		return fail(err.message);
	close(out);
	out = open(argv[4], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	while (out >= 0 && sendfile(out, vmlinuz, NULL, 1 << 20) > 0)
		;
	printf("%s %zu %llu\n", info.release, info.modules, (unsigned long long)info.bytes);
	return 0;
}
