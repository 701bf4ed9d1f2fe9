/* SPDX-License-Identifier: MIT */
#include "cpus.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CGROUP_ROOT "/sys/fs/cgroup"

unsigned
cpus_of_quota(const char *text)
{
    unsigned long long quota, period;
    char end;

    if (sscanf(text, "%llu %llu%c", &quota, &period, &end) < 2 || quota == 0 || period == 0)
        return 0;
    unsigned long long cpus = quota / period + (quota % period != 0);
    return cpus > UINT_MAX ? UINT_MAX : (unsigned)cpus;
}

static bool
read_line(const char *path, char *line, size_t size)
{
    FILE *f = fopen(path, "re");

    if (!f)
        return false;
    bool ok = fgets(line, (int)size, f) != NULL;
    fclose(f);
    return ok;
}

/* The path of our cgroup below CGROUP_ROOT: the line "0::/PATH" of /proc/self/cgroup. */
static bool
own_cgroup(char *path, size_t size)
{
    char line[PATH_MAX];
    FILE *f = fopen("/proc/self/cgroup", "re");
    bool found = false;

    if (!f)
        return false;
    while (!found && fgets(line, sizeof(line), f))
        found = strncmp(line, "0::", 3) == 0;
    fclose(f);
    if (!found)
        return false;
    line[strcspn(line, "\n")] = '\0';
    return (size_t)snprintf(path, size, "%s%s", CGROUP_ROOT, line + 3) < size;
}

static unsigned
smallest_quota(unsigned cpus)
{
    char dir[PATH_MAX], path[PATH_MAX + 16], line[64];

    if (!own_cgroup(dir, sizeof(dir)))
        return cpus;
    for (char *slash; strlen(dir) >= strlen(CGROUP_ROOT); *slash = '\0') {
        snprintf(path, sizeof(path), "%s/cpu.max", dir);
        unsigned quota = read_line(path, line, sizeof(line)) ? cpus_of_quota(line) : 0;
        if (quota > 0 && quota < cpus)
            cpus = quota;
        slash = strrchr(dir, '/');
        if (!slash)
            break;
    }
    return cpus;
}

unsigned
cpus_usable(void)
{
    cpu_set_t set;
    int n = 1;

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = CPU_COUNT(&set);
    return smallest_quota(n > 0 ? (unsigned)n : 1);
}
