/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include "privs.h"
#include "value.h"

#include <netdb.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000)
#define HOUR   (3600 * SECOND)
#define DAY    (24 * HOUR)
#define YEAR   (365 * DAY)
/* MAX_TCP_KEEPIDLE of the kernel is 32767 s; TCP_USER_TIMEOUT is an int of milliseconds. */
#define KEEPALIVE_MAX    (9 * HOUR)
#define USER_TIMEOUT_MAX (24 * DAY)

/* A user or group of the system has no longer name; escaped, it still fits into a line of
 * conf_dump(). */
#define ACCOUNT_MAX 64

/* The index of a word is the value of its enum. */
static const char *const log_levels[] = {
#define X(name, text, priority) [name] = (text),
    LOG_LEVELS(X)
#undef X
        NULL};
static const char *const log_formats[] =
    {[LOG_FORMAT_AUTO] = "auto", [LOG_FORMAT_TEXT] = "text", [LOG_FORMAT_JSON] = "json", NULL};
static const char *const access_logs[] =
    {[ACCESS_LOG_ALL] = "all", [ACCESS_LOG_ERRORS] = "errors", [ACCESS_LOG_OFF] = "off", NULL};
static const char *const range_checks[] =
    {[RANGE_CHECK_WARN] = "warn", [RANGE_CHECK_ERROR] = "error", [RANGE_CHECK_OFF] = "off", NULL};
static const char *const splices[] = {[SPLICE_AUTO] = "auto", [SPLICE_OFF] = "off", NULL};
static const char *const balances[] = {[BALANCE_ROUND_ROBIN] = "round_robin",
                                       [BALANCE_LEAST_CONN] = "least_conn",
                                       [BALANCE_SOURCE_HASH] = "source_hash",
                                       [BALANCE_FIRST] = "first",
                                       NULL};
static const char *const when_downs[] = {[WHEN_DOWN_WAIT] = "wait",
                                         [WHEN_DOWN_RESET] = "reset",
                                         [WHEN_DOWN_UNLISTEN] = "unlisten",
                                         NULL};
static const char *const proxy_versions[] =
    {[PROXYPROTO_OFF] = "off", [PROXYPROTO_V1] = "v1", [PROXYPROTO_V2] = "v2", NULL};

#define IN_DAEMON(member)   CONF_DAEMON, offsetof(struct conf_daemon, member)
#define IN_PROXY(member)    CONF_PROXY, offsetof(struct conf_proxy, member)
#define IN_UPSTREAM(member) CONF_UPSTREAM, offsetof(struct conf_upstream, member)

/* clang-format off */
const struct conf_option conf_options[] = {
    {"workers", CONF_AUTO_COUNT, IN_DAEMON(workers), "1", 1, 256, NULL, false,
        "threads that serve, each with its own part of the clients; auto: one for each usable CPU"},
    {"admin", CONF_ADMIN, CONF_DAEMON, 0, NULL, 0, 0, NULL, true,
        "where metrics, states and redialctl are served; off: nowhere"},
    {"log_level", CONF_WORD, IN_DAEMON(log_level), "info", 0, 0, log_levels, false,
        "the least severe events that are logged"},
    {"log_format", CONF_WORD, IN_DAEMON(log_format), "auto", 0, 0, log_formats, false,
        "auto: for the journal when stderr is the journal, json when $REDIAL_LOG_FORMAT is that, else text"},
    {"access_log", CONF_WORD, IN_DAEMON(access_log), "errors", 0, 0, access_logs, false,
        "which sessions are logged, at their end"},
    {"lame_duck", CONF_DURATION, IN_DAEMON(lame_duck_ms), "off", 0, YEAR, NULL, false,
        "how long to go on accepting after SIGTERM, before the drain begins"},
    {"drain_timeout", CONF_DURATION, IN_DAEMON(drain_timeout_ms), "8s", 0, YEAR, NULL, false,
        "how long sessions may go on once no client is accepted any more"},
    {"bind_retry", CONF_DURATION, IN_DAEMON(bind_retry_ms), "65s", 0, YEAR, NULL, false,
        "how long to wait at the start for a port that an outgoing connection holds"},
    {"port_range_check", CONF_WORD, IN_DAEMON(port_range_check), "warn", 0, 0, range_checks, false,
        "what to do about a port that the kernel may give to an outgoing connection"},
    {"user", CONF_USER, IN_DAEMON(user), "none", 0, 0, NULL, false,
        "the user to become after binding"},
    {"group", CONF_GROUP, IN_DAEMON(group), "none", 0, 0, NULL, false,
        "the group to become; none: the user's own"},
    {"splice", CONF_WORD, IN_DAEMON(splice), "auto", 0, 0, splices, false,
        "auto: a direction that moves much goes through splice(2); off: every byte is copied"},
    {"include", CONF_INCLUDE, CONF_DAEMON, 0, NULL, 0, 0, NULL, true,
        "further files to read after this one"},

    {"listen", CONF_LISTEN, CONF_PROXY, 0, NULL, 0, 0, NULL, true,
        "where clients come in"},
    {"allow", CONF_ACCESS, CONF_PROXY, 0, NULL, 0, 0, NULL, true,
        "the only clients that are served, by address; the longest prefix of allow and deny decides"},
    {"deny", CONF_ACCESS, CONF_PROXY, 0, NULL, 0, 0, NULL, true,
        "clients that are not served, by address"},
    {"upstream", CONF_REFERENCE, CONF_PROXY, 0, NULL, 0, 0, NULL, false,
        "the [upstream] that serves them, when the proxy has no servers of its own"},
    {"accept_proxy", CONF_BOOL, IN_PROXY(accept_proxy), "off", 0, 0, NULL, false,
        "clients begin with a header of the PROXY protocol, of either version"},
    {"max_sessions", CONF_COUNT, IN_PROXY(max_sessions), "off", 0, UINT32_MAX, NULL, false,
        "sessions at once; accepting pauses beyond it"},
    {"idle_timeout", CONF_DURATION, IN_PROXY(idle_timeout_ms), "off", 0, YEAR, NULL, false,
        "no byte either way for so long ends the session"},
    {"half_close_timeout", CONF_DURATION, IN_PROXY(half_close_timeout_ms), "1h",
        0, YEAR, NULL, false,
        "how long one side may go on after the other has finished"},
    {"backlog", CONF_COUNT, IN_PROXY(backlog), "4096", 1, 65535, NULL, false,
        "connections that the kernel keeps until they are accepted"},
    {"unix_mode", CONF_MODE, IN_PROXY(unix_mode), "0660", 0, 0, NULL, false,
        "the mode of UNIX sockets"},
    {"unix_user", CONF_USER, IN_PROXY(unix_user), "none", 0, 0, NULL, false,
        "the owner of UNIX sockets; none: as the process"},
    {"unix_group", CONF_GROUP, IN_PROXY(unix_group), "none", 0, 0, NULL, false,
        "the group of UNIX sockets; none: as the process"},
    {"nodelay", CONF_BOOL, IN_PROXY(sockopts.nodelay), "on", 0, 0, NULL, false,
        "send small pieces at once (TCP_NODELAY), to clients"},
    {"keepalive", CONF_DURATION, IN_PROXY(sockopts.keepalive_ms), "60s",
        0, KEEPALIVE_MAX, NULL, false,
        "silence before the first keepalive probe, to clients"},
    {"user_timeout", CONF_DURATION, IN_PROXY(sockopts.user_timeout_ms), "off",
        0, USER_TIMEOUT_MAX, NULL, false,
        "how long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT), by clients"},

    {"server", CONF_SERVER, CONF_UPSTREAM, 0, NULL, 0, 0, NULL, true,
        "where clients go"},
    {"balance", CONF_WORD, IN_UPSTREAM(balance), "round_robin", 0, 0, balances, false,
        "which of the servers that are up gets the next client"},
    {"standby", CONF_AUTO_COUNT, IN_UPSTREAM(standby), "auto", 0, 1024, NULL, false,
        "connections to each server that are kept ready for the next clients; auto: one, unless it does harm"},
    {"standby_max_age", CONF_DURATION, IN_UPSTREAM(standby_max_age_ms), "off",
        0, YEAR, NULL, false,
        "replace a standby connection that is older"},
    {"connect_timeout", CONF_DURATION, IN_UPSTREAM(connect_timeout_ms), "5s", 1, HOUR, NULL, false,
        "one attempt to reach a server"},
    {"backoff_min", CONF_DURATION, IN_UPSTREAM(backoff_min_ms), "100ms", 1, DAY, NULL, false,
        "the shortest pause between attempts"},
    {"backoff_max", CONF_DURATION, IN_UPSTREAM(backoff_max_ms), "5s", 1, DAY, NULL, false,
        "the longest pause between attempts"},
    {"backoff_waiting", CONF_DURATION, IN_UPSTREAM(backoff_waiting_ms), "1s", 1, DAY, NULL, false,
        "the longest pause while a client waits"},
    {"when_down", CONF_WORD, IN_UPSTREAM(when_down), "wait", 0, 0, when_downs, false,
        "what clients get while no server can be reached"},
    {"wait_timeout", CONF_DURATION, IN_UPSTREAM(wait_timeout_ms), "30s", 0, YEAR, NULL, false,
        "how long a client is held for a server; off: without end"},
    {"max_waiting", CONF_COUNT, IN_UPSTREAM(max_waiting), "1024", 0, UINT32_MAX, NULL, false,
        "clients held at once; the next one is refused"},
    {"source", CONF_SOURCE, IN_UPSTREAM(source), "none", 0, 0, NULL, false,
        "the local address to dial from; none: the kernel picks"},
    {"resolve_min", CONF_DURATION, IN_UPSTREAM(resolve_min_ms), "1s", SECOND, DAY, NULL, false,
        "the shortest time between two lookups of a server's name, whatever the answer's TTL"},
    {"resolve_max", CONF_DURATION, IN_UPSTREAM(resolve_max_ms), "30s", SECOND, DAY, NULL, false,
        "the longest time, and that of names in /etc/hosts"},
    {"send_proxy", CONF_WORD, IN_UPSTREAM(send_proxy), "off", 0, 0, proxy_versions, false,
        "the header of the PROXY protocol that servers are sent before the client's first byte"},
    {"nodelay", CONF_BOOL, IN_UPSTREAM(sockopts.nodelay), "on", 0, 0, NULL, false,
        "send small pieces at once (TCP_NODELAY), to servers"},
    {"keepalive", CONF_DURATION, IN_UPSTREAM(sockopts.keepalive_ms), "60s",
        0, KEEPALIVE_MAX, NULL, false,
        "silence before the first keepalive probe, to servers"},
    {"user_timeout", CONF_DURATION, IN_UPSTREAM(sockopts.user_timeout_ms), "off",
        0, USER_TIMEOUT_MAX, NULL, false,
        "how long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT), by servers"},
};
/* clang-format on */
const size_t conf_n_options = sizeof(conf_options) / sizeof(conf_options[0]);
_Static_assert(sizeof(conf_options) / sizeof(conf_options[0]) <= CONF_OPTIONS_MAX, "");

const struct conf_option *
conf_option_find(const char *name, enum conf_kind owner)
{
    for (size_t i = 0; i < conf_n_options; i++)
        if (conf_options[i].owner == owner && strcmp(conf_options[i].name, name) == 0)
            return &conf_options[i];
    return NULL;
}

bool
conf_option_is_of(const struct conf_option *option, enum conf_kind kind)
{
    bool is_local = option->type == CONF_LISTEN || option->type == CONF_SERVER ||
                    option->type == CONF_REFERENCE;

    switch (kind) {
    case CONF_DEFAULTS:
        return option->owner != CONF_DAEMON && !is_local;
    case CONF_PROXY:
        return option->owner != CONF_DAEMON;
    case CONF_DAEMON:
    case CONF_UPSTREAM:
        break;
    }
    return option->owner == kind;
}

static int
parse_duration(const struct conf_option *o, uint64_t *ms, const char *text, char *why, size_t size)
{
    char low[24], high[24];
    const char *allowed;
    uint64_t n;

    if (value_duration(text, &n, &allowed) != 0)
        return conf_fail(why, size, "'%.99s' is not a duration; %s", text, allowed);
    if (n < o->min || n > o->max)
        return conf_fail(why, size, "'%.99s' is out of range; allowed are %s to %s", text,
                         value_duration_str(o->min, low, sizeof(low)),
                         value_duration_str(o->max, high, sizeof(high)));
    *ms = n;
    return 0;
}

int
conf_count_parse(const char *text, const struct conf_bounds *b, unsigned *count)
{
    const char *allowed;
    uint64_t n = 0;

    if ((b->min > 0 || strcmp(text, "off") != 0) && value_uint(text, &n, &allowed) != 0)
        return conf_fail(b->why, b->size, "'%.99s' is not a number; %s%s", text, allowed,
                         b->min == 0 ? ", and off" : "");
    if (n < b->min || n > b->max)
        return conf_fail(b->why, b->size, "'%.99s' is out of range; allowed are %llu to %llu", text,
                         (unsigned long long)b->min, (unsigned long long)b->max);
    *count = (unsigned)n;
    return 0;
}

static int
parse_word(const struct conf_option *o, unsigned *value, const char *text, char *why, size_t size)
{
    size_t len;

    for (unsigned i = 0; o->words[i] != NULL; i++) {
        if (strcmp(o->words[i], text) == 0) {
            *value = i;
            return 0;
        }
    }
    conf_fail(why, size, "'%.99s' is not allowed; allowed are ", text);
    for (unsigned i = 0; o->words[i] != NULL; i++) {
        len = strlen(why);
        snprintf(why + len, size - len, "%s%s",
                 i == 0                    ? ""
                 : o->words[i + 1] == NULL ? " and "
                                           : ", ",
                 o->words[i]);
    }
    return -1;
}

static int
parse_account(const struct conf_option *o, char **value, const char *text, char *why, size_t size)
{
    const char *kind = o->type == CONF_USER ? "user" : "group";
    char *copy = NULL;
    uid_t uid;
    gid_t gid;

    if (strcmp(text, "none") != 0) {
        if (strlen(text) > ACCOUNT_MAX ||
            (o->type == CONF_USER ? privs_find_user(text, &uid, &gid)
                                  : privs_find_group(text, &gid)) != 0)
            return conf_fail(why, size,
                             "no such %s '%.99s'; allowed are a name or number, and none", kind,
                             text);
        copy = strdup(text);
        if (copy == NULL)
            return conf_fail(why, size, "out of memory");
    }
    free(*value);
    *value = copy;
    return 0;
}

static int
parse_source(struct addr *value, const char *text, char *why, size_t size)
{
    const char *allowed;
    struct addr a = {.len = 0};

    if (strcmp(text, "none") != 0 && addr_parse_ip(&a, text, &allowed) != 0)
        return conf_fail(why, size, "'%.99s': %s", text, allowed);
    *value = a;
    return 0;
}

static int
parse_auto_count(const struct conf_option *o, unsigned *value, const char *text, char *why,
                 size_t size)
{
    const struct conf_bounds bounds = {o->min, o->max, why, size};

    if (strcmp(text, "auto") == 0) {
        *value = CONF_AUTO;
        return 0;
    }
    if (conf_count_parse(text, &bounds, value) == 0)
        return 0;
    conf_append(why, size, ", and auto");
    return -1;
}

int
conf_option_parse(const struct conf_option *option, void *base, const char *text, char *why,
                  size_t size)
{
    void *value = (char *)base + option->offset;
    struct conf_bounds bounds;
    const char *allowed;

    switch (option->type) {
    case CONF_DURATION:
        return parse_duration(option, value, text, why, size);
    case CONF_COUNT:
        bounds = (struct conf_bounds){option->min, option->max, why, size};
        return conf_count_parse(text, &bounds, value);
    case CONF_AUTO_COUNT:
        return parse_auto_count(option, value, text, why, size);
    case CONF_WORD:
        return parse_word(option, value, text, why, size);
    case CONF_USER:
    case CONF_GROUP:
        return parse_account(option, value, text, why, size);
    case CONF_SOURCE:
        return parse_source(value, text, why, size);
    case CONF_MODE:
        if (value_mode(text, value, &allowed) != 0)
            return conf_fail(why, size, "'%.99s' is not a file mode; %s", text, allowed);
        return 0;
    case CONF_BOOL:
        if (value_bool(text, value, &allowed) != 0)
            return conf_fail(why, size, "'%.99s' is not a switch; %s", text, allowed);
        return 0;
    case CONF_LISTEN:
    case CONF_ACCESS:
    case CONF_SERVER:
    case CONF_ADMIN:
    case CONF_REFERENCE:
    case CONF_INCLUDE:
        break;
    }
    return conf_fail(why, size, "holds no single value");
}

static const char *
source_str(const struct addr *a, char *buf, size_t size)
{
    if (a->len == 0 ||
        getnameinfo(&a->sa, a->len, buf, (socklen_t)size, NULL, 0, NI_NUMERICHOST) != 0)
        snprintf(buf, size, "none");
    return buf;
}

const char *
conf_option_str(const struct conf_option *option, const void *base, char *buf, size_t size)
{
    const void *value = (const char *)base + option->offset;
    const char *account;
    unsigned count;

    buf[0] = '\0';
    switch (option->type) {
    case CONF_DURATION:
        return value_duration_str(*(const uint64_t *)value, buf, size);
    case CONF_COUNT:
        count = *(const unsigned *)value;
        snprintf(buf, size, "%u", count);
        return count == 0 ? "off" : buf;
    case CONF_AUTO_COUNT:
        count = *(const unsigned *)value;
        snprintf(buf, size, "%u", count);
        return count == CONF_AUTO ? "auto" : buf;
    case CONF_MODE:
        snprintf(buf, size, "%04o", *(const mode_t *)value);
        break;
    case CONF_BOOL:
        return *(const bool *)value ? "on" : "off";
    case CONF_WORD:
        return option->words[*(const unsigned *)value];
    case CONF_USER:
    case CONF_GROUP:
        account = *(char *const *)value;
        return account == NULL ? "none" : account;
    case CONF_SOURCE:
        return source_str(value, buf, size);
    case CONF_LISTEN:
    case CONF_ACCESS:
    case CONF_SERVER:
    case CONF_ADMIN:
    case CONF_REFERENCE:
    case CONF_INCLUDE:
        break;
    }
    return buf;
}
