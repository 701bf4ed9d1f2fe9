/* SPDX-License-Identifier: MIT */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "sdnotify.h"

#include <stddef.h>

#ifdef HAVE_LIBSYSTEMD
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#define HEARD_US 2000000

void
sdnotify(const char *fmt, ...)
{
    char *text;
    va_list args;
    int n;

    va_start(args, fmt);
    n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n < 0)
        return;
    sd_notify(0, text);
    free(text);
}

void
sdnotify_wait_heard(void)
{
    while (sd_notify_barrier(0, HEARD_US) == -EINTR)
        ;
}

bool
sdnotify_is_heard(void)
{
    return getenv("NOTIFY_SOCKET") != NULL;
}

uint64_t
sdnotify_watchdog_us(void)
{
    uint64_t usec;

    return sd_watchdog_enabled(0, &usec) > 0 ? usec : 0;
}

int
sdnotify_sockets(char ***names)
{
    int n;

    *names = NULL;
    n = sd_listen_fds_with_names(1, names);
    if (n < 0) {
        errno = -n;
        return -1;
    }
    return n;
}

bool
sdnotify_keeps_sockets(void)
{
    const char *most = getenv("FDSTORE");

    return sdnotify_is_heard() && most != NULL && atoi(most) > 0;
}

/* FDPOLL=0: a listening socket that is shut down for a while (unlisten) would be thrown away else. */
void
sdnotify_keep(const char *name, int fd)
{
    char *text;

    if (!sdnotify_keeps_sockets() || asprintf(&text, "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name) < 0)
        return;
    sd_pid_notify_with_fds(0, 0, text, &fd, 1);
    free(text);
}

void
sdnotify_forget(const char *name)
{
    if (sdnotify_keeps_sockets())
        sdnotify("FDSTOREREMOVE=1\nFDNAME=%s", name);
}

bool
sdnotify_is_built_in(void)
{
    return true;
}

#else

void
sdnotify(const char *fmt, ...)
{
    (void)fmt;
}

void
sdnotify_wait_heard(void)
{
}

bool
sdnotify_is_heard(void)
{
    return false;
}

uint64_t
sdnotify_watchdog_us(void)
{
    return 0;
}

int
sdnotify_sockets(char ***names)
{
    *names = NULL;
    return 0;
}

bool
sdnotify_keeps_sockets(void)
{
    return false;
}

void
sdnotify_keep(const char *name, int fd)
{
    (void)name;
    (void)fd;
}

void
sdnotify_forget(const char *name)
{
    (void)name;
}

bool
sdnotify_is_built_in(void)
{
    return false;
}
#endif
