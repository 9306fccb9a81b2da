/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "proto/ws/ws_handshake.h"

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static struct cv_slice str(const char *text)
{
    return cv_slice_str(text);
}

static struct cv_ws_request good_request(void)
{
    return (struct cv_ws_request){
        .method = str("GET"),
        .http_major = 1,
        .http_minor = 1,
        .upgrade = str("WebSocket"),
        .connection = str("keep-alive, Upgrade"),
        .key = str(KEY),
        .version = str("13"),
    };
}

static void requests_with_a_fault_are_refused(void **state)
{
    (void)state;
    struct cv_error error;
    struct cv_ws_request r = good_request();
    assert_ok(cv_ws_check_request(&r, &error));
    r.method = str("POST");
    assert_status(cv_ws_check_request(&r, &error), CV_WS_UPGRADE);
    assert_string_equal(error.detail, "the method is not GET");
    r = good_request();
    r.http_minor = 0;
    assert_status(cv_ws_check_request(&r, NULL), CV_WS_UPGRADE);
    r = good_request();
    r.upgrade = str("h2c");
    assert_status(cv_ws_check_request(&r, NULL), CV_WS_UPGRADE);
    static const char *const connections[] = {"", "close", "keep-alive", "Upgradex", "upgrade;x"};
    for (size_t i = 0; i < sizeof connections / sizeof connections[0]; i++) {
        r = good_request();
        r.connection = str(connections[i]);
        assert_status(cv_ws_check_request(&r, NULL), CV_WS_UPGRADE);
    }
    static const char *const keys[] = {"",
                                       "dGhlIHNhbXBsZSBub25jZQ",
                                       "dGhlIHNhbXBsZSBub25jZR==",
                                       "dGhlIHNhbXBsZSBub25jZQ===",
                                       "dGhlIHNhbXBsZSBub25jZWU=",
                                       "dGhlIHNhbXBsZSBub25j",
                                       "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        r = good_request();
        r.key = str(keys[i]);
        assert_status(cv_ws_check_request(&r, NULL), CV_WS_UPGRADE);
    }
    static const char *const versions[] = {"", "8", "14", "13, 8", "013"};
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        r = good_request();
        r.version = str(versions[i]);
        assert_status(cv_ws_check_request(&r, NULL), CV_WS_VERSION);
    }
}

static void upgrade_names_are_compared_without_case_in_a_list(void **state)
{
    (void)state;
    assert_true(cv_ws_is_upgrade(str("websocket")));
    assert_true(cv_ws_is_upgrade(str("h2c/1, WEBSOCKET")));
    assert_false(cv_ws_is_upgrade(str("")));
    assert_false(cv_ws_is_upgrade(str("websocket/13")));
    assert_false(cv_ws_is_upgrade(str("web socket")));
}

static void responses_with_a_fault_are_refused(void **state)
{
    (void)state;
    struct cv_ws_response good = {101, str("websocket"), str("Upgrade"), str(ACCEPT), str("")};
    struct cv_ws_response r = good;
    assert_ok(cv_ws_check_response(&r, str(KEY), str(""), NULL));
    r.protocol = str("ssh");
    assert_status(cv_ws_check_response(&r, str(KEY), str(""), NULL), CV_WS_UPGRADE);
    assert_status(cv_ws_check_response(&r, str(KEY), str("culvert.v1"), NULL), CV_WS_UPGRADE);
    assert_ok(cv_ws_check_response(&r, str(KEY), str("culvert.v1, ssh"), NULL));
    r = good;
    r.http_status = 200;
    assert_status(cv_ws_check_response(&r, str(KEY), str(""), NULL), CV_WS_REFUSED);
    r = good;
    r.accept = str("s3pPLMBiTxaQ9kYGzzhZRbK+xOO=");
    assert_status(cv_ws_check_response(&r, str(KEY), str(""), NULL), CV_WS_UPGRADE);
    r = good;
    r.accept = str("");
    assert_status(cv_ws_check_response(&r, str(KEY), str(""), NULL), CV_WS_UPGRADE);
    r = good;
    r.upgrade = str("");
    assert_status(cv_ws_check_response(&r, str(KEY), str(""), NULL), CV_WS_UPGRADE);
    r = good;
    r.connection = str("close");
    assert_status(cv_ws_check_response(&r, str(KEY), str(""), NULL), CV_WS_UPGRADE);
}

static void keys_are_those_of_rfc_6455(void **state)
{
    (void)state;
    char accept[CV_WS_ACCEPT_SIZE], key[CV_WS_KEY_SIZE], other[CV_WS_KEY_SIZE];
    cv_ws_accept_key(str(KEY), accept); /* §1.3 */
    assert_string_equal(accept, ACCEPT);
    cv_ws_accept_key(str("a key that is far longer than any key may be"), accept);
    assert_int_equal(strlen(accept), 28);
    cv_ws_make_key(key);
    cv_ws_make_key(other);
    assert_string_not_equal(key, other);
    struct cv_ws_request r = good_request();
    r.key = str(key);
    assert_ok(cv_ws_check_request(&r, NULL));
}

static void the_first_known_subprotocol_of_the_client_is_chosen(void **state)
{
    (void)state;
    static const char *const known[] = {"ssh", "culvert.v1"};
    struct cv_slice chosen;
    assert_ok(cv_ws_choose_protocol(str("x, culvert.v1 ,ssh"), known, 2, &chosen));
    assert_true(cv_slice_is(chosen, "culvert.v1"));
    assert_ok(cv_ws_choose_protocol(str("SSH"), known, 2, &chosen));
    assert_int_equal(chosen.len, 0);
    assert_ok(cv_ws_choose_protocol(str(""), known, 2, &chosen));
    assert_int_equal(chosen.len, 0);
    assert_status(cv_ws_choose_protocol(str("ssh, ssh"), known, 2, &chosen), CV_WS_UPGRADE);
    assert_status(cv_ws_choose_protocol(str("ssh x"), known, 2, &chosen), CV_WS_UPGRADE);
    assert_status(cv_ws_choose_protocol(str("s\"sh"), known, 2, &chosen), CV_WS_UPGRADE);
    assert_status(cv_ws_choose_protocol(str("a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,"
                                            "1,2,3,4,5,6,7,8"),
                                        known, 2, &chosen),
                  CV_WS_UPGRADE);
}

static void lists_are_walked_with_empty_elements_skipped(void **state)
{
    (void)state;
    struct cv_slice rest = str(" ,, a ,\tb.c,"), token;
    assert_true(cv_ws_token_next(&rest, &token));
    assert_true(cv_slice_is(token, "a"));
    assert_true(cv_ws_token_next(&rest, &token));
    assert_true(cv_slice_is(token, "b.c"));
    assert_false(cv_ws_token_next(&rest, &token));
    assert_int_equal(rest.len, 0);
    rest = cv_slice("a\0b", 3);
    assert_false(cv_ws_token_next(&rest, &token));
    assert_true(rest.len > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_with_a_fault_are_refused),
        cmocka_unit_test(responses_with_a_fault_are_refused),
        cmocka_unit_test(upgrade_names_are_compared_without_case_in_a_list),
        cmocka_unit_test(keys_are_those_of_rfc_6455),
        cmocka_unit_test(the_first_known_subprotocol_of_the_client_is_chosen),
        cmocka_unit_test(lists_are_walked_with_empty_elements_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
