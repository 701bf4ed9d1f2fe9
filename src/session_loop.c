/* SPDX-License-Identifier: MIT */
/*
 * Dials of our own that come in at a proxy: see endpoints.h. The address that the client says it comes from is looked up first, which mostly ends it; where
 * that was bound for is asked of the kernel only then.
 */
#include "session_internal.h"

#include "conf.h"
#include "log.h"
#include "monotonic.h"
#include "process.h"
#include "sock.h"
#include "upstream.h"

static void
log_loop(struct session_host *host, const struct addr *client, const struct addr *dest,
         const struct trail *trail)
{
    const char *upstream =
        upstream_name_of(host->upstream, trail->last); /* NULL: gone by a reload */
    struct addr plain_client = addr_unmap(client), plain_dest = addr_unmap(dest);
    char from[ADDR_STR_MAX], to[ADDR_STR_MAX];
    uint64_t suppressed;

    if (!log_limit_pass(&host->loop_limit, monotonic_ms(), &suppressed))
        return;
    addr_str(&plain_client, from);
    addr_str(&plain_dest, to);
    log_event(LOG_WARNING, "loop",
              LOG_FIELDS(LOG_STR("proxy", host->conf->name), LOG_STR("client", from),
                         LOG_STR("upstream", upstream), LOG_STR("address", to),
                         LOG_UINT("hops", trail->hops), LOG_UINT("suppressed", suppressed)),
              "proxy %s: client %s is our own dial to %s, by upstream %s: a rule or a proxy sends "
              "it back in a circle; it was reset",
              host->conf->name, from, to, upstream ? upstream : "that is gone");
}

static enum arrival
arrive(struct session_host *host, const struct addr *client, const struct addr *dest,
       struct trail *trail)
{
    enum arrival arrival = endpoints_arrive(host->process->endpoints, client, dest,
                                            upstream_id(host->upstream), trail);

    if (arrival == ARRIVAL_LOOP)
        log_loop(host, client, dest, trail);
    return arrival;
}

enum arrival
session_arrive(struct session_host *host, int fd, const struct addr *client, struct trail *trail)
{
    enum arrival arrival = ARRIVAL_UNKNOWN;
    struct addr dest;

    if (!addr_is_inet(client) || !endpoints_has(host->process->endpoints, client))
        return ARRIVAL_UNKNOWN;
    if (sock_local(fd, &dest) == 0)
        arrival = arrive(host, client, &dest, trail);
    if (arrival == ARRIVAL_UNKNOWN && sock_dialled(fd, addr_unmap(client).sa.sa_family, &dest) == 0)
        arrival = arrive(host, client, &dest, trail);
    return arrival;
}

enum arrival
session_arrive_told(struct session_host *host, const struct addr *client, const struct addr *dest,
                    struct trail *trail)
{
    if (!addr_is_inet(client) || !addr_is_inet(dest))
        return ARRIVAL_UNKNOWN;
    return arrive(host, client, dest, trail);
}
