/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_CONF_H
#define REDIAL_CONF_H

#include "addr.h"
#include "balance.h"
#include "cidr.h"
#include "log.h"
#include "proxyproto.h"

#include <stdio.h>
#include <sys/types.h>

/*
 * The configuration: immutable once loaded, apart from every runtime struct. Times are in milliseconds, 0 meaning none;
 * limits are counts, 0 meaning none. It is described by one table of options (conf_options.c), which drives the parser, conf_dump() and the tests
 * that hold conf/rediald.conf to it.
 */
enum conf_access_log { ACCESS_LOG_ALL, ACCESS_LOG_ERRORS, ACCESS_LOG_OFF };
enum conf_range_check { RANGE_CHECK_WARN, RANGE_CHECK_ERROR, RANGE_CHECK_OFF };
enum conf_splice { SPLICE_AUTO, SPLICE_OFF };
/* A count that is `auto'. */
#define CONF_AUTO UINT32_MAX

enum conf_when_down { WHEN_DOWN_WAIT, WHEN_DOWN_RESET, WHEN_DOWN_UNLISTEN };

struct conf_daemon {
    enum log_level log_level;
    enum log_format log_format;
    enum conf_access_log access_log;
    enum conf_range_check port_range_check;
    enum conf_splice splice;
    unsigned workers; /* CONF_AUTO: as many as there are usable CPUs */
    uint64_t lame_duck_ms;
    uint64_t drain_timeout_ms;
    uint64_t bind_retry_ms;
    char *user;  /* NULL: stay who we are */
    char *group; /* NULL: the user's own */
    struct conf_listen *admins;
    size_t n_admins;
    bool is_admin_given,
        is_admin_off; /* as written; not given: the admins are those of the default */
};

/* Socket options of one side of a session. */
struct conf_sockopts {
    bool nodelay;
    uint64_t keepalive_ms;
    uint64_t user_timeout_ms;
};

struct conf_listen {
    struct addr
        addr; /* no address: a socket of the service manager's that was not passed, or is none to listen on */
    char *text; /* as written */
    /*
     * NULL, or the NAME of `systemd:NAME', part of ${text}. Each socket that was passed by that name is a listener of its own, with the same text;
     * or there is one with ${fd} -1.
     */
    const char *fd_name;
    int fd;
    const char *file;
    unsigned line;
};

struct conf_server {
    char *name;       /* the address as written, unless name= gives another */
    struct addr addr; /* none when it has a host */
    char *host;       /* its name, when that is to be looked up; else NULL */
    uint16_t port;    /* beside host */
    char *text;       /* the address as written */
    unsigned weight;  /* 1-256 */
    bool backup;
    unsigned max_sessions;
    /*
     * A listener of this daemon has this port, and serving it would lead back to this upstream, perhaps over
     * further servers marked like it; the address was not one of this host when the file was read. The dialer
     * looks again at each dial.
     */
    bool loop_if_local;
    struct addr *
        loops; /* beside host: the addresses of such listeners, as not all may take what comes to the host's */
    size_t n_loops;
    const char *file;
    unsigned line;
};

struct conf_upstream {
    char *name;    /* that of the section: an [upstream], or the [proxy] with servers of its own */
    bool in_proxy; /* it is such a [proxy] */
    size_t index;  /* in the configuration's upstreams */
    struct conf_server *servers;
    size_t n_servers;
    enum balance_policy balance;
    enum conf_when_down when_down;
    uint64_t connect_timeout_ms;
    uint64_t backoff_min_ms, backoff_max_ms, backoff_waiting_ms;
    uint64_t wait_timeout_ms;
    unsigned max_waiting;
    unsigned standby; /* as written: CONF_AUTO, or how many for each server; ask conf_standby() */
    uint64_t standby_max_age_ms;
    struct addr source; /* no address: the kernel picks */
    uint64_t resolve_min_ms, resolve_max_ms;
    enum proxyproto_version send_proxy;
    struct conf_sockopts sockopts; /* the servers' side */
};

struct conf_proxy {
    char *name;
    struct conf_listen *listens;
    size_t n_listens;
    struct conf_upstream *upstream;
    bool accept_proxy;
    struct cidr_table access; /* which clients of TCP listeners are served */
    unsigned max_sessions;
    uint64_t idle_timeout_ms, half_close_timeout_ms;
    unsigned backlog;
    mode_t unix_mode;
    char *unix_user, *unix_group;  /* NULL: as the process */
    struct conf_sockopts sockopts; /* the clients' side */
};

struct conf {
    struct conf_daemon daemon;
    struct conf_proxy *proxies; /* in the order of the files */
    size_t n_proxies;
    struct conf_upstream **upstreams; /* those inside proxies first, then the sections */
    size_t n_upstreams;
    char **files; /* names that conf_listen.file and conf_server.file borrow */
    size_t n_files;
};

/**
 * conf_load(paths, n, errors):
 * Read the files ${paths}; a directory stands for its *.conf in the order of their names. The whole is checked: references, overlapping
 * listeners, cycles of proxies, user and group names.
 *
 * Every fault found is printed to ${errors}, one a line, as `file:line: [section] key: what is wrong; what is allowed'.
 * Returns a new configuration, for conf_free(); or NULL after at least one fault was printed.
 */
struct conf *conf_load(const char *const *paths, size_t n, FILE *errors)
    __attribute__((warn_unused_result));

/**
 * conf_load_simple(listen, servers, n, errors):
 * The same for one proxy named `default' with the listen address ${listen} and ${n} servers, as on the command line. Returns as conf_load(); places are told as
 * `command line'.
 */
struct conf *conf_load_simple(const char *listen, const char *const *servers, size_t n,
                              FILE *errors) __attribute__((warn_unused_result));

/** conf_standby(upstream): how many standby connections each server is to have. Cannot fail. */
unsigned conf_standby(const struct conf_upstream *upstream);

/** conf_free(conf): NULL is fine. */
void conf_free(struct conf *conf);

/**
 * conf_proxy_equal(a, b), conf_upstream_equal(a, b):
 * Do the two mean the same, though they be of two configurations? A proxy's upstream counts by its name alone. Memory that runs out makes them differ.
 */
bool conf_proxy_equal(const struct conf_proxy *a, const struct conf_proxy *b);
bool conf_upstream_equal(const struct conf_upstream *a, const struct conf_upstream *b);

/** conf_listen_equal(a, b): is it the same address, or the same socket of the service manager's? */
bool conf_listen_equal(const struct conf_listen *a, const struct conf_listen *b);

/** conf_server_may_loop(server, addr): is loop_if_local true of ${addr}, an address of ${server}? */
bool conf_server_may_loop(const struct conf_server *server, const struct addr *addr);

/**
 * conf_dump(conf, out):
 * Write the effective configuration to ${out}, every option with its value, in the form that conf_load() reads: loading it again gives the same.
 */
void conf_dump(const struct conf *conf, FILE *out);

#endif
