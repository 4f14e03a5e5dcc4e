/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tracing.c - traces, when a collector is configured (see tracing.h)
 */
#include "daemon/tracing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

#include "base/banned.h"

#define HEADERS_MAX 8192

static void on_state(void *ctx, const char *why)
{
	(void)ctx;
	if (why)
		av_log(AV_LOG_WARN,
		    "the collector of traces takes no spans; they are kept up to a "
		    "bound, and what is more is dropped and counted",
		    "error", why, NULL);
	else
		av_log(AV_LOG_INFO, "the collector of traces takes spans again", NULL);
}

/* Keys may be in it: not for everybody to read. */
static int read_headers(const char *path, char text[static HEADERS_MAX + 1], struct av_err *err)
{
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return av_err_sys(err, AV_ERR_INVALID, errno,
		    "--otlp-headers-file: cannot read %.200s as the daemon's user (id %u)", path,
		    (unsigned int)geteuid());
	if (!S_ISREG(st.st_mode) || st.st_mode & 07)
		return av_err_set(err, AV_ERR_INVALID,
		    "--otlp-headers-file: %.200s must be a file that not everybody can read: "
		    "`chmod "
		    "o-rwx %.200s`",
		    path, path);
	n = av_read_full(fd, text, HEADERS_MAX + 1);
	if (n < 0 || n > HEADERS_MAX || memchr(text, '\0', (size_t)n))
		return av_err_set(err, AV_ERR_INVALID,
		    "--otlp-headers-file: %.200s must be text of at most %d bytes", path,
		    HEADERS_MAX);
	text[n] = '\0';
	return 0;
}

int tracing_new(struct av_loop *loop, struct av_fetch *fetch, const struct daemon_config *config,
    struct av_otlp **ret, struct av_err *err)
{
	const char *file = daemon_config_get(config, DAEMON_OPT_OTLP_HEADERS_FILE);
	const char *disabled = getenv("OTEL_SDK_DISABLED");
	char text[HEADERS_MAX + 1];
	struct av_otlp_config c = {.loop = loop,
	    .fetch = fetch,
	    .endpoint = daemon_config_get(config, DAEMON_OPT_OTLP_ENDPOINT),
	    .service = daemon_config_get(config, DAEMON_OPT_OTLP_SERVICE),
	    .version = AVIARY_VERSION,
	    .ratio = config->otlp_ratio,
	    .headers = getenv("OTEL_EXPORTER_OTLP_HEADERS"),
	    .on_state = on_state};
	int r = 0;

	*ret = NULL;
	if (!c.endpoint || (disabled && av_str_ieq(av_str_c(disabled), AV_STR("true"))))
		return 0;
	if (file) {
		r = read_headers(file, text, err);
		c.headers_lines = text;
	}
	if (r == 0)
		r = av_otlp_new(&c, ret, err);
	if (file)
		explicit_bzero(text, sizeof(text));
	return r;
}
