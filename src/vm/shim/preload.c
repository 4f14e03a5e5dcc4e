/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preload.c - the object that is preloaded into QEMU (vm/shim.h says why and how)
 *
 * Theory of operation. It is linked with nothing, so that it loads beside any C library: it makes
 * its system calls itself, and of the C library takes two names that all of them have, errno's
 * place and the environment. What the functions below do not change goes to the kernel as it came.
 *
 * It is settled at the first call of any of them when there is an environment: constructors may run
 * before the C library has one. That is in QEMU's first thread, long before it starts others.
 *
 * This is no border: QEMU may make any system call itself. It is there because QEMU asks for more
 * than it needs.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "vm/shim.h"
#include "base/banned.h"

#define EXPORT     __attribute__((visibility("default")))
#define EBADF_     9
#define PUNCH_HOLE 0x02 /* FALLOC_FL_PUNCH_HOLE */

extern int *__errno_location(void) __attribute__((weak));
extern char **environ __attribute__((weak));

static bool settled;
static const char *memory; /* in the environment's strings; NULL: no such file */
static int memory_fd = -1;
static int kvm_fd = -1;

/* ---- without a C library ---- */

static long call4(long nr, long a, long b, long c, long d)
{
#if defined(__x86_64__)
	long ret;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall"
	                 : "=a"(ret)
	                 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
	                 : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
#else
#error "no system calls are known for this processor"
#endif
}

static int answer(long r)
{
	if (r >= 0)
		return (int)r;
	if (__errno_location)
		*__errno_location() = (int)-r;
	return -1;
}

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* What stands behind "NAME=", or NULL. */
static const char *value_of(const char *entry, const char *name)
{
	while (*name && *entry == *name) {
		entry++;
		name++;
	}
	return *name == '\0' && *entry == '=' ? entry + 1 : NULL;
}

/* -1 for what is not a descriptor's number. */
static int number(const char *s)
{
	int n = 0;
	if (!*s)
		return -1;
	for (; *s; s++) {
		if (*s < '0' || *s > '9' || n > 100000)
			return -1;
		n = n * 10 + (*s - '0');
	}
	return n;
}

/* ---- what it is told ---- */

static bool take(const char *entry)
{
	const char *v;
	if ((v = value_of(entry, VM_SHIM_ENV_MEMORY))) {
		memory = v;
		return true;
	}
	if ((v = value_of(entry, VM_SHIM_ENV_KVM))) {
		kvm_fd = number(v);
		return true;
	}
	return value_of(entry, "LD_PRELOAD") != NULL;
}

/* QEMU and what it executes have no use for these. */
static void settle(void)
{
	if (settled || !&environ || !environ)
		return;
	settled = true;
	char **to = environ;
	for (char **from = environ; *from; from++)
		if (!take(*from))
			*to++ = *from;
	*to = NULL;
}

/* ---- what QEMU calls ---- */

static int open_at(int dirfd, const char *path, int flags, int mode)
{
	settle();
	if (kvm_fd >= 0 && same(path, "/dev/kvm"))
		return answer(call4(SYS_fcntl, kvm_fd, F_DUPFD_CLOEXEC, 3, 0));
	if (!memory || !same(path, memory))
		return answer(call4(SYS_openat, dirfd, (long)path, flags, mode));
	long r = call4(SYS_openat, dirfd, (long)path, O_RDONLY | O_CLOEXEC, 0);
	if (r >= 0)
		memory_fd = (int)r;
	return answer(r);
}

/* The kernel refuses since the file is open for reading only. To QEMU it is done: what follows is
 * madvise(MADV_DONTNEED), which is what gives private pages back. */
static int allocate(int fd, int mode, long offset, long n)
{
	long r = call4(SYS_fallocate, fd, mode, offset, n);
	if (r == -EBADF_ && fd >= 0 && fd == memory_fd && (mode & PUNCH_HOLE))
		return 0;
	return answer(r);
}

/* The mode is there only when a file may be made. */
#define MODE_OF(flags)                                                                             \
	({                                                                                         \
		int mode_ = 0;                                                                     \
		if (((flags)&O_CREAT) || ((flags)&O_TMPFILE) == O_TMPFILE) {                       \
			va_list ap;                                                                \
			va_start(ap, flags);                                                       \
			mode_ = va_arg(ap, int);                                                   \
			va_end(ap);                                                                \
		}                                                                                  \
		mode_;                                                                             \
	})

EXPORT int open(const char *path, int flags, ...);
EXPORT int open64(const char *path, int flags, ...);
EXPORT int openat(int dirfd, const char *path, int flags, ...);
EXPORT int openat64(int dirfd, const char *path, int flags, ...);
EXPORT int __open_2(const char *path, int flags);
EXPORT int __open64_2(const char *path, int flags);
EXPORT int __openat_2(int dirfd, const char *path, int flags);
EXPORT int __openat64_2(int dirfd, const char *path, int flags);
EXPORT int fallocate(int fd, int mode, off_t offset, off_t n);
EXPORT int fallocate64(int fd, int mode, off64_t offset, off64_t n);

int open(const char *path, int flags, ...)
{
	return open_at(AT_FDCWD, path, flags, MODE_OF(flags));
}

int open64(const char *path, int flags, ...)
{
	return open_at(AT_FDCWD, path, flags, MODE_OF(flags));
}

int openat(int dirfd, const char *path, int flags, ...)
{
	return open_at(dirfd, path, flags, MODE_OF(flags));
}

int openat64(int dirfd, const char *path, int flags, ...)
{
	return open_at(dirfd, path, flags, MODE_OF(flags));
}

int __open_2(const char *path, int flags)
{
	return open_at(AT_FDCWD, path, flags, 0);
}

int __open64_2(const char *path, int flags)
{
	return open_at(AT_FDCWD, path, flags, 0);
}

int __openat_2(int dirfd, const char *path, int flags)
{
	return open_at(dirfd, path, flags, 0);
}

int __openat64_2(int dirfd, const char *path, int flags)
{
	return open_at(dirfd, path, flags, 0);
}

int fallocate(int fd, int mode, off_t offset, off_t n)
{
	return allocate(fd, mode, offset, n);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t n)
{
	return allocate(fd, mode, offset, n);
}
