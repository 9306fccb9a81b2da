/* SPDX-License-Identifier: MIT */
#include "telemetry/audit_verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A line that was no record: fine when the record behind it says how long it was. */
struct doubt {
    uint64_t line; /* 0: none */
    uint64_t len;
};

static bool blame(struct cv_audit_verdict *v, enum cv_audit_fault fault, uint64_t line,
                  uint64_t seq)
{
    v->fault = fault;
    v->fault_line = line;
    v->fault_seq = seq;
    return false;
}

static bool explains(struct cv_slice line, const struct cv_audit_record *record,
                     const struct doubt *doubt)
{
    uint64_t cut_len;
    return cv_slice_is(record->event, cv_audit_event_name(CV_AUDIT_RECOVERED)) &&
           cv_audit_record_number(line, "cutBytes", &cut_len) && cut_len == doubt->len;
}

/* False: the first fault is found. */
static bool check_record(struct cv_audit_verdict *v, struct cv_slice line, uint64_t number,
                         struct doubt *doubt)
{
    struct cv_audit_record record;
    const struct cv_audit_chain *chain = &v->chain;
    if (!cv_audit_record_read(line, &record)) {
        if (doubt->line)
            return blame(v, CV_AUDIT_JUNK, doubt->line, chain->seq + 1);
        *doubt = (struct doubt){number, line.len};
        return true;
    }
    if (!record.is_sound)
        return blame(v, CV_AUDIT_ALTERED, number, record.seq);
    if (doubt->line && !explains(line, &record, doubt))
        return blame(v, CV_AUDIT_JUNK, doubt->line, chain->seq + 1);
    bool is_first = v->first_seq == 0;
    static const uint8_t nothing[CV_SHA256_LEN];
    const uint8_t *before = is_first ? nothing : chain->hash;
    bool follows = memcmp(record.prev, before, CV_SHA256_LEN) == 0;
    if (!is_first && record.seq <= chain->seq)
        return blame(v, CV_AUDIT_REORDERED, number, record.seq);
    if (!is_first && record.seq > chain->seq + 1)
        return blame(v, CV_AUDIT_MISSING, number, record.seq);
    if (!follows && (!is_first || record.seq == 1))
        return blame(v, CV_AUDIT_REPLACED, number, record.seq);
    v->cut += doubt->line != 0;
    *doubt = (struct doubt){0};
    if (is_first)
        v->first_seq = record.seq;
    v->records++;
    v->chain.seq = record.seq;
    memcpy(v->chain.hash, record.hash, CV_SHA256_LEN);
    if (!cv_slice_to_str(record.time, v->last_time, sizeof v->last_time))
        v->last_time[0] = '\0';
    if (v->wanted && memcmp(v->wanted, record.hash, CV_SHA256_LEN) == 0)
        v->is_wanted_seen = true;
    return true;
}

static struct cv_status read_lines(int fd, const char *path, struct cv_audit_verdict *v,
                                   struct cv_error *error)
{
    uint8_t bytes[4 * CV_AUDIT_LINE_MAX];
    size_t len = 0;
    uint64_t number = 0;
    struct doubt doubt = {0};
    for (;;) {
        ssize_t n = read(fd, bytes + len, sizeof bytes - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cv_fail_errno(error, CV_IO, errno, "cannot read %.180s", path);
        len += (size_t)n;
        size_t at = 0;
        for (const uint8_t *newline; at < len && (newline = memchr(bytes + at, '\n', len - at));) {
            size_t end = (size_t)(newline - bytes);
            if (!check_record(v, cv_slice(bytes + at, end - at), ++number, &doubt))
                return cv_ok();
            at = end + 1;
        }
        memmove(bytes, bytes + at, len - at);
        len -= at;
        if (len > CV_AUDIT_LINE_MAX) { /* no record is that long */
            (void)blame(v, CV_AUDIT_JUNK, number + 1, v->chain.seq + 1);
            return cv_ok();
        }
        if (n == 0)
            break;
    }
    if (doubt.line)
        (void)blame(v, CV_AUDIT_JUNK, doubt.line, v->chain.seq + 1);
    v->is_end_cut = len > 0;
    return cv_ok();
}

struct cv_status cv_audit_verify(const char *path, struct cv_audit_verdict *verdict,
                                 struct cv_error *error)
{
    struct stat st;
    /* Non-blocking, so that a pipe in its place does not hold us up before it is refused. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return cv_fail_errno(error, errno == ENOENT ? CV_NOT_FOUND : CV_IO, errno,
                             "cannot open %.180s", path);
    struct cv_status status = cv_ok();
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        status = cv_fail(error, CV_CONFIG, "%.180s is not a regular file", path);
    /* The file before this one has ended in the middle of a record: this one does not follow. */
    if (cv_is_ok(status) && verdict->is_end_cut)
        (void)blame(verdict, CV_AUDIT_JUNK, 0, verdict->chain.seq + 1);
    else if (cv_is_ok(status))
        status = read_lines(fd, path, verdict, error);
    (void)close(fd);
    return status;
}
