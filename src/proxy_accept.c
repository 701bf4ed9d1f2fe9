/* SPDX-License-Identifier: MIT */
#include "proxy_internal.h"

#include "addr.h"
#include "cidr.h"
#include "conf.h"
#include "log.h"
#include "monotonic.h"
#include "process.h"
#include "sock.h"
#include "stats.h"

#include <stdatomic.h>
#include <string.h>

/* Every worker meets the limit; one line tells of it. */
static void
tell_full(struct proxy *p, const char *limit, const struct limit *full)
{
    uint_fast64_t now = monotonic_ms(), next = atomic_load(&p->shared->next_told);

    if (now < next ||
        !atomic_compare_exchange_strong(&p->shared->next_told, &next, now + LOG_LIMIT_MS))
        return;
    log_event(LOG_WARNING, "accept_paused",
              LOG_FIELDS(LOG_STR("proxy", p->conf->name), LOG_STR("limit", limit),
                         LOG_UINT("max", limit_max(full))),
              "proxy %s has no place left (%s, %u): new clients wait in the backlog", p->conf->name,
              limit, limit_max(full));
}

static void
pause_all(struct proxy *p)
{
    for (size_t i = 0; i < p->n_listeners; i++)
        listener_pause(&p->listeners[i].listener, LISTENER_FULL);
    if (!p->is_paused)
        TAILQ_INSERT_TAIL(&p->group->paused, p, paused_link);
    p->is_paused = true;
}

static void
resume(struct proxy *p)
{
    TAILQ_REMOVE(&p->group->paused, p, paused_link);
    p->is_paused = false;
    for (size_t i = 0; i < p->n_listeners; i++)
        listener_resume(&p->listeners[i].listener, LISTENER_FULL);
}

void
proxy_resume_paused(struct proxy_group *group)
{
    struct proxy *p, *next;

    for (p = TAILQ_FIRST(&group->paused); p; p = next) {
        next = TAILQ_NEXT(p, paused_link);
        if (!limit_is_full(&p->shared->sessions) && !limit_is_full(&p->process->sessions))
            resume(p);
    }
}

void
proxy_give_places(struct proxy *p)
{
    bool was_full = limit_give(&p->shared->sessions);

    was_full |= limit_give(&p->process->sessions);
    if (was_full)
        process_wake(p->process, WAKE_PLACES, p->worker);
    proxy_resume_paused(p->group);
}

static bool
take_place(struct listener *listener)
{
    struct proxy *p = listener->arg;

    if (!limit_take(&p->process->sessions)) {
        tell_full(p, "descriptors", &p->process->sessions);
        goto full;
    }
    if (limit_take(&p->shared->sessions))
        return true;
    tell_full(p, "max_sessions", &p->shared->sessions);
    if (limit_give(&p->process->sessions))
        process_wake(p->process, WAKE_PLACES, p->worker);
full:
    pause_all(p);
    return false;
}

static void
give_place(struct listener *listener)
{
    proxy_give_places(listener->arg);
}

/* A UNIX client has passed the file's mode, and has no address. */
static bool
is_allowed(const struct proxy *p, const struct addr *client)
{
    return addr_is_unix(client) || cidr_table_allows(&p->conf->access, client);
}

/* A session's line, though none was begun. Anybody may be denied as often as it likes: one line tells of many. */
static void
tell_denied(struct proxy *p, const struct addr *client)
{
    struct addr plain = addr_unmap(client);
    char buf[ADDR_STR_MAX];
    uint64_t suppressed;

    if (p->host.access_log == ACCESS_LOG_OFF ||
        !log_limit_pass(&p->denied_limit, monotonic_ms(), &suppressed))
        return;
    addr_str(&plain, buf);
    log_event(LOG_NOTICE, "session",
              LOG_FIELDS(LOG_STR("proxy", p->conf->name), LOG_STR("client", buf),
                         LOG_STR("upstream", p->conf->upstream->name), LOG_STR("server", NULL),
                         LOG_STR("reason", session_end_str(SESSION_DENIED)),
                         LOG_UINT("bytes_to_server", 0), LOG_UINT("bytes_to_client", 0),
                         LOG_UINT("wait_ms", 0), LOG_UINT("connect_ms", 0), LOG_UINT("attempts", 0),
                         LOG_UINT("duration_ms", 0), LOG_UINT("suppressed", suppressed)),
              "proxy %s: %s was denied: its address is not allowed", p->conf->name, buf);
}

static void
on_accept(struct listener *listener, int fd, const struct addr *client)
{
    struct proxy *p = listener->arg;

    if (!is_allowed(p, client)) {
        sock_close_reset(fd);
        proxy_give_places(p);
        stats_add(&p->host.stats->ended[SESSION_DENIED], 1);
        tell_denied(p, client);
        return;
    }
    if (session_start(&p->host, fd, client) != 0)
        proxy_give_places(p);
    else
        p->group->sessions++;
}

static void
on_shortage(struct listener *listener, int err)
{
    struct proxy *p = listener->arg;

    if (err)
        log_event(LOG_WARNING, "accept_paused",
                  LOG_FIELDS(LOG_STR("proxy", p->conf->name), LOG_STR("limit", "system"),
                             LOG_STR("error", strerror(err))),
                  "proxy %s cannot accept clients now: %s; they wait in the backlog", p->conf->name,
                  strerror(err));
    else
        log_event(LOG_NOTICE, "accept_resumed", LOG_FIELDS(LOG_STR("proxy", p->conf->name)),
                  "proxy %s accepts clients again", p->conf->name);
}

const struct listener_events proxy_accept_events = {
    .take_place = take_place,
    .give_place = give_place,
    .on_accept = on_accept,
    .on_shortage = on_shortage,
};
