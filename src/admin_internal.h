/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_ADMIN_INTERNAL_H
#define REDIAL_ADMIN_INTERNAL_H

#include "admin.h"
#include "listener.h"

#include <ev.h>
#include <microhttpd.h>
#include <stdint.h>
#include <sys/queue.h>

/*
 * What the parts of admin share.
 *
 *   admin         the loop: when libmicrohttpd runs, and for how long it rests
 *   admin_conn    connections: who may come in, and who has to go
 *   admin_route   what a path means
 *   admin_answer  requests and their answers
 *   admin_body    what is in an answer
 */

#define ADMIN_NAME_MAX 199

enum admin_route {
    ROUTE_NONE, /* there is no such path */
    ROUTE_PAGE,
    ROUTE_HEALTH,
    ROUTE_READY,
    ROUTE_STATUS,
    ROUTE_METRICS,
    ROUTE_SESSIONS,
    ROUTE_CHANGES, /* those after it change something */
    ROUTE_RELOAD = ROUTE_CHANGES,
    ROUTE_DRAIN,
    ROUTE_ENABLE,
    ROUTE_DISABLE,
    ROUTE_COUNT,
};

struct admin_target {
    enum admin_route route;
    char upstream[ADMIN_NAME_MAX + 1],
        server[ADMIN_NAME_MAX + 1]; /* of ROUTE_ENABLE, ROUTE_DISABLE */
};

/**
 * admin_route_parse(target, path):
 * What does ${path}, as it came in the request but for what follows a `?', mean? Names of servers may have any byte but NUL, escaped as RFC 3986 tells. Cannot fail.
 */
void admin_route_parse(struct admin_target *target, const char *path);

/* May its client change anything? */
enum admin_trust { ADMIN_MAY_CHANGE, ADMIN_IS_TCP, ADMIN_IS_STRANGER };

/* An answer that is still to come, or has come but was not given yet. */
struct admin_later {
    bool is_awaited;
    unsigned status;
    struct MHD_Response *response; /* NULL: none yet */
};

struct admin_conn {
    TAILQ_ENTRY(admin_conn) next;
    struct admin *admin;
    struct admin_listener *listener; /* NULL: it is gone */
    struct MHD_Connection *mhd;
    int fd; /* libmicrohttpd's */
    enum admin_trust trust;
    double since; /* when it arrived, or finished a request or an answer; monotonic_s() */
    bool is_answering;
    size_t body; /* bytes of the request's */
    struct admin_later later;
};

struct admin_listener {
    TAILQ_ENTRY(admin_listener) next;
    struct admin *admin;
    struct listener listener;
    bool is_unix, is_abstract;
    unsigned n_conns;
};

struct admin {
    struct ev_loop *loop;
    const struct admin_ops *ops;
    void *arg;
    struct MHD_Daemon *mhd;
    ev_io io;       /* its epoll instance */
    ev_timer again; /* it has more to do, or has rested */
    ev_timer tick;  /* while there are connections */
    bool is_resting;
    double spent_s;                 /* since the last rest; CPU time */
    TAILQ_HEAD(, admin_conn) conns; /* the one that has stood still the longest first */
    TAILQ_HEAD(, admin_listener) listeners;
    struct admin_listener *accepting; /* while libmicrohttpd takes a connection */
    int accepting_fd;
    struct MHD_Response *shared[ROUTE_COUNT]; /* answers of this turn */
    unsigned shared_status[ROUTE_COUNT];
    size_t n_body_bytes; /* of answers that are not out yet */
};

/** admin_cpu_s(): the CPU time of this thread, in seconds. Cannot fail. */
double admin_cpu_s(void);

/** admin_run(admin): let libmicrohttpd do what there is to do. Not from within it. */
void admin_run(struct admin *admin);

/** admin_run_again(admin): there is something to do, in the next turn of the loop or when it has rested. */
void admin_run_again(struct admin *admin);

/** admin_conn_notify(arg, mhd, context, code): a connection begins or ends; for libmicrohttpd. */
void admin_conn_notify(void *arg, struct MHD_Connection *mhd, void **context,
                       enum MHD_ConnectionNotificationCode code);

/** admin_conn_moved(conn, is_answering): it has finished a request, or an answer. */
void admin_conn_moved(struct admin_conn *conn, bool is_answering);

/** admin_conn_expire(admin): end those that have stood still for too long. */
void admin_conn_expire(struct admin *admin);

/** admin_conn_pause(admin): let listeners accept, unless it rests. */
void admin_conn_pause(struct admin *admin);

extern const struct listener_events admin_listener_events;

#define ADMIN_TEXT    "text/plain; charset=utf-8"
#define ADMIN_HTML    "text/html; charset=utf-8"
#define ADMIN_JSON    "application/json"
#define ADMIN_METRICS "text/plain; version=0.0.4; charset=utf-8"

/* A body under way. */
struct admin_draft {
    FILE *out; /* NULL: no memory */
    char *text;
    size_t size;
};

/** admin_draft_open(draft), admin_draft_close(draft): write to ${draft->out} between the two. The latter returns whether all of it is in ${draft->text}, which is the caller's then. */
void admin_draft_open(struct admin_draft *draft);
bool admin_draft_close(struct admin_draft *draft);

/**
 * admin_body_make(admin, text, size, type), admin_body_static(text, type), admin_body_refusal(admin, errors), admin_body_page():
 * An answer with ${text}, from malloc(3), which is taken; with a static text; that something was not done, a line for each error; the page. NULL: no memory.
 */
struct MHD_Response *admin_body_make(struct admin *admin, char *text, size_t size,
                                     const char *type);
struct MHD_Response *admin_body_static(const char *text, const char *type);
struct MHD_Response *admin_body_refusal(struct admin *admin, const char *errors);
struct MHD_Response *admin_body_page(void);

/** admin_answer_request(...), admin_answer_done(...): a request, whole or in parts; an answer is out, or given up. For libmicrohttpd. */
enum MHD_Result admin_answer_request(void *arg, struct MHD_Connection *mhd, const char *path,
                                     const char *method, const char *version, const char *data,
                                     size_t *size, void **context);
void admin_answer_done(void *arg, struct MHD_Connection *mhd, void **context,
                       enum MHD_RequestTerminationCode why);

/** admin_answer_unshare(admin): the turn is over: the next request gets an answer of its own. */
void admin_answer_unshare(struct admin *admin);

/** admin_answer_give_up(conn): wait for an answer no longer. */
void admin_answer_give_up(struct admin_conn *conn);

#endif
