/* SPDX-License-Identifier: MIT */
#include "redialctl_internal.h"

#include <stdlib.h>
#include <string.h>

/* HTTP's word for a request that was understood and is wrong: a configuration. */
#define UNPROCESSABLE 422

static void
tell_errors(const struct remote *remote, const struct remote_reply *reply)
{
    json_t *doc = json_loadb(reply->body, reply->len, 0, NULL);
    const json_t *errors = doc_at(doc, "errors");

    for (size_t i = 0; i < json_array_size(errors); i++)
        ctl_say("%s", doc_text(json_array_get(errors, i), ""));
    if (json_array_size(errors) == 0)
        ctl_say("rediald at %s answers with status %ld and no reason", remote_address(remote),
                reply->status);
    json_decref(doc);
}

/* Asks for a change; ${done} is what to say when it is made. Returns an exit status. */
static int
change(struct remote *remote, const char *path, long timeout_ms, const char *done)
{
    struct remote_reply reply;
    int status = CTL_NO;

    if (remote_ask(remote, "POST", path, timeout_ms, &reply) != 0) {
        ctl_say("%s", remote_why(remote));
        return CTL_UNREACHABLE;
    }
    if (reply.status >= 200 && reply.status < 300) {
        puts(done);
        status = CTL_OK;
    } else {
        tell_errors(remote, &reply);
        if (reply.status == UNPROCESSABLE)
            status = CTL_CONFIG;
    }
    remote_reply_free(&reply);
    return status;
}

int
ctl_reload(const struct ctl_options *o)
{
    struct remote *remote = remote_open(o->socket);
    int status =
        change(remote, "/reload", REMOTE_RELOAD_TIMEOUT_MS, "the new configuration is in use");

    if (status == CTL_CONFIG)
        ctl_say("the new configuration was refused; nothing has changed");
    remote_close(remote);
    return status;
}

int
ctl_drain(const struct ctl_options *o)
{
    struct remote *remote = remote_open(o->socket);
    int status = change(remote, "/drain", REMOTE_TIMEOUT_MS,
                        "rediald is ending: sessions may go on for drain_timeout");

    remote_close(remote);
    return status;
}

/* ${o->target} is UPSTREAM/SERVER; a server may have slashes in its name. */
static int
change_server(const struct ctl_options *o, const char *verb, const char *effect)
{
    struct remote *remote = remote_open(o->socket);
    const char *slash = strchr(o->target, '/');
    char *name = strndup(o->target, (size_t)(slash - o->target)), *path, *done;

    if (!name)
        ctl_out_of_memory();
    char *upstream = remote_escape(remote, name), *server = remote_escape(remote, slash + 1);
    char *shown = screen_clean(o->target);
    if (!shown || asprintf(&path, "/servers/%s/%s/%s", upstream, server, verb) < 0 ||
        asprintf(&done, "%s is %s", shown, effect) < 0)
        ctl_out_of_memory();
    int status = change(remote, path, REMOTE_TIMEOUT_MS, done);
    free(name);
    free(upstream);
    free(server);
    free(shown);
    free(path);
    free(done);
    remote_close(remote);
    return status;
}

int
ctl_enable(const struct ctl_options *o)
{
    return change_server(o, "enable", "enabled");
}

int
ctl_disable(const struct ctl_options *o)
{
    if (o->kill)
        return change_server(o, "disable?kill=1", "disabled, its sessions are reset");
    return change_server(o, "disable", "disabled, its sessions may go on");
}
