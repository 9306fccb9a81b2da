/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_uplink_new → try_now → on_dialed → cv_link_new → on_link_up → …
 *   the connection is lost: on_link_detached → resume_now → on_redialed → cv_link_attach → up again
 *   the link is lost: on_link_closed → try_later → try_now …
 * Ways it fails: a try fails (on_dialed, or the link ends before it is up); the link is lost; the
 * relay has another host key; the token is refused; tries are used up (it rests, or ends).
 * What moves it besides, network, clock, people and its owner, is in uplink_nudge.c.
 */
#include "agent/uplink_private.h"

#include "agent/access.h"
#include "agent/dialer.h"
#include "agent/upgrade.h"
#include "base/digest.h"
#include "config/agent_config.h"
#include "net/conn.h"
#include "telemetry/log.h"

#include <stdio.h>

enum {
    REFUSED_MIN_MS = 10000, /* a token that was refused is not tried again before */
    ELSEWHERE_MS = 100,     /* at most, before another relay is tried: not all agents at once */
    TELL_AFTER = 10,        /* failed tries in a row of which the person is told */
    RESUME_CAP_MS = 500,    /* between tries, while the link can still be taken up */
    RESUME_TIMEOUT_MS = 2000,
    RESUME_STAGGER_ROUNDS = 8, /* of connecting, within one try */
};

static const char *const state_names[STATE_COUNT] = {"idle",     "dialing",  "handshake", "up",
                                                     "detached", "resuming", "waiting",   "resting",
                                                     "closing",  "ended"};
#define USED_UP "the last of reconnect.max_attempts failed"
#define CLOSE "told to close, or given up"
static const struct cv_fsm_step steps[] = {
    {IDLE, DIALING, "started"},
    {IDLE, CLOSING, CLOSE},
    {DIALING, HANDSHAKE, "the relay took the upgrade"},
    {DIALING, WAITING, "the try failed"},
    {DIALING, RESTING, USED_UP},
    {DIALING, CLOSING, CLOSE},
    {HANDSHAKE, UP, "the SSH session stands"},
    {HANDSHAKE, WAITING, "the link ended before"},
    {HANDSHAKE, RESTING, USED_UP},
    {HANDSHAKE, CLOSING, CLOSE},
    {UP, DETACHED, "connection lost, its address gone, or a person wants a new one"},
    {UP, WAITING, "the link ended"},
    {UP, RESTING, USED_UP},
    {UP, CLOSING, CLOSE},
    {DETACHED, RESUMING, "time of the next try"},
    {DETACHED, WAITING, "the relay does not know the link, or its window is over"},
    {DETACHED, RESTING, USED_UP},
    {DETACHED, CLOSING, CLOSE},
    {RESUMING, UP, "the relay has proven itself, both replay"},
    {RESUMING, DETACHED, "the try failed"},
    {RESUMING, WAITING, "link.resume_window over"},
    {RESUMING, RESTING, USED_UP},
    {RESUMING, CLOSING, CLOSE},
    {WAITING, DIALING, "time of the next try, network changed, or a person asks"},
    {WAITING, CLOSING, CLOSE},
    {RESTING, WAITING, "network changed, or a person asks"},
    {RESTING, CLOSING, CLOSE},
    {CLOSING, ENDED, "goodbye said"},
};
#undef USED_UP
#undef CLOSE
const struct cv_fsm_def cv_uplink_states = {
    .name = "uplink", .states = state_names, .count = STATE_COUNT, CV_FSM_STEPS(steps)};

static void try_now(void *arg);
static void resume_now(void *arg);

static void on_change(void *arg, const char *name, const char *from, const char *to)
{
    struct cv_uplink *u = arg;
    u->state_ms = cv_worker_now_ms(u->worker);
    uplink_trace(u);
    cv_log(u->options.log, CV_LOG_DEBUG, name, "state", "uplink state", CV_F_STR("from", from),
           CV_F_STR("to", to));
}

static void end(struct cv_uplink *u, struct cv_status why, const struct cv_error *error)
{
    if (is_state(u, CLOSING) || is_state(u, ENDED))
        return;
    u->why = why;
    u->error = error ? *error : (struct cv_error){.id = why.id};
    cv_fsm_set(&u->fsm, CLOSING);
    cv_worker_timer_stop(u->worker, &u->timer);
    cv_dialer_cancel(&u->dialer);
    if (!u->link)
        cv_worker_defer(u->worker, &u->ending);
}

static void on_ending(void *arg)
{
    struct cv_uplink *u = arg;
    cv_fsm_set(&u->fsm, ENDED);
    u->ops->on_ended(u->arg, u->why, &u->error);
}

/* ---- trying again ---- */

static void start_timer(struct cv_uplink *u, void (*callback)(void *arg), uint64_t delay_ms)
{
    cv_worker_timer_stop(u->worker, &u->timer);
    cv_timer_init(&u->timer, callback, u);
    if (!cv_is_ok(cv_worker_timer_start(u->worker, &u->timer, delay_ms)))
        end(u, cv_status(CV_NO_MEMORY), NULL);
}

/* A failure that trying again does not mend while somebody waits. */
static bool is_final(const struct cv_uplink *u, struct cv_status why)
{
    if (!u->options.is_interactive)
        return false;
    if (why.id == CV_HOST_KEY)
        return true;
    if (u->was_up)
        return false;
    enum cv_category category = cv_status_category(why.id);
    return category == CV_CATEGORY_AUTHENTICATION || category == CV_CATEGORY_CONFIGURATION;
}

/* Until the next try, for a fresh link or for the one that waits. */
static uint64_t choose_delay(struct cv_uplink *u, const struct cv_backoff *backoff,
                             struct cv_status why)
{
    bool is_refused = cv_status_category(why.id) == CV_CATEGORY_AUTHENTICATION;
    uint64_t random;
    cv_random(&random, sizeof random);
    uint64_t delay_ms = cv_backoff_delay(backoff, cv_worker_now_ms(u->worker), random);
    if (is_refused && delay_ms < REFUSED_MIN_MS)
        delay_ms = REFUSED_MIN_MS;
    u->must_wait = is_refused || u->retry_after_ms;
    return delay_ms < u->retry_after_ms ? u->retry_after_ms : delay_ms;
}

/* What one relay asked for is nothing to another. */
static uint64_t elsewhere_delay(struct cv_uplink *u)
{
    uint64_t random;
    cv_random(&random, sizeof random);
    u->must_wait = false;
    return random % ELSEWHERE_MS;
}

/* What the log and a person get to read: a sentence and a code. */
static struct cv_error complete(struct cv_status why, const struct cv_error *error)
{
    struct cv_error full = {.id = why.id};
    if (error && error->detail[0])
        full = *error;
    else
        (void)cv_fail(&full, why.id, "%s", cv_status_text(why.id));
    full.id = why.id;
    return full;
}

/* A relay that is away for an hour shall not fill the log: 1, 2, 4, 8, 16 … failures in a row, and
 * whenever the reason is another one than was told last. */
static bool is_worth_telling(struct cv_uplink *u, unsigned failures, const struct cv_error *why)
{
    bool is_new = why->id != u->told || (failures & (failures - 1)) == 0;
    if (is_new)
        u->told = why->id;
    return is_new;
}

/* As many tries as were wanted have failed: somebody has to say when the next one is. */
static void rest(struct cv_uplink *u)
{
    cv_worker_timer_stop(u->worker, &u->timer);
    cv_fsm_set(&u->fsm, RESTING);
    cv_log(u->options.log, CV_LOG_WARN, "agent", "reconnect_paused",
           "all tries have failed; the next one follows `culvert reconnect` or a change of the "
           "network",
           CV_F_UINT("attempt", u->attempts), CV_F_UINT("failures", u->backoff.failures),
           CV_F_STR("relay", u->options.access->relay), CV_F_ERROR(&u->trouble));
}

/* After the backoff was told. */
static void try_later(struct cv_uplink *u, struct cv_status why, const struct cv_error *error,
                      bool is_elsewhere)
{
    struct cv_error full = complete(why, error);
    unsigned failures = u->backoff.failures;
    uint32_t max = u->options.access->config->reconnect_max_attempts;
    bool is_used_up = max && failures >= max;
    u->trouble = full;
    if (is_final(u, why) || (is_used_up && u->options.is_interactive)) {
        end(u, why, &full);
        return;
    }
    uint64_t delay_ms = is_elsewhere ? elsewhere_delay(u) : choose_delay(u, &u->backoff, why);
    if (is_used_up) {
        rest(u);
        return;
    }
    cv_fsm_set(&u->fsm, WAITING);
    bool is_told = is_worth_telling(u, failures, &full);
    enum cv_log_level level = is_told ? CV_LOG_WARN : CV_LOG_DEBUG;
    cv_log(u->options.log, level, "agent", u->was_up ? "reconnecting" : "connect_failed",
           u->was_up ? "no link to the relay, trying again"
                     : "the relay cannot be reached, trying again",
           CV_F_UINT("attempt", u->attempts), CV_F_UINT("failures", failures),
           CV_F_UINT("delayMs", delay_ms), CV_F_STR("relay", u->options.access->relay),
           CV_F_ERROR(&full),
           CV_F_STR("suggestion", failures == 1 ? cv_status_suggestion(why.id) : NULL));
    if (failures == TELL_AFTER)
        cv_log(u->options.log, CV_LOG_WARN, "agent", "still_unreachable",
               "the relay has not been reached for a while; consumers get errors meanwhile",
               CV_F_UINT("failures", failures),
               CV_F_STR("suggestion", cv_status_suggestion(why.id)));
    start_timer(u, try_now, delay_ms);
}

static void try_failed(struct cv_uplink *u, struct cv_status why, const struct cv_error *error)
{
    enum cv_uplink_next next =
        u->ops->on_failed ? u->ops->on_failed(u->arg, why, u->retry_after_ms) : CV_UPLINK_AGAIN;
    cv_backoff_failed(&u->backoff);
    uplink_count_failed(u, why);
    if (next == CV_UPLINK_GIVE_UP)
        end(u, why, error);
    else
        try_later(u, why, error, next == CV_UPLINK_ELSEWHERE);
}

/* ---- the link ---- */

static void on_link_up(void *arg)
{
    struct cv_uplink *u = arg;
    if (!is_state(u, HANDSHAKE))
        return;
    uint64_t now_ms = cv_worker_now_ms(u->worker);
    cv_fsm_set(&u->fsm, UP);
    cv_backoff_up(&u->backoff, now_ms);
    uplink_count_up(u);
    u->was_up = true;
    u->retry_after_ms = 0;
    cv_link_probe(u->link); /* acknowledgements are put off: only a pong says how far it is */
    u->trouble = (struct cv_error){0};
    cv_log(u->options.log, CV_LOG_INFO, "agent", "link_up", "connected to the relay",
           CV_F_STR("relay", u->options.access->relay), CV_F_UINT("attempt", u->attempts),
           CV_F_UINT("setupMs", now_ms - u->began_ms));
    cv_renewal_start(&u->renewal, u->link);
    u->ops->on_up(u->arg, u->link);
}

static bool on_host_key(void *arg, struct cv_slice blob, const char *fingerprint)
{
    struct cv_uplink *u = arg;
    u->host_key = (struct cv_error){0};
    struct cv_status status =
        cv_access_check_host_key(u->options.access, blob, fingerprint, &u->host_key);
    /* Memory that ran out is no word about the key. */
    if (!cv_is_ok(status) && u->host_key.id == CV_OK)
        u->host_key.id = status.id;
    return cv_is_ok(status);
}

static void on_reply(void *arg, uintptr_t cookie, bool is_success)
{
    struct cv_uplink *u = arg;
    if (cv_uplink_link(u))
        u->ops->on_reply(u->arg, cookie, is_success);
}

static void on_control(void *arg, const struct cv_link_control *control)
{
    struct cv_uplink *u = arg;
    if (control->type == CV_LINK_NOTICE)
        cv_renewal_on_notice(&u->renewal, control);
    if (u->ops->on_control)
        u->ops->on_control(u->arg, control);
}

static void on_stream(void *arg, struct cv_stream *stream, enum cv_stream_kind kind,
                      struct cv_slice host, uint32_t port)
{
    struct cv_uplink *u = arg;
    if (kind == CV_STREAM_FORWARDED && cv_uplink_link(u) && u->ops->on_stream)
        u->ops->on_stream(u->arg, stream, host, port);
    else
        cv_stream_refuse(stream, 1, "tunnel-unknown: nothing is published here");
}

/* ---- a new connection for the link ---- */

/* A fresh link is dialled by on_link_closed. */
static void give_link_up(struct cv_uplink *u, struct cv_status why, const struct cv_error *error)
{
    cv_log(u->options.log, CV_LOG_WARN, "agent", "link_given_up",
           u->is_winding_up
               ? "stopping, and the relay cannot be reached: requests on the link are cut"
               : "the relay does not know the link any more, requests on it end",
           CV_F_UINT("streams", cv_link_streams(u->link)), CV_F_ERROR(error));
    cv_link_close(u->link, why, error->detail);
}

/* The next try; the link itself ends when its time is over. */
static void resume_later(struct cv_uplink *u, struct cv_status why, const struct cv_error *error)
{
    struct cv_error full = complete(why, error);
    uint64_t delay_ms = choose_delay(u, &u->resumption, why);
    unsigned failures = u->resumption.failures;
    u->trouble = full;
    if (u->is_winding_up && failures) {
        give_link_up(u, cv_status(CV_LINK_LOST), &full);
        return;
    }
    bool is_told = is_worth_telling(u, failures, &full);
    cv_log(u->options.log, is_told ? CV_LOG_WARN : CV_LOG_DEBUG, "agent",
           failures ? "resume_failed" : "connection_lost",
           failures ? "the relay cannot be reached, the link waits"
                    : "the connection to the relay is lost, requests on it wait",
           CV_F_UINT("failures", failures), CV_F_UINT("delayMs", delay_ms),
           CV_F_UINT("streams", cv_link_streams(u->link)),
           CV_F_STR("relay", u->options.access->relay), CV_F_ERROR(&full));
    start_timer(u, resume_now, delay_ms);
    if (failures && u->ops->on_away)
        u->ops->on_away(u->arg, cv_worker_now_ms(u->worker) - u->lost_ms);
}

void uplink_on_detached(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_uplink *u = arg;
    uint64_t now_ms = cv_worker_now_ms(u->worker);
    uint64_t initial_ms = u->options.access->config->reconnect_initial_ms;
    if (!is_state(u, UP))
        return;
    cv_fsm_set(&u->fsm, DETACHED);
    cv_quality_missed(&u->quality, now_ms);
    cv_backoff_init(&u->resumption, initial_ms < RESUME_CAP_MS ? initial_ms : RESUME_CAP_MS,
                    RESUME_CAP_MS, now_ms);
    u->lost_ms = now_ms;
    u->retry_after_ms = 0;
    resume_later(u, why, error);
}

static void resume_failed(struct cv_uplink *u, struct cv_status why, const struct cv_error *error)
{
    struct cv_error full = complete(why, error);
    u->trouble = full;
    cv_fsm_set(&u->fsm, DETACHED);
    if (why.id == CV_RESUME_UNKNOWN || why.id == CV_RESUME_PROOF) {
        give_link_up(u, cv_status(CV_LINK_LOST), &full);
        return;
    }
    cv_backoff_failed(&u->resumption);
    resume_later(u, why, error);
}

static void on_redialed(void *arg, const struct cv_dialer_result *result)
{
    struct cv_uplink *u = arg;
    const struct cv_upgrade_answer *answer = result->answer;
    u->dialer = NULL;
    u->retry_after_ms = result->retry_after_ms;
    if (!cv_is_ok(result->status)) {
        resume_failed(u, result->status, result->error);
        return;
    }
    /* Who does not have the secret is not the relay that has the link: it gets no byte of it. */
    if (!answer->has_proof ||
        !cv_link_is_answer_to(u->link, &u->claim, answer->received,
                              cv_slice(answer->proof, sizeof answer->proof))) {
        struct cv_error error = {0};
        struct cv_status status =
            cv_fail(&error, CV_RESUME_PROOF, "who answers does not prove that it is the relay");
        cv_dialer_discard(result->conn);
        cv_fsm_set(&u->fsm, DETACHED);
        cv_backoff_failed(&u->resumption);
        resume_later(u, status, &error);
        return;
    }
    cv_fsm_set(&u->fsm, UP);
    u->relay_addr = *cv_conn_peer_addr(result->conn);
    struct cv_status status =
        cv_link_attach(u->link, result->conn, answer->received, result->early);
    if (!cv_is_ok(status)) {
        cv_dialer_discard(result->conn);
        cv_link_close(u->link, status, "the relay asks for bytes that are not kept any more");
        return;
    }
    u->resumes++;
    uplink_count_resumed(u);
    u->trouble = (struct cv_error){0};
    cv_log(u->options.log, CV_LOG_INFO, "agent", "link_resumed", "connected again, requests go on",
           CV_F_STR("relay", u->options.access->relay),
           CV_F_UINT("awayMs", cv_worker_now_ms(u->worker) - u->lost_ms),
           CV_F_UINT("failures", u->resumption.failures), CV_F_UINT("resumes", u->resumes));
    if (u->ops->on_resumed)
        u->ops->on_resumed(u->arg);
}

static void resume_now(void *arg)
{
    struct cv_uplink *u = arg;
    struct cv_error error = {0};
    uint64_t limit_ms = u->options.access->config->connect_relay_timeout_ms;
    uint64_t rtt_ms = cv_link_rtt_ms(u->link);
    uint64_t timeout_ms = rtt_ms * 8 > RESUME_TIMEOUT_MS ? rtt_ms * 8 : RESUME_TIMEOUT_MS;
    struct cv_dialer_request request = {
        .span = &u->span,
        .subprotocol = "culvert.v1",
        .claim = &u->claim,
        .timeout_ms = timeout_ms < limit_ms ? timeout_ms : limit_ms,
        .hint = u->relay_addr.len ? &u->relay_addr : NULL,
        .rounds = RESUME_STAGGER_ROUNDS,
    };
    if (!is_state(u, DETACHED))
        return;
    cv_fsm_set(&u->fsm, RESUMING);
    u->began_ms = cv_worker_now_ms(u->worker);
    struct cv_status status = cv_link_claim(u->link, &u->claim);
    if (cv_is_ok(status))
        status = cv_dialer_start(u->worker, u->options.access, &request, on_redialed, u, &u->dialer,
                                 &error);
    if (!cv_is_ok(status))
        resume_failed(u, status, &error);
}

/* ---- the link's end ---- */

static void on_link_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_uplink *u = arg;
    bool was_up = cv_uplink_link(u) != NULL;
    bool is_closing = is_state(u, CLOSING);
    u->replayed_bytes += cv_link_replayed_bytes(u->link);
    u->link = NULL;
    cv_renewal_stop(&u->renewal);
    cv_dialer_cancel(&u->dialer);
    if (u->host_key.id != CV_OK) {
        why = cv_status(u->host_key.id);
        error = &u->host_key;
    } else if (cv_is_ok(why)) {
        why = cv_status(CV_LINK_LOST);
    }
    if (is_closing) {
        on_ending(u);
        return;
    }
    if (u->is_retiring) {
        end(u, cv_ok(), NULL);
    } else if (was_up) {
        cv_backoff_lost(&u->backoff, cv_worker_now_ms(u->worker));
        uplink_count_down(u, why);
        try_later(u, why, error, false);
        if (u->ops->on_down)
            u->ops->on_down(u->arg);
    } else {
        try_failed(u, why, error);
    }
}

static const struct cv_link_ops link_ops = {
    .on_up = on_link_up,
    .on_host_key = on_host_key,
    .on_reply = on_reply,
    .on_stream = on_stream,
    .on_control = on_control,
    .on_pong = uplink_on_pong,
    .on_detached = uplink_on_detached,
    .on_closed = on_link_closed,
};

/* ---- a try ---- */

static void on_dialed(void *arg, const struct cv_dialer_result *result)
{
    struct cv_uplink *u = arg;
    struct cv_link_options options;
    u->dialer = NULL;
    u->retry_after_ms = result->retry_after_ms;
    u->host_key = (struct cv_error){0};
    if (!cv_is_ok(result->status)) {
        try_failed(u, result->status, result->error);
        return;
    }
    cv_access_link_options(u->options.access, &options);
    options.metrics = u->options.metrics;
    if (result->answer->has_id)
        memcpy(options.id, result->answer->link_id, sizeof options.id);
    else
        options.resume_ms = 0; /* a link without a name cannot be asked for */
    cv_fsm_set(&u->fsm, HANDSHAKE);
    u->relay_addr = *cv_conn_peer_addr(result->conn);
    struct cv_status status = cv_link_new(u->worker, result->conn, &options, result->early,
                                          &link_ops, u, u->options.log, &u->link);
    if (!cv_is_ok(status)) {
        cv_dialer_discard(result->conn);
        try_failed(u, status, NULL);
    }
}

static void try_now(void *arg)
{
    struct cv_uplink *u = arg;
    struct cv_error error = {0};
    u->attempts++;
    u->began_ms = cv_worker_now_ms(u->worker);
    cv_fsm_set(&u->fsm, DIALING);
    const struct cv_access *access = u->ops->on_choose ? u->ops->on_choose(u->arg) : NULL;
    if (access && access != u->options.access) {
        u->options.access = access;
        u->relay_addr = (struct cv_addr){0};
    }
    u->retry_after_ms = 0;
    cv_log(u->options.log, CV_LOG_DEBUG, "agent", "connecting", "trying to reach the relay",
           CV_F_STR("relay", u->options.access->relay), CV_F_UINT("attempt", u->attempts));
    struct cv_dialer_request request = {.subprotocol = "culvert.v1",
                                        .span = &u->span,
                                        .hint = u->relay_addr.len ? &u->relay_addr : NULL,
                                        .rounds = 2};
    struct cv_status status =
        cv_dialer_start(u->worker, u->options.access, &request, on_dialed, u, &u->dialer, &error);
    if (!cv_is_ok(status))
        try_failed(u, status, &error);
}

/* ---- sooner than planned ---- */

void uplink_try_soon(struct cv_uplink *u, uint64_t delay_ms)
{
    bool has_link = is_state(u, DETACHED) || is_state(u, RESUMING);
    enum state waiting = has_link ? DETACHED : WAITING;
    cv_dialer_cancel(&u->dialer);
    if (!is_state(u, waiting))
        cv_fsm_set(&u->fsm, waiting);
    start_timer(u, has_link ? resume_now : try_now, delay_ms);
}

/* ---- life ---- */

struct cv_status cv_uplink_new(struct cv_worker *worker, const struct cv_uplink_options *options,
                               const struct cv_uplink_ops *ops, void *arg, struct cv_uplink **out)
{
    const struct cv_agent_config *config = options->access->config;
    struct cv_uplink *u = calloc(1, sizeof *u);
    *out = NULL;
    if (!u)
        return cv_status(CV_NO_MEMORY);
    *u = (struct cv_uplink){
        .worker = worker,
        .options = *options,
        .ops = ops,
        .was_up = options->was_up,
        .arg = arg,
        .fsm = {.def = &cv_uplink_states, .state = IDLE, .on_change = on_change}};
    u->fsm.arg = u;
    cv_backoff_init(&u->backoff, config->reconnect_initial_ms, config->reconnect_max_ms,
                    cv_worker_now_ms(worker));
    cv_renewal_init(&u->renewal, worker, options->access, options->log);
    cv_timer_init(&u->timer, try_now, u);
    cv_defer_init(&u->ending, on_ending, u);
    u->state_ms = cv_worker_now_ms(worker);
    struct cv_status status = cv_worker_timer_start(worker, &u->timer, 0);
    if (!cv_is_ok(status)) {
        free(u);
        return status;
    }
    *out = u;
    return cv_ok();
}

void cv_uplink_close(struct cv_uplink *u, const char *message)
{
    if (u->link && !is_state(u, CLOSING))
        cv_link_close(u->link, cv_ok(), message);
    end(u, cv_ok(), NULL);
}

void cv_uplink_free(struct cv_uplink **uplink)
{
    struct cv_uplink *u = *uplink;
    *uplink = NULL;
    if (!u)
        return;
    cv_worker_timer_stop(u->worker, &u->timer);
    cv_defer_cancel(&u->ending);
    cv_renewal_stop(&u->renewal);
    cv_dialer_cancel(&u->dialer);
    free(u);
}
