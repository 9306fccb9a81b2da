/* SPDX-License-Identifier: MIT
 *
 * The network that changes is a namespace of this process (network_namespaces(7)): the loopback
 * interface in it is ours to take up and down. The clock that jumps is an eventfd: the linker puts
 * __wrap_timerfd_create and its like in place of the calls (meson.build), since setting the real
 * clock would move it for the whole machine.
 */
#include "net/addr.h"
#include "net/net_test.h"
#include "net/watch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* --- the clock --- */

static struct {
    bool is_missing;
    int fd;
    unsigned armed;
} clock_of_test = {.fd = -1};

int __wrap_timerfd_create(int clock, int flags);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *when,
                           struct itimerspec *before);
ssize_t __real_read(int fd, void *bytes, size_t len);
ssize_t __wrap_read(int fd, void *bytes, size_t len);

int __wrap_timerfd_create(int clock, int flags)
{
    (void)flags;
    assert_int_equal(clock, CLOCK_REALTIME);
    if (clock_of_test.is_missing) {
        errno = EPERM;
        return -1;
    }
    clock_of_test.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return clock_of_test.fd;
}

int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *when,
                           struct itimerspec *before)
{
    (void)before;
    assert_int_equal(fd, clock_of_test.fd);
    assert_int_equal(flags, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
    assert_true(when->it_value.tv_sec > time(NULL) + 3600);
    clock_of_test.armed++;
    return 0;
}

/* As read(2) of a timer that was cancelled: ECANCELED. */
ssize_t __wrap_read(int fd, void *bytes, size_t len)
{
    ssize_t got = __real_read(fd, bytes, len);
    if (fd != clock_of_test.fd || got < 0)
        return got;
    errno = ECANCELED;
    return -1;
}

static void jump(void)
{
    const uint64_t one = 1;
    assert_int_equal(write(clock_of_test.fd, &one, sizeof one), sizeof one);
}

/* --- the network --- */

static bool has_own_network(void)
{
    static int outcome = -1;
    if (outcome < 0)
        outcome = unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
    return outcome;
}

static void set_loopback(bool is_up)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = (short)(is_up ? IFF_UP : 0)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    (void)close(fd);
}

static void add_address(const char *text)
{
    struct ifreq request = {.ifr_name = "lo:1"};
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, text, &address.sin_addr), 1);
    memcpy(&request.ifr_addr, &address, sizeof address);
    assert_int_equal(ioctl(fd, SIOCSIFADDR, &request), 0);
    (void)close(fd);
}

static bool has_address(const char *text)
{
    struct cv_addr addr = {.len = sizeof addr.v4};
    addr.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(4711)};
    assert_int_equal(inet_pton(AF_INET, text, &addr.v4.sin_addr), 1);
    return cv_watch_has_address(&addr);
}

/* --- a script: its steps run 10 ms apart, the last one 300 ms after the one before --- */

struct script {
    struct bench bench;
    struct cv_watch *watch;
    struct cv_timer timer;
    void (*const *steps)(struct script *script);
    unsigned networks, clocks;
};

enum { STEP_MS = 10, LAST_MS = 300 };

static void on_change(void *arg, enum cv_watch_change change)
{
    struct script *script = arg;
    if (change == CV_WATCH_NETWORK)
        script->networks++;
    else
        script->clocks++;
}

static void on_step(void *arg)
{
    struct script *script = arg;
    if (!*script->steps) {
        cv_worker_stop(script->bench.worker);
        return;
    }
    (*script->steps++)(script);
    assert_ok(cv_worker_timer_start(script->bench.worker, &script->timer,
                                    *script->steps ? STEP_MS : LAST_MS));
}

static void play(struct script *script, void (*const *steps)(struct script *script))
{
    *script = (struct script){.steps = steps};
    clock_of_test.armed = 0;
    bench_init(&script->bench, NULL);
    assert_ok(cv_watch_new(script->bench.worker, on_change, script, &script->watch));
    cv_timer_init(&script->timer, on_step, script);
    assert_ok(cv_worker_timer_start(script->bench.worker, &script->timer, STEP_MS));
    cv_worker_run(script->bench.worker);
    cv_watch_free(&script->watch);
    assert_null(script->watch);
    cv_worker_free(&script->bench.worker);
    assert_false(script->bench.is_late);
}

static void loopback_up(struct script *script)
{
    (void)script;
    set_loopback(true);
}

static void loopback_down(struct script *script)
{
    (void)script;
    set_loopback(false);
}

static void clock_jump(struct script *script)
{
    (void)script;
    jump();
}

static void rest(struct script *script)
{
    (void)script;
}

static void wait_until_told(struct script *script)
{
    if (script->networks + script->clocks == 0)
        script->steps--; /* this one again */
}

static void stop_watching(struct script *script)
{
    cv_watch_free(&script->watch);
}

/* --- tests --- */

static void nothing_is_told_while_nothing_happens(void **state)
{
    (void)state;
    if (!has_own_network())
        skip();
    struct script script;
    play(&script, (void (*const[])(struct script *)){rest, NULL});
    assert_int_equal(script.networks, 0);
    assert_int_equal(script.clocks, 0);
}

static void a_burst_of_changes_is_told_once(void **state)
{
    (void)state;
    if (!has_own_network())
        skip();
    struct script script;
    play(&script, (void (*const[])(struct script *)){loopback_up, loopback_down, loopback_up,
                                                     loopback_down, NULL});
    assert_int_equal(script.networks, 1);
    assert_int_equal(script.clocks, 0);
}

static void a_later_change_is_told_again(void **state)
{
    (void)state;
    if (!has_own_network())
        skip();
    struct script script;
    play(&script,
         (void (*const[])(struct script *)){loopback_up, wait_until_told, loopback_down, NULL});
    assert_int_equal(script.networks, 2);
}

static void a_clock_that_jumps_is_told_and_watched_on(void **state)
{
    (void)state;
    struct script script;
    play(&script,
         (void (*const[])(struct script *)){clock_jump, wait_until_told, clock_jump, NULL});
    assert_int_equal(script.clocks, 2);
    assert_int_equal(clock_of_test.armed, 3);
}

static void a_waking_machine_tells_of_both(void **state)
{
    (void)state;
    if (!has_own_network())
        skip();
    struct script script;
    play(&script, (void (*const[])(struct script *)){loopback_up, clock_jump, loopback_down, NULL});
    assert_int_equal(script.networks, 1);
    assert_int_equal(script.clocks, 1);
}

static void a_watch_that_is_freed_tells_nothing_more(void **state)
{
    (void)state;
    struct script script;
    play(&script, (void (*const[])(struct script *)){clock_jump, stop_watching, NULL});
    assert_int_equal(script.clocks, 0);
}

static void the_network_is_watched_without_a_clock(void **state)
{
    (void)state;
    if (!has_own_network())
        skip();
    struct script script;
    clock_of_test.is_missing = true;
    play(&script,
         (void (*const[])(struct script *)){loopback_up, wait_until_told, loopback_down, NULL});
    clock_of_test.is_missing = false;
    assert_int_equal(script.networks, 2);
    assert_int_equal(script.clocks, 0);
}

static void a_watch_outlives_its_worker(void **state)
{
    (void)state;
    struct script script = {0};
    bench_init(&script.bench, NULL);
    assert_ok(cv_watch_new(script.bench.worker, on_change, &script, &script.watch));
    cv_worker_stop(script.bench.worker);
    bench_run(&script.bench);
    cv_watch_free(&script.watch);
    cv_watch_free(&script.watch);
}

static void addresses_come_and_go(void **state)
{
    (void)state;
    if (!has_own_network())
        skip();
    set_loopback(true);
    assert_true(has_address("127.0.0.1"));
    assert_false(has_address("192.0.2.1"));
    add_address("192.0.2.1");
    assert_true(has_address("192.0.2.1"));
    struct cv_addr v6 = {.len = sizeof v6.v6, .v6 = {.sin6_family = AF_INET6}};
    assert_int_equal(inet_pton(AF_INET6, "2001:db8::1", &v6.v6.sin6_addr), 1);
    assert_false(cv_watch_has_address(&v6));
    struct cv_addr local = {.any = {.sa_family = AF_UNIX}};
    assert_true(cv_watch_has_address(&local)); /* cannot be told */
    set_loopback(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_clock_that_jumps_is_told_and_watched_on),
        cmocka_unit_test(a_watch_that_is_freed_tells_nothing_more),
        cmocka_unit_test(a_watch_outlives_its_worker),
        cmocka_unit_test(addresses_come_and_go),
        cmocka_unit_test(nothing_is_told_while_nothing_happens),
        cmocka_unit_test(a_burst_of_changes_is_told_once),
        cmocka_unit_test(a_later_change_is_told_again),
        cmocka_unit_test(a_waking_machine_tells_of_both),
        cmocka_unit_test(the_network_is_watched_without_a_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
