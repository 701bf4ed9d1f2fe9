/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_DESCRIPTORS_H
#define REDIAL_DESCRIPTORS_H

#include <stddef.h>
#include <stdint.h>

struct conf;

/* How a limit of descriptors (RLIMIT_NOFILE) is shared out. Pure. */

/* No daemon starts with fewer: what is no session's, standard streams and libraries' own. */
#define DESCRIPTORS_MIN 24

/* For what: a worker takes some, a shared listening socket one for each. */
struct descriptors_use {
    const struct conf *conf;
    unsigned n_workers;
    size_t n_bindings;
};

struct descriptors_share {
    uint64_t sessions; /* that fit, two descriptors each */
    uint64_t
        standby; /* connections that fit, > 0: at most a third of what is there for both, so that they do not keep clients out */
    uint64_t standby_wanted; /* by the configuration */
};

/** descriptors_share(use, limit): share out ${limit}. Cannot fail: at least one session fits. */
struct descriptors_share descriptors_share(const struct descriptors_use *use, uint64_t limit);

/** descriptors_needed(use, sessions): the limit in which so many sessions and all standby connections fit. */
uint64_t descriptors_needed(const struct descriptors_use *use, uint64_t sessions);

#endif
