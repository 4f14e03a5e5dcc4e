/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup_child.c - a program that leaves sandboxes behind in every way there is (see cleanup.py)
 *
 * cleanup_child FLAGS HOW: installs clean-up with FLAGS, makes a sandbox, prints its id and then
 * ends as HOW says.
 */
#include <aviary/aviary.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static aviary_client *client;
static volatile sig_atomic_t handled;
static volatile pid_t sender;

static void say(const char *what)
{
	printf("%s\n", what);
	fflush(stdout);
}

static void fail(const char *what, const char *why)
{
	printf("failed %s: %s\n", what, why);
	exit(99);
}

static aviary_sandbox *make(const char *const *command, size_t n)
{
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_sandbox *sb;
	aviary_error e;

	spec.memory_mb = 64;
	spec.max_lifetime_ms = 600000;
	spec.command.items = command;
	spec.command.n = n;
	sb = aviary_sandbox_run_sync(client, &spec, &e);
	if (!sb)
		fail("run", e.message);
	say(aviary_sandbox_id(sb));
	return sb;
}

static void on_term(int sig, siginfo_t *info, void *context)
{
	(void)context;
	sender = info->si_pid;
	handled = sig;
}

static void set(int sig, void (*fn)(int))
{
	struct sigaction a;

	memset(&a, 0, sizeof(a));
	a.sa_handler = fn;
	sigaction(sig, &a, NULL);
}

static void install(unsigned flags)
{
	aviary_cleanup_options o = AVIARY_CLEANUP_OPTIONS_INIT;
	int r;

	o.flags = flags;
	o.grace_ms = 5000;
	r = aviary_cleanup_install(client, &o);
	if (r < 0)
		fail("install", aviary_client_error(client)->message);
	if (aviary_cleanup_install(client, &o) != AVIARY_E_STATE)
		fail("install", "twice");
	if ((flags & AVIARY_CLEANUP_WATCHDOG) && !aviary_cleanup_is_watched(client))
		fail("install", "not watched");
}

static void wait_for_ever(void)
{
	say("ready");
	for (;;)
		pause();
}

/* Creates that the server refuses, until the watchdog is known not to listen. */
static void babble(void)
{
	static char value[30001];
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	const aviary_pair env[] = {{"LONG", value}};

	memset(value, 'x', sizeof(value) - 1);
	spec.template_name = "none-of-this-name";
	spec.envs.items = env;
	spec.envs.n = 1;
	for (int i = 0; i < 100 && aviary_cleanup_is_watched(client); i++)
		aviary_sandbox_free(aviary_sandbox_run_sync(client, &spec, NULL));
	printf("watched %d\n", aviary_cleanup_is_watched(client));
}

/* Goes on after the first signal, and says what became of it. */
static void go_on(const char *what)
{
	char line[16];

	say("ready");
	while (fgets(line, sizeof(line), stdin) || errno == EINTR) {
		clearerr(stdin);
		if (line[0] == 'n')
			(void)make(NULL, 0);
		else if (line[0] == 'c')
			printf("count %d\n", (int)aviary_cleanup_count(client));
		else if (line[0] == 'b')
			babble();
		else if (line[0] == 'q')
			break;
		say(what);
		line[0] = '\0';
		errno = 0;
	}
}

static void handler(void)
{
	struct sigaction a;

	memset(&a, 0, sizeof(a));
	a.sa_sigaction = on_term;
	a.sa_flags = SA_SIGINFO;
	sigaction(SIGTERM, &a, NULL);
}

static void fork_and_end(int how)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		if (how == 0)
			exit(3);
		raise(how);
		_exit(4);
	}
	waitpid(pid, &status, 0);
	printf("child %d\n", WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static void create_and_die(void)
{
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	aviary_op *op;

	spec.memory_mb = 64;
	spec.max_lifetime_ms = 600000;
	op = aviary_sandbox_run(client, &spec);
	(void)aviary_op_wait(op, 2); /* it is on its way */
	raise(SIGKILL);
}

static void end(const char *how)
{
	static const char *const stubborn[] = {
	    "/bin/sh", "-c", "trap '' TERM; touch /tmp/deaf; while :; do sleep 1; done"};
	aviary_process *p;
	aviary_sandbox *sb;

	if (strcmp(how, "create") == 0)
		create_and_die();
	if (strcmp(how, "slow") == 0) {
		sb = make(stubborn, 3);
		p = aviary_sandbox_shell(sb, "until test -e /tmp/deaf; do sleep 0.05; done");
		if (aviary_op_wait(aviary_process_op(p), 60000) < 0)
			fail("shell", aviary_op_error(aviary_process_op(p))->message);
		aviary_process_free(p);
		wait_for_ever();
	}
	sb = make(NULL, 0);
	if (strcmp(how, "exit7") == 0)
		exit(7);
	else if (strcmp(how, "free") == 0) {
		aviary_sandbox_free(sb);
		aviary_client_free(client);
		exit(0);
	} else if (strcmp(how, "wait") == 0)
		wait_for_ever();
	else if (strcmp(how, "ignore") == 0)
		go_on("alive");
	else if (strcmp(how, "detach") == 0)
		aviary_sandbox_detach(sb);
	else if (strcmp(how, "remove") == 0)
		aviary_cleanup_remove(client);
	else if (strcmp(how, "crash") == 0)
		abort();
	else if (strcmp(how, "_exit") == 0)
		_exit(5);
	else if (strcmp(how, "exec") == 0)
		execl("/bin/sleep", "sleep", "600", (char *)NULL);
	else if (strcmp(how, "fork") == 0) {
		fork_and_end(0);
		fork_and_end(SIGTERM);
		go_on("alive");
		aviary_cleanup_remove(client);
	} else if (strcmp(how, "handler") == 0) {
		say("ready");
		while (!handled)
			pause();
		printf(
		    "handled %d by %s\n", (int)handled, sender == getppid() ? "parent" : "other");
		exit(9);
	}
	exit(0);
}

int main(int argc, char **argv)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;

	if (argc != 3)
		return 98;
	if (getenv("AVIARY_TEST_THREADED"))
		o.flags |= AVIARY_CLIENT_THREADED;
	if (aviary_client_new(&client, &o) < 0)
		fail("client", aviary_client_error(client)->message);
	if (strcmp(argv[2], "ignore") == 0) {
		set(SIGTERM, SIG_IGN);
		set(SIGINT, SIG_IGN);
	}
	if (strcmp(argv[2], "handler") == 0)
		handler();
	install((unsigned)strtoul(argv[1], NULL, 10));
	end(argv[2]);
}
