/* SPDX-License-Identifier: MIT */
#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* SD_LISTEN_FDS_START of sd_listen_fds(3). */
#define FIRST_FD  3
#define READY_ENV "REDIALD_READY_FD"

static int told_fd = -1;

static const char *
name_of(const char *kind, const struct addr *addr, char buf[HANDOVER_NAME_MAX])
{
    char text[ADDR_STR_MAX];
    int n = snprintf(buf, HANDOVER_NAME_MAX, "%s%s", kind, addr_str(addr, text));

    if (n < 0 || n >= HANDOVER_NAME_MAX)
        return NULL;
    for (char *c = buf; *c != '\0'; c++) {
        if (*c < ' ' || *c > '~' || *c == ';')
            return NULL;
        if (*c == ':') /* it separates names */
            *c = ';';
    }
    return buf;
}

const char *
handover_name(const struct addr *addr, char buf[HANDOVER_NAME_MAX])
{
    return name_of(HANDOVER_PREFIX, addr, buf);
}

const char *
handover_lock_name(const struct addr *addr, char buf[HANDOVER_NAME_MAX])
{
    return name_of(HANDOVER_PREFIX "lock/", addr, buf);
}

int
handover_add(struct handover *h, int fd, const char *name)
{
    struct handover_fd *fds = reallocarray(h->fds, h->n + 1, sizeof(*fds));

    if (!fds)
        return -1;
    h->fds = fds;
    fds[h->n] = (struct handover_fd){.fd = fd, .name = strdup(name)};
    return fds[h->n].name ? (h->n++, 0) : -1;
}

void
handover_fini(struct handover *h)
{
    for (size_t i = 0; i < h->n; i++)
        free(h->fds[i].name);
    free(h->fds);
    *h = (struct handover){.n = 0};
}

/* Between fork(2) and execve(2) only what is async-signal-safe may be called: all is prepared before. */
struct plan {
    const char *path;
    char *const *argv;
    char **env;
    char listen_pid[32], watchdog_pid[32], listen_fds[32], ready[32];
    char *names;
    int *fds; /* out of the way of those that they become; the last one is ready_fd's peer */
    size_t n;
};

static bool
is_ours(const char *var)
{
    static const char *const ours[] = {"LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=",
                                       "WATCHDOG_PID=", READY_ENV "="};

    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (strncmp(var, ours[i], strlen(ours[i])) == 0)
            return true;
    }
    return false;
}

static int
make_env(struct plan *p)
{
    size_t n = 0, at = 0;

    while (environ[n])
        n++;
    p->env = calloc(n + 6, sizeof(char *));
    if (!p->env)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (!is_ours(environ[i]))
            p->env[at++] = environ[i];
    }
    p->env[at++] = p->listen_pid;
    p->env[at++] = p->listen_fds;
    p->env[at++] = p->names;
    p->env[at++] = p->ready;
    if (getenv("WATCHDOG_PID"))
        p->env[at++] = p->watchdog_pid;
    return 0;
}

static int
make_names(struct plan *p, const struct handover *h)
{
    size_t size;
    FILE *out = open_memstream(&p->names, &size);

    if (!out)
        return -1;
    fputs("LISTEN_FDNAMES=", out);
    for (size_t i = 0; i < h->n; i++)
        fprintf(out, "%s%s", i > 0 ? ":" : "", h->fds[i].name);
    return fclose(out) == 0 && p->names ? 0 : -1;
}

static void
plan_fini(struct plan *p)
{
    for (size_t i = 0; i < p->n; i++)
        close(p->fds[i]);
    free(p->fds);
    free(p->env);
    free(p->names);
}

static int
plan_init(struct plan *p, const struct handover *h, int peer_fd)
{
    int above = FIRST_FD + (int)h->n + 1;

    p->fds = malloc((h->n + 1) * sizeof(*p->fds));
    if (!p->fds)
        return -1;
    for (; p->n <= h->n; p->n++) {
        p->fds[p->n] = fcntl(p->n < h->n ? h->fds[p->n].fd : peer_fd, F_DUPFD_CLOEXEC, above);
        if (p->fds[p->n] < 0)
            return -1;
    }
    snprintf(p->listen_fds, sizeof(p->listen_fds), "LISTEN_FDS=%zu", h->n);
    snprintf(p->ready, sizeof(p->ready), READY_ENV "=%d", above - 1);
    return make_names(p, h) == 0 && make_env(p) == 0 ? 0 : -1;
}

/* `NAME=PID', without snprintf(3). */
static void
put_pid(char *buf, const char *name, pid_t pid)
{
    char digits[16];
    size_t n = 0;

    while (*name != '\0')
        *buf++ = *name++;
    do
        digits[n++] = (char)('0' + pid % 10);
    while ((pid /= 10) > 0);
    while (n > 0)
        *buf++ = digits[--n];
    *buf = '\0';
}

static _Noreturn void
become(struct plan *p)
{
    pid_t pid = getpid();
    sigset_t none;

    put_pid(p->listen_pid, "LISTEN_PID=", pid);
    put_pid(p->watchdog_pid, "WATCHDOG_PID=", pid);
    for (size_t i = 0; i < p->n; i++) {
        if (dup2(p->fds[i], FIRST_FD + (int)i) < 0)
            _exit(127);
    }
#ifdef SYS_close_range
    /* All have O_CLOEXEC; should a library have forgotten it, here it is. */
    (void)syscall(SYS_close_range, FIRST_FD + (unsigned)p->n, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */);
#endif
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(p->path, p->argv, p->env);
    _exit(127);
}

/* Those of clients among them: they are closed when the daemon closes them. */
static void
close_all(void)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, FIRST_FD, ~0U, 0U) == 0)
        return;
#endif
    for (int fd = FIRST_FD, max = (int)sysconf(_SC_OPEN_MAX); fd < max; fd++)
        close(fd);
}

/*
 * The keeper. systemd takes a main process that is not its child for somebody else's, and does not wait for its end when it stops the service: it is killed at once. So its
 * parent is one that can go, before the service manager hears of it. Until then that is how we learn what became of it.
 */
static _Noreturn void
keep(struct plan *p, int report_fd)
{
    pid_t pid = _Fork();
    int status;

    if (pid == 0)
        become(p);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (pid < 0 || write(report_fd, &pid, sizeof(pid)) != sizeof(pid))
        _exit(127);
    close_all();
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        kill(getpid(), WTERMSIG(status));
    }
    _exit(WEXITSTATUS(status));
}

/* Returns 0, or -1 with errno set. */
static int
start(struct plan *p, struct handover_process *started)
{
    int report[2];
    ssize_t n;

    if (pipe2(report, O_CLOEXEC) != 0)
        return -1;
    started->keeper = fork();
    if (started->keeper == 0)
        keep(p, report[1]);
    int err = errno;
    close(report[1]);
    do
        n = read(report[0], &started->pid, sizeof(started->pid));
    while (n < 0 && errno == EINTR);
    close(report[0]);
    if (started->keeper > 0 && n == sizeof(started->pid))
        return 0;
    if (started->keeper > 0) {
        err = EAGAIN;
        (void)waitpid(started->keeper, NULL, 0);
    }
    errno = err;
    return -1;
}

int
handover_start(const struct handover *h, const char *path, char *const argv[],
               struct handover_process *started)
{
    struct plan p = {.path = path, .argv = argv};
    int fds[2], rc = -1;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0)
        return -1;
    if (plan_init(&p, h, fds[1]) == 0)
        rc = start(&p, started);
    int err = errno;
    plan_fini(&p);
    close(fds[1]);
    if (rc != 0)
        close(fds[0]);
    else
        started->ready_fd = fds[0];
    errno = err;
    return rc;
}

void
handover_take_ready(void)
{
    const char *text = getenv(READY_ENV);

    if (!text)
        return;
    told_fd = atoi(text);
    if (told_fd < FIRST_FD || fcntl(told_fd, F_SETFD, FD_CLOEXEC) != 0)
        told_fd = -1;
    unsetenv(READY_ENV);
}

bool
handover_is_ready_awaited(void)
{
    return told_fd >= 0;
}

int
handover_tell_ready(void)
{
    int fd = told_fd;

    told_fd = -1;
    if (fd < 0)
        return -1;
    while (write(fd, "1", 1) < 0 && errno == EINTR)
        continue;
    return fd;
}
