/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SOCKTABLE_H
#define REDIAL_SOCKTABLE_H

#include "addr.h"

#include <stddef.h>

/* Who holds a local TCP port: read from /proc/net/tcp and tcp6 (proc_net_tcp.rst). Reads files: not for a worker's thread. */

enum socktable_holder {
    SOCKTABLE_NOBODY,
    SOCKTABLE_LISTENER, /* a listening socket: it will not go away by itself */
    SOCKTABLE_BOUND, /* no connection, not listening, but bound: told from the error alone, never from the table */
    SOCKTABLE_SELF_CONNECTED, /* a socket that is its own peer */
    SOCKTABLE_OUTGOING,       /* a connection from the port */
    SOCKTABLE_TIME_WAIT,      /* what such a connection leaves for 60 s */
};

/* One line of the table. */
struct socktable_entry {
    struct addr local, remote;
    unsigned state;      /* TCP_ESTABLISHED ... of <netinet/tcp.h> */
    unsigned uid;        /* of who made it */
    unsigned long inode; /* 0: no process has it */
};

/* The process that has a socket. */
struct socktable_owner {
    unsigned long pid;
    char name[64]; /* printable ASCII */
};

/**
 * socktable_parse(line, family, entry):
 * Parse a line of /proc/net/tcp (AF_INET) or tcp6 (AF_INET6). Pure. Returns false for the heading and for anything malformed.
 */
bool socktable_parse(const char *line, int family, struct socktable_entry *entry);

/** socktable_is_self_connected(entry): Pure: is it its own peer, or the TIME_WAIT of one that was? */
bool socktable_is_self_connected(const struct socktable_entry *entry);

/**
 * socktable_each(visit, arg):
 * Call ${visit}(${arg}, entry) for each line of both tables. Returns 0, or -1 with errno set when neither can be read.
 */
int socktable_each(void (*visit)(void *arg, const struct socktable_entry *entry), void *arg)
    __attribute__((warn_unused_result));

/** socktable_owner(inode, owner): look for a process that has the socket ${inode}. False when none is found: it is another user's, or has none. */
bool socktable_owner(unsigned long inode, struct socktable_owner *owner);

/**
 * socktable_classify(entry, listen):
 * Pure: what does ${entry} do to a bind(2) to ${listen}? Returns the kind of holder, SOCKTABLE_NOBODY when it does not stand in the way.
 * The table does not tell V6ONLY: a listener on `::' is taken for a dual one, so it holds IPv4 as well.
 */
enum socktable_holder socktable_classify(const struct socktable_entry *entry,
                                         const struct addr *listen);

/**
 * socktable_find(listen, who, size):
 * Look for what keeps ${listen} from being bound; of several, the one listed first in enum order that is not NOBODY. ${who} gets a text such as
 * `held by a self-connected socket of pid 4242 (telnet)', `held by a listener of pid 1 (nginx)', `held by a connection to 10.0.0.1:80 of pid 7 (curl)', `held by a connection in TIME_WAIT';
 * without the process where it cannot be found. With SOCKTABLE_NOBODY it is empty. A listener on `::', which may be V6ONLY and harmless,
 * is named for an IPv4 ${listen} only when nothing else was found.
 */
enum socktable_holder socktable_find(const struct addr *listen, char *who, size_t size);

#endif
