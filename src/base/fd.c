/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fd.c - descriptors
 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/banned.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

void av_closep(int *fd)
{
	int saved = errno;
	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

void av_close_fd(int *fd)
{
	av_closep(fd);
	*fd = -1;
}

ssize_t av_read_full(int fd, void *p, size_t n)
{
	char *dst = p;
	size_t got = 0;
	while (got < n) {
		ssize_t r = read(fd, dst + got, n - got);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		got += (size_t)r;
	}
	return (ssize_t)got;
}

int av_write_full(int fd, const void *p, size_t n)
{
	const char *src = p;
	while (n) {
		ssize_t r = write(fd, src, n);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		src += r;
		n -= (size_t)r;
	}
	return 0;
}

ssize_t av_read_file_at(int dirfd, const char *path, char *buf, size_t size)
{
	AV_CLEANUP(av_closep) int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = av_read_full(fd, buf, size);
	if (n < 0)
		return n;
	if ((size_t)n == size)
		return -EFBIG;
	buf[n] = '\0';
	return n;
}

int av_write_file_at(int dirfd, const char *path, struct av_str data)
{
	AV_CLEANUP(av_closep) int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n;
	do {
		n = write(fd, data.p, data.n);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == data.n ? 0 : -EIO;
}

static int change_flag(int fd, int get, int set, int flag, bool on)
{
	int flags = fcntl(fd, get);
	if (flags < 0)
		return -errno;
	int wanted = on ? flags | flag : flags & ~flag;
	return wanted != flags && fcntl(fd, set, wanted) < 0 ? -errno : 0;
}

int av_set_nonblock(int fd, bool on)
{
	return change_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int av_set_cloexec(int fd, bool on)
{
	return change_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

ssize_t av_send_fds(int sock, const void *p, size_t n, const int *fds, size_t nfds, int flags)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * AV_FD_PASS_MAX)];
	} control = {0};
	union {
		const void *in;
		void *out;
	} base = {.in = p}; /* sendmsg does not write; the iovec is shared with recvmsg */
	struct iovec iov = {.iov_base = base.out, .iov_len = n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	if (nfds > AV_FD_PASS_MAX)
		return -EINVAL;
	if (nfds) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	ssize_t r;
	do {
		r = sendmsg(sock, &msg, flags | MSG_NOSIGNAL);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

ssize_t av_recv_fds(
    int sock, void *p, size_t n, int fds[static AV_FD_PASS_MAX], size_t *ret_nfds, int flags)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * AV_FD_PASS_MAX)];
	} control;
	struct iovec iov = {.iov_base = p, .iov_len = n};
	struct msghdr msg = {
	    .msg_iov = &iov,
	    .msg_iovlen = 1,
	    .msg_control = control.bytes,
	    .msg_controllen = sizeof(control.bytes),
	};
	ssize_t r;
	do {
		r = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	size_t count = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < here; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (count < AV_FD_PASS_MAX)
				fds[count++] = fd;
			else
				close(fd);
		}
	}
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		for (size_t i = 0; i < count; i++)
			close(fds[i]);
		return -EMSGSIZE;
	}
	*ret_nfds = count;
	return r;
}

int av_pidfd_open(pid_t pid)
{
	long r = syscall(SYS_pidfd_open, pid, 0);
	return r < 0 ? -errno : (int)r;
}

int av_pidfd_send_signal(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

int av_close_range_from(unsigned int first)
{
	return syscall(SYS_close_range, first, ~0u, 0) < 0 ? -errno : 0;
}

int av_fill_standard_fds(void)
{
	int fd, r;

	do {
		fd = open("/dev/null", O_RDWR | O_NOCTTY | O_CLOEXEC);
		r = fd < 0 ? -errno : fd > 2 ? 0 : av_set_cloexec(fd, false);
	} while (r == 0 && fd <= 2);
	if (fd > 2)
		av_close_fd(&fd);
	return r;
}
