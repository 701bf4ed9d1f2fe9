/* SPDX-License-Identifier: MIT */
#include "session_internal.h"

#include "generation.h"
#include "monotonic.h"
#include "process.h"
#include "server.h"

#include <stdlib.h>

void
session_abort_at(struct session_host *host, const struct process_server *server)
{
    struct session *s, *next;

    for (s = TAILQ_FIRST(&host->sessions); s; s = next) {
        next = TAILQ_NEXT(s, link);
        if (s->server && s->server->shared == server)
            session_abort(s, SESSION_DISABLED);
    }
}

void
session_list_begin(struct session_host *host)
{
    host->next_row = TAILQ_FIRST(&host->sessions);
}

static uint64_t
ms_since(double then, double now)
{
    return now > then ? (uint64_t)((now - then) * 1e3) : 0;
}

static void
write_row(const struct session *s, double now, struct session_row *row)
{
    const struct addr client = session_addr(&s->client);

    *row = (struct session_row){
        .id = s->id,
        .client = s->client,
        .client_len = client.len,
        .age_ms = ms_since(s->accepted_at, now),
        .idle_ms = ms_since(s->accepted_at, now),
    };
    if (!s->server)
        return;
    row->server = process_server_get(s->server->shared);
    row->idle_ms = ms_since(s->relay.last_byte, now); /* by a clock that lags behind */
    if (row->idle_ms > row->age_ms)
        row->idle_ms = row->age_ms;
    row->bytes[RELAY_CLIENT] = s->relay.dir[RELAY_CLIENT].bytes;
    row->bytes[RELAY_SERVER] = s->relay.dir[RELAY_SERVER].bytes;
}

size_t
session_list(struct session_host *host, struct session_row *rows, size_t max)
{
    double now = monotonic_s();
    size_t n = 0;

    for (; host->next_row && n < max; n++) {
        write_row(host->next_row, now, &rows[n]);
        host->next_row = TAILQ_NEXT(host->next_row, link);
    }
    return n;
}

void
session_census_free(struct session_census *census)
{
    struct session_rows *rows, *next;

    if (!census)
        return;
    for (rows = census->first; rows; rows = next) {
        next = rows->next;
        for (size_t i = 0; i < rows->n; i++)
            process_server_put(rows->rows[i].server);
        generation_put(rows->generation);
        free(rows);
    }
    free(census);
}
