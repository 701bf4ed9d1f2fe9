/* SPDX-License-Identifier: MIT */
#include "prober.h"

#include "addrlist.h"
#include "conf.h"
#include "endpoints.h"
#include "health.h"
#include "log.h"
#include "monotonic.h"
#include "portrange.h"
#include "process.h"
#include "suspect.h"
#include "value.h"
#include "walk.h"

#include <ev.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Out of descriptors, say: that tells nothing about the server, and is tried again after this. */
#define SHORTAGE_RETRY_S 0.1

struct prober {
    const struct conf_server *conf;
    const struct conf_upstream *upstream;
    struct ev_loop *loop;
    struct prober_opts opts;
    struct health health;
    struct walk probe;
    struct endpoint endpoint; /* of the probe, from its dial on until it is closed or handed on */
    struct suspect suspect;   /* the probe, while it is held to see whether it lasts */
    ev_timer timer;           /* the pause before the next probe */
    double pause_began, pause;
    double up_since;         /* monotonic_s() */
    bool told_up, told_down; /* what the log said last */
    bool came_back;          /* the last dial that failed led to a listener of ours */
    struct log_limit loop_limit;
};

static void probe(struct prober *s);

static struct health_opts
health_opts(const struct prober *s)
{
    return (struct health_opts){
        .backoff_min_ms = s->upstream->backoff_min_ms,
        .backoff_max_ms = s->upstream->backoff_max_ms,
    };
}

/* For people: see process_news. */
static void
tell_reason(struct prober *s, int reason)
{
    atomic_store_explicit(&s->opts.shared->news.reason, reason, memory_order_relaxed);
}

static void
tell_pause(struct prober *s, double pause, double left)
{
    struct process_news *news = &s->opts.shared->news;

    atomic_store_explicit(&news->pause_ms, (uint64_t)(pause * 1e3), memory_order_relaxed);
    atomic_store_explicit(&news->retry_at_ms, monotonic_ms() + (uint64_t)(left * 1e3),
                          memory_order_relaxed);
}

/* Let the workers see how it is, and wake them when that has changed for them. */
static void
publish(struct prober *s)
{
    unsigned tainted = s->health.failures > 0 || s->health.hangups > 0 ? PROCESS_TAINTED : 0;
    unsigned before = atomic_exchange(&s->opts.shared->state, (unsigned)s->health.state | tainted);

    if ((before & ~PROCESS_TAINTED) != (unsigned)s->health.state)
        atomic_store_explicit(&s->opts.shared->news.since_ms, (uint64_t)(ev_time() * 1e3),
                              memory_order_relaxed);
    if (s->health.state == HEALTH_UP)
        tell_reason(s, REASON_NONE);

    /* That a first dial has failed is news, too. */
    if ((before & ~PROCESS_TAINTED) != (unsigned)s->health.state ||
        s->health.state == HEALTH_DIALING)
        process_wake(s->opts.process, WAKE_SERVERS, s->opts.process->n_workers);
}

static void
log_up(struct prober *s)
{
    if (s->told_up)
        return;
    s->told_up = true;
    s->told_down = false;
    log_event(LOG_NOTICE, "server_up",
              LOG_FIELDS(LOG_STR("upstream", s->upstream->name), LOG_STR("server", s->conf->name)),
              "upstream %s: server %s is up", s->upstream->name, s->conf->name);
}

static void
log_down(struct prober *s, const char *reason, const char *sentence, uint64_t retry_ms)
{
    char retry[32];

    if (s->told_down)
        return;
    s->told_down = true;
    s->told_up = false;
    value_duration_str(retry_ms, retry, sizeof(retry));
    log_event(LOG_WARNING, "server_down",
              LOG_FIELDS(LOG_STR("upstream", s->upstream->name), LOG_STR("server", s->conf->name),
                         LOG_STR("reason", reason), LOG_STR("retry_in", retry)),
              "upstream %s: server %s is down: %s", s->upstream->name, s->conf->name, sentence);
}

static void
stop_waiting(struct prober *s)
{
    ev_timer_stop(s->loop, &s->timer);
    if (suspect_is_held(&s->suspect))
        endpoints_remove(s->opts.process->endpoints, &s->endpoint);
    suspect_drop(&s->suspect);
}

/* Arm the timer for the pause that began at pause_began; shorter while a client waits. */
static void
arm_pause(struct prober *s)
{
    ev_tstamp pause = s->pause, longest = (ev_tstamp)s->upstream->backoff_waiting_ms / 1e3;

    if (limit_used(s->opts.waiting) > 0 && pause > longest)
        pause = longest;
    ev_tstamp left = s->pause_began + pause - monotonic_s();
    ev_timer_stop(s->loop, &s->timer);
    ev_timer_set(&s->timer, left > 0. ? left : 0., 0.);
    ev_timer_start(s->loop, &s->timer);
    tell_pause(s, pause, left > 0. ? left : 0.);
}

static void
pause_for(struct prober *s, ev_tstamp seconds)
{
    stop_waiting(s);
    s->pause_began = monotonic_s();
    s->pause = seconds;
    arm_pause(s);
}

/* The bounds of the pause may be others now. */
static void
pause_again(struct prober *s)
{
    ev_tstamp longest = (ev_tstamp)s->upstream->backoff_max_ms / 1e3;

    if (s->pause > longest)
        s->pause = longest;
    arm_pause(s);
}

/* A dial failed, or a connection was hung up: health has said what that means. */
static void
on_bad_news(struct prober *s, uint64_t pause_ms, const char *reason, const char *sentence)
{
    publish(s);
    if (s->health.state == HEALTH_UP)
        return;
    if (limit_used(s->opts.waiting) > 0 && pause_ms > s->upstream->backoff_waiting_ms)
        pause_ms = s->upstream->backoff_waiting_ms;
    if (s->health.state == HEALTH_DOWN)
        log_down(s, reason, sentence, pause_ms);
    pause_for(s, (ev_tstamp)pause_ms / 1e3);
}

/* A loop that the configuration did not show, and the dialer refused; it may begin while the server is down for another reason. */
static void
log_loop(struct prober *s)
{
    char addr[ADDR_STR_MAX];
    uint64_t suppressed;

    if (!log_limit_pass(&s->loop_limit, monotonic_ms(), &suppressed))
        return;
    addr_str(&s->opts.addrs->addrs[0], addr); /* the one whose failure counts */
    log_event(LOG_WARNING, "loop",
              LOG_FIELDS(LOG_STR("upstream", s->upstream->name), LOG_STR("server", s->conf->name),
                         LOG_STR("address", addr), LOG_UINT("suppressed", suppressed)),
              "upstream %s: server %s is a listener of this daemon, and would lead back here: "
              "it is not dialled",
              s->upstream->name, s->conf->name);
}

static void
on_failed(struct prober *s, enum dial_result result, int err)
{
    const struct health_opts opts = health_opts(s);
    uint64_t pause_ms = health_on_failed(&s->health, &opts, arc4random());
    char sentence[160], ports[32] = "";

    s->came_back = result == DIAL_LOOP;
    if (result == DIAL_LOOP && conf_server_may_loop(s->conf, &s->opts.addrs->addrs[0]))
        log_loop(s);
    if (result == DIAL_NO_PORT)
        snprintf(ports, sizeof(ports), " in %u-%u", s->opts.dial->range->low,
                 s->opts.dial->range->high);
    snprintf(sentence, sizeof(sentence), "%s%s%s%s%s", dial_result_sentence(result), ports,
             err ? " (" : "", err ? strerror(err) : "", err ? ")" : "");
    tell_reason(s, (int)result);
    on_bad_news(s, pause_ms, dial_result_str(result), sentence);
    s->opts.on_failed(s->opts.arg);
}

static void
on_hung_up(struct prober *s)
{
    const struct health_opts opts = health_opts(s);
    uint64_t pause_ms = health_on_hung_up(&s->health, &opts, arc4random());

    tell_reason(s, REASON_HUNG_UP);
    on_bad_news(s, pause_ms, "hung_up", "it accepts and hangs up at once, three times in a row");
}

/* ${fd}: the probe's socket, or -1 when a client's dial brought the news. */
static void
on_connected(struct prober *s, int fd)
{
    stop_waiting(s);
    if (s->health.state != HEALTH_UP)
        s->up_since = monotonic_s();
    s->came_back = false;
    health_on_connected(&s->health);
    if (fd >= 0)
        s->opts.on_probed(s->opts.arg, fd, &s->endpoint);
    publish(s); /* after the first in line was served: the others dial */
    log_up(s);  /* who reads it may come at once */
}

/* Is a mere connect no proof? */
static bool
is_suspect(const struct prober *s)
{
    return s->came_back || health_is_suspect(&s->health);
}

static void
on_lasted(void *arg, int fd)
{
    struct prober *s = arg;

    health_on_survived(&s->health);
    on_connected(s, fd);
}

static void
on_suspect_ended(void *arg)
{
    struct prober *s = arg;

    if (endpoint_came_back(&s->endpoint))
        on_failed(s, DIAL_LOOP, 0);
    else
        on_hung_up(s);
}

static void
on_probe_done(void *arg, int fd, enum dial_result result, int err)
{
    struct prober *s = arg;

    if (result != DIAL_OK && s->health.state == HEALTH_UP)
        return; /* a client's dial has found it up meanwhile */
    if (result == DIAL_SHORTAGE)
        pause_for(s, SHORTAGE_RETRY_S);
    else if (result != DIAL_OK)
        on_failed(s, result, err);
    else if (is_suspect(s))
        suspect_hold(&s->suspect, fd, s->came_back);
    else
        on_connected(s, fd);
}

static void
probe(struct prober *s)
{
    if (s->probe.is_active)
        return;
    const struct walk_opts opts = {
        .server = s->conf,
        .upstream = s->upstream,
        .addrs = s->opts.addrs,
        .dial = s->opts.dial,
        .stats = s->opts.stats,
    };
    walk_start(&s->probe, &opts, &s->endpoint, on_probe_done, s);
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct prober *s = (struct prober *)((char *)timer - offsetof(struct prober, timer));

    (void)loop;
    (void)revents;
    probe(s);
}

struct prober *
prober_new(struct ev_loop *loop, const struct conf_server *conf,
           const struct conf_upstream *upstream, const struct prober_opts *opts)
{
    struct prober *s = calloc(1, sizeof(*s));
    struct trail trail = {.hops = 0};

    if (!s)
        return NULL;
    s->conf = conf;
    s->upstream = upstream;
    s->loop = loop;
    s->opts = *opts;
    suspect_init(&s->suspect, loop, opts->process, on_lasted, on_suspect_ended, s);
    trail_extend(&trail, opts->upstream);
    endpoint_init(&s->endpoint, &trail);
    health_init(&s->health);
    ev_timer_init(&s->timer, on_timer, 0., 0.);
    return s;
}

void
prober_set_conf(struct prober *s, const struct conf_server *conf,
                const struct conf_upstream *upstream, const struct prober_opts *opts)
{
    bool is_dialling = s->probe.is_active;

    walk_cancel(&s->probe); /* it goes by the old options */
    s->conf = conf;
    s->upstream = upstream;
    s->opts = *opts;
    if (is_dialling)
        probe(s);
    else if (ev_is_active(&s->timer))
        pause_again(s);
}

void
prober_begin(struct prober *s)
{
    health_begin(&s->health);
    publish(s);
    probe(s);
}

void
prober_free(struct prober *s)
{
    if (!s)
        return;
    stop_waiting(s);
    walk_cancel(&s->probe);
    free(s);
}

void
prober_set_addrs(struct prober *s, struct addrlist *addrs)
{
    s->opts.addrs = addrs;
    /* Not begun, up, or a suspect whose connection is being watched: nothing is to be dialled. */
    if (s->health.state == HEALTH_UNKNOWN || s->health.state == HEALTH_UP ||
        suspect_is_held(&s->suspect))
        return;
    walk_cancel(&s->probe);
    stop_waiting(s);
    probe(s);
}

void
prober_on_dialled(struct prober *s, enum dial_result result, int err, double began)
{
    if (result == DIAL_SHORTAGE)
        return;
    if (result == DIAL_OK) {
        if (s->health.state != HEALTH_UP && !is_suspect(s))
            on_connected(s, -1);
    } else if (s->health.state == HEALTH_UP && began >= s->up_since) {
        on_failed(
            s, result,
            err); /* of a server that is not up, or was not when the dial began, this is no news */
    }
}

void
prober_on_life(struct prober *s, const struct server_life *life)
{
    if (s->health.state != HEALTH_UP)
        return; /* it began before the server went down: old news */
    if (life->brought_byte || life->lived_ms >= HEALTH_STABLE_MS)
        health_on_stable(&s->health);
    else if (life->lived_ms >= HEALTH_HANGUP_MS)
        health_on_survived(&s->health);
    else if (life->hung_up)
        on_hung_up(s);
    publish(s);
}

void
prober_hurry(struct prober *s)
{
    if (ev_is_active(&s->timer))
        arm_pause(s);
}
