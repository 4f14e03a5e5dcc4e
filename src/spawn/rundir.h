/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rundir.h - <run>/<id>/: the agent's listening socket and the record of who the agent is
 *
 *   agent.sock  bound and listened on by the worker, owned by the daemon, mode 0600
 *   process     "pid start_ticks pidns_ino\n", written before the child gets its go
 *   vm.sock     the same for aviary-vm, when it is a virtual machine; says that it is one
 *   template    what it stands on, a struct rundir_template, for snapshots of it
 *   image       of a virtual machine: the nearest of those that holds an image, in the same form
 *   pasta       "pid start_ticks\n" of the process that a rootless sandbox's internet access needs
 *   net         "address ifname\n" with internet access, written before the child gets its go
 *
 * On a tmpfs as a rule: what is here ends with the machine, as the processes do.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/macros.h"
#include "spawn/jail.h"
#include "spawn/net.h"
#include "spawn/net_pasta.h"

/* Makes the directory and the listening socket, with ret_vm_listener (else NULL) also that of
 * aviary-vm; both are the caller's. -EEXIST when the directory is there. All or nothing. owner: of
 * the sockets, (uid_t)-1 leaves the worker's. */
int rundir_create(int run_fd, const char *id, uid_t owner, gid_t group, int *ret_listener,
    int *ret_vm_listener) AV_MUST_CHECK;
/* It was made with a listener of aviary-vm's. */
bool rundir_is_vm(int run_fd, const char *id);
int rundir_write_process(int run_fd, const char *id, const struct jail_identity *who) AV_MUST_CHECK;
/* -ENOENT when there is none (the worker died before writing it). */
int rundir_read_process(int run_fd, const char *id, struct jail_identity *ret) AV_MUST_CHECK;
struct rundir_template {
	char id[64];
	uint8_t seal[32];          /* zero for host and empty */
	char host_fingerprint[32]; /* when the lowest layers are the host's; else empty */
	uint32_t depth;
};
int rundir_write_template(
    int run_fd, const char *id, const struct rundir_template *t) AV_MUST_CHECK;
/* -ENOENT when there is none. */
int rundir_read_template(int run_fd, const char *id, struct rundir_template *ret) AV_MUST_CHECK;
/* The same for the record `image`. */
int rundir_write_image(int run_fd, const char *id, const struct rundir_template *t) AV_MUST_CHECK;
int rundir_read_image(int run_fd, const char *id, struct rundir_template *ret) AV_MUST_CHECK;
/* "address ifname\n" of a sandbox with internet access. */
int rundir_write_net(int run_fd, const char *id, const struct net_link *link) AV_MUST_CHECK;
/* "pid start_ticks\n" of the pasta that serves a rootless sandbox; replaced by that of the next.
 * -ENOENT when there is none. */
int rundir_write_pasta(int run_fd, const char *id, const struct pasta_process *p) AV_MUST_CHECK;
int rundir_read_pasta(int run_fd, const char *id, struct pasta_process *ret) AV_MUST_CHECK;
/* The address, 0 when there is none. */
uint32_t rundir_read_net(int run_fd, const char *id);
bool rundir_exists(int run_fd, const char *id);
/* Removes what these functions made. 0 also when nothing is there. */
int rundir_remove(int run_fd, const char *id) AV_MUST_CHECK;
/* Calls on_id for every directory whose name is a sandbox id; non-zero ends it and is returned. */
int rundir_list(int run_fd, int (*on_id)(void *ctx, const char *id), void *ctx) AV_MUST_CHECK;
