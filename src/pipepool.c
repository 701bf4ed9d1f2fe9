/* SPDX-License-Identifier: MIT */
#include "pipepool.h"

#include <ev.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

struct pipepool {
    SLIST_HEAD(, pipe) idle;
    struct ev_loop *loop;
    ev_timer timer; /* runs while there are pipes */
    unsigned made, max;
    bool used; /* since the timer last fired */
};

static void
close_pipe(struct pipepool *pool, struct pipe *pipe)
{
    close(pipe->in);
    close(pipe->out);
    free(pipe);
    pool->made--;
}

static void
close_idle(struct pipepool *pool)
{
    struct pipe *pipe;

    while ((pipe = SLIST_FIRST(&pool->idle))) {
        SLIST_REMOVE_HEAD(&pool->idle, link);
        close_pipe(pool, pipe);
    }
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct pipepool *pool = (struct pipepool *)((char *)timer - offsetof(struct pipepool, timer));

    (void)revents;
    if (!pool->used)
        close_idle(pool);
    pool->used = false;
    if (pool->made == 0)
        ev_timer_stop(loop, timer);
}

struct pipepool *
pipepool_new(struct ev_loop *loop, unsigned max)
{
    struct pipepool *pool = calloc(1, sizeof(*pool));

    if (!pool)
        return NULL;
    pool->loop = loop;
    pool->max = max;
    SLIST_INIT(&pool->idle);
    ev_timer_init(&pool->timer, on_timer, 0., PIPEPOOL_IDLE_S);
    return pool;
}

void
pipepool_free(struct pipepool *pool)
{
    if (!pool)
        return;
    ev_timer_stop(pool->loop, &pool->timer);
    close_idle(pool);
    free(pool);
}

struct pipe *
pipepool_take(struct pipepool *pool)
{
    struct pipe *pipe = SLIST_FIRST(&pool->idle);
    int ends[2];

    pool->used = true;
    if (pipe) {
        SLIST_REMOVE_HEAD(&pool->idle, link);
        return pipe;
    }
    if (pool->made >= pool->max)
        return NULL;
    pipe = malloc(sizeof(*pipe));
    if (!pipe)
        return NULL;
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) {
        free(pipe);
        return NULL;
    }
    /* One that stays small (64 kB) moves bytes as well. */
    (void)fcntl(ends[1], F_SETPIPE_SZ, PIPE_SIZE);
    pipe->out = ends[0];
    pipe->in = ends[1];
    pipe->fill = 0;
    if (pool->made++ == 0)
        ev_timer_again(pool->loop, &pool->timer);
    return pipe;
}

void
pipepool_give(struct pipepool *pool, struct pipe *pipe)
{
    if (pipe->fill > 0)
        close_pipe(pool, pipe);
    else
        SLIST_INSERT_HEAD(&pool->idle, pipe, link);
}
