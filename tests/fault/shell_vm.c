/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shell_vm.c - the first process of a virtual machine's jail, for tests that look around in there
 *
 * Whoever connects to agent.sock has a shell, which keeps the descriptors that aviary-vm finds (3
 * to 7); each packet to vm.sock is sent back. It takes the place of aviary-vm, which executes only
 * QEMU and what makes file systems, and so could show nothing of the jail.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shell.h"

enum { LISTENER = 3, VM_LISTENER = 5, LAST = 7 };

static void echo(int c)
{
	char buf[256];
	ssize_t n;
	while ((n = recv(c, buf, sizeof(buf), 0)) > 0)
		if (send(c, buf, (size_t)n, MSG_NOSIGNAL) < 0)
			break;
	_exit(0);
}

int main(void)
{
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		struct pollfd p[] = {
		    {.fd = LISTENER, .events = POLLIN}, {.fd = VM_LISTENER, .events = POLLIN}};
		poll(p, 2, -1);
		for (int i = 0; i < 2; i++) {
			/* Kept out of the way of what is looked at. */
			int c = p[i].revents ? accept4(p[i].fd, NULL, NULL, SOCK_CLOEXEC) : -1;
			if (c < 0)
				continue;
			if (fork() == 0) {
				if (i == 0)
					shell_run(c, LAST);
				else
					echo(c);
			}
			close(c);
		}
	}
}
