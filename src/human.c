/* SPDX-License-Identifier: MIT */
#include "human.h"

#include <stdio.h>
#include <string.h>

#define SECOND 1000.
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
/* Nothing real is older; more would not fit into an int. */
#define LONGEST (1000000 * DAY)

/* Two digits or three. Limits are where rounding would show a digit more. */
static struct human
scaled(double n, const char *const *units, const char *blank, const char *tail)
{
    struct human h;
    int decimals = 0;

    while (n >= 999.5 && units[1]) {
        n /= 1000;
        units++;
        decimals = 1;
    }
    if (n >= 9.95)
        decimals = 0;
    snprintf(h.s, sizeof(h.s), "%.*f%s%s%s", decimals, n, blank, *units, tail);
    return h;
}

struct human
human_count(double n)
{
    static const char *const units[] = {"", "k", "M", "G", "T", NULL};
    struct human h;

    if (n >= 99999.5)
        return scaled(n, units, "", "");
    snprintf(h.s, sizeof(h.s), "%.0f", n > 0 ? n : 0);
    return h;
}

static const char *const bytes[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB", NULL};

struct human
human_bytes(double n)
{
    return scaled(n > 0 ? n : 0, bytes, " ", "");
}

struct human
human_rate(double n)
{
    if (n < 0)
        return (struct human){"-"};
    return scaled(n, bytes, " ", "/s");
}

struct human
human_age(double ms)
{
    struct human h;

    if (!(ms > 0))
        ms = 0;
    if (ms > LONGEST)
        ms = LONGEST;
    if (ms < 999.5)
        snprintf(h.s, sizeof(h.s), "%.0fms", ms);
    else if (ms < 9950)
        snprintf(h.s, sizeof(h.s), "%.1fs", ms / SECOND);
    else if (ms < MINUTE)
        snprintf(h.s, sizeof(h.s), "%ds", (int)(ms / SECOND));
    else if (ms < HOUR)
        snprintf(h.s, sizeof(h.s), "%dm %ds", (int)(ms / MINUTE), (int)(ms / SECOND) % 60);
    else if (ms < DAY)
        snprintf(h.s, sizeof(h.s), "%dh %dm", (int)(ms / HOUR), (int)(ms / MINUTE) % 60);
    else
        snprintf(h.s, sizeof(h.s), "%dd %dh", (int)(ms / DAY), (int)(ms / HOUR) % 24);
    return h;
}
