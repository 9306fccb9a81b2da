/* SPDX-License-Identifier: MIT */
#include "net/unix_name.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct cv_status cv_unix_name_open(const char *path, struct cv_unix_name *name,
                                   struct cv_error *error)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    name->dir_fd = -1;
    if (!slash || (size_t)(slash - path) >= sizeof folder ||
        strlen(slash + 1) > CV_UNIX_NAME_LEN_MAX)
        return cv_fail(error, CV_CONFIG, "no room for the socket's name %.100s", path);
    (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    (void)snprintf(name->name, sizeof name->name, "%s", slash + 1);
    name->dir_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (name->dir_fd < 0)
        return cv_fail_errno(error, CV_IO, errno, "%.200s", folder);
    return cv_ok();
}

void cv_unix_name_close(struct cv_unix_name *name)
{
    if (name->dir_fd >= 0)
        (void)close(name->dir_fd);
    name->dir_fd = -1;
}

static bool make_address(struct sockaddr_un *address, int dir_fd, const char *name)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int len =
        snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", dir_fd, name);
    return len > 0 && (size_t)len < sizeof address->sun_path;
}

struct cv_status cv_unix_listen(const struct cv_unix_name *name, const char *beside, int backlog,
                                int *out, struct cv_error *error)
{
    struct sockaddr_un address;
    *out = -1;
    if (!make_address(&address, name->dir_fd, beside))
        return cv_fail(error, CV_CONFIG, "no room for the socket's name %.100s", beside);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return cv_fail_errno(error, CV_NO_RESOURCES, errno, "socket");
    /* What an earlier process of this number may have left. */
    (void)unlinkat(name->dir_fd, beside, 0);
    if (fchmod(fd, 0600) != 0 || /* bind makes the name with this mode */
        bind(fd, (const void *)&address, sizeof address) != 0 || listen(fd, backlog) != 0) {
        int saved = errno;
        (void)close(fd);
        return cv_fail_errno(error, CV_IO, saved, "%.200s", name->name);
    }
    *out = fd;
    return cv_ok();
}

struct cv_status cv_unix_connect(const char *path, int *out, struct cv_error *error)
{
    struct sockaddr_un address;
    struct cv_unix_name name;
    *out = -1;
    CV_RETURN_IF_ERROR(cv_unix_name_open(path, &name, error));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool is_short = make_address(&address, name.dir_fd, name.name);
    int result = fd < 0 || !is_short ? -1 : connect(fd, (const void *)&address, sizeof address);
    if (result == 0)
        result = fcntl(fd, F_SETFL, 0); /* it was non-blocking for the connect alone */
    int saved = is_short ? errno : ENAMETOOLONG;
    cv_unix_name_close(&name);
    if (result == 0) {
        *out = fd;
        return cv_ok();
    }
    if (fd >= 0)
        (void)close(fd);
    if (saved == ENOENT || saved == ECONNREFUSED)
        return cv_fail(error, CV_NOT_FOUND, "nobody listens at %.200s", path);
    return cv_fail_errno(error, saved == EAGAIN ? CV_AGAIN : CV_IO, saved, "%.200s", path);
}

bool cv_unix_peer_uid(int fd, uid_t *uid)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
        return false;
    *uid = peer.uid;
    return true;
}
