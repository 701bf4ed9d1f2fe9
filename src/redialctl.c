/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "redialctl_internal.h"
#include "value.h"

#include <getopt.h>
#include <locale.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Over which rates are measured, and how often top draws. */
#define STATUS_INTERVAL_MS 500
#define TOP_INTERVAL_MS    2000
#define TOP_INTERVAL_MIN   100

/* Options that a command may have, beside --socket. */
enum { HAS_JSON = 1, HAS_INTERVAL = 2, HAS_COUNT = 4, HAS_KILL = 8, HAS_WAIT = 16, HAS_PATHS = 32 };

static const struct command {
    const char *name;
    unsigned options;
    bool has_target;
    int (*run)(const struct ctl_options *o);
} commands[] = {
    {"status", HAS_JSON | HAS_INTERVAL, false, ctl_status},
    {"top", HAS_INTERVAL | HAS_COUNT, false, ctl_top},
    {"sessions", HAS_JSON | HAS_INTERVAL, false, ctl_sessions},
    {"reload", 0, false, ctl_reload},
    {"drain", 0, false, ctl_drain},
    {"enable", 0, true, ctl_enable},
    {"disable", HAS_KILL, true, ctl_disable},
    {"ready", HAS_WAIT, false, ctl_ready},
    {"doctor", HAS_JSON | HAS_PATHS, false, ctl_doctor},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void
usage(FILE *out)
{
    fputs("usage: redialctl [--socket ADDRESS] COMMAND [OPTION]...\n"
          "\n"
          "  status                   proxies and servers; rates over -d (500ms)\n"
          "  top                      the same, again and again, every -d (2s)\n"
          "  sessions                 who is connected to what; rates over -d (500ms)\n"
          "  reload                   read the configuration again, and wait for it\n"
          "  drain                    end the daemon; sessions may go on for drain_timeout\n"
          "  enable UPSTREAM/SERVER   give it clients again\n"
          "  disable UPSTREAM/SERVER  give it no more clients\n"
          "  ready                    is the daemon serving, each proxy with a server?\n"
          "  doctor                   examine host and configuration; no daemon needed\n"
          "\n"
          "      --socket ADDRESS     where the daemon is: PATH, unix:PATH, unix:@NAME or\n"
          "                           HOST:PORT (default: $REDIAL_ADMIN, else admin.sock in\n"
          "                           $RUNTIME_DIRECTORY or /run/redial)\n"
          "  -c, --config PATH        doctor: configuration file or directory; repeatable\n"
          "  -d, --interval TIME      status, sessions, top: 500ms, 2s; a number is seconds\n"
          "      --json               status, sessions, doctor: a document for programs\n"
          "      --kill               disable: reset the sessions of the server, too\n"
          "  -n, --count N            top: end after N pictures\n"
          "      --wait TIME          ready: ask again until it is, or TIME is over\n"
          "      --version            print the version and exit\n"
          "  -h, --help               print this and exit\n"
          "\n"
          "Exit status: 0 fine, 1 not ready, refused, cut or something found, 2 no daemon,\n"
          "64 usage, 70 internal, 71 output cannot be written, 78 bad configuration.\n",
          out);
}

void
ctl_say(const char *fmt, ...)
{
    struct screen s = {.out = stderr};
    va_list args;
    char *text;

    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) >= 0) {
        fflush(stdout);
        screen_whole(&s, TINT_NONE, "redialctl: %s", text);
        screen_end(&s);
        free(text);
    }
    va_end(args);
}

void
ctl_out_of_memory(void)
{
    fputs("redialctl: out of memory\n", stderr);
    exit(CTL_INTERNAL);
}

void
ctl_sleep(uint64_t ms)
{
    struct timespec pause = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&pause, NULL);
}

static _Noreturn void usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static _Noreturn void
usage_error(const char *fmt, ...)
{
    va_list args;
    char *text;

    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) < 0)
        ctl_out_of_memory();
    va_end(args);
    ctl_say("%s; see redialctl --help", text);
    exit(CTL_USAGE);
}

static uint64_t
duration(const char *option, const char *text)
{
    const char *why;
    uint64_t ms;

    if (value_duration(text, &ms, &why) != 0)
        usage_error("%s %s: %s", option, text, why);
    return ms;
}

/* As in top(1) and watch(1), a number alone is seconds. */
static uint64_t
interval(const char *text)
{
    const char *why;
    uint64_t seconds;

    if (value_uint(text, &seconds, &why) == 0)
        return seconds * 1000;
    return duration("--interval", text);
}

static uint64_t
number(const char *option, const char *text)
{
    const char *why;
    uint64_t n;

    if (value_uint(text, &n, &why) != 0)
        usage_error("%s %s: %s", option, text, why);
    if (n == 0)
        usage_error("%s 0: allowed is at least 1", option);
    return n;
}

/* Options without a letter. */
enum { OPT_JSON = 256, OPT_KILL, OPT_SOCKET, OPT_VERSION, OPT_WAIT };

/* Returns which of the options of commands were given. */
static unsigned
parse_options(struct ctl_options *o, int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"count", required_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},
        {"interval", required_argument, NULL, 'd'},
        {"json", no_argument, NULL, OPT_JSON},
        {"kill", no_argument, NULL, OPT_KILL},
        {"socket", required_argument, NULL, OPT_SOCKET},
        {"version", no_argument, NULL, OPT_VERSION},
        {"wait", required_argument, NULL, OPT_WAIT},
        {NULL, 0, NULL, 0},
    };
    unsigned given = 0;
    int opt;

    while ((opt = getopt_long(argc, argv, "c:d:hn:", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            o->paths[o->n_paths++] = optarg;
            given |= HAS_PATHS;
            break;
        case 'd':
            o->interval_ms = interval(optarg);
            given |= HAS_INTERVAL;
            break;
        case 'n':
            o->count = number("--count", optarg);
            given |= HAS_COUNT;
            break;
        case OPT_JSON:
            o->json = true;
            given |= HAS_JSON;
            break;
        case OPT_KILL:
            o->kill = true;
            given |= HAS_KILL;
            break;
        case OPT_SOCKET:
            o->socket = optarg;
            break;
        case OPT_WAIT:
            o->wait_ms = duration("--wait", optarg);
            given |= HAS_WAIT;
            break;
        case OPT_VERSION:
            puts("redialctl " PACKAGE_VERSION);
            exit(CTL_OK);
        case 'h':
            usage(stdout);
            exit(CTL_OK);
        default:
            exit(CTL_USAGE); /* getopt has said why */
        }
    }
    return given;
}

static const struct command *
find_command(const char *name)
{
    const char *names[N_COMMANDS], *nearest;

    if (!name)
        usage_error("a command is missing");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(name, names[i]) == 0)
            return &commands[i];
    }
    nearest = value_nearest(name, names, N_COMMANDS);
    if (nearest)
        usage_error("there is no command %s; did you mean %s?", name, nearest);
    usage_error("there is no command %s", name);
}

static void
check_options(const struct command *command, unsigned given)
{
    static const struct {
        unsigned option;
        const char *text;
    } names[] = {{HAS_JSON, "--json"}, {HAS_INTERVAL, "--interval"}, {HAS_COUNT, "--count"},
                 {HAS_KILL, "--kill"}, {HAS_WAIT, "--wait"},         {HAS_PATHS, "--config"}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (given & ~command->options & names[i].option)
            usage_error("%s takes no %s", command->name, names[i].text);
}

static void
check_target(const char *target)
{
    const char *slash = target ? strchr(target, '/') : NULL;

    if (!target)
        usage_error("UPSTREAM/SERVER is missing: the names that status shows");
    if (!slash || slash == target || slash[1] == '\0')
        usage_error("%s is no UPSTREAM/SERVER: the names that status shows", target);
}

static const struct command *
parse(struct ctl_options *o, int argc, char **argv)
{
    unsigned given = parse_options(o, argc, argv);
    const struct command *command = find_command(argv[optind]);
    bool is_top = command->run == ctl_top;

    check_options(command, given);
    o->target = command->has_target ? argv[optind + 1] : NULL;
    if (command->has_target)
        check_target(o->target);
    if (argv[optind + 1] && argv[optind + 1 + command->has_target])
        usage_error("%s is too much", argv[optind + 1 + command->has_target]);
    if (!(given & HAS_INTERVAL))
        o->interval_ms = is_top ? TOP_INTERVAL_MS : STATUS_INTERVAL_MS;
    if (is_top && o->interval_ms < TOP_INTERVAL_MIN)
        usage_error("top draws at most every %dms", TOP_INTERVAL_MIN);
    return command;
}

int
main(int argc, char **argv)
{
    struct ctl_options o = {.paths = calloc((size_t)argc + 1, sizeof(char *))};
    int status;

    setlocale(LC_CTYPE, "");
    if (!o.paths)
        ctl_out_of_memory();
    status = parse(&o, argc, argv)->run(&o);
    free(o.paths);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        ctl_say("the output cannot be written");
        return CTL_OS;
    }
    return status;
}
