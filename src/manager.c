/* SPDX-License-Identifier: MIT */
#include "manager.h"

#include "generation.h"
#include "log.h"
#include "monotonic.h"
#include "process.h"
#include "sdnotify.h"
#include "worker.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define TICK_S 1.
/* While we end, each tick asks for so much from then on. It counts only beyond TimeoutStopSec=. */
#define EXTEND_US 15000000

static void
put_status(struct manager *m, char status[MANAGER_STATUS_MAX])
{
    struct generation_figures f = generation_figures(m->generation, m->process);
    uint64_t now = monotonic_ms(), left_ms = m->until_ms > now ? m->until_ms - now : 0;
    char ending[64] = "";

    if (m->ending)
        snprintf(ending, sizeof(ending), "%s, %llu s left; ", m->ending,
                 (unsigned long long)(left_ms + 999) / 1000);
    snprintf(status, MANAGER_STATUS_MAX, "%ssessions: %u (waiting: %u), servers up: %zu of %zu",
             ending, f.sessions, f.waiting, f.servers_up, f.servers);
}

static void
tell(struct manager *m)
{
    char status[MANAGER_STATUS_MAX];

    put_status(m, status);
    if (m->ending)
        sdnotify("STATUS=%s\nEXTEND_TIMEOUT_USEC=%d", status, EXTEND_US);
    else if (strcmp(status, m->told) != 0)
        sdnotify("STATUS=%s", status);
    memcpy(m->told, status, sizeof(status));
}

static void
on_tick(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    tell((struct manager *)((char *)timer - offsetof(struct manager, tick)));
}

/* The watchdog goes hungry, and may kill us: the log has to say for whose sake. */
static void
tell_stall(struct manager *m)
{
    if (m->is_stall_told)
        return;
    m->is_stall_told = true;
    for (unsigned i = 0; i < m->n_workers; i++) {
        if (!(worker_news(m->workers[i]) & WORKER_ALIVE))
            log_event(LOG_WARNING, "worker_stalled", LOG_FIELDS(LOG_UINT("worker", i)),
                      "worker %u does not answer: the watchdog is not fed", i);
    }
}

static void
on_beat(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct manager *m = (struct manager *)((char *)timer - offsetof(struct manager, beat));

    (void)loop;
    (void)revents;
    if (m->is_awaiting) {
        tell_stall(m);
        return;
    }
    m->is_awaiting = true;
    for (unsigned i = 0; i < m->n_workers; i++)
        worker_ask_alive(m->workers[i]);
}

void
manager_on_news(struct manager *m)
{
    unsigned news = WORKER_ALIVE;

    for (unsigned i = 0; i < m->n_workers; i++)
        news &= worker_news(m->workers[i]);
    if (!m->is_awaiting || !(news & WORKER_ALIVE))
        return;
    m->is_awaiting = m->is_stall_told = false;
    sdnotify("WATCHDOG=1");
}

void
manager_init(struct manager *m, const struct manager_opts *opts)
{
    uint64_t watchdog_us = sdnotify_watchdog_us();

    *m = (struct manager){
        .loop = opts->loop,
        .process = opts->process,
        .generation = opts->generation,
        .workers = opts->workers,
        .n_workers = opts->n_workers,
        .is_mute = true,
    };
    ev_timer_init(&m->tick, on_tick, TICK_S, TICK_S);
    ev_timer_init(&m->beat, on_beat, (ev_tstamp)watchdog_us / 2e6, (ev_tstamp)watchdog_us / 2e6);
}

void
manager_start(struct manager *m)
{
    m->is_mute = false;
    if (m->beat.repeat > 0.) {
        ev_timer_start(m->loop, &m->beat);
        /* Whoever was the service before us may have fed half an interval ago. */
        on_beat(m->loop, &m->beat, 0);
    }
    if (!sdnotify_is_heard())
        return;
    put_status(m, m->told);
    sdnotify("READY=1\nSTATUS=%s", m->told);
    ev_timer_start(m->loop, &m->tick);
}

void
manager_reloading(struct manager *m)
{
    (void)m;
    /* sd_notify(3): by this systemd knows that the reload which it asked for has begun. */
    sdnotify("RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(monotonic_s() * 1e6));
}

void
manager_reloaded(struct manager *m, const struct generation *generation)
{
    m->generation = generation;
    put_status(m, m->told);
    sdnotify("READY=1\nSTATUS=%s", m->told);
}

void
manager_give_way(struct manager *m, pid_t pid)
{
    sdnotify("MAINPID=%d", (int)pid);
    sdnotify_wait_heard();
    m->is_mute = true;
    ev_timer_stop(m->loop, &m->tick);
    ev_timer_stop(m->loop, &m->beat);
}

void
manager_ending(struct manager *m, const char *how, uint64_t for_ms)
{
    if (m->is_mute)
        return;
    if (!m->ending)
        sdnotify("STOPPING=1");
    m->ending = how;
    m->until_ms = monotonic_ms() + for_ms;
    if (sdnotify_is_heard())
        tell(m);
}
