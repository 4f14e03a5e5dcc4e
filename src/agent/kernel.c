/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.c - kernels: interpreters that keep their state between pieces of code
 */
#include "agent/kernel.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/kernel_drivers.h"
#include "agent/kernel_internal.h"
#include "agent/request.h"
#include "base/avtime.h"
#include "base/codec.h"
#include "base/ids.h"

#include "base/banned.h"

#define PAIRS_MAX (KERNEL_CODE_MAX * 2)

/* --- languages --- */

/* Takes the driver's parts from standard input; "core" is the first. */
#define PYTHON_START                                                                               \
	"import sys;d=open(0,'rb',closefd=False).read().split(b'\\0');"                            \
	"exec(compile(d[0],'<kernel core>','exec'),{'__name__':'_kernel_core',"                    \
	"'PARTS':dict(zip([n.decode() for n in d[1::2]],d[2::2]))})"

static char python[] = "python3", dash_c[] = "-c", python_start[] = PYTHON_START;
static char *const python_argv[] = {python, dash_c, python_start, NULL};

static const struct kernel_language languages[] = {
    {"python", "python3", "python3", python_argv, &kernel_driver_python},
};

static const struct kernel_language *find_language(struct av_str name)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(languages); i++)
		if (name.n == 0 || av_str_ieq(name, av_str_c(languages[i].name)) ||
		    av_str_ieq(name, av_str_c(languages[i].alias)))
			return &languages[i];
	return NULL;
}

static int unknown_language(const char *name, struct av_err *err)
{
	char known[128] = "";
	size_t n = 0;

	for (size_t i = 0; i < AV_ARRAY_LEN(languages) && n < sizeof(known); i++)
		n += (size_t)snprintf(
		    known + n, sizeof(known) - n, "%s%s", i ? ", " : "", languages[i].name);
	return av_err_set(err, AV_ERR_UNSUPPORTED,
	    "language '%.64s' is not supported; code runs in kernels of: %s", name, known);
}

/* --- the table --- */

void kernel_table_init(struct kernel_table *t, struct agent *a)
{
	*t = (struct kernel_table){.agent = a};
	av_list_init(&t->kernels);
}

static void make_id(char dst[static KERNEL_ID_SIZE])
{
	static const uint8_t groups[] = {4, 2, 2, 2, 6};
	uint8_t b[16];
	size_t from = 0, to = 0;

	av_random(b, sizeof(b));
	b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* RFC 9562: version 4 */
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	for (size_t i = 0; i < sizeof(groups); i++) {
		if (i)
			dst[to++] = '-';
		av_hex_encode(dst + to, b + from, groups[i]);
		from += groups[i];
		to += 2U * groups[i];
	}
	dst[to] = '\0';
}

static void touch(struct kernel *k)
{
	k->last_activity_ms = av_real_ms();
}

/* A kernel that is in no list, with all that params say. */
static int new_kernel(struct kernel_table *t, const struct kernel_params *params,
    struct kernel **ret, struct av_err *err)
{
	const struct kernel_language *language = find_language(av_str_c(params->language));
	const char *shell = params->shell && params->shell[0] ? params->shell : "auto";
	struct agent_user user;
	struct kernel *k;
	int r;

	if (!language)
		return unknown_language(params->language, err);
	if (strcmp(shell, "auto") != 0 && strcmp(shell, "plain") != 0 &&
	    strcmp(shell, "ipython") != 0)
		return av_err_set(err, AV_ERR_INVALID,
		    "shell is '%.32s'; allowed are auto, plain and ipython", shell);
	if (params->name && strlen(params->name) > KERNEL_NAME_MAX)
		return av_err_set(
		    err, AV_ERR_INVALID, "name has more than %d bytes", KERNEL_NAME_MAX);
	if ((r = agent_find_user(t->agent, params->user, &user, err)) < 0)
		return r;
	k = calloc(1, sizeof(*k));
	if (!k)
		return av_err_set(err, AV_ERR_NO_MEMORY, "out of memory in the sandbox's agent");
	r = agent_find_cwd(t->agent, &user, params->cwd, k->cwd, err);
	if (r < 0) {
		free(k);
		return r;
	}
	make_id(k->id);
	k->table = t;
	k->language = language;
	k->cwd_default = !params->cwd || !params->cwd[0];
	k->user_default = !params->user || !params->user[0];
	snprintf(k->name, sizeof(k->name), "%s", params->name ? params->name : "");
	snprintf(k->shell, sizeof(k->shell), "%s", shell);
	snprintf(k->user, sizeof(k->user), "%s", user.name);
	av_list_init(&k->node);
	av_list_init(&k->queue);
	av_buf_init(&k->idle[0], KERNEL_EARLY_BYTES);
	av_buf_init(&k->idle[1], KERNEL_EARLY_BYTES);
	touch(k);
	*ret = k;
	return 0;
}

static void free_kernel(struct kernel *k)
{
	if (k->driver)
		driver_let_go(k->driver);
	av_list_remove(&k->node);
	av_buf_clear(&k->idle[0]);
	av_buf_clear(&k->idle[1]);
	free(k);
}

/* Whether the spare, started under other settings perhaps, can become what `k` should be. */
static bool fits(const struct kernel *spare, const struct kernel *k)
{
	assert(k);
	return spare->driver && spare->language == k->language &&
	       strcmp(spare->shell, k->shell) == 0 && strcmp(spare->user, k->user) == 0;
}

/* k is new and cold: gives it the process of the spare. */
static struct kernel *adopt(struct kernel *spare, struct kernel *k)
{
	memcpy(spare->cwd, k->cwd, sizeof(spare->cwd));
	memcpy(spare->name, k->name, sizeof(spare->name));
	spare->cwd_default = k->cwd_default;
	spare->user_default = k->user_default;
	spare->move = true;
	free_kernel(k);
	return spare;
}

int kernel_create(struct kernel_table *t, const struct kernel_params *params, struct kernel **ret,
    struct av_err *err)
{
	struct kernel *k = NULL;
	int r;

	if (t->n >= KERNELS_MAX)
		return av_err_set(err, AV_ERR_QUOTA,
		    "a sandbox has at most %d kernels; delete one that is not needed", KERNELS_MAX);
	r = new_kernel(t, params, &k, err);
	if (r < 0)
		return r;
	assert(k);
	if (t->spare && fits(t->spare, k))
		k = adopt(AV_TAKE_PTR(t->spare), k);
	else if (t->spare && k->user_default && strcmp(t->spare->user, k->user) != 0)
		/* The sandbox's default user has changed: it will never fit. */
		free_kernel(AV_TAKE_PTR(t->spare));
	av_list_append(&t->kernels, &k->node);
	t->n++;
	*ret = k;
	return 0;
}

int kernel_warm(struct kernel_table *t, const struct kernel_params *params, struct av_err *err)
{
	struct kernel *k = NULL;
	int r = new_kernel(t, params, &k, err);

	if (r < 0)
		return r;
	if (t->spare && fits(t->spare, k)) {
		free_kernel(k);
		return 0;
	}
	if (t->spare)
		free_kernel(AV_TAKE_PTR(t->spare));
	r = kernel_start(k, err);
	if (r < 0) {
		free_kernel(k);
		return r;
	}
	t->spare = k;
	return 0;
}

bool kernel_spare_ready(const struct kernel_table *t)
{
	return !t->spare || t->spare->state != KERNEL_STARTING;
}

struct kernel *kernel_next(struct kernel_table *t, struct kernel *k)
{
	struct av_list *n = k ? k->node.next : t->kernels.next;

	return n == &t->kernels ? NULL : AV_CONTAINER_OF(n, struct kernel, node);
}

struct kernel *kernel_find(struct kernel_table *t, struct av_str id)
{
	struct kernel *k = NULL;

	while ((k = kernel_next(t, k)))
		if (av_str_eq_c(id, k->id))
			return k;
	return NULL;
}

struct kernel *kernel_default(struct kernel_table *t, struct av_str language, struct av_str shell)
{
	const struct kernel_language *l = find_language(language);
	struct kernel *k = NULL;

	while ((k = kernel_next(t, k)))
		if (k->language == l && (shell.n == 0 || av_str_eq_c(shell, k->shell)))
			return k;
	return NULL;
}

/* --- what a kernel shows --- */

const char *kernel_id(const struct kernel *k)
{
	return k->id;
}

const char *kernel_language(const struct kernel *k)
{
	return k->language->name;
}

const char *kernel_name(const struct kernel *k)
{
	return k->name;
}

const char *kernel_cwd(const struct kernel *k)
{
	return k->cwd;
}

const char *kernel_banner(const struct kernel *k)
{
	return k->banner;
}

enum kernel_state kernel_state(const struct kernel *k)
{
	return k->state;
}

const char *kernel_state_text(enum kernel_state s)
{
	static const char *const texts[] = {"cold", "starting", "idle", "busy"};

	return texts[s];
}

int64_t kernel_last_activity_ms(const struct kernel *k)
{
	return k->last_activity_ms;
}

uint32_t kernel_count(const struct kernel *k)
{
	return k->count;
}

/* --- ends --- */

static void end_exec(struct kernel_exec *x, const struct kernel_outcome *o)
{
	av_list_remove(&x->node);
	x->kernel = NULL;
	av_buf_clear(&x->message);
	x->ops->on_end(x, o);
}

/* Tells the one that runs and all that wait. They may queue new ones: those stay. */
static void end_all(struct kernel *k, const struct kernel_outcome *o)
{
	struct kernel_exec *x = AV_TAKE_PTR(k->active);
	struct kernel_outcome mine = *o;
	struct av_list all;

	av_list_init(&all);
	while (!av_list_empty(&k->queue)) {
		struct av_list *n = k->queue.next;

		av_list_remove(n);
		av_list_append(&all, n);
	}
	k->n_queue = 0;
	if (x) {
		mine.count = x->accepted ? k->count : 0;
		end_exec(x, &mine);
	}
	mine.count = 0;
	while ((x = AV_LIST_FIRST(&all, struct kernel_exec, node)))
		end_exec(x, &mine);
}

/* Without a process again. */
static void make_cold(struct kernel *k)
{
	if (k->driver)
		driver_let_go(k->driver);
	k->state = KERNEL_COLD;
	k->used = k->move = false;
	k->banner[0] = '\0';
	av_buf_reset(&k->idle[0]);
	av_buf_reset(&k->idle[1]);
}

void kernel_on_gone(struct kernel *k, const struct process_end *end, const char *why)
{
	struct kernel_outcome o = {.end = KERNEL_DIED, .process = end};
	bool waited = k->active || k->n_queue, starting = k->state == KERNEL_STARTING;
	char message[256];

	if (end && !end->exited)
		snprintf(message, sizeof(message), "the kernel's process ended with %s%s",
		    end->status,
		    end->signal == SIGKILL ? ": killed from outside or for want of memory" : "");
	else if (end)
		snprintf(message, sizeof(message), "the kernel's process ended with %s%s",
		    end->status, starting && end->exit_code ? " before it was ready" : "");
	else
		snprintf(message, sizeof(message), "the kernel was killed: %s", why);
	make_cold(k);
	if (k == k->table->spare) {
		k->table->spare = NULL;
		free_kernel(k);
		return;
	}
	snprintf(k->lost, sizeof(k->lost), "%s", waited ? "" : message);
	o.message = message;
	end_all(k, &o);
	k->count = 0;
}

/* --- running --- */

bool kernel_listens(const struct kernel *k)
{
	return k->active || k->n_queue;
}

bool kernel_is_full(const struct kernel *k)
{
	return k->active && k->active->full;
}

/* Keeps the newest bytes, at most max. */
static void keep_idle(struct av_buf *b, size_t max, struct av_str data)
{
	if (data.n > max)
		data = av_str_n(data.p + data.n - max, max);
	if (b->n + data.n > max)
		av_buf_consume(b, b->n + data.n - max);
	(void)av_buf_append_str(b, data);
}

void kernel_on_output(struct kernel *k, bool is_stderr, struct av_str data)
{
	if (k->active && k->active->accepted)
		k->active->ops->on_output(k->active, is_stderr, data);
	else if (k->state == KERNEL_BUSY && k->active)
		/* Perhaps it is the code's: it may be read before the news that it has begun. */
		keep_idle(&k->idle[is_stderr], KERNEL_EARLY_BYTES, data);
	else if (k->state != KERNEL_BUSY)
		keep_idle(&k->idle[is_stderr], KERNEL_IDLE_BYTES, data);
	/* else it belongs to one that was cancelled */
}

/* What was printed before this execution began. */
static void give_idle(struct kernel *k)
{
	for (int i = 0; i < 2 && k->active; i++) {
		struct av_buf b = k->idle[i];

		av_buf_init(&k->idle[i], KERNEL_EARLY_BYTES);
		if (b.n)
			k->active->ops->on_output(k->active, i == 1, av_buf_str(&b));
		av_buf_clear(&b);
	}
}

static void give_loss(struct kernel *k)
{
	char text[384];

	if (!k->lost[0] || !k->active)
		return;
	snprintf(text, sizeof(text), "[%s; this is a fresh one, without what was defined before]\n",
	    k->lost);
	k->lost[0] = '\0';
	k->active->ops->on_output(k->active, true, av_str_c(text));
}

/* The agent's settings as pairs, and the working directory, for a process that was started before
 * they were known. */
static int send_setup(struct kernel *k)
{
	AV_CLEANUP(av_buf_clear) struct av_buf pairs = AV_BUF_INIT(PAIRS_MAX);
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(PAIRS_MAX + AV_PATH_MAX + 64);
	const struct agent_settings *s = &k->table->agent->settings;
	const char *key;
	json_t *value;
	int r;

	if (k->settings == s->generation && !k->move)
		return 0;
	if (k->settings != s->generation) {
		json_object_foreach (s->envs, key, value) {
			(void)av_buf_append(&pairs, key, strlen(key) + 1);
			(void)av_buf_append(
			    &pairs, json_string_value(value), json_string_length(value) + 1);
		}
	}
	r = av_buf_error(&pairs);
	if (r == 0)
		r = av_kernel_write_setup(
		    &out, av_str_c(k->move ? k->cwd : ""), av_buf_str(&pairs));
	if (r == 0)
		r = driver_send(k->driver, av_buf_str(&out));
	if (r == 0) {
		k->settings = s->generation;
		k->move = false;
	}
	return r;
}

static void fail_exec(struct kernel *k, struct kernel_exec *x, const char *message)
{
	struct kernel_outcome o = {.end = KERNEL_FAILED, .message = message};

	k->active = NULL;
	end_exec(x, &o);
}

/* A process that never ran code and has the wrong user, since the sandbox's default changed under
 * it, is replaced. */
static void check_user(struct kernel *k)
{
	struct agent_user user;

	if (!k->user_default || k->used || k->settings == k->table->agent->settings.generation ||
	    agent_find_user(k->table->agent, NULL, &user, NULL) < 0 ||
	    strcmp(user.name, k->user) == 0)
		return;
	snprintf(k->user, sizeof(k->user), "%s", user.name);
	if (k->driver)
		make_cold(k);
}

/* Sends the first that waits to an idle process, or starts the process. */
static void run_next(struct kernel *k)
{
	while (k->n_queue && (k->state == KERNEL_COLD || k->state == KERNEL_IDLE)) {
		struct kernel_exec *x = AV_LIST_FIRST(&k->queue, struct kernel_exec, node);
		struct av_err err;

		check_user(k);
		if (k->state == KERNEL_COLD && kernel_start(k, &err) == 0)
			return;
		av_list_remove(&x->node);
		k->n_queue--;
		if (k->state == KERNEL_COLD) {
			fail_exec(k, x, err.message);
			continue;
		}
		k->active = x;
		if (send_setup(k) < 0 || driver_send(k->driver, av_buf_str(&x->message)) < 0) {
			fail_exec(k, x, "out of memory in the sandbox's agent");
			continue;
		}
		av_buf_clear(&x->message);
		k->state = KERNEL_BUSY;
		k->accepted = k->interrupted = false;
		k->used = true;
		k->table->executions++;
	}
}

static int on_accepted(struct kernel *k, const struct av_kernel_message *m)
{
	struct kernel_exec *x = k->active;

	if (k->state != KERNEL_BUSY || k->accepted)
		return -EPROTO;
	k->count = m->count;
	/* Earlier the driver would not have known what the signal is for. */
	if (k->interrupted)
		driver_interrupt(k->driver);
	k->interrupted = false;
	k->accepted = true;
	if (!x)
		return 0;
	x->accepted = true;
	x->ops->on_message(x, m);
	give_loss(k);
	give_idle(k);
	return 0;
}

static int on_finished(struct kernel *k, const struct av_kernel_message *m)
{
	struct kernel_outcome o = {.end = m->flags ? KERNEL_ERROR : KERNEL_OK, .count = m->count};
	struct kernel_exec *x = k->active;

	if (k->state != KERNEL_BUSY || !k->accepted)
		return -EPROTO;
	k->state = KERNEL_IDLE;
	k->active = NULL;
	touch(k);
	if (x)
		end_exec(x, &o);
	/* The owner may have restarted or deleted it: then the queue is empty or under way. */
	return 0;
}

static int on_ready(struct kernel *k, const struct av_kernel_message *m)
{
	if (k->state != KERNEL_STARTING)
		return -EPROTO;
	k->state = KERNEL_IDLE;
	memcpy(k->banner, m->rest.p, m->rest.n);
	k->banner[m->rest.n] = '\0';
	touch(k);
	return 0;
}

static int send_known(struct kernel_driver *d)
{
	AV_CLEANUP(av_buf_clear) struct av_buf out = AV_BUF_INIT(AV_KERNEL_HEADER);
	int r = av_kernel_write_known(&out);

	return r < 0 ? r : driver_send(d, av_buf_str(&out));
}

int kernel_on_message(struct kernel *k, const struct av_kernel_message *m)
{
	struct kernel_driver *d = k->driver;
	int r = 0;

	switch (m->type) {
	case AV_KERNEL_READY:
		r = on_ready(k, m);
		break;
	case AV_KERNEL_ACCEPTED:
		r = on_accepted(k, m);
		break;
	case AV_KERNEL_FINISHED:
		r = on_finished(k, m);
		break;
	default:
		/* Between executions a thread of the code may show something: nobody sees it. */
		if (k->active && k->active->accepted)
			k->active->ops->on_message(k->active, m);
		if (m->flags & AV_KERNEL_ANSWER && d->kernel)
			r = send_known(d);
		break;
	}
	/* Kernels are deleted by requests, never by these callbacks: k lives. */
	if (r == 0 && d->kernel)
		run_next(k);
	return r;
}

/* --- verbs --- */

int kernel_start(struct kernel *k, struct av_err *err)
{
	int r;

	assert(k);
	if (k->state != KERNEL_COLD)
		return 0;
	k->count = 0;
	r = driver_start(k, err);
	if (r == 0)
		k->state = KERNEL_STARTING;
	return r;
}

void kernel_interrupt(struct kernel *k)
{
	if (k->state != KERNEL_BUSY)
		return;
	k->interrupted = !k->accepted;
	if (k->accepted)
		driver_interrupt(k->driver);
}

int kernel_restart(struct kernel *k, struct av_err *err)
{
	struct kernel_outcome o = {.end = KERNEL_RESTARTED,
	    .message = "the kernel was restarted while this ran or waited"};

	make_cold(k);
	k->lost[0] = '\0';
	end_all(k, &o);
	k->count = 0;
	touch(k);
	return kernel_start(k, err);
}

void kernel_delete(struct kernel *k)
{
	struct kernel_outcome o = {
	    .end = KERNEL_DELETED, .message = "the kernel was deleted while this ran or waited"};

	make_cold(k);
	end_all(k, &o);
	k->table->n--;
	free_kernel(k);
}

int kernel_execute(struct kernel *k, struct kernel_exec *x, uint8_t flags, struct av_str code,
    struct av_str pairs, struct av_err *err)
{
	int r;

	if (k->n_queue >= KERNEL_QUEUE_MAX)
		return av_err_set(err, AV_ERR_QUOTA,
		    "%d executions wait for this kernel already; interrupt it or use another",
		    KERNEL_QUEUE_MAX);
	av_buf_init(&x->message, AV_KERNEL_MESSAGE_MAX + AV_KERNEL_HEADER);
	r = av_kernel_write_execute(&x->message, flags, code, pairs);
	if (r < 0) {
		av_buf_clear(&x->message);
		return av_err_set(err, r == -ENOMEM ? AV_ERR_NO_MEMORY : AV_ERR_TOO_LARGE,
		    "code and environment have more than %zu bytes together",
		    AV_KERNEL_MESSAGE_MAX);
	}
	x->kernel = k;
	av_list_append(&k->queue, &x->node);
	k->n_queue++;
	touch(k);
	run_next(k);
	return 0;
}

void kernel_cancel(struct kernel_exec *x)
{
	struct kernel *k = AV_TAKE_PTR(x->kernel);

	if (!k)
		return;
	av_buf_clear(&x->message);
	if (k->active == x) {
		k->active = NULL;
		kernel_interrupt(k);
		if (k->driver)
			driver_ready(k->driver);
	} else {
		av_list_remove(&x->node);
		k->n_queue--;
	}
}

bool kernel_exec_runs(const struct kernel_exec *x)
{
	return x->kernel && x->kernel->active == x;
}

void kernel_exec_ready(struct kernel_exec *x)
{
	x->full = false;
	if (x->kernel && x->kernel->active == x && x->kernel->driver)
		driver_ready(x->kernel->driver);
}
