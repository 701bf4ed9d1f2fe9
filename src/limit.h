/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_LIMIT_H
#define REDIAL_LIMIT_H

#include <stdatomic.h>
#include <stdbool.h>

/* A count of places that holds for the whole process. Any thread; never waits. */
struct limit {
    atomic_uint used;
    atomic_uint max; /* 0: no limit */
};

/** limit_init(limit, max): no place is taken. */
void limit_init(struct limit *limit, unsigned max);

/** limit_set_max(limit, max): from now on it is ${max}. More places may be taken already: they stay so until they are given back. */
void limit_set_max(struct limit *limit, unsigned max);

/** limit_max(limit): 0: no limit. */
unsigned limit_max(const struct limit *limit);

/** limit_take(limit): take a place; false when there is none. Never exceeds the limit, not even for a moment. */
bool limit_take(struct limit *limit) __attribute__((warn_unused_result));

/**
 * limit_force(limit):
 * Take a place whether or not there is one.
 */
void limit_force(struct limit *limit);

/** limit_give(limit): give one back. Returns true when there was no room before: somebody may wait for it. */
bool limit_give(struct limit *limit);

/** limit_is_full(limit): is no place left? A moment old. */
bool limit_is_full(const struct limit *limit);

/** limit_used(limit): how many places are taken? A moment old. */
unsigned limit_used(const struct limit *limit);

#endif
