/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_auth.c - where a client takes its key from, and to whom it is given
 */
#include <semaphore.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/sdk/c/sdk.h"

static char dir[200], file[256];

static void write_file(const char *text)
{
	FILE *f = fopen(file, "w");

	if (!f || fputs(text, f) < 0 || fclose(f) != 0)
		exit(2);
}

/* A client that looks only into our file. */
static aviary_client *client(const char *url, int *ret_code)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_client *c = NULL;

	o.base_url = url;
	o.retry_budget_ms = -1;
	if (getenv("AVIARY_TEST_THREADED"))
		o.flags |= AVIARY_CLIENT_THREADED;
	*ret_code = aviary_client_new(&c, &o);
	return c;
}

static int get(aviary_client *c, const char *path, int anonymous, char *message, size_t size)
{
	aviary_request q = AVIARY_REQUEST_INIT;
	aviary_error e;
	int r;

	q.path = path;
	q.anonymous = anonymous;
	r = aviary_await(aviary_client_request(c, &q), &e);
	(void)snprintf(message, size, "%s", e.message);
	return r;
}

static int get_from(const char *url, const char *path, int anonymous, char *message, size_t size)
{
	int code;
	aviary_client *c = client(url, &code);
	int r = code;

	if (code == 0)
		r = get(c, path, anonymous, message, size);
	else
		(void)snprintf(message, size, "%s", aviary_client_error(c)->message);
	aviary_client_free(c);
	return r;
}

static void test_file(const char *url, const char *key)
{
	char text[1000], m[2100];

	(void)snprintf(text, sizeof(text), "{\"url\":\"%s\",\"api_key\":\"%s\"}", url, key);
	write_file(text);
	is_int(get_from(NULL, "/v1/limits", 0, m, sizeof(m)), 0, "URL and key from the file");
	is_int(get_from(url, "/v1/limits", 0, m, sizeof(m)), 0, "the key is for that URL");

	(void)snprintf(
	    text, sizeof(text), "{\"url\":\"https://127.0.0.1:1\",\"api_key\":\"%s\"}", key);
	write_file(text);
	is_int(get_from(url, "/v1/limits", 0, m, sizeof(m)), AVIARY_E_NO_CREDENTIALS,
	    "what is meant for TLS does not go out in clear");
	ok(strstr(m, file) && strstr(m, "https://127.0.0.1:1"), "and the message says why");

	write_file("{\"url\": 7}");
	is_int(get_from(NULL, "/v1/limits", 0, m, sizeof(m)), AVIARY_E_INVALID,
	    "a file that is none, for the URL");
	ok(strstr(m, file) != NULL, "is named");
	is_int(get_from(url, "/v1/limits", 0, m, sizeof(m)), AVIARY_E_INVALID, "and for the key");

	write_file("{\"api_key\": \"av_1\\r\\nX: y\"}");
	is_int(get_from(url, "/v1/limits", 0, m, sizeof(m)), AVIARY_E_INVALID,
	    "a key cannot add lines to a request");
	(void)unlink(file);
	is_int(get_from(url, "/v1/limits", 0, m, sizeof(m)), AVIARY_E_NO_CREDENTIALS, "no file");
	ok(strstr(m, "AVIARY_API_KEY") && strstr(m, "WANDB_API_KEY") && strstr(m, "netrc"),
	    "every place that was looked at is named");
	is_int(get_from(url, "/health", 1, m, sizeof(m)), 0, "anonymous requests need none");
}

static void test_options(const char *url)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	char longer[4098] = "";
	aviary_client *c;

	o.base_url = url;
	o.api_key = "two words";
	is_int(aviary_client_new(&c, &o), AVIARY_E_INVALID, "a key with a space");
	aviary_client_free(c);
	o.api_key = NULL;
	o.base_url = "gopher://x";
	is_int(aviary_client_new(&c, &o), AVIARY_E_INVALID, "a URL of another kind");
	ok(strstr(aviary_client_error(c)->message, "http://HOST:PORT") != NULL, "what is expected");
	aviary_client_free(c);
	o.base_url = "http://localhost:7878@elsewhere.example";
	is_int(aviary_client_new(&c, &o), AVIARY_E_INVALID, "a URL that only begins like ours");
	aviary_client_free(c);
	o.base_url = url;
	o.session_token = memset(longer, 'k', sizeof(longer) - 1);
	is_int(aviary_client_new(&c, &o), AVIARY_E_INVALID, "a token that is too long to be sent");
	aviary_client_free(c);
}

static void test_wandb(const char *url)
{
	char m[2100];

	setenv("WANDB_API_KEY", "secret", 1);
	unsetenv("WANDB_ENTITY_NAME");
	is_int(
	    get_from(url, "/v1/limits", 0, m, sizeof(m)), AVIARY_E_WANDB, "an entity is missing");
	setenv("WANDB_ENTITY_NAME", "me", 1);
	is_int(get_from(url, "/v1/limits", 0, m, sizeof(m)), AVIARY_E_UNAUTHORIZED,
	    "it is asked with it");
	is_int(get_from("http://192.0.2.1", "/v1/limits", 0, m, sizeof(m)), AVIARY_E_NO_CREDENTIALS,
	    "that key does not go out in clear");
	unsetenv("WANDB_API_KEY");
}

static void write_netrc(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	if (!f || fputs(text, f) < 0 || fclose(f) != 0)
		exit(2);
}

/* The source that a request finds, or the code's name. */
static const char *source(const char *url)
{
	static char text[400];
	char m[2100];
	int code;
	aviary_client *c = client(url, &code);
	int r = code < 0 ? code : get(c, "/v1/limits", 0, m, sizeof(m));

	(void)snprintf(text, sizeof(text), "%s",
	    r == 0 ? aviary_client_credentials_source(c) : aviary_code_name(r));
	aviary_client_free(c);
	return text;
}

static void test_netrc(const char *url, const char *key)
{
	static const char *const malformed[] = {"machine", "machine 127.0.0.1 password",
	    "password x machine 127.0.0.1", "macdef init\nmachine 127.0.0.1 password KEY\n",
	    "machine \"127.0.0.1", "\xff\xfe machine 127.0.0.1 login a"};
	char home[300], own[300], text[1000];

	(void)snprintf(home, sizeof(home), "%s/.netrc", dir);
	(void)snprintf(own, sizeof(own), "%s/own", dir);
	unlink(file);
	is_str(source(url), "AVIARY_E_NO_CREDENTIALS", "no netrc");
	(void)snprintf(text, sizeof(text),
	    "machine elsewhere login a password b\nmacdef init\n machine 127.0.0.1 password "
	    "wrong\n\nmachine 127.0.0.1\n\tlogin me password \"%s\"\n",
	    key);
	write_netrc(home, text);
	is_str(source(url), home, "the server's entry in ~/.netrc");
	(void)snprintf(text, sizeof(text), "default login a password %s\n", key);
	write_netrc(own, text);
	setenv("NETRC", own, 1);
	unsetenv("WANDB_ENTITY_NAME");
	is_str(source(url), own, "NETRC names another, whose default is the server's, not W&B's");
	setenv("WANDB_API_KEY", "of-wandb", 1);
	setenv("WANDB_ENTITY_NAME", "me", 1);
	is_str(source(url), "AVIARY_E_UNAUTHORIZED", "a key of W&B comes first");
	unsetenv("WANDB_API_KEY");
	(void)snprintf(text, sizeof(text),
	    "machine api.wandb.ai password x\nmachine 127.0.0.1 "
	    "password %s\n",
	    key);
	write_netrc(own, text);
	is_str(source(url), "AVIARY_E_UNAUTHORIZED", "in netrc too");
	unsetenv("WANDB_ENTITY_NAME");
	is_str(source(url), "AVIARY_E_WANDB", "with its entity only");
	setenv("AVIARY_API_KEY", key, 1);
	is_str(source(url), "AVIARY_API_KEY", "the variable before all");
	unsetenv("AVIARY_API_KEY");
	for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
		write_netrc(own, malformed[i]);
		is_str(source(url), "AVIARY_E_NO_CREDENTIALS", "malformed: nothing is made up");
	}
	setenv("NETRC", dir, 1);
	is_str(source(url), "AVIARY_E_NO_CREDENTIALS", "a directory is none");
	setenv("NETRC", "/nonexistent", 1);
	is_str(source(url), "AVIARY_E_NO_CREDENTIALS", "nor is what is not there");
	unsetenv("NETRC");
	unlink(home);
	unlink(own);
}

struct keys {
	const char *good;
	int asked, refused, fails;
};

static int give(void *ctx, int refused, aviary_credentials *ret)
{
	struct keys *k = ctx;

	k->asked++;
	k->refused += refused;
	if (k->fails)
		return AVIARY_E_FORBIDDEN;
	ret->api_key = refused ? k->good : "av_0000000000000000000000000000000000000000";
	return 0;
}

static void test_callback(const char *url, const char *key)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	struct keys k = {.good = key};
	aviary_client *c;
	char m[2100];

	setenv("AVIARY_API_KEY", "of-the-environment", 1);
	o.base_url = url;
	o.credentials = give;
	o.credentials_ctx = &k;
	is_int(aviary_client_new(&c, &o), 0, "a callback instead of all that");
	is_int(get(c, "/v1/limits", 0, m, sizeof(m)), 0, "is asked again after a refusal");
	ok(k.asked == 2 && k.refused == 1, "once");
	is_int(get(c, "/v1/limits", 0, m, sizeof(m)), 0, "what it gave is kept");
	is_int(k.asked, 2, "and it is not asked any more");
	is_str(aviary_client_base_url(c), url, "the server is the one that was named");
	aviary_client_free(c);
	k.fails = 1;
	is_int(aviary_client_new(&c, &o), 0, "one that has none");
	is_int(get(c, "/v1/limits", 0, m, sizeof(m)), AVIARY_E_FORBIDDEN, "ends with its code");
	ok(aviary_error_is(get(c, "/v1/limits", 0, m, sizeof(m)), AVIARY_GROUP_AUTH),
	    "which is of that group");
	aviary_client_free(c);
	unsetenv("AVIARY_API_KEY");
}

struct impatient {
	const char *key;
	aviary_op *op;
	sem_t begun; /* op is there */
	int on;      /* which call cancels: 1 the first, 2 the one after a refusal */
	int asked;
};

static int give_and_cancel(void *ctx, int refused, aviary_credentials *ret)
{
	struct impatient *k = ctx;

	(void)refused;
	if (++k->asked == 1)
		sem_wait(&k->begun);
	if (k->asked == k->on)
		aviary_op_cancel(k->op);
	ret->api_key = k->asked == 2 ? k->key : "av_0000000000000000000000000000000000000000";
	return 0;
}

static void test_canceled_callback(const char *url, const char *key, int on)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	struct impatient k = {.key = key, .on = on};
	aviary_request q = AVIARY_REQUEST_INIT;
	aviary_client *c;
	char m[2100];

	sem_init(&k.begun, 0, 0);
	if (getenv("AVIARY_TEST_THREADED"))
		o.flags |= AVIARY_CLIENT_THREADED;
	o.base_url = url;
	o.credentials = give_and_cancel;
	o.connect_timeout_ms = o.request_timeout_ms = o.retry_budget_ms = INT64_MAX;
	o.silence_timeout_ms = INT64_MAX;
	o.credentials_ctx = &k;
	is_int(aviary_client_new(&c, &o), 0, "a callback that cancels");
	q.path = "/v1/limits";
	q.timeout_ms = INT64_MAX;
	k.op = aviary_client_request(c, &q);
	sem_post(&k.begun);
	is_int(aviary_op_wait(k.op, -1), AVIARY_E_CANCELED, "what it was asked for");
	is_int(get(c, "/v1/limits", 0, m, sizeof(m)), 0, "the client goes on");
	q.idempotency_key = "k\r\nX-Api-Key: of-another";
	is_int(aviary_await(aviary_client_request(c, &q), NULL), AVIARY_E_INVALID,
	    "a key cannot add lines either");
	aviary_client_free(c); /* the callback has returned */
	is_int(k.asked, 2, "having asked twice");
	aviary_op_free(k.op);
	sem_destroy(&k.begun);
}

static void test_unreachable(void)
{
	char m[2100];

	is_int(get_from("http://127.0.0.1:1", "/health", 1, m, sizeof(m)), AVIARY_E_UNREACHABLE,
	    "nobody there");
}

int main(void)
{
	const char *base = getenv("AVIARY_TEST_DIR");
	char *url = strdup(getenv("AVIARY_URL")), *key = strdup(getenv("AVIARY_API_KEY"));

	unsetenv("AVIARY_URL");
	unsetenv("AVIARY_API_KEY");
	unsetenv("AVIARY_CREDENTIALS");
	(void)snprintf(dir, sizeof(dir), "%s", base ? base : ".");
	(void)snprintf(file, sizeof(file), "%s/credentials.json", dir);
	setenv("AVIARY_CONFIG_DIR", dir, 1);
	setenv("HOME", dir, 1);
	unsetenv("NETRC");
	test_file(url, key);
	test_options(url);
	test_wandb(url);
	test_netrc(url, key);
	test_callback(url, key);
	test_canceled_callback(url, key, 1);
	test_canceled_callback(url, key, 2);
	test_unreachable();
	free(url);
	free(key);
	return tap_done();
}
