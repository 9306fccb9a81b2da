/* SPDX-License-Identifier: MIT
 *
 * Happy path: begin → append → end, and again. Ways it fails: it cannot be opened, locked, written
 * (the caller tries again later); its end is not whole (found->is_cut); another process has written
 * or rotated it (look_again).
 */
#include "telemetry/audit_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    OPEN_TRIES = 8, /* each time somebody else has just rotated it */
    /* Of the end that is looked at: a cut record, and the whole one before it. */
    TAIL_BYTES = 4 * CV_AUDIT_LINE_MAX,
};

struct cv_status cv_audit_file_init(struct cv_audit_file *file, const char *path,
                                    uint64_t max_bytes, unsigned keep, struct cv_error *error)
{
    *file = (struct cv_audit_file){.max_bytes = max_bytes, .keep = keep, .fd = -1};
    /* Room for the number of a rotated one. */
    if (strlen(path) + 16 > sizeof file->path)
        return cv_fail(error, CV_CONFIG, "the path of the audit log is too long");
    (void)cv_slice_to_str(cv_slice_str(path), file->path, sizeof file->path);
    return cv_ok();
}

void cv_audit_file_done(struct cv_audit_file *file)
{
    if (file->fd >= 0)
        (void)close(file->fd);
    file->fd = -1;
}

static void close_it(struct cv_audit_file *file)
{
    cv_audit_file_done(file);
    file->is_known = false;
}

/* ---- rotated files ---- */

/* Calls `visit` with the number of each rotated file. */
static void each_rotated(const struct cv_audit_file *file, void (*visit)(void *arg, unsigned n),
                         void *arg)
{
    char folder_path[PATH_MAX], name_path[PATH_MAX];
    (void)cv_slice_to_str(cv_slice_str(file->path), folder_path, sizeof folder_path);
    (void)cv_slice_to_str(cv_slice_str(file->path), name_path, sizeof name_path);
    const char *name = basename(name_path);
    size_t len = strlen(name);
    DIR *folder = opendir(dirname(folder_path));
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        uint64_t n;
        if (strncmp(entry->d_name, name, len) == 0 && entry->d_name[len] == '.' &&
            cv_slice_to_u64(cv_slice_str(entry->d_name + len + 1), 999999999, &n) && n > 0)
            visit(arg, (unsigned)n);
    }
    (void)closedir(folder);
}

struct numbers {
    unsigned highest, lowest, count;
};

static void count_number(void *arg, unsigned n)
{
    struct numbers *numbers = arg;
    numbers->count++;
    if (n > numbers->highest)
        numbers->highest = n;
    if (n < numbers->lowest || !numbers->lowest)
        numbers->lowest = n;
}

static void rotated_path(const struct cv_audit_file *file, unsigned n, char out[PATH_MAX + 16])
{
    (void)snprintf(out, PATH_MAX + 16, "%s.%u", file->path, n);
}

static bool rotate(struct cv_audit_file *file)
{
    char path[PATH_MAX + 16];
    struct numbers numbers = {0};
    each_rotated(file, count_number, &numbers);
    rotated_path(file, numbers.highest + 1, path);
    if (fdatasync(file->fd) != 0 || rename(file->path, path) != 0)
        return false;
    for (numbers.count++; file->keep && numbers.count > file->keep; numbers.count--) {
        struct numbers left = {0};
        each_rotated(file, count_number, &left);
        rotated_path(file, left.lowest, path);
        if (unlink(path) != 0)
            break;
    }
    return true;
}

/* ---- the end of what is there ---- */

/* Reads the end of `fd` and finds the last whole record and what is cut behind it. CV_CONFIG when
 * there are bytes and no record. */
static struct cv_status read_end(int fd, off_t size, struct cv_audit_chain *chain,
                                 struct cv_audit_found *found, struct cv_error *error)
{
    static const char text[] = "what is in the place of the audit log is not one; move it away";
    uint8_t tail[TAIL_BYTES];
    size_t want = size < TAIL_BYTES ? (size_t)size : TAIL_BYTES;
    ssize_t got = pread(fd, tail, want, size - (off_t)want);
    if (got < 0 || (size_t)got != want)
        return cv_fail_errno(error, CV_IO, got < 0 ? errno : EIO, "cannot read the audit log");
    size_t end = want;
    const uint8_t *newline = memrchr(tail, '\n', want);
    size_t whole = newline ? (size_t)(newline - tail) + 1 : 0;
    struct cv_audit_record record;
    found->is_cut = whole < want;
    found->cut_len = want - whole;
    if (found->is_cut && (whole || want == (size_t)size) &&
        cv_audit_record_read(cv_slice(tail + whole, want - whole), &record) && record.is_sound) {
        found->cut_len = 0; /* only its newline is missing */
        whole = want;
    }
    for (end = whole; end > 0;) {
        size_t stop = end - (tail[end - 1] == '\n');
        newline = stop ? memrchr(tail, '\n', stop) : NULL;
        size_t start = newline ? (size_t)(newline - tail) + 1 : 0;
        if (cv_audit_record_read(cv_slice(tail + start, stop - start), &record) &&
            record.is_sound) {
            chain->seq = record.seq;
            memcpy(chain->hash, record.hash, sizeof chain->hash);
            return cv_ok();
        }
        end = start;
    }
    /* The very first record may be the one that was cut; anything else is not ours. */
    bool is_first_cut = size < CV_AUDIT_LINE_MAX && whole == 0 &&
                        cv_slice_starts_with(cv_slice(tail, want), "{\"seq\":1,");
    return is_first_cut ? cv_ok() : cv_fail(error, CV_CONFIG, "%s", text);
}

/* A new file goes on from the youngest rotated one, or from what this process wrote last. */
static void chain_from_rotated(struct cv_audit_file *file)
{
    char path[PATH_MAX + 16];
    struct numbers numbers = {0};
    struct cv_audit_chain chain = {0};
    struct cv_audit_found found = {0};
    each_rotated(file, count_number, &numbers);
    if (!numbers.count)
        return;
    rotated_path(file, numbers.highest, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && st.st_size &&
        cv_is_ok(read_end(fd, st.st_size, &chain, &found, NULL)) && chain.seq > file->chain.seq)
        file->chain = chain;
    (void)close(fd);
}

/* The end is not where this process left it: after opening, or another one has written. */
static struct cv_status look_again(struct cv_audit_file *file, off_t size,
                                   struct cv_audit_found *found, struct cv_error *error)
{
    if (size == 0) {
        chain_from_rotated(file);
    } else {
        struct cv_audit_chain chain = {0};
        CV_RETURN_IF_ERROR(read_end(file->fd, size, &chain, found, error));
        file->chain = chain;
    }
    file->end = size;
    /* A cut end is to be found again until something was written behind it. */
    file->is_known = !found->is_cut;
    return cv_ok();
}

/* ---- open and locked ---- */

static struct cv_status open_it(struct cv_audit_file *file, struct cv_error *error)
{
    file->fd =
        open(file->path,
             O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
    if (file->fd < 0)
        return cv_fail_errno(error, CV_IO, errno, "cannot open the audit log %.180s", file->path);
    struct stat st;
    if (fstat(file->fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close_it(file);
        return cv_fail(error, CV_CONFIG, "the audit log %.180s is not a regular file", file->path);
    }
    return cv_ok();
}

static struct cv_status lock(struct cv_audit_file *file, struct cv_error *error)
{
    if (flock(file->fd, LOCK_EX | LOCK_NB) == 0)
        return cv_ok();
    if (errno == EWOULDBLOCK || errno == EINTR)
        return cv_fail(error, CV_AGAIN, "another process keeps the audit log locked");
    return cv_fail_errno(error, CV_IO, errno, "cannot lock the audit log");
}

/* Whether the name still means the file that is open. */
static bool is_current(const struct cv_audit_file *file)
{
    struct stat named, opened;
    return stat(file->path, &named) == 0 && fstat(file->fd, &opened) == 0 &&
           named.st_ino == opened.st_ino && named.st_dev == opened.st_dev;
}

struct cv_status cv_audit_file_begin(struct cv_audit_file *file, struct cv_audit_found *found,
                                     struct cv_error *error)
{
    *found = (struct cv_audit_found){0};
    for (int i = 0; i < OPEN_TRIES; i++) {
        if (file->fd < 0)
            CV_RETURN_IF_ERROR(open_it(file, error));
        struct cv_status status = lock(file, error);
        if (cv_is_ok(status) && !is_current(file)) {
            close_it(file); /* the lock goes with it */
            continue;
        }
        struct stat st;
        if (cv_is_ok(status) && fstat(file->fd, &st) != 0)
            status = cv_fail_errno(error, CV_IO, errno, "cannot look at the audit log");
        if (cv_is_ok(status) && (!file->is_known || st.st_size != file->end))
            status = look_again(file, st.st_size, found, error);
        if (!cv_is_ok(status))
            close_it(file);
        return status;
    }
    return cv_fail(error, CV_AGAIN, "the audit log is rotated all the time");
}

struct cv_status cv_audit_file_append(struct cv_audit_file *file, struct cv_slice records,
                                      const struct cv_audit_chain *chain, struct cv_error *error)
{
    struct cv_slice rest = records;
    while (rest.len) {
        ssize_t n = write(file->fd, rest.data, rest.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int why = n < 0 ? errno : ENOSPC;
            /* Where even that fails, the next begin finds a cut record. */
            if (ftruncate(file->fd, file->end) != 0)
                file->is_known = false;
            return cv_fail_errno(error, CV_IO, why, "cannot write the audit log %.150s",
                                 file->path);
        }
        rest = cv_slice(rest.data + n, rest.len - (size_t)n);
    }
    file->end += (off_t)records.len;
    file->chain = *chain;
    file->is_known = true;
    return cv_ok();
}

struct cv_status cv_audit_file_sync(struct cv_audit_file *file, struct cv_error *error)
{
    if (file->fd >= 0 && fdatasync(file->fd) != 0)
        return cv_fail_errno(error, CV_IO, errno, "cannot sync the audit log %.150s", file->path);
    return cv_ok();
}

bool cv_audit_file_end(struct cv_audit_file *file)
{
    bool is_rotated = file->max_bytes && (uint64_t)file->end >= file->max_bytes && rotate(file);
    if (is_rotated)
        close_it(file);
    else
        (void)flock(file->fd, LOCK_UN);
    return is_rotated;
}
