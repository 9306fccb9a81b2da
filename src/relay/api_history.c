/* SPDX-License-Identifier: MIT
 *
 * Numbers of the past: /api/tunnel/history (one metric in steps) and /api/tunnel/usage (all of
 * them, since the start and of late). A user sees its own, a token with the admin permission those
 * of the whole relay, of one user, of one tunnel's name.
 *
 * Happy path: read the query → every worker hands over what it has counted (api_gather.c) → the
 * history's thread answers by mail → JSON. Ways it fails: the query (422, naming the parameter);
 * somebody else's user (403); too many ask, or the file cannot be read (503).
 */
#include "config/moment.h"
#include "config/relay_config.h"
#include "config/value.h"
#include "proto/http/http_path.h"
#include "relay/api_numbers.h"
#include "relay/api_private.h"
#include "relay/tally.h"
#include "store/history.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARAM_MAX = 256, STEP_MIN_S = 60, POINTS_WANTED = 360 };

/* What the query says, decoded; "" where it says nothing. */
enum param { PARAM_METRIC, PARAM_FROM, PARAM_TO, PARAM_STEP, PARAM_TUNNEL, PARAM_USER, PARAMS };

static const char *const param_names[PARAMS] = {"metric", "from", "to", "step", "tunnel", "user"};

struct params {
    char values[PARAMS][PARAM_MAX];
    bool is_given[PARAMS];
};

/* A gather, and then a question. */
struct asking {
    struct gather gather; /* first */
    struct cv_history_question question;
    const struct api_metric *metric; /* NULL: usage */
    char user[PARAM_MAX];            /* as asked, or "" */
};

/* ---- the query ---- */

__attribute__((format(printf, 2, 3))) static bool refuse(struct cv_consumer *c, const char *format,
                                                         ...)
{
    char text[640];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    api_refuse(c, text);
    return false;
}

/* `known`: a mask of 1 << enum param. False: it was answered. */
static bool read_params(struct cv_consumer *c, unsigned known, struct params *params)
{
    struct cv_slice rest = c->head.query;
    *params = (struct params){0};
    while (rest.len) {
        struct cv_slice value = cv_slice_split(&rest, '&'), name = cv_slice_split(&value, '=');
        unsigned i = 0;
        while (i < PARAMS && !((known >> i & 1U) && cv_slice_is(name, param_names[i])))
            i++;
        if (i == PARAMS)
            return refuse(c, "a parameter of the query is not known here");
        if (params->is_given[i])
            return refuse(c, "%s: given twice", param_names[i]);
        params->is_given[i] = true;
        if (!cv_http_decode_owner(value, params->values[i], PARAM_MAX))
            return refuse(c, "%s: too long, or wrongly escaped", param_names[i]);
    }
    return true;
}

/* Whose numbers. False: it was answered. */
static bool read_scope(struct cv_consumer *c, const struct params *params,
                       struct cv_history_scope *scope)
{
    const struct cv_identity *identity = c->x.identity;
    struct cv_slice tunnel = cv_slice_str(params->values[PARAM_TUNNEL]);
    if (params->is_given[PARAM_TUNNEL] && !cv_tunnel_name_is_valid(tunnel))
        return refuse(c, "tunnel: not a tunnel's name");
    if (params->is_given[PARAM_USER] && !identity->is_admin) {
        problem_answer(c, CV_FORBIDDEN, CV_HOP_RELAY, "user: this needs the admin permission",
                       c->x.is_request_whole);
        return false;
    }
    *scope =
        (struct cv_history_scope){.whose = identity->is_admin ? CV_HISTORY_RELAY : CV_HISTORY_USER};
    memcpy(scope->user, identity->user_key, sizeof scope->user);
    (void)cv_slice_to_str(tunnel, scope->tunnel, sizeof scope->tunnel);
    if (params->is_given[PARAM_USER]) {
        scope->whose = CV_HISTORY_SUBJECT;
        cv_usage_subject(params->values[PARAM_USER], scope->subject);
    }
    return true;
}

static bool read_moment(struct cv_consumer *c, const struct params *params, enum param which,
                        int64_t now_s, int64_t missing_s, int64_t *at_s)
{
    *at_s = missing_s;
    if (!params->is_given[which] ||
        cv_moment_parse(cv_slice_str(params->values[which]), now_s, at_s))
        return true;
    return refuse(c, "%s: a moment is \"now\", \"-5m\" or RFC 3339, such as 2026-11-23T01:00:00Z",
                  param_names[which]);
}

/* So that the answer has no more than POINTS_WANTED points. */
static unsigned good_step(int64_t span_s)
{
    static const unsigned steps[] = {60, 300, 900, 3600, 6 * 3600};
    size_t i = 0;
    while (i + 1 < sizeof steps / sizeof steps[0] && span_s / steps[i] > POINTS_WANTED)
        i++;
    return steps[i];
}

static bool read_step(struct cv_consumer *c, const struct params *params, int64_t span_s,
                      unsigned *step_s)
{
    uint64_t ms;
    *step_s = good_step(span_s);
    if (params->is_given[PARAM_STEP]) {
        if (!cv_value_duration(cv_slice_str(params->values[PARAM_STEP]), false, &ms) ||
            ms % (STEP_MIN_S * 1000) != 0 || ms == 0 || ms / 1000 > INT32_MAX)
            return refuse(c, "step: whole minutes, such as 60s, 5m or 1h");
        *step_s = (unsigned)(ms / 1000);
    }
    if (span_s / *step_s <= CV_HISTORY_POINTS_MAX - 2)
        return true;
    return refuse(c, "step: an answer has at most %d points, so for this time at least %lldm",
                  CV_HISTORY_POINTS_MAX,
                  (long long)(span_s / (CV_HISTORY_POINTS_MAX - 2) / STEP_MIN_S + 1));
}

static bool read_series(struct cv_consumer *c, const struct params *params,
                        struct cv_history_series *series)
{
    int64_t now_s = (int64_t)cv_worker_wall_seconds(c->worker->worker), from_s, to_s;
    if (!read_moment(c, params, PARAM_TO, now_s, now_s, &to_s) ||
        !read_moment(c, params, PARAM_FROM, now_s, to_s - 3600, &from_s))
        return false;
    if (from_s >= to_s)
        return refuse(c, "from: must be before to");
    if (!read_step(c, params, to_s - from_s, &series->step_s))
        return false;
    series->from_s = from_s - from_s % series->step_s;
    /* Up to now means with what is under way now. */
    int64_t last_s = to_s >= now_s ? to_s : to_s - 1;
    series->to_s = last_s - last_s % series->step_s + series->step_s;
    return true;
}

/* ---- the answer ---- */

static void on_free(struct gather *gather)
{
    struct asking *asking = (struct asking *)gather;
    cv_history_series_done(&asking->question.series);
    cv_usage_table_free(&asking->question.sums.total);
    cv_usage_table_free(&asking->question.sums.recent);
    free(asking);
}

static json_t *text_or_null(const char *text)
{
    return text[0] ? json_string(text) : json_null();
}

static json_t *point_json(const struct asking *asking, size_t index)
{
    const struct cv_history_series *series = &asking->question.series;
    char at[CV_MOMENT_SIZE];
    (void)cv_moment_print(series->from_s + (int64_t)(index * series->step_s), at);
    return json_pack("{s:s, s:o}", "time", at, "value",
                     api_metric_value(asking->metric, series->points[index], series->step_s));
}

static json_t *series_json(const struct asking *asking)
{
    const struct cv_history_series *series = &asking->question.series;
    char from[CV_MOMENT_SIZE], to[CV_MOMENT_SIZE], until[CV_MOMENT_SIZE] = "";
    json_t *points = json_array();
    for (size_t i = 0; points && i < series->count; i++)
        if (json_array_append_new(points, point_json(asking, i)) != 0) {
            json_decref(points);
            points = NULL;
        }
    if (!points)
        return NULL;
    if (series->hours_until_s)
        (void)cv_moment_print(series->hours_until_s, until);
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:o, s:o}", "metric",
                     api_metric_name(asking->metric), "unit", api_metric_unit(asking->metric),
                     "from", cv_moment_print(series->from_s, from), "to",
                     cv_moment_print(series->to_s, to), "step_s", (int)series->step_s, "tunnel",
                     text_or_null(series->scope.tunnel), "user", text_or_null(asking->user),
                     "hours_until", text_or_null(until), "points", points);
}

struct listing {
    json_t *list;
    struct cv_usage_table *recent;
    bool is_failed;
};

static bool add_tunnel(void *arg, const struct cv_usage_entry *entry)
{
    struct listing *listing = arg;
    const struct cv_usage *recent = cv_usage_table_at(listing->recent, entry->key, entry->subject);
    json_t *object =
        json_pack("{s:s, s:s, s:o, s:o}", "tunnel", entry->key->tunnel, "owner", entry->subject,
                  "total", api_usage_json(entry->usage), "recent", api_usage_json(recent));
    listing->is_failed |= json_array_append_new(listing->list, object) != 0;
    return !listing->is_failed;
}

static json_t *sum_json(const struct cv_usage_table *table)
{
    struct cv_usage *sum = calloc(1, sizeof *sum);
    if (!sum)
        return NULL;
    cv_usage_table_sum(table, sum);
    json_t *object = api_usage_json(sum);
    free(sum);
    return object;
}

static json_t *usage_json(const struct asking *asking)
{
    const struct cv_history_sums *sums = &asking->question.sums;
    struct listing listing = {.list = json_array(), .recent = sums->recent};
    json_t *total = sum_json(sums->total), *recent = sum_json(sums->recent);
    if (listing.list && total && recent)
        (void)cv_usage_table_each(sums->total, add_tunnel, &listing);
    if (!listing.list || !total || !recent || listing.is_failed) {
        json_decref(listing.list);
        json_decref(total);
        json_decref(recent);
        return NULL;
    }
    return json_pack("{s:i, s:o, s:o, s:o}", "recent_s", CV_HISTORY_RECENT_S, "total", total,
                     "recent", recent, "tunnels", listing.list);
}

static void answer(struct cv_consumer *c, const struct asking *asking)
{
    const struct cv_history_question *question = &asking->question;
    if (question->status.id == CV_IO)
        problem_answer(c, CV_NO_RESOURCES, CV_HOP_RELAY,
                       "the file of the history cannot be read; the relay's log says why",
                       c->x.is_request_whole);
    else if (question->status.id == CV_TIMEOUT_TOTAL)
        api_refuse(c, "reading took too long: ask for less time at once");
    else if (!cv_is_ok(question->status))
        problem_answer(c, question->status.id, CV_HOP_RELAY, NULL, c->x.is_request_whole);
    else
        api_answer(c, 200, asking->metric ? series_json(asking) : usage_json(asking));
}

/* ---- asking ---- */

static void on_worker(struct gather *gather, struct cv_relay_worker *worker)
{
    (void)gather;
    tally_hand_over(worker);
}

static void on_answer(void *arg)
{
    struct asking *asking = arg;
    if (asking->gather.consumer)
        answer(asking->gather.consumer, asking);
    api_gather_unref(&asking->gather);
}

/* In the thread of the history; the consumer has gone with its worker. */
static void on_lost(void *arg)
{
    struct asking *asking = arg;
    api_gather_unref(&asking->gather);
}

static void on_home(struct gather *gather)
{
    struct asking *asking = (struct asking *)gather;
    struct cv_relay *relay = gather->relay;
    struct cv_consumer *c = gather->consumer;
    asking->question.worker = relay->workers[gather->home].worker;
    asking->question.on_lost = on_lost;
    cv_mail_init(&asking->question.mail, on_answer, asking);
    if (c && cv_history_ask(relay->history, &asking->question))
        return;
    if (c)
        problem_answer(c, CV_NO_RESOURCES, CV_HOP_RELAY, "too many ask for the past at this moment",
                       c->x.is_request_whole);
    api_gather_unref(gather);
}

static void ask(struct cv_consumer *c, const struct asking *wish)
{
    struct asking *asking = malloc(sizeof *asking);
    if (!asking) {
        api_answer(c, 200, NULL);
        return;
    }
    *asking = *wish;
    asking->gather.on_worker = on_worker;
    asking->gather.on_home = on_home;
    asking->gather.on_free = on_free;
    api_gather_start(c, &asking->gather);
}

void api_history(struct cv_consumer *c, const json_t *body)
{
    struct params params;
    struct asking asking = {.question.kind = CV_HISTORY_SERIES};
    struct cv_history_series *series = &asking.question.series;
    (void)body;
    if (!source_admit_user(c, CV_LIMIT_REQUESTS) || !read_params(c, (1U << PARAMS) - 1, &params) ||
        !read_scope(c, &params, &series->scope))
        return;
    asking.metric = api_metric_find(cv_slice_str(params.values[PARAM_METRIC]));
    if (!asking.metric) {
        char names[512];
        api_metric_names(names, sizeof names);
        (void)refuse(c, "metric: one of %s", names);
        return;
    }
    if (!read_series(c, &params, series))
        return;
    if (!c->worker->relay->config->history_enabled) {
        problem_answer(c, CV_NOT_FOUND, CV_HOP_RELAY, "this relay keeps no history",
                       c->x.is_request_whole);
        return;
    }
    (void)cv_slice_to_str(cv_slice_str(params.values[PARAM_USER]), asking.user, sizeof asking.user);
    ask(c, &asking);
}

void api_usage(struct cv_consumer *c, const json_t *body)
{
    struct params params;
    struct asking asking = {.question.kind = CV_HISTORY_SUMS};
    (void)body;
    if (!source_admit_user(c, CV_LIMIT_REQUESTS) ||
        !read_params(c, 1U << PARAM_TUNNEL | 1U << PARAM_USER, &params) ||
        !read_scope(c, &params, &asking.question.sums.scope))
        return;
    (void)cv_slice_to_str(cv_slice_str(params.values[PARAM_USER]), asking.user, sizeof asking.user);
    ask(c, &asking);
}
