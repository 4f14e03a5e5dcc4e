/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t17_privilege.c - T17: capabilities, set-uid programs, file capabilities
 *
 * `sudo` (default) or `nosudo` as last argument: whether the sandbox was created with sudo allowed.
 */
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <linux/capability.h>

#include "attack.h"

static unsigned long long status_hex(const char *field)
{
	char text[8192];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	const char *p = strstr(text, field);
	return p ? strtoull(p + strlen(field), NULL, 16) : ~0ull;
}

#define BIT(c) (1ull << (c))
/* SECURITY.md: what sandbox root may hold at most. */
#define ALLOWED                                                                                    \
	(BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) |              \
	    BIT(CAP_KILL) | BIT(CAP_SETGID) | BIT(CAP_SETUID) | BIT(CAP_SETPCAP) |                 \
	    BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SYS_CHROOT) | BIT(CAP_AUDIT_WRITE) |               \
	    BIT(CAP_SETFCAP))

static void test_capability_sets(void)
{
	if (attack_in_vm_)
		ok((status_hex("CapBnd:\t") | status_hex("CapPrm:\t")) == 0,
		    "there is no capability, and none to be had");
	ok(status_hex("CapInh:\t") == 0, "the inheritable set is empty");
	ok(status_hex("CapAmb:\t") == 0, "the ambient set is empty");
	ok((status_hex("CapBnd:\t") & ~ALLOWED) == 0,
	    "the bounding set holds nothing more than stated");
	ok((status_hex("CapPrm:\t") & ~ALLOWED) == 0, "nor does the permitted set");
	ok((status_hex("CapEff:\t") & ~ALLOWED) == 0, "nor does the effective set");
	ok(prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN) == 0, "CAP_SYS_ADMIN is out of reach");
	refused(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0),
	    "raising an ambient capability");
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct all[2] = {{~0u, ~0u, ~0u}, {~0u, ~0u, ~0u}};
	refused(syscall(SYS_capset, &header, all), "taking all capabilities");
}

/* A program that this file is too: with "child" it prints its effective set's excess. */
static int file_capability_child(void)
{
	return (status_hex("CapEff:\t") & ~ALLOWED) ? 1 : 0;
}

static bool copy_self(const char *to, mode_t mode)
{
	char buf[65536];
	int in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	ssize_t n = -1;
	while (in >= 0 && out >= 0 && (n = read(in, buf, sizeof(buf))) > 0)
		if (write(out, buf, (size_t)n) != n)
			break;
	bool good = n == 0 && fchmod(out, mode) == 0;
	close(in);
	close(out);
	return good;
}

static int run(const char *path, const char *arg, uid_t uid)
{
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		if (uid && (setgid(uid) < 0 || setuid(uid) < 0))
			_exit(99);
		execl(path, path, arg, (char *)NULL);
		_exit(126);
	}
	int status = -1;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void test_file_capabilities(void)
{
	struct vfs_cap_data cap = {
	    .magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
	    .data = {{.permitted = 1u << CAP_SYS_ADMIN}, {0}},
	};
	ok(copy_self("/tmp/capable", 0755), "a copy of this program");
	if (setxattr("/tmp/capable", "security.capability", &cap, sizeof(cap), 0) < 0)
		printf("# setxattr: %s\n", strerror(errno));
	int r = run("/tmp/capable", "child", 0);
	ok(r == 0 || r == 126, "a file capability for CAP_SYS_ADMIN gives nothing (status %d)", r);
}

static void test_set_uid(bool sudo)
{
	ok(copy_self("/tmp/setuid", 04755), "a set-uid root copy of this program");
	int r = run("/tmp/setuid", "euid", 1000);
	if (attack_in_vm_)
		ok(r == 99, "nobody becomes another user (status %d)", r);
	else if (sudo)
		ok(r == 0, "set-uid programs give sandbox root, as sudo needs");
	else
		ok(r == 1, "set-uid programs give nothing with sudo off");
	ok((prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) == !sudo, "no_new_privs is as stated");
}

int main(int argc, char **argv)
{
	attack_init(argc, argv);
	if (argc > 1 && strcmp(argv[1], "child") == 0)
		return file_capability_child();
	if (argc > 1 && strcmp(argv[1], "euid") == 0)
		return geteuid() == 0 ? 0 : 1;
	bool sudo = !(argc > 1 && strcmp(argv[argc - 1], "nosudo") == 0);
	test_capability_sets();
	test_file_capabilities();
	test_set_uid(sudo);
	return tap_done();
}
