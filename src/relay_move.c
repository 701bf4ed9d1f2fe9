/* SPDX-License-Identifier: MIT */
/*
 *           recv            send at once
 * source --------> buffer -------------> sink     copying: one buffer for all
 *                     | short write
 *                     v
 *                   rest                          memory of its own
 *          splice            splice
 * source --------> pipe ---------------> sink     splicing: a pipe from the pool, given back when it is empty
 */
#include "relay_internal.h"

#include "monotonic.h"
#include "pipepool.h"
#include "sock.h"
#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct relay_rest {
    size_t off, len; /* bytes off..len are still to be written */
    char bytes[];
};

/* So many reads in a row of at least SPLICE_ABOVE bytes make a direction splice; so many below SPLICE_BELOW make it copy again. */
#define RUN_MAX      4
#define SPLICE_ABOVE ((size_t)32 * 1024)
#define SPLICE_BELOW ((size_t)16 * 1024)
/* Asked for at once; the pipe takes what it has room for. */
#define SPLICE_MAX   ((size_t)1024 * 1024)
#define SPLICE_FLAGS (SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
/* What a peer that says nothing can take in one segment, RFC 9293, 3.7.1. */
#define SMALLEST_MSS 536

void
relay_unload(struct relay *r, struct relay_dir *dir)
{
    free(dir->rest);
    dir->rest = NULL;
    if (dir->pipe)
        pipepool_give(r->shared->pipes, dir->pipe);
    dir->pipe = NULL;
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

static inline void
count(struct relay *r, enum relay_side from, ssize_t n)
{
    r->dir[from].bytes += (uint64_t)n;
    stats_add(&r->bytes[0]->from[from], (uint64_t)n);
    stats_add(&r->bytes[1]->from[from], (uint64_t)n);
    r->last_byte = monotonic_coarse_s();
}

/* TCP_NODELAY, late: of a short session's one write no part is ever held back, RFC 9293, 3.7.4. */
static void
set_nodelay(struct relay *r, enum relay_side from, size_t len)
{
    if (r->dir[from].bytes == 0 && len <= SMALLEST_MSS)
        return;
    sock_set_nodelay(r->edge[relay_other(from)].fd);
    r->dir[from].sets_nodelay = false;
}

/* Returns the bytes written, 0 when none can be now, or -1 with errno set. */
static ssize_t
write_some(struct relay *r, enum relay_side from, const char *bytes, size_t len)
{
    if (r->dir[from].sets_nodelay)
        set_nodelay(r, from, len);
    ssize_t n = send(r->edge[relay_other(from)].fd, bytes, len, MSG_NOSIGNAL);

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
        relay_unload(r, &r->dir[from]);
    return 0;
}

static int
flush_pipe(struct relay *r, enum relay_side from)
{
    struct pipe *pipe = r->dir[from].pipe;

    while (pipe->fill > 0) {
        ssize_t n =
            splice(pipe->out, NULL, r->edge[relay_other(from)].fd, NULL, pipe->fill, SPLICE_FLAGS);
        if (n == 0) /* cannot be: the pipe has bytes */
            errno = EIO;
        if (n <= 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        pipe->fill -= (size_t)n;
        count(r, from, n);
    }
    relay_unload(r, &r->dir[from]);
    return 0;
}

int
relay_flush(struct relay *r, enum relay_side from)
{
    return r->dir[from].rest ? flush_rest(r, from) : flush_pipe(r, from);
}

/* ${got} bytes were read at once: would the other way to move them be better? */
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

/* A read gave nothing: ${got} is 0 at the end of the stream, or -1 with errno set. */
static enum relay_moved
no_bytes(ssize_t got)
{
    if (got == 0)
        return RELAY_SOURCE_ENDED;
    if (errno == EINTR)
        return RELAY_MOVED; /* nothing, but there may be more */
    return errno == EAGAIN ? RELAY_EMPTY : RELAY_SOURCE_FAILED;
}

static enum relay_moved
copy(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];
    char *buffer = r->shared->buffer;

    ssize_t got = recv(r->edge[from].fd, buffer, RELAY_BUFFER_SIZE, 0);
    if (got <= 0)
        return no_bytes(got);
    if ((size_t)got < RELAY_BUFFER_SIZE && !dir->read_on)
        dir->ready = false; /* epoll(7): a short read has emptied it */
    adapt(r, dir, (size_t)got);
    ssize_t sent = write_some(r, from, buffer, (size_t)got);
    if (sent < 0)
        return r->is_unproven && from == RELAY_CLIENT && keep_rest(dir, buffer, (size_t)got)
                   ? RELAY_UNSERVED
                   : RELAY_SINK_FAILED;
    r->is_unproven = false;
    if (sent < got && !keep_rest(dir, buffer + sent, (size_t)(got - sent)))
        return RELAY_LOST;
    return RELAY_MOVED;
}

static enum relay_moved
splice_on(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];

    ssize_t got = splice(r->edge[from].fd, NULL, dir->pipe->in, NULL, SPLICE_MAX, SPLICE_FLAGS);
    if (got <= 0) {
        enum relay_moved moved = no_bytes(got);
        int err = errno;
        relay_unload(r, dir);
        errno = err;
        return moved;
    }
    dir->pipe->fill = (size_t)got;
    adapt(r, dir, (size_t)got);
    return flush_pipe(r, from) == 0 ? RELAY_MOVED : RELAY_SINK_FAILED;
}

enum relay_moved
relay_move(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];

    if (dir->splices)
        dir->pipe = pipepool_take(r->shared->pipes);
    if (dir->pipe)
        return splice_on(r, from);
    dir->splices = false; /* no pipe can be had */
    return copy(r, from);
}
