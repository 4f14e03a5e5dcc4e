/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t14_ptrace.c - T14: reaching into the agent; and that gdb's way on own children still works
 */
#include <linux/kcmp.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#include "attack.h"

static void test_agent_is_out_of_reach(void)
{
	char byte = 'x';
	struct iovec mine = {&byte, 1}, its = {(void *)0x400000, 1};
	denied(ptrace(PTRACE_ATTACH, 1, NULL, NULL), "ptrace attach to the agent");
	denied(ptrace(PTRACE_SEIZE, 1, NULL, NULL), "ptrace seize of the agent");
	denied(process_vm_readv(1, &mine, 1, &its, 1, 0), "process_vm_readv from the agent");
	denied(process_vm_writev(1, &mine, 1, &its, 1, 0), "process_vm_writev into the agent");
	denied(syscall(SYS_kcmp, 1, getpid(), KCMP_FILE, 0, 0), "kcmp with the agent");
	int pidfd = (int)syscall(SYS_pidfd_open, 1, 0);
	if (pidfd >= 0) {
		for (int fd = 0; fd < 16; fd++)
			if (syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0)
				ok(false, "pidfd_getfd took the agent's descriptor %d", fd);
		denied(
		    syscall(SYS_pidfd_getfd, pidfd, 3, 0), "pidfd_getfd of the agent's listener");
		denied(syscall(SYS_setns, pidfd, 0x00020000), "setns by the agent's pidfd");
		close(pidfd);
	} else {
		ok(errno == EPERM || errno == ENOSYS, "pidfd_open of the agent is refused");
	}
}

/* A namespace's init ignores signals from inside that it has no handler for; KILL and STOP never
 * reach it. */
static void test_agent_cannot_be_killed(void)
{
	kill(1, SIGKILL);
	kill(1, SIGSTOP);
	kill(1, SIGSEGV);
	kill(1, SIGABRT);
	ok(kill(1, 0) == 0, "the agent outlives SIGKILL, SIGSTOP, SIGSEGV and SIGABRT");
	char state[512] = "";
	int fd = open("/proc/1/stat", O_RDONLY | O_CLOEXEC);
	ok(fd >= 0 && read(fd, state, sizeof(state) - 1) > 0, "its state can be read");
	const char *p = strrchr(state, ')');
	ok(p && p[2] != 'T' && p[2] != 'Z', "it is neither stopped nor dead");
	if (fd >= 0)
		close(fd);
}

static void test_own_child_can_be_traced(void)
{
	pid_t child = fork();
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(7);
	}
	int status = 0;
	ok(waitpid(child, &status, 0) == child && WIFSTOPPED(status), "a traced child stops");
	ok(ptrace(PTRACE_CONT, child, NULL, NULL) == 0, "and goes on");
	ok(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7,
	    "to its end");
}

int main(int argc, char **argv)
{
	attack_init(argc, argv);
	test_agent_is_out_of_reach();
	test_agent_cannot_be_killed();
	if (!attack_in_vm_)
		test_own_child_can_be_traced();
	else if (!attack_seccomp_off_)
		denied(ptrace(PTRACE_TRACEME, 0, NULL, NULL), "tracing");
	return tap_done();
}
