/* SPDX-License-Identifier: MIT */
#include "config/state_dir.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

static struct cv_status fits(int len, size_t cap, struct cv_error *error)
{
    if (len < 0 || (size_t)len >= cap)
        return cv_fail(error, CV_CONFIG, "the path of the state folder is too long");
    return cv_ok();
}

static struct cv_status choose(const char *configured, char *out, size_t cap,
                               struct cv_error *error)
{
    const char *state_home = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    if (configured && configured[0] == '/')
        return fits(snprintf(out, cap, "%s", configured), cap, error);
    if (configured && configured[0]) {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here))
            return cv_fail_errno(error, CV_IO, errno, "the working folder is unknown");
        return fits(snprintf(out, cap, "%s/%s", here, configured), cap, error);
    }
    if (state_home && state_home[0] == '/')
        return fits(snprintf(out, cap, "%s/culvert", state_home), cap, error);
    if (home && home[0] == '/')
        return fits(snprintf(out, cap, "%s/.local/state/culvert", home), cap, error);
    return cv_fail(error, CV_CONFIG, "no place for state is known: set CULVERT_STATE_DIR or HOME");
}

/* Each part in turn; another process may make the same one at the same time. */
static struct cv_status make_all(char *path, struct cv_error *error)
{
    for (char *slash = path + 1;; slash++) {
        if (*slash != '/' && *slash != '\0')
            continue;
        bool is_last = *slash == '\0';
        *slash = '\0';
        int made = mkdir(path, 0700) == 0 ? 0 : errno;
        struct stat st;
        /* EACCES and EROFS come before EEXIST on some file systems. */
        if (made != 0 && made != EEXIST && stat(path, &st) != 0)
            return cv_fail_errno(error, CV_IO, made, "cannot make the folder %s", path);
        if (is_last)
            return cv_ok();
        *slash = '/';
    }
}

struct cv_status cv_state_dir_open(const char *configured, char *out, size_t cap,
                                   struct cv_error *error)
{
    struct stat st;
    out[0] = '\0';
    CV_RETURN_IF_ERROR(choose(configured, out, cap, error));
    for (size_t len = strlen(out); len > 1 && out[len - 1] == '/'; len--)
        out[len - 1] = '\0';
    CV_RETURN_IF_ERROR(make_all(out, error));
    if (stat(out, &st) != 0)
        return cv_fail_errno(error, CV_IO, errno, "cannot look at the folder %s", out);
    if (!S_ISDIR(st.st_mode))
        return cv_fail(error, CV_IO, "%s is not a folder", out);
    /* Whoever may write here may swap our keys. Root may use what it was given. */
    if (st.st_uid != geteuid() && st.st_uid != 0 && geteuid() != 0)
        return cv_fail(error, CV_IO, "the folder %s belongs to another user", out);
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return cv_fail(error, CV_IO, "others may write to the folder %s: chmod go-w it", out);
    if (access(out, W_OK | X_OK) != 0)
        return cv_fail_errno(error, CV_IO, errno, "cannot write to the folder %s", out);
    return cv_ok();
}

struct cv_status cv_state_dir_path(const char *dir, const char *name, char *out, size_t cap,
                                   struct cv_error *error)
{
    return fits(snprintf(out, cap, "%s/%s", dir, name), cap, error);
}
