/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_NAMEWATCH_H
#define REDIAL_NAMEWATCH_H

struct addrlist;
struct conf_server;
struct conf_upstream;
struct ev_loop;
struct namewatch;
struct resolver;

/*
 * The addresses behind the name of one server, kept fresh: looked up at the start, when the TTL, within resolve_min and resolve_max, has ended, and when a dial has
 * failed; never two lookups within a second, nor two at a time. A lookup that fails takes no addresses away, and is made again after a pause that doubles from
 * resolve_min to resolve_max. What has changed is logged, once for the process: one worker has the watch.
 */
struct namewatch_opts {
    struct resolver *resolver;            /* borrowed */
    const struct conf_server *server;     /* borrowed; it has a host */
    const struct conf_upstream *upstream; /* borrowed */
    /* The addresses are others now; the list is borrowed. Returns -1 when they could not be taken in: they will be told of again. */
    int (*on_addrs)(void *arg, struct addrlist *addrs);
    /* Called once: the first lookup has ended, or has taken connect_timeout. on_addrs() came before, if anything was found. */
    void (*on_settled)(void *arg);
    void *arg;
};

/** namewatch_new(loop, opts): looks nothing up yet. Returns a new watch for namewatch_free(), or NULL with errno ENOMEM. */
struct namewatch *namewatch_new(struct ev_loop *loop, const struct namewatch_opts *opts)
    __attribute__((warn_unused_result));

/** namewatch_free(watch): NULL is fine. */
void namewatch_free(struct namewatch *watch);

/** namewatch_set_opts(watch, opts): go on for somebody else, with what was found so far. The name, and the loop, are the same. */
void namewatch_set_opts(struct namewatch *watch, const struct namewatch_opts *opts);

/** namewatch_begin(watch): look the name up for the first time. */
void namewatch_begin(struct namewatch *watch);

/** namewatch_hurry(watch): a dial has failed: look it up again, as soon as a second has passed since the last time. */
void namewatch_hurry(struct namewatch *watch);

#endif
