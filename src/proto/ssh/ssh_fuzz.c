/* SPDX-License-Identifier: MIT
 *
 * Drives the connection protocol over the transport stub: the input is both what the peer says and
 * what the caller does in between. Checks the limits that the headers promise.
 */
#include "base/bytes.h"
#include "base/fuzz.h"
#include "proto/ssh/session.h"

struct input {
    const uint8_t *data;
    size_t len;
};

static uint8_t take(struct input *input)
{
    if (input->len == 0)
        return 0;
    input->len--;
    return *input->data++;
}

static void say(struct cv_ssh *ssh, const uint8_t *payload, size_t len)
{
    uint8_t packet[4 + 256];
    cv_put_u32(packet, (uint32_t)len);
    memcpy(packet + 4, payload, len);
    if (cv_ssh_wants_input(ssh))
        (void)cv_ssh_feed(ssh, packet, 4 + len);
}

static void answer(struct cv_ssh *ssh, const struct cv_ssh_event *event, uint8_t choice)
{
    switch (event->kind) {
    case CV_SSH_CHANNEL_REQUESTED:
        if (choice % 4 == 0)
            cv_ssh_channel_refuse(event->channel, CV_SSH_OPEN_PROHIBITED, "no");
        else if (choice % 4 < 3)
            cv_ssh_channel_confirm(event->channel);
        break;
    case CV_SSH_GLOBAL_REQUEST:
        if (event->request.want_reply && choice % 2)
            (void)cv_ssh_global_reply(ssh, choice & 2, event->request.payload);
        break;
    case CV_SSH_CHANNEL_DATA:
        cv_fuzz_must(event->data.len > 0 && event->data.len <= CV_SSH_DATA_MAX);
        if (choice % 2)
            cv_ssh_channel_consumed(event->channel, event->data.len);
        break;
    default:
        break;
    }
}

static void act(struct cv_ssh *ssh, struct cv_buf *out, struct input *input, uint64_t *now_ms)
{
    static const uint8_t bytes[40000];
    struct cv_ssh_channel *channel = NULL;
    for (unsigned left = take(input) % 4U + 1; left > 0; left--)
        channel = cv_ssh_channel_after(ssh, channel);
    uint8_t what = take(input);
    switch (what % 10) {
    case 0:
        cv_buf_consume(out, cv_buf_len(out));
        break;
    case 1:
        (void)cv_ssh_channel_open(ssh, what & 16 ? CV_SSH_DIRECT_TCPIP : CV_SSH_FORWARDED_TCPIP,
                                  cv_slice_str("home"), 80, cv_slice_str("::1"), 1);
        break;
    case 2:
        (void)cv_ssh_global_request(ssh, "x@culvert", what & 16, cv_slice(bytes, take(input)),
                                    NULL);
        break;
    case 3:
        *now_ms += 30000;
        cv_ssh_tick(ssh, *now_ms);
        break;
    case 4:
        (void)cv_ssh_global_reply(ssh, what & 16, cv_slice(bytes, take(input)));
        break;
    case 5:
        if (channel)
            cv_fuzz_must(cv_ssh_channel_write(channel, cv_slice(bytes, take(input) * 150U)) <=
                         40000);
        break;
    case 6:
        if (channel)
            cv_ssh_channel_consumed(channel, cv_ssh_channel_unconsumed(channel));
        break;
    case 7:
        if (channel)
            cv_ssh_channel_eof(channel);
        break;
    case 8:
        if (channel)
            cv_ssh_channel_close(channel);
        break;
    default:
        if (channel)
            cv_ssh_channel_confirm(channel);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t established = 1;
    struct input input = {data, size};
    struct cv_ssh_options options = {.window_bytes = 4096, .max_channels = 4};
    options.transport.role = take(&input) % 2 ? CV_SSH_SERVER : CV_SSH_CLIENT;
    struct cv_ssh *ssh;
    struct cv_buf out;
    uint64_t now_ms = 0;
    cv_buf_init(&out, CV_SSH_OUT_MIN);
    if (!cv_is_ok(cv_ssh_new(&options, &out, now_ms, &ssh)))
        return 0;
    say(ssh, &established, 1);
    while (input.len > 0) {
        uint8_t len = take(&input);
        struct cv_ssh_event event;
        if (len < 100) {
            act(ssh, &out, &input, &now_ms);
        } else {
            size_t most = len - 100U < input.len ? len - 100U : input.len;
            if (most > 0)
                say(ssh, input.data, most);
            input.data += most;
            input.len -= most;
        }
        struct cv_status status = cv_ssh_next(ssh, now_ms, &event);
        for (; cv_is_ok(status); status = cv_ssh_next(ssh, now_ms, &event))
            answer(ssh, &event, take(&input));
        cv_fuzz_must(cv_ssh_channel_count(ssh) <= 4);
        cv_fuzz_must(cv_buf_len(&ssh->held) <= CV_SSH_HELD_MAX);
        if (status.id != CV_AGAIN && len % 2)
            break;
    }
    cv_ssh_free(&ssh);
    cv_buf_done(&out);
    return 0;
}
