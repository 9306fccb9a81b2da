/* SPDX-License-Identifier: MIT */
#include "proto/http/http_rewrite.h"

#include <stdlib.h>

#include "base/digest.h"
#include "proto/http/http.h"

/* Collects appends and takes them back when one of them failed. */
struct draft {
    struct cv_buf *out;
    size_t before;
    struct cv_status status;
};

static struct draft begin(struct cv_buf *out)
{
    return (struct draft){.out = out, .before = cv_buf_len(out), .status = {CV_OK}};
}

static void add(struct draft *draft, struct cv_slice part)
{
    if (!cv_is_ok(draft->status))
        return;
    draft->status = cv_http_is_field_value(part) ? cv_buf_append_slice(draft->out, part)
                                                 : cv_status(CV_INVALID);
}

static void add_str(struct draft *draft, const char *part)
{
    add(draft, cv_slice_str(part));
}

static struct cv_status finish(struct draft *draft)
{
    if (!cv_is_ok(draft->status))
        draft->out->end = draft->out->start + draft->before;
    return draft->status;
}

/* What is behind "http://<authority>" when the authority is one of the service's own. */
static bool cut_service_authority(struct cv_slice *value, const struct cv_slice *service_hosts,
                                  size_t count)
{
    static const char *const prefixes[] = {"http://", "https://", "//"};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        size_t skip = strlen(prefixes[i]), end = skip;
        if (value->len < skip || !cv_slice_is_nocase(cv_slice(value->data, skip), prefixes[i]))
            continue;
        while (end < value->len && value->data[end] != '/' && value->data[end] != '?' &&
               value->data[end] != '#')
            end++;
        struct cv_slice authority = cv_slice(value->data + skip, end - skip);
        for (size_t j = 0; j < count; j++) {
            if (cv_slice_equal_nocase(authority, service_hosts[j])) {
                *value = cv_slice(value->data + end, value->len - end);
                return true;
            }
        }
        return false;
    }
    return false;
}

struct cv_status cv_http_rewrite_location(struct cv_buf *out, struct cv_slice value,
                                          struct cv_slice prefix,
                                          const struct cv_slice *service_hosts, size_t count)
{
    struct draft draft = begin(out);
    struct cv_slice rest = cv_slice_trim(value);
    bool is_own = cut_service_authority(&rest, service_hosts, count);
    /* "//host/x" is a reference to another host, not a path. */
    bool is_path = rest.len && rest.data[0] == '/' && !cv_slice_starts_with(rest, "//");
    if (is_own || is_path) {
        add(&draft, prefix);
        if (is_own && (rest.len == 0 || rest.data[0] != '/'))
            add_str(&draft, "/");
    }
    add(&draft, rest);
    return finish(&draft);
}

struct cv_status cv_http_rewrite_set_cookie(struct cv_buf *out, struct cv_slice value,
                                            struct cv_slice prefix)
{
    static const char host_prefix[] = "__Host-";
    struct draft draft = begin(out);
    struct cv_slice rest = value, path = {0};
    struct cv_slice pair = cv_slice_trim(cv_slice_split(&rest, ';'));
    if (pair.len == 0 ||
        (pair.len >= sizeof(host_prefix) - 1 &&
         cv_slice_is_nocase(cv_slice(pair.data, sizeof(host_prefix) - 1), host_prefix)))
        return cv_status(CV_INVALID);
    add(&draft, pair);
    while (rest.data) {
        struct cv_slice attribute = cv_slice_trim(cv_slice_split(&rest, ';'));
        struct cv_slice argument = attribute;
        struct cv_slice name = cv_slice_trim(cv_slice_split(&argument, '='));
        if (cv_slice_is_nocase(name, "path")) {
            path = cv_slice_trim(argument); /* the last one counts (RFC 6265 §5.3) */
        } else if (attribute.len && !cv_slice_is_nocase(name, "domain")) {
            add_str(&draft, "; ");
            add(&draft, attribute);
        }
    }
    add_str(&draft, "; Path=");
    add(&draft, prefix);
    if (path.len && path.data[0] == '/')
        add(&draft, path);
    else
        add_str(&draft, "/");
    return finish(&draft);
}

static bool is_ipv6(struct cv_slice address)
{
    return address.len && memchr(address.data, ':', address.len) != NULL;
}

/* Quoted when it is no token (RFC 7239 §4); what would need escaping inside is refused. */
static void add_quoted(struct draft *draft, struct cv_slice value)
{
    if (value.len && (memchr(value.data, '"', value.len) || memchr(value.data, '\\', value.len)))
        draft->status = cv_status(CV_INVALID);
    bool is_plain = cv_http_is_token(value);
    add_str(draft, is_plain ? "" : "\"");
    add(draft, value);
    add_str(draft, is_plain ? "" : "\"");
}

struct cv_status cv_http_write_forwarded(struct cv_buf *out, struct cv_slice previous,
                                         struct cv_slice client, struct cv_slice host, bool is_tls)
{
    struct draft draft = begin(out);
    previous = cv_slice_trim(previous);
    add(&draft, previous);
    add_str(&draft, previous.len ? ", for=" : "for=");
    if (is_ipv6(client)) { /* RFC 7239 §6 */
        add_str(&draft, "\"[");
        add(&draft, client);
        add_str(&draft, "]\"");
    } else {
        add_quoted(&draft, client.len ? client : cv_slice_str("unknown"));
    }
    if (host.len) {
        add_str(&draft, ";host=");
        add_quoted(&draft, host);
    }
    add_str(&draft, is_tls ? ";proto=https" : ";proto=http");
    return finish(&draft);
}

struct cv_status cv_http_write_forwarded_for(struct cv_buf *out, struct cv_slice previous,
                                             struct cv_slice client)
{
    struct draft draft = begin(out);
    previous = cv_slice_trim(previous);
    add(&draft, previous);
    add_str(&draft, previous.len ? ", " : "");
    add(&draft, client.len ? client : cv_slice_str("unknown"));
    return finish(&draft);
}

struct cv_status cv_http_write_basic(struct cv_buf *out, struct cv_slice user,
                                     struct cv_slice password)
{
    if ((user.len && memchr(user.data, ':', user.len)) || !cv_http_is_field_value(user) ||
        !cv_http_is_field_value(password))
        return cv_status(CV_INVALID);
    size_t len = user.len + 1 + password.len;
    uint8_t *plain = malloc(len);
    char *text = malloc(4 * ((len + 2) / 3) + 1);
    struct cv_status status = {CV_NO_MEMORY};
    if (plain && text) {
        if (user.len)
            memcpy(plain, user.data, user.len);
        plain[user.len] = ':';
        if (password.len)
            memcpy(plain + user.len + 1, password.data, password.len);
        size_t text_len = cv_base64_encode(cv_slice(plain, len), text);
        struct draft draft = begin(out);
        add_str(&draft, "Basic ");
        add(&draft, cv_slice(text, text_len));
        status = finish(&draft);
        cv_wipe(plain, len);
        cv_wipe(text, text_len);
    }
    free(plain);
    free(text);
    return status;
}

bool cv_http_credentials(struct cv_slice field_value, const char *scheme, struct cv_slice *value)
{
    struct cv_slice rest = cv_slice_trim(field_value);
    struct cv_slice name = cv_slice_split(&rest, ' ');
    rest = cv_slice_trim(rest);
    if (!cv_slice_is_nocase(name, scheme) || rest.len == 0 || memchr(rest.data, ' ', rest.len) ||
        memchr(rest.data, '\t', rest.len))
        return false;
    *value = rest;
    return true;
}
