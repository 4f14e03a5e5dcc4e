/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vm_jail.c - the jail around a virtual machine, and its layers: the worker's part of both
 *
 * The first process of the jails is shell_vm, which lets the test look at what a jail is from
 * inside and write the files of a save; test_real_program has aviary-vm itself, and tests/vm has it
 * with QEMU and a guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/path.h"
#include "tests/fault/spawn_test.h"
#include "tests/fault/template_tools.h"
#include "tests/lib/tap.h"
#include "vm/vm_wire.h"
#include "base/banned.h"

#define VM_ENVIRONMENT_SIZE sizeof(hello.vm_environment)

static char out[65536];
static bool rootless;
static const char *options[12];
static struct spawn_hello_reply hello;

struct template
{
	char id[SPAWN_TEMPLATE_SIZE];
	uint8_t seal[SPAWN_SEAL_SIZE];
};

static void vm_request(struct spawn_request *q, const char *template_id, uint32_t flags)
{
	spawn_client_create_request(q);
	q->u.create.flags = SPAWN_CREATE_VM | flags;
	(void)snprintf(q->u.create.template_id, SPAWN_TEMPLATE_SIZE, "%s", template_id);
}

static int create_at(struct spawn_client *c, struct spawn_request *q, char id[static SPAWN_ID_SIZE])
{
	struct spawn_reply r = {0};
	memcpy(id, q->id, SPAWN_ID_SIZE);
	int e = spawn_client_call(c, q, &r, NULL) ? r.error : ECONNRESET;
	if (e)
		printf("# %s\n", r.text);
	return e;
}

static void create(struct spawn_client *c, const struct template *t, char id[static SPAWN_ID_SIZE])
{
	struct spawn_request q;
	vm_request(&q, t ? t->id : "vmhost", 0);
	if (t)
		memcpy(q.u.create.template_seal, t->seal, SPAWN_SEAL_SIZE);
	is_int(create_at(c, &q, id), 0, "create");
}

static void destroy(struct spawn_client *c, const char *id)
{
	is_int(spawn_client_op(c, SPAWN_DESTROY, id), 0, "destroy");
}

static int snapshot_as(struct spawn_client *c, const char *sandbox, uint32_t flags, uint32_t save,
    struct template *t, struct spawn_reply *r)
{
	struct spawn_request q = {
	    .op = SPAWN_SNAPSHOT, .u.template = {.flags = flags, .save = save}};
	memcpy(q.u.template.template_id, t->id, sizeof(t->id));
	(void)snprintf(q.id, sizeof(q.id), "%s", sandbox);
	if (!spawn_client_call(c, &q, r, NULL))
		return ECONNRESET;
	memcpy(t->seal, r->u.snapshot.seal, sizeof(t->seal));
	if (r->error)
		printf("# %s\n", r->text);
	return r->error;
}

static int delete_template(struct spawn_client *c, const char *id)
{
	struct spawn_request q = {.op = SPAWN_TEMPLATE_DELETE};
	struct spawn_reply r;
	(void)snprintf(q.u.template.template_id, SPAWN_TEMPLATE_SIZE, "%s", id);
	return spawn_client_call(c, &q, &r, NULL) ? r.error : ECONNRESET;
}

static unsigned int count_templates(struct spawn_client *c)
{
	struct spawn_request q = {.op = SPAWN_TEMPLATE_LIST};
	struct spawn_reply r = {0};
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == 0, "TEMPLATE_LIST");
	return r.u.list.count;
}

static void shell_is(
    struct spawn_client *c, const char *id, const char *script, const char *want, const char *what)
{
	spawn_client_shell(c, id, script, out, sizeof(out));
	is_str(out, want, what);
}

static const char *const *all_options(void)
{
	static const char *all[16];
	static char program[AV_PATH_MAX];
	size_t n = 0;
	if (av_path_printf(
	        program, sizeof(program), "%s/tests/fault/shell_vm", getenv("AVIARY_BUILD")) < 0)
		return NULL;
	all[n++] = "--vm-program";
	all[n++] = program;
	for (size_t i = 0; options[i]; i++)
		all[n++] = options[i];
	all[n] = NULL;
	return all;
}

static void start_again(struct spawn_client *c, const char *failpoint)
{
	kill(c->supervisor, SIGTERM);
	waitpid(c->supervisor, NULL, 0);
	if (failpoint)
		setenv("AVIARY_FAILPOINT", failpoint, 1);
	spawn_client_restart(c, all_options());
	unsetenv("AVIARY_FAILPOINT");
}

/* ---- the jail ---- */

static void test_descriptors(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	struct spawn_request q;
	create(c, NULL, id);
	shell_is(c, id,
	    "cd /proc/self/fd; for i in 0 1 2 3 4 5 6 7 8; do test -e $i && printf '%s ' $i; done; "
	    "echo",
	    "0 1 2 3 4 5 \n", "listeners and exit record, and nothing else");
	shell_is(c, id, "echo record >&4; cat <&4 2>/dev/null; echo $?", "1\n",
	    "the exit record can be written only");
	struct spawn_request in = {.op = SPAWN_INSPECT};
	struct spawn_reply r = {0};
	memcpy(in.id, id, sizeof(in.id));
	ok(spawn_client_call(c, &in, &r, NULL) && r.u.inspect.exit_bytes == 7 &&
	        memcmp(r.u.inspect.exit_record, "record\n", 7) == 0,
	    "INSPECT has what was written there");
	destroy(c, id);

	vm_request(&q, "vmhost", SPAWN_CREATE_KVM);
	if (!(hello.can & SPAWN_CAN_KVM)) {
		ok(hello.no_kvm[0], "no KVM, and why: %s", hello.no_kvm);
		is_int(create_at(c, &q, id), ENODEV, "a machine on KVM is refused");
		is_int(spawn_client_count(c), 0, "nothing is left of it");
		return;
	}
	is_int(create_at(c, &q, id), 0, "create with KVM");
	shell_is(c, id,
	    "readlink /proc/self/fd/6; test -e /dev/kvm || echo no name; test -e /proc/self/fd/7 "
	    "|| echo only",
	    "/dev/kvm\nno name\nonly\n", "KVM is a descriptor");
	destroy(c, id);
}

static void test_confinement(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	create(c, NULL, id);
	shell_is(c, id, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status",
	    "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n"
	    "CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
	    "no capability, and none to be had");
	shell_is(c, id, "cd /dev; echo *; ls -A /sys | wc -l", "null random urandom zero\n0\n",
	    "/dev has what QEMU opens, /sys nothing");
	shell_is(
	    c, id, "sed -n 3,9p /proc/net/dev | cut -d: -f1 | tr -d ' '", "lo\n", "loopback only");
	shell_is(c, id,
	    "mkdir -p /vm/run && echo x > /vm/run/disk && cat /vm/run/disk; chown 1 /vm/run/disk "
	    "2>/dev/null || echo no owner; "
	    "mount -t tmpfs x /mnt 2>/dev/null || echo no mount; mknod /vm/n c 1 3 2>/dev/null || "
	    "echo no node; "
	    "/usr/bin/qemu-system-x86_64 --version | head -c 4; echo",
	    "x\nno owner\nno mount\nno node\nQEMU\n",
	    "files of its own, the host's QEMU, and no more");
	destroy(c, id);
}

/* What the jail is for. */
static void test_programs(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	create(c, NULL, id);
	spawn_client_shell(c, id, "qemu-system-x86_64 --version | head -c 13", out, sizeof(out));
	if (strcmp(out, "QEMU emulator") != 0) {
		diag("no real QEMU here: %s", out);
		destroy(c, id);
		return;
	}
	shell_is(c, id,
	    "mkdir -p /vm/run && cd /vm/run && mkfs.erofs -zlz4 root.erofs /etc >/dev/null 2>&1 && "
	    "test -s root.erofs && echo erofs; "
	    "mke2fs -q -t ext4 -m 0 -E lazy_itable_init=1,nodiscard disk 64M >/dev/null 2>&1 && "
	    "echo ext4",
	    "erofs\next4\n", "file systems are made");
	shell_is(c, id,
	    "cd /vm/run; qemu-system-x86_64 -M q35,accel=tcg -cpu max -m 64 -nodefaults "
	    "-no-user-config "
	    "-display none -S -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,"
	    "resourcecontrol=deny -netdev user,id=n -device virtio-net-pci,netdev=n "
	    "-blockdev driver=file,filename=disk,node-name=d,aio=threads -device "
	    "virtio-blk-pci,drive=d "
	    "-device virtio-balloon-pci,free-page-reporting=on -device virtio-serial-pci "
	    "-chardev file,id=q,path=greeting -mon q,mode=control </dev/null >log 2>&1 & p=$!; "
	    "i=0; "
	    /* Its greeting comes before it takes SIGTERM, the 15th. */
	    "until { grep -qs QMP greeting && grep -q 'SigCgt.*[4-7c-f]...$' /proc/$p/status; } || "
	    "test $i -gt 200; do sleep 0.1; i=$((i+1)); done; cat log; "
	    "head -c 8 /proc/$p/pagemap | wc -c; test $(wc -l </proc/$p/maps) -gt 10 && echo maps; "
	    "kill $p; wait $p; echo $?",
	    "8\nmaps\n0\n", "QEMU starts with its own filter, and its parent sees its memory");
	destroy(c, id);
}

static void test_internet(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	struct spawn_request q;
	if (!(hello.can & SPAWN_CAN_INTERNET)) {
		diag("no internet access: %s", hello.no_internet);
		return;
	}
	vm_request(&q, "vmhost", SPAWN_CREATE_INTERNET);
	int e = create_at(c, &q, id);
	if (e == EOPNOTSUPP) {
		diag("this machine has no route itself");
		destroy(c, id);
		return;
	}
	is_int(e, 0, "create with internet access");
	shell_is(c, id,
	    "i=0; until test $(wc -l </proc/net/dev) -eq 4 || test $i -gt 100; do sleep 0.1; "
	    "i=$((i+1)); done; "
	    "wc -l </proc/net/dev; grep -c ^nameserver /etc/resolv.conf | tr 2-9 1",
	    "4\n1\n", "an interface and a resolver");
	destroy(c, id);
}

static void test_vm_socket(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE], got[16] = {0};
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct stat st;
	create(c, NULL, id);
	if (av_path_printf(a.sun_path, sizeof(a.sun_path), "%s/%s/vm.sock", c->run, id) < 0)
		return;
	AV_CLEANUP(av_closep) int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	ok(stat(a.sun_path, &st) == 0 && (st.st_mode & 07777) == 0600 &&
	        st.st_uid == hello.daemon_uid,
	    "vm.sock is the daemon's alone");
	ok(connect(s, (struct sockaddr *)&a, sizeof(a)) == 0 && send(s, "ping", 4, 0) == 4 &&
	        recv(s, got, sizeof(got), 0) == 4 && strcmp(got, "ping") == 0,
	    "and leads to aviary-vm");
	destroy(c, id);
	ok(stat(a.sun_path, &st) < 0, "it goes with the sandbox");
}

static void test_adopt(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE];
	struct spawn_request q;
	struct spawn_reply r = {0}, adopted = {0};
	vm_request(&q, "vmhost", 0);
	memcpy(id, q.id, sizeof(id));
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == 0, "create");
	kill(spawn_client_worker(c), SIGKILL);
	usleep(20000);
	spawn_client_connect(c);
	struct spawn_request a = {.op = SPAWN_ADOPT,
	    .u.adopt = {.pid = r.u.create.pid,
	        .start_ticks = r.u.create.start_ticks,
	        .pidns_ino = r.u.create.pidns_ino}};
	memcpy(a.id, id, sizeof(a.id));
	ok(spawn_client_call(c, &a, &adopted, NULL) && adopted.error == 0,
	    "ADOPT after the worker died: %s", adopted.text);
	/* Rootless and where all share one range nothing on the disk tells it. */
	ok(adopted.u.create.slot == r.u.create.slot || adopted.u.create.slot == 0,
	    "its slot is known or unknown");
	shell_is(c, id, "echo alive", "alive\n", "it did not notice");
	struct template t;
	av_id_make(t.id, AV_ID_TEMPLATE);
	/* A rootless one's disk is a tmpfs, which went with that worker. */
	is_int(snapshot_as(c, id, SPAWN_SNAPSHOT_VM, 1, &t, &r), rootless ? ESTALE : ENODATA,
	    "and is known as a virtual machine");
	destroy(c, id);
}

static void test_bad_requests(struct spawn_client *c)
{
	struct spawn_request q;
	char id[SPAWN_ID_SIZE];
	spawn_client_create_request(&q);
	q.u.create.flags = SPAWN_CREATE_KVM;
	is_int(create_at(c, &q, id), EINVAL, "KVM without a machine");
	spawn_client_create_request(&q);
	(void)snprintf(q.u.create.template_id, SPAWN_TEMPLATE_SIZE, "vmhost");
	is_int(create_at(c, &q, id), EINVAL, "a jail of vmhost");
	vm_request(&q, "host", 0);
	is_int(create_at(c, &q, id), EINVAL, "a virtual machine of host");
	vm_request(&q, "vmhost", 0);
	q.u.create.kernel_seal[31] = 1;
	is_int(create_at(c, &q, id), EINVAL, "a kernel without an image to make");
	vm_request(&q, "vmhost", SPAWN_CREATE_VM_IMAGE);
	memcpy(q.u.create.kernel_id, "host", 5);
	memcpy(q.u.create.source_id, "host", 5);
	is_int(create_at(c, &q, id), EINVAL, "an image of host");
	memcpy(q.u.create.source_id, "empty", 6);
	is_int(create_at(c, &q, id), EINVAL, "an image of empty");
	memset(q.u.create.source_id, 'x', sizeof(q.u.create.source_id));
	is_int(create_at(c, &q, id), EINVAL, "a source without end");
	is_int(spawn_client_count(c), 0, "nothing was made");
}

/* One question to aviary-vm, over a connection of its own as the daemon does it. */
static bool ask_vm(struct spawn_client *c, const char *id, struct vm_reply *ret)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = 30};
	const struct vm_request q = {.op = VM_STATUS, .seq = 7, .protocol = VM_PROTOCOL};
	AV_CLEANUP(av_closep) int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	return av_path_printf(a.sun_path, sizeof(a.sun_path), "%s/%s/vm.sock", c->run, id) == 0 &&
	       setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0 &&
	       connect(s, (struct sockaddr *)&a, sizeof(a)) == 0 &&
	       send(s, &q, sizeof(q), MSG_NOSIGNAL) == sizeof(q) &&
	       recv(s, ret, sizeof(*ret), 0) == sizeof(*ret);
}

/* aviary-vm itself, which lies beside aviary-spawn when it was built. */
static void test_real_program(struct spawn_client *c)
{
	struct spawn_request h = {.op = SPAWN_HELLO, .u.protocol = SPAWN_PROTOCOL}, q;
	struct spawn_reply r = {0};
	struct vm_reply v = {0};
	char id[SPAWN_ID_SIZE];
	kill(c->supervisor, SIGTERM);
	waitpid(c->supervisor, NULL, 0);
	spawn_client_restart(c, options);
	ok(spawn_client_call(c, &h, &r, NULL) && r.error == 0, "HELLO");
	ok((r.u.hello.can & SPAWN_CAN_VM) && !r.u.hello.no_vm[0], "aviary-vm was found: %s",
	    r.u.hello.no_vm);
	ok(memcmp(r.u.hello.vm_environment, hello.vm_environment, VM_ENVIRONMENT_SIZE) != 0,
	    "another program is another environment");
	vm_request(&q, "vmhost", 0);
	is_int(create_at(c, &q, id), 0, "create");
	ok(ask_vm(c, id, &v) && v.op == VM_STATUS && v.seq == 7 && v.error == 0 &&
	        v.u.status.protocol == VM_PROTOCOL && v.u.status.state == VM_STATE_NEW,
	    "aviary-vm answers in its jail: %.200s", v.text);
	kill(spawn_client_worker(c), SIGKILL);
	usleep(20000);
	spawn_client_connect(c);
	ok(ask_vm(c, id, &v) && v.u.status.state == VM_STATE_NEW, "and outlives the worker");
	destroy(c, id);
	is_int(spawn_client_count(c), 0, "it is gone");
	start_again(c, NULL);
}

/* ---- layers ---- */

/* What an image needs for a source: `base` on empty, with a file that only its owner reads. */
static void make_source(struct spawn_client *c, struct template *t)
{
	struct spawn_reply r = {0};
	char id[SPAWN_ID_SIZE];
	struct spawn_request q;
	spawn_client_create_request(&q);
	memcpy(q.u.create.template_id, "empty", 6);
	is_int(create_at(c, &q, id), 0, "create of empty");
	av_id_make(t->id, AV_ID_TEMPLATE);
	is_int(snapshot_as(c, id, SPAWN_SNAPSHOT_KILL, 0, t, &r), 0, "a template on empty");
	destroy(c, id);
}

static void write_in(const char *dir, const char *name, mode_t mode, uid_t owner)
{
	char path[400];
	if (av_path_printf(path, sizeof(path), "%s/%s", dir, name) < 0)
		return;
	AV_CLEANUP(av_closep) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	ok(fd >= 0 && av_write_full(fd, name, strlen(name)) == 0 && fchown(fd, owner, owner) == 0 &&
	        fchmod(fd, mode) == 0,
	    "%s written", name);
}

/* A template by hand: two files, one of them another user's and closed to all others. */
static void make_by_hand(struct spawn_client *c, struct template_tool *t)
{
	if (rootless) {
		struct template any;
		make_source(c, &any);
		*t = (struct template_tool){0};
		memcpy(t->id, any.id, sizeof(t->id));
		memcpy(t->meta.identity, any.seal, sizeof(any.seal));
		return;
	}
	template_tool_begin(c, t);
	t->meta.flags &= ~(uint32_t)TEMPLATE_ON_HOST;
	memset(t->meta.parent, 0, sizeof(t->meta.parent));
	memcpy(t->meta.parent, "empty", 6);
	memset(t->meta.host_fingerprint, 0, sizeof(t->meta.host_fingerprint));
	write_in(t->root, "open", 0644, t->id_base);
	write_in(t->root, "closed", 0, t->id_base + 1000);
	template_tool_seal_root(t);
}

static void image_request(struct spawn_request *q, const char *source, const char *kernel)
{
	vm_request(q, "vmhost", SPAWN_CREATE_VM_IMAGE);
	(void)snprintf(q->u.create.source_id, SPAWN_TEMPLATE_SIZE, "%s", source);
	(void)snprintf(q->u.create.kernel_id, SPAWN_TEMPLATE_SIZE, "%s", kernel);
}

static void test_image(struct spawn_client *c, struct template *ret)
{
	struct template_tool source;
	struct template kernel;
	struct spawn_request q;
	struct spawn_reply r = {0};
	char id[SPAWN_ID_SIZE];
	make_by_hand(c, &source);
	make_source(c, &kernel);
	image_request(&q, source.id, kernel.id);
	memset(q.u.create.source_seal, 1, SPAWN_SEAL_SIZE);
	is_int(create_at(c, &q, id), EBADMSG, "a source with another seal");
	image_request(&q, source.id, kernel.id);
	memcpy(q.u.create.source_seal, source.meta.identity, SPAWN_SEAL_SIZE);
	memcpy(q.u.create.kernel_seal, kernel.seal, SPAWN_SEAL_SIZE);
	is_int(create_at(c, &q, id), 0, "create, to make an image");
	shell_is(
	    c, id, "ls /kernel /template | grep -c etc", "2\n", "template and kernel are there");
	if (!rootless)
		shell_is(c, id, "cat /template/open; echo; cat /template/closed", "open\nclosed",
		    "they can be read, whoever their files belong to");
	shell_is(c, id,
	    "for d in /template /kernel; do touch $d/x 2>/dev/null || echo closed; "
	    "grep \" $d \" /proc/self/mounts | cut -d' ' -f4 | cut -d, -f1-4; done",
	    "closed\nro,nosuid,nodev,noexec\nclosed\nro,nosuid,nodev,noexec\n", "and not written");
	shell_is(c, id, "grep -E '^Cap(Eff|Bnd)' /proc/self/status",
	    "CapEff:\t0000000000000004\nCapBnd:\t0000000000000004\n", "by that capability alone");
	shell_is(c, id,
	    "test $(head -c 4 <&7 | tail -c 3) = ELF && echo ELF; (echo x >&7) 2>/dev/null || echo "
	    "closed; test -e /proc/self/fd/6 || echo no kvm",
	    "ELF\nclosed\nno kvm\n", "the agent's program comes for reading");
	struct template t;
	av_id_make(t.id, AV_ID_VM_LAYER);
	is_int(
	    snapshot_as(c, id, SPAWN_SNAPSHOT_KILL, 0, &t, &r), ENODATA, "there is no image yet");
	destroy(c, id);

	image_request(&q, source.id, kernel.id);
	is_int(create_at(c, &q, id), 0, "again");
	shell_is(c, id,
	    "mkdir -p /vm/image/sub /vm/run; cd /vm/image; echo root > root.erofs; echo k > "
	    "kernel; echo i > initrd; "
	    "ln -s /etc/passwd link; mkfifo pipe 2>/dev/null; ln kernel linked; chmod 4755 kernel; "
	    "echo x > .hidden; echo x > 'a b'; "
	    "echo x > /vm/run/disk; echo x > /vm/other; echo x > /etc/ld.so.preload; echo made",
	    "made\n", "an image, and what does not belong to one");
	*ret = t;
	is_int(snapshot_as(c, id, SPAWN_SNAPSHOT_KILL, 0, ret, &r), 0, "its snapshot");
	is_str(r.u.snapshot.parent, "vmhost", "stands on vmhost");
	is_str(r.u.snapshot.host_fingerprint, "", "whatever the host has");
	is_int(r.u.snapshot.depth, 1, "one layer");
	destroy(c, id);
	is_int(delete_template(c, kernel.id), 0, "delete");
	is_int(delete_template(c, source.id), 0, "delete");
	create(c, ret, id);
	shell_is(c, id,
	    "cd /vm; find . | sort | tr '\\n' ' '; stat -c %a,%u,%h image/kernel; cat "
	    "image/root.erofs; test -e /etc/ld.so.preload || echo clean",
	    ". ./image ./image/initrd ./image/kernel ./image/linked ./image/root.erofs "
	    "644,0,1\nroot\nclean\n",
	    "the layer has files and nothing else");
	destroy(c, id);
}

#define SAVE(n, what)                                                                              \
	"mkdir -p /vm/saves/" n "; cd /vm/saves/" n "; truncate -s 64M memory; printf '" what      \
	"' | dd of=memory bs=1M seek=9 conv=notrunc 2>/dev/null; echo s > state; echo d > disk; "  \
	"echo i > info; "

static void test_golden(struct spawn_client *c, const struct template *image, struct template *ret)
{
	char id[SPAWN_ID_SIZE], other[SPAWN_ID_SIZE];
	struct spawn_reply r = {0};
	create(c, image, id);
	shell_is(c, id, SAVE("1", "golden") "echo 1 > /vm/current; echo made", "made\n", "a save");
	av_id_make(ret->id, AV_ID_VM_LAYER);
	is_int(snapshot_as(c, id, SPAWN_SNAPSHOT_KILL, 0, ret, &r), 0, "golden");
	is_str(r.u.snapshot.parent, image->id, "stands on the image");
	ok(r.u.snapshot.bytes < 8 << 20, "holes stay holes: %llu bytes",
	    (unsigned long long)r.u.snapshot.bytes);
	destroy(c, id);

	create(c, ret, id);
	create(c, ret, other);
	is_int(delete_template(c, ret->id), EBUSY, "in use: not deleted");
	is_int(delete_template(c, image->id), EBUSY, "nor what it stands on");
	shell_is(c, id,
	    "cat /vm/current /vm/image/kernel; cd /vm/saves/1; dd if=memory bs=1M skip=9 count=1 "
	    "2>/dev/null | head -c 6; "
	    "echo evil | dd of=memory bs=1M seek=9 conv=notrunc 2>/dev/null; echo 7 > /vm/current; "
	    "echo; head -c 9437188 memory | tail -c 4",
	    "1\nk\ngolden\nevil", "a sandbox writes into its own copy");
	shell_is(c, other, "cat /vm/current; head -c 9437190 /vm/saves/1/memory | tail -c 6",
	    "1\ngolden", "another one of the same golden snapshot sees nothing of it");
	kill(spawn_client_worker(c), SIGKILL);
	usleep(20000);
	spawn_client_connect(c);
	is_int(delete_template(c, ret->id), EBUSY, "the next worker knows that it is in use");
	destroy(c, id);
	destroy(c, other);
	create(c, ret, id);
	shell_is(c, id, "cat /vm/current; head -c 9437190 /vm/saves/1/memory | tail -c 6",
	    "1\ngolden", "nor does one that comes afterwards");
	destroy(c, id);
}

/* How a backup takes it: 64 MiB of memory with a page in it are some KiB. */
static void test_export(struct spawn_client *c, const char *id)
{
	struct spawn_request q = {.op = SPAWN_TEMPLATE_EXPORT};
	struct spawn_reply r = {0};
	struct spawn_export_end end = {0};
	int fd = -1;
	(void)snprintf(q.u.template.template_id, SPAWN_TEMPLATE_SIZE, "%s", id);
	ok(spawn_client_call(c, &q, &r, &fd) && r.error == 0 && fd >= 0, "export: %s", r.text);
	ssize_t n = av_read_full(fd, out, sizeof(out));
	ok(n > 4096 && (size_t)n < sizeof(out), "holes are not in it: %zd bytes", n);
	if (n > (ssize_t)sizeof(end))
		memcpy(&end, out + n - sizeof(end), sizeof(end));
	ok(memcmp(end.magic, SPAWN_EXPORT_MAGIC, sizeof(end.magic)) == 0 && end.error == 0,
	    "and it is whole: %.200s", end.text);
	av_close_fd(&fd);
}

static void test_running_save(
    struct spawn_client *c, const struct template *image, const struct template *golden)
{
	char id[SPAWN_ID_SIZE], b[SPAWN_ID_SIZE];
	struct spawn_reply r = {0};
	struct template t, t2;
	create(c, golden, id);
	shell_is(c, id,
	    SAVE("2", "second") "mkdir -p /vm/run /vm/saves/3; echo half > /vm/saves/3/memory; "
	                        "(while :; do echo . >> /vm/run/log; sleep 0.01; done) >/dev/null "
	                        "2>&1 & echo made",
	    "made\n", "a save of one that runs");
	av_id_make(t.id, AV_ID_TEMPLATE);
	is_int(snapshot_as(c, id, SPAWN_SNAPSHOT_VM | SPAWN_SNAPSHOT_KILL, 2, &t, &r), EINVAL,
	    "not with KILL");
	is_int(snapshot_as(c, id, SPAWN_SNAPSHOT_VM, 0, &t, &r), EINVAL, "not without a number");
	is_int(
	    snapshot_as(c, id, SPAWN_SNAPSHOT_VM, 9, &t, &r), ENODATA, "not one that is not there");
	is_int(snapshot_as(c, id, SPAWN_SNAPSHOT_VM, 3, &t, &r), ENODATA, "not half of one");
	is_int(count_templates(c), 2, "nothing is left of those");
	int64_t began = av_mono_ns();
	is_int(snapshot_as(c, id, SPAWN_SNAPSHOT_VM, 2, &t, &r), 0, "its snapshot");
	printf("# %lld us, %llu bytes\n", (long long)(av_mono_ns() - began) / 1000,
	    (unsigned long long)r.u.snapshot.bytes);
	is_str(r.u.snapshot.parent, image->id, "stands on the image alone");
	is_int(r.u.snapshot.depth, 2, "two layers");
	is_int(r.u.snapshot.frozen_us, 0, "nothing was frozen");
	shell_is(c, id, "echo $(($(wc -l < /vm/run/log) > 0))", "1\n", "it goes on");
	create(c, &t, b);
	shell_is(c, b,
	    "cd /vm; find . | sort | tr '\\n' ' '; cat current; head -c 9437190 saves/2/memory | "
	    "tail -c 6; test $(stat -c %b saves/2/memory) -lt 20000 && echo; stat -c %s "
	    "saves/2/memory",
	    ". ./current ./image ./image/initrd ./image/kernel ./image/linked ./image/root.erofs "
	    "./saves ./saves/2 ./saves/2/disk ./saves/2/info ./saves/2/memory ./saves/2/state 2\n"
	    "second\n67108864\n",
	    "who stands on it has that save alone");
	/* Of what stands on a snapshot the next snapshot stands beside it. */
	shell_is(c, b, SAVE("3", "third!") "echo 3 > /vm/current; rm -r /vm/saves/2; echo made",
	    "made\n", "a save of that");
	av_id_make(t2.id, AV_ID_TEMPLATE);
	is_int(snapshot_as(c, b, SPAWN_SNAPSHOT_KILL, 0, &t2, &r), 0, "snapshot of a paused one");
	test_export(c, t2.id);
	test_export(c, image->id);
	is_str(r.u.snapshot.parent, image->id, "stands on the image alone");
	destroy(c, b);
	is_int(delete_template(c, t.id), 0, "so that the first one can go");
	create(c, &t2, b);
	shell_is(c, b,
	    "cat /vm/current; cd /vm/saves; echo *; head -c 9437190 3/memory | tail -c 6",
	    "3\n3\nthird!", "and the second is whole");
	destroy(c, b);
	is_int(delete_template(c, t2.id), 0, "delete");
	destroy(c, id);
	/* A jail is none. */
	struct spawn_request q;
	spawn_client_create_request(&q);
	is_int(create_at(c, &q, id), 0, "a jail");
	is_int(snapshot_as(c, id, SPAWN_SNAPSHOT_VM, 1, &t, &r), EINVAL, "has no saves");
	destroy(c, id);
	spawn_client_create_request(&q);
	memcpy(q.u.create.template_id, golden->id, sizeof(golden->id));
	is_int(create_at(c, &q, id), EINVAL, "nor stands one on a machine's");
}

static void test_failpoints(struct spawn_client *c, const struct template *golden)
{
	static const char *const points[] = {"create.rundir=kill", "create.record=error",
	    "child.fds=error", "child.seccomp=error", "snapshot.begin=kill", "snapshot.taken=kill",
	    "snapshot.taken=error", "snapshot.written=kill", "snapshot.renamed=error",
	    "snapshot.done=kill"};
	for (size_t i = 0; i < AV_ARRAY_LEN(points); i++) {
		struct spawn_request q;
		struct spawn_reply r = {0};
		struct template t;
		char id[SPAWN_ID_SIZE];
		start_again(c, points[i]);
		vm_request(&q, golden->id, 0);
		int e = create_at(c, &q, id);
		av_id_make(t.id, AV_ID_TEMPLATE);
		if (e == 0) {
			shell_is(c, id, SAVE("2", "second") "echo made", "made\n", "a save");
			e = snapshot_as(c, id, SPAWN_SNAPSHOT_VM, 2, &t, &r);
		}
		ok(e != 0, "%s: %d", points[i], e);
		if (e == ECONNRESET)
			spawn_client_connect(c);
		if (count_templates(c) == 3) {
			ok(e == ECONNRESET, "%s: no answer, and it is there", points[i]);
			memset(t.seal, 0, sizeof(t.seal));
			char b[SPAWN_ID_SIZE];
			create(c, &t, b);
			shell_is(c, b, "cat /vm/current", "2\n", "whole");
			destroy(c, b);
			is_int(delete_template(c, t.id), 0, "delete");
		}
		destroy(c, id);
		is_int(spawn_client_count(c), 0, "no sandbox is left");
	}
	start_again(c, NULL);
	is_int(count_templates(c), 2, "no template is left");
}

int main(int argc, char **argv)
{
	struct spawn_client c;
	struct template image, golden;
	struct spawn_request q = {.op = SPAWN_HELLO, .u.protocol = SPAWN_PROTOCOL};
	struct spawn_reply r = {0};
	rootless = spawn_test_words(argc, argv, options, 0, AV_ARRAY_LEN(options));
	alarm(200);
	if (rootless)
		spawn_test_become_user();
	spawn_client_start(&c, all_options());
	ok(spawn_client_call(&c, &q, &r, NULL) && r.error == 0, "HELLO");
	hello = r.u.hello;
	if (!(hello.can & SPAWN_CAN_VM)) {
		spawn_client_stop(&c);
		tap_skip_all(true, "%s", hello.no_vm);
	}
	test_descriptors(&c);
	test_confinement(&c);
	test_programs(&c);
	test_internet(&c);
	test_vm_socket(&c);
	test_adopt(&c);
	test_bad_requests(&c);
	test_real_program(&c);
	test_image(&c, &image);
	test_golden(&c, &image, &golden);
	test_running_save(&c, &image, &golden);
	test_failpoints(&c, &golden);
	is_int(delete_template(&c, golden.id), 0, "delete");
	is_int(delete_template(&c, image.id), 0, "delete");
	is_int(count_templates(&c), 0, "no template is left");
	spawn_client_stop(&c);
	return tap_done();
}
