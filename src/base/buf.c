/* SPDX-License-Identifier: MIT */
#include "base/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUF_MIN_SIZE = 256 };

void cv_buf_init(struct cv_buf *buf, size_t cap_bytes)
{
    *buf = (struct cv_buf){.cap = cap_bytes};
}

void cv_buf_done(struct cv_buf *buf)
{
    size_t cap = buf->cap;
    free(buf->data);
    cv_buf_init(buf, cap);
}

void cv_buf_wipe(struct cv_buf *buf)
{
    if (buf->data)
        explicit_bzero(buf->data, buf->size);
    cv_buf_done(buf);
}

uint8_t *cv_buf_reserve(struct cv_buf *buf, size_t len)
{
    size_t held = cv_buf_len(buf);
    if (len > buf->cap - held)
        return NULL;
    if (buf->data && buf->size - buf->end >= len)
        return buf->data + buf->end;
    /* Moving the tail down costs at most one copy a byte as long as half the buffer was consumed.
     */
    if (buf->data && buf->start >= buf->size / 2 && buf->size - held >= len) {
        memmove(buf->data, buf->data + buf->start, held);
        buf->start = 0;
        buf->end = held;
        return buf->data + held;
    }
    size_t want = buf->size ? buf->size : BUF_MIN_SIZE;
    while (want < held + len)
        want *= 2;
    if (want < 2 * held && want < buf->cap)
        want *= 2;
    uint8_t *data = malloc(want);
    if (!data)
        return NULL;
    if (held)
        memcpy(data, buf->data + buf->start, held);
    free(buf->data);
    buf->data = data;
    buf->size = want;
    buf->start = 0;
    buf->end = held;
    return data + held;
}

void cv_buf_commit(struct cv_buf *buf, size_t len)
{
    assert(len <= buf->size - buf->end);
    buf->end += len;
}

struct cv_status cv_buf_append(struct cv_buf *buf, const void *data, size_t len)
{
    if (len == 0)
        return cv_ok();
    if (len > cv_buf_room(buf))
        return cv_status(CV_NO_RESOURCES);
    uint8_t *to = cv_buf_reserve(buf, len);
    if (!to)
        return cv_status(CV_NO_MEMORY);
    memcpy(to, data, len);
    buf->end += len;
    return cv_ok();
}

struct cv_status cv_buf_append_slice(struct cv_buf *buf, struct cv_slice slice)
{
    return cv_buf_append(buf, slice.data, slice.len);
}

struct cv_status cv_buf_append_str(struct cv_buf *buf, const char *text)
{
    return cv_buf_append(buf, text, strlen(text));
}

struct cv_status cv_buf_append_byte(struct cv_buf *buf, uint8_t byte)
{
    return cv_buf_append(buf, &byte, 1);
}

struct cv_status cv_buf_printf(struct cv_buf *buf, const char *format, ...)
{
    char small[512];
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    struct cv_status status;
    if (len < 0) {
        status = cv_status(CV_INVALID);
    } else if ((size_t)len < sizeof small) {
        status = cv_buf_append(buf, small, (size_t)len);
    } else if ((size_t)len + 1 > cv_buf_room(buf)) {
        status = cv_status(CV_NO_RESOURCES);
    } else {
        uint8_t *to = cv_buf_reserve(buf, (size_t)len + 1);
        status = to ? cv_ok() : cv_status(CV_NO_MEMORY);
        if (to) {
            (void)vsnprintf((char *)to, (size_t)len + 1, format, again);
            buf->end += (size_t)len;
        }
    }
    va_end(again);
    return status;
}

void cv_buf_consume(struct cv_buf *buf, size_t len)
{
    assert(len <= cv_buf_len(buf));
    buf->start += len;
    if (buf->start == buf->end)
        buf->start = buf->end = 0;
}

void cv_buf_truncate(struct cv_buf *buf, size_t len)
{
    assert(len <= cv_buf_len(buf));
    buf->end = buf->start + len;
}

void cv_buf_shrink(struct cv_buf *buf, size_t keep_bytes)
{
    if (cv_buf_len(buf) == 0 && buf->size > keep_bytes)
        cv_buf_done(buf);
}
