/* SPDX-License-Identifier: MIT */
#include "config.h"

#include "conf.h"
#include "daemon.h"
#include "handover.h"
#include "inherit.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_PATH SYSCONFDIR "/redial/rediald.conf"

/* Were one of them closed, a socket would get its number, and the log would go to a client. */
static void
hold_standard_streams(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR); /* kept by what we start as well: no O_CLOEXEC */
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

struct command_line {
    const char **paths, **servers; /* room for every argument */
    size_t n_paths, n_servers;
    const char *listen;
    enum log_level log_level;
    bool has_log_level, check, dump;
    char *const *argv;
};

static void
usage(FILE *out)
{
    fprintf(out, "usage: rediald [-c PATH]... [--check] [--dump] [--log-level LEVEL]\n"
                 "       rediald --listen ADDRESS --server ADDRESS [--server ADDRESS]...\n"
                 "\n"
                 "  -c, --config PATH   configuration file, or directory of *.conf; repeatable\n"
                 "                      (default: " DEFAULT_PATH ")\n"
                 "      --listen ADDR   one proxy without a file: where clients come in\n"
                 "      --server ADDR   and where they go; repeatable\n"
                 "      --check         check the configuration and exit\n"
                 "      --dump          print the effective configuration and exit\n"
                 "      --log-level L   error, warning, notice, info or debug\n"
                 "      --version       print the version and exit\n"
                 "  -h, --help          print this and exit\n"
                 "\n"
                 "An ADDRESS is 127.0.0.1:PORT, [::1]:PORT, unix:/PATH or unix:@NAME; to listen "
                 "also *:PORT\n"
                 "and systemd:NAME.\n"
                 "Exit status: 0 fine, 64 usage, 70 internal, 71 refused by the system, 78 "
                 "configuration.\n");
}

static _Noreturn void
usage_error(const char *what, const char *word)
{
    fprintf(stderr, "rediald: %s%s%s; see rediald --help\n", what, word ? ": " : "",
            word ? word : "");
    exit(DAEMON_USAGE);
}

/* Options without a letter. */
enum { OPT_CHECK = 256, OPT_DUMP, OPT_LISTEN, OPT_LOG_LEVEL, OPT_SERVER, OPT_VERSION };

static void
parse(struct command_line *cl, int argc, char **argv)
{
    static const struct option options[] = {
        {"check", no_argument, NULL, OPT_CHECK},
        {"config", required_argument, NULL, 'c'},
        {"dump", no_argument, NULL, OPT_DUMP},
        {"help", no_argument, NULL, 'h'},
        {"listen", required_argument, NULL, OPT_LISTEN},
        {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
        {"server", required_argument, NULL, OPT_SERVER},
        {"version", no_argument, NULL, OPT_VERSION},
        {NULL, 0, NULL, 0},
    };
    int opt;

    while ((opt = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            cl->paths[cl->n_paths++] = optarg;
            break;
        case OPT_CHECK:
            cl->check = true;
            break;
        case OPT_DUMP:
            cl->dump = true;
            break;
        case OPT_LISTEN:
            if (cl->listen)
                usage_error("--listen may be given once", NULL);
            cl->listen = optarg;
            break;
        case OPT_LOG_LEVEL:
            if (!log_level_parse(optarg, &cl->log_level))
                usage_error("--log-level takes error, warning, notice, info or debug, not", optarg);
            cl->has_log_level = true;
            break;
        case OPT_SERVER:
            cl->servers[cl->n_servers++] = optarg;
            break;
        case OPT_VERSION:
            puts("rediald " PACKAGE_VERSION);
            exit(DAEMON_OK);
        case 'h':
            usage(stdout);
            exit(DAEMON_OK);
        default:
            exit(DAEMON_USAGE); /* getopt has said why */
        }
    }
    if (optind < argc)
        usage_error("unexpected argument", argv[optind]);
    if (!cl->listen != (cl->n_servers == 0))
        usage_error("--listen and --server go together", NULL);
    if (cl->listen && cl->n_paths > 0)
        usage_error("--listen and -c exclude each other", NULL);
    if (!cl->listen && cl->n_paths == 0)
        cl->paths[cl->n_paths++] = DEFAULT_PATH;
}

static struct conf *
load(void *arg, FILE *errors)
{
    const struct command_line *cl = arg;
    struct conf *conf;

    if (cl->listen)
        conf = conf_load_simple(cl->listen, cl->servers, cl->n_servers, errors);
    else
        conf = conf_load(cl->paths, cl->n_paths, errors);
    if (conf && cl->has_log_level)
        conf->daemon.log_level = cl->log_level;
    return conf;
}

/* Takes ${conf}. */
static int
act(struct command_line *cl, struct conf *conf)
{
    char program[PATH_MAX] = "";
    const struct daemon_source source = {.load = load,
                                         .arg = cl,
                                         .program = program,
                                         .argv = cl->argv};
    int status = DAEMON_OK;

    log_setup(conf->daemon.log_level, conf->daemon.log_format);
    /* By its path: an upgrade runs what is there then. */
    if (readlink("/proc/self/exe", program, sizeof(program) - 1) < 0)
        snprintf(program, sizeof(program), "%s", cl->argv[0]);
    if (!cl->dump && !cl->check)
        return daemon_run(conf, &source);
    if (cl->dump)
        conf_dump(conf, stdout);
    else
        status = daemon_check(conf);
    if (!cl->dump && status == DAEMON_OK)
        puts("the configuration is valid");
    conf_free(conf);
    return status;
}

int
main(int argc, char **argv)
{
    struct command_line cl = {
        .paths = calloc((size_t)argc + 1, sizeof(char *)),
        .servers = calloc((size_t)argc + 1, sizeof(char *)),
        .argv = argv,
    };
    struct conf *conf = NULL;
    int status = DAEMON_CONFIG;

    hold_standard_streams();
    if (!cl.paths || !cl.servers) {
        fputs("rediald: out of memory\n", stderr);
        return DAEMON_INTERNAL;
    }
    parse(&cl, argc, argv);
    handover_take_ready();
    if (inherit_take() == 0) {
        conf = load(&cl, stderr);
    } else {
        fprintf(stderr, "rediald: the sockets of LISTEN_FDS cannot be taken: %s\n",
                strerror(errno));
        status = DAEMON_OS;
    }
    if (conf)
        status = act(&cl, conf);
    free(cl.paths);
    free(cl.servers);
    return status;
}
