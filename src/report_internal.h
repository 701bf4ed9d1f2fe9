/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_REPORT_INTERNAL_H
#define REDIAL_REPORT_INTERNAL_H

#include "health.h"
#include "report.h"
#include "stats.h"

#include <stdbool.h>

/*
 * What the parts of report share.
 *
 *   report           how things are, read once
 *   report_metrics   as metrics
 *   report_status    as JSON
 *   report_sessions  sessions as JSON
 */

struct addr;
struct process_server;

/* A server at this moment. */
struct report_server {
    struct stats_server stats;
    enum health_state state;
    bool is_disabled;
    const char *reason; /* why it is not up; NULL: it is, or nobody knows */
    uint64_t since_ms;  /* of the wall clock; 0: never */
    uint64_t pause_ms, retry_in_ms;
    unsigned sessions;
};

/** report_server_read(report, shared, server): cannot fail. */
void report_server_read(const struct report *report, const struct process_server *shared,
                        struct report_server *server);

/** report_now_s(): the time of the wall clock. Cannot fail. */
double report_now_s(void);

/** report_is_in_range(report, addr): may the kernel give the port of ${addr} to any outgoing connection? */
bool report_is_in_range(const struct report *report, const struct addr *addr);

#endif
