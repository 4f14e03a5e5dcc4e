/* SPDX-License-Identifier: Apache-2.0 */
/*
 * remote - a function of this program, run in 32 sandboxes: how many primes are below 3.2 million?
 */
#include <aviary/aviary.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PARTS     32
#define PART_SIZE 100000

typedef struct {
	int64_t from, to;
} interval;
AVIARY_POD(interval, from, to);

/* What runs in a sandbox: it sees its argument, and nothing of what main has done. */
AVIARY_REMOTE(count_primes, interval, int64_t)
{
	for (int64_t n = in->from; n < in->to; n++) {
		int64_t d = 2;

		while (d * d <= n && n % d != 0)
			d++;
		*out += n >= 2 && d * d > n;
	}
	return 0;
}

int main(int argc, char **argv)
{
	aviary_remote_options options = AVIARY_REMOTE_OPTIONS_INIT;
	aviary_sandbox_spec spec = AVIARY_SANDBOX_SPEC_INIT;
	interval parts[PARTS];
	aviary_remote_results *all;
	aviary_client *client;
	aviary_error error;
	int64_t sum = 0;

	/* In a sandbox this does not return: the same program is the worker there. */
	aviary_worker_init(argc, argv);

	if (aviary_client_new(&client, NULL) != 0) {
		fprintf(stderr, "%s\n", aviary_client_error(client)->message);
		return 1;
	}
	for (int i = 0; i < PARTS; i++) {
		parts[i].from = (int64_t)i * PART_SIZE;
		parts[i].to = (int64_t)(i + 1) * PART_SIZE;
	}
	spec.memory_mb = 64;
	options.spec = &spec;
	options.max_sandboxes = PARTS;
	all = aviary_remote_map_sync(
	    client, AVIARY_FUNCTION(count_primes), parts, PARTS, &options, &error);
	if (error.code)
		fprintf(stderr, "%s\n", error.message);
	/* Each part has its own value, or its own error. */
	for (size_t i = 0; all && i < all->n; i++) {
		const int64_t *count = count_primes_value(all->items[i]);

		if (count)
			sum += *count;
	}
	printf("%" PRId64 " primes below %d\n", sum, PARTS * PART_SIZE);
	aviary_remote_results_free(all);
	aviary_client_free(client);
	return error.code ? 1 : 0;
}
