/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.c - the command line of aviary-spawn
 */
#include "spawn/options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "base/path.h"
#include "spawn/cgroup.h"
#include "base/banned.h"

enum option_kind { FLAG, PATH, NUMBER, SIZE, WORD };

enum option_id {
	OPT_WORKER,
	OPT_BEAT,
	OPT_CHECK,
	OPT_CLEANUP,
	OPT_RESTORE,
	OPT_ALL,
	OPT_STATE,
	OPT_RUN,
	OPT_DAEMON,
	OPT_AGENT,
	OPT_VM_PROGRAM,
	OPT_CREDENTIALS,
	OPT_LEND,
	OPT_DAEMON_UID,
	OPT_DAEMON_GID,
	OPT_OVERLAY,
	OPT_DISK,
	OPT_DISK_IMAGE,
	OPT_DISK_DEFAULT,
	OPT_PIDS_DEFAULT,
	OPT_CGROUP,
	OPT_INTERNET,
	OPT_ALLOW_NET,
	OPT_RESOLVER,
	OPT_NET_POOL,
	OPT_NO_SECCOMP,
	OPT_NO_CHECKSUMS,
	OPT_NO_DAEMON,
	OPT_LOG_LEVEL,
	OPT_LOG_JSON,
};

static const struct option_def {
	const char *name;
	enum option_kind kind;
	const char *help;
} option_defs[] = {
    [OPT_WORKER] = {"--worker", FLAG, NULL},
    [OPT_BEAT] = {"--beat", FLAG, NULL},
    [OPT_CHECK] = {"--check", FLAG, "           look at the options only, then end"},
    [OPT_CLEANUP] = {"--cleanup", FLAG, "         remove what a dead instance left, then end"},
    [OPT_RESTORE] = {"--restore", FLAG, "         make the state directory of a backup on stdin"},
    [OPT_ALL] = {"--all", FLAG, "             with --cleanup: the state directory too"},
    [OPT_STATE] = {"--state", PATH, "DIR        disks, templates and the database (absolute)"},
    [OPT_RUN] = {"--run", PATH, "DIR          sockets; a tmpfs is best (absolute)"},
    [OPT_DAEMON] = {"--daemon", PATH, "FILE      aviaryd; else the one beside this program"},
    [OPT_AGENT] = {"--agent", PATH, "FILE       aviary-agent; else the one beside this program"},
    [OPT_VM_PROGRAM] = {"--vm-program", PATH, "FILE  aviary-vm; else the one beside this program"},
    [OPT_CREDENTIALS] = {"--credentials", PATH, "FILE where the first start puts the admin key"},
    [OPT_LEND] = {"--lend", PATH, "FILE       twice: what aviaryd may read with our rights"},
    [OPT_DAEMON_UID] = {"--daemon-uid", NUMBER, "N     whom aviaryd runs as"},
    [OPT_DAEMON_GID] = {"--daemon-gid", NUMBER, "N"},
    [OPT_OVERLAY] = {"--overlay", WORD, "fd|names|shifted  how layers reach overlayfs"},
    [OPT_DISK] = {"--disk", WORD, "auto|quota|btrfs|loop|tmpfs|none  how disks are limited"},
    [OPT_DISK_IMAGE] = {"--disk-image", SIZE, "SIZE  of the btrfs image"},
    [OPT_DISK_DEFAULT] = {"--disk-default", SIZE, "SIZE  disk of a sandbox that names none"},
    [OPT_PIDS_DEFAULT] = {"--pids-default", NUMBER, "N   processes of a sandbox that names none"},
    [OPT_NO_CHECKSUMS] = {"--no-checksums", FLAG,
        "    for tests: believe what a template's files are"},
    [OPT_CGROUP] = {"--cgroup", WORD, "PATH      where the control groups of sandboxes are made"},
    [OPT_INTERNET] = {"--internet", WORD, "yes|no  no: no sandbox gets internet access"},
    [OPT_ALLOW_NET] = {"--allow-net", WORD, "RANGE,…  private addresses that sandboxes reach"},
    [OPT_RESOLVER] = {"--resolver", WORD, "ADDRESS,…  name servers in place of the host's"},
    [OPT_NET_POOL] = {"--net-pool", WORD, "RANGE    addresses of sandboxes, /16 to /24"},
    [OPT_NO_SECCOMP] = {"--no-seccomp", FLAG, "      for tests: load no system call filter"},
    [OPT_NO_DAEMON] = {"--no-daemon", FLAG, "       for tests: start the worker only"},
    [OPT_LOG_LEVEL] = {"--log-level", WORD, "debug|info|warn|error"},
    [OPT_LOG_JSON] = {"--log-json", FLAG, ""},
};

void spawn_options_usage(void)
{
	printf("usage: aviary-spawn --state DIR --run DIR [options] [-- options of aviaryd]\n"
	       "The privileged part of Aviary; aviaryd starts it.\n");
	for (size_t i = 0; i < AV_ARRAY_LEN(option_defs); i++)
		if (option_defs[i].help)
			printf("  %s %s\n", option_defs[i].name, option_defs[i].help);
}

static int parse_overlay(const char *s, enum spawn_overlay *ret)
{
	static const struct {
		const char *word;
		enum spawn_overlay value;
	} words[] = {
	    {"auto", 0},
	    {"fd", SPAWN_OVERLAY_FD},
	    {"names", SPAWN_OVERLAY_NAMES},
	    {"shifted", SPAWN_OVERLAY_SHIFTED},
	};
	for (size_t i = 0; i < AV_ARRAY_LEN(words); i++)
		if (!strcmp(words[i].word, s)) {
			*ret = words[i].value;
			return 0;
		}
	return -EINVAL;
}

static int set_flag(struct spawn_options *o, enum option_id id)
{
	switch (id) {
	case OPT_WORKER:
		o->worker = true;
		return 0;
	case OPT_BEAT:
		o->beat = true;
		return 0;
	case OPT_CHECK:
		o->check = true;
		return 0;
	case OPT_CLEANUP:
		o->cleanup = true;
		return 0;
	case OPT_RESTORE:
		o->restore = true;
		return 0;
	case OPT_ALL:
		o->all = true;
		return 0;
	case OPT_NO_SECCOMP:
		o->no_seccomp = true;
		return 0;
	case OPT_NO_CHECKSUMS:
		o->no_checksums = true;
		return 0;
	case OPT_NO_DAEMON:
		o->no_daemon = true;
		return 0;
	case OPT_LOG_JSON:
		o->log_json = true;
		return 0;
	default:
		return -EINVAL;
	}
}

static int set_path(struct spawn_options *o, enum option_id id, const char *value)
{
	if (!value || value[0] != '/')
		return -EINVAL;
	switch (id) {
	case OPT_STATE:
		o->state_dir = value;
		return 0;
	case OPT_RUN:
		o->run_dir = value;
		return 0;
	case OPT_DAEMON:
		o->daemon_path = value;
		return 0;
	case OPT_AGENT:
		o->agent_path = value;
		return 0;
	case OPT_VM_PROGRAM:
		o->vm_path = value;
		return 0;
	case OPT_CREDENTIALS:
		o->credentials = value;
		return 0;
	case OPT_LEND:
		if (o->lend[1])
			return -EINVAL;
		o->lend[o->lend[0] ? 1 : 0] = value;
		return 0;
	default:
		return -EINVAL;
	}
}

static int set_number(struct spawn_options *o, enum option_id id, const char *value)
{
	uint64_t n;
	/* Below 1: an unprivileged daemon must not run as root. */
	int r = av_parse_u64(av_str_c(value), 1, UINT32_MAX - 1, &n);
	if (r < 0)
		return r;
	switch (id) {
	case OPT_DAEMON_UID:
		o->daemon_uid = (uid_t)n;
		return 0;
	case OPT_DAEMON_GID:
		o->daemon_gid = (gid_t)n;
		return 0;
	case OPT_PIDS_DEFAULT:
		o->pids_default = (uint32_t)n;
		return 0;
	default:
		return -EINVAL;
	}
}

static int set_yes_no(const char *value, bool *ret)
{
	if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
		return -EINVAL;
	*ret = strcmp(value, "yes") == 0;
	return 0;
}

static int set_word(
    struct spawn_options *o, enum option_id id, const char *value, struct av_err *err)
{
	bool yes = true;
	int r;
	switch (id) {
	case OPT_OVERLAY:
		return parse_overlay(value, &o->overlay);
	case OPT_DISK:
		return disk_mode_parse(value, &o->disk);
	case OPT_DISK_IMAGE:
		return av_parse_size(av_str_c(value), &o->disk_image_bytes, NULL);
	case OPT_DISK_DEFAULT:
		return av_parse_size(av_str_c(value), &o->disk_default_bytes, NULL);
	case OPT_LOG_LEVEL:
		return av_log_level_parse(value, &o->log_level);
	case OPT_CGROUP:
		o->cgroup = value;
		return cgroup_below_valid(value) ? 0 : -EINVAL;
	case OPT_INTERNET:
		r = set_yes_no(value, &yes);
		o->net.off = !yes;
		return r;
	case OPT_ALLOW_NET:
		return net_config_allow(&o->net, value, err);
	case OPT_RESOLVER:
		return net_config_resolver(&o->net, value, err);
	case OPT_NET_POOL:
		return net_config_pool(&o->net, value, err);
	default:
		return -EINVAL;
	}
}

static int set_option(
    struct spawn_options *o, enum option_id id, const char *value, struct av_err *err)
{
	switch (option_defs[id].kind) {
	case FLAG:
		return set_flag(o, id);
	case PATH:
		return set_path(o, id, value);
	case NUMBER:
		return set_number(o, id, value);
	case SIZE:
	case WORD:
		return set_word(o, id, value, err);
	}
	return -EINVAL;
}

static int find_option(const char *name)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(option_defs); i++)
		if (!strcmp(option_defs[i].name, name))
			return (int)i;
	return -1;
}

int spawn_options_parse(struct spawn_options *o, int argc, char **argv, struct av_err *err)
{
	*o = (struct spawn_options){
	    .rootless = geteuid() != 0,
	    .daemon_uid = SPAWN_DAEMON_UID,
	    .daemon_gid = SPAWN_DAEMON_UID,
	    .disk_default_bytes = 10 * AV_GIB,
	    .pids_default = 1024,
	    .log_level = AV_LOG_INFO,
	    .own_argc = argc,
	};
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--")) {
			o->own_argc = i;
			o->daemon_args = argv + i + 1;
			break;
		}
		int id = find_option(argv[i]);
		if (id < 0)
			return av_err_set(
			    err, AV_ERR_INVALID, "unknown option %s; see --help", argv[i]);
		const char *value = NULL;
		if (option_defs[id].kind != FLAG) {
			if (i + 1 == argc)
				return av_err_set(err, AV_ERR_INVALID, "%s needs a value", argv[i]);
			value = argv[++i];
		}
		struct av_err why = {0};
		if (set_option(o, (enum option_id)id, value, &why) < 0)
			return why.message[0]
			           ? av_err_set(err, AV_ERR_INVALID, "%s: %s", option_defs[id].name,
			                 why.message)
			           : av_err_set(err, AV_ERR_INVALID,
			                 "bad value for %s: %s (form: %s %s)", option_defs[id].name,
			                 value ? value : "", option_defs[id].name,
			                 option_defs[id].help ? option_defs[id].help : "");
	}
	if (!o->state_dir || !o->run_dir)
		return av_err_set(err, AV_ERR_INVALID, "--state DIR and --run DIR are needed");
	if (o->lend[0] && !o->lend[1])
		return av_err_set(err, AV_ERR_INVALID, "--lend must be given twice, or not at all");
	if (o->rootless) {
		o->daemon_uid = geteuid();
		o->daemon_gid = getegid();
	}
	return 0;
}

int spawn_sibling_path(char *dst, size_t size, const char *program, const char *dir)
{
	char self[AV_PATH_MAX + 1];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self));
	if (n < 0)
		return -errno;
	struct av_str here = av_path_dir(av_str_n(self, (size_t)n));
	int r = av_path_printf(dst, size, "%.*s/%s", AV_STR_ARG(here), program);
	if (r == 0 && access(dst, X_OK) < 0)
		r = av_path_printf(dst, size, "%.*s/../%s/%s", AV_STR_ARG(here), dir, program);
	return r < 0 ? r : access(dst, X_OK) < 0 ? -errno : 0;
}
