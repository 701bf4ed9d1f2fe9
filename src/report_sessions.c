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

/* Those of one worker, as far as ${room} goes. Returns how many. */
static size_t
put_census(struct json *j, const struct session_census *census, size_t room)
{
    size_t n = 0;

    for (const struct session_rows *rows = census->first; rows; rows = rows->next) {
        for (size_t i = 0; i < rows->n && n < room; i++, n++)
            put_session(j, rows, &rows->rows[i]);
    }
    return n;
}

void
report_sessions(const struct report *r, struct session_census *const *censuses, size_t n, FILE *out)
{
    struct json j = {.out = out};
    size_t n_put = 0, n_left = 0;
    bool is_known = true; /* how many are left out */

    json_open(&j, NULL, '{');
    json_uint(&j, "schema", 1);
    json_uint(&j, "pid", (uint64_t)getpid());
    json_seconds(&j, "started_at", (double)r->started_ms / 1e3);
    json_seconds(&j, "now", report_now_s());
    json_open(&j, "sessions", '[');
    for (size_t i = 0; i < n; i++) {
        if (!censuses[i]) {
            is_known = false;
            continue;
        }
        size_t n_of_it = put_census(&j, censuses[i], SESSION_ROWS_MAX - n_put);
        n_put += n_of_it;
        n_left += censuses[i]->n - n_of_it + censuses[i]->n_left;
    }
    json_close(&j, ']');
    json_bool(&j, "truncated", n_left > 0 || !is_known);
    if (is_known)
        json_uint(&j, "left_out", n_left);
    else
        json_none(&j, "left_out");
    json_close(&j, '}');
    putc('\n', out);
}
