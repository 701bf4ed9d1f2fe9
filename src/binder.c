/* SPDX-License-Identifier: MIT */
#include "binder.h"

#include "dialer.h"
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) + sizeof(".lock"))

static bool
has_path(const struct addr *addr)
{
    return addr_is_unix(addr) && addr->un.sun_path[0] != '\0';
}

static void
lock_path(const struct addr *addr, char path[LOCK_PATH_MAX])
{
    snprintf(path, LOCK_PATH_MAX, "%.*s.lock", (int)sizeof(addr->un.sun_path), addr->un.sun_path);
}

/* Another holder may have removed the file between our open() and flock(): then lock what is there now. */
static int
lock_open(const struct addr *addr, const char **step)
{
    char path[LOCK_PATH_MAX];
    struct stat ours, there;

    lock_path(addr, path);
    for (;;) {
        *step = "cannot open its lock file";
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return -1;
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            *step = "another process holds its lock file";
            int err = errno == EWOULDBLOCK ? EADDRINUSE : errno;
            close(fd);
            errno = err;
            return -1;
        }
        if (fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_dev == there.st_dev &&
            ours.st_ino == there.st_ino)
            return fd;
        close(fd);
    }
}

/* The lock is ours: what is left at the path is stale, unless it is no socket, or some other program serves it. */
static int
remove_stale(const struct addr *addr, const char **step)
{
    struct stat st;

    if (lstat(addr->un.sun_path, &st) != 0)
        return 0;
    if (!S_ISSOCK(st.st_mode)) {
        *step = "a file that is no socket is in its place";
        errno = EEXIST;
        return -1;
    }
    if (dialer_is_unix_alive(addr)) {
        *step = "another process serves it";
        errno = EADDRINUSE;
        return -1;
    }
    *step = "cannot remove the stale socket";
    return unlink(addr->un.sun_path);
}

static int
bind_unix_path(struct binding *b, const struct binder_opts *opts, const char **step)
{
    b->lock_fd = lock_open(&b->addr, step);
    if (b->lock_fd < 0 || remove_stale(&b->addr, step) != 0)
        return -1;

    *step = "cannot bind";
    mode_t old = umask(0777 & ~opts->unix_mode);
    int rc = bind(b->fd, &b->addr.sa, b->addr.len);
    umask(old);
    if (rc != 0)
        return -1;
    if (opts->unix_uid == (uid_t)-1 && opts->unix_gid == (gid_t)-1)
        return 0;
    *step = "cannot change its owner";
    if (lchown(b->addr.un.sun_path, opts->unix_uid, opts->unix_gid) == 0)
        return 0;
    int err = errno;
    unlink(b->addr.un.sun_path);
    errno = err;
    return -1;
}

/* Where the kernel has no IPv6, `*' means every IPv4 address. */
static int
open_socket(struct addr *addr)
{
    const int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = socket(addr->sa.sa_family, type, 0);

    if (fd >= 0 || errno != EAFNOSUPPORT || !addr->dual)
        return fd;
    const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(addr_port(addr))};
    addr_from_sockaddr(addr, (const struct sockaddr *)&any, sizeof(any));
    return socket(AF_INET, type, 0);
}

static int
bind_other(struct binding *b, const char **step)
{
    const int one = 1, v6only = !b->addr.dual;

    *step = "cannot bind";
    if (addr_is_inet(&b->addr))
        (void)setsockopt(b->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (b->addr.sa.sa_family == AF_INET6 &&
        setsockopt(b->fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)) != 0)
        return -1;
    return bind(b->fd, &b->addr.sa, b->addr.len);
}

static void
set_client_options(int fd, const struct binder_opts *opts)
{
    sock_set_oobinline(fd); /* a client's urgent byte keeps its place, and is not lost */
    if (opts->nodelay)
        sock_set_nodelay(fd);
    if (opts->keepalive_ms > 0)
        sock_set_keepalive(fd, opts->keepalive_ms);
    if (opts->user_timeout_ms > 0)
        sock_set_user_timeout(fd, opts->user_timeout_ms);
}

/* The lock file goes while the lock is held: lock_open() knows of this. */
static void
close_both(struct binding *b)
{
    char path[LOCK_PATH_MAX];

    if (b->lock_fd >= 0) {
        lock_path(&b->addr, path);
        unlink(path);
        close(b->lock_fd);
    }
    if (b->fd >= 0)
        close(b->fd);
    b->fd = b->lock_fd = -1;
}

int
binder_open(struct binding *b, const struct addr *addr, const struct binder_opts *opts,
            const char **step)
{
    *b = (struct binding){.addr = *addr, .wanted = *addr, .opts = *opts, .fd = -1, .lock_fd = -1};
    *step = "cannot make a socket";
    b->fd = open_socket(&b->addr);
    if (b->fd < 0)
        return -1;
    if ((has_path(addr) ? bind_unix_path(b, opts, step) : bind_other(b, step)) != 0)
        goto fail_socket;
    if (addr_is_inet(&b->addr)) {
        set_client_options(b->fd, opts);
        if (opts->shared)
            (void)setsockopt(b->fd, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int));
    }
    *step = "cannot listen";
    if (listen(b->fd, (int)opts->backlog) != 0)
        goto fail_bound;
    return 0;

    int err;
fail_bound:
    err = errno;
    binder_close(b);
    errno = err;
    return -1;
fail_socket:
    err = errno;
    close_both(b);
    errno = err;
    return -1;
}

/* What its maker, or an earlier rediald, had set goes: the socket outlives us all. */
static void
reset_client_options(int fd)
{
    const int off = 0;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &off, sizeof(off));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &off, sizeof(off));
}

static void
change_client_options(int fd, const struct binder_opts *opts)
{
    reset_client_options(fd);
    set_client_options(fd, opts);
}

static bool
has_int_option(int fd, int option, int value)
{
    int is = 0;
    socklen_t len = sizeof(is);

    return getsockopt(fd, SOL_SOCKET, option, &is, &len) == 0 && is == value;
}

static bool
is_stream_listener(int fd)
{
    return has_int_option(fd, SO_TYPE, SOCK_STREAM) && has_int_option(fd, SO_ACCEPTCONN, 1);
}

int
binder_adopt(struct binding *b, int fd, const struct binder_opts *opts)
{
    struct sockaddr_storage name;
    socklen_t len = sizeof(name);

    *b = (struct binding){.opts = *opts, .fd = -1, .lock_fd = -1, .is_inherited = true};
    if (!is_stream_listener(fd) || getsockname(fd, (struct sockaddr *)&name, &len) != 0)
        return -1;
    addr_from_sockaddr(&b->addr, (const struct sockaddr *)&name, len);
    if (!addr_is_inet(&b->addr) && !addr_is_unix(&b->addr))
        return -1;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        return -1;
    b->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (b->fd < 0)
        return -1;
    if (addr_is_inet(&b->addr))
        change_client_options(fd, opts);
    return 0;
}

static bool
is_socket(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

int
binder_resume(struct binding *b, int fd, int lock_fd, const struct addr *addr,
              const struct binder_opts *opts)
{
    const char *step;

    *b = (struct binding){.addr = *addr, .wanted = *addr, .opts = *opts, .fd = -1, .lock_fd = -1};
    /* One that was not listening, because its servers were down, can again. */
    if (!has_int_option(fd, SO_TYPE, SOCK_STREAM) || listen(fd, (int)opts->backlog) != 0 ||
        fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        return -1;
    if (has_path(addr) && !is_socket(addr->un.sun_path))
        return -1;
    if (has_path(addr) && lock_fd < 0) {
        lock_fd = lock_open(addr, &step);
        if (lock_fd < 0)
            return -1;
    }
    b->fd = fd;
    b->lock_fd = lock_fd;
    b->is_resumed = true;
    if (!addr_is_inet(addr))
        return 0;
    change_client_options(fd, opts);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (opts->shared)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int));
    return 0;
}

void
binder_leave(struct binding *b)
{
    if (b->lock_fd >= 0)
        close(b->lock_fd);
    if (b->fd >= 0)
        close(b->fd);
    b->fd = b->lock_fd = -1;
}

int
binder_open_more(const struct binding *first)
{
    const struct binder_opts *opts = &first->opts;
    struct binding more = {.addr = first->addr, .fd = -1, .lock_fd = -1};
    const char *step;

    if (first->is_inherited || !addr_is_inet(&first->addr))
        return fcntl(first->fd, F_DUPFD_CLOEXEC, 0);
    more.fd = open_socket(&more.addr);
    if (more.fd < 0)
        return -1;
    if (setsockopt(more.fd, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int)) == 0 &&
        bind_other(&more, &step) == 0) {
        set_client_options(more.fd, opts);
        if (listen(more.fd, (int)opts->backlog) == 0)
            return more.fd;
    }
    int err = errno;
    close(more.fd);
    errno = err;
    return -1;
}

int
binder_change(struct binding *b, const int *fds, size_t n, const struct binder_opts *opts)
{
    const struct binder_opts before = b->opts;

    b->opts = *opts;
    for (size_t i = 0; addr_is_inet(&b->addr) && i < n; i++)
        change_client_options(fds[i], opts);
    for (size_t i = 0; !b->is_inherited && opts->backlog != before.backlog && i < n; i++)
        (void)listen(fds[i], (int)opts->backlog);
    if (!has_path(&b->addr) || b->is_inherited)
        return 0;
    if (opts->unix_mode != before.unix_mode && chmod(b->addr.un.sun_path, opts->unix_mode) != 0)
        return -1;
    if (opts->unix_uid == before.unix_uid && opts->unix_gid == before.unix_gid)
        return 0;
    return lchown(b->addr.un.sun_path, opts->unix_uid == (uid_t)-1 ? geteuid() : opts->unix_uid,
                  opts->unix_gid == (gid_t)-1 ? getegid() : opts->unix_gid);
}

void
binder_close(struct binding *b)
{
    /* Before the lock goes: the next holder must not lose its own socket. */
    if (b->lock_fd >= 0)
        unlink(b->addr.un.sun_path);
    close_both(b);
}
