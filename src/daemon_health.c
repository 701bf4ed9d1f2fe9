/* SPDX-License-Identifier: MIT */
/*
 * Do the workers' loops turn? Whoever asks for /healthz has them asked, and is answered once all have answered, or when one has owed its answer for STALL_MS. So a
 * single request is enough, and nobody is woken while none comes.
 */
#include "daemon_internal.h"

#include "admin.h"
#include "log.h"
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>

/* No work of a worker's takes so long: a turn with thousands of events, or with a table of thousands of proxies to go over, is some tenths of a second. */
#define STALL_MS 10000
/* An answer is good for so long: many requests wake no worker more often. */
#define FRESH_MS 1000

/* How long has the worst of them owed an answer? False: none does. */
static bool
is_any_still(const struct daemon *d, uint64_t *longest_ms)
{
    bool is_any = false;

    *longest_ms = 0;
    for (unsigned w = 0; w < d->n_workers; w++) {
        uint64_t still_ms = worker_still_ms(d->workers[w]);

        is_any |= !worker_is_alive(d->workers[w], UINT64_MAX);
        if (still_ms > *longest_ms)
            *longest_ms = still_ms;
    }
    return is_any;
}

static void
put_stalled(const struct daemon *d, FILE *out)
{
    for (unsigned w = 0; w < d->n_workers; w++) {
        uint64_t still_ms = worker_still_ms(d->workers[w]);

        if (still_ms >= STALL_MS)
            fprintf(out, "worker %u has not turned for %llu s\n", w,
                    (unsigned long long)still_ms / 1000);
    }
}

/* Whoever looks there may end us: the log has to say why. */
static void
log_stalled(struct daemon *d)
{
    for (unsigned w = 0; w < d->n_workers && !d->health.is_stall_told; w++) {
        uint64_t still_ms = worker_still_ms(d->workers[w]);

        if (still_ms >= STALL_MS)
            log_event(LOG_WARNING, "worker_stalled",
                      LOG_FIELDS(LOG_UINT("worker", w), LOG_UINT("for_ms", still_ms)),
                      "worker %u does not answer: /healthz says so", w);
    }
    d->health.is_stall_told = true;
}

static void
tell(const struct daemon *d, struct admin_later *later, bool is_healthy)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (out) {
        if (is_healthy)
            fputs("ok\n", out);
        else
            put_stalled(d, out);
        if (fclose(out) != 0) {
            free(text);
            text = NULL;
        }
    }
    admin_say(later, is_healthy, text, size);
}

static void
answer(struct daemon *d, bool is_healthy)
{
    struct daemon_health *h = &d->health;

    ev_timer_stop(d->loop, &h->timer);
    for (size_t i = 0; i < h->n_askers; i++)
        tell(d, h->askers[i], is_healthy);
    h->n_askers = 0;
}

/* Answer if there is an answer; else look again when there will be one in any case. */
static void
look(struct daemon *d)
{
    struct daemon_health *h = &d->health;
    uint64_t longest_ms;

    if (!is_any_still(d, &longest_ms)) {
        h->is_stall_told = false;
        answer(d, true);
    } else if (longest_ms >= STALL_MS) {
        log_stalled(d);
        answer(d, false);
    } else {
        ev_timer_stop(d->loop, &h->timer);
        ev_timer_set(&h->timer, (ev_tstamp)(STALL_MS - longest_ms) / 1e3, 0.);
        ev_timer_start(d->loop, &h->timer);
    }
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    look((struct daemon *)((char *)timer - offsetof(struct daemon, health.timer)));
}

void
daemon_health_init(struct daemon *d)
{
    ev_timer_init(&d->health.timer, on_timer, 0., 0.);
}

void
daemon_health_asked(struct daemon *d, struct admin_later *later)
{
    struct daemon_health *h = &d->health;
    struct admin_later **askers =
        reallocarray(h->askers, h->n_askers + 1, sizeof(struct admin_later *));

    if (!askers) {
        admin_say(later, false, NULL, 0);
        return;
    }
    h->askers = askers;
    h->askers[h->n_askers++] = later;
    for (unsigned w = 0; w < d->n_workers; w++) {
        if (!worker_is_alive(d->workers[w], FRESH_MS))
            worker_ask_alive(d->workers[w]);
    }
    look(d);
}

void
daemon_health_on_news(struct daemon *d)
{
    if (d->health.n_askers > 0)
        look(d);
}

void
daemon_health_fini(struct daemon *d)
{
    free(d->health.askers);
    d->health.askers = NULL;
    d->health.n_askers = 0;
}
