/* SPDX-License-Identifier: MIT */
#include "sockdiag.h"

#include "socktable.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct request {
    struct nlmsghdr header;
    struct inet_diag_req_v2 diag;
};

static int
ask(int fd, int family)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct request request = {
        .header = {.nlmsg_len = sizeof(request),
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .diag = {.sdiag_family = (uint8_t)family,
                 .sdiag_protocol = IPPROTO_TCP,
                 .idiag_states = UINT32_MAX},
    };
    ssize_t n =
        sendto(fd, &request, sizeof(request), 0, (struct sockaddr *)&kernel, sizeof(kernel));

    return n == (ssize_t)sizeof(request) ? 0 : -1;
}

static void
set_addr(struct addr *a, int family, const uint32_t *words, uint16_t port)
{
    memset(a, 0, sizeof(*a));
    a->sa.sa_family = (sa_family_t)family;
    if (family == AF_INET) {
        a->len = sizeof(a->in);
        memcpy(&a->in.sin_addr, words, sizeof(a->in.sin_addr));
        a->in.sin_port = port;
    } else {
        a->len = sizeof(a->in6);
        memcpy(&a->in6.sin6_addr, words, sizeof(a->in6.sin6_addr));
        a->in6.sin6_port = port;
    }
}

static void
visit_one(const struct inet_diag_msg *msg,
          void (*visit)(void *arg, const struct socktable_entry *entry), void *arg)
{
    struct socktable_entry entry = {.state = msg->idiag_state,
                                    .uid = msg->idiag_uid,
                                    .inode = msg->idiag_inode};

    if (msg->idiag_family != AF_INET && msg->idiag_family != AF_INET6)
        return;
    set_addr(&entry.local, msg->idiag_family, msg->id.idiag_src, msg->id.idiag_sport);
    set_addr(&entry.remote, msg->idiag_family, msg->id.idiag_dst, msg->id.idiag_dport);
    visit(arg, &entry);
}

static int
error_of(struct nlmsghdr *header)
{
    const struct nlmsgerr *err = NLMSG_DATA(header);

    if (header->nlmsg_len < NLMSG_LENGTH(sizeof(*err)) || err->error == 0)
        return EPROTO;
    return -err->error;
}

/* Reads the whole answer. Returns 0, or -1 with errno set. */
static int
hear(int fd, void (*visit)(void *arg, const struct socktable_entry *entry), void *arg)
{
    _Alignas(struct nlmsghdr) char buf[32768];

    for (;;) {
        ssize_t n = recv(fd, buf, sizeof(buf), 0);
        if (n == 0)
            errno = EPROTO;
        if (n <= 0)
            return -1;
        size_t left = (size_t)n;
        for (struct nlmsghdr *h = (struct nlmsghdr *)buf; NLMSG_OK(h, left);
             h = NLMSG_NEXT(h, left)) {
            if (h->nlmsg_type == NLMSG_DONE)
                return 0;
            if (h->nlmsg_type == NLMSG_ERROR) {
                errno = error_of(h);
                return -1;
            }
            if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY &&
                h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
                visit_one(NLMSG_DATA(h), visit, arg);
        }
    }
}

int
sockdiag_each(void (*visit)(void *arg, const struct socktable_entry *entry), void *arg)
{
    static const int families[] = {AF_INET, AF_INET6};
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG), err = 0;

    if (fd < 0)
        return -1;
    for (size_t i = 0; i < 2 && err == 0; i++)
        if (ask(fd, families[i]) != 0 || hear(fd, visit, arg) != 0)
            err = errno;
    close(fd);
    errno = err;
    return err == 0 ? 0 : -1;
}
