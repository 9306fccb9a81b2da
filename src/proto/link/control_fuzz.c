/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a control message of a link. What is accepted is within its bounds, free of control
 * characters, and survives being written and read again.
 */
#include "base/fuzz.h"
#include "proto/link/control.h"

static void check_text(const char *text, size_t cap)
{
    size_t len = strnlen(text, cap);
    cv_fuzz_must(len < cap);
    for (size_t i = 0; i < len; i++)
        cv_fuzz_must((unsigned char)text[i] >= ' ' && text[i] != 0x7f);
}

static void check_same(const struct cv_link_control *a, const struct cv_link_control *b)
{
    cv_fuzz_must(a->type == b->type);
    if (a->type == CV_LINK_ACK) {
        cv_fuzz_must(a->received == b->received);
        return;
    }
    cv_fuzz_must(a->after_ms == b->after_ms);
    cv_fuzz_must(strcmp(a->code, b->code) == 0 && strcmp(a->tunnel, b->tunnel) == 0);
    cv_fuzz_must(strcmp(a->message, b->message) == 0 && strcmp(a->token, b->token) == 0);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    uint64_t random = seed * 2ULL + 1;
    return cv_fuzz_json(data, size, max_size, &random);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cv_link_control none;
    struct cv_link_control control, again;
    struct cv_status status = cv_link_control_decode(cv_slice(data, size), &control);
    cv_fuzz_must(cv_is_ok(status) || status.id == CV_WS_POLICY || status.id == CV_AGAIN ||
                 status.id == CV_NO_MEMORY);
    if (!cv_is_ok(status))
        return 0;
    cv_fuzz_must(size <= CV_LINK_CONTROL_MAX && control.type < CV_LINK_CONTROL_COUNT);
    check_text(control.code, sizeof control.code);
    check_text(control.tunnel, sizeof control.tunnel);
    check_text(control.message, sizeof control.message);
    check_text(control.token, sizeof control.token);

    struct cv_buf out;
    cv_buf_init(&out, 1 << 18);
    cv_fuzz_must(cv_is_ok(cv_link_control_encode(&control, &out)));
    again = none;
    cv_fuzz_must(cv_is_ok(cv_link_control_decode(cv_buf_slice(&out), &again)));
    check_same(&control, &again);
    cv_buf_done(&out);
    return 0;
}
