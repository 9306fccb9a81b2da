/* SPDX-License-Identifier: MIT
 *
 * Every allocation of a whole conversation fails once, zlib's among them: messages in fragments and
 * compressed both ways, pings, a close. The side that had no memory says CV_NO_MEMORY, at once or,
 * for what the other side then misses, as a protocol failure; nothing leaks, nothing is half
 * written.
 */
#include "base/alloc_test.h"
#include "base/test.h"
#include "proto/ws/ws.h"

#include <string.h>
#include <zlib.h>

enum { OUT_CAP = 1 << 20, MESSAGE_LEN = 20000, ROUNDS = 3 };

/* zlib asks the C library directly, past the linker's wrapping: it is given our functions. */
int __real_deflateInit2_(z_stream *z, int level, int method, int bits, int memory, int strategy,
                         const char *version, int size);
int __real_inflateInit2_(z_stream *z, int bits, const char *version, int size);
int __wrap_deflateInit2_(z_stream *z, int level, int method, int bits, int memory, int strategy,
                         const char *version, int size);
int __wrap_inflateInit2_(z_stream *z, int bits, const char *version, int size);

static void *take(void *arg, unsigned count, unsigned size)
{
    (void)arg;
    return cv_test_malloc((size_t)count * size);
}

static void give_back(void *arg, void *at)
{
    (void)arg;
    cv_test_free(at);
}

int __wrap_deflateInit2_(z_stream *z, int level, int method, int bits, int memory, int strategy,
                         const char *version, int size)
{
    z->zalloc = take;
    z->zfree = give_back;
    return __real_deflateInit2_(z, level, method, bits, memory, strategy, version, size);
}

int __wrap_inflateInit2_(z_stream *z, int bits, const char *version, int size)
{
    z->zalloc = take;
    z->zfree = give_back;
    return __real_inflateInit2_(z, bits, version, size);
}

struct side {
    struct cv_ws *ws;
    struct cv_buf out;
    size_t received;
    bool is_without_memory;
};

static bool open_side(struct side *side, enum cv_ws_role role, bool has_deflate)
{
    struct cv_ws_options options;
    cv_ws_options_init(&options, role);
    options.accepts_text = options.accepts_binary = true;
    options.max_inflated_bytes = OUT_CAP;
    if (has_deflate)
        cv_ws_deflate_params_init(&options.deflate);
    *side = (struct side){0};
    cv_buf_init(&side->out, OUT_CAP);
    side->ws = cv_ws_new(&options);
    return side->ws != NULL;
}

static void close_side(struct side *side)
{
    cv_ws_free(&side->ws);
    cv_buf_done(&side->out);
}

static void note(struct side *side, struct cv_status status)
{
    side->is_without_memory = side->is_without_memory || status.id == CV_NO_MEMORY;
}

static void carry(struct side *from, struct side *to)
{
    struct cv_ws_event event;
    struct cv_status status;
    cv_ws_feed(to->ws, cv_buf_head(&from->out), cv_buf_len(&from->out));
    while (cv_is_ok(status = cv_ws_next(to->ws, &event)))
        if (event.type == CV_WS_EVENT_DATA)
            to->received += event.data.len;
    note(to, status);
    cv_buf_consume(&from->out, cv_buf_len(&from->out));
}

static void say(struct side *side, const uint8_t *text)
{
    size_t before = cv_buf_len(&side->out);
    struct cv_status status =
        cv_ws_send(side->ws, &side->out, CV_WS_BINARY, CV_WS_COMPRESS, cv_slice(text, 7000));
    if (!cv_is_ok(status))
        assert_int_equal(cv_buf_len(&side->out), before);
    note(side, status);
    if (cv_is_ok(status))
        note(side, cv_ws_send(side->ws, &side->out, CV_WS_BINARY, CV_WS_FIN,
                              cv_slice(text + 7000, MESSAGE_LEN - 7000)));
    note(side, cv_ws_send_ping(side->ws, &side->out, cv_slice_str("there?")));
    note(side, cv_ws_answer_ping(side->ws, &side->out));
}

/* Whether all of it went through. */
static bool talk(struct side *client, struct side *server, bool has_deflate)
{
    static uint8_t text[MESSAGE_LEN];
    bool is_open = open_side(client, CV_WS_CLIENT, has_deflate);
    is_open = open_side(server, CV_WS_SERVER, has_deflate) && is_open;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i * i >> 5);
    for (int round = 0; is_open && round < ROUNDS; round++) {
        say(client, text);
        carry(client, server);
        say(server, text);
        carry(server, client);
    }
    if (is_open)
        note(client, cv_ws_send_close(client->ws, &client->out, 1000, cv_slice_str("bye")));
    if (is_open)
        carry(client, server);
    return is_open && client->received == (size_t)ROUNDS * MESSAGE_LEN &&
           server->received == (size_t)ROUNDS * MESSAGE_LEN;
}

static void fail_each(bool has_deflate, size_t at_least)
{
    size_t n = 0;
    bool has_failed;
    do {
        struct side client, server;
        cv_test_alloc_fail_at(++n);
        bool is_whole = talk(&client, &server, has_deflate);
        has_failed = cv_test_alloc_stop();
        if (!is_whole && client.ws && server.ws)
            assert_true(client.is_without_memory || server.is_without_memory);
        assert_true(is_whole || has_failed);
        close_side(&client);
        close_side(&server);
        assert_true(n < 10000);
    } while (has_failed);
    assert_true(n > at_least);
}

static void every_allocation_of_a_conversation_may_fail(void **state)
{
    (void)state;
    fail_each(false, 4);
}

static void every_allocation_of_a_compressed_conversation_may_fail(void **state)
{
    (void)state;
    fail_each(true, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_of_a_conversation_may_fail),
        cmocka_unit_test(every_allocation_of_a_compressed_conversation_may_fail),
    };
    return cmocka_run_group_tests_name("ws_alloc", tests, NULL, NULL);
}
