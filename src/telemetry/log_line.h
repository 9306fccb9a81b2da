/* SPDX-License-Identifier: MIT
 *
 * How one log record becomes one line, as JSON or as text. Without I/O and without the log itself,
 * so that it can be tested and fuzzed by itself.
 * The line is the caller's, on its stack. Any thread.
 */
#ifndef CV_TELEMETRY_LOG_LINE_H
#define CV_TELEMETRY_LOG_LINE_H

#include "telemetry/log.h"

/* Bytes of one string value that are looked at; the rest is cut. */
#define CV_LOG_VALUE_MAX 1024

struct cv_log_line {
    char text[CV_LOG_LINE_MAX];
    size_t len;
};

struct cv_log_record {
    uint64_t realtime_ms;
    enum cv_log_level level;
    const char *component;
    const char *event;
    const char *message;
    const struct cv_log_field *fields; /* ends with CV_LOG_FIELD_END */
    uint64_t suppressed;               /* told when not 0 */
    const char *version;               /* printable ASCII without quotes; "" for none */
    const char *instance;              /* same */
};

/* Writes the line, its newline included. Strings lose credentials (redact.h), control characters
 * and bytes that are no UTF-8 are escaped. What does not fit is left out, field by field, and
 * "truncated" is set: the line is whole JSON in any case. */
void cv_log_line_json(struct cv_log_line *line, const struct cv_log_record *record);

/* The same for people: time, level, message, key=value. Escapes whatever could move a terminal's
 * cursor. */
void cv_log_line_text(struct cv_log_line *line, const struct cv_log_record *record,
                      bool has_colour);

/* Members of an object, `,"key":value` each, for other lines than the log's: strings as above.
 * Nothing else is written; what does not fit is left out and "truncated" set. */
void cv_log_line_members(struct cv_log_line *line, const struct cv_log_field *fields);

/* RFC 3339 with milliseconds, in UTC. */
#define CV_LOG_TIME_SIZE 32
void cv_log_time(uint64_t realtime_ms, char out[CV_LOG_TIME_SIZE]);

#endif
