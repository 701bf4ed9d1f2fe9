/* SPDX-License-Identifier: MIT */
#include "daemon_internal.h"

#include "admin.h"
#include "report.h"
#include "session.h"
#include "worker.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t
daemon_wall_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Whoever asks has a connection of its listener's until it is answered: there must be some left for others, /healthz above all. */
#define ASKERS_MAX (ADMIN_CONNS_MAX / 2)
/* A worker that has not listed its sessions by then stands still. */
#define PATIENCE_S 10.

/* Anew: a timer that was stopped would go on with what was left. */
static void
start_timer(struct daemon *d)
{
    ev_timer_set(&d->census.timer, PATIENCE_S, 0.);
    ev_timer_start(d->loop, &d->census.timer);
}

static void
begin(struct daemon *d)
{
    struct daemon_census *c = &d->census;

    ev_timer_stop(d->loop, &c->timer);
    c->n_early = c->n_askers;
    if (c->n_askers == 0)
        return;
    c->is_running = true;
    start_timer(d);
    for (unsigned w = 0; w < d->n_workers; w++)
        worker_list(d->workers[w]);
}

static void
refuse(struct admin_later *later, const char *why)
{
    char *text = strdup(why);

    admin_say(later, false, text, text ? strlen(text) : 0);
}

/* What the workers have to say when they go on is for nobody, but they are not asked again before. */
static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct daemon_census *c =
        (struct daemon_census *)((char *)timer - offsetof(struct daemon_census, timer));

    (void)loop;
    (void)revents;
    for (size_t i = 0; i < c->n_askers; i++)
        refuse(c->askers[i], "a worker does not answer: see /healthz\n");
    c->n_askers = c->n_early = 0;
}

void
daemon_census_init(struct daemon *d)
{
    ev_timer_init(&d->census.timer, on_timer, 0., 0.);
}

void
daemon_census_asked(struct daemon *d, struct admin_later *later)
{
    struct daemon_census *c = &d->census;
    struct admin_later **askers = c->askers;

    if (!askers)
        askers = c->askers = calloc(ASKERS_MAX, sizeof(struct admin_later *));
    if (!askers || c->n_askers == ASKERS_MAX) {
        refuse(later, askers ? "too many ask for the sessions at once\n" : "out of memory\n");
        return;
    }
    askers[c->n_askers++] = later;
    if (!c->is_running)
        begin(d);
    else if (!ev_is_active(&c->timer))
        start_timer(d);
}

/* Returns a new text, or NULL. */
static char *
write_text(struct daemon *d, size_t *size)
{
    struct session_census **censuses = calloc(d->n_workers, sizeof(struct session_census *));
    const struct report report = daemon_report(d);
    char *text = NULL;
    FILE *out = censuses ? open_memstream(&text, size) : NULL;

    for (unsigned w = 0; censuses && w < d->n_workers; w++)
        censuses[w] = worker_take_census(d->workers[w]);
    if (out) {
        report_sessions(&report, censuses, d->n_workers, out);
        if (fclose(out) != 0) {
            free(text);
            text = NULL;
        }
    }
    for (unsigned w = 0; censuses && w < d->n_workers; w++)
        session_census_free(censuses[w]);
    free(censuses);
    return text;
}

static void
answer(struct daemon *d)
{
    struct daemon_census *c = &d->census;
    size_t size = 0;
    char *text = write_text(d, &size);

    for (size_t i = 0; i < c->n_early; i++) {
        char *copy = text ? malloc(size + 1) : NULL;
        if (copy)
            memcpy(copy, text, size + 1);
        admin_answer(c->askers[i], copy, size);
    }
    free(text);
    c->n_askers -= c->n_early;
    for (size_t i = 0; i < c->n_askers; i++)
        c->askers[i] = c->askers[i + c->n_early];
}

void
daemon_census_on_news(struct daemon *d)
{
    unsigned news = WORKER_LISTED;

    for (unsigned w = 0; w < d->n_workers; w++)
        news &= worker_news(d->workers[w]);
    if (!d->census.is_running || !(news & WORKER_LISTED))
        return;
    d->census.is_running = false;
    answer(d);
    begin(d);
}

void
daemon_census_fini(struct daemon *d)
{
    ev_timer_stop(d->loop, &d->census.timer);
    free(d->census.askers);
    d->census = (struct daemon_census){.n_askers = 0};
}
