/* SPDX-License-Identifier: MIT */
#include "descriptors.h"

#include "admin.h"
#include "conf.h"
#include "resolver.h"
#include "worker.h"

/* A worker's loop, its pipes and its resolver. */
#define WORKER_FDS (8 + 2 * WORKER_PIPES_MAX + RESOLVER_FDS)

static uint64_t
smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What is neither a session's nor a standby connection's. */
static uint64_t
reserve_of(const struct descriptors_use *use, uint64_t *standby_wanted)
{
    /* A listener that is shared takes two. */
    uint64_t reserve = DESCRIPTORS_MIN + (uint64_t)WORKER_FDS * use->n_workers +
                       (2 * (uint64_t)use->n_workers + 1) * use->n_bindings +
                       ADMIN_FDS(use->conf->daemon.n_admins);

    *standby_wanted = 0;
    for (size_t i = 0; i < use->conf->n_upstreams; i++) {
        const struct conf_upstream *u = use->conf->upstreams[i];
        reserve += u->n_servers;
        *standby_wanted += (uint64_t)u->n_servers * conf_standby(u);
    }
    return reserve;
}

struct descriptors_share
descriptors_share(const struct descriptors_use *use, uint64_t limit)
{
    struct descriptors_share share;
    uint64_t reserve = reserve_of(use, &share.standby_wanted);
    uint64_t room = limit > reserve + 3 ? limit - reserve : 3;
    uint64_t standby = smaller(share.standby_wanted, room / 3);

    share.sessions = smaller((room - standby) / 2, UINT32_MAX / 2);
    share.standby = smaller(standby > 0 ? standby : 1, UINT32_MAX / 2);
    return share;
}

uint64_t
descriptors_needed(const struct descriptors_use *use, uint64_t sessions)
{
    uint64_t standby, reserve = reserve_of(use, &standby);
    uint64_t room = 2 * sessions + standby;

    /* A third of it. */
    return reserve + (room > 3 * standby ? room : 3 * standby);
}
