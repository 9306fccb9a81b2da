/* SPDX-License-Identifier: MIT */
#include "proto/ssh/wire.h"

#include "base/test.h"

static void a_short_read_fails_for_good(void **state)
{
    (void)state;
    static const uint8_t data[] = {0, 0, 0, 9, 'x'};
    struct cv_ssh_reader r = cv_ssh_reader(cv_slice(data, sizeof data));
    struct cv_slice text;
    uint8_t byte = 7;
    assert_false(cv_ssh_read_string(&r, &text));
    assert_int_equal(text.len, 0);
    assert_false(cv_ssh_read_u8(&r, &byte));
    assert_int_equal(byte, 0);
    assert_false(cv_ssh_reader_is_done(&r));
}

static void every_cut_of_a_message_is_noticed(void **state)
{
    (void)state;
    uint8_t data[64];
    struct cv_ssh_writer w = cv_ssh_writer(data, sizeof data);
    cv_ssh_write_u8(&w, 5);
    cv_ssh_write_u32(&w, 0x01020304);
    cv_ssh_write_u64(&w, 0x0102030405060708);
    cv_ssh_write_str(&w, "a,b");
    cv_ssh_write_bool(&w, true);
    assert_false(w.is_failed);
    for (size_t len = 0; len <= w.len; len++) {
        struct cv_ssh_reader r = cv_ssh_reader(cv_slice(data, len));
        uint8_t u8;
        uint32_t u32;
        uint64_t u64;
        struct cv_slice text;
        bool flag;
        (void)cv_ssh_read_u8(&r, &u8);
        (void)cv_ssh_read_u32(&r, &u32);
        (void)cv_ssh_read_u64(&r, &u64);
        (void)cv_ssh_read_name_list(&r, &text);
        (void)cv_ssh_read_bool(&r, &flag);
        assert_int_equal(cv_ssh_reader_is_done(&r), len == w.len);
    }
}

static void a_writer_stops_at_its_end(void **state)
{
    (void)state;
    uint8_t data[8] = {0};
    struct cv_ssh_writer w = cv_ssh_writer(data, 6);
    cv_ssh_write_str(&w, "abc");
    assert_true(w.is_failed);
    assert_int_equal(w.len, 0);
    cv_ssh_write_u8(&w, 1);
    assert_int_equal(w.len, 0);
}

static void name_lists_are_strict(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_valid;
    } cases[] = {{"", true},     {"a", true},  {"a,b", true},   {",a", false},
                 {"a,", true},   {",", false}, {"a,,b", false}, {"a,,", false},
                 {"a b", false}, {"é", false}, {"a\n", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t data[32];
        struct cv_ssh_writer w = cv_ssh_writer(data, sizeof data);
        cv_ssh_write_str(&w, cases[i].text);
        struct cv_ssh_reader r = cv_ssh_reader(cv_ssh_written(&w));
        struct cv_slice list;
        assert_int_equal(cv_ssh_read_name_list(&r, &list), cases[i].is_valid);
    }
    assert_true(cv_ssh_name_list_has(cv_slice_str("ab,c"), cv_slice_str("c")));
    assert_false(cv_ssh_name_list_has(cv_slice_str("ab,c"), cv_slice_str("a")));
}

/* The examples of RFC 4251 §5. */
static void mpints_are_minimal(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        size_t in_len;
        const char *out;
        size_t out_len;
    } cases[] = {
        {"\0\0", 2, "\0\0\0\0", 4},
        {"\x09\xa3\x78\xf9\xb2\xe3\x32\xa7", 8, "\0\0\0\x08\x09\xa3\x78\xf9\xb2\xe3\x32\xa7", 12},
        {"\x80", 1, "\0\0\0\x02\0\x80", 6},
        {"\0\x7f", 2, "\0\0\0\x01\x7f", 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t data[32];
        struct cv_ssh_writer w = cv_ssh_writer(data, sizeof data);
        cv_ssh_write_mpint(&w, cv_slice(cases[i].in, cases[i].in_len));
        assert_int_equal(w.len, cases[i].out_len);
        assert_memory_equal(data, cases[i].out, cases[i].out_len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_short_read_fails_for_good),
        cmocka_unit_test(every_cut_of_a_message_is_noticed),
        cmocka_unit_test(a_writer_stops_at_its_end),
        cmocka_unit_test(name_lists_are_strict),
        cmocka_unit_test(mpints_are_minimal),
    };
    return cmocka_run_group_tests_name("ssh_wire", tests, NULL, NULL);
}
