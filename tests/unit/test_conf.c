/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include <check.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))

/* Each test runs in a directory of its own, so that files are told by their bare names. */
static char directory[32], top[4096];
static char *errors;

static void
enter_directory(void)
{
    ck_assert_int_eq(unsetenv("RUNTIME_DIRECTORY"), 0);
    snprintf(directory, sizeof(directory), "/tmp/test_conf.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    ck_assert_int_eq(chdir(directory), 0);
}

static void
remove_directory(void)
{
    char command[64];

    free(errors);
    errors = NULL;
    ck_assert_int_eq(chdir("/"), 0);
    snprintf(command, sizeof(command), "rm -r %s", directory);
    ck_assert_int_eq(system(command), 0);
}

static void
write_bytes(const char *name, const char *text, size_t len)
{
    FILE *f = fopen(name, "w");

    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, len, f), len);
    ck_assert_int_eq(fclose(f), 0);
}

/* Load a file; what is told goes to ${errors}. */
static struct conf *
load_path(const char *path)
{
    size_t len;
    FILE *stream;
    struct conf *conf;

    free(errors);
    stream = open_memstream(&errors, &len);
    ck_assert_ptr_nonnull(stream);
    conf = conf_load(&path, 1, stream);
    ck_assert_int_eq(fclose(stream), 0);
    return conf;
}

static struct conf *
load(const char *text)
{
    write_bytes("a.conf", text, strlen(text));
    return load_path("a.conf");
}

static struct conf *
load_fine(const char *text)
{
    struct conf *conf = load(text);

    ck_assert_msg(conf != NULL, "%s", errors);
    ck_assert_str_eq(errors, "");
    return conf;
}

static char *
dump(const struct conf *conf)
{
    char *text;
    size_t len;
    FILE *stream = open_memstream(&text, &len);

    ck_assert_ptr_nonnull(stream);
    conf_dump(conf, stream);
    ck_assert_int_eq(fclose(stream), 0);
    return text;
}

static void *
zeroed_owner(const struct conf_option *option)
{
    static const size_t sizes[] = {[CONF_DAEMON] = sizeof(struct conf_daemon),
                                   [CONF_PROXY] = sizeof(struct conf_proxy),
                                   [CONF_UPSTREAM] = sizeof(struct conf_upstream)};
    void *base = calloc(1, sizes[option->owner]);

    ck_assert_ptr_nonnull(base);
    ck_assert_uint_lt(option->offset, sizes[option->owner]);
    return base;
}

START_TEST(test_each_default_of_the_table_can_be_read_and_written)
{
    const struct conf_option *o = &conf_options[_i];
    char why[CONF_WHY_MAX], buf[ADDR_STR_MAX], copy[ADDR_STR_MAX];
    void *base;

    ck_assert_str_ne(o->help, "");
    ck_assert_ptr_null(strchr(o->help, '\n'));
    ck_assert_ptr_eq(conf_option_find(o->name, o->owner), o);
    ck_assert_uint_le(strlen(o->name), CONF_NAME_MAX);
    base = zeroed_owner(o);
    if (o->preset != NULL) {
        ck_assert_msg(conf_option_parse(o, base, o->preset, why, sizeof(why)) == 0, "%s", why);
        snprintf(copy, sizeof(copy), "%s", conf_option_str(o, base, buf, sizeof(buf)));
        ck_assert_msg(conf_option_parse(o, base, copy, why, sizeof(why)) == 0, "%s", why);
        ck_assert_str_eq(conf_option_str(o, base, buf, sizeof(buf)), copy);
    } else {
        ck_assert_int_ge(o->type, CONF_LISTEN);
        ck_assert_int_eq(conf_option_parse(o, base, "x", why, sizeof(why)), -1);
        ck_assert_str_eq(conf_option_str(o, base, buf, sizeof(buf)), "");
    }
    free(base);
}
END_TEST

START_TEST(test_a_key_of_both_sides_is_the_same_on_each)
{
    const struct conf_option *o = &conf_options[_i];
    const struct conf_option *other = conf_option_find(o->name, CONF_UPSTREAM);

    if (o->owner != CONF_PROXY || other == NULL)
        return;
    ck_assert_int_eq(o->type, other->type);
    ck_assert_str_eq(o->preset, other->preset);
    ck_assert_uint_eq(o->min, other->min);
    ck_assert_uint_eq(o->max, other->max);
    ck_assert(!o->repeats && !other->repeats);
}
END_TEST

static const struct {
    const char *key;
    const char *texts[3]; /* the least, the most, and one beyond; NULL: none */
} bounds[] = {
    {"drain_timeout", {"off", "365d", NULL}},      {"bind_retry", {"0", "365d", NULL}},
    {"max_sessions", {"off", "4294967295", NULL}}, {"backlog", {"1", "65535", "65536"}},
    {"keepalive", {"off", "9h", "32401s"}},        {"user_timeout", {"off", "24d", "25d"}},
    {"connect_timeout", {"1ms", "1h", "3601s"}},   {"backoff_min", {"1ms", "1d", "25h"}},
    {"backoff_max", {"1ms", "1d", "0"}},           {"backoff_waiting", {"1ms", "1d", "0"}},
    {"wait_timeout", {"off", "365d", NULL}},       {"max_waiting", {"0", "4294967295", NULL}},
    {"unix_mode", {"0", "0777", "1000"}},          {"resolve_min", {"1s", "1d", "999ms"}},
    {"resolve_max", {"1s", "1d", "off"}},
};

START_TEST(test_bounds)
{
    char why[CONF_WHY_MAX];

    for (size_t i = 0; i < conf_n_options; i++) {
        const struct conf_option *o = &conf_options[i];
        void *base = zeroed_owner(o);

        for (int j = 0; strcmp(o->name, bounds[_i].key) == 0 && j < 3; j++)
            if (bounds[_i].texts[j] != NULL)
                ck_assert_int_eq(conf_option_parse(o, base, bounds[_i].texts[j], why, sizeof(why)),
                                 j == 2 ? -1 : 0);
        free(base);
    }
}
END_TEST

#define SMALL "[proxy web]\nlisten = 127.0.0.1:7000\nserver = 127.0.0.1:8000\n"

START_TEST(test_defaults_are_those_of_the_manual)
{
    struct conf *conf = load_fine(SMALL);
    const struct conf_daemon *d = &conf->daemon;
    const struct conf_proxy *p = &conf->proxies[0];
    const struct conf_upstream *u = p->upstream;

    ck_assert_int_eq(d->log_level, LOG_INFO);
    ck_assert_int_eq(d->log_format, LOG_FORMAT_AUTO);
    ck_assert_int_eq(d->access_log, ACCESS_LOG_ERRORS);
    ck_assert_int_eq(d->port_range_check, RANGE_CHECK_WARN);
    ck_assert_uint_eq(d->drain_timeout_ms, 8000);
    ck_assert_uint_eq(d->bind_retry_ms, 65000);
    ck_assert_ptr_null(d->user);
    ck_assert_ptr_null(d->group);
    ck_assert_uint_eq(p->max_sessions, 0);
    ck_assert_uint_eq(p->idle_timeout_ms, 0);
    ck_assert_uint_eq(p->half_close_timeout_ms, 3600000);
    ck_assert_uint_eq(p->backlog, 4096);
    ck_assert_uint_eq(p->unix_mode, 0660);
    ck_assert_ptr_null(p->unix_user);
    ck_assert_ptr_null(p->unix_group);
    ck_assert_int_eq(u->balance, BALANCE_ROUND_ROBIN);
    ck_assert_int_eq(u->when_down, WHEN_DOWN_WAIT);
    ck_assert_int_eq(u->send_proxy, PROXYPROTO_OFF);
    ck_assert(!p->accept_proxy);
    ck_assert_uint_eq(u->connect_timeout_ms, 5000);
    ck_assert_uint_eq(u->backoff_min_ms, 100);
    ck_assert_uint_eq(u->backoff_max_ms, 5000);
    ck_assert_uint_eq(u->backoff_waiting_ms, 1000);
    ck_assert_uint_eq(u->wait_timeout_ms, 30000);
    ck_assert_uint_eq(u->max_waiting, 1024);
    ck_assert_uint_eq(u->source.len, 0);
    ck_assert_uint_eq(u->resolve_min_ms, 1000);
    ck_assert_uint_eq(u->resolve_max_ms, 30000);
    for (int i = 0; i < 2; i++) {
        const struct conf_sockopts *s = i == 0 ? &p->sockopts : &u->sockopts;

        ck_assert(s->nodelay);
        ck_assert_uint_eq(s->keepalive_ms, 60000);
        ck_assert_uint_eq(s->user_timeout_ms, 0);
    }
    conf_free(conf);
}
END_TEST

START_TEST(test_every_value_finds_its_place)
{
    struct conf *conf = load_fine("[daemon]\n"
                                  "log_level = warning\n"
                                  "log_format = text\n"
                                  "access_log = off\n"
                                  "port_range_check = error\n"
                                  "drain_timeout = 1ms\n"
                                  "lame_duck = 16ms\n"
                                  "bind_retry = 2ms\n"
                                  "user = 0\n"
                                  "group = root\n"
                                  "[proxy web]\n"
                                  "listen = unix:/tmp/x\n"
                                  "max_sessions = 3\n"
                                  "idle_timeout = 4ms\n"
                                  "half_close_timeout = 5ms\n"
                                  "backlog = 6\n"
                                  "unix_mode = 7\n"
                                  "unix_user = root\n"
                                  "unix_group = 0\n"
                                  "accept_proxy = on\n"
                                  "nodelay = off\n"
                                  "keepalive = 8ms\n"
                                  "user_timeout = 9ms\n"
                                  "server = 127.0.0.1:8000\n"
                                  "balance = first\n"
                                  "when_down = reset\n"
                                  "connect_timeout = 10ms\n"
                                  "backoff_min = 11ms\n"
                                  "backoff_max = 12ms\n"
                                  "backoff_waiting = 13ms\n"
                                  "wait_timeout = 14ms\n"
                                  "max_waiting = 15\n"
                                  "send_proxy = v2\n"
                                  "resolve_min = 16s\n"
                                  "resolve_max = 17s\n"
                                  "source = 127.0.0.9\n");
    const struct conf_daemon *d = &conf->daemon;
    const struct conf_proxy *p = &conf->proxies[0];
    const struct conf_upstream *u = p->upstream;
    char buf[ADDR_STR_MAX];

    ck_assert_int_eq(d->log_level, LOG_WARNING);
    ck_assert_int_eq(d->log_format, LOG_FORMAT_TEXT);
    ck_assert_int_eq(d->access_log, ACCESS_LOG_OFF);
    ck_assert_int_eq(d->port_range_check, RANGE_CHECK_ERROR);
    ck_assert_uint_eq(d->drain_timeout_ms, 1);
    ck_assert_uint_eq(d->lame_duck_ms, 16);
    ck_assert_uint_eq(d->bind_retry_ms, 2);
    ck_assert_str_eq(d->user, "0");
    ck_assert_str_eq(d->group, "root");
    ck_assert_str_eq(p->name, "web");
    ck_assert_uint_eq(p->max_sessions, 3);
    ck_assert_uint_eq(p->idle_timeout_ms, 4);
    ck_assert_uint_eq(p->half_close_timeout_ms, 5);
    ck_assert_uint_eq(p->backlog, 6);
    ck_assert_uint_eq(p->unix_mode, 07);
    ck_assert_str_eq(p->unix_user, "root");
    ck_assert_str_eq(p->unix_group, "0");
    ck_assert_str_eq(u->name, "web");
    ck_assert(u->in_proxy);
    ck_assert_int_eq(u->balance, BALANCE_FIRST);
    ck_assert_int_eq(u->when_down, WHEN_DOWN_RESET);
    ck_assert_int_eq(u->send_proxy, PROXYPROTO_V2);
    ck_assert(p->accept_proxy);
    ck_assert_uint_eq(u->connect_timeout_ms, 10);
    ck_assert_uint_eq(u->backoff_min_ms, 11);
    ck_assert_uint_eq(u->backoff_max_ms, 12);
    ck_assert_uint_eq(u->backoff_waiting_ms, 13);
    ck_assert_uint_eq(u->wait_timeout_ms, 14);
    ck_assert_uint_eq(u->max_waiting, 15);
    ck_assert_uint_eq(u->resolve_min_ms, 16000);
    ck_assert_uint_eq(u->resolve_max_ms, 17000);
    ck_assert_str_eq(addr_str(&u->source, buf), "127.0.0.9:0");
    for (int i = 0; i < 2; i++) {
        const struct conf_sockopts *s = i == 0 ? &p->sockopts : &u->sockopts;

        ck_assert(!s->nodelay);
        ck_assert_uint_eq(s->keepalive_ms, 8);
        ck_assert_uint_eq(s->user_timeout_ms, 9);
    }
    conf_free(conf);
}
END_TEST

START_TEST(test_listeners_and_servers)
{
    struct conf *conf = load_fine("[proxy web]\n"
                                  "listen = 127.0.0.1:7000 [::1]:7000,unix:@x,\n"
                                  "\n"
                                  "listen = *:7001\n"
                                  "server = 127.0.0.1:8000\n"
                                  "server = unix:/tmp/s max_sessions=2 name=s backup weight=256\n"
                                  "server = 127.0.0.1:8001 max_sessions=off\n");
    const struct conf_proxy *p = &conf->proxies[0];
    const struct conf_server *s = p->upstream->servers;
    static const struct {
        const char *text;
        unsigned line;
    } listens[] = {{"127.0.0.1:7000", 2}, {"[::1]:7000", 2}, {"unix:@x", 2}, {"*:7001", 4}};
    char buf[ADDR_STR_MAX];

    ck_assert_uint_eq(p->n_listens, N(listens));
    for (size_t i = 0; i < N(listens); i++) {
        ck_assert_str_eq(p->listens[i].text, listens[i].text);
        ck_assert_str_eq(addr_str(&p->listens[i].addr, buf), listens[i].text);
        ck_assert_str_eq(p->listens[i].file, "a.conf");
        ck_assert_uint_eq(p->listens[i].line, listens[i].line);
    }
    ck_assert_uint_eq(p->upstream->n_servers, 3);
    ck_assert_str_eq(s[0].name, "127.0.0.1:8000");
    ck_assert_uint_eq(s[0].weight, 1);
    ck_assert_uint_eq(s[0].max_sessions, 0);
    ck_assert(!s[0].backup && !s[0].loop_if_local);
    ck_assert_str_eq(s[1].name, "s");
    ck_assert_str_eq(s[1].text, "unix:/tmp/s");
    ck_assert_str_eq(addr_str(&s[1].addr, buf), "unix:/tmp/s");
    ck_assert_uint_eq(s[1].weight, 256);
    ck_assert_uint_eq(s[1].max_sessions, 2);
    ck_assert(s[1].backup);
    ck_assert_str_eq(s[1].file, "a.conf");
    ck_assert_uint_eq(s[1].line, 6);
    ck_assert_uint_eq(s[2].max_sessions, 0);
    conf_free(conf);
}
END_TEST

START_TEST(test_socket_options_hold_for_the_side_of_their_section)
{
    struct conf *conf = load_fine("[proxy a]\n"
                                  "listen = 127.0.0.1:7000\n"
                                  "upstream = db\n"
                                  "keepalive = 1s\n"
                                  "[proxy b]\n"
                                  "listen = 127.0.0.1:7001\n"
                                  "upstream = db\n"
                                  "[upstream db]\n"
                                  "server = 127.0.0.1:8000\n"
                                  "keepalive = 2s\n"
                                  "[defaults]\n"
                                  "keepalive = 3s\n"
                                  "[proxy c]\n"
                                  "listen = 127.0.0.1:7002\n"
                                  "server = 127.0.0.1:8000\n"
                                  "[upstream unused]\n"
                                  "server = 127.0.0.1:8000\n");

    ck_assert_uint_eq(conf->proxies[0].sockopts.keepalive_ms, 1000);
    ck_assert_uint_eq(conf->proxies[1].sockopts.keepalive_ms, 60000);
    ck_assert_uint_eq(conf->proxies[0].upstream->sockopts.keepalive_ms, 2000);
    ck_assert_ptr_eq(conf->proxies[0].upstream, conf->proxies[1].upstream);
    ck_assert(!conf->proxies[0].upstream->in_proxy);
    ck_assert_uint_eq(conf->proxies[2].sockopts.keepalive_ms, 3000);
    ck_assert_uint_eq(conf->proxies[2].upstream->sockopts.keepalive_ms, 3000);
    /* Those of proxies come first, then the sections. */
    ck_assert_uint_eq(conf->n_upstreams, 3);
    ck_assert_str_eq(conf->upstreams[0]->name, "c");
    ck_assert_str_eq(conf->upstreams[1]->name, "db");
    ck_assert_str_eq(conf->upstreams[2]->name, "unused");
    ck_assert_uint_eq(conf->upstreams[2]->sockopts.keepalive_ms, 3000);
    conf_free(conf);
}
END_TEST

START_TEST(test_defaults_hold_for_what_comes_after_them)
{
    struct conf *conf = load_fine(SMALL "[defaults]\n"
                                        "unix_user = root\n"
                                        "source = 127.0.0.1\n"
                                        "max_waiting = off\n"
                                        "[proxy b]\n"
                                        "listen = unix:/tmp/b\n"
                                        "server = 127.0.0.1:8000\n"
                                        "[proxy c]\n"
                                        "listen = unix:/tmp/c\n"
                                        "server = 127.0.0.1:8000\n"
                                        "unix_user = none\n"
                                        "source = none\n"
                                        "max_waiting = 1\n");
    const struct conf_proxy *p = conf->proxies;

    ck_assert_ptr_null(p[0].unix_user);
    ck_assert_uint_eq(p[0].upstream->source.len, 0);
    ck_assert_uint_eq(p[0].upstream->max_waiting, 1024);
    ck_assert_str_eq(p[1].unix_user, "root");
    ck_assert_uint_ne(p[1].upstream->source.len, 0);
    ck_assert_uint_eq(p[1].upstream->max_waiting, 0);
    ck_assert_ptr_null(p[2].unix_user);
    ck_assert_uint_eq(p[2].upstream->source.len, 0);
    ck_assert_uint_eq(p[2].upstream->max_waiting, 1);
    conf_free(conf);
}
END_TEST

static bool
allows(const struct conf *conf, size_t proxy, const char *client)
{
    const char *why;
    struct addr a;

    ck_assert_int_eq(addr_parse_ip(&a, client, &why), 0);
    return cidr_table_allows(&conf->proxies[proxy].access, &a);
}

START_TEST(test_access_lists_take_the_place_of_those_in_defaults)
{
    struct conf *conf = load_fine(SMALL "[defaults]\n"
                                        "allow = 10.0.0.0/8\n"
                                        "deny = 10.1.0.0/16\n"
                                        "[proxy both]\n"
                                        "listen = 127.0.0.1:7001\n"
                                        "server = 127.0.0.1:8000\n"
                                        "[proxy allow]\n"
                                        "listen = 127.0.0.1:7002\n"
                                        "server = 127.0.0.1:8000\n"
                                        "allow = all\n"
                                        "[proxy deny]\n"
                                        "listen = 127.0.0.1:7003\n"
                                        "server = 127.0.0.1:8000\n"
                                        "deny = 10.2.0.0/16\n"
                                        "[proxy none]\n"
                                        "listen = 127.0.0.1:7004\n"
                                        "server = 127.0.0.1:8000\n"
                                        "deny = none\n");
    /* By proxy: a client of 10.0.0.0/8, of the one range denied, of the other, and one from elsewhere. */
    static const bool expected[][4] = {{true, true, true, true},
                                       {true, false, true, false},
                                       {true, false, true, true},
                                       {true, true, false, false},
                                       {true, true, true, false}};
    static const char *const clients[] = {"10.3.0.1", "10.1.0.1", "10.2.0.1", "192.0.2.1"};

    for (size_t i = 0; i < N(expected); i++)
        for (size_t j = 0; j < N(clients); j++)
            ck_assert_msg(allows(conf, i, clients[j]) == expected[i][j], "%s: %s",
                          conf->proxies[i].name, clients[j]);
    conf_free(conf);
}
END_TEST

static const struct {
    const char *directory, *daemon, *expected; /* the admins with blanks between */
} admins[] = {
    {NULL, "", ""},
    {NULL, "admin = off\n", ""},
    {"", "", ""},
    {"run", "", ""},
    {"/run/redial", "", "unix:/run/redial/admin.sock"},
    {"/run/redial:/run/more", "", "unix:/run/redial/admin.sock"},
    {"/run/two words", "", ""}, /* could not be written back */
    {"/run/redial", "admin = off\n", ""},
    {"/run/redial", "admin = *:9100\n", "*:9100"},
    {NULL, "admin = 127.0.0.1:9100, [::1]:9100\nadmin = unix:/run/a unix:@b\n",
     "127.0.0.1:9100 [::1]:9100 unix:/run/a unix:@b"},
};

START_TEST(test_admin_listeners)
{
    char text[256], got[256] = "";
    struct conf *conf, *again;
    char *dumped;

    if (admins[_i].directory != NULL)
        ck_assert_int_eq(setenv("RUNTIME_DIRECTORY", admins[_i].directory, 1), 0);
    snprintf(text, sizeof(text), "[daemon]\n%s" SMALL, admins[_i].daemon);
    conf = load_fine(text);
    for (size_t i = 0; i < conf->daemon.n_admins; i++) {
        char buf[ADDR_STR_MAX];

        conf_append(got, sizeof(got), "%s%s", i == 0 ? "" : " ", conf->daemon.admins[i].text);
        ck_assert_str_eq(addr_str(&conf->daemon.admins[i].addr, buf), conf->daemon.admins[i].text);
    }
    ck_assert_str_eq(got, admins[_i].expected);
    ck_assert(conf->daemon.is_admin_given == (*admins[_i].daemon != '\0'));
    dumped = dump(conf);
    again = load_fine(dumped);
    ck_assert_uint_eq(again->daemon.n_admins, conf->daemon.n_admins);
    free(dumped);
    conf_free(again);
    conf_free(conf);
    ck_assert_int_eq(unsetenv("RUNTIME_DIRECTORY"), 0);
}
END_TEST

#define MANY 5000U

/* 10.A.B.0/24 is allowed but for 10.A.B.128/25, which is denied; neighbours are far apart in the file. */
static void
write_many(void)
{
    FILE *f = fopen("a.conf", "w");

    ck_assert_ptr_nonnull(f);
    fputs(SMALL, f);
    for (unsigned i = 0; i < MANY; i++) {
        unsigned j = i * 1999 % MANY;

        fprintf(f, "%s 10.%u.%u.%s",
                i % 8 > 0 ? ","
                : i == 0  ? "allow ="
                          : "\nallow =",
                j / 250, j % 250, "0/24");
    }
    for (unsigned i = 0; i < MANY; i++)
        fprintf(f, "\ndeny = 10.%u.%u.128/25", i / 250, i % 250);
    putc('\n', f);
    ck_assert_int_eq(fclose(f), 0);
}

START_TEST(test_thousands_of_ranges)
{
    char client[32], *text, *again;
    struct conf *conf;

    write_many();
    conf = load_path("a.conf");
    ck_assert_msg(conf != NULL, "%s", errors);
    ck_assert_uint_eq(conf->proxies[0].access.n, 2 * MANY);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(client, sizeof(client), "10.%u.%u.127", i / 250, i % 250);
        ck_assert_msg(allows(conf, 0, client), "%s", client);
        snprintf(client, sizeof(client), "10.%u.%u.128", i / 250, i % 250);
        ck_assert_msg(!allows(conf, 0, client), "%s", client);
    }
    ck_assert(!allows(conf, 0, "10.20.0.1"));
    ck_assert(!allows(conf, 0, "::1"));
    text = dump(conf);
    conf_free(conf);
    conf = load_fine(text);
    again = dump(conf);
    ck_assert_str_eq(again, text);
    conf_free(conf);
    free(again);
    free(text);
}
END_TEST

/* A proxy that names an upstream may share its name: it has no servers of its own. */
START_TEST(test_dump_tells_a_proxy_from_an_upstream_of_its_name)
{
    struct conf *conf = load_fine("[proxy db]\nlisten = 127.0.0.1:7000\nupstream = db\n"
                                  "[upstream db]\nserver = 127.0.0.1:8000\n");
    char *text = dump(conf), *again;

    conf_free(conf);
    ck_assert_ptr_nonnull(strstr(text, "\nupstream = db\n"));
    conf = load_fine(text);
    again = dump(conf);
    ck_assert_str_eq(again, text);
    conf_free(conf);
    free(again);
    free(text);
}
END_TEST

/* Values of every key in every section, loaded again from the dump, give the same. */
START_TEST(test_dump_is_a_fixed_point)
{
    struct conf *conf = load_fine("[daemon]\naccess_log = all\ngroup = 0\n"
                                  "[defaults]\nbackoff_max = 1d\nnodelay = no\nunix_mode = 0\n"
                                  "[proxy a]\nlisten = unix:@a$$b, 127.0.0.1:7000\n"
                                  "server = [0::1]:8000 name=[::1]:8000\n"
                                  "server = unix:/$$ backup weight=3 max_sessions=9\n"
                                  "source = ::ffff:127.0.0.1\nidle_timeout = 100s\n"
                                  "[upstream u]\nserver = 192.0.2.1:1\nwhen_down = unlisten\n"
                                  "[proxy b]\nlisten = *:7001\nupstream = u\n");
    char *text = dump(conf), *again;

    conf_free(conf);
    conf = load_fine(text);
    again = dump(conf);
    ck_assert_str_eq(again, text);
    ck_assert_ptr_nonnull(strstr(text, "\nlisten = unix:@a$$b\n"));
    ck_assert_ptr_nonnull(strstr(text, "\nserver = [0::1]:8000 weight=1 name=[::1]:8000\n"));
    ck_assert_ptr_nonnull(strstr(text, "\nserver = unix:/$$ weight=3 backup max_sessions=9\n"));
    conf_free(conf);
    free(again);
    free(text);
}
END_TEST

START_TEST(test_command_line)
{
    const char *servers[] = {"127.0.0.1:8000", "127.0.0.1:8001 backup"};
    struct conf *conf = conf_load_simple("127.0.0.1:7000", servers, 2, stderr);

    ck_assert_ptr_nonnull(conf);
    ck_assert_uint_eq(conf->n_proxies, 1);
    ck_assert_uint_eq(conf->n_upstreams, 1);
    ck_assert_str_eq(conf->proxies[0].name, "default");
    ck_assert_str_eq(conf->proxies[0].listens[0].file, "command line");
    ck_assert_uint_eq(conf->proxies[0].listens[0].line, 0);
    ck_assert_ptr_eq(conf->proxies[0].upstream, conf->upstreams[0]);
    ck_assert_uint_eq(conf->upstreams[0]->n_servers, 2);
    ck_assert(conf->upstreams[0]->servers[1].backup);
    conf_free(conf);
    conf_free(NULL);
}
END_TEST

static const char *
simple_errors(const char *listen, const char *const *servers, size_t n)
{
    size_t len;
    FILE *stream;

    free(errors);
    stream = open_memstream(&errors, &len);
    ck_assert_ptr_nonnull(stream);
    ck_assert_ptr_null(conf_load_simple(listen, servers, n, stream));
    ck_assert_int_eq(fclose(stream), 0);
    return errors;
}

START_TEST(test_faults_of_the_command_line)
{
    const char *twice[] = {"127.0.0.1:8000", "127.0.0.1:8000"};
    const char *control[] = {"unix:/a\nb"};
    const char *dollar[] = {"unix:$HOME"};

    ck_assert_str_eq(simple_errors("127.0.0.1:7000", NULL, 0),
                     "command line: [proxy default] server: missing; a proxy needs a server, or "
                     "upstream = NAME\n");
    ck_assert_str_eq(simple_errors("127.0.0.1:7000", twice, 2),
                     "command line: [proxy default] server: '127.0.0.1:8000' is given twice, first "
                     "at command line; once is allowed\n");
    ck_assert_str_eq(simple_errors("127.0.0.1:7000", control, 1),
                     "command line: [proxy default] server: the value holds a control character; "
                     "only text is allowed\n");
    /* The shell has expanded it. */
    ck_assert_str_eq(simple_errors("127.0.0.1:7000", dollar, 1),
                     "command line: [proxy default] server: 'unix:$HOME': the UNIX path is "
                     "relative; it must begin with /\n");
}
END_TEST

START_TEST(test_no_path_at_all)
{
    size_t len;
    FILE *stream = open_memstream(&errors, &len);

    ck_assert_ptr_nonnull(stream);
    ck_assert_ptr_null(conf_load(NULL, 0, stream));
    ck_assert_int_eq(fclose(stream), 0);
    ck_assert_str_eq(errors, "there is no proxy; at least one [proxy NAME] is needed\n");
}
END_TEST

/* For documentation (RFC 5737): hardly an address of this host. */
#define AWAY "203.0.113.1"

static const struct {
    const char *what, *text;
    unsigned n_marked;
} marks[] = {
    {"another port", "[proxy a]\nlisten = *:7000\nserver = " AWAY ":7001\n", 0},
    {"another address", "[proxy a]\nlisten = 127.0.0.1:7000\nserver = " AWAY ":7000\n", 0},
    {"a port of ours", "[proxy a]\nlisten = *:7000\nserver = " AWAY ":7000\n", 1},
    {"two servers",
     "[proxy a]\nlisten = *:7000\nserver = " AWAY ":7000\nserver = 203.0.113.2:7000\n", 2},
    {"over a certain edge",
     "[proxy a]\nlisten = *:7000\nserver = 127.0.0.1:7001\n"
     "[proxy b]\nlisten = 127.0.0.1:7001\nserver = " AWAY ":7000\n",
     1},
    {"over an uncertain edge",
     "[proxy a]\nlisten = *:7000\nserver = " AWAY ":7001\n"
     "[proxy b]\nlisten = *:7001\nserver = " AWAY ":7000\n",
     2},
    {"it leads elsewhere",
     "[proxy a]\nlisten = *:7000\nserver = 127.0.0.1:8000\n"
     "[proxy b]\nlisten = *:7001\nserver = " AWAY ":7000\n",
     0},
    {"no proxy uses it",
     "[proxy a]\nlisten = *:7000\nserver = 127.0.0.1:8000\n"
     "[upstream b]\nserver = " AWAY ":7000\n",
     0},
    {"a name on a port of ours",
     "[proxy a]\nlisten = 127.0.0.1:7000\nserver = db.internal:7000\n"
     "server = db.internal:7001\n",
     1},
    {"names in a ring",
     "[proxy a]\nlisten = 127.0.0.1:7000\nserver = db.internal:7001\n"
     "[proxy b]\nlisten = 127.0.0.2:7001\nserver = db.internal:7000\n",
     2},
    {"an upstream of two",
     "[proxy a]\nlisten = 127.0.0.1:7000\nupstream = u\n"
     "[proxy b]\nlisten = *:7001\nupstream = u\n"
     "[upstream u]\nserver = " AWAY ":7001\nserver = 127.0.0.1:8000\nserver = " AWAY ":7000\n",
     1},
};

START_TEST(test_server_that_would_be_a_loop_if_it_were_local_is_marked)
{
    struct conf *conf = load_fine(marks[_i].text);
    unsigned n = 0;

    for (size_t i = 0; i < conf->n_upstreams; i++)
        for (size_t j = 0; j < conf->upstreams[i]->n_servers; j++)
            n += conf->upstreams[i]->servers[j].loop_if_local;
    ck_assert_msg(n == marks[_i].n_marked, "%s: %u", marks[_i].what, n);
    conf_free(conf);
}
END_TEST

/* A name may stand for any address: what it comes to is compared with the listeners that would close a loop. */
START_TEST(test_name_would_be_a_loop_where_a_listener_takes_its_address)
{
    static const struct {
        const char *listens, *addr;
        bool may_loop;
    } names[] = {
        {"127.0.0.1:7000", "127.0.0.1:7000", true},
        {"127.0.0.1:7000", "127.0.0.2:7000", false},
        {"127.0.0.1:7000", "[::1]:7000", false},
        {"127.0.0.1:7001", "127.0.0.1:7000", false},
        {"127.0.0.1:7000, [::1]:7000", "[::1]:7000", true},
        {"*:7000", AWAY ":7000", true},
        {"*:7001", AWAY ":7000", false},
        {"unix:/x", "127.0.0.1:7000", false},
    };

    for (size_t i = 0; i < N(names); i++) {
        char text[256];
        const char *why;
        struct addr addr;

        snprintf(text, sizeof(text), "[proxy a]\nlisten = %s\nserver = db.internal:7000\n",
                 names[i].listens);
        struct conf *conf = load_fine(text);
        const struct conf_server *s = conf->proxies[0].upstream->servers;
        ck_assert_str_eq(s->host, "db.internal");
        ck_assert_uint_eq(s->port, 7000);
        ck_assert_uint_eq(s->addr.len, 0);
        ck_assert_int_eq(addr_parse(&addr, names[i].addr, &why), 0);
        ck_assert_msg(conf_server_may_loop(s, &addr) == names[i].may_loop, "%s at %s",
                      names[i].listens, names[i].addr);
        conf_free(conf);
    }
}
END_TEST

START_TEST(test_each_loop_is_told)
{
    ck_assert_ptr_null(load("[proxy a]\nlisten = 127.0.0.1:7000\nserver = 127.0.0.1:7000\n"
                            "server = 127.0.0.1:7001\n"
                            "[proxy b]\nlisten = 127.0.0.1:7001\nserver = 127.0.0.1:8000\n"
                            "server = 127.0.0.1:7000\nserver = 127.0.0.1:7002\n"
                            "[proxy c]\nlisten = 127.0.0.1:7002\nserver = 127.0.0.1:7001\n"));
    ck_assert_str_eq(
        errors,
        "a.conf:3: [proxy a] server: '127.0.0.1:7000' leads back to this daemon in a loop: "
        "proxy a -> proxy a; a server outside of it is allowed\n"
        "a.conf:8: [proxy b] server: '127.0.0.1:7000' leads back to this daemon in a loop: "
        "proxy a -> proxy b -> proxy a; a server outside of it is allowed\n"
        "a.conf:12: [proxy c] server: '127.0.0.1:7001' leads back to this daemon in a loop: "
        "proxy b -> proxy c -> proxy b; a server outside of it is allowed\n");
}
END_TEST

/* A chain of proxies, each the server of the one before it; the last one's server is ${last}. */
static void
write_chain(unsigned n, const char *last)
{
    FILE *f = fopen("a.conf", "w");

    ck_assert_ptr_nonnull(f);
    for (unsigned i = 0; i < n; i++) {
        fprintf(f, "[proxy p%u]\nlisten = 127.0.0.1:%u\n", i, 10000 + i);
        if (i + 1 < n)
            fprintf(f, "server = 127.0.0.1:%u\n", 10000 + i + 1);
        else
            fprintf(f, "server = %s\n", last);
    }
    ck_assert_int_eq(fclose(f), 0);
}

START_TEST(test_a_long_chain_is_searched_and_told_in_part)
{
    struct conf *conf;

    write_chain(5000, "127.0.0.1:9999");
    conf = load_path("a.conf");
    ck_assert_msg(conf != NULL, "%s", errors);
    ck_assert_uint_eq(conf->n_proxies, 5000);
    conf_free(conf);
    write_chain(5000, "127.0.0.1:10000");
    ck_assert_ptr_null(load_path("a.conf"));
    ck_assert_str_eq(errors,
                     "a.conf:15000: [proxy p4999] server: '127.0.0.1:10000' leads back to this "
                     "daemon in a loop: proxy p0 -> proxy p1 -> proxy p2 -> proxy p3 -> proxy p4 "
                     "-> "
                     "proxy p5 -> proxy p6 -> proxy p7 -> ... -> proxy p0; a server outside of it "
                     "is allowed\n");
}
END_TEST

START_TEST(test_many_proxies_and_servers_on_one_port)
{
    FILE *f = fopen("a.conf", "w");
    struct conf *conf;

    ck_assert_ptr_nonnull(f);
    for (unsigned i = 0; i < 1000; i++)
        fprintf(f, "[proxy p%u]\nlisten = 127.0.%u.%u:7000\nserver = 127.1.%u.%u:7000\n", i,
                i / 250, i % 250 + 1, i / 250, i % 250 + 1);
    ck_assert_int_eq(fclose(f), 0);
    conf = load_path("a.conf");
    ck_assert_msg(conf != NULL, "%s", errors);
    conf_free(conf);
}
END_TEST

START_TEST(test_error_of_a_file_that_cannot_be_read)
{
    /* Its open(2) and fstat(2) are those of a file, its read(2) fails. */
    ck_assert_ptr_null(load_path("/proc/self/mem"));
    ck_assert_str_eq(errors, "/proc/self/mem: cannot be read\n");
}
END_TEST

/* Before a test leaves the directory of the build: it may be told relative to that. */
static void
find_top(void)
{
    const char *told = getenv("top_srcdir");
    char path[] = __FILE__, relative[sizeof(path) + 8];

    snprintf(relative, sizeof(relative), "%s/../..", dirname(path));
    if (realpath(told != NULL ? told : relative, top) == NULL)
        top[0] = '\0';
}

static char *
read_shipped(const char *name)
{
    char path[sizeof(top) + 64], *text;
    size_t len;
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", top, name);
    f = fopen(path, "r");
    ck_assert_msg(f != NULL, "no %s: set top_srcdir", path);
    text = calloc(1, 100000);
    ck_assert_ptr_nonnull(text);
    len = fread(text, 1, 99999, f);
    ck_assert_uint_gt(len, 0);
    ck_assert_uint_lt(len, 99999);
    ck_assert_int_eq(fclose(f), 0);
    return text;
}

/* The kind of section that the text of a heading begins with, if any. */
static void
parse_kind(const char *heading, enum conf_kind *kind)
{
    for (int k = CONF_DAEMON; k <= CONF_UPSTREAM; k++)
        if (strncmp(heading, conf_kind_str((enum conf_kind)k),
                    strlen(conf_kind_str((enum conf_kind)k))) == 0)
            *kind = (enum conf_kind)k;
}

/* Cut `key = value', with or without its `;', from a line of the reference. */
static bool
parse_setting(char *line, char **key, char **value)
{
    char *equals = strstr(line, " = ");

    if (*line == '#' || equals == NULL)
        return false;
    *equals = '\0';
    *key = line + (*line == ';');
    *value = equals + 3;
    return true;
}

START_TEST(test_reference_holds_each_key_with_its_default_and_no_other)
{
    char *text = read_shipped("conf/rediald.conf"), *rest = text, *line, *key, *value;
    bool is_there[CONF_OPTIONS_MAX] = {false};
    enum conf_kind kind = CONF_DEFAULTS;

    while ((line = strsep(&rest, "\n")) != NULL) {
        const struct conf_option *o;

        if (*line == '[')
            parse_kind(line + 1, &kind);
        if (!parse_setting(line, &key, &value))
            continue;
        o = conf_option_find(key, kind);
        ck_assert_msg(o != NULL, "%s is no key of [%s]", key, conf_kind_str(kind));
        ck_assert_msg(o->repeats || !is_there[o - conf_options], "%s stands twice", key);
        is_there[o - conf_options] = true;
        if (o->preset != NULL) {
            ck_assert_msg(*line == ';', "%s is given", key);
            ck_assert_msg(strcmp(value, o->preset) == 0, "%s: %s is not %s", key, value, o->preset);
        }
    }
    for (size_t i = 0; i < conf_n_options; i++)
        ck_assert_msg(is_there[i], "%s of [%s] is missing", conf_options[i].name,
                      conf_kind_str(conf_options[i].owner));
    free(text);
}
END_TEST

/* In the manual a key is `.It Ic KEY', with a default `.It Ic KEY Pq Cm DEFAULT', below `.Ss [section]'. */
START_TEST(test_manual_holds_each_key_with_its_default_and_no_other)
{
    char *text = read_shipped("man/rediald.conf.5.in"), *rest = text, *line, key[64], preset[64];
    bool is_there[CONF_OPTIONS_MAX] = {false};
    enum conf_kind kind = CONF_DEFAULTS;

    while ((line = strsep(&rest, "\n")) != NULL) {
        const struct conf_option *o;
        int n = sscanf(line, ".It Ic %63s Pq Cm %63s", key, preset);

        if (strncmp(line, ".Ss [", 5) == 0)
            parse_kind(line + 5, &kind);
        if (n < 1)
            continue;
        o = conf_option_find(key, kind);
        ck_assert_msg(o != NULL, "%s is no key of [%s]", key, conf_kind_str(kind));
        ck_assert_msg(!is_there[o - conf_options], "%s stands twice", key);
        is_there[o - conf_options] = true;
        ck_assert_msg((n == 2) == (o->preset != NULL), "%s: is there a default?", key);
        ck_assert_msg(n < 2 || strcmp(preset, o->preset) == 0, "%s: %s is not %s", key, preset,
                      o->preset);
    }
    for (size_t i = 0; i < conf_n_options; i++)
        ck_assert_msg(is_there[i], "%s of [%s] is missing", conf_options[i].name,
                      conf_kind_str(conf_options[i].owner));
    free(text);
}
END_TEST

START_TEST(test_reference_loads_as_it_is_and_uncommented)
{
    char *text = read_shipped("conf/rediald.conf"), *all, *as_is, *uncommented;
    struct conf *conf = load_fine(text);

    as_is = dump(conf);
    conf_free(conf);
    for (char *p = text; p != NULL; p = strchr(p + 1, '\n'))
        if (p[1] == ';')
            p[1] = ' ';
    conf = load_fine(text);
    ck_assert_uint_eq(conf->proxies[0].n_listens, 2);
    uncommented = dump(conf);
    /* But for the UNIX listener and what is dumped beside it, nothing is changed by the defaults. */
    for (char *line = strtok_r(as_is, "\n", &all); line != NULL; line = strtok_r(NULL, "\n", &all))
        ck_assert_msg(strstr(uncommented, line) != NULL, "%s", line);
    conf_free(conf);
    free(text);
    free(as_is);
    free(uncommented);
}
END_TEST

START_TEST(test_quickstart)
{
    char *text = read_shipped("conf/quickstart.conf");
    struct conf *conf;

    ck_assert_int_eq(unsetenv("REDIAL_LISTEN"), 0);
    ck_assert_int_eq(unsetenv("REDIAL_SERVER"), 0);
    conf = load_fine(text);
    ck_assert_uint_eq(conf->n_proxies, 1);
    ck_assert_str_eq(conf->proxies[0].listens[0].text, "127.0.0.1:7000");
    ck_assert_str_eq(conf->upstreams[0]->servers[0].text, "127.0.0.1:8000");
    conf_free(conf);
    free(text);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("conf");
    TCase *tc = tcase_create("conf");
    SRunner *runner;
    int failed;

    find_top();
    tcase_add_checked_fixture(tc, enter_directory, remove_directory);
    tcase_add_loop_test(tc, test_each_default_of_the_table_can_be_read_and_written, 0,
                        (int)conf_n_options);
    tcase_add_loop_test(tc, test_a_key_of_both_sides_is_the_same_on_each, 0, (int)conf_n_options);
    tcase_add_loop_test(tc, test_bounds, 0, N(bounds));
    tcase_add_test(tc, test_defaults_are_those_of_the_manual);
    tcase_add_test(tc, test_every_value_finds_its_place);
    tcase_add_test(tc, test_listeners_and_servers);
    tcase_add_test(tc, test_socket_options_hold_for_the_side_of_their_section);
    tcase_add_test(tc, test_defaults_hold_for_what_comes_after_them);
    tcase_add_test(tc, test_access_lists_take_the_place_of_those_in_defaults);
    tcase_add_loop_test(tc, test_admin_listeners, 0, N(admins));
    tcase_add_test(tc, test_thousands_of_ranges);
    tcase_add_test(tc, test_dump_tells_a_proxy_from_an_upstream_of_its_name);
    tcase_add_test(tc, test_dump_is_a_fixed_point);
    tcase_add_test(tc, test_command_line);
    tcase_add_test(tc, test_faults_of_the_command_line);
    tcase_add_test(tc, test_no_path_at_all);
    tcase_add_loop_test(tc, test_server_that_would_be_a_loop_if_it_were_local_is_marked, 0,
                        N(marks));
    tcase_add_test(tc, test_name_would_be_a_loop_where_a_listener_takes_its_address);
    tcase_add_test(tc, test_each_loop_is_told);
    tcase_add_test(tc, test_a_long_chain_is_searched_and_told_in_part);
    tcase_add_test(tc, test_many_proxies_and_servers_on_one_port);
    tcase_add_test(tc, test_error_of_a_file_that_cannot_be_read);
    tcase_add_test(tc, test_reference_holds_each_key_with_its_default_and_no_other);
    tcase_add_test(tc, test_manual_holds_each_key_with_its_default_and_no_other);
    tcase_add_test(tc, test_reference_loads_as_it_is_and_uncommented);
    tcase_add_test(tc, test_quickstart);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
