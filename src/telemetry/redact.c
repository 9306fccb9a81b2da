/* SPDX-License-Identifier: MIT */
#include "telemetry/redact.h"

#include "base/status.h"

struct out {
    char *text;
    size_t len;
    size_t cap; /* without the NUL */
};

static void put(struct out *out, struct cv_slice bytes)
{
    size_t fits = out->cap - out->len;
    size_t take = bytes.len < fits ? bytes.len : fits;
    if (take)
        memcpy(out->text + out->len, bytes.data, take);
    out->len += take;
}

static bool is_alnum(uint8_t c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* RFC 4648 §5, which is what each part of a JWT is made of. */
static bool is_base64url(uint8_t c)
{
    return is_alnum(c) || c == '-' || c == '_';
}

/* RFC 7235 token68, which covers Basic and Bearer credentials. */
static bool is_token68(uint8_t c)
{
    return is_base64url(c) || c == '.' || c == '~' || c == '+' || c == '/' || c == '=';
}

static size_t run(struct cv_slice text, size_t from, bool (*is_in)(uint8_t))
{
    size_t end = from;
    while (end < text.len && is_in(text.data[end]))
        end++;
    return end;
}

/* End of a JWT that begins at `from`, or `from`. "eyJ" is `{"` in base64: every JOSE header begins
 * so (RFC 7515 §7.1), and nothing else that we log does. */
static size_t jwt_end(struct cv_slice text, size_t from)
{
    if (text.len - from < 8 || memcmp(text.data + from, "eyJ", 3) != 0)
        return from;
    size_t header = run(text, from, is_base64url);
    if (header - from < 6 || header == text.len || text.data[header] != '.')
        return from;
    size_t end = run(text, header + 1, is_base64url);
    while (end < text.len && text.data[end] == '.')
        end = run(text, end + 1, is_base64url);
    return end;
}

/* Where the credentials of "Bearer x" or "Basic x" at `from` begin, or `from`. */
static size_t scheme_end(struct cv_slice text, size_t from)
{
    static const char *const schemes[] = {"bearer", "basic", "dpop"};
    if (from > 0 && is_alnum(text.data[from - 1]))
        return from;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t len = strlen(schemes[i]);
        if (text.len - from <= len ||
            !cv_slice_is_nocase(cv_slice(text.data + from, len), schemes[i]))
            continue;
        size_t at = from + len;
        while (at < text.len && text.data[at] == ' ')
            at++;
        /* A sentence about "bearer tokens" is no credential: those are longer and not one word. */
        size_t end = run(text, at, is_token68);
        bool is_word = true;
        for (size_t k = at; k < end; k++)
            is_word = is_word && text.data[k] >= 'a' && text.data[k] <= 'z';
        if (at > from + len && end > at && !is_word)
            return at;
    }
    return from;
}

/* End of the userinfo of a URL whose "://" ends at `from`, or `from`: RFC 3986 §3.2.1. */
static size_t userinfo_end(struct cv_slice text, size_t from)
{
    for (size_t i = from; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '@')
            return i;
        if (c == '/' || c == '?' || c == '#' || c <= ' ')
            return from;
    }
    return from;
}

/* Without any of what credentials are known by there is nothing to look for. Nearly all text is so.
 */
static bool may_hold_credentials(struct cv_slice text)
{
    if (!text.data)
        return false;
    return memchr(text.data, ' ', text.len) || memmem(text.data, text.len, "eyJ", 3) ||
           memmem(text.data, text.len, "://", 3);
}

size_t cv_redact(struct cv_slice text, char *out, size_t cap)
{
    struct out to = {out, 0, cap - 1};
    size_t i = 0;
    if (!may_hold_credentials(text)) {
        put(&to, text);
        i = text.len;
    }
    while (i < text.len) {
        size_t end = jwt_end(text, i);
        if (end > i) {
            put(&to, cv_slice_str(CV_REDACTED));
            i = end;
            continue;
        }
        size_t credentials = scheme_end(text, i);
        if (credentials > i) {
            put(&to, cv_slice(text.data + i, credentials - i));
            put(&to, cv_slice_str(CV_REDACTED));
            i = run(text, credentials, is_token68);
            continue;
        }
        if (text.len - i > 3 && memcmp(text.data + i, "://", 3) == 0) {
            put(&to, cv_slice_str("://"));
            i += 3;
            size_t at = userinfo_end(text, i);
            if (at > i)
                put(&to, cv_slice_str(CV_REDACTED));
            i = at;
            continue;
        }
        put(&to, cv_slice(text.data + i, 1));
        i++;
    }
    out[to.len] = '\0';
    return to.len;
}

bool cv_redact_is_secret_name(struct cv_slice name)
{
#define NAME(text)                                                                                 \
    {                                                                                              \
        (const uint8_t *)(text), sizeof(text) - 1                                                  \
    }
    static const struct cv_slice secret[] = {
        NAME("authorization"),
        NAME("culvert-authorization"),
        NAME("proxy-authorization"),
        NAME("cookie"),
        NAME("set-cookie"),
        NAME("token"),
        NAME("access_token"),
        NAME("id_token"),
        NAME("refresh_token"),
        NAME("password"),
        NAME("passwd"),
        NAME("secret"),
        NAME("client_secret"),
        NAME("api-key"),
        NAME("api_key"),
        NAME("apikey"),
        NAME("x-api-key"),
        NAME("private_key"),
    };
#undef NAME
    for (size_t i = 0; i < sizeof secret / sizeof *secret; i++)
        if (name.len == secret[i].len && cv_slice_equal_nocase(name, secret[i]))
            return true;
    return false;
}
