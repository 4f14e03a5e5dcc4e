/* SPDX-License-Identifier: Apache-2.0 */
/*
 * track.c - the registries of sandboxes that are to end with the program (see track.h)
 *
 * Everything that changes in a registry is told to its watchdog before the request that it is about
 * is sent: whatever happens to the program, the watchdog knows at least as much.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/tracker.h"

#include "base/banned.h"

#define BODY_MAX ((size_t)1 << 20) /* a create that is larger is tracked when it has an id */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void avc_track_lock(void)
{
	pthread_mutex_lock(&lock);
}

void avc_track_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

/* ---- registries ---- */

struct avc_tracker *avc_tracker_new(void)
{
	struct avc_tracker *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	av_list_init(&t->link);
	av_list_init(&t->entries);
	t->dog_fd = -1;
	return t;
}

static void entry_unref(struct avc_tracked *e)
{
	if (!e || atomic_fetch_sub(&e->refs, 1) > 1)
		return;
	free(e->body);
	free(e);
}

/* Out of its registry. */
static void leave(struct avc_tracked *e)
{
	av_list_remove(&e->link);
	e->in->n--;
	e->in = NULL;
	entry_unref(e);
}

/* The message is stolen. */
static void tell(struct avc_tracker *t, json_t *message)
{
	if (t->dog_fd < 0 || t->dog_lost)
		json_decref(message);
	else
		t->dog_lost = !avc_watchdog_tell(t->dog_fd, message);
}

void avc_tracker_forget(struct avc_tracked *e)
{
	if (!e->in)
		return;
	tell(e->in, json_pack("{s:s,s:I}", "op", "gone", "n", (json_int_t)e->number));
	leave(e);
}

void avc_tracker_free(struct avc_tracker *t)
{
	struct avc_tracked *e;

	if (t->dog_fd >= 0) {
		avc_watchdog_dismiss(t->dog_fd);
		close(t->dog_fd);
	}
	while ((e = AV_LIST_FIRST(&t->entries, struct avc_tracked, link)))
		leave(e);
	av_list_remove(&t->link);
	avc_settings_free(t->settings);
	free(t);
}

static json_t *describe(const struct avc_tracked *e)
{
	if (e->id[0])
		return json_pack("{s:s}", "id", e->id);
	return json_pack("{s:s,s:s}", "key", e->key, "body", e->body ? e->body : "");
}

json_t *avc_tracker_list(const struct avc_tracker *t)
{
	json_t *list = json_array();
	const struct avc_tracked *e;

	AV_LIST_FOREACH(e, &t->entries, struct avc_tracked, link)
	{
		if (json_array_append_new(list, describe(e)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

/* ---- entries ---- */

/* The watchdog learns of other credentials before what needs them. */
static void tell_settings(struct avc_tracker *t, const aviary_client *c)
{
	json_t *now = avc_settings_of(c);

	if (!now || json_equal(now, t->settings)) {
		avc_settings_free(now);
		return;
	}
	avc_settings_free(t->settings);
	t->settings = now;
	tell(t, json_pack("{s:s,s:O}", "op", "settings", "settings", now));
}

static json_t *message_of(const struct avc_tracked *e)
{
	json_t *m = describe(e);

	if (m && json_object_set_new(m, "op", json_string("add")) == 0 &&
	    json_object_set_new(m, "n", json_integer((json_int_t)e->number)) == 0)
		return m;
	json_decref(m);
	return NULL;
}

static void enter(struct avc_tracker *t, const aviary_client *c, struct avc_tracked *e)
{
	e->in = t;
	e->number = t->next_number++;
	av_list_append(&t->entries, &e->link);
	t->n++;
	tell_settings(t, c);
	if (t->dog_fd >= 0)
		tell(t, message_of(e));
}

static struct avc_tracked *entry_new(void)
{
	struct avc_tracked *e = calloc(1, sizeof(*e));

	if (e) {
		atomic_init(&e->refs, 2);
		av_list_init(&e->link);
	}
	return e;
}

static int add(aviary_client *c, struct avc_tracked *e, struct avc_tracked **ret)
{
	avc_track_lock();
	enter(c->tracker, c, e);
	avc_track_unlock();
	*ret = e;
	return 0;
}

int avc_track_create(
    aviary_client *c, const char *key, const json_t *create, struct avc_tracked **ret)
{
	struct avc_tracked *e;

	*ret = NULL;
	if (!c->tracker)
		return 0;
	e = entry_new();
	if (e && av_str_copy(e->key, sizeof(e->key), av_str_c(key)) == 0)
		e->body = avc_json_text(create);
	if (!e || !e->body) {
		free(e);
		return AVIARY_E_NO_MEMORY;
	}
	if (strlen(e->body) > BODY_MAX)
		e->body[0] = '\0';
	return add(c, e, ret);
}

int avc_track_adopt(aviary_client *c, const char *id, struct avc_tracked **ret)
{
	struct avc_tracked *e;

	*ret = NULL;
	if (!c->tracker)
		return 0;
	e = entry_new();
	if (!e)
		return AVIARY_E_NO_MEMORY;
	memcpy(e->id, id, strlen(id) + 1);
	return add(c, e, ret);
}

void avc_track_born(struct avc_tracked *e, const char *id)
{
	if (!e)
		return;
	avc_track_lock();
	memcpy(e->id, id, strlen(id) + 1);
	free(AV_TAKE_PTR(e->body));
	if (e->in)
		tell(e->in, json_pack("{s:s,s:I,s:s}", "op", "born", "n", (json_int_t)e->number,
		                "id", e->id));
	avc_track_unlock();
}

void avc_track_gone(struct avc_tracked *e)
{
	if (!e)
		return;
	avc_track_lock();
	avc_tracker_forget(e);
	avc_track_unlock();
}

void avc_track_unref(struct avc_tracked *e)
{
	entry_unref(e);
}

void avc_track_client_gone(aviary_client *c)
{
	avc_track_lock();
	c->tracker = NULL;
	avc_track_unlock();
}
