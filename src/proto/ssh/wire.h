/* SPDX-License-Identifier: MIT
 *
 * The data types of RFC 4251 §5 on borrowed memory: a reader that never runs past its slice and a
 * writer that never runs past its array. Both remember a failure, so a message is read or written
 * in one go and checked once. Own nothing. One thread at a time.
 */
#ifndef CV_SSH_WIRE_H
#define CV_SSH_WIRE_H

#include "base/slice.h"

struct cv_ssh_reader {
    struct cv_slice rest; /* what has not been read */
    bool is_failed;       /* something did not fit; every later read fails too */
};

static inline struct cv_ssh_reader cv_ssh_reader(struct cv_slice data)
{
    return (struct cv_ssh_reader){.rest = data};
}

/* Each returns false, and leaves 0 or an empty slice in *value, when the slice is too short; the
 * reader has then failed for good. Strings are slices of the input, with any bytes in them. */
bool cv_ssh_read_u8(struct cv_ssh_reader *reader, uint8_t *value);
bool cv_ssh_read_bool(struct cv_ssh_reader *reader, bool *value); /* any non-zero byte is true */
bool cv_ssh_read_u32(struct cv_ssh_reader *reader, uint32_t *value);
bool cv_ssh_read_u64(struct cv_ssh_reader *reader, uint64_t *value);
bool cv_ssh_read_bytes(struct cv_ssh_reader *reader, size_t len, struct cv_slice *value);
bool cv_ssh_read_string(struct cv_ssh_reader *reader, struct cv_slice *value);

/* A string that is a name-list: printable US-ASCII, no empty name (RFC 4251 §5). Fails otherwise.
 * The list itself may be empty, and one comma at its end is let pass (and taken off). */
bool cv_ssh_read_name_list(struct cv_ssh_reader *reader, struct cv_slice *value);

/* True when nothing failed and nothing is left. */
static inline bool cv_ssh_reader_is_done(const struct cv_ssh_reader *reader)
{
    return !reader->is_failed && reader->rest.len == 0;
}

/* Takes the next name off *list; false when the list is used up. */
bool cv_ssh_name_list_next(struct cv_slice *list, struct cv_slice *name);
bool cv_ssh_name_list_has(struct cv_slice list, struct cv_slice name);

struct cv_ssh_writer {
    uint8_t *data;
    size_t len;  /* bytes written */
    size_t size; /* bytes there are */
    bool is_failed;
};

static inline struct cv_ssh_writer cv_ssh_writer(uint8_t *data, size_t size)
{
    return (struct cv_ssh_writer){.data = data, .size = size};
}

/* Each writes all of it or nothing; after one did not fit, none writes any more and is_failed is
 * set. */
void cv_ssh_write_u8(struct cv_ssh_writer *writer, uint8_t value);
void cv_ssh_write_bool(struct cv_ssh_writer *writer, bool value);
void cv_ssh_write_u32(struct cv_ssh_writer *writer, uint32_t value);
void cv_ssh_write_u64(struct cv_ssh_writer *writer, uint64_t value);
void cv_ssh_write_bytes(struct cv_ssh_writer *writer, struct cv_slice value);
void cv_ssh_write_string(struct cv_ssh_writer *writer, struct cv_slice value);
void cv_ssh_write_str(struct cv_ssh_writer *writer, const char *text); /* a string from C text */

/* `value` as unsigned big-endian number: leading zeros go, a zero byte comes in front of a set top
 * bit, zero is the empty string. */
void cv_ssh_write_mpint(struct cv_ssh_writer *writer, struct cv_slice value);

static inline struct cv_slice cv_ssh_written(const struct cv_ssh_writer *writer)
{
    return cv_slice(writer->data, writer->len);
}

#endif
