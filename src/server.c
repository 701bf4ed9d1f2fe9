/* SPDX-License-Identifier: MIT */
#include "server.h"

#include "addrlist.h"
#include "conf.h"
#include "mailbox.h"
#include "monotonic.h"
#include "namewatch.h"
#include "process.h"
#include "stats.h"
#include "walk.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* What another worker's prober, if there still is one, is to know. */
struct report {
    struct mail mail;              /* first */
    struct process_server *shared; /* a reference */
    struct mailbox *reply_to;
    bool is_dial;
    enum dial_result result;
    int err;
    double began;
    struct server_life life;
};

/* What the owner has found out for another worker: the letter holds a copy, as references are of one thread. */
struct addrs_letter {
    struct mail mail;              /* first */
    struct process_server *shared; /* a reference */
    unsigned worker;               /* whose view of it is meant */
    size_t n;
    struct addr addrs[ADDRLIST_MAX];
};

static void
on_self_connect(const struct dial_opts *opts)
{
    struct server *s = (struct server *)((char *)opts - offsetof(struct server, dial_opts));
    uint64_t suppressed;

    stats_add(&s->stats->self_connects, 1);
    atomic_fetch_add_explicit(&s->process->self_connects, 1, memory_order_relaxed);
    if (!log_limit_pass(&s->self_connect_limit, monotonic_ms(), &suppressed))
        return;
    log_event(LOG_WARNING, "self_connect",
              LOG_FIELDS(LOG_STR("upstream", s->upstream->name), LOG_STR("server", s->conf->name),
                         LOG_UINT("suppressed", suppressed)),
              "upstream %s: the dial to %s met its own socket: nobody listens there; the port was "
              "freed at once",
              s->upstream->name, s->conf->name);
}

int
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
    if (conf->host)
        return 0;
    s->addrs = addrlist_new(&conf->addr, 1);
    return s->addrs ? 0 : -1;
}

static void
take_addrs(struct server *s, struct addrlist *addrs)
{
    addrlist_put(s->addrs);
    s->addrs = addrs;
    s->addrs_generation++;
    s->on_addrs(s);
}

/* This worker may be slow to go over to a configuration that the owner serves already. */
static void
keep_early(struct process_view *view, struct addrlist *addrs)
{
    addrlist_put(view->early);
    view->early = addrs;
}

static void
deliver_addrs(struct mail *mail)
{
    const struct addrs_letter *letter = (const struct addrs_letter *)mail;
    struct process_view *view = &letter->shared->views[letter->worker];
    struct addrlist *addrs = addrlist_new(letter->addrs, letter->n);

    if (addrs && view->server)
        take_addrs(view->server, addrs);
    else if (addrs)
        keep_early(view, addrs);
    process_server_put(letter->shared);
}

static void
discard_addrs(struct mail *mail)
{
    process_server_put(((struct addrs_letter *)mail)->shared);
}

/* Returns 0, or -1 when a letter could not be written. */
static int
send_addrs(const struct server *s, const struct addrlist *addrs)
{
    for (unsigned w = 0; w < s->process->n_workers; w++) {
        struct addrs_letter *letter;

        if (w == s->worker)
            continue;
        letter = malloc(sizeof(*letter));
        if (!letter)
            return -1;
        letter->mail.deliver = deliver_addrs;
        letter->mail.discard = discard_addrs;
        letter->shared = process_server_get(s->shared);
        letter->worker = w;
        letter->n = addrs->n;
        memcpy(letter->addrs, addrs->addrs, addrs->n * sizeof(letter->addrs[0]));
        mailbox_post(s->process->mailboxes[w], &letter->mail);
    }
    return 0;
}

/* The others first: none of them is told that the server is up before it knows where. */
static int
on_names_addrs(void *arg, struct addrlist *addrs)
{
    struct server *s = arg;

    if (send_addrs(s, addrs) != 0)
        return -1;
    process_server_set_addrs(s->shared, addrs->addrs, addrs->n);
    take_addrs(s, addrlist_get(addrs));
    prober_set_addrs(s->prober, addrs);
    return 0;
}

static void
on_names_settled(void *arg)
{
    const struct server *s = arg;

    prober_begin(s->prober);
}

static void
on_dial_failed(void *arg)
{
    const struct server *s = arg;

    if (s->names)
        namewatch_hurry(s->names);
}

static struct namewatch_opts
names_opts_of(struct server *s, struct resolver *resolver)
{
    return (struct namewatch_opts){
        .resolver = resolver,
        .server = s->conf,
        .upstream = s->upstream,
        .on_addrs = on_names_addrs,
        .on_settled = on_names_settled,
        .arg = s,
    };
}

static struct prober_opts
prober_opts_of(const struct server *s, const struct prober_opts *opts)
{
    struct prober_opts full = *opts;

    full.dial = &s->dial_opts;
    full.addrs = s->addrs;
    full.process = s->process;
    full.shared = s->shared;
    full.stats = s->stats;
    full.on_failed = on_dial_failed;
    return full;
}

int
server_own(struct server *s, struct resolver *resolver, const struct prober_opts *opts)
{
    const struct namewatch_opts names_opts = names_opts_of(s, resolver);
    const struct prober_opts prober_opts = prober_opts_of(s, opts);

    s->prober = prober_new(s->dial_opts.loop, s->conf, s->upstream, &prober_opts);
    if (!s->prober)
        return -1;
    if (!s->conf->host)
        return 0;
    s->names = namewatch_new(s->dial_opts.loop, &names_opts);
    return s->names ? 0 : -1;
}

void
server_begin(struct server *s)
{
    struct process_view *view = &s->shared->views[s->worker];

    view->server = s;
    if (view->early) {
        addrlist_put(s->addrs);
        s->addrs = view->early;
        view->early = NULL;
    }
    if (!s->prober || s->shared->owner)
        return;
    s->shared->owner = s->prober;
    if (s->names)
        namewatch_begin(s->names);
    else
        prober_begin(s->prober);
}

void
server_succeed(struct server *s, struct server *before, struct resolver *resolver,
               const struct prober_opts *opts)
{
    if (before->addrs) {
        addrlist_put(s->addrs);
        s->addrs = addrlist_get(before->addrs);
    }
    s->addrs_generation = before->addrs_generation;
    s->doubted = before->doubted;
    s->self_connect_limit = before->self_connect_limit;
    s->prober = before->prober;
    s->names = before->names;
    before->prober = NULL;
    before->names = NULL;
    if (s->names) {
        const struct namewatch_opts names_opts = names_opts_of(s, resolver);
        namewatch_set_opts(s->names, &names_opts);
    }
    if (s->prober) {
        const struct prober_opts prober_opts = prober_opts_of(s, opts);
        prober_set_conf(s->prober, s->conf, s->upstream, &prober_opts);
    }
}

void
server_retire(struct server *s)
{
    if (s->shared->views[s->worker].server == s)
        s->shared->views[s->worker].server = NULL;
    if (s->prober && s->shared->owner == s->prober)
        s->shared->owner = NULL;
    namewatch_free(s->names);
    prober_free(s->prober);
    s->names = NULL;
    s->prober = NULL;
}

void
server_fini(struct server *s)
{
    namewatch_free(s->names);
    prober_free(s->prober);
    addrlist_put(s->addrs);
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
server_is_disabled(const struct server *s)
{
    return atomic_load_explicit(&s->shared->is_disabled, memory_order_relaxed);
}

bool
server_is_untried(const struct server *s)
{
    unsigned state = shared_state(s);

    return state == HEALTH_UNKNOWN || state == HEALTH_DIALING; /* and no failure yet */
}

void
server_dial(struct server *s, struct walk *walk, struct endpoint *endpoint,
            void (*done)(void *arg, int fd, enum dial_result result, int err), void *arg)
{
    const struct walk_opts opts = {
        .server = s->conf,
        .upstream = s->upstream,
        .addrs = s->addrs,
        .dial = &s->dial_opts,
        .stats = s->stats,
    };

    walk_start(walk, &opts, endpoint, done, arg);
}

static void
deliver(struct mail *mail)
{
    const struct report *r = (const struct report *)mail;
    struct prober *prober = r->shared->owner;

    if (prober && r->is_dial)
        prober_on_dialled(prober, r->result, r->err, r->began);
    else if (prober)
        prober_on_life(prober, &r->life);
    if (r->is_dial)
        mailbox_raise(r->reply_to, WAKE_SERVERS); /* also when nothing has changed */
    process_server_put(r->shared);
}

static void
discard(struct mail *mail)
{
    process_server_put(((struct report *)mail)->shared);
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
    copy->mail.discard = discard;
    copy->shared = process_server_get(s->shared);
    copy->reply_to = s->process->mailboxes[s->worker];
    mailbox_post(s->process->mailboxes[s->shared->worker], &copy->mail);
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
