/* SPDX-License-Identifier: MIT */
#include "telemetry/log_file.h"

#include "base/slice.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOOK_MS = 1000, SUFFIX_MAX = 16 };

static struct cv_status open_it(struct cv_log_file *file, struct cv_error *error)
{
    struct stat st;
    file->fd =
        open(file->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    if (file->fd < 0)
        return cv_fail_errno(error, CV_IO, errno, "cannot open the log %.200s", file->path);
    if (fstat(file->fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        cv_log_file_close(file);
        return cv_fail(error, CV_CONFIG, "log.file: %.200s is not a regular file", file->path);
    }
    file->size = (uint64_t)st.st_size;
    return cv_ok();
}

struct cv_status cv_log_file_open(struct cv_log_file *file, const char *path, uint64_t max_bytes,
                                  unsigned keep, struct cv_error *error)
{
    *file = (struct cv_log_file){.max_bytes = max_bytes, .keep = keep ? keep : 1, .fd = -1};
    if (strlen(path) + SUFFIX_MAX > sizeof file->path)
        return cv_fail(error, CV_CONFIG, "log.file: the path is too long");
    (void)cv_slice_to_str(cv_slice_str(path), file->path, sizeof file->path);
    return open_it(file, error);
}

void cv_log_file_close(struct cv_log_file *file)
{
    if (file->fd >= 0)
        (void)close(file->fd);
    file->fd = -1;
}

void cv_log_file_look(struct cv_log_file *file)
{
    atomic_store(&file->is_look_due, true);
}

/* The name means another file by now, or none. */
static bool is_gone(const struct cv_log_file *file)
{
    struct stat named, opened;
    return stat(file->path, &named) != 0 || fstat(file->fd, &opened) != 0 ||
           named.st_ino != opened.st_ino || named.st_dev != opened.st_dev;
}

static void rotate(struct cv_log_file *file)
{
    char older[PATH_MAX + SUFFIX_MAX], younger[PATH_MAX + SUFFIX_MAX];
    for (unsigned i = file->keep; i > 0; i--) {
        (void)snprintf(older, sizeof older, "%s.%u", file->path, i);
        (void)snprintf(younger, sizeof younger, i > 1 ? "%s.%u" : "%s", file->path, i - 1);
        (void)rename(younger, older); /* what is not there yet is left out */
    }
    cv_log_file_close(file);
    (void)open_it(file, NULL);
}

ssize_t cv_log_file_write(struct cv_log_file *file, const char *text, size_t len, uint64_t now_ms)
{
    bool is_asked = atomic_exchange_explicit(&file->is_look_due, false, memory_order_relaxed);
    if (is_asked || now_ms - file->looked_ms >= LOOK_MS) {
        file->looked_ms = now_ms;
        if (file->fd < 0 || is_gone(file)) {
            cv_log_file_close(file);
            (void)open_it(file, NULL);
        }
    }
    if (file->fd >= 0 && file->max_bytes && file->size && file->size + len > file->max_bytes)
        rotate(file);
    if (file->fd < 0) {
        errno = EBADF;
        return -1;
    }
    ssize_t n = write(file->fd, text, len);
    if (n > 0)
        file->size += (uint64_t)n;
    return n;
}
