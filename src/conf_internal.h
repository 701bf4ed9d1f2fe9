/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_CONF_INTERNAL_H
#define REDIAL_CONF_INTERNAL_H

#include "conf.h"

#include <sys/queue.h>

/*
 * What the parts of conf share.
 *
 *   conf_path     paths -> files
 *   conf_file     files -> lines -> conf_section_open(), conf_section_set()
 *   conf_section  sections and what [defaults] gave them
 *   conf_options  the table of options: text -> value -> text
 *   conf_server   the values of `listen' and `server'
 *   conf_access   the values of `allow' and `deny'
 *   conf_admin    the values of `admin'
 *   conf_check    what must hold between sections
 *   conf_loop     servers that lead back to their own proxy
 *   conf_dump     the configuration as text
 */

/* inih cuts a line at 199 bytes with its newline, and the names of sections and keys at 49. */
#define CONF_LINE_MAX 198
#define CONF_NAME_MAX 49

enum conf_kind { CONF_DAEMON, CONF_DEFAULTS, CONF_PROXY, CONF_UPSTREAM };

enum conf_type {
    CONF_DURATION,   /* uint64_t, milliseconds */
    CONF_COUNT,      /* unsigned; `off' where min is 0 */
    CONF_AUTO_COUNT, /* unsigned: as CONF_COUNT, or auto: CONF_AUTO */
    CONF_MODE,       /* mode_t */
    CONF_BOOL,       /* bool */
    CONF_WORD,       /* an enum: the index of the word */
    CONF_USER,       /* char *, NULL for `none' */
    CONF_GROUP,      /* the same */
    CONF_SOURCE,     /* struct addr without a port, no address for `none' */
    CONF_LISTEN,     /* appends to the proxy's listens */
    CONF_ACCESS,     /* appends to the section's rules */
    CONF_SERVER,     /* appends to the upstream's servers */
    CONF_ADMIN,      /* appends to the daemon's admins */
    CONF_REFERENCE,  /* the section's reference */
    CONF_INCLUDE,    /* appends to the files to load */
};

/*
 * A row of the table. A key of both proxies and upstreams has two rows, one for each side of a
 * session; the place of the value is ${offset} in struct conf_daemon, conf_proxy or conf_upstream,
 * as ${owner} says.
 */
struct conf_option {
    const char *name;
    enum conf_type type;
    enum conf_kind owner; /* CONF_DAEMON, CONF_PROXY or CONF_UPSTREAM */
    size_t offset;
    const char *preset;       /* the default as text, NULL: there is none */
    uint64_t min, max;        /* of CONF_DURATION and CONF_COUNT */
    const char *const *words; /* of CONF_WORD, NULL-terminated */
    bool repeats;
    const char *help; /* one line */
};

extern const struct conf_option conf_options[];
extern const size_t conf_n_options;
#define CONF_OPTIONS_MAX 48

/* A value of `allow' or `deny'. */
struct conf_rule {
    struct cidr_rule rule;
    const struct conf_section *section;
    unsigned line;
};

struct conf_section {
    TAILQ_ENTRY(conf_section) next;
    enum conf_kind kind;
    char *label; /* `[proxy web]' */
    char *name;  /* NULL: a kind that has none */
    const char *file;
    unsigned line;
    bool is_given[CONF_OPTIONS_MAX]; /* does the option stand in the section, and where? */
    unsigned lines[CONF_OPTIONS_MAX];
    struct conf_proxy *proxy;       /* of proxies and [defaults] */
    struct conf_upstream *upstream; /* of upstreams, proxies and [defaults] */
    char *reference;                /* `upstream = NAME' */
    struct conf_section *target;    /* where a proxy leads: an upstream or itself; NULL: a fault */
    size_t node;                    /* of conf_loop.c */
    struct conf_rule *rules;        /* those of its own */
    size_t n_rules;
    bool denies_none;                  /* `deny = none' */
    const struct conf_section *preset; /* whose values it began with */
};
TAILQ_HEAD(conf_sections, conf_section);

/* Where something stands. */
struct conf_place {
    const char *file; /* NULL: nowhere in particular */
    unsigned line;    /* 0: the file as a whole */
    const struct conf_section *section;
    const char *key;
};

/* A file still to be read. */
struct conf_pending {
    TAILQ_ENTRY(conf_pending) next;
    char *path;
    struct conf_place at; /* its include; without a key for a path of the command line */
    bool is_match;        /* it was found by a wildcard or in a directory: it must be a file */
};
TAILQ_HEAD(conf_pendings, conf_pending);

/* One conf_load() under way. */
struct conf_load {
    const char *path; /* the first that is to be read */
    FILE *errors;
    unsigned n_errors;
    struct conf *conf;
    struct conf_sections sections;
    struct conf_sections spare;    /* built-in defaults, second sections: to be freed */
    struct conf_section *preset;   /* defaults for the sections to come */
    void *index;                   /* tsearch(3): sections by kind and name */
    struct conf_pendings includes; /* of the file being read */
    struct conf_file_id *ids;      /* of the files that were read */
    size_t n_ids;
};

/**
 * conf_error(ld, at, fmt, ...):
 * Print a fault as `file:line: [section] key: what is wrong; what is allowed' and count it.
 */
void conf_error(struct conf_load *ld, const struct conf_place *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/** conf_no_memory(ld): print that, and count it. Returns -1. */
int conf_no_memory(struct conf_load *ld);

/* Room for the text of a place. */
#define CONF_PLACE_MAX 512
/* Room for what is wrong and what is allowed. */
#define CONF_WHY_MAX 1024

/** conf_place_str(file, line, buf): `file:line', or the file alone for line 0. Returns ${buf}. */
const char *conf_place_str(const char *file, unsigned line, char buf[CONF_PLACE_MAX]);

/** conf_fail(why, size, fmt, ...): print to ${why}. Returns -1. */
int conf_fail(char *why, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/** conf_append(text, size, fmt, ...): print behind ${text}; what does not fit is cut. */
void conf_append(char *text, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/** conf_keep_file(ld, name): a copy that lives as the configuration does; NULL after a fault. */
const char *conf_keep_file(struct conf_load *ld, const char *name);

/** conf_kind_str(kind): the first word of the section's heading. Cannot fail. */
const char *conf_kind_str(enum conf_kind kind);

/** conf_proxy_fini(p): free what it holds. conf_upstream_free(u): NULL is fine. */
void conf_proxy_fini(struct conf_proxy *p);
void conf_upstream_free(struct conf_upstream *u);

/** conf_path_load(ld, path): read a file, or a directory's *.conf, and what they include. */
void conf_path_load(struct conf_load *ld, const char *path);

/** conf_path_include(ld, at, pattern): queue what the include at ${at} names, after its file. */
void conf_path_include(struct conf_load *ld, const struct conf_place *at, const char *pattern);

/** conf_file_parse(ld, in, name): read the sections of ${in}. Borrows ${name} as ${ld->conf}. */
void conf_file_parse(struct conf_load *ld, FILE *in, const char *name);

/** conf_section_presets(ld): make the built-in defaults. Returns 0, or -1 after a fault. */
int conf_section_presets(struct conf_load *ld);

/**
 * conf_section_open(ld, kind, name, file, line):
 * Begin a section: allowed once by kind and name, and with what [defaults] gave before it.
 *
 * Returns it, borrowed from ${ld}; also when it is a second one, after that was told. NULL after
 * another fault.
 */
struct conf_section *conf_section_open(struct conf_load *ld, enum conf_kind kind, const char *name,
                                       const char *file, unsigned line);

/**
 * conf_section_set(ld, s, at, value):
 * Give ${s} the value of ${at->key}, already expanded. NULL: it was given, but wrong, which was
 * told. Faults are told.
 */
void conf_section_set(struct conf_load *ld, struct conf_section *s, const struct conf_place *at,
                      const char *value);

/** conf_section_find(ld, kind, name): NULL when there is none. */
struct conf_section *conf_section_find(const struct conf_load *ld, enum conf_kind kind,
                                       const char *name);

/** conf_section_has(s, key): was ${key} given, be it wrong? */
bool conf_section_has(const struct conf_section *s, const char *key);

/** conf_section_line(s, key): the line where ${key} was given, else that of the heading. */
unsigned conf_section_line(const struct conf_section *s, const char *key);

/** conf_section_forget(ld, s): find it no more. conf_section_free(s): NULL is fine. */
void conf_section_forget(struct conf_load *ld, const struct conf_section *s);
void conf_section_free(struct conf_section *s);

/** conf_option_find(name, owner): NULL when there is none. */
const struct conf_option *conf_option_find(const char *name, enum conf_kind owner);

/** conf_option_is_of(option, kind): may ${option} stand in a section of ${kind}? */
bool conf_option_is_of(const struct conf_option *option, enum conf_kind kind);

/**
 * conf_option_parse(option, base, text, why, size):
 * Parse ${text} into its place in ${base}, a struct of ${option->owner}; for the types that hold
 * one value. Returns 0, or -1 with ${why} saying what is wrong and what is allowed.
 */
int conf_option_parse(const struct conf_option *option, void *base, const char *text, char *why,
                      size_t size);

/**
 * conf_option_str(option, base, buf, size):
 * That value as text, as conf_option_parse() reads it. Returns the text, borrowed from ${buf},
 * ${base} or the table.
 */
const char *conf_option_str(const struct conf_option *option, const void *base, char *buf,
                            size_t size);

/* The bounds of a count, and where its fault is told. */
struct conf_bounds {
    uint64_t min, max;
    char *why;
    size_t size;
};

/** conf_count_parse(text, b, count): a number within ${b}; `off' is 0. As conf_option_parse(). */
int conf_count_parse(const char *text, const struct conf_bounds *b, unsigned *count);

/** conf_listen_add(p, at, text, why, size): append a line's listeners. As conf_option_parse(). */
int conf_listen_add(struct conf_proxy *p, const struct conf_place *at, const char *text, char *why,
                    size_t size);

/**
 * conf_listens_have_unix(p): does the proxy make UNIX sockets itself? One that is passed has its mode and owner from who passes it.
 */
bool conf_listens_have_unix(const struct conf_proxy *p);

/** conf_admin_add(daemon, at, text, why, size): append a line's admin listeners, or none for `off'. As conf_option_parse(). */
int conf_admin_add(struct conf_daemon *daemon, const struct conf_place *at, const char *text,
                   char *why, size_t size);

/**
 * conf_admin_preset(ld):
 * Where `admin' is not given: a UNIX socket in $RUNTIME_DIRECTORY, which systemd sets (systemd.exec(5)); without that none. A fault is told.
 */
void conf_admin_preset(struct conf_load *ld);

/** conf_fits_line(key, value): does a line of conf_dump() with ${value} fit into CONF_LINE_MAX? */
bool conf_fits_line(const char *key, const char *value);

/** conf_next_word(text, separators): the next word of ${*text}, cut out of it with a NUL, or NULL. */
char *conf_next_word(char **text, const char *separators);

/** conf_server_add(u, at, text, why, size): append a line's server. As conf_option_parse(). */
int conf_server_add(struct conf_upstream *u, const struct conf_place *at, const char *text,
                    char *why, size_t size);

/** conf_server_str(server, buf, size): the line for conf_server_add(). Returns as snprintf(3). */
int conf_server_str(const struct conf_server *server, char *buf, size_t size);

/** conf_access_add(s, at, text, why, size): append a line's rules. As conf_option_parse(). */
int conf_access_add(struct conf_section *s, const struct conf_place *at, const char *text,
                    char *why, size_t size);

/**
 * conf_access_check(ld, s):
 * Make the table of ${s->proxy} from the section's lists and those that [defaults] gave it. Faults are told.
 */
void conf_access_check(struct conf_load *ld, struct conf_section *s);

/**
 * conf_check(ld):
 * Find what proxies refer to, tell what does not fit together, mark servers that may become loops.
 */
void conf_check(struct conf_load *ld);

struct conf_listener {
    const struct conf_listen *listen;
    struct conf_section *proxy;
    size_t order; /* that of the files */
};

/* All listeners, sorted so that those with the same port or path lie side by side. */
struct conf_listeners {
    struct conf_listener *items;
    size_t n;
};

/** conf_listeners_find(listeners, a): the first that is at or after ${a}'s port or path. */
size_t conf_listeners_find(const struct conf_listeners *listeners, const struct addr *a);

/** conf_listeners_is_alike(listeners, i, a): is there an i-th, with ${a}'s port or path? */
bool conf_listeners_is_alike(const struct conf_listeners *listeners, size_t i,
                             const struct addr *a);

/** conf_loop_check(ld, listeners): tell of loops, and mark servers that may become one. */
void conf_loop_check(struct conf_load *ld, const struct conf_listeners *listeners);

#endif
