/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbs.c - commands whose first operand says what to do; quotas as they take and show them
 */
#include "cli/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/num.h"
#include "cli/args.h"
#include "cli/command.h"

#include "base/banned.h"

int verbs_run(struct cli *cli, const struct args *args)
{
	AV_CLEANUP(av_buf_clear) struct av_buf names = AV_BUF_INIT(400);
	const char *verb = args->operands[0];
	size_t operands = args->n_operands - 1;

	for (const struct verb *v = args->command->verbs; v->name; v++) {
		(void)av_buf_printf(&names, "%s%s",
		    v == args->command->verbs ? ""
		    : v[1].name               ? ", "
		                              : " or ",
		    v->name);
		if (strcmp(v->name, verb) != 0)
			continue;
		if (operands < v->min)
			return cli_usage_error(cli, "%s: %s?", verb, v->want);
		if (operands > v->max)
			return cli_usage_error(cli, "%s: too many arguments", verb);
		int status = args->command->connects ? cli_connect(cli) : 0;
		return status ? status : v->run(cli, args);
	}
	return cli_usage_error(cli, "there is no '%s'; say %s", verb, av_buf_cstr(&names));
}

/* ---- quotas ---- */

enum kind { COUNT, MILLI, SIZE };

static const struct {
	const char *name, *field;
	enum kind kind;
} quotas[] = {
    {"sandboxes", "sandboxes", COUNT},
    {"cpus", "cpus", MILLI},
    {"memory", "memory_mb", SIZE},
    {"disk", "disk_mb", SIZE},
    {"creates", "creates_per_minute", COUNT},
};

/* A new reference; NULL: *err. */
static json_t *parse_value(enum kind kind, struct av_str text, struct av_err *err)
{
	uint64_t v = 0;

	if (av_str_eq_c(text, "none"))
		return json_null();
	if (kind == SIZE && av_parse_size(text, &v, err) < 0)
		return NULL;
	if (kind == SIZE && v >= AV_MIB && v < (UINT64_C(1) << 50))
		return json_integer((json_int_t)(v / AV_MIB));
	if (kind == MILLI && av_parse_milli(text, UINT32_MAX, &v) == 0)
		return json_real((double)v / 1000);
	if (kind == COUNT && av_parse_u64(text, 0, INT32_MAX, &v) == 0)
		return json_integer((json_int_t)v);
	(void)av_err_set(err, AV_ERR_INVALID, "'%.*s' is not %s, or none",
	    (int)AV_MIN(text.n, (size_t)40), text.p,
	    kind == SIZE    ? "a size from 1M on, such as 4G"
	    : kind == MILLI ? "a number of processors such as 2 or 0.5"
	                    : "a whole number");
	return NULL;
}

static int parse_pair(json_t *out, const char *pair, struct av_err *err)
{
	struct av_str value = av_str_c(pair), name;

	if (!av_str_cut(&value, '=', &name))
		return av_err_set(
		    err, AV_ERR_INVALID, "'%.60s' is not NAME=VALUE, such as sandboxes=10", pair);
	for (size_t i = 0; i < AV_ARRAY_LEN(quotas); i++) {
		json_t *v;

		if (!av_str_eq_c(name, quotas[i].name) && !av_str_eq_c(name, quotas[i].field))
			continue;
		v = parse_value(quotas[i].kind, value, err);
		if (!v)
			return -EINVAL;
		json_object_set_new(out, quotas[i].field, v);
		return 0;
	}
	return av_err_set(err, AV_ERR_INVALID,
	    "'%.*s' is no quota; there are sandboxes, cpus, memory, disk and creates",
	    (int)AV_MIN(name.n, (size_t)40), name.p);
}

json_t *quota_parse(const char *const *pairs, size_t n, struct av_err *err)
{
	json_t *out = json_object();

	for (size_t i = 0; i < n; i++)
		if (parse_pair(out, pairs[i], err) < 0) {
			json_decref(out);
			return NULL;
		}
	return out;
}

void quota_print(const json_t *quota, char *ret, size_t size)
{
	size_t at = 0;

	(void)snprintf(ret, size, "none");
	for (size_t i = 0; i < AV_ARRAY_LEN(quotas) && at < size; i++) {
		const json_t *v = json_object_get(quota, quotas[i].field);
		char text[24];

		if (!json_is_number(v))
			continue;
		if (quotas[i].kind == SIZE)
			(void)av_format_size((uint64_t)json_number_value(v) * AV_MIB, text);
		else
			(void)snprintf(text, sizeof(text), "%g", json_number_value(v));
		at += (size_t)snprintf(
		    ret + at, size - at, "%s%s %s", at ? ", " : "", quotas[i].name, text);
	}
}
