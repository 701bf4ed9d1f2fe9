/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PREFACE_H
#define REDIAL_PREFACE_H

#include "proxyproto.h"

struct ev_loop;
struct preface;

/* What comes before a stream: the header of the PROXY protocol, read from a client or written to a server. */

/* So long has a client to send its header; the specification asks for 3 s at least. */
#define PREFACE_DEADLINE_S 5.

enum preface_result {
    PREFACE_READ,
    PREFACE_CLOSED, /* the client went without a byte, as who only looks whether a port is open */
    PREFACE_FAILED, /* its socket did */
    PREFACE_BAD,    /* no header within PREFACE_DEADLINE_S, or something else */
};

struct preface_answer {
    enum preface_result result;
    struct proxyproto_header header; /* read */
    const char *why;                 /* bad: a static text */
    int err;                         /* failed: an errno */
};

/**
 * preface_start(loop, fd, done, arg):
 * Read a header from ${fd}, a non-blocking stream socket, which is borrowed, and not a byte of what follows it.
 *
 * Calls ${done}(${arg}, answer) exactly once, later. Returns a handle for preface_cancel(), dead once ${done} runs; or NULL with errno ENOMEM.
 */
struct preface *preface_start(struct ev_loop *loop, int fd,
                              void (*done)(void *arg, const struct preface_answer *answer),
                              void *arg) __attribute__((warn_unused_result));

/** preface_cancel(preface): no callback follows; NULL is fine. */
void preface_cancel(struct preface *preface);

/**
 * preface_send(fd, version, source, dest):
 * Write the header of a client at ${source} that connected to ${dest}, see proxyproto_encode(), to ${fd}, a connected socket to which nothing was
 * written yet: there it has room as a whole.
 *
 * Returns 0, or -1 with errno set; ENOBUFS also when it was not taken as a whole.
 */
int preface_send(int fd, enum proxyproto_version version, const struct addr *source,
                 const struct addr *dest) __attribute__((warn_unused_result));

#endif
