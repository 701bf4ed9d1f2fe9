/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_BINDER_H
#define REDIAL_BINDER_H

#include "addr.h"

#include <stdbool.h>
#include <sys/types.h>

/* Makes listening sockets. Touches files and may wait for name services: for the start, not for a worker's thread. */

struct binder_opts {
    unsigned backlog;
    bool shared;  /* binder_open_more() will follow */
    bool nodelay; /* this and the next two: TCP, inherited by the clients' sockets */
    uint64_t keepalive_ms;
    uint64_t user_timeout_ms;
    mode_t unix_mode;
    uid_t unix_uid; /* (uid_t)-1: leave */
    gid_t unix_gid; /* (gid_t)-1: leave */
};

/* A listening socket. A UNIX path comes with a lock on `path.lock': whoever holds it may remove a stale socket. */
struct binding {
    struct addr addr;
    struct addr wanted; /* as it was asked for: `*' may have become IPv4 alone */
    struct binder_opts opts;
    int fd;            /* -1: none */
    int lock_fd;       /* -1: none */
    bool is_inherited; /* its maker has it open, too */
    bool is_resumed;   /* an earlier rediald has made it */
};

/**
 * binder_open(binding, addr, opts, step):
 * Listen on ${addr}: TCP with SO_REUSEADDR (an IPv6 address takes IPv6 alone, `*' both families, IPv4 alone where there is no IPv6); or a UNIX
 * socket with the mode and owner of ${opts} before the first client can come.
 *
 * Returns 0; or -1 with errno set and ${*step} a static text of what failed. EADDRINUSE also means that a UNIX path is served by a live process.
 */
int binder_open(struct binding *binding, const struct addr *addr, const struct binder_opts *opts,
                const char **step) __attribute__((warn_unused_result));

/**
 * binder_adopt(binding, fd, opts):
 * Serve ${fd}, which listens already and stays open, with the clients' socket options of ${opts}; backlog, mode and owner stay as its maker chose.
 *
 * Returns 0; or -1, and ${fd} is left as it is, when it is no listening stream socket of TCP or UNIX.
 */
int binder_adopt(struct binding *binding, int fd, const struct binder_opts *opts)
    __attribute__((warn_unused_result));

/**
 * binder_resume(binding, fd, lock_fd, addr, opts):
 * Go on with ${fd}, which an earlier rediald has opened on ${addr} and handed over, and with ${lock_fd}, the lock of a UNIX path or -1; both are taken when it succeeds. All is as if
 * binder_open() had opened it.
 *
 * Returns 0; or -1, with both left alone, when it is no stream socket, its path is gone, or its lock cannot be had.
 */
int binder_resume(struct binding *binding, int fd, int lock_fd, const struct addr *addr,
                  const struct binder_opts *opts) __attribute__((warn_unused_result));

/** binder_leave(binding): close it, and leave a UNIX path and its lock file to the next one who has the socket. */
void binder_leave(struct binding *binding);

/**
 * binder_open_more(first):
 * Returns one more socket on the address of ${first}, for another worker: with SO_REUSEPORT for TCP, so that the kernel deals clients out, else the same
 * socket; or -1 with errno set. The first was bound without SO_REUSEPORT: a second daemon finds the address in use.
 */
int binder_open_more(const struct binding *first) __attribute__((warn_unused_result));

/**
 * binder_change(binding, fds, n, opts):
 * Go over to ${opts} while it listens: ${fds} are all the sockets of its address. What clients inherit is of use to those to come; a UNIX path gets its mode and owner, unless it was
 * passed. Returns 0, or -1 with errno set when that is refused.
 */
int binder_change(struct binding *binding, const int *fds, size_t n, const struct binder_opts *opts)
    __attribute__((warn_unused_result));

/** binder_close(binding): close it; remove the UNIX path and its lock file, which are ours. */
void binder_close(struct binding *binding);

#endif
