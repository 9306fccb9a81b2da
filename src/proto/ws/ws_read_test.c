/* SPDX-License-Identifier: MIT
 *
 * Receiving: what the wire says and what the engine makes of it.
 */
#include "base/bytes.h"
#include "proto/ws/ws_testing.h"
#include "proto/ws/ws_utf8.h"

static struct cv_ws_options server(void)
{
    struct cv_ws_options options;
    cv_ws_options_init(&options, CV_WS_SERVER);
    return options;
}

static struct cv_ws_options client(void)
{
    struct cv_ws_options options;
    cv_ws_options_init(&options, CV_WS_CLIENT);
    return options;
}

#define WIRE(text) cv_slice(text, sizeof(text) - 1)

static void examples_of_rfc_6455_section_5_7_are_read(void **state)
{
    (void)state;
    struct cv_ws_options c = client(), s = server();
    assert_talk(&c, WIRE("\x81\x05Hello"), "text(Hello)");
    assert_talk(&s, WIRE("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), "text(Hello)");
    assert_talk(&c, WIRE("\x01\x03Hel\x80\x02lo"), "text(Hello)");
    assert_talk(&c, WIRE("\x89\x05Hello"), "ping(Hello)");
    assert_talk(&s, WIRE("\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), "pong(Hello)");
    struct cv_buf wire;
    cv_buf_init(&wire, TEST_CAP);
    uint8_t zeros[65536] = {0};
    put_raw(&wire, CV_WS_SERVER, 0x82, cv_slice(zeros, 256));
    assert_memory_equal(cv_buf_head(&wire), "\x82\x7e\x01\x00", 4);
    assert_talk(&c, bytes_of(&wire), "binary(256 bytes)");
    cv_buf_done(&wire);
    put_raw(&wire, CV_WS_SERVER, 0x82, cv_slice(zeros, 65536));
    assert_memory_equal(cv_buf_head(&wire), "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10);
    assert_talk(&c, bytes_of(&wire), "binary(65536 bytes)");
    cv_buf_done(&wire);
}

static void every_split_in_three_gives_the_same_events(void **state)
{
    (void)state;
    struct cv_ws_options s = server();
    struct cv_buf wire;
    cv_buf_init(&wire, TEST_CAP);
    put_raw_str(&wire, CV_WS_CLIENT, 0x01, "H\xc3\xa9l");
    put_raw_str(&wire, CV_WS_CLIENT, 0x89, "in between");
    put_raw_str(&wire, CV_WS_CLIENT, 0x00, "");
    put_raw_str(&wire, CV_WS_CLIENT, 0x80, "lo");
    put_raw_str(&wire, CV_WS_CLIENT, 0x82, "");
    put_raw_str(&wire, CV_WS_CLIENT, 0x8a, "");
    put_raw_str(&wire, CV_WS_CLIENT, 0x88,
                "\x03\xe8"
                "bye");
    put_raw_str(&wire, CV_WS_CLIENT, 0x81, "never seen");
    struct cv_slice all = bytes_of(&wire);
    for (size_t i = 1; i < all.len; i++) {
        for (size_t j = i; j < all.len; j++) {
            struct talk talk;
            talk_init(&talk, &s);
            (void)talk_feed(&talk, cv_slice(all.data, i), i);
            if (j > i)
                (void)talk_feed(&talk, cv_slice(all.data + i, j - i), j - i);
            (void)talk_feed(&talk, cv_slice(all.data + j, all.len - j), all.len - j);
            assert_said(
                &talk,
                "ping(in between) text(H\xc3\xa9llo) binary(0 bytes) pong() close(1000,bye)");
            assert_int_equal(cv_ws_state(talk.ws), CV_WS_CLOSE_RECEIVED);
            talk_done(&talk);
        }
    }
    cv_buf_done(&wire);
}

static void payload_is_delivered_before_its_frame_is_complete(void **state)
{
    (void)state;
    struct cv_ws_options c = client();
    struct cv_ws *ws = cv_ws_new(&c);
    uint8_t part[] = "\x02\x0a"
                     "abc";
    cv_ws_feed(ws, part, 5);
    struct cv_ws_event event;
    assert_ok(cv_ws_next(ws, &event));
    assert_true(cv_slice_is(event.data, "abc"));
    assert_true(event.is_first);
    assert_false(event.is_final);
    assert_status(cv_ws_next(ws, &event), CV_AGAIN);
    uint8_t rest[] = "defghij\x80\x00";
    cv_ws_feed(ws, rest, 9);
    assert_ok(cv_ws_next(ws, &event));
    assert_true(cv_slice_is(event.data, "defghij"));
    assert_false(event.is_first || event.is_final);
    assert_ok(cv_ws_next(ws, &event));
    assert_int_equal(event.data.len, 0);
    assert_true(event.is_final);
    assert_status(cv_ws_next(ws, &event), CV_AGAIN);
    cv_ws_free(&ws);
}

/* One frame of the wrong kind after "ok", and how it must end. */
static void bad_frames_fail_with_their_reason(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        const char *want;
    } from_server[] = {
#define CASE(bytes, want) {bytes, sizeof(bytes) - 1, want}
        CASE("\xc1\x00", "fail(WS_PROTOCOL)"), /* RSV1 without an extension */
        CASE("\xa1\x00", "fail(WS_PROTOCOL)"), /* RSV2 */
        CASE("\x91\x00", "fail(WS_PROTOCOL)"), /* RSV3 */
        CASE("\x83\x00", "fail(WS_PROTOCOL)"), /* opcodes 3–7, B–F */
        CASE("\x84\x00", "fail(WS_PROTOCOL)"),
        CASE("\x85\x00", "fail(WS_PROTOCOL)"),
        CASE("\x86\x00", "fail(WS_PROTOCOL)"),
        CASE("\x87\x00", "fail(WS_PROTOCOL)"),
        CASE("\x8b\x00", "fail(WS_PROTOCOL)"),
        CASE("\x8c\x00", "fail(WS_PROTOCOL)"),
        CASE("\x8d\x00", "fail(WS_PROTOCOL)"),
        CASE("\x8e\x00", "fail(WS_PROTOCOL)"),
        CASE("\x8f\x00", "fail(WS_PROTOCOL)"),
        CASE("\x81\x80", "fail(WS_PROTOCOL)"),                     /* masked server frame */
        CASE("\x09\x00", "fail(WS_PROTOCOL)"),                     /* fragmented ping */
        CASE("\x08\x00", "fail(WS_PROTOCOL)"),                     /* fragmented close */
        CASE("\x89\x7e", "fail(WS_PROTOCOL)"),                     /* ping over 125 */
        CASE("\x88\x7f", "fail(WS_PROTOCOL)"),                     /* close over 125 */
        CASE("\x80\x00", "fail(WS_PROTOCOL)"),                     /* stray continuation */
        CASE("\x00\x00", "fail(WS_PROTOCOL)"),                     /* the same, not final */
        CASE("\x01\x00\x81\x00", "fail(WS_PROTOCOL)"),             /* text inside text */
        CASE("\x02\x00\x01\x00", "fail(WS_PROTOCOL)"),             /* text inside binary */
        CASE("\x82\x7e\x00\x7d", "fail(WS_PROTOCOL)"),             /* 125 in 16 bits */
        CASE("\x82\x7f\0\0\0\0\0\0\xff\xff", "fail(WS_PROTOCOL)"), /* 65535 in 64 bits */
        CASE("\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "fail(WS_PROTOCOL)"), /* over 2^63-1 */
        CASE("\x82\x7f\x80\0\0\0\0\0\0\0", "fail(WS_PROTOCOL)"),               /* 2^63 */
        CASE("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", "fail(WS_TOO_BIG)"),  /* 2^63-1 */
        CASE("\x82\x7f\0\0\0\0\x80\0\0\0", "fail(WS_TOO_BIG)"),                /* 2 GiB */
        CASE("\x82\x7f\0\0\0\0\0\x10\0\x01", "fail(WS_TOO_BIG)"),              /* 1 MiB + 1 */
        CASE("\x82\x7f\0\0\0\0\0\x10\0\0", ""),                                /* 1 MiB */
        CASE("\x88\x01\x03", "fail(WS_PROTOCOL)"),                             /* half a code */
        CASE("\x88\x04\x03\xe8\xc3\x28", "fail(WS_BAD_UTF8)"),
        CASE("\x88\x03\x03\xe8\xc3", "fail(WS_BAD_UTF8)"),
        CASE("\x81\x01\xff", "fail(WS_BAD_UTF8)"),
        CASE("\x81\x01\xc3", "fail(WS_BAD_UTF8)"),         /* ends inside a character */
        CASE("\x01\x03\xed\xa0\x80", "fail(WS_BAD_UTF8)"), /* surrogate, message not over */
        CASE("\x01\x02\xf4\x90", "fail(WS_BAD_UTF8)"),     /* above U+10FFFF, at its second byte */
#undef CASE
    };
    struct cv_ws_options c = client();
    for (size_t i = 0; i < sizeof from_server / sizeof from_server[0]; i++)
        assert_talk(&c, cv_slice(from_server[i].bytes, from_server[i].len), from_server[i].want);
    struct cv_ws_options s = server();
    assert_talk(&s, WIRE("\x81\x05"), "fail(WS_PROTOCOL)"); /* unmasked client frame */
    assert_talk(&s, WIRE("\x88\x00"), "fail(WS_PROTOCOL)");
}

static void a_failure_is_kept_with_code_and_text(void **state)
{
    (void)state;
    struct cv_ws_options c = client();
    struct talk talk;
    talk_init(&talk, &c);
    assert_int_equal(cv_ws_failure_code(talk.ws), CV_WS_NO_CODE);
    assert_status(talk_feed(&talk, WIRE("\x82\x7f\0\0\0\0\x80\0\0\0 more"), 100), CV_WS_TOO_BIG);
    assert_int_equal(cv_ws_failure_code(talk.ws), 1009);
    assert_string_equal(cv_ws_failure_text(talk.ws), "frame over the limit");
    assert_int_equal(cv_ws_state(talk.ws), CV_WS_FAILED);
    assert_status(talk_feed(&talk, WIRE("\x81\x00"), 100), CV_WS_TOO_BIG);
    assert_said(&talk, "fail(WS_TOO_BIG) fail(WS_TOO_BIG)");
    talk_done(&talk);
}

static void close_codes_are_those_of_the_registry(void **state)
{
    (void)state;
    static const unsigned bad[] = {0,    1,    999,  1004, 1005, 1006, 1015,
                                   1016, 1100, 2000, 2999, 5000, 65535};
    static const unsigned good[] = {1000, 1001, 1002, 1003, 1007, 1008, 1009,
                                    1010, 1011, 1012, 1013, 1014, 3000, 4999};
    struct cv_ws_options c = client();
    uint8_t frame[4] = {0x88, 2};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cv_put_u16(frame + 2, (uint16_t)bad[i]);
        assert_talk(&c, cv_slice(frame, 4), "fail(WS_PROTOCOL)");
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char want[32];
        (void)snprintf(want, sizeof want, "close(%u,)", good[i]);
        cv_put_u16(frame + 2, (uint16_t)good[i]);
        assert_talk(&c, cv_slice(frame, 4), want);
    }
    assert_talk(&c, WIRE("\x88\x00"), "close(1005,)");
}

static void text_and_binary_can_be_refused(void **state)
{
    (void)state;
    struct cv_ws_options c = client();
    c.accepts_text = false;
    assert_talk(&c, WIRE("\x82\x01x\x81\x01x"), "binary(1 bytes) fail(WS_UNSUPPORTED)");
    c.accepts_text = true;
    c.accepts_binary = false;
    assert_talk(&c, WIRE("\x81\x01x\x02\x01x"), "text(x) fail(WS_UNSUPPORTED)");
}

static void messages_and_fragments_are_capped(void **state)
{
    (void)state;
    struct cv_ws_options c = client();
    c.max_message_bytes = 5;
    assert_talk(&c,
                WIRE("\x01\x03"
                     "abc\x80\x02"
                     "de"),
                "text(abcde)");
    assert_talk(&c,
                WIRE("\x01\x03"
                     "abc\x00\x03"),
                "fail(WS_TOO_BIG)");
    c.max_message_bytes = 0;
    c.max_fragments = 3;
    assert_talk(&c, WIRE("\x01\x00\x00\x00\x80\x00\x01\x00\x00\x00\x80\x00"), "text() text()");
    assert_talk(&c, WIRE("\x01\x00\x00\x00\x00\x00\x00\x00"), "fail(WS_POLICY)");
}

static void a_flood_of_empty_fragments_ends_at_the_default_cap(void **state)
{
    (void)state;
    struct cv_ws_options s = server();
    struct cv_buf wire;
    cv_buf_init(&wire, TEST_CAP);
    put_raw_str(&wire, CV_WS_CLIENT, 0x02, "");
    for (int i = 0; i < 100000; i++)
        put_raw_str(&wire, CV_WS_CLIENT, 0x00, "");
    struct talk talk;
    talk_init(&talk, &s);
    assert_status(talk_feed(&talk, bytes_of(&wire), 16384), CV_WS_POLICY);
    assert_int_equal(cv_ws_failure_code(talk.ws), 1008);
    talk_done(&talk);
    cv_buf_done(&wire);
}

static void utf8_agrees_with_the_definition_for_every_short_sequence(void **state)
{
    (void)state;
    /* RFC 3629 §3 read literally: decode, then refuse overlong, surrogate and too large. */
    for (unsigned n = 0; n < 1U << 24; n++) {
        uint8_t b[4] = {(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), 0x80};
        size_t len;
        uint32_t code, least;
        if (b[0] < 0x80)
            continue;
        if ((b[0] & 0xE0) == 0xC0) {
            len = 2;
            code = b[0] & 0x1F;
            least = 0x80;
        } else if ((b[0] & 0xF0) == 0xE0) {
            len = 3;
            code = b[0] & 0x0F;
            least = 0x800;
        } else if ((b[0] & 0xF8) == 0xF0) {
            len = 4;
            code = b[0] & 0x07;
            least = 0x10000;
        } else {
            len = 1;
            code = 0;
            least = 1;
        }
        bool is_valid = true;
        for (size_t i = 1; i < len; i++) {
            is_valid = is_valid && (b[i] & 0xC0) == 0x80;
            code = code << 6 | (b[i] & 0x3F);
        }
        is_valid =
            is_valid && code >= least && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
        struct cv_ws_utf8 utf8 = {0};
        bool got = cv_ws_utf8_feed(&utf8, cv_slice(b, len)) && cv_ws_utf8_is_complete(&utf8);
        if (got != is_valid)
            fail_msg("%02x %02x %02x %02x: %d", b[0], b[1], b[2], b[3], got);
    }
}

static void utf8_is_the_same_however_long_the_ascii_before_it(void **state)
{
    (void)state;
    char text[64];
    for (size_t pad = 0; pad < 40; pad++) {
        memset(text, 'a', sizeof text);
        memcpy(text + pad, "\xf0\x9f\x98\x80", 4);
        struct cv_ws_utf8 utf8 = {0};
        assert_true(cv_ws_utf8_feed(&utf8, cv_slice(text, sizeof text)));
        assert_true(cv_ws_utf8_is_complete(&utf8));
        text[pad + 3] = 'a';
        utf8 = (struct cv_ws_utf8){0};
        assert_false(cv_ws_utf8_feed(&utf8, cv_slice(text, sizeof text)));
    }
}

static void masking_is_right_at_every_offset_and_length(void **state)
{
    (void)state;
    uint8_t from[200], to[200];
    static const uint8_t mask[4] = {1, 20, 130, 255};
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (uint8_t)(i * 7);
    for (size_t at = 0; at < 9; at++) {
        for (size_t len = 0; len < 150; len++) {
            for (uint64_t offset = 0; offset < 5; offset++) {
                memset(to, 0xEE, sizeof to);
                cv_ws_mask(to + at, from + 3, len, mask, offset);
                for (size_t i = 0; i < len; i++)
                    assert_int_equal(to[at + i], from[3 + i] ^ mask[(offset + i) % 4]);
                assert_int_equal(to[at + len], 0xEE);
            }
        }
    }
}

/* Random bytes, and valid frames with random damage: nothing but an answer may come of it. */
static void random_input_never_breaks_the_engine(void **state)
{
    (void)state;
    uint64_t seed = 20240607;
    for (int round = 0; round < 4000; round++) {
        struct cv_ws_options options = round & 1 ? server() : client();
        options.max_frame_bytes = 4096;
        if (round & 2) {
            cv_ws_deflate_params_init(&options.deflate);
            options.max_inflated_bytes = 65536;
        }
        struct cv_buf wire;
        cv_buf_init(&wire, TEST_CAP);
        for (int frames = 0; frames < 20; frames++) {
            uint8_t payload[300];
            seed = seed * 6364136223846793005U + 1442695040888963407U;
            uint64_t dice = seed >> 20;
            for (size_t i = 0; i < sizeof payload; i++)
                payload[i] = (uint8_t)(dice >> (i % 37));
            static const uint8_t firsts[] = {0x81, 0x82, 0x01, 0x02, 0x00, 0x80,
                                             0x89, 0x8a, 0x88, 0xc1, 0xc2, 0x42};
            unsigned first =
                dice % 50 == 0 ? (unsigned)(dice >> 8 & 0xFF) : firsts[(dice >> 8) % sizeof firsts];
            size_t len = first & 0x08 ? (dice >> 16) % 126 : (dice >> 16) % sizeof payload;
            put_raw(&wire, round & 1 ? CV_WS_CLIENT : CV_WS_SERVER, first, cv_slice(payload, len));
            if (dice % 70 == 0)
                cv_buf_head(&wire)[(dice >> 24) % cv_buf_len(&wire)] ^= (uint8_t)(dice >> 32);
        }
        struct talk talk;
        talk_init(&talk, &options);
        (void)talk_feed(&talk, bytes_of(&wire), 1 + seed % 400);
        talk_done(&talk);
        cv_buf_done(&wire);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_frames_fail_with_their_reason),
        cmocka_unit_test(a_failure_is_kept_with_code_and_text),
        cmocka_unit_test(text_and_binary_can_be_refused),
        cmocka_unit_test(messages_and_fragments_are_capped),
        cmocka_unit_test(a_flood_of_empty_fragments_ends_at_the_default_cap),
        cmocka_unit_test(close_codes_are_those_of_the_registry),
        cmocka_unit_test(examples_of_rfc_6455_section_5_7_are_read),
        cmocka_unit_test(every_split_in_three_gives_the_same_events),
        cmocka_unit_test(payload_is_delivered_before_its_frame_is_complete),
        cmocka_unit_test(utf8_agrees_with_the_definition_for_every_short_sequence),
        cmocka_unit_test(utf8_is_the_same_however_long_the_ascii_before_it),
        cmocka_unit_test(masking_is_right_at_every_offset_and_length),
        cmocka_unit_test(random_input_never_breaks_the_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
