/* SPDX-License-Identifier: MIT */
#include "redialctl_doctor.h"

#include "conf.h"
#include "redialctl_internal.h"
#include "route.h"
#include "sockdiag.h"
#include "socktable.h"

#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

/* Sockets that were looked at. */
struct sockets {
    struct socktable_entry *found; /* those that are connected to themselves */
    size_t n_found, n_all;
};

static void
note_socket(void *arg, const struct socktable_entry *entry)
{
    struct sockets *s = arg;

    s->n_all++;
    if (!socktable_is_self_connected(entry))
        return;
    s->found = reallocarray(s->found, s->n_found + 1, sizeof(*s->found));
    if (!s->found)
        ctl_out_of_memory();
    s->found[s->n_found++] = *entry;
}

static void
tell_self_connected(struct doctor *d, const struct socktable_entry *entry)
{
    struct socktable_owner owner;
    char addr[ADDR_STR_MAX];
    json_t *f;

    addr_str(&entry->local, addr);
    if (entry->state == TCP_TIME_WAIT) {
        f = doctor_found(d, "self_connected", RESULT_WARNING,
                         "%s is held by what is left of a socket that was connected to itself",
                         addr);
        finding_means(f, "It was closed normally, which keeps the port for up to 60 s. Its owner "
                         "dials a port of this host while nobody listens there.");
        finding_do(f, "Nothing: it passes. Reserve the port to keep it from happening again.");
        return;
    }
    if (socktable_owner(entry->inode, &owner)) {
        f = doctor_found(d, "self_connected", RESULT_PROBLEM,
                         "%s is connected to itself, by pid %lu (%s)", addr, owner.pid, owner.name);
        finding_do(f, "Have the process close it, or end it:");
        finding_command(f, "kill %lu", owner.pid);
    } else {
        f = doctor_found(d, "self_connected", RESULT_PROBLEM,
                         "%s is connected to itself, by a process of user %u that is out of sight",
                         addr, entry->uid);
        finding_do(f, "Run this as root, on the host, to see which process it is.");
    }
    finding_means(f,
                  "What is written to it comes back as if a server had said it, and no server "
                  "can listen on port %u meanwhile.",
                  addr_port(&entry->local));
}

void
check_self_connected(struct doctor *d)
{
    struct sockets s = {.n_all = 0};
    int rc = sockdiag_each(note_socket, &s);

    if (rc != 0) {
        s.n_all = s.n_found = 0;
        rc = socktable_each(note_socket, &s);
    }
    if (rc != 0) {
        json_t *f = doctor_found(d, "self_connected", RESULT_ADVICE,
                                 "the sockets of this host cannot be seen");
        finding_means(f, "Neither sock_diag nor /proc/net/tcp is there.");
    }
    for (size_t i = 0; i < s.n_found; i++)
        tell_self_connected(d, &s.found[i]);
    if (rc == 0 && s.n_found == 0)
        doctor_found(d, "self_connected", RESULT_OK,
                     "no TCP socket is connected to itself (of %zu)", s.n_all);
    free(s.found);
}

/* A configured TCP port. */
struct place {
    const char *kind, *name; /* of the section */
    const char *text;        /* as written */
    bool is_server;
    struct addr addr;
};

struct ports {
    struct doctor *d;
    size_t n_all, n_in_range, n_held;
};

static void
look_at_range(struct ports *p, const struct place *place)
{
    struct doctor *d = p->d;
    uint16_t port = addr_port(&place->addr);
    json_t *f;

    if (!portrange_has(&d->range, port) ||
        (place->is_server && !route_may_meet_itself(&place->addr, NULL)))
        return;
    p->n_in_range++;
    if (portrange_is_reserved(&d->range, port)) {
        doctor_found(d, "port_range", RESULT_OK,
                     "%s %s: port %u of %s is in the ephemeral range, but reserved", place->kind,
                     place->name, port, place->text);
        return;
    }
    f = doctor_found(d, "port_range", RESULT_WARNING,
                     "%s %s %s %s, whose port is in the ephemeral range %u-%u", place->kind,
                     place->name, place->is_server ? "has a server on this host," : "listens on",
                     place->text, d->range.low, d->range.high);
    if (place->is_server)
        finding_means(f, "While that server is down, a program that dials it may be given the same "
                         "port as its source: it talks to itself, and the server cannot start.");
    else
        finding_means(f, "An outgoing connection may be given this port while rediald does not "
                         "run, and then rediald cannot start.");
    finding_do(f, "Use a port outside the range, or reserve it as shown below.");
    portrange_reserve(&d->cured, port);
    d->cures = true;
}

/* The one to whom the port belongs, as the subject of a sentence. */
static const char *
user_of(const struct place *place)
{
    return place->is_server ? "the server" : "rediald";
}

static void
look_at_holder(struct ports *p, const struct place *place)
{
    char who[256];
    enum socktable_holder holder;
    json_t *f;

    holder = socktable_find(&place->addr, who, sizeof(who));
    if (holder != SOCKTABLE_SELF_CONNECTED && holder != SOCKTABLE_OUTGOING &&
        holder != SOCKTABLE_TIME_WAIT)
        return;
    p->n_held++;
    f = doctor_found(p->d, "port_held",
                     holder == SOCKTABLE_SELF_CONNECTED ? RESULT_PROBLEM
                     : holder == SOCKTABLE_OUTGOING     ? RESULT_WARNING
                                                        : RESULT_ADVICE,
                     "%s %s: nobody listens on %s, and the port is %s", place->kind, place->name,
                     place->text, who);
    if (holder == SOCKTABLE_TIME_WAIT) {
        finding_means(f, "For up to 60 s %s cannot listen there%s.", user_of(place),
                      place->is_server ? ", unless it sets SO_REUSEADDR" : "");
        finding_do(f, "Nothing: it passes.");
    } else {
        finding_means(f, "Until that is closed %s cannot listen there.", user_of(place));
        finding_do(f, "Have that process close it, or end it.");
    }
}

static void
look_at(struct ports *p, const struct place *place)
{
    p->n_all++;
    look_at_range(p, place);
    look_at_holder(p, place);
}

/* A name is looked up only when its port is one that an outgoing connection may get. */
static void
look_at_name(struct ports *p, struct place *place, const struct conf_server *server)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int err;

    if (!portrange_has(&p->d->range, server->port))
        return;
    err = getaddrinfo(server->host, NULL, &hints, &list);
    if (err != 0) {
        json_t *f = doctor_found(p->d, "port_range", RESULT_ADVICE,
                                 "upstream %s: %s cannot be looked up: %s", place->name,
                                 server->host, gai_strerror(err));
        finding_means(f,
                      "Port %u is in the ephemeral range, which matters if the name is one of "
                      "this host's.",
                      server->port);
        return;
    }
    for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
        addr_from_sockaddr(&place->addr, ai->ai_addr, ai->ai_addrlen);
        addr_set_port(&place->addr, server->port);
        /* One of its addresses is enough. */
        if (route_is_local(&place->addr)) {
            look_at(p, place);
            break;
        }
    }
    freeaddrinfo(list);
}

/* ${kind} and ${name} together name whose listeners these are. */
static void
look_at_listens(struct ports *p, const char *kind, const char *name,
                const struct conf_listen *listens, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct place place = {kind, name, listens[i].text, false, listens[i].addr};
        if (addr_is_inet(&listens[i].addr)) {
            look_at(p, &place);
        } else if (listens[i].fd_name) {
            json_t *f = doctor_found(p->d, "port_range", RESULT_ADVICE,
                                     "%s %s listens on %s, whose port is not known here", kind,
                                     name, listens[i].text);
            finding_do(f,
                       "Look at ListenStream= of the socket unit yourself: choose a port "
                       "outside %u-%u.",
                       p->d->range.low, p->d->range.high);
        }
    }
}

static void
look_at_listeners(struct ports *p)
{
    const struct conf *conf = p->d->conf;

    look_at_listens(p, "the", "admin interface", conf->daemon.admins, conf->daemon.n_admins);
    for (size_t i = 0; i < conf->n_proxies; i++)
        look_at_listens(p, "proxy", conf->proxies[i].name, conf->proxies[i].listens,
                        conf->proxies[i].n_listens);
}

static void
look_at_upstreams(struct ports *p)
{
    for (size_t i = 0; i < p->d->conf->n_upstreams; i++) {
        const struct conf_upstream *upstream = p->d->conf->upstreams[i];
        for (size_t k = 0; k < upstream->n_servers; k++) {
            const struct conf_server *server = &upstream->servers[k];
            struct place place = {"upstream", upstream->name, server->text, true, server->addr};
            if (server->host)
                look_at_name(p, &place, server);
            else if (addr_is_inet(&server->addr))
                look_at(p, &place);
        }
    }
}

void
check_ports(struct doctor *d)
{
    struct ports p = {.d = d};

    if (d->range.assumed) {
        json_t *f = doctor_found(d, "port_range", RESULT_ADVICE,
                                 "net.ipv4.ip_local_port_range cannot be read: %u-%u is assumed",
                                 d->range.low, d->range.high);
        finding_means(f, "What is said of ports below holds for that range.");
    }
    look_at_listeners(&p);
    look_at_upstreams(&p);
    if (p.n_in_range == 0)
        doctor_found(d, "port_range", RESULT_OK,
                     "no configured port is in the ephemeral range %u-%u (of %zu)", d->range.low,
                     d->range.high, p.n_all);
    if (p.n_held == 0)
        doctor_found(d, "port_held", RESULT_OK, "no outgoing connection holds a configured port");
}
