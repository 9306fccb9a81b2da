/* SPDX-License-Identifier: MIT
 *
 * Whether an audit log is as it was written: reads its files in the order of their age and stops at
 * the first record that was altered, or that stands where another one should.
 * Blocking; for `culvert audit verify`. Owns nothing but its state.
 */
#ifndef CV_TELEMETRY_AUDIT_VERIFY_H
#define CV_TELEMETRY_AUDIT_VERIFY_H

#include "telemetry/audit_record.h"

enum cv_audit_fault {
    CV_AUDIT_SOUND,
    CV_AUDIT_ALTERED,   /* the record's bytes are not those that were hashed */
    CV_AUDIT_REPLACED,  /* the record before it is another one than the one that was written */
    CV_AUDIT_MISSING,   /* records between the one before it and this one are not here */
    CV_AUDIT_REORDERED, /* a record that belongs further up */
    CV_AUDIT_JUNK,      /* a line that is no record, and no cut one that the log knows of */
};

/* Zeroed by the caller before the first file. */
struct cv_audit_verdict {
    enum cv_audit_fault fault;
    uint64_t fault_line; /* in the file that was read last, from 1 */
    uint64_t fault_seq;  /* the record's number; of CV_AUDIT_JUNK: the one that should be there */
    uint64_t first_seq;  /* 0: no record yet */
    uint64_t records, cut;
    struct cv_audit_chain chain; /* the end so far */
    char last_time[32];
    bool is_end_cut; /* the last line has no newline: its writer was killed, or still writes */
    const uint8_t *wanted; /* a hash that somebody noted; NULL: none */
    bool is_wanted_seen;
};

/* Reads one more file. CV_IO, CV_NOT_FOUND, CV_CONFIG (no regular file); otherwise CV_OK, and what
 * was found is in *verdict. */
struct cv_status cv_audit_verify(const char *path, struct cv_audit_verdict *verdict,
                                 struct cv_error *error);

#endif
