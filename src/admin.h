/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_ADMIN_H
#define REDIAL_ADMIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct addr;
struct admin;
struct admin_later;
struct admin_listener;
struct ev_loop;

/*
 * The admin interface: HTTP on the main loop, with libmicrohttpd. What is answered comes from ${admin_ops}; here is who may ask, how much, and for how
 * long. Nothing waits for a client. All clients together get a fifth of a CPU, and a listener has so many connections at a time, each with so long for a
 * request and for an answer; when there is no room, a connection that stands still makes some.
 *
 * Changes are for UNIX sockets: those with a path, whose mode says who may connect, and abstract ones for root and our own user.
 */
#define ADMIN_CONNS_MAX 32
/* Descriptors: of so many listeners, each with an epoll instance around it, a lock file and its connections; and one more epoll instance. */
#define ADMIN_FDS(listeners) ((listeners) > 0 ? 1 + (listeners) * (ADMIN_CONNS_MAX + 3) : 0)

/* A server that is to be taken out, or back in, by hand. */
struct admin_change {
    const char *upstream, *server;
    bool enable;
    bool kill; /* its sessions, when it is taken out */
};

/* Called from the loop, with the argument of admin_new(). What is NULL is answered with 501. */
struct admin_ops {
    /* Write a line for each reason why we are not ready; are we? */
    bool (*put_ready)(void *arg, FILE *out);
    /* Write the state as JSON; the metrics as Prometheus reads them. */
    void (*put_status)(void *arg, FILE *out);
    void (*put_metrics)(void *arg, FILE *out);
    /* Are we healthy? Start what will be answered, now or later, with admin_say(). */
    void (*check_health)(void *arg, struct admin_later *later);
    /* Likewise, with admin_answer() or admin_refuse(). */
    void (*list_sessions)(void *arg, struct admin_later *later);
    void (*reload)(void *arg, struct admin_later *later);
    void (*drain)(void *arg);
    /* Returns NULL, or a static text: why there is no such server. */
    const char *(*change_server)(void *arg, const struct admin_change *change);
};

/** admin_new(loop, ops, arg): on ${loop}, borrowed, as is ${ops}; without listeners. Returns a new one for admin_free(), or NULL with errno set. */
struct admin *admin_new(struct ev_loop *loop, const struct admin_ops *ops, void *arg)
    __attribute__((warn_unused_result));

/** admin_free(admin): close all. Whoever waits for an answer gets none, and must be given none any more. NULL is fine. */
void admin_free(struct admin *admin);

/**
 * admin_listen(admin, fd, addr):
 * Serve who connects to ${fd}, which listens on ${addr}, is non-blocking and is taken. Returns a listener, for admin_unlisten(), or NULL with errno set, and
 * ${fd} is the caller's still.
 */
struct admin_listener *admin_listen(struct admin *admin, int fd, const struct addr *addr)
    __attribute__((warn_unused_result));

/** admin_listener_fd(listener): its socket, borrowed. */
int admin_listener_fd(const struct admin_listener *listener);

/** admin_unlisten(listener): close it; connections go on. */
void admin_unlisten(struct admin_listener *listener);

/** admin_answer(later, json, size): with a text from malloc(3), which is taken. NULL: there was no memory for it. */
void admin_answer(struct admin_later *later, char *json, size_t size);

/** admin_say(later, is_fine, text, size): the same with a text for people, 200 or 503. */
void admin_say(struct admin_later *later, bool is_fine, char *text, size_t size);

/** admin_accept(later): it is done. admin_refuse(later, errors): it is not, for what is written in ${errors}, a line for each. */
void admin_accept(struct admin_later *later);
void admin_refuse(struct admin_later *later, const char *errors);

#endif
