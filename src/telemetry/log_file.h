/* SPDX-License-Identifier: MIT
 *
 * The log in a file: appended to, 0600, renamed to FILE.1, FILE.2 … (1 is the youngest) when it is
 * full. A file that was renamed or removed by somebody else (logrotate, another process that writes
 * the same one) is noticed within a second, or at once when asked to (SIGHUP), and a new one begun.
 *
 * Owns its descriptor. Blocking, as far as a file is; for who holds the log's lock.
 */
#ifndef CV_TELEMETRY_LOG_FILE_H
#define CV_TELEMETRY_LOG_FILE_H

#include "base/status.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

struct cv_log_file {
    char path[PATH_MAX];
    uint64_t max_bytes; /* 0: it is never renamed */
    unsigned keep;      /* renamed ones; at least 1 */
    int fd;             /* -1: it could not be opened */
    uint64_t size;
    uint64_t looked_ms;
    atomic_bool is_look_due;
};

/* CV_CONFIG when the path is too long, or means something else than a file; CV_IO when it cannot be
 * opened. Nothing is held then. */
struct cv_status cv_log_file_open(struct cv_log_file *file, const char *path, uint64_t max_bytes,
                                  unsigned keep, struct cv_error *error);
void cv_log_file_close(struct cv_log_file *file);

/* Looks for it anew with the next line. Any thread. */
void cv_log_file_look(struct cv_log_file *file);

/* Appends a line; `now_ms` is monotonic. As write(2). */
ssize_t cv_log_file_write(struct cv_log_file *file, const char *text, size_t len, uint64_t now_ms);

#endif
