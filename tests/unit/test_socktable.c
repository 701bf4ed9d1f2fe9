/* SPDX-License-Identifier: MIT */
#include "socktable.h"

#include <arpa/inet.h>
#include <check.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))
#define REST                                                                                       \
    "00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0"

static struct addr
parsed(const char *text)
{
    struct addr a;
    const char *why = NULL;

    ck_assert_msg(addr_parse(&a, text, &why) == 0, "%s: %s", text, why);
    return a;
}

/* The table prints the words of an address in the byte order of the host. */
static const struct {
    int family;
    const char *form; /* with the addresses as %s */
    const char *local, *remote;
    const char *local_str, *remote_str;
    unsigned state;
    unsigned long inode;
} lines[] = {
    {AF_INET, "   0: %s:1F90 %s:0000 0A " REST "\n", "127.0.0.1", "0.0.0.0", "127.0.0.1:8080",
     "0.0.0.0:0", TCP_LISTEN, 12345},
    {AF_INET, "1234: %s:FFFF %s:0050 01 " REST, "10.1.2.3", "192.168.0.254", "10.1.2.3:65535",
     "192.168.0.254:80", TCP_ESTABLISHED, 12345},
    {AF_INET,
     "  17: %s:9C40 %s:9C40 06 00000000:00000000 03:00001766 00000000     0        0 0 3 "
     "0000000000000000                                      \n",
     "127.0.0.1", "127.0.0.1", "127.0.0.1:40000", "127.0.0.1:40000", TCP_TIME_WAIT, 0},
    {AF_INET,
     "   5: %s:0016 %s:8E2A 01 00000024:00000000 01:00000019 00000000     0       -1 4026531993 2 "
     "x",
     "10.0.0.1", "10.0.0.2", "10.0.0.1:22", "10.0.0.2:36394", TCP_ESTABLISHED, 4026531993},
    {AF_INET6, "   0: %s:1F90 %s:0000 0A " REST, "::", "::", "[::]:8080", "[::]:0", TCP_LISTEN,
     12345},
    {AF_INET6, "   0: %s:1F90 %s:0050 08 " REST, "2001:db8:1:2:3:4:5:6",
     "fe80::1234:5678:9abc:def0", "[2001:db8:1:2:3:4:5:6]:8080", "[fe80::1234:5678:9abc:def0]:80",
     TCP_CLOSE_WAIT, 12345},
    {AF_INET6, "   0: %s:1F90 %s:0050 04 " REST, "::ffff:10.0.0.1", "::ffff:10.0.0.2",
     "[::ffff:10.0.0.1]:8080", "[::ffff:10.0.0.2]:80", TCP_FIN_WAIT1, 12345},
};

static void
hex_of(const char *host, int family, char hex[33])
{
    uint32_t words[4];
    size_t n = family == AF_INET ? 1 : 4;

    ck_assert_int_eq(inet_pton(family, host, words), 1);
    for (size_t i = 0; i < n; i++)
        snprintf(hex + 8 * i, 9, "%08X", words[i]);
}

START_TEST(test_line_of_the_table_is_read)
{
    char line[512], local[33], remote[33], buf[ADDR_STR_MAX];
    struct socktable_entry entry;

    hex_of(lines[_i].local, lines[_i].family, local);
    hex_of(lines[_i].remote, lines[_i].family, remote);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(line, sizeof(line), lines[_i].form, local, remote);
#pragma GCC diagnostic pop
    ck_assert(socktable_parse(line, lines[_i].family, &entry));
    ck_assert_str_eq(addr_str(&entry.local, buf), lines[_i].local_str);
    ck_assert_str_eq(addr_str(&entry.remote, buf), lines[_i].remote_str);
    ck_assert_uint_eq(entry.state, lines[_i].state);
    ck_assert_uint_eq(entry.inode, lines[_i].inode);
}
END_TEST

static const struct {
    int family;
    const char *line;
} malformed[] = {
    {AF_INET, ""},
    {AF_INET, "\n"},
    {AF_INET, "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  "
              "timeout inode"},
    {AF_INET,
     "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0   0"},
    {AF_INET, "   0: 0100007F:1F90 00000000:0000 0A "
              "\n"},
    {AF_INET, "   0: 0100007F 00000000:0000 0A " REST},
    {AF_INET, "   0: 0100007F:1F9 00000000:0000 0A " REST},
    {AF_INET, "   0: 0100007F:1F900 00000000:0000 0A " REST},
    {AF_INET, "   0: 0100007:1F90 00000000:0000 0A " REST},
    {AF_INET, "   0: 0100007F:1F90 0000000:0000 0A " REST},
    {AF_INET, "   0: 0100007F:1F90 00000000:000 0A " REST},
    {AF_INET, "   0: 0100007F:1F90 00000000:0000 ZZ " REST},
    {AF_INET, "   0: 0100007G:1F90 00000000:0000 0A " REST},
    {AF_INET,
     "   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A " REST},
    {AF_INET6, "   0: 0100007F:1F90 00000000:0000 0A " REST},
    {AF_INET6,
     "   0: 00000000000000000000000001000000:1F90 0000000000000000000000000000000:0000 0A " REST},
    {AF_INET6,
     "   0: 000000000000000000000000010000000:1F90 00000000000000000000000000000000:0000 0A " REST},
    {AF_UNIX, "   0: 0100007F:1F90 00000000:0000 0A " REST},
    {AF_UNIX, "   0: 00000000000000000000000001000000:1F90 "
              "00000000000000000000000000000000:0000 0A " REST},
};

START_TEST(test_malformed_line_is_refused)
{
    struct socktable_entry entry;

    ck_assert(!socktable_parse(malformed[_i].line, malformed[_i].family, &entry));
}
END_TEST

/* Remote addresses with port 0 are written as they stand in the table. */
static const struct {
    const char *local, *remote;
    unsigned state;
    const char *listen;
    enum socktable_holder holder;
} cases[] = {
    /* listeners: the same address, wildcards of either side, the other family */
    {"127.0.0.1:80", NULL, TCP_LISTEN, "127.0.0.1:80", SOCKTABLE_LISTENER},
    {"127.0.0.1:80", NULL, TCP_LISTEN, "127.0.0.1:81", SOCKTABLE_NOBODY},
    {"127.0.0.1:80", NULL, TCP_LISTEN, "127.0.0.2:80", SOCKTABLE_NOBODY},
    {"127.0.0.1:80", NULL, TCP_LISTEN, "0.0.0.0:80", SOCKTABLE_LISTENER},
    {"127.0.0.1:80", NULL, TCP_LISTEN, "*:80", SOCKTABLE_LISTENER},
    {"127.0.0.1:80", NULL, TCP_LISTEN, "[::]:80", SOCKTABLE_NOBODY},
    {"127.0.0.1:80", NULL, TCP_LISTEN, "[::1]:80", SOCKTABLE_NOBODY},
    {"127.0.0.1:80", NULL, TCP_LISTEN, "[::ffff:127.0.0.1]:80", SOCKTABLE_LISTENER},
    {"127.0.0.1:80", NULL, TCP_LISTEN, "unix:/x", SOCKTABLE_NOBODY},
    {"0.0.0.0:80", NULL, TCP_LISTEN, "10.0.0.1:80", SOCKTABLE_LISTENER},
    {"0.0.0.0:80", NULL, TCP_LISTEN, "[::]:80", SOCKTABLE_NOBODY},
    {"0.0.0.0:80", NULL, TCP_LISTEN, "*:80", SOCKTABLE_LISTENER},
    {"[::1]:80", NULL, TCP_LISTEN, "[::1]:80", SOCKTABLE_LISTENER},
    {"[::1]:80", NULL, TCP_LISTEN, "[::]:80", SOCKTABLE_LISTENER},
    {"[::1]:80", NULL, TCP_LISTEN, "*:80", SOCKTABLE_LISTENER},
    {"[::1]:80", NULL, TCP_LISTEN, "0.0.0.0:80", SOCKTABLE_NOBODY},
    {"[fe80::1]:80", NULL, TCP_LISTEN, "[fe80::1%lo]:80", SOCKTABLE_LISTENER},
    {"[::ffff:127.0.0.1]:80", NULL, TCP_LISTEN, "127.0.0.1:80", SOCKTABLE_LISTENER},
    {"[::ffff:0.0.0.0]:80", NULL, TCP_LISTEN, "127.0.0.1:80", SOCKTABLE_LISTENER},
    {"[::ffff:0.0.0.0]:80", NULL, TCP_LISTEN, "[::1]:80", SOCKTABLE_NOBODY},
    /* V6ONLY or not is not in the table: dual is assumed */
    {"[::]:80", NULL, TCP_LISTEN, "127.0.0.1:80", SOCKTABLE_LISTENER},
    {"[::]:80", NULL, TCP_LISTEN, "0.0.0.0:80", SOCKTABLE_LISTENER},
    {"[::]:80", NULL, TCP_LISTEN, "[::1]:80", SOCKTABLE_LISTENER},
    {"[::]:80", NULL, TCP_LISTEN, "[::]:80", SOCKTABLE_LISTENER},
    {"[::]:80", NULL, TCP_LISTEN, "*:80", SOCKTABLE_LISTENER},
    {"[::]:80", NULL, TCP_LISTEN, "*:81", SOCKTABLE_NOBODY},
    {"[1::]:80", NULL, TCP_LISTEN, "127.0.0.1:80", SOCKTABLE_NOBODY},
    {"[0:0:1::]:80", NULL, TCP_LISTEN, "127.0.0.1:80", SOCKTABLE_NOBODY},
    {"[0:0:0:0:1::]:80", NULL, TCP_LISTEN, "127.0.0.1:80", SOCKTABLE_NOBODY},
    /* connections */
    {"127.0.0.1:80", "127.0.0.1:80", TCP_ESTABLISHED, "127.0.0.1:80", SOCKTABLE_SELF_CONNECTED},
    {"127.0.0.1:80", "127.0.0.1:80", TCP_CLOSE_WAIT, "0.0.0.0:80", SOCKTABLE_SELF_CONNECTED},
    {"127.0.0.1:80", "127.0.0.1:80", TCP_SYN_SENT, "127.0.0.1:80", SOCKTABLE_SELF_CONNECTED},
    {"127.0.0.1:80", "127.0.0.1:80", TCP_TIME_WAIT, "127.0.0.1:80", SOCKTABLE_TIME_WAIT},
    {"127.0.0.1:80", "127.0.0.1:80", TCP_ESTABLISHED, "127.0.0.2:80", SOCKTABLE_NOBODY},
    {"[::1]:80", "[::1]:80", TCP_ESTABLISHED, "*:80", SOCKTABLE_SELF_CONNECTED},
    {"[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80", TCP_ESTABLISHED, "0.0.0.0:80",
     SOCKTABLE_SELF_CONNECTED},
    {"127.0.0.1:80", "127.0.0.1:81", TCP_ESTABLISHED, "127.0.0.1:80", SOCKTABLE_OUTGOING},
    {"127.0.0.1:80", "127.0.0.2:80", TCP_ESTABLISHED, "127.0.0.1:80", SOCKTABLE_OUTGOING},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_ESTABLISHED, "0.0.0.0:80", SOCKTABLE_OUTGOING},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_ESTABLISHED, "*:80", SOCKTABLE_OUTGOING},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_ESTABLISHED, "[::]:80", SOCKTABLE_NOBODY},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_ESTABLISHED, "127.0.0.1:80", SOCKTABLE_NOBODY},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_FIN_WAIT1, "10.0.0.1:80", SOCKTABLE_OUTGOING},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_FIN_WAIT2, "10.0.0.1:80", SOCKTABLE_OUTGOING},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_CLOSE_WAIT, "10.0.0.1:80", SOCKTABLE_OUTGOING},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_LAST_ACK, "10.0.0.1:80", SOCKTABLE_OUTGOING},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_SYN_RECV, "10.0.0.1:80", SOCKTABLE_OUTGOING},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_TIME_WAIT, "10.0.0.1:80", SOCKTABLE_TIME_WAIT},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_TIME_WAIT, "10.0.0.1:5000", SOCKTABLE_NOBODY},
    {"10.0.0.1:80", "10.0.0.2:5000", TCP_CLOSE, "10.0.0.1:80", SOCKTABLE_NOBODY},
    {"[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.2]:9", TCP_ESTABLISHED, "10.0.0.1:80",
     SOCKTABLE_OUTGOING},
    {"[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.2]:9", TCP_ESTABLISHED, "[::]:80", SOCKTABLE_NOBODY},
    {"[2001:db8::1]:80", "[2001:db8::2]:9", TCP_ESTABLISHED, "[::]:80", SOCKTABLE_OUTGOING},
    {"[2001:db8::1]:80", "[2001:db8::2]:9", TCP_ESTABLISHED, "0.0.0.0:80", SOCKTABLE_NOBODY},
    {"[fe80::1]:80", "[fe80::2]:9", TCP_TIME_WAIT, "[fe80::1%lo]:80", SOCKTABLE_TIME_WAIT},
    /* a connection from :: exists nowhere but would not be dual */
    {"[::]:80", "[::1]:9", TCP_ESTABLISHED, "127.0.0.1:80", SOCKTABLE_NOBODY},
};

START_TEST(test_what_an_entry_does_to_a_bind)
{
    struct socktable_entry entry = {.local = parsed(cases[_i].local), .state = cases[_i].state};
    struct addr listen = parsed(cases[_i].listen);

    entry.remote = entry.local;
    if (cases[_i].remote != NULL)
        entry.remote = parsed(cases[_i].remote);
    ck_assert_msg(socktable_classify(&entry, &listen) == cases[_i].holder, "%s -> %s state %u: %s",
                  cases[_i].local, cases[_i].remote ? cases[_i].remote : "-", cases[_i].state,
                  cases[_i].listen);
}
END_TEST

/* A socket bound to ${host} and a port of the kernel's choice, which ${at} gets. */
static int
bound(const char *host, struct addr *at)
{
    const char *why = NULL;
    struct addr a;
    int fd, one = 1;
    socklen_t len = sizeof(a.un);

    ck_assert_int_eq(addr_parse_ip(&a, host, &why), 0);
    fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (a.sa.sa_family == AF_INET6 && fd >= 0)
        ck_assert_int_eq(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)), 0);
    if (fd < 0 || bind(fd, &a.sa, a.len) < 0) {
        ck_assert_int_eq(a.sa.sa_family, AF_INET6);
        return -1;
    }
    ck_assert_int_eq(getsockname(fd, &a.sa, &len), 0);
    addr_from_sockaddr(at, &a.sa, len);
    return fd;
}

static void
dial(int fd, const struct addr *to)
{
    ck_assert_int_eq(connect(fd, &to->sa, to->len), 0);
}

/* Like a crash: no TIME_WAIT is left. */
static void
close_hard(int fd)
{
    struct linger hard = {1, 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(fd);
}

static void
assert_held(const struct addr *listen, enum socktable_holder holder, const char *who)
{
    char text[256] = "untouched";

    ck_assert_int_eq(socktable_find(listen, text, sizeof(text)), holder);
    ck_assert_str_eq(text, who);
}

/* The name of this process as others see it. */
static const char *
me(char buf[64])
{
    char comm[32] = "";
    FILE *f = fopen("/proc/self/comm", "r");

    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%31s", comm), 1);
    fclose(f);
    snprintf(buf, 64, "pid %d (%s)", (int)getpid(), comm);
    return buf;
}

START_TEST(test_free_port_is_held_by_nobody)
{
    struct addr at;
    int fd = bound("127.0.0.1", &at);

    assert_held(&at, SOCKTABLE_NOBODY, ""); /* bound alone: not in the table */
    close(fd);
    at = parsed("unix:/x");
    assert_held(&at, SOCKTABLE_NOBODY, "");
}
END_TEST

START_TEST(test_listener_is_named_with_its_process)
{
    static const char *const hosts[] = {"127.0.0.1", "0.0.0.0", "::1", "::"};
    char expected[256], name[64];

    snprintf(expected, sizeof(expected), "held by a listener of %s", me(name));
    for (size_t i = 0; i < N(hosts); i++) {
        struct addr at;
        int fd = bound(hosts[i], &at);

        if (fd < 0) {
            printf("skipped: %s cannot be bound\n", hosts[i]);
            continue;
        }
        ck_assert_int_eq(listen(fd, 1), 0);
        assert_held(&at, SOCKTABLE_LISTENER, expected);
        close(fd);
    }
}
END_TEST

START_TEST(test_listener_of_another_process_is_named)
{
    char expected[256], name[64], *comm;
    struct addr at;
    int fd = bound("127.0.0.1", &at), hold[2];
    pid_t child;

    ck_assert_int_eq(listen(fd, 1), 0);
    ck_assert_int_eq(pipe(hold), 0);
    child = fork();
    if (child == 0) {
        char byte;

        close(hold[1]);
        _exit(read(hold[0], &byte, 1) != 0);
    }
    close(fd);
    comm = strchr(me(name), '(');
    snprintf(expected, sizeof(expected), "held by a listener of pid %d %s", (int)child, comm);
    assert_held(&at, SOCKTABLE_LISTENER, expected);
    close(hold[1]);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
}
END_TEST

START_TEST(test_self_connected_socket_is_named)
{
    char expected[256], name[64];
    struct addr at;
    int fd = bound("127.0.0.1", &at);

    dial(fd, &at);
    snprintf(expected, sizeof(expected), "held by a self-connected socket of %s", me(name));
    assert_held(&at, SOCKTABLE_SELF_CONNECTED, expected);
    close_hard(fd);
    assert_held(&at, SOCKTABLE_NOBODY, "");
}
END_TEST

START_TEST(test_outgoing_connection_and_its_time_wait_are_named)
{
    char expected[256], name[64], to[ADDR_STR_MAX], who[256];
    struct addr server_at, at;
    int server = bound("127.0.0.1", &server_at), fd = bound("127.0.0.1", &at), accepted;
    enum socktable_holder holder;

    ck_assert_int_eq(listen(server, 1), 0);
    dial(fd, &server_at);
    accepted = accept(server, NULL, NULL);
    snprintf(expected, sizeof(expected), "held by a connection to %s of %s",
             addr_str(&server_at, to), me(name));
    assert_held(&at, SOCKTABLE_OUTGOING, expected);
    /* An end without a process: the orphan of a socket that was closed. */
    close(fd);
    snprintf(expected, sizeof(expected), "held by a connection to %s", to);
    assert_held(&at, SOCKTABLE_OUTGOING, expected);
    close(accepted);
    for (time_t end = time(NULL) + 5;;) {
        holder = socktable_find(&at, who, sizeof(who));
        if (holder != SOCKTABLE_OUTGOING || time(NULL) > end)
            break;
    }
    ck_assert_int_eq(holder, SOCKTABLE_TIME_WAIT);
    ck_assert_str_eq(who, "held by a connection in TIME_WAIT");
    close(server);
}
END_TEST

/* What a server leaves that died with a client connected. */
START_TEST(test_accepted_connection_without_its_listener_is_outgoing)
{
    char expected[256], name[64], to[ADDR_STR_MAX];
    struct addr at, client_at;
    int server = bound("127.0.0.1", &at), client = bound("127.0.0.1", &client_at), accepted;

    ck_assert_int_eq(listen(server, 1), 0);
    dial(client, &at);
    accepted = accept(server, NULL, NULL);
    snprintf(expected, sizeof(expected), "held by a listener of %s", me(name));
    assert_held(&at, SOCKTABLE_LISTENER, expected); /* rather than its connection */
    close(server);
    snprintf(expected, sizeof(expected), "held by a connection to %s of %s",
             addr_str(&client_at, to), name);
    assert_held(&at, SOCKTABLE_OUTGOING, expected);
    close_hard(accepted);
    close(client);
}
END_TEST

START_TEST(test_mapped_peer_is_named_by_its_ipv4_address)
{
    char expected[256], name[64], to[ADDR_STR_MAX];
    struct addr server_at, mapped = parsed("[::ffff:127.0.0.1]:1"), at;
    int server = bound("127.0.0.1", &server_at), fd = socket(AF_INET6, SOCK_STREAM, 0), zero = 0;
    socklen_t len = sizeof(at.un);
    struct sockaddr_storage ss;

    if (fd < 0) {
        printf("skipped: no IPv6 sockets\n");
        return;
    }
    ck_assert_int_eq(listen(server, 1), 0);
    ck_assert_int_eq(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)), 0);
    addr_set_port(&mapped, addr_port(&server_at));
    dial(fd, &mapped);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
    addr_from_sockaddr(&at, (struct sockaddr *)&ss, len);
    snprintf(expected, sizeof(expected), "held by a connection to %s of %s",
             addr_str(&server_at, to), me(name));
    assert_held(&at, SOCKTABLE_OUTGOING, expected);
    close_hard(fd);
    close(server);
}
END_TEST

START_TEST(test_a_listener_that_may_be_v6only_comes_last)
{
    char expected[256], name[64];
    struct addr at, v4, both;
    int v6 = bound("::", &at), fd;

    if (v6 < 0) {
        printf("skipped: :: cannot be bound\n");
        return;
    }
    ck_assert_int_eq(listen(v6, 1), 0);
    v4 = parsed("127.0.0.1:1");
    addr_set_port(&v4, addr_port(&at));
    snprintf(expected, sizeof(expected), "held by a listener of %s", me(name));
    assert_held(&v4, SOCKTABLE_LISTENER, expected);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, &v4.sa, v4.len) < 0) {
        printf("skipped: somebody else has the same port of 127.0.0.1\n");
        return;
    }
    dial(fd, &v4);
    snprintf(expected, sizeof(expected), "held by a self-connected socket of %s", name);
    assert_held(&v4, SOCKTABLE_SELF_CONNECTED, expected);
    /* No doubt when both would be IPv6. */
    both = parsed("*:1");
    addr_set_port(&both, addr_port(&at));
    snprintf(expected, sizeof(expected), "held by a listener of %s", name);
    assert_held(&both, SOCKTABLE_LISTENER, expected);
    close_hard(fd);
    close(v6);
}
END_TEST

START_TEST(test_table_that_cannot_be_read_tells_nothing)
{
    struct rlimit old, none;
    struct addr at;
    int fd = bound("127.0.0.1", &at);
    char who[64];
    enum socktable_holder holder;

    ck_assert_int_eq(listen(fd, 1), 0);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    holder = socktable_find(&at, who, sizeof(who));
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    ck_assert_int_eq(holder, SOCKTABLE_NOBODY);
    ck_assert_str_eq(who, "");
    close(fd);
}
END_TEST

static const struct {
    const char *local, *remote;
    unsigned state;
    bool is_self;
} ends[] = {
    {"127.0.0.1:80", "127.0.0.1:80", TCP_ESTABLISHED, true},
    {"127.0.0.1:80", "127.0.0.1:80", TCP_TIME_WAIT, true},
    {"127.0.0.1:80", "127.0.0.1:81", TCP_ESTABLISHED, false},
    {"127.0.0.1:80", "127.0.0.2:80", TCP_ESTABLISHED, false},
    {"[::1]:80", "[::1]:80", TCP_CLOSE_WAIT, true},
    {"[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", TCP_FIN_WAIT2, true},
    {"127.0.0.1:80", "127.0.0.1:80", TCP_LISTEN, false},
    {"127.0.0.1:80", "127.0.0.1:80", TCP_CLOSE, false},
};

START_TEST(test_what_is_its_own_peer)
{
    struct socktable_entry entry = {.local = parsed(ends[_i].local),
                                    .remote = parsed(ends[_i].remote),
                                    .state = ends[_i].state};

    ck_assert_int_eq(socktable_is_self_connected(&entry), ends[_i].is_self);
}
END_TEST

START_TEST(test_name_of_a_process_is_printable)
{
    char expected[64];
    struct addr at;
    int fd = bound("127.0.0.1", &at);

    ck_assert_int_eq(listen(fd, 1), 0);
    ck_assert_int_eq(prctl(PR_SET_NAME, "a\tb~\303\251"), 0);
    snprintf(expected, sizeof(expected), "held by a listener of pid %d (a?b~%s)", (int)getpid(),
             "??");
    assert_held(&at, SOCKTABLE_LISTENER, expected);
    close(fd);
}
END_TEST

START_TEST(test_socket_that_nobody_has)
{
    struct socktable_owner owner;

    ck_assert(!socktable_owner(0, &owner));
    ck_assert(!socktable_owner(ULONG_MAX, &owner));
}
END_TEST

START_TEST(test_text_is_cut_at_its_room)
{
    char text[12];
    struct addr at;
    int fd = bound("127.0.0.1", &at);

    ck_assert_int_eq(listen(fd, 1), 0);
    ck_assert_int_eq(socktable_find(&at, text, sizeof(text)), SOCKTABLE_LISTENER);
    ck_assert_str_eq(text, "held by a l");
    close(fd);
}
END_TEST

int
main(void)
{
    TCase *tc = tcase_create("socktable");
    Suite *suite = suite_create("socktable");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, test_line_of_the_table_is_read, 0, N(lines));
    tcase_add_loop_test(tc, test_malformed_line_is_refused, 0, N(malformed));
    tcase_add_loop_test(tc, test_what_an_entry_does_to_a_bind, 0, N(cases));
    tcase_add_test(tc, test_free_port_is_held_by_nobody);
    tcase_add_test(tc, test_listener_is_named_with_its_process);
    tcase_add_test(tc, test_listener_of_another_process_is_named);
    tcase_add_test(tc, test_self_connected_socket_is_named);
    tcase_add_test(tc, test_outgoing_connection_and_its_time_wait_are_named);
    tcase_add_test(tc, test_accepted_connection_without_its_listener_is_outgoing);
    tcase_add_test(tc, test_mapped_peer_is_named_by_its_ipv4_address);
    tcase_add_test(tc, test_a_listener_that_may_be_v6only_comes_last);
    tcase_add_test(tc, test_table_that_cannot_be_read_tells_nothing);
    tcase_add_loop_test(tc, test_what_is_its_own_peer, 0, N(ends));
    tcase_add_test(tc, test_name_of_a_process_is_printable);
    tcase_add_test(tc, test_socket_that_nobody_has);
    tcase_add_test(tc, test_text_is_cut_at_its_room);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
