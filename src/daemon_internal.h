/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_DAEMON_INTERNAL_H
#define REDIAL_DAEMON_INTERNAL_H

#include "binder.h"
#include "daemon.h"
#include "manager.h"

#include <ev.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * What the parts of daemon share.
 *
 *   daemon         from the start to the end: limits, privileges, signals, workers
 *   daemon_reload  from one configuration to the next
 *   daemon_upgrade from one program to the next
 *   daemon_listen  the listening sockets of a configuration, and which worker gets which
 *   daemon_bind    one listening socket: opened, or who has it
 *   daemon_admin   where the admin interface listens
 *   daemon_answer  what it answers
 *   daemon_census  the sessions of all workers, for its answers
 *   daemon_health  whether the workers' loops turn, likewise
 */

struct admin;
struct admin_later;
struct admin_listener;
struct admin_ops;
struct conf;
struct conf_listen;
struct conf_proxy;
struct generation;
struct handover;
struct process;
struct process_most;
struct report;
struct worker;
struct worker_set;
struct worker_sockets;

enum daemon_phase {
    DAEMON_SERVING,
    DAEMON_LAME, /* a signal has come: clients are accepted for lame_duck */
    DAEMON_DRAINING,
    DAEMON_CUTTING, /* the sessions that are left */
};

/* The sockets on one `listen' address. */
struct daemon_listen {
    struct binding binding; /* its fd is that of fds[0] */
    int *fds;               /* the workers', in turn; as many as workers at least */
    size_t n_fds;
    bool is_shared; /* they are one socket */
    bool is_kept;   /* it was that of the configuration before, too */
    size_t before;  /* and there it was the one of this number */
};

/* Those of one configuration, in its order. */
struct daemon_listens {
    struct daemon_listen *items;
    size_t n;
};

/* One `admin' address. */
struct daemon_admin_listen {
    struct binding binding;
    struct admin_listener *listener; /* has its socket; NULL: not yet, or there is none */
    bool is_kept;                    /* it was that of the configuration before, too */
    size_t before;                   /* and there it was the one of this number */
};

/* Those of one configuration, in its order. */
struct daemon_admins {
    struct daemon_admin_listen *items;
    size_t n;
};

/* One reload, from the signal until every worker has gone over. */
struct daemon_reload {
    struct generation *generation; /* NULL: there is none under way */
    struct daemon_listens listens;
    struct daemon_admins admins;
    bool is_wanted_again;        /* it was asked for meanwhile, or during an upgrade */
    struct admin_later **askers; /* those of the admin interface whose answer is due at its end */
    size_t n_askers, n_early;    /* and the first so many asked before it began */
    uint64_t n_ok, n_failed;     /* so far */
    uint64_t loaded_ms,
        ended_ms; /* of the wall clock: what is served was read, the last one ended; 0: never */
    char *faults; /* of the last one, a line each; NULL: it was fine, or there was none */
};

/* From one program to the next: the one that is being started, and the one that has started us. */
struct daemon_upgrade {
    pid_t pid;     /* 0: there is none */
    pid_t keeper;  /* our child, whose child it is */
    bool is_ready; /* and the keeper was told to end */
    ev_io ready;
    ev_child child;
    ev_timer deadline;
    bool is_done;      /* it has taken our place */
    bool is_cancelled; /* it was told to end, for we end */
    ev_io before;
    bool
        is_awaited; /* that one has not given way yet: it, not we, is the service, and the sockets are its */
};

/* Who wants to know whether the workers' loops turn. */
struct daemon_health {
    struct admin_later **askers;
    size_t n_askers;
    ev_timer timer;     /* while somebody waits: when a worker's silence is an answer, too */
    bool is_stall_told; /* of a worker that has not answered since */
};

/* What the workers are asked for the admin interface: which sessions there are. */
struct daemon_census {
    struct admin_later **askers;
    size_t n_askers, n_early; /* the first so many asked before it began */
    bool is_running;          /* not every worker has listed its own yet */
    ev_timer timer;           /* while somebody waits: when that is too long */
};

struct daemon {
    const struct daemon_source *source;
    struct generation *generation; /* what is served */
    struct daemon_listens listens; /* its */
    struct daemon_reload reload;
    struct daemon_upgrade upgrade;
    FILE *faults; /* where what goes wrong is told beside the log; NULL: nowhere */
    unsigned n_workers;
    struct process *process;
    struct worker **workers;
    struct ev_loop *loop;
    ev_async news;
    ev_signal sigterm, sigint, sighup, sigusr2;
    ev_timer deadline; /* of the phase */
    ev_timer progress;
    enum daemon_phase phase;
    struct manager manager;
    struct admin *admin; /* NULL: it listens nowhere, and has not */
    struct daemon_admins admins;
    struct daemon_census census;
    struct daemon_health health;
    uint64_t started_ms; /* of the wall clock */
};

/** daemon_signal_set(set): the signals that the main loop hears. */
void daemon_signal_set(sigset_t *set);

/** daemon_start_failed(status, what): say that the step ${what} failed, and errno. Returns ${status}. */
int daemon_start_failed(int status, const char *what);

/** daemon_fault(d, fmt, ...): a line for ${d->faults}. The log is told by whoever calls. */
void daemon_fault(struct daemon *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** daemon_share_descriptors(conf, n_workers, n_listens): for how many sessions and standby connections are there descriptors? Warns when there are few. */
struct process_most daemon_share_descriptors(const struct conf *conf, unsigned n_workers,
                                             size_t n_listens);

/**
 * daemon_bind(d, proxy, listen, binding, retry_ms):
 * Open, or adopt, ${listen}. An outgoing connection, or what is left of one, may hold its port: that passes, and is waited for up to ${retry_ms}. Returns an exit status,
 * the reason told; or -1 when a signal asked for the end meanwhile.
 */
int daemon_bind(struct daemon *d, const struct conf_proxy *proxy, const struct conf_listen *listen,
                struct binding *binding, uint64_t retry_ms);

/** daemon_resume(listen, binding, opts): an earlier rediald may have handed over what it had on ${listen}: go on with that. Returns whether there was any. */
bool daemon_resume(const struct conf_listen *listen, struct binding *binding,
                   const struct binder_opts *opts);

/** daemon_change_listen(d, proxy, listen): it stays, but ${proxy} may want other options of it. */
void daemon_change_listen(const struct daemon *d, const struct conf_proxy *proxy,
                          struct daemon_listen *listen);

/** daemon_binder_opts(d, proxy): how the sockets of ${proxy} are made. */
struct binder_opts daemon_binder_opts(const struct daemon *d, const struct conf_proxy *proxy);

/**
 * daemon_listens_open(d, conf, retry_ms, listens):
 * The sockets of ${conf} for every worker: those that ${d->listens} has of them, and new ones. Returns as daemon_bind(); then ${listens} is empty, and everything
 * is as it was.
 */
int daemon_listens_open(struct daemon *d, const struct conf *conf, uint64_t retry_ms,
                        struct daemon_listens *listens);

/** daemon_listens_undo(listens): close those that are new, in a moment when no worker has them. */
void daemon_listens_undo(struct daemon_listens *listens);

/** daemon_listens_succeed(d, listens): ${*listens}, which is emptied, becomes ${d->listens}, once every worker has gone over: what is not kept is removed. */
void daemon_listens_succeed(struct daemon *d, struct daemon_listens *listens);

/** daemon_listens_close(d): the workers have closed the sockets of ${d->listens}, or there are none: remove the UNIX paths, unless they are to be left to another rediald. */
void daemon_listens_close(struct daemon *d);

/** daemon_listens_keep(listens): have the service manager keep those that are new. */
void daemon_listens_keep(const struct daemon_listens *listens);

/** daemon_listens_hand_over(listens, h): add them to ${h}. Returns 0, or -1 with errno set. */
int daemon_listens_hand_over(const struct daemon_listens *listens, struct handover *h);

/** daemon_make_sets(d, generation, listens, sets): one for each worker, into ${sets}. Returns 0, or -1 with errno set and none made. */
int daemon_make_sets(struct daemon *d, struct generation *generation,
                     const struct daemon_listens *listens, struct worker_set **sets);

/** daemon_reload(d): a reload was asked for. */
void daemon_reload(struct daemon *d);

/** daemon_reload_asked(d, later): the same, by the admin interface: who asked is told how it went. */
void daemon_reload_asked(struct daemon *d, struct admin_later *later);

/** daemon_reload_pass_on(d, pid): process ${pid} has taken our place: a reload that was asked for is its to do. */
void daemon_reload_pass_on(struct daemon *d, pid_t pid);

/** daemon_reload_done(d): every worker has gone over. */
void daemon_reload_done(struct daemon *d);

/** daemon_upgrade(d): run the program anew, and give way to it once it is ready. */
void daemon_upgrade(struct daemon *d);

/** daemon_take_office(d): we serve: be the service's process, as soon as an earlier rediald that has started us has given way. */
void daemon_take_office(struct daemon *d);

/** daemon_upgrade_cancel(d): we end: a program that is being started ends with us. */
void daemon_upgrade_cancel(struct daemon *d);

/** daemon_upgrade_is_under_way(d): is a program started that is not ready yet? */
bool daemon_upgrade_is_under_way(const struct daemon *d);

/** daemon_drain(d): the end begins: no new clients. */
void daemon_drain(struct daemon *d);

/** daemon_leaves_sockets(d): does somebody else go on with our sockets when we end? */
bool daemon_leaves_sockets(const struct daemon *d);

/** daemon_reload_cancel(d): we end, and the workers have. */
void daemon_reload_cancel(struct daemon *d);

/** daemon_end(d): what the first SIGTERM does; later it does nothing. */
void daemon_end(struct daemon *d);

/**
 * daemon_admins_open(d, conf, admins):
 * Listen on the admin addresses of ${conf}: those that ${d->admins} has, too, are kept. Returns an exit status, the reason told; then ${admins} is empty. That the
 * default's socket cannot be made is told, and no reason to fail.
 */
int daemon_admins_open(struct daemon *d, const struct conf *conf, struct daemon_admins *admins);

/** daemon_admins_attach(d, admins): serve those that are new from the main loop. Returns 0, or -1 with errno set: undo it then. */
int daemon_admins_attach(struct daemon *d, struct daemon_admins *admins);

/** daemon_admins_undo(admins): close those that are new. */
void daemon_admins_undo(struct daemon_admins *admins);

/** daemon_admins_succeed(d, admins): ${*admins}, which is emptied, becomes ${d->admins}: what is not kept is closed. */
void daemon_admins_succeed(struct daemon *d, struct daemon_admins *admins);

/** daemon_admins_hand_over(admins, h): add them to ${h}. Returns 0, or -1 with errno set. */
int daemon_admins_hand_over(const struct daemon_admins *admins, struct handover *h);

/** daemon_admins_leave(d): the next rediald has the sockets, and answers from now on. */
void daemon_admins_leave(struct daemon *d);

/** daemon_admins_close(d): close all of it, whatever there is. */
void daemon_admins_close(struct daemon *d);

/** daemon_census_init(d): nobody asks. daemon_census_asked(d, later): list all sessions, and answer. */
void daemon_census_init(struct daemon *d);
void daemon_census_asked(struct daemon *d, struct admin_later *later);

/** daemon_census_on_news(d): some worker has told news: answer if it was the last to list its sessions. daemon_census_fini(d): nobody is answered any more. */
void daemon_census_on_news(struct daemon *d);
void daemon_census_fini(struct daemon *d);

/** daemon_health_init(d): nobody asks. daemon_health_asked(d, later): ask the workers whether their loops turn, and answer. */
void daemon_health_init(struct daemon *d);
void daemon_health_asked(struct daemon *d, struct admin_later *later);

/** daemon_health_on_news(d): some worker has told news: answer if that is what was waited for. daemon_health_fini(d): nobody is answered any more. */
void daemon_health_on_news(struct daemon *d);
void daemon_health_fini(struct daemon *d);

/** daemon_report(d): what there is to tell of it at this moment; borrows what ${d} has. Cannot fail. */
struct report daemon_report(const struct daemon *d);

/** daemon_wall_ms(): the time of the wall clock. Cannot fail. */
uint64_t daemon_wall_ms(void);

/* What the admin interface answers; the argument is the daemon. */
extern const struct admin_ops daemon_answers;

#endif
