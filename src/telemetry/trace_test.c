/* SPDX-License-Identifier: MIT */
#include "telemetry/trace_options.h"
#include "telemetry/tracer.h"

#include "base/test.h"

#include <stdio.h>
#include <stdlib.h>

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define SPAN "b7ad6b7169203331"

static bool parses(const char *text)
{
    struct cv_trace_ids ids = {.flags = 0x55};
    bool is_good = cv_traceparent_parse(cv_slice_str(text), &ids);
    if (!is_good)
        assert_int_equal(ids.flags, 0x55); /* untouched */
    return is_good;
}

static void traceparent_is_read_strictly(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "00-" TRACE "-" SPAN,
        "00-" TRACE "-" SPAN "-0",
        "00-" TRACE "-" SPAN "-01-",
        "00-" TRACE "-" SPAN "-0G",
        "0x-" TRACE "-" SPAN "-01",
        "ff-" TRACE "-" SPAN "-01",
        "00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01",
        "00-00000000000000000000000000000000-" SPAN "-01",
        "00-" TRACE "-0000000000000000-01",
        "01-" TRACE "-" SPAN "-01.",
        "00 " TRACE " " SPAN " 01",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(parses(bad[i]));
    assert_true(parses("00-" TRACE "-" SPAN "-01"));
    assert_true(parses("01-" TRACE "-" SPAN "-01"));
    assert_true(parses("cc-" TRACE "-" SPAN "-01-what-the-future-brings"));
}

static void traceparent_survives_the_way(void **state)
{
    (void)state;
    struct cv_trace_ids ids;
    char out[CV_TRACEPARENT_LEN + 1];
    assert_true(cv_traceparent_parse(cv_slice_str("00-" TRACE "-" SPAN "-ff"), &ids));
    cv_traceparent_write(&ids, out);
    assert_string_equal(out, "00-" TRACE "-" SPAN "-03"); /* unknown flags are 0 */
}

static void tracestate_keeps_the_first_members(void **state)
{
    (void)state;
    struct cv_buf out;
    char member[160], list[2048] = "";
    cv_buf_init(&out, 1024);
    assert_true(cv_is_ok(cv_tracestate_write(cv_slice_str("a=1 ,\tb@c=2,,"), &out)));
    assert_true(cv_slice_is(cv_buf_slice(&out), "a=1,b@c=2"));
    cv_buf_truncate(&out, 0);
    assert_true(cv_is_ok(cv_tracestate_write(cv_slice_str("a=1,B=2"), &out)));
    assert_int_equal(cv_buf_len(&out), 0);
    for (int i = 0; i < 8; i++) {
        (void)snprintf(member, sizeof member, "%sk%d=%0100d", i ? "," : "", i, i);
        (void)snprintf(list + strlen(list), sizeof list - strlen(list), "%s", member);
    }
    assert_true(cv_is_ok(cv_tracestate_write(cv_slice_str(list), &out)));
    assert_int_equal(cv_buf_len(&out), 4 * 104 - 1);
    cv_buf_done(&out);
}

static void samplers_are_known_by_name(void **state)
{
    (void)state;
    struct cv_sampler sampler;
    assert_false(cv_sampler_parse("", NULL, &sampler));
    assert_false(cv_sampler_parse("always", NULL, &sampler));
    assert_false(cv_sampler_parse("parentbased_", NULL, &sampler));
    assert_false(cv_sampler_parse("traceidratio", "1.1", &sampler));
    assert_false(cv_sampler_parse("traceidratio", "nan", &sampler));
    assert_false(cv_sampler_parse("traceidratio", "-0.1", &sampler));
    assert_false(cv_sampler_parse("traceidratio", "half", &sampler));
    assert_true(cv_sampler_parse("parentbased_traceidratio", "0.25", &sampler));
    assert_true(sampler.is_parent_based && sampler.root == CV_SAMPLER_RATIO);
}

static void a_ratio_takes_its_share(void **state)
{
    (void)state;
    struct cv_sampler sampler;
    uint64_t seed = 1;
    unsigned taken = 0;
    assert_true(cv_sampler_parse("traceidratio", "0.25", &sampler));
    for (int i = 0; i < 10000; i++) {
        uint8_t id[CV_TRACE_ID_LEN];
        for (size_t k = 0; k < sizeof id; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            id[k] = (uint8_t)(seed >> 33);
        }
        bool is_taken = cv_sampler_decide(&sampler, NULL, id);
        taken += is_taken;
        assert_int_equal(is_taken, cv_sampler_decide(&sampler, NULL, id));
    }
    assert_in_range(taken, 2300, 2700);
    assert_true(cv_sampler_parse("traceidratio", "1", &sampler));
    uint8_t highest[CV_TRACE_ID_LEN];
    memset(highest, 0xff, sizeof highest);
    assert_true(cv_sampler_decide(&sampler, NULL, highest));
}

static void on_waiting(void *arg)
{
    ++*(int *)arg;
}

static void a_full_ring_drops_and_counts(void **state)
{
    (void)state;
    static struct cv_trace_record taken[CV_TRACE_QUEUE_RECORDS];
    const struct cv_sampler sampler = {0};
    struct cv_trace_record record = {.kind = CV_TRACE_REQUEST, .forward_ns = 1, .open_ns = 2};
    struct cv_tracer *tracer;
    int told = 0;
    assert_true(cv_is_ok(cv_tracer_new(&sampler, 2, on_waiting, &told, &tracer)));
    struct cv_trace_queue *queue = cv_tracer_queue(tracer, 1);
    for (int i = 0; i < CV_TRACE_QUEUE_RECORDS + 3; i++) {
        record.status = i;
        cv_trace_put(queue, &record);
    }
    assert_int_equal(told, 1);
    assert_int_equal(cv_tracer_dropped(tracer, CV_TRACE_DROP_QUEUE_FULL), 3 * 4);
    assert_int_equal(cv_tracer_take(tracer, taken, 10), 10);
    assert_int_equal(taken[9].status, 9);
    assert_int_equal(cv_tracer_take(tracer, taken, CV_TRACE_QUEUE_RECORDS),
                     CV_TRACE_QUEUE_RECORDS - 10);
    assert_int_equal(taken[0].status, 10);
    assert_int_equal(cv_tracer_take(tracer, taken, 1), 0);
    cv_tracer_free(&tracer);
    assert_null(cv_tracer_queue(NULL, 0));
}

static struct cv_trace_record example(void)
{
    struct cv_trace_record r = {.kind = CV_TRACE_REQUEST,
                                .wall_ns = 1700000000000000000,
                                .begin_ns = 5,
                                .end_ns = 7,
                                .status = 200,
                                .is_whole = true,
                                .method = "GET",
                                .route = "/livez",
                                .path = "/\"\xff\n"};
    (void)cv_traceparent_parse(cv_slice_str("00-" TRACE "-" SPAN "-01"), &r.ids);
    return r;
}

static void both_forms_say_the_same(void **state)
{
    (void)state;
    const struct cv_otlp_resource resource = {.attributes = {{"a", "b"}}, .count = 1};
    const struct cv_trace_record record = example();
    struct cv_buf out;
    cv_buf_init(&out, 65536);
    assert_true(cv_is_ok(cv_otlp_encode(&resource, &record, 1, true, &out)));
    assert_true(cv_is_ok(cv_buf_append_byte(&out, 0)));
    const char *json = (const char *)cv_buf_head(&out);
    static const char *const parts[] = {
        "{\"resourceSpans\":[{\"resource\":{\"attributes\":[{\"key\":\"a\",\"value\":"
        "{\"stringValue\":\"b\"}}]},\"scopeSpans\":[{\"scope\":{\"name\":\"culvert\"",
        "\"traceId\":\"" TRACE "\",\"spanId\":\"" SPAN "\",\"name\":\"GET /livez\",\"kind\":2,",
        "\"startTimeUnixNano\":\"1700000000000000000\",\"endTimeUnixNano\":\"1700000000000000002\"",
        "{\"key\":\"url.path\",\"value\":{\"stringValue\":\"/\\u0022\xef\xbf\xbd\\u000a\"}}",
        "{\"key\":\"http.response.status_code\",\"value\":{\"intValue\":\"200\"}}",
        "\"flags\":257}]}]}]}",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        assert_non_null(strstr(json, parts[i]));
    cv_buf_truncate(&out, 0);
    assert_true(cv_is_ok(cv_otlp_encode(&resource, &record, 1, false, &out)));
    const uint8_t *bytes = cv_buf_head(&out);
    /* resource_spans = 1, of the length of all that follows; resource = 1 { attributes = 1 {…} } */
    assert_int_equal(bytes[0], 0x0a);
    assert_int_equal((bytes[1] & 0x7f) + bytes[2] * 128, cv_buf_len(&out) - 3);
    static const uint8_t begin[] = {0x0a, 0x0a, 0x0a, 0x08, 0x0a, 0x01,
                                    'a',  0x12, 0x03, 0x0a, 0x01, 'b'};
    assert_memory_equal(bytes + 3, begin, sizeof begin);
    cv_buf_done(&out);
    /* What does not fit is a failure, not a part. */
    for (size_t cap = 0; cap < 200; cap += 7) {
        cv_buf_init(&out, cap);
        assert_int_equal(cv_otlp_encode(&resource, &record, 1, cap % 2, &out).id, CV_NO_RESOURCES);
        cv_buf_done(&out);
    }
}

static uint64_t rejected(const char *bytes, size_t len, bool is_json)
{
    return cv_otlp_rejected(cv_slice(bytes, len), is_json);
}

static void answers_of_collectors_are_read(void **state)
{
    (void)state;
    const char json[] = "{\"partialSuccess\":{\"rejectedSpans\":\"7\"}}";
    const char number[] = "{\"partialSuccess\":{\"rejectedSpans\":7}}";
    assert_int_equal(rejected(json, sizeof json - 1, true), 7);
    assert_int_equal(rejected(number, sizeof number - 1, true), 7);
    assert_int_equal(rejected("{}", 2, true), 0);
    assert_int_equal(rejected("[\"partialSuccess\"]", 18, true), 0);
    assert_int_equal(rejected("<html>", 6, true), 0);
    assert_int_equal(rejected("\x0a\x05\x08\xac\x02\x12\x00", 7, false), 300);
    assert_int_equal(rejected("\x12\x01x\x0a\x02\x08\x05", 7, false), 5);
    assert_int_equal(rejected("", 0, false), 0);
    assert_int_equal(rejected("\x0a\x7f\x08", 3, false), 0);
    assert_int_equal(rejected("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12, false), 0);
}

static void options_are_ours_before_those_of_all(void **state)
{
    (void)state;
    const char *const env[] = {"OTEL_EXPORTER_OTLP_ENDPOINT=http://one:4318/",
                               "OTEL_SERVICE_NAME=relay-1",
                               "OTEL_RESOURCE_ATTRIBUTES=service.name=x,team=a%2Cb",
                               "OTEL_TRACES_SAMPLER=traceidratio",
                               "OTEL_TRACES_SAMPLER_ARG=much",
                               "OTEL_EXPORTER_OTLP_TIMEOUT=soon",
                               "OTEL_EXPORTER_OTLP_HEADERS=a=1,b",
                               NULL};
    struct cv_trace_settings settings = {.env = env};
    struct cv_trace_options options;
    struct cv_error error = {0};
    assert_true(cv_is_ok(cv_trace_options_init(&options, &settings, NULL, &error)));
    assert_true(options.is_enabled && options.is_json && options.allow_http);
    assert_string_equal(options.url, "http://one:4318/v1/traces");
    assert_int_equal(options.timeout_ms, 10000);
    assert_null(options.headers[1]); /* a list that is wrong somewhere is left out */
    assert_int_equal(options.sampler.root, CV_SAMPLER_RATIO);
    const struct cv_otlp_resource *r = &options.resource;
    for (size_t i = 0; i < r->count; i++) {
        if (strcmp(r->attributes[i].key, "service.name") == 0)
            assert_string_equal(r->attributes[i].value, "relay-1");
        if (strcmp(r->attributes[i].key, "team") == 0)
            assert_string_equal(r->attributes[i].value, "a,b");
    }
    cv_trace_options_done(&options);
    settings.endpoint = "https://two/otlp";
    assert_true(cv_is_ok(cv_trace_options_init(&options, &settings, NULL, &error)));
    assert_string_equal(options.url, "https://two/otlp");
    assert_false(options.allow_http);
    cv_trace_options_done(&options);
    settings.is_set = true;
    assert_true(cv_is_ok(cv_trace_options_init(&options, &settings, NULL, &error)));
    assert_false(options.is_enabled);
    cv_trace_options_done(&options);
    settings.is_enabled = true;
    settings.endpoint = "ftp://x";
    assert_int_equal(cv_trace_options_init(&options, &settings, NULL, &error).id, CV_CONFIG);
    cv_trace_options_done(&options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traceparent_is_read_strictly),
        cmocka_unit_test(traceparent_survives_the_way),
        cmocka_unit_test(tracestate_keeps_the_first_members),
        cmocka_unit_test(samplers_are_known_by_name),
        cmocka_unit_test(a_ratio_takes_its_share),
        cmocka_unit_test(a_full_ring_drops_and_counts),
        cmocka_unit_test(both_forms_say_the_same),
        cmocka_unit_test(answers_of_collectors_are_read),
        cmocka_unit_test(options_are_ours_before_those_of_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
