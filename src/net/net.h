/* SPDX-License-Identifier: MIT
 *
 * What the network libraries need once per process: SIGPIPE ignored, libcurl and OpenSSL set up.
 * Owns the process-wide state of those libraries. Main thread, before any worker and after all.
 */
#ifndef CV_NET_NET_H
#define CV_NET_NET_H

#include "base/status.h"

/* Before the first worker. CV_NO_MEMORY or CV_INTERNAL; nothing can be used then. */
struct cv_status cv_net_init(void);

/* After the last worker is freed. */
void cv_net_done(void);

/* The libraries that this process runs with, for diagnostics: the name and version of number
 * `index`, NULL behind the last one. Any thread; static strings. */
const char *cv_net_library(unsigned index, const char **version);

#endif
