/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_none.c - areas without a limit
 */
#include "spawn/disk_internal.h"

#include "base/fd.h"
#include "base/banned.h"

static int none_setup(struct disk *d, struct av_err *err)
{
	(void)d;
	(void)err;
	return 0;
}

static int none_create(
    struct disk *d, const char *id, uint64_t limit, uid_t owner, int *ret_dirfd, struct av_err *err)
{
	(void)limit;
	return disk_area_create(d, id, owner, ret_dirfd, err);
}

static int none_usage(struct disk *d, const char *id, struct disk_usage *ret)
{
	AV_CLEANUP(av_closep) int fd = -1;
	int r = disk_area_open(d, id, &fd, NULL);
	if (r < 0)
		return r;
	*ret = (struct disk_usage){0}; /* counting would mean walking what the guest made */
	return 0;
}

const struct disk_ops disk_none_ops = {
    .mode = DISK_MODE_NONE,
    .setup = none_setup,
    .create = none_create,
    .open = disk_area_open,
    .usage = none_usage,
    .remove = disk_area_remove,
    .step = disk_area_step,
    .list = disk_area_list,
};
