/* SPDX-License-Identifier: MIT
 *
 * The file of the audit log: appended to under a lock, rotated without breaking the chain, taken up
 * again wherever another process, or a power cut, has left it.
 *
 * Two processes may write one file, as they do while one relay takes over from another: each holds
 * flock(2) for as long as it writes, and reads the end anew when it is not its own. A full file is
 * renamed to FILE.1, FILE.2 … (a higher number is younger, none is ever renamed again) and the
 * chain goes on in a new one. Blocking: for the audit log's own thread. Owns its descriptor.
 */
#ifndef CV_TELEMETRY_AUDIT_FILE_H
#define CV_TELEMETRY_AUDIT_FILE_H

#include "telemetry/audit_record.h"

#include <limits.h>
#include <sys/types.h>

struct cv_audit_file {
    char path[PATH_MAX];
    uint64_t max_bytes; /* a larger file is rotated; 0: never */
    unsigned keep;      /* rotated files; the oldest go; 0: all */
    int fd;             /* -1: not open */
    off_t end;          /* behind our last record */
    struct cv_audit_chain chain;
    bool is_known; /* chain and end are those of the file */
};

/* What cv_audit_file_begin found at the end of the file. */
struct cv_audit_found {
    bool is_cut;    /* a record that was not written whole */
    size_t cut_len; /* its bytes, to be told in a record of its own; 0: it only lacks a newline */
};

/* Caller's memory; opens nothing. CV_CONFIG when the path is too long. */
struct cv_status cv_audit_file_init(struct cv_audit_file *file, const char *path,
                                    uint64_t max_bytes, unsigned keep, struct cv_error *error);
void cv_audit_file_done(struct cv_audit_file *file);

/* Opens the file if need be (0600), locks it, and brings file->chain to its end. Pair with
 * cv_audit_file_end. CV_AGAIN while another process has the lock; CV_CONFIG when what
 * is there is no audit log: it is left alone; CV_IO. Nothing is held then. */
struct cv_status cv_audit_file_begin(struct cv_audit_file *file, struct cv_audit_found *found,
                                     struct cv_error *error);

/* Writes whole records behind what is there and takes `chain` as the new end. On CV_IO (a full
 * disk) what was written of them is taken back. */
struct cv_status cv_audit_file_append(struct cv_audit_file *file, struct cv_slice records,
                                      const struct cv_audit_chain *chain, struct cv_error *error);

/* To the disk. CV_IO. */
struct cv_status cv_audit_file_sync(struct cv_audit_file *file, struct cv_error *error);

/* Rotates if it is due, and unlocks. True: it was rotated. */
bool cv_audit_file_end(struct cv_audit_file *file);

#endif
