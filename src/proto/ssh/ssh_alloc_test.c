/* SPDX-License-Identifier: MIT
 *
 * Every allocation of a session fails once: it must end in a status, a refusal or a NULL, and leak
 * nothing (the build with sanitizers looks).
 */
#include "proto/ssh/ssh_test.h"

#include "base/alloc_test.h"

/* As say and next of ssh_test.h, where every step may fail. */
static void try_say(struct bench *bench)
{
    uint8_t packet[4 + 256];
    assert_true(bench->message.len <= 256);
    cv_put_u32(packet, (uint32_t)bench->message.len);
    memcpy(packet + 4, bench->space, bench->message.len);
    (void)cv_ssh_feed(bench->ssh, packet, 4 + bench->message.len);
    while (cv_is_ok(next(bench)))
        if (bench->event.kind == CV_SSH_CHANNEL_REQUESTED)
            cv_ssh_channel_confirm(bench->event.channel);
        else if (bench->event.kind == CV_SSH_CHANNEL_DATA)
            cv_ssh_channel_consumed(bench->event.channel, bench->event.data.len);
}

static void try_number(struct bench *bench, uint8_t number)
{
    begin(bench, number);
    try_say(bench);
}

static void try_open(struct bench *bench, const char *type)
{
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_CHANNEL_OPEN);
    cv_ssh_write_str(writer, type);
    for (uint32_t i = 0; i < 3; i++)
        cv_ssh_write_u32(writer, 4096);
    cv_ssh_write_str(writer, "home");
    cv_ssh_write_u32(writer, 80);
    cv_ssh_write_str(writer, "::1");
    cv_ssh_write_u32(writer, 80);
    try_say(bench);
}

static void live(struct bench *bench)
{
    struct cv_ssh_options options = {.transport = {.role = CV_SSH_SERVER}};
    cv_buf_init(&bench->out, OUT_CAP);
    if (!cv_is_ok(cv_ssh_new(&options, &bench->out, 0, &bench->ssh))) {
        assert_null(bench->ssh);
        return;
    }
    try_number(bench, established);
    try_open(bench, "direct-tcpip");
    (void)cv_ssh_channel_open(bench->ssh, CV_SSH_FORWARDED_TCPIP, cv_slice_str("home"), 80,
                              cv_slice_str("::1"), 1);
    try_number(bench, kex_begin);
    try_open(bench, "direct-tcpip");
    try_open(bench, "session");
    (void)cv_ssh_channel_open(bench->ssh, CV_SSH_FORWARDED_TCPIP, cv_slice_str("home"), 80,
                              cv_slice_str("::1"), 1);
    (void)cv_ssh_probe(bench->ssh, 1);
    struct cv_ssh_channel *channel = cv_ssh_channel_after(bench->ssh, NULL);
    if (channel)
        cv_ssh_channel_close(channel);
    try_number(bench, kex_done);
    cv_ssh_disconnect(bench->ssh, 11, "bye");
}

static void a_session_survives_the_failure_of_any_allocation(void **state)
{
    (void)state;
    static struct bench bench;
    unsigned at = 0;
    bool has_failed;
    do {
        cv_test_alloc_fail_at(++at);
        live(&bench);
        has_failed = cv_test_alloc_stop();
        stop(&bench);
    } while (has_failed);
    assert_in_range(at, 8, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_survives_the_failure_of_any_allocation),
    };
    return cmocka_run_group_tests_name("ssh_alloc", tests, NULL, NULL);
}
