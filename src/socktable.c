/* SPDX-License-Identifier: MIT */
#include "socktable.h"

#include <ctype.h>
#include <dirent.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * An address is printed as its 32-bit words in the host's byte order, eight hex digits each; the
 * port as a number of four.
 */
static bool
parse_endpoint(const char *host, const char *port, int family, struct addr *a)
{
    uint32_t words[4];
    size_t n = family == AF_INET ? 1 : 4;

    if (strlen(host) != n * 8 || strlen(port) != 4)
        return false;
    for (size_t i = 0; i < n; i++) {
        char hex[9] = "";

        memcpy(hex, host + i * 8, 8);
        words[i] = (uint32_t)strtoul(hex, NULL, 16);
    }
    memset(a, 0, sizeof(*a));
    a->sa.sa_family = (sa_family_t)family;
    if (family == AF_INET) {
        a->len = sizeof(a->in);
        memcpy(&a->in.sin_addr, words, sizeof(a->in.sin_addr));
    } else {
        a->len = sizeof(a->in6);
        memcpy(&a->in6.sin6_addr, words, sizeof(a->in6.sin6_addr));
    }
    addr_set_port(a, (uint16_t)strtoul(port, NULL, 16));
    return true;
}

bool
socktable_parse(const char *line, int family, struct socktable_entry *entry)
{
#define HEX "[0-9A-Fa-f]"
    /* sl, local, remote, st, queues, timer, retrnsmt, uid, timeout, inode */
    static const char form[] = " %*u: %32" HEX ":%4" HEX " %32" HEX ":%4" HEX " %2" HEX " %*" HEX
                               ":%*" HEX " %*" HEX ":%*" HEX " %*" HEX " %u %*d %lu";
#undef HEX
    char local[33], local_port[5], remote[33], remote_port[5], state[3];

    if (family != AF_INET && family != AF_INET6)
        return false;
    if (sscanf(line, form, local, local_port, remote, remote_port, state, &entry->uid,
               &entry->inode) != 7)
        return false;
    entry->state = (unsigned)strtoul(state, NULL, 16);
    return parse_endpoint(local, local_port, family, &entry->local) &&
           parse_endpoint(remote, remote_port, family, &entry->remote);
}

bool
socktable_is_self_connected(const struct socktable_entry *entry)
{
    return entry->state != TCP_CLOSE && entry->state != TCP_LISTEN &&
           addr_equal(&entry->local, &entry->remote);
}

static bool
is_ipv6_wildcard(const struct addr *a)
{
    return a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr);
}

enum socktable_holder
socktable_classify(const struct socktable_entry *entry, const struct addr *listen)
{
    struct addr local = entry->local, own = *listen;

    if (entry->state == TCP_CLOSE)
        return SOCKTABLE_NOBODY;
    /* The table tells neither scopes nor V6ONLY; a listener on :: is dual unless it asks not to be.
     */
    if (own.sa.sa_family == AF_INET6)
        own.in6.sin6_scope_id = 0;
    local.dual = entry->state == TCP_LISTEN && is_ipv6_wildcard(&local);
    if (!addr_overlap(&local, &own))
        return SOCKTABLE_NOBODY;
    if (entry->state == TCP_LISTEN)
        return SOCKTABLE_LISTENER;
    if (entry->state == TCP_TIME_WAIT)
        return SOCKTABLE_TIME_WAIT;
    return addr_equal(&entry->local, &entry->remote) ? SOCKTABLE_SELF_CONNECTED
                                                     : SOCKTABLE_OUTGOING;
}

/* Might the listener be V6ONLY and then not stand in the way at all? */
static bool
is_doubtful(const struct socktable_entry *entry, const struct addr *listen)
{
    struct addr own = addr_unmap(listen);

    return entry->state == TCP_LISTEN && own.sa.sa_family == AF_INET &&
           is_ipv6_wildcard(&entry->local);
}

/* What was found so far; the lowest rank stands. */
struct search {
    const struct addr *listen;
    struct socktable_entry entry;
    enum socktable_holder holder;
    int rank;
};

static void
search_one(void *arg, const struct socktable_entry *entry)
{
    struct search *s = arg;
    enum socktable_holder holder = socktable_classify(entry, s->listen);
    int rank;

    if (holder == SOCKTABLE_NOBODY)
        return;
    rank = is_doubtful(entry, s->listen) ? SOCKTABLE_TIME_WAIT + 1 : (int)holder;
    if (s->holder == SOCKTABLE_NOBODY || rank < s->rank)
        *s = (struct search){s->listen, *entry, holder, rank};
}

static int
read_table(const char *path, int family,
           void (*visit)(void *arg, const struct socktable_entry *entry), void *arg)
{
    FILE *f = fopen(path, "re");
    struct socktable_entry entry;
    char *line = NULL;
    size_t size = 0;

    if (f == NULL)
        return -1;
    while (getline(&line, &size, f) > 0)
        if (socktable_parse(line, family, &entry))
            visit(arg, &entry);
    free(line);
    fclose(f);
    return 0;
}

int
socktable_each(void (*visit)(void *arg, const struct socktable_entry *entry), void *arg)
{
    int v4 = read_table("/proc/net/tcp", AF_INET, visit, arg);
    int v6 = read_table("/proc/net/tcp6", AF_INET6, visit, arg);

    return v4 == 0 || v6 == 0 ? 0 : -1;
}

/* Does process ${pid} have a descriptor whose link reads ${link}? */
static bool
process_has(const char *pid, const char *link)
{
    char path[64 + NAME_MAX], target[64];
    struct dirent *entry;
    bool found = false;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%s/fd", pid);
    dir = opendir(path);
    if (dir == NULL)
        return false; /* gone, or another user's */
    while (!found && (entry = readdir(dir)) != NULL) {
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

        if (n < 0)
            continue;
        target[n] = '\0';
        found = strcmp(target, link) == 0;
    }
    closedir(dir);
    return found;
}

static void
read_name(const char *pid, char *name, size_t size)
{
    char path[64 + NAME_MAX];
    FILE *f;

    snprintf(name, size, "?");
    snprintf(path, sizeof(path), "/proc/%s/comm", pid);
    f = fopen(path, "re");
    if (f == NULL)
        return;
    if (fgets(name, (int)size, f) != NULL)
        name[strcspn(name, "\n")] = '\0';
    fclose(f);
    for (; *name != '\0'; name++)
        if (*name < ' ' || *name > '~')
            *name = '?';
}

bool
socktable_owner(unsigned long inode, struct socktable_owner *owner)
{
    struct dirent *entry;
    bool found = false;
    char link[64];
    DIR *dir;

    if (inode == 0)
        return false;
    snprintf(link, sizeof(link), "socket:[%lu]", inode);
    dir = opendir("/proc");
    if (dir == NULL)
        return false;
    while (!found && (entry = readdir(dir)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0]) || !process_has(entry->d_name, link))
            continue;
        owner->pid = strtoul(entry->d_name, NULL, 10);
        read_name(entry->d_name, owner->name, sizeof(owner->name));
        found = true;
    }
    closedir(dir);
    return found;
}

/* Writes ` of pid N (NAME)' to ${buf}, or nothing when no process is found. */
static void
describe_process(unsigned long inode, char *buf, size_t size)
{
    struct socktable_owner owner;

    buf[0] = '\0';
    if (socktable_owner(inode, &owner))
        snprintf(buf, size, " of pid %lu (%s)", owner.pid, owner.name);
}

static void
describe(const struct search *s, char *who, size_t size)
{
    struct addr remote = addr_unmap(&s->entry.remote);
    char process[128], to[ADDR_STR_MAX];

    describe_process(s->entry.inode, process, sizeof(process));
    switch (s->holder) {
    case SOCKTABLE_NOBODY:
    case SOCKTABLE_BOUND:
        snprintf(who, size, "%s", "");
        break;
    case SOCKTABLE_LISTENER:
        snprintf(who, size, "held by a listener%s", process);
        break;
    case SOCKTABLE_SELF_CONNECTED:
        snprintf(who, size, "held by a self-connected socket%s", process);
        break;
    case SOCKTABLE_OUTGOING:
        snprintf(who, size, "held by a connection to %s%s", addr_str(&remote, to), process);
        break;
    case SOCKTABLE_TIME_WAIT:
        snprintf(who, size, "held by a connection in TIME_WAIT");
        break;
    }
}

enum socktable_holder
socktable_find(const struct addr *listen, char *who, size_t size)
{
    struct search s = {.listen = listen, .holder = SOCKTABLE_NOBODY};

    if (socktable_each(search_one, &s) != 0)
        s.holder = SOCKTABLE_NOBODY;
    describe(&s, who, size);
    return s.holder;
}
