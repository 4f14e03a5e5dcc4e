/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.h - what aviary-vm (outside) and the agent of a virtual machine (inside) say to each other
 *
 * Theory of operation. The guest has virtio ports: AV_GUEST_PORT_CONTROL, and AV_GUEST_LINKS ports
 * for connections to the agent's HTTP/2 server, each of which carries one connection at a time.
 * Below all of them runs the link layer (vlink.h), so that a connection has a beginning although
 * the device has none. On the control port its payload are the messages below, each one record: a
 * header of 16 bytes, then the body of its type. Numbers are little-endian.
 *
 *   outside                                    inside
 *   (vlink reset) ──────────────────────────▶
 *                 ◀────────────────────────── HELLO       after every reset
 *   FREEZE        ──────────────────────────▶             all processes but the agent stand still
 *                 ◀────────────────────────── DONE
 *   (saved, restored, a new reset)
 *   IDENTITY      ──────────────────────────▶             clock, random numbers, names, addresses
 *                 ◀────────────────────────── CONFIRM     what they are now, read back
 *   THAW          ──────────────────────────▶             only now processes run again
 *                 ◀────────────────────────── DONE
 *
 * Outside, every byte from inside counts as hostile: sizes are checked, text is made printable, and
 * a guest that does not confirm what it was told in time is not handed over.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/ids.h"
#include "base/str.h"
#include "proto/agent_api.h"

#define AV_GUEST_VERSION      1
#define AV_GUEST_PORT_CONTROL "aviary.control"
#define AV_GUEST_PORT_LINK    "aviary.link" /* and a number from 0 */
#define AV_GUEST_LINKS        4
#define AV_GUEST_MESSAGE_MAX  1024
/* What the kernel's command line has behind "--": the agent's last argument in a guest. */
#define AV_GUEST_INIT_ARG     "--guest"
#define AV_GUEST_HOSTNAME_MAX 63

enum av_guest_type {
	AV_GUEST_NONE = 0,
	/* to the guest */
	AV_GUEST_FREEZE = 1,
	AV_GUEST_THAW = 2,
	AV_GUEST_IDENTITY = 3,
	AV_GUEST_WARM = 4, /* runs /bin/true or what there is, so that its pages are there */
	/* from the guest */
	AV_GUEST_HELLO = 32,
	AV_GUEST_DONE = 33,    /* FREEZE, THAW or WARM number `seq` is done, or why not */
	AV_GUEST_CONFIRM = 34, /* IDENTITY number `seq` */
	AV_GUEST_RECORD = 35,  /* the agent's exit record (agent_api.h), to be kept outside */
	AV_GUEST_KILLS = 36,   /* how many processes the guest's kernel has killed for memory; sent
	                        * before the end of one that it may have killed is told on a link */
};

enum {
	AV_GUEST_HAS_INTERNET = 1 << 0, /* else the interface stays down */
	AV_GUEST_NO_SUDO = 1 << 1,      /* no_new_privs for everything that is started */
};

/* Who the guest is from now on. */
struct av_guest_identity {
	char id[AV_ID_SIZE];                      /* of the sandbox */
	char hostname[AV_GUEST_HOSTNAME_MAX + 1]; /* letters, digits, dashes */
	uint8_t machine_id[16];
	uint8_t entropy[64]; /* for the kernel's random numbers */
	uint8_t mac[6];
	uint8_t prefix_len;                  /* of the network, 8 to 30 */
	uint8_t flags;                       /* AV_GUEST_HAS_INTERNET, … */
	uint32_t address, gateway, resolver; /* IPv4, host order; 0: none */
	int64_t real_ns;                     /* CLOCK_REALTIME outside, when this was sent */
	uint64_t disk_bytes;                 /* the writable file system grows to this; 0: stays */
	uint32_t pids_max;                   /* of all processes together; 0: no limit */
};

/* What the guest read back after it had taken an identity. */
struct av_guest_confirm {
	int32_t error; /* 0 or an errno (positive) */
	char text[128];
	char hostname[AV_GUEST_HOSTNAME_MAX + 1];
	uint8_t machine_id[16];
	uint8_t mac[6];
	uint32_t address;
	int64_t real_ns;
};

struct av_guest_hello {
	uint32_t version;
	char agent[32];  /* its version */
	char kernel[64]; /* release */
};

struct av_guest_done {
	int32_t error;
	char text[128];
};

struct av_guest_message {
	enum av_guest_type type;
	uint32_t seq; /* chosen by the outside, answered with; 0 where nothing is answered */
	union {
		struct av_guest_identity identity;
		struct av_guest_confirm confirm;
		struct av_guest_hello hello;
		struct av_guest_done done;
		uint8_t record[AV_EXIT_RECORD_SIZE];
		uint32_t kills; /* since the guest is who it is */
	};
};

/* Writes a message; returns its size, at most AV_GUEST_MESSAGE_MAX. */
size_t av_guest_encode(uint8_t dst[static AV_GUEST_MESSAGE_MAX], const struct av_guest_message *m);
/* -EPROTO: not a message, or one with a value that is not allowed (text that does not end, a host
 * name with other characters, …). Text of confirm, hello and done is made printable. */
int av_guest_decode(struct av_str record, struct av_guest_message *ret) AV_MUST_CHECK;
