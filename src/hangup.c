/* SPDX-License-Identifier: MIT */
#include "hangup.h"

#include <errno.h>
#include <ev.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BATCH 64

struct hangup_set {
    ev_io io;
    struct ev_loop *loop;
    int epoll_fd;
    struct epoll_event batch[BATCH]; /* being delivered: hangup_del() takes its entry out */
    int n_batch;
};

static void
on_readable(struct ev_loop *loop, ev_io *io, int revents)
{
    struct hangup_set *set = (struct hangup_set *)((char *)io - offsetof(struct hangup_set, io));

    (void)loop;
    (void)revents;
    set->n_batch = epoll_wait(set->epoll_fd, set->batch, BATCH, 0);
    for (int i = 0; i < set->n_batch; i++) {
        struct hangup *hangup = set->batch[i].data.ptr;
        if (hangup)
            hangup->on_hangup(hangup, set->batch[i].events);
    }
    set->n_batch = 0;
}

struct hangup_set *
hangup_set_new(struct ev_loop *loop)
{
    struct hangup_set *set = calloc(1, sizeof(*set));

    if (!set)
        return NULL;
    set->loop = loop;
    set->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (set->epoll_fd < 0) {
        free(set);
        return NULL;
    }
    ev_io_init(&set->io, on_readable, set->epoll_fd, EV_READ);
    ev_io_start(loop, &set->io);
    return set;
}

void
hangup_set_free(struct hangup_set *set)
{
    if (!set)
        return;
    ev_io_stop(set->loop, &set->io);
    close(set->epoll_fd);
    free(set);
}

int
hangup_add(struct hangup_set *set, struct hangup *hangup, int fd,
           void (*on_hangup)(struct hangup *hangup, uint32_t events))
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = hangup};

    hangup->fd = -1;
    hangup->on_hangup = on_hangup;
    if (epoll_ctl(set->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return -1;
    hangup->fd = fd;
    return 0;
}

void
hangup_forget(struct hangup_set *set, struct hangup *hangup)
{
    hangup->fd = -1;
    for (int i = 0; i < set->n_batch; i++) {
        if (set->batch[i].data.ptr == hangup)
            set->batch[i].data.ptr = NULL;
    }
}

void
hangup_del(struct hangup_set *set, struct hangup *hangup)
{
    if (hangup->fd < 0)
        return;
    epoll_ctl(set->epoll_fd, EPOLL_CTL_DEL, hangup->fd, NULL);
    hangup_forget(set, hangup);
}
