/* SPDX-License-Identifier: MIT */
#include "agent/known_hosts.h"

#include "base/buf.h"
#include "base/digest.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BLOB_MAX = 128,
    KEY_TEXT_MAX = 4 * ((BLOB_MAX + 2) / 3) + 1,
};

static const char key_type[] = "ssh-ed25519";

/* What the file says about a relay. */
enum verdict { UNKNOWN, SAME, OTHER };

static enum verdict look_up(struct cv_slice text, const char *relay, const char *key,
                            unsigned *line_number)
{
    enum verdict verdict = UNKNOWN;
    unsigned number = 0;
    while (text.len) {
        struct cv_slice rest = cv_slice_split(&text, '\n');
        number++;
        if (!cv_slice_is(cv_slice_split(&rest, ' '), relay) ||
            !cv_slice_is(cv_slice_split(&rest, ' '), key_type))
            continue;
        if (cv_slice_is(cv_slice_trim(rest), key))
            return SAME;
        verdict = OTHER;
        *line_number = number;
    }
    return verdict;
}

/* Half a line, since the disk is full, would be a wrong key for ever. Nothing is cut when another
 * process has written behind it. */
static void take_back(int fd, size_t len)
{
    struct stat st;
    off_t end = lseek(fd, 0, SEEK_CUR);
    if (end >= (off_t)len && fstat(fd, &st) == 0 && st.st_size == end)
        (void)!ftruncate(fd, end - (off_t)len);
}

/* One write to a file opened for appending, so that lines of several processes never mix. A file
 * that does not end in a newline gets one first. */
static struct cv_status append(const char *path, const char *relay, const char *key,
                               bool needs_newline, struct cv_error *error)
{
    char line[512];
    int len = snprintf(line, sizeof line, "%s%s %s %s\n", needs_newline ? "\n" : "", relay,
                       key_type, key);
    if (len < 0 || (size_t)len >= sizeof line)
        return cv_fail(error, CV_CONFIG, "the relay's name is too long");
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        return cv_fail_errno(error, CV_IO, errno, "cannot write %s", path);
    ssize_t n = write(fd, line, (size_t)len);
    int sys_errno = n < 0 ? errno : ENOSPC;
    if (n > 0 && n < len)
        take_back(fd, (size_t)n);
    if (close(fd) != 0 && n == len) {
        sys_errno = errno;
        n = -1;
    }
    if (n != len)
        return cv_fail_errno(error, CV_IO, sys_errno, "cannot write %s", path);
    return cv_ok();
}

struct cv_status cv_known_hosts_check(const char *path, const char *relay, struct cv_slice blob,
                                      bool *is_new, struct cv_error *error)
{
    char key[KEY_TEXT_MAX];
    *is_new = false;
    if (blob.len > BLOB_MAX)
        return cv_fail(error, CV_HOST_KEY, "the relay's host key is of an unknown kind");
    (void)cv_base64_encode(blob, key);

    struct cv_buf text;
    cv_buf_init(&text, CV_KNOWN_HOSTS_MAX);
    struct cv_status status = cv_file_read(path, CV_FILE_ANY, &text, error);
    if (!cv_is_ok(status) && status.id != CV_NOT_FOUND) {
        cv_buf_done(&text);
        return status;
    }
    if (error) /* that there is no file yet is no trouble */
        *error = (struct cv_error){0};
    unsigned line = 0;
    enum verdict verdict = look_up(cv_buf_slice(&text), relay, key, &line);
    bool needs_newline = cv_buf_len(&text) && text.data[text.end - 1] != '\n';
    cv_buf_done(&text);

    if (verdict == SAME)
        return cv_ok();
    if (verdict == OTHER)
        return cv_fail(
            error, CV_HOST_KEY,
            "%s has another host key than in known_hosts: either somebody is in between, "
            "or the operator has changed it. If the operator confirms, delete line %u "
            "of %s",
            relay, line, path);
    *is_new = true;
    return append(path, relay, key, needs_newline, error);
}
