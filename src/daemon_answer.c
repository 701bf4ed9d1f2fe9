/* SPDX-License-Identifier: MIT */
#include "daemon_internal.h"

#include "admin.h"
#include "conf.h"
#include "generation.h"
#include "health.h"
#include "process.h"

/* Has some server of ${u}, whose configuration is ${conf}, a connection, as far as is known? */
static bool
is_up(const struct generation_upstream *u, const struct conf_upstream *conf)
{
    for (size_t i = 0; i < conf->n_servers; i++) {
        unsigned state = atomic_load_explicit(&u->servers[i]->state, memory_order_relaxed);

        if ((state & ~PROCESS_TAINTED) == HEALTH_UP)
            return true;
    }
    return false;
}

static bool
put_ready(void *arg, FILE *out)
{
    static const char *const endings[] = {
        [DAEMON_LAME] = "it ends soon: clients should go elsewhere\n",
        [DAEMON_DRAINING] = "it ends: no client is accepted any more\n",
        [DAEMON_CUTTING] = "it ends\n",
    };
    const struct daemon *d = arg;
    const struct conf *conf = d->generation->conf;
    bool is_ready = d->phase == DAEMON_SERVING;

    if (!is_ready)
        fputs(endings[d->phase], out);
    for (size_t i = 0; i < conf->n_proxies; i++) {
        const struct conf_upstream *upstream = conf->proxies[i].upstream;

        if (is_up(&d->generation->upstreams[upstream->index], upstream))
            continue;
        is_ready = false;
        fprintf(out, "proxy %s: no server of %s is up\n", conf->proxies[i].name,
                upstream->in_proxy ? "it" : upstream->name);
    }
    return is_ready;
}

static void
reload(void *arg, struct admin_later *later)
{
    daemon_reload_asked(arg, later);
}

static void
drain(void *arg)
{
    daemon_end(arg);
}

const struct admin_ops daemon_answers = {
    .put_ready = put_ready,
    .reload = reload,
    .drain = drain,
};
