/* SPDX-License-Identifier: MIT */
#include "flow/breaker.h"

/* The word: since (40 bits, 34 years) | generation (13) | is probe out (1) | count (8) | state (2).
 */
enum { STATE_BITS = 2, COUNT_BITS = 8, PROBE_BITS = 1, GENERATION_BITS = 13, SINCE_BITS = 40 };
enum {
    COUNT_AT = STATE_BITS,
    PROBE_AT = COUNT_AT + COUNT_BITS,
    GENERATION_AT = PROBE_AT + PROBE_BITS,
    SINCE_AT = GENERATION_AT + GENERATION_BITS,
};

struct word {
    enum cv_breaker_state state;
    unsigned count;
    bool is_probe_out;
    uint32_t generation;
    uint64_t since_ms;
};

static uint64_t low(uint64_t value, unsigned bits)
{
    return value & (((uint64_t)1 << bits) - 1);
}

static struct word unpack(uint64_t w)
{
    return (struct word){
        .state = (enum cv_breaker_state)low(w, STATE_BITS),
        .count = (unsigned)low(w >> COUNT_AT, COUNT_BITS),
        .is_probe_out = low(w >> PROBE_AT, PROBE_BITS) != 0,
        .generation = (uint32_t)low(w >> GENERATION_AT, GENERATION_BITS),
        .since_ms = w >> SINCE_AT,
    };
}

static uint64_t pack(const struct word *word)
{
    return (uint64_t)word->state | (uint64_t)word->count << COUNT_AT |
           (uint64_t)word->is_probe_out << PROBE_AT |
           low(word->generation, GENERATION_BITS) << GENERATION_AT |
           low(word->since_ms, SINCE_BITS) << SINCE_AT;
}

static uint64_t read_word(const cv_breaker *breaker)
{
    return atomic_load_explicit(breaker, memory_order_relaxed);
}

static bool replace(cv_breaker *breaker, uint64_t *before, const struct word *after)
{
    return atomic_compare_exchange_weak_explicit(breaker, before, pack(after), memory_order_relaxed,
                                                 memory_order_relaxed);
}

static void enter(struct word *word, enum cv_breaker_state state, uint64_t now_ms)
{
    *word = (struct word){
        .state = state, .generation = word->generation + 1, .since_ms = low(now_ms, SINCE_BITS)};
}

/* False: it has to wait, *wait_ms says how long; *word is what it becomes otherwise. */
static bool let_through(struct word *word, const struct cv_breaker_rules *rules, uint64_t now_ms,
                        bool *is_probe, uint64_t *wait_ms)
{
    uint64_t gone_ms = low(now_ms, SINCE_BITS) - word->since_ms;
    *is_probe = word->state != CV_BREAKER_CLOSED;
    if (!*is_probe)
        return true;
    if (gone_ms < rules->open_ms && (word->state == CV_BREAKER_OPEN || word->is_probe_out)) {
        *wait_ms = word->state == CV_BREAKER_OPEN ? rules->open_ms - gone_ms : 1000;
        return false;
    }
    /* Half open anew also where a probe has not come back: its word is not waited for. */
    if (word->state == CV_BREAKER_OPEN || word->is_probe_out)
        enter(word, CV_BREAKER_HALF_OPEN, now_ms);
    word->is_probe_out = true;
    word->since_ms = low(now_ms, SINCE_BITS);
    return true;
}

bool cv_breaker_admit(cv_breaker *breaker, const struct cv_breaker_rules *rules, uint64_t now_ms,
                      struct cv_breaker_ticket *ticket, uint64_t *wait_ms)
{
    *ticket = (struct cv_breaker_ticket){0};
    if (rules->failures == 0)
        return true;
    uint64_t before = read_word(breaker);
    struct word word;
    bool is_probe;
    do {
        word = unpack(before);
        if (!let_through(&word, rules, now_ms, &is_probe, wait_ms))
            return false;
    } while (is_probe && !replace(breaker, &before, &word));
    *ticket = (struct cv_breaker_ticket){word.generation, is_probe, true};
    return true;
}

static void take_outcome(struct word *word, const struct cv_breaker_rules *rules,
                         enum cv_breaker_outcome outcome, uint64_t now_ms)
{
    if (outcome == CV_BREAKER_FAILURE) {
        if (word->state == CV_BREAKER_HALF_OPEN || ++word->count >= rules->failures)
            enter(word, CV_BREAKER_OPEN, now_ms);
    } else if (word->state == CV_BREAKER_CLOSED) {
        if (outcome == CV_BREAKER_SUCCESS)
            word->count = 0;
    } else {
        word->is_probe_out = false;
        if (outcome == CV_BREAKER_SUCCESS && ++word->count >= rules->successes)
            enter(word, CV_BREAKER_CLOSED, 0);
    }
}

bool cv_breaker_tell(cv_breaker *breaker, const struct cv_breaker_rules *rules,
                     struct cv_breaker_ticket *ticket, enum cv_breaker_outcome outcome,
                     uint64_t now_ms)
{
    bool is_held = ticket->is_held;
    ticket->is_held = false;
    if (!is_held)
        return false;
    uint64_t before = read_word(breaker);
    struct word was, word;
    do {
        was = word = unpack(before);
        if (was.generation != ticket->generation)
            return false;
        take_outcome(&word, rules, outcome, now_ms);
        if (pack(&word) == before)
            return false;
    } while (!replace(breaker, &before, &word));
    return word.state != was.state;
}

void cv_breaker_reset(cv_breaker *breaker)
{
    uint64_t before = read_word(breaker);
    struct word word;
    do {
        word = unpack(before);
        enter(&word, CV_BREAKER_CLOSED, 0);
    } while (!replace(breaker, &before, &word));
}

struct cv_breaker_view cv_breaker_look(const cv_breaker *breaker)
{
    struct word word = unpack(read_word(breaker));
    return (struct cv_breaker_view){word.state, word.count, word.since_ms};
}

const char *cv_breaker_state_name(enum cv_breaker_state state)
{
    static const char *const names[] = {"closed", "open", "half_open"};
    return (unsigned)state < sizeof names / sizeof names[0] ? names[state] : "?";
}
