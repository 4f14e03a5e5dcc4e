/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_node_drivers.c - a node with two drivers: who is asked what
 */
#include "fake_driver.h"
#include "lib/run_loop.h"
#include "lib/tap.h"

#include "base/avtime.h"

#include "base/banned.h"

static struct av_loop *loop;
static struct fake_machine jails, vms;
static struct fake_driver *jail, *vm;
static struct node *node;
static char gone[64];
static int taken;

struct seen {
	int calls;
	struct node_sandbox *sb;
	enum av_err_kind kind;
	size_t n;
	struct driver_evidence ev;
};

static void run_for(int64_t ms)
{
	run_loop_for(loop, ms);
}

static void wait_for(const struct seen *s, int calls)
{
	for (int i = 0; i < 1000 && s->calls < calls; i++)
		run_for(5);
}

static void on_sandbox(
    void *ctx, struct node_sandbox *sb, const struct driver_evidence *ev, const struct av_err *err)
{
	struct seen *s = ctx;

	s->calls++;
	s->sb = sb;
	s->kind = err ? err->kind : AV_ERR_NONE;
	if (ev)
		s->ev = *ev;
}

static void on_done(void *ctx, const struct av_err *err)
{
	struct seen *s = ctx;

	s->calls++;
	s->kind = err ? err->kind : AV_ERR_NONE;
}

static void on_list(void *ctx, const char (*ids)[AV_ID_SIZE], size_t n, const struct av_err *err)
{
	struct seen *s = ctx;

	(void)ids;
	s->calls++;
	s->n = n;
	s->kind = err ? err->kind : AV_ERR_NONE;
}

static bool vm_has(struct driver *d, const char *id)
{
	return fake_find(fake_of(d)->m, id) != NULL;
}

static void vm_gone(struct driver *d, const char *template_id)
{
	(void)d;
	if (av_str_copy(gone, sizeof(gone), av_str_c(template_id)) < 0)
		gone[0] = '\0';
}

static int vm_take(struct driver *d, const char *id, driver_done_fn *fn, void *ctx)
{
	taken++;
	return d->ops->thaw(d, id, fn, ctx);
}

static size_t vm_makings(struct driver *d, struct driver_making *v, size_t max)
{
	(void)d;
	if (max > 0)
		v[0] = (struct driver_making){.percent = 40};
	return max > 0;
}

static char own[AV_ID_SIZE];

static bool vm_is_own(struct driver *d, const char *id)
{
	(void)d;
	return strcmp(id, own) == 0;
}

static void vm_about(struct driver *d, struct driver_about *ret)
{
	(void)d;
	memcpy(ret->accelerator, "tcg", 4);
}

static void make(struct driver_spec *spec, const char *isolation, struct seen *s)
{
	memset(spec, 0, sizeof(*spec));
	memset(s, 0, sizeof(*s));
	av_id_make(spec->id, AV_ID_SANDBOX);
	memcpy(spec->isolation, isolation, strlen(isolation));
	memcpy(spec->template_id, "host", 5);
	ok(node_create(node, spec, NULL, on_sandbox, s) == 0, "create with isolation '%s'",
	    isolation);
	wait_for(s, 1);
}

static void test_whose(void)
{
	struct driver_spec a, b, c = {.isolation = "gas"};
	struct seen sa, sb, sc = {0};

	make(&a, "", &sa);
	make(&b, "vm", &sb);
	ok(sa.sb && fake_find(&jails, a.id) && !fake_find(&vms, a.id),
	    "without a wish the first driver makes it");
	ok(sb.sb && fake_find(&vms, b.id) && !fake_find(&jails, b.id), "else the one that is said");
	is_int(node_create(node, &c, NULL, on_sandbox, &sc), -EOPNOTSUPP,
	    "an isolation that nobody has is refused");

	(void)node_freeze(node, b.id, on_done, &sc);
	wait_for(&sc, 1);
	ok(fake_find(&vms, b.id)->frozen, "what follows goes to the one whose it is");
	(void)node_take(node, b.id, on_done, &sc);
	wait_for(&sc, 2);
	ok(taken == 1 && !fake_find(&vms, b.id)->frozen, "taking as well");
	is_int(node_take(node, a.id, on_done, &sc), -EALREADY, "a driver that holds none says so");

	node_forget(sb.sb, &(struct av_err){.kind = AV_ERR_INVALID_STATE});
	(void)node_destroy(node, b.id, on_done, &sc);
	wait_for(&sc, 3);
	ok(!fake_find(&vms, b.id) && vms.destroyed == 1, "also when only the driver knows it");
	(void)node_destroy(node, b.id, on_done, &sc);
	wait_for(&sc, 4);
	ok(sc.kind == AV_ERR_NONE && jails.destroyed == 0, "nobody's is the first one's");
}

static void test_adopt(void)
{
	struct driver_spec spec;
	struct seen s, again = {0};

	make(&spec, "vm", &s);
	node_forget(s.sb, &(struct av_err){.kind = AV_ERR_INVALID_STATE});
	is_int(node_adopt(node, spec.id, "vm", &s.ev, NULL, on_sandbox, &again), 0, "adopt");
	wait_for(&again, 1);
	ok(again.sb && vms.adopted == 1 && jails.adopted == 0, "the record says whose it is");
}

static void test_for_all(void)
{
	struct driver_about v[NODE_DRIVERS_MAX];
	struct driver_making m[2];
	struct seen s = {0};

	(void)node_list(node, on_list, &s);
	wait_for(&s, 1);
	is_int((long long)s.n, 1, "the first driver is asked for the list, alone");
	memcpy(own, AV_CONTAINER_OF(jails.boxes.next, struct fake_box, link)->id, sizeof(own));
	(void)node_list(node, on_list, &s);
	wait_for(&s, 2);
	is_int((long long)s.n, 0, "what a driver made for itself is nobody else's business");
	(void)node_template_delete(node, "tp", on_done, &s);
	wait_for(&s, 3);
	is_str(gone, "tp", "the others hear of a template's end");
	is_int((long long)node_isolations(node, v), 2, "there are two isolations");
	ok(strcmp(v[0].isolation, "jail") == 0 && v[0].available && v[0].ready &&
	        strcmp(v[1].accelerator, "tcg") == 0,
	    "each as its driver says");
	ok(node_makings(node, m, 2) == 1 && m[0].percent == 40 && node_makings(node, m, 0) == 0,
	    "and what is being made");
	ok(node_caps_of(node, "vm") == &vm->caps && !node_caps_of(node, "gas"),
	    "abilities are asked for by isolation");
	is_str(node_isolation(node), "jail", "the first is the node's own");
}

static void some_stats(struct driver *d, struct driver_stats *ret)
{
	*ret = (struct driver_stats){.waiting = 1, .sent = 2, .sent_max = 8, .reconnects = 3};
	av_hist_add(&ret->queue, d == &vm->base ? AV_NS_PER_MS : 2 * AV_NS_PER_MS);
}

static void test_stats(void)
{
	struct node_stats s;

	node_get_stats(node, &s);
	ok(s.driver.waiting == 2 && s.driver.sent == 4 && s.driver.sent_max == 16 &&
	        s.driver.reconnects == 6,
	    "what all drivers count is added up");
	is_int((long long)av_hist_total(&s.driver.queue), 2, "creates of both");
	is_int((long long)s.driver.queue.sum_ns, 3 * AV_NS_PER_MS, "and how long they took");
	is_int((long long)av_hist_total(&s.driver.child), 0, "and nothing else");
}

static void set_flag(void *ctx)
{
	*(bool *)ctx = true;
}

int main(void)
{
	static struct driver_ops vm_ops, jail_ops;
	struct node_config nc = {0};
	bool closed = false;

	vm_ops = fake_ops;
	vm_ops.isolation = "vm";
	vm_ops.stats = some_stats;
	jail_ops = fake_ops;
	jail_ops.stats = some_stats;
	vm_ops.has = vm_has;
	vm_ops.take = vm_take;
	vm_ops.about = vm_about;
	vm_ops.is_own = vm_is_own;
	vm_ops.makings = vm_makings;
	vm_ops.template_gone = vm_gone;
	fake_machine_init(&jails, "boot");
	fake_machine_init(&vms, "boot");
	if (av_loop_new(&loop) < 0)
		return 1;
	jail = fake_driver_new(loop, &jails);
	jail->base.ops = &jail_ops;
	vm = fake_driver_new(loop, &vms);
	vm->base.ops = &vm_ops;
	nc.loop = loop;
	nc.drivers[0] = &jail->base;
	nc.drivers[1] = &vm->base;
	if (node_new(&nc, &node, NULL) < 0)
		return 1;
	test_whose();
	test_adopt();
	test_for_all();
	test_stats();
	node_close(node, set_flag, &closed);
	for (int i = 0; i < 100 && !closed; i++)
		run_for(5);
	ok(closed, "it is closed when both drivers are");
	fake_machine_clear(&jails);
	fake_machine_clear(&vms);
	av_loop_free(loop);
	return tap_done();
}
