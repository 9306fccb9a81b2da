/* SPDX-License-Identifier: MIT
 *
 * The mutator of http_fuzz: changes a message where its structure is — lines, field values, line
 * ends, start lines, chunks — and now and then makes lengths and chunk sizes fit again, so that
 * what follows is reached. Input byte 0 is the harness's choice of modes, the message follows.
 */
#include "base/fuzz.h"
#include "proto/http/http_chars.h"

struct text {
    uint8_t *data;
    size_t len, max;
    uint64_t random;
};

struct range {
    size_t start, end;
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *const line_ends[] = {"\r\n",   "\n",    "\r",       "\r\r\n", "\r\n ",
                                        "\r\n\t", " \r\n", "\r\n\r\n", "",       "\n\r\n"};
static const char *const fields[] = {
    "Host: a\r\n",
    "Host: b:80\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "Content_Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, X-A\r\n",
    "Connection: Upgrade\r\n",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "TE: trailers\r\n",
    "Trailer: X-T\r\n",
    "X-A: b\r\n",
    "X-Empty:\r\n",
};
static const char *const values[] = {
    "chunked",     "identity",
    "gzip",        ",chunked",
    "chunked,",    "chunked;q=1",
    "\"chunked\"", "xchunked",
    "CHUNKED",     "0",
    "1",           "3",
    "03",          "+3",
    "-3",          "0x3",
    "3,3",         "3 3",
    "1_0",         "close",
    "Keep-Alive",  "upgrade",
    "h2c",         "a",
    "[::1]:80",    "a:0",
    "u@a",         "a/b",
    "websocket",   "",
    "\t x \t",     "\"a, b\"",
    "\xc3\xa4x",   "9223372036854775807",
};
static const char *const noise[] = {" ",    "\t", "\v", "\f",   "\x7f", "\x85", "\xa0",
                                    "\xff", ",",  ";",  "\\\"", "#",    "%00",  "\x01"};
static const char *const starts[] = {
    "GET / HTTP/1.1\r\n",
    "POST /a?b HTTP/1.1\r\n",
    "HEAD / HTTP/1.0\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET http://a/x HTTP/1.1\r\n",
    "CONNECT a:80 HTTP/1.1\r\n",
    "PUT /%2e%2e/ HTTP/1.1\r\n",
    "GET / HTTP/1.2\r\n",
    "PRI * HTTP/2.0\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 100 Continue\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n",
};
static const char *const messages[] = {
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\nuntil the end",
};
static const char *const chunks[] = {"3\r\nabc\r\n",
                                     "A\r\n0123456789\r\n",
                                     "0\r\n\r\n",
                                     "0\r\nX-T: 1\r\n\r\n",
                                     "1;a=b\r\nx\r\n",
                                     "1;a=\"b\"\r\nx\r\n",
                                     "1 ;a\r\nx\r\n",
                                     "000000000000000001\r\nx\r\n",
                                     "0x1\r\nx\r\n",
                                     "+1\r\nx\r\n",
                                     "1_0\r\nx\r\n",
                                     "1;\r\nx\r\n",
                                     "ffffffffffffffff\r\n",
                                     "0;a\r\n\r\n",
                                     "\r\n",
                                     "1\r\nx",
                                     "1\nx\n",
                                     "1;a=\n\r\nx\r\n",
                                     "1\r\r\nx\r\n",
                                     "0\r\nContent-Length: 1\r\n\r\n",
                                     "7fffffffffffffff\r\n",
                                     "1;a=\"\\\"\"\r\nx\r\n"};

static size_t below(struct text *t, size_t n)
{
    return n ? (size_t)(cv_fuzz_random(&t->random) % n) : 0;
}

#define PICK(t, array) (array)[below(t, COUNT(array))]

/* Puts `with` in the place of the range. */
static void replace(struct text *t, struct range range, const void *with, size_t len)
{
    size_t cut = range.end - range.start;
    if (t->len - cut + len > t->max)
        return;
    memmove(t->data + range.start + len, t->data + range.end, t->len - range.end);
    if (len)
        memcpy(t->data + range.start, with, len);
    t->len += len - cut;
}

static void replace_str(struct text *t, struct range range, const char *with)
{
    replace(t, range, with, strlen(with));
}

/* A line with its end, chosen at random; empty when there is none. */
static struct range any_line(struct text *t)
{
    size_t count = 0, start = 1;
    for (size_t i = 1; i < t->len; i++)
        count += t->data[i] == '\n';
    size_t left = below(t, count + 1);
    for (size_t i = 1; i < t->len; i++) {
        if (t->data[i] != '\n')
            continue;
        if (left-- == 0)
            return (struct range){start, i + 1};
        start = i + 1;
    }
    return (struct range){start, t->len};
}

static size_t content_end(const struct text *t, struct range line)
{
    size_t end = line.end;
    while (end > line.start && (t->data[end - 1] == '\n' || t->data[end - 1] == '\r'))
        end--;
    return end;
}

static void double_line(struct text *t, struct range line)
{
    uint8_t *copy = cv_fuzz_copy(t->data + line.start, line.end - line.start);
    struct range other = below(t, 2) ? any_line(t) : line;
    replace(t, (struct range){other.start, other.start}, copy, line.end - line.start);
    free(copy);
}

/* Another value, or noise around the colon. */
static void change_field(struct text *t, struct range line)
{
    size_t end = content_end(t, line);
    uint8_t *colon = end > line.start ? memchr(t->data + line.start, ':', end - line.start) : NULL;
    if (!colon)
        return;
    size_t at = (size_t)(colon - t->data);
    switch (below(t, 4)) {
    case 0:
        replace_str(t, (struct range){at, at}, PICK(t, noise));
        break;
    case 1:
        replace_str(t, (struct range){at + 1, at + 1}, PICK(t, noise));
        break;
    case 2:
        replace_str(t, (struct range){end, end}, PICK(t, noise));
        break;
    default:
        replace_str(t, (struct range){at + 1, end}, PICK(t, values));
        break;
    }
}

/* Behind the k-th empty line: where a body or the next message begins. */
static size_t any_head_end(struct text *t)
{
    size_t found = t->len;
    for (size_t i = 5; i <= t->len; i++) {
        if (memcmp(t->data + i - 4, "\r\n\r\n", 4) != 0)
            continue;
        found = i;
        if (below(t, 2))
            break;
    }
    return found;
}

static void add_chunk(struct text *t)
{
    size_t at = below(t, 2) ? any_head_end(t) : any_line(t).start;
    replace_str(t, (struct range){at, at}, PICK(t, chunks));
}

/* Content-Length as long as what follows the head. */
static void repair_length(struct text *t)
{
    static const char name[] = "Content-Length:";
    char number[24];
    size_t end = any_head_end(t);
    for (size_t i = 1; i + sizeof name - 1 <= end; i++) {
        if (memcmp(t->data + i, name, sizeof name - 1) != 0)
            continue;
        size_t from = i + sizeof name - 1, to = from;
        while (to < t->len && t->data[to] != '\r' && t->data[to] != '\n')
            to++;
        (void)snprintf(number, sizeof number, " %zu", t->len - end);
        replace_str(t, (struct range){from, to}, number);
        return;
    }
}

/* A chunk size that fits the data up to some later line end. */
static void repair_chunk(struct text *t)
{
    struct range line = any_line(t);
    size_t digits = line.start, end = line.end;
    char number[24];
    while (digits < line.end && cv_http_chars[t->data[digits]] & CV_HTTP_HEXDIG)
        digits++;
    if (digits == line.start)
        return;
    for (size_t i = line.end; i + 1 < t->len; i++) {
        if (t->data[i] != '\r' || t->data[i + 1] != '\n')
            continue;
        end = i;
        if (below(t, 2))
            break;
    }
    (void)snprintf(number, sizeof number, "%zx", end - line.end);
    replace_str(t, (struct range){line.start, digits}, number);
}

static void mutate_once(struct text *t)
{
    struct range line = any_line(t);
    struct range before = {line.start, line.start};
    switch (below(t, 13)) {
    case 0:
        replace(t, line, NULL, 0);
        break;
    case 1:
        double_line(t, line);
        break;
    case 2:
        replace_str(t, before, PICK(t, fields));
        break;
    case 3:
        replace_str(t, (struct range){content_end(t, line), line.end}, PICK(t, line_ends));
        break;
    case 4:
    case 5:
        change_field(t, line);
        break;
    case 6:
        replace_str(t, below(t, 2) ? line : before, PICK(t, starts));
        break;
    case 7:
        before.start = before.end = below(t, 2) ? any_head_end(t) : t->len;
        replace_str(t, before, PICK(t, messages));
        break;
    case 8:
    case 9:
        add_chunk(t);
        break;
    case 10:
        repair_length(t);
        break;
    case 11:
        repair_chunk(t);
        break;
    default:
        t->data[0] = (uint8_t)cv_fuzz_random(&t->random);
        break;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct text text = {data, size, max_size, ((uint64_t)seed << 1) | 1};
    if (size < 2 || below(&text, 4) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    for (size_t left = 1 + below(&text, 3); left > 0; left--)
        mutate_once(&text);
    return text.len;
}
