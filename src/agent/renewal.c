/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_renewal_start → look, every LOOK_MS: the token file has changed → offer; or notice
 * `token_expiring` → obtain: the file, or token_command → offer → notice `token_accepted`.
 * Ways it fails: what there is is the old one still (looked at again); it cannot be read or the
 * command fails (again, later); the relay refuses it (again, later and later); the token comes from
 * the environment, which does not change (the person is told once).
 */
#include "agent/renewal.h"

#include "agent/access.h"
#include "config/agent_config.h"
#include "net/command.h"
#include "net/worker.h"
#include "proto/link/control.h"
#include "telemetry/log.h"
#include "transport/link.h"

#include <string.h>
#include <sys/stat.h>

enum {
    LOOK_MS = 1000,  /* between looks at the file */
    AGAIN_MS = 5000, /* after a failure, doubled with each refusal … */
    AGAIN_MAX_MS = 60000,
};

static void look(void *arg);

static void arm(struct cv_renewal *r, uint64_t ms)
{
    (void)cv_worker_timer_start(r->worker, &r->timer, ms);
}

/* True: another file than at the last call, or its content was written anew. */
static bool has_changed(struct cv_renewal *r)
{
    struct stat st;
    const char *path = cv_access_token_file(r->access);
    if (!path || stat(path, &st) != 0)
        return false;
    bool is_same = st.st_ino == r->file_number && st.st_mtim.tv_sec == r->file_time.tv_sec &&
                   st.st_mtim.tv_nsec == r->file_time.tv_nsec;
    r->file_number = st.st_ino;
    r->file_time = st.st_mtim;
    return !is_same;
}

static void offer(struct cv_renewal *r, struct cv_slice token)
{
    uint8_t hash[CV_SHA256_LEN];
    struct cv_link_control control = {.type = CV_LINK_TOKEN};
    cv_sha256(token, hash);
    if (memcmp(hash, r->held, sizeof hash) == 0)
        return; /* the old one still */
    if (cv_slice_to_str(token, control.token, sizeof control.token) &&
        cv_is_ok(cv_link_control_send(r->link, &control))) {
        memcpy(r->held, hash, sizeof hash);
        cv_log(r->log, CV_LOG_DEBUG, "agent", "token_offered",
               "a fresh token is handed in over the link");
    }
    cv_wipe(control.token, sizeof control.token);
}

static void complain(struct cv_renewal *r, const struct cv_error *error)
{
    cv_log_limited(r->log, CV_LOG_WARN, "agent", "token_unavailable",
                   "no fresh token can be had at the moment, trying again", CV_F_ERROR(error));
}

static void on_command(void *arg, const struct cv_command_result *result)
{
    struct cv_renewal *r = arg;
    struct cv_error error = {0};
    r->command = NULL;
    struct cv_status status = result->status;
    if (cv_is_ok(status))
        status = cv_access_keep_token(r->access, result->output, &error);
    else
        error = *result->error;
    if (cv_is_ok(status))
        offer(r, cv_access_kept_token(r->access));
    else
        complain(r, &error);
    arm(r, AGAIN_MS);
}

/* From wherever tokens come. */
static void obtain(struct cv_renewal *r)
{
    struct cv_error error = {0};
    struct cv_status status = cv_ok();
    if (r->command)
        return;
    if (cv_access_uses_command(r->access)) {
        status =
            cv_command_start(r->worker, r->access->config->token_command, CV_ACCESS_TOKEN_MAX + 64,
                             CV_ACCESS_COMMAND_MS, on_command, r, &r->command, &error);
    } else if (cv_access_token_file(r->access)) {
        struct cv_buf token;
        cv_buf_init(&token, CV_ACCESS_TOKEN_MAX);
        status = cv_access_token(r->access, &token, &error);
        if (cv_is_ok(status))
            offer(r, cv_buf_slice(&token));
        cv_buf_wipe(&token);
    } else if (!r->is_told) {
        r->is_told = true;
        cv_log(r->log, CV_LOG_WARN, "agent", "token_not_renewable",
               "the token will expire and CULVERT_TOKEN cannot change: use --token-file or "
               "token_command");
    }
    if (!cv_is_ok(status))
        complain(r, &error);
}

static uint64_t again_ms(const struct cv_renewal *r)
{
    unsigned shift = r->refusals < 4 ? r->refusals : 4;
    uint64_t ms = (uint64_t)AGAIN_MS << shift;
    return ms < AGAIN_MAX_MS ? ms : AGAIN_MAX_MS;
}

/* An agent at rest sleeps: only a file is looked at without being asked for a token. */
static void rearm(struct cv_renewal *r)
{
    if (cv_access_token_file(r->access))
        arm(r, LOOK_MS);
    else if (cv_access_uses_command(r->access) && r->is_wanted && !r->command)
        arm(r, again_ms(r));
}

static void look(void *arg)
{
    struct cv_renewal *r = arg;
    if (!r->link)
        return;
    if (has_changed(r) || r->is_wanted)
        obtain(r);
    rearm(r);
}

void cv_renewal_init(struct cv_renewal *r, struct cv_worker *worker, const struct cv_access *access,
                     struct cv_log *log)
{
    *r = (struct cv_renewal){.worker = worker, .access = access, .log = log};
    cv_timer_init(&r->timer, look, r);
}

void cv_renewal_start(struct cv_renewal *r, struct cv_link *link)
{
    cv_renewal_stop(r);
    r->link = link;
    r->refusals = 0;
    r->is_wanted = false;
    cv_access_dialed_hash(r->access, r->held);
    /* Not has_changed: the file may have done so since the token was read for the dial. */
    r->file_number = 0;
    arm(r, LOOK_MS);
}

void cv_renewal_stop(struct cv_renewal *r)
{
    cv_worker_timer_stop(r->worker, &r->timer);
    cv_command_cancel(&r->command);
    r->link = NULL;
}

void cv_renewal_on_notice(struct cv_renewal *r, const struct cv_link_control *control)
{
    if (!r->link)
        return;
    if (strcmp(control->code, "token_expiring") == 0 ||
        strcmp(control->code, "token_expired") == 0) {
        r->is_wanted = true;
        obtain(r);
        if (!cv_access_token_file(r->access)) /* a file is looked at anyway */
            rearm(r);
    } else if (strcmp(control->code, "token_accepted") == 0) {
        r->is_wanted = r->is_told = false;
        r->refusals = 0;
        cv_log(r->log, CV_LOG_INFO, "agent", "token_renewed", "the relay has the fresh token",
               CV_F_UINT("leftMs", control->after_ms));
    } else if (strcmp(control->code, "token_refused") == 0) {
        cv_log_limited(r->log, CV_LOG_WARN, "agent", "token_refused",
                       "the relay does not take the fresh token",
                       CV_F_STR("text", control->message));
        memset(r->held, 0, sizeof r->held); /* the same one may be good later: keys, clocks */
        r->is_wanted = true;
        r->refusals++;
        arm(r, again_ms(r));
    }
}
