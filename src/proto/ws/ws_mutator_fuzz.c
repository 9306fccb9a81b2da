/* SPDX-License-Identifier: MIT
 *
 * The harness's mutator: reads an input as frames, changes one or two of them as frames, and writes
 * them out again with masks and lengths that are right, except where they are what was changed. A
 * byte-wise mutator breaks a length nearly every time, and then nothing behind it is reached.
 */
#include "proto/ws/ws_frame.h"
#include "proto/ws/ws_fuzzing.h"

#define ZLIB_CONST
#include <zlib.h>

enum { FRAMES_MAX = 64, PAYLOAD_MAX = 2048, INPUT_MAX = 1 << 16 };

/* How a length is written. */
enum form { SHORTEST, FORM_16, FORM_64, LIE };

struct frame {
    uint8_t first;
    bool is_masked;
    enum form form;
    uint64_t lie;
    uint8_t mask[CV_WS_MASK_LEN];
    uint8_t *payload; /* not masked */
    size_t len;
};

struct script {
    struct frame frames[FRAMES_MAX];
    size_t count;
    uint64_t random;
    bool is_server;
};

static size_t pick(struct script *script, size_t below)
{
    return (size_t)(cv_fuzz_random(&script->random) >> 16) % below;
}

static void set_payload(struct frame *frame, const void *data, size_t len)
{
    uint8_t *copy = cv_fuzz_copy(data, len);
    free(frame->payload);
    frame->payload = copy;
    frame->len = len;
}

/* ---- reading and writing ---- */

/* Takes a frame off the front, cut where the input ends. False when there is no header. */
static bool read_frame(struct cv_slice *rest, struct frame *frame)
{
    if (rest->len < 2)
        return false;
    const uint8_t *at = rest->data;
    uint8_t short_len = at[1] & CV_WS_BITS_LENGTH;
    size_t extra = short_len == CV_WS_LENGTH_16 ? 2 : short_len == CV_WS_LENGTH_64 ? 8 : 0;
    *frame = (struct frame){.first = at[0], .is_masked = (at[1] & CV_WS_BIT_MASK) != 0};
    size_t head = 2 + extra + (frame->is_masked ? CV_WS_MASK_LEN : 0);
    if (rest->len < head)
        return false;
    uint64_t len = extra == 2 ? cv_get_u16(at + 2) : extra == 8 ? cv_get_u64(at + 2) : short_len;
    if (frame->is_masked)
        memcpy(frame->mask, at + head - CV_WS_MASK_LEN, CV_WS_MASK_LEN);
    size_t take = len < rest->len - head ? (size_t)len : rest->len - head;
    set_payload(frame, at + head, take);
    if (frame->is_masked)
        cv_ws_mask(frame->payload, frame->payload, take, frame->mask, 0);
    if (take < len) {
        frame->form = LIE;
        frame->lie = len;
    } else if (extra) {
        frame->form = extra == 2 ? FORM_16 : FORM_64;
    }
    *rest = cv_slice(at + head + take, rest->len - head - take);
    return true;
}

/* Writes it at `to`; 0 when there is no room. */
static size_t write_frame(const struct frame *frame, uint8_t *to, size_t room)
{
    uint64_t len = frame->form == LIE ? frame->lie : frame->len;
    uint8_t bit = frame->is_masked ? CV_WS_BIT_MASK : 0;
    if (room < CV_WS_HEAD_MAX + frame->len)
        return 0;
    size_t at = 2;
    to[0] = frame->first;
    if ((frame->form == FORM_16 || (frame->form != FORM_64 && len > 125)) && len <= UINT16_MAX) {
        to[1] = bit | CV_WS_LENGTH_16;
        cv_put_u16(to + 2, (uint16_t)len);
        at += 2;
    } else if (frame->form == FORM_64 || len > 125) {
        to[1] = bit | CV_WS_LENGTH_64;
        cv_put_u64(to + 2, len);
        at += 8;
    } else {
        to[1] = (uint8_t)(bit | len);
    }
    if (frame->is_masked) {
        memcpy(to + at, frame->mask, CV_WS_MASK_LEN);
        at += CV_WS_MASK_LEN;
        cv_ws_mask(to + at, frame->payload, frame->len, frame->mask, 0);
    } else if (frame->len) {
        memcpy(to + at, frame->payload, frame->len);
    }
    return at + frame->len;
}

/* ---- payloads ---- */

static const char *const texts[] = {
    "",
    "a",
    "Hello",
    "\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5",
    "\xF0\x9F",
    "\x98\x80",
    "\xED\xA0\x80",
    "\xF4\x90\x80\x80",
    "\xC0\x80",
    "\xEF\xBF\xBF",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
};

static void put_text(struct script *script, struct frame *frame)
{
    const char *text = texts[pick(script, sizeof texts / sizeof texts[0])];
    set_payload(frame, text, strlen(text));
}

static void put_close(struct script *script, struct frame *frame)
{
    static const uint16_t codes[] = {0,    999,  1000, 1001, 1003, 1004, 1005, 1006, 1007,
                                     1011, 1012, 1014, 1015, 1016, 2999, 3000, 4999, 5000};
    uint8_t payload[2 + 8] = {0};
    cv_put_u16(payload, codes[pick(script, sizeof codes / sizeof codes[0])]);
    memcpy(payload + 2, "goodbye\xC3", 8);
    set_payload(frame, payload, pick(script, sizeof payload + 1));
    frame->first = CV_WS_BIT_FIN | CV_WS_CLOSE;
}

static void put_length(struct script *script, struct frame *frame)
{
    static const size_t lengths[] = {0, 1, 124, 125, 126, 127, 128, 499, 500, 501, 999, 1001, 2000};
    size_t len = lengths[pick(script, sizeof lengths / sizeof lengths[0])];
    uint8_t payload[PAYLOAD_MAX];
    memset(payload, 'x', sizeof payload);
    set_payload(frame, payload, len);
}

/* Compresses the payload as a sender of permessage-deflate may: one flush, two, or a final block.
 */
static void deflate_payload(struct script *script, struct frame *frame)
{
    static const int flushes[] = {Z_SYNC_FLUSH, Z_FULL_FLUSH, Z_FINISH, Z_PARTIAL_FLUSH};
    z_stream stream = {0};
    uint8_t out[2 * PAYLOAD_MAX + 64];
    int bits = 9 + (int)pick(script, 7), level = (int)pick(script, 10);
    int flush = flushes[pick(script, 4)];
    if (frame->len > PAYLOAD_MAX ||
        deflateInit2(&stream, level, Z_DEFLATED, -bits, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return;
    stream.next_in = frame->payload;
    stream.avail_in = (uInt)frame->len;
    stream.next_out = out;
    stream.avail_out = sizeof out;
    (void)deflate(&stream, flush);
    size_t len = sizeof out - stream.avail_out;
    (void)deflateEnd(&stream);
    if (flush != Z_FINISH && len > 4 && pick(script, 4))
        len -= 4; /* RFC 7692 §7.2.1 */
    set_payload(frame, out, len);
    frame->first |= CV_WS_BIT_RSV1;
}

static void mutate_payload(struct script *script, struct frame *frame)
{
    uint8_t bytes[PAYLOAD_MAX];
    if (frame->len > sizeof bytes)
        return;
    memcpy(bytes, frame->payload, frame->len);
    size_t len = LLVMFuzzerMutate(bytes, frame->len, sizeof bytes);
    set_payload(frame, bytes, len);
    (void)script;
}

/* ---- frames ---- */

static struct frame *open_gap(struct script *script, size_t at)
{
    memmove(script->frames + at + 1, script->frames + at,
            (script->count - at) * sizeof script->frames[0]);
    script->count++;
    script->frames[at] = (struct frame){.is_masked = script->is_server, .mask = {1, 2, 3, 4}};
    return &script->frames[at];
}

static void insert_frame(struct script *script)
{
    static const uint8_t firsts[] = {0x81, 0x82, 0x01, 0x02, 0x00, 0x80,
                                     0x88, 0x89, 0x8A, 0xC1, 0xC2, 0x41};
    struct frame *frame = open_gap(script, pick(script, script->count + 1));
    frame->first = firsts[pick(script, sizeof firsts)];
    put_text(script, frame);
    if (frame->first & CV_WS_BIT_RSV1 && pick(script, 4))
        deflate_payload(script, frame);
}

/* Makes two frames of one: a fragment and its continuation (RFC 6455 §5.4). */
static void split_frame(struct script *script, size_t at)
{
    struct frame *second = open_gap(script, at + 1), *first = &script->frames[at];
    size_t cut = first->len ? pick(script, first->len + 1) : 0;
    second->first = first->first & CV_WS_BIT_FIN;
    second->is_masked = first->is_masked;
    set_payload(second, first->payload + cut, first->len - cut);
    first->first &= (uint8_t)~CV_WS_BIT_FIN;
    first->len = cut;
}

static void remove_frame(struct script *script, size_t at)
{
    free(script->frames[at].payload);
    script->count--;
    memmove(script->frames + at, script->frames + at + 1,
            (script->count - at) * sizeof script->frames[0]);
}

static void double_frame(struct script *script, size_t at)
{
    struct frame *copy = open_gap(script, at);
    *copy = script->frames[at + 1];
    copy->payload = NULL;
    set_payload(copy, script->frames[at + 1].payload, copy->len);
}

static void change_header(struct script *script, struct frame *frame)
{
    static const uint64_t lies[] = {0, 126,        65536,           501, UINT32_MAX, INT64_MAX,
                                    1, 1ULL << 63, (1ULL << 20) + 1};
    switch (pick(script, 7)) {
    case 0:
        frame->first ^= CV_WS_BIT_FIN;
        return;
    case 1:
        frame->first ^= (uint8_t)(0x10U << pick(script, 3));
        return;
    case 2:
        frame->first = (uint8_t)((frame->first & 0xF0U) | pick(script, 16));
        return;
    case 3:
        frame->is_masked = !frame->is_masked;
        return;
    case 4:
        cv_put_u32(frame->mask, (uint32_t)cv_fuzz_random(&script->random));
        return;
    case 5:
        frame->form = LIE;
        frame->lie = lies[pick(script, sizeof lies / sizeof lies[0])];
        return;
    default:
        frame->form = (enum form)pick(script, LIE);
        return;
    }
}

static void change_frame(struct script *script)
{
    bool has_room = script->count + 1 < FRAMES_MAX;
    if (script->count == 0) {
        insert_frame(script);
        return;
    }
    size_t at = pick(script, script->count);
    struct frame *frame = &script->frames[at];
    switch (pick(script, 12)) {
    case 0:
        change_header(script, frame);
        return;
    case 1:
        put_text(script, frame);
        return;
    case 2:
        put_close(script, frame);
        return;
    case 3:
        put_length(script, frame);
        return;
    case 4:
        deflate_payload(script, frame);
        return;
    case 5:
        remove_frame(script, at);
        return;
    case 6:
    case 7:
        if (has_room)
            insert_frame(script);
        return;
    case 8:
        if (has_room)
            split_frame(script, at);
        return;
    case 9:
        if (has_room)
            double_frame(script, at);
        return;
    default:
        mutate_payload(script, frame);
        return;
    }
}

static size_t write_script(struct script *script, uint8_t *to, size_t room)
{
    size_t len = 0;
    for (size_t i = 0; i < script->count; i++)
        len += write_frame(&script->frames[i], to + len, room - len);
    for (size_t i = 0; i < script->count; i++)
        free(script->frames[i].payload);
    return len;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct script script = {.random = seed * 2654435761ULL + 1};
    (void)cv_fuzz_random(&script.random);
    bool is_plain = size < CV_WS_FUZZ_PREFIX || max_size <= CV_WS_FUZZ_PREFIX || size > INPUT_MAX ||
                    (data[0] & CV_WS_FUZZ_FIELDS);
    if (is_plain || pick(&script, 8) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    if (pick(&script, 8) == 0) {
        data[pick(&script, CV_WS_FUZZ_PREFIX)] ^= (uint8_t)(1U << pick(&script, 7));
        return size;
    }
    script.is_server = data[0] & CV_WS_FUZZ_SERVER;
    struct cv_slice rest = cv_slice(data + CV_WS_FUZZ_PREFIX, size - CV_WS_FUZZ_PREFIX);
    while (script.count < FRAMES_MAX && read_frame(&rest, &script.frames[script.count]))
        script.count++;
    for (size_t left = 1 + pick(&script, 2); left > 0; left--)
        change_frame(&script);
    return CV_WS_FUZZ_PREFIX +
           write_script(&script, data + CV_WS_FUZZ_PREFIX, max_size - CV_WS_FUZZ_PREFIX);
}
