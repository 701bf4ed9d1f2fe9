/* SPDX-License-Identifier: MIT */
/*
 * resolver_start() --> ares_getaddrinfo() --> on_addrinfo(): keep what came --> on_ready(), from the loop: done
 *
 * c-ares calls on_addrinfo() when it likes: before ares_getaddrinfo() has returned, or in the midst of a channel's work. There nothing is done but feeding
 * the lookup to the loop; so a channel is never freed, nor a lookup begun, inside c-ares.
 *
 * c-ares reads resolv.conf when a channel is made. Once the file has changed there is a new channel; the old one goes with its last lookup.
 */
#include "resolver.h"

#include "sock.h"

#include <ares.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#define RESOLV_CONF "/etc/resolv.conf"
#define TIMEOUT_MS  2000
#define TRIES       2
/* Timers may fire a little early: nothing is due yet, and c-ares must not be asked without a pause. */
#define TIMER_MIN_S 0.001

/* One socket of a channel. */
struct watch {
    ev_io io;
    struct channel *channel;
    LIST_ENTRY(watch) link;
};

struct channel {
    ares_channel ares;
    struct resolver *resolver;
    ev_timer timer; /* for c-ares' own timeouts */
    LIST_HEAD(, watch) watches;
    unsigned n_lookups;
};

struct resolver {
    struct ev_loop *loop;
    struct channel *channel; /* for the next lookup; NULL: none yet */
    struct stat resolv_conf; /* as it was before the channel was made; zeroed: it was not there */
    LIST_HEAD(, lookup) lookups; /* all that are not freed */
};

struct lookup {
    LIST_ENTRY(lookup) link;
    struct resolver *resolver;
    struct channel *channel;                                       /* NULL: none could be made */
    ev_timer ready;                                                /* never started, only fed */
    void (*done)(void *arg, const struct resolver_answer *answer); /* NULL: it was cancelled */
    void *arg;
    char *name;
    uint16_t port;
    int family;
    bool asks_one_by_one; /* the families */
    bool is_starting;
    bool is_local; /* answered on the spot: by /etc/hosts */
    int status;
    struct ares_addrinfo *info;
};

static void
arm_timer(struct channel *c)
{
    struct ev_loop *loop = c->resolver->loop;
    struct timeval room, *left = ares_timeout(c->ares, NULL, &room);

    ev_timer_stop(loop, &c->timer);
    if (!left)
        return;
    ev_tstamp after = (ev_tstamp)left->tv_sec + (ev_tstamp)left->tv_usec / 1e6;
    ev_timer_set(&c->timer, after > TIMER_MIN_S ? after : TIMER_MIN_S, 0.);
    ev_timer_start(loop, &c->timer);
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct channel *c = (struct channel *)((char *)timer - offsetof(struct channel, timer));

    (void)loop;
    (void)revents;
    ares_process_fd(c->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    arm_timer(c);
}

/* The watch may be freed by what c-ares does. */
static void
on_socket(struct ev_loop *loop, ev_io *io, int revents)
{
    struct channel *c = ((struct watch *)((char *)io - offsetof(struct watch, io)))->channel;
    ares_socket_t fd = io->fd;

    (void)loop;
    ares_process_fd(c->ares, revents & (EV_READ | EV_ERROR) ? fd : ARES_SOCKET_BAD,
                    revents & (EV_WRITE | EV_ERROR) ? fd : ARES_SOCKET_BAD);
    arm_timer(c);
}

static struct watch *
watch_of(struct channel *c, ares_socket_t fd)
{
    struct watch *watch;

    LIST_FOREACH(watch, &c->watches, link) {
        if (watch->io.fd == fd)
            return watch;
    }
    watch = malloc(sizeof(*watch));
    if (!watch)
        return NULL;
    watch->channel = c;
    ev_io_init(&watch->io, on_socket, fd, 0);
    LIST_INSERT_HEAD(&c->watches, watch, link);
    return watch;
}

/* What c-ares wants to know of a socket; nothing: it is about to close it. */
static void
on_sock_state(void *data, ares_socket_t fd, int readable, int writable)
{
    struct channel *c = data;
    struct watch *watch = watch_of(c, fd);

    if (!watch)
        return; /* as if the server were silent */
    ev_io_stop(c->resolver->loop, &watch->io);
    if (!readable && !writable) {
        LIST_REMOVE(watch, link);
        free(watch);
        return;
    }
    ev_io_set(&watch->io, fd, (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0));
    ev_io_start(c->resolver->loop, &watch->io);
}

/* Returns a status of c-ares. */
static int
channel_new(struct resolver *r, struct channel **channel)
{
    struct channel *c = calloc(1, sizeof(*c));
    char lookups[] = "fb"; /* files, then DNS, whatever nsswitch.conf says */
    struct ares_options options = {
        .flags = ARES_FLAG_NOALIASES,
        .timeout = TIMEOUT_MS,
        .tries = TRIES,
        .lookups = lookups,
        .sock_state_cb = on_sock_state,
        .sock_state_cb_data = c,
    };
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS |
               ARES_OPT_SOCK_STATE_CB;

#ifdef ARES_OPT_QUERY_CACHE
    /* c-ares 1.31 and later: when a name is looked up again is decided elsewhere, and then it is meant. */
    options.qcache_max_ttl = 0;
    mask |= ARES_OPT_QUERY_CACHE;
#endif
    if (!c)
        return ARES_ENOMEM;
    int status = ares_init_options(&c->ares, &options, mask);
    if (status != ARES_SUCCESS) {
        free(c);
        return status;
    }
    c->resolver = r;
    LIST_INIT(&c->watches);
    ev_timer_init(&c->timer, on_timer, 0., 0.);
    *channel = c;
    return ARES_SUCCESS;
}

/* Frees it once nobody needs it. */
static void
channel_release(struct channel *c)
{
    if (!c || c->n_lookups > 0 || c == c->resolver->channel)
        return;
    ares_destroy(c->ares); /* closes its sockets: the watches go */
    ev_timer_stop(c->resolver->loop, &c->timer);
    free(c);
}

static bool
is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* c-ares takes what it cannot open for an empty file, and would stay with that. */
static bool
can_open(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return !sock_is_temporary_shortage(errno);
    close(fd);
    return true;
}

/* See to it that there is a channel that knows resolv.conf as it is. Returns a status of c-ares. */
static int
renew_channel(struct resolver *r)
{
    struct channel *old = r->channel;
    struct stat now = {.st_dev = 0};

    if (stat(RESOLV_CONF, &now) != 0)
        now = (struct stat){.st_dev = 0};
    if (old && is_same_file(&now, &r->resolv_conf))
        return ARES_SUCCESS;
    int status = can_open(RESOLV_CONF) ? channel_new(r, &r->channel) : ARES_EFILE;
    if (status != ARES_SUCCESS)
        return old ? ARES_SUCCESS : status; /* the old one is better than none */
    r->resolv_conf = now;
    channel_release(old);
    return ARES_SUCCESS;
}

/* What c-ares has said, and its channel, are not needed any more. */
static void
forget_answer(struct lookup *l)
{
    struct channel *c = l->channel;

    if (l->info)
        ares_freeaddrinfo(l->info);
    l->info = NULL;
    l->channel = NULL;
    if (c) {
        c->n_lookups--;
        channel_release(c);
    }
}

static void
lookup_free(struct lookup *l)
{
    ev_clear_pending(l->resolver->loop, &l->ready);
    LIST_REMOVE(l, link);
    forget_answer(l);
    free(l->name);
    free(l);
}

static void
on_addrinfo(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct lookup *l = arg;

    (void)timeouts;
    l->status = status;
    l->info = info;
    l->is_local = l->is_starting;
    ev_feed_event(l->resolver->loop, &l->ready, EV_CUSTOM);
}

static uint64_t
shortest_ttl_ms(const struct ares_addrinfo *info)
{
    int ttl_s = INT32_MAX;

    for (const struct ares_addrinfo_node *node = info->nodes; node; node = node->ai_next)
        ttl_s = node->ai_ttl < ttl_s ? node->ai_ttl : ttl_s;
    for (const struct ares_addrinfo_cname *cname = info->cnames; cname; cname = cname->next)
        ttl_s = cname->ttl < ttl_s ? cname->ttl : ttl_s;
    return ttl_s > 0 ? (uint64_t)ttl_s * 1000 : 0;
}

static size_t
copy_addrs(const struct lookup *l, struct addr addrs[RESOLVER_ADDRS_MAX])
{
    size_t n = 0;

    for (const struct ares_addrinfo_node *node = l->info->nodes; node && n < RESOLVER_ADDRS_MAX;
         node = node->ai_next) {
        addr_from_sockaddr(&addrs[n], node->ai_addr, node->ai_addrlen);
        addr_set_port(&addrs[n], l->port);
        if (!addr_is_wildcard(&addrs[n]))
            n++;
    }
    return n;
}

static void
ask(struct lookup *l)
{
    const struct ares_addrinfo_hints hints = {.ai_family = l->family, .ai_socktype = SOCK_STREAM};
    int status = renew_channel(l->resolver);

    if (status != ARES_SUCCESS) {
        on_addrinfo(l, status, 0, NULL);
        return;
    }
    l->channel = l->resolver->channel;
    l->channel->n_lookups++;
    l->is_starting = true;
    ares_getaddrinfo(l->channel->ares, l->name, NULL, &hints, on_addrinfo, l);
    l->is_starting = false;
    arm_timer(l->channel);
}

/*
 * With c-ares 1.18 a malformed answer about one family, if it comes last, fails the lookup of both: then they are asked for one by one. Returns false when
 * there is nothing more to be tried.
 */
static bool
ask_one_by_one(struct lookup *l)
{
    if (l->status == ARES_SUCCESS || !l->done)
        return false;
    if (l->family == AF_UNSPEC && l->status == ARES_EBADRESP)
        l->family = AF_INET;
    else if (l->family == AF_INET && l->asks_one_by_one)
        l->family = AF_INET6;
    else
        return false;
    l->asks_one_by_one = true;
    forget_answer(l);
    ask(l);
    return true;
}

static void
on_ready(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct lookup *l = (struct lookup *)((char *)timer - offsetof(struct lookup, ready));
    void (*done)(void *arg, const struct resolver_answer *answer) = l->done;
    void *arg = l->arg;
    struct addr addrs[RESOLVER_ADDRS_MAX];
    struct resolver_answer answer = {.addrs = addrs};

    (void)loop;
    (void)revents;
    if (ask_one_by_one(l))
        return;
    if (l->status == ARES_SUCCESS) {
        answer.n = copy_addrs(l, addrs);
        answer.ttl_ms = l->is_local ? RESOLVER_NO_TTL : shortest_ttl_ms(l->info);
    }
    if (answer.n == 0)
        answer.error =
            l->status == ARES_SUCCESS ? "it has no usable address" : ares_strerror(l->status);
    lookup_free(l);
    if (done)
        done(arg, &answer);
}

struct lookup *
resolver_start(struct resolver *r, const struct resolver_query *query,
               void (*done)(void *arg, const struct resolver_answer *answer), void *arg)
{
    struct lookup *l = calloc(1, sizeof(*l));
    char *name = strdup(query->name);

    if (!l || !name) {
        free(l);
        free(name);
        errno = ENOMEM;
        return NULL;
    }
    l->resolver = r;
    l->done = done;
    l->arg = arg;
    l->name = name;
    l->port = query->port;
    l->family = query->family;
    ev_timer_init(&l->ready, on_ready, 0., 0.);
    LIST_INSERT_HEAD(&r->lookups, l, link);
    ask(l);
    return l;
}

/* c-ares cannot cancel one lookup of many: its end is awaited, and told to nobody. */
void
resolver_cancel(struct lookup *l)
{
    if (l)
        l->done = NULL;
}

struct resolver *
resolver_new(struct ev_loop *loop)
{
    struct resolver *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
        free(r);
        errno = ENOMEM;
        return NULL;
    }
    r->loop = loop;
    LIST_INIT(&r->lookups);
    return r;
}

void
resolver_free(struct resolver *r)
{
    struct lookup *l;
    struct channel *c;

    if (!r)
        return;
    c = r->channel;
    r->channel = NULL;
    channel_release(c);
    while ((l = LIST_FIRST(&r->lookups))) {
        if (l->channel)
            ares_cancel(l->channel->ares); /* calls back for each of its lookups */
        lookup_free(l);
    }
    free(r);
    ares_library_cleanup();
}
