/* SPDX-License-Identifier: Apache-2.0 */
/*
 * create_params.c - what a create asks for: checked, completed, and as a record or for the driver
 */
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "base/json.h"
#include "control/isolations_internal.h"
#include "control/main_command.h"

#include "base/banned.h"

/* ---- limits ---- */

void control_limits_init(struct control_limits *l)
{
	*l = (struct control_limits){
	    .cpu_milli_default = 1000,
	    .memory_default = 512 * AV_MIB,
	    .memory_min = 16 * AV_MIB,
	    .disk_default = 5120 * AV_MIB,
	    .disk_min = 16 * AV_MIB,
	    .disk_max = 1024 * AV_GIB,
	    .pids_default = 1024,
	    .pids_max = 32768,
	    .timeout_max_ms = 366LL * 24 * 3600 * 1000,
	    .lifetime_max_ms = 366LL * 24 * 3600 * 1000,
	    .sandboxes_max = 10000,
	    .sandboxes_per_team_max = 10000,
	};
}

static int64_t or_default(int64_t value, int64_t fallback)
{
	return value ? value : fallback;
}

/* The request first, then the template, then this Aviary's defaults. */
static int take_limits(const struct control *c, const struct sandbox_params *p,
    const struct template *t, struct store_sandbox *rec, struct av_err *err)
{
	static const struct store_template none;
	const struct store_template *own = t ? &t->rec : &none;
	const struct control_limits *l = &c->limits;
	const struct driver_caps *caps = isolation_caps(c, rec->isolation);
	int64_t disk_default = caps->disk_default_bytes
	                           ? AV_MIN((int64_t)caps->disk_default_bytes, l->disk_default)
	                           : l->disk_default;
	struct create_bounds b;

	create_bounds_get(c, &b);
	rec->cpu_milli = p->cpu_milli;
	rec->memory_bytes = p->memory_bytes;
	rec->disk_bytes = p->disk_bytes;
	isolation_fill(t, rec);
	rec->cpu_milli = or_default(
	    or_default(rec->cpu_milli, own->cpu_milli), AV_MIN(l->cpu_milli_default, b.cpu_max));
	rec->memory_bytes = or_default(or_default(rec->memory_bytes, own->memory_bytes),
	    AV_MIN(l->memory_default, b.memory_max));
	rec->disk_bytes = or_default(
	    or_default(rec->disk_bytes, own->disk_bytes), AV_MIN(disk_default, b.disk_max));
	rec->pids_max = or_default(p->pids_max, l->pids_default);
	rec->idle_timeout_ms = p->idle_timeout_ms;
	rec->max_lifetime_ms = p->max_lifetime_ms;
	rec->sudo = !p->no_sudo;
	rec->idle_delete = p->idle_delete;
	rec->auto_resume = p->auto_resume;
	rec->internet = p->internet;
	if (control_check_number(err, "cpus", "", 1000, rec->cpu_milli, 10, b.cpu_max) < 0 ||
	    control_check_number(err, "memory_mb", " MiB", AV_MIB, rec->memory_bytes, l->memory_min,
	        b.memory_max) < 0 ||
	    control_check_number(
	        err, "disk_mb", " MiB", AV_MIB, rec->disk_bytes, l->disk_min, b.disk_max) < 0 ||
	    control_check_number(err, "pids_max", "", 1, rec->pids_max, 8, l->pids_max) < 0 ||
	    control_check_number(
	        err, "timeout_sec", " s", 1000, rec->idle_timeout_ms, 0, l->timeout_max_ms) < 0 ||
	    control_check_number(err, "max_lifetime_sec", " s", 1000, rec->max_lifetime_ms, 0,
	        l->lifetime_max_ms) < 0)
		return -EINVAL;
	return isolation_check_shape(t, rec, err);
}

/* And the isolation. *ret: NULL for a built-in one. */
static int take_template(const struct control *c, const struct sandbox_params *p,
    struct store_sandbox *rec, const struct template **ret, struct av_err *err)
{
	const char *name = p->template_name && p->template_name[0] ? p->template_name : NULL;
	const char *id = NULL, *isolation = "";
	int r = 0;

	if (p->own_template) {
		*ret = p->own_template;
		id = p->own_template->rec.id;
	} else {
		r = template_resolve(c, rec->team_id, name, ret, &id, err);
	}
	if (r == 0)
		r = isolation_choose(c, p->isolation, name, *ret, id, &isolation, err);
	if (r < 0)
		return r;
	memcpy(rec->isolation, isolation, strnlen(isolation, sizeof(rec->isolation) - 1));
	if (!name)
		name = isolation_is_vm(isolation) ? CONTROL_VM_TEMPLATE : "minimal";
	if (av_str_copy(rec->template_name, sizeof(rec->template_name), av_str_c(name)) < 0 ||
	    av_str_copy(rec->template_id, sizeof(rec->template_id), av_str_c(id)) < 0)
		return av_err_set(err, AV_ERR_NOT_FOUND, "there is no template %.72s", name);
	return 0;
}

static int take_internet(
    const struct control *c, const char *isolation, bool wanted, struct av_err *err)
{
	const struct driver_caps *caps = isolation_caps(c, isolation);
	/* Before the driver is ready neither is known: it decides itself then. */
	if (!wanted || caps->flags & DRIVER_INTERNET || !caps->no_internet[0])
		return 0;
	return av_err_set(err, AV_ERR_UNSUPPORTED,
	    "internet: this Aviary cannot give sandboxes internet access: %s", caps->no_internet);
}

/* ---- the request ---- */

static void hash_request(uint8_t dst[static STORE_HASH_SIZE], const struct sandbox_params *p)
{
	crypto_hash_sha256_state st;

	static_assert(STORE_HASH_SIZE == crypto_hash_sha256_BYTES, "as libsodium writes it");
	(void)crypto_hash_sha256_init(&st);
	(void)crypto_hash_sha256_update(
	    &st, (const unsigned char *)p->request_body.p, p->request_body.n);
	if (p->isolation_aside)
		(void)crypto_hash_sha256_update(
		    &st, (const unsigned char *)p->isolation, strlen(p->isolation));
	(void)crypto_hash_sha256_final(&st, dst);
}

static int take_idempotency(struct creation *cr, const struct control_actor *a,
    const struct sandbox_params *p, struct av_err *err)
{
	struct av_buf b = AV_BUF_INIT(AV_ID_SIZE + 1 + STORE_IDEMPOTENCY_KEY_MAX);

	if (!p->idempotency_key.n)
		return 0;
	if (p->idempotency_key.n > STORE_IDEMPOTENCY_KEY_MAX ||
	    av_str_has_nul(p->idempotency_key) || !av_utf8_valid(p->idempotency_key))
		return av_err_set(err, AV_ERR_INVALID,
		    "an idempotency key is text of 1 to %d bytes", STORE_IDEMPOTENCY_KEY_MAX);
	hash_request(cr->request_hash, p);
	(void)av_buf_printf(&b, "%s:", a->team_id);
	(void)av_buf_append_str(&b, p->idempotency_key);
	cr->idem_key = av_str_dup(av_buf_str(&b));
	av_buf_clear(&b);
	return cr->idem_key ? 0 : av_err_set(err, AV_ERR_NO_MEMORY, "out of memory");
}

/* No two are made in the same millisecond: they are listed in this order. */
static int64_t created_ms(struct control *c)
{
	int64_t now = control_real_ms(c);

	if (now <= c->last_created_ms && c->last_created_ms - now < 1000)
		now = c->last_created_ms + 1;
	c->last_created_ms = now;
	return now;
}

int create_take_params(struct creation *cr, const struct control_actor *a,
    const struct sandbox_params *p, struct av_err *err)
{
	struct control *c = cr->c;
	struct store_sandbox *rec = &cr->rec;
	const struct template *t = NULL;

	memcpy(rec->team_id, a->team_id, AV_ID_SIZE);
	if (take_template(c, p, rec, &t, err) < 0 || take_limits(c, p, t, rec, err) < 0 ||
	    labels_take_metadata(p->metadata, &cr->texts.metadata, err) < 0 ||
	    labels_take_envs(p->envs, &cr->texts.envs, err) < 0 ||
	    labels_take_tags(p->tags, &cr->texts.tags, err) < 0 ||
	    labels_take_ports(p->ports, &cr->texts.ports, err) < 0 ||
	    main_take(p, &cr->texts.main, err) < 0 || setup_new(cr, p, &cr->setup, err) < 0 ||
	    take_internet(c, rec->isolation, p->internet, err) < 0 ||
	    take_idempotency(cr, a, p, err) < 0)
		return err ? -av_err_errno(err->kind) : -EINVAL;
	av_id_make(rec->id, AV_ID_SANDBOX);
	memcpy(rec->key_id, a->key_id, AV_ID_SIZE);
	memcpy(cr->actor_id, control_actor_id(a), AV_ID_SIZE);
	sandbox_set_state(rec, SANDBOX_STARTING);
	rec->created_ms = rec->updated_ms = rec->last_active_ms = created_ms(c);
	rec->created_boot_ns = rec->last_active_boot_ns = control_boot_ns(c);
	memcpy(rec->evidence.boot_id, node_caps(c->node)->boot_id, sizeof(rec->evidence.boot_id));
	sandbox_texts_point(rec, &cr->texts);
	if (cr->texts.main)
		main_set_state(&rec->main, MAIN_STARTING);
	return 0;
}

/* ---- for the driver and the agent ---- */

int sandbox_agent_envs(const struct control *c, const struct store_sandbox *rec, char **ret_envs)
{
	const struct {
		const char *name, *value;
	} own[] = {
	    {"AVIARY_SANDBOX", "true"},
	    {"AVIARY_SANDBOX_ID", rec->id},
	    {"AVIARY_TEMPLATE_ID", rec->template_name},
	    {"WRENN_SANDBOX", "true"},
	    {"WRENN_SANDBOX_ID", rec->id},
	    {"WRENN_TEMPLATE_ID", rec->template_name},
	};
	AV_CLEANUP(av_json_decrefp) json_t *envs = template_envs(c, rec->template_id);
	AV_CLEANUP(av_json_decrefp) json_t *users = NULL;

	for (size_t i = 0; envs && i < AV_ARRAY_LEN(own); i++)
		if (json_object_set_new(envs, own[i].name, json_string(own[i].value)) < 0)
			return -ENOMEM;
	users = av_json_parse_object(av_str_c(rec->envs_json ? rec->envs_json : "{}"), NULL);
	if (!envs || (users && json_object_update(envs, users) < 0))
		return -ENOMEM;
	*ret_envs = json_dumps(envs, JSON_COMPACT);
	return *ret_envs ? 0 : -ENOMEM;
}

/* Every byte is defined: the pool compares them. */
void create_spec_of(
    const struct control *c, const struct store_sandbox *rec, struct driver_spec *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->id, rec->id, sizeof(ret->id));
	memcpy(ret->template_id, rec->template_id,
	    strnlen(rec->template_id, sizeof(ret->template_id) - 1));
	ret->memory_bytes = (uint64_t)rec->memory_bytes;
	ret->cpu_milli = (uint32_t)rec->cpu_milli;
	ret->pids_max = (uint32_t)rec->pids_max;
	ret->disk_bytes = (uint64_t)rec->disk_bytes;
	ret->sudo = rec->sudo;
	ret->internet = rec->internet;
	template_take_seal(c, rec, ret);
	isolation_take_spec(c, rec, ret);
}

int create_default_spec(struct control *c, struct driver_spec *ret)
{
	const struct sandbox_params none = {0};
	struct store_sandbox rec = {0};
	const struct template *t = NULL;
	struct av_err err;

	if (take_template(c, &none, &rec, &t, &err) < 0 || take_limits(c, &none, t, &rec, &err) < 0)
		return -EINVAL;
	create_spec_of(c, &rec, ret);
	return 0;
}
