/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics_process.c - the daemon and the worker of aviary-spawn, as processes
 */
#include "api/metrics.h"
#include "api/metrics_text.h"
#include "api/request.h"
#include "base/avtime.h"
#include "base/self.h"
#include "base/banned.h"

static void start_time(struct av_buf *out, const char *name, const char *help, int64_t start_ms)
{
	metrics_family(out, name, "gauge", help);
	metrics_seconds(out, name, "", start_ms * AV_NS_PER_MS);
}

static void write_daemon(struct av_buf *out, int64_t start_ms)
{
	struct av_self s;

	av_self_read(-1, &s);
	metrics_gauge(
	    out, "process_resident_memory_bytes", "Resident memory of aviaryd.", s.resident_bytes);
	metrics_gauge(out, "process_virtual_memory_bytes", "Its address space.", s.virtual_bytes);
	metrics_gauge(out, "process_threads", "Its threads.", s.threads);
	metrics_gauge(out, "process_open_fds", "Its open descriptors.", s.open_fds);
	metrics_gauge(out, "process_max_fds", "Most descriptors allowed.", s.max_fds);
	metrics_family(out, "process_cpu_seconds_total", "counter", "Processor time used.");
	metrics_seconds(out, "process_cpu_seconds_total", "", (int64_t)s.cpu_usec * 1000);
	start_time(out, "process_start_time_seconds", "When it started, since 1970.", start_ms);
}

void metrics_write_processes(struct av_buf *out, const struct api *a, const struct driver_helper *h)
{
	write_daemon(out, a->start_ms);
	metrics_gauge(out, "aviary_worker_up",
	    "Whether the worker of aviary-spawn answered in time; if not, what is its own is left "
	    "out.",
	    h != NULL);
	if (!h)
		return;
	metrics_gauge(out, "aviary_worker_resident_memory_bytes",
	    "Resident memory of the worker of aviary-spawn.", h->resident_bytes);
	metrics_family(out, "aviary_worker_cpu_seconds_total", "counter",
	    "Processor time of the worker, without the children it forks.");
	metrics_seconds(out, "aviary_worker_cpu_seconds_total", "", (int64_t)h->cpu_usec * 1000);
	metrics_gauge(out, "aviary_worker_open_fds", "Its open descriptors.", h->open_fds);
	metrics_gauge(out, "aviary_worker_max_fds", "Most descriptors allowed.", h->max_fds);
	start_time(
	    out, "aviary_worker_start_time_seconds", "When it started, since 1970.", h->start_ms);
	metrics_gauge(out, "aviary_disk_free_bytes",
	    "Free space of the file system below the state directory.", h->disk_free_bytes);
}
