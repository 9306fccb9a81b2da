/* SPDX-License-Identifier: MIT */
#include "auth/dev.h"

#include "base/file.h"

#include <limits.h>

#define KEY_FILE_MAX_BYTES 8192

static struct cv_status load(const char *path, struct cv_signing_key **out, struct cv_error *error)
{
    struct cv_buf text;
    cv_buf_init(&text, KEY_FILE_MAX_BYTES);
    struct cv_status status = cv_file_read(path, CV_FILE_PRIVATE, &text, error);
    if (cv_is_ok(status))
        status = cv_signing_key_parse(cv_buf_slice(&text), out, error);
    cv_buf_wipe(&text);
    return status;
}

static struct cv_status create(const char *path, struct cv_error *error)
{
    struct cv_buf text;
    struct cv_signing_key *key = NULL;
    bool is_created = false;
    CV_RETURN_IF_ERROR(cv_signing_key_generate(&key));
    cv_buf_init(&text, KEY_FILE_MAX_BYTES);
    struct cv_status status = cv_signing_key_to_pem(key, &text);
    if (cv_is_ok(status))
        status = cv_file_create(path, cv_buf_slice(&text), 0600, &is_created, error);
    cv_buf_wipe(&text);
    cv_signing_key_free(&key);
    return status;
}

struct cv_status cv_dev_key_load(const char *state_dir, struct cv_signing_key **out,
                                 struct cv_error *error)
{
    char path[PATH_MAX];
    *out = NULL;
    if (snprintf(path, sizeof path, "%s/%s", state_dir, CV_DEV_KEY_FILE) >= (int)sizeof path)
        return cv_fail(error, CV_IO, "path of the state folder too long");
    struct cv_status status = load(path, out, error);
    if (status.id != CV_NOT_FOUND)
        return status;
    CV_RETURN_IF_ERROR(cv_file_make_folder(state_dir, error));
    CV_RETURN_IF_ERROR(create(path, error));
    /* What is there now counts, ours or that of a faster process. */
    return load(path, out, error);
}

struct cv_status cv_dev_keysource_new(const char *state_dir, struct cv_keysource **out,
                                      struct cv_error *error)
{
    struct cv_buf json;
    struct cv_signing_key *key = NULL;
    struct cv_jwks *set = NULL;
    *out = NULL;
    CV_RETURN_IF_ERROR(cv_dev_key_load(state_dir, &key, error));
    cv_buf_init(&json, KEY_FILE_MAX_BYTES);
    struct cv_status status = cv_signing_key_to_jwks(key, &json);
    if (cv_is_ok(status))
        status = cv_jwks_parse(cv_buf_slice(&json), &set, error);
    if (cv_is_ok(status))
        status = cv_keysource_new_static(set, out);
    cv_jwks_unref(&set);
    cv_buf_done(&json);
    cv_signing_key_free(&key);
    return status;
}

void cv_dev_policy_init(struct cv_auth_policy *policy)
{
    static const char *const audiences[] = {CV_DEV_AUDIENCE};
    cv_auth_policy_init(policy);
    policy->issuer = CV_DEV_ISSUER;
    policy->audiences = audiences;
    policy->audience_count = 1;
    policy->algs = CV_JWS_ALG_BIT(CV_JWS_ES256);
}

struct cv_status cv_dev_token(const char *state_dir, struct cv_token_request request,
                              struct cv_buf *out, struct cv_error *error)
{
    struct cv_signing_key *key = NULL;
    CV_RETURN_IF_ERROR(cv_dev_key_load(state_dir, &key, error));
    request.issuer = CV_DEV_ISSUER;
    request.audience = CV_DEV_AUDIENCE;
    struct cv_status status = cv_token_issue(key, &request, out, error);
    cv_signing_key_free(&key);
    return status;
}
