/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_HANGUP_H
#define REDIAL_HANGUP_H

#include <stdbool.h>
#include <stdint.h>

struct ev_loop;
struct hangup_set;

/*
 * Hearing that a peer has gone without reading from it. libev knows no EPOLLRDHUP: a reader spins on unread data, and a stopped
 * one hears nothing. A set is a second epoll instance (EPOLLRDHUP | EPOLLET), whose own descriptor is watched by the loop.
 */
struct hangup {
    int fd; /* -1: not in a set */
    void (*on_hangup)(struct hangup *hangup, uint32_t events);
};

/** hangup_set_new(loop): returns a new set for hangup_set_free(), or NULL with errno set. */
struct hangup_set *hangup_set_new(struct ev_loop *loop) __attribute__((warn_unused_result));

/** hangup_set_free(set): everything must have been taken out; NULL is fine. */
void hangup_set_free(struct hangup_set *set);

/**
 * hangup_add(set, hangup, fd, on_hangup):
 * Watch ${fd}, which stays the caller's. From the loop, ${on_hangup}(${hangup}, events) is called at each change, with those of
 * EPOLLRDHUP (the peer sends no more), EPOLLHUP (neither side does) and EPOLLERR (reset) that hold; see epoll_ctl(2). It may call hangup_del() on this or others.
 *
 * Returns 0, or -1 with errno set.
 */
int hangup_add(struct hangup_set *set, struct hangup *hangup, int fd,
               void (*on_hangup)(struct hangup *hangup, uint32_t events));

/** hangup_del(set, hangup): take it out, before its fd is closed; no call follows. One that is in no set is left alone. */
void hangup_del(struct hangup_set *set, struct hangup *hangup);

/** hangup_forget(set, hangup): the same once its fd is closed, in the same turn of the loop: the close has taken it out of the kernel's set. */
void hangup_forget(struct hangup_set *set, struct hangup *hangup);

#endif
