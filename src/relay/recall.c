/* SPDX-License-Identifier: MIT */
#include "relay/recall.h"

#include "base/buf.h"
#include "base/digest.h"
#include "base/digits.h"
#include "base/file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_LEN = 16,
    LINE_MAX = 2 * KEY_LEN + 1 + 20 + 1,
    AHEAD_S = 60, /* a clock that was set back a little is no reason to forget */
};

struct known {
    uint8_t key[KEY_LEN];
    int64_t seen_s;
};

struct cv_recall {
    char *path;
    struct known *items; /* by key */
    size_t count;
};

static void make_key(const struct cv_user_key *user, struct cv_slice name, uint8_t key[KEY_LEN])
{
    uint8_t text[sizeof *user + CV_TUNNEL_NAME_MAX], hash[CV_SHA256_LEN];
    size_t len = name.len < CV_TUNNEL_NAME_MAX ? name.len : CV_TUNNEL_NAME_MAX;
    memcpy(text, user, sizeof *user);
    memcpy(text + sizeof *user, name.data, len);
    cv_sha256(cv_slice(text, sizeof *user + len), hash);
    memcpy(key, hash, KEY_LEN);
}

static bool is_fresh(int64_t seen_s, int64_t now_s)
{
    return seen_s <= now_s + AHEAD_S && now_s - seen_s < CV_RECALL_S;
}

/* By key, the newest of the same key first. */
static int by_key(const void *a, const void *b)
{
    const struct known *left = a, *right = b;
    int order = memcmp(left->key, right->key, KEY_LEN);
    return order ? order : (left->seen_s < right->seen_s) - (left->seen_s > right->seen_s);
}

static int by_age(const void *a, const void *b)
{
    const struct known *left = a, *right = b;
    return (left->seen_s < right->seen_s) - (left->seen_s > right->seen_s);
}

static size_t drop_doubles(struct known *items, size_t count)
{
    size_t kept = 0;
    qsort(items, count, sizeof *items, by_key);
    for (size_t i = 0; i < count; i++)
        if (!kept || memcmp(items[kept - 1].key, items[i].key, KEY_LEN) != 0)
            items[kept++] = items[i];
    return kept;
}

/* ---- reading ---- */

static bool read_line(struct cv_slice line, struct known *known)
{
    uint64_t seen_s;
    if (line.len < 2 * KEY_LEN + 2 || line.data[2 * KEY_LEN] != ' ' ||
        !cv_hex_decode(cv_slice(line.data, 2 * KEY_LEN), known->key, KEY_LEN) ||
        !cv_slice_to_u64(cv_slice(line.data + 2 * KEY_LEN + 1, line.len - 2 * KEY_LEN - 1),
                         INT64_MAX, &seen_s))
        return false;
    known->seen_s = (int64_t)seen_s;
    return true;
}

static void read_all(struct cv_recall *recall, struct cv_slice text, int64_t now_s)
{
    while (text.len && recall->count < CV_RECALL_MAX) {
        const uint8_t *end = memchr(text.data, '\n', text.len);
        size_t len = end ? (size_t)(end - text.data) : text.len;
        struct known *known = &recall->items[recall->count];
        if (read_line(cv_slice(text.data, len), known) && is_fresh(known->seen_s, now_s))
            recall->count++;
        len += end != NULL;
        text = cv_slice(text.data + len, text.len - len);
    }
    recall->count = drop_doubles(recall->items, recall->count);
}

struct cv_status cv_recall_new(const char *path, int64_t now_s, struct cv_recall **out,
                               struct cv_error *error)
{
    struct cv_recall *recall = calloc(1, sizeof *recall);
    struct cv_status status = cv_status(CV_NO_MEMORY);
    struct cv_buf text;
    *out = NULL;
    cv_buf_init(&text, (size_t)CV_RECALL_MAX * LINE_MAX);
    if (recall) {
        recall->path = strdup(path);
        recall->items = calloc(CV_RECALL_MAX, sizeof *recall->items);
    }
    if (recall && recall->path && recall->items)
        status = cv_file_read(path, CV_FILE_ANY, &text, error);
    if (cv_is_ok(status))
        read_all(recall, cv_buf_slice(&text), now_s);
    else if (status.id != CV_NOT_FOUND)
        cv_recall_free(&recall);
    cv_buf_done(&text);
    *out = recall;
    return status.id == CV_NOT_FOUND ? cv_ok() : status;
}

void cv_recall_free(struct cv_recall **recall)
{
    if (!*recall)
        return;
    free((*recall)->path);
    free((*recall)->items);
    free(*recall);
    *recall = NULL;
}

bool cv_recall_has(const struct cv_recall *recall, const struct cv_user_key *user,
                   struct cv_slice name, int64_t now_s)
{
    uint8_t key[KEY_LEN];
    if (!recall || !recall->count)
        return false;
    make_key(user, name, key);
    for (size_t low = 0, high = recall->count; low < high;) {
        size_t middle = (low + high) / 2;
        int order = memcmp(key, recall->items[middle].key, KEY_LEN);
        if (order == 0)
            return is_fresh(recall->items[middle].seen_s, now_s);
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}

/* ---- writing ---- */

struct gathered {
    struct known *items; /* room for twice CV_RECALL_MAX */
    size_t count;
    uint64_t now_ms;
    int64_t now_s;
};

static bool gather(void *arg, const struct cv_user_key *user, struct cv_slice name,
                   uint64_t gone_ms)
{
    struct gathered *g = arg;
    struct known *known = &g->items[g->count++];
    uint64_t ago_ms = gone_ms && gone_ms < g->now_ms ? g->now_ms - gone_ms : 0;
    make_key(user, name, known->key);
    known->seen_s = g->now_s - (int64_t)(ago_ms / 1000);
    return g->count < CV_RECALL_MAX;
}

static struct cv_status write_lines(const struct gathered *g, struct cv_buf *out)
{
    for (size_t i = 0; i < g->count; i++) {
        char hex[2 * KEY_LEN + 1];
        cv_hex_encode(cv_slice(g->items[i].key, KEY_LEN), hex);
        CV_RETURN_IF_ERROR(cv_buf_printf(out, "%s %" PRId64 "\n", hex, g->items[i].seen_s));
    }
    return cv_ok();
}

struct cv_status cv_recall_save(const struct cv_recall *recall, struct cv_registry *registry,
                                uint64_t now_ms, int64_t now_s, struct cv_error *error)
{
    struct gathered g = {.items = calloc((size_t)2 * CV_RECALL_MAX, sizeof *g.items),
                         .now_ms = now_ms,
                         .now_s = now_s};
    struct cv_buf text;
    if (!recall || !g.items) {
        free(g.items);
        return recall ? cv_fail(error, CV_NO_MEMORY, "out of memory") : cv_ok();
    }
    cv_buf_init(&text, (size_t)CV_RECALL_MAX * LINE_MAX);
    cv_registry_each_name(registry, gather, &g);
    for (size_t i = 0; i < recall->count; i++)
        if (is_fresh(recall->items[i].seen_s, now_s))
            g.items[g.count++] = recall->items[i];
    g.count = drop_doubles(g.items, g.count);
    qsort(g.items, g.count, sizeof *g.items, by_age);
    if (g.count > CV_RECALL_MAX)
        g.count = CV_RECALL_MAX;
    struct cv_status status = write_lines(&g, &text);
    if (cv_is_ok(status))
        status = cv_file_replace(recall->path, cv_buf_slice(&text), 0600, error);
    cv_buf_done(&text);
    free(g.items);
    return status;
}
