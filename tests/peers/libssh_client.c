/* SPDX-License-Identifier: MIT
 *
 * libssh's client against the relay, through a ProxyCommand, for tests/e2e/test_ssh_peers.py.
 *
 *   libssh_client publish COMMAND NAME REQUESTS   publishes NAME and answers so many HTTP requests
 *   libssh_client reach COMMAND NAME              sends GET / through the tunnel, prints the answer
 *   libssh_client refused COMMAND                 everything a tunnel does not need must be refused
 */
#include <libssh/libssh.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int die(ssh_session session, const char *what)
{
    fprintf(stderr, "%s: %s\n", what, ssh_get_error(session));
    return 1;
}

static ssh_session connect_through(const char *command)
{
    ssh_session session = ssh_new();
    if (!session)
        return NULL;
    long timeout_s = 20;
    int port = 22;
    ssh_options_set(session, SSH_OPTIONS_HOST, "relay");
    ssh_options_set(session, SSH_OPTIONS_PORT, &port);
    ssh_options_set(session, SSH_OPTIONS_USER, "alice");
    ssh_options_set(session, SSH_OPTIONS_PROXYCOMMAND, command);
    ssh_options_set(session, SSH_OPTIONS_TIMEOUT, &timeout_s);
    if (ssh_connect(session) != SSH_OK || ssh_userauth_none(session, NULL) != SSH_AUTH_SUCCESS) {
        (void)die(session, "connect");
        ssh_free(session);
        return NULL;
    }
    return session;
}

static int publish(ssh_session session, const char *name, int requests)
{
    if (ssh_channel_listen_forward(session, name, 80, NULL) != SSH_OK)
        return die(session, "tcpip-forward");
    printf("published\n");
    fflush(stdout);
    while (requests > 0) {
        ssh_channel channel = ssh_channel_open_forward_port(session, 30000, NULL, NULL, NULL);
        if (!channel)
            return die(session, "accept");
        char head[8192];
        size_t len = 0;
        while (requests > 0) {
            int got = ssh_channel_read_timeout(channel, head + len,
                                               (uint32_t)(sizeof head - 1 - len), 0, 2000);
            if (got <= 0)
                break;
            len += (size_t)got;
            head[len] = '\0';
            if (!strstr(head, "\r\n\r\n"))
                continue;
            static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nfrom libssh";
            ssh_channel_write(channel, answer, sizeof answer - 1);
            len = 0;
            requests--;
        }
        ssh_channel_send_eof(channel);
        ssh_channel_close(channel);
        ssh_channel_free(channel);
    }
    return 0;
}

static int reach(ssh_session session, const char *name)
{
    ssh_channel channel = ssh_channel_new(session);
    if (!channel || ssh_channel_open_forward(channel, name, 80, "localhost", 1) != SSH_OK)
        return die(session, "direct-tcpip");
    static const char request[] = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    ssh_channel_write(channel, request, sizeof request - 1);
    char data[4096];
    int got;
    while ((got = ssh_channel_read_timeout(channel, data, sizeof data, 0, 5000)) > 0)
        fwrite(data, 1, (size_t)got, stdout);
    ssh_channel_close(channel);
    ssh_channel_free(channel);
    return got < 0;
}

static int refused(ssh_session session)
{
    ssh_channel shell = ssh_channel_new(session);
    if (ssh_channel_open_session(shell) == SSH_OK) {
        fprintf(stderr, "a session was granted\n");
        return 1;
    }
    ssh_channel_free(shell);
    static const struct {
        const char *host;
        int port;
    } targets[] = {{"127.0.0.1", 22}, {"localhost", 80}, {"example.org", 80}, {"..", 80}};
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        ssh_channel channel = ssh_channel_new(session);
        if (ssh_channel_open_forward(channel, targets[i].host, targets[i].port, "x", 1) == SSH_OK) {
            fprintf(stderr, "%s:%d was reached\n", targets[i].host, targets[i].port);
            return 1;
        }
        ssh_channel_free(channel);
    }
    if (ssh_channel_listen_forward(session, "home", 0, NULL) == SSH_OK) {
        fprintf(stderr, "port 0 was granted\n");
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    ssh_session session = connect_through(argv[2]);
    if (!session)
        return 1;
    int result = 2;
    if (!strcmp(argv[1], "publish") && argc == 5)
        result = publish(session, argv[3], (int)strtol(argv[4], NULL, 10));
    else if (!strcmp(argv[1], "reach") && argc == 4)
        result = reach(session, argv[3]);
    else if (!strcmp(argv[1], "refused"))
        result = refused(session);
    ssh_disconnect(session);
    ssh_free(session);
    return result;
}
