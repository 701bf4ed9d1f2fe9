/* SPDX-License-Identifier: MIT */
#include "route.h"

#include <errno.h>
#include <unistd.h>

/* Any will do where none is given: nothing is sent to it. */
#define DISCARD_PORT 9

enum answer { NO_ROUTE, FOUND, UNKNOWN };

/* From where would ${*dest} be dialled? A wildcard ${*dest} becomes what it stands for; both get ${*dest}'s port. */
static enum answer
look_up(struct addr *dest, const struct addr *source, struct addr *from)
{
    enum answer answer = NO_ROUTE;
    socklen_t from_len = sizeof(from->un), dest_len = sizeof(dest->un);

    if (addr_port(dest) == 0)
        addr_set_port(dest, DISCARD_PORT);
    int fd = socket(dest->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return UNKNOWN;
    if (source && source->len > 0)
        (void)bind(fd, &source->sa, source->len);
    if (connect(fd, &dest->sa, dest->len) == 0) {
        answer = UNKNOWN;
        if (getsockname(fd, &from->sa, &from_len) == 0 &&
            getpeername(fd, &dest->sa, &dest_len) == 0)
            answer = FOUND;
    }
    close(fd);
    from->len = from_len;
    dest->len = dest_len;
    addr_set_port(from, addr_port(dest));
    return answer;
}

bool
route_is_local(const struct addr *addr)
{
    struct addr dest = addr_unmap(addr), from = {.len = 0};

    if (!addr_is_inet(addr))
        return false;
    if (addr_is_wildcard(addr))
        return true;
    if (look_up(&dest, NULL, &from) != FOUND)
        return false;
    /* An address of this host is dialled from itself, or, in 127/8, from 127.0.0.1. */
    return addr_equal(&from, &dest) ||
           (from.sa.sa_family == AF_INET && ntohl(from.in.sin_addr.s_addr) >> 24 == 127);
}

bool
route_may_meet_itself(const struct addr *addr, const struct addr *source)
{
    struct addr dest = *addr, from = {.len = 0};
    enum answer answer = look_up(&dest, source, &from);

    return answer == UNKNOWN || (answer == FOUND && addr_equal(&from, &dest));
}
