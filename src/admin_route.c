/* SPDX-License-Identifier: MIT */
#include "admin_internal.h"

#include <string.h>

static int
hex_value(char c)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *digit = c != '\0' ? strchr(digits, c) : NULL;

    return digit ? (int)((digit - digits) % 16) : -1;
}

/* Reads a name up to the next slash, and steps over that. False: it is empty, too long, or escaped wrongly. */
static bool
read_name(const char **path, char name[ADMIN_NAME_MAX + 1])
{
    const char *p = *path;
    size_t n = 0;

    for (; *p != '/' && *p != '\0' && n < ADMIN_NAME_MAX; p++) {
        int high, low;

        name[n] = *p;
        if (*p == '%') {
            high = hex_value(p[1]);
            low = high >= 0 ? hex_value(p[2]) : -1;
            if (low < 0 || high * 16 + low == 0)
                return false;
            name[n] = (char)(high * 16 + low);
            p += 2;
        }
        n++;
    }
    name[n] = '\0';
    *path = p + 1;
    return *p == '/' && n > 0;
}

/* UPSTREAM/SERVER/enable, say. */
static enum admin_route
parse_change(struct admin_target *t, const char *path)
{
    if (!read_name(&path, t->upstream) || !read_name(&path, t->server))
        return ROUTE_NONE;
    if (strcmp(path, "enable") == 0)
        return ROUTE_ENABLE;
    return strcmp(path, "disable") == 0 ? ROUTE_DISABLE : ROUTE_NONE;
}

void
admin_route_parse(struct admin_target *t, const char *path)
{
    static const char servers[] = "/servers/";
    static const char *const paths[ROUTE_COUNT] = {
        [ROUTE_PAGE] = "/",         [ROUTE_HEALTH] = "/healthz",  [ROUTE_READY] = "/readyz",
        [ROUTE_STATUS] = "/status", [ROUTE_METRICS] = "/metrics", [ROUTE_SESSIONS] = "/sessions",
        [ROUTE_RELOAD] = "/reload", [ROUTE_DRAIN] = "/drain",
    };

    t->route = ROUTE_NONE;
    if (strncmp(path, servers, strlen(servers)) == 0)
        t->route = parse_change(t, path + strlen(servers));
    for (enum admin_route r = ROUTE_NONE; r < ROUTE_COUNT; r++) {
        if (paths[r] && strcmp(path, paths[r]) == 0)
            t->route = r;
    }
}
