/* SPDX-License-Identifier: MIT
 *
 * The audit log: who connected, asked, was refused, changed what. Records go into a file of their
 * own, each with the hash of the one before it (audit_record.h, docs/audit.md).
 *
 * Off the data path: a thread that has something to record puts it, unformatted, into a queue of
 * its own (CV_AUDIT_QUEUE_BYTES, one writer, one reader, no lock) and never waits. A thread of the
 * audit log takes records out, formats, hashes and writes them. While the file cannot be written
 * they stay in the queues; what does not fit is counted, and the loss is a record itself once
 * writing works again. cv_audit_free writes what is left.
 *
 * Owns its thread, its queues and the file; borrows the log. A queue belongs to one thread.
 */
#ifndef CV_TELEMETRY_AUDIT_H
#define CV_TELEMETRY_AUDIT_H

#include "telemetry/audit_record.h"

#define CV_AUDIT_QUEUE_BYTES ((size_t)256 * 1024)
/* Of one record in a queue, and of one string in it; longer ones are cut. */
#define CV_AUDIT_ENTRY_MAX 4096
#define CV_AUDIT_TEXT_MAX 512
#define CV_AUDIT_FIELDS_MAX 16

struct cv_audit;
struct cv_audit_queue;

enum cv_audit_sync { CV_AUDIT_SYNC_NEVER, CV_AUDIT_SYNC_INTERVAL, CV_AUDIT_SYNC_ALWAYS };

struct cv_audit_options {
    const char *path;     /* copied */
    const char *instance; /* printable; copied, 31 characters */
    uint64_t max_bytes;   /* see audit_file.h */
    unsigned keep;
    enum cv_audit_sync sync; /* never: as the system likes; interval: within a second; always: with
                                each batch of records */
    unsigned classes;        /* mask of 1 << enum cv_audit_class */
    unsigned queues;         /* one for each thread that records */
    struct cv_log *log;
};

/* Opens the file, recovers its end, starts the thread. CV_CONFIG: what is there is no audit log;
 * CV_IO, CV_NO_MEMORY, CV_NO_RESOURCES. A disk that is full is no failure: writing begins when it
 * is not any more. *out is NULL on failure. */
struct cv_status cv_audit_new(const struct cv_audit_options *options, struct cv_audit **out,
                              struct cv_error *error);

/* Writes and syncs what is in the queues, ends the thread. Nobody may record any more. Takes NULL.
 */
void cv_audit_free(struct cv_audit **audit);

/* The queue of one thread; NULL for a NULL audit. */
struct cv_audit_queue *cv_audit_queue(struct cv_audit *audit, unsigned index);

/* Whether such records are wanted; a NULL queue wants none. */
bool cv_audit_is_on(const struct cv_audit_queue *queue, enum cv_audit_event event);

/* Puts a record. The queue's own thread only. Fields are those of the log (CV_F_STR …; no
 * CV_F_ERROR); strings are copied, keys are literals. Never blocks, cannot fail; a record that does
 * not fit is counted. */
void cv_audit_put(struct cv_audit_queue *queue, enum cv_audit_event event,
                  const struct cv_log_field *fields);

/* cv_audit(queue, FORWARD, CV_F_STR("userId", …), …) */
#define cv_audit(queue, name, ...)                                                                 \
    do {                                                                                           \
        struct cv_audit_queue *cv_audit_queue_ = (queue);                                          \
        if (cv_audit_is_on(cv_audit_queue_, CV_AUDIT_##name)) {                                    \
            const struct cv_log_field cv_audit_fields_[] = {                                       \
                __VA_ARGS__ __VA_OPT__(, ){.kind = CV_LOG_FIELD_END}};                             \
            cv_audit_put(cv_audit_queue_, CV_AUDIT_##name, cv_audit_fields_);                      \
        }                                                                                          \
    } while (0)

/* Since the start. Any thread. */
struct cv_audit_counts {
    uint64_t written; /* records in the file */
    uint64_t lost;    /* records that did not fit into a queue */
    uint64_t failed;  /* tries to write that failed */
};
struct cv_audit_counts cv_audit_count(const struct cv_audit *audit);

#endif
