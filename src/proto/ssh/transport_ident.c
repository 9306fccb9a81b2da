/* SPDX-License-Identifier: MIT */
#include "proto/ssh/transport_private.h"

static bool is_prefix_of(const char *text, const char *line, size_t len)
{
    size_t text_len = strlen(text);
    return memcmp(text, line, len < text_len ? len : text_len) == 0;
}

/* RFC 4253 §4.2: SSH-protoversion-softwareversion SP comments CR LF. A client also takes 1.99
 * (§5.1). */
static bool is_identification(const struct cv_ssh_transport *t, const char *line, size_t len)
{
    return is_prefix_of("SSH-2.0-", line, len) ||
           (t->is_client && is_prefix_of("SSH-1.99-", line, len));
}

static struct cv_status line_done(struct cv_ssh_transport *t)
{
    char *line = t->peer_version;
    size_t len = t->peer_version_len;
    if (len && line[len - 1] == '\r')
        len--;
    line[len] = '\0';
    if (t->is_client && !(len >= 4 && is_prefix_of("SSH-", line, len))) {
        t->peer_version_len = 0;
        line[0] = '\0';
        return cv_status(CV_AGAIN);
    }
    /* "SSH-2.0-" and at least one character */
    if (len < 9 || !is_identification(t, line, len))
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "the peer does not speak SSH-2");
    t->peer_version_len = len;
    return cv_ok();
}

struct cv_status cv_ssh_transport_ident(struct cv_ssh_transport *t, uint8_t byte)
{
    if (byte == '\n')
        return line_done(t);
    if (t->is_client && ++t->lines_before > LINES_BEFORE_MAX)
        return cv_ssh_transport_fail(t, CV_SSH_LIMIT, "no SSH identification in %d bytes",
                                     LINES_BEFORE_MAX);
    if (byte == '\0')
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "NUL in the identification");
    bool is_other = t->is_client && !is_prefix_of("SSH-", t->peer_version, t->peer_version_len);
    if (t->peer_version_len + 2 > VERSION_MAX) {
        /* A long line that is no identification is dropped as it comes. */
        return is_other ? cv_status(CV_AGAIN)
                        : cv_ssh_transport_fail(t, CV_SSH_LIMIT, "identification too long");
    }
    t->peer_version[t->peer_version_len++] = (char)byte;
    /* Only a server may say something before it (§4.2); a client that begins with anything else, as
     * HTTP does, is refused with its first wrong byte. */
    if (!t->is_client && !is_identification(t, t->peer_version, t->peer_version_len))
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "the peer does not speak SSH-2");
    return cv_status(CV_AGAIN);
}
