/* SPDX-License-Identifier: MIT
 *
 * `culvert token`: signs tokens, with the development issuer's key or one's own.
 */
#include "auth/dev.h"
#include "auth/sign.h"
#include "base/file.h"
#include "base/tunnel_name.h"
#include "cli/cli.h"
#include "config/state_dir.h"
#include "config/value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TOKEN_KEY_MAX = 64 * 1024 };

struct values {
    bool is_dev, is_admin, wants_jwks;
    const char *key_path, *subject, *tier, *ttl, *issuer, *audience;
    struct cv_option_list tunnels;
    struct cv_option_list groups;
};

static const struct cv_option options[] = {
    CV_OPT_FLAG(struct values, is_dev, "dev", 0, "Sign as `culvert server --dev` expects it."),
    CV_OPT_TEXT(struct values, key_path, "key", 0, "FILE",
                "Sign with this private key (PEM or JWK), for auth.jwks_file."),
    CV_OPT_TEXT(struct values, subject, "sub", 0, "USER", "Whose token it is."),
    CV_OPT_TEXT(struct values, tier, "tier", 0, "TIER",
                "What the relay's configuration grants it: free, premium, enterprise …"),
    CV_OPT_FLAG(struct values, is_admin, "admin", 0, "With the admin permission."),
    CV_OPT_TEXT(struct values, ttl, "ttl", 0, "TIME", "How long it holds, such as 1h; 1h without."),
    CV_OPT_LIST(struct values, tunnels, "tunnel", 0, "NAME",
                "Good for this tunnel only; may be given several times."),
    CV_OPT_LIST(struct values, groups, "group", 0, "NAME",
                "The user is in this group (claim `groups`); may be given several times."),
    CV_OPT_TEXT(struct values, issuer, "issuer", 0, "TEXT", "With --key: the relay's auth.issuer."),
    CV_OPT_TEXT(struct values, audience, "audience", 0, "TEXT",
                "With --key: one of the relay's auth.audience."),
    CV_OPT_FLAG(struct values, wants_jwks, "jwks", 0,
                "With --key: print the public key as the relay's auth.jwks_file wants it."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_token_command = {
    .name = "token",
    .operands = "",
    .summary = "Sign a token",
    .description =
        "Prints a token, and nothing else. With --dev it is good for a relay of this user that "
        "runs\n"
        "with --dev. With --key it is signed by a key of yours, for a relay whose auth.jwks_file "
        "has\n"
        "the public half; make a key with `openssl ecparam -name prime256v1 -genkey -noout`.\n",
    .examples =
        "  culvert token --dev --sub alice\n"
        "  culvert token --key issuer.pem --jwks > jwks.json\n"
        "  culvert token --key issuer.pem --issuer me --audience relay --sub alice --ttl 8760h "
        "--tunnel home\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

static int misuse(const char *text)
{
    (void)fprintf(stderr, "culvert token: %s\nTry `culvert token --help`.\n", text);
    return CV_EXIT_USAGE;
}

static const char *check(const struct values *v, struct cv_token_request *request)
{
    uint64_t ttl_ms = 3600 * 1000;
    if (v->is_dev == (v->key_path != NULL))
        return "one of --dev and --key is needed";
    if (v->wants_jwks)
        return v->key_path ? NULL : "--jwks goes with --key";
    if (!v->subject)
        return "--sub is needed";
    if (v->key_path && (!v->issuer || !v->audience))
        return "--key needs --issuer and --audience, as the relay is configured";
    if (v->ttl && (!cv_value_duration(cv_slice_str(v->ttl), false, &ttl_ms) || ttl_ms < 1000))
        return "--ttl is a time of at least 1s, such as 30m, 1h or 365d";
    if (v->tier && !cv_tier_is_valid(cv_slice_str(v->tier)))
        return "--tier is a name: a-z, 0-9, _ and -, 1 to 31 characters";
    for (size_t i = 0; i < v->tunnels.count; i++)
        if (!cv_tunnel_name_is_valid(cv_slice_str(v->tunnels.items[i])))
            return "--tunnel is a tunnel's name: a-z, 0-9 and inner -, 1 to 63 characters";
    for (size_t i = 0; i < v->groups.count; i++)
        if (!cv_identity_text_is_valid(cv_slice_str(v->groups.items[i])))
            return "--group is 1 to 255 bytes without control characters";
    request->ttl_s = (int64_t)(ttl_ms / 1000);
    request->issuer = v->issuer;
    request->audience = v->audience;
    request->subject = v->subject;
    request->tier = v->tier;
    request->is_admin = v->is_admin;
    request->tunnels = v->tunnels.items;
    request->tunnel_count = v->tunnels.count;
    request->groups = v->groups.items;
    request->group_count = v->groups.count;
    request->now_s = (int64_t)time(NULL);
    return NULL;
}

static struct cv_status sign_with_key(const struct values *v,
                                      const struct cv_token_request *request, struct cv_buf *out,
                                      struct cv_error *error)
{
    struct cv_buf text;
    struct cv_signing_key *key = NULL;
    cv_buf_init(&text, TOKEN_KEY_MAX);
    struct cv_status status = cv_file_read(v->key_path, CV_FILE_PRIVATE, &text, error);
    if (cv_is_ok(status))
        status = cv_signing_key_parse(cv_buf_slice(&text), &key, error);
    cv_buf_wipe(&text);
    if (cv_is_ok(status))
        status = v->wants_jwks ? cv_signing_key_to_jwks(key, out)
                               : cv_token_issue(key, request, out, error);
    cv_signing_key_free(&key);
    return status;
}

static struct cv_status sign_for_dev(const struct cv_token_request *request, struct cv_buf *out,
                                     struct cv_error *error)
{
    char dir[4096];
    CV_RETURN_IF_ERROR(cv_state_dir_open(getenv("CULVERT_STATE_DIR"), dir, sizeof dir, error));
    return cv_dev_token(dir, *request, out, error);
}

int cv_cli_token(int argc, const char *const *argv)
{
    struct values values = {0};
    struct cv_parsed parsed;
    struct cv_token_request request = {0};
    int exit_code;
    if (!cv_cli_parse(&cv_cli_token_command, argc, argv, &values, &parsed, &exit_code))
        return exit_code;
    const char *mistake = check(&values, &request);
    if (mistake)
        return misuse(mistake);
    struct cv_buf out;
    struct cv_error error = {0};
    cv_buf_init(&out, TOKEN_KEY_MAX);
    struct cv_status status = values.is_dev ? sign_for_dev(&request, &out, &error)
                                            : sign_with_key(&values, &request, &out, &error);
    if (cv_is_ok(status)) {
        cv_cli_print(&out, stdout);
        (void)fputc('\n', stdout);
    } else {
        cv_cli_complain(status.id, &error);
    }
    cv_buf_wipe(&out);
    return cv_cli_end_output(cv_is_ok(status) ? CV_EXIT_OK : CV_EXIT_FAILED);
}
