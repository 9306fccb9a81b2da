/* SPDX-License-Identifier: MIT
 *
 * The files that a relay writes: its audit log, its list of revocations, its history, the names it
 * has had, incidents that somebody is to be told of.
 */
#include "relay/relay_private.h"

#include "auth/auth.h"
#include "config/relay_config.h"
#include "config/state_dir.h"
#include "net/worker.h"
#include "relay/recall.h"
#include "relay/reporter.h"
#include "relay/revocation.h"
#include "store/history.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    RECALL_MIN_MS = 10 * 1000,   /* between two writings */
    RECALL_MAX_MS = 3600 * 1000, /* what is there has been seen lately, says the file */
};

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

struct cv_status relay_open_reporter(struct cv_relay *relay, const char *state_dir,
                                     struct cv_error *error)
{
    char path[4096];
    CV_RETURN_IF_ERROR(own_path(relay, state_dir, "incidents", "json", path, sizeof path, error));
    return cv_reporter_new(relay, path, &relay->reporter, error);
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
    for (unsigned i = 0; i < relay->worker_count; i++)
        relay->workers[i].record = cv_audit_queue(relay->audit, i);
    cv_audit(relay->record, STARTED, CV_F_STR("version", CV_VERSION), CV_F_INT("pid", getpid()),
             CV_F_STR("issuer", relay->auth_policy->issuer));
    return cv_ok();
}

/* A port that the kernel chooses is another one next time. */
static bool has_fixed_address(const struct cv_relay_config *config)
{
    const char *address = config->listen.count ? config->listen.items[0] : ":0";
    size_t len = strlen(address);
    return len < 2 || strcmp(address + len - 2, ":0") != 0;
}

void relay_open_recall(struct cv_relay *relay, const char *state_dir)
{
    struct cv_error error = {0};
    char path[4096];
    int64_t now_s = (int64_t)time(NULL);
    if (!has_fixed_address(relay->config))
        return;
    struct cv_status status = own_path(relay, state_dir, "names", "txt", path, sizeof path, &error);
    if (cv_is_ok(status))
        status = cv_recall_new(path, now_s, &relay->recall, &error);
    if (!cv_is_ok(status))
        cv_log(relay->log, CV_LOG_WARN, "relay", "names_unread",
               "names of tunnels from before the start are not known",
               CV_F_STR("detail", error.detail), CV_F_STATUS(status));
    uint64_t now_ms = cv_worker_now_ms(relay->workers[0].worker);
    relay->recall_due_ms = now_ms + RECALL_MAX_MS;
    cv_registry_set_recall(relay->registry, relay->recall, now_ms, now_s);
}

void relay_save_recall(struct cv_relay *relay, bool is_end)
{
    struct cv_error error = {0};
    uint64_t now_ms = cv_worker_now_ms(relay->workers[0].worker);
    unsigned additions = cv_registry_additions(relay->registry);
    bool is_due = additions != relay->recall_additions
                      ? is_end || now_ms >= relay->recall_saved_ms + RECALL_MIN_MS
                      : additions && (is_end || now_ms >= relay->recall_due_ms);
    /* Whoever has taken over writes it now. */
    if (!relay->recall || !is_due || atomic_load(&relay->is_handed_over))
        return;
    relay->recall_additions = additions;
    relay->recall_saved_ms = now_ms;
    relay->recall_due_ms = now_ms + RECALL_MAX_MS;
    if (!cv_is_ok(
            cv_recall_save(relay->recall, relay->registry, now_ms, (int64_t)time(NULL), &error)))
        cv_log_limited(relay->log, CV_LOG_WARN, "relay", "names_unsaved",
                       "names of tunnels will not be known after a restart", CV_F_ERROR(&error));
}
