/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include "route.h"

#include <stdlib.h>
#include <string.h>

/*
 * Loops: the nodes of a graph are the sections with servers. An edge leads from one to another when
 * a server of the first is an address on which a proxy of the second listens. It is certain when
 * that address is this host's. A cycle of certain edges is a fault; a server whose edge lies on a
 * cycle, but is not certain now, is marked for the dialer. A name may stand for any address: it has
 * an edge to each listener with its port, and none of them is certain.
 */

struct edge {
    struct conf_server *server;
    const struct conf_listener *listener; /* that it reaches */
    size_t to;
    bool is_certain;
};

struct graph {
    struct conf_load *ld;
    const struct conf_listeners *listeners;
    struct conf_section **nodes;
    size_t n_nodes;
    size_t *first; /* of node i: its edges are first[i] to first[i + 1] - 1 */
    struct edge *edges;
    size_t n_edges, max_edges;
};

static int
add_edge(struct graph *g, struct conf_server *server, const struct conf_listener *listener)
{
    struct edge *edges;

    if (g->n_edges == g->max_edges) {
        edges = reallocarray(g->edges, 2 * g->max_edges, sizeof(*edges));
        if (edges == NULL)
            return conf_no_memory(g->ld);
        g->edges = edges;
        g->max_edges *= 2;
    }
    g->edges[g->n_edges++] = (struct edge){server, listener, listener->proxy->target->node, false};
    return 0;
}

/* What a listener with ${server}'s port or path is compared with. */
static struct addr
address_of(const struct conf_server *server)
{
    struct addr any = {.len = sizeof(any.in), .in.sin_family = AF_INET};

    if (server->host == NULL)
        return server->addr;
    addr_set_port(&any, server->port);
    return any;
}

static int
add_edges(struct graph *g, struct conf_section *node)
{
    const struct conf_listeners *ls = g->listeners;

    for (size_t i = 0; i < node->upstream->n_servers; i++) {
        struct conf_server *server = &node->upstream->servers[i];
        struct addr addr = address_of(server);

        for (size_t j = conf_listeners_find(ls, &addr); conf_listeners_is_alike(ls, j, &addr); j++)
            if (ls->items[j].proxy->target != NULL &&
                (server->host != NULL || addr_covers(&ls->items[j].listen->addr, &addr)) &&
                add_edge(g, server, &ls->items[j]) != 0)
                return -1;
    }
    return 0;
}

/* The state of a walk over the graph. It keeps its own stack: chains of proxies may be long. */
struct walk {
    size_t *order; /* when a node was entered, from 1; 0: not yet */
    size_t *low;   /* the first entered node that it leads back to */
    size_t *next;  /* the edge to be followed next */
    size_t *open;  /* nodes that have no component yet, and how many */
    size_t n_open;
    size_t *path; /* from where the walk began to where it is */
    size_t depth;
    size_t *component; /* 0: none yet */
    size_t n_entered;
};

static size_t
min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void
enter_node(const struct graph *g, struct walk *w, size_t node)
{
    w->order[node] = w->low[node] = ++w->n_entered;
    w->next[node] = g->first[node];
    w->open[w->n_open++] = node;
    w->path[w->depth++] = node;
}

static void
leave_node(struct walk *w)
{
    size_t node = w->path[--w->depth], last;

    if (w->depth > 0)
        w->low[w->path[w->depth - 1]] = min(w->low[w->path[w->depth - 1]], w->low[node]);
    if (w->low[node] != w->order[node])
        return;
    do {
        last = w->open[--w->n_open];
        w->component[last] = w->order[node];
    } while (last != node);
}

/* Strongly connected components, by Tarjan: two nodes of one lead to each other. */
static void
find_components(const struct graph *g, struct walk *w)
{
    for (size_t root = 0; root < g->n_nodes; root++) {
        if (w->order[root] == 0)
            enter_node(g, w, root);
        while (w->depth > 0) {
            size_t node = w->path[w->depth - 1], to;

            if (w->next[node] == g->first[node + 1]) {
                leave_node(w);
                continue;
            }
            to = g->edges[w->next[node]++].to;
            if (w->order[to] == 0)
                enter_node(g, w, to);
            else if (w->component[to] == 0)
                w->low[node] = min(w->low[node], w->order[to]);
        }
    }
}

/* Mark the server of ${e}. */
static void
mark_server(const struct graph *g, const struct edge *e)
{
    struct conf_server *server = e->server;
    struct addr *loops;

    server->loop_if_local = true;
    if (server->host == NULL)
        return;
    loops = reallocarray(server->loops, server->n_loops + 1, sizeof(*loops));
    if (loops == NULL) {
        conf_no_memory(g->ld);
        return;
    }
    server->loops = loops;
    server->loops[server->n_loops++] = e->listener->listen->addr;
}

bool
conf_server_may_loop(const struct conf_server *server, const struct addr *addr)
{
    if (server->host == NULL)
        return server->loop_if_local;
    for (size_t i = 0; i < server->n_loops; i++) {
        if (addr_covers(&server->loops[i], addr))
            return true;
    }
    return false;
}

/* Of the edges that lie on a cycle: which are certain now, which are the dialer's to watch? */
static void
mark_edges(const struct graph *g, const struct walk *w)
{
    for (size_t node = 0; node < g->n_nodes; node++) {
        for (size_t i = g->first[node]; i < g->first[node + 1]; i++) {
            struct edge *e = &g->edges[i];

            if (w->component[node] != w->component[e->to])
                continue;
            e->is_certain = addr_is_unix(&e->server->addr) || route_is_local(&e->server->addr);
            if (!e->is_certain)
                mark_server(g, e);
        }
    }
}

/* Longer chains are told in part. */
#define CHAIN_MAX 8

/* ${last} closes a cycle with the path from ${start} on. Nodes were left over next[node] - 1. */
static void
tell_cycle(const struct graph *g, const struct walk *w, size_t start, const struct edge *last)
{
    const struct conf_section *from = g->nodes[w->path[w->depth - 1]];
    struct conf_place at = {last->server->file, last->server->line, from, "server"};
    const struct edge *in = last;
    char chain[CONF_WHY_MAX] = "";

    for (size_t i = start; i < w->depth; i++) {
        const struct conf_section *node = g->nodes[w->path[i]];

        if (i - start < CHAIN_MAX) {
            conf_append(chain, sizeof(chain), "proxy %s -> ", in->listener->proxy->name);
            if (node != in->listener->proxy)
                conf_append(chain, sizeof(chain), "upstream %s -> ", node->name);
        } else if (i - start == CHAIN_MAX) {
            conf_append(chain, sizeof(chain), "... -> ");
        }
        in = &g->edges[w->next[w->path[i]] - 1];
    }
    conf_append(chain, sizeof(chain), "proxy %s", last->listener->proxy->name);
    conf_error(g->ld, &at,
               "'%s' leads back to this daemon in a loop: %s; a server outside of it is allowed",
               last->server->text, chain);
}

/* Walk along certain edges: one to a node of the walk's own path closes a cycle. */
static void
find_cycles(const struct graph *g, struct walk *w)
{
    size_t *position = w->low; /* on the path, from 1; 0: not on it */

    for (size_t root = 0; root < g->n_nodes; root++) {
        if (w->order[root] == 0) {
            enter_node(g, w, root);
            position[root] = w->depth;
        }
        while (w->depth > 0) {
            size_t node = w->path[w->depth - 1];
            const struct edge *e;

            if (w->next[node] == g->first[node + 1]) {
                position[node] = 0;
                w->depth--;
                continue;
            }
            e = &g->edges[w->next[node]++];
            if (!e->is_certain)
                continue;
            if (w->order[e->to] == 0) {
                enter_node(g, w, e->to);
                position[e->to] = w->depth;
            } else if (position[e->to] != 0) {
                tell_cycle(g, w, position[e->to] - 1, e);
            }
        }
    }
}

static void
walk_graph(const struct graph *g)
{
    size_t n = g->n_nodes, *room = calloc(6 * n + 1, sizeof(*room));
    struct walk w = {.n_open = 0};

    if (room == NULL) {
        conf_no_memory(g->ld);
        return;
    }
    w.order = room;
    w.low = room + n;
    w.next = room + 2 * n;
    w.open = room + 3 * n;
    w.path = room + 4 * n;
    w.component = room + 5 * n;
    find_components(g, &w);
    mark_edges(g, &w);
    memset(room, 0, 6 * n * sizeof(*room));
    w.n_open = w.depth = w.n_entered = 0;
    find_cycles(g, &w);
    free(room);
}

/* The sections with servers, and what they lead to. */
static int
build_graph(struct graph *g)
{
    struct conf_section *s;
    size_t n = 0;

    TAILQ_FOREACH(s, &g->ld->sections, next)
        n++;
    g->nodes = calloc(n + 1, sizeof(struct conf_section *));
    g->first = calloc(n + 1, sizeof(*g->first));
    g->max_edges = n + 1;
    g->edges = calloc(g->max_edges, sizeof(*g->edges));
    if (g->nodes == NULL || g->first == NULL || g->edges == NULL)
        return conf_no_memory(g->ld);
    TAILQ_FOREACH(s, &g->ld->sections, next) {
        if (s->kind == CONF_UPSTREAM || s->target == s) {
            s->node = g->n_nodes;
            g->nodes[g->n_nodes++] = s;
        }
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        g->first[i] = g->n_edges;
        if (add_edges(g, g->nodes[i]) != 0)
            return -1;
    }
    g->first[g->n_nodes] = g->n_edges;
    return 0;
}

void
conf_loop_check(struct conf_load *ld, const struct conf_listeners *listeners)
{
    struct graph g = {.ld = ld, .listeners = listeners};

    if (build_graph(&g) == 0)
        walk_graph(&g);
    free(g.nodes);
    free(g.first);
    free(g.edges);
}
