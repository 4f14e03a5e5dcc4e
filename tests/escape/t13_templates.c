/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t13_templates.c - T13: a template whose root file system is an attack on who mounts it
 *
 * Whatever lies where a directory is expected, also when it changes during the create, the outcome
 * is a create that fails with a sentence or a sandbox that harms nobody. Options are aviary-spawn's
 * (--overlay names, ...), or `rootless` first; the checksum of templates, the first lock, is off
 * where it would hide the second one. In the end the bait outside is as it was, and nothing is
 * left.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"
#include "tests/fault/spawn_test.h"
#include "tests/fault/template_tools.h"
#include "tests/lib/tap.h"
#include "base/banned.h"

#define RACE_NS (2 * AV_NS_PER_S)

static char out[65536];
static char bait[160]; /* a directory of the host's, writable for everybody */

/* ---- the world outside ---- */

struct world {
	unsigned int bait_entries, bait_dev_entries, mounts;
	struct stat null, bait, etc;
};

static unsigned int count_entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned int n = 0;
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static unsigned int count_mounts(pid_t pid)
{
	char path[64];
	unsigned int n = 0;
	snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
	FILE *f = fopen(path, "re");
	for (int c; f && (c = fgetc(f)) != EOF;)
		n += c == '\n';
	if (f)
		fclose(f);
	return n;
}

static void look(struct world *w)
{
	char dev[200];
	*w = (struct world){0};
	snprintf(dev, sizeof(dev), "%s/dev", bait);
	w->bait_entries = count_entries(bait);
	w->bait_dev_entries = count_entries(dev);
	w->mounts = count_mounts(getpid());
	stat("/dev/null", &w->null);
	stat(bait, &w->bait);
	stat("/etc", &w->etc);
}

static void is_untouched(const struct world *before)
{
	struct world now;
	look(&now);
	is_int(now.bait_entries, before->bait_entries, "the bait has the entries it had");
	is_int(now.bait_dev_entries, before->bait_dev_entries, "so has its dev");
	is_int(now.mounts, before->mounts, "nothing is mounted in the host's namespace");
	ok(now.bait.st_mtim.tv_nsec == before->bait.st_mtim.tv_nsec &&
	        now.bait.st_ctim.tv_nsec == before->bait.st_ctim.tv_nsec &&
	        now.bait.st_dev == before->bait.st_dev,
	    "the bait was not written, not changed and not covered");
	ok(S_ISCHR(now.null.st_mode) && now.null.st_rdev == makedev(1, 3) &&
	        now.null.st_mode == before->null.st_mode && now.null.st_uid == before->null.st_uid,
	    "the host's /dev/null is what it was");
	ok(now.etc.st_mtim.tv_sec == before->etc.st_mtim.tv_sec, "the host's /etc was not written");
}

/* ---- what can lie at a name ---- */

static const char *const names[] = {
    "dev", "proc", "sys", "run", "tmp", "etc", "usr", "bin", "lib64", "home", "var"};

enum kind {
	BAIT,
	RELATIVE,
	ROOT_LINK,
	MAGIC_ROOT,
	MAGIC_FD,
	LOOP,
	DANGLING,
	PLAIN_FILE,
	PIPE,
	KINDS
};

static int place(enum kind kind, const char *name, const char *path)
{
	static const char *const targets[] = {
	    [RELATIVE] = "../../../../../../../../../../tmp",
	    [ROOT_LINK] = "/",
	    [MAGIC_ROOT] = "/proc/1/root/tmp",
	    [MAGIC_FD] = "/proc/self/fd/3",
	    [DANGLING] = "/nowhere/at/all",
	};
	switch (kind) {
	case BAIT:
		return symlink(bait, path);
	case LOOP:
		return symlink(name, path);
	case PLAIN_FILE: {
		int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
		av_close_fd(&fd);
		return access(path, F_OK);
	}
	case PIPE:
		return mkfifo(path, 0666);
	default:
		return symlink(targets[kind], path);
	}
}

static int create(
    struct spawn_client *c, const struct template_tool *t, char *id, struct spawn_reply *r)
{
	struct spawn_request q;
	spawn_client_create_request(&q);
	memcpy(q.u.create.template_id, t->id, sizeof(t->id));
	memcpy(id, q.id, SPAWN_ID_SIZE);
	if (!spawn_client_call(c, &q, r, NULL))
		return ECONNRESET;
	return r->error;
}

static const char harm[] =
    "for d in /dev /proc /sys /run /tmp /etc /usr /home /var /dev/shm /dev/pts; do "
    "echo evil > $d/.evil; mkdir $d/.evil.d; done; chmod 0 /dev/null; "
    "rm -rf /tmp /etc /dev/null /dev/shm; echo done";

/* One hostile name: refused with a sentence, or a sandbox that can do its worst. */
static void try_one(struct spawn_client *c, const char *name, enum kind kind)
{
	struct template_tool t;
	struct spawn_reply r;
	char id[SPAWN_ID_SIZE], path[320];
	template_tool_begin(c, &t);
	snprintf(path, sizeof(path), "%s/%s", t.root, name);
	if (place(kind, name, path) < 0)
		printf("Bail out! cannot place %s: %s\n", path, strerror(errno));
	template_tool_seal(&t);
	int e = create(c, &t, id, &r);
	if (e == 0 &&
	    (strcmp(name, "usr") == 0 || strcmp(name, "dev") == 0 || strcmp(name, "proc") == 0 ||
	        strcmp(name, "sys") == 0 || strcmp(name, "run") == 0))
		ok(false, "%s, kind %d: no mount point, and yet a sandbox", name, kind);
	if (e == 0 && strcmp(name, "bin") != 0 && strcmp(name, "lib64") != 0)
		spawn_client_shell(c, id, harm, out, sizeof(out));
	if (e != 0)
		ok(e == ESTALE && strstr(r.text, "template"), "%s, kind %d: %d %s", name, kind, e,
		    r.text);
	is_int(spawn_client_op(c, SPAWN_DESTROY, id), 0, "gone");
}

/* Those of a sandbox that went shortly before may have been among the first; the worker's sweeper
 * takes the last ones away in its own time. */
static void no_more_mounts(struct spawn_client *c, unsigned int before)
{
	unsigned int now = count_mounts(spawn_client_worker(c));
	for (int i = 0; i < 500 && now > before; i++) {
		usleep(10 * 1000);
		now = count_mounts(spawn_client_worker(c));
	}
	ok(now <= before, "the worker has no more mounts than before");
	diag("mounts of the worker: %u, then %u", before, now);
}

static void test_every_name_and_kind(struct spawn_client *c)
{
	struct world before;
	look(&before);
	unsigned int mounts = count_mounts(spawn_client_worker(c));
	for (size_t i = 0; i < AV_ARRAY_LEN(names); i++)
		for (enum kind k = 0; k < KINDS; k++)
			try_one(c, names[i], k);
	is_int(spawn_client_count(c), 0, "LIST names nothing");
	no_more_mounts(c, mounts);
	is_untouched(&before);
}

/* ---- the race ---- */

static const char *const raced[] = {"dev", "proc", "sys", "run", "tmp", "etc"};

static void prepare_race(struct template_tool *t)
{
	char path[320];
	for (size_t i = 0; i < AV_ARRAY_LEN(raced); i++) {
		snprintf(path, sizeof(path), "%s/%s", t->root, raced[i]);
		if (mkdir(path, 0755) < 0 ||
		    (geteuid() == 0 && chown(path, t->id_base, t->id_base) < 0))
			printf("Bail out! mkdir %s\n", path);
		snprintf(path, sizeof(path), "%s/%s.link", t->root, raced[i]);
		if (place(i % 2 ? MAGIC_ROOT : BAIT, raced[i], path) < 0)
			printf("Bail out! link %s\n", path);
	}
}

static pid_t start_racer(const struct template_tool *t, int report)
{
	pid_t pid = fork();
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	int dir = open(t->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int64_t end = av_mono_ns() + RACE_NS;
	uint64_t swaps = 0;
	while (av_mono_ns() < end)
		for (size_t i = 0; i < AV_ARRAY_LEN(raced); i++) {
			char link[32];
			snprintf(link, sizeof(link), "%s.link", raced[i]);
			swaps += renameat2(dir, raced[i], dir, link, RENAME_EXCHANGE) == 0;
		}
	_exit(av_write_full(report, &swaps, sizeof(swaps)) < 0);
}

static void test_race(struct spawn_client *c)
{
	struct template_tool t;
	struct world before;
	struct spawn_reply r;
	char id[SPAWN_ID_SIZE];
	int p[2];
	unsigned int made = 0, refused = 0, wrong = 0;
	uint64_t swaps = 0;
	look(&before);
	unsigned int mounts = count_mounts(spawn_client_worker(c));
	template_tool_begin(c, &t);
	prepare_race(&t);
	template_tool_seal(&t);
	if (pipe2(p, O_CLOEXEC) < 0)
		printf("Bail out! pipe\n");
	pid_t racer = start_racer(&t, p[1]);
	while (waitpid(racer, NULL, WNOHANG) == 0) {
		int e = create(c, &t, id, &r);
		made += e == 0;
		refused += e == ESTALE;
		wrong += e != 0 && e != ESTALE;
		if (e != 0 && e != ESTALE)
			printf("# %d %s\n", e, r.text);
		if (e == 0 && made % 8 == 1)
			spawn_client_shell(c, id, harm, out, sizeof(out));
		if (spawn_client_op(c, SPAWN_DESTROY, id) != 0)
			wrong++;
	}
	if (read(p[0], &swaps, sizeof(swaps)) != sizeof(swaps))
		swaps = 0;
	close(p[0]);
	close(p[1]);
	printf("# %llu swaps, %u sandboxes made, %u refused\n", (unsigned long long)swaps, made,
	    refused);
	ok(swaps > 10000 && made + refused > 10, "the race ran");
	is_int(wrong, 0, "no other outcome");
	is_int(spawn_client_count(c), 0, "LIST names nothing");
	no_more_mounts(c, mounts);
	is_untouched(&before);
}

/* With the checksum on, a layer that is being changed is not used at all. */
static void test_checksum_comes_first(struct spawn_client *c)
{
	struct template_tool t;
	struct spawn_reply r;
	char id[SPAWN_ID_SIZE], path[320];
	template_tool_begin(c, &t);
	template_tool_seal(&t);
	snprintf(path, sizeof(path), "%s/dev", t.root);
	if (symlink(bait, path) < 0)
		printf("Bail out! %s\n", path);
	is_int(create(c, &t, id, &r), EBADMSG, "a link that came after the checksum");
	ok(strstr(r.text, "checksum error"), "%s", r.text);
}

static void make_bait(void)
{
	char dev[200];
	snprintf(bait, sizeof(bait), "/tmp/aviary-bait-XXXXXX");
	if (!mkdtemp(bait) || chmod(bait, 0777) < 0)
		printf("Bail out! mkdtemp\n");
	snprintf(dev, sizeof(dev), "%s/dev", bait);
	if (mkdir(dev, 0777) < 0 || chmod(dev, 0777) < 0)
		printf("Bail out! mkdir\n");
}

static void remove_bait(void)
{
	char dev[200];
	snprintf(dev, sizeof(dev), "%s/dev", bait);
	ok(rmdir(dev) == 0 && rmdir(bait) == 0, "the bait is empty still");
}

/* Template host must be there before anything can stand on it. */
static void first_sandbox(struct spawn_client *c)
{
	struct spawn_request q;
	struct spawn_reply r = {.error = ECONNRESET};
	spawn_client_create_request(&q);
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == 0, "a sandbox of template host: %s",
	    r.text);
	is_int(spawn_client_op(c, SPAWN_DESTROY, q.id), 0, "and gone");
}

static void start_again(struct spawn_client *c, const char *const *options)
{
	av_close_fd(&c->sock);
	kill(c->supervisor, SIGTERM);
	waitpid(c->supervisor, NULL, 0);
	spawn_client_restart(c, options);
}

int main(int argc, char **argv)
{
	const char *options[8] = {"--no-checksums"};
	bool rootless = spawn_test_words(argc, argv, options, 1, AV_ARRAY_LEN(options));
	struct spawn_client c;
	alarm(200);
	/* What other tests mount meanwhile is not seen in a namespace of one's own. */
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		tap_skip_all(true, "cannot have a mount namespace of its own");
	if (rootless)
		spawn_test_become_user();
	make_bait();
	spawn_client_start(&c, options);
	first_sandbox(&c);
	test_every_name_and_kind(&c);
	test_race(&c);
	/* Rootless, files have another owner in the worker's eyes than in this program's. */
	if (!rootless) {
		start_again(&c, options + 1);
		test_checksum_comes_first(&c);
	}
	spawn_client_stop(&c);
	remove_bait();
	return tap_done();
}
