/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SOCK_H
#define REDIAL_SOCK_H

#include <stdbool.h>
#include <stdint.h>

struct addr;

/* Small facts and settings of sockets. fds are borrowed unless a function says that it takes one. */

/* Keepalive probes every 15 s, 4 of them: a dead peer is found keepalive + 60 s after its last byte. */
#define SOCK_KEEPALIVE_INTERVAL_S 15
#define SOCK_KEEPALIVE_PROBES     4

/**
 * sock_set_nodelay(fd), sock_set_keepalive(fd, idle_ms), sock_set_user_timeout(fd, ms):
 * Set TCP_NODELAY; SO_KEEPALIVE with TCP_KEEPIDLE of ${idle_ms} (rounded up to a second), TCP_KEEPINTVL and TCP_KEEPCNT; TCP_USER_TIMEOUT.
 * On a listening socket the accepted ones inherit them. See tcp(7). Failure costs only the option: it is not told.
 */
void sock_set_nodelay(int fd);
void sock_set_keepalive(int fd, uint64_t idle_ms);
void sock_set_user_timeout(int fd, uint64_t ms);

/** sock_set_oobinline(fd): SO_OOBINLINE, socket(7): urgent data is read like any other. */
void sock_set_oobinline(int fd);

/** sock_error(fd): returns and clears the socket's pending error, SO_ERROR; 0: none. */
int sock_error(int fd);

/** sock_has_ended(fd): has the peer of the non-blocking stream socket ${fd} closed or reset, with nothing before that left to be read? */
bool sock_has_ended(int fd);

/** sock_close_fin(fd): take and close ${fd} so that its peer sees an end of file: what was left unread, for which close(2) would reset it, is thrown away. */
void sock_close_fin(int fd);

/**
 * sock_close_reset(fd):
 * Take and close ${fd} so that its peer sees a RST and no TIME_WAIT is left: SO_LINGER {1,0}, socket(7). A UNIX peer sees the end of the
 * stream, or ECONNRESET when something was left unread: UNIX sockets have no RST.
 */
void sock_close_reset(int fd);

/**
 * sock_unsent(fd):
 * How many bytes written to ${fd} has the peer not yet taken (TCP: not acknowledged)? 0 also when the connection is over.
 */
unsigned sock_unsent(int fd);

/** sock_local(fd, local): the address of this end of ${fd}. Returns 0, or -1 with errno set. */
int sock_local(int fd, struct addr *local) __attribute__((warn_unused_result));

/**
 * sock_dialled(fd, family, dest):
 * Where did the peer of ${fd}, an accepted TCP socket, dial, before a REDIRECT or DNAT rule of this host brought it here: SO_ORIGINAL_DST. ${family} is
 * the peer's, of an IPv4-mapped one AF_INET. Returns 0, or -1 with errno set: ENOENT, ENOPROTOOPT when connections are not tracked.
 */
int sock_dialled(int fd, int family, struct addr *dest) __attribute__((warn_unused_result));

/** sock_is_temporary_shortage(err): does errno ${err} mean that this process or host has run out of something: EMFILE, ENFILE, ENOMEM, ENOBUFS? */
bool sock_is_temporary_shortage(int err);

#endif
