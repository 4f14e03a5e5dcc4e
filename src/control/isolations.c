/* SPDX-License-Identifier: Apache-2.0 */
/*
 * isolations.c - which isolation a sandbox gets, and what that asks of the rest of the request
 *
 * A wish comes first, then what the template prefers, then this Aviary's default; a template that
 * holds the memory of a machine can only go on as one. Nothing is ever given that is weaker than
 * what was asked for, or than the default that an administrator chose: what cannot be had is
 * refused, with what to do.
 */
#include "control/isolations_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/avtime.h"

#include "base/banned.h"

bool isolation_is_vm(const char *isolation)
{
	return strcmp(isolation, ISOLATION_VM) == 0;
}

bool template_is_saved(const struct template *t)
{
	return t && t->rec.saved_memory_bytes > 0;
}

int64_t isolation_vcpus(int64_t cpu_milli)
{
	return (cpu_milli + 999) / 1000;
}

const struct driver_caps *isolation_caps(const struct control *c, const char *isolation)
{
	const struct driver_caps *caps = node_caps_of(c->node, isolation);

	return caps ? caps : node_caps(c->node);
}

bool isolation_can_pause(const struct control *c, const char *isolation)
{
	return (isolation_caps(c, isolation)->flags & DRIVER_FREEZE) != 0;
}

/* A platform's: what runs as the kernel of everybody's machines is an administrator's choice. */
static const struct template *kernel(const struct control *c)
{
	return template_by_name(c, "", CONTROL_VM_KERNEL);
}

static const char *default_isolation(const struct control *c)
{
	return c->config.isolation ? c->config.isolation : node_isolation(c->node);
}

static bool about(const struct control *c, const char *isolation, struct driver_about *ret)
{
	struct driver_about v[NODE_DRIVERS_MAX];
	size_t n = node_isolations(c->node, v);

	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i].isolation, isolation) == 0) {
			*ret = v[i];
			return true;
		}
	return false;
}

int control_isolation_check(const struct control *c, const char *name, struct av_err *err)
{
	struct driver_about v[NODE_DRIVERS_MAX];
	size_t n = node_isolations(c->node, v);

	for (size_t i = 0; i < n; i++)
		if (strcmp(v[i].isolation, name) == 0)
			return 0;
	/* A word of the API that this build has no driver for. */
	if (isolation_is_vm(name))
		return 0;
	return av_err_set(err, AV_ERR_INVALID,
	    "'isolation' must be \"jail\" (the host's kernel) or \"vm\" (a kernel of its own), not "
	    "\"%.40s\"",
	    name);
}

/* ---- a create ---- */

/* Somewhere below it are the machine's own programs. */
static bool stands_on_host(const struct control *c, const struct template *t)
{
	/* Each has a parent that was there before it: no circle. */
	while (t) {
		if (strcmp(t->rec.parent_id, "host") == 0)
			return true;
		t = template_by_id(c, t->rec.parent_id);
	}
	return false;
}

const char *template_isolation(const struct control *c, const struct template *t)
{
	if (template_is_saved(t))
		return ISOLATION_VM;
	return t->rec.prefers[0] ? t->rec.prefers : default_isolation(c);
}

static int check_bottom(const struct control *c, const char *name, const struct template *t,
    const char *id, struct av_err *err)
{
	bool said = name && (strcmp(name, "host") == 0 || strcmp(name, "empty") == 0);

	if (said)
		return av_err_set(err, AV_ERR_INVALID,
		    "template %s is only a jail: choose base or another built template", name);
	if (!t)
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "template " CONTROL_VM_TEMPLATE
		    " is not built here, and %s, which answers for it, is only a jail: `aviary vm "
		    "setup` builds what isolation vm needs",
		    id);
	if (stands_on_host(c, t))
		return av_err_set(err, AV_ERR_INVALID,
		    "template %s stands on the machine's own programs (template host) and is only "
		    "a "
		    "jail: choose base or another built template",
		    t->rec.name);
	return 0;
}

static int check_vm(const struct control *c, const char *name, const struct template *t,
    const char *id, struct av_err *err)
{
	struct driver_about a;

	if (!about(c, ISOLATION_VM, &a))
		return av_err_set(
		    err, AV_ERR_UNSUPPORTED, "this Aviary has no isolation vm: choose jail");
	if (!a.available)
		return av_err_set(err, AV_ERR_UNSUPPORTED, "isolation vm cannot be had here: %s",
		    a.reason[0] ? a.reason : "no reason given");
	if (template_is_saved(t))
		return 0;
	if (check_bottom(c, name, t, id, err) < 0)
		return -av_err_errno(err->kind);
	if (!kernel(c))
		return av_err_set(err, AV_ERR_UNSUPPORTED,
		    "isolation vm has no guest kernel here yet: `aviary vm setup` gets it (or "
		    "`aviary template build " CONTROL_VM_KERNEL "`, as an administrator)");
	return 0;
}

int isolation_choose(const struct control *c, const char *wish, const char *name,
    const struct template *t, const char *id, const char **ret, struct av_err *err)
{
	struct av_err own;
	const char *chosen;

	err = err ? err : &own;
	if (wish && control_isolation_check(c, wish, err) < 0)
		return -EINVAL;
	if (wish && template_is_saved(t) && !isolation_is_vm(wish))
		return av_err_set(err, AV_ERR_INVALID,
		    "template %s holds the memory of a virtual machine: it can only be used with "
		    "isolation vm",
		    t->rec.name);
	if (template_is_saved(t))
		chosen = ISOLATION_VM;
	else if (wish)
		chosen = isolation_is_vm(wish) ? ISOLATION_VM : node_isolation(c->node);
	else if (strcmp(id, "empty") == 0)
		chosen = node_isolation(c->node); /* nothing runs in it */
	else if (t && t->rec.prefers[0])
		chosen = t->rec.prefers;
	else
		chosen = default_isolation(c);
	*ret = chosen;
	return isolation_is_vm(chosen) ? check_vm(c, name, t, id, err) : 0;
}

void isolation_fill(const struct template *t, struct store_sandbox *rec)
{
	if (!template_is_saved(t))
		return;
	if (!rec->memory_bytes)
		rec->memory_bytes = t->rec.saved_memory_bytes;
	if (!rec->cpu_milli)
		rec->cpu_milli = t->rec.cpu_milli ? t->rec.cpu_milli : t->rec.saved_vcpus * 1000;
	if (!rec->disk_bytes)
		rec->disk_bytes = t->rec.disk_bytes;
}

static int check_saved(
    const struct template *t, const struct store_sandbox *rec, struct av_err *err)
{
	if (rec->memory_bytes != t->rec.saved_memory_bytes)
		return av_err_set(err, AV_ERR_INVALID,
		    "memory_mb is %" PRId64
		    "; template %s holds the memory of a machine with %" PRId64
		    " MiB: say that, or nothing",
		    (int64_t)(rec->memory_bytes / AV_MIB), t->rec.name,
		    (int64_t)(t->rec.saved_memory_bytes / AV_MIB));
	if (isolation_vcpus(rec->cpu_milli) != t->rec.saved_vcpus)
		return av_err_set(err, AV_ERR_INVALID,
		    "cpus is %g; template %s holds a machine with %" PRId64
		    " processors: say what rounds up to that, or nothing",
		    (double)rec->cpu_milli / 1000, t->rec.name, t->rec.saved_vcpus);
	if (rec->disk_bytes < t->rec.disk_bytes)
		return av_err_set(err, AV_ERR_INVALID,
		    "disk_mb is %" PRId64 "; the disk of template %s has %" PRId64
		    " MiB, and can only grow",
		    (int64_t)(rec->disk_bytes / AV_MIB), t->rec.name,
		    (int64_t)(t->rec.disk_bytes / AV_MIB));
	return 0;
}

int isolation_check_shape(
    const struct template *t, const struct store_sandbox *rec, struct av_err *err)
{
	if (!isolation_is_vm(rec->isolation))
		return 0;
	if (rec->memory_bytes < VM_MEMORY_MIN || rec->memory_bytes % VM_MEMORY_STEP)
		return av_err_set(err, AV_ERR_INVALID,
		    "memory_mb is %" PRId64
		    "; with isolation vm it must be a multiple of %lld and at least %lld MiB",
		    (int64_t)(rec->memory_bytes / AV_MIB), (long long)(VM_MEMORY_STEP / AV_MIB),
		    (long long)(VM_MEMORY_MIN / AV_MIB));
	if (rec->disk_bytes < VM_DISK_MIN)
		return av_err_set(err, AV_ERR_INVALID,
		    "disk_mb is %" PRId64 "; with isolation vm it must be at least %lld MiB",
		    (int64_t)(rec->disk_bytes / AV_MIB), (long long)(VM_DISK_MIN / AV_MIB));
	return template_is_saved(t) ? check_saved(t, rec, err) : 0;
}

void isolation_take_spec(
    const struct control *c, const struct store_sandbox *rec, struct driver_spec *ret)
{
	const struct template *t = template_by_id(c, rec->template_id), *k;

	memcpy(ret->isolation, rec->isolation, strnlen(rec->isolation, sizeof(ret->isolation) - 1));
	if (!isolation_is_vm(rec->isolation))
		return;
	ret->saved = template_is_saved(t);
	k = kernel(c);
	if (!k || ret->saved)
		return;
	static_assert(sizeof(ret->kernel_id) >= sizeof(k->rec.id), "room for an id");
	memcpy(ret->kernel_id, k->rec.id, sizeof(k->rec.id));
	memcpy(ret->kernel_seal, k->rec.seal, sizeof(ret->kernel_seal));
}

/* ---- looking ---- */

static void describe(
    const struct control *c, const struct driver_about *a, struct control_isolation_info *ret)
{
	const struct driver_caps *caps = isolation_caps(c, a->isolation);

	*ret = (struct control_isolation_info){.name = a->isolation,
	    .available = a->available,
	    .ready = a->ready,
	    .is_default = strcmp(a->isolation, default_isolation(c)) == 0,
	    .can_pause = (caps->flags & DRIVER_FREEZE) != 0,
	    .saves_memory = (caps->flags & DRIVER_MEMORY_SNAPSHOT) != 0};
	memcpy(ret->accelerator, a->accelerator, sizeof(ret->accelerator));
	(void)snprintf(ret->reason, sizeof(ret->reason), "%s", a->reason);
	if (!isolation_is_vm(a->isolation))
		return;
	ret->lacks_kernel = !kernel(c);
	ret->lacks_base = !template_by_name(c, "", CONTROL_VM_TEMPLATE);
}

size_t control_isolations(
    const struct control *c, struct control_isolation_info v[static CONTROL_ISOLATIONS_MAX])
{
	static_assert(CONTROL_ISOLATIONS_MAX >= NODE_DRIVERS_MAX, "room for all");
	struct driver_about all[NODE_DRIVERS_MAX];
	size_t n = node_isolations(c->node, all);

	for (size_t i = 0; i < n; i++)
		describe(c, &all[i], &v[i]);
	return n;
}

size_t control_makings(const struct control *c, const struct control_actor *a,
    struct control_making v[static CONTROL_MAKINGS_MAX])
{
	struct driver_making all[CONTROL_MAKINGS_MAX];
	size_t n = node_makings(c->node, all, AV_ARRAY_LEN(all));

	for (size_t i = 0; i < n; i++) {
		const struct template *t = template_by_id(c, all[i].template_id);

		v[i] = (struct control_making){.percent = all[i].percent,
		    .waiting = all[i].waiting,
		    .since_ms = (av_mono_ns() - all[i].since_ns) / AV_NS_PER_MS};
		(void)snprintf(v[i].stage, sizeof(v[i].stage), "%s", all[i].stage);
		if (t && (t->rec.platform || strcmp(t->rec.team_id, a->team_id) == 0))
			v[i].template_name = t->rec.name;
	}
	return n;
}
