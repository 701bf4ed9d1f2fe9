/* SPDX-License-Identifier: MIT */
#include "edge.h"

#include <ev.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BATCH 64
/* Batches in a turn of the loop: what is ready comes before timers, but not for ever. */
#define ROUNDS_MAX 64
/* While levels are watched, which are those that move much, there is more as soon as some was moved: looking here spares a look at the whole loop. */
#define LEVEL_ROUNDS 4

TAILQ_HEAD(edges, edge);

struct edge_set {
    ev_io io;
    ev_idle idle; /* active while somebody is to be called again: the loop does not sleep */
    struct ev_loop *loop;
    int epoll_fd;
    /* Whose is it? The kernel tells the descriptor, so that edge_move() needs no call; NULL: nobody's. */
    struct edge **by_fd;
    size_t n_fds;
    unsigned generation; /* of the last one added */
    struct edges again;
    unsigned n_again;
    unsigned n_levels;
};

/* What is told with an event: the descriptor, and which of those that had its number. */
static uint64_t
tag_of(int fd, unsigned generation)
{
    return (uint64_t)generation << 32 | (unsigned)fd;
}

/*
 * An event may be of a descriptor that was forgotten, earlier in the batch or before it. A close takes a socket out of the kernel's set when it was the last
 * copy (epoll(7), "Will closing a file descriptor cause it to be removed"), and between fork(2) and execve(2) the next process has copies of all.
 */
static int
deliver_batch(struct edge_set *set)
{
    struct epoll_event batch[BATCH];
    int n = epoll_wait(set->epoll_fd, batch, BATCH, 0);

    for (int i = 0; i < n; i++) {
        int fd = (int)(uint32_t)batch[i].data.u64;
        struct edge *edge = set->by_fd[fd];
        if (edge && tag_of(fd, edge->generation) == batch[i].data.u64)
            edge->on_event(edge, batch[i].events);
    }
    return n;
}

static void
on_readable(struct ev_loop *loop, ev_io *io, int revents)
{
    struct edge_set *set = (struct edge_set *)((char *)io - offsetof(struct edge_set, io));

    (void)loop;
    (void)revents;
    for (int i = 0; i < ROUNDS_MAX; i++) {
        int n = deliver_batch(set);
        if (n <= 0 || (n < BATCH && (set->n_levels == 0 || i + 1 >= LEVEL_ROUNDS)))
            break;
    }
}

static void
drop_again(struct edge_set *set, struct edge *edge)
{
    if (!edge->is_again)
        return;
    edge->is_again = false;
    TAILQ_REMOVE(&set->again, edge, link);
    if (--set->n_again == 0)
        ev_idle_stop(set->loop, &set->idle);
}

static void
on_idle(struct ev_loop *loop, ev_idle *idle, int revents)
{
    struct edge_set *set = (struct edge_set *)((char *)idle - offsetof(struct edge_set, idle));
    struct edge *edge;

    (void)loop;
    (void)revents;
    /* Not those who ask meanwhile. */
    for (unsigned n = set->n_again; n > 0 && (edge = TAILQ_FIRST(&set->again)); n--) {
        drop_again(set, edge);
        edge->on_event(edge, 0);
    }
}

struct edge_set *
edge_set_new(struct ev_loop *loop)
{
    struct edge_set *set = calloc(1, sizeof(*set));

    if (!set)
        return NULL;
    set->loop = loop;
    set->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (set->epoll_fd < 0) {
        free(set);
        return NULL;
    }
    TAILQ_INIT(&set->again);
    ev_idle_init(&set->idle, on_idle);
    ev_set_priority(&set->idle, EV_MAXPRI); /* or it would wait until nothing else is ready */
    ev_io_init(&set->io, on_readable, set->epoll_fd, EV_READ);
    ev_io_start(loop, &set->io);
    return set;
}

void
edge_set_free(struct edge_set *set)
{
    if (!set)
        return;
    ev_io_stop(set->loop, &set->io);
    ev_idle_stop(set->loop, &set->idle);
    close(set->epoll_fd);
    free(set->by_fd);
    free(set);
}

static void
count_level(struct edge_set *set, struct edge *edge, bool is_level)
{
    set->n_levels += (unsigned)is_level - (unsigned)edge->is_level;
    edge->is_level = is_level;
}

static int
control(const struct edge_set *set, int operation, const struct edge *edge, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = tag_of(edge->fd, edge->generation)};

    return epoll_ctl(set->epoll_fd, operation, edge->fd, &event);
}

static int
make_room(struct edge_set *set, int fd)
{
    size_t n = set->n_fds;

    while (n <= (size_t)fd)
        n = n > 0 ? 2 * n : 64;
    if (n == set->n_fds)
        return 0;
    struct edge **by_fd = realloc(set->by_fd, n * sizeof(struct edge *));
    if (!by_fd)
        return -1;
    memset(by_fd + set->n_fds, 0, (n - set->n_fds) * sizeof(struct edge *));
    set->by_fd = by_fd;
    set->n_fds = n;
    return 0;
}

int
edge_add(struct edge_set *set, struct edge *edge, int fd, uint32_t events,
         void (*on_event)(struct edge *edge, uint32_t events))
{
    *edge = (struct edge){.fd = fd, .on_event = on_event, .generation = ++set->generation};
    if (make_room(set, fd) != 0 || control(set, EPOLL_CTL_ADD, edge, events) != 0) {
        edge->fd = -1;
        return -1;
    }
    set->by_fd[fd] = edge;
    count_level(set, edge, !(events & EPOLLET));
    return 0;
}

int
edge_mod(struct edge_set *set, struct edge *edge, uint32_t events)
{
    if (control(set, EPOLL_CTL_MOD, edge, events) != 0)
        return -1;
    count_level(set, edge, !(events & EPOLLET));
    return 0;
}

void
edge_move(struct edge_set *set, struct edge *from, struct edge *to,
          void (*on_event)(struct edge *edge, uint32_t events))
{
    drop_again(set, from);
    *to = *from;
    to->on_event = on_event;
    set->by_fd[to->fd] = to;
    from->fd = -1;
}

void
edge_again(struct edge_set *set, struct edge *edge)
{
    if (edge->is_again)
        return;
    edge->is_again = true;
    TAILQ_INSERT_TAIL(&set->again, edge, link);
    set->n_again++;
    ev_idle_start(set->loop, &set->idle);
}

void
edge_forget(struct edge_set *set, struct edge *edge)
{
    drop_again(set, edge);
    count_level(set, edge, false);
    if (edge->fd >= 0)
        set->by_fd[edge->fd] = NULL;
    edge->fd = -1;
}

void
edge_del(struct edge_set *set, struct edge *edge)
{
    if (edge->fd < 0)
        return;
    (void)control(set, EPOLL_CTL_DEL, edge, 0);
    edge_forget(set, edge);
}
