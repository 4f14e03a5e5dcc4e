/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_tools.c - templates written by hand
 */
#include "tests/fault/template_tools.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/banned.h"

_Noreturn static void die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

static void make_dir(const char *path, uid_t owner)
{
	if (mkdir(path, 0755) < 0 || (geteuid() == 0 && chown(path, owner, owner) < 0))
		die(path);
}

void template_tool_begin(struct spawn_client *c, struct template_tool *t)
{
	struct spawn_request q = {.op = SPAWN_HELLO, .u.protocol = SPAWN_PROTOCOL};
	struct spawn_reply r;
	char layer[224];
	if (!spawn_client_call(c, &q, &r, NULL) || r.error)
		die("HELLO");
	*t = (struct template_tool){0};
	if (r.u.hello.isolation == SPAWN_ISOLATION_ROOT &&
	    r.u.hello.overlay == SPAWN_OVERLAY_SHIFTED)
		t->id_base = r.u.hello.uid_base + 65536;
	av_id_make(t->id, AV_ID_TEMPLATE);
	t->meta = (struct template_meta){
	    .flags = TEMPLATE_ON_HOST | (geteuid() == 0 ? 0 : (uint32_t)TEMPLATE_ROOTLESS),
	    .depth = 1,
	    .id_base = t->id_base,
	    .parent = "host"};
	memcpy(t->meta.id, t->id, sizeof(t->id));
	memcpy(t->meta.host_fingerprint, r.u.hello.host_fingerprint,
	    sizeof(t->meta.host_fingerprint) - 1);
	if (av_path_printf(t->dir, sizeof(t->dir), "%s/templates/%s", c->state, t->id) < 0 ||
	    av_path_printf(layer, sizeof(layer), "%s/layer", t->dir) < 0 ||
	    av_path_printf(t->root, sizeof(t->root), "%s/root", layer) < 0 ||
	    av_path_printf(t->usr, sizeof(t->usr), "%s/usr", layer) < 0)
		die("path");
	make_dir(t->dir, 0);
	make_dir(layer, 0);
	make_dir(t->root, t->id_base);
	make_dir(t->usr, t->id_base);
}

static void sum(const char *path, struct layer_sum *ret)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || layer_sum(fd, ret) < 0)
		die(path);
}

void template_tool_seal(struct template_tool *t)
{
	struct layer_sum root, usr;
	sum(t->root, &root);
	sum(t->usr, &usr);
	template_content(&root, &usr, t->meta.content);
	template_meta_seal(&t->meta);
	template_tool_write(t);
}

void template_tool_seal_root(struct template_tool *t)
{
	struct layer_sum root, usr = {0};
	sum(t->root, &root);
	template_content(&root, &usr, t->meta.content);
	template_meta_seal(&t->meta);
	template_tool_write(t);
}

void template_tool_write(struct template_tool *t)
{
	AV_CLEANUP(av_closep) int fd = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || (unlinkat(fd, TEMPLATE_META_NAME, 0) < 0 && errno != ENOENT) ||
	    template_meta_write(fd, &t->meta) < 0)
		die("record");
}
