/* SPDX-License-Identifier: MIT */
#include "redialctl_internal.h"

/* Of the last events. */
#define N_EVENTS 5

int
ctl_status(const struct ctl_options *o)
{
    struct remote *remote = remote_open(o->socket);
    json_t *before = NULL, *now = remote_doc(remote, "/status", REMOTE_TIMEOUT_MS);
    int status = CTL_UNREACHABLE;
    struct screen s;

    if (now && !o->json && o->interval_ms > 0) {
        before = now;
        ctl_sleep(o->interval_ms);
        now = remote_doc(remote, "/status", REMOTE_TIMEOUT_MS);
    }
    if (!now) {
        ctl_say("%s", remote_why(remote));
    } else if (o->json) {
        doc_print(now);
        status = CTL_OK;
    } else {
        screen_init(&s, stdout);
        picture_put(&s, now, before, N_EVENTS);
        status = CTL_OK;
    }
    json_decref(before);
    json_decref(now);
    remote_close(remote);
    return status;
}
