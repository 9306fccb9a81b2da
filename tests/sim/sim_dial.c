/* SPDX-License-Identifier: MIT
 *
 * Coming back to a simulated link: the agent dials, says its claim, and the relay answers, as
 * agent/uplink.c and relay/resume.c do. Claim and answer travel as the bytes of their structs, so
 * that a path may be cut within them too.
 */
#include "sim_private.h"

#include <string.h>
#include <utlist.h>

enum { CLAIM_TIMEOUT_MS = 20000 }; /* the relay waits so long for a claim to be whole */

struct answer {
    uint64_t received;
    enum cv_status_id verdict;
    uint8_t proof[CV_LINK_PROOF_LEN];
};
_Static_assert(sizeof(struct answer) <= SIM_ANSWER_MAX, "an answer fits");

/* The relay's end of a path, until its claim is whole. */
struct upgrade {
    struct sim *sim;
    struct upgrade *prev, *next;
    struct cv_conn *conn;
    struct cv_timer timeout;
    size_t len;
    uint8_t claim[sizeof(struct cv_link_claim)];
};

/* ---- the relay ---- */

static void upgrade_free(struct upgrade *upgrade)
{
    cv_worker_timer_stop(upgrade->sim->worker, &upgrade->timeout);
    DL_DELETE(upgrade->sim->upgrades, upgrade);
    free(upgrade);
}

static void upgrade_drop(struct upgrade *upgrade)
{
    cv_conn_disown(upgrade->conn);
    cv_conn_close_lingering(upgrade->conn, LINK_CLOSE_MS);
    upgrade_free(upgrade);
}

static void on_upgrade_timeout(void *arg)
{
    upgrade_drop(arg);
}

static void on_upgrade_eof(void *arg)
{
    upgrade_drop(arg);
}

static void on_upgrade_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    (void)why;
    (void)error;
    upgrade_free(arg);
}

static void answer_claim(struct upgrade *upgrade)
{
    struct sim *sim = upgrade->sim;
    struct sim_end *relay = &sim->sides[SIM_RELAY];
    struct answer answer = {.verdict = CV_RESUME_UNKNOWN};
    struct cv_link_claim claim;
    memcpy(&claim, upgrade->claim, sizeof claim);
    if (sim_is_alive(relay))
        answer.verdict =
            cv_link_accept_claim(relay->link, &claim, &answer.received, answer.proof).id;
    cv_fuzz_must(cv_is_ok(cv_buf_append(cv_conn_out(upgrade->conn), &answer, sizeof answer)));
    cv_conn_flush(upgrade->conn);
    if (answer.verdict) {
        upgrade_drop(upgrade);
        return;
    }
    sim->seen = claim;
    sim->has_seen = true;
    cv_fuzz_must(
        cv_is_ok(cv_link_attach(relay->link, upgrade->conn, claim.received, cv_slice(NULL, 0))));
    upgrade_free(upgrade);
}

static void on_upgrade_data(void *arg, uint8_t *data, size_t len)
{
    struct upgrade *upgrade = arg;
    cv_fuzz_must(upgrade->len + len <= sizeof upgrade->claim);
    memcpy(upgrade->claim + upgrade->len, data, len);
    upgrade->len += len;
    if (upgrade->len == sizeof upgrade->claim)
        answer_claim(upgrade);
}

static const struct cv_conn_ops upgrade_ops = {
    .on_data = on_upgrade_data, .on_eof = on_upgrade_eof, .on_closed = on_upgrade_closed};

static void upgrade_new(struct sim *sim, struct cv_conn *conn)
{
    struct upgrade *upgrade = calloc(1, sizeof *upgrade);
    cv_fuzz_must(upgrade);
    upgrade->sim = sim;
    upgrade->conn = conn;
    DL_APPEND(sim->upgrades, upgrade);
    cv_timer_init(&upgrade->timeout, on_upgrade_timeout, upgrade);
    (void)cv_worker_timer_start(sim->worker, &upgrade->timeout, CLAIM_TIMEOUT_MS);
    cv_conn_set_ops(conn, &upgrade_ops, upgrade);
}

void sim_dial_done(struct sim *sim)
{
    while (sim->upgrades)
        upgrade_free(sim->upgrades);
}

void sim_repeat_claim(struct sim *sim, bool is_changed)
{
    struct cv_link *link = sim->sides[SIM_RELAY].link;
    if (!sim->has_seen || !sim_is_alive(&sim->sides[SIM_RELAY]))
        return;
    struct cv_link_claim claim = sim->seen;
    uint64_t received;
    uint8_t proof[CV_LINK_PROOF_LEN];
    const struct cv_conn *conn = link->conn;
    struct cv_link_seq before = link->seq;
    if (is_changed)
        claim.counter += 1 + link->counter;
    enum cv_status_id verdict = cv_link_accept_claim(link, &claim, &received, proof).id;
    cv_fuzz_must(verdict == (is_changed ? CV_RESUME_PROOF : CV_RESUME_CONFLICT));
    cv_fuzz_must(link->conn == conn && memcmp(&before, &link->seq, sizeof before) == 0);
}

/* ---- the agent ---- */

static bool is_wanted(const struct sim *sim)
{
    return sim_is_alive(&sim->sides[SIM_AGENT]) && cv_link_is_detached(sim->sides[SIM_AGENT].link);
}

void sim_redial_later(struct sim *sim)
{
    if (!sim->schedule->never_redials && !cv_timer_is_running(&sim->redial))
        (void)cv_worker_timer_start(sim->worker, &sim->redial, sim->schedule->redial_ms);
}

static void give_up(struct sim *sim)
{
    cv_worker_timer_stop(sim->worker, &sim->dial_timeout);
    if (sim->dialing) {
        cv_conn_disown(sim->dialing);
        cv_conn_close_lingering(sim->dialing, LINK_CLOSE_MS);
    }
    sim->dialing = NULL;
    if (is_wanted(sim))
        sim_redial_later(sim);
}

static void on_dial_end(void *arg)
{
    give_up(arg);
}

static void on_dial_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct sim *sim = arg;
    (void)why;
    (void)error;
    sim->dialing = NULL;
    give_up(sim);
}

/* Only a link that the relay does not have any more is given up; a claim that another one has
 * overtaken is made anew. */
static void take_refusal(struct sim *sim, enum cv_status_id verdict)
{
    cv_fuzz_must(verdict == CV_RESUME_UNKNOWN || verdict == CV_RESUME_CONFLICT);
    if (verdict == CV_RESUME_UNKNOWN) {
        cv_fuzz_must(!sim_is_alive(&sim->sides[SIM_RELAY]) || !sim->sides[SIM_RELAY].was_up);
        cv_link_close(sim->sides[SIM_AGENT].link, cv_status(CV_LINK_LOST), NULL);
    }
    give_up(sim);
}

static void take_answer(struct sim *sim, struct cv_slice early)
{
    struct cv_link *link = sim->sides[SIM_AGENT].link;
    struct cv_conn *conn = sim->dialing;
    struct answer answer;
    memcpy(&answer, sim->answer, sizeof answer);
    if (!is_wanted(sim)) {
        give_up(sim);
        return;
    }
    if (answer.verdict) {
        take_refusal(sim, answer.verdict);
        return;
    }
    cv_fuzz_must(cv_link_is_answer_to(link, &sim->claim, answer.received,
                                      cv_slice(answer.proof, sizeof answer.proof)));
    cv_worker_timer_stop(sim->worker, &sim->dial_timeout);
    sim->dialing = NULL;
    sim->resumes++;
    cv_fuzz_must(cv_is_ok(cv_link_attach(link, conn, answer.received, early)));
}

static void on_dial_data(void *arg, uint8_t *data, size_t len)
{
    struct sim *sim = arg;
    size_t missing = sizeof(struct answer) - sim->answer_len;
    size_t used = len < missing ? len : missing;
    memcpy(sim->answer + sim->answer_len, data, used);
    sim->answer_len += used;
    if (used == missing)
        take_answer(sim, cv_slice(data + used, len - used));
}

static const struct cv_conn_ops dial_ops = {
    .on_data = on_dial_data, .on_eof = on_dial_end, .on_closed = on_dial_closed};

void sim_next_path(struct sim *sim, struct cv_conn *ends[SIM_SIDES])
{
    unsigned last = sim->schedule->path_count - 1;
    struct sim_path_options options = sim->schedule->paths[sim->paths < last ? sim->paths : last];
    if (sim->paths > last)
        options.cut.offset = SIM_NEVER;
    sim->paths++;
    (void)sim_path_new(sim->worker, &options, ends);
}

static void on_redial(void *arg)
{
    struct sim *sim = arg;
    struct cv_conn *ends[SIM_SIDES];
    if (!is_wanted(sim) || sim->dialing)
        return;
    sim_next_path(sim, ends);
    cv_fuzz_must(cv_is_ok(cv_link_claim(sim->sides[SIM_AGENT].link, &sim->claim)));
    upgrade_new(sim, ends[SIM_RELAY]);
    sim->dialing = ends[SIM_AGENT];
    sim->answer_len = 0;
    cv_conn_set_ops(sim->dialing, &dial_ops, sim);
    cv_fuzz_must(
        cv_is_ok(cv_buf_append(cv_conn_out(sim->dialing), &sim->claim, sizeof sim->claim)));
    cv_conn_flush(sim->dialing);
    (void)cv_worker_timer_start(sim->worker, &sim->dial_timeout, sim->schedule->dial_timeout_ms);
}

void sim_dial_init(struct sim *sim)
{
    cv_timer_init(&sim->redial, on_redial, sim);
    cv_timer_init(&sim->dial_timeout, on_dial_end, sim);
}

void sim_dial_stop(struct sim *sim)
{
    cv_worker_timer_stop(sim->worker, &sim->redial);
    cv_worker_timer_stop(sim->worker, &sim->dial_timeout);
    if (sim->dialing)
        cv_conn_disown(sim->dialing);
}
