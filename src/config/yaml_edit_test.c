/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "config/yaml_edit.h"

static const struct row {
    const char *before, *key, *value, *after; /* value NULL: removed */
} rows[] = {
    /* values are replaced where they stand */
    {"a: 1 # one\nb: 2\n", "a", "7", "a: 7 # one\nb: 2\n"},
    {"a: 1", "a", "7", "a: 7"},
    {"ws:\n  # slow\n  ping: 30s   # half a minute\n\nlog: x\n", "ws.ping", "1m",
     "ws:\n  # slow\n  ping: 1m   # half a minute\n\nlog: x\n"},
    {"ws: {ping: 30s, pong: 5s}\n", "ws.pong", "1m", "ws: {ping: 30s, pong: 1m}\n"},
    {"ws.ping: 30s\n", "ws.ping", "1m", "ws.ping: 1m\n"},
    {"limits: {free.links: 3}\n", "limits.free.links", "4", "limits: {free.links: 4}\n"},
    {"a: \"x # y\" # z\n", "a", "\"p\"", "a: \"p\" # z\n"},
    {"a: 'it''s'\n", "a", "b", "a: b\n"},
    {"a:\nb: 1\n", "a", "7", "a: 7\nb: 1\n"},
    {"a: # later\nb: 1\n", "a", "7", "a: 7 # later\nb: 1\n"},
    {"l: [x, y] # list\n", "l", "[z]", "l: [z] # list\n"},
    {"l:\n  - x # first\n  - y\nb: 1\n", "l", "[z]", "l: [z]\nb: 1\n"},
    {"l:\n- x\n- y # last\nb: 1\n", "l", "[z]", "l: [z] # last\nb: 1\n"},
    {"# \xc3\xa4\xc3\xb6 \xe2\x82\xac\nn: \xc3\xa9 # \xf0\x9f\x98\x80\na: 1 # b\n", "a", "7",
     "# \xc3\xa4\xc3\xb6 \xe2\x82\xac\nn: \xc3\xa9 # \xf0\x9f\x98\x80\na: 7 # b\n"},
    {"a: 1\r\nb: 2\r\n", "a", "7", "a: 7\r\nb: 2\r\n"},
    /* what is not there goes behind its neighbours */
    {"", "a", "7", "a: 7\n"},
    {"# nothing yet", "ws.ping", "1m", "# nothing yet\nws:\n  ping: 1m\n"},
    {"a: 1\n", "b", "2", "a: 1\nb: 2\n"},
    {"a: 1 # one", "b", "2", "a: 1 # one\nb: 2"},
    {"ws:\n    ping: 30s # x\n# end\nlog: y\n", "ws.pong", "5s",
     "ws:\n    ping: 30s # x\n    pong: 5s\n# end\nlog: y\n"},
    {"ws: {ping: 30s}\n", "ws.pong", "5s", "ws: {ping: 30s, pong: 5s}\n"},
    {"ws: { ping: 30s }\n", "ws.pong", "5s", "ws: { ping: 30s, pong: 5s }\n"},
    {"ws: {}\nb: 1\n", "ws.pong", "5s", "ws: {pong: 5s}\nb: 1\n"},
    {"ws: # empty\nb: 1\n", "ws.pong", "5s", "ws: # empty\n  pong: 5s\nb: 1\n"},
    {"limits:\n  user: 1\n", "limits.free.links", "4",
     "limits:\n  user: 1\n  free:\n    links: 4\n"},
    {"limits: {user: 1}\n", "limits.free.links", "4", "limits: {user: 1, free: {links: 4}}\n"},
    {"{a: 1}\n", "b.c", "2", "{a: 1, b: {c: 2}}\n"},
    {"t:\n  - name: x\n    allow:\n      - y\n", "a", "1",
     "t:\n  - name: x\n    allow:\n      - y\na: 1\n"},
    /* removing */
    {"a: 1 # one\nb: 2\n", "a", NULL, "b: 2\n"},
    {"a: 1\nb: 2", "b", NULL, "a: 1\n"},
    {"ws:\n  ping: 30s\n  pong: 5s\n", "ws.ping", NULL, "ws:\n  pong: 5s\n"},
    {"a: 1\nws:\n  ping: 30s\nb: 2\n", "ws.ping", NULL, "a: 1\nb: 2\n"},
    {"ws: {ping: 30s, pong: 5s, z: 1}\n", "ws.ping", NULL, "ws: {pong: 5s, z: 1}\n"},
    {"ws: {ping: 30s, pong: 5s, z: 1}\n", "ws.pong", NULL, "ws: {ping: 30s, z: 1}\n"},
    {"ws: {ping: 30s, pong: 5s}\n", "ws.pong", NULL, "ws: {ping: 30s}\n"},
    {"ws: {ping: 30s}\nb: 1\n", "ws.ping", NULL, "b: 1\n"},
    {"l:\n  - x\n  - y\nb: 1\n", "l", NULL, "b: 1\n"},
    {"a:\nb: 1\n", "a", NULL, "b: 1\n"},
    {"a: 1\r\nb: 2\r\n", "a", NULL, "b: 2\r\n"},
    {"a: 1\n", "nothing.here", NULL, "a: 1\n"},
};

static void only_the_key_changes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        struct cv_error error = {0};
        struct cv_buf out;
        cv_buf_init(&out, 4096);
        struct cv_slice text = cv_slice_str(r->before);
        struct cv_status status =
            r->value ? cv_yaml_edit_set(text, r->key, cv_slice_str(r->value), &out, &error)
                     : cv_yaml_edit_remove(text, r->key, &out, &error);
        if (!cv_is_ok(status) || !cv_slice_is(cv_buf_slice(&out), r->after))
            print_error("%zu: %s\n%.*s\n", i, error.detail, (int)cv_buf_len(&out),
                        (const char *)cv_buf_head(&out));
        assert_status(status, CV_OK);
        assert_true(cv_slice_is(cv_buf_slice(&out), r->after));
        cv_buf_done(&out);
    }
}

static void what_has_no_place_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *key;
    } bad[] = {{"ws: 7\n", "ws.ping"},     {"- a\n", "a"},         {"a: [\n", "a"},
               {"a: \"x\n", "a"},          {"\xff\xfe: 1\n", "a"}, {"ws: [1]\n", "ws.ping"},
               {"a: {b: {c: 1\n", "a.b.c"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct cv_error error = {0};
        struct cv_buf out;
        cv_buf_init(&out, 4096);
        assert_status(cv_yaml_edit_set(cv_slice_str(bad[i].text), bad[i].key, cv_slice_str("1"),
                                       &out, &error),
                      CV_CONFIG);
        assert_true(error.detail[0]);
        cv_buf_done(&out);
    }
}

static void a_full_buffer_is_told(void **state)
{
    (void)state;
    struct cv_error error = {0};
    struct cv_buf out;
    cv_buf_init(&out, 4);
    assert_status(cv_yaml_edit_set(cv_slice_str("a: 1\n"), "a", cv_slice_str("2"), &out, &error),
                  CV_NO_RESOURCES);
    cv_buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_key_changes),
        cmocka_unit_test(what_has_no_place_is_refused),
        cmocka_unit_test(a_full_buffer_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
