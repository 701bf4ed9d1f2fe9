/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_TABLE_H
#define REDIAL_TABLE_H

#include "screen.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * A table for people: headings and rows of cells in columns as wide as what is in them. Where a screen is too narrow, columns are
 * shortened and then left out, the least important first.
 */
struct table_column {
    const char *heading;
    bool right;          /* numbers */
    unsigned min;        /* shortened down to this width, by a part in the middle; 0: never */
    unsigned rank;       /* those with the highest are left out first; 0: never */
    bool only_if_filled; /* left out when all of its cells are empty */
    bool cut_end;        /* shortened at the end, not in the middle */
};

struct table;

/** table_new(columns, n): returns a new table, which borrows ${columns}, for table_free(); or NULL with errno ENOMEM. */
struct table *table_new(const struct table_column *columns, size_t n)
    __attribute__((warn_unused_result));

/** table_free(t): NULL is fine. */
void table_free(struct table *t);

/** table_cell(t, tint, fmt, ...): fill the next cell; after the last of a row comes the first of the next. When there is no memory for it, it is empty. */
void table_cell(struct table *t, enum tint tint, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/** table_mark(t, tint): put a bullet before the cell that was filled last. */
void table_mark(struct table *t, enum tint tint);

/** table_print(t, s): write it to ${s}, the headings first. A last row that is not full is filled up with empty cells. */
void table_print(struct table *t, struct screen *s);

#endif
