/* SPDX-License-Identifier: MIT
 *
 * From a connection to an SSH session: upgrade (who answers), token (which claim is wrong), ssh
 * (handshake and host key). See diagnose.h.
 *
 * One dial gives the first two: on_dialed → the upgrade's verdict, the token's kept for its own
 * stage; with an upgraded connection the link begins at once, since bytes may be behind it.
 */
#include "agent/access.h"
#include "agent/diagnose_private.h"
#include "agent/dialer.h"
#include "agent/upgrade.h"
#include "base/digest.h"
#include "base/json.h"
#include "config/agent_config.h"
#include "net/conn.h"
#include "transport/link.h"

#include <stdio.h>

/* ---- the link ---- */

static void ssh_look(struct cv_diagnose *d);

static void on_link_up(void *arg)
{
    struct cv_diagnose *d = arg;
    d->is_up = true;
    d->link_up_ns = cv_worker_now_ns(d->worker);
    ssh_look(d);
}

static bool on_host_key(void *arg, struct cv_slice blob, const char *fingerprint)
{
    struct cv_diagnose *d = arg;
    (void)snprintf(d->fingerprint, sizeof d->fingerprint, "%s", fingerprint);
    return cv_is_ok(cv_access_check_host_key(d->options.access, blob, fingerprint, &d->host_key));
}

static void on_link_reply(void *arg, uintptr_t cookie, bool is_success)
{
    (void)cookie;
    diagnose_on_reply(arg, is_success);
}

static void on_link_stream(void *arg, struct cv_stream *stream, enum cv_stream_kind kind,
                           struct cv_slice host, uint32_t port)
{
    (void)kind;
    (void)port;
    diagnose_on_stream(arg, stream, host);
}

static void on_link_control(void *arg, const struct cv_link_control *control)
{
    struct cv_diagnose *d = arg;
    if (control->type == CV_LINK_NOTICE && strcmp(control->code, "refused") == 0)
        (void)snprintf(d->refused, sizeof d->refused, "%.190s", control->message);
}

static void on_link_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_diagnose *d = arg;
    d->link = NULL;
    d->link_why = cv_is_ok(why) ? cv_status(CV_LINK_LOST) : why;
    d->link_error = error ? *error : (struct cv_error){.id = d->link_why.id};
    if (d->host_key.id != CV_OK) {
        d->link_why = cv_status(d->host_key.id);
        d->link_error = d->host_key;
    }
    diagnose_on_link_lost(d);
}

static const struct cv_link_ops link_ops = {
    .on_up = on_link_up,
    .on_host_key = on_host_key,
    .on_reply = on_link_reply,
    .on_stream = on_link_stream,
    .on_control = on_link_control,
    .on_closed = on_link_closed,
};

static void start_link(struct cv_diagnose *d, const struct cv_dialer_result *result)
{
    struct cv_link_options options;
    cv_access_link_options(d->options.access, &options);
    options.resume_ms = 0; /* a link that is lost while it is looked at is a finding */
    if (result->answer->has_id)
        memcpy(options.id, result->answer->link_id, sizeof options.id);
    d->link_began_ns = cv_worker_now_ns(d->worker);
    d->link_why = cv_link_new(d->worker, result->conn, &options, result->early, &link_ops, d,
                              d->options.log, &d->link);
    if (!cv_is_ok(d->link_why))
        cv_dialer_discard(result->conn);
}

/* ---- upgrade ---- */

static void note_clock(struct cv_diagnose *d, int64_t date_s)
{
    d->has_date = date_s != 0;
    d->skew_s = date_s - (int64_t)cv_worker_wall_seconds(d->worker);
    if (d->has_date)
        diagnose_note(d, "clock_skew_s", json_integer(d->skew_s));
}

static bool has_skew(const struct cv_diagnose *d)
{
    return d->has_date && (d->skew_s > DIAGNOSE_CLOCK_SKEW_S || d->skew_s < -DIAGNOSE_CLOCK_SKEW_S);
}

static const char *upgrade_suggestion(enum cv_status_id id)
{
    if (id == CV_RATE_LIMITED)
        return "Wait a little; the limits of users and addresses are the relay's settings.";
    return id == CV_CONN_RESET ? "A box on the way may cut WebSockets; a proxy (HTTPS_PROXY) or "
                                 "another network may let them through."
                               : NULL;
}

/* `http_status` is that of the answer; 0 when none was asked for. */
static void judge_upgrade(struct cv_diagnose *d, struct cv_status status,
                          const struct cv_error *error, int http_status)
{
    bool is_about_token = cv_status_category(status.id) == CV_CATEGORY_AUTHENTICATION;
    if (!cv_is_ok(status) && !is_about_token && status.id != CV_IO) {
        diagnose_fail(d, status, error, upgrade_suggestion(status.id));
        return;
    }
    d->refusal = status;
    d->refusal_error = *error;
    if (!cv_is_ok(status) && http_status == 0)
        diagnose_skip(d, "not asked for, since there is no token to show");
    else if (has_skew(d))
        diagnose_pass(d, "a culvert relay answers; its clock is %lld s %s that of this machine",
                      (long long)(d->skew_s < 0 ? -d->skew_s : d->skew_s),
                      d->skew_s > 0 ? "ahead of" : "behind");
    else
        diagnose_pass(d, "a culvert relay answers");
}

static void on_dialed(void *arg, const struct cv_dialer_result *result)
{
    struct cv_diagnose *d = arg;
    d->dialer = NULL;
    if (result->http_status)
        diagnose_note(d, "http_status", json_integer(result->http_status));
    note_clock(d, result->date_s);
    if (cv_is_ok(result->status))
        start_link(d, result);
    judge_upgrade(d, result->status, result->error, result->http_status);
}

void diagnose_upgrade(struct cv_diagnose *d)
{
    struct cv_error error = {0};
    struct cv_dialer_request request = {.subprotocol = "culvert.v1"};
    diagnose_note(d, "path", json_string(d->options.access->path));
    struct cv_status status =
        cv_dialer_start(d->worker, d->options.access, &request, on_dialed, d, &d->dialer, &error);
    if (!cv_is_ok(status))
        judge_upgrade(d, status, &error, 0);
}

/* ---- token ---- */

/* The claims, unverified: for a person to look at. NULL when they cannot be read. */
static json_t *read_claims(const struct cv_access *access)
{
    struct cv_buf token;
    struct cv_error error;
    uint8_t text[CV_ACCESS_TOKEN_MAX];
    size_t len = 0;
    json_t *claims = NULL;
    cv_buf_init(&token, CV_ACCESS_TOKEN_MAX);
    if (cv_is_ok(cv_access_token(access, &token, &error))) {
        struct cv_slice rest = cv_buf_slice(&token);
        (void)cv_slice_split(&rest, '.');
        struct cv_slice payload = cv_slice_split(&rest, '.');
        if (payload.len && cv_base64url_decode(payload, text, &len))
            (void)!cv_is_ok(cv_json_parse(cv_slice(text, len), &claims));
    }
    cv_buf_wipe(&token);
    cv_wipe(text, sizeof text);
    if (claims && !json_is_object(claims)) {
        json_decref(claims);
        claims = NULL;
    }
    return claims;
}

static int64_t claim_s(const json_t *claims, const char *name)
{
    double value = json_number_value(json_object_get(claims, name));
    return value > 0 && value < 253402300800.0 ? (int64_t)value : 0; /* to the year 9999 */
}

static void note_claims(struct cv_diagnose *d, const json_t *claims)
{
    static const char *const names[] = {"iss", "sub", "aud", "tier", "tunnels"};
    static const char *const times[] = {"iat", "nbf", "exp"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        json_t *value = json_object_get(claims, names[i]);
        if (json_is_string(value) || json_is_array(value))
            diagnose_note(d, names[i], json_incref(value));
    }
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        if (claim_s(claims, times[i]))
            diagnose_note(d, times[i], diagnose_moment(claim_s(claims, times[i])));
}

static const char *wrong_claim(enum cv_status_id id)
{
    switch (id) {
    case CV_AUTH_EXPIRED:
        return "exp";
    case CV_AUTH_NOT_YET_VALID:
        return "nbf";
    case CV_AUTH_WRONG_ISSUER:
        return "iss";
    case CV_AUTH_WRONG_AUDIENCE:
        return "aud";
    case CV_AUTH_BAD_SIGNATURE:
        return "signature";
    case CV_AUTH_UNKNOWN_KEY:
        return "kid";
    default:
        return NULL;
    }
}

/* The value of the claim that is wrong, behind the relay's words. */
static void say_claim(const json_t *claims, const char *claim, struct cv_error *error)
{
    struct cv_error said = *error;
    json_t *moment = claim_s(claims, claim) ? diagnose_moment(claim_s(claims, claim)) : NULL;
    const json_t *value = json_object_get(claims, claim);
    const char *text = json_string_value(moment ? moment : value);
    if (!text && json_is_array(value))
        text = json_string_value(json_array_get(value, 0));
    if (text)
        (void)cv_fail(error, said.id, "%.150s; its %s is %.60s", said.detail, claim, text);
    json_decref(moment);
}

static void fail_token(struct cv_diagnose *d, const json_t *claims)
{
    enum cv_status_id id = d->refusal.id;
    struct cv_error error = d->refusal_error;
    const char *claim = wrong_claim(id), *suggestion = NULL;
    if (claim) {
        diagnose_note(d, "claim", json_string(claim));
        say_claim(claims, claim, &error);
    }
    if ((id == CV_AUTH_EXPIRED || id == CV_AUTH_NOT_YET_VALID) && has_skew(d))
        suggestion = "The clocks of this machine and the relay differ: set this one (timedatectl "
                     "shows it), then make a new token if it was signed here.";
    else if (id == CV_AUTH_MISSING)
        suggestion = "Set CULVERT_TOKEN or give --token-file; `culvert token --help` tells how to "
                     "make one, if the relay is yours.";
    diagnose_fail(d, d->refusal, &error, suggestion);
}

void diagnose_token(struct cv_diagnose *d)
{
    json_t *claims = read_claims(d->options.access);
    const char *subject = json_string_value(json_object_get(claims, "sub"));
    int64_t left_s = claim_s(claims, "exp") - (int64_t)cv_worker_wall_seconds(d->worker);
    if (claims)
        note_claims(d, claims);
    if (!cv_is_ok(d->refusal))
        fail_token(d, claims);
    else if (subject && claim_s(claims, "exp"))
        diagnose_pass(d, "valid for user %.100s, %s%lld h %lld min left", subject,
                      left_s < 600 ? "only " : "", (long long)left_s / 3600,
                      (long long)left_s / 60 % 60);
    else
        diagnose_pass(d, "the relay takes it");
    json_decref(claims);
}

/* ---- ssh ---- */

static void ssh_look(struct cv_diagnose *d)
{
    if (d->stage != DIAGNOSE_SSH || d->is_stage_over || !d->is_up)
        return;
    diagnose_note(d, "host_key", json_string(d->fingerprint));
    diagnose_pass(d, "session stands, host key %.80s as expected", d->fingerprint);
}

void diagnose_ssh(struct cv_diagnose *d)
{
    /* The link has a limit of its own, and says more when it passes. */
    diagnose_limit(d, d->options.access->config->ssh_handshake_timeout_ms +
                          d->options.access->config->connect_relay_timeout_ms);
    ssh_look(d);
}
