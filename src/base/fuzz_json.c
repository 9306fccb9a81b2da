/* SPDX-License-Identifier: MIT */
#include "base/fuzz.h"

enum { VALUES_MAX = 128, PIECE_MAX = 4096 };

/* A value in the text, and where its member begins: at the key, or at the value itself. */
struct value {
    size_t member;
    size_t start;
    size_t end;
};

static size_t string_end(const uint8_t *data, size_t size, size_t at)
{
    for (at++; at < size && data[at] != '"'; at++)
        if (data[at] == '\\')
            at++;
    return at < size ? at + 1 : size;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static size_t skip_blank(const uint8_t *data, size_t size, size_t at)
{
    while (at < size && is_blank(data[at]))
        at++;
    return at;
}

/* Behind the value that begins at `at`: a string, what brackets hold, or a word. */
static size_t value_end(const uint8_t *data, size_t size, size_t at)
{
    size_t depth = 0;
    if (data[at] == '"')
        return string_end(data, size, at);
    if (data[at] != '{' && data[at] != '[') {
        while (at < size && !memchr(",:]}\"[{", data[at], 7) && !is_blank(data[at]))
            at++;
        return at;
    }
    while (at < size) {
        if (data[at] == '"') {
            at = string_end(data, size, at);
            continue;
        }
        depth += data[at] == '{' || data[at] == '[';
        depth -= data[at] == '}' || data[at] == ']';
        at++;
        if (depth == 0)
            break;
    }
    return at;
}

static size_t find_values(const uint8_t *data, size_t size, struct value *values)
{
    size_t count = 0, at = 0;
    while (count < VALUES_MAX && (at = skip_blank(data, size, at)) < size) {
        if (memchr(",:]}", data[at], 4)) {
            at++;
            continue;
        }
        size_t member = at, end = value_end(data, size, at);
        size_t behind = skip_blank(data, size, end);
        if (data[at] == '"' && behind < size && data[behind] == ':') {
            at = skip_blank(data, size, behind + 1);
            if (at == size)
                break;
            end = value_end(data, size, at);
        }
        if (end > at)
            values[count++] = (struct value){member, at, end};
        at = data[at] == '{' || data[at] == '[' || end == at ? at + 1 : end;
    }
    return count;
}

/* Puts `piece` in the place of [at, end); gives up when it does not fit. */
static size_t splice(uint8_t *data, size_t size, size_t max_size, size_t at, size_t end,
                     const void *piece, size_t len)
{
    if (size - (end - at) + len > max_size)
        return size;
    memmove(data + at + len, data + end, size - end);
    memcpy(data + at, piece, len);
    return size - (end - at) + len;
}

static size_t remove_member(uint8_t *data, size_t size, const struct value *value)
{
    size_t at = value->member, end = skip_blank(data, size, value->end);
    if (end < size && data[end] == ',')
        end++;
    else if (at > 0 && data[at - 1] == ',')
        at--;
    return splice(data, size, size, at, end, "", 0);
}

static size_t double_member(uint8_t *data, size_t size, size_t max_size, const struct value *value)
{
    uint8_t piece[PIECE_MAX];
    size_t len = value->end - value->member;
    if (len + 1 > sizeof piece)
        return size;
    piece[0] = ',';
    memcpy(piece + 1, data + value->member, len);
    return splice(data, size, max_size, value->end, value->end, piece, len + 1);
}

static size_t nest(uint8_t *data, size_t size, size_t max_size, const struct value *value,
                   uint64_t *random)
{
    uint8_t piece[PIECE_MAX];
    size_t depth = 1 + cv_fuzz_random(random) % (cv_fuzz_random(random) % 8 ? 3 : 40);
    size_t len = value->end - value->start;
    if (len + 2 * depth > sizeof piece)
        return size;
    memset(piece, '[', depth);
    memcpy(piece + depth, data + value->start, len);
    memset(piece + depth + len, ']', depth);
    return splice(data, size, max_size, value->start, value->end, piece, len + 2 * depth);
}

static size_t change_inside(uint8_t *data, size_t size, size_t max_size, const struct value *value)
{
    uint8_t piece[PIECE_MAX];
    size_t len = value->end - value->start;
    if (len < 2 || len > sizeof piece)
        return size;
    memcpy(piece, data + value->start, len);
    size_t inner = LLVMFuzzerMutate(piece + 1, len - 2, sizeof piece - 2);
    piece[inner + 1] = data[value->end - 1];
    return splice(data, size, max_size, value->start, value->end, piece, inner + 2);
}

static size_t replace(uint8_t *data, size_t size, size_t max_size, const struct value *value,
                      uint64_t *random)
{
    static const char *const awkward[] = {"null",
                                          "true",
                                          "false",
                                          "0",
                                          "-1",
                                          "1",
                                          "1e400",
                                          "1.5",
                                          "-0",
                                          "2147483648",
                                          "4294967296",
                                          "9007199254740993",
                                          "1700000000",
                                          "\"\"",
                                          "[]",
                                          "{}",
                                          "\"a\\u0000b\"",
                                          "9223372036854775807",
                                          "\"\\ud800\"",
                                          "\"0\"",
                                          "[\"a\"]",
                                          "\"none\"",
                                          "\"\\u007f\"",
                                          "18446744073709551616"};
    const char *text = awkward[cv_fuzz_random(random) % (sizeof awkward / sizeof awkward[0])];
    return splice(data, size, max_size, value->start, value->end, text, strlen(text));
}

size_t cv_fuzz_json(uint8_t *data, size_t size, size_t max_size, uint64_t *random)
{
    struct value values[VALUES_MAX];
    uint8_t piece[PIECE_MAX];
    size_t count = find_values(data, size, values);
    if (count == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    const struct value *one = &values[cv_fuzz_random(random) % count];
    const struct value *other = &values[cv_fuzz_random(random) % count];
    switch (cv_fuzz_random(random) % 8) {
    case 0:
        return replace(data, size, max_size, one, random);
    case 1:
        if (other->end - other->start > sizeof piece)
            return size;
        memcpy(piece, data + other->start, other->end - other->start);
        return splice(data, size, max_size, one->start, one->end, piece, other->end - other->start);
    case 2:
        return double_member(data, size, max_size, one);
    case 3:
        return remove_member(data, size, one);
    case 4:
        return nest(data, size, max_size, one, random);
    case 5:
        return LLVMFuzzerMutate(data, size, max_size);
    default:
        return change_inside(data, size, max_size, one);
    }
}
