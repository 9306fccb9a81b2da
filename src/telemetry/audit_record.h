/* SPDX-License-Identifier: MIT
 *
 * One record of the audit log: a line of JSON that carries the hash of the record before it, so
 * that what is altered, taken out or moved afterwards shows (docs/audit.md). Without I/O.
 *
 *   {"seq":7,"time":"…","event":"forward","instance":"…",…,"prev":"<64 hex>","hash":"<64 hex>"}
 *
 * `hash` is SHA-256 over the line's bytes before `,"hash":`; `prev` is the hash of record seq - 1,
 * 64 zeros in the first one. Writing and reading live here, so that there is one idea of the shape.
 * Owns nothing; any thread.
 */
#ifndef CV_TELEMETRY_AUDIT_RECORD_H
#define CV_TELEMETRY_AUDIT_RECORD_H

#include "base/buf.h"
#include "base/digest.h"
#include "telemetry/log.h"

/* What is recorded can be chosen by class (audit.events); the log's own fate always is. */
enum cv_audit_class {
    CV_AUDIT_ALWAYS,
    CV_AUDIT_LINK,
    CV_AUDIT_AUTH,
    CV_AUDIT_FORWARDS,
    CV_AUDIT_LIMITS,
    CV_AUDIT_ADMINS,
    CV_AUDIT_CLASS_COUNT
};
#define CV_AUDIT_CLASS_NAMES "link|auth|forward|limit|admin"

/* X(NAME, "event", CLASS) — each stands in docs/audit.md with its members. */
#define CV_AUDIT_EVENTS(X)                                                                         \
    X(STARTED, "relay_started", ALWAYS)                                                            \
    X(STOPPED, "relay_stopped", ALWAYS)                                                            \
    X(RECOVERED, "log_recovered", ALWAYS)                                                          \
    X(LOST, "records_lost", ALWAYS)                                                                \
    X(CONNECT, "connect", LINK)                                                                    \
    X(RESUME, "resume", LINK)                                                                      \
    X(DISCONNECT, "disconnect", LINK)                                                              \
    X(PUBLISH, "publish", LINK)                                                                    \
    X(WITHDRAW, "withdraw", LINK)                                                                  \
    X(AUTH_OK, "auth_ok", AUTH)                                                                    \
    X(AUTH_FAILED, "auth_failed", AUTH)                                                            \
    X(TOKEN_RENEWED, "token_renewed", AUTH)                                                        \
    X(TOKEN_ENDED, "token_ended", AUTH)                                                            \
    X(FORWARD, "forward", FORWARDS)                                                                \
    X(STREAM_OPEN, "stream_open", FORWARDS)                                                        \
    X(STREAM_CLOSE, "stream_close", FORWARDS)                                                      \
    X(REFUSED, "refused", FORWARDS)                                                                \
    X(LIMIT, "limit_hit", LIMITS)                                                                  \
    X(ADMIN, "admin", ADMINS)                                                                      \
    X(CONFIG, "config_changed", ADMINS)

enum cv_audit_event {
#define CV_AUDIT_ENUM(name, ...) CV_AUDIT_##name,
    CV_AUDIT_EVENTS(CV_AUDIT_ENUM)
#undef CV_AUDIT_ENUM
        CV_AUDIT_EVENT_COUNT
};

const char *cv_audit_event_name(enum cv_audit_event event);
enum cv_audit_class cv_audit_event_class(enum cv_audit_event event);
/* The class that audit.events calls so; false for other words. */
bool cv_audit_class_parse(const char *name, enum cv_audit_class *class_id);

/* A line is at most so long, newline included; what does not fit is left out, member by member. */
#define CV_AUDIT_LINE_MAX 8192

/* The end of a chain: what the next record goes on from. All zero before the first. */
struct cv_audit_chain {
    uint64_t seq;
    uint8_t hash[CV_SHA256_LEN];
};

/* Appends the line of the record behind `chain` and moves the chain on. `fields` end with
 * CV_LOG_FIELD_END and are written as the log writes them, credentials taken out; `instance` is
 * printable. CV_NO_RESOURCES, CV_NO_MEMORY: nothing is appended, the chain stays. */
struct cv_status cv_audit_record_write(struct cv_audit_chain *chain, struct cv_hasher *hasher,
                                       enum cv_audit_event event, uint64_t realtime_ms,
                                       const char *instance, const struct cv_log_field *fields,
                                       struct cv_buf *out);

/* A line, taken apart. `event` and `time` borrow from it. */
struct cv_audit_record {
    uint64_t seq;
    struct cv_slice event, time;
    uint8_t prev[CV_SHA256_LEN];
    uint8_t hash[CV_SHA256_LEN];
    bool is_sound; /* hash is that of the line's bytes */
};

/* Reads a line without its newline. False when it has not the shape of a record. */
bool cv_audit_record_read(struct cv_slice line, struct cv_audit_record *record);

/* A number member of a record that was read: `"name":123`. False without. */
bool cv_audit_record_number(struct cv_slice line, const char *name, uint64_t *value);

#endif
