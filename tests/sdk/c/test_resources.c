/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_resources.c - the namespaces of aviary/resources.h, each blocking and as an operation
 */
#include "tests/sdk/c/sdk.h"

#include <fcntl.h>
#include <math.h>
#include <time.h>
#include <unistd.h>

static aviary_error e;

/* A result of a blocking call; gives up when there is none. */
#define need(p)                                                                                    \
	do {                                                                                       \
		if (!ok((p) != NULL, "%s is there", #p)) {                                         \
			diag("%s: %s", aviary_code_name(e.code), e.message);                       \
			return;                                                                    \
		}                                                                                  \
	} while (0)

/* A call without a result. */
#define is_done(call)                                                                              \
	do {                                                                                       \
		if (!ok((call) == 0, "%s", #call))                                                 \
			diag("%s: %s", aviary_code_name(e.code), e.message);                       \
	} while (0)

/* Waits for op and takes its result with aviary_op_take_<type>. */
#define take(type, var, call)                                                                      \
	aviary_##type *var;                                                                        \
	do {                                                                                       \
		aviary_op *op_ = (call);                                                           \
		if (!ok(aviary_op_wait(op_, 60000) == 0, "%s", #call))                             \
			diag("%s", aviary_op_error(op_)->message);                                 \
		var = aviary_op_take_##type(op_);                                                  \
		ok(!aviary_op_take_##type(op_), "a result is taken once");                         \
		aviary_op_free(op_);                                                               \
	} while (0)

/* Another name in each run against the same daemon. */
static const char *named(const char *what)
{
	static char text[4][64];
	static unsigned next;
	char *t = text[next++ % 4];

	(void)snprintf(t, sizeof(text[0]), "%s-%d", what, getenv("AVIARY_TEST_THREADED") != NULL);
	return t;
}

static void test_isolations(aviary_client *c)
{
	aviary_isolations *all = aviary_isolations_list_sync(c, &e);

	need(all);
	ok(all->n_isolations >= 1 && all->isolations[0]->name == AVIARY_ISOLATION_JAIL &&
	        all->isolations[0]->available &&
	        all->isolations[0]->speed == AVIARY_ISOLATION_SPEED_NATIVE,
	    "a jail can be had, at the speed of the machine");
	aviary_isolations_free(all);
	ok(!aviary_sandboxes_fork_sync(c, "sb0000000000000000000000000", NULL, &e), "no copy");
	is_int(e.code, AVIARY_E_SANDBOX_NOT_FOUND, "of what is not there");
	ok(!aviary_sandboxes_rollback_sync(c, "sb0000000000000000000000000", "then", &e),
	    "nor a way back");
	is_int(e.code, AVIARY_E_SANDBOX_NOT_FOUND, "the same");
}

static void test_system(aviary_client *c)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_client *nobody;
	aviary_health *h;
	aviary_text *t;
	aviary_limits *l;

	h = aviary_system_health_sync(c, &e);
	need(h);
	is_str(h->status, "ok", "health");
	aviary_health_free(h);
	take(ready, r, aviary_system_ready(c));
	need(r);
	is_str(r->status, "ready", "ready");
	aviary_ready_free(r);
	t = aviary_system_metrics_sync(c, &e);
	need(t);
	ok(t->n == strlen(t->text) && strstr(t->text, "aviary_"), "metrics as text");
	aviary_text_free(t);
	take(text, doc, aviary_system_openapi(c));
	need(doc);
	ok(strstr(doc->text, "openapi: 3.1"), "the document");
	aviary_text_free(doc);
	l = aviary_limits_get_sync(c, &e);
	need(l);
	ok(l->n_limits > 5 && l->limits[0]->name[0] && l->limits[0]->of, "limits");
	aviary_limits_free(l);
	test_isolations(c);

	o.flags = AVIARY_CLIENT_NO_ENV;
	o.base_url = getenv("AVIARY_URL");
	is_int(aviary_client_new(&nobody, &o), 0, "a client without credentials");
	h = aviary_system_health_sync(nobody, &e);
	ok(h, "may ask what needs none: %s", e.message);
	aviary_health_free(h);
	ok(!aviary_limits_get_sync(nobody, &e), "but not the rest");
	is_int(e.code, AVIARY_E_NO_CREDENTIALS, "which says so");
	aviary_client_free(nobody);
}

static void test_api_keys(aviary_client *c)
{
	aviary_api_keys_create_options o = AVIARY_API_KEYS_CREATE_OPTIONS_INIT;
	aviary_api_keys_update_options u = AVIARY_API_KEYS_UPDATE_OPTIONS_INIT;
	aviary_api_keys_rotate_options ro = AVIARY_API_KEYS_ROTATE_OPTIONS_INIT;
	aviary_quota_options q = AVIARY_QUOTA_OPTIONS_INIT;
	aviary_client_options co = AVIARY_CLIENT_OPTIONS_INIT;
	const char *scopes[] = {"sandboxes:read", "templates:read"};
	aviary_client *other;
	aviary_api_key *key, *same;
	aviary_sandbox_info_list *none;

	q.sandboxes = 2;
	o.name = named("of the SDK");
	o.scopes = (aviary_strings){scopes, 2};
	o.expires_in_sec = 3600;
	o.quota = &q;
	key = aviary_api_keys_create_sync(c, &o, &e);
	need(key);
	ok(key->key && strncmp(key->key, "av_", 3) == 0, "its secret");
	is_str(key->name, o.name, "its name");
	is_int((int)key->scopes.n, 2, "its scopes");
	ok(key->quota->has_sandboxes && key->quota->sandboxes == 2, "its quota");
	ok(!key->quota->has_cpus, "and no other");
	ok(key->expires_at > key->created_at && key->created_at > 1700000000000, "times");

	co.flags = AVIARY_CLIENT_NO_ENV;
	co.base_url = getenv("AVIARY_URL");
	co.api_key = key->key;
	is_int(aviary_client_new(&other, &co), 0, "a client of the new key");
	none = aviary_sandboxes_list_sync(other, NULL, &e);
	ok(none, "may list: %s", e.message);
	aviary_sandbox_info_list_free(none);
	is_code(aviary_sandboxes_create(other, NULL), AVIARY_E_FORBIDDEN);

	same = aviary_api_keys_get_sync(c, key->id, &e);
	need(same);
	ok(!same->key && strcmp(same->id, key->id) == 0, "without the secret");
	aviary_api_key_free(same);
	u.name = named("renamed");
	take(api_key, renamed, aviary_api_keys_update(c, key->id, &u));
	need(renamed);
	is_str(renamed->name, u.name, "renamed");
	aviary_api_key_free(renamed);
	ro.grace_sec = 60;
	take(api_key, next, aviary_api_keys_rotate(c, key->id, &ro));
	need(next);
	ok(next->key && strcmp(next->key, key->key) != 0, "rotated");
	take(api_key_list, all, aviary_api_keys_list(c));
	need(all);
	ok(all->n >= 3, "%zu keys", all->n);
	aviary_api_key_list_free(all);
	is_done(aviary_api_keys_delete_sync(c, next->id, &e));
	is_code(aviary_api_keys_delete(c, key->id), 0);
	ok(!aviary_sandboxes_list_sync(other, NULL, &e), "the key is no more");
	is_int(e.code, AVIARY_E_UNAUTHORIZED, "which says so");
	is_code(aviary_api_keys_get(c, key->id), AVIARY_E_NOT_FOUND);
	aviary_client_free(other);
	aviary_api_key_free(next);
	aviary_api_key_free(key);
}

static void test_files(aviary_client *c, const char *id)
{
	aviary_files_chmod_options mode = AVIARY_FILES_CHMOD_OPTIONS_INIT;
	aviary_entry *dir;
	aviary_entries *list;
	aviary_file_url *url;

	dir = aviary_files_mkdir_sync(c, id, "/root/a/b", NULL, &e);
	need(dir);
	is_int(dir->entry->type, AVIARY_FILE_TYPE_DIRECTORY, "a directory");
	aviary_entry_free(dir);
	mode.mode = "0700";
	is_done(aviary_files_chmod_sync(c, id, "/root/a/b", &mode, &e));
	take(entry, moved, aviary_files_move(c, id, "/root/a/b", "/root/a/c", NULL));
	need(moved);
	is_str(moved->entry->name, "c", "moved");
	aviary_entry_free(moved);
	list = aviary_files_list_sync(c, id, "/root/a", NULL, &e);
	need(list);
	ok(list->n_entries == 1 && list->entries[0]->mode == 0700, "listed");
	aviary_entries_free(list);
	is_code(aviary_files_stat(c, id, "/root/none", NULL), AVIARY_E_FILE_NOT_FOUND);
	is_str(
	    (aviary_files_stat_sync(c, id, "/root/none", NULL, &e), e.path), "/root/none", "which");
	ok(e.request_id[0] && !strpbrk(e.request_id, "\r\n"), "in which request");
	url = aviary_files_signed_url_sync(c, id, "/root/x", NULL, &e);
	need(url);
	is_int(url->method, AVIARY_URL_METHOD_GET, "a URL to read");
	aviary_file_url_free(url);
	is_code(aviary_files_remove(c, id, "/root/a", NULL), 0);
}

static void test_snapshots(aviary_client *c, const char *id)
{
	aviary_snapshots_create_options o = AVIARY_SNAPSHOTS_CREATE_OPTIONS_INIT;
	aviary_snapshots_list_options lo = AVIARY_SNAPSHOTS_LIST_OPTIONS_INIT;
	aviary_template *made, *found;
	aviary_template_list *all;
	bool there = false;

	o.name = named("resources");
	made = aviary_snapshots_create_sync(c, id, &o, &e);
	need(made);
	is_str(made->name, o.name, "a snapshot");
	is_int(made->type, AVIARY_TEMPLATE_TYPE_SNAPSHOT, "of that type");
	aviary_template_free(made);
	is_code(aviary_snapshots_create(c, id, &o), AVIARY_E_CONFLICT);
	lo.type = "snapshot";
	all = aviary_snapshots_list_sync(c, &lo, &e);
	need(all);
	for (size_t i = 0; i < all->n; i++)
		there = there || strcmp(all->items[i]->name, o.name) == 0;
	ok(there, "it is listed");
	aviary_template_list_free(all);
	found = aviary_snapshots_get_sync(c, o.name, &e);
	need(found);
	ok(!found->platform && found->created_at > 0, "it is the team's");
	aviary_template_free(found);
	is_done(aviary_snapshots_delete_sync(c, o.name, &e));
	is_code(aviary_snapshots_get(c, o.name), AVIARY_E_NOT_FOUND);
	is_code(aviary_snapshots_get(c, ".."), AVIARY_E_INVALID);
	is_code(aviary_snapshots_delete(c, ""), AVIARY_E_INVALID);
	take(template_list, platform, aviary_admin_list_templates(c));
	need(platform);
	ok(platform->n > 0, "templates of all teams");
	aviary_template_list_free(platform);
}

/* One that ends with time for its main command. */
static void test_stop(aviary_client *c)
{
	aviary_sandboxes_create_options o = AVIARY_SANDBOXES_CREATE_OPTIONS_INIT;
	aviary_sandboxes_stop_options so = AVIARY_SANDBOXES_STOP_OPTIONS_INIT;
	aviary_sandbox_info *sb;
	aviary_stop_result *end;
	aviary_host_list *hosts;
	aviary_host_busy *busy = NULL;
	const char *body;
	aviary_op *op;
	size_t n;

	o.memory_mb = 128;
	o.max_lifetime_sec = 600;
	sb = aviary_sandboxes_create_sync(c, &o, &e);
	need(sb);
	hosts = aviary_hosts_list_sync(c, &e);
	need(hosts);
	op = aviary_hosts_delete(c, hosts->items[0]->id, NULL);
	is_int(aviary_op_wait(op, 60000), AVIARY_E_CONFLICT, "a host with sandboxes stays");
	body = aviary_op_body(op, &n);
	if (ok(aviary_host_busy_parse(body, n, &busy, &e) == 0, "its answer: %s", body))
		ok(busy->sandbox_ids.n >= 1 && busy->error->sandbox_ids.n == busy->sandbox_ids.n,
		    "names them");
	aviary_host_busy_free(busy);
	aviary_op_free(op);
	aviary_host_list_free(hosts);
	so.grace_sec = 1;
	end = aviary_sandboxes_stop_sync(c, sb->id, &so, &e);
	need(end);
	is_int(end->sandbox->status, AVIARY_STATUS_STOPPED, "it has ended");
	ok(!end->grace_exceeded && !end->snapshot, "in time");
	aviary_stop_result_free(end);
	is_code(aviary_sandboxes_stop(c, sb->id, NULL), 0);
	aviary_sandbox_info_free(sb);
}

/* What the server may take for a stop is not taken for silence. */
static void test_patience(void)
{
	static const char *const command[] = {
	    "/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"};
	aviary_client_options co = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_sandboxes_create_options o = AVIARY_SANDBOXES_CREATE_OPTIONS_INIT;
	aviary_sandboxes_stop_options so = AVIARY_SANDBOXES_STOP_OPTIONS_INIT;
	aviary_sandbox_info *sb;
	aviary_stop_result *end;
	aviary_client *c;

	co.request_timeout_ms = 3000;
	is_int(aviary_client_new(&c, &co), 0, "a client that waits for three seconds");
	o.memory_mb = 128;
	o.max_lifetime_sec = 600;
	o.command = (aviary_strings){command, 3};
	sb = aviary_sandboxes_create_sync(c, &o, &e);
	need(sb);
	so.grace_sec = 3.5;
	end = aviary_sandboxes_stop_sync(c, sb->id, &so, &e);
	need(end);
	ok(end->grace_exceeded, "a main command that does not want to end");
	aviary_stop_result_free(end);
	aviary_sandbox_info_free(sb);
	aviary_client_free(c);
}

static void test_sandboxes(aviary_client *c)
{
	aviary_sandboxes_create_options o = AVIARY_SANDBOXES_CREATE_OPTIONS_INIT;
	aviary_sandboxes_update_options u = AVIARY_SANDBOXES_UPDATE_OPTIONS_INIT;
	aviary_sandboxes_list_options lo = AVIARY_SANDBOXES_LIST_OPTIONS_INIT;
	const aviary_pair pairs[] = {{"color", "gr\xc3\xbcn & \"blue\""}, {"empty", ""}};
	const aviary_pair changes[] = {{"color", NULL}, {"size", "7"}};
	const char *tags[] = {"resources"}, *filter[] = {"empty="};
	const uint16_t ports[] = {80, 65535};
	aviary_sandbox_info *sb, *again;
	aviary_sandbox_info_list *list;
	aviary_processes *p;
	aviary_metrics *m;
	aviary_use *use;
	char id[64];

	o.memory_mb = 128;
	o.max_lifetime_sec = 600;
	o.metadata = (aviary_pairs){pairs, 2};
	o.tags = (aviary_strings){tags, 1};
	o.public_ports = (aviary_ports){ports, 2};
	o.sudo = -1;
	o.idempotency_key = named("resources-1");
	sb = aviary_sandboxes_create_sync(c, &o, &e);
	need(sb);
	(void)snprintf(id, sizeof(id), "%s", sb->id);
	is_int(sb->status, AVIARY_STATUS_RUNNING, "it runs");
	is_str(sb->status_text, "running", "in words");
	is_int(sb->isolation, AVIARY_ISOLATION_JAIL, "a jail");
	ok(!sb->sudo && sb->memory_mb == 128 && sb->max_lifetime_sec > 599, "as it was asked for");
	ok(sb->metadata.n == 2 && sb->tags.n == 1 && sb->public_ports.n == 2, "lists");
	is_int(sb->public_ports.items[1], 65535, "a port");
	ok(!sb->reason && !sb->has_oom_kills && !sb->stopped_at, "what is absent");
	again = aviary_sandboxes_create_sync(c, &o, &e);
	need(again);
	is_str(again->id, id, "the same key, the same sandbox");
	aviary_sandbox_info_free(again);
	aviary_sandbox_info_free(sb);

	u.metadata = (aviary_pairs){changes, 2};
	u.has_timeout_sec = 1;
	take(sandbox_info, changed, aviary_sandboxes_update(c, id, &u));
	need(changed);
	ok(changed->metadata.n == 2 && changed->timeout_sec < 0.1,
	    "changed; NULL takes a name away");
	aviary_sandbox_info_free(changed);
	lo.tag = (aviary_strings){tags, 1};
	lo.metadata = (aviary_strings){filter, 1};
	lo.limit = 1;
	list = aviary_sandboxes_list_sync(c, &lo, &e);
	need(list);
	ok(list->n == 1 && strcmp(list->items[0]->id, id) == 0, "listed by tag and metadata");
	aviary_sandbox_info_list_free(list);

	p = aviary_processes_list_sync(c, id, &e);
	need(p);
	is_int((int)p->n_processes, 0, "no process");
	aviary_processes_free(p);
	is_code(aviary_processes_kill(c, id, "none", NULL), AVIARY_E_SANDBOX_NOT_FOUND);
	is_done(aviary_sandboxes_ping_sync(c, id, &e));
	use = aviary_sandboxes_use_now_sync(c, id, &e);
	need(use);
	ok(use->memory_bytes > 0 && use->memory_peak_bytes >= use->memory_bytes, "what it uses");
	aviary_use_free(use);
	m = aviary_sandboxes_metrics_sync(c, id, NULL, &e);
	need(m);
	is_str(m->sandbox_id, id, "metrics");
	aviary_metrics_free(m);
	take(port_url, url, aviary_sandboxes_port_url(c, id, 80, NULL));
	need(url);
	ok(url->is_public && url->port == 80 && strstr(url->url, id), "a URL");
	aviary_port_url_free(url);
	test_files(c, id);
	test_snapshots(c, id);

	/* The snapshot has left it paused. */
	is_code(aviary_sandboxes_ping(c, id), AVIARY_E_SANDBOX_NOT_RUNNING);
	take(sandbox_info, resumed, aviary_sandboxes_resume(c, id));
	need(resumed);
	is_int(resumed->status, AVIARY_STATUS_RUNNING, "resumed");
	aviary_sandbox_info_free(resumed);
	again = aviary_sandboxes_pause_sync(c, id, &e);
	need(again);
	is_int(again->status, AVIARY_STATUS_PAUSED, "paused");
	aviary_sandbox_info_free(again);
	is_done(aviary_sandboxes_delete_sync(c, id, &e));
	again = aviary_sandboxes_get_sync(c, id, &e);
	need(again);
	is_int(again->status, AVIARY_STATUS_STOPPED, "stopped");
	ok(again->reason && again->stopped_at > 0, "with a reason: %s", again->reason);
	aviary_sandbox_info_free(again);
	is_code(aviary_sandboxes_get(c, "sb0000000000000000000000000"), AVIARY_E_SANDBOX_NOT_FOUND);
}

/* Pages go on where the one before ended. */
static void test_pages(aviary_client *c)
{
	aviary_sandboxes_list_options lo = AVIARY_SANDBOXES_LIST_OPTIONS_INIT;
	aviary_sandbox_info_list *page;
	char cursor[512] = "";
	int seen = 0;

	lo.status = "all";
	lo.limit = 1;
	for (int i = 0; i < 3; i++) {
		lo.cursor = *cursor ? cursor : NULL;
		page = aviary_sandboxes_list_sync(c, &lo, &e);
		need(page);
		seen += (int)page->n;
		(void)snprintf(
		    cursor, sizeof(cursor), "%s", page->next_cursor ? page->next_cursor : "");
		aviary_sandbox_info_list_free(page);
		if (!*cursor)
			break;
	}
	ok(seen >= 1, "%d in pages of one", seen);
}

static void test_usage(aviary_client *c)
{
	aviary_sandboxes_stats_options so = AVIARY_SANDBOXES_STATS_OPTIONS_INIT;
	aviary_sandboxes_usage_options uo = AVIARY_SANDBOXES_USAGE_OPTIONS_INIT;
	aviary_stats *s;

	so.range = AVIARY_STATS_RANGE_5M;
	s = aviary_sandboxes_stats_sync(c, &so, &e);
	need(s);
	is_str(s->range, "5m", "stats of five minutes");
	ok(s->peaks->running_count >= 1 && s->series->labels.n == s->series->running.n,
	    "over time");
	aviary_stats_free(s);
	so.range = (enum aviary_stats_range)99;
	is_code(aviary_sandboxes_stats(c, &so), AVIARY_E_INVALID);
	uo.from = "2026-01-01";
	uo.to = "2026-01-31";
	take(usage, u, aviary_sandboxes_usage(c, &uo));
	need(u);
	is_str(u->from, "2026-01-01", "usage");
	aviary_usage_free(u);
	uo.to = "yesterday";
	is_code(aviary_sandboxes_usage(c, &uo), AVIARY_E_INVALID);
}

static void test_hosts(aviary_client *c)
{
	aviary_hosts_create_options o = AVIARY_HOSTS_CREATE_OPTIONS_INIT;
	aviary_hosts_register_options facts = AVIARY_HOSTS_REGISTER_OPTIONS_INIT;
	aviary_host_registration *made, *renewed;
	aviary_host_credentials *given, *next;
	aviary_host_preview *preview;
	aviary_host_list *all;
	aviary_host *host;
	aviary_text_list *tags;
	char id[64];

	o.provider = "metal";
	made = aviary_hosts_create_sync(c, AVIARY_HOST_TYPE_REGULAR, &o, &e);
	need(made);
	is_int(made->host->status, AVIARY_HOST_STATUS_PENDING, "a host that is awaited");
	(void)snprintf(id, sizeof(id), "%s", made->host->id);
	renewed = aviary_hosts_renew_token_sync(c, id, &e);
	need(renewed);
	ok(strcmp(renewed->registration_token, made->registration_token) != 0, "another token");
	aviary_host_registration_free(made);
	facts.cpu_cores = 4;
	given = aviary_hosts_register_sync(
	    c, renewed->registration_token, "192.0.2.7:50051", &facts, &e);
	aviary_host_registration_free(renewed);
	need(given);
	ok(given->host->has_cpu_cores && given->host->cpu_cores == 4, "it is registered");
	next = aviary_hosts_refresh_sync(c, given->refresh_token, &e);
	aviary_host_credentials_free(given);
	need(next);
	is_done(aviary_hosts_heartbeat_sync(c, id, next->token, &e));
	is_code(aviary_hosts_heartbeat(c, id, "no token"), AVIARY_E_INVALID);
	is_code(aviary_hosts_heartbeat(c, id, "not-a-token"), AVIARY_E_UNAUTHORIZED);
	aviary_host_credentials_free(next);
	all = aviary_hosts_list_sync(c, &e);
	need(all);
	ok(all->n >= 2 && all->items[0]->local, "%zu hosts, the first is this machine", all->n);
	is_code(aviary_hosts_delete(c, all->items[0]->id, NULL), AVIARY_E_CONFLICT);
	aviary_host_list_free(all);
	host = aviary_hosts_get_sync(c, id, &e);
	need(host);
	is_str(host->address, "192.0.2.7:50051", "where it is");
	aviary_host_free(host);
	preview = aviary_hosts_preview_delete_sync(c, id, &e);
	need(preview);
	is_int((int)preview->sandbox_ids.n, 0, "nothing keeps it");
	aviary_host_preview_free(preview);
	is_done(aviary_hosts_add_tag_sync(c, id, "gpu/a&b", &e));
	tags = aviary_hosts_list_tags_sync(c, id, &e);
	need(tags);
	ok(tags->n == 1 && strcmp(tags->items[0], "gpu/a&b") == 0, "a tag");
	aviary_text_list_free(tags);
	is_code(aviary_hosts_remove_tag(c, id, ".."), AVIARY_E_INVALID);
	is_done(aviary_hosts_remove_tag_sync(c, id, "gpu/a&b", &e));
	is_done(aviary_hosts_delete_sync(c, id, NULL, &e));
	is_code(aviary_hosts_get(c, id), AVIARY_E_NOT_FOUND);
}

static void test_channels(aviary_client *c)
{
	const aviary_pair config[] = {{"url", "https://hooks.example.com/aviary"}};
	const char *events[] = {"capsule.created", "host.up"};
	aviary_pairs where = {config, 1};
	aviary_strings what = {events, 2};
	aviary_channel_info *ch;
	aviary_channel_info_list *all;
	aviary_channels_update_options off = AVIARY_CHANNELS_UPDATE_OPTIONS_INIT;
	aviary_deliveries *d;
	char id[64];

	ch = aviary_channels_create_sync(
	    c, named("hooks"), AVIARY_CHANNEL_PROVIDER_WEBHOOK, &where, &what, &e);
	need(ch);
	ok(ch->secret && ch->enabled && ch->events.n == 2, "a channel with its secret");
	is_int(ch->provider, AVIARY_CHANNEL_PROVIDER_WEBHOOK, "a webhook");
	(void)snprintf(id, sizeof(id), "%s", ch->id);
	aviary_channel_info_free(ch);
	is_code(aviary_channels_create(
	            c, named("hooks"), AVIARY_CHANNEL_PROVIDER_WEBHOOK, &where, &what),
	    AVIARY_E_CONFLICT);
	is_code(
	    aviary_channels_create(c, "nothing", AVIARY_CHANNEL_PROVIDER_UNKNOWN, &where, &what),
	    AVIARY_E_INVALID);
	is_code(aviary_channels_create(c, NULL, AVIARY_CHANNEL_PROVIDER_WEBHOOK, &where, &what),
	    AVIARY_E_INVALID);
	off.enabled = -1;
	what.n = 1;
	take(channel_info, disabled, aviary_channels_update(c, id, named("hooks"), &what, &off));
	need(disabled);
	ok(!disabled->enabled && disabled->events.n == 1, "disabled");
	aviary_channel_info_free(disabled);
	take(channel_info, configured, aviary_channels_configure(c, id, &where));
	need(configured);
	ok(configured->enabled && !configured->secret, "configured, which enables");
	aviary_channel_info_free(configured);
	d = aviary_channels_list_deliveries_sync(c, id, NULL, &e);
	need(d);
	ok(d->n_deliveries == 0 && !d->next_cursor, "no delivery (%zu, %s)", d->n_deliveries,
	    d->next_cursor);
	aviary_deliveries_free(d);
	is_code(aviary_channels_redeliver(c, id, "00000000-0000-4000-8000-000000000000"),
	    AVIARY_E_NOT_FOUND);
	all = aviary_channels_list_sync(c, &e);
	need(all);
	ok(all->n >= 1, "listed");
	aviary_channel_info_list_free(all);
	ch = aviary_channels_get_sync(c, id, &e);
	need(ch);
	is_str(ch->id, id, "found");
	aviary_channel_info_free(ch);
	is_code(aviary_channels_test(c, AVIARY_CHANNEL_PROVIDER_SLACK, &where), AVIARY_E_INVALID);
	is_done(aviary_channels_delete_sync(c, id, &e));
}

static void test_audit(aviary_client *c)
{
	aviary_audit_list_options o = AVIARY_AUDIT_LIST_OPTIONS_INIT;
	aviary_audit_page *page = NULL;
	aviary_text *lines;

	o.action = "sandbox.create";
	o.status = AVIARY_AUDIT_STATUS_SUCCESS;
	o.limit = 1;
	/* It is written a tenth of a second later. */
	for (int i = 0; i < 50 && (!page || !page->n_items); i++) {
		struct timespec t = {.tv_nsec = 100000000};

		aviary_audit_page_free(page);
		(void)nanosleep(&t, NULL);
		page = aviary_audit_list_sync(c, &o, &e);
		need(page);
	}
	is_int((int)page->n_items, 1, "one record");
	if (page->n_items == 1) {
		is_str(page->items[0]->action, "sandbox.create", "of a create");
		is_int(page->items[0]->actor_type, AVIARY_AUDIT_ACTOR_API_KEY, "by a key");
		ok(page->items[0]->created_at > 1700000000000, "at a time");
	}
	aviary_audit_page_free(page);
	page = aviary_admin_list_audit_sync(c, NULL, &e);
	need(page);
	ok(page->n_items > 1, "of all teams");
	aviary_audit_page_free(page);
	lines = aviary_audit_export_sync(c, NULL, &e);
	need(lines);
	ok(lines->n > 2 && lines->text[0] == '{', "as lines");
	aviary_text_free(lines);
	take(text, every, aviary_admin_export_audit(c, NULL));
	need(every);
	ok(every->n > 2, "of all");
	aviary_text_free(every);
	o.since = 4102444800000; /* 2100 */
	page = aviary_audit_list_sync(c, &o, &e);
	need(page);
	is_int((int)page->n_items, 0, "nothing of the future");
	aviary_audit_page_free(page);
}

/* A client of somebody who logged in. */
static aviary_client *client_of(const aviary_login *login)
{
	aviary_client_options o = AVIARY_CLIENT_OPTIONS_INIT;
	aviary_client *c;

	o.flags = AVIARY_CLIENT_NO_ENV;
	o.base_url = getenv("AVIARY_URL");
	o.session_token = login->token;
	is_int(aviary_client_new(&c, &o), 0, "a client of a session");
	return c;
}

static void test_teams(aviary_client *ada, const char *bob_email)
{
	aviary_teams_create_sync(ada, "bad/name", &e);
	is_int(e.code, AVIARY_E_INVALID, "a name that may not be");
	aviary_team *team = aviary_teams_create_sync(ada, "Second", &e);
	need(team);
	is_int(team->role, AVIARY_ROLE_OWNER, "a team of one's own");
	take(login, in, aviary_auth_switch_team(ada, team->id));
	need(in);
	is_str(in->team_id, team->id, "a session in it");
	aviary_client *c = client_of(in);
	aviary_login_free(in);
	is_done(aviary_teams_rename_sync(c, team->id, "Third", &e));
	aviary_found_user_list *found = aviary_users_search_sync(c, bob_email, &e);
	need(found);
	is_int((int)found->n, 1, "somebody is found");
	aviary_member *member = aviary_teams_add_member_sync(c, team->id, bob_email, &e);
	need(member);
	is_int(member->role, AVIARY_ROLE_MEMBER, "and joins");
	is_done(aviary_teams_set_role_sync(c, team->id, member->user_id, AVIARY_ROLE_ADMIN, &e));
	is_code(aviary_teams_set_role(c, team->id, member->user_id, AVIARY_ROLE_OWNER),
	    AVIARY_E_INVALID);
	take(member_list, members, aviary_teams_list_members(c, team->id));
	need(members);
	is_int((int)members->n, 2, "two members");
	aviary_member_list_free(members);
	aviary_team_detail *detail = aviary_teams_get_sync(c, team->id, &e);
	need(detail);
	is_str(detail->team->name, "Third", "its name");
	is_int((int)detail->n_members, 2, "with its members");
	aviary_team_detail_free(detail);
	is_code(aviary_teams_remove_member(c, team->id, member->user_id), 0);
	is_code(aviary_teams_leave(c, team->id), AVIARY_E_FORBIDDEN);
	aviary_team_list *all = aviary_teams_list_sync(c, &e);
	need(all);
	is_int((int)all->n, 2, "two teams");
	aviary_team_list_free(all);
	is_done(aviary_teams_delete_sync(c, team->id, &e));
	aviary_member_free(member);
	aviary_found_user_list_free(found);
	aviary_team_free(team);
	aviary_client_free(c);
}

static void test_account(aviary_client *c, aviary_login *in)
{
	aviary_account_set_password_options o = AVIARY_ACCOUNT_SET_PASSWORD_OPTIONS_INIT;
	aviary_client *ada = client_of(in);
	aviary_me *me = aviary_account_get_sync(ada, &e);

	need(me);
	is_str(me->email, in->email, "who one is");
	ok(me->has_password && me->providers.n == 0, "with a password");
	aviary_me_free(me);
	take(login, renamed, aviary_account_rename(ada, "Ada L."));
	need(renamed);
	is_str(renamed->name, "Ada L.", "another name");
	aviary_login_free(renamed);
	is_code(aviary_account_connect_provider(ada, "github"), AVIARY_E_NOT_FOUND);
	is_code(aviary_account_disconnect_provider(ada, "github"), AVIARY_E_NOT_FOUND);
	is_code(aviary_account_request_reset(c, "nobody@example.com"), 0);
	is_code(aviary_account_confirm_reset(c, "no token", "battery staple"), AVIARY_E_INVALID);
	is_code(aviary_account_set_password(ada, "short", NULL), AVIARY_E_INVALID);
	o.current_password = "correct horse";
	is_done(aviary_account_set_password_sync(ada, "battery staple", &o, &e));
	is_code(aviary_account_get(ada), AVIARY_E_UNAUTHORIZED);
	aviary_client_free(ada);
}

static void test_people(aviary_client *c)
{
	aviary_admin_create_user_options o = AVIARY_ADMIN_CREATE_USER_OPTIONS_INIT;
	aviary_admin_update_user_options u = AVIARY_ADMIN_UPDATE_USER_OPTIONS_INIT;
	aviary_auth_signup_options so = AVIARY_AUTH_SIGNUP_OPTIONS_INIT;
	char ada_email[64], bob_email[64], eve_email[64];
	aviary_user *ada, *bob;
	aviary_users *users;
	aviary_signed_up *up;
	aviary_login *in, *again;
	aviary_client *ada_client;

	(void)snprintf(ada_email, sizeof(ada_email), "%s@example.com", named("ada"));
	(void)snprintf(bob_email, sizeof(bob_email), "%s@example.com", named("bob"));
	(void)snprintf(eve_email, sizeof(eve_email), "%s@example.com", named("eve"));
	so.name = "Eve";
	up = aviary_auth_signup_sync(c, eve_email, "correct horse", &so, &e);
	ok(up ? up->token[0] != '\0' : e.http_status >= 400, "signing up: %s",
	    up ? up->message : e.message);
	aviary_signed_up_free(up);
	is_code(aviary_auth_activate(c, "no token"), AVIARY_E_INVALID);

	o.name = "Ada";
	o.password = "correct horse";
	ada = aviary_admin_create_user_sync(c, ada_email, &o, &e);
	need(ada);
	is_int(ada->status, AVIARY_USER_STATUS_ACTIVE, "a user");
	ok(!ada->link && ada->has_password, "with a password");
	bob = aviary_admin_create_user_sync(c, bob_email, NULL, &e);
	need(bob);
	ok(bob->link && bob->link->kind == AVIARY_LINK_KIND_RESET, "another, with a link");
	u.name = "Robert";
	take(user, renamed, aviary_admin_update_user(c, bob->id, &u));
	need(renamed);
	is_str(renamed->name, "Robert", "renamed");
	aviary_user_free(renamed);
	take(link, link, aviary_admin_make_user_link(c, bob->id));
	need(link);
	ok(link->url[0] && link->expires_at > 0, "another link");
	aviary_link_free(link);
	is_done(aviary_admin_set_user_password_sync(c, bob->id, "some password", &e));
	is_done(aviary_admin_set_user_active_sync(c, bob->id, 0, &e));
	is_code(aviary_auth_login(c, bob_email, "some password"), AVIARY_E_FORBIDDEN);
	is_done(aviary_admin_set_user_active_sync(c, bob->id, 1, &e));
	users = aviary_admin_list_users_sync(c, NULL, &e);
	need(users);
	ok(users->total >= 3 && users->n_users >= 3, "all users");
	aviary_users_free(users);

	is_code(aviary_auth_login(c, ada_email, "wrong"), AVIARY_E_UNAUTHORIZED);
	in = aviary_auth_login_sync(c, ada_email, "correct horse", &e);
	need(in);
	ada_client = client_of(in);
	test_teams(ada_client, bob_email);
	aviary_client_free(ada_client);
	test_account(c, in);
	again = aviary_auth_login_sync(c, ada_email, "battery staple", &e);
	need(again);
	ada_client = client_of(again);
	is_code(aviary_account_delete(ada_client, "bob@example.com"), AVIARY_E_INVALID);
	is_done(aviary_account_delete_sync(ada_client, ada_email, &e));
	aviary_client_free(ada_client);
	aviary_login_free(again);
	aviary_login_free(in);
	aviary_user_free(bob);
	aviary_user_free(ada);
}

static void test_admin(aviary_client *c)
{
	aviary_admin_set_team_quota_options q = AVIARY_ADMIN_SET_TEAM_QUOTA_OPTIONS_INIT;
	aviary_admin_teams *teams;
	aviary_team *team;

	team = aviary_teams_create_sync(c, "Bounded", &e);
	need(team);
	q.sandboxes = 3;
	q.cpus = 1.5;
	is_done(aviary_admin_set_team_quota_sync(c, team->id, &q, &e));
	is_done(aviary_admin_set_team_byoc_sync(c, team->id, 1, &e));
	teams = aviary_admin_list_teams_sync(c, NULL, &e);
	need(teams);
	for (size_t i = 0; i < teams->n_teams; i++) {
		const aviary_admin_team *t = teams->teams[i];

		if (strcmp(t->id, team->id) == 0)
			ok(t->is_byoc && t->quota->sandboxes == 3 && t->quota->cpus > 1.4 &&
			        !t->quota->has_memory_mb,
			    "bounded");
	}
	aviary_admin_teams_free(teams);
	is_code(aviary_admin_delete_team(c, team->id), 0);
	is_code(aviary_admin_delete_template(c, "no-such-template"), AVIARY_E_NOT_FOUND);
	aviary_team_free(team);
}

/* What a download gets: how much, and its last bytes. */
struct seen {
	size_t n;
	char last[4096];
};

static int64_t see(void *ctx, const void *data, size_t n)
{
	struct seen *s = ctx;
	size_t keep = n < sizeof(s->last) ? n : sizeof(s->last);
	size_t stay = sizeof(s->last) - keep;

	memmove(s->last, s->last + keep, stay);
	memcpy(s->last + stay, (const char *)data + n - keep, keep);
	s->n += n;
	return (int64_t)n;
}

static void test_download(aviary_client *c)
{
	static struct seen s;
	const char *dir = getenv("AVIARY_TEST_DIR");
	char path[300], text[64] = "";
	int fd;

	memset(&s, 0, sizeof(s));
	is_code(aviary_client_download(c, "/v1/admin/backup", see, &s, NULL), 0);
	ok(s.n > 10240 && memmem(s.last, sizeof(s.last), "aviary-backup-end 1", 19),
	    "a whole backup");
	(void)snprintf(path, sizeof(path), "%s/audit", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	is_done(aviary_client_download_fd_sync(c, "/v1/audit-logs/export", fd, NULL, &e));
	ok(pread(fd, text, sizeof(text) - 1, 0) > 10 && text[0] == '{', "lines of the audit log");
	is_code(aviary_client_download_fd(c, "/v1/no/such/route", fd, NULL), AVIARY_E_NOT_FOUND);
	is_code(aviary_client_download_fd(c, "v1", fd, NULL), AVIARY_E_INVALID);
	is_code(aviary_client_download_fd(c, NULL, fd, NULL), AVIARY_E_INVALID);
	(void)close(fd);
}

static void test_arguments(aviary_client *c)
{
	aviary_sandboxes_create_options o = AVIARY_SANDBOXES_CREATE_OPTIONS_INIT;
	aviary_op *op;

	o.struct_size = 0;
	is_code(aviary_sandboxes_create(c, &o), AVIARY_E_INVALID);
	o.struct_size = sizeof(o);
	o.template_name = "\xff";
	op = aviary_sandboxes_create(c, &o);
	is_int(aviary_op_wait(op, 0), AVIARY_E_INVALID, "not UTF-8");
	ok(strstr(aviary_op_error(op)->message, "template"), "%s", aviary_op_error(op)->message);
	aviary_op_free(op);
	o.template_name = NULL;
	o.timeout_sec = (double)NAN;
	is_code(aviary_sandboxes_create(c, &o), AVIARY_E_INVALID);
	o.timeout_sec = 0;
	o.idempotency_key = "a\r\nX-API-Key: b";
	is_code(aviary_sandboxes_create(c, &o), AVIARY_E_INVALID);
	is_code(aviary_sandboxes_get(c, "sb/../../teams"), AVIARY_E_INVALID);
}

int main(void)
{
	aviary_client *c = sdk_client();

	test_system(c);
	test_api_keys(c);
	test_sandboxes(c);
	test_stop(c);
	if (!getenv("AVIARY_TEST_THREADED"))
		test_patience();
	test_pages(c);
	test_usage(c);
	test_hosts(c);
	test_channels(c);
	test_audit(c);
	test_people(c);
	test_admin(c);
	test_download(c);
	test_arguments(c);
	aviary_client_free(c);
	return tap_done();
}
