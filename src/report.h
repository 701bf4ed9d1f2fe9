/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_REPORT_H
#define REDIAL_REPORT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct generation;
struct process;
struct session_census;

/* What goes on, for programs and people: as metrics, as a state in JSON, and session by session. Reads what the workers publish, and waits for none of them. */
struct report {
    const struct generation *generation; /* what is served */
    const struct process *process;
    const char *phase; /* of the daemon */
    uint64_t started_ms,
        loaded_ms; /* the process, and the configuration that is served; wall clock, here and below */
    uint64_t reloads_ok, reloads_failed;
    uint64_t reload_ms;        /* when the last one ended; 0: there was none */
    const char *reload_faults; /* why it failed, a line each; NULL: it did not */
};

/** report_metrics(report, out): in the text format of Prometheus. Cannot fail, but for ${out}. */
void report_metrics(const struct report *report, FILE *out);

/** report_status(report, out): as a JSON object, version 1 of what rediald(8) tells. */
void report_status(const struct report *report, FILE *out);

/** report_sessions(report, censuses, n, out): what the ${n} workers have listed, as a JSON object; one that is NULL could not. */
void report_sessions(const struct report *report, struct session_census *const *censuses, size_t n,
                     FILE *out);

#endif
