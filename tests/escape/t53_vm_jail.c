/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t53_vm_jail.c - T53: whoever broke out of a guest into its QEMU, and what he finds there
 *
 * Runs the escape programs in the jail of a virtual machine, and compares afterwards what a machine
 * beside it and one that comes later see of the layers that they share. They run where a QEMU that
 * was taken over would: as a child of the jail's first process, with its ids, filter and
 * descriptors. The first process is shell_vm and not aviary-vm, as that starts QEMU and nothing
 * else, and a QEMU that can be taken over on purpose there is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "tests/fault/spawn_client.h"
#include "tests/fault/spawn_test.h"
#include "tests/lib/tap.h"
#include "base/banned.h"

static const char *const programs[] = {"t11_proc", "t12_fds", "t14_ptrace", "t15_mounts",
    "t16_syscalls", "t17_privilege", "t18_devices", "t19_cgroups", "t20_sockets", "t53_layers"};

static char out[65536], before[65536];
static bool without_seccomp, rootless;

struct golden {
	char id[SPAWN_TEMPLATE_SIZE];
	uint8_t seal[SPAWN_SEAL_SIZE];
};

_Noreturn static void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

static void create(struct spawn_client *c, const struct golden *t, char id[static SPAWN_ID_SIZE])
{
	struct spawn_request q;
	struct spawn_reply r = {0};
	spawn_client_create_request(&q);
	q.u.create.flags = SPAWN_CREATE_VM;
	memcpy(q.u.create.template_id, t->id, sizeof(t->id));
	memcpy(q.u.create.template_seal, t->seal, sizeof(t->seal));
	memcpy(id, q.id, SPAWN_ID_SIZE);
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == 0, "create %s", r.text);
}

/* ---- a golden snapshot with the programs in its image ---- */

static int find_program(const char *name)
{
	char path[AV_PATH_MAX];
	if (av_path_printf(path, sizeof(path), "%s/tests/escape/%s", getenv("AVIARY_BUILD"), name) <
	    0)
		die(name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(path);
	return fd;
}

static int connect_shell(struct spawn_client *c, const char *id)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = 30};
	if (av_path_printf(a.sun_path, sizeof(a.sun_path), "%s/%s/agent.sock", c->run, id) < 0)
		die("socket path");
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0 || setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0 ||
	    connect(s, (struct sockaddr *)&a, sizeof(a)) < 0)
		die("shell");
	return s;
}

static void expect(int s, const char *word)
{
	char got[16] = {0};
	size_t n = strlen(word);
	if (av_read_full(s, got, n) != (ssize_t)n || strcmp(got, word) != 0)
		die(word);
}

/* The shell has its line before the bytes come, so that it does not read them itself. */
static void upload(struct spawn_client *c, const char *id, const char *name)
{
	char line[200];
	struct stat st;
	ssize_t n;
	AV_CLEANUP(av_closep) int in = find_program(name);
	AV_CLEANUP(av_closep) int s = connect_shell(c, id);
	if (fstat(in, &st) < 0)
		die(name);
	(void)snprintf(line, sizeof(line),
	    "echo ready; head -c %lld >/vm/image/%s; echo done; exit\n", (long long)st.st_size,
	    name);
	if (av_write_full(s, line, strlen(line)) < 0)
		die("shell");
	expect(s, "ready\n");
	while ((n = read(in, out, sizeof(out))) > 0)
		if (av_write_full(s, out, (size_t)n) < 0)
			die("upload");
	expect(s, "done\n");
}

static void make_golden(struct spawn_client *c, struct golden *ret)
{
	static const char fill[] =
	    "mkdir -p /vm/image /vm/saves/1; cd /vm; echo kernel >image/kernel; "
	    "echo initrd >image/initrd; truncate -s 64k saves/1/memory; "
	    "echo golden memory >>saves/1/memory; echo 1 >current; echo filled";
	char id[SPAWN_ID_SIZE];
	struct spawn_request q = {.op = SPAWN_SNAPSHOT, .u.template.flags = SPAWN_SNAPSHOT_KILL};
	struct spawn_reply r = {0};
	*ret = (struct golden){.id = "vmhost"};
	create(c, ret, id);
	spawn_client_shell(c, id, fill, out, sizeof(out));
	is_str(out, "filled\n", "files of a golden snapshot");
	for (size_t i = 0; i < AV_ARRAY_LEN(programs); i++)
		upload(c, id, programs[i]);
	*ret = (struct golden){0};
	av_id_make(ret->id, AV_ID_VM_LAYER);
	memcpy(q.u.template.template_id, ret->id, sizeof(ret->id));
	memcpy(q.id, id, sizeof(q.id));
	ok(spawn_client_call(c, &q, &r, NULL) && r.error == 0, "snapshot %s", r.text);
	memcpy(ret->seal, r.u.snapshot.seal, sizeof(ret->seal));
	is_int(spawn_client_op(c, SPAWN_DESTROY, id), 0, "destroy");
}

static void look(struct spawn_client *c, const char *id, char *dst, size_t size)
{
	spawn_client_shell(c, id,
	    "cd /vm; find . | sort; find . -type f | sort | xargs sha256sum; find . -type f | "
	    "xargs stat -c '%a %u %h %s %n' | sort -k 5; ls -A /run /tmp",
	    dst, size);
}

/* ---- attacks ---- */

/* Every check of the program inside must have passed. */
static void attack(struct spawn_client *c, const char *id, const char *name, const char *words)
{
	char script[500];
	unsigned int held = 0, broken = 0;
	(void)snprintf(script, sizeof(script),
	    "exec 3<&- 4>&- 5<&- 6<&- 7<&-; cp /vm/image/%s /tmp/ && chmod 755 /tmp/%s && "
	    "/tmp/%s vm %s %s 2>&1; echo \"exit $?\"",
	    name, name, name, without_seccomp ? "noseccomp" : "", words);
	spawn_client_shell(c, id, script, out, sizeof(out));
	struct av_str rest = av_str_c(out), line;
	while (av_str_cut(&rest, '\n', &line)) {
		printf("#   %s: %.*s\n", name, AV_STR_ARG(line));
		held += line.n > 2 && memcmp(line.p, "ok ", 3) == 0;
		broken += line.n > 5 && memcmp(line.p, "not ok", 6) == 0;
	}
	ok(held > 0 && broken == 0 && strstr(out, "\nexit 0\n"), "%s: %u held, %u broken", name,
	    held, broken);
}

/* A server of the host's, at a name that its processes could reach. */
static int listen_abstract(char name[static 64])
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t n = (size_t)snprintf(name, 64, "aviary-escape-vm-%d", getpid());
	memcpy(a.sun_path + 1, name, n);
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
	if (s < 0 || bind(s, (struct sockaddr *)&a, size) < 0 || listen(s, 1) < 0)
		die("socket");
	return s;
}

static void attack_with_all(struct spawn_client *c, const char *id)
{
	char name[64], words[128];
	AV_CLEANUP(av_closep) int listener = listen_abstract(name);
	ok(listener >= 0, "a listener outside");
	(void)snprintf(words, sizeof(words), "%s 22", name);
	/* Rootless there is one user id: the names of aviary-vm's descriptors and its score of the
	 * OOM killer are its child's own, too. */
	for (size_t i = rootless ? 1 : 0; i < AV_ARRAY_LEN(programs); i++)
		attack(c, id, programs[i],
		    strcmp(programs[i], "t20_sockets") == 0     ? words
		    : strcmp(programs[i], "t17_privilege") == 0 ? "nosudo"
		                                                : "");
}

static void test(struct spawn_client *c)
{
	char id[SPAWN_ID_SIZE], bystander[SPAWN_ID_SIZE], later[SPAWN_ID_SIZE];
	struct golden golden;
	struct spawn_request d = {.op = SPAWN_TEMPLATE_DELETE};
	struct spawn_reply r = {0};
	make_golden(c, &golden);
	create(c, &golden, bystander);
	create(c, &golden, id);
	look(c, bystander, before, sizeof(before));
	ok(strstr(before, "./saves/1/memory") && strstr(before, "./image/t11_proc"),
	    "what machines share can be seen");
	attack_with_all(c, id);
	look(c, bystander, out, sizeof(out));
	is_str(out, before, "the machine beside it sees nothing of all this");
	create(c, &golden, later);
	look(c, later, out, sizeof(out));
	is_str(out, before, "nor does one that comes later");
	is_int(spawn_client_op(c, SPAWN_DESTROY, id), 0, "destroy");
	is_int(spawn_client_op(c, SPAWN_DESTROY, later), 0, "destroy");
	is_int(spawn_client_op(c, SPAWN_DESTROY, bystander), 0, "destroy");
	memcpy(d.u.template.template_id, golden.id, sizeof(golden.id));
	ok(spawn_client_call(c, &d, &r, NULL) && r.error == 0, "delete %s", r.text);
}

int main(int argc, char **argv)
{
	struct spawn_client c;
	struct spawn_request q = {.op = SPAWN_HELLO, .u.protocol = SPAWN_PROTOCOL};
	struct spawn_reply r = {0};
	char program[AV_PATH_MAX];
	const char *options[12] = {"--vm-program", program};
	rootless = spawn_test_words(argc, argv, options, 2, AV_ARRAY_LEN(options));
	for (int i = 1; i < argc; i++)
		without_seccomp |= strcmp(argv[i], "--no-seccomp") == 0;
	alarm(100);
	if (rootless)
		spawn_test_become_user();
	if (av_path_printf(
	        program, sizeof(program), "%s/tests/fault/shell_vm", getenv("AVIARY_BUILD")) < 0)
		die("AVIARY_BUILD");
	spawn_client_start(&c, options);
	if (!spawn_client_call(&c, &q, &r, NULL) || r.error)
		die("HELLO");
	if (!(r.u.hello.can & SPAWN_CAN_VM)) {
		spawn_client_stop(&c);
		tap_skip_all(true, "%s", r.u.hello.no_vm);
	}
	test(&c);
	spawn_client_stop(&c);
	return tap_done();
}
