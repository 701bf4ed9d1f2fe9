/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_NAMEINDEX_H
#define REDIAL_NAMEINDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <search.h>

/* Which place has a name? A table made for so many names, by hsearch_r(3). Pure. */
struct nameindex {
    struct hsearch_data table;
    bool is_made;
};
#define NAMEINDEX_NONE SIZE_MAX

/** nameindex_init(index, n): for up to ${n} names. Returns 0, or -1 with errno ENOMEM; nameindex_fini() is due in either case, and fine for a zeroed one. */
int nameindex_init(struct nameindex *index, size_t n) __attribute__((warn_unused_result));

/** nameindex_fini(index): the names stay the caller's. */
void nameindex_fini(struct nameindex *index);

/** nameindex_add(index, name, place): ${name}, which is borrowed, is at ${place}; a name that is in already keeps its first place. Returns 0, or -1 when there are too many. */
int nameindex_add(struct nameindex *index, const char *name, size_t place)
    __attribute__((warn_unused_result));

/** nameindex_find(index, name): its place, or NAMEINDEX_NONE. */
size_t nameindex_find(struct nameindex *index, const char *name);

#endif
