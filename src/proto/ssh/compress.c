/* SPDX-License-Identifier: MIT */
#define ZLIB_CONST
#include "proto/ssh/compress.h"

#include <stdlib.h>
#include <zlib.h>

struct cv_ssh_zlib {
    z_stream stream;
    bool is_deflate;
};

struct cv_status cv_ssh_zlib_new(struct cv_ssh_zlib **zlib, bool is_deflate)
{
    *zlib = NULL;
    struct cv_ssh_zlib *z = calloc(1, sizeof *z);
    if (!z)
        return cv_status(CV_NO_MEMORY);
    z->is_deflate = is_deflate;
    int result =
        is_deflate ? deflateInit(&z->stream, Z_DEFAULT_COMPRESSION) : inflateInit(&z->stream);
    if (result != Z_OK) {
        free(z);
        return cv_status(CV_NO_MEMORY);
    }
    *zlib = z;
    return cv_ok();
}

void cv_ssh_zlib_free(struct cv_ssh_zlib **zlib)
{
    if (!zlib || !*zlib)
        return;
    if ((*zlib)->is_deflate)
        (void)deflateEnd(&(*zlib)->stream);
    else
        (void)inflateEnd(&(*zlib)->stream);
    free(*zlib);
    *zlib = NULL;
}

struct cv_status cv_ssh_zlib_deflate(struct cv_ssh_zlib *zlib, struct cv_slice header,
                                     struct cv_slice body, uint8_t *out, size_t size, size_t *len)
{
    z_stream *s = &zlib->stream;
    s->next_out = out;
    s->avail_out = (uInt)size;
    if (body.len) {
        s->next_in = header.data;
        s->avail_in = (uInt)header.len;
        if (header.len && deflate(s, Z_NO_FLUSH) != Z_OK)
            return cv_status(CV_NO_RESOURCES);
        if (s->avail_in)
            return cv_status(CV_NO_RESOURCES);
        header = body;
    }
    s->next_in = header.data;
    s->avail_in = (uInt)header.len;
    int result = deflate(s, Z_PARTIAL_FLUSH);
    /* No room left means that the flush may not be whole. */
    if (result != Z_OK || s->avail_in || s->avail_out == 0)
        return cv_status(CV_NO_RESOURCES);
    *len = size - s->avail_out;
    return cv_ok();
}

struct cv_status cv_ssh_zlib_inflate(struct cv_ssh_zlib *zlib, struct cv_slice data, uint8_t *out,
                                     size_t size, size_t *len)
{
    z_stream *s = &zlib->stream;
    s->next_in = data.data;
    s->avail_in = (uInt)data.len;
    s->next_out = out;
    s->avail_out = (uInt)size;
    int result = inflate(s, Z_SYNC_FLUSH);
    if (result == Z_MEM_ERROR)
        return cv_status(CV_NO_MEMORY);
    /* Z_BUF_ERROR only says that nothing more could be done; an end of stream is not allowed, the
     * next packet goes on with it. */
    if (result != Z_OK && result != Z_BUF_ERROR)
        return cv_status(CV_SSH_PROTOCOL);
    if (s->avail_out == 0)
        return cv_status(CV_SSH_LIMIT);
    *len = size - s->avail_out;
    return cv_ok();
}
