/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PROXY_INTERNAL_H
#define REDIAL_PROXY_INTERNAL_H

#include "listener.h"
#include "log.h"
#include "proxy.h"
#include "session.h"
#include "upstream.h"

#include <ev.h>

/* What proxy.c (its beginning, its listeners, its end) and proxy_accept.c (who comes in) share. */

struct conf_proxy;
struct process_proxy;

struct proxy_listener {
    struct listener listener; /* fd -1: the socket is another proxy's now, or closed */
    bool is_old;              /* not begun yet: see proxy_socket */
    const struct addr *addr;  /* of the configuration */
    struct proxy *heir;       /* who has its clients, once the proxy is retired; NULL: nobody */
};

struct proxy {
    TAILQ_ENTRY(proxy) paused_link;
    struct generation *generation; /* a reference */
    const struct conf_proxy *conf;
    struct session_host host;
    struct proxy_group *group;
    struct process *process;
    struct process_proxy *shared;
    unsigned worker;
    struct upstream_watch watch;
    struct ev_loop *loop;
    struct proxy_listener *listeners;
    size_t n_listeners;
    struct proxy *by_name; /* only while it is being retired: the one with its name */
    ev_timer relisten;     /* a port that could not be listened on again is tried until it can */
    bool is_paused, is_stopped, is_retired, is_watching;
    struct log_limit relisten_limit, denied_limit;
};

/** proxy_give_places(p): a client has gone, or was never let in: its place here and in the process is free. */
void proxy_give_places(struct proxy *p);

/* For the listeners, whose arg is the proxy. */
extern const struct listener_events proxy_accept_events;

#endif
