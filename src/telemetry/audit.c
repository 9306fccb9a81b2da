/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_audit_put → ring → run: gather → format → append; rotated when it is due. Ways it
 * fails: a ring is full (counted, told by the record `records_lost`); the file cannot be written
 * (the rings keep what they have, tried again each second).
 *
 * A ring holds entries: struct entry, then for each field its kind, key and value. `tail` is moved
 * by its thread alone, `head` by the audit thread alone, and only once the records are in the file.
 */
#include "telemetry/audit.h"

#include "telemetry/audit_file.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    BATCH_BYTES = 256 * 1024,
    GATHER_MS = 2,   /* records of this time go into one batch */
    RETRY_MS = 1000, /* between tries to write, and the interval of syncing */
    LOCK_MS = 5,     /* between looks whether another process has done writing */
    LOCK_TRIES = 400,
};

struct entry {
    uint32_t len; /* of all of it */
    uint16_t event, fields;
    uint64_t time_ms;
};

struct packed_field {
    const char *key;
    uint64_t number; /* or the length of the string behind this */
    uint8_t kind;
};

struct cv_audit_queue {
    struct cv_audit *audit;
    uint8_t *bytes; /* CV_AUDIT_QUEUE_BYTES, a power of two */
    _Alignas(64) atomic_size_t tail;
    atomic_uint_fast64_t lost;
    _Alignas(64) atomic_size_t head;
    size_t taken;        /* audit thread: up to here records are in the batch */
    uint64_t lost_told;  /* audit thread: of them, those that a record has told */
    uint64_t lost_taken; /* … or will, once the batch is written */
};

struct cv_audit {
    struct cv_audit_file file;
    enum cv_audit_sync sync;
    unsigned classes;
    char instance[32];
    struct cv_log *log;
    struct cv_audit_queue *queues;
    unsigned queue_count;
    pthread_t thread;
    sem_t wake;
    atomic_bool is_asleep; /* the thread waits for `wake` */
    atomic_bool is_stopping;
    atomic_uint_fast64_t written, failed;

    /* Audit thread. */
    struct cv_hasher *hasher;
    struct cv_buf batch;
    uint64_t batch_count;
    bool is_failing;
    bool is_unsynced;
    uint64_t synced_ms;
};

/* ---- putting ---- */

static void copy_in(struct cv_audit_queue *queue, size_t at, const void *data, size_t len)
{
    size_t offset = at % CV_AUDIT_QUEUE_BYTES, room = CV_AUDIT_QUEUE_BYTES - offset;
    size_t first = len < room ? len : room;
    memcpy(queue->bytes + offset, data, first);
    memcpy(queue->bytes, (const uint8_t *)data + first, len - first);
}

static void copy_out(const struct cv_audit_queue *queue, size_t at, void *data, size_t len)
{
    size_t offset = at % CV_AUDIT_QUEUE_BYTES, room = CV_AUDIT_QUEUE_BYTES - offset;
    size_t first = len < room ? len : room;
    memcpy(data, queue->bytes + offset, first);
    memcpy((uint8_t *)data + first, queue->bytes, len - first);
}

/* False: it is left out (a NULL string), or there is no room for it. */
static bool pack_field(const struct cv_log_field *field, uint8_t *out, size_t cap, size_t *len)
{
    struct packed_field packed = {.key = field->key, .kind = (uint8_t)field->kind};
    struct cv_slice text = {0};
    switch (field->kind) {
    case CV_LOG_FIELD_STR:
        if (!field->value.str)
            return false;
        text = cv_slice_str(field->value.str);
        packed.kind = CV_LOG_FIELD_SLICE;
        break;
    case CV_LOG_FIELD_SLICE:
        text = field->value.slice;
        break;
    case CV_LOG_FIELD_INT:
        packed.number = (uint64_t)field->value.sint;
        break;
    case CV_LOG_FIELD_UINT:
        packed.number = field->value.uint;
        break;
    case CV_LOG_FIELD_BOOL:
        packed.number = field->value.flag;
        break;
    case CV_LOG_FIELD_STATUS:
        packed.number = field->value.status;
        break;
    case CV_LOG_FIELD_ERROR:
    case CV_LOG_FIELD_TRACE:
    case CV_LOG_FIELD_END:
        return false;
    }
    if (text.len > CV_AUDIT_TEXT_MAX)
        text.len = CV_AUDIT_TEXT_MAX;
    if (packed.kind == CV_LOG_FIELD_SLICE)
        packed.number = text.len;
    if (sizeof packed + text.len > cap)
        return false;
    memcpy(out, &packed, sizeof packed);
    if (text.len)
        memcpy(out + sizeof packed, text.data, text.len);
    *len = sizeof packed + text.len;
    return true;
}

static uint64_t clock_of(clockid_t id)
{
    struct timespec now;
    (void)clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

bool cv_audit_is_on(const struct cv_audit_queue *queue, enum cv_audit_event event)
{
    return queue && (queue->audit->classes >> cv_audit_event_class(event) & 1U);
}

void cv_audit_put(struct cv_audit_queue *queue, enum cv_audit_event event,
                  const struct cv_log_field *fields)
{
    uint8_t bytes[CV_AUDIT_ENTRY_MAX];
    if (!cv_audit_is_on(queue, event))
        return;
    struct entry entry = {
        .len = sizeof entry, .event = (uint16_t)event, .time_ms = clock_of(CLOCK_REALTIME)};
    for (; fields->kind != CV_LOG_FIELD_END && entry.fields < CV_AUDIT_FIELDS_MAX; fields++) {
        size_t len;
        if (!pack_field(fields, bytes + entry.len, sizeof bytes - entry.len, &len))
            continue;
        entry.len += (uint32_t)len;
        entry.fields++;
    }
    memcpy(bytes, &entry, sizeof entry);
    size_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    size_t head = atomic_load_explicit(&queue->head, memory_order_acquire);
    if (CV_AUDIT_QUEUE_BYTES - (tail - head) < entry.len) {
        (void)atomic_fetch_add_explicit(&queue->lost, 1, memory_order_relaxed);
        return;
    }
    copy_in(queue, tail, bytes, entry.len);
    /* In one order with is_asleep, or both sides might miss each other. */
    atomic_store(&queue->tail, tail + entry.len);
    if (atomic_load(&queue->audit->is_asleep) && atomic_exchange(&queue->audit->is_asleep, false))
        (void)sem_post(&queue->audit->wake);
}

/* ---- gathering ---- */

static size_t unpack(const uint8_t *bytes, const struct entry *entry,
                     struct cv_log_field out[CV_AUDIT_FIELDS_MAX + 1])
{
    size_t at = sizeof *entry, count = 0;
    for (; count < entry->fields; count++) {
        struct packed_field packed;
        memcpy(&packed, bytes + at, sizeof packed);
        at += sizeof packed;
        struct cv_log_field *field = &out[count];
        *field =
            (struct cv_log_field){.kind = (enum cv_log_field_kind)packed.kind, .key = packed.key};
        if (field->kind == CV_LOG_FIELD_SLICE) {
            field->value.slice = cv_slice(bytes + at, packed.number);
            at += packed.number;
        } else if (field->kind == CV_LOG_FIELD_INT) {
            field->value.sint = (int64_t)packed.number;
        } else if (field->kind == CV_LOG_FIELD_UINT) {
            field->value.uint = packed.number;
        } else if (field->kind == CV_LOG_FIELD_BOOL) {
            field->value.flag = packed.number != 0;
        } else {
            field->value.status = (enum cv_status_id)packed.number;
        }
    }
    out[count] = (struct cv_log_field){.kind = CV_LOG_FIELD_END};
    return count;
}

static bool write_record(struct cv_audit *audit, struct cv_audit_chain *chain,
                         enum cv_audit_event event, uint64_t time_ms,
                         const struct cv_log_field *fields)
{
    if (!cv_is_ok(cv_audit_record_write(chain, audit->hasher, event, time_ms, audit->instance,
                                        fields, &audit->batch)))
        return false;
    audit->batch_count++;
    return true;
}

static bool tell_lost(struct cv_audit *audit, struct cv_audit_queue *queue,
                      struct cv_audit_chain *chain)
{
    uint64_t lost = atomic_load_explicit(&queue->lost, memory_order_relaxed);
    queue->lost_taken = queue->lost_told;
    if (lost == queue->lost_told)
        return true;
    const struct cv_log_field fields[] = {CV_F_UINT("count", lost - queue->lost_told),
                                          {.kind = CV_LOG_FIELD_END}};
    if (!write_record(audit, chain, CV_AUDIT_LOST, clock_of(CLOCK_REALTIME), fields))
        return false;
    queue->lost_taken = lost;
    return true;
}

/* As many of the queue's records as the batch takes. False: it is full. */
static bool gather_from(struct cv_audit *audit, struct cv_audit_queue *queue,
                        struct cv_audit_chain *chain)
{
    uint8_t bytes[CV_AUDIT_ENTRY_MAX];
    struct cv_log_field fields[CV_AUDIT_FIELDS_MAX + 1];
    size_t tail = atomic_load(&queue->tail);
    queue->taken = atomic_load_explicit(&queue->head, memory_order_relaxed);
    while (queue->taken != tail) {
        struct entry entry;
        copy_out(queue, queue->taken, &entry, sizeof entry);
        copy_out(queue, queue->taken, bytes, entry.len);
        (void)unpack(bytes, &entry, fields);
        if (!write_record(audit, chain, (enum cv_audit_event)entry.event, entry.time_ms, fields))
            return false;
        queue->taken += entry.len;
    }
    return tell_lost(audit, queue, chain);
}

static bool has_work(const struct cv_audit *audit)
{
    for (unsigned i = 0; i < audit->queue_count; i++) {
        const struct cv_audit_queue *queue = &audit->queues[i];
        if (atomic_load(&queue->tail) != atomic_load_explicit(&queue->head, memory_order_relaxed) ||
            atomic_load_explicit(&queue->lost, memory_order_relaxed) != queue->lost_told)
            return true;
    }
    return false;
}

/* ---- writing ---- */

/* What a power cut or kill -9 left of a record: it gets its newline and is told of. */
static void recover(struct cv_audit *audit, struct cv_audit_chain *chain,
                    const struct cv_audit_found *found)
{
    (void)cv_buf_append_byte(&audit->batch, '\n');
    if (!found->cut_len)
        return;
    const struct cv_log_field fields[] = {CV_F_UINT("cutBytes", found->cut_len),
                                          {.kind = CV_LOG_FIELD_END}};
    (void)write_record(audit, chain, CV_AUDIT_RECOVERED, clock_of(CLOCK_REALTIME), fields);
    cv_log(audit->log, CV_LOG_WARN, "audit", "audit_recovered",
           "the last record of the audit log was cut; the chain goes on behind it",
           CV_F_STR("file", audit->file.path), CV_F_UINT("cutBytes", found->cut_len),
           CV_F_UINT("seq", chain->seq));
}

static void commit(struct cv_audit *audit)
{
    for (unsigned i = 0; i < audit->queue_count; i++) {
        struct cv_audit_queue *queue = &audit->queues[i];
        atomic_store_explicit(&queue->head, queue->taken, memory_order_release);
        queue->lost_told = queue->lost_taken;
    }
    (void)atomic_fetch_add_explicit(&audit->written, audit->batch_count, memory_order_relaxed);
    audit->is_unsynced = true;
}

/* The end of the chain in another place: who can rewrite the file cannot rewrite that. */
static void tell_head(const struct cv_audit *audit, const char *event, const char *message)
{
    char hash[2 * CV_SHA256_LEN + 1];
    cv_hex_encode(cv_slice(audit->file.chain.hash, CV_SHA256_LEN), hash);
    cv_log(audit->log, CV_LOG_INFO, "audit", event, message, CV_F_STR("file", audit->file.path),
           CV_F_UINT("seq", audit->file.chain.seq), CV_F_STR("hash", hash));
}

static struct cv_status write_batch(struct cv_audit *audit, struct cv_error *error)
{
    struct cv_audit_found found;
    CV_RETURN_IF_ERROR(cv_audit_file_begin(&audit->file, &found, error));
    struct cv_audit_chain chain = audit->file.chain;
    audit->batch_count = 0;
    cv_buf_consume(&audit->batch, cv_buf_len(&audit->batch));
    if (found.is_cut)
        recover(audit, &chain, &found);
    for (unsigned i = 0; i < audit->queue_count; i++) {
        audit->queues[i].taken = atomic_load_explicit(&audit->queues[i].head, memory_order_relaxed);
        audit->queues[i].lost_taken = audit->queues[i].lost_told;
    }
    for (unsigned i = 0; i < audit->queue_count; i++)
        if (!gather_from(audit, &audit->queues[i], &chain))
            break;
    struct cv_status status = cv_ok();
    if (!cv_buf_len(&audit->batch) && has_work(audit))
        status = cv_fail(error, CV_NO_MEMORY, "no memory for a record of the audit log");
    if (cv_is_ok(status))
        status = cv_audit_file_append(&audit->file, cv_buf_slice(&audit->batch), &chain, error);
    if (cv_is_ok(status))
        commit(audit);
    if (cv_is_ok(status) && audit->sync == CV_AUDIT_SYNC_ALWAYS) {
        status = cv_audit_file_sync(&audit->file, error);
        audit->is_unsynced = false;
    }
    if (cv_audit_file_end(&audit->file))
        tell_head(audit, "audit_rotated", "the audit log was rotated");
    return status;
}

static void note(struct cv_audit *audit, struct cv_status status, const struct cv_error *error)
{
    if (!cv_is_ok(status)) {
        (void)atomic_fetch_add_explicit(&audit->failed, 1, memory_order_relaxed);
        if (!audit->is_failing)
            cv_log(audit->log, CV_LOG_WARN, "audit", "audit_unwritable",
                   "the audit log cannot be written; records wait in memory", CV_F_ERROR(error));
    } else if (audit->is_failing) {
        cv_log(audit->log, CV_LOG_INFO, "audit", "audit_writable", "the audit log is written again",
               CV_F_STR("file", audit->file.path));
    }
    audit->is_failing = !cv_is_ok(status);
}

static void sync_if_due(struct cv_audit *audit, bool is_last)
{
    struct cv_error error = {0};
    uint64_t now_ms = clock_of(CLOCK_MONOTONIC);
    bool is_wanted =
        audit->sync == CV_AUDIT_SYNC_INTERVAL || (is_last && audit->sync != CV_AUDIT_SYNC_NEVER);
    if (!audit->is_unsynced || !is_wanted || (!is_last && now_ms - audit->synced_ms < RETRY_MS))
        return;
    audit->is_unsynced = false;
    audit->synced_ms = now_ms;
    struct cv_status status = cv_audit_file_sync(&audit->file, &error);
    if (!cv_is_ok(status))
        note(audit, status, &error);
}

/* ---- the thread ---- */

/* Until there is something to write, or a second has passed where something is due by itself. */
static void wait(struct cv_audit *audit)
{
    struct timespec until;
    bool is_due =
        audit->is_failing || (audit->is_unsynced && audit->sync == CV_AUDIT_SYNC_INTERVAL);
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += RETRY_MS / 1000;
    atomic_store(&audit->is_asleep, true);
    /* While the file cannot be written, what comes is no reason to look sooner. */
    if ((audit->is_failing || !has_work(audit)) && !atomic_load(&audit->is_stopping)) {
        int result;
        do
            result = is_due ? sem_clockwait(&audit->wake, CLOCK_MONOTONIC, &until)
                            : sem_wait(&audit->wake);
        while (!atomic_load(&audit->is_stopping) &&
               (result == 0 ? audit->is_failing : errno == EINTR));
    }
    atomic_store(&audit->is_asleep, false);
}

/* Nothing but the end wakes the thread here, since is_asleep is false. */
static void rest(struct cv_audit *audit, unsigned ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)sem_clockwait(&audit->wake, CLOCK_MONOTONIC, &until);
}

static void write_all(struct cv_audit *audit)
{
    struct cv_status status = cv_ok();
    struct cv_error error = {0};
    for (unsigned tries = 0; has_work(audit) && tries < LOCK_TRIES && cv_is_ok(status);) {
        status = write_batch(audit, &error);
        if (status.id != CV_AGAIN)
            continue;
        rest(audit, LOCK_MS);
        if (++tries < LOCK_TRIES)
            status = cv_ok();
    }
    note(audit, status, &error);
}

static void *run(void *arg)
{
    struct cv_audit *audit = arg;
    bool is_last = false;
    while (!is_last) {
        wait(audit);
        is_last = atomic_load(&audit->is_stopping);
        if (!is_last)
            rest(audit, GATHER_MS);
        write_all(audit);
        sync_if_due(audit, is_last);
    }
    return NULL;
}

/* ---- life ---- */

static void free_parts(struct cv_audit *audit)
{
    for (unsigned i = 0; audit->queues && i < audit->queue_count; i++)
        free(audit->queues[i].bytes);
    free(audit->queues);
    cv_audit_file_done(&audit->file);
    cv_buf_done(&audit->batch);
    cv_hasher_free(&audit->hasher);
    free(audit);
}

static struct cv_status make_queues(struct cv_audit *audit, unsigned count)
{
    audit->queues = aligned_alloc(64, count * sizeof *audit->queues);
    if (!audit->queues)
        return cv_status(CV_NO_MEMORY);
    memset(audit->queues, 0, count * sizeof *audit->queues);
    audit->queue_count = count;
    for (unsigned i = 0; i < count; i++) {
        audit->queues[i].audit = audit;
        audit->queues[i].bytes = malloc(CV_AUDIT_QUEUE_BYTES);
        if (!audit->queues[i].bytes)
            return cv_status(CV_NO_MEMORY);
    }
    return cv_ok();
}

/* What cannot be mended by waiting is said at the start. */
static struct cv_status try_open(struct cv_audit *audit, struct cv_error *error)
{
    struct cv_error why = {0};
    struct cv_status status = write_batch(audit, &why);
    bool is_passing = why.sys_errno == ENOSPC || why.sys_errno == EDQUOT || status.id == CV_AGAIN;
    if (cv_is_ok(status) || is_passing) {
        note(audit, status, &why);
        return cv_ok();
    }
    if (error)
        *error = why;
    return status;
}

struct cv_status cv_audit_new(const struct cv_audit_options *options, struct cv_audit **out,
                              struct cv_error *error)
{
    *out = NULL;
    struct cv_audit *audit = calloc(1, sizeof *audit);
    if (!audit)
        return cv_status(CV_NO_MEMORY);
    audit->file.fd = -1;
    audit->sync = options->sync;
    audit->classes = options->classes | 1U << CV_AUDIT_ALWAYS;
    audit->log = options->log;
    (void)snprintf(audit->instance, sizeof audit->instance, "%s", options->instance);
    cv_buf_init(&audit->batch, BATCH_BYTES);
    audit->hasher = cv_hasher_new();
    struct cv_status status = cv_status(audit->hasher ? CV_OK : CV_NO_MEMORY);
    if (cv_is_ok(status))
        status = cv_audit_file_init(&audit->file, options->path, options->max_bytes, options->keep,
                                    error);
    if (cv_is_ok(status))
        status = make_queues(audit, options->queues);
    if (cv_is_ok(status))
        status = try_open(audit, error);
    if (cv_is_ok(status) && sem_init(&audit->wake, 0, 0) != 0)
        status = cv_status(CV_NO_RESOURCES);
    if (!cv_is_ok(status)) {
        free_parts(audit);
        return status;
    }
    if (pthread_create(&audit->thread, NULL, run, audit) != 0) {
        (void)sem_destroy(&audit->wake);
        free_parts(audit);
        return cv_status(CV_NO_RESOURCES);
    }
    *out = audit;
    return cv_ok();
}

void cv_audit_free(struct cv_audit **out)
{
    struct cv_audit *audit = *out;
    *out = NULL;
    if (!audit)
        return;
    atomic_store(&audit->is_stopping, true);
    (void)sem_post(&audit->wake);
    (void)pthread_join(audit->thread, NULL);
    if (audit->file.chain.seq)
        tell_head(audit, "audit_closed", "the audit log is written up to here");
    (void)sem_destroy(&audit->wake);
    free_parts(audit);
}

struct cv_audit_queue *cv_audit_queue(struct cv_audit *audit, unsigned index)
{
    return audit ? &audit->queues[index] : NULL;
}

struct cv_audit_counts cv_audit_count(const struct cv_audit *audit)
{
    struct cv_audit_counts counts = {0};
    if (!audit)
        return counts;
    counts.written = atomic_load_explicit(&audit->written, memory_order_relaxed);
    counts.failed = atomic_load_explicit(&audit->failed, memory_order_relaxed);
    for (unsigned i = 0; i < audit->queue_count; i++)
        counts.lost += atomic_load_explicit(&audit->queues[i].lost, memory_order_relaxed);
    return counts;
}
