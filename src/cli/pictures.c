/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pictures.c - results of code that are no text: in the terminal where it can, else as files
 */
#include "cli/pictures.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/codec.h"
#include "base/fd.h"
#include "base/path.h"

#include "base/banned.h"

#define PICTURE_MAX (64 * AV_MIB)
#define KITTY_CHUNK 4096

/* The first that there is counts. Terminals show those that they can; the others become files. */
static const struct kind {
	const char *type, *suffix;
	bool in_kitty, in_iterm;
} kinds[] = {
    {"image/png", "png", true, true},
    {"image/jpeg", "jpg", false, true},
    {"image/svg+xml", "svg", false, false},
    {"application/pdf", "pdf", false, false},
};

static bool is(const char *name, const char *value)
{
	const char *v = getenv(name);

	return v && (value ? strcmp(v, value) == 0 : v[0] != '\0');
}

void pictures_init(struct pictures *p, const struct cli *cli, const char *dir, bool none)
{
	*p = (struct pictures){.way = PICTURES_FILES};
	if (none)
		p->way = PICTURES_NONE;
	else if (dir)
		snprintf(p->dir, sizeof(p->dir), "%s", dir);
	else if (!cli->out_is_tty || is("TMUX", NULL) || is("STY", NULL))
		return; /* multiplexers pass such pictures on only when told how */
	else if (is("KITTY_WINDOW_ID", NULL) || is("TERM", "xterm-kitty") ||
	         is("TERM", "xterm-ghostty") || is("TERM_PROGRAM", "ghostty") ||
	         is("TERM_PROGRAM", "WezTerm"))
		p->way = PICTURES_KITTY;
	else if (is("TERM_PROGRAM", "iTerm.app") || is("LC_TERMINAL", "iTerm2"))
		p->way = PICTURES_ITERM;
}

static void show_in_kitty(struct av_str base64)
{
	bool first = true;

	while (base64.n > 0 || first) {
		size_t n = AV_MIN(base64.n, (size_t)KITTY_CHUNK);

		printf("\033_G%sm=%d;%.*s\033\\", first ? "f=100,a=T," : "", base64.n > n, (int)n,
		    base64.p);
		base64.p += n;
		base64.n -= n;
		first = false;
	}
	putchar('\n');
}

static void show_in_iterm(struct av_str base64, size_t size)
{
	printf("\033]1337;File=inline=1;size=%zu:%.*s\a\n", size, AV_STR_ARG(base64));
}

static int make_dir(struct pictures *p, struct av_err *err)
{
	const char *tmp = getenv("TMPDIR");

	if (p->dir[0])
		return mkdir(p->dir, 0777) < 0 && errno != EEXIST
		           ? av_err_sys(err, AV_ERR_INVALID, errno, "%s", p->dir)
		           : 0;
	if (av_path_printf(p->dir, sizeof(p->dir), "%s/aviary-code-XXXXXX",
	        tmp && tmp[0] ? tmp : "/tmp") < 0 ||
	    !mkdtemp(p->dir)) {
		p->dir[0] = '\0';
		return av_err_sys(err, AV_ERR_INVALID, errno, "a directory for pictures");
	}
	return 0;
}

/* As DIR/N.suffix, the first that is free. */
static int write_file(
    struct pictures *p, const struct kind *kind, struct av_str data, struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = -1;
	char path[512];
	int r;

	if (make_dir(p, err) < 0)
		return -EINVAL;
	do {
		r = av_path_printf(path, sizeof(path), "%s/%u.%s", p->dir, ++p->n, kind->suffix);
		fd = r < 0 ? -1
		           : open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	} while (r == 0 && fd < 0 && errno == EEXIST && p->n < 100000);
	r = r < 0 ? r : fd < 0 ? -errno : av_write_full(fd, data.p, data.n);
	if (r < 0)
		return av_err_sys(err, AV_ERR_INVALID, r, "%s", path);
	printf("[%s: %s]\n", kind->type, path);
	return 0;
}

static int show(struct pictures *p, const struct kind *kind, struct av_str data, struct av_err *err)
{
	AV_CLEANUP(av_buf_clear) struct av_buf base64 = AV_BUF_INIT(AV_BASE64_LEN(PICTURE_MAX));
	int r;

	if (!(p->way == PICTURES_KITTY && kind->in_kitty) &&
	    !(p->way == PICTURES_ITERM && kind->in_iterm))
		return write_file(p, kind, data, err);
	r = av_base64_encode(&base64, data.p, data.n);
	if (r < 0)
		return av_err_sys(err, AV_ERR_NO_MEMORY, r, "the picture");
	if (p->way == PICTURES_KITTY)
		show_in_kitty(av_buf_str(&base64));
	else
		show_in_iterm(av_buf_str(&base64), data.n);
	return 0;
}

int pictures_show(struct pictures *p, const aviary_code_value *value, struct av_err *err)
{
	if (p->way == PICTURES_NONE)
		return 0;
	for (size_t i = 0; i < AV_ARRAY_LEN(kinds); i++) {
		const aviary_code_item *item = aviary_code_find(value, kinds[i].type);

		if (item && item->size > 0) {
			int r = show(p, &kinds[i], av_str_n(item->data, item->size), err);
			return r < 0 ? r : 1;
		}
	}
	return 0;
}
