/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_config.h - what an operator says about internet access: words into address ranges
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/macros.h"
#include "base/str.h"
#include "spawn/net_rules.h"

struct net_config {
	bool off;              /* no sandbox gets internet access */
	struct nft_range pool; /* addresses of sandboxes; first 0: chosen by the host's routes */
	struct nft_range allowed[NET_ALLOWED_MAX]; /* sorted, disjoint */
	size_t n_allowed;
	uint32_t resolvers[NET_RESOLVERS_MAX]; /* none: the host's */
	size_t n_resolvers;
};

/* "192.0.2.7", host order. -EINVAL. Only four decimal numbers: no other form that inet_aton() takes
 * for an address. */
int net_parse_address(struct av_str s, uint32_t *ret) AV_MUST_CHECK;
/* "10.1.0.0/16" or an address; -EINVAL also when bits behind the prefix are set. */
int net_parse_range(struct av_str s, struct nft_range *ret) AV_MUST_CHECK;
bool net_overlap(const struct nft_range *a, const struct nft_range *b);

/* The values of the options: lists are separated by commas and add to what is there. INVALID names
 * the part that is wrong and what is allowed. */
int net_config_allow(struct net_config *c, const char *list, struct av_err *err) AV_MUST_CHECK;
int net_config_resolver(struct net_config *c, const char *list, struct av_err *err) AV_MUST_CHECK;
int net_config_pool(struct net_config *c, const char *range, struct av_err *err) AV_MUST_CHECK;
