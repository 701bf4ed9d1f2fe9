/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_RELAY_INTERNAL_H
#define REDIAL_RELAY_INTERNAL_H

#include "relay.h"

/* What relay.c (when to read, and how it ends) and relay_move.c (how bytes are moved) share. */

/* What became of one read and the write behind it. */
enum relay_moved {
    RELAY_MOVED, /* bytes were moved; what the sink did not take is kept: relay_is_loaded() */
    RELAY_EMPTY, /* the source has none now */
    RELAY_SOURCE_ENDED,  /* end of file */
    RELAY_SOURCE_FAILED, /* the read failed: errno */
    RELAY_SINK_FAILED,   /* the write failed: errno */
    RELAY_UNSERVED,      /* it was the first to a server that is unproven; the bytes are kept */
    RELAY_LOST,          /* no memory to keep what the sink did not take */
};

static inline enum relay_side
relay_other(enum relay_side side)
{
    return side == RELAY_CLIENT ? RELAY_SERVER : RELAY_CLIENT;
}

/** relay_is_loaded(dir): has it bytes that its sink has not taken? */
static inline bool
relay_is_loaded(const struct relay_dir *dir)
{
    return dir->rest || dir->pipe;
}

/** relay_move(r, from): read from ${from} once and write what came; the direction must not be loaded. Clears ${ready} when the source is known to be empty. */
enum relay_moved relay_move(struct relay *r, enum relay_side from);

/** relay_flush(r, from): write on what is loaded. Returns 0, also when the sink takes nothing now, or -1 with errno set. */
int relay_flush(struct relay *r, enum relay_side from);

/** relay_unload(r, dir): forget what the sink has not taken, if anything. */
void relay_unload(struct relay *r, struct relay_dir *dir);

#endif
