/* SPDX-License-Identifier: Apache-2.0 */
/*
 * certificate.c - certificate and key of the daemon (see certificate.h)
 */
#include "daemon/certificate.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/fd.h"
#include "base/lend.h"
#include "net/tls.h"
#include "base/banned.h"

#define FILE_MAX  ((size_t)256 * 1024)
#define START_NS  (10 * AV_NS_PER_S)
#define LOOK_MS   10000
#define SETTLE_MS 1500
#define ANSWER_MS 10000
#define WARN_S    (14LL * 24 * 60 * 60)
#define REMIND_NS (24LL * 60 * 60 * AV_NS_PER_S)

enum { CERT, KEY };

enum state { IDLE, ASKED, LOADING };

/* Which file it was, and in which state. */
struct mark {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

/* What a worker reads and makes. */
struct loading {
	struct certificate *owner;
	struct av_lent lent[AV_LEND_FILES];
	struct mark marks[AV_LEND_FILES];
	struct av_tls_identity *identity; /* NULL: refused */
	struct av_err err;
};

struct certificate {
	struct av_loop *loop;
	struct av_tls *tls;
	struct av_watch *watch;
	struct av_signal *hup;
	struct av_timer look;             /* IDLE: the next time; ASKED: patience */
	const char *names[AV_LEND_FILES]; /* borrowed from the configuration */
	int fd;
	enum state state;
	bool asked_by_signal; /* or again, while something was under way */
	bool again;
	bool settling;                   /* marks of the last look are those of a change */
	struct mark seen[AV_LEND_FILES]; /* at the last look */
	struct mark in_force[AV_LEND_FILES];
	struct mark refused[AV_LEND_FILES];
	int64_t reminded_ns;
	bool closed; /* while LOADING: freed when that is over */
};

static const char *const options[AV_LEND_FILES] = {"--tls-cert", "--tls-key"};

/* ---- reading ---- */

static void marks_of(struct loading *l)
{
	memset(l->marks, 0, sizeof(l->marks));
	for (size_t i = 0; i < AV_LEND_FILES; i++) {
		struct stat st;

		if (l->lent[i].fd < 0 || fstat(l->lent[i].fd, &st) < 0) {
			l->marks[i].size = -1 - l->lent[i].error;
			continue;
		}
		l->marks[i].dev = st.st_dev;
		l->marks[i].ino = st.st_ino;
		l->marks[i].size = st.st_size;
		l->marks[i].mtime = st.st_mtim;
		l->marks[i].ctime = st.st_ctim;
	}
}

static void close_lent(struct loading *l)
{
	for (size_t i = 0; i < AV_LEND_FILES; i++)
		av_close_fd(&l->lent[i].fd);
}

static int not_lent(const struct certificate *c, int i, int error, struct av_err *err)
{
	if (error == EISDIR || error == EINVAL)
		return av_err_set(err, AV_ERR_INVALID, "%s %.200s: it is %s, not a file",
		    options[i], c->names[i], error == EISDIR ? "a directory" : "a device or pipe");
	if (error == EACCES || error == EPERM)
		return av_err_set(err, AV_ERR_INVALID,
		    "%s %.200s: the user who started aviaryd may not read it; give it to that "
		    "user, "
		    "or start aviaryd as one who may",
		    options[i], c->names[i]);
	return av_err_sys(
	    err, AV_ERR_INVALID, error, "%s: cannot open %.200s", options[i], c->names[i]);
}

/* Group may be one of those who are to read it, as Debian's ssl-cert is. */
static int check_key_mode(const struct certificate *c, int fd, struct av_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return av_err_sys(
		    err, AV_ERR_INVALID, errno, "--tls-key: cannot look at %.200s", c->names[KEY]);
	if (!(st.st_mode & (S_IWGRP | S_IROTH | S_IWOTH)))
		return 0;
	return av_err_set(err, AV_ERR_INVALID,
	    "--tls-key %.150s: %s (mode %04o); take that away with `chmod 600 %.150s`, and get a "
	    "new "
	    "key if somebody may have",
	    c->names[KEY],
	    st.st_mode & S_IROTH ? "everybody on this machine can read it"
	                         : "others than its owner can change it",
	    (unsigned int)(st.st_mode & 07777), c->names[KEY]);
}

static int read_text(
    const struct certificate *c, int i, int fd, char **ret, size_t *ret_n, struct av_err *err)
{
	char *p = malloc(FILE_MAX + 1);
	ssize_t n;

	if (!p)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	n = av_read_full(fd, p, FILE_MAX + 1);
	if (n >= 0 && (size_t)n <= FILE_MAX) {
		*ret = p;
		*ret_n = (size_t)n;
		return 0;
	}
	explicit_bzero(p, FILE_MAX + 1);
	free(p);
	if (n < 0)
		return av_err_sys(
		    err, AV_ERR_INVALID, (int)n, "%s: cannot read %.200s", options[i], c->names[i]);
	return av_err_set(err, AV_ERR_INVALID,
	    "%s %.200s: larger than %zu KiB, which no certificate or key is", options[i],
	    c->names[i], FILE_MAX / 1024);
}

static int load_texts(struct loading *l, char **texts, size_t *n)
{
	struct certificate *c = l->owner;

	for (int i = 0; i < AV_LEND_FILES; i++)
		if (l->lent[i].fd < 0)
			return not_lent(c, i, l->lent[i].error, &l->err);
	int r = check_key_mode(c, l->lent[KEY].fd, &l->err);
	for (int i = 0; i < AV_LEND_FILES && r == 0; i++)
		r = read_text(c, i, l->lent[i].fd, &texts[i], &n[i], &l->err);
	if (r < 0)
		return r;
	const struct av_tls_source source = {.cert_pem = av_str_n(texts[CERT], n[CERT]),
	    .key_pem = av_str_n(texts[KEY], n[KEY]),
	    .cert_name = c->names[CERT],
	    .key_name = c->names[KEY]};
	return av_tls_identity_new(c->tls, &source, &l->identity, &l->err);
}

/* On a worker thread, or at the start. */
static void load(void *ctx)
{
	struct loading *l = ctx;
	char *texts[AV_LEND_FILES] = {NULL, NULL};
	size_t n[AV_LEND_FILES] = {0, 0};

	(void)load_texts(l, texts, n);
	for (size_t i = 0; i < AV_LEND_FILES; i++) {
		if (texts[i])
			explicit_bzero(texts[i], n[i]);
		free(texts[i]);
	}
	close_lent(l);
}

/* ---- what is told ---- */

static void tell_in_force(const struct certificate *c, const char *what)
{
	char until[32];

	av_rfc3339_ms(av_tls_not_after(c->tls) * 1000, until);
	av_log(AV_LOG_INFO, what, "file", c->names[CERT], "names", av_tls_names(c->tls),
	    "valid_until", until, NULL);
}

static void tell_end(struct certificate *c)
{
	int64_t left = av_tls_not_after(c->tls) - av_real_ms() / 1000, now = av_mono_ns();
	char days[24];

	if (left > WARN_S || (c->reminded_ns && now - c->reminded_ns < REMIND_NS))
		return;
	c->reminded_ns = now;
	(void)snprintf(days, sizeof days, "%" PRId64, left / (24 * 60 * 60));
	if (left > 0)
		av_log(AV_LOG_WARN,
		    "the certificate ends soon: renew it; the new files are noticed", "file",
		    c->names[CERT], "days", days, NULL);
	else
		av_log(AV_LOG_ERROR, "the certificate has ended: clients refuse it; renew it",
		    "file", c->names[CERT], NULL);
}

static void put_in_force(struct certificate *c, struct loading *l, const char *what)
{
	av_tls_use(c->tls, AV_TAKE_PTR(l->identity));
	memcpy(c->in_force, l->marks, sizeof(c->in_force));
	c->reminded_ns = 0;
	tell_in_force(c, what);
	tell_end(c);
}

/* ---- changes ---- */

static void rest(struct certificate *c)
{
	c->state = IDLE;
	tell_end(c);
	av_timer_start(&c->look, c->again ? 0 : c->settling ? SETTLE_MS : LOOK_MS);
}

static void destroy(struct certificate *c)
{
	av_tls_free(c->tls);
	free(c);
}

static void on_loaded(void *ctx, int status)
{
	struct loading *l = ctx;
	struct certificate *c = l->owner;

	if (c->closed) {
		av_tls_identity_free(l->identity);
		free(l);
		destroy(c);
		return;
	}
	if (l->identity) {
		put_in_force(c, l, "the certificate was replaced; open connections keep theirs");
	} else if (status == 0) {
		memcpy(c->refused, l->marks, sizeof(c->refused));
		av_log(AV_LOG_ERROR,
		    "the changed certificate or key is not taken; the one before stays", "error",
		    l->err.message, NULL);
	}
	free(l);
	rest(c);
}

static bool same(const struct mark *a, const struct mark *b)
{
	return memcmp(a, b, AV_LEND_FILES * sizeof(*a)) == 0;
}

/* Whether what was lent is to be read. */
static bool is_news(struct certificate *c, const struct loading *l)
{
	bool settled = same(l->marks, c->seen);

	memcpy(c->seen, l->marks, sizeof(c->seen));
	c->settling = false;
	if (same(l->marks, c->in_force)) {
		if (c->asked_by_signal)
			tell_in_force(c, "the certificate has not changed");
		return false;
	}
	if (c->asked_by_signal)
		return true;
	if (same(l->marks, c->refused))
		return false;
	c->settling = !settled;
	return settled;
}

static void take(struct certificate *c)
{
	struct loading *l = calloc(1, sizeof(*l));
	int r = l ? av_lend_take(c->fd, l->lent) : -ENOMEM;

	if (r < 0) {
		free(l);
		if (r == -EAGAIN)
			return;
		av_log(AV_LOG_ERROR, "cannot look at certificate and key", "error",
		    strerrordesc_np(-r), NULL);
		if (r == -EPIPE)
			(void)av_watch_set(c->watch, 0);
		if (c->state != LOADING) /* else on_loaded() does, with what the thread has */
			rest(c);
		return;
	}
	if (c->state != ASKED) { /* too late, or not asked for */
		close_lent(l);
		free(l);
		return;
	}
	marks_of(l);
	l->owner = c;
	bool news = is_news(c, l);
	c->asked_by_signal = false;
	if (news && av_loop_work(c->loop, load, on_loaded, l) == 0) {
		c->state = LOADING;
		av_timer_stop(&c->look);
		return;
	}
	close_lent(l);
	free(l);
	rest(c);
}

static void on_lent(void *ctx, int events)
{
	(void)events;
	take(ctx);
}

static void on_look(void *ctx)
{
	struct certificate *c = ctx;

	if (c->state == ASKED) {
		av_log(AV_LOG_WARN, "the supervisor does not lend certificate and key", NULL);
		rest(c);
		return;
	}
	c->asked_by_signal = c->again;
	c->again = false;
	int r = av_lend_ask(c->fd);
	if (r < 0) {
		av_log(AV_LOG_ERROR, "cannot ask for certificate and key", "error",
		    strerrordesc_np(-r), NULL);
		rest(c);
		return;
	}
	c->state = ASKED;
	av_timer_start(&c->look, ANSWER_MS);
}

static void on_hup(void *ctx, int signum)
{
	struct certificate *c = ctx;

	(void)signum;
	c->again = true;
	if (c->state == IDLE)
		av_timer_start(&c->look, 0);
}

/* ---- life ---- */

/* The first time nothing else can go on. */
static int wait_lent(struct certificate *c, struct loading *l, struct av_err *err)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	int64_t end = av_mono_ns() + START_NS;
	int r = av_lend_ask(c->fd);

	while (r == 0 && (r = av_lend_take(c->fd, l->lent)) == -EAGAIN) {
		int64_t left = (end - av_mono_ns()) / AV_NS_PER_MS;

		r = left <= 0 ? -ETIMEDOUT : 0;
		if (r == 0 && poll(&p, 1, (int)left) < 0 && errno != EINTR)
			r = -errno;
	}
	return r < 0 ? av_err_sys(err, AV_ERR_INTERNAL, r,
	                   "the supervisor does not open --tls-cert and --tls-key")
	             : 0;
}

static int load_first(struct certificate *c, struct av_err *err)
{
	struct loading l = {.owner = c, .lent = {{.fd = -1}, {.fd = -1}}};
	int r = wait_lent(c, &l, err);

	if (r < 0)
		return r;
	marks_of(&l);
	memcpy(c->seen, l.marks, sizeof(c->seen));
	load(&l);
	if (!l.identity) {
		if (err)
			*err = l.err;
		return -EINVAL;
	}
	put_in_force(c, &l, "serving HTTPS");
	return 0;
}

static int watch(struct certificate *c, struct av_err *err)
{
	int r = av_watch_new(c->loop, c->fd, on_lent, c, &c->watch);

	if (r == 0)
		r = av_watch_set(c->watch, AV_WATCH_READ);
	if (r == 0)
		r = av_signal_new(c->loop, SIGHUP, on_hup, c, &c->hup);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INTERNAL, r, "cannot watch certificate and key");
	rest(c);
	return 0;
}

int certificate_open(struct av_loop *loop, const struct daemon_config *config, int lend_fd,
    struct certificate **ret, struct av_err *err)
{
	struct certificate *c = calloc(1, sizeof(*c));

	if (!c) {
		av_close_fd(&lend_fd);
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
	}
	c->loop = loop;
	c->fd = lend_fd;
	c->names[CERT] = daemon_config_get(config, DAEMON_OPT_TLS_CERT);
	c->names[KEY] = daemon_config_get(config, DAEMON_OPT_TLS_KEY);
	av_timer_init(&c->look, loop, on_look, c);
	int r = lend_fd < 0 ? av_err_set(err, AV_ERR_INVALID,
	                          "--tls-cert and --tls-key need --lend-fd: start aviaryd, which "
	                          "starts this one")
	                    : av_set_cloexec(lend_fd, true);
	if (r == 0)
		r = av_tls_new(loop, &c->tls, err);
	if (r == 0)
		r = load_first(c, err);
	if (r == 0)
		r = watch(c, err);
	if (r < 0) {
		certificate_close(c);
		return r;
	}
	*ret = c;
	return 0;
}

void certificate_close(struct certificate *c)
{
	if (!c)
		return;
	av_timer_stop(&c->look);
	av_watch_free(c->watch);
	av_signal_free(c->hup);
	av_close_fd(&c->fd);
	if (c->state == LOADING)
		c->closed = true;
	else
		destroy(c);
}

struct av_tls *certificate_tls(const struct certificate *c)
{
	return c->tls;
}
