/* SPDX-License-Identifier: MIT */
/*
 * When to read, what is watched, and how it ends; relay_move.c moves the bytes.
 *
 * A source is not read while its sink has not taken what was read before. What is ready is noted, because an edge is told once: whoever stops
 * reading before the source is empty goes on when the sink has room, or asks to be called again.
 */
#include "relay_internal.h"

#include "monotonic.h"
#include "sock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Asked for at growing intervals: nothing tells when the last byte was acknowledged. */
struct relay_linger {
    ev_timer timer;
    struct relay *relay;
};
#define LINGER_MIN_S 0.005
#define LINGER_MAX_S 1.

/* Reads in a row, before the others have their turn. */
#define ROUNDS_MAX 4

#define READ_EVENTS (RELAY_EVENTS & ~(uint32_t)EPOLLET)

int
relay_fd(const struct relay *r, enum relay_side side)
{
    return r->edge[side].fd;
}

static bool
is_reading(const struct relay *r, enum relay_side side)
{
    return !r->dir[side].eof && !relay_is_loaded(&r->dir[side]);
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
    uint32_t out = relay_is_loaded(&r->dir[relay_other(side)]) ? EPOLLOUT : 0;

    if (dir->splices && !dir->eof)
        return out | (dir->pipe ? EPOLLET : READ_EVENTS);
    return out | RELAY_EVENTS | (r->watched[side] & EPOLLOUT);
}

/* Mostly not: nothing splices, nothing is left over, and what is watched stays as it is. */
static bool
may_change(const struct relay *r, enum relay_side side)
{
    return r->dir[side].splices || relay_is_loaded(&r->dir[relay_other(side)]) ||
           !(r->watched[side] & EPOLLET);
}

static void
watch(struct relay *r, enum relay_side side)
{
    uint32_t events;

    if (!may_change(r, side))
        return;
    events = wanted(r, side);
    if (events == r->watched[side])
        return;
    r->watched[side] = events;
    (void)edge_mod(r->shared->edges, &r->edge[side], events);
}

static void
stop(struct relay *r)
{
    for (int side = 0; side < 2; side++) {
        edge_forget(r->shared->edges, &r->edge[side]);
        relay_unload(r, &r->dir[side]);
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
    if (sock_unsent(r->edge[relay_other(r->failed)].fd) == 0) {
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
    if (sock_unsent(r->edge[relay_other(r->failed)].fd) == 0)
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

/* Neither side has seen a byte of the other, nor its end. */
static void
give_back_client(struct relay *r)
{
    int client_fd = r->edge[RELAY_CLIENT].fd, server_fd = r->edge[RELAY_SERVER].fd;
    struct relay_rest *rest = r->dir[RELAY_CLIENT].rest;

    r->dir[RELAY_CLIENT].rest = NULL;
    edge_del(r->shared->edges, &r->edge[RELAY_CLIENT]);
    stop(r);
    sock_close_fin(server_fd);
    r->events->on_unserved(r, client_fd, rest);
}

/* Nothing left to read or to write in this direction: pass its end on. Ends the relay when both directions are done. */
static void
finish_dir(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];

    if (!dir->eof || relay_is_loaded(dir) || dir->shut)
        return;
    if (r->failed == (int)from) {
        dir->shut = true;
        end_when_taken(r);
        return;
    }
    dir->shut = true;
    r->is_unproven = false;
    if (r->dir[relay_other(from)].shut) {
        end(r); /* closing says as much as a FIN of its own would */
        return;
    }
    /* ENOTCONN: it was reset meanwhile, which reading from it will tell. */
    (void)shutdown(r->edge[relay_other(from)].fd, SHUT_WR);
    r->events->on_half_closed(r, from);
}

/* ${side} has failed. ${drained}: there is nothing more to be read from it. */
static void
fail(struct relay *r, enum relay_side side, int err, bool drained)
{
    struct relay_dir *from = &r->dir[side], *to = &r->dir[relay_other(side)];

    if (r->failed == (int)relay_other(side)) { /* nobody is left to be told */
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
    r->is_unproven = false;
    relay_unload(r, to);
    to->eof = to->shut = true;
    if (drained)
        from->eof = true;
    watch(r, side);
    watch(r, relay_other(side));
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

/* Returns false when the relay may be gone. */
static bool
move_once(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];
    enum relay_moved moved = relay_move(r, from);

    if (r->is_unproven && from == RELAY_SERVER &&
        (moved == RELAY_SOURCE_ENDED || moved == RELAY_SOURCE_FAILED))
        moved = RELAY_UNSERVED;
    switch (moved) {
    case RELAY_MOVED:
        break;
    case RELAY_EMPTY:
        dir->ready = false;
        break;
    case RELAY_SOURCE_ENDED:
        dir->eof = true;
        if (r->first_eof < 0)
            r->first_eof = (int8_t)from;
        watch(r, from);
        finish_dir(r, from);
        return false;
    case RELAY_SOURCE_FAILED:
        fail(r, from, errno, true);
        return false;
    case RELAY_SINK_FAILED:
        fail(r, relay_other(from), errno, false);
        return false;
    case RELAY_UNSERVED:
        give_back_client(r);
        return false;
    case RELAY_LOST: /* neither side may take this for a clean end */
        r->failed = (int8_t)from;
        r->err = ENOMEM;
        end(r);
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
        if (!move_once(r, from))
            return;
        if (dir->splices)
            break;
    }
    watch(r, from);
    watch(r, relay_other(from));
    if (!dir->splices && dir->ready && is_reading(r, from))
        read_again(r, from);
}

/* ${to} has room again. The relay may be gone afterwards. */
static void
on_writable(struct relay *r, enum relay_side to)
{
    enum relay_side from = relay_other(to);

    if (relay_flush(r, from) != 0)
        fail(r, to, errno, false);
    else if (!relay_is_loaded(&r->dir[from]))
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

/* Of a server that may have gone before there was a client, asked before anything is written to it. */
static bool
is_server_dead(struct relay *r, enum relay_side side, uint32_t events)
{
    if (side == RELAY_SERVER)
        return events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    bool asks = r->asks_server;
    r->asks_server = false;
    return asks && sock_has_ended(r->edge[RELAY_SERVER].fd);
}

static void
on_event(struct relay *r, enum relay_side side, uint32_t events)
{
    bool wants_read;

    note(r, side, events);
    if (r->is_unproven && is_server_dead(r, side, events)) {
        give_back_client(r);
        return;
    }
    wants_read = r->dir[side].ready && is_reading(r, side);
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) &&
        relay_is_loaded(&r->dir[relay_other(side)])) {
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

static int
watch_server(struct relay *r, const struct relay_ends *ends)
{
    struct edge_set *edges = r->shared->edges;

    if (!ends->server_edge)
        return edge_add(edges, &r->edge[RELAY_SERVER], ends->fd[RELAY_SERVER],
                        r->watched[RELAY_SERVER], on_server);
    edge_move(edges, ends->server_edge, &r->edge[RELAY_SERVER], on_server);
    r->is_unproven = true;
    r->asks_server = ends->asks_server;
    note(r, RELAY_SERVER, ends->server_events);
    if (ends->server_events != 0)
        read_again(r, RELAY_SERVER);
    return 0;
}

int
relay_start(struct relay *r, struct ev_loop *loop, const struct relay_shared *shared,
            const struct relay_ends *ends, const struct relay_events *events)
{
    *r = (struct relay){
        .loop = loop,
        .shared = shared,
        .events = events,
        .bytes = {ends->bytes[0], ends->bytes[1]},
        .failed = -1,
        .first_eof = -1,
        .last_byte = monotonic_coarse_s(),
        .watched = {RELAY_EVENTS, RELAY_EVENTS},
    };
    /* A read from a UNIX socket may stop where its peer had passed a descriptor. */
    r->dir[RELAY_CLIENT].read_on = ends->is_unix[RELAY_CLIENT];
    r->dir[RELAY_SERVER].read_on = ends->is_unix[RELAY_SERVER];
    r->dir[RELAY_CLIENT].sets_nodelay = ends->server_nodelay;
    r->dir[RELAY_CLIENT].rest = ends->rest;
    if (edge_add(shared->edges, &r->edge[RELAY_CLIENT], ends->fd[RELAY_CLIENT],
                 r->watched[RELAY_CLIENT], on_client) != 0)
        return -1;
    if (watch_server(r, ends) != 0) {
        int err = errno;
        edge_del(shared->edges, &r->edge[RELAY_CLIENT]);
        errno = err;
        return -1;
    }
    watch(r, RELAY_SERVER);
    return 0;
}
