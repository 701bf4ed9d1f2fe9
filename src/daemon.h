/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_DAEMON_H
#define REDIAL_DAEMON_H

#include <stdio.h>

struct conf;

/* Exit statuses, sysexits.h. */
enum {
    DAEMON_OK = 0,
    DAEMON_USAGE = 64,    /* the command line is wrong */
    DAEMON_INTERNAL = 70, /* a failure of our own */
    DAEMON_OS = 71,       /* the operating system refused: bind and the like */
    DAEMON_CONFIG = 78,   /* the configuration is wrong */
};

/* Where the configuration comes from. */
struct daemon_source {
    /* Returns a new configuration, or NULL when its faults were told to ${errors}, a line each. */
    struct conf *(*load)(void *arg, FILE *errors);
    void *arg;
    const char *program; /* what is run for an upgrade: a path, */
    char *const *argv;   /* and its arguments */
};

/**
 * daemon_run(conf, source):
 * Serve ${conf}, which is taken, until a signal ends it: bind, drop privileges, run the workers. SIGTERM and SIGINT drain, a second one ends at
 * once; SIGHUP loads the configuration again from ${source}, which is borrowed; SIGUSR2 runs the program of ${source}, which takes our place. To be called once, from the main thread, before any other is made.
 *
 * Returns an exit status; why it is not 0 was logged.
 */
int daemon_run(struct conf *conf, const struct daemon_source *source);

/** daemon_check(conf): what daemon_run() would refuse without touching anything: ports in the ephemeral range. Returns an exit status. */
int daemon_check(const struct conf *conf);

#endif
