/* SPDX-License-Identifier: MIT */
/*
 *           recv            send at once
 * source --------> buffer -------------> sink     copying: one buffer for all
 *                     | short write
 *                     v
 *                   rest                          memory of its own
 *          splice            splice
 * source --------> pipe ---------------> sink     splicing: a pipe from the pool, given back when it is empty
 *
 * While there is a rest, or bytes in the pipe, the source is not read. What is ready is noted, because an edge is told once: whoever stops
 * reading before the source is empty goes on when the rest is gone, or asks to be called again.
 */
#include "relay.h"

#include "monotonic.h"
#include "pipepool.h"
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct relay_rest {
    size_t off, len; /* bytes off..len are still to be written */
    char bytes[];
};

/* Asked for at growing intervals: nothing tells when the last byte was acknowledged. */
struct relay_linger {
    ev_timer timer;
    struct relay *relay;
};
#define LINGER_MIN_S 0.005
#define LINGER_MAX_S 1.

/* So many reads in a row of at least SPLICE_ABOVE bytes make a direction splice; so many below SPLICE_BELOW make it copy again. */
#define RUN_MAX      4
#define SPLICE_ABOVE (RELAY_BUFFER_SIZE / 2)
#define SPLICE_BELOW ((size_t)16 * 1024)
/* Asked for at once; the pipe takes what it has room for. */
#define SPLICE_MAX   ((size_t)1024 * 1024)
#define SPLICE_FLAGS (SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
/* Reads in a row, before the others have their turn. */
#define ROUNDS_MAX 4

#define READ_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLPRI)

static enum relay_side
other(enum relay_side side)
{
    return side == RELAY_CLIENT ? RELAY_SERVER : RELAY_CLIENT;
}

int
relay_fd(const struct relay *r, enum relay_side side)
{
    return r->edge[side].fd;
}

/* Has it bytes that its sink has not taken? */
static bool
is_loaded(const struct relay_dir *dir)
{
    return dir->rest || dir->pipe;
}

static bool
is_reading(const struct relay *r, enum relay_side side)
{
    return !r->dir[side].eof && !is_loaded(&r->dir[side]);
}

/* To be read from in the next turn of the loop. */
static void
read_again(struct relay *r, enum relay_side side)
{
    edge_again(r->shared->edges, &r->edge[side]);
}

/*
 * Edge-triggered, a socket stays watched for all that it ever was: to look at an event in vain costs less than to change what is watched. Not
 * so for a source that splices: level-triggered, it is told of once in a turn, when more has gathered; and while its sink is full, each segment
 * would wake us.
 */
static uint32_t
wanted(const struct relay *r, enum relay_side side)
{
    const struct relay_dir *dir = &r->dir[side];
    uint32_t out = is_loaded(&r->dir[other(side)]) ? EPOLLOUT : 0;

    if (dir->splices && !dir->eof)
        return out | (dir->pipe ? EPOLLET : READ_EVENTS);
    return out | READ_EVENTS | EPOLLET | (r->watched[side] & EPOLLOUT);
}

static void
watch(struct relay *r, enum relay_side side)
{
    uint32_t events = wanted(r, side);

    if (events == r->watched[side])
        return;
    r->watched[side] = events;
    (void)edge_mod(r->shared->edges, &r->edge[side], events);
}

/* Forget what the sink has not taken, if anything. */
static void
unload(struct relay *r, struct relay_dir *dir)
{
    free(dir->rest);
    dir->rest = NULL;
    if (dir->pipe)
        pipepool_give(r->shared->pipes, dir->pipe);
    dir->pipe = NULL;
}

static void
stop(struct relay *r)
{
    for (int side = 0; side < 2; side++) {
        edge_forget(r->shared->edges, &r->edge[side]);
        unload(r, &r->dir[side]);
    }
    if (r->linger) {
        ev_timer_stop(r->loop, &r->linger->timer);
        free(r->linger);
        r->linger = NULL;
    }
}

static void
close_both(struct relay *r, void (*close_one)(int fd))
{
    const int fds[] = {r->edge[RELAY_CLIENT].fd, r->edge[RELAY_SERVER].fd};

    stop(r);
    close_one(fds[0]);
    close_one(fds[1]);
}

void
relay_abort(struct relay *r)
{
    close_both(r, sock_close_reset);
}

static void
close_quietly(int fd)
{
    (void)close(fd);
}

static void
end(struct relay *r)
{
    struct relay_result result = {.outcome = RELAY_CLOSED, .side = r->first_eof};

    if (r->failed >= 0) {
        result = (struct relay_result){.outcome = RELAY_FAILED, .side = r->failed, .err = r->err};
        relay_abort(r);
    } else {
        close_both(r, close_quietly);
    }
    r->events->on_end(r, &result);
}

static void
on_linger(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct relay *r = ((struct relay_linger *)timer)->relay;

    (void)revents;
    if (sock_unsent(r->edge[other(r->failed)].fd) == 0) {
        end(r);
        return;
    }
    timer->repeat = timer->repeat * 2 < LINGER_MAX_S ? timer->repeat * 2 : LINGER_MAX_S;
    ev_timer_again(loop, timer);
}

/* A RST throws away what the kernel has not sent yet: wait until the peer has taken it. */
static void
end_when_taken(struct relay *r)
{
    if (sock_unsent(r->edge[other(r->failed)].fd) == 0)
        goto end;
    if (r->linger)
        return;
    r->linger = malloc(sizeof(*r->linger));
    if (!r->linger)
        goto end;
    r->linger->relay = r;
    ev_timer_init(&r->linger->timer, on_linger, 0., LINGER_MIN_S);
    ev_timer_again(r->loop, &r->linger->timer);
    return;
end:
    end(r);
}

/* Nothing left to read or to write in this direction: pass its end on. Ends the relay when both directions are done. */
static void
finish_dir(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];

    if (!dir->eof || is_loaded(dir) || dir->shut)
        return;
    if (r->failed == (int)from) {
        dir->shut = true;
        end_when_taken(r);
        return;
    }
    dir->shut = true;
    if (r->dir[other(from)].shut) {
        end(r); /* closing says as much as a FIN of its own would */
        return;
    }
    /* ENOTCONN: it was reset meanwhile, which reading from it will tell. */
    (void)shutdown(r->edge[other(from)].fd, SHUT_WR);
    r->events->on_half_closed(r, from);
}

/* ${side} has failed. ${drained}: there is nothing more to be read from it. */
static void
fail(struct relay *r, enum relay_side side, int err, bool drained)
{
    struct relay_dir *from = &r->dir[side], *to = &r->dir[other(side)];

    if (r->failed == (int)other(side)) { /* nobody is left to be told */
        end(r);
        return;
    }
    if (r->failed == (int)side) { /* it failed when written to; there is no more to be read */
        from->eof = true;
        finish_dir(r, side);
        return;
    }
    r->failed = (int8_t)side;
    r->err = err;
    unload(r, to);
    to->eof = to->shut = true;
    if (drained)
        from->eof = true;
    watch(r, side);
    watch(r, other(side));
    if (from->shut) { /* its own end was passed on long ago */
        end_when_taken(r);
        return;
    }
    if (!from->eof) {
        from->ready = from->read_on = true;
        read_again(r, side);
    }
    r->events->on_half_closed(r, side); /* the other side may take its time, but not for ever */
    finish_dir(r, side);
}

static bool
keep_rest(struct relay_dir *dir, const char *bytes, size_t len)
{
    dir->rest = malloc(sizeof(*dir->rest) + len);
    if (!dir->rest)
        return false;
    dir->rest->off = 0;
    dir->rest->len = len;
    memcpy(dir->rest->bytes, bytes, len);
    return true;
}

static void
count(struct relay *r, enum relay_side from, ssize_t n)
{
    r->dir[from].bytes += (uint64_t)n;
    r->last_byte = monotonic_coarse_s();
}

/* Returns the bytes written, 0 when none can be now, or -1 with errno set. */
static ssize_t
write_some(struct relay *r, enum relay_side from, const char *bytes, size_t len)
{
    ssize_t n = send(r->edge[other(from)].fd, bytes, len, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    count(r, from, n);
    return n;
}

static int
flush_rest(struct relay *r, enum relay_side from)
{
    struct relay_rest *rest = r->dir[from].rest;
    ssize_t n = write_some(r, from, rest->bytes + rest->off, rest->len - rest->off);

    if (n < 0)
        return -1;
    rest->off += (size_t)n;
    if (rest->off == rest->len)
        unload(r, &r->dir[from]);
    return 0;
}

static int
flush_pipe(struct relay *r, enum relay_side from)
{
    struct pipe *pipe = r->dir[from].pipe;

    while (pipe->fill > 0) {
        ssize_t n =
            splice(pipe->out, NULL, r->edge[other(from)].fd, NULL, pipe->fill, SPLICE_FLAGS);
        if (n == 0) /* cannot be: the pipe has bytes */
            errno = EIO;
        if (n <= 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        pipe->fill -= (size_t)n;
        count(r, from, n);
    }
    unload(r, &r->dir[from]);
    return 0;
}

/* A read gave nothing: ${got} is 0 at the end of the stream, or -1 with errno set. Returns false when the relay may be gone. */
static bool
on_no_bytes(struct relay *r, enum relay_side from, ssize_t got)
{
    struct relay_dir *dir = &r->dir[from];

    if (got < 0 && errno == EINTR)
        return true;
    dir->ready = false;
    if (got < 0 && errno == EAGAIN)
        return true;
    if (got < 0) {
        fail(r, from, errno, true);
        return false;
    }
    dir->eof = true;
    if (r->first_eof < 0)
        r->first_eof = (int8_t)from;
    watch(r, from);
    finish_dir(r, from);
    return false;
}

/* ${got} bytes were read and written at once: would the other way to move them be better? */
static void
adapt(struct relay *r, struct relay_dir *dir, size_t got)
{
    bool other_way = dir->splices ? got < SPLICE_BELOW : got >= SPLICE_ABOVE;

    dir->run = other_way ? dir->run + 1 : 0;
    if (dir->run < RUN_MAX)
        return;
    dir->run = 0;
    dir->splices = !dir->splices && r->shared->pipes && !dir->has_urgent;
}

/* Returns false when the relay may be gone. */
static bool
copy(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];
    char *buffer = r->shared->buffer;

    ssize_t got = recv(r->edge[from].fd, buffer, RELAY_BUFFER_SIZE, 0);
    if (got <= 0)
        return on_no_bytes(r, from, got);
    if ((size_t)got < RELAY_BUFFER_SIZE && !dir->read_on)
        dir->ready = false; /* epoll(7): a short read has emptied it */
    adapt(r, dir, (size_t)got);
    ssize_t sent = write_some(r, from, buffer, (size_t)got);
    if (sent == got)
        return true;
    if (sent < 0) {
        fail(r, other(from), errno, false);
        return false;
    }
    if (!keep_rest(dir, buffer + sent, (size_t)(got - sent))) {
        r->failed = (int8_t)from; /* bytes are lost: neither side may take this for a clean end */
        r->err = ENOMEM;
        end(r);
        return false;
    }
    return true;
}

/* Returns false when the relay may be gone. */
static bool
splice_on(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];

    dir->pipe = pipepool_take(r->shared->pipes);
    if (!dir->pipe) {
        dir->splices = false;
        return copy(r, from);
    }
    ssize_t got = splice(r->edge[from].fd, NULL, dir->pipe->in, NULL, SPLICE_MAX, SPLICE_FLAGS);
    if (got <= 0) {
        int err = errno;
        unload(r, dir);
        errno = err;
        return on_no_bytes(r, from, got);
    }
    dir->pipe->fill = (size_t)got;
    adapt(r, dir, (size_t)got);
    if (flush_pipe(r, from) != 0) {
        fail(r, other(from), errno, false);
        return false;
    }
    return true;
}

/* Move what ${from} has. The relay may be gone afterwards. */
static void
move(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];

    for (int i = 0; i < ROUNDS_MAX && dir->ready && is_reading(r, from); i++) {
        if (!(dir->splices ? splice_on(r, from) : copy(r, from)))
            return;
        if (dir->splices)
            break;
    }
    watch(r, from);
    watch(r, other(from));
    if (!dir->splices && dir->ready && is_reading(r, from))
        read_again(r, from);
}

/* ${to} has room again. The relay may be gone afterwards. */
static void
on_writable(struct relay *r, enum relay_side to)
{
    enum relay_side from = other(to);
    struct relay_dir *dir = &r->dir[from];

    if ((dir->rest ? flush_rest(r, from) : flush_pipe(r, from)) != 0)
        fail(r, to, errno, false);
    else if (!is_loaded(dir))
        move(r, from);
}

/* A reset of a side that is not read from now: nobody else would hear of it. */
static void
on_error(struct relay *r, enum relay_side side)
{
    int err = r->failed == (int)side ? 0 : sock_error(r->edge[side].fd);

    if (err != 0)
        fail(r, side, err, false);
}

static void
note(struct relay *r, enum relay_side side, uint32_t events)
{
    struct relay_dir *dir = &r->dir[side];

    if (events & ~(uint32_t)EPOLLOUT)
        dir->ready = true;
    if (events & ~(uint32_t)(EPOLLIN | EPOLLOUT))
        dir->read_on = true; /* bytes, and an end or an error behind them */
    if (!(events & EPOLLPRI) || dir->has_urgent)
        return;
    /* A read stops before the urgent byte, splice(2) does not get past it, and without this it would be lost. */
    dir->has_urgent = true;
    dir->splices = false;
    sock_set_oobinline(r->edge[side].fd);
}

static void
on_event(struct relay *r, enum relay_side side, uint32_t events)
{
    bool wants_read;

    note(r, side, events);
    wants_read = r->dir[side].ready && is_reading(r, side);
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) && is_loaded(&r->dir[other(side)])) {
        if (wants_read)
            read_again(r, side);
        on_writable(r, side);
    } else if (wants_read) {
        move(r, side);
    } else if (events & EPOLLERR) {
        on_error(r, side);
    }
}

static void
on_client(struct edge *edge, uint32_t events)
{
    on_event((struct relay *)((char *)edge - offsetof(struct relay, edge[RELAY_CLIENT])),
             RELAY_CLIENT, events);
}

static void
on_server(struct edge *edge, uint32_t events)
{
    on_event((struct relay *)((char *)edge - offsetof(struct relay, edge[RELAY_SERVER])),
             RELAY_SERVER, events);
}

int
relay_start(struct relay *r, struct ev_loop *loop, const struct relay_shared *shared,
            const struct relay_ends *ends, const struct relay_events *events)
{
    *r = (struct relay){
        .loop = loop,
        .shared = shared,
        .events = events,
        .failed = -1,
        .first_eof = -1,
        .last_byte = monotonic_coarse_s(),
        .watched = {READ_EVENTS | EPOLLET, READ_EVENTS | EPOLLET},
    };
    /* A read from a UNIX socket may stop where its peer had passed a descriptor. */
    r->dir[RELAY_CLIENT].read_on = ends->is_unix[RELAY_CLIENT];
    r->dir[RELAY_SERVER].read_on = ends->is_unix[RELAY_SERVER];
    if (edge_add(shared->edges, &r->edge[RELAY_CLIENT], ends->fd[RELAY_CLIENT],
                 r->watched[RELAY_CLIENT], on_client) != 0)
        return -1;
    if (edge_add(shared->edges, &r->edge[RELAY_SERVER], ends->fd[RELAY_SERVER],
                 r->watched[RELAY_SERVER], on_server) == 0)
        return 0;
    int err = errno;
    edge_del(shared->edges, &r->edge[RELAY_CLIENT]);
    errno = err;
    return -1;
}
