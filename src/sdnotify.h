/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SDNOTIFY_H
#define REDIAL_SDNOTIFY_H

/**
 * sdnotify(fmt, ...):
 * Send ${fmt} (`READY=1' and the like, sd_notify(3)) to the service manager. Does nothing without one, or in a build without libsystemd. Cannot fail.
 */
void sdnotify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
