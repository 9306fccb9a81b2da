/* SPDX-License-Identifier: MIT
 *
 * Incidents in virtual time: rounds of a second, as the relay makes them.
 */
#include "base/json.h"
#include "base/test.h"
#include "telemetry/incident_report.h"
#include "telemetry/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DEBOUNCE_S = 10,
    CALM_S = 60,
    WALL_MS = 1700000000,
    BOTH = 1 << CV_INCIDENT_ALERTMANAGER | 1 << CV_INCIDENT_WEBHOOK,
};

#define SUBJECT "0123456789abcdef.home"

struct bench {
    struct cv_incidents incidents;
    struct cv_incident_clock at;
    bool is_bad;
};

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    cv_incidents_init(&b->incidents, DEBOUNCE_S * 1000, CALM_S * 1000, BOTH);
    b->at = (struct cv_incident_clock){.now_ms = 5000, .wall_ms = WALL_MS};
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static void pass(struct bench *b, unsigned seconds)
{
    for (unsigned i = 0; i < seconds; i++) {
        b->at.now_ms += 1000;
        b->at.wall_ms += 1000;
        if (b->is_bad)
            cv_incidents_see(&b->incidents, CV_INCIDENT_BREAKER, SUBJECT, "it fails", &b->at);
        (void)cv_incidents_turn(&b->incidents, &b->at);
    }
}

static void go(struct bench *b, bool is_bad, unsigned seconds)
{
    b->is_bad = is_bad;
    pass(b, seconds);
}

static size_t used(const struct bench *b)
{
    size_t count = 0;
    for (size_t i = 0; i < CV_INCIDENTS_MAX; i++)
        count += b->incidents.all[i].is_used;
    return count;
}

static struct cv_incident *first(struct bench *b)
{
    return &b->incidents.all[0];
}

#define assert_state(incident, want) assert_string_equal(cv_fsm_name(&(incident)->fsm), want)
#define assert_due(b, sink, want)                                                                  \
    assert_int_equal(cv_incident_due(first(b), CV_INCIDENT_##sink), CV_TOLD_##want)

static void tell(struct bench *b, enum cv_incident_sink sink)
{
    enum cv_incident_told due = cv_incident_due(first(b), sink);
    if (due != CV_TOLD_NOTHING)
        first(b)->told[sink] = due;
}

/* ---- the machine ---- */

static void what_lasts_too_short_was_nothing(void **state)
{
    struct bench *b = *state;
    go(b, true, DEBOUNCE_S);
    assert_state(first(b), "waiting");
    assert_due(b, WEBHOOK, NOTHING);
    go(b, false, 1);
    assert_int_equal(used(b), 0);
}

static void it_opens_once_and_ends_once(void **state)
{
    struct bench *b = *state;
    go(b, true, DEBOUNCE_S + 1);
    assert_state(first(b), "open");
    assert_due(b, WEBHOOK, FIRING);
    assert_due(b, ALERTMANAGER, FIRING);
    tell(b, CV_INCIDENT_WEBHOOK);
    tell(b, CV_INCIDENT_ALERTMANAGER);
    uint64_t began_ms = first(b)->starts_ms;
    go(b, true, 3600);
    assert_due(b, WEBHOOK, NOTHING);
    assert_true(cv_incident_is_firing(first(b))); /* is repeated to Alertmanager */
    go(b, false, CALM_S);
    assert_state(first(b), "easing");
    assert_due(b, WEBHOOK, NOTHING);
    go(b, false, 1);
    assert_state(first(b), "over");
    assert_due(b, WEBHOOK, RESOLVED);
    assert_due(b, ALERTMANAGER, RESOLVED);
    assert_int_equal(first(b)->starts_ms, began_ms);
    assert_int_equal(first(b)->ends_ms, b->at.wall_ms);
    tell(b, CV_INCIDENT_WEBHOOK);
    tell(b, CV_INCIDENT_ALERTMANAGER);
    assert_due(b, WEBHOOK, NOTHING);
    go(b, false, CALM_S * CV_INCIDENT_MEMORY_CALMS);
    assert_int_equal(used(b), 0);
}

static void what_flaps_is_one_incident_that_needs_more_and_more_calm(void **state)
{
    struct bench *b = *state;
    unsigned told = 0;
    go(b, true, DEBOUNCE_S + 1);
    for (unsigned i = 0; i < 100; i++) {
        told += cv_incident_due(first(b), CV_INCIDENT_WEBHOOK) != CV_TOLD_NOTHING;
        tell(b, CV_INCIDENT_WEBHOOK);
        go(b, false, 30);
        go(b, true, 2);
    }
    assert_int_equal(told, 1);
    assert_int_equal(used(b), 1);
    assert_int_equal(first(b)->flaps, CV_INCIDENT_FLAPS_MAX);
    go(b, false, CALM_S << CV_INCIDENT_FLAPS_MAX);
    assert_state(first(b), "easing");
    go(b, false, 1);
    assert_due(b, WEBHOOK, RESOLVED);
}

static void what_comes_back_after_its_end_is_told_anew(void **state)
{
    struct bench *b = *state;
    go(b, true, DEBOUNCE_S + 1);
    tell(b, CV_INCIDENT_WEBHOOK);
    uint64_t began_ms = first(b)->starts_ms;
    go(b, false, CALM_S + 2);
    tell(b, CV_INCIDENT_WEBHOOK);
    go(b, true, DEBOUNCE_S);
    assert_state(first(b), "waiting");
    assert_due(b, WEBHOOK, NOTHING);
    go(b, true, 1);
    assert_due(b, WEBHOOK, FIRING);
    assert_true(first(b)->starts_ms > began_ms);
    assert_int_equal(first(b)->flaps, 1);
}

static void for_who_has_not_heard_of_its_end_it_goes_on(void **state)
{
    struct bench *b = *state;
    go(b, true, DEBOUNCE_S + 1);
    tell(b, CV_INCIDENT_WEBHOOK);
    uint64_t began_ms = first(b)->starts_ms;
    go(b, false, CALM_S + 2);
    go(b, true, DEBOUNCE_S + 2); /* the webhook was away meanwhile */
    assert_due(b, WEBHOOK, NOTHING);
    assert_int_equal(first(b)->starts_ms, began_ms);
}

static void a_webhook_hears_of_what_it_missed_and_alertmanager_does_not(void **state)
{
    struct bench *b = *state;
    go(b, true, DEBOUNCE_S + 1);
    go(b, false, CALM_S + 2);
    assert_due(b, ALERTMANAGER, NOTHING);
    assert_due(b, WEBHOOK, FIRING);
    tell(b, CV_INCIDENT_WEBHOOK);
    assert_due(b, WEBHOOK, RESOLVED);
}

static void what_nobody_takes_is_kept_for_a_day(void **state)
{
    struct bench *b = *state;
    go(b, true, DEBOUNCE_S + 1);
    go(b, false, CALM_S + 2);
    b->at.now_ms += CV_INCIDENT_KEEP_MS - 10000;
    pass(b, 1);
    assert_int_equal(used(b), 1);
    pass(b, 10);
    assert_int_equal(used(b), 0);
    assert_int_equal(b->incidents.untold, 1);
}

static void there_is_a_limit_and_what_is_over_makes_room(void **state)
{
    struct bench *b = *state;
    char subject[32];
    for (unsigned round = 0; round <= DEBOUNCE_S + 1; round++) {
        for (unsigned i = 0; i < CV_INCIDENTS_MAX + 5; i++) {
            (void)snprintf(subject, sizeof subject, "user.t%u", i);
            cv_incidents_see(&b->incidents, CV_INCIDENT_BREAKER, subject, "", &b->at);
        }
        pass(b, 1);
    }
    assert_int_equal(used(b), CV_INCIDENTS_MAX);
    assert_true(b->incidents.suppressed >= 5);
    first(b)->told[0] = first(b)->told[1] = CV_TOLD_FIRING;
    pass(b, CALM_S + 2);
    cv_incidents_see(&b->incidents, CV_INCIDENT_STORM, "", "", &b->at);
    assert_false(cv_incidents_has(&b->incidents, CV_INCIDENT_STORM)); /* its end is untold */
    first(b)->told[0] = first(b)->told[1] = CV_TOLD_RESOLVED;
    cv_incidents_see(&b->incidents, CV_INCIDENT_STORM, "", "", &b->at);
    assert_true(cv_incidents_has(&b->incidents, CV_INCIDENT_STORM));
}

static void keys_are_the_same_everywhere_and_differ_by_subject(void **state)
{
    struct bench *b = *state, other;
    cv_incidents_init(&other.incidents, 1, 2, BOTH);
    cv_incidents_see(&other.incidents, CV_INCIDENT_BREAKER, SUBJECT, "seen elsewhere", &b->at);
    cv_incidents_see(&other.incidents, CV_INCIDENT_BREAKER, "0.other", "", &b->at);
    go(b, true, 1);
    assert_string_equal(first(b)->key, other.incidents.all[0].key);
    assert_string_not_equal(first(b)->key, other.incidents.all[1].key);
}

/* ---- the trend ---- */

static void a_ratio_needs_requests_and_forgets_after_five_minutes(void **state)
{
    struct cv_trend *trend = calloc(1, sizeof *trend);
    struct cv_trend_totals totals = {.tried = 1000, .failed = 900};
    struct cv_trend_view view;
    uint64_t now_ms = 1000;
    (void)state;
    assert_non_null(trend);
    cv_trend_look(trend, &view);
    cv_trend_add(trend, now_ms, &totals); /* what was before counts not */
    cv_trend_look(trend, &view);
    assert_true(view.failed_ratio == 0);
    totals.tried += 9;
    totals.failed += 9;
    totals.errors[CV_SERVICE_REFUSED] = 9;
    cv_trend_add(trend, now_ms += CV_TREND_STEP_MS, &totals);
    cv_trend_look(trend, &view);
    assert_true(view.failed_ratio == 0);
    totals.tried += 1;
    cv_trend_add(trend, now_ms += CV_TREND_STEP_MS, &totals);
    cv_trend_look(trend, &view);
    assert_true(view.failed_ratio > 0.89 && view.failed_ratio < 0.91);
    assert_int_equal(view.window.errors[CV_SERVICE_REFUSED], 9);
    for (unsigned i = 0; i < CV_TREND_WINDOW_MS / CV_TREND_STEP_MS + 1; i++) {
        totals.tried += 100;
        cv_trend_add(trend, now_ms += CV_TREND_STEP_MS, &totals);
    }
    cv_trend_look(trend, &view);
    assert_true(view.failed_ratio == 0);
    assert_int_equal(view.window.tried, CV_TREND_WINDOW_MS / CV_TREND_STEP_MS * 100);
    free(trend);
}

static void a_storm_is_a_rate_and_not_a_burst(void **state)
{
    struct cv_trend *trend = calloc(1, sizeof *trend);
    struct cv_trend_totals totals = {0};
    struct cv_trend_view view;
    (void)state;
    assert_non_null(trend);
    cv_trend_add(trend, 1000, &totals);
    totals.attempts = 100000;
    cv_trend_add(trend, 1500, &totals);
    cv_trend_look(trend, &view);
    assert_true(view.attempts_per_second == 0);
    cv_trend_add(trend, 11000, &totals);
    cv_trend_look(trend, &view);
    assert_true(view.attempts_per_second == 10000);
    cv_trend_add(trend, 21000, &totals);
    cv_trend_look(trend, &view);
    assert_true(view.attempts_per_second == 0);
    free(trend);
}

static void totals_are_what_the_alert_counts(void **state)
{
    struct cv_metrics *metrics;
    struct cv_trend_totals totals;
    (void)state;
    assert_ok(cv_metrics_new(
        &(struct cv_metrics_options){.owner = CV_METRICS_OF_RELAY, .blocks = 2}, &metrics));
    struct cv_metrics_block *block = cv_metrics_block(metrics, 1);
    for (unsigned status = 0; status < CV_L_STATUS_COUNT; status++)
        cv_metrics_add(block, CV_CELL(REQUESTS, status, CV_L_TIER_NONE), 1ull << 8 * status);
    cv_metrics_add(block, CV_CELL(CONNECTIONS, CV_L_RESULT_OK, 0), 3);
    cv_metrics_add(block, CV_CELL(CONNECTIONS, CV_L_RESULT_LIMITED, 0), 4);
    cv_metrics_error(block, CV_SERVICE_REFUSED);
    struct cv_metrics_snapshot *snapshot = cv_metrics_snapshot(metrics, 1000);
    assert_non_null(snapshot);
    cv_trend_totals(snapshot, &totals);
    uint64_t failed = 1ull << 8 * CV_L_STATUS_ERROR | 1ull << 8 * CV_L_STATUS_TIMEOUT;
    assert_int_equal(totals.failed, failed);
    assert_int_equal(totals.tried, failed + (1ull << 8 * CV_L_STATUS_SUCCESS));
    assert_int_equal(totals.attempts, 7);
    uint64_t errors = 0;
    for (unsigned id = 0; id < CV_STATUS_COUNT; id++) {
        if (totals.errors[id])
            assert_string_equal(cv_status_code((enum cv_status_id)id),
                                cv_status_code(CV_SERVICE_REFUSED));
        errors += totals.errors[id];
    }
    assert_int_equal(errors, 1);
    free(snapshot);
    cv_metrics_free(&metrics);
}

/* ---- reports ---- */

static struct cv_incident_context context_of(const char (*tunnels)[CV_INCIDENT_SUBJECT_MAX + 1])
{
    struct cv_incident_context context = {.instance = "feedfacefeedface",
                                          .version = "1",
                                          .runbook_url = "https://docs.example.org/runbooks/",
                                          .dashboard_url = "https://grafana.example.org/d",
                                          .links = 2,
                                          .requests = 3,
                                          .tunnels = tunnels,
                                          .tunnel_count = 1};
    context.trend.window.tried = 100;
    context.trend.window.errors[CV_SERVICE_REFUSED] = 7;
    context.trend.window.errors[CV_TIMEOUT_FIRST_BYTE] = 9;
    return context;
}

static const char *text_at(const json_t *object, const char *outer, const char *name)
{
    const json_t *inner = outer ? json_object_get(object, outer) : object;
    const char *text = json_string_value(json_object_get(inner, name));
    return text ? text : "";
}

static void an_alert_has_labels_that_all_relays_share(void **state)
{
    struct bench *b = *state;
    static const char tunnels[1][CV_INCIDENT_SUBJECT_MAX + 1] = {SUBJECT};
    struct cv_incident_context context = context_of(tunnels);
    go(b, true, DEBOUNCE_S + 1);
    json_t *alert = cv_incident_alert(first(b), CV_TOLD_FIRING, 0, &context);
    assert_non_null(alert);
    const json_t *labels = json_object_get(alert, "labels");
    assert_int_equal(json_object_size(labels), 5);
    assert_string_equal(text_at(alert, "labels", "alertname"), "CulvertBreakerOpen");
    assert_string_equal(text_at(alert, "labels", "tunnel"), "home");
    assert_string_equal(text_at(alert, "labels", "breaker"), SUBJECT);
    assert_string_equal(text_at(alert, "annotations", "runbook_url"),
                        "https://docs.example.org/runbooks/breaker-open.md");
    assert_string_equal(text_at(alert, "annotations", "dashboard_url"),
                        "https://grafana.example.org/d/culvert-errors");
    const char *errors = text_at(alert, "annotations", "last_errors");
    assert_non_null(strstr(errors, ": 9, TUNNEL_013 "));
    assert_string_equal(text_at(alert, "annotations", "affected_tunnels"), SUBJECT);
    assert_null(json_object_get(alert, "endsAt"));
    json_decref(alert);
    alert = cv_incident_alert(first(b), CV_TOLD_RESOLVED, 1500000000123, &context);
    assert_string_equal(text_at(alert, NULL, "endsAt"), "2017-07-14T02:40:00.123Z");
    json_decref(alert);
}

static void a_webhook_gets_all_of_it_as_json(void **state)
{
    struct bench *b = *state;
    static const char tunnels[1][CV_INCIDENT_SUBJECT_MAX + 1] = {SUBJECT};
    struct cv_incident_context context = context_of(tunnels);
    char word[CV_INCIDENT_WORD_MAX], other[CV_INCIDENT_WORD_MAX];
    json_t *body;
    context.runbook_url = context.dashboard_url = NULL;
    go(b, true, DEBOUNCE_S + 1);
    char *text = cv_incident_hook(first(b), CV_TOLD_FIRING, &context);
    assert_ok(cv_json_parse(cv_slice_str(text), &body));
    free(text);
    assert_string_equal(text_at(body, NULL, "status"), "firing");
    assert_string_equal(text_at(body, NULL, "incident"), first(b)->key);
    assert_true(json_is_null(json_object_get(body, "ends_at")));
    assert_null(json_object_get(body, "runbook_url"));
    const json_t *inner = json_object_get(body, "context");
    const json_t *errors = json_object_get(inner, "last_errors");
    assert_int_equal(json_array_size(errors), 2);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(errors, 0), "count")), 9);
    assert_int_equal(json_array_size(json_object_get(inner, "affected_tunnels")), 1);
    json_decref(body);
    cv_incident_word(first(b), CV_TOLD_FIRING, word);
    cv_incident_word(first(b), CV_TOLD_RESOLVED, other);
    assert_string_not_equal(word, other);
}

/* ---- the file ---- */

static void a_restart_forgets_nothing_and_tells_nothing_twice(void **state)
{
    struct bench *b = *state, *after = calloc(1, sizeof *after);
    assert_non_null(after);
    go(b, true, DEBOUNCE_S + 1);
    tell(b, CV_INCIDENT_WEBHOOK);
    char *text = cv_incidents_save(&b->incidents);
    assert_non_null(text);
    cv_incidents_init(&after->incidents, DEBOUNCE_S * 1000, CALM_S * 1000, BOTH);
    after->at = (struct cv_incident_clock){.now_ms = 77, .wall_ms = b->at.wall_ms + 5000};
    assert_ok(cv_incidents_load(&after->incidents, cv_slice_str(text), &after->at));
    free(text);
    assert_string_equal(first(after)->key, first(b)->key);
    assert_int_equal(first(after)->starts_ms, first(b)->starts_ms);
    assert_string_equal(first(after)->summary, "it fails");
    assert_due(after, WEBHOOK, NOTHING);
    assert_due(after, ALERTMANAGER, FIRING);
    go(after, true, 10);
    assert_state(first(after), "open");
    assert_due(after, WEBHOOK, NOTHING);
    go(after, false, (CALM_S << 1) + 2);
    assert_due(after, WEBHOOK, RESOLVED);
    free(after);
}

static void an_end_that_was_not_told_survives(void **state)
{
    struct bench *b = *state, *after = calloc(1, sizeof *after);
    assert_non_null(after);
    go(b, true, DEBOUNCE_S + 1);
    tell(b, CV_INCIDENT_WEBHOOK);
    go(b, false, CALM_S + 2);
    char *text = cv_incidents_save(&b->incidents);
    assert_non_null(text);
    cv_incidents_init(&after->incidents, DEBOUNCE_S * 1000, CALM_S * 1000, BOTH);
    assert_ok(cv_incidents_load(&after->incidents, cv_slice_str(text), &b->at));
    assert_due(after, WEBHOOK, RESOLVED);
    assert_int_equal(first(after)->ends_ms, first(b)->ends_ms);
    /* A day later nobody wants to know. */
    cv_incidents_init(&after->incidents, DEBOUNCE_S * 1000, CALM_S * 1000, BOTH);
    b->at.wall_ms += CV_INCIDENT_KEEP_MS + 1;
    assert_ok(cv_incidents_load(&after->incidents, cv_slice_str(text), &b->at));
    assert_int_equal(used(after), 0);
    free(text);
    free(after);
}

static void what_waits_is_not_written_down(void **state)
{
    struct bench *b = *state;
    go(b, true, 3);
    char *text = cv_incidents_save(&b->incidents);
    assert_string_equal(text, "{\"version\":1,\"incidents\":[]}");
    free(text);
}

static void nonsense_in_the_file_is_refused(void **state)
{
    struct bench *b = *state;
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"version\":2,\"incidents\":[]}",
        "{\"version\":1,\"incidents\":{}}",
        "{\"version\":1,\"incidents\":[1]}",
        "{\"version\":1,\"incidents\":[{\"kind\":\"breaker\"}]}",
        "{\"version\":1,\"incidents\":[{\"kind\":\"flood\",\"subject\":\"\",\"summary\":\"\","
        "\"is_over\":false,\"starts_ms\":1,\"ends_ms\":0,\"flaps\":0,\"alertmanager\":\"nothing\","
        "\"webhook\":\"nothing\"}]}",
        "{\"version\":1,\"incidents\":[{\"kind\":\"storm\",\"subject\":\"\",\"summary\":\"\","
        "\"is_over\":false,\"starts_ms\":-1,\"ends_ms\":0,\"flaps\":0,\"alertmanager\":"
        "\"nothing\",\"webhook\":\"nothing\"}]}",
        "{\"version\":1,\"incidents\":[{\"kind\":\"storm\",\"subject\":\"a\\u0000b\","
        "\"summary\":\"\",\"is_over\":false,\"starts_ms\":1,\"ends_ms\":0,\"flaps\":0,"
        "\"alertmanager\":\"nothing\",\"webhook\":\"nothing\"}]}",
        "{\"version\":1,\"incidents\":[{\"kind\":\"storm\",\"subject\":\"\",\"summary\":\"\","
        "\"is_over\":false,\"starts_ms\":1,\"ends_ms\":0,\"flaps\":0,\"alertmanager\":\"maybe\","
        "\"webhook\":\"nothing\"}]}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_status(cv_incidents_load(&b->incidents, cv_slice_str(texts[i]), &b->at), CV_INVALID);
        assert_int_equal(used(b), 0);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_lasts_too_short_was_nothing),
        T(it_opens_once_and_ends_once),
        T(what_flaps_is_one_incident_that_needs_more_and_more_calm),
        T(what_comes_back_after_its_end_is_told_anew),
        T(for_who_has_not_heard_of_its_end_it_goes_on),
        T(a_webhook_hears_of_what_it_missed_and_alertmanager_does_not),
        T(what_nobody_takes_is_kept_for_a_day),
        T(there_is_a_limit_and_what_is_over_makes_room),
        T(keys_are_the_same_everywhere_and_differ_by_subject),
        T(a_ratio_needs_requests_and_forgets_after_five_minutes),
        T(a_storm_is_a_rate_and_not_a_burst),
        T(totals_are_what_the_alert_counts),
        T(an_alert_has_labels_that_all_relays_share),
        T(a_webhook_gets_all_of_it_as_json),
        T(a_restart_forgets_nothing_and_tells_nothing_twice),
        T(an_end_that_was_not_told_survives),
        T(what_waits_is_not_written_down),
        T(nonsense_in_the_file_is_refused),
    };
    cv_json_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
