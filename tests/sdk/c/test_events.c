/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_events.c - following what happens
 */
#include <unistd.h>

#include "tests/sdk/c/sdk.h"

#define WAIT_MS 20000

static const aviary_news *next(aviary_events *events)
{
	const aviary_news *news = NULL;

	return aviary_events_next(events, &news, WAIT_MS) == 1 ? news : NULL;
}

static int is_about(const aviary_news *news, const char *name, const char *id)
{
	return news && news->event && strcmp(news->event->event_text, name) == 0 &&
	       strcmp(news->event->resource->id, id) == 0;
}

static void test_in_order(aviary_client *c)
{
	aviary_events_options o = AVIARY_EVENTS_OPTIONS_INIT;
	const char *const names[] = {"capsule.create", "capsule.destroy"};
	aviary_events *events;
	const aviary_news *news;
	aviary_sandbox *sb, *other;
	char id[40], last[64];
	aviary_error e;

	o.names = (aviary_strings){names, 2};
	events = aviary_client_events(c, &o);
	ok(events != NULL, "it begins");
	is_int(aviary_events_next(events, &news, 200), AVIARY_E_AGAIN, "nothing happens");
	sb = sdk_sandbox(c);
	(void)snprintf(id, sizeof(id), "%s", aviary_sandbox_id(sb));
	news = next(events);
	ok(is_about(news, "capsule.create", id), "a sandbox was made");
	ok(news && strstr(news->json, id) && news->id[0] && news->event->timestamp > 0,
	    "in JSON too, with an id and a time");
	(void)snprintf(last, sizeof(last), "%s", news ? news->id : "");
	is_int(aviary_await(aviary_sandbox_stop(sb, NULL), &e), 0, "it is stopped");
	ok(is_about(next(events), "capsule.destroy", id), "and that was told next");
	aviary_sandbox_free(sb);
	aviary_events_free(events);

	/* What happened since is told to whoever was away. */
	other = sdk_sandbox(c);
	o.last_id = last;
	events = aviary_client_events(c, &o);
	ok(is_about(next(events), "capsule.destroy", id), "it goes on behind the last one");
	ok(is_about(next(events), "capsule.create", aviary_sandbox_id(other)), "with all since");
	(void)aviary_await(aviary_sandbox_stop(other, NULL), NULL);
	aviary_sandbox_free(other);
	aviary_events_free(events);
}

struct seen {
	int n;
	aviary_events *events;
};

static void on_news(void *ctx, aviary_events *events, const aviary_news *news)
{
	struct seen *s = ctx;

	if (news->event && ++s->n == 1)
		aviary_events_free(events);
}

/* A callback may free what calls it. */
static void test_callback(aviary_client *c)
{
	aviary_sandbox *sb = sdk_sandbox(c);
	const char *ids[] = {aviary_sandbox_id(sb)};
	aviary_events_options o = AVIARY_EVENTS_OPTIONS_INIT;
	struct seen seen = {.n = 0};
	const aviary_news *news;
	aviary_events *events;

	o.sandbox_ids = (aviary_strings){ids, 1};
	events = aviary_client_events(c, &o);
	(void)aviary_events_next(events, &news, 200); /* it is connected */
	aviary_events_on_event(events, on_news, &seen);
	is_int(aviary_await(aviary_sandbox_stop(sb, NULL), NULL), 0, "its end is told");
	for (int i = 0; i < WAIT_MS / 100 && __atomic_load_n(&seen.n, __ATOMIC_SEQ_CST) == 0; i++)
		if (aviary_client_dispatch(c, 100) < 0)
			usleep(100000); /* the library's thread does it */
	is_int(seen.n, 1, "once, and not after it was freed");
	aviary_sandbox_free(sb);
}

static void test_ends(aviary_client *c)
{
	aviary_events_options o = AVIARY_EVENTS_OPTIONS_INIT;
	const char *const names[] = {"nonsense"};
	const aviary_news *news;
	aviary_events *events;

	o.names = (aviary_strings){names, 1};
	events = aviary_client_events(c, &o);
	is_int(aviary_events_next(events, &news, WAIT_MS), AVIARY_E_INVALID, "a name that is none");
	ok(strstr(aviary_op_error(aviary_events_op(events))->message, "capsule.create") != NULL,
	    "what there is is said");
	aviary_events_free(events);

	events = aviary_client_events(c, NULL);
	aviary_op_cancel(aviary_events_op(events));
	is_int(aviary_events_next(events, &news, WAIT_MS), AVIARY_E_CANCELED, "cancelled");
	aviary_events_free(events);
	aviary_events_free(NULL);
}

static void test_client_closes(void)
{
	aviary_client *c = sdk_client();
	aviary_events *events = aviary_client_events(c, NULL);
	const aviary_news *news;

	is_int(aviary_events_next(events, &news, 300), AVIARY_E_AGAIN, "it follows");
	aviary_client_free(c);
	is_int(
	    aviary_op_code(aviary_events_op(events)), AVIARY_E_CANCELED, "its client was closed");
	aviary_events_free(events);
}

int main(void)
{
	aviary_client *c = sdk_client();

	test_in_order(c);
	test_callback(c);
	test_ends(c);
	test_client_closes();
	aviary_client_free(c);
	return tap_done();
}
