/* SPDX-License-Identifier: MIT */
#include "log_line.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* A ring; the logger's thread writes, and waits for nobody but who copies. */
static struct log_note kept[LOG_NOTES_MAX];
static size_t n_ever;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Cuts between characters. */
static void
copy_text(char *to, size_t size, const char *from)
{
    size_t n = strlen(from);

    if (n >= size) {
        n = size - 1;
        while (n > 0 && ((unsigned char)from[n] & 0xc0) == 0x80)
            n--;
    }
    memcpy(to, from, n);
    to[n] = '\0';
}

void
log_note_make(struct log_note *note, const struct log_record *record)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    note->at_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    note->level = record->level;
    copy_text(note->event, sizeof(note->event), record->event);
    copy_text(note->message, sizeof(note->message), record->sentence);
}

void
log_note_keep(const struct log_note *note)
{
    pthread_mutex_lock(&lock);
    kept[n_ever++ % LOG_NOTES_MAX] = *note;
    pthread_mutex_unlock(&lock);
}

size_t
log_notes(struct log_note *notes, size_t max)
{
    size_t n;

    pthread_mutex_lock(&lock);
    n = n_ever < LOG_NOTES_MAX ? n_ever : LOG_NOTES_MAX;
    if (n > max)
        n = max;
    for (size_t i = 0; i < n; i++)
        notes[i] = kept[(n_ever - n + i) % LOG_NOTES_MAX];
    pthread_mutex_unlock(&lock);
    return n;
}
