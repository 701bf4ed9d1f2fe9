/* SPDX-License-Identifier: MIT */
#include "report_internal.h"

#include "addr.h"
#include "dialer.h"
#include "generation.h"
#include "limit.h"
#include "monotonic.h"
#include "portrange.h"
#include "process.h"

#include <time.h>

static const char *
reason_str(int reason)
{
    if (reason == REASON_NONE)
        return NULL;
    return reason == REASON_HUNG_UP ? "hung_up" : dial_result_str((enum dial_result)reason);
}

void
report_server_read(const struct report *report, const struct process_server *shared,
                   struct report_server *server)
{
    const struct process_news *news = &shared->news;
    uint64_t now = monotonic_ms(), retry_at = stats_get(&news->retry_at_ms);

    stats_server_sum(shared->stats, report->process->n_workers, &server->stats);
    server->state = (enum health_state)(atomic_load_explicit(&shared->state, memory_order_relaxed) &
                                        ~PROCESS_TAINTED);
    server->is_disabled = atomic_load_explicit(&shared->is_disabled, memory_order_relaxed);
    server->reason = reason_str(atomic_load_explicit(&news->reason, memory_order_relaxed));
    server->since_ms = stats_get(&news->since_ms);
    server->pause_ms = stats_get(&news->pause_ms);
    server->retry_in_ms = retry_at > now ? retry_at - now : 0;
    server->sessions = limit_used(&shared->sessions);
    if (server->state == HEALTH_UP)
        server->reason = NULL;
}

bool
report_is_in_range(const struct report *report, const struct addr *addr)
{
    return addr_is_inet(addr) && portrange_is_risky(&report->generation->range, addr_port(addr));
}

double
report_now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}
