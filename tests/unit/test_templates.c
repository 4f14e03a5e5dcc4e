/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_templates.c - whose templates are whose, who uses them, and when they go (T48)
 */
#include "template_world.h"

#include "base/banned.h"

static struct seen look(struct world *w, const char *name)
{
	struct seen s = {0};

	control_template_get(w->control, &w->actor, name, on_template, &s);
	return s;
}

static size_t count(struct world *w)
{
	struct seen s = {0};

	control_template_each(w->control, &w->actor, "snapshot", on_template, &s);
	return s.n;
}

static struct answer remove_template(struct world *w, const char *name)
{
	struct answer a = {0};
	struct av_err err;

	if (control_template_delete(w->control, &w->actor, name, on_done, &a, NULL, &err) < 0)
		take_err(&a, &err);
	else
		(void)run_until(w, &a.done);
	return a;
}

static void test_teams(struct world *w)
{
	const struct snapshot_params p = {.name = "mine"};
	struct control_actor mine = w->actor, other = w->actor;
	struct answer a = create(w, &(struct sandbox_params){0}), b;
	struct seen s = snapshot(w, a.id, &p);

	is_int(s.kind, AV_ERR_NONE, "a snapshot");
	is_int(get(w, a.id).state, SANDBOX_PAUSED, "its source is paused");
	is_int((long long)count(w), 1, "its team sees it");
	av_id_make(other.team_id, AV_ID_TEAM);
	av_id_make(other.user_id, AV_ID_USER);
	w->actor = other;
	is_int((long long)count(w), 0, "another team does not");
	is_int(look(w, "mine").kind, AV_ERR_NOT_FOUND, "nor by its name");
	is_int(look(w, s.id).kind, AV_ERR_NOT_FOUND, "nor by its id");
	is_int(create(w, &(struct sandbox_params){.template_name = "mine"}).kind, AV_ERR_NOT_FOUND,
	    "nor can it make a sandbox of it");
	is_int(create(w, &(struct sandbox_params){.template_name = s.id}).kind, AV_ERR_NOT_FOUND,
	    "nor by its id");
	is_int(remove_template(w, "mine").kind, AV_ERR_NOT_FOUND, "nor delete it");
	is_int(snapshot(w, a.id, &p).kind, AV_ERR_NOT_FOUND, "nor take the other's sandbox");
	b = create(w, &(struct sandbox_params){0});
	is_int(snapshot(w, b.id, &p).kind, AV_ERR_NONE, "but have the same name for its own");
	s = snapshot(w, b.id, &(struct snapshot_params){.name = "all", .platform = true});
	is_int(s.kind, AV_ERR_FORBIDDEN, "only an administrator makes one for all teams");
	w->actor = mine;
	s = snapshot(w, a.id, &(struct snapshot_params){.name = "all", .platform = true});
	ok(s.kind == AV_ERR_NONE && s.platform, "who is one does: %s", s.message);
	w->actor = other;
	ok(look(w, "all").platform, "every team sees that");
	is_int(remove_template(w, "all").kind, AV_ERR_FORBIDDEN, "and cannot delete it");
	is_int(snapshot(w, b.id, &(struct snapshot_params){.name = "all", .overwrite = true}).kind,
	    AV_ERR_CONFLICT, "nor put its own over it");
	(void)delete (w, b.id);
	is_int(remove_template(w, "mine").kind, AV_ERR_NONE, "its own goes");
	w->actor = mine;
	is_str(look(w, "mine").name, "mine", "the first team's stays");
	(void)delete (w, a.id);
	(void)remove_template(w, "mine");
	(void)remove_template(w, "all");
	run_for(w, 50);
	is_int((long long)on_disk(w), 0, "nothing is left on the disk");
}

static void test_seal_and_use(struct world *w)
{
	struct answer a = create(w, &(struct sandbox_params){0}), b;
	struct seen s = snapshot(w, a.id, &(struct snapshot_params){.name = "t"}), again;

	b = create(w, &(struct sandbox_params){.template_name = "t"});
	is_str(w->machine->last_spec.template_id, s.id, "the driver is asked for that template");
	ok(w->machine->last_spec.template_seal[0] == 1 &&
	        memcmp(w->machine->last_spec.template_seal + 1, s.id, 8) == 0,
	    "with the seal that it answered");
	is_int((long long)look(w, "t").in_use, 1, "it is in use");
	again = snapshot(w, b.id, &(struct snapshot_params){.name = "t", .overwrite = true});
	ok(again.kind == AV_ERR_NONE && strcmp(again.id, s.id) != 0, "overwritten");
	is_int((long long)on_disk(w), 2, "the old one is under the new one");
	is_int(remove_template(w, "t").kind, AV_ERR_NONE, "deleted");
	is_int(remove_template(w, "t").kind, AV_ERR_NOT_FOUND, "it has no name any more");
	(void)delete (w, a.id);
	run_for(w, 50);
	is_int(
	    (long long)on_disk(w), 1, "the upper one is gone, a sandbox stands on the lower one");
	(void)delete (w, b.id);
	run_for(w, 50);
	is_int((long long)on_disk(w), 0, "then that goes too");
	w->machine->fail_snapshot = AV_ERR_NO_SPACE;
	a = create(w, &(struct sandbox_params){0});
	s = snapshot(w, a.id, &(struct snapshot_params){.name = "t"});
	is_int(s.kind, AV_ERR_NO_SPACE, "no space");
	is_int(look(w, "t").kind, AV_ERR_NOT_FOUND, "nothing is there then");
	w->machine->fail_snapshot = AV_ERR_NONE;
	is_int(snapshot(w, a.id, &(struct snapshot_params){.name = "t"}).kind, AV_ERR_NONE,
	    "the name is free");
	(void)delete (w, a.id);
}

static void test_restart(struct fake_machine *m, const char *secret)
{
	struct world w;

	memcpy(fake_template(m, ""), "tp0000000000000000000000000", AV_ID_SIZE);
	world_open(&w, m, NULL);
	(void)control_key_verify(w.control, av_str_c(secret), &w.actor, NULL);
	run_for(&w, 50);
	is_str(look(&w, "t").name, "t", "it is there after a restart");
	is_int((long long)on_disk(&w), 1, "what has no record is removed");
	is_int(remove_template(&w, "t").kind, AV_ERR_NONE, "deleted");
	run_for(&w, 50);
	is_int((long long)on_disk(&w), 0, "and gone");
	world_close(&w, true);
}

int main(void)
{
	struct fake_machine m;
	struct world w;
	char secret[64];

	if (!mkdtemp(dir) || av_path_printf(db, sizeof(db), "%s/aviary.db", dir) < 0)
		return 1;
	fake_machine_init(&m, "this-boot");
	world_open(&w, &m, NULL);
	world_first(&w);
	(void)snprintf(secret, sizeof(secret), "%s", w.secret);
	test_teams(&w);
	test_seal_and_use(&w);
	world_close(&w, true);
	test_restart(&m, secret);
	fake_machine_clear(&m);
	(void)unlink(db);
	(void)rmdir(dir);
	return tap_done();
}
