/* SPDX-License-Identifier: MIT */
#include "sock.h"

#include "addr.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Nobody says so much before it was spoken to. */
#define FIN_READS_MAX 64
/* linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST likewise: they cannot be included beside netinet/in.h. */
#define ORIGINAL_DST 80

static void
set_int(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

void
sock_set_nodelay(int fd)
{
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

void
sock_set_keepalive(int fd, uint64_t idle_ms)
{
    uint64_t idle_s = (idle_ms + 999) / 1000;

    /* 32767 s is the kernel's MAX_TCP_KEEPIDLE. */
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, idle_s > 32767 ? 32767 : (int)idle_s);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, SOCK_KEEPALIVE_INTERVAL_S);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, SOCK_KEEPALIVE_PROBES);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

void
sock_set_user_timeout(int fd, uint64_t ms)
{
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, ms > INT32_MAX ? INT32_MAX : (int)ms);
}

void
sock_set_oobinline(int fd)
{
    set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);
}

int
sock_error(int fd)
{
    int err = 0;
    socklen_t len = sizeof(err);

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 ? err : errno;
}

bool
sock_has_ended(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

void
sock_close_fin(int fd)
{
    char unread[4096];

    for (int i = 0; i < FIN_READS_MAX && recv(fd, unread, sizeof(unread), MSG_DONTWAIT) > 0; i++)
        ;
    close(fd);
}

void
sock_close_reset(int fd)
{
    const struct linger abort_close = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort_close, sizeof(abort_close));
    close(fd);
}

unsigned
sock_unsent(int fd)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    int unsent = 0;

    /*
     * After a reset the count of unacknowledged bytes stays where it was, but there is no peer any more. (POLLHUP would not do: two FINs
     * raise it too, with bytes still on their way.)
     */
    if (getpeername(fd, (struct sockaddr *)&peer, &len) != 0)
        return 0;
    if (ioctl(fd, SIOCOUTQ, &unsent) != 0 || unsent < 0)
        return 0;
    return (unsigned)unsent;
}

int
sock_local(int fd, struct addr *local)
{
    socklen_t len = sizeof(local->un);

    if (getsockname(fd, &local->sa, &len) != 0)
        return -1;
    local->len = len;
    local->dual = false;
    return 0;
}

int
sock_dialled(int fd, int family, struct addr *dest)
{
    socklen_t len = sizeof(dest->un);

    if (getsockopt(fd, family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, ORIGINAL_DST, &dest->sa,
                   &len) != 0)
        return -1;
    dest->len = len;
    dest->dual = false;
    return 0;
}

bool
sock_is_temporary_shortage(int err)
{
    return err == EMFILE || err == ENFILE || err == ENOMEM || err == ENOBUFS;
}
