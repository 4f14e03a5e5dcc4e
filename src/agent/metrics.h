/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.h - what the sandbox may use and uses, from its cgroup where visible, else from /proc
 */
#pragma once

#include <stdint.h>

/* Memory limit, or the machine's memory if there is no lower limit in sight; bytes, 0 if unknown.
 * Reads small files. */
uint64_t metrics_memory_total(void);
