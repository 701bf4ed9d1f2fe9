/* SPDX-License-Identifier: MIT */
#include "redialctl_doctor.h"

#include "conf.h"
#include "descriptors.h"
#include "pipepool.h"
#include "redialctl_internal.h"
#include "worker.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* A limit that leaves room for fewer sessions than this is hardly meant. */
#define FEW_SESSIONS 1000
/* What to propose then. */
#define MANY_DESCRIPTORS UINT64_C(65536)

/* Reads a number of /proc/sys; false when it is not there. */
static bool
read_sysctl(const char *path, uint64_t *value)
{
    FILE *f = fopen(path, "re");
    bool found;

    if (!f)
        return false;
    found = fscanf(f, "%" SCNu64, value) == 1;
    fclose(f);
    return found;
}

/* The limit that process ${pid} has. */
static bool
read_limit(unsigned long pid, uint64_t *limit)
{
    static const char heading[] = "Max open files";
    char path[64], line[256];
    bool found = false;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%lu/limits", pid);
    f = fopen(path, "re");
    if (!f)
        return false;
    while (!found && fgets(line, sizeof(line), f))
        found = strncmp(line, heading, strlen(heading)) == 0 &&
                sscanf(line + strlen(heading), "%" SCNu64, limit) == 1;
    fclose(f);
    return found;
}

/* The limit of the daemon that runs, or of one that would be started from here: it raises its own as far as it may. Writes whose it is to ${whose}. */
static uint64_t
descriptor_limit(const struct doctor *d, char *whose, size_t size)
{
    struct rlimit own = {.rlim_max = 1024};
    uint64_t limit;

    snprintf(whose, size, "rediald (pid %lu)", d->daemon_pid);
    if (d->daemon_pid != 0 && read_limit(d->daemon_pid, &limit))
        return limit;
    (void)getrlimit(RLIMIT_NOFILE, &own);
    snprintf(whose, size, "a rediald that is started from here");
    return own.rlim_max;
}

static void
raise_limit(json_t *finding, uint64_t needed)
{
    finding_do(finding, "Raise the limit: in a drop-in of systemd's, for a container, or in the "
                        "shell that starts it:");
    finding_command(finding, "systemctl edit rediald     # [Service] LimitNOFILE=%" PRIu64, needed);
    finding_command(finding, "docker run --ulimit nofile=%" PRIu64 ":%" PRIu64, needed, needed);
    finding_command(finding, "ulimit -Hn %" PRIu64, needed);
}

void
check_descriptors(struct doctor *d)
{
    struct descriptors_use use = {.conf = d->conf, .n_workers = d->n_workers};
    uint64_t wanted = 0, limit, needed;
    struct descriptors_share share;
    char whose[64];
    json_t *f;

    for (size_t i = 0; i < d->conf->n_proxies; i++) {
        use.n_bindings += d->conf->proxies[i].n_listens;
        wanted += d->conf->proxies[i].max_sessions;
    }
    limit = descriptor_limit(d, whose, sizeof(whose));
    share = descriptors_share(&use, limit);
    needed = descriptors_needed(&use, wanted);
    if (wanted > share.sessions || share.standby < share.standby_wanted) {
        f = doctor_found(d, "descriptors", RESULT_WARNING,
                         "%s may have %" PRIu64 " descriptors: room for %" PRIu64
                         " sessions and %" PRIu64 " standby connections, where max_sessions and "
                         "standby ask for %" PRIu64 " and %" PRIu64,
                         whose, limit, share.sessions, share.standby, wanted, share.standby_wanted);
        finding_means(f, "Beyond that no client is accepted; who comes waits in the backlog.");
        raise_limit(f, needed);
    } else if (wanted == 0 && share.sessions < FEW_SESSIONS) {
        f = doctor_found(d, "descriptors", RESULT_WARNING,
                         "%s may have %" PRIu64 " descriptors: room for %" PRIu64
                         " sessions at once, no more",
                         whose, limit, share.sessions);
        finding_means(f, "Beyond that no client is accepted; who comes waits in the backlog.");
        raise_limit(f, needed > MANY_DESCRIPTORS ? needed : MANY_DESCRIPTORS);
    } else {
        doctor_found(d, "descriptors", RESULT_OK,
                     "%s may have %" PRIu64 " descriptors, room for %" PRIu64 " sessions", whose,
                     limit, share.sessions);
    }
}

/* Does rediald open a socket of its own to listen for the proxy, with a backlog of its own? */
static bool
has_own_listener(const struct conf_proxy *proxy, bool tcp_only)
{
    for (size_t i = 0; i < proxy->n_listens; i++)
        if (!proxy->listens[i].fd_name && (!tcp_only || addr_is_inet(&proxy->listens[i].addr)))
            return true;
    return false;
}

void
check_backlog(struct doctor *d)
{
    uint64_t most, largest = 0;
    json_t *f = NULL;

    if (!read_sysctl("/proc/sys/net/core/somaxconn", &most))
        return;
    for (size_t i = 0; i < d->conf->n_proxies; i++) {
        const struct conf_proxy *proxy = &d->conf->proxies[i];
        if (!has_own_listener(proxy, false) || proxy->backlog <= most)
            continue;
        f = doctor_found(d, "backlog", RESULT_WARNING,
                         "proxy %s has a backlog of %u, which net.core.somaxconn cuts to %" PRIu64,
                         proxy->name, proxy->backlog, most);
        finding_means(f, "A burst of more clients than that waits for retransmissions, a second "
                         "and longer, before it is served.");
        if (proxy->backlog > largest)
            largest = proxy->backlog;
    }
    if (!f) {
        doctor_found(d, "backlog", RESULT_OK,
                     "every backlog fits into net.core.somaxconn, %" PRIu64, most);
        return;
    }
    finding_do(f, "Raise it, or write a smaller backlog:");
    finding_command(f, "sysctl -w net.core.somaxconn=%" PRIu64, largest);
}

/* The kernel counts the pages of all pipes of a user; only who has CAP_SYS_RESOURCE or CAP_SYS_ADMIN is exempt (pipe(7)). */
void
check_pipes(struct doctor *d)
{
    uint64_t largest = PIPE_SIZE, soft = 0, pages;

    if (d->conf->daemon.splice == SPLICE_OFF) {
        doctor_found(d, "pipes", RESULT_OK, "splice is off: no pipes are needed");
        return;
    }
    pages = (uint64_t)d->n_workers * WORKER_PIPES_MAX * PIPE_SIZE / (uint64_t)sysconf(_SC_PAGESIZE);
    (void)read_sysctl("/proc/sys/fs/pipe-max-size", &largest);
    (void)read_sysctl("/proc/sys/fs/pipe-user-pages-soft", &soft);
    if (largest < PIPE_SIZE) {
        json_t *f =
            doctor_found(d, "pipes", RESULT_WARNING,
                         "fs.pipe-max-size is %" PRIu64 ", but rediald asks for pipes of %zu",
                         largest, PIPE_SIZE);
        finding_means(f, "Without privileges its pipes stay at 64 kB: large transfers take more "
                         "system calls.");
        finding_do(f, "Raise it, or write splice = off:");
        finding_command(f, "sysctl -w fs.pipe-max-size=%zu", PIPE_SIZE);
    }
    if (soft > 0 && pages > soft) {
        json_t *f = doctor_found(d, "pipes", RESULT_WARNING,
                                 "%u workers may use %" PRIu64
                                 " pages in pipes, fs.pipe-user-pages-soft is %" PRIu64,
                                 d->n_workers, pages, soft);
        finding_means(f, "Without privileges its pipes have a page or two beyond that: large "
                         "transfers take many more system calls.");
        finding_do(f, "Raise it, use fewer workers, or write splice = off:");
        finding_command(f, "sysctl -w fs.pipe-user-pages-soft=%" PRIu64, pages);
    }
    if (largest >= PIPE_SIZE && (soft == 0 || pages <= soft))
        doctor_found(d, "pipes", RESULT_OK,
                     "pipes for splice fit into fs.pipe-max-size and fs.pipe-user-pages-soft");
}

void
check_migration(struct doctor *d)
{
    bool listens = false;
    uint64_t migrates;
    json_t *f;

    for (size_t i = 0; i < d->conf->n_proxies; i++)
        listens |= has_own_listener(&d->conf->proxies[i], true);
    if (!read_sysctl("/proc/sys/net/ipv4/tcp_migrate_req", &migrates))
        return; /* before Linux 5.14 */
    if (d->n_workers < 2 || !listens || migrates != 0) {
        doctor_found(d, "migration", RESULT_OK, "%s",
                     migrates != 0 ? "net.ipv4.tcp_migrate_req is on"
                                   : "no listening socket is shared: net.ipv4.tcp_migrate_req may "
                                     "be off");
        return;
    }
    f = doctor_found(d, "migration", RESULT_ADVICE,
                     "net.ipv4.tcp_migrate_req is off, and each of %u workers has a listening "
                     "socket of its own",
                     d->n_workers);
    finding_means(f, "When one of them is closed, clients that are in its backlog, or about to be, "
                     "are reset, though the others still listen.");
    finding_do(f, "Let the kernel hand them to another one:");
    finding_command(f, "sysctl -w net.ipv4.tcp_migrate_req=1");
}
