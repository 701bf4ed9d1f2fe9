/* SPDX-License-Identifier: MIT */
#include "redialctl_internal.h"

#include "monotonic.h"

#include <string.h>

#define PAUSE_MS    100
#define PATIENCE_MS 1000

/* What the last question came to. */
struct readiness {
    int status;
    struct remote_reply reply; /* but when nobody was reached */
};

static struct readiness
ask(struct remote *remote, long timeout_ms)
{
    struct readiness r = {.status = CTL_UNREACHABLE};

    if (remote_ask(remote, "GET", "/readyz", timeout_ms, &r.reply) != 0)
        return r;
    r.status = r.reply.status == 200 ? CTL_OK : CTL_NO;
    return r;
}

/* The last question, too, is given time for an answer. */
static long
timeout_until(uint64_t end, uint64_t now)
{
    uint64_t left = end > now ? end - now : 0;

    if (left < PATIENCE_MS)
        return PATIENCE_MS;
    return left < (uint64_t)REMOTE_TIMEOUT_MS ? (long)left : REMOTE_TIMEOUT_MS;
}

static void
tell(const struct remote *remote, struct readiness *r)
{
    char *rest = r->reply.body, *line;

    if (r->status == CTL_OK) {
        puts("ready");
        return;
    }
    if (r->status == CTL_UNREACHABLE) {
        ctl_say("%s", remote_why(remote));
        return;
    }
    if (r->reply.status != 503)
        ctl_say("rediald at %s answers %ld to GET /readyz", remote_address(remote),
                r->reply.status);
    while ((line = strsep(&rest, "\n")))
        if (*line != '\0')
            ctl_say("not ready: %s", line);
}

int
ctl_ready(const struct ctl_options *o)
{
    struct remote *remote = remote_open(o->socket);
    uint64_t now = monotonic_ms(), end = now + o->wait_ms;
    struct readiness r;

    for (;;) {
        r = ask(remote, o->wait_ms > 0 ? timeout_until(end, now) : REMOTE_TIMEOUT_MS);
        now = monotonic_ms();
        if (r.status == CTL_OK || now >= end)
            break;
        remote_reply_free(&r.reply);
        ctl_sleep(end - now < PAUSE_MS ? end - now : PAUSE_MS);
        now = monotonic_ms();
    }
    tell(remote, &r);
    remote_reply_free(&r.reply);
    remote_close(remote);
    return r.status;
}
