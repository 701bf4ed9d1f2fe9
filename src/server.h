/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SERVER_H
#define REDIAL_SERVER_H

#include "balance.h"
#include "dialer.h"
#include "health.h"
#include "log.h"
#include "prober.h"

struct conf_server;
struct conf_upstream;
struct mailbox;
struct portrange;
struct process_server;
struct upstream;

/*
 * One worker's view of a server: dials for its sessions, and what it tells the prober of them. The state is the process's, see prober.h.
 */
struct server {
    const struct conf_server *conf;
    const struct conf_upstream *upstream;
    struct process_server *shared;
    struct dial_opts dial_opts;
    struct prober *prober;   /* NULL: on another worker */
    struct mailbox *mailbox; /* this worker's, for the prober's answer */
    bool doubted; /* a dial failed here, and the prober has not answered yet: as good as down */
    struct log_limit self_connect_limit;

    /* The upstream's, which is the one that picks. */
    struct upstream *owner;
    unsigned line_dials; /* dials for clients out of the line */
    struct balance_server balance;
};

/** server_init(server, loop, conf, upstream, range): borrows all of them; ${server->shared}, ${server->prober}, ${server->mailbox} and ${server->dial_opts.endpoints} are the caller's to set. Cannot fail. */
void server_init(struct server *server, struct ev_loop *loop, const struct conf_server *conf,
                 const struct conf_upstream *upstream, const struct portrange *range);

/** server_state(server): what is known of it; a moment old. */
enum health_state server_state(const struct server *server);

/** server_is_untried(server): has its very first dial not ended yet? A moment old. */
bool server_is_untried(const struct server *server);

/**
 * server_dial(server, endpoint, done, arg):
 * Dial it for a client, as dialer_start(); the callee of ${done} must hand the result on to server_on_dialled() at once.
 */
struct dial *server_dial(struct server *server, struct endpoint *endpoint,
                         void (*done)(void *arg, int fd, enum dial_result result, int err),
                         void *arg) __attribute__((warn_unused_result));

/** server_doubt(server): a dial has failed: hold it for down here until server_on_dialled(), which must follow, has told its prober. */
void server_doubt(struct server *server);

/** server_on_dialled(server, result, err, began): a client's dial, begun at ${began} (monotonic_s()), has ended so. */
void server_on_dialled(struct server *server, enum dial_result result, int err, double began);

/**
 * server_on_life(server, life):
 * So a session's connection has gone, told once it has brought a byte and lived for HEALTH_STABLE_MS, and when the server or the session has ended it.
 */
void server_on_life(struct server *server, const struct server_life *life);

#endif
