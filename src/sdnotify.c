/* SPDX-License-Identifier: MIT */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "sdnotify.h"

#ifdef HAVE_LIBSYSTEMD
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

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

#else

void
sdnotify(const char *fmt, ...)
{
    (void)fmt;
}
#endif
