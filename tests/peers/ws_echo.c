/* SPDX-License-Identifier: MIT
 *
 * The production WebSocket engine as an echo server and as an echo client, so that a conformance
 * suite can drive both sides. Whatever comes as a message goes back as the same, text as text;
 * pings and Close are answered by the engine. `ws_echo --help` tells the options.
 *
 *     ws_echo server --listen 127.0.0.1:9001        (port 0 takes a free one)
 * says `listening on 127.0.0.1:9001` when it is ready and serves every path until it is ended. For
 * Autobahn's fuzzing client its URL is ws://127.0.0.1:9001.
 *
 *     ws_echo client --url ws://127.0.0.1:9001 --agent culvert
 * speaks the protocol of Autobahn's fuzzing server: /getCaseCount tells a number, then
 * /runCase?case=N&agent=NAME for each N from 1, then /updateReports?agent=NAME. It prints how many
 * cases there were and ends with 0 unless a connection was refused.
 *
 * permessage-deflate is on, with every parameter of RFC 7692 §7.1 as the other side asks; the
 * client offers client_no_context_takeover and client_max_window_bits, so that a server can demand
 * both. A frame or message over --max-message (32 MiB) is closed with 1009.
 */
#include "ws_session.h"

#include "proto/http/url.h"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

struct settings {
    const char *listen, *url, *agent;
    struct ws_session_options session;
};

enum { MAX_MESSAGE_BYTES = 32 << 20 };

static const char usage_text[] =
    "usage: ws_echo server --listen HOST:PORT [OPTIONS]\n"
    "       ws_echo client --url ws://HOST:PORT [--agent NAME] [OPTIONS]\n"
    "\n"
    "Echoes WebSocket messages, as a server to whoever connects, as a client to each case of an\n"
    "Autobahn fuzzing server.\n"
    "\n"
    "  --deflate            use permessage-deflate (the default)\n"
    "  --no-deflate         neither offer nor accept it\n"
    "  --max-message BYTES  the longest message, 33554432 unless given; more is closed with 1009\n"
    "  --agent NAME         how the client names itself to the suite (culvert)\n";

static int usage(void)
{
    (void)fputs(usage_text, stderr);
    return 2;
}

static bool read_settings(int argc, char **argv, struct settings *settings)
{
    *settings =
        (struct settings){.agent = "culvert",
                          .session = {.max_message_bytes = MAX_MESSAGE_BYTES, .has_deflate = true}};
    for (int i = 2; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--deflate") == 0 || strcmp(name, "--no-deflate") == 0) {
            settings->session.has_deflate = strcmp(name, "--deflate") == 0;
            continue;
        }
        const char *value = ++i < argc ? argv[i] : NULL;
        uint64_t number = 0;
        if (!value)
            return false;
        if (strcmp(name, "--listen") == 0)
            settings->listen = value;
        else if (strcmp(name, "--url") == 0)
            settings->url = value;
        else if (strcmp(name, "--agent") == 0)
            settings->agent = value;
        else if (strcmp(name, "--max-message") == 0 &&
                 cv_slice_to_u64(cv_slice_str(value), 1 << 30, &number) && number > 0)
            settings->session.max_message_bytes = (size_t)number;
        else
            return false;
    }
    return true;
}

static struct addrinfo *resolve(struct cv_slice host, unsigned port, int flags)
{
    char name[256], service[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    if (host.len >= 2 && host.data[0] == '[')
        host = cv_slice(host.data + 1, host.len - 2);
    (void)snprintf(service, sizeof service, "%u", port);
    if (!cv_slice_to_str(host, name, sizeof name) || getaddrinfo(name, service, &hints, &list) != 0)
        return NULL;
    return list;
}

/* ---- server ---- */

struct visit {
    int fd;
    struct ws_session_options options;
};

static void *serve(void *arg)
{
    struct visit visit = *(struct visit *)arg;
    free(arg);
    struct ws_session session;
    ws_session_init(&session, visit.fd, CV_WS_SERVER, &visit.options);
    if (cv_is_ok(ws_session_accept(&session)))
        ws_session_run(&session);
    ws_session_done(&session);
    return NULL;
}

static void accept_for_ever(int listener, const struct ws_session_options *options)
{
    pthread_attr_t detached;
    (void)pthread_attr_init(&detached);
    (void)pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        struct visit *visit = malloc(sizeof *visit);
        pthread_t thread;
        if (visit)
            *visit = (struct visit){.fd = fd, .options = *options};
        if (!visit || pthread_create(&thread, &detached, serve, visit) != 0) {
            free(visit);
            (void)close(fd);
        }
    }
}

static int run_server(const struct settings *settings)
{
    struct cv_slice host;
    unsigned port;
    bool has_port;
    if (!settings->listen ||
        !cv_url_split_authority(cv_slice_str(settings->listen), &host, &port, &has_port))
        return usage();
    struct addrinfo *list = resolve(host, port, AI_PASSIVE);
    int fd = list ? socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1, yes = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        bind(fd, list->ai_addr, list->ai_addrlen) != 0 || listen(fd, 128) != 0) {
        perror("ws_echo: listen");
        return 1;
    }
    freeaddrinfo(list);
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    char service[8] = "";
    (void)getsockname(fd, (struct sockaddr *)&address, &len);
    (void)getnameinfo((struct sockaddr *)&address, len, NULL, 0, service, sizeof service,
                      NI_NUMERICSERV);
    printf("listening on %.*s:%s\n", (int)host.len, (const char *)host.data, service);
    (void)fflush(stdout);
    accept_for_ever(fd, &settings->session);
    return 1;
}

/* ---- client ---- */

static int dial(const struct cv_url *url)
{
    struct addrinfo *list = resolve(url->host, url->port, 0);
    int fd = -1;
    for (struct addrinfo *at = list; at && fd < 0; at = at->ai_next) {
        fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) != 0) {
            (void)close(fd);
            fd = -1;
        }
    }
    if (list)
        freeaddrinfo(list);
    return fd;
}

/* One connection to `target`: echoes, or, with `number`, reads one number that the server says. */
static bool visit_target(const struct settings *settings, const struct cv_url *url,
                         const char *target, uint64_t *number)
{
    int fd = dial(url);
    if (fd < 0)
        return false;
    char authority[300];
    (void)snprintf(authority, sizeof authority, url->is_ipv6 ? "[%.*s]:%u" : "%.*s:%u",
                   (int)url->host.len, (const char *)url->host.data, url->port);
    struct ws_session session;
    ws_session_init(&session, fd, CV_WS_CLIENT, &settings->session);
    session.is_collecting = number != NULL;
    bool is_good = cv_is_ok(ws_session_connect(&session, authority, target));
    if (is_good)
        ws_session_run(&session);
    if (is_good && number)
        is_good = cv_slice_to_u64(cv_buf_slice(&session.message), 1000000, number);
    ws_session_done(&session);
    return is_good;
}

static int run_client(const struct settings *settings)
{
    struct cv_url url;
    char target[300];
    uint64_t count = 0;
    if (!settings->url || !cv_is_ok(cv_url_parse(cv_slice_str(settings->url), false, &url, NULL)) ||
        url.is_tls || !cv_http_is_token(cv_slice_str(settings->agent)) ||
        strlen(settings->agent) > 100)
        return usage();
    if (!visit_target(settings, &url, "/getCaseCount", &count)) {
        (void)fprintf(stderr, "ws_echo: no number of cases from %s\n", settings->url);
        return 1;
    }
    unsigned refused = 0;
    for (uint64_t n = 1; n <= count; n++) {
        (void)snprintf(target, sizeof target, "/runCase?case=%llu&agent=%s", (unsigned long long)n,
                       settings->agent);
        refused += !visit_target(settings, &url, target, NULL);
    }
    (void)snprintf(target, sizeof target, "/updateReports?agent=%s", settings->agent);
    bool is_reported = visit_target(settings, &url, target, NULL);
    printf("%llu cases, %u refused\n", (unsigned long long)count, refused);
    return refused == 0 && is_reported ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct settings settings;
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage_text, stdout) < 0;
    if (argc < 2 || !read_settings(argc, argv, &settings))
        return usage();
    if (strcmp(argv[1], "server") == 0)
        return run_server(&settings);
    if (strcmp(argv[1], "client") == 0)
        return run_client(&settings);
    return usage();
}
