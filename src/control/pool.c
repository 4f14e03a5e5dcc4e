/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c - sandboxes made before anybody asks (see pool.h)
 */
#include "control/pool.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "control/isolations_internal.h"

#include "base/banned.h"

#define QUIET_NS (5 * AV_NS_PER_MS)
/* A machine's start takes a processor for longer than the first command of the one just taken. */
#define MACHINE_QUIET_NS (300 * AV_NS_PER_MS)
#define LOOK_NS          (20 * AV_NS_PER_MS)
#define TICK_NS          AV_NS_PER_S
#define IDLE_TICK_NS     (60 * AV_NS_PER_S)
#define DEMAND_HALF_S    30
#define AGE_MAX_NS       (600 * AV_NS_PER_S)
#define RETRY_FIRST_NS   AV_NS_PER_S
#define RETRY_MAX_NS     (60 * AV_NS_PER_S)
#define RELIEF_NS        (60 * AV_NS_PER_S)
#define SHAPES_MAX       16
#define TRY_OUT_MS       10000
#define MEMBER_BYTES     AV_MIB /* what a member counts for at least */
#define MACHINE_BYTES    (64 * AV_MIB)

struct pool_member {
	struct av_list link;      /* shape->members */
	struct pool_shape *shape; /* NULL: of none any more */
	struct control *c;
	char id[AV_ID_SIZE];
	char template_id[DRIVER_TEMPLATE_MAX];
	bool is_vm; /* held: stopped where its first process could run */
	bool made, warming, ready;
	bool doomed; /* destroyed as soon as it is made, or warm */
	bool gone;   /* being destroyed; of no shape any more */
	struct store_evidence evidence;
	uint64_t memory_bytes;
	int64_t made_ns;
};

void pool_init(struct control *c)
{
	struct pool *p = &c->pool;

	p->on = c->config.pool_max > 0 || c->config.vm_pool_max > 0;
	p->next_ns = INT64_MAX;
	av_list_init(&p->shapes);
	av_map_init(&p->members);
}

/* ---- shapes ---- */

static struct pool_shape *shape_find(const struct pool *p, const struct driver_spec *spec)
{
	struct pool_shape *s;

	/* Both were made by create_spec(), which leaves no byte undefined. */
	AV_LIST_FOREACH(s, &p->shapes, struct pool_shape, link)
	if (memcmp((const void *)&s->spec, (const void *)spec, sizeof(*spec)) == 0)
		return s;
	return NULL;
}

static void shape_free(struct pool_shape *s)
{
	av_list_remove(&s->link);
	free(s);
}

/* Room for another one: the shape without members that is wanted least goes. */
static bool make_room(struct pool *p)
{
	struct pool_shape *s, *least = NULL;
	size_t n = 0;

	AV_LIST_FOREACH(s, &p->shapes, struct pool_shape, link)
	{
		n++;
		if (!s->n && !s->is_default && (!least || s->demand < least->demand))
			least = s;
	}
	if (n < SHAPES_MAX)
		return true;
	if (least)
		shape_free(least);
	return least != NULL;
}

static struct pool_shape *shape_get(struct pool *p, const struct driver_spec *spec)
{
	struct pool_shape *s = shape_find(p, spec);

	if (s || !make_room(p))
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	memcpy(&s->spec, spec, sizeof(*spec));
	av_list_init(&s->members);
	av_list_append(&p->shapes, &s->link);
	return s;
}

/* ---- bounds: jails and machines have each their own ---- */

static bool shape_is_vm(const struct pool_shape *s)
{
	return isolation_is_vm(s->spec.isolation);
}

static size_t max_of(const struct control *c, bool is_vm)
{
	return (size_t)(is_vm ? c->config.vm_pool_max : c->config.pool_max);
}

static uint64_t memory_max_of(const struct control *c, bool is_vm)
{
	return (uint64_t)(is_vm ? c->config.vm_pool_memory_bytes : c->config.pool_memory_bytes);
}

/* How many it would have alone. */
static size_t wish_of(const struct control *c, const struct pool_shape *s)
{
	size_t n = (size_t)(s->demand + 0.5), max = max_of(c, shape_is_vm(s));

	/* One that was asked for once need not be asked for again. */
	if (s->demand < 1.25)
		n = 0;
	if (s->is_default)
		n = AV_MAX(n, (size_t)1);
	return AV_MIN(n, max);
}

/* Its share, when all together wish for more than there may be. */
static size_t target_of(const struct control *c, const struct pool_shape *s)
{
	size_t max = max_of(c, shape_is_vm(s)), wish = wish_of(c, s), sum = 0;
	const struct pool_shape *other;

	AV_LIST_FOREACH(other, &c->pool.shapes, const struct pool_shape, link)
	if (shape_is_vm(other) == shape_is_vm(s))
		sum += wish_of(c, other);
	if (sum <= max || wish == 0)
		return wish;
	return AV_MAX(wish * max / sum, (size_t)1);
}

static uint64_t cost_of(const struct pool_member *m)
{
	return AV_MAX(m->memory_bytes, (uint64_t)(m->is_vm ? MACHINE_BYTES : MEMBER_BYTES));
}

static size_t count_of(const struct pool *p, bool is_vm)
{
	const struct pool_member *m;
	size_t pos = 0, n = 0;

	while ((m = av_map_next(&p->members, &pos)))
		n += m->is_vm == is_vm;
	return n;
}

static uint64_t memory_of_all(const struct pool *p, bool is_vm)
{
	const struct pool_member *m;
	uint64_t sum = 0;
	size_t pos = 0;

	while ((m = av_map_next(&p->members, &pos)))
		sum += m->is_vm == is_vm ? cost_of(m) : 0;
	return sum;
}

/* What one more will use: as much as its neighbours do. */
static uint64_t cost_of_next(const struct pool_shape *s)
{
	const struct pool_member *m;
	uint64_t most = shape_is_vm(s) ? MACHINE_BYTES : MEMBER_BYTES;

	AV_LIST_FOREACH(m, &s->members, const struct pool_member, link)
	most = AV_MAX(most, cost_of(m));
	return most;
}

/* ---- ends of members ---- */

static void wake(struct control *c, int64_t at_ns)
{
	if (at_ns >= c->pool.next_ns)
		return;
	c->pool.next_ns = at_ns;
	control_wake(c, at_ns);
}

/* Of no shape any more. */
static void member_leave(struct pool_member *m)
{
	struct pool_shape *s = m->shape;

	if (!s)
		return;
	av_list_remove(&m->link);
	s->n--;
	if (m->ready)
		s->ready--;
	m->ready = false;
	m->shape = NULL;
}

/* Out of the pool; freed. */
static void member_free(struct pool_member *m)
{
	member_leave(m);
	(void)av_map_remove(&m->c->pool.members, av_str_c(m->id));
	free(m);
}

static void on_destroyed(void *ctx, const struct av_err *err)
{
	struct pool_member *m = ctx;
	struct control *c = m->c;

	/* What is left of it has no record: the next sweep removes it. */
	if (err)
		c->pool.stats.failures++;
	member_free(m);
	templates_unused(c);
	control_wake(c, 0);
	control_check_stopped(c);
}

/* Kills what the member was. Its template is in use until that is done. */
static void member_destroy(struct pool_member *m)
{
	struct control *c = m->c;
	struct node_sandbox *handle = node_find(c->node, m->id);
	struct av_err why;

	if (handle) {
		(void)av_err_set(&why, AV_ERR_INVALID_STATE, "it was of the pool");
		node_forget(handle, &why);
	}
	(void)av_failpoint("pool.discarded");
	c->pool.stats.discarded++;
	member_leave(m);
	m->gone = true;
	if (node_destroy(c->node, m->id, on_destroyed, m) < 0)
		member_free(m);
}

static void member_drop(struct pool_member *m)
{
	if (m->gone)
		return;
	if (m->made && !m->warming)
		member_destroy(m);
	else
		m->doomed = true;
}

static void failed(struct control *c, const char *message)
{
	struct pool *p = &c->pool;

	p->stats.failures++;
	p->retry_delay_ns =
	    p->retry_delay_ns ? AV_MIN(p->retry_delay_ns * 2, RETRY_MAX_NS) : RETRY_FIRST_NS;
	p->retry_ns = control_boot_ns(c) + p->retry_delay_ns;
	av_log(AV_LOG_WARN, "cannot make a sandbox ahead of time; trying again later", "error",
	    message, NULL);
	wake(c, p->retry_ns);
}

/* ---- making ---- */

struct weighing {
	struct control *c;
	char id[AV_ID_SIZE];
};

static void on_weighed(void *ctx, const struct driver_status *st, const struct av_err *err)
{
	struct weighing *w = ctx;

	if (!err)
		pool_sampled(w->c, w->id, st->memory_bytes);
	free(w);
}

/* Sampling goes on only while somebody's sandbox lives: what a member needs is asked for once. */
static void weigh(const struct pool_member *m)
{
	struct weighing *w = calloc(1, sizeof(*w));

	if (!w)
		return;
	w->c = m->c;
	memcpy(w->id, m->id, AV_ID_SIZE);
	if (node_inspect(w->c->node, w->id, on_weighed, w) < 0)
		free(w);
}

static void member_ready(struct pool_member *m)
{
	struct control *c = m->c;

	m->ready = true;
	m->shape->ready++;
	c->pool.making = false;
	c->pool.stats.made++;
	c->pool.retry_delay_ns = 0;
	(void)av_failpoint("pool.made");
	weigh(m);
	wake(c, control_boot_ns(c));
}

static void on_held(void *ctx, const struct av_err *err)
{
	struct pool_member *m = ctx;
	struct control *c = m->c;

	m->warming = false;
	if (!err && !m->doomed && node_find(c->node, m->id)) {
		member_ready(m);
		return;
	}
	if (err && !m->doomed)
		failed(c, err->message);
	c->pool.making = false;
	if (err || m->doomed)
		member_destroy(m);
}

/* A machine stands still until it is taken; a jail waits as it is. */
static void hold(struct pool_member *m)
{
	int r = node_hold(m->c->node, m->id, on_held, m);

	m->warming = r == 0;
	if (r == -EALREADY) {
		member_ready(m);
	} else if (r < 0) {
		m->c->pool.making = false;
		failed(m->c, "out of memory");
		member_destroy(m);
	}
}

static void on_warm(void *ctx, const struct av_err *err)
{
	struct pool_member *m = ctx;
	struct control *c = m->c;

	m->warming = false;
	if (err && err->kind != AV_ERR_UNSUPPORTED && !m->doomed && !m->gone) {
		/* It is a sandbox all the same; its first execution starts the interpreter. */
		av_log(AV_LOG_WARN, "cannot start an interpreter ahead of time", "id", m->id,
		    "error", err->message, NULL);
		c->pool.stats.failures++;
	}
	if (m->doomed || !node_find(c->node, m->id)) {
		c->pool.making = false;
		if (m->doomed)
			member_destroy(m);
		return;
	}
	hold(m);
}

/* The interpreter of a template that asks for one. True: member_ready comes later. */
static bool warm(struct pool_member *m, struct node_sandbox *handle)
{
	const struct template *t = template_by_id(m->c, m->template_id);

	if (!t || !t->rec.kernel_warm)
		return false;
	m->warming = node_warm_kernel(handle, on_warm, m, NULL, NULL) == 0;
	return m->warming;
}

/* Whatever /bin/echo ended with (a template may have none), the agent did what it was told. */
static void on_tried(void *ctx, const struct node_exec_result *result, const struct av_err *err)
{
	struct pool_member *m = ctx;
	struct control *c = m->c;
	struct node_sandbox *handle = node_find(c->node, m->id);

	(void)result;
	m->warming = false;
	if (!m->doomed && err && (err->kind == AV_ERR_AGENT || err->kind == AV_ERR_EXEC_TIMEOUT)) {
		failed(c, err->message);
		m->doomed = true;
	}
	if (m->doomed || !handle) {
		c->pool.making = false;
		if (m->doomed)
			member_destroy(m);
		return;
	}
	if (!warm(m, handle))
		hold(m);
}

/* One program that does nothing: who takes the member finds the agent at work, and the files that
 * every program needs looked up. */
static bool try_out(struct pool_member *m, struct node_sandbox *handle)
{
	const struct node_exec_spec spec = {.cmd = "/bin/echo", .timeout_ms = TRY_OUT_MS};

	m->warming = node_exec_collect(handle, &spec, on_tried, m, NULL, NULL) == 0;
	return m->warming;
}

static void on_made(void *ctx, struct node_sandbox *handle, const struct driver_evidence *ev,
    const struct av_err *err)
{
	struct pool_member *m = ctx;
	struct control *c = m->c;
	enum av_err_kind kind = err ? err->kind : AV_ERR_NONE;

	m->made = true;
	if (!err)
		create_take_evidence(&m->evidence, ev);
	m->made_ns = control_boot_ns(c);
	if (!err && !m->doomed) {
		if (c->config.pool_untried) {
			hold(m);
			return;
		}
		if (try_out(m, handle))
			return;
		failed(c, "its agent cannot be asked");
	}
	c->pool.making = false;
	if (err && kind != AV_ERR_CANCELED)
		failed(c, err->message);
	/* Also after an error: whether something was made is not known then. */
	if (kind == AV_ERR_CANCELED)
		member_free(m);
	else
		member_destroy(m);
	control_check_stopped(c);
}

static void make_one(struct control *c, struct pool_shape *s)
{
	const struct template *t = template_by_id(c, s->spec.template_id);
	struct node_agent_config agent = {0};
	struct store_sandbox rec = {0};
	struct pool_member *m = calloc(1, sizeof(*m));
	AV_CLEANUP(av_freep) char *envs = NULL;
	struct driver_spec spec;

	if (!m)
		return;
	m->c = c;
	m->shape = s;
	av_id_make(m->id, AV_ID_SANDBOX);
	if (av_map_put(&c->pool.members, av_str_c(m->id), m) < 0) {
		free(m);
		return;
	}
	av_list_append(&s->members, &m->link);
	s->n++;
	memcpy(&spec, &s->spec, sizeof(spec));
	memcpy(spec.id, m->id, sizeof(spec.id));
	m->is_vm = shape_is_vm(s);
	memcpy(m->template_id, spec.template_id, sizeof(m->template_id));
	/* What a create without wishes says: then its agent need not be told again. */
	memcpy(rec.id, m->id, sizeof(rec.id));
	memcpy(rec.template_id, spec.template_id, sizeof(spec.template_id));
	static_assert(sizeof(t->rec.name) == sizeof(rec.template_name), "a name of a template");
	if (t)
		memcpy(rec.template_name, t->rec.name, sizeof(t->rec.name));
	(void)!sandbox_agent_envs(c, &rec, &envs);
	agent.envs_json = envs;
	template_agent_defaults(c, &rec, &agent);
	c->pool.making = true;
	if (node_create(c->node, &spec, &agent, on_made, m) < 0) {
		c->pool.making = false;
		member_free(m);
		failed(c, "out of memory");
	}
}

/* ---- how many ---- */

/* What a create without wishes gets may change with the templates. */
static void find_default(struct control *c)
{
	struct pool_shape *s, *found;
	struct driver_spec spec;

	if (create_default_spec(c, &spec) < 0 || spec.saved)
		return;
	found = shape_get(&c->pool, &spec);
	AV_LIST_FOREACH(s, &c->pool.shapes, struct pool_shape, link)
	s->is_default = s == found;
}

/* Also says when to look again. */
static void decay(struct control *c, int64_t now_ns)
{
	struct pool *p = &c->pool;
	double seconds = (double)(now_ns - p->decayed_ns) / (double)AV_NS_PER_S;
	double factor = exp2(-seconds / DEMAND_HALF_S);
	struct pool_shape *s;

	p->decayed_ns = now_ns;
	p->next_ns = now_ns + IDLE_TICK_NS;
	AV_LIST_FOREACH(s, &p->shapes, struct pool_shape, link)
	{
		s->demand *= factor;
		if (s->demand >= 0.1 || s->n != target_of(c, s))
			p->next_ns = now_ns + TICK_NS;
		else if (!s->n && !s->is_default)
			shape_free(s);
	}
}

static struct pool_member *oldest_ready(const struct pool_shape *s)
{
	struct pool_member *m;

	AV_LIST_FOREACH(m, &s->members, struct pool_member, link)
	if (m->ready)
		return m;
	return NULL;
}

/* One too many, or too old, goes; at most one a turn. */
static void trim(struct control *c, int64_t now_ns)
{
	struct pool_shape *s;

	AV_LIST_FOREACH(s, &c->pool.shapes, struct pool_shape, link)
	{
		struct pool_member *m = oldest_ready(s);
		bool is_vm = shape_is_vm(s);
		bool crowded = memory_of_all(&c->pool, is_vm) > memory_max_of(c, is_vm);

		if (m && (s->n > target_of(c, s) || crowded || now_ns - m->made_ns > AGE_MAX_NS)) {
			member_destroy(m);
			return;
		}
	}
}

static int64_t quiet_from(const struct control *c, const struct pool_shape *s)
{
	return c->pool.taken_ns + (shape_is_vm(s) ? MACHINE_QUIET_NS : QUIET_NS);
}

/* The shape that lacks most, if there is room for a member. */
static struct pool_shape *wanted(const struct control *c, int64_t now_ns)
{
	const struct pool *p = &c->pool;
	struct pool_shape *s, *found = NULL;
	size_t lack, most = 0;

	AV_LIST_FOREACH(s, &p->shapes, struct pool_shape, link)
	{
		size_t target = target_of(c, s);
		bool is_vm = shape_is_vm(s);

		lack = target > s->n ? target - s->n : 0;
		if (lack > most && now_ns >= quiet_from(c, s) &&
		    count_of(p, is_vm) < max_of(c, is_vm) &&
		    memory_of_all(p, is_vm) + cost_of_next(s) <= memory_max_of(c, is_vm)) {
			most = lack;
			found = s;
		}
	}
	return found;
}

void pool_tick(struct control *c, int64_t now_ns)
{
	struct pool *p = &c->pool;
	struct pool_shape *s;

	if (!p->on || p->stopping || now_ns < p->next_ns)
		return;
	find_default(c);
	decay(c, now_ns);
	trim(c, now_ns);
	if (p->making || now_ns < p->retry_ns || !node_is_ready(c->node))
		return;
	s = wanted(c, now_ns);
	if (!s && now_ns < p->taken_ns + MACHINE_QUIET_NS)
		p->next_ns = AV_MIN(p->next_ns, p->taken_ns + MACHINE_QUIET_NS);
	else if (s && !av_list_empty(&c->creating))
		p->next_ns = now_ns + LOOK_NS;
	else if (s)
		make_one(c, s);
}

/* ---- handing over ---- */

bool pool_take(struct control *c, const struct driver_spec *spec, char ret_id[static AV_ID_SIZE],
    struct store_evidence *ret)
{
	struct pool *p = &c->pool;
	struct pool_member *m = NULL;
	struct pool_shape *s;
	struct driver_spec shape;

	/* A snapshot is not made ahead of time: the copies of a fork are asked for once. */
	if (!p->on || p->stopping || spec->saved)
		return false;
	memcpy(&shape, spec, sizeof(shape));
	memset(shape.id, 0, sizeof(shape.id));
	s = shape_get(p, &shape);
	p->taken_ns = control_boot_ns(c);
	wake(c, p->taken_ns + QUIET_NS);
	if (s) {
		s->demand += 1;
		m = oldest_ready(s);
	}
	/* A handle that is gone means that its death is about to be told. */
	if (!m || !node_find(c->node, m->id)) {
		p->stats.misses++;
		return false;
	}
	memcpy(ret_id, m->id, AV_ID_SIZE);
	*ret = m->evidence;
	member_free(m);
	p->stats.hits++;
	(void)av_failpoint("pool.taken");
	return true;
}

bool pool_knows(const struct control *c, const char *id)
{
	return av_map_get(&c->pool.members, av_str_c(id)) != NULL;
}

bool pool_died(struct control *c, const char *id)
{
	struct pool_member *m = av_map_get(&c->pool.members, av_str_c(id));

	if (!m)
		return false;
	if (m->gone)
		return true;
	c->pool.stats.lost++;
	failed(c, "one died before it was used");
	member_drop(m);
	return true;
}

void pool_sampled(struct control *c, const char *id, uint64_t memory_bytes)
{
	struct pool_member *m = av_map_get(&c->pool.members, av_str_c(id));

	if (m)
		m->memory_bytes = memory_bytes;
}

/* ---- life ---- */

void pool_start(struct control *c)
{
	if (!c->pool.on)
		return;
	c->pool.decayed_ns = control_boot_ns(c);
	wake(c, c->pool.decayed_ns);
}

/* NULL: of every template. */
static void drop_all(struct control *c, const char *template_id)
{
	struct pool_member *m;
	size_t pos = 0;

	while ((m = av_map_next(&c->pool.members, &pos)))
		if (!template_id || strcmp(m->template_id, template_id) == 0)
			member_drop(m);
}

bool pool_uses(const struct control *c, const char *template_id)
{
	const struct pool_member *m;
	size_t pos = 0;

	while ((m = av_map_next(&c->pool.members, &pos)))
		if (strcmp(m->template_id, template_id) == 0)
			return true;
	return false;
}

void pool_forget_template(struct control *c, const char *template_id)
{
	struct pool_shape *s;

	drop_all(c, template_id);
	AV_LIST_FOREACH(s, &c->pool.shapes, struct pool_shape, link)
	if (strcmp(s->spec.template_id, template_id) == 0)
		s->demand = 0;
}

void pool_relieve(struct control *c)
{
	drop_all(c, NULL);
	c->pool.retry_ns = control_boot_ns(c) + RELIEF_NS;
}

void pool_stop(struct control *c)
{
	c->pool.stopping = true;
	drop_all(c, NULL);
}

bool pool_is_idle(const struct control *c)
{
	return c->pool.members.n == 0;
}

void pool_clear(struct control *c)
{
	struct pool_member *m;
	struct pool_shape *s;
	size_t pos = 0;

	while ((m = av_map_next(&c->pool.members, &pos)))
		member_free(m);
	AV_LIST_FOREACH(s, &c->pool.shapes, struct pool_shape, link)
	shape_free(s);
	av_map_clear(&c->pool.members);
}

void control_get_pool(const struct control *c, struct control_pool_stats *ret)
{
	const struct pool_shape *s;

	*ret = c->pool.stats;
	AV_LIST_FOREACH(s, &c->pool.shapes, const struct pool_shape, link)
	{
		ret->ready += s->ready;
		ret->making += s->n - s->ready;
		ret->wanted += target_of(c, s);
	}
	ret->memory_bytes = memory_of_all(&c->pool, false) + memory_of_all(&c->pool, true);
}
