/* SPDX-License-Identifier: MIT
 *
 * What the tests of this folder share: raw frames, and an engine whose events become one line of
 * text, so that a whole conversation is compared at once:
 *     text(Hello) binary(6 bytes) ping(x) pong() close(1000,bye) fail(WS_PROTOCOL)
 */
#ifndef CV_PROTO_WS_WS_TESTING_H
#define CV_PROTO_WS_WS_TESTING_H

#include "base/test.h"
#include "proto/ws/ws.h"
#include "proto/ws/ws_frame.h"

enum { TEST_CAP = 64 << 20 };

static inline struct cv_slice bytes_of(const struct cv_buf *buf)
{
    return cv_buf_slice(buf);
}

/* Appends a frame as a peer of `role` sends it: a client masks. */
static inline void put_raw(struct cv_buf *wire, enum cv_ws_role role, unsigned first,
                           struct cv_slice payload)
{
    static const uint8_t mask[CV_WS_MASK_LEN] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t head[CV_WS_HEAD_MAX];
    const uint8_t *key = role == CV_WS_CLIENT ? mask : NULL;
    size_t size = cv_ws_head_write(head, (uint8_t)first, payload.len, key);
    assert_ok(cv_buf_append(wire, head, size));
    if (payload.len == 0)
        return;
    uint8_t *to = cv_buf_reserve(wire, payload.len);
    assert_non_null(to);
    if (key)
        cv_ws_mask(to, payload.data, payload.len, key, 0);
    else
        memcpy(to, payload.data, payload.len);
    cv_buf_commit(wire, payload.len);
}

static inline void put_raw_str(struct cv_buf *wire, enum cv_ws_role role, unsigned first,
                               const char *payload)
{
    put_raw(wire, role, first, cv_slice_str(payload));
}

/* A receiver and what it said. */
struct talk {
    struct cv_ws *ws;
    struct cv_buf message; /* the open message */
    struct cv_buf said;
};

static inline void talk_init(struct talk *talk, const struct cv_ws_options *options)
{
    talk->ws = cv_ws_new(options);
    assert_non_null(talk->ws);
    cv_buf_init(&talk->message, TEST_CAP);
    cv_buf_init(&talk->said, TEST_CAP);
}

static inline void talk_done(struct talk *talk)
{
    cv_ws_free(&talk->ws);
    cv_buf_done(&talk->message);
    cv_buf_done(&talk->said);
}

static inline void talk_note(struct talk *talk, const struct cv_ws_event *event)
{
    const char *between = cv_buf_len(&talk->said) ? " " : "";
    int len = (int)event->data.len;
    const char *data = (const char *)event->data.data;
    switch (event->type) {
    case CV_WS_EVENT_DATA:
        assert_ok(cv_buf_append_slice(&talk->message, event->data));
        if (!event->is_final)
            return;
        if (event->opcode == CV_WS_TEXT)
            assert_ok(cv_buf_printf(
                &talk->said, "%stext(%.*s)", between, (int)cv_buf_len(&talk->message),
                cv_buf_len(&talk->message) ? (const char *)cv_buf_head(&talk->message) : ""));
        else
            assert_ok(cv_buf_printf(&talk->said, "%sbinary(%zu bytes)", between,
                                    cv_buf_len(&talk->message)));
        cv_buf_consume(&talk->message, cv_buf_len(&talk->message));
        return;
    case CV_WS_EVENT_PING:
        assert_ok(cv_buf_printf(&talk->said, "%sping(%.*s)", between, len, data));
        return;
    case CV_WS_EVENT_PONG:
        assert_ok(cv_buf_printf(&talk->said, "%spong(%.*s)", between, len, data));
        return;
    case CV_WS_EVENT_CLOSE:
        assert_ok(cv_buf_printf(&talk->said, "%sclose(%d,%.*s)", between, event->code, len, data));
        return;
    }
}

/* Feeds a copy of `wire`, `step` bytes at a time, until it ends or fails. */
static inline struct cv_status talk_feed(struct talk *talk, struct cv_slice wire, size_t step)
{
    struct cv_status status = cv_status(CV_AGAIN);
    for (size_t at = 0; at < wire.len && status.id == CV_AGAIN; at += step) {
        size_t len = wire.len - at < step ? wire.len - at : step;
        uint8_t *copy = malloc(len); /* of its own, so that reading past it is seen */
        assert_non_null(copy);
        memcpy(copy, wire.data + at, len);
        cv_ws_feed(talk->ws, copy, len);
        struct cv_ws_event event;
        while (cv_is_ok(status = cv_ws_next(talk->ws, &event)))
            talk_note(talk, &event);
        free(copy);
    }
    if (status.id != CV_AGAIN)
        assert_ok(cv_buf_printf(&talk->said, "%sfail(%s)", cv_buf_len(&talk->said) ? " " : "",
                                cv_status_name(status.id)));
    return status;
}

static inline void assert_said(struct talk *talk, const char *want)
{
    assert_ok(cv_buf_append_byte(&talk->said, 0));
    assert_string_equal((const char *)cv_buf_head(&talk->said), want);
    cv_buf_consume(&talk->said, cv_buf_len(&talk->said));
}

/* A receiver with `options` says `want` to `wire`, however the bytes are cut. */
static inline void assert_talk(const struct cv_ws_options *options, struct cv_slice wire,
                               const char *want)
{
    size_t steps[] = {1, 2, 3, 5, 7, wire.len ? wire.len : 1};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct talk talk;
        talk_init(&talk, options);
        (void)talk_feed(&talk, wire, steps[i]);
        assert_said(&talk, want);
        talk_done(&talk);
    }
}

#endif
