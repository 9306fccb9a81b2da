/* SPDX-License-Identifier: MIT
 *
 * A simulated conversation from its beginning to its end, and what must hold all the time.
 */
#include "sim_private.h"

#include <string.h>

enum {
    /* More than it takes to find a loss; a key exchange has as much again after each resume. */
    HANDSHAKE_MS = 60000,
    WINDOW_MS = 900000,      /* for the link to be taken up again */
    SHORT_WINDOW_MS = 60000, /* where nobody comes */
    PROBE_MS = 5001,
    TURNS_MAX = 2000000,
};

/* ---- what must hold at every moment ---- */

static void check_counters(const struct sim *sim, struct sim_end *end)
{
    const struct cv_link_seq *seq = &end->link->seq;
    cv_fuzz_must(cv_buf_len(&seq->replay) <=
                 sim->schedule->replay_bytes + (uint64_t)sim->schedule->growth_bytes);
    cv_fuzz_must(cv_buf_len(&seq->replay) <= end->link->replay.bytes);
    cv_fuzz_must(seq->received >= end->received && seq->acked >= end->acked);
    cv_fuzz_must(seq->framed >= seq->acked);
    cv_fuzz_must(seq->framed <= seq->acked + cv_buf_len(&seq->replay));
    cv_fuzz_must(end->link->counter >= end->counter);
    /* Whoever waits for an acknowledgement has asked for a sign of life by now. */
    cv_fuzz_must(!end->link->conn || !cv_link_seq_in_flight(seq) || end->link->ping_sent_ms ||
                 cv_worker_now_ms(sim->worker) - end->link->last_rx_ms <= PROBE_MS);
    end->received = seq->received;
    end->acked = seq->acked;
    end->counter = end->link->counter;
}

static void check(struct sim *sim)
{
    for (int at = 0; at < SIM_SIDES; at++)
        if (sim_is_alive(&sim->sides[at]))
            check_counters(sim, &sim->sides[at]);
    if (!sim_is_alive(&sim->sides[SIM_AGENT]) || !sim_is_alive(&sim->sides[SIM_RELAY]))
        return;
    for (int at = 0; at < SIM_SIDES; at++) {
        const struct cv_link_seq *seq = &sim->sides[at].link->seq;
        cv_fuzz_must(seq->acked <= sim->sides[!at].received);
        cv_fuzz_must(sim->sides[!at].received <= seq->acked + cv_buf_len(&seq->replay));
    }
}

/* ---- links ---- */

static void on_up(void *arg)
{
    struct sim_end *end = arg;
    end->was_up = true;
    if (end->at == SIM_RELAY)
        sim_flows_open(end->sim);
}

static bool on_host_key(void *arg, struct cv_slice blob, const char *fingerprint)
{
    (void)arg;
    (void)blob;
    (void)fingerprint;
    return true;
}

static void on_detached(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct sim_end *end = arg;
    (void)why;
    (void)error;
    if (end->at == SIM_AGENT)
        sim_redial_later(end->sim);
}

static void on_link_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct sim_end *end = arg;
    if (why.id == CV_WS_POLICY || why.id == CV_WS_PROTOCOL || why.id == CV_NO_MEMORY)
        (void)fprintf(stderr, "%s: %s\n", cv_status_name(why.id), error->detail);
    cv_fuzz_must(why.id != CV_WS_POLICY && why.id != CV_WS_PROTOCOL && why.id != CV_NO_MEMORY);
    end->link = NULL;
}

static const struct cv_link_ops link_ops = {
    .on_up = on_up,
    .on_host_key = on_host_key,
    .on_stream = sim_flow_accept,
    .on_detached = on_detached,
    .on_closed = on_link_closed,
};

static void start(struct sim *sim, const struct cv_ssh_host_key *key)
{
    struct cv_conn *ends[SIM_SIDES];
    sim_next_path(sim, ends);
    for (int at = 0; at < SIM_SIDES; at++) {
        struct cv_link_options options = {
            .role = at == SIM_RELAY ? CV_LINK_RELAY : CV_LINK_AGENT,
            .is_culvert = true,
            .host_key = at == SIM_RELAY ? key : NULL,
            .max_channels = SIM_STREAMS_MAX,
            .window_bytes = sim->schedule->window_bytes,
            .window_max_bytes = sim->schedule->window_max_bytes,
            .rekey_bytes = sim->schedule->rekey_bytes,
            .rekey_ms = 3600000,
            .handshake_ms = HANDSHAKE_MS,
            .keepalive_ms = 60000,
            .ping_interval_ms = 30000,
            .pong_timeout_ms = 15000,
            .replay_bytes = sim->schedule->replay_bytes,
            .replay_max_bytes = sim->schedule->replay_max_bytes,
            .max_frame_bytes = 1 << 20,
            .resume_ms = sim->schedule->never_redials ? SHORT_WINDOW_MS : WINDOW_MS,
            .id = "sixteen letters",
        };
        struct sim_end *end = &sim->sides[at];
        *end = (struct sim_end){.sim = sim,
                                .at = (enum sim_side)at,
                                .ration = cv_ration_new(sim->schedule->growth_bytes, NULL)};
        cv_fuzz_must(end->ration);
        options.ration = end->ration;
        cv_fuzz_must(cv_is_ok(cv_link_new(sim->worker, ends[at], &options, cv_slice(NULL, 0),
                                          &link_ops, end, NULL, &end->link)));
    }
}

/* ---- events ---- */

static void on_event(void *arg);

static void next_event(struct sim *sim)
{
    if (sim->events < sim->schedule->event_count)
        (void)cv_worker_timer_start(sim->worker, &sim->event,
                                    sim->schedule->events[sim->events].after_ms);
}

static void detach(struct sim *sim, enum sim_side at)
{
    if (!sim_is_alive(&sim->sides[at]) || !cv_link_detach(sim->sides[at].link))
        return;
    if (at == SIM_AGENT)
        sim_redial_later(sim);
}

static void on_event(void *arg)
{
    struct sim *sim = arg;
    enum sim_event_kind kind = sim->schedule->events[sim->events++].kind;
    enum sim_side at =
        kind == SIM_EVENT_RELAY_DETACHES || kind == SIM_EVENT_RELAY_PROBES ? SIM_RELAY : SIM_AGENT;
    next_event(sim);
    sim->trouble_ms = cv_worker_now_ms(sim->worker);
    if (sim->is_closing)
        return;
    if (kind == SIM_EVENT_OLD_CLAIM || kind == SIM_EVENT_CHANGED_CLAIM)
        sim_repeat_claim(sim, kind == SIM_EVENT_CHANGED_CLAIM);
    else if (kind == SIM_EVENT_AGENT_DETACHES || kind == SIM_EVENT_RELAY_DETACHES)
        detach(sim, at);
    else if (sim_is_alive(&sim->sides[at]))
        cv_link_probe(sim->sides[at].link);
}

/* ---- the run ---- */

static void turn(struct sim *sim)
{
    uint64_t next = sim_worker_next(sim->worker);
    unsigned cuts = sim_worker_cuts(sim->worker);
    cv_fuzz_must(next != SIM_NEVER);
    sim_worker_turn(sim->worker, next);
    if (sim_worker_cuts(sim->worker) != cuts)
        sim->trouble_ms = cv_worker_now_ms(sim->worker);
    check(sim);
}

static bool are_gone(const struct sim *sim)
{
    return !sim->sides[SIM_AGENT].link && !sim->sides[SIM_RELAY].link;
}

/* Everything has arrived, and both know of it: nothing is kept any more. */
static bool is_at_rest(const struct sim *sim)
{
    if (!sim_flows_are_over(sim))
        return false;
    for (int at = 0; at < SIM_SIDES; at++) {
        const struct cv_link *link = sim->sides[at].link;
        if (!link || !link->conn || cv_buf_len(&link->seq.replay))
            return false;
    }
    return true;
}

static void check_ending(const struct sim *sim)
{
    bool were_up = sim->sides[SIM_AGENT].was_up && sim->sides[SIM_RELAY].was_up;
    cv_fuzz_must(!were_up || sim->schedule->never_redials);
}

static void converse(struct sim *sim)
{
    for (unsigned turns = 0; !is_at_rest(sim) && !are_gone(sim); turns++) {
        uint64_t patience_ms = sim->schedule->never_redials || !sim->sides[SIM_AGENT].was_up ||
                                       !sim->sides[SIM_RELAY].was_up
                                   ? WINDOW_MS + SIM_PATIENCE_MS
                                   : SIM_PATIENCE_MS;
        cv_fuzz_must(turns < TURNS_MAX);
        cv_fuzz_must(cv_worker_now_ms(sim->worker) - sim->trouble_ms < patience_ms);
        turn(sim);
    }
}

static void part(struct sim *sim)
{
    struct sim_end *end = &sim->sides[sim->schedule->closer];
    uint64_t end_ms = cv_worker_now_ms(sim->worker) + 2 * WINDOW_MS;
    sim->is_closing = true;
    if (end->link)
        cv_link_close(end->link, cv_ok(), "done");
    while (!are_gone(sim)) {
        cv_fuzz_must(cv_worker_now_ms(sim->worker) < end_ms);
        turn(sim);
    }
}

struct sim_result sim_run(const struct sim_schedule *schedule, const struct cv_ssh_host_key *key)
{
    struct sim sim = {.schedule = schedule, .worker = sim_worker_new()};
    uint64_t start_ms = cv_worker_now_ms(sim.worker);
    sim.trouble_ms = start_ms;
    sim_flows_init(&sim);
    sim_dial_init(&sim);
    cv_timer_init(&sim.event, on_event, &sim);
    start(&sim, key);
    next_event(&sim);
    converse(&sim);
    struct sim_result result = {
        .was_carried = sim_flows_are_over(&sim),
        .was_up = {sim.sides[0].was_up, sim.sides[1].was_up},
        .resumes = sim.resumes,
        .cuts = sim_worker_cuts(sim.worker),
        .bytes = {sim_worker_bytes(sim.worker, SIM_AGENT), sim_worker_bytes(sim.worker, SIM_RELAY)},
        .spent_ms = cv_worker_now_ms(sim.worker) - start_ms};
    if (!result.was_carried)
        check_ending(&sim);
    part(&sim);
    for (int at = 0; at < SIM_SIDES; at++) {
        cv_fuzz_must(cv_ration_taken(sim.sides[at].ration) == 0);
        cv_ration_unref(&sim.sides[at].ration);
    }
    sim_dial_stop(&sim);
    sim_flows_stop(&sim);
    cv_worker_timer_stop(sim.worker, &sim.event);
    sim_dial_done(&sim);
    sim_worker_free(sim.worker);
    return result;
}
