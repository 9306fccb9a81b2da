/* SPDX-License-Identifier: MIT
 *
 * permessage-deflate: what is agreed, and what then goes over the wire.
 */
#include "proto/ws/ws_codec.h"
#include "proto/ws/ws_testing.h"

/* ---- agreement ---- */

static struct cv_ws_deflate_params wish(void)
{
    struct cv_ws_deflate_params params;
    cv_ws_deflate_params_init(&params);
    return params;
}

static void offers_are_answered_as_rfc_7692_says(void **state)
{
    (void)state;
    static const struct {
        const char *offers, *response;
    } cases[] = {
        {"", ""},
        {"x-webkit-deflate-frame", ""},
        {"permessage-deflate", "permessage-deflate"},
        {"Permessage-Deflate ; CLIENT_max_window_bits", "permessage-deflate"},
        {"permessage-deflate; client_max_window_bits=10",
         "permessage-deflate; client_max_window_bits=10"},
        {"permessage-deflate; client_max_window_bits=\"10\"",
         "permessage-deflate; client_max_window_bits=10"},
        {"permessage-deflate; server_max_window_bits=15",
         "permessage-deflate; server_max_window_bits=15"},
        {"permessage-deflate; server_max_window_bits=8",
         "permessage-deflate; server_max_window_bits=8"},
        {"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
         "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
        /* What cannot be accepted is passed over for the next offer. */
        {"permessage-deflate; server_max_window_bits=7, permessage-deflate", "permessage-deflate"},
        {"permessage-deflate; server_max_window_bits=16", ""},
        {"permessage-deflate; server_max_window_bits=09", ""},
        {"permessage-deflate; server_max_window_bits", ""},
        {"permessage-deflate; client_max_window_bits=99999999999999999999", ""},
        {"permessage-deflate; server_no_context_takeover=1", ""},
        {"permessage-deflate; client_no_context_takeover; client_no_context_takeover", ""},
        {"permessage-deflate; client_max_window_bits; client_max_window_bits=9", ""},
        {"permessage-deflate; unknown", ""},
        {"permessage-bzip2; x=1, permessage-deflate; unknown=\"a\", "
         "permessage-deflate; server_max_window_bits=9, permessage-deflate",
         "permessage-deflate; server_max_window_bits=9"},
    };
    struct cv_ws_deflate_params want = wish(), agreed;
    char response[CV_WS_DEFLATE_TEXT_SIZE];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_ok(cv_ws_deflate_negotiate(cv_slice_str(cases[i].offers), &want, &agreed, response));
        assert_string_equal(response, cases[i].response);
        assert_int_equal(agreed.is_enabled, response[0] != 0);
    }
    want.is_enabled = false;
    assert_ok(
        cv_ws_deflate_negotiate(cv_slice_str("permessage-deflate"), &want, &agreed, response));
    assert_string_equal(response, "");
}

static void malformed_extensions_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"permessage-deflate;",
                                      "permessage-deflate; =9",
                                      "permessage-deflate; a=",
                                      "permessage-deflate; a=\"",
                                      "permessage deflate",
                                      ";",
                                      "permessage-deflate; a=\"b",
                                      "a=b",
                                      "permessage-deflate; a=\"b c\"",
                                      "permessage-deflate, \x01",
                                      "permessage-deflate; a b"};
    struct cv_ws_deflate_params want = wish(), agreed;
    char response[CV_WS_DEFLATE_TEXT_SIZE];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_status(cv_ws_deflate_negotiate(cv_slice_str(bad[i]), &want, &agreed, response),
                      CV_WS_UPGRADE);
        assert_false(agreed.is_enabled);
        assert_string_equal(response, "");
        assert_status(cv_ws_deflate_accept(cv_slice_str(bad[i]), &want, &agreed), CV_WS_UPGRADE);
    }
    static char long_field[5000];
    memset(long_field, ',', sizeof long_field);
    assert_status(
        cv_ws_deflate_negotiate(cv_slice(long_field, sizeof long_field), &want, &agreed, response),
        CV_WS_UPGRADE);
}

static void a_server_asks_for_what_it_wants_where_it_may(void **state)
{
    (void)state;
    struct cv_ws_deflate_params want = wish(), agreed;
    want.server_no_context_takeover = want.client_no_context_takeover = true;
    want.server_max_window_bits = 11;
    want.client_max_window_bits = 10;
    char response[CV_WS_DEFLATE_TEXT_SIZE];
    assert_ok(
        cv_ws_deflate_negotiate(cv_slice_str("permessage-deflate"), &want, &agreed, response));
    assert_string_equal(response, "permessage-deflate; server_no_context_takeover; "
                                  "client_no_context_takeover; server_max_window_bits=11");
    assert_int_equal(agreed.client_max_window_bits, 15); /* the client cannot be told */
    assert_ok(cv_ws_deflate_negotiate(
        cv_slice_str("permessage-deflate; client_max_window_bits; server_max_window_bits=9"), &want,
        &agreed, response));
    assert_string_equal(response, "permessage-deflate; server_no_context_takeover; "
                                  "client_no_context_takeover; server_max_window_bits=9; "
                                  "client_max_window_bits=10");
}

static void responses_must_answer_the_offer(void **state)
{
    (void)state;
    struct cv_ws_deflate_params want = wish(), agreed;
    static const char *const bad[] = {
        "permessage-deflate, permessage-deflate",
        "permessage-bzip2",
        "permessage-deflate; unknown",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_status(cv_ws_deflate_accept(cv_slice_str(bad[i]), &want, &agreed), CV_WS_UPGRADE);
        assert_false(agreed.is_enabled);
    }
    assert_ok(cv_ws_deflate_accept(cv_slice_str(""), &want, &agreed));
    assert_false(agreed.is_enabled);
    assert_ok(cv_ws_deflate_accept(
        cv_slice_str("permessage-deflate; client_max_window_bits=9; client_no_context_takeover"),
        &want, &agreed));
    assert_int_equal(agreed.client_max_window_bits, 9);
    assert_int_equal(agreed.server_max_window_bits, 15);
    assert_true(agreed.client_no_context_takeover && !agreed.server_no_context_takeover);

    want.server_no_context_takeover = true;
    assert_status(cv_ws_deflate_accept(cv_slice_str("permessage-deflate"), &want, &agreed),
                  CV_WS_UPGRADE);
    want = wish();
    want.server_max_window_bits = 10;
    assert_status(cv_ws_deflate_accept(cv_slice_str("permessage-deflate"), &want, &agreed),
                  CV_WS_UPGRADE);
    assert_status(
        cv_ws_deflate_accept(cv_slice_str("permessage-deflate; server_max_window_bits=11"), &want,
                             &agreed),
        CV_WS_UPGRADE);
    want.client_max_window_bits = 12;
    assert_status(cv_ws_deflate_accept(cv_slice_str("permessage-deflate; server_max_window_bits=9; "
                                                    "client_max_window_bits=13"),
                                       &want, &agreed),
                  CV_WS_UPGRADE);
    want.is_enabled = false;
    assert_status(cv_ws_deflate_accept(cv_slice_str("permessage-deflate"), &want, &agreed),
                  CV_WS_UPGRADE);
}

static void our_client_and_server_agree_in_every_combination(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 16 * 64; n++) {
        struct cv_ws_deflate_params c = wish(), s = wish(), at_client, at_server;
        c.client_no_context_takeover = n & 1;
        c.server_no_context_takeover = n & 2;
        s.client_no_context_takeover = n & 4;
        s.server_no_context_takeover = n & 8;
        c.server_max_window_bits = (uint8_t)(8 + (n >> 4 & 7));
        s.client_max_window_bits = (uint8_t)(8 + (n >> 7 & 7));
        char offer[CV_WS_DEFLATE_TEXT_SIZE], response[CV_WS_DEFLATE_TEXT_SIZE];
        cv_ws_deflate_offer(&c, offer);
        assert_ok(cv_ws_deflate_negotiate(cv_slice_str(offer), &s, &at_server, response));
        assert_true(at_server.is_enabled);
        assert_ok(cv_ws_deflate_accept(cv_slice_str(response), &c, &at_client));
        assert_memory_equal(&at_client, &at_server, sizeof at_client);
    }
    struct cv_ws_deflate_params off = {0};
    char offer[CV_WS_DEFLATE_TEXT_SIZE];
    cv_ws_deflate_offer(&off, offer);
    assert_string_equal(offer, "");
}

/* ---- data ---- */

static struct cv_ws_options with_deflate(enum cv_ws_role role)
{
    struct cv_ws_options options;
    cv_ws_options_init(&options, role);
    cv_ws_deflate_params_init(&options.deflate);
    return options;
}

#define WIRE(text) cv_slice(text, sizeof(text) - 1)

static void examples_of_rfc_7692_section_7_2_3_are_read(void **state)
{
    (void)state;
    struct cv_ws_options c = with_deflate(CV_WS_CLIENT);
    /* One frame, and in fragments (§7.2.3.1). */
    assert_talk(&c, WIRE("\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"), "text(Hello)");
    assert_talk(&c, WIRE("\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00"), "text(Hello)");
    /* Twice with the window kept (§7.2.3.2). */
    assert_talk(&c,
                WIRE("\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"
                     "\xc1\x05\xf2\x00\x11\x00\x00"),
                "text(Hello) text(Hello)");
    /* A stored block (§7.2.3.3). */
    assert_talk(&c, WIRE("\xc1\x0b\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"), "text(Hello)");
    /* A final block (§7.2.3.4), and two blocks (§7.2.3.5). */
    assert_talk(&c, WIRE("\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), "text(Hello)");
    assert_talk(&c, WIRE("\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"),
                "text(Hello)");
    /* Empty (§7.2.3.6), also in the form some peers send. */
    assert_talk(&c, WIRE("\xc1\x01\x00\xc1\x00\xc1\x01\x00"), "text() text() text()");
    /* A control frame and plain messages in between. */
    assert_talk(&c,
                WIRE("\x41\x03\xf2\x48\xcd\x89\x00\x80\x04\xc9\xc9\x07\x00\x81\x01x"
                     "\xc1\x05\xf2\x00\x11\x00\x00"),
                "ping() text(Hello) text(x) text(Hello)");
}

static void a_final_block_without_its_padding_is_read_too(void **state)
{
    (void)state;
    struct cv_ws_options c = with_deflate(CV_WS_CLIENT);
    /* What zlib's Z_FINISH gives; then a message that looks back over it. */
    assert_talk(&c,
                WIRE("\xc1\x07\xf3\x48\xcd\xc9\xc9\x07\x00"
                     "\xc1\x05\xf2\x00\x11\x00\x00"),
                "text(Hello) text(Hello)");
}

static void rsv1_is_refused_where_it_means_nothing(void **state)
{
    (void)state;
    struct cv_ws_options c = with_deflate(CV_WS_CLIENT);
    assert_talk(&c, WIRE("\x41\x00\xc0\x00"), "fail(WS_PROTOCOL)");
    assert_talk(&c, WIRE("\xc9\x00"), "fail(WS_PROTOCOL)");
    assert_talk(&c, WIRE("\xc8\x00"), "fail(WS_PROTOCOL)");
    assert_talk(&c, WIRE("\xe1\x00"), "fail(WS_PROTOCOL)");
}

static void damaged_data_is_refused(void **state)
{
    (void)state;
    struct cv_ws_options c = with_deflate(CV_WS_CLIENT);
    assert_talk(&c, WIRE("\xc2\x02\xff\xff"), "fail(WS_PROTOCOL)");             /* block type 3 */
    assert_talk(&c, WIRE("\xc2\x05\xf2\x00\x11\x00\x00"), "fail(WS_PROTOCOL)"); /* too far back */
    assert_talk(&c, WIRE("\xc2\x03\xf2\x48\xcd"), "fail(WS_PROTOCOL)"); /* cut inside a block */
    assert_talk(&c, WIRE("\xc2\x07\x00\x05\x00\xfa\xff\x48\x65"), "fail(WS_PROTOCOL)");
    /* Without takeover the second message may not look back. */
    c.deflate.server_no_context_takeover = true;
    assert_talk(&c,
                WIRE("\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"
                     "\xc1\x05\xf2\x00\x11\x00\x00"),
                "text(Hello) fail(WS_PROTOCOL)");
}

static void inflated_text_is_checked_as_utf8(void **state)
{
    (void)state;
    struct cv_ws_options c = with_deflate(CV_WS_CLIENT);
    assert_talk(&c, WIRE("\xc1\x08\x00\x02\x00\xfd\xff\xc3\x28\x00"), "fail(WS_BAD_UTF8)");
    assert_talk(&c, WIRE("\xc1\x07\x00\x01\x00\xfe\xff\xc3\x00"), "fail(WS_BAD_UTF8)");
}

/* Sends `data` as messages of `frame` bytes a frame and checks that the peer has it again. */
static void exchange(struct cv_ws *from, struct talk *to, struct cv_slice data, size_t frame,
                     size_t step)
{
    struct cv_buf out;
    cv_buf_init(&out, TEST_CAP);
    size_t at = 0;
    bool is_final;
    do {
        size_t len = data.len - at < frame ? data.len - at : frame;
        is_final = at + len == data.len;
        assert_ok(cv_ws_send(from, &out, CV_WS_TEXT, CV_WS_COMPRESS | (is_final ? CV_WS_FIN : 0),
                             cv_slice(data.data + at, len)));
        at += len;
    } while (!is_final);
    assert_status(talk_feed(to, bytes_of(&out), step), CV_AGAIN);
    assert_int_equal(cv_buf_len(&to->said), data.len + strlen("text()"));
    assert_memory_equal(cv_buf_head(&to->said) + 5, data.data, data.len);
    cv_buf_consume(&to->said, cv_buf_len(&to->said));
    cv_buf_done(&out);
}

static void every_combination_of_parameters_carries_messages_both_ways(void **state)
{
    (void)state;
    static char text[60000];
    uint64_t seed = 7;
    for (size_t i = 0; i < sizeof text; i++) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        text[i] =
            i % 3000 < 1500 ? "the same again and again "[i % 25] : (char)(' ' + (seed >> 33) % 90);
    }
    static const size_t sizes[] = {0, 0, 1, 5, 300, 0, 60000, 16384, 1};
    static const uint8_t bits[] = {8, 9, 10, 15};
    for (unsigned n = 0; n < 64; n++) {
        struct cv_ws_options options = with_deflate(CV_WS_SERVER);
        options.deflate.server_no_context_takeover = n & 1;
        options.deflate.client_no_context_takeover = n & 2;
        options.deflate.server_max_window_bits = bits[n >> 2 & 3];
        options.deflate.client_max_window_bits = bits[n >> 4 & 3];
        struct talk server, client;
        talk_init(&server, &options);
        options.role = CV_WS_CLIENT;
        talk_init(&client, &options);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            exchange(client.ws, &server, cv_slice(text, sizes[i]), i & 1 ? 7000 : 100000, 1000);
            exchange(server.ws, &client, cv_slice(text, sizes[i]), i & 1 ? 7000 : 100000, 100000);
        }
        talk_done(&server);
        talk_done(&client);
    }
}

static void a_window_of_eight_bits_is_never_exceeded(void **state)
{
    (void)state;
    /* Text that repeats every 300 bytes: a match would reach back further than 256. An inflater
     * with a window of just 256 bytes must do. */
    char text[3000];
    uint64_t seed = 5;
    for (size_t i = 0; i < sizeof text; i++) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        text[i] = i < 300 ? (char)(seed >> 40) : text[i - 300];
    }
    struct cv_ws_deflater deflater;
    cv_ws_deflater_init(&deflater, 8, true, 9);
    uint8_t packed[8000], unpacked[3000];
    z_stream inflater = {0};
    assert_int_equal(inflateInit2(&inflater, -8), Z_OK);
    for (int round = 0; round < 3; round++) {
        size_t len;
        assert_ok(cv_ws_deflater_prepare(&deflater));
        assert_ok(cv_ws_deflater_run(&deflater, cv_slice(text, sizeof text), false, packed, &len));
        /* One byte at a time, so that zlib must look into its window, not into the output. */
        inflater.next_in = packed;
        inflater.avail_in = (uInt)len;
        for (size_t i = 0; i < sizeof unpacked; i++) {
            inflater.next_out = unpacked + i;
            inflater.avail_out = 1;
            assert_int_equal(inflate(&inflater, Z_SYNC_FLUSH), Z_OK);
        }
        assert_memory_equal(unpacked, text, sizeof text);
    }
    (void)inflateEnd(&inflater);
    cv_ws_deflater_done(&deflater);
}

static void a_bomb_is_cut_at_the_cap(void **state)
{
    (void)state;
    struct cv_ws_options options = with_deflate(CV_WS_SERVER);
    options.deflate.server_no_context_takeover = true;
    struct cv_ws *from = cv_ws_new(&options);
    struct cv_buf out;
    cv_buf_init(&out, TEST_CAP);
    size_t size = 17 << 20;
    uint8_t *zeros = calloc(1, size);
    assert_non_null(zeros);
    assert_ok(
        cv_ws_send(from, &out, CV_WS_BINARY, CV_WS_FIN | CV_WS_COMPRESS, cv_slice(zeros, size)));
    assert_true(cv_buf_len(&out) < 20000);
    options.role = CV_WS_CLIENT;
    assert_talk(&options, cv_slice(cv_buf_head(&out), 4), "");
    struct talk talk;
    talk_init(&talk, &options);
    assert_status(talk_feed(&talk, bytes_of(&out), 5000), CV_WS_TOO_BIG);
    assert_true(cv_buf_len(&talk.message) <= options.max_inflated_bytes);
    talk_done(&talk);
    options.max_message_bytes = 1000;
    options.max_inflated_bytes = 1 << 30;
    options.max_frame_bytes = 1 << 30;
    talk_init(&talk, &options);
    cv_buf_consume(&out, cv_buf_len(&out));
    assert_ok(
        cv_ws_send(from, &out, CV_WS_BINARY, CV_WS_FIN | CV_WS_COMPRESS, cv_slice(zeros, 1001)));
    assert_status(talk_feed(&talk, bytes_of(&out), 5000), CV_WS_TOO_BIG);
    talk_done(&talk);
    free(zeros);
    cv_buf_done(&out);
    cv_ws_free(&from);
}

static void compression_is_by_choice_and_needs_room(void **state)
{
    (void)state;
    struct cv_ws_options options = with_deflate(CV_WS_SERVER);
    struct cv_ws *ws = cv_ws_new(&options);
    struct cv_buf out;
    cv_buf_init(&out, cv_ws_frame_room(10));
    assert_ok(cv_ws_send(ws, &out, CV_WS_TEXT, CV_WS_FIN, cv_slice_str("0123456789")));
    assert_int_equal(cv_buf_head(&out)[0], 0x81);
    assert_status(
        cv_ws_send(ws, &out, CV_WS_TEXT, CV_WS_FIN | CV_WS_COMPRESS, cv_slice_str("0123456789")),
        CV_NO_RESOURCES);
    cv_buf_consume(&out, cv_buf_len(&out));
    assert_ok(
        cv_ws_send(ws, &out, CV_WS_TEXT, CV_WS_FIN | CV_WS_COMPRESS, cv_slice_str("0123456789")));
    assert_int_equal(cv_buf_head(&out)[0], 0xc1);
    cv_ws_free(&ws);
    options.deflate.is_enabled = false;
    ws = cv_ws_new(&options);
    cv_buf_consume(&out, cv_buf_len(&out));
    assert_ok(cv_ws_send(ws, &out, CV_WS_TEXT, CV_WS_COMPRESS, cv_slice_str("0123456789")));
    assert_int_equal(cv_buf_head(&out)[0], 0x01);
    cv_buf_done(&out);
    cv_ws_free(&ws);
    options.deflate.is_enabled = true;
    options.deflate.server_max_window_bits = 7;
    assert_null(cv_ws_new(&options));
}

static void the_bound_holds_for_what_does_not_compress(void **state)
{
    (void)state;
    static uint8_t noise[300000];
    uint64_t seed = 99;
    for (size_t i = 0; i < sizeof noise; i++) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        noise[i] = (uint8_t)(seed >> 40);
    }
    uint8_t *to = malloc(cv_ws_deflate_bound(sizeof noise));
    assert_non_null(to);
    for (uint8_t bits = 8; bits <= 15; bits++) {
        for (int level = 1; level <= 9; level += 4) {
            struct cv_ws_deflater deflater;
            cv_ws_deflater_init(&deflater, bits, true, level);
            for (size_t len = 0; len <= sizeof noise; len = len * 2 + 1) {
                size_t packed;
                assert_ok(cv_ws_deflater_prepare(&deflater));
                assert_ok(
                    cv_ws_deflater_run(&deflater, cv_slice(noise, len), len % 3, to, &packed));
                assert_true(packed < cv_ws_deflate_bound(len));
            }
            cv_ws_deflater_done(&deflater);
        }
    }
    free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_extensions_are_refused),
        cmocka_unit_test(offers_are_answered_as_rfc_7692_says),
        cmocka_unit_test(a_server_asks_for_what_it_wants_where_it_may),
        cmocka_unit_test(responses_must_answer_the_offer),
        cmocka_unit_test(our_client_and_server_agree_in_every_combination),
        cmocka_unit_test(rsv1_is_refused_where_it_means_nothing),
        cmocka_unit_test(damaged_data_is_refused),
        cmocka_unit_test(inflated_text_is_checked_as_utf8),
        cmocka_unit_test(a_bomb_is_cut_at_the_cap),
        cmocka_unit_test(examples_of_rfc_7692_section_7_2_3_are_read),
        cmocka_unit_test(a_final_block_without_its_padding_is_read_too),
        cmocka_unit_test(every_combination_of_parameters_carries_messages_both_ways),
        cmocka_unit_test(a_window_of_eight_bits_is_never_exceeded),
        cmocka_unit_test(compression_is_by_choice_and_needs_room),
        cmocka_unit_test(the_bound_holds_for_what_does_not_compress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
