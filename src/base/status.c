/* SPDX-License-Identifier: MIT */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct status_row {
    const char *name;
    enum cv_category category;
    const char *code;
    int http;
    int ws_close;
    int ssh_disconnect;
    bool retryable;
    const char *text;
    const char *suggestion;
};

/* Codes are written as strings by the preprocessor, so that no caller formats them. */
#define CODE_0 ""
#define CODE_1 "TUNNEL_001"
#define CODE_2 "TUNNEL_002"
#define CODE_3 "TUNNEL_003"
#define CODE_4 "TUNNEL_004"
#define CODE_5 "TUNNEL_005"
#define CODE_6 "TUNNEL_006"
#define CODE_7 "TUNNEL_007"
#define CODE_8 "TUNNEL_008"
#define CODE_9 "TUNNEL_009"
#define CODE_10 "TUNNEL_010"
#define CODE_11 "TUNNEL_011"
#define CODE_12 "TUNNEL_012"
#define CODE_13 "TUNNEL_013"
#define CODE_14 "TUNNEL_014"
#define CODE_15 "TUNNEL_015"
#define CODE_16 "TUNNEL_016"
#define CODE_17 "TUNNEL_017"
#define CODE_18 "TUNNEL_018"
#define CODE_19 "TUNNEL_019"
#define CODE_20 "TUNNEL_020"
#define CODE_21 "TUNNEL_021"
#define CODE_22 "TUNNEL_022"
#define CODE_23 "TUNNEL_023"
#define CODE_24 "TUNNEL_024"
#define CODE_25 "TUNNEL_025"
#define CODE_26 "TUNNEL_026"
#define CODE_27 "TUNNEL_027"
#define CODE_28 "TUNNEL_028"
#define CODE_29 "TUNNEL_029"
#define CODE_30 "TUNNEL_030"
#define CODE_31 "TUNNEL_031"
#define CODE_32 "TUNNEL_032"
#define CODE_36 "TUNNEL_036"

static const struct status_row rows[CV_STATUS_COUNT] = {
#define CV_STATUS_ROW(name, category, code, http, ws, ssh, retry, text, suggestion)                \
    [CV_##name] = {#name,     CV_CATEGORY_##category, CODE_##code, http, ws, ssh, retry, text,     \
                   suggestion},
    CV_STATUS_TABLE(CV_STATUS_ROW)
#undef CV_STATUS_ROW
};

static const struct status_row *row(enum cv_status_id id)
{
    return &rows[(unsigned)id < CV_STATUS_COUNT ? id : CV_INTERNAL];
}

/* Bytes of the UTF-8 sequence that begins here (RFC 3629 §4, but for what it says of surrogates and
 * overlong forms of three and four bytes); 0 for none. */
static size_t sequence_len(const unsigned char *at)
{
    size_t len = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    if (at[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

/* A detail may quote what a peer said, and is printed on terminals: nothing in it moves a cursor.
 * C0, DEL, C1 as UTF-8 writes it, and bytes that are no UTF-8, which may be C1 as they stand
 * (ECMA-48 §5.3). */
static void hide_controls(char *text)
{
    for (unsigned char *at = (unsigned char *)text; *at;) {
        size_t len = sequence_len(at);
        bool is_control = (len == 1 && (*at < ' ' || *at == 0x7f)) ||
                          (len == 2 && at[0] == 0xc2 && at[1] < 0xa0) || len == 0;
        if (len == 0)
            len = 1;
        if (is_control)
            memset(at, '?', len);
        at += len;
    }
}

__attribute__((format(printf, 4, 0))) static void
fill(struct cv_error *error, enum cv_status_id id, int sys_errno, const char *format, va_list args)
{
    if (!error)
        return;
    error->id = id;
    error->sys_errno = sys_errno;
    int len = vsnprintf(error->detail, sizeof error->detail, format, args);
    if (len < 0)
        error->detail[0] = '\0';
    if (sys_errno && len >= 0 && (size_t)len < sizeof error->detail - 2)
        (void)snprintf(error->detail + len, sizeof error->detail - (size_t)len, ": %s",
                       strerrordesc_np(sys_errno));
    hide_controls(error->detail);
}

struct cv_status cv_fail(struct cv_error *error, enum cv_status_id id, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(error, id, 0, format, args);
    va_end(args);
    return cv_status(id);
}

struct cv_status cv_fail_errno(struct cv_error *error, enum cv_status_id id, int sys_errno,
                               const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(error, id, sys_errno, format, args);
    va_end(args);
    return cv_status(id);
}

const char *cv_status_name(enum cv_status_id id)
{
    return row(id)->name;
}

const char *cv_status_text(enum cv_status_id id)
{
    return row(id)->text;
}

const char *cv_status_suggestion(enum cv_status_id id)
{
    return row(id)->suggestion;
}

const char *cv_status_code(enum cv_status_id id)
{
    return row(id)->code;
}

enum cv_category cv_status_category(enum cv_status_id id)
{
    return row(id)->category;
}

int cv_status_http(enum cv_status_id id)
{
    return row(id)->http;
}

int cv_status_ws_close(enum cv_status_id id)
{
    return row(id)->ws_close;
}

int cv_status_ssh_disconnect(enum cv_status_id id)
{
    return row(id)->ssh_disconnect;
}

bool cv_status_is_retryable(enum cv_status_id id)
{
    return row(id)->retryable;
}

const char *cv_category_name(enum cv_category category)
{
    static const char *const names[CV_CATEGORY_COUNT] = {
        "network", "authentication", "configuration", "server", "protocol", "unknown"};
    return names[(unsigned)category < CV_CATEGORY_COUNT ? category : CV_CATEGORY_UNKNOWN];
}

const char *cv_hop_name(enum cv_hop hop)
{
    static const char *const names[] = {"consumer", "relay", "link", "agent", "service"};
    return names[(unsigned)hop < sizeof names / sizeof names[0] ? hop : CV_HOP_RELAY];
}

enum cv_status_id cv_status_from_errno(int sys_errno)
{
    switch (sys_errno) {
    case 0:
        return CV_OK;
    case EAGAIN:
    case EINTR:
        return CV_AGAIN;
    case ECONNREFUSED:
        return CV_CONN_REFUSED;
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
        return CV_CONN_RESET;
    case ETIMEDOUT:
        return CV_CONN_TIMEOUT;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case EADDRNOTAVAIL:
        return CV_NETWORK_UNREACHABLE;
    case ENOMEM:
        return CV_NO_MEMORY;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
        return CV_NO_RESOURCES;
    case EINVAL:
        return CV_INVALID;
    default:
        return CV_IO;
    }
}
