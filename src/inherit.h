/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_INHERIT_H
#define REDIAL_INHERIT_H

#include "addr.h"

#include <stddef.h>

/*
 * The sockets that the service manager passed. They are the process's, and so is this table: it is filled once, before there is any other
 * thread, and lasts as long as the process.
 */
struct inherit_socket {
    const char *name; /* several may have the same */
    int fd;
    struct addr addr; /* no address: of another family than TCP's and UNIX */
    bool is_used;
};

/** inherit_take(): note which sockets were passed; to be called once. Returns 0, or -1 with errno set. */
int inherit_take(void) __attribute__((warn_unused_result));

/** inherit_find(name, after): the first socket of that name, or the first behind ${after}; NULL when there is none. */
const struct inherit_socket *inherit_find(const char *name, const struct inherit_socket *after);

/** inherit_use(fd): this one is served. */
void inherit_use(int fd);

/**
 * inherit_take_away(s): one that an earlier rediald has handed over is the caller's from now on, and not in the table any more. Returns its descriptor, closed on exec.
 */
int inherit_take_away(const struct inherit_socket *s);

/** inherit_drop(s): one that an earlier rediald has handed over is of no use: it is closed, and the service manager keeps it no more. */
void inherit_drop(const struct inherit_socket *s);

/**
 * inherit_tell_unused():
 * Warn of each that is not served. It stays open: another configuration may want it. What an earlier rediald has handed over, and nobody has taken away, is closed: the
 * configuration has no such address any more.
 */
void inherit_tell_unused(void);

/** inherit_next(after): the first socket of all, or the next one behind ${after}; NULL when there is none. */
const struct inherit_socket *inherit_next(const struct inherit_socket *after);

/** inherit_close(): close all that are left; the service manager keeps them. */
void inherit_close(void);

/** inherit_names_str(buf, size): all their names, for people: `'a', 'b'', or `none'. What does not fit is cut. Returns ${buf}. */
const char *inherit_names_str(char *buf, size_t size);

#endif
