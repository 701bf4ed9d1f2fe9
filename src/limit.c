/* SPDX-License-Identifier: MIT */
#include "limit.h"

void
limit_init(struct limit *limit, unsigned max)
{
    atomic_init(&limit->used, 0);
    atomic_init(&limit->max, max);
}

void
limit_set_max(struct limit *limit, unsigned max)
{
    atomic_store_explicit(&limit->max, max, memory_order_relaxed);
}

unsigned
limit_max(const struct limit *limit)
{
    return atomic_load_explicit(&limit->max, memory_order_relaxed);
}

/*
 * Not add, look, and take back: what is taken for a moment too many makes another thread fail that would have found room, and that then waits
 * for a place which is already free.
 */
bool
limit_take(struct limit *limit)
{
    unsigned used = atomic_load_explicit(&limit->used, memory_order_relaxed);
    unsigned max = limit_max(limit);

    do {
        if (max > 0 && used >= max)
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
    unsigned before = atomic_fetch_sub(&limit->used, 1), max = limit_max(limit);

    return max > 0 && before >= max;
}

bool
limit_is_full(const struct limit *limit)
{
    unsigned max = limit_max(limit);

    return max > 0 && limit_used(limit) >= max;
}

unsigned
limit_used(const struct limit *limit)
{
    return atomic_load_explicit(&limit->used, memory_order_acquire);
}
