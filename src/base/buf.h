/* SPDX-License-Identifier: MIT
 *
 * A byte queue with a cap from birth: bytes are appended at the end and consumed from the front.
 * Owns its memory; contiguous, so its content is one slice. Slices into it are valid until the next
 * call that appends. One thread at a time.
 */
#ifndef CV_BASE_BUF_H
#define CV_BASE_BUF_H

#include "base/slice.h"
#include "base/status.h"

struct cv_buf {
    uint8_t *data; /* NULL until something is appended */
    size_t start;  /* offset of the first unconsumed byte */
    size_t end;    /* offset behind the last byte */
    size_t size;   /* bytes allocated */
    size_t cap;    /* the most that may be held unconsumed; never exceeded */
};

/* Caller's memory. `cap_bytes` is the most it will ever hold. Takes no memory yet; cannot fail. */
void cv_buf_init(struct cv_buf *buf, size_t cap_bytes);

/* Frees the memory; the buffer is empty and usable afterwards. Takes a zeroed struct. */
void cv_buf_done(struct cv_buf *buf);

/* cv_buf_done after overwriting the content, for secrets. */
void cv_buf_wipe(struct cv_buf *buf);

static inline size_t cv_buf_len(const struct cv_buf *buf)
{
    return buf->end - buf->start;
}

/* How many more bytes may be appended before the cap. */
static inline size_t cv_buf_room(const struct cv_buf *buf)
{
    return buf->cap - cv_buf_len(buf);
}

static inline uint8_t *cv_buf_head(const struct cv_buf *buf)
{
    /* Not data + start: C does not define NULL + 0, which an empty buffer would be. */
    return (uint8_t *)((uintptr_t)buf->data + buf->start);
}

static inline struct cv_slice cv_buf_slice(const struct cv_buf *buf)
{
    return cv_slice(buf->data ? buf->data + buf->start : NULL, cv_buf_len(buf));
}

/* Makes room for `len` more bytes and returns where to write them, without counting them: call
 * cv_buf_commit with what was written. NULL when the cap or memory does not allow it; the content
 * is unchanged then. */
uint8_t *cv_buf_reserve(struct cv_buf *buf, size_t len);
void cv_buf_commit(struct cv_buf *buf, size_t len);

/* Appends a copy. CV_NO_RESOURCES over the cap, CV_NO_MEMORY without memory; nothing is appended
 * then. `data` must not point into the buffer. */
struct cv_status cv_buf_append(struct cv_buf *buf, const void *data, size_t len);
struct cv_status cv_buf_append_slice(struct cv_buf *buf, struct cv_slice slice);
struct cv_status cv_buf_append_str(struct cv_buf *buf, const char *text);
struct cv_status cv_buf_append_byte(struct cv_buf *buf, uint8_t byte);
__attribute__((format(printf, 2, 3))) struct cv_status cv_buf_printf(struct cv_buf *buf,
                                                                     const char *format, ...);

/* Drops `len` bytes (at most all) from the front. */
void cv_buf_consume(struct cv_buf *buf, size_t len);

/* Drops what is behind the first `len` bytes (at most all): takes back what was appended since. */
void cv_buf_truncate(struct cv_buf *buf, size_t len);

/* Gives memory back that an empty buffer holds above `keep_bytes`. */
void cv_buf_shrink(struct cv_buf *buf, size_t keep_bytes);

#endif
