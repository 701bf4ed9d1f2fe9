/* SPDX-License-Identifier: MIT */
#include "screen.h"

#include "value.h"

#include <langinfo.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

/* `\xNN' for each byte. */
#define ESCAPE_LEN 4

static const char *const tints[] = {
    [TINT_NONE] = "",        [TINT_GOOD] = "\033[32m", [TINT_WARN] = "\033[33m",
    [TINT_BAD] = "\033[31m", [TINT_FAINT] = "\033[2m", [TINT_BOLD] = "\033[1m",
};

static unsigned
size_of_env(const char *name, unsigned fallback)
{
    const char *text = getenv(name), *why;
    uint64_t n;

    if (text && value_uint(text, &n, &why) == 0 && n > 0 && n < 10000)
        return (unsigned)n;
    return fallback;
}

bool
screen_is_terminal(const struct screen *s)
{
    const char *term = getenv("TERM");

    return isatty(fileno(s->out)) && term && *term && strcmp(term, "dumb") != 0;
}

void
screen_measure(struct screen *s)
{
    struct winsize size = {.ws_col = 0};

    s->width = s->height = 0;
    if (!isatty(fileno(s->out)))
        return;
    (void)ioctl(fileno(s->out), TIOCGWINSZ, &size);
    s->width = size_of_env("COLUMNS", size.ws_col > 0 ? size.ws_col : 80);
    s->height = size_of_env("LINES", size.ws_row > 0 ? size.ws_row : 24);
}

void
screen_init(struct screen *s, FILE *out)
{
    const char *no_color = getenv("NO_COLOR");

    *s = (struct screen){.out = out};
    s->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    s->colour = screen_is_terminal(s) && (!no_color || !*no_color);
    screen_measure(s);
}

const char *
screen_bullet(const struct screen *s)
{
    return s->utf8 ? "\xe2\x97\x8f" : "*";
}

const char *
screen_dots(const struct screen *s)
{
    return s->utf8 ? "\xe2\x80\xa6" : "~";
}

/*
 * Steps over one character and returns how many columns it takes; 0: it is not printable. Marks without a width of their own are not either: among
 * them are those that turn the direction of text.
 */
static unsigned
step(const char **p)
{
    mbstate_t state;
    wchar_t c;
    size_t n;
    int columns;

    memset(&state, 0, sizeof(state));
    n = mbrtowc(&c, *p, strlen(*p), &state);
    if (n == (size_t)-1 || n == (size_t)-2 || n == 0) {
        (*p)++;
        return 0;
    }
    *p += n;
    columns = wcwidth(c);
    return columns > 0 ? (unsigned)columns : 0;
}

char *
screen_clean(const char *text)
{
    char *clean = malloc(strlen(text) * ESCAPE_LEN + 1), *q = clean;

    if (!clean)
        return NULL;
    for (const char *p = text, *from; *p != '\0';) {
        from = p;
        if (step(&p) > 0) {
            memcpy(q, from, (size_t)(p - from));
            q += p - from;
            continue;
        }
        for (; from < p; from++)
            q += snprintf(q, ESCAPE_LEN + 1, "\\x%02x", (unsigned char)*from);
    }
    *q = '\0';
    return clean;
}

unsigned
screen_columns(const char *text)
{
    unsigned columns = 0;

    while (*text != '\0')
        columns += step(&text);
    return columns;
}

const char *
screen_skip(const char *text, unsigned columns)
{
    for (const char *next = text; *text != '\0'; text = next) {
        unsigned width = step(&next);

        if (width > columns)
            break;
        columns -= width;
    }
    return text;
}

static void
put(struct screen *s, enum tint tint, const char *text, size_t len)
{
    bool tinted = s->colour && tint != TINT_NONE && len > 0;

    if (tinted)
        fputs(tints[tint], s->out);
    fwrite(text, 1, len, s->out);
    if (tinted)
        fputs("\033[0m", s->out);
}

static void add(struct screen *s, enum tint tint, bool whole, const char *fmt, va_list args)
    __attribute__((format(printf, 4, 0)));

static void
add(struct screen *s, enum tint tint, bool whole, const char *fmt, va_list args)
{
    char *text, *clean;
    size_t len;

    if (vasprintf(&text, fmt, args) < 0)
        return;
    clean = screen_clean(text);
    free(text);
    if (!clean)
        return;
    len = strlen(clean);
    if (!whole && s->width > 0)
        len = (size_t)(screen_skip(clean, s->used < s->width ? s->width - s->used : 0) - clean);
    put(s, tint, clean, len);
    clean[len] = '\0';
    s->used += screen_columns(clean);
    free(clean);
}

void
screen_add(struct screen *s, enum tint tint, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    add(s, tint, false, fmt, args);
    va_end(args);
}

void
screen_whole(struct screen *s, enum tint tint, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    add(s, tint, true, fmt, args);
    va_end(args);
}

void
screen_pad(struct screen *s, unsigned column)
{
    if (s->used < column)
        screen_add(s, TINT_NONE, "%*s", (int)(column - s->used), "");
}

void
screen_end(struct screen *s)
{
    putc('\n', s->out);
    s->used = 0;
}

void
screen_wrap(struct screen *s, unsigned indent, enum tint tint, const char *text)
{
    char *clean = screen_clean(text);
    bool is_first = true;

    if (!clean)
        return;
    for (const char *word = clean + strspn(clean, " "), *end; *word != '\0';
         word = end + strspn(end, " ")) {
        end = word + strcspn(word, " ");
        char *copy = strndup(word, (size_t)(end - word));
        unsigned columns = copy ? screen_columns(copy) : 0;

        if (s->width > 0 && !is_first && s->used + 1 + columns > s->width) {
            screen_end(s);
            is_first = true;
        }
        if (is_first)
            screen_pad(s, indent);
        screen_whole(s, tint, "%s%s", is_first ? "" : " ", copy ? copy : "");
        is_first = false;
        free(copy);
    }
    screen_end(s);
    free(clean);
}
