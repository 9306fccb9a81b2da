/* SPDX-License-Identifier: MIT */
#include "relay/api_private.h"
#include "relay/revocation.h"

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
    api_answer(c, 201, json_pack("{s:s}", "id", id));
}

void api_revocations_delete(struct cv_consumer *c, const json_t *body)
{
    struct cv_error error = {0};
    (void)body;
    struct cv_status status =
        cv_revocations_remove(c->worker->relay->revocations, c->x.api_arg, &error);
    if (!cv_is_ok(status)) {
        problem_answer(c, status.id, CV_HOP_RELAY,
                       status.id == CV_NOT_FOUND ? "no revocation has this id" : error.detail,
                       true);
        return;
    }
    api_audit(c, "revocation_taken_back", c->x.api_arg);
    problem_simple(c, 204, NULL, NULL, NULL);
}
