/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_REDIALCTL_DOCTOR_H
#define REDIAL_REDIALCTL_DOCTOR_H

#include "portrange.h"
#include "screen.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * The doctor looks at this host and at a configuration, and keeps what it finds as a document: "findings", each an object with "check", "result", "what" (it is),
 * and perhaps "means", "do", "commands" and "errors".
 */
enum result {
    RESULT_OK,
    RESULT_ADVICE,  /* could be better; needs no attention */
    RESULT_WARNING, /* will go wrong one day */
    RESULT_PROBLEM, /* goes wrong now */
};

struct conf;

struct doctor {
    const struct conf *conf; /* NULL: none that is valid */
    struct portrange range;
    unsigned n_workers;
    unsigned long daemon_pid; /* 0: none that runs is known */
    json_t *findings;
    unsigned counts[RESULT_PROBLEM + 1];
    struct portrange cured; /* the range, with all ports reserved that should be */
    bool cures;             /* there are such ports */
};

/** doctor_found(d, check, result, fmt, ...): returns a new finding, which ${d} owns. */
json_t *doctor_found(struct doctor *d, const char *check, enum result result, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/** finding_means(), finding_do(): what follows from it, and what to do: sentences. finding_command(), finding_error(): one more line to be copied, to be shown. */
void finding_means(json_t *finding, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void finding_do(json_t *finding, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void finding_command(json_t *finding, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void finding_error(json_t *finding, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** doctor_document(d): returns a new document of all that was found. */
json_t *doctor_document(const struct doctor *d);

/** doctor_put(s, doc): write such a document for people. */
void doctor_put(struct screen *s, const json_t *doc);

/* Checks. Each adds at least one finding when it could look. */
void check_self_connected(struct doctor *d);
void check_ports(struct doctor *d);
void check_descriptors(struct doctor *d);
void check_backlog(struct doctor *d);
void check_pipes(struct doctor *d);
void check_migration(struct doctor *d);

#endif
