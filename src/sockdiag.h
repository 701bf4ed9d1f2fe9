/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SOCKDIAG_H
#define REDIAL_SOCKDIAG_H

struct socktable_entry;

/**
 * sockdiag_each(visit, arg):
 * Call ${visit}(${arg}, entry) for each TCP socket of this network namespace, IPv4 and IPv6, in whatever state, as the kernel tells it by
 * sock_diag(7): sooner than by /proc, which socktable_each() reads.
 *
 * Returns 0; or -1 with errno set when the kernel does not tell: then some sockets may have been visited.
 */
int sockdiag_each(void (*visit)(void *arg, const struct socktable_entry *entry), void *arg)
    __attribute__((warn_unused_result));

#endif
