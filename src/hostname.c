/* SPDX-License-Identifier: MIT */
#include "hostname.h"

#include "addr.h"

#include <string.h>

#define LABEL_MAX 63 /* RFC 1035, 2.3.4 */

static const char label_bytes[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";

bool
hostname_is_meant(const char *text)
{
    const char *colon = strchr(text, ':');

    if (colon == NULL || strchr(colon + 1, ':') != NULL || strchr("[/@", text[0]) != NULL ||
        strncmp(text, "*:", 2) == 0 || strncmp(text, "unix:", 5) == 0)
        return false;
    return text + strspn(text, "0123456789.") < colon;
}

/* Why are the ${len} bytes of ${label} no label? NULL: they are one. */
static const char *
fault_of_label(const char *label, size_t len)
{
    if (len == 0)
        return "an empty label in the name; one dot between two labels is allowed";
    if (strspn(label, label_bytes) < len)
        return "not an address, nor a name; a name has letters, digits, '-', '_' and dots";
    if (len > LABEL_MAX)
        return "a label of the name is too long; at most 63 bytes between dots";
    if (label[0] == '-' || label[len - 1] == '-')
        return "a label of the name begins or ends with '-'; letters, digits and '_' may";
    return NULL;
}

static int
check(const char *name, const char **why)
{
    size_t len = strlen(name);

    for (const char *label = name; *label != '\0';) {
        size_t n = strcspn(label, ".");

        *why = fault_of_label(label, n);
        if (*why != NULL)
            return -1;
        label += n + (label[n] == '.');
    }
    if (len == HOSTNAME_MAX && name[len - 1] != '.') {
        *why = "the name is too long; at most 253 bytes";
        return -1;
    }
    return 0;
}

int
hostname_parse(char name[HOSTNAME_MAX + 1], uint16_t *port, const char *text, const char **why)
{
    size_t n = strcspn(text, ":");

    if (n > HOSTNAME_MAX) {
        *why = "the name is too long; at most 253 bytes";
        return -1;
    }
    memcpy(name, text, n);
    name[n] = '\0';
    if (check(name, why) != 0)
        return -1;
    return addr_parse_port(text[n] == ':' ? text + n + 1 : "", port, why);
}
