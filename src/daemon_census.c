/* SPDX-License-Identifier: MIT */
#include "daemon_internal.h"

#include "admin.h"
#include "report.h"
#include "session.h"
#include "worker.h"

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

static void
begin(struct daemon *d)
{
    d->census.n_early = d->census.n_askers;
    for (unsigned w = 0; w < d->n_workers && d->census.n_early > 0; w++)
        worker_list(d->workers[w]);
}

void
daemon_census_asked(struct daemon *d, struct admin_later *later)
{
    struct daemon_census *c = &d->census;
    struct admin_later **askers =
        reallocarray(c->askers, c->n_askers + 1, sizeof(struct admin_later *));

    if (!askers) {
        admin_answer(later, NULL, 0);
        return;
    }
    c->askers = askers;
    c->askers[c->n_askers++] = later;
    if (c->n_early == 0)
        begin(d);
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
    if (d->census.n_early == 0 || !(news & WORKER_LISTED))
        return;
    answer(d);
    begin(d);
}

void
daemon_census_fini(struct daemon *d)
{
    free(d->census.askers);
    d->census = (struct daemon_census){.n_askers = 0};
}
