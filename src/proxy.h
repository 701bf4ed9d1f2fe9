/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PROXY_H
#define REDIAL_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

struct conf_proxy;
struct ev_loop;
struct process;
struct proxy;
struct relay_shared;
struct upstream;

/* A proxy's runtime: its listeners, its sessions and its limits. */

TAILQ_HEAD(proxy_list, proxy);

/* The proxies of one worker. */
struct proxy_group {
    struct proxy_list paused; /* those that wait for room, in their own limit or the process's */
    unsigned sessions;
    void (*on_empty)(struct proxy_group *group); /* the last session has ended */
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
 * proxy_new(conf, index, upstream, fds, opts):
 * One worker's part in the proxy ${conf}, the ${index}-th of the configuration. Borrows all of them, ${fds} and ${opts} for the call only; ${fds} are the
 * sockets of ${conf}'s listeners in order, which are the proxy's from proxy_begin() on. Returns a new proxy that accepts nobody yet, for
 * proxy_free(); or NULL with errno set.
 */
struct proxy *proxy_new(const struct conf_proxy *conf, size_t index, struct upstream *upstream,
                        const int *fds, const struct proxy_opts *opts)
    __attribute__((warn_unused_result));

/** proxy_begin(proxy): accept clients. */
void proxy_begin(struct proxy *proxy);

/** proxy_stop_accepting(proxy): take in who is in the backlog, as far as there is room, then accept no more and close the sockets. */
void proxy_stop_accepting(struct proxy *proxy);

/** proxy_resume_paused(group): a place may be free: those proxies that have room accept again. */
void proxy_resume_paused(struct proxy_group *group);

/** proxy_cut(proxy): end its sessions at once, because the time to drain is over. */
void proxy_cut(struct proxy *proxy);

/** proxy_free(proxy): its sessions must have ended; NULL is fine. */
void proxy_free(struct proxy *proxy);

#endif
