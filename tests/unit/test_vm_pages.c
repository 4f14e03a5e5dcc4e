/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_vm_pages.c - the memory of a machine from outside, with a process of ours in place of QEMU
 *
 * It maps a file privately, as QEMU does, and changes it as it is told through a pipe. What is
 * captured is compared with what it says it has.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "lib/tap.h"
#include "vm/copy.h"
#include "vm/pages.h"
#include "vm/pages_internal.h"
#include "base/banned.h"

#define PAGE  4096
#define BYTES (24u << 20)
#define N     (BYTES / PAGE)

static char dir[] = "/tmp/aviary-test-pages-XXXXXX";
static char base[64], made[64], state[64];
static uint64_t seed = 42;

static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

/* ---- the other process ---- */

enum { FILL, ZERO, DROP, SWAP, SHARE, TWICE, QUIT };

struct order {
	int what;
	uint32_t first, pages, seed;
};

struct machine {
	pid_t pid;
	int orders, answers;
	char *expected; /* what its memory is */
};

static void fill_page(char *p, uint32_t n)
{
	for (uint32_t i = 0; i < PAGE; i += 4) {
		n = n * 1664525u + 1013904223u;
		memcpy(p + i, &n, 4);
	}
}

static void obey(char *memory, int fd, const struct order *o)
{
	char *at = memory + (size_t)o->first * PAGE;
	switch (o->what) {
	case FILL:
		for (uint32_t i = 0; i < o->pages; i++)
			fill_page(at + (size_t)i * PAGE, o->seed + i);
		break;
	case ZERO:
		memset(at, 0, (size_t)o->pages * PAGE);
		break;
	case DROP:
		if (madvise(at, (size_t)o->pages * PAGE, MADV_DONTNEED) < 0)
			_exit(9);
		break;
	case SWAP: /* does nothing where there is no swap */
		(void)madvise(at, (size_t)o->pages * PAGE, MADV_PAGEOUT);
		break;
	case SHARE: /* a part of it is mapped as no private mapping is */
		if (mmap(at, (size_t)o->pages * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd,
		        (off_t)o->first * PAGE) == MAP_FAILED)
			_exit(8);
		break;
	case TWICE:
		if (mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
			_exit(7);
		break;
	case QUIT:
		_exit(0);
	}
}

static void be_machine(int orders, int answers)
{
	struct order o;
	int fd = open(base, O_RDONLY | O_CLOEXEC);
	char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (memory == MAP_FAILED)
		_exit(10);
	while (av_read_full(orders, &o, sizeof(o)) == sizeof(o)) {
		obey(memory, fd, &o);
		if (av_write_full(answers, "x", 1) < 0)
			break;
	}
	_exit(0);
}

static void order(struct machine *m, struct order o)
{
	char c, *at = m->expected + (size_t)o.first * PAGE;
	if (av_write_full(m->orders, &o, sizeof(o)) < 0 || av_read_full(m->answers, &c, 1) != 1)
		tap_skip_all(false, "the other process is gone");
	AV_CLEANUP(av_closep) int fd = open(base, O_RDONLY | O_CLOEXEC);
	for (uint32_t i = 0; i < o.pages; i++)
		if (o.what == FILL)
			fill_page(at + (size_t)i * PAGE, o.seed + i);
		else if (o.what == ZERO)
			memset(at + (size_t)i * PAGE, 0, PAGE);
		else if (o.what == DROP && pread(fd, at + (size_t)i * PAGE, PAGE,
		                               (off_t)(o.first + i) * PAGE) != PAGE)
			abort();
}

static struct machine machine_start(void)
{
	struct machine m = {.expected = malloc(BYTES)};
	int orders[2], answers[2];
	AV_CLEANUP(av_closep) int fd = open(base, O_RDONLY | O_CLOEXEC);
	if (!m.expected || av_read_full(fd, m.expected, BYTES) != BYTES ||
	    pipe2(orders, O_CLOEXEC) < 0 || pipe2(answers, O_CLOEXEC) < 0)
		abort();
	m.pid = fork();
	if (m.pid == 0) {
		close(orders[1]);
		be_machine(orders[0], answers[1]);
	}
	close(orders[0]);
	close(answers[1]);
	m.orders = orders[1];
	m.answers = answers[0];
	order(&m, (struct order){.what = FILL});
	return m;
}

static void machine_stop(struct machine *m)
{
	(void)kill(m->pid, SIGKILL);
	(void)waitpid(m->pid, NULL, 0);
	close(m->orders);
	close(m->answers);
	free(m->expected);
}

/* A third of it is data, the rest holes. */
static void make_base(void)
{
	char page[PAGE];
	AV_CLEANUP(av_closep) int fd = open(base, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, BYTES) < 0)
		abort();
	for (uint32_t i = 0; i < N; i++) {
		if (i / 100 % 3 != 0)
			continue;
		fill_page(page, 7 * i);
		if (pwrite(fd, page, PAGE, (off_t)i * PAGE) != PAGE)
			abort();
	}
}

static bool file_is(const char *path, const char *expected)
{
	static char buf[1 << 20];
	AV_CLEANUP(av_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	for (size_t at = 0; at < BYTES; at += sizeof(buf))
		if (av_read_full(fd, buf, sizeof(buf)) != sizeof(buf) ||
		    memcmp(buf, expected + at, sizeof(buf)) != 0)
			return false;
	return true;
}

static void write_state(void)
{
	AV_CLEANUP(av_closep) int fd = open(state, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (av_write_full(fd, "device state", 12) < 0)
		abort();
}

/* What a caller does with it; between the passes the machine does `order`. */
static int capture(struct machine *m, bool ahead, const struct order *between, unsigned int n,
    struct vm_info *info, struct vm_pages_written *w, struct av_err *err)
{
	struct vm_pages *p;
	int r = vm_pages_open(m->pid, base, BYTES, &p, err);
	if (r < 0)
		return r;
	r = vm_pages_begin(p, made, ahead, err);
	for (unsigned int i = 0; r == 0 && i < n; i++)
		order(m, between[i]);
	if (r == 0)
		r = vm_pages_finish(p, info, w, err);
	if (r == 0)
		r = vm_pages_sum_file(state, &info->state_bytes, &info->state_sum, err);
	vm_pages_free(p);
	return r;
}

/* ---- tests ---- */

static struct order random_order(void)
{
	static const int kinds[] = {DROP, ZERO, ZERO, SWAP, FILL, FILL, FILL, FILL};
	uint32_t first = (uint32_t)(next() % N), kind = (uint32_t)(next() % AV_ARRAY_LEN(kinds));
	uint32_t pages = (uint32_t)(next() % (next() % 4 == 0 ? 600 : 5)) + 1;
	return (struct order){.what = kinds[kind],
	    .first = first,
	    .pages = AV_MIN(pages, N - first),
	    .seed = (uint32_t)next()};
}

static void test_capture(bool ahead)
{
	struct machine m = machine_start();
	struct order between[60];
	struct vm_pages_written w;
	struct av_err err = {0};
	for (unsigned int round = 0; round < 6; round++) {
		struct vm_info info = {0};
		for (unsigned int i = 0; i < 60; i++) {
			order(&m, random_order());
			between[i] = random_order();
		}
		int r = capture(&m, ahead, between, round * 10, &info, &w, &err);
		is_int(r, 0, "captured");
		if (r < 0)
			diag("%s", err.message);
		ok(file_is(made, m.expected),
		    "the file is the memory (%llu KiB private, %llu "
		    "written, %llu again)",
		    (unsigned long long)w.private_bytes / 1024,
		    (unsigned long long)w.written_bytes / 1024,
		    (unsigned long long)w.again_bytes / 1024);
		ok(info.pages * PAGE == w.private_bytes && w.written_bytes <= w.private_bytes &&
		        (ahead || w.again_bytes == 0),
		    "the counts fit");
		is_int(vm_pages_check(made, state, &info, &err), 0, "and the sums");
		vm_info_clear(&info);
		(void)unlink(made);
	}
	machine_stop(&m);
}

/* Zeros and memory that was given back take no place. */
static void test_sparse(void)
{
	struct machine m = machine_start();
	struct vm_pages_written w;
	struct vm_info info = {0};
	struct av_err err;
	struct stat a, b;
	order(&m, (struct order){.what = ZERO, .first = 0, .pages = N});
	is_int(capture(&m, false, NULL, 0, &info, &w, &err), 0, "all of it was zeroed");
	ok(file_is(made, m.expected), "the file is zero");
	is_int(w.private_bytes, BYTES, "all pages are private");
	is_int(w.written_bytes, 0, "none is stored");
	ok(stat(made, &b) == 0 && b.st_blocks * 512 < 1 << 20, "nor by the file system: %lld KiB",
	    (long long)b.st_blocks / 2);
	vm_info_clear(&info);
	(void)unlink(made);
	order(&m, (struct order){.what = DROP, .first = 0, .pages = N});
	is_int(capture(&m, false, NULL, 0, &info, &w, &err), 0, "all of it was given back");
	ok(file_is(made, m.expected) && w.private_bytes == 0 && info.n_blocks == 0,
	    "it is the base's again");
	ok(stat(base, &a) == 0 && stat(made, &b) == 0 && b.st_blocks <= a.st_blocks + 8,
	    "as sparse as that is");
	(void)unlink(made);
	machine_stop(&m);
}

/* Swapped pages are as private as others. */
static void test_swapped(void)
{
	struct machine m = machine_start();
	struct vm_pages_written w;
	struct vm_pages_usage u;
	struct vm_info info = {0};
	struct av_err err;
	char path[64], text[16384];
	uint64_t swapped = 0;
	order(&m, (struct order){.what = FILL, .first = 7, .pages = 2000, .seed = 3});
	order(&m, (struct order){.what = SWAP, .first = 0, .pages = N});
	(void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)m.pid);
	ssize_t n = av_read_file_at(AT_FDCWD, path, text, sizeof(text));
	if (n < 0 || pages_parse_kib(av_str_n(text, (size_t)n), "Swap", &swapped) < 0)
		swapped = 0;
	diag("%llu KiB are swapped%s", (unsigned long long)swapped / 1024,
	    swapped ? "" : ": there is no swap here");
	is_int(vm_pages_usage(m.pid, base, BYTES, &u, &err), 0, "looked at");
	is_int(u.private_bytes, 2000 * PAGE, "2,000 pages, swapped or not");
	is_int(capture(&m, false, NULL, 0, &info, &w, &err), 0, "captured");
	ok(file_is(made, m.expected) && w.private_bytes == 2000 * PAGE, "and all there");
	vm_info_clear(&info);
	(void)unlink(made);
	machine_stop(&m);
}

static void test_usage(void)
{
	struct machine m = machine_start();
	struct vm_pages_usage before, after;
	struct av_err err;
	is_int(vm_pages_usage(m.pid, base, BYTES, &before, &err), 0, "looked at");
	is_int(before.private_bytes, 0, "nothing is private");
	ok(before.overhead_bytes > 0, "%llu KiB are its own",
	    (unsigned long long)before.overhead_bytes / 1024);
	order(&m, (struct order){.what = FILL, .first = 3, .pages = 1000});
	is_int(vm_pages_usage(m.pid, base, BYTES, &after, &err), 0, "and again");
	is_int(after.private_bytes, 1000 * PAGE, "1,000 pages");
	ok(after.overhead_bytes < before.overhead_bytes + (1 << 20), "and nothing else");
	machine_stop(&m);
}

/* Both ways of asking the kernel say the same. */
static void test_ways(void)
{
	struct machine m = machine_start();
	struct pages_map map;
	struct pages_set a = {0}, b = {0};
	struct av_err err;
	for (unsigned int i = 0; i < 100; i++)
		order(&m, random_order());
	is_int(pages_map_open(m.pid, base, BYTES, &map, &err), 0, "found");
	if (pages_set_init(&a, BYTES) < 0 || pages_set_init(&b, BYTES) < 0)
		abort();
	is_int(pages_map_scan(&map, &a, &err), 0, "asked as the kernel can");
	if (map.no_scan)
		diag("no PAGEMAP_SCAN here");
	map.no_scan = true;
	is_int(pages_map_scan(&map, &b, &err), 0, "asked the old way");
	ok(pages_set_count(&a) > 0 && memcmp(a.words, b.words, a.n_words * 8) == 0,
	    "%llu pages both times", (unsigned long long)pages_set_count(&a));
	pages_set_clear(&a);
	pages_set_clear(&b);
	pages_map_clear(&map);
	machine_stop(&m);
}

static void test_damage(void)
{
	struct machine m = machine_start();
	struct vm_pages_written w;
	struct vm_info info = {0};
	struct av_err err;
	char byte;
	order(&m, (struct order){.what = FILL, .first = 1000, .pages = 300, .seed = 1});
	is_int(capture(&m, false, NULL, 0, &info, &w, &err), 0, "captured");
	AV_CLEANUP(av_closep) int fd = open(made, O_RDWR | O_CLOEXEC);
	off_t at = (off_t)1299 * PAGE + 4095;
	if (pread(fd, &byte, 1, at) != 1)
		abort();
	byte ^= 1;
	ok(pwrite(fd, &byte, 1, at) == 1 && vm_pages_check(made, state, &info, &err) == -EBADMSG,
	    "a flipped bit: %s", err.message);
	byte ^= 1;
	ok(pwrite(fd, &byte, 1, at) == 1 && vm_pages_check(made, state, &info, &err) == 0,
	    "and as it was");
	ok(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)1100 * PAGE, PAGE) <
	            0 ||
	        vm_pages_check(made, state, &info, &err) == -EBADMSG,
	    "a lost block: %s", err.message);
	ok(ftruncate(fd, BYTES - PAGE) == 0 && vm_pages_check(made, state, &info, &err) == -EBADMSG,
	    "a cut file: %s", err.message);
	ok(ftruncate(fd, BYTES) == 0 && truncate(state, 11) == 0 &&
	        vm_pages_check(made, state, &info, &err) == -EBADMSG,
	    "a cut state: %s", err.message);
	write_state();
	info.state_sum ^= 1;
	ok(vm_pages_check(made, state, &info, &err) == -EBADMSG, "another state: %s", err.message);
	(void)unlink(made);
	ok(vm_pages_check(made, state, &info, &err) < 0, "no file: %s", err.message);
	vm_info_clear(&info);
	machine_stop(&m);
}

static void refused(struct machine *m, uint64_t bytes, int error, const char *what)
{
	struct vm_pages *p = NULL;
	struct av_err err = {0};
	int r = vm_pages_open(m->pid, base, bytes, &p, &err);
	ok(r == error && !p, "%s: %s", what, err.message);
	vm_pages_free(p);
}

/* A process that has not what it should have. */
static void test_refused(void)
{
	struct machine m = machine_start();
	struct vm_pages *p;
	struct av_err err;
	refused(&m, BYTES + (1 << 20), -EINVAL, "less than the memory is mapped");
	refused(&m, BYTES - (1 << 20), -EINVAL, "more than that");
	refused(&m, 4096, -EINVAL, "no size of a memory");
	order(&m, (struct order){.what = TWICE});
	refused(&m, BYTES, -EINVAL, "a part is mapped twice");
	machine_stop(&m);
	m = machine_start();
	order(&m, (struct order){.what = SHARE, .first = 16, .pages = 1});
	refused(&m, BYTES, -EINVAL, "a part is shared");
	machine_stop(&m);
	m = machine_start();
	ok(truncate(base, BYTES + 4096) == 0, "the file has grown");
	refused(&m, BYTES, -EBADMSG, "it is another file");
	ok(truncate(base, BYTES) == 0, "and shrunk");
	is_int(vm_pages_open(m.pid, base, BYTES, &p, &err), 0, "a machine as it should be");
	is_int(vm_pages_begin(p, made, false, &err), 0, "begun");
	struct order quit = {.what = QUIT};
	siginfo_t si;
	ok(av_write_full(m.orders, &quit, sizeof(quit)) == 0 &&
	        waitid(P_PID, (id_t)m.pid, &si, WEXITED | WNOWAIT) == 0,
	    "it ends meanwhile");
	struct vm_info info = {0};
	ok(vm_pages_finish(p, &info, NULL, &err) < 0, "which is an error: %s", err.message);
	vm_pages_free(p);
	ok(access(made, F_OK) < 0 && !info.blocks, "and leaves no file");
	machine_stop(&m);
}

/* A full disk: no half file stays. The limit of a file's size stands in for it, as it needs no
 * privilege: the write fails in the same place. */
static void test_full(bool ahead)
{
	struct machine m = machine_start();
	struct vm_info info = {0};
	struct av_err err;
	order(&m, (struct order){.what = FILL, .first = N - 200, .pages = 200, .seed = 5});
	pid_t pid = fork();
	if (pid == 0) {
		struct vm_pages *p;
		struct rlimit limit = {BYTES - (100 << 10), BYTES - (100 << 10)};
		(void)signal(SIGXFSZ, SIG_IGN);
		if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
			_exit(3);
		int r = vm_pages_open(m.pid, base, BYTES, &p, &err);
		if (r == 0)
			r = vm_pages_begin(p, made, ahead, &err);
		if (r == 0)
			r = vm_pages_finish(p, &info, NULL, &err);
		vm_pages_free(p);
		_exit(r < 0 && strstr(err.message, made) && access(made, F_OK) < 0 ? 0 : 1);
	}
	int status = -1;
	(void)waitpid(pid, &status, 0);
	is_int(status, 0, "a write that fails leaves no file, and is named");
	machine_stop(&m);
}

static void test_parsers(void)
{
	struct pages_range range;
	static const struct {
		const char *line;
		int want;
	} lines[] = {
	    {"7f00-8000 rw-p 00000000 00:2a 12      /vm/m", 0},
	    {"7f0000-800000 rw-p 00000000 00:2a 12          /vm/m", 1},
	    {"7f0000-800000 rw-s 00000000 00:2a 12          /vm/m", -EPROTO},
	    {"7f0000-800000 rw-p 00000001 00:2a 12          /vm/m", -EPROTO},
	    {"800000-7f0000 rw-p 00000000 00:2a 12          /vm/m", -EPROTO},
	    {"7f0000-800000 rw-p 00000000 00:2a 12          /vm/m (deleted)", 0},
	    {"7f0000-800000 rw-p 00000000 00:2a 12          /vm/m\\012", 0},
	    {"7f0000-800000 rw-p 00000000 00:00 0 ", 0},
	    {"7f0000-800000", 0},
	    {"", 0},
	    {"zz-800000 rw-p 00000000 00:2a 12          /vm/m", -EPROTO},
	    {"0-fffffffffffffffff000 rw-p 00000000 00:2a 12 /vm/m", -EPROTO},
	};
	/* The first is not a page's multiple. */
	for (size_t i = 0; i < AV_ARRAY_LEN(lines); i++)
		is_int(pages_parse_line(av_str_c(lines[i].line), "/vm/m", &range),
		    i == 0 ? -EPROTO : lines[i].want, lines[i].line);
	struct pages_range two[] = {{1, 8192, 4096}, {1, 0, 8192}};
	is_int(pages_check_ranges(two, 2, 12288), 0, "two that cover it, in any order");
	is_int(pages_check_ranges(two, 2, 16384), -EPROTO, "less than all");
	is_int(pages_check_ranges(two, 2, 8192), -EPROTO, "more than all");
	struct pages_range huge[] = {{1, 0, 4096}, {1, 4096, UINT64_MAX - 100}};
	is_int(pages_check_ranges(huge, 2, 8192), -EPROTO, "a length that would overflow");
	is_int(pages_check_ranges(NULL, 0, 4096), -EPROTO, "none");
	ok(!pages_is_private(0), "a page that is nowhere");
	ok(pages_is_private(1ull << 63) && !pages_is_private(1ull << 63 | 1ull << 61),
	    "present: anonymous, of a file");
	ok(pages_is_private(1ull << 62) && pages_is_private(1ull << 62 | 1ull << 55 | 0x1234),
	    "swapped");
	ok(!pages_is_private(1ull << 62 | 1ull << 61), "moving, of a file");
	uint64_t n;
	struct av_str roll =
	    AV_STR("7f00-8000 ---p 00000000 00:00 0   [rollup]\nRss:  12 kB\n"
	           "Anonymous:          340 kB\nSwap:                0 kB\nX: 1 kB");
	ok(pages_parse_kib(roll, "Anonymous", &n) == 0 && n == 340 * 1024, "a number of kB");
	ok(pages_parse_kib(roll, "Swap", &n) == 0 && n == 0, "zero");
	ok(pages_parse_kib(roll, "X", &n) == 0 && n == 1024, "at the end");
	ok(pages_parse_kib(roll, "None", &n) == -EPROTO, "one that is not there");
	ok(pages_parse_kib(AV_STR("Swap: 12 MB\n"), "Swap", &n) == -EPROTO, "another unit");
}

int main(void)
{
	if (!mkdtemp(dir))
		tap_skip_all(false, "no directory");
	(void)snprintf(base, sizeof(base), "%s/base", dir);
	(void)snprintf(made, sizeof(made), "%s/made", dir);
	(void)snprintf(state, sizeof(state), "%s/state", dir);
	(void)alarm(50);
	make_base();
	write_state();
	test_parsers();
	test_capture(false);
	test_capture(true);
	test_sparse();
	test_usage();
	test_swapped();
	test_ways();
	test_damage();
	test_full(false);
	test_full(true);
	test_refused();
	(void)unlink(base);
	(void)unlink(state);
	(void)rmdir(dir);
	return tap_done();
}
