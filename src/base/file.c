/* SPDX-License-Identifier: MIT */
#include "base/file.h"

#include "base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static struct cv_status check_file(int fd, const char *path, enum cv_file_check check,
                                   const struct cv_buf *out, size_t *size, struct cv_error *error)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return cv_fail_errno(error, CV_IO, errno, "cannot look at %s", path);
    if (!S_ISREG(st.st_mode))
        return cv_fail(error, CV_CONFIG, "%s is not a regular file", path);
    if ((uintmax_t)st.st_size > cv_buf_room(out))
        return cv_fail(error, CV_CONFIG, "%s is larger than %zu bytes", path, cv_buf_room(out));
    if (check == CV_FILE_PRIVATE && (st.st_mode & 077) != 0)
        return cv_fail(error, CV_CONFIG, "%s can be read or changed by others; run chmod 600 on it",
                       path);
    if (check == CV_FILE_PRIVATE && st.st_uid != geteuid() && st.st_uid != 0)
        return cv_fail(error, CV_CONFIG, "%s belongs to another user", path);
    *size = (size_t)st.st_size;
    return cv_ok();
}

/* Reads to the end, also of a file that has grown since it was looked at. A growing buffer leaves
 * copies behind, so it starts with the whole size and only grows for such a file. */
static struct cv_status read_all(int fd, const char *path, struct cv_buf *out,
                                 struct cv_error *error)
{
    for (;;) {
        uint8_t chunk[4096];
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        struct cv_status status = cv_ok();
        if (n < 0)
            status = cv_fail_errno(error, CV_IO, errno, "cannot read %s", path);
        else if ((size_t)n > cv_buf_room(out))
            status = cv_fail(error, CV_CONFIG, "%s is too large", path);
        else
            status = cv_buf_append(out, chunk, (size_t)n);
        cv_wipe(chunk, sizeof chunk);
        if (n == 0 || !cv_is_ok(status))
            return status;
    }
}

struct cv_status cv_file_read(const char *path, enum cv_file_check check, struct cv_buf *out,
                              struct cv_error *error)
{
    /* Non-blocking, so that a pipe in its place does not hold us up before it is refused. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        int why = errno;
        return cv_fail_errno(error, why == ENOENT ? CV_NOT_FOUND : CV_IO, why, "cannot open %s",
                             path);
    }
    size_t size = 0;
    struct cv_status status = check_file(fd, path, check, out, &size, error);
    struct cv_buf content;
    cv_buf_init(&content, cv_buf_room(out));
    if (cv_is_ok(status) && size && !cv_buf_reserve(&content, size))
        status = cv_status(CV_NO_MEMORY);
    if (cv_is_ok(status))
        status = read_all(fd, path, &content, error);
    if (cv_is_ok(status))
        status = cv_buf_append_slice(out, cv_buf_slice(&content));
    cv_buf_wipe(&content);
    (void)close(fd);
    return status;
}

static struct cv_status write_all(int fd, struct cv_slice content)
{
    while (content.len) {
        ssize_t n = write(fd, content.data, content.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cv_status(CV_IO);
        content.data += n;
        content.len -= (size_t)n;
    }
    return cv_ok();
}

/* Writes a new file beside `path` and puts its name into `temporary`. It is gone on failure. */
static struct cv_status write_temporary(const char *path, struct cv_slice content, mode_t mode,
                                        char temporary[PATH_MAX], struct cv_error *error)
{
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    cv_random(random, sizeof random);
    cv_hex_encode(cv_slice(random, sizeof random), hex);
    int len = snprintf(temporary, PATH_MAX, "%s.%s.new", path, hex);
    if (len < 0 || len >= PATH_MAX)
        return cv_fail(error, CV_IO, "the path %s is too long", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return cv_fail_errno(error, CV_IO, errno, "cannot make %s", temporary);
    struct cv_status status = cv_ok();
    if (fchmod(fd, mode) != 0 || !cv_is_ok(write_all(fd, content)) || fsync(fd) != 0)
        status = cv_fail_errno(error, CV_IO, errno, "cannot write %s", temporary);
    if (close(fd) != 0 && cv_is_ok(status))
        status = cv_fail_errno(error, CV_IO, errno, "cannot write %s", temporary);
    if (!cv_is_ok(status))
        (void)unlink(temporary);
    return status;
}

struct cv_status cv_file_create(const char *path, struct cv_slice content, mode_t mode,
                                bool *is_created, struct cv_error *error)
{
    char temporary[PATH_MAX];
    *is_created = false;
    CV_RETURN_IF_ERROR(write_temporary(path, content, mode, temporary, error));
    /* link(2) refuses to replace, in one step; rename(2) would not. */
    struct cv_status status = cv_ok();
    if (link(temporary, path) == 0)
        *is_created = true;
    else if (errno != EEXIST)
        status = cv_fail_errno(error, CV_IO, errno, "cannot make %s", path);
    (void)unlink(temporary);
    return status;
}

struct cv_status cv_file_replace(const char *path, struct cv_slice content, mode_t mode,
                                 struct cv_error *error)
{
    char temporary[PATH_MAX];
    CV_RETURN_IF_ERROR(write_temporary(path, content, mode, temporary, error));
    if (rename(temporary, path) == 0)
        return cv_ok();
    struct cv_status status = cv_fail_errno(error, CV_IO, errno, "cannot replace %s", path);
    (void)unlink(temporary);
    return status;
}

struct cv_status cv_file_make_folder(const char *path, struct cv_error *error)
{
    char part[PATH_MAX];
    if (!cv_slice_to_str(cv_slice_str(path), part, sizeof part) || part[0] == '\0')
        return cv_fail(error, CV_IO, "the path %s is empty or too long", path);
    for (char *at = part + 1;; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char end = *at;
        *at = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            return cv_fail_errno(error, CV_IO, errno, "cannot make the folder %s", part);
        *at = end;
        if (end == '\0')
            break;
    }
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return cv_fail(error, CV_IO, "%s is not a folder", path);
    return cv_ok();
}
