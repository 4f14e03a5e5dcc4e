/* SPDX-License-Identifier: Apache-2.0 */
/*
 * secret_file.c - a secret that an option names the file of (see secret_file.h)
 */
#include "daemon/secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#include "base/banned.h"

int secret_file_read(
    enum daemon_opt opt, const char *path, char ret[static SECRET_FILE_MAX + 2], struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	const char *name = daemon_opt_name(opt);
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return av_err_sys(err, AV_ERR_INVALID, errno,
		    "--%s: cannot read %.200s as the daemon's user (id %u)", name, path,
		    (unsigned int)geteuid());
	if (!S_ISREG(st.st_mode) || st.st_mode & 07)
		return av_err_set(err, AV_ERR_INVALID,
		    "--%s: %.200s must be a file that not everybody can read: `chmod o-rwx %.200s`",
		    name, path, path);
	n = av_read_full(fd, ret, SECRET_FILE_MAX + 2);
	if (n > 0 && ret[n - 1] == '\n')
		n--;
	if (n <= 0 || n > SECRET_FILE_MAX || memchr(ret, '\n', (size_t)n) ||
	    memchr(ret, '\0', (size_t)n))
		return av_err_set(err, AV_ERR_INVALID,
		    "--%s: %.200s must hold one line of 1 to %d bytes", name, path,
		    SECRET_FILE_MAX);
	ret[n] = '\0';
	return 0;
}
