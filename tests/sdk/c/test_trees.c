/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_trees.c - directory trees through libaviary: up, down, raw, and from an enemy
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/sdk/c/sdk.h"

static char base[300];

/* A path below this run's directory; four at a time. */
static const char *at(const char *name)
{
	static char paths[4][600];
	static unsigned next;
	char *p = paths[next++ % 4];

	(void)snprintf(p, sizeof(paths[0]), "%s/%s", base, name);
	return p;
}

static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int run(const char *format, ...)
{
	char command[4000];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(command, sizeof(command), format, ap);
	va_end(ap);
	return system(command);
}

static void shell(aviary_sandbox *sb, const char *script)
{
	aviary_process *p = aviary_sandbox_shell(sb, script);
	aviary_error e;
	const aviary_exec_result *r = aviary_await_process(p, &e);

	if (!r || r->exit_code != 0)
		ok(false, "%s: %s %s", script, e.message, r ? r->err : "");
	aviary_process_free(p);
}

static void count(void *ctx, const char *path)
{
	if (path[0])
		++*(int *)ctx;
}

static void test_round(aviary_sandbox *sb)
{
	aviary_file_options o = AVIARY_FILE_OPTIONS_INIT;
	aviary_tree_result *r;
	aviary_error e;
	int left_out = 0, fd;

	is_int(run("cd %s && mkdir -p up/a/b up/empty && echo one >up/a/b/one && head -c 3000000 "
	           "/dev/urandom >up/big &&"
	           " ln -s a/b/one up/link && ln -s /etc up/out && mkfifo up/pipe && chmod 0750 "
	           "up/a && chmod 0755 up/big &&"
	           " touch -d 2020-02-02 up/big && n=$(printf 'n%%.0s' $(seq 1 250)) && echo x "
	           ">up/a/$n &&"
	           " echo y >\"up/$(printf 'new\\nline')\" && printf z >\"up/$(printf '\\377')\"",
	           base),
	    0, "a tree here");
	o.on_left_out = count;
	o.on_left_out_ctx = &left_out;
	r = aviary_tree_upload_sync(sb, at("up"), "/root/deep/tree", &o, &e);
	if (!ok(r && r->left_out == 1 && left_out == 1 && r->bytes > 3000000 && r->entries >= 10,
	        "goes up"))
		diag("%s", e.message);
	aviary_tree_result_free(r);
	left_out = 0;
	r = aviary_tree_download_sync(sb, "/root/deep/tree", at("down"), &o, &e);
	if (!ok(r && r->left_out == 0 && r->entries >= 10, "comes down into a new directory"))
		diag("%s", e.message);
	aviary_tree_result_free(r);
	is_int(run("cd %s && rm up/pipe && diff -r --no-dereference up down && test \"$(stat -c "
	           "'%%a %%Y' up/a up/big)\" ="
	           " \"$(stat -c '%%a %%Y' down/a down/big)\"",
	           base),
	    0, "the same, with modes and times");
	r = aviary_tree_download_sync(sb, "/root/deep/tree", at("down"), NULL, &e);
	ok(r != NULL, "and once more over itself");
	aviary_tree_result_free(r);
	/* Raw. */
	fd = open(at("raw.tar"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	is_code(aviary_tar_download_fd(sb, "/root/deep/tree", fd, NULL), 0);
	is_int(run("tar -tf %s >%s && grep -q '^./a/b/one$' %s", at("raw.tar"), at("list"),
	           at("list")),
	    0, "a tar archive");
	(void)lseek(fd, 0, SEEK_SET);
	is_code(aviary_tar_upload_fd(sb, "/root/again", fd, NULL), 0);
	close(fd);
	shell(sb, "diff -r --no-dereference /root/deep/tree /root/again");
	/* Errors. */
	aviary_tree_result_free(aviary_tree_upload_sync(sb, at("nosuch"), "/root/x", NULL, &e));
	ok(e.code == AVIARY_E_LOCAL && strstr(e.message, "nosuch"), "no directory here: %s",
	    e.message);
	aviary_tree_result_free(aviary_tree_download_sync(sb, "/nosuch", at("never"), NULL, &e));
	is_int(e.code, AVIARY_E_FILE_NOT_FOUND, "no directory there");
	ok(access(at("never"), F_OK) < 0, "leaves none here");
	aviary_tree_result_free(
	    aviary_tree_download_sync(sb, "/etc/passwd", at("never"), NULL, &e));
	is_int(e.code, AVIARY_E_FILE_NOT_DIRECTORY, "a file is no directory");
	aviary_tree_result_free(aviary_tree_download_sync(sb, "/root", at("no/where"), NULL, &e));
	is_int(e.code, AVIARY_E_LOCAL, "nowhere to make it");
	o = (aviary_file_options)AVIARY_FILE_OPTIONS_INIT;
	o.max_bytes = 100000;
	aviary_tree_result_free(
	    aviary_tree_download_sync(sb, "/root/deep/tree", at("small"), &o, &e));
	is_int(e.code, AVIARY_E_TOO_LARGE, "more than max_bytes");
	is_int(run("! test -e %s/big || test $(stat -c %%s %s/big) = 3000000", at("small"),
	           at("small")),
	    0, "leaves no half file");
}

/* What a sandbox can really hold. */
static void test_nasty(aviary_sandbox *sb)
{
	aviary_tree_result *r;
	aviary_error e;

	is_int(run("cd %s && mkdir -p nasty outside && echo safe >outside/victim && ln -s "
	           "../outside nasty/d &&"
	           " ln -s ../outside/victim nasty/f && echo kept >nasty/kept",
	           base),
	    0, "links that lead out are here already");
	shell(sb, "mkdir -p /root/n/d2/x /root/n/f2 && cd /root/n && mkdir f && echo a >f/in && "
	          "echo b >d2/f && ln -s /etc/passwd p && "
	          "chmod 04755 d2/f && chmod 0 f2 && mkfifo q && ln -s ../../../../../.. up");
	r = aviary_tree_download_sync(sb, "/root/n", at("nasty"), NULL, &e);
	if (!ok(r != NULL, "a tree with all kinds"))
		diag("%s", e.message);
	aviary_tree_result_free(r);
	is_int(run("cd %s && test \"$(cat outside/victim)\" = safe && test -d nasty/f && ! test -L "
	           "nasty/f && test $(stat -c %%a"
	           " nasty/d2/f) = 755 && test $(stat -c %%a nasty/f2) = 700 && test -L nasty/p && "
	           "! test -e nasty/q &&"
	           " test \"$(cat nasty/kept)\" = kept",
	           base),
	    0, "stays in its directory");
	shell(sb, "rm -rf /root/n && mkdir -p /root/n/d && echo evil >/root/n/d/victim");
	aviary_tree_result_free(aviary_tree_download_sync(sb, "/root/n", at("nasty"), NULL, &e));
	is_int(run("cd %s && test \"$(cat outside/victim)\" = safe", base), 0,
	    "a directory where a link led out does not go through it");
}

/* ---- an enemy ---- */

struct entry {
	char type;
	const char *name, *link, *content;
	unsigned mode;
};

static size_t add(char *p, const struct entry *e)
{
	size_t n = e->content ? strlen(e->content) : 0;
	unsigned sum = 0;

	memset(p, 0, 512 + (n + 511) / 512 * 512);
	(void)snprintf(p, 100, "%s", e->name);
	(void)snprintf(p + 100, 8, "%07o", e->mode & 07777);
	(void)snprintf(p + 108, 8, "%07o", 0u);
	(void)snprintf(p + 116, 8, "%07o", 0u);
	(void)snprintf(p + 124, 12, "%011o", (unsigned)(n & 0xffff));
	(void)snprintf(p + 136, 12, "%011o", 1u);
	p[156] = e->type;
	(void)snprintf(p + 157, 100, "%s", e->link ? e->link : "");
	memcpy(p + 257, "ustar\00000", 8);
	memset(p + 148, ' ', 8);
	for (size_t i = 0; i < 512; i++)
		sum += (unsigned char)p[i];
	(void)snprintf(p + 148, 8, "%06o", sum & 0777777);
	if (n)
		memcpy(p + 512, e->content, n);
	return 512 + (n + 511) / 512 * 512;
}

struct enemy {
	int listener;
	pthread_mutex_t lock; /* held while an answer is made or sent */
	char body[65536];
	size_t n, announced, sends;
	bool no_length;
};

static void answer(struct enemy *en, int fd)
{
	char request[8192], head[300];
	size_t have = 0;
	ssize_t n;

	while (have < sizeof(request) - 1 &&
	       (n = read(fd, request + have, sizeof(request) - 1 - have)) > 0) {
		have += (size_t)n;
		request[have] = '\0';
		if (strstr(request, "\r\n\r\n"))
			break;
	}
	if (!strstr(request, "/files")) {
		static const char state[] =
		    "{\"id\":\"sb0000000000000000000000000\",\"status\":\"running\"}";

		(void)snprintf(head, sizeof(head),
		    "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
		    sizeof(state) - 1, state);
		n = write(fd, head, strlen(head));
		return;
	}
	pthread_mutex_lock(&en->lock);
	if (en->no_length)
		(void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
	else
		(void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
		    en->announced);
	n = write(fd, head, strlen(head));
	n = write(fd, en->body, en->sends);
	(void)n;
	pthread_mutex_unlock(&en->lock);
}

static void *serve(void *ctx)
{
	struct enemy *en = ctx;
	int fd;

	while ((fd = accept4(en->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		answer(en, fd);
		(void)shutdown(fd, SHUT_WR);
		close(fd);
	}
	return NULL;
}

static int from_enemy(
    aviary_sandbox *sb, struct enemy *en, const struct entry *entries, aviary_error *e)
{
	pthread_mutex_lock(&en->lock);
	en->n = 0;
	for (; entries->name; entries++)
		en->n += add(en->body + en->n, entries);
	memset(en->body + en->n, 0, 1024);
	en->n += 1024;
	en->announced = en->sends = en->n;
	pthread_mutex_unlock(&en->lock);
	is_int(run("rm -rf %s && mkdir %s", at("target"), at("target")), 0, "an empty directory");
	aviary_tree_result_free(aviary_tree_download_sync(sb, "/x", at("target"), NULL, e));
	return e->code;
}

static void test_enemy(aviary_client *c, aviary_sandbox *sb, struct enemy *en)
{
	char target[700];
	const struct entry bad[][4] = {
	    {{'0', "../escaped", NULL, "x", 0644}, {0}},
	    {{'0', "a/../../escaped", NULL, "x", 0644}, {0}},
	    {{'0', target, NULL, "x", 0644}, {0}},
	    {{'2', "l", "..", NULL, 0777}, {'0', "l/escaped", NULL, "x", 0644}, {0}},
	    {{'2', "l", base, NULL, 0777}, {'0', "l/escaped", NULL, "x", 0644}, {0}},
	    {{'2', "l", "..", NULL, 0777}, {'5', "l/dir", NULL, NULL, 0755}, {0}},
	    {{'1', "h", "../secret", NULL, 0644}, {0}},
	    {{'1', "h", "/etc/passwd", NULL, 0644}, {0}},
	    {{'2', "l", "..", NULL, 0777}, {'1', "h", "l/secret", NULL, 0644}, {0}},
	    {{'5', "d", NULL, NULL, 0755}, {'2', "d/l", "../..", NULL, 0777},
	        {'0', "d/l/escaped", NULL, "x", 0644}, {0}},
	};
	const struct entry kinds[] = {{'3', "null", NULL, NULL, 0666},
	    {'4', "disk", NULL, NULL, 0666}, {'6', "fifo", NULL, NULL, 0666},
	    {'0', "suid", NULL, "x", 07777}, {'5', "shut", NULL, NULL, 0},
	    {'0', "shut/in", NULL, "y", 0}, {0}};
	const struct entry links[] = {
	    {'2', "l", "../secret", NULL, 0777}, {'0', "l", NULL, "mine", 0644}, {0}};
	const struct entry two[] = {
	    {'0', "first", NULL, "1", 0644}, {'0', "second", NULL, "22", 0644}, {0}};
	aviary_error e;

	(void)snprintf(target, sizeof(target), "%s/escaped", base);
	is_int(run("echo safe >%s", at("secret")), 0, "a secret beside the directory");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int code = from_enemy(sb, en, bad[i], &e);

		ok(code == AVIARY_E_PROTOCOL, "\"%s\" is refused: %s: %s", bad[i][0].name,
		    aviary_code_name(code), e.message);
		if (!ok(access(at("escaped"), F_OK) < 0 && access(at("dir"), F_OK) < 0,
		        "and nothing is outside"))
			(void)run("rm -rf %s %s", at("escaped"), at("dir"));
	}
	is_int(from_enemy(sb, en, kinds, &e), 0, "devices and modes");
	is_int(run("cd %s && ! test -e null && ! test -e disk && ! test -e fifo && test $(stat -c "
	           "%%a suid) = 777 &&"
	           " test $(stat -c %%a shut) = 700",
	           at("target")),
	    0, "are left out, or harmless");
	is_int(from_enemy(sb, en, links, &e), 0, "a file where a link was");
	is_int(run("test $(cat %s) = safe && test $(cat %s/l) = mine && ! test -L %s/l",
	           at("secret"), at("target"), at("target")),
	    0, "is not written through it");
	/* Cut off, in three ways. */
	(void)from_enemy(sb, en, two, &e);
	en->sends = en->n - 2048 + 700;
	aviary_tree_result_free(aviary_tree_download_sync(sb, "/x", at("target2"), NULL, &e));
	is_int(e.code, AVIARY_E_BROKEN, "less than announced is an error");
	en->sends = en->announced = en->n - 2048 + 700;
	aviary_tree_result_free(aviary_tree_download_sync(sb, "/x", at("target2"), NULL, &e));
	is_int(e.code, AVIARY_E_PROTOCOL, "an archive without its end, too");
	en->no_length = true;
	en->sends = en->n;
	aviary_tree_result_free(aviary_tree_download_sync(sb, "/x", at("target2"), NULL, &e));
	is_int(e.code, AVIARY_E_BROKEN, "and an answer that says neither length nor end");
	aviary_text_free(aviary_file_read_sync(sb, "/x", NULL, &e));
	is_int(e.code, AVIARY_E_BROKEN, "of a file as well");
	(void)c;
}

static void enemies(void)
{
	struct enemy *en = calloc(1, sizeof(*en));
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	socklen_t n = sizeof(a);
	aviary_client *c;
	aviary_sandbox *sb;
	pthread_t thread;
	char url[64];

	pthread_mutex_init(&en->lock, NULL);
	en->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(en->listener, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    listen(en->listener, 8) < 0 ||
	    getsockname(en->listener, (struct sockaddr *)&a, &n) < 0 ||
	    pthread_create(&thread, NULL, serve, en) != 0) {
		ok(false, "a server");
		return;
	}
	(void)snprintf(url, sizeof(url), "http://127.0.0.1:%u", ntohs(a.sin_port));
	o.base_url = url;
	o.api_key = "av_0000000000000000000000000000000000000000";
	o.retry_budget_ms = -1;
	o.flags = getenv("AVIARY_TEST_THREADED") ? AVIARY_CLIENT_THREADED : 0;
	is_int(aviary_client_new(&c, &o), 0, "a client of an enemy");
	sb = aviary_sandbox_attach(c, "sb0000000000000000000000000");
	test_enemy(c, sb, en);
	aviary_sandbox_free(sb);
	aviary_client_free(c);
	(void)shutdown(en->listener, SHUT_RDWR);
	pthread_join(thread, NULL);
	close(en->listener);
	free(en);
}

int main(void)
{
	aviary_client *c = sdk_client();
	aviary_sandbox *sb = sdk_sandbox(c);

	(void)umask(022);
	(void)snprintf(base, sizeof(base), "%s", getenv("AVIARY_TEST_DIR"));
	test_round(sb);
	test_nasty(sb);
	sdk_remove(sb);
	aviary_client_free(c);
	enemies();
	return tap_done();
}
