/* SPDX-License-Identifier: MIT */
#include "proto/http/http_path.h"

#include "proto/http/http_chars.h"

static bool is_escape(struct cv_slice text, size_t at)
{
    return text.len - at >= 3 && (cv_http_chars[text.data[at + 1]] & CV_HTTP_HEXDIG) &&
           (cv_http_chars[text.data[at + 2]] & CV_HTTP_HEXDIG);
}

static bool is_plain_owner_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("-._@:+", c));
}

/* Strict, since it comes back in Location and in the path of cookies. */
static bool is_owner(struct cv_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '%' && is_escape(text, i))
            i += 2;
        else if (text.data[i] != '~' && !is_plain_owner_byte(text.data[i]))
            return false;
    }
    return text.len > 0;
}

bool cv_http_split_tunnel_path(struct cv_slice path, struct cv_http_tunnel_path *out)
{
    *out = (struct cv_http_tunnel_path){0};
    if (!cv_slice_starts_with(path, "/t/"))
        return false;
    struct cv_slice name = cv_slice(path.data + 3, path.len - 3);
    const uint8_t *slash = name.len ? memchr(name.data, '/', name.len) : NULL;
    name.len = slash ? (size_t)(slash - name.data) : name.len;
    out->prefix = cv_slice(path.data, 3 + name.len);
    out->rest = cv_slice(path.data + 3 + name.len, path.len - 3 - name.len);
    const uint8_t *tilde = name.len ? memrchr(name.data, '~', name.len) : NULL;
    if (tilde) {
        out->owner = cv_slice(name.data, (size_t)(tilde - name.data));
        name = cv_slice(tilde + 1, name.len - out->owner.len - 1);
    }
    out->name = name;
    return cv_tunnel_name_is_valid(name) && (!tilde || is_owner(out->owner));
}

bool cv_http_decode_owner(struct cv_slice owner, char *out, size_t cap)
{
    size_t len = 0;
    for (size_t i = 0; i < owner.len; i++) {
        uint8_t c = owner.data[i];
        if (c == '%' && is_escape(owner, i)) {
            c = (uint8_t)(cv_http_hex_value(owner.data[i + 1]) << 4 |
                          cv_http_hex_value(owner.data[i + 2]));
            i += 2;
        }
        if (c == '\0' || len + 1 >= cap)
            return false;
        out[len++] = (char)c;
    }
    out[len] = '\0';
    return true;
}

struct cv_status cv_http_write_owner(struct cv_buf *out, const char *subject)
{
    size_t before = cv_buf_len(out);
    struct cv_status status = cv_ok();
    for (const uint8_t *at = (const uint8_t *)subject; *at && cv_is_ok(status); at++)
        status = is_plain_owner_byte(*at) ? cv_buf_append_byte(out, *at)
                                          : cv_buf_printf(out, "%%%02X", *at);
    if (!cv_is_ok(status))
        cv_buf_truncate(out, before);
    return status;
}

/* Decodes one segment into `out` (room for segment.len). */
static bool decode_segment(struct cv_slice segment, uint8_t *out, size_t *out_len)
{
    size_t len = 0;
    for (size_t i = 0; i < segment.len; i++) {
        uint8_t c = segment.data[i];
        if (c == '%') {
            if (!is_escape(segment, i))
                return false;
            c = (uint8_t)(cv_http_hex_value(segment.data[i + 1]) << 4 |
                          cv_http_hex_value(segment.data[i + 2]));
            if (c == '/' || c == '%')
                return false;
            i += 2;
        }
        if (c < ' ' || c == 0x7f || c == '\\')
            return false;
        out[len++] = c;
    }
    *out_len = len;
    return true;
}

/* ".", "..", or one of them with parameters, which some services cut off before they resolve. */
static int dot_kind(const uint8_t *segment, size_t len, bool *is_ambiguous)
{
    size_t dots = 0;
    while (dots < len && dots < 3 && segment[dots] == '.')
        dots++;
    *is_ambiguous = (dots == 1 || dots == 2) && dots < len && segment[dots] == ';';
    return dots == len && dots <= 2 ? (int)dots : 0;
}

struct cv_status cv_http_normal_path(struct cv_slice path, struct cv_buf *out)
{
    if (path.len == 0 || path.data[0] != '/')
        return cv_status(CV_INVALID);
    if (path.len > cv_buf_room(out))
        return cv_status(CV_NO_RESOURCES);
    uint8_t *base = cv_buf_reserve(out, path.len);
    if (!base)
        return cv_status(CV_NO_MEMORY);

    /* base[0..len) is the result so far and ends in '/' before each segment. Decoding never makes
     * anything longer, so it fits. */
    size_t len = 1;
    struct cv_slice rest = cv_slice(path.data + 1, path.len - 1);
    base[0] = '/';
    while (rest.len) {
        size_t segment_len;
        bool is_ambiguous;
        const uint8_t *slash = memchr(rest.data, '/', rest.len);
        struct cv_slice segment = cv_slice_split(&rest, '/');
        if (!decode_segment(segment, base + len, &segment_len))
            return cv_status(CV_INVALID);
        int dots = dot_kind(base + len, segment_len, &is_ambiguous);
        if (is_ambiguous || (dots == 2 && len == 1))
            return cv_status(CV_INVALID);
        if (dots == 2) {
            for (len--; base[len - 1] != '/';)
                len--;
        } else if (dots == 0 && segment_len) {
            len += segment_len;
            if (slash)
                base[len++] = '/';
        }
    }
    cv_buf_commit(out, len);
    return cv_ok();
}
