/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SESSION_H
#define REDIAL_SESSION_H

#include "log.h"

#include <netinet/in.h>

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct addr;
struct conf_proxy;
struct ev_loop;
struct generation;
struct process;
struct process_server;
struct relay_shared;
struct session;
struct stats_proxy;
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
    X(SESSION_DISABLED, "disabled", "its server was taken out by hand")                            \
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
    struct stats_proxy *stats;     /* this worker's */
    int access_log;                /* enum conf_access_log */
    struct log_limit header_limit; /* of bad PROXY headers */
    struct log_limit loop_limit;
    struct session_list sessions;
    struct session
        *next_row; /* while they are listed: where to go on; NULL: they are not, or all were */
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

/** session_abort_at(host, server): the same for those at ${server}, of whichever configuration: it was taken out. */
void session_abort_at(struct session_host *host, const struct process_server *server);

/* A session, for those who want to see it. */
struct session_row {
    uint64_t id;                   /* of the process's sessions it alone has it */
    struct process_server *server; /* a reference; NULL: it waits for one */
    struct sockaddr_in6 client;    /* or another address, in ${client_len} bytes */
    socklen_t client_len;
    uint64_t age_ms, idle_ms;
    uint64_t bytes[2]; /* by enum relay_side, from where they came */
};

/* Some of one proxy's. */
struct session_rows {
    struct session_rows *next;
    struct generation
        *generation; /* a reference: the one that the proxy, which is its ${proxy}-th, is of */
    size_t proxy;
    size_t n;
    struct session_row rows[];
};

/* Those of one worker. */
struct session_census {
    struct session_rows *first, **last;
    size_t n;      /* of all of them */
    bool is_cut;   /* there are more: */
    size_t n_left; /* so many, or about that: they come and go meanwhile */
};
#define SESSION_ROWS_MAX 10000

/** session_list_begin(host): the next session_list() begins with the first session. */
void session_list_begin(struct session_host *host);

/**
 * session_list(host, rows, max):
 * Write the next sessions of ${host} to ${rows}, ${max} at most; between two calls sessions may come and go. Returns how many; ${host->next_row} is NULL when these were the last.
 */
size_t session_list(struct session_host *host, struct session_row *rows, size_t max);

/** session_census_free(census): NULL is fine. */
void session_census_free(struct session_census *census);

/** session_end_str(end): its name. Cannot fail. */
const char *session_end_str(enum session_end end);

#endif
