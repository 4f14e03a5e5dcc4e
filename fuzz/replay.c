/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay.c - runs a fuzz target on every file of the directories given; TAP
 *
 * Each file is also run cut short at a few places, which costs nothing and finds reads past the
 * end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuzz.h"

#include "base/banned.h"

#define INPUT_MAX (1 << 20)

static int run_file(int dirfd, const char *name)
{
	AV_CLEANUP(av_closep) int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	uint8_t *data = malloc(INPUT_MAX);
	ssize_t n = data ? av_read_full(fd, data, INPUT_MAX) : -ENOMEM;
	for (ssize_t cut = n; cut > 0; cut = cut * 3 / 4) {
		/* An exact-size copy, for sanitizers. */
		uint8_t *copy = malloc((size_t)cut);
		if (!copy)
			break;
		memcpy(copy, data, (size_t)cut);
		LLVMFuzzerTestOneInput(copy, (size_t)cut);
		free(copy);
	}
	if (n >= 0)
		LLVMFuzzerTestOneInput(data, 0);
	free(data);
	return n >= 0;
}

int main(int argc, char **argv)
{
	int files = 0;
	for (int i = 1; i < argc; i++) {
		DIR *dir = opendir(argv[i]);
		if (!dir) {
			printf("Bail out! %s: %s\n", argv[i], strerror(errno));
			return 1;
		}
		for (struct dirent *e; (e = readdir(dir));)
			files += run_file(dirfd(dir), e->d_name);
		closedir(dir);
	}
	printf("%s 1 - %d inputs replayed\n1..1\n", files ? "ok" : "not ok", files);
	return files ? 0 : 1;
}
