/* SPDX-License-Identifier: MIT */
#include "limit.h"

void
limit_init(struct limit *limit, unsigned max)
{
    atomic_init(&limit->used, 0);
    limit->max = max;
}

/*
 * Not add, look, and take back: what is taken for a moment too many makes another thread fail that would have found room, and that then waits
 * for a place which is already free.
 */
bool
limit_take(struct limit *limit)
{
    unsigned used = atomic_load_explicit(&limit->used, memory_order_relaxed);

    do {
        if (limit->max > 0 && used >= limit->max)
            return false;
    } while (!atomic_compare_exchange_weak(&limit->used, &used, used + 1));
    return true;
}

void
limit_force(struct limit *limit)
{
    atomic_fetch_add(&limit->used, 1);
}

bool
limit_give(struct limit *limit)
{
    unsigned before = atomic_fetch_sub(&limit->used, 1);

    return limit->max > 0 && before >= limit->max;
}

bool
limit_is_full(const struct limit *limit)
{
    return limit->max > 0 && limit_used(limit) >= limit->max;
}

unsigned
limit_used(const struct limit *limit)
{
    return atomic_load_explicit(&limit->used, memory_order_acquire);
}
