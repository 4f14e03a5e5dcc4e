/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_templates.c - snapshots and templates of aviary-spawn alone, with a stub for an agent
 *
 * Arguments are aviary-spawn's: --disk loop, --overlay names, ...; `rootless` first: as an ordinary
 * user.
 */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"
#include "spawn/layer.h"
#include "tests/fault/spawn_test.h"
#include "tests/fault/template_tools.h"
#include "tests/lib/tap.h"
#include "base/banned.h"

static char out[65536], want[65536];
static bool rootless, in_image;
static const char *options[12];

static void contains(const char *text, const char *part, const char *what)
{
	if (!ok(strstr(text, part), "%s", what))
		printf("#   no '%s' in: %s\n", part, text);
}

struct template
{
	char id[SPAWN_TEMPLATE_SIZE];
	uint8_t seal[SPAWN_SEAL_SIZE];
};

static int create_with(struct spawn_client *c, const char *template_id, const uint8_t *seal,
    char id[static SPAWN_ID_SIZE], struct spawn_reply *r)
{
	struct spawn_request q;
	spawn_client_create_request(&q);
	snprintf(q.u.create.template_id, sizeof(q.u.create.template_id), "%s", template_id);
	if (seal)
		memcpy(q.u.create.template_seal, seal, SPAWN_SEAL_SIZE);
	memcpy(id, q.id, SPAWN_ID_SIZE);
	return spawn_client_call(c, &q, r, NULL) ? r->error : ECONNRESET;
}

static void create(struct spawn_client *c, const char *template_id, const uint8_t *seal,
    char id[static SPAWN_ID_SIZE])
{
	struct spawn_reply r = {0};
	is_int(create_with(c, template_id, seal, id, &r), 0, "create");
	if (r.error)
		printf("# %s\n", r.text);
}

static int snapshot_flags(struct spawn_client *c, const char *sandbox, uint32_t flags,
    struct template *ret, struct spawn_reply *r)
{
	struct spawn_request q = {.op = SPAWN_SNAPSHOT, .u.template.flags = flags};
	av_id_make(ret->id, AV_ID_TEMPLATE);
	memcpy(q.u.template.template_id, ret->id, sizeof(ret->id));
	snprintf(q.id, sizeof(q.id), "%s", sandbox);
	if (!spawn_client_call(c, &q, r, NULL))
		return ECONNRESET;
	memcpy(ret->seal, r->u.snapshot.seal, sizeof(ret->seal));
	return r->error;
}

/* Where nothing can be frozen, what runs is killed first. */
static void snapshot(struct spawn_client *c, const char *sandbox, struct template *ret)
{
	struct spawn_reply r = {0};
	is_int(
	    snapshot_flags(c, sandbox, rootless ? SPAWN_SNAPSHOT_KILL : 0, ret, &r), 0, "snapshot");
	if (r.error)
		printf("# %s\n", r.text);
	printf("# %llu entries, %llu bytes, %u us\n", (unsigned long long)r.u.snapshot.entries,
	    (unsigned long long)r.u.snapshot.bytes, r.u.snapshot.frozen_us);
}

static int delete_template(struct spawn_client *c, const char *id)
{
	struct spawn_request q = {.op = SPAWN_TEMPLATE_DELETE};
	struct spawn_reply r;
	snprintf(q.u.template.template_id, sizeof(q.u.template.template_id), "%s", id);
	return spawn_client_call(c, &q, &r, NULL) ? r.error : ECONNRESET;
}

static unsigned int count_templates(struct spawn_client *c)
{
	struct spawn_request q = {.op = SPAWN_TEMPLATE_LIST};
	struct spawn_reply r = {0};
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == 0, "TEMPLATE_LIST");
	return r.u.list.count;
}

static void destroy(struct spawn_client *c, const char *id)
{
	is_int(spawn_client_op(c, SPAWN_DESTROY, id), 0, "destroy");
}

/* ---- the content of a layer ---- */

/* Everything that is easy to lose. */
#define SETCAP "/usr/sbin/setcap"
#define GETCAP "/usr/sbin/getcap"

static const char fill[] =
    "exec 2>/dev/null; mkdir -p /root/d/e/f && echo text > /root/d/e/f/file && ln /root/d/e/f/file "
    "/root/hard; "
    "ln -s ../nowhere /root/link; mkfifo /root/pipe; "
    "truncate -s 1G /root/sparse; echo x >> /root/sparse; "
    "rm -f /usr/bin/yes /etc/issue; rm -rf /usr/share/doc; mkdir -p /usr/share/doc; "
    "echo mine > /usr/share/doc/a; rm -rf /etc/alternatives; mkdir /etc/alternatives; echo n > "
    "/etc/alternatives/n; "
    "cp /bin/true /root/suid; chmod 4755 /root/suid; "
    "cp /bin/true /root/able; test ! -x " SETCAP " || " SETCAP " cap_chown=ep /root/able; "
    "chmod 700 /root/d; touch -d '2001-02-03 04:05:06' /root/d/e; "
    "chown 1000:1000 /root/hard; mv /usr/share/perl5 /usr/share/perl55; mv /etc/pam.d /etc/pam.e; "
    "echo filled";

static const char tell[] =
    "cd /root; stat -c '%n %F %a %u %g' d d/e; stat -c '%n %F %a %u %g %h %s' d/e/f/file hard link "
    "pipe suid sparse; "
    "stat -c '%Y' d/e; cat d/e/f/file; readlink link; tail -c 2 sparse; "
    "test $(stat -c %b sparse) -lt 1000 && echo sparse; "
    "test ! -x " SETCAP " || " GETCAP " able; "
    "test -e /usr/bin/yes || echo 'no yes'; ls /usr/share/doc; ls /usr/share/perl55 | head -3; "
    "test -e /usr/share/perl5 || echo 'no perl5'; "
    "ls /etc/alternatives /etc/pam.e; test -e /etc/issue || echo 'no issue'; "
    "test $(stat -c %i hard) = $(stat -c %i d/e/f/file) && echo 'one inode'";

static int no_end(void *ctx)
{
	(void)ctx;
	return 0;
}

/* Where layers are copied, capabilities go with the owner from one range of ids to another. */
static void test_capability_ids(void)
{
	const struct layer_copy_options opt = {
	    .ids_from = 700000, .ids_to = 100000, .room = no_end};
	struct vfs_ns_cap_data cap = {.magic_etc = htole32(VFS_CAP_REVISION_3),
	    .data = {{.permitted = htole32(1)}},
	    .rootid = htole32(700000)};
	char dir[] = "/tmp/aviary-caps-XXXXXX";
	int top = mkdtemp(dir) ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, fd, part[3];
	static const char *const names[] = {"from", "to", "links"};

	for (int i = 0; i < 3; i++)
		if (mkdirat(top, names[i], 0700) < 0 ||
		    (part[i] = openat(top, names[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
			abort();
	fd = openat(part[0], "able", O_CREAT | O_RDWR | O_CLOEXEC, 0755);
	if (fchown(part[0], 700000, 700000) < 0 || fchown(fd, 700000, 700000) < 0 ||
	    fsetxattr(fd, "security.capability", &cap, sizeof(cap), 0) < 0)
		abort();
	close(fd);
	is_int(layer_copy(part[0], part[1], part[2], &opt), 0, "copy");
	fd = openat(part[1], "able", O_RDONLY | O_CLOEXEC);
	memset(&cap, 0, sizeof(cap));
	is_int(fgetxattr(fd, "security.capability", &cap, sizeof(cap)), sizeof(cap),
	    "the copy has capabilities");
	is_int(le32toh(cap.rootid), 100000, "for the root of its own range");
	is_int(le32toh(cap.data[0].permitted), 1, "the same ones");
	close(fd);
	if (unlinkat(part[0], "able", 0) < 0 || unlinkat(part[1], "able", 0) < 0)
		abort();
	for (int i = 0; i < 3; i++) {
		close(part[i]);
		(void)unlinkat(top, names[i], AT_REMOVEDIR);
	}
	close(top);
	(void)rmdir(dir);
}

static void test_round_trip(struct spawn_client *c)
{
	char a[SPAWN_ID_SIZE], b[SPAWN_ID_SIZE], d[SPAWN_ID_SIZE];
	struct template t, t2;
	create(c, "host", NULL, a);
	spawn_client_shell(c, a, fill, out, sizeof(out));
	contains(out, "filled", "the sandbox is filled");
	spawn_client_shell(c, a, tell, want, sizeof(want));
	if (access(SETCAP, X_OK) == 0)
		contains(want, "able cap_chown=ep", "a file has capabilities");
	snapshot(c, a, &t);
	if (!rootless) {
		spawn_client_shell(
		    c, a, "echo goes on > /root/later; cat /root/later", out, sizeof(out));
		is_str(out, "goes on\n", "the sandbox goes on after its snapshot");
	}
	create(c, t.id, t.seal, b);
	create(c, t.id, NULL, d);
	spawn_client_shell(c, b, tell, out, sizeof(out));
	is_str(out, want, "a sandbox of the template has what the first one had");
	spawn_client_shell(c, d, tell, out, sizeof(out));
	is_str(out, want, "so has another");
	spawn_client_shell(c, b, "ls /root/later; hostname; cat /etc/hostname", out, sizeof(out));
	char names[64];
	snprintf(names, sizeof(names), "%.12s\n%.12s\n", b, b);
	contains(out, names, "with a host name of its own, without what came later");
	spawn_client_shell(
	    c, b, "rm -rf /root/d; echo two > /root/two; echo own > /usr/own", out, sizeof(out));
	spawn_client_shell(c, d, "ls -d /root/d /root/two 2>/dev/null", out, sizeof(out));
	is_str(out, "/root/d\n", "the two do not meet");

	static const char upper[] =
	    "ls /root /usr/share/doc; cat /usr/own; test -e /usr/bin/yes || echo 'no yes'";
	spawn_client_shell(c, b, upper, want, sizeof(want));
	snapshot(c, b, &t2);
	destroy(c, a);
	destroy(c, b);
	destroy(c, d);
	is_int(delete_template(c, t.id), EBUSY, "a template that another stands on stays");
	create(c, t2.id, t2.seal, a);
	spawn_client_shell(c, a, upper, out, sizeof(out));
	is_str(out, want, "a snapshot of a snapshot");
	destroy(c, a);
	is_int(delete_template(c, t2.id), 0, "delete the upper one");
	is_int(delete_template(c, t.id), 0, "then the lower one");
	is_int(delete_template(c, t.id), 0, "twice");
	is_int(count_templates(c), 0, "no template is left");
	struct spawn_reply r;
	is_int(create_with(c, t.id, NULL, a, &r), ENOENT, "and none can be used");
}

static void test_depth(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	struct template t[TEMPLATE_DEPTH_MAX];
	struct spawn_reply r = {0};
	int n = 0;
	create(c, "host", NULL, id);
	for (; n < TEMPLATE_DEPTH_MAX; n++) {
		uint32_t flags = rootless ? (uint32_t)SPAWN_SNAPSHOT_KILL : 0;
		if (snapshot_flags(c, id, flags, &t[n], &r) != 0 ||
		    spawn_client_op(c, SPAWN_DESTROY, id) != 0 ||
		    create_with(c, t[n].id, t[n].seal, id, &r) != 0)
			break;
	}
	is_int(n, TEMPLATE_DEPTH_MAX, "as many layers as are allowed");
	if (r.error)
		printf("# %s\n", r.text);
	spawn_client_shell(c, id, "echo lives > /root/x; cat /root/x", out, sizeof(out));
	is_str(out, "lives\n", "a sandbox on all of them works");
	struct template more;
	is_int(snapshot_flags(c, id, 0, &more, &r), ESTALE, "one more is refused");
	contains(r.text, "snapshots of snapshots", "with the reason");
	destroy(c, id);
	while (n-- > 0)
		if (delete_template(c, t[n].id) != 0)
			ok(false, "delete of layer %d", n);
	is_int(count_templates(c), 0, "all gone");
}

/* ---- bad requests ---- */

static void test_refusals(struct spawn_client *c)
{
	struct template t;
	struct spawn_reply r;
	char id[SPAWN_ID_SIZE];
	av_id_make(id, AV_ID_SANDBOX);
	is_int(snapshot_flags(c, id, 0, &t, &r), ENOENT, "a sandbox that is not there");
	create(c, "host", NULL, id);
	struct spawn_request q = {.op = SPAWN_SNAPSHOT, .u.template = {.template_id = "../../etc"}};
	memcpy(q.id, id, sizeof(q.id));
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == EINVAL, "a path for an id");
	is_int(delete_template(c, "host"), EINVAL, "host cannot be deleted");
	is_int(delete_template(c, "../sandboxes"), EINVAL, "nor what is no template");
	is_int(snapshot_flags(c, id, 1u << 9, &t, &r), EINVAL, "unknown flags");
	destroy(c, id);
}

/* ---- T29 ---- */

static void write_at(const char *path, off_t at, const char *text)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDWR | O_CLOEXEC);
	ok(fd >= 0 && pwrite(fd, text, strlen(text), at) == (ssize_t)strlen(text), "write %s",
	    path);
}

static void start_again(struct spawn_client *c)
{
	av_close_fd(&c->sock);
	kill(c->supervisor, SIGTERM);
	waitpid(c->supervisor, NULL, 0);
	spawn_client_restart(c, options);
}

static void is_refused(
    struct spawn_client *c, const char *template_id, const uint8_t *seal, const char *what)
{
	char id[SPAWN_ID_SIZE];
	struct spawn_reply r = {0};
	is_int(create_with(c, template_id, seal, id, &r), EBADMSG, what);
	contains(r.text, "checksum error", what);
	is_int(spawn_client_op(c, SPAWN_INSPECT, id), ENOENT, "nothing of it is there");
}

/* Attacks on a record and a layer, after each of which the template must be refused. */
static void test_tampering(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE], path[300], other[300], meta[300], kept[300];
	struct template t, t2;
	struct stat st;
	create(c, "host", NULL, id);
	spawn_client_shell(c, id,
	    "echo abcdef > /root/file; dd if=/dev/urandom of=/root/big bs=1k count=64 2>&1", out,
	    sizeof(out));
	snapshot(c, id, &t);
	destroy(c, id);
	create(c, "host", NULL, id);
	snapshot(c, id, &t2);
	destroy(c, id);
	create(c, t.id, t.seal, id);
	destroy(c, id);
	is_refused(c, t.id, t2.seal, "another template's seal");

	snprintf(meta, sizeof(meta), "%s/templates/%s/meta", c->state, t.id);
	snprintf(kept, sizeof(kept), "%s/kept", c->dir);
	snprintf(other, sizeof(other), "%s/templates/%s/meta", c->state, t2.id);
	ok(stat(meta, &st) == 0 && link(meta, kept) == 0, "keep the record");
	is_refused(c, t.id, t.seal, "a record with two names");
	unlink(meta);
	if (symlink(kept, meta) < 0)
		ok(false, "symlink");
	is_refused(c, t.id, t.seal, "a record that is a link");
	unlink(meta);
	ok(link(other, meta) == 0 && unlink(other) == 0, "the record of somebody else's");
	is_refused(c, t.id, t.seal, "somebody else's record");
	ok(rename(meta, other) == 0 && rename(kept, meta) == 0, "put back");
	create(c, t.id, t.seal, id);
	destroy(c, id);
	struct template_meta m;
	const ssize_t size = (ssize_t)template_meta_size(TEMPLATE_VERSION);
	snprintf(path, sizeof(path), "%s/templates/%s", c->state, t.id);
	AV_CLEANUP(av_closep) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ok(dir >= 0, "open the template");
	AV_CLEANUP(av_closep) int fd = open(meta, O_RDWR | O_CLOEXEC);
	ok(fd >= 0 && read(fd, &m, sizeof(m)) == size, "read the record");
	write_at(meta, 8, "\377");
	is_refused(c, t.id, t.seal, "a version of tomorrow");
	ok(pwrite(fd, &m, (size_t)size, 0) == size, "put back");
	write_at(meta, 150, "x");
	is_refused(c, t.id, t.seal, "a flipped byte in the record");
	ok(pwrite(fd, &m, (size_t)size, 0) == size, "put back");
	ok(ftruncate(fd, 100) == 0, "truncate");
	is_refused(c, t.id, t.seal, "a truncated record");
	ok(pwrite(fd, &m, (size_t)size, 0) == size, "put back");
	create(c, t.id, t.seal, id);
	destroy(c, id);
	if (in_image)
		return; /* the layer cannot be reached from here: read-only, in a namespace */

	snprintf(path, sizeof(path), "%s/templates/%s/layer/root/root/big", c->state, t.id);
	write_at(path, 4000, "flipped");
	start_again(c);
	is_refused(c, t.id, t.seal, "flipped bits in a file");
	snprintf(path, sizeof(path), "%s/templates/%s/layer/root/root/file", c->state, t2.id);
	snprintf(path, sizeof(path), "%s/templates/%s/layer/root", c->state, t2.id);
	snprintf(other, sizeof(other), "%s/templates/%s/layer/gone", c->state, t2.id);
	ok(rename(path, other) == 0 && symlink("/", path) == 0, "a link for a layer");
	is_refused(c, t2.id, t2.seal, "a link for a layer");
}

/* ---- deaths ---- */

static void test_cancel(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	struct template t;
	struct spawn_request q = {.op = SPAWN_SNAPSHOT}, d = {.op = SPAWN_DESTROY};
	struct spawn_reply r1, r2;
	create(c, "host", NULL, id);
	spawn_client_shell(c, id,
	    "for i in $(seq 300); do head -c 100000 /dev/urandom > /root/$i; done", out,
	    sizeof(out));
	av_id_make(t.id, AV_ID_TEMPLATE);
	memcpy(q.u.template.template_id, t.id, sizeof(t.id));
	q.u.template.flags = rootless ? (uint32_t)SPAWN_SNAPSHOT_KILL : 0;
	memcpy(q.id, id, sizeof(q.id));
	memcpy(d.id, id, sizeof(d.id));
	int64_t began = av_mono_ns();
	ok(spawn_client_send(c, &q) && spawn_client_send(c, &d), "SNAPSHOT and at once DESTROY");
	ok(spawn_client_receive(c, &r1, NULL) && spawn_client_receive(c, &r2, NULL), "two answers");
	printf("# %lld ms\n", (long long)((av_mono_ns() - began) / AV_NS_PER_MS));
	is_int(r1.op, SPAWN_SNAPSHOT, "the snapshot's comes first");
	is_int(r2.error, 0, "the sandbox is gone");
	ok(r1.error == 0 || r1.error == ECANCELED, "the snapshot was made or given up: %d",
	    r1.error);
	is_int(spawn_client_count(c), 0, "no sandbox is left");
	is_int(count_templates(c), r1.error == 0, "the answer is the truth");
	if (r1.error == 0)
		delete_template(c, t.id);
}

static void test_failpoints(struct spawn_client *c)
{
	static const char *const points[] = {"snapshot.begin=kill", "snapshot.frozen=kill",
	    "snapshot.taken=kill", "snapshot.summed=kill", "snapshot.written=kill",
	    "snapshot.renamed=kill", "snapshot.done=kill", "snapshot.taken=error",
	    "snapshot.written=error", "snapshot.renamed=error", "snapshot.done=error",
	    "template.trashed=kill"};
	for (size_t i = 0; i < AV_ARRAY_LEN(points); i++) {
		char id[SPAWN_ID_SIZE];
		struct template t = {0};
		struct spawn_reply r;
		setenv("AVIARY_FAILPOINT", points[i], 1);
		start_again(c);
		unsetenv("AVIARY_FAILPOINT");
		create(c, "host", NULL, id);
		spawn_client_shell(c, id, "echo x > /root/x", out, sizeof(out));
		int e = snapshot_flags(c, id, rootless ? (uint32_t)SPAWN_SNAPSHOT_KILL : 0, &t, &r);
		bool deleted = e == 0;
		if (e == 0)
			e = delete_template(c, t.id);
		if (e == ECONNRESET)
			spawn_client_connect(c);
		unsigned int left = count_templates(c);
		ok(e != 0, "%s: %d", points[i], e);
		ok(left == 0 || e == ECONNRESET, "%s: what failed is not there: %u", points[i],
		    left);
		if (left && !deleted && (!rootless || strcmp(points[i], "x"))) {
			char b[SPAWN_ID_SIZE];
			create(c, t.id, NULL, b);
			spawn_client_shell(c, b, "cat /root/x", out, sizeof(out));
			is_str(out, "x\n", "a template that is there is whole");
			destroy(c, b);
		}
		is_int(delete_template(c, t.id), 0, "delete");
		is_int(count_templates(c), 0, "no template is left");
		destroy(c, id);
		is_int(spawn_client_count(c), 0, "no sandbox is left");
	}
}

/* What is below templates/ besides host and empty. */
static void is_clean(struct spawn_client *c)
{
	char path[200];
	unsigned int n = 0;
	snprintf(path, sizeof(path), "%s/templates", c->state);
	DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' && strcmp(e->d_name, "host") != 0 &&
		    strcmp(e->d_name, "empty") != 0) {
			printf("# %s\n", e->d_name);
			n++;
		}
	closedir(d);
	is_int(n, 0, "nothing is left below templates/");
}

static void test_empty(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	struct template t;
	create(c, "empty", NULL, id);
	struct spawn_reply r = {0};
	is_int(snapshot_flags(c, id, SPAWN_SNAPSHOT_KILL, &t, &r), 0,
	    "a snapshot of an empty one, killed");
	is_str(r.u.snapshot.parent, "empty", "its parent");
	destroy(c, id);
	create(c, t.id, t.seal, id);
	destroy(c, id);
	is_int(delete_template(c, t.id), 0, "delete");
}

/* Nobody comes back, and everything is removed: also what a guest nested deeply. */
static void test_cleanup(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE], program[300];
	struct template t;
	create(c, "host", NULL, id);
	spawn_client_shell(c, id,
	    "cd /root; i=0; while [ $i -lt 900 ]; do mkdir d && cd d || break; i=$((i+1)); done; "
	    "echo $i",
	    out, sizeof(out));
	is_str(out, "900\n", "nested directories");
	snapshot(c, id, &t);
	destroy(c, id);
	av_close_fd(&c->sock);
	kill(c->supervisor, SIGKILL);
	waitpid(c->supervisor, NULL, 0);
	snprintf(program, sizeof(program), "%s/src/spawn/aviary-spawn", getenv("AVIARY_BUILD"));
	pid_t pid = fork();
	if (pid == 0) {
		execl(program, program, "--cleanup", "--state", c->state, "--run", c->run, "--all",
		    NULL);
		_exit(127);
	}
	int status;
	waitpid(pid, &status, 0);
	is_int(status, 0, "--cleanup --all");
	ok(access(c->state, F_OK) < 0 && access(c->run, F_OK) < 0, "state and run are gone");
	rmdir(c->dir);
}

int main(int argc, char **argv)
{
	struct spawn_client c;
	rootless = spawn_test_words(argc, argv, options, 0, AV_ARRAY_LEN(options));
	alarm(200);
	if (rootless)
		spawn_test_become_user();
	spawn_client_start(&c, options);
	struct spawn_request q = {.op = SPAWN_HELLO, .u.protocol = SPAWN_PROTOCOL};
	struct spawn_reply r = {0};
	ok(spawn_client_call(&c, &q, &r, NULL) && r.error == 0, "HELLO");
	in_image = r.u.hello.disk == SPAWN_DISK_BTRFS;
	if (!rootless)
		test_capability_ids();
	test_round_trip(&c);
	test_empty(&c);
	test_depth(&c);
	test_refusals(&c);
	test_cancel(&c);
	test_failpoints(&c);
	is_clean(&c);
	test_tampering(&c);
	test_cleanup(&c);
	return tap_done();
}
