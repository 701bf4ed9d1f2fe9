/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_CPUS_H
#define REDIAL_CPUS_H

/**
 * cpus_of_quota(text):
 * Pure: how many CPUs does a cgroup's cpu.max (cgroup-v2.rst: "QUOTA PERIOD", or "max PERIOD") allow, rounded up? 0: as many as there are, or malformed.
 */
unsigned cpus_of_quota(const char *text);

/**
 * cpus_usable():
 * How many CPUs may this process use at once: those of its affinity mask, but no more than its cgroup, or one above it, has quota for. At least 1. Reads
 * files: not for a worker's thread.
 */
unsigned cpus_usable(void);

#endif
