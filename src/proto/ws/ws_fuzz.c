/* SPDX-License-Identifier: MIT
 *
 * libFuzzer harness for both roles. The first byte chooses role, deflate and caps, the second how
 * the rest is cut into feeds; the engine also answers, so that closing is exercised.
 */
#include "proto/ws/ws.h"
#include "proto/ws/ws_handshake.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_fields(struct cv_slice field)
{
    struct cv_ws_deflate_params wish, agreed;
    char text[CV_WS_DEFLATE_TEXT_SIZE];
    cv_ws_deflate_params_init(&wish);
    (void)cv_ws_deflate_negotiate(field, &wish, &agreed, text).id;
    (void)cv_ws_deflate_accept(field, &wish, &agreed).id;
    static const char *const known[] = {"ssh", "culvert.v1"};
    struct cv_slice chosen;
    (void)cv_ws_choose_protocol(field, known, 2, &chosen).id;
    (void)cv_ws_is_upgrade(field);
    (void)cv_ws_list_has(field, "upgrade");
    struct cv_ws_request request = {
        cv_slice_str("GET"), 1, 1, cv_slice_str("websocket"), cv_slice_str("upgrade"), field,
        cv_slice_str("13")};
    (void)cv_ws_check_request(&request, NULL).id;
}

static void fuzz_frames(uint8_t choice, size_t step, const uint8_t *data, size_t size)
{
    struct cv_ws_options options;
    cv_ws_options_init(&options, choice & 1 ? CV_WS_SERVER : CV_WS_CLIENT);
    options.max_fragments = 64;
    options.max_pending_pongs = 2;
    options.max_unanswered_pings = 4;
    if (choice & 2) {
        cv_ws_deflate_params_init(&options.deflate);
        options.deflate.server_no_context_takeover = choice & 4;
        options.deflate.client_no_context_takeover = choice & 8;
        options.deflate.server_max_window_bits = options.deflate.client_max_window_bits =
            choice & 16 ? 9 : 15;
        options.max_inflated_bytes = 1 << 18;
    }
    if (choice & 32)
        options.max_message_bytes = 1000;
    struct cv_ws *ws = cv_ws_new(&options);
    struct cv_buf out;
    cv_buf_init(&out, 4096);
    struct cv_status status = cv_status(CV_AGAIN);
    for (size_t at = 0; ws && at < size && status.id == CV_AGAIN; at += step) {
        size_t len = size - at < step ? size - at : step;
        uint8_t *copy = malloc(len);
        if (!copy)
            break;
        memcpy(copy, data + at, len);
        cv_ws_feed(ws, copy, len);
        struct cv_ws_event event;
        while (cv_is_ok(status = cv_ws_next(ws, &event))) {
            if (event.type == CV_WS_EVENT_DATA)
                (void)cv_ws_send(ws, &out, event.opcode,
                                 CV_WS_COMPRESS | (event.is_final ? CV_WS_FIN : 0), event.data)
                    .id;
            else if (event.type == CV_WS_EVENT_PING)
                (void)cv_ws_answer_ping(ws, &out).id;
            else if (event.type == CV_WS_EVENT_CLOSE)
                (void)cv_ws_send_close(ws, &out, event.code, event.data).id;
        }
        free(copy);
        if (choice & 64)
            cv_buf_consume(&out, cv_buf_len(&out));
    }
    if (ws && status.id != CV_AGAIN)
        (void)cv_ws_send_close(ws, &out, cv_ws_failure_code(ws),
                               cv_slice_str(cv_ws_failure_text(ws)))
            .id;
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    if (data[0] & 128)
        fuzz_fields(cv_slice(data + 1, size - 1));
    else
        fuzz_frames(data[0], data[1] ? data[1] : 1U << 16, data + 2, size - 2);
    return 0;
}
