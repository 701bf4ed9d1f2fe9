/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SDNOTIFY_H
#define REDIAL_SDNOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* The service manager, by libsystemd. In a build without that nothing is told, asked for or passed. */

/**
 * sdnotify(fmt, ...):
 * Send ${fmt} (`READY=1' and the like, sd_notify(3)) to the service manager. Does nothing without one. Cannot fail.
 */
void sdnotify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** sdnotify_wait_heard(): wait, for two seconds at most, until the service manager has heard all that it was told (sd_notify_barrier(3)). Cannot fail. */
void sdnotify_wait_heard(void);

/** sdnotify_is_heard(): does a service manager listen to that? */
bool sdnotify_is_heard(void);

/** sdnotify_watchdog_us(): within how many microseconds, time and again, it wants to hear `WATCHDOG=1'; 0: never. */
uint64_t sdnotify_watchdog_us(void);

/**
 * sdnotify_sockets(names):
 * Which descriptors were passed (sd_listen_fds(3))? They are 3, 4, ... and closed on exec from now on; LISTEN_PID and its like leave the environment.
 *
 * Returns their number, with ${*names} a new array of as many new texts, their names, and a NULL; or -1 with errno set. Without any, ${*names} is
 * NULL.
 */
int sdnotify_sockets(char ***names) __attribute__((warn_unused_result));

/**
 * sdnotify_keeps_sockets(): does the service manager keep sockets from one start to the next (FileDescriptorStoreMax=, sd_pid_notify_with_fds(3))? It tells by $FDSTORE.
 */
bool sdnotify_keeps_sockets(void);

/** sdnotify_keep(name, fd): have it keep ${fd}, which is borrowed, by ${name}, and pass it to the next start. sdnotify_forget(name): no more any of that name. Cannot fail. */
void sdnotify_keep(const char *name, int fd);
void sdnotify_forget(const char *name);

/** sdnotify_is_built_in(): was it built with libsystemd? */
bool sdnotify_is_built_in(void);

#endif
