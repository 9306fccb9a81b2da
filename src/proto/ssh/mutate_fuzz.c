/* SPDX-License-Identifier: MIT
 *
 * Mutates the inputs of the SSH fuzzers without losing their shape (ssh_fuzz.h): records come, go,
 * double and change places; new ones are whole messages of the protocol; in a message a single
 * field is changed, with the lengths put right, so that the parser behind them is reached. A part
 * of the time libFuzzer's own mutations are let loose on all of it.
 */
#include "proto/ssh/ssh_fuzz.h"

size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2,
                                 size_t size2, uint8_t *out, size_t max_size, unsigned seed);

/* Fields by letter: u uint32, b boolean or byte, s string, n name-list, c 16 bytes, k a string of
 * 32 bytes, * whatever follows. */
struct shape {
    uint8_t number;
    const char *name; /* the first string, where it decides what follows */
    const char *fields;
};

static const struct shape shapes[] = {
    {CV_SSH_MSG_DISCONNECT, NULL, "uss"},
    {CV_SSH_MSG_IGNORE, NULL, "s"},
    {CV_SSH_MSG_UNIMPLEMENTED, NULL, "u"},
    {CV_SSH_MSG_DEBUG, NULL, "bss"},
    {CV_SSH_MSG_SERVICE_REQUEST, "ssh-userauth", "s"},
    {CV_SSH_MSG_SERVICE_ACCEPT, "ssh-userauth", "s"},
    {CV_SSH_MSG_EXT_INFO, NULL, "us*"},
    {CV_SSH_MSG_KEXINIT, NULL, "cnnnnnnnnnnbu"},
    {CV_SSH_MSG_NEWKEYS, NULL, ""},
    {CV_SSH_MSG_KEX_ECDH_INIT, NULL, "k"},
    {CV_SSH_MSG_KEX_ECDH_REPLY, NULL, "hkg"},
    {CV_SSH_MSG_USERAUTH_REQUEST, "alice", "sSM"},
    {CV_SSH_MSG_USERAUTH_FAILURE, NULL, "nb"},
    {CV_SSH_MSG_USERAUTH_SUCCESS, NULL, ""},
    {CV_SSH_MSG_USERAUTH_BANNER, NULL, "ss"},
    {CV_SSH_MSG_GLOBAL_REQUEST, "tcpip-forward", "sbsu"},
    {CV_SSH_MSG_GLOBAL_REQUEST, "cancel-tcpip-forward", "sbsu"},
    {CV_SSH_MSG_GLOBAL_REQUEST, "tunnel@culvert", "sb*"},
    {CV_SSH_MSG_GLOBAL_REQUEST, "hostkeys-00@openssh.com", "sbs"},
    {CV_SSH_MSG_GLOBAL_REQUEST, "keepalive@openssh.com", "sb"},
    {CV_SSH_MSG_REQUEST_SUCCESS, NULL, "*"},
    {CV_SSH_MSG_REQUEST_FAILURE, NULL, ""},
    {CV_SSH_MSG_CHANNEL_OPEN, "direct-tcpip", "siuusisi"},
    {CV_SSH_MSG_CHANNEL_OPEN, "forwarded-tcpip", "siuusisi"},
    {CV_SSH_MSG_CHANNEL_OPEN, "session", "siuu"},
    {CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION, NULL, "iiuu"},
    {CV_SSH_MSG_CHANNEL_OPEN_FAILURE, NULL, "iiss"},
    {CV_SSH_MSG_CHANNEL_WINDOW_ADJUST, NULL, "iu"},
    {CV_SSH_MSG_CHANNEL_DATA, NULL, "is"},
    {CV_SSH_MSG_CHANNEL_EXTENDED_DATA, NULL, "iis"},
    {CV_SSH_MSG_CHANNEL_EOF, NULL, "i"},
    {CV_SSH_MSG_CHANNEL_CLOSE, NULL, "i"},
    {CV_SSH_MSG_CHANNEL_REQUEST, NULL, "isb*"},
    {CV_SSH_MSG_CHANNEL_SUCCESS, NULL, "i"},
    {CV_SSH_MSG_CHANNEL_FAILURE, NULL, "i"},
};

static const char *const lists[] = {
    "curve25519-sha256", "ssh-ed25519", FUZZ_CIPHER, FUZZ_CIPHER, "", "", "none", "none", "", "",
};

enum { RECORDS_MAX = 64, SHAPES = sizeof shapes / sizeof *shapes, INPUT_MAX = 1 << 16 };

struct draft {
    uint8_t head[FUZZ_HEAD];
    struct {
        uint8_t kind;
        uint16_t len;
        const uint8_t *body;
    } records[RECORDS_MAX];
    size_t count;
};

static uint32_t draw(uint32_t *seed, uint32_t below)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed % below;
}

static uint32_t draw_u32(uint32_t *seed)
{
    static const uint32_t special[] = {
        0,     1,          2,          3,          4,          9,     10,     255,   256,
        1023,  1024,       4096,       32767,      32768,      32769, 34000,  35000, 65535,
        65536, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 80,    2 << 20};
    return draw(seed, 4) ? special[draw(seed, sizeof special / sizeof *special)]
                         : (draw(seed, 65536) << 16 | draw(seed, 65536));
}

static void write_text(struct cv_ssh_writer *w, uint32_t *seed)
{
    static const uint8_t fill[300] = "home";
    static const uint16_t lens[] = {0, 1, 4, 4, 4, 9, 64, 255, 256, 300};
    cv_ssh_write_string(w, cv_slice(fill, lens[draw(seed, sizeof lens / sizeof *lens)]));
}

/* One field of a new message. */
static void write_field(struct cv_ssh_writer *w, char field, unsigned nth, uint32_t *seed)
{
    static const uint8_t nines[32] = {9};
    uint8_t blob[128];
    struct cv_ssh_writer b = cv_ssh_writer(blob, sizeof blob);
    switch (field) {
    case 'u':
        cv_ssh_write_u32(w, draw(seed, 4) ? 65536 : draw_u32(seed));
        break;
    case 'i': /* a channel or a port */
        cv_ssh_write_u32(w, draw(seed, 8) ? draw(seed, 4) : draw_u32(seed));
        break;
    case 'b':
        cv_ssh_write_bool(w, draw(seed, 2));
        break;
    case 'c':
        cv_ssh_write_bytes(w, cv_slice(nines, 16));
        break;
    case 'k':
        cv_ssh_write_string(w, cv_slice(nines, 32));
        break;
    case 'h': /* a host key */
    case 'g': /* a signature */
        cv_ssh_write_str(&b, "ssh-ed25519");
        cv_ssh_write_u32(&b, field == 'h' ? 32 : 64);
        cv_ssh_write_bytes(&b, cv_slice(nines, 32));
        if (field == 'g')
            cv_ssh_write_bytes(&b, cv_slice(nines, 32));
        cv_ssh_write_string(w, cv_ssh_written(&b));
        break;
    case 'n':
        cv_ssh_write_str(w, lists[nth < 10 ? nth : 0]);
        break;
    case 'S':
        cv_ssh_write_str(w, "ssh-connection");
        break;
    case 'M':
        cv_ssh_write_str(w, draw(seed, 4) ? "none" : "password");
        break;
    default:
        write_text(w, seed);
    }
}

/* A whole message of a random kind; returns its length. */
static size_t write_message(uint8_t *out, size_t size, uint32_t *seed)
{
    const struct shape *shape = &shapes[draw(seed, SHAPES)];
    struct cv_ssh_writer w = cv_ssh_writer(out, size);
    unsigned names = 0;
    cv_ssh_write_u8(&w, shape->number);
    for (const char *field = shape->fields; *field; field++) {
        if (field == shape->fields && shape->name)
            cv_ssh_write_str(&w, shape->name);
        else
            write_field(&w, *field, *field == 'n' ? names++ : 0, seed);
    }
    return w.len;
}

static const struct shape *find_shape(struct cv_slice payload)
{
    const struct shape *found = NULL;
    for (size_t i = 0; i < SHAPES && payload.len; i++) {
        if (shapes[i].number != payload.data[0])
            continue;
        size_t len = shapes[i].name ? strlen(shapes[i].name) : 0;
        bool is_named =
            len && payload.len >= 5 + len && memcmp(payload.data + 5, shapes[i].name, len) == 0;
        if (!found || is_named)
            found = &shapes[i];
    }
    return found;
}

static bool is_string(char field)
{
    return field && strchr("snkhgSM", field);
}

/* Reads one field; false where the message is cut. */
static bool read_field(struct cv_ssh_reader *r, char field, struct cv_slice *value)
{
    const uint8_t *start = r->rest.data;
    size_t had = r->rest.len;
    uint32_t number;
    bool flag, is_read = true;
    if (is_string(field))
        is_read = cv_ssh_read_string(r, value);
    else if (field == 'u' || field == 'i')
        is_read = cv_ssh_read_u32(r, &number);
    else if (field == 'b')
        is_read = cv_ssh_read_bool(r, &flag);
    else
        is_read = cv_ssh_read_bytes(r, field == 'c' ? 16 : r->rest.len, value);
    if (!is_string(field))
        *value = cv_slice(start, is_read ? had - r->rest.len : 0);
    return is_read;
}

static void change_field(struct cv_ssh_writer *w, char field, struct cv_slice value, uint32_t *seed)
{
    uint8_t bytes[FUZZ_BODY_MAX];
    if (field == 'u' || field == 'i') {
        uint32_t number = cv_get_u32(value.data);
        uint32_t how = draw(seed, 4);
        cv_ssh_write_u32(w, how == 0   ? number + 1
                            : how == 1 ? number - 1
                            : how == 2 ? draw(seed, 5)
                                       : draw_u32(seed));
        return;
    }
    if (field == 'b') {
        cv_ssh_write_u8(w, (uint8_t)draw(seed, 3));
        return;
    }
    size_t len = value.len < sizeof bytes / 2 ? value.len : sizeof bytes / 2;
    if (len)
        memcpy(bytes, value.data, len);
    uint32_t how = draw(seed, 4);
    if (how == 0 && is_string(field)) {
        write_text(w, seed);
        return;
    }
    if (how == 1) { /* longer */
        size_t more = draw_u32(seed) % (sizeof bytes - len);
        memset(bytes + len, len ? bytes[0] : 0, more);
        len += more;
    } else {
        len = LLVMFuzzerMutate(bytes, len, sizeof bytes);
    }
    if (is_string(field))
        cv_ssh_write_string(w, cv_slice(bytes, len));
    else
        cv_ssh_write_bytes(w, cv_slice(bytes, len));
}

/* Writes `payload` anew with one field changed; 0 where it is no message that is known. */
static size_t change_message(struct cv_slice payload, uint8_t *out, size_t size, uint32_t *seed)
{
    const struct shape *shape = find_shape(payload);
    size_t count = shape ? strlen(shape->fields) : 0;
    if (count == 0)
        return 0;
    size_t chosen = draw(seed, (uint32_t)count);
    struct cv_ssh_reader r = cv_ssh_reader(cv_slice(payload.data + 1, payload.len - 1));
    struct cv_ssh_writer w = cv_ssh_writer(out, size);
    cv_ssh_write_u8(&w, shape->number);
    for (size_t i = 0; i < count; i++) {
        struct cv_slice value;
        char field = shape->fields[i];
        if (!read_field(&r, field, &value))
            return 0;
        if (i == chosen)
            change_field(&w, field, value, seed);
        else if (is_string(field))
            cv_ssh_write_string(&w, value);
        else
            cv_ssh_write_bytes(&w, value);
    }
    cv_ssh_write_bytes(&w, r.rest);
    return w.is_failed ? 0 : w.len;
}

static void parse(const uint8_t *data, size_t size, struct draft *draft)
{
    *draft = (struct draft){0};
    size_t head = size < FUZZ_HEAD ? size : FUZZ_HEAD;
    memcpy(draft->head, data, head);
    struct cv_slice input = cv_slice(data + head, size - head);
    struct fuzz_record record;
    while (draft->count < RECORDS_MAX && fuzz_next(&input, &record)) {
        draft->records[draft->count].kind = (uint8_t)record.kind;
        draft->records[draft->count].len = (uint16_t)record.len;
        draft->records[draft->count++].body = record.body;
    }
}

static size_t format(const struct draft *draft, uint8_t *out, size_t max_size)
{
    struct cv_ssh_writer w = cv_ssh_writer(out, max_size);
    cv_ssh_write_bytes(&w, cv_slice(draft->head, FUZZ_HEAD));
    for (size_t i = 0; i < draft->count; i++) {
        size_t len = draft->records[i].len;
        if (w.size - w.len < FUZZ_RECORD_HEAD + len)
            break;
        cv_ssh_write_u8(&w, draft->records[i].kind);
        cv_ssh_write_u8(&w, (uint8_t)(len >> 8));
        cv_ssh_write_u8(&w, (uint8_t)len);
        cv_ssh_write_bytes(&w, cv_slice(draft->records[i].body, len));
    }
    return w.len;
}

static void open_gap(struct draft *draft, size_t at)
{
    if (draft->count == RECORDS_MAX)
        draft->count--;
    memmove(&draft->records[at + 1], &draft->records[at],
            (draft->count - at) * sizeof draft->records[0]);
    draft->count++;
}

/* A new record at a random place; its body is written into `space`. */
static void insert(struct draft *draft, uint8_t *space, size_t size, uint32_t *seed)
{
    size_t at = draw(seed, 2) ? draft->count : draw(seed, (uint32_t)draft->count + 1);
    if (at >= RECORDS_MAX)
        at = RECORDS_MAX - 1;
    open_gap(draft, at);
    bool is_act = draw(seed, 3) == 0;
    size_t len = 4;
    if (is_act) {
        cv_put_u32(space, draw(seed, 65536) << 16 | draw(seed, 65536));
    } else {
        len = write_message(space, size, seed);
    }
    draft->records[at].kind = is_act ? FUZZ_ACT : FUZZ_PACKET;
    draft->records[at].len = (uint16_t)len;
    draft->records[at].body = space;
}

static void change(struct draft *draft, size_t at, uint8_t *space, size_t size, uint32_t *seed)
{
    struct cv_slice body = cv_slice(draft->records[at].body, draft->records[at].len);
    size_t len = 0;
    if (draft->records[at].kind == FUZZ_PACKET && draw(seed, 4))
        len = change_message(body, space, size, seed);
    if (len == 0) {
        len = body.len < size ? body.len : size;
        if (len)
            memcpy(space, body.data, len);
        len = LLVMFuzzerMutate(space, len, size);
    }
    draft->records[at].len = (uint16_t)len;
    draft->records[at].body = space;
}

static void mutate_once(struct draft *draft, uint8_t *space, size_t size, uint32_t *seed)
{
    size_t at = draft->count ? draw(seed, (uint32_t)draft->count) : 0;
    uint32_t how = draw(seed, 16);
    if (draft->count == 0 || how < 5) {
        insert(draft, space, size, seed);
    } else if (how < 11) {
        change(draft, at, space, size, seed);
    } else if (how == 11) {
        memmove(&draft->records[at], &draft->records[at + 1],
                (draft->count - at - 1) * sizeof draft->records[0]);
        draft->count--;
    } else if (how == 12) {
        open_gap(draft, at); /* which doubles it */
    } else if (how == 13) {
        size_t other = draw(seed, (uint32_t)draft->count);
        struct draft copy = *draft;
        draft->records[at] = copy.records[other];
        draft->records[other] = copy.records[at];
    } else if (how == 14) {
        draft->head[draw(seed, FUZZ_HEAD)] = (uint8_t)draw(seed, 256);
    } else {
        draft->records[at].kind = (uint8_t)draw(seed, FUZZ_KINDS);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    static uint8_t before[INPUT_MAX], space[4][FUZZ_BODY_MAX];
    uint32_t random = seed * 2654435761U | 1;
    struct draft draft;
    if (size > sizeof before || draw(&random, 32) == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    memcpy(before, data, size);
    parse(before, size, &draft);
    for (uint32_t left = 1 + draw(&random, 4); left > 0; left--)
        mutate_once(&draft, space[left - 1], sizeof space[0], &random);
    return format(&draft, data, max_size);
}

/* The beginning of one conversation, then the end of another. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2,
                                 size_t size2, uint8_t *out, size_t max_size, unsigned seed)
{
    uint32_t random = seed * 2654435761U | 1;
    struct draft first, second;
    parse(data1, size1, &first);
    parse(data2, size2, &second);
    first.count = draw(&random, (uint32_t)first.count + 1);
    for (size_t i = draw(&random, (uint32_t)second.count + 1);
         i < second.count && first.count < RECORDS_MAX; i++)
        first.records[first.count++] = second.records[i];
    return format(&first, out, max_size);
}
