/* SPDX-License-Identifier: MIT
 *
 * Line by line: what SSE puts in front of an event, then a JSON text, of which only names of
 * members and the values that matter are looked at. A string with ':' behind it is a name; in JSON
 * a quote inside a string is escaped (RFC 8259 §7), so that nothing a model writes can pass for
 * one, and names count at the depth where they belong alone.
 */
#include "telemetry/model_stream.h"

#include <string.h>

enum { MODEL_STREAM_TRIES = 4 };

enum state {
    LINE_START, /* SSE: in front of `data` … */
    LINE_D,
    LINE_DA,
    LINE_DAT,
    LINE_DATA,
    LINE_COLON, /* … then its value begins */
    JSON_OUT,   /* between tokens */
    JSON_STRING,
    JSON_NUMBER,
    SKIP, /* to the end of the line */
};

enum member {
    MEMBER_OTHER,
    MEMBER_TEXT, /* a token is in it */
    MEMBER_CHOICES,
    MEMBER_USAGE,
    MEMBER_PROMPT,
    MEMBER_COMPLETION,
    MEMBER_DURATION,
    MEMBER_DONE,
};

/* Depth 0: at any. */
#define NAME(text) text, sizeof(text) - 1
static const struct {
    char name[CV_MODEL_NAME_MAX + 1];
    uint8_t len, framing, depth;
    bool is_in_usage;
    enum member member;
} members[] = {
    {NAME("content"), CV_MODEL_NO_STREAM, 0, false, MEMBER_TEXT},
    {NAME("text"), CV_MODEL_SSE, 3, false, MEMBER_TEXT},
    {NAME("reasoning_content"), CV_MODEL_SSE, 4, false, MEMBER_TEXT},
    {NAME("reasoning"), CV_MODEL_SSE, 4, false, MEMBER_TEXT},
    {NAME("arguments"), CV_MODEL_SSE, 0, false, MEMBER_TEXT},
    {NAME("response"), CV_MODEL_NDJSON, 1, false, MEMBER_TEXT},
    {NAME("thinking"), CV_MODEL_NDJSON, 0, false, MEMBER_TEXT},
    {NAME("choices"), CV_MODEL_SSE, 1, false, MEMBER_CHOICES},
    {NAME("usage"), CV_MODEL_SSE, 1, false, MEMBER_USAGE},
    {NAME("prompt_tokens"), CV_MODEL_SSE, 2, true, MEMBER_PROMPT},
    {NAME("completion_tokens"), CV_MODEL_SSE, 2, true, MEMBER_COMPLETION},
    {NAME("done"), CV_MODEL_NDJSON, 1, false, MEMBER_DONE},
    {NAME("prompt_eval_count"), CV_MODEL_NDJSON, 1, false, MEMBER_PROMPT},
    {NAME("eval_count"), CV_MODEL_NDJSON, 1, false, MEMBER_COMPLETION},
    {NAME("eval_duration"), CV_MODEL_NDJSON, 1, false, MEMBER_DURATION},
};

/* Most names are of a length that none of these has. */
#define LEN(text) (1u << (sizeof(text) - 1))
static const uint32_t name_lens = LEN("done") | LEN("usage") | LEN("content") | LEN("response") |
                                  LEN("reasoning") | LEN("eval_count") | LEN("prompt_tokens") |
                                  LEN("completion_tokens");

void cv_model_stream_init(struct cv_model_stream *stream, enum cv_model_framing framing)
{
    *stream = (struct cv_model_stream){.is_on = framing != CV_MODEL_NO_STREAM,
                                       .framing = (uint8_t)framing,
                                       .api = CV_MODEL_UNKNOWN,
                                       .state = framing == CV_MODEL_NDJSON ? JSON_OUT : LINE_START};
}

/* ---- values ---- */

static enum member member_of(const struct cv_model_stream *s)
{
    if (!(name_lens >> s->name_len & 1))
        return MEMBER_OTHER;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if (s->name_len == members[i].len && memcmp(s->name, members[i].name, s->name_len) == 0 &&
            (members[i].framing == CV_MODEL_NO_STREAM || members[i].framing == s->framing) &&
            (!members[i].depth || members[i].depth == s->depth) &&
            (!members[i].is_in_usage || s->is_in_usage))
            return members[i].member;
    return MEMBER_OTHER;
}

static void on_name(struct cv_model_stream *s)
{
    s->member = (uint8_t)member_of(s);
    s->name_len = 0;
    if (s->member == MEMBER_CHOICES)
        s->api = CV_MODEL_OPENAI;
    else if (s->member == MEMBER_DONE)
        s->api = CV_MODEL_OLLAMA;
}

static void on_text(struct cv_model_stream *s, uint64_t now_ns)
{
    if (!s->first_ns)
        s->first_ns = now_ns;
    s->last_ns = now_ns;
}

static void on_number(struct cv_model_stream *s)
{
    bool is_good = !s->is_negative;
    switch (s->member) {
    case MEMBER_PROMPT:
        s->has_prompt = is_good && s->number <= CV_MODEL_TOKENS_MAX;
        s->prompt_tokens = s->has_prompt ? s->number : 0;
        break;
    case MEMBER_COMPLETION:
        s->has_completion = is_good && s->number <= CV_MODEL_TOKENS_MAX;
        s->completion_tokens = s->has_completion ? s->number : 0;
        break;
    case MEMBER_DURATION:
        s->generation_ns = is_good ? s->number : 0;
        break;
    default:
        break;
    }
    s->member = MEMBER_OTHER;
}

/* ---- tokens ---- */

static void on_line_end(struct cv_model_stream *s)
{
    bool was_event = s->state >= JSON_OUT && s->state != SKIP;
    if (s->state == JSON_NUMBER)
        on_number(s);
    if (was_event && s->api == CV_MODEL_UNKNOWN && ++s->tries >= MODEL_STREAM_TRIES)
        s->is_on = false;
    s->state = s->framing == CV_MODEL_NDJSON ? JSON_OUT : LINE_START;
    s->depth = s->member = s->name_len = 0;
    s->is_in_usage = s->is_escaped = false;
}

static void open_level(struct cv_model_stream *s, bool is_object)
{
    if (s->depth == CV_MODEL_DEPTH_MAX) {
        s->state = SKIP;
        return;
    }
    s->depth++;
    if (s->member == MEMBER_USAGE)
        s->is_in_usage = is_object;
    s->member = MEMBER_OTHER;
}

static void close_level(struct cv_model_stream *s)
{
    if (s->depth)
        s->depth--;
    if (s->depth < 2)
        s->is_in_usage = false;
    s->member = MEMBER_OTHER;
}

static void take_between(struct cv_model_stream *s, uint8_t byte)
{
    switch (byte) {
    case '"':
        s->state = JSON_STRING;
        s->name_len = 0;
        s->is_string_empty = true;
        break;
    case ':':
        on_name(s);
        break;
    case '{':
    case '[':
        open_level(s, byte == '{');
        break;
    case '}':
    case ']':
        close_level(s);
        break;
    case ',':
        s->member = MEMBER_OTHER;
        break;
    case 't': /* true */
        s->is_done |= s->member == MEMBER_DONE;
        break;
    case 'D': /* [DONE] */
        if (s->framing == CV_MODEL_SSE && s->depth == 1) {
            s->is_done = true;
            s->state = SKIP;
        }
        break;
    default:
        if (s->member != MEMBER_OTHER && (byte == '-' || (byte >= '0' && byte <= '9'))) {
            s->is_negative = byte == '-';
            s->number = s->is_negative ? 0 : (uint64_t)(byte - '0');
            s->state = JSON_NUMBER;
        }
        break;
    }
}

#define EACH_BYTE(byte) (0x0101010101010101u * (byte))

/* The high bit of the lowest byte of `word` that is `byte`; bits above it mean nothing. */
static uint64_t find_byte(uint64_t word, uint8_t byte)
{
    uint64_t zeroed = word ^ EACH_BYTE(byte);
    return (zeroed - EACH_BYTE(1u)) & ~zeroed & EACH_BYTE(0x80u);
}

/* How many bytes there are in front of a quote, a backslash or the end of the line: eight at a
 * time, since most of a stream is inside strings. */
static size_t plain_len(const uint8_t *data, size_t len)
{
    size_t i = 0;
    for (uint64_t word; len - i >= sizeof word; i += sizeof word) {
        memcpy(&word, data + i, sizeof word);
        if (find_byte(word, '"') | find_byte(word, '\\') | find_byte(word, '\n'))
            break;
    }
    while (i < len && data[i] != '"' && data[i] != '\\' && data[i] != '\n')
        i++;
    return i;
}

static void take_name(struct cv_model_stream *s, const uint8_t *data, size_t len)
{
    s->is_string_empty &= len == 0;
    if (s->name_len + len > CV_MODEL_NAME_MAX) {
        s->name_len = CV_MODEL_NAME_MAX + 1;
        return;
    }
    memcpy(s->name + s->name_len, data, len);
    s->name_len = (uint8_t)(s->name_len + len);
}

/* Takes the bytes of a string; returns how many. */
static size_t take_string(struct cv_model_stream *s, const uint8_t *data, size_t len,
                          uint64_t now_ns)
{
    if (s->is_escaped) {
        s->is_escaped = s->is_string_empty = false;
        s->name_len = CV_MODEL_NAME_MAX + 1; /* no name of ours has one */
        return 1;
    }
    size_t plain = plain_len(data, len);
    take_name(s, data, plain);
    if (plain == len || data[plain] == '\n')
        return plain; /* a line's end in a string is no JSON: who calls sees to it */
    if (data[plain] == '\\') {
        s->is_escaped = true;
        return plain + 1;
    }
    if (s->member == MEMBER_TEXT && !s->is_string_empty)
        on_text(s, now_ns);
    s->state = JSON_OUT;
    return plain + 1;
}

static void take_number(struct cv_model_stream *s, uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        if (s->number <= CV_MODEL_TOKENS_MAX * 1000000)
            s->number = s->number * 10 + (uint64_t)(byte - '0');
        return;
    }
    /* A fraction or an exponent is no count; what is in front of it stands. */
    on_number(s);
    s->state = JSON_OUT;
    if (byte == ',' || byte == '}' || byte == ']')
        take_between(s, byte);
}

/* In front of an event's value: "data:" and one space. */
static void take_prefix(struct cv_model_stream *s, uint8_t byte)
{
    static const char word[] = "data:";
    if (s->state == LINE_COLON) {
        s->state = JSON_OUT;
        if (byte != ' ')
            take_between(s, byte);
    } else if (byte == (uint8_t)word[s->state - LINE_START]) {
        s->state++;
    } else {
        s->state = SKIP; /* a comment, or another field */
    }
}

/* The end of the line, or of the data. */
static size_t skip_line(const uint8_t *data, size_t len)
{
    const uint8_t *end = memchr(data, '\n', len);
    return end ? (size_t)(end - data) : len;
}

void cv_model_stream_feed(struct cv_model_stream *s, struct cv_slice data, uint64_t now_ns)
{
    for (size_t i = 0; i < data.len && s->is_on;) {
        uint8_t byte = data.data[i];
        if (s->state == SKIP && byte != '\n') {
            i += skip_line(data.data + i, data.len - i);
            continue;
        }
        if (s->state == JSON_STRING && byte != '\n') {
            i += take_string(s, data.data + i, data.len - i, now_ns);
            continue;
        }
        i++;
        if (byte == '\n')
            on_line_end(s);
        else if (s->state < JSON_OUT)
            take_prefix(s, byte);
        else if (s->state == JSON_NUMBER)
            take_number(s, byte);
        else
            take_between(s, byte);
    }
}

/* ---- what came out ---- */

/* The service's own measure where there is one, else from the first to the last token: then the
 * first one took no part of that time. */
static double speed_of(const struct cv_model_stream *s)
{
    if (!s->has_completion)
        return 0;
    if (s->generation_ns)
        return (double)s->completion_tokens * 1e9 / (double)s->generation_ns;
    if (s->completion_tokens < 2 || s->last_ns <= s->first_ns)
        return 0;
    return (double)(s->completion_tokens - 1) * 1e9 / (double)(s->last_ns - s->first_ns);
}

struct cv_model_numbers cv_model_stream_numbers(const struct cv_model_stream *s)
{
    return (struct cv_model_numbers){.api = (enum cv_model_api)s->api,
                                     .is_done = s->is_done,
                                     .first_ns = s->first_ns,
                                     .has_prompt = s->has_prompt,
                                     .has_completion = s->has_completion,
                                     .prompt_tokens = s->prompt_tokens,
                                     .completion_tokens = s->completion_tokens,
                                     .tokens_per_second = speed_of(s)};
}
