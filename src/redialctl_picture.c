/* SPDX-License-Identifier: MIT */
#include "redialctl_internal.h"

#include "human.h"
#include "table.h"

#include <string.h>
#include <time.h>

#define SECOND 1000.

/* A document, and the one before it. */
struct pair {
    const json_t *now, *before;
    double seconds; /* between them; 0: no rates */
};

static struct table *
new_table(const struct table_column *columns, size_t n)
{
    struct table *t = table_new(columns, n);

    if (!t)
        ctl_out_of_memory();
    return t;
}

static double
age_ms(const json_t *doc, double at)
{
    return (doc_number(doc, "now") - at) * SECOND;
}

static void
put_summary(struct screen *s, const json_t *doc)
{
    static const struct {
        const char *phase, *text;
    } phases[] = {{"serving", "serving"},
                  {"lame_duck", "ending: still accepting"},
                  {"draining", "ending: no new clients"},
                  {"cutting", "ending: sessions are cut"}};
    const char *phase = doc_text(doc, "phase"), *text = phase;
    bool serves = strcmp(phase, "serving") == 0;

    for (size_t i = 0; i < sizeof(phases) / sizeof(phases[0]); i++)
        if (strcmp(phase, phases[i].phase) == 0)
            text = phases[i].text;
    screen_add(s, serves ? TINT_GOOD : TINT_WARN, "%s ", screen_bullet(s));
    screen_add(s, TINT_BOLD, "rediald %s", doc_text(doc, "version"));
    screen_add(s, TINT_NONE, "  ");
    screen_add(s, serves ? TINT_GOOD : TINT_WARN, "%s", text);
    screen_add(s, TINT_FAINT, "  up %s, pid %.0f, %.0f worker%s",
               human_age(age_ms(doc, doc_number(doc, "started_at"))).s, doc_number(doc, "pid"),
               doc_number(doc, "workers"), doc_number(doc, "workers") == 1 ? "" : "s");
    screen_end(s);
}

static void
count_servers(const json_t *doc, unsigned *up, unsigned *all)
{
    const json_t *upstreams = doc_at(doc, "upstreams");

    *up = *all = 0;
    for (size_t i = 0; i < json_array_size(upstreams); i++) {
        const json_t *servers = doc_at(json_array_get(upstreams, i), "servers");
        for (size_t k = 0; k < json_array_size(servers); k++, ++*all)
            *up += strcmp(doc_text(json_array_get(servers, k), "state"), "up") == 0;
    }
}

static void
put_totals(struct screen *s, const json_t *doc)
{
    double waiting = doc_number(doc, "sessions.waiting"), caught = doc_number(doc, "self_connects");
    unsigned up, all;

    count_servers(doc, &up, &all);
    screen_add(s, TINT_NONE, "  %s of %s sessions",
               human_count(doc_number(doc, "sessions.active")).s,
               human_count(doc_number(doc, "sessions.max")).s);
    screen_add(s, TINT_NONE, ", ");
    screen_add(s, waiting > 0 ? TINT_WARN : TINT_NONE, "%s waiting", human_count(waiting).s);
    screen_add(s, TINT_NONE, ", ");
    screen_add(s, up < all ? TINT_WARN : TINT_NONE, "%u of %u servers up", up, all);
    screen_add(s, TINT_NONE, ", %s self-connection%s caught", human_count(caught).s,
               caught == 1 ? "" : "s");
    screen_end(s);
}

static void
put_config(struct screen *s, const json_t *doc)
{
    const json_t *files = doc_at(doc, "config.files"), *reload = doc_at(doc, "config.last_reload");
    const json_t *errors = doc_at(reload, "errors");
    size_t n = json_array_size(files);

    screen_add(s, TINT_FAINT, "  %s",
               n > 0 ? doc_text(json_array_get(files, 0), "") : "the command line");
    if (n > 1)
        screen_add(s, TINT_FAINT, " and %zu more", n - 1);
    screen_add(s, TINT_FAINT, ", loaded %s ago",
               human_age(age_ms(doc, doc_number(doc, "config.loaded_at"))).s);
    screen_end(s);
    if (!json_is_object(reload) || doc_true(reload, "ok"))
        return;
    screen_add(s, TINT_BAD, "  The reload %s ago was refused, nothing has changed:",
               human_age(age_ms(doc, doc_number(reload, "at"))).s);
    screen_end(s);
    for (size_t i = 0; i < json_array_size(errors); i++) {
        screen_add(s, TINT_NONE, "    ");
        screen_wrap(s, 4, TINT_NONE, doc_text(json_array_get(errors, i), ""));
    }
}

/* `9', or `9/100' with a limit. */
static void
cell_of_limited(struct table *t, const json_t *doc)
{
    double active = doc_number(doc, "active"), max = doc_number(doc, "max");

    if (doc_has_number(doc, "max"))
        table_cell(t, active >= max ? TINT_WARN : TINT_NONE, "%s/%s", human_count(active).s,
                   human_count(max).s);
    else
        table_cell(t, TINT_NONE, "%s", human_count(active).s);
}

static void
cells_of_traffic(struct table *t, const struct pair *p)
{
    double to_server = doc_rate(p->now, p->before, "bytes.to_server", p->seconds);
    double to_client = doc_rate(p->now, p->before, "bytes.to_client", p->seconds);

    table_cell(t, to_server > 0 ? TINT_NONE : TINT_FAINT, "%s", human_rate(to_server).s);
    table_cell(t, to_client > 0 ? TINT_NONE : TINT_FAINT, "%s", human_rate(to_client).s);
}

/* Sessions that came to no server. */
static double
unserved(const json_t *ended)
{
    static const char *const reasons[] = {"no_server", "wait_timeout",     "queue_full",
                                          "denied",    "bad_proxy_header", "loop",
                                          "internal"};
    double sum = 0;

    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        sum += doc_number(ended, reasons[i]);
    return sum;
}

static void
rows_of_proxy(struct table *t, const struct pair *p)
{
    const json_t *listens = doc_at(p->now, "listens"), *listen = json_array_get(listens, 0);
    double failed = unserved(doc_at(p->now, "sessions.ended"));
    double new = doc_rate(p->now, p->before, "sessions.total", p->seconds);

    table_cell(t, TINT_BOLD, "%s", doc_text(p->now, "name"));
    table_cell(t, doc_true(listen, "in_ephemeral_range") ? TINT_WARN : TINT_NONE, "%s",
               doc_text(listen, "address"));
    table_cell(t, TINT_NONE, "%s", doc_text(p->now, "upstream"));
    cell_of_limited(t, doc_at(p->now, "sessions"));
    if (new < 0)
        table_cell(t, TINT_FAINT, "-");
    else
        table_cell(t, new > 0 ? TINT_NONE : TINT_FAINT, "%.1f/s", new);
    cells_of_traffic(t, p);
    table_cell(t, TINT_NONE, "%s", human_count(doc_number(p->now, "sessions.total")).s);
    table_cell(t, failed > 0 ? TINT_WARN : TINT_FAINT, "%s", human_count(failed).s);
    for (size_t i = 1; i < json_array_size(listens); i++) {
        listen = json_array_get(listens, i);
        table_cell(t, TINT_NONE, "%s", "");
        table_cell(t, doc_true(listen, "in_ephemeral_range") ? TINT_WARN : TINT_NONE, "%s",
                   doc_text(listen, "address"));
        for (unsigned c = 2; c < 9; c++)
            table_cell(t, TINT_NONE, "%s", "");
    }
}

static void
put_proxies(struct screen *s, const struct pair *p)
{
    static const struct table_column columns[] = {
        {"PROXY", false, 8, 0, false, false},    {"LISTENS ON", false, 15, 0, false, false},
        {"UPSTREAM", false, 8, 4, false, false}, {"SESSIONS", true, 0, 0, false, false},
        {"NEW", true, 0, 3, false, false},       {"TO SERVER", true, 0, 2, false, false},
        {"TO CLIENT", true, 0, 2, false, false}, {"TOTAL", true, 0, 6, false, false},
        {"UNSERVED", true, 0, 5, false, false},
    };
    const json_t *now = doc_at(p->now, "proxies"), *before = doc_at(p->before, "proxies");
    struct table *t = new_table(columns, sizeof(columns) / sizeof(columns[0]));

    for (size_t i = 0; i < json_array_size(now); i++) {
        const json_t *proxy = json_array_get(now, i);
        rows_of_proxy(t, &(struct pair){proxy, doc_find(before, "name", doc_text(proxy, "name")),
                                        p->seconds});
    }
    table_print(t, s);
    table_free(t);
}

static enum tint
tint_of_state(const json_t *server)
{
    const char *state = doc_text(server, "state");

    if (json_is_false(doc_at(server, "enabled")))
        return TINT_WARN;
    if (strcmp(state, "up") == 0)
        return TINT_GOOD;
    return strcmp(state, "down") == 0 ? TINT_BAD : TINT_WARN;
}

static void
cell_of_state(struct table *t, const json_t *server)
{
    const char *reason = doc_text(server, "reason"), *state = doc_text(server, "state");

    if (json_is_false(doc_at(server, "enabled")))
        table_cell(t, TINT_WARN, "disabled");
    else if (*reason != '\0' && strcmp(state, "up") != 0)
        table_cell(t, tint_of_state(server), "%s: %s", state, reason);
    else
        table_cell(t, tint_of_state(server), "%s", state);
}

/* What is not as with every server. */
static void
cell_of_notes(struct table *t, const json_t *server)
{
    double weight = doc_number(server, "weight"), caught = doc_number(server, "self_connects");
    const json_t *addresses = doc_at(server, "addresses");
    const char *name = doc_text(server, "name"),
               *first = doc_text(json_array_get(addresses, 0), "");
    size_t n = json_array_size(addresses);
    char notes[256];
    FILE *f = fmemopen(notes, sizeof(notes), "w");

    if (!f)
        ctl_out_of_memory();
    notes[0] = notes[sizeof(notes) - 1] = '\0';
    if (*first != '\0' && strcmp(first, name) != 0)
        fprintf(f, ", %.100s", first);
    if (n > 1)
        fprintf(f, " and %zu more", n - 1);
    if (doc_true(server, "backup"))
        fprintf(f, ", backup");
    if (weight > 1)
        fprintf(f, ", weight %.0f", weight);
    if (caught > 0)
        fprintf(f, ", %s self-connection%s", human_count(caught).s, caught == 1 ? "" : "s");
    fclose(f);
    table_cell(t, TINT_FAINT, "%s", notes + strspn(notes, ", "));
}

/* The first server of an upstream has its name and line beside it. */
static void
row_of_server(struct table *t, const struct pair *p, const json_t *doc, const json_t *upstream)
{
    double waiting = doc_number(upstream, "waiting");
    double since = doc_number(p->now, "since"), wanted = doc_number(p->now, "standby.wanted");

    table_cell(t, TINT_BOLD, "%s", doc_text(upstream, "name"));
    if (upstream)
        table_cell(t, waiting > 0 ? TINT_WARN : TINT_FAINT, "%s", human_count(waiting).s);
    else
        table_cell(t, TINT_NONE, "%s", "");
    table_cell(t, TINT_NONE, "%s", doc_text(p->now, "name"));
    table_mark(t, tint_of_state(p->now));
    cell_of_state(t, p->now);
    table_cell(t, TINT_NONE, "%s", since > 0 ? human_age(age_ms(doc, since)).s : "-");
    if (doc_has_number(p->now, "retry_in_ms"))
        table_cell(t, TINT_NONE, "%s", human_age(doc_number(p->now, "retry_in_ms")).s);
    else
        table_cell(t, TINT_NONE, "%s", "");
    cell_of_limited(t, doc_at(p->now, "sessions"));
    table_cell(t, wanted > 0 ? TINT_NONE : TINT_FAINT, "%.0f/%.0f",
               doc_number(p->now, "standby.idle"), wanted);
    cells_of_traffic(t, p);
    cell_of_notes(t, p->now);
}

static void
put_servers(struct screen *s, const struct pair *p)
{
    static const struct table_column columns[] = {
        {"UPSTREAM", false, 8, 0, false, false}, {"WAITING", true, 0, 0, false, false},
        {"SERVER", false, 17, 0, false, false},  {"STATE", false, 0, 0, false, false},
        {"SINCE", true, 0, 0, false, false},     {"DIAL IN", true, 0, 1, true, false},
        {"SESSIONS", true, 0, 0, false, false},  {"STANDBY", true, 0, 2, false, false},
        {"TO SERVER", true, 0, 3, false, false}, {"TO CLIENT", true, 0, 3, false, false},
        {"", false, 12, 4, true, true},
    };
    const json_t *now = doc_at(p->now, "upstreams"), *before = doc_at(p->before, "upstreams");
    struct table *t = new_table(columns, sizeof(columns) / sizeof(columns[0]));

    for (size_t i = 0; i < json_array_size(now); i++) {
        const json_t *upstream = json_array_get(now, i), *servers = doc_at(upstream, "servers");
        const json_t *old = doc_at(doc_find(before, "name", doc_text(upstream, "name")), "servers");
        for (size_t k = 0; k < json_array_size(servers); k++) {
            const json_t *server = json_array_get(servers, k);
            struct pair pair = {server, doc_find(old, "name", doc_text(server, "name")),
                                p->seconds};
            row_of_server(t, &pair, p->now, k == 0 ? upstream : NULL);
        }
    }
    table_print(t, s);
    table_free(t);
}

/* What somebody should do something about. */
static void
put_hints(struct screen *s, const json_t *doc)
{
    const json_t *proxies = doc_at(doc, "proxies");
    double dropped = doc_number(doc, "log_dropped");
    unsigned risky = 0;

    for (size_t i = 0; i < json_array_size(proxies); i++) {
        const json_t *listens = doc_at(json_array_get(proxies, i), "listens");
        for (size_t k = 0; k < json_array_size(listens); k++)
            risky += doc_true(json_array_get(listens, k), "in_ephemeral_range");
    }
    if (risky > 0) {
        screen_end(s);
        screen_add(s, TINT_WARN, "! ");
        screen_add(s, TINT_NONE, "%u listen port%s in the ephemeral range: see redialctl doctor",
                   risky, risky == 1 ? "" : "s");
        screen_end(s);
    }
    if (dropped > 0) {
        screen_end(s);
        screen_add(s, TINT_WARN, "! ");
        screen_add(s, TINT_NONE, "%s lines of the log were dropped: its reader is too slow",
                   human_count(dropped).s);
        screen_end(s);
    }
}

static enum tint
tint_of_level(const char *level)
{
    if (strcmp(level, "error") == 0)
        return TINT_BAD;
    return strcmp(level, "warning") == 0 ? TINT_WARN : TINT_NONE;
}

void
picture_events(struct screen *s, const json_t *now, size_t n)
{
    const json_t *events = doc_at(now, "events");
    size_t all = json_array_size(events);

    if (n == 0 || all == 0)
        return;
    screen_end(s);
    for (size_t i = all > n ? all - n : 0; i < all; i++) {
        const json_t *event = json_array_get(events, i);
        double at = doc_number(event, "at");
        bool is_old = age_ms(now, at) >= 24 * 3600 * SECOND;
        time_t seconds = at > 0 && at < 1e11 ? (time_t)at : 0;
        char when[32] = "";
        struct tm tm;

        if (localtime_r(&seconds, &tm))
            strftime(when, sizeof(when), is_old ? "%b %d %H:%M" : "%H:%M:%S", &tm);
        screen_add(s, TINT_FAINT, "%s  ", when);
        screen_add(s, tint_of_level(doc_text(event, "level")), "%s", doc_text(event, "message"));
        screen_end(s);
    }
}

void
picture_put(struct screen *s, const json_t *now, const json_t *before, size_t n_events)
{
    struct pair pair = {now, before, doc_seconds(now, before)};

    put_summary(s, now);
    put_totals(s, now);
    put_config(s, now);
    screen_end(s);
    put_proxies(s, &pair);
    screen_end(s);
    put_servers(s, &pair);
    put_hints(s, now);
    picture_events(s, now, n_events);
}
