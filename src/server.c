/* SPDX-License-Identifier: MIT */
#include "server.h"

#include "conf.h"
#include "mailbox.h"
#include "monotonic.h"
#include "process.h"

#include <stddef.h>
#include <stdlib.h>

/* What another worker's prober is to know. */
struct report {
    struct mail mail; /* first */
    struct prober *prober;
    struct mailbox *reply_to;
    bool is_dial;
    enum dial_result result;
    int err;
    double began;
    struct server_life life;
};

static void
on_self_connect(const struct dial_opts *opts)
{
    struct server *s = (struct server *)((char *)opts - offsetof(struct server, dial_opts));
    uint64_t suppressed;

    if (!log_limit_pass(&s->self_connect_limit, monotonic_ms(), &suppressed))
        return;
    log_event(LOG_WARNING, "self_connect",
              LOG_FIELDS(LOG_STR("upstream", s->upstream->name), LOG_STR("server", s->conf->name),
                         LOG_UINT("suppressed", suppressed)),
              "upstream %s: the dial to %s met its own socket: nobody listens there; the port was "
              "freed at once",
              s->upstream->name, s->conf->name);
}

void
server_init(struct server *s, struct ev_loop *loop, const struct conf_server *conf,
            const struct conf_upstream *upstream, const struct portrange *range)
{
    *s = (struct server){
        .conf = conf,
        .upstream = upstream,
        .dial_opts =
            {
                .loop = loop,
                .range = range,
                .source = &upstream->source,
                .timeout_ms = upstream->connect_timeout_ms,
                .user_timeout_ms = upstream->sockopts.user_timeout_ms,
                .refuse_if_local = conf->loop_if_local,
                .on_self_connect = on_self_connect,
            },
    };
    balance_init(&s->balance, conf->name, conf->weight);
}

static unsigned
shared_state(const struct server *s)
{
    return atomic_load_explicit(&s->shared->state, memory_order_acquire);
}

enum health_state
server_state(const struct server *s)
{
    return (enum health_state)(shared_state(s) & ~PROCESS_TAINTED);
}

bool
server_is_untried(const struct server *s)
{
    unsigned state = shared_state(s);

    return state == HEALTH_UNKNOWN || state == HEALTH_DIALING; /* and no failure yet */
}

struct dial *
server_dial(struct server *s, struct endpoint *endpoint,
            void (*done)(void *arg, int fd, enum dial_result result, int err), void *arg)
{
    return dialer_start(&s->conf->addr, &s->dial_opts, endpoint, done, arg);
}

static void
deliver(struct mail *mail)
{
    const struct report *r = (const struct report *)mail;

    if (r->is_dial) {
        prober_on_dialled(r->prober, r->result, r->err, r->began);
        mailbox_raise(r->reply_to, WAKE_SERVERS); /* also when nothing has changed */
    } else {
        prober_on_life(r->prober, &r->life);
    }
}

/* Returns false when it could not be sent. */
static bool
send_report(const struct server *s, const struct report *report)
{
    struct report *copy = malloc(sizeof(*copy));

    if (!copy)
        return false;
    *copy = *report;
    copy->mail.deliver = deliver;
    copy->prober = s->shared->owner;
    copy->reply_to = s->mailbox;
    mailbox_post(s->shared->owner_mailbox, &copy->mail);
    return true;
}

void
server_doubt(struct server *s)
{
    s->doubted = true;
}

void
server_on_dialled(struct server *s, enum dial_result result, int err, double began)
{
    bool is_up = server_state(s) == HEALTH_UP;

    if (result == DIAL_SHORTAGE || (result == DIAL_OK) == is_up)
        return; /* no news */
    if (s->prober) {
        s->doubted = false;
        prober_on_dialled(s->prober, result, err, began);
    } else {
        s->doubted = send_report(s, &(struct report){.is_dial = true,
                                                     .result = result,
                                                     .err = err,
                                                     .began = began}) &&
                     result != DIAL_OK;
    }
}

void
server_on_life(struct server *s, const struct server_life *life)
{
    bool is_bad = life->hung_up && !life->brought_byte && life->lived_ms < HEALTH_HANGUP_MS;

    /* Good news is news to one that counts failures, and to no other. */
    if (!is_bad && !(shared_state(s) & PROCESS_TAINTED))
        return;
    if (s->prober)
        prober_on_life(s->prober, life);
    else
        (void)send_report(s, &(struct report){.life = *life}); /* the next piece of news will do */
}
