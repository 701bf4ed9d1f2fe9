/* SPDX-License-Identifier: MIT */
/*
 * daemon_reload(): load, check, open what is new --> all workers --> daemon_reload_done()
 *                       \-- any fault: nothing has changed
 *
 * All that can fail is done before the first worker hears of it.
 */
#include "daemon_internal.h"

#include "admin.h"
#include "conf.h"
#include "generation.h"
#include "log.h"
#include "portcheck.h"
#include "worker.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void
daemon_fault(struct daemon *d, const char *fmt, ...)
{
    va_list ap;

    if (!d->faults)
        return;
    va_start(ap, fmt);
    vfprintf(d->faults, fmt, ap);
    va_end(ap);
    putc('\n', d->faults);
}

/* Keys that a process has for life. */
static void
tell_restart(const struct conf_daemon *is, const struct conf_daemon *wanted)
{
    const struct {
        const char *key;
        bool differs;
    } keys[] = {
        {"workers", is->workers != wanted->workers},
        {"splice", is->splice != wanted->splice},
        {"user", strcmp(is->user ? is->user : "", wanted->user ? wanted->user : "") != 0},
        {"group", strcmp(is->group ? is->group : "", wanted->group ? wanted->group : "") != 0},
    };

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (keys[i].differs)
            log_event(LOG_WARNING, "restart_needed", LOG_FIELDS(LOG_STR("key", keys[i].key)),
                      "[daemon] %s has changed: that needs a restart; until then it stays as it is",
                      keys[i].key);
    }
}

/* What the loader had to say, and whatever came after it: a line each. */
static void
log_faults(const char *faults)
{
    const char *end;

    for (; faults && *faults != '\0'; faults = *end != '\0' ? end + 1 : end) {
        end = strchrnul(faults, '\n');
        log_event(LOG_ERROR, "reload_fault", LOG_NO_FIELDS, "%.*s", (int)(end - faults), faults);
    }
}

static int
check_ports(struct daemon *d, const struct conf *conf, const struct portrange *range)
{
    if (portcheck_conf(conf, range) == 0 || conf->daemon.port_range_check != RANGE_CHECK_ERROR)
        return 0;
    daemon_fault(d, "[daemon] port_range_check: a port lies in the ephemeral range; the log says "
                    "which, and what is allowed");
    return -1;
}

/* Returns 0, or -1 and none that is new is open. */
static int
open_sockets(struct daemon *d, const struct conf *conf)
{
    struct daemon_reload *r = &d->reload;

    if (daemon_listens_open(d, conf, 0, &r->listens) != DAEMON_OK)
        return -1;
    if (daemon_admins_open(d, conf, &r->admins) == DAEMON_OK) {
        if (daemon_admins_attach(d, &r->admins) == 0)
            return 0;
        daemon_fault(d, "[daemon] admin: %s", strerror(errno));
        daemon_admins_undo(&r->admins);
    }
    daemon_listens_undo(&r->listens);
    return -1;
}

/* Takes ${conf}. Returns 0, or -1 when nothing has changed. */
static int
prepare(struct daemon *d, struct conf *conf, struct worker_set **sets)
{
    struct daemon_reload *r = &d->reload;
    struct portrange range;

    portrange_load(&range);
    if (check_ports(d, conf, &range) != 0 || open_sockets(d, conf) != 0) {
        conf_free(conf);
        return -1;
    }
    r->generation = generation_new(d->process, conf, &range, d->generation);
    if (!r->generation)
        conf_free(conf);
    else if (daemon_make_sets(d, r->generation, &r->listens, sets) == 0)
        return 0;
    daemon_fault(d, "%s", strerror(errno));
    generation_put(r->generation);
    r->generation = NULL;
    daemon_listens_undo(&r->listens);
    daemon_admins_undo(&r->admins);
    return -1;
}

static void
change_listens(struct daemon *d, const struct conf *conf)
{
    struct daemon_listen *l = d->reload.listens.items;

    for (size_t i = 0; i < conf->n_proxies; i++) {
        for (size_t k = 0; k < conf->proxies[i].n_listens; k++, l++) {
            if (l->is_kept)
                daemon_change_listen(d, &conf->proxies[i], l);
        }
    }
}

/* From here on nothing can fail. */
static void
commit(struct daemon *d, struct worker_set **sets)
{
    struct daemon_reload *r = &d->reload;
    const struct conf *conf = r->generation->conf;
    const struct process_most most = daemon_share_descriptors(conf, d->n_workers, r->listens.n);

    tell_restart(&d->generation->conf->daemon, &conf->daemon);
    log_setup(conf->daemon.log_level, conf->daemon.log_format);
    change_listens(d, conf);
    generation_begin(r->generation, d->process, &most);
    daemon_admins_succeed(d, &r->admins);
    r->loaded_ms = daemon_wall_ms();
    for (unsigned w = 0; w < d->n_workers; w++)
        worker_reload(d->workers[w], sets[w]);
}

/* It has ended, well when ${faults} is NULL: who asked before it began is told, others when the next one has. */
static void
answer_askers(struct daemon *d, const char *faults)
{
    struct daemon_reload *r = &d->reload;

    for (size_t i = 0; i < r->n_early; i++) {
        if (faults)
            admin_refuse(r->askers[i], faults);
        else
            admin_accept(r->askers[i]);
    }
    r->n_askers -= r->n_early;
    for (size_t i = 0; i < r->n_askers; i++)
        r->askers[i] = r->askers[i + r->n_early];
    r->n_early = 0;
}

static void
tell_failed(struct daemon *d)
{
    log_faults(d->reload.faults);
    d->reload.n_failed++;
    d->reload.ended_ms = daemon_wall_ms();
    log_event(LOG_ERROR, "reload_failed", LOG_NO_FIELDS,
              "the configuration was not reloaded: all goes on as before");
    manager_reloaded(&d->manager, d->generation);
    answer_askers(d, d->reload.faults ? d->reload.faults : "out of memory");
}

static void
reload(struct daemon *d)
{
    struct worker_set **sets = calloc(d->n_workers, sizeof(struct worker_set *));
    struct daemon_reload *r = &d->reload;
    struct conf *conf;
    size_t size;
    int rc = -1;

    free(r->faults);
    r->faults = NULL;
    d->faults = open_memstream(&r->faults, &size);
    if (sets && d->faults) {
        conf = d->source->load(d->source->arg, d->faults);
        rc = conf ? prepare(d, conf, sets) : -1;
    }
    if (d->faults)
        fclose(d->faults);
    d->faults = NULL;
    if (rc == 0)
        commit(d, sets);
    else
        tell_failed(d);
    free(sets);
}

void
daemon_reload(struct daemon *d)
{
    if (d->phase != DAEMON_SERVING) {
        log_event(LOG_NOTICE, "reload_ignored", LOG_NO_FIELDS,
                  "ending: the configuration is not read any more");
        return;
    }
    d->reload.is_wanted_again = d->reload.generation != NULL || daemon_upgrade_is_under_way(d) ||
                                d->upgrade.is_awaited; /* that we are ready is told first */
    if (d->reload.is_wanted_again)
        return;
    d->reload.n_early = d->reload.n_askers;
    manager_reloading(&d->manager);
    log_event(LOG_NOTICE, "reloading", LOG_NO_FIELDS, "reading the configuration again");
    reload(d);
}

void
daemon_reload_asked(struct daemon *d, struct admin_later *later)
{
    struct daemon_reload *r = &d->reload;
    struct admin_later **askers =
        reallocarray(r->askers, r->n_askers + 1, sizeof(struct admin_later *));

    if (!askers || d->phase != DAEMON_SERVING) {
        admin_refuse(later,
                     askers ? "ending: the configuration is not read any more" : "out of memory");
        r->askers = askers ? askers : r->askers;
        return;
    }
    r->askers = askers;
    r->askers[r->n_askers++] = later;
    daemon_reload(d);
}

void
daemon_reload_pass_on(struct daemon *d, pid_t pid)
{
    struct daemon_reload *r = &d->reload;

    if (!r->is_wanted_again)
        return;
    kill(pid, SIGHUP); /* it may have read the configuration before */
    r->is_wanted_again = false;
    r->n_early = r->n_askers;
    answer_askers(d, "another process has taken over, and reads the configuration");
}

void
daemon_reload_done(struct daemon *d)
{
    struct daemon_reload *r = &d->reload;
    const struct conf *conf = r->generation->conf;

    daemon_listens_keep(&r->listens);
    daemon_listens_succeed(d, &r->listens);
    generation_put(d->generation);
    d->generation = r->generation;
    r->generation = NULL;
    /* What one worker let go makes room for standby connections of another, and there may be more descriptors for sessions. */
    process_wake(d->process, WAKE_SERVERS | WAKE_PLACES, d->n_workers);
    r->n_ok++;
    r->ended_ms = daemon_wall_ms();
    manager_reloaded(&d->manager, d->generation);
    log_event(LOG_NOTICE, "reloaded",
              LOG_FIELDS(LOG_UINT("proxies", conf->n_proxies),
                         LOG_UINT("upstreams", conf->n_upstreams)),
              "the new configuration is served");
    answer_askers(d, NULL);
    if (r->is_wanted_again && d->phase == DAEMON_SERVING) {
        daemon_reload(d);
    } else {
        r->n_early = r->n_askers;
        answer_askers(d, "ending: the configuration is not read any more");
    }
}

void
daemon_reload_cancel(struct daemon *d)
{
    if (d->reload.generation)
        daemon_listens_succeed(d, &d->reload.listens);
    daemon_listens_close(d);
    generation_put(d->reload.generation);
    free(d->reload.faults);
    free(d->reload.askers);
}
