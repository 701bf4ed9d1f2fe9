/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_REDIALCTL_INTERNAL_H
#define REDIAL_REDIALCTL_INTERNAL_H

#include "screen.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What the parts of redialctl share.
 *
 *   redialctl           the command line
 *   redialctl_remote    requests to the daemon
 *   redialctl_doc       its answers, and rates from two of them
 *   redialctl_picture   the status for people
 *   redialctl_status, _sessions, _top, _change, _ready, _doctor   a command each, or several
 *   redialctl_findings  what the doctor has found, and how it is told
 *   redialctl_ports, _limits   what it looks at
 */

/* Exit statuses, for scripts. */
enum {
    CTL_OK = 0,
    CTL_NO = 1,          /* not ready, refused, not all there is, or something needs attention */
    CTL_UNREACHABLE = 2, /* the daemon cannot be reached, or does not answer sensibly */
    CTL_USAGE = 64,
    CTL_INTERNAL = 70,
    CTL_OS = 71,     /* the output cannot be written */
    CTL_CONFIG = 78, /* the configuration is bad */
};

/* The command line. */
struct ctl_options {
    const char *socket; /* NULL: the default */
    bool json, kill;
    uint64_t wait_ms, interval_ms, count; /* count 0: no end */
    const char **paths;                   /* of -c */
    size_t n_paths;
    const char *target; /* UPSTREAM/SERVER */
};

/* Commands: each returns an exit status. */
int ctl_status(const struct ctl_options *o);
int ctl_top(const struct ctl_options *o);
int ctl_sessions(const struct ctl_options *o);
int ctl_reload(const struct ctl_options *o);
int ctl_drain(const struct ctl_options *o);
int ctl_enable(const struct ctl_options *o);
int ctl_disable(const struct ctl_options *o);
int ctl_ready(const struct ctl_options *o);
int ctl_doctor(const struct ctl_options *o);

/** ctl_say(fmt, ...): a line on stderr, `redialctl: ' before it; nothing unprintable gets through. */
void ctl_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** ctl_out_of_memory(): say so and exit. */
void ctl_out_of_memory(void) __attribute__((noreturn));

/** ctl_sleep(ms): pause. */
void ctl_sleep(uint64_t ms);

struct remote;

/* An answer of the daemon's. */
struct remote_reply {
    long status; /* of HTTP */
    char *body;  /* ends with a NUL that ${len} does not count */
    size_t len;
};

/**
 * remote_open(address):
 * Returns a client, for remote_close(), of the daemon at ${address}: a path, unix:/PATH, unix:@NAME, ADDRESS:PORT, HOST:PORT; NULL: what REDIAL_ADMIN, or else
 * RUNTIME_DIRECTORY, says, or else /run/redial/admin.sock. Nothing is dialled yet.
 *
 * Exits with CTL_USAGE when it is no address.
 */
struct remote *remote_open(const char *address);
void remote_close(struct remote *remote);

/** remote_address(remote): where the daemon is, for people. */
const char *remote_address(const struct remote *remote);

/**
 * remote_ask(remote, method, path, timeout_ms, reply):
 * Send a request and wait for the answer, whatever its status. Returns 0, with ${reply} to be given to remote_reply_free(); or -1 when there is none:
 * remote_why() tells.
 */
int remote_ask(struct remote *remote, const char *method, const char *path, long timeout_ms,
               struct remote_reply *reply) __attribute__((warn_unused_result));
void remote_reply_free(struct remote_reply *reply);

/** remote_why(remote): why the last request had no answer, a sentence. */
const char *remote_why(const struct remote *remote);

/** remote_escape(remote, text): returns ${text} with what is special in a URL percent-encoded, for free(). */
char *remote_escape(struct remote *remote, const char *text);

/** remote_doc(remote, path, timeout_ms): GET ${path}. Returns the document, for json_decref(); or NULL, which remote_why() explains. */
json_t *remote_doc(struct remote *remote, const char *path, long timeout_ms);

/* For what is answered at once. A reload may look up names and bind addresses. */
#define REMOTE_TIMEOUT_MS        10000L
#define REMOTE_RELOAD_TIMEOUT_MS 120000L

/*
 * Documents. ${path} is keys with dots between them: "sessions.active". What is missing, null or of another type is the default: 0, "", false, an empty list.
 */
const json_t *doc_at(const json_t *doc, const char *path);
double doc_number(const json_t *doc, const char *path);
bool doc_has_number(const json_t *doc, const char *path);
const char *doc_text(const json_t *doc, const char *path);
bool doc_true(const json_t *doc, const char *path);

/** doc_find(list, key, text): the object of ${list} whose ${key} is ${text}, or NULL. */
const json_t *doc_find(const json_t *list, const char *key, const char *text);

/** doc_seconds(now, before): how much later was ${now} made than ${before}; 0 when they cannot be compared: another process, or no ${before}. */
double doc_seconds(const json_t *now, const json_t *before);

/** doc_rate(now, before, path, seconds): by how much has the number grown in a second? Negative: not known. */
double doc_rate(const json_t *now, const json_t *before, const char *path, double seconds);

/** doc_print(doc): write it to stdout as JSON, without control characters. */
void doc_print(const json_t *doc);

/**
 * picture_put(s, now, before, n_events):
 * Write the status ${now} to ${s}, with rates since ${before} (NULL: none) and the last ${n_events} events.
 */
void picture_put(struct screen *s, const json_t *now, const json_t *before, size_t n_events);

/** picture_events(s, now, n): only the last ${n} events, with a blank line before them; nothing when there are none. */
void picture_events(struct screen *s, const json_t *now, size_t n);

#endif
