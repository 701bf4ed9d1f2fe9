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

/** inherit_tell_unused(): warn of each that is not. They stay open: another configuration may want them. */
void inherit_tell_unused(void);

/** inherit_names_str(buf, size): all their names, for people: `'a', 'b'', or `none'. What does not fit is cut. Returns ${buf}. */
const char *inherit_names_str(char *buf, size_t size);

#endif
