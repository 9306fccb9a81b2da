/* SPDX-License-Identifier: MIT
 *
 * Tokens revoked over the management API: in force at once, answered when the disk has it. Happy
 * path: the call → cv_revocations_add → cv_relay_apply_revocations → save → on_save in a thread of
 * the pool → on_saved: the answer. Ways it fails: the request is wrong; there is no room; the file
 * cannot be written (told, and what was revoked stays so); the consumer has gone (nobody is told).
 */
#include "net/task.h"
#include "relay/api_private.h"
#include "relay/revocation.h"

#include <stdio.h>
#include <stdlib.h>

enum { REASON_MAX = 200 };

void api_revocations_get(struct cv_consumer *c, const json_t *body)
{
    (void)body;
    json_t *list = cv_revocations_list(c->worker->relay->revocations);
    api_answer(c, 200, list ? json_pack("{s:o}", "revocations", list) : NULL);
}

/* A Unix time in seconds; `missing` where it is not there. */
static bool take_time(const json_t *body, const char *name, int64_t missing, int64_t *out)
{
    const json_t *value = json_object_get(body, name);
    *out = value ? json_integer_value(value) : missing;
    return !value || (json_is_integer(value) && *out >= 0 && *out < INT64_C(1) << 40);
}

/* NULL: it is a request. */
static const char *read_request(const json_t *body, int64_t now_s,
                                struct cv_revocation_request *request)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)body, name, value)
    {
        static const char *const known[] = {"jti", "sub", "issued_before", "expires_at", "reason"};
        bool is_known = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            is_known |= cv_slice_is(cv_slice_str(name), known[i]);
        if (!is_known)
            return "members are jti or sub, issued_before, expires_at and reason";
    }
    if (!api_text(body, "jti", CV_IDENTITY_MAX_TEXT, &request->jti) ||
        !api_text(body, "sub", CV_IDENTITY_MAX_TEXT, &request->subject) ||
        !request->jti == !request->subject)
        return "one of jti and sub must be given, a string of at most 255 bytes";
    const char *who = request->jti ? request->jti : request->subject;
    if (!cv_identity_text_is_valid(cv_slice_str(who)))
        return "jti and sub are not empty and have no control characters";
    if (request->jti && json_object_get(body, "issued_before"))
        return "issued_before goes with sub";
    if (!take_time(body, "issued_before", now_s + 1, &request->issued_before_s) ||
        !take_time(body, "expires_at", 0, &request->expires_s))
        return "issued_before and expires_at are Unix times in seconds";
    if (request->expires_s && request->expires_s <= now_s)
        return "expires_at is past";
    if (!api_text(body, "reason", REASON_MAX, &request->reason) ||
        (request->reason && request->reason[0] &&
         !cv_identity_text_is_valid(cv_slice_str(request->reason))))
        return "reason is a string of at most 200 bytes without control characters";
    return NULL;
}

/* ---- saving, away from the loop ---- */

/* What was changed holds already; the answer waits until it will in a restart, too. */
struct saving {
    struct cv_consumer *consumer; /* NULL: gone */
    struct cv_revocations *revocations;
    struct cv_status status;
    struct cv_error error;
    char id[CV_REVOCATION_ID_LEN + 1]; /* "": one was taken back */
};

static void answer_saved(struct cv_consumer *c, const struct saving *saving)
{
    char text[sizeof saving->error.detail + 64];
    c->x.saving = NULL;
    if (!cv_is_ok(saving->status)) {
        (void)snprintf(text, sizeof text, "it holds until the relay ends, but is not saved: %s",
                       saving->error.detail);
        problem_answer(c, saving->status.id, CV_HOP_RELAY, text, true);
    } else if (saving->id[0]) {
        api_answer(c, 201, json_pack("{s:s}", "id", saving->id));
    } else {
        problem_simple(c, 204, NULL, NULL, NULL);
    }
}

static void on_save(void *arg)
{
    struct saving *saving = arg;
    saving->status = cv_revocations_save(saving->revocations, &saving->error);
}

static void on_saved(void *arg)
{
    struct saving *saving = arg;
    if (saving->consumer)
        answer_saved(saving->consumer, saving);
    free(saving);
}

void api_revocations_forget(struct cv_consumer *c)
{
    if (c->x.saving)
        c->x.saving->consumer = NULL;
    c->x.saving = NULL;
}

static void save(struct cv_consumer *c, const char *id)
{
    struct saving *saving = calloc(1, sizeof *saving);
    struct cv_status status = cv_status(CV_NO_MEMORY);
    if (saving) {
        saving->consumer = c;
        saving->revocations = c->worker->relay->revocations;
        (void)cv_slice_to_str(cv_slice_str(id), saving->id, sizeof saving->id);
        status = cv_task_start(c->worker->worker, on_save, on_saved, saving);
    }
    if (cv_is_ok(status)) {
        c->x.saving = saving;
        return;
    }
    free(saving);
    problem_answer(c, status.id, CV_HOP_RELAY, "it holds until the relay ends, but is not saved",
                   true);
}

/* ---- changing ---- */

void api_revocations_post(struct cv_consumer *c, const json_t *body)
{
    struct cv_relay *relay = c->worker->relay;
    int64_t now_s = (int64_t)cv_worker_wall_seconds(c->worker->worker);
    struct cv_revocation_request request = {.by = c->x.identity->subject};
    struct cv_error error = {0};
    char id[CV_REVOCATION_ID_LEN + 1];
    const char *wrong = read_request(body, now_s, &request);
    if (wrong) {
        api_refuse(c, wrong);
        return;
    }
    struct cv_status status = cv_revocations_add(relay->revocations, &request, now_s, id, &error);
    if (!cv_is_ok(status)) {
        problem_answer(c, status.id, CV_HOP_RELAY, error.detail, true);
        return;
    }
    api_audit(c, "revoke", request.jti ? request.jti : request.subject);
    cv_relay_apply_revocations(relay);
    save(c, id);
}

void api_revocations_delete(struct cv_consumer *c, const json_t *body)
{
    (void)body;
    if (!cv_is_ok(cv_revocations_remove(c->worker->relay->revocations, c->x.api_arg))) {
        problem_answer(c, CV_NOT_FOUND, CV_HOP_RELAY, "no revocation has this id", true);
        return;
    }
    api_audit(c, "revocation_taken_back", c->x.api_arg);
    save(c, "");
}
