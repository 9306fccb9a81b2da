/* SPDX-License-Identifier: MIT
 *
 * Lets other people's programs try our token code without a relay around it.
 *
 *   jwt_check verify (--jwks FILE | --secret FILE) --issuer I --audience A [--alg NAME]...
 *                    [--now SECONDS] [--skew SECONDS]       < token
 *       prints the status ("OK", "AUTH_EXPIRED", …), then the subject or the reason
 *   jwt_check issue --key FILE --issuer I --audience A --sub S
 *       prints a token and, on the second line, the JWK Set that verifies it
 *
 * Exit code: 0 whatever the verdict, 2 for wrong usage or unreadable files.
 */
#include "auth/auth.h"
#include "auth/sign.h"
#include "base/file.h"

#include <getopt.h>

struct options {
    const char *jwks;
    const char *secret;
    const char *key;
    const char *issuer;
    const char *audience;
    const char *subject;
    unsigned algs;
    int64_t now_s;
    int64_t skew_s;
};

static int fail(struct cv_status status, const struct cv_error *error)
{
    fprintf(stderr, "jwt_check: %s: %s\n", cv_status_name(status.id), error->detail);
    return 2;
}

static bool parse_options(int argc, char **argv, struct options *out)
{
    static const struct option names[] = {
        {"jwks", required_argument, NULL, 'j'},     {"secret", required_argument, NULL, 'x'},
        {"key", required_argument, NULL, 'k'},      {"issuer", required_argument, NULL, 'i'},
        {"audience", required_argument, NULL, 'a'}, {"sub", required_argument, NULL, 's'},
        {"alg", required_argument, NULL, 'g'},      {"now", required_argument, NULL, 'n'},
        {"skew", required_argument, NULL, 'w'},     {0},
    };
    enum cv_jws_alg alg;
    *out = (struct options){.now_s = time(NULL)};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 'j':
            out->jwks = optarg;
            break;
        case 'x':
            out->secret = optarg;
            break;
        case 'k':
            out->key = optarg;
            break;
        case 'i':
            out->issuer = optarg;
            break;
        case 'a':
            out->audience = optarg;
            break;
        case 's':
            out->subject = optarg;
            break;
        case 'g':
            if (!cv_jws_alg_from_name(cv_slice_str(optarg), &alg))
                return false;
            out->algs |= CV_JWS_ALG_BIT(alg);
            break;
        case 'n':
            out->now_s = strtoll(optarg, NULL, 10);
            break;
        case 'w':
            out->skew_s = strtoll(optarg, NULL, 10);
            break;
        default:
            return false;
        }
    }
    return out->issuer && out->audience;
}

static int verify(const struct options *options)
{
    static char token[1 << 21];
    size_t len = fread(token, 1, sizeof token, stdin);
    struct cv_keysource *source = NULL;
    struct cv_error error = {0};
    struct cv_status status = options->secret
                                  ? cv_keysource_new_secret(options->secret, &source, &error)
                                  : cv_keysource_new_file(options->jwks, &source, &error);
    if (!cv_is_ok(status))
        return fail(status, &error);

    struct cv_auth_policy policy;
    struct cv_identity *identity = NULL;
    cv_auth_policy_init(&policy);
    policy.issuer = options->issuer;
    policy.audiences = &options->audience;
    policy.audience_count = 1;
    policy.skew_s = options->skew_s;
    if (options->algs)
        policy.algs = options->algs;
    status = cv_auth_check(&policy, source, NULL, cv_slice(token, len), options->now_s, 0,
                           &identity, &error);
    printf("%s\n%s\n", cv_status_name(status.id), identity ? identity->subject : error.detail);
    cv_identity_unref(&identity);
    cv_keysource_free(&source);
    return 0;
}

static int issue(const struct options *options)
{
    struct cv_buf text, out;
    struct cv_signing_key *key = NULL;
    struct cv_error error = {0};
    struct cv_token_request request = {.issuer = options->issuer,
                                       .audience = options->audience,
                                       .subject = options->subject,
                                       .now_s = options->now_s,
                                       .ttl_s = 600};
    cv_buf_init(&text, 16384);
    cv_buf_init(&out, 32768);
    struct cv_status status = cv_file_read(options->key, CV_FILE_ANY, &text, &error);
    if (cv_is_ok(status))
        status = cv_signing_key_parse(cv_buf_slice(&text), &key, &error);
    if (cv_is_ok(status))
        status = cv_token_issue(key, &request, &out, &error);
    if (cv_is_ok(status))
        status = cv_buf_append_byte(&out, '\n');
    if (cv_is_ok(status))
        status = cv_signing_key_to_jwks(key, &out);
    if (cv_is_ok(status))
        printf("%.*s\n", (int)cv_buf_len(&out), (const char *)cv_buf_head(&out));
    cv_signing_key_free(&key);
    cv_buf_wipe(&text);
    cv_buf_wipe(&out);
    return cv_is_ok(status) ? 0 : fail(status, &error);
}

int main(int argc, char **argv)
{
    struct options options;
    if (argc >= 2 && parse_options(argc - 1, argv + 1, &options)) {
        if (strcmp(argv[1], "verify") == 0 && (options.jwks || options.secret))
            return verify(&options);
        if (strcmp(argv[1], "issue") == 0 && options.key && options.subject)
            return issue(&options);
    }
    fprintf(stderr, "usage: see the head of tests/peers/jwt_check.c\n");
    return 2;
}
