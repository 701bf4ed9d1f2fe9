/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PIPEPOOL_H
#define REDIAL_PIPEPOOL_H

#include <stddef.h>
#include <sys/queue.h>

/* Pipes for splice(2), shared by the relays of one loop: one is held only while it has bytes in it. */

#define PIPE_SIZE       ((size_t)256 * 1024)
#define PIPEPOOL_IDLE_S 1.

struct pipe {
    SLIST_ENTRY(pipe) link;
    int in, out; /* write to in, read from out; both non-blocking */
    size_t fill; /* bytes in it, kept by the borrower */
};

struct ev_loop;
struct pipepool;

/**
 * pipepool_new(loop, max):
 * Returns a new pool of at most ${max} pipes, for pipepool_free(); or NULL with errno ENOMEM. Pipes are made when they are asked for, and closed when none
 * was for a while (PIPEPOOL_IDLE_S).
 */
struct pipepool *pipepool_new(struct ev_loop *loop, unsigned max)
    __attribute__((warn_unused_result));

/** pipepool_free(pool): every pipe must have been given back; NULL is fine. */
void pipepool_free(struct pipepool *pool);

/**
 * pipepool_take(pool):
 * Returns an empty pipe for pipepool_give(), of PIPE_SIZE bytes where the system lets it grow so far (pipe(7), pipe-user-pages-soft); or NULL when
 * ${max} are out or none can be made.
 */
struct pipe *pipepool_take(struct pipepool *pool);

/** pipepool_give(pool, pipe): give it back; one that still has bytes in it is closed, and they are gone. */
void pipepool_give(struct pipepool *pool, struct pipe *pipe);

#endif
