/* SPDX-License-Identifier: MIT */
/*
 * The ring: RING_SLOTS lines, claimed in order by any thread and written in order by one.
 *
 * A position counts up for ever; its slot is position % RING_SLOTS. Each slot has a sequence
 * number, which tells whose turn it is (the bounded queue of D. Vyukov). With base = position minus
 * the slot's index:
 *
 *   seq == base               free: the producer that moves `head' over the position owns it
 *   seq == base + 1           filled: the writer's
 *   seq == base + RING_SLOTS  free for the next lap
 *
 * All zero is the empty ring, so its memory is touched only when used. When it is full the line is
 * dropped and counted.
 */
#include "log_line.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define RING_SLOTS ((size_t)1024) /* a power of two, so that positions may wrap */
#define BATCH_MAX  32
#define STOP_S     1

struct slot {
    atomic_size_t seq;
    size_t len;           /* 0: it is not to be written, but noted */
    struct log_note note; /* without an event: it is not to be noted */
    char text[LOG_LINE_MAX];
};

static _Atomic enum log_level threshold = LOG_INFO;
static _Atomic enum log_format form = LOG_FORMAT_AUTO;

static struct slot ring[RING_SLOTS];
static atomic_size_t head;
static size_t tail; /* the writer's */
static atomic_uint_fast64_t dropped, dropped_ever;

/* Direct: by the calling thread itself. Stopped: the same, unless stderr would block. */
enum mode { MODE_DIRECT, MODE_RING, MODE_STOPPED };
static atomic_int mode = MODE_DIRECT;

static pthread_t writer;
static sem_t wake, done;
static atomic_bool stopping;
static bool is_abandoned;

const char *
log_level_str(enum log_level level)
{
#define X(name, text, priority) [name] = (text),
    static const char *const texts[] = {LOG_LEVELS(X)};
#undef X
    return texts[level];
}

bool
log_level_parse(const char *text, enum log_level *level)
{
#define X(name, word, priority)                                                                    \
    if (strcmp(text, word) == 0) {                                                                 \
        *level = name;                                                                             \
        return true;                                                                               \
    }
    LOG_LEVELS(X)
#undef X
    return false;
}

/* Is stderr the stream that $JOURNAL_STREAM names by device and inode? systemd.exec(5). */
static bool
stderr_is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    uintmax_t dev, ino;
    struct stat st;
    char rest;

    if (text == NULL || sscanf(text, "%ju:%ju%c", &dev, &ino, &rest) != 2)
        return false;
    return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

/* What LOG_FORMAT_AUTO comes to. */
static enum log_format
form_of_stderr(void)
{
    const char *wanted = getenv("REDIAL_LOG_FORMAT");

    if (stderr_is_journal())
        return LOG_FORMAT_JOURNAL;
    if (wanted != NULL && strcmp(wanted, "json") == 0)
        return LOG_FORMAT_JSON;
    return LOG_FORMAT_TEXT;
}

/* Settled by one thread before there are others: getenv(3) does not mix with setenv(3). */
static enum log_format
settle_form(void)
{
    enum log_format is = atomic_load_explicit(&form, memory_order_relaxed);

    if (is == LOG_FORMAT_AUTO) {
        is = form_of_stderr();
        atomic_store(&form, is);
    }
    return is;
}

void
log_setup(enum log_level level, enum log_format format)
{
    if (format == LOG_FORMAT_AUTO)
        format = form_of_stderr();
    atomic_store(&threshold, level);
    atomic_store(&form, format);
}

bool
log_is_on(enum log_level level)
{
    return level <= atomic_load_explicit(&threshold, memory_order_relaxed);
}

/* Steps ${*iov} over ${n} written bytes. */
static void
skip_written(struct iovec **iov, int *count, size_t n)
{
    while (*count > 0 && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    if (*count > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
}

/* Writes all, however long it takes; on a broken stderr nothing, for nobody reads it. Eats ${iov}.
 */
static void
write_all(struct iovec *iov, int count)
{
    struct pollfd pfd = {.fd = STDERR_FILENO, .events = POLLOUT};

    while (count > 0) {
        ssize_t n = writev(STDERR_FILENO, iov, count);

        if (n >= 0)
            skip_written(&iov, &count, (size_t)n);
        else if (errno == EAGAIN)
            poll(&pfd, 1, -1); /* another process that shares stderr has set O_NONBLOCK */
        else if (errno != EINTR)
            return;
    }
}

static void
write_line(const struct log_line *line)
{
    struct iovec iov = {.iov_base = (char *)line->text, .iov_len = line->len};

    write_all(&iov, 1);
}

/* The sequence number at which the slot of ${pos} is free for it. */
static size_t
seq_free(size_t pos)
{
    return pos - pos % RING_SLOTS;
}

static bool
stderr_would_block(void)
{
    struct pollfd pfd = {.fd = STDERR_FILENO, .events = POLLOUT};

    return poll(&pfd, 1, 0) == 0;
}

/* Copies ${line} into the ring. False: it is full. */
static bool
ring_push(const struct log_line *line, const struct log_note *note)
{
    size_t pos = atomic_load_explicit(&head, memory_order_relaxed);
    struct slot *slot;

    for (;;) {
        ptrdiff_t diff;

        slot = &ring[pos % RING_SLOTS];
        diff = (ptrdiff_t)(atomic_load_explicit(&slot->seq, memory_order_acquire) - seq_free(pos));
        if (diff < 0)
            return false;
        if (diff > 0)
            pos = atomic_load_explicit(&head, memory_order_relaxed);
        else if (atomic_compare_exchange_weak_explicit(&head, &pos, pos + 1, memory_order_relaxed,
                                                       memory_order_relaxed))
            break;
    }
    memcpy(slot->text, line->text, line->len);
    slot->len = line->len;
    slot->note.event[0] = '\0';
    if (note)
        slot->note = *note;
    atomic_store_explicit(&slot->seq, seq_free(pos) + 1, memory_order_release);
    return true;
}

/*
 * Writes the next lines at one go and returns how many there were. At most PIPE_BUF bytes, which a
 * pipe takes whole: others that write to the same stderr cannot get in between.
 */
static int
ring_write_batch(void)
{
    struct iovec iov[BATCH_MAX];
    size_t pos = tail, bytes = 0;
    int count = 0;

    for (; count < BATCH_MAX; count++, pos++) {
        struct slot *slot = &ring[pos % RING_SLOTS];

        if (atomic_load_explicit(&slot->seq, memory_order_acquire) != seq_free(pos) + 1 ||
            bytes + slot->len > PIPE_BUF)
            break;
        iov[count] = (struct iovec){.iov_base = slot->text, .iov_len = slot->len};
        bytes += slot->len;
        if (slot->note.event[0] != '\0')
            log_note_keep(&slot->note);
    }
    write_all(iov, count);
    for (; tail != pos; tail++)
        atomic_store_explicit(&ring[tail % RING_SLOTS].seq, seq_free(tail + RING_SLOTS),
                              memory_order_release);
    return count;
}

/* Whatever the threshold: it tells that the log is not complete. */
static void
report_dropped(void)
{
    uint64_t n = atomic_exchange_explicit(&dropped, 0, memory_order_relaxed);
    const struct log_record record = {LOG_WARNING, "log_dropped", LOG_FIELDS(LOG_UINT("lines", n)),
                                      "lines were dropped: the reader of stderr is too slow"};
    struct log_line line;

    if (n == 0)
        return;
    log_line_build(&line, settle_form(), &record);
    write_line(&line);
}

/* The count of dropped lines comes when the ring is empty, or once a lap: one line for many. */
static void
ring_drain(void)
{
    size_t start = tail;

    while (ring_write_batch() > 0) {
        if (tail - start >= RING_SLOTS) {
            report_dropped();
            start = tail;
        }
    }
    report_dropped();
}

static void *
writer_run(void *arg)
{
    bool is_last;

    (void)arg;
    do {
        while (sem_wait(&wake) < 0)
            ;
        is_last = atomic_load(&stopping);
        ring_drain();
    } while (!is_last);
    sem_post(&done);
    return NULL;
}

int
log_start(void)
{
    sigset_t all, old;
    int err;

    if (atomic_load(&mode) == MODE_RING || is_abandoned) {
        errno = EBUSY;
        return -1;
    }
    settle_form();
    atomic_store(&stopping, false);
    if (sem_init(&wake, 0, 0) < 0 || sem_init(&done, 0, 0) < 0)
        return -1;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&writer, NULL, writer_run, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err != 0) {
        errno = err;
        return -1;
    }
    pthread_setname_np(writer, "log");
    atomic_store(&mode, MODE_RING);
    return 0;
}

void
log_stop(void)
{
    struct timespec deadline;

    if (atomic_load(&mode) != MODE_RING)
        return;
    atomic_store(&mode, MODE_STOPPED);
    atomic_store(&stopping, true);
    sem_post(&wake);
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += STOP_S;
    while (sem_clockwait(&done, CLOCK_MONOTONIC, &deadline) < 0) {
        if (errno == EINTR)
            continue;
        /* The thread sits in write(2) or poll(2); it ends with the process. */
        is_abandoned = true;
        pthread_detach(writer);
        return;
    }
    pthread_join(writer, NULL);
}

void
log_event(enum log_level level, const char *event, const struct log_field *fields, const char *fmt,
          ...)
{
    int saved_errno = errno;
    char sentence[LOG_LINE_MAX];
    const struct log_record record = {level, event, fields, sentence};
    bool is_on = log_is_on(level), is_noted = level <= LOG_NOTICE && strcmp(event, "session") != 0;
    struct log_line line = {.len = 0};
    struct log_note note;
    va_list args;

    if (!is_on && !is_noted)
        return;
    va_start(args, fmt);
    if (vsnprintf(sentence, sizeof(sentence), fmt, args) < 0)
        sentence[0] = '\0';
    va_end(args);
    if (is_on)
        log_line_build(&line, settle_form(), &record);
    if (is_noted)
        log_note_make(&note, &record);
    switch (atomic_load_explicit(&mode, memory_order_acquire)) {
    case MODE_RING:
        if (ring_push(&line, is_noted ? &note : NULL)) {
            sem_post(&wake);
        } else {
            atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
            atomic_fetch_add_explicit(&dropped_ever, 1, memory_order_relaxed);
        }
        break;
    case MODE_STOPPED:
        if (is_on && !stderr_would_block())
            write_line(&line);
        break;
    default:
        if (is_noted)
            log_note_keep(&note);
        if (is_on)
            write_line(&line);
    }
    errno = saved_errno;
}

uint64_t
log_dropped(void)
{
    return atomic_load_explicit(&dropped_ever, memory_order_relaxed);
}

bool
log_limit_pass(struct log_limit *limit, uint64_t now_ms, uint64_t *suppressed)
{
    if (now_ms < limit->next_ms) {
        limit->suppressed++;
        return false;
    }
    *suppressed = limit->suppressed;
    limit->suppressed = 0;
    limit->next_ms = now_ms + LOG_LIMIT_MS;
    return true;
}
