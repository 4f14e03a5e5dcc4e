/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy_services.c - ports of sandboxes that Aviary itself can answer for (see proxy.h)
 */
#include "api/proxy.h"

#include "api/jupyter.h"

#include "base/banned.h"

const struct proxy_service proxy_services[] = {
    {.port = JUPYTER_PORT, .handle = jupyter_handle},
    {.port = 0},
};
