/* SPDX-License-Identifier: MIT
 *
 * The files that a relay writes: its audit log, its list of revocations, its history.
 */
#include "relay/relay_private.h"

#include "auth/auth.h"
#include "config/relay_config.h"
#include "config/state_dir.h"
#include "relay/revocation.h"
#include "store/history.h"
#include "telemetry/audit.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* KIND-ADDRESS.SUFFIX in the state folder: many relays may share that. */
static struct cv_status own_path(const struct cv_relay *relay, const char *state_dir,
                                 const char *kind, const char *suffix, char *path, size_t cap,
                                 struct cv_error *error)
{
    const struct cv_relay_config *c = relay->config;
    char name[320];
    (void)snprintf(name, sizeof name, "%s-%s.%s", kind,
                   c->listen.count ? c->listen.items[0] : "none", suffix);
    return cv_state_dir_path(state_dir, name, path, cap, error);
}

struct cv_status relay_open_revocations(struct cv_relay *relay, const char *state_dir,
                                        struct cv_error *error)
{
    char path[4096];
    CV_RETURN_IF_ERROR(own_path(relay, state_dir, "revocations", "json", path, sizeof path, error));
    return cv_revocations_new(path, (int64_t)time(NULL), &relay->revocations, error);
}

struct cv_status relay_open_history(struct cv_relay *relay, const char *state_dir,
                                    struct cv_error *error)
{
    const struct cv_relay_config *c = relay->config;
    char path[4096];
    CV_RETURN_IF_ERROR(own_path(relay, state_dir, "history", "db", path, sizeof path, error));
    struct cv_history_options options = {
        .path = c->history_enabled ? path : NULL,
        .limits = {.minutes_for_s = c->history_minutes_for_ms / 1000,
                   .hours_for_s = c->history_hours_for_ms / 1000,
                   .max_rows = c->history_max_rows,
                   .max_bytes = c->history_max_bytes},
        .max_series = c->history_series,
        .log = relay->log,
    };
    return cv_history_new(&options, &relay->history);
}

static struct cv_status audit_path(const struct cv_relay *relay, const char *state_dir, char *path,
                                   size_t cap, struct cv_error *error)
{
    const struct cv_relay_config *c = relay->config;
    if (c->audit_file)
        return cv_slice_to_str(cv_slice_str(c->audit_file), path, cap)
                   ? cv_ok()
                   : cv_fail(error, CV_CONFIG, "audit.file: the path is too long");
    return own_path(relay, state_dir, "audit", "jsonl", path, cap, error);
}

static unsigned audit_classes(const struct cv_relay_config *config)
{
    unsigned classes = 0;
    for (size_t i = 0; i < config->audit_events.count; i++) {
        enum cv_audit_class class_id;
        if (cv_audit_class_parse(config->audit_events.items[i], &class_id))
            classes |= 1U << class_id;
    }
    return classes;
}

struct cv_status relay_open_audit(struct cv_relay *relay, const char *state_dir,
                                  struct cv_error *error)
{
    const struct cv_relay_config *c = relay->config;
    char path[4096];
    if (!c->audit_enabled)
        return cv_ok();
    CV_RETURN_IF_ERROR(audit_path(relay, state_dir, path, sizeof path, error));
    unsigned workers = relay_worker_count(c);
    struct cv_audit_options options = {
        .path = path,
        .instance = relay->instance,
        .max_bytes = c->audit_max_bytes,
        .keep = c->audit_keep,
        .sync = strcmp(c->audit_fsync, "always") == 0  ? CV_AUDIT_SYNC_ALWAYS
                : strcmp(c->audit_fsync, "never") == 0 ? CV_AUDIT_SYNC_NEVER
                                                       : CV_AUDIT_SYNC_INTERVAL,
        .classes = audit_classes(c),
        .queues = workers + 1,
        .log = relay->log,
    };
    CV_RETURN_IF_ERROR(cv_audit_new(&options, &relay->audit, error));
    relay->record = cv_audit_queue(relay->audit, workers);
    cv_audit(relay->record, STARTED, CV_F_STR("version", CV_VERSION), CV_F_INT("pid", getpid()),
             CV_F_STR("issuer", relay->auth_policy->issuer));
    return cv_ok();
}
