/* SPDX-License-Identifier: MIT */
#include "portrange.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The kernel's defaults, ip-sysctl.rst. */
#define DEFAULT_LOW  32768
#define DEFAULT_HIGH 60999

/* The longest list: every second port, with its comma. */
#define SYSCTL_TEXT_MAX (65536 / 2 * 6 + 2)

/* Reads a port at ${*p} and steps behind it. */
static bool
take_port(const char **p, unsigned *port)
{
    unsigned n = 0;

    if (**p < '0' || **p > '9')
        return false;
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        n = n * 10 + (unsigned)(**p - '0');
        if (n > UINT16_MAX)
            return false;
    }
    *port = n;
    return true;
}

static void
skip_blanks(const char **p)
{
    *p += strspn(*p, " \t\n");
}

static bool
parse_range(struct portrange *pr, const char *p)
{
    unsigned low, high;

    skip_blanks(&p);
    if (!take_port(&p, &low) || (*p != ' ' && *p != '\t'))
        return false;
    skip_blanks(&p);
    if (!take_port(&p, &high))
        return false;
    skip_blanks(&p);
    if (*p != '\0' || low < 1 || low > high)
        return false;
    pr->low = (uint16_t)low;
    pr->high = (uint16_t)high;
    return true;
}

void
portrange_reserve(struct portrange *pr, uint16_t port)
{
    pr->reserved[port / 8] |= (uint8_t)(1U << port % 8);
}

static void
parse_reserved(struct portrange *pr, const char *p)
{
    unsigned first, last;

    for (;; p++) {
        skip_blanks(&p);
        if (!take_port(&p, &first))
            return;
        last = first;
        if (*p == '-') {
            p++;
            if (!take_port(&p, &last) || last < first)
                return;
        }
        skip_blanks(&p);
        if (*p != ',' && *p != '\0')
            return;
        for (unsigned port = first; port <= last; port++)
            portrange_reserve(pr, (uint16_t)port);
        if (*p == '\0')
            return;
    }
}

void
portrange_parse(struct portrange *pr, const char *range, const char *reserved)
{
    memset(pr, 0, sizeof(*pr));
    if (range == NULL || !parse_range(pr, range)) {
        pr->low = DEFAULT_LOW;
        pr->high = DEFAULT_HIGH;
        pr->assumed = true;
    }
    if (reserved != NULL)
        parse_reserved(pr, reserved);
}

/*
 * Returns a new string, or NULL. One read(2) with room for all: the kernel gives the list of
 * reserved ports in the first read alone, cut to its size (proc_do_large_bitmap() in
 * kernel/sysctl.c), so stdio's buffer would lose the rest.
 */
static char *
read_sysctl(const char *path)
{
    char *text = malloc(SYSCTL_TEXT_MAX);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;

    if (text != NULL && fd >= 0)
        n = read(fd, text, SYSCTL_TEXT_MAX - 1);
    if (fd >= 0)
        close(fd);
    if (n < 0) {
        free(text);
        return NULL;
    }
    text[n] = '\0';
    return text;
}

void
portrange_load(struct portrange *pr)
{
    char *range = read_sysctl("/proc/sys/net/ipv4/ip_local_port_range");
    char *reserved = read_sysctl("/proc/sys/net/ipv4/ip_local_reserved_ports");

    portrange_parse(pr, range, reserved);
    free(range);
    free(reserved);
}

bool
portrange_has(const struct portrange *pr, uint16_t port)
{
    return port >= pr->low && port <= pr->high;
}

bool
portrange_is_reserved(const struct portrange *pr, uint16_t port)
{
    return pr->reserved[port / 8] >> port % 8 & 1;
}

bool
portrange_is_risky(const struct portrange *pr, uint16_t port)
{
    return portrange_has(pr, port) && !portrange_is_reserved(pr, port);
}

bool
portrange_equal(const struct portrange *a, const struct portrange *b)
{
    return a->low == b->low && a->high == b->high && a->assumed == b->assumed &&
           memcmp(a->reserved, b->reserved, sizeof(a->reserved)) == 0;
}

bool
portrange_without(const struct portrange *pr, uint16_t port, uint16_t *low, uint16_t *high)
{
    if (pr->low == pr->high)
        return false;
    if (port - pr->low > pr->high - port) {
        *low = pr->low;
        *high = (uint16_t)(port - 1);
    } else {
        *low = (uint16_t)(port + 1);
        *high = pr->high;
    }
    return true;
}

/* The first run of reserved ports from ${from} on; false when there is none. */
static bool
next_run(const struct portrange *pr, unsigned from, unsigned *first, unsigned *last)
{
    while (from <= UINT16_MAX && !portrange_is_reserved(pr, (uint16_t)from))
        from++;
    *first = from;
    while (from <= UINT16_MAX && portrange_is_reserved(pr, (uint16_t)from))
        from++;
    *last = from - 1;
    return *first <= UINT16_MAX;
}

const char *
portrange_reserved_text(const struct portrange *pr, char *buf, size_t size)
{
    static const char more[] = ",...";
    size_t len = 0, cut = 0; /* cut: the end of the last item that leaves room for the dots */
    unsigned first, last = 0;

    for (unsigned from = 0; next_run(pr, from, &first, &last); from = last + 1) {
        const char *comma = len > 0 ? "," : "";
        int n;

        if (first == last)
            n = snprintf(buf + len, size - len, "%s%u", comma, first);
        else
            n = snprintf(buf + len, size - len, "%s%u-%u", comma, first, last);
        if ((size_t)n >= size - len) {
            snprintf(buf + cut, size - cut, "%s", cut > 0 ? more : more + 1);
            break;
        }
        len += (size_t)n;
        if (len + sizeof(more) <= size)
            cut = len;
    }
    return buf;
}
