/* SPDX-License-Identifier: Apache-2.0 */
/*
 * watch.c - watching a directory, or a tree of them, through inotify
 */
#include "agent/watch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/fsop.h"
#include "agent/memory.h"
#include "base/avtime.h"
#include "base/codec.h"
#include "base/fd.h"
#include "base/ids.h"

#include "base/banned.h"

#define CHANGES                                                                                    \
	(IN_CREATE | IN_MOVED_TO | IN_MODIFY | IN_ATTRIB | IN_MOVED_FROM | IN_DELETE | IN_ONLYDIR)
#define SELF     (IN_DELETE_SELF | IN_MOVE_SELF)
#define READ_MAX 16384
#define ID_SIZE  33
#define LOOK_N   128 /* entries between two looks at the clock */

/* A directory. */
struct place {
	struct av_list node; /* of all, or of those to be looked at */
	int wd;              /* key in the map; -1 before it is watched */
	bool announce;       /* what is in it is told as created */
	char name[];         /* below the root; "" for the root itself */
};

struct watch {
	struct agent *agent;
	struct av_list node; /* of the agent's */
	struct agent_user user;
	char path[AV_PATH_MAX + 1];
	char id[ID_SIZE];
	bool recursive, polled, ready, hold, include_entry;
	int root; /* O_PATH */
	int fd;   /* of inotify */
	uv_poll_t poll;
	uv_idle_t idle;
	int closing;          /* handles that are */
	struct av_map places; /* by wd; struct place */
	size_t places_n;
	struct av_list todo; /* places to add and look at; at most WATCH_DIRS_MAX + 1 */
	size_t todo_n;
	struct place *looked_at; /* in the map; the one whose content is being read, or NULL */
	DIR *looking;            /* of that */
	struct av_list events;
	size_t events_n;
	bool overflow;
	bool told;      /* on_events was called since the queue was empty */
	uint32_t guess; /* never 0; what is found is new until inotify was read to its end */
	bool guessed;
	uint64_t asked_ms;
	const struct watch_ops *ops;
	void *ctx;
	struct entry_names names;
};

/* --- the queue --- */

static struct watch_event *add_event(
    struct watch *w, enum watch_event_type type, const char *dir, const char *name)
{
	size_t d = strlen(dir), n = strlen(name), sep = d && n;
	struct watch_event *ev = NULL;

	if (w->events_n < WATCH_EVENTS_MAX)
		ev = malloc(sizeof(*ev) + d + sep + n + 2);
	if (!ev) {
		w->overflow = true;
		return NULL;
	}
	ev->type = type;
	ev->guess = 0;
	memcpy(ev->name, dir, d);
	ev->name[d] = '/';
	memcpy(ev->name + d + sep, name, n + 1);
	if (!ev->name[0])
		memcpy(ev->name, ".", 2);
	av_list_append(&w->events, &ev->node);
	w->events_n++;
	return ev;
}

/* What was found in a directory that had just been watched, and inotify tells, too. */
static bool was_guessed(struct watch *w, const char *dir, const char *name)
{
	size_t d = strlen(dir);
	struct watch_event *ev;

	if (!w->guessed)
		return false;
	AV_LIST_FOREACH(ev, &w->events, struct watch_event, node)
	{
		if (ev->guess != w->guess || strncmp(ev->name, dir, d) != 0 || ev->name[d] != '/' ||
		    strcmp(ev->name + d + 1, name) != 0)
			continue;
		ev->guess = 0;
		return true;
	}
	return false;
}

struct watch_event *watch_take(struct watch *w)
{
	struct watch_event *ev = AV_LIST_FIRST(&w->events, struct watch_event, node);

	w->asked_ms = uv_now(&w->agent->loop);
	w->told = false;
	if (!ev)
		return NULL;
	av_list_remove(&ev->node);
	w->events_n--;
	return ev;
}

bool watch_take_overflow(struct watch *w)
{
	bool overflow = w->overflow;

	w->overflow = false;
	return overflow;
}

static void tell(struct watch *w)
{
	if (!w->ready || w->told || !w->ops || (!w->events_n && !w->overflow))
		return;
	w->told = true;
	w->ops->on_events(w->ctx);
}

/* --- places --- */

static struct av_str wd_key(const int *wd)
{
	return av_str_n((const char *)wd, sizeof(*wd));
}

static void place_forget(struct watch *w, struct place *p)
{
	if (p->wd >= 0 && av_map_remove(&w->places, wd_key(&p->wd)) == p)
		w->places_n--;
	av_list_remove(&p->node);
	free(p);
}

/* A directory was moved away: neither it nor what is in it is ours any more. */
static void forget_tree(struct watch *w, const char *dir, const char *name)
{
	char path[AV_PATH_MAX + 1];
	struct place *p;
	size_t pos = 0;
	int n = av_path_printf(path, sizeof(path), "%s%s%s", dir, dir[0] ? "/" : "", name);

	if (n < 0)
		return;
	while ((p = av_map_next(&w->places, &pos))) {
		size_t k = strlen(path);

		if (strncmp(p->name, path, k) != 0 || (p->name[k] && p->name[k] != '/'))
			continue;
		inotify_rm_watch(w->fd, p->wd);
		place_forget(w, p);
	}
}

static void want_place(struct watch *w, const char *dir, const char *name, bool announce)
{
	size_t d = strlen(dir), n = strlen(name), sep = d && n;
	bool fits = d + sep + n <= AV_PATH_MAX && w->todo_n <= WATCH_DIRS_MAX;
	struct place *p = fits ? malloc(sizeof(*p) + d + sep + n + 2) : NULL;

	/* One more than can be watched is enough to find that out. */
	if (!p) {
		w->overflow = true;
		return;
	}
	p->wd = -1;
	p->announce = announce;
	memcpy(p->name, dir, d);
	p->name[d] = '/';
	memcpy(p->name + d + sep, name, n + 1);
	av_list_append(&w->todo, &p->node);
	w->todo_n++;
}

static int open_place(const struct watch *w, const struct place *p)
{
	struct open_how how = {
	    .flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
	    .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	long fd = syscall(SYS_openat2, w->root, p->name[0] ? p->name : ".", &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

/* Watches it, whose descriptor is fd; the place belongs to the map from then on. */
static int add_place(struct watch *w, struct place *p, int fd)
{
	char path[FSOP_FD_PATH_SIZE];
	struct place *old;
	int wd;

	if (w->places_n >= WATCH_DIRS_MAX)
		return -ENOSPC;
	wd =
	    inotify_add_watch(w->fd, fsop_fd_path(fd, path), p->name[0] ? CHANGES : CHANGES | SELF);
	if (wd < 0)
		return -errno;
	/* Known already, under a name that it had before. */
	old = av_map_get(&w->places, wd_key(&wd));
	if (old)
		place_forget(w, old);
	p->wd = wd;
	if (av_map_put(&w->places, wd_key(&p->wd), p) < 0) {
		p->wd = -1;
		inotify_rm_watch(w->fd, wd);
		return -ENOMEM;
	}
	w->places_n++;
	return 0;
}

/* Gone again, a link, or not to be read: nothing to watch. */
static bool is_nothing(int error)
{
	return error == ENOENT || error == ENOTDIR || error == ELOOP || error == EACCES;
}

/* Opened when it is watched already: btrfs shows what was there when a directory was opened, and
 * what is made between that and the watch would be neither read nor told. */
static void start_looking(struct watch *w, struct place *p, int place_fd)
{
	int fd = openat(place_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		w->overflow = w->overflow || !is_nothing(errno);
		return;
	}
	w->looking = fdopendir(fd);
	w->looked_at = w->looking ? p : NULL;
	if (w->looking)
		return;
	w->overflow = true;
	close(fd);
}

static void stop_looking(struct watch *w)
{
	if (w->looking)
		closedir(w->looking);
	w->looking = NULL;
	w->looked_at = NULL;
}

/* Tells what is in a directory that appeared, and goes on into those below. The rest of a large one
 * is for another slice. Nothing else is done to places meanwhile, so that this one stays. */
static void look_inside(struct watch *w, int64_t until)
{
	const struct place *p = w->looked_at;
	struct watch_event *ev;
	struct dirent *d;

	for (unsigned n = 1; (d = readdir(w->looking)); n++) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		if (p->announce && (ev = add_event(w, WATCH_CREATE, p->name, d->d_name))) {
			ev->guess = w->guess;
			w->guessed = true;
		}
		/* What is no directory is found out when it is opened. */
		if (w->recursive && (d->d_type == DT_DIR || d->d_type == DT_UNKNOWN))
			want_place(w, p->name, d->d_name, p->announce);
		if (n % LOOK_N == 0 && av_mono_ns() >= until)
			return;
	}
	stop_looking(w);
}

/* One place of the list. -errno only for the root, which must be watched. */
static int do_place(struct watch *w, struct place *p)
{
	bool is_root = !p->name[0];
	AV_CLEANUP(av_close_fd) int fd = open_place(w, p);
	int r = fd;

	av_list_remove(&p->node);
	w->todo_n--;
	if (fd >= 0)
		r = add_place(w, p, fd);
	if (r < 0) {
		w->overflow = w->overflow || !is_nothing(-r);
		free(p);
		return is_root || (!w->ready && r == -ENOSPC) ? r : 0;
	}
	if (w->recursive)
		start_looking(w, p, fd);
	return 0;
}

/* --- inotify --- */

static void on_change(struct watch *w, const struct inotify_event *in)
{
	struct place *p = av_map_get(&w->places, wd_key(&in->wd));
	const char *name = in->len ? in->name : "";

	if (in->mask & IN_Q_OVERFLOW)
		w->overflow = true;
	if (!p)
		return;
	if (in->mask & IN_IGNORED) {
		place_forget(w, p);
		return;
	}
	/* What happens to a directory itself is told by the one it is in. */
	if (!name[0] && p->name[0])
		return;
	/* One that goes was there: what is made under its name afterwards is another. */
	if (in->mask & (IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM) &&
	    was_guessed(w, p->name, name) && in->mask & (IN_CREATE | IN_MOVED_TO))
		return;
	if (in->mask & (IN_CREATE | IN_MOVED_TO))
		add_event(w, WATCH_CREATE, p->name, name);
	if (in->mask & (IN_MOVED_FROM | IN_MOVE_SELF))
		add_event(w, WATCH_RENAME, p->name, name);
	if (in->mask & IN_ATTRIB)
		add_event(w, WATCH_CHMOD, p->name, name);
	if (in->mask & IN_MODIFY)
		add_event(w, WATCH_WRITE, p->name, name);
	if (in->mask & (IN_DELETE | IN_DELETE_SELF))
		add_event(w, WATCH_REMOVE, p->name, name);
	if (!w->recursive || !(in->mask & IN_ISDIR))
		return;
	if (in->mask & (IN_CREATE | IN_MOVED_TO))
		want_place(w, p->name, name, true);
	if (in->mask & IN_MOVED_FROM)
		forget_tree(w, p->name, name);
}

/* One read; false when there was nothing. */
static bool read_changes(struct watch *w)
{
	_Alignas(struct inotify_event) char buf[READ_MAX];
	ssize_t n = read(w->fd, buf, sizeof(buf));

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *in = (const void *)(buf + at);

		on_change(w, in);
		at += (ssize_t)(sizeof(*in) + in->len);
	}
	if (n <= 0 && w->guessed) {
		w->guessed = false;
		w->guess = w->guess == UINT32_MAX ? 1 : w->guess + 1;
	}
	return n > 0;
}

/* --- working --- */

static void set_ready(struct watch *w, int r)
{
	struct av_err err = {0};

	w->ready = true;
	if (!w->ops)
		return;
	if (r == 0)
		w->ops->on_ready(w->ctx, NULL);
	else {
		if (r == -ENOSPC)
			(void)av_err_set(&err, AV_ERR_RATE_LIMITED,
			    "path '%.300s' has more directories than can be watched: at most %d, "
			    "and "
			    "no more than the system allows (fs.inotify.max_user_watches)",
			    w->path, WATCH_DIRS_MAX);
		else
			(void)fsop_explain(r, w->path, &err);
		w->ops->on_ready(w->ctx, &err);
	}
}

/* Adds places that wait and reads changes until both are done or the time is over; true when done.
 * *ret_error for a watch that cannot be. */
static bool work(struct watch *w, int64_t until, int *ret_error)
{
	struct place *p;
	bool more = true;
	int r = fsop_become(&w->user);

	while (r == 0 && more && av_mono_ns() < until) {
		p = AV_LIST_FIRST(&w->todo, struct place, node);
		if (w->looking)
			look_inside(w, until);
		else if (p)
			r = do_place(w, p);
		else
			more = read_changes(w);
	}
	fsop_become_self();
	*ret_error = r;
	return r < 0 || !more;
}

static void on_idle(uv_idle_t *idle);

/* May close the watch (through the callbacks). */
static void run(struct watch *w)
{
	int r;
	bool done = work(w, av_mono_ns() + WATCH_SLICE_NS, &r);

	/* At the end of a slice the rest is for the next turn of the loop. */
	if (done)
		uv_idle_stop(&w->idle);
	else
		uv_idle_start(&w->idle, on_idle);
	if (!w->ready) {
		if (done)
			set_ready(w, r);
		return;
	}
	/* What was found may stand in what is still to be read, and is known again only here. */
	if (done || !w->guessed || w->events_n > WATCH_EVENTS_MAX / 2)
		tell(w);
}

static void on_idle(uv_idle_t *idle)
{
	run(idle->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct watch *w = poll->data;

	(void)status;
	(void)events;
	if (w->ready)
		run(w);
}

void watch_hold(struct watch *w, bool hold)
{
	if (w->hold == hold)
		return;
	w->hold = hold;
	if (hold)
		uv_poll_stop(&w->poll);
	else
		uv_poll_start(&w->poll, UV_READABLE, on_poll);
}

void watch_catch_up(struct agent *a)
{
	struct watch *w;

	/* A callback may close its watch, and that one only. */
	AV_LIST_FOREACH(w, &a->watches, struct watch, node)
	{
		if (w->ready && !w->hold)
			run(w);
	}
}

/* --- life --- */

static void on_closed(uv_handle_t *h)
{
	struct watch *w = h->data;

	if (--w->closing == 0)
		free(w);
}

void watch_close(struct watch *w)
{
	struct watch_event *ev;
	struct place *p;
	size_t pos = 0;

	while ((ev = watch_take(w)))
		free(ev);
	stop_looking(w);
	while ((p = AV_LIST_FIRST(&w->todo, struct place, node)))
		place_forget(w, p);
	while ((p = av_map_next(&w->places, &pos)))
		place_forget(w, p);
	av_map_clear(&w->places);
	av_list_remove(&w->node);
	w->agent->watches_n--;
	entry_names_clear(&w->names);
	w->ops = NULL;
	memory_trim_later(w->agent);
	uv_poll_stop(&w->poll);
	uv_idle_stop(&w->idle);
	w->closing = 2;
	uv_close((uv_handle_t *)&w->poll, on_closed);
	uv_close((uv_handle_t *)&w->idle, on_closed);
	av_close_fd(&w->fd);
	av_close_fd(&w->root);
}

/* Room for one more, perhaps that of a polled one which nobody asks for. */
static bool make_room(struct agent *a)
{
	struct watch *w, *oldest = NULL;

	if (a->watches_n < WATCHES_MAX)
		return true;
	AV_LIST_FOREACH(w, &a->watches, struct watch, node)
	{
		if (w->polled && uv_now(&a->loop) - w->asked_ms > WATCH_STALE_MS &&
		    (!oldest || w->asked_ms < oldest->asked_ms))
			oldest = w;
	}
	if (oldest)
		watch_close(oldest);
	return oldest != NULL;
}

static int open_fds(struct watch *w, struct av_err *err)
{
	int r = fsop_become(&w->user);

	w->root = r < 0 ? r : fsop_openat(AT_FDCWD, w->path, O_PATH | O_DIRECTORY, 0);
	fsop_become_self();
	if (w->root == -ENOTDIR)
		return av_err_set(err, AV_ERR_INVALID, "path is not a directory: %.300s", w->path);
	if (w->root < 0)
		return fsop_explain(w->root, w->path, err);
	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->fd < 0)
		return av_err_sys(
		    err, AV_ERR_RATE_LIMITED, errno, "the system gives no more inotify instances");
	return 0;
}

int watch_open(struct agent *a, const struct agent_user *u, const char *path, bool recursive,
    const struct watch_ops *ops, void *ctx, struct watch **ret, struct av_err *err)
{
	uint8_t random[16];
	struct watch *w;
	int r;

	if (!make_room(a))
		return av_err_set(err, AV_ERR_RATE_LIMITED,
		    "the sandbox has %d watches, which is all it can; end one of them",
		    WATCHES_MAX);
	w = calloc(1, sizeof(*w));
	if (!w || av_str_copy(w->path, sizeof(w->path), av_str_c(path)) < 0) {
		free(w);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	}
	w->agent = a;
	w->user = *u;
	w->recursive = recursive;
	w->fd = w->root = -1;
	w->guess = 1;
	w->ops = ops;
	w->ctx = ctx;
	w->asked_ms = uv_now(&a->loop);
	av_random(random, sizeof(random));
	av_hex_encode(w->id, random, sizeof(random));
	av_map_init(&w->places);
	av_list_init(&w->todo);
	av_list_init(&w->events);
	r = open_fds(w, err);
	if (r == 0 && uv_poll_init(&a->loop, &w->poll, w->fd) < 0)
		r = av_err_set(
		    err, AV_ERR_NO_MEMORY, "the sandbox's agent cannot wait for inotify");
	if (r < 0) {
		av_close_fd(&w->fd);
		av_close_fd(&w->root);
		free(w);
		return r;
	}
	uv_idle_init(&a->loop, &w->idle);
	w->poll.data = w->idle.data = w;
	av_list_append(&a->watches, &w->node);
	a->watches_n++;
	want_place(w, "", "", false);
	uv_poll_start(&w->poll, UV_READABLE, on_poll);
	uv_idle_start(&w->idle, on_idle);
	*ret = w;
	return 0;
}

void watch_set_polled(struct watch *w)
{
	w->polled = true;
	w->ops = NULL;
	w->ctx = NULL;
}

struct watch *watch_find(struct agent *a, struct av_str id)
{
	struct watch *w;

	AV_LIST_FOREACH(w, &a->watches, struct watch, node)
	{
		if (w->polled && av_str_eq_c(id, w->id))
			return w;
	}
	return NULL;
}

const char *watch_id(const struct watch *w)
{
	return w->id;
}

void watch_include_entry(struct watch *w, bool include)
{
	w->include_entry = include;
}

bool watch_includes_entry(const struct watch *w)
{
	return w->include_entry;
}

int watch_look(struct watch *w, const struct watch_event *ev, struct entry *ret,
    char path[static AV_PATH_MAX + 1])
{
	int r = av_path_printf(path, AV_PATH_MAX + 1, "%s%s%s", w->path,
	    av_str_ends(av_str_c(w->path), AV_STR("/")) ? "" : "/", ev->name);

	if (r < 0)
		return r;
	r = fsop_become(&w->user);
	if (r == 0)
		r = entry_look(AT_FDCWD, path, ret);
	fsop_become_self();
	return r;
}

struct entry_names *watch_names(struct watch *w)
{
	return &w->names;
}
