/* SPDX-License-Identifier: MIT */
#include "health.h"

#include <limits.h>

const char *
health_str(enum health_state state)
{
    switch (state) {
#define X(name, text)                                                                              \
    case name:                                                                                     \
        return text;
        HEALTH_STATES(X)
#undef X
    }
    return "invalid";
}

void
health_init(struct health *h)
{
    *h = (struct health){.state = HEALTH_UNKNOWN};
}

void
health_begin(struct health *h)
{
    if (h->state == HEALTH_UNKNOWN)
        h->state = HEALTH_DIALING;
}

void
health_on_connected(struct health *h)
{
    h->state = HEALTH_UP;
}

/* A wrapped counter would look like a first failure. */
static void
count(unsigned *n)
{
    if (*n < UINT_MAX)
        (*n)++;
}

/* The ${n}-th pause, from 1. */
static uint64_t
draw_pause(const struct health_opts *opts, unsigned n, uint32_t random)
{
    uint64_t top = opts->backoff_max_ms, span;

    /* Compared from above: shifting the minimum up could overflow. */
    if (n < 64 && opts->backoff_min_ms <= opts->backoff_max_ms >> n)
        top = opts->backoff_min_ms << n;
    span = top - opts->backoff_min_ms + 1;
    /* random * span / 2^32, in two halves: the product has up to 96 bits. */
    return opts->backoff_min_ms + random * (span >> 32) + (random * (span & UINT32_MAX) >> 32);
}

uint64_t
health_on_failed(struct health *h, const struct health_opts *opts, uint32_t random)
{
    count(&h->failures);
    if (h->state != HEALTH_DOWN && h->failures == 1) {
        h->state = HEALTH_DIALING;
        return 0;
    }
    h->state = HEALTH_DOWN;
    return draw_pause(opts, h->failures > 1 ? h->failures - 1 : 1, random);
}

uint64_t
health_on_hung_up(struct health *h, const struct health_opts *opts, uint32_t random)
{
    count(&h->hangups);
    /* The third is never the first failure, so it does not earn the retry at once. */
    if (h->state != HEALTH_UP || h->hangups >= HEALTH_HANGUPS_MAX)
        return health_on_failed(h, opts, random);
    count(&h->failures);
    return 0;
}

void
health_on_survived(struct health *h)
{
    h->hangups = 0;
}

void
health_on_stable(struct health *h)
{
    h->failures = 0;
    h->hangups = 0;
}

bool
health_is_suspect(const struct health *h)
{
    return h->hangups >= HEALTH_HANGUPS_MAX;
}
