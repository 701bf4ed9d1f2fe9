/* SPDX-License-Identifier: MIT */
#include "table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Between two columns; a bullet and the blank behind it. */
#define GAP  2
#define MARK 2

struct cell {
    char *text; /* clean; NULL: empty */
    unsigned width;
    enum tint tint, mark; /* mark: TINT_NONE: none */
};

struct layout {
    unsigned width; /* without the gap before it */
    bool shown, marked;
};

struct table {
    const struct table_column *columns;
    size_t n_columns;
    struct cell *cells; /* row by row */
    size_t n_cells, room;
    struct layout layout[];
};

struct table *
table_new(const struct table_column *columns, size_t n)
{
    struct table *t = calloc(1, sizeof(*t) + n * sizeof(t->layout[0]));

    if (!t)
        return NULL;
    t->columns = columns;
    t->n_columns = n;
    return t;
}

void
table_free(struct table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cells[i].text);
    free(t->cells);
    free(t);
}

static bool
make_room(struct table *t)
{
    size_t room = t->room ? t->room * 2 : 64;
    struct cell *cells;

    if (t->n_cells < t->room)
        return true;
    cells = reallocarray(t->cells, room, sizeof(*cells));
    if (!cells)
        return false;
    t->cells = cells;
    t->room = room;
    return true;
}

void
table_cell(struct table *t, enum tint tint, const char *fmt, ...)
{
    struct cell cell = {.tint = tint};
    va_list args;
    char *text;
    int len;

    if (!make_room(t))
        return;
    va_start(args, fmt);
    len = vasprintf(&text, fmt, args);
    va_end(args);
    if (len >= 0) {
        cell.text = len > 0 ? screen_clean(text) : NULL;
        free(text);
    }
    if (cell.text)
        cell.width = screen_columns(cell.text);
    t->cells[t->n_cells++] = cell;
}

void
table_mark(struct table *t, enum tint tint)
{
    if (t->n_cells > 0)
        t->cells[t->n_cells - 1].mark = tint;
}

/* Column ${c} as wide as what is in it. */
static void
set_width(struct table *t, size_t c)
{
    struct layout *l = &t->layout[c];
    unsigned widest = 0;

    l->marked = false;
    for (size_t i = c; i < t->n_cells; i += t->n_columns) {
        if (t->cells[i].width > widest)
            widest = t->cells[i].width;
        l->marked |= t->cells[i].mark != TINT_NONE;
    }
    if (widest == 0 && t->columns[c].only_if_filled)
        l->shown = false;
    l->width = (unsigned)strlen(t->columns[c].heading);
    if (widest > l->width)
        l->width = widest;
    if (l->marked)
        l->width += MARK;
}

static unsigned
total_width(const struct table *t)
{
    unsigned total = 0;

    for (size_t c = 0; c < t->n_columns; c++)
        if (t->layout[c].shown)
            total += t->layout[c].width + (total > 0 ? GAP : 0);
    return total;
}

/* Takes one column of the screen from the widest that may be shortened. */
static bool
shorten_one(struct table *t)
{
    struct layout *widest = NULL;

    for (size_t c = 0; c < t->n_columns; c++) {
        struct layout *l = &t->layout[c];
        unsigned min = t->columns[c].min;
        if (l->shown && min > 0 && l->width > min && (!widest || l->width > widest->width))
            widest = l;
    }
    if (!widest)
        return false;
    widest->width--;
    return true;
}

/* Columns of one rank go together. */
static bool
leave_out_least(struct table *t)
{
    unsigned least = 0;

    for (size_t c = 0; c < t->n_columns; c++)
        if (t->layout[c].shown && t->columns[c].rank > least)
            least = t->columns[c].rank;
    for (size_t c = 0; c < t->n_columns; c++)
        if (t->columns[c].rank == least)
            t->layout[c].shown &= least == 0;
    return least > 0;
}

static void
fit(struct table *t, unsigned width)
{
    for (size_t c = 0; c < t->n_columns; c++)
        t->layout[c].shown = true;
    do {
        for (size_t c = 0; c < t->n_columns; c++)
            set_width(t, c);
        if (width == 0)
            return;
        while (total_width(t) > width && shorten_one(t))
            ;
    } while (total_width(t) > width && leave_out_least(t));
}

/* The end of an address, with its port, tells more than its beginning. */
static void
put_shortened(struct screen *s, const struct cell *cell, unsigned width, bool cut_end)
{
    unsigned tail = cut_end ? 0 : (width - 1) * 2 / 3, head = width - 1 - tail;
    const char *begin_of_tail = screen_skip(cell->text, cell->width - tail);

    screen_add(s, cell->tint, "%.*s%s%s", (int)(screen_skip(cell->text, head) - cell->text),
               cell->text, screen_dots(s), begin_of_tail);
}

static void
put_cell(struct screen *s, const struct cell *cell, const struct layout *l,
         const struct table_column *column)
{
    unsigned width = l->width, begin = s->used;

    if (l->marked) {
        if (cell->mark != TINT_NONE)
            screen_add(s, cell->mark, "%s", screen_bullet(s));
        if (cell->text)
            screen_pad(s, begin + MARK);
        width -= MARK;
    }
    if (!cell->text)
        return;
    if (column->right && cell->width < width)
        screen_pad(s, s->used + width - cell->width);
    if (cell->width > width)
        put_shortened(s, cell, width, column->cut_end);
    else
        screen_add(s, cell->tint, "%s", cell->text);
}

/* A row of ${n} cells. Blanks come before a cell, never at the end of a line. */
static void
put_row(struct table *t, struct screen *s, const struct cell *cells, size_t n)
{
    unsigned at = 0;

    for (size_t c = 0; c < n; c++) {
        const struct layout *l = &t->layout[c];
        if (!l->shown)
            continue;
        if (cells[c].text) {
            screen_pad(s, at);
            put_cell(s, &cells[c], l, &t->columns[c]);
        }
        at += l->width + GAP;
    }
    screen_end(s);
}

static void
put_headings(struct table *t, struct screen *s)
{
    unsigned at = 0;

    for (size_t c = 0; c < t->n_columns; c++) {
        const struct layout *l = &t->layout[c];
        struct cell cell = {.text = (char *)t->columns[c].heading, .tint = TINT_BOLD};
        if (!l->shown)
            continue;
        cell.width = (unsigned)strlen(cell.text);
        if (cell.width > 0) {
            screen_pad(s, at);
            put_cell(s, &cell, l, &t->columns[c]);
        }
        at += l->width + GAP;
    }
    screen_end(s);
}

void
table_print(struct table *t, struct screen *s)
{
    fit(t, s->width);
    put_headings(t, s);
    for (size_t i = 0; i < t->n_cells; i += t->n_columns)
        put_row(t, s, t->cells + i, t->n_cells - i < t->n_columns ? t->n_cells - i : t->n_columns);
}
