/* SPDX-License-Identifier: MIT */
#include "auth/auth.h"
#include "auth/dev.h"
#include "base/test.h"

#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOW_S 1700000000

struct fixture {
    char folder[64];
    struct cv_auth_policy policy;
    struct cv_signing_key *key;
    struct cv_buf jwks;
    struct cv_buf token;
};

static int setup(void **state)
{
    static struct fixture f;
    static const char *const audiences[] = {"relay"};
    f = (struct fixture){.folder = "/tmp/culvert-auth-XXXXXX"};
    assert_non_null(mkdtemp(f.folder));
    cv_auth_policy_init(&f.policy);
    f.policy.issuer = "issuer";
    f.policy.audiences = audiences;
    f.policy.audience_count = 1;
    f.policy.skew_s = 0;
    cv_buf_init(&f.jwks, 8192);
    cv_buf_init(&f.token, 8192);
    assert_ok(cv_signing_key_generate(&f.key));
    assert_ok(cv_signing_key_to_jwks(f.key, &f.jwks));
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    cv_signing_key_free(&f->key);
    cv_buf_done(&f->jwks);
    cv_buf_done(&f->token);
    snprintf(command, sizeof command, "rm -r %s", f->folder);
    assert_int_equal(system(command), 0);
    return 0;
}

static struct cv_slice issue(struct fixture *f, const char *subject, int64_t ttl_s)
{
    struct cv_token_request request = {.issuer = "issuer",
                                       .audience = "relay",
                                       .subject = subject,
                                       .now_s = NOW_S,
                                       .ttl_s = ttl_s};
    cv_buf_consume(&f->token, cv_buf_len(&f->token));
    assert_ok(cv_token_issue(f->key, &request, &f->token, NULL));
    return cv_buf_slice(&f->token);
}

static struct cv_identity *make_identity(int64_t valid_until_s)
{
    struct cv_identity *identity = calloc(1, sizeof *identity);
    atomic_init(&identity->refs, 1);
    identity->valid_until_s = valid_until_s;
    return identity;
}

static void cache_honours_expiry_ttl_and_generation(void **state)
{
    (void)state;
    struct cv_token_cache *cache = NULL;
    struct cv_identity *identity = make_identity(100);
    struct cv_slice token = cv_slice_str("token");
    assert_ok(cv_token_cache_new(8, 1000, &cache));
    struct {
        uint64_t generation;
        int64_t now_s;
        uint64_t now_ms;
        bool is_hit;
    } const cases[] = {{1, 99, 5999, true},  {1, 100, 5000, false}, {1, 99, 6000, false},
                       {2, 99, 5000, false}, {0, 99, 5000, false},  {1, 0, 5000, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cv_token_cache_put(cache, token, identity, 1, 5000);
        assert_int_equal(cv_token_cache_count(cache), 1);
        struct cv_identity *hit =
            cv_token_cache_find(cache, token, cases[i].generation, cases[i].now_s, cases[i].now_ms);
        assert_int_equal(hit != NULL, cases[i].is_hit);
        assert_int_equal(cv_token_cache_count(cache), cases[i].is_hit);
        cv_identity_unref(&hit);
    }
    assert_null(cv_token_cache_find(cache, cv_slice_str("tokem"), 1, 0, 5000));
    cv_token_cache_free(&cache);
    cv_token_cache_free(&cache);
    assert_int_equal(atomic_load(&identity->refs), 1);
    cv_identity_unref(&identity);
}

static void cache_drops_the_least_recently_used(void **state)
{
    (void)state;
    struct cv_token_cache *cache = NULL;
    struct cv_identity *identity = make_identity(100);
    assert_ok(cv_token_cache_new(3, 1000, &cache));
    cv_token_cache_put(cache, cv_slice_str("a"), identity, 1, 0);
    cv_token_cache_put(cache, cv_slice_str("b"), identity, 1, 0);
    cv_token_cache_put(cache, cv_slice_str("c"), identity, 1, 0);
    struct cv_identity *hit = cv_token_cache_find(cache, cv_slice_str("a"), 1, 0, 0);
    assert_non_null(hit);
    cv_identity_unref(&hit);
    cv_token_cache_put(cache, cv_slice_str("d"), identity, 1, 0);
    assert_int_equal(cv_token_cache_count(cache), 3);
    assert_null(cv_token_cache_find(cache, cv_slice_str("b"), 1, 0, 0));
    hit = cv_token_cache_find(cache, cv_slice_str("a"), 1, 0, 0);
    assert_non_null(hit);
    cv_identity_unref(&hit);
    for (unsigned i = 0; i < 10000; i++) {
        char token[16];
        snprintf(token, sizeof token, "t%u", i);
        cv_token_cache_put(cache, cv_slice_str(token), identity, 1, 0);
        assert_true(cv_token_cache_count(cache) <= 3);
    }
    cv_token_cache_free(&cache);

    assert_ok(cv_token_cache_new(3, 0, &cache));
    cv_token_cache_put(cache, cv_slice_str("a"), identity, 1, 0);
    assert_int_equal(cv_token_cache_count(cache), 0);
    cv_token_cache_free(&cache);
    assert_int_equal(atomic_load(&identity->refs), 1);
    cv_identity_unref(&identity);
}

static void bearer_rules(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        enum cv_status_id want;
        const char *token;
    } cases[] = {
        {"Bearer a.b.c", CV_OK, "a.b.c"},          {"bearer  a.b.c ", CV_OK, "a.b.c"},
        {"BEARER a-_~+/.==", CV_OK, "a-_~+/.=="},  {"", CV_AUTH_MISSING, NULL},
        {"Basic YTpi", CV_AUTH_MISSING, NULL},     {"Bearerx y", CV_AUTH_MISSING, NULL},
        {"Bear", CV_AUTH_MISSING, NULL},           {"Bearer", CV_AUTH_MALFORMED, NULL},
        {"Bearer  ", CV_AUTH_MALFORMED, NULL},     {"Bearer a b", CV_AUTH_MALFORMED, NULL},
        {"Bearer a,b", CV_AUTH_MALFORMED, NULL},   {"Bearer \xff", CV_AUTH_MALFORMED, NULL},
        {"Bearer \"a\"", CV_AUTH_MALFORMED, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cv_slice token;
        assert_status(cv_auth_bearer(cv_slice_str(cases[i].value), &token), cases[i].want);
        assert_true(cases[i].token ? cv_slice_is(token, cases[i].token) : token.data == NULL);
    }
}

static void check_goes_through_the_cache(void **state)
{
    struct fixture *f = *state;
    struct cv_keysource *source = NULL;
    struct cv_token_cache *cache = NULL;
    struct cv_identity *a = NULL;
    struct cv_identity *b = NULL;
    assert_ok(cv_keysource_new_url(NULL, &source));
    assert_ok(cv_token_cache_new(16, 60000, &cache));
    struct cv_slice token = issue(f, "alice", 100);

    assert_status(cv_auth_check(&f->policy, source, cache, cv_slice(NULL, 0), NOW_S, 0, &a, NULL),
                  CV_AUTH_MISSING);
    assert_status(cv_auth_check(&f->policy, source, cache, token, NOW_S, 0, &a, NULL),
                  CV_UNAVAILABLE);
    assert_true(cv_keysource_is_due(source, 0));
    assert_ok(cv_keysource_fetched(source, cv_buf_slice(&f->jwks), 0, NULL));
    assert_ok(cv_auth_check(&f->policy, source, cache, token, NOW_S, 0, &a, NULL));
    assert_ok(cv_auth_check(&f->policy, source, cache, token, NOW_S + 99, 1, &b, NULL));
    assert_ptr_equal(a, b);
    cv_identity_unref(&b);
    /* Expired by the second, cached or not. */
    assert_status(cv_auth_check(&f->policy, source, cache, token, NOW_S + 100, 2, &b, NULL),
                  CV_AUTH_EXPIRED);
    assert_null(b);
    assert_int_equal(cv_token_cache_count(cache), 0);

    char *big = calloc(1, 1 << 20);
    assert_status(
        cv_auth_check(&f->policy, source, cache, cv_slice(big, 1 << 20), NOW_S, 3, &b, NULL),
        CV_AUTH_MALFORMED);
    free(big);
    cv_identity_unref(&a);
    cv_token_cache_free(&cache);
    cv_keysource_free(&source);
}

static void a_removed_key_ends_its_cached_tokens(void **state)
{
    struct fixture *f = *state;
    struct cv_keysource *source = NULL;
    struct cv_token_cache *cache = NULL;
    struct cv_identity *identity = NULL;
    struct cv_signing_key *other = NULL;
    struct cv_buf jwks;
    cv_buf_init(&jwks, 4096);
    assert_ok(cv_signing_key_generate(&other));
    assert_ok(cv_signing_key_to_jwks(other, &jwks));
    assert_ok(cv_keysource_new_url(NULL, &source));
    assert_ok(cv_token_cache_new(16, 60000, &cache));
    assert_true(cv_keysource_is_due(source, 0));
    assert_ok(cv_keysource_fetched(source, cv_buf_slice(&f->jwks), 0, NULL));
    struct cv_slice token = issue(f, "alice", 100000);
    assert_ok(cv_auth_check(&f->policy, source, cache, token, NOW_S, 0, &identity, NULL));
    cv_identity_unref(&identity);

    /* The same bytes again change nothing, other keys do. */
    uint64_t generation = cv_keysource_generation(source);
    assert_true(cv_keysource_is_due(source, 600000));
    assert_ok(cv_keysource_fetched(source, cv_buf_slice(&f->jwks), 600000, NULL));
    assert_int_equal(cv_keysource_generation(source), generation);
    assert_true(cv_keysource_is_due(source, 1200000));
    assert_ok(cv_keysource_fetched(source, cv_buf_slice(&jwks), 1200000, NULL));
    assert_true(cv_keysource_generation(source) > generation);
    assert_status(cv_auth_check(&f->policy, source, cache, token, NOW_S, 0, &identity, NULL),
                  CV_AUTH_UNKNOWN_KEY);
    cv_buf_done(&jwks);
    cv_signing_key_free(&other);
    cv_token_cache_free(&cache);
    cv_keysource_free(&source);
}

static void a_storm_of_unknown_keys_costs_one_fetch_an_interval(void **state)
{
    struct fixture *f = *state;
    struct cv_keysource *source = NULL;
    unsigned fetches = 0;
    assert_ok(cv_keysource_new_url(NULL, &source));
    assert_true(cv_keysource_is_due(source, 0));
    assert_false(cv_keysource_is_due(source, 0));
    assert_int_equal(cv_keysource_unknown_key(source, 0), CV_KEYSOURCE_WAIT);
    assert_ok(cv_keysource_fetched(source, cv_buf_slice(&f->jwks), 5, NULL));
    for (uint64_t now = 0; now < 300000; now += 10) {
        if (cv_keysource_unknown_key(source, now) == CV_KEYSOURCE_FETCH) {
            fetches++;
            assert_int_equal(cv_keysource_unknown_key(source, now), CV_KEYSOURCE_WAIT);
            assert_false(cv_keysource_is_due(source, now));
            assert_ok(cv_keysource_fetched(source, cv_buf_slice(&f->jwks), now, NULL));
        }
    }
    assert_int_equal(fetches, 9);
    assert_int_equal(cv_keysource_attempts(source), 10);
    cv_keysource_free(&source);
}

static void last_good_set_holds_for_its_grace(void **state)
{
    struct fixture *f = *state;
    static const char secret_set[] = "{\"keys\":[{\"kty\":\"oct\",\"k\":"
                                     "\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}";
    static const char *const answers[] = {"", "<html>500</html>", "{\"keys\":[]}", secret_set};
    struct cv_keysource *source = NULL;
    struct cv_keysource_times times;
    cv_keysource_times_init(&times);
    times.grace_ms = 3600000;
    assert_ok(cv_keysource_new_url(&times, &source));
    assert_int_equal(cv_keysource_next_due(source), 0);
    assert_int_equal(cv_keysource_state(source, 0), CV_KEYSOURCE_EMPTY);
    assert_null(cv_keysource_keys(source, 0, NULL));

    /* Without keys it tries every two seconds. */
    assert_true(cv_keysource_is_due(source, 0));
    cv_keysource_failed(source, 100);
    assert_int_equal(cv_keysource_next_due(source), 2000);
    assert_false(cv_keysource_is_due(source, 1999));
    assert_true(cv_keysource_is_due(source, 2000));
    assert_ok(cv_keysource_fetched(source, cv_buf_slice(&f->jwks), 2100, NULL));
    assert_int_equal(cv_keysource_state(source, 2100), CV_KEYSOURCE_FRESH);
    assert_int_equal(cv_keysource_next_due(source), 602000);

    /* Bad answers of every kind: stale, retried, still good. */
    uint64_t generation = cv_keysource_generation(source);
    uint64_t now = 602000;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        assert_true(cv_keysource_is_due(source, now));
        assert_status(cv_keysource_fetched(source, cv_slice_str(answers[i]), now, NULL), CV_CONFIG);
        assert_int_equal(cv_keysource_state(source, now), CV_KEYSOURCE_STALE);
        now += 30000;
    }
    struct cv_jwks *set = cv_keysource_keys(source, 602000 + 3599999, NULL);
    assert_non_null(set);
    cv_jwks_unref(&set);
    assert_int_equal(cv_keysource_generation(source), generation);
    assert_null(cv_keysource_keys(source, 602000 + 3600000, NULL));
    assert_int_equal(cv_keysource_state(source, 602000 + 3600000), CV_KEYSOURCE_EMPTY);
    assert_true(cv_keysource_generation(source) > generation);

    /* And it comes back. */
    assert_true(cv_keysource_is_due(source, 9000000));
    assert_ok(cv_keysource_fetched(source, cv_buf_slice(&f->jwks), 9000000, NULL));
    assert_int_equal(cv_keysource_state(source, 9000000), CV_KEYSOURCE_FRESH);
    cv_keysource_free(&source);
}

static void a_lost_fetch_does_not_block_for_ever(void **state)
{
    (void)state;
    struct cv_keysource *source = NULL;
    assert_ok(cv_keysource_new_url(NULL, &source));
    assert_true(cv_keysource_is_due(source, 0));
    assert_false(cv_keysource_is_due(source, 119999));
    assert_true(cv_keysource_is_due(source, 120000));
    cv_keysource_free(&source);
}

static void write_file(const char *path, const void *data, size_t len, mode_t mode)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, len, file), len);
    assert_int_equal(fchmod(fileno(file), mode), 0);
    fclose(file);
}

static void files_are_loaded_and_reloaded(void **state)
{
    struct fixture *f = *state;
    char path[128];
    struct cv_keysource *source = NULL;
    struct cv_error error = {0};
    snprintf(path, sizeof path, "%s/jwks.json", f->folder);
    assert_status(cv_keysource_new_file(path, &source, &error), CV_NOT_FOUND);
    write_file(path, "{}", 2, 0644);
    assert_status(cv_keysource_new_file(path, &source, &error), CV_CONFIG);
    assert_null(source);
    write_file(path, cv_buf_head(&f->jwks), cv_buf_len(&f->jwks), 0644);
    assert_ok(cv_keysource_new_file(path, &source, &error));
    assert_false(cv_keysource_is_due(source, 1u << 30));
    assert_int_equal(cv_keysource_unknown_key(source, 1u << 30), CV_KEYSOURCE_REFUSE);
    uint64_t generation = cv_keysource_generation(source);
    write_file(path, "{\"keys\":", 8, 0644);
    assert_status(cv_keysource_reload(source, &error), CV_CONFIG);
    assert_int_equal(cv_keysource_generation(source), generation);
    struct cv_jwks *set = cv_keysource_keys(source, 0, NULL);
    assert_non_null(set);
    cv_jwks_unref(&set);
    cv_keysource_free(&source);
}

static void secrets_have_a_length_and_a_mode(void **state)
{
    struct fixture *f = *state;
    char path[128];
    struct cv_keysource *source = NULL;
    snprintf(path, sizeof path, "%s/secret", f->folder);
    write_file(path, "0123456789abcdef0123456789abcde\n", 32, 0600);
    assert_status(cv_keysource_new_secret(path, &source, NULL), CV_CONFIG);
    write_file(path, "0123456789abcdef0123456789abcdef\n", 33, 0644);
    assert_status(cv_keysource_new_secret(path, &source, NULL), CV_CONFIG);
    assert_int_equal(chmod(path, 0600), 0);
    assert_ok(cv_keysource_new_secret(path, &source, NULL));
    struct cv_jwks *set = cv_keysource_keys(source, 0, NULL);
    assert_true(cv_jwks_has_secret(set));
    cv_jwks_unref(&set);
    cv_keysource_free(&source);
}

static void the_dev_issuer_agrees_with_itself(void **state)
{
    struct fixture *f = *state;
    char folder[128];
    char path[192];
    struct cv_keysource *source = NULL;
    struct cv_identity *identity = NULL;
    struct cv_auth_policy policy;
    struct stat info;
    static const char *const tunnels[] = {"home"};
    snprintf(folder, sizeof folder, "%s/a/b", f->folder);
    snprintf(path, sizeof path, "%s/%s", folder, CV_DEV_KEY_FILE);
    cv_dev_policy_init(&policy);
    struct cv_token_request request = {.subject = "alice",
                                       .tier = "premium",
                                       .tunnels = tunnels,
                                       .tunnel_count = 1,
                                       .now_s = NOW_S,
                                       .ttl_s = 3600};
    cv_buf_consume(&f->token, cv_buf_len(&f->token));
    assert_ok(cv_dev_token(folder, request, &f->token, NULL));
    assert_ok(cv_dev_keysource_new(folder, &source, NULL));
    assert_ok(
        cv_auth_check(&policy, source, NULL, cv_buf_slice(&f->token), NOW_S, 0, &identity, NULL));
    assert_string_equal(identity->subject, "alice");
    assert_string_equal(identity->issuer, CV_DEV_ISSUER);
    assert_string_equal(identity->tier, "premium");
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0600);
    cv_identity_unref(&identity);
    cv_keysource_free(&source);

    assert_int_equal(chmod(path, 0644), 0);
    assert_status(cv_dev_keysource_new(folder, &source, NULL), CV_CONFIG);
    write_file(path, "junk", 4, 0600);
    assert_status(cv_dev_keysource_new(folder, &source, NULL), CV_CONFIG);
}

/* Each process prints the key that it came to; all must be the same. */
static void racing_processes_end_with_one_key(void **state)
{
    struct fixture *f = *state;
    char first[CV_KID_MAX_BYTES + 1] = "";
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    for (int i = 0; i < 16; i++) {
        if (fork() != 0)
            continue;
        struct cv_signing_key *key = NULL;
        bool is_loaded = cv_is_ok(cv_dev_key_load(f->folder, &key, NULL));
        ssize_t put = is_loaded ? write(pipes[1], cv_signing_key_kid(key), 43) : 0;
        cv_signing_key_free(&key);
        _exit(put == 43 ? 0 : 1);
    }
    for (int i = 0; i < 16; i++) {
        int status = 0;
        char kid[CV_KID_MAX_BYTES + 1] = "";
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
        assert_int_equal(read(pipes[0], kid, 43), 43);
        if (i == 0)
            memcpy(first, kid, sizeof first);
        assert_string_equal(kid, first);
    }
    close(pipes[0]);
    close(pipes[1]);
}

struct shared {
    const struct cv_auth_policy *policy;
    struct cv_keysource *source;
    struct cv_slice token;
    struct cv_slice sets[2];
};

/* Half the threads verify with a cache of their own, half keep exchanging the keys. */
static void *verify_all_the_time(void *arg)
{
    struct shared *shared = arg;
    struct cv_token_cache *cache = NULL;
    uintptr_t bad = 0;
    if (!cv_is_ok(cv_token_cache_new(4, 1000, &cache)))
        return (void *)1;
    for (uint64_t i = 0; i < 300; i++) {
        struct cv_identity *identity = NULL;
        enum cv_status_id id = cv_auth_check(shared->policy, shared->source, cache, shared->token,
                                             NOW_S, i, &identity, NULL)
                                   .id;
        bad += id != CV_OK && id != CV_AUTH_UNKNOWN_KEY && id != CV_UNAVAILABLE;
        cv_identity_unref(&identity);
    }
    cv_token_cache_free(&cache);
    return (void *)bad;
}

static void *refresh_all_the_time(void *arg)
{
    struct shared *shared = arg;
    for (uint64_t now = 0; now < 300; now++) {
        if (cv_keysource_unknown_key(shared->source, now) != CV_KEYSOURCE_FETCH)
            continue;
        if (now % 5 == 4)
            cv_keysource_failed(shared->source, now);
        else
            (void)cv_keysource_fetched(shared->source, shared->sets[now % 2], now, NULL);
    }
    return NULL;
}

static void workers_share_a_source(void **state)
{
    struct fixture *f = *state;
    struct cv_signing_key *other = NULL;
    struct cv_buf jwks;
    struct cv_keysource_times times = {.refresh_ms = 1, .min_interval_ms = 1, .grace_ms = 1};
    struct shared shared = {.policy = &f->policy, .token = issue(f, "alice", 1000)};
    pthread_t threads[8];
    cv_buf_init(&jwks, 4096);
    assert_ok(cv_signing_key_generate(&other));
    assert_ok(cv_signing_key_to_jwks(other, &jwks));
    assert_ok(cv_keysource_new_url(&times, &shared.source));
    shared.sets[0] = cv_buf_slice(&f->jwks);
    shared.sets[1] = cv_buf_slice(&jwks);
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL,
                                        i % 2 ? verify_all_the_time : refresh_all_the_time,
                                        &shared),
                         0);
    for (int i = 0; i < 8; i++) {
        void *bad = NULL;
        assert_int_equal(pthread_join(threads[i], &bad), 0);
        assert_null(bad);
    }
    cv_keysource_free(&shared.source);
    cv_signing_key_free(&other);
    cv_buf_done(&jwks);
}

static void results_have_names(void **state)
{
    (void)state;
    assert_string_equal(cv_auth_result_name(CV_OK), "ok");
    assert_string_equal(cv_auth_result_name(CV_AUTH_NOT_YET_VALID), "not_yet_valid");
    assert_string_equal(cv_auth_result_name(CV_NO_MEMORY), "unavailable");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(cache_honours_expiry_ttl_and_generation),
        T(cache_drops_the_least_recently_used),
        T(bearer_rules),
        T(check_goes_through_the_cache),
        T(a_removed_key_ends_its_cached_tokens),
        T(a_storm_of_unknown_keys_costs_one_fetch_an_interval),
        T(last_good_set_holds_for_its_grace),
        T(a_lost_fetch_does_not_block_for_ever),
        T(files_are_loaded_and_reloaded),
        T(secrets_have_a_length_and_a_mode),
        T(the_dev_issuer_agrees_with_itself),
        T(racing_processes_end_with_one_key),
        T(workers_share_a_source),
        T(results_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
