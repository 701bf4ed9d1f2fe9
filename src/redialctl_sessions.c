/* SPDX-License-Identifier: MIT */
#include "redialctl_internal.h"

#include "human.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>

struct row {
    const json_t *session, *before;
    double start_ms; /* by the daemon's clock */
};

static int
by_id(const void *x, const void *y)
{
    double a = doc_number(((const struct row *)x)->session, "id");
    double b = doc_number(((const struct row *)y)->session, "id");

    return (a > b) - (a < b);
}

static int
compare_text(const struct row *a, const struct row *b, const char *key)
{
    return strcmp(doc_text(a->session, key), doc_text(b->session, key));
}

/* By proxy, the oldest first: the order in which they are shown. */
static int
by_age(const void *x, const void *y)
{
    const struct row *a = x, *b = y;
    int order = compare_text(a, b, "proxy");

    if (order == 0)
        order = (a->start_ms > b->start_ms) - (a->start_ms < b->start_ms);
    return order;
}

static struct row *
rows_of(const json_t *doc, size_t *n)
{
    const json_t *sessions = doc_at(doc, "sessions");
    struct row *rows;

    *n = json_array_size(sessions);
    rows = calloc(*n + 1, sizeof(*rows));
    if (!rows)
        ctl_out_of_memory();
    for (size_t i = 0; i < *n; i++) {
        rows[i].session = json_array_get(sessions, i);
        rows[i].start_ms = doc_number(doc, "now") * 1000 - doc_number(rows[i].session, "age_ms");
    }
    qsort(rows, *n, sizeof(*rows), by_id);
    return rows;
}

/* Sessions are known by their ids, as long as both documents are of one process. */
static void
match(struct row *now, size_t n, const json_t *before_doc)
{
    size_t n_before, k = 0;
    struct row *before = rows_of(before_doc, &n_before);

    for (size_t i = 0; i < n; i++) {
        while (k < n_before && by_id(&before[k], &now[i]) < 0)
            k++;
        if (k < n_before && doc_has_number(now[i].session, "id") && by_id(&before[k], &now[i]) == 0)
            now[i].before = before[k++].session;
    }
    free(before);
}

static void
cells_of_bytes(struct table *t, const struct row *row, const char *key, double seconds)
{
    double rate = doc_rate(row->session, row->before, key, seconds);

    table_cell(t, TINT_NONE, "%s", human_bytes(doc_number(row->session, key)).s);
    table_cell(t, rate > 0 ? TINT_NONE : TINT_FAINT, "%s", human_rate(rate).s);
}

static void
put_row(struct table *t, const struct row *row, double seconds)
{
    const char *server = doc_text(row->session, "server");
    bool waits = strcmp(doc_text(row->session, "state"), "waiting") == 0;

    table_cell(t, TINT_BOLD, "%s", doc_text(row->session, "proxy"));
    table_cell(t, TINT_NONE, "%s", doc_text(row->session, "client"));
    if (waits || *server == '\0')
        table_cell(t, TINT_WARN, "waiting for %s", doc_text(row->session, "upstream"));
    else
        table_cell(t, TINT_NONE, "%s", server);
    table_cell(t, TINT_NONE, "%s", human_age(doc_number(row->session, "age_ms")).s);
    table_cell(t, TINT_NONE, "%s", human_age(doc_number(row->session, "idle_ms")).s);
    cells_of_bytes(t, row, "bytes_to_server", seconds);
    cells_of_bytes(t, row, "bytes_to_client", seconds);
}

static void
put_sessions(struct screen *s, const json_t *now, const json_t *before)
{
    static const struct table_column columns[] = {
        {"PROXY", false, 8, 0, false, false},   {"CLIENT", false, 15, 0, false, false},
        {"SERVER", false, 15, 0, false, false}, {"AGE", true, 0, 0, false, false},
        {"IDLE", true, 0, 2, false, false},     {"TO SERVER", true, 0, 0, false, false},
        {"RATE", true, 0, 1, false, false},     {"TO CLIENT", true, 0, 0, false, false},
        {"RATE", true, 0, 1, false, false},
    };
    struct table *t = table_new(columns, sizeof(columns) / sizeof(columns[0]));
    size_t n, waiting = 0;
    struct row *rows = rows_of(now, &n);
    double seconds = doc_seconds(now, before);

    if (!t)
        ctl_out_of_memory();
    if (seconds > 0)
        match(rows, n, before);
    qsort(rows, n, sizeof(*rows), by_age);
    for (size_t i = 0; i < n; i++) {
        put_row(t, &rows[i], seconds);
        waiting += strcmp(doc_text(rows[i].session, "state"), "waiting") == 0;
    }
    if (n > 0) {
        table_print(t, s);
        screen_end(s);
    }
    screen_add(s, TINT_NONE, "%zu session%s, %zu waiting", n, n == 1 ? "" : "s", waiting);
    if (doc_true(now, "truncated") && doc_number(now, "left_out") >= 1)
        screen_add(s, TINT_WARN, "; %.0f more are not shown", doc_number(now, "left_out"));
    else if (doc_true(now, "truncated"))
        screen_add(s, TINT_WARN, "; there are more than are shown");
    screen_end(s);
    table_free(t);
    free(rows);
}

int
ctl_sessions(const struct ctl_options *o)
{
    struct remote *remote = remote_open(o->socket);
    json_t *before = NULL, *now = remote_doc(remote, "/sessions", REMOTE_TIMEOUT_MS);
    struct screen s;

    if (now && !o->json && o->interval_ms > 0) {
        before = now;
        ctl_sleep(o->interval_ms);
        now = remote_doc(remote, "/sessions", REMOTE_TIMEOUT_MS);
    }
    if (!now) {
        ctl_say("%s", remote_why(remote));
    } else if (o->json) {
        doc_print(now);
    } else {
        screen_init(&s, stdout);
        put_sessions(&s, now, before);
    }
    int status = !now ? CTL_UNREACHABLE : doc_true(now, "truncated") ? CTL_NO : CTL_OK;
    json_decref(before);
    json_decref(now);
    remote_close(remote);
    return status;
}
