/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "flow/queue.h"

enum { AGEING = 1000, MANY = 60 };

static void put(struct cv_queue *queue, struct cv_queue_entry *entry, enum cv_priority priority,
                uint64_t now_ms)
{
    cv_queue_put(queue, entry, priority, now_ms);
}

static void nobody_waits_in_an_empty_queue(void **state)
{
    (void)state;
    struct cv_queue queue = {0};
    struct cv_queue_entry stranger = {0};
    assert_null(cv_queue_first(&queue, 5, AGEING));
    assert_int_equal(cv_queue_position(&queue, &stranger, 5, AGEING), 0);
}

static void priorities_go_first_and_the_oldest_within_one(void **state)
{
    (void)state;
    struct cv_queue queue = {0};
    struct cv_queue_entry e[6];
    put(&queue, &e[0], CV_PRIORITY_BACKGROUND, 0);
    put(&queue, &e[1], CV_PRIORITY_BATCH, 1);
    put(&queue, &e[2], CV_PRIORITY_INTERACTIVE, 2);
    put(&queue, &e[3], CV_PRIORITY_INTERACTIVE, 2);
    put(&queue, &e[4], CV_PRIORITY_BATCH, 3);
    put(&queue, &e[5], CV_PRIORITY_BACKGROUND, 4);
    static const size_t order[] = {2, 3, 1, 4, 0, 5};
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(cv_queue_position(&queue, &e[order[i]], 5, AGEING), i + 1);
    cv_queue_remove(&queue, &e[3]);
    cv_queue_remove(&queue, &e[0]);
    assert_int_equal(queue.count, 4);
    assert_int_equal(cv_queue_position(&queue, &e[1], 5, AGEING), 2);
    assert_int_equal(cv_queue_position(&queue, &e[5], 5, AGEING), 4);
}

static void age_lifts_one_priority_for_each_span(void **state)
{
    (void)state;
    struct cv_queue queue = {0};
    struct cv_queue_entry background, batch, fresh;
    put(&queue, &background, CV_PRIORITY_BACKGROUND, 0);
    put(&queue, &batch, CV_PRIORITY_BATCH, 500);
    put(&queue, &fresh, CV_PRIORITY_INTERACTIVE, 999);
    assert_ptr_equal(cv_queue_first(&queue, 999, AGEING), &fresh);
    assert_int_equal(cv_queue_position(&queue, &background, 999, AGEING), 3);
    assert_int_equal(cv_queue_position(&queue, &background, 1000, AGEING), 2);
    assert_ptr_equal(cv_queue_first(&queue, 1500, AGEING), &batch);
    assert_ptr_equal(cv_queue_first(&queue, 2000, AGEING), &background);
    assert_ptr_equal(cv_queue_first(&queue, 1000000, 0), &fresh);
}

static void nobody_starves_while_others_keep_coming(void **state)
{
    (void)state;
    struct cv_queue queue = {0};
    static struct cv_queue_entry crowd[5000];
    struct cv_queue_entry patient;
    put(&queue, &patient, CV_PRIORITY_BACKGROUND, 0);
    uint64_t now_ms = 0;
    for (size_t i = 0; i < 5000; i++, now_ms++) { /* two come, one goes */
        put(&queue, &crowd[i], CV_PRIORITY_INTERACTIVE, now_ms);
        if (i % 2)
            continue;
        struct cv_queue_entry *next = cv_queue_first(&queue, now_ms, AGEING);
        cv_queue_remove(&queue, next);
        if (next == &patient)
            break;
    }
    assert_in_range(now_ms, 2 * AGEING, 2 * AGEING + 2);
}

/* Whatever comes and goes: the order is that of a plain sort, and the walk sees each one once. */
static void the_order_is_what_sorting_gives(void **state)
{
    (void)state;
    uint64_t seed = 7, now_ms = 0;
    struct cv_queue queue = {0};
    struct cv_queue_entry entries[MANY];
    bool is_in[MANY] = {false};
    for (unsigned step = 0; step < 20000; step++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t i = (seed >> 33) % MANY;
        now_ms += (seed >> 50) % 100;
        if (is_in[i])
            cv_queue_remove(&queue, &entries[i]);
        else
            put(&queue, &entries[i], (enum cv_priority)((seed >> 40) % 3), now_ms);
        is_in[i] = !is_in[i];
        struct cv_queue_walk walk;
        uint64_t level = 0, since_ms = 0;
        size_t count = 0;
        cv_queue_begin(&queue, now_ms, AGEING, &walk);
        for (struct cv_queue_entry *e; (e = cv_queue_next(&walk)); count++) {
            uint64_t lifted = (now_ms - e->since_ms) / AGEING;
            uint64_t its = lifted < e->priority ? e->priority - lifted : 0;
            assert_true(is_in[e - entries]);
            assert_true(its > level || (its == level && e->since_ms >= since_ms));
            level = its;
            since_ms = e->since_ms;
        }
        assert_int_equal(count, queue.count);
    }
}

static void priorities_are_read(void **state)
{
    (void)state;
    enum cv_priority priority;
    for (unsigned i = 0; i < CV_PRIORITY_COUNT; i++) {
        assert_true(cv_priority_parse(cv_slice_str(cv_priority_name(i)), &priority));
        assert_int_equal(priority, i);
    }
    assert_true(cv_priority_parse(cv_slice_str("BATCH"), &priority));
    assert_false(cv_priority_parse(cv_slice_str(""), &priority));
    assert_false(cv_priority_parse(cv_slice_str("batch "), &priority));
    static const struct {
        const char *field;
        enum cv_priority priority;
    } cases[] = {
        {"", CV_PRIORITY_INTERACTIVE},       {"u=0", CV_PRIORITY_INTERACTIVE},
        {"u=3, i", CV_PRIORITY_INTERACTIVE}, {"u=4", CV_PRIORITY_BATCH},
        {"i, u=5;x=1", CV_PRIORITY_BATCH},   {" i ,u=6", CV_PRIORITY_BACKGROUND},
        {"u=7", CV_PRIORITY_BACKGROUND},     {"u=8", CV_PRIORITY_INTERACTIVE},
        {"u=-1", CV_PRIORITY_INTERACTIVE},   {"u=07", CV_PRIORITY_INTERACTIVE},
        {"u", CV_PRIORITY_INTERACTIVE},      {"u=2,u=7", CV_PRIORITY_BACKGROUND},
        {"U=7", CV_PRIORITY_INTERACTIVE},    {",,=,;", CV_PRIORITY_INTERACTIVE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(cv_priority_from_urgency(cv_slice_str(cases[i].field)), cases[i].priority);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_waits_in_an_empty_queue),
        cmocka_unit_test(priorities_go_first_and_the_oldest_within_one),
        cmocka_unit_test(age_lifts_one_priority_for_each_span),
        cmocka_unit_test(nobody_starves_while_others_keep_coming),
        cmocka_unit_test(the_order_is_what_sorting_gives),
        cmocka_unit_test(priorities_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
