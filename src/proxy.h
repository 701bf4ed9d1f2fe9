/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PROXY_H
#define REDIAL_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

struct addr;
struct ev_loop;
struct generation;
struct listener;
struct process;
struct proxy;
struct relay_shared;
struct session_host;
struct upstream;

/* A proxy's runtime: its listeners, its sessions and its limits. */

TAILQ_HEAD(proxy_list, proxy);

/* The proxies of one worker. */
struct proxy_group {
    struct proxy_list paused; /* those that wait for room, in their own limit or the process's */
    unsigned sessions;
    void (*on_empty)(struct proxy_group *group); /* the last session has ended */
    /* The last session of a proxy that was retired has ended: it may be freed, but not yet. */
    void (*on_idle)(struct proxy_group *group);
};

/* A listening socket. */
struct proxy_socket {
    int fd;
    const struct addr *addr; /* as configured; it lives as long as the generation */
    bool is_shared;          /* others have it open, too */
    bool is_old; /* a proxy of the generation before has it: proxy_begin() takes it over */
};

struct proxy_opts {
    struct ev_loop *loop;
    struct proxy_group *group;
    struct process *process;
    unsigned worker; /* which of the process's this is */
    const struct relay_shared *shared;
    int access_log; /* enum conf_access_log */
};

/**
 * proxy_new(generation, index, sockets, n, opts):
 * One worker's part in the ${index}-th proxy of ${generation}, to which it has a reference. Borrows ${sockets} and ${opts} for the call only; the ${n} ${sockets}
 * are the proxy's from proxy_begin() on. It touches nothing that lives on a loop: it may be made on another thread. Returns a new proxy that accepts nobody
 * yet, for proxy_free(); or NULL with errno set.
 */
struct proxy *proxy_new(struct generation *generation, size_t index,
                        const struct proxy_socket *sockets, size_t n, const struct proxy_opts *opts)
    __attribute__((warn_unused_result));

/** proxy_list_sockets(proxy, by_fd, n): enter its listeners into a table by descriptor, but for those of ${n} and above, for proxy_begin(). */
void proxy_list_sockets(struct proxy *proxy, struct listener **by_fd, size_t n);

/** proxy_begin(proxy, upstream, by_fd): accept clients for ${upstream}, which is borrowed. Those of its sockets that are old are found in ${by_fd}, and taken from their proxies. */
void proxy_begin(struct proxy *proxy, struct upstream *upstream, struct listener *const *by_fd);

/** proxy_set_access_log(proxy, access_log): an enum conf_access_log, for the sessions that end from now on. */
void proxy_set_access_log(struct proxy *proxy, int access_log);

/**
 * proxy_retire(proxy, by_name):
 * It is of no configuration any more: as proxy_stop_accepting(), for the sockets that it still has. Its sessions go on; those that wait move on when the upstream is retired: to the
 * proxy that has taken the socket by which they came; where nobody has, to ${by_name}, NULL if there is none. One that was retired already is left alone.
 */
void proxy_retire(struct proxy *proxy, struct proxy *by_name);

/** proxy_follow(proxy): it was retired: should those to whom its clients move on have been retired just now, then theirs are its own. */
void proxy_follow(struct proxy *proxy);

/** proxy_host(proxy): what its sessions share. proxy_generation(proxy): the one that it is of. Both borrowed. */
struct session_host *proxy_host(struct proxy *proxy);
struct generation *proxy_generation(const struct proxy *proxy);

/** proxy_is_idle(proxy): has it no session? */
bool proxy_is_idle(const struct proxy *proxy);

/** proxy_stop_accepting(proxy): take in who is in the backlog, as far as there is room, then accept no more and close the sockets. */
void proxy_stop_accepting(struct proxy *proxy);

/** proxy_resume_paused(group): a place may be free: those proxies that have room accept again. */
void proxy_resume_paused(struct proxy_group *group);

/** proxy_cut(proxy): end its sessions at once, because the time to drain is over. */
void proxy_cut(struct proxy *proxy);

/** proxy_free(proxy): its sessions must have ended; NULL is fine. */
void proxy_free(struct proxy *proxy);

#endif
