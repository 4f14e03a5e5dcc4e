/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t16_syscalls.c - T16: system calls that have no place in a sandbox, and foreign entry points
 */
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/reboot.h>
#include <sys/swap.h>
#include <sys/time.h>
#include <time.h>

#include "attack.h"

/* Refused by seccomp only: without it an ordinary process may use these. */
static void test_needs_filter(void)
{
	char params[256] = {0};
	if (attack_seccomp_off_)
		return;
	denied(syscall(SYS_io_uring_setup, 8, params), "io_uring_setup");
	denied(syscall(SYS_io_uring_enter, -1, 0, 0, 0, 0, 0), "io_uring_enter");
	denied(syscall(SYS_io_uring_register, -1, 0, 0, 0), "io_uring_register");
	denied(syscall(SYS_userfaultfd, 1 /* user mode only */), "userfaultfd");
	denied(syscall(SYS_keyctl, 0, -3, 0), "keyctl");
	denied(syscall(SYS_add_key, "user", "x", "y", 1, -3), "add_key");
	denied(syscall(SYS_request_key, "user", "x", 0, 0), "request_key");
	struct perf_event_attr perf = {
	    .type = PERF_TYPE_SOFTWARE, .size = sizeof(perf), .exclude_kernel = 1};
	denied(syscall(SYS_perf_event_open, &perf, 0, -1, -1, 0), "perf_event_open");
	denied(personality(PER_LINUX32), "personality(PER_LINUX32)");
	denied(personality(READ_IMPLIES_EXEC), "personality(READ_IMPLIES_EXEC)");
}

static void test_administration(void)
{
	char scratch[64] = {0};
	union bpf_attr bpf = {
	    .map_type = BPF_MAP_TYPE_HASH, .key_size = 4, .value_size = 4, .max_entries = 1};
	struct timespec ts = {.tv_sec = 1};
	struct timeval tv = {.tv_sec = 1};
	denied(syscall(SYS_bpf, BPF_MAP_CREATE, &bpf, sizeof(bpf)), "bpf");
	denied(syscall(SYS_init_module, "", 0, ""), "init_module");
	denied(syscall(SYS_finit_module, -1, "", 0), "finit_module");
	denied(syscall(SYS_delete_module, "overlay", O_NONBLOCK), "delete_module");
	denied(syscall(SYS_kexec_load, 0, 0, 0, 0), "kexec_load");
	denied(syscall(SYS_kexec_file_load, -1, -1, 0, "", 0), "kexec_file_load");
	denied(swapon("/tmp/x", 0), "swapon");
	denied(syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, 0), "reboot");
	denied(clock_settime(CLOCK_REALTIME, &ts), "clock_settime");
	denied(settimeofday(&tv, NULL), "settimeofday");
	denied(syscall(SYS_sethostname, "x", 1), "sethostname");
	denied(syscall(SYS_setdomainname, "x", 1), "setdomainname");
	denied(syscall(SYS_acct, "/tmp/x"), "acct");
	refused(syscall(SYS_quotactl, 0x80000700, 0, 0, 0), "quotactl");
	denied(syscall(SYS_syslog, 3, scratch, 16), "syslog");
	refused(syscall(SYS_open_by_handle_at, AT_FDCWD, scratch, O_RDONLY), "open_by_handle_at");
	denied(syscall(SYS_lookup_dcookie, 0ll, scratch, 16), "lookup_dcookie");
	denied(syscall(SYS_fanotify_init, 0, 0), "fanotify_init");
	denied(syscall(SYS_vhangup), "vhangup");
	denied(syscall(SYS_nfsservctl, 0, 0, 0), "nfsservctl");
}

static void test_terminal_injection(void)
{
	if (attack_seccomp_off_ || attack_in_vm_)
		return;
	int tty = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	ok(tty >= 0, "a terminal of its own");
	char c = 'x';
	denied(ioctl(tty, TIOCSTI, &c), "TIOCSTI");
	denied(syscall(SYS_ioctl, tty, 0xdeadbeef00000000ull | TIOCSTI, &c),
	    "TIOCSTI with upper bits set");
	denied(ioctl(tty, TIOCLINUX, &c), "TIOCLINUX");
	close(tty);
}

#ifdef __x86_64__
/* getpid by int 0x80: a filter that only knows the 64-bit table would let any 32-bit call pass. */
static int as_int80(void)
{
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory");
	return r > 0 ? 1 : 0;
}

static int as_x32(void)
{
	return syscall(0x40000000 | SYS_getpid) > 0 ? 1 : 0;
}

static void test_foreign_entry_points(void)
{
	if (attack_seccomp_off_)
		return;
	int status = in_child(as_int80);
	ok(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "the 32-bit entry point is closed");
	status = in_child(as_x32);
	ok(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "the x32 entry point is closed");
}
#else
static void test_foreign_entry_points(void)
{
}
#endif

/* Python's threads rely on it: EPERM would break them, ENOSYS makes libc fall back. */
static void test_clone3_is_unknown(void)
{
	if (attack_seccomp_off_)
		return;
	errno = 0;
	long r = syscall(SYS_clone3, NULL, 0);
	ok(r < 0 && errno == ENOSYS, "clone3 answers ENOSYS");
	errno = 0;
	r = syscall(5000);
	ok(r < 0 && errno == ENOSYS, "an unknown number answers ENOSYS");
}

int main(int argc, char **argv)
{
	attack_init(argc, argv);
	test_needs_filter();
	test_administration();
	test_terminal_injection();
	test_foreign_entry_points();
	test_clone3_is_unknown();
	return tap_done();
}
