/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PRIVS_H
#define REDIAL_PRIVS_H

#include <sys/types.h>

/**
 * privs_find_user(name, uid, gid), privs_find_group(name, gid):
 * Look up a user (and its primary group) or a group by name or number. A number need not be listed anywhere, as in a container; such a
 * user's group is the same number. Not thread-safe (getpwnam(3)). Returns 0, or -1 when there is none.
 */
int privs_find_user(const char *name, uid_t *uid, gid_t *gid) __attribute__((warn_unused_result));
int privs_find_group(const char *name, gid_t *gid) __attribute__((warn_unused_result));

/**
 * privs_drop(user, group, why):
 * Become ${user} (NULL: stay) and ${group} (NULL: the user's own), with the user's supplementary groups, set no_new_privs and give up every
 * capability but CAP_NET_BIND_SERVICE, which is kept (permitted, effective, ambient) when it was there: capabilities(7). Before any thread starts.
 * A process that is ${user} and ${group} already keeps its groups and needs no privilege. With ${user} NULL the supplementary groups stay.
 *
 * Returns 0; or -1 with errno set and ${*why} naming the step that failed (static text).
 */
int privs_drop(const char *user, const char *group, const char **why)
    __attribute__((warn_unused_result));

#endif
