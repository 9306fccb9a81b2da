/* SPDX-License-Identifier: MIT */
#include "proto/ssh/wire.h"

#include "base/bytes.h"

bool cv_ssh_read_bytes(struct cv_ssh_reader *reader, size_t len, struct cv_slice *value)
{
    if (reader->is_failed || len > reader->rest.len) {
        reader->is_failed = true;
        *value = (struct cv_slice){0};
        return false;
    }
    *value = cv_slice(reader->rest.data, len);
    if (len) {
        reader->rest.data += len;
        reader->rest.len -= len;
    }
    return true;
}

bool cv_ssh_read_u8(struct cv_ssh_reader *reader, uint8_t *value)
{
    struct cv_slice bytes;
    bool is_read = cv_ssh_read_bytes(reader, 1, &bytes);
    *value = is_read ? bytes.data[0] : 0;
    return is_read;
}

bool cv_ssh_read_bool(struct cv_ssh_reader *reader, bool *value)
{
    uint8_t byte;
    bool is_read = cv_ssh_read_u8(reader, &byte);
    *value = byte != 0;
    return is_read;
}

bool cv_ssh_read_u32(struct cv_ssh_reader *reader, uint32_t *value)
{
    struct cv_slice bytes;
    bool is_read = cv_ssh_read_bytes(reader, 4, &bytes);
    *value = is_read ? cv_get_u32(bytes.data) : 0;
    return is_read;
}

bool cv_ssh_read_u64(struct cv_ssh_reader *reader, uint64_t *value)
{
    struct cv_slice bytes;
    bool is_read = cv_ssh_read_bytes(reader, 8, &bytes);
    *value = is_read ? cv_get_u64(bytes.data) : 0;
    return is_read;
}

bool cv_ssh_read_string(struct cv_ssh_reader *reader, struct cv_slice *value)
{
    uint32_t len;
    *value = (struct cv_slice){0};
    return cv_ssh_read_u32(reader, &len) && cv_ssh_read_bytes(reader, len, value);
}

bool cv_ssh_read_name_list(struct cv_ssh_reader *reader, struct cv_slice *value)
{
    if (!cv_ssh_read_string(reader, value))
        return false;
    bool is_valid = true;
    uint8_t before = ',';
    for (size_t i = 0; i < value->len; i++) {
        uint8_t c = value->data[i];
        is_valid = is_valid && c > ' ' && c < 0x7f && !(c == ',' && before == ',');
        before = c;
    }
    /* libssh 0.10 ends its list of ciphers with a comma; nothing can be hidden behind it. */
    if (value->len && before == ',')
        value->len--;
    if (!is_valid) {
        reader->is_failed = true;
        *value = (struct cv_slice){0};
    }
    return is_valid;
}

bool cv_ssh_name_list_next(struct cv_slice *list, struct cv_slice *name)
{
    if (list->len == 0)
        return false;
    *name = cv_slice_split(list, ',');
    return true;
}

bool cv_ssh_name_list_has(struct cv_slice list, struct cv_slice name)
{
    struct cv_slice item;
    while (cv_ssh_name_list_next(&list, &item)) {
        if (cv_slice_equal(item, name))
            return true;
    }
    return false;
}

/* Where to write `len` bytes, NULL when they do not fit. */
static uint8_t *writer_take(struct cv_ssh_writer *writer, size_t len)
{
    if (writer->is_failed || len > writer->size - writer->len) {
        writer->is_failed = true;
        return NULL;
    }
    uint8_t *at = writer->data + writer->len;
    writer->len += len;
    return at;
}

void cv_ssh_write_u8(struct cv_ssh_writer *writer, uint8_t value)
{
    uint8_t *at = writer_take(writer, 1);
    if (at)
        *at = value;
}

void cv_ssh_write_bool(struct cv_ssh_writer *writer, bool value)
{
    cv_ssh_write_u8(writer, value ? 1 : 0);
}

void cv_ssh_write_u32(struct cv_ssh_writer *writer, uint32_t value)
{
    uint8_t *at = writer_take(writer, 4);
    if (at)
        cv_put_u32(at, value);
}

void cv_ssh_write_u64(struct cv_ssh_writer *writer, uint64_t value)
{
    uint8_t *at = writer_take(writer, 8);
    if (at)
        cv_put_u64(at, value);
}

void cv_ssh_write_bytes(struct cv_ssh_writer *writer, struct cv_slice value)
{
    uint8_t *at = writer_take(writer, value.len);
    if (at && value.len)
        memcpy(at, value.data, value.len);
}

void cv_ssh_write_string(struct cv_ssh_writer *writer, struct cv_slice value)
{
    if (value.len > UINT32_MAX - 4) {
        writer->is_failed = true;
        return;
    }
    uint8_t *at = writer_take(writer, 4 + value.len);
    if (!at)
        return;
    cv_put_u32(at, (uint32_t)value.len);
    if (value.len)
        memcpy(at + 4, value.data, value.len);
}

void cv_ssh_write_str(struct cv_ssh_writer *writer, const char *text)
{
    cv_ssh_write_string(writer, cv_slice_str(text));
}

void cv_ssh_write_mpint(struct cv_ssh_writer *writer, struct cv_slice value)
{
    while (value.len && value.data[0] == 0) {
        value.data++;
        value.len--;
    }
    bool is_padded = value.len && (value.data[0] & 0x80);
    cv_ssh_write_u32(writer, (uint32_t)value.len + is_padded);
    if (is_padded)
        cv_ssh_write_u8(writer, 0);
    cv_ssh_write_bytes(writer, value);
}
