/* SPDX-License-Identifier: MIT */
#include "proto/ws/ws_internal.h"

#include <stdlib.h>

static const char *const state_names[] = {
    [CV_WS_OPEN] = "open",
    [CV_WS_CLOSE_SENT] = "close_sent",
    [CV_WS_CLOSE_RECEIVED] = "close_received",
    [CV_WS_FAILED] = "failed",
    [CV_WS_CLOSED] = "closed",
};

/* RFC 6455 §7.1.2–7.1.4 and §7.1.7. A fault after our own Close leaves nothing to say. */
static const struct cv_fsm_step state_steps[] = {
    {CV_WS_OPEN, CV_WS_CLOSE_SENT, "our Close goes first"},
    {CV_WS_OPEN, CV_WS_CLOSE_RECEIVED, "the peer's Close comes first"},
    {CV_WS_OPEN, CV_WS_FAILED, "the peer broke the rules"},
    {CV_WS_CLOSE_SENT, CV_WS_CLOSED, "the peer's Close, or a fault"},
    {CV_WS_CLOSE_RECEIVED, CV_WS_CLOSED, "our Close"},
    {CV_WS_FAILED, CV_WS_CLOSED, "our Close, which says why"},
};

const struct cv_fsm_def cv_ws_states = {
    .name = "websocket",
    .states = state_names,
    .count = CV_WS_STATE_COUNT,
    CV_FSM_STEPS(state_steps),
};

void cv_ws_options_init(struct cv_ws_options *options, enum cv_ws_role role)
{
    *options = (struct cv_ws_options){
        .role = role,
        .max_frame_bytes = 1 << 20,
        .max_fragments = 4096,
        .max_pending_pongs = 64,
        .max_unanswered_pings = 1024,
        .accepts_text = true,
        .accepts_binary = true,
        .max_inflated_bytes = 16 << 20,
        .deflate_level = 6,
    };
}

static bool window_bits_are_valid(uint8_t bits)
{
    return bits >= 8 && bits <= 15;
}

struct cv_ws *cv_ws_new(const struct cv_ws_options *options)
{
    const struct cv_ws_deflate_params *deflate = &options->deflate;
    if (deflate->is_enabled && (!window_bits_are_valid(deflate->server_max_window_bits) ||
                                !window_bits_are_valid(deflate->client_max_window_bits)))
        return NULL;
    struct cv_ws *ws = calloc(1, sizeof *ws);
    if (!ws)
        return NULL;
    ws->options = *options;
    ws->fsm = (struct cv_fsm){.def = &cv_ws_states, .state = CV_WS_OPEN};
    ws->failure = cv_ok();
    ws->failure_text = "";
    ws->stage = CV_WS_READ_HEAD;
    ws->masks_used = sizeof ws->masks;

    bool is_server = options->role == CV_WS_SERVER;
    uint8_t ours = deflate->server_max_window_bits, theirs = deflate->client_max_window_bits;
    bool ours_has_takeover = !deflate->server_no_context_takeover;
    bool theirs_has_takeover = !deflate->client_no_context_takeover;
    cv_ws_deflater_init(&ws->deflater, is_server ? ours : theirs,
                        is_server ? ours_has_takeover : theirs_has_takeover,
                        options->deflate_level);
    cv_ws_inflater_init(&ws->inflater, is_server ? theirs : ours,
                        is_server ? theirs_has_takeover : ours_has_takeover);
    return ws;
}

void cv_ws_free(struct cv_ws **ws)
{
    if (!*ws)
        return;
    cv_ws_deflater_done(&(*ws)->deflater);
    cv_ws_inflater_done(&(*ws)->inflater);
    free(*ws);
    *ws = NULL;
}

enum cv_ws_state cv_ws_state(const struct cv_ws *ws)
{
    return (enum cv_ws_state)ws->fsm.state;
}

struct cv_status cv_ws_fail(struct cv_ws *ws, enum cv_status_id id, const char *text)
{
    if (!cv_is_ok(ws->failure))
        return ws->failure;
    ws->failure = cv_status(id);
    ws->failure_text = text;
    ws->in_len = 0;
    cv_fsm_set(&ws->fsm, ws->is_close_sent ? CV_WS_CLOSED : CV_WS_FAILED);
    return ws->failure;
}

uint16_t cv_ws_failure_code(const struct cv_ws *ws)
{
    if (cv_is_ok(ws->failure))
        return CV_WS_NO_CODE;
    return (uint16_t)cv_status_ws_close(ws->failure.id);
}

const char *cv_ws_failure_text(const struct cv_ws *ws)
{
    return ws->failure_text;
}

bool cv_ws_close_code_is_valid(unsigned code)
{
    if (code >= 3000)
        return code <= 4999; /* registered by libraries, or private (§7.4.2) */
    if (code == 1004 || code == 1005 || code == 1006)
        return false; /* reserved, or only ever said locally (§7.4.1) */
    return code >= 1000 && code <= 1014;
}

const struct cv_ws_counters *cv_ws_counters(const struct cv_ws *ws)
{
    return &ws->counters;
}
