/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.c - structured log lines
 */
#include "base/log.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/avtime.h"
#include "base/buf.h"
#include "base/jsontext.h"
#include "base/num.h"
#include "base/banned.h"

#define LINE_MAX_BYTES ((size_t)256 * 1024)
#define VALUE_MAX_TEXT ((size_t)6 * AV_LOG_VALUE_MAX + 256)
#define WINDOW_NS      (60 * AV_NS_PER_S)
#define MESSAGES_MAX   128
#define KEY_DIGITS     40
#define TOKEN_MIN      40

static const char *const level_names[] = {"debug", "info", "warn", "error"};
/* syslog(3): LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERR */
static const char *const priorities[] = {"<7>", "<6>", "<4>", "<3>"};
static const unsigned int bursts[] = {0, AV_LOG_BURST_INFO, AV_LOG_BURST_WARN, AV_LOG_BURST_WARN};

/* Set once by av_log_init, read afterwards. */
static struct {
	const char *program;
	bool json, journal;
} config = {.program = "aviary"};
static atomic_int min_level = AV_LOG_INFO;

/* Lines that could not be written; told with the next one that can. */
static atomic_ulong dropped;

/* How often a message was logged lately. A table that is full shares its places. */
static struct message {
	uint64_t hash; /* 0: free */
	int64_t began_ns;
	unsigned int n;
	unsigned long left_out;
} messages[MESSAGES_MAX];
static pthread_mutex_t messages_lock = PTHREAD_MUTEX_INITIALIZER;

/* $JOURNAL_STREAM is "device:inode" of the stream that the journal gave to the service. */
static bool is_journal(void)
{
	const char *text = getenv("JOURNAL_STREAM");
	struct av_str inode = av_str_c(text ? text : ""), device;
	uint64_t dev, ino;
	struct stat st;
	return av_str_cut(&inode, ':', &device) && av_parse_u64(device, 0, UINT64_MAX, &dev) == 0 &&
	       av_parse_u64(inode, 0, UINT64_MAX, &ino) == 0 && fstat(STDERR_FILENO, &st) == 0 &&
	       st.st_dev == dev && st.st_ino == ino;
}

void av_log_init(const char *program, enum av_log_level min, bool json)
{
	config.program = program;
	config.json = json;
	config.journal = is_journal();
	av_log_set_level(min);
}

void av_log_set_level(enum av_log_level min)
{
	atomic_store(&min_level, (int)min);
}

int av_log_level_parse(const char *s, enum av_log_level *ret)
{
	for (size_t i = 0; i < AV_ARRAY_LEN(level_names); i++) {
		if (strcmp(s, level_names[i]) == 0) {
			*ret = (enum av_log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

static struct message *find_message(uint64_t hash)
{
	for (size_t i = 0; i < MESSAGES_MAX; i++) {
		struct message *m = &messages[(hash + i) % MESSAGES_MAX];
		if (m->hash == hash || m->hash == 0) {
			m->hash = hash;
			return m;
		}
	}
	return &messages[hash % MESSAGES_MAX];
}

/* Whether one more line of this message may be written. *ret_left_out: how many were not, before
 * it; *ret_last: the next ones will not be. */
static bool admit(
    enum av_log_level level, const char *message, unsigned long *ret_left_out, bool *ret_last)
{
	uint64_t hash = 14695981039346656037u + (uint64_t)level;
	int64_t now = av_mono_ns();
	bool is_admitted;
	*ret_left_out = 0;
	*ret_last = false;
	if (bursts[level] == 0)
		return true;
	for (const char *p = message; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 1099511628211u;
	pthread_mutex_lock(&messages_lock);
	struct message *m = find_message(hash ? hash : 1);
	if (m->n == 0 || now - m->began_ns >= WINDOW_NS) {
		*ret_left_out = m->left_out;
		m->began_ns = now;
		m->n = 0;
		m->left_out = 0;
	}
	is_admitted = m->n < bursts[level];
	if (is_admitted)
		*ret_last = ++m->n == bursts[level];
	else
		m->left_out++;
	pthread_mutex_unlock(&messages_lock);
	return is_admitted;
}

/* How many bytes of a secret begin here; before is the byte before, or 0. */
static size_t secret_here(struct av_str s, char before)
{
	size_t n = 0;
	if (before == '_') {
		while (n < s.n && isxdigit((unsigned char)s.p[n]))
			n++;
		if (n >= KEY_DIGITS)
			return n;
	}
	if (isalnum((unsigned char)before) || !av_str_starts(s, AV_STR("eyJ")))
		return 0;
	for (n = 3; n < s.n && (isalnum((unsigned char)s.p[n]) || memchr("-_.", s.p[n], 3)); n++)
		;
	return n >= TOKEN_MIN ? n : 0;
}

/* Appends s as part of a JSON string, without secrets. */
static void write_scrubbed(struct av_buf *text, struct av_str s)
{
	size_t done = 0;
	for (size_t i = 0; i < s.n; i++) {
		size_t n = secret_here(av_str_n(s.p + i, s.n - i), i ? s.p[i - 1] : '\0');
		if (!n)
			continue;
		av_json_write_part(text, av_str_n(s.p + done, i - done));
		av_buf_append_c(text, "(hidden)");
		i += n - 1;
		done = i + 1;
	}
	av_json_write_part(text, av_str_n(s.p + done, s.n - done));
}

/* A quoted string of printable ASCII. */
static void write_value(struct av_buf *line, const char *value)
{
	AV_CLEANUP(av_buf_clear) struct av_buf text = AV_BUF_INIT(VALUE_MAX_TEXT);
	size_t n = strnlen(value, AV_LOG_VALUE_MAX + 1);
	bool is_cut = n > AV_LOG_VALUE_MAX;
	av_buf_append_char(&text, '"');
	write_scrubbed(&text, av_str_n(value, is_cut ? (size_t)AV_LOG_VALUE_MAX : n));
	av_buf_append_c(&text, is_cut ? "..(cut)\"" : "\"");
	av_json_write_ascii(line, av_buf_str(&text));
}

static void write_field(struct av_buf *line, const char *key, const char *value)
{
	av_buf_printf(line, config.json ? ",\"%s\":" : " %s=", key);
	write_value(line, value ? value : "");
}

static void write_number(struct av_buf *line, const char *key, unsigned long n)
{
	if (n)
		av_buf_printf(line, config.json ? ",\"%s\":\"%lu\"" : " %s=\"%lu\"", key, n);
}

static void write_head(struct av_buf *line, enum av_log_level level, const char *message)
{
	char when[32];
	av_rfc3339_ms(av_real_ms(), when);
	av_buf_append_c(line, config.journal ? priorities[level] : "");
	if (config.json) {
		av_buf_printf(line,
		    "{\"time\":\"%s\",\"level\":\"%s\",\"program\":\"%s\",\"message\":", when,
		    level_names[level], config.program);
		write_value(line, message);
	} else {
		av_buf_printf(
		    line, "%s %-5s %s: %s", when, level_names[level], config.program, message);
	}
}

void av_log(enum av_log_level level, const char *message, ...)
{
	struct av_buf line = AV_BUF_INIT(LINE_MAX_BYTES);
	unsigned long left_out, lost;
	bool is_last;
	va_list ap;

	if ((int)level < atomic_load(&min_level) || !admit(level, message, &left_out, &is_last))
		return;
	write_head(&line, level, message);
	va_start(ap, message);
	for (const char *key; (key = va_arg(ap, const char *));)
		write_field(&line, key, va_arg(ap, const char *));
	va_end(ap);
	write_number(&line, "left_out", left_out);
	if (is_last)
		write_field(&line, "next", "more of these are left out for up to a minute");
	lost = atomic_exchange(&dropped, 0);
	write_number(&line, "dropped_lines", lost);
	av_buf_append_c(&line, config.json ? "}\n" : "\n");
	struct av_str text = av_buf_str(&line);
	if (av_buf_error(&line) || write(STDERR_FILENO, text.p, text.n) != (ssize_t)text.n)
		atomic_fetch_add(&dropped, lost + 1);
	av_buf_clear(&line);
}
