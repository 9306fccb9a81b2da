/* SPDX-License-Identifier: MIT
 *
 * Who publishes what. Sessions here are bare: no link, no worker, only what the registry looks at.
 */
#include "base/test.h"
#include "relay/session_private.h"

#include <stdio.h>
#include <stdlib.h>

enum { DAY_MS = 24 * 3600 * 1000 };

struct fixture {
    struct cv_registry *registry;
    struct cv_user_key alice, bob;
    struct cv_session *a1, *a2, *other; /* a1 and a2 are links of one agent */
};

static struct cv_session *session_new(uint8_t agent, unsigned worker_index)
{
    struct cv_session *session = calloc(1, sizeof *session);
    assert_non_null(session);
    atomic_init(&session->refs, 1);
    memset(session->agent_id, agent, sizeof session->agent_id);
    session->worker_index = worker_index;
    return session;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_ok(cv_registry_new(&f->registry));
    memset(f->alice.bytes, 1, sizeof f->alice.bytes);
    memset(f->bob.bytes, 2, sizeof f->bob.bytes);
    f->a1 = session_new(10, 0);
    f->a2 = session_new(10, 1);
    f->other = session_new(20, 2);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    cv_registry_free(&f->registry);
    assert_null(f->registry);
    struct cv_session **sessions[] = {&f->a1, &f->a2, &f->other};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(atomic_load(&(*sessions[i])->refs), 1); /* nothing was kept */
        cv_session_unref(sessions[i]);
    }
    free(f);
    return 0;
}

static size_t publish_at(struct fixture *f, const struct cv_user_key *user,
                         struct cv_session *session, const char *name, uint32_t port,
                         struct cv_session **displaced)
{
    struct cv_tunnel_spec *spec;
    struct cv_session *lost[16];
    size_t count = 0;
    assert_ok(cv_tunnel_spec_default(cv_slice_str(name), CV_TUNNEL_HTTP, &spec));
    assert_ok(cv_registry_publish(f->registry, user, session, spec, port, lost, 16, &count));
    cv_tunnel_spec_unref(&spec);
    if (displaced)
        *displaced = count ? lost[0] : NULL;
    for (size_t i = 0; i < count; i++)
        cv_session_unref(&lost[i]); /* the test holds one of its own */
    return count;
}

static size_t publish(struct fixture *f, struct cv_session *session, const char *name)
{
    return publish_at(f, &f->alice, session, name, 80, NULL);
}

static struct cv_session *find_from(struct fixture *f, const struct cv_user_key *user,
                                    const char *name, unsigned worker, uint64_t now_ms,
                                    enum cv_status_id want)
{
    struct cv_route route;
    assert_status(
        cv_registry_find(f->registry, user, NULL, cv_slice_str(name), worker, now_ms, &route),
        want);
    struct cv_session *session = route.session;
    if (want != CV_OK) {
        assert_null(route.session);
        assert_null(route.spec);
        return NULL;
    }
    assert_string_equal(route.spec->name, name);
    cv_route_done(&route);
    return session;
}

static struct cv_session *find(struct fixture *f, const char *name, uint64_t now_ms,
                               enum cv_status_id want)
{
    return find_from(f, &f->alice, name, 0, now_ms, want);
}

static void withdraw(struct fixture *f, struct cv_session *session, const char *name,
                     uint64_t now_ms)
{
    cv_registry_withdraw(f->registry, &f->alice, session, cv_slice_str(name), now_ms);
}

static void names_that_nobody_published(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"home", "", "Home", "hom", "home "};
    find(f, "home", 0, CV_NO_TUNNEL);
    publish(f, f->a1, "homes");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        find(f, names[i], 0, CV_NO_TUNNEL);
    withdraw(f, f->a1, "nothing", 1);
    withdraw(f, f->other, "homes", 1);
    cv_registry_withdraw(f->registry, &f->bob, f->a1, cv_slice_str("homes"), 1);
    assert_ptr_equal(find(f, "homes", 2, CV_OK), f->a1);
}

static void users_do_not_see_each_other(void **state)
{
    struct fixture *f = *state;
    publish(f, f->a1, "home");
    find_from(f, &f->bob, "home", 0, 0, CV_NO_TUNNEL);
    assert_int_equal(publish_at(f, &f->bob, f->other, "home", 80, NULL), 0);
    assert_ptr_equal(find(f, "home", 0, CV_OK), f->a1);
    assert_ptr_equal(find_from(f, &f->bob, "home", 0, 0, CV_OK), f->other);
    assert_int_equal(cv_registry_tunnels(f->registry), 2);
    assert_int_equal(cv_registry_user_sessions(f->registry, &f->bob), 1);
    withdraw(f, f->a1, "", 5);
    find(f, "home", 5, CV_AGENT_OFFLINE);
    assert_ptr_equal(find_from(f, &f->bob, "home", 0, 5, CV_OK), f->other);
}

static void links_of_one_agent_share_a_name(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(publish(f, f->a1, "home"), 0);
    assert_int_equal(publish(f, f->a2, "home"), 0);
    assert_int_equal(cv_registry_tunnels(f->registry), 1);
    assert_int_equal(cv_registry_user_sessions(f->registry, &f->alice), 2);
    assert_ptr_equal(find_from(f, &f->alice, "home", 0, 0, CV_OK), f->a1);
    assert_ptr_equal(find_from(f, &f->alice, "home", 1, 0, CV_OK), f->a2);
    /* A busy one yields, wherever it is. */
    atomic_store(&f->a1->load, 3);
    assert_ptr_equal(find_from(f, &f->alice, "home", 0, 0, CV_OK), f->a2);
    withdraw(f, f->a2, "home", 1);
    assert_ptr_equal(find_from(f, &f->alice, "home", 1, 1, CV_OK), f->a1);
    assert_int_equal(cv_registry_user_sessions(f->registry, &f->alice), 1);
}

static void another_agent_takes_a_name_over(void **state)
{
    struct fixture *f = *state;
    struct cv_session *lost;
    publish(f, f->a1, "home");
    publish(f, f->a2, "home");
    publish(f, f->a1, "second");
    assert_int_equal(publish_at(f, &f->alice, f->other, "home", 80, &lost), 2);
    assert_true(lost == f->a1 || lost == f->a2);
    assert_ptr_equal(find(f, "home", 0, CV_OK), f->other);
    assert_ptr_equal(find(f, "second", 0, CV_OK), f->a1);
    /* Who lost it cannot take it away any more. */
    withdraw(f, f->a1, "", 1);
    assert_ptr_equal(find(f, "home", 1, CV_OK), f->other);
    assert_int_equal(cv_registry_tunnels(f->registry), 1);
}

static void more_are_displaced_than_can_be_told_at_once(void **state)
{
    struct fixture *f = *state;
    struct cv_session *lost[1];
    struct cv_tunnel_spec *spec;
    size_t count = 0, total = 0;
    publish(f, f->a1, "home");
    publish(f, f->a2, "home");
    assert_ok(cv_tunnel_spec_default(cv_slice_str("home"), CV_TUNNEL_HTTP, &spec));
    do {
        assert_ok(cv_registry_publish(f->registry, &f->alice, f->other, spec, 80, lost, 1, &count));
        for (size_t i = 0; i < count; i++)
            cv_session_unref(&lost[i]);
        total += count;
    } while (count == 1);
    assert_int_equal(total, 2);
    cv_tunnel_spec_unref(&spec);
    withdraw(f, f->other, "", 1);
    find(f, "home", 1, CV_AGENT_OFFLINE);
}

static void publishing_again_replaces_spec_and_port(void **state)
{
    struct fixture *f = *state;
    struct cv_route route;
    publish(f, f->a1, "home");
    assert_int_equal(publish_at(f, &f->alice, f->a1, "home", 5432, NULL), 0);
    assert_ok(cv_registry_find(f->registry, &f->alice, NULL, cv_slice_str("home"), 0, 0, &route));
    assert_int_equal(route.port, 5432);
    cv_route_done(&route);
    assert_int_equal(cv_registry_tunnels(f->registry), 1);
    withdraw(f, f->a1, "home", 1);
    assert_int_equal(cv_registry_tunnels(f->registry), 0);
}

static void a_route_outlives_its_withdrawal(void **state)
{
    struct fixture *f = *state;
    struct cv_route route;
    publish(f, f->a1, "home");
    assert_ok(cv_registry_find(f->registry, &f->alice, NULL, cv_slice_str("home"), 0, 0, &route));
    withdraw(f, f->a1, "", 1);
    cv_registry_expire(f->registry, 2ull * DAY_MS);
    assert_string_equal(route.spec->name, "home");
    assert_ptr_equal(route.session, f->a1);
    cv_route_done(&route);
    assert_null(route.spec);
    assert_null(route.session);
    cv_route_done(&route);
}

static void a_name_is_remembered_for_a_day(void **state)
{
    struct fixture *f = *state;
    publish(f, f->a1, "home");
    withdraw(f, f->a1, "home", 1000);
    find(f, "home", 1000, CV_AGENT_OFFLINE);
    find(f, "home", 1000 + DAY_MS - 1, CV_AGENT_OFFLINE);
    find(f, "home", 1000 + DAY_MS, CV_NO_TUNNEL);
    cv_registry_expire(f->registry, 1000 + DAY_MS - 1);
    find(f, "home", 1000, CV_AGENT_OFFLINE);
    cv_registry_expire(f->registry, 1000 + DAY_MS);
    find(f, "home", 1000, CV_NO_TUNNEL);
    publish(f, f->a2, "home");
    assert_ptr_equal(find(f, "home", 0, CV_OK), f->a2);
    cv_registry_expire(f->registry, 9ull * DAY_MS); /* what is published does not expire */
    assert_ptr_equal(find(f, "home", 0, CV_OK), f->a2);
}

/* Otherwise a user who takes a new name each time would be locked out for a day. */
static void old_names_make_room_for_new_ones(void **state)
{
    struct fixture *f = *state;
    char name[16];
    for (unsigned i = 0; i < 1000; i++) {
        (void)snprintf(name, sizeof name, "n%u", i);
        publish(f, f->a1, name);
        withdraw(f, f->a1, name, i);
    }
    find(f, "n999", 1000, CV_AGENT_OFFLINE);
    find(f, "n0", 1000, CV_NO_TUNNEL);
}

static void names_in_use_are_capped(void **state)
{
    struct fixture *f = *state;
    struct cv_tunnel_spec *spec;
    char name[16];
    size_t count;
    for (unsigned i = 0; i < 256; i++) {
        (void)snprintf(name, sizeof name, "n%u", i);
        publish(f, f->a1, name);
    }
    assert_ok(cv_tunnel_spec_default(cv_slice_str("more"), CV_TUNNEL_HTTP, &spec));
    assert_status(cv_registry_publish(f->registry, &f->alice, f->a1, spec, 80, NULL, 0, &count),
                  CV_NO_RESOURCES);
    assert_int_equal(count, 0);
    cv_tunnel_spec_unref(&spec);
    find(f, "more", 0, CV_NO_TUNNEL);
    assert_int_equal(cv_registry_tunnels(f->registry), 256);
}

static void links_of_a_user_are_counted(void **state)
{
    struct fixture *f = *state;
    assert_true(cv_registry_join(f->registry, &f->alice, 2, 1));
    assert_true(cv_registry_join(f->registry, &f->alice, 2, 1));
    assert_false(cv_registry_join(f->registry, &f->alice, 2, 1));
    assert_true(cv_registry_join(f->registry, &f->bob, 1, 2));
    assert_int_equal(cv_registry_users(f->registry, 1), 1);
    assert_int_equal(cv_registry_users(f->registry, 2), 1);
    publish(f, f->a1, "home");
    withdraw(f, f->a1, "home", 0);
    cv_registry_expire(f->registry, DAY_MS);
    assert_false(cv_registry_join(f->registry, &f->alice, 2, 1));
    cv_registry_leave(f->registry, &f->alice);
    assert_true(cv_registry_join(f->registry, &f->alice, 2, 1));
    cv_registry_leave(f->registry, &f->alice);
    cv_registry_leave(f->registry, &f->alice);
    cv_registry_leave(f->registry, &f->alice);
    assert_false(cv_registry_join(f->registry, &f->alice, 0, 1));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(names_that_nobody_published),
        T(users_do_not_see_each_other),
        T(links_of_one_agent_share_a_name),
        T(another_agent_takes_a_name_over),
        T(more_are_displaced_than_can_be_told_at_once),
        T(publishing_again_replaces_spec_and_port),
        T(a_route_outlives_its_withdrawal),
        T(a_name_is_remembered_for_a_day),
        T(old_names_make_room_for_new_ones),
        T(names_in_use_are_capped),
        T(links_of_a_user_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
