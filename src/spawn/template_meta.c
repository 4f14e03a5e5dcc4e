/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_meta.c - the record of a template
 */
#include "spawn/template_meta.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium/crypto_generichash_blake2b.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/banned.h"

/* Version 1 was the same without generation. */
#define V1_HEAD offsetof(struct template_meta, generation)
#define V2_SIZE offsetof(struct template_meta, identity)
#define V1_SIZE (V2_SIZE - sizeof(uint64_t))
#define V1_TAIL (V1_SIZE - V1_HEAD)

/* More than any version has. */
#define RECORD_MAX (sizeof(struct template_meta) + 1)

static const char magic[8] = {'A', 'V', 'T', 'M', 'P', 'L', '\r', '\n'};

static void hash(
    const void *a, size_t a_size, const void *b, size_t b_size, uint8_t ret[static LAYER_HASH_SIZE])
{
	crypto_generichash_blake2b_state h;
	crypto_generichash_blake2b_init(&h, NULL, 0, LAYER_HASH_SIZE);
	crypto_generichash_blake2b_update(&h, a, a_size);
	crypto_generichash_blake2b_update(&h, b, b_size);
	crypto_generichash_blake2b_final(&h, ret, LAYER_HASH_SIZE);
}

bool template_id_ok(const char *id)
{
	return av_id_valid(av_str_c(id), AV_ID_TEMPLATE) || template_id_is_vm(id);
}

bool template_id_is_vm(const char *id)
{
	return av_id_valid(av_str_c(id), AV_ID_VM_LAYER);
}

static void make_seal(const struct template_meta *m, uint8_t ret[static LAYER_HASH_SIZE])
{
	if (m->version == 1)
		hash(m, V1_HEAD, m->content, V1_TAIL - LAYER_HASH_SIZE, ret);
	else
		hash(m, offsetof(struct template_meta, seal), m->identity,
		    m->version == TEMPLATE_RESTORED ? LAYER_HASH_SIZE : 0, ret);
}

size_t template_meta_size(uint32_t version)
{
	return version == 1                   ? V1_SIZE
	       : version == TEMPLATE_RESTORED ? sizeof(struct template_meta)
	                                      : V2_SIZE;
}

void template_meta_seal(struct template_meta *m)
{
	memcpy(m->magic, magic, sizeof(magic));
	m->version = TEMPLATE_VERSION;
	make_seal(m, m->seal);
	memcpy(m->identity, m->seal, sizeof(m->identity));
}

void template_meta_seal_restored(struct template_meta *m)
{
	memcpy(m->magic, magic, sizeof(magic));
	m->version = TEMPLATE_RESTORED;
	make_seal(m, m->seal);
}

bool template_seal_empty(const uint8_t seal[static LAYER_HASH_SIZE])
{
	static const uint8_t none[LAYER_HASH_SIZE];
	return memcmp(seal, none, sizeof(none)) == 0;
}

void template_content(
    const struct layer_sum *root, const struct layer_sum *usr, uint8_t ret[static LAYER_HASH_SIZE])
{
	hash(root->hash, sizeof(root->hash), usr->hash, sizeof(usr->hash), ret);
}

static int bad(struct av_err *err, const char *id, const char *why)
{
	(void)av_err_set(err, AV_ERR_CHECKSUM,
	    "checksum error: the record of template %s %s; delete the template and make it again",
	    id, why);
	return -EBADMSG;
}

static int open_record(int dirfd, const char *id, int *ret_fd, size_t *ret_size, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = layer_open(dirfd, TEMPLATE_META_NAME, O_RDONLY | O_NONBLOCK);
	struct stat st;
	if (fd == -ENOENT)
		return av_err_set(err, AV_ERR_NOT_FOUND, "no template %s", id);
	if (fd == -ELOOP || fd == -EXDEV)
		return bad(err, id, "is a link");
	if (fd < 0 || fstat(fd, &st) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, fd < 0 ? fd : errno,
		    "cannot open the record of template %s", id);
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1)
		return bad(err, id, "is no plain file");
	if (st.st_uid != geteuid())
		return bad(err, id, "belongs to somebody else");
	*ret_size = (size_t)AV_MIN(st.st_size, (off_t)RECORD_MAX);
	*ret_fd = AV_TAKE_FD(fd);
	return 0;
}

static bool terminated(const char *s, size_t size)
{
	return memchr(s, '\0', size) != NULL;
}

/* In today's layout. False: no version has records of this size. */
static bool lay_out(
    const uint8_t *bytes, size_t size, struct template_meta *ret, uint32_t *ret_version)
{
	*ret = (struct template_meta){0};
	if (size == V1_SIZE) {
		*ret_version = 1;
		memcpy(ret, bytes, V1_HEAD);
		memcpy(ret->content, bytes + V1_HEAD, V1_TAIL);
	} else if (size == V2_SIZE || size == sizeof(*ret)) {
		*ret_version = size == V2_SIZE ? TEMPLATE_VERSION : TEMPLATE_RESTORED;
		memcpy(ret, bytes, size);
	} else {
		return false;
	}
	if (*ret_version != TEMPLATE_RESTORED)
		memcpy(ret->identity, ret->seal, sizeof(ret->identity));
	return true;
}

int template_meta_parse(
    const void *bytes, size_t size, const char *id, struct template_meta *ret, struct av_err *err)
{
	struct template_meta m;
	uint8_t seal[LAYER_HASH_SIZE];
	uint32_t version = 0;
	if (!lay_out(bytes, size, &m, &version))
		return bad(err, id, "has another length than was written");
	if (memcmp(m.magic, magic, sizeof(magic)) != 0)
		return bad(err, id, "is something else");
	if (m.version != version)
		return bad(err, id, "has a version that this Aviary does not know");
	make_seal(&m, seal);
	if (memcmp(seal, m.seal, sizeof(seal)) != 0)
		return bad(err, id, "was changed");
	if (!terminated(m.id, sizeof(m.id)) || !terminated(m.parent, sizeof(m.parent)) ||
	    !terminated(m.host_fingerprint, sizeof(m.host_fingerprint)) || strcmp(m.id, id) != 0)
		return bad(err, id, "is another template's");
	*ret = m;
	return 0;
}

int template_meta_read(int dirfd, const char *id, struct template_meta *ret, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = -1;
	uint8_t bytes[RECORD_MAX];
	size_t size = 0;
	int r = open_record(dirfd, id, &fd, &size, err);
	if (r < 0)
		return r;
	if (av_read_full(fd, bytes, size) != (ssize_t)size)
		return bad(err, id, "cannot be read");
	return template_meta_parse(bytes, size, id, ret, err);
}

int template_meta_write(int dirfd, const struct template_meta *m)
{
	AV_CLEANUP(av_closep)
	int fd = openat(
	    dirfd, TEMPLATE_META_NAME, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int r = av_write_full(fd, m, template_meta_size(m->version));
	return r < 0 ? r : fsync(fd) < 0 ? -errno : 0;
}
