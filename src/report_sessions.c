/* SPDX-License-Identifier: MIT */
#include "report_internal.h"

#include "addr.h"
#include "conf.h"
#include "generation.h"
#include "json.h"
#include "process.h"
#include "relay.h"
#include "session.h"

#include <unistd.h>

static void
put_session(struct json *j, const struct session_rows *rows, const struct session_row *row)
{
    const struct conf_proxy *proxy = &rows->generation->conf->proxies[rows->proxy];
    struct addr client;
    char buf[ADDR_STR_MAX];

    addr_from_sockaddr(&client, (const struct sockaddr *)&row->client, row->client_len);
    client = addr_unmap(&client);
    json_open(j, NULL, '{');
    json_uint(j, "id", row->id);
    json_str(j, "proxy", proxy->name);
    json_str(j, "client", addr_str(&client, buf));
    json_str(j, "upstream", proxy->upstream->name);
    json_str(j, "server", row->server ? row->server->name : NULL);
    json_str(j, "state", row->server ? "relaying" : "waiting");
    json_uint(j, "age_ms", row->age_ms);
    json_uint(j, "idle_ms", row->idle_ms);
    json_uint(j, "bytes_to_server", row->bytes[RELAY_CLIENT]);
    json_uint(j, "bytes_to_client", row->bytes[RELAY_SERVER]);
    json_close(j, '}');
}

/* Returns how many there is room for after those. */
static size_t
put_rows(struct json *j, const struct session_rows *rows, size_t room)
{
    size_t n = rows->n < room ? rows->n : room;

    for (size_t i = 0; i < n; i++)
        put_session(j, rows, &rows->rows[i]);
    return room - n;
}

void
report_sessions(const struct report *r, struct session_census *const *censuses, size_t n, FILE *out)
{
    struct json j = {.out = out};
    size_t room = SESSION_ROWS_MAX, n_all = 0;
    bool is_cut = false;

    json_open(&j, NULL, '{');
    json_uint(&j, "schema", 1);
    json_uint(&j, "pid", (uint64_t)getpid());
    json_seconds(&j, "started_at", (double)r->started_ms / 1e3);
    json_seconds(&j, "now", report_now_s());
    json_open(&j, "sessions", '[');
    for (size_t i = 0; i < n; i++) {
        is_cut |= !censuses[i] || censuses[i]->is_cut;
        n_all += censuses[i] ? censuses[i]->n : 0;
        for (const struct session_rows *rows = censuses[i] ? censuses[i]->first : NULL; rows;
             rows = rows->next)
            room = put_rows(&j, rows, room);
    }
    json_close(&j, ']');
    json_bool(&j, "truncated", is_cut || n_all > SESSION_ROWS_MAX);
    json_close(&j, '}');
    putc('\n', out);
}
