/* SPDX-License-Identifier: MIT
 *
 * One stream of the relay to a local service: connect first, accept the stream afterwards, so that
 * a consumer learns that a service is down instead of getting an empty answer.
 *
 * Happy path: carry_start → on_dialed → cv_splice_new … on_splice_end.
 * Ways it fails: the service refuses or does not answer (the stream is refused with a word that the
 * relay reads, docs/PROTOCOL.md); the stream goes while we dial; out of memory.
 */
#include "agent/access.h"
#include "agent/agent_private.h"
#include "agent/splice.h"
#include "config/agent_config.h"
#include "net/conn.h"
#include "net/dial.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"
#include "transport/link.h"

#include <stdio.h>
#include <utlist.h>

enum { OPEN_CONNECT_FAILED = 2, OPEN_RESOURCE_SHORTAGE = 4 }; /* RFC 4254 §5.1 */

struct carry {
    struct cv_agent *agent;
    const struct cv_publication *publication;
    struct cv_stream *stream; /* until the splice has it */
    struct cv_dial *dial;
    struct cv_splice *splice;
    uint64_t began_ms;
    char correlation[CV_STREAM_CORRELATION_MAX + 1]; /* of the request it was opened for */
    struct carry *prev, *next;
};

static void carry_free(struct carry *carry)
{
    struct cv_agent *agent = carry->agent;
    cv_dial_cancel(&carry->dial);
    DL_DELETE(agent->carries, carry);
    agent->carry_count--;
    free(carry);
    agent_on_carry_end(agent);
}

static void on_splice_end(void *arg, const struct cv_splice_end *end)
{
    struct carry *carry = arg;
    struct cv_agent *agent = carry->agent;
    cv_log(agent->options.log, CV_LOG_DEBUG, "agent", "stream_ended", "stream ended",
           CV_F_STR("correlationId", carry->correlation),
           CV_F_STR("tunnel", carry->publication->name), CV_F_UINT("bytesIn", end->bytes_out),
           CV_F_UINT("bytesOut", end->bytes_in),
           CV_F_UINT("durationMs", cv_worker_now_ms(agent->worker) - carry->began_ms),
           CV_F_STR("reason", cv_status_name(end->why.id)));
    cv_metrics_add(agent->metrics, CV_CELL(BYTES, CV_L_FLOW_TO_CONSUMER, 0), end->bytes_in);
    cv_metrics_add(agent->metrics, CV_CELL(BYTES, CV_L_FLOW_TO_SERVICE, 0), end->bytes_out);
    carry->splice = NULL;
    carry_free(carry);
}

/* The relay has closed it, or the link is lost, before the service answered. */
static void on_stream_closed(void *arg, struct cv_status why)
{
    struct carry *carry = arg;
    (void)why;
    carry->stream = NULL;
    carry_free(carry);
}

static const struct cv_stream_ops dialing_ops = {.on_closed = on_stream_closed};

static const char *refusal_word(enum cv_status_id id)
{
    switch (id) {
    case CV_CONN_REFUSED:
        return "service-refused";
    case CV_CONN_TIMEOUT:
        return "service-timeout";
    case CV_NO_MEMORY:
    case CV_NO_RESOURCES:
        return "agent-busy";
    default:
        return "service-unreachable";
    }
}

static void refuse(struct carry *carry, struct cv_status why, const char *detail)
{
    struct cv_agent *agent = carry->agent;
    const char *word = refusal_word(why.id);
    char text[300];
    (void)snprintf(text, sizeof text, "%s: %s", word, detail);
    cv_log_limited(agent->options.log, CV_LOG_WARN, "agent", "service_unavailable",
                   "the local service cannot be reached",
                   CV_F_STR("correlationId", carry->correlation),
                   CV_F_STR("tunnel", carry->publication->name),
                   CV_F_STR("target", carry->publication->target), CV_F_STR("reason", word),
                   CV_F_STR("detail", detail));
    bool is_ours = strcmp(word, "agent-busy") == 0;
    struct cv_stream *stream = carry->stream;
    carry->stream = NULL;
    cv_stream_refuse(stream, is_ours ? OPEN_RESOURCE_SHORTAGE : OPEN_CONNECT_FAILED, text);
    carry_free(carry);
}

static unsigned service_label(enum cv_status_id id)
{
    return id == CV_CONN_REFUSED   ? CV_L_SERVICE_REFUSED
           : id == CV_CONN_TIMEOUT ? CV_L_SERVICE_TIMEOUT
                                   : CV_L_SERVICE_UNREACHABLE;
}

static void count_dialed(const struct carry *carry, struct cv_status status)
{
    struct cv_agent *agent = carry->agent;
    bool is_good = cv_is_ok(status);
    unsigned label = is_good ? CV_L_SERVICE_OK : service_label(status.id);
    cv_metrics_add(agent->metrics, CV_CELL(SERVICE_CONNECTIONS, label, 0), 1);
    if (is_good)
        CV_OBSERVE(agent->metrics, SERVICE_DURATION, 0, 0,
                   (cv_worker_now_ms(agent->worker) - carry->began_ms) * CV_MS);
}

static void drop_data(void *arg, uint8_t *data, size_t len)
{
    (void)arg;
    (void)data;
    (void)len;
}

static void drop_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    (void)arg;
    (void)why;
    (void)error;
}

static const struct cv_conn_ops dropped_ops = {.on_data = drop_data, .on_closed = drop_closed};

static void on_dialed(void *arg, const struct cv_dial_result *result)
{
    struct carry *carry = arg;
    carry->dial = NULL;
    count_dialed(carry, result->status);
    if (!cv_is_ok(result->status)) {
        refuse(carry, result->status, result->error->detail);
        return;
    }
    struct cv_status status =
        cv_splice_new(result->conn, carry->stream, true, on_splice_end, carry, &carry->splice);
    if (cv_is_ok(status)) {
        carry->stream = NULL;
        return;
    }
    cv_conn_set_ops(result->conn, &dropped_ops, NULL);
    cv_conn_close(result->conn, status);
    refuse(carry, status, cv_status_text(status.id));
}

void carry_start(struct cv_agent *agent, const struct cv_publication *publication,
                 struct cv_stream *stream)
{
    struct carry *carry = calloc(1, sizeof *carry);
    if (!carry) {
        cv_stream_refuse(stream, OPEN_RESOURCE_SHORTAGE, "agent-busy: out of memory");
        return;
    }
    *carry = (struct carry){.agent = agent,
                            .publication = publication,
                            .stream = stream,
                            .began_ms = cv_worker_now_ms(agent->worker)};
    (void)cv_slice_to_str(cv_slice_str(cv_stream_correlation(stream)), carry->correlation,
                          sizeof carry->correlation);
    DL_APPEND(agent->carries, carry);
    agent->carry_count++;
    agent->carried++;
    cv_stream_set_ops(stream, &dialing_ops, carry);
    struct cv_error error = {0};
    struct cv_dial_options options = {
        .host = publication->host,
        .port = publication->port,
        .timeout_ms = agent->config->connect_service_timeout_ms,
    };
    struct cv_status status =
        cv_dial_start(agent->worker, &options, on_dialed, carry, &carry->dial, &error);
    if (!cv_is_ok(status))
        refuse(carry, status, error.detail[0] ? error.detail : cv_status_text(status.id));
}
