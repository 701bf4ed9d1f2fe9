/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_MANAGER_H
#define REDIAL_MANAGER_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct generation;
struct process;
struct worker;

/*
 * What the service manager hears from the first client to the last: readiness, figures, that every worker's loop turns, and for how long the end
 * may take. Lives on the main loop. Without a service manager it does nothing.
 */

#define MANAGER_STATUS_MAX 160

struct manager {
    struct ev_loop *loop;
    const struct process *process;
    const struct generation *generation;
    struct worker *const *workers;
    unsigned n_workers;
    ev_timer tick;                 /* looks at the figures */
    ev_timer beat;                 /* asks the workers for the watchdog's sake */
    bool is_awaiting;              /* their answers */
    bool is_stall_told;            /* of the workers that have not answered */
    bool is_mute;                  /* another process is the service's, or none of us yet */
    const char *ending;            /* how it ends, NULL: not yet */
    uint64_t until_ms;             /* when that is over, monotonic_ms() */
    char told[MANAGER_STATUS_MAX]; /* the last STATUS= */
};

struct manager_opts {
    struct ev_loop *loop; /* this and all the others: borrowed */
    const struct process *process;
    const struct generation *generation; /* until the next one is told */
    struct worker *const *workers;
    unsigned n_workers;
};

/** manager_init(m, opts): nothing is told yet. Cannot fail. */
void manager_init(struct manager *m, const struct manager_opts *opts);

/** manager_start(m): tell that we are ready, and go on from there. */
void manager_start(struct manager *m);

/** manager_reloading(m): a reload begins. manager_reloaded(m, generation): it has ended, and this, borrowed, is served now. */
void manager_reloading(struct manager *m);
void manager_reloaded(struct manager *m, const struct generation *generation);

/**
 * manager_give_way(m, pid):
 * Process ${pid} is the service's main process from now on: it tells what there is to tell. What the service manager sends us, it has sent when this returns:
 * it knows by then, or is given up waiting for.
 */
void manager_give_way(struct manager *m, pid_t pid);

/**
 * manager_ending(m, how, for_ms):
 * Tell that we end, and in the status ${how}, a static text, with what is left of ${for_ms}. To be called for each step of the end. From then on
 * more time is asked for as long as we live.
 */
void manager_ending(struct manager *m, const char *how, uint64_t for_ms);

/** manager_on_news(m): some worker has told news: feed the watchdog if it was the last answer. */
void manager_on_news(struct manager *m);

#endif
