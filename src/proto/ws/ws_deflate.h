/* SPDX-License-Identifier: MIT
 *
 * What two sides agree on about permessage-deflate (RFC 7692 §7.1): the Sec-WebSocket-Extensions
 * field, written, read and answered. Compression itself is inside the engine (ws.h).
 * Owns nothing; pure functions over slices; any thread. Fields longer than 4 KiB are refused.
 */
#ifndef CV_PROTO_WS_WS_DEFLATE_H
#define CV_PROTO_WS_WS_DEFLATE_H

#include "base/slice.h"
#include "base/status.h"

/* Both a wish (what this side wants) and an agreement (what holds). Window bits are 8–15. With 8,
 * which zlib cannot compress for, the engine sends only matches at distance one. */
struct cv_ws_deflate_params {
    bool is_enabled;
    bool server_no_context_takeover; /* the server begins each message with an empty window */
    bool client_no_context_takeover;
    uint8_t server_max_window_bits; /* of what the server sends */
    uint8_t client_max_window_bits;
};

enum { CV_WS_DEFLATE_TEXT_SIZE = 160 }; /* room for any offer or response written here, with NUL */

/* Enabled, full windows, context takeover. */
void cv_ws_deflate_params_init(struct cv_ws_deflate_params *params);

/* Client: the field value that offers `wish`; it always lets the server choose
 * client_max_window_bits. "" when wish is not enabled. */
void cv_ws_deflate_offer(const struct cv_ws_deflate_params *wish,
                         char text[CV_WS_DEFLATE_TEXT_SIZE]);

/* Server: picks the first acceptable permessage-deflate in `offers` (the field's value; several
 * fields joined with commas; may be empty) and writes the response field's value, "" for none. An
 * offer with unknown, repeated or invalid parameters is passed over (RFC 7692 §7.1). `wish` says
 * what the server adds by itself: takeover it does without, windows it wants smaller (the client's
 * only where the client allows it). CV_OK: *agreed is filled, is_enabled false when nothing is
 * used. CV_WS_UPGRADE: the field is malformed (RFC 6455 §9.1); *agreed is disabled. */
struct cv_status cv_ws_deflate_negotiate(struct cv_slice offers,
                                         const struct cv_ws_deflate_params *wish,
                                         struct cv_ws_deflate_params *agreed,
                                         char response[CV_WS_DEFLATE_TEXT_SIZE]);

/* Client: reads the server's response to cv_ws_deflate_offer(wish). Empty: not used, CV_OK.
 * CV_WS_UPGRADE, with *agreed disabled, for an extension that was not offered, two of them, or
 * parameters that do not answer the offer (RFC 7692 §7.1). */
struct cv_status cv_ws_deflate_accept(struct cv_slice response,
                                      const struct cv_ws_deflate_params *wish,
                                      struct cv_ws_deflate_params *agreed);

#endif
