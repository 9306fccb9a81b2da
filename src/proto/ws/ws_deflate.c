/* SPDX-License-Identifier: MIT */
#include "proto/ws/ws_deflate.h"

#include "proto/ws/ws_token.h"

#include <stdio.h>

enum { FIELD_MAX = 4096, BITS_MIN = 8, BITS_MAX = 15 };

/* One element of Sec-WebSocket-Extensions, as far as it says something about permessage-deflate. */
struct extension {
    bool is_deflate;
    bool is_invalid; /* unknown, repeated or wrong parameters: not to be accepted */
    bool has_server_no_context_takeover, has_client_no_context_takeover;
    bool has_server_bits, has_client_bits;
    uint8_t server_bits, client_bits; /* 0: the parameter had no value */
};

/* Decimal without leading zeros, 8 to 15 (RFC 7692 §7.1.2). */
static bool read_bits(struct cv_slice value, uint8_t *bits)
{
    uint64_t number;
    if (value.len == 0 || value.data[0] == '0' || !cv_slice_to_u64(value, BITS_MAX, &number) ||
        number < BITS_MIN)
        return false;
    *bits = (uint8_t)number;
    return true;
}

static bool read_flag(bool *has, bool has_value)
{
    bool is_new = !*has;
    *has = true;
    return is_new && !has_value;
}

/* Notes a parameter. False when it makes the extension unacceptable. */
static bool note_param(struct extension *ext, struct cv_slice name, struct cv_slice value,
                       bool has_value)
{
    if (cv_slice_is_nocase(name, "server_no_context_takeover"))
        return read_flag(&ext->has_server_no_context_takeover, has_value);
    if (cv_slice_is_nocase(name, "client_no_context_takeover"))
        return read_flag(&ext->has_client_no_context_takeover, has_value);
    if (cv_slice_is_nocase(name, "server_max_window_bits")) {
        bool is_new = !ext->has_server_bits;
        ext->has_server_bits = true;
        return is_new && has_value && read_bits(value, &ext->server_bits);
    }
    if (cv_slice_is_nocase(name, "client_max_window_bits")) {
        bool is_new = !ext->has_client_bits;
        ext->has_client_bits = true;
        return is_new && (!has_value || read_bits(value, &ext->client_bits));
    }
    return false;
}

/* A value: a token, or one in quotes (RFC 6455 §9.1: what is quoted must be a token too). */
static bool take_value(struct cv_slice *rest, struct cv_slice *value)
{
    bool is_quoted = cv_ws_take_char(rest, '"');
    *value = cv_ws_take_token(rest);
    return value->len > 0 && (!is_quoted || cv_ws_take_char(rest, '"'));
}

/* Reads the next element (RFC 6455 §9.1: token *( ";" token [ "=" value ] )). False at the end of
 * the field, and when it is malformed: then rest->len is not 0. */
static bool next_extension(struct cv_slice *rest, struct extension *ext)
{
    *ext = (struct extension){0};
    do
        cv_ws_skip_space(rest);
    while (cv_ws_take_char(rest, ','));
    struct cv_slice name = cv_ws_take_token(rest);
    if (name.len == 0)
        return false;
    ext->is_deflate = cv_slice_is_nocase(name, "permessage-deflate");
    for (;;) {
        cv_ws_skip_space(rest);
        if (rest->len == 0 || rest->data[0] == ',')
            return true;
        struct cv_slice malformed = *rest;
        bool is_good = cv_ws_take_char(rest, ';');
        cv_ws_skip_space(rest);
        struct cv_slice param = cv_ws_take_token(rest), value = {0};
        bool has_value = cv_ws_take_char(rest, '=');
        is_good = is_good && param.len > 0 && (!has_value || take_value(rest, &value));
        if (!is_good) {
            *rest = malformed;
            return false;
        }
        if (!note_param(ext, param, value, has_value))
            ext->is_invalid = true;
    }
}

static uint8_t smaller(uint8_t a, uint8_t b)
{
    return a < b ? a : b;
}

/* Appends to a text that is sized for all there is to say. */
static void add(char text[CV_WS_DEFLATE_TEXT_SIZE], const char *part)
{
    size_t len = strlen(text);
    (void)snprintf(text + len, CV_WS_DEFLATE_TEXT_SIZE - len, "%s", part);
}

static void add_bits(char text[CV_WS_DEFLATE_TEXT_SIZE], const char *param, unsigned bits)
{
    size_t len = strlen(text);
    (void)snprintf(text + len, CV_WS_DEFLATE_TEXT_SIZE - len, "; %s=%u", param, bits);
}

void cv_ws_deflate_params_init(struct cv_ws_deflate_params *params)
{
    *params = (struct cv_ws_deflate_params){
        .is_enabled = true,
        .server_max_window_bits = BITS_MAX,
        .client_max_window_bits = BITS_MAX,
    };
}

void cv_ws_deflate_offer(const struct cv_ws_deflate_params *wish,
                         char text[CV_WS_DEFLATE_TEXT_SIZE])
{
    text[0] = '\0';
    if (!wish->is_enabled)
        return;
    add(text, "permessage-deflate");
    if (wish->server_no_context_takeover)
        add(text, "; server_no_context_takeover");
    if (wish->client_no_context_takeover)
        add(text, "; client_no_context_takeover");
    if (wish->server_max_window_bits < BITS_MAX)
        add_bits(text, "server_max_window_bits", wish->server_max_window_bits);
    if (wish->client_max_window_bits < BITS_MAX)
        add_bits(text, "client_max_window_bits", wish->client_max_window_bits);
    else
        add(text, "; client_max_window_bits");
}

/* Answers one offer (RFC 7692 §7.1.1 and §7.1.2). */
static void answer(const struct extension *offer, const struct cv_ws_deflate_params *wish,
                   struct cv_ws_deflate_params *agreed, char text[CV_WS_DEFLATE_TEXT_SIZE])
{
    agreed->is_enabled = true;
    agreed->server_no_context_takeover =
        offer->has_server_no_context_takeover || wish->server_no_context_takeover;
    agreed->client_no_context_takeover =
        offer->has_client_no_context_takeover || wish->client_no_context_takeover;
    agreed->server_max_window_bits = wish->server_max_window_bits;
    if (offer->has_server_bits)
        agreed->server_max_window_bits = smaller(offer->server_bits, wish->server_max_window_bits);
    /* Only a client that names the parameter can be told to use a smaller window (§7.1.2.2). */
    agreed->client_max_window_bits = BITS_MAX;
    if (offer->has_client_bits)
        agreed->client_max_window_bits = smaller(offer->client_bits ? offer->client_bits : BITS_MAX,
                                                 wish->client_max_window_bits);

    add(text, "permessage-deflate");
    if (agreed->server_no_context_takeover)
        add(text, "; server_no_context_takeover");
    if (agreed->client_no_context_takeover)
        add(text, "; client_no_context_takeover");
    if (offer->has_server_bits || agreed->server_max_window_bits < BITS_MAX)
        add_bits(text, "server_max_window_bits", agreed->server_max_window_bits);
    if (agreed->client_max_window_bits < BITS_MAX)
        add_bits(text, "client_max_window_bits", agreed->client_max_window_bits);
}

struct cv_status cv_ws_deflate_negotiate(struct cv_slice offers,
                                         const struct cv_ws_deflate_params *wish,
                                         struct cv_ws_deflate_params *agreed,
                                         char response[CV_WS_DEFLATE_TEXT_SIZE])
{
    *agreed = (struct cv_ws_deflate_params){0};
    response[0] = '\0';
    if (offers.len > FIELD_MAX)
        return cv_status(CV_WS_UPGRADE);
    struct extension offer, chosen = {0};
    while (next_extension(&offers, &offer))
        if (offer.is_deflate && !offer.is_invalid && !chosen.is_deflate)
            chosen = offer;
    if (offers.len > 0)
        return cv_status(CV_WS_UPGRADE);
    if (wish->is_enabled && chosen.is_deflate)
        answer(&chosen, wish, agreed, response);
    return cv_ok();
}

/* Whether a response may follow our offer. */
static bool answers_offer(const struct extension *response, const struct cv_ws_deflate_params *wish)
{
    if (!wish->is_enabled || !response->is_deflate || response->is_invalid)
        return false;
    if (wish->server_no_context_takeover && !response->has_server_no_context_takeover)
        return false;
    if (wish->server_max_window_bits < BITS_MAX && !response->has_server_bits)
        return false;
    if (response->has_server_bits && response->server_bits > wish->server_max_window_bits)
        return false;
    /* In a response the value is not optional (§7.1.2.2); 0 means it is missing. */
    return !response->has_client_bits ||
           (response->client_bits != 0 && response->client_bits <= wish->client_max_window_bits);
}

struct cv_status cv_ws_deflate_accept(struct cv_slice response,
                                      const struct cv_ws_deflate_params *wish,
                                      struct cv_ws_deflate_params *agreed)
{
    *agreed = (struct cv_ws_deflate_params){0};
    if (response.len > FIELD_MAX)
        return cv_status(CV_WS_UPGRADE);
    struct extension first, other;
    if (!next_extension(&response, &first))
        return cv_status(response.len == 0 ? CV_OK : CV_WS_UPGRADE);
    if (!answers_offer(&first, wish) || next_extension(&response, &other) || response.len > 0)
        return cv_status(CV_WS_UPGRADE);
    *agreed = (struct cv_ws_deflate_params){
        .is_enabled = true,
        .server_no_context_takeover = first.has_server_no_context_takeover,
        /* What we announced for our own side holds even if the server does not repeat it. */
        .client_no_context_takeover =
            first.has_client_no_context_takeover || wish->client_no_context_takeover,
        .server_max_window_bits = first.has_server_bits ? first.server_bits : BITS_MAX,
        .client_max_window_bits =
            first.has_client_bits ? first.client_bits : wish->client_max_window_bits,
    };
    return cv_ok();
}
