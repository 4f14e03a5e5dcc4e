/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_lend.c - files opened by one process for another, and what neither gets out of the other
 */
#include "base/lend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "lib/tap.h"
#include "base/banned.h"

static char dir[] = "/tmp/aviary-lend-XXXXXX", good[64], other[64];
static int pair[2];

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || av_write_full(fd, text, strlen(text)) < 0)
		abort();
	(void)close(fd);
}

static void test_lent(void)
{
	const char *const paths[AV_LEND_FILES] = {good, other};
	struct av_lent l[AV_LEND_FILES];
	char text[16] = "";

	is_int(av_lend_serve(pair[0], paths), -EAGAIN, "nobody asked");
	is_int(av_lend_take(pair[1], l), -EAGAIN, "nothing there");
	is_int(av_lend_ask(pair[1]), 0, "asked");
	is_int(av_lend_serve(pair[0], paths), 0, "answered");
	is_int(av_lend_take(pair[1], l), 0, "taken");
	is_int(l[0].error, 0, "the first is there");
	is_int(read(l[0].fd, text, sizeof(text)), 4, "and can be read");
	is_str(text, "good", "what it says");
	is_int(fcntl(l[0].fd, F_GETFL) & O_ACCMODE, O_RDONLY, "only read");
	is_int(fcntl(l[0].fd, F_GETFD), FD_CLOEXEC, "and stays in this process");
	is_int(l[1].error, ENOENT, "the second is not");
	is_int(l[1].fd, -1, "so there is no descriptor");
	(void)close(l[0].fd);
}

static int lend_other(void)
{
	const char *const paths[AV_LEND_FILES] = {other, good};
	struct av_lent l[AV_LEND_FILES];

	if (av_lend_ask(pair[1]) < 0 || av_lend_serve(pair[0], paths) < 0 ||
	    av_lend_take(pair[1], l) < 0)
		return -1;
	av_close_fd(&l[0].fd);
	av_close_fd(&l[1].fd);
	return l[0].error;
}

static void test_not_lent(void)
{
	is_int(lend_other(), ENOENT, "missing");
	(void)mkdir(other, 0700);
	is_int(lend_other(), EISDIR, "a directory");
	(void)rmdir(other);
	(void)mkfifo(other, 0600);
	is_int(lend_other(), EINVAL, "a FIFO, and nobody waits for its writer");
	(void)unlink(other);
	is_int(symlink("/dev/zero", other), 0, "a link");
	is_int(lend_other(), EINVAL, "a device behind a link");
	(void)unlink(other);
	is_int(symlink(good, other), 0, "a link");
	is_int(lend_other(), 0, "a file behind a link is fine");
	(void)unlink(other);
}

/* Either may be taken over. */
static void test_hostile(void)
{
	const char *const paths[AV_LEND_FILES] = {good, good};
	struct av_lent l[AV_LEND_FILES] = {{.fd = -7}, {.fd = -7}};
	int32_t errors[AV_LEND_FILES] = {0, 0};
	int fds[AV_LEND_FILES] = {pair[0], pair[0]}, r = 0, before, after;

	is_int(
	    send(pair[1], "a longer request with a path", 28, 0), 28, "a request of another kind");
	is_int(av_lend_serve(pair[0], paths), 0, "is a request like any other");
	is_int(av_lend_take(pair[1], l), 0, "answered with the same");
	av_close_fd(&l[0].fd);
	av_close_fd(&l[1].fd);
	l[0].fd = l[1].fd = -7;
	for (int i = 0; i < 10000 && r == 0; i++)
		r = av_lend_ask(pair[1]) == 0 ? av_lend_serve(pair[0], paths) : -EAGAIN;
	is_int(r, -EAGAIN, "a borrower that takes no answers holds nobody up");
	while (av_lend_take(pair[1], l) == 0) {
		av_close_fd(&l[0].fd);
		av_close_fd(&l[1].fd);
	}
	while (av_lend_serve(pair[0], paths) == 0)
		while (av_lend_take(pair[1], l) == 0) {
			av_close_fd(&l[0].fd);
			av_close_fd(&l[1].fd);
		}
	l[0].fd = -7;
	before = dup(0);
	(void)close(before);
	(void)av_send_fds(pair[0], errors, sizeof(errors), fds, 1, 0);
	is_int(av_lend_take(pair[1], l), -EBADMSG, "fewer descriptors than said");
	errors[0] = errors[1] = EIO;
	(void)av_send_fds(pair[0], errors, sizeof(errors), fds, 2, 0);
	is_int(av_lend_take(pair[1], l), -EBADMSG, "more than said");
	(void)av_send_fds(pair[0], errors, 3, fds, 1, 0);
	is_int(av_lend_take(pair[1], l), -EBADMSG, "a short message");
	is_int(l[0].fd, -7, "outputs are as they were");
	after = dup(0);
	(void)close(after);
	is_int(after, before, "and no descriptor is left");
}

static void test_gone(void)
{
	const char *const paths[AV_LEND_FILES] = {good, good};
	struct av_lent l[AV_LEND_FILES];

	is_int(av_lend_ask(pair[1]), 0, "asked");
	(void)close(pair[1]);
	is_int(av_lend_serve(pair[0], paths), -EPIPE, "the borrower is gone");
	is_int(av_lend_serve(pair[0], paths), -EPIPE, "and stays so");
	(void)close(pair[0]);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	(void)close(pair[0]);
	is_int(av_lend_take(pair[1], l), -EPIPE, "the lender is gone");
	ok(av_lend_ask(pair[1]) < 0, "and cannot be asked");
	(void)close(pair[1]);
}

int main(void)
{
	if (!mkdtemp(dir) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return 1;
	(void)snprintf(good, sizeof good, "%s/good", dir);
	(void)snprintf(other, sizeof other, "%s/other", dir);
	write_file(good, "good");
	test_lent();
	test_not_lent();
	test_hostile();
	test_gone();
	(void)unlink(good);
	(void)rmdir(dir);
	return tap_done();
}
