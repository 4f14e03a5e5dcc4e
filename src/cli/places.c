/* SPDX-License-Identifier: Apache-2.0 */
/*
 * places.c - where a daemon started by this user keeps its things
 */
#include "cli/places.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/path.h"

#include "base/banned.h"

/* The variable's value if it is an absolute path, as the XDG specification demands. */
static const char *absolute(const char *variable)
{
	const char *v = getenv(variable);
	return v && v[0] == '/' ? v : NULL;
}

int places_state(char *ret_path, size_t size)
{
	const char *own = absolute("AVIARY_STATE"), *xdg = absolute("XDG_STATE_HOME");
	const char *home = absolute("HOME");
	if (own)
		return av_path_printf(ret_path, size, "%s", own);
	if (geteuid() == 0)
		return av_path_printf(ret_path, size, "/var/lib/aviary");
	if (xdg)
		return av_path_printf(ret_path, size, "%s/aviary", xdg);
	if (home)
		return av_path_printf(ret_path, size, "%s/.local/state/aviary", home);
	return -ENOENT;
}

int places_run(const char *state, char *ret_path, size_t size)
{
	const char *own = absolute("AVIARY_RUN"), *xdg = absolute("XDG_RUNTIME_DIR");
	if (own)
		return av_path_printf(ret_path, size, "%s", own);
	if (geteuid() == 0)
		return av_path_printf(ret_path, size, "/run/aviary");
	if (xdg)
		return av_path_printf(ret_path, size, "%s/aviary", xdg);
	return av_path_printf(ret_path, size, "%s/run", state);
}

int places_absolute(const char *path, char *ret, size_t size)
{
	char here[4096];
	if (!getcwd(here, sizeof(here)))
		return -errno;
	AV_CLEANUP(av_buf_clear) struct av_buf b = AV_BUF_INIT(AV_PATH_MAX + 1);
	int r = av_path_clean(&b, av_str_c(here), av_str_c(path), NULL);
	return r < 0 ? r : av_str_copy(ret, size, av_buf_str(&b));
}
