/* SPDX-License-Identifier: MIT */

/*
 * The load of the benchmark, on 127.0.0.1: a server, and clients that ask it through a proxy.
 * One thread, one epoll.
 *
 * A connection begins with two words of 32 bits, the sizes of a request and of its answer, which
 * count as the first bytes of the first request. The server sends an answer for each request that
 * it has read whole.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND      1000000000ULL
#define MAX_FD      65536
#define MAX_SAMPLES (1u << 22) /* the latest are kept */
#define MAX_ERRORS  10000
#define EVENTS      256
#define ACCEPTS     64

enum role { LISTENER, SERVER, CLIENT };
enum mode { RR, CRR, IDLE, RECOVER };

struct end {
    enum role role;
    uint32_t sizes[2]; /* of a request, of an answer */
    unsigned head_len; /* how much of the two words the server has */
    uint64_t got;      /* of the message that is being read */
    uint64_t due;      /* still to be sent */
    uint64_t begin;
    bool connected, answered, wants_out;
};

static struct {
    enum mode mode;
    double port, ports, server_port;
    double clients, burst;
    double request, answer; /* bytes */
    double seconds, warm_up, outage, patience;
} opt = {
    .ports = 1,
    .clients = 64,
    .burst = 128,
    .request = 64,
    .answer = 64,
    .seconds = 3,
    .warm_up = 0.3,
    .outage = 2,
    .patience = 120,
};

static struct end *ends; /* by descriptor */
static int epoll = -1;
static char in[1 << 18], out[1 << 18];
static uint32_t *samples; /* ns */
static uint64_t counted;  /* requests in the measured time; those before are in total alone */
static uint64_t total, failed;
static int opened, answered;
static uint64_t listening_since;

static uint64_t
now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static uint64_t
ns(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void
die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static void
watch(int op, int fd, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.fd = fd};

    if (epoll_ctl(epoll, op, fd, &ev) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

static struct end *
end_new(int fd, enum role role)
{
    struct end *e = &ends[fd];

    if (fd >= MAX_FD)
        die("more than %d descriptors", MAX_FD);
    *e = (struct end){.role = role};
    return e;
}

static struct sockaddr_in
loopback(double port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

static int
tcp_socket(void)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void
server_listen(double port)
{
    struct sockaddr_in sin = loopback(port);
    int one = 1, fd = tcp_socket();

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&sin, sizeof sin) != 0 || listen(fd, 65535) != 0)
        die("port %g: %s", port, strerror(errno));
    end_new(fd, LISTENER);
    watch(EPOLL_CTL_ADD, fd, EPOLLIN);
}

static void
server_accept(int listener)
{
    int i, fd;

    for (i = 0; i < ACCEPTS; i++) {
        fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        end_new(fd, SERVER);
        watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
}

/* Send what is due, as far as it goes: 0, or -1. */
static int
send_due(int fd, struct end *e)
{
    ssize_t n;

    while (e->due > 0) {
        n = send(fd, out, e->due < sizeof out ? e->due : sizeof out, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        e->due -= (uint64_t)n;
    }
    return 0;
}

static void
server_take(struct end *e, const char *data, size_t n)
{
    size_t head = sizeof e->sizes - e->head_len;

    head = head < n ? head : n;
    memcpy((char *)e->sizes + e->head_len, data, head);
    e->head_len += (unsigned)head;
    e->got += n;
    if (e->head_len == sizeof e->sizes && e->sizes[0] > 0) {
        e->due += e->got / e->sizes[0] * e->sizes[1];
        e->got %= e->sizes[0];
    }
}

static int
server_serve(int fd, struct end *e, uint32_t events)
{
    ssize_t n;

    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        n = recv(fd, in, sizeof in, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return -1;
        if (n > 0)
            server_take(e, in, (size_t)n);
    }
    if (send_due(fd, e) != 0)
        return -1;
    if (e->wants_out != (e->due > 0)) {
        e->wants_out = e->due > 0;
        watch(EPOLL_CTL_MOD, fd, EPOLLIN | (e->wants_out ? EPOLLOUT : 0));
    }
    return 0;
}

static void
count_failure(const char *why)
{
    if (++failed > MAX_ERRORS)
        die("%" PRIu64 " connections failed, the last one with: %s", failed, why);
}

static void
client_open(void)
{
    struct sockaddr_in sin = loopback(opt.port);
    int fd = tcp_socket();
    struct end *e = end_new(fd, CLIENT);

    e->begin = now();
    if (connect(fd, (struct sockaddr *)&sin, sizeof sin) != 0 && errno != EINPROGRESS) {
        count_failure(strerror(errno));
        close(fd);
        return;
    }
    watch(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLET);
}

static void
record(uint64_t begin)
{
    uint64_t took = now() - begin;

    samples[counted++ % MAX_SAMPLES] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    total++;
}

/* The answer is there, or, in recovery, its first byte. True: the connection goes on. */
static bool
client_answered(int fd, struct end *e)
{
    e->answered = true;
    answered++;
    switch (opt.mode) {
    case RR:
        record(e->begin);
        e->begin = now();
        e->due = (uint64_t)opt.request;
        if (send_due(fd, e) != 0)
            count_failure(strerror(errno));
        return true;
    case CRR:
        record(e->begin);
        close(fd);
        client_open();
        return false;
    case IDLE:
        if (opened < opt.clients) {
            opened++;
            client_open();
        }
        return true;
    case RECOVER:
        record(listening_since);
        close(fd);
        return false;
    }
    return true;
}

static int
client_read(int fd, struct end *e)
{
    uint64_t enough = opt.mode == RECOVER ? 1 : (uint64_t)opt.answer;
    ssize_t n;

    for (;;) {
        n = recv(fd, in, sizeof in, 0);
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0)
            return -1;
        e->got += (uint64_t)n;
        if (e->got >= enough && !(e->answered && opt.mode != RR)) {
            e->got -= enough;
            /* The next answer makes a new edge. */
            client_answered(fd, e);
            return 0;
        }
    }
}

static int
client_serve(int fd, struct end *e, uint32_t events)
{
    if (events & EPOLLERR)
        return -1;
    if (!e->connected && (events & EPOLLOUT)) {
        e->connected = true;
        e->due = (uint64_t)opt.request;
        if (opt.mode == RR)
            e->begin = now();
    }
    if (e->due > 0 && (events & EPOLLOUT) && send_due(fd, e) != 0)
        return -1;
    if (e->connected && (events & (EPOLLIN | EPOLLHUP)))
        return client_read(fd, e);
    return 0;
}

static void
serve(int fd, uint32_t events)
{
    struct end *e = &ends[fd];

    switch (e->role) {
    case LISTENER:
        server_accept(fd);
        break;
    case SERVER:
        if (server_serve(fd, e, events) != 0)
            close(fd);
        break;
    case CLIENT:
        if (client_serve(fd, e, events) != 0) {
            count_failure("reset or closed");
            close(fd);
            if (opt.mode != RECOVER)
                client_open();
        }
        break;
    }
}

static void
turn(int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int i, n = epoll_wait(epoll, events, EVENTS, timeout_ms);

    for (i = 0; i < n; i++)
        serve(events[i].data.fd, events[i].events);
}

static int
by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static double
percentile_us(double p)
{
    uint64_t n = counted < MAX_SAMPLES ? counted : MAX_SAMPLES;

    return n > 0 ? samples[(uint64_t)(p * (double)(n - 1))] / 1000.0 : 0;
}

static void
report(double seconds)
{
    qsort(samples, counted < MAX_SAMPLES ? counted : MAX_SAMPLES, sizeof *samples, by_value);
    printf("{\"total\": %" PRIu64 ", \"seconds\": %.6f, \"rate\": %.1f, \"failed\": %" PRIu64
           ", \"min_us\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": "
           "%.1f}\n",
           total, seconds, (double)counted / seconds, failed, percentile_us(0), percentile_us(.5),
           percentile_us(.99), percentile_us(.999), percentile_us(1));
}

static void
run_requests(void)
{
    uint64_t begin, end = now() + ns(opt.warm_up);

    while (opened++ < opt.clients)
        client_open();
    while (now() < end)
        turn(100);
    counted = 0;
    begin = now();
    end = begin + ns(opt.seconds);
    while (now() < end)
        turn(100);
    report((double)(now() - begin) / 1e9);
}

static void
run_idle(void)
{
    struct pollfd parent = {.fd = STDIN_FILENO, .events = POLLIN};
    uint64_t end = now() + ns(opt.patience);

    while (opened < opt.clients && opened < opt.burst) {
        opened++;
        client_open();
    }
    while (answered < opt.clients && now() < end)
        turn(100);
    if (answered < opt.clients)
        die("%d of %g connections answered in %g s", answered, opt.clients, opt.patience);
    printf("READY\n");
    fflush(stdout);
    poll(&parent, 1, (int)(opt.patience * 1000)); /* our end is the end of stdin */
}

/* Clients come while there is no server; then it listens. How long until each is served? */
static void
run_recover(void)
{
    uint64_t begin = now(), end = begin + ns(opt.outage);

    while (opened++ < opt.clients)
        client_open();
    while (now() < end && (double)failed < opt.clients)
        turn(10);
    if ((double)failed < opt.clients) {
        server_listen(opt.server_port);
        listening_since = now();
        end = listening_since + ns(opt.patience);
        while (answered + (double)failed < opt.clients && now() < end)
            turn(10);
    }
    report((double)(now() - begin) / 1e9);
}

static void
init(void)
{
    struct rlimit limit;

    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    ends = calloc(MAX_FD, sizeof *ends);
    samples = malloc(MAX_SAMPLES * sizeof *samples);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!ends || !samples || epoll < 0)
        die("no memory or descriptor");
    /* Pages are faulted in before anything is measured. */
    memset(ends, 1, MAX_FD * sizeof *ends);
    memset(samples, 1, MAX_SAMPLES * sizeof *samples);
}

static _Noreturn void
run_server(void)
{
    double port;

    for (port = opt.port; port < opt.port + opt.ports; port++)
        server_listen(port);
    for (;;)
        turn(-1);
}

static _Noreturn void
usage(void)
{
    fputs("usage: load serve PORT [-n PORTS]\n"
          "       load rr|crr PORT [-c CLIENTS] [-q REQUEST] [-s ANSWER] [-w WARM-UP] [-d "
          "SECONDS]\n"
          "       load idle PORT [-c CLIENTS] [-b AT-ONCE] [-q REQUEST] [-s ANSWER] [-t PATIENCE]\n"
          "       load recover PORT -l SERVER-PORT [-c CLIENTS] [-o OUTAGE] [-t PATIENCE]\n",
          stderr);
    exit(64);
}

static void
parse(int argc, char **argv)
{
    static const char letters[] = "bcdlnoqstw";
    double *const numbers[] = {
        &opt.burst,  &opt.clients, &opt.seconds, &opt.server_port, &opt.ports,
        &opt.outage, &opt.request, &opt.answer,  &opt.patience,    &opt.warm_up,
    };
    uint32_t sizes[2];
    int letter;

    while ((letter = getopt(argc, argv, "b:c:d:l:n:o:q:s:t:w:")) != -1) {
        if (letter == '?')
            usage();
        *numbers[strchr(letters, letter) - letters] = atof(optarg);
    }
    sizes[0] = (uint32_t)opt.request;
    sizes[1] = (uint32_t)opt.answer;
    memcpy(out, sizes, sizeof sizes);
}

int
main(int argc, char **argv)
{
    static const char *const modes[] = {"rr", "crr", "idle", "recover"};
    static void (*const runs[])(void) = {run_requests, run_requests, run_idle, run_recover};
    size_t i;

    if (argc < 3)
        usage();
    opt.port = atof(argv[2]);
    parse(argc - 2, argv + 2);
    init();
    if (strcmp(argv[1], "serve") == 0)
        run_server();
    for (i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(argv[1], modes[i]) == 0) {
            opt.mode = (enum mode)i;
            runs[i]();
            return 0;
        }
    }
    usage();
}
