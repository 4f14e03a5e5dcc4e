/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qemu.h - QEMU as a child: its command line, its descriptors, and why it ended
 *
 * What a guest has is the same in all of its lives (boot, restores), as a saved device state fits
 * only the same machine: a q35 without firmware devices that nobody asks, two virtio disks (the
 * template, read-only, and the writable one), a network card whose other end is libslirp in QEMU,
 * a balloon that gives free pages back, pvpanic, vmgenid, a serial console of which the last lines
 * are kept, and virtio ports: one to control the guest's agent, AV_GUEST_LINKS for connections.
 *
 * Every port is a connected socket from the beginning, so that none is ever opened, waited for or
 * closed by QEMU. QEMU needs no path for anything but disks and memory, starts no program, and its
 * own seccomp filter holds it to that.
 *
 * Options are those that QEMU 6.2 to 10 understand.
 */
#pragma once

#include "base/err.h"
#include "proto/guest.h"
#include "vm/child.h"

#define QEMU_PROGRAM "/usr/bin/qemu-system-x86_64"
/* TCG emulates "rep movsb" byte by byte, and a kernel that sees erms or fsrm copies by it. */
#define QEMU_CPU_TCG    "max,-erms,-fsrm"
#define QEMU_CPU_KVM    "host"
#define QEMU_NUMBER_MAX 4095u /* networks of 32 addresses in 198.18.0.0/15 */

/* The network between a guest and its QEMU: the same in no two sandboxes of a machine. */
struct qemu_network {
	uint32_t base, gateway, resolver, address; /* IPv4, host order */
	uint8_t prefix_len;
	uint8_t mac[6]; /* of the guest */
};

/* number: 0 to QEMU_NUMBER_MAX. */
struct qemu_network qemu_network_of(uint32_t number);

struct qemu_config {
	const char *program;
	const char *root;    /* directory that holds vm/; "" is the file system's */
	const char *memory;  /* path of the memory file, absolute */
	const char *machine; /* "q35" or a versioned type of it */
	uint64_t memory_bytes;
	uint32_t vcpus;
	uint32_t number; /* of the network */
	bool kvm;        /* with kvm_fd */
	bool boot;       /* the image's kernel; memory is written to. Else: goes on from state_fd */
	bool internet;   /* connections leave QEMU */
	int kvm_fd;      /* borrowed */
	int state_fd;    /* saved devices, open for reading; borrowed */
};

struct qemu;

/* Starts it; whether it works shows later. on_exit as of child.h. Errors are sentences. */
int qemu_start(struct children *all, const struct qemu_config *config, const struct child_ops *ops,
    void *ctx, struct qemu **ret, struct av_err *err) AV_MUST_CHECK;
pid_t qemu_pid(const struct qemu *q); /* 0 when it has ended */
void qemu_kill(struct qemu *q);
/* Kills it; no callback comes. NULL is allowed. The loop must run on for a turn. */
void qemu_free(struct qemu *q);

/* Our ends of its sockets: the caller's, each once. */
int qemu_take_qmp(struct qemu *q);
int qemu_take_control(struct qemu *q);
int qemu_take_link(struct qemu *q, unsigned n);

/* The last line of what QEMU itself said, and of the guest's console; printable, maybe empty. */
void qemu_words(struct qemu *q, char *dst, size_t size);
void qemu_console(struct qemu *q, char *dst, size_t size);
/* Whether the guest's kernel said that it panicked, and why. */
bool qemu_panicked(struct qemu *q, char *dst, size_t size);
