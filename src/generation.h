/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_GENERATION_H
#define REDIAL_GENERATION_H

#include "nameindex.h"
#include "portrange.h"
#include "process.h"

#include <stdatomic.h>
#include <stdbool.h>

struct conf;

/*
 * One configuration that is, or was, served: with what belongs to it in the process. Immutable, and it counts its references: whatever was made for it
 * has one. Sessions go on as they began, so that several may be alive at a time; what does not change from one to the next is not made anew, and keeps
 * the older one alive: but not for ever, or where each changes a little there would be as many as there are proxies.
 */

/* For so many generations. */
#define GENERATION_KEEPS 16

/* An index of the generation before; none. */
#define GENERATION_NEW NAMEINDEX_NONE

struct generation_upstream {
    struct process_upstream *shared;
    struct process_server **servers; /* in the order of the configuration */
    size_t before;   /* which was of that name in the generation before, or GENERATION_NEW */
    bool is_kept;    /* and it stays as it is */
    uint32_t since;  /* the generation that it was made for, by its number */
    size_t *befores; /* by server: which was the same, or GENERATION_NEW */
};

struct generation_proxy {
    struct process_proxy *shared;
    size_t before; /* these as above */
    bool is_kept;
    uint32_t since;
};

struct generation {
    atomic_uint refs;
    uint32_t number; /* one more than that of the one before */
    struct conf *conf;
    struct portrange range;                /* as it was when this generation began */
    struct generation_proxy *proxies;      /* in the order of the configuration */
    struct generation_upstream *upstreams; /* in the order of the configuration */
};

/**
 * generation_new(process, conf, range, before):
 * The one that follows ${before}, NULL for the first. Takes ${conf}, but not when it fails; it changes nothing in what ${before} has.
 *
 * Returns a new one with one reference, for generation_put(); or NULL with errno ENOMEM. From the main thread.
 */
struct generation *generation_new(struct process *process, struct conf *conf,
                                  const struct portrange *range, const struct generation *before)
    __attribute__((warn_unused_result));

/** generation_begin(generation, process, most): from now on its limits, and ${most}, hold. From the main thread. */
void generation_begin(const struct generation *generation, struct process *process,
                      const struct process_most *most);

/** generation_get(generation): one more reference; returns it. Any thread. */
struct generation *generation_get(struct generation *generation);

/** generation_put(generation): one less; NULL is fine. Any thread. */
void generation_put(struct generation *generation);

/* What goes on, in figures. */
struct generation_figures {
    unsigned sessions; /* with those that wait */
    unsigned waiting;
    size_t servers, servers_up;
};

/** generation_figures(generation, process): those of this moment. Any thread. */
struct generation_figures generation_figures(const struct generation *generation,
                                             const struct process *process);

#endif
