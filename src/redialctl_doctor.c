/* SPDX-License-Identifier: MIT */
#include "redialctl_doctor.h"

#include "conf.h"
#include "cpus.h"
#include "redialctl_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_PATH SYSCONFDIR "/redial/rediald.conf"
/* The daemon is asked for its number alone, and need not run. */
#define ASK_MS 1000L

static void
tell_valid(struct doctor *d, const struct conf *conf)
{
    size_t n_servers = 0;

    for (size_t i = 0; i < conf->n_upstreams; i++)
        n_servers += conf->upstreams[i]->n_servers;
    doctor_found(d, "configuration", RESULT_OK,
                 "the configuration is valid: %zu prox%s, %zu server%s", conf->n_proxies,
                 conf->n_proxies == 1 ? "y" : "ies", n_servers, n_servers == 1 ? "" : "s");
}

static void
tell_faults(struct doctor *d, char *faults)
{
    json_t *f = doctor_found(d, "configuration", RESULT_PROBLEM, "the configuration is bad");
    char *line;

    while ((line = strsep(&faults, "\n")))
        if (*line != '\0')
            finding_error(f, "%s", line);
    finding_means(f, "rediald does not start with it, and a reload changes nothing. Its ports and "
                     "limits were not examined.");
}

/* Returns the configuration, or NULL: ${*bad} when it has faults. */
static struct conf *
load(struct doctor *d, const struct ctl_options *o, bool *bad)
{
    static const char *const default_path[] = {DEFAULT_PATH};
    struct conf *conf;
    char *faults = NULL;
    size_t len;
    FILE *f;

    if (o->n_paths == 0 && access(DEFAULT_PATH, F_OK) != 0) {
        json_t *found = doctor_found(d, "configuration", RESULT_ADVICE,
                                     "there is no " DEFAULT_PATH ": only the host was examined");
        finding_do(found, "Name what your rediald reads with -c.");
        return NULL;
    }
    f = open_memstream(&faults, &len);
    if (!f)
        ctl_out_of_memory();
    conf = conf_load(o->n_paths > 0 ? o->paths : default_path, o->n_paths > 0 ? o->n_paths : 1, f);
    if (fclose(f) != 0)
        ctl_out_of_memory();
    *bad = conf == NULL;
    if (conf)
        tell_valid(d, conf);
    else
        tell_faults(d, faults);
    free(faults);
    return conf;
}

static unsigned long
find_daemon(const struct ctl_options *o)
{
    struct remote *remote = remote_open(o->socket);
    json_t *doc = remote_doc(remote, "/status", ASK_MS);
    double pid = doc_number(doc, "pid");

    json_decref(doc);
    remote_close(remote);
    return pid > 0 && pid < 1e9 ? (unsigned long)pid : 0;
}

int
ctl_doctor(const struct ctl_options *o)
{
    static struct doctor d; /* the bits of two sets of ports */
    bool bad = false;
    struct conf *conf = load(&d, o, &bad);
    struct screen s;
    json_t *doc;

    portrange_load(&d.range);
    d.cured = d.range;
    d.conf = conf;
    check_self_connected(&d);
    if (conf) {
        d.n_workers = conf->daemon.workers != CONF_AUTO ? conf->daemon.workers : cpus_usable();
        d.daemon_pid = find_daemon(o);
        check_ports(&d);
        check_descriptors(&d);
        check_backlog(&d);
        check_pipes(&d);
        check_migration(&d);
    }
    doc = doctor_document(&d);
    if (o->json) {
        doc_print(doc);
    } else {
        screen_init(&s, stdout);
        doctor_put(&s, doc);
    }
    json_decref(doc);
    json_decref(d.findings);
    conf_free(conf);
    if (bad)
        return CTL_CONFIG;
    return d.counts[RESULT_WARNING] + d.counts[RESULT_PROBLEM] > 0 ? CTL_NO : CTL_OK;
}
