/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SUSPECT_H
#define REDIAL_SUSPECT_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

struct process;

/*
 * A connection to a server whose last ones were hung up on at once, or led back to a listener of ours: that it is there proves nothing. It is held for
 * HEALTH_HANGUP_MS, and believed only if it lasts.
 *
 * One that may have come back lasts, too, where nobody takes it in. So each worker's loop must have turned twice after that time: the first turn may have begun before
 * the connection was there. Whoever takes it in closes it.
 */
struct suspect {
    struct ev_loop *loop;
    struct process *process;
    ev_io watch;
    ev_timer timer;
    int fd; /* -1: none is held */
    bool may_come_back;
    unsigned n_turns; /* that the workers were asked for */
    uint32_t turn;    /* the last one of these, see process_ask_turn() */
    void (*on_lasted)(void *arg, int fd);
    void (*on_ended)(void *arg);
    void *arg;
};

/**
 * suspect_init(suspect, loop, process, on_lasted, on_ended, arg):
 * Borrows all; holds none. Either ${on_lasted}(${arg}, fd), where the connection is the callee's, or ${on_ended}(${arg}), where it is held until suspect_drop(), is called
 * for each connection that is held, unless that is called before.
 */
void suspect_init(struct suspect *suspect, struct ev_loop *loop, struct process *process,
                  void (*on_lasted)(void *arg, int fd), void (*on_ended)(void *arg), void *arg);

/** suspect_hold(suspect, fd, may_come_back): hold ${fd}, which is taken. None may be held. */
void suspect_hold(struct suspect *suspect, int fd, bool may_come_back);

/** suspect_is_held(suspect): is one? */
bool suspect_is_held(const struct suspect *suspect);

/** suspect_drop(suspect): close the one that is held; none is fine. */
void suspect_drop(struct suspect *suspect);

#endif
