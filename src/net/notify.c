/* SPDX-License-Identifier: MIT */
#include "net/notify.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void cv_notify(const char *socket_path, const char *text)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = socket_path ? strlen(socket_path) : 0;
    if (len < 2 || len >= sizeof address.sun_path || (*socket_path != '/' && *socket_path != '@'))
        return;
    memcpy(address.sun_path, socket_path, len);
    if (*socket_path == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL, (void *)&address,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    (void)close(fd);
}
