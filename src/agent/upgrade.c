/* SPDX-License-Identifier: MIT */
#include "agent/upgrade.h"

#include "base/digest.h"
#include "proto/http/http_parser.h"
#include "proto/http/http_writer.h"

#include <inttypes.h>
#include <jansson.h>
#include <time.h>

enum { RETRY_AFTER_MAX_S = 3600 };

static struct cv_status write_hex(struct cv_buf *out, const char *name, struct cv_slice bytes)
{
    char hex[2 * 32 + 1];
    cv_hex_encode(bytes, hex);
    return cv_http_write_field_str(out, name, hex);
}

static struct cv_status write_number(struct cv_buf *out, const char *name, uint64_t number)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, number);
    return cv_http_write_field_str(out, name, text);
}

static struct cv_status write_claim(const struct cv_link_claim *claim, struct cv_buf *out)
{
    CV_RETURN_IF_ERROR(
        write_hex(out, "Culvert-Link", cv_slice(claim->link_id, sizeof claim->link_id)));
    CV_RETURN_IF_ERROR(write_number(out, "Culvert-Resume", claim->counter));
    CV_RETURN_IF_ERROR(
        write_hex(out, "Culvert-Nonce", cv_slice(claim->nonce, sizeof claim->nonce)));
    CV_RETURN_IF_ERROR(write_number(out, "Culvert-Received", claim->received));
    return write_hex(out, "Culvert-Proof", cv_slice(claim->proof, sizeof claim->proof));
}

static struct cv_status write_request(struct cv_upgrade *upgrade,
                                      const struct cv_upgrade_request *request, struct cv_buf *out)
{
    const struct {
        const char *name, *value;
    } fields[] = {
        {"Host", request->relay},
        {"Connection", "Upgrade"},
        {"Upgrade", "websocket"},
        {"Sec-WebSocket-Version", "13"},
        {"Sec-WebSocket-Key", upgrade->key},
        {"Sec-WebSocket-Protocol", request->subprotocol},
        {"User-Agent", "culvert/" CV_VERSION},
        {"Culvert-Agent", request->agent_id},
        {"traceparent", request->traceparent},
    };
    CV_RETURN_IF_ERROR(
        cv_http_write_request_line(out, cv_slice_str("GET"), cv_slice_str(request->path)));
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (fields[i].value)
            CV_RETURN_IF_ERROR(cv_http_write_field_str(out, fields[i].name, fields[i].value));
    char value[8 + 8192];
    if (request->claim)
        CV_RETURN_IF_ERROR(write_claim(request->claim, out));
    int len = snprintf(value, sizeof value, "Bearer %.*s", (int)request->token.len,
                       (const char *)request->token.data);
    if (len < 0 || (size_t)len >= sizeof value)
        return cv_status(CV_INVALID);
    CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Authorization", value));
    return cv_http_write_head_end(out);
}

struct cv_status cv_upgrade_begin(struct cv_upgrade *upgrade,
                                  const struct cv_upgrade_request *request, struct cv_buf *out)
{
    *upgrade = (struct cv_upgrade){.subprotocol = request->subprotocol};
    cv_buf_init(&upgrade->body, CV_UPGRADE_BODY_MAX);
    cv_ws_make_key(upgrade->key);
    upgrade->parser = cv_http_parser_new(CV_HTTP_RESPONSES, &cv_http_response_limits);
    if (!upgrade->parser)
        return cv_status(CV_NO_MEMORY);
    CV_RETURN_IF_ERROR(cv_http_parser_expect(upgrade->parser, CV_HTTP_EXPECT_UPGRADE));
    return write_request(upgrade, request, out);
}

void cv_upgrade_done(struct cv_upgrade *upgrade)
{
    cv_http_parser_free(&upgrade->parser);
    cv_buf_done(&upgrade->body);
}

/* IMF-fixdate alone, which is all that may be sent (RFC 9110 §5.6.7); 0 for anything else. */
static int64_t read_date(struct cv_slice text)
{
    char date[40];
    struct tm tm = {0};
    if (!cv_slice_to_str(text, date, sizeof date))
        return 0;
    const char *end = strptime(date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    return end && *end == '\0' ? (int64_t)timegm(&tm) : 0;
}

/* As much as fits. */
static void take_text(struct cv_slice text, char *out, size_t cap)
{
    if (text.len >= cap)
        text.len = cap - 1;
    (void)cv_slice_to_str(text, out, cap);
}

static void take_head(struct cv_upgrade *upgrade, const struct cv_http_head *head)
{
    upgrade->http_status = head->status;
    uint64_t seconds;
    if (cv_slice_to_u64(cv_http_value(head, "Retry-After"), RETRY_AFTER_MAX_S, &seconds))
        upgrade->retry_after_ms = seconds * 1000;
    upgrade->is_problem =
        cv_slice_starts_with(cv_http_value(head, "Content-Type"), "application/problem+json");
    upgrade->is_page = cv_slice_starts_with(cv_http_value(head, "Content-Type"), "text/html");
    upgrade->date_s = read_date(cv_http_value(head, "Date"));
    take_text(cv_http_value(head, "Server"), upgrade->server, sizeof upgrade->server);
    take_text(cv_http_value(head, "Location"), upgrade->location, sizeof upgrade->location);
    take_text(cv_http_value(head, "Via"), upgrade->via, sizeof upgrade->via);
}

static void take_answer(struct cv_upgrade_answer *answer, const struct cv_http_head *head)
{
    answer->has_id =
        cv_hex_decode(cv_http_value(head, "Culvert-Link"), answer->link_id, sizeof answer->link_id);
    answer->has_proof =
        cv_hex_decode(cv_http_value(head, "Culvert-Proof"), answer->proof, sizeof answer->proof) &&
        cv_slice_to_u64(cv_http_value(head, "Culvert-Received"), (uint64_t)1 << 53,
                        &answer->received);
}

static struct cv_status check_101(const struct cv_upgrade *upgrade, const struct cv_http_head *head,
                                  struct cv_error *error)
{
    struct cv_ws_response response = {
        .http_status = (unsigned)head->status,
        .upgrade = cv_http_value(head, "Upgrade"),
        .connection = cv_http_value(head, "Connection"),
        .accept = cv_http_value(head, "Sec-WebSocket-Accept"),
        .protocol = cv_http_value(head, "Sec-WebSocket-Protocol"),
    };
    CV_RETURN_IF_ERROR(cv_ws_check_response(&response, cv_slice_str(upgrade->key),
                                            cv_slice_str(upgrade->subprotocol), error));
    if (!cv_slice_is(response.protocol, upgrade->subprotocol))
        return cv_fail(error, CV_WS_UPGRADE,
                       "the server speaks WebSocket but not %s: is this a culvert relay?",
                       upgrade->subprotocol);
    return cv_ok();
}

/* What the relay said, in its own words: copies `detail` and maps the reason to our table. */
static bool read_problem(const struct cv_upgrade *upgrade, char code[32], char title[80],
                         char detail[160])
{
    code[0] = title[0] = detail[0] = '\0';
    if (!upgrade->is_problem)
        return false;
    json_t *object = json_loadb((const char *)upgrade->body.data + upgrade->body.start,
                                cv_buf_len(&upgrade->body), 0, NULL);
    const char *text = json_string_value(json_object_get(object, "code"));
    if (text)
        (void)snprintf(code, 32, "%s", text);
    const char *name = json_string_value(json_object_get(object, "title"));
    if (name)
        (void)snprintf(title, 80, "%s", name);
    text = json_string_value(json_object_get(object, "detail"));
    if (!text)
        text = name;
    if (text)
        (void)snprintf(detail, 160, "%s", text);
    json_decref(object);
    return true;
}

/* Codes are shared, titles are the texts of our table: they tell a wrong audience from a bad
 * signature. What is not known is a token that was refused. */
static enum cv_status_id token_refusal(const char *code, const char *title)
{
    for (int id = CV_OK + 1; id < CV_STATUS_COUNT; id++)
        if (cv_status_http(id) == 401 && strcmp(cv_status_text(id), title) == 0)
            return id;
    return strcmp(code, "TUNNEL_003") == 0 ? CV_AUTH_EXPIRED : CV_AUTH_FAILED;
}

static enum cv_status_id resume_refusal(int http_status)
{
    switch (http_status) {
    case 409:
        return CV_RESUME_CONFLICT;
    case 403:
        return CV_RESUME_PROOF;
    default:
        return CV_RESUME_UNKNOWN;
    }
}

/* A network that wants a login first answers in the place of everybody. */
static struct cv_status judge_stranger(const struct cv_upgrade *upgrade, bool is_relay,
                                       const char *detail, struct cv_error *error)
{
    const char *from = upgrade->server[0] ? " from " : "", *via = upgrade->via[0] ? " via " : "";
    if (upgrade->http_status / 100 == 3 && upgrade->location[0])
        return cv_fail(error, CV_WS_REFUSED,
                       "a redirect (%d%s%s) to %.80s answers in the relay's place: log in to this "
                       "network if that is its login page (captive portal), else check the URL",
                       upgrade->http_status, from, upgrade->server, upgrade->location);
    if (upgrade->http_status == 200 && upgrade->is_page)
        return cv_fail(error, CV_WS_REFUSED,
                       "a web page (200%s%s) answers in the relay's place: the login page of this "
                       "network (captive portal), or another server; open the URL in a browser",
                       from, upgrade->server);
    return cv_fail(error, CV_WS_REFUSED,
                   "HTTP status %d%s%s%s%s%s%s%s instead of a WebSocket: another server or a proxy "
                   "answers, or it does not let WebSockets through",
                   upgrade->http_status, from, upgrade->server, via, upgrade->via,
                   is_relay ? " (relay)" : "", detail[0] ? ": " : "", detail);
}

static struct cv_status judge(const struct cv_upgrade *upgrade, struct cv_error *error)
{
    char code[32], title[80], detail[160];
    bool is_relay = read_problem(upgrade, code, title, detail);
    const char *space = code[0] ? " " : "", *colon = detail[0] ? ": " : "";
    if (is_relay && strcmp(code, "TUNNEL_032") == 0)
        return cv_fail(error, resume_refusal(upgrade->http_status),
                       "the relay does not take the link up again (%d%s%s)", upgrade->http_status,
                       colon, detail);
    switch (upgrade->http_status) {
    case 401:
        if (!is_relay)
            break;
        return cv_fail(error, token_refusal(code, title),
                       "the relay refuses the token (401%s%s%s%s)", space, code, colon, detail);
    case 403:
        if (!is_relay)
            break;
        return cv_fail(error, CV_FORBIDDEN, "the relay does not permit it (403%s%s%s%s)", space,
                       code, colon, detail);
    case 404:
        return cv_fail(error, CV_WS_REFUSED,
                       "there is no relay at this path (404): check the URL, its path is "
                       "/tunnel unless the operator says otherwise");
    case 407:
        return cv_fail(error, CV_PROXY, "a proxy wants a user and password (407)");
    case 426:
        return cv_fail(error, CV_WS_VERSION,
                       "the server wants another protocol version (426): update culvert");
    case 429:
        return cv_fail(error, CV_RATE_LIMITED, "too many connections (429%s%s), waiting", colon,
                       detail);
    case 503:
        return cv_fail(error, CV_UNAVAILABLE, "the relay is not available now (503%s%s)", colon,
                       detail);
    default:
        break;
    }
    return judge_stranger(upgrade, is_relay, detail, error);
}

struct cv_status cv_upgrade_feed(struct cv_upgrade *upgrade, const uint8_t *data, size_t len,
                                 struct cv_slice *early, struct cv_error *error)
{
    *early = cv_slice(NULL, 0);
    CV_RETURN_IF_ERROR(cv_http_parser_feed(upgrade->parser, data, len));
    for (;;) {
        struct cv_http_event event;
        struct cv_status status = cv_http_parser_next(upgrade->parser, &event);
        if (status.id == CV_AGAIN)
            return status;
        if (status.id == CV_EOF && upgrade->http_status)
            return judge(upgrade, error);
        if (!cv_is_ok(status))
            return cv_fail(error, status.id == CV_NO_MEMORY ? status.id : CV_WS_REFUSED,
                           "what answers is no HTTP server: %s",
                           cv_http_parser_fault(upgrade->parser));
        switch (event.type) {
        case CV_HTTP_HEAD:
            if (event.head->status < 200 && event.head->status != 101)
                break;
            take_head(upgrade, event.head);
            if (event.head->status != 101)
                break;
            CV_RETURN_IF_ERROR(check_101(upgrade, event.head, error));
            take_answer(&upgrade->answer, event.head);
            /* The parser says END and then nothing more: what is behind is WebSocket. */
            while (cv_is_ok(cv_http_parser_next(upgrade->parser, &event)))
                ;
            *early = cv_http_parser_take_rest(upgrade->parser);
            return cv_ok();
        case CV_HTTP_BODY:
            if (!cv_is_ok(cv_buf_append_slice(&upgrade->body, event.body)))
                return judge(upgrade, error);
            break;
        case CV_HTTP_TRAILERS:
            break;
        case CV_HTTP_END:
            return judge(upgrade, error);
        }
    }
}

struct cv_status cv_upgrade_eof(struct cv_upgrade *upgrade, struct cv_error *error)
{
    if (upgrade->http_status)
        return judge(upgrade, error);
    return cv_fail(error, CV_CONN_RESET, "the server closed the connection without an answer");
}
