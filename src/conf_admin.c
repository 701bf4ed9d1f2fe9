/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include <stdlib.h>
#include <string.h>

#define SYSTEMD "systemd:"

static int
append(struct conf_daemon *d, const struct conf_place *at, const char *word, char *why, size_t size)
{
    struct conf_listen *admins, new = {.fd = -1, .file = at->file, .line = at->line};
    const char *allowed;

    if (strncmp(word, SYSTEMD, strlen(SYSTEMD)) == 0)
        return conf_fail(why, size,
                         "'%.120s': sockets that are passed are for proxies; allowed are "
                         "HOST:PORT, [V6]:PORT, *:PORT, unix:/path, unix:@name and off",
                         word);
    if (addr_parse(&new.addr, word, &allowed) != 0)
        return conf_fail(why, size, "'%.120s': %s", word, allowed);
    if (addr_is_mapped(&new.addr))
        return conf_fail(why, size,
                         "'%.120s': an IPv4-mapped address cannot be listened on; write the IPv4 "
                         "address alone",
                         word);
    if (!conf_fits_line("admin", word))
        return conf_fail(why, size,
                         "'%.120s' is too long with each '$' written twice; allowed are %d bytes "
                         "in a line",
                         word, CONF_LINE_MAX);
    admins = reallocarray(d->admins, d->n_admins + 1, sizeof(*admins));
    if (admins == NULL)
        return conf_fail(why, size, "out of memory");
    d->admins = admins;
    new.text = strdup(word);
    if (new.text == NULL)
        return conf_fail(why, size, "out of memory");
    d->admins[d->n_admins++] = new;
    return 0;
}

int
conf_admin_add(struct conf_daemon *d, const struct conf_place *at, const char *text, char *why,
               size_t size)
{
    char *copy = strdup(text), *rest = copy, *word;
    int rc = 0;

    if (copy == NULL)
        return conf_fail(why, size, "out of memory");
    while (rc == 0 && (word = conf_next_word(&rest, ", \t")) != NULL) {
        bool wants_off = strcmp(word, "off") == 0;

        if (wants_off ? d->n_admins > 0 : d->is_admin_off)
            rc = conf_fail(why, size, "'off' and addresses exclude each other");
        else if (wants_off)
            d->is_admin_off = true;
        else
            rc = append(d, at, word, why, size);
    }
    if (rc == 0 && !d->is_admin_off && d->n_admins == 0)
        rc = conf_fail(why, size, "'%.99s' holds no address; at least one is needed, or off", text);
    d->is_admin_given = true;
    free(copy);
    return rc;
}

void
conf_admin_preset(struct conf_load *ld)
{
    struct conf_place at = {.file = "$RUNTIME_DIRECTORY", .key = "admin"};
    const char *directories = getenv("RUNTIME_DIRECTORY"); /* one, or several with colons between */
    char text[CONF_LINE_MAX + 1], why[CONF_WHY_MAX];

    if (ld->conf->daemon.is_admin_given || directories == NULL || *directories != '/')
        return;
    snprintf(text, sizeof(text), "unix:%.*s/admin.sock", (int)strcspn(directories, ":"),
             directories);
    if (text[strcspn(text, ", \t")] == '\0' &&
        append(&ld->conf->daemon, &at, text, why, sizeof(why)) != 0)
        conf_error(ld, &at, "%s", why);
}
