/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage.c - what sandboxes use at the moment: stats and top
 */
#include "cli/usage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/avtime.h"
#include "base/json.h"
#include "base/num.h"
#include "cli/cli.h"

#include "base/banned.h"

#define ROW_MAX 4096
#define WIDE    100 /* columns from which on ids are whole */

/* ---- asking ---- */

static void give_up(struct usages *u)
{
	aviary_op_free(u->list);
	u->list = NULL;
	for (size_t i = 0; i < u->n; i++) {
		aviary_op_free(u->items[i].asking);
		u->items[i].asking = NULL;
	}
	u->n_waiting = 0;
}

int usages_ask(struct usages *u, struct cli *cli)
{
	aviary_request rq = AVIARY_REQUEST_INIT;

	give_up(u);
	rq.path = "/v1/sandboxes";
	u->list = aviary_client_request(cli->client, &rq);
	return u->list ? 0 : -ENOMEM;
}

static const struct usage *find(const struct usage *items, size_t n, const char *id)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(items[i].id, id) == 0)
			return &items[i];
	return NULL;
}

static bool is_wanted(const struct usages *u, const char *id)
{
	for (size_t i = 0; i < u->n_only; i++)
		if (strcmp(u->only[i], id) == 0)
			return true;
	return u->n_only == 0;
}

static void copy_text(char *ret, size_t size, const char *text)
{
	size_t n = strlen(text);

	if (n >= size)
		n = size - 1;
	memcpy(ret, text, n);
	ret[n] = '\0';
}

static int64_t mib(const json_t *o, const char *field)
{
	json_int_t mb = json_integer_value(json_object_get(o, field));

	return mb > 0 && mb < INT64_MAX / AV_MIB ? (int64_t)(mb * AV_MIB) : -1;
}

static void take_entry(struct usage *item, const json_t *o)
{
	const json_t *cpus = json_object_get(o, "cpus");
	const char *created = json_string_value(json_object_get(o, "created_at"));

	*item = (struct usage){.cpu_percent = -1,
	    .mem = -1,
	    .disk = -1,
	    .processes = -1,
	    .cpu_usec = -1,
	    .mem_limit = mib(o, "memory_mb"),
	    .disk_limit = mib(o, "disk_mb"),
	    .cpus = json_number_value(cpus ? cpus : json_object_get(o, "vcpus"))};
	copy_text(item->id, sizeof(item->id), cli_text(o, "id"));
	copy_text(item->name, sizeof(item->name), cli_text(json_object_get(o, "metadata"), "name"));
	copy_text(item->status, sizeof(item->status), cli_text(o, "status"));
	copy_text(item->template_name, sizeof(item->template_name), cli_text(o, "template"));
	if (!created || av_rfc3339_parse(av_str_c(created), &item->created_ms) < 0)
		item->created_ms = 0;
}

static void ask_one(struct usages *u, struct cli *cli, struct usage *item)
{
	aviary_request rq = AVIARY_REQUEST_INIT;
	char path[AV_ID_SIZE + 40];

	if (strcmp(item->status, "running") != 0 || !av_id_valid(av_str_c(item->id), AV_ID_SANDBOX))
		return;
	snprintf(path, sizeof(path), "/v1/sandboxes/%s/usage", item->id);
	rq.path = path;
	item->asking = aviary_client_request(cli->client, &rq);
	u->n_waiting++;
}

/* The list has come: from now on it is what there is; what was known before goes on to be. */
static int take_list(struct usages *u, struct cli *cli, struct av_err *err)
{
	size_t size, n = 0, i;
	const char *body = aviary_op_body(u->list, &size);
	AV_CLEANUP(av_json_decrefp) json_t *list = json_loadb(body, size, 0, NULL);
	struct usage *items;
	const json_t *o;

	if (!json_is_array(list))
		return av_err_set(err, AV_ERR_INTERNAL, "what came is no list of sandboxes");
	items = calloc(AV_MIN(json_array_size(list), (size_t)USAGE_MAX) + 1, sizeof(*items));
	if (!items)
		return av_err_sys(err, AV_ERR_NO_MEMORY, ENOMEM, "the list");
	u->n_more = 0;
	json_array_foreach (list, i, o) {
		const struct usage *before;

		if (!is_wanted(u, cli_text(o, "id")))
			continue;
		if (n == USAGE_MAX) {
			u->n_more++;
			continue;
		}
		take_entry(&items[n], o);
		before = find(u->items, u->n, items[n].id);
		if (before) {
			items[n].cpu_usec = before->cpu_usec;
			items[n].at_ms = before->at_ms;
		}
		n++;
	}
	give_up(u);
	free(u->items);
	u->items = items;
	u->n = n;
	for (i = 0; i < n; i++)
		ask_one(u, cli, &items[i]);
	return 0;
}

static int64_t number(const json_t *o, const char *field)
{
	const json_t *v = json_object_get(o, field);

	return json_is_integer(v) && json_integer_value(v) >= 0 ? json_integer_value(v) : -1;
}

static void take_use(struct usage *item)
{
	size_t size;
	const char *body = aviary_op_body(item->asking, &size);
	AV_CLEANUP(av_json_decrefp) json_t *o = json_loadb(body, size, 0, NULL);
	int64_t cpu_usec = number(o, "cpu_usec"), now = (int64_t)(av_mono_ns() / 1000000);

	item->mem = number(o, "memory_bytes");
	item->disk = number(o, "disk_used_bytes");
	item->processes = number(o, "processes");
	if (number(o, "disk_limit_bytes") > 0)
		item->disk_limit = number(o, "disk_limit_bytes");
	if (item->cpu_usec >= 0 && cpu_usec >= item->cpu_usec && now > item->at_ms)
		item->cpu_percent =
		    (double)(cpu_usec - item->cpu_usec) / 10 / (double)(now - item->at_ms);
	item->cpu_usec = cpu_usec;
	item->at_ms = now;
}

int usages_take(struct usages *u, struct cli *cli, struct av_err *err)
{
	if (u->list && aviary_op_is_done(u->list)) {
		int r = aviary_op_code(u->list);

		if (r < 0)
			r = cli_error(cli, aviary_op_error(u->list), err);
		else
			r = take_list(u, cli, err);
		if (r < 0) {
			give_up(u);
			return r;
		}
	}
	for (size_t i = 0; i < u->n && u->n_waiting > 0; i++) {
		struct usage *item = &u->items[i];

		if (!item->asking || !aviary_op_is_done(item->asking))
			continue;
		if (aviary_op_code(item->asking) == 0)
			take_use(item);
		aviary_op_free(item->asking);
		item->asking = NULL;
		u->n_waiting--;
	}
	return !u->list && u->n_waiting == 0;
}

int usages_get(struct usages *u, struct cli *cli, struct av_err *err)
{
	int r = usages_ask(u, cli);

	if (r < 0)
		return av_err_sys(err, AV_ERR_NO_MEMORY, -r, "the list");
	while ((r = usages_take(u, cli, err)) == 0) {
		aviary_op *op = u->list;

		for (size_t i = 0; !op && i < u->n; i++)
			op = u->items[i].asking;
		/* A failure of one shows when it is taken. */
		if (op && cli_wait(cli, op, err) < 0 && cli_is_interrupted())
			return -ECANCELED;
		*err = (struct av_err){0};
	}
	return r < 0 ? r : 0;
}

void usages_clear(struct usages *u)
{
	give_up(u);
	free(u->items);
	u->items = NULL;
	u->n = 0;
}

/* ---- showing ---- */

static int compare_numbers(double a, double b)
{
	return a < b ? 1 : a > b ? -1 : 0;
}

static int by_cpu(const void *a, const void *b)
{
	const struct usage *x = a, *y = b;
	return compare_numbers(x->cpu_percent, y->cpu_percent);
}

static int by_memory(const void *a, const void *b)
{
	const struct usage *x = a, *y = b;
	return compare_numbers((double)x->mem, (double)y->mem);
}

static int by_disk(const void *a, const void *b)
{
	const struct usage *x = a, *y = b;
	return compare_numbers((double)x->disk, (double)y->disk);
}

static int by_processes(const void *a, const void *b)
{
	const struct usage *x = a, *y = b;
	return compare_numbers((double)x->processes, (double)y->processes);
}

static int by_name(const void *a, const void *b)
{
	const struct usage *x = a, *y = b;
	return strcmp(x->name, y->name);
}

static int by_age(const void *a, const void *b)
{
	const struct usage *x = a, *y = b;
	return compare_numbers((double)x->created_ms, (double)y->created_ms);
}

bool usages_sort(struct usages *u, const char *by)
{
	static const struct {
		const char *name;
		int (*compare)(const void *a, const void *b);
	} orders[] = {{"cpu", by_cpu}, {"memory", by_memory}, {"disk", by_disk},
	    {"processes", by_processes}, {"name", by_name}, {"age", by_age}};

	for (size_t i = 0; i < AV_ARRAY_LEN(orders); i++)
		if (strcmp(orders[i].name, by) == 0) {
			if (u->n > 0)
				qsort(u->items, u->n, sizeof(*u->items), orders[i].compare);
			return true;
		}
	return false;
}

static json_t *number_or_null(int64_t v)
{
	return v < 0 ? json_null() : json_integer(v);
}

json_t *usages_json(const struct usages *u)
{
	json_t *all = json_array();

	for (size_t i = 0; i < u->n; i++) {
		const struct usage *x = &u->items[i];
		json_t *o = json_object();

		json_object_set_new(o, "id", json_string(x->id));
		json_object_set_new(
		    o, "name", strcmp(x->name, "-") == 0 ? json_null() : json_string(x->name));
		json_object_set_new(o, "status", json_string(x->status));
		json_object_set_new(o, "cpus", json_real(x->cpus));
		json_object_set_new(
		    o, "cpu_percent", x->cpu_percent < 0 ? json_null() : json_real(x->cpu_percent));
		json_object_set_new(o, "memory_bytes", number_or_null(x->mem));
		json_object_set_new(o, "memory_limit_bytes", number_or_null(x->mem_limit));
		json_object_set_new(o, "disk_used_bytes", number_or_null(x->disk));
		json_object_set_new(o, "disk_limit_bytes", number_or_null(x->disk_limit));
		json_object_set_new(o, "processes", number_or_null(x->processes));
		if (json_array_append_new(all, o) < 0) {
			json_decref(all);
			return NULL;
		}
	}
	return all;
}

/* "12.3M": a number of three digits at most. */
static void format_short(int64_t bytes, char ret[16])
{
	static const char units[] = "BKMGTP";
	double v = (double)bytes;
	size_t i = 0;

	for (; v >= 999.5 && i + 2 < sizeof(units); i++)
		v /= 1024;
	snprintf(ret, 16, i > 0 && v < 9.95 ? "%.1f%c" : "%.0f%c", v, units[i]);
}

static void put_share(struct av_buf *out, int64_t used, int64_t limit)
{
	char a[16] = "-", b[16] = "", both[40];

	if (used >= 0)
		format_short(used, a);
	if (used >= 0 && limit > 0)
		format_short(limit, b);
	snprintf(both, sizeof(both), "%s%s%s", a, b[0] ? "/" : "", b);
	(void)av_buf_printf(out, " %10s", both);
}

static void put_age(struct av_buf *out, int64_t created_ms)
{
	int64_t sec = created_ms > 0 ? (av_real_ms() - created_ms) / 1000 : -1;

	if (sec < 0)
		(void)av_buf_printf(out, " %6s", "-");
	else if (sec < 120)
		(void)av_buf_printf(out, " %5llds", (long long)sec);
	else if (sec < 120 * 60)
		(void)av_buf_printf(out, " %5lldm", (long long)sec / 60);
	else if (sec < 48 * 3600)
		(void)av_buf_printf(out, " %5lldh", (long long)sec / 3600);
	else
		(void)av_buf_printf(out, " %5lldd", (long long)sec / 86400);
}

/* Text of others in a column of its own: controls become '?', what is too wide is cut between
 * characters. */
static void put_text(struct av_buf *out, const char *s, size_t columns)
{
	size_t width = 0;

	for (; *s; s++) {
		size_t control = cli_control_size(s);
		bool goes_on = ((unsigned char)*s & 0xc0) == 0x80;

		if (!goes_on && width == columns)
			break;
		width += !goes_on;
		(void)av_buf_append_char(out, control ? '?' : *s);
		s += control > 1;
	}
	(void)av_buf_printf(out, "%*s", (int)(columns - width), "");
}

/* The titles, or a row: where there is no room for whole ids a beginning of them will do. */
static void put_row(const struct usage *x, size_t id, struct av_buf *row)
{
	put_text(row, x ? x->id : "ID", id);
	put_text(row, " ", 1);
	put_text(row, x ? x->name : "NAME", 12);
	put_text(row, " ", 1);
	put_text(row, x ? x->status : "STATE", 8);
	if (!x) {
		(void)av_buf_printf(row, " %6s %4s %10s %10s %5s %6s", "CPU%", "CPUS", "MEMORY",
		    "DISK", "PROCS", "AGE");
		return;
	}
	if (x->cpu_percent < 0)
		(void)av_buf_printf(row, " %6s", "-");
	else
		(void)av_buf_printf(row, " %6.1f", x->cpu_percent);
	(void)av_buf_printf(row, " %4g", x->cpus);
	put_share(row, x->mem, x->mem_limit);
	put_share(row, x->disk, x->disk_limit);
	if (x->processes < 0)
		(void)av_buf_printf(row, " %5s", "-");
	else
		(void)av_buf_printf(row, " %5lld", (long long)x->processes);
	put_age(row, x->created_ms);
}

void usage_row(const struct usage *item, size_t columns, struct av_buf *out)
{
	AV_CLEANUP(av_buf_clear) struct av_buf row = AV_BUF_INIT(ROW_MAX);
	size_t width = 0, n = 0;
	const char *s;

	put_row(item, columns < WIDE ? 10 : AV_ID_SIZE - 1, &row);
	s = av_buf_cstr(&row);
	for (; s[n]; n++) {
		width += ((unsigned char)s[n] & 0xc0) != 0x80;
		if (width > columns)
			break;
	}
	(void)av_buf_append(out, s, n);
}
