/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SESSION_H
#define REDIAL_SESSION_H

#include "log.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct addr;
struct conf_proxy;
struct ev_loop;
struct process;
struct relay_shared;
struct session;
struct upstream;

/*
 * One client, the server that it was given, and the bytes between them: PROXY header, claim, relay, end. It ends for exactly one reason.
 */
#define SESSION_ENDS(X)                                                                            \
    X(SESSION_CLIENT_CLOSED, "client_closed", "the client closed first, the server after it")      \
    X(SESSION_SERVER_CLOSED, "server_closed", "the server closed first, the client after it")      \
    X(SESSION_CLIENT_RESET, "client_reset", "the client reset the connection")                     \
    X(SESSION_SERVER_RESET, "server_reset", "the server reset the connection")                     \
    X(SESSION_IDLE_TIMEOUT, "idle_timeout", "no byte either way for idle_timeout")                 \
    X(SESSION_HALF_CLOSE_TIMEOUT, "half_close_timeout", "one side went on for half_close_timeout") \
    X(SESSION_WAIT_TIMEOUT, "wait_timeout", "no server within wait_timeout")                       \
    X(SESSION_NO_SERVER, "no_server", "every server is down")                                      \
    X(SESSION_QUEUE_FULL, "queue_full", "max_waiting clients wait already")                        \
    X(SESSION_BAD_PROXY_HEADER, "bad_proxy_header", "the client sent no valid PROXY header")       \
    X(SESSION_DENIED, "denied", "the client's address is not allowed")                             \
    X(SESSION_LOOP, "loop", "it leads back to this daemon")                                        \
    X(SESSION_TIMED_OUT, "timed_out", "a peer answers no more")                                    \
    X(SESSION_DRAIN, "drain", "cut when drain_timeout was over")                                   \
    X(SESSION_INTERNAL, "internal", "a failure of our own")

enum session_end {
#define X(name, text, sentence) name,
    SESSION_ENDS(X)
#undef X
};

TAILQ_HEAD(session_list, session);

/* What the sessions of one proxy share; the proxy's. */
struct session_host {
    const struct conf_proxy *conf;
    struct upstream *upstream;
    struct process *process;
    struct ev_loop *loop;
    const struct relay_shared *shared;
    int access_log;                /* enum conf_access_log */
    struct log_limit header_limit; /* of bad PROXY headers */
    struct log_limit loop_limit;
    struct session_list sessions;
    void (*on_ended)(struct session_host *host); /* one of them is gone */
    /* The upstream is retired: whose does a session become that still waits, with the client ${fd}? NULL: nobody's. */
    struct session_host *(*successor)(struct session_host *host, int fd);
    /* It has become that of ${next}. */
    void (*on_moved)(struct session_host *host, struct session_host *next);
};

/**
 * session_start(host, client_fd, client):
 * Serve the client ${client_fd}, which is taken, non-blocking, and came from ${client}, or from where its PROXY header says. Borrows ${host}. The session frees itself when it
 * ends, then calls ${host->on_ended} of the host that it has then, never before this function has returned.
 *
 * Returns 0; or -1 with the client reset and no session made: errno ENOMEM, or ELOOP when it is a dial of our own that has come in a circle, which the log says.
 */
int session_start(struct session_host *host, int client_fd, const struct addr *client)
    __attribute__((warn_unused_result));

/** session_abort_all(host, why): end every session of ${host} at once, both sides reset. */
void session_abort_all(struct session_host *host, enum session_end why);

/** session_end_str(end): its name. Cannot fail. */
const char *session_end_str(enum session_end end);

#endif
