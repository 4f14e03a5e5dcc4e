/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codes.c - what we call what the server, or libcurl, says went wrong
 */
#include <string.h>

#include "client/request.h"

#include "base/banned.h"

/* What the server calls it, and what we do. */
static const struct {
	const char *name;
	int code, of_sandbox, of_file; /* of_*: when it is about one; 0: the same */
} words[] = {
    {"invalid_request", AVIARY_E_INVALID, 0, 0},
    {"unauthorized", AVIARY_E_UNAUTHORIZED, 0, 0},
    {"forbidden", AVIARY_E_FORBIDDEN, 0, AVIARY_E_FILE_DENIED},
    {"not_found", AVIARY_E_NOT_FOUND, AVIARY_E_SANDBOX_NOT_FOUND, AVIARY_E_FILE_NOT_FOUND},
    {"invalid_state", AVIARY_E_CONFLICT, AVIARY_E_SANDBOX_NOT_RUNNING,
        AVIARY_E_SANDBOX_NOT_RUNNING},
    {"conflict", AVIARY_E_CONFLICT, 0, AVIARY_E_FILE_EXISTS},
    {"quota_exceeded", AVIARY_E_QUOTA, 0, 0},
    {"rate_limited", AVIARY_E_RATE_LIMITED, 0, 0},
    {"too_large", AVIARY_E_TOO_LARGE, 0, 0},
    {"no_space", AVIARY_E_NO_SPACE, 0, 0},
    {"unsupported", AVIARY_E_UNSUPPORTED, 0, 0},
    {"timeout", AVIARY_E_EXEC_TIMEOUT, 0, 0},
    {"host_unavailable", AVIARY_E_UNAVAILABLE, 0, 0},
    {"out_of_memory", AVIARY_E_UNAVAILABLE, 0, 0},
    {"agent_error", AVIARY_E_UNAVAILABLE, AVIARY_E_SANDBOX_FAILED, AVIARY_E_FILE},
    {"internal_error", AVIARY_E_INTERNAL, 0, 0},
    {"port_not_open", AVIARY_E_PORT_CLOSED, 0, 0},
    {"upstream_error", AVIARY_E_PROTOCOL, 0, 0},
};

static int code_of_status(int status)
{
	switch (status) {
	case 401:
		return AVIARY_E_UNAUTHORIZED;
	case 403:
		return AVIARY_E_FORBIDDEN;
	case 404:
		return AVIARY_E_NOT_FOUND;
	case 409:
		return AVIARY_E_CONFLICT;
	case 413:
		return AVIARY_E_TOO_LARGE;
	case 429:
		return AVIARY_E_RATE_LIMITED;
	case 501:
		return AVIARY_E_UNSUPPORTED;
	case 502:
	case 503:
	case 504:
		return AVIARY_E_UNAVAILABLE;
	default:
		return status >= 400 && status < 500 ? AVIARY_E_INVALID : AVIARY_E_INTERNAL;
	}
}

int avc_code_of(const char *name, int status, bool of_sandbox, bool of_file)
{
	for (size_t i = 0; name && i < AV_ARRAY_LEN(words); i++) {
		if (strcmp(name, words[i].name) != 0)
			continue;
		if (of_file && words[i].of_file)
			return words[i].of_file;
		if (of_sandbox && words[i].of_sandbox)
			return words[i].of_sandbox;
		return words[i].code;
	}
	return code_of_status(status);
}

/* What the sandbox's agent says of a path begins with "path", or "directory". It has one word for
 * all that cannot be done with one, so the kind is in the message, before or behind the path
 * itself. */
int avc_code_of_file(const char *name, int status, const char *message)
{
	struct av_str m = av_str_c(message);

	if (av_str_starts(m, AV_STR("there is no sandbox ")))
		return AVIARY_E_SANDBOX_NOT_FOUND;
	if (!av_str_starts(m, AV_STR("path ")) && !av_str_starts(m, AV_STR("directory '")))
		return name && strcmp(name, "invalid_state") == 0
		           ? AVIARY_E_SANDBOX_NOT_RUNNING
		           : avc_code_of(name, status, true, false);
	if (av_str_starts(m, AV_STR("path is a directory")) ||
	    av_str_ends(m, AV_STR("is a directory")))
		return AVIARY_E_FILE_IS_DIRECTORY;
	if (av_str_starts(m, AV_STR("path is not a directory")) ||
	    av_str_ends(m, AV_STR("is not a directory")) ||
	    av_str_ends(m, AV_STR("Not a directory")))
		return AVIARY_E_FILE_NOT_DIRECTORY;
	if (status == 500)
		return AVIARY_E_FILE;
	return avc_code_of(name, status, true, true);
}

int avc_code_of_curl(CURLcode result)
{
	switch (result) {
	case CURLE_OUT_OF_MEMORY:
		return AVIARY_E_NO_MEMORY;
	case CURLE_OPERATION_TIMEDOUT:
		return AVIARY_E_TIMEOUT;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_CACERT_BADFILE:
		return AVIARY_E_TLS;
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return AVIARY_E_UNREACHABLE;
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_HTTP2:
		return AVIARY_E_PROTOCOL;
	case CURLE_WRITE_ERROR:
		return AVIARY_E_TOO_LARGE;
	default:
		return AVIARY_E_BROKEN;
	}
}
