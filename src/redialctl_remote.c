/* SPDX-License-Identifier: MIT */
#include "redialctl_internal.h"

#include "addr.h"
#include "hostname.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEFAULT_ADDRESS "unix:/run/redial/admin.sock"
/* More than any answer: one line for each of a million sessions. */
#define REPLY_MAX ((size_t)512 << 20)
#define UNIX      "unix:"

struct remote {
    CURL *curl;
    char *address;  /* as for people */
    char *url_host; /* what comes before the path of a URL */
    char why[512];
    bool is_unix;
    bool met_itself; /* the last connection was its own peer */
};

struct body {
    struct remote_reply *reply;
    size_t room;
};

static size_t
on_data(char *data, size_t size, size_t n, void *arg)
{
    struct body *body = arg;
    struct remote_reply *reply = body->reply;
    size_t len = size * n;

    if (len > REPLY_MAX - reply->len)
        return CURL_WRITEFUNC_ERROR;
    while (body->room < reply->len + len + 1) {
        size_t room = body->room ? body->room * 2 : 16384;
        char *more = realloc(reply->body, room);
        if (!more)
            ctl_out_of_memory();
        reply->body = more;
        body->room = room;
    }
    memcpy(reply->body + reply->len, data, len);
    reply->len += len;
    reply->body[reply->len] = '\0';
    return len;
}

/*
 * Who waits for a daemon that is not there yet dials a dead port of this host over and over, and may be given that very port: the connection is then
 * its own peer. It is not spoken to, and closed with a reset, or the daemon could not listen.
 */
static int
on_connected(void *arg, char *peer, char *local, int peer_port, int local_port)
{
    struct remote *remote = arg;

    remote->met_itself = !remote->is_unix && peer_port == local_port && strcmp(peer, local) == 0;
    return remote->met_itself ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static int
on_close(void *arg, curl_socket_t fd)
{
    struct remote *remote = arg;
    struct linger reset = {.l_onoff = 1};

    if (remote->met_itself)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    return close(fd);
}

/* The text of an address; a bare path gets its prefix. */
static char *
full_address(const char *text)
{
    const char *runtime = getenv("RUNTIME_DIRECTORY");
    char *full = NULL;
    int n = 0;

    if (!text)
        text = getenv("REDIAL_ADMIN");
    if (text && *text != '\0')
        n = asprintf(&full, "%s%s", strchr("/.", *text) ? UNIX : "", text);
    else if (runtime && *runtime != '\0') /* several have colons between them, systemd.exec(5) */
        n = asprintf(&full, UNIX "%.*s/admin.sock", (int)strcspn(runtime, ":"), runtime);
    else
        n = asprintf(&full, "%s", DEFAULT_ADDRESS);
    if (n < 0)
        ctl_out_of_memory();
    return full;
}

static _Noreturn void
bad_address(const struct remote *remote, const char *why)
{
    ctl_say("%s is no address of a daemon: %s", remote->address, why);
    exit(CTL_USAGE);
}

static void
set_unix(struct remote *remote)
{
    const char *path = remote->address + strlen(UNIX);

    if (strlen(path) < 2 || strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        bad_address(remote, "a path has 2 to 107 bytes");
    curl_easy_setopt(remote->curl,
                     *path == '@' ? CURLOPT_ABSTRACT_UNIX_SOCKET : CURLOPT_UNIX_SOCKET_PATH,
                     *path == '@' ? path + 1 : path);
    remote->url_host = strdup("http://localhost");
}

/* A listener's `*' and wildcards are dialled where they can be. */
static void
set_inet(struct remote *remote)
{
    char name[HOSTNAME_MAX + 1], host[ADDR_STR_MAX];
    struct addr addr;
    const char *why;
    uint16_t port;

    if (hostname_is_meant(remote->address)) {
        if (hostname_parse(name, &port, remote->address, &why) != 0)
            bad_address(remote, why);
        if (asprintf(&remote->url_host, "http://%s:%u", name, port) < 0)
            remote->url_host = NULL;
        return;
    }
    if (addr_parse(&addr, remote->address, &why) != 0)
        bad_address(remote, why);
    if (addr_is_wildcard(&addr) && addr.sa.sa_family == AF_INET6)
        addr.in6.sin6_addr = in6addr_loopback;
    else if (addr_is_wildcard(&addr))
        addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    addr.dual = false;
    if (asprintf(&remote->url_host, "http://%s", addr_str(&addr, host)) < 0)
        remote->url_host = NULL;
}

struct remote *
remote_open(const char *address)
{
    struct remote *remote = calloc(1, sizeof(*remote));

    if (!remote || curl_global_init(CURL_GLOBAL_NOTHING) != 0 || !(remote->curl = curl_easy_init()))
        ctl_out_of_memory();
    remote->address = full_address(address);
    remote->is_unix = strncmp(remote->address, UNIX, strlen(UNIX)) == 0;
    if (remote->is_unix)
        set_unix(remote);
    else
        set_inet(remote);
    if (!remote->url_host)
        ctl_out_of_memory();
    /* The environment's proxies are for the Internet. */
    curl_easy_setopt(remote->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(remote->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(remote->curl, CURLOPT_USERAGENT, "redialctl");
    curl_easy_setopt(remote->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(remote->curl, CURLOPT_PREREQFUNCTION, on_connected);
    curl_easy_setopt(remote->curl, CURLOPT_PREREQDATA, remote);
    curl_easy_setopt(remote->curl, CURLOPT_CLOSESOCKETFUNCTION, on_close);
    curl_easy_setopt(remote->curl, CURLOPT_CLOSESOCKETDATA, remote);
    return remote;
}

void
remote_close(struct remote *remote)
{
    if (!remote)
        return;
    curl_easy_cleanup(remote->curl);
    curl_global_cleanup();
    free(remote->address);
    free(remote->url_host);
    free(remote);
}

const char *
remote_address(const struct remote *remote)
{
    return remote->address;
}

const char *
remote_why(const struct remote *remote)
{
    return remote->why;
}

static void explain(struct remote *remote, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void
explain(struct remote *remote, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(remote->why, sizeof(remote->why), fmt, args);
    va_end(args);
}

static const char *
hint_for(long err)
{
    switch (err) {
    case EACCES:
    case EPERM:
        return "; the mode of the socket says who may, try it as root";
    case ENOENT:
    case ECONNREFUSED:
        return "; is rediald running, with this address in `admin ='?";
    default:
        return "";
    }
}

static void
explain_failure(struct remote *remote, CURLcode code)
{
    long err = 0;

    curl_easy_getinfo(remote->curl, CURLINFO_OS_ERRNO, &err);
    if (remote->met_itself)
        explain(remote,
                "cannot reach rediald at %s: nobody listens there, the connection met itself",
                remote->address);
    else if (code == CURLE_COULDNT_CONNECT && err != 0)
        explain(remote, "cannot reach rediald at %s: %s%s", remote->address, strerror((int)err),
                hint_for(err));
    else if (code == CURLE_OPERATION_TIMEDOUT)
        explain(remote, "rediald at %s does not answer in time", remote->address);
    else
        explain(remote, "rediald at %s does not answer: %s", remote->address,
                curl_easy_strerror(code));
}

int
remote_ask(struct remote *remote, const char *method, const char *path, long timeout_ms,
           struct remote_reply *reply)
{
    struct body body = {.reply = reply};
    CURLcode code;
    char *url;

    *reply = (struct remote_reply){.status = 0};
    (void)on_data((char *)"", 1, 0, &body);
    if (asprintf(&url, "%s%s", remote->url_host, path) < 0)
        ctl_out_of_memory();
    remote->met_itself = false;
    remote->why[0] = '\0';
    curl_easy_setopt(remote->curl, CURLOPT_URL, url);
    if (strcmp(method, "POST") == 0)
        curl_easy_setopt(remote->curl, CURLOPT_POSTFIELDS, "");
    else
        curl_easy_setopt(remote->curl, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(remote->curl, CURLOPT_WRITEDATA, &body);
    curl_easy_setopt(remote->curl, CURLOPT_TIMEOUT_MS, timeout_ms > 0 ? timeout_ms : 1L);
    code = curl_easy_perform(remote->curl);
    free(url);
    if (code == CURLE_OK) {
        curl_easy_getinfo(remote->curl, CURLINFO_RESPONSE_CODE, &reply->status);
        return 0;
    }
    explain_failure(remote, code);
    remote_reply_free(reply);
    return -1;
}

void
remote_reply_free(struct remote_reply *reply)
{
    free(reply->body);
    reply->body = NULL;
}

char *
remote_escape(struct remote *remote, const char *text)
{
    char *escaped = curl_easy_escape(remote->curl, text, (int)strlen(text)), *copy;

    copy = escaped ? strdup(escaped) : NULL;
    curl_free(escaped);
    if (!copy)
        ctl_out_of_memory();
    return copy;
}

json_t *
remote_doc(struct remote *remote, const char *path, long timeout_ms)
{
    struct remote_reply reply;
    json_error_t error;
    json_t *doc;

    if (remote_ask(remote, "GET", path, timeout_ms, &reply) != 0)
        return NULL;
    doc = json_loadb(reply.body, reply.len, 0, &error);
    if (reply.status != 200)
        explain(remote, "rediald at %s answers %ld to GET %s", remote->address, reply.status, path);
    else if (!doc)
        explain(remote, "rediald at %s answers GET %s with something that is no JSON: %s",
                remote->address, path, error.text);
    else if (doc_number(doc, "schema") != 1)
        explain(remote, "rediald at %s answers GET %s in a form that this redialctl does not know",
                remote->address, path);
    remote_reply_free(&reply);
    if (remote->why[0] != '\0') {
        json_decref(doc);
        doc = NULL;
    }
    return doc;
}
