/* SPDX-License-Identifier: MIT */
/*
 * bare LISTEN-PORT SERVER-PORT: the least that a TCP proxy can do, to see what everything else costs.
 *
 * One thread and one epoll instance, edge-triggered. Each client is accepted, its server dialled and bytes copied through one buffer; a direction
 * that moves much goes through a pipe of its own with splice(2). Nothing is checked, timed, limited, logged or tried again; every shortage ends the program.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_SIZE  ((size_t)256 * 1024)
#define SPLICE_ABOVE (BUFFER_SIZE / 2)
#define SPLICE_AFTER 4
#define BATCH        64

struct end {
    int fd;
    int pipe[2]; /* of what comes from here; -1: copied */
    unsigned run;
    bool has_ended, is_waited_for; /* the peer's write is to be tried again */
    size_t in_pipe;
    struct end *peer;
};

static char buffer[BUFFER_SIZE];
static int epoll_fd;

static int
check(int result, const char *what)
{
    if (result >= 0)
        return result;
    perror(what);
    exit(1);
}

static struct sockaddr_in
loopback(const char *port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)atoi(port)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

static void
add(int fd, void *end, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = end};

    check(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

static struct end *
new_end(int fd)
{
    struct end *e = malloc(sizeof(*e));
    const int one = 1;

    if (!e)
        err(1, "malloc");
    *e = (struct end){.fd = fd, .pipe = {-1, -1}};
    check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), "TCP_NODELAY");
    return e;
}

static void
serve(int client, const struct sockaddr_in *to)
{
    int server = check(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
    struct end *a = new_end(client), *b = new_end(server);

    a->peer = b;
    b->peer = a;
    if (connect(server, (const struct sockaddr *)to, sizeof(*to)) != 0 && errno != EINPROGRESS)
        check(-1, "connect");
    add(client, a, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    add(server, b, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

static void
accept_all(int listener, const struct sockaddr_in *to)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
        serve(fd, to);
}

static void
end_of(struct end *e)
{
    e->has_ended = true;
    if (!e->peer->has_ended)
        (void)shutdown(e->peer->fd, SHUT_WR);
}

/* Returns false when it must wait. */
static bool
drain_pipe(struct end *e)
{
    ssize_t n;

    while (e->in_pipe > 0) {
        n = splice(e->pipe[0], NULL, e->peer->fd, NULL, e->in_pipe,
                   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n < 0 && errno != EAGAIN)
            e->has_ended = e->peer->has_ended = true;
        if (n <= 0) {
            e->is_waited_for = true;
            return false;
        }
        e->in_pipe -= (size_t)n;
    }
    return true;
}

static void
splice_on(struct end *e)
{
    ssize_t n;

    while (drain_pipe(e)) {
        n = splice(e->fd, NULL, e->pipe[1], NULL, (size_t)1 << 20,
                   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            end_of(e);
        if (n <= 0)
            return;
        e->in_pipe = (size_t)n;
    }
}

/* One read and one write. Returns false when there is no more, or no room. */
static bool
copy(struct end *e)
{
    ssize_t n = recv(e->fd, buffer, sizeof(buffer), 0), sent;

    if (n == 0 || (n < 0 && errno != EAGAIN))
        end_of(e);
    if (n <= 0)
        return false;
    sent = send(e->peer->fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (sent < n) { /* what is left has to go through the pipe */
        if (e->pipe[0] < 0)
            check(pipe2(e->pipe, O_NONBLOCK), "pipe2");
        (void)fcntl(e->pipe[0], F_SETPIPE_SZ, (int)BUFFER_SIZE);
        sent = sent < 0 ? 0 : sent;
        if (write(e->pipe[1], buffer + sent, (size_t)(n - sent)) != n - sent)
            check(-1, "write");
        e->in_pipe = (size_t)(n - sent);
        e->is_waited_for = true;
        return false;
    }
    e->run = (size_t)n >= SPLICE_ABOVE ? e->run + 1 : 0;
    if (e->run == SPLICE_AFTER && e->pipe[0] < 0) {
        check(pipe2(e->pipe, O_NONBLOCK), "pipe2");
        (void)fcntl(e->pipe[0], F_SETPIPE_SZ, (int)BUFFER_SIZE);
    }
    return (size_t)n == sizeof(buffer);
}

static void
move(struct end *e)
{
    if (e->has_ended)
        return;
    if (e->pipe[0] >= 0)
        splice_on(e);
    else if (copy(e) && !e->has_ended)
        while (copy(e))
            ;
}

static void
on_event(struct end *e, uint32_t events)
{
    struct end *peer = e->peer;

    if ((events & EPOLLOUT) && peer->is_waited_for) {
        peer->is_waited_for = false;
        move(peer);
    }
    if (events & ~(uint32_t)EPOLLOUT)
        move(e);
    if (!e->has_ended || !peer->has_ended)
        return;
    for (int i = 0; i < 2; i++) {
        struct end *one = i == 0 ? e : peer;
        if (one->pipe[0] >= 0) {
            close(one->pipe[0]);
            close(one->pipe[1]);
        }
        close(one->fd);
        one->peer = NULL;
    }
}

int
main(int argc, char **argv)
{
    struct epoll_event batch[BATCH];
    struct sockaddr_in at, to;
    const int one = 1;
    int listener, n;

    if (argc != 3) {
        fputs("usage: bare LISTEN-PORT SERVER-PORT\n", stderr);
        return 64;
    }
    at = loopback(argv[1]);
    to = loopback(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    epoll_fd = check(epoll_create1(0), "epoll_create1");
    listener = check(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
    check(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), "SO_REUSEADDR");
    check(bind(listener, (struct sockaddr *)&at, sizeof(at)), "bind");
    check(listen(listener, 65535), "listen");
    add(listener, NULL, EPOLLIN);
    for (;;) {
        struct end *gone[2 * BATCH];
        int n_gone = 0;

        n = check(epoll_wait(epoll_fd, batch, BATCH, -1), "epoll_wait");
        for (int i = 0; i < n; i++) {
            struct end *e = batch[i].data.ptr, *peer = e ? e->peer : NULL;
            if (!e)
                accept_all(listener, &to);
            else if (peer)
                on_event(e, batch[i].events);
            if (peer && !e->peer) { /* later events of this batch may name them */
                gone[n_gone++] = e;
                gone[n_gone++] = peer;
            }
        }
        while (n_gone > 0)
            free(gone[--n_gone]);
    }
}
