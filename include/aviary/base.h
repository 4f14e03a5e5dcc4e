/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base.h - what all headers of libaviary share: visibility, versions, error codes
 *
 * Conventions of the library
 *  - Strings are UTF-8 and end in NUL; file contents and output of programs are bytes with a
 * length.
 *  - Times that last are milliseconds in int64_t; -1 means without end, 0 the default where a
 *    default is stated and "do not wait" where one waits. Points of time are milliseconds since
 * 1970.
 *  - A function that can fail returns int: 0 (or a count) on success, else a negative enum
 *    aviary_code. What went wrong in words is kept by the object it was asked of.
 *  - Structs that a caller fills begin with struct_size and have an initialiser (..._INIT): members
 *    may be added at the end of later versions. Zero in a member means the default.
 *  - const char * that a function returns is borrowed; what is to be freed says so.
 */
#ifndef AVIARY_BASE_H
#define AVIARY_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define AVIARY_BEGIN_DECLS extern "C" {
#define AVIARY_END_DECLS   }
#else
#define AVIARY_BEGIN_DECLS
#define AVIARY_END_DECLS
#endif

#if defined(__GNUC__)
#define AVIARY_API          __attribute__((visibility("default")))
#define AVIARY_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define AVIARY_NODISCARD    __attribute__((warn_unused_result))
#else
#define AVIARY_API
#define AVIARY_PRINTF(f, a)
#define AVIARY_NODISCARD
#endif

/* What ..._INIT is made of: all zero but struct_size. */
#ifdef __cplusplus
template <class T> static inline T aviary_initial(void)
{
	T t = T();

	t.struct_size = sizeof(T);
	return t;
}
#define AVIARY_INITIAL(type) aviary_initial<type>()
#else
#define AVIARY_INITIAL(type)                                                                       \
	{                                                                                          \
		.struct_size = sizeof(type)                                                        \
	}
#endif

AVIARY_BEGIN_DECLS

#define AVIARY_VERSION_MAJOR 0
#define AVIARY_VERSION_MINOR 1
#define AVIARY_VERSION_PATCH 0

/* "0.1.0" of the library that is linked, which may be a later one than the headers'. */
AVIARY_API const char *aviary_version(void);

/* Groups: the second byte of -code. aviary_error_is(code, AVIARY_GROUP_SANDBOX) is true for all of
 * a group, and for AVIARY_E_SANDBOX_NOT_FOUND only for that one. */
#define AVIARY_GROUP_USAGE     (-0x0100)
#define AVIARY_GROUP_AUTH      (-0x0200)
#define AVIARY_GROUP_TRANSPORT (-0x0300)
#define AVIARY_GROUP_SERVER    (-0x0400)
#define AVIARY_GROUP_SANDBOX   (-0x0500)
#define AVIARY_GROUP_EXEC      (-0x0600)
#define AVIARY_GROUP_FILE      (-0x0700)
#define AVIARY_GROUP_FUNCTION  (-0x0800)

enum aviary_code {
	AVIARY_OK = 0,

	/* the caller */
	AVIARY_E_INVALID = -0x0101, /* an argument, or the server refused a value */
	AVIARY_E_NO_MEMORY = -0x0102,
	AVIARY_E_STATE = -0x0103,    /* not now: closed, already taken, in the wrong order */
	AVIARY_E_CANCELED = -0x0104, /* by the caller */
	AVIARY_E_TIMEOUT = -0x0105,  /* the operation's own time is over */
	AVIARY_E_AGAIN = -0x0106,    /* not finished yet; nothing is wrong */
	AVIARY_E_TOO_LARGE = -0x0107,
	AVIARY_E_UNSUPPORTED = -0x0108,
	AVIARY_E_LOCAL = -0x0109, /* a file or descriptor of this machine */

	/* who asks */
	AVIARY_E_NO_CREDENTIALS = -0x0201, /* none were found; the message names the places */
	AVIARY_E_UNAUTHORIZED = -0x0202,   /* the server does not know them */
	AVIARY_E_FORBIDDEN = -0x0203,
	AVIARY_E_WANDB = -0x0204, /* a W&B key without its entity */

	/* on the way */
	AVIARY_E_UNREACHABLE = -0x0301, /* nobody answered */
	AVIARY_E_TLS = -0x0302,         /* the certificate is not trusted */
	AVIARY_E_BROKEN = -0x0303,      /* the connection ended in the middle */
	AVIARY_E_PROTOCOL = -0x0304,    /* what came is no answer of an Aviary */

	/* the server, about no sandbox in particular */
	AVIARY_E_NOT_FOUND = -0x0401,
	AVIARY_E_CONFLICT = -0x0402,
	AVIARY_E_QUOTA = -0x0403,
	AVIARY_E_RATE_LIMITED = -0x0404,
	AVIARY_E_NO_SPACE = -0x0405,
	AVIARY_E_UNAVAILABLE = -0x0406,
	AVIARY_E_INTERNAL = -0x0407,

	/* a sandbox */
	AVIARY_E_SANDBOX_NOT_FOUND = -0x0501,
	AVIARY_E_SANDBOX_NOT_RUNNING = -0x0502,
	AVIARY_E_SANDBOX_FAILED = -0x0503,     /* it could not start, or died */
	AVIARY_E_SANDBOX_TERMINATED = -0x0504, /* somebody or its lifetime ended it */
	AVIARY_E_SANDBOX_TIMEOUT = -0x0505,    /* it was not there in time */
	AVIARY_E_PORT_CLOSED = -0x0506,        /* nothing listens on that port of it */

	/* a process in it */
	AVIARY_E_EXEC_FAILED = -0x0601,    /* non-zero exit, where that was to be an error */
	AVIARY_E_EXEC_TIMEOUT = -0x0602,   /* killed: its time was over */
	AVIARY_E_EXEC_NOT_FOUND = -0x0603, /* no such program, or no such process */
	AVIARY_E_EXEC_NOT_EXECUTABLE = -0x0604,
	AVIARY_E_EXEC_STDIN = -0x0605, /* closed, or the process is over */

	/* a file in it */
	AVIARY_E_FILE_NOT_FOUND = -0x0701,
	AVIARY_E_FILE_EXISTS = -0x0702,
	AVIARY_E_FILE_DENIED = -0x0703,
	AVIARY_E_FILE_IS_DIRECTORY = -0x0704,
	AVIARY_E_FILE_NOT_DIRECTORY = -0x0705,
	AVIARY_E_FILE = -0x0706,

	/* a remote function */
	AVIARY_E_FUNCTION_UNKNOWN = -0x0801,  /* not registered in this program */
	AVIARY_E_FUNCTION_ARCH = -0x0802,     /* the sandbox has another processor */
	AVIARY_E_FUNCTION_BUILD = -0x0803,    /* the program there is not the one here */
	AVIARY_E_FUNCTION_PROGRAM = -0x0804,  /* its file cannot be read or is not complete */
	AVIARY_E_FUNCTION_ARGUMENT = -0x0805, /* cannot be encoded, or too large */
	AVIARY_E_FUNCTION_RESULT = -0x0806,   /* cannot be decoded */
	AVIARY_E_FUNCTION_CRASHED = -0x0807,  /* signal or exit before it returned */
	AVIARY_E_FUNCTION_FAILED = -0x0808    /* it returned something else than 0 */
};

/* "AVIARY_E_SANDBOX_NOT_FOUND"; static. */
AVIARY_API const char *aviary_code_name(int code);
/* A short sentence for people; static. */
AVIARY_API const char *aviary_code_text(int code);
/* Whether code is what, or in the group what. */
AVIARY_API int aviary_error_is(int code, int what);

/* A list of strings: items NULL means "not said", items with n 0 means "none". Borrowed for a call
 * where it is given, part of a result where it is in one. */
typedef struct aviary_strings {
	const char *const *items;
	size_t n;
} aviary_strings;

/* Names with their values, likewise. */
typedef struct aviary_pair {
	const char *name, *value;
} aviary_pair;
typedef struct aviary_pairs {
	const aviary_pair *items;
	size_t n;
} aviary_pairs;

/* Numbers, likewise; points of time are milliseconds since 1970. */
typedef struct aviary_integers {
	const int64_t *items;
	size_t n;
} aviary_integers;

typedef struct aviary_ports {
	const uint16_t *items;
	size_t n;
} aviary_ports;

/* What went wrong. Strings are never NULL; they live as long as what the error was asked of. */
typedef struct aviary_error {
	int code;                /* enum aviary_code; 0: nothing */
	int http_status;         /* 0: the server did not answer */
	int64_t retry_after_ms;  /* when to try again; -1: nobody said */
	const char *message;     /* for people, with the cure */
	const char *server_code; /* "quota_exceeded"; "" */
	const char *sandbox_id;  /* ""  */
	const char *request_id;  /* as in the server's log; "" */
	const char *path;        /* the file it is about; "" */
} aviary_error;

AVIARY_END_DECLS
#endif
