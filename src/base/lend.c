/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lend.c - two files that one process may open and another one reads (see lend.h)
 */
#include "base/lend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/banned.h"

#define ASK 'r'

/* 0, or a positive errno; a descriptor goes behind those that are there. */
static int32_t lend_one(const char *path, int fds[static AV_LEND_FILES], size_t *n)
{
	/* O_NONBLOCK: not to wait for the writer of a FIFO. */
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
	fds[(*n)++] = AV_TAKE_FD(fd);
	return 0;
}

int av_lend_serve(int sock, const char *const paths[static AV_LEND_FILES])
{
	int32_t errors[AV_LEND_FILES];
	int fds[AV_LEND_FILES] = {-1, -1};
	size_t n = 0;
	char byte;
	ssize_t r = recv(sock, &byte, sizeof(byte), MSG_DONTWAIT);

	if (r < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EPIPE;
	if (r == 0)
		return -EPIPE;
	for (size_t i = 0; i < AV_LEND_FILES; i++)
		errors[i] = lend_one(paths[i], fds, &n);
	r = av_send_fds(sock, errors, sizeof(errors), fds, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	for (size_t i = 0; i < n; i++)
		av_close_fd(&fds[i]);
	return r == -EAGAIN ? -EAGAIN : r < 0 ? -EPIPE : 0;
}

int av_lend_ask(int sock)
{
	const char byte = ASK;

	return send(sock, &byte, sizeof(byte), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int av_lend_take(int sock, struct av_lent ret[static AV_LEND_FILES])
{
	int32_t errors[AV_LEND_FILES];
	int fds[AV_FD_PASS_MAX];
	size_t n = 0, want = 0, next = 0;
	ssize_t r = av_recv_fds(sock, errors, sizeof(errors), fds, &n, MSG_DONTWAIT);

	if (r == -EAGAIN || r == -EINTR)
		return -EAGAIN;
	for (size_t i = 0; i < AV_LEND_FILES && r == sizeof(errors); i++)
		want += errors[i] == 0;
	if (r != sizeof(errors) || n != want) {
		for (size_t i = 0; r >= 0 && i < n; i++)
			av_close_fd(&fds[i]);
		return r == 0 || (r < 0 && r != -EMSGSIZE) ? -EPIPE : -EBADMSG;
	}
	for (size_t i = 0; i < AV_LEND_FILES; i++)
		ret[i] = (struct av_lent){.fd = errors[i] ? -1 : fds[next++], .error = errors[i]};
	return 0;
}
