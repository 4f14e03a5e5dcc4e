/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_host_template.c - template `host` made from this machine, and programs run in it
 *
 * The root is put together as the worker does it (overlay of root/, overlay of usr-mask/ over
 * /usr), in a mount namespace of its own, and entered by chroot; ids and namespaces are the jail's
 * matter.
 */
#include "lib/tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"
#include "spawn/host_template.h"

static char base[64];
static struct av_err err;

static bool make_root(const char *generation)
{
	char opts[512], path[128];
	const char *const names[] = {"up", "work", "uup", "uwork", "root"};
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", base, names[i]);
		if (mkdir(path, 0755) < 0)
			return false;
	}
	(void)snprintf(path, sizeof(path), "%s/root", base);
	if (av_path_printf(opts, sizeof(opts), "lowerdir=%s/root,upperdir=%s/up,workdir=%s/work",
	        generation, base, base) < 0 ||
	    mount("overlay", path, "overlay", 0, opts) < 0)
		return false;
	(void)snprintf(path, sizeof(path), "%s/root/usr", base);
	if (av_path_printf(opts, sizeof(opts),
	        "lowerdir=%s/usr-mask:/usr,upperdir=%s/uup,workdir=%s/uwork", generation, base,
	        base) < 0 ||
	    mount("overlay", path, "overlay", 0, opts) < 0)
		return false;
	(void)snprintf(path, sizeof(path), "%s/root/proc", base);
	if (mount("proc", path, "proc", 0, NULL) < 0)
		return false;
	(void)snprintf(path, sizeof(path), "%s/root/dev", base);
	return mount("/dev", path, NULL, MS_BIND, NULL) == 0;
}

static int run(const char *command)
{
	char root[128];
	(void)snprintf(root, sizeof(root), "%s/root", base);
	pid_t pid = fork();
	if (pid == 0) {
		char *env[] = {(char[]){"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		    (char[]){"HOME=/root"}, NULL};
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);
		(void)dup2(null, 0);
		(void)dup2(2, 1);
		if (chroot(root) == 0 && chdir("/") == 0)
			(void)execle("/bin/sh", "sh", "-c", command, (char *)NULL, env);
		_exit(127);
	}
	int status = -1;
	(void)waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static const struct {
	const char *needs; /* a program of the host, or NULL */
	const char *command;
} commands[] = {
    {NULL, "test \"$(id -un)\" = root && test -w /tmp && test -d /home/user"},
    {NULL, "test ! -s /etc/machine-id && ! ls /etc/ssh/*key 2>/dev/null"},
    {NULL, "awk -F: '$2 != \"*\" {exit 1}' /etc/shadow"},
    {NULL, "test ! -e /usr/share/polkit-1/rules.d || test -r /usr/share/polkit-1/rules.d"},
    {"sudo", "sudo -n -u user id -un | grep -qx user"},
    {"sudo", "sudo -n -u user sudo -n id -u | grep -qx 0"},
    {"su", "su user -c 'id -u' | grep -qx 1000"},
    {"su", "su - user -c 'pwd' | grep -qx /home/user"},
    {"python3", "python3 -c 'import json, ssl, ctypes, multiprocessing; print(1)' >/dev/null"},
    {"python3", "python3 -c 'import ssl; assert ssl.create_default_context().get_ca_certs()'"},
    {"node", "node -e 'require(\"fs\").readFileSync(\"/etc/passwd\")'"},
    {"git", "cd /tmp && git init -q r && cd r && git -c user.name=a -c user.email=b commit -q "
            "--allow-empty -m x"},
    {"gcc", "cd /tmp && echo 'int main(void){return 0;}' >a.c && gcc -o a a.c && ./a"},
    {"gdb", "gdb -batch -ex 'print 1+1' | grep -q '= 2'"},
    {"java", "java -version 2>/dev/null"},
    {"perl", "perl -MPOSIX -e '1'"},
    {"dpkg",
        "dpkg -l dpkg >/dev/null && dpkg -L dpkg >/dev/null && dpkg -S /usr/bin/dpkg >/dev/null"},
    {"apt-get", "apt-get -s remove apt-utils >/dev/null && apt-get -s check >/dev/null"},
    {"awk", "echo x | awk '{exit $1 != \"x\"}'"},
};

static bool host_has(const char *program)
{
	char path[64];
	(void)snprintf(path, sizeof(path), "/usr/bin/%s", program);
	return access(path, X_OK) == 0;
}

static bool whiteout_in(int dirfd, const char *path)
{
	struct stat st;
	return fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISCHR(st.st_mode) &&
	       st.st_rdev == 0;
}

static void check_generation(const struct host_template *t)
{
	struct stat st;
	is_int(fstatat(t->root_fd, "tmp", &st, 0), 0, "/tmp");
	is_int(st.st_mode & 07777, 01777, "is sticky");
	is_int(fstatat(t->root_fd, "etc/sudoers", &st, 0), 0, "/etc/sudoers");
	is_int(st.st_mode & 07777, 0440, "has its mode");
	is_int(fstatat(t->root_fd, "home/user", &st, 0), 0, "/home/user");
	is_int(st.st_uid, 1000, "belongs to user");
	ok(faccessat(t->root_fd, "etc/ssh", F_OK, 0) < 0, "no ssh configuration");
	if (stat("/usr/share/polkit-1/rules.d", &st) == 0 && (st.st_mode & 0005) != 0005)
		ok(whiteout_in(t->usr_mask_fd, "share/polkit-1/rules.d"),
		    "private directory masked");
}

static void lifecycle(int host, int state)
{
	struct host_template_options opt = {0};
	struct host_template t = HOST_TEMPLATE_INIT, again = HOST_TEMPLATE_INIT;
	char fp[HOST_TEMPLATE_FP_SIZE];
	is_int(host_template_open(state, &t, &err), -ENOENT, "none at first");
	int64_t t0 = av_mono_ns();
	if (!is_int(host_template_make(host, state, &opt, &err), 0, "make"))
		diag("%s", err.message);
	diag("made in %.0f ms", (double)(av_mono_ns() - t0) / 1e6);
	t0 = av_mono_ns();
	is_int(host_template_fingerprint(host, fp), 0, "fingerprint");
	diag("fingerprint in %.3f ms", (double)(av_mono_ns() - t0) / 1e6);
	t0 = av_mono_ns();
	is_int(host_template_make(host, state, &opt, &err), 0, "make again");
	ok(av_mono_ns() - t0 < 50 * AV_NS_PER_MS, "is quick");
	is_int(host_template_open(state, &t, &err), 0, "open");
	is_str(t.fingerprint, fp, "fingerprint of the generation");
	check_generation(&t);
	opt.id_shift = 0x70010000;
	is_int(host_template_make(host, state, &opt, &err), 0, "make a shifted one");
	is_int(host_template_open(state, &again, &err), 0, "open it");
	struct stat st;
	is_int(fstatat(again.root_fd, "home/user", &st, 0), 0, "its /home/user");
	is_int(st.st_uid, 0x70010000 + 1000, "is shifted");
	is_int(fstatat(again.root_fd, "bin", &st, AT_SYMLINK_NOFOLLOW), 0, "its /bin");
	is_int(st.st_uid, 0x70010000, "is shifted as well");
	ok(faccessat(t.root_fd, "etc/passwd", F_OK, 0) == 0, "the old generation is untouched");
	is_int(host_template_gc(state, false), 0, "gc with sandboxes");
	ok(faccessat(t.root_fd, "etc/passwd", F_OK, 0) == 0, "keeps it");
	is_int(host_template_gc(state, true), 0, "gc without");
	ok(faccessat(t.root_fd, "etc/passwd", F_OK, 0) < 0, "removes it");
	host_template_clear(&t);
	host_template_clear(&again);
	opt.id_shift = 0;
	is_int(host_template_make(host, state, &opt, &err), 0, "make for the programs");
	is_int(host_template_gc(state, true), 0, "gc");
}

static void programs(void)
{
	char generation[160], link[64] = "", path[128];
	(void)snprintf(path, sizeof(path), "%s/state/templates/host/current", base);
	(void)!readlink(path, link, sizeof(link) - 1);
	(void)snprintf(generation, sizeof(generation), "%s/state/templates/host/%s", base, link);
	if (!ok(make_root(generation), "root put together (%s)", strerror(errno)))
		return;
	for (size_t i = 0; i < AV_ARRAY_LEN(commands); i++) {
		if (commands[i].needs && !host_has(commands[i].needs))
			printf("ok %d - %s # SKIP not on this machine\n", ++tap_count_,
			    commands[i].needs);
		else
			is_int(run(commands[i].command), 0, commands[i].command);
	}
}

/* Whoever dies while making it: what was in use stays, and the next one completes it. */
static void crash(int host, int state, const char *point)
{
	char env[64], path[96];
	int status = 0;
	struct host_template t = HOST_TEMPLATE_INIT;
	struct host_template_options opt = {.id_shift = 0x70020000};
	(void)snprintf(env, sizeof(env), "%s=kill", point);
	(void)snprintf(path, sizeof(path), "%s/state", base);
	pid_t pid = fork();
	if (pid == 0) {
		(void)setenv("AVIARY_FAILPOINT", env, 1);
		(void)execl("/proc/self/exe", "test_host_template", "--crash", path, (char *)NULL);
		_exit(1);
	}
	(void)waitpid(pid, &status, 0);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "died at %s", point);
	is_int(host_template_open(state, &t, &err), 0, "the old one is still in use");
	ok(faccessat(t.root_fd, "etc/passwd", F_OK, 0) == 0, "and whole");
	host_template_clear(&t);
	is_int(host_template_make(host, state, &opt, &err), 0, "the next maker");
	is_int(host_template_open(state, &t, &err), 0, "leaves a new one");
	ok(faccessat(t.root_fd, "etc/shadow", F_OK, 0) == 0, "that is whole");
	host_template_clear(&t);
	opt.id_shift = 0;
	is_int(host_template_make(host, state, &opt, &err), 0, "back");
	is_int(host_template_gc(state, true), 0, "gc");
}

static int crash_main(const char *state)
{
	struct host_template_options opt = {.id_shift = 0x70020000};
	int host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return host_template_make(host, fd, &opt, &err) < 0;
}

int main(int argc, char **argv)
{
	char state[96];
	if (argc == 3 && strcmp(argv[1], "--crash") == 0)
		return crash_main(argv[2]);
	if (geteuid() != 0)
		tap_skip_all(true, "owners and mounts need root");
	(void)alarm(110);
	if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		tap_skip_all(true, "no mount namespace: %s", strerror(errno));
	(void)snprintf(base, sizeof(base), "/var/tmp/aviary-host-XXXXXX");
	if (mkdtemp(base) == NULL || mount("aviary", base, "tmpfs", 0, "mode=0755") < 0)
		return 1;
	(void)snprintf(state, sizeof(state), "%s/state", base);
	if (mkdir(state, 0700) < 0)
		return 1;
	int host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	lifecycle(host, fd);
#ifdef AVIARY_FAILPOINTS
	crash(host, fd, "host_template_skeleton");
	crash(host, fd, "host_template_built");
	crash(host, fd, "host_template_renamed");
#else
	(void)crash;
#endif
	programs();
	close(host);
	close(fd);
	(void)umount2(base, MNT_DETACH);
	is_int(rmdir(base), 0, "nothing is left");
	return tap_done();
}
