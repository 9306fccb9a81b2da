/* SPDX-License-Identifier: MIT
 *
 * Unix sockets with a name in the file system. sun_path holds no more than 108 bytes and a state
 * folder may lie deep, so names are reached through a descriptor of their folder. Not for use
 * outside this folder. Blocking file system calls; any thread.
 */
#ifndef CV_NET_UNIX_NAME_H
#define CV_NET_UNIX_NAME_H

#include "base/status.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

enum { CV_UNIX_NAME_LEN_MAX = 90 }; /* of the last part of a path */

struct cv_unix_name {
    int dir_fd; /* of the folder; -1: none */
    char name[NAME_MAX + 1];
};

/* Opens the folder of `path`. CV_IO, CV_CONFIG (the name is too long); dir_fd is -1 then. */
struct cv_status cv_unix_name_open(const char *path, struct cv_unix_name *name,
                                   struct cv_error *error);
void cv_unix_name_close(struct cv_unix_name *name);

/* Listens at `beside`, a name in the folder, with mode 0600; a socket of that name is removed
 * first. *fd is non-blocking and the caller's. CV_CONFIG, CV_IO, CV_NO_RESOURCES; *fd is -1 then.
 */
struct cv_status cv_unix_listen(const struct cv_unix_name *name, const char *beside, int backlog,
                                int *fd, struct cv_error *error);

/* Connects; a listener that is too busy is not waited for. *fd is blocking and the caller's.
 * CV_NOT_FOUND when nobody listens there, CV_AGAIN when it is too busy, CV_IO; *fd is -1 then. */
struct cv_status cv_unix_connect(const char *path, int *fd, struct cv_error *error);

/* Whose process is at the other end (SO_PEERCRED, unix(7)). False when that cannot be told. */
bool cv_unix_peer_uid(int fd, uid_t *uid);

#endif
