/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_LISTENER_H
#define REDIAL_LISTENER_H

#include "addr.h"

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Accepts clients from one listening socket on one loop. Runs out of descriptors without spinning and without losing the listener: it pauses and
 * tries again.
 */
struct listener;

struct listener_events {
    /* Take a place for one more client? If there is none, the callee has paused the listener. */
    bool (*take_place)(struct listener *listener);
    /* Nobody was there to be accepted: give it back. */
    void (*give_place)(struct listener *listener);
    /* A client: fd, non-blocking, is the callee's now. */
    void (*on_accept)(struct listener *listener, int fd, const struct addr *client);
    /* Accepting stopped for want of descriptors or memory (err), or works again (0). Once per change. */
    void (*on_shortage)(struct listener *listener, int err);
};

/* Why a listener does not accept; a set of bits. */
enum listener_pause {
    LISTENER_FULL = 1,       /* a limit of sessions is reached: clients wait in the backlog */
    LISTENER_SHORTAGE = 2,   /* out of descriptors or memory */
    LISTENER_UNLISTENED = 4, /* not listening at all: clients are refused by the kernel */
    LISTENER_STOPPED = 8,    /* for good */
};

struct listener {
    ev_io io;
    ev_timer retry;
    struct ev_loop *loop;
    const struct listener_events *events;
    void *arg; /* the owner's */
    int fd;
    int watched_fd; /* what the loop watches: the socket, or an epoll instance around it */
    unsigned backlog;
    unsigned budget;    /* accepts in this turn of the loop */
    unsigned last_turn; /* in which it accepted */
    unsigned paused;    /* LISTENER_... */
    bool is_short;      /* no client was accepted since a shortage was told */
};

/**
 * listener_init(listener, fd, is_shared):
 * Get ready for listener_start() with ${fd}, which is borrowed until then. ${is_shared}: others have the socket open, too, another worker or whoever
 * passed it. Returns 0, or -1 with errno set.
 */
int listener_init(struct listener *listener, int fd, bool is_shared)
    __attribute__((warn_unused_result));

/** listener_fini(listener): undo that, for one that was not started. One that was stopped, or is all zero, may be told as well. */
void listener_fini(struct listener *listener);

/** listener_start(listener, loop, fd, backlog, events): accept from ${fd}, a listening, non-blocking socket, which is taken. It is the one of listener_init(). ${listener->arg} is left alone. Cannot fail. */
void listener_start(struct listener *listener, struct ev_loop *loop, int fd, unsigned backlog,
                    const struct listener_events *events);

/**
 * listener_succeed(listener, before, backlog, events):
 * Take over the socket of ${before}, which was started, on the same loop: nobody in the backlog notices. ${before} is as one that was stopped. ${listener->arg} is
 * left alone. What it was paused for is over, but not that it does not listen. Cannot fail.
 */
void listener_succeed(struct listener *listener, struct listener *before, unsigned backlog,
                      const struct listener_events *events);

/** listener_stop(listener): accept no more, and close the socket: who is still in its backlog is reset. */
void listener_stop(struct listener *listener);

/** listener_pause(listener, why), listener_resume(listener, why): stop accepting for ${why}; go on when no reason is left. */
void listener_pause(struct listener *listener, enum listener_pause why);
void listener_resume(struct listener *listener, enum listener_pause why);

/**
 * listener_drain_backlog(listener):
 * Accept whoever is in the backlog now, as far as there are places; to be called before the socket stops listening, which resets those left there.
 */
void listener_drain_backlog(struct listener *listener);

/**
 * listener_unlisten(listener):
 * Make the kernel refuse clients (ECONNREFUSED) while the port stays ours: drain the backlog, then shutdown(SHUT_RD), and no SO_REUSEADDR, lest
 * another process take the port. TCP only. Cannot fail.
 */
void listener_unlisten(struct listener *listener);

/** listener_relisten(listener): undo it. Returns 0, or -1 with errno set: nothing changed, try again later. */
int listener_relisten(struct listener *listener) __attribute__((warn_unused_result));

#endif
