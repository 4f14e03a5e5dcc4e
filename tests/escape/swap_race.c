/* SPDX-License-Identifier: Apache-2.0 */
/*
 * swap_race.c - T25: swaps a directory and a symbolic link to / as fast as it can
 *
 * Arguments: directory seconds. Below directory, `d` is by turns a real directory and a link to
 * "/etc", `f` by turns a file and a link to "/etc/hostname", and `t` a link to "../../../../..".
 */
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "attack.h"

int main(int argc, char **argv)
{
	if (argc < 3 || chdir(argv[1]) < 0)
		return 2;
	time_t end = time(NULL) + strtol(argv[2], NULL, 10);
	mkdir("d", 0777);
	if (symlink("/etc", "d.link") < 0 || symlink("/etc/hostname", "f.link") < 0 ||
	    symlink("../../../../../../../..", "t") < 0)
		printf("# %s\n", strerror(errno));
	close(open("f", O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
	long swaps = 0;
	while (time(NULL) < end) {
		for (int i = 0; i < 1000; i++) {
			if (renameat2(AT_FDCWD, "d", AT_FDCWD, "d.link", RENAME_EXCHANGE) == 0)
				swaps++;
			if (renameat2(AT_FDCWD, "f", AT_FDCWD, "f.link", RENAME_EXCHANGE) == 0)
				swaps++;
		}
	}
	printf("# %ld swaps\n", swaps);
	ok(swaps > 1000, "the race ran");
	return tap_done();
}
