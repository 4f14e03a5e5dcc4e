/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event_loop_glib - a client as a source of a GLib main loop
 *
 *     cc event_loop_glib.c $(pkg-config --cflags --libs aviary glib-2.0)
 */
#include <aviary/aviary.h>
#include <glib.h>
#include <stdio.h>

struct source {
	GSource base; /* first */
	aviary_client *client;
	gpointer tag;
};

static gboolean prepare(GSource *s, gint *timeout)
{
	*timeout = aviary_client_timeout(((struct source *)s)->client);
	return *timeout == 0;
}

static gboolean check(GSource *s)
{
	struct source *src = (struct source *)s;

	return g_source_query_unix_fd(s, src->tag) != 0 || aviary_client_timeout(src->client) == 0;
}

static gboolean dispatch(GSource *s, GSourceFunc fn, gpointer data)
{
	(void)fn;
	(void)data;
	(void)aviary_client_dispatch(((struct source *)s)->client, 0);
	return G_SOURCE_CONTINUE;
}

static GSource *client_source(aviary_client *client)
{
	static GSourceFuncs funcs = {.prepare = prepare, .check = check, .dispatch = dispatch};
	struct source *s = (struct source *)g_source_new(&funcs, sizeof(*s));

	s->client = client;
	s->tag = g_source_add_unix_fd(&s->base, aviary_client_fd(client), G_IO_IN);
	return &s->base;
}

/* ---- the program ---- */

static void on_done(aviary_op *op, void *ctx)
{
	printf("%s\n", aviary_op_code(op) == 0 ? "answered" : aviary_op_error(op)->message);
	g_main_loop_quit(ctx);
}

int main(void)
{
	GMainLoop *loop = g_main_loop_new(NULL, FALSE);
	aviary_request request = AVIARY_REQUEST_INIT;
	aviary_client *client;
	GSource *source;
	aviary_op *op;
	int code;

	if (aviary_client_new(&client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(client)->message);
		return 1;
	}
	source = client_source(client);
	g_source_attach(source, NULL);
	request.path = "/v1/me";
	op = aviary_client_request(client, &request);
	aviary_op_on_done(op, on_done, loop);
	g_main_loop_run(loop);
	code = aviary_op_code(op);
	aviary_op_free(op);
	g_source_destroy(source);
	g_source_unref(source);
	g_main_loop_unref(loop);
	aviary_client_free(client);
	return code == 0 ? 0 : 1;
}
