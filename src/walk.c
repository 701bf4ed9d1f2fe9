/* SPDX-License-Identifier: MIT */
#include "walk.h"

#include "addrlist.h"
#include "conf.h"
#include "log.h"
#include "monotonic.h"
#include "stats.h"

#include <stddef.h>

static void on_dialled(void *arg, int fd, enum dial_result result, int err);

#define X(name, text, sentence) +1
_Static_assert(0 DIAL_RESULTS(X) <= STATS_DIALS_MAX, "");
#undef X

static void
finish(struct walk *w, int fd, enum dial_result result, int err)
{
    void (*done)(void *arg, int fd, enum dial_result result, int err) = w->done;
    void *arg = w->arg;

    stats_add(&w->opts.stats->dials[result], 1);
    if (result == DIAL_OK)
        stats_observe(&w->opts.stats->dialled, monotonic_s() - w->began);
    walk_cancel(w);
    done(arg, fd, result, err);
}

static void
on_nowhere(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    finish((struct walk *)((char *)timer - offsetof(struct walk, nowhere)), -1, DIAL_UNRESOLVED, 0);
}

static void
on_self_connect(const struct dial_opts *opts)
{
    const struct walk *w =
        (const struct walk *)((const char *)opts - offsetof(struct walk, dial_opts));

    w->opts.dial->on_self_connect(w->opts.dial);
}

/* What is left for each of the addresses that are left. */
static uint64_t
share_ms(const struct walk *w)
{
    double left_ms = (w->deadline - monotonic_s()) * 1e3 / (w->opts.addrs->n - w->next);

    return left_ms > 1. ? (uint64_t)left_ms : 1;
}

static void
dial_next(struct walk *w)
{
    const struct addr *addr = &w->opts.addrs->addrs[w->next];

    if (w->opts.addrs->n > 1)
        w->dial_opts.timeout_ms = share_ms(w);
    w->next++;
    w->dial_opts.refuse_if_local = conf_server_may_loop(w->opts.server, addr);
    w->is_dialling = true;
    dialer_start(&w->dial, addr, &w->dial_opts, w->endpoint, on_dialled, w);
}

/* Of one among several: who reads the server's state does not see which are dead. */
static void
log_failed(const struct walk *w, enum dial_result result)
{
    char addr[ADDR_STR_MAX];

    if (w->opts.addrs->n == 1 || !log_is_on(LOG_DEBUG))
        return;
    addr_str(&w->opts.addrs->addrs[w->next - 1], addr);
    log_event(LOG_DEBUG, "dial_failed",
              LOG_FIELDS(LOG_STR("upstream", w->opts.upstream->name),
                         LOG_STR("server", w->opts.server->name), LOG_STR("address", addr),
                         LOG_STR("reason", dial_result_str(result))),
              "upstream %s: server %s: no connection to %s: %s", w->opts.upstream->name,
              w->opts.server->name, addr, dial_result_sentence(result));
}

static void
on_dialled(void *arg, int fd, enum dial_result result, int err)
{
    struct walk *w = arg;

    w->is_dialling = false;
    if (result == DIAL_OK || result == DIAL_SHORTAGE) {
        finish(w, fd, result, err);
        return;
    }
    log_failed(w, result);
    if (w->next == 1) {
        w->result = result;
        w->err = err;
    }
    if (w->next == w->opts.addrs->n)
        finish(w, -1, w->result, w->err);
    else
        dial_next(w);
}

void
walk_start(struct walk *w, const struct walk_opts *opts, struct endpoint *endpoint,
           void (*done)(void *arg, int fd, enum dial_result result, int err), void *arg)
{
    *w = (struct walk){
        .is_active = true,
        .opts = *opts,
        .endpoint = endpoint,
        .dial_opts = *opts->dial,
        .began = monotonic_s(),
        .done = done,
        .arg = arg,
    };
    ev_timer_init(&w->nowhere, on_nowhere, 0., 0.);
    if (w->dial_opts.on_self_connect)
        w->dial_opts.on_self_connect = on_self_connect;
    if (!opts->addrs) {
        ev_feed_event(w->dial_opts.loop, &w->nowhere, EV_CUSTOM);
        return;
    }
    addrlist_get(w->opts.addrs);
    if (opts->addrs->n > 1)
        w->deadline = w->began + (double)opts->dial->timeout_ms / 1e3;
    dial_next(w);
}

void
walk_cancel(struct walk *w)
{
    if (!w->is_active)
        return;
    w->is_active = false;
    ev_clear_pending(w->dial_opts.loop, &w->nowhere);
    if (w->is_dialling)
        dialer_cancel(&w->dial);
    addrlist_put(w->opts.addrs);
}
