/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_code.c - run_code: the first in a new sandbox, and the next ones in the same kernel
 *
 * With the plain interpreter, whatever else the template has. The floor is a Python that is fed
 * over a pipe by a server that does nothing else.
 */
#include "cli/bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/avtime.h"

#include "base/banned.h"

#define CODE "{\"code\":\"1+1\",\"shell\":\"plain\"}"

static int run_once(struct bench_http *h, const char *path, struct samples *s, struct av_err *err)
{
	int64_t start = av_mono_ns();
	int r = bench_http_must(h, "POST", path, CODE, err);

	samples_add(s, (double)(av_mono_ns() - start) / (double)AV_NS_PER_MS);
	if (r >= 0 && !strstr(av_buf_cstr(&h->body), "\"text/plain\":\"2\""))
		r = av_err_set(err, AV_ERR_INTERNAL, "1+1 is not 2 in %s", path);
	return r < 0                 ? r
	       : cli_caught_signal() ? av_err_set(err, AV_ERR_CANCELED, "interrupted")
	                             : 0;
}

static int code_path(char path[static 128], const char *id)
{
	return snprintf(path, 128, "/v1/sandboxes/%s/run_code", id);
}

/* n times in a new sandbox each. */
static int first(struct bench *b, size_t n, struct samples *s, struct av_err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		char id[AV_ID_SIZE], path[128];

		r = bench_create(&b->http, "", id, err);
		if (r < 0)
			break;
		code_path(path, id);
		r = run_once(&b->http, path, s, err);
		int d = bench_delete(&b->http, id, r < 0 ? NULL : err);
		r = r < 0 ? r : d;
	}
	return r;
}

static int warm(struct bench *b, size_t n, struct samples *s, struct av_err *err)
{
	char id[AV_ID_SIZE], path[128];
	int r = bench_create(&b->http, "", id, err);

	if (r < 0)
		return r;
	code_path(path, id);
	for (size_t i = 0; r == 0 && i < n + 20; i++) {
		if (i == 20)
			s->n = 0;
		r = run_once(&b->http, path, s, err);
	}
	int d = bench_delete(&b->http, id, r < 0 ? NULL : err);
	return r < 0 ? r : d;
}

/* Both floors; false when there is none. */
static bool floors(const struct bench *b, struct samples *fresh, struct samples *kept)
{
	const char *argv[] = {b->floor_http, NULL};
	struct bench_child c;
	struct bench_http h;
	char line[256];
	int r = -ENOENT;

	if (!b->floor_http[0] || bench_child_start(&c, argv, NULL) < 0)
		return false;
	if (bench_child_line(&c, line, sizeof(line), 5000) == 0 &&
	    bench_http_open(&h, line, "", NULL) == 0) {
		r = 0;
		while (r == 0 && fresh->n < fresh->max)
			r = run_once(&h, "/code/fresh", fresh, NULL);
		while (r == 0 && kept->n < kept->max)
			r = run_once(&h, "/code", kept, NULL);
		bench_http_close(&h);
	}
	bench_child_stop(&c);
	return r == 0;
}

int bench_row_code(struct bench *b, struct av_err *err)
{
	size_t n_first = b->quick ? 10 : 50, n_warm = b->quick ? 300 : 3000;
	struct samples s_first, s_warm, f_first, f_warm;
	int r = samples_init(&s_first, n_first, err);

	r = r < 0 ? r : samples_init(&s_warm, n_warm + 20, err);
	r = r < 0 ? r : samples_init(&f_first, n_first, err);
	r = r < 0 ? r : samples_init(&f_warm, n_warm, err);
	r = r < 0 ? r : first(b, n_first, &s_first, err);
	r = r < 0 ? r : warm(b, n_warm, &s_warm, err);
	if (r == 0) {
		bool has_floor = floors(b, &f_first, &f_warm);

		bench_add_samples(b, "run_code_first", "ms", &s_first, has_floor ? &f_first : NULL);
		bench_add_samples(b, "run_code_warm", "ms", &s_warm, has_floor ? &f_warm : NULL);
	}
	samples_clear(&s_first);
	samples_clear(&s_warm);
	samples_clear(&f_first);
	samples_clear(&f_warm);
	return r;
}
