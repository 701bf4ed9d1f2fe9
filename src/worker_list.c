/* SPDX-License-Identifier: MIT */
/*
 * A worker that serves is not to stand still because somebody looks: it lists WORKER_ROWS_IN_TURN sessions in a turn of its loop, and sends itself a flag for the next ones.
 */
#include "worker_internal.h"

#include "conf.h"
#include "generation.h"
#include "mailbox.h"
#include "process.h"
#include "session.h"

#include <errno.h>
#include <stdlib.h>

static void
begin(struct proxy *proxy, void *arg)
{
    (void)arg;
    session_list_begin(proxy_host(proxy));
}

/* So many may be listed in this turn. */
struct turn {
    struct session_census *census;
    size_t room;
};

/* The next sessions of ${proxy}, or NULL. */
static struct session_rows *
list(struct proxy *proxy, size_t max)
{
    struct session_host *host = proxy_host(proxy);
    struct session_rows *rows = malloc(sizeof(*rows) + max * sizeof(rows->rows[0])), *fit;

    if (!rows)
        return NULL;
    rows->next = NULL;
    rows->generation = generation_get(proxy_generation(proxy));
    rows->proxy = (size_t)(host->conf - rows->generation->conf->proxies);
    rows->n = session_list(host, rows->rows, max);
    fit = realloc(rows, sizeof(*rows) + rows->n * sizeof(rows->rows[0]));
    return fit ? fit : rows;
}

static void
go_on(struct proxy *proxy, void *arg)
{
    struct turn *turn = arg;
    struct session_rows *rows;

    if (turn->room == 0 || !proxy_host(proxy)->next_row)
        return;
    rows = list(proxy, turn->room);
    if (!rows) {
        turn->census->is_cut = true;
        proxy_host(proxy)->next_row = NULL;
        return;
    }
    turn->room -= rows->n;
    turn->census->n += rows->n;
    *turn->census->last = rows;
    turn->census->last = &rows->next;
}

static void
look_for_more(struct proxy *proxy, void *arg)
{
    bool *is_more = arg;

    *is_more |= proxy_host(proxy)->next_row != NULL;
}

static void
stop(struct proxy *proxy, void *arg)
{
    (void)arg;
    proxy_host(proxy)->next_row = NULL;
}

static void
finish(struct worker *w, bool is_cut)
{
    struct session_census *c = w->counting;

    if (c && (is_cut || c->is_cut)) {
        c->is_cut = true;
        c->n_left = w->group.sessions > c->n ? w->group.sessions - c->n : 1;
    }
    atomic_store(&w->census, c);
    w->counting = NULL;
    worker_tell(w, WORKER_LISTED);
}

void
worker_list_begin(struct worker *w)
{
    w->counting = calloc(1, sizeof(*w->counting));
    if (w->counting)
        w->counting->last = &w->counting->first;
    worker_for_each_proxy(w, begin, NULL);
}

bool
worker_list_go_on(struct worker *w)
{
    struct turn turn = {.census = w->counting, .room = WORKER_ROWS_IN_TURN};
    bool is_more = false;

    if (w->counting) {
        worker_for_each_proxy(w, go_on, &turn);
        worker_for_each_proxy(w, look_for_more, &is_more);
        if (is_more && w->counting->n < SESSION_ROWS_MAX)
            return true;
    }
    worker_for_each_proxy(w, stop, NULL);
    finish(w, is_more);
    return false;
}

struct session_census *
worker_take_census(struct worker *w)
{
    return atomic_exchange(&w->census, NULL);
}

/* Whose sessions end. */
struct abort_letter {
    struct mail mail; /* first */
    struct worker *worker;
    struct process_server *server; /* a reference */
};

static void
abort_at(struct proxy *proxy, void *arg)
{
    session_abort_at(proxy_host(proxy), arg);
}

static void
discard(struct mail *mail)
{
    process_server_put(((struct abort_letter *)mail)->server);
}

static void
deliver(struct mail *mail)
{
    struct abort_letter *letter = (struct abort_letter *)mail;

    worker_for_each_proxy(letter->worker, abort_at, letter->server);
    discard(mail);
}

int
worker_abort_at(struct worker *w, struct process_server *server)
{
    struct abort_letter *letter = calloc(1, sizeof(*letter));

    if (!letter)
        return -1;
    letter->mail.deliver = deliver;
    letter->mail.discard = discard;
    letter->worker = w;
    letter->server = process_server_get(server);
    mailbox_post(w->mailbox, &letter->mail);
    return 0;
}
