/* SPDX-License-Identifier: MIT */
#include "admin_internal.h"

#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Nothing that is asked for needs a body. */
#define REQUEST_BODY_MAX 4096
/* Answers that slow clients have not read yet: one more is not made. */
#define BODIES_MAX (64 * (size_t)1024 * 1024)

/* Takes ${r}; NULL ends the connection. */
static enum MHD_Result
give(struct admin_conn *conn, unsigned status, struct MHD_Response *r)
{
    enum MHD_Result rc;

    if (!r)
        return MHD_NO;
    admin_conn_moved(conn, true);
    rc = MHD_queue_response(conn->mhd, status, r);
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result
refuse(struct admin_conn *conn, unsigned status, const char *error)
{
    return give(conn, status, admin_body_refusal(conn->admin, error));
}

static enum MHD_Result
accept_change(struct admin_conn *conn, unsigned status)
{
    return give(conn, status, admin_body_static("{\"ok\":true}\n", ADMIN_JSON));
}

static enum MHD_Result
refuse_path(struct admin_conn *conn)
{
    return give(conn, MHD_HTTP_NOT_FOUND,
                admin_body_static("not found; there are / /healthz /readyz /status /metrics "
                                  "/sessions, and to be changed /reload /drain "
                                  "/servers/UPSTREAM/SERVER/enable and .../disable\n",
                                  ADMIN_TEXT));
}

static enum MHD_Result
refuse_method(struct admin_conn *conn, const char *allowed)
{
    struct MHD_Response *r = admin_body_static("method not allowed\n", ADMIN_TEXT);

    if (r)
        (void)MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, allowed);
    return give(conn, MHD_HTTP_METHOD_NOT_ALLOWED, r);
}

static enum MHD_Result
give_page(struct admin_conn *conn)
{
    return give(conn, MHD_HTTP_OK, admin_body_page());
}

/* Returns false when there is none of that. */
static bool
write_body(struct admin *a, enum admin_route route, FILE *out, unsigned *status)
{
    const struct admin_ops *ops = a->ops;

    *status = MHD_HTTP_OK;
    if (route == ROUTE_READY && ops->put_ready) {
        if (ops->put_ready(a->arg, out))
            fputs("ok\n", out);
        else
            *status = MHD_HTTP_SERVICE_UNAVAILABLE;
    } else if (route == ROUTE_STATUS && ops->put_status) {
        ops->put_status(a->arg, out);
    } else if (route == ROUTE_METRICS && ops->put_metrics) {
        ops->put_metrics(a->arg, out);
    } else {
        return false;
    }
    return true;
}

/* Makes an answer that is the same for all who ask in this turn. Returns a status: 200 when there is one. */
static unsigned
share(struct admin *a, enum admin_route route)
{
    bool is_known = false;
    const char *type = ADMIN_TEXT;
    struct admin_draft d;

    if (a->n_body_bytes >= BODIES_MAX)
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    admin_draft_open(&d);
    if (d.out)
        is_known = write_body(a, route, d.out, &a->shared_status[route]);
    if (!admin_draft_close(&d))
        return MHD_HTTP_INTERNAL_SERVER_ERROR;
    if (!is_known) {
        free(d.text);
        return MHD_HTTP_NOT_IMPLEMENTED;
    }
    if (route == ROUTE_STATUS)
        type = ADMIN_JSON;
    else if (route == ROUTE_METRICS)
        type = ADMIN_METRICS;
    a->shared[route] = admin_body_make(a, d.text, d.size, type);
    return a->shared[route] ? MHD_HTTP_OK : MHD_HTTP_INTERNAL_SERVER_ERROR;
}

static enum MHD_Result
give_shared(struct admin_conn *conn, enum admin_route route)
{
    struct admin *a = conn->admin;
    unsigned status = a->shared[route] ? MHD_HTTP_OK : share(a, route);

    if (status == MHD_HTTP_NOT_IMPLEMENTED)
        return give(conn, status, admin_body_static("not implemented\n", ADMIN_TEXT));
    if (status == MHD_HTTP_SERVICE_UNAVAILABLE)
        return give(conn, status,
                    admin_body_static("too many answers are not read yet; try again\n",
                                      ADMIN_TEXT));
    if (status != MHD_HTTP_OK)
        return give(conn, status, admin_body_static("out of memory\n", ADMIN_TEXT));
    admin_conn_moved(conn, true);
    return MHD_queue_response(conn->mhd, a->shared_status[route], a->shared[route]);
}

void
admin_answer_unshare(struct admin *a)
{
    for (int i = 0; i < ROUTE_COUNT; i++) {
        if (a->shared[i])
            MHD_destroy_response(a->shared[i]);
        a->shared[i] = NULL;
    }
}

static enum MHD_Result
answer_later(struct admin_conn *conn, void (*start)(void *arg, struct admin_later *later))
{
    if (!start)
        return refuse(conn, MHD_HTTP_NOT_IMPLEMENTED, "not implemented");
    admin_conn_moved(conn, true); /* the request is there: what takes its time now is the answer */
    conn->later.is_awaited = true;
    MHD_suspend_connection(conn->mhd);
    start(conn->admin->arg, &conn->later);
    return MHD_YES;
}

static void
settle(struct admin_later *later, unsigned status, struct MHD_Response *r)
{
    struct admin_conn *conn =
        (struct admin_conn *)((char *)later - offsetof(struct admin_conn, later));

    if (!later->is_awaited)
        return;
    later->is_awaited = false;
    later->status = status;
    later->response = r;
    MHD_resume_connection(conn->mhd);
    admin_run_again(conn->admin);
}

static struct admin *
admin_of(struct admin_later *later)
{
    return ((struct admin_conn *)((char *)later - offsetof(struct admin_conn, later)))->admin;
}

void
admin_answer(struct admin_later *later, char *json, size_t size)
{
    settle(later, MHD_HTTP_OK,
           json ? admin_body_make(admin_of(later), json, size, ADMIN_JSON) : NULL);
}

void
admin_say(struct admin_later *later, bool is_fine, char *text, size_t size)
{
    settle(later, is_fine ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
           text ? admin_body_make(admin_of(later), text, size, ADMIN_TEXT) : NULL);
}

void
admin_accept(struct admin_later *later)
{
    settle(later, MHD_HTTP_OK, admin_body_static("{\"ok\":true}\n", ADMIN_JSON));
}

void
admin_refuse(struct admin_later *later, const char *errors)
{
    settle(later, MHD_HTTP_UNPROCESSABLE_CONTENT, admin_body_refusal(admin_of(later), errors));
}

void
admin_answer_give_up(struct admin_conn *conn)
{
    settle(&conn->later, MHD_HTTP_SERVICE_UNAVAILABLE, NULL);
}

static enum MHD_Result
change_server(struct admin_conn *conn, const struct admin_target *t)
{
    const struct admin *a = conn->admin;
    const char *kill = MHD_lookup_connection_value(conn->mhd, MHD_GET_ARGUMENT_KIND, "kill"), *why;
    const struct admin_change change = {
        .upstream = t->upstream,
        .server = t->server,
        .enable = t->route == ROUTE_ENABLE,
        .kill = kill && strcmp(kill, "1") == 0,
    };

    if (!a->ops->change_server)
        return refuse(conn, MHD_HTTP_NOT_IMPLEMENTED, "not implemented");
    why = a->ops->change_server(a->arg, &change);
    return why ? refuse(conn, MHD_HTTP_NOT_FOUND, why) : accept_change(conn, MHD_HTTP_OK);
}

/* Who asked for it? */
static void
tell_change(const struct admin_conn *conn, const char *method, const char *path)
{
    struct ucred peer = {.pid = 0};
    socklen_t len = sizeof(peer);

    (void)getsockopt(conn->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
    log_event(LOG_NOTICE, "admin_request",
              LOG_FIELDS(LOG_STR("method", method), LOG_STR("path", path),
                         LOG_UINT("uid", peer.uid), LOG_UINT("pid", peer.pid)),
              "admin: %s %s asked for by user %u", method, path, (unsigned)peer.uid);
}

static enum MHD_Result
change(struct admin_conn *conn, const struct admin_target *t)
{
    const struct admin *a = conn->admin;

    switch (t->route) {
    case ROUTE_RELOAD:
        return answer_later(conn, a->ops->reload);
    case ROUTE_DRAIN:
        if (!a->ops->drain)
            return refuse(conn, MHD_HTTP_NOT_IMPLEMENTED, "not implemented");
        a->ops->drain(a->arg);
        return accept_change(conn, MHD_HTTP_ACCEPTED);
    default:
        return change_server(conn, t);
    }
}

static enum MHD_Result
look(struct admin_conn *conn, const struct admin_target *t)
{
    switch (t->route) {
    case ROUTE_PAGE:
        return give_page(conn);
    case ROUTE_HEALTH:
        return answer_later(conn, conn->admin->ops->check_health);
    case ROUTE_SESSIONS:
        return answer_later(conn, conn->admin->ops->list_sessions);
    default:
        return give_shared(conn, t->route);
    }
}

/* The request is there as a whole. */
static enum MHD_Result
answer(struct admin_conn *conn, const char *method, const char *path)
{
    struct admin_target t;

    admin_route_parse(&t, path);
    if (t.route == ROUTE_NONE)
        return refuse_path(conn);
    if (t.route < ROUTE_CHANGES) {
        if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
            return refuse_method(conn, "GET, HEAD");
        return look(conn, &t);
    }
    if (strcmp(method, "POST") != 0)
        return refuse_method(conn, "POST");
    if (conn->trust == ADMIN_IS_TCP)
        return refuse(conn, MHD_HTTP_FORBIDDEN,
                      "changes are allowed on UNIX sockets only: their file mode says who may");
    if (conn->trust == ADMIN_IS_STRANGER)
        return refuse(conn, MHD_HTTP_FORBIDDEN,
                      "changes are allowed on UNIX sockets with a path, and on this abstract one "
                      "for root and the user of rediald only");
    tell_change(conn, method, path);
    return change(conn, &t);
}

enum MHD_Result
admin_answer_request(void *arg, struct MHD_Connection *mhd, const char *path, const char *method,
                     const char *version, const char *data, size_t *size, void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct admin_conn *conn = info ? info->socket_context : NULL;
    struct MHD_Response *r;

    (void)arg;
    (void)version;
    (void)data;
    if (!conn)
        return MHD_NO;
    if (!*context) {
        *context = conn; /* the headers are there, perhaps no more */
        conn->body = 0;
        return MHD_YES;
    }
    if (*size > 0) {
        conn->body += *size;
        *size = 0;
        return conn->body <= REQUEST_BODY_MAX ? MHD_YES : MHD_NO;
    }
    if (conn->later.status == 0)
        return answer(conn, method, path);
    r = conn->later.response;
    conn->later.response = NULL;
    return give(conn, conn->later.status, r);
}

void
admin_answer_done(void *arg, struct MHD_Connection *mhd, void **context,
                  enum MHD_RequestTerminationCode why)
{
    struct admin_conn *conn = *context;

    (void)arg;
    (void)mhd;
    (void)why;
    if (!conn)
        return;
    conn->later.status = 0;
    admin_conn_moved(conn, false);
}
