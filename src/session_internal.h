/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SESSION_INTERNAL_H
#define REDIAL_SESSION_INTERNAL_H

#include "addr.h"
#include "endpoints.h"
#include "relay.h"
#include "session.h"

#include <ev.h>
#include <netinet/in.h>

/* What session.c (relaying, and how it ends) and session_begin.c (until there is a server) share. */

struct session {
    TAILQ_ENTRY(session) link;
    struct session_host *host;
    union {
        /* Before a server is there: one of the two is alive. */
        struct {
            struct preface *preface;
            struct claim *claim;
            struct relay_rest *rest; /* what was read from the client for a server that had gone */
            struct sockaddr_in6 told_dest; /* by its header, like client; AF_UNSPEC: none was */
        };
        struct relay relay;
    };
    uint64_t id;              /* no other of the process has it; > 0 */
    struct server *server;    /* NULL: none yet */
    struct endpoint endpoint; /* of the server's connection */
    ev_timer timer;
    ev_tstamp accepted_at, connected_at; /* monotonic_s() */
    ev_tstamp half_closed_at;            /* 0: not so */
    struct sockaddr_in6 client;          /* or a sockaddr_in, or AF_UNIX alone */
    int client_fd;
    bool client_is_unix; /* whatever its header says */
    float dial_s;
    float server_age; /* how old its connection was when it began to relay */
    unsigned dials;
    bool settled;     /* it has lived for SETTLED_S */
    bool is_counted;  /* how long it had to wait */
    bool told;        /* the server knows how it went */
    bool idle_warned; /* one more turn of the loop, and it is idle */
};

/** session_addr(kept): an address in the form in which a session keeps it. */
struct addr session_addr(const struct sockaddr_in6 *kept);

/** session_client_str(s, buf): who the client is, for people; returns ${buf}. */
const char *session_client_str(const struct session *s, char buf[ADDR_STR_MAX]);

/** session_end_of(result): the name for how a relay ended. */
enum session_end session_end_of(const struct relay_result *result);

/** session_unlink(s): take it out of its host's list. */
static inline void
session_unlink(struct session *s)
{
    if (s->host->next_row == s)
        s->host->next_row = TAILQ_NEXT(s, link);
    TAILQ_REMOVE(&s->host->sessions, s, link);
}

/** session_abort(s, end): end it at once, both sides reset. */
void session_abort(struct session *s, enum session_end end);

/** session_init_timer(s): for what session_relay() arms it. */
void session_init_timer(struct session *s);

/**
 * session_arrive(host, fd, client, trail), session_arrive_told(host, client, dest, trail):
 * Is the client one of our own dials, who has come on ${fd} from ${client}, or from ${client} to ${dest} as its PROXY header tells? See endpoints_arrive().
 * A loop is logged.
 */
enum arrival session_arrive(struct session_host *host, int fd, const struct addr *client,
                            struct trail *trail);
enum arrival session_arrive_told(struct session_host *host, const struct addr *client,
                                 const struct addr *dest, struct trail *trail);

/** session_relay(s, ends): begin to relay with ${s->server}; takes ${ends}. Returns 0, or -1 with errno set: then they are still the caller's, and what is kept until there is a server is lost. */
int session_relay(struct session *s, const struct relay_ends *ends);

/** session_cancel_begin(s): there is no server yet, and will be none: free what that took, but not ${s}. */
void session_cancel_begin(struct session *s);

/** session_begin_again(s, rest): its server has gone before it was told anything: get another. Takes ${rest}. May free ${s}. */
void session_begin_again(struct session *s, struct relay_rest *rest);

/** session_fail_server(s, err): it relays, and its server has failed before it was told of the client: not a byte may follow. Frees ${s}. */
void session_fail_server(struct session *s, int err);

/** session_finish(s, end): log and free a session whose sockets are closed. */
void session_finish(struct session *s, enum session_end end);

#endif
