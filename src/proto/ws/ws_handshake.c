/* SPDX-License-Identifier: MIT */
#include "proto/ws/ws_handshake.h"

#include "base/digest.h"
#include "proto/ws/ws_token.h"

enum { KEY_LEN = 16, KEY_TEXT_LEN = CV_WS_KEY_SIZE - 1, PROTOCOLS_MAX = 32 };

/* RFC 6455 §1.3 */
#define ACCEPT_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

void cv_ws_make_key(char key[CV_WS_KEY_SIZE])
{
    uint8_t bytes[KEY_LEN];
    cv_random(bytes, sizeof bytes);
    (void)cv_base64_encode(cv_slice(bytes, sizeof bytes), key);
}

void cv_ws_accept_key(struct cv_slice key, char accept[CV_WS_ACCEPT_SIZE])
{
    /* A valid key has 24 characters; of a longer one, which nobody gets to see accepted, the rest
     * is left out. */
    uint8_t text[KEY_TEXT_LEN + sizeof ACCEPT_GUID - 1];
    size_t len = key.len < KEY_TEXT_LEN ? key.len : KEY_TEXT_LEN;
    if (len)
        memcpy(text, key.data, len);
    memcpy(text + len, ACCEPT_GUID, sizeof ACCEPT_GUID - 1);
    uint8_t digest[CV_SHA1_LEN];
    cv_sha1(cv_slice(text, len + sizeof ACCEPT_GUID - 1), digest);
    (void)cv_base64_encode(cv_slice(digest, sizeof digest), accept);
}

bool cv_ws_token_next(struct cv_slice *rest, struct cv_slice *token)
{
    do
        cv_ws_skip_space(rest);
    while (cv_ws_take_char(rest, ','));
    struct cv_slice at = *rest;
    *token = cv_ws_take_token(rest);
    cv_ws_skip_space(rest);
    if (token->len > 0 && (rest->len == 0 || cv_ws_take_char(rest, ',')))
        return true;
    *rest = at;
    return false;
}

bool cv_ws_list_has(struct cv_slice list, const char *token)
{
    struct cv_slice element;
    bool has = false;
    while (cv_ws_token_next(&list, &element))
        has = has || cv_slice_is_nocase(element, token);
    return has && list.len == 0;
}

bool cv_ws_is_upgrade(struct cv_slice upgrade)
{
    /* Upgrade is a list of name[/version] (RFC 9110 §7.8), so not just of tokens. */
    while (upgrade.data)
        if (cv_slice_is_nocase(cv_slice_trim(cv_slice_split(&upgrade, ',')), "websocket"))
            return true;
    return false;
}

static bool key_is_valid(struct cv_slice key)
{
    uint8_t bytes[3 * (KEY_TEXT_LEN / 4) + 2];
    size_t len;
    return key.len == KEY_TEXT_LEN && cv_base64_decode(key, bytes, &len) && len == KEY_LEN;
}

struct cv_status cv_ws_check_request(const struct cv_ws_request *request, struct cv_error *error)
{
    if (!cv_slice_is(request->method, "GET"))
        return cv_fail(error, CV_WS_UPGRADE, "the method is not GET");
    if (request->http_major < 1 || (request->http_major == 1 && request->http_minor < 1))
        return cv_fail(error, CV_WS_UPGRADE, "HTTP/1.1 is needed");
    if (!cv_ws_is_upgrade(request->upgrade))
        return cv_fail(error, CV_WS_UPGRADE, "the field Upgrade does not say websocket");
    if (!cv_ws_list_has(request->connection, "upgrade"))
        return cv_fail(error, CV_WS_UPGRADE, "the field Connection does not say Upgrade");
    if (!key_is_valid(request->key))
        return cv_fail(error, CV_WS_UPGRADE, "Sec-WebSocket-Key is not 16 bytes in base64");
    if (!cv_slice_is(request->version, "13"))
        return cv_fail(error, CV_WS_VERSION, "Sec-WebSocket-Version is not 13");
    return cv_ok();
}

struct cv_status cv_ws_check_response(const struct cv_ws_response *response, struct cv_slice key,
                                      struct cv_slice protocols, struct cv_error *error)
{
    if (response->http_status != 101)
        return cv_fail(error, CV_WS_REFUSED, "the server answered with HTTP status %u",
                       response->http_status);
    if (!cv_slice_is_nocase(cv_slice_trim(response->upgrade), "websocket"))
        return cv_fail(error, CV_WS_UPGRADE, "the field Upgrade does not say websocket");
    if (!cv_ws_list_has(response->connection, "upgrade"))
        return cv_fail(error, CV_WS_UPGRADE, "the field Connection does not say Upgrade");
    char accept[CV_WS_ACCEPT_SIZE];
    cv_ws_accept_key(key, accept);
    if (!cv_slice_is(cv_slice_trim(response->accept), accept))
        return cv_fail(error, CV_WS_UPGRADE, "Sec-WebSocket-Accept does not answer our key");
    if (response->protocol.len == 0)
        return cv_ok();
    struct cv_slice protocol;
    while (cv_ws_token_next(&protocols, &protocol))
        if (cv_slice_equal(protocol, response->protocol))
            return cv_ok();
    return cv_fail(error, CV_WS_UPGRADE, "the server chose a subprotocol that was not offered");
}

struct cv_status cv_ws_choose_protocol(struct cv_slice offered, const char *const *supported,
                                       size_t count, struct cv_slice *chosen)
{
    *chosen = cv_slice(NULL, 0);
    struct cv_slice seen[PROTOCOLS_MAX], protocol;
    size_t seen_count = 0;
    while (cv_ws_token_next(&offered, &protocol)) {
        if (seen_count == PROTOCOLS_MAX)
            return cv_status(CV_WS_UPGRADE);
        for (size_t i = 0; i < seen_count; i++)
            if (cv_slice_equal(seen[i], protocol))
                return cv_status(CV_WS_UPGRADE);
        seen[seen_count++] = protocol;
        for (size_t i = 0; i < count && chosen->len == 0; i++)
            if (cv_slice_is(protocol, supported[i]))
                *chosen = protocol;
    }
    return cv_status(offered.len == 0 ? CV_OK : CV_WS_UPGRADE);
}
