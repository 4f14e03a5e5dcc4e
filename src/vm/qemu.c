/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qemu.c - QEMU as a child: its command line, its descriptors, and why it ended (see qemu.h)
 */
#include "vm/qemu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "vm/initrd.h"
#include "vm/shim.h"

#include "base/banned.h"

#define PORTS         (1 + AV_GUEST_LINKS)
#define SOCKETS       (2 + PORTS) /* QMP, console, ports */
#define ARGS_MAX      96
#define ARGS_TEXT_MAX ((size_t)12 * 1024)
#define NET_BASE      0xc6120000u /* 198.18.0.0, for tests of networks (RFC 2544) */
#define NET_SIZE      32u
#define NET_PREFIX    27
/* Translated code of a guest without KVM, MiB: private memory of each, so it is bounded. */
#define TCG_BUFFER_MIB 32

enum { SOCKET_QMP, SOCKET_CONSOLE, SOCKET_PORTS };

struct qemu {
	struct child *child;
	struct tail console;
	bool freed;
	int ours[SOCKETS]; /* -1 once taken */
};

/* Descriptors in QEMU: the sockets in order from 3, then these where they are. */
struct numbers {
	int shim, kvm, state;
};

/* An argument vector with its text in one piece. */
struct args {
	const char *v[ARGS_MAX + 1];
	size_t n, used;
	bool full;
	char text[ARGS_TEXT_MAX];
};

struct qemu_network qemu_network_of(uint32_t number)
{
	uint32_t base = NET_BASE + number % (QEMU_NUMBER_MAX + 1) * NET_SIZE;

	return (struct qemu_network){
	    .base = base,
	    .gateway = base + 1,
	    .resolver = base + 2,
	    .address = base + 3,
	    .prefix_len = NET_PREFIX,
	    /* 02: locally administered */
	    .mac = {0x02, 0x61, 0x76, (uint8_t)(number >> 16), (uint8_t)(number >> 8),
	        (uint8_t)number},
	};
}

/* --- the command line --- */

AV_PRINTF(2, 3) static void arg(struct args *a, const char *fmt, ...)
{
	size_t room = sizeof(a->text) - a->used;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(a->text + a->used, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room || a->n == ARGS_MAX) {
		a->full = true;
		return;
	}
	a->v[a->n++] = a->text + a->used;
	a->used += (size_t)n + 1;
}

static void args_machine(struct args *a, const struct qemu_config *c)
{
	arg(a, "-M");
	/* smm, sata, hpet, vmport, smbus: nobody asks for them, and each costs start and state. */
	arg(a,
	    "%s,memory-backend=ram,usb=off,vmport=off,smm=off,sata=off,hpet=off,smbus=off,"
	    "dump-guest-core=off,suppress-vmdesc=on",
	    c->machine);
	arg(a, "-accel");
	if (c->kvm)
		arg(a, "kvm");
	else
		arg(a, "tcg,tb-size=%d", TCG_BUFFER_MIB);
	arg(a, "-cpu");
	arg(a, "%s", c->kvm ? QEMU_CPU_KVM : QEMU_CPU_TCG);
	arg(a, "-smp");
	arg(a, "%u", c->vcpus);
	arg(a, "-m");
	arg(a, "%lluM", (unsigned long long)(c->memory_bytes >> 20));
	arg(a, "-object");
	arg(a, "memory-backend-file,id=ram,size=%lluM,mem-path=%s,share=%s,merge=off,dump=off",
	    (unsigned long long)(c->memory_bytes >> 20), c->memory, c->boot ? "on" : "off");
	/* What saves a running machine's devices writes no configuration section. */
	arg(a, "-global");
	arg(a, "migration.send-configuration=off");
}

static void args_disks(struct args *a, const struct qemu_config *c)
{
	arg(a, "-drive");
	arg(a,
	    "if=none,id=root,file=%s/vm/image/root.erofs,format=raw,readonly=on,file.locking=off",
	    c->root);
	arg(a, "-device");
	arg(a, "virtio-blk-pci,drive=root,serial=root");
	arg(a, "-drive");
	/* werror: see machine_room.c */
	arg(a,
	    "if=none,id=disk,file=%s/vm/run/disk,format=raw,cache=writeback,aio=threads,"
	    "discard=unmap,detect-zeroes=unmap,werror=stop,rerror=report,file.locking=off",
	    c->root);
	arg(a, "-device");
	arg(a, "virtio-blk-pci,drive=disk,serial=disk");
}

static void args_ports(struct args *a)
{
	arg(a, "-chardev");
	arg(a, "socket,id=qmp,fd=%d", 3 + SOCKET_QMP);
	arg(a, "-mon");
	arg(a, "chardev=qmp,mode=control");
	arg(a, "-chardev");
	arg(a, "socket,id=console,fd=%d", 3 + SOCKET_CONSOLE);
	arg(a, "-serial");
	arg(a, "chardev:console");
	arg(a, "-device");
	arg(a, "virtio-serial-pci,max_ports=%d", PORTS + 1); /* port 0 is the console's */
	for (int i = 0; i < PORTS; i++) {
		arg(a, "-chardev");
		arg(a, "socket,id=port%d,fd=%d", i, 3 + SOCKET_PORTS + i);
		arg(a, "-device");
		if (i == 0)
			arg(a, "virtserialport,chardev=port0,name=" AV_GUEST_PORT_CONTROL);
		else
			arg(a, "virtserialport,chardev=port%d,name=" AV_GUEST_PORT_LINK "%d", i,
			    i - 1);
	}
}

#define IP_FMT     "%u.%u.%u.%u"
#define IP_ARGS(a) (a) >> 24, (a) >> 16 & 255, (a) >> 8 & 255, (a)&255

static void args_net(struct args *a, const struct qemu_config *c)
{
	struct qemu_network n = qemu_network_of(c->number);

	arg(a, "-netdev");
	arg(a,
	    "user,id=net,ipv6=off,net=" IP_FMT "/%u,host=" IP_FMT ",dns=" IP_FMT
	    ",dhcpstart=" IP_FMT ",restrict=%s",
	    IP_ARGS(n.base), n.prefix_len, IP_ARGS(n.gateway), IP_ARGS(n.resolver),
	    IP_ARGS(n.address), c->internet ? "off" : "on");
	arg(a, "-device");
	arg(a, "virtio-net-pci,netdev=net,romfile=,mac=%02x:%02x:%02x:%02x:%02x:%02x", n.mac[0],
	    n.mac[1], n.mac[2], n.mac[3], n.mac[4], n.mac[5]);
}

static void args_build(struct args *a, const struct qemu_config *c, const struct numbers *fds)
{
	arg(a, "%s", c->program);
	arg(a, "-nodefaults");
	arg(a, "-no-user-config");
	arg(a, "-display");
	arg(a, "none");
	arg(a, "-no-reboot");
	arg(a, "-sandbox");
	arg(a, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	args_machine(a, c);
	args_ports(a);
	args_disks(a, c);
	args_net(a, c);
	arg(a, "-device");
	arg(a, "virtio-balloon-pci,free-page-reporting=on,page-poison=off");
	arg(a, "-device");
	arg(a, "pvpanic");
	arg(a, "-device");
	arg(a, "vmgenid,guid=auto");
	if (c->boot) {
		arg(a, "-kernel");
		arg(a, "%s/vm/image/kernel", c->root);
		arg(a, "-initrd");
		arg(a, "%s/vm/image/initrd", c->root);
		arg(a, "-append");
		/* An emulated processor does not speculate: what guards against that only costs
		 * (a third of a system call). */
		arg(a, "console=ttyS0 %s" INITRD_KERNEL_ARGS, c->kvm ? "" : "mitigations=off ");
	} else {
		/* The kernel is in memory already; 30 MiB less in each QEMU. */
		arg(a, "-S");
		arg(a, "-incoming");
		arg(a, "fd:%d", fds->state);
	}
}

static void env_build(struct args *e, const struct qemu_config *c, const struct numbers *fds)
{
	arg(e, "PATH=/usr/sbin:/usr/bin:/sbin:/bin");
	arg(e, "LC_ALL=C");
	arg(e, "TMPDIR=%s/vm/run", c->root);
	/* One arena: less private memory, and its threads hardly allocate. */
	arg(e, "MALLOC_ARENA_MAX=1");
	arg(e, "LD_PRELOAD=/proc/self/fd/%d", fds->shim);
	if (!c->boot)
		arg(e, VM_SHIM_ENV_MEMORY "=%s", c->memory);
	if (c->kvm)
		arg(e, VM_SHIM_ENV_KVM "=%d", fds->kvm);
}

/* --- start --- */

static void close_all(int fds[static SOCKETS])
{
	for (int i = 0; i < SOCKETS; i++)
		av_close_fd(&fds[i]);
}

static int open_sockets(int ours[static SOCKETS], int theirs[static SOCKETS])
{
	for (int i = 0; i < SOCKETS; i++)
		ours[i] = theirs[i] = -1;
	for (int i = 0; i < SOCKETS; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
			return -errno;
		ours[i] = pair[0];
		theirs[i] = pair[1];
	}
	return 0;
}

/* The descriptors of spec, and the numbers that those behind the sockets get. */
static struct numbers number_fds(struct child_spec *spec, const struct qemu_config *c,
    const int theirs[static SOCKETS], int shim)
{
	struct numbers n = {-1, -1, -1};

	for (int i = 0; i < SOCKETS; i++)
		spec->fds[spec->n_fds++] = theirs[i];
	n.shim = 3 + (int)spec->n_fds;
	spec->fds[spec->n_fds++] = shim;
	if (c->kvm) {
		n.kvm = 3 + (int)spec->n_fds;
		spec->fds[spec->n_fds++] = c->kvm_fd;
	}
	if (!c->boot) {
		n.state = 3 + (int)spec->n_fds;
		spec->fds[spec->n_fds++] = c->state_fd;
	}
	return n;
}

static int start_child(struct qemu *q, struct children *all, const struct qemu_config *c,
    const int theirs[static SOCKETS], const struct child_ops *ops, void *ctx, struct av_err *err)
{
	AV_CLEANUP(av_closep) int shim = vm_shim_open(err);
	AV_CLEANUP(av_freep) struct args *a = calloc(1, sizeof(*a));
	AV_CLEANUP(av_freep) struct args *e = calloc(1, sizeof(*e));
	struct child_spec spec = {0};
	struct numbers fds;
	int r;

	if (shim < 0)
		return shim;
	if (!a || !e)
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory to start QEMU");
	fds = number_fds(&spec, c, theirs, shim);
	args_build(a, c, &fds);
	env_build(e, c, &fds);
	if (a->full || e->full)
		return av_err_set(err, AV_ERR_INTERNAL, "the command line of QEMU is too long");
	spec.argv = a->v;
	spec.env = e->v;
	r = child_start(all, &spec, ops, ctx, &q->child);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot start QEMU");
	return 0;
}

int qemu_start(struct children *all, const struct qemu_config *config, const struct child_ops *ops,
    void *ctx, struct qemu **ret, struct av_err *err)
{
	int theirs[SOCKETS];
	struct qemu *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return av_err_set(err, AV_ERR_NO_MEMORY, "no memory to start QEMU");
	r = open_sockets(q->ours, theirs);
	if (r == 0)
		r = tail_open(&q->console, all->loop, q->ours[SOCKET_CONSOLE]);
	if (r < 0) {
		close_all(q->ours);
		close_all(theirs);
		free(q);
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot make the sockets of QEMU");
	}
	q->ours[SOCKET_CONSOLE] = -1;
	r = start_child(q, all, config, theirs, ops, ctx, err);
	close_all(theirs);
	if (r < 0) {
		qemu_free(q);
		return r;
	}
	*ret = q;
	return 0;
}

/* --- life --- */

pid_t qemu_pid(const struct qemu *q)
{
	return child_pid(q->child);
}

void qemu_kill(struct qemu *q)
{
	child_kill(q->child);
}

static void on_console_closed(uv_handle_t *handle)
{
	struct tail *t = handle->data;

	free(AV_CONTAINER_OF(t, struct qemu, console));
}

void qemu_free(struct qemu *q)
{
	if (!q || q->freed)
		return;
	q->freed = true;
	child_free(q->child);
	close_all(q->ours);
	tail_close(&q->console, on_console_closed);
}

int qemu_take_qmp(struct qemu *q)
{
	return AV_TAKE_FD(q->ours[SOCKET_QMP]);
}

int qemu_take_control(struct qemu *q)
{
	return AV_TAKE_FD(q->ours[SOCKET_PORTS]);
}

int qemu_take_link(struct qemu *q, unsigned n)
{
	assert(n < AV_GUEST_LINKS);
	return AV_TAKE_FD(q->ours[SOCKET_PORTS + 1 + n]);
}

void qemu_words(struct qemu *q, char *dst, size_t size)
{
	tail_line(child_words(q->child), dst, size);
}

void qemu_console(struct qemu *q, char *dst, size_t size)
{
	tail_drain(&q->console);
	tail_line(&q->console, dst, size);
}

bool qemu_panicked(struct qemu *q, char *dst, size_t size)
{
	tail_drain(&q->console);
	return tail_find(&q->console, "Kernel panic - not syncing", dst, size);
}
