/* SPDX-License-Identifier: MIT
 *
 * What an agent reads that it did not write: the answer to its upgrade from whatever stands at the
 * relay's address, and the file of known hosts. The first byte chooses. The upgrade's verdict does
 * not depend on how the answer is cut, and a 101 is taken only with the right Sec-WebSocket-Accept,
 * which the input may ask for by an '@' in its place.
 */
#include "agent/known_hosts.h"
#include "agent/upgrade.h"
#include "base/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

enum { ANSWER_MAX = 1 << 16 };

static struct cv_status answer(const uint8_t *data, size_t size, size_t step, size_t *early_len,
                               char *detail, size_t cap)
{
    struct cv_upgrade upgrade;
    struct cv_buf request, text;
    struct cv_error error = {0};
    struct cv_slice early = {0};
    struct cv_upgrade_request asked = {.relay = "relay.example:443",
                                       .path = "/tunnel",
                                       .subprotocol = "culvert.v1",
                                       .agent_id = "0123456789abcdef0123456789abcdef",
                                       .token = cv_slice_str("a.b.c")};
    cv_buf_init(&request, 16384);
    cv_buf_init(&text, 2 * ANSWER_MAX + 64);
    cv_fuzz_must(cv_is_ok(cv_upgrade_begin(&upgrade, &asked, &request)));
    /* A fixed key, since the answer may quote it anywhere. */
    (void)cv_slice_to_str(cv_slice_str("dGhlIHNhbXBsZSBub25jZQ=="), upgrade.key,
                          sizeof upgrade.key);
    char accept[CV_WS_ACCEPT_SIZE];
    cv_ws_accept_key(cv_slice_str(upgrade.key), accept);
    bool is_done = false;
    for (size_t i = 0; i < size; i++) {
        bool is_here = data[i] == '@' && !is_done;
        is_done |= is_here;
        cv_fuzz_must(cv_is_ok(is_here ? cv_buf_append_str(&text, accept)
                                      : cv_buf_append_byte(&text, data[i])));
    }
    struct cv_slice rest = cv_buf_slice(&text);
    struct cv_status status = cv_status(CV_AGAIN);
    while (status.id == CV_AGAIN && rest.len > 0) {
        size_t len = step < rest.len ? step : rest.len;
        uint8_t *copy = cv_fuzz_copy(rest.data, len);
        status = cv_upgrade_feed(&upgrade, copy, len, &early, &error);
        *early_len = early.len + rest.len - len;
        free(copy);
        rest = cv_slice(rest.data + len, rest.len - len);
    }
    if (status.id == CV_AGAIN)
        status = cv_upgrade_eof(&upgrade, &error);
    if (cv_is_ok(status))
        cv_fuzz_must(is_done);
    else
        *early_len = 0;
    (void)snprintf(detail, cap, "%s", error.detail);
    cv_upgrade_done(&upgrade);
    cv_buf_done(&request);
    cv_buf_done(&text);
    return status;
}

static void fuzz_answer(const uint8_t *data, size_t size, size_t step)
{
    char whole[sizeof(struct cv_error)], pieces[sizeof(struct cv_error)];
    size_t whole_early = 0, pieces_early = 0;
    struct cv_status a = answer(data, size, size, &whole_early, whole, sizeof whole);
    struct cv_status b = answer(data, size, step, &pieces_early, pieces, sizeof pieces);
    cv_fuzz_must(a.id == b.id && a.id != CV_AGAIN && whole_early == pieces_early);
    cv_fuzz_must(strcmp(whole, pieces) == 0);
    for (const char *at = whole; *at; at++) /* it is printed on terminals */
        cv_fuzz_must((unsigned char)*at >= ' ' && *at != 0x7f);
}

/* The file's bytes; a relay with a fixed key. Checked twice: what was added the first time is known
 * the second. */
static void fuzz_known_hosts(const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memfd_create("known_hosts", MFD_CLOEXEC);
    cv_fuzz_must(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct cv_slice blob = cv_slice_str("a key");
    struct cv_error error = {0};
    bool is_new = false;
    struct cv_status status = cv_known_hosts_check(path, "r:1", blob, &is_new, &error);
    cv_fuzz_must(cv_is_ok(status) || status.id == CV_HOST_KEY || status.id == CV_CONFIG ||
                 status.id == CV_IO);
    if (cv_is_ok(status)) {
        cv_fuzz_must(cv_is_ok(cv_known_hosts_check(path, "r:1", blob, &is_new, &error)));
        cv_fuzz_must(!is_new);
        /* A file may name several keys for a relay; "other" in base64 is not to be one of them. */
        if (!memmem(data, size, "b3RoZXI=", 8))
            cv_fuzz_must(
                cv_known_hosts_check(path, "r:1", cv_slice_str("other"), &is_new, &error).id ==
                CV_HOST_KEY);
    }
    (void)close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > ANSWER_MAX)
        return 0;
    if (data[0] & 1)
        fuzz_known_hosts(data + 1, size - 1);
    else
        fuzz_answer(data + 1, size - 1, 1 + (data[0] >> 1) % 32U);
    return 0;
}
