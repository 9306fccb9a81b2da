/* SPDX-License-Identifier: MIT
 *
 * What is made of a service's Location and Set-Cookie, of a consumer's addresses and credentials,
 * of URLs and paths. The first byte chooses; lines of the rest are the arguments. Whatever comes
 * out can stand in a field, is within its tunnel's prefix, and a call that fails leaves nothing.
 */
#include "base/fuzz.h"
#include "proto/http/http.h"
#include "proto/http/http_path.h"
#include "proto/http/http_rewrite.h"
#include "proto/http/url.h"

static const char prefix[] = "/t/home";

static void check_value(struct cv_status status, const struct cv_buf *out)
{
    cv_fuzz_must(cv_is_ok(status) || status.id == CV_INVALID);
    if (cv_is_ok(status))
        cv_fuzz_must(cv_http_is_field_value(cv_buf_slice(out)));
    else
        cv_fuzz_must(cv_buf_len(out) == 0);
}

static void fuzz_location(struct cv_slice value, struct cv_buf *out)
{
    const struct cv_slice hosts[] = {cv_slice_str("localhost"), cv_slice_str("127.0.0.1:11434")};
    struct cv_status status = cv_http_rewrite_location(out, value, cv_slice_str(prefix), hosts, 2);
    check_value(status, out);
    struct cv_slice rest = cv_slice_trim(value);
    if (cv_is_ok(status) && cv_slice_starts_with(rest, "/") && !cv_slice_starts_with(rest, "//"))
        cv_fuzz_must(cv_slice_starts_with(cv_buf_slice(out), "/t/home/"));
}

static void fuzz_cookie(struct cv_slice value, struct cv_buf *out)
{
    check_value(cv_http_rewrite_set_cookie(out, value, cv_slice_str(prefix)), out);
    struct cv_slice rest = cv_buf_slice(out);
    unsigned paths = 0;
    (void)cv_slice_split(&rest, ';');
    while (rest.data) {
        struct cv_slice argument = cv_slice_trim(cv_slice_split(&rest, ';'));
        struct cv_slice name = cv_slice_trim(cv_slice_split(&argument, '='));
        cv_fuzz_must(!cv_slice_is_nocase(name, "domain"));
        if (cv_slice_is_nocase(name, "path")) {
            cv_fuzz_must(cv_slice_starts_with(cv_slice_trim(argument), "/t/home/"));
            paths++;
        }
    }
    cv_fuzz_must(cv_buf_len(out) == 0 || paths == 1);
}

static void fuzz_forwarded(struct cv_slice text, struct cv_buf *out)
{
    struct cv_slice previous = cv_slice_split(&text, '\n'), client = cv_slice_split(&text, '\n');
    check_value(cv_http_write_forwarded(out, previous, client, text, true), out);
    cv_buf_consume(out, cv_buf_len(out));
    check_value(cv_http_write_forwarded_for(out, previous, client), out);
}

static void fuzz_credentials(struct cv_slice text, struct cv_buf *out)
{
    struct cv_slice value, rest = text, user = cv_slice_split(&rest, '\n');
    if (cv_http_credentials(text, "Bearer", &value))
        cv_fuzz_must(value.len > 0 && !memchr(value.data, ' ', value.len) &&
                     value.data >= text.data && value.data + value.len <= text.data + text.len);
    check_value(cv_http_write_basic(out, user, rest), out);
}

static void fuzz_url(struct cv_slice text)
{
    struct cv_url url;
    struct cv_error error = {0};
    struct cv_slice host;
    unsigned port;
    bool has_port;
    if (cv_url_split_authority(text, &host, &port, &has_port))
        cv_fuzz_must(host.len > 0 && host.len <= 255 && port <= 65535 &&
                     cv_http_is_field_value(text));
    for (int i = 0; i < 2; i++) {
        if (!cv_is_ok(cv_url_parse(text, i, &url, &error)))
            continue;
        cv_fuzz_must(url.host.len > 0 && url.port <= 65535 && (i || !url.has_userinfo));
        cv_fuzz_must(url.path.len == 0 || url.path.data[0] == '/');
        cv_fuzz_must(cv_http_is_field_value(url.path) && cv_http_is_field_value(url.query));
    }
}

static void fuzz_path(struct cv_slice text, struct cv_buf *out)
{
    struct cv_http_tunnel_path at;
    struct cv_buf again;
    char owner[64];
    if (cv_http_split_tunnel_path(text, &at)) {
        cv_fuzz_must(cv_tunnel_name_is_valid(at.name) &&
                     (at.rest.len == 0 || at.rest.data[0] == '/'));
        cv_fuzz_must(at.prefix.len + at.rest.len == text.len);
        if (cv_http_decode_owner(at.owner, owner, sizeof owner))
            cv_fuzz_must(strlen(owner) <= at.owner.len);
    }
    if (!cv_is_ok(cv_http_normal_path(text, out))) {
        cv_fuzz_must(cv_buf_len(out) == 0);
        return;
    }
    /* The normal form has no escapes left that hide something: it is normal already. */
    cv_buf_init(&again, text.len + 1);
    if (!memchr(cv_buf_slice(out).data, '%', cv_buf_len(out))) {
        cv_fuzz_must(cv_is_ok(cv_http_normal_path(cv_buf_slice(out), &again)));
        cv_fuzz_must(cv_slice_equal(cv_buf_slice(out), cv_buf_slice(&again)));
    }
    cv_buf_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct cv_slice text = cv_slice(data + 1, size - 1);
    struct cv_buf out;
    cv_buf_init(&out, 1 << 20);
    switch (data[0] % 6) {
    case 0:
        fuzz_location(text, &out);
        break;
    case 1:
        fuzz_cookie(text, &out);
        break;
    case 2:
        fuzz_forwarded(text, &out);
        break;
    case 3:
        fuzz_credentials(text, &out);
        break;
    case 4:
        fuzz_url(text);
        break;
    default:
        fuzz_path(text, &out);
    }
    cv_buf_done(&out);
    return 0;
}
