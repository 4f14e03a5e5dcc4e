/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.c - a backup becomes a state directory (see restore.h)
 *
 * Theory of operation. The state directory's lock is held, so that no Aviary starts on it. The file
 * INSTANCE_RESTORING is there from before the first byte until all of it is verified and on the
 * disk; a supervisor refuses a directory that has it, as does the next restore. So a restore that
 * was killed leaves nothing that anybody takes for an Aviary.
 *
 * Verified is: the layout (layer_tar.h), each template's record by its seal and its files by the
 * checksum in it, once they lie on this disk, and the whole archive by the sum at its end. Layers
 * that lay in a btrfs image become plain directories, with a record that says so and keeps their
 * identity. The database is bytes here: the daemon opens it. It is handed to the daemon's user by
 * the first start (instance.c).
 *
 * Failpoints: restore.begun restore.database restore.template restore.verified.
 */
#include "spawn/restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/codec.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/num.h"
#include "base/path.h"
#include "spawn/instance.h"
#include "spawn/layer_tar.h"
#include "spawn/mounts.h"
#include "spawn/template_meta.h"
#include "base/banned.h"

#define TEMPLATES "templates/"
#define OPEN_DIR  (O_RDONLY | O_DIRECTORY)

struct restore {
	const struct spawn_options *o;
	struct tar_in *in;
	int state, templates, lock;
	bool from_rootless;
	uint64_t database_bytes;
	unsigned int n_templates;
	/* The template that is being read: */
	struct untar *untar; /* NULL: none */
	struct template_meta meta;
	char prefix[sizeof(TEMPLATES) + TEMPLATE_ID_SIZE];
	int dir, layer;
	char text[BACKUP_HEAD_SIZE + 1];
};

static int die_here(const char *name, struct av_err *err)
{
	return av_failpoint(name) ? av_err_set(err, AV_ERR_INTERNAL, "failpoint %s", name) : 0;
}

/* ---- the directory ---- */

static int check_empty(const struct restore *r, struct av_err *err)
{
	const char *name = r->o->state_dir;
	int fd = openat(r->state, ".", OPEN_DIR | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;
	int result = 0;

	if (!d) {
		av_close_fd(&fd);
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot read %s", name);
	}
	while (result == 0 && (e = readdir(d))) {
		if (strcmp(e->d_name, INSTANCE_RESTORING) == 0)
			result = av_err_set(err, AV_ERR_CONFLICT,
			    "%s is what a restore that did not end has left; remove it "
			    "(aviary cleanup --all --state %s) and restore again",
			    name, name);
		else if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		         strcmp(e->d_name, "lock") != 0 && strcmp(e->d_name, "lost+found") != 0)
			result = av_err_set(err, AV_ERR_CONFLICT,
			    "%s is not empty (%.60s): restore into a directory that is missing or "
			    "empty, and name it with --state",
			    name, e->d_name);
	}
	closedir(d);
	return result;
}

static int open_state(struct restore *r, struct av_err *err)
{
	const char *path = r->o->state_dir;
	struct stat st;
	int res = instance_make_parents(path, 0711);

	if (res < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, res, "cannot make the way to %s", path);
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make %s", path);
	r->state = open(path, OPEN_DIR | O_NOFOLLOW | O_CLOEXEC);
	if (r->state < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot open %s", path);
	/* Whoever owns it could put something else in the place of what is written here. */
	if (fstat(r->state, &st) < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot look at %s", path);
	if (st.st_uid != geteuid())
		return av_err_set(err, AV_ERR_FORBIDDEN,
		    "%s belongs to user %u: name a directory that is missing, or one of your own, "
		    "with --state",
		    path, (unsigned int)st.st_uid);
	res = check_empty(r, err);
	if (res == 0 && fchmod(r->state, 0700) < 0)
		res = av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot close %s to others", path);
	if (res == 0)
		res = instance_lock(path, "--state", &r->lock, err);
	return res < 0 ? res : check_empty(r, err);
}

static int set_marker(struct restore *r, bool set)
{
	if (set) {
		AV_CLEANUP(av_closep)
		int fd = openat(
		    r->state, INSTANCE_RESTORING, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0)
			return -errno;
	} else if (syncfs(r->state) < 0 || unlinkat(r->state, INSTANCE_RESTORING, 0) < 0) {
		return -errno;
	}
	return fsync(r->state) < 0 ? -errno : 0;
}

static int begin(struct restore *r, struct av_err *err)
{
	int res = set_marker(r, true);

	if (res == 0 && r->o->rootless)
		res = mounts_enter_userns(err);
	if (res == 0 &&
	    (mkdirat(r->state, "templates", 0700) < 0 || mkdirat(r->state, "db", 0700) < 0))
		res = -errno;
	if (res == 0) {
		r->templates = layer_open(r->state, "templates", OPEN_DIR);
		res = AV_MIN(r->templates, 0);
	}
	if (res < 0 && !err->message[0])
		(void)av_err_sys(err, AV_ERR_INTERNAL, res, "cannot write in %s", r->o->state_dir);
	return res < 0 ? res : die_here("restore.begun", err);
}

/* ---- members of the archive's own ---- */

/* A file of exactly BACKUP_HEAD_SIZE bytes into r->text. */
static int read_text(struct restore *r, const struct tar_member *m, struct av_err *err)
{
	if (m->type != '0' || m->size != BACKUP_HEAD_SIZE || m->sparse ||
	    tar_in_read(r->in, r->text, BACKUP_HEAD_SIZE) != BACKUP_HEAD_SIZE)
		return tar_in_bad(r->in, m->path, err);
	r->text[BACKUP_HEAD_SIZE] = '\0';
	return 0;
}

static int read_head(struct restore *r, struct av_err *err)
{
	struct tar_member m;
	int res = tar_in_next(r->in, &m, err);

	if (res < 0)
		return res;
	if (res == 0 || strcmp(m.path, BACKUP_HEAD) != 0)
		return tar_in_bad(r->in, "it begins with something else", err);
	res = read_text(r, &m, err);
	if (res < 0)
		return res;
	if (strncmp(r->text, BACKUP_MAGIC, strlen(BACKUP_MAGIC)) != 0)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "this backup has a form that this Aviary does not know (%.20s): install the "
		    "version that made it, or a newer one",
		    r->text);
	r->from_rootless = strstr(r->text, "\nrootless 1\n") != NULL;
	return 0;
}

static int copy_database(struct restore *r, struct av_err *err)
{
	static char block[65536];
	ssize_t n;

	AV_CLEANUP(av_closep)
	int fd = openat(r->state, "db/" BACKUP_DATABASE,
	    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, errno, "cannot make the database");
	while ((n = tar_in_read(r->in, block, sizeof(block))) > 0) {
		int res = av_write_full(fd, block, (size_t)n);

		if (res < 0)
			return av_err_sys(err, res == -ENOSPC ? AV_ERR_NO_SPACE : AV_ERR_INTERNAL,
			    res, "cannot write the database");
	}
	return n < 0 ? tar_in_bad(r->in, "its database is cut off", err) : 0;
}

static int read_database(struct restore *r, struct av_err *err)
{
	struct tar_member m;
	int res = tar_in_next(r->in, &m, err);

	if (res < 0)
		return res;
	if (res == 0 || strcmp(m.path, BACKUP_DATABASE) != 0 || m.type != '0' || m.sparse ||
	    m.size == 0)
		return tar_in_bad(r->in, "there is no database in it", err);
	r->database_bytes = m.size;
	res = copy_database(r, err);
	return res < 0 ? res : die_here("restore.database", err);
}

/* ---- templates ---- */

static void close_template(struct restore *r)
{
	untar_free(AV_TAKE_PTR(r->untar));
	av_close_fd(&r->layer);
	av_close_fd(&r->dir);
}

static int check_template(struct restore *r, struct av_err *err)
{
	struct layer_sum root = {0}, usr = {0};
	uint8_t content[LAYER_HASH_SIZE];

	AV_CLEANUP(av_closep) int root_fd = layer_open(r->layer, "root", OPEN_DIR);
	AV_CLEANUP(av_closep) int usr_fd = layer_open(r->layer, "usr", OPEN_DIR);
	bool on_host = r->meta.flags & TEMPLATE_ON_HOST;
	int res = root_fd < 0 || (on_host && usr_fd < 0) ? -ENOENT : layer_sum(root_fd, &root);
	if (res == 0 && usr_fd >= 0)
		res = layer_sum(usr_fd, &usr);
	if (res < 0)
		return av_err_sys(
		    err, AV_ERR_CHECKSUM, res, "cannot read back template %s", r->meta.id);
	template_content(&root, &usr, content);
	if (memcmp(content, r->meta.content, sizeof(content)) == 0)
		return 0;
	(void)av_err_set(err, AV_ERR_CHECKSUM,
	    "checksum error: the files of template %s are not what they were when it was made. "
	    "Does the file system of %s keep owners, extended attributes and times in "
	    "nanoseconds?",
	    r->meta.id, r->o->state_dir);
	return -EBADMSG;
}

static int end_template(struct restore *r, struct av_err *err)
{
	int res = untar_finish(r->untar, err);

	if (res == 0)
		res = check_template(r, err);
	if (res < 0)
		return res;
	r->meta.flags &= ~(uint32_t)TEMPLATE_IN_IMAGE;
	r->meta.generation = 0;
	template_meta_seal_restored(&r->meta);
	res = template_meta_write(r->dir, &r->meta);
	close_template(r);
	r->n_templates++;
	return res < 0 ? av_err_sys(
	                     err, AV_ERR_INTERNAL, res, "cannot write the record of %s", r->meta.id)
	               : die_here("restore.template", err);
}

static int make_template_dirs(struct restore *r, const char *id)
{
	if (mkdirat(r->templates, id, 0700) < 0)
		return -errno;
	r->dir = layer_open(r->templates, id, OPEN_DIR);
	if (r->dir < 0)
		return r->dir;
	if (mkdirat(r->dir, TEMPLATE_LAYER_DIR, 0700) < 0)
		return -errno;
	r->layer = layer_open(r->dir, TEMPLATE_LAYER_DIR, OPEN_DIR);
	return AV_MIN(r->layer, 0);
}

static int check_kind(const struct restore *r, struct av_err *err)
{
	if (r->from_rootless == r->o->rootless)
		return 0;
	return av_err_set(err, AV_ERR_FORBIDDEN,
	    r->o->rootless
	        ? "this backup holds templates of an Aviary that ran as root: restore it as root"
	        : "this backup holds templates of an Aviary that ran without root: restore it as "
	          "an ordinary user");
}

/* templates/<id>/meta */
static int begin_template(struct restore *r, const struct tar_member *m, struct av_err *err)
{
	uint8_t record[sizeof(struct template_meta)];
	const char *rest = m->path + strlen(TEMPLATES);
	size_t n = strcspn(rest, "/");
	char id[TEMPLATE_ID_SIZE];
	int res = check_kind(r, err);

	if (res < 0)
		return res;
	if (av_str_copy(id, sizeof(id), av_str_n(rest, n)) < 0 || !template_id_ok(id) ||
	    strcmp(rest + n, "/" TEMPLATE_META_NAME) != 0 || m->type != '0' || m->sparse ||
	    m->size > sizeof(record))
		return tar_in_bad(r->in, "a template without a record", err);
	ssize_t got = tar_in_read(r->in, record, (size_t)m->size);
	if (got != (ssize_t)m->size)
		return tar_in_bad(r->in, "a record that is cut off", err);
	res = template_meta_parse(record, (size_t)got, id, &r->meta, err);
	if (res == 0 && (res = make_template_dirs(r, id)) < 0)
		return res == -EEXIST ? tar_in_bad(r->in, "a template twice", err)
		                      : av_err_sys(err, AV_ERR_INTERNAL, res, "cannot make %s", id);
	if (res == 0)
		res = av_path_printf(r->prefix, sizeof(r->prefix), TEMPLATES "%s", id);
	if (res < 0)
		return res;
	r->untar = untar_new(r->layer, r->prefix, r->o->rootless);
	return r->untar ? 0 : av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
}

static bool of_template(const struct restore *r, const char *path)
{
	size_t n = strlen(r->prefix);

	return r->untar && strncmp(path, r->prefix, n) == 0 && path[n] == '/';
}

/* ---- the end ---- */

static int read_end(struct restore *r, const struct tar_member *m, struct av_err *err)
{
	static const char form[] = "aviary-backup-end 1\nblake2b ";
	char hex[2 * LAYER_HASH_SIZE + 1];
	uint8_t hash[LAYER_HASH_SIZE];
	struct tar_member after;

	tar_in_hash_before(r->in, hash);
	int res = read_text(r, m, err);
	if (res < 0)
		return res;
	av_hex_encode(hex, hash, sizeof(hash));
	if (strncmp(r->text, form, strlen(form)) != 0 ||
	    strncmp(r->text + strlen(form), hex, 2 * sizeof(hash)) != 0 ||
	    r->text[strlen(form) + 2 * sizeof(hash)] != '\n')
		return tar_in_bad(r->in, "its checksum does not fit", err);
	res = tar_in_next(r->in, &after, err);
	return res > 0 ? tar_in_bad(r->in, "something follows its end", err) : res;
}

static int read_members(struct restore *r, struct av_err *err)
{
	struct tar_member m;

	for (;;) {
		int res = tar_in_next(r->in, &m, err);

		if (res == 0)
			return tar_in_bad(r->in, "it has no end", err);
		if (res > 0 && r->untar && !of_template(r, m.path))
			res = AV_MIN(end_template(r, err), 0);
		if (res < 0)
			return res;
		if (strcmp(m.path, BACKUP_END) == 0)
			return read_end(r, &m, err);
		if (r->untar)
			res = untar_member(r->untar, r->in, &m, err);
		else if (strncmp(m.path, TEMPLATES, strlen(TEMPLATES)) == 0)
			res = begin_template(r, &m, err);
		else
			res = tar_in_bad(r->in, m.path, err);
		if (res < 0)
			return res;
	}
}

static int restore(struct restore *r, struct av_err *err)
{
	int res = open_state(r, err);

	/* Before anything is written: what this is. */
	if (res == 0)
		res = read_head(r, err);
	if (res == 0)
		res = begin(r, err);
	if (res == 0)
		res = read_database(r, err);
	if (res == 0)
		res = read_members(r, err);
	if (res == 0)
		res = die_here("restore.verified", err);
	if (res < 0)
		return res;
	res = set_marker(r, false);
	return res < 0 ? av_err_sys(err, AV_ERR_INTERNAL, res, "%s does not reach its disk",
	                     r->o->state_dir)
	               : 0;
}

/* A descriptor for each level of the deepest directory. */
static void raise_file_limit(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
		l.rlim_cur = l.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &l);
	}
}

int restore_main(const struct spawn_options *o)
{
	struct av_err err = {0};
	struct restore r = {
	    .o = o, .state = -1, .templates = -1, .lock = -1, .dir = -1, .layer = -1};

	(void)umask(077);
	raise_file_limit();
	r.in = tar_in_new(STDIN_FILENO);
	int res = r.in ? restore(&r, &err) : av_err_set(&err, AV_ERR_NO_MEMORY, "out of memory");
	if (res < 0)
		fprintf(
		    stderr, "aviary-spawn: %s\n", err.message[0] ? err.message : strerror(-res));
	if (res < 0 && r.templates >= 0)
		fprintf(stderr,
		    "aviary-spawn: what was restored so far is of no use: "
		    "aviary cleanup --all --state %s removes it\n",
		    o->state_dir);
	if (res == 0)
		printf("restored the database (%llu bytes) and %u templates into %s\n",
		    (unsigned long long)r.database_bytes, r.n_templates, o->state_dir);
	close_template(&r);
	tar_in_free(r.in);
	av_close_fd(&r.templates);
	av_close_fd(&r.state);
	av_close_fd(&r.lock);
	return res < 0;
}
