/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_HANDOVER_H
#define REDIAL_HANDOVER_H

#include "addr.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * Listening sockets that go from one rediald to the next: by way of the service manager, which keeps them while there is none, or from a process to the one
 * that takes its place. The next one finds them among those that were passed to it (inherit.h), by names of ours.
 */

/* FDNAME= allows so much, sd_pid_notify_with_fds(3). */
#define HANDOVER_NAME_MAX 256
/* How all of these names begin. */
#define HANDOVER_PREFIX "redial/"

/**
 * handover_name(addr, buf), handover_lock_name(addr, buf):
 * The name for sockets on ${addr}, as configured, and for the lock of a UNIX path. Returns ${buf}, or NULL when there is none: it would be too long, or have
 * characters that names may not have.
 */
const char *handover_name(const struct addr *addr, char buf[HANDOVER_NAME_MAX]);
const char *handover_lock_name(const struct addr *addr, char buf[HANDOVER_NAME_MAX]);

/* A descriptor that is passed, and its name, from strdup(). */
struct handover_fd {
    int fd;
    char *name;
};

struct handover {
    struct handover_fd *fds;
    size_t n;
};

/** handover_add(h, fd, name): pass ${fd}, which is borrowed. Returns 0, or -1 with errno ENOMEM. */
int handover_add(struct handover *h, int fd, const char *name) __attribute__((warn_unused_result));

/** handover_fini(h): the descriptors stay open. */
void handover_fini(struct handover *h);

/* A process that is being started. */
struct handover_process {
    pid_t pid;
    pid_t
        keeper; /* our child, and its parent until it is told to end: then the service manager is that. Ends as it does */
    int ready_fd;
};

/**
 * handover_start(h, path, argv, started):
 * Run ${path} with ${argv} in a new process, as a service manager would that passes it ${h}; it answers to the watchdog in our place. When it is ready, a byte comes out of
 * ${started->ready_fd}, which is the caller's then, non-blocking; when it ends before that, an end of file. To close that is to give way.
 *
 * Returns 0; or -1 with errno set.
 */
int handover_start(const struct handover *h, const char *path, char *const argv[],
                   struct handover_process *started) __attribute__((warn_unused_result));

/** handover_take_ready(): were we run so? To be called once, before there is any other thread. handover_is_ready_awaited(): we were, and have not told yet. */
void handover_take_ready(void);
bool handover_is_ready_awaited(void);

/**
 * handover_tell_ready():
 * If we were run so, tell that we are ready. Returns a descriptor, now the caller's and non-blocking, from which an end of file comes when the other has given way; or -1 when there
 * is nobody to wait for.
 */
int handover_tell_ready(void);

#endif
