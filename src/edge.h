/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_EDGE_H
#define REDIAL_EDGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct ev_loop;
struct edge_set;

/*
 * Readiness of the sockets of clients and sessions, edge-triggered where the caller says so, epoll(7): a second epoll instance, whose own
 * descriptor is watched by the loop.
 *
 * libev's watchers are level-triggered. A socket that has ended, or must not be read now, would have to be taken out of the set and put back, and
 * meanwhile its reset would go unheard. And libev delivers what epoll_wait() brought last event first; here it is first come, first served,
 * which shortens the tail of the latencies by a third.
 */
struct edge {
    TAILQ_ENTRY(edge) link; /* while it is to be called again */
    void (*on_event)(struct edge *edge, uint32_t events);
    int fd; /* -1: not in a set */
    unsigned generation : 30;
    bool is_again : 1, is_level : 1;
};

/** edge_set_new(loop): returns a new set for edge_set_free(), or NULL with errno set. */
struct edge_set *edge_set_new(struct ev_loop *loop) __attribute__((warn_unused_result));

/** edge_set_free(set): everything must have been taken out; NULL is fine. */
void edge_set_free(struct edge_set *set);

/**
 * edge_add(set, edge, fd, events, on_event):
 * Watch ${fd}, which stays the caller's, for ${events}, see epoll_ctl(2): EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, and EPOLLET to be told when they begin to
 * hold (and once for what holds already) rather than while they do. From the loop, ${on_event}(${edge}, events) is called with all that hold,
 * EPOLLERR and EPOLLHUP among them. It may take out this or others.
 *
 * Returns 0, or -1 with errno set.
 */
int edge_add(struct edge_set *set, struct edge *edge, int fd, uint32_t events,
             void (*on_event)(struct edge *edge, uint32_t events))
    __attribute__((warn_unused_result));

/** edge_mod(set, edge, events): watch for ${events} instead; the next call tells of what holds already. Returns 0, or -1 with errno set. */
int edge_mod(struct edge_set *set, struct edge *edge, uint32_t events);

/**
 * edge_move(set, from, to, on_event):
 * ${to} takes the place of ${from}, which is in ${set}: its fd and events are told to ${on_event}(${to}) from now on. What ${from} was told is not told again.
 */
void edge_move(struct edge_set *set, struct edge *from, struct edge *to,
               void (*on_event)(struct edge *edge, uint32_t events));

/** edge_again(set, edge): call on_event(${edge}, 0) in the next turn of the loop, after the others had theirs: it has not done all that it could. */
void edge_again(struct edge_set *set, struct edge *edge);

/** edge_del(set, edge): take it out, before its fd is closed; no call follows. One that is in no set is left alone. */
void edge_del(struct edge_set *set, struct edge *edge);

/**
 * edge_forget(set, edge):
 * The same for an fd that is closed in this turn of the loop: the close takes it out of the kernel's set. While another process has a copy it does not, and what the
 * kernel goes on to tell is told to nobody.
 */
void edge_forget(struct edge_set *set, struct edge *edge);

#endif
