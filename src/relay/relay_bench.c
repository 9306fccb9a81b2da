/* SPDX-License-Identifier: MIT
 *
 * The relay under test and its clients.
 */
#include "relay/relay_bench.h"

#include "auth/dev.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- relay ---- */

void bench_token(const struct bench *bench, const char *subject, struct cv_buf *out)
{
    struct cv_token_request request = {
        .subject = subject, .now_s = (int64_t)time(NULL), .ttl_s = 3600};
    assert_ok(cv_dev_token(bench->state_dir, request, out, NULL));
    assert_ok(cv_buf_append_byte(out, 0));
}

void bench_start(struct bench *bench, const char *workers, const char *const *settings)
{
    struct cv_override overrides[BENCH_SETTINGS_MAX + 7] = {
        {"listen", "127.0.0.1:0", "test"},
        {"workers", workers, "test"},
        /* A lost link ends at once; resuming has tests of its own. */
        {"link.resume_window", "0", "test"},
        /* So have limits; a bench asks all it can. */
        {"limits.free.requests_per_minute", "0", "test"},
        {"limits.ip.requests_per_minute", "0", "test"},
        {"breaker.failures", "0", "test"},
        /* The agents of a bench expect no streams but those of its requests. */
        {"canary.interval", "0", "test"},
    };
    size_t count = 7;
    for (; settings && settings[0]; settings += 2)
        overrides[count++] = (struct cv_override){settings[0], settings[1], "test"};
    struct cv_config_sources sources = {
        .overrides = overrides, .override_count = count, .is_dev = true};
    struct cv_problems problems;
    memset(bench, 0, sizeof *bench);
    (void)snprintf(bench->state_dir, sizeof bench->state_dir, "/tmp/culvert-relay-XXXXXX");
    assert_non_null(mkdtemp(bench->state_dir));
    cv_problems_init(&problems);
    assert_ok(cv_relay_config_load(&sources, &bench->config, &problems));
    cv_problems_done(&problems);
    const char *level = getenv("BENCH_LOG");
    struct cv_log_options log = {.fd = level ? 2 : open("/dev/null", O_WRONLY | O_CLOEXEC),
                                 .level = CV_LOG_DEBUG,
                                 .format = CV_LOG_FORMAT_TEXT};
    assert_ok(cv_log_init(&bench->log, &log));
    struct cv_relay_options options = {
        .config = bench->config, .log = &bench->log, .state_dir = bench->state_dir, .is_dev = true};
    struct cv_error error = {0};
    struct cv_status status = cv_relay_new(&options, &bench->relay, &error);
    if (!cv_is_ok(status))
        fail_msg("relay: %s", error.detail);
    bench->port = cv_relay_port(bench->relay);
    cv_buf_init(&bench->token, 8192);
    bench_token(bench, "alice", &bench->token);
}

static void remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir))
        if (e->d_name[0] != '.')
            (void)unlinkat(dirfd(dir), e->d_name, 0);
    if (dir)
        (void)closedir(dir);
    (void)rmdir(path);
}

void bench_stop(struct bench *bench)
{
    cv_relay_stop(&bench->relay, 2000);
    int fd = bench->log.fd;
    cv_log_done(&bench->log);
    if (fd > 2)
        (void)close(fd);
    cv_relay_config_free(&bench->config);
    cv_buf_wipe(&bench->token);
    remove_dir(bench->state_dir);
}

/* ---- client ---- */

int client_connect(const struct bench *bench)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)bench->port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval limit = {.tv_sec = BENCH_WAIT_S};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

void client_send_bytes(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len) {
        ssize_t sent = send(fd, at, len, MSG_NOSIGNAL);
        if (sent <= 0)
            fail_msg("send: %s", strerror(errno));
        at += sent;
        len -= (size_t)sent;
    }
}

void client_send(int fd, const char *text)
{
    client_send_bytes(fd, text, strlen(text));
}

/* One byte at a time: simple, and leaves what follows in the socket. False at the end. */
static bool read_byte(int fd, char *c, struct answer *answer)
{
    ssize_t got = recv(fd, c, 1, 0);
    if (got < 0 && (errno == EAGAIN))
        fail_msg("no answer in %d s; so far: %s", BENCH_WAIT_S, answer ? answer->head : "");
    if (got <= 0 && answer) {
        answer->is_cut = true;
        answer->is_reset = got < 0;
    }
    return got == 1;
}

static bool read_line(int fd, char *line, size_t cap, struct answer *answer)
{
    size_t len = 0;
    while (len + 1 < cap && read_byte(fd, line + len, answer)) {
        line[++len] = 0;
        if (line[len - 1] == '\n')
            return true;
    }
    return false;
}

static bool read_some(int fd, struct answer *answer, uint64_t len)
{
    char block[16384];
    while (len) {
        size_t want = len < sizeof block ? (size_t)len : sizeof block;
        ssize_t got = recv(fd, block, want, 0);
        if (got < 0 && (errno == EAGAIN))
            fail_msg("no body in %d s", BENCH_WAIT_S);
        if (got <= 0) {
            answer->is_cut = len != UINT64_MAX && len != 0;
            answer->is_reset = got < 0;
            return false;
        }
        assert_ok(cv_buf_append(&answer->body, block, (size_t)got));
        if (len != UINT64_MAX)
            len -= (uint64_t)got;
    }
    return true;
}

static void read_chunks(int fd, struct answer *answer)
{
    char line[1024];
    for (;;) {
        if (!read_line(fd, line, sizeof line, answer))
            return;
        uint64_t len = strtoull(line, NULL, 16);
        if (len == 0)
            break;
        if (!read_some(fd, answer, len) || !read_line(fd, line, sizeof line, answer))
            return;
    }
    while (read_line(fd, line, sizeof line, answer) && strcmp(line, "\r\n") != 0)
        ;
}

static void read_head(int fd, struct answer *answer)
{
    size_t len = 0;
    answer->head[0] = 0;
    while (len + 1 < sizeof answer->head && read_byte(fd, answer->head + len, answer)) {
        answer->head[++len] = 0;
        if (len >= 4 && strcmp(answer->head + len - 4, "\r\n\r\n") == 0)
            break;
    }
    answer->status =
        strncmp(answer->head, "HTTP/1.1 ", 9) == 0 ? (int)strtol(answer->head + 9, NULL, 10) : 0;
}

void client_read(int fd, struct answer *answer, bool is_head, bool takes_interim)
{
    memset(answer, 0, sizeof *answer);
    cv_buf_init(&answer->body, 64u << 20);
    do
        read_head(fd, answer);
    while (!takes_interim && answer->status / 100 == 1 && answer->status != 101);
    if (is_head || answer->is_cut || answer->status < 200 || answer->status == 204 ||
        answer->status == 304)
        return;
    const char *length = answer_field(answer, "Content-Length");
    if (length[0])
        (void)read_some(fd, answer, strtoull(length, NULL, 10));
    else if (strcmp(answer_field(answer, "Transfer-Encoding"), "chunked") == 0)
        read_chunks(fd, answer);
    else
        (void)read_some(fd, answer, UINT64_MAX);
}

void answer_done(struct answer *answer)
{
    cv_buf_done(&answer->body);
}

const char *answer_field(const struct answer *answer, const char *name)
{
    static _Thread_local char value[1024];
    size_t len = strlen(name);
    for (const char *line = strstr(answer->head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, len) != 0 || line[2 + len] != ':')
            continue;
        const char *at = line + 3 + len + strspn(line + 3 + len, " ");
        (void)snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "\r"), at);
        return value;
    }
    value[0] = 0;
    return value;
}

bool answer_has(const struct answer *answer, const char *text)
{
    return cv_buf_len(&answer->body) &&
           memmem(cv_buf_head(&answer->body), cv_buf_len(&answer->body), text, strlen(text));
}

bool client_is_closed(int fd)
{
    char c;
    return !read_byte(fd, &c, NULL);
}

void client_read_bytes(int fd, char *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        assert_true(read_byte(fd, out + i, NULL));
}

char *client_head(const struct bench *bench, const char *method, const char *target,
                  const char *fields)
{
    char *text = NULL;
    assert_true(asprintf(&text,
                         "%s %s HTTP/1.1\r\nHost: relay.test\r\nAuthorization: Bearer %s\r\n"
                         "%s\r\n",
                         method, target, (const char *)cv_buf_head(&bench->token),
                         fields ? fields : "") > 0);
    return text;
}

void client_request(const struct bench *bench, const char *method, const char *target,
                    const char *fields, const char *body, struct answer *answer)
{
    int fd = client_connect(bench);
    char *head = client_head(bench, method, target, fields);
    client_send(fd, head);
    free(head);
    if (body)
        client_send(fd, body);
    client_read(fd, answer, strcmp(method, "HEAD") == 0, false);
    (void)close(fd);
}
