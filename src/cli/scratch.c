/* SPDX-License-Identifier: MIT */
#include "cli/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct cv_status cv_scratch_make(const char *prefix, char *out, size_t cap, struct cv_error *error)
{
    const char *parent = getenv("TMPDIR");
    if (!parent || parent[0] != '/')
        parent = "/tmp";
    if ((size_t)snprintf(out, cap, "%s/%s-XXXXXX", parent, prefix) >= cap)
        return cv_fail(error, CV_CONFIG, "the path in TMPDIR is too long");
    if (!mkdtemp(out))
        return cv_fail_errno(error, CV_IO, errno, "cannot make a folder in %.150s", parent);
    return cv_ok();
}

void cv_scratch_remove(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder)
        return;
    const struct dirent *entry;
    while ((entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(folder), entry->d_name, 0) != 0)
            (void)unlinkat(dirfd(folder), entry->d_name, AT_REMOVEDIR);
    }
    (void)closedir(folder);
    (void)rmdir(path);
}
