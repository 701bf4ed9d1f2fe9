/* SPDX-License-Identifier: MIT */
#include "nameindex.h"

/* Names that fill the table are found slowly. */
#define ROOM(n) ((n) + (n) / 2 + 16)

int
nameindex_init(struct nameindex *index, size_t n)
{
    *index = (struct nameindex){.is_made = false};
    index->is_made = hcreate_r(ROOM(n), &index->table) != 0;
    return index->is_made ? 0 : -1;
}

void
nameindex_fini(struct nameindex *index)
{
    if (index->is_made)
        hdestroy_r(&index->table);
    index->is_made = false;
}

int
nameindex_add(struct nameindex *index, const char *name, size_t place)
{
    ENTRY entry = {.key = (char *)(uintptr_t)name, .data = (void *)(uintptr_t)place}, *found;

    return hsearch_r(entry, ENTER, &found, &index->table) != 0 ? 0 : -1;
}

size_t
nameindex_find(struct nameindex *index, const char *name)
{
    ENTRY entry = {.key = (char *)(uintptr_t)name}, *found;

    if (!index->is_made || hsearch_r(entry, FIND, &found, &index->table) == 0)
        return NAMEINDEX_NONE;
    return (size_t)(uintptr_t)found->data;
}
