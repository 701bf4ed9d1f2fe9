/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PROCESS_H
#define REDIAL_PROCESS_H

#include "limit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct addr;
struct addrlist;
struct endpoints;
struct mailbox;
struct prober;
struct server;
struct stats_proxy;
struct stats_server;

/*
 * What belongs to the process rather than to one worker: limits, what is known of each server, and the connections that were dialled. Workers read and change it without
 * locks, but for the short ones of the latter, and wake one another when there is news.
 *
 * What is known of a proxy, an upstream and a server outlives the configuration that it was made for, as long as the next one has it, too: generation.h. Each
 * of these counts its references, and is freed with the last one, on any thread.
 */

/* What a worker is woken for; a set of bits. */
enum process_wake {
    WAKE_SERVERS = 1, /* the state of some server has changed */
    WAKE_PLACES = 2,  /* a place is free where there was none */
    WAKE_WAITING = 4, /* a client waits */
    WAKE_PROBE = 8,   /* a probe is held that may be among those who wait; or a turn is asked for */
};

/* What one worker alone knows of where a server lives on it. */
struct process_view {
    struct server *server;  /* of the latest configuration; NULL: it has not begun, or is over */
    struct addrlist *early; /* its addresses, which came before it began; NULL: none did */
};

/* What people want to know of a server's state. Written by the owner alone. */
struct process_news {
    _Atomic uint64_t since_ms;    /* when the state began, of the wall clock; 0: never */
    atomic_int reason;            /* why it is not up: enum process_reason */
    _Atomic uint64_t pause_ms;    /* before the next dial; 0: none is due */
    _Atomic uint64_t retry_at_ms; /* its end, monotonic_ms() */
};

/* What the reason is, beside an enum dial_result. */
enum process_reason { REASON_NONE = -1, REASON_HUNG_UP = -2 };

/* The same from one configuration to the next by its name, its address as written, and the name of its upstream. */
struct process_server {
    atomic_uint refs;
    char *name, *text;
    /* enum health_state, with PROCESS_TAINTED while the owner's health counts failures. Written by the owner alone. */
    atomic_uint state;
    struct limit sessions;      /* it has, dials included, and max_sessions */
    atomic_bool is_disabled;    /* taken out by hand: no new client. The main thread's */
    struct stats_server *stats; /* by worker */
    struct process_news news;
    pthread_mutex_t lock; /* of the addresses that its name has */
    struct addr *addrs;
    size_t n_addrs;
    unsigned worker;      /* on which the prober lives */
    struct prober *owner; /* of that worker's alone; NULL: there is none now */
    unsigned n_views;
    struct process_view views[]; /* by worker, each its worker's alone */
};
#define PROCESS_TAINTED 0x100U

/* The same by its name. */
struct process_upstream {
    atomic_uint refs;
    char *name;
    uint32_t id;          /* no other has it: see trail_extend() */
    struct limit waiting; /* max_waiting */
};

/* The same by its name. */
struct process_proxy {
    atomic_uint refs;
    struct stats_proxy *stats; /* by worker */
    struct limit sessions;     /* max_sessions */
    atomic_uint_fast64_t
        next_told; /* when the log may be told again that it is full, monotonic_ms() */
};

/* How many the descriptors are enough for; > 0. */
struct process_most {
    unsigned sessions;
    unsigned standby;
};

struct process {
    struct limit sessions;       /* of all proxies: descriptors are the limit */
    _Atomic uint64_t n_sessions; /* that there have been: each is known by its number */
    struct limit standby;        /* connections that no client has: likewise */
    struct endpoints *endpoints; /* of the connections that were dialled */
    struct mailbox **mailboxes;  /* by worker; set before the workers run */
    atomic_uint n_cut;           /* sessions that ended because the time to drain was over */
    unsigned n_workers;
    _Atomic uint32_t asked_turn;    /* the latest that workers were asked for */
    _Atomic uint32_t *turns;        /* by worker: the latest that it has done */
    _Atomic uint64_t self_connects; /* of all servers that there have been */
    uint32_t n_upstreams;           /* that there have been, and servers; the main thread's */
    uint32_t n_servers;
};

/** process_new(n_workers): returns a new one for process_free(), or NULL with errno ENOMEM. */
struct process *process_new(unsigned n_workers) __attribute__((warn_unused_result));

/** process_free(process): after the workers; NULL is fine. */
void process_free(struct process *process);

/** process_wake(process, wake, but): wake every worker but ${but} (n_workers or more: all) for the set ${wake}. Any thread. */
void process_wake(struct process *process, unsigned wake, unsigned but);

/** process_ask_turn(process): wake every worker; returns what process_has_turned() is to be asked for. Any thread. */
uint32_t process_ask_turn(struct process *process);

/** process_has_turned(process, turn): has every worker's loop turned since process_ask_turn() returned ${turn}? Any thread. */
bool process_has_turned(const struct process *process, uint32_t turn);

/** process_on_turn(process, worker): it was woken for WAKE_PROBE, and has done what there was to do. From that worker. */
void process_on_turn(struct process *process, unsigned worker);

/**
 * process_server_new(process, name, text), process_upstream_new(process, name), process_proxy_new(process):
 * Each returns a new one, with one reference, for ..._put(); or NULL with errno ENOMEM. From the main thread.
 */
struct process_server *process_server_new(struct process *process, const char *name,
                                          const char *text) __attribute__((warn_unused_result));
struct process_upstream *process_upstream_new(struct process *process, const char *name)
    __attribute__((warn_unused_result));
struct process_proxy *process_proxy_new(struct process *process)
    __attribute__((warn_unused_result));

/**
 * process_server_set_addrs(server, addrs, n): so its name was resolved: for those who want to see it. Any thread.
 * process_server_copy_addrs(server, addrs, max): the first ${max} of them, into ${addrs}. Returns how many. Any thread.
 */
void process_server_set_addrs(struct process_server *server, const struct addr *addrs, size_t n);
size_t process_server_copy_addrs(struct process_server *server, struct addr *addrs, size_t max);

/** ..._get(x): one more reference; returns ${x}. ..._put(x): one less; NULL is fine. Any thread. */
struct process_server *process_server_get(struct process_server *server);
void process_server_put(struct process_server *server);
struct process_upstream *process_upstream_get(struct process_upstream *upstream);
void process_upstream_put(struct process_upstream *upstream);
struct process_proxy *process_proxy_get(struct process_proxy *proxy);
void process_proxy_put(struct process_proxy *proxy);

#endif
