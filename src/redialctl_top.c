/* SPDX-License-Identifier: MIT */
#include "redialctl_internal.h"

#include "human.h"
#include "monotonic.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

/*
 * In a terminal each picture is drawn into memory, cut to the screen's height, and written over the one before it, in the alternate screen: what was there
 * comes back at the end. Signals are read from a descriptor, so that none comes between the change of the terminal and its restoring.
 *
 * In a pipe the pictures follow one another, with a blank line between them.
 */
#define ENTER "\033[?1049h\033[?25l"
#define LEAVE "\033[?25h\033[?1049l"
#define HOME  "\033[H"
#define EOL   "\033[K\n" /* clear what is left of the line before */
#define BELOW "\033[J"

#define ASK_MS 3000L
/* Of events, where there is no height. */
#define N_EVENTS 5

struct top {
    const struct ctl_options *o;
    struct remote *remote;
    struct screen screen;
    bool in_terminal, has_keys;
    struct termios saved;
    int signals;
    json_t *now, *before;
    bool reached; /* by the last request */
};

static void
enter(struct top *t)
{
    struct termios raw = t->saved;

    if (!t->in_terminal)
        return;
    if (t->has_keys) {
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    }
    fputs(ENTER, stdout);
    fflush(stdout);
}

static void
leave(struct top *t)
{
    if (!t->in_terminal)
        return;
    fputs(LEAVE, stdout);
    fflush(stdout);
    if (t->has_keys)
        (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &t->saved);
}

static void
start(struct top *t)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGTSTP);
    sigaddset(&set, SIGCONT);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    t->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (t->signals < 0)
        ctl_out_of_memory();
    screen_init(&t->screen, stdout);
    t->in_terminal = screen_is_terminal(&t->screen);
    t->has_keys = t->in_terminal && tcgetattr(STDIN_FILENO, &t->saved) == 0;
    enter(t);
}

static void
fetch(struct top *t)
{
    json_t *doc = remote_doc(t->remote, "/status", ASK_MS);

    t->reached = doc != NULL;
    if (!doc)
        return;
    json_decref(t->before);
    t->before = t->now;
    t->now = doc;
}

static unsigned
count_lines(const char *text)
{
    unsigned n = 0;

    for (; (text = strchr(text, '\n')); text++)
        n++;
    return n;
}

/* Returns a new string: the picture, with as many events as there is room for. */
static char *
picture(struct top *t, unsigned height)
{
    struct screen s = t->screen;
    char *text = NULL;
    size_t len;

    s.out = open_memstream(&text, &len);
    if (!s.out)
        ctl_out_of_memory();
    if (t->now)
        picture_put(&s, t->now, t->before, 0);
    fflush(s.out);
    unsigned used = count_lines(text);
    if (t->now && used + 2 <= height)
        picture_events(&s, t->now, height - used - 1);
    if (fclose(s.out) != 0)
        ctl_out_of_memory();
    return text;
}

static void
put_footer(struct top *t, unsigned hidden)
{
    struct screen *s = &t->screen;

    if (!t->reached) {
        screen_add(s, TINT_BAD, "%s", remote_why(t->remote));
    } else if (hidden > 0) {
        screen_add(s, TINT_WARN, "%u more line%s than fit", hidden, hidden == 1 ? "" : "s");
    } else {
        screen_add(s, TINT_FAINT, "every %s%s", human_age((double)t->o->interval_ms).s,
                   t->has_keys ? ", q ends" : "");
    }
    s->used = 0;
}

static void
draw_in_terminal(struct top *t)
{
    unsigned room, hidden = 0, y = 0;
    char *text, *rest, *line;

    screen_measure(&t->screen);
    room = t->screen.height > 1 ? t->screen.height - 1 : 1;
    text = rest = picture(t, room);
    fputs(HOME, stdout);
    for (; (line = strsep(&rest, "\n")) && rest; y++) {
        if (y < room)
            printf("%s" EOL, line);
        else
            hidden++;
    }
    fputs(BELOW, stdout);
    printf("\033[%u;1H", room + 1);
    put_footer(t, hidden);
    fputs("\033[K", stdout);
    fflush(stdout);
    free(text);
}

static void
draw(struct top *t, bool is_first)
{
    if (t->in_terminal) {
        draw_in_terminal(t);
        return;
    }
    if (!is_first)
        putchar('\n');
    picture_put(&t->screen, t->now, t->before, N_EVENTS);
    fflush(stdout);
}

/* Returns false when it is to end. */
static bool
hear_signals(struct top *t)
{
    struct signalfd_siginfo info;

    while (read(t->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGTSTP) {
            leave(t);
            (void)raise(SIGSTOP);
        } else if (info.ssi_signo == SIGCONT) {
            enter(t); /* the shell has had the terminal */
        } else if (info.ssi_signo != SIGWINCH) {
            return false;
        }
    }
    if (t->in_terminal)
        draw_in_terminal(t);
    return true;
}

/* Returns false when it is to end. */
static bool
hear_keys(struct top *t)
{
    char keys[64];
    ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

    if (n <= 0)
        t->has_keys = false; /* the other end has gone */
    return n <= 0 || (!memchr(keys, 'q', (size_t)n) && !memchr(keys, 'Q', (size_t)n));
}

/* Waits until it is time for the next picture; returns false when it is to end. */
static bool
pause_or_end(struct top *t)
{
    uint64_t end = monotonic_ms() + t->o->interval_ms, now;

    while ((now = monotonic_ms()) < end) {
        struct pollfd fds[] = {{t->signals, POLLIN, 0},
                               {t->has_keys ? STDIN_FILENO : -1, POLLIN, 0}};
        if (poll(fds, 2, end - now < 3600000 ? (int)(end - now) : 3600000) < 0 && errno != EINTR)
            return false;
        if (fds[0].revents && !hear_signals(t))
            return false;
        if (fds[1].revents && !hear_keys(t))
            return false;
    }
    return true;
}

/* Returns an exit status. */
static int
run(struct top *t)
{
    uint64_t drawn = 0;

    fetch(t);
    if (!t->reached)
        return CTL_UNREACHABLE;
    if (t->in_terminal) /* something to look at, until there are rates */
        draw_in_terminal(t);
    while (pause_or_end(t)) {
        fetch(t);
        if (!t->reached && !t->in_terminal)
            return CTL_UNREACHABLE;
        draw(t, drawn == 0);
        if (++drawn == t->o->count)
            break;
    }
    return CTL_OK;
}

int
ctl_top(const struct ctl_options *o)
{
    struct top t = {.o = o, .remote = remote_open(o->socket)};
    int status;

    start(&t);
    status = run(&t);
    leave(&t);
    if (status == CTL_UNREACHABLE)
        ctl_say("%s", remote_why(t.remote));
    json_decref(t.now);
    json_decref(t.before);
    remote_close(t.remote);
    close(t.signals);
    return status;
}
